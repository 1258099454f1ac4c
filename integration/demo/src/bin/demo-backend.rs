//! A whoami backend: says which backend answered and what the request looked like when it arrived.
//!
//! `try.sh` and the `demo` profile of `compose.yaml` put two of them behind the router. It is a
//! demonstration, not a test double: the test harness has backends of its own that misbehave on
//! command, this one never does.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long requests may still run after SIGTERM. A whoami answer takes microseconds, so this only
/// bounds clients that send their request slowly; it stays below the 10 s after which container
/// engines kill.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Accepting can fail for a while, e.g. without free file descriptors; a pause avoids a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A small HTTP backend that answers with its name and the request as it received it
#[derive(Debug, Parser)]
#[command(name = "demo-backend", version)]
struct Args {
    /// Address to listen on; port 0 takes a free one, and the first line of output names it
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Name in the answer's first line and in its `x-backend` header
    #[arg(long, default_value = "demo")]
    name: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Args { listen, name } = Args::parse();
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let whoami = Arc::new(Whoami::new(name)?);

    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    announce(listener.local_addr()?).context("cannot write the address to standard output")?;

    let shutdown = CancellationToken::new();
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&whoami), shutdown.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }

    drop(listener);
    shutdown.cancel();
    connections.close();
    tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.ok();
    Ok(())
}

/// Prints the bound address as a line of its own: whoever started us with port 0 reads it.
fn announce(address: SocketAddr) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{address}")?;
    stdout.flush()
}

/// Serves one connection until the peer closes it or `shutdown` asks to finish.
async fn serve(stream: TcpStream, whoami: Arc<Whoami>, shutdown: CancellationToken) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let response = whoami.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    // An error means that the peer went away or sent no HTTP: nothing that a demo has to report.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.ok();
}

#[derive(Debug)]
struct Whoami {
    name: String,
    /// `name` once more, checked at the start to be a legal header value.
    header: HeaderValue,
}

impl Whoami {
    fn new(name: String) -> anyhow::Result<Self> {
        let header = HeaderValue::from_str(&name)
            .with_context(|| format!("--name {name:?} cannot be sent in a header"))?;
        Ok(Self { name, header })
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.describe(request)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(HeaderName::from_static("x-backend"), self.header.clone());
        response
    }

    /// The answer's text: name, request line, then one line a header, in the order of arrival.
    fn describe<B>(&self, request: &Request<B>) -> String {
        let mut text = format!(
            "backend {}\n{} {} {:?}\n",
            self.name,
            request.method(),
            request.uri(),
            request.version(),
        );
        for (name, value) in request.headers() {
            let value = String::from_utf8_lossy(value.as_bytes());
            writeln!(text, "{name}: {value}").expect("writing to a String cannot fail");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_names_the_backend_the_request_line_and_every_header() {
        let whoami = Whoami::new("one".to_owned()).unwrap();
        let request = Request::builder()
            .method("POST")
            .uri("/a?b=c")
            .header("host", "demo.localhost")
            .header("x-twice", "1")
            .header("x-twice", "2")
            .body(())
            .unwrap();

        assert_eq!(
            whoami.describe(&request),
            "backend one\nPOST /a?b=c HTTP/1.1\nhost: demo.localhost\nx-twice: 1\nx-twice: 2\n"
        );
        assert_eq!(whoami.answer(&request).headers()["x-backend"], "one");
    }

    #[test]
    fn name_that_is_no_header_value_is_refused() {
        assert!(Whoami::new("a\nb".to_owned()).is_err());
    }
}
