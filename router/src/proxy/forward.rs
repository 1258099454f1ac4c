//! The middle phases: route, choose a backend, send, and wait for the head of its answer.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use shared::backend::{BackendUrl, Origin};
use tracing::{debug, warn};

use super::admit::{Admitted, Expectations, Known, Upgrade};
use super::body::RequestLog;
use super::error::ProxyError;
use super::request_kind::RequestKind;
use super::tunnel::count::Slot;
use super::{Client, Debugging, Failed, headers, rules};
use crate::connection::BodyState;
use crate::dead_marks::Reason;
use crate::request_body::{Gate, RequestBody};
use crate::route::{Pick, Route, Target};
use crate::upstream::{Exchange, Lease, LeaseError, Peer, Purpose, SendError};

/// How often a request is sent again that a backend has refused.
const MAX_REFUSALS: u32 = 3;

/// Pause before the second attempt at the same backend; each further one is twice as long, up to a limit: with
/// the usual number of retries a request is held up for less than 0.2 s.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// The longest pause is 25 ms times two to the power of this: 200 ms.
const MAX_PAUSE_DOUBLINGS: u32 = 3;

/// A response of a backend with what belongs to it.
pub(super) struct Answered {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
    pub(super) route: Arc<Route>,
    pub(super) position: usize,
    pub(super) version: Version,
    pub(super) kind: RequestKind,
    pub(super) upgrade: Option<Upgrade>,
    /// Brings the client back to this backend.
    pub(super) cookie: Option<HeaderValue>,
    /// What a tunnel is counted by, if one was asked for.
    pub(super) tunnel: Option<Slot>,
}

impl Debugging {
    /// Notes where the request failed; the error is passed through.
    fn failed(
        &mut self,
        route: &Arc<Route>,
        position: Option<usize>,
        error: ProxyError,
    ) -> ProxyError {
        self.failed = Some(Failed { route: Arc::clone(route), position });
        error
    }
}

impl Client {
    /// Finds the route, picks a backend, sends the request, and tries again where that is safe.
    pub(super) async fn forward(
        &self,
        admitted: Admitted,
        debugging: &mut Debugging,
        log: &mut RequestLog,
    ) -> Result<Answered, ProxyError> {
        let Admitted { mut request, route, mut upgrade, expectations, logs_in, version, kind } =
            admitted;
        let shared = &self.shared;
        let route = match route {
            Known::Route(route) => route,
            Known::Host(host) => {
                Box::pin(shared.table.load(&host)).await.map_err(ProxyError::Store)?
            }
        };
        match &route.target {
            Target::Unknown => return Err(ProxyError::UnknownHost),
            Target::Broken(problem) => {
                let error = ProxyError::BrokenFrontend(problem.clone());
                return Err(debugging.failed(&route, None, error));
            }
            Target::Frontend(_) => {}
        }
        if let Some(record) = log.record() {
            record.route = Some(Arc::clone(&route));
        }
        let mut stuck = None;
        if let Some(options) = &route.options {
            debugging.options = Some(Arc::clone(options));
            debugging.is_https = self.is_https(request.headers());
            Box::pin(self.obey(options, &route, &mut request, debugging.is_https)).await?;
            if let Some(name) = &options.sticky {
                let cookies = headers::cookies(request.headers(), name);
                stuck = route.stuck(&shared.sticky_key, cookies, shared.clock.coarse());
            }
        }
        // Only now: the host's own limit may be a higher one.
        request.body().check_length()?;
        let limit = self.settings.read_timeout(&route);
        let (connect_timeout, trust) = match &route.options {
            Some(options) => (options.connect_timeout, options.trust.as_ref()),
            None => (None, None),
        };
        let mut wanted = match &upgrade {
            None => Purpose::Exchange,
            Some(upgrade) if upgrade.is_websocket() => Purpose::WebSocket,
            Some(_) => Purpose::Upgrade,
        };
        let preferred = stuck.or_else(|| self.logged_in_at(&route));
        let mut slot = Some(request);
        let mut tried: Vec<usize> = Vec::new();
        let mut last_error = None;
        loop {
            let now = shared.clock.coarse();
            let pick = match preferred.filter(|_| tried.is_empty()) {
                Some(position) => Pick::Backend(position),
                None => route.pick(now, &tried, |count| fastrand::usize(..count)),
            };
            let position = match pick {
                Pick::Backend(position) => position,
                Pick::NoneUsable => {
                    return Err(debugging.failed(&route, None, ProxyError::InvalidBackends));
                }
                Pick::NoneAlive => {
                    let error = last_error.unwrap_or(ProxyError::NoBackend);
                    return Err(debugging.failed(&route, tried.last().copied(), error));
                }
            };
            let Some(url) = route.backend(position) else {
                return Err(debugging.failed(&route, None, ProxyError::InvalidBackends));
            };
            if let Some(pause) = pause(tried_before(&route, &tried, url)) {
                tokio::time::sleep(pause).await;
            }
            let started = shared.clock.now();
            debugging.backend_started.get_or_insert(started);
            if let Some(record) = log.record() {
                record.backend_started.get_or_insert(started);
            }
            let purpose = match (wanted, &slot) {
                (Purpose::Exchange, _) if logs_in => Purpose::Login,
                (Purpose::Exchange, Some(request)) => Purpose::of(request, &url.origin),
                (purpose, _) => purpose,
            };
            let bound = self.bound.as_ref();
            let peer = Peer { origin: &url.origin, trust, purpose, connect_timeout, bound };
            let attempted = match self.tunnel_slot(&upgrade, &url.origin) {
                Ok(tunnel) => self
                    .attempt(peer, limit, &mut slot, &expectations, logs_in)
                    .await
                    .map(|(lease, response)| (lease, response, tunnel)),
                Err(error) => Err(error),
            };
            match attempted {
                Ok((lease, response, tunnel)) => {
                    let route = Arc::clone(&route);
                    let cookie = self.cookie(&route, position, stuck, debugging.is_https);
                    return Ok(Answered {
                        response,
                        lease,
                        route,
                        position,
                        version,
                        kind,
                        upgrade,
                        cookie,
                        tunnel,
                    });
                }
                Err(ProxyError::Lease(LeaseError::NoTunnel))
                    if let Some(request) = &mut slot
                        && upgrade.as_ref().is_some_and(|upgrade| !upgrade.names_websocket()) =>
                {
                    // What HTTP/2 does not know is ignored (RFC 9110 7.8, RFC 9113 8.6). A WebSocket's
                    // client could do nothing with an answer of HTTP.
                    headers::ignore_upgrade(request.headers_mut());
                    if !self.settings.backend_keep_alive {
                        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    (upgrade, wanted) = (None, Purpose::Exchange);
                }
                Err(error) => {
                    debug!(host = %route.host, backend.url = %url.href, %error, "attempt failed");
                    let silence_marks =
                        self.settings.dead_backend_on_silence && kind.silence_marks();
                    if error.marks_dead(silence_marks) {
                        let reason = match error {
                            ProxyError::UpstreamTimedOut => Reason::TimedOut,
                            _ => Reason::Connect(error.cause(&route).into()),
                        };
                        let ttl = self.settings.dead_backend_ttl;
                        shared.marks.mark(&route, position, ttl, reason);
                    }
                    let retries = self.settings.retry_on_error as usize;
                    if !error.may_retry() || tried.len() >= retries || slot.is_none() {
                        return Err(debugging.failed(&route, Some(position), error));
                    }
                    shared.counters.retries.add();
                    tried.push(position);
                    last_error = Some(error);
                }
            }
        }
    }

    /// Counts the tunnel that an upgrade would become.
    fn tunnel_slot(
        &self,
        upgrade: &Option<Upgrade>,
        backend: &Origin,
    ) -> Result<Option<Slot>, ProxyError> {
        if upgrade.is_none() {
            return Ok(None);
        }
        let tunnels = &self.shared.tunnels;
        tunnels.counts.admit(backend, &self.settings.limits).map(Some).map_err(|refusal| {
            self.shared.counters.tunnels_refused.add();
            if let Some(suppressed) = tunnels.refusals.is_due(self.shared.clock.coarse()) {
                warn!(
                    %backend, setting = refusal.setting(), suppressed,
                    "tunnels (WebSockets and other upgrades) are refused with 503: a limit is reached"
                );
            }
            ProxyError::TooManyTunnels(refusal)
        })
    }

    /// The backend on whose connection the client has begun to log in, unless that backend is dead: all
    /// steps of such a login have to take place on one connection.
    fn logged_in_at(&self, route: &Route) -> Option<usize> {
        let now = self.shared.clock.coarse();
        let count = route.frontend()?.backends.len();
        self.bound.as_ref()?.at(|origin| {
            (0..count).find(|position| {
                route.backend(*position).is_some_and(|url| url.origin == *origin)
                    && !route.is_dead(*position, now)
            })
        })
    }

    /// The cookie for a client that is to return to the backend at `position`, unless it has it.
    fn cookie(
        &self,
        route: &Route,
        position: usize,
        stuck: Option<usize>,
        is_https: bool,
    ) -> Option<HeaderValue> {
        let name = route.options.as_ref()?.sticky.as_deref()?;
        if stuck == Some(position) {
            return None;
        }
        let token = route.token(&self.shared.sticky_key, position)?;
        rules::sticky_cookie(name, token, is_https)
    }

    /// Sends the request in `slot` to one backend and waits for the head of its answer. Leaves
    /// the request in `slot` when nothing of it can have reached the backend.
    async fn attempt(
        &self,
        peer: Peer<'_>,
        limit: Option<Duration>,
        slot: &mut Option<Request<RequestBody>>,
        expectations: &Expectations,
        logs_in: bool,
    ) -> Result<(Lease, Response<Incoming>), ProxyError> {
        let upstreams = &self.shared.upstreams;
        let mut wants_new = false;
        let mut refusals = 0;
        loop {
            let idle = match wants_new || !self.settings.backend_keep_alive {
                true => None,
                false => upstreams.lease_idle(peer),
            };
            let mut lease = match idle {
                Some(lease) => lease,
                None => Box::pin(upstreams.lease_new(peer)).await.map_err(ProxyError::Lease)?,
            };
            let Some(request) = slot.take() else {
                return Err(ProxyError::UpstreamProtocol("the request is gone"));
            };
            let is_reused = lease.is_reused();
            if logs_in {
                lease.log_in(self.bound.as_ref());
            }
            // A used connection may have been closed at this very moment; whatever can be sent
            // twice is kept for that (RFC 9112 9.3.1).
            let may_replay =
                is_reused && request.body().is_empty() && headers::is_idempotent(request.method());
            self.connection.allow_for(limit);
            self.connection.turn.hold(lease.take_turn());
            let exchange = lease.exchange();
            let result = self.exchange(exchange, request, may_replay, expectations, limit).await;
            if result.is_err() {
                self.connection.turn.end();
            }
            match result {
                Ok(response) => {
                    lease.exchange().keep_no_longer();
                    return Ok((lease, response));
                }
                Err(Failure::Unsent(request)) if is_reused => *slot = Some(*request),
                Err(Failure::Unsent(_)) => {
                    return Err(ProxyError::UpstreamProtocol("backend closed the connection"));
                }
                Err(Failure::TooManyInformational) => {
                    return Err(ProxyError::UpstreamProtocol(
                        "backend sent too many informational responses",
                    ));
                }
                Err(Failure::TimedOut) => {
                    return Err(match self.connection.body_state() {
                        BodyState::Waiting => ProxyError::ClientTimedOut,
                        _ => ProxyError::UpstreamTimedOut,
                    });
                }
                // The backend ends the connection in good order, for instance. Others who were on it may
                // have made a new one by now, which is of no use if it is the requests that are too many.
                Err(Failure::Refused(error)) => {
                    refusals += 1;
                    wants_new = refusals > 1;
                    match lease.exchange().take_back().await {
                        Some(request) if refusals <= MAX_REFUSALS => *slot = Some(request),
                        _ => return Err(ProxyError::Upstream(error)),
                    }
                }
                Err(Failure::Broken(error)) => match lease.exchange().wire().take_request() {
                    Some(request) if may_replay => {
                        wants_new = true;
                        *slot = Some(request.map(|()| RequestBody::Empty));
                    }
                    _ => {
                        return Err(match self.connection.body_state() {
                            BodyState::Broken => ProxyError::ClientBody,
                            BodyState::TooLarge => ProxyError::BodyTooLarge,
                            _ => ProxyError::Upstream(error),
                        });
                    }
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
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut response = pin!(exchange.send(request, may_replay));
        let mut has_begun = false;
        poll_fn(|cx| {
            loop {
                let has_ended = exchange.drive(cx).is_ready();
                if exchange.wire().take_progress() {
                    // One deadline for all that comes before the body, which neither a head in
                    // pieces nor informational responses put off.
                    if !std::mem::replace(&mut has_begun, true) {
                        self.connection.allow_for(limit);
                    }
                    self.pass_on_informational(exchange, expectations);
                    if exchange.wire().has_too_many_informational() {
                        return Poll::Ready(Err(Failure::TooManyInformational));
                    }
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

/// How many of the attempts at `tried` positions were at the backend of `url`.
fn tried_before(route: &Route, tried: &[usize], url: &BackendUrl) -> u32 {
    let is_same = |position: &&usize| {
        route.backend(**position).is_some_and(|other| other.origin == url.origin)
    };
    u32::try_from(tried.iter().filter(is_same).count()).unwrap_or(u32::MAX)
}

/// The pause before another attempt at a backend that has failed so often for this request: one that is
/// just being restarted needs some time, not four attempts within a millisecond.
fn pause(failures: u32) -> Option<Duration> {
    let doublings = failures.checked_sub(1)?.min(MAX_PAUSE_DOUBLINGS);
    Some(FIRST_PAUSE * (1 << doublings))
}

/// Why an exchange gave no response.
enum Failure {
    /// The connection ended, or what came is no HTTP.
    Broken(hyper::Error),
    /// The backend says that it has processed nothing of it.
    Refused(hyper::Error),
    /// Nobody spoke for too long, or the backend did not finish a head.
    TimedOut,
    /// More informational responses than the head of an answer may follow on, or too large ones.
    TooManyInformational,
    /// The connection ended before anything of the request was written.
    Unsent(Box<Request<RequestBody>>),
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Broken(error) => Self::Broken(error),
            SendError::Refused(error) => Self::Refused(error),
            SendError::Unsent(request) => Self::Unsent(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, pause};

    #[test]
    fn pauses_at_the_same_backend_grow_up_to_a_limit() {
        let millis = |failures| pause(failures).as_ref().map(Duration::as_millis);
        let pauses = [0, 1, 2, 3, 4, 5, u32::MAX].map(millis);
        let expected = [None, Some(25), Some(50), Some(100), Some(200), Some(200), Some(200)];
        assert_eq!(pauses, expected);
    }
}
