//! A server for tests that sends exactly the bytes it is told to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// What a server does with a connection after it has read the head of a request.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Writes and flushes.
    Send(Vec<u8>),
    /// Writes a byte now and then until the client goes away.
    Drip,
    /// Keeps the connection open and does nothing until the client goes away.
    Hang,
}

/// A request as it came: head and body.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) text: String,
    /// How many requests came before it.
    pub(super) number: usize,
}

impl Request {
    /// Path and query.
    pub(super) fn target(&self) -> &str {
        self.text.split(' ').nth(1).unwrap()
    }

    /// Every value of a header.
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        let lines = self.text.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    /// The `Authorization` header.
    pub(super) fn authorization(&self) -> Option<&str> {
        self.values("authorization").first().copied()
    }
}

/// Answers each connection's one request. Ends with the test.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) host: String,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(
        answer: impl Fn(&Request) -> Vec<Step> + Clone + Send + 'static,
    ) -> Self {
        Self::start_tls(None, answer).await
    }

    pub(super) async fn start_tls(
        tls: Option<ServerConfig>,
        answer: impl Fn(&Request) -> Vec<Step> + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer, tls) = (Arc::clone(&seen), answer.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &seen, answer).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &seen, answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self { host, requests, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    /// Ends it and returns once nobody listens any more.
    pub(super) async fn stop(mut self) {
        self.task.abort();
        drop((&mut self.task).await);
    }

    /// How many requests begin with `start`.
    pub(super) fn count(&self, start: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|r| r.text.starts_with(start)).count()
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client that goes away ends this; that is its right.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Vec<Request>>,
    answer: impl Fn(&Request) -> Vec<Step>,
) {
    let mut bytes = Vec::new();
    while !is_complete(&bytes) {
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let request = {
        let mut seen = seen.lock().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let request = Request { text, number: seen.len() };
        seen.push(request.clone());
        request
    };
    for step in answer(&request) {
        let is_alive = match step {
            Step::Send(bytes) => {
                stream.write_all(&bytes).await.is_ok() && stream.flush().await.is_ok()
            }
            Step::Drip => loop {
                let has_left = timeout(Duration::from_millis(5), stream.read_u8()).await.is_ok();
                if has_left || stream.write_all(b" ").await.is_err() {
                    break false;
                }
            },
            Step::Hang => stream.read_u8().await.is_ok(),
        };
        if !is_alive {
            return;
        }
    }
    // Says goodbye in TLS too.
    drop(stream.shutdown().await);
}

fn is_complete(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")
            .map(|n| n.parse::<usize>().unwrap())
    });
    body.len() >= length.unwrap_or(0)
}

/// A whole answer. `headers` are lines, each with its end.
pub(super) fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<Step> {
    let body = body.as_ref();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    vec![Step::Send([head.as_bytes(), body].concat())]
}

pub(super) fn json(body: &str) -> Vec<Step> {
    answer("200 OK", "Content-Type: application/json; qs=2\r\n", body)
}

pub(super) fn redirect(to: &str) -> Vec<Step> {
    answer("302 Found", &format!("Location: {to}\r\n"), "")
}

/// An answer to which nothing belongs but these bytes.
pub(super) fn raw(text: &str) -> Vec<Step> {
    vec![Step::Send(text.as_bytes().to_vec())]
}
