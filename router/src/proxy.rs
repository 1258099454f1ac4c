//! One request, from top to bottom: admit, route, choose, send, respond, record.
//!
//! Runs in the task of the client's connection. Decisions are made by the pure modules
//! [`crate::route`], [`headers`] and [`error`]; what is here puts them in order.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use ipnet::IpNet;

use crate::access_log::Sink;
use crate::clock::Clock;
use crate::connection::Connection;
use crate::dead_marks::DeadMarks;
use crate::host_failures::HostFailures;
use crate::limits::Limits;
use crate::metrics::Counters;
use crate::passwords::Passwords;
use crate::route::options::Options;
use crate::route::sticky::StickyKey;
use crate::route::{Millis, Route};
use crate::seldom::Seldom;
use crate::table::Table;
use crate::tls::Session;
use crate::upstream::{Bound, Upstreams};

mod admit;
pub mod body;
pub mod error;
mod forward;
pub mod forwarded;
pub mod headers;
pub mod hops;
mod http2;
pub mod pages;
pub mod request_id;
pub mod request_kind;
mod respond;
mod rules;
pub mod tunnel;

use body::{RequestLog, ResponseBody};
use headers::{Forwarded, Scan, Style, Trust};
use pages::Pages;
use request_id::{Ids, X_REQUEST_ID};
use respond::pong;
use tunnel::Tunnels;

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

    /// What the backends are told of a client.
    pub fn forwarded(&self, peer: SocketAddr, local: SocketAddr, over_tls: bool) -> Forwarded {
        let address = headers::canonical(peer.ip());
        let trust = match &self.trusted_proxies {
            None => Trust::Keep,
            Some(_) if self.is_trusted(address) => Trust::Append,
            Some(_) => Trust::Overwrite,
        };
        Forwarded::new(peer, local, over_tls, self.style, trust)
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
    pub upstreams: Upstreams,
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
    pub forwarded: Forwarded,
    /// What the TLS handshake agreed on, if there was one.
    pub tls: Option<Arc<Session>>,
    /// The backend connection that belongs to this client connection. A connection of HTTP/2 has none:
    /// its requests run at the same time, often for several users of one proxy.
    pub bound: Option<Arc<Bound>>,
}

impl Client {
    /// The same client as one of many requests sees it that a connection of HTTP/2 carries.
    #[must_use]
    pub fn for_stream(&self, stream: Arc<Connection>) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            settings: Arc::clone(&self.settings),
            connection: stream,
            forwarded: self.forwarded.clone(),
            tls: self.tls.clone(),
            bound: None,
        }
    }
}

/// What is learnt on the way and told in the answer: to `X-Debug`, and by the host's options.
struct Debugging {
    is_wanted: bool,
    started: Millis,
    backend_started: Option<Millis>,
    /// Where an attempt failed.
    failed: Option<Failed>,
    options: Option<Arc<Options>>,
    /// The client's connection, or that to a proxy of ours before it, is encrypted.
    is_https: bool,
    /// The client speaks HTTP/1.1 and takes trailers.
    takes_trailers: bool,
}

/// Where a request failed: the route, and the backend that was tried last, if any.
#[derive(Clone)]
struct Failed {
    route: Arc<Route>,
    position: Option<usize>,
}

/// Answers one request. Never fails: every error is a response.
///
/// # Errors
///
/// None.
pub async fn answer(
    client: Arc<Client>,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    client.connection.begin_request();
    let is_http2 = request.version() == Version::HTTP_2;
    let translated = match is_http2 {
        true => http2::hold(&mut request, &client.connection).and_then(|()| {
            http2::translate(&mut request, || std::array::from_fn(|_| fastrand::u8(..)))
        }),
        false => Ok(()),
    };
    let scan = Scan::new(request.headers());
    let mut debugging = Debugging {
        is_wanted: scan.wants_debug,
        started: client.shared.clock.now(),
        backend_started: None,
        failed: None,
        options: None,
        is_https: false,
        takes_trailers: scan.takes_trailers && request.version() == Version::HTTP_11,
    };
    let mut limit = client.settings.tcp_timeout;
    let ids = client
        .settings
        .request_ids
        .then(|| Ids::of(request.headers(), client.forwarded.trust(), || fastrand::u64(..)));
    let record = client.record(&request, debugging.started, ids.as_ref());
    let mut log = RequestLog::new(&client.connection, record);
    let is_head = request.method() == Method::HEAD;
    let admitted = translated.and_then(|()| client.admit(request, &scan, ids.as_ref(), &mut log));
    let mut response = match admitted {
        Ok(None) => {
            log.forget();
            log.answer(StatusCode::OK);
            pong(log)
        }
        Ok(Some(admitted)) => match client.forward(admitted, &mut debugging, &mut log).await {
            Ok(forwarded) => {
                limit = client.settings.read_timeout(&forwarded.route);
                client.respond(forwarded, &debugging, log)
            }
            Err(error) => {
                client.refuse(&error, &debugging, debugging.failed.as_ref(), is_head, log)
            }
        },
        Err(error) => client.refuse(&error, &debugging, None, is_head, log),
    };
    rules::add_headers(&mut response, &debugging);
    if let Some(ids) = ids {
        response.headers_mut().insert(X_REQUEST_ID, ids.request);
    }
    client.shared.counters.answered(response.status());
    // From here on a client that takes nothing for too long is given up.
    client.connection.begin_streaming(limit);
    let most = client.settings.limits.max_requests_per_connection;
    let is_last = most.is_some_and(|most| client.connection.requests() >= most)
        || client.connection.is_draining();
    if is_http2 {
        http2::strip_response(response.headers_mut());
    } else if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}
