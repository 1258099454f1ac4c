//! Slow clients by the thousand: what they do to everybody else, and to the proxy's memory.
//!
//! A proxy is measured before, during and after a storm by clients that send at a fixed rate far
//! below what it can do, each latency counted from the moment at which the request was due. The
//! slow clients come back whenever they are ended, until the storm is over; how the last of them
//! are ended is what the proxy's limits are for.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream as BlockingStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::contenders::{AccessLog, Contender, Front, HOST, Launch, SMALL_BODY, parse_answer};
use crate::load::start_own;
use crate::process::{Memory, Process};
use crate::report::{median, spread};
use crate::setup::Setup;
use crate::tally::percentile;

/// Slow clients begin one after the other within this, which is what the router's limits leave to most of
/// them: so their ends and returns are spread as well, as they are in a storm that goes on.
const ARRIVAL: Duration = Duration::from_secs(10);
/// From the first slow client to the measurement: all are there by then.
const GATHERING: Duration = Duration::from_secs(12);
/// After the last slow client has gone.
const SETTLING: Duration = Duration::from_secs(2);
/// Well-behaved clients, and what they ask for in a second altogether.
const STEADY_CLIENTS: u32 = 16;
const STEADY_RATE: u32 = 1000;
/// Longer than any answer takes, so that a missing one is a failure.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a slow client waits for its end: twice the router's longest limit.
const PATIENCE: Duration = Duration::from_secs(60);
/// "A byte now and then."
const BYTE_INTERVAL: Duration = Duration::from_secs(1);
/// What the slow clients do must not keep the others and the origin, on the same core, waiting
/// (and nothing else may either, see [`run_first`]).
const STORM_NICE: u8 = 19;
/// Receive buffer of a slow reader: the least that a kernel gives.
const SMALL_WINDOW: usize = 4096;

/// What the clients of a storm are slow at.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Storm {
    /// A head that never ends, a byte a second
    Headers,
    /// An upload, a byte a second
    Bodies,
    /// 16 MiB that they asked for, a byte a second
    Readers,
    /// All of them at once
    All,
}

impl Storm {
    fn kinds(self) -> &'static [Self] {
        match self {
            Self::Headers => &[Self::Headers],
            Self::Bodies => &[Self::Bodies],
            Self::Readers => &[Self::Readers],
            Self::All => &[Self::Headers, Self::Bodies, Self::Readers],
        }
    }

    fn opening(self) -> String {
        match self {
            Self::Bodies => {
                format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100000\r\n\r\n")
            }
            Self::Readers => format!("GET /huge HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            Self::Headers | Self::All => format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Slow: "),
        }
    }
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Headers => "headers",
            Self::Bodies => "bodies",
            Self::Readers => "readers",
            Self::All => "all",
        })
    }
}

/// One measurement of the well-behaved clients and the proxy meanwhile.
#[derive(Debug)]
struct Phase {
    p50_us: f64,
    p99_us: f64,
    failed: f64,
    busy: f64,
    memory: Memory,
}

/// How long and how often a storm is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    /// Of each of the three phases.
    pub(crate) seconds: u64,
    pub(crate) rounds: u64,
}

/// Keeps the cores awake while it lives (the kernel's `pm_qos` interface).
///
/// On a virtual machine a core that sleeps is woken through the hypervisor, which takes up to half a
/// millisecond of whoever wakes it. A storm makes more of these, so without this it is the
/// hypervisor that is measured.
struct Awake(#[expect(dead_code, reason = "open as long as it counts")] File);

impl Awake {
    fn keep() -> std::io::Result<Self> {
        let mut file = File::options().write(true).open("/dev/cpu_dma_latency")?;
        file.write_all(&0_i32.to_ne_bytes())?;
        Ok(Self(file))
    }
}

/// Measures each storm against each contender and prints a table for each storm.
pub(crate) async fn measure(
    setup: &Setup,
    contenders: &[Contender],
    storms: &[Storm],
    clients: u64,
    length: Length,
) -> anyhow::Result<()> {
    let awake = Awake::keep();
    if let Err(error) = &awake {
        eprintln!(
            "bench: cores may sleep, /dev/cpu_dma_latency: {error}; on a virtual machine the \
             latencies are those of its hypervisor"
        );
    }
    run_first(&setup.origin).await;
    for &storm in storms {
        println!(
            "**Slow {storm}**, {clients} clients of each kind; {STEADY_RATE} requests/s of others\n"
        );
        println!(
            "| | | p50 | p99 | ÷ before | failed | core busy | memory (peak) |\n\
             |---|---|---:|---:|---:|---:|---:|---:|"
        );
        let mut rounds: Vec<Vec<[Phase; 3]>> = contenders.iter().map(|_| Vec::new()).collect();
        let mut ends = Vec::new();
        for _round in 0..length.rounds {
            for (&contender, rounds) in contenders.iter().zip(&mut rounds) {
                let (phases, end) = one(setup, contender, storm, clients, length.seconds)
                    .await
                    .with_context(|| format!("{contender}, slow {storm}"))?;
                rounds.push(phases);
                ends.push(format!("{contender}: {end}"));
            }
        }
        for (contender, rounds) in contenders.iter().zip(&rounds) {
            for (index, name) in ["before", "during", "after"].into_iter().enumerate() {
                println!("| {contender} | {name} | {} |", row(rounds, index));
            }
        }
        println!();
        for end in ends {
            println!("- {end}");
        }
        println!();
    }
    Ok(())
}

/// Medians of all rounds, and of ratios round by round; with the least and the most.
fn row(rounds: &[[Phase; 3]], index: usize) -> String {
    let all = |figure: fn(&Phase) -> f64| {
        rounds.iter().map(|phases| figure(&phases[index])).collect::<Vec<_>>()
    };
    let ratio = |phases: &[Phase; 3]| phases[index].p99_us / phases[0].p99_us;
    let ratios: Vec<f64> = rounds.iter().map(ratio).collect();
    let mebibytes = |figure: fn(&Memory) -> u64| {
        rounds.iter().map(|phases| figure(&phases[index].memory) / 1024).max().unwrap_or_default()
    };
    format!(
        "{} µs | {} µs | {} | {:.0} | {:.0} % | {} MiB ({})",
        spread(&all(|phase| phase.p50_us), 0),
        spread(&all(|phase| phase.p99_us), 0),
        spread(&ratios, 2),
        all(|phase| phase.failed).iter().sum::<f64>(),
        100.0 * median(&all(|phase| phase.busy)),
        mebibytes(|memory| memory.resident_kib),
        mebibytes(|memory| memory.peak_kib),
    )
}

async fn one(
    setup: &Setup,
    contender: Contender,
    storm: Storm,
    clients: u64,
    seconds: u64,
) -> anyhow::Result<([Phase; 3], String)> {
    let mut proxy = contender.start(setup, &Launch::new(AccessLog::Off, Front::Plain)).await?;
    let (port, process) = (proxy.port, &proxy.process);
    run_first(process).await;
    let _warm_up = phase(setup, process, port, 2).await?;
    let before = phase(setup, process, port, seconds).await?;

    let hold = GATHERING.as_secs() + seconds + 1;
    let slow = start_own(
        "storm",
        setup,
        STORM_NICE,
        vec![
            "slow".to_owned(),
            format!("--kind={storm}"),
            format!("--port={port}"),
            format!("--clients={clients}"),
            format!("--seconds={hold}"),
        ],
    )?;
    sleep(GATHERING).await;
    let during = phase(setup, process, port, seconds).await?;
    let ends = slow.output(Duration::from_secs(hold) + PATIENCE + ANSWER_WITHIN).await?;

    sleep(SETTLING).await;
    let after = phase(setup, process, port, seconds).await?;
    proxy.process.check_alive()?;
    proxy.process.stop().await?;
    Ok(([before, during, after], ends.trim().to_owned()))
}

/// Other programs of the machine do now and then have a core for milliseconds, and more so during a
/// storm where they look at what each process has open: that is not what is measured.
async fn run_first(process: &Process) {
    if let Err(error) = process.run_first().await {
        eprintln!("bench: other programs may delay what is measured: {error:#}");
    }
}

async fn phase(setup: &Setup, proxy: &Process, port: u16, seconds: u64) -> anyhow::Result<Phase> {
    let (cpu, started) = (proxy.cpu()?, Instant::now());
    let args = vec!["steady".to_owned(), format!("--port={port}"), format!("--seconds={seconds}")];
    let load = start_own("steady", setup, 0, args)?;
    run_first(&load).await;
    let printed = load.output(Duration::from_secs(seconds) + 2 * ANSWER_WITHIN).await?;
    let ran = proxy.cpu()?.ran.saturating_sub(cpu.ran);
    let busy = ran.as_secs_f64() / started.elapsed().as_secs_f64();
    let figures: Vec<f64> = printed.split_whitespace().flat_map(str::parse).collect();
    let [p50_us, p99_us, failed] = figures[..] else {
        anyhow::bail!("unexpected output of the steady clients: {printed}");
    };
    Ok(Phase { p50_us, p99_us, failed, busy, memory: proxy.memory()? })
}

/// The well-behaved clients, as a process of their own. Threads that block: what wakes them is the
/// kernel's timer, which is finer than a runtime's.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Steady {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    seconds: u64,
}

impl Steady {
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        let (port, length) = (self.port, Duration::from_secs(self.seconds));
        let start = Instant::now() + Duration::from_millis(10);
        let clients: Vec<_> = (0..STEADY_CLIENTS)
            .map(|client| {
                let period = Duration::from_secs(1) / STEADY_RATE;
                let first = start + period * client;
                thread::spawn(move || steady(port, first, period * STEADY_CLIENTS, start + length))
            })
            .collect();
        let (mut latencies, mut failed) = (Vec::new(), 0);
        for client in clients {
            let (own, failures) = client.join().ok().context("a client panicked")?;
            latencies.extend(own);
            failed += failures;
        }
        latencies.sort_unstable();
        let (p50, p99) = (percentile(&latencies, 0.5), percentile(&latencies, 0.99));
        Ok(format!("{} {} {failed}", p50.as_micros(), p99.as_micros()))
    }
}

/// A request in every `period` from `start` on, each elsewhere in its period: the slow clients' timer
/// goes by the millisecond, and in step with it either every request would meet them or none. One that
/// has to wait for the one before is late, and its latency says so.
#[allow(clippy::disallowed_methods, reason = "a thread of its own, without a runtime")]
fn steady(port: u16, start: Instant, period: Duration, end: Instant) -> (Vec<Duration>, usize) {
    let (mut latencies, mut failed) = (Vec::new(), 0);
    let mut connection = None;
    for (count, place) in (0_u32..).zip(golden_places()) {
        let due = start + period * count + period.mul_f64(place);
        if due >= end {
            break;
        }
        let early = due.saturating_duration_since(Instant::now());
        thread::sleep(early);
        // Late because of the answer before counts, late because the timer woke us late does not.
        let begin = if early.is_zero() { due } else { Instant::now() };
        match ask(&mut connection, port) {
            Ok(()) => latencies.push(begin.elapsed()),
            Err(_failure) => {
                failed += 1;
                connection = None;
            }
        }
    }
    (latencies, failed)
}

/// Places between 0 and 1 that fill it evenly however many are taken (multiples of the golden ratio).
fn golden_places() -> impl Iterator<Item = f64> {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    std::iter::successors(Some(0.0), |place: &f64| Some((place + GOLDEN).fract()))
}

fn ask(connection: &mut Option<BlockingStream>, port: u16) -> anyhow::Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = BlockingStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            connection.insert(stream)
        }
    };
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::with_capacity(1024);
    let mut chunk = [0; 1024];
    loop {
        let count = stream.read(&mut chunk)?;
        ensure!(count > 0, "the connection ended");
        answer.extend_from_slice(&chunk[..count]);
        if let Some((status, body)) = parse_answer(&answer)
            && body.len() >= SMALL_BODY.len()
        {
            ensure!(status == 200, "status {status}");
            return Ok(());
        }
    }
}

/// The slow clients, as a process of their own.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Slow {
    #[arg(long)]
    kind: Storm,
    #[arg(long)]
    port: u16,
    /// Of each kind
    #[arg(long)]
    clients: u32,
    /// How long clients that were ended are replaced by new ones
    #[arg(long)]
    seconds: u64,
}

/// How a slow client was ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// With an answer of this status, if it begins with one.
    Answered(u16),
    Closed,
    /// It was let be.
    Never,
}

impl Slow {
    pub(crate) async fn run(&self) -> anyhow::Result<String> {
        let over = Instant::now() + Duration::from_secs(self.seconds);
        let mut slow = JoinSet::new();
        for &kind in self.kind.kinds() {
            for client in 0..self.clients {
                let wait = ARRIVAL * client / self.clients;
                slow.spawn(come_back(kind, self.port, wait, over));
            }
        }
        let mut ends = Vec::new();
        while let Some(own) = slow.join_next().await {
            ends.extend(own.context("a client panicked")?);
        }
        Ok(describe(&ends))
    }
}

fn describe(ends: &[End]) -> String {
    let count = |wanted: fn(&End) -> bool| ends.iter().filter(|end| wanted(end)).count();
    format!(
        "slow clients: {} in all, {} ended by 408, {} by another answer, {} closed, {} not ended \
         after {} s",
        ends.len(),
        count(|end| *end == End::Answered(408)),
        count(|end| matches!(end, End::Answered(status) if *status != 408)),
        count(|end| *end == End::Closed),
        count(|end| *end == End::Never),
        PATIENCE.as_secs(),
    )
}

async fn come_back(kind: Storm, port: u16, wait: Duration, over: Instant) -> Vec<End> {
    sleep(wait).await;
    let mut ends = Vec::new();
    while ends.is_empty() || Instant::now() < over {
        match be_slow(kind, port, over + PATIENCE).await {
            Ok(end) => ends.push(end),
            // Refused, or ended while it was connecting or writing.
            Err(_gone) => {
                ends.push(End::Closed);
                sleep(BYTE_INTERVAL).await;
            }
        }
    }
    ends
}

async fn be_slow(kind: Storm, port: u16, until: Instant) -> std::io::Result<End> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    SockRef::from(&stream).set_recv_buffer_size(SMALL_WINDOW)?;
    stream.write_all(kind.opening().as_bytes()).await?;
    let mut due = Instant::now();
    while Instant::now() < until {
        due += BYTE_INTERVAL;
        if kind == Storm::Readers {
            sleep_until(due).await;
            // The end shows behind all that the kernel keeps, or as a reset.
            if stream.read(&mut [0]).await? == 0 || has_ended(&stream)? {
                return Ok(End::Closed);
            }
            continue;
        }
        let mut answer = [0; 1024];
        tokio::select! {
            count = stream.read(&mut answer) => {
                return Ok(match parse_answer(&answer[..count?]) {
                    Some((status, _)) => End::Answered(status),
                    None => End::Closed,
                });
            }
            () = sleep_until(due) => stream.write_all(b"x").await?,
        }
    }
    Ok(End::Never)
}

/// Whether the other side has closed, although bytes of it wait to be read.
fn has_ended(stream: &TcpStream) -> std::io::Result<bool> {
    use std::future::Future as _;
    let readiness = std::pin::pin!(stream.ready(tokio::io::Interest::READABLE));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match readiness.poll(&mut cx) {
        std::task::Poll::Ready(readiness) => Ok(readiness?.is_read_closed()),
        std::task::Poll::Pending => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_by_kind() {
        let ends = [End::Answered(408), End::Answered(408), End::Closed, End::Answered(503)];
        assert_eq!(
            describe(&ends),
            "slow clients: 4 in all, 2 ended by 408, 1 by another answer, 1 closed, 0 not ended \
             after 60 s"
        );
    }
}
