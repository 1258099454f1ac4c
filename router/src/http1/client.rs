//! A connection to a backend, towards which the router is the client: what was sent, what came back, and
//! whether another request may use it.

use super::body::{Decoded, Decoder, Output};
use super::connection::{Options, keep_alive_timeout};
use super::error::ResponseError;
use super::framing::{self, BodyKind, Framing};
use super::head::{HeadLimits, HeadScan, Method, ResponseHead};

/// Informational responses to one request; a backend that sends more is not sane.
const MAX_INFORMATIONAL: u8 = 32;

/// What a request means for its connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Asked {
    /// Its method, which decides on the body of the response.
    pub method: Method,
    /// It says `Connection: close`.
    pub close: bool,
    /// It asks for another protocol.
    pub upgrade: bool,
}

/// How much of a request was written to the socket.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sent {
    /// Not one byte: the backend cannot know of it.
    #[default]
    Nothing,
    /// A part.
    Part,
    /// All of it.
    Whole,
}

/// What the decision about another try has to know of this one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Attempt {
    /// How much of the request was written.
    pub sent: Sent,
    /// Whether a byte of a response has come, informational ones included.
    pub has_response: bool,
    /// Whether the connection had carried a response before: the backend may have closed it at the moment
    /// that the request was written (RFC 9112 9.3.1).
    pub is_reused: bool,
}

/// What came of reading a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeadStep {
    /// There is more to come.
    Incomplete,
    /// An informational response, and its length: `100` to `199` without `101`. The response is still to
    /// come.
    Informational(usize),
    /// The response.
    Response(Received),
    /// `101` that was asked for, and the length of its head: what follows is the other protocol.
    Switch(usize),
}

/// The head of a response that was accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Received {
    /// Bytes of the buffer that are its head. The body begins behind them.
    pub consumed: usize,
    /// What follows the head.
    pub framing: Framing,
    /// What it says about its connection.
    pub options: Options,
}

/// Whether a connection may be used again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reuse {
    /// It may. The backend closes it after so many idle seconds, if it has announced that.
    Yes(Option<u32>),
    /// It may not.
    No(NoReuse),
}

/// Why a connection may not be used again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoReuse {
    /// The response has both `Content-Length` and `Transfer-Encoding` (RFC 9112 6.3).
    AmbiguousFraming,
    /// The request had `Connection: close`.
    AskedToClose,
    /// The backend says `close`, or speaks HTTP/1.0 without `keep-alive` (RFC 9112 9.3).
    BackendCloses,
    /// More came than the response.
    ExtraBytes,
    /// The exchange is not over, or has failed.
    NotOver,
    /// The response came before all of the request was sent.
    RequestIncomplete,
    /// It carries another protocol.
    Tunnel,
    /// The response had no other end.
    UntilClose,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Phase {
    #[default]
    Idle,
    /// The request is being sent, or its response waited for.
    AwaitsHead,
    Body,
    Tunnel,
    Closed,
}

/// The state of a connection to a backend.
#[derive(Debug, Default)]
pub struct Connection {
    phase: Phase,
    scan: HeadScan,
    asked: Asked,
    sent: Sent,
    has_response: bool,
    informational: u8,
    body: Decoder,
    /// Why it may not be used again, as far as is known.
    obstacle: Option<NoReuse>,
    keep_alive_timeout: Option<u32>,
    responses: u32,
}

impl Connection {
    /// Whole responses so far.
    pub fn responses(&self) -> u32 {
        self.responses
    }

    /// A request begins, of which nothing is sent yet.
    pub fn begin(&mut self, asked: Asked) {
        *self = Self {
            phase: Phase::AwaitsHead,
            asked,
            obstacle: asked.close.then_some(NoReuse::AskedToClose),
            keep_alive_timeout: self.keep_alive_timeout,
            responses: self.responses,
            ..Self::default()
        };
    }

    /// Bytes of the request were written to the socket; `is_whole` says that these were the last.
    pub fn wrote(&mut self, count: usize, is_whole: bool) {
        if is_whole {
            self.sent = Sent::Whole;
        } else if count > 0 {
            self.sent = Sent::Part;
        }
    }

    /// What is known of the current request, for the decision about another try.
    pub fn attempt(&self) -> Attempt {
        Attempt { sent: self.sent, has_response: self.has_response, is_reused: self.responses > 0 }
    }

    /// Whether a response is waited for.
    pub fn awaits_head(&self) -> bool {
        self.phase == Phase::AwaitsHead
    }

    /// Reads the head that `buf`, everything that came and is not consumed, begins with. To be called again
    /// behind an informational response.
    ///
    /// # Errors
    ///
    /// Why it is not a response to the request.
    pub fn read_head(
        &mut self,
        buf: &[u8],
        head: &mut ResponseHead,
        limits: &HeadLimits,
    ) -> Result<HeadStep, ResponseError> {
        if buf.is_empty() {
            return Ok(HeadStep::Incomplete);
        }
        // RFC 9112 9.2: it is no response to this request, such as the 408 of a backend that gives up an idle
        // connection. The request can still be sent elsewhere.
        if self.sent == Sent::Nothing {
            self.phase = Phase::Closed;
            return Err(ResponseError::Unsolicited);
        }
        self.has_response = true;
        if !self.scan.is_due(buf, limits.max_bytes) {
            return Ok(HeadStep::Incomplete);
        }
        let result = match head.parse(buf, limits) {
            Ok(None) => return Ok(HeadStep::Incomplete),
            Ok(Some(length)) => self.accept(length, buf, head),
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.phase = Phase::Closed;
        }
        result
    }

    fn accept(
        &mut self,
        length: usize,
        buf: &[u8],
        head: &ResponseHead,
    ) -> Result<HeadStep, ResponseError> {
        self.scan = HeadScan::default();
        match head.status {
            101 if self.asked.upgrade => {
                self.phase = Phase::Tunnel;
                return Ok(HeadStep::Switch(length));
            }
            101 => return Err(ResponseError::SwitchNotAsked),
            100..=199 => {
                self.informational += 1;
                return match self.informational > MAX_INFORMATIONAL {
                    true => Err(ResponseError::TooManyInformational),
                    false => Ok(HeadStep::Informational(length)),
                };
            }
            _ => {}
        }
        let framing = framing::of_response(head, buf, self.asked.method)?;
        let options = Options::of(&head.fields, buf);
        self.obstacle = match framing.body {
            _ if self.obstacle.is_some() => self.obstacle,
            _ if !options.persists(head.version) => Some(NoReuse::BackendCloses),
            BodyKind::UntilClose => Some(NoReuse::UntilClose),
            _ if framing.overrides_length => Some(NoReuse::AmbiguousFraming),
            _ => None,
        };
        if let Some(seconds) = keep_alive_timeout(&head.fields, buf) {
            self.keep_alive_timeout = Some(seconds);
        }
        self.body = Decoder::new(framing.body);
        self.phase = Phase::Body;
        Ok(HeadStep::Response(Received { consumed: length, framing, options }))
    }

    /// Reads a part of the body; see [`Decoder::decode`].
    ///
    /// # Errors
    ///
    /// When it is malformed.
    pub fn read_body(&mut self, input: &[u8], output: Output) -> Result<Decoded, ResponseError> {
        self.body.decode(input, output).map_err(|error| {
            self.phase = Phase::Closed;
            error.into()
        })
    }

    /// Notes that `count` bytes of a response of known length were handed on without being shown here.
    pub fn pass_body(&mut self, count: usize) {
        self.body.pass(count as u64);
    }

    /// The body of the current response.
    pub fn body(&self) -> &Decoder {
        &self.body
    }

    /// Whether the response is there, all of it.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Body && self.body.is_done()
    }

    /// The backend has closed its sending side.
    ///
    /// # Errors
    ///
    /// What is missing of the response, if it is waited for.
    pub fn end_of_input(&mut self) -> Result<(), ResponseError> {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        match phase {
            Phase::AwaitsHead if self.has_response => Err(ResponseError::HeadCut),
            Phase::AwaitsHead => Err(ResponseError::NoResponse),
            Phase::Body => {
                self.body.end_of_connection()?;
                self.obstacle.get_or_insert(NoReuse::BackendCloses);
                self.phase = Phase::Body;
                Ok(())
            }
            Phase::Idle | Phase::Tunnel | Phase::Closed => Ok(()),
        }
    }

    /// The exchange is over as far as it will be. `has_more` says that bytes were read beyond the response:
    /// they must not be taken for the next one.
    pub fn finish(&mut self, has_more: bool) -> Reuse {
        let obstacle = match self.phase {
            Phase::Tunnel => Some(NoReuse::Tunnel),
            Phase::Body if self.body.is_done() => self.obstacle,
            Phase::Idle | Phase::AwaitsHead | Phase::Body | Phase::Closed => Some(NoReuse::NotOver),
        };
        let obstacle = match obstacle {
            None if self.sent != Sent::Whole => Some(NoReuse::RequestIncomplete),
            None if has_more => Some(NoReuse::ExtraBytes),
            obstacle => obstacle,
        };
        match obstacle {
            Some(why) => {
                self.phase = Phase::Closed;
                Reuse::No(why)
            }
            None => {
                self.phase = Phase::Idle;
                self.responses = self.responses.saturating_add(1);
                Reuse::Yes(self.keep_alive_timeout)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Asked, Attempt, BodyKind, Connection, Framing, HeadStep, MAX_INFORMATIONAL, Method,
        NoReuse, Options, Output, Received, Reuse, Sent,
    };
    use crate::http1::error::ResponseError;
    use crate::http1::head::{HeadLimits, ResponseHead};

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 8192, max_fields: 100, max_target: 8192 };
    const GET: Asked = Asked { method: Method::Get, close: false, upgrade: false };

    fn read(connection: &mut Connection, text: &str) -> Result<HeadStep, ResponseError> {
        connection.read_head(text.as_bytes(), &mut ResponseHead::default(), &LIMITS)
    }

    fn sent(connection: &mut Connection, asked: Asked) {
        connection.begin(asked);
        connection.wrote(100, true);
    }

    /// What becomes of a connection on which a request was answered by `text`, and what is behind it, before
    /// the backend closes, if it does.
    fn exchange(asked: Asked, text: &str, closes: bool) -> Result<Reuse, ResponseError> {
        let mut connection = Connection::default();
        sent(&mut connection, asked);
        finish(&mut connection, text, closes)
    }

    fn finish(
        connection: &mut Connection,
        text: &str,
        closes: bool,
    ) -> Result<Reuse, ResponseError> {
        let mut rest = text.as_bytes();
        while connection.awaits_head() {
            match connection.read_head(rest, &mut ResponseHead::default(), &LIMITS)? {
                HeadStep::Informational(length) => rest = &rest[length..],
                HeadStep::Response(received) => rest = &rest[received.consumed..],
                HeadStep::Switch(_) => return Ok(connection.finish(true)),
                HeadStep::Incomplete => break,
            }
        }
        while !connection.is_over() && !rest.is_empty() && !connection.awaits_head() {
            let decoded = connection.read_body(rest, Output::Content)?;
            rest = &rest[decoded.consumed()..];
        }
        if closes {
            connection.end_of_input()?;
        }
        Ok(connection.finish(!rest.is_empty()))
    }

    /// RFC 9112 9.3, 6.3.
    #[test]
    fn connections_are_used_again_where_nothing_is_in_doubt() {
        let yes = Ok(Reuse::Yes(None));
        let no = |why| Ok(Reuse::No(why));
        let closing = Asked { close: true, ..GET };
        let head = Asked { method: Method::Head, ..GET };
        for (asked, text, closes, expected) in [
            (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, yes),
            (
                GET,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                false,
                yes,
            ),
            (GET, "HTTP/1.1 204 No Content\r\n\r\n", false, yes),
            (GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", false, yes),
            (head, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", false, yes),
            (head, "HTTP/1.1 200 OK\r\n\r\n", false, yes),
            (
                GET,
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
                false,
                yes,
            ),
            (
                GET,
                "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n",
                false,
                Ok(Reuse::Yes(Some(5))),
            ),
            (
                GET,
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\n\r\nHTTP/1.1 204 x\r\n\r\n",
                false,
                yes,
            ),
            (closing, "HTTP/1.1 204 No Content\r\n\r\n", false, no(NoReuse::AskedToClose)),
            (
                GET,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                false,
                no(NoReuse::BackendCloses),
            ),
            (
                GET,
                "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
                false,
                no(NoReuse::BackendCloses),
            ),
            (GET, "HTTP/1.1 204 No Content\r\n\r\n", true, no(NoReuse::BackendCloses)),
            (GET, "HTTP/1.1 200 OK\r\n\r\nok", true, no(NoReuse::UntilClose)),
            (
                GET,
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                false,
                no(NoReuse::AmbiguousFraming),
            ),
            (
                GET,
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK",
                false,
                no(NoReuse::ExtraBytes),
            ),
            (GET, "HTTP/1.1 204 No Content\r\n\r\nx", false, no(NoReuse::ExtraBytes)),
            (
                head,
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                false,
                no(NoReuse::ExtraBytes),
            ),
            (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", false, no(NoReuse::NotOver)),
            (GET, "HTTP/1.1 200", false, no(NoReuse::NotOver)),
        ] {
            assert_eq!(exchange(asked, text, closes), expected, "{text:?}");
        }
    }

    /// RFC 9112 8.
    #[test]
    fn a_response_that_is_cut_is_an_error() {
        for (text, expected) in [
            ("", ResponseError::NoResponse),
            ("H", ResponseError::HeadCut),
            ("HTTP/1.1 103 x\r\n\r\n", ResponseError::HeadCut),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", ResponseError::BodyCut),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
                ResponseError::BodyCut,
            ),
        ] {
            assert_eq!(exchange(GET, text, true), Err(expected), "{text:?}");
        }
    }

    /// RFC 9110 15.2.
    #[test]
    fn informational_responses_are_bounded() {
        let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let end = "HTTP/1.1 204 No Content\r\n\r\n";
        let text = |count: u8| format!("{}{end}", hint.repeat(count.into()));
        assert_eq!(exchange(GET, &text(MAX_INFORMATIONAL), false), Ok(Reuse::Yes(None)));
        let expected = Err(ResponseError::TooManyInformational);
        assert_eq!(exchange(GET, &text(MAX_INFORMATIONAL + 1), false), expected);
    }

    /// RFC 9110 15.2.2.
    #[test]
    fn protocols_are_switched_only_where_that_was_asked_for() {
        let text =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nearly";
        let asked = Asked { upgrade: true, ..GET };
        let mut connection = Connection::default();
        sent(&mut connection, asked);
        assert_eq!(read(&mut connection, text), Ok(HeadStep::Switch(text.len() - 5)));
        assert_eq!(connection.finish(true), Reuse::No(NoReuse::Tunnel));
        assert_eq!(exchange(GET, text, false), Err(ResponseError::SwitchNotAsked));
        assert_eq!(exchange(asked, "HTTP/1.1 204 x\r\n\r\n", false), Ok(Reuse::Yes(None)));
    }

    /// RFC 9112 9.3.1: what another try depends on.
    #[test]
    fn an_attempt_knows_what_was_sent_and_what_came() {
        let mut connection = Connection::default();
        connection.begin(GET);
        assert_eq!(connection.attempt(), Attempt::default());
        connection.wrote(0, false);
        assert_eq!(connection.attempt().sent, Sent::Nothing);
        connection.wrote(1, false);
        assert_eq!(connection.attempt().sent, Sent::Part);
        connection.wrote(1, true);
        let whole = Attempt { sent: Sent::Whole, has_response: false, is_reused: false };
        assert_eq!(connection.attempt(), whole);
        assert_eq!(read(&mut connection, ""), Ok(HeadStep::Incomplete));
        assert_eq!(connection.attempt(), whole);
        assert_eq!(read(&mut connection, "H"), Ok(HeadStep::Incomplete));
        assert_eq!(connection.attempt(), Attempt { has_response: true, ..whole });
        assert_eq!(finish(&mut connection, "HTTP/1.1 204 x\r\n\r\n", false), Ok(Reuse::Yes(None)));
        assert_eq!(connection.responses(), 1);
        connection.begin(GET);
        assert_eq!(connection.attempt(), Attempt { is_reused: true, ..Attempt::default() });
    }

    /// RFC 9112 9.2.
    #[test]
    fn bytes_before_the_request_are_no_response() {
        let mut connection = Connection::default();
        connection.begin(GET);
        assert_eq!(read(&mut connection, ""), Ok(HeadStep::Incomplete));
        let text = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read(&mut connection, text), Err(ResponseError::Unsolicited));
        assert_eq!(connection.attempt(), Attempt::default());
        assert_eq!(connection.finish(false), Reuse::No(NoReuse::NotOver));
    }

    /// The response is passed on, but the connection cannot carry another request.
    #[test]
    fn a_response_before_the_end_of_the_request_ends_the_connection() {
        let mut connection = Connection::default();
        connection.begin(GET);
        connection.wrote(100, false);
        let text = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
        let framing = Framing { body: BodyKind::Length(0), overrides_length: false };
        let received = Received { consumed: text.len(), framing, options: Options::default() };
        assert_eq!(read(&mut connection, text), Ok(HeadStep::Response(received)));
        assert!(connection.is_over());
        assert_eq!(connection.finish(false), Reuse::No(NoReuse::RequestIncomplete));
        assert_eq!(connection.responses(), 0);
    }

    #[test]
    fn the_announced_timeout_stays_with_the_connection() {
        let mut connection = Connection::default();
        sent(&mut connection, GET);
        let first = "HTTP/1.1 204 x\r\nKeep-Alive: timeout=7, max=99\r\n\r\n";
        assert_eq!(finish(&mut connection, first, false), Ok(Reuse::Yes(Some(7))));
        sent(&mut connection, GET);
        let second = finish(&mut connection, "HTTP/1.1 204 x\r\n\r\n", false);
        assert_eq!(second, Ok(Reuse::Yes(Some(7))));
    }
}
