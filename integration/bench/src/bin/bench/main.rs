//! The benchmark: router, nginx, HAProxy and a layer-4 floor in front of the same origin, one after
//! the other in one run.
//!
//! This file has the command line and the order of the work. [`scenario`] lists what is measured,
//! [`contenders`] starts the proxies, [`setup`] everything they share, [`process`] any of them.
//! [`load`] takes a sample, with wrk or with the generators in [`drive`] and [`handshakes`];
//! [`report`] prints the tables. [`callgrind`] counts instructions and [`budget`] compares them with
//! committed figures; [`storm`] is about slow clients, [`idle`] about memory. `docs/benchmarks.md`
//! says what the numbers mean. The tests must not depend on any of it: a benchmark that changes with
//! the harness cannot be compared with last month's.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program: the result goes to stdout, progress to stderr"
)]

mod budget;
mod callgrind;
mod contenders;
mod drive;
mod floor;
mod handshakes;
mod idle;
mod load;
mod process;
mod report;
mod scenario;
mod setup;
mod storm;
mod tally;
mod tls;
mod tools;
mod websocket;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use budget::Budget;
use callgrind::Workload;
use contenders::{AccessLog, Contender, Launch};
use handshakes::Handshakes;
use load::Sample;
use report::{Report, Table};
use scenario::{Scenario, Subject};
use setup::{Cores, Room, Setup};
use storm::Storm;

/// Load before the measured part of a sample: fills connection pools, caches and branch predictors.
const WARM_UP: Duration = Duration::from_secs(1);

/// Tries for an undisturbed sample; a machine that is busy all the time must not keep the run going.
const TRIES: u32 = 3;

/// Compare the router with nginx, HAProxy and a layer-4 floor on this machine.
///
/// Each proxy runs on one core; the load generator, the origin and Redis share another. Everything
/// is started by this program on loopback and free ports, and stopped by it.
#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    load: Option<Load>,

    /// Seconds of load in each sample, after one second of warm-up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Samples of each proxy in each scenario, interleaved
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,

    /// Connections of the load generator, where the scenario does not say how many
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1000))]
    connections: u64,

    /// What to ask for
    #[arg(long, value_enum, value_delimiter = ',', default_value = "small,connect,large")]
    scenario: Vec<Scenario>,

    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_value = "router,nginx,haproxy,floor")]
    proxies: Vec<Contender>,

    /// With the access log off, on, or both: one table each
    #[arg(long, value_enum, value_delimiter = ',', default_value = "off,on")]
    access_log: Vec<AccessLog>,

    /// Count instructions a request with valgrind instead of measuring time
    #[arg(long)]
    callgrind: bool,

    /// Requests between the two counts of --callgrind
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    callgrind_requests: u64,

    /// What to count with --callgrind
    #[arg(long, value_enum, value_delimiter = ',', default_value = "small")]
    workload: Vec<Workload>,

    /// Count the router's instructions, compare them with this file and fail when it is exceeded
    #[arg(long, value_name = "FILE", requires = "callgrind", conflicts_with = "workload")]
    budget: Option<PathBuf>,

    /// Measure the effect of slow clients instead of throughput
    #[arg(long, value_enum, value_delimiter = ',')]
    storm: Vec<Storm>,

    /// Slow clients of each kind
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=2500))]
    slow_clients: u64,

    /// Core of the proxy [default: the last one this process may use]
    #[arg(long)]
    proxy_core: Option<u32>,

    /// Core of the load generator, the origin and Redis [default: the first one]
    #[arg(long)]
    load_core: Option<u32>,

    /// Measure this router instead of building the release one
    #[arg(long, value_name = "FILE")]
    router_bin: Option<PathBuf>,
}

/// What this program starts itself as.
#[derive(Debug, Subcommand)]
enum Load {
    /// A TLS connection for every request
    #[command(hide = true)]
    Handshakes(Handshakes),
    /// HTTP/2, WebSockets
    #[command(hide = true)]
    Drive(drive::Drive),
    /// The layer-4 floor
    #[command(hide = true)]
    Floor(floor::Floor),
    /// The origin of WebSockets
    #[command(hide = true)]
    Echo(websocket::Echo),
    /// Well-behaved clients at a fixed rate
    #[command(hide = true)]
    Steady(storm::Steady),
    /// Slow clients
    #[command(hide = true)]
    Slow(storm::Slow),
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    args.scenario = Scenario::expand(&args.scenario);
    dedup(&mut args.scenario);
    dedup(&mut args.proxies);
    dedup(&mut args.access_log);

    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dedup<T: Copy + PartialEq>(values: &mut Vec<T>) {
    let mut seen = Vec::new();
    values.retain(|value| {
        let new = !seen.contains(value);
        seen.push(*value);
        new
    });
}

fn run(args: &Args) -> anyhow::Result<()> {
    // One thread: the parent-death signal of the children belongs to the thread that started them.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // Leaving the select drops the work, and with it every process that it started.
        tokio::select! {
            result = async {
                match &args.load {
                    Some(load) => load.run().await,
                    None => work(args).await,
                }
            } => result,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

impl Load {
    async fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Handshakes(handshakes) => println!("{}", handshakes.run().await?),
            Self::Drive(drive) => println!("{}", drive.run().await?),
            Self::Floor(floor) => println!("{}", floor.run().await?),
            Self::Echo(echo) => println!("{}", echo.run().await?),
            Self::Steady(steady) => println!("{}", steady.run()?),
            Self::Slow(slow) => println!("{}", slow.run().await?),
        }
        Ok(())
    }
}

async fn work(args: &Args) -> anyhow::Result<()> {
    let budget = args.budget.as_deref().map(Budget::read).transpose()?;
    tools::check_tools(&args.proxies, args.callgrind)?;
    let cores = choose_cores(args)?;
    let router = match &args.router_bin {
        Some(path) => path.canonicalize().with_context(|| path.display().to_string())?,
        None if args.proxies.contains(&Contender::Router) || budget.is_some() => {
            benchmarks::build_router("bench").await?
        }
        None => PathBuf::new(),
    };

    let is_timed = !args.callgrind && args.storm.is_empty();
    let only_idle = args.scenario.iter().all(|scenario| *scenario == Scenario::Idle);
    if !(is_timed && only_idle) {
        let room = if args.storm.is_empty() { Room::Usual } else { Room::Storm };
        let hosts = args.scenario.iter().map(|scenario| scenario.most_hosts()).max();
        let hosts = hosts.filter(|_| is_timed).unwrap_or(0);
        let setup = Setup::start(cores, router.clone(), room, hosts).await?;
        let outcome = work_in(args, &setup, budget.as_ref()).await;
        setup.stop().await;
        outcome?;
    }
    if is_timed && args.scenario.contains(&Scenario::Idle) {
        let setup = Setup::start(cores, router, Room::Idle, 0).await?;
        let outcome = idle::measure(&setup, &args.proxies, args.rounds).await;
        setup.stop().await;
        outcome?;
    }
    Ok(())
}

/// All but idle connections, which need a setup with more room.
async fn work_in(args: &Args, setup: &Setup, budget: Option<&Budget>) -> anyhow::Result<()> {
    let counted =
        callgrind::Load { connections: args.connections, requests: args.callgrind_requests };
    if let Some(budget) = budget {
        let mut counts = Vec::new();
        for workload in budget.workloads()? {
            let count = callgrind::count(setup, Contender::Router, workload, counted).await?;
            counts.push((workload, count));
        }
        budget.check(&counts)
    } else if args.callgrind {
        callgrind::table(setup, &args.proxies, &args.workload, counted).await
    } else if !args.storm.is_empty() {
        let length = storm::Length { seconds: args.seconds, rounds: args.rounds };
        storm::measure(setup, &args.proxies, &args.storm, args.slow_clients, length).await
    } else {
        measure(args, setup).await
    }
}

async fn measure(args: &Args, setup: &Setup) -> anyhow::Result<()> {
    let mut report = Report::new(report::Conditions::read(setup, &args.proxies, args).await);
    for &access_log in &args.access_log {
        for &scenario in args.scenario.iter().filter(|scenario| **scenario != Scenario::Idle) {
            report.tables.push(Table::new(scenario, access_log, &args.proxies));
        }
    }

    for round in 0..args.rounds {
        for table in &mut report.tables {
            // Another row goes first in each round, so none always profits from a quiet moment.
            let mut subjects = table.subjects();
            let first = usize::try_from(round).unwrap_or(0) % subjects.len().max(1);
            subjects.rotate_left(first);
            for subject in subjects {
                let sample = undisturbed(args, setup, table, subject).await?;
                eprintln!(
                    "round {}/{} {} log {}: {:<8} {}",
                    round + 1,
                    args.rounds,
                    table.scenario,
                    table.access_log,
                    table.scenario.label(subject),
                    sample.line(),
                );
                table.push(subject, sample);
            }
        }
    }

    println!("{report}");
    Ok(())
}

/// A sample in which the proxy had its core to itself, or the best of a few tries.
///
/// Chosen by that alone, never by the figures: a choice among results would be no measurement.
async fn undisturbed(
    args: &Args,
    setup: &Setup,
    table: &Table,
    subject: Subject,
) -> anyhow::Result<Sample> {
    let mut best = measure_once(args, setup, table, subject).await?;
    for _ in 1..TRIES {
        if !best.is_disturbed() || table.scenario.shares_cores() {
            break;
        }
        eprintln!("again, disturbed: {:<8} {}", table.scenario.label(subject), best.line());
        let next = measure_once(args, setup, table, subject).await?;
        if next.displaced < best.displaced {
            best = next;
        }
    }
    Ok(best)
}

/// One sample of a proxy started for it alone: memory and pools start from nothing.
async fn measure_once(
    args: &Args,
    setup: &Setup,
    table: &Table,
    subject: Subject,
) -> anyhow::Result<Sample> {
    let scenario = table.scenario;
    let launch = Launch {
        workers: subject.workers,
        hosts: subject.hosts,
        shares_cores: scenario.shares_cores(),
        ..Launch::new(table.access_log, scenario.front())
    };
    let mut proxy = subject.contender.start(setup, &launch).await?;
    let connections = scenario.connections(args.connections);
    let load = load::Load { scenario, subject, connections };
    let sample = load::sample(setup, &proxy, load, Duration::from_secs(args.seconds)).await;
    // A proxy that died explains the failed requests better than they do.
    proxy.process.check_alive()?;
    let sample = sample.with_context(|| {
        format!("{}, {scenario}{}", scenario.label(subject), proxy.process.log_tail())
    })?;
    proxy.process.stop().await?;
    Ok(sample)
}

fn choose_cores(args: &Args) -> anyhow::Result<Cores> {
    let allowed = process::allowed_cores()?;
    let (Some(&first), Some(&last)) = (allowed.first(), allowed.last()) else {
        bail!("no core to run on");
    };
    let proxy = args.proxy_core.unwrap_or(last);
    let load = args.load_core.unwrap_or(first);
    for core in [proxy, load] {
        if !allowed.contains(&core) {
            bail!("core {core} is not one of those this process may use: {allowed:?}");
        }
    }
    if proxy == load {
        bail!(
            "the proxy and the load generator need a core each; this process may use {allowed:?}"
        );
    }
    Ok(Cores { proxy, load })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_well_formed() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn values_given_twice_count_once_and_keep_their_order() {
        let mut values = vec![3, 1, 3, 2, 1];
        dedup(&mut values);
        assert_eq!(values, [3, 1, 2]);
    }
}
