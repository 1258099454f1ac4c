//! Which fields may stand behind a body, in either direction. Pure.

use http::header::{HeaderMap, HeaderName};

use super::remove_in_order;

/// What RFC 9110 6.5.1 keeps out of trailers: what concerns one connection, says where a message ends,
/// whose it is, who sent it, or how its content is to be read. Some servers and libraries merge
/// trailers into the headers, and would believe it there.
const HEADERS_ONLY: [&str; 27] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
    "x-real-ip",
    "x-request-id",
];

/// Removes from trailers what is a header or nothing, names with underscores included.
pub fn strip(trailers: &mut HeaderMap) {
    remove_in_order(trailers, is_header_only);
}

fn is_header_only(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    HEADERS_ONLY.contains(&name.as_str()) || name.starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderMap, HeaderName, HeaderValue};

    use super::{HEADERS_ONLY, strip};

    fn left(names: &[&str]) -> Vec<String> {
        let mut trailers = HeaderMap::new();
        for name in names {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            trailers.append(name, HeaderValue::from_static("1"));
        }
        strip(&mut trailers);
        trailers.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn what_only_a_header_may_say_is_removed_and_the_rest_keeps_its_order() {
        let kept = ["x-sum", "grpc-status", "grpc-message", "etag", "server-timing", "x-forward"];
        assert_eq!(left(&kept), kept);
        assert_eq!(left(&HEADERS_ONLY), Vec::<String>::new());
        assert_eq!(
            left(&["x-a", "Host", "x-b", "X-Forwarded-For", "x_real_ip", "x-forwarded-x", "x-c"]),
            ["x-a", "x-b", "x-c"]
        );
        assert_eq!(left(&[]), Vec::<String>::new());
    }
}
