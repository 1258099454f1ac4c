//! Heads of requests and responses (RFC 9112 2 to 5), as ranges into the buffer that they were read
//! into.
//!
//! A head is parsed when all of it is there. Until then [`HeadScan`] keeps a client that sends byte by
//! byte from making the parser read the same bytes over and over.

use std::mem::MaybeUninit;

use super::error::{RequestError, ResponseError};
use super::fields::{Fields, NameTooLong, Span};
use super::known::KnownField;
use super::target::Target;

/// Fields that are parsed without an allocation: as many as the default limit allows.
const INLINE_FIELDS: usize = 100;

/// What a head may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeadLimits {
    /// Bytes, with the empty lines before it and the one behind it.
    pub max_bytes: usize,
    /// Field lines.
    pub max_fields: usize,
    /// Bytes of path and query of a request target.
    pub max_target: usize,
}

/// HTTP/1.0 or 1.1 (RFC 9112 2.3).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// A request method (RFC 9110 9). Methods are case-sensitive.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Method {
    /// CONNECT
    Connect,
    /// DELETE
    Delete,
    /// GET
    #[default]
    Get,
    /// HEAD
    Head,
    /// OPTIONS
    Options,
    /// PATCH
    Patch,
    /// POST
    Post,
    /// PUT
    Put,
    /// TRACE
    Trace,
    /// Any other token.
    Other,
}

impl Method {
    /// Recognises a method.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"POST" => Self::Post,
            b"HEAD" => Self::Head,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"CONNECT" => Self::Connect,
            b"TRACE" => Self::Trace,
            _ => Self::Other,
        }
    }

    /// Whether a request may be sent twice without harm (RFC 9110 9.2.2).
    pub fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Put | Self::Delete)
    }
}

/// The head of a request. To be used again for the next one.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// What the method means.
    pub method: Method,
    /// The method as it was written.
    pub method_text: Span,
    /// The request target as it was written.
    pub target_text: Span,
    /// The request target.
    pub target: Target,
    /// Of the client.
    pub version: Version,
    /// The field lines.
    pub fields: Fields,
}

impl RequestHead {
    /// Reads the head that `buf` begins with, after any number of empty lines (RFC 9112 2.2). Returns its
    /// length with those, or `None` if there is more to come.
    ///
    /// # Errors
    ///
    /// What is wrong with it. What could be read up to there (method, target) stays, for the access log.
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<usize>, RequestError> {
        self.clear();
        let whole = buf.get(..limits.max_bytes).unwrap_or(buf);
        let start = skip_empty_lines(whole)?;
        let rest = whole.get(start..).unwrap_or_default();
        let mut inline = [const { MaybeUninit::uninit() }; INLINE_FIELDS];
        let mut many = Vec::new();
        let slots = match inline.get_mut(..limits.max_fields) {
            Some(slots) => slots,
            None => {
                many.resize(limits.max_fields, MaybeUninit::uninit());
                &mut many[..]
            }
        };
        let mut parsed = httparse::Request::new(&mut []);
        let result = parsed.parse_with_uninit_headers(rest, slots);
        let located = |text: &str| Span::locate(buf, text.as_bytes());
        self.method_text = parsed.method.map(located).unwrap_or_default();
        self.target_text = parsed.path.map(located).unwrap_or_default();
        self.method = Method::of(parsed.method.unwrap_or_default().as_bytes());
        self.version = if parsed.version == Some(0) { Version::Http10 } else { Version::Http11 };
        match result {
            Ok(httparse::Status::Complete(length)) => {
                self.accept(buf, parsed.headers, start + length, limits)?;
                Ok(Some(start + length))
            }
            Ok(httparse::Status::Partial) if whole.len() < limits.max_bytes => Ok(None),
            // A line without an end is one that is too long.
            Ok(httparse::Status::Partial) if parsed.version.is_none() => {
                Err(RequestError::TargetTooLong)
            }
            Ok(httparse::Status::Partial) => Err(RequestError::HeadTooLarge),
            Err(error) => match self.refusal(error, buf) {
                None if whole.len() < limits.max_bytes => Ok(None),
                refusal => Err(refusal.unwrap_or(RequestError::TargetTooLong)),
            },
        }
    }

    /// Forgets what was read.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// Checks what `httparse` leaves open.
    fn accept(
        &mut self,
        buf: &[u8],
        parsed: &[httparse::Header<'_>],
        end: usize,
        limits: &HeadLimits,
    ) -> Result<(), RequestError> {
        let ends_in_crlf =
            self.fields.fill(buf, parsed).map_err(|NameTooLong| RequestError::HeadTooLarge)?;
        if !ends_in_crlf || buf.get(end.wrapping_sub(4)..end) != Some(b"\r\n\r\n") {
            return Err(RequestError::BareLineFeed);
        }
        self.target = Target::parse(buf, self.target_text, self.method)?;
        if self.target.path().len() > limits.max_target {
            return Err(RequestError::TargetTooLong);
        }
        let mut hosts = self.fields.values(KnownField::Host, buf);
        match (hosts.next(), hosts.next()) {
            (Some(_), None) => Ok(()),
            (Some(_), Some(_)) => Err(RequestError::HostRepeated),
            (None, _) => Err(RequestError::HostMissing),
        }
    }

    /// What `httparse` has found wrong. `None` if the version, with which it is at odds, has not come as a
    /// whole.
    fn refusal(&self, error: httparse::Error, buf: &[u8]) -> Option<RequestError> {
        Some(match error {
            httparse::Error::HeaderName => RequestError::FieldName,
            httparse::Error::HeaderValue => RequestError::FieldValue,
            httparse::Error::TooManyHeaders => RequestError::TooManyFields,
            httparse::Error::Token if self.method_text.is_empty() => RequestError::Method,
            httparse::Error::Token => RequestError::Target,
            httparse::Error::Version => {
                let version = buf.get(self.target_text.end() + 1..).unwrap_or_default();
                match names_version(version)? {
                    true => RequestError::Version,
                    false => RequestError::RequestLine,
                }
            }
            // Before the request line there are no lines left; in it there is one end.
            httparse::Error::NewLine | httparse::Error::Status => RequestError::RequestLine,
        })
    }
}

/// The length of the empty lines that precede a request.
pub(super) fn skip_empty_lines(buf: &[u8]) -> Result<usize, RequestError> {
    let mut start = 0;
    while let Some(byte @ (b'\r' | b'\n')) = buf.get(start) {
        match (byte, buf.get(start + 1)) {
            (b'\r', Some(b'\n')) => start += 2,
            (b'\r', None) => return Ok(start),
            (b'\r', Some(_)) => return Err(RequestError::RequestLine),
            _ => return Err(RequestError::BareLineFeed),
        }
    }
    Ok(start)
}

/// Whether a request line ends in a version (RFC 9112 2.3: `HTTP/`, a digit, a dot, a digit). `None` as
/// long as it may.
fn names_version(bytes: &[u8]) -> Option<bool> {
    let pattern = b"HTTP/0.0\r";
    let fits = pattern.iter().zip(bytes).all(|(wanted, byte)| match wanted {
        b'0' => byte.is_ascii_digit(),
        wanted => byte == wanted,
    });
    if fits && bytes.len() < pattern.len() { None } else { Some(fits) }
}

/// The head of a response. To be used again for the next one.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase; empty if there is none or it is not ASCII.
    pub reason: Span,
    /// Of the backend.
    pub version: Version,
    /// The field lines.
    pub fields: Fields,
}

impl ResponseHead {
    /// Reads the head that `buf` begins with. Returns its length, or `None` if there is more to come.
    ///
    /// A line feed alone ends a line here (RFC 9112 2.2): the router is the only reader of these bytes,
    /// and writes every line again for the client.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<usize>, ResponseError> {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
        let whole = buf.get(..limits.max_bytes).unwrap_or(buf);
        // Nothing may stand before a response; it would be what is left of the one before.
        if matches!(whole.first(), Some(b'\r' | b'\n')) {
            return Err(ResponseError::StatusLine);
        }
        let mut inline = [const { MaybeUninit::uninit() }; INLINE_FIELDS];
        let mut many = Vec::new();
        let slots = match inline.get_mut(..limits.max_fields) {
            Some(slots) => slots,
            None => {
                many.resize(limits.max_fields, MaybeUninit::uninit());
                &mut many[..]
            }
        };
        let mut parsed = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        match parser.parse_response_with_uninit_headers(&mut parsed, whole, slots) {
            Ok(httparse::Status::Complete(length)) => {
                self.version =
                    if parsed.version == Some(0) { Version::Http10 } else { Version::Http11 };
                self.status = parsed.code.unwrap_or_default();
                self.reason =
                    parsed.reason.map(|r| Span::locate(buf, r.as_bytes())).unwrap_or_default();
                if self.status < 100 {
                    return Err(ResponseError::StatusLine);
                }
                self.fields
                    .fill(buf, parsed.headers)
                    .map_err(|NameTooLong| ResponseError::HeadTooLarge)?;
                Ok(Some(length))
            }
            Ok(httparse::Status::Partial) if whole.len() < limits.max_bytes => Ok(None),
            Ok(httparse::Status::Partial) => Err(ResponseError::HeadTooLarge),
            Err(error) => Err(match error {
                httparse::Error::HeaderName => ResponseError::FieldName,
                httparse::Error::HeaderValue | httparse::Error::NewLine => {
                    ResponseError::FieldValue
                }
                httparse::Error::TooManyHeaders => ResponseError::TooManyFields,
                httparse::Error::Version if whole.starts_with(b"HTTP/") => ResponseError::Version,
                httparse::Error::Status | httparse::Error::Token | httparse::Error::Version => {
                    ResponseError::StatusLine
                }
            }),
        }
    }
}

/// Says when it is worth parsing a head that was not complete when it was tried last.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    /// Bytes that hold no end of a head.
    scanned: u32,
    /// Bytes that there were when it was parsed last.
    parsed: u32,
}

impl HeadScan {
    /// Whether to parse `buf`, which has grown since: at the first time, when the end of the head is
    /// there, when the limit of `max_bytes` is reached, and each time that there is twice as much, so
    /// that what is no HTTP is refused early. Each byte is read a bounded number of times.
    pub fn is_due(&mut self, buf: &[u8], max_bytes: usize) -> bool {
        let from = (self.scanned as usize).saturating_sub(3);
        let is_due = self.parsed == 0
            || buf.len() >= max_bytes
            || buf.len() >= (self.parsed as usize).saturating_mul(2)
            || has_end(buf.get(from..).unwrap_or_default());
        let length = u32::try_from(buf.len()).unwrap_or(u32::MAX);
        self.scanned = length;
        if is_due {
            self.parsed = length;
        }
        is_due
    }
}

/// Whether there is a line that is empty.
fn has_end(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes)
        .any(|at| matches!(bytes.get(at + 1..), Some([b'\n', ..] | [b'\r', b'\n', ..])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{HeadLimits, HeadScan, KnownField, Method, RequestHead, ResponseHead, Version};
    use crate::http1::error::{RequestError, ResponseError};

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 1000, max_fields: 10, max_target: 100 };

    fn parse(text: &[u8]) -> Result<Option<usize>, RequestError> {
        RequestHead::default().parse(text, &LIMITS)
    }

    /// A request with this request line, or these lines behind it.
    fn line(line: &str) -> Result<Option<usize>, RequestError> {
        parse(format!("{line}\r\nHost: a\r\n\r\n").as_bytes())
    }

    fn lines(lines: &str) -> Result<Option<usize>, RequestError> {
        parse(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes())
    }

    #[test]
    fn a_head_is_ranges_of_its_buffer() {
        let buf = b"\r\n\r\nPOST /x?y HTTP/1.0\r\nhOst: a\r\nX-A:\t 1 \r\nx-a:\r\nConnection: close\r\n\r\nbody";
        let mut head = RequestHead::default();
        assert_eq!(head.parse(buf, &LIMITS), Ok(Some(buf.len() - 4)));
        assert_eq!((head.method, head.version), (Method::Post, Version::Http10));
        assert_eq!(head.method_text.of(buf), b"POST");
        assert_eq!(head.target_text.of(buf), b"/x?y");
        let seen: Vec<_> = head
            .fields
            .iter()
            .map(|field| (field.known, field.name().of(buf), field.value().of(buf)))
            .collect();
        let expected: [(_, &[u8], &[u8]); 4] = [
            (KnownField::Host, b"hOst", b"a"),
            (KnownField::Other, b"X-A", b"1"),
            (KnownField::Other, b"x-a", b""),
            (KnownField::Connection, b"Connection", b"close"),
        ];
        assert_eq!(seen, expected);
        assert_eq!(head.fields.value(KnownField::Host, buf), Some(&b"a"[..]));
        assert_eq!(head.fields.value(KnownField::Cookie, buf), None);
        // Nothing of it is left in the next one.
        let next = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n";
        assert_eq!(head.parse(next, &LIMITS), Ok(Some(next.len())));
        assert_eq!(
            (head.method, head.version, head.fields.len()),
            (Method::Get, Version::Http11, 1)
        );
        assert!(!head.fields.present().contains(KnownField::Connection));
    }

    /// RFC 9112 2.2.
    #[test]
    fn lines_end_in_crlf_and_nothing_else() {
        use RequestError::{BareLineFeed, FieldValue, RequestLine};
        for (text, expected) in [
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareLineFeed),
            ("\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareLineFeed),
            ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", BareLineFeed),
            ("GET / HTTP/1.1\r\nX: y\nHost: a\r\n\r\n", BareLineFeed),
            ("GET / HTTP/1.1\r\nX:\nHost: a\r\n\r\n", BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", BareLineFeed),
            ("GET / HTTP/1.1\n\n", BareLineFeed),
            ("GET / HTTP/1.1\rX: y\r\nHost: a\r\n\r\n", RequestLine),
            ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", FieldValue),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(expected), "{text:?}");
        }
    }

    /// RFC 9112 2.3, 3.
    #[test]
    fn a_request_line_is_three_words() {
        use RequestError::{Method, RequestLine, Target, Version};
        for (text, expected) in [
            ("GET /", Target),
            ("GET / HTTP/1.2", Version),
            ("GET / HTTP/0.9", Version),
            ("GET / HTTP/2.0", Version),
            ("PRI * HTTP/2.0", Version),
            ("GET / HTTP/2", RequestLine),
            ("GET / HTTP/1.10", RequestLine),
            ("GET / http/1.1", RequestLine),
            ("GET  / HTTP/1.1", Target),
            ("GET /  HTTP/1.1", RequestLine),
            ("GET / HTTP/1.1 ", RequestLine),
            ("GET / x HTTP/1.1", RequestLine),
            (" GET / HTTP/1.1", Method),
            ("GET\t/ HTTP/1.1", Method),
            ("G(T / HTTP/1.1", Method),
            ("G\u{e4}T / HTTP/1.1", Method),
            ("GET /\0 HTTP/1.1", Target),
            ("GET /\u{e4} HTTP/1.1", Target),
            ("GET /\x7f HTTP/1.1", Target),
            ("GET a.test/ HTTP/1.1", Target),
        ] {
            assert_eq!(line(text), Err(expected), "{text:?}");
        }
        for text in [
            "GET / HTTP/1.1",
            "GET / HTTP/1.0",
            "b-R'ew! /?{\"a\":1} HTTP/1.1",
            "CONNECT a:1 HTTP/1.1",
        ] {
            assert!(matches!(line(text), Ok(Some(_))), "{text:?}");
        }
    }

    /// RFC 9112 5.1, 5.2, RFC 9110 5.5.
    #[test]
    fn field_lines_have_one_reading() {
        use RequestError::{FieldName, FieldValue};
        for (text, expected) in [
            ("no colon\r\n", FieldName),
            (": empty\r\n", FieldName),
            ("X : blank\r\n", FieldName),
            ("X\t: blank\r\n", FieldName),
            ("X Y: blank\r\n", FieldName),
            ("X\u{e9}: y\r\n", FieldName),
            ("X\r\n: y\r\n", FieldName),
            ("X: y\r\n folded\r\n", FieldName),
            ("X:\r\n\tfolded\r\n", FieldName),
            ("X: a\0b\r\n", FieldValue),
            ("X: a\x01b\r\n", FieldValue),
            ("X: a\x7fb\r\n", FieldValue),
            ("X:\x0by\r\n", FieldValue),
        ] {
            assert_eq!(lines(text), Err(expected), "{text:?}");
        }
        assert!(matches!(lines("X: a\tb \u{e4}\r\nX:\r\nx-%!:y\r\n"), Ok(Some(_))));
        assert_eq!(parse(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"), Err(FieldName));
    }

    /// RFC 9112 3.2.
    #[test]
    fn there_is_one_host() {
        use RequestError::{HostMissing, HostRepeated};
        assert_eq!(lines("Host: a\r\n"), Err(HostRepeated));
        assert_eq!(lines("X: y\r\nhost: b\r\n"), Err(HostRepeated));
        for version in ["1.0", "1.1"] {
            let text = format!("GET / HTTP/{version}\r\nX: y\r\n\r\n");
            assert_eq!(parse(text.as_bytes()), Err(HostMissing));
        }
    }

    #[test]
    fn limits_have_an_answer_each() {
        use RequestError::{HeadTooLarge, TargetTooLong, TooManyFields};
        let target = |length: usize| line(&format!("GET /{} HTTP/1.1", "x".repeat(length)));
        assert!(matches!(target(99), Ok(Some(_))));
        assert_eq!(target(100), Err(TargetTooLong));
        assert_eq!(target(100_000), Err(TargetTooLong));
        assert!(matches!(lines(&"X: y\r\n".repeat(9)), Ok(Some(_))));
        assert_eq!(lines(&"X: y\r\n".repeat(10)), Err(TooManyFields));
        assert_eq!(lines(&format!("X: {}\r\n", "y".repeat(1000))), Err(HeadTooLarge));
        // Just as large as allowed, and one byte more.
        let head = |length: usize| {
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(length - 32))
        };
        assert_eq!(parse(head(1000).as_bytes()), Ok(Some(1000)));
        assert_eq!(parse(head(1001).as_bytes()), Err(HeadTooLarge));
        assert_eq!(parse(&head(1001).as_bytes()[..999]), Ok(None));
        assert_eq!(parse(&head(1001).as_bytes()[..1000]), Err(HeadTooLarge));
        let many = HeadLimits { max_bytes: 10_000, max_fields: 300, max_target: 100 };
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(299));
        let mut head = RequestHead::default();
        assert_eq!(head.parse(text.as_bytes(), &many), Ok(Some(text.len())));
        assert_eq!(head.fields.len(), 300);
        let long = "n".repeat(70_000);
        let large = HeadLimits { max_bytes: 100_000, ..many };
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{long}: y\r\n\r\n");
        assert_eq!(head.parse(text.as_bytes(), &large), Err(HeadTooLarge));
    }

    /// The access log wants them.
    #[test]
    fn what_could_be_read_of_a_refused_head_stays() {
        let buf = b"POST /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n";
        let mut head = RequestHead::default();
        assert_eq!(head.parse(buf, &LIMITS), Err(RequestError::HostRepeated));
        assert_eq!((head.method, head.target_text.of(buf)), (Method::Post, &b"/x"[..]));
        assert_eq!(head.version, Version::Http10);
        let buf = b"PUT /y HTTP/3.0\r\n\r\n";
        assert_eq!(head.parse(buf, &LIMITS), Err(RequestError::Version));
        assert_eq!((head.method, head.target_text.of(buf)), (Method::Put, &b"/y"[..]));
        let buf = b"G(T /y HTTP/1.1\r\n\r\n";
        assert_eq!(head.parse(buf, &LIMITS), Err(RequestError::Method));
        assert_eq!((head.method_text.of(buf), head.target_text.of(buf)), (&b""[..], &b""[..]));
    }

    fn response(text: &[u8]) -> Result<Option<usize>, ResponseError> {
        ResponseHead::default().parse(text, &LIMITS)
    }

    /// RFC 9112 4.
    #[test]
    fn status_lines_are_read() {
        for (text, status, reason, version) in [
            ("HTTP/1.1 200 OK", 200, "OK", Version::Http11),
            ("HTTP/1.0 404 Not  Found", 404, "Not  Found", Version::Http10),
            ("HTTP/1.1 999 ", 999, "", Version::Http11),
            ("HTTP/1.1 204", 204, "", Version::Http11),
            ("HTTP/1.1 200 \u{e4}", 200, "", Version::Http11),
        ] {
            let buf = format!("{text}\r\nX: y\r\n\r\n");
            let mut head = ResponseHead::default();
            assert_eq!(head.parse(buf.as_bytes(), &LIMITS), Ok(Some(buf.len())), "{text:?}");
            assert_eq!((head.status, head.version), (status, version), "{text:?}");
            assert_eq!(head.reason.of(buf.as_bytes()), reason.as_bytes(), "{text:?}");
        }
        // RFC 9112 2.2.
        assert_eq!(response(b"HTTP/1.1 200 OK\nX: y\n\n"), Ok(Some(22)));
    }

    #[test]
    fn doubtful_responses_are_refused() {
        use ResponseError::{FieldName, FieldValue, HeadTooLarge, StatusLine, TooManyFields};
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(11));
        let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(1000));
        for (text, expected) in [
            ("\r\nHTTP/1.1 200 OK\r\n\r\n", StatusLine),
            ("\x16\x03\x01 no HTTP\r\n\r\n", StatusLine),
            ("HTTP/2 200 OK\r\n\r\n", ResponseError::Version),
            ("HTTP/1.2 200 OK\r\n\r\n", ResponseError::Version),
            ("HTTP/1.1 99999 What\r\n\r\n", StatusLine),
            ("HTTP/1.1 099 What\r\n\r\n", StatusLine),
            ("HTTP/1.1  200 OK\r\n\r\n", StatusLine),
            ("HTTP/1.1 20 OK\r\n\r\n", StatusLine),
            ("HTTP/1.1 200 O\0K\r\n\r\n", StatusLine),
            ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", FieldName),
            ("HTTP/1.1 200 OK\r\nX : a\r\n\r\n", FieldName),
            ("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", FieldValue),
            ("HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", FieldValue),
            (&many, TooManyFields),
            (&large, HeadTooLarge),
        ] {
            assert_eq!(response(text.as_bytes()), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn a_head_that_trickles_in_is_not_parsed_at_every_byte() {
        let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(4000));
        let mut scan = HeadScan::default();
        let due = (1..=head.len()).filter(|end| scan.is_due(&head.as_bytes()[..*end], 100_000));
        let due: Vec<_> = due.collect();
        assert!(due.len() < 20, "{due:?}");
        assert_eq!(due.last(), Some(&head.len()));
        for text in ["GET / HTTP/1.1\r\nX: y\n\n", "GET / HTTP/1.1\r\nX: y\n\r\n"] {
            let mut scan = HeadScan::default();
            let due = (1..=text.len()).filter(|end| scan.is_due(&text.as_bytes()[..*end], 100_000));
            assert_eq!(due.last(), Some(text.len()), "{text:?}");
        }
        assert!(HeadScan { scanned: 10, parsed: 9 }.is_due(&[b'x'; 11], 11), "the limit");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(buf in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _request = parse(&buf);
            let _response = response(&buf);
        }

        /// What is complete is so at one place, and incomplete before it.
        #[test]
        fn a_head_is_complete_with_its_last_byte_only(
            lines in proptest::collection::vec("[a-zA-Z-]{1,8}: {0,2}[ -~]{0,10}\r\n", 0..8),
        ) {
            let text = format!("GET /x HTTP/1.1\r\nHost: a\r\n{}\r\n", lines.concat());
            if let Ok(Some(length)) = parse(text.as_bytes()) {
                prop_assert_eq!(length, text.len());
                for end in 0..text.len() {
                    prop_assert_eq!(parse(&text.as_bytes()[..end]), Ok(None), "{}", end);
                }
            }
        }
    }
}
