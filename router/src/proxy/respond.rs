//! The last phases: the backend's response becomes ours and goes to the client while the rest of the request
//! goes to the backend.

use std::future::poll_fn;
use std::sync::Arc;

use tracing::info;

use super::balance::{BackendResponse, bound};
use super::context::RequestContext;
use super::error::ProxyError;
use super::exchange::Head;
use super::flow::Flow;
use super::marks;
use super::own_response::{debug_lines, send};
use super::tunnel::Tunnel;
use super::tunnel::count::Slot;
use crate::client_io::ClientIo;
use crate::http1::connection::{Options, agrees_to_upgrade};
use crate::http1::framing::BodyKind;
use crate::http1::known::KnownField;
use crate::http1::server::{self, Next, ResponsePlan};
use crate::http2::websocket;
use crate::message::response_head::{ResponseEdits, asks_for_login, write_response};
use crate::pool::PooledConnection;
use crate::route::Route;

/// How a request ended.
#[derive(Debug)]
pub(super) enum Finished {
    /// The response was sent, or cut; so goes the connection on.
    Next(Next),
    /// The client is gone.
    Gone,
    /// Both sides speak another protocol from now on.
    Tunnel(Box<Tunnel>),
}

/// Turns the backend's response into ours and sends it.
pub(super) async fn respond(
    io: &mut ClientIo,
    state: &mut server::Connection,
    cx: &mut RequestContext<'_>,
    route: &Arc<Route>,
    response: BackendResponse,
) -> Result<Finished, ProxyError> {
    let BackendResponse { mut backend, head, index, cookie, tunnel } = response;
    marks::judge_response(cx, route, index, &cx.work.response);
    let (length, framing, options) = match head {
        Head::Response(received) => (received.consumed, received.framing, received.options),
        Head::Switch(length) => {
            let buf = cx.work.download.rest();
            let options = Options::of(&cx.work.response.fields, buf);
            (length, crate::http1::framing::Framing::default(), options)
        }
    };
    let switches = matches!(head, Head::Switch(_));
    if let Err(error) = check_upgrade(cx, switches) {
        cx.failed_index = Some(index);
        cx.discard_exchange();
        return Err(error);
    }
    report_success(cx, route);
    if asks_for_login(&cx.work.response, cx.work.download.rest()) {
        backend.bind(bound(cx));
    }
    if cx.client.is_last() {
        state.close_after_next();
    }
    let status = cx.work.response.status;
    let plan = state.begin_response(status, framing.body);
    encode(cx, backend.is_http2(), &plan, options, cookie.as_deref(), index);
    cx.work.download.skip_head(length);
    let takes_trailers = cx.facts.takes_trailers || cx.client.is_http2();
    cx.work.download.take_trailers(takes_trailers);
    begin(cx, status);
    let limit = cx.client.settings.read_timeout(route);
    cx.client.connection.begin_streaming(limit);
    if switches {
        return Ok(switch(io, state, cx, route, backend, tunnel).await);
    }
    let mut flow = Flow { io, state, cx, backend: Some(backend), plan, limit };
    let ended = match flow.take_what_came() {
        Ok(()) => poll_fn(|task| flow.poll(task)).await,
        Err(interrupted) => Err(interrupted),
    };
    Ok(flow.finish(ended).map_or(Finished::Gone, Finished::Next))
}

/// Notes that the client gets a response with this status.
pub(super) fn begin(cx: &mut RequestContext<'_>, status: u16) {
    cx.status = status;
    cx.client.shared.counters.answered(status);
}

/// Whether the response changes the protocol, and if so to what was asked for.
fn check_upgrade(cx: &RequestContext<'_>, switches: bool) -> Result<(), ProxyError> {
    let (head, buf) = (&cx.work.response, cx.work.download.rest());
    let Some(asked) = cx.facts.upgrade else { return Ok(()) };
    let asked = asked.of(&cx.work.input);
    if !switches {
        // A client of HTTP/2 would take any success for the beginning of its tunnel (RFC 8441 5).
        let would_begin = cx.client.is_http2() && (200..300).contains(&head.status);
        return match would_begin {
            true => Err(ProxyError::UnfitResponse("an answer that begins no WebSocket")),
            false => Ok(()),
        };
    }
    // A client of HTTP/2 sees no key, so we have to check the answer to it.
    let is_right = !cx.client.is_http2()
        || cx.facts.websocket_key.is_some_and(|key| {
            let accept = head.fields.value(KnownField::SecWebSocketAccept, buf);
            websocket::accepts(key.of(&cx.work.input), accept.unwrap_or_default())
        });
    match is_right && agrees_to_upgrade(&head.fields, buf, asked) {
        true => Ok(()),
        false => Err(ProxyError::UnfitResponse("101 that was not asked for")),
    }
}

fn encode(
    cx: &mut RequestContext<'_>,
    over_http2: bool,
    plan: &ResponsePlan,
    options: Options,
    cookie: Option<&[u8]>,
    index: usize,
) {
    let shared = &cx.client.shared;
    let debug = cx.facts.wants_debug.then(|| debug_lines(cx, index));
    let work = &mut *cx.work;
    let head = &work.response;
    let has_date = head.fields.present().contains(KnownField::Date);
    let date = (!has_date).then(|| shared.dates.now());
    let debug: Vec<(&str, &[u8])> =
        debug.iter().flatten().map(|(name, value)| (*name, value.as_bytes())).collect();
    let hsts =
        cx.options.as_ref().filter(|_| cx.is_https).and_then(|options| options.hsts.as_deref());
    let upgrade = cx.facts.upgrade.filter(|_| head.status == 101);
    let has_http2_trailers =
        over_http2 && !matches!(plan.body, BodyKind::None | BodyKind::Length(0));
    let edits = ResponseEdits {
        plan,
        upgrade: upgrade.map(|upgrade| upgrade.of(&work.input)),
        date: date.as_ref().map(|date| &date[..]),
        cookie,
        hsts: hsts.map(str::as_bytes),
        request_id: cx.ids.as_ref().map(|ids| ids.request_id(&work.input)),
        announces_grpc_trailers: cx.facts.takes_trailers
            && has_http2_trailers
            && !cx.client.is_http2(),
        extra: &debug,
    };
    let (buf, out) = work.download.rest_and_out();
    write_response(out, head, buf, options, &edits);
}

/// The protocol changes: once the client has the `101`, both sides are a tunnel.
async fn switch(
    io: &mut ClientIo,
    state: &mut server::Connection,
    cx: &mut RequestContext<'_>,
    route: &Route,
    backend: PooledConnection,
    slot: Option<Slot>,
) -> Finished {
    if !send(io, cx).await {
        return Finished::Gone;
    }
    state.become_tunnel();
    cx.client.connection.note_answered();
    let buffers = &cx.client.shared.buffers;
    let work = &mut *cx.work;
    let from_backend = work.download.rest().to_vec();
    let consumed = work.upload.finish(&mut work.input, buffers);
    work.download.finish(buffers);
    let from_client = work.input.get(consumed..).unwrap_or_default().to_vec();
    cx.consumed = work.input.len();
    let idle_timeout = cx.client.settings.tunnel_idle_timeout;
    Finished::Tunnel(Box::new(Tunnel {
        backend: backend.into_stream(),
        from_client,
        from_backend,
        idle_timeout: match &route.options {
            Some(options) => options.tunnel_timeout(idle_timeout),
            None => idle_timeout,
        },
        slot,
        bytes_sent: if cx.client.is_http2() { 0 } else { cx.bytes_sent },
        line: cx.take_line(),
    }))
}

/// Says that a host is well again whose failures were warned of.
fn report_success(cx: &RequestContext<'_>, route: &Route) {
    let Some(frontend) = route.frontend() else { return };
    let shared = &cx.client.shared;
    if let Some(lasted) = shared.failures.succeeded(&frontend.name, shared.clock.coarse()) {
        info!(
            host = %route.host, frontend = %frontend.name, failed_for_seconds = lasted / 1000,
            "host is answered by its backends again"
        );
    }
}
