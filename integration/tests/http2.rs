//! HTTP/2 from clients, and to backends that speak it. Abuse is among the probes, in `probes/http2.rs`; what the
//! RFC wants of frames is in `http2_conformance`.

use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use integration::backend::{Backend, Next};
use integration::certificates::Authority;
use integration::client;
use integration::eventually::{DEADLINE, eventually};
use integration::http2::{self, Client, END_HEADERS, END_STREAM, Raw, block, kind};
use integration::redis::Redis;
use integration::router::{Builder, Router};
use integration::tls::{Front, Kind};
use integration::wire::Conn;
use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;
use serde_json::json;

/// A router that takes HTTP/2 without TLS.
fn h2c(redis: &Redis) -> Builder {
    Router::builder(redis).set("http.h2c", true)
}

/// A router in front of `backend`, which serves `a.test`.
fn stage(backend_url: &str) -> (Redis, Router) {
    let redis = Redis::start();
    redis.frontend("a.test", "id", &[backend_url]);
    let router = h2c(&redis).start();
    (redis, router)
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    pairs.iter().map(pair).collect()
}

/// By ALPN over TLS, at once without, and HTTP/1 goes on working on the same port.
#[test]
fn http2_is_spoken_by_alpn_and_with_prior_knowledge() {
    let authority = Authority::new();
    let (redis, backend) = (Redis::start(), Backend::start("b"));
    redis.frontend("a.test", "id", &[&backend.url()]);
    let identity = authority.sign(&["a.test"]);
    let builder = || {
        h2c(&redis)
            .set("https.bind", json!(["127.0.0.1"]))
            .set("https.port", 0)
            .set("https.cert", identity.certificate.display().to_string())
            .set("https.key", identity.key.display().to_string())
    };
    let router = builder().start();
    let kind = Kind::trusting(&authority.ca());
    for offers in [&["h2", "http/1.1"][..], &["h2"]] {
        let mut connected = kind.offering(offers).connect(router.addrs()[1], "a.test");
        assert_eq!(connected.protocol.as_deref(), Some("h2"));
        let stream = connected.client.conn().stream().try_clone().unwrap();
        assert_eq!(Client::over(stream).get("https://a.test/x").text(), "b");
    }
    let head = &backend.requests()[0].head;
    assert_eq!(head.start_line, "GET /x HTTP/1.1");
    assert_eq!(head.headers[0], ("host".to_owned(), "a.test".to_owned()));
    assert_eq!(head.header("x-forwarded-proto"), Some("https"));
    for offers in [&["http/1.1"][..], &[]] {
        let mut connected = kind.offering(offers).connect(router.addrs()[1], "a.test");
        assert_eq!(connected.client.get("a.test", "/").text(), "b");
    }
    assert_eq!(Client::connect(router.addr()).get("http://a.test/").text(), "b");
    assert_eq!(client::get(router.addr(), "a.test", "/").text(), "b");
    let log = router.access_log(6);
    assert!(log[0].contains("\"GET /x HTTP/2.0\" 200 1 "), "{log:?}");

    let without = builder().set("https.http2", false).start();
    let kind = kind.offering(&["h2", "http/1.1"]);
    assert_eq!(kind.connect(without.addrs()[1], "a.test").protocol.as_deref(), Some("http/1.1"));
}

/// Many at a time on one connection, each by its own authority, each with its own body.
#[test]
fn requests_of_one_connection_are_routed_one_by_one() {
    let redis = Redis::start();
    let echo = |name: &'static str| {
        Backend::with(name, move |exchange| {
            let mut body = exchange.read_body()?.data;
            body.extend_from_slice(name.as_bytes());
            exchange.respond(200, &[], &body)?;
            Ok(Next::KeepAlive)
        })
    };
    let (one, two) = (echo("one"), echo("two"));
    redis.frontend("one.test", "id", &[&one.url()]);
    redis.frontend("two.test", "id", &[&two.url()]);
    let router = h2c(&redis).start();
    let client = Client::connect(router.addr());
    let body: Vec<u8> = (b'a'..=b'z').cycle().take(300_000).collect();
    thread::scope(|scope| {
        for number in 0..20 {
            let (client, body) = (&client, &body[..number * 15_000]);
            scope.spawn(move || {
                let host = ["one", "two"][number % 2];
                let request = Request::post(format!("http://{host}.test/")).body(()).unwrap();
                let response = client.send(request, Some(body), None).unwrap();
                assert!(response.body == [body, host.as_bytes()].concat(), "{number} differs");
            });
        }
    });
    let wrong = client.get("http://nobody.test/");
    assert_eq!((wrong.status, wrong.headers.get("connection")), (400, None));
    let length = wrong.body.len();
    let line = router.access_log(21).pop().unwrap_or_default();
    assert!(line.contains(&format!("\"GET / HTTP/2.0\" 400 {length} ")), "{line}");
}

/// Trailers in both directions to a backend of HTTP/1.1.
#[test]
fn trailers_pass_both_ways() {
    let backend = Backend::echoing("echo");
    let (_redis, router) = stage(&backend.url());
    let client = Client::connect(router.addr());
    let request = Request::post("http://a.test/");
    let request = request.header("te", "trailers").header("trailer", "x-sum").body(()).unwrap();
    let trailers = headers(&[("x-sum", "42")]);
    let response = client.send(request, Some(b"content"), Some(trailers.clone())).unwrap();
    assert_eq!((response.text().as_str(), response.trailers), ("content", Some(trailers)));
    let head = &backend.requests()[0].head;
    assert_eq!(
        (head.header("te"), head.header("transfer-encoding")),
        (Some("trailers"), Some("chunked"))
    );
    // Announcing them is a courtesy (RFC 9110 6.6.2).
    let counting = Backend::start("counted");
    _redis.frontend("a.test", "id", &[&counting.url()]);
    let request = Request::post("http://a.test/").body(()).unwrap();
    let trailers = headers(&[("x-sum", "42")]);
    assert_eq!(client.send(request, Some(b"abc"), Some(trailers)).unwrap().text(), "counted");
    let sent = vec![("x-sum".to_owned(), "42".to_owned())];
    let body = counting.requests()[0].body.clone().unwrap();
    assert_eq!((body.data.as_slice(), body.trailers, body.complete), (&b"abc"[..], sent, true));
}

/// What only a header may say is no trailer (RFC 9110 6.5.1); such a one costs nobody the body.
#[test]
fn trailers_say_nothing_of_connections_or_identity() {
    let backend = Backend::with("b", |exchange| {
        let body = exchange.read_body()?;
        exchange.record(body);
        exchange.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nConnection: close\r\n\
              Keep-Alive: timeout=5\r\nUpgrade: x\r\nX-Sum: 43\r\n\r\n",
        )?;
        Ok(Next::KeepAlive)
    });
    let (redis, router) = stage(&backend.url());
    let client = Client::connect(router.addr());
    let forged = [("x-forwarded-for", "6.6.6.6"), ("x-real-ip", "6.6.6.6"), ("host", "b.test")];
    for (kept, expected) in [(&[("x-sum", "42")][..], 1), (&[], 0)] {
        let announced = "x-forwarded-for, x-real-ip, host, x-sum";
        let request =
            Request::post("http://a.test/").header("trailer", announced).body(()).unwrap();
        let trailers = headers(&[&forged[..], kept].concat());
        let response = client.send(request, Some(b"abc"), Some(trailers)).unwrap();
        let sum = Some(headers(&[("x-sum", "43")]));
        assert_eq!((response.text().as_str(), response.trailers), ("abc", sum));
        let body = backend.requests().pop().unwrap().body.unwrap();
        assert!(body.complete && body.data == b"abc", "{body:?}");
        assert_eq!(body.trailers.len(), expected, "{body:?}");
    }
    // And to a backend of HTTP/2, which is what sends all of it back.
    let backend = http2::Backend::start();
    redis.frontend("b.test", "id", &[&backend.url()]);
    for (kept, expected) in
        [(&[("x-sum", "42")][..], Some(headers(&[("x-sum", "42")]))), (&[], None)]
    {
        let request = Request::post("http://b.test/").body(()).unwrap();
        let trailers = headers(&[&forged[..], kept].concat());
        let response = client.send(request, Some(b"abc"), Some(trailers)).unwrap();
        assert_eq!(response.text(), "abc");
        if expected.is_some() {
            assert_eq!(response.trailers, expected);
        } else {
            let trailers = response.trailers.unwrap_or_default();
            assert!(forged.iter().all(|(name, _)| !trailers.contains_key(*name)), "{trailers:?}");
        }
    }
}

/// One length, said once, or none; also of a `CONNECT` (RFC 8441), and of what HTTP/1.1 knows as such.
#[test]
fn a_repeated_length_is_said_once_or_refused() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend.url());
    for (lengths, status) in
        [(&["3"][..], Some(200)), (&["3", "3"], Some(200)), (&["3", "003"], Some(400))]
    {
        let mut client = Raw::connect(router.addr(), &[]);
        let mut lines: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"a.test"),
            (b":path", b"/"),
        ];
        lines.extend(lengths.iter().map(|length| (&b"content-length"[..], length.as_bytes())));
        client.send(kind::HEADERS, END_HEADERS, 1, &block(&lines)).unwrap();
        client.send(kind::DATA, END_STREAM, 1, b"abc").unwrap();
        assert_eq!(client.outcome(1).status, status, "{lengths:?}");
    }
    let requests = backend.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    for request in requests {
        assert_eq!(request.head.values("content-length"), ["3"]);
    }
}

/// Of a backend of HTTP/2 a client of HTTP/1.1 gets what was announced, and how a call of gRPC ended.
#[test]
fn trailers_of_http2_reach_a_client_of_http1_that_takes_them() {
    let backend = http2::Backend::start();
    let (_redis, router) = stage(&backend.url());
    let mut client = client::Client::connect(router.addr());
    let te = "TE: trailers\r\nConnection: TE\r\n";
    let grpc = "grpc-status, grpc-message, grpc-status-details-bin";
    for (headers, trailers, announced, expected) in [
        // `grpc-status: 0`, which nobody has announced.
        (te, "", Some(grpc), &["grpc-status: 0"][..]),
        ("", "", None, &[]),
        (&format!("{te}Trailer: x-sum\r\n"), "X-Sum: 42\r\n", Some("x-sum"), &["x-sum: 42"]),
        ("Trailer: x-sum\r\n", "X-Sum: 42\r\n", Some("x-sum"), &[]),
    ] {
        for _ in 0..2 {
            let response = client
                .send(format!(
                    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n{headers}\r\n\
                     3\r\nabc\r\n0\r\n{trailers}\r\n"
                ))
                .response();
            assert_eq!(response.text(), "abc");
            assert_eq!(response.header("trailer"), announced, "{headers}");
            let line = |(name, value): &(String, String)| {
                format!("{}: {value}", name.to_ascii_lowercase())
            };
            let lines: Vec<_> = response.body.trailers.iter().map(line).collect();
            assert_eq!(lines, expected, "{headers}");
        }
    }
}

/// What concerns a connection of HTTP/1.1 does not leave it, in either direction.
#[test]
fn headers_of_the_backends_connection_stay_behind() {
    let backend = Backend::answering(
        "b",
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, x-hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n\
         Transfer-Encoding: chunked\r\nX-Kept: 1\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    let (_redis, router) = stage(&backend.url());
    let client = Client::connect(router.addr());
    for _ in 0..2 {
        let response = client.get("http://a.test/");
        assert_eq!(response.text(), "abc");
        for name in ["connection", "keep-alive", "x-hop", "transfer-encoding"] {
            assert!(!response.headers.contains_key(name), "{name}: {response:?}");
        }
        assert_eq!(response.headers["x-kept"], "1");
    }
    assert_eq!(backend.connections(), 1);
}

/// RFC 8441: a WebSocket as one stream of many, to a backend that knows HTTP/1.1 only.
#[test]
fn a_websocket_over_http2_reaches_a_backend_of_http1() {
    let backend = Backend::with("ws", |exchange| {
        exchange.accept_upgrade()?;
        while let Ok(bytes) = exchange.conn.read_exact(4) {
            exchange.send(&bytes)?;
        }
        Ok(Next::Close)
    });
    let (redis, router) = stage(&backend.url());
    redis.frontend("plain.test", "id", &[&Backend::start("gone").url()]);
    let client = Client::connect(router.addr());
    let mut tunnel = client.websocket("http://a.test/chat").expect("a tunnel");
    let head = backend.requests()[0].head.clone();
    assert_eq!(head.start_line, "GET /chat HTTP/1.1");
    assert_eq!(head.header("upgrade"), Some("websocket"));
    tunnel.echo(b"ping");
    let mut second = client.websocket("http://a.test/chat").expect("another");
    second.echo(&[1; 40_000]);
    tunnel.echo(b"pong");
    assert_eq!(tunnel.finish().unwrap(), b"");
    second.echo(b"last");
    drop(second);
    backend.wait_for_open(0);
    router.access_log(2);
}

/// Whatever is no tunnel must not look like one: over HTTP/2 any success would.
#[test]
fn an_answer_that_is_no_websocket_begins_none() {
    let redis = Redis::start();
    let router = h2c(&redis).start();
    let client = Client::connect(router.addr());
    let wrong = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: AAAA\r\n\r\n";
    let fine = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    for (answer, status) in [(wrong, 502), (fine, 502), (refusal, 403)] {
        let backend = Backend::answering("b", answer);
        redis.frontend("a.test", "id", &[&backend.url()]);
        assert_eq!(client.websocket("http://a.test/").map(drop), Err(status), "{answer}");
    }
    let only_http2 = http2::Backend::start();
    redis.frontend("a.test", "id", &[&only_http2.url()]);
    assert_eq!(client.websocket("http://a.test/").map(drop), Err(502));
    assert!(only_http2.requests().is_empty());
}

/// gRPC: HTTP/2 all the way, trailers both ways, every call of a worker on one connection.
#[test]
fn calls_reach_a_backend_of_http2_on_one_connection() {
    let authority = Authority::new();
    let backend = http2::Backend::start();
    let front =
        Front::offering(&authority.sign(&["localhost"]), backend.port(), &["h2", "http/1.1"]);
    let redis = Redis::start();
    let router = h2c(&redis).set("server.backendCa", authority.ca().display().to_string()).start();
    let client = Client::connect(router.addr());
    for (url, scheme) in [(backend.url(), "http"), (front.url("localhost"), "https")] {
        redis.frontend("a.test", "id", &[&url]);
        let (before, requests) = (backend.connections(), backend.requests().len());
        let call = |body: &[u8]| {
            let request = Request::post("http://a.test/pkg.Service/Call").header("te", "trailers");
            let request = request.header("content-type", "application/grpc").body(()).unwrap();
            client.send(request, Some(body), None).unwrap()
        };
        assert_eq!(call(b"first").text(), "first");
        thread::scope(|scope| {
            for number in 0..30 {
                let call = &call;
                scope.spawn(move || {
                    let body = vec![number; 100_000];
                    let response = call(&body);
                    assert!(response.body == body, "{number} differs");
                    assert_eq!(response.trailers.unwrap()["grpc-status"], "0");
                });
            }
        });
        assert_eq!(backend.connections() - before, 1, "{url}");
        let (method, target, headers) = backend.requests()[requests].clone();
        assert_eq!(
            (method.as_str(), target.to_string()),
            ("POST", format!("{scheme}://a.test/pkg.Service/Call"))
        );
        assert_eq!(headers["te"], "trailers");
        assert!(!headers.contains_key("host"));
        assert!(headers.contains_key("x-forwarded-for"));
    }
    // A client of HTTP/1.1 reaches it as well.
    assert_eq!(client::Client::connect(router.addr()).post("a.test", "/", "plain").text(), "plain");
}

/// Backends may end a connection over a head that is too large for them (nginx does over 8 KiB), and with
/// it the requests of everybody.
#[test]
fn a_large_head_has_a_connection_of_its_own() {
    let backend = http2::Backend::start();
    let (_redis, router) = stage(&backend.url());
    let client = Client::connect(router.addr());
    let get = |size: usize| {
        let request = Request::get("http://a.test/").header("x-large", "a".repeat(size));
        client.send(request.body(()).unwrap(), None, None).unwrap().status
    };
    assert_eq!((get(10), get(10), backend.connections()), (200, 200, 1));
    assert_eq!((get(8000), get(8000), backend.connections()), (200, 200, 3));
    assert_eq!((get(10), backend.connections()), (200, 3));
}

/// A body without a length belongs to a GET, too (RFC 9110 9.3.1 lets a backend refuse it, not us lose it).
#[test]
fn a_body_without_a_length_reaches_a_backend_of_http1_whatever_the_method() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend.url());
    let client = Client::connect(router.addr());
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "QUERY"] {
        let request = Request::builder().method(method).uri("http://a.test/").body(()).unwrap();
        assert_eq!(client.send(request, Some(b"hello"), None).unwrap().status, 200, "{method}");
        let sent = backend.requests().pop().unwrap();
        assert_eq!(sent.head.values("transfer-encoding"), ["chunked"], "{method}");
        assert_eq!(sent.body.unwrap().data, b"hello", "{method}");
    }
}

/// A backend that was restarted: the shared connection is replaced, no request notices.
#[test]
fn a_shared_connection_that_ended_is_replaced() {
    let backend = Backend::start("plain");
    let (redis, router) = stage(&backend.url());
    let client = Client::connect(router.addr());
    for _ in 0..3 {
        let backend = http2::Backend::start();
        redis.frontend("a.test", "id", &[&backend.url()]);
        let request = Request::post("http://a.test/").body(()).unwrap();
        assert_eq!(client.send(request, Some(b"x"), None).unwrap().text(), "x");
    }
    // What does not speak HTTP/2 is no backend of it.
    redis.frontend("a.test", "id", &[&backend.url().replace("http://", "h2c://")]);
    assert_eq!(client.get("http://a.test/").status, 502);
}

/// As with HTTP/1.1: a kept connection may end at any time, and what can be sent twice is.
#[test]
fn a_shared_connection_that_breaks_costs_no_request_that_may_be_repeated() {
    let backend = http2::Backend::answering(1);
    let (_redis, router) = stage(&backend.url());
    let client = Client::connect(router.addr());
    for number in 0..4 {
        assert_eq!(client.get(&format!("http://a.test/{number}")).status, 200, "{number}");
    }
    let targets: Vec<_> =
        backend.requests().into_iter().map(|(_, uri, _)| uri.path().to_owned()).collect();
    assert_eq!(targets, ["/0", "/1", "/1", "/2", "/2", "/3", "/3"]);
    let post = || {
        let request = Request::post("http://a.test/post").body(()).unwrap();
        client.send(request, Some(b"x"), None).unwrap().status
    };
    assert_eq!((post(), post()), (502, 200), "never sent twice");
    assert_eq!(backend.requests().len(), 9);
}

/// How a backend refuses a request.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    /// It ends the connection in good order (RFC 9113 6.8).
    GoAway,
    /// It has no room for the stream (RFC 9113 8.7).
    Stream,
}

/// A backend of HTTP/2 whose first connection answers one request and refuses the next one, once it has
/// come to its end or brought so many bytes. Others answer with what they get.
fn refusing(refusal: Refusal, bytes: usize) -> (u16, mpsc::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (report, reports) = mpsc::channel();
    // Ends with the process of the test.
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut raw = Raw::over(Conn::new(stream.expect("a connection")));
            let report = report.clone();
            thread::spawn(move || {
                serve(&mut raw, (number == 0).then_some((refusal, bytes)), &report);
            });
        }
    });
    (port, reports)
}

fn serve(raw: &mut Raw, refuses: Option<(Refusal, usize)>, report: &mpsc::Sender<usize>) {
    let Ok(_preface) = raw.conn().read_exact(24) else { return };
    // SETTINGS_INITIAL_WINDOW_SIZE, and the same for the connection.
    let room = 1_u32 << 20;
    let settings = http2::settings_frame(&[(4, room)]);
    let _sent = raw.send_bytes(&settings);
    let _sent = raw.send(kind::WINDOW_UPDATE, 0, 0, &room.to_be_bytes());
    let mut body = Vec::new();
    while let Some(frame) = raw.frame() {
        if frame.kind == kind::SETTINGS && frame.flags & http2::ACK == 0 {
            let _sent = raw.send(kind::SETTINGS, http2::ACK, 0, &[]);
        }
        if ![kind::HEADERS, kind::DATA].contains(&frame.kind) {
            continue;
        }
        if frame.kind == kind::DATA {
            body.extend(&frame.payload);
        }
        let has_ended = frame.flags & END_STREAM != 0;
        match refuses {
            Some((_, bytes)) if frame.stream > 1 && !has_ended && body.len() < bytes => {}
            Some((refusal, _)) if frame.stream > 1 => {
                report.send(body.len()).expect("the test waits");
                let _sent = match refusal {
                    Refusal::GoAway => raw.send(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]),
                    Refusal::Stream => raw.send(kind::RST_STREAM, 0, frame.stream, &[0, 0, 0, 7]),
                };
                body.clear();
            }
            _ if has_ended => {
                // `:status: 200`
                let _sent = raw.send(kind::HEADERS, END_HEADERS, frame.stream, &[0x88]);
                for part in body.chunks(16 * 1024) {
                    let _sent = raw.send(kind::DATA, 0, frame.stream, part);
                }
                let _sent = raw.send(kind::DATA, END_STREAM, frame.stream, &[]);
                body.clear();
            }
            _ => {}
        }
    }
}

/// What a backend says that it has not processed is sent again, whatever the method: with it every backend
/// ends its connections in good order. The body comes along, unless much of it was sent already.
#[test]
fn what_a_backend_refuses_is_sent_again() {
    let whole = usize::MAX;
    for refusal in [Refusal::GoAway, Refusal::Stream] {
        for (body, bytes, expected) in [
            (0, whole, 200),
            (5, whole, 200),
            (60_000, whole, 200),
            // Refused when the half of it has come.
            (20, 10, 200),
            (200_000, 100_000, 502),
        ] {
            let (port, refused) = refusing(refusal, bytes);
            let (_redis, router) = stage(&format!("h2c://127.0.0.1:{port}"));
            let mut client = client::Client::connect(router.addr());
            assert_eq!(client.get("a.test", "/").status(), 200);
            let content = "x".repeat(body);
            let (first, rest) = content.split_at(bytes.min(body));
            let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {body}\r\n\r\n");
            client.send(head + first);
            assert!(refused.recv_timeout(DEADLINE).expect("a refusal") >= first.len());
            if expected == 200 {
                client.send(rest);
            }
            let answer = client.response_to("POST");
            assert_eq!(answer.status(), expected, "{refusal:?} {body} {bytes}");
            if expected == 200 {
                assert_eq!(answer.text().len(), body, "{refusal:?} {body} {bytes}");
            }
        }
    }
}

/// A request with a body that never ends: its answer has begun once this returns.
fn hold(router: &Router) -> Conn {
    let mut conn = Conn::connect(router.addr()).expect("a connection");
    let request = b"POST /held HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nx";
    conn.send(request).expect("sent");
    let head = conn.read_head().expect("a head").expect("an answer");
    assert_eq!(head.status(), 200);
    conn
}

/// Whoever holds the streams that a backend allows keeps nobody else waiting for one.
#[test]
fn what_a_backend_allows_on_a_connection_bounds_nothing_but_the_connection() {
    for max_streams in [1, 2] {
        let backend = http2::Backend::with_websockets(max_streams);
        let (_redis, router) = stage(&backend.url());
        let held: Vec<_> = (0..6).map(|_| hold(&router)).collect();
        let client = Client::connect(router.addr());
        assert_eq!(client.get("http://a.test/").status, 200);
        let expected = 6 / max_streams as usize + 1;
        assert_eq!(backend.connections(), expected, "{max_streams} allowed");
        drop(held);
    }
}

/// Clients who do not read use up the windows of their own streams, and of nothing else. All of them
/// begin at once, which makes one connection.
#[test]
fn unread_answers_of_a_backend_leave_the_window_to_others() {
    let backend = http2::Backend::start();
    let (_redis, router) = stage(&backend.url());
    // SETTINGS_INITIAL_WINDOW_SIZE
    let mut unread = Raw::connect(router.addr(), &[(4, 0)]);
    let streams = 40;
    for number in 0..streams {
        let request = block(&[
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":path", b"/big"),
            (b":authority", b"a.test"),
        ]);
        let flags = END_STREAM | END_HEADERS;
        unread.send(kind::HEADERS, flags, 2 * number + 1, &request).unwrap();
    }
    let windows = 256 * 1024 * streams as usize;
    eventually(DEADLINE, "every stream has its window", || backend.big_bytes() >= windows);
    let client = Client::connect(router.addr());
    let got = client.get("http://a.test/big");
    assert_eq!((got.status, got.body.len()), (200, http2::BIG));
    assert_eq!(backend.connections(), 1);
}

/// Clients that go away have their requests reset, and a backend ends the connection over too many
/// of these: before that it takes no more requests, and those that it has are finished.
#[test]
fn a_shared_connection_with_many_resets_is_replaced() {
    let backend = http2::Backend::start();
    let (_redis, router) = stage(&backend.url());
    let mut innocent = hold(&router);
    let client = Client::connect(router.addr());
    for _ in 0..16 {
        assert_eq!(backend.connections(), 1);
        drop(hold(&router));
    }
    eventually(DEADLINE, "a new connection", || {
        assert_eq!(client.get("http://a.test/").status, 200);
        backend.connections() == 2
    });
    innocent.send(b"23456789").unwrap();
    let mut echoed = Vec::new();
    while !echoed.contains(&b'9') {
        let part = innocent.read_some().unwrap();
        assert!(!part.is_empty(), "{}", String::from_utf8_lossy(&echoed));
        echoed.extend(part);
    }
}

#[test]
fn another_host_than_the_certificates_gets_421() {
    let authority = Authority::new();
    let (redis, backend) = (Redis::start(), Backend::start("b"));
    for host in ["a.test", "x.test", "b.test"] {
        redis.frontend(host, "id", &[&backend.url()]);
    }
    let identity = authority.sign(&["a.test", "x.test"]);
    let router = Router::builder(&redis)
        .set("https.bind", json!(["127.0.0.1"]))
        .set("https.port", 0)
        .set("https.cert", identity.certificate.display().to_string())
        .set("https.key", identity.key.display().to_string())
        .start();
    let kind = Kind::trusting(&authority.ca()).offering(&["h2"]);
    let mut connected = kind.connect(router.addrs()[1], "a.test");
    let client = Client::over(connected.client.conn().stream().try_clone().unwrap());
    for (host, status) in [("a.test", 200), ("x.test", 200), ("b.test", 421), ("a.test", 200)] {
        assert_eq!(client.get(&format!("https://{host}/")).status, status, "{host}");
    }
    assert_eq!(backend.request_count(), 3);
}

/// SIGTERM: GOAWAY, what runs is finished, the connection ends, the process too.
#[test]
fn draining_says_goodbye_and_finishes_what_runs() {
    let gate = integration::gate::Gate::new();
    let backend = Backend::gated("gated", &gate);
    let (_redis, router) = stage(&backend.url());
    let client = Client::connect(router.addr());
    let pending = client.begin("http://a.test/");
    backend.wait_for_requests(1);
    router.signal(Signal::SIGTERM);
    router.wait_for_log(&["draining"]);
    eventually(DEADLINE, "no new streams", || client.is_closed());
    gate.open();
    assert_eq!(pending.text().unwrap(), "gated");
    assert_eq!(router.wait(Duration::from_secs(5)).code(), Some(0));
}

/// A client that opens a stream and takes nothing is given up, like one of HTTP/1.1.
#[test]
fn a_client_that_takes_nothing_is_reset_in_time() {
    let backend = Backend::with("large", |exchange| {
        exchange.read_body()?;
        exchange.respond(200, &[], &vec![b'x'; 1024 * 1024])?;
        Ok(Next::KeepAlive)
    });
    let redis = Redis::start();
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = h2c(&redis).set("server.tcpTimeout", 1).start();
    let mut raw = Raw::connect(router.addr(), &[(4, 100)]);
    let get: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a.test")];
    raw.send(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block(&get)).unwrap();
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
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend.url());
    let mut client = client::Client::connect(router.addr());
    client.send("PRI * HTTP/2.0\r\n\r\n");
    let mut client = client.patient_for(2 * DEADLINE);
    let end = client.conn().read_to_end().unwrap();
    assert!(!end.starts_with(b"HTTP/1.1 200"), "{end:?}");
    // Whatever begins like it is HTTP/1.
    let mut client = client::Client::connect(router.addr());
    client.send("P").send("OST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().text(), "b");
}
