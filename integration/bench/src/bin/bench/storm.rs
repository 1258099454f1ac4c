//! Slow clients by the thousand: what they do to everybody else, and to the proxy's memory.
//!
//! A proxy is measured before, during and after a storm by clients that send at a fixed rate far
//! below what it can do, each latency counted from the moment at which the request was due. The
//! slow clients come back whenever they are ended, until the storm is over; how the last of them
//! are ended is what the proxy's limits are for.

mod slow;
mod steady;

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use tokio::time::{Instant, sleep};

use crate::contenders::{AccessLog, Contender, Front, HOST, Launch};
use crate::load::start_own;
use crate::process::{Memory, Process};
use crate::report::{median, spread};
use crate::setup::Setup;
pub(crate) use slow::Slow;
pub(crate) use steady::Steady;

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
/// What the slow clients do must not keep the others and the origin, on the same core, waiting
/// (and nothing else may either, see [`run_first`]).
const STORM_NICE: u8 = 19;

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
