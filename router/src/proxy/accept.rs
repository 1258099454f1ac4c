//! The first phase: whether this is a request that may be forwarded, for which host, and what the backend is
//! to know of its client.

use shared::host;

use super::Protocol;
use super::context::RequestContext;
use super::error::ProxyError;
use super::look_up::Lookup;
use crate::http1::error::RequestError;
use crate::http1::head::Method;
use crate::http1::server;
use crate::http1::target::Form;
use crate::message::hops;
use crate::route::Route;

/// Checks what the message layer leaves open, and looks the host up in memory. `None` is a ping.
pub(super) fn accept(cx: &mut RequestContext<'_>) -> Result<Option<Lookup>, ProxyError> {
    let client = cx.client;
    if let Protocol::Http2 { refusal } = &client.protocol
        && let Some(error) = shared::lock::lock(refusal).take()
    {
        return Err(error);
    }
    // CONNECT would make us dial whatever a client names; TRACE would show it headers that
    // proxies before us have added (RFC 9110 9.3.6, 9.3.8).
    if matches!(cx.work.head.method, Method::Connect | Method::Trace) {
        return Err(ProxyError::MethodNotAllowed);
    }
    // The authority of the target wins over `Host` (RFC 9112 3.2.2).
    cx.has_authority = cx.work.head.target.form == Form::Absolute;
    let host = host::normalize(cx.host_text()).map_err(|_error| {
        ProxyError::BadRequest(match cx.has_authority {
            true => "invalid host in the request target",
            false => "invalid host header",
        })
    })?;
    if host == host::PING {
        return Ok(None);
    }
    let hops =
        hops::next(cx.facts.hops, cx.facts.was_forwarded).map_err(|hops::Loop| ProxyError::Loop)?;
    if client.tls.as_ref().is_some_and(|tls| !tls.serves(&host, client.is_http2())) {
        return Err(ProxyError::Misdirected);
    }
    let limits = &client.settings.limits;
    if limits.max_requests.is_some_and(|most| client.connection.running_requests() > most) {
        return Err(ProxyError::Overloaded);
    }
    let lookup = Lookup::in_memory(&client.shared, &host);
    let (head, buf) = (&cx.work.head, &cx.work.input[..]);
    let is_trusted = |address| client.settings.is_trusted(address);
    cx.forwarding = Some(client.info.resolve(head, buf, cx.host_text(), is_trusted));
    cx.hops = hops;
    Ok(Some(lookup))
}

/// Limits the length of the body: the host's own limit may be a higher one.
pub(super) fn limit_body(
    cx: &RequestContext<'_>,
    state: &mut server::Connection,
    route: &Route,
) -> Result<(), RequestError> {
    let of_host = route.options.as_ref().and_then(|options| options.max_body);
    state.limit_body(of_host.or(cx.client.settings.limits.max_body))
}
