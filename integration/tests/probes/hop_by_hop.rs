//! What concerns one connection only, what a client claims to be, and the order of requests (RFC 9110
//! sections 7.6.1 and 10.1.1).

use integration::backend::{Backend, Next};
use integration::websocket::HANDSHAKE;

use super::{Probe, Stage, play};

/// A request with these header lines, of which the backend must not see `gone`.
fn stripped(name: &'static str, headers: &str, gone: &'static [&'static str]) -> Probe {
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n\r\n");
    Probe::forwarded(name, request, move |seen, _, _| {
        for name in gone {
            assert!(!seen.head.has(name), "{name} reached the backend: {:?}", seen.head);
        }
    })
}

pub(crate) fn probes() -> Vec<Probe> {
    vec![
        stripped(
            "hop_named_in_connection",
            "Connection: close, X-Foo\r\nX-Foo: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive",
            &["x-foo", "keep-alive", "proxy-connection"],
        ),
        Probe::forwarded(
            "hop_connection_abuse",
            "POST / HTTP/1.1\r\nHost: a.test\r\nCookie: s=1\r\nX-Forwarded-For: 1.2.3.4\r\nContent-Length: 3\r\n\
             Connection: close, host, cookie, content-length, x-forwarded-for\r\n\r\nabc",
            |seen, _, _| {
                assert_eq!(seen.head.values("host"), ["a.test"]);
                assert_eq!(seen.head.values("cookie"), ["s=1"]);
                assert_eq!(seen.head.values("content-length"), ["3"]);
                // This router trusts nobody: what backends hear is the peer's own address.
                assert_eq!(seen.head.values("x-forwarded-for"), ["::ffff:127.0.0.1"]);
                assert_eq!(seen.body.as_ref().map(|body| &body.data[..]), Some(&b"abc"[..]));
            },
        ),
        stripped("hop_te_stripped", "TE: gzip, deflate\r\nConnection: TE", &["te"]),
        stripped(
            "hop_h2c_upgrade",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            &["upgrade", "http2-settings"],
        ),
        stripped("hop_upgrade_without_connection", "Upgrade: websocket", &["upgrade"]),
        stripped("hdr_httpoxy", "Proxy: http://evil/", &["proxy"]),
        Probe::forwarded(
            "hdr_xff_spoof",
            "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
             X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\r\n",
            |seen, _, _| {
                let head = String::from_utf8_lossy(&seen.head.raw);
                assert!(!head.contains("6.6.6.6"), "{head}");
                assert_eq!(seen.head.values("x-forwarded-proto"), ["http"]);
            },
        ),
        stripped("hdr_underscore", "X_Forwarded_For: 6.6.6.6", &["x_forwarded_for"]),
        Probe::new("req_pipeline_order", |stage| {
            let before = stage.backend.request_count();
            let requests = (0..5).map(|n| format!("GET /p{n} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            let mut client = stage.connect();
            client.send(requests.collect::<String>());
            for _ in 0..5 {
                assert_eq!(client.response().status(), 200);
            }
            let seen = stage.backend.requests().split_off(before);
            let seen: Vec<_> = seen.iter().map(|request| request.head.target()).collect();
            assert_eq!(seen, ["/p0", "/p1", "/p2", "/p3", "/p4"]);
        }),
        // The body of a GET is a body: the next request begins behind it.
        Probe::new("req_get_with_body", |stage| {
            let before = stage.backend.request_count();
            let mut client = stage.connect();
            let smuggled = "GET /evil HTTP/1.1\r\nHost: a.test\r\n\r\n";
            client.send(format!(
                "GET /b HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{smuggled}\
                 GET /n HTTP/1.1\r\nHost: a.test\r\n\r\n",
                smuggled.len()
            ));
            assert_eq!((client.response().status(), client.response().status()), (200, 200));
            let seen = stage.backend.requests().split_off(before);
            let seen: Vec<_> = seen.iter().map(|request| request.head.target()).collect();
            assert_eq!(seen, ["/b", "/n"]);
        }),
        Probe::forwarded(
            "req_cl0",
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n",
            |seen, _, _| assert_eq!(seen.head.values("content-length"), ["0"]),
        ),
        Probe::new("expect_100", expect_100),
        // RFC 9110 10.1.1 leaves it to the origin what to make of it.
        Probe::forwarded(
            "expect_unknown",
            "GET / HTTP/1.1\r\nHost: a.test\r\nExpect: tea\r\n\r\n",
            |seen, _, _| assert_eq!(seen.head.values("expect"), ["tea"]),
        ),
        Probe::new("ws_smuggle_non101", ws_smuggle_non101),
    ]
}

fn expect_100(stage: &Stage) {
    let backend = Backend::with("b", |exchange| {
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        let body = exchange.read_body()?;
        exchange.respond(200, &[], &body.data)?;
        Ok(Next::KeepAlive)
    });
    let host = stage.host(&backend);
    let mut client = stage.connect();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert_eq!(client.head().map(|head| head.status()), Some(100));
    client.send("body");
    assert_eq!(client.response().text(), "body");
}

/// A backend that refuses an upgrade speaks HTTP still: what follows is a request of its own, looked up
/// by its own host.
fn ws_smuggle_non101(stage: &Stage) {
    let before = stage.backend.request_count();
    let mut client = stage.connect();
    client.send(format!(
        "GET /ws HTTP/1.1\r\nHost: a.test\r\n{HANDSHAKE}\r\nGET /next HTTP/1.1\r\nHost: a.test\r\n\r\n"
    ));
    assert_eq!((client.response().status(), client.response().status()), (200, 200));
    assert_eq!(stage.backend.request_count(), before + 2);
}

#[test]
fn nothing_of_one_connection_reaches_the_next() {
    let untrusting =
        Stage::new(|builder| builder.set("server.trustedProxies", serde_json::json!([])));
    play(&untrusting, &probes());
}
