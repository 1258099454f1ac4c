//! The benchmark of freshness: how soon a change in Redis counts, what an outage of Redis costs,
//! and what it takes to know.
//!
//! Lives here: the command line, the order of the work and the report. [`mod@fresh`] writes at random
//! and has each answer judged by [`judge`] against [`model`]; [`outage`] takes Redis away;
//! [`cost`] measures processor time and memory, up to a million
//! frontends. `docs/benchmarks.md` says what the numbers mean.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program: the result goes to stdout, progress to stderr"
)]

mod cost;
mod fresh;
mod http;
mod judge;
mod model;
mod origin;
mod outage;
mod probe;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use integration::redis::Redis;
use integration::router::Router;
use integration::sentinel::{SERVICE, Sentinel};
use tokio::runtime::Runtime;

use judge::quantile;
use origin::Origins;
use outage::{Outage, Topology};
use probe::Cpu;

/// Names the router's binary to the harness.
const ROUTER_BINARY: &str = "ROUTER_BINARY";
/// Backends to tell answers apart by.
const ORIGINS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Part {
    /// Random writes under load: age of the answers
    Fresh,
    /// Redis killed and frozen under load
    Outage,
    /// Processor time a request and memory a host
    Cost,
    /// Edits elsewhere in the key space
    Edits,
    /// A million frontends, and names that nobody has
    Scale,
}

/// Measure how fresh the router's answers are, and what that costs.
///
/// Redis, backends, the router and the load are started by this program on loopback and free
/// ports, and stopped by it.
#[derive(Debug, Parser)]
#[command(name = "freshness")]
struct Args {
    /// What to measure
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "fresh,outage,cost,edits,scale"
    )]
    parts: Vec<Part>,

    /// Random writes
    #[arg(long, default_value_t = 10_000)]
    writes: usize,

    /// Seed of the random writes, and part of the names that are edited elsewhere
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Connections that ask for the host that is written to, without a pause
    #[arg(long, default_value_t = 2)]
    focused: usize,

    /// Connections that ask for any host every 2 ms
    #[arg(long, default_value_t = 6)]
    background: usize,

    /// The router's `server.cache` in the part `fresh`: with `ttl`, answers have to be too old
    #[arg(long, default_value = "tracking")]
    cache: String,

    /// Seconds that Redis is away
    #[arg(long, default_value_t = 5)]
    outage_seconds: u64,

    /// Virtual hosts of the cost
    #[arg(long, default_value_t = 100_000)]
    vhosts: usize,

    /// Frontends in Redis for the part `scale`
    #[arg(long, default_value_t = 1_000_000)]
    frontends: usize,

    /// Seconds of each sample of the cost
    #[arg(long, default_value_t = 1)]
    seconds: u64,

    /// Samples of each kind, interleaved
    #[arg(long, default_value_t = 15)]
    rounds: usize,

    /// Fail when a threshold in the report is missed; times mean little on a busy machine
    #[arg(long)]
    strict: bool,

    /// Measure this router instead of building the release one
    #[arg(long, value_name = "FILE")]
    router_bin: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("freshness: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was as promised.
fn run(args: &Args) -> anyhow::Result<bool> {
    name_router(args)?;
    probe::catch_signals()?;
    let mut is_good = true;
    let mut misses = Vec::new();
    println!("## Freshness\n");
    println!("Router `{}`.\n", version()?);
    for part in &args.parts {
        eprintln!("freshness: {part:?}");
        match part {
            Part::Fresh => is_good &= fresh(args, &mut misses)?,
            Part::Outage => is_good &= outages(args, &mut misses)?,
            Part::Cost => cost::requests(args, &mut misses)?,
            Part::Edits => cost::edits(args, &mut misses)?,
            Part::Scale => cost::scale(args, &mut misses)?,
        }
    }
    if misses.is_empty() {
        println!("Every threshold was met.");
    } else {
        println!("Missed: {}.", misses.join("; "));
    }
    Ok(is_good && (misses.is_empty() || !args.strict))
}

/// The harness takes the router from the environment, which only a new process can have changed.
fn name_router(args: &Args) -> anyhow::Result<()> {
    if std::env::var_os(ROUTER_BINARY).is_some() && args.router_bin.is_none() {
        return Ok(());
    }
    let router = match &args.router_bin {
        Some(path) => path.canonicalize().with_context(|| path.display().to_string())?,
        None => Runtime::new()?.block_on(benchmarks::build_router("freshness"))?,
    };
    if std::env::var_os(ROUTER_BINARY).is_some_and(|path| Path::new(&path) == router) {
        return Ok(());
    }
    let mut command = Command::new(std::env::current_exe()?);
    let error = command.args(std::env::args_os().skip(1)).env(ROUTER_BINARY, router).exec();
    Err(error).context("could not start again with the router's path")
}

fn version() -> anyhow::Result<String> {
    let output = Command::new(integration::router::binary()).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A connection to Redis whose errors are errors.
fn connect(redis: &Redis) -> anyhow::Result<redis::Connection> {
    let client = redis::Client::open(format!("unix://{}", redis.socket().display()))?;
    client.get_connection().context("no connection to Redis")
}

fn fresh(args: &Args, misses: &mut Vec<String>) -> anyhow::Result<bool> {
    if args.focused == 0 || args.writes == 0 {
        bail!("nothing to measure without writes and focused connections");
    }
    let origins = Origins::start(ORIGINS)?;
    let redis = Redis::start();
    let router = Router::builder(&redis)
        .set("server.cache", args.cache.as_str())
        .set("server.accessLog", "none")
        .workers(2)
        .start();
    let pid = router.process().pid();
    let before = Cpu::of(pid)?;
    let options = fresh::Options {
        writes: args.writes,
        seed: args.seed,
        focused: args.focused,
        background: args.background,
    };
    let outcome = fresh::run(router.addr(), &mut connect(&redis)?, &origins, options)?;
    let cpu = Cpu::of(pid)?.since(before);
    for offender in &outcome.offenders {
        eprintln!("freshness: {offender}");
    }
    let us = |values: &[u64], share| quantile(values, share) as f64 / 1e3;
    let share = |time: std::time::Duration| 100.0 * time.as_secs_f64() / outcome.seconds;
    println!("### Random writes under load\n");
    println!(
        "{} writes (seed {}) in {:.1} s; {} requests over {} connections; the router used {:.0} % \
         of a core and waited {:.1} % of the time for one.\n",
        outcome.writes,
        args.seed,
        outcome.seconds,
        outcome.requests,
        args.focused + args.background,
        share(cpu.ran),
        share(cpu.waited)
    );
    println!("| | count | p50 µs | p99 µs | max µs | |\n|---|---|---|---|---|---|");
    let row = |what: &str, values: &[u64], note: String| {
        println!(
            "| {what} | {} | {:.0} | {:.0} | {:.0} | {note} |",
            values.len(),
            us(values, 0.5),
            us(values, 0.99),
            us(values, 1.0)
        );
    };
    row(
        "write → effect",
        &outcome.effects,
        format!("p99 < 2000; {} more had the next write before a request", outcome.unseen),
    );
    row("oldest answer of each write that left any", &outcome.oldest_by_write, String::new());
    row(
        "answers older than their write",
        &outcome.ages,
        format!("older than 5 ms: {}", outcome.too_old()),
    );
    row(
        "requests",
        &outcome.latencies,
        format!("failed: {}, wrong in every state: {}", outcome.failed, outcome.wrong),
    );
    row("the writes themselves", &outcome.write_times, String::new());
    let kinds: Vec<_> =
        outcome.kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    println!("\nWrites: {}.\n", kinds.join(", "));
    if outcome.misses_thresholds() {
        misses.push(format!(
            "write → effect p99 {:.0} µs, {} answers older than 5 ms",
            us(&outcome.effects, 0.99),
            outcome.too_old()
        ));
    }
    Ok(!outcome.is_broken())
}

fn outages(args: &Args, misses: &mut Vec<String>) -> anyhow::Result<bool> {
    let origins = Origins::start(2)?;
    let redis = Redis::start();
    let router =
        Router::builder(&redis).unset("server.cache").set("server.accessLog", "none").start();
    println!("### Redis away for {} s, under load on known hosts\n", args.outage_seconds);
    println!("| Redis | requests | failed | p99 | max | new route after | changed route after |");
    println!("|---|---|---|---|---|---|---|");
    let mut failed = 0;
    for outage in [Outage::Killed, Outage::Frozen, Outage::FailedOver] {
        let outcome = match outage {
            Outage::Killed | Outage::Frozen => {
                let alone = Topology::Alone;
                outage::run(outage, args.outage_seconds, router.addr(), &redis, alone, &origins)?
            }
            Outage::FailedOver => fail_over(args, &origins)?,
        };
        for error in &outcome.errors {
            eprintln!("freshness: {outage:?}: {error}");
        }
        println!("{}", outcome.row());
        failed += outcome.failed;
        if outcome.misses_thresholds() {
            misses.push(format!(
                "a new route after Redis was {outage:?}: {:?}, a changed one: {:?}",
                outcome.healed_after, outcome.changed_after
            ));
        }
    }
    println!("\nThe times count from the moment that Redis answers again; the limit is 2 s.\n");
    Ok(failed == 0)
}

fn fail_over(args: &Args, origins: &Origins) -> anyhow::Result<outage::Outcome> {
    let primary = Redis::start();
    let replica = Redis::replica_of(&primary);
    let sentinel = Sentinel::start(&primary);
    sentinel.wait_for_replicas(1);
    let router = Router::builder(&primary)
        .unset("server.cache")
        .set("server.accessLog", "none")
        .set("driver", format!("redis+sentinel://{}/{SERVICE}", sentinel.addr()))
        .start();
    let watched = Topology::Watched { replica: &replica, sentinel: &sentinel };
    let seconds = args.outage_seconds;
    outage::run(Outage::FailedOver, seconds, router.addr(), &primary, watched, origins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_well_formed() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
