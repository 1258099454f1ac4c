//! Connections to backends: kept, lent and given up, and `server.maxSockets` and
//! `server.httpKeepAlive` of docs/hipache-contract.md 4.

use std::time::Duration;

use integration::backend::{Backend, Next};
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::gate::Gate;
use integration::http2::{END_HEADERS, END_STREAM, Raw, block, kind};
use integration::redis::Redis;
use integration::router::Router;
use pretty_assertions::assert_eq;

/// Keep-alive to the backend, shared by all clients of a worker. `server.httpKeepAlive`, **Ours**:
/// "true unless the file says false".
#[test]
fn ours_a_backend_connection_is_used_again() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    redis.frontend("b.test", "id", &[&format!("{}/another/path", backend.url())]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    for _ in 0..5 {
        client.get("a.test", "/");
        client.post("a.test", "/", "body");
    }
    for _ in 0..5 {
        get(router.addr(), "a.test", "/");
        get(router.addr(), "b.test", "/");
    }
    assert_eq!((backend.request_count(), backend.connections()), (20, 1));
}

/// `server.httpKeepAlive` false: a connection a request, and the backend is told.
#[test]
fn without_keep_alive_each_request_has_its_connection() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.httpKeepAlive", false).start();
    let mut client = Client::connect(router.addr());
    for _ in 0..5 {
        assert_eq!(client.get("a.test", "/").text(), "b");
    }
    assert_eq!(backend.connections(), 5);
    for request in backend.requests() {
        assert_eq!(request.head.values("connection"), ["close"]);
    }
    backend.wait_for_open(0);
}

/// A backend that says `Connection: close` is taken at its word, and its clients are not bothered.
#[test]
fn a_backend_may_close_after_each_answer() {
    let redis = Redis::start();
    let backend = Backend::with("b", |exchange| {
        exchange.read_body()?;
        exchange.respond(200, &[("Connection", "close")], b"b")?;
        Ok(Next::Close)
    });
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    for _ in 0..10 {
        let response = client.post("a.test", "/", "body");
        assert_eq!(response.text(), "b");
        assert_ne!(response.header("connection"), Some("close"));
    }
    assert_eq!(backend.connections(), 10);
}

/// A backend of HTTP/1.0 closes by default.
#[test]
fn a_backend_of_http_1_0_is_not_kept() {
    let redis = Redis::start();
    let backend = Backend::answering_once("b", "HTTP/1.0 200 OK\r\nX: 1\r\n\r\nold");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    for _ in 0..3 {
        let response = client.get("a.test", "/");
        assert_eq!(response.head.start_line, "HTTP/1.1 200 OK");
        assert_eq!(response.text(), "old");
    }
}

/// `server.maxSockets`: "open sockets per backend and worker; more requests wait".
#[test]
fn requests_beyond_max_sockets_wait_for_their_turn() {
    let redis = Redis::start();
    let gate = Gate::new();
    let backend = Backend::gated("b", &gate);
    let other = Backend::start("other");
    redis.frontend("a.test", "id", &[&backend.url()]);
    redis.frontend("other.test", "id", &[&other.url()]);
    let router = Router::builder(&redis).set("server.maxSockets", 2).start();
    let mut clients: Vec<_> = (0..6).map(|_| Client::connect(router.addr())).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    }
    backend.wait_for_requests(2);
    assert_eq!(
        get(router.addr(), "other.test", "/").text(),
        "other",
        "another backend has its own"
    );
    assert_eq!(backend.request_count(), 2, "the others wait");
    for released in 1..=4 {
        gate.release();
        backend.wait_for_requests(2 + released);
    }
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().text(), "b");
    }
    assert_eq!(backend.most_open_connections(), 2);
}

/// The wait for a turn is bounded: "maxSockets wait exceeded → 503", and the backend is not marked
/// for it.
#[test]
fn a_wait_that_takes_too_long_ends_with_503() {
    let redis = Redis::start();
    let backend = Backend::with("b", |exchange| {
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
        // Dribbles for longer than the wait: silence would end it for another reason.
        for _ in 0..100 {
            exchange.send(b"x")?;
            exchange.conn.set_limit(Some(Duration::from_millis(100)));
            if exchange.conn.read_some().is_ok() {
                break;
            }
        }
        Ok(Next::Close)
    });
    redis.frontend("a.test", "id", &[&backend.url(), &backend.url()]);
    let published = redis.subscribe("dead");
    let router =
        Router::builder(&redis).set("server.maxSockets", 1).set("server.tcpTimeout", 1).start();
    let mut first = Client::connect(router.addr());
    first.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(first.head().expect("a head").status(), 200);
    assert_eq!(get(router.addr(), "a.test", "/").status(), 503);
    redis.run(&["PUBLISH", "dead", "end"]);
    assert_eq!(published.next(), "end");
    assert_eq!(backend.request_count(), 1);
}

/// A client that goes away while it waits leaves its place.
#[test]
fn a_client_that_gives_up_leaves_the_queue() {
    let redis = Redis::start();
    let gate = Gate::new();
    let backend = Backend::gated("b", &gate);
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router =
        Router::builder(&redis).set("server.maxSockets", 1).set("server.cache", "off").start();
    let before = redis.calls("pttl");
    let mut first = Client::connect(router.addr());
    first.send("GET /first HTTP/1.1\r\nHost: a.test\r\n\r\n");
    backend.wait_for_requests(1);
    let mut leaver = Client::connect(router.addr());
    leaver.send("GET /leaver HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let mut last = Client::connect(router.addr());
    last.send("GET /last HTTP/1.1\r\nHost: a.test\r\n\r\n");
    // Each of them reads Redis before it waits for its turn.
    eventually(DEADLINE, "all three requests have begun", || redis.calls("pttl") == before + 3);
    drop(leaver);
    // The log line of the one that left says that the router has noticed.
    let lines = router.access_log(1);
    assert!(lines[0].contains("GET /leaver"), "{lines:?}");
    gate.open();
    assert_eq!(first.response().text(), "b");
    assert_eq!(last.response().text(), "b");
    let targets: Vec<_> =
        backend.requests().iter().map(|request| request.head.target().to_owned()).collect();
    assert_eq!(targets, ["/first", "/last"]);
}

/// A connection whose answer was not read to its end is not used again.
#[test]
fn a_connection_with_half_an_answer_is_not_used_again() {
    let redis = Redis::start();
    let backend = Backend::with("b", |exchange| {
        exchange.read_body()?;
        if exchange.head.target() == "/half" {
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf")?;
        } else {
            exchange.respond(200, &[], b"whole")?;
        }
        Ok(Next::KeepAlive)
    });
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    client.send("GET /half HTTP/1.1\r\nHost: a.test\r\n\r\n");
    client.head().expect("a head");
    client.conn().read_exact(4).unwrap();
    drop(client);
    backend.wait_for_open(0);
    assert_eq!(get(router.addr(), "a.test", "/").text(), "whole");
    assert_eq!(backend.connections(), 2);
}

/// Workers do not share connections, so two workers open at most two.
#[test]
fn each_worker_has_its_own_connections() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).workers(2).start();
    for _ in 0..50 {
        assert_eq!(get(router.addr(), "a.test", "/").text(), "b");
    }
    assert!((1..=2).contains(&backend.connections()), "{}", backend.connections());
}

/// The answer 500 of one request and the cut body of another leave the pool usable.
#[test]
fn failures_leave_the_pool_usable() {
    let redis = Redis::start();
    let backend = Backend::with("b", |exchange| {
        exchange.read_body()?;
        match exchange.head.target() {
            "/500" => exchange.respond(500, &[], b"sorry")?,
            "/cut" => {
                exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut")?;
                return Ok(Next::Close);
            }
            "/close" => return Ok(Next::Close),
            "/reset" => return Ok(Next::Reset),
            _ => exchange.respond(200, &[], b"fine")?,
        }
        Ok(Next::KeepAlive)
    });
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.maxSockets", 1).start();
    for target in ["/500", "/cut", "/close", "/reset"].iter().cycle().take(20) {
        let mut client = Client::connect(router.addr());
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ));
        // A cut answer may end with a reset; what came is not of interest here.
        drop(client.conn().read_to_end());
        assert_eq!(get(router.addr(), "a.test", "/").text(), "fine", "after {target}");
    }
}

/// A client that goes away takes its exchange with it, also when bytes of a next request stand
/// behind the one that is being answered: the backend's connection ends and its place is free.
#[test]
fn a_client_that_goes_away_ends_its_exchange() {
    for behind in ["", "G", "GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n"] {
        let redis = Redis::start();
        let backend = Backend::hanging("b");
        redis.frontend("a.test", "id", &[&backend.url()]);
        let router =
            Router::builder(&redis).set("server.maxSockets", 1).set("server.tcpTimeout", 0).start();
        let mut client = Client::connect(router.addr());
        client.send(format!("GET /first HTTP/1.1\r\nHost: a.test\r\n\r\n{behind}"));
        backend.wait_for_requests(1);
        drop(client);
        backend.wait_for_open(0);
    }
}

/// Turns spare a backend that works. Clients that neither read nor send cost it none: they would keep
/// everybody else from it.
#[test]
fn whoever_waits_for_its_own_client_gives_its_turn_up() {
    let redis = Redis::start();
    let backend = Backend::with("b", |exchange| {
        match (exchange.head.method(), exchange.head.target()) {
            ("POST", _) => drop(exchange.read_body()?),
            (_, "/huge") => {
                exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")?;
                exchange.conn.set_limit(None);
                exchange.send(&vec![b'x'; 100_000_000])?;
            }
            _ => exchange.respond(200, &[], b"b")?,
        }
        Ok(Next::KeepAlive)
    });
    redis.frontend("a.test", "id", &[&backend.url()]);
    // Nobody's time ends: a turn has to be given up.
    let router = Router::builder(&redis)
        .set("server.maxSockets", 2)
        .set("server.tcpTimeout", 0)
        .set("server.minBodyRate", 0)
        .set("http.h2c", true)
        .start();
    let mut held = Vec::new();
    for opening in [
        "GET /huge HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\nx",
    ] {
        let mut client = Client::connect(router.addr());
        client.send(opening);
        held.push(client);
    }
    backend.wait_for_requests(2);
    assert_eq!(get(router.addr(), "a.test", "/").text(), "b");
    // Streams of HTTP/2 that give no room.
    let mut streams = Raw::connect(router.addr(), &[(4, 0)]);
    let huge = block(&[
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"a.test"),
        (b":path", b"/huge"),
    ]);
    for stream in [1, 3, 5] {
        streams.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &huge).unwrap();
    }
    // The third of them gets its turn from one of the others, too.
    backend.wait_for_requests(6);
    assert_eq!(get(router.addr(), "a.test", "/").text(), "b");
}
