//! Responses of HTTP/1.1, as the router encodes them for clients, as those of HTTP/2. Pure.

use bytes::Bytes;
use http::{Response, StatusCode};

use super::fields::{self, Unwritable};
use crate::http1::connection::{HopByHop, Options};
use crate::http1::head::ResponseHead;
use crate::http1::known::KnownField;

/// The head of a response, which was read from `buf`, without what HTTP/2 says in frames or forbids (RFC 9113
/// 8.2.2). The `101` of a WebSocket becomes a success (RFC 8441 5), whose content is the tunnel.
pub(super) fn response(head: &ResponseHead, buf: &Bytes) -> Result<Response<()>, Unwritable> {
    let is_switch = head.status == 101;
    let fields = &head.fields;
    let hop_by_hop = HopByHop::new(fields, buf, Options::of(fields, buf));
    let map = fields::to_map(fields, buf, |field| match field.known {
        KnownField::TransferEncoding | KnownField::SecWebSocketAccept => false,
        KnownField::ContentLength => !is_switch,
        _ => !hop_by_hop.contains(field),
    })?;
    let mut response = Response::new(());
    *response.headers_mut() = map;
    if !is_switch {
        *response.status_mut() = StatusCode::from_u16(head.status).map_err(|_status| Unwritable)?;
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::{Bytes, ResponseHead, response};
    use crate::http1::head::HeadLimits;

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 8192, max_fields: 100, max_target: 8192 };

    #[test]
    fn a_response_loses_what_concerns_its_connection() {
        for (text, status, expected) in [
            (
                "HTTP/1.1 404 Nowhere\r\nDate: x\r\nConnection: close, x-hop\r\nX-Hop: 1\r\n\
                 Keep-Alive: 1\r\nSet-Cookie: a\r\nTransfer-Encoding: chunked\r\nSet-Cookie: b\r\n\r\n",
                404,
                &["date: x", "set-cookie: a", "set-cookie: b"][..],
            ),
            ("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", 304, &["content-length: 5"]),
            (
                "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\
                 Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
                200,
                &["sec-websocket-protocol: chat"],
            ),
        ] {
            let buf = Bytes::from_static(text.as_bytes());
            let mut head = ResponseHead::default();
            head.parse(&buf, &LIMITS).unwrap().expect("a whole head");
            let response = response(&head, &buf).unwrap();
            let fields = response.headers().iter();
            let lines: Vec<_> = fields
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            assert_eq!(
                (response.status().as_u16(), &lines[..]),
                (status, &expected.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()[..])
            );
        }
    }
}
