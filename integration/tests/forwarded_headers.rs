//! What a backend sees of a request, and a client of a response: the headers in
//! docs/hipache-contract.md 2.

use std::net::SocketAddr;

use integration::backend::Backend;
use integration::client::{Client, get};
use integration::redis::Redis;
use integration::router::{Builder, Router};
use integration::websocket::{HANDSHAKE, Tunnel};
use integration::wire::Head;
use pretty_assertions::assert_eq;
use serde_json::json;

const FORWARDED: [&str; 5] = [
    "x-forwarded-for",
    "x-real-ip",
    "x-forwarded-protocol",
    "x-forwarded-proto",
    "x-forwarded-port",
];

/// The head that the backend sees for a `GET` with these header lines.
fn seen(configure: impl FnOnce(Builder) -> Builder, headers: &str) -> (Head, SocketAddr) {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = configure(Router::builder(&redis)).start();
    Client::connect(router.addr()).get_with("a.test", "/", headers);
    (backend.only_request().head, router.addr())
}

fn forwarded(head: &Head) -> [Vec<&str>; 5] {
    FORWARDED.map(|name| head.values(name))
}

/// "`X-Forwarded-For` and `X-Real-IP`: the client's address, an IPv4 one written `::ffff:1.2.3.4`;
/// `X-Forwarded-Protocol` and `X-Forwarded-Proto`: `http`"; `X-Forwarded-Port`, **Ours**: "the port
/// that the client connected to".
#[test]
fn ours_the_backend_learns_who_the_client_is() {
    let (head, addr) = seen(|builder| builder, "");
    let port = addr.port().to_string();
    let expected = ["::ffff:127.0.0.1", "::ffff:127.0.0.1", "http", "http", &port];
    assert_eq!(forwarded(&head), expected.map(|value| vec![value]));
}

/// "Each only if the client did not send it": what the client sent is kept as it is.
#[test]
fn forwarded_headers_of_the_client_are_kept() {
    let (head, _) = seen(
        |builder| builder,
        "X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nX-Real-IP: 3.3.3.3\r\nX-Forwarded-Protocol: https\r\n\
         X-Forwarded-Proto: wss\r\nX-Forwarded-Port: 4444\r\n",
    );
    let expected = ["1.1.1.1, 2.2.2.2", "3.3.3.3", "https", "wss", "4444"];
    assert_eq!(forwarded(&head), expected.map(|value| vec![value]));
    let (head, _) = seen(|builder| builder, "X-Real-IP: 3.3.3.3\r\n");
    assert_eq!(head.values("x-real-ip"), ["3.3.3.3"]);
    assert_eq!(head.values("x-forwarded-for"), ["::ffff:127.0.0.1"], "each for itself");
}

/// An IPv6 client is written as it is.
#[test]
fn an_ipv6_client_is_written_as_it_is() {
    let (head, addr) = seen(|builder| builder.set("http.bind", json!(["::1"])), "");
    let port = addr.port().to_string();
    assert_eq!(forwarded(&head), ["::1", "::1", "http", "http", &port].map(|value| vec![value]));
}

/// "WebSocket requests got none of them. **Ours**: they do."
#[test]
fn ours_a_websocket_request_carries_them_too() {
    let redis = Redis::start();
    let backend = Backend::upgrading("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    Tunnel::open(router.addr(), "a.test", "/chat").finish();
    let head = backend.only_request().head;
    let port = router.addr().port().to_string();
    let expected = ["::ffff:127.0.0.1", "::ffff:127.0.0.1", "http", "http", &port];
    assert_eq!(forwarded(&head), expected.map(|value| vec![value]));
    for line in HANDSHAKE.lines() {
        let (name, value) = line.split_once(": ").expect("a header");
        let seen = head.header(name).expect(name);
        assert!(seen.eq_ignore_ascii_case(value), "{name}: {seen}");
    }
}

/// **Ours**: "plain IPv4 addresses without `::ffff:`", behind a setting.
#[test]
fn ours_addresses_may_be_plain() {
    for configure in [
        (|builder: Builder| builder.set("server.plainIPv4", true)) as fn(Builder) -> Builder,
        |builder| builder.arg("--plain-ipv4"),
        |builder| builder.env("ROUTER_PLAIN_IPV4", "true"),
    ] {
        let (head, _) = seen(configure, "");
        assert_eq!(head.values("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(head.values("x-real-ip"), ["127.0.0.1"]);
    }
}

const SPOOFED: &str = "X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
     X-Forwarded-Protocol: https\r\nX-Forwarded-Port: 443\r\n";

/// **Ours**: "`trustedProxies` (CIDR list) appends to the forwarded headers of trusted peers".
#[test]
fn ours_a_trusted_peer_is_appended_to() {
    let trust = |builder: Builder| {
        builder.set("server.trustedProxies", json!(["10.0.0.0/8", "127.0.0.0/8"]))
    };
    let (head, _) = seen(trust, SPOOFED);
    let expected = ["6.6.6.6, ::ffff:127.0.0.1", "6.6.6.6", "https", "https", "443"];
    assert_eq!(forwarded(&head), expected.map(|value| vec![value]));
    let (head, _) = seen(trust, "X-Forwarded-For: 5.5.5.5\r\nX-Forwarded-For: 6.6.6.6\r\n");
    assert_eq!(head.values("x-forwarded-for").join(", "), "5.5.5.5, 6.6.6.6, ::ffff:127.0.0.1");
}

/// **Ours**: "and overwrites them for everyone else".
#[test]
fn ours_everyone_else_is_overwritten() {
    let (head, addr) =
        seen(|builder| builder.arg("--trusted-proxies").arg("10.0.0.0/8,192.0.2.1"), SPOOFED);
    let port = addr.port().to_string();
    let expected = ["::ffff:127.0.0.1", "::ffff:127.0.0.1", "http", "http", &port];
    assert_eq!(forwarded(&head), expected.map(|value| vec![value]));
}

/// Whatever else is forwarded by name, which many frameworks make links, redirects and cookies of, is
/// nobody's who is not believed.
#[test]
fn no_forwarded_header_of_an_untrusted_peer_reaches_the_backend() {
    let names = ["host", "ssl", "scheme", "server", "prefix", "uri"];
    let sent: String = names.map(|name| format!("X-Forwarded-{name}: evil\r\n")).concat();
    for (networks, is_kept) in [("127.0.0.0/8", true), ("10.0.0.0/8", false)] {
        let trust = |builder: Builder| builder.set("server.trustedProxies", json!([networks]));
        let (head, _) = seen(trust, &sent);
        for name in names {
            assert_eq!(head.has(&format!("x-forwarded-{name}")), is_kept, "{name}: {head:?}");
        }
    }
    let (head, _) = seen(|builder| builder, &sent);
    assert_eq!(head.values("x-forwarded-host"), ["evil"], "as Hipache does");
}

/// **Ours**: where a trusted proxy names the client in `X-Forwarded-For` only, that is the client, also
/// in the access log.
#[test]
fn ours_the_client_behind_trusted_proxies_is_the_last_address_that_is_not_theirs() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).arg("--trusted-proxies=127.0.0.0/8,10.0.0.0/8").start();
    let chain = "X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.0.0.9\r\n";
    Client::connect(router.addr()).get_with("a.test", "/", chain);
    let head = backend.only_request().head;
    assert_eq!(head.values("x-real-ip"), ["::ffff:192.0.2.7"]);
    assert!(router.access_log(1)[0].starts_with("::ffff:192.0.2.7 "));
}

/// **Ours**, behind a setting: `Forwarded` (RFC 7239), believed from trusted proxies alone.
#[test]
fn ours_forwarded_is_written_and_believed_from_trusted_proxies() {
    let sent = "Forwarded: for=192.0.2.7;proto=https\r\n";
    let (head, _) = seen(|builder| builder, sent);
    assert_eq!(head.values("forwarded"), ["for=192.0.2.7;proto=https"], "off: passed on as it is");
    let (head, _) = seen(|builder| builder.arg("--forwarded"), "");
    assert_eq!(head.values("forwarded"), ["for=127.0.0.1;proto=http;host=a.test"]);
    let trusting = |networks: &'static str| {
        move |builder: Builder| {
            builder.set("server.forwarded", true).set("server.trustedProxies", json!([networks]))
        }
    };
    let (head, _) = seen(trusting("127.0.0.0/8"), sent);
    let expected = "for=192.0.2.7;proto=https, for=127.0.0.1;proto=http;host=a.test";
    assert_eq!(head.values("forwarded"), [expected]);
    assert_eq!(head.values("x-forwarded-for"), ["::ffff:192.0.2.7, ::ffff:127.0.0.1"]);
    assert_eq!(head.values("x-real-ip"), ["::ffff:192.0.2.7"]);
    assert_eq!(head.values("x-forwarded-proto"), ["https"]);
    // What the client claimed before its proxy added the truth is no evidence.
    let forged = "Forwarded: for=6.6.6.6;proto=https, for=203.0.113.9;proto=http\r\n";
    let (head, _) = seen(trusting("127.0.0.0/8"), forged);
    assert_eq!(head.values("x-real-ip"), ["::ffff:203.0.113.9"]);
    assert_eq!(head.values("x-forwarded-proto"), ["http"]);
    let (head, _) = seen(trusting("10.0.0.0/8"), sent);
    assert_eq!(head.values("forwarded"), ["for=127.0.0.1;proto=http;host=a.test"]);
    assert_eq!(head.values("x-forwarded-proto"), ["http"]);
}

const TRACED: &str = "X-Request-Id: theirs-1\r\nTracestate: v=1\r\n\
     Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";

/// **Ours**, behind a setting: ids are made, or passed on from whoever is believed; client, backend and
/// access log see the same.
#[test]
fn ours_a_request_has_an_id_if_that_is_wanted() {
    let (head, _) = seen(|builder| builder, "");
    assert!(!head.has("x-request-id") && !head.has("traceparent"), "off: {head:?}");
    for (networks, headers, is_kept) in [
        ("127.0.0.0/8", TRACED, true),
        ("10.0.0.0/8", TRACED, false),
        ("127.0.0.0/8", "", false),
        ("127.0.0.0/8", "X-Request-Id: a b\r\nTraceparent: nonsense\r\n", false),
        ("127.0.0.0/8", "Connection: X-Request-Id, Traceparent\r\n", false),
    ] {
        let redis = Redis::start();
        let backend = Backend::start("b");
        redis.frontend("a.test", "id", &[&backend.url()]);
        let router = Router::builder(&redis)
            .arg("--request-ids")
            .set("server.trustedProxies", json!([networks]))
            .start();
        let mut client = Client::connect(router.addr());
        let response = client.get_with("a.test", "/", headers);
        let head = backend.only_request().head;
        let [id] = head.values("x-request-id")[..] else { panic!("one id: {head:?}") };
        let [trace] = head.values("traceparent")[..] else { panic!("one trace: {head:?}") };
        assert_eq!(id == "theirs-1", is_kept, "{id}");
        assert_eq!(trace.contains("4bf92f3577b34da6a3ce929d0e0e4736"), is_kept, "{trace}");
        assert_eq!(head.has("tracestate"), is_kept);
        assert_eq!(response.header("x-request-id"), Some(id));
        assert!(router.access_log(1)[0].ends_with(&format!(" \"{id}\"")));
        // Answers of ours have one, too, and each request its own.
        let unknown = client.get("unknown.test", "/");
        assert_eq!(unknown.status(), 400);
        assert!(unknown.header("x-request-id").is_some_and(|other| other != id));
    }
}

/// "Method, path, query … passed through unchanged; the request line to the backend says HTTP/1.1."
#[test]
fn the_request_line_is_passed_through() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    let lines = [
        "GET / HTTP/1.1",
        "GET /a/../b/./c//d?x=1&x=2?y HTTP/1.1",
        "GET /%2F%2e%2E/%zz?a=%20b HTTP/1.1",
        "GET /?%00 HTTP/1.1",
        "GET /a;b=c,d:e@f!$&'()*+~_- HTTP/1.1",
        "GET //double HTTP/1.1",
        "PURGE /x HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "M-SEARCH /x HTTP/1.1",
    ];
    for line in lines {
        client.send(format!("{line}\r\nHost: a.test\r\n\r\n")).response();
    }
    let seen: Vec<_> =
        backend.requests().into_iter().map(|request| request.head.start_line).collect();
    assert_eq!(seen, lines);
    let mut old = Client::connect(router.addr());
    old.send("GET /old HTTP/1.0\r\nHost: a.test\r\n\r\n").response();
    let last = backend.requests().pop().expect("seen");
    assert_eq!(last.head.start_line, "GET /old HTTP/1.1");
}

/// "Header order, repeated headers": what the client sent comes first and in its order.
#[test]
fn the_order_of_request_headers_is_kept() {
    let (head, _) = seen(
        |builder| builder,
        "Accept: */*\r\nX-Z: 1\r\nCookie: a=1; b=2\r\nX-A: \"quoted, value\"\r\nX-Empty:\r\nX-M: 1\r\nX-M: 2\r\n\
         User-Agent: test\r\nX-B: ünï\r\n",
    );
    let names: Vec<_> = head.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    let sent =
        ["host", "accept", "x-z", "cookie", "x-a", "x-empty", "x-m", "x-m", "user-agent", "x-b"];
    assert_eq!(&names[..sent.len()], sent);
    assert_eq!(head.values("x-m"), ["1", "2"]);
    assert_eq!(head.values("x-a"), ["\"quoted, value\""]);
    assert_eq!(head.values("x-empty"), [""]);
    assert_eq!(head.values("x-b"), ["ünï"]);
    let added: Vec<_> =
        names[sent.len()..].iter().filter(|name| !FORWARDED.contains(&name.as_str())).collect();
    assert_eq!(added, Vec::<&String>::new(), "nothing else is added");
}

/// "Repeated headers (`Set-Cookie`)", the order and the reason of a response.
#[test]
fn the_headers_of_a_response_are_passed_through() {
    let redis = Redis::start();
    let backend = Backend::answering(
        "b",
        "HTTP/1.1 299 Quite Fine\r\nX-Z: 1\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nX-A: 2\r\n\
         Date: Mon, 23 Nov 2026 09:24:35 GMT\r\nServer: theirs\r\nContent-Length: 2\r\nSet-Cookie: c=3\r\n\r\nok",
    );
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let response = Client::connect(router.addr()).get("a.test", "/");
    assert_eq!(response.head.start_line, "HTTP/1.1 299 Quite Fine");
    assert_eq!(response.head.values("set-cookie"), ["a=1; Path=/", "b=2", "c=3"]);
    let names: Vec<_> =
        response.head.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    let mut distinct = names;
    distinct.dedup();
    let sent = ["x-z", "set-cookie", "x-a", "date", "server", "content-length", "set-cookie"];
    assert_eq!(distinct, sent, "lines stay where they stood");
    assert_eq!(response.header("date"), Some("Mon, 23 Nov 2026 09:24:35 GMT"));
}

/// A response without `Date` or `Server` does not get ours.
#[test]
fn nothing_is_added_to_a_response() {
    let redis = Redis::start();
    let backend = Backend::answering("b", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let response = Client::connect(router.addr()).get("a.test", "/");
    let names: Vec<_> =
        response.head.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    // RFC 9110 6.6.1: a recipient with a clock may add the `Date` that is missing, and caches rely
    // on it.
    let unexpected: Vec<_> =
        names.iter().filter(|name| !["content-length", "date"].contains(&name.as_str())).collect();
    assert_eq!(unexpected, Vec::<&String>::new());
}

/// "Hop-by-hop headers were passed on. **Ours**: removed as RFC 9110 7.6.1 says": on the way to the
/// backend.
#[test]
fn ours_hop_by_hop_headers_of_a_request_are_removed() {
    let (head, _) = seen(
        |builder| builder,
        "Connection: keep-alive, X-Mine, x-other\r\nConnection: X-Third\r\nKeep-Alive: timeout=5\r\nX-Mine: 1\r\n\
         X-Other: 2\r\nX-Third: 3\r\nX-Kept: 4\r\nProxy-Connection: keep-alive\r\nTE: gzip, deflate\r\n\
         Upgrade: websocket\r\nHTTP2-Settings: AAMAAABkAAQ\r\nProxy: http://evil/\r\nX-Last: 5\r\n",
    );
    for name in [
        "keep-alive",
        "x-mine",
        "x-other",
        "x-third",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
        "proxy",
    ] {
        assert!(!head.has(name), "{name} was passed on: {head:?}");
    }
    let connection = head.values("connection").join(",").to_ascii_lowercase();
    assert!(connection.is_empty() || connection == "keep-alive", "Connection: {connection}");
    assert_eq!((head.header("x-kept"), head.header("x-last")), (Some("4"), Some("5")));
    let (head, _) = seen(|builder| builder, "TE: trailers, gzip\r\nConnection: TE\r\n");
    assert_eq!(head.values("te"), ["trailers"]);
}

/// Naming a header in `Connection` cannot change whose request it is or where its body ends.
#[test]
fn connection_cannot_remove_what_carries_identity_or_framing() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    let response = client
        .send(
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nCookie: s=1\r\nX-Forwarded-For: 1.2.3.4\r\n\
             Connection: Host, Content-Length, Cookie, X-Forwarded-For, X-Real-IP\r\n\r\nabc",
        )
        .response();
    assert_eq!(response.status(), 200);
    let request = backend.only_request();
    assert_eq!(request.body.expect("read").data, b"abc");
    assert_eq!(request.head.values("host"), ["a.test"]);
    assert_eq!(request.head.values("cookie"), ["s=1"]);
    assert_eq!(request.head.values("x-forwarded-for"), ["1.2.3.4"]);
    assert_eq!(request.head.values("x-real-ip"), ["::ffff:127.0.0.1"]);
}

/// **Ours**: hop-by-hop headers of a response are removed, too.
#[test]
fn ours_hop_by_hop_headers_of_a_response_are_removed() {
    let redis = Redis::start();
    let backend = Backend::answering(
        "b",
        "HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Kept: 2\r\nContent-Length: 2\r\n\r\nok",
    );
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    for _ in 0..2 {
        let response = client.get("a.test", "/");
        for name in ["x-hop", "keep-alive", "proxy-connection", "upgrade"] {
            assert!(!response.head.has(name), "{name} was passed on: {:?}", response.head);
        }
        assert_eq!(response.header("x-kept"), Some("2"));
    }
}

/// Names with an underscore could shadow ours in programs that turn `-` into `_`; where the
/// forwarded headers are to be believed (`trustedProxies` is set), they are not passed on.
#[test]
fn a_name_with_underscores_does_not_shadow_a_forwarded_header() {
    let (head, _) = seen(
        |builder| builder.set("server.trustedProxies", json!(["10.0.0.0/8"])),
        "X_Forwarded_For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nX_Own: 1\r\n",
    );
    assert!(!head.has("x_forwarded_for") && !head.has("x_real_ip"), "{head:?}");
    assert_eq!(head.header("x_own"), Some("1"));
}

/// The same for the id that the router gives, and only where it gives one.
#[test]
fn a_name_with_underscores_does_not_shadow_a_request_id() {
    let sent = "X_Request_Id: forged\r\nX_Own: 1\r\n";
    let (head, _) = seen(|builder| builder.arg("--request-ids"), sent);
    assert!(head.has("x-request-id") && !head.has("x_request_id"), "{head:?}");
    assert_eq!(head.header("x_own"), Some("1"));
    let (head, _) = seen(|builder| builder, sent);
    assert!(head.has("x_request_id"), "off: {head:?}");
}

/// The backend's own connection is kept, and it is told so or told nothing.
#[test]
fn a_closing_client_does_not_close_the_backend() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    for _ in 0..3 {
        // `Connection: close` is about the client's connection alone.
        get(router.addr(), "a.test", "/");
    }
    assert_eq!(backend.connections(), 1);
    for request in backend.requests() {
        assert!(!request.head.values("connection").contains(&"close"), "{request:?}");
    }
}
