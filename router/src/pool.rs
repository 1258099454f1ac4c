//! Connections to backends: one pool per backend and worker, knowing nothing of frontends.
//!
//! A pooled connection has no task of its own. Whoever checks it out drives it: the request and the response
//! of one exchange run in the task of the client's connection, and a client that goes away takes its exchange
//! with it. A connection that the backend has closed meanwhile is noticed before it is used.
//!
//! The number of connections per backend is capped; requests beyond the cap wait for a bounded time.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shared::backend::{Origin, Scheme};
use shared::lock::lock;
use shared::time_limit;
use tokio::sync::OwnedSemaphorePermit;

use crate::http1::client::{Attempt, Reuse};
use crate::http2;
use crate::permit::Permit;
use crate::route::Millis;
use crate::route::options::KeepAlive;
use crate::route::trust::{Id, Signers, Trust};
use crate::stream::Stream;
use crate::upstream::connect::{ConnectError, Connector, Destination};

mod backend;
mod bound;
mod reuse;

pub use backend::BackendConnection;
use backend::Pool;
pub use bound::BoundConnection;

/// Why there is no connection for a request.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// The backend could not be connected to.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A protocol was asked for that the backend, which speaks HTTP/2 only, cannot change to.
    #[error("the backend speaks HTTP/2 only, and not the protocol that was asked for over it")]
    NoTunnel,
    /// All connections that `maxSockets` allows stayed in use for too long.
    #[error("all {0} connections to the backend (maxSockets) are in use")]
    QueueTimedOut(usize),
    /// How the backend is to be verified cannot be read.
    #[error("backend-ca, backend-name or backend-verify of the host's options cannot be read")]
    UnreadableTrust,
}

/// What a connection is wanted for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// A request on a connection that no others share. See [`Purpose::of`].
    Dedicated,
    /// A request.
    Exchange,
    /// A request that logs the connection in (see [`BoundConnection`]): HTTP/1.1 where the backend speaks it,
    /// because such logins do not exist in HTTP/2, else a connection that no other request shares.
    Login,
    /// A change to another protocol, which only HTTP/1.1 can make.
    Upgrade,
    /// A WebSocket, which HTTP/2 can carry, too, if the backend allows that (RFC 8441).
    WebSocket,
}

impl Purpose {
    /// What a connection to `origin` is wanted for by a request that asks for no other protocol, with a head of
    /// so many bytes and `fields`. Backends of HTTP/2 may end a connection over a head that is too large for
    /// them, and everybody's requests with it: large ones have a connection to themselves.
    pub fn of(origin: &Origin, head: usize, fields: usize) -> Self {
        let may_share = origin.scheme != Scheme::Http;
        if may_share && http2::is_large(head, fields) { Self::Dedicated } else { Self::Exchange }
    }

    /// Whether a connection of HTTP/2 will do.
    fn takes_http2(self) -> bool {
        !matches!(self, Self::Login | Self::Upgrade)
    }
}

/// Which connection a request needs.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Where it leads to.
    pub to: Destination<'a>,
    /// What it is wanted for.
    pub purpose: Purpose,
    /// Which requests of the host may use a connection again.
    pub keep_alive: KeepAlive,
    /// The request is idempotent and without a body: it can be sent again.
    pub is_safe: bool,
    /// The connection that belongs to the client, if there is one.
    pub bound: Option<&'a Arc<BoundConnection>>,
}

type ByOrigin = HashMap<Origin, Arc<Pool>, foldhash::fast::RandomState>;

/// The pools of one worker.
#[derive(Debug)]
pub struct Pools {
    /// Looked up once or twice a request. The keys come from Redis, not from clients, and the hash
    /// is seeded all the same.
    pools: Mutex<ByOrigin>,
    /// Pools of hosts that verify certificates by a rule of their own, by that rule: what was verified
    /// by one is never used by another.
    special: Mutex<HashMap<Id, ByOrigin, foldhash::fast::RandomState>>,
    connector: Arc<Connector>,
    max_sockets: usize,
    queue_timeout: Duration,
}

/// Who may use a connection after the request that it is checked out for.
#[derive(Debug)]
enum KeptFor {
    /// Every request to the backend.
    Anyone,
    /// The requests of one client connection.
    Client(Arc<BoundConnection>),
    /// No request.
    Nobody,
}

/// A connection in use. Dropping it closes it; [`PooledConnection::give_back`] keeps it.
#[derive(Debug)]
pub struct PooledConnection {
    connection: Box<BackendConnection>,
    pool: Arc<Pool>,
    /// Its permit, until the request holds it.
    permit: Option<OwnedSemaphorePermit>,
    /// It has carried a request before, or carries others.
    is_reused: bool,
    kept_for: KeptFor,
}

impl Pools {
    /// No connections yet; at most `max_sockets` to each backend, waiting `queue_timeout` at most
    /// for one of them.
    pub fn new(connector: Arc<Connector>, max_sockets: usize, queue_timeout: Duration) -> Self {
        Self {
            pools: Mutex::default(),
            special: Mutex::default(),
            connector,
            max_sockets,
            queue_timeout,
        }
    }

    fn pool(&self, Destination { origin, trust, .. }: Destination<'_>) -> Arc<Pool> {
        let make = || Arc::new(Pool::new(origin, &self.connector, self.max_sockets));
        match trust {
            Some(trust) if origin.scheme == Scheme::Https => {
                let mut special = lock(&self.special);
                entry(special.entry(*trust.id()).or_default(), origin, make)
            }
            _ => entry(&mut lock(&self.pools), origin, make),
        }
    }

    /// A connection that was used before and is alive as far as can be known, if one is at hand.
    pub fn checkout_idle(&self, peer: Peer<'_>, now: Millis) -> Option<PooledConnection> {
        let pool = self.pool(peer.to);
        let permit = Arc::clone(&pool.permits).try_acquire_owned().ok()?;
        let (connection, kept_for) = pool.take_idle(peer, now)?;
        Some(PooledConnection::reused(connection, pool, permit, kept_for))
    }

    /// Makes a new connection, waiting for a permit when there are too many. The connection that
    /// it waited for may be one that was used before.
    ///
    /// # Errors
    ///
    /// [`CheckoutError`] when the wait is too long or the backend cannot be connected to.
    pub async fn checkout_new(
        &self,
        peer: Peer<'_>,
        now: Millis,
    ) -> Result<PooledConnection, CheckoutError> {
        let origin = peer.to.origin;
        if peer.purpose == Purpose::Upgrade && origin.scheme == Scheme::H2c {
            return Err(CheckoutError::NoTunnel);
        }
        let is_unreadable = |trust: &Trust| matches!(trust.signers, Signers::Nobody);
        if origin.scheme == Scheme::Https && peer.to.trust.is_some_and(is_unreadable) {
            return Err(CheckoutError::UnreadableTrust);
        }
        let pool = self.pool(peer.to);
        let permit = match Arc::clone(&pool.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_all_in_use) => {
                let permit = Arc::clone(&pool.permits).acquire_owned();
                let permit = time_limit::timeout(self.queue_timeout, permit).await;
                let Ok(Ok(permit)) = permit else {
                    return Err(CheckoutError::QueueTimedOut(self.max_sockets));
                };
                if let Some((connection, kept_for)) = pool.take_idle(peer, now) {
                    return Ok(PooledConnection::reused(connection, pool, permit, kept_for));
                }
                permit
            }
        };
        let mut sharing_soon = None;
        let may_share = peer.purpose == Purpose::Exchange && peer.keep_alive != KeepAlive::Off;
        if may_share && pool.shares.load(Ordering::Relaxed) {
            sharing_soon = pool.sharing_soon.try_lock().ok();
            if sharing_soon.is_none() {
                // For one connection only: should it fail or be full at once, everybody makes one.
                drop(pool.sharing_soon.lock().await);
                if let Some((connection, kept_for)) = pool.take_idle(peer, now) {
                    let pool = Arc::clone(&pool);
                    return Ok(PooledConnection::reused(connection, pool, permit, kept_for));
                }
            }
        }
        pool.make_room();
        let connection = match peer.purpose {
            Purpose::WebSocket => Box::pin(pool.connect_for_websocket(peer)).await?,
            Purpose::Dedicated | Purpose::Exchange | Purpose::Login | Purpose::Upgrade => {
                pool.connect(peer).await?
            }
        };
        drop(sharing_soon);
        let (permit, kept_for) = (Some(permit), KeptFor::Anyone);
        Ok(PooledConnection { connection, pool, permit, is_reused: false, kept_for })
    }

    /// Closes connections that have been unused for too long, that the backend has closed or whose
    /// address its name no longer has, and forgets backends without connections.
    pub fn sweep(&self, now: Millis) {
        let mut expired = Vec::new();
        let mut keep = |pool: &Arc<Pool>| pool.sweep(now, &mut expired);
        lock(&self.pools).retain(|_, pool| keep(pool));
        lock(&self.special).retain(|_, pools| {
            pools.retain(|_, pool| keep(pool));
            !pools.is_empty()
        });
        // Sockets are closed without the locks.
        drop(expired);
    }
}

/// The pool of `origin`, made if there is none.
fn entry(pools: &mut ByOrigin, origin: &Origin, make: impl FnOnce() -> Arc<Pool>) -> Arc<Pool> {
    if let Some(pool) = pools.get(origin) {
        return Arc::clone(pool);
    }
    let pool = make();
    pools.insert(origin.clone(), Arc::clone(&pool));
    pool
}

impl PooledConnection {
    fn reused(
        connection: Box<BackendConnection>,
        pool: Arc<Pool>,
        permit: OwnedSemaphorePermit,
        kept_for: KeptFor,
    ) -> Self {
        Self { connection, pool, permit: Some(permit), is_reused: true, kept_for }
    }

    /// What is known of the current request, for the decision about another try. What goes wrong on a
    /// connection that was used before says nothing about the backend: it may just have closed an idle one.
    pub fn attempt(&self) -> Attempt {
        Attempt { is_reused: self.is_reused, ..self.connection.state.attempt() }
    }

    /// The connection.
    pub fn connection(&mut self) -> &mut BackendConnection {
        &mut self.connection
    }

    /// Whether it is a stream of HTTP/2, which the backend may refuse after all of a request was sent.
    pub fn is_http2(&self) -> bool {
        matches!(self.connection.stream, Stream::Virtual(_))
    }

    /// The client may log in on this connection, which from now on belongs to `client` alone; without
    /// one it is closed after this request.
    pub fn bind(&mut self, client: Option<&Arc<BoundConnection>>) {
        self.kept_for = match (&self.kept_for, client) {
            (KeptFor::Nobody, _) | (_, None) => KeptFor::Nobody,
            (_, Some(client)) => KeptFor::Client(Arc::clone(client)),
        };
    }

    /// The same of a client that logs in with the request that it is about to send.
    pub fn log_in(&mut self, client: Option<&Arc<BoundConnection>>) {
        self.connection.has_logged_in = true;
        self.bind(client);
    }

    /// What makes the connection count as one of `maxSockets`.
    pub fn take_permit(&mut self) -> Option<Permit> {
        let permit = self.permit.take()?;
        Some(Permit::new(permit, self.pool.max_sockets))
    }

    /// Takes the connection out for good, for a tunnel. It counts no more: `maxSockets` is for
    /// requests, which end (Node's agent lets upgraded sockets go, too).
    pub fn into_stream(self) -> Stream {
        self.connection.stream
    }

    /// Gives the connection back to the pool, or to its client, if it can carry another request. `has_more`:
    /// bytes came beyond the response.
    pub fn give_back(mut self, has_more: bool, now: Millis) {
        let is_http2 = self.is_http2();
        let Reuse::Yes(announced) = self.connection.state.finish(has_more) else { return };
        // A stream of HTTP/2 carries one request.
        if is_http2 || !self.pool.is_current(&mut self.connection.reached) {
            return;
        }
        self.connection.announced = announced;
        self.connection.idle_since = now;
        // Before the permit is released: whoever waits for it finds the connection.
        match &self.kept_for {
            KeptFor::Anyone => self.pool.put(self.connection),
            KeptFor::Client(bound) => bound.keep(self.connection, &self.pool),
            KeptFor::Nobody => {}
        }
    }
}

#[cfg(test)]
mod tests;
