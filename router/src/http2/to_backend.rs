//! Requests of HTTP/1.1, as the router encodes them for backends, as those of HTTP/2. Pure.

use std::io;

use bytes::Bytes;
use http::header::{HeaderValue, TE};
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{Method, Request, Uri, Version};
use hyper::ext::Protocol;
use shared::backend::Scheme;

use super::fields;
use crate::http1::connection::{HopByHop, Options, takes_trailers};
use crate::http1::fields::Field;
use crate::http1::head::RequestHead;
use crate::http1::known::KnownField;

/// A request as HTTP/2 writes it (RFC 9113 8.3.1): the host in `:authority`, framing in frames. `head` was read
/// from `buf`. One for a WebSocket becomes a `CONNECT` that names the protocol (RFC 8441 5); it has no key, for
/// which nothing of HTTP/1.1 is there.
///
/// # Errors
///
/// `InvalidData` where HTTP/2 has no form for it.
pub(super) fn request(
    head: &RequestHead,
    buf: &Bytes,
    scheme: Scheme,
    is_websocket: bool,
) -> io::Result<Request<()>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let fields = &head.fields;
    let host = fields.value(KnownField::Host, buf).unwrap_or_default();
    let authority = Authority::try_from(host).ok();
    let is_kept = {
        let hop_by_hop = HopByHop::new(fields, buf, Options::of(fields, buf));
        let has_authority = authority.is_some();
        move |field: Field| match field.known {
            KnownField::Host => !has_authority,
            KnownField::TransferEncoding => false,
            KnownField::ContentLength | KnownField::SecWebSocketKey => !is_websocket,
            _ => !hop_by_hop.contains(field),
        }
    };
    let mut map = fields::to_map(fields, buf, is_kept).map_err(|fields::Unwritable| invalid())?;
    if takes_trailers(fields, buf) {
        map.insert(TE, HeaderValue::from_static("trailers"));
    }
    let mut request = Request::new(());
    *request.headers_mut() = map;
    let mut target = Vec::new();
    head.target.write(buf, &mut target);
    let path = path(target).ok_or_else(invalid)?;
    match authority {
        Some(authority) => {
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(match scheme {
                Scheme::Https => UriScheme::HTTPS,
                Scheme::H2c | Scheme::Http => UriScheme::HTTP,
            });
            parts.authority = Some(authority);
            parts.path_and_query = Some(path);
            *request.uri_mut() = Uri::from_parts(parts).map_err(|_uri| invalid())?;
            *request.version_mut() = Version::HTTP_2;
        }
        // A host that is no authority stays a field.
        None => *request.uri_mut() = Uri::from(path),
    }
    if is_websocket {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
    } else {
        *request.method_mut() =
            Method::from_bytes(head.method_text.of(buf)).map_err(|_method| invalid())?;
    }
    Ok(request)
}

/// `:path` of a target. Characters that RFC 3986 wants encoded, and the library insists on, are encoded.
fn path(target: Vec<u8>) -> Option<PathAndQuery> {
    let target = Bytes::from(target);
    if let Ok(path) = PathAndQuery::from_maybe_shared(target.clone()) {
        return Some(path);
    }
    let mut encoded = Vec::with_capacity(target.len() + 16);
    for byte in target {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | ..=b' ' | 0x7f.. => {
                let digit = |value: u8| b"0123456789ABCDEF".get(usize::from(value)).copied();
                encoded.push(b'%');
                encoded.extend(digit(byte >> 4));
                encoded.extend(digit(byte & 15));
            }
            _ => encoded.push(byte),
        }
    }
    PathAndQuery::from_maybe_shared(Bytes::from(encoded)).ok()
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Method, Protocol, Request, Scheme, Version, request};
    use crate::http1::head::{HeadLimits, RequestHead};

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 8192, max_fields: 100, max_target: 8192 };

    fn converted(text: &'static str, scheme: Scheme, is_websocket: bool) -> Request<()> {
        let buf = Bytes::from_static(text.as_bytes());
        let mut head = RequestHead::default();
        head.parse(&buf, &LIMITS).unwrap().expect("a whole head");
        request(&head, &buf, scheme, is_websocket).unwrap()
    }

    fn lines(request: &Request<()>) -> Vec<String> {
        let fields = request.headers().iter();
        fields.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn a_request_loses_what_concerns_its_connection() {
        let text = "POST /x?y HTTP/1.1\r\nHost: a.test:81\r\nX-A: 1\r\nConnection: close, x-hop\r\n\
            X-Hop: 1\r\nKeep-Alive: 1\r\nTE: trailers, x\r\nTransfer-Encoding: chunked\r\nCookie: c\r\n\r\n";
        let request = converted(text, Scheme::H2c, false);
        assert_eq!(request.uri().to_string(), "http://a.test:81/x?y");
        assert_eq!((request.method(), request.version()), (&Method::POST, Version::HTTP_2));
        assert_eq!(lines(&request), ["x-a: 1", "cookie: c", "te: trailers"]);
        let text = "GET / HTTP/1.1\r\nContent-Length: 3\r\nHost: a.test\r\nTE: deflate\r\n\r\n";
        let request = converted(text, Scheme::Https, false);
        assert_eq!(request.uri().to_string(), "https://a.test/");
        assert_eq!(lines(&request), ["content-length: 3"]);
    }

    #[test]
    fn targets_have_the_characters_that_a_uri_has() {
        for (target, expected) in [
            ("/", "http://a.test/"),
            ("/a%20b?c=d", "http://a.test/a%20b?c=d"),
            ("/?f={\"a\":1}", "http://a.test/?f=%7B%22a%22:1%7D"),
            ("/<a>|^`\\", "http://a.test/%3Ca%3E%7C%5E%60%5C"),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
            let request = converted(text.leak(), Scheme::H2c, false);
            assert_eq!(request.uri().to_string(), expected);
        }
        let request = converted("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", Scheme::H2c, false);
        assert_eq!(request.uri().path(), "*");
    }

    #[test]
    fn a_host_that_is_no_authority_stays_a_field() {
        let request = converted("GET /x HTTP/1.1\r\nHost: a b\r\n\r\n", Scheme::H2c, false);
        assert_eq!(
            (request.uri().to_string().as_str(), lines(&request)),
            ("/x", vec!["host: a b".to_owned()])
        );
    }

    #[test]
    fn a_websocket_is_asked_for_as_rfc_8441_does() {
        let text = "GET /chat?room=1 HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\nContent-Length: 0\r\n\r\n";
        let request = converted(text, Scheme::Https, true);
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri().to_string(), "https://a.test/chat?room=1");
        assert_eq!(request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
        assert_eq!(lines(&request), ["sec-websocket-version: 13", "sec-websocket-protocol: chat"]);
    }
}
