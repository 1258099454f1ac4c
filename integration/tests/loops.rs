//! Routers whose lists name each other: a request that goes round in a circle ends soon, for every protocol,
//! and nobody can use what it ends by against others.

use integration::backend::Backend;
use integration::client::Client;
use integration::http2;
use integration::redis::Redis;
use integration::router::{Router, stage};
use integration::websocket::HANDSHAKE;
use pretty_assertions::assert_eq;

/// Two routers, each of which has the other one for a backend, twice, so that a mark could be set.
fn circle() -> [(Redis, Router); 2] {
    let routers = [(); 2].map(|()| {
        let redis = Redis::start();
        let router = Router::builder(&redis).set("http.h2c", true).start();
        (redis, router)
    });
    for (index, (redis, _)) in routers.iter().enumerate() {
        let port = routers[1 - index].1.addr().port();
        let urls = [format!("http://127.0.0.1:{port}"), format!("http://localhost:{port}")];
        redis.frontend("a.test", "id", &[&urls[0], &urls[1]]);
    }
    routers
}

#[test]
fn a_request_that_goes_round_in_a_circle_ends_with_508() {
    let routers = circle();
    let router = &routers[0].1;
    let mut client = Client::connect(router.addr());
    for _ in 0..2 {
        assert_eq!(client.get("a.test", "/").status(), 508);
    }
    client.send(format!("GET /chat HTTP/1.1\r\nHost: a.test\r\n{HANDSHAKE}\r\n"));
    assert_eq!(client.head().expect("an answer").status(), 508);
    let multiplexed = http2::Client::connect(router.addr());
    assert_eq!(multiplexed.get("http://a.test/").status, 508);
    assert_eq!(multiplexed.websocket("http://a.test/chat").err(), Some(508));
    for (redis, router) in &routers {
        assert_eq!(redis.dead("a.test").len(), 0, "a client could cause it");
        // Five requests, each through nine routers and refused by the tenth.
        assert_eq!(router.access_log(25).len(), 25);
    }
    routers[1].1.wait_for_log(&["WARN", "508", "circle"]);
}

/// What a client says of its way is believed to its own disadvantage at most; what other proxies add is not
/// taken for it.
#[test]
fn what_a_client_says_of_its_way_concerns_only_itself() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    let via = format!("Via: {}\r\n", ["1.1 proxy"; 50].join(", "));
    let mut client = Client::connect(router.addr());
    for (headers, status, hops) in [
        ("", 200, None),
        (&via, 200, None),
        ("X-Router-Hops: many\r\n", 200, Some("1")),
        ("X-Forwarded-For: 1.1.1.1\r\n", 200, Some("1")),
        ("X-Router-Hops: 3\r\n", 200, Some("4")),
        ("X-Router-Hops: 2\r\nX-Router-Hops: 5, 1\r\n", 200, Some("6")),
        ("X-Router-Hops: 7\r\nConnection: x-router-hops\r\n", 200, Some("8")),
        ("X-Router-Hops: 8\r\n", 508, None),
        ("X-Router-Hops: 8\r\nConnection: x-router-hops\r\n", 508, None),
        ("X-Router-Hops: 99999999999\r\n", 508, None),
    ] {
        let before = backend.request_count();
        let response = client.get_with("a.test", "/", headers);
        assert_eq!(response.status(), status, "{headers}");
        let requests = backend.requests();
        let seen = requests.get(before).map(|request| request.head.values("x-router-hops"));
        let seen = seen.unwrap_or_default();
        assert!(
            seen.len() <= 1
                && seen.first().copied() == hops
                && (status == 508) == (before == requests.len()),
            "{headers} {seen:?}"
        );
    }
}

/// A client that has an inner router refuse its request takes that router off the air for nobody.
#[test]
fn a_508_of_a_backend_marks_nothing() {
    let inner = Backend::start("inner");
    let (_inner_redis, behind) = stage(&inner);
    let redis = Redis::start();
    let url = format!("http://{}", behind.addr());
    redis.frontend("a.test", "id", &[&url, &format!("http://localhost:{}", behind.addr().port())]);
    let outer = Router::start(&redis);
    let mut client = Client::connect(outer.addr());
    for _ in 0..10 {
        assert_eq!(client.get_with("a.test", "/", "X-Router-Hops: 7\r\n").status(), 508);
    }
    assert_eq!(client.get("a.test", "/").text(), "inner");
    assert_eq!(redis.dead("a.test").len(), 0);
}
