//! What is counted, and how it is shown to Prometheus.
//!
//! Labels have few values, all of ours: nothing that Marathon or an app says becomes one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::readiness::readiness;
use super::sums::Sums;
use super::{Facts, Identity, Observed};
use crate::agent::errors::{FETCH_ERRORS, REDIS_ERRORS};
use crate::agent::state::Stream;
use crate::routes::change::Action;
use crate::routes::lease::Standing;

const ACTIONS: [&str; 6] = [
    Action::Adopt.as_str(),
    Action::Create.as_str(),
    Action::Delete.as_str(),
    Action::Forget.as_str(),
    Action::Release.as_str(),
    Action::Update.as_str(),
];

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Those of `observed`.
    pub fn new(observed: Arc<Observed>) -> Self {
        let mut registry = Registry::default();
        let counters = &observed.state.counters;
        for (name, help, family, label, values) in [
            (
                "marathon_sync_fetches",
                "Times that Marathon was asked for its apps, by result",
                &counters.fetches,
                "result",
                &["ok", "failed", "unusable"][..],
            ),
            (
                "marathon_sync_fetch_errors",
                "Marathons that were asked and gave no answer, by kind of error",
                &counters.fetch_errors,
                "kind",
                &FETCH_ERRORS,
            ),
            (
                "marathon_sync_passes",
                "Passes, by result",
                &counters.passes,
                "result",
                &["ok", "read_failed", "write_failed"],
            ),
            (
                "marathon_sync_changes",
                "Lists written, by what happened to them",
                &counters.changes,
                "action",
                &ACTIONS,
            ),
            (
                "marathon_sync_backend_changes",
                "Backends that came and went",
                &counters.backends,
                "change",
                &["added", "removed"],
            ),
            (
                "marathon_sync_redis_errors",
                "Lists that could not be read or written, by kind of error",
                &counters.redis_errors,
                "kind",
                &REDIS_ERRORS,
            ),
        ] {
            // Each value of a label is there from the start: a rise from nothing is no rise.
            for value in values {
                drop(family.get_or_create(&[(label, *value)]));
            }
            registry.register(name, help, family.clone());
        }
        for (name, help, histogram) in [
            (
                "marathon_sync_fetch_duration_seconds",
                "Time until Marathon's answer was there",
                &counters.fetch_seconds,
            ),
            (
                "marathon_sync_event_lag_seconds",
                "Time from an event to what follows from it in Redis",
                &counters.lag_seconds,
            ),
        ] {
            registry.register(name, help, histogram.clone());
        }
        let trips = counters.guard_trips.clone();
        let help = "Times that removals began to wait for confirmation";
        registry.register("marathon_sync_guard_trips", help, trips);
        registry.register_collector(Box::new(Now(observed)));
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

/// What is read off at the moment of asking.
#[derive(Debug)]
struct Now(Arc<Observed>);

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let facts = self.0.facts();
        let counters = &self.0.state.counters;
        let stream = &counters.stream;
        let sums = facts.view.pass.as_deref().map(Sums::of);

        let help = "Events of Marathon that made us look, by type";
        let mut family =
            encoder.encode_descriptor("marathon_sync_events", help, None, MetricType::Counter)?;
        for (kind, count) in stream.by_kind() {
            ConstCounter::new(count).encode(family.encode_family(&[("kind", kind)])?)?;
        }
        for (name, help, count) in [
            (
                "marathon_sync_event_stream_connects",
                "Streams of events that brought something",
                &stream.connected,
            ),
            (
                "marathon_sync_lease_terms",
                "Times that this process became the one that writes, or had to begin anew",
                &counters.terms,
            ),
        ] {
            let counter = ConstCounter::new(count.load(Ordering::Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }

        for (name, help, value) in gauges(&facts, &self.0.identity, sums.as_ref(), Timestamp::now())
        {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let apps = sums.iter().flat_map(|sums| sums.apps).collect::<Vec<_>>();
        let tasks = sums.iter().flat_map(|sums| sums.tasks).collect::<Vec<_>>();
        let backends = sums.iter().flat_map(|sums| sums.backends).collect::<Vec<_>>();
        for (name, help, label, values) in [
            ("marathon_sync_apps", "Apps of the last answer", "state", apps),
            ("marathon_sync_tasks", "Tasks of apps that claim a host", "verdict", tasks),
            ("marathon_sync_backends", "Backends that hosts are to have", "verdict", backends),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (word, value) in values {
                let gauge = ConstGauge::new(value as u64);
                gauge.encode(family.encode_family(&[(label, word)])?)?;
            }
        }
        let name = "marathon_sync_build_info";
        let help = "Version of this marathon-sync";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        ConstGauge::new(1_u64).encode(family.encode_family(&version)?)
    }
}

type Gauge = (&'static str, &'static str, f64);

fn gauges(facts: &Facts, identity: &Identity, sums: Option<&Sums>, now: Timestamp) -> [Gauge; 11] {
    let flag = |is_so| if is_so { 1.0 } else { 0.0 };
    #[expect(clippy::cast_precision_loss, reason = "there are not that many")]
    let number = |count: Option<usize>| count.unwrap_or(0) as f64;
    let view = &facts.view;
    let is_ready = readiness(facts, identity.stale_after, now).is_ok();
    [
        (
            "marathon_sync_last_success_timestamp_seconds",
            "When a pass last succeeded, 0 if none has",
            view.succeeded.map_or(0.0, |at| at.as_duration().as_secs_f64()),
        ),
        ("marathon_sync_ready", "Whether /readyz says so", flag(is_ready)),
        (
            "marathon_sync_leader",
            "Whether this process writes",
            flag(matches!(view.standing, Standing::Leader { .. })),
        ),
        (
            "marathon_sync_lease_known",
            "Whether it is known which process writes",
            flag(view.standing != Standing::Unknown),
        ),
        (
            "marathon_sync_event_stream_connected",
            "Whether events of Marathon arrive",
            flag(matches!(view.stream, Stream::Connected { .. })),
        ),
        ("marathon_sync_redis_up", "Whether Redis is connected", flag(facts.redis_is_up)),
        (
            "marathon_sync_redis_full",
            "Whether Redis has no memory left, as the leader sees it",
            flag(view.is_redis_full()),
        ),
        ("marathon_sync_hosts", "Hosts that apps claim", number(sums.map(|sums| sums.hosts))),
        (
            "marathon_sync_shared_hosts",
            "Hosts that several apps claim",
            number(view.pass.as_ref().map(|pass| pass.shared.len())),
        ),
        (
            "marathon_sync_refused_wishes",
            "Wishes of labels that are not carried out",
            number(sums.map(|sums| sums.refused)),
        ),
        (
            "marathon_sync_held_backends",
            "Backends whose removal waits for confirmation",
            number(sums.map(|sums| sums.held)),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::super::testing::{at, fetch_error, leader, observed, pass};
    use super::Metrics;
    use crate::routes::apply::{Applied, WriteError};
    use crate::routes::snapshot::RoutesError;

    fn assert_shown(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|shown| shown == *line), "{line}\n{text}");
        }
    }

    #[test]
    fn every_metric_is_there_from_the_start_but_sums_over_an_answer() {
        let text = Metrics::new(Arc::new(observed())).text();
        assert_shown(
            &text,
            &[
                "marathon_sync_last_success_timestamp_seconds 0.0",
                "marathon_sync_ready 0.0",
                "marathon_sync_fetches_total{result=\"unusable\"} 0",
                "marathon_sync_passes_total{result=\"ok\"} 0",
                "marathon_sync_changes_total{action=\"delete\"} 0",
                "marathon_sync_backend_changes_total{change=\"added\"} 0",
                "marathon_sync_fetch_errors_total{kind=\"login\"} 0",
                "marathon_sync_redis_errors_total{kind=\"conflict\"} 0",
                "marathon_sync_events_total{kind=\"status_update_event\"} 0",
                "marathon_sync_events_total{kind=\"garbage\"} 0",
                "marathon_sync_guard_trips_total 0",
                "marathon_sync_event_lag_seconds_count 0",
                "# EOF",
            ],
        );
        assert!(!text.contains("marathon_sync_apps{"), "{text}");
    }

    #[test]
    fn what_was_noted_is_shown() {
        let observed = Arc::new(observed());
        observed.state.update(|view| {
            view.standing = leader();
            view.succeeded = Some(at(4));
            view.pass = Some(Arc::new(pass()));
        });
        let counters = &observed.state.counters;
        counters.changes.get_or_create(&[("action", "update")]).inc();
        counters.lag_seconds.observe(0.015);
        counters.fetch_failed(&fetch_error());
        counters.read_failed(&RoutesError::NotesUnreadable(String::new()));
        let failed = [("a.test".to_owned(), WriteError::Conflict)].into();
        counters.write_failed(&Applied { failed, ..Applied::default() });
        counters.stream.garbage.fetch_add(4, Ordering::Relaxed);
        counters.terms.store(2, Ordering::Relaxed);
        assert_shown(
            &Metrics::new(observed).text(),
            &[
                "marathon_sync_last_success_timestamp_seconds 1700000004.0",
                "marathon_sync_leader 1.0",
                "marathon_sync_lease_known 1.0",
                "marathon_sync_lease_terms_total 2",
                "marathon_sync_changes_total{action=\"update\"} 1",
                "marathon_sync_apps{state=\"quarantined\"} 1",
                "marathon_sync_tasks{verdict=\"up\"} 2",
                "marathon_sync_backends{verdict=\"unsure\"} 2",
                "marathon_sync_hosts 3.0",
                "marathon_sync_shared_hosts 1.0",
                "marathon_sync_refused_wishes 1.0",
                "marathon_sync_held_backends 1.0",
                "marathon_sync_event_lag_seconds_bucket{le=\"0.02\"} 1",
                "marathon_sync_event_lag_seconds_bucket{le=\"0.01\"} 0",
                "marathon_sync_fetch_errors_total{kind=\"too_long\"} 1",
                "marathon_sync_redis_errors_total{kind=\"notes_unreadable\"} 1",
                "marathon_sync_redis_errors_total{kind=\"conflict\"} 1",
                "marathon_sync_events_total{kind=\"garbage\"} 4",
            ],
        );
    }
}
