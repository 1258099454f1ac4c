//! HTTP/2 as no library would send it: malformed requests reach no backend, floods cost little and end.

use std::time::Duration;

use integration::backend::Backend;
use integration::client::get;
use integration::eventually::{DEADLINE, eventually};
use integration::http2::{Client, END_HEADERS, END_STREAM, Outcome, Raw, block, frame, kind};
use integration::redis::Redis;
use integration::router::Router;
use pretty_assertions::assert_eq;

type Header<'a> = (&'a [u8], &'a [u8]);

const METHOD: Header<'static> = (b":method", b"GET");
const SCHEME: Header<'static> = (b":scheme", b"http");
const PATH: Header<'static> = (b":path", b"/");
const AUTHORITY: Header<'static> = (b":authority", b"a.test");
const GET: [Header<'static>; 4] = [METHOD, SCHEME, PATH, AUTHORITY];

/// Bytes that the router may grow by during an attack: less than one buffer a stream.
const GROWTH_KB: u64 = 24 * 1024;

struct Stage {
    backend: Backend,
    router: Router,
    _redis: Redis,
}

impl Stage {
    fn new() -> Self {
        Self::with(Backend::start("b"))
    }

    fn with(backend: Backend) -> Self {
        let redis = Redis::start();
        redis.frontend("a.test", "id", &[&backend.url()]);
        let router = Router::builder(&redis).set("http.h2c", true).start();
        assert_eq!(get(router.addr(), "a.test", "/").status(), 200);
        Self { backend, router, _redis: redis }
    }

    fn raw(&self) -> Raw {
        Raw::connect(self.router.addr(), &[])
    }

    /// Sends a whole request on a connection of its own.
    fn request(&self, headers: &[Header<'_>], body: Option<&[u8]>) -> Outcome {
        let mut raw = self.raw();
        let flags = END_HEADERS | if body.is_none() { END_STREAM } else { 0 };
        raw.send(kind::HEADERS, flags, 1, &block(headers)).expect("sent");
        if let Some(body) = body {
            raw.send(kind::DATA, END_STREAM, 1, body).expect("sent");
        }
        raw.outcome(1)
    }

    /// Floods a connection and sees to it that nobody else notices, and that it costs little.
    #[track_caller]
    fn survives(&self, name: &str, attack: impl FnOnce(&mut Raw)) -> Raw {
        let before = self.router.process().memory_kb("VmRSS");
        let requests = self.backend.request_count();
        let mut raw = self.raw();
        attack(&mut raw);
        assert_eq!(get(self.router.addr(), "a.test", "/").status(), 200, "{name}");
        let reached = self.backend.request_count() - requests;
        assert!(reached <= 101, "{name}: {reached} requests reached the backend");
        let grown = self.router.process().memory_kb("VmRSS").saturating_sub(before);
        assert!(grown < GROWTH_KB, "{name}: {grown} KB more");
        raw
    }
}

/// The probes `h2.*`: refused by a reset, by the end of the connection or with 400, and never seen by
/// a backend.
#[test]
fn malformed_requests_reach_no_backend() {
    let stage = Stage::new();
    let fine = stage.request(&GET, None);
    assert_eq!((fine.status, fine.is_complete, fine.body.as_slice()), (Some(200), true, &b"b"[..]));
    let seen = stage.backend.request_count();
    let with = |header: Header<'static>| [&GET[..], &[header]].concat();
    let replaced = |header: Header<'static>| {
        let kept = GET.into_iter().filter(|(name, _)| *name != header.0);
        kept.chain([header]).collect::<Vec<_>>()
    };
    let without = |name: &[u8]| GET.into_iter().filter(|h| h.0 != name).collect::<Vec<_>>();
    let post = |headers: &[Header<'static>]| {
        [&[(&b":method"[..], &b"POST"[..]), SCHEME, PATH, AUTHORITY][..], headers].concat()
    };
    for (name, headers, body) in [
        ("h2.crlf_in_value", with((b"x", b"a\r\nx-evil: 1")), None),
        ("h2.lf_in_value", with((b"x", b"a\nx-evil: 1")), None),
        ("h2.nul_in_value", with((b"x", b"a\0b")), None),
        ("h2.crlf_in_name", with((b"x\r\ny", b"1")), None),
        ("h2.colon_in_name", with((b"x:y", b"1")), None),
        ("h2.space_in_name", with((b"x y", b"1")), None),
        ("h2.empty_name", with((b"", b"1")), None),
        ("h2.uppercase_name", with((b"X-Upper", b"1")), None),
        ("h2.te_chunked", post(&[(b"transfer-encoding", b"chunked")]), Some(&b"0\r\n\r\n"[..])),
        ("h2.connection_hdr", with((b"connection", b"keep-alive")), None),
        ("h2.te_gzip", with((b"te", b"gzip")), None),
        ("h2.cl_short", post(&[(b"content-length", b"2")]), Some(b"abc")),
        ("h2.cl_long", post(&[(b"content-length", b"9")]), Some(b"abc")),
        ("h2.cl_dup", post(&[(b"content-length", b"3"), (b"content-length", b"4")]), Some(b"abc")),
        ("h2.cl_bad", post(&[(b"content-length", b"+3")]), Some(b"abc")),
        ("h2.path_space", replaced((b":path", b"/a b")), None),
        ("h2.path_space2", replaced((b":path", b"/ HTTP/1.1")), None),
        ("h2.path_noslash", replaced((b":path", b"a")), None),
        ("h2.path_empty", replaced((b":path", b"")), None),
        ("h2.method_space", replaced((b":method", b"GET /x")), None),
        ("h2.method_space2", replaced((b":method", b"GET ")), None),
        ("h2.scheme_bad", replaced((b":scheme", b"ht tp")), None),
        ("h2.authority_bad", replaced((b":authority", b"a test")), None),
        ("h2.authority_userinfo", replaced((b":authority", b"u@a.test")), None),
        ("h2.authority_vs_host", with((b"host", b"evil.test")), None),
        ("h2.dup_path", with((b":path", b"/b")), None),
        ("h2.pseudo_after", vec![METHOD, SCHEME, PATH, (b"x", b"1"), AUTHORITY], None),
        ("h2.unknown_pseudo", vec![METHOD, SCHEME, PATH, AUTHORITY, (b":x", b"1")], None),
        ("h2.no_authority_no_host", without(b":authority"), None),
        (
            "h2.host_list",
            [&without(b":authority")[..], &[(b"host", b"a"), (b"host", b"b")]].concat(),
            None,
        ),
        ("h2.host_twice", with((b"host", b"a.test, b.test")), None),
    ] {
        let outcome = stage.request(&headers, body);
        let is_refused = outcome.reset.is_some()
            || outcome.goaway.is_some_and(|code| code != 0)
            || outcome.status == Some(400);
        assert!(is_refused, "{name}: {outcome:?}");
        assert_eq!(stage.backend.request_count(), seen, "{name} reached the backend");
    }
    let connect = [(&b":method"[..], &b"CONNECT"[..]), AUTHORITY];
    assert_eq!(stage.request(&connect, None).status, Some(405), "h2.connect");
    let trace = replaced((b":method", b"TRACE"));
    assert_eq!(stage.request(&trace, None).status, Some(405));
    // `host` alone is the authority.
    let host = [&without(b":authority")[..], &[(b"host", b"a.test")]].concat();
    assert_eq!(stage.request(&host, None).status, Some(200));
}

/// CVE-2023-44487 and CVE-2025-8671: streams that come and go, by the client's will or by ours.
#[test]
fn reset_floods_end_the_connection() {
    let stage = Stage::new();
    let request = block(&GET);
    let mut raw = stage.survives("h2f_rapid_reset", |raw| {
        for number in 0..5000_u32 {
            let stream = 2 * number + 1;
            let mut bytes = frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &request);
            bytes.extend(frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            if raw.send_bytes(&bytes).is_err() {
                break;
            }
        }
    });
    eventually(DEADLINE, "the connection ends", || raw.send(kind::PING, 0, 0, &[0; 8]).is_err());
    let mut raw = stage.survives("h2f_madeyoureset", |raw| {
        for number in 0..5000_u32 {
            let stream = 2 * number + 1;
            let mut bytes = frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &request);
            // No window grows by nothing: an error that makes us reset the stream.
            bytes.extend(frame(kind::WINDOW_UPDATE, 0, stream, &[0; 4]));
            if raw.send_bytes(&bytes).is_err() {
                break;
            }
        }
    });
    eventually(DEADLINE, "the connection ends", || raw.send(kind::PING, 0, 0, &[0; 8]).is_err());
}

/// Header blocks without an end, and blocks that unfold to more than they are.
#[test]
fn header_floods_end_the_connection_or_the_request() {
    let stage = Stage::new();
    for (name, part) in
        [("h2f_continuation", vec![0x40; 16_000]), ("h2f_empty_continuation", vec![])]
    {
        let mut raw = stage.survives(name, |raw| {
            let first = frame(kind::HEADERS, END_STREAM, 1, &block(&GET));
            let _sent = raw.send_bytes(&first);
            for _ in 0..20_000 {
                if raw.send(kind::CONTINUATION, 0, 1, &part).is_err() {
                    break;
                }
            }
        });
        eventually(DEADLINE, name, || raw.send(kind::CONTINUATION, 0, 1, &part).is_err());
    }
    let mut raw = stage.survives("h2f_hpack_bomb", |raw| {
        // One entry of 4 KB in the table, named four thousand times: 16 MB in 4 KB.
        let mut bomb = block(&GET);
        bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
        bomb.extend([b'v'; 4000]);
        bomb.extend([0xbe; 4000]);
        let _sent = raw.send(kind::HEADERS, END_HEADERS | END_STREAM, 1, &bomb);
    });
    let outcome = raw.outcome(1);
    assert!(
        outcome.status == Some(431) || outcome.goaway.is_some() || outcome.reset.is_some(),
        "{outcome:?}"
    );
}

/// Frames that ask for nothing: the connection ends, or goes on at no cost.
#[test]
fn floods_of_small_frames_cost_little() {
    let stage = Stage::new();
    for (name, flood) in [
        ("h2f_ping", frame(kind::PING, 0, 0, &[7; 8])),
        ("h2f_settings", frame(kind::SETTINGS, 0, 0, &[])),
        ("h2f_priority", frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 1, 9])),
        ("h2f_window_update", frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
    ] {
        let _raw = stage.survives(name, |raw| {
            for _ in 0..200 {
                // Nobody reads the answers, which must not pile up.
                raw.conn().set_limit(Some(Duration::from_millis(500)));
                if raw.send_bytes(&flood.repeat(100)).is_err() {
                    break;
                }
            }
        });
    }
    let _raw = stage.survives("h2f_empty_data", |raw| {
        let post = [(&b":method"[..], &b"POST"[..]), SCHEME, PATH, AUTHORITY];
        let _sent = raw.send(kind::HEADERS, END_HEADERS, 1, &block(&post));
        for _ in 0..200 {
            if raw.send_bytes(&frame(kind::DATA, 0, 1, &[]).repeat(100)).is_err() {
                break;
            }
        }
    });
}

/// `h2f_zero_window`, `h2f_max_streams`: a hundred large answers that nobody takes.
#[test]
fn streams_without_a_window_hold_back_their_backends() {
    let body = vec![b'x'; 4 * 1024 * 1024];
    let stage = Stage::with(Backend::with("large", move |exchange| {
        exchange.read_body()?;
        exchange.respond(200, &[], &body)?;
        Ok(integration::backend::Next::KeepAlive)
    }));
    let before = stage.router.process().memory_kb("VmRSS");
    // Setting 4 is the window that a stream begins with.
    let mut raw = Raw::connect(stage.router.addr(), &[(4, 0)]);
    for number in 0..100_u32 {
        raw.send(kind::HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &block(&GET)).unwrap();
    }
    stage.backend.wait_for_requests(101);
    // The hundred and first is one too many.
    raw.send(kind::HEADERS, END_HEADERS | END_STREAM, 201, &block(&GET)).unwrap();
    let refused = raw.outcome(201);
    assert!(refused.reset == Some(7) || refused.goaway.is_some(), "{refused:?}");
    let grown = stage.router.process().memory_kb("VmRSS").saturating_sub(before);
    assert!(grown < 100 * 1024, "{grown} KB for 400 MB of answers");
    // Setting 3 is the number of streams.
    let settings = stage.raw().frame().unwrap();
    let values =
        settings.payload.chunks(6).map(|s| (s[1], u32::from_be_bytes([s[2], s[3], s[4], s[5]])));
    assert!(values.into_iter().any(|setting| setting == (3, 100)), "{settings:?}");
}

/// A client that opens a stream and takes nothing is given up, like one of HTTP/1.1.
#[test]
fn a_client_that_takes_nothing_is_reset_in_time() {
    let backend = Backend::with("large", |exchange| {
        exchange.read_body()?;
        exchange.respond(200, &[], &vec![b'x'; 1024 * 1024])?;
        Ok(integration::backend::Next::KeepAlive)
    });
    let redis = Redis::start();
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("http.h2c", true).set("server.tcpTimeout", 1).start();
    let mut raw = Raw::connect(router.addr(), &[(4, 100)]);
    raw.send(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET)).unwrap();
    let outcome = raw.outcome(1);
    assert!(
        !outcome.is_complete && (outcome.reset.is_some() || outcome.goaway.is_some()),
        "{outcome:?}"
    );
    backend.wait_for_open(0);
    // A backend that hangs is the other way round: the request is answered.
    let hanging = Backend::hanging("h");
    redis.frontend("a.test", "id", &[&hanging.url()]);
    assert_eq!(Client::connect(router.addr()).get("http://a.test/").status, 504);
}

/// The beginning of a preface is neither HTTP/1 nor HTTP/2.
#[test]
fn a_stalled_preface_is_ended() {
    let stage = Stage::new();
    let mut client = integration::client::Client::connect(stage.router.addr());
    client.send("PRI * HTTP/2.0\r\n\r\n");
    let mut client = client.patient_for(2 * DEADLINE);
    let end = client.conn().read_to_end().unwrap();
    assert!(!end.starts_with(b"HTTP/1.1 200"), "{end:?}");
    // Whatever begins like it is HTTP/1.
    let mut client = integration::client::Client::connect(stage.router.addr());
    client.send("P").send("OST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().text(), "b");
}
