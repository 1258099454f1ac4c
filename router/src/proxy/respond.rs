//! The last phase: the backend's answer becomes ours, or an error does.

use std::sync::Arc;

use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPIRES, HeaderName, HeaderValue,
    LOCATION, PRAGMA, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SET_COOKIE, TRANSFER_ENCODING,
    WWW_AUTHENTICATE,
};
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode, Version};
use hyper::body::Body as _;
use hyper::upgrade::OnUpgrade;
use tracing::{debug, info, warn};

use super::admit::Upgrade;
use super::body::{RequestLog, ResponseBody};
use super::error::ProxyError;
use super::forward::Answered;
use super::headers::{self, Framing, Stripped};
use super::hops::MAX_HOPS;
use super::http2;
use super::request_kind::{Outcome, RequestKind, classify};
use super::tunnel::{Downstream, Upstream};
use super::{Client, Debugging, Failed};
use crate::dead_marks::Reason;
use crate::route::{Frontend, Route, Target};
use crate::upstream::Lease;

impl Client {
    /// Turns the backend's answer into ours.
    pub(super) fn respond(
        &self,
        answered: Answered,
        debugging: &Debugging,
        mut log: RequestLog,
    ) -> Response<ResponseBody> {
        let Answered {
            response,
            mut lease,
            route,
            position,
            version,
            kind,
            upgrade,
            cookie,
            tunnel,
        } = answered;
        let (mut parts, incoming) = response.into_parts();
        self.judge(&route, position, &parts, kind);
        let is_http2 = version == Version::HTTP_2;
        let failed =
            |route: &Arc<Route>| Failed { route: Arc::clone(route), position: Some(position) };
        let upgraded = match agreed(&mut parts, upgrade, &mut lease, is_http2) {
            Ok(upgraded) => upgraded,
            Err(reason) => {
                let error = ProxyError::UpstreamProtocol(reason);
                return self.refuse(&error, debugging, Some(&failed(&route)), false, log);
            }
        };
        let Stripped { framing, asks_for_login } =
            headers::strip_response(&mut parts.headers, version == Version::HTTP_11);
        if framing == Framing::Unknown {
            let error = ProxyError::UpstreamProtocol("unknown transfer coding");
            return self.refuse(&error, debugging, Some(&failed(&route)), false, log);
        }
        if asks_for_login {
            lease.bind(self.bound.as_ref());
        }
        self.report_success(&route);
        if framing == Framing::Ambiguous {
            lease.never_again();
        }
        if parts.status == StatusCode::NO_CONTENT || parts.status.is_informational() {
            // Neither has content, and says nothing of its length (RFC 9110 8.6, RFC 9112 6.1).
            parts.headers.remove(CONTENT_LENGTH);
            parts.headers.remove(TRANSFER_ENCODING);
        }
        let has_trailers = parts.version == Version::HTTP_2 && !incoming.is_end_stream();
        if debugging.takes_trailers && has_trailers {
            headers::announce_grpc(&mut parts.headers);
        }
        parts.version = Version::HTTP_11;
        if debugging.is_wanted {
            self.add_debug_headers(&mut parts.headers, debugging, &route, position);
        }
        if let Some(cookie) = cookie {
            parts.headers.append(SET_COOKIE, cookie);
        }
        log.answer(parts.status);
        let now = self.shared.clock.coarse();
        match upgraded {
            Some((upgrade, over_http2)) => {
                if is_http2 {
                    parts.status = StatusCode::OK;
                }
                parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                parts.headers.insert(http::header::UPGRADE, upgrade.protocol);
                let upstream = match over_http2 {
                    Some(upgrade) => Some(Upstream::Http2(upgrade)),
                    None => {
                        lease.into_tunnel().map(|(stream, early)| Upstream::Socket(stream, early))
                    }
                };
                if let Some(upstream) = upstream {
                    let idle_timeout = self.settings.tunnel_idle_timeout;
                    let idle_timeout = match &route.options {
                        Some(options) => options.tunnel_timeout(idle_timeout),
                        None => idle_timeout,
                    };
                    let connection = Arc::clone(&self.connection);
                    let client = Downstream { upgrade: upgrade.client, connection, slot: tunnel };
                    self.shared.tunnels.spawn(client, upstream, idle_timeout, log.take());
                }
                Response::from_parts(parts, ResponseBody::empty(log))
            }
            None => {
                let limit = self.settings.read_timeout(&route);
                let body = ResponseBody::upstream(incoming, lease, limit, now, log);
                Response::from_parts(parts, body)
            }
        }
    }

    /// Marks the backend dead when its answer says so.
    fn judge(&self, route: &Arc<Route>, position: usize, parts: &Parts, kind: RequestKind) {
        let ttl = self.settings.dead_backend_ttl;
        let announces_end = parts.headers.contains_key(RETRY_AFTER);
        match classify(parts.status.as_u16(), kind, announces_end) {
            Outcome::Fine => {}
            Outcome::ForChecker if self.settings.dead_backend_on_500 => {
                self.shared.marks.announce_500(route, position, ttl);
            }
            Outcome::ForChecker => {}
            Outcome::Failed(status) => {
                self.shared.marks.mark(route, position, ttl, Reason::Status(status));
            }
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
        let (identifier, mark) = route.frontend().map_or(("", ""), Frontend::shown_identifier);
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
        match mark {
            "" => add("x-debug-vhost", identifier),
            mark => add("x-debug-vhost", &format!("{identifier}{mark}")),
        }
        add("x-debug-frontend-key", &route.host);
        let total = now.saturating_sub(debugging.started);
        add("x-debug-time-total", itoa::Buffer::new().format(total));
        add("x-debug-time-backend", itoa::Buffer::new().format(backend_time));
    }

    /// Warns of a failure, at most once a minute for each list. Returns its cause, in words.
    fn report_failure(&self, error: &ProxyError, failed: &Failed) -> String {
        let Failed { route, position } = failed;
        let cause = error.cause(route);
        let url = position.and_then(|position| route.backend(position)).map(|url| &*url.href);
        let frontend = match &route.target {
            Target::Frontend(frontend) => &*frontend.name,
            Target::Broken(problem) => &*problem.key,
            Target::Unknown => &*route.host,
        };
        if let Some(suppressed) = self.shared.failures.failed(frontend, self.shared.clock.now()) {
            warn!(
                host = %route.host, frontend, backend.url = url, suppressed,
                "host answered with {}: {cause}", error.status().as_u16()
            );
        }
        match url {
            Some(url) => format!("{url}: {cause}"),
            None => cause,
        }
    }

    /// Says that a host is well again whose failures were warned of.
    fn report_success(&self, route: &Route) {
        let Some(frontend) = route.frontend() else { return };
        let now = self.shared.clock.coarse();
        if let Some(lasted) = self.shared.failures.succeeded(&frontend.name, now) {
            info!(
                host = %route.host, frontend = %frontend.name, failed_for_seconds = lasted / 1000,
                "host is answered by its backends again"
            );
        }
    }

    /// The answer to a request that no backend answered.
    pub(super) fn refuse(
        &self,
        error: &ProxyError,
        debugging: &Debugging,
        failed: Option<&Failed>,
        is_head: bool,
        mut log: RequestLog,
    ) -> Response<ResponseBody> {
        let status = error.status();
        debug!(client.addr = %self.connection.peer, side = ?error.side(), %error, "request refused");
        if matches!(error, ProxyError::Loop)
            && let Some(suppressed) = self.shared.loop_reports.is_due(self.shared.clock.coarse())
        {
            warn!(
                client.addr = %self.connection.peer, suppressed,
                "request refused with 508: it came through {MAX_HOPS} routers; lists of frontends that \
                 name routers lead in a circle"
            );
        }
        let cause = failed.filter(|_| error.is_outage()).map(|at| self.report_failure(error, at));
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
        forbid_caching(headers);
        if is_head {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if let Some(seconds) = error.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let ProxyError::HttpsOnly { location, .. } = error {
            headers.insert(LOCATION, location.clone());
        }
        if matches!(error, ProxyError::Unauthorized) {
            let challenge = "Basic realm=\"restricted\", charset=\"UTF-8\"";
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if matches!(error, ProxyError::MethodNotAllowed) {
            // RFC 9110 15.5.6 asks for the list; it is every method but these two.
            let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
            headers.insert(http::header::ALLOW, HeaderValue::from_static(allowed));
        }
        if matches!(
            error,
            ProxyError::BadRequest(_)
                | ProxyError::BodyTooLarge
                | ProxyError::ClientTimedOut
                | ProxyError::MethodNotAllowed
                | ProxyError::NoHost
                | ProxyError::UriTooLong
        ) {
            // What follows on such a connection cannot be trusted to be a request.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if debugging.is_wanted {
            let text = error.debug_text(self.settings.retry_on_error);
            let value = HeaderValue::from_static(text);
            headers.insert(HeaderName::from_static("x-debug-error"), value);
            if let Some(cause) = cause.and_then(|cause| HeaderValue::from_str(&cause).ok()) {
                headers.insert(HeaderName::from_static("x-debug-error-cause"), cause);
            }
            add_version(headers);
        }
        response
    }
}

/// The change of protocol that client and backend agree on, if they do, and the backend's side of it
/// where that is a stream of HTTP/2.
///
/// # Errors
///
/// What is wrong with the answer.
fn agreed(
    parts: &mut Parts,
    asked: Option<Upgrade>,
    lease: &mut Lease,
    is_http2: bool,
) -> Result<Option<(Upgrade, Option<OnUpgrade>)>, &'static str> {
    const NONE: &str = "an answer that begins no WebSocket";
    let exchange = lease.exchange();
    if exchange.is_websocket() {
        // Over HTTP/2 a success is what begins a tunnel (RFC 8441 5).
        if !parts.status.is_success() {
            return Ok(None);
        }
        let begun = parts.extensions.remove::<OnUpgrade>();
        let (Some(asked), Some(begun)) = (asked, begun) else { return Err(NONE) };
        parts.status = StatusCode::SWITCHING_PROTOCOLS;
        parts.headers.remove(CONTENT_LENGTH);
        if let Some(key) = &asked.key
            && let Ok(accept) = HeaderValue::try_from(http2::accept_for(key))
        {
            parts.headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        return Ok(Some((asked, Some(begun))));
    }
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        // A client of HTTP/2 sees no key, so we have to check the answer to it.
        let is_right =
            |key: Option<&HeaderValue>| key.is_some_and(|key| http2::accepts(key, &parts.headers));
        let asked = asked
            .filter(|asked| headers::echoes_upgrade(&parts.headers, &asked.protocol))
            .filter(|asked| !is_http2 || is_right(asked.key.as_ref()))
            .filter(|_| exchange.has_ended());
        return match asked {
            Some(asked) => Ok(Some((asked, None))),
            None => Err("101 that was not asked for"),
        };
    }
    let would_begin = is_http2 && asked.is_some() && parts.status.is_success();
    if would_begin { Err(NONE) } else { Ok(None) }
}

fn add_version(headers: &mut HeaderMap) {
    let version = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));
    headers.insert(HeaderName::from_static("x-debug-version-hipache"), version);
}

/// What Hipache adds to every answer of its own.
fn forbid_caching(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(EXPIRES, HeaderValue::from_static("-1"));
}

/// The answer to a load balancer's health check.
pub(super) fn pong(log: RequestLog) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full("ok".into(), log));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    forbid_caching(response.headers_mut());
    response
}
