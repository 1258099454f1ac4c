//! The load generator of `handshake` and `resume`: a TLS connection for every request.
//!
//! wrk is no help there: it goes on with sessions as OpenSSL sees fit. This one is sure of which
//! handshake it got. It is run as a process of its own, on the load generator's core, and prints
//! the line that wrk's script prints.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::contenders::{HOST, Scenario, parse_answer};
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

#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    bytes: usize,
    failed: usize,
    first_failure: Option<anyhow::Error>,
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
            let tally = tally.context("a client panicked")?;
            all.latencies.extend(tally.latencies);
            all.bytes += tally.bytes;
            all.failed += tally.failed;
            all.first_failure = all.first_failure.or(tally.first_failure);
        }
        if let Some(error) = &all.first_failure {
            println!("first failure: {error:#}");
        }
        all.latencies.sort_unstable();
        Ok(format!(
            "bench requests={} duration_us={} bytes={} p50_us={} p99_us={} connect=0 read={} \
             write=0 timeout=0 status=0",
            all.latencies.len(),
            started.elapsed().as_micros(),
            all.bytes,
            percentile(&all.latencies, 0.5).as_micros(),
            percentile(&all.latencies, 0.99).as_micros(),
            all.failed,
        ))
    }
}

/// The value that this share of the sorted values does not exceed.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are far below 2^52"
)]
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
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
        match as_wanted {
            Ok(bytes) => {
                tally.bytes += bytes;
                tally.latencies.push(started.elapsed());
            }
            Err(error) => {
                tally.failed += 1;
                tally.first_failure.get_or_insert(error);
            }
        }
    }
    tally
}

/// Bytes of the answer, and whether an earlier session was gone on with.
async fn exchange(client: &Client, port: u16) -> anyhow::Result<(usize, bool)> {
    let (mut stream, is_resumed) = client.connect(port).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    stream.read_to_end(&mut answer).await?;
    let (status, body) = parse_answer(&answer).context("no HTTP answer")?;
    ensure!(status == 200, "status {status}");
    ensure!(body.len() == Scenario::Handshake.body_bytes(), "a body of {} bytes", body.len());
    Ok((answer.len(), is_resumed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 0.5), Duration::from_millis(100));
        assert_eq!(percentile(&values, 0.99), Duration::from_millis(198));
        assert_eq!(percentile(&values, 1.0), Duration::from_millis(200));
        assert_eq!(percentile(&values[..1], 0.01), Duration::from_millis(1));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }
}
