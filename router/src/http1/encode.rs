//! Heads and bodies as they are sent (RFC 9112 3 to 7): a head is written in one pass into the caller's
//! buffer.
//!
//! Kept fields stay as they came, in name, value, case and order; lines that stand one behind the other
//! and need no change are copied at once. The writer itself sees to `Content-Length` and
//! `Transfer-Encoding`, so that what a head announces is what is sent.

use super::fields::{Field, Fields};
use super::framing::{BodyKind, FRAMING};
use super::known::{FieldSet, KnownField};
use super::target::Target;
use super::trailers::Trailers;

/// What becomes of a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Edit<'a> {
    /// It is left out.
    Drop,
    /// It stays as it came.
    Keep,
    /// Its name stays, with this value.
    Replace(&'a [u8]),
    /// It stays, with another item behind its list.
    Append(&'a [u8]),
}

/// What a head says about its body (RFC 9110 8.6, RFC 9112 6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Announce {
    /// Whatever the forwarded head announces: for responses to `HEAD`, and `304`, which have no body.
    AsItCame,
    /// This body.
    Body(BodyKind),
    /// The same without a transfer coding, which HTTP/1.0 does not know.
    LengthAsItCame,
    /// Nothing: for `204` and informational responses.
    Nothing,
}

/// Writes one head.
#[derive(Debug)]
pub struct HeadWriter<'a> {
    out: &'a mut Vec<u8>,
    announce: Announce,
    is_announced: bool,
}

impl<'a> HeadWriter<'a> {
    /// Begins a request to an origin server, in HTTP/1.1 (RFC 9112 3). `buf` holds the client's head.
    pub fn request(
        out: &'a mut Vec<u8>,
        method: &[u8],
        target: &Target,
        buf: &[u8],
        body: BodyKind,
    ) -> Self {
        out.extend_from_slice(method);
        out.push(b' ');
        target.write(buf, out);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        Self { out, announce: Announce::Body(body), is_announced: false }
    }

    /// Begins a response, in HTTP/1.1 whatever the client's version is (RFC 9112 2.3). A reason has no
    /// line end in it. `status` is below 1000.
    pub fn response(out: &'a mut Vec<u8>, status: u16, reason: &[u8], announce: Announce) -> Self {
        let digit = |value: u16| b'0' + u8::try_from(value % 10).unwrap_or_default();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(&[digit(status / 100), digit(status / 10), digit(status), b' ']);
        out.extend_from_slice(reason);
        out.extend_from_slice(b"\r\n");
        Self { out, announce, is_announced: false }
    }

    /// Writes the fields of a head that was read into `buf`, as `edit` says; `Content-Length` and
    /// `Transfer-Encoding` are not asked about.
    pub fn fields<'v>(&mut self, fields: &Fields, buf: &[u8], edit: impl FnMut(Field) -> Edit<'v>) {
        self.fields_among(FieldSet::ALL, fields, buf, edit);
    }

    /// The same where only the fields in `special` are asked about and all others stay.
    pub fn fields_among<'v>(
        &mut self,
        special: FieldSet,
        fields: &Fields,
        buf: &[u8],
        mut edit: impl FnMut(Field) -> Edit<'v>,
    ) {
        let special = special.union(FRAMING);
        // Lines that wait to be copied at once.
        let mut run = 0..0;
        for field in fields.iter() {
            let edited = match field.known {
                known if !special.contains(known) => Edit::Keep,
                KnownField::ContentLength => self.edit_length(field.value().of(buf)),
                KnownField::TransferEncoding => self.edit_coding(),
                _ => edit(field),
            };
            match (edited, field.plain_line()) {
                (Edit::Keep, Some(line)) if line.start() == run.end => run.end = line.end(),
                (Edit::Keep, Some(line)) => {
                    self.copy(buf, &run);
                    run = line.start()..line.end();
                }
                (Edit::Keep, None) => {
                    self.copy(buf, &std::mem::take(&mut run));
                    self.line(field.name().of(buf), field.value().of(buf));
                }
                (Edit::Replace(value), _) => {
                    self.copy(buf, &std::mem::take(&mut run));
                    self.line(field.name().of(buf), value);
                }
                (Edit::Append(item), _) => {
                    self.copy(buf, &std::mem::take(&mut run));
                    self.list(field.name().of(buf), field.value().of(buf), item);
                }
                (Edit::Drop, _) => {}
            }
        }
        self.copy(buf, &run);
    }

    fn copy(&mut self, buf: &[u8], run: &std::ops::Range<usize>) {
        self.out.extend_from_slice(buf.get(run.clone()).unwrap_or_default());
    }

    fn line(&mut self, name: &[u8], value: &[u8]) {
        self.out.reserve(name.len() + value.len() + 4);
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }

    fn list(&mut self, name: &[u8], value: &[u8], item: &[u8]) {
        for part in [name, b": ", value, b", ", item, b"\r\n"] {
            self.out.extend_from_slice(part);
        }
    }

    fn edit_length(&mut self, value: &[u8]) -> Edit<'static> {
        match self.announce {
            Announce::AsItCame | Announce::LengthAsItCame => Edit::Keep,
            // Once, and without zeros that some take for an octal number.
            Announce::Body(BodyKind::Length(_)) if !self.is_announced => {
                self.is_announced = matches!(value, [b'0'] | [b'1'..=b'9', ..]);
                if self.is_announced { Edit::Keep } else { Edit::Drop }
            }
            Announce::Body(_) | Announce::Nothing => Edit::Drop,
        }
    }

    fn edit_coding(&mut self) -> Edit<'static> {
        match self.announce {
            Announce::AsItCame => Edit::Keep,
            Announce::Body(BodyKind::Chunked) if !self.is_announced => {
                self.is_announced = true;
                Edit::Keep
            }
            Announce::Body(_) | Announce::LengthAsItCame | Announce::Nothing => Edit::Drop,
        }
    }

    /// Adds a field. A value has no line end in it.
    pub fn add(&mut self, field: KnownField, value: &[u8]) {
        let start = field.line_start().as_bytes();
        self.out.reserve(start.len() + value.len() + 2);
        self.out.extend_from_slice(start);
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Adds a field with a name of its own.
    pub fn add_named(&mut self, name: &str, value: &[u8]) {
        self.line(name.as_bytes(), value);
    }

    /// Writes the framing field that no forwarded line has provided yet, and the empty line.
    pub fn end(mut self) {
        match self.announce {
            Announce::Body(BodyKind::Chunked) if !self.is_announced => {
                self.add(KnownField::TransferEncoding, b"chunked");
            }
            Announce::Body(BodyKind::Length(length)) if !self.is_announced => {
                self.add(KnownField::ContentLength, itoa::Buffer::new().format(length).as_bytes());
            }
            _ => {}
        }
        self.out.extend_from_slice(b"\r\n");
    }
}

/// `100 Continue` (RFC 9110 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Ends a chunked body that has no trailers (RFC 9112 7.1).
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What stands before content that becomes one chunk; CRLF stands behind it. `None` for no content, which
/// would end the body.
pub fn chunk_size(content: usize) -> Option<ChunkSize> {
    if content == 0 {
        return None;
    }
    let mut bytes = [0; 18];
    let (mut at, mut left) = (16, content);
    while left > 0 {
        at -= 1;
        let digit = u32::try_from(left & 15).ok().and_then(|digit| char::from_digit(digit, 16));
        if let (Some(slot), Some(digit)) =
            (bytes.get_mut(at), digit.and_then(|d| u8::try_from(d).ok()))
        {
            *slot = digit;
        }
        left >>= 4;
    }
    if let Some(end) = bytes.get_mut(16..) {
        end.copy_from_slice(b"\r\n");
    }
    Some(ChunkSize { bytes, at })
}

/// The line before the content of a chunk.
#[derive(Clone, Copy, Debug)]
pub struct ChunkSize {
    bytes: [u8; 18],
    at: usize,
}

impl ChunkSize {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

/// Writes what is behind a last chunk: the trailers, unless the receiver does not take any, and the empty
/// line.
pub fn trailers(out: &mut Vec<u8>, trailers: Option<&Trailers>) {
    if let Some(trailers) = trailers {
        trailers.write(out);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Announce, BodyKind, Edit, HeadWriter, KnownField, chunk_size, trailers};
    use crate::http1::head::{HeadLimits, RequestHead, ResponseHead};

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 8192, max_fields: 100, max_target: 8192 };

    fn request(text: &str, body: BodyKind, edit: impl Fn(&str) -> Edit<'static>) -> String {
        let mut head = RequestHead::default();
        let buf = text.as_bytes();
        head.parse(buf, &LIMITS).unwrap().expect("a whole head");
        let mut out = Vec::new();
        let mut writer =
            HeadWriter::request(&mut out, head.method_text.of(buf), &head.target, buf, body);
        writer.fields(&head.fields, buf, |field| {
            edit(std::str::from_utf8(field.name().of(buf)).unwrap())
        });
        writer.add(KnownField::XRealIp, b"1.2.3.4");
        writer.end();
        String::from_utf8(out).unwrap()
    }

    /// RFC 9110 5.1, 5.3.
    #[test]
    fn kept_fields_stay_as_they_came_and_others_are_changed_in_place() {
        let text = "GET /x?y HTTP/1.0\r\nhOst: a\r\nX-One:1\r\nDrop-Me: 2\r\nx-two: \t3\t \r\nX-ONE: 4\r\n\
                    Change: 5\r\nList:a,b\r\nEmpty:\r\nLast: 6\r\n\r\n";
        let written = request(text, BodyKind::None, |name| match name {
            "Drop-Me" => Edit::Drop,
            "Change" => Edit::Replace(b"new"),
            "List" => Edit::Append(b"c"),
            _ => Edit::Keep,
        });
        assert_eq!(
            written,
            "GET /x?y HTTP/1.1\r\nhOst: a\r\nX-One: 1\r\nx-two: 3\r\nX-ONE: 4\r\nChange: new\r\nList: a,b, c\r\nEmpty: \r\n\
             Last: 6\r\nX-Real-IP: 1.2.3.4\r\n\r\n"
        );
    }

    /// RFC 9112 6.2, 6.3.
    #[test]
    fn what_a_head_announces_is_what_is_sent() {
        let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-encoding: Chunked\r\n");
        for (lines, body, expected) in [
            (length, BodyKind::Length(5), length),
            ("", BodyKind::Length(5), length),
            (
                "content-length: 5\r\nX: y\r\nContent-Length: 5\r\n",
                BodyKind::Length(5),
                "content-length: 5\r\nX: y\r\n",
            ),
            ("Content-Length: 005\r\n", BodyKind::Length(5), length),
            ("Content-Length: 00\r\n", BodyKind::Length(0), "Content-Length: 0\r\n"),
            (chunked, BodyKind::Chunked, chunked),
            ("", BodyKind::Chunked, "Transfer-Encoding: chunked\r\n"),
            ("Content-Length: 5\r\nTransfer-encoding: Chunked\r\n", BodyKind::Chunked, chunked),
            ("Transfer-encoding: Chunked\r\nContent-Length: 5\r\n", BodyKind::Chunked, chunked),
            (length, BodyKind::None, ""),
            (chunked, BodyKind::Length(5), length),
        ] {
            let written =
                request(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), body, |_| {
                    Edit::Keep
                });
            let fields = written.strip_prefix("POST / HTTP/1.1\r\nHost: a\r\n").unwrap();
            let fields = fields.replace("X-Real-IP: 1.2.3.4\r\n", "");
            assert_eq!(fields, format!("{expected}\r\n"), "{lines:?} {body:?}");
        }
    }

    fn response(text: &str, announce: Announce) -> String {
        let mut head = ResponseHead::default();
        let buf = text.as_bytes();
        head.parse(buf, &LIMITS).unwrap().expect("a whole head");
        let mut out = Vec::new();
        let mut writer = HeadWriter::response(&mut out, head.status, head.reason.of(buf), announce);
        writer.fields(&head.fields, buf, |_| Edit::Keep);
        writer.end();
        String::from_utf8(out).unwrap()
    }

    /// RFC 9110 8.6.
    #[test]
    fn responses_without_a_body_say_what_they_may() {
        let text = "HTTP/1.0 304 Not  Modified\r\nETag: x\nContent-Length: 1234\r\n\r\n";
        assert_eq!(
            response(text, Announce::AsItCame),
            "HTTP/1.1 304 Not  Modified\r\nETag: x\r\nContent-Length: 1234\r\n\r\n"
        );
        let text =
            "HTTP/1.1 204\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n";
        assert_eq!(response(text, Announce::Nothing), "HTTP/1.1 204 \r\nX: y\r\n\r\n");
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let until_close = Announce::Body(BodyKind::UntilClose);
        assert_eq!(response(text, until_close), "HTTP/1.1 200 OK\r\n\r\n");
    }

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        assert!(chunk_size(0).is_none());
        for (size, expected) in [
            (1, "1\r\n"),
            (15, "f\r\n"),
            (16, "10\r\n"),
            (65_536, "10000\r\n"),
            (usize::MAX, "ffffffffffffffff\r\n"),
        ] {
            let line = chunk_size(size).unwrap();
            assert_eq!(line.as_bytes(), expected.as_bytes());
        }
        let mut out = Vec::new();
        trailers(&mut out, None);
        assert_eq!(out, b"\r\n");
    }

    proptest! {
        /// Names and values of kept fields are the same, in their order, whatever is dropped.
        #[test]
        fn encoding_what_was_parsed_is_the_identity_on_kept_fields(
            fields in proptest::collection::vec(("[!#-'*+.0-9A-Z^-z|~-]{1,20}", "[ \t]{0,2}", "([!-~\u{e4}]([ -~\t]{0,20}[!-~])?)?", any::<bool>()), 0..12),
        ) {
            let mut text = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
            let mut expected = vec![("Host".to_owned(), "a".to_owned())];
            for (name, blank, value, _) in &fields {
                text.extend_from_slice(format!("{name}:{blank}{value}{blank}\r\n").as_bytes());
            }
            text.extend_from_slice(b"\r\n");
            let mut head = RequestHead::default();
            // A name may be one that frames the message.
            let Ok(Some(_)) = head.parse(&text, &LIMITS) else { return Ok(()) };
            let kept = |index: usize| index == 0 || fields[index - 1].3;
            expected.extend(fields.iter().filter(|(.., is_kept)| *is_kept).map(|(name, _, value, _)| (name.clone(), value.clone())));
            let mut out = Vec::new();
            let mut writer = HeadWriter::request(&mut out, b"GET", &head.target, &text, BodyKind::None);
            let mut index = 0;
            writer.fields(&head.fields, &text, |_| {
                index += 1;
                if kept(index - 1) { Edit::Keep } else { Edit::Drop }
            });
            writer.end();
            let mut again = RequestHead::default();
            let length = again.parse(&out, &LIMITS).unwrap();
            prop_assert_eq!(length, Some(out.len()));
            let seen: Vec<_> = again
                .fields
                .iter()
                .map(|field| (
                    String::from_utf8(field.name().of(&out).to_vec()).unwrap(),
                    String::from_utf8(field.value().of(&out).to_vec()).unwrap(),
                ))
                .collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
