//! What a request's head states, besides where it goes.

use super::hops;
use super::logins;
use super::request_kind::{MAX_ORDINARY_HEAD, RequestKind};
use crate::http1::connection::{requested_upgrade, takes_trailers};
use crate::http1::fields::Span;
use crate::http1::framing::BodyKind;
use crate::http1::head::{Method, RequestHead, Version};
use crate::http1::known::{FieldSet, KnownField};
use crate::http1::server::Accepted;

/// Credentials, which may be a login that is valid for the whole connection.
const CREDENTIALS: &[KnownField] = &[KnownField::Authorization, KnownField::ProxyAuthorization];

/// What may make a request other than [`RequestKind::Plain`].
const TELLING_KIND: &[KnownField] = &[
    KnownField::ContentEncoding,
    KnownField::ContentRange,
    KnownField::Expect,
    KnownField::Http2Settings,
    KnownField::IfRange,
    KnownField::MaxForwards,
    KnownField::Range,
    KnownField::Te,
    KnownField::Upgrade,
    KnownField::XHttpMethod,
    KnownField::XHttpMethodOverride,
    KnownField::XMethodOverride,
];

/// Fields of which the value has to be read.
const RARE: FieldSet = FieldSet::of(CREDENTIALS)
    .union(FieldSet::of(TELLING_KIND))
    .union(FieldSet::of(&[KnownField::XRouterHops]));

/// What proxies add to a request that they pass on.
const FORWARDED: FieldSet = FieldSet::of(&[KnownField::XForwardedFor, KnownField::XRouterHops]);

/// What a request states by its head alone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RequestFacts {
    /// How much a failure says about the backend.
    pub kind: RequestKind,
    /// Routers that the request has passed through.
    pub hops: u8,
    /// A proxy has passed the request on: `X-Forwarded-For` is there, which every router adds, or a
    /// number of routers, readable or not.
    pub was_forwarded: bool,
    /// There is a login that is valid for the whole connection to the backend (NTLM, Negotiate).
    pub logs_in: bool,
    /// `X-Debug` is there.
    pub wants_debug: bool,
    /// The client speaks HTTP/1.1 and takes trailers (`TE: trailers`, RFC 9110 10.1.4).
    pub takes_trailers: bool,
    /// The protocol that the client asks to upgrade to (RFC 9110 7.8). Only without a body, which not every
    /// backend could tell from the bytes of the new protocol.
    pub upgrade: Option<Span>,
    /// `Sec-WebSocket-Key` of a `GET` that asks for an upgrade (RFC 6455 4.1).
    pub websocket_key: Option<Span>,
}

impl RequestFacts {
    /// Reads the head of an accepted request. `buf` is what it was read into.
    pub fn of(head: &RequestHead, buf: &[u8], accepted: &Accepted) -> Self {
        let present = head.fields.present();
        let mut facts = Self {
            kind: RequestKind::of(head.method, accepted.body, size(head, accepted)),
            was_forwarded: present.intersects(FORWARDED),
            wants_debug: present.contains(KnownField::XDebug),
            ..Self::default()
        };
        if present.intersects(RARE) {
            facts.read_rare(head, buf, accepted);
        }
        facts
    }

    fn read_rare(&mut self, head: &RequestHead, buf: &[u8], accepted: &Accepted) {
        let fields = &head.fields;
        let logins = CREDENTIALS.iter().flat_map(|known| fields.values(*known, buf));
        self.logs_in = logins.into_iter().any(logins::is_bound);
        let hops = fields.values(KnownField::XRouterHops, buf).map(hops::read);
        self.hops = hops.max().unwrap_or(0);
        self.takes_trailers = head.version == Version::Http11 && takes_trailers(fields, buf);
        for known in TELLING_KIND {
            for value in fields.values(*known, buf) {
                self.kind = self.kind.max(RequestKind::of_field(*known, value));
            }
        }
        // Several lines are one list.
        if fields.values(KnownField::Range, buf).nth(1).is_some() {
            self.kind = RequestKind::Unusual;
        }
        self.read_upgrade(head, buf, accepted);
    }

    fn read_upgrade(&mut self, head: &RequestHead, buf: &[u8], accepted: &Accepted) {
        if !matches!(accepted.body, BodyKind::None | BodyKind::Length(0)) {
            return;
        }
        let protocol = requested_upgrade(&head.fields, buf, accepted.options, head.version);
        self.upgrade = protocol.map(|protocol| Span::locate(buf, protocol));
        if self.upgrade.is_some() && head.method == Method::Get {
            let key = head.fields.value(KnownField::SecWebSocketKey, buf);
            self.websocket_key = key.map(|key| Span::locate(buf, key));
        }
        if self.upgrade.is_some() && !self.is_websocket(buf) {
            self.kind = RequestKind::Unusual;
        }
    }

    /// Whether it asks for a WebSocket, by whatever handshake.
    pub fn names_websocket(&self, buf: &[u8]) -> bool {
        self.upgrade.is_some_and(|protocol| protocol.of(buf).eq_ignore_ascii_case(b"websocket"))
    }

    /// Whether it asks for a WebSocket by a handshake that can be answered (RFC 6455 4.2.1).
    pub fn is_websocket(&self, buf: &[u8]) -> bool {
        self.websocket_key.is_some() && self.names_websocket(buf)
    }
}

/// Bytes of target, names and values. Only of a head that may be large they are added up; any other is not
/// larger than what is returned.
fn size(head: &RequestHead, accepted: &Accepted) -> usize {
    if accepted.consumed <= MAX_ORDINARY_HEAD {
        return accepted.consumed;
    }
    let fields = head.fields.iter().map(|field| field.name().len() + field.value().len());
    head.target.path().len() + fields.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::RequestFacts;
    use crate::message::request_kind::RequestKind;
    use crate::message::testing::Request;

    fn facts(request: &Request) -> RequestFacts {
        RequestFacts::of(&request.head, &request.buf, &request.accepted)
    }

    #[test]
    fn ordinary_request_states_nothing() {
        let request = Request::get(
            "User-Agent: x\r\nAccept: */*\r\nCookie: a=b\r\nConnection: keep-alive\r\n",
        );
        assert_eq!(facts(&request), RequestFacts::default());
    }

    #[test]
    fn client_takes_trailers_if_it_says_so_in_http_1_1() {
        for (lines, expected) in [
            ("TE: trailers\r\n", true),
            ("TE: gzip, Trailers\r\n", true),
            ("TE: gzip\r\nTE: trailers\r\n", true),
            ("TE: gzip\r\n", false),
            ("TE: trailers;q=1\r\n", false),
            ("Accept: trailers\r\n", false),
        ] {
            assert_eq!(facts(&Request::get(lines)).takes_trailers, expected, "{lines:?}");
        }
        let old = Request::read("GET / HTTP/1.0\r\nHost: a\r\nTE: trailers\r\n\r\n");
        assert!(!facts(&old).takes_trailers);
    }

    #[test]
    fn forwarded_requests_and_logins_are_told() {
        for (lines, hops, was_forwarded, logs_in) in [
            ("X-Forwarded-For: 1.1.1.1\r\n", 0, true, false),
            ("X-Forwarded-Proto: https\r\n", 0, false, false),
            ("X-Router-Hops: 3\r\nX-Router-Hops: 5, 1\r\n", 5, true, false),
            ("X-Router-Hops: x\r\n", 0, true, false),
            ("Authorization: NTLM x\r\n", 0, false, true),
            ("Authorization: Basic x\r\nAuthorization: Negotiate x\r\n", 0, false, true),
            ("Proxy-Authorization: Negotiate x\r\n", 0, false, true),
            ("Authorization: Bearer x\r\n", 0, false, false),
        ] {
            let facts = facts(&Request::get(lines));
            let seen = (facts.hops, facts.was_forwarded, facts.logs_in);
            assert_eq!(seen, (hops, was_forwarded, logs_in), "{lines:?}");
            assert!(!facts.wants_debug);
        }
        assert!(facts(&Request::get("x-debug:\r\n")).wants_debug);
    }

    /// RFC 9110 7.8, RFC 6455 4.2.1.
    #[test]
    fn upgrades_are_read_where_they_may_be_asked_for() {
        let asking = "Connection: Upgrade\r\nUpgrade: WebSocket\r\n";
        let key = "Sec-WebSocket-Key: abc\r\n";
        for (line, lines, upgrade, is_websocket, names_websocket) in [
            ("GET / HTTP/1.1", format!("{asking}{key}"), true, true, true),
            ("GET / HTTP/1.1", format!("{asking}{key}Content-Length: 0\r\n"), true, true, true),
            ("GET / HTTP/1.1", asking.to_owned(), true, false, true),
            ("POST / HTTP/1.1", format!("{asking}{key}"), true, false, true),
            ("GET / HTTP/1.1", format!("{asking}Content-Length: 1\r\n"), false, false, false),
            (
                "GET / HTTP/1.1",
                format!("{asking}Transfer-Encoding: chunked\r\n"),
                false,
                false,
                false,
            ),
            ("GET / HTTP/1.0", format!("{asking}{key}"), false, false, false),
            ("GET / HTTP/1.1", format!("Upgrade: websocket\r\n{key}"), false, false, false),
            (
                "GET / HTTP/1.1",
                "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\n".to_owned(),
                false,
                false,
                false,
            ),
            (
                "GET / HTTP/1.1",
                "Connection: upgrade\r\nUpgrade: my-protocol/1\r\n".to_owned(),
                true,
                false,
                false,
            ),
        ] {
            let request = Request::read(&format!("{line}\r\nHost: a\r\n{lines}\r\n"));
            let facts = facts(&request);
            assert_eq!(facts.upgrade.is_some(), upgrade, "{line} {lines:?}");
            assert_eq!(facts.is_websocket(&request.buf), is_websocket, "{line} {lines:?}");
            assert_eq!(facts.names_websocket(&request.buf), names_websocket, "{line} {lines:?}");
            let is_unusual = facts.kind == RequestKind::Unusual;
            assert!(is_unusual || is_websocket || !upgrade, "{line} {lines:?}");
            if is_websocket {
                assert_eq!(facts.websocket_key.unwrap().of(&request.buf), b"abc");
                assert_eq!(facts.kind, RequestKind::Ordinary);
            }
        }
    }
}
