//! What a worker knows of each client connection: what it is doing, its deadline, and whom it waits for.
//!
//! Time limits cost the hot path one memory write: a sweep of the worker's connections every
//! [`crate::clock::TICK`] finds those whose deadline has passed and wakes their tasks. Deadlines are set by
//! [`Clock::running`], which a pause of the process does not move.
//!
//! Every field is written by the worker's own thread only; they are atomic because the state is shared by a
//! task, which may be anywhere as far as the compiler knows, and the sweep.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;
use std::time::Duration;

use shared::lock::lock;

use crate::clients::Ticket;
use crate::clock::Clock;
use crate::http1::server::Awaited;
use crate::limits::{Budget, Limits, Pace};
use crate::permit::RequestPermit;
use crate::route::{Millis, millis};

mod sweep;

pub use sweep::Connections;

/// No deadline.
const NEVER: Millis = Millis::MAX;
/// Sweeps after which the client of a running request is looked for, about three seconds: thousands of
/// long polls must not cost a noticeable share of a core.
const SWEEPS_PER_PEER_CHECK: u8 = 60;
/// Requests that a client of HTTP/2 may give up at a time, and how many more each second: a page that is
/// left while it loads gives up a few dozen, and a person leaves no more than one a second.
const MAX_GIVEN_UP: u32 = 200;
const GIVEN_UP_PER_SECOND: u32 = 20;

/// What a connection is doing, which decides what its deadline means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for the first byte of a request.
    Idle,
    /// Reading a request head.
    Head,
    /// Answering; the request decides what a missed deadline means.
    Busy,
    /// Sending a response.
    Streaming,
}

/// What has become of a deadline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
enum Lateness {
    /// It has not passed.
    InTime,
    /// A sweep found that it has passed.
    Overdue,
    /// The next one found that it still has.
    Expired,
}

/// State of one client connection, or of one request of an HTTP/2 connection, shared by its task and the
/// sweep.
#[derive(Debug)]
pub struct Connection {
    /// The address of the client.
    pub peer: SocketAddr,
    /// The slot of `maxSockets` that the current request holds.
    pub permit: RequestPermit,
    /// Counts it among all connections, for as long as it lives: also as a tunnel.
    _ticket: Option<Ticket>,
    clock: Arc<Clock>,
    load: Arc<Load>,
    waker: OnceLock<Waker>,
    deadline: AtomicU64,
    idle_timeout: Millis,
    head_timeout: Millis,
    requests: AtomicU32,
    phase: AtomicU8,
    lateness: AtomicU8,
    awaited: AtomicU8,
    /// Sweeps since the current request began.
    age: AtomicU8,
    /// The socket is to be asked whether the client is still there.
    has_peer_check: AtomicBool,
    draining: AtomicBool,
    closing: AtomicBool,
    /// Set for the connection that carries many requests, in HTTP/2.
    multiplex: OnceLock<Box<Multiplex>>,
    /// Set for one request of such a connection.
    stream: Option<Box<StreamOf>>,
}

/// What a connection of HTTP/2 carries.
#[derive(Debug, Default)]
struct Multiplex {
    /// It is being shut down; requests that still begin or end change nothing about that.
    is_over: AtomicBool,
    streams: AtomicUsize,
    /// Bytes of the heads of all its requests.
    heads: AtomicUsize,
    /// What the client may still give up before its response is complete.
    give_up: Mutex<Budget>,
    /// It has given up more than that.
    is_flooded: AtomicBool,
}

/// One request of a connection of HTTP/2.
#[derive(Debug)]
struct StreamOf {
    parent: Arc<Connection>,
    /// Bytes of its head, once they are counted.
    head: AtomicUsize,
    /// Its response was complete.
    is_answered: AtomicBool,
}

impl Connection {
    /// State of a connection that was just accepted.
    pub fn new(
        peer: SocketAddr,
        clock: Arc<Clock>,
        load: Arc<Load>,
        limits: &Limits,
        ticket: Ticket,
    ) -> Arc<Self> {
        let mut connection = Self::blank(peer, clock, load);
        connection._ticket = Some(ticket);
        connection.idle_timeout = millis(limits.idle_timeout);
        connection.head_timeout = millis(limits.head_timeout);
        connection.enter(Phase::Idle, millis(limits.first_byte_timeout));
        Arc::new(connection)
    }

    fn blank(peer: SocketAddr, clock: Arc<Clock>, load: Arc<Load>) -> Self {
        Self {
            peer,
            permit: RequestPermit::default(),
            _ticket: None,
            clock,
            load,
            waker: OnceLock::new(),
            deadline: AtomicU64::new(NEVER),
            idle_timeout: NEVER,
            head_timeout: NEVER,
            requests: AtomicU32::new(0),
            phase: AtomicU8::new(Phase::Idle as u8),
            lateness: AtomicU8::new(Lateness::InTime as u8),
            awaited: AtomicU8::new(Awaited::Request as u8),
            age: AtomicU8::new(0),
            has_peer_check: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            multiplex: OnceLock::new(),
            stream: None,
        }
    }

    /// The state of one request on a connection of HTTP/2. While it is there, so is the request.
    pub fn stream_of(parent: &Arc<Self>) -> Arc<Self> {
        let (clock, load) = (Arc::clone(&parent.clock), Arc::clone(&parent.load));
        let mut stream = Self::blank(parent.peer, clock, load);
        stream.stream = Some(Box::new(StreamOf {
            parent: Arc::clone(parent),
            head: AtomicUsize::new(0),
            is_answered: AtomicBool::new(false),
        }));
        stream.idle_timeout = parent.idle_timeout;
        stream.enter(Phase::Busy, NEVER);
        parent.count_request();
        let multiplex = parent.multiplexed();
        let was_idle = multiplex.streams.fetch_add(1, Ordering::Relaxed) == 0;
        if was_idle && !multiplex.is_over.load(Ordering::Relaxed) {
            parent.enter(Phase::Busy, NEVER);
        }
        Arc::new(stream)
    }

    fn multiplexed(&self) -> &Multiplex {
        self.multiplex.get_or_init(Box::default)
    }

    /// The connection carries many requests at a time.
    pub fn multiplex(&self) {
        self.multiplexed();
    }

    /// Counts the head of this request among those that its connection carries, until it is over;
    /// `false`, and not counted, when they are more than `most` bytes together.
    pub fn carries_head(&self, size: usize, most: usize) -> bool {
        let Some(stream) = &self.stream else { return true };
        let heads = &stream.parent.multiplexed().heads;
        let is_taken = takes_head(heads.load(Ordering::Relaxed), size, most);
        if is_taken {
            stream.head.store(size, Ordering::Relaxed);
            heads.fetch_add(size, Ordering::Relaxed);
        }
        is_taken
    }

    /// Whether the client gives up so many requests that they can only be meant as work for us
    /// (CVE-2023-44487).
    pub fn is_flooded(&self) -> bool {
        self.multiplex.get().is_some_and(|multiplex| multiplex.is_flooded.load(Ordering::Relaxed))
    }

    /// The response to a request of HTTP/2 is complete: its end is no reset by the client.
    pub fn note_answered(&self) {
        if let Some(stream) = &self.stream {
            stream.is_answered.store(true, Ordering::Relaxed);
        }
    }

    fn stream_ended(&self, was_given_up: bool) {
        let multiplex = self.multiplexed();
        if was_given_up {
            let now = self.clock.running();
            let is_within = lock(&multiplex.give_up).spend(now, MAX_GIVEN_UP, GIVEN_UP_PER_SECOND);
            if !is_within {
                multiplex.is_flooded.store(true, Ordering::Relaxed);
                self.wake();
            }
        }
        let was_last = multiplex.streams.fetch_sub(1, Ordering::Relaxed) == 1;
        if was_last && !multiplex.is_over.load(Ordering::Relaxed) {
            self.enter(Phase::Idle, self.idle_timeout);
        }
    }

    /// What the connection is doing.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Busy,
            _ => Phase::Streaming,
        }
    }

    fn enter(&self, phase: Phase, limit: Millis) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.allow(limit);
    }

    /// The first request is waited for from now on: what came before, such as a TLS handshake, had a
    /// limit of its own.
    pub fn await_first_request(&self) {
        self.enter(Phase::Idle, self.head_timeout);
    }

    /// The response is over; another request is waited for.
    pub fn await_next_request(&self) {
        self.enter(Phase::Idle, self.idle_timeout);
    }

    /// The first bytes of a request head are there.
    pub fn begin_head(&self) {
        self.enter(Phase::Head, self.head_timeout);
    }

    /// A request begins: until it sets a limit there is none.
    pub fn begin_request(&self) {
        self.enter(Phase::Busy, NEVER);
        self.age.store(0, Ordering::Relaxed);
        // Those of HTTP/2 are counted by their connection.
        if self.stream.is_none() {
            self.count_request();
        }
        self.load.begin();
    }

    /// The request is over, answered or not.
    pub fn end_request(&self) {
        self.load.end();
        self.permit.release();
    }

    fn count_request(&self) {
        self.requests.store(self.requests().saturating_add(1), Ordering::Relaxed);
    }

    /// Time for a request head.
    pub fn head_timeout(&self) -> Millis {
        self.head_timeout
    }

    /// Requests on this connection so far.
    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Requests that this worker is answering at the moment.
    pub fn running_requests(&self) -> u32 {
        self.load.running()
    }

    /// The response is being sent; `limit` is for silence meanwhile.
    pub fn begin_streaming(&self, limit: Option<Duration>) {
        self.enter(Phase::Streaming, limit.map_or(NEVER, millis));
    }

    /// Nothing but the end of the connection is waited for, for `limit` at most.
    pub fn begin_lingering(&self, limit: Duration) {
        if let Some(multiplex) = self.multiplex.get() {
            multiplex.is_over.store(true, Ordering::Relaxed);
        }
        self.enter(Phase::Busy, millis(limit));
    }

    /// Sets the deadline `limit` from now.
    pub fn allow_for(&self, limit: Option<Duration>) {
        self.allow(limit.map_or(NEVER, millis));
    }

    fn allow(&self, limit: Millis) {
        let deadline = match limit {
            NEVER => NEVER,
            limit => self.clock.running().saturating_add(limit),
        };
        self.deadline.store(deadline, Ordering::Relaxed);
        if self.lateness.load(Ordering::Relaxed) != Lateness::InTime as u8 {
            self.lateness.store(Lateness::InTime as u8, Ordering::Relaxed);
        }
    }

    /// Brings the deadline forward to `limit` from now, if it is later.
    fn tighten(&self, limit: Millis) {
        let deadline = self.clock.running().saturating_add(limit);
        if deadline < self.deadline.load(Ordering::Relaxed) {
            self.deadline.store(deadline, Ordering::Relaxed);
        }
    }

    /// Whether the deadline has passed.
    pub fn has_expired(&self) -> bool {
        self.lateness.load(Ordering::Relaxed) == Lateness::Expired as u8
    }

    /// One sweep at `now`, which the sockets were read before; `true` when the deadline has passed for
    /// good. It has to be found so by two sweeps: between them every socket was read that had something
    /// to read when the first one came, be they ever so many.
    fn check_deadline(&self, now: Millis) -> bool {
        if self.deadline.load(Ordering::Relaxed) > now {
            return false;
        }
        if self.lateness.load(Ordering::Relaxed) == Lateness::InTime as u8 {
            self.lateness.store(Lateness::Overdue as u8, Ordering::Relaxed);
            return false;
        }
        self.expire();
        true
    }

    /// Says that the deadline has passed for good.
    fn expire(&self) {
        self.deadline.store(NEVER, Ordering::Relaxed);
        self.lateness.store(Lateness::Expired as u8, Ordering::Relaxed);
    }

    /// Moves the deadline, if there is one.
    fn postpone(&self, by: Millis) {
        let deadline = self.deadline.load(Ordering::Relaxed);
        self.deadline.store(deadline.saturating_add(by), Ordering::Relaxed);
    }

    /// The time that the process has run: see [`Clock::running`].
    pub fn running(&self) -> Millis {
        self.clock.running()
    }

    /// Notes whom the request waits for. One that waits for nothing but its own client gives its permit up
    /// when fewer than half of them are left.
    pub fn set_awaited(&self, awaited: Awaited) {
        self.awaited.store(awaited as u8, Ordering::Relaxed);
        if awaited != Awaited::Backend {
            self.permit.release_while_blocked();
        }
    }

    /// Whom the request waits for.
    pub fn awaited(&self) -> Awaited {
        match self.awaited.load(Ordering::Relaxed) {
            0 => Awaited::Backend,
            1 => Awaited::Request,
            _ => Awaited::Response,
        }
    }

    /// One sweep: a request that began to wait for its client while permits were not scarce gives its own
    /// up now.
    fn check_permit(&self) {
        let is_running = matches!(self.phase(), Phase::Busy | Phase::Streaming);
        if is_running && self.awaited() != Awaited::Backend {
            self.permit.release_while_blocked();
        }
    }

    /// One sweep of a request that takes its time. Its task does not see the client go away while bytes of
    /// further requests fill the buffer, so now and then the socket itself is asked.
    fn grow_older(&self) {
        let age = self.age.load(Ordering::Relaxed) + 1;
        if age < SWEEPS_PER_PEER_CHECK {
            self.age.store(age, Ordering::Relaxed);
        } else {
            self.age.store(0, Ordering::Relaxed);
            self.has_peer_check.store(true, Ordering::Relaxed);
            self.wake();
        }
    }

    /// Whether the socket is to be asked now if the client is still there; `true` once.
    pub fn take_peer_check(&self) -> bool {
        self.has_peer_check.load(Ordering::Relaxed)
            && self.has_peer_check.swap(false, Ordering::Relaxed)
    }

    /// Whether no further request is wanted on this connection.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether the connection is to end as soon as it carries no request.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Registers the task that runs the connection. Tokio wakes a task alike by any of its
    /// wakers, so the first one will do.
    pub fn register(&self, waker: &Waker) {
        if self.waker.get().is_none() {
            self.waker.get_or_init(|| waker.clone());
        }
    }

    /// Has its task look at what has changed.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

/// Requests that a worker is answering, counted by its own thread only.
#[derive(Debug, Default)]
pub struct Load(AtomicU32);

impl Load {
    fn begin(&self) {
        self.0.store(self.running() + 1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.0.store(self.running().saturating_sub(1), Ordering::Relaxed);
    }

    fn running(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sees to it that a client that is waited for brings enough (see [`Pace`]).
#[derive(Debug)]
pub struct Paced {
    pace: Pace,
    waiting_since: Option<Millis>,
}

impl Paced {
    /// Expects `rate` bytes a second with so much patience.
    pub fn new(rate: u32, patience: Duration) -> Self {
        Self { pace: Pace::new(rate, patience), waiting_since: None }
    }

    /// The client is waited for: `connection` gets as much time as the client has left.
    pub fn wait(&mut self, connection: &Connection) {
        if self.waiting_since.is_none() {
            self.waiting_since = Some(connection.clock.running());
            match self.pace.left() {
                // It was read a moment ago and is behind with all that it brought: no sweep has to find that
                // twice. A byte now and then would begin the count again each time.
                0 => connection.expire(),
                left => connection.tighten(left),
            }
        }
    }

    /// The client brought `bytes`.
    pub fn received(&mut self, bytes: usize, connection: &Connection) {
        let now = connection.clock.running();
        let waited = self.waiting_since.take().map_or(0, |since| now.saturating_sub(since));
        self.pace.received(bytes, waited);
    }
}

/// Whether a head of `size` bytes is taken beside those of `others`. One that is alone has a limit of its
/// own (`maxHead`).
fn takes_head(others: usize, size: usize, most: usize) -> bool {
    others == 0 || others.saturating_add(size) <= most
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            let head = stream.head.load(Ordering::Relaxed);
            stream.parent.multiplexed().heads.fetch_sub(head, Ordering::Relaxed);
            stream.parent.stream_ended(!stream.is_answered.load(Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::takes_head;

    #[test]
    fn heads_are_bounded_together_and_one_alone_is_taken() {
        for (others, size, expected) in [
            (0, 10, true),
            (0, 101, true),
            (50, 50, true),
            (50, 51, false),
            (100, 0, true),
            (101, 1, false),
            (1, usize::MAX, false),
        ] {
            assert_eq!(takes_head(others, size, 100), expected, "{others} {size}");
        }
    }
}
