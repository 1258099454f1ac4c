//! Responses of backends of HTTP/2 as those of HTTP/1.1. Pure.

use http::header::{CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT};
use http::response::Parts;

use super::{fields, websocket};
use crate::http1::framing::{BodyKind, has_no_body};
use crate::http1::head::Method;

/// The head of a response to `method` in HTTP/1.1, and how its body is framed: by its length where it says that,
/// else in chunks. `is_over`: its stream has ended with the head.
pub(super) fn response(parts: &Parts, method: Method, is_over: bool) -> (Vec<u8>, BodyKind) {
    let mut out = Vec::with_capacity(512);
    write_head(&mut out, parts.status.as_u16(), parts.status.canonical_reason());
    for (name, value) in &parts.headers {
        if !fields::is_connection_specific(name) {
            fields::write(&mut out, name.as_ref(), value.as_bytes());
        }
    }
    let is_without = method == Method::Head || has_no_body(parts.status.as_u16());
    let framing = match parts.headers.get(CONTENT_LENGTH) {
        _ if is_without => BodyKind::None,
        Some(length) => {
            let length = length.to_str().ok().and_then(|length| length.parse().ok());
            // What is no number is an error for the reader of this head.
            length.map_or(BodyKind::None, BodyKind::Length)
        }
        None if is_over => {
            fields::write(&mut out, b"content-length", b"0");
            BodyKind::Length(0)
        }
        None => {
            fields::write(&mut out, b"transfer-encoding", b"chunked");
            BodyKind::Chunked
        }
    };
    out.extend_from_slice(b"\r\n");
    (out, framing)
}

/// The head of the `101` that a WebSocket begins with, for a handshake with `key` (RFC 6455 4.2.2).
pub(super) fn switch(parts: &Parts, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_head(&mut out, 101, Some("Switching Protocols"));
    fields::write(&mut out, b"connection", b"upgrade");
    fields::write(&mut out, b"upgrade", b"websocket");
    let accept = websocket::accept_for(key);
    fields::write(&mut out, SEC_WEBSOCKET_ACCEPT.as_ref(), accept.as_bytes());
    for (name, value) in &parts.headers {
        let is_ours = *name == SEC_WEBSOCKET_ACCEPT || *name == CONTENT_LENGTH;
        if !is_ours && !fields::is_connection_specific(name) {
            fields::write(&mut out, name.as_ref(), value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn write_head(out: &mut Vec<u8>, status: u16, reason: Option<&str>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::{BodyKind, Method, response, switch};

    fn parts(status: u16, fields: &[(&str, &str)]) -> http::response::Parts {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap().into_parts().0
    }

    #[test]
    fn bodies_are_framed_by_length_else_in_chunks() {
        use BodyKind::{Chunked, Length, None};
        let (length, zero) = (("content-length", "5"), ("content-length", "0"));
        for (method, status, fields, is_over, line, framing) in [
            (Method::Get, 200, &[length][..], false, "content-length: 5\r\n", Length(5)),
            (Method::Get, 200, &[], false, "transfer-encoding: chunked\r\n", Chunked),
            (Method::Get, 200, &[], true, "content-length: 0\r\n", Length(0)),
            (Method::Get, 200, &[zero], true, "content-length: 0\r\n", Length(0)),
            (Method::Head, 200, &[length], true, "content-length: 5\r\n", None),
            (Method::Head, 200, &[], true, "", None),
            (Method::Get, 204, &[], true, "", None),
            (Method::Get, 304, &[length], true, "content-length: 5\r\n", None),
            (Method::Post, 404, &[], false, "transfer-encoding: chunked\r\n", Chunked),
        ] {
            let parts = parts(status, fields);
            let (head, seen) = response(&parts, method, is_over);
            let reason = parts.status.canonical_reason().unwrap();
            let expected = format!("HTTP/1.1 {status} {reason}\r\n{line}\r\n");
            assert_eq!((String::from_utf8(head).unwrap(), seen), (expected, framing));
        }
    }

    #[test]
    fn fields_stay_but_for_those_of_the_connection() {
        let fields = [
            ("x-a", "1"),
            ("connection", "close"),
            ("keep-alive", "1"),
            ("upgrade", "h2c"),
            ("proxy-connection", "x"),
            ("transfer-encoding", "gzip"),
            ("x-a", "2"),
            ("date", "x"),
        ];
        let (head, _) = response(&parts(299, &fields), Method::Get, true);
        let expected = "HTTP/1.1 299 \r\nx-a: 1\r\nx-a: 2\r\ndate: x\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(String::from_utf8(head).unwrap(), expected);
    }

    /// The example of RFC 6455 1.3.
    #[test]
    fn a_success_begins_a_websocket() {
        let parts = parts(200, &[("sec-websocket-protocol", "chat"), ("content-length", "0")]);
        let head = switch(&parts, b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(
            String::from_utf8(head).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-protocol: chat\r\n\r\n"
        );
    }
}
