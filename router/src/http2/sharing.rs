//! Connections that many requests share, and which of them takes one more.
//!
//! No request is given to a connection on which it would wait for others: neither for a stream (RFC 9113
//! 5.1.2) nor for the window of the connection, which covers all that its streams may be sent unasked.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;

use super::Sender;
use crate::route::{Millis, millis};
use crate::upstream::names::Reached;

/// An unused connection is closed after this. Backends commonly close theirs after 60 s or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(55);
/// Requests at a time on one connection, if the backend does not allow fewer.
pub const MAX_STREAMS: u32 = 100;
/// Requests that may be given up on a connection before it takes no more: backends end one with many
/// resets (CVE-2023-44487), and all its requests with it.
const MAX_GIVEN_UP: usize = 16;

/// The shared connections to one backend.
#[derive(Debug, Default)]
pub struct Shared(Vec<SharedConnection>);

#[derive(Debug)]
struct SharedConnection {
    sender: Sender,
    usage: Arc<StreamUsage>,
    /// Where it goes to.
    reached: Reached,
    /// Requests that it was taken for, so far and at the last sweep.
    uses: u64,
    seen: u64,
    since: Millis,
}

/// What a connection carries, counted by its worker only.
#[derive(Debug)]
pub struct StreamUsage {
    streams: AtomicUsize,
    /// Streams that the backend allows.
    allowed: AtomicUsize,
    /// A response has come, and with it the settings.
    has_response: AtomicBool,
    driver: AtomicWaker,
    given_up: AtomicUsize,
}

/// The place of one request on a shared connection. Dropping it unfinished counts the request as given up.
#[derive(Debug)]
pub struct StreamSlot {
    usage: Arc<StreamUsage>,
    is_finished: bool,
}

impl Shared {
    /// Gives no more requests to connections to addresses that the backend no longer has. Those that they
    /// carry keep them open.
    pub fn retain(&mut self, mut is_current: impl FnMut(&mut Reached) -> bool) {
        self.0.retain_mut(|one| is_current(&mut one.reached));
    }

    /// A connection on which a request does not wait for others, to `target` if there is one.
    pub fn take(&mut self, target: Option<IpAddr>) -> Option<(Sender, StreamSlot, Reached)> {
        // One that is about to end takes no more requests; those that it carries keep it open.
        self.0.retain(|one| one.sender.is_ready() && !one.usage.is_spent());
        let goes_there = |one: &SharedConnection| target.is_none() || one.reached.address == target;
        let one = self.0.iter_mut().find(|one| one.usage.has_room() && goes_there(one))?;
        one.uses += 1;
        Some((one.sender.clone(), StreamSlot::new(&one.usage), one.reached))
    }

    /// Shares a new connection, unless there is room on another to the same address: many may have been
    /// made at once.
    pub fn add(&mut self, sender: &Sender, usage: &Arc<StreamUsage>, reached: Reached) {
        let is_equivalent = |one: &SharedConnection| {
            one.reached.address == reached.address && one.usage.has_room() && one.sender.is_ready()
        };
        if self.0.iter().any(is_equivalent) {
            return;
        }
        let (sender, usage) = (sender.clone(), Arc::clone(usage));
        self.0.push(SharedConnection { sender, usage, reached, uses: 1, seen: 0, since: 0 });
    }

    /// Drops connections that have ended or are unused for too long. Returns whether any is left.
    pub fn sweep(&mut self, now: Millis) -> bool {
        self.0.retain_mut(|one| {
            if one.uses != one.seen || one.usage.streams.load(Ordering::Relaxed) > 0 {
                (one.seen, one.since) = (one.uses, now);
            }
            now.saturating_sub(one.since) < millis(IDLE_TIMEOUT) && !one.sender.is_closed()
        });
        !self.0.is_empty()
    }
}

impl StreamUsage {
    /// For a connection that has carried nothing yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            streams: AtomicUsize::new(0),
            allowed: AtomicUsize::new(MAX_STREAMS as usize),
            has_response: AtomicBool::new(false),
            driver: AtomicWaker::new(),
            given_up: AtomicUsize::new(0),
        })
    }

    /// The task that asks the library what the backend allows: to be woken at the first response.
    pub(super) fn register_driver(&self, driver: &Waker) {
        if !self.has_response.load(Ordering::Relaxed) {
            self.driver.register(driver);
        }
    }

    /// The backend allows so many streams at a time. With none at all a request waits, as it would on
    /// any other connection.
    pub(super) fn allow(&self, streams: usize) {
        self.allowed.store(streams.clamp(1, MAX_STREAMS as usize), Ordering::Relaxed);
    }

    /// A response has come.
    pub(super) fn record_response(&self) {
        if !self.has_response.swap(true, Ordering::Relaxed) {
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

impl StreamSlot {
    /// For a request that is about to be sent on the connection of `usage`.
    pub fn new(usage: &Arc<StreamUsage>) -> Self {
        usage.streams.fetch_add(1, Ordering::Relaxed);
        Self { usage: Arc::clone(usage), is_finished: false }
    }

    /// What its connection carries.
    pub(super) fn usage(&self) -> &StreamUsage {
        &self.usage
    }

    /// The response is complete.
    pub fn finish(&mut self) {
        self.is_finished = true;
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.usage.streams.fetch_sub(1, Ordering::Relaxed);
        if !self.is_finished {
            self.usage.given_up.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_GIVEN_UP, MAX_STREAMS, StreamSlot, StreamUsage};

    #[test]
    fn a_connection_has_room_for_what_both_sides_allow() {
        let usage = StreamUsage::new();
        for (allowed, expected) in [(0, 1), (1, 1), (7, 7), (1_000_000, MAX_STREAMS as usize)] {
            usage.allow(allowed);
            let mut slots = Vec::new();
            while usage.has_room() {
                slots.push(StreamSlot::new(&usage));
            }
            assert_eq!(slots.len(), expected, "{allowed} allowed");
            drop(slots.pop());
            assert!(usage.has_room(), "the slot of a request that has ended");
        }
    }

    #[test]
    fn only_given_up_requests_use_a_connection_up() {
        let usage = StreamUsage::new();
        for _ in 0..10 * MAX_GIVEN_UP {
            StreamSlot::new(&usage).finish();
        }
        assert!(!usage.is_spent());
        for _ in 0..MAX_GIVEN_UP {
            assert!(!usage.is_spent());
            drop(StreamSlot::new(&usage));
        }
        assert!(usage.is_spent());
    }
}
