//! What `Connection` says (RFC 9110 7.6.1): whether the connection persists (RFC 9112 9.3), and which
//! fields go no further than this hop.

use super::fields::{Field, Fields};
use super::head::Version;
use super::known::{FieldSet, KnownField};

/// What concerns one connection only, whatever `Connection` says. A backend would take `HTTP2-Settings`
/// for the wish to change to HTTP/2, and some programs take `Proxy` for the variable `HTTP_PROXY`.
const HOP_BY_HOP: FieldSet = FieldSet::of(&[
    KnownField::Connection,
    KnownField::Http2Settings,
    KnownField::KeepAlive,
    KnownField::Proxy,
    KnownField::ProxyConnection,
    KnownField::Te,
    KnownField::Upgrade,
]);

/// What `Connection` cannot remove: it would change where the message ends or whose it is.
const PROTECTED: FieldSet = FieldSet::of(&[
    KnownField::ContentLength,
    KnownField::Cookie,
    KnownField::Forwarded,
    KnownField::ForwardedOther,
    KnownField::Host,
    KnownField::TransferEncoding,
    KnownField::XForwardedFor,
    KnownField::XForwardedPort,
    KnownField::XForwardedProto,
    KnownField::XForwardedProtocol,
    KnownField::XRealIp,
]);

/// What one message says about its connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// `close`.
    pub close: bool,
    /// `keep-alive`.
    pub keep_alive: bool,
    /// `upgrade`.
    pub upgrade: bool,
    /// Names of fields.
    names_fields: bool,
}

impl Options {
    /// Of a message that says nothing.
    pub const NONE: Self =
        Self { close: false, keep_alive: false, upgrade: false, names_fields: false };

    /// Reads every `Connection` line of a head.
    pub fn of(fields: &Fields, buf: &[u8]) -> Self {
        let mut options = Self::default();
        for value in fields.values(KnownField::Connection, buf) {
            // What nearly every client sends.
            if value == b"keep-alive" {
                options.keep_alive = true;
                continue;
            }
            for option in items(value) {
                if option.eq_ignore_ascii_case(b"close") {
                    options.close = true;
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    options.keep_alive = true;
                } else if option.eq_ignore_ascii_case(b"upgrade") {
                    options.upgrade = true;
                } else {
                    options.names_fields = true;
                }
            }
        }
        options
    }

    /// Whether the connection is to go on after this message (RFC 9112 9.3): `close` wins over
    /// `keep-alive`, and without either HTTP/1.1 goes on and HTTP/1.0 does not.
    pub fn persists(self, version: Version) -> bool {
        !self.close && (self.keep_alive || version == Version::Http11)
    }
}

/// Tells the fields of a head that are for this hop only.
#[derive(Clone, Copy, Debug)]
pub struct HopByHop<'a> {
    fields: &'a Fields,
    buf: &'a [u8],
    names_fields: bool,
}

impl<'a> HopByHop<'a> {
    /// For the fields of this head, with its options.
    pub fn new(fields: &'a Fields, buf: &'a [u8], options: Options) -> Self {
        Self { fields, buf, names_fields: options.names_fields }
    }

    /// Whether nothing is to be removed.
    pub fn is_none(self) -> bool {
        !self.names_fields && !self.fields.present().intersects(HOP_BY_HOP)
    }

    /// The fields among which [`contains`](Self::contains) has to tell; all others go further.
    pub fn candidates(self) -> FieldSet {
        if self.names_fields { FieldSet::ALL } else { HOP_BY_HOP }
    }

    /// Whether this field goes no further.
    pub fn contains(self, field: Field) -> bool {
        if HOP_BY_HOP.contains(field.known) {
            return true;
        }
        self.names_fields && !PROTECTED.contains(field.known) && {
            let name = field.name().of(self.buf);
            let mut values = self.fields.values(KnownField::Connection, self.buf);
            values.any(|value| items(value).any(|item| item.eq_ignore_ascii_case(name)))
        }
    }
}

/// Whether the client takes trailers (`TE: trailers`, RFC 9110 10.1.4).
pub fn takes_trailers(fields: &Fields, buf: &[u8]) -> bool {
    let mut values = fields.values(KnownField::Te, buf);
    values.any(|value| items(value).any(|item| item.eq_ignore_ascii_case(b"trailers")))
}

/// The protocol of a real upgrade (RFC 9110 7.8): named by `Connection`, in one `Upgrade` line, of
/// HTTP/1.1 (one of HTTP/1.0 is to be ignored), and not HTTP/2, which a backend would speak past the
/// router's rules.
pub fn requested_upgrade<'a>(
    fields: &Fields,
    buf: &'a [u8],
    options: Options,
    version: Version,
) -> Option<&'a [u8]> {
    let mut protocols = fields.values(KnownField::Upgrade, buf);
    let protocol = protocols.next()?;
    let is_asked_for = options.upgrade && version == Version::Http11 && protocols.next().is_none();
    let is_http2 =
        |item: &[u8]| item.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2"));
    (is_asked_for && items(protocol).next().is_some() && !items(protocol).any(is_http2))
        .then_some(protocol)
}

/// Whether a backend's `101` changes to (one of) what was asked for.
pub fn agrees_to_upgrade(fields: &Fields, buf: &[u8], asked: &[u8]) -> bool {
    let mut given = fields.values(KnownField::Upgrade, buf).flat_map(items).peekable();
    given.peek().is_some()
        && given.all(|given| items(asked).any(|asked| asked.eq_ignore_ascii_case(given)))
}

/// Seconds that the sender keeps an idle connection, as `Keep-Alive: timeout=5` announces.
pub fn keep_alive_timeout(fields: &Fields, buf: &[u8]) -> Option<u32> {
    fields.values(KnownField::KeepAlive, buf).flat_map(items).find_map(|item| {
        let at = memchr::memchr(b'=', item)?;
        let (name, value) = item.split_at(at);
        let is_timeout = name.trim_ascii().eq_ignore_ascii_case(b"timeout");
        let digits = value.get(1..).unwrap_or_default().trim_ascii();
        let text = is_timeout.then(|| std::str::from_utf8(digits).ok()).flatten()?;
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    })
}

/// The items of a comma-separated list (RFC 9110 5.6.1), empty ones left out.
pub fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{
        HopByHop, Options, agrees_to_upgrade, keep_alive_timeout, requested_upgrade, takes_trailers,
    };
    use crate::http1::head::Version::{Http10, Http11};
    use crate::http1::head::{HeadLimits, ResponseHead, Version};

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 8192, max_fields: 100, max_target: 8192 };

    fn with<T>(lines: &str, look: impl FnOnce(&ResponseHead, &[u8]) -> T) -> T {
        let buf = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        let mut head = ResponseHead::default();
        head.parse(buf.as_bytes(), &LIMITS).unwrap().expect("a whole head");
        look(&head, buf.as_bytes())
    }

    /// RFC 9112 9.3.
    #[test]
    fn connections_persist_by_version_and_option_and_close_wins() {
        for (lines, in_1_0, in_1_1) in [
            ("", false, true),
            ("Connection: keep-alive\r\n", true, true),
            ("Connection: Keep-Alive\r\n", true, true),
            ("Connection: close\r\n", false, false),
            ("Connection: CLOSE\r\n", false, false),
            ("Connection: keep-alive, close\r\n", false, false),
            ("Connection: close, keep-alive\r\n", false, false),
            ("Connection: keep-alive\r\nConnection: close\r\n", false, false),
            ("Connection: close\r\nConnection: keep-alive\r\n", false, false),
            ("Connection: x-y,,keep-alive\r\n", true, true),
            ("Connection: closed\r\n", false, true),
            ("Connection:\r\n", false, true),
            ("Proxy-Connection: keep-alive\r\n", false, true),
            ("Keep-Alive: timeout=5\r\n", false, true),
        ] {
            let options = with(lines, |head, buf| Options::of(&head.fields, buf));
            assert_eq!(options.persists(Http10), in_1_0, "{lines:?}");
            assert_eq!(options.persists(Http11), in_1_1, "{lines:?}");
        }
    }

    fn kept(lines: &str) -> Vec<String> {
        with(lines, |head, buf| {
            let hops = HopByHop::new(&head.fields, buf, Options::of(&head.fields, buf));
            let kept: Vec<_> = head
                .fields
                .iter()
                .filter(|field| {
                    assert!(!hops.contains(*field) || hops.candidates().contains(field.known));
                    !hops.contains(*field)
                })
                .map(|field| String::from_utf8(field.name().of(buf).to_vec()).unwrap())
                .collect();
            assert_eq!(
                hops.is_none(),
                kept.len() == head.fields.len() && !lines.contains("onnection")
            );
            kept
        })
    }

    /// RFC 9110 7.6.1.
    #[test]
    fn what_is_for_one_hop_goes_no_further() {
        assert_eq!(kept("A: 1\r\nB: 2\r\n"), ["A", "B"]);
        assert_eq!(
            kept(
                "A: 1\r\nKeep-Alive: x\r\nProxy-Connection: x\r\nTE: x\r\nUpgrade: x\r\nProxy: x\r\n\
                 HTTP2-Settings: x\r\nConnection: keep-alive\r\nB: 2\r\n"
            ),
            ["A", "B"]
        );
        assert_eq!(
            kept(
                "a: 1\r\nX-Foo: 1\r\nConnection: close, x-foo\r\nConnection: ,X-Bar\r\nx-bar: 2\r\nX-Foos: 3\r\n"
            ),
            ["a", "X-Foos"]
        );
    }

    #[test]
    fn connection_removes_nothing_that_frames_or_identifies() {
        let all = "Host, Content-Length, Transfer-Encoding, Cookie, X-Real-IP, Forwarded, X-Forwarded-For, \
                   X-Forwarded-Proto, X-Forwarded-Protocol, X-Forwarded-Port, X-Forwarded-Host";
        let lines: String = all.split(", ").map(|name| format!("{name}: 1\r\n")).collect();
        let expected: Vec<_> = all.split(", ").collect();
        assert_eq!(kept(&format!("{lines}Connection: {all}\r\n")), expected);
    }

    /// RFC 9110 7.8.
    #[test]
    fn upgrades_are_asked_for_in_one_way_only() {
        let asked = |lines: &str, version: Version| {
            with(lines, |head, buf| {
                let options = Options::of(&head.fields, buf);
                requested_upgrade(&head.fields, buf, options, version)
                    .map(|protocol| String::from_utf8_lossy(protocol).into_owned())
            })
        };
        let good = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        assert_eq!(asked(good, Http11).as_deref(), Some("websocket"));
        assert_eq!(asked(good, Http10), None);
        for lines in [
            "Upgrade: websocket\r\n",
            "Connection: keep-alive\r\nUpgrade: websocket\r\n",
            "Connection: upgrade\r\n",
            "Connection: upgrade\r\nUpgrade:\r\n",
            "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n",
            "Connection: upgrade\r\nUpgrade: h2c\r\n",
            "Connection: upgrade\r\nUpgrade: websocket, H2C\r\n",
        ] {
            assert_eq!(asked(lines, Http11), None, "{lines:?}");
        }
        for (lines, asked, expected) in [
            ("Upgrade: WebSocket\r\n", "websocket", true),
            ("Upgrade: b\r\n", "a, b", true),
            ("Upgrade: a, b\r\n", "a", false),
            ("Upgrade: x\r\n", "websocket", false),
            ("Upgrade: ,\r\n", "websocket", false),
            ("", "websocket", false),
        ] {
            let agrees =
                with(lines, |head, buf| agrees_to_upgrade(&head.fields, buf, asked.as_bytes()));
            assert_eq!(agrees, expected, "{lines:?}");
        }
    }

    #[test]
    fn announced_timeouts_and_trailers_are_read() {
        for (lines, expected) in [
            ("Keep-Alive: timeout=5\r\n", Some(5)),
            ("Keep-Alive: max=100, Timeout = 15\r\n", Some(15)),
            ("Keep-Alive: 300\r\n", None),
            ("Keep-Alive: timeout=\r\n", None),
            ("Keep-Alive: timeout=+5\r\n", None),
            ("Keep-Alive: timeout=99999999999\r\n", None),
            ("", None),
        ] {
            let seen = with(lines, |head, buf| keep_alive_timeout(&head.fields, buf));
            assert_eq!(seen, expected, "{lines:?}");
        }
        for (lines, expected) in [
            ("TE: trailers\r\n", true),
            ("TE: gzip;q=0.5, Trailers\r\n", true),
            ("TE: gzip\r\n", false),
            ("", false),
        ] {
            let seen = with(lines, |head, buf| takes_trailers(&head.fields, buf));
            assert_eq!(seen, expected, "{lines:?}");
        }
    }
}
