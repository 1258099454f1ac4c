//! Chunked request bodies and bodies that are cut (RFC 9112 section 7.1): no backend ever takes what is
//! doubtful for a whole body, and the client's connection ends.

use super::{Probe, Stage, play};

const HEAD: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";

fn malformed(name: &'static str, chunks: impl Into<String>) -> Probe {
    let chunks = chunks.into();
    Probe::new(name, move |stage| {
        let before = stage.backend.request_count();
        let mut client = stage.connect();
        drop(client.conn().send(format!("{HEAD}{chunks}").as_bytes()));
        let response = client.response();
        assert_eq!(response.status(), 400, "{response:?}");
        assert!(client.is_closed(), "the connection goes on");
        for request in stage.backend.requests().split_off(before) {
            assert!(!request.body.is_some_and(|body| body.complete), "{:?}", request.head);
        }
    })
}

fn truncated(name: &'static str, rest: &'static str) -> Probe {
    Probe::new(name, move |stage| {
        let before = stage.backend.request_count();
        let mut client = stage.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{rest}"));
        stage.backend.wait_for_requests(before + 1);
        drop(client);
        stage.backend.wait_for_open(0);
        let body = stage.backend.requests()[before].body.clone().unwrap_or_default();
        assert!(!body.complete, "{body:?}");
    })
}

pub(crate) fn probes() -> Vec<Probe> {
    let end = "abc\r\n0\r\n\r\n";
    vec![
        malformed("h1.chunk_nonhex", format!("g\r\n{end}")),
        malformed("h1.chunk_hexprefix", format!("0x3\r\n{end}")),
        malformed("h1.chunk_lead_space", format!(" 3\r\n{end}")),
        malformed("h1.chunk_overflow", format!("10000000000000003\r\n{end}")),
        malformed("h1.chunk_neg", format!("-3\r\n{end}")),
        malformed("h1.chunk_plus", format!("+3\r\n{end}")),
        malformed("h1.chunk_noterm", "3\r\nabc0\r\n\r\n"),
        malformed("h1.chunk_barelf", "3\nabc\n0\n\n"),
        malformed("h1.chunk_lf_ext", format!("3;a\nb\r\n{end}")),
        malformed("h1.chunk_cr_ext", format!("3;a\rb\r\n{end}")),
        malformed("h1.chunk_underscore", format!("0_3\r\n{end}")),
        malformed("h1.chunk_empty", format!("\r\n{end}")),
        malformed("h1.chunk_ext_1MB", format!("3;{}\r\n{end}", "x".repeat(1024 * 1024))),
        Probe::forwarded(
            "h1.chunk_trailer_host",
            format!("{HEAD}3\r\nabc\r\n0\r\nHost: evil.test\r\nContent-Length: 9\r\n\r\n"),
            |seen, _, _| {
                assert_eq!(seen.head.values("host"), ["a.test"]);
                let trailers = seen.body.clone().unwrap_or_default().trailers;
                for (name, _) in trailers {
                    assert!(!["host", "content-length"].contains(&&*name.to_lowercase()), "{name}");
                }
            },
        ),
        truncated("truncated_request_body", "Content-Length: 100\r\n\r\nshort"),
        truncated("truncated_request_chunked", "Transfer-Encoding: chunked\r\n\r\nff\r\nshort"),
    ]
}

#[test]
fn no_doubtful_body_is_taken_for_a_whole_one() {
    play(&Stage::new(|builder| builder), &probes());
}
