//! Log lines about hosts that are answered 502 or 504: one warning a minute for each list of backends,
//! and one line when it is well again.
//!
//! Keyed by the name of the list, not by the requested host: of hosts under a wildcard clients can make up
//! any number.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

use shared::lock::lock;

use crate::route::Millis;

/// Time between two warnings about one list.
const INTERVAL: Millis = 60_000;
/// Time without a failure after which a success means that a list is well again: of two backends one may
/// still fail.
const QUIET: Millis = 3_000;
/// Time without a request after which an outage may be forgotten.
const FORGOTTEN: Millis = 3_600_000;
/// Lists that are remembered. Beyond, lists share one line.
const MAX_LISTS: usize = 4096;
/// Time between two searches for lists that may be forgotten, which look at all of them.
const PURGE_INTERVAL: Millis = 1000;
/// Counters of open outages, by the hash of the list's name.
const SLOTS: usize = 4 * MAX_LISTS;

/// What is remembered of one list.
#[derive(Clone, Copy, Debug)]
struct State {
    /// Of the outage that was warned of.
    first_failure: Millis,
    last_failure: Millis,
    next_warning: Millis,
    /// Failures since the last warning.
    suppressed: u64,
    /// A warning was logged, and its end was not.
    is_open: bool,
}

/// Lists whose requests fail. Shared by all workers.
#[derive(Debug)]
pub struct HostFailures {
    lists: Mutex<Lists>,
    /// Open outages by the hash of the list's name, changed under the lock. An answer of a backend reads one
    /// counter; only where that is not zero, by its own list or one of the same hash, it takes the lock.
    open: Box<[AtomicU16]>,
    hasher: foldhash::fast::RandomState,
}

#[derive(Debug, Default)]
struct Lists {
    states: HashMap<Box<str>, State>,
    next_purge: Millis,
}

impl Default for HostFailures {
    fn default() -> Self {
        Self {
            lists: Mutex::default(),
            open: (0..SLOTS).map(|_| AtomicU16::new(0)).collect(),
            hasher: foldhash::fast::RandomState::default(),
        }
    }
}

impl HostFailures {
    /// Notes a failure of a request for the list `name` at `now`. Whether to warn of it: then the number
    /// of failures since the last warning.
    pub fn failed(&self, name: &str, now: Millis) -> Option<u64> {
        let mut lists = lock(&self.lists);
        if lists.is_full_for(name) && now >= lists.next_purge {
            lists.next_purge = now.saturating_add(PURGE_INTERVAL);
            lists.states.retain(|name, state| {
                let is_needed = match state.is_open {
                    true => state.last_failure.saturating_add(FORGOTTEN) > now,
                    false => state.next_warning > now,
                };
                if state.is_open && !is_needed {
                    self.slot(name).fetch_sub(1, Ordering::Relaxed);
                }
                is_needed
            });
        }
        let name = if lists.is_full_for(name) { "" } else { name };
        let state = lists.states.entry(name.into()).or_insert(State {
            first_failure: now,
            last_failure: now,
            next_warning: now,
            suppressed: 0,
            is_open: false,
        });
        state.last_failure = now;
        if now < state.next_warning {
            state.suppressed += 1;
            return None;
        }
        state.next_warning = now.saturating_add(INTERVAL);
        let suppressed = std::mem::take(&mut state.suppressed);
        if !state.is_open {
            state.is_open = true;
            state.first_failure = now;
            self.slot(name).fetch_add(1, Ordering::Relaxed);
        }
        Some(suppressed)
    }

    /// Notes that a backend of the list `name` has answered at `now`. Whether to say that the list is well
    /// again: then for how long it was not.
    pub fn succeeded(&self, name: &str, now: Millis) -> Option<Millis> {
        if self.slot(name).load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut lists = lock(&self.lists);
        let state = lists.states.get_mut(name).filter(|state| state.is_open)?;
        if now < state.last_failure.saturating_add(QUIET) {
            return None;
        }
        state.is_open = false;
        self.slot(name).fetch_sub(1, Ordering::Relaxed);
        Some(state.last_failure.saturating_sub(state.first_failure))
    }

    #[allow(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
    fn slot(&self, name: &str) -> &AtomicU16 {
        &self.open[self.hasher.hash_one(name) as usize % SLOTS]
    }
}

impl Lists {
    /// Whether there is no room for a list that is not remembered yet.
    fn is_full_for(&self, name: &str) -> bool {
        self.states.len() >= MAX_LISTS && !self.states.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::{HostFailures, MAX_LISTS};

    #[test]
    fn one_warning_a_minute_and_the_rest_is_counted() {
        let failures = HostFailures::default();
        assert_eq!(failures.failed("a", 0), Some(0));
        assert_eq!((failures.failed("a", 1), failures.failed("a", 59_999)), (None, None));
        assert_eq!(failures.failed("b", 5), Some(0));
        assert_eq!(failures.failed("a", 60_000), Some(2));
        assert_eq!(failures.failed("a", 60_001), None);
    }

    #[test]
    fn recovery_is_reported_once_and_only_after_a_warning() {
        let failures = HostFailures::default();
        assert_eq!(failures.succeeded("a", 0), None);
        failures.failed("a", 1000);
        failures.failed("a", 2000);
        assert_eq!(failures.succeeded("a", 2500), None, "half of its backends may still fail");
        assert_eq!(failures.succeeded("b", 9000), None);
        assert_eq!(failures.succeeded("a", 5000), Some(1000));
        assert_eq!(failures.succeeded("a", 6000), None);
        // Failures within the minute are counted, so that one host causes two lines a minute at most.
        assert_eq!(failures.failed("a", 7000), None);
        assert_eq!(failures.succeeded("a", 20_000), None);
        assert_eq!(failures.failed("a", 61_000), Some(2));
        assert_eq!(failures.succeeded("a", 70_000), Some(0));
    }

    #[test]
    fn any_number_of_lists_takes_bounded_memory() {
        let failures = HostFailures::default();
        let lines = (0..3 * MAX_LISTS).filter(|n| failures.failed(&n.to_string(), 0).is_some());
        assert_eq!(lines.count(), MAX_LISTS + 1);
        assert_eq!(failures.lists.lock().unwrap().states.len(), MAX_LISTS + 1);
        assert!(failures.failed("new", 0).is_none());
        // An hour later all of them are forgotten, and no answer takes the lock for them any more.
        assert_eq!(failures.failed("new", super::FORGOTTEN), Some(0));
        assert_eq!(failures.lists.lock().unwrap().states.len(), 1);
        let is_open = |slot: &&std::sync::atomic::AtomicU16| slot.load(Ordering::Relaxed) != 0;
        assert_eq!(failures.open.iter().filter(is_open).count(), 1);
    }
}
