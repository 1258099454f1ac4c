//! Connections that many requests share, and which of them takes one more.
//!
//! No request is given to a connection on which it would wait for others: neither for a stream (RFC 9113
//! 5.1.2) nor for the window of the connection, which covers all that its streams may be sent unasked.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;

use super::{IDLE_TIMEOUT, Sender};
use crate::route::{Millis, millis};
use crate::upstream::names::Reached;

/// Requests at a time on one connection, if the backend does not allow fewer.
pub(super) const MAX_STREAMS: u32 = 100;
/// Requests that may be given up on a connection before it takes no more: backends end one with many
/// resets (CVE-2023-44487), and everybody's requests with it.
const MAX_GIVEN_UP: usize = 16;

/// The shared connections to one backend.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Shared(Vec<Connection>);

#[derive(Debug)]
struct Connection {
    sender: Sender,
    usage: Arc<Usage>,
    /// Where it goes to.
    reached: Reached,
    /// Requests that it was taken for, so far and at the last sweep.
    uses: u64,
    seen: u64,
    since: Millis,
}

/// What a connection carries.
#[derive(Debug)]
pub(in crate::upstream) struct Usage {
    streams: AtomicUsize,
    /// As many streams as the backend allows.
    allowed: AtomicUsize,
    /// There was an answer, and with it the settings.
    is_answered: AtomicBool,
    driver: AtomicWaker,
    given_up: AtomicUsize,
}

/// A request on a shared connection. Dropping it says that the request was given up.
#[derive(Debug)]
pub(in crate::upstream) struct Place {
    usage: Arc<Usage>,
    is_finished: bool,
}

impl Shared {
    /// Gives no more requests to connections to where the backend no longer is. Those that they have
    /// hold them.
    pub(in crate::upstream) fn retain(&mut self, mut is_current: impl FnMut(&mut Reached) -> bool) {
        self.0.retain_mut(|one| is_current(&mut one.reached));
    }

    /// A connection on which a request has to wait for no others, to `target` if there is one.
    pub(in crate::upstream) fn take(
        &mut self,
        target: Option<IpAddr>,
    ) -> Option<(Sender, Place, Reached)> {
        // One that is about to end takes no more requests. Those that it has hold it.
        self.0.retain(|one| one.sender.is_ready() && !one.usage.is_spent());
        let is_there = |one: &Connection| target.is_none() || one.reached.address == target;
        let one = self.0.iter_mut().find(|one| one.usage.has_room() && is_there(one))?;
        one.uses += 1;
        Some((one.sender.clone(), Place::new(&one.usage), one.reached))
    }

    /// Shares a new connection, unless there is room on another to the same address: many may have been
    /// made at once.
    pub(in crate::upstream) fn add(
        &mut self,
        sender: &Sender,
        usage: &Arc<Usage>,
        reached: Reached,
    ) {
        let is_like_it = |one: &Connection| {
            one.reached.address == reached.address && one.usage.has_room() && one.sender.is_ready()
        };
        if self.0.iter().any(is_like_it) {
            return;
        }
        let (sender, usage) = (sender.clone(), Arc::clone(usage));
        self.0.push(Connection { sender, usage, reached, uses: 1, seen: 0, since: 0 });
    }

    /// Lets connections go that have ended or that nobody uses. Whether any is left.
    pub(in crate::upstream) fn sweep(&mut self, now: Millis) -> bool {
        self.0.retain_mut(|one| {
            if one.uses != one.seen || one.usage.streams.load(Ordering::Relaxed) > 0 {
                (one.seen, one.since) = (one.uses, now);
            }
            now.saturating_sub(one.since) < millis(IDLE_TIMEOUT) && !one.sender.is_closed()
        });
        !self.0.is_empty()
    }
}

impl Usage {
    /// Of a connection that has carried nothing yet.
    pub(in crate::upstream) fn new() -> Arc<Self> {
        Arc::new(Self {
            streams: AtomicUsize::new(0),
            allowed: AtomicUsize::new(MAX_STREAMS as usize),
            is_answered: AtomicBool::new(false),
            driver: AtomicWaker::new(),
            given_up: AtomicUsize::new(0),
        })
    }

    /// Who asks the library what the backend allows: to be woken at the first answer.
    pub(super) fn is_driven_by(&self, driver: &Waker) {
        if !self.is_answered.load(Ordering::Relaxed) {
            self.driver.register(driver);
        }
    }

    /// The backend allows so many streams at a time. With none at all a request waits, as it would on
    /// any other connection.
    pub(super) fn allow(&self, streams: usize) {
        self.allowed.store(streams.clamp(1, MAX_STREAMS as usize), Ordering::Relaxed);
    }

    /// A response has come.
    pub(in crate::upstream) fn note_answer(&self) {
        if !self.is_answered.swap(true, Ordering::Relaxed) {
            self.driver.wake();
        }
    }

    fn has_room(&self) -> bool {
        self.streams.load(Ordering::Relaxed) < self.allowed.load(Ordering::Relaxed)
    }

    fn is_spent(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) >= MAX_GIVEN_UP
    }
}

impl Place {
    pub(in crate::upstream) fn new(usage: &Arc<Usage>) -> Self {
        usage.streams.fetch_add(1, Ordering::Relaxed);
        Self { usage: Arc::clone(usage), is_finished: false }
    }

    pub(in crate::upstream) fn usage(&self) -> Arc<Usage> {
        Arc::clone(&self.usage)
    }

    /// The request has had its answer.
    pub(in crate::upstream) fn finish(&mut self) {
        self.is_finished = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.usage.streams.fetch_sub(1, Ordering::Relaxed);
        if !self.is_finished {
            self.usage.given_up.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_GIVEN_UP, MAX_STREAMS, Place, Usage};

    #[test]
    fn a_connection_has_room_for_what_both_sides_allow() {
        let usage = Usage::new();
        for (allowed, expected) in [(0, 1), (1, 1), (7, 7), (1_000_000, MAX_STREAMS as usize)] {
            usage.allow(allowed);
            let mut places = Vec::new();
            while usage.has_room() {
                places.push(Place::new(&usage));
            }
            assert_eq!(places.len(), expected, "{allowed} allowed");
            drop(places.pop());
            assert!(usage.has_room(), "the place of one that has ended");
        }
    }

    #[test]
    fn only_given_up_requests_use_a_connection_up() {
        let usage = Usage::new();
        for _ in 0..10 * MAX_GIVEN_UP {
            Place::new(&usage).finish();
        }
        assert!(!usage.is_spent());
        for _ in 0..MAX_GIVEN_UP {
            assert!(!usage.is_spent());
            drop(Place::new(&usage));
        }
        assert!(usage.is_spent());
    }
}
