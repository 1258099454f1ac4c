//! What is seen of one exchange on its way between hyper and the socket: the request as it was
//! sent, so that it can be sent again, and informational responses, which hyper passes over.
//!
//! hyper can report informational responses itself, and a request can be cloned before it is
//! sent; both together cost every request a twelfth of all its instructions (measured with
//! callgrind), for things that happen to hardly any.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri};

/// Requests up to this size can be sent again.
const MAX_REPLAY: usize = 16 * 1024;
/// Informational responses to one request; a backend that sends more has failed.
const MAX_INFORMATIONAL: usize = 32;
/// Bytes of one informational response.
const MAX_HEAD: usize = 16 * 1024;
/// How an informational response begins.
const INFORMATIONAL: &[u8] = b"HTTP/1.1 1";
/// Index of the minor version in it, which may be any digit.
const MINOR_VERSION: usize = 7;
/// What an informational response says of one connection or, wrongly, of a body (RFC 9110 7.6.1, 8.6),
/// beside what its `Connection` names.
const ONE_HOP: [&str; 7] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];
/// Most header lines of a head that is parsed here; hyper's own limit.
const MAX_HEADERS: usize = 100;

/// Notes about the current exchange of a connection.
#[derive(Debug, Default)]
pub struct Wire {
    awaits_head: AtomicBool,
    has_progress: AtomicBool,
    has_informational: AtomicBool,
    has_too_many_informational: AtomicBool,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    /// The request is to be recorded, and everything of it was so far.
    records: bool,
    /// The request as it was handed over, where nothing is seen of how it is written.
    kept: Option<Request<()>>,
    sent: Vec<u8>,
    /// The beginning of a response that may be an informational one.
    head: Vec<u8>,
    informational: Vec<Informational>,
    count: usize,
}

/// A response with a status below 200.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Informational {
    /// Never 101, which ends an exchange.
    pub status: StatusCode,
    /// The head as it may be passed on: without what concerns only the backend's connection.
    pub head: Vec<u8>,
}

impl Wire {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An exchange begins; `records` keeps the request for [`Wire::take_request`].
    pub(super) fn begin(&self, records: bool) {
        let mut notes = self.notes();
        notes.records = records;
        notes.sent.clear();
        notes.head.clear();
        notes.count = 0;
        self.awaits_head.store(true, Ordering::Relaxed);
        self.has_too_many_informational.store(false, Ordering::Relaxed);
    }

    /// An exchange begins on a connection that carries others, too; keeps the head of the request for
    /// [`Wire::take_request`].
    pub(super) fn keep<B>(&self, request: &Request<B>) {
        let mut kept = Request::new(());
        kept.method_mut().clone_from(request.method());
        kept.uri_mut().clone_from(request.uri());
        kept.headers_mut().clone_from(request.headers());
        self.notes().kept = Some(kept);
    }

    /// Whether nothing of the final response has come yet.
    pub(super) fn awaits_head(&self) -> bool {
        self.awaits_head.load(Ordering::Relaxed)
    }

    /// Bytes of the request went out.
    pub(super) fn sent(&self, bytes: &[u8]) {
        let mut notes = self.notes();
        if notes.records {
            if notes.sent.len() + bytes.len() > MAX_REPLAY {
                notes.records = false;
                notes.sent = Vec::new();
            } else {
                notes.sent.extend_from_slice(bytes);
            }
        }
    }

    /// Bytes of the response came in.
    pub(super) fn received(&self, bytes: &[u8]) {
        let mut notes = self.notes();
        if !bytes.is_empty() {
            notes.records = false;
            self.has_progress.store(true, Ordering::Relaxed);
        }
        if notes.head.is_empty() && !may_be_informational(bytes) {
            self.awaits_head.store(false, Ordering::Relaxed);
            return;
        }
        notes.head.extend_from_slice(bytes);
        while let Some((length, informational)) = parse_informational(&notes.head) {
            drop(notes.head.drain(..length));
            notes.count += 1;
            if notes.count <= MAX_INFORMATIONAL && length <= MAX_HEAD {
                notes.informational.push(informational);
                self.has_informational.store(true, Ordering::Relaxed);
            } else {
                self.has_too_many_informational.store(true, Ordering::Relaxed);
            }
        }
        let is_final = !may_be_informational(&notes.head);
        if is_final || notes.head.len() > MAX_HEAD {
            // hyper would pass over any number of them. What it makes of a 101 is its answer.
            if !is_final && !is_switching_protocols(&notes.head) {
                self.has_too_many_informational.store(true, Ordering::Relaxed);
            }
            notes.head = Vec::new();
            self.awaits_head.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the backend has sent more than [`MAX_INFORMATIONAL`] responses that are none, or one
    /// of more than [`MAX_HEAD`] bytes.
    pub fn has_too_many_informational(&self) -> bool {
        self.has_too_many_informational.load(Ordering::Relaxed)
    }

    /// Bytes came in.
    pub(super) fn note_progress(&self) {
        self.has_progress.store(true, Ordering::Relaxed);
    }

    /// Whether bytes of the response's head came in since this was asked last.
    pub fn take_progress(&self) -> bool {
        let has_progress = self.has_progress.load(Ordering::Relaxed);
        if has_progress {
            self.has_progress.store(false, Ordering::Relaxed);
        }
        has_progress
    }

    /// Informational responses since this was asked last.
    pub fn take_informational(&self) -> Vec<Informational> {
        if !self.has_informational.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.has_informational.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.notes().informational)
    }

    /// The request that was sent, if it was to be recorded and no byte of an answer has come.
    pub fn take_request(&self) -> Option<Request<()>> {
        let mut notes = self.notes();
        if !notes.records {
            return notes.kept.take();
        }
        notes.records = false;
        parse_request(&std::mem::take(&mut notes.sent))
    }
}

/// Without the empty lines that hyper skips before a response.
fn skip_empty_lines(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    bytes.get(start.unwrap_or(bytes.len())..).unwrap_or_default()
}

/// Whether what begins so can become an informational response, 101 included.
fn may_be_informational(bytes: &[u8]) -> bool {
    let pairs = INFORMATIONAL.iter().zip(skip_empty_lines(bytes)).enumerate();
    pairs.into_iter().all(|(index, (expected, byte))| {
        byte == expected || index == MINOR_VERSION && byte.is_ascii_digit()
    })
}

fn is_switching_protocols(bytes: &[u8]) -> bool {
    let status = INFORMATIONAL.len() - 1;
    skip_empty_lines(bytes).get(status..).is_some_and(|status| status.starts_with(b"101"))
}

/// The first response in `bytes` and its length, if it is complete and informational.
fn parse_informational(bytes: &[u8]) -> Option<(usize, Informational)> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = response.parse(bytes) else { return None };
    let code = response.code.filter(|code| (100..200).contains(code) && *code != 101)?;
    let status = StatusCode::from_u16(code).ok()?;
    let reason = status.canonical_reason().unwrap_or("Informational");
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    let connection: Vec<&[u8]> = (response.headers.iter())
        .filter(|header| header.name.eq_ignore_ascii_case("connection"))
        .flat_map(|header| header.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
        .collect();
    for header in &*response.headers {
        let is_name = |name: &[u8]| header.name.as_bytes().eq_ignore_ascii_case(name);
        if ONE_HOP.iter().any(|name| is_name(name.as_bytes()))
            || connection.iter().any(|name| is_name(name))
        {
            continue;
        }
        for part in [header.name.as_bytes(), b": ", header.value, b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    Some((length, Informational { status, head }))
}

/// Reads back what hyper wrote.
fn parse_request(bytes: &[u8]) -> Option<Request<()>> {
    let mut headers = [httparse::EMPTY_HEADER; 2 * MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = parsed.parse(bytes) else { return None };
    if length != bytes.len() {
        return None;
    }
    let mut request = Request::new(());
    *request.method_mut() = parsed.method?.parse::<Method>().ok()?;
    *request.uri_mut() = parsed.path?.parse::<Uri>().ok()?;
    for header in parsed.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(header.value).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MAX_INFORMATIONAL, Wire};

    fn heads(wire: &Wire) -> Vec<String> {
        let informational = wire.take_informational().into_iter();
        informational.map(|i| String::from_utf8(i.head).unwrap()).collect()
    }

    #[test]
    fn a_request_without_an_answer_can_be_read_back() {
        let wire = Wire::default();
        wire.begin(true);
        wire.sent(b"GET /x?y=%20 HTTP/1.1\r\nhost: a.test\r\n");
        wire.sent(b"x-a: 1\r\nx-a: 2\r\n\r\n");
        let request = wire.take_request().unwrap();
        assert_eq!(
            (request.method().as_str(), request.uri().to_string().as_str()),
            ("GET", "/x?y=%20")
        );
        let values: Vec<_> = request.headers().get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert!(wire.take_request().is_none(), "only once");
    }

    #[test]
    fn a_request_is_not_kept_once_an_answer_has_begun_or_unless_asked() {
        let wire = Wire::default();
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        wire.begin(true);
        wire.sent(request);
        wire.received(b"H");
        assert!(wire.take_request().is_none());
        wire.begin(false);
        wire.sent(request);
        assert!(wire.take_request().is_none());
        wire.begin(true);
        wire.sent(&vec![b'a'; 20_000]);
        assert!(wire.take_request().is_none());
    }

    #[test]
    fn a_body_that_looks_like_a_response_is_not_looked_at() {
        let wire = Wire::default();
        wire.begin(false);
        wire.received(b"HTTP/1.1 200 OK\r\n\r\n");
        assert!(!wire.awaits_head());
        wire.begin(false);
        wire.received(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nHTTP/1.1 103 x\r\n\r\n");
        assert!(!wire.awaits_head());
        assert_eq!(heads(&wire), ["HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"]);
    }

    #[test]
    fn what_concerns_the_backends_connection_is_left_out() {
        let wire = Wire::default();
        wire.begin(false);
        wire.received(
            b"HTTP/1.1 103 Early Hints\r\nX-Secret: 1\r\nConnection: close, X-Secret\r\nX-Third: 2\r\n\
              connection: ,x-third\r\nProxy-Connection: x\r\nKeep-Alive: 1\r\nTE: x\r\nLink: </a>\r\n\r\n",
        );
        assert_eq!(heads(&wire), ["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]);
    }

    #[test]
    fn switching_protocols_is_no_informational_response() {
        let wire = Wire::default();
        wire.begin(false);
        wire.received(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nHTTP/1.1 103 x\r\n\r\n",
        );
        assert_eq!(heads(&wire), Vec::<String>::new());
    }

    #[test]
    fn a_flood_is_bounded() {
        let wire = Wire::default();
        wire.begin(false);
        for _ in 0..10_000 {
            wire.received(b"HTTP/1.1 102 Processing\r\n\r\n");
        }
        assert_eq!(wire.take_informational().len(), MAX_INFORMATIONAL);
    }

    #[test]
    fn more_than_the_maximum_of_informational_responses_is_noticed_however_written() {
        let continued = "HTTP/1.1 100 Continue\r\n\r\n";
        let final_one = "HTTP/1.1 200 OK\r\n\r\n";
        let huge = format!("HTTP/1.1 103 Early Hints\r\nlink: {}\r\n\r\n", "x".repeat(17_000));
        let switching = format!("HTTP/1.1 101 x\r\nset-cookie: {}\r\n\r\n", "x".repeat(17_000));
        for (bytes, expected) in [
            (continued.repeat(MAX_INFORMATIONAL) + final_one, false),
            (continued.repeat(MAX_INFORMATIONAL + 1) + final_one, true),
            ("HTTP/1.0 102 x\r\n\r\n".repeat(MAX_INFORMATIONAL + 1), true),
            ("\r\n\nHTTP/1.1 102 x\r\n\r\n".repeat(MAX_INFORMATIONAL + 1), true),
            ("HTTP/1.1 102 x\n\n".repeat(MAX_INFORMATIONAL + 1), true),
            (format!("{final_one}{}", continued.repeat(100)), false),
            (huge, true),
            (switching, false),
        ] {
            let wire = Wire::default();
            wire.begin(false);
            for read in bytes.as_bytes().chunks(4096) {
                if wire.awaits_head() {
                    wire.received(read);
                }
            }
            assert_eq!(wire.has_too_many_informational(), expected, "{bytes:.40}");
            wire.begin(false);
            assert!(!wire.has_too_many_informational(), "each exchange begins at none");
        }
    }

    proptest! {
        #[test]
        fn informational_responses_are_found_wherever_reads_end(cuts in proptest::collection::vec(1_usize..40, 1..20)) {
            let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nConnection: x\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            let wire = Wire::default();
            wire.begin(true);
            let mut rest = &bytes[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() && wire.awaits_head() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                wire.received(now);
                rest = later;
            }
            prop_assert_eq!(heads(&wire), [
                "HTTP/1.1 100 Continue\r\n\r\n",
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
            ]);
        }

        #[test]
        fn any_bytes_are_survived(reads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 0..10)) {
            let wire = Wire::default();
            wire.begin(true);
            wire.received(b"HTTP/1.1 1");
            for read in &reads {
                wire.received(read);
            }
        }
    }
}
