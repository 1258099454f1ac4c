//! Backend URLs as they stand in `frontend:` lists.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest row: a host has 255 bytes at most, and what follows it means nothing but is shown.
const MAX_ROW: usize = 2048;

/// How to speak to a backend.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Scheme {
    /// HTTP/2 without TLS, which both sides know of beforehand.
    H2c,
    /// Plain HTTP/1.1.
    Http,
    /// HTTP over TLS: 2 where the backend offers it, else 1.1.
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::H2c => "h2c",
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Where a backend listens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum BackendHost {
    /// A literal address.
    Ip(IpAddr),
    /// A name to resolve, in lower case.
    Name(Box<str>),
}

impl fmt::Display for BackendHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl BackendHost {
    /// Reads a name or an address, an IPv6 address with or without brackets.
    ///
    /// # Errors
    ///
    /// [`BackendUrlError`] when it is neither.
    pub fn parse(text: &str) -> Result<Self, BackendUrlError> {
        match text.parse::<Ipv6Addr>() {
            Ok(address) => Ok(Self::Ip(IpAddr::V6(address))),
            Err(_) => parse_host(text),
        }
    }
}

/// What identifies the peer of a connection: two URLs with the same origin share connections.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Origin {
    /// How to speak to it.
    pub scheme: Scheme,
    /// Where it listens.
    pub host: BackendHost,
    /// TCP port.
    pub port: u16,
}

impl Origin {
    /// The peer that a row means; see [`BackendUrl::parse`].
    ///
    /// # Errors
    ///
    /// [`BackendUrlError`] says what is wrong with the row.
    pub fn parse(row: &[u8]) -> Result<Self, BackendUrlError> {
        Ok(Parts::parse(row)?.origin)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}

/// Why a row of a `frontend:` list cannot be used as a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BackendUrlError {
    /// Neither a scheme nor a port: nothing says that this is meant to be an address.
    #[error("it is neither a URL nor host:port")]
    NotAUrl,
    /// Nothing where the host should be.
    #[error("it has no host")]
    NoHost,
    /// The host is not an address and not a DNS name.
    #[error("its host is not an address or a name")]
    BadHost,
    /// The port is not a number from 1 to 65535.
    #[error("its port is not a number from 1 to 65535")]
    BadPort,
    /// A scheme that this version does not speak.
    #[error("its scheme is not http, https or h2c")]
    UnknownScheme,
    /// Not text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// Longer than any URL that is meant.
    #[error("it is longer than {MAX_ROW} bytes")]
    TooLong,
}

/// A parsed backend URL.
///
/// As in Hipache, path, query, user and password are ignored and the scheme is read without
/// regard to case. Beyond Hipache, a bare `host:port` (as PlanB users write it) is `http://`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendUrl {
    /// The peer.
    pub origin: Origin,
    /// The URL as Node prints a parsed one (`http://10.0.0.1:80/`): what the `dead` channel and
    /// `X-Debug` answers carry. Without user and password: those are nobody else's business.
    pub href: Box<str>,
}

impl BackendUrl {
    /// Parses one row.
    ///
    /// # Errors
    ///
    /// [`BackendUrlError`] says what is wrong with the row; the row is then skipped.
    pub fn parse(row: &[u8]) -> Result<Self, BackendUrlError> {
        let Parts { origin, port, path } = Parts::parse(row)?;
        // Node keeps a port that was written, also the default one, and the path.
        let mut href = format!("{}://{}", origin.scheme.as_str(), origin.host);
        if let Some(digits) = port.filter(|digits| !digits.is_empty()) {
            href.push(':');
            href.push_str(digits);
        }
        if !path.starts_with('/') {
            href.push('/');
        }
        href.extend(path.chars().filter(char::is_ascii_graphic));
        Ok(Self { origin, href: href.into_boxed_str() })
    }
}

/// A row taken apart.
struct Parts<'a> {
    origin: Origin,
    /// As it is written.
    port: Option<&'a str>,
    /// What follows the port.
    path: &'a str,
}

impl<'a> Parts<'a> {
    fn parse(row: &'a [u8]) -> Result<Self, BackendUrlError> {
        if row.len() > MAX_ROW {
            return Err(BackendUrlError::TooLong);
        }
        let text = std::str::from_utf8(row).map_err(|_not_utf8| BackendUrlError::NotText)?.trim();
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("h2c") => (Scheme::H2c, rest),
            Some(_) => return Err(BackendUrlError::UnknownScheme),
            None if looks_like_host_and_port(text) => (Scheme::Http, text),
            None => return Err(BackendUrlError::NotAUrl),
        };
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let address = authority.rsplit_once('@').map_or(authority, |(_userinfo, address)| address);
        let (host, port) = split_port(address)?;
        let host = parse_host(host)?;
        let number = match port {
            None | Some("") => match scheme {
                Scheme::H2c | Scheme::Http => 80,
                Scheme::Https => 443,
            },
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                match digits.parse::<u16>() {
                    Ok(number) if number > 0 => number,
                    _ => return Err(BackendUrlError::BadPort),
                }
            }
            Some(_) => return Err(BackendUrlError::BadPort),
        };
        Ok(Self { origin: Origin { scheme, host, port: number }, port, path })
    }
}

/// `name:digits` or `[v6]:digits`, with nothing behind but perhaps a path.
fn looks_like_host_and_port(text: &str) -> bool {
    let end = text.find('/').unwrap_or(text.len());
    let address = text.get(..end).unwrap_or(text);
    address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
    })
}

fn split_port(address: &str) -> Result<(&str, Option<&str>), BackendUrlError> {
    if address.starts_with('[') {
        let Some((_, rest)) = address.split_once(']') else {
            return Err(BackendUrlError::BadHost);
        };
        let literal = address.strip_suffix(rest).unwrap_or(address);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((literal, Some(port))),
            None if rest.is_empty() => Ok((literal, None)),
            None => Err(BackendUrlError::BadPort),
        };
    }
    match address.split_once(':') {
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((address, None)),
    }
}

fn parse_host(host: &str) -> Result<BackendHost, BackendUrlError> {
    if host.is_empty() {
        return Err(BackendUrlError::NoHost);
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(BackendHost::Ip(IpAddr::V4(address)));
    }
    if let Some(literal) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match literal.parse::<Ipv6Addr>() {
            Ok(address) => Ok(BackendHost::Ip(IpAddr::V6(address))),
            Err(_) => Err(BackendUrlError::BadHost),
        };
    }
    let is_name = host.len() <= 253
        && !host.starts_with('.')
        && !host.contains("..")
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if is_name {
        Ok(BackendHost::Name(host.to_ascii_lowercase().into_boxed_str()))
    } else {
        Err(BackendUrlError::BadHost)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BackendUrl, BackendUrlError};

    #[test]
    fn urls_are_read_as_hipache_reads_them() {
        for (row, origin, href) in [
            ("http://10.0.0.1:80", "http://10.0.0.1:80", "http://10.0.0.1:80/"),
            ("http://10.0.0.1:80/", "http://10.0.0.1:80", "http://10.0.0.1:80/"),
            ("http://10.0.0.1", "http://10.0.0.1:80", "http://10.0.0.1/"),
            ("HTTP://Web.Test:8080", "http://web.test:8080", "http://web.test:8080/"),
            ("http://u:p@10.0.0.1:81/x?y", "http://10.0.0.1:81", "http://10.0.0.1:81/x?y"),
            ("http://[::1]:8080", "http://[::1]:8080", "http://[::1]:8080/"),
            ("https://web", "https://web:443", "https://web/"),
            ("H2C://web", "h2c://web:80", "h2c://web/"),
            ("  http://web:1 \n", "http://web:1", "http://web:1/"),
            // Beyond Hipache: PlanB's bare form.
            ("10.0.0.1:8080", "http://10.0.0.1:8080", "http://10.0.0.1:8080/"),
            ("web_1:8080/", "http://web_1:8080", "http://web_1:8080/"),
            ("[::1]:80", "http://[::1]:80", "http://[::1]:80/"),
        ] {
            let url = BackendUrl::parse(row.as_bytes()).unwrap_or_else(|e| panic!("{row}: {e}"));
            assert_eq!((url.origin.to_string().as_str(), &*url.href), (origin, href), "{row}");
        }
    }

    #[test]
    fn rows_that_are_no_backend_say_why() {
        for (row, error) in [
            ("garbage", BackendUrlError::NotAUrl),
            ("", BackendUrlError::NotAUrl),
            ("10.0.0.1", BackendUrlError::NotAUrl),
            (":80", BackendUrlError::NotAUrl),
            ("http://", BackendUrlError::NoHost),
            ("http://:80", BackendUrlError::NoHost),
            ("http:///path", BackendUrlError::NoHost),
            ("http://a b:80", BackendUrlError::BadHost),
            ("http://[::1", BackendUrlError::BadHost),
            ("http://[zz]:80", BackendUrlError::BadHost),
            ("http://a..b", BackendUrlError::BadHost),
            ("http://a:0", BackendUrlError::BadPort),
            ("http://a:65536", BackendUrlError::BadPort),
            ("http://a:8x", BackendUrlError::BadPort),
            ("a:99999", BackendUrlError::BadPort),
            ("tcp://a:1", BackendUrlError::UnknownScheme),
            ("unix:///run/x", BackendUrlError::UnknownScheme),
        ] {
            assert_eq!(BackendUrl::parse(row.as_bytes()).unwrap_err(), error, "{row:?}");
        }
        assert_eq!(BackendUrl::parse(b"http://\xff").unwrap_err(), BackendUrlError::NotText);
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_its_href_reads_back(row in "(http://|HTTPS://|h2c://)?[a-z0-9.:@/\\[\\]?# -]{0,30}") {
            if let Ok(url) = BackendUrl::parse(row.as_bytes()) {
                let again = BackendUrl::parse(url.href.as_bytes()).unwrap();
                prop_assert_eq!(&again.origin, &url.origin);
                prop_assert_eq!(&again.href, &url.href);
            }
        }

        #[test]
        fn any_bytes_are_survived(row in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _url = BackendUrl::parse(&row);
        }
    }
}
