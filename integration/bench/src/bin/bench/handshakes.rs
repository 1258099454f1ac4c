//! The load generator of `handshake` and `resume`: a TLS connection for every request.
//!
//! wrk cannot measure this: whether it resumes a session is up to OpenSSL. This generator checks
//! which kind of handshake it got. It runs as a process of its own, on the load generator's core, and
//! prints the line that wrk's script prints.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::contenders::{HOST, SMALL_BODY, parse_answer};
use crate::tally::Tally;
use crate::tls::Client;

/// As wrk's limit in `load`.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Args)]
pub(crate) struct Handshakes {
    #[arg(long)]
    pub(crate) port: u16,
    #[arg(long)]
    pub(crate) seconds: u64,
    #[arg(long)]
    pub(crate) connections: u64,
    #[arg(long)]
    pub(crate) resumes: bool,
}

impl Handshakes {
    pub(crate) async fn run(&self) -> anyhow::Result<String> {
        let (started, mut all) = (Instant::now(), Tally::default());
        let end = started + Duration::from_secs(self.seconds);
        let mut clients = JoinSet::new();
        for _ in 0..self.connections {
            // Each with a memory of its own: a shared one keeps too few tickets of one server.
            clients.spawn(repeat(Client::new(self.resumes)?, self.port, self.resumes, end));
        }
        while let Some(tally) = clients.join_next().await {
            all.add(tally.context("a client panicked")?);
        }
        Ok(all.report(started.elapsed()))
    }
}

/// Requests one after the other. A client that resumes begins with one full handshake.
async fn repeat(client: Client, port: u16, resumes: bool, end: Instant) -> Tally {
    let mut tally = Tally::default();
    let mut is_first = true;
    while Instant::now() < end {
        let started = Instant::now();
        let exchanged = timeout(ANSWER_WITHIN, exchange(&client, port)).await;
        let exchanged = exchanged.context("no answer in time").and_then(|result| result);
        let as_wanted = exchanged.and_then(|(bytes, is_resumed)| {
            ensure!(is_first || is_resumed == resumes, "handshake resumed: {is_resumed}");
            Ok(bytes)
        });
        is_first = false;
        tally.record(started, as_wanted);
    }
    tally
}

/// Bytes of the response, and whether the handshake resumed an earlier session.
async fn exchange(client: &Client, port: u16) -> anyhow::Result<(usize, bool)> {
    let (mut stream, is_resumed) = client.connect(port).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    stream.read_to_end(&mut answer).await?;
    let (status, body) = parse_answer(&answer).context("no HTTP answer")?;
    ensure!(status == 200, "status {status}");
    ensure!(body.len() == SMALL_BODY.len(), "a body of {} bytes", body.len());
    Ok((answer.len(), is_resumed))
}
