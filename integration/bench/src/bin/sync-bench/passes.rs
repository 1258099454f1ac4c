//! The measured process: what the agent does with each answer, step by step.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use marathon_sync::document::{self, Answer};
use marathon_sync::guard::Limits;
use marathon_sync::pass::{Occasion, Pass, State, conclude};
use marathon_sync::routes::Routes;
use marathon_sync::routes::lease::{Lease, TTL};
use marathon_sync::rules::{Options, Seen, desired};
use shared::driver::Driver;
use shared::store::{Client, StoreConfig};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(30);
/// The agreed limits.
const FIRST: Duration = Duration::from_secs(3);
const UNCHANGED: Duration = Duration::from_secs(1);
pub(crate) const MEMORY_KB: u64 = 200_000;

/// Measures a first pass and two more that find nothing to do, and prints what they took.
pub(crate) fn run(answer: &Path, redis: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(measure(answer, redis))
}

async fn measure(answer: &Path, redis: &str) -> anyhow::Result<()> {
    let config = StoreConfig {
        drivers: vec![Driver::parse(redis).map_err(|error| anyhow::anyhow!("{error}"))?],
        connect_timeout: LIMIT,
        response_timeout: LIMIT,
    };
    let shutdown = CancellationToken::new();
    let client = Client::start(&config, &shutdown);
    ensure!(client.wait_until_up(LIMIT).await, "Redis does not answer");
    let routes = Routes::new(client, "bench");
    let lease = Lease::start(&routes, "bench", TTL, &shutdown);
    let mut standing = lease.subscribe();
    while lease.token().is_none() {
        standing.changed().await.context("the lease ended")?;
    }
    let mut state = State::new(Limits::default());
    let begin = Instant::now();
    let mut last: Option<(Answer, Pass)> = None;
    for (pass, limit) in [("first pass", FIRST), ("unchanged", UNCHANGED), ("unchanged", UNCHANGED)]
    {
        // As it comes from Marathon: read anew, and counted as fetching.
        let body = std::fs::read(answer).context("no answer")?;
        let mut steps = Steps::new();
        let parsed = document::parse(&body).context("the answer cannot be read")?;
        drop(body);
        steps.done("parse");
        // The last answer is of no use any more.
        let before = last.take().map(|(_answer, pass)| pass);
        let (options, seen) = (Options::default(), Seen::default());
        let wish = desired(&parsed, &mut state.memory, &options, &seen, Timestamp::now());
        steps.done("rules");
        let snapshot = routes.snapshot(&wish.plan).await?;
        steps.done("snapshot");
        let clock = begin.elapsed();
        let mut done = conclude(wish, &mut state, &snapshot, Occasion::Answer, clock);
        drop(snapshot);
        steps.done("conclude");
        let token = lease.token().context("the lease was lost")?;
        let changes = std::mem::take(&mut done.difference.changes);
        let applied = routes.apply(&done.plan, changes, &token).await;
        ensure!(applied.failed.is_empty(), "{:?}", applied.failed);
        steps.done("apply");
        // Kept, as the agent does: for events that come before the next answer, and for its status.
        last = Some((parsed, done));
        drop(before);
        steps.print(pass, limit, applied.written.len());
    }
    drop(last);
    let (peak, now) = (memory_kb("VmHWM")?, memory_kb("VmRSS")?);
    println!("memory: peak {} MB{}, now {} MB", peak / 1000, verdict(peak > MEMORY_KB), now / 1000);
    shutdown.cancel();
    lease.ended(LIMIT).await;
    Ok(())
}

/// Times of the steps of a pass.
struct Steps {
    begin: Instant,
    last: Instant,
    done: Vec<(&'static str, Duration, u64)>,
}

impl Steps {
    fn new() -> Self {
        let now = Instant::now();
        Self { begin: now, last: now, done: Vec::new() }
    }

    fn done(&mut self, step: &'static str) {
        let now = Instant::now();
        self.done.push((step, now - self.last, memory_kb("VmRSS").unwrap_or_default()));
        self.last = Instant::now();
    }

    fn print(self, pass: &str, limit: Duration, written: usize) {
        let total = self.begin.elapsed();
        println!(
            "{pass}: {} ms{}, {written} lists written",
            total.as_millis(),
            verdict(total > limit)
        );
        for (step, took, resident) in self.done {
            println!("  {step:10} {took:>9.1?} {:>6} MB", resident / 1000);
        }
    }
}

/// What stands behind a number that exceeds its limit.
pub(crate) fn verdict(is_missed: bool) -> &'static str {
    if is_missed {
        IS_MISSED.store(true, Ordering::Relaxed);
        " MISSED"
    } else {
        ""
    }
}

/// Whether a limit was missed, here or in the report of the measured process.
pub(crate) fn is_missed(report: &str) -> bool {
    IS_MISSED.load(Ordering::Relaxed) || report.contains("MISSED")
}

static IS_MISSED: AtomicBool = AtomicBool::new(false);

fn memory_kb(field: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("no /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no {field}"))
}

/// Bytes in MB, as people read them.
pub(crate) fn mega(bytes: usize) -> f64 {
    u32::try_from(bytes / 1000).map_or(f64::INFINITY, f64::from) / 1000.0
}
