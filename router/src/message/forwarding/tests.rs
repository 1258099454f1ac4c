//! Forwarded fields as a backend gets them.

use std::net::IpAddr;

use proptest::prelude::*;

use super::super::client_info::{ClientInfo, Style, Trust};
use super::super::request_head::{Outgoing, write_request};
use super::super::testing::{Request, lines};
use super::Forwarding;

const PLAIN: Style = Style { plain_ipv4: true, rfc_7239: false };
const BOTH: Style = Style { plain_ipv4: true, rfc_7239: true };

fn info(style: Style, trust: Trust) -> ClientInfo {
    let (peer, local) = ("1.2.3.4:5".parse().unwrap(), "127.0.0.1:8080".parse().unwrap());
    ClientInfo::new(peer, local, false, style, trust)
}

fn is_ten(address: IpAddr) -> bool {
    address.to_string().starts_with("10.")
}

fn is_peer(address: IpAddr) -> bool {
    address.to_string() == "1.2.3.4"
}

/// The fields of a request that was sent with these behind `Host`, without that.
fn sent(style: Style, trust: Trust, fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let request = Request::with(fields);
    let forwarding = info(style, trust).resolve(&request.head, &request.buf, b"a", is_peer);
    let mut out = Vec::new();
    write_request(
        &mut out,
        &Outgoing {
            head: &request.head,
            buf: &request.buf,
            options: request.accepted.options,
            body: request.accepted.body,
            host: None,
            forwarding: &forwarding,
            ids: None,
            hops: None,
            upgrade: None,
            close: false,
        },
    );
    let mut lines = lines(&out);
    assert_eq!(lines.remove(0).0, "Host");
    lines
}

#[track_caller]
fn assert_lines(lines: &[(String, String)], expected: &[(&str, &str)]) {
    let lines: Vec<_> = lines.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(lines, expected);
}

fn values<'a>(lines: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let of_name = lines.iter().filter(|line| line.0.eq_ignore_ascii_case(name));
    of_name.map(|(_, value)| &**value).collect()
}

/// hipache-contract 2, "Headers to the backend, each only if the client did not send it".
#[test]
fn missing_fields_are_added_behind_the_clients() {
    let style = Style::default();
    assert_lines(
        &sent(style, Trust::Keep, &[("x-forwarded-Proto", "https"), ("A", "b")]),
        &[
            ("x-forwarded-Proto", "https"),
            ("A", "b"),
            ("X-Forwarded-For", "::ffff:1.2.3.4"),
            ("X-Real-IP", "::ffff:1.2.3.4"),
            ("X-Forwarded-Protocol", "http"),
            ("X-Forwarded-Port", "8080"),
        ],
    );
}

/// hipache-contract 2, `trustedProxies`.
#[test]
fn trusted_proxies_are_appended_to_and_others_overwritten() {
    let brought = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("x-forwarded-for", "7.7.7.7"),
        ("X-Forwarded-Proto", "https"),
        ("Forwarded", "for=x"),
    ];
    assert_lines(
        &sent(PLAIN, Trust::Append, &brought)[..3],
        &[
            ("X-Forwarded-For", "6.6.6.6, 7.7.7.7, 1.2.3.4"),
            ("X-Forwarded-Proto", "https"),
            ("Forwarded", "for=x"),
        ],
    );
    assert_lines(
        &sent(PLAIN, Trust::Append, &brought[1..3])[..2],
        &[("x-forwarded-for", "7.7.7.7, 1.2.3.4"), ("X-Forwarded-Proto", "https")],
    );
    assert_lines(
        &sent(PLAIN, Trust::Overwrite, &brought),
        &[
            ("X-Forwarded-For", "1.2.3.4"),
            ("X-Forwarded-Proto", "http"),
            ("X-Real-IP", "1.2.3.4"),
            ("X-Forwarded-Protocol", "http"),
            ("X-Forwarded-Port", "8080"),
        ],
    );
}

/// Whatever of it the router does not set would be believed by backends.
#[test]
fn no_forwarded_field_of_an_untrusted_peer_is_left() {
    let brought = [
        ("X-Forwarded-Host", "evil.test"),
        ("Accept", "a"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Ssl", "on"),
        ("X-Forwarded-Scheme", "https"),
        ("X-Forwarded-Prefix", "/a"),
        ("X-Forwarded-Prefix", "/b"),
        ("X-Forwarded-Anything", "1"),
        ("X-Forward", "kept"),
    ];
    assert_lines(
        &sent(PLAIN, Trust::Overwrite, &brought),
        &[
            ("Accept", "a"),
            ("X-Forwarded-Proto", "http"),
            ("X-Forward", "kept"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("X-Real-IP", "1.2.3.4"),
            ("X-Forwarded-Protocol", "http"),
            ("X-Forwarded-Port", "8080"),
        ],
    );
    for trust in [Trust::Keep, Trust::Append] {
        assert_lines(&sent(PLAIN, trust, &brought)[..brought.len()], &brought);
    }
}

#[test]
fn names_with_underscores_do_not_shadow_forwarded_fields() {
    let brought = [("X_Forwarded_For", "6.6.6.6"), ("x_real_ip", "6.6.6.6"), ("x_other", "1")];
    for (trust, kept) in [(Trust::Append, 1), (Trust::Overwrite, 1), (Trust::Keep, 3)] {
        let lines = sent(PLAIN, trust, &brought);
        let kept_lines: Vec<_> = lines.iter().filter(|line| line.0.contains('_')).collect();
        assert_eq!(kept_lines.len(), kept, "{trust:?}");
        assert_eq!(values(&lines, "x_other"), ["1"]);
    }
}

/// Both fields tell one story, whichever of them a trusted proxy writes.
#[test]
fn forwarded_of_rfc_7239_and_its_older_relatives_agree() {
    let own = "for=1.2.3.4;proto=http;host=a";
    for (trust, brought, expected) in [
        (Trust::Keep, &[][..], &[("forwarded", own)][..]),
        (Trust::Keep, &[("Forwarded", "for=9.9.9.9")], &[("forwarded", "for=9.9.9.9")]),
        (Trust::Overwrite, &[("Forwarded", "for=9.9.9.9")], &[("forwarded", own)]),
        (
            Trust::Append,
            &[("Forwarded", "for=9.9.9.9, for=\"8.8.8.8:1\";proto=https")],
            &[
                ("forwarded", &format!("for=9.9.9.9, for=\"8.8.8.8:1\";proto=https, {own}")),
                ("x-forwarded-for", "9.9.9.9, 8.8.8.8, 1.2.3.4"),
                ("x-forwarded-proto", "https"),
                ("x-real-ip", "8.8.8.8"),
            ],
        ),
        (
            Trust::Append,
            &[("X-Forwarded-For", "9.9.9.9, x")],
            &[
                ("forwarded", &format!("for=9.9.9.9, for=unknown, {own}")),
                ("x-forwarded-for", "9.9.9.9, x, 1.2.3.4"),
                ("x-forwarded-proto", "http"),
            ],
        ),
        (Trust::Append, &[("Forwarded", "nonsense")], &[("forwarded", own)]),
        (Trust::Append, &[], &[("forwarded", own), ("x-forwarded-for", "1.2.3.4")]),
        (
            Trust::Append,
            &[("Forwarded", "for=_x"), ("Forwarded", "for=9.9.9.9;proto=ftp")],
            &[
                ("forwarded", &format!("for=_x, for=9.9.9.9;proto=ftp, {own}")),
                ("x-forwarded-for", "unknown, 9.9.9.9, 1.2.3.4"),
                ("x-forwarded-proto", "http"),
                ("x-real-ip", "9.9.9.9"),
            ],
        ),
    ] {
        let lines = sent(BOTH, trust, brought);
        for (name, value) in expected {
            assert_eq!(values(&lines, name), [*value], "{name} of {trust:?} {brought:?}");
        }
    }
}

fn resolved(trust: Trust, fields: &[(&str, &str)]) -> (Request, Forwarding) {
    let request = Request::with(fields);
    let forwarding = info(PLAIN, trust).resolve(&request.head, &request.buf, b"a", is_ten);
    (request, forwarding)
}

#[test]
fn client_is_the_last_address_that_is_not_a_proxys() {
    for (chain, client) in [
        (&["1.1.1.1, 10.0.0.1"][..], Some("1.1.1.1")),
        (&["6.6.6.6, 1.1.1.1", "10.0.0.2,10.0.0.1"], Some("1.1.1.1")),
        (&["10.0.0.3, 10.0.0.1"], Some("10.0.0.3")),
        (&["[2001:db8::1]:80, 10.0.0.1"], Some("2001:db8::1")),
        (&["::ffff:1.1.1.1 , ::ffff:10.0.0.1"], Some("1.1.1.1")),
        (&["1.1.1.1, unknown, 10.0.0.1"], None),
        (&["1.1.1.1,, 10.0.0.1"], None),
        (&[], Some("10.0.0.9")),
    ] {
        let fields: Vec<_> = chain.iter().map(|value| ("X-Forwarded-For", *value)).collect();
        let request = Request::with(&fields);
        let (peer, local) = ("10.0.0.9:5".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
        let info = ClientInfo::new(peer, local, false, PLAIN, Trust::Append);
        let forwarding = info.resolve(&request.head, &request.buf, b"a", is_ten);
        let seen = forwarding.client_address(&request.head, &request.buf, is_ten);
        assert_eq!(seen, client.map(|client| client.parse().unwrap()), "{chain:?}");
        // Where the chain cannot be read, the peer is what is certain.
        let real_ip = String::from_utf8(forwarding.real_ip(&request.buf).to_vec()).unwrap();
        assert_eq!(real_ip, client.unwrap_or("10.0.0.9"), "{chain:?}");
    }
    // An untrusted peer is the client, whatever it says.
    for trust in [Trust::Keep, Trust::Overwrite, Trust::Append] {
        let (request, forwarding) = resolved(trust, &[("X-Forwarded-For", "1.1.1.1")]);
        let seen = forwarding.client_address(&request.head, &request.buf, is_ten);
        assert_eq!(seen.unwrap().to_string(), "1.2.3.4");
    }
}

#[test]
fn real_ip_is_what_the_backend_gets() {
    let fields = [("X-Real-IP", "9.9.9.9"), ("X-Real-IP", "8.8.8.8")];
    for (trust, expected) in
        [(Trust::Keep, "9.9.9.9"), (Trust::Append, "9.9.9.9"), (Trust::Overwrite, "1.2.3.4")]
    {
        let (request, forwarding) = resolved(trust, &fields);
        assert_eq!(forwarding.real_ip(&request.buf), expected.as_bytes(), "{trust:?}");
        assert_eq!(values(&sent(PLAIN, trust, &fields), "x-real-ip")[0], expected);
    }
}

#[test]
fn first_of_a_list_says_whether_it_was_https() {
    for (protos, expected) in [
        (&["https"][..], true),
        (&["WSS"], true),
        (&["https,https"], true),
        (&["https, http"], true),
        (&[" HTTPS , http"], true),
        (&["https", "http"], true),
        (&["http"], false),
        (&["http, https"], false),
        (&["http", "https"], false),
        (&[",https"], false),
        (&["httpsx"], false),
        (&[""], false),
        (&[], false),
    ] {
        let fields: Vec<_> = protos.iter().map(|proto| ("X-Forwarded-Proto", *proto)).collect();
        for (trust, believes) in
            [(Trust::Keep, true), (Trust::Append, true), (Trust::Overwrite, false)]
        {
            let (request, forwarding) = resolved(trust, &fields);
            let seen = forwarding.is_https(&request.head, &request.buf);
            assert_eq!(seen, expected && believes, "{protos:?} {trust:?}");
        }
    }
}

/// Only a trusted proxy may say that a request over our own TLS came without it.
#[test]
fn own_encryption_is_https_unless_a_trusted_proxy_says_otherwise() {
    let (peer, local) = ("1.2.3.4:5".parse().unwrap(), "127.0.0.1:443".parse().unwrap());
    for (over_tls, trust, proto, expected) in [
        (true, Trust::Keep, "http", true),
        (true, Trust::Overwrite, "http", true),
        (true, Trust::Append, "http", false),
        (true, Trust::Append, "https", true),
        (false, Trust::Keep, "https", true),
        (false, Trust::Overwrite, "https", false),
        (false, Trust::Append, "https", true),
    ] {
        let request = Request::with(&[("X-Forwarded-Proto", proto)]);
        let info = ClientInfo::new(peer, local, over_tls, PLAIN, trust);
        let forwarding = info.resolve(&request.head, &request.buf, b"a", is_peer);
        let seen = forwarding.came_by_https(&request.head, &request.buf);
        assert_eq!(seen, expected, "{over_tls} {trust:?} {proto}");
    }
}

proptest! {
    #[test]
    fn any_value_is_survived(value in "[ -~]{0,60}", trusts in any::<bool>()) {
        let fields = [("X-Forwarded-For", value.trim()), ("Forwarded", value.trim())];
        let request = Request::with(&fields);
        for trust in [Trust::Keep, Trust::Append, Trust::Overwrite] {
            let forwarding = info(BOTH, trust).resolve(&request.head, &request.buf, b"a", |_| trusts);
            let client = forwarding.client_address(&request.head, &request.buf, |_| trusts);
            prop_assert!(client.is_some() || trust == Trust::Append);
            prop_assert!(!forwarding.real_ip(&request.buf).is_empty());
        }
    }
}
