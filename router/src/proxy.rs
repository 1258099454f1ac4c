//! One request, from top to bottom: [`answer`] is its way.
//!
//! Runs in the task of the client's connection. Decisions are made by the pure modules [`crate::http1`],
//! [`crate::message`], [`crate::route`], [`error`] and [`retry`]; the phases put them in order.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use ipnet::IpNet;

use crate::access_log::Sink;
use crate::buffers::Buffers;
use crate::client_io::ClientIo;
use crate::clock::Clock;
use crate::connection::{Connection, Connections};
use crate::dead_marks::DeadMarks;
use crate::host_failures::HostFailures;
use crate::http1::error::RequestError;
use crate::http1::server::{self, Accepted};
use crate::limits::Limits;
use crate::message::client_info::{ClientInfo, Style, Trust};
use crate::metrics::Counters;
use crate::passwords::Passwords;
use crate::pool::{BoundConnection, Pools};
use crate::route::Route;
use crate::route::sticky::StickyKey;
use crate::seldom::Seldom;
use crate::table::Table;
use crate::tls::Session;

mod accept;
mod balance;
pub mod context;
pub mod date;
mod download;
pub mod error;
mod exchange;
mod flow;
mod host_options;
mod look_up;
mod marks;
mod own_response;
pub mod pages;
mod respond;
pub mod retry;
pub mod serve;
pub mod tunnel;
mod upload;
mod watch;
mod work;

use context::RequestContext;
use date::Dates;
use error::ProxyError;
use pages::Pages;
use respond::Finished;
pub use serve::{Ended, serve};
use tunnel::Tunnels;
pub use work::FreeWork;

/// Answers one request, of which the head is in `cx`, or why it could not be read.
async fn answer(
    io: &mut ClientIo,
    state: &mut server::Connection,
    cx: &mut RequestContext<'_>,
    head: Result<Accepted, RequestError>,
) -> Finished {
    let result = match head {
        Ok(_) => forward(io, state, cx).await,
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(finished) => finished,
        Err(error) => own_response::refuse(io, state, cx, &error).await,
    }
}

/// The way of a request, phase by phase. Once its response has begun, nothing is an error any more.
async fn forward(
    io: &mut ClientIo,
    state: &mut server::Connection,
    cx: &mut RequestContext<'_>,
) -> Result<Finished, ProxyError> {
    let Some(lookup) = accept::accept(cx)? else {
        return Ok(own_response::pong(io, state, cx).await);
    };
    let route = look_up::look_up(io, cx, lookup).await?;
    host_options::enforce(io, cx, &route).await?;
    accept::limit_body(cx, state, &route)?;
    let response = balance::balance(io, state, cx, &route).await?;
    respond::respond(io, state, cx, &route, response).await
}

/// What may change while the router runs; a connection keeps what it began with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Silence after which a peer is given up.
    pub tcp_timeout: Option<Duration>,
    /// How often a request is tried again.
    pub retry_on_error: u32,
    /// How long a failed backend is left out.
    pub dead_backend_ttl: Duration,
    /// Whether connections to backends are used again.
    pub backend_keep_alive: bool,
    /// Whether an answer 500 marks dead while an external checker is alive.
    pub dead_backend_on_500: bool,
    /// Whether silence of a backend for `tcp_timeout` marks it dead.
    pub dead_backend_on_silence: bool,
    /// Silence after which a tunnel ends.
    pub tunnel_idle_timeout: Option<Duration>,
    /// Peers whose forwarded headers are believed.
    pub trusted_proxies: Option<Vec<IpNet>>,
    /// How backends are told of clients.
    pub style: Style,
    /// Whether requests get `X-Request-Id` and `traceparent`.
    pub request_ids: bool,
    /// What clients may make the router bear.
    pub limits: Limits,
}

impl Settings {
    /// Silence after which a peer is given up, for requests of this route.
    pub fn read_timeout(&self, route: &Route) -> Option<Duration> {
        match &route.options {
            Some(options) => options.read_timeout(self.tcp_timeout),
            None => self.tcp_timeout,
        }
    }

    /// What backends are told of a client.
    pub fn client_info(&self, peer: SocketAddr, local: SocketAddr, over_tls: bool) -> ClientInfo {
        let trust = match &self.trusted_proxies {
            None => Trust::Keep,
            Some(_) if self.is_trusted(peer.ip().to_canonical()) => Trust::Append,
            Some(_) => Trust::Overwrite,
        };
        ClientInfo::new(peer, local, over_tls, self.style, trust)
    }

    /// Whether this is the address of a proxy that carries the requests of others.
    pub fn is_trusted(&self, address: IpAddr) -> bool {
        let networks = self.trusted_proxies.as_deref().unwrap_or_default();
        networks.iter().any(|network| network.contains(&address))
    }
}

/// What all requests of one worker share.
#[derive(Debug)]
pub struct Shared {
    /// Routes.
    pub table: Arc<Table>,
    /// Connections to backends.
    pub pools: Pools,
    /// The client connections of the worker.
    pub connections: Arc<Connections>,
    /// Buffers for bytes under way.
    pub buffers: Buffers,
    /// What requests take while they are under way.
    pub work: FreeWork,
    /// The text of `Date`.
    pub dates: Dates,
    /// Hosts that are answered 502 or 504.
    pub failures: Arc<HostFailures>,
    /// Failures to be written down.
    pub marks: DeadMarks,
    /// Error pages.
    pub pages: Arc<Pages>,
    /// Time.
    pub clock: Arc<Clock>,
    /// Access log, if there is one.
    pub sink: Option<Arc<Sink>>,
    /// Upgraded connections.
    pub tunnels: Arc<Tunnels>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Checks passwords.
    pub passwords: Arc<Passwords>,
    /// What sticky cookies are made with.
    pub sticky_key: Arc<StickyKey>,
    /// Says that PROXY headers are refused.
    pub preface_refusals: Arc<Seldom>,
    /// Says that requests go round in circles.
    pub loop_reports: Seldom,
}

/// What all requests of one client connection share.
#[derive(Debug)]
pub struct Client {
    /// Of the worker.
    pub shared: Arc<Shared>,
    /// Settings at the time the client connected.
    pub settings: Arc<Settings>,
    /// The connection's state.
    pub connection: Arc<Connection>,
    /// What backends are told of the client.
    pub info: ClientInfo,
    /// What the TLS handshake agreed on, if there was one.
    pub tls: Option<Arc<Session>>,
    /// The backend connection that belongs to this client connection, once the client has logged in on one.
    pub bound: OnceLock<Arc<BoundConnection>>,
    /// How the client speaks.
    pub protocol: Protocol,
}

/// The protocol of a client.
#[derive(Debug)]
pub enum Protocol {
    /// HTTP/1. `may_begin_http2`: it may also begin with the preface of HTTP/2 (h2c).
    Http1 {
        /// See above.
        may_begin_http2: bool,
    },
    /// One request of many on a connection of HTTP/2, and why it is refused, if HTTP/2 itself forbids it.
    Http2 {
        /// See above.
        refusal: Box<Mutex<Option<ProxyError>>>,
    },
}

impl Client {
    /// A client that has connected just now; it is counted as long as its connection is one of HTTP.
    pub fn new(
        shared: &Arc<Shared>,
        settings: Arc<Settings>,
        connection: Arc<Connection>,
        info: ClientInfo,
        may_begin_http2: bool,
    ) -> Self {
        shared.counters.connections.add();
        Self {
            shared: Arc::clone(shared),
            settings,
            connection,
            info,
            tls: None,
            bound: OnceLock::new(),
            protocol: Protocol::Http1 { may_begin_http2 },
        }
    }

    /// The same client as one of many requests sees it that a connection of HTTP/2 carries.
    #[must_use]
    pub fn for_stream(&self, stream: Arc<Connection>, refusal: Option<ProxyError>) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            settings: Arc::clone(&self.settings),
            connection: stream,
            info: self.info,
            tls: self.tls.clone(),
            bound: OnceLock::new(),
            protocol: Protocol::Http2 { refusal: Box::new(Mutex::new(refusal)) },
        }
    }

    /// Whether the client speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.protocol, Protocol::Http2 { .. })
    }

    /// Whether the next response is the last one of this connection.
    fn is_last(&self) -> bool {
        let most = self.settings.limits.max_requests_per_connection;
        most.is_some_and(|most| self.connection.requests() >= most) || self.connection.is_draining()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.is_http2() {
            self.shared.counters.connections_ended.add();
        }
    }
}
