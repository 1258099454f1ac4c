//! Connections to backends: one pool per backend and worker, knowing nothing of frontends.
//!
//! A pooled connection has no task of its own. Whoever leases it drives it: the request and the
//! response of one exchange run in the client connection's task, and a client that goes away
//! takes its exchange with it. Before a request is written to a used connection hyper reads from
//! it, so that one which the backend has closed meanwhile is not mistaken for a live one.
//!
//! The number of connections per backend is capped; requests beyond the cap wait for a bounded
//! time.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::Context;
use std::time::Duration;

use http::Request;
use shared::backend::{Origin, Scheme};
use shared::lock::lock;
use shared::time_limit;
use tokio::sync::OwnedSemaphorePermit;

use crate::connection::Permit;
use crate::route::Millis;
use crate::route::trust::{Id, Signers, Trust};
use crate::stream::Stream;

mod bound;
pub mod connect;
mod exchange;
pub mod guard;
mod http2;
pub mod names;
mod pool;
mod socket;
pub mod trust;
pub mod wire;

pub use bound::Bound;
use connect::{ConnectError, Connector};
use exchange::Sender;
pub use exchange::{Exchange, SendError};
use pool::Pool;

/// An unused connection is closed after this. Backends commonly close theirs after 60 s or
/// more; those that do sooner are noticed before the connection is used.
const IDLE_TIMEOUT: Duration = Duration::from_secs(55);
/// Largest head of a response, more than any sane backend sends; also the largest read buffer.
const MAX_RESPONSE_HEAD: usize = 256 * 1024;

/// Why no connection could be leased.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
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

/// Whom a connection is for.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// The backend.
    pub origin: &'a Origin,
    /// By what its certificate is verified, where it is not by what the configuration says.
    pub trust: Option<&'a Trust>,
    /// What it is wanted for.
    pub purpose: Purpose,
    /// Time for connecting, TLS included, where it is not `server.connectTimeout`.
    pub connect_timeout: Option<Duration>,
    /// The connection that belongs to the client, if one can.
    pub bound: Option<&'a Arc<Bound>>,
}

/// What a connection is wanted for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// A request and its answer on a connection that no others share. See [`Purpose::of`].
    Alone,
    /// A request and its answer.
    Exchange,
    /// A request that logs the connection in (see [`Bound`]): HTTP/1.1 where the backend speaks it,
    /// because such logins do not exist in HTTP/2, else a connection that no other request shares.
    Login,
    /// A change to another protocol, which only HTTP/1.1 can make.
    Upgrade,
    /// A WebSocket, which HTTP/2 can carry, too, if the backend allows that (RFC 8441).
    WebSocket,
}

impl Purpose {
    /// What a connection to `origin` is wanted for by a request that asks for no other protocol. Backends
    /// of HTTP/2 may end a connection over a head that is too large for them, and everybody's requests
    /// with it: large ones go alone.
    pub fn of<B>(request: &Request<B>, origin: &Origin) -> Self {
        let may_share = origin.scheme != Scheme::Http;
        if may_share && http2::is_large(request) { Self::Alone } else { Self::Exchange }
    }

    /// Whether a connection of HTTP/2 will do.
    fn takes_http2(self) -> bool {
        !matches!(self, Self::Login | Self::Upgrade)
    }
}

type Pools = HashMap<Origin, Arc<Pool>, foldhash::fast::RandomState>;

/// The pools of one worker.
#[derive(Debug)]
pub struct Upstreams {
    /// Looked up once or twice a request. The keys come from Redis, not from clients, and the hash
    /// is seeded all the same.
    pools: Mutex<Pools>,
    /// Pools of hosts that verify certificates by a rule of their own, by that rule: what was verified
    /// by one is never used by another.
    special: Mutex<HashMap<Id, Pools, foldhash::fast::RandomState>>,
    connector: Arc<Connector>,
    max_sockets: usize,
    queue_timeout: Duration,
}

/// A connection in use. Dropping it closes the connection; [`Lease::give_back`] keeps it.
#[derive(Debug)]
pub struct Lease {
    exchange: Option<Box<Exchange>>,
    pool: Arc<Pool>,
    /// Its turn, until somebody else looks after that.
    permit: Option<OwnedSemaphorePermit>,
    is_reused: bool,
    kept_for: KeptFor,
}

/// Who may use a connection after the exchange that it is leased for.
#[derive(Debug)]
enum KeptFor {
    /// Every request to the backend.
    Anyone,
    /// The requests of one client connection.
    Client(Arc<Bound>),
    /// No request.
    Nobody,
}

impl Upstreams {
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

    fn pool(&self, Peer { origin, trust, .. }: Peer<'_>) -> Arc<Pool> {
        let make = || Arc::new(Pool::new(origin, &self.connector, self.max_sockets));
        match trust {
            Some(trust) if origin.scheme == Scheme::Https => {
                let mut special = lock(&self.special);
                entry(special.entry(*trust.id()).or_default(), origin, make)
            }
            _ => entry(&mut lock(&self.pools), origin, make),
        }
    }

    /// A connection that was used before, if one is at hand. The backend may have closed it
    /// meanwhile; hyper looks for that before it writes, and the request comes back unsent.
    pub fn lease_idle(&self, peer: Peer<'_>) -> Option<Lease> {
        let pool = self.pool(peer);
        let permit = Arc::clone(&pool.permits).try_acquire_owned().ok()?;
        let (exchange, kept_for) = pool.take_idle(peer)?;
        Some(Lease::new(exchange, pool, permit, Some(kept_for)))
    }

    /// Makes a new connection, waiting for its turn when there are too many. The connection that
    /// it waited for may be one that was used before.
    ///
    /// # Errors
    ///
    /// [`LeaseError`] when the wait is too long or the backend cannot be connected to.
    pub async fn lease_new(&self, peer: Peer<'_>) -> Result<Lease, LeaseError> {
        if peer.purpose == Purpose::Upgrade && peer.origin.scheme == Scheme::H2c {
            return Err(LeaseError::NoTunnel);
        }
        let is_unreadable = |trust: &Trust| matches!(trust.signers, Signers::Nobody);
        if peer.origin.scheme == Scheme::Https && peer.trust.is_some_and(is_unreadable) {
            return Err(LeaseError::UnreadableTrust);
        }
        let pool = self.pool(peer);
        let permits = Arc::clone(&pool.permits);
        let permit = match permits.try_acquire_owned() {
            Ok(permit) => permit,
            Err(_all_in_use) => {
                let turn = Arc::clone(&pool.permits).acquire_owned();
                let turn = time_limit::timeout(self.queue_timeout, turn).await;
                let Ok(Ok(permit)) = turn else {
                    return Err(LeaseError::QueueTimedOut(self.max_sockets));
                };
                if let Some((exchange, kept_for)) = pool.take_idle(peer) {
                    return Ok(Lease::new(exchange, pool, permit, Some(kept_for)));
                }
                permit
            }
        };
        let mut sharing_soon = None;
        if peer.purpose == Purpose::Exchange && pool.shares.load(Ordering::Relaxed) {
            sharing_soon = pool.sharing_soon.try_lock().ok();
            if sharing_soon.is_none() {
                // For one connection only: should it fail or be full at once, everybody makes one.
                drop(pool.sharing_soon.lock().await);
                if let Some((exchange, kept_for)) = pool.take_idle(peer) {
                    return Ok(Lease::new(exchange, Arc::clone(&pool), permit, Some(kept_for)));
                }
            }
        }
        let exchange = match peer.purpose {
            Purpose::WebSocket => Box::pin(pool.connect_for_websocket(peer)).await?,
            Purpose::Alone | Purpose::Exchange | Purpose::Login | Purpose::Upgrade => {
                pool.connect(peer).await?
            }
        };
        drop(sharing_soon);
        Ok(Lease::new(exchange, pool, permit, None))
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
fn entry(pools: &mut Pools, origin: &Origin, make: impl FnOnce() -> Arc<Pool>) -> Arc<Pool> {
    if let Some(pool) = pools.get(origin) {
        return Arc::clone(pool);
    }
    let pool = make();
    pools.insert(origin.clone(), Arc::clone(&pool));
    pool
}

impl Lease {
    fn new(
        exchange: Box<Exchange>,
        pool: Arc<Pool>,
        permit: OwnedSemaphorePermit,
        reused_for: Option<KeptFor>,
    ) -> Self {
        let (exchange, permit) = (Some(exchange), Some(permit));
        let is_reused = reused_for.is_some();
        Self { exchange, pool, permit, is_reused, kept_for: reused_for.unwrap_or(KeptFor::Anyone) }
    }

    /// The client may log in on this connection, which from now on belongs to `client` alone; without
    /// one it is closed after this exchange.
    pub fn bind(&mut self, client: Option<&Arc<Bound>>) {
        self.kept_for = match (&self.kept_for, client) {
            (KeptFor::Nobody, _) | (_, None) => KeptFor::Nobody,
            (_, Some(client)) => KeptFor::Client(Arc::clone(client)),
        };
    }

    /// The same of a client that logs in with the request that it is about to send.
    pub fn log_in(&mut self, client: Option<&Arc<Bound>>) {
        self.exchange().has_logged_in = true;
        self.bind(client);
    }

    /// Whether the connection has carried a request before. What goes wrong on such a connection
    /// says nothing about the backend: it may just have closed an idle connection.
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// The connection.
    pub fn exchange(&mut self) -> &mut Exchange {
        self.exchange.as_mut().expect("a lease holds its connection until it is given back")
    }

    /// What makes the connection count as one of `maxSockets`.
    pub fn take_turn(&mut self) -> Option<Permit> {
        let permit = self.permit.take()?;
        Some(Permit::new(permit, self.pool.max_sockets))
    }

    /// Closes the connection after this exchange.
    pub fn never_again(&mut self) {
        self.kept_for = KeptFor::Nobody;
    }

    /// Takes the connection out for good, for a tunnel. It counts no more: `maxSockets` is for
    /// requests, which end (Node's agent lets upgraded sockets go, too).
    pub fn into_tunnel(mut self) -> Option<(Stream, bytes::Bytes)> {
        let parts = self.exchange.take()?.driver?.into_parts();
        Some((parts.io.into_stream(), parts.read_buf))
    }

    /// Gives the connection back to the pool, or to its client, if it can carry another request.
    pub fn give_back(mut self, now: Millis, cx: &mut Context<'_>) {
        let Some(mut exchange) = self.exchange.take() else { return };
        exchange.finish();
        // One of HTTP/2 is used by others all the time, or by nobody.
        if matches!(self.kept_for, KeptFor::Nobody) || !matches!(exchange.sender, Sender::Http1(_))
        {
            return;
        }
        // The backend has moved meanwhile.
        if !self.pool.is_current(&mut exchange.reached) {
            return;
        }
        // hyper takes another request once it has seen the end of this exchange; mostly it has.
        if !exchange.is_ready() && !exchange.is_usable(cx) {
            return;
        }
        // Before the permit is released: whoever waits for it finds the connection.
        match &self.kept_for {
            KeptFor::Anyone => self.pool.put(exchange, now),
            KeptFor::Client(bound) => bound.keep(exchange, &self.pool),
            KeptFor::Nobody => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::task::Waker;

    use shared::backend::BackendUrl;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::names::Lookup;
    use super::*;
    use crate::clock::Clock;
    use crate::upstream::guard::Guard;

    /// Two addresses that listen on the same port.
    async fn pair() -> (TcpListener, TcpListener, u16) {
        loop {
            let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = one.local_addr().unwrap().port();
            if let Ok(two) = TcpListener::bind(("127.0.0.2", port)).await {
                return (one, two, port);
            }
        }
    }

    #[tokio::test]
    async fn requests_take_turns_with_the_addresses_of_a_name_and_leave_those_that_have_gone() {
        let (one, two, port) = pair().await;
        let addresses = [&one, &two].map(|listener| listener.local_addr().unwrap().ip());
        let answer = Arc::new(Mutex::new(addresses.to_vec()));
        let lookup: Arc<Lookup> = {
            let answer = Arc::clone(&answer);
            Arc::new(move |_name| {
                let answer = lock(&answer).clone();
                Box::pin(async move { Ok(answer) })
            })
        };
        let clock = Arc::new(Clock::new());
        let limit = Duration::from_secs(5);
        let files = crate::descriptors::Descriptors::of_process();
        let connector =
            Connector::new(limit, Guard::default(), Arc::clone(&clock), None, lookup, files);
        let upstreams = Upstreams::new(Arc::new(connector), 100, limit);
        let origin = BackendUrl::parse(format!("http://a.test:{port}").as_bytes()).unwrap().origin;
        let (purpose, connect_timeout) = (Purpose::Exchange, None);
        let peer = Peer { origin: &origin, trust: None, purpose, connect_timeout, bound: None };
        let lease = async || match upstreams.lease_idle(peer) {
            Some(lease) => lease,
            None => upstreams.lease_new(peer).await.unwrap(),
        };
        let address = |lease: &Lease| lease.exchange.as_ref().unwrap().reached.address.unwrap();
        let give_back = |lease: Lease| lease.give_back(0, &mut Context::from_waker(Waker::noop()));

        let mut previous = None;
        let mut reused = Vec::new();
        for _ in 0..6 {
            let lease = lease().await;
            assert_ne!(Some(address(&lease)), previous, "the other one's turn");
            previous = Some(address(&lease));
            reused.push(lease.is_reused());
            give_back(lease);
        }
        assert_eq!(reused, [false, false, true, true, true, true]);

        // One of them goes, with a connection unused and another one in use.
        let (mut first, _) = one.accept().await.unwrap();
        let busy = [lease().await, lease().await];
        assert_eq!(busy.iter().map(address).collect::<BTreeSet<_>>().len(), 2);
        for lease in [lease().await, lease().await] {
            give_back(lease);
        }
        let (mut second, _) = one.accept().await.unwrap();
        *lock(&answer) = vec![addresses[1]];
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(6)).await;
        tokio::time::resume();
        upstreams.sweep(0);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        upstreams.sweep(0);
        assert_eq!(second.read(&mut [0; 1]).await.unwrap(), 0, "the unused one is closed");
        for lease in busy {
            give_back(lease);
        }
        assert_eq!(first.read(&mut [0; 1]).await.unwrap(), 0, "and the other one after its use");
        for _ in 0..4 {
            let lease = lease().await;
            assert_eq!(address(&lease), addresses[1]);
            give_back(lease);
        }
    }
}
