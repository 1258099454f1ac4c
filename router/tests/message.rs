//! Heads as backends and clients get them, for any head: written once, read again strictly, and compared with
//! the functions on `HeaderMap` that are on the data path.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use router::http1::connection::{HopByHop, Options};
use router::http1::framing;
use router::http1::head::{HeadLimits, RequestHead, ResponseHead, Version};
use router::http1::known::KnownField;
use router::http1::server::{Accepted, Connection, HeadStep};
use router::message::client_info::{ClientInfo, Style, Trust};
use router::message::request::RequestFacts;
use router::message::request_head::{Outgoing, write_request};
use router::message::request_ids::RequestIds;
use router::message::request_kind::RequestKind;
use router::message::response_head::{ResponseEdits, write_response};
use router::message::{hops, response_head};
use router::proxy::{headers as old, hops as old_hops, request_id, request_kind};

const LIMITS: HeadLimits = HeadLimits { max_bytes: 64 * 1024, max_fields: 100, max_target: 8192 };

type Lines = Vec<(String, Vec<u8>)>;

/// Names that mean something, with their relatives, in several spellings.
const NAMES: &str = "Accept|aCCept|Cookie|X-A|X-B|Connection|connection|Keep-Alive|Proxy-Connection|Proxy\
    |HTTP2-Settings|TE|te|Upgrade|X-Forwarded-For|x-forwarded-for|X-Forwarded-Proto|X-Forwarded-Protocol\
    |X-Forwarded-Port|X-Forwarded-Host|X_Forwarded_For|X-Real-IP|x_real_ip|Forwarded|X-Request-Id\
    |x_request_id|traceparent|tracestate|X-Router-Hops|Authorization|Range|If-Range|Expect|X-Debug\
    |Max-Forwards|Content-Encoding|X-HTTP-Method-Override|Sec-WebSocket-Key|Trailer|WWW-Authenticate";

const VALUES: &str = "1|close|keep-alive|keep-alive, x-a|upgrade|Upgrade, X-B|x-a, x-request-id, x-router-hops\
    |trailers|gzip, Trailers|websocket|h2c|1\\.1\\.1\\.1|10\\.0\\.0\\.1|2\\.2\\.2\\.2, 10\\.0\\.0\\.1|unknown|https|http|https,http\
    |for=1\\.1\\.1\\.1;proto=https|for=\"\\[2001:db8::1\\]\", for=10\\.0\\.0\\.1|for=_x|for=\"\u{e4}\"|abc-1|a b\
    |00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01|2, 7|x|NTLM x|Basic eA==|bytes=0-1|100-continue||,";

/// A request with a valid framing.
fn request() -> impl Strategy<Value = (Vec<u8>, Vec<(String, String)>)> {
    let fields = proptest::collection::vec((NAMES, VALUES), 0..12);
    let line = "(GET|POST|HEAD|PUT|FOO) (/|/a\\?b|http://b\\.test:81/c) HTTP/1\\.[01]";
    let body = "(Content-Length: (0|5|005)\r\n|Transfer-Encoding: chunked\r\n)?";
    (line, fields, body).prop_map(|(line, fields, body)| {
        let body =
            if line.ends_with("1.0") && body.starts_with('T') { String::new() } else { body };
        let mut text = format!("{line}\r\nHost: a.test\r\n{body}");
        for (name, value) in &fields {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        (text.into_bytes(), fields)
    })
}

fn accept(buf: &[u8]) -> (RequestHead, Accepted) {
    let mut head = RequestHead::default();
    match Connection::default().read_head(buf, &mut head, &LIMITS) {
        Ok(HeadStep::Complete(accepted)) => (head, accepted),
        other => panic!("{}: {other:?}", buf.escape_ascii()),
    }
}

fn map(head: &router::http1::fields::Fields, buf: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for field in head.iter() {
        let name = HeaderName::from_bytes(field.name().of(buf)).expect("a name");
        let value = HeaderValue::from_bytes(field.value().of(buf)).expect("a value");
        headers.append(name, value);
    }
    headers
}

/// Lines by their names in lower case, those of one name in their order.
fn by_name(headers: &HeaderMap) -> Lines {
    let mut lines: Lines =
        headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    lines
}

/// The settings of a test and what is not in the head.
#[derive(Clone, Copy, Debug)]
struct Setting {
    peer: SocketAddr,
    trust: Trust,
    style: Style,
    over_tls: bool,
    gives_ids: bool,
    close: bool,
}

fn setting() -> impl Strategy<Value = Setting> {
    let peer = prop_oneof![
        Just("1.2.3.4:5"),
        Just("10.0.0.9:5"),
        Just("[::ffff:10.0.0.9]:5"),
        Just("[2001:db8::2]:5")
    ];
    let trust = prop_oneof![Just(Trust::Keep), Just(Trust::Append), Just(Trust::Overwrite)];
    (peer, trust, any::<[bool; 5]>()).prop_map(
        |(peer, trust, [plain_ipv4, rfc_7239, over_tls, gives_ids, close])| Setting {
            peer: peer.parse().expect("an address"),
            trust,
            style: Style { plain_ipv4, rfc_7239 },
            over_tls,
            gives_ids,
            close,
        },
    )
}

fn is_trusted(address: IpAddr) -> bool {
    address.to_string().starts_with("10.")
}

fn local() -> SocketAddr {
    "127.0.0.1:8080".parse().expect("an address")
}

/// What the functions on `HeaderMap` make of a request, in the order of `proxy::admit`.
struct Old {
    headers: HeaderMap,
    scan: old::Scan,
    upgrade: Option<HeaderValue>,
}

fn run_old(head: &RequestHead, buf: &[u8], accepted: &Accepted, setting: &Setting) -> Old {
    let mut headers = map(&head.fields, buf);
    let scan = old::Scan::new(&headers);
    let authority = head.target.authority().of(buf);
    if !authority.is_empty() {
        headers.insert("host", HeaderValue::from_bytes(authority).expect("a host"));
    }
    let trust = match setting.trust {
        Trust::Keep => old::Trust::Keep,
        Trust::Append => old::Trust::Append,
        Trust::Overwrite => old::Trust::Overwrite,
    };
    let ids = request_id::Ids::of(&headers, trust, || 0x1234);
    let version = match head.version {
        Version::Http10 => http::Version::HTTP_10,
        Version::Http11 => http::Version::HTTP_11,
    };
    let has_body = has_body(accepted);
    let may_upgrade = old::may_upgrade(version, has_body, false);
    let upgrade = old::strip_request(&mut headers, &scan, may_upgrade);
    let Style { plain_ipv4, rfc_7239 } = setting.style;
    let style = old::Style { plain_ipv4, rfc_7239 };
    old::Forwarded::new(setting.peer, local(), setting.over_tls, style, trust)
        .apply(&mut headers, is_trusted);
    if let Ok(Some(hops)) = old_hops::next(scan.hops, scan.was_forwarded) {
        headers.insert("x-router-hops", hops);
    }
    if setting.gives_ids {
        ids.apply(&mut headers);
    }
    if setting.close && upgrade.is_none() {
        headers.insert("connection", HeaderValue::from_static("close"));
    }
    Old { headers, scan, upgrade }
}

/// The functions on `HeaderMap` pass an `Upgrade` on that names no protocol.
fn upgrades_to_nothing(old: &Old) -> bool {
    let is_blank = |byte: &u8| matches!(byte, b',' | b' ');
    old.upgrade.as_ref().is_some_and(|protocol| protocol.as_bytes().iter().all(is_blank))
}

fn has_body(accepted: &Accepted) -> bool {
    !matches!(accepted.body, framing::BodyKind::None | framing::BodyKind::Length(0))
}

/// The same by the new functions: the head as it is sent.
fn run_new(head: &RequestHead, buf: &[u8], accepted: &Accepted, setting: &Setting) -> Vec<u8> {
    let facts = RequestFacts::of(head, buf, accepted);
    let authority = Some(head.target.authority().of(buf)).filter(|text| !text.is_empty());
    let host = authority.or_else(|| head.fields.value(KnownField::Host, buf)).expect("one host");
    let Setting { peer, trust, style, over_tls, .. } = *setting;
    let info = ClientInfo::new(peer, local(), over_tls, style, trust);
    let forwarding = info.resolve(head, buf, host, is_trusted);
    let ids = RequestIds::of(head, buf, trust, || 0x1234);
    let mut out = Vec::new();
    write_request(
        &mut out,
        &Outgoing {
            head,
            buf,
            options: accepted.options,
            body: accepted.body,
            host: authority,
            forwarding: &forwarding,
            ids: setting.gives_ids.then_some(&ids),
            hops: hops::next(facts.hops, facts.was_forwarded).unwrap_or(None),
            upgrade: facts.upgrade.map(|protocol| protocol.of(buf)),
            close: setting.close,
        },
    );
    out
}

proptest! {
    /// What a backend reads is one request with the client's framing, and nothing of the client's connection.
    #[test]
    fn what_is_sent_reads_as_the_same_request((buf, _) in request(), setting in setting()) {
        let (head, accepted) = accept(&buf);
        let out = run_new(&head, &buf, &accepted, &setting);
        let (sent, sent_accepted) = accept(&out);
        let shown = out.escape_ascii().to_string();
        prop_assert_eq!(sent_accepted.consumed, out.len(), "{}", shown);
        prop_assert_eq!(sent.method_text.of(&out), head.method_text.of(&buf));
        prop_assert_eq!(sent.version, Version::Http11);
        // Strictly: one `Host`, one way to read where the body ends, and the same one.
        prop_assert_eq!(sent_accepted.body, accepted.body, "{}", shown);
        let facts = RequestFacts::of(&head, &buf, &accepted);
        let hop_by_hop = HopByHop::new(&sent.fields, &out, Options::default());
        let one_hop: Vec<_> = sent
            .fields
            .iter()
            .filter(|field| hop_by_hop.contains(*field))
            .map(|field| (field.known, field.value().of(&out).to_vec()))
            .collect();
        for (known, value) in &one_hop {
            let is_ours = match known {
                KnownField::Connection if facts.upgrade.is_some() => value == b"upgrade",
                KnownField::Connection => setting.close && value == b"close",
                KnownField::Upgrade => facts.upgrade.is_some_and(|asked| asked.of(&buf) == value),
                KnownField::Te => value == b"trailers",
                _ => false,
            };
            prop_assert!(is_ours, "{}", shown);
        }
        // Written twice it is the same: attempts do not differ.
        prop_assert_eq!(run_new(&head, &buf, &accepted, &setting), out);
    }

    /// Kept lines have the names and the order in which they came.
    #[test]
    fn kept_lines_stay_as_they_came((buf, fields) in request(), setting in setting()) {
        let (head, accepted) = accept(&buf);
        let out = run_new(&head, &buf, &accepted, &setting);
        let names = ["Accept", "aCCept", "Cookie", "Range", "If-Range", "Trailer"];
        let is_plain = |name: &str| names.contains(&name);
        let given: Lines = fields
            .into_iter()
            .filter(|(name, _)| is_plain(name))
            .map(|(name, value)| (name, value.into_bytes()))
            .collect();
        let (sent, _) = accept(&out);
        let kept: Lines = sent
            .fields
            .iter()
            .map(|field| {
                let name = String::from_utf8(field.name().of(&out).to_vec()).unwrap();
                (name, field.value().of(&out).to_vec())
            })
            .filter(|(name, _)| is_plain(name))
            .collect();
        prop_assert_eq!(kept, given);
    }

    /// The backend gets what it got from the functions on `HeaderMap`, but for the `Connection: keep-alive`
    /// that these left, and for the normal form of a length.
    #[test]
    fn backends_get_what_they_got((buf, _) in request(), setting in setting()) {
        let (head, accepted) = accept(&buf);
        let mut old = run_old(&head, &buf, &accepted, &setting);
        prop_assume!(!upgrades_to_nothing(&old));
        let out = run_new(&head, &buf, &accepted, &setting);
        let mut headers = map(&accept(&out).0.fields, &out);
        if old.headers.get("connection").is_some_and(|value| value == "keep-alive") {
            old.headers.remove("connection");
        }
        if let framing::BodyKind::Length(length) = accepted.body {
            old.headers.insert("content-length", HeaderValue::from(length));
            headers.insert("content-length", HeaderValue::from(length));
        }
        let shown = format!("{} {}", buf.escape_ascii(), out.escape_ascii());
        prop_assert_eq!(by_name(&headers), by_name(&old.headers), "{}", shown);
    }

    /// A request's facts are those that the functions on `HeaderMap` find.
    #[test]
    fn facts_are_what_they_were((buf, _) in request(), setting in setting()) {
        let (head, accepted) = accept(&buf);
        let old = run_old(&head, &buf, &accepted, &setting);
        prop_assume!(!upgrades_to_nothing(&old));
        let facts = RequestFacts::of(&head, &buf, &accepted);
        let upgrade = facts.upgrade.map(|protocol| protocol.of(&buf));
        prop_assert_eq!(upgrade, old.upgrade.as_ref().map(HeaderValue::as_bytes));
        let is_new = head.version == Version::Http11;
        prop_assert_eq!(facts.takes_trailers, old.scan.takes_trailers && is_new);
        let seen = (facts.hops, facts.was_forwarded, facts.logs_in, facts.wants_debug);
        let expected = (old.scan.hops, old.scan.was_forwarded, old.scan.logs_in, old.scan.wants_debug);
        prop_assert_eq!(seen, expected);
        let method = http::Method::from_bytes(head.method_text.of(&buf)).unwrap();
        let asks_for_other = facts.upgrade.is_some() && !facts.is_websocket(&buf);
        let body = match accepted.body {
            framing::BodyKind::Length(length) if length > 0 => router::connection::BodyKind::Length(length),
            framing::BodyKind::Chunked => router::connection::BodyKind::Chunked,
            _ => router::connection::BodyKind::None,
        };
        let expected = request_kind::RequestKind::of(&method, 1, &old.scan, body, asks_for_other);
        prop_assert_eq!(format!("{:?}", facts.kind), format!("{expected:?}"));
        prop_assert!(facts.kind <= RequestKind::Unusual);
    }

    /// What is said about the client is what the functions on `HeaderMap` say.
    #[test]
    fn client_is_who_it_was((buf, _) in request(), mut setting in setting()) {
        // As the settings have it: who is trusted is appended to.
        let peer = setting.peer.ip().to_canonical();
        setting.trust = match (setting.trust, is_trusted(peer)) {
            (Trust::Keep, false) => Trust::Keep,
            (_, true) => Trust::Append,
            (_, false) => Trust::Overwrite,
        };
        let (head, accepted) = accept(&buf);
        let old = run_old(&head, &buf, &accepted, &setting);
        let info = ClientInfo::new(setting.peer, local(), setting.over_tls, setting.style, setting.trust);
        let forwarding = info.resolve(&head, &buf, b"a.test", is_trusted);
        prop_assert_eq!(forwarding.real_ip(&buf), old.headers["x-real-ip"].as_bytes());
        prop_assert_eq!(forwarding.is_https(&head, &buf), old::is_https(&old.headers));
        let expected = match is_trusted(peer) {
            true => old::client_address(&old.headers, is_trusted),
            false => Some(peer),
        };
        prop_assert_eq!(forwarding.client_address(&head, &buf, is_trusted), expected);
    }

    /// The client gets what it got from the functions on `HeaderMap`.
    #[test]
    fn clients_get_what_they_got(fields in proptest::collection::vec((NAMES, VALUES), 0..12)) {
        let mut text = "HTTP/1.1 200 OK\r\n".to_owned();
        for (name, value) in &fields {
            // These mean nothing in a response. They were left as they came; now they are taken out.
            if !["te", "http2-settings", "proxy"].contains(&&*name.to_lowercase()) {
                text += &format!("{name}: {value}\r\n");
            }
        }
        let buf = format!("{text}\r\n").into_bytes();
        let mut head = ResponseHead::default();
        prop_assert_eq!(head.parse(&buf, &LIMITS), Ok(Some(buf.len())));
        let plan = Connection::default().begin_response(304, framing::BodyKind::None);
        let edits = ResponseEdits {
            plan: &plan,
            upgrade: None,
            date: None,
            cookie: Some(b"c"),
            hsts: Some(b"max-age=1"),
            request_id: Some(b"id"),
            announces_grpc_trailers: true,
            extra: &[],
        };
        let mut out = Vec::new();
        let options = Options::of(&head.fields, &buf);
        write_response(&mut out, &head, &buf, options, &edits);
        let mut sent = ResponseHead::default();
        prop_assert_eq!(sent.parse(&out, &LIMITS), Ok(Some(out.len())));
        let mut expected = map(&head.fields, &buf);
        let asks_for_login = old::strip_response(&mut expected, false).asks_for_login;
        prop_assert_eq!(response_head::asks_for_login(&head, &buf), asks_for_login);
        old::announce_grpc(&mut expected);
        expected.append("set-cookie", HeaderValue::from_static("c"));
        expected.insert("strict-transport-security", HeaderValue::from_static("max-age=1"));
        expected.insert("x-request-id", HeaderValue::from_static("id"));
        expected.insert("connection", HeaderValue::from_static("close"));
        prop_assert_eq!(by_name(&map(&sent.fields, &out)), by_name(&expected));
    }
}
