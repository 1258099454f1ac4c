//! What the agent shows of itself: plain data, filled by the loop, read by whoever serves it.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::marathon::events;
use crate::pass::{Occasion, Pass};
use crate::routes::lease::{Problem, Standing};

/// One label and its value.
pub type Label = [(&'static str, &'static str); 1];

/// Texts of changes that are kept; a first pass over a large cluster has thousands.
pub const MAX_CHANGES: usize = 200;

/// The state, shared by the loop and those who look at it.
#[derive(Debug)]
pub struct State {
    view: Mutex<View>,
    /// What is counted.
    pub counters: Counters,
}

impl State {
    /// Nothing has happened yet.
    pub fn new(started: Timestamp) -> Self {
        Self { view: Mutex::new(View::new(started)), counters: Counters::default() }
    }

    /// What can be seen now. Cheap: what is large is shared.
    pub fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what can be seen.
    pub fn update(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What can be seen at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// When the process started.
    pub started: Timestamp,
    /// The last answer of Marathon that could be used.
    pub answer: Option<AnswerSeen>,
    /// Why there is no newer answer; `None` when the last attempt was one.
    pub answer_failed: Option<Failure>,
    /// The last pass. Its `difference` has been taken out: see [`changes`](Self::changes).
    pub pass: Option<Arc<Pass>>,
    /// When that was, and why.
    pub passed: Option<(Timestamp, Occasion)>,
    /// Why Redis could not be read or written; `None` when the last pass could do both.
    pub redis_failed: Option<Failure>,
    /// When Redis was last seen to be, or made, what Marathon wants but for held removals.
    pub succeeded: Option<Timestamp>,
    /// The last changes that a pass of this process has written, or as a standby has found.
    pub changes: Changes,
    /// Who writes.
    pub standing: Standing,
    /// What is wrong with Redis when it was last asked for the lease, and since when.
    pub lease_problem: Option<(Timestamp, Problem)>,
    /// The stream of events.
    pub stream: Stream,
}

impl View {
    /// Whether Redis has no memory left, as far as the leader knows.
    pub fn is_redis_full(&self) -> bool {
        matches!(self.lease_problem, Some((_, Problem::Full)))
    }

    fn new(started: Timestamp) -> Self {
        Self {
            started,
            answer: None,
            answer_failed: None,
            pass: None,
            passed: None,
            redis_failed: None,
            succeeded: None,
            changes: Changes::default(),
            standing: Standing::Unknown,
            lease_problem: None,
            stream: Stream::Connecting,
        }
    }
}

/// An answer of Marathon, without what it says.
#[derive(Clone, Debug)]
pub struct AnswerSeen {
    /// When it had arrived.
    pub at: Timestamp,
    /// Who answered.
    pub endpoint: String,
    /// Marathon's leader, if it says so.
    pub leader: Option<String>,
    /// How long it took.
    pub duration: Duration,
    /// Its length.
    pub bytes: usize,
    /// Apps in it.
    pub apps: usize,
}

/// Something that did not work.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Since when.
    pub since: Timestamp,
    /// How often in a row.
    pub times: u64,
    /// What the last attempt said.
    pub message: String,
}

impl Failure {
    /// One more failure after `before`.
    pub fn after(before: Option<&Self>, now: Timestamp, message: String) -> Self {
        match before {
            Some(before) => Self { since: before.since, times: before.times + 1, message },
            None => Self { since: now, times: 1, message },
        }
    }
}

/// Changes of one pass that had any.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// When; `None`: never yet.
    pub at: Option<Timestamp>,
    /// Whether they were written.
    pub is_written: bool,
    /// A line each, at most [`MAX_CHANGES`].
    pub lines: Arc<[String]>,
    /// How many there were.
    pub count: usize,
    /// What could not be written, a line each, at most [`MAX_CHANGES`].
    pub failed: Arc<[String]>,
}

/// The stream of events.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stream {
    /// Not yet there.
    Connecting,
    /// Events arrive.
    Connected {
        /// Since when.
        since: Timestamp,
    },
    /// None arrive; the interval must do.
    Lost {
        /// Since when.
        since: Timestamp,
        /// Why.
        reason: Arc<str>,
    },
}

/// What is counted since the start, ready to be registered.
#[derive(Debug)]
pub struct Counters {
    /// The stream's own counters.
    pub stream: Arc<events::Counters>,
    /// Hints by `kind`.
    pub hints: Family<Label, Counter>,
    /// Fetches by `result`: `ok`, `failed` (no endpoint answered), `unusable` (not a list of apps).
    pub fetches: Family<Label, Counter>,
    /// Endpoints that gave no answer, by `kind`: see [`Counters::fetch_failed`].
    pub fetch_errors: Family<Label, Counter>,
    /// Lists that could not be read or written, by `kind`: see [`Counters::read_failed`] and
    /// [`Counters::write_failed`].
    pub redis_errors: Family<Label, Counter>,
    /// Seconds that a fetch took.
    pub fetch_seconds: Histogram,
    /// Passes by `result`: `ok`, `read_failed`, `write_failed`.
    pub passes: Family<Label, Counter>,
    /// Changes written, by `action`.
    pub changes: Family<Label, Counter>,
    /// Backends added and removed, by `change`.
    pub backends: Family<Label, Counter>,
    /// Changes that could not be written.
    pub failed_changes: Counter,
    /// Passes in which the guard began to hold removals back.
    pub guard_trips: Counter,
    /// Seconds from an event to the end of the write that followed from it.
    pub lag_seconds: Histogram,
    /// Terms as the one who writes.
    pub terms: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            stream: Arc::default(),
            hints: Family::default(),
            fetches: Family::default(),
            fetch_errors: Family::default(),
            redis_errors: Family::default(),
            fetch_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 15)),
            passes: Family::default(),
            changes: Family::default(),
            backends: Family::default(),
            failed_changes: Counter::default(),
            guard_trips: Counter::default(),
            lag_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 15)),
            terms: AtomicU64::new(0),
        }
    }
}
