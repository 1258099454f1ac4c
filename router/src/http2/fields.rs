//! Fields of HTTP/1.1 as those of HTTP/2, and back. Pure.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::http1::fields::{Field, Fields};
use crate::http1::trailers::Trailers;

/// Field names that HTTP/2 forbids (RFC 9113 8.2.2), and what stands for them in HTTP/1.1. The library refuses
/// messages with them; this is for what it may miss.
const CONNECTION_SPECIFIC: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// A field that has no form in HTTP/2: a head of more fields than a map holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Unwritable;

/// The fields of a head in `buf` that `is_kept` keeps, in their order. Values share the buffer.
pub(super) fn to_map(
    fields: &Fields,
    buf: &Bytes,
    is_kept: impl Fn(Field) -> bool,
) -> Result<HeaderMap, Unwritable> {
    let mut map = HeaderMap::try_with_capacity(fields.len() + 1).map_err(|_size| Unwritable)?;
    for field in fields.iter().filter(|field| is_kept(*field)) {
        let name = HeaderName::from_bytes(field.name().of(buf)).map_err(|_name| Unwritable)?;
        let value = field.value();
        let value = match value.is_empty() {
            true => HeaderValue::from_static(""),
            false => HeaderValue::from_maybe_shared(buf.slice(value.start()..value.end()))
                .map_err(|_value| Unwritable)?,
        };
        map.try_append(name, value).map_err(|_size| Unwritable)?;
    }
    Ok(map)
}

/// The trailers of a body that may stand behind it (RFC 9110 6.5.1).
pub(super) fn trailers_to_map(trailers: Option<&Trailers>) -> HeaderMap {
    let mut map = HeaderMap::new();
    let mut text = Vec::new();
    if let Some(trailers) = trailers {
        trailers.write(&mut text);
    }
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            // There are no more than a trailer section may have.
            map.append(name, value);
        }
    }
    map
}

/// Whether a field of HTTP/2 has a meaning of its own in HTTP/1.1, which the sender cannot have meant.
pub(super) fn is_connection_specific(name: &HeaderName) -> bool {
    CONNECTION_SPECIFIC.contains(&name.as_str())
}

/// Writes one field line.
pub(super) fn write(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::{to_map, trailers_to_map};
    use crate::http1::body::{Decoder, End, Output};
    use crate::http1::framing::BodyKind;
    use crate::http1::head::{HeadLimits, ResponseHead};
    use crate::http1::known::KnownField;

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 8192, max_fields: 100, max_target: 8192 };

    fn lines(map: &HeaderMap) -> Vec<String> {
        let fields = map.iter();
        fields.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn fields_keep_their_order_and_lose_the_case_of_their_names() {
        let text = "HTTP/1.1 200 OK\r\nX-B: 1\r\nDate: x\r\nx-A:  2 \r\nEmpty:\r\nX-b: 3\r\n\r\n";
        let buf = Bytes::from_static(text.as_bytes());
        let mut head = ResponseHead::default();
        head.parse(&buf, &LIMITS).unwrap().expect("a whole head");
        let map = to_map(&head.fields, &buf, |field| field.known != KnownField::Date).unwrap();
        assert_eq!(lines(&map), ["x-b: 1", "x-b: 3", "x-a: 2", "empty: "]);
    }

    #[test]
    fn trailers_that_are_headers_are_left_out() {
        let body = b"1\r\nx\r\n0\r\nX-Sum: 1:2\r\nHost: evil\r\nETag:\r\n\r\n";
        let mut decoder = Decoder::new(BodyKind::Chunked);
        let mut rest = &body[..];
        loop {
            let decoded = decoder.decode(rest, Output::Content).unwrap();
            rest = &rest[decoded.consumed()..];
            if decoded.end == End::Trailers {
                break;
            }
        }
        let map = trailers_to_map(decoder.trailers());
        assert_eq!(lines(&map), ["x-sum: 1:2", "etag: "]);
        assert!(trailers_to_map(None).is_empty());
    }
}
