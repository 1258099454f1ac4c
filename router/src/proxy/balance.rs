//! The fourth phase: choose a backend, check a connection out, send the request, wait for the head of the
//! response; and again where that is safe.

use std::sync::Arc;
use std::time::Duration;

use shared::backend::{BackendUrl, Origin};
use tracing::{debug, warn};

use super::Client;
use super::context::RequestContext;
use super::error::ProxyError;
use super::exchange::{Exchange, Head, expect_patience};
use super::marks;
use super::retry::{self, Again, Replay};
use super::tunnel::count::Slot;
use super::upload::BodyLimits;
use super::watch::while_client_waits;
use crate::client_io::ClientIo;
use crate::http1::client::Asked;
use crate::http1::framing::BodyKind;
use crate::http1::server;
use crate::message::host_options::cookies;
use crate::message::request_head::{Outgoing, write_request};
use crate::pool::{BoundConnection, CheckoutError, Peer, PooledConnection, Purpose};
use crate::route::options::KeepAlive;
use crate::route::{Pick, Route};
use crate::upstream::connect::Destination;

/// Pause before the second attempt at the same backend; each further one is twice as long, up to a limit: with
/// the usual number of retries a request is held up for less than 0.2 s.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// The longest pause is 25 ms times two to the power of this: 200 ms.
const MAX_PAUSE_DOUBLINGS: u32 = 3;

/// The response of a backend with what belongs to it.
pub(super) struct BackendResponse {
    pub(super) backend: PooledConnection,
    pub(super) head: Head,
    /// The index of the backend in the list.
    pub(super) index: usize,
    /// Brings the client back to this backend.
    pub(super) cookie: Option<Vec<u8>>,
    /// What a tunnel is counted by, if one was asked for.
    pub(super) tunnel: Option<Slot>,
}

/// Tries backends until one answers.
pub(super) async fn balance(
    io: &mut ClientIo,
    state: &mut server::Connection,
    cx: &mut RequestContext<'_>,
    route: &Arc<Route>,
) -> Result<BackendResponse, ProxyError> {
    let shared = &cx.client.shared;
    let (sticky, preferred) = preferred(cx, route);
    let retries = cx.client.settings.retry_on_error;
    let mut tried: Vec<usize> = Vec::new();
    let mut last_error = None;
    loop {
        let pick = match preferred.filter(|_| tried.is_empty()) {
            Some(index) => Pick::Backend(index),
            None => route.pick(shared.clock.coarse(), &tried, |count| fastrand::usize(..count)),
        };
        let (index, url) = match pick {
            Pick::Backend(index) => match route.backend(index) {
                Some(url) => (index, url),
                None => return Err(ProxyError::InvalidBackends),
            },
            Pick::NoneUsable => return Err(ProxyError::InvalidBackends),
            Pick::NoneAlive => return Err(last_error.unwrap_or(ProxyError::NoBackend)),
        };
        if let Some(pause) = pause(tried_before(route, &tried, url)) {
            let pausing = tokio::time::sleep(pause);
            while_client_waits(io, cx.client, &mut cx.work.input, pausing).await?;
        }
        cx.note_backend();
        match attempt(io, state, cx, route, url).await {
            Ok((backend, head, tunnel)) => {
                let cookie = sticky_cookie(cx, route, index, sticky);
                return Ok(BackendResponse { backend, head, index, cookie, tunnel });
            }
            Err(error) => {
                debug!(host = %route.host, backend.url = %url.href, %error, "attempt failed");
                cx.failed_index = Some(index);
                let follows = error.consequences(retries);
                marks::judge_error(cx, route, index, &error, &follows);
                if !follows.may_try_another || tried.len() >= retries as usize {
                    return Err(error);
                }
                shared.counters.retries.add();
                tried.push(index);
                last_error = Some(error);
            }
        }
    }
}

/// The index that the client's cookie names, and the one to be tried first.
fn preferred(cx: &RequestContext<'_>, route: &Route) -> (Option<usize>, Option<usize>) {
    let shared = &cx.client.shared;
    let name = route.options.as_ref().and_then(|options| options.sticky.as_deref());
    let sticky = name.and_then(|name| {
        let cookies = cookies(&cx.work.head, &cx.work.input, name);
        route.stuck(&shared.sticky_key, cookies, shared.clock.coarse())
    });
    (sticky, sticky.or_else(|| logged_in_at(cx, route)))
}

/// The backend on whose connection the client has begun to log in, unless that backend is dead: all
/// steps of such a login have to take place on one connection.
fn logged_in_at(cx: &RequestContext<'_>, route: &Route) -> Option<usize> {
    let bound = cx.client.bound.get()?;
    let now = cx.client.shared.clock.coarse();
    let count = route.frontend()?.backends.len();
    bound.at(|origin| {
        (0..count).find(|index| {
            route.backend(*index).is_some_and(|url| url.origin == *origin)
                && !route.is_dead(*index, now)
        })
    })
}

/// The cookie for a client that is to return to the backend at `index`, unless it has it.
fn sticky_cookie(
    cx: &RequestContext<'_>,
    route: &Route,
    index: usize,
    sticky: Option<usize>,
) -> Option<Vec<u8>> {
    let name = route.options.as_ref()?.sticky.as_deref()?;
    if sticky == Some(index) {
        return None;
    }
    let token = route.token(&cx.client.shared.sticky_key, index)?;
    Some(crate::message::host_options::sticky_cookie(name, token, cx.is_https))
}

/// Sends the request to one backend, on as many connections as that is safe.
async fn attempt(
    io: &mut ClientIo,
    state: &mut server::Connection,
    cx: &mut RequestContext<'_>,
    route: &Arc<Route>,
    url: &BackendUrl,
) -> Result<(PooledConnection, Head, Option<Slot>), ProxyError> {
    let client = cx.client;
    let limit = client.settings.read_timeout(route);
    let tunnel = tunnel_slot(cx, &url.origin)?;
    let has_body = cx.work.input.len() > cx.accepted.consumed;
    let is_held = cx.accepted.expects_continue && !has_body;
    cx.work.upload.begin(cx.accepted.consumed, is_held, body_limits(client, limit));
    let mut wants_new = false;
    let mut refusals = 0;
    let error = loop {
        let mut backend = match lease(io, cx, route, url, wants_new).await {
            // What HTTP/2 does not know is ignored (RFC 9110 7.8, RFC 9113 8.6). A WebSocket's
            // client could do nothing with an answer of HTTP.
            Err(ProxyError::Checkout(CheckoutError::NoTunnel)) if ignores_upgrade(cx) => {
                cx.facts.upgrade = None;
                continue;
            }
            Ok(backend) => backend,
            Err(error) => break error,
        };
        begin(cx, route, &mut backend);
        let is_held = cx.work.upload.is_held();
        client.connection.allow_for(if is_held { Some(expect_patience(limit)) } else { limit });
        client.connection.permit.hold(backend.take_permit());
        let exchange = Exchange { io, state, cx, backend: &mut backend, limit };
        let failed = match exchange.await_head().await {
            Ok(head) => {
                let tunnel = tunnel.filter(|_| cx.facts.upgrade.is_some());
                return Ok((backend, head, tunnel));
            }
            Err(failed) => failed,
        };
        client.connection.permit.release();
        refusals += u32::from(failed.failure == retry::Failure::Refused);
        let again = retry::decide(backend.attempt(), failed.failure, replay(cx), refusals);
        if again == Again::No {
            break failed.error;
        }
        wants_new = again == Again::OnNew;
        state.rewind_body();
    };
    cx.discard_exchange();
    Err(error)
}

fn body_limits(client: &Client, silence: Option<Duration>) -> BodyLimits {
    let limits = &client.settings.limits;
    let min_rate = limits.min_body_rate.map(|rate| (rate, limits.head_timeout));
    BodyLimits { silence, min_rate }
}

/// What the request allows if an attempt fails.
fn replay(cx: &RequestContext<'_>) -> Replay {
    Replay {
        is_idempotent: cx.work.head.method.is_idempotent(),
        is_without_body: is_without_body(cx),
        is_body_kept: cx.work.upload.is_kept(),
    }
}

/// Whether a change of protocol that the backend cannot make may be left out of the request.
fn ignores_upgrade(cx: &RequestContext<'_>) -> bool {
    cx.facts.upgrade.is_some() && !cx.facts.names_websocket(&cx.work.input)
}

/// A connection to the backend: one that was used before, or a new one.
async fn lease(
    io: &mut ClientIo,
    cx: &mut RequestContext<'_>,
    route: &Route,
    url: &BackendUrl,
    wants_new: bool,
) -> Result<PooledConnection, ProxyError> {
    let client = cx.client;
    let options = route.options.as_ref();
    let peer = Peer {
        to: Destination {
            origin: &url.origin,
            trust: options.and_then(|options| options.trust.as_ref()),
            connect_timeout: options.and_then(|options| options.connect_timeout),
        },
        purpose: purpose(cx, &url.origin),
        keep_alive: keep_alive(cx, route),
        is_safe: cx.work.head.method.is_idempotent() && is_without_body(cx),
        bound: client.bound.get(),
    };
    let pools = &client.shared.pools;
    let now = client.shared.clock.coarse();
    let idle = if wants_new { None } else { pools.checkout_idle(peer, now) };
    if let Some(backend) = idle {
        return Ok(backend);
    }
    let connecting = Box::pin(pools.checkout_new(peer, now));
    let connected = while_client_waits(io, client, &mut cx.work.input, connecting).await?;
    connected.map_err(ProxyError::Checkout)
}

/// What the connection is wanted for.
fn purpose(cx: &RequestContext<'_>, origin: &Origin) -> Purpose {
    if cx.facts.upgrade.is_some() {
        return if cx.facts.is_websocket(&cx.work.input) {
            Purpose::WebSocket
        } else {
            Purpose::Upgrade
        };
    }
    if cx.facts.logs_in {
        return Purpose::Login;
    }
    Purpose::of(origin, cx.accepted.consumed, cx.work.head.fields.len())
}

/// Which requests of this host may use connections again.
fn keep_alive(cx: &RequestContext<'_>, route: &Route) -> KeepAlive {
    let default = match cx.client.settings.backend_keep_alive {
        true => KeepAlive::On,
        false => KeepAlive::Off,
    };
    route.options.as_ref().map_or(default, |options| options.keep_alive(default))
}

fn is_without_body(cx: &RequestContext<'_>) -> bool {
    matches!(cx.accepted.body, BodyKind::None | BodyKind::Length(0))
}

/// The request begins on this connection.
fn begin(cx: &mut RequestContext<'_>, route: &Route, backend: &mut PooledConnection) {
    let upgrade = cx.facts.upgrade.is_some();
    let close = closes(cx, route) && !upgrade;
    backend.connection().state.begin(Asked { method: cx.work.head.method, close, upgrade });
    if cx.facts.logs_in {
        backend.log_in(bound(cx));
    }
    encode(cx, route, backend.is_http2());
    cx.work.download.attempt();
}

/// The connection that belongs to the client, where it can have one: requests of HTTP/2 run at the same time,
/// often for several users of one proxy.
pub(super) fn bound<'c>(cx: &RequestContext<'c>) -> Option<&'c Arc<BoundConnection>> {
    let client = cx.client;
    (!client.is_http2()).then(|| client.bound.get_or_init(Arc::default))
}

fn closes(cx: &RequestContext<'_>, route: &Route) -> bool {
    keep_alive(cx, route) == KeepAlive::Off
}

/// Encodes the head for the backend.
fn encode(cx: &mut RequestContext<'_>, route: &Route, keeps_body: bool) {
    let close = closes(cx, route);
    let work = &mut *cx.work;
    let (head, buf) = (&work.head, &work.input[..]);
    let out = work.upload.attempt(cx.accepted.consumed, keeps_body);
    // Every accepted request has it.
    let Some(forwarding) = &cx.forwarding else { return };
    let authority = || head.target.authority().of(buf);
    let outgoing = Outgoing {
        head,
        buf,
        options: cx.accepted.options,
        body: cx.accepted.body,
        host: cx.has_authority.then(authority),
        forwarding,
        ids: cx.ids.as_ref(),
        hops: cx.hops,
        upgrade: cx.facts.upgrade.map(|upgrade| upgrade.of(buf)),
        close,
    };
    write_request(out, &outgoing);
}

/// Counts the tunnel that an upgrade would become.
fn tunnel_slot(cx: &RequestContext<'_>, backend: &Origin) -> Result<Option<Slot>, ProxyError> {
    if cx.facts.upgrade.is_none() {
        return Ok(None);
    }
    let shared = &cx.client.shared;
    let tunnels = &shared.tunnels;
    tunnels.counts.admit(backend, &cx.client.settings.limits).map(Some).map_err(|refusal| {
        shared.counters.tunnels_refused.add();
        if let Some(suppressed) = tunnels.refusals.is_due(shared.clock.coarse()) {
            warn!(
                %backend, setting = refusal.setting(), suppressed,
                "tunnels (WebSockets and other upgrades) are refused with 503: a limit is reached"
            );
        }
        ProxyError::TooManyTunnels(refusal)
    })
}

/// How many of the attempts at `tried` indexes were at the backend of `url`.
fn tried_before(route: &Route, tried: &[usize], url: &BackendUrl) -> u32 {
    let is_same =
        |index: &&usize| route.backend(**index).is_some_and(|other| other.origin == url.origin);
    u32::try_from(tried.iter().filter(is_same).count()).unwrap_or(u32::MAX)
}

/// The pause before another attempt at a backend that has failed so often for this request: one that is
/// just being restarted needs some time, not four attempts within a millisecond.
fn pause(failures: u32) -> Option<Duration> {
    let doublings = failures.checked_sub(1)?.min(MAX_PAUSE_DOUBLINGS);
    Some(FIRST_PAUSE * (1 << doublings))
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
