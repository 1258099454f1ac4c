//! What is asked of each parser for any bytes at all: no panic, and what it promises.
//!
//! The fuzz targets and the ordinary test that replays the corpus share this file.

use std::path::Path;

use clap::Parser as _;
use marathon_sync::marathon::sse;
use shared::backend::BackendUrl;
use shared::driver::Driver;
use shared::host;
use shared::secret::Secret;

#[path = "http1.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod http1;

type Target = fn(&[u8]);

/// Every target by its name, which is also its folder in `corpus/`.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("backend_row", backend_row),
    ("chunked_body", chunked_body),
    ("config", config),
    ("cookie", cookie),
    ("driver", driver),
    ("forwarded", forwarded),
    ("host", host),
    ("http1_connection", http1_connection),
    ("marathon_answer", marathon_answer),
    ("options", options),
    ("proxy_header", proxy_header),
    ("request_head", request_head),
    ("response_head", response_head),
    ("sse", sse),
];

/// The value of a `Host` header.
pub(crate) fn host(bytes: &[u8]) {
    let Ok(name) = host::normalize(bytes) else { return };
    assert!(
        !name.is_empty() && !name.bytes().any(|byte| byte <= b' ' || byte.is_ascii_uppercase())
    );
    assert_eq!(host::normalize(name.as_bytes()).as_deref(), Ok(&*name), "stays as it is");
    assert!(host::lookup_names(&name).count() <= 7);
}

/// A row of a `frontend:` list.
pub(crate) fn backend_row(bytes: &[u8]) {
    let Ok(url) = BackendUrl::parse(bytes) else { return };
    let again = BackendUrl::parse(url.href.as_bytes()).expect("its own text is a row");
    assert_eq!(again.origin, url.origin);
}

/// A Redis address. What is shown of it does not depend on the password.
pub(crate) fn driver(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(driver) = Driver::parse(text) else { return };
    if driver.password.is_some() {
        let other = Driver { password: Some(Secret::new("another")), ..driver.clone() };
        assert_eq!(driver.to_string(), other.to_string());
        assert_eq!(format!("{driver:?}"), format!("{other:?}"));
    }
}

/// Hipache's `config.json`.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let cli = router::cli::Cli::parse_from(["router"]);
    match router::config::Config::parse(&cli, Path::new("config.json"), text.to_owned()) {
        Ok(config) => assert!(!config.censored().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Marathon's event stream, cut anywhere: the first byte says where.
pub(crate) fn sse(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let events = |pieces: &[&[u8]]| {
        let mut parser = sse::Parser::new(64);
        let mut events = Vec::new();
        for piece in pieces {
            parser.push(piece, |event| events.push(event));
        }
        events
    };
    let (head, tail) = stream.split_at(usize::from(*cut).min(stream.len()));
    assert_eq!(events(&[stream]), events(&[head, tail]));
    let singles: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(events(&[stream]), events(&singles));
}

/// Marathon's list of apps, and the plan that follows.
pub(crate) fn marathon_answer(bytes: &[u8]) {
    let Ok(answer) = marathon_sync::document::parse(bytes) else { return };
    let options = marathon_sync::rules::Options::default();
    let seen = marathon_sync::rules::Seen::default();
    let mut memory = marathon_sync::rules::memory::Memory::default();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let desired = marathon_sync::rules::desired(&answer, &mut memory, &options, &seen, now);
    for host in desired.plan.keys() {
        assert!(!host.bytes().any(|byte| byte <= b' ' || byte.is_ascii_uppercase()), "{host:?}");
    }
}

/// The head of a request with fields of one name, a line each, if they are any.
fn request(name: &str, bytes: &[u8]) -> Option<(router::http1::head::RequestHead, Vec<u8>)> {
    let mut buf = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for line in bytes.split(|byte| *byte == b'\n') {
        for part in [name.as_bytes(), b": ", line, b"\r\n"] {
            buf.extend_from_slice(part);
        }
    }
    buf.extend_from_slice(b"\r\n");
    let limits =
        router::http1::head::HeadLimits { max_bytes: usize::MAX, max_fields: 100, max_target: 1 };
    let mut head = router::http1::head::RequestHead::default();
    head.parse(&buf, &limits).ok()??;
    Some((head, buf))
}

/// `Cookie` headers, a line each.
pub(crate) fn cookie(bytes: &[u8]) {
    let Some((head, buf)) = request("cookie", bytes) else { return };
    for value in router::message::host_options::cookies(&head, &buf, "route") {
        assert!(!value.contains(&b';'));
    }
}

/// `Forwarded` and `X-Forwarded-For` headers, a line each.
pub(crate) fn forwarded(bytes: &[u8]) {
    use router::message::client_info::{ClientInfo, Style, Trust};
    let _elements = router::message::forwarded::parse(bytes.split(|byte| *byte == b'\n'));
    let peer = "10.0.0.1:1".parse().expect("an address");
    for name in ["forwarded", "x-forwarded-for"] {
        let Some((head, buf)) = request(name, bytes) else { continue };
        let style = Style { plain_ipv4: true, rfc_7239: true };
        let info = ClientInfo::new(peer, peer, false, style, Trust::Append);
        let everybody = info.resolve(&head, &buf, b"a", |_| true);
        let _client = everybody.client_address(&head, &buf, |_| true);
        let only_peer = |address: std::net::IpAddr| address == peer.ip();
        let forwarding = info.resolve(&head, &buf, b"a", only_peer);
        let _client = forwarding.client_address(&head, &buf, only_peer);
    }
}

/// The fields of `options:<host>`, a line each: name, colon, value. A line without a colon goes on with
/// the value above it, as those of certificates do.
pub(crate) fn options(bytes: &[u8]) {
    let mut fields = shared::store::Fields::new();
    let mut last = None;
    for line in bytes.split(|byte| *byte == b'\n') {
        match line.iter().position(|byte| *byte == b':') {
            Some(at) => {
                let (name, value) = line.split_at(at);
                fields.insert(name.to_vec(), value[1..].to_vec());
                last = Some(name.to_vec());
            }
            None => {
                if let Some(value) = last.as_ref().and_then(|name| fields.get_mut(name)) {
                    value.push(b'\n');
                    value.extend_from_slice(line);
                }
            }
        }
    }
    let is_opted_out = fields.get(&b"backend-verify"[..]).is_some_and(|value| {
        let word = std::str::from_utf8(value).map(str::trim);
        word.is_ok_and(|word| ["off", "false", "no", "0"].contains(&word))
    });
    let raw = shared::store::RawOptions { name: "a.test".to_owned(), fields };
    let options = router::route::options::Options::parse(raw);
    let verifies_nothing = options.trust.is_some_and(|trust| trust.verifies_nothing());
    assert!(is_opted_out || !verifies_nothing);
}

/// PROXY headers of both versions.
pub(crate) fn proxy_header(bytes: &[u8]) {
    let _first = router::listen::proxy_protocol::parse_v1(bytes);
    if let Some((fixed, rest)) = bytes.split_first_chunk() {
        let _second = router::listen::proxy_protocol::parse_v2(fixed, rest);
    }
}

/// The head of a request: what is written for a backend is a head again, with the same fields.
pub(crate) fn request_head(bytes: &[u8]) {
    use router::http1::encode::{Edit, HeadWriter};
    use router::http1::framing::{self, BodyKind};
    use router::http1::head::RequestHead;

    let mut head = RequestHead::default();
    let Ok(Some(length)) = head.parse(bytes, &http1::LIMITS) else { return };
    assert!(head.parse(&bytes[..length], &http1::LIMITS) == Ok(Some(length)));
    assert!(head.parse(&bytes[..length - 1], &http1::LIMITS) == Ok(None));
    let _whole = head.parse(bytes, &http1::LIMITS);
    let Ok(framing) = framing::of_request(&head, bytes) else { return };
    if head.method_text.of(bytes) == b"CONNECT" {
        return;
    }
    let mut out = Vec::new();
    let method = head.method_text.of(bytes);
    let mut writer = HeadWriter::request(&mut out, method, &head.target, bytes, framing.body);
    writer.fields(&head.fields, bytes, |_| Edit::Keep);
    writer.end();
    let mut again = RequestHead::default();
    let limits = router::http1::head::HeadLimits { max_bytes: usize::MAX, ..http1::LIMITS };
    assert_eq!(again.parse(&out, &limits), Ok(Some(out.len())));
    let same = framing::of_request(&again, &out).expect("what is sent has one reading");
    assert_eq!(same.body, framing.body);
    if framing.body == BodyKind::None {
        assert_eq!(again.fields.len(), head.fields.len());
    }
}

/// The head of a response to a `GET`, and its body up to the end. The first byte says where it is cut.
pub(crate) fn response_head(bytes: &[u8]) {
    use router::http1::head::Method;

    let Some((cut, bytes)) = bytes.split_first() else { return };
    for method in [Method::Get, Method::Head] {
        let whole = http1::read_response(method, bytes, &[]);
        let cut = http1::read_response(method, bytes, &[usize::from(*cut)]);
        assert!(whole == cut || (whole.is_err() && cut.is_err()), "{whole:?} {cut:?}");
    }
}

/// A chunked body, cut anywhere: the first byte says where. What passes as chunks has the same content.
pub(crate) fn chunked_body(bytes: &[u8]) {
    use router::http1::body::{Decoder, End, Output};
    use router::http1::encode::trailers;
    use router::http1::framing::BodyKind;

    let Some((cut, body)) = bytes.split_first() else { return };
    let decode = |body: &[u8], cut: usize, output| {
        let mut decoder = Decoder::new(BodyKind::Chunked);
        let (mut start, mut data) = (0, Vec::new());
        for end in [cut.min(body.len()), body.len()] {
            while start < end {
                let input = &body[start..end];
                let Ok(decoded) = decoder.decode(input, output) else { return (data, None) };
                data.extend_from_slice(decoded.data(input));
                start += decoded.consumed();
                if decoded.end != End::No {
                    if output == Output::Chunks && decoded.end == End::Trailers {
                        trailers(&mut data, decoder.trailers());
                    }
                    return (data, Some(start));
                }
            }
        }
        (data, None)
    };
    for output in [Output::Chunks, Output::Content] {
        assert_eq!(decode(body, usize::from(*cut), output), decode(body, 0, output));
    }
    if let (chunks, Some(_)) = decode(body, 0, Output::Chunks) {
        assert_eq!(decode(&chunks, 0, Output::Content), {
            let (content, _) = decode(body, 0, Output::Content);
            (content, Some(chunks.len()))
        });
    }
}

/// A whole client connection, cut anywhere: the first byte says where.
pub(crate) fn http1_connection(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let whole = http1::read_requests(bytes, &[]);
    let cut = http1::read_requests(bytes, &[usize::from(*cut)]);
    assert_eq!(whole.requests, cut.requests);
    for request in &whole.requests {
        let again = http1::read_requests(&request.forwarded, &[]);
        assert_eq!((again.requests.len(), again.refused, again.rest), (1, None, 0));
        assert_eq!(again.requests[0].body, request.body);
    }
}
