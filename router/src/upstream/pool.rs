//! The connections to one backend: which is used next, when a new one is made, and when an unused one goes.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use shared::backend::{BackendHost, Origin, Scheme};
use shared::lock::lock;
use shared::time_limit;
use tokio::sync::Semaphore;

use super::bound::Slots;
use super::connect::{self, ConnectError, Connector};
use super::exchange::{Exchange, Sender};
use super::http2::sharing::{Place, Shared, Usage};
use super::names::{Name, Reached};
use super::{IDLE_TIMEOUT, KeptFor, LeaseError, Peer, Purpose, http2};
use crate::route::{Millis, millis};
use crate::stream::Stream;

/// The connections of one worker to one backend.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) origin: Origin,
    connector: Arc<Connector>,
    /// Of a backend that is no address.
    name: Option<Arc<Name>>,
    /// One permit for each connection in use or being made. As a new connection is made only when
    /// none is idle, this bounds all connections of the pool.
    pub(super) permits: Arc<Semaphore>,
    /// All that `permits` has.
    pub(super) max_sockets: usize,
    /// Last in, first out: the connections that are not needed grow old and expire.
    idle: Mutex<Vec<Idle>>,
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

#[derive(Debug)]
pub(super) struct Idle {
    exchange: Box<Exchange>,
    since: Millis,
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
    pub(super) fn put(&self, exchange: Box<Exchange>, since: Millis) {
        lock(&self.idle).push(Idle { exchange, since });
    }

    /// Moves connections that have been unused for too long, that the backend has closed or whose address
    /// its name no longer has to `expired`. Whether the pool is still of use.
    pub(super) fn sweep(self: &Arc<Self>, now: Millis, expired: &mut Vec<Idle>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if let Some(name) = &self.name {
            self.connector.names().refresh(name);
        }
        let mut idle = lock(&self.idle);
        for mut candidate in std::mem::take(&mut *idle) {
            let is_young = now.saturating_sub(candidate.since) < millis(IDLE_TIMEOUT);
            let is_current = self.is_current(&mut candidate.exchange.reached);
            if is_young && is_current && candidate.exchange.is_usable(&mut cx) {
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
    pub(super) fn take_idle(self: &Arc<Self>, peer: Peer<'_>) -> Option<(Box<Exchange>, KeptFor)> {
        if let Some(bound) = peer.bound
            && let Some(exchange) = bound.take(self)
        {
            return Some((exchange, KeptFor::Client(Arc::clone(bound))));
        }
        let Some(name) = &self.name else {
            return Some((self.take_to(peer.purpose, None)?, KeptFor::Anyone));
        };
        let target = self.connector.names().target(name);
        let exchange = self.take_to(peer.purpose, target)?;
        if target.is_some() {
            name.take_turn();
        }
        Some((exchange, KeptFor::Anyone))
    }

    /// One to `target`; to any address when there are as many connections as `maxSockets` allows.
    fn take_to(&self, purpose: Purpose, target: Option<IpAddr>) -> Option<Box<Exchange>> {
        if purpose == Purpose::Exchange {
            let mut shared = lock(&self.shared);
            if self.name.is_some() {
                shared.retain(|reached| self.is_current(reached));
            }
            if let Some((sender, place, reached)) = shared.take(target) {
                return Some(self.multiplexed(sender, place, reached));
            }
        }
        let mut idle = lock(&self.idle);
        let is_full = idle.len() > self.permits.available_permits();
        loop {
            let last = idle.len().checked_sub(1)?;
            let index = match target {
                Some(_) => idle.iter().rposition(|idle| idle.exchange.reached.address == target),
                None => Some(last),
            };
            let index = index.or_else(|| is_full.then_some(last))?;
            let mut exchange = idle.remove(index).exchange;
            if self.is_current(&mut exchange.reached) {
                return Some(exchange);
            }
        }
    }

    /// Whether a connection goes to where the backend is by now.
    pub(super) fn is_current(&self, reached: &mut Reached) -> bool {
        self.name.as_ref().is_none_or(|name| name.is_current(reached))
    }

    fn reached(&self, stream: &Stream) -> Reached {
        let Some(name) = &self.name else { return Reached::default() };
        let address = stream.socket().and_then(|socket| socket.peer_addr().ok());
        name.reached(address.map(|address| address.ip()))
    }

    fn multiplexed(&self, sender: http2::Sender, place: Place, reached: Reached) -> Box<Exchange> {
        let sender = Sender::Http2(sender, self.origin.scheme);
        let mut exchange = Exchange::over_http2(sender, Some(place));
        exchange.reached = reached;
        exchange
    }

    pub(super) async fn connect(&self, peer: Peer<'_>) -> Result<Box<Exchange>, LeaseError> {
        let takes_http2 = peer.purpose.takes_http2();
        let stream = match self.connector.connect(peer, takes_http2).await {
            Err(error) if !takes_http2 && connect::refuses_protocols(&error) => {
                if peer.purpose != Purpose::Login {
                    return Err(LeaseError::NoTunnel);
                }
                self.connector.connect(peer, true).await?
            }
            stream => stream?,
        };
        let reached = self.reached(&stream);
        if self.origin.scheme == Scheme::H2c || stream.speaks_http2() {
            let usage = Usage::new();
            let sender = Box::pin(http2::handshake(stream, Arc::clone(&usage))).await?;
            let place = Place::new(&usage);
            self.shares.store(true, Ordering::Relaxed);
            if peer.purpose == Purpose::Exchange {
                lock(&self.shared).add(&sender, &usage, reached);
            }
            return Ok(self.multiplexed(sender, place, reached));
        }
        let mut exchange = Exchange::over_http1(stream).await?;
        exchange.reached = reached;
        Ok(exchange)
    }

    /// A connection for a WebSocket: of HTTP/2 if the backend chooses that and allows WebSockets over it,
    /// else of HTTP/1.1, as browsers do it.
    pub(super) async fn connect_for_websocket(
        &self,
        peer: Peer<'_>,
    ) -> Result<Box<Exchange>, LeaseError> {
        if !self.wants_http1_for_websocket.load(Ordering::Relaxed) {
            let stream = self.connector.connect(peer, true).await?;
            if self.origin.scheme != Scheme::H2c && !stream.speaks_http2() {
                return Ok(Exchange::over_http1(stream).await?);
            }
            let (sender, allows) = http2::handshake_for_websocket(stream).await?;
            let limit = self.connector.limit(peer);
            let allows = time_limit::timeout(limit, allows).await;
            if allows.map_err(|_elapsed| ConnectError::TimedOut(limit))?.unwrap_or(false) {
                return Ok(Exchange::over_http2(
                    Sender::WebSocket(sender, self.origin.scheme),
                    None,
                ));
            }
            if self.origin.scheme == Scheme::H2c {
                return Err(LeaseError::NoTunnel);
            }
            self.wants_http1_for_websocket.store(true, Ordering::Relaxed);
        }
        match self.connector.connect(peer, false).await {
            Ok(stream) => Ok(Exchange::over_http1(stream).await?),
            // With HTTP/2 there was TLS: the backend does not want HTTP/1.1, or has changed since.
            Err(ConnectError::Tls { .. }) => {
                self.wants_http1_for_websocket.store(false, Ordering::Relaxed);
                Err(LeaseError::NoTunnel)
            }
            Err(error) => Err(error.into()),
        }
    }
}
