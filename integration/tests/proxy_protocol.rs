//! The PROXY protocol (`http.proxyProtocol`): a trusted balancer says whose connection it passes on.

use integration::backend::Backend;
use integration::client::Client;
use integration::redis::Redis;
use integration::router::{Builder, Router};
use pretty_assertions::assert_eq;
use serde_json::json;

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";

/// A header of version 2 with this command, family and variable part.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

fn stage(configure: impl FnOnce(Builder) -> Builder) -> (Redis, Backend, Router) {
    let (redis, backend) = (Redis::start(), Backend::start("b"));
    redis.frontend("a.test", "id", &[&backend.url()]);
    let builder = Router::builder(&redis)
        .set("http.proxyProtocol", true)
        .set("server.plainIPv4", true)
        .set("server.trustedProxies", json!(["127.0.0.0/8"]));
    let router = configure(builder).start();
    (redis, backend, router)
}

#[test]
fn the_client_and_its_port_are_those_of_the_header() {
    let (_redis, backend, router) = stage(|builder| builder);
    let own = router.addr().port().to_string();
    let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0, 80, 1, 187];
    let mut v6 = [0; 36];
    (v6[0], v6[1], v6[15], v6[31], v6[35]) = (0x20, 1, 7, 1, 80);
    let extended = [&v4[..], &[0x04, 0, 2, 1, 2], &[0x20, 0, 1, 7]].concat();
    let cases: [(Vec<u8>, &str, &str); 9] = [
        (V1.to_vec(), "192.0.2.7", "443"),
        (b"PROXY TCP6 2001::7 2001::1 1 80\r\n".to_vec(), "2001::7", "80"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1", &own),
        (b"PROXY UNKNOWN 1.2.3.4 whatever\r\n".to_vec(), "127.0.0.1", &own),
        (v2(0x21, 0x11, &v4), "192.0.2.7", "443"),
        (v2(0x21, 0x11, &extended), "192.0.2.7", "443"),
        (v2(0x21, 0x21, &v6), "2001::7", "80"),
        (v2(0x20, 0x00, &[]), "127.0.0.1", &own),
        (v2(0x21, 0x31, &[0; 216]), "127.0.0.1", &own),
    ];
    for (count, (header, client, port)) in cases.into_iter().enumerate() {
        // Together in one write, and in two: both ways there is one request, the header's own.
        let mut connection = Client::connect(router.addr());
        let (first, second) = header.split_at(if count % 2 == 0 { header.len() } else { 13 });
        connection.send(first).send([second, GET.as_bytes()].concat());
        assert_eq!(connection.response().status(), 200, "{header:?}");
        assert_eq!(connection.get("a.test", "/").status(), 200, "it counts for every request");
        for request in backend.requests().iter().skip(2 * count) {
            assert_eq!(request.head.values("x-forwarded-for"), [client], "{header:?}");
            assert_eq!(request.head.values("x-forwarded-port"), [port], "{header:?}");
        }
    }
    assert!(router.access_log(1)[0].starts_with("::ffff:192.0.2.7 "));
}

/// The balancer is trusted, the client behind it is not.
#[test]
fn headers_of_the_client_behind_a_trusted_balancer_are_not_believed() {
    let (_redis, backend, router) = stage(|builder| builder);
    let spoofed = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    let mut client = Client::connect(router.addr());
    client.send([V1, spoofed.as_bytes()].concat()).response();
    assert_eq!(backend.only_request().head.values("x-forwarded-for"), ["192.0.2.7"]);
}

/// `allow` of the host's options judges the client, too.
#[test]
fn the_client_of_the_header_is_the_one_that_is_allowed() {
    let (redis, _backend, router) = stage(|builder| builder);
    let status = || {
        let mut client = Client::connect(router.addr());
        client.send([V1, GET.as_bytes()].concat()).response().status()
    };
    for (allowed, expected) in [("127.0.0.0/8", 403), ("192.0.2.0/24", 200)] {
        redis.run(&["HSET", "options:a.test", "allow", allowed]);
        assert_eq!(status(), expected, "{allowed}");
    }
}

#[test]
fn a_connection_without_a_usable_header_is_closed_unanswered() {
    let (_redis, backend, router) = stage(|builder| builder);
    let endless = [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat();
    for start in [
        GET.as_bytes().to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n".to_vec(),
        b"PROXY TCP9 192.0.2.7 198.51.100.1 4711 443\r\n".to_vec(),
        endless,
        v2(0x21, 0x11, &[0; 5]),
        v2(0x22, 0x11, &[0; 12]),
        v2(0x21, 0x11, &[0; 5000]),
    ] {
        let mut client = Client::connect(router.addr());
        client.send([&start, GET.as_bytes()].concat());
        assert!(client.is_closed(), "{start:?}");
    }
    assert_eq!(backend.request_count(), 0);
    router.wait_for_log(&["WARN", "connection closed", "does not begin with a PROXY header"]);
    let lines = router.log().matches("connection closed").count();
    assert_eq!(lines, 1, "said now and then only: {}", router.log());
    let lines = router.access_log(8);
    assert!(
        lines.len() == 8 && lines.iter().all(|line| line.contains("\"-\" 400 0 ")),
        "{lines:?}"
    );
    let mut good = Client::connect(router.addr());
    assert_eq!(good.send([V1, GET.as_bytes()].concat()).response().status(), 200);
}

#[test]
fn nobody_else_may_send_one() {
    let trust = |builder: Builder| builder.set("server.trustedProxies", json!(["192.0.2.0/24"]));
    let (_redis, backend, router) = stage(trust);
    let mut client = Client::connect(router.addr());
    client.send([V1, GET.as_bytes()].concat());
    assert!(client.is_closed());
    assert_eq!(backend.request_count(), 0);
    router.wait_for_log(&["WARN", "connection closed", "server.trustedProxies"]);
    let lines = router.access_log(1);
    assert!(
        lines[0].starts_with("::ffff:127.0.0.1 ") && lines[0].contains("\"-\" 403 0 "),
        "{lines:?}"
    );
}

/// Where nobody asked for it, it is no HTTP.
#[test]
fn each_address_has_its_own_setting() {
    let binds = json!([
        {"address": "127.0.0.1", "proxyProtocol": true},
        {"address": "127.0.0.2"},
    ]);
    let (_redis, _backend, router) =
        stage(|builder| builder.set("http.bind", binds).set("http.proxyProtocol", false));
    let with_header = [V1, GET.as_bytes()].concat();
    for addr in router.addrs() {
        let wants = addr.ip().to_string() == "127.0.0.1";
        let status = Client::connect(addr).send(&with_header).head().map(|head| head.status());
        assert_eq!(status, Some(if wants { 200 } else { 400 }), "{addr}");
        let mut plain = Client::connect(addr);
        plain.send(GET);
        assert_eq!(plain.head().map(|head| head.status()), (!wants).then_some(200), "{addr}");
    }
}

#[test]
fn it_needs_somebody_to_trust() {
    let redis = Redis::start();
    for (builder, key) in [
        (Router::builder(&redis).set("http.proxyProtocol", true), "http.proxyProtocol"),
        (Router::builder(&redis).arg("--proxy-protocol"), "--proxy-protocol"),
    ] {
        let ended = builder.run();
        assert_eq!(ended.code, Some(78));
        assert!(ended.stderr.contains(key), "{}", ended.stderr);
        assert!(ended.stderr.contains("server.trustedProxies only"), "{}", ended.stderr);
    }
}

/// The health check of the image speaks it as well.
#[test]
fn the_health_check_sends_a_header_where_one_is_expected() {
    let (redis, _backend, router) = stage(|builder| builder);
    let port = router.addr().port().to_string();
    let check = |is_spoken: bool| {
        let builder = Router::builder(&redis)
            .set("http.port", port.parse::<u16>().expect("a port"))
            .set("http.proxyProtocol", is_spoken)
            .set("server.trustedProxies", json!(["127.0.0.0/8"]));
        builder.arg("healthcheck").run().code
    };
    assert_eq!((check(true), check(false)), (Some(0), Some(1)));
}
