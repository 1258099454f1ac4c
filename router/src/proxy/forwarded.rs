//! The `Forwarded` header (RFC 7239): reading what trusted proxies say, and writing our own part.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};

use super::headers::{
    Style, Trust, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_PROTOCOL, canonical,
    evidence::address,
};

/// The header.
pub const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// What one proxy said of the side that it was asked from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Element {
    /// Who asked; none when it does not say, or not with an address.
    pub client: Option<IpAddr>,
    /// By what scheme, in lower case.
    pub proto: Option<String>,
}

/// Writes our part, for a connection from `peer` by `proto`. What a trusted proxy says there alone is taken over into `X-Forwarded-*`,
/// and the other way round, so that both tell one story (RFC 7239 7.4).
pub fn extend(
    headers: &mut HeaderMap,
    trust: Trust,
    style: Style,
    peer: IpAddr,
    proto: &HeaderValue,
    is_trusted: &impl Fn(IpAddr) -> bool,
) {
    let mut chain = Vec::new();
    match trust {
        Trust::Overwrite => {
            headers.remove(FORWARDED);
        }
        Trust::Keep if headers.contains_key(FORWARDED) => return,
        Trust::Keep => {}
        Trust::Append if headers.contains_key(FORWARDED) => {
            let Some(elements) = parse(headers) else {
                // Nobody could tell where our part begins.
                headers.remove(FORWARDED);
                return extend(headers, trust, style, peer, proto, is_trusted);
            };
            adopt(headers, &elements, style, is_trusted);
        }
        Trust::Append => {
            let values = headers.get_all(X_FORWARDED_FOR).iter();
            let items = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
            chain = items.map(address).collect();
        }
    }
    let proto = proto.to_str().unwrap_or("http");
    if let Some(value) = extended(headers, &chain, peer, proto) {
        headers.insert(FORWARDED, value);
    }
}

/// Takes what `Forwarded` says over into the headers that say nothing of it.
fn adopt(
    headers: &mut HeaderMap,
    elements: &[Element],
    style: Style,
    is_trusted: &impl Fn(IpAddr) -> bool,
) {
    if !headers.contains_key(X_FORWARDED_FOR) {
        let mut chain = Vec::new();
        for element in elements {
            if !chain.is_empty() {
                chain.extend_from_slice(b", ");
            }
            let client = element.client.map(|client| style.write(client));
            chain.extend_from_slice(client.as_ref().map_or(b"unknown", HeaderValue::as_bytes));
        }
        if let Ok(chain) = HeaderValue::from_bytes(&chain) {
            headers.insert(X_FORWARDED_FOR, chain);
        }
    }
    let proto = of_client(elements, is_trusted).and_then(|element| element.proto.as_deref());
    if let Some(proto) = proto.filter(|proto| ["http", "https"].contains(proto)) {
        let value = || HeaderValue::try_from(proto).ok();
        for name in [X_FORWARDED_PROTOCOL, X_FORWARDED_PROTO] {
            if let (false, Some(value)) = (headers.contains_key(&name), value()) {
                headers.insert(name, value);
            }
        }
    }
}

/// What the first of the trusted proxies said of the client: the last element that is not about one
/// of them. Whatever stands before it is hearsay, most likely the client's own.
fn of_client(elements: &[Element], is_trusted: impl Fn(IpAddr) -> bool) -> Option<&Element> {
    let is_proxy =
        |element: &Element| element.client.is_some_and(|address| is_trusted(canonical(address)));
    elements.iter().rfind(|element| !is_proxy(element)).or_else(|| elements.first())
}

/// Reads all elements, the nearest to the client first. None when anything is no `Forwarded`: half
/// of a chain would name the wrong client.
pub fn parse(headers: &HeaderMap) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    for value in headers.get_all(FORWARDED) {
        let mut rest = value.as_bytes();
        let mut element = Element::default();
        loop {
            let (name, after) = token(rest.trim_ascii_start());
            rest = after;
            if !name.is_empty() {
                let (value, after) = value_of(rest.strip_prefix(b"=")?)?;
                rest = after;
                element.set(name, &value);
            }
            rest = rest.trim_ascii_start();
            match rest.split_first() {
                None => break,
                Some((b';', after)) => rest = after,
                Some((b',', after)) => {
                    rest = after;
                    elements.push(std::mem::take(&mut element));
                }
                Some(_) => return None,
            }
        }
        elements.push(element);
    }
    Some(elements)
}

impl Element {
    fn set(&mut self, name: &[u8], value: &str) {
        if name.eq_ignore_ascii_case(b"for") {
            self.client = node(value);
        } else if name.eq_ignore_ascii_case(b"proto") {
            self.proto = Some(value.to_ascii_lowercase());
        }
    }
}

/// The address of a node: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    let literal = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match literal {
        Some(literal) => literal.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().map(IpAddr::V4),
    };
    address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
}

fn token(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, &[]))
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A token or a quoted string, and what is behind it.
fn value_of(text: &[u8]) -> Option<(String, &[u8])> {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        let (value, rest) = token(text);
        let value = std::str::from_utf8(value).ok().filter(|value| !value.is_empty())?;
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'"' => return Some((value, rest)),
            b'\\' => {
                let (escaped, after) = rest.split_first()?;
                rest = after;
                value.push(char::from(*escaped));
            }
            byte => value.push(char::from(*byte)),
        }
    }
}

/// The address as `for=` writes it.
fn written(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("\"[{v6}]\""),
    }
}

/// The header with our own part behind `chain`, those whom a proxy before us knew of by other
/// headers, and behind what stands there.
fn extended(
    headers: &HeaderMap,
    chain: &[Option<IpAddr>],
    peer: IpAddr,
    proto: &str,
) -> Option<HeaderValue> {
    let mut text = String::new();
    for value in headers.get_all(FORWARDED) {
        text.push_str(value.to_str().ok()?);
        text.push_str(", ");
    }
    for address in chain {
        let address = address.map_or_else(|| "unknown".to_owned(), written);
        let _never = write!(text, "for={address}, ");
    }
    let _never = write!(text, "for={};proto={proto}", written(peer));
    if let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) {
        // No host that was let in holds a quote or a backslash.
        let quote = if host.bytes().all(is_token_byte) { "" } else { "\"" };
        let _never = write!(text, ";host={quote}{host}{quote}");
    }
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use http::header::{HOST, HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::{Element, FORWARDED, HeaderName, extended, of_client, parse};
    use crate::proxy::headers::{Forwarded, Style, Trust};

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(FORWARDED, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        lines.iter().map(header).collect()
    }

    fn shown(elements: &[Element]) -> Vec<String> {
        let show = |element: &Element| {
            let client = element.client.map_or_else(|| "-".to_owned(), |client| client.to_string());
            format!("{client} {}", element.proto.as_deref().unwrap_or("-"))
        };
        elements.iter().map(show).collect()
    }

    /// RFC 7239, mostly from its own examples.
    #[test]
    fn elements_are_read_as_the_rfc_writes_them() {
        for (values, expected) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], &["192.0.2.60 http"][..]),
            (&["For=\"[2001:db8:cafe::17]:4711\""], &["2001:db8:cafe::17 -"]),
            (&["for=192.0.2.43, for=198.51.100.17"], &["192.0.2.43 -", "198.51.100.17 -"]),
            (&["for=192.0.2.43", "for=\"198.51.100.17:80\""], &["192.0.2.43 -", "198.51.100.17 -"]),
            (&["for=unknown;proto=HTTPS,for=_hidden"], &["- https", "- -"]),
            (&["for=1.1.1.1 ; proto=https , for=2.2.2.2"], &["1.1.1.1 https", "2.2.2.2 -"]),
            (&["x=\"a,b;\\\"c\";for=1.1.1.1"], &["1.1.1.1 -"]),
        ] {
            assert_eq!(shown(&parse(&headers(values)).unwrap()), expected, "{values:?}");
        }
        for wrong in
            ["for", "for=", "for=\"1.1.1.1", "for=1.1.1.1 x", "for==1", "=1", "\"\"", "a=\"\\"]
        {
            assert_eq!(parse(&headers(&[wrong])), None, "{wrong}");
        }
    }

    #[test]
    fn our_part_comes_last_and_is_quoted_where_it_has_to_be() {
        let mut map = headers(&["for=1.1.1.1"]);
        map.insert(HOST, HeaderValue::from_static("a.test:8080"));
        let peer = "2001:db8::1".parse().unwrap();
        assert_eq!(
            extended(&map, &[], peer, "https").unwrap(),
            "for=1.1.1.1, for=\"[2001:db8::1]\";proto=https;host=\"a.test:8080\""
        );
        let chain = [Some("9.9.9.9".parse().unwrap()), None];
        let peer = "10.0.0.1".parse().unwrap();
        let mut map = HeaderMap::new();
        map.insert(HOST, HeaderValue::from_static("a.test"));
        assert_eq!(
            extended(&map, &chain, peer, "http").unwrap(),
            "for=9.9.9.9, for=unknown, for=10.0.0.1;proto=http;host=a.test"
        );
    }

    /// Both headers tell one story, whichever of them a trusted proxy writes.
    #[test]
    fn forwarded_of_rfc_7239_and_its_older_relatives_agree() {
        let own = "for=1.2.3.4;proto=http;host=a";
        for (trust, sent, expected) in [
            (Trust::Keep, &[][..], &[("forwarded", own)][..]),
            (Trust::Keep, &[("forwarded", "for=9.9.9.9")], &[("forwarded", "for=9.9.9.9")]),
            (Trust::Overwrite, &[("forwarded", "for=9.9.9.9")], &[("forwarded", own)]),
            (
                Trust::Append,
                &[("forwarded", "for=9.9.9.9, for=\"8.8.8.8:1\";proto=https")],
                &[
                    ("forwarded", &format!("for=9.9.9.9, for=\"8.8.8.8:1\";proto=https, {own}")),
                    ("x-forwarded-for", "9.9.9.9, 8.8.8.8, 1.2.3.4"),
                    ("x-forwarded-proto", "https"),
                    ("x-real-ip", "8.8.8.8"),
                ],
            ),
            (
                Trust::Append,
                &[("x-forwarded-for", "9.9.9.9, x")],
                &[
                    ("forwarded", &format!("for=9.9.9.9, for=unknown, {own}")),
                    ("x-forwarded-for", "9.9.9.9, x, 1.2.3.4"),
                    ("x-forwarded-proto", "http"),
                ],
            ),
            (Trust::Append, &[("forwarded", "nonsense")], &[("forwarded", own)]),
        ] {
            let mut headers = map(&[&[("host", "a")], sent].concat());
            let style = Style { plain_ipv4: true, rfc_7239: true };
            let (peer, local) = ("1.2.3.4:5".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
            let is_trusted = |address: std::net::IpAddr| address.to_string() == "1.2.3.4";
            Forwarded::new(peer, local, false, style, trust).apply(&mut headers, is_trusted);
            for (name, value) in expected {
                assert_eq!(headers[*name], **value, "{name} of {trust:?} {sent:?}");
            }
        }
    }

    /// Elements before the client's are the client's own work.
    #[test]
    fn the_scheme_is_that_of_the_client_who_is_believed() {
        let is_trusted = |address: std::net::IpAddr| address.to_string().starts_with("10.");
        for (chain, proto) in [
            ("for=6.6.6.6;proto=https, for=203.0.113.9;proto=http", Some("http")),
            ("for=6.6.6.6;proto=https, for=203.0.113.9", None),
            ("for=203.0.113.9;proto=https, for=10.0.0.2;proto=http", Some("https")),
            ("for=203.0.113.9;proto=https, for=\"[::ffff:10.0.0.2]\";proto=http", Some("https")),
            ("for=6.6.6.6;proto=https, for=unknown;proto=http, for=10.0.0.2", Some("http")),
            ("for=10.0.0.3;proto=https, for=10.0.0.2;proto=http", Some("https")),
        ] {
            let elements = parse(&headers(&[chain])).unwrap();
            let found = of_client(&elements, is_trusted).and_then(|found| found.proto.as_deref());
            assert_eq!(found, proto, "{chain}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_survived(value in "[ -~]{0,60}") {
            let _elements = parse(&headers(&[&value]));
        }

        #[test]
        fn what_we_write_is_read(chain in proptest::collection::vec(any::<std::net::IpAddr>(), 1..5)) {
            let mut map = HeaderMap::new();
            for peer in &chain {
                let value = extended(&map, &[], *peer, "http").unwrap();
                map.insert(FORWARDED, value);
            }
            let read = parse(&map).unwrap();
            let read: Vec<_> = read.into_iter().filter_map(|element| element.client).collect();
            prop_assert_eq!(read, chain);
        }
    }
}
