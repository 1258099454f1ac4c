//! Heads of requests: lengths, transfer codings, lines that are none, versions and methods (RFC 9112
//! sections 2 to 6).

use super::{Probe, Stage, play};

fn post(headers: &str) -> Vec<u8> {
    format!("POST /p HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n\r\n3\r\nabc\r\n0\r\n\r\n").into()
}

fn get(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: a.test\r\n\r\n").into()
}

pub(crate) fn probes() -> Vec<Probe> {
    let refused = |name, headers| Probe::refused(name, post(headers));
    let mut probes = vec![
        // The chunks count, as RFC 9112 6.3 says, and nothing more is read from this connection.
        Probe::forwarded(
            "h1.cl_te_both",
            post("Content-Length: 5\r\nTransfer-Encoding: chunked"),
            |seen, _, client| {
                assert!(!seen.head.has("content-length"), "{:?}", seen.head);
                assert_eq!(seen.body.as_ref().map(|body| &body.data[..]), Some(&b"abc"[..]));
                assert!(client.is_closed(), "the connection goes on");
            },
        ),
        Probe::forwarded(
            "h1.cl_dup_same",
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            |seen, _, _| assert_eq!(seen.head.values("content-length"), ["5"]),
        ),
        refused("h1.cl_dup_diff", "Content-Length: 3\r\nContent-Length: 5"),
        refused("h1.cl_plus", "Content-Length: +5"),
        refused("h1.cl_minus", "Content-Length: -5"),
        refused("h1.cl_hex", "Content-Length: 0x5"),
        refused("h1.cl_comma", "Content-Length: 5, 5"),
        refused("h1.cl_empty", "Content-Length:"),
        refused("h1.cl_space", "Content-Length: 5 5"),
        refused("h1.cl_huge", "Content-Length: 18446744073709551621"),
        refused("h1.cl_float", "Content-Length: 5.0"),
        refused("h1.te_xchunked", "Transfer-Encoding: xchunked"),
        refused("h1.te_ident_chunked", "Transfer-Encoding: identity, chunked"),
        refused("h1.te_chunked_ident", "Transfer-Encoding: chunked, identity"),
        refused("h1.te_dup2", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        refused("h1.te_comma", "Transfer-Encoding: ,chunked"),
        refused("h1.te_chunkedcomma", "Transfer-Encoding: chunked,"),
        refused("h1.te_quoted", "Transfer-Encoding: \"chunked\""),
        refused("h1.te_vt", "Transfer-Encoding: \x0bchunked"),
        Probe::refused(
            "h1.te_http10",
            "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        refused("h1.space_before_colon", "Content-Length : 5"),
        refused("h1.obs_fold", "X: a\r\n b"),
        Probe::refused("h1.first_line_fold", "GET / HTTP/1.1\r\n Host: a.test\r\n\r\n"),
        refused("h1.bare_cr_value", "X: a\rb"),
        refused("h1.nul_value", "X: a\0b"),
        refused("h1.ctl_value", "X: a\x01b"),
        Probe::refused("h1.bare_lf", "GET / HTTP/1.1\nHost: a.test\n\n"),
        Probe::refused("h1.name_nonascii", b"GET / HTTP/1.1\r\nHost: a.test\r\nX\xe9: a\r\n\r\n"),
        refused("h1.name_empty", ": a"),
        refused("h1.no_colon", "no colon"),
        // The fragment is the client's own (RFC 9110 7.1): it is cut off.
        Probe::forwarded("h1.target_fragment", get("GET /a#b HTTP/1.1"), |seen, _, _| {
            assert_eq!(seen.head.target(), "/a");
        }),
        Probe::refused("h1.target_nul", get("GET /a\0b HTTP/1.1")),
        Probe::refused("h1.target_nonascii", b"GET /\xe9 HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        Probe::refused("h1.target_space", get("GET /a b HTTP/1.1")),
        Probe::refused("h1.version_09", "GET /\r\n\r\n"),
        Probe::refused_with("h1.version_12", &[400, 505], get("GET / HTTP/1.2")),
        Probe::refused_with("h1.version_20", &[400, 505], get("GET / HTTP/2.0")),
        Probe::refused_with("h1.version_09x", &[400, 505], get("GET / HTTP/0.9")),
        Probe::refused("h1.method_bad", get("G(T / HTTP/1.1")),
        Probe::new("h1.trace", |stage| not_allowed(stage, "TRACE / HTTP/1.1")),
        Probe::new("h1.connect", |stage| not_allowed(stage, "CONNECT a.test:443 HTTP/1.1")),
    ];
    let uri = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(65_536));
    let large = "x".repeat(128 * 1024);
    let large = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {large}\r\n\r\n");
    let many = "X: y\r\n".repeat(10_000);
    let many = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{many}\r\n");
    probes.extend([
        Probe::refused_with("h1.uri_64k", &[400, 414, 431], uri.clone()),
        Probe::refused_with("h1_uri_status", &[414], uri),
        Probe::refused_with("h1.hdr_128k", &[400, 431], large.clone()),
        Probe::refused_with("h1_hdr_status", &[431], large),
        Probe::refused_with("h1.hdr_10000", &[431], many),
    ]);
    probes
}

fn not_allowed(stage: &Stage, line: &str) {
    let before = stage.backend.request_count();
    let mut client = stage.connect();
    client.send(format!("{line}\r\nHost: a.test\r\nCookie: secret\r\n\r\n"));
    let response = client.response();
    assert_eq!(response.status(), 405);
    assert!(!response.text().contains("secret"));
    assert_eq!(stage.backend.request_count(), before, "it was forwarded");
}

#[test]
fn heads_have_one_reading() {
    play(&Stage::new(|builder| builder), &probes());
}
