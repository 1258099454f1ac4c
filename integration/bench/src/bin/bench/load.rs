//! One sample: wrk, or a load generator of our own, against a proxy, and what the proxy used meanwhile.
//!
//! A sample in which any request failed is an error, not a slower sample.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};

use crate::WARM_UP;
use crate::contenders::{HOST, Proxy, Scenario, Setup};
use crate::process::Process;

/// Longer than any answer on loopback takes; wrk counts slower ones as time-outs.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The kernel's own threads take up to 3 % of a quiet core.
const MOST_DISPLACED: f64 = 0.05;

/// Prints wrk's own figures unrounded. No `request` or `response` function: either would slow wrk.
const SCRIPT: &str = r#"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    "bench requests=%.0f duration_us=%.0f bytes=%.0f p50_us=%.0f p99_us=%.0f " ..
    "connect=%.0f read=%.0f write=%.0f timeout=%.0f status=%.0f\n",
    summary.requests, summary.duration, summary.bytes, latency:percentile(50),
    latency:percentile(99), e.connect, e.read, e.write, e.timeout, e.status))
end
"#;

#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) requests_per_second: f64,
    pub(crate) cpu_us_per_request: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Resident under load.
    pub(crate) resident_kib: u64,
    pub(crate) peak_kib: u64,
    /// Share of its core that the proxy used: near 1 the proxy was the bottleneck.
    pub(crate) busy: f64,
    /// Share of the time in which the proxy could have run but something else had its core.
    pub(crate) displaced: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    requests: f64,
    seconds: f64,
    bytes: f64,
    p50_us: f64,
    p99_us: f64,
    failed: f64,
}

impl Sample {
    /// Something else used the proxy's core: the figures are not the proxy's own.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.displaced > MOST_DISPLACED
    }

    /// For the progress line.
    pub(crate) fn line(&self) -> String {
        format!(
            "{:>8.0} requests/s {:>8.2} µs CPU/request, core {:.0} % busy, displaced {:.1} %",
            self.requests_per_second,
            self.cpu_us_per_request,
            100.0 * self.busy,
            100.0 * self.displaced
        )
    }
}

pub(crate) async fn sample(
    setup: &Setup,
    proxy: &Proxy,
    scenario: Scenario,
    connections: u64,
    seconds: Duration,
) -> anyhow::Result<Sample> {
    let warm_up = start_load(setup, proxy, scenario, connections, WARM_UP)?;
    finish(warm_up, WARM_UP, scenario).await.context("warm-up")?;

    let (cpu_before, started) = (proxy.process.cpu()?, Instant::now());
    let load = start_load(setup, proxy, scenario, connections, seconds)?;
    let under_load = async {
        sleep(seconds.mul_f64(0.8)).await;
        proxy.process.memory()
    };
    let (counts, memory) = tokio::join!(finish(load, seconds, scenario), under_load);
    let (cpu_after, elapsed) = (proxy.process.cpu()?, started.elapsed());
    let (counts, memory) = (counts?, memory?);

    let ran = cpu_after.ran.saturating_sub(cpu_before.ran);
    let waited = cpu_after.waited.saturating_sub(cpu_before.waited);
    Ok(Sample {
        requests_per_second: counts.requests / counts.seconds,
        cpu_us_per_request: ran.as_secs_f64() * 1e6 / counts.requests,
        p50_us: counts.p50_us,
        p99_us: counts.p99_us,
        resident_kib: memory.resident_kib,
        peak_kib: proxy.process.memory()?.peak_kib,
        busy: ran.as_secs_f64() / elapsed.as_secs_f64(),
        displaced: waited.as_secs_f64() / elapsed.as_secs_f64(),
    })
}

fn start_load(
    setup: &Setup,
    proxy: &Proxy,
    scenario: Scenario,
    connections: u64,
    seconds: Duration,
) -> anyhow::Result<Process> {
    match scenario {
        Scenario::Handshake | Scenario::Resume => {
            let mut args = vec![
                "handshakes".to_owned(),
                format!("--port={}", proxy.port),
                format!("--seconds={}", seconds.as_secs()),
                format!("--connections={connections}"),
            ];
            if scenario == Scenario::Resume {
                args.push("--resumes".to_owned());
            }
            start_own("handshakes", setup, 0, args)
        }
        _ => start_wrk(setup, proxy, scenario, connections, seconds),
    }
}

/// This program once more, on the load generator's core, `nice` to whoever shares it.
pub(crate) fn start_own(
    name: &'static str,
    setup: &Setup,
    nice: u8,
    args: Vec<String>,
) -> anyhow::Result<Process> {
    let own = std::env::current_exe().context("no path of this program")?;
    let own = own.into_os_string().into_string().ok().context("a path that is text")?;
    let args = ["-n".to_owned(), nice.to_string(), own].into_iter().chain(args);
    Process::start(name, setup.load_core, setup.dir.path(), "nice", args)
}

fn start_wrk(
    setup: &Setup,
    proxy: &Proxy,
    scenario: Scenario,
    connections: u64,
    seconds: Duration,
) -> anyhow::Result<Process> {
    let script = setup.dir.path().join("wrk.lua");
    fs::write(&script, SCRIPT).context("no script for wrk")?;
    let mut args = vec![
        "--threads=1".to_owned(),
        format!("--connections={connections}"),
        format!("--duration={}s", seconds.as_secs()),
        format!("--timeout={}s", ANSWER_WITHIN.as_secs()),
        format!("--script={}", script.display()),
        format!("--header=Host: {HOST}"),
    ];
    if scenario == Scenario::Connect {
        args.push("--header=Connection: close".to_owned());
    }
    let scheme = scenario.front().scheme();
    args.push(format!("{scheme}://127.0.0.1:{}{}", proxy.port, scenario.path()));
    Process::start("wrk", setup.load_core, setup.dir.path(), "wrk", args)
}

async fn finish(load: Process, seconds: Duration, scenario: Scenario) -> anyhow::Result<Counts> {
    let printed = load.output(seconds + 3 * ANSWER_WITHIN).await?;
    let counts = parse(&printed)
        .with_context(|| format!("unexpected output of the load generator: {printed}"))?;
    ensure!(counts.failed == 0.0, "requests failed: {printed}");
    ensure!(counts.requests > 0.0, "no request was answered: {printed}");
    // Bytes count as they come, requests when they are done: only too few would be wrong.
    #[allow(clippy::cast_precision_loss, reason = "a body's length is far below 2^52")]
    let whole = counts.requests * scenario.body_bytes() as f64;
    ensure!(counts.bytes >= whole, "answers without their body: {printed}");
    Ok(counts)
}

fn parse(printed: &str) -> Option<Counts> {
    let line = printed.lines().find_map(|line| line.strip_prefix("bench "))?;
    let fields: HashMap<&str, f64> = line
        .split(' ')
        .map(|field| {
            let (name, value) = field.split_once('=')?;
            Some((name, value.parse().ok()?))
        })
        .collect::<Option<_>>()?;
    let field = |name: &str| fields.get(name).copied();
    Some(Counts {
        requests: field("requests")?,
        seconds: field("duration_us")? / 1e6,
        bytes: field("bytes")?,
        p50_us: field("p50_us")?,
        p99_us: field("p99_us")?,
        failed: ["connect", "read", "write", "timeout", "status"]
            .into_iter()
            .map(field)
            .sum::<Option<f64>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Running 1s test\n  1 threads\nbench requests=1000 duration_us=2000000 \
        bytes=50000 p50_us=650 p99_us=1200 connect=0 read=1 write=0 timeout=0 status=2\n";

    #[test]
    fn figures_of_wrk_are_read_and_failures_summed() {
        let counts = parse(PRINTED).unwrap();
        assert_eq!(
            counts,
            Counts {
                requests: 1000.0,
                seconds: 2.0,
                bytes: 50_000.0,
                p50_us: 650.0,
                p99_us: 1200.0,
                failed: 3.0
            }
        );
    }

    #[test]
    fn missing_figures_are_no_zeroes() {
        assert_eq!(parse("Running 1s test\n"), None);
        assert_eq!(parse("bench requests=1\n"), None);
        assert_eq!(parse("bench requests=1 duration_us=x\n"), None);
    }
}
