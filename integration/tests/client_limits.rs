//! The limits of clients that can be set (docs/configuration.md, "Limits of clients"): each has its own
//! answer, and nobody else notices.

use integration::backend::{Backend, Next};
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::gate::Gate;
use integration::http2::{self, END_HEADERS, END_STREAM, Raw, block, kind};
use integration::redis::Redis;
use integration::router::{Builder, Router};
use pretty_assertions::assert_eq;

struct Stage {
    router: Router,
    redis: Redis,
    backend: Backend,
}

fn stage(backend: Backend, configure: impl FnOnce(Builder) -> Builder) -> Stage {
    let redis = Redis::start();
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = configure(Router::builder(&redis)).start();
    Stage { router, redis, backend }
}

/// Each limit of one message has its own status, ends the connection, and counts from one byte or line
/// beyond it.
#[test]
fn a_message_beyond_a_limit_gets_its_own_answer() {
    let stage = stage(Backend::start("b"), |builder| {
        builder
            .set("server.maxBody", 10)
            .set("server.maxUri", 20)
            .set("server.maxHeaders", 5)
            .set("server.maxHead", 8192)
    });
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\n";
    let padding = |count| "x".repeat(count);
    for (request, status) in [
        (format!("{head}Content-Length: 10\r\n\r\n0123456789"), 200),
        (format!("{head}Content-Length: 11\r\n\r\n0123456789x"), 413),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"), 200),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\nb\r\n0123456789x\r\n0\r\n\r\n"), 413),
        (format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", padding(19)), 200),
        (format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", padding(20)), 414),
        (format!("GET /?{} HTTP/1.1\r\nHost: a.test\r\n\r\n", padding(19)), 414),
        (format!("GET / HTTP/1.1\r\nHost: a.test\r\n{}\r\n", "X: y\r\n".repeat(4)), 200),
        (format!("GET / HTTP/1.1\r\nHost: a.test\r\n{}\r\n", "X: y\r\n".repeat(5)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", padding(8192)), 431),
    ] {
        let mut client = Client::connect(stage.router.addr());
        client.send(&request);
        let response = client.response();
        let shown = request.get(..60).unwrap_or(&request);
        assert_eq!(response.status(), status, "{shown:?}");
        if status != 200 {
            assert!(client.is_closed(), "{shown:?}: the connection goes on");
        }
    }
    stage.backend.wait_for_open(1);
    for request in stage.backend.requests() {
        let body = request.body.unwrap_or_default();
        assert!(!body.complete || body.data.len() <= 10, "{body:?}");
    }
}

/// Lines are counted whatever carries them; the crumbs of a cookie are one (RFC 9113 8.2.3).
#[test]
fn the_headers_of_http2_are_counted_too() {
    let stage = stage(Backend::start("b"), |builder| {
        builder.set("server.maxHeaders", 5).set("http.h2c", true)
    });
    let client = http2::Client::connect(stage.router.addr());
    // `Host`, which is `:authority`, is one, as in HTTP/1.1.
    for (name, count, status) in [("x", 4, 200), ("x", 5, 431), ("cookie", 20, 200), ("x", 4, 200)]
    {
        let mut request = http::Request::get("http://a.test/");
        for _ in 0..count {
            request = request.header(name, "y");
        }
        let response = client.send(request.body(()).unwrap(), None, None).unwrap();
        assert_eq!(response.status, status, "{count} of {name}");
    }
    assert_eq!(stage.backend.request_count(), 3);
}

/// References to one field of HPACK's table make large heads of a few bytes, a hundred at a time. What is
/// beyond the bound is refused at once, and when the others are over requests are taken again.
#[test]
fn heads_of_one_connection_are_bounded_together() {
    // 19 crumbs are 74 KB, 14 such heads fit into 1 MiB.
    const CRUMBS: usize = 19;
    const FIT: usize = 14;
    let gate = Gate::new();
    let stage = stage(Backend::gated("b", &gate), |builder| builder.set("http.h2c", true));
    // Without a table of its own the router writes each status out.
    let mut client = Raw::connect(stage.router.addr(), &[(1, 0)]);
    let get: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a.test")];
    // `cookie`, name 32 of the static table, with 3900 bytes (127 + 61 + 29 * 128) to be remembered as 62.
    let crumb = [&[0x60, 0x7f, 0xbd, 0x1d][..], &[b'c'; 3900]].concat();
    let mut stream = 1;
    let mut begin = |client: &mut Raw, fields: &[u8]| {
        let head = [&block(&get), fields].concat();
        client.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &head).unwrap();
        stream += 2;
    };
    let answers = |client: &mut Raw, count: usize| {
        let (mut statuses, mut ended) = (Vec::new(), 0);
        while ended < count {
            let frame = client.frame().expect("an answer");
            if frame.kind == kind::HEADERS {
                statuses.push(frame.status());
            }
            let may_end = matches!(frame.kind, kind::HEADERS | kind::DATA);
            ended += usize::from(may_end && frame.flags & END_STREAM != 0);
        }
        statuses
    };
    begin(&mut client, &[&crumb[..], &[0xbe; CRUMBS - 1]].concat());
    for _ in 1..40 {
        begin(&mut client, &[0xbe; CRUMBS]);
    }
    assert_eq!(answers(&mut client, 40 - FIT), vec![Some(431); 40 - FIT]);
    stage.backend.wait_for_requests(FIT);
    gate.open();
    assert_eq!(answers(&mut client, FIT), vec![Some(200); FIT]);
    // As many as fit, again and at a time; small ones up to the number of streams.
    for _ in 0..FIT {
        begin(&mut client, &[0xbe; CRUMBS]);
    }
    assert_eq!(answers(&mut client, FIT), vec![Some(200); FIT]);
    for _ in 0..100 {
        begin(&mut client, &[]);
    }
    assert_eq!(answers(&mut client, 100), vec![Some(200); 100]);
}

/// A body that is too long by its own length is not even begun to be read: an `Expect` is answered
/// with 413.
#[test]
fn a_body_that_announces_too_much_is_refused_before_it_is_sent() {
    let stage = stage(Backend::start("b"), |builder| builder.set("server.maxBody", 10));
    let mut client = Client::connect(stage.router.addr());
    client.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n",
    );
    let response = client.response();
    assert_eq!((response.status(), response.informational.len()), (413, 0));
    assert_eq!(stage.backend.connections(), 0);
}

/// The last request that a connection may carry is answered with `Connection: close`.
#[test]
fn a_connection_ends_after_its_last_request() {
    let stage =
        stage(Backend::start("b"), |builder| builder.set("server.maxRequestsPerConnection", 3));
    let mut client = Client::connect(stage.router.addr());
    let answers: Vec<_> = (0..3).map(|_| client.get("a.test", "/")).collect();
    let closes: Vec<_> =
        answers.iter().map(|answer| answer.header("connection") == Some("close")).collect();
    assert_eq!(closes, [false, false, true]);
    assert!(client.is_closed());
}

/// The same in HTTP/2, where it is said by GOAWAY; what has begun is answered.
#[test]
fn a_connection_of_http2_ends_after_its_last_request() {
    let stage = stage(Backend::start("b"), |builder| {
        builder.set("server.maxRequestsPerConnection", 3).set("http.h2c", true)
    });
    let client = http2::Client::connect(stage.router.addr());
    for _ in 0..2 {
        assert_eq!(client.get("http://a.test/").text(), "b");
        assert!(!client.is_closed());
    }
    assert_eq!(client.get("http://a.test/").text(), "b", "the last one");
    eventually(DEADLINE, "no more streams", || client.is_closed());
    assert_eq!(stage.backend.request_count(), 3);
}

/// A trickling body is not saved by never being silent, and one that pauses in between but brings
/// enough is not ended.
#[test]
fn only_a_body_that_brings_too_little_is_ended() {
    let stage = stage(Backend::start("b"), |builder| {
        builder.set("server.minBodyRate", 100).set("server.headTimeout", 0.5)
    });
    let mut quick = Client::connect(stage.router.addr());
    quick.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\n");
    let mut slow = Client::connect(stage.router.addr());
    slow.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\n");
    slow.conn().set_limit(Some(std::time::Duration::from_millis(100)));
    let mut ended = None;
    let mut sent = 0;
    eventually(DEADLINE, "the slow body is ended", || {
        if sent < 900 {
            quick.send([b'x'; 30]);
            sent += 30;
        }
        drop(slow.conn().send(b"x"));
        ended = slow.conn().read_head().ok().flatten();
        ended.is_some()
    });
    assert_eq!(ended.map(|head| head.status()), Some(408));
    quick.send(vec![b'x'; 1000 - sent]);
    assert_eq!(quick.response().status(), 200);
}

/// A reader that takes a byte now and then is given up like one that takes none.
#[test]
fn a_reader_that_trickles_is_given_up() {
    let backend = Backend::with("b", |exchange| {
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        exchange.conn.set_limit(Some(DEADLINE * 3));
        exchange.conn.send_filling(1_000_000_000)?;
        Ok(Next::Close)
    });
    let stage = stage(backend, |builder| builder.set("server.tcpTimeout", 1));
    let mut client = Client::connect(stage.router.addr());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    stage.backend.wait_for_requests(1);
    eventually(DEADLINE, "the connection to the backend ends", || {
        // One byte at a time, straight off the socket.
        let _taken = std::io::Read::read(&mut client.conn().stream(), &mut [0]);
        stage.backend.open_connections() == 0
    });
}

/// More requests than a worker may answer at a time are refused at once and told to come back; health
/// checks are not, and neither is anybody once others are done.
#[test]
fn load_is_shed() {
    let gate = Gate::new();
    let stage =
        stage(Backend::gated("slow", &gate), |builder| builder.set("server.maxRequests", 2));
    let quick = Backend::start("quick");
    stage.redis.frontend("quick.test", "id", &[&quick.url()]);
    let mut running: Vec<_> = (0..2)
        .map(|_| {
            let mut client = Client::connect(stage.router.addr());
            client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
            client
        })
        .collect();
    stage.backend.wait_for_requests(2);
    let refused = get(stage.router.addr(), "quick.test", "/");
    assert_eq!((refused.status(), refused.header("retry-after")), (503, Some("1")));
    assert_eq!(get(stage.router.addr(), "__ping__", "/").status(), 200);
    assert_eq!(quick.connections(), 0);
    gate.open();
    for client in &mut running {
        assert_eq!(client.response().text(), "slow");
    }
    assert_eq!(get(stage.router.addr(), "quick.test", "/").text(), "quick");
}

/// Connections beyond a limit are refused, over all workers, until one of the others ends. It is counted
/// and said once.
#[test]
fn connections_beyond_a_limit_are_refused() {
    for key in ["server.maxConnections", "server.maxConnectionsPerAddress"] {
        let stage = stage(Backend::start("b"), |builder| builder.set(key, 3).workers(2));
        let mut open: Vec<_> = (0..3)
            .map(|_| {
                let mut client = Client::connect(stage.router.addr());
                assert_eq!(client.get("a.test", "/").status(), 200);
                client
            })
            .collect();
        for _ in 0..5 {
            let mut refused = Client::connect(stage.router.addr());
            let head = refused.head().unwrap_or_else(|| panic!("{key}: no answer"));
            assert_eq!((head.status(), head.header("retry-after")), (503, Some("1")), "{key}");
        }
        assert_eq!(open[0].get("a.test", "/").status(), 200, "{key}: existing ones go on");
        drop(open.pop());
        eventually(DEADLINE, "a connection is free", || {
            let mut client = Client::connect(stage.router.addr());
            // A refused one may be reset while it sends.
            drop(client.conn().send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            client.head().is_some_and(|head| head.status() == 200)
        });
        stage.router.wait_for_log(&["WARN", key]);
        let said = stage.router.log().matches(key).count();
        assert_eq!(said, 1, "{key}: {}", stage.router.log());
    }
}

/// A trusted proxy carries the requests of many: it is not counted as one address.
#[test]
fn a_trusted_proxy_may_have_many_connections() {
    let stage = stage(Backend::start("b"), |builder| {
        let builder = builder.set("server.maxConnectionsPerAddress", 1);
        builder.set("server.trustedProxies", "127.0.0.0/8")
    });
    let open: Vec<_> = (0..5)
        .map(|_| {
            let mut client = Client::connect(stage.router.addr());
            assert_eq!(client.get("a.test", "/").status(), 200);
            client
        })
        .collect();
    drop(open);
}

/// Requests that are given up cost the backend work, and answers that cost nothing make up for none of it
/// (CVE-2023-44487): neither a health check for each, nor the head of an answer.
#[test]
fn given_up_requests_end_the_connection_whatever_else_is_answered() {
    /// More than any budget, and fewer than fit into the time in which that many come back.
    const MANY: u32 = 1000;
    let gate = Gate::new();
    let unanswered = stage(Backend::gated("b", &gate), |builder| builder.set("http.h2c", true));
    let half_answered = Backend::with("b", |exchange| {
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")?;
        exchange.conn.set_limit(None);
        exchange.conn.read_to_end()?;
        Ok(Next::Close)
    });
    let half_answered = stage(half_answered, |builder| builder.set("http.h2c", true));
    let get_of = |host: &'static str| {
        let fields: [(&[u8], &[u8]); 4] = [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":path", b"/"),
            (b":authority", host.as_bytes()),
        ];
        block(&fields)
    };
    for (stage, pings) in [(&unanswered, true), (&half_answered, false)] {
        let mut client = Raw::connect(stage.router.addr(), &[]);
        let begin = |client: &mut Raw, stream: u32, host: &'static str| {
            client.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &get_of(host)).ok()
        };
        let mut give_up = |stream: u32| {
            begin(&mut client, stream, "a.test")?;
            // Whose head has to come before the request is given up.
            let awaited = if pings { stream + 2 } else { stream };
            if pings {
                begin(&mut client, awaited, "__ping__")?;
            }
            while client.frame()?.stream != awaited {}
            client.send(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes()).ok()
        };
        let ended = (0..MANY).find(|round| give_up(1 + 4 * round).is_none());
        assert!(ended.is_some_and(|round| round >= 100), "ended in round {ended:?}");
        assert_eq!(get(stage.router.addr(), "__ping__", "/").status(), 200, "others go on");
    }
    gate.open();
}

/// A line feed without a carriage return ends no line: such a head is refused also when it comes in one
/// piece with the request before it, which is answered.
#[test]
fn a_bare_line_feed_is_found_behind_another_request() {
    let stage = stage(Backend::start("b"), |builder| builder);
    let mut client = Client::connect(stage.router.addr());
    client.send(
        "GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /2 HTTP/1.1\r\nX: a\nHost: a.test\r\n\r\n",
    );
    assert_eq!((client.response().status(), client.response().status()), (200, 400));
    assert!(client.is_closed());
    assert_eq!(stage.backend.only_request().head.target(), "/1");
    // After a body with line feeds, too.
    let mut client = Client::connect(stage.router.addr());
    assert_eq!(client.post("a.test", "/3", "{\n}\n").status(), 200);
    assert_eq!(client.get("a.test", "/4").status(), 200);
    client.send("GET /5 HTTP/1.1\nHost: a.test\r\n\r\n");
    assert_eq!(client.response().status(), 400);
    // And after one that came in many reads.
    let mut client = Client::connect(stage.router.addr());
    assert_eq!(client.post("a.test", "/6", &"{\n}\n".repeat(50_000)).status(), 200);
    assert_eq!(client.get("a.test", "/7").status(), 200);
    assert_eq!(client.post("a.test", "/8", &"{\n}\n".repeat(50_000)).status(), 200);
    client.send("GET /9 HTTP/1.1\nHost: a.test\r\n\r\n");
    assert_eq!(client.response().status(), 400);
    assert_eq!(stage.backend.request_count(), 6);
}
