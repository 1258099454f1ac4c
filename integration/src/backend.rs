//! Backends on raw sockets that record every byte they are sent and answer as a test tells them.
//!
//! A backend counts what a proxy may not lie about: connections accepted and open, requests, bytes.
//! What it answers is a closure over an [`Exchange`]; the common answers have a constructor each.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::time::Instant;

use crate::eventually::DEADLINE;
use crate::gate::Gate;
use crate::ports::Reserved;
use crate::wire::{Body, Conn, Framing, Head};

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// It ends.
    Close,
    /// It waits for the next request.
    KeepAlive,
    /// It ends with a TCP reset.
    Reset,
}

/// A request as the backend saw it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Start line and headers.
    pub head: Head,
    /// The body, once it was read.
    pub body: Option<Body>,
    /// On which connection it came, counted from 0 in the order of acceptance.
    pub connection: usize,
}

type Behaviour = dyn Fn(&mut Exchange<'_>) -> io::Result<Next> + Send + Sync;

/// A listening backend; ends with the value.
pub struct Backend {
    name: String,
    port: Arc<Reserved>,
    shared: Arc<Shared>,
    listener: Mutex<Option<Listening>>,
}

struct Listening {
    stopped: Arc<AtomicBool>,
    socket: TcpListener,
    thread: JoinHandle<()>,
}

struct Shared {
    behaviour: Mutex<Arc<Behaviour>>,
    log: Mutex<Log>,
    changed: Condvar,
}

#[derive(Default)]
struct Log {
    requests: Vec<Request>,
    accepted: usize,
    open: HashMap<usize, TcpStream>,
    most_open: usize,
    failures: Vec<String>,
}

impl Backend {
    /// Answers everything with 200 and its own name as the body, keeping connections open.
    pub fn start(name: &str) -> Self {
        let body = name.to_owned();
        Self::with(name, move |exchange| {
            exchange.read_body()?;
            exchange.respond(200, &[], body.as_bytes())?;
            Ok(Next::KeepAlive)
        })
    }

    /// Answers as the closure does, which is called once a request with its head read and its body
    /// not.
    pub fn with(
        name: &str,
        behaviour: impl Fn(&mut Exchange<'_>) -> io::Result<Next> + Send + Sync + 'static,
    ) -> Self {
        Self::on(Reserved::new(), name, behaviour)
    }

    /// The same on a port reserved before.
    pub fn on(
        port: Reserved,
        name: &str,
        behaviour: impl Fn(&mut Exchange<'_>) -> io::Result<Next> + Send + Sync + 'static,
    ) -> Self {
        let backend = Self {
            name: name.to_owned(),
            port: Arc::new(port),
            shared: Arc::new(Shared {
                behaviour: Mutex::new(Arc::new(behaviour)),
                log: Mutex::default(),
                changed: Condvar::new(),
            }),
            listener: Mutex::new(None),
        };
        backend.revive();
        backend
    }

    /// Answers every request with exactly these bytes and keeps the connection.
    pub fn answering(name: &str, raw: impl Into<Vec<u8>>) -> Self {
        let raw = raw.into();
        Self::with(name, move |exchange| {
            exchange.read_body()?;
            exchange.send(&raw)?;
            Ok(Next::KeepAlive)
        })
    }

    /// Answers every request with exactly these bytes and closes.
    pub fn answering_once(name: &str, raw: impl Into<Vec<u8>>) -> Self {
        let raw = raw.into();
        Self::with(name, move |exchange| {
            exchange.read_body()?;
            exchange.send(&raw)?;
            Ok(Next::Close)
        })
    }

    /// Answers with a status and the own name as the body.
    pub fn status(name: &str, status: u16, headers: &[(&str, &str)]) -> Self {
        let body = name.to_owned();
        let headers = owned(headers);
        Self::with(name, move |exchange| {
            exchange.read_body()?;
            exchange.respond(status, &borrowed(&headers), body.as_bytes())?;
            Ok(Next::KeepAlive)
        })
    }

    /// Reads every request and closes without an answer.
    pub fn closing(name: &str) -> Self {
        Self::with(name, |exchange| {
            exchange.read_body()?;
            Ok(Next::Close)
        })
    }

    /// Reads every request's head and resets the connection.
    pub fn resetting(name: &str) -> Self {
        Self::with(name, |_| Ok(Next::Reset))
    }

    /// Takes every request and never answers; its connections end when the other side ends them.
    pub fn hanging(name: &str) -> Self {
        Self::with(name, |exchange| {
            exchange.conn.set_limit(None);
            exchange.conn.read_to_end()?;
            Ok(Next::Close)
        })
    }

    /// Answers with 200 and its name, each time only after a pass through the gate.
    pub fn gated(name: &str, gate: &Gate) -> Self {
        let (gate, body) = (gate.clone(), name.to_owned());
        Self::with(name, move |exchange| {
            exchange.read_body()?;
            gate.wait()?;
            exchange.respond(200, &[], body.as_bytes())?;
            Ok(Next::KeepAlive)
        })
    }

    /// Sends a chunked request body back chunk by chunk, each as soon as it came, trailers
    /// included.
    pub fn echoing(name: &str) -> Self {
        Self::with(name, |exchange| {
            exchange
                .send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n")?;
            let mut raw = Vec::new();
            while exchange.conn.read_chunk(&mut raw)?.is_some() {
                exchange.send(&std::mem::take(&mut raw))?;
            }
            loop {
                let line = exchange.conn.read_line()?;
                raw.extend_from_slice(line.as_bytes());
                raw.extend_from_slice(b"\r\n");
                if line.is_empty() {
                    break;
                }
            }
            exchange.send(&raw)?;
            Ok(Next::KeepAlive)
        })
    }

    /// Accepts any `Upgrade`, then sends every byte back; when the other side ends its direction,
    /// says `bye` and ends too. The bytes that came are the recorded body, complete when the end
    /// was seen.
    pub fn upgrading(name: &str) -> Self {
        Self::with(name, |exchange| {
            exchange.accept_upgrade()?;
            exchange.conn.set_limit(None);
            let mut body = Body::default();
            loop {
                let bytes = exchange.conn.read_some();
                let ended = bytes.as_ref().map_or(true, Vec::is_empty);
                body.data.extend_from_slice(bytes.as_deref().unwrap_or_default());
                body.complete = ended && bytes.is_ok();
                exchange.record(body.clone());
                if ended {
                    exchange.send(b"bye")?;
                    return Ok(Next::Close);
                }
                exchange.send(&bytes?)?;
            }
        })
    }

    /// Changes the answers from the next request on.
    pub fn become_like(
        &self,
        behaviour: impl Fn(&mut Exchange<'_>) -> io::Result<Next> + Send + Sync + 'static,
    ) {
        *self.shared.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(behaviour);
    }

    /// The name that the default answers carry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// `http://127.0.0.1:<port>`, as people write it into Redis.
    pub fn url(&self) -> String {
        self.port.url()
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.log().requests.clone()
    }

    /// How many requests came so far.
    pub fn request_count(&self) -> usize {
        self.log().requests.len()
    }

    /// The only request so far.
    #[track_caller]
    pub fn only_request(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{} expected one request: {requests:#?}", self.name);
        requests.into_iter().next().expect("counted")
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.log().accepted
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.log().open.len()
    }

    /// The most connections that were open at one time.
    pub fn most_open_connections(&self) -> usize {
        self.log().most_open
    }

    /// Waits until that many requests came.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize) -> Vec<Request> {
        self.wait(&format!("{count} requests"), |log| log.requests.len() >= count);
        self.requests()
    }

    /// Waits until exactly that many connections are open.
    #[track_caller]
    pub fn wait_for_open(&self, count: usize) {
        self.wait(&format!("{count} open connections"), |log| log.open.len() == count);
    }

    /// Waits until request `index` has its whole body.
    #[track_caller]
    pub fn wait_for_body(&self, index: usize) -> Body {
        self.wait(&format!("the body of request {index}"), |log| {
            log.requests
                .get(index)
                .is_some_and(|request| request.body.as_ref().is_some_and(|body| body.complete))
        });
        self.requests()[index].body.clone().expect("waited for")
    }

    /// Ends every connection, not the listener.
    pub fn drop_connections(&self) {
        for stream in self.log().open.values() {
            // An error means that the connection has ended already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Stops listening and ends every connection; the port refuses until [`revive`](Self::revive).
    pub fn kill(&self) {
        let listening = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Listening { stopped, socket, thread }) = listening {
            stopped.store(true, Ordering::SeqCst);
            // Shutting a listening socket down wakes its accept.
            socket2::SockRef::from(&socket).shutdown(Shutdown::Both).expect("listener shuts down");
            thread.join().expect("the accept loop does not panic");
        }
        self.drop_connections();
    }

    /// Listens again on the same port.
    pub fn revive(&self) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if listener.is_some() {
            return;
        }
        let socket = self.port.listen();
        let stopped = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let socket = socket.try_clone().expect("a second handle");
            let (stopped, shared) = (Arc::clone(&stopped), Arc::clone(&self.shared));
            move || accept(&socket, &stopped, &shared)
        });
        *listener = Some(Listening { stopped, socket, thread });
    }

    #[track_caller]
    fn wait(&self, what: &str, condition: impl Fn(&Log) -> bool) {
        let end = Instant::now() + DEADLINE;
        let mut log = self.log();
        while !condition(&log) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "backend {} did not see {what}; it has {} requests and {} open of {} connections",
                self.name,
                log.requests.len(),
                log.open.len(),
                log.accepted
            );
            log = self
                .shared
                .changed
                .wait_timeout(log, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.shared.log()
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Backend")
            .field("name", &self.name)
            .field("url", &self.url())
            .finish()
    }
}

impl From<&Backend> for demo::marathon::Place {
    fn from(backend: &Backend) -> Self {
        Self::new("127.0.0.1", vec![backend.port()])
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
        // A closure that panicked means a failed assertion: the test has to know.
        let failures = std::mem::take(&mut self.log().failures);
        if !std::thread::panicking() {
            assert!(failures.is_empty(), "backend {} failed: {failures:?}", self.name);
        }
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let result = change(&mut self.log());
        self.changed.notify_all();
        result
    }
}

fn accept(socket: &TcpListener, stopped: &AtomicBool, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = socket.accept() {
        if stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(handle) = stream.try_clone() else {
            return;
        };
        let number = shared.change(|log| {
            log.accepted += 1;
            log.open.insert(log.accepted - 1, handle);
            log.most_open = log.most_open.max(log.open.len());
            log.accepted - 1
        });
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let served = catch_unwind(AssertUnwindSafe(|| serve(stream, number, &shared)));
            shared.change(|log| {
                if let Err(panic) = served {
                    log.failures.push(reason(panic.as_ref()));
                }
                log.open.remove(&number);
            });
        });
    }
}

/// Serves one connection to its end. Errors end it: the peer went away, which the test sees from
/// the other side.
fn serve(stream: TcpStream, number: usize, shared: &Shared) {
    let mut conn = Conn::new(stream);
    // An idle connection waits as long as the router keeps it.
    conn.set_limit(None);
    let mut nth = 0;
    while let Ok(Some(head)) = conn.read_head() {
        let index = shared.change(|log| {
            log.requests.push(Request { head: head.clone(), body: None, connection: number });
            log.requests.len() - 1
        });
        let behaviour =
            Arc::clone(&shared.behaviour.lock().unwrap_or_else(PoisonError::into_inner));
        conn.set_limit(Some(DEADLINE));
        let mut exchange =
            Exchange { conn: &mut conn, head, connection: number, nth, index, shared };
        match behaviour(&mut exchange) {
            Ok(Next::KeepAlive) => {}
            Ok(Next::Close) | Err(_) => break,
            Ok(Next::Reset) => {
                // The log keeps a second handle to the socket, and only the last one to close
                // resets.
                shared.change(|log| log.open.remove(&number));
                conn.reset();
                return;
            }
        }
        conn.set_limit(None);
        nth += 1;
    }
    // The same second handle would keep the connection open; half of it may still be wanted by
    // nobody.
    drop(conn.stream().shutdown(Shutdown::Both));
}

/// One request and the connection that it came on.
pub struct Exchange<'a> {
    /// The connection, for bytes that no method covers.
    pub conn: &'a mut Conn,
    /// The request's head.
    pub head: Head,
    /// Number of the connection, from 0.
    pub connection: usize,
    /// Number of the request on its connection, from 0.
    pub nth: usize,
    index: usize,
    shared: &'a Shared,
}

impl Exchange<'_> {
    /// Reads the request's body and records it.
    pub fn read_body(&mut self) -> io::Result<Body> {
        let framing = self.head.request_framing()?;
        let body = self.conn.read_body(framing)?;
        self.record(body.clone());
        if body.complete { Ok(body) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Records what was read of the body by other means.
    pub fn record(&self, body: Body) {
        self.shared.change(|log| log.requests[self.index].body = Some(body));
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.conn.send(bytes)
    }

    /// Sends a response with a `Content-Length`; without the body when the request is a `HEAD`.
    pub fn respond(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<()> {
        let mut raw = format!("HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            raw.push_str(&format!("{name}: {value}\r\n"));
        }
        raw.push_str("\r\n");
        let mut raw = raw.into_bytes();
        if self.head.method() != "HEAD" {
            raw.extend_from_slice(body);
        }
        self.send(&raw)
    }

    /// Sends `101 Switching Protocols` to whatever protocol was asked for.
    pub fn accept_upgrade(&mut self) -> io::Result<()> {
        let protocol = self.head.header("upgrade").unwrap_or("none").to_owned();
        let accept = self.head.header("sec-websocket-key").map_or_else(String::new, |key| {
            format!("Sec-WebSocket-Accept: {}\r\n", crate::websocket::accept(key))
        });
        self.send(
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{accept}\r\n"
            )
            .as_bytes(),
        )
    }

    /// How the body of this request ends.
    pub fn framing(&self) -> Framing {
        self.head.request_framing().unwrap_or(Framing::Length(0))
    }
}

impl fmt::Debug for Exchange<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Exchange").field("head", &self.head).finish_non_exhaustive()
    }
}

fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn borrowed(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn reason(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "unknown panic".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    fn client(backend: &Backend) -> Client {
        Client::connect(([127, 0, 0, 1], backend.port()).into())
    }

    #[test]
    fn answers_with_its_name_and_records_the_bytes() {
        let backend = Backend::start("b");
        let mut client = client(&backend);
        let raw = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
        client.send(raw).send("abc");
        assert_eq!(client.response().text(), "b");
        assert_eq!(client.get("a", "/").text(), "b");
        let requests = backend.requests();
        assert_eq!(requests[0].head.raw, raw.as_bytes());
        assert_eq!(requests[0].body.as_ref().unwrap().data, b"abc");
        assert_eq!((backend.connections(), requests[1].connection), (1, 0));
    }

    #[test]
    fn dies_and_comes_back_on_its_port() {
        let backend = Backend::start("b");
        let mut first = client(&backend);
        first.get("a", "/");
        backend.kill();
        assert!(first.is_closed());
        assert!(TcpStream::connect(("127.0.0.1", backend.port())).is_err());
        backend.revive();
        assert_eq!(client(&backend).get("a", "/").status(), 200);
    }

    #[test]
    fn a_reset_is_a_reset() {
        let backend = Backend::resetting("b");
        let mut client = client(&backend);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let error = client.conn().read_head().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    #[should_panic(expected = "two is not three")]
    fn a_failed_assertion_in_a_backend_fails_the_test() {
        let backend = Backend::with("b", |_| panic!("two is not three"));
        let mut client = client(&backend);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.is_closed());
        backend.wait_for_open(0);
    }
}
