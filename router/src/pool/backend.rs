//! The connections to one backend: which is used next, when a new one is made, and when an unused one goes.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use shared::backend::{BackendHost, Origin, Scheme};
use shared::lock::lock;
use shared::time_limit;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::sync::Semaphore;

use super::bound::Slots;
use super::reuse::Idle;
use super::{CheckoutError, KeptFor, Peer, Purpose};
use crate::http1::client;
use crate::http2::sharing::{Shared, StreamSlot, StreamUsage};
use crate::http2::{self, BackendStream};
use crate::route::Millis;
use crate::route::options::KeepAlive;
use crate::stream::Stream;
use crate::upstream::connect::{ConnectError, Connector, refuses_protocols};
use crate::upstream::names::{Name, Reached};

/// A connection to a backend.
#[derive(Debug)]
pub struct BackendConnection {
    /// Its bytes.
    pub stream: Stream,
    /// Where in its requests and responses it is.
    pub state: client::Connection,
    /// Where it leads to.
    pub(super) reached: Reached,
    /// Seconds that the backend keeps it while it is idle, if it has announced that.
    pub(super) announced: Option<u32>,
    pub(super) idle_since: Millis,
    /// A client has begun to log in on it.
    pub(super) has_logged_in: bool,
}

impl BackendConnection {
    fn new(stream: Stream, reached: Reached) -> Box<Self> {
        Box::new(Self {
            stream,
            state: client::Connection::default(),
            reached,
            announced: None,
            idle_since: 0,
            has_logged_in: false,
        })
    }

    fn idle(&self, now: Millis) -> Idle {
        Idle { age: now.saturating_sub(self.idle_since), announced: self.announced }
    }

    /// Whether the backend has closed it, or said something unasked. Costs no system call while the socket has
    /// nothing to say.
    pub(super) fn is_stale(&mut self) -> bool {
        let mut task = Context::from_waker(Waker::noop());
        if matches!(self.stream, Stream::Plain(_))
            && self.stream.poll_readable(&mut task).is_pending()
        {
            return false;
        }
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        !matches!(Pin::new(&mut self.stream).poll_read(&mut task, &mut buf), Poll::Pending)
    }
}

/// The connections of one worker to one backend.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) origin: Origin,
    connector: Arc<Connector>,
    /// Of a backend that is no address.
    name: Option<Arc<Name>>,
    /// One permit for each connection in use or being made. With the idle ones there are never more: see
    /// [`Pool::make_room`].
    pub(super) permits: Arc<Semaphore>,
    /// All that `permits` has.
    pub(super) max_sockets: usize,
    /// Last in, first out: the connections that are not needed grow old and expire.
    // Boxed: they move to requests and back.
    #[allow(clippy::vec_box, reason = "said above")]
    idle: Mutex<Vec<Box<BackendConnection>>>,
    /// Those that requests share where the backend speaks HTTP/2. `maxSockets` is then the requests
    /// at a time, but for those that wait for their own clients.
    shared: Mutex<Shared>,
    /// Held while a connection is made that others will share: they wait for it instead of making one
    /// each, as when a backend ends the one that all used.
    pub(super) sharing_soon: tokio::sync::Mutex<()>,
    /// The backend was seen to speak HTTP/2.
    pub(super) shares: AtomicBool,
    /// The backend chose HTTP/2 and allowed no WebSocket over it.
    wants_http1_for_websocket: AtomicBool,
    /// Idle connections that belong to clients: at most `max_sockets`, too.
    pub(super) bound: Slots,
}

impl Pool {
    /// No connections yet; at most `max_sockets`.
    pub(super) fn new(origin: &Origin, connector: &Arc<Connector>, max_sockets: usize) -> Self {
        Self {
            origin: origin.clone(),
            connector: Arc::clone(connector),
            name: match &origin.host {
                BackendHost::Ip(_) => None,
                BackendHost::Name(name) => Some(connector.names().entry(name)),
            },
            permits: Arc::new(Semaphore::new(max_sockets)),
            max_sockets,
            idle: Mutex::default(),
            shared: Mutex::default(),
            sharing_soon: tokio::sync::Mutex::default(),
            shares: AtomicBool::new(origin.scheme == Scheme::H2c),
            wants_http1_for_websocket: AtomicBool::new(false),
            bound: Slots::new(max_sockets),
        }
    }

    /// Keeps an unused connection for the next request.
    pub(super) fn put(&self, connection: Box<BackendConnection>) {
        lock(&self.idle).push(connection);
    }

    /// Moves connections that have been unused for too long, that the backend has closed or whose address
    /// its name no longer has to `expired`. Whether the pool is still of use.
    #[allow(clippy::vec_box, reason = "they are boxed in the pool")]
    pub(super) fn sweep(
        self: &Arc<Self>,
        now: Millis,
        expired: &mut Vec<Box<BackendConnection>>,
    ) -> bool {
        if let Some(name) = &self.name {
            self.connector.names().refresh(name);
        }
        let mut idle = lock(&self.idle);
        for mut candidate in std::mem::take(&mut *idle) {
            let is_current = self.is_current(&mut candidate.reached);
            if candidate.idle(now).is_kept() && is_current && !candidate.is_stale() {
                idle.push(candidate);
            } else {
                expired.push(candidate);
            }
        }
        // Whoever uses or waits for a connection holds the pool.
        let mut shared = lock(&self.shared);
        shared.retain(|reached| self.is_current(reached));
        shared.sweep(now) || !idle.is_empty() || Arc::strong_count(self) > 1
    }

    /// A connection that was used before, and who may use it next. The client's own comes first, then one
    /// to the address whose turn it is, where the backend's name has several.
    pub(super) fn take_idle(
        self: &Arc<Self>,
        peer: Peer<'_>,
        now: Millis,
    ) -> Option<(Box<BackendConnection>, KeptFor)> {
        if peer.keep_alive == KeepAlive::Off {
            return None;
        }
        if let Some(bound) = peer.bound
            && let Some(mut connection) = bound.take(self)
            && !connection.is_stale()
        {
            return Some((connection, KeptFor::Client(Arc::clone(bound))));
        }
        let Some(name) = &self.name else {
            return Some((self.take_to(peer, None, now)?, KeptFor::Anyone));
        };
        let target = self.connector.names().target(name);
        let connection = self.take_to(peer, target, now)?;
        if target.is_some() {
            name.take_turn();
        }
        Some((connection, KeptFor::Anyone))
    }

    /// One to `target`; to any address when there are as many connections as `maxSockets` allows.
    fn take_to(
        &self,
        peer: Peer<'_>,
        target: Option<IpAddr>,
        now: Millis,
    ) -> Option<Box<BackendConnection>> {
        if peer.purpose == Purpose::Exchange && self.shares.load(Ordering::Relaxed) {
            let mut shared = lock(&self.shared);
            if self.name.is_some() {
                shared.retain(|reached| self.is_current(reached));
            }
            if let Some((sender, slot, reached)) = shared.take(target) {
                return Some(self.multiplexed(sender, Some(slot), reached));
            }
        }
        let mut idle = lock(&self.idle);
        let is_full = idle.len() > self.permits.available_permits();
        loop {
            let last = idle.len().checked_sub(1)?;
            let index = match target {
                Some(_) => idle.iter().rposition(|idle| idle.reached.address == target),
                None => Some(last),
            };
            let index = index.or_else(|| is_full.then_some(last))?;
            // The younger ones are behind it.
            if !idle.get(index)?.idle(now).suits(peer.keep_alive, peer.is_safe) {
                // A new connection is going to be made. A backend with a single thread would not see it
                // before this one is closed.
                drop(idle.remove(index));
                return None;
            }
            let mut connection = idle.remove(index);
            if self.is_current(&mut connection.reached) && !connection.is_stale() {
                return Some(connection);
            }
        }
    }

    /// A connection is about to be made, with a permit: closes the one that has been idle for longest if there
    /// would be more than `maxSockets` with those that the request does not take.
    pub(super) fn make_room(&self) {
        let mut idle = lock(&self.idle);
        let is_full = idle.len() > self.permits.available_permits();
        let closed = is_full.then(|| idle.remove(0));
        // The socket is closed without the lock.
        drop(idle);
        drop(closed);
    }

    /// Whether a connection leads to where the backend is by now.
    pub(super) fn is_current(&self, reached: &mut Reached) -> bool {
        self.name.as_ref().is_none_or(|name| name.is_current(reached))
    }

    fn reached(&self, stream: &Stream) -> Reached {
        let Some(name) = &self.name else { return Reached::default() };
        let address = stream.socket().and_then(|socket| socket.peer_addr().ok());
        name.reached(address.map(|address| address.ip()))
    }

    fn multiplexed(
        &self,
        sender: http2::Sender,
        slot: Option<StreamSlot>,
        reached: Reached,
    ) -> Box<BackendConnection> {
        let stream = BackendStream::new(sender, self.origin.scheme, slot, false);
        BackendConnection::new(Stream::Virtual(Box::new(stream)), reached)
    }

    pub(super) async fn connect(
        &self,
        peer: Peer<'_>,
    ) -> Result<Box<BackendConnection>, CheckoutError> {
        let takes_http2 = peer.purpose.takes_http2();
        let stream = match self.connector.connect(peer.to, takes_http2).await {
            Err(error) if !takes_http2 && refuses_protocols(&error) => {
                if peer.purpose != Purpose::Login {
                    return Err(CheckoutError::NoTunnel);
                }
                self.connector.connect(peer.to, true).await?
            }
            stream => stream?,
        };
        if self.origin.scheme == Scheme::H2c || stream.speaks_http2() {
            let reached = self.reached(&stream);
            let usage = StreamUsage::new();
            let sender = Box::pin(http2::handshake(stream, Arc::clone(&usage))).await?;
            let slot = StreamSlot::new(&usage);
            self.shares.store(true, Ordering::Relaxed);
            if peer.purpose == Purpose::Exchange && peer.keep_alive != KeepAlive::Off {
                lock(&self.shared).add(&sender, &usage, reached);
            }
            return Ok(self.multiplexed(sender, Some(slot), reached));
        }
        Ok(self.over_http1(stream))
    }

    fn over_http1(&self, stream: Stream) -> Box<BackendConnection> {
        let reached = self.reached(&stream);
        BackendConnection::new(stream, reached)
    }

    /// A connection for a WebSocket: of HTTP/2 if the backend chooses that and allows WebSockets over it,
    /// else of HTTP/1.1, as browsers do it.
    pub(super) async fn connect_for_websocket(
        &self,
        peer: Peer<'_>,
    ) -> Result<Box<BackendConnection>, CheckoutError> {
        if !self.wants_http1_for_websocket.load(Ordering::Relaxed) {
            let stream = self.connector.connect(peer.to, true).await?;
            if self.origin.scheme != Scheme::H2c && !stream.speaks_http2() {
                return Ok(self.over_http1(stream));
            }
            let (sender, allows) = http2::handshake_for_websocket(stream).await?;
            let limit = self.connector.limit(peer.to);
            let allows = time_limit::timeout(limit, allows).await;
            if allows.map_err(|_elapsed| ConnectError::TimedOut(limit))?.unwrap_or(false) {
                let stream = BackendStream::new(sender, self.origin.scheme, None, true);
                let stream = Stream::Virtual(Box::new(stream));
                return Ok(BackendConnection::new(stream, Reached::default()));
            }
            if self.origin.scheme == Scheme::H2c {
                return Err(CheckoutError::NoTunnel);
            }
            self.wants_http1_for_websocket.store(true, Ordering::Relaxed);
        }
        match self.connector.connect(peer.to, false).await {
            Ok(stream) => Ok(self.over_http1(stream)),
            // With HTTP/2 there was TLS: the backend does not want HTTP/1.1, or has changed since.
            Err(ConnectError::Tls { .. }) => {
                self.wants_http1_for_websocket.store(false, Ordering::Relaxed);
                Err(CheckoutError::NoTunnel)
            }
            Err(error) => Err(error.into()),
        }
    }
}
