//! What the options of a host (`options:<host>`) read from a request's head, and say in a response's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::response_head::is_valid;
use crate::http1::head::RequestHead;
use crate::http1::known::KnownField;

/// Bytes of the longest `Authorization` that is read: user and password of a few hundred characters.
const MAX_CREDENTIALS: usize = 1024;

/// The values of the cookies of that name (RFC 6265 4.2).
pub fn cookies<'a>(
    head: &RequestHead,
    buf: &'a [u8],
    name: &str,
) -> impl Iterator<Item = &'a [u8]> {
    let values = head.fields.values(KnownField::Cookie, buf);
    let pairs = values.flat_map(|value| value.split(|byte| *byte == b';'));
    pairs
        .filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// User and password of the one `Authorization` of a request, if it is `Basic`.
pub fn credentials(head: &RequestHead, buf: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut values = head.fields.values(KnownField::Authorization, buf);
    match (values.next(), values.next()) {
        (Some(value), None) => basic_credentials(value),
        _ => None,
    }
}

/// User and password of `Authorization: Basic` (RFC 7617).
pub fn basic_credentials(value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let value = Some(value).filter(|value| value.len() <= MAX_CREDENTIALS)?;
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, password) = decoded.split_at_checked(colon)?;
    Some((name.to_vec(), password.get(1..)?.to_vec()))
}

/// `Set-Cookie` that brings a client back to the backend of `token`.
pub fn sticky_cookie(name: &str, token: &str, is_https: bool) -> Vec<u8> {
    let secure = if is_https { "; Secure" } else { "" };
    [name, "=", token, "; Path=/; HttpOnly; SameSite=Lax", secure].concat().into_bytes()
}

/// `Location` of the same resource by HTTPS: of `host`, as it was looked up. `None` if that is no value of
/// a field.
pub fn redirect_location(host: &str, head: &RequestHead, buf: &[u8]) -> Option<Vec<u8>> {
    let mut target = Vec::new();
    head.target.write(buf, &mut target);
    // `OPTIONS *` is about no resource.
    let target: &[u8] = if target.starts_with(b"/") { &target } else { b"/" };
    let location = [b"https://", host.as_bytes(), target].concat();
    is_valid(&location).then_some(location)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::Request;
    use super::{basic_credentials, cookies, credentials, redirect_location, sticky_cookie};

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let request = Request::with(&[
            ("Cookie", "ab=1; a=2;a=3"),
            ("cookie", "a=4; b=a=5; a"),
            ("X", "a=6"),
        ]);
        let found: Vec<_> = cookies(&request.head, &request.buf, "a").collect();
        assert_eq!(found, [b"2", b"3", b"4"]);
    }

    #[test]
    fn credentials_are_read_as_rfc_7617_writes_them() {
        for (value, expected) in [
            ("Basic bWU6c2VjcmV0", Some(("me", "secret"))),
            ("bAsIc  bWU6c2VjcmV0 ", Some(("me", "secret"))),
            ("Basic bWU6YTpi", Some(("me", "a:b"))),
            ("Basic Og==", Some(("", ""))),
            ("Basic bWU=", None),
            ("Basic !!", None),
            ("Basic", None),
            ("Bearer bWU6c2VjcmV0", None),
        ] {
            let read = basic_credentials(value.as_bytes());
            let expected = expected.map(|(name, password)| (name.into(), password.into()));
            assert_eq!(read, expected, "{value}");
        }
        let long = format!("Basic {}", "YTph".repeat(1000));
        assert_eq!(basic_credentials(long.as_bytes()), None);
        let line = ("Authorization", "Basic Og==");
        for (lines, is_read) in [(&[line][..], true), (&[line, line], false), (&[], false)] {
            let request = Request::with(lines);
            assert_eq!(credentials(&request.head, &request.buf).is_some(), is_read, "{lines:?}");
        }
    }

    #[test]
    fn sticky_cookie_is_for_the_whole_site_and_secure_over_https() {
        let plain = "a=1; Path=/; HttpOnly; SameSite=Lax";
        assert_eq!(sticky_cookie("a", "1", false), plain.as_bytes());
        assert_eq!(sticky_cookie("a", "1", true), format!("{plain}; Secure").as_bytes());
    }

    #[test]
    fn redirect_goes_to_the_same_resource() {
        for (line, host, expected) in [
            ("GET /a?b=c", "a.test", Some("https://a.test/a?b=c")),
            ("GET http://b.test:80?q", "a.test", Some("https://a.test/?q")),
            ("GET /?f={\"a\":1}", "a.test", Some("https://a.test/?f={\"a\":1}")),
            ("GET //evil.test/", "a.test", Some("https://a.test//evil.test/")),
            ("OPTIONS *", "a.test", Some("https://a.test/")),
            ("OPTIONS http://a.test", "a.test", Some("https://a.test/")),
            ("GET /", "a\r\nb", None),
        ] {
            let request = Request::read(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let location = redirect_location(host, &request.head, &request.buf);
            assert_eq!(location.as_deref(), expected.map(str::as_bytes), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_survived(value in "(Basic )?[ -~]{0,60}", name in "[a-z]{1,3}") {
            let _credentials = basic_credentials(value.as_bytes());
            let request = Request::with(&[("Cookie", value.trim())]);
            let mut found = cookies(&request.head, &request.buf, &name);
            prop_assert!(found.all(|found| found.len() < value.len()));
        }
    }
}
