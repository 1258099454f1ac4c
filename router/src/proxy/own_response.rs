//! Responses of our own: error pages, redirects, and the answer to health checks.

use std::future::poll_fn;
use std::task::Poll;

use http::StatusCode;
use tracing::{debug, warn};

use super::context::RequestContext;
use super::download::Download;
use super::error::{Consequences, ProxyError};
use super::respond::{self, Finished};
use crate::client_io::ClientIo;
use crate::http1::encode::HeadWriter;
use crate::http1::framing::BodyKind;
use crate::http1::known::KnownField;
use crate::http1::server::{self, Awaited};
use crate::message::hops::MAX_HOPS;
use crate::route::{Frontend, Route, Target};

/// RFC 9110 15.5.6 asks for the list; it is every method but CONNECT and TRACE.
const ALLOWED: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The answer to a load balancer's health check. It is not logged.
pub(super) async fn pong(
    io: &mut ClientIo,
    state: &mut server::Connection,
    cx: &mut RequestContext<'_>,
) -> Finished {
    cx.is_logged = false;
    let page = Page { status: 200, content_type: b"text/plain", body: b"ok", fields: Vec::new() };
    answer(io, state, cx, &page).await
}

/// The answer to a request that no backend answered.
pub(super) async fn refuse(
    io: &mut ClientIo,
    state: &mut server::Connection,
    cx: &mut RequestContext<'_>,
    error: &ProxyError,
) -> Finished {
    let follows = error.consequences(cx.client.settings.retry_on_error);
    let peer = cx.client.connection.peer;
    debug!(client.addr = %peer, side = ?follows.side, %error, "request refused");
    if matches!(error, ProxyError::ClientGone) {
        return Finished::Gone;
    }
    let shared = &cx.client.shared;
    if matches!(error, ProxyError::Loop)
        && let Some(suppressed) = shared.loop_reports.is_due(shared.clock.coarse())
    {
        warn!(
            client.addr = %peer, suppressed,
            "request refused with 508: it came through {MAX_HOPS} routers; lists of frontends that \
             name routers lead in a circle"
        );
    }
    let cause = if follows.is_outage { report_failure(cx, error, &follows) } else { None };
    if follows.closes {
        state.close_after_next();
    }
    let status = StatusCode::from_u16(follows.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let is_malformed = matches!(error, ProxyError::Request(_) | ProxyError::BadRequest(_));
    let body = shared.pages.page(status, is_malformed);
    let fields = fields(cx, error, &follows, cause);
    let page = Page { status: follows.status, content_type: b"text/html", body: &body, fields };
    answer(io, state, cx, &page).await
}

/// A response of our own.
struct Page<'a> {
    status: u16,
    content_type: &'static [u8],
    body: &'a [u8],
    fields: Vec<(&'static str, Vec<u8>)>,
}

/// What the head of an error page says besides.
fn fields(
    cx: &RequestContext<'_>,
    error: &ProxyError,
    follows: &Consequences,
    cause: Option<String>,
) -> Vec<(&'static str, Vec<u8>)> {
    let mut fields: Vec<(&'static str, Vec<u8>)> = Vec::new();
    if let Some(seconds) = follows.retry_after {
        fields.push(("Retry-After", itoa::Buffer::new().format(seconds).into()));
    }
    match error {
        ProxyError::HttpsOnly { location, .. } => fields.push(("Location", location.clone())),
        ProxyError::Unauthorized => fields
            .push(("WWW-Authenticate", b"Basic realm=\"restricted\", charset=\"UTF-8\"".to_vec())),
        ProxyError::MethodNotAllowed => fields.push(("Allow", ALLOWED.to_vec())),
        _ => {}
    }
    if cx.facts.wants_debug {
        fields.push(("x-debug-error", follows.debug_text.into()));
        // What is no field value is left out.
        if let Some(cause) = cause.filter(|cause| is_field_value(cause)) {
            fields.push(("x-debug-error-cause", cause.into_bytes()));
        }
        fields.push(version_line());
    }
    fields
}

/// Whether a text may stand in a field (RFC 9110 5.5).
fn is_field_value(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f))
}

fn version_line() -> (&'static str, Vec<u8>) {
    ("x-debug-version-hipache", env!("CARGO_PKG_VERSION").into())
}

/// The `X-Debug-*` lines of a response of the backend at `index`.
pub(super) fn debug_lines(cx: &RequestContext<'_>, index: usize) -> Vec<(&'static str, String)> {
    let Some(route) = &cx.route else { return Vec::new() };
    let now = cx.client.shared.clock.now();
    let (identifier, mark) = route.frontend().map_or(("", ""), Frontend::shown_identifier);
    let backend_time = now.saturating_sub(cx.backend_started.unwrap_or(now));
    let total = now.saturating_sub(cx.started);
    let number = |value: u64| itoa::Buffer::new().format(value).to_owned();
    let lines = [
        ("x-debug-version-hipache", env!("CARGO_PKG_VERSION").to_owned()),
        ("x-debug-backend-url", route.backend(index).map_or("", |url| &url.href).to_owned()),
        ("x-debug-backend-id", number(index as u64)),
        ("x-debug-vhost", format!("{identifier}{mark}")),
        ("x-debug-frontend-key", route.host.to_string()),
        ("x-debug-time-total", number(total)),
        ("x-debug-time-backend", number(backend_time)),
    ];
    // An identifier may be any text; what is no field value is left out.
    lines.into_iter().filter(|(_, value)| is_field_value(value)).collect()
}

/// Warns of a failure, at most once a minute for each list. Returns its cause, in words.
fn report_failure(
    cx: &RequestContext<'_>,
    error: &ProxyError,
    follows: &Consequences,
) -> Option<String> {
    let route: &Route = cx.route.as_deref()?;
    let cause = error.cause(route);
    let url = cx.failed_index.and_then(|index| route.backend(index)).map(|url| &*url.href);
    let frontend = match &route.target {
        Target::Frontend(frontend) => &*frontend.name,
        Target::Broken(problem) => &*problem.key,
        Target::Unknown => &*route.host,
    };
    let shared = &cx.client.shared;
    if let Some(suppressed) = shared.failures.failed(frontend, shared.clock.now()) {
        warn!(
            host = %route.host, frontend, backend.url = url, suppressed,
            "host answered with {}: {cause}", follows.status
        );
    }
    Some(match url {
        Some(url) => format!("{url}: {cause}"),
        None => cause,
    })
}

/// Sends a response of our own.
async fn answer(
    io: &mut ClientIo,
    state: &mut server::Connection,
    cx: &mut RequestContext<'_>,
    page: &Page<'_>,
) -> Finished {
    if cx.client.is_last() {
        state.close_after_next();
    }
    let plan = state.begin_response(page.status, BodyKind::Length(page.body.len() as u64));
    respond::begin(cx, page.status);
    cx.client.connection.begin_streaming(cx.client.settings.tcp_timeout);
    let shared = &cx.client.shared;
    // Behind informational responses that the client has not taken yet.
    let out = cx.work.download.out();
    let reason = StatusCode::from_u16(page.status).ok();
    let reason = reason.and_then(|status| status.canonical_reason()).unwrap_or_default();
    let mut writer = HeadWriter::response(out, page.status, reason.as_bytes(), plan.announce);
    writer.add(KnownField::ContentType, page.content_type);
    // What Hipache adds to every answer of its own.
    writer.add_named("Cache-Control", b"no-cache");
    writer.add_named("Pragma", b"no-cache");
    writer.add_named("Expires", b"-1");
    writer.add(KnownField::Date, &shared.dates.now());
    for (name, value) in &page.fields {
        writer.add_named(name, value);
    }
    if let Some(options) = cx.options.as_ref().filter(|_| cx.is_https)
        && let Some(hsts) = &options.hsts
    {
        writer.add(KnownField::StrictTransportSecurity, hsts.as_bytes());
    }
    if let Some(ids) = &cx.ids {
        writer.add(KnownField::XRequestId, ids.request_id(&cx.work.input));
    }
    if let Some(connection) = plan.connection {
        writer.add(KnownField::Connection, connection.as_bytes());
    }
    writer.end();
    if plan.body != BodyKind::None {
        out.extend_from_slice(page.body);
        cx.content_sent = page.body.len() as u64;
    }
    let is_sent = send(io, cx).await;
    let work = &mut *cx.work;
    work.download.finish(&shared.buffers);
    // What was not read of the body yet begins behind the head.
    cx.consumed = cx.consumed.max(cx.accepted.consumed);
    match is_sent {
        true => {
            cx.client.connection.note_answered();
            Finished::Next(state.end_response())
        }
        false => Finished::Gone,
    }
}

/// Writes all that waits for the client. `false` if it is gone, or takes nothing for too long.
pub(super) async fn send(io: &mut ClientIo, cx: &mut RequestContext<'_>) -> bool {
    let connection = &cx.client.connection;
    let limit = cx.client.settings.tcp_timeout;
    let (bytes_sent, download) = (&mut cx.bytes_sent, &mut cx.work.download);
    poll_fn(|task| {
        while !download.is_flushed() {
            match download.poll_write(task, io) {
                Poll::Ready(Ok(count)) => {
                    *bytes_sent += count as u64;
                    connection.allow_for(limit);
                }
                Poll::Ready(Err(_gone)) => return Poll::Ready(false),
                Poll::Pending => return stalled(io, connection),
            }
        }
        match Download::poll_flush(task, io) {
            Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
            Poll::Pending => stalled(io, connection),
        }
    })
    .await
}

fn stalled(io: &ClientIo, connection: &crate::connection::Connection) -> Poll<bool> {
    connection.set_awaited(Awaited::Response);
    if !connection.has_expired() {
        return Poll::Pending;
    }
    io.reset();
    Poll::Ready(false)
}
