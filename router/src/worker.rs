//! One worker: a thread with its own runtime, listening sockets and connections to backends.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::clock::TICK;
use crate::connection::{ClientIo, Connection, Connections, Phase};
use crate::listen::proxy_protocol::Addresses;
use crate::listen::{accept_loop, preface};
use crate::metrics::Counters;
use crate::proxy::{Client, Settings, Shared, answer};

/// Time for a request head, from the first byte of a connection or of a further request on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest request head, which is also the largest read buffer of a connection. Node, and with
/// it Hipache, took 80 KiB.
const MAX_HEAD: usize = 80 * 1024;
/// Sweeps of the connections for each sweep of the pools.
const TICKS_PER_POOL_SWEEP: u32 = 20;

/// How long idle connections stay open for further requests when draining: as long as a client
/// in a steady exchange commonly pauses.
const IDLE_GRACE: Duration = Duration::from_millis(500);

/// Time for tunnels that are cut off to write their log lines.
const TUNNEL_END: Duration = Duration::from_millis(500);

/// The answer to a client that began a request and did not finish its head in time. Written
/// past hyper, which has no response to a request that is not there.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\
    Connection: close\r\n\r\n";

/// What a worker needs.
#[derive(Debug)]
pub struct Worker {
    /// One socket for each address, and whether its connections begin with a PROXY header.
    pub sockets: Vec<(std::net::TcpListener, bool)>,
    /// What its requests share.
    pub shared: Arc<Shared>,
    /// Settings for new connections.
    pub settings: Arc<ArcSwap<Settings>>,
    /// Cancelled when no more connections are to be accepted.
    pub drain: CancellationToken,
    /// Cancelled when what still runs is to be given up.
    pub stop: CancellationToken,
}

impl Worker {
    /// Runs until drained or stopped. Blocks the thread.
    ///
    /// # Errors
    ///
    /// When the runtime cannot be made or a socket cannot be used.
    pub fn run(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let result = runtime.block_on(self.serve());
        // Name look-ups may still hang in the system's resolver; nobody waits for them.
        runtime.shutdown_background();
        result
    }

    async fn serve(self) -> io::Result<()> {
        let tracker = TaskTracker::new();
        let connections = Arc::new(Connections::default());
        drop(tokio::spawn(sweep(Arc::clone(&self.shared), Arc::clone(&connections))));
        let acceptors = TaskTracker::new();
        for (socket, has_preface) in self.sockets {
            let listener = TcpListener::from_std(socket)?;
            let acceptor = Acceptor {
                shared: Arc::clone(&self.shared),
                settings: Arc::clone(&self.settings),
                connections: Arc::clone(&connections),
                tracker: tracker.clone(),
                has_preface,
            };
            let drain = self.drain.clone();
            drop(acceptors.spawn(async move { acceptor.run(listener, &drain).await }));
        }
        acceptors.close();
        acceptors.wait().await;
        connections.drain();
        tracker.close();
        // A request that is on its way to an idle connection would be lost by closing it now. For
        // a moment such requests are answered, with `Connection: close`.
        let idle = async {
            let _all_ended = tokio::time::timeout(IDLE_GRACE, tracker.wait()).await;
            connections.close_idle();
            std::future::pending::<()>().await;
        };
        let tunnels = &self.shared.tunnels.tracker;
        let finished = async {
            tokio::select! {
                () = tracker.wait() => {}
                () = idle => {}
            }
            tunnels.close();
            tunnels.wait().await;
        };
        if self.stop.run_until_cancelled(finished).await.is_none() {
            // Tunnels end by the same token; they get the moment that their log lines need.
            tunnels.close();
            let _ended = tokio::time::timeout(TUNNEL_END, tunnels.wait()).await;
        }
        Ok(())
    }
}

/// Enforces the time limits of client connections and of idle connections to backends.
async fn sweep(shared: Arc<Shared>, connections: Arc<Connections>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut count = 0_u32;
    loop {
        let _ = ticks.tick().await;
        let now = shared.clock.tick();
        connections.sweep(now);
        count = count.wrapping_add(1);
        if count.is_multiple_of(TICKS_PER_POOL_SWEEP) {
            shared.upstreams.sweep(now);
        }
    }
}

#[derive(Clone)]
struct Acceptor {
    shared: Arc<Shared>,
    settings: Arc<ArcSwap<Settings>>,
    connections: Arc<Connections>,
    tracker: TaskTracker,
    /// Connections begin with a PROXY header.
    has_preface: bool,
}

impl Acceptor {
    async fn run(self, listener: TcpListener, drain: &CancellationToken) {
        let serve = |stream, peer| self.accepted(stream, peer);
        let _never = drain.run_until_cancelled(accept_loop(&listener, serve)).await;
        // Connections that the kernel has completed for us would be reset by closing the socket.
        let mut pending = pin!(accept_loop(&listener, serve));
        std::future::poll_fn(|cx| {
            let _no_more = pending.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
    }

    fn accepted(&self, stream: TcpStream, peer: SocketAddr) {
        // Small writes must not wait for the acknowledgement of the one before; a connection on
        // which this fails is about to fail anyway.
        let _is_set = stream.set_nodelay(true);
        let local = match stream.local_addr() {
            Ok(local) => local,
            Err(error) => {
                debug!(client.addr = %peer, %error, "connection was gone at once");
                return;
            }
        };
        match self.has_preface {
            false => self.serve(stream, peer, local),
            true => self.read_preface(stream, peer, local),
        }
    }

    /// Serves a connection once its balancer has said whose it is.
    fn read_preface(&self, mut stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
        if !self.settings.load().is_trusted(peer.ip().to_canonical()) {
            let reason =
                "it is not in server.trustedProxies, and only those may send PROXY headers";
            return self.complain(peer, &reason);
        }
        let acceptor = self.clone();
        drop(self.tracker.spawn(async move {
            match preface::read(&mut stream).await {
                Ok(None) => acceptor.serve(stream, peer, local),
                Ok(Some(Addresses { source, destination })) => {
                    acceptor.serve(stream, source, destination);
                }
                Err(error) => acceptor.complain(peer, &error),
            }
        }));
    }

    /// Anybody can cause it, so it is said now and then only.
    fn complain(&self, peer: SocketAddr, reason: &dyn std::fmt::Display) {
        if let Some(unsaid) = self.shared.preface_refusals.is_due(self.shared.clock.coarse()) {
            warn!(client.addr = %peer, unsaid, "connection closed: {reason}");
        }
    }

    /// Serves a connection of `peer`, which connected to `local`.
    fn serve(&self, stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
        let settings = self.settings.load_full();
        let connection = Connection::new(
            peer,
            local,
            Arc::clone(&self.shared.clock),
            settings.tcp_timeout,
            HEAD_TIMEOUT,
        );
        self.connections.add(&connection);
        let client = Arc::new(Client {
            shared: Arc::clone(&self.shared),
            forwarded: settings.forwarded(peer, local),
            settings,
            connection,
        });
        drop(self.tracker.spawn(serve_connection(stream, client)));
    }
}

/// Counts a connection as long as it lives.
struct Open(Arc<Counters>);

impl Open {
    fn new(counters: &Arc<Counters>) -> Self {
        counters.connections.add();
        Self(Arc::clone(counters))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections_ended.add();
    }
}

async fn serve_connection(stream: TcpStream, client: Arc<Client>) {
    let connection = Arc::clone(&client.connection);
    let _open = Open::new(&client.shared.counters);
    let io = ClientIo::new(stream, Arc::clone(&connection));
    let service = service_fn(move |request| answer(Arc::clone(&client), request));
    let http = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        .serve_connection(io, service)
        .with_upgrades();
    let mut http = pin!(http);
    let mut is_ending = false;
    let result = std::future::poll_fn(|cx| {
        connection.register(cx.waker());
        if connection.is_closing() && !is_ending {
            is_ending = true;
            http.as_mut().graceful_shutdown();
        }
        if connection.is_abandoned() {
            return Poll::Ready(Ok(()));
        }
        if connection.has_expired() {
            match connection.phase() {
                // The request itself sees to it.
                Phase::Busy => {}
                Phase::Head => {
                    let _is_queued = connection.send_early(REQUEST_TIMEOUT);
                    let _written = http.as_mut().poll(cx);
                    return Poll::Ready(Ok(()));
                }
                Phase::Idle | Phase::Streaming => return Poll::Ready(Ok(())),
            }
        }
        http.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = result {
        if error.is_user() {
            warn!(client.addr = %connection.peer, %error, "response could not be sent");
        } else {
            debug!(client.addr = %connection.peer, %error, "client connection ended");
        }
    }
}
