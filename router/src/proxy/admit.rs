//! The first phase: is this a request that may be forwarded, to which host, and as what.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{
    CONNECTION, EXPECT, HOST, HeaderValue, REFERER, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING,
    USER_AGENT,
};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use shared::host;

use super::Client;
use super::body::RequestLog;
use super::error::ProxyError;
use super::headers::{self, Scan};
use super::hops::{self, X_ROUTER_HOPS};
use super::http2;
use super::request_id::Ids;
use super::request_kind::RequestKind;
use crate::access_log::Record;
use crate::connection::{BodyKind, BodyState};
use crate::request_body::{BodyLimits, Gate, RequestBody};
use crate::route::{Millis, Route};

/// A request that can be routed.
pub(super) struct Admitted {
    pub(super) request: Request<RequestBody>,
    pub(super) route: Known,
    /// The client asked for this protocol.
    pub(super) upgrade: Option<Upgrade>,
    pub(super) expectations: Expectations,
    /// It carries a login that is valid for the whole connection to the backend.
    pub(super) logs_in: bool,
    /// The client's.
    pub(super) version: Version,
    pub(super) kind: RequestKind,
}

/// A change of protocol that the client asked for.
pub(super) struct Upgrade {
    /// To this one.
    pub(super) protocol: HeaderValue,
    pub(super) client: OnUpgrade,
    /// The key of the handshake of a WebSocket; for a client of HTTP/2, which knows of none, one was made.
    pub(super) key: Option<HeaderValue>,
}

impl Upgrade {
    /// Whether it is to a WebSocket, by a handshake that can be answered (RFC 6455 4.2.1).
    pub(super) fn is_websocket(&self) -> bool {
        self.key.is_some() && self.names_websocket()
    }

    /// Whether it is to a WebSocket, by whatever handshake.
    pub(super) fn names_websocket(&self) -> bool {
        self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
    }
}

/// What is to happen with informational responses.
pub(super) struct Expectations {
    /// Opened by `100 Continue`.
    pub(super) gate: Option<Arc<Gate>>,
    /// The client can tell other ones from the response; one of HTTP/1.0 cannot.
    pub(super) passes_hints: bool,
}

/// Where a request goes, as far as memory knows.
pub(super) enum Known {
    /// There.
    Route(Arc<Route>),
    /// To what Redis says of this host.
    Host(Box<str>),
}

impl Client {
    /// The access-log record of a request, if there is an access log.
    pub(super) fn record(
        &self,
        request: &Request<Incoming>,
        started: Millis,
        ids: Option<&Ids>,
    ) -> Option<Box<Record>> {
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
            request_id: ids.map(|ids| ids.request.clone()),
            route: None,
            started,
            backend_started: None,
            written_before: self.connection.written(),
        }))
    }

    /// Checks that the request may be forwarded and prepares it. `None` is a ping.
    pub(super) fn admit(
        &self,
        mut request: Request<Incoming>,
        scan: &Scan,
        ids: Option<&Ids>,
        log: &mut RequestLog,
    ) -> Result<Option<Admitted>, ProxyError> {
        let has_body = !hyper::body::Body::is_end_stream(request.body());
        if !has_body {
            self.connection.set_body_state(BodyState::Complete);
        }
        let kind = match hyper::body::Body::size_hint(request.body()).exact() {
            _ if !has_body => BodyKind::None,
            Some(length) => BodyKind::Length(length),
            None => BodyKind::Chunked,
        };
        if request.version() == Version::HTTP_2 {
            // hyper counts for HTTP/1.1 only. Cookies, which browsers send in crumbs, are one by now.
            if request.headers().len() > self.settings.limits.max_headers {
                return Err(ProxyError::TooManyHeaders);
            }
        } else if !self.connection.is_clear(kind) {
            // HTTP/2 has frames, which can be read in one way only.
            return Err(ProxyError::BadRequest("line end that is not CRLF"));
        }
        headers::check_framing(request.headers(), scan, request.version())
            .map_err(ProxyError::BadRequest)?;
        let host_header = scan.host.as_ref().ok_or(ProxyError::NoHost)?;
        if scan.has_several_hosts {
            return Err(ProxyError::BadRequest("more than one host header"));
        }
        let host = host::normalize(host_header.as_bytes())
            .map_err(|_error| ProxyError::BadRequest("invalid host header"))?;
        // CONNECT would make us dial whatever a client names; TRACE would show it headers that
        // proxies before us have added (RFC 9110 9.3.6, 9.3.8).
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(ProxyError::MethodNotAllowed);
        }
        check_target(request.uri(), request.method())?;
        let limits = &self.settings.limits;
        if request.uri().path_and_query().is_some_and(|path| path.as_str().len() > limits.max_uri) {
            return Err(ProxyError::UriTooLong);
        }
        let host = match request.uri().authority().is_some() {
            true => Cow::Owned(make_origin_form(&mut request)?),
            false => host,
        };
        if host == host::PING {
            return Ok(None);
        }
        let hops =
            hops::next(scan.hops, scan.was_forwarded).map_err(|hops::Loop| ProxyError::Loop)?;
        if self.tls.as_ref().is_some_and(|tls| !tls.serves(&host, request.version())) {
            return Err(ProxyError::Misdirected);
        }
        if limits.max_requests.is_some_and(|most| self.connection.running_requests() > most) {
            return Err(ProxyError::Overloaded);
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
        let is_websocket = http2::is_websocket(request.extensions());
        let may_upgrade = headers::may_upgrade(request.version(), has_body, is_websocket);
        let upgrade_asked = headers::strip_request(request.headers_mut(), scan, may_upgrade);
        let upgrade = upgrade_asked.map(|protocol| Upgrade {
            protocol,
            key: match *request.method() {
                Method::GET => request.headers().get(SEC_WEBSOCKET_KEY).cloned(),
                _ => None,
            },
            client: hyper::upgrade::on(&mut request),
        });
        let asks_for_other = upgrade.as_ref().is_some_and(|upgrade| !upgrade.is_websocket());
        let target = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
        let request_kind = RequestKind::of(request.method(), target, scan, kind, asks_for_other);
        let is_trusted = |address| self.settings.is_trusted(address);
        self.forwarded.apply(request.headers_mut(), is_trusted);
        if let Some(hops) = hops {
            request.headers_mut().insert(X_ROUTER_HOPS, hops);
        }
        if let Some(ids) = ids {
            ids.apply(request.headers_mut());
        }
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
        let limits = BodyLimits {
            silence: self.settings.tcp_timeout,
            max: limits.max_body,
            min_rate: limits.min_body_rate.map(|rate| (rate, limits.head_timeout)),
        };
        if version == Version::HTTP_2 && kind == BodyKind::Chunked {
            // Without it a GET or HEAD would lose its body on the way to a backend of HTTP/1.1.
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let body = RequestBody::new(incoming, &self.connection, limits, gate.clone());
        let request = Request::from_parts(parts, body);
        let expectations = Expectations { gate, passes_hints: version == Version::HTTP_11 };
        let (kind, logs_in) = (request_kind, scan.logs_in);
        Ok(Some(Admitted { request, route, upgrade, expectations, logs_in, version, kind }))
    }
}

fn is_continue(expectation: &HeaderValue) -> bool {
    expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

/// Refuses targets that are neither a path nor a web URL (RFC 9112 3.2): `*` is for OPTIONS, an
/// authority alone is for CONNECT.
fn check_target(target: &Uri, method: &Method) -> Result<(), ProxyError> {
    // What `http` takes beyond RFC 3986 (UTF-8 and a few marks) is refused by others, or cut.
    let path = target.path_and_query().map_or("", PathAndQuery::as_str);
    let has_odd = path.bytes().fold(false, |has_odd, byte| has_odd | !byte.is_ascii_graphic());
    if has_odd {
        return Err(ProxyError::BadRequest("invalid request target"));
    }
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
    let path = request.uri().path_and_query().cloned().map(Uri::from);
    // Of a fragment right behind the authority nothing is left: an empty path is `/` (RFC 9112 3.2.1).
    let path = path.filter(|path| !path.path().is_empty());
    *request.uri_mut() = path.unwrap_or_else(|| Uri::from_static("/"));
    if let Some(header) = request.headers_mut().get_mut(HOST) {
        *header = value;
    }
    Ok(host)
}
