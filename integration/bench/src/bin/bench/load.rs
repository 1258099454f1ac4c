//! One sample: wrk, or a load generator of our own, against a proxy, and what the proxy used meanwhile.
//!
//! A sample in which any request failed is an error, not a slower sample.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::{Instant, sleep};

use crate::WARM_UP;
use crate::contenders::{HOST, Proxy};
use crate::process::Process;
use crate::scenario::{Scenario, Subject};
use crate::setup::Setup;

/// Longer than any answer on loopback takes; wrk counts slower ones as time-outs.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The kernel's own threads take up to 3 % of a quiet core.
const MOST_DISPLACED: f64 = 0.05;

/// Attempts to make the warm-up long enough, each twice as long as the one before.
const WARM_UPS: u32 = 6;

/// Asks for all of `HOSTS` virtual hosts in a scattered order that comes round after the last one:
/// 61803 has no factor in common with their numbers. The requests are prepared, so that wrk only
/// picks one; with one host it does the same.
const VHOSTS_SCRIPT: &str = r#"
local index, prepared = 0, {}
function init(args)
  for host = 0, HOSTS - 1 do
    prepared[host] = wrk.format("GET", "/", { ["Host"] = "host-" .. host .. ".bench.test" })
  end
end
function request()
  index = (index + 61803) % HOSTS
  return prepared[index]
end
"#;

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

/// The load of a sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) scenario: Scenario,
    pub(crate) subject: Subject,
    pub(crate) connections: u64,
}

pub(crate) async fn sample(
    setup: &Setup,
    proxy: &Proxy,
    load: Load,
    seconds: Duration,
) -> anyhow::Result<Sample> {
    warm_up(setup, proxy, load).await.context("warm-up")?;

    let (cpu_before, started) = (proxy.process.cpu()?, Instant::now());
    let generator = load.start(setup, proxy, seconds)?;
    let under_load = async {
        sleep(seconds.mul_f64(0.8)).await;
        proxy.process.memory()
    };
    let (counts, memory) = tokio::join!(load.finish(generator, seconds), under_load);
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

/// Fills connection pools, caches and branch predictors, and asks for every virtual host once.
async fn warm_up(setup: &Setup, proxy: &Proxy, load: Load) -> anyhow::Result<()> {
    let mut length = WARM_UP;
    for _ in 0..WARM_UPS {
        let counts = load.finish(load.start(setup, proxy, length)?, length).await?;
        if counts.requests >= f64::from(load.subject.hosts) {
            return Ok(());
        }
        // The order of the hosts starts over with every run, so only a longer one reaches them all.
        length *= 2;
    }
    bail!("{length:?} were not enough to ask for {} hosts", load.subject.hosts)
}

impl Load {
    fn start(self, setup: &Setup, proxy: &Proxy, length: Duration) -> anyhow::Result<Process> {
        let seconds = length.as_secs();
        let common = [
            format!("--port={}", proxy.port),
            format!("--seconds={seconds}"),
            format!("--connections={}", self.connections),
        ];
        let own = |command: &str, option: &str| {
            let mut args = vec![command.to_owned()];
            args.extend(common.clone());
            args.extend((!option.is_empty()).then(|| option.to_owned()));
            args
        };
        match self.scenario {
            Scenario::Handshake => start_own("load", setup, 0, own("handshakes", "")),
            Scenario::Resume => start_own("load", setup, 0, own("handshakes", "--resumes")),
            Scenario::Http2 => start_own("load", setup, 0, own("drive", "--protocol=http2")),
            Scenario::Websocket => {
                start_own("load", setup, 0, own("drive", "--protocol=websocket"))
            }
            _ => self.start_wrk(setup, proxy, seconds),
        }
    }

    fn start_wrk(self, setup: &Setup, proxy: &Proxy, seconds: u64) -> anyhow::Result<Process> {
        let path = setup.dir.path().join("wrk.lua");
        fs::write(&path, self.script()).context("no script for wrk")?;
        let scenario = self.scenario;
        let mut args = vec![
            "--threads=1".to_owned(),
            format!("--connections={}", self.connections),
            format!("--duration={seconds}s"),
            format!("--timeout={}s", ANSWER_WITHIN.as_secs()),
            format!("--script={}", path.display()),
            format!("--header=Host: {HOST}"),
        ];
        if scenario == Scenario::Connect {
            args.push("--header=Connection: close".to_owned());
        }
        let scheme = scenario.front().scheme();
        args.push(format!("{scheme}://127.0.0.1:{}{}", proxy.port, scenario.path()));
        Process::start("wrk", &[setup.load_core], setup.dir.path(), "wrk", args)
    }

    fn script(self) -> String {
        let upload = self.scenario.upload_bytes();
        let requests = match self.subject.hosts {
            0 if upload == 0 => String::new(),
            0 => format!("wrk.method = 'POST'\nwrk.body = string.rep('x', {upload})\n"),
            hosts => VHOSTS_SCRIPT.replace("HOSTS", &hosts.to_string()),
        };
        format!("{requests}{SCRIPT}")
    }

    async fn finish(self, generator: Process, length: Duration) -> anyhow::Result<Counts> {
        let printed = generator.output(length + 3 * ANSWER_WITHIN).await?;
        let counts = parse(&printed)
            .with_context(|| format!("unexpected output of the load generator: {printed}"))?;
        ensure!(counts.failed == 0.0, "requests failed: {printed}");
        ensure!(counts.requests > 0.0, "no request was answered: {printed}");
        // Bytes count as they come, requests when they are done: only too few would be wrong.
        #[allow(clippy::cast_precision_loss, reason = "a body's length is far below 2^52")]
        let whole = counts.requests * self.scenario.body_bytes() as f64;
        ensure!(counts.bytes >= whole, "responses without their body: {printed}");
        Ok(counts)
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
    Process::start(name, &[setup.load_core], setup.dir.path(), "nice", args)
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
    use crate::contenders::Contender;
    use crate::setup::vhost;

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
    fn script_matches_the_scenario() {
        let script = |scenario, hosts| {
            let subject = Subject { hosts, ..Subject::plain(Contender::Router) };
            Load { scenario, subject, connections: 1 }.script()
        };
        assert_eq!(script(Scenario::Small, 0), SCRIPT);
        assert!(script(Scenario::Upload1k, 0).contains("string.rep('x', 1024)"));
        let vhosts = script(Scenario::Vhosts, 10_000);
        assert!(vhosts.contains("% 10000") && !vhosts.contains("HOSTS"), "{vhosts}");
        assert!(vhosts.contains(".bench.test") && vhost(7) == "host-7.bench.test");
    }

    #[test]
    fn missing_figures_are_no_zeroes() {
        assert_eq!(parse("Running 1s test\n"), None);
        assert_eq!(parse("bench requests=1\n"), None);
        assert_eq!(parse("bench requests=1 duration_us=x\n"), None);
    }
}
