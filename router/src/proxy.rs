//! One request, from top to bottom: admit, route, choose, send, respond, record.
//!
//! Runs in the task of the client's connection. Decisions are made by the pure modules
//! [`crate::route`], [`headers`] and [`error`]; what is here puts them in order.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPECT, EXPIRES, HOST, HeaderName, HeaderValue,
    PRAGMA, REFERER, RETRY_AFTER, USER_AGENT,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use ipnet::IpNet;
use shared::backend::Origin;
use shared::host;
use tracing::debug;

use crate::access_log::{Record, Sink};
use crate::clock::Clock;
use crate::connection::{BodyState, Connection};
use crate::dead_marks::{DeadMarks, Reason};
use crate::metrics::Counters;
use crate::request_body::{Gate, RequestBody};
use crate::route::{Millis, Pick, Route, Target};
use crate::table::Table;
use crate::upstream::{Exchange, Lease, LeaseError, Upstreams};

pub mod body;
pub mod error;
pub mod headers;
pub mod pages;
pub mod tunnel;

use body::{RequestLog, ResponseBody};
use error::ProxyError;
use headers::{Forwarded, Framing, Scan, Trust};
use pages::Pages;
use tunnel::{Tunnels, Upstream};

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
    /// Silence after which a tunnel ends.
    pub tunnel_idle_timeout: Option<Duration>,
    /// Peers whose forwarded headers are believed.
    pub trusted_proxies: Option<Vec<IpNet>>,
    /// IPv4 addresses without `::ffff:`.
    pub plain_ipv4: bool,
}

impl Settings {
    /// What the backends are told of a client.
    pub fn forwarded(&self, peer: SocketAddr, local: SocketAddr) -> Forwarded {
        let address = headers::canonical(peer.ip());
        let trust = match &self.trusted_proxies {
            None => Trust::Keep,
            Some(networks) if networks.iter().any(|network| network.contains(&address)) => {
                Trust::Append
            }
            Some(_) => Trust::Overwrite,
        };
        Forwarded::new(peer, local, self.plain_ipv4, trust)
    }
}

/// What all requests of one worker share.
#[derive(Debug)]
pub struct Shared {
    /// Routes.
    pub table: Arc<Table>,
    /// Connections to backends.
    pub upstreams: Upstreams,
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
}

/// A request that can be routed.
struct Admitted {
    request: Request<RequestBody>,
    route: Known,
    /// The client asked for this protocol.
    upgrade: Option<(HeaderValue, OnUpgrade)>,
    expectations: Expectations,
    /// The client's.
    version: Version,
}

/// What is to happen with informational responses.
struct Expectations {
    /// Opened by `100 Continue`.
    gate: Option<Arc<Gate>>,
    /// The client can tell other ones from the response; one of HTTP/1.0 cannot.
    passes_hints: bool,
}

/// Where a request goes, as far as memory knows.
enum Known {
    /// There.
    Route(Arc<Route>),
    /// To what Redis says of this host.
    Host(Box<str>),
}

/// What `X-Debug` answers tell; filled in on the way.
struct Debugging {
    is_wanted: bool,
    started: Millis,
    backend_started: Option<Millis>,
}

/// Answers one request. Never fails: every error is a response.
///
/// # Errors
///
/// None.
pub async fn answer(
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    client.connection.begin_request();
    let scan = Scan::new(request.headers());
    let mut debugging = Debugging {
        is_wanted: scan.wants_debug,
        started: client.shared.clock.now(),
        backend_started: None,
    };
    let mut log = RequestLog::new(&client.connection, client.record(&request, debugging.started));
    let is_head = request.method() == Method::HEAD;
    let mut response = match client.admit(request, &scan, &mut log) {
        Ok(None) => {
            log.forget();
            log.answer(StatusCode::OK);
            pong(log)
        }
        Ok(Some(admitted)) => match client.forward(admitted, &mut debugging, &mut log).await {
            Ok(forwarded) => client.respond(forwarded, &debugging, log),
            Err(error) => client.refuse(&error, &debugging, is_head, log),
        },
        Err(error) => client.refuse(&error, &debugging, is_head, log),
    };
    client.shared.counters.answered(response.status());
    // From here on a client that takes nothing for too long is given up.
    client.connection.begin_streaming(client.settings.tcp_timeout);
    if client.connection.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// A response of a backend with what belongs to it.
struct Answered {
    response: Response<Incoming>,
    lease: Lease,
    route: Arc<Route>,
    position: usize,
    version: Version,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
}

// === admit ===

impl Client {
    /// The access-log record of a request, if there is an access log.
    fn record(&self, request: &Request<Incoming>, started: Millis) -> Option<Box<Record>> {
        let sink = self.shared.sink.as_ref()?;
        let headers = request.headers();
        Some(Box::new(Record {
            sink: Arc::clone(sink),
            client: self.forwarded.client().clone(),
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            status: StatusCode::OK,
            referer: headers.get(REFERER).cloned(),
            user_agent: headers.get(USER_AGENT).cloned(),
            route: None,
            started,
            backend_started: None,
            written_before: self.connection.written(),
        }))
    }

    /// Checks that the request may be forwarded and prepares it. `None` is a ping.
    fn admit(
        &self,
        mut request: Request<Incoming>,
        scan: &Scan,
        log: &mut RequestLog,
    ) -> Result<Option<Admitted>, ProxyError> {
        let has_body = !hyper::body::Body::is_end_stream(request.body());
        if !has_body {
            self.connection.set_body_state(BodyState::Complete);
        }
        // CONNECT would make us dial whatever a client names; TRACE would show it headers that
        // proxies before us have added (RFC 9110 9.3.6, 9.3.8).
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(ProxyError::MethodNotAllowed);
        }
        headers::check_framing(request.headers(), scan, request.version())
            .map_err(ProxyError::BadRequest)?;
        let host_header = scan.host.as_ref().ok_or(ProxyError::NoHost)?;
        if scan.has_several_hosts {
            return Err(ProxyError::BadRequest("more than one host header"));
        }
        let host = host::normalize(host_header.as_bytes())
            .map_err(|_error| ProxyError::BadRequest("invalid host header"))?;
        check_target(request.uri(), request.method())?;
        let host = match request.uri().authority().is_some() {
            true => Cow::Owned(make_origin_form(&mut request)?),
            false => host,
        };
        if host == host::PING {
            return Ok(None);
        }
        let route = match self.shared.table.fresh(&host) {
            Some(route) => {
                self.shared.counters.cache_hits.add();
                Known::Route(route)
            }
            None => {
                self.shared.counters.cache_misses.add();
                Known::Host(host.into())
            }
        };
        let upgrade_asked = headers::strip_request(request.headers_mut(), scan);
        // A body cannot be told from the bytes of the new protocol by every backend.
        let upgrade_asked =
            upgrade_asked.filter(|_| request.version() == Version::HTTP_11 && !has_body);
        let upgrade = upgrade_asked.map(|protocol| (protocol, hyper::upgrade::on(&mut request)));
        self.forwarded.apply(request.headers_mut());
        if let Some(record) = log.record()
            && let Some(client) = request.headers().get(headers::X_REAL_IP)
        {
            record.client.clone_from(client);
        }
        let (mut parts, incoming) = request.into_parts();
        let version = parts.version;
        parts.version = Version::HTTP_11;
        let expects_continue = scan.expects
            && has_body
            && version == Version::HTTP_11
            && parts.headers.get(EXPECT).is_some_and(is_continue);
        let gate = expects_continue.then(Arc::<Gate>::default);
        if !self.settings.backend_keep_alive && upgrade.is_none() {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let limit = self.settings.tcp_timeout;
        let body = RequestBody::new(incoming, &self.connection, limit, gate.clone());
        let request = Request::from_parts(parts, body);
        let expectations = Expectations { gate, passes_hints: version == Version::HTTP_11 };
        Ok(Some(Admitted { request, route, upgrade, expectations, version }))
    }
}

fn is_continue(expectation: &HeaderValue) -> bool {
    expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

/// Refuses targets that are neither a path nor a web URL (RFC 9112 3.2): `*` is for OPTIONS, an
/// authority alone is for CONNECT.
fn check_target(target: &Uri, method: &Method) -> Result<(), ProxyError> {
    let is_good = match (target.scheme_str(), target.authority()) {
        (Some("http" | "https"), Some(_)) => true,
        (None, None) => target.path() != "*" || *method == Method::OPTIONS,
        _ => false,
    };
    if is_good { Ok(()) } else { Err(ProxyError::BadRequest("invalid request target")) }
}

/// Turns an absolute-form target into origin-form. Its authority wins over the `Host` header and
/// takes its place (RFC 9112 3.2.2). Returns the host to look up.
fn make_origin_form(request: &mut Request<Incoming>) -> Result<String, ProxyError> {
    let bad = || ProxyError::BadRequest("invalid host in the request target");
    let authority = request.uri().authority().map_or("", http::uri::Authority::as_str);
    let address = authority.rsplit_once('@').map_or(authority, |(_userinfo, address)| address);
    let host = host::normalize(address.as_bytes()).map_err(|_error| bad())?.into_owned();
    let value = HeaderValue::from_str(address).map_err(|_invalid| bad())?;
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    if let Some(header) = request.headers_mut().get_mut(HOST) {
        *header = value;
    }
    Ok(host)
}

// === route, choose, send ===

impl Client {
    async fn forward(
        &self,
        admitted: Admitted,
        debugging: &mut Debugging,
        log: &mut RequestLog,
    ) -> Result<Answered, ProxyError> {
        let Admitted { request, route, upgrade, expectations, version } = admitted;
        let shared = &self.shared;
        let route = match route {
            Known::Route(route) => route,
            Known::Host(host) => {
                Box::pin(shared.table.load(&host)).await.map_err(ProxyError::Store)?
            }
        };
        match &route.target {
            Target::Unknown => return Err(ProxyError::UnknownHost),
            Target::Broken(problem) => return Err(ProxyError::BrokenFrontend(problem.clone())),
            Target::Frontend(_) => {}
        }
        if let Some(record) = log.record() {
            record.route = Some(Arc::clone(&route));
        }
        let mut slot = Some(request);
        let mut tried: Vec<usize> = Vec::new();
        let mut last_error = None;
        loop {
            let now = shared.clock.coarse();
            let position = match route.pick(now, &tried, |count| fastrand::usize(..count)) {
                Pick::Backend(position) => position,
                Pick::NoneUsable => return Err(ProxyError::InvalidBackends),
                Pick::NoneAlive => return Err(last_error.unwrap_or(ProxyError::NoBackend)),
            };
            let Some(url) = route.backend(position) else {
                return Err(ProxyError::InvalidBackends);
            };
            let started = shared.clock.now();
            debugging.backend_started.get_or_insert(started);
            if let Some(record) = log.record() {
                record.backend_started.get_or_insert(started);
            }
            match self.attempt(&url.origin, &mut slot, &expectations).await {
                Ok((lease, response)) => {
                    let route = Arc::clone(&route);
                    return Ok(Answered { response, lease, route, position, version, upgrade });
                }
                Err(error) => {
                    debug!(host = %route.host, backend.url = %url.href, %error, "attempt failed");
                    if error.marks_dead() {
                        let reason = match error {
                            ProxyError::UpstreamTimedOut => Reason::TimedOut,
                            _ => Reason::Connect,
                        };
                        let ttl = self.settings.dead_backend_ttl;
                        shared.marks.mark(&route, position, ttl, reason);
                    }
                    let retries = self.settings.retry_on_error as usize;
                    if !error.may_retry() || tried.len() >= retries || slot.is_none() {
                        return Err(error);
                    }
                    shared.counters.retries.add();
                    tried.push(position);
                    last_error = Some(error);
                }
            }
        }
    }

    /// Sends the request in `slot` to one backend and waits for the head of its answer. Leaves
    /// the request in `slot` when nothing of it can have reached the backend.
    async fn attempt(
        &self,
        origin: &Origin,
        slot: &mut Option<Request<RequestBody>>,
        expectations: &Expectations,
    ) -> Result<(Lease, Response<Incoming>), ProxyError> {
        let upstreams = &self.shared.upstreams;
        let mut wants_new = false;
        loop {
            let idle = match wants_new || !self.settings.backend_keep_alive {
                true => None,
                false => upstreams.lease_idle(origin),
            };
            let mut lease = match idle {
                Some(lease) => lease,
                None => Box::pin(upstreams.lease_new(origin)).await.map_err(ProxyError::Lease)?,
            };
            let Some(request) = slot.take() else {
                return Err(ProxyError::UpstreamProtocol("the request is gone"));
            };
            let is_reused = lease.is_reused();
            // A used connection may have been closed at this very moment; whatever can be sent
            // twice is kept for that (RFC 9112 9.3.1).
            let may_replay =
                is_reused && request.body().is_empty() && headers::is_idempotent(request.method());
            self.connection.allow_for(self.settings.tcp_timeout);
            match self.exchange(lease.exchange(), request, may_replay, expectations).await {
                Ok(response) => return Ok((lease, response)),
                Err(Failure::Unsent(request)) if is_reused => *slot = Some(*request),
                Err(Failure::Unsent(_)) => {
                    return Err(ProxyError::UpstreamProtocol("backend closed the connection"));
                }
                Err(Failure::TimedOut) => {
                    return Err(match self.connection.body_state() {
                        BodyState::Waiting => ProxyError::ClientTimedOut,
                        _ => ProxyError::UpstreamTimedOut,
                    });
                }
                Err(Failure::Broken(error)) => match lease.exchange().wire().take_request() {
                    Some(request) => {
                        wants_new = true;
                        *slot = Some(request.map(|()| RequestBody::Empty));
                    }
                    None if self.connection.body_state() == BodyState::Broken => {
                        return Err(ProxyError::ClientBody);
                    }
                    None => return Err(ProxyError::Upstream(error)),
                },
            }
        }
    }

    /// Runs the request on the connection until the head of the response is there.
    async fn exchange(
        &self,
        exchange: &mut Exchange,
        request: Request<RequestBody>,
        may_replay: bool,
        expectations: &Expectations,
    ) -> Result<Response<Incoming>, Failure> {
        let mut response = pin!(exchange.send(request, may_replay));
        poll_fn(|cx| {
            loop {
                let has_ended = exchange.drive(cx).is_ready();
                if exchange.wire().take_progress() {
                    // Also a head that comes in pieces is no silence.
                    self.connection.allow_for(self.settings.tcp_timeout);
                    self.pass_on_informational(exchange, expectations);
                }
                if let Poll::Ready(result) = response.as_mut().poll(cx) {
                    return Poll::Ready(result.map_err(Failure::from));
                }
                if has_ended {
                    exchange.abandon();
                    return response.as_mut().poll(cx).map_err(Failure::from);
                }
                // 100 Continue has just come: the body can be sent now.
                if expectations.gate.as_deref().is_some_and(Gate::was_just_opened) {
                    continue;
                }
                if self.connection.has_expired() {
                    return Poll::Ready(Err(Failure::TimedOut));
                }
                return Poll::Pending;
            }
        })
        .await
    }
}

impl Client {
    /// Passes `103 Early Hints` and its like on to the client, and lets the body through at
    /// `100 Continue` (RFC 9110 15.2: a proxy must forward 1xx responses).
    fn pass_on_informational(&self, exchange: &Exchange, expectations: &Expectations) {
        for informational in exchange.wire().take_informational() {
            if informational.status != StatusCode::CONTINUE && expectations.passes_hints {
                // What does not fit is not worth a failed request: such responses are hints.
                let _is_queued = self.connection.send_early(&informational.head);
            } else if informational.status == StatusCode::CONTINUE
                && let Some(gate) = &expectations.gate
            {
                gate.open();
            }
        }
    }
}

/// Why an exchange gave no response.
enum Failure {
    /// The connection ended, or what came is no HTTP.
    Broken(hyper::Error),
    /// Nobody spoke for too long.
    TimedOut,
    /// The connection ended before anything of the request was written.
    Unsent(Box<Request<RequestBody>>),
}

impl From<hyper::client::conn::TrySendError<Request<RequestBody>>> for Failure {
    fn from(mut error: hyper::client::conn::TrySendError<Request<RequestBody>>) -> Self {
        match error.take_message() {
            Some(request) => Self::Unsent(Box::new(request)),
            None => Self::Broken(error.into_error()),
        }
    }
}

// === respond ===

impl Client {
    /// Turns the backend's answer into ours.
    fn respond(
        &self,
        answered: Answered,
        debugging: &Debugging,
        mut log: RequestLog,
    ) -> Response<ResponseBody> {
        let Answered { response, mut lease, route, position, version, upgrade } = answered;
        let (mut parts, incoming) = response.into_parts();
        self.judge(&route, position, &parts);
        let upgraded = if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            let agreed = upgrade
                .filter(|(asked, _)| headers::echoes_upgrade(&parts.headers, asked))
                .filter(|_| lease.exchange().has_ended());
            let Some((protocol, on_upgrade)) = agreed else {
                let error = ProxyError::UpstreamProtocol("101 that was not asked for");
                return self.refuse(&error, debugging, false, log);
            };
            Some((protocol, on_upgrade))
        } else {
            None
        };
        let framing = headers::strip_response(&mut parts.headers, version == Version::HTTP_11);
        if framing == Framing::Unknown {
            let error = ProxyError::UpstreamProtocol("unknown transfer coding");
            return self.refuse(&error, debugging, false, log);
        }
        if framing == Framing::Ambiguous {
            lease.never_again();
        }
        parts.version = Version::HTTP_11;
        if debugging.is_wanted {
            self.add_debug_headers(&mut parts.headers, debugging, &route, position);
        }
        log.answer(parts.status);
        let now = self.shared.clock.coarse();
        match upgraded {
            Some((protocol, on_upgrade)) => {
                parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                parts.headers.insert(http::header::UPGRADE, protocol);
                if let Some((stream, early)) = lease.into_tunnel() {
                    let upstream = Upstream { stream, early };
                    let idle_timeout = self.settings.tunnel_idle_timeout;
                    self.shared.tunnels.spawn(on_upgrade, upstream, idle_timeout, log.take());
                }
                Response::from_parts(parts, ResponseBody::empty(log))
            }
            None => {
                let limit = self.settings.tcp_timeout;
                let body = ResponseBody::upstream(incoming, lease, limit, now, log);
                Response::from_parts(parts, body)
            }
        }
    }

    /// Marks the backend dead when its answer says so (hipache.md 2).
    fn judge(&self, route: &Arc<Route>, position: usize, parts: &http::response::Parts) {
        let ttl = self.settings.dead_backend_ttl;
        match parts.status.as_u16() {
            500 if self.settings.dead_backend_on_500 => {
                self.shared.marks.announce_500(route, position, ttl);
            }
            // Maintenance that announces its end is no failure.
            503 if parts.headers.contains_key(RETRY_AFTER) => {}
            status @ 501..=599 => {
                self.shared.marks.mark(route, position, ttl, Reason::Status(status));
            }
            _ => {}
        }
    }

    fn add_debug_headers(
        &self,
        headers: &mut HeaderMap,
        debugging: &Debugging,
        route: &Route,
        position: usize,
    ) {
        let now = self.shared.clock.now();
        let identifier = route.frontend().map_or("", |frontend| &frontend.identifier);
        let url = route.backend(position).map_or("", |url| &url.href);
        let backend_time = now.saturating_sub(debugging.backend_started.unwrap_or(now));
        add_version(headers);
        let mut add = |name: &'static str, text: &str| {
            // An identifier may be any text; what is no header value is left out.
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        add("x-debug-backend-url", url);
        add("x-debug-backend-id", itoa::Buffer::new().format(position));
        add("x-debug-vhost", identifier);
        add("x-debug-frontend-key", &route.host);
        let total = now.saturating_sub(debugging.started);
        add("x-debug-time-total", itoa::Buffer::new().format(total));
        add("x-debug-time-backend", itoa::Buffer::new().format(backend_time));
    }

    /// The answer to a request that no backend answered.
    fn refuse(
        &self,
        error: &ProxyError,
        debugging: &Debugging,
        is_head: bool,
        mut log: RequestLog,
    ) -> Response<ResponseBody> {
        let status = error.status();
        debug!(client.addr = %self.connection.peer, side = ?error.side(), %error, "request refused");
        log.answer(status);
        let page = self.shared.pages.page(status);
        let length = page.len();
        let body = match is_head {
            true => ResponseBody::empty(log),
            false => ResponseBody::full(page, log),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
        headers.insert(EXPIRES, HeaderValue::from_static("-1"));
        if is_head {
            headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        if matches!(error, ProxyError::Store(_) | ProxyError::Lease(LeaseError::QueueTimedOut(_))) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if matches!(error, ProxyError::MethodNotAllowed) {
            // RFC 9110 15.5.6 asks for the list; it is every method but these two.
            let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
            headers.insert(http::header::ALLOW, HeaderValue::from_static(allowed));
        }
        if matches!(error, ProxyError::BadRequest(_) | ProxyError::ClientTimedOut) {
            // What follows on such a connection cannot be trusted to be a request.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if debugging.is_wanted {
            let text = error.debug_text(self.settings.retry_on_error);
            let value = HeaderValue::from_static(text);
            headers.insert(HeaderName::from_static("x-debug-error"), value);
            add_version(headers);
        }
        response
    }
}

fn add_version(headers: &mut HeaderMap) {
    let version = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));
    headers.insert(HeaderName::from_static("x-debug-version-hipache"), version);
}

/// The answer to a load balancer's health check.
fn pong(log: RequestLog) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full("ok".into(), log));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
