//! Whose request it is: one valid host, wherever it stands (RFC 9112 section 3.2).

use super::{Probe, Stage, play};

pub(crate) fn probes() -> Vec<Probe> {
    let host = |name, value: &[u8]| {
        Probe::refused(name, [b"GET / HTTP/1.1\r\nHost: ", value, b"\r\n\r\n"].concat())
    };
    vec![
        Probe::refused("h1.host_missing", "GET / HTTP/1.1\r\nX: y\r\n\r\n"),
        Probe::refused("h1.host_dup", "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n"),
        Probe::refused(
            "h1.host_dup_same",
            "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
        ),
        host("h1.host_space", b"a.test b.test"),
        host("h1.host_slash", b"a.test/b"),
        host("h1.host_at", b"x@a.test"),
        host("h1.host_comma", b"a.test,b.test"),
        host("h1.host_backslash", b"a.test\\b"),
        host("h1.host_ctl", b"a.test\x01"),
        host("h1.host_nonascii", b"a.test\xe9"),
        host("h1.host_badport", b"a.test:99999"),
        host("h1.host_portalpha", b"a.test:8a"),
        host("h1.host_quote", b"\"a.test\""),
        // The target wins, and the backend gets the winner (RFC 9112 3.2.2).
        Probe::forwarded(
            "h1.absform_mismatch",
            "GET http://a.test/p HTTP/1.1\r\nHost: evil.test\r\n\r\n",
            |seen, _, _| {
                assert_eq!(seen.head.values("host"), ["a.test"]);
                assert_eq!(seen.head.start_line, "GET /p HTTP/1.1");
            },
        ),
        Probe::forwarded(
            "h1.absform_userinfo",
            "GET http://u:p@a.test/p HTTP/1.1\r\nHost: a.test\r\n\r\n",
            |seen, _, _| {
                assert_eq!(seen.head.values("host"), ["a.test"]);
                assert_eq!(seen.head.start_line, "GET /p HTTP/1.1");
            },
        ),
    ]
}

#[test]
fn a_request_belongs_to_one_valid_host() {
    play(&Stage::new(|builder| builder), &probes());
}
