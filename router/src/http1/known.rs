//! Names of fields that have a meaning here, recognised once when a head is parsed, by length and
//! without regard to case (RFC 9110 5.1).

macro_rules! known_fields {
    ($($variant:ident = $name:literal,)*) => {
        /// A field name that the router acts upon.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u8)]
        pub enum KnownField {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
            /// `X-Forwarded-*` other than those above, such as `X-Forwarded-Host`.
            ForwardedOther,
            /// A name with an underscore that CGI and its heirs cannot tell from `X-Forwarded-*` or
            /// `X-Real-IP`, such as `X_Forwarded_For`.
            ForwardedLookalike,
            /// The same for `X-Request-Id`, such as `X_Request_Id`.
            RequestIdLookalike,
            /// Any other name.
            Other,
        }

        impl KnownField {
            /// Every field that has one name.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name as it is written when the router adds the field; empty where there is no one
            /// name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::ForwardedOther
                    | Self::ForwardedLookalike
                    | Self::RequestIdLookalike
                    | Self::Other => "",
                }
            }

            /// How a line that the router adds begins: the name, a colon and a blank; empty where there is no
            /// one name.
            pub(super) const fn line_start(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($name, ": "),)*
                    Self::ForwardedOther
                    | Self::ForwardedLookalike
                    | Self::RequestIdLookalike
                    | Self::Other => "",
                }
            }
        }
    };
}

known_fields! {
    Authorization = "Authorization",
    Connection = "Connection",
    ContentEncoding = "Content-Encoding",
    ContentLength = "Content-Length",
    ContentRange = "Content-Range",
    ContentType = "Content-Type",
    Cookie = "Cookie",
    Date = "Date",
    Expect = "Expect",
    Forwarded = "Forwarded",
    Host = "Host",
    Http2Settings = "HTTP2-Settings",
    IfRange = "If-Range",
    KeepAlive = "Keep-Alive",
    Location = "Location",
    MaxForwards = "Max-Forwards",
    Proxy = "Proxy",
    ProxyAuthenticate = "Proxy-Authenticate",
    ProxyAuthorization = "Proxy-Authorization",
    ProxyConnection = "Proxy-Connection",
    Range = "Range",
    Referer = "Referer",
    RetryAfter = "Retry-After",
    SecWebSocketAccept = "Sec-WebSocket-Accept",
    SecWebSocketKey = "Sec-WebSocket-Key",
    Server = "Server",
    SetCookie = "Set-Cookie",
    StrictTransportSecurity = "Strict-Transport-Security",
    Te = "TE",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    Trailer = "Trailer",
    TransferEncoding = "Transfer-Encoding",
    Upgrade = "Upgrade",
    UserAgent = "User-Agent",
    WwwAuthenticate = "WWW-Authenticate",
    XDebug = "X-Debug",
    XForwardedFor = "X-Forwarded-For",
    XForwardedPort = "X-Forwarded-Port",
    XForwardedProto = "X-Forwarded-Proto",
    XForwardedProtocol = "X-Forwarded-Protocol",
    XHttpMethod = "X-HTTP-Method",
    XHttpMethodOverride = "X-HTTP-Method-Override",
    XMethodOverride = "X-Method-Override",
    XRealIp = "X-Real-IP",
    XRequestId = "X-Request-Id",
    XRouterHops = "X-Router-Hops",
}

impl KnownField {
    /// Recognises a name.
    pub fn of(name: &[u8]) -> Self {
        let Some(first) = name.first() else { return Self::Other };
        // The lower-case form of a letter. What is none is told apart by the comparison.
        let candidates: &[Self] = match (name.len(), first | 0x20) {
            (2, b't') => &[Self::Te],
            (4, b'h') => &[Self::Host],
            (4, b'd') => &[Self::Date],
            (5, b'p') => &[Self::Proxy],
            (5, b'r') => &[Self::Range],
            (6, b'c') => &[Self::Cookie],
            (6, b'e') => &[Self::Expect],
            (6, b's') => &[Self::Server],
            (7, b'r') => &[Self::Referer],
            (7, b't') => &[Self::Trailer],
            (7, b'u') => &[Self::Upgrade],
            (7, b'x') => &[Self::XDebug],
            (8, b'i') => &[Self::IfRange],
            (8, b'l') => &[Self::Location],
            (9, b'f') => &[Self::Forwarded],
            (9, b'x') => &[Self::XRealIp],
            (10, b'c') => &[Self::Connection],
            (10, b'k') => &[Self::KeepAlive],
            (10, b's') => &[Self::SetCookie],
            (10, b't') => &[Self::Tracestate],
            (10, b'u') => &[Self::UserAgent],
            (11, b'r') => &[Self::RetryAfter],
            (11, b't') => &[Self::Traceparent],
            (12, b'c') => &[Self::ContentType],
            (12, b'm') => &[Self::MaxForwards],
            (12, b'x') => &[Self::XRequestId],
            (13, b'a') => &[Self::Authorization],
            (13, b'c') => &[Self::ContentRange],
            (13, b'x') => &[Self::XRouterHops, Self::XHttpMethod],
            (14, b'c') => &[Self::ContentLength],
            (14, b'h') => &[Self::Http2Settings],
            (15, b'x') => &[Self::XForwardedFor],
            (16, b'c') => &[Self::ContentEncoding],
            (16, b'p') => &[Self::ProxyConnection],
            (16, b'w') => &[Self::WwwAuthenticate],
            (16, b'x') => &[Self::XForwardedPort],
            (17, b's') => &[Self::SecWebSocketKey],
            (17, b't') => &[Self::TransferEncoding],
            (17, b'x') => &[Self::XForwardedProto, Self::XMethodOverride],
            (18, b'p') => &[Self::ProxyAuthenticate],
            (19, b'p') => &[Self::ProxyAuthorization],
            (20, b's') => &[Self::SecWebSocketAccept],
            (20, b'x') => &[Self::XForwardedProtocol],
            (22, b'x') => &[Self::XHttpMethodOverride],
            (25, b's') => &[Self::StrictTransportSecurity],
            _ => &[],
        };
        // Most clients write names as the router does, which is found out in a few instructions.
        let is_name = |known: &&Self| {
            let expected = known.name().as_bytes();
            expected == name || expected.eq_ignore_ascii_case(name)
        };
        match candidates.iter().find(is_name) {
            Some(known) => *known,
            None if first | 0x20 == b'x' => lookalike(name),
            None => Self::Other,
        }
    }
}

/// Tells names that begin like a forwarded header, or are that of the request id, read with hyphens for
/// underscores.
fn lookalike(name: &[u8]) -> KnownField {
    const PREFIX: &[u8] = b"x-forwarded-";
    const REAL_IP: &[u8] = b"x-real-ip";
    const REQUEST_ID: &[u8] = b"x-request-id";
    let begins = |pattern: &[u8]| {
        name.len() >= pattern.len()
            && pattern.iter().zip(name).all(|(wanted, byte)| match byte {
                b'_' => *wanted == b'-',
                byte => byte.eq_ignore_ascii_case(wanted),
            })
    };
    let is = |pattern: &[u8]| name.len() == pattern.len() && begins(pattern);
    if begins(PREFIX) || is(REAL_IP) {
        match name.contains(&b'_') {
            true => KnownField::ForwardedLookalike,
            false => KnownField::ForwardedOther,
        }
    } else if is(REQUEST_ID) {
        KnownField::RequestIdLookalike
    } else {
        KnownField::Other
    }
}

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FieldSet(u64);

impl FieldSet {
    /// No field.
    pub const EMPTY: Self = Self(0);
    /// Every field, those without a name of their own included.
    pub const ALL: Self = Self(u64::MAX);

    /// These fields.
    pub const fn of(fields: &[KnownField]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < fields.len() {
            bits |= 1 << (fields[at] as u8);
            at += 1;
        }
        Self(bits)
    }

    /// Adds a field.
    pub fn insert(&mut self, field: KnownField) {
        self.0 |= 1 << (field as u8);
    }

    /// What is in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is no field in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the field is in the set.
    pub fn contains(self, field: KnownField) -> bool {
        self.0 & (1 << (field as u8)) != 0
    }

    /// Whether both sets have a field in common.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

// A set has a bit for each.
const _: () = assert!((KnownField::Other as u8) < 64);

#[cfg(test)]
mod tests {
    use super::{FieldSet, KnownField};

    #[test]
    fn every_known_name_is_recognised_in_any_case() {
        for known in KnownField::ALL {
            assert_eq!(known.line_start(), format!("{}: ", known.name()));
            for name in
                [known.name().to_owned(), known.name().to_lowercase(), known.name().to_uppercase()]
            {
                assert_eq!(KnownField::of(name.as_bytes()), *known, "{name}");
                let other = format!("{name}s");
                assert!(!KnownField::ALL.contains(&KnownField::of(other.as_bytes())), "{other}");
            }
        }
        for name in ["", "x", "accept", "X", "hosts", "h\u{f6}st", "\u{8}ost", "4ost"] {
            assert_eq!(KnownField::of(name.as_bytes()), KnownField::Other, "{name}");
        }
    }

    #[test]
    fn lookalikes_of_forwarded_headers_are_told() {
        for (name, expected) in [
            ("X-Forwarded-Host", KnownField::ForwardedOther),
            ("x-forwarded-", KnownField::ForwardedOther),
            ("X_Forwarded_For", KnownField::ForwardedLookalike),
            ("X-Forwarded_For", KnownField::ForwardedLookalike),
            ("x-forwarded-my_own", KnownField::ForwardedLookalike),
            ("X_Real_IP", KnownField::ForwardedLookalike),
            ("X_Real_IPs", KnownField::Other),
            ("x-forwarded", KnownField::Other),
            ("xxforwarded-for", KnownField::Other),
            ("X_Request_Id", KnownField::RequestIdLookalike),
            ("x-request_ID", KnownField::RequestIdLookalike),
            ("X_Request_Ids", KnownField::Other),
        ] {
            assert_eq!(KnownField::of(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        const SET: FieldSet = FieldSet::of(&[KnownField::Host, KnownField::Other]);
        let mut set = FieldSet::EMPTY;
        assert!(!set.intersects(SET) && !set.contains(KnownField::Host));
        set.insert(KnownField::Other);
        assert!(set.intersects(SET) && set.contains(KnownField::Other));
        assert!(!set.contains(KnownField::Host));
        assert_eq!(SET.without(set), FieldSet::of(&[KnownField::Host]));
        assert_eq!(SET.without(set).union(set), SET);
        assert!(set.without(SET).is_empty() && !SET.is_empty());
        assert!(KnownField::ALL.iter().all(|field| FieldSet::ALL.contains(*field)));
    }
}
