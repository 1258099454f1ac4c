//! Pure rewriting of request and response headers.
//!
//! What the client sent keeps its order: a header in the middle is removed by rebuilding the map,
//! because removing from a `HeaderMap` moves its last entry.

use std::net::{IpAddr, SocketAddr};

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, Entry, HOST, HeaderMap, HeaderName,
    HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Version};

use super::forwarded::{FORWARDED, extend};
use super::hops;
use super::request_kind::RequestKind;
use crate::fields::remove_in_order;

pub(super) mod evidence;
mod login;

pub use evidence::{client_address, cookies, is_https};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// Some programs take this for the environment variable `HTTP_PROXY` ("httpoxy").
const PROXY: HeaderName = HeaderName::from_static("proxy");
/// Trailers of every call of gRPC, and of one that failed with details.
const GRPC_TRAILERS: &str = "grpc-status, grpc-message, grpc-status-details-bin";
/// The address of the client, for the backend and the access log.
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_PROTOCOL: HeaderName = HeaderName::from_static("x-forwarded-protocol");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// What the backend is told of the client; the same for all requests of a connection.
#[derive(Clone, Debug)]
pub struct Forwarded {
    peer: IpAddr,
    client: HeaderValue,
    proto: HeaderValue,
    port: HeaderValue,
    trust: Trust,
    style: Style,
}

/// How what backends are told is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Style {
    /// IPv4 addresses without `::ffff:`.
    pub plain_ipv4: bool,
    /// `Forwarded` (RFC 7239), too, and believed from trusted proxies.
    pub rfc_7239: bool,
}

impl Style {
    /// The address as it is written.
    pub fn write(self, address: IpAddr) -> HeaderValue {
        let text = match canonical(address) {
            IpAddr::V4(address) if !self.plain_ipv4 => format!("::ffff:{address}"),
            address => address.to_string(),
        };
        HeaderValue::try_from(text).expect("addresses are valid header values")
    }
}

/// What forwarded headers that a client brings along are worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trust {
    /// Hipache's rule: what came is kept, what is missing is added.
    Keep,
    /// From a trusted proxy: the address is appended, the rest kept.
    Append,
    /// From anyone else while there are trusted proxies: overwritten.
    Overwrite,
}

impl Forwarded {
    /// For a connection from `peer` to our `local` address, `over_tls` or not.
    pub fn new(
        peer: SocketAddr,
        local: SocketAddr,
        over_tls: bool,
        style: Style,
        trust: Trust,
    ) -> Self {
        Self {
            peer: canonical(peer.ip()),
            client: style.write(peer.ip()),
            proto: HeaderValue::from_static(if over_tls { "https" } else { "http" }),
            port: HeaderValue::from(local.port()),
            trust,
            style,
        }
    }

    /// What forwarded headers of this client are worth.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// The client's address as the access log shows it when no header says otherwise.
    pub fn client(&self) -> &HeaderValue {
        &self.client
    }

    /// Sets the `X-Forwarded-*` headers and `X-Real-IP` (hipache-contract 2), and `Forwarded` if
    /// that is wanted. `is_trusted` tells the trusted proxies.
    pub fn apply(&self, headers: &mut HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) {
        if self.trust != Trust::Keep {
            remove_forged(headers, self.trust);
        }
        if self.style.rfc_7239 {
            extend(headers, self.trust, self.style, self.peer, &self.proto, &is_trusted);
        }
        // One growth at most, not one at each power of two.
        headers.reserve(5);
        match self.trust {
            Trust::Keep => headers.entry(X_FORWARDED_FOR).or_insert_with(|| self.client.clone()),
            Trust::Overwrite => {
                if !self.style.rfc_7239 {
                    headers.remove(FORWARDED);
                }
                headers.insert(X_FORWARDED_FOR, self.client.clone());
                headers.insert(X_REAL_IP, self.client.clone());
                headers.insert(X_FORWARDED_PROTOCOL, self.proto.clone());
                headers.insert(X_FORWARDED_PROTO, self.proto.clone());
                headers.insert(X_FORWARDED_PORT, self.port.clone());
                return;
            }
            Trust::Append => {
                let mut chain = Vec::new();
                for value in headers.get_all(X_FORWARDED_FOR) {
                    chain.extend_from_slice(value.as_bytes());
                    chain.extend_from_slice(b", ");
                }
                chain.extend_from_slice(self.client.as_bytes());
                let chain = HeaderValue::from_bytes(&chain).unwrap_or_else(|_| self.client.clone());
                match headers.entry(X_FORWARDED_FOR) {
                    Entry::Occupied(mut entry) => {
                        entry.insert(chain);
                        entry.into_mut()
                    }
                    Entry::Vacant(entry) => entry.insert(chain),
                }
            }
        };
        if self.trust == Trust::Append
            && !headers.contains_key(X_REAL_IP)
            && let Some(client) = client_address(headers, is_trusted)
        {
            headers.insert(X_REAL_IP, self.style.write(client));
        }
        headers.entry(X_REAL_IP).or_insert_with(|| self.client.clone());
        headers.entry(X_FORWARDED_PROTOCOL).or_insert_with(|| self.proto.clone());
        headers.entry(X_FORWARDED_PROTO).or_insert_with(|| self.proto.clone());
        headers.entry(X_FORWARDED_PORT).or_insert_with(|| self.port.clone());
    }
}

/// Removes names that many programs cannot tell from a forwarded header, and of a peer that is not
/// believed whatever else it says in forwarded headers: `X-Forwarded-Host` is the host in links and
/// cookies for many frameworks. What is overwritten anyway keeps its place.
fn remove_forged(headers: &mut HeaderMap, trust: Trust) {
    const OVERWRITTEN: [HeaderName; 4] =
        [X_FORWARDED_FOR, X_FORWARDED_PROTOCOL, X_FORWARDED_PROTO, X_FORWARDED_PORT];
    let is_told = |name: &str| name.starts_with("x-forwarded-") || name == "x-real-ip";
    let is_forged = |name: &HeaderName| {
        is_shadow(name, is_told)
            || (trust == Trust::Overwrite
                && name.as_str().starts_with("x-forwarded-")
                && !OVERWRITTEN.contains(name))
    };
    remove_in_order(headers, is_forged);
}

/// Whether this is another spelling of such a name: `X_Forwarded_For` and `X-Forwarded-For` are the
/// same variable in CGI and its heirs.
pub(super) fn is_shadow(name: &HeaderName, is_such: impl Fn(&str) -> bool) -> bool {
    let name = name.as_str();
    name.contains('_') && is_such(&name.replace('_', "-"))
}

/// An IPv4 address that arrived on an IPv6 socket is an IPv4 address.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// What one pass over the headers of a request finds out: most requests hold little of it, and
/// each question of its own would cost a hash look-up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Scan {
    /// The first `Host`.
    pub host: Option<HeaderValue>,
    /// There is a second one.
    pub has_several_hosts: bool,
    has_transfer_encoding: bool,
    /// There is something that concerns one connection only, beyond a plain
    /// `Connection: keep-alive`.
    has_hop_by_hop: bool,
    /// `Expect` is there.
    pub expects: bool,
    /// `X-Debug` is there.
    pub wants_debug: bool,
    /// `TE` says that trailers are taken.
    pub takes_trailers: bool,
    /// There is a login that is valid for the whole connection to the backend.
    pub logs_in: bool,
    /// Length of all names and values.
    pub bytes: usize,
    /// What the request is at least, by its headers alone.
    pub kind: RequestKind,
    /// Routers that the request has passed through.
    pub hops: u8,
    /// A proxy has passed the request on: `X-Forwarded-For` is there, which every router adds, or a
    /// number of routers, readable or not.
    pub was_forwarded: bool,
}

impl Scan {
    /// Looks at every header once.
    pub fn new(headers: &HeaderMap) -> Self {
        let mut scan = Self::default();
        let mut connections = 0;
        let mut ranges = 0;
        for (name, value) in headers {
            let name = name.as_str();
            scan.bytes += name.len() + value.len();
            match name {
                "connection" => {
                    connections += 1;
                    scan.has_hop_by_hop |= connections > 1 || value.as_bytes() != b"keep-alive";
                }
                "authorization" | "proxy-authorization" => scan.logs_in |= login::is_bound(value),
                "expect" => {
                    scan.expects = true;
                    scan.kind = scan.kind.max(RequestKind::of_header(name, value));
                }
                "host" if scan.host.is_none() => scan.host = Some(value.clone()),
                "host" => scan.has_several_hosts = true,
                "range" => {
                    ranges += 1;
                    // Several lines are one list.
                    let kind = match ranges {
                        1 => RequestKind::of_header(name, value),
                        _ => RequestKind::Unusual,
                    };
                    scan.kind = scan.kind.max(kind);
                }
                "transfer-encoding" => scan.has_transfer_encoding = true,
                "x-debug" => scan.wants_debug = true,
                "x-forwarded-for" => scan.was_forwarded = true,
                // Before `Connection` could take it away.
                "x-router-hops" => {
                    scan.hops = scan.hops.max(hops::read(value));
                    scan.was_forwarded = true;
                }
                "te" => {
                    scan.has_hop_by_hop = true;
                    scan.takes_trailers |= names_trailers(value);
                    scan.kind = scan.kind.max(RequestKind::of_header(name, value));
                }
                "keep-alive" | "proxy-connection" | "proxy" => scan.has_hop_by_hop = true,
                "upgrade" | "http2-settings" => {
                    scan.has_hop_by_hop = true;
                    scan.kind = scan.kind.max(RequestKind::of_header(name, value));
                }
                _ => scan.kind = scan.kind.max(RequestKind::of_header(name, value)),
            }
        }
        scan
    }
}

/// Checks that there is one way only to read where the body ends (RFC 9112 6). A `Content-Length`
/// beside a `Transfer-Encoding` is none of them any more: hyper has dropped it, and closes the
/// connection after this request (RFC 9112 6.3).
///
/// # Errors
///
/// What is wrong with the request.
pub fn check_framing(
    headers: &HeaderMap,
    scan: &Scan,
    version: Version,
) -> Result<(), &'static str> {
    if !scan.has_transfer_encoding {
        return Ok(());
    }
    if version == Version::HTTP_10 {
        return Err("Transfer-Encoding in HTTP/1.0");
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = codings.next().is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !is_chunked || codings.next().is_some() {
        return Err("Transfer-Encoding other than chunked");
    }
    Ok(())
}

/// Whether a request may be sent a second time without harm (RFC 9110 9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// Prepares the headers of a request for the backend: removes what concerns only the client's
/// connection (RFC 9110 7.6.1). Returns the protocol that the client asks to upgrade to, which the
/// backend is then told, too; unless `may_upgrade` none is asked for.
pub fn strip_request(
    headers: &mut HeaderMap,
    scan: &Scan,
    may_upgrade: bool,
) -> Option<HeaderValue> {
    // A plain `Connection: keep-alive` may stay: it is true of our own connection, too.
    if !scan.has_hop_by_hop {
        return None;
    }
    let upgrade = may_upgrade.then(|| requested_upgrade(headers)).flatten();
    strip(headers, |name| {
        *name == UPGRADE
            || *name == TE
            || *name == HTTP2_SETTINGS
            || *name == PROXY
            || *name == PROXY_CONNECTION
            || *name == KEEP_ALIVE
    });
    if let Some(protocol) = &upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    upgrade
}

/// Whether a change of protocol may be asked for. One of HTTP/1.0 is to be ignored (RFC 9110 7.8), a
/// body cannot be told from the bytes of the new protocol by every backend, and HTTP/2 knows WebSockets
/// alone (RFC 9113 8.6, RFC 8441).
pub fn may_upgrade(version: Version, has_body: bool, is_websocket: bool) -> bool {
    (version == Version::HTTP_11 || is_websocket) && !has_body
}

/// Takes back what [`strip_request`] has left of a change of protocol.
pub fn ignore_upgrade(headers: &mut HeaderMap) {
    remove_in_order(headers, |name| *name == CONNECTION || *name == UPGRADE);
}

/// How a backend's response says where its body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// In two ways; chunked counts (RFC 9112 6.3) and the length was removed.
    Ambiguous,
    /// In one way.
    Clear,
    /// By a transfer coding other than chunked, or by a length that is a list, neither of which can
    /// be passed on.
    Unknown,
}

/// What the headers of a response say of its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stripped {
    /// Where the body ends.
    pub framing: Framing,
    /// The backend takes logins that are valid for the whole connection.
    pub asks_for_login: bool,
}

/// Prepares the headers of a response for the client. `keep_connection` says that the client's
/// connection may carry our own `Connection: keep-alive`.
pub fn strip_response(headers: &mut HeaderMap, keep_connection: bool) -> Stripped {
    let mut asks_for_login = false;
    let mut has_hop_by_hop = false;
    let mut lengths = 0;
    let mut is_number = true;
    let mut codings = 0;
    let mut is_chunked = true;
    for (name, value) in &*headers {
        match name.as_str() {
            "connection" => has_hop_by_hop |= value.as_bytes() != b"keep-alive" || !keep_connection,
            "keep-alive" | "proxy-connection" | "upgrade" | "te" => has_hop_by_hop = true,
            "content-length" => {
                lengths += 1;
                is_number &= value.as_bytes().iter().all(u8::is_ascii_digit);
            }
            "transfer-encoding" => {
                codings += 1;
                is_chunked &= value.as_bytes().eq_ignore_ascii_case(b"chunked");
            }
            "www-authenticate" | "proxy-authenticate" => asks_for_login |= login::is_bound(value),
            _ => {}
        }
    }
    if has_hop_by_hop {
        strip(headers, |name| *name == UPGRADE || *name == PROXY_CONNECTION || *name == KEEP_ALIVE);
        if !keep_connection {
            headers.remove(CONNECTION);
        }
    }
    let framing = if codings > 1 || !is_chunked || lengths > 1 || !is_number {
        Framing::Unknown
    } else if codings == 1 && lengths == 1 {
        headers.remove(CONTENT_LENGTH);
        Framing::Ambiguous
    } else {
        Framing::Clear
    };
    Stripped { framing, asks_for_login }
}

fn strip(headers: &mut HeaderMap, is_hop_by_hop: impl Fn(&HeaderName) -> bool) {
    let has_trailers_wanted = headers.contains_key(TE) && wants_trailers(headers);
    let mut named: Vec<HeaderName> = Vec::new();
    let mut has_connection = false;
    let mut is_plain_keep_alive = true;
    for value in headers.get_all(CONNECTION) {
        is_plain_keep_alive =
            is_plain_keep_alive && !has_connection && value.as_bytes() == b"keep-alive";
        has_connection = true;
        if is_plain_keep_alive {
            continue;
        }
        for token in tokens(value) {
            if let Ok(name) = HeaderName::from_bytes(token)
                && !is_protected(&name)
            {
                named.push(name);
            }
        }
    }
    let drop_connection = has_connection && !is_plain_keep_alive;
    let is_dropped = |name: &HeaderName| {
        (drop_connection && *name == CONNECTION) || is_hop_by_hop(name) || named.contains(name)
    };
    if headers.keys().any(is_dropped) {
        remove_in_order(headers, is_dropped);
    }
    if has_trailers_wanted {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Names that `Connection` cannot remove: doing so would change framing or identity.
fn is_protected(name: &HeaderName) -> bool {
    *name == HOST
        || *name == CONTENT_LENGTH
        || *name == TRANSFER_ENCODING
        || *name == COOKIE
        || *name == X_REAL_IP
        || *name == FORWARDED
        || name.as_str().starts_with("x-forwarded-")
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().any(names_trailers)
}

fn names_trailers(value: &HeaderValue) -> bool {
    tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers"))
}

/// Announces what a call of gRPC ends with, for a client of HTTP/1.1. Backends of HTTP/2 need not announce
/// it, while the encoder of HTTP/1.1 drops what is not announced (RFC 9110 6.6.2).
pub fn announce_grpc(headers: &mut HeaderMap) {
    let is_grpc = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
    if headers.get(CONTENT_TYPE).is_some_and(is_grpc) && !headers.contains_key(TRAILER) {
        headers.insert(TRAILER, HeaderValue::from_static(GRPC_TRAILERS));
    }
}

/// The protocol of a real upgrade: `Connection: upgrade`, one `Upgrade` value, and not HTTP/2,
/// which a backend would speak past our rules.
fn requested_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let protocol = protocols.next()?;
    let is_asked_for = headers
        .get_all(CONNECTION)
        .iter()
        .any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case(b"upgrade")));
    let is_http2 = tokens(protocol).any(|token| token.to_ascii_lowercase().starts_with(b"h2"));
    (is_asked_for && !is_http2 && protocols.next().is_none()).then(|| protocol.clone())
}

/// Whether the backend agreed to what the client asked for.
pub fn echoes_upgrade(headers: &HeaderMap, asked: &HeaderValue) -> bool {
    headers.get(UPGRADE).is_some_and(|given| {
        tokens(given).all(|given| tokens(asked).any(|asked| asked.eq_ignore_ascii_case(given)))
    })
}

/// The items of a comma-separated value.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;
    use http::{HeaderMap, Version};
    use proptest::prelude::*;

    use super::{
        Forwarded, Framing, HeaderName, Scan, Style, Trust, announce_grpc, check_framing,
        echoes_upgrade, ignore_upgrade, may_upgrade, strip_request, strip_response,
    };

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn lines(headers: &HeaderMap) -> Vec<(&str, &str)> {
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect()
    }

    fn strip(headers: &mut HeaderMap) -> Option<HeaderValue> {
        let scan = Scan::new(headers);
        strip_request(headers, &scan, true)
    }

    /// What may not be asked for is not asked for: the backend would answer it.
    #[test]
    fn an_upgrade_that_is_ignored_leaves_nothing_behind() {
        for (version, has_body, is_websocket, expected) in [
            (Version::HTTP_11, false, false, true),
            (Version::HTTP_11, true, false, false),
            (Version::HTTP_10, false, false, false),
            (Version::HTTP_10, true, false, false),
            (Version::HTTP_2, false, true, true),
            (Version::HTTP_2, false, false, false),
        ] {
            let may = may_upgrade(version, has_body, is_websocket);
            assert_eq!(may, expected, "{version:?} {has_body} {is_websocket}");
        }
        let asking =
            [("host", "a"), ("connection", "upgrade"), ("upgrade", "websocket"), ("x", "1")];
        let mut headers = map(&asking);
        let scan = Scan::new(&headers);
        assert_eq!(strip_request(&mut headers, &scan, false), None);
        assert_eq!(lines(&headers), [("host", "a"), ("x", "1")]);
        let mut headers = map(&asking);
        assert!(strip(&mut headers).is_some());
        assert!(headers.contains_key("upgrade"));
        ignore_upgrade(&mut headers);
        assert_eq!(lines(&headers), [("host", "a"), ("x", "1")]);
    }

    fn forwarded(peer: &str, plain: bool, trust: Trust) -> Forwarded {
        let style = Style { plain_ipv4: plain, rfc_7239: false };
        let (peer, local) = (peer.parse().unwrap(), "127.0.0.1:8080".parse().unwrap());
        Forwarded::new(peer, local, false, style, trust)
    }

    /// hipache-contract 2, "Headers to the backend, each only if the client did not send it".
    #[test]
    fn missing_forwarded_headers_are_added_behind_the_clients() {
        let mut headers = map(&[("host", "a.test"), ("x-forwarded-proto", "https")]);
        forwarded("1.2.3.4:5", false, Trust::Keep).apply(&mut headers, |_| false);
        assert_eq!(
            lines(&headers),
            [
                ("host", "a.test"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-for", "::ffff:1.2.3.4"),
                ("x-real-ip", "::ffff:1.2.3.4"),
                ("x-forwarded-protocol", "http"),
                ("x-forwarded-port", "8080"),
            ]
        );
    }

    #[test]
    fn addresses_are_written_as_hipache_does_unless_plain_ones_are_wanted() {
        for (peer, plain, shown) in [
            ("1.2.3.4:5", false, "::ffff:1.2.3.4"),
            ("1.2.3.4:5", true, "1.2.3.4"),
            ("[::ffff:1.2.3.4]:5", true, "1.2.3.4"),
            ("[2001:db8::1]:5", false, "2001:db8::1"),
        ] {
            assert_eq!(forwarded(peer, plain, Trust::Keep).client(), shown);
        }
    }

    /// hipache-contract 2, `trustedProxies`.
    #[test]
    fn trusted_proxies_are_appended_to_and_others_overwritten() {
        let brought = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "7.7.7.7"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=x"),
        ];
        let mut headers = map(&brought);
        forwarded("1.2.3.4:5", true, Trust::Append).apply(&mut headers, |_| false);
        assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 7.7.7.7, 1.2.3.4");
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(headers["x-forwarded-proto"], "https");
        let mut headers = map(&brought);
        forwarded("1.2.3.4:5", true, Trust::Overwrite).apply(&mut headers, |_| false);
        assert_eq!(headers["x-forwarded-for"], "1.2.3.4");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert!(!headers.contains_key("forwarded"));
    }

    /// Whatever of it the router does not set would be believed by backends.
    #[test]
    fn no_forwarded_header_of_an_untrusted_peer_is_left() {
        let brought = [
            ("x-forwarded-host", "evil.test"),
            ("accept", "a"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-ssl", "on"),
            ("x-forwarded-scheme", "https"),
            ("x-forwarded-prefix", "/a"),
            ("x-forwarded-prefix", "/b"),
            ("x-forwarded-anything", "1"),
            ("x-forward", "kept"),
        ];
        let mut headers = map(&brought);
        forwarded("1.2.3.4:5", true, Trust::Overwrite).apply(&mut headers, |_| false);
        assert_eq!(
            lines(&headers),
            [
                ("accept", "a"),
                ("x-forwarded-proto", "http"),
                ("x-forward", "kept"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-real-ip", "1.2.3.4"),
                ("x-forwarded-protocol", "http"),
                ("x-forwarded-port", "8080"),
            ]
        );
        for trust in [Trust::Keep, Trust::Append] {
            let mut headers = map(&brought);
            forwarded("1.2.3.4:5", true, trust).apply(&mut headers, |_| false);
            assert_eq!(lines(&headers)[..brought.len()], brought, "{trust:?}");
        }
    }

    #[test]
    fn names_with_underscores_do_not_shadow_what_a_trusted_setting_says() {
        let brought = [("x_forwarded_for", "6.6.6.6"), ("x_real_ip", "6.6.6.6"), ("x_other", "1")];
        for trust in [Trust::Append, Trust::Overwrite] {
            let mut headers = map(&brought);
            forwarded("1.2.3.4:5", true, trust).apply(&mut headers, |_| false);
            assert!(!headers.contains_key("x_forwarded_for") && !headers.contains_key("x_real_ip"));
            assert!(headers.contains_key("x_other"));
        }
    }

    #[test]
    fn hop_by_hop_headers_go_and_the_rest_keeps_its_order() {
        let mut headers = map(&[
            ("connection", "close, X-Foo, host, cookie, content-length"),
            ("host", "a.test"),
            ("x-foo", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("accept", "a"),
            ("te", "trailers, deflate"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
            ("proxy", "http://evil/"),
            ("accept", "b"),
            ("cookie", "s=1"),
            ("content-length", "5"),
        ]);
        assert_eq!(strip(&mut headers), None);
        assert_eq!(
            lines(&headers),
            [
                ("host", "a.test"),
                ("accept", "a"),
                ("accept", "b"),
                ("cookie", "s=1"),
                ("content-length", "5"),
                ("te", "trailers"),
            ]
        );
    }

    #[test]
    fn a_plain_keep_alive_stays_as_our_own() {
        let sent = [("connection", "keep-alive"), ("host", "a"), ("accept", "b")];
        let mut headers = map(&sent);
        strip(&mut headers);
        assert_eq!(lines(&headers), sent);
        assert_eq!(strip_response(&mut headers, true).framing, Framing::Clear);
        assert_eq!(lines(&headers), sent);
        assert_eq!(strip_response(&mut headers, false).framing, Framing::Clear);
        assert!(!headers.contains_key("connection"));
        let mut twice =
            map(&[("connection", "keep-alive"), ("connection", "x-foo"), ("x-foo", "1")]);
        strip(&mut twice);
        assert_eq!(lines(&twice), []);
    }

    #[test]
    fn a_response_is_passed_on_with_one_framing_only() {
        for (lines, framing) in [
            (&[("content-length", "5")][..], Framing::Clear),
            (&[("transfer-encoding", "chunked")], Framing::Clear),
            (&[("transfer-encoding", "chunked"), ("content-length", "5")], Framing::Ambiguous),
            (&[("content-length", "5, 5")], Framing::Unknown),
            (&[("content-length", "5"), ("content-length", "5")], Framing::Unknown),
            (&[("transfer-encoding", "gzip, chunked")], Framing::Unknown),
            (
                &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                Framing::Unknown,
            ),
        ] {
            let mut headers = map(lines);
            assert_eq!(strip_response(&mut headers, true).framing, framing, "{lines:?}");
            assert!(
                !(headers.contains_key("content-length")
                    && headers.contains_key("transfer-encoding"))
            );
        }
    }

    #[test]
    fn only_a_real_upgrade_is_passed_on() {
        for (connection, upgrade, passed) in [
            ("Upgrade", "websocket", true),
            ("keep-alive, upgrade", "WebSocket", true),
            ("upgrade", "my-protocol/1", true),
            ("keep-alive", "websocket", false),
            ("upgrade, http2-settings", "h2c", false),
            ("upgrade", "websocket, h2c", false),
        ] {
            let mut headers =
                map(&[("connection", connection), ("upgrade", upgrade), ("host", "a")]);
            let asked = strip(&mut headers);
            assert_eq!(asked.is_some(), passed, "{connection} {upgrade}");
            assert_eq!(headers.contains_key("upgrade"), passed);
            if let Some(asked) = asked {
                assert_eq!(headers["connection"], "upgrade");
                assert!(echoes_upgrade(
                    &map(&[("upgrade", &upgrade.to_ascii_uppercase())]),
                    &asked
                ));
                assert!(!echoes_upgrade(&map(&[("upgrade", "other")]), &asked));
                assert!(!echoes_upgrade(&map(&[]), &asked));
            }
        }
        let mut twice =
            map(&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "x")]);
        assert_eq!(strip(&mut twice), None);
    }

    #[test]
    fn there_is_one_way_to_read_the_end_of_a_body() {
        for (lines, is_good) in [
            (&[][..], true),
            (&[("content-length", "5")], true),
            (&[("transfer-encoding", "chunked")], true),
            (&[("transfer-encoding", "Chunked")], true),
            (&[("transfer-encoding", "identity, chunked")], false),
            (&[("transfer-encoding", ",chunked")], false),
            (&[("transfer-encoding", "gzip, chunked")], false),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], false),
        ] {
            let headers = map(lines);
            let result = check_framing(&headers, &Scan::new(&headers), Version::HTTP_11);
            assert_eq!(result.is_ok(), is_good, "{lines:?}");
        }
        let chunked = map(&[("transfer-encoding", "chunked")]);
        assert!(check_framing(&chunked, &Scan::new(&chunked), Version::HTTP_10).is_err());
    }

    #[test]
    fn only_answers_of_grpc_without_announcement_get_one() {
        let all = "grpc-status, grpc-message, grpc-status-details-bin";
        for (given, trailer) in [
            (&[("content-type", "application/grpc")][..], Some(all)),
            (&[("content-type", "application/grpc+proto")], Some(all)),
            (&[("content-type", "application/grpc"), ("trailer", "x-sum")], Some("x-sum")),
            (&[("content-type", "text/plain")], None),
            (&[], None),
        ] {
            let mut headers = map(given);
            announce_grpc(&mut headers);
            let given_now = headers.get("trailer").map(|value| value.to_str().unwrap());
            assert_eq!(given_now, trailer, "{given:?}");
        }
    }

    #[test]
    fn who_takes_trailers() {
        for (value, expected) in
            [("trailers", true), ("gzip, Trailers", true), ("gzip", false), ("trailers;q=1", false)]
        {
            assert_eq!(Scan::new(&map(&[("te", value)])).takes_trailers, expected, "{value}");
        }
        assert!(!Scan::new(&map(&[("accept", "trailers")])).takes_trailers);
    }

    proptest! {
        #[test]
        fn stripping_twice_changes_nothing_more(
            names in proptest::collection::vec("connection|keep-alive|te|upgrade|x-[a-c]|host|accept", 0..10),
            values in proptest::collection::vec("keep-alive|close|upgrade|x-a|trailers|websocket|h2c|, ,|x-b, te", 10),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in names.iter().zip(&values) {
                headers.append(
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                );
            }
            let first = strip(&mut headers);
            let once = headers.clone();
            let second = strip(&mut headers);
            prop_assert_eq!(first, second);
            prop_assert_eq!(once, headers);
        }
    }
}
