//! One Marathon process: how it misbehaves, and what it has been asked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::faults::{Faults, Route};
use super::http::Request;
use super::shared::Shared;
use super::stream::EventMode;
use super::tls::Tls;

/// How many requests are remembered in full.
const REMEMBERED: usize = 10_000;

/// What can be changed while it runs; whoever waits hears of every change.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) faults: Faults,
    pub(super) events: EventMode,
    /// Where requests for events are sent instead, whatever the role.
    pub(super) events_elsewhere: Option<String>,
    pub(super) heartbeat: Duration,
    /// Pause between the two bytes of a heartbeat.
    pub(super) heartbeat_gap: Duration,
    /// Heartbeats that were asked for, out of turn.
    pub(super) beats: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            faults: Faults::default(),
            events: EventMode::Normal,
            events_elsewhere: None,
            heartbeat: Duration::from_secs(10),
            // Long enough for the two bytes to leave in segments of their own.
            heartbeat_gap: Duration::from_millis(2),
            beats: 0,
        }
    }
}

/// What a process was asked.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Requests that came, by route.
    pub requests: BTreeMap<Route, usize>,
    /// Requests that are being answered now, by route; streams of events count as long as they
    /// last.
    pub running: BTreeMap<Route, usize>,
    /// The most that were being answered at one time, by route.
    pub peak: BTreeMap<Route, usize>,
    /// Open connections.
    pub connections: usize,
    /// Connections accepted so far.
    pub accepted: usize,
    /// The last requests in full, oldest first.
    pub log: VecDeque<Request>,
}

impl Counters {
    /// Requests of a route so far.
    pub fn requests(&self, route: Route) -> usize {
        self.requests.get(&route).copied().unwrap_or(0)
    }

    /// Requests of a route that are being answered now.
    pub fn running(&self, route: Route) -> usize {
        self.running.get(&route).copied().unwrap_or(0)
    }

    /// The most requests of a route that were being answered at one time.
    pub fn peak(&self, route: Route) -> usize {
        self.peak.get(&route).copied().unwrap_or(0)
    }
}

pub(super) struct Node {
    pub(super) shared: Arc<Shared>,
    /// Its place among the processes.
    pub(super) number: usize,
    /// Path before every other, e.g. `/service/marathon`.
    pub(super) base: String,
    pub(super) tls: Option<Tls>,
    /// Whether `/_fake/` is served.
    pub(super) controlled: bool,
    pub(super) settings: watch::Sender<Settings>,
    counters: Mutex<Counters>,
}

impl Node {
    pub(super) fn new(
        shared: Arc<Shared>,
        number: usize,
        base: String,
        tls: Option<Tls>,
        controlled: bool,
    ) -> Self {
        Self {
            shared,
            number,
            base,
            tls,
            controlled,
            settings: watch::Sender::new(Settings::default()),
            counters: Mutex::default(),
        }
    }

    pub(super) fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request until the value is dropped.
    pub(super) fn enter(&self, route: Route, request: Request) -> impl Drop {
        let mut counters = self.counters();
        *counters.requests.entry(route).or_default() += 1;
        let running = counters.running.entry(route).or_default();
        *running += 1;
        let running = *running;
        let peak = counters.peak.entry(route).or_default();
        *peak = running.max(*peak);
        if counters.log.len() == REMEMBERED {
            counters.log.pop_front();
        }
        counters.log.push_back(request);
        OnDrop(move || *self.counters().running.entry(route).or_default() -= 1)
    }

    /// Counts a connection until the value is dropped.
    pub(super) fn connected(&self) -> impl Drop {
        let mut counters = self.counters();
        counters.connections += 1;
        counters.accepted += 1;
        OnDrop(move || self.counters().connections -= 1)
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
