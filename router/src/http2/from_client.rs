//! Requests of clients of HTTP/2 as those of HTTP/1.1. Pure.
//!
//! The library has refused what RFC 9113 8.2 and 8.3 forbid: names and values with forbidden bytes,
//! connection headers, wrong pseudo-headers, lengths that do not fit. What is refused here is what may be
//! read in two ways on the far side.

use http::header::{
    CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, REFERER, SEC_WEBSOCKET_KEY, USER_AGENT,
};
use http::request::Parts;
use http::{Method, Uri};
use hyper::ext::Protocol;

use super::error::EdgeError;
use super::{fields, websocket};
use crate::http1::framing::BodyKind;

/// A request in HTTP/1.1.
#[derive(Debug)]
pub(super) struct Translated {
    /// Its head, in any case one that can be read, for the access log.
    pub(super) head: Vec<u8>,
    /// How its body is framed.
    pub(super) framing: BodyKind,
    /// The `Sec-WebSocket-Key` of a request for a WebSocket.
    pub(super) key: Option<String>,
    /// Why it is refused. Its head says no more than what is logged then, and it has no body.
    pub(super) refusal: Option<EdgeError>,
}

/// Whether this asks for a tunnel of WebSocket (RFC 8441 4).
fn is_websocket(parts: &Parts) -> bool {
    parts.method == Method::CONNECT
        && parts.extensions.get::<Protocol>().is_some_and(|p| p.as_str() == "websocket")
}

/// The size of a head as RFC 9113 6.5.2 counts it, but for cookies, which will be one header.
pub(super) fn head_size(parts: &Parts) -> usize {
    let target = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let fields = parts.headers.iter().map(|(name, value)| match *name == COOKIE {
        true => value.len() + 2,
        false => name.as_str().len() + value.len() + 32,
    });
    target + fields.sum::<usize>()
}

/// Translates a request: one `Host`, the authority, comes first; cookies that were sent in crumbs are one
/// header again (RFC 9113 8.2.3); the target is a path. A `CONNECT` of RFC 8441 becomes the handshake of
/// RFC 6455, with a key from `random`. `is_over`: its stream has ended with the head. More than `max_fields` lines
/// are refused.
pub(super) fn request(
    parts: &Parts,
    is_over: bool,
    max_fields: usize,
    random: impl FnOnce() -> [u8; 16],
) -> Translated {
    let key = is_websocket(parts).then(|| websocket::key_of(random()));
    match accepted(parts, is_over, max_fields, key.as_deref()) {
        Ok((head, framing)) => Translated { head, framing, key, refusal: None },
        Err(error) => refused(parts, error),
    }
}

/// A head that says no more than what is logged of a refused request.
pub(super) fn refused(parts: &Parts, error: EdgeError) -> Translated {
    let path = parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str);
    let target = match (path, parts.uri.authority()) {
        (Some(path), _) if path.starts_with('/') => path,
        (_, Some(authority)) if parts.method == Method::CONNECT => authority.as_str(),
        _ => "/",
    };
    let host = match parts.uri.authority() {
        Some(authority) if !authority.as_str().is_empty() => authority.as_str().as_bytes(),
        _ => parts.headers.get(HOST).map(http::HeaderValue::as_bytes).unwrap_or_default(),
    };
    let mut head = begin(parts.method.as_str(), target, host);
    for name in [USER_AGENT, REFERER] {
        if let Some(value) = parts.headers.get(&name) {
            fields::write(&mut head, name.as_ref(), value.as_bytes());
        }
    }
    head.extend_from_slice(b"\r\n");
    Translated { head, framing: BodyKind::None, key: None, refusal: Some(error) }
}

fn begin(method: &str, target: &str, host: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(1024);
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    fields::write(&mut head, b"host", host);
    head
}

fn accepted(
    parts: &Parts,
    is_over: bool,
    max_fields: usize,
    key: Option<&str>,
) -> Result<(Vec<u8>, BodyKind), EdgeError> {
    if parts.method == Method::CONNECT && key.is_none() {
        return Err(EdgeError::MethodNotAllowed);
    }
    if !matches!(parts.uri.scheme_str(), Some("http" | "https") | None) {
        return Err(EdgeError::BadRequest("invalid scheme"));
    }
    let path = path(&parts.uri)?;
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let host = host(authority, &parts.headers)?;
    let length = length(&parts.headers)?;
    let method = if key.is_some() { "GET" } else { parts.method.as_str() };
    let mut head = begin(method, path, host);
    let mut lines = 1 + copy_fields(&mut head, &parts.headers, key.is_some());
    let mut add = |name: &[u8], value: &[u8]| {
        fields::write(&mut head, name, value);
        lines += 1;
    };
    let framing = match (key, length) {
        (Some(key), _) => {
            add(b"connection", b"upgrade");
            add(b"upgrade", b"websocket");
            add(SEC_WEBSOCKET_KEY.as_ref(), key.as_bytes());
            BodyKind::None
        }
        (None, Some(length)) => {
            add(CONTENT_LENGTH.as_ref(), length);
            // What is no number is an error for the reader of this head.
            number(length).map_or(BodyKind::None, BodyKind::Length)
        }
        (None, None) if !is_over => {
            add(b"transfer-encoding", b"chunked");
            BodyKind::Chunked
        }
        (None, None) => {
            if expects_content(&parts.method) {
                add(CONTENT_LENGTH.as_ref(), b"0");
            }
            BodyKind::None
        }
    };
    if lines > max_fields {
        return Err(EdgeError::TooManyHeaders);
    }
    head.extend_from_slice(b"\r\n");
    Ok((head, framing))
}

/// Writes the fields that stay as they are, and all cookies in the place of the first. Returns how many lines
/// that are.
fn copy_fields(head: &mut Vec<u8>, headers: &HeaderMap, is_websocket: bool) -> usize {
    let mut lines = 0;
    let mut has_cookie = false;
    for (name, value) in headers {
        if *name == COOKIE {
            if std::mem::replace(&mut has_cookie, true) {
                continue;
            }
            head.extend_from_slice(b"cookie: ");
            for (index, crumb) in headers.get_all(COOKIE).iter().enumerate() {
                head.extend_from_slice(if index == 0 { b"" } else { b"; " });
                head.extend_from_slice(crumb.as_bytes());
            }
            head.extend_from_slice(b"\r\n");
        } else if is_rewritten(name, is_websocket) {
            continue;
        } else {
            fields::write(head, name.as_ref(), value.as_bytes());
        }
        lines += 1;
    }
    lines
}

/// Whether a field is written here, if at all.
fn is_rewritten(name: &HeaderName, is_websocket: bool) -> bool {
    *name == HOST
        || *name == CONTENT_LENGTH
        || (is_websocket && *name == SEC_WEBSOCKET_KEY)
        || fields::is_connection_specific(name)
}

/// Whether a request without content says so (RFC 9110 8.6): the method has a meaning for it.
fn expects_content(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT)
}

/// `:path` as a target: it begins with a slash, or is the `*` of OPTIONS (RFC 9113 8.3.1). `http` takes a query
/// or a fragment without a path, too, and cuts off the fragment, of which nothing is left.
fn path(uri: &Uri) -> Result<&str, EdgeError> {
    let path = uri.path_and_query().filter(|path| {
        // An empty one is shown as a slash, but for that of a URI that has nothing else.
        path.as_str().starts_with(['/', '*']) && !Uri::from((*path).clone()).path().is_empty()
    });
    path.map(http::uri::PathAndQuery::as_str).ok_or(EdgeError::BadRequest("invalid :path"))
}

/// The one host of a request. `:authority` and `Host` have to agree (RFC 9113 8.3.1).
fn host<'a>(authority: Option<&'a str>, headers: &'a HeaderMap) -> Result<&'a [u8], EdgeError> {
    let mut hosts = headers.get_all(HOST).iter().map(http::HeaderValue::as_bytes);
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(EdgeError::BadRequest("more than one host header"));
    }
    let Some(authority) = authority.filter(|authority| !authority.is_empty()) else {
        return header.ok_or(EdgeError::NoHost);
    };
    if authority.contains('@') {
        return Err(EdgeError::BadRequest("user and password in :authority"));
    }
    if header.is_some_and(|header| !header.eq_ignore_ascii_case(authority.as_bytes())) {
        return Err(EdgeError::BadRequest(":authority and host differ"));
    }
    Ok(authority.as_bytes())
}

/// The one length of a request. Different ones can be read in two ways by a backend; what is repeated is said
/// once, as for clients of HTTP/1.1 (RFC 9110 8.6).
fn length(headers: &HeaderMap) -> Result<Option<&[u8]>, EdgeError> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter().map(http::HeaderValue::as_bytes);
    let first = lengths.next();
    if lengths.any(|length| Some(length) != first) {
        return Err(EdgeError::BadRequest("Content-Length that is not one number"));
    }
    Ok(first)
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
