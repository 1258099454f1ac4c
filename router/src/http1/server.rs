//! A connection of a client, towards which the router is the server: where in its requests and responses
//! it is, and what may come next.
//!
//! ```text
//! Idle ─▶ Head ─▶ Exchange ──▶ Idle       the next request (RFC 9112 9.3.2)
//!                    │  │  └─▶ Draining   the rest of a small body that is not needed, then Idle
//!                    │  └────▶ Lingering  no more requests; what still comes is thrown away (9.6)
//!                    └───────▶ Tunnel     after 101 (RFC 9110 7.8)
//! ```
//!
//! In an exchange the request body and the response move at the same time; the response may be over
//! first. The shell reads nothing of the next request before that, so that responses cannot get out of
//! order and a client that sends many requests waits.

mod steps;

pub use steps::{Accepted, Awaited, EndOfInput, HeadStep, Missed, Next, Phase, ResponsePlan};

use super::body::{Decoded, Decoder, End, Output};
use super::connection::Options;
use super::encode::Announce;
use super::error::RequestError;
use super::framing::{self, BodyKind};
use super::head::{HeadLimits, HeadScan, Method, RequestHead, Version, skip_empty_lines};
use super::known::KnownField;

/// Bytes of an unneeded body that are read so that the connection can go on. Beyond that a new connection
/// is cheaper.
const MAX_DRAINED: u64 = 64 * 1024;
/// Bytes that are read from a client that still sends, before its connection is closed: closing while bytes
/// wait would reset it, and the client might never see the response (RFC 9112 9.6).
const MAX_LINGERED: u64 = 1024 * 1024;

/// How far the response has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Response {
    #[default]
    NotBegun,
    /// Its body is of this kind.
    Begun(BodyKind),
}

/// `Expect: 100-continue` (RFC 9110 10.1.1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Expectation {
    #[default]
    None,
    /// The client waits with its body.
    Waiting,
}

/// The state of a client's connection.
#[derive(Debug, Default)]
pub struct Connection {
    phase: Phase,
    scan: HeadScan,
    method: Method,
    version: Version,
    /// Another request may follow the current one.
    persists: bool,
    /// The current request is the last one in any case.
    is_last: bool,
    expectation: Expectation,
    body: Decoder,
    body_kind: BodyKind,
    /// Why the body is not read any further.
    failure: Option<RequestError>,
    /// Bytes of content that the body may have.
    body_limit: Option<u64>,
    /// Bytes of content so far.
    body_read: u64,
    response: Response,
    requests: u32,
}

impl Connection {
    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Requests so far, with the current one.
    pub fn requests(&self) -> u32 {
        self.requests
    }

    /// No request after the current one is answered; one that has not begun yet is.
    pub fn close_after_next(&mut self) {
        self.is_last = true;
    }

    /// Reads the head that `buf`, everything that came and is not consumed, begins with.
    ///
    /// # Errors
    ///
    /// Why it is refused. There is a request to be answered then as well, and it is the last one: `head`
    /// holds what could be read of it.
    pub fn read_head(
        &mut self,
        buf: &[u8],
        head: &mut RequestHead,
        limits: &HeadLimits,
    ) -> Result<HeadStep, RequestError> {
        if buf.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            return self.read_blank(buf);
        }
        if !self.scan.is_due(buf, limits.max_bytes) {
            return Ok(HeadStep::Incomplete(0));
        }
        let parsed = head.parse(buf, limits);
        let result = match parsed {
            Ok(None) => {
                self.phase = Phase::Head;
                return Ok(HeadStep::Incomplete(0));
            }
            Ok(Some(consumed)) => self.begin(consumed, buf, head),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            self.refuse(error, head);
        }
        result.map(HeadStep::Complete)
    }

    /// Empty lines do not begin a request (RFC 9112 2.2), so they do not end its idleness.
    fn read_blank(&mut self, buf: &[u8]) -> Result<HeadStep, RequestError> {
        match skip_empty_lines(buf) {
            Ok(lines) => {
                self.scan = HeadScan::default();
                Ok(HeadStep::Incomplete(lines))
            }
            Err(error) => {
                self.refuse(error, &RequestHead::default());
                Err(error)
            }
        }
    }

    fn begin(
        &mut self,
        consumed: usize,
        buf: &[u8],
        head: &RequestHead,
    ) -> Result<Accepted, RequestError> {
        let framing = framing::of_request(head, buf)?;
        let options = Options::of(&head.fields, buf);
        self.enter(head);
        // Nothing that follows a CONNECT can be trusted to be a request (RFC 9110 9.3.6).
        self.persists = options.persists(head.version)
            && !framing.overrides_length
            && head.method != Method::Connect;
        self.body_kind = framing.body;
        self.body = Decoder::new(framing.body);
        let expects_continue = head.version == Version::Http11
            && !self.body.is_done()
            && head
                .fields
                .values(KnownField::Expect, buf)
                .any(|value| value.eq_ignore_ascii_case(b"100-continue"));
        if expects_continue {
            self.expectation = Expectation::Waiting;
        }
        Ok(Accepted { consumed, body: framing.body, options, expects_continue })
    }

    /// An exchange begins, of which nothing is known but its head.
    fn enter(&mut self, head: &RequestHead) {
        *self = Self {
            phase: Phase::Exchange,
            method: head.method,
            version: head.version,
            is_last: self.is_last,
            requests: self.requests.saturating_add(1),
            ..Self::default()
        };
    }

    /// A request that is refused before its body is known ends the connection.
    fn refuse(&mut self, error: RequestError, head: &RequestHead) {
        self.enter(head);
        self.failure = Some(error);
    }

    /// Limits the length of the current body.
    ///
    /// # Errors
    ///
    /// When it has announced that it is longer.
    pub fn limit_body(&mut self, most: Option<u64>) -> Result<(), RequestError> {
        self.body_limit = most;
        let is_longer = most.zip(self.body.announced()).is_some_and(|(most, length)| length > most);
        if is_longer { Err(self.fail(RequestError::BodyTooLarge)) } else { Ok(()) }
    }

    fn fail(&mut self, error: RequestError) -> RequestError {
        self.failure = Some(error);
        self.persists = false;
        error
    }

    /// Reads a part of the body; see [`Decoder::decode`].
    ///
    /// # Errors
    ///
    /// When it is malformed or too long. Nothing more is read from this connection then.
    pub fn read_body(&mut self, input: &[u8], output: Output) -> Result<Decoded, RequestError> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        if !input.is_empty() {
            // It did not wait, or does so no longer.
            self.expectation = Expectation::None;
        }
        let decoded = self
            .body
            .decode(input, output)
            .map_err(|error| self.fail(RequestError::from(error)))?;
        self.body_read += decoded.content as u64;
        if self.body_limit.is_some_and(|most| self.body_read > most) {
            return Err(self.fail(RequestError::BodyTooLarge));
        }
        Ok(decoded)
    }

    /// Notes that `count` bytes of a body of known length were handed on without being shown here. Its length
    /// was compared with the limit when the head was accepted.
    pub fn pass_body(&mut self, count: usize) {
        self.body.pass(count as u64);
        self.body_read += count as u64;
    }

    /// Begins the body again: its input is going to be shown from its first byte. For another try with a
    /// body of which all the input is still in the buffer.
    pub fn rewind_body(&mut self) {
        self.body = Decoder::new(self.body_kind);
        self.body_read = 0;
    }

    /// The body of the current request.
    pub fn body(&self) -> &Decoder {
        &self.body
    }

    /// Whether more of the current request is to be read.
    pub fn awaits_body(&self) -> bool {
        self.phase == Phase::Exchange && self.failure.is_none() && !self.body.is_done()
    }

    /// Whether to send [`CONTINUE`](super::encode::CONTINUE) now: the client waits for it. `true` once.
    pub fn take_continue(&mut self) -> bool {
        let is_wanted =
            self.expectation == Expectation::Waiting && self.response == Response::NotBegun;
        if is_wanted {
            self.expectation = Expectation::None;
        }
        is_wanted
    }

    /// Whether other informational responses may be sent. A client of HTTP/1.0 would take them for the
    /// response (RFC 9110 15.2).
    pub fn takes_informational(&self) -> bool {
        self.phase == Phase::Exchange
            && self.version == Version::Http11
            && self.response == Response::NotBegun
    }

    /// The response begins. `source` is its body as it comes: for a backend's as
    /// [`framing::of_response`] says, for one of our own the length also where the body is not sent.
    pub fn begin_response(&mut self, status: u16, source: BodyKind) -> ResponsePlan {
        if status == 101 {
            self.response = Response::Begun(BodyKind::None);
            return ResponsePlan {
                announce: Announce::Nothing,
                body: BodyKind::None,
                connection: Some("upgrade"),
                output: Output::Content,
                makes_chunks: false,
            };
        }
        let is_old = self.version == Version::Http10;
        let framed = match source {
            // HTTP/1.0 knows no chunks (RFC 9112 7.1).
            BodyKind::Chunked | BodyKind::UntilClose if is_old => BodyKind::UntilClose,
            BodyKind::Chunked | BodyKind::UntilClose => BodyKind::Chunked,
            BodyKind::None | BodyKind::Length(_) => source,
        };
        let is_without = self.method == Method::Head || framing::has_no_body(status);
        let announce = match framed {
            _ if !framing::may_announce_length(status) => Announce::Nothing,
            BodyKind::None if is_without && is_old => Announce::LengthAsItCame,
            BodyKind::None if is_without => Announce::AsItCame,
            BodyKind::None => Announce::Body(BodyKind::Length(0)),
            framed => Announce::Body(framed),
        };
        let body = if is_without { BodyKind::None } else { framed };
        // A client that still waits for 100 may send its body or not: what comes next is unknown.
        self.persists &= !self.is_last
            && body != BodyKind::UntilClose
            && self.failure.is_none()
            && self.expectation == Expectation::None;
        self.response = Response::Begun(body);
        let connection = match (self.persists, is_old) {
            (false, _) => Some("close"),
            (true, true) => Some("keep-alive"),
            (true, false) => None,
        };
        let passes_chunks = body == BodyKind::Chunked && source == BodyKind::Chunked;
        ResponsePlan {
            announce,
            body,
            connection,
            output: if passes_chunks { Output::Chunks } else { Output::Content },
            makes_chunks: body == BodyKind::Chunked && !passes_chunks,
        }
    }

    /// Everything of the response has been sent.
    pub fn end_response(&mut self) -> Next {
        let is_whole = self.failure.is_none() && self.body.is_done();
        match (self.persists, is_whole) {
            (true, true) => self.become_idle(),
            (false, true) => self.close(),
            (true, false) if self.body.announced().is_none_or(|left| left <= MAX_DRAINED) => {
                self.phase = Phase::Draining(MAX_DRAINED);
                Next::Discard
            }
            (_, false) => self.linger(),
        }
    }

    fn become_idle(&mut self) -> Next {
        *self = Self { is_last: self.is_last, requests: self.requests, ..Self::default() };
        Next::Request
    }

    fn close(&mut self) -> Next {
        self.phase = Phase::Closed;
        Next::Close
    }

    /// Ends the connection without losing what it was sent: the caller closes the sending side.
    pub fn linger(&mut self) -> Next {
        self.phase = Phase::Lingering(MAX_LINGERED);
        Next::Discard
    }

    /// Throws input away after a response. Returns how many bytes, and what comes then.
    pub fn discard(&mut self, input: &[u8]) -> (usize, Next) {
        match self.phase {
            Phase::Draining(left) => {
                let mut consumed = 0;
                loop {
                    let rest = input.get(consumed..).unwrap_or_default();
                    let Ok(decoded) = self.read_body(rest, Output::Content) else {
                        return (input.len(), self.linger());
                    };
                    consumed += decoded.consumed();
                    if decoded.end != End::No {
                        return (consumed, self.become_idle());
                    }
                    if consumed as u64 > left {
                        return (input.len(), self.linger());
                    }
                    if consumed == input.len() {
                        self.phase = Phase::Draining(left - consumed as u64);
                        return (consumed, Next::Discard);
                    }
                }
            }
            Phase::Lingering(left) => match left.checked_sub(input.len() as u64) {
                Some(left) if left > 0 => {
                    self.phase = Phase::Lingering(left);
                    (input.len(), Next::Discard)
                }
                _ => (input.len(), self.close()),
            },
            _ => (0, self.close()),
        }
    }

    /// The rest of the response will not come: the client must see that it is cut (RFC 9112 8).
    pub fn cut_response(&mut self) -> Next {
        self.phase = Phase::Closed;
        match self.response {
            Response::Begun(BodyKind::UntilClose) => Next::Reset,
            _ => Next::Close,
        }
    }

    /// `101` has been sent: what is in the buffer and what comes belongs to the other protocol.
    pub fn become_tunnel(&mut self) {
        self.phase = Phase::Tunnel;
    }

    /// The client has closed its sending side.
    pub fn end_of_input(&mut self) -> EndOfInput {
        match self.phase {
            Phase::Head => {
                self.refuse(RequestError::HeadCut, &RequestHead::default());
                EndOfInput::Cut(RequestError::HeadCut)
            }
            Phase::Exchange if self.awaits_body() => {
                EndOfInput::Cut(self.fail(RequestError::BodyCut))
            }
            Phase::Exchange => EndOfInput::Gone,
            Phase::Idle
            | Phase::Draining(_)
            | Phase::Lingering(_)
            | Phase::Tunnel
            | Phase::Closed => {
                self.phase = Phase::Closed;
                EndOfInput::Close
            }
        }
    }

    /// The deadline has passed while `awaited` was being waited for.
    pub fn miss_deadline(&mut self, awaited: Awaited) -> Missed {
        match (self.phase, self.response, awaited) {
            (Phase::Head, ..) => {
                self.refuse(RequestError::HeadTimedOut, &RequestHead::default());
                Missed::Refuse(RequestError::HeadTimedOut)
            }
            (Phase::Exchange, Response::NotBegun, Awaited::Request) if self.awaits_body() => {
                Missed::Refuse(self.fail(RequestError::BodyTimedOut))
            }
            (Phase::Exchange, Response::Begun(_), Awaited::Request | Awaited::Response) => {
                self.phase = Phase::Closed;
                Missed::Reset
            }
            (Phase::Exchange, ..) => Missed::Backend,
            _ => {
                self.phase = Phase::Closed;
                Missed::Close
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Accepted, Announce, Awaited, BodyKind, Connection, EndOfInput, HeadStep, MAX_DRAINED,
        MAX_LINGERED, Missed, Next, Output, Phase,
    };
    use crate::http1::error::RequestError;
    use crate::http1::head::{HeadLimits, RequestHead};

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 8192, max_fields: 100, max_target: 8192 };

    fn read(connection: &mut Connection, text: &str) -> Result<HeadStep, RequestError> {
        connection.read_head(text.as_bytes(), &mut RequestHead::default(), &LIMITS)
    }

    #[track_caller]
    fn accept(connection: &mut Connection, text: &str) -> Accepted {
        match read(connection, text) {
            Ok(HeadStep::Complete(accepted)) => accepted,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn get(lines: &str) -> String {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
    }

    fn body(connection: &mut Connection, mut input: &[u8]) -> Result<(), RequestError> {
        while !input.is_empty() && connection.awaits_body() {
            let decoded = connection.read_body(input, Output::Content)?;
            input = &input[decoded.consumed()..];
        }
        Ok(())
    }

    const LENGTH: BodyKind = BodyKind::Length(5);

    /// RFC 9112 9.3.2.
    #[test]
    fn requests_follow_each_other() {
        let mut connection = Connection::default();
        let text = format!("{}{}", get("Content-Length: 3\r\n"), "abcGET /2");
        for number in 1..=3 {
            let accepted = accept(&mut connection, &text);
            assert_eq!(connection.phase(), Phase::Exchange);
            assert_eq!((connection.requests(), accepted.body), (number, BodyKind::Length(3)));
            body(&mut connection, &text.as_bytes()[accepted.consumed..]).unwrap();
            assert!(!connection.awaits_body());
            assert_eq!(connection.begin_response(200, LENGTH).connection, None);
            assert_eq!(connection.end_response(), Next::Request);
            assert_eq!(connection.phase(), Phase::Idle);
        }
    }

    /// RFC 9112 2.2.
    #[test]
    fn empty_lines_are_no_request() {
        let mut connection = Connection::default();
        for (text, expected) in [("", 0), ("\r", 0), ("\r\n", 2), ("\r\n\r", 2), ("\r\n\r\n", 4)] {
            assert_eq!(read(&mut connection, text), Ok(HeadStep::Incomplete(expected)), "{text:?}");
            assert_eq!(connection.phase(), Phase::Idle);
        }
        assert_eq!(read(&mut connection, "\r\nGET"), Ok(HeadStep::Incomplete(0)));
        assert_eq!(connection.phase(), Phase::Head);
        for text in ["\n", "\r\n\n", "\r\r"] {
            assert!(read(&mut Connection::default(), text).is_err(), "{text:?}");
        }
    }

    /// RFC 9112 9.3, 9.6.
    #[test]
    fn the_connection_goes_on_where_both_sides_know_that_it_does() {
        let until_close = BodyKind::UntilClose;
        let (old, old_alive) = (
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        );
        let (new, closing, both) =
            (get(""), get("Connection: close\r\n"), get("Connection: keep-alive, close\r\n"));
        for (request, source, sent, connection, next) in [
            (new.as_str(), LENGTH, LENGTH, None, Next::Request),
            (&new, BodyKind::Chunked, BodyKind::Chunked, None, Next::Request),
            (&new, until_close, BodyKind::Chunked, None, Next::Request),
            (&closing, LENGTH, LENGTH, Some("close"), Next::Close),
            (&both, LENGTH, LENGTH, Some("close"), Next::Close),
            (old, LENGTH, LENGTH, Some("close"), Next::Close),
            (old_alive, LENGTH, LENGTH, Some("keep-alive"), Next::Request),
            (old_alive, BodyKind::Chunked, until_close, Some("close"), Next::Close),
            (old_alive, until_close, until_close, Some("close"), Next::Close),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", LENGTH, LENGTH, Some("close"), Next::Close),
        ] {
            let mut state = Connection::default();
            accept(&mut state, request);
            let plan = state.begin_response(200, source);
            assert_eq!((plan.announce, plan.body), (Announce::Body(sent), sent), "{request:?}");
            assert_eq!(plan.connection, connection, "{request:?} {source:?}");
            let passes_chunks = source == BodyKind::Chunked && sent == source;
            assert_eq!(plan.output == Output::Chunks, passes_chunks);
            assert_eq!(plan.makes_chunks, sent == BodyKind::Chunked && source == until_close);
            assert_eq!(state.end_response(), next, "{request:?} {source:?}");
        }
        let mut last = Connection::default();
        last.close_after_next();
        accept(&mut last, &new);
        assert_eq!(last.begin_response(200, LENGTH).connection, Some("close"));
        assert_eq!(last.end_response(), Next::Close);
        let mut overriding = Connection::default();
        accept(&mut overriding, &get("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"));
        body(&mut overriding, b"0\r\n\r\n").unwrap();
        assert_eq!(overriding.begin_response(200, LENGTH).connection, Some("close"));
    }

    /// RFC 9110 6.4.1, 8.6.
    #[test]
    fn responses_without_a_body_announce_what_they_may() {
        let (get, head) = (get(""), "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        let old_head = "HEAD / HTTP/1.0\r\nHost: a\r\n\r\n";
        let length = Announce::Body(LENGTH);
        for (request, status, source, announce, sent) in [
            (get.as_str(), 204, BodyKind::None, Announce::Nothing, BodyKind::None),
            (&get, 304, BodyKind::None, Announce::AsItCame, BodyKind::None),
            (&get, 200, BodyKind::None, Announce::Body(BodyKind::Length(0)), BodyKind::None),
            (head, 200, BodyKind::None, Announce::AsItCame, BodyKind::None),
            (old_head, 200, BodyKind::None, Announce::LengthAsItCame, BodyKind::None),
            // A page of our own.
            (head, 404, LENGTH, length, BodyKind::None),
            (&get, 404, LENGTH, length, LENGTH),
        ] {
            let mut state = Connection::default();
            accept(&mut state, request);
            let plan = state.begin_response(status, source);
            assert_eq!((plan.announce, plan.body), (announce, sent), "{request:?} {status}");
        }
    }

    /// RFC 9112 9.6, 11.2.
    #[test]
    fn a_refused_request_is_the_last_one() {
        for (text, expected) in [
            ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), RequestError::BareLineFeed),
            (get("Content-Length: x\r\n"), RequestError::Length),
            (get("Host: b\r\n"), RequestError::HostRepeated),
        ] {
            let mut connection = Connection::default();
            assert_eq!(read(&mut connection, &text), Err(expected));
            assert_eq!((connection.phase(), connection.requests()), (Phase::Exchange, 1));
            assert!(!connection.awaits_body());
            assert_eq!(connection.begin_response(400, LENGTH).connection, Some("close"));
            assert_eq!(connection.end_response(), Next::Discard);
            assert_eq!(connection.phase(), Phase::Lingering(MAX_LINGERED));
        }
    }

    /// RFC 9110 10.1.1.
    #[test]
    fn client_that_waits_gets_one_100_continue() {
        let text = get("Content-Length: 3\r\nExpect: 100-Continue\r\n");
        let mut waiting = Connection::default();
        assert!(accept(&mut waiting, &text).expects_continue);
        assert!(waiting.take_continue() && !waiting.take_continue());
        assert_eq!(waiting.begin_response(200, LENGTH).connection, None);
        // One that did not wait needs no 100.
        let mut hasty = Connection::default();
        accept(&mut hasty, &text);
        body(&mut hasty, b"a").unwrap();
        assert!(!hasty.take_continue());
        // One that has its answer instead may send its body or not.
        let mut answered = Connection::default();
        accept(&mut answered, &text);
        assert_eq!(answered.begin_response(417, LENGTH).connection, Some("close"));
        assert!(!answered.take_continue());
        assert_eq!(answered.end_response(), Next::Discard);
        for text in [
            get("Expect: 100-continue\r\n"),
            get("Content-Length: 0\r\nExpect: 100-continue\r\n"),
            get("Content-Length: 3\r\nExpect: x\r\n"),
            text.replace("1.1", "1.0"),
        ] {
            let mut connection = Connection::default();
            assert!(!accept(&mut connection, &text).expects_continue, "{text:?}");
            assert!(!connection.take_continue());
        }
    }

    /// RFC 9110 15.2.
    #[test]
    fn informational_responses_come_before_the_response_and_not_to_old_clients() {
        let mut connection = Connection::default();
        assert!(!connection.takes_informational());
        accept(&mut connection, &get(""));
        assert!(connection.takes_informational());
        connection.begin_response(200, LENGTH);
        assert!(!connection.takes_informational());
        let mut old = Connection::default();
        accept(&mut old, &get("").replace("1.1", "1.0"));
        assert!(!old.takes_informational());
    }

    #[test]
    fn a_body_beyond_its_limit_ends_the_connection() {
        let mut announced = Connection::default();
        accept(&mut announced, &get("Content-Length: 4\r\n"));
        assert_eq!(announced.limit_body(Some(3)), Err(RequestError::BodyTooLarge));
        assert_eq!(announced.read_body(b"a", Output::Content), Err(RequestError::BodyTooLarge));
        assert_eq!(announced.begin_response(413, LENGTH).connection, Some("close"));
        let mut counted = Connection::default();
        accept(&mut counted, &get("Transfer-Encoding: chunked\r\n"));
        counted.limit_body(Some(3)).unwrap();
        assert_eq!(body(&mut counted, b"3\r\nabc\r\n1\r\nd"), Err(RequestError::BodyTooLarge));
        assert!(!counted.awaits_body());
        let mut fits = Connection::default();
        accept(&mut fits, &get("Transfer-Encoding: chunked\r\n"));
        fits.limit_body(Some(3)).unwrap();
        assert_eq!(body(&mut fits, b"3\r\nabc\r\n0\r\n\r\n"), Ok(()));
        assert!(!fits.awaits_body());
    }

    #[test]
    fn a_body_can_be_read_again_from_its_first_byte() {
        let input = b"3\r\nabc\r\n0\r\nT: 1\r\n\r\n";
        let mut connection = Connection::default();
        accept(&mut connection, &get("Transfer-Encoding: chunked\r\n"));
        connection.limit_body(Some(3)).unwrap();
        for end in [5, input.len(), input.len()] {
            connection.rewind_body();
            assert!(connection.awaits_body());
            assert_eq!(body(&mut connection, &input[..end]), Ok(()));
        }
        assert!(!connection.awaits_body());
        let mut trailers = Vec::new();
        connection.body().trailers().unwrap().write(&mut trailers);
        assert_eq!(trailers, b"T: 1\r\n");
    }

    /// RFC 9112 9.3: a response that is over first.
    #[test]
    fn the_rest_of_a_small_body_is_thrown_away_and_a_large_one_ends_the_connection() {
        let early = |lines: &str| {
            let mut connection = Connection::default();
            accept(&mut connection, &get(lines));
            assert_eq!(connection.begin_response(200, LENGTH).connection, None);
            assert_eq!(connection.end_response(), Next::Discard);
            connection
        };
        let mut small = early("Content-Length: 5\r\n");
        assert_eq!(small.discard(b"abc"), (3, Next::Discard));
        assert_eq!(small.discard(b"deGET /"), (2, Next::Request));
        assert_eq!(small.phase(), Phase::Idle);
        let mut chunked = early("Transfer-Encoding: chunked\r\n");
        assert_eq!(chunked.discard(b"3\r\nabc\r\n0\r\nT: 1\r\n\r\nGET"), (19, Next::Request));
        let mut malformed = early("Transfer-Encoding: chunked\r\n");
        assert_eq!(malformed.discard(b"x"), (1, Next::Discard));
        assert_eq!(malformed.phase(), Phase::Lingering(MAX_LINGERED));
        let mut endless = early("Transfer-Encoding: chunked\r\n");
        let chunk = b"7ffffff\r\n".to_vec();
        assert_eq!(endless.discard(&chunk), (9, Next::Discard));
        let much = vec![b'x'; usize::try_from(MAX_DRAINED).unwrap()];
        assert_eq!(endless.discard(&much), (much.len(), Next::Discard));
        assert_eq!(endless.phase(), Phase::Lingering(MAX_LINGERED));
        let mut large = early("Content-Length: 65537\r\n");
        assert_eq!(large.phase(), Phase::Lingering(MAX_LINGERED));
        let much = vec![0; usize::try_from(MAX_LINGERED).unwrap() - 1];
        assert_eq!(large.discard(&much), (much.len(), Next::Discard));
        assert_eq!(large.discard(b"x"), (1, Next::Close));
        assert_eq!(large.phase(), Phase::Closed);
    }

    /// RFC 9112 8.
    #[test]
    fn the_end_of_input_means_something_else_in_each_phase() {
        let mut connection = Connection::default();
        assert_eq!(connection.end_of_input(), EndOfInput::Close);
        let mut connection = Connection::default();
        read(&mut connection, "GET / HT").unwrap();
        assert_eq!(connection.end_of_input(), EndOfInput::Cut(RequestError::HeadCut));
        assert_eq!(connection.begin_response(400, LENGTH).connection, Some("close"));
        let mut connection = Connection::default();
        accept(&mut connection, &get("Content-Length: 3\r\n"));
        assert_eq!(connection.end_of_input(), EndOfInput::Cut(RequestError::BodyCut));
        let mut connection = Connection::default();
        accept(&mut connection, &get(""));
        assert_eq!(connection.end_of_input(), EndOfInput::Gone);
        connection.become_tunnel();
        assert_eq!(connection.end_of_input(), EndOfInput::Close);
    }

    #[test]
    fn a_missed_deadline_means_something_else_in_each_phase() {
        let mut idle = Connection::default();
        assert_eq!(idle.miss_deadline(Awaited::Request), Missed::Close);
        let mut head = Connection::default();
        read(&mut head, "GET / HT").unwrap();
        let expected = Missed::Refuse(RequestError::HeadTimedOut);
        assert_eq!(head.miss_deadline(Awaited::Request), expected);
        let posted = || {
            let mut connection = Connection::default();
            accept(&mut connection, &get("Content-Length: 3\r\n"));
            connection
        };
        let expected = Missed::Refuse(RequestError::BodyTimedOut);
        assert_eq!(posted().miss_deadline(Awaited::Request), expected);
        assert_eq!(posted().miss_deadline(Awaited::Backend), Missed::Backend);
        let mut answered = posted();
        answered.begin_response(200, LENGTH);
        assert_eq!(answered.miss_deadline(Awaited::Backend), Missed::Backend);
        assert_eq!(answered.cut_response(), Next::Close);
        let mut stalled = posted();
        stalled.begin_response(200, LENGTH);
        assert_eq!(stalled.miss_deadline(Awaited::Response), Missed::Reset);
        let mut lingering = posted();
        lingering.linger();
        assert_eq!(lingering.miss_deadline(Awaited::Request), Missed::Close);
    }

    /// RFC 9112 8: an end that only closing tells must not look like one.
    #[test]
    fn a_cut_response_never_ends_cleanly() {
        for (version, expected) in [("1.0", Next::Reset), ("1.1", Next::Close)] {
            let mut connection = Connection::default();
            accept(&mut connection, &get("").replace("1.1", version));
            connection.begin_response(200, BodyKind::UntilClose);
            assert_eq!(connection.cut_response(), expected);
        }
    }

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 144, "{}", size_of::<Connection>());
    }
}
