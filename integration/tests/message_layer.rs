//! What nginx does with messages of HTTP/1, and libraries between the socket and the proxy often do not.

use integration::backend::Backend;
use integration::client::Client;
use integration::router::stage;
use pretty_assertions::assert_eq;

/// RFC 9112 9.3: `close` wins over what stands beside it, whichever comes first, and it is the only option
/// that is said back.
#[test]
fn close_beside_keep_alive_closes_and_is_the_only_option() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    for version in ["1.0", "1.1"] {
        for options in ["keep-alive, close", "close, keep-alive"] {
            let mut client = Client::connect(router.addr());
            client.send(format!(
                "GET / HTTP/{version}\r\nHost: a.test\r\nConnection: {options}\r\n\r\n"
            ));
            let response = client.response();
            let said = response.header("connection");
            assert!(matches!(said, None | Some("close")), "{version} {options}: {said:?}");
            assert!(client.is_closed(), "{version} {options}");
        }
    }
}

/// RFC 9112 6.3: an answer of unknown length ends with the connection, so a client of HTTP/1.0 must not be
/// told that it goes on.
#[test]
fn http_1_0_keep_alive_is_not_promised_with_a_body_of_unknown_length() {
    let raw = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let backend = Backend::answering("b", raw);
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n");
    let response = client.response();
    assert_eq!(response.text(), "abc");
    assert_ne!(response.header("connection"), Some("keep-alive"));
    assert!(client.is_closed());
}

/// nginx and HAProxy pass it on as it came.
#[test]
fn quotes_and_braces_in_a_query_are_passed_on() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    assert_eq!(client.get("a.test", "/?filter={\"a\":\"b\"}").status(), 200);
    assert_eq!(backend.only_request().head.target(), "/?filter={\"a\":\"b\"}");
}

/// RFC 9110 8.6: a 304 may say how long the answer 200 would have been.
#[test]
fn a_304_keeps_its_content_length() {
    let backend =
        Backend::answering("b", "HTTP/1.1 304 Not Modified\r\nContent-Length: 42\r\n\r\n");
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    let response = client.get("a.test", "/");
    assert_eq!((response.status(), response.header("content-length")), (304, Some("42")));
}

/// Some clients and servers of old depend on it.
#[test]
fn names_of_fields_keep_their_case_and_order() {
    let backend = Backend::answering(
        "b",
        "HTTP/1.1 200 OK\r\nX-One: 1\r\nSet-Cookie: a\r\nX-TWO: 2\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    );
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send(
        "GET / HTTP/1.1\r\nHoSt: a.test\r\nX-OnE: 1\r\nAccept: a\r\nx-two: 2\r\nAccept: b\r\n\r\n",
    );
    let head = client.head().expect("an answer");
    let answered: Vec<_> = head.headers.iter().map(|(name, _)| name.as_str()).take(4).collect();
    assert_eq!(answered, ["X-One", "Set-Cookie", "X-TWO", "Set-Cookie"]);
    let request = backend.only_request();
    let sent: Vec<_> = request.head.headers.iter().map(|(name, _)| name.as_str()).take(5).collect();
    assert_eq!(sent, ["HoSt", "X-OnE", "Accept", "x-two", "Accept"]);
}

/// RFC 9110 15.5.15: a target that is larger than the buffer of heads.
#[test]
fn a_target_above_the_buffer_gets_414() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send(format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "a".repeat(256 * 1024)));
    assert_eq!(client.response().status(), 414);
    assert_eq!(backend.request_count(), 0);
}

/// RFC 9112 3.2.4: the asterisk form stays one, and is what the absolute form without a path becomes.
#[test]
fn options_for_the_whole_server_stay_so() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    for target in ["*", "http://a.test"] {
        let mut client = Client::connect(router.addr());
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(client.response_to("OPTIONS").status(), 200, "{target}");
    }
    let targets: Vec<_> =
        backend.requests().iter().map(|request| request.head.target().to_owned()).collect();
    assert_eq!(targets, ["*", "*"]);
}

/// RFC 9112 6.3: two lengths that are written differently may be read differently.
#[test]
fn lengths_that_are_written_differently_are_refused() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nContent-Length: 003\r\n\r\nabc",
    );
    assert_eq!(client.response().status(), 400);
    assert_eq!(backend.request_count(), 0);
}
