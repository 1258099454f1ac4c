//! Redis away, late, frozen or wrong. A router is never worse off than its last knowledge, and never
//! keeps a client waiting for a store that does not answer.

use std::time::Duration;

use integration::backend::Backend;
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::redis::Redis;
use integration::router::Router;
use pretty_assertions::assert_eq;

/// "Starts with Redis down, says so plainly, and heals."
#[test]
fn starts_without_redis_and_heals() {
    let redis = Redis::down();
    let backend = Backend::start("b");
    let router = Router::start(&redis);
    router.wait_for_log(&["WARN", "Redis"]);
    router.wait_for_log(&[&redis.port().to_string()]);
    assert_eq!(get(router.addr(), "a.test", "/").status(), 503);
    assert_eq!(get(router.addr(), "__ping__", "/").status(), 200);
    redis.launch();
    redis.frontend("a.test", "id", &[&backend.url()]);
    eventually(DEADLINE, "routes are read", || get(router.addr(), "a.test", "/").status() == 200);
    router.wait_for_log(&["INFO", "Redis"]);
}

/// "Store unreachable and host unknown: 503", with the error page; "known hosts go on from the last
/// known table".
#[test]
fn known_hosts_go_on_while_redis_is_away() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    redis.frontend("unseen.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    assert_eq!(client.get("a.test", "/").text(), "b");
    redis.kill();
    for _ in 0..10 {
        assert_eq!(client.get("a.test", "/").text(), "b");
    }
    let response = client.get_with("unseen.test", "/", "X-Debug: 1\r\n");
    assert_eq!(response.status(), 503);
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    assert!(response.head.has("x-debug-error"));
    router.wait_for_log(&["WARN", "Redis"]);
    redis.launch();
    redis.frontend("unseen.test", "id", &[&backend.url()]);
    eventually(DEADLINE, "new routes are read", || client.get("unseen.test", "/").status() == 200);
    eventually(DEADLINE, "an empty Redis counts, too", || {
        client.get("a.test", "/").status() == 400
    });
}

/// An outage is said once, not for every request.
#[test]
fn an_outage_does_not_fill_the_log() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    client.get("a.test", "/");
    redis.kill();
    for _ in 0..200 {
        client.get("a.test", "/");
        client.get("unknown.test", "/");
    }
    let lines = router.log().lines().count();
    assert!(lines < 30, "{lines} lines of log:\n{}", router.log());
}

/// A frozen Redis (the connection stays, nothing is answered) costs a bounded wait, not a hang.
#[test]
fn a_frozen_redis_keeps_nobody_waiting() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    assert_eq!(get(router.addr(), "a.test", "/").text(), "b");
    redis.pause();
    let mut clients: Vec<_> = (0..20)
        .map(|_| Client::connect(router.addr()).patient_for(Duration::from_secs(5)))
        .collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let host = if number % 2 == 0 { "a.test" } else { "unknown.test" };
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let expected = if number % 2 == 0 { 200 } else { 503 };
        assert_eq!(client.response().status(), expected);
    }
    redis.resume();
    redis.frontend("new.test", "id", &[&backend.url()]);
    eventually(DEADLINE, "new routes are read", || {
        get(router.addr(), "new.test", "/").status() == 200
    });
}

/// Redis restarted again and again: every request is answered, and the router ends up with the
/// truth.
#[test]
fn a_flapping_redis_is_followed() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    assert_eq!(client.get("a.test", "/").text(), "b");
    for _ in 0..4 {
        redis.kill();
        assert_eq!(client.get("a.test", "/").text(), "b");
        redis.launch();
        redis.frontend("a.test", "id", &[&backend.url()]);
    }
    redis.run(&["DEL", "frontend:a.test"]);
    eventually(DEADLINE, "the deletion counts", || client.get("a.test", "/").status() == 400);
}

/// A wrong password: said plainly, without the password, and 503 until it is right.
#[test]
fn a_wrong_password_is_said_plainly() {
    let redis = Redis::with_password("right");
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let driver = format!("redis://:wrong-one@127.0.0.1:{}", redis.port());
    let router = Router::builder(&redis).set("driver", driver).start();
    assert_eq!(get(router.addr(), "a.test", "/").status(), 503);
    router.wait_for_log(&["WARN", "it refuses the password"]);
    assert!(!router.log().contains("wrong-one"), "{}", router.log());
    redis.run(&["CONFIG", "SET", "requirepass", "wrong-one"]);
    eventually(DEADLINE, "the password is right now", || {
        get(router.addr(), "a.test", "/").status() == 200
    });
}

/// A primary that is away costs marks, not requests: reading goes on from the replica.
#[test]
fn a_lost_primary_costs_no_request() {
    let (replica, primary) = (Redis::start(), Redis::down());
    let backend = Backend::start("b");
    let refusing = integration::ports::Reserved::new();
    replica.frontend("a.test", "id", &[&refusing.url(), &backend.url()]);
    let router = Router::builder(&replica)
        .set("driver", serde_json::json!([replica.url(), primary.url()]))
        .set("server.deadBackendTTL", 1)
        .start();
    let mut client = Client::connect(router.addr());
    for _ in 0..20 {
        assert_eq!(client.get("a.test", "/").text(), "b");
    }
    primary.launch();
    eventually(DEADLINE, "marks are written again", || {
        assert_eq!(client.get("a.test", "/").text(), "b");
        primary.dead("a.test").contains("0")
    });
}

/// Dead marks count inside the router even while they cannot be written: a refusing backend is not
/// tried for ever.
#[test]
fn a_redis_that_is_down_does_not_end_the_routing_around_dead_backends() {
    let redis = Redis::start();
    let (flaky, good) = (Backend::start("flaky"), Backend::start("good"));
    redis.frontend("a.test", "id", &[&flaky.url(), &good.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    client.get("a.test", "/");
    redis.kill();
    flaky.kill();
    for _ in 0..20 {
        assert_eq!(client.get("a.test", "/").text(), "good");
    }
}
