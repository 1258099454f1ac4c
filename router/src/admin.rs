//! The admin listener: is the router alive, is it ready, what has it counted. Read only; listens
//! on an address of its own, and only where it is told to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Response, StatusCode, Uri};
use http_body_util::Full;
use shared::admin::{Hosts, Limits, OPEN_METRICS, text, typed};

use crate::metrics::{Metrics, StandIn, State};

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

/// Serves `admin` on `socket` for ever, to at most `connections` at a time; `hosts` are its further names.
///
/// # Errors
///
/// When the socket cannot be used.
pub async fn serve(
    socket: std::net::TcpListener,
    admin: Arc<Admin>,
    connections: usize,
    hosts: Vec<String>,
) -> io::Result<()> {
    let limits = Limits { connections, ..Limits::default() };
    let hosts = Hosts::new(hosts, "server.adminHosts (--admin-hosts)");
    shared::admin::serve(socket, limits, hosts, move |uri| admin.answer(uri)).await
}

impl Admin {
    fn answer(&self, uri: &Uri) -> Response<Full<Bytes>> {
        match uri.path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/metrics" => typed(StatusCode::OK, OPEN_METRICS, self.metrics.text()),
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
        } else if let (true, Some((hosts, left))) = (redis_is_up, self.state.held()) {
            let reason = format!(
                "ok; Redis came back empty, {hosts} hosts are served from their last known routes for \
                 {} s at most\n",
                left.as_secs()
            );
            text(StatusCode::OK, reason)
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
            let outage = self.state.outage();
            let reason = format!("{outage}; {routes} hosts are served from memory\n");
            text(StatusCode::SERVICE_UNAVAILABLE, reason)
        }
    }
}
