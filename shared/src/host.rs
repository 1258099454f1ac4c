//! Host names as clients send them, and the names to look a route up under.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// The `Host` that a load balancer's health check sends; answered without a route.
pub const PING: &str = "__ping__";

/// Longest name that is looked up: DNS allows 253 characters, plus some room for odd but real
/// internal names. Longer ones are refused, so that no client can make large Redis keys.
pub const MAX_LEN: usize = 255;

/// Hipache cuts a host of more labels to its last six before it tries wildcards, which bounds
/// the keys of one look-up (`lib/cache.js`, "prevent abuse").
const MAX_WILDCARD_LABELS: usize = 6;

/// Why a `Host` value cannot name a virtual host.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HostError {
    /// A byte outside letters, digits, `-`, `_`, `.` and `~`.
    #[error("the host contains a character that no host name has")]
    BadCharacter,
    /// Nothing between two dots, or before the first one.
    #[error("the host has an empty label")]
    EmptyLabel,
    /// `[...]` does not hold an IPv6 address.
    #[error("the host is not a valid IPv6 literal")]
    BadLiteral,
    /// The part behind the colon is not a number up to 65535.
    #[error("the port of the host is not a number up to 65535")]
    BadPort,
    /// No characters at all.
    #[error("the host is empty")]
    Empty,
    /// More than [`MAX_LEN`] bytes.
    #[error("the host is longer than {MAX_LEN} bytes")]
    TooLong,
}

/// Turns the value of a `Host` header (or the authority of an absolute-form target) into the
/// name that routes are kept under: port and one trailing dot removed, in lower case.
///
/// Borrows from `value` when nothing has to change. Accepts RFC 3986 `host [":" port]` restricted
/// to what can be a host name: what names a Redis key is never an arbitrary string of a client's.
///
/// # Errors
///
/// [`HostError`] when the value cannot be a host name; such a request gets 400.
pub fn normalize(value: &[u8]) -> Result<Cow<'_, str>, HostError> {
    if value.is_empty() {
        return Err(HostError::Empty);
    }
    if value.len() > MAX_LEN {
        return Err(HostError::TooLong);
    }
    let text = std::str::from_utf8(value).map_err(|_not_utf8| HostError::BadCharacter)?;
    let (name, port) = if text.starts_with('[') {
        let Some((literal, rest)) = text.split_once(']') else {
            return Err(HostError::BadLiteral);
        };
        let address = literal.strip_prefix('[').unwrap_or(literal);
        if address.parse::<Ipv6Addr>().is_err() {
            return Err(HostError::BadLiteral);
        }
        let name = text.strip_suffix(rest).unwrap_or(text);
        match rest.strip_prefix(':') {
            Some(port) => (name, Some(port)),
            None if rest.is_empty() => (name, None),
            None => return Err(HostError::BadLiteral),
        }
    } else {
        match text.split_once(':') {
            Some((name, port)) => (check_name(name)?, Some(port)),
            None => (check_name(text)?, None),
        }
    };
    if let Some(port) = port
        && !port.is_empty()
        && (!port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err())
    {
        return Err(HostError::BadPort);
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Ok(Cow::Owned(name.to_ascii_lowercase()))
    } else {
        Ok(Cow::Borrowed(name))
    }
}

/// Checks the characters and labels of a name without port and removes one trailing dot.
fn check_name(name: &str) -> Result<&str, HostError> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    let mut previous = b'.';
    for byte in name.bytes() {
        if !IS_NAME_BYTE[usize::from(byte)] {
            return Err(HostError::BadCharacter);
        }
        if byte == b'.' && previous == b'.' {
            return Err(HostError::EmptyLabel);
        }
        previous = byte;
    }
    if previous == b'.' {
        return Err(HostError::EmptyLabel);
    }
    Ok(name)
}

/// Bytes that a name may hold.
const IS_NAME_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
        byte += 1;
    }
    table
};

/// The names whose `frontend:` keys are tried for `host`, nearest first: itself, `*.` before
/// each shorter ending, `*`. The first list that is not empty wins (Hipache's order).
///
/// `host` must come from [`normalize`].
pub fn lookup_names(host: &str) -> impl Iterator<Item = Cow<'_, str>> {
    // An address has no parent domains.
    let dots = if host.starts_with('[') { 0 } else { host.matches('.').count() };
    let skipped = (dots + 1).saturating_sub(MAX_WILDCARD_LABELS);
    let wildcards = host
        .match_indices('.')
        .take(dots)
        .skip(skipped)
        .filter_map(move |(at, _)| host.get(at..))
        .map(|ending| Cow::Owned(format!("*{ending}")));
    std::iter::once(Cow::Borrowed(host)).chain(wildcards).chain(std::iter::once(Cow::Borrowed("*")))
}

/// Index of `name` among the [`lookup_names`] of `host`: 0 is the host itself.
pub fn lookup_rank(host: &str, name: &str) -> Option<usize> {
    lookup_names(host).position(|tried| tried == name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{HostError, PING, lookup_names, normalize};

    #[test]
    fn hosts_are_lower_cased_without_port_and_trailing_dot() {
        for (value, name) in [
            ("a.test", "a.test"),
            ("A.Test", "a.test"),
            ("a.test:8080", "a.test"),
            ("a.test:", "a.test"),
            ("a.test.", "a.test"),
            ("A.test.:80", "a.test"),
            ("a_b-c.test", "a_b-c.test"),
            ("xn--bcher-kva.test", "xn--bcher-kva.test"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::FFFF:1.2.3.4]:443", "[::ffff:1.2.3.4]"),
            (PING, PING),
        ] {
            assert_eq!(normalize(value.as_bytes()).as_deref(), Ok(name), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_a_host_is_refused() {
        for (value, error) in [
            ("", HostError::Empty),
            (".", HostError::Empty),
            (":80", HostError::Empty),
            ("a..b", HostError::EmptyLabel),
            (".a", HostError::EmptyLabel),
            ("a.test..", HostError::EmptyLabel),
            ("a b", HostError::BadCharacter),
            ("a/b", HostError::BadCharacter),
            ("a@b", HostError::BadCharacter),
            ("a,b", HostError::BadCharacter),
            ("a\\b", HostError::BadCharacter),
            ("\"a\"", HostError::BadCharacter),
            ("*", HostError::BadCharacter),
            ("*.w.test", HostError::BadCharacter),
            ("b\u{fc}cher.test", HostError::BadCharacter),
            ("a.test\r\n", HostError::BadCharacter),
            ("a.test:99999", HostError::BadPort),
            ("a.test:8a", HostError::BadPort),
            ("a.test:+8", HostError::BadPort),
            ("a.test:80:80", HostError::BadPort),
            ("[::1", HostError::BadLiteral),
            ("[::g]", HostError::BadLiteral),
            ("[::1]x", HostError::BadLiteral),
            ("[::1]:x", HostError::BadPort),
        ] {
            assert_eq!(normalize(value.as_bytes()).unwrap_err(), error, "{value}");
        }
        assert_eq!(normalize(&[b'a'; 256]).unwrap_err(), HostError::TooLong);
        assert_eq!(normalize(b"\xff.test").unwrap_err(), HostError::BadCharacter);
    }

    /// hipache-contract 1, look-up order.
    #[test]
    fn names_are_tried_from_the_host_itself_to_the_catch_all() {
        let names = |host| lookup_names(host).collect::<Vec<_>>();
        assert_eq!(names("a.b.c"), ["a.b.c", "*.b.c", "*.c", "*"]);
        assert_eq!(names("localhost"), ["localhost", "*"]);
        assert_eq!(names("[::1]"), ["[::1]", "*"]);
        assert_eq!(
            names("a.b.c.d.e.f"),
            ["a.b.c.d.e.f", "*.b.c.d.e.f", "*.c.d.e.f", "*.d.e.f", "*.e.f", "*.f", "*"]
        );
        assert_eq!(
            names("1.2.a.b.c.d.e.f"),
            ["1.2.a.b.c.d.e.f", "*.b.c.d.e.f", "*.c.d.e.f", "*.d.e.f", "*.e.f", "*.f", "*"]
        );
    }

    proptest! {
        #[test]
        fn normalizing_never_panics_and_is_idempotent(value in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(name) = normalize(&value) {
                let again = normalize(name.as_bytes());
                prop_assert_eq!(again.as_deref(), Ok(&*name));
                prop_assert!(!name.bytes().any(|b| b.is_ascii_control() || b.is_ascii_uppercase()));
                prop_assert!(lookup_names(&name).count() <= 7);
            }
        }

        #[test]
        fn names_keep_what_they_are(name in "[a-z0-9_-]{1,10}(\\.[a-z0-9_-]{1,10}){0,8}", port in any::<u16>()) {
            let value = format!("{}.:{port}", name.to_ascii_uppercase());
            let normalized = normalize(value.as_bytes());
            prop_assert_eq!(normalized.as_deref(), Ok(&*name));
        }
    }
}
