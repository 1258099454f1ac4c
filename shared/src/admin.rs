//! The server behind an admin listener: small questions of monitors, answered from memory. Whom it
//! serves, how long and how many at a time is bounded, so that it never costs the program anything.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
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
use tokio::sync::Semaphore;
use tracing::debug;

use crate::accept::accept_loop;
use crate::time_limit::{self, Timer};

/// The type of what prometheus-client writes.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The type of JSON.
pub const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// What one listener may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections served at a time: monitors, not traffic. Those beyond are closed at once.
    pub connections: usize,
    /// Time for one connection, which is one request: to ask and to take the answer.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 64, time: Duration::from_secs(10) }
    }
}

/// Serves `socket` for ever with what `answer` makes of the path and query of a GET.
///
/// # Errors
///
/// When the socket cannot be used; it has to be non-blocking.
pub async fn serve(
    socket: std::net::TcpListener,
    limits: Limits,
    answer: impl Fn(&Uri) -> Response<Full<Bytes>> + Send + Sync + 'static,
) -> io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    let slots = Arc::new(Semaphore::new(limits.connections));
    let answer = Arc::new(answer);
    accept_loop(&listener, |stream, peer| {
        if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            let answer = Arc::clone(&answer);
            drop(tokio::spawn(async move {
                let served = serve_connection(stream, limits.time, &*answer);
                match time_limit::timeout(limits.time, served).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => debug!(client.addr = %peer, %error, "admin request failed"),
                    Err(_elapsed) => debug!(client.addr = %peer, "admin request took too long"),
                }
                drop(slot);
            }));
        }
    })
    .await;
    Ok(())
}

async fn serve_connection(
    stream: TcpStream,
    time: Duration,
    answer: &impl Fn(&Uri) -> Response<Full<Bytes>>,
) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let response = match *request.method() {
            Method::GET | Method::HEAD => answer(request.uri()),
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n"),
        };
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

    use super::{Limits, serve, text};

    fn start(limits: Limits, body: Bytes) -> SocketAddr {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        drop(tokio::spawn(serve(socket, limits, move |uri| match uri.path() {
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
    async fn connections_beyond_the_limit_are_closed_at_once() {
        let limits = Limits { connections: 1, time: Duration::from_secs(600) };
        let address = start(limits, Bytes::new());
        let mut first = TcpStream::connect(address).await.unwrap();
        // Accepted in order: when the second one is closed, the first one has its slot.
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(read(&mut second).await.as_deref(), Some(""));
        first.write_all(b"GET /ask HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(read(&mut first).await.is_some_and(|answer| answer.ends_with("None\n")));
    }
}
