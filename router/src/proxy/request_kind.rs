//! How much a failure in answer to a request says about the backend, pure.
//!
//! A mark takes a backend away from all clients, so no client may cause one by the shape of its own
//! request: a method, a header or a size that a healthy backend or a gateway before it may answer with
//! an error. What remains is Hipache's rule.

use http::{HeaderValue, Method};

use super::headers::Scan;
use crate::connection::BodyKind;

/// Request bodies up to this many bytes are forms and calls of an API; longer ones, and those of unknown
/// length, are uploads, which a gateway may refuse with any of its errors.
const MAX_ORDINARY_BODY: u64 = 64 * 1024;

/// The smallest limit of heads in wide use (uWSGI's buffer, which ends the connection so that the gateway
/// before it answers 502). Target, names and values count.
const MAX_ORDINARY_HEAD: usize = 4 * 1024;

/// What a request looks like, from the one that says most about its backend to the one that says least.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum RequestKind {
    /// A `GET` without a body and without any header that may change what the answer has to be.
    #[default]
    Plain,
    /// A common method, or a common header with consequences, such as a range.
    Ordinary,
    /// The same with a large head or body.
    Large,
    /// A method, header or protocol that the backend need not know.
    Unusual,
}

impl RequestKind {
    /// The kind of a request with this method, length of its target, headers and body.
    /// `is_other_protocol`: it asks for an upgrade to something else than a WebSocket.
    pub fn of(
        method: &Method,
        target: usize,
        scan: &Scan,
        body: BodyKind,
        is_other_protocol: bool,
    ) -> Self {
        let by_method = match *method {
            Method::GET => Self::Plain,
            Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS => Self::Ordinary,
            _ => Self::Unusual,
        };
        let by_body = match body {
            BodyKind::None => Self::Plain,
            BodyKind::Length(length) if length <= MAX_ORDINARY_BODY => Self::Ordinary,
            BodyKind::Length(_) | BodyKind::Chunked => Self::Large,
        };
        let is_large = target.saturating_add(scan.bytes) > MAX_ORDINARY_HEAD;
        let by_head = if is_large { Self::Large } else { scan.kind };
        let by_protocol = if is_other_protocol { Self::Unusual } else { Self::Plain };
        by_method.max(by_body).max(by_head).max(scan.kind).max(by_protocol)
    }

    /// The least kind of a request with a header of this name (in lower case) and value.
    pub fn of_header(name: &str, value: &HeaderValue) -> Self {
        match name {
            "expect" if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Self::Ordinary,
            // Several ranges multiply the work of one request, and what is no range of bytes tests how a
            // server reads it.
            "range" if is_one_byte_range(value.as_bytes()) => Self::Ordinary,
            "te" if value.as_bytes().eq_ignore_ascii_case(b"trailers") => Self::Ordinary,
            "upgrade" | "if-range" => Self::Ordinary,
            // The method that the backend sees, the hops that are left, and what needs not be known
            // (RFC 9110 8.4, 14.4).
            "content-encoding"
            | "content-range"
            | "expect"
            | "http2-settings"
            | "max-forwards"
            | "range"
            | "te"
            | "x-http-method"
            | "x-http-method-override"
            | "x-method-override" => Self::Unusual,
            _ => Self::Plain,
        }
    }

    /// Whether silence after this request marks the backend dead: the rest is the setting
    /// `server.deadBackendOnTimeout`.
    pub fn silence_marks(self) -> bool {
        self <= Self::Large
    }
}

/// `bytes=1-2`, `bytes=1-` or `bytes=-2` (RFC 9110 14.1.2).
fn is_one_byte_range(value: &[u8]) -> bool {
    let Some((unit, range)) = value.split_at_checked(b"bytes=".len()) else { return false };
    let mut bounds = range.split(|byte| *byte == b'-');
    let (Some(first), Some(last), None) = (bounds.next(), bounds.next(), bounds.next()) else {
        return false;
    };
    let is_number = |bound: &[u8]| bound.len() < 20 && bound.iter().all(u8::is_ascii_digit);
    unit.eq_ignore_ascii_case(b"bytes=")
        && is_number(first)
        && is_number(last)
        && !(first.is_empty() && last.is_empty())
}

/// What an answer means for the mark of its backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The backend failed, with this status.
    Failed(u16),
    /// Nothing against the backend.
    Fine,
    /// Nothing by itself; an external checker may want to look.
    ForChecker,
}

/// Classifies an answer (hipache-contract 2). `announces_end`: there is a `Retry-After`.
pub fn classify(status: u16, request: RequestKind, announces_end: bool) -> Outcome {
    match status {
        500 => Outcome::ForChecker,
        // Maintenance that announces its end is no failure.
        503 if announces_end => Outcome::Fine,
        // A gateway speaks of the backend behind it.
        502..=504 if request <= RequestKind::Ordinary => Outcome::Failed(status),
        // The request has gone round in a circle, which it says itself by its headers.
        508 => Outcome::Fine,
        // Most of these speak of the method, the version or the resource (RFC 9110 15.6.2, 15.6.6, RFC 4918
        // 11.5): in answer to a plain `GET` nothing but the backend is left.
        501 | 505..=599 if request == RequestKind::Plain => Outcome::Failed(status),
        _ => Outcome::Fine,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::{BodyKind, Outcome, RequestKind, Scan, classify};

    fn kind(method: &str, lines: &[(&str, &str)], body: BodyKind) -> RequestKind {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        RequestKind::of(&method, 1, &Scan::new(&headers), body, false)
    }

    #[test]
    fn requests_are_told_apart_by_method_headers_and_size() {
        use BodyKind::{Chunked, Length, None};
        use RequestKind::{Large, Ordinary, Plain, Unusual};
        let long = "x".repeat(5000);
        for (method, header, body, expected) in [
            ("GET", ("Accept", "*/*"), None, Plain),
            ("GET", ("Connection", "close"), None, Plain),
            ("GET", ("X-Debug", "1"), None, Plain),
            ("GET", ("Accept", "*/*"), Length(1), Ordinary),
            ("GET", ("Range", "bytes=0-1"), None, Ordinary),
            ("GET", ("Range", "Bytes=5-"), None, Ordinary),
            ("GET", ("Range", "bytes=-5"), None, Ordinary),
            ("GET", ("Range", "bytes=0-1,5-6"), None, Unusual),
            ("GET", ("Range", "bytes=-"), None, Unusual),
            ("GET", ("Range", "bytes=99999999999999999999-"), None, Unusual),
            ("GET", ("Range", "items=0-1"), None, Unusual),
            ("GET", ("Range", "x"), None, Unusual),
            ("GET", ("If-Range", "x"), None, Ordinary),
            ("GET", ("Expect", "100-continue"), None, Ordinary),
            ("GET", ("Expect", "200-maybe"), None, Unusual),
            ("GET", ("X-HTTP-Method-Override", "FOO"), None, Unusual),
            ("GET", ("Content-Encoding", "foo"), None, Unusual),
            ("GET", ("Max-Forwards", "0"), None, Unusual),
            ("GET", ("TE", "trailers"), None, Ordinary),
            ("GET", ("Cookie", &long), None, Large),
            ("HEAD", ("Accept", "*/*"), None, Ordinary),
            ("POST", ("Accept", "*/*"), Length(64 * 1024), Ordinary),
            ("POST", ("Accept", "*/*"), Length(64 * 1024 + 1), Large),
            ("PUT", ("Accept", "*/*"), Chunked, Large),
            ("PUT", ("Content-Range", "bytes 0-1/2"), Chunked, Unusual),
            ("PROPFIND", ("Accept", "*/*"), None, Unusual),
            ("FOO", ("Cookie", &long), Chunked, Unusual),
        ] {
            assert_eq!(kind(method, &[header], body), expected, "{method} {header:?} {body:?}");
        }
        let twice = [("Range", "bytes=0-1"), ("Range", "bytes=5-6")];
        assert_eq!(kind("GET", &twice, None), Unusual);
        let many: Vec<_> =
            (0..100).map(|_| ("Cookie", "12345678901234567890123456789012345")).collect();
        assert_eq!(kind("GET", &many, None), Large);
        let scan = Scan::new(&HeaderMap::new());
        assert_eq!(RequestKind::of(&Method::GET, 5000, &scan, None, false), Large);
        assert_eq!(RequestKind::of(&Method::GET, 1, &scan, None, true), Unusual);
    }

    #[test]
    fn no_request_chooses_that_its_answer_marks() {
        use RequestKind::{Large, Ordinary, Plain, Unusual};
        for (status, plain, ordinary, other) in [
            (200, false, false, false),
            (499, false, false, false),
            (501, true, false, false),
            (502, true, true, false),
            (503, true, true, false),
            (504, true, true, false),
            (505, true, false, false),
            (507, true, false, false),
            (508, false, false, false),
            (510, true, false, false),
            (599, true, false, false),
            (600, false, false, false),
        ] {
            for (kind, marks) in
                [(Plain, plain), (Ordinary, ordinary), (Large, other), (Unusual, other)]
            {
                let expected = if marks { Outcome::Failed(status) } else { Outcome::Fine };
                assert_eq!(classify(status, kind, false), expected, "{status} {kind:?}");
                let announced = if status == 503 { Outcome::Fine } else { expected };
                assert_eq!(classify(status, kind, true), announced, "{status} {kind:?}");
                assert_eq!(classify(500, kind, true), Outcome::ForChecker);
            }
        }
        let marks = [Plain, Ordinary, Large, Unusual].map(RequestKind::silence_marks);
        assert_eq!(marks, [true, true, true, false]);
    }
}
