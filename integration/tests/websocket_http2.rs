//! WebSockets to backends of HTTP/2 (RFC 8441), from clients of both versions.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use integration::backend::Backend;
use integration::certificates::Authority;
use integration::client::{Client, debug_get};
use integration::http2;
use integration::redis::Redis;
use integration::router::{Builder, Router};
use integration::tls::Front;
use integration::websocket::{HANDSHAKE, Tunnel};
use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;

/// "Hello" in a frame of a client, masked, and in one of a server (RFC 6455 5.7).
const MASKED: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
const HELLO: &[u8] = b"\x81\x05Hello";

fn builder(redis: &Redis) -> Builder {
    Router::builder(redis).set("http.h2c", true)
}

/// A router that serves `a.test` from `url`.
fn stage(url: &str) -> (Redis, Router) {
    let redis = Redis::start();
    redis.frontend("a.test", "id", &[url]);
    let router = builder(&redis).start();
    (redis, router)
}

/// Without TLS a backend has said that it speaks HTTP/2; with TLS it chooses that.
#[test]
fn a_websocket_reaches_a_backend_of_http2() {
    let authority = Authority::new();
    let redis = Redis::start();
    let (plain, secure) = (http2::Backend::with_websockets(9), http2::Backend::with_websockets(9));
    let identity = authority.sign(&["localhost"]);
    let front = Front::offering(&identity, secure.port(), &["h2", "http/1.1"]);
    redis.frontend("plain.test", "id", &[&plain.url()]);
    redis.frontend("secure.test", "id", &[&front.url("localhost")]);
    let ca = authority.ca().display().to_string();
    let router = builder(&redis).set("server.backendCa", ca).start();
    for (host, backend, scheme) in
        [("plain.test", &plain, "http"), ("secure.test", &secure, "https")]
    {
        let mut tunnel = Tunnel::open(router.addr(), host, "/chat?room=1");
        let head = &tunnel.head;
        assert_eq!(head.start_line, "HTTP/1.1 101 Switching Protocols");
        assert_eq!(head.values("connection"), ["upgrade"]);
        assert_eq!(head.values("upgrade"), ["websocket"]);
        assert_eq!(head.values("sec-websocket-accept"), ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]);
        assert_eq!(head.values("sec-websocket-protocol"), ["chat"]);
        for name in ["content-length", "transfer-encoding"] {
            assert!(!head.has(name), "{name}");
        }
        tunnel.echo(MASKED);
        tunnel.echo(HELLO);
        let every_byte: Vec<u8> = (0..=255).collect();
        tunnel.echo(&every_byte.repeat(1000));
        // Each direction ends by itself.
        assert_eq!(tunnel.finish(), b"bye");

        let mut tunnel = http2::Client::connect(router.addr())
            .websocket(&format!("http://{host}/chat?room=1"))
            .expect("a tunnel");
        tunnel.echo(MASKED);
        tunnel.echo(&every_byte.repeat(150));
        assert_eq!(tunnel.finish().unwrap(), b"bye");

        for (method, uri, headers) in backend.requests() {
            assert_eq!(method, Method::CONNECT);
            assert_eq!(uri.to_string(), format!("{scheme}://{host}/chat?room=1"));
            assert_eq!(headers["sec-websocket-version"], "13");
            assert_eq!(headers["x-forwarded-proto"], "http");
            for name in ["sec-websocket-key", "upgrade", "connection", "host"] {
                assert!(!headers.contains_key(name), "{name}");
            }
        }
        assert_eq!(backend.requests().len(), 2);
    }
    let log = router.access_log(4);
    assert!(log.iter().all(|line| line.contains("\" 101 ")), "{log:?}");
}

/// What a client sends right behind its handshake is part of the tunnel.
#[test]
fn early_bytes_are_not_lost() {
    let backend = http2::Backend::with_websockets(9);
    let (_redis, router) = stage(&backend.url());
    let mut client = Client::connect(router.addr());
    client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{HANDSHAKE}\r\nEARLY"));
    assert_eq!(client.head().expect("a head").status(), 101);
    assert_eq!(client.conn().read_exact(5).unwrap(), b"EARLY");
}

/// Tunnels take neither the streams nor the window of a connection that requests share.
#[test]
fn tunnels_hold_back_no_requests() {
    let backend = http2::Backend::with_websockets(2);
    let (_redis, router) = stage(&backend.url());
    let mut tunnels: Vec<_> = (0..5).map(|_| Tunnel::open(router.addr(), "a.test", "/")).collect();
    let mut client = Client::connect(router.addr());
    for _ in 0..3 {
        assert_eq!(client.get("a.test", "/").status(), 200);
    }
    for tunnel in &mut tunnels {
        tunnel.echo(HELLO);
    }
    assert_eq!(backend.requests().len(), 8);
}

/// As browsers do it: HTTP/1.1 where HTTP/2 of the backend carries no WebSocket, without another try of
/// HTTP/2 each time.
#[test]
fn http1_is_used_where_http2_has_no_websocket() {
    let authority = Authority::new();
    let redis = Redis::start();
    let (http2, http1) = (http2::Backend::start(), Backend::upgrading("b"));
    let identity = authority.sign(&["localhost"]);
    let front = Front::splitting(&identity, http2.port(), http1.port());
    redis.frontend("a.test", "id", &[&front.url("localhost")]);
    let ca = authority.ca().display().to_string();
    let router = builder(&redis).workers(1).set("server.backendCa", ca).start();
    for handshakes in [2, 3] {
        let mut tunnel = Tunnel::open(router.addr(), "a.test", "/");
        tunnel.echo(HELLO);
        assert_eq!(front.server_names().len(), handshakes);
        assert_eq!(tunnel.finish(), b"bye");
    }
    let mut tunnel =
        http2::Client::connect(router.addr()).websocket("http://a.test/").expect("a tunnel");
    tunnel.echo(HELLO);
    assert_eq!((http1.request_count(), http2.requests().len()), (3, 0));
    // Requests go on with HTTP/2.
    assert_eq!(Client::connect(router.addr()).get("a.test", "/").status(), 200);
    assert_eq!(http2.requests().len(), 1);
}

/// 502 with a reason and no mark: the backend is fine.
#[test]
fn without_a_way_for_it_the_answer_is_502_and_nobody_is_marked() {
    let authority = Authority::new();
    let (redis, backend) = (Redis::start(), http2::Backend::start());
    let front = Front::offering(&authority.sign(&["localhost"]), backend.port(), &["h2"]);
    redis.frontend("plain.test", "id", &[&backend.url(), &backend.url()]);
    redis.frontend("secure.test", "id", &[&front.url("localhost"), &front.url("127.0.0.1")]);
    let ca = authority.ca().display().to_string();
    let router = builder(&redis).workers(1).set("server.backendCa", ca).start();
    for host in ["plain.test", "secure.test"] {
        for headers in [HANDSHAKE, HANDSHAKE] {
            let headers = format!("{headers}X-Debug: 1\r\n");
            let response = Client::connect(router.addr()).get_with(host, "/", &headers);
            assert_eq!(response.status(), 502, "{host}");
            let error = response.header("x-debug-error");
            assert_eq!(error, Some("backend speaks HTTP/2 only, without this upgrade"));
        }
        assert_eq!(debug_get(router.addr(), host, "/").status(), 200);
        assert_eq!(redis.dead(host), BTreeSet::new());
    }
    assert_eq!(backend.requests().len(), 2);
    assert!(!router.log().contains("no TLS with the backend"), "{}", router.log());
}

/// HTTP/2 knows no other upgrade; whoever offers one takes an answer of HTTP as well (RFC 9110 7.8).
#[test]
fn another_upgrade_is_ignored_by_a_backend_of_http2() {
    let authority = Authority::new();
    let (redis, backend) = (Redis::start(), http2::Backend::start());
    let front = Front::offering(&authority.sign(&["localhost"]), backend.port(), &["h2"]);
    redis.frontend("plain.test", "id", &[&backend.url(), &backend.url()]);
    redis.frontend("secure.test", "id", &[&front.url("localhost"), &front.url("localhost")]);
    let ca = authority.ca().display().to_string();
    let router = builder(&redis).workers(1).set("server.backendCa", ca).start();
    for host in ["plain.test", "secure.test"] {
        let mut client = Client::connect(router.addr());
        for protocol in ["TLS/1.2", "tcp/2"] {
            let headers = format!("Connection: upgrade\r\nUpgrade: {protocol}\r\n");
            assert_eq!(client.get_with(host, "/", &headers).status(), 200, "{host} {protocol}");
        }
        assert_eq!(client.get(host, "/").status(), 200);
        assert_eq!(redis.dead(host), BTreeSet::new());
    }
    let requests = backend.requests();
    assert_eq!(requests.len(), 6);
    assert!(requests.iter().all(|(_, _, headers)| !headers.contains_key("upgrade")));
}

/// A refusal is an answer like any other; what begins no tunnel is none.
#[test]
fn answers_that_begin_no_tunnel() {
    let backend = http2::Backend::with_websockets(9);
    let (_redis, router) = stage(&backend.url());
    let mut client = Client::connect(router.addr());
    for _ in 0..2 {
        let response = client.get_with("a.test", "/no", HANDSHAKE);
        assert_eq!((response.status(), response.text().as_str()), (403, "refused"));
        assert!(!response.head.has("upgrade"));
    }
    assert_eq!(client.get_with("a.test", "/204", HANDSHAKE).status(), 502);
    // Without a key there is nothing to answer with.
    let no_key = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(client.get_with("a.test", "/", no_key).status(), 502);
    assert_eq!(client.get("a.test", "/").status(), 200);
    let client = http2::Client::connect(router.addr());
    assert_eq!(client.websocket("http://a.test/no").map(drop), Err(403));
    assert_eq!(client.websocket("http://a.test/204").map(drop), Err(502));
}

/// Silence, a stream that breaks off and the end of the router end a tunnel as they end any other.
#[test]
fn tunnels_end_like_those_of_http1() {
    let backend = http2::Backend::with_websockets(9);
    let redis = Redis::start();
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = builder(&redis)
        .set("server.tunnelIdleTimeout", 1)
        .set("server.tcpTimeout", 0.3)
        .set("server.drainTimeout", 0.2)
        .start();
    let mut cut = Tunnel::open(router.addr(), "a.test", "/cut");
    cut.conn().send(HELLO).unwrap();
    // Bytes that are on their way may get lost.
    assert!(cut.conn().read_to_end().is_ok_and(|rest| HELLO.starts_with(&rest)));
    let mut silent = Tunnel::open(router.addr(), "a.test", "/");
    let mut talking = Tunnel::open(router.addr(), "a.test", "/");
    for _ in 0..4 {
        talking.conn().set_limit(Some(Duration::from_millis(400)));
        assert!(!talking.is_closed(), "a talking tunnel was ended");
        talking.echo(HELLO);
    }
    assert!(silent.is_closed());
    talking.echo(HELLO);
    router.signal(Signal::SIGTERM);
    assert!(talking.is_closed());
    assert!(router.wait(Duration::from_secs(10)).success());
}
