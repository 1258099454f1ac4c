//! Instructions a request, counted by valgrind: the figure that a busy machine does not change.
//!
//! Each contender runs twice with the same connections but a different number of requests; the
//! difference of the two counts is free of start-up and shut-down. Only user-space instructions
//! are counted: a program that makes fewer system calls looks no better here.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use tokio::time::timeout;

use crate::contenders::{AccessLog, Contender, Front, Launch, MEDIUM_BYTES, Mode, SMALL_BODY};
use crate::drive::{Protocol, Until, Work, drive};
use crate::setup::Setup;
use crate::websocket;

/// Requests in both runs: enough to fill pools and caches.
const BASE_REQUESTS: u64 = 2_000;
/// Valgrind runs about fifty times slower than the machine; at this rate something is stuck.
const SLOWEST_REQUESTS_PER_SECOND: u64 = 20;

/// What the counted requests are.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Workload {
    /// 50 bytes, keep-alive
    Small,
    /// 100 KB, keep-alive
    Medium,
    /// 50 bytes over TLS 1.3, keep-alive
    Tls,
    /// 50 bytes over HTTP/2 over TLS
    Http2,
    /// Messages of 50 bytes, echoed
    Websocket,
}

impl Workload {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::Websocket => "websocket",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::value_variants().iter().copied().find(|workload| workload.name() == name)
    }

    fn front(self) -> Front {
        match self {
            Self::Small | Self::Medium => Front::Plain,
            Self::Tls => Front::Tls,
            Self::Http2 => Front::Http2,
            Self::Websocket => Front::Websocket,
        }
    }

    fn work(self) -> Work {
        let (protocol, path, body_bytes) = match self {
            Self::Small => (Protocol::Http1, "/", SMALL_BODY.len()),
            Self::Medium => (Protocol::Http1, "/medium", MEDIUM_BYTES),
            Self::Tls => (Protocol::Tls, "/", SMALL_BODY.len()),
            Self::Http2 => (Protocol::Http2, "/", SMALL_BODY.len()),
            Self::Websocket => (Protocol::Websocket, "/", websocket::PAYLOAD.len()),
        };
        Work { protocol, path, body_bytes }
    }
}

/// How much is sent for a count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) connections: u64,
    /// Requests by which the two runs differ.
    pub(crate) requests: u64,
}

/// Prints a table of the instructions a request of each contender and workload.
pub(crate) async fn table(
    setup: &Setup,
    contenders: &[Contender],
    workloads: &[Workload],
    load: Load,
) -> anyhow::Result<()> {
    println!(
        "Instructions a request in user space (callgrind; keep-alive, {} connections,",
        load.connections
    );
    println!("access log off):\n");
    let names: Vec<_> = workloads.iter().map(|workload| workload.name()).collect();
    println!("| | {} |", names.join(" | "));
    println!("|---|{}", "---:|".repeat(names.len()));
    for &contender in contenders {
        let mut counts = Vec::new();
        for &workload in workloads {
            counts.push(count(setup, contender, workload, load).await?.to_string());
        }
        println!("| {contender} | {} |", counts.join(" | "));
    }
    Ok(())
}

/// Instructions of one request.
pub(crate) async fn count(
    setup: &Setup,
    contender: Contender,
    workload: Workload,
    load: Load,
) -> anyhow::Result<u64> {
    let few = instructions(setup, contender, workload, load.connections, BASE_REQUESTS).await?;
    let requests = BASE_REQUESTS + load.requests;
    let many = instructions(setup, contender, workload, load.connections, requests).await?;
    Ok(many.saturating_sub(few) / load.requests)
}

async fn instructions(
    setup: &Setup,
    contender: Contender,
    workload: Workload,
    connections: u64,
    requests: u64,
) -> anyhow::Result<u64> {
    eprintln!("bench: {contender} under callgrind, {requests} requests of {}", workload.name());
    let out = setup.dir.path().join("callgrind.out");
    let launch = Launch {
        mode: Mode::Callgrind(out.clone()),
        ..Launch::new(AccessLog::Off, workload.front())
    };
    let proxy = contender.start(setup, &launch).await?;

    let within = Duration::from_secs(60 + requests / SLOWEST_REQUESTS_PER_SECOND);
    let driven = drive(proxy.port, workload.work(), connections, Until::Requests(requests));
    let tally = timeout(within, driven)
        .await
        .with_context(|| format!("{requests} requests took longer than {within:?}"))?
        .with_context(|| format!("{contender}{}", proxy.process.log_tail()))?;
    if let Some(error) = tally.first_failure {
        bail!("{contender}: {} requests failed, first: {error:#}", tally.failed);
    }

    proxy.process.stop().await?;
    let text = fs::read_to_string(&out).context("valgrind left no count")?;
    fs::remove_file(&out).context("the count stays")?;
    total(&text).context("no total in what valgrind left")
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

    #[test]
    fn workloads_are_found_by_the_names_of_the_command_line() {
        for workload in Workload::value_variants() {
            let on_command_line = workload.to_possible_value().unwrap();
            assert_eq!(on_command_line.get_name(), workload.name());
            assert_eq!(Workload::from_name(workload.name()), Some(*workload));
        }
        assert_eq!(Workload::from_name("large"), None);
    }
}
