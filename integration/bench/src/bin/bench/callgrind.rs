//! Instructions a request, counted by valgrind: the figure that a busy machine does not change.
//!
//! Each contender runs twice with the same connections but a different number of requests; the
//! difference of the two counts is free of start-up and shut-down. Only user-space instructions
//! are counted: a program that makes fewer system calls looks no better here.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::contenders::{AccessLog, Contender, Front, HOST, Mode, Scenario, Setup};

/// Requests in both runs: enough to fill pools and caches.
const BASE_REQUESTS: u64 = 2_000;
/// Valgrind runs about fifty times slower than the machine; at this rate something is stuck.
const SLOWEST_REQUESTS_PER_SECOND: u64 = 20;

pub(crate) async fn count(
    setup: &Setup,
    contenders: &[Contender],
    connections: u64,
    requests: u64,
) -> anyhow::Result<()> {
    println!("Instructions a request in user space (callgrind; small GET, keep-alive,");
    println!("{connections} connections, access log off):\n");
    println!("| | instructions a request |");
    println!("|---|---:|");
    for &contender in contenders {
        let few = instructions(setup, contender, connections, BASE_REQUESTS).await?;
        let many = instructions(setup, contender, connections, BASE_REQUESTS + requests).await?;
        println!("| {contender} | {} |", many.saturating_sub(few) / requests);
    }
    Ok(())
}

async fn instructions(
    setup: &Setup,
    contender: Contender,
    connections: u64,
    requests: u64,
) -> anyhow::Result<u64> {
    eprintln!("bench: {contender} under callgrind, {requests} requests");
    let out = setup.dir.path().join("callgrind.out");
    let mode = Mode::Callgrind(out.clone());
    let proxy = contender.start_in(setup, AccessLog::Off, Front::Plain, &mode).await?;

    let within = Duration::from_secs(60 + requests / SLOWEST_REQUESTS_PER_SECOND);
    timeout(within, drive(proxy.port, connections, requests))
        .await
        .with_context(|| format!("{requests} requests took longer than {within:?}"))?
        .with_context(|| format!("{contender}{}", proxy.process.log_tail()))?;

    proxy.process.stop().await?;
    let text = fs::read_to_string(&out).context("valgrind left no count")?;
    fs::remove_file(&out).context("the count stays")?;
    total(&text).context("no total in what valgrind left")
}

/// Exactly `requests` requests, spread evenly over connections that stay open to the end.
async fn drive(port: u16, connections: u64, requests: u64) -> anyhow::Result<()> {
    let mut clients = JoinSet::new();
    for client in 0..connections {
        let share = requests / connections + u64::from(client < requests % connections);
        clients.spawn(drive_one(port, share));
    }
    while let Some(result) = clients.join_next().await {
        result.context("a client panicked")??;
    }
    Ok(())
}

async fn drive_one(port: u16, requests: u64) -> anyhow::Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        for _ in 0..requests {
            sender.ready().await?;
            let request = Request::get(Scenario::Small.path())
                .header(header::HOST, HOST)
                .body(Empty::<Bytes>::new())?;
            let answer = sender.send_request(request).await?;
            ensure!(answer.status() == 200, "status {}", answer.status());
            let body = answer.into_body().collect().await?.to_bytes();
            ensure!(body.len() == Scenario::Small.body_bytes(), "{} bytes", body.len());
        }
        Ok(())
    };
    // The connection ends when the exchange drops its sender.
    let (exchanged, connected) = tokio::join!(exchange, connection);
    exchanged?;
    connected.context("connection")
}

fn total(callgrind: &str) -> Option<u64> {
    callgrind.lines().rev().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_is_read_from_the_end_of_the_file() {
        let file = "version: 1\nevents: Ir\n\nfn=(1) main\n16 400\n\ntotals: 123456\n";
        assert_eq!(total(file), Some(123_456));
        assert_eq!(total("version: 1\n"), None);
    }
}
