//! What backends answer: doubtful framing is 502, a cut body ends the client's connection visibly, and
//! nothing is left over for the next client.

use integration::backend::{Backend, Next};
use integration::client::Response;

use super::{Probe, Stage, play};

/// A backend that sends these bytes and closes, or resets where it says so.
fn raw(bytes: impl Into<Vec<u8>>, next: Next) -> Backend {
    let bytes = bytes.into();
    Backend::with("raw", move |exchange| {
        exchange.read_body()?;
        exchange.send(&bytes)?;
        Ok(next)
    })
}

/// The body is cut, and the client can see it.
fn cut(name: &'static str, bytes: &'static str, next: Next) -> Probe {
    Probe::new(name, move |stage| {
        let backend = raw(bytes, next);
        let host = stage.host(&backend);
        let mut client = stage.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        // What breaks off at once may not even have a head.
        if let Some(head) = client.head()
            && head.status() != 502
        {
            let framing = head.response_framing("GET").expect("one framing");
            let body = client.conn().read_body(framing).expect("a body");
            assert!(!body.complete, "a cut body looks whole: {head:?} {body:?}");
            assert!(client.is_closed(), "the connection goes on");
        }
    })
}

/// An answer that is not passed on.
fn refused(name: &'static str, bytes: impl Into<Vec<u8>>) -> Probe {
    let bytes = bytes.into();
    Probe::new(name, move |stage| {
        let response = answer(stage, &raw(bytes.clone(), Next::Close));
        assert_eq!(response.status(), 502, "{response:?}");
    })
}

fn answer(stage: &Stage, backend: &Backend) -> Response {
    let host = stage.host(backend);
    stage.connect().get(&host, "/")
}

pub(crate) fn probes() -> Vec<Probe> {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nten bytes.";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nten bytes.";
    let ok = "HTTP/1.1 200 OK\r\n";
    vec![
        cut("resp.fin-mid-cl", length, Next::Close),
        cut("resp.rst-mid-cl", length, Next::Reset),
        cut("resp.fin-mid-chunk", chunked, Next::Close),
        cut("resp.rst-mid-chunk", chunked, Next::Reset),
        cut("resp.rst-eof-body", "HTTP/1.1 200 OK\r\n\r\nten bytes.", Next::Reset),
        cut(
            "resp.resp-bad-chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n",
            Next::Close,
        ),
        Probe::new("resp.resp-te-cl", |stage| {
            let backend = raw(
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                Next::KeepAlive,
            );
            let response = answer(stage, &backend);
            if response.status() != 502 {
                assert_eq!(response.text(), "abc");
                assert!(
                    response.head.has("content-length") != response.head.has("transfer-encoding")
                );
            }
            // Nobody else gets such a connection.
            backend.wait_for_open(0);
        }),
        refused(
            "resp.resp-dup-cl",
            format!("{ok}Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"),
        ),
        refused("resp.resp-neg-cl", format!("{ok}Content-Length: -3\r\n\r\nabc")),
        refused("resp.resp-obsfold", format!("{ok}X: a\r\n b\r\nContent-Length: 0\r\n\r\n")),
        refused("resp.resp-nul", format!("{ok}X: a\0b\r\nContent-Length: 0\r\n\r\n")),
        refused("resp.resp-barecr", format!("{ok}X: a\rb\r\nContent-Length: 0\r\n\r\n")),
        refused(
            "resp.resp-hugehdr",
            format!("{ok}X: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(1024 * 1024)),
        ),
        refused(
            "resp.resp-manyhdr",
            format!("{ok}{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(10_000)),
        ),
        refused(
            "resp.resp-101",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n",
        ),
        refused("resp.resp-garbage", "\x16\x03\x01 this is no HTTP\r\n\r\n"),
        refused("resp.resp-http2line", "HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n"),
        refused("resp.resp-status", "HTTP/1.1 99999 What\r\nContent-Length: 0\r\n\r\n"),
        refused("resp.fin-mid-head", "HTTP/1.1 200 OK\r\nContent-Le"),
        Probe::new("resp_split_poison", |stage| {
            poisonless(
                stage,
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
                (200, "ok"),
            );
        }),
        Probe::new("resp_204_body", |stage| {
            poisonless(
                stage,
                "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
                (204, ""),
            );
        }),
        Probe::new("resp_hop_stripped", |stage| {
            let backend = raw(
                "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
                 Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
                Next::KeepAlive,
            );
            let response = answer(stage, &backend);
            assert_eq!(response.status(), 200);
            for name in ["x-hop", "keep-alive", "proxy-connection", "upgrade"] {
                assert!(!response.head.has(name), "{name} leaked: {:?}", response.head);
            }
        }),
        Probe::new("resp_1xx_flood", |stage| {
            let flood = "HTTP/1.1 102 Processing\r\n\r\n".repeat(10_000);
            let response = answer(
                stage,
                &raw(
                    format!("{flood}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"),
                    Next::Close,
                ),
            );
            assert!([200, 502].contains(&response.status()), "{response:?}");
            assert!(response.informational.len() <= 100, "{}", response.informational.len());
        }),
        Probe::new("resp_early_reject", early_reject),
    ]
}

/// Ten requests over one connection get their own answers, whatever the backend sends beyond them.
fn poisonless(stage: &Stage, bytes: &'static str, expected: (u16, &str)) {
    let backend = raw(bytes, Next::KeepAlive);
    let host = stage.host(&backend);
    let mut client = stage.connect();
    for number in 0..10 {
        let response = client.get(&host, "/");
        assert_eq!((response.status(), response.text().as_str()), expected, "request {number}");
    }
}

/// A backend that refuses an upload and closes without reading it: its answer arrives, not a 502.
fn early_reject(stage: &Stage) {
    let backend = raw_early();
    let host = stage.host(&backend);
    let mut client = stage.connect();
    let size = 4 * 1024 * 1024;
    client.send(format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n"));
    // The router may stop taking it once it has the answer.
    drop(client.conn().send_filling(size));
    let response = client.response();
    assert_eq!((response.status(), response.text().as_str()), (413, "too large"));
}

fn raw_early() -> Backend {
    Backend::with("early", |exchange| {
        exchange.respond(413, &[("Connection", "close")], b"too large")?;
        Ok(Next::Close)
    })
}

#[test]
fn doubtful_answers_end_where_they_came_from() {
    play(&Stage::new(|builder| builder), &probes());
}
