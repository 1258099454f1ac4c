//! Which body follows a head (RFC 9112 6). Decided once: the forwarded head is written by this decision,
//! so the next hop cannot read another body.

use super::connection::items;
use super::error::{RequestError, ResponseError};
use super::fields::Fields;
use super::head::{Method, RequestHead, ResponseHead, Version};
use super::known::{FieldSet, KnownField};

/// The fields that say which body follows.
pub(super) const FRAMING: FieldSet =
    FieldSet::of(&[KnownField::ContentLength, KnownField::TransferEncoding]);

/// Longest body that can be announced. Beyond it readers with signed numbers see something else.
pub const MAX_LENGTH: u64 = i64::MAX as u64;

/// What follows a head.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum BodyKind {
    /// The next message.
    #[default]
    None,
    /// So many bytes; may be none.
    Length(u64),
    /// Chunks (RFC 9112 7.1).
    Chunked,
    /// Everything up to the end of the connection; responses only.
    UntilClose,
}

/// How the body of a message is framed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Framing {
    /// What follows the head.
    pub body: BodyKind,
    /// There is a `Content-Length` that `Transfer-Encoding` overrides (RFC 9112 6.3). It is not passed on,
    /// and the connection carries nothing after this message.
    pub overrides_length: bool,
}

/// The body of a request (RFC 9112 6.3). One that says nothing has none.
///
/// # Errors
///
/// When there is more than one way to read it.
pub fn of_request(head: &RequestHead, buf: &[u8]) -> Result<Framing, RequestError> {
    let fields = &head.fields;
    if !fields.present().intersects(FRAMING) {
        return Ok(Framing::default());
    }
    let length = match length(fields, buf) {
        Ok(length) => length,
        Err(LengthError::Differ) => return Err(RequestError::LengthsDiffer),
        Err(LengthError::Invalid) => return Err(RequestError::Length),
    };
    let body = match coding(fields, buf) {
        Coding::None => {
            let body = length.map_or(BodyKind::None, |length| BodyKind::Length(length.value));
            return Ok(Framing { body, overrides_length: false });
        }
        _ if head.version == Version::Http10 => return Err(RequestError::CodingInHttp10),
        Coding::Chunked => BodyKind::Chunked,
        Coding::NotImplemented => return Err(RequestError::CodingNotImplemented),
        Coding::Unknown => return Err(RequestError::CodingUnknown),
    };
    Ok(Framing { body, overrides_length: length.is_some() })
}

/// The body of a response to a request with `method` (RFC 9112 6.3). The head of a `304` or of a response
/// to `HEAD` says how long the body would be.
///
/// # Errors
///
/// When there is more than one way to read it.
pub fn of_response(
    head: &ResponseHead,
    buf: &[u8],
    method: Method,
) -> Result<Framing, ResponseError> {
    let fields = &head.fields;
    let without = method == Method::Head || has_no_body(head.status);
    if !fields.present().intersects(FRAMING) {
        let body = if without { BodyKind::None } else { BodyKind::UntilClose };
        return Ok(Framing { body, overrides_length: false });
    }
    let length = match length(fields, buf) {
        Ok(Some(Length { is_repeated: true, .. })) | Err(LengthError::Differ) => {
            return Err(ResponseError::LengthRepeated);
        }
        Ok(length) => length,
        Err(LengthError::Invalid) => return Err(ResponseError::Length),
    };
    let body = match coding(fields, buf) {
        Coding::None => length.map_or(BodyKind::UntilClose, |l| BodyKind::Length(l.value)),
        _ if head.version == Version::Http10 => return Err(ResponseError::CodingInHttp10),
        Coding::Chunked => BodyKind::Chunked,
        Coding::NotImplemented | Coding::Unknown => return Err(ResponseError::CodingUnknown),
    };
    Ok(Framing {
        overrides_length: body == BodyKind::Chunked && length.is_some(),
        body: if without { BodyKind::None } else { body },
    })
}

/// Whether responses with this status never have a body (RFC 9110 6.4.1).
pub fn has_no_body(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

/// Whether a head with this status may say how long the body is or would be (RFC 9110 8.6).
pub fn may_announce_length(status: u16) -> bool {
    !matches!(status, 100..=199 | 204)
}

#[derive(Clone, Copy)]
struct Length {
    value: u64,
    is_repeated: bool,
}

enum LengthError {
    Differ,
    Invalid,
}

/// The one value of `Content-Length`. Repeats that are the same byte by byte count as one.
fn length(fields: &Fields, buf: &[u8]) -> Result<Option<Length>, LengthError> {
    let mut values = fields.values(KnownField::ContentLength, buf);
    let Some(first) = values.next() else { return Ok(None) };
    let mut is_repeated = false;
    for other in values {
        is_repeated = true;
        if other != first {
            return Err(LengthError::Differ);
        }
    }
    let value = number(first).ok_or(LengthError::Invalid)?;
    Ok(Some(Length { value, is_repeated }))
}

/// A decimal number of digits only, up to [`MAX_LENGTH`].
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let value = digits.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })?;
    (value <= MAX_LENGTH).then_some(value)
}

/// Transfer codings other than `chunked` (RFC 9112 7.2).
const COMPRESSION: [&[u8]; 5] = [b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress"];

enum Coding {
    /// Exactly one `chunked`.
    Chunked,
    None,
    /// Codings that RFC 9112 7.2 knows, and `chunked` once, behind them.
    NotImplemented,
    Unknown,
}

fn coding(fields: &Fields, buf: &[u8]) -> Coding {
    let mut values = fields.values(KnownField::TransferEncoding, buf);
    let Some(first) = values.next() else { return Coding::None };
    let second = values.next();
    if second.is_none() && first.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    let (mut is_over, mut has_compression) = (false, false);
    for item in [first].into_iter().chain(second).chain(values).flat_map(items) {
        let is = |name: &[u8]| item.eq_ignore_ascii_case(name);
        match (is_over, is(b"chunked")) {
            (false, true) => is_over = true,
            (false, false) if COMPRESSION.into_iter().any(is) => has_compression = true,
            _ => return Coding::Unknown,
        }
    }
    // `chunked` alone in another spelling, such as `,chunked`, is read differently by some.
    if is_over && has_compression { Coding::NotImplemented } else { Coding::Unknown }
}

#[cfg(test)]
mod tests {
    use super::BodyKind::{Chunked, Length, None, UntilClose};
    use super::{BodyKind, Framing, RequestError, ResponseError, of_request, of_response};
    use crate::http1::head::{HeadLimits, Method, RequestHead, ResponseHead};

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 8192, max_fields: 100, max_target: 8192 };

    fn request(version: &str, lines: &str) -> Result<Framing, RequestError> {
        let buf = format!("POST / {version}\r\nHost: a\r\n{lines}\r\n");
        let mut head = RequestHead::default();
        head.parse(buf.as_bytes(), &LIMITS)?.expect("a whole head");
        of_request(&head, buf.as_bytes())
    }

    fn framed(body: BodyKind) -> Framing {
        Framing { body, overrides_length: false }
    }

    /// RFC 9112 6.2, 6.3.
    #[test]
    fn request_bodies_have_one_reading() {
        let overriding = Framing { body: Chunked, overrides_length: true };
        for (lines, expected) in [
            ("", framed(None)),
            ("Content-Length: 0\r\n", framed(Length(0))),
            ("Content-Length: 5\r\n", framed(Length(5))),
            ("content-length:\t5 \r\n", framed(Length(5))),
            ("Content-Length: 005\r\n", framed(Length(5))),
            ("Content-Length: 9223372036854775807\r\n", framed(Length(i64::MAX as u64))),
            (
                "Content-Length: 5\r\nContent-Length: 5\r\nX: y\r\nContent-Length: 5\r\n",
                framed(Length(5)),
            ),
            ("Transfer-Encoding: chunked\r\n", framed(Chunked)),
            ("Transfer-Encoding: \tChUnKeD \r\n", framed(Chunked)),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", overriding),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", overriding),
        ] {
            assert_eq!(request("HTTP/1.1", lines), Ok(expected), "{lines:?}");
        }
        assert_eq!(request("HTTP/1.0", "Content-Length: 5\r\n"), Ok(framed(Length(5))));
    }

    /// RFC 9112 6.1, 6.3.
    #[test]
    fn doubtful_request_bodies_are_refused() {
        use RequestError::{CodingNotImplemented, CodingUnknown, LengthsDiffer};
        for value in [
            "",
            "+5",
            "-5",
            "0x5",
            "5.0",
            "5 5",
            "5, 5",
            "5,5",
            "5;",
            "five",
            "\u{665}",
            "9223372036854775808",
            "18446744073709551616",
            "18446744073709551621",
        ] {
            let lines = format!("Content-Length: {value}\r\n");
            assert_eq!(request("HTTP/1.1", &lines), Err(RequestError::Length), "{value}");
            let lines = format!("{lines}Transfer-Encoding: chunked\r\n");
            assert_eq!(request("HTTP/1.1", &lines), Err(RequestError::Length), "{value}");
        }
        for (first, second) in [("3", "5"), ("3", "003"), ("3", ""), ("3", "+3")] {
            let lines = format!("Content-Length: {first}\r\nContent-Length: {second}\r\n");
            assert_eq!(request("HTTP/1.1", &lines), Err(LengthsDiffer), "{lines:?}");
        }
        for (lines, expected) in [
            ("identity", CodingUnknown),
            ("xchunked", CodingUnknown),
            ("chunkedx", CodingUnknown),
            ("", CodingUnknown),
            (",chunked", CodingUnknown),
            ("chunked,", CodingUnknown),
            ("\"chunked\"", CodingUnknown),
            ("chunked;q=1", CodingUnknown),
            ("chunked, chunked", CodingUnknown),
            ("chunked\r\nTransfer-Encoding: chunked", CodingUnknown),
            ("chunked\r\nTransfer-Encoding:", CodingUnknown),
            ("chunked, identity", CodingUnknown),
            ("identity, chunked", CodingUnknown),
            ("chunked, gzip", CodingUnknown),
            ("gzip", CodingUnknown),
            ("gzip, chunked, chunked", CodingUnknown),
            ("gzip, chunked", CodingNotImplemented),
            ("Deflate\r\nTransfer-Encoding: chunked", CodingNotImplemented),
        ] {
            let lines = format!("Transfer-Encoding: {lines}\r\n");
            assert_eq!(request("HTTP/1.1", &lines), Err(expected), "{lines:?}");
            let in_1_0 = Err(RequestError::CodingInHttp10);
            assert_eq!(request("HTTP/1.0", &lines), in_1_0, "{lines:?}");
        }
        let chunked = request("HTTP/1.0", "Transfer-Encoding: chunked\r\n");
        assert_eq!(chunked, Err(RequestError::CodingInHttp10));
    }

    fn response(method: Method, line: &str, lines: &str) -> Result<Framing, ResponseError> {
        let buf = format!("{line}\r\n{lines}\r\n");
        let mut head = ResponseHead::default();
        head.parse(buf.as_bytes(), &LIMITS)?.expect("a whole head");
        of_response(&head, buf.as_bytes(), method)
    }

    /// RFC 9112 6.3, RFC 9110 6.4.1.
    #[test]
    fn response_bodies_follow_from_method_status_and_fields() {
        use Method::{Get, Head};
        let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
        for (method, line, lines, expected) in [
            (Get, "HTTP/1.1 200 OK", length, Length(5)),
            (Get, "HTTP/1.1 200 OK", chunked, Chunked),
            (Get, "HTTP/1.1 200 OK", "", UntilClose),
            (Get, "HTTP/1.0 200 OK", "", UntilClose),
            (Get, "HTTP/1.0 200 OK", length, Length(5)),
            (Head, "HTTP/1.1 200 OK", length, None),
            (Head, "HTTP/1.1 200 OK", chunked, None),
            (Head, "HTTP/1.1 200 OK", "", None),
            (Get, "HTTP/1.1 204 No Content", length, None),
            (Get, "HTTP/1.1 204 No Content", chunked, None),
            (Get, "HTTP/1.1 304 Not Modified", length, None),
            (Get, "HTTP/1.1 304 Not Modified", "", None),
            (Get, "HTTP/1.1 103 Early Hints", length, None),
            (Get, "HTTP/1.1 101 Switching Protocols", "", None),
            (Get, "HTTP/1.1 404 Not Found", "", UntilClose),
        ] {
            let seen = response(method, line, lines);
            assert_eq!(seen, Ok(framed(expected)), "{method:?} {line} {lines:?}");
        }
        let both = format!("{length}{chunked}");
        let overriding = Framing { body: Chunked, overrides_length: true };
        assert_eq!(response(Get, "HTTP/1.1 200 OK", &both), Ok(overriding));
    }

    #[test]
    fn doubtful_response_bodies_are_refused() {
        let (ok, old) = ("HTTP/1.1 200 OK", "HTTP/1.0 200 OK");
        for (line, lines, expected) in [
            (ok, "Content-Length: -3\r\n", ResponseError::Length),
            (ok, "Content-Length: 3, 3\r\n", ResponseError::Length),
            (ok, "Content-Length: 3\r\nContent-Length: 3\r\n", ResponseError::LengthRepeated),
            (ok, "Content-Length: 3\r\nContent-Length: 5\r\n", ResponseError::LengthRepeated),
            (ok, "Transfer-Encoding: gzip, chunked\r\n", ResponseError::CodingUnknown),
            (ok, "Transfer-Encoding: identity\r\n", ResponseError::CodingUnknown),
            (old, "Transfer-Encoding: chunked\r\n", ResponseError::CodingInHttp10),
        ] {
            for method in [Method::Get, Method::Head] {
                assert_eq!(response(method, line, lines), Err(expected), "{line} {lines:?}");
            }
        }
    }
}
