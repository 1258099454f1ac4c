//! Requests and answers as values, and answers as bytes: hyper would neither end a body with the
//! connection in HTTP/1.1 nor break it off in the middle.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::head::Head;

/// Longest chunk that is sent.
const CHUNK: usize = 32 * 1024;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Start line and headers.
    pub head: Head,
    /// The body.
    pub body: Vec<u8>,
    /// Path without query and base path.
    pub path: String,
    /// Parameters of the query, decoded, in order.
    pub query: Vec<(String, String)>,
}

impl Request {
    /// Takes a head and its body apart; `None` when its path is not below `base`.
    pub(super) fn new(head: Head, body: Vec<u8>, base: &str) -> Option<Self> {
        let target = head.target();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let path = path?.to_owned();
        let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Some(Self { head, body, path, query })
    }

    /// Values of a parameter.
    pub fn parameter<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether any `Accept` header names the type, alone or in a list.
    pub(super) fn accepts(&self, kind: &str) -> bool {
        let types = self.head.values("accept").into_iter().flat_map(|value| value.split(','));
        types.filter_map(|one| one.split(';').next()).any(|one| one.trim() == kind)
    }

    fn accepts_gzip(&self) -> bool {
        let codings = self.head.values("accept-encoding");
        codings.into_iter().flat_map(|value| value.split(',')).any(|one| one.trim() == "gzip")
    }

    fn wants_chunks(&self) -> bool {
        self.head.start_line.ends_with("HTTP/1.1")
    }

    /// Whether the connection ends with the answer.
    pub(super) fn is_last(&self) -> bool {
        !self.wants_chunks()
            || self.head.header("connection").is_some_and(|one| one.eq_ignore_ascii_case("close"))
    }
}

/// An answer as a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers, `Content-Type` among them, without those that frame the body.
    pub headers: Vec<(String, String)>,
    /// The body before any coding.
    pub body: Vec<u8>,
}

impl Answer {
    /// With a body of that type; an empty type sends none.
    pub fn new(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut answer = Self { status, headers: Vec::new(), body: body.into() };
        if !kind.is_empty() {
            answer = answer.with("Content-Type", kind);
        }
        answer
    }

    /// An error page, as the web server of Marathon makes it.
    pub fn html(status: u16, message: &str) -> Self {
        let body = format!(
            "<html>\n<head>\n<meta http-equiv=\"Content-Type\" content=\"text/html;charset=utf-8\"/>\n\
             <title>Error {status} {message}</title>\n</head>\n<body>\n<h2>HTTP ERROR {status}</h2>\n\
             <p>Reason:\n<pre>    {message}</pre></p>\n</body>\n</html>\n"
        );
        Self::new(status, "text/html;charset=iso-8859-1", body)
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Head and body on the wire, as an answer to `request`.
    pub(super) fn encode(&self, request: &Request) -> (Vec<u8>, Vec<u8>) {
        let mut head = self.head();
        let mut line = |name: &str, value: &str| {
            head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        };
        let mut body = self.body.clone();
        if request.accepts_gzip() && !body.is_empty() {
            line("Content-Encoding", "gzip");
            line("Vary", "Accept-Encoding, User-Agent");
            body = gzip(&body);
        }
        if request.is_last() {
            line("Connection", "close");
        }
        if body.is_empty() {
            line("Content-Length", "0");
        } else if request.wants_chunks() {
            line("Transfer-Encoding", "chunked");
            body = chunked(&body);
        }
        head.extend_from_slice(b"\r\n");
        if request.head.method() == "HEAD" {
            body.clear();
        }
        (head, body)
    }

    /// Status line and headers, without the empty line.
    pub(super) fn head(&self) -> Vec<u8> {
        let code = http::StatusCode::from_u16(self.status).ok();
        let reason = code.and_then(|code| code.canonical_reason()).unwrap_or("Unknown");
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.into_bytes()
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("writing to memory cannot fail")
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(body.len() + 64);
    for chunk in body.chunks(CHUNK) {
        wire.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}
