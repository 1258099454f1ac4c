//! Heads as backends get them, for any head of a client: written once, read again strictly.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use router::http1::connection::{HopByHop, Options};
use router::http1::head::{HeadLimits, RequestHead, Version};
use router::http1::known::KnownField;
use router::http1::server::{Accepted, Connection, HeadStep};
use router::message::client_info::{ClientInfo, Style, Trust};
use router::message::hops;
use router::message::request::RequestFacts;
use router::message::request_head::{Outgoing, write_request};
use router::message::request_ids::RequestIds;

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

/// The head as it is sent.
fn write(head: &RequestHead, buf: &[u8], accepted: &Accepted, setting: &Setting) -> Vec<u8> {
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
        let out = write(&head, &buf, &accepted, &setting);
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
        prop_assert_eq!(write(&head, &buf, &accepted, &setting), out);
    }

    /// Kept lines have the names and the order in which they came.
    #[test]
    fn kept_lines_stay_as_they_came((buf, fields) in request(), setting in setting()) {
        let (head, accepted) = accept(&buf);
        let out = write(&head, &buf, &accepted, &setting);
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
}
