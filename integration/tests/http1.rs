//! HTTP/1.1 and 1.0 in full: chunked bodies both ways, pipelined requests, HTTP/1.0 clients
//! (docs/hipache-contract.md 2), RFC 9110 and RFC 9112.

use std::time::Duration;

use integration::backend::{Backend, Next};
use integration::client::Client;
use integration::eventually::{DEADLINE, eventually};
use integration::gate::Gate;
use integration::http2;
use integration::redis::Redis;
use integration::router::{Router, stage};
use integration::wire::Framing;
use pretty_assertions::assert_eq;

/// A chunked request body and a chunked response body pass through piece by piece: each chunk comes
/// back before the next is sent, so neither side waits for the end.
#[test]
fn chunks_stream_both_ways() {
    let backend = Backend::echoing("b");
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let head = client.head().expect("a head before the body is complete");
    assert_eq!(head.response_framing("POST").unwrap(), Framing::Chunked);
    for text in ["first", "second", "a third one"] {
        client.send(format!("{:x}\r\n{text}\r\n", text.len()));
        let mut back = Vec::new();
        while back.len() < text.len() {
            let chunk = client.conn().read_chunk(&mut Vec::new()).unwrap().expect("a chunk");
            back.extend_from_slice(&chunk);
        }
        assert_eq!(back, text.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.conn().read_chunk(&mut Vec::new()).unwrap(), None);
    assert_eq!(client.conn().read_line().unwrap(), "");
}

/// A response without an announced end streams, too, and the client learns where it ends.
#[test]
fn a_response_until_close_is_passed_on_with_an_end() {
    let gate = Gate::new();
    let backend = Backend::with("b", {
        let gate = gate.clone();
        move |exchange| {
            exchange.send(b"HTTP/1.1 200 OK\r\n\r\nfirst ")?;
            gate.wait()?;
            exchange.send(b"second")?;
            Ok(Next::Close)
        }
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let head = client.head().expect("a head");
    assert_eq!(head.response_framing("GET").unwrap(), Framing::Chunked);
    let first = client.conn().read_chunk(&mut Vec::new()).unwrap();
    assert_eq!(first.as_deref(), Some(&b"first "[..]));
    gate.open();
    let rest = client.conn().read_body(Framing::Chunked).unwrap();
    assert!(rest.complete);
    assert_eq!(rest.data, b"second");
    // The end was a chunk, not a closed connection: it goes on.
    assert_eq!(client.get("unknown.test", "/").status(), 400);
}

/// Trailers, in both directions, when the client says that it takes them (`TE: trailers`).
#[test]
fn trailers_are_passed_on() {
    let backend = Backend::echoing("b");
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE\r\nTrailer: x-sum\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n",
    );
    let response = client.response();
    assert_eq!(response.body.data, b"abc");
    let trailers: Vec<_> = response
        .body
        .trailers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
        .collect();
    assert_eq!(trailers, [("x-sum".to_owned(), "42")]);
    assert_eq!(client.get("unknown.test", "/").status(), 400, "the connection goes on");
}

/// `Content-Length` stays `Content-Length`, chunked stays chunked, and the content is the same.
#[test]
fn framing_is_kept_in_both_directions() {
    let backend = Backend::with("b", |exchange| {
        let body = exchange.read_body()?;
        match exchange.framing() {
            Framing::Chunked => exchange.send(
                &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &body.raw[..]].concat(),
            )?,
            _ => exchange.respond(200, &[], &body.data)?,
        }
        Ok(Next::KeepAlive)
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    let response = client.post("a.test", "/", "plain");
    assert_eq!((response.framing, response.text().as_str()), (Framing::Length(5), "plain"));
    client.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: Chunked\r\n\r\n5;ext=1\r\nchunk\r\n2\r\ned\r\n0\r\n\r\n",
    );
    let response = client.response();
    assert_eq!((response.framing, response.text().as_str()), (Framing::Chunked, "chunked"));
    let empty = client.post("a.test", "/", "");
    assert_eq!((empty.framing, empty.text().as_str()), (Framing::Length(0), ""));
    let requests = backend.requests();
    assert_eq!(requests[0].head.values("content-length"), ["5"]);
    assert_eq!(requests[1].head.values("transfer-encoding").len(), 1);
    assert!(requests[1].head.values("transfer-encoding")[0].eq_ignore_ascii_case("chunked"));
    assert!(!requests[1].head.has("content-length"));
    assert_eq!(requests[2].head.values("content-length"), ["0"]);
    assert_eq!(backend.connections(), 1);
}

/// A `GET` with a body and a `POST` without one: the next request begins where it should.
#[test]
fn bodies_of_unusual_methods_are_framed_right() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send(
        "GET /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbodyPOST /2 HTTP/1.1\r\nHost: a.test\r\n\r\n\
         DELETE /3 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\
         GET /4 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    );
    for _ in 0..4 {
        assert_eq!(client.response().status(), 200);
    }
    let seen: Vec<_> = backend
        .requests()
        .into_iter()
        .map(|request| (request.head.target().to_owned(), request.body.expect("read").data))
        .collect();
    let expected = [("/1", "body"), ("/2", ""), ("/3", "x"), ("/4", "")];
    assert_eq!(seen, expected.map(|(target, body)| (target.to_owned(), body.as_bytes().to_vec())));
}

/// `Expect: 100-continue` end to end: the backend is asked, its `100` reaches the client, then the
/// body goes.
#[test]
fn a_hundred_continue_comes_from_the_backend() {
    let gate = Gate::new();
    let backend = Backend::with("b", {
        let gate = gate.clone();
        move |exchange| {
            gate.wait()?;
            exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            let body = exchange.read_body()?;
            exchange.respond(200, &[], &body.data)?;
            Ok(Next::KeepAlive)
        }
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
    );
    let requests = backend.wait_for_requests(1);
    assert_eq!(requests[0].head.header("expect"), Some("100-continue"));
    client.conn().set_limit(Some(Duration::from_millis(200)));
    assert!(!client.is_closed(), "nothing may come before the backend has spoken");
    client.conn().set_limit(Some(Duration::from_secs(10)));
    gate.open();
    assert_eq!(client.head().expect("100").status(), 100);
    client.send("body");
    let response = client.response();
    assert_eq!((response.status(), response.text().as_str()), (200, "body"));
    assert!(response.informational.is_empty(), "one 100 is enough");
}

/// `Expect: 100-continue` and a final answer at once: the client gets it and never sends its body.
#[test]
fn a_refusal_instead_of_a_hundred_continue_reaches_the_client() {
    let backend = Backend::with("b", |exchange| {
        exchange.respond(417, &[("Connection", "close")], b"no")?;
        Ok(Next::Close)
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
    );
    let response = client.response();
    assert_eq!((response.status(), response.text().as_str()), (417, "no"));
    assert!(response.informational.is_empty());
}

/// A client that does not wait for `100 Continue` loses nothing (RFC 9110 10.1.1).
#[test]
fn an_impatient_client_may_send_its_body_at_once() {
    let backend = Backend::with("b", |exchange| {
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        let body = exchange.read_body()?;
        exchange.respond(200, &[], &body.data)?;
        Ok(Next::KeepAlive)
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    for _ in 0..3 {
        client.send(
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody",
        );
        assert_eq!(client.response().text(), "body");
    }
}

/// A backend that takes the body without ever saying `100 Continue` is old, not wrong: it still
/// gets the body.
#[test]
fn a_backend_that_never_says_continue_gets_the_body_of_an_impatient_client() {
    let backend = Backend::with("b", |exchange| {
        let body = exchange.read_body()?;
        exchange.respond(200, &[], &body.data)?;
        Ok(Next::KeepAlive)
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody",
    );
    let response = client.response();
    assert_eq!((response.status(), response.text().as_str()), (200, "body"));
}

/// Informational responses (103 Early Hints) reach the client as they come, before the final one.
#[test]
fn early_hints_reach_the_client_early() {
    let gate = Gate::new();
    let backend = Backend::with("b", {
        let gate = gate.clone();
        move |exchange| {
            exchange.send(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>\r\n\r\n",
            )?;
            exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n")?;
            gate.wait()?;
            exchange.respond(200, &[], b"done")?;
            Ok(Next::KeepAlive)
        }
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let hints = client.head().expect("hints");
    assert_eq!(hints.status(), 103);
    assert_eq!(hints.values("link"), ["</a.css>; rel=preload", "</b.js>"]);
    assert_eq!(client.head().expect("processing").status(), 102);
    gate.open();
    assert_eq!(client.response().text(), "done");
    // A client of HTTP/1.0 would take them for the answer (RFC 9110 15.2).
    let mut old = Client::connect(router.addr());
    old.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let response = old.response();
    assert_eq!((response.status(), response.informational.len()), (200, 0));
}

/// What an informational response says of the backend's connection stays behind, too.
#[test]
fn hop_by_hop_headers_of_an_informational_response_are_removed() {
    let backend = Backend::with("b", |exchange| {
        exchange.send(
            b"HTTP/1.1 103 Early Hints\r\nX-Secret: 1\r\nConnection: x-secret\r\nProxy-Connection: x\r\n\
              Link: </a.css>\r\n\r\n",
        )?;
        exchange.respond(200, &[], b"done")?;
        Ok(Next::KeepAlive)
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let hints = client.head().expect("hints");
    assert_eq!((hints.status(), hints.headers.len()), (103, 1), "{hints:?}");
    assert_eq!(hints.values("link"), ["</a.css>"]);
    assert_eq!(client.response().text(), "done");
}

/// A flood of informational responses costs bounded memory and does not stop the final one.
#[test]
fn a_flood_of_informational_responses_is_bounded() {
    let backend = Backend::with("b", |exchange| {
        let flood = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n".repeat(1000);
        exchange.send(flood.as_bytes())?;
        exchange.respond(200, &[], b"done")?;
        Ok(Next::Close)
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    let response = client.get("a.test", "/");
    assert!([200, 502].contains(&response.status()), "{response:?}");
    assert!(response.informational.len() < 1000, "{} were passed on", response.informational.len());
}

/// 32 informational responses are passed on; one more, or one of any size, is no answer of HTTP any more.
#[test]
fn informational_responses_beyond_the_limit_are_a_502() {
    let repeated = |count: usize, head: &str| head.repeat(count);
    let huge = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(40_000));
    for (heads, status, passed_on) in [
        (repeated(32, "HTTP/1.1 102 Processing\r\n\r\n"), 200, 32),
        (repeated(33, "HTTP/1.1 102 Processing\r\n\r\n"), 502, 32),
        (repeated(100_000, "HTTP/1.1 102 Processing\r\n\r\n"), 502, 32),
        (repeated(100_000, "HTTP/1.0 102 Processing\r\n\r\n"), 502, 32),
        (repeated(100_000, "\r\nHTTP/1.1 102 Processing\r\n\r\n"), 502, 0),
        (huge, 502, 0),
    ] {
        let backend = Backend::with("b", move |exchange| {
            exchange.send(heads.as_bytes())?;
            exchange.respond(200, &[], b"done")?;
            Ok(Next::Close)
        });
        let redis = Redis::start();
        redis.frontend("a.test", "id", &[&backend.url(), "http://127.0.0.1:9"]);
        redis.run(&["SADD", "dead:a.test", "1"]);
        let router = Router::start(&redis);
        let mut client = Client::connect(router.addr());
        let response = client.get("a.test", "/");
        assert_eq!((response.status(), response.informational.len()), (status, passed_on));
        assert_eq!(redis.dead("a.test").len(), 1, "no evidence against a backend that is there");
    }
}

/// The deadline of a response head begins with its first byte. A body that is still on its way renews it.
#[test]
fn an_upload_after_100_continue_may_take_longer_than_the_deadline_of_a_head() {
    let backend = Backend::with("b", |exchange| {
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        exchange.read_body()?;
        exchange.respond(200, &[], b"done")?;
        Ok(Next::KeepAlive)
    });
    let redis = Redis::start();
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.tcpTimeout", 1).start();
    let mut client = Client::connect(router.addr());
    client.send(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 600\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.head().expect("100").status(), 100);
    for _ in 0..6 {
        // Nothing is waited for here: the pause itself is what is tested.
        client.conn().set_limit(Some(Duration::from_millis(300)));
        assert!(!client.is_closed(), "given up although the body moves");
        client.send("x".repeat(100));
    }
    client.conn().set_limit(Some(Duration::from_secs(10)));
    assert_eq!(client.response().status(), 200);
}

/// `HEAD`: the headers of a `GET` and no body, and the connection goes on.
#[test]
fn head_has_headers_and_no_body() {
    let backend = Backend::start("a longer body");
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    for _ in 0..3 {
        client.send("HEAD /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let response = client.response_to("HEAD");
        assert_eq!(response.header("content-length"), Some("13"));
    }
    assert_eq!(client.get("a.test", "/").text(), "a longer body");
    assert_eq!(backend.requests()[0].head.method(), "HEAD");
    assert_eq!(backend.connections(), 1);
}

/// 204 and 304 have no body, whatever their headers say.
#[test]
fn answers_without_a_body_have_none() {
    for raw in [
        "HTTP/1.1 204 No Content\r\nX-Kept: 1\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nX-Kept: 1\r\nETag: \"x\"\r\nContent-Length: 1234\r\n\r\n",
    ] {
        let backend = Backend::answering("b", raw);
        let (_redis, router) = stage(&backend);
        let mut client = Client::connect(router.addr());
        for _ in 0..2 {
            let response = client.get("a.test", "/");
            assert_eq!(response.header("x-kept"), Some("1"), "{raw}");
            assert!(!response.head.has("transfer-encoding"), "{raw}: {response:?}");
        }
    }
}

/// 204 says nothing of a length (RFC 9110 8.6), and nothing of a coding (RFC 9112 6.1).
#[test]
fn a_204_says_nothing_of_its_length() {
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let raw = format!("HTTP/1.1 204 No Content\r\nX-Kept: 1\r\n{framing}\r\n\r\n");
        let backend = Backend::answering("b", raw);
        let redis = Redis::start();
        redis.frontend("a.test", "id", &[&backend.url()]);
        let router = Router::builder(&redis).set("http.h2c", true).start();
        let mut client = Client::connect(router.addr());
        for method in ["GET", "HEAD", "GET"] {
            client.send(format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            let head = client.response_to(method).head;
            assert_eq!((head.status(), head.header("x-kept")), (204, Some("1")));
            let has_framing = head.has("content-length") || head.has("transfer-encoding");
            assert!(!has_framing, "{method} {framing}: {head:?}");
        }
        let response = http2::Client::connect(router.addr()).get("http://a.test/");
        assert_eq!(response.status, 204);
        assert!(!response.headers.contains_key("content-length"), "{framing}: {response:?}");
    }
}

/// "Pipelined requests" are answered in their order, and each goes to its own host.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let redis = Redis::start();
    let gate = Gate::new();
    let (slow, quick) = (Backend::gated("slow", &gate), Backend::start("quick"));
    redis.frontend("slow.test", "id", &[&slow.url()]);
    redis.frontend("quick.test", "id", &[&quick.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    let hosts = ["slow.test", "quick.test", "unknown.test", "slow.test", "quick.test"];
    let requests: String =
        hosts.map(|host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).concat();
    client.send(requests);
    slow.wait_for_requests(1);
    gate.open();
    let answers: Vec<_> = hosts
        .iter()
        .map(|_| {
            let response = client.response();
            if response.status() == 200 { response.text() } else { response.status().to_string() }
        })
        .collect();
    assert_eq!(answers, ["slow", "quick", "400", "slow", "quick"]);
}

/// Keep-alive with the client: HTTP/1.1 unless it says `close`, HTTP/1.0 only when it says
/// `keep-alive`.
#[test]
fn the_clients_connection_lives_as_long_as_it_wants() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.get("a.test", "/");
    let last = client.get_with("a.test", "/", "Connection: close\r\n");
    assert_eq!(last.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"));
    assert!(client.is_closed());

    let mut old = Client::connect(router.addr());
    let response = old.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").response();
    assert_eq!(response.text(), "b");
    assert!(old.is_closed());

    let mut old = Client::connect(router.addr());
    for _ in 0..2 {
        let response =
            old.send("GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n").response();
        assert_eq!(response.text(), "b");
        let connection = response.header("connection").unwrap_or_default().to_ascii_lowercase();
        assert_eq!(connection, "keep-alive");
    }
}

/// "HTTP/1.0 clients": they know no chunks, so a chunked response reaches them as plain bytes until
/// the end.
#[test]
fn a_client_of_http_1_0_gets_no_chunks() {
    let backend = Backend::answering(
        "b",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    );
    let (_redis, router) = stage(&backend);
    for keep_alive in ["", "Connection: keep-alive\r\n"] {
        let mut client = Client::connect(router.addr());
        client.send(format!("GET / HTTP/1.0\r\nHost: a.test\r\n{keep_alive}\r\n"));
        let response = client.response();
        assert_eq!(response.framing, Framing::UntilClose);
        assert_eq!(response.text(), "hello world");
    }
}

/// The authority of an absolute-form target wins over `Host` (RFC 9112 3.2.2), and the backend gets
/// the winner.
#[test]
fn the_authority_of_an_absolute_target_wins() {
    let backend = Backend::start("b");
    let (redis, router) = stage(&backend);
    let other = Backend::start("other");
    redis.frontend("other.test", "id", &[&other.url()]);
    let mut client = Client::connect(router.addr());
    let response =
        client.send("GET http://A.test:81/p?q HTTP/1.1\r\nHost: other.test\r\n\r\n").response();
    assert_eq!(response.text(), "b");
    for empty in ["http://a.test", "http://a.test#fragment", "http://a.test?q"] {
        let request = format!("GET {empty} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(client.send(request).response().text(), "b", "{empty}");
    }
    let requests = backend.requests();
    assert_eq!(requests[0].head.start_line, "GET /p?q HTTP/1.1");
    assert_eq!(requests[0].head.values("host").len(), 1);
    assert_eq!(requests[0].head.values("host")[0].to_ascii_lowercase(), "a.test:81");
    // An empty path is `/` (RFC 9112 3.2.1).
    assert_eq!(requests[1].head.start_line, "GET / HTTP/1.1");
    assert_eq!(requests[2].head.start_line, "GET / HTTP/1.1");
    assert_eq!(requests[3].head.start_line, "GET /?q HTTP/1.1");
    assert_eq!(other.connections(), 0);
}

/// An early response, while the body still comes, reaches the client, which may still be sending.
#[test]
fn an_answer_while_the_body_still_comes_reaches_the_client() {
    let gate = Gate::new();
    let backend = Backend::with("b", {
        let gate = gate.clone();
        move |exchange| {
            exchange.respond(200, &[], b"early")?;
            gate.wait()?;
            exchange.read_body()?;
            Ok(Next::KeepAlive)
        }
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\n\r\nfirst ");
    let response = client.response();
    assert_eq!((response.status(), response.text().as_str()), (200, "early"));
    gate.open();
}

/// A backend that refuses a large upload and closes: its answer is not lost to the reset that
/// follows (RFC 9112 9.6).
#[test]
fn a_refused_upload_gets_the_refusal() {
    let backend = Backend::with("b", |exchange| {
        exchange.respond(413, &[("Connection", "close")], b"too large")?;
        Ok(Next::Close)
    });
    let (_redis, router) = stage(&backend);
    for _ in 0..5 {
        let mut client = Client::connect(router.addr());
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 50000000\r\n\r\n");
        // The client may be cut off while it sends; what counts is that the answer is there to be
        // read.
        drop(client.conn().send_filling(50_000_000));
        let response = client.response();
        assert_eq!((response.status(), response.text().as_str()), (413, "too large"));
    }
}

/// Back-pressure: a client that does not read stops the backend.
#[test]
fn a_slow_reader_slows_the_backend_down() {
    const SIZE: u64 = 256 * 1024 * 1024;
    let stalled = Gate::new();
    let backend = Backend::with("b", {
        let stalled = stalled.clone();
        move |exchange| {
            exchange
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes())?;
            exchange.conn.set_limit(Some(Duration::from_millis(500)));
            let error = exchange.conn.send_filling(SIZE).expect_err("sent although nobody reads");
            assert!(integration::wire::is_late(&error), "{error}");
            stalled.open();
            Ok(Next::Close)
        }
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.head().expect("a head").status(), 200);
    let before = router.process().memory_kb("VmHWM");
    eventually(DEADLINE, "the backend cannot send any more", || stalled.is_open());
    let after = router.process().memory_kb("VmHWM");
    assert!(after < before + 16 * 1024, "VmHWM grew from {before} to {after} kB");
}

/// Back-pressure the other way: a backend that does not read stops the client.
#[test]
fn a_slow_backend_slows_the_client_down() {
    const SIZE: u64 = 256 * 1024 * 1024;
    let gate = Gate::new();
    let backend = Backend::with("b", {
        let gate = gate.clone();
        move |exchange| {
            gate.wait()?;
            exchange.conn.set_limit(Some(Duration::from_secs(60)));
            exchange.conn.skip(SIZE)?;
            exchange.respond(200, &[], b"all")?;
            Ok(Next::KeepAlive)
        }
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr()).patient_for(Duration::from_secs(60));
    client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {SIZE}\r\n\r\n"));
    backend.wait_for_requests(1);
    let before = router.process().memory_kb("VmHWM");
    // What the sockets' buffers take is far below this; the rest has to wait.
    client.conn().set_limit(Some(Duration::from_millis(500)));
    let error =
        client.conn().send_filling(SIZE).expect_err("everything was taken although nobody reads");
    assert!(integration::wire::is_late(&error), "{error}");
    let after = router.process().memory_kb("VmHWM");
    assert!(after < before + 16 * 1024, "VmHWM grew from {before} to {after} kB");
    gate.open();
}
