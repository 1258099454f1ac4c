//! What is tried again and what is not: a connection that is refused or takes too long
//! (docs/hipache-contract.md 2), and the rule that nothing which may have been executed is sent twice
//! (RFC 9110 section 9.2.2).

use std::time::Duration;

use integration::backend::{Backend, Next};
use integration::client::{Client, debug_get, get};
use integration::ports::{Blackhole, Reserved};
use integration::redis::Redis;
use integration::router::Router;
use pretty_assertions::assert_eq;
use serde_json::json;

/// Section 2: "mark dead (if > 1 backend), try again with a fresh pick".
#[test]
fn a_request_survives_backends_that_refuse() {
    let redis = Redis::start();
    let (first, second) = (Reserved::new(), Reserved::new());
    let good = Backend::start("good");
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    for number in 0..20 {
        // Another host each time, so that no mark helps.
        let host = format!("{number}.test");
        redis.frontend(&host, "id", &[&first.url(), &second.url(), &good.url()]);
        assert_eq!(client.get(&host, "/").text(), "good", "{host}");
    }
    assert_eq!(client.post("0.test", "/", "body").text(), "good");
}

/// Section 2: a body is no obstacle while no backend has seen any of it.
#[test]
fn a_post_survives_backends_that_refuse() {
    let redis = Redis::start();
    let refusing = Reserved::new();
    let good = Backend::start("good");
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    for number in 0..10 {
        let host = format!("{number}.test");
        redis.frontend(&host, "id", &[&refusing.url(), &refusing.url(), &good.url()]);
        assert_eq!(client.post(&host, "/", "body").text(), "good", "{host}");
    }
    for request in good.requests() {
        assert_eq!(request.body.expect("read").data, b"body");
    }
}

/// Section 2: "up to `retryOnError` times; then 502", and `x-debug-error` `Reached max retries
/// limit`.
#[test]
fn retries_end_at_the_configured_number() {
    let redis = Redis::start();
    let refusing: Vec<_> = (0..5).map(|_| Reserved::new()).collect();
    let urls: Vec<_> = refusing.iter().map(Reserved::url).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    redis.frontend("a.test", "id", &urls);
    let published = redis.subscribe("dead");
    let router = Router::builder(&redis).set("server.retryOnError", 2).start();
    let response = debug_get(router.addr(), "a.test", "/");
    assert_eq!(response.status(), 502);
    assert_eq!(response.header("x-debug-error"), Some("Reached max retries limit"));
    // Each attempt marks the backend that refused: the first one and two retries, each with a fresh
    // pick.
    let mut positions: Vec<_> = (0..3)
        .map(|_| published.next().split(';').nth(2).map(str::to_owned).expect("a position"))
        .collect();
    positions.sort();
    positions.dedup();
    assert_eq!(positions.len(), 3);
    redis.run(&["PUBLISH", "dead", "end"]);
    assert_eq!(published.next(), "end");
}

/// Section 4, `server.retryOnError`: "0 or false = no retry", and `x-debug-error` `Retry on error
/// is disabled`.
#[test]
fn without_retries_one_failure_is_the_answer() {
    for none in [json!(0), json!(false)] {
        let redis = Redis::start();
        let (first, second) = (Reserved::new(), Reserved::new());
        redis.frontend("a.test", "id", &[&first.url(), &second.url()]);
        let published = redis.subscribe("dead");
        let router = Router::builder(&redis).set("server.retryOnError", none.clone()).start();
        let response = debug_get(router.addr(), "a.test", "/");
        assert_eq!(response.status(), 502);
        assert_eq!(response.header("x-debug-error"), Some("Retry on error is disabled"), "{none}");
        published.next();
        redis.run(&["PUBLISH", "dead", "end"]);
        assert_eq!(published.next(), "end", "{none}");
    }
}

/// **Ours**: further attempts at the only backend wait a little, longer each time, so that one that is just
/// being restarted gets a chance. Pauses have a least length, so this cannot fail by chance.
#[test]
fn ours_attempts_at_the_same_backend_have_pauses_between_them() {
    let redis = Redis::start();
    let refusing = Reserved::new();
    redis.frontend("a.test", "id", &[&refusing.url()]);
    let router = Router::start(&redis);
    let started = tokio::time::Instant::now();
    assert_eq!(get(router.addr(), "a.test", "/").status(), 502);
    assert!(started.elapsed() >= Duration::from_millis(25 + 50 + 100), "{:?}", started.elapsed());
}

/// Section 2: once every backend has failed there is nothing left to try.
#[test]
fn no_backend_is_tried_twice_for_one_request() {
    let redis = Redis::start();
    let (first, second) = (Reserved::new(), Reserved::new());
    redis.frontend("a.test", "id", &[&first.url(), &second.url()]);
    let published = redis.subscribe("dead");
    let router = Router::builder(&redis).set("server.retryOnError", 50).start();
    assert_eq!(get(router.addr(), "a.test", "/").status(), 502);
    published.next();
    published.next();
    redis.run(&["PUBLISH", "dead", "end"]);
    assert_eq!(published.next(), "end");
}

/// Section 2: "connecting … timed out: … try again", in `connectTimeout` seconds and not the
/// kernel's minutes.
#[test]
fn a_backend_that_cannot_be_reached_costs_its_connect_timeout() {
    let redis = Redis::start();
    let (blackhole, good) = (Blackhole::new(), Backend::start("good"));
    let router = Router::builder(&redis).set("server.connectTimeout", 0.3).start();
    let mut client = Client::connect(router.addr());
    for number in 0..8 {
        let host = format!("{number}.test");
        redis.frontend(&host, "id", &[&blackhole.url(), &good.url()]);
        assert_eq!(client.get(&host, "/").text(), "good", "{host}");
    }
    redis.frontend("alone.test", "id", &[&blackhole.url()]);
    assert_eq!(client.get("alone.test", "/").status(), 502);
}

/// A request that a backend has read is never sent to another, whatever its method: "502", one
/// attempt.
#[test]
fn a_request_that_reached_a_backend_is_not_tried_elsewhere() {
    let redis = Redis::start();
    let backends = [Backend::closing("1"), Backend::closing("2"), Backend::closing("3")];
    let urls = backends.each_ref().map(Backend::url);
    redis.frontend("a.test", "id", &urls.each_ref().map(String::as_str));
    let router = Router::start(&redis);
    for (number, request) in [
        "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "DELETE / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody",
        "PATCH / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        let mut client = Client::connect(router.addr());
        assert_eq!(client.send(request).response().status(), 502, "{request}");
        let seen: usize = backends.iter().map(Backend::request_count).sum();
        assert_eq!(seen, number + 1, "{request}");
    }
}

/// A backend that answers the first request of a connection and closes at the second.
fn forgetful(name: &str) -> Backend {
    let body = name.to_owned();
    Backend::with(name, move |exchange| {
        exchange.read_body()?;
        if exchange.nth > 0 {
            return Ok(Next::Close);
        }
        exchange.respond(200, &[], body.as_bytes())?;
        Ok(Next::KeepAlive)
    })
}

/// A reused connection that dies before a byte of the answer: an idempotent request without a body
/// is sent again on a fresh one, to the same backend, which is not marked.
#[test]
fn a_get_on_a_connection_gone_stale_is_sent_again() {
    let redis = Redis::start();
    let backend = forgetful("b");
    redis.frontend("a.test", "id", &[&backend.url(), &backend.url()]);
    let published = redis.subscribe("dead");
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    for _ in 0..4 {
        assert_eq!(client.get("a.test", "/").text(), "b");
    }
    assert!(backend.request_count() > 4, "no connection was used again");
    redis.run(&["PUBLISH", "dead", "end"]);
    assert_eq!(published.next(), "end", "a stale connection says nothing about the backend");
}

/// "POST never replayed": the same with a method that is not idempotent, with and without a body,
/// and with a body.
#[test]
fn a_post_on_a_connection_gone_stale_is_not_sent_again() {
    for request in [
        "POST /second HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody",
        "POST /second HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n",
        "PATCH /second HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "PUT /second HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody",
    ] {
        let redis = Redis::start();
        let backend = forgetful("b");
        redis.frontend("a.test", "id", &[&backend.url()]);
        let router = Router::start(&redis);
        let mut client = Client::connect(router.addr());
        assert_eq!(client.get("a.test", "/first").text(), "b");
        assert_eq!(client.send(request).response().status(), 502, "{request}");
        let targets: Vec<_> =
            backend.requests().iter().map(|seen| seen.head.target().to_owned()).collect();
        assert_eq!(targets, ["/first", "/second"], "{request}");
    }
}

/// "Stale-connection detection": a connection that the backend has closed while it was idle is not
/// used, so even a `POST` goes through.
#[test]
fn a_connection_closed_while_idle_harms_nobody() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    for number in 1..=10 {
        assert_eq!(client.post("a.test", "/", "body").text(), "b");
        assert_eq!(backend.connections(), number);
        backend.drop_connections();
        backend.wait_for_open(0);
    }
}

/// A backend that was restarted: every idle connection is stale at once, and no request is lost.
#[test]
fn a_restarted_backend_costs_no_request() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut clients: Vec<_> = (0..8).map(|_| Client::connect(router.addr())).collect();
    for _ in 0..3 {
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.response().text(), "b");
        }
        backend.kill();
        backend.wait_for_open(0);
        backend.revive();
    }
}

/// A backend that refuses an upload: its answer reaches the client although the body was not read,
/// and nothing is retried.
#[test]
fn an_answer_before_the_body_is_no_reason_to_retry() {
    let redis = Redis::start();
    let rejecting = Backend::with("rejecting", |exchange| {
        exchange.respond(413, &[("Connection", "close")], b"too large")?;
        Ok(Next::Close)
    });
    redis.frontend("a.test", "id", &[&rejecting.url(), &rejecting.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr()).patient_for(Duration::from_secs(10));
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\nstart");
    let response = client.response();
    assert_eq!((response.status(), response.text().as_str()), (413, "too large"));
    assert_eq!(rejecting.request_count(), 1);
}
