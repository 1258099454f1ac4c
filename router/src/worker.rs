//! One worker: a thread with its own runtime, listening sockets and connections to backends.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use shared::accept::accept_loop;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::client_io::ClientIo;
use crate::clients::{Clients, Refusal};
use crate::clock::TICK;
use crate::connection::{Connection, Load};
use crate::descriptors::{Descriptors, Room};
use crate::listen::preface;
use crate::listen::proxy_protocol::Addresses;
use crate::metrics::HandshakeFailure;
use crate::proxy::{Client, Ended, Settings, Shared, serve};
use crate::tls::{HandshakeError, Session, Terminator};

/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Sweeps of the connections for each sweep of the pools.
const TICKS_PER_POOL_SWEEP: u32 = 20;

/// Bytes that the kernel keeps for a client beyond those that are on their way to it, when there are
/// many clients. By default it keeps megabytes for each that does not read, until the memory of all
/// TCP connections (`net.ipv4.tcp_mem`) is used up and everybody's packets are dropped. Large
/// responses cost some tenth more processor time with it.
const MAX_UNSENT: u32 = 128 * 1024;

/// Connections that are looked at at once; of more, in how many parts at most, spread over a tick.
const SWEPT_AT_ONCE: usize = 128;
const PARTS: usize = 20;
/// Expired connections that are ended at once.
const ENDED_AT_ONCE: usize = 4;
/// In how many parts more of them are ended.
const SLICES: u16 = 25;

/// How long idle connections stay open for further requests when draining: as long as a client
/// in a steady exchange commonly pauses.
const IDLE_GRACE: Duration = Duration::from_millis(500);

/// Time for tunnels that are cut off to write their log lines.
const TUNNEL_END: Duration = Duration::from_millis(500);

/// A socket of one worker.
#[derive(Debug)]
pub struct Listening {
    /// It listens.
    pub socket: std::net::TcpListener,
    /// Its connections begin with a PROXY header.
    pub has_preface: bool,
    /// What makes its connections encrypted ones, on an address of HTTPS.
    pub tls: Option<Terminator>,
}

/// What a worker needs.
#[derive(Debug)]
pub struct Worker {
    /// One socket for each address.
    pub sockets: Vec<Listening>,
    /// Clients without TLS may begin with HTTP/2.
    pub h2c: bool,
    /// What its requests share.
    pub shared: Arc<Shared>,
    /// Settings for new connections.
    pub settings: Arc<ArcSwap<Settings>>,
    /// Counts the connections of all workers.
    pub clients: Arc<Clients>,
    /// What of the file descriptors clients may take.
    pub descriptors: Descriptors,
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
        drop(tokio::spawn(sweep(Arc::clone(&self.shared))));
        let acceptors = TaskTracker::new();
        let load = Arc::<Load>::default();
        for Listening { socket, has_preface, tls } in self.sockets {
            let listener = TcpListener::from_std(socket)?;
            let acceptor = Acceptor {
                shared: Arc::clone(&self.shared),
                settings: Arc::clone(&self.settings),
                clients: Arc::clone(&self.clients),
                descriptors: self.descriptors,
                load: Arc::clone(&load),
                tracker: tracker.clone(),
                local: listener.local_addr()?,
                has_preface,
                tls,
                h2c: self.h2c,
            };
            let drain = self.drain.clone();
            drop(acceptors.spawn(async move { acceptor.run(listener, &drain).await }));
        }
        acceptors.close();
        acceptors.wait().await;
        self.shared.connections.drain();
        tracker.close();
        // A request that is on its way to an idle connection would be lost by closing it now. For
        // a moment such requests are answered, with `Connection: close`.
        let idle = async {
            let _all_ended = tokio::time::timeout(IDLE_GRACE, tracker.wait()).await;
            self.shared.connections.close_idle();
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
async fn sweep(shared: Arc<Shared>) {
    let connections = &shared.connections;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut count = 0_u32;
    let mut last = shared.clock.running();
    loop {
        let begin = ticks.tick().await;
        // The runtime reads its sockets before it goes on with this. A timer that passed in a pause of
        // the process may have come without that.
        tokio::task::yield_now().await;
        let now = shared.clock.tick();
        let running = shared.clock.running();
        // Others may have run while this worker did not.
        let missed = shared.clock.missed_since(last);
        if missed > 0 {
            connections.postpone(missed);
        }
        last = running;
        // Thousands of connections take as long to look at as several requests to answer.
        let parts = connections.count().div_ceil(SWEPT_AT_ONCE).clamp(1, PARTS);
        for part in 0..parts {
            // By the time of the tick, or what each sleep is late would add up to more than one.
            tokio::time::sleep_until(begin + spread(part, parts)).await;
            let expired = connections.sweep(running, part, parts);
            if expired.len() <= ENDED_AT_ONCE {
                wake(&expired);
            } else {
                drop(tokio::spawn(wake_by_and_by(expired)));
            }
        }
        count = count.wrapping_add(1);
        if count.is_multiple_of(TICKS_PER_POOL_SWEEP) {
            shared.pools.sweep(now);
        }
    }
}

/// When, from the tick on, a part is due.
fn spread(part: usize, parts: usize) -> Duration {
    TICK * u32::try_from(part).unwrap_or(u32::MAX) / u32::try_from(parts).unwrap_or(u32::MAX)
}

fn wake(connections: &[Weak<Connection>]) {
    connections.iter().filter_map(Weak::upgrade).for_each(|connection| connection.wake());
}

/// Ends connections spread over the time until the next sweep. Those that began together expire
/// together, and to end one takes as long as to answer a request, as does the new connection that
/// its client then makes: all at once they would keep everybody else waiting.
async fn wake_by_and_by(expired: Vec<Weak<Connection>>) {
    for some in expired.chunks(expired.len().div_ceil(SLICES.into()).max(1)) {
        wake(some);
        tokio::time::sleep(TICK / u32::from(SLICES)).await;
    }
}

mod http2;
mod plain;
mod refuse;

#[derive(Clone)]
struct Acceptor {
    shared: Arc<Shared>,
    settings: Arc<ArcSwap<Settings>>,
    clients: Arc<Clients>,
    descriptors: Descriptors,
    load: Arc<Load>,
    tracker: TaskTracker,
    /// The address that is listened on; its port is that of every connection.
    local: SocketAddr,
    /// Connections begin with a PROXY header.
    has_preface: bool,
    tls: Option<Terminator>,
    h2c: bool,
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
        match self.has_preface {
            false => self.serve(stream, peer, self.local),
            true => self.read_preface(stream, peer),
        }
    }

    /// Serves a connection once its balancer has said whose it is.
    fn read_preface(&self, mut stream: TcpStream, peer: SocketAddr) {
        if !self.settings.load().is_trusted(peer.ip().to_canonical()) {
            let reason =
                "it is not in server.trustedProxies, and only those may send PROXY headers";
            self.complain(peer, &reason);
            return self.log_refusal(peer, StatusCode::FORBIDDEN, 0);
        }
        let acceptor = self.clone();
        drop(self.tracker.spawn(async move {
            match preface::read(&mut stream).await {
                Ok(None) => acceptor.serve(stream, peer, acceptor.local),
                Ok(Some(Addresses { source, destination })) => {
                    acceptor.serve(stream, source, destination);
                }
                Err(error) => {
                    acceptor.complain(peer, &error);
                    if let Some(status) = refuse::status_of(&error) {
                        acceptor.log_refusal(peer, status, 0);
                    }
                }
            }
        }));
    }

    /// Anybody can cause it, so it is said now and then only.
    fn complain(&self, peer: SocketAddr, reason: &dyn std::fmt::Display) {
        if let Some(suppressed) = self.shared.preface_refusals.is_due(self.shared.clock.coarse()) {
            warn!(client.addr = %peer, suppressed, "connection closed: {reason}");
        }
    }

    /// Serves a connection of `peer`, which connected to `local`.
    fn serve(&self, stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
        match self.descriptors.room(stream.as_raw_fd()) {
            Room::Enough => {}
            Room::Scarce => self.make_room(),
            Room::None => {
                self.make_room();
                return self.refuse(&stream, peer, Refusal::Files);
            }
        }
        let settings = self.settings.load_full();
        let is_trusted = settings.is_trusted(peer.ip().to_canonical());
        let ticket = match self.clients.admit(peer.ip(), is_trusted, &settings.limits) {
            Ok(ticket) => ticket,
            Err(refusal) => return self.refuse(&stream, peer, refusal),
        };
        if self.clients.are_many() {
            // A kernel that does not know it only takes more memory.
            let _is_set = SockRef::from(&stream).set_tcp_notsent_lowat(MAX_UNSENT);
        }
        let connection = Connection::new(
            peer,
            Arc::clone(&self.shared.clock),
            Arc::clone(&self.load),
            &settings.limits,
            ticket,
        );
        self.shared.connections.add(&connection);
        let info = settings.client_info(peer, local, self.tls.is_some());
        let may_begin_http2 = self.h2c && self.tls.is_none();
        let client = Client::new(&self.shared, settings, connection, info, may_begin_http2);
        match self.tls.clone() {
            None => drop(self.tracker.spawn(converse(ClientIo::new(stream.into()), client))),
            Some(tls) => drop(self.tracker.spawn(serve_tls(stream, client, tls))),
        }
    }

    /// Ends the connections of this worker that have been idle for longest, once a tick.
    fn make_room(&self) {
        let count = self.descriptors.given_way_at_once();
        wake(&self.shared.connections.give_way(self.shared.clock.coarse(), count));
    }
}

/// Makes the connection an encrypted one, which costs nobody else's connection a wait.
async fn serve_tls(stream: TcpStream, mut client: Client, tls: Terminator) {
    let accepted = {
        let connection = &client.connection;
        connection.allow_for(Some(HANDSHAKE_TIMEOUT));
        let refused = &client;
        let mut accepting = Box::pin(async move {
            if plain::is_http(&stream).await.map_err(HandshakeError::Closed)? {
                plain::refuse(stream, |bytes| {
                    refuse::log_for(refused, StatusCode::BAD_REQUEST, bytes, 0);
                })
                .await;
                return Err(HandshakeError::PlainHttp);
            }
            tls.accept(stream).await
        });
        std::future::poll_fn(|cx| {
            connection.register(cx.waker());
            if connection.has_expired() || connection.is_closing() {
                return Poll::Ready(None);
            }
            accepting.as_mut().poll(cx).map(Some)
        })
        .await
    };
    let counters = &client.shared.counters;
    counters.shook_hands(accepted.as_ref().map(|accepted| match accepted {
        Ok((_, Session { is_1_3, is_resumed, .. })) => Ok((*is_1_3, *is_resumed)),
        Err(HandshakeError::Closed(_)) => Err(HandshakeFailure::Closed),
        Err(HandshakeError::NoCertificate(_)) => Err(HandshakeFailure::NoCertificate),
        Err(HandshakeError::PlainHttp | HandshakeError::Protocol(_)) => {
            Err(HandshakeFailure::Protocol)
        }
    }));
    let client_addr = client.connection.peer;
    match accepted {
        None => debug!(client.addr = %client_addr, "TLS handshake took too long"),
        Some(Err(error)) => debug!(client.addr = %client_addr, %error, "no TLS with the client"),
        Some(Ok((stream, session))) => {
            client.tls = Some(Arc::new(session));
            client.connection.await_first_request();
            match stream.speaks_http2() {
                true => Box::pin(http2::serve(stream, Vec::new(), client)).await,
                false => Box::pin(converse(ClientIo::new(stream), client)).await,
            }
        }
    }
}

/// Serves a connection that begins as one of HTTP/1, whatever becomes of it.
// A block, not an async function: the parameters of those are kept twice.
#[allow(clippy::manual_async_fn, reason = "said above")]
fn converse(mut io: ClientIo, client: Client) -> impl Future<Output = ()> + Send {
    async move {
        match serve(&mut io, &client).await {
            Ended::Closed => {}
            Ended::Http2(early) => {
                Box::pin(http2::serve(io.into_stream(), early, client)).await;
            }
            Ended::Tunnel(tunnel) => {
                let (shared, connection) = (&client.shared, Arc::clone(&client.connection));
                shared.tunnels.spawn(io.into_stream(), *tunnel, connection, shared.sink.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Connection, converse};

    fn task_size<A, B, F>(_task: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// What an idle client costs besides its socket.
    #[test]
    fn an_idle_connection_is_small() {
        let (task, state) = (task_size(converse), size_of::<Connection>());
        println!("task {task} bytes, state {state} bytes");
        assert!(task <= 512, "{task}");
        assert!(state <= 208, "{state}");
    }
}
