//! A Redis that comes back empty: a restart without persistence would turn every host into 400.
//!
//! After a connection to another server than before, known routes are held until it is clear whether that
//! server has the lists. When (nearly) all are missing, each known host goes on from its last known route
//! until its key exists again, or the time is over. What was read from the new server takes effect at once, as
//! ever: a list that is deleted there is gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Millis, millis};

/// A server is taken for empty when so many of a hundred known lists are missing.
const MISSING_PERCENT: usize = 90;

/// Whether last known routes are held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Redis decides.
    Off,
    /// Another server has answered since this time, and it is not known yet what it has.
    Suspected(Millis),
    /// It came back empty: held are routes that were read before the first time, until the second.
    Holding(Millis, Millis),
}

/// Follows which server answers.
#[derive(Debug)]
pub struct Grace {
    limit: Millis,
    state: Mutex<State>,
    /// The phase is not [`Phase::Off`]: spares look-ups the lock.
    is_active: AtomicBool,
    suspected: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    was_connected: bool,
    run_id: Option<Box<str>>,
}

impl Grace {
    /// Holds routes for `limit` at most; zero is never.
    pub fn new(limit: Duration) -> Self {
        let state = State { phase: Phase::Off, was_connected: false, run_id: None };
        let state = Mutex::new(state);
        Self {
            limit: millis(limit),
            state,
            is_active: AtomicBool::new(false),
            suspected: Notify::new(),
        }
    }

    /// Notes a new connection, to the server `run_id` if that is known. Whether it may be another server than
    /// before: then it is to be examined, and routes are held until [`Grace::decide`].
    pub fn connected(&self, run_id: Option<&str>, now: Millis) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = run_id.is_some() && state.run_id.as_deref() == run_id;
        let was_connected = std::mem::replace(&mut state.was_connected, true);
        state.run_id = run_id.map(Into::into);
        if !was_connected || is_same || self.limit == 0 {
            return false;
        }
        state.phase = Phase::Suspected(now);
        self.is_active.store(true, Ordering::Release);
        self.suspected.notify_one();
        true
    }

    /// Waits until another server than before has answered. For one task.
    pub async fn suspected(&self) {
        self.suspected.notified().await;
    }

    /// What is known of the server now.
    pub fn phase(&self) -> Phase {
        match self.is_active.load(Ordering::Acquire) {
            true => self.state.lock().unwrap_or_else(PoisonError::into_inner).phase,
            false => Phase::Off,
        }
    }

    /// Decides on the server that has been suspected `since`, where `missing` of `known` lists are missing.
    /// Whether it came back empty. Nothing is decided when another server has come meanwhile.
    pub fn decide(&self, since: Millis, known: usize, missing: usize, now: Millis) -> Option<bool> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.phase != Phase::Suspected(since) {
            return None;
        }
        let is_empty = missing > 0 && missing * 100 >= known * MISSING_PERCENT;
        state.phase = match is_empty {
            true => Phase::Holding(since, now.saturating_add(self.limit)),
            false => Phase::Off,
        };
        self.is_active.store(is_empty, Ordering::Release);
        Some(is_empty)
    }

    /// Ends `phase`, unless another has begun. Whether it did.
    pub fn end(&self, phase: Phase) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.phase != phase {
            return false;
        }
        state.phase = Phase::Off;
        self.is_active.store(false, Ordering::Release);
        true
    }

    /// While last known answers are held: what was read before this time may go on where it is missing now.
    pub fn since(&self) -> Option<Millis> {
        match self.phase() {
            Phase::Off => None,
            Phase::Suspected(since) | Phase::Holding(since, _) => Some(since),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Grace, Phase};

    fn suspecting(limit: u64) -> Grace {
        let grace = Grace::new(Duration::from_secs(limit));
        assert!(!grace.connected(Some("one"), 0), "the first server is none that came back");
        assert!(!grace.connected(Some("one"), 5), "a lost connection alone says nothing");
        assert_eq!(grace.connected(Some("two"), 100), limit > 0);
        grace
    }

    #[test]
    fn answers_of_before_are_held_while_an_empty_server_is_suspected_and_until_grace_ends() {
        let grace = suspecting(300);
        assert_eq!(grace.since(), Some(100), "also before it is decided");
        assert_eq!(grace.decide(100, 100, 90, 110), Some(true));
        assert_eq!(grace.phase(), Phase::Holding(100, 300_110));
        assert_eq!(grace.since(), Some(100));
        assert!(grace.end(grace.phase()) && grace.phase() == Phase::Off);
        assert_eq!(grace.since(), None);
    }

    #[test]
    fn a_server_that_has_the_lists_decides_at_once() {
        for (known, missing) in [(0, 0), (100, 0), (100, 89), (1, 0)] {
            let grace = suspecting(300);
            assert_eq!(grace.decide(100, known, missing, 110), Some(false), "{known} {missing}");
            assert_eq!(grace.phase(), Phase::Off);
        }
        assert_eq!(suspecting(0).phase(), Phase::Off, "0 turns it off");
        let grace = Grace::new(Duration::from_secs(1));
        grace.connected(None, 0);
        assert!(grace.connected(None, 1), "a server that does not say who it is may be another");
    }

    #[test]
    fn a_server_that_is_replaced_meanwhile_is_looked_at_anew() {
        let grace = suspecting(300);
        assert!(grace.connected(Some("three"), 200));
        assert_eq!(grace.decide(100, 10, 10, 210), None);
        assert_eq!(grace.decide(200, 10, 10, 210), Some(true));
        assert!(!grace.end(Phase::Suspected(200)));
    }
}
