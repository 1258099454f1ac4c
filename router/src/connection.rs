//! What a worker knows of each client connection: its limit in time, the bytes written to it, the
//! access-log record that waits for the last byte, and answers that go out before the response.
//!
//! Limits cost the hot path one memory write: a sweep of the worker's connections every
//! [`crate::clock::TICK`] finds those whose deadline has passed and wakes them. Deadlines are set by
//! [`Clock::running`], which a pause of the process does not move.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;
use std::time::Duration;

use shared::lock::lock;

use crate::access_log::Record;
use crate::clients::Ticket;
use crate::clock::Clock;
use crate::limits::{Budget, Limits, Pace};
use crate::route::{Millis, millis};

mod counted;
mod framing;
mod socket;
mod sweep;
mod turn;

pub use framing::BodyKind;
use framing::Tracker;
pub use socket::{ClientIo, write_vectored};
pub use sweep::Connections;
pub use turn::{Permit, Turn};

/// No deadline.
const NEVER: Millis = Millis::MAX;
/// Sweeps after which a running request's client is looked for, about three seconds: thousands of
/// long polls must not cost a noticeable share of a core.
const SWEEPS_PER_QUESTION: u8 = 60;
/// Requests that a client of HTTP/2 may give up at a time, and how many more each second: a page that is
/// left while it loads gives up a few dozen, and a person leaves no more than one a second.
const MAX_GIVEN_UP: u32 = 200;
const GIVEN_UP_PER_SECOND: u32 = 20;
/// Bytes of informational responses that may wait for one client.
const MAX_EARLY_BYTES: usize = 64 * 1024;

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
    /// Sending a response body.
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

/// How far the body of the current request has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum BodyState {
    /// It was cut short or malformed.
    Broken,
    /// It is longer than allowed.
    TooLarge,
    /// All of it was read.
    Complete,
    /// There is more, or nobody has looked yet.
    Moving,
    /// The client is being waited for.
    Waiting,
}

/// State of one client connection, shared by its socket, its requests and the sweep.
#[derive(Debug)]
pub struct Connection {
    /// The address of the client.
    pub peer: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// Counts it among all connections, for as long as it lives: also as a tunnel.
    _ticket: Option<Ticket>,
    clock: Arc<Clock>,
    phase: AtomicU8,
    deadline: AtomicU64,
    /// Whether the deadline has passed.
    lateness: AtomicU8,
    /// The socket is to be asked whether the client is still there.
    is_in_question: AtomicBool,
    is_abandoned: AtomicBool,
    /// Sweeps since the current request began.
    age: AtomicU8,
    draining: AtomicBool,
    closing: AtomicBool,
    /// Bytes written to the socket.
    written: AtomicU64,
    waker: OnceLock<Waker>,
    /// The response is complete (or given up) but perhaps not yet in the socket.
    is_finished: AtomicBool,
    record: Mutex<Option<Box<Record>>>,
    body_state: AtomicU8,
    has_early: AtomicBool,
    /// Informational responses that wait to be written.
    early: Mutex<Vec<u8>>,
    /// The connection that carries this request beside others, in HTTP/2.
    parent: Option<Arc<Self>>,
    /// It carries many requests, each with a state of its own.
    is_multiplexed: AtomicBool,
    /// It is being shut down; requests that still begin or end change nothing about that.
    is_over: AtomicBool,
    /// Requests that it carries.
    streams: AtomicUsize,
    /// Bytes of the head of the request, or of the heads of all requests that it carries.
    heads: AtomicUsize,
    /// What the client may still give up before its answer is complete.
    give_up: Mutex<Budget>,
    /// It has given up more than that.
    is_flooded: AtomicBool,
    /// The client gave up the answer to this request while the backend was at it.
    is_cut: AtomicBool,
    /// Where in its requests the client is.
    tracker: Mutex<Tracker>,
    /// Requests so far.
    requests: AtomicU32,
    load: Arc<Load>,
    /// With the backend of the current request.
    pub turn: Turn,
    idle_timeout: Millis,
    /// Silence that is allowed while a response is being sent.
    stream_timeout: AtomicU64,
    head_timeout: Millis,
}

impl Connection {
    /// State of a connection that was just accepted.
    pub fn new(
        peer: SocketAddr,
        local: SocketAddr,
        clock: Arc<Clock>,
        load: Arc<Load>,
        limits: &Limits,
        ticket: Ticket,
    ) -> Arc<Self> {
        let mut connection = Self::blank(peer, local, clock, load);
        connection._ticket = Some(ticket);
        connection.idle_timeout = millis(limits.idle_timeout);
        connection.head_timeout = millis(limits.head_timeout);
        connection.enter(Phase::Idle, millis(limits.first_byte_timeout));
        Arc::new(connection)
    }

    /// The state of one request on a connection of HTTP/2. While it is there, so is the request.
    pub fn stream_of(parent: &Arc<Self>) -> Arc<Self> {
        let (clock, load) = (Arc::clone(&parent.clock), Arc::clone(&parent.load));
        let mut stream = Self::blank(parent.peer, parent.local, clock, load);
        stream.parent = Some(Arc::clone(parent));
        stream.idle_timeout = parent.idle_timeout;
        stream.enter(Phase::Busy, NEVER);
        parent.count_request();
        let was_idle = parent.streams.fetch_add(1, Ordering::Relaxed) == 0;
        if was_idle && !parent.is_over.load(Ordering::Relaxed) {
            parent.enter(Phase::Busy, NEVER);
        }
        Arc::new(stream)
    }

    /// Counts the head of this request among those that its connection carries, until it is over;
    /// `false`, and not counted, when they are more than `most` bytes together.
    pub fn carries_head(&self, size: usize, most: usize) -> bool {
        let Some(parent) = &self.parent else { return true };
        let others = parent.heads.load(Ordering::Relaxed);
        let is_taken = takes_head(others, size, most);
        if is_taken {
            self.heads.store(size, Ordering::Relaxed);
            parent.heads.fetch_add(size, Ordering::Relaxed);
        }
        is_taken
    }

    /// Says that the connection carries many requests at a time.
    pub fn multiplex(&self) {
        self.is_multiplexed.store(true, Ordering::Relaxed);
    }

    /// Whether the client gives up so many requests that they can only be meant as work for us
    /// (CVE-2023-44487).
    pub fn is_flooded(&self) -> bool {
        self.is_flooded.load(Ordering::Relaxed)
    }

    /// Says that the client gave up the rest of an answer, and with it the connection to the backend.
    pub fn note_cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }

    fn stream_ended(&self, was_given_up: bool) {
        if was_given_up {
            let now = self.clock.running();
            let is_within = lock(&self.give_up).spend(now, MAX_GIVEN_UP, GIVEN_UP_PER_SECOND);
            if !is_within {
                self.is_flooded.store(true, Ordering::Relaxed);
                self.wake();
            }
        }
        let was_last = self.streams.fetch_sub(1, Ordering::Relaxed) == 1;
        if was_last && !self.is_over.load(Ordering::Relaxed) {
            self.enter(Phase::Idle, self.idle_timeout);
        }
    }

    fn blank(peer: SocketAddr, local: SocketAddr, clock: Arc<Clock>, load: Arc<Load>) -> Self {
        Self {
            peer,
            local,
            _ticket: None,
            clock,
            phase: AtomicU8::new(Phase::Idle as u8),
            deadline: AtomicU64::new(NEVER),
            lateness: AtomicU8::new(Lateness::InTime as u8),
            is_in_question: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
            age: AtomicU8::new(0),
            draining: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            written: AtomicU64::new(0),
            waker: OnceLock::new(),
            is_finished: AtomicBool::new(false),
            record: Mutex::new(None),
            body_state: AtomicU8::new(BodyState::Moving as u8),
            has_early: AtomicBool::new(false),
            early: Mutex::new(Vec::new()),
            parent: None,
            is_multiplexed: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            heads: AtomicUsize::new(0),
            give_up: Mutex::default(),
            is_flooded: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            tracker: Mutex::default(),
            requests: AtomicU32::new(0),
            load,
            turn: Turn::default(),
            idle_timeout: NEVER,
            stream_timeout: AtomicU64::new(NEVER),
            head_timeout: NEVER,
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

    /// The first request is waited for, from now on: what came before, such as a TLS handshake, had a
    /// limit of its own.
    pub fn await_first_request(&self) {
        self.enter(Phase::Idle, self.head_timeout);
    }

    /// The first bytes of a request head are there.
    pub fn begin_head(&self) {
        self.enter(Phase::Head, self.head_timeout);
    }

    /// A request begins: until it sets a limit there is none.
    pub fn begin_request(&self) {
        self.enter(Phase::Busy, NEVER);
        self.age.store(0, Ordering::Relaxed);
        self.set_body_state(BodyState::Moving);
        self.count_request();
        self.load.begin();
    }

    fn count_request(&self) {
        self.requests.store(self.requests().saturating_add(1), Ordering::Relaxed);
    }

    /// To be called once for each request: whether what came of it could not be read in another
    /// way.
    pub fn is_clear(&self, body: BodyKind) -> bool {
        lock(&self.tracker).begin_body(body)
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

    /// The response body begins; `limit` is for silence while it is being sent.
    pub fn begin_streaming(&self, limit: Option<Duration>) {
        let limit = limit.map_or(NEVER, millis);
        self.stream_timeout.store(limit, Ordering::Relaxed);
        self.enter(Phase::Streaming, limit);
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

    /// Whether the client closed its side while its request was being answered.
    pub fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }

    /// One sweep: what began to wait for the client while turns were not scarce gives its own up now.
    fn check_turn(&self) {
        let awaits_client = match self.phase() {
            Phase::Busy => self.body_state() == BodyState::Waiting,
            Phase::Streaming => !self.turn.awaits_backend(),
            Phase::Idle | Phase::Head => false,
        };
        if awaits_client {
            self.turn.await_client();
        }
    }

    /// One sweep of a request that takes its time. hyper does not see a client go away while bytes
    /// of its next request wait to be read, so now and then the socket itself is asked.
    fn grow_older(&self) {
        let age = self.age.load(Ordering::Relaxed) + 1;
        if age < SWEEPS_PER_QUESTION {
            self.age.store(age, Ordering::Relaxed);
        } else {
            self.age.store(0, Ordering::Relaxed);
            self.is_in_question.store(true, Ordering::Relaxed);
            self.wake();
        }
    }

    /// Whether no further request is wanted on this connection.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether the connection is to end as soon as it carries no request.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Bytes written to the client so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
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

    /// Says that the response body is complete or given up. The access-log record is written once
    /// the last byte has left, so that it can say how many there were.
    pub fn finish(&self, record: Option<Box<Record>>) {
        self.emit_record();
        self.load.end();
        self.turn.end();
        if record.is_some() {
            *lock(&self.record) = record;
        }
        self.is_finished.store(true, Ordering::Relaxed);
    }

    fn emit_record(&self) {
        if self.is_finished.load(Ordering::Relaxed) {
            self.is_finished.store(false, Ordering::Relaxed);
            if let Some(record) = lock(&self.record).take() {
                record.emit(self.written());
            }
        }
    }

    /// Notes how far the body of the current request has come.
    pub fn set_body_state(&self, state: BodyState) {
        self.body_state.store(state as u8, Ordering::Relaxed);
    }

    /// How far the body of the current request has come.
    pub fn body_state(&self) -> BodyState {
        match self.body_state.load(Ordering::Relaxed) {
            0 => BodyState::Broken,
            1 => BodyState::TooLarge,
            2 => BodyState::Complete,
            3 => BodyState::Moving,
            _ => BodyState::Waiting,
        }
    }

    /// Queues an informational response; `false` when too many wait.
    pub fn send_early(&self, head: &[u8]) -> bool {
        let mut early = lock(&self.early);
        if early.len() + head.len() > MAX_EARLY_BYTES {
            return false;
        }
        early.extend_from_slice(head);
        self.has_early.store(true, Ordering::Relaxed);
        true
    }

    /// Notes that part of a body was handed on. On a connection of its own the socket counts; on a
    /// shared one bodies are all that can be told apart.
    pub fn body_handed_on(&self, count: usize) {
        if self.parent.is_some() {
            self.count_written(count);
            self.allow(self.stream_timeout.load(Ordering::Relaxed));
        }
    }

    fn count_written(&self, count: usize) {
        // Only the connection's own task writes: no read-modify-write needed.
        self.written.store(self.written() + count as u64, Ordering::Relaxed);
    }

    /// Everything of the last response is in the socket.
    fn flushed(&self) {
        if self.is_finished.load(Ordering::Relaxed) {
            self.emit_record();
            self.enter(Phase::Idle, self.idle_timeout);
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
                // twice. A byte now and then would begin the count anew each time.
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
    /// A request that was given up with its connection is logged, too.
    fn drop(&mut self) {
        self.emit_record();
        if let Some(parent) = &self.parent {
            parent.heads.fetch_sub(self.heads.load(Ordering::Relaxed), Ordering::Relaxed);
            let is_cut = self.is_cut.load(Ordering::Relaxed);
            parent.stream_ended(is_cut || self.phase() != Phase::Streaming);
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
