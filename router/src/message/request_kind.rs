//! How much a failure in answer to a request says about the backend.
//!
//! A mark takes a backend away from all clients, so no client may cause one by the shape of its own
//! request: a method, a field or a size that a healthy backend or a gateway before it may answer with
//! an error. What remains is Hipache's rule.

use crate::http1::framing::BodyKind;
use crate::http1::head::Method;
use crate::http1::known::KnownField;

/// Request bodies up to this many bytes are forms and calls of an API; longer ones, and those of unknown
/// length, are uploads, which a gateway may refuse with any of its errors.
const MAX_ORDINARY_BODY: u64 = 64 * 1024;

/// Bytes: the smallest limit of heads in wide use (uWSGI's buffer, which ends the connection so that the
/// gateway before it answers 502). Target, names and values count.
pub const MAX_ORDINARY_HEAD: usize = 4 * 1024;

/// What a request looks like, from the kind whose failure says most about its backend to the one that says
/// least.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum RequestKind {
    /// A `GET` without a body and without any field that may change what the answer has to be.
    #[default]
    Plain,
    /// A common method, or a common field with consequences, such as a range.
    Ordinary,
    /// The same with a large head or body.
    Large,
    /// A method, field or protocol that the backend need not know.
    Unusual,
}

impl RequestKind {
    /// The least kind of a request with this method, body, and `head_size` in bytes.
    pub fn of(method: Method, body: BodyKind, head_size: usize) -> Self {
        let by_method = match method {
            Method::Get => Self::Plain,
            Method::Head
            | Method::Post
            | Method::Put
            | Method::Patch
            | Method::Delete
            | Method::Options => Self::Ordinary,
            Method::Connect | Method::Trace | Method::Other => Self::Unusual,
        };
        let by_body = match body {
            // An empty body is none.
            BodyKind::None | BodyKind::Length(0) => Self::Plain,
            BodyKind::Length(length) if length <= MAX_ORDINARY_BODY => Self::Ordinary,
            BodyKind::Length(_) | BodyKind::Chunked | BodyKind::UntilClose => Self::Large,
        };
        let by_head = if head_size > MAX_ORDINARY_HEAD { Self::Large } else { Self::Plain };
        by_method.max(by_body).max(by_head)
    }

    /// The least kind of a request with this field. Several lines of `Range` are one list, which is
    /// [`Unusual`](Self::Unusual).
    pub fn of_field(known: KnownField, value: &[u8]) -> Self {
        match known {
            KnownField::Expect if value.eq_ignore_ascii_case(b"100-continue") => Self::Ordinary,
            // Several ranges multiply the work of one request, and what is no range of bytes tests how a
            // server reads it.
            KnownField::Range if is_one_byte_range(value) => Self::Ordinary,
            KnownField::Te if value.eq_ignore_ascii_case(b"trailers") => Self::Ordinary,
            KnownField::Upgrade | KnownField::IfRange => Self::Ordinary,
            // The method that the backend sees, the hops that are left, and what it need not know
            // (RFC 9110 8.4, 14.4).
            KnownField::ContentEncoding
            | KnownField::ContentRange
            | KnownField::Expect
            | KnownField::Http2Settings
            | KnownField::MaxForwards
            | KnownField::Range
            | KnownField::Te
            | KnownField::XHttpMethod
            | KnownField::XHttpMethodOverride
            | KnownField::XMethodOverride => Self::Unusual,
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

/// What a response means for the mark of its backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The backend failed, with this status.
    Failed(u16),
    /// Nothing against the backend.
    Fine,
    /// Nothing by itself; an external checker may want to look.
    ForChecker,
}

/// Classifies a response (hipache-contract 2). `announces_end`: there is a `Retry-After`.
pub fn classify(status: u16, request: RequestKind, announces_end: bool) -> Outcome {
    match status {
        500 => Outcome::ForChecker,
        // Maintenance that announces its end is no failure.
        503 if announces_end => Outcome::Fine,
        // A gateway speaks of the backend behind it.
        502..=504 if request <= RequestKind::Ordinary => Outcome::Failed(status),
        // The request has gone round in a circle, which it says itself by its fields.
        508 => Outcome::Fine,
        // Most of these speak of the method, the version or the resource (RFC 9110 15.6.2, 15.6.6, RFC 4918
        // 11.5): in answer to a plain `GET` nothing but the backend is left.
        501 | 505..=599 if request == RequestKind::Plain => Outcome::Failed(status),
        _ => Outcome::Fine,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Outcome, RequestKind, classify};
    use crate::message::request::RequestFacts;
    use crate::message::testing::{Request, text};

    fn kind(line: &str, lines: &[(&str, &str)]) -> RequestKind {
        let request = Request::read(&format!("{line} HTTP/1.1\r\nHost: a\r\n{}\r\n", text(lines)));
        RequestFacts::of(&request.head, &request.buf, &request.accepted).kind
    }

    #[test]
    fn requests_are_told_apart_by_method_fields_and_size() {
        use RequestKind::{Large, Ordinary, Plain, Unusual};
        const CHUNKED: (&str, &str) = ("Transfer-Encoding", "chunked");
        let long = "x".repeat(5000);
        let none = ("Accept", "*/*");
        for (method, field, body, expected) in [
            ("GET", ("Accept", "*/*"), none, Plain),
            ("GET", ("Connection", "close"), none, Plain),
            ("GET", ("X-Debug", "1"), none, Plain),
            ("GET", ("Content-Length", "0"), none, Plain),
            ("GET", ("Accept", "*/*"), ("Content-Length", "1"), Ordinary),
            ("GET", ("Range", "bytes=0-1"), none, Ordinary),
            ("GET", ("Range", "Bytes=5-"), none, Ordinary),
            ("GET", ("Range", "bytes=-5"), none, Ordinary),
            ("GET", ("Range", "bytes=0-1,5-6"), none, Unusual),
            ("GET", ("Range", "bytes=-"), none, Unusual),
            ("GET", ("Range", "bytes=99999999999999999999-"), none, Unusual),
            ("GET", ("Range", "items=0-1"), none, Unusual),
            ("GET", ("Range", "x"), none, Unusual),
            ("GET", ("If-Range", "x"), none, Ordinary),
            ("GET", ("Expect", "100-continue"), none, Ordinary),
            ("GET", ("Expect", "200-maybe"), none, Unusual),
            ("GET", ("X-HTTP-Method-Override", "FOO"), none, Unusual),
            ("GET", ("X-HTTP-Method", "FOO"), none, Unusual),
            ("GET", ("X-Method-Override", "FOO"), none, Unusual),
            ("GET", ("HTTP2-Settings", "x"), none, Unusual),
            ("GET", ("Content-Encoding", "foo"), none, Unusual),
            ("GET", ("Max-Forwards", "0"), none, Unusual),
            ("GET", ("TE", "trailers"), none, Ordinary),
            ("GET", ("TE", "gzip"), none, Unusual),
            ("GET", ("Cookie", &long), none, Large),
            ("HEAD", ("Accept", "*/*"), none, Ordinary),
            ("POST", ("Accept", "*/*"), ("Content-Length", "65536"), Ordinary),
            ("POST", ("Accept", "*/*"), ("Content-Length", "65537"), Large),
            ("PUT", ("Accept", "*/*"), CHUNKED, Large),
            ("PUT", ("Content-Range", "bytes 0-1/2"), CHUNKED, Unusual),
            ("PROPFIND", ("Accept", "*/*"), none, Unusual),
            ("FOO", ("Cookie", &long), CHUNKED, Unusual),
        ] {
            let seen = kind(&format!("{method} /"), &[field, body]);
            assert_eq!(seen, expected, "{method} {field:?} {body:?}");
        }
        let twice = [("Range", "bytes=0-1"), ("Range", "bytes=5-6")];
        assert_eq!(kind("GET /", &twice), Unusual);
        let many: Vec<_> =
            (0..100).map(|_| ("Cookie", "12345678901234567890123456789012345")).collect();
        assert_eq!(kind("GET /", &many), Large);
        assert_eq!(kind(&format!("GET /{}", "x".repeat(5000)), &[]), Large);
        assert_eq!(kind("GET /", &[("Connection", "upgrade"), ("Upgrade", "other")]), Unusual);
    }

    /// Line ends and blanks are not counted.
    #[test]
    fn head_is_large_by_its_target_names_and_values() {
        let fixed = "/HostaX".len();
        for (length, expected) in
            [(4096 - fixed, RequestKind::Plain), (4097 - fixed, RequestKind::Large)]
        {
            assert_eq!(kind("GET /", &[("X", &"x".repeat(length))]), expected, "{length}");
        }
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

    proptest! {
        /// A client that adds fields gets its backend marked by less, never by more.
        #[test]
        fn further_fields_never_lower_the_kind(
            names in proptest::collection::vec("Range|TE|If-Range|Expect|Upgrade|Accept|Max-Forwards", 0..6),
            values in proptest::collection::vec("bytes=0-1|trailers|100-continue|x", 6),
        ) {
            let lines: Vec<_> = names.iter().zip(&values).map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let kinds: Vec<_> = (0..=lines.len()).map(|count| kind("GET /", &lines[..count])).collect();
            prop_assert!(kinds.is_sorted(), "{:?} {:?}", lines, kinds);
        }
    }
}
