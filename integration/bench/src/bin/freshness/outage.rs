//! Part two: Redis goes away under load on known hosts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use integration::redis::Redis;
use integration::sentinel::Sentinel;
use tokio::time::Instant;

use crate::http::{self, Conn};
use crate::judge::quantile;
use crate::origin::Origins;
use crate::probe::{Clock, pause, wait};

/// A route that is written after the recovery works within this.
pub(crate) const HEALED_WITHIN: Duration = Duration::from_secs(2);
/// When it is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Known hosts.
const HOSTS: usize = 50;
const CONNECTIONS: usize = 8;
/// Between two requests of a connection.
const PAUSE: Duration = Duration::from_millis(1);
/// When a Sentinel without success is given up.
const FAILOVER: Duration = Duration::from_secs(60);
/// Load before the outage, and after the recovery.
const AROUND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outage {
    /// Killed and started again with its data.
    Killed,
    /// Stopped and continued: its connections stay, nothing is answered.
    Frozen,
    /// The primary killed, its replica promoted by a Sentinel.
    FailedOver,
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) outage: Outage,
    pub(crate) requests: usize,
    pub(crate) failed: usize,
    pub(crate) errors: Vec<String>,
    /// Duration of the requests; sorted.
    pub(crate) latencies: Vec<u64>,
    /// From the moment that Redis answers again to the first answer by a route written then.
    pub(crate) healed_after: Option<Duration>,
    /// The same for a change of a known host.
    pub(crate) changed_after: Option<Duration>,
}

impl Outcome {
    pub(crate) fn misses_thresholds(&self) -> bool {
        let is_late = |time: Option<Duration>| time.is_none_or(|time| time >= HEALED_WITHIN);
        is_late(self.healed_after) || is_late(self.changed_after)
    }
}

pub(crate) fn run(
    outage: Outage,
    seconds: u64,
    router: SocketAddr,
    redis: &Redis,
    topology: Topology<'_>,
    origins: &Origins,
) -> anyhow::Result<Outcome> {
    let hosts: Vec<String> = (0..HOSTS).map(|n| format!("known{n}.{outage:?}.test")).collect();
    let hosts: Vec<String> = hosts.iter().map(|host| host.to_lowercase()).collect();
    let url = origins.url(0);
    for host in &hosts {
        redis.frontend(host, "known", &[&url]);
    }
    match topology {
        // It stands in the file that the killed one starts from.
        Topology::Alone => redis.run(&["SAVE"]),
        Topology::Watched { .. } => redis.wait_for_replicas(1),
    }
    let requests: Vec<Vec<u8>> = hosts.iter().map(|host| http::request(host)).collect();
    let mut conn = Conn::new(router);
    for request in &requests {
        let answer = conn.ask(request).context("before the outage")?;
        if answer.status != 200 {
            bail!("{answer:?} before the outage");
        }
    }

    let clock = Clock::start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load: Vec<_> = (0..CONNECTIONS)
            .map(|first| {
                let (stop, requests) = (&stop, &requests);
                scope.spawn(move || load(router, clock, requests, first, stop))
            })
            .collect();
        let disturbance = Disturbance { outage, seconds, redis, topology };
        let healed = disturbance.run(router, origins, &hosts[0]);
        stop.store(true, Ordering::Release);
        let (mut latencies, mut errors, mut failed) = (Vec::new(), Vec::new(), 0);
        for thread in load {
            let (durations, thread_errors) = thread.join().expect("the load does not panic");
            latencies.extend(durations);
            failed += thread_errors.len();
            errors.extend(thread_errors.into_iter().take(3));
        }
        latencies.sort_unstable();
        let (healed_after, changed_after) = healed?;
        Ok(Outcome {
            outage,
            requests: latencies.len(),
            failed,
            errors,
            latencies,
            healed_after,
            changed_after,
        })
    })
}

type Healed = (Option<Duration>, Option<Duration>);

/// What stands beside the Redis that goes away.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Topology<'a> {
    Alone,
    Watched { replica: &'a Redis, sentinel: &'a Sentinel },
}

struct Disturbance<'a> {
    outage: Outage,
    seconds: u64,
    redis: &'a Redis,
    topology: Topology<'a>,
}

impl Disturbance<'_> {
    /// Takes Redis away and gives it back; measures how soon what is written then counts.
    fn run(&self, router: SocketAddr, origins: &Origins, known: &str) -> anyhow::Result<Healed> {
        wait(AROUND)?;
        match self.outage {
            Outage::Killed | Outage::FailedOver => self.redis.kill(),
            Outage::Frozen => self.redis.pause(),
        }
        let redis = match self.topology {
            Topology::Alone => {
                let waited = wait(Duration::from_secs(self.seconds));
                match self.outage {
                    Outage::Frozen => self.redis.resume(),
                    Outage::Killed | Outage::FailedOver => self.redis.launch_with_data(),
                }
                waited?;
                self.redis
            }
            Topology::Watched { replica, sentinel } => {
                let start = Instant::now();
                while sentinel.primary() != Some(replica.port()) || !replica.takes_writes() {
                    if start.elapsed() > FAILOVER {
                        bail!("no failover:\n{}", sentinel.log());
                    }
                    wait(Duration::from_millis(5))?;
                }
                replica
            }
        };
        healed(redis, router, origins, known)
    }
}

fn healed(
    redis: &Redis,
    router: SocketAddr,
    origins: &Origins,
    known: &str,
) -> anyhow::Result<Healed> {
    let recovered = Instant::now();
    let new = format!("new.{known}");
    redis.frontend(&new, "new", &[&origins.url(1)]);
    redis.run(&["LSET", &format!("frontend:{known}"), "1", &origins.url(1)]);
    let (mut healed_after, mut changed_after) = (None, None);
    let mut conn = Conn::new(router);
    while recovered.elapsed() < PATIENCE && (healed_after.is_none() || changed_after.is_none()) {
        for (host, after) in [(new.as_str(), &mut healed_after), (known, &mut changed_after)] {
            let answer = conn.ask(&http::request(host));
            if answer.is_ok_and(|answer| answer.backend == Some(1)) && after.is_none() {
                *after = Some(recovered.elapsed());
            }
        }
        pause(Duration::from_millis(2));
    }
    wait(AROUND)?;
    Ok((healed_after, changed_after))
}

fn load(
    router: SocketAddr,
    clock: Clock,
    requests: &[Vec<u8>],
    first: usize,
    stop: &AtomicBool,
) -> (Vec<u64>, Vec<String>) {
    let mut conn = Conn::new(router);
    let (mut latencies, mut errors) = (Vec::new(), Vec::new());
    for request in requests.iter().cycle().skip(first) {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let sent = clock.now();
        match conn.ask(request) {
            Ok(answer) if answer.status == 200 => {}
            other => errors.push(format!("at {:.3} s: {other:?}", sent as f64 / 1e9)),
        }
        latencies.push(clock.now() - sent);
        pause(PAUSE);
    }
    (latencies, errors)
}

impl Outcome {
    pub(crate) fn row(&self) -> String {
        let ms = |time: Option<Duration>| {
            time.map_or_else(
                || format!("not within {} s", PATIENCE.as_secs()),
                |time| format!("{:.0} ms", time.as_secs_f64() * 1e3),
            )
        };
        let latency = |share| quantile(&self.latencies, share) as f64 / 1e6;
        format!(
            "| {} | {} | {} | {:.2} ms | {:.2} ms | {} | {} |",
            match self.outage {
                Outage::Killed => "killed, started again with its data",
                Outage::Frozen => "frozen (SIGSTOP)",
                Outage::FailedOver => "killed, its replica promoted by a Sentinel",
            },
            self.requests,
            self.failed,
            latency(0.99),
            latency(1.0),
            ms(self.healed_after),
            ms(self.changed_after)
        )
    }
}
