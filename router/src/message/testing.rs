//! Heads for the tests of the modules beside it.

use crate::http1::head::{HeadLimits, RequestHead, ResponseHead};
use crate::http1::server::{Accepted, Connection, HeadStep};

const LIMITS: HeadLimits = HeadLimits { max_bytes: 80 * 1024, max_fields: 200, max_target: 65_534 };

/// A request that was accepted, with the buffer that it was read into.
pub(super) struct Request {
    pub(super) buf: Vec<u8>,
    pub(super) head: RequestHead,
    pub(super) accepted: Accepted,
}

impl Request {
    /// Reads a whole head.
    #[track_caller]
    pub(super) fn read(text: &str) -> Self {
        let buf = text.as_bytes().to_vec();
        let mut head = RequestHead::default();
        match Connection::default().read_head(&buf, &mut head, &LIMITS) {
            Ok(HeadStep::Complete(accepted)) => Self { buf, head, accepted },
            other => panic!("{text:?}: {other:?}"),
        }
    }

    /// A `GET` with these lines, each of which ends in CRLF, behind a `Host`.
    #[track_caller]
    pub(super) fn get(lines: &str) -> Self {
        Self::read(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
    }

    /// The same with names and values.
    #[track_caller]
    pub(super) fn with(lines: &[(&str, &str)]) -> Self {
        Self::get(&text(lines))
    }
}

/// Field lines as they are sent.
pub(super) fn text(lines: &[(&str, &str)]) -> String {
    lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// A response with the buffer that it was read into.
pub(super) fn response(text: &str) -> (Vec<u8>, ResponseHead) {
    let buf = text.as_bytes().to_vec();
    let mut head = ResponseHead::default();
    head.parse(&buf, &LIMITS).unwrap().expect("a whole head");
    (buf, head)
}

/// The field lines of a head that was written.
pub(super) fn lines(written: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8(written.to_vec()).unwrap();
    let (head, end) = text.split_at(text.len() - 4);
    assert_eq!(end, "\r\n\r\n");
    let fields = head.split("\r\n").skip(1);
    fields
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect()
}
