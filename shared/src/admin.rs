//! The server behind an admin listener: small questions of monitors, answered from memory. Whom it
//! serves, how long and how many at a time is bounded, so that it never costs the program anything;
//! silent connections give way, so that they cannot keep a monitor out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tracing::debug;

use crate::accept::Incoming as Connections;
use crate::time_limit::{self, Timer};

mod hosts;

pub use hosts::{Hosts, NameError};

/// The type of what prometheus-client writes.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The type of JSON.
pub const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// What one listener may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time: monitors, not traffic. Beyond them the oldest one that has not asked yet
    /// gives way to a new one, or the oldest of all.
    pub connections: usize,
    /// Time for one connection, which is one request: to ask and to take the answer.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 64, time: Duration::from_secs(10) }
    }
}

/// One connection.
struct Served {
    task: JoinHandle<()>,
    /// Its request was read.
    has_asked: Arc<AtomicBool>,
}

/// Connections in the order in which they came.
#[derive(Default)]
struct Slots(VecDeque<Served>);

impl Slots {
    /// Ends connections until there is room for one more of `most`, and waits until their descriptors are free:
    /// at no time are there more, however quickly they come.
    async fn make_room(&mut self, most: usize) {
        self.0.retain(|served| !served.task.is_finished());
        while self.0.len() >= most.max(1) {
            let silent = |served: &Served| !served.has_asked.load(Ordering::Relaxed);
            let oldest = self.0.iter().position(silent).unwrap_or(0);
            let Some(served) = self.0.remove(oldest) else { return };
            served.task.abort();
            let _aborted = served.task.await;
            debug!("admin connection closed: others wait, and it was the oldest without a request");
        }
    }
}

/// Serves `socket` for ever with what `answer` makes of the path and query of a GET. `hosts` are the names
/// under which everything but `/livez` and `/readyz` is asked for.
///
/// # Errors
///
/// When the socket cannot be used; it has to be non-blocking.
pub async fn serve(
    socket: std::net::TcpListener,
    limits: Limits,
    hosts: Hosts,
    answer: impl Fn(&Uri) -> Response<Full<Bytes>> + Send + Sync + 'static,
) -> io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    let answer = move |request: &Request<Incoming>| respond(request, &hosts, &answer);
    let answer = Arc::new(answer);
    let mut slots = Slots::default();
    let mut connections = Connections::new(&listener);
    loop {
        let (stream, peer) = connections.next().await;
        slots.make_room(limits.connections).await;
        let answer = Arc::clone(&answer);
        let has_asked = Arc::<AtomicBool>::default();
        let asked = Arc::clone(&has_asked);
        let task = tokio::spawn(async move {
            let answer = |request: &Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                answer(request)
            };
            let served = serve_connection(stream, limits.time, answer);
            match time_limit::timeout(limits.time, served).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(client.addr = %peer, %error, "admin request failed"),
                Err(_elapsed) => debug!(client.addr = %peer, "admin request took too long"),
            }
        });
        slots.0.push_back(Served { task, has_asked });
    }
}

/// Whether this path is answered whatever its `Host` is: those that say "ok" or "not ready", and that checks
/// of every kind ask for.
fn is_public(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

fn respond(
    request: &Request<Incoming>,
    hosts: &Hosts,
    answer: &impl Fn(&Uri) -> Response<Full<Bytes>>,
) -> Response<Full<Bytes>> {
    let uri = request.uri();
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
    }
    if !is_public(uri.path()) && !hosts.allow(uri, request.headers()) {
        return text(StatusCode::FORBIDDEN, hosts.refusal());
    }
    answer(uri)
}

async fn serve_connection(
    stream: TcpStream,
    time: Duration,
    answer: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>>,
) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(Timer)
        .header_read_timeout(time)
        // A monitor that comes every few seconds saves nothing by staying.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// An answer in plain text.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(status, TEXT, body)
}

/// An answer of this media type.
pub fn typed(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use bytes::Bytes;
    use http::StatusCode;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::{Hosts, Limits, serve, text};

    fn start(limits: Limits, body: Bytes) -> SocketAddr {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let hosts = Hosts::new(Vec::new(), "server.adminHosts");
        drop(tokio::spawn(serve(socket, limits, hosts, move |uri| match uri.path() {
            "/ask" => text(StatusCode::OK, format!("{:?}\n", uri.query())),
            _ => text(StatusCode::NOT_FOUND, body.clone()),
        })));
        address
    }

    /// All that comes until the other side closes, or `None` when it does not.
    async fn read(stream: &mut TcpStream) -> Option<String> {
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        // What is reset after the answer was closed as well.
        let _result = tokio::time::timeout(Duration::from_secs(20), read).await.ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    async fn ask(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{head}\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        read(&mut stream).await.expect("closed after the answer")
    }

    #[tokio::test]
    async fn questions_are_answered_one_for_a_connection() {
        let address = start(Limits::default(), "none".into());
        for (head, status, end) in [
            ("GET /ask?a=1 HTTP/1.1", "200", "Some(\"a=1\")\n"),
            ("HEAD /ask?a=1 HTTP/1.1", "200", "\r\n\r\n"),
            ("GET /else HTTP/1.1", "404", "none"),
            ("POST /ask HTTP/1.1", "405", "only GET and HEAD are answered here\n"),
        ] {
            let answer = ask(address, head).await;
            let start = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&start) && answer.ends_with(end), "{head}: {answer}");
        }
    }

    #[tokio::test]
    async fn who_says_nothing_or_takes_nothing_is_cut_off() {
        let limits = Limits { time: Duration::from_millis(50), ..Limits::default() };
        let large = Bytes::from(vec![b'x'; 32 << 20]);
        let address = start(limits, large.clone());
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert_eq!(read(&mut silent).await.as_deref(), Some(""));

        let mut deaf = TcpStream::connect(address).await.unwrap();
        deaf.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        // Written only into the buffers of the system; the rest is never sent.
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert_eq!(read(&mut silent).await.as_deref(), Some(""));
        let answer = read(&mut deaf).await.expect("cut off");
        assert!(answer.len() < large.len(), "all of it came");
    }

    #[tokio::test]
    async fn silent_connection_gives_way_oldest_first() {
        let limits = Limits { connections: 2, time: Duration::from_secs(600) };
        let address = start(limits, Bytes::new());
        let mut open = Vec::new();
        for _ in 0..4 {
            open.push(TcpStream::connect(address).await.unwrap());
        }
        // Accepted in the order in which they came: the third closes the first, the fourth the second.
        for silent in &mut open[..2] {
            assert_eq!(read(silent).await.as_deref(), Some(""));
        }
        for stays in &mut open[2..] {
            stays.write_all(b"GET /ask HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            assert!(read(stays).await.is_some_and(|answer| answer.ends_with("None\n")));
        }
    }

    /// A client that asks and takes nothing does not keep its slot, either; one that began later goes first
    /// if it is silent.
    #[tokio::test]
    async fn connection_that_takes_nothing_gives_way_after_the_silent_ones() {
        let limits = Limits { connections: 2, time: Duration::from_secs(600) };
        let large = Bytes::from(vec![b'x'; 32 << 20]);
        let address = start(limits, large.clone());
        let mut deaf = TcpStream::connect(address).await.unwrap();
        deaf.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut begun = [0; 1];
        deaf.read_exact(&mut begun).await.unwrap();
        let mut silent = TcpStream::connect(address).await.unwrap();
        for _ in 0..5 {
            assert!(ask(address, "GET /ask HTTP/1.1").await.ends_with("None\n"));
        }
        assert_eq!(read(&mut silent).await.as_deref(), Some(""));
        // Two more that stay, and the deaf one is the oldest of all.
        let _newer = TcpStream::connect(address).await.unwrap();
        let mut others = Vec::new();
        for _ in 0..2 {
            let mut other = TcpStream::connect(address).await.unwrap();
            other.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            other.read_exact(&mut begun).await.unwrap();
            others.push(other);
        }
        let answer = read(&mut deaf).await.expect("cut off");
        assert!(answer.len() < large.len(), "all of it came");
    }

    #[tokio::test]
    async fn strange_host_is_refused_but_for_life_and_readiness() {
        let address = start(Limits::default(), "none".into());
        for (path, host, status) in [
            ("/ask", "a.example.com", "403"),
            ("/else", "a.example.com", "403"),
            ("/ask", "127.0.0.1:1", "200"),
            ("/livez", "a.example.com", "404"),
            ("/readyz", "a.example.com", "404"),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = read(&mut stream).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {host}: {answer}");
            assert_eq!(answer.contains("server.adminHosts"), status == "403", "{answer}");
        }
    }
}
