//! The benchmark of marathon-sync: what a large cluster costs it, in time and memory.
//!
//! Lives here: the command line and the order of the work. [`mod@cluster`] has the fake Marathon
//! write a large answer once; [`passes`] is the measured process, which this program starts from
//! itself, so that making the answer counts for nothing. [`mod@agent`] is the real binary.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program: the result goes to stdout, progress to stderr"
)]

mod agent;
mod cluster;
mod passes;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, ensure};
use clap::Parser;
use integration::marathon::Dialect;
use integration::redis::Redis;

/// Measure what marathon-sync needs for a large cluster.
///
/// Redis is started by this program on loopback and a free port, and stopped by it.
#[derive(Debug, Parser)]
#[command(name = "sync-bench")]
struct Args {
    /// Apps, each with a host of its own
    #[arg(long, default_value_t = 5_000)]
    apps: usize,

    /// Tasks of each app
    #[arg(long, default_value_t = 10)]
    tasks: usize,

    /// Version of Marathon that writes the answer
    #[arg(long, default_value = "1.9")]
    dialect: Dialect,

    /// Events of each kind whose way to Redis is measured, at about one a second
    #[arg(long, default_value_t = 500)]
    events: usize,

    /// Fail when a limit in the report is missed; times mean little on a busy machine
    #[arg(long)]
    strict: bool,

    /// Be the measured process: pass over this answer
    #[arg(long, value_name = "FILE", requires = "redis", hide = true)]
    answer: Option<PathBuf>,

    /// The Redis to write to
    #[arg(long, value_name = "URL", hide = true)]
    redis: Option<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let (Some(answer), Some(redis)) = (&args.answer, &args.redis) {
        passes::run(answer, redis)?;
        return Ok(ExitCode::SUCCESS);
    }
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let answer = dir.path().join("apps.json");
    let body = cluster::answer(args.apps, args.tasks, args.dialect);
    println!("{} apps, {} tasks each, {:.1} MB", args.apps, args.tasks, passes::mega(body.len()));
    std::fs::write(&answer, &body).context("cannot write the answer")?;

    let redis = Redis::start();
    let child = Command::new(std::env::current_exe().context("who am I?")?)
        .args(["--redis", &redis.url(), "--answer"])
        .arg(&answer)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the measured process")?;
    ensure!(child.status.success(), "the measured process failed");
    let report = String::from_utf8_lossy(&child.stdout);
    print!("{report}");
    println!("scripts run by Redis: {}", redis.calls("eval"));
    agent::memory(body, args.apps, args.dialect)?;
    for cluster in [(0, 0), (args.apps, args.tasks)] {
        agent::latency(args.events, cluster, args.dialect)?;
    }
    Ok(ExitCode::from(u8::from(args.strict && passes::is_missed(&report))))
}
