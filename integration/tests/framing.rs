//! One reading only of where a message ends and whose it is: RFC 9112 sections 3, 6, 7 and 11. What two
//! programs could read differently is refused, and nothing of it reaches a backend.

use integration::backend::{Backend, Next};
use integration::client::{Client, get};
use integration::router::stage;
use integration::wire::Body;
use pretty_assertions::assert_eq;

/// A trailer never becomes a header, nor can it change framing or routing (RFC 9110 6.5.1).
#[test]
fn a_trailer_is_no_header() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nHost: evil.test\r\n\
         Content-Length: 1\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
    );
    let status = client.response().status();
    assert!([200, 400].contains(&status), "{status}");
    for request in backend.requests() {
        assert_eq!(request.head.values("host"), ["a.test"]);
        assert_eq!(request.head.values("x-forwarded-for"), ["::ffff:127.0.0.1"]);
        for (name, _) in request.body.expect("read").trailers {
            assert!(!["host", "content-length"].contains(&name.to_ascii_lowercase().as_str()));
        }
    }
}

/// What is no trailer is not passed on as one in either direction, announced or not: some programs
/// merge trailers into headers.
#[test]
fn what_only_a_header_may_say_is_no_trailer() {
    let backend = Backend::with("b", |exchange| {
        let body = exchange.read_body()?;
        exchange.record(body);
        exchange.send(
            b"HTTP/1.1 200 OK\r\nTrailer: x-sum, set-cookie, connection\r\nTransfer-Encoding: chunked\r\n\r\n\
              3\r\nabc\r\n0\r\nConnection: close\r\nKeep-Alive: timeout=5\r\nUpgrade: x\r\nSet-Cookie: a=b\r\n\
              X-Sum: 43\r\n\r\n",
        )?;
        Ok(Next::KeepAlive)
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    for trailers in ["X-Sum: 42\r\n", ""] {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE\r\n\
             Trailer: x-forwarded-for, x-real-ip, authorization, cookie, x_forwarded_for, x-sum\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
             Authorization: x\r\nCookie: a=b\r\nX_Forwarded_For: 6.6.6.6\r\n{trailers}\r\n"
        ));
        let response = client.response();
        assert_eq!((response.text().as_str(), response.body.complete), ("abc", true));
        assert_eq!(names(&response.body), ["x-sum"]);
    }
    let bodies: Vec<_> =
        backend.requests().into_iter().map(|request| request.body.expect("read")).collect();
    assert!(bodies.iter().all(|body| body.complete && body.data == b"abc"), "{bodies:?}");
    assert_eq!((names(&bodies[0]), names(&bodies[1])), (vec!["x-sum".to_owned()], Vec::new()));
    assert_eq!(backend.connections(), 1, "the end was found");
}

fn names(body: &Body) -> Vec<String> {
    body.trailers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect()
}

/// A client that goes away in the middle of its body: the backend never takes what came for the
/// whole.
#[test]
fn a_cut_request_body_is_never_passed_on_as_complete() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    for (number, rest) in [
        "Content-Length: 100\r\n\r\nshort",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "Transfer-Encoding: chunked\r\n\r\nff\r\nshort",
    ]
    .iter()
    .enumerate()
    {
        let mut client = Client::connect(router.addr());
        client.send(format!("POST /{number} HTTP/1.1\r\nHost: a.test\r\n{rest}"));
        backend.wait_for_requests(number + 1);
        drop(client);
        backend.wait_for_open(0);
        let body = backend.requests()[number].body.clone().unwrap_or_default();
        assert!(!body.complete, "{rest}: {body:?}");
    }
    assert_eq!(get(router.addr(), "a.test", "/").text(), "b");
}

/// Both `Content-Length` and `Transfer-Encoding`: the chunks count, the length does not reach the
/// backend, and the connection ends (RFC 9112 6.3).
#[test]
fn a_length_beside_chunks_does_not_count() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    for headers in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 13\r\nTransfer-Encoding: chunked",
    ] {
        let mut client = Client::connect(router.addr());
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        ));
        assert_eq!(client.response().status(), 200, "{headers:?}");
        assert!(client.is_closed(), "{headers:?}: the connection goes on");
    }
    for request in backend.requests() {
        assert!(request.head.values("content-length").is_empty());
        assert_eq!(request.head.values("transfer-encoding"), ["chunked"]);
        assert_eq!(request.body.map(|body| body.data).as_deref(), Some(&b"abc"[..]));
    }
    assert_eq!(backend.request_count(), 3);
}

/// A coding other than chunked, or a length that is none: nothing is forwarded, the answer is 400
/// and the connection ends.
#[test]
fn ambiguous_framing_is_refused() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    for (version, headers) in [
        ("1.1", "Transfer-Encoding: identity, chunked"),
        ("1.1", "Transfer-Encoding: gzip, chunked"),
        ("1.1", "Transfer-Encoding: chunked, identity"),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("1.1", "Transfer-Encoding: ,chunked"),
        ("1.1", "Transfer-Encoding: chunked,"),
        ("1.1", "Transfer-Encoding: xchunked"),
        ("1.1", "Transfer-Encoding: \"chunked\""),
        ("1.1", "Transfer-Encoding: chunked;q=1"),
        ("1.1", "Transfer-Encoding:\x0bchunked"),
        ("1.1", "Transfer-Encoding:"),
        ("1.1", "Transfer-Encoding : chunked"),
        ("1.0", "Transfer-Encoding: chunked"),
        ("1.1", "Content-Length: 3\r\nContent-Length: 4"),
        ("1.1", "Content-Length: 3, 4"),
        ("1.1", "Content-Length: +3"),
        ("1.1", "Content-Length: -3"),
        ("1.1", "Content-Length: 0x3"),
        ("1.1", "Content-Length: 3.0"),
        ("1.1", "Content-Length: 3 3"),
        ("1.1", "Content-Length:"),
        ("1.1", "Content-Length: 99999999999999999999999"),
        ("1.1", "Content-Length : 3"),
        ("1.1", "X: a\r\n b\r\nContent-Length: 3"),
        ("1.1", "X: a\rb\r\nContent-Length: 3"),
        ("1.1", "X: a\0b\r\nContent-Length: 3"),
        ("1.1", "no colon\r\nContent-Length: 3"),
        ("1.1", ": empty\r\nContent-Length: 3"),
    ] {
        let mut client = Client::connect(router.addr());
        client.send(format!(
            "POST / HTTP/{version}\r\nHost: a.test\r\n{headers}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        ));
        let response = client.response();
        assert!([400, 501].contains(&response.status()), "{headers:?}: {response:?}");
        assert!(client.is_closed(), "{headers:?}: the connection goes on");
        assert_eq!(backend.request_count(), 0, "{headers:?} was forwarded");
    }
}

/// Chunks that are not RFC 9112's: the backend never sees a complete body, and the client is told.
#[test]
fn malformed_chunks_are_refused() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    for chunks in [
        "x\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3_0\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    ] {
        let mut client = Client::connect(router.addr());
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        ));
        let response = client.response();
        assert!([400, 502].contains(&response.status()), "{chunks:?}: {response:?}");
        assert!(client.is_closed(), "{chunks:?}: the connection goes on");
    }
    backend.wait_for_open(0);
    for request in backend.requests() {
        assert!(!request.body.is_some_and(|body| body.complete), "{:?}", request.head);
    }
}

/// "CONNECT → 405, TRACE → 405": neither reaches a backend.
#[test]
fn connect_and_trace_are_not_forwarded() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    for line in ["CONNECT a.test:443", "CONNECT a.test:80", "TRACE /"] {
        let mut client = Client::connect(router.addr());
        client.send(format!("{line} HTTP/1.1\r\nHost: a.test\r\nCookie: secret\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status(), 405, "{line}");
        assert!(!response.text().contains("secret"), "{line}");
    }
    assert_eq!(backend.connections(), 0);
}

/// Versions other than 1.0 and 1.1, and lines that are none, are refused.
#[test]
fn a_line_that_is_no_request_line_is_refused() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    for line in [
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / http/1.1",
        "GET /",
        "GET  / HTTP/1.1",
        "GET / x HTTP/1.1",
        "G(T / HTTP/1.1",
        "/ HTTP/1.1",
        "GET /\u{1} HTTP/1.1",
        "GET /\0 HTTP/1.1",
    ] {
        let mut client = Client::connect(router.addr());
        client.send(format!("{line}\r\nHost: a.test\r\n\r\n"));
        let response = client.response();
        assert!([400, 505].contains(&response.status()), "{line:?}: {response:?}");
        assert!(client.is_closed(), "{line:?}: the connection goes on");
    }
    assert_eq!(backend.connections(), 0);
}

/// Only `CONNECT` may have a target without a scheme or a path (RFC 9112 3.2): it names no host by
/// mistake.
#[test]
fn a_target_that_is_neither_path_nor_url_is_refused() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    for target in ["a.test", "a.test:80", "ftp://a.test/", "http:///path", "*", "#a", "?a"] {
        let mut client = Client::connect(router.addr());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(client.response().status(), 400, "{target}");
    }
    assert_eq!(backend.connections(), 0);
}

/// A backend's ambiguous answer is not passed on as something that the next proxy may read
/// differently.
#[test]
fn an_ambiguous_response_is_not_passed_on_ambiguously() {
    let backend = Backend::answering_once(
        "b",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    let (_redis, router) = stage(&backend);
    let response = Client::connect(router.addr()).get("a.test", "/");
    match response.status() {
        200 => {
            assert!(response.head.has("content-length") != response.head.has("transfer-encoding"));
            assert_eq!(response.text(), "abc");
        }
        status => assert_eq!(status, 502),
    }
}

/// Bytes that a backend sends beyond its answer belong to nobody: the next client does not get
/// them.
#[test]
fn surplus_bytes_of_a_backend_poison_nothing() {
    let backend = Backend::with("b", |exchange| {
        exchange.read_body()?;
        exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        )?;
        Ok(Next::KeepAlive)
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    for number in 0..10 {
        let response = client.get("a.test", "/");
        assert_eq!((response.status(), response.text().as_str()), (200, "ok"), "{number}");
    }
}
