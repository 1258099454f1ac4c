//! HTTP/2 as no library would send it, on its way to a backend of HTTP/1.1 and back: malformed requests reach
//! nobody, floods cost little and end, a cut answer is never a whole one (RFC 9113 5.1, 8 and 10.5).

use std::time::Duration;

use integration::backend::{Backend, Next};
use integration::eventually::{DEADLINE, eventually};
use integration::http2::{Client, END_HEADERS, END_STREAM, Outcome, Raw, block, frame, kind};

use super::{Probe, Stage, play};

type Header<'a> = (&'a [u8], &'a [u8]);

const METHOD: Header<'static> = (b":method", b"GET");
const POST: Header<'static> = (b":method", b"POST");
const SCHEME: Header<'static> = (b":scheme", b"http");
const PATH: Header<'static> = (b":path", b"/");
const AUTHORITY: Header<'static> = (b":authority", b"a.test");
const GET: [Header<'static>; 4] = [METHOD, SCHEME, PATH, AUTHORITY];

/// Kilobytes that the router may grow by during an attack: less than one buffer a stream.
const GROWTH: u64 = 24 * 1024;

/// Codes of errors (RFC 9113 7).
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

fn raw(stage: &Stage) -> Raw {
    Raw::connect(stage.router.addr(), &[])
}

/// Sends a whole request on a connection of its own.
fn request(stage: &Stage, headers: &[Header<'_>], body: Option<&[u8]>) -> Outcome {
    let mut raw = raw(stage);
    let flags = END_HEADERS | if body.is_none() { END_STREAM } else { 0 };
    raw.send(kind::HEADERS, flags, 1, &block(headers)).expect("sent");
    if let Some(body) = body {
        raw.send(kind::DATA, END_STREAM, 1, body).expect("sent");
    }
    raw.outcome(1)
}

/// Requests that are refused by a reset, by the end of the connection or with 400, and are never seen by a backend.
fn refused_all(
    name: &'static str,
    requests: Vec<Vec<Header<'static>>>,
    body: Option<&'static [u8]>,
) -> Probe {
    Probe::new(name, move |stage| {
        let before = stage.backend.request_count();
        for headers in &requests {
            let outcome = request(stage, headers, body);
            let is_refused = outcome.reset.is_some()
                || outcome.goaway.is_some_and(|code| code != 0)
                || outcome.status == Some(400);
            assert!(is_refused, "answered {outcome:?}");
            assert_eq!(stage.backend.request_count(), before, "it was forwarded");
        }
    })
}

fn refused(name: &'static str, headers: Vec<Header<'static>>) -> Probe {
    refused_all(name, vec![headers], None)
}

/// The same as a `POST` with these headers and content.
fn refused_post(name: &'static str, headers: &[Header<'static>], content: &'static [u8]) -> Probe {
    let headers = [&[POST, SCHEME, PATH, AUTHORITY][..], headers].concat();
    refused_all(name, vec![headers], Some(content))
}

fn with(header: Header<'static>) -> Vec<Header<'static>> {
    [&GET[..], &[header]].concat()
}

fn without(name: &[u8]) -> Vec<Header<'static>> {
    GET.into_iter().filter(|header| header.0 != name).collect()
}

fn replaced(header: Header<'static>) -> Vec<Header<'static>> {
    GET.into_iter().filter(|(name, _)| *name != header.0).chain([header]).collect()
}

fn requests() -> Vec<Probe> {
    let length = |value: &'static [u8]| (&b"content-length"[..], value);
    vec![
        refused("h2.crlf_in_value", with((b"x", b"a\r\nx-evil: 1"))),
        refused("h2.lf_in_value", with((b"x", b"a\nx-evil: 1"))),
        refused("h2.nul_in_value", with((b"x", b"a\0b"))),
        refused("h2.crlf_in_name", with((b"x\r\ny", b"1"))),
        refused("h2.colon_in_name", with((b"x:y", b"1"))),
        refused("h2.space_in_name", with((b"x y", b"1"))),
        refused("h2.empty_name", with((b"", b"1"))),
        refused("h2.uppercase_name", with((b"X-Upper", b"1"))),
        refused_post("h2.te_chunked", &[(b"transfer-encoding", b"chunked")], b"0\r\n\r\n"),
        refused("h2.connection_hdr", with((b"connection", b"keep-alive"))),
        refused("h2.te_gzip", with((b"te", b"gzip"))),
        refused_post("h2.cl_short", &[length(b"2")], b"abc"),
        refused_post("h2.cl_long", &[length(b"9")], b"abc"),
        refused_post("h2.cl_dup", &[length(b"3"), length(b"4")], b"abc"),
        refused_post("h2.cl_bad", &[length(b"+3")], b"abc"),
        refused("h2.path_space", replaced((b":path", b"/a b"))),
        refused("h2.path_space2", replaced((b":path", b"/ HTTP/1.1"))),
        refused_all(
            "h2.path_noslash",
            vec![replaced((b":path", b"a")), replaced((b":path", b"?a"))],
            None,
        ),
        refused("h2.path_empty", replaced((b":path", b""))),
        refused("h2.method_space", replaced((b":method", b"GET /x"))),
        refused("h2.method_space2", replaced((b":method", b"GET "))),
        refused("h2.scheme_bad", replaced((b":scheme", b"ht tp"))),
        refused("h2.authority_bad", replaced((b":authority", b"a test"))),
        refused("h2.authority_userinfo", replaced((b":authority", b"u@a.test"))),
        refused("h2.authority_vs_host", with((b"host", b"evil.test"))),
        refused("h2.dup_path", with((b":path", b"/b"))),
        refused("h2.pseudo_after", vec![METHOD, SCHEME, PATH, (b"x", b"1"), AUTHORITY]),
        refused("h2.unknown_pseudo", vec![METHOD, SCHEME, PATH, AUTHORITY, (b":x", b"1")]),
        Probe::new("h2.no_authority_no_host", |stage| {
            (refused("", without(b":authority")).play)(stage);
            // `host` alone is the authority (RFC 9113 8.3.1).
            let host = [&without(b":authority")[..], &[(b"host", b"a.test")]].concat();
            assert_eq!(request(stage, &host, None).status, Some(200));
        }),
        // RFC 9113 8.3.1 has no place for a fragment in `:path`. The library cuts it off as it does in HTTP/1.1
        // (`h1.target_fragment`) before anything of ours sees the path. What counts holds: no backend gets it.
        Probe::new("h2.fragment", |stage| {
            for (path, seen) in [("/a#frag", "/a"), ("/a?b#frag", "/a?b")] {
                let before = stage.backend.request_count();
                let outcome = request(stage, &replaced((b":path", path.as_bytes())), None);
                assert_eq!((outcome.status, outcome.is_complete), (Some(200), true), "{path}");
                let requests = stage.backend.requests().split_off(before);
                let targets: Vec<_> = requests.iter().map(|r| r.head.target()).collect();
                assert_eq!(targets, [seen]);
            }
            // Cut off, it leaves nothing, which is no path.
            (refused("", replaced((b":path", b"#frag"))).play)(stage);
        }),
        Probe::new("h2.connect", |stage| {
            let before = stage.backend.request_count();
            let connect = [(&b":method"[..], &b"CONNECT"[..]), AUTHORITY];
            assert_eq!(request(stage, &connect, None).status, Some(405));
            assert_eq!(request(stage, &replaced((b":method", b"TRACE")), None).status, Some(405));
            assert_eq!(stage.backend.request_count(), before, "it was forwarded");
        }),
        refused_all(
            "h2.host_list",
            vec![
                [&without(b":authority")[..], &[(b"host", b"a"), (b"host", b"b")]].concat(),
                with((b"host", b"a.test, b.test")),
            ],
            None,
        ),
        // Cookies that were sent in crumbs are one header again (RFC 9113 8.2.3).
        Probe::new("h2_cookie_join", |stage| {
            let before = stage.backend.request_count();
            let crumbs: [Header<'_>; 2] = [(b"cookie", b"a=1"), (b"cookie", b"b=2")];
            let outcome = request(stage, &[&GET[..], &crumbs].concat(), None);
            assert_eq!(outcome.status, Some(200));
            let seen = stage.backend.requests().split_off(before);
            assert_eq!(seen[0].head.values("cookie"), ["a=1; b=2"]);
        }),
        // A length that is right stays right with trailers behind the content.
        Probe::new("h2_trailers_cl", move |stage| {
            let before = stage.backend.request_count();
            let mut raw = raw(stage);
            let head = [&[POST, SCHEME, PATH, AUTHORITY][..], &[length(b"3")]].concat();
            raw.send(kind::HEADERS, END_HEADERS, 1, &block(&head)).expect("sent");
            raw.send(kind::DATA, 0, 1, b"abc").expect("sent");
            let trailers = block(&[(b"x-sum", b"42")]);
            raw.send(kind::HEADERS, END_HEADERS | END_STREAM, 1, &trailers).expect("sent");
            let outcome = raw.outcome(1);
            assert_eq!((outcome.status, outcome.body.as_slice()), (Some(200), &b"b"[..]));
            let seen = stage.backend.requests().split_off(before);
            assert_eq!(seen.len(), 1, "the backend saw {seen:?}");
            let body = seen[0].body.as_ref().expect("a body");
            assert_eq!((body.complete, body.data.as_slice()), (true, &b"abc"[..]));
        }),
    ]
}

/// A body of a backend that breaks off resets its stream, and no other.
fn cut(name: &'static str, bytes: &'static str, next: Next) -> Probe {
    Probe::new(name, move |stage| {
        let backend = Backend::with("cut", move |exchange| {
            exchange.read_body()?;
            exchange.send(bytes.as_bytes())?;
            Ok(next)
        });
        let host = stage.host(&backend);
        let client = Client::connect(stage.router.addr());
        let request = http::Request::get(format!("http://{host}/")).body(()).expect("a request");
        let error = client.send(request, None, None).expect_err("a cut body looks whole");
        assert_eq!(error.reason().map(u32::from), Some(INTERNAL_ERROR));
        assert_eq!(client.get("http://a.test/").text(), "b");
    })
}

fn answers() -> Vec<Probe> {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    vec![
        cut("h2resp.fin-mid-cl", length, Next::Close),
        cut("h2resp.rst-mid-cl", length, Next::Reset),
        cut("h2resp.fin-mid-chunk", chunked, Next::Close),
        cut("h2resp.rst-mid-chunk", chunked, Next::Reset),
        cut("h2resp.rst-eof-body", "HTTP/1.1 200 OK\r\n\r\nabc", Next::Reset),
    ]
}

/// An attack on a connection of its own that nobody else notices, and that costs little.
fn survived(stage: &Stage, attack: impl FnOnce(&mut Raw)) -> Raw {
    stage.is_well();
    let before = stage.router.process().memory_kb("VmRSS");
    let requests = stage.backend.request_count();
    let mut raw = raw(stage);
    attack(&mut raw);
    stage.is_well();
    let reached = stage.backend.request_count() - requests;
    assert!(reached <= 101, "{reached} requests reached the backend");
    let grown = stage.router.process().memory_kb("VmRSS").saturating_sub(before);
    assert!(grown < GROWTH, "{grown} kB more");
    raw
}

/// Sends what `bytes` makes of each number until the router has had enough.
fn flood(raw: &mut Raw, count: u32, bytes: impl Fn(u32) -> Vec<u8>) {
    for number in 0..count {
        if raw.send_bytes(&bytes(number)).is_err() {
            break;
        }
    }
}

/// A flood that ends the connection.
fn ended(name: &'static str, count: u32, bytes: impl Fn(u32) -> Vec<u8> + 'static) -> Probe {
    Probe::new(name, move |stage| {
        let mut raw = survived(stage, |raw| flood(raw, count, &bytes));
        let mut numbers = count..;
        eventually(DEADLINE, "the connection ends", || {
            numbers.next().is_none_or(|number| raw.send_bytes(&bytes(number)).is_err())
        });
    })
}

/// Streams that come and go: CVE-2023-44487 by the client's will, CVE-2025-8671 by ours.
fn given_up(name: &'static str, kind_of_end: u8, payload: [u8; 4]) -> Probe {
    ended(name, 5000, move |number| {
        let stream = 2 * number + 1;
        let mut bytes = frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET));
        bytes.extend(frame(kind_of_end, 0, stream, &payload));
        bytes
    })
}

/// A header block without an end.
fn endless(name: &'static str, part: Vec<u8>) -> Probe {
    ended(name, 20_000, move |number| {
        let part = frame(kind::CONTINUATION, 0, 1, &part);
        if number > 0 {
            return part;
        }
        [frame(kind::HEADERS, END_STREAM, 1, &block(&GET)), part].concat()
    })
}

/// Frames that ask for nothing: the connection ends, or goes on at no cost.
fn idle_talk(name: &'static str, before: Vec<u8>, bytes: Vec<u8>) -> Probe {
    Probe::new(name, move |stage| {
        survived(stage, |raw| {
            drop(raw.send_bytes(&before));
            // Nobody reads the answers, which must not pile up.
            raw.conn().set_limit(Some(Duration::from_millis(500)));
            flood(raw, 200, |_| bytes.repeat(100));
        });
    })
}

/// A hundred large answers of which nobody takes a byte.
fn untaken(stage: &Stage) -> (Raw, Backend, Vec<u8>) {
    let body = vec![b'x'; 4 * 1024 * 1024];
    let backend = Backend::with("large", move |exchange| {
        exchange.read_body()?;
        exchange.respond(200, &[], &body)?;
        Ok(Next::KeepAlive)
    });
    let host = stage.host(&backend);
    let request = block(&[METHOD, SCHEME, PATH, (b":authority", host.as_bytes())]);
    // Setting 4 is the window that a stream begins with.
    let mut raw = Raw::connect(stage.router.addr(), &[(4, 0)]);
    for number in 0..100_u32 {
        let stream = 2 * number + 1;
        raw.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &request).expect("sent");
    }
    backend.wait_for_requests(100);
    (raw, backend, request)
}

fn floods() -> Vec<Probe> {
    let post = block(&[POST, SCHEME, PATH, AUTHORITY]);
    vec![
        given_up("h2f_rapid_reset", kind::RST_STREAM, CANCEL.to_be_bytes()),
        // No window grows by nothing: an error that makes us reset the stream.
        given_up("h2f_madeyoureset", kind::WINDOW_UPDATE, [0; 4]),
        endless("h2f_continuation", vec![0x40; 16_000]),
        endless("h2f_empty_continuation", vec![]),
        Probe::new("h2f_hpack_bomb", |stage| {
            let mut raw = survived(stage, |raw| {
                // One entry of 4 KB in the table, named four thousand times: 16 MB in 4 KB.
                let mut bomb = block(&GET);
                bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
                bomb.extend([b'v'; 4000]);
                bomb.extend([0xbe; 4000]);
                drop(raw.send(kind::HEADERS, END_HEADERS | END_STREAM, 1, &bomb));
            });
            let outcome = raw.outcome(1);
            let is_refused =
                outcome.status == Some(431) || outcome.goaway.is_some() || outcome.reset.is_some();
            assert!(is_refused, "{outcome:?}");
        }),
        idle_talk("h2f_ping", vec![], frame(kind::PING, 0, 0, &[7; 8])),
        idle_talk("h2f_settings", vec![], frame(kind::SETTINGS, 0, 0, &[])),
        idle_talk("h2f_priority", vec![], frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 1, 9])),
        idle_talk("h2f_window_update", vec![], frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        idle_talk(
            "h2f_empty_data",
            frame(kind::HEADERS, END_HEADERS, 1, &post),
            frame(kind::DATA, 0, 1, &[]),
        ),
        Probe::new("h2f_zero_window", |stage| {
            stage.is_well();
            let before = stage.router.process().memory_kb("VmRSS");
            let untaken = untaken(stage);
            stage.is_well();
            let grown = stage.router.process().memory_kb("VmRSS").saturating_sub(before);
            assert!(grown < 100 * 1024, "{grown} kB for 400 MB of answers");
            drop(untaken);
        }),
        // The hundred and first is one too many, and clients are told before.
        Probe::new("h2f_max_streams", |stage| {
            let (mut raw, backend, request) = untaken(stage);
            raw.send(kind::HEADERS, END_HEADERS | END_STREAM, 201, &request).expect("sent");
            assert_eq!(raw.outcome(201).reset, Some(REFUSED_STREAM));
            assert_eq!(backend.request_count(), 100);
            let settings = self::raw(stage).frame().expect("settings");
            // Setting 3 is the number of streams.
            let is_said = settings.payload.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 100]);
            assert!(is_said, "{settings:?}");
        }),
    ]
}

/// An idle connection is ended, and a request that runs is no idleness.
fn idle(stage: &Stage) {
    let backend = Backend::with("slow", |exchange| {
        exchange.read_body()?;
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")?;
        for _ in 0..6 {
            // Each pause is shorter than the limit, all together are longer.
            integration::eventually::wait_for(Duration::from_millis(300), || None::<()>);
            exchange.send(b"x")?;
        }
        Ok(Next::KeepAlive)
    });
    let host = stage.host(&backend);
    let client = Client::connect(stage.router.addr());
    assert_eq!(client.get(&format!("http://{host}/")).text(), "xxxxxx");
    eventually(DEADLINE, "the idle connection ends", || client.is_closed());
}

fn waits() -> Vec<Probe> {
    vec![Probe::new("h2_idle_conn", idle)]
}

pub(crate) fn probes() -> Vec<Probe> {
    [requests(), answers(), floods(), waits()].into_iter().flatten().collect()
}

fn stage() -> Stage {
    Stage::new(|builder| builder.set("http.h2c", true))
}

#[test]
fn malformed_requests_of_http2_reach_no_backend() {
    play(&stage(), &requests());
}

/// What `h2.fragment` is to become: RFC 9113 8.3.1 gives `:path` a path and a query and nothing else, and a malformed
/// request is a stream error (8.1.1).
#[test]
#[ignore = "h2 0.4 builds the URI through `http`, which cuts the fragment off before any code of ours sees the path"]
fn fragment_in_path_is_a_stream_error() {
    let stage = stage();
    for path in ["/a#frag", "/a?b#frag", "/#"] {
        let before = stage.backend.request_count();
        let outcome = request(&stage, &replaced((b":path", path.as_bytes())), None);
        assert_eq!((outcome.status, outcome.reset), (None, Some(1)), "PROTOCOL_ERROR for {path}");
        assert_eq!(stage.backend.request_count(), before, "{path} was forwarded");
    }
}

#[test]
fn a_cut_answer_is_never_a_whole_one_over_http2() {
    play(&stage(), &answers());
}

#[test]
fn floods_of_frames_end_or_cost_little() {
    play(&stage(), &floods());
}

#[test]
fn an_idle_connection_of_http2_is_ended() {
    play(&Stage::new(|b| b.set("http.h2c", true).set("server.tcpTimeout", 1)), &waits());
}
