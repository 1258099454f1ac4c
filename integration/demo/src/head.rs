//! The head of an HTTP/1 message as bytes, read strictly: the harness must notice what a lenient library would
//! forgive, and the fake Marathon needs no more than this.

use std::fmt;
use std::io;

/// Start line and header section of one message, as they came.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Head {
    /// Every byte, the empty line included.
    pub raw: Vec<u8>,
    /// The first line without its line end.
    pub start_line: String,
    /// Names as sent and values without surrounding blanks, in order.
    pub headers: Vec<(String, String)>,
}

impl fmt::Debug for Head {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As text: nobody reads a list of numbers in a failed assertion.
        write!(formatter, "{:?}", String::from_utf8_lossy(&self.raw))
    }
}

impl Head {
    /// Splits the bytes of a header section; an error names the line that is not HTTP.
    pub fn parse(raw: &[u8]) -> io::Result<Self> {
        let text = String::from_utf8_lossy(raw).into_owned();
        let text = text.strip_suffix("\r\n\r\n").ok_or_else(|| invalid("head without an end"))?;
        let mut lines = text.split("\r\n");
        let start_line = lines.next().unwrap_or_default().to_owned();
        let headers = lines.map(header_line).collect::<io::Result<_>>()?;
        Ok(Self { raw: raw.to_vec(), start_line, headers })
    }

    /// The value of the first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.values(name).first().copied()
    }

    /// The values of every header of that name, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// Whether such a header is there.
    pub fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    /// Method of a request.
    pub fn method(&self) -> &str {
        self.word(0)
    }

    /// Target of a request.
    pub fn target(&self) -> &str {
        self.word(1)
    }

    /// Status of a response; 0 when the line has none.
    pub fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or(0)
    }

    /// How the body of a request with this head ends.
    pub fn request_framing(&self) -> io::Result<Framing> {
        match self.declared_framing()? {
            Framing::UntilClose => Ok(Framing::Length(0)),
            declared => Ok(declared),
        }
    }

    /// How the body of a response with this head ends, when it answers `method`.
    pub fn response_framing(&self, method: &str) -> io::Result<Framing> {
        if method == "HEAD" || matches!(self.status(), 100..=199 | 204 | 304) {
            return Ok(Framing::Length(0));
        }
        self.declared_framing()
    }

    fn declared_framing(&self) -> io::Result<Framing> {
        let (codings, lengths) = (self.values("transfer-encoding"), self.values("content-length"));
        match (codings.as_slice(), lengths.as_slice()) {
            ([], []) => Ok(Framing::UntilClose),
            ([], [length]) => length.parse().map(Framing::Length).map_err(io::Error::other),
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            _ => Err(invalid("ambiguous framing")),
        }
    }

    fn word(&self, index: usize) -> &str {
        self.start_line.split(' ').nth(index).unwrap_or_default()
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// Chunked transfer coding.
    Chunked,
    /// That many bytes.
    Length(u64),
    /// Until the connection ends.
    UntilClose,
}

/// Splits one line of a header section into its name and its value without surrounding blanks.
///
/// # Errors
///
/// When the line has no name.
pub fn header_line(line: &str) -> io::Result<(String, String)> {
    let (name, value) = line.split_once(':').ok_or_else(|| invalid(line))?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(invalid(line));
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

/// The error for bytes that are not HTTP/1.
pub fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP/1: {what:?}"))
}
