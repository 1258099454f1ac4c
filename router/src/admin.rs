//! The admin listener: is the router alive, is it ready, what has it counted. Read only; listens
//! on an address of its own, and only where it is told to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::debug;

use crate::listen::accept_loop;
use crate::metrics::{Metrics, StandIn, State};

/// Connections served at a time: monitors, not traffic.
const MAX_CONNECTIONS: usize = 64;
/// Time for a request head, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The text format of prometheus-client.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is told.
#[derive(Debug)]
pub struct Admin {
    /// Counted by the workers.
    pub metrics: Metrics,
    /// The rest.
    pub state: Arc<dyn State>,
    /// Set when the router is about to end.
    pub is_draining: AtomicBool,
}

/// Serves `admin` on `socket` for ever.
///
/// # Errors
///
/// When the socket cannot be used.
pub async fn serve(socket: std::net::TcpListener, admin: Arc<Admin>) -> std::io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    accept_loop(&listener, |stream, peer| {
        // More than that is no monitoring; such connections are closed at once.
        if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            let admin = Arc::clone(&admin);
            drop(tokio::spawn(async move {
                serve_connection(stream, peer, admin).await;
                drop(slot);
            }));
        }
    })
    .await;
    Ok(())
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, admin: Arc<Admin>) {
    let service = service_fn(move |request| {
        let answer = admin.answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = http.await {
        debug!(client.addr = %peer, %error, "admin connection ended");
    }
}

impl Admin {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/metrics" => {
                let mut response = text(StatusCode::OK, self.metrics.text());
                let kind = HeaderValue::from_static(METRICS_TYPE);
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            "/readyz" => self.readiness(),
            _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n"),
        }
    }

    /// Ready is who can route any host: with Redis away only hosts in memory can be. But whoever
    /// set up a snapshot wants a start without Redis to serve what it can, and nobody sends
    /// requests to a router that is not ready.
    fn readiness(&self) -> Response<Full<Bytes>> {
        let (redis_is_up, _) = self.state.redis_is_up();
        if self.is_draining.load(Ordering::Relaxed) {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        } else if redis_is_up {
            text(StatusCode::OK, "ok\n")
        } else if let Some(StandIn { hosts, age }) = self.state.stand_in() {
            let seconds = age.as_secs();
            let reason = format!(
                "Redis has not answered since the start; {hosts} hosts are served from a snapshot \
                 {seconds} s old\n"
            );
            text(StatusCode::OK, reason)
        } else {
            let routes = self.state.routes();
            let reason = format!("Redis is not reachable; {routes} hosts are served from memory\n");
            text(StatusCode::SERVICE_UNAVAILABLE, reason)
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
