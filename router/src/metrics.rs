//! What is counted, and how it is shown to Prometheus.
//!
//! Each worker counts in memory of its own with plain writes; the sums are made when somebody
//! asks. Labels have few values, all of ours: nothing that a client sends becomes one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use shared::store::Outage;

/// A number that one thread counts and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self) {
        // Only the worker's own thread writes: no read-modify-write needed.
        self.0.store(self.value() + 1, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Answers by the first digit of their status.
    answers: [Count; 6],
    /// Look-ups that memory answered.
    pub cache_hits: Count,
    /// Look-ups that Redis was asked for.
    pub cache_misses: Count,
    /// Attempts beyond a request's first.
    pub retries: Count,
    /// Client connections that were accepted.
    pub connections: Count,
    /// Client connections that a limit refused.
    pub connections_refused: Count,
    /// Tunnels that a limit refused.
    pub tunnels_refused: Count,
    /// Client connections that have ended, tunnels apart.
    pub connections_ended: Count,
    /// TLS handshakes by version and whether a session was resumed: 1.2 and 1.3, new before resumed.
    handshakes: [Count; 4],
    /// TLS handshakes that failed, by [`HandshakeFailure`].
    handshake_failures: [Count; 4],
}

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum HandshakeFailure {
    /// The client went away.
    Closed,
    /// There was no certificate for it.
    NoCertificate,
    /// No common version or cipher, or no TLS at all.
    Protocol,
    /// It took too long.
    TimedOut,
}

impl Counters {
    /// Counts an answer.
    pub fn answered(&self, status: u16) {
        if let Some(count) = self.answers.get(usize::from(status / 100)) {
            count.add();
        }
    }

    /// Counts the end of a TLS handshake: TLS 1.3 or not, resumed or not, or why it failed. `None`
    /// took too long.
    pub fn shook_hands(&self, result: Option<Result<(bool, bool), HandshakeFailure>>) {
        let count = match result.unwrap_or(Err(HandshakeFailure::TimedOut)) {
            Ok((is_1_3, is_resumed)) => {
                self.handshakes.get(2 * usize::from(is_1_3) + usize::from(is_resumed))
            }
            Err(failure) => self.handshake_failures.get(failure as usize),
        };
        if let Some(count) = count {
            count.add();
        }
    }
}

/// What is read off at the moment of asking.
pub trait State: fmt::Debug + Send + Sync + 'static {
    /// Whether Redis is connected, on the side that is read and on the side that is written.
    fn redis_is_up(&self) -> (bool, bool);

    /// What keeps Redis from being used, while it is not connected.
    fn outage(&self) -> Outage;

    /// Panics since the start.
    fn panics(&self) -> u64;

    /// Hosts in memory.
    fn routes(&self) -> usize;

    /// Upgraded connections that are open.
    fn tunnels(&self) -> usize;

    /// What is served until Redis answers for the first time since the start.
    fn stand_in(&self) -> Option<StandIn>;

    /// Hosts that go on from their last known routes because Redis came back empty, and for how long at most.
    fn held(&self) -> Option<(usize, Duration)>;

    /// Snapshots that could not be written.
    fn snapshot_failures(&self) -> u64;

    /// Certificates by source: how many, how many expire soon, when the first does (Unix seconds).
    fn certificates(&self) -> Vec<(&'static str, u64, u64, i64)>;

    /// Broken certificates that were not used.
    fn certificate_failures(&self) -> u64;
}

/// A snapshot that stands in for Redis.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StandIn {
    /// Hosts in it.
    pub hosts: usize,
    /// How long ago it was taken.
    pub age: Duration,
}

/// All metrics of a router.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Those of `workers`.
    pub fn new(workers: Vec<Arc<Counters>>, state: Arc<dyn State>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Sums { workers, state }));
        Self { registry }
    }

    /// The text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only if a metric is wrong, which a test would have seen.
        let _is_complete = encode(&mut text, &self.registry);
        text
    }
}

#[derive(Debug)]
struct Sums {
    workers: Vec<Arc<Counters>>,
    state: Arc<dyn State>,
}

impl Sums {
    fn sum(&self, pick: impl Fn(&Counters) -> &Count) -> u64 {
        self.workers.iter().map(|worker| pick(worker).value()).sum()
    }
}

impl Sums {
    fn encode_tls(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let count = |pick: fn(&Counters) -> &[Count; 4], index: usize| -> u64 {
            self.workers.iter().filter_map(|worker| pick(worker).get(index)).map(Count::value).sum()
        };
        let name = "router_tls_handshakes";
        let help = "TLS handshakes with clients";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        let kinds = [("1.2", "no"), ("1.2", "yes"), ("1.3", "no"), ("1.3", "yes")];
        for (index, (version, resumed)) in kinds.into_iter().enumerate() {
            let labels = [("version", version), ("resumed", resumed)];
            let value = count(|worker| &worker.handshakes, index);
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        let name = "router_tls_handshake_failures";
        let help = "TLS handshakes with clients that failed";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        let reasons = ["closed", "no-certificate", "protocol", "timeout"];
        for (index, reason) in reasons.into_iter().enumerate() {
            let value = count(|worker| &worker.handshake_failures, index);
            ConstCounter::new(value).encode(family.encode_family(&[("reason", reason)])?)?;
        }
        type Row = (&'static str, u64, u64, i64);
        type Pick = fn(&Row) -> i64;
        let rows: [(&str, &str, Pick); 3] = [
            ("router_certificates", "Certificates in memory", |row| row.1.cast_signed()),
            (
                "router_certificates_expiring",
                "Certificates in memory that have expired or will within 14 days",
                |row| row.2.cast_signed(),
            ),
            (
                "router_certificates_first_expiry_timestamp_seconds",
                "When the first of them expires; 0 without any",
                |row| row.3,
            ),
        ];
        let certificates = self.state.certificates();
        for (name, help, pick) in rows {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for row in &certificates {
                let gauge = ConstGauge::new(pick(row));
                gauge.encode(family.encode_family(&[("source", row.0)])?)?;
            }
        }
        Ok(())
    }
}

impl Collector for Sums {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let name = "router_http_requests";
        let help = "Requests answered, by class of status";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (class, code) in ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().enumerate() {
            let value = self.workers.iter().filter_map(|worker| worker.answers.get(class + 1));
            let value: u64 = value.map(Count::value).sum();
            ConstCounter::new(value).encode(family.encode_family(&[("code", code)])?)?;
        }
        for (name, help, value) in [
            (
                "router_route_cache_hits",
                "Look-ups answered from memory",
                self.sum(|worker| &worker.cache_hits),
            ),
            (
                "router_route_cache_misses",
                "Look-ups that Redis was asked for",
                self.sum(|worker| &worker.cache_misses),
            ),
            (
                "router_retries",
                "Attempts beyond a request's first",
                self.sum(|worker| &worker.retries),
            ),
            (
                "router_connections_accepted",
                "Client connections accepted",
                self.sum(|worker| &worker.connections),
            ),
            (
                "router_connections_refused",
                "Client connections that a limit refused",
                self.sum(|worker| &worker.connections_refused),
            ),
            (
                "router_tunnels_refused",
                "Tunnels (WebSockets and other upgrades) that a limit refused",
                self.sum(|worker| &worker.tunnels_refused),
            ),
            (
                "router_snapshot_write_failures",
                "Snapshots of the routes that could not be written",
                self.state.snapshot_failures(),
            ),
            (
                "router_certificate_failures",
                "Broken certificates that were not used",
                self.state.certificate_failures(),
            ),
            ("router_panics", "Panics, each of which lost a connection", self.state.panics()),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }

        self.encode_tls(&mut encoder)?;
        let (read, write) = self.state.redis_is_up();
        let name = "router_redis_up";
        let help = "Whether Redis is connected";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (role, is_up) in [("read", read), ("write", write)] {
            let gauge = ConstGauge::new(i64::from(is_up));
            gauge.encode(family.encode_family(&[("role", role)])?)?;
        }
        let name = "router_connections";
        let help = "Open client connections";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let ended = self.sum(|worker| &worker.connections_ended);
        let open = self.sum(|worker| &worker.connections).saturating_sub(ended);
        let tunnels = self.state.tunnels() as u64;
        for (kind, value) in [("http", open), ("tunnel", tunnels)] {
            ConstGauge::new(value).encode(family.encode_family(&[("kind", kind)])?)?;
        }
        let stand_in = self.state.stand_in();
        for (name, help, value) in [
            ("router_routes", "Hosts in memory", self.state.routes() as u64),
            (
                "router_held_hosts",
                "Hosts served from their last known routes because Redis came back empty",
                self.state.held().map_or(0, |(hosts, _)| hosts as u64),
            ),
            (
                "router_snapshot_hosts",
                "Hosts served from a snapshot until Redis answers for the first time",
                stand_in.map_or(0, |stand_in| stand_in.hosts as u64),
            ),
            (
                "router_snapshot_age_seconds",
                "Age of that snapshot",
                stand_in.map_or(0, |stand_in| stand_in.age.as_secs()),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let name = "router_build_info";
        let help = "Version of this router";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        ConstGauge::new(1_u64).encode(family.encode_family(&version)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Counters, HandshakeFailure, Metrics, Outage, StandIn, State};

    #[derive(Debug)]
    struct Fixed;

    impl State for Fixed {
        fn redis_is_up(&self) -> (bool, bool) {
            (true, false)
        }

        fn outage(&self) -> Outage {
            Outage::Unreachable
        }

        fn panics(&self) -> u64 {
            3
        }

        fn routes(&self) -> usize {
            7
        }

        fn tunnels(&self) -> usize {
            2
        }

        fn stand_in(&self) -> Option<StandIn> {
            Some(StandIn { hosts: 5, age: Duration::from_secs(90) })
        }

        fn held(&self) -> Option<(usize, Duration)> {
            None
        }

        fn snapshot_failures(&self) -> u64 {
            1
        }

        fn certificates(&self) -> Vec<(&'static str, u64, u64, i64)> {
            vec![("redis", 3, 1, 1_700_000_000)]
        }

        fn certificate_failures(&self) -> u64 {
            9
        }
    }

    #[test]
    fn the_sums_of_all_workers_are_shown() {
        let workers = vec![Arc::new(Counters::default()), Arc::new(Counters::default())];
        workers[0].answered(200);
        workers[1].answered(201);
        workers[1].answered(502);
        workers[0].connections.add();
        workers[0].cache_hits.add();
        workers[0].shook_hands(Some(Ok((true, true))));
        workers[1].shook_hands(Some(Err(HandshakeFailure::Protocol)));
        workers[1].shook_hands(None);
        let text = Metrics::new(workers, Arc::new(Fixed)).text();
        for line in [
            "router_http_requests_total{code=\"2xx\"} 2",
            "router_http_requests_total{code=\"5xx\"} 1",
            "router_route_cache_hits_total 1",
            "router_route_cache_misses_total 0",
            "router_panics_total 3",
            "router_redis_up{role=\"read\"} 1",
            "router_redis_up{role=\"write\"} 0",
            "router_connections{kind=\"http\"} 1",
            "router_connections{kind=\"tunnel\"} 2",
            "router_routes 7",
            "router_snapshot_hosts 5",
            "router_snapshot_age_seconds 90",
            "router_snapshot_write_failures_total 1",
            "router_tls_handshakes_total{version=\"1.3\",resumed=\"yes\"} 1",
            "router_tls_handshakes_total{version=\"1.2\",resumed=\"no\"} 0",
            "router_tls_handshake_failures_total{reason=\"protocol\"} 1",
            "router_tls_handshake_failures_total{reason=\"timeout\"} 1",
            "router_certificates{source=\"redis\"} 3",
            "router_certificates_expiring{source=\"redis\"} 1",
            "router_certificates_first_expiry_timestamp_seconds{source=\"redis\"} 1700000000",
            "router_certificate_failures_total 9",
            "router_build_info{version=",
            "# EOF",
        ] {
            assert!(text.lines().any(|shown| shown.starts_with(line)), "{line}\n{text}");
        }
    }
}
