//! The trailer section behind the last chunk (RFC 9112 7.1.2), kept until all of it is there.

use super::error::BodyError;

/// Bytes of a trailer section.
const MAX_BYTES: usize = 16 * 1024;
/// Lines of a trailer section.
const MAX_LINES: usize = 100;

/// What RFC 9110 6.5.1 keeps out of trailers: what concerns one connection, says where a message ends,
/// whose it is, who sent it, or how its content is to be read. Some servers and libraries merge
/// trailers into the headers, and would believe it there.
const HEADERS_ONLY: [&[u8]; 27] = [
    b"authorization",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"http2-settings",
    b"keep-alive",
    b"max-forwards",
    b"proxy",
    b"proxy-authorization",
    b"proxy-connection",
    b"range",
    b"set-cookie",
    b"te",
    b"traceparent",
    b"tracestate",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"www-authenticate",
    b"x-real-ip",
    b"x-request-id",
];

/// The lines of a trailer section.
#[derive(Clone, Debug, Default)]
pub struct Trailers {
    /// With the empty line, once all of it is there.
    section: Vec<u8>,
}

impl Trailers {
    /// Whether nothing of a section has come.
    pub fn is_empty(&self) -> bool {
        self.section.is_empty()
    }

    /// Takes bytes up to the empty line. Returns how many, and whether that was it.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<(usize, bool), BodyError> {
        let mut taken = 0;
        loop {
            let rest = input.get(taken..).unwrap_or_default();
            let end = memchr::memchr(b'\n', rest).map(|at| at + 1);
            let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            if self.section.len() + line.len() > MAX_BYTES {
                return Err(BodyError::TrailersTooLarge);
            }
            self.section.extend_from_slice(line);
            taken += line.len();
            if end.is_none() {
                return Ok((taken, false));
            }
            if !self.section.ends_with(b"\r\n") {
                return Err(BodyError::Trailer);
            }
            if self.section.ends_with(b"\r\n\r\n") {
                self.check()?;
                return Ok((taken, true));
            }
        }
    }

    /// Each line has to be a field line, no other than in a head.
    fn check(&self) -> Result<(), BodyError> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_LINES];
        match httparse::parse_headers(&self.section, &mut fields) {
            Ok(httparse::Status::Complete((length, _))) if length == self.section.len() => Ok(()),
            Err(httparse::Error::TooManyHeaders) => Err(BodyError::TrailersTooLarge),
            Ok(_) | Err(_) => Err(BodyError::Trailer),
        }
    }

    /// Writes the lines that may stand behind a body. The empty line is the caller's.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut fields = [httparse::EMPTY_HEADER; MAX_LINES];
        let Ok(httparse::Status::Complete((_, fields))) =
            httparse::parse_headers(&self.section, &mut fields)
        else {
            return;
        };
        for field in fields.iter().filter(|field| !is_header_only(field.name)) {
            for part in [field.name.as_bytes(), b": ", field.value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
    }
}

/// Whether this may be a header but no trailer. Many programs read underscores as hyphens.
fn is_header_only(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    HEADERS_ONLY.contains(&name.as_bytes()) || name.starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests {
    use super::{BodyError, HEADERS_ONLY, MAX_BYTES, MAX_LINES, Trailers};

    fn written(section: &str) -> Result<String, BodyError> {
        let mut trailers = Trailers::default();
        let behind = format!("{section}GET");
        let (taken, is_end) = trailers.read(behind.as_bytes())?;
        assert_eq!((taken, is_end), (section.len(), true));
        let mut out = Vec::new();
        trailers.write(&mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    /// RFC 9110 6.5.1.
    #[test]
    fn what_only_a_header_may_say_is_left_out() {
        for name in HEADERS_ONLY {
            let name = String::from_utf8(name.to_vec()).unwrap();
            for name in [name.to_uppercase(), name.replace('-', "_"), name] {
                let section = format!("x-a: 1\r\n{name}: evil\r\nX-B:2\r\n\r\n");
                assert_eq!(written(&section).as_deref(), Ok("x-a: 1\r\nX-B: 2\r\n"), "{name}");
            }
        }
        assert_eq!(written("X-Forwarded-Foo: 1\r\n\r\n").as_deref(), Ok(""));
        let kept = "X-Sum: 1\r\ngrpc-status: 0\r\nETag: x\r\nServer-Timing: y\r\nx-forward: z\r\n";
        assert_eq!(written(&format!("{kept}\r\n")).as_deref(), Ok(kept));
    }

    #[test]
    fn trailers_are_bounded() {
        let line = "x: y\r\n";
        assert!(written(&format!("{}\r\n", line.repeat(MAX_LINES))).is_ok());
        let many = format!("{}\r\n", line.repeat(MAX_LINES + 1));
        assert_eq!(written(&many), Err(BodyError::TrailersTooLarge));
        let large = format!("x: {}\r\n\r\n", "y".repeat(MAX_BYTES));
        assert_eq!(written(&large), Err(BodyError::TrailersTooLarge));
    }
}
