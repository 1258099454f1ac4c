//! Addresses in forwarded fields, and the `Forwarded` field (RFC 7239): reading what trusted proxies say,
//! and writing our own part.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// An address as it stands in `X-Forwarded-For`, perhaps with a port.
pub fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok();
    let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}

/// What one proxy said about the side that it was asked from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Element {
    /// Who asked; none when it does not say, or not with an address.
    pub client: Option<IpAddr>,
    /// By what scheme, in lower case.
    pub proto: Option<String>,
}

/// Reads all elements of these values of `Forwarded`, the nearest to the client first. `None` when any part
/// is no `Forwarded`: half of a chain would name the wrong client.
pub fn parse<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    for value in values {
        let mut rest = value;
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

/// What the first of the trusted proxies said about the client: the last element that is not about one
/// of them. Whatever stands before it is hearsay, most likely the client's own.
pub fn of_client(elements: &[Element], is_trusted: impl Fn(IpAddr) -> bool) -> Option<&Element> {
    let is_proxy = |element: &Element| {
        element.client.is_some_and(|address| is_trusted(address.to_canonical()))
    };
    elements.iter().rfind(|element| !is_proxy(element)).or_else(|| elements.first())
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
fn write_node(text: &mut String, address: IpAddr) {
    // A `String` takes everything.
    let _never = match address {
        IpAddr::V4(v4) => write!(text, "{v4}"),
        IpAddr::V6(v6) => write!(text, "\"[{v6}]\""),
    };
}

/// Our own element: who asked us, by which scheme, for which host.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// The client of the connection.
    pub peer: IpAddr,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// As the backend gets it. One that is not ASCII is left out.
    pub host: &'a [u8],
}

/// The value with our own element behind the `values` of the field and behind `chain`, those whom a proxy
/// before us knew of by other fields. `None` if a value is not ASCII: nobody could be told what it means.
pub fn extended<'a>(
    values: impl Iterator<Item = &'a [u8]>,
    chain: impl Iterator<Item = Option<IpAddr>>,
    own: Own<'_>,
) -> Option<Vec<u8>> {
    let mut text = String::new();
    for value in values {
        text.push_str(visible(value)?);
        text.push_str(", ");
    }
    for address in chain {
        text.push_str("for=");
        match address {
            Some(address) => write_node(&mut text, address),
            None => text.push_str("unknown"),
        }
        text.push_str(", ");
    }
    text.push_str("for=");
    write_node(&mut text, own.peer);
    text.push_str(";proto=");
    text.push_str(own.scheme);
    if let Some(host) = visible(own.host) {
        // No host that was accepted holds a quote or a backslash.
        let quote = if host.bytes().all(is_token_byte) { "" } else { "\"" };
        for part in [";host=", quote, host, quote] {
            text.push_str(part);
        }
    }
    Some(text.into_bytes())
}

/// The text of a value that has visible characters, blanks and tabs only.
fn visible(value: &[u8]) -> Option<&str> {
    let is_visible = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    value.iter().all(is_visible).then(|| std::str::from_utf8(value).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::{Element, Own, address, extended, of_client, parse};

    fn read(values: &[&str]) -> Option<Vec<Element>> {
        parse(values.iter().map(|value| value.as_bytes()))
    }

    fn write(values: &[&str], chain: &[Option<IpAddr>], own: (&str, &str, &str)) -> Option<String> {
        let own = Own { peer: own.0.parse().unwrap(), scheme: own.1, host: own.2.as_bytes() };
        let values = values.iter().map(|value| value.as_bytes());
        let text = extended(values, chain.iter().copied(), own)?;
        Some(String::from_utf8(text).unwrap())
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
            assert_eq!(shown(&read(values).unwrap()), expected, "{values:?}");
        }
        for wrong in
            ["for", "for=", "for=\"1.1.1.1", "for=1.1.1.1 x", "for==1", "=1", "\"\"", "a=\"\\"]
        {
            assert_eq!(read(&[wrong]), None, "{wrong}");
        }
    }

    #[test]
    fn our_part_comes_last_and_is_quoted_where_it_has_to_be() {
        assert_eq!(
            write(&["for=1.1.1.1"], &[], ("2001:db8::1", "https", "a.test:8080")).unwrap(),
            "for=1.1.1.1, for=\"[2001:db8::1]\";proto=https;host=\"a.test:8080\""
        );
        let chain = [Some("9.9.9.9".parse().unwrap()), None];
        assert_eq!(
            write(&[], &chain, ("10.0.0.1", "http", "a.test")).unwrap(),
            "for=9.9.9.9, for=unknown, for=10.0.0.1;proto=http;host=a.test"
        );
        let odd = "for=\"\u{e4}\"";
        assert_eq!(write(&[odd], &[], ("10.0.0.1", "http", "a")), None);
        assert_eq!(
            write(&[], &[], ("10.0.0.1", "http", "\u{e4}")).unwrap(),
            "for=10.0.0.1;proto=http"
        );
    }

    /// Elements before the client's are the client's own work.
    #[test]
    fn scheme_is_that_of_the_client_who_is_believed() {
        let is_trusted = |address: IpAddr| address.to_string().starts_with("10.");
        for (chain, proto) in [
            ("for=6.6.6.6;proto=https, for=203.0.113.9;proto=http", Some("http")),
            ("for=6.6.6.6;proto=https, for=203.0.113.9", None),
            ("for=203.0.113.9;proto=https, for=10.0.0.2;proto=http", Some("https")),
            ("for=203.0.113.9;proto=https, for=\"[::ffff:10.0.0.2]\";proto=http", Some("https")),
            ("for=6.6.6.6;proto=https, for=unknown;proto=http, for=10.0.0.2", Some("http")),
            ("for=10.0.0.3;proto=https, for=10.0.0.2;proto=http", Some("https")),
        ] {
            let elements = read(&[chain]).unwrap();
            let found = of_client(&elements, is_trusted).and_then(|found| found.proto.as_deref());
            assert_eq!(found, proto, "{chain}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_survived(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _elements = parse([&value[..]].into_iter());
            let _address = address(&value);
        }

        #[test]
        fn what_we_write_is_read(chain in proptest::collection::vec(any::<IpAddr>(), 1..5)) {
            let mut value: Option<String> = None;
            for peer in &chain {
                let before: Vec<_> = value.iter().map(String::as_str).collect();
                value = write(&before, &[], (&peer.to_string(), "http", "a"));
            }
            let read = read(&[&value.unwrap()]).unwrap();
            let read: Vec<_> = read.into_iter().filter_map(|element| element.client).collect();
            prop_assert_eq!(read, chain);
        }
    }
}
