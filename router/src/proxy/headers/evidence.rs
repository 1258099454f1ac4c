//! What headers say of the client, once it is settled whom to believe. Pure.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::COOKIE;

use super::{X_FORWARDED_FOR, X_FORWARDED_PROTO, canonical};

/// Whether the request came by HTTPS: to us, or to a proxy before us that is believed. To be asked
/// after [`Forwarded::apply`](super::Forwarded::apply), which has settled whom to believe. Of a list, in
/// one line or in several, the first counts: some proxies append to what they were told, so that it
/// is the client's side of the first of them.
pub fn is_https(headers: &HeaderMap) -> bool {
    headers.get(X_FORWARDED_PROTO).is_some_and(|proto| {
        let mut protos = proto.as_bytes().split(|byte| *byte == b',');
        let proto = protos.next().unwrap_or_default().trim_ascii();
        proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss")
    })
}

/// The client of a request that came through trusted proxies: of the addresses in
/// `X-Forwarded-For`, which end with our peer's, the last that is not trusted, since whatever stands
/// before that one is hearsay. The first when all are trusted; none when something else stands there.
pub fn client_address(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut client = None;
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for text in value.as_bytes().rsplit(|byte| *byte == b',') {
            client = Some(address(text)?);
            if client.is_some_and(|client| !is_trusted(client)) {
                return client;
            }
        }
    }
    client
}

/// An address as it stands in forwarded headers, perhaps with a port.
pub(in crate::proxy) fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok();
    address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip())).map(canonical)
}

/// The values of the cookies of that name.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = headers.get_all(COOKIE).into_iter();
    let pairs = pairs.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::{client_address, cookies, is_https};

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        lines.iter().map(header).collect()
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_a_proxys() {
        let is_trusted = |address: std::net::IpAddr| address.to_string().starts_with("10.");
        for (chain, client) in [
            (&["1.1.1.1, 10.0.0.1"][..], Some("1.1.1.1")),
            (&["6.6.6.6, 1.1.1.1", "10.0.0.2,10.0.0.1"], Some("1.1.1.1")),
            (&["10.0.0.3, 10.0.0.1"], Some("10.0.0.3")),
            (&["[2001:db8::1]:80, 10.0.0.1"], Some("2001:db8::1")),
            (&["::ffff:1.1.1.1 , ::ffff:10.0.0.1"], Some("1.1.1.1")),
            (&["1.1.1.1, unknown, 10.0.0.1"], None),
            (&["1.1.1.1,, 10.0.0.1"], None),
            (&[], None),
        ] {
            let chain: Vec<_> = chain.iter().map(|value| ("x-forwarded-for", *value)).collect();
            let client = client.map(|client| client.parse().unwrap());
            assert_eq!(client_address(&map(&chain), is_trusted), client, "{chain:?}");
        }
    }

    #[test]
    fn the_first_of_a_list_says_whether_it_was_https() {
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
            let lines: Vec<_> = protos.iter().map(|proto| ("x-forwarded-proto", *proto)).collect();
            assert_eq!(is_https(&map(&lines)), expected, "{protos:?}");
        }
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let headers = map(&[("cookie", "ab=1; a=2;a=3"), ("cookie", "a=4; b=a=5; a")]);
        assert_eq!(cookies(&headers, "a").collect::<Vec<_>>(), [b"2", b"3", b"4"]);
    }

    proptest! {
        #[test]
        fn any_value_is_survived(value in "[ -~]{0,60}", name in "[a-z]{1,3}") {
            let headers = map(&[("x-forwarded-for", &value), ("cookie", &value)]);
            let _client = client_address(&headers, |address| address.is_ipv6());
            prop_assert!(cookies(&headers, &name).all(|found| found.len() < value.len()));
        }
    }
}
