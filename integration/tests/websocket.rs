//! WebSocket and any other `Upgrade`: docs/hipache-contract.md 2, upgrades.

use std::time::Duration;

use integration::backend::{Backend, Next};
use integration::client::Client;
use integration::ports::Reserved;
use integration::redis::Redis;
use integration::router::{Router, stage};
use integration::websocket::{HANDSHAKE, Tunnel};
use pretty_assertions::assert_eq;

/// "`Upgrade: websocket`: both directions are piped as bytes."
#[test]
fn bytes_pass_both_ways_unchanged() {
    let backend = Backend::upgrading("b");
    let (_redis, router) = stage(&backend);
    let mut tunnel = Tunnel::open(router.addr(), "a.test", "/chat?room=1");
    assert_eq!(
        tunnel.head.header("upgrade").map(str::to_ascii_lowercase).as_deref(),
        Some("websocket")
    );
    assert_eq!(
        tunnel.head.header("connection").map(str::to_ascii_lowercase).as_deref(),
        Some("upgrade")
    );
    assert_eq!(tunnel.head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let every_byte: Vec<u8> = (0..=255).collect();
    tunnel.echo(&every_byte);
    tunnel.echo(b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n");
    tunnel.echo(&every_byte.repeat(1000));
    assert_eq!(tunnel.finish(), b"bye");
    let request = &backend.requests()[0];
    assert_eq!(request.head.start_line, "GET /chat?room=1 HTTP/1.1");
    assert_eq!(request.head.values("host"), ["a.test"]);
    assert_eq!(backend.wait_for_body(0).data.len(), 256 + 36 + 256_000);
}

/// Half-close: the client's end reaches the backend, which may still talk, and the other way round.
#[test]
fn each_direction_ends_by_itself() {
    let backend = Backend::with("b", |exchange| {
        exchange.accept_upgrade()?;
        if exchange.head.target() == "/backend-first" {
            exchange.send(b"last words")?;
            exchange.conn.finish()?;
            let heard = exchange.conn.read_to_end()?;
            exchange.record(integration::wire::Body {
                data: heard,
                complete: true,
                ..Default::default()
            });
        } else {
            let heard = exchange.conn.read_to_end()?;
            exchange.send(&[b"heard: ", &heard[..]].concat())?;
        }
        Ok(Next::Close)
    });
    let (_redis, router) = stage(&backend);
    let mut tunnel = Tunnel::open(router.addr(), "a.test", "/client-first");
    tunnel.conn().send(b"all I say").unwrap();
    assert_eq!(tunnel.finish(), b"heard: all I say");

    let mut tunnel = Tunnel::open(router.addr(), "a.test", "/backend-first");
    assert_eq!(tunnel.conn().read_to_end().unwrap(), b"last words");
    tunnel.conn().send(b"still talking").unwrap();
    tunnel.conn().finish().unwrap();
    assert_eq!(backend.wait_for_body(1).data, b"still talking");
}

/// A side that vanishes takes the other with it.
#[test]
fn a_vanished_side_ends_the_tunnel() {
    let backend = Backend::upgrading("b");
    let (_redis, router) = stage(&backend);
    let mut tunnel = Tunnel::open(router.addr(), "a.test", "/");
    tunnel.echo(b"hello");
    backend.drop_connections();
    assert!(tunnel.is_closed());
    let mut tunnel = Tunnel::open(router.addr(), "a.test", "/");
    tunnel.echo(b"hello");
    drop(tunnel);
    backend.wait_for_open(0);
}

/// Bytes sent right behind the handshake, before the `101`, reach the backend (RFC 6455 clients do
/// not, others do).
#[test]
fn early_bytes_are_not_lost() {
    let backend = Backend::upgrading("b");
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{HANDSHAKE}\r\nEARLY"));
    assert_eq!(client.head().expect("a head").status(), 101);
    assert_eq!(client.conn().read_exact(5).unwrap(), b"EARLY");
}

/// The backend's first bytes may come in one packet with its `101`.
#[test]
fn bytes_right_behind_the_101_are_not_lost() {
    let backend = Backend::with("b", |exchange| {
        exchange.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nFIRST",
        )?;
        exchange.conn.read_to_end()?;
        Ok(Next::Close)
    });
    let (_redis, router) = stage(&backend);
    let mut tunnel = Tunnel::open(router.addr(), "a.test", "/");
    assert_eq!(tunnel.conn().read_exact(5).unwrap(), b"FIRST");
}

/// Any `Upgrade` is passed on, not only that to WebSocket.
#[test]
fn another_protocol_is_upgraded_to_as_well() {
    let backend = Backend::upgrading("b");
    let (_redis, router) = stage(&backend);
    let headers = "Connection: keep-alive, Upgrade\r\nUpgrade: tcp/2\r\n";
    let mut tunnel = Tunnel::open_with(router.addr(), "a.test", "/docker", headers);
    assert_eq!(tunnel.head.header("upgrade"), Some("tcp/2"));
    tunnel.echo(b"raw");
    assert_eq!(backend.requests()[0].head.header("upgrade"), Some("tcp/2"));
}

/// "h2c upgrade never passed": the backend would speak HTTP/2 past every rule.
#[test]
fn an_upgrade_to_http2_is_never_passed_on() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    for protocol in ["h2c", "H2C", "h2", "websocket, h2c", "h2c, websocket"] {
        let response = client.get_with(
            "a.test",
            "/",
            &format!(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
            ),
        );
        assert_eq!(response.status(), 200, "{protocol}");
    }
    for request in backend.requests() {
        for name in ["upgrade", "http2-settings"] {
            assert!(!request.head.has(name), "{name} was passed on: {:?}", request.head);
        }
    }
}

/// `Upgrade` without `Connection: upgrade` asks for nothing (RFC 9110 7.8).
#[test]
fn an_upgrade_that_connection_does_not_name_is_none() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    let response = Client::connect(router.addr()).get_with("a.test", "/", "Upgrade: websocket\r\n");
    assert_eq!(response.text(), "b");
    assert!(!backend.only_request().head.has("upgrade"));
}

/// An upgrade in HTTP/1.0 or with a body is ignored (RFC 9110 7.8), by the backend, too, which would
/// answer with a 101 that nobody can use.
#[test]
fn an_upgrade_that_is_ignored_is_not_passed_on() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    let handshake = format!("Host: a.test\r\nX-Kept: 1\r\n{HANDSHAKE}");
    for request in [
        format!("GET /ws HTTP/1.1\r\n{handshake}Content-Length: 7\r\n\r\ncontent"),
        format!(
            "GET /ws HTTP/1.1\r\n{handshake}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
        ),
        format!("GET /ws HTTP/1.0\r\n{handshake}\r\n"),
        format!("POST /ws HTTP/1.0\r\n{handshake}Content-Length: 1\r\n\r\nx"),
    ] {
        let response = Client::connect(router.addr()).send(&request).response();
        assert_eq!((response.status(), response.text().as_str()), (200, "b"), "{request}");
    }
    let requests = backend.requests();
    assert_eq!(requests.len(), 4);
    for request in requests {
        assert!(!request.head.has("upgrade"), "{:?}", request.head);
        assert!(!request.head.values("connection").contains(&"upgrade"), "{:?}", request.head);
        assert_eq!(request.head.values("x-kept"), ["1"]);
    }
}

/// A backend that does not switch answers like any other, and the client's connection stays HTTP.
#[test]
fn a_refused_upgrade_stays_http() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    for _ in 0..3 {
        assert_eq!(client.get_with("a.test", "/", HANDSHAKE).text(), "b");
    }
    assert_eq!(client.get("a.test", "/after").text(), "b");
    // What follows a refused handshake is a request, not a tunnel: it is routed by its own host.
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\n{HANDSHAKE}\r\nGET /smuggled HTTP/1.1\r\nHost: unknown.test\r\n\r\n"
    ));
    assert_eq!(client.response().status(), 200);
    assert_eq!(client.response().status(), 400);
}

/// "Without a backend Hipache leaves the client hanging. **Ours**: the error page."
#[test]
fn ours_an_upgrade_without_a_backend_gets_the_error_page() {
    let redis = Redis::start();
    let refusing = Reserved::new();
    redis.run(&["RPUSH", "frontend:empty.test", "id"]);
    redis.frontend("refusing.test", "id", &[&refusing.url()]);
    let router = Router::start(&redis);
    for (host, status) in [("unknown.test", 400), ("empty.test", 502), ("refusing.test", 502)] {
        let response = Client::connect(router.addr()).get_with(host, "/", HANDSHAKE);
        assert_eq!(response.status(), status, "{host}");
        assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    }
}

/// An upgrade is tried on another backend when connecting fails, and the dead one is marked like
/// for any request.
#[test]
fn an_upgrade_survives_a_backend_that_refuses() {
    let redis = Redis::start();
    let (refusing, backend) = (Reserved::new(), Backend::upgrading("b"));
    let router = Router::start(&redis);
    for number in 0..10 {
        let host = format!("{number}.test");
        redis.frontend(&host, "id", &[&refusing.url(), &backend.url()]);
        Tunnel::open(router.addr(), &host, "/").echo(b"hello");
    }
}

/// A `101` to another protocol than was asked for is no upgrade.
#[test]
fn a_101_to_another_protocol_is_refused() {
    let backend = Backend::answering_once(
        "b",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: smtp\r\n\r\n",
    );
    let (_redis, router) = stage(&backend);
    let response = Client::connect(router.addr()).get_with("a.test", "/", HANDSHAKE);
    assert_eq!(response.status(), 502);
}

/// Tunnels have an idle timeout of their own: `tunnelIdleTimeout` ends a silent tunnel,
/// `tcpTimeout` does not.
#[test]
fn a_tunnel_has_its_own_idle_timeout() {
    let backend = Backend::upgrading("b");
    let redis = Redis::start();
    redis.frontend("a.test", "id", &[&backend.url()]);
    let patient = Router::builder(&redis).set("server.tcpTimeout", 0.3).start();
    let mut quiet = Tunnel::open(patient.addr(), "a.test", "/");
    quiet.conn().set_limit(Some(Duration::from_millis(1200)));
    assert!(!quiet.is_closed(), "tcpTimeout ended a tunnel");
    quiet.echo(b"still there");

    let strict = Router::builder(&redis).set("server.tunnelIdleTimeout", 1).start();
    let mut talking = Tunnel::open(strict.addr(), "a.test", "/");
    let mut silent = Tunnel::open(strict.addr(), "a.test", "/");
    for _ in 0..4 {
        talking.conn().set_limit(Some(Duration::from_millis(400)));
        assert!(!talking.is_closed(), "a talking tunnel was ended");
        talking.echo(b"x");
    }
    assert!(silent.is_closed(), "a silent tunnel goes on");
}

/// Back-pressure: a tunnel whose reader stops does not fill the router's memory.
#[test]
fn a_tunnel_has_back_pressure() {
    const SIZE: u64 = 128 * 1024 * 1024;
    let backend = Backend::with("b", |exchange| {
        exchange.accept_upgrade()?;
        exchange.conn.set_limit(Some(Duration::from_secs(60)));
        exchange.conn.send_filling(SIZE)?;
        Ok(Next::Close)
    });
    let (_redis, router) = stage(&backend);
    let mut tunnel = Tunnel::open(router.addr(), "a.test", "/");
    tunnel.conn().skip(1024 * 1024).unwrap();
    let before = router.process().memory_kb("VmHWM");
    tunnel.conn().skip(SIZE - 1024 * 1024).unwrap();
    let after = router.process().memory_kb("VmHWM");
    assert!(after < before + 16 * 1024, "VmHWM grew from {before} to {after} kB");
}

/// Many tunnels at once, each with its own bytes.
#[test]
fn tunnels_do_not_mix() {
    let backend = Backend::upgrading("b");
    let (_redis, router) = stage(&backend);
    let mut tunnels: Vec<_> =
        (0..50).map(|number| (number, Tunnel::open(router.addr(), "a.test", "/"))).collect();
    for round in 0..3 {
        for (number, tunnel) in &mut tunnels {
            tunnel.conn().send(format!("{number}-{round};").as_bytes()).unwrap();
        }
        for (number, tunnel) in &mut tunnels {
            let expected = format!("{number}-{round};");
            let back = tunnel.conn().read_exact(expected.len()).unwrap();
            assert_eq!(back, expected.as_bytes());
        }
    }
}
