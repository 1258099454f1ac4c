//! The real binary: its memory beside a large cluster, and how soon an event counts.

use std::time::Duration;

use anyhow::ensure;
use integration::eventually::{eventually, wait_for};
use integration::marathon::{Answer, Check, Dialect, Fault, Health, Marathon, Route};
use integration::redis::Redis;
use integration::sync::MarathonSync;
use tokio::time::Instant;

use crate::cluster;
use crate::passes::{MEMORY_KB, verdict};

const LONG: Duration = Duration::from_secs(120);
/// From an event to Redis, in 99 of 100 cases.
const LATENCY: Duration = Duration::from_millis(100);
/// Beyond the debouncing of the event before, so that each is measured alone.
const PAUSE: Duration = Duration::from_millis(700);
const HOST: &str = "www.test";

/// Lets the binary look at `body` several times.
pub(crate) fn memory(body: Vec<u8>, apps: usize, dialect: Dialect) -> anyhow::Result<()> {
    let (marathon, redis) = (Marathon::start(dialect), Redis::start());
    marathon.fail(Route::Apps, Fault::Instead(Answer::new(200, "application/json", body)));
    let begin = Instant::now();
    let sync = MarathonSync::builder(&marathon, &redis)
        .args(&["--interval", "2", "--log-level", "info"])
        .start();
    eventually(LONG, "all lists are written", || {
        redis.calls("eval") >= u64::try_from(apps).unwrap_or(u64::MAX)
    });
    println!("marathon-sync: lists written {} ms after its start", begin.elapsed().as_millis());
    for looks in [1, 10] {
        let asked = marathon.requests(Route::Apps);
        eventually(LONG, "it looks again", || marathon.requests(Route::Apps) >= asked + looks);
        // One after the other: each locks the process.
        let peak = sync.process().memory_kb("VmHWM");
        let now = sync.process().memory_kb("VmRSS");
        let missed = verdict(peak > MEMORY_KB);
        println!(
            "  memory {looks} looks later: peak {} MB{missed}, now {} MB",
            peak / 1000,
            now / 1000
        );
    }
    Ok(())
}

/// Measures `count` health events and as many of tasks that are being killed, in a cluster that has
/// `apps` more apps with `tasks` tasks each.
pub(crate) fn latency(
    count: usize,
    (apps, tasks): (usize, usize),
    dialect: Dialect,
) -> anyhow::Result<()> {
    println!("events beside {apps} apps with {tasks} tasks each:");
    let (marathon, redis) = (Marathon::start(dialect), Redis::start());
    marathon.change(|cluster| cluster::fill(cluster, apps, tasks));
    let web = marathon.app("/web").label("hipacheFrontend", HOST).check(Check::http("/"));
    let web = web.running(2);
    let jobs = marathon.app("/jobs").label("hipacheFrontend", "jobs.test").running(1);
    let sync = MarathonSync::builder(&marathon, &redis).args(&["--log-level", "info"]).start();
    let length = |host: &str| redis.query::<usize>(&["LLEN", &format!("frontend:{host}")]);
    eventually(LONG, "it has written", || length(HOST) == 3 && length("jobs.test") == 2);
    marathon.wait_for_listeners(1);
    sync.wait_for_log(&["events from Marathon arrive"]);
    // The look at everything that follows from beginning to lead is not what is measured.
    (0..if apps > 0 { 6 } else { 1 }).for_each(|_| pause());
    let first = web.tasks().remove(0);
    let (mut health, mut killing) = (Vec::new(), Vec::new());
    for number in 0..count {
        pause();
        let (state, rows) = if number % 2 == 0 { (Health::Sick, 2) } else { (Health::Healthy, 3) };
        health.push(until(|| first.probe(state), || length(HOST) == rows)?);
        let task = jobs.launch_anywhere();
        task.run();
        eventually(LONG, "the task is listed", || length("jobs.test") == 3);
        pause();
        killing.push(until(|| task.killing(), || length("jobs.test") == 2)?);
        task.kill();
    }
    println!(
        "asked Marathon {} times for all apps, {} times for one",
        marathon.requests(Route::Apps),
        marathon.requests(Route::App)
    );
    report("from a health event to Redis, through a look", health);
    report("from TASK_KILLING to Redis", killing);
    Ok(())
}

fn until<T>(
    act: impl FnOnce() -> T,
    mut is_done: impl FnMut() -> bool,
) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let _done = act();
    // Without a pause: it would be measured.
    while !is_done() {
        ensure!(begin.elapsed() < LONG, "nothing happened");
    }
    Ok(begin.elapsed())
}

fn pause() {
    let end = Instant::now() + PAUSE;
    let _elapsed = wait_for(PAUSE * 2, || (Instant::now() >= end).then_some(()));
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(index).copied().unwrap_or_default()
    };
    let missed = verdict(at(99) > LATENCY);
    println!("{what}: median {:.1?}, p99 {:.1?}{missed}, {} events", at(50), at(99), times.len());
}
