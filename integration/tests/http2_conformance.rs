//! The points of RFC 9113 (HTTP/2) and RFC 7541 (HPACK) that the public conformance suite of 147 covers, as
//! frames of our own through the router to a real backend, without TLS and inside it. `points.txt` lists them; a
//! test holds that each is played.
//!
//! A case is a name that says what must hold, what is sent and waited for, and what has to come of it. Every
//! case has a connection of its own; those of a chapter share a router.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use integration::backend::{Backend, Next};
use integration::certificates::Authority;
use integration::http2::{
    ACK, END_HEADERS, END_STREAM, Frame, PREFACE, Raw, block, frame, kind, settings_frame,
};
use integration::redis::Redis;
use integration::router::Router;
use integration::tls::Kind;
use integration::wire::Conn;
use serde_json::json;

mod codes;
mod definitions;
mod errors;
mod frames;
mod hpack;
mod messages;
mod starting;
mod streams;

/// What the backend answers.
const ANSWER: &[u8] = b"conformance";
/// A header that malformed requests carry. No backend may ever see a whole one.
const MALFORMED: Header<'static> = (b"x-malformed", b"1");
/// How the last question of a case, whether the connection goes on, is told from its own pings.
const MARK: [u8; 8] = *b"goes on?";

type Header<'a> = (&'a [u8], &'a [u8]);
type Connect = fn(&Stage) -> Conn;

/// Request headers that every case begins with.
const METHOD: Header<'static> = (b":method", b"GET");
const POST: Header<'static> = (b":method", b"POST");
const SCHEME: Header<'static> = (b":scheme", b"http");
const PATH: Header<'static> = (b":path", b"/");
const AUTHORITY: Header<'static> = (b":authority", b"a.test");

/// One point: its name, how it is played and what has to come of it.
struct Case {
    name: &'static str,
    steps: Vec<Step>,
    expected: Expected,
    /// What comes of it instead, where the library decides otherwise. A case says so, so that nobody has to
    /// guess what happens, and so that it fails on the day when the library does better.
    instead: Option<Expected>,
}

/// What a case does, in order.
enum Step {
    /// Sends bytes. Whether they still arrive is said by what is expected.
    Send(Vec<u8>),
    /// Waits for a whole answer.
    Answer(u32),
    /// Waits for the head of an answer.
    Head(u32),
    /// Waits for the next content of an answer, which has exactly this length.
    Content(u32, usize),
    /// Waits for the router's own settings, which are the first frame there is.
    SettingsFirst,
    /// Waits until as many settings are acknowledged.
    Acknowledged(usize),
    /// Waits for the next answer to a ping, which has to be to this one.
    Pong([u8; 8]),
    /// Sends frames on this many streams of their own: 1, 3, 5 and so on.
    Streams(usize, fn(u32) -> Vec<u8>),
    /// A backend has got a request with this header and value since the case began.
    Forwarded(&'static str, &'static str),
}

/// What has to come of it at last.
#[derive(Clone, Copy)]
enum Expected {
    /// The connection goes on.
    GoesOn,
    /// A backend gets the request with these trailers and no others, it is answered, and the connection goes on.
    Trailed(&'static [(&'static str, &'static str)]),
    /// `RST_STREAM` with one of these codes, and the connection goes on; or it ends with such a code, as RFC 9113
    /// 5.4.1 allows for every error of a stream.
    Resets(u32, &'static [u32]),
    /// `GOAWAY` with one of these codes and the end of the connection.
    Ends(&'static [u32]),
    /// The end of the connection, orderly, whatever comes before it.
    Closes,
}

impl Case {
    /// A case that begins with the preface and no settings.
    fn new(name: &'static str, steps: Vec<Step>, expected: Expected) -> Self {
        Self::with(name, &[], steps, expected)
    }

    /// One that begins with the preface and settings.
    fn with(
        name: &'static str,
        settings: &[(u16, u32)],
        steps: Vec<Step>,
        expected: Expected,
    ) -> Self {
        let opening = Step::Send([PREFACE, &settings_frame(settings)].concat());
        Self::bare(name, [opening].into_iter().chain(steps).collect(), expected)
    }

    /// One that sends nothing but its steps.
    fn bare(name: &'static str, steps: Vec<Step>, expected: Expected) -> Self {
        Self { name, steps, expected, instead: None }
    }

    /// The library calls this error `PROTOCOL_ERROR`, "for use when a more specific error code is not available"
    /// (RFC 9113 7), and ends the connection. The public suite counts its orderly end as right.
    fn unspecific(mut self) -> Self {
        self.instead = Some(Expected::Ends(&[codes::PROTOCOL_ERROR]));
        self
    }

    /// The library does not notice: the request is answered, and of its trailers a backend gets these.
    /// docs/security.md says why that does no harm.
    fn unnoticed(mut self, trailers: &'static [(&'static str, &'static str)]) -> Self {
        self.instead = Some(Expected::Trailed(trailers));
        self
    }

    /// A whole request, HEADERS and DATA, that is answered; the backend gets these headers.
    fn answered(
        name: &'static str,
        frames: &[Vec<u8>],
        seen: &[(&'static str, &'static str)],
    ) -> Self {
        let seen = seen.iter().map(|(name, value)| Step::Forwarded(name, value));
        let steps = [Step::Send(frames.concat()), Step::Answer(1)].into_iter().chain(seen);
        Self::new(name, steps.collect(), Expected::GoesOn)
    }

    /// Frames that end the connection with one of these codes.
    fn ends(name: &'static str, frames: &[Vec<u8>], codes: &'static [u32]) -> Self {
        Self::new(name, vec![Step::Send(frames.concat())], Expected::Ends(codes))
    }

    /// Frames that end their stream, 1, with one of these codes.
    fn resets(name: &'static str, frames: &[Vec<u8>], codes: &'static [u32]) -> Self {
        Self::new(name, vec![Step::Send(frames.concat())], Expected::Resets(1, codes))
    }

    fn play(&self, stage: &Stage, conn: Conn) {
        let before = stage.backend.request_count();
        let mut peer = Peer { raw: Raw::over(conn), seen: Vec::new() };
        for step in &self.steps {
            peer.take(step, &stage.backend, before);
        }
        peer.expect(self.instead.unwrap_or(self.expected), &stage.backend, before);
    }
}

/// The router's end of a connection, as far as a case has looked.
struct Peer {
    raw: Raw,
    seen: Vec<Frame>,
}

impl Peer {
    fn next(&mut self) -> io::Result<Frame> {
        let frame = self.raw.read_frame()?;
        self.seen.push(frame.clone());
        Ok(frame)
    }

    /// Reads until `wanted` says yes, and panics when an error or the end comes first.
    fn until(&mut self, what: &str, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
        loop {
            match self.next() {
                Ok(frame) if wanted(&frame) => return frame,
                Ok(frame) if frame.code().is_some_and(|code| code != 0) => {
                    panic!("{frame:?} instead of {what}")
                }
                Ok(_) => {}
                Err(error) => panic!("{error} instead of {what}; came: {:?}", self.seen),
            }
        }
    }

    fn take(&mut self, step: &Step, backend: &Backend, before: usize) {
        match step {
            Step::Send(bytes) => drop(self.raw.send_bytes(bytes)),
            Step::Streams(count, frames) => {
                let streams = (0..*count).map(|n| 2 * u32::try_from(n).expect("few") + 1);
                let bytes: Vec<u8> = streams.flat_map(frames).collect();
                drop(self.raw.send_bytes(&bytes));
            }
            Step::Head(stream) => {
                let head = |f: &Frame| f.kind == kind::HEADERS && f.stream == *stream;
                assert_eq!(self.until("a head", head).status(), Some(200));
            }
            Step::Answer(stream) => self.answer(*stream),
            Step::Content(stream, length) => {
                let data = |f: &Frame| f.kind == kind::DATA && f.stream == *stream;
                assert_eq!(self.until("content", data).payload.len(), *length);
            }
            Step::SettingsFirst => {
                let first = self.until("settings", |_| true);
                assert_eq!((first.kind, first.flags & ACK, first.stream), (kind::SETTINGS, 0, 0));
            }
            Step::Acknowledged(count) => {
                for _ in 0..*count {
                    let ack = |f: &Frame| f.kind == kind::SETTINGS && f.flags & ACK != 0;
                    assert_eq!(self.until("an acknowledgement", ack).payload, b"");
                }
            }
            Step::Pong(payload) => {
                let pong = |f: &Frame| f.kind == kind::PING && f.flags & ACK != 0;
                assert_eq!(self.until("an answer to a ping", pong).payload, payload);
            }
            Step::Forwarded(name, value) => {
                let seen = backend.requests().split_off(before);
                let is_there = seen.iter().any(|request| request.head.values(name) == [*value]);
                assert!(is_there, "{name}: {value} in {seen:?}");
            }
        }
    }

    fn answer(&mut self, stream: u32) {
        let mut content = Vec::new();
        let mut status = None;
        self.until("an answer", |frame| {
            if frame.stream != stream {
                return false;
            }
            match frame.kind {
                kind::HEADERS => status = status.or_else(|| frame.status()),
                kind::DATA => content.extend_from_slice(&frame.payload),
                _ => return false,
            }
            frame.flags & END_STREAM != 0
        });
        assert_eq!(status, Some(200));
        assert!(content == ANSWER || content.is_empty(), "{content:?}");
    }

    fn expect(&mut self, expected: Expected, backend: &Backend, before: usize) {
        match expected {
            Expected::GoesOn => self.goes_on(),
            Expected::Trailed(trailers) => {
                self.answer(1);
                let seen = backend.requests().split_off(before).pop().and_then(|r| r.body);
                let seen = seen.expect("a whole request").trailers;
                let seen: Vec<_> = seen.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                assert_eq!(seen, trailers);
                self.goes_on();
            }
            Expected::Resets(stream, codes) => {
                let first = self.error();
                assert!(first.code().is_some_and(|code| codes.contains(&code)), "{first:?}");
                if first.kind == kind::GOAWAY {
                    self.ends();
                } else {
                    assert_eq!(first.stream, stream, "{first:?}");
                    self.goes_on();
                }
            }
            Expected::Ends(codes) => {
                let first = self.error();
                assert_eq!(first.kind, kind::GOAWAY, "{first:?}");
                assert!(first.code().is_some_and(|code| codes.contains(&code)), "{first:?}");
                self.ends();
            }
            Expected::Closes => {
                let end = self.raw.conn().read_to_end();
                assert!(end.is_ok(), "{end:?}");
            }
        }
    }

    /// The frame that tells of an error.
    fn error(&mut self) -> Frame {
        loop {
            match self.next() {
                Ok(frame) if frame.code().is_some_and(|code| code != 0) => return frame,
                Ok(_) => {}
                Err(error) => panic!("{error} instead of an error; came: {:?}", self.seen),
            }
        }
    }

    /// A ping is answered, and nothing that is told of an error comes before.
    fn goes_on(&mut self) {
        drop(self.raw.send_bytes(&ping(0, MARK)));
        self.until("going on", |frame| frame.kind == kind::PING && frame.payload == MARK);
    }

    /// The connection ends, and orderly: a reset could throw away what was said before.
    fn ends(&mut self) {
        let error = loop {
            if let Err(error) = self.next() {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error} instead of the end");
    }
}

/// A router in front of a backend, with and without TLS.
struct Stage {
    // Ends first.
    router: Router,
    backend: Backend,
    tls: Kind,
    _redis: Redis,
    _authority: Authority,
}

impl Stage {
    fn new() -> Self {
        let (redis, authority) = (Redis::start(), Authority::new());
        let backend = Backend::with("b", |exchange| {
            exchange.read_body()?;
            exchange.respond(200, &[], ANSWER)?;
            Ok(Next::KeepAlive)
        });
        redis.frontend("a.test", "id", &[&backend.url()]);
        let identity = authority.sign(&["a.test"]);
        let router = Router::builder(&redis)
            .set("http.h2c", true)
            .set("https.bind", json!(["127.0.0.1"]))
            .set("https.port", 0)
            .set("https.cert", identity.certificate.display().to_string())
            .set("https.key", identity.key.display().to_string())
            .start();
        let tls = Kind::trusting(&authority.ca()).offering(&["h2"]);
        Self { router, backend, tls, _redis: redis, _authority: authority }
    }

    /// A connection with prior knowledge (RFC 9113 3.3).
    fn cleartext(&self) -> Conn {
        Conn::connect(self.router.addr()).expect("a connection")
    }

    /// A connection by ALPN (RFC 9113 3.2).
    fn encrypted(&self) -> Conn {
        let mut connected = self.tls.connect(self.router.addrs()[1], "a.test");
        assert_eq!(connected.protocol.as_deref(), Some("h2"));
        Conn::new(connected.client.conn().stream().try_clone().expect("a socket"))
    }
}

/// Plays every case in both ways and fails with the names of all that went wrong.
#[track_caller]
fn play(cases: &[Case]) {
    let stage = Stage::new();
    let ways: [(&str, Connect); 2] =
        [("without TLS", Stage::cleartext), ("over TLS", Stage::encrypted)];
    let mut wrong = Vec::new();
    for case in cases {
        for (way, connect) in ways {
            let played = catch_unwind(AssertUnwindSafe(|| case.play(&stage, connect(&stage))));
            if let Err(panic) = played {
                let reason = panic.downcast_ref::<String>().map(String::as_str);
                let reason = reason.or_else(|| panic.downcast_ref::<&str>().copied());
                wrong.push(format!("{}, {way}: {}", case.name, reason.unwrap_or("panicked")));
            }
        }
    }
    for request in stage.backend.requests() {
        let is_whole = request.body.as_ref().is_none_or(|body| body.complete);
        if is_whole && request.head.has("x-malformed") {
            wrong.push(format!("forwarded although malformed: {:?}", request.head));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn headers(flags: u8, stream: u32, fields: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flags, stream, fields)
}

/// A whole `GET`.
fn get(stream: u32) -> Vec<u8> {
    headers(END_HEADERS | END_STREAM, stream, &get_block())
}

/// The head of a `POST` whose content is still to come.
fn post(stream: u32) -> Vec<u8> {
    headers(END_HEADERS, stream, &post_block(&[]))
}

fn data(flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, stream, content)
}

fn continuation(flags: u8, stream: u32, fields: &[u8]) -> Vec<u8> {
    frame(kind::CONTINUATION, flags, stream, fields)
}

/// A priority (RFC 9113 5.3.2: still sent by some, and ignored): the stream that it depends on, with the bit
/// for an exclusive one, and a weight.
fn priority(stream: u32, depends_on: u32, weight: u8) -> Vec<u8> {
    frame(kind::PRIORITY, 0, stream, &[&depends_on.to_be_bytes()[..], &[weight]].concat())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn ping(flags: u8, payload: [u8; 8]) -> Vec<u8> {
    frame(kind::PING, flags, 0, &payload)
}

fn goaway(code: u32) -> Vec<u8> {
    frame(kind::GOAWAY, 0, 0, &[[0; 4], code.to_be_bytes()].concat())
}

fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn get_block() -> Vec<u8> {
    block(&[METHOD, SCHEME, PATH, AUTHORITY])
}

fn post_block(more: &[Header<'_>]) -> Vec<u8> {
    block(&[&[POST, SCHEME, PATH, AUTHORITY][..], more].concat())
}

/// Every point is played, once.
#[test]
fn no_point_is_left_out() {
    let chapters = [
        starting::cases(),
        frames::cases(),
        streams::cases(),
        definitions::cases(),
        errors::cases(),
        messages::cases(),
        hpack::cases(),
    ];
    let mut played: Vec<_> = chapters.iter().flatten().map(|case| case.name).collect();
    played.sort_unstable();
    let mut points: Vec<_> = include_str!("http2_conformance/points.txt").lines().collect();
    points.sort_unstable();
    assert_eq!(played, points);
    assert_eq!(points.len(), 147);
    // What the library does not notice is no more than what docs/security.md says.
    let is_unnoticed = |case: &&Case| matches!(case.instead, Some(Expected::Trailed(_)));
    let unnoticed: Vec<_> =
        chapters.iter().flatten().filter(is_unnoticed).map(|c| c.name).collect();
    assert_eq!(unnoticed, ["9113 8.3: a pseudo-header among trailers is PROTOCOL_ERROR"]);
}
