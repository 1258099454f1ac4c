//! Pools over sockets of this machine.

use std::collections::BTreeSet;
use std::net::IpAddr;

use shared::backend::BackendUrl;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::clock::Clock;
use crate::descriptors::Descriptors;
use crate::http1::client::{Asked, HeadStep};
use crate::http1::head::{HeadLimits, ResponseHead};
use crate::permit::RequestPermit;
use crate::upstream::guard::Guard;
use crate::upstream::names::{self, Lookup};

mod http2;

const LIMIT: Duration = Duration::from_secs(5);
const KEPT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// The pools of one worker, with a clock that passes when it is told to.
struct Worker {
    pools: Pools,
    clock: Arc<Clock>,
}

impl Worker {
    fn new(max_sockets: usize, queue_timeout: Duration) -> Self {
        Self::with_names(max_sockets, queue_timeout, Arc::new(names::system))
    }

    fn with_names(max_sockets: usize, queue_timeout: Duration, lookup: Arc<Lookup>) -> Self {
        let clock = Arc::new(Clock::new());
        let files = Descriptors::of_process();
        let connector =
            Connector::new(LIMIT, Guard::default(), Arc::clone(&clock), None, lookup, files);
        Self { pools: Pools::new(Arc::new(connector), max_sockets, queue_timeout), clock }
    }

    async fn pass(&self, time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
        self.clock.tick();
        // Long enough for the runtime to see what has come.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    fn now(&self) -> Millis {
        self.clock.coarse()
    }

    fn sweep(&self) {
        self.pools.sweep(self.now());
    }

    async fn checkout(&self, peer: Peer<'_>) -> PooledConnection {
        match self.idle(peer) {
            Some(connection) => connection,
            None => self.new_one(peer).await.unwrap(),
        }
    }

    fn idle(&self, peer: Peer<'_>) -> Option<PooledConnection> {
        self.pools.checkout_idle(peer, self.now())
    }

    async fn new_one(&self, peer: Peer<'_>) -> Result<PooledConnection, CheckoutError> {
        self.pools.checkout_new(peer, self.now()).await
    }

    /// A request that is answered by `response` on a connection that may be kept.
    fn exchange(&self, mut connection: PooledConnection, response: &str) {
        answer(&mut connection, response);
        connection.give_back(false, self.now());
    }
}

fn answer(connection: &mut PooledConnection, response: &str) {
    let limits = HeadLimits { max_bytes: 8192, max_fields: 100, max_target: 8192 };
    let state = &mut connection.connection().state;
    state.begin(Asked::default());
    state.wrote(1, true);
    let step = state.read_head(response.as_bytes(), &mut ResponseHead::default(), &limits);
    assert!(matches!(step, Ok(HeadStep::Response(_))), "{step:?}");
}

async fn backend(scheme: &str) -> (TcpListener, Origin) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    (listener, BackendUrl::parse(url.as_bytes()).unwrap().origin)
}

fn peer(origin: &Origin) -> Peer<'_> {
    Peer {
        to: Destination { origin, trust: None, connect_timeout: None },
        purpose: Purpose::Exchange,
        keep_alive: KeepAlive::On,
        is_safe: true,
        bound: None,
    }
}

async fn is_closed(socket: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(Duration::from_millis(50), socket.read(&mut [0; 1])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn newest_live_connection_is_used_again() {
    let worker = Worker::new(10, LIMIT);
    let (listener, origin) = backend("http").await;
    let peer = peer(&origin);
    let first = worker.checkout(peer).await;
    let (older, _) = listener.accept().await.unwrap();
    let second = worker.checkout(peer).await;
    let (mut newer, _) = listener.accept().await.unwrap();
    assert!(!first.attempt().is_reused && !second.attempt().is_reused);
    worker.exchange(first, KEPT);
    worker.exchange(second, KEPT);
    // What no request asked for ends a connection as well.
    newer.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
    worker.pass(Duration::ZERO).await;
    let mut connection = worker.checkout(peer).await;
    assert!(connection.attempt().is_reused);
    let Stream::Plain(stream) = &connection.connection().stream else { panic!("it is plain") };
    assert_eq!(stream.local_addr().unwrap(), older.peer_addr().unwrap());
    assert!(worker.idle(peer).is_none(), "the other one is gone");
    worker.exchange(connection, KEPT);
    drop(older);
    worker.pass(Duration::ZERO).await;
    worker.sweep();
    assert!(lock(&worker.pools.pools).is_empty(), "it is swept without being wanted");
}

#[tokio::test]
async fn request_that_cannot_be_sent_again_takes_a_young_connection_or_replaces_an_old_one() {
    let worker = Worker::new(10, LIMIT);
    let (listener, origin) = backend("http").await;
    let peer = peer(&origin);
    let once = Peer { is_safe: false, ..peer };
    worker.exchange(worker.checkout(peer).await, KEPT);
    let (mut old, _) = listener.accept().await.unwrap();
    worker.exchange(worker.idle(once).unwrap(), KEPT);
    worker.pass(Duration::from_secs(2)).await;
    let new = worker.checkout(once).await;
    assert!(!new.attempt().is_reused, "the other one is too old");
    assert!(is_closed(&mut old).await, "it may keep the backend from serving the new one");
    worker.exchange(new, KEPT);
    assert!(worker.idle(once).is_some());
}

#[tokio::test]
async fn announced_keep_alive_timeout_is_obeyed_with_a_margin() {
    let worker = Worker::new(10, LIMIT);
    let (listener, origin) = backend("http").await;
    let peer = peer(&origin);
    let announcing = |seconds: u32| {
        format!("HTTP/1.1 204 No Content\r\nKeep-Alive: timeout={seconds}, max=9\r\n\r\n")
    };
    for (seconds, idle, is_kept) in [(5, 3, true), (5, 4, false), (1, 0, false)] {
        worker.exchange(worker.new_one(peer).await.unwrap(), &announcing(seconds));
        let (mut socket, _) = listener.accept().await.unwrap();
        worker.pass(Duration::from_secs(idle)).await;
        worker.sweep();
        assert_eq!(is_closed(&mut socket).await, !is_kept, "{seconds} s, {idle} s idle");
        assert_eq!(worker.idle(peer).is_some(), is_kept);
    }
}

#[tokio::test]
async fn setting_of_the_host_limits_which_requests_use_a_connection_again() {
    for (keep_alive, is_safe, expected) in [
        (KeepAlive::On, true, true),
        (KeepAlive::On, false, true),
        (KeepAlive::Safe, true, true),
        (KeepAlive::Safe, false, false),
        (KeepAlive::Off, true, false),
    ] {
        let worker = Worker::new(10, LIMIT);
        let (_listener, origin) = backend("http").await;
        // Perhaps of another host.
        worker.exchange(worker.checkout(peer(&origin)).await, KEPT);
        let peer = Peer { keep_alive, is_safe, ..peer(&origin) };
        assert_eq!(worker.idle(peer).is_some(), expected, "{keep_alive:?} {is_safe}");
    }
}

#[tokio::test]
async fn request_without_keep_alive_takes_no_used_connection_after_a_wait() {
    let worker = Worker::new(1, LIMIT);
    let (listener, origin) = backend("http").await;
    let first = worker.checkout(peer(&origin)).await;
    let (mut socket, _) = listener.accept().await.unwrap();
    let off = Peer { keep_alive: KeepAlive::Off, ..peer(&origin) };
    let (second, ()) = tokio::join!(worker.new_one(off), async {
        tokio::task::yield_now().await;
        worker.exchange(first, KEPT);
    });
    assert!(!second.unwrap().attempt().is_reused);
    assert!(is_closed(&mut socket).await, "maxSockets bounds idle connections, too");
}

#[tokio::test]
async fn what_cannot_carry_another_request_is_closed() {
    let worker = Worker::new(10, LIMIT);
    let (_listener, origin) = backend("http").await;
    let peer = peer(&origin);
    let checkout = async || worker.new_one(peer).await.unwrap();
    worker.exchange(checkout().await, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    worker.exchange(checkout().await, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    let mut connection = checkout().await;
    answer(&mut connection, KEPT);
    connection.give_back(true, worker.now());
    assert!(worker.idle(peer).is_none());
    let stream = checkout().await.into_stream();
    assert!(matches!(stream, Stream::Plain(_)));
}

#[tokio::test]
async fn request_beyond_max_sockets_waits_for_a_connection() {
    let worker = Worker::new(1, Duration::from_millis(50));
    let (listener, origin) = backend("http").await;
    let peer = peer(&origin);
    let mut first = worker.checkout(peer).await;
    assert!(worker.idle(peer).is_none());
    let error = worker.new_one(peer).await.unwrap_err();
    assert!(matches!(error, CheckoutError::QueueTimedOut(1)), "{error}");
    // The request holds the permit, and releases it before its connection comes back.
    let request = RequestPermit::default();
    request.hold(first.take_permit());
    assert!(first.take_permit().is_none(), "there is one");
    let (second, ()) = tokio::join!(worker.new_one(peer), async {
        tokio::task::yield_now().await;
        worker.exchange(first, KEPT);
        request.release();
    });
    assert!(second.unwrap().attempt().is_reused);
    let _only = listener.accept().await.unwrap();
    let another = tokio::time::timeout(Duration::from_millis(20), listener.accept()).await;
    assert!(another.is_err());
}

#[tokio::test]
async fn connection_that_a_client_logs_in_on_is_its_own() {
    let worker = Worker::new(10, LIMIT);
    let (listener, origin) = backend("http").await;
    let peer = peer(&origin);
    let client = Arc::new(BoundConnection::default());
    let mut connection = worker.checkout(peer).await;
    let (mut socket, _) = listener.accept().await.unwrap();
    connection.log_in(Some(&client));
    worker.exchange(connection, KEPT);
    assert!(worker.idle(peer).is_none());
    assert_eq!(client.at(|at| (*at == origin).then_some(1)), Some(1));
    // However long it was idle: without it the login is lost.
    worker.pass(Duration::from_secs(100)).await;
    let own = Peer { bound: Some(&client), is_safe: false, ..peer };
    let connection = worker.idle(own).unwrap();
    worker.exchange(connection, KEPT);
    assert!(worker.idle(peer).is_none(), "it stays so");
    assert!(!is_closed(&mut socket).await);
    drop(client);
    assert!(is_closed(&mut socket).await, "it ends with its client");
    // Without a client that could have it, it is closed.
    let mut connection = worker.checkout(peer).await;
    connection.bind(None);
    worker.exchange(connection, KEPT);
    assert!(worker.idle(peer).is_none());
}

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
    let addresses: [IpAddr; 2] = [&one, &two].map(|listener| listener.local_addr().unwrap().ip());
    let found = Arc::new(Mutex::new(addresses.to_vec()));
    let lookup: Arc<Lookup> = {
        let found = Arc::clone(&found);
        Arc::new(move |_name| {
            let found = lock(&found).clone();
            Box::pin(async move { Ok(found) })
        })
    };
    let worker = Worker::with_names(100, LIMIT, lookup);
    let origin = BackendUrl::parse(format!("http://a.test:{port}").as_bytes()).unwrap().origin;
    let peer = peer(&origin);
    let address =
        |connection: &mut PooledConnection| connection.connection().reached.address.unwrap();

    let mut previous = None;
    let mut reused = Vec::new();
    for _ in 0..6 {
        let mut connection = worker.checkout(peer).await;
        assert_ne!(Some(address(&mut connection)), previous, "the other one's turn");
        previous = Some(address(&mut connection));
        reused.push(connection.attempt().is_reused);
        worker.exchange(connection, KEPT);
    }
    assert_eq!(reused, [false, false, true, true, true, true]);

    // One of them goes, with a connection unused and another one in use.
    let (mut first, _) = one.accept().await.unwrap();
    let mut busy = [worker.checkout(peer).await, worker.checkout(peer).await];
    assert_eq!(busy.iter_mut().map(address).collect::<BTreeSet<_>>().len(), 2);
    for connection in [worker.checkout(peer).await, worker.checkout(peer).await] {
        worker.exchange(connection, KEPT);
    }
    let (mut second, _) = one.accept().await.unwrap();
    *lock(&found) = vec![addresses[1]];
    worker.pass(Duration::from_secs(6)).await;
    worker.pools.sweep(0);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    worker.pools.sweep(0);
    assert_eq!(second.read(&mut [0; 1]).await.unwrap(), 0, "the unused one is closed");
    for connection in busy {
        worker.exchange(connection, KEPT);
    }
    assert_eq!(first.read(&mut [0; 1]).await.unwrap(), 0, "and the other one after its use");
    for _ in 0..4 {
        let mut connection = worker.checkout(peer).await;
        assert_eq!(address(&mut connection), addresses[1]);
        worker.exchange(connection, KEPT);
    }
}
