//! Parts three and four: processor time a request, memory a host, and the price of edits elsewhere.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use integration::redis::Redis;
use integration::router::Router;
use redis::Connection;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::judge::quantile;
use crate::model::Random;
use crate::origin::Origins;
use crate::probe::{Cpu, allowed_cores, check, pause, pin, wait};
use crate::{Args, connect, http};

const CONNECTIONS: usize = 32;
/// Hosts that the memory is sized for.
const CACHE_SIZE: usize = 150_000;
/// The table that never changes: answers count for as long as nobody measures.
const TTL_SECONDS: u64 = 24 * 3600;
/// Part of a sample before the measured one.
const WARM_UP: Duration = Duration::from_millis(300);
/// Tracking may cost so much more than a static table.
const MOST_EXTRA: f64 = 0.03;
/// Edits may take so much of a core.
const MOST_OF_A_CORE: f64 = 0.05;
/// Ratio of the 99th percentiles with and without edits that still is noise.
const MOST_P99: f64 = 1.2;
/// Hosts that are in use while others are asked for.
const SERVED: usize = 1000;
/// Names that nobody has, each asked for once.
const UNKNOWN: usize = 300_000;
const EDITS_A_SECOND: u32 = 1000;
/// Lists that are edited, none of which is asked for.
const EDITED: usize = 1000;
/// Between two requests of a connection while latency is measured: below saturation.
const PACE: Duration = Duration::from_millis(4);

/// Which hosts a load asks for.
#[derive(Clone, Copy, Debug)]
enum Hosts {
    /// `host0` to `host<n-1>` at random.
    Random(usize),
    /// All of them once.
    Each(usize),
    /// That many names that no list has, once each; 400 is the right answer.
    Unknown(usize),
}

struct Load {
    requests: usize,
    /// Sorted, in nanoseconds.
    latencies: Vec<u64>,
}

/// Everything that both parts measure on.
struct Setup {
    redis: Redis,
    connection: Connection,
    _origins: Origins,
    all_cores: String,
    router_core: Option<String>,
}

impl Setup {
    fn start(vhosts: usize) -> anyhow::Result<Self> {
        let origins = Origins::start(1)?;
        let redis = Redis::start();
        let mut connection = connect(&redis)?;
        let url = origins.url(0);
        for first in (0..vhosts).step_by(10_000) {
            let mut pipe = redis::pipe();
            for number in first..vhosts.min(first + 10_000) {
                pipe.cmd("RPUSH").arg(format!("frontend:{}", name(number))).arg("id").arg(&url);
            }
            pipe.exec(&mut connection).context("no routes written")?;
        }
        let all_cores = allowed_cores()?;
        let cores: Vec<&str> = all_cores.split(['-', ',']).collect();
        let (first, last) = (cores.first().copied(), cores.last().copied());
        let router_core = last.filter(|_| first != last).map(str::to_owned);
        if let (Some(first), Some(_)) = (first, &router_core) {
            // Threads that are started later inherit it.
            pin(std::process::id(), first)?;
        }
        Ok(Self { redis, connection, _origins: origins, all_cores, router_core })
    }

    fn router(&self, cache: &str) -> anyhow::Result<Router> {
        let router = Router::builder(&self.redis)
            .set("server.cache", cache)
            .set("server.accessLog", "none")
            .set("server.lruCache", json!({"size": CACHE_SIZE, "ttl": TTL_SECONDS}))
            .start();
        if let Some(core) = &self.router_core {
            pin(router.process().pid(), core)?;
        }
        Ok(router)
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        // Only the next part would notice.
        drop(pin(std::process::id(), &self.all_cores));
    }
}

fn name(number: usize) -> String {
    format!("host{number}.bench.test")
}

pub(crate) fn requests(args: &Args, misses: &mut Vec<String>) -> anyhow::Result<()> {
    let setup = Setup::start(args.vhosts)?;
    let routers = [setup.router("tracking")?, setup.router("ttl")?];
    let pids = routers.each_ref().map(|router| router.process().pid());
    let mut bytes_per_host = Vec::new();
    for router in &routers {
        let addr = router.addr();
        load(addr, Hosts::Random(1), WARM_UP, None)?;
        let before = router.process().memory_kb("VmRSS");
        load(addr, Hosts::Each(args.vhosts), Duration::from_secs(120), None)?;
        let after = router.process().memory_kb("VmRSS");
        bytes_per_host.push(after.saturating_sub(before) as f64 * 1024.0 / args.vhosts as f64);
    }

    println!("### CPU time a request, and memory\n");
    println!(
        "Tracking against `--cache ttl` with {TTL_SECONDS} s (a static table): {} rounds of {} s, \
         {CONNECTIONS} connections, one worker.\n",
        args.rounds, args.seconds
    );
    println!("| virtual hosts | tracking µs | static µs | ratio | least, most | waited |");
    println!("|---|---|---|---|---|---|");
    for hosts in [1, args.vhosts] {
        let (mut costs, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
        let mut waited = Duration::ZERO;
        let lookups = calls(&setup)?;
        for round in 0..args.rounds {
            let mut pair = [0.0, 0.0];
            for turn in 0..2 {
                // Another one goes first in each round.
                let index = (round + turn) % 2;
                let addr = routers[index].addr();
                load(addr, Hosts::Random(hosts), WARM_UP, None)?;
                let before = Cpu::of(pids[index])?;
                let sample =
                    load(addr, Hosts::Random(hosts), Duration::from_secs(args.seconds), None)?;
                let cpu = Cpu::of(pids[index])?.since(before);
                pair[index] = cpu.ran.as_secs_f64() * 1e6 / sample.requests as f64;
                waited += cpu.waited;
                costs[index].push(pair[index]);
            }
            ratios.push(pair[0] / pair[1]);
        }
        ensure!(calls(&setup)? == lookups, "a router asked Redis while it knew every host");
        let [tracking, fixed] = costs.map(|mut costs| median(&mut costs));
        let ratio = median(&mut ratios);
        let seconds = (2 * args.seconds * args.rounds as u64) as f64;
        println!(
            "| {hosts} | {tracking:.2} | {fixed:.2} | {ratio:.3} | {:.3}, {:.3} | {:.1} % |",
            ratios.first().copied().unwrap_or_default(),
            ratios.last().copied().unwrap_or_default(),
            100.0 * waited.as_secs_f64() / seconds
        );
        if ratio > 1.0 + MOST_EXTRA {
            misses.push(format!("tracking costs {ratio:.3} times a static table, {hosts} hosts"));
        }
    }
    println!(
        "\n`waited`: share of the time that the router could have run but others had its core. \
         Limit of the ratio: {:.2}.\n",
        1.0 + MOST_EXTRA
    );
    println!(
        "Memory a host in memory, by `VmRSS`: {:.0} bytes with tracking, {:.0} static.\n",
        bytes_per_host[0], bytes_per_host[1]
    );
    Ok(())
}

pub(crate) fn edits(args: &Args, misses: &mut Vec<String>) -> anyhow::Result<()> {
    let mut setup = Setup::start(args.vhosts)?;
    for number in 0..EDITED {
        let mut pipe = redis::pipe();
        pipe.cmd("RPUSH").arg(edited(args.seed, number)).arg("id").arg("http://127.0.0.1:9");
        pipe.exec(&mut setup.connection)?;
    }
    let router = setup.router("tracking")?;
    let (addr, pid) = (router.addr(), router.process().pid());
    load(addr, Hosts::Each(args.vhosts), Duration::from_secs(120), None)?;
    let mut edits = connect(&setup.redis)?;
    let sample_time = Duration::from_secs(args.seconds);
    let lookups = calls(&setup)?;
    // By whether there are edits: share of a core without requests and with them, p50 and p99.
    let mut figures = [[const { Vec::new() }; 4], [const { Vec::new() }; 4]];
    let mut done = 0;
    for round in 0..args.rounds {
        for turn in 0..2 {
            let with_edits = (round + turn) % 2;
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let editor =
                    (with_edits == 1).then(|| scope.spawn(|| edit(&mut edits, args.seed, &stop)));
                let sample = measure(addr, pid, args.vhosts, sample_time);
                stop.store(true, Ordering::Release);
                if let Some(editor) = editor {
                    done += editor.join().expect("the editor does not panic")?;
                }
                for (values, figure) in figures[with_edits].iter_mut().zip(sample?) {
                    values.push(figure);
                }
                anyhow::Ok(())
            })?;
        }
    }
    let lookups = calls(&setup)? - lookups;
    let [without, with] = figures.map(|figures| figures.map(|mut values| median(&mut values)));
    let seconds = (2 * args.seconds * args.rounds as u64) as f64 + WARM_UP.as_secs_f64();
    println!("### {EDITS_A_SECOND} list edits a second elsewhere in the key space\n");
    println!(
        "{:.0} a second were done; {} hosts in memory, medians of {} rounds.\n",
        f64::from(done) / seconds,
        args.vhosts,
        args.rounds
    );
    println!("| | core, no requests | core, under load | p50 | p99 |\n|---|---|---|---|---|");
    for (what, [idle, busy, p50, p99]) in [("without", without), ("with edits", with)] {
        println!(
            "| {what} | {:.2} % | {:.2} % | {p50:.0} µs | {p99:.0} µs |",
            idle * 100.0,
            busy * 100.0
        );
    }
    let price = with[0] - without[0];
    println!(
        "\nThe edits alone take {:.2} % of a core; the limit is 5 %. p99 with them is {:.2} times \
         that without; the limit is {MOST_P99}. Routes that were read again, of hosts that nobody \
         edited: {lookups}.\n",
        price * 100.0,
        with[3] / without[3]
    );
    if lookups > 0 {
        misses.push(format!("edits elsewhere made the router ask Redis {lookups} times"));
    }
    if with[3] > MOST_P99 * without[3] {
        misses
            .push(format!("edits elsewhere move p99 from {:.0} to {:.0} µs", without[3], with[3]));
    }
    if price > MOST_OF_A_CORE {
        misses.push(format!("edits elsewhere take {:.1} % of a core", price * 100.0));
    }
    Ok(())
}

/// More frontends than are kept in memory, and then names that nobody has.
pub(crate) fn scale(args: &Args, misses: &mut Vec<String>) -> anyhow::Result<()> {
    let setup = Setup::start(args.frontends)?;
    let router = Router::builder(&setup.redis)
        .set("server.cache", "tracking")
        .set("server.accessLog", "none")
        .start();
    if let Some(core) = &setup.router_core {
        pin(router.process().pid(), core)?;
    }
    let (addr, pid) = (router.addr(), router.process().pid());
    let rss = || router.process().memory_kb("VmRSS") as f64 / 1024.0;
    println!("### {} frontends in Redis\n", args.frontends);
    println!("| | requests | looked up | CPU µs a request | router's memory |");
    println!("|---|---|---|---|---|");
    let row = |what: &str, hosts: Hosts, time: Duration| {
        let (lookups, before) = (calls(&setup)?, Cpu::of(pid)?);
        let sample = load(addr, hosts, time, None)?;
        let cpu = Cpu::of(pid)?.since(before).ran.as_secs_f64() * 1e6;
        let lookups = calls(&setup)? - lookups;
        println!(
            "| {what} | {} | {lookups} | {:.2} | {:.0} MiB |",
            sample.requests,
            cpu / sample.requests as f64,
            rss()
        );
        anyhow::Ok(lookups)
    };
    let patience = Duration::from_secs(300);
    let sample = Duration::from_secs(args.seconds * args.rounds as u64);
    row("each of 1,000 hosts", Hosts::Each(SERVED), patience)?;
    row("each of all hosts", Hosts::Each(args.frontends), patience)?;
    row("hosts at random", Hosts::Random(args.frontends), sample)?;
    row("each of 1,000 hosts again", Hosts::Each(SERVED), patience)?;
    row("names that nobody has", Hosts::Unknown(UNKNOWN), patience)?;
    let again = row("the 1,000 hosts after that", Hosts::Each(SERVED), patience)?;
    let scans = setup.redis.calls("scan") + setup.redis.calls("keys");
    println!("\nCommands that walk through the key space: {scans}.\n");
    if again > 0 || scans > 0 {
        misses.push(format!("{again} hosts were forgotten for unknown ones, {scans} scans"));
    }
    Ok(())
}

/// Other names with another seed.
fn edited(seed: u64, number: usize) -> String {
    format!("frontend:edited{}.seed{seed}.test", number % EDITED)
}

/// Share of a core without requests and under load, p50 and p99 in microseconds.
fn measure(addr: SocketAddr, pid: u32, hosts: usize, time: Duration) -> anyhow::Result<[f64; 4]> {
    let before = Cpu::of(pid)?;
    let start = Instant::now();
    wait(time)?;
    let idle = Cpu::of(pid)?.since(before).ran.as_secs_f64() / start.elapsed().as_secs_f64();
    let before = Cpu::of(pid)?;
    let start = Instant::now();
    let sample = load(addr, Hosts::Random(hosts), time, Some(PACE))?;
    let busy = Cpu::of(pid)?.since(before).ran.as_secs_f64() / start.elapsed().as_secs_f64();
    let us = |share| quantile(&sample.latencies, share) as f64 / 1e3;
    Ok([idle, busy, us(0.5), us(0.99)])
}

/// Edits lists at an even pace until it is told to stop; how many.
fn edit(redis: &mut Connection, seed: u64, stop: &AtomicBool) -> anyhow::Result<u32> {
    let start = Instant::now();
    let mut done = 0;
    while !stop.load(Ordering::Acquire) {
        let number = usize::try_from(done)?;
        let url = format!("http://127.0.0.1:{}", 10 + done % 90);
        redis::cmd("LSET").arg(edited(seed, number)).arg(1).arg(url).exec(redis)?;
        done += 1;
        let due = start + Duration::from_secs(1) * done / EDITS_A_SECOND;
        pause(due.saturating_duration_since(Instant::now()));
    }
    Ok(done)
}

/// How often routes were read from Redis.
fn calls(setup: &Setup) -> anyhow::Result<u64> {
    check()?;
    Ok(setup.redis.calls("pttl"))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Asks over all connections at once, from one thread; any answer but 200 is an error.
fn load(
    addr: SocketAddr,
    hosts: Hosts,
    time: Duration,
    pace: Option<Duration>,
) -> anyhow::Result<Load> {
    check()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let latencies = runtime.block_on(async {
        let end = Instant::now() + time;
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|number| tokio::spawn(connection(addr, hosts, number, end, pace)))
            .collect();
        let mut all = Vec::new();
        for connection in connections {
            all.extend(connection.await??);
        }
        anyhow::Ok(all)
    });
    let mut latencies = latencies.context("under load")?;
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "nothing was answered");
    if let Hosts::Each(count) | Hosts::Unknown(count) = hosts {
        ensure!(latencies.len() == count, "not all of {count} hosts answered within {time:?}");
    }
    Ok(Load { requests: latencies.len(), latencies })
}

async fn connection(
    addr: SocketAddr,
    hosts: Hosts,
    number: usize,
    end: Instant,
    pace: Option<Duration>,
) -> anyhow::Result<Vec<u64>> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let mut random = Random(number as u64);
    let mut next = number;
    let mut latencies = Vec::new();
    let mut buffer = Vec::with_capacity(4096);
    while Instant::now() < end {
        let host = match hosts {
            Hosts::Random(count) => random.below(count),
            Hosts::Each(count) | Hosts::Unknown(count) if next >= count => break,
            Hosts::Each(_) | Hosts::Unknown(_) => next,
        };
        next += CONNECTIONS;
        let (host, status) = match hosts {
            Hosts::Unknown(_) => (format!("nobody{host}.hostile.test"), 400),
            Hosts::Random(_) | Hosts::Each(_) => (name(host), 200),
        };
        let request = http::request(&host);
        let sent = Instant::now();
        stream.write_all(&request).await?;
        buffer.clear();
        let answer = loop {
            ensure!(stream.read_buf(&mut buffer).await? > 0, "the router ended a connection");
            if let Some((answer, _)) = http::parse(&buffer)? {
                break answer;
            }
        };
        ensure!(answer.status == status && !answer.closes, "{answer:?} for {host}");
        latencies.push(u64::try_from(sent.elapsed().as_nanos())?);
        if let Some(pace) = pace {
            tokio::time::sleep(pace).await;
        }
    }
    Ok(latencies)
}
