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
    /// Recognises a name, which is a token (RFC 9110 5.6.2).
    pub fn of(name: &[u8]) -> Self {
        // The names are constants here, so that each comparison is a few instructions.
        macro_rules! is {
            ($($known:ident),*) => {
                $(if is_name(name, Self::$known.name().as_bytes()) { Self::$known } else)* { other(name) }
            };
        }
        let Some(first) = name.first() else { return Self::Other };
        match (name.len(), first | CASE) {
            (2, b't') => is!(Te),
            (4, b'h') => is!(Host),
            (4, b'd') => is!(Date),
            (5, b'p') => is!(Proxy),
            (5, b'r') => is!(Range),
            (6, b'c') => is!(Cookie),
            (6, b'e') => is!(Expect),
            (6, b's') => is!(Server),
            (7, b'r') => is!(Referer),
            (7, b't') => is!(Trailer),
            (7, b'u') => is!(Upgrade),
            (7, b'x') => is!(XDebug),
            (8, b'i') => is!(IfRange),
            (8, b'l') => is!(Location),
            (9, b'f') => is!(Forwarded),
            (9, b'x') => is!(XRealIp),
            (10, b'c') => is!(Connection),
            (10, b'k') => is!(KeepAlive),
            (10, b's') => is!(SetCookie),
            (10, b't') => is!(Tracestate),
            (10, b'u') => is!(UserAgent),
            (11, b'r') => is!(RetryAfter),
            (11, b't') => is!(Traceparent),
            (12, b'c') => is!(ContentType),
            (12, b'm') => is!(MaxForwards),
            (12, b'x') => is!(XRequestId),
            (13, b'a') => is!(Authorization),
            (13, b'c') => is!(ContentRange),
            (13, b'x') => is!(XRouterHops, XHttpMethod),
            (14, b'c') => is!(ContentLength),
            (14, b'h') => is!(Http2Settings),
            (15, b'x') => is!(XForwardedFor),
            (16, b'c') => is!(ContentEncoding),
            (16, b'p') => is!(ProxyConnection),
            (16, b'w') => is!(WwwAuthenticate),
            (16, b'x') => is!(XForwardedPort),
            (17, b's') => is!(SecWebSocketKey),
            (17, b't') => is!(TransferEncoding),
            (17, b'x') => is!(XForwardedProto, XMethodOverride),
            (18, b'p') => is!(ProxyAuthenticate),
            (19, b'p') => is!(ProxyAuthorization),
            (20, b's') => is!(SecWebSocketAccept),
            (20, b'x') => is!(XForwardedProtocol),
            (22, b'x') => is!(XHttpMethodOverride),
            (25, b's') => is!(StrictTransportSecurity),
            _ => other(name),
        }
    }
}

/// The bit that tells lower-case letters of ASCII from upper-case ones. In a hyphen and in digits it is set.
const CASE: u8 = 0x20;

/// Whether `name` is `known`, which consists of letters, digits and hyphens, without regard to case. No other
/// byte of a token becomes one of these by setting the bit.
#[inline(always)]
fn is_name(name: &[u8], known: &[u8]) -> bool {
    let fold = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes) | u64::from_ne_bytes([CASE; 8]);
    let (words, rest) = name.as_chunks::<8>();
    let (known_words, known_rest) = known.as_chunks::<8>();
    name.len() == known.len()
        && words.iter().zip(known_words).all(|(word, known)| fold(word) == fold(known))
        && rest.iter().zip(known_rest).all(|(byte, known)| byte | CASE == known | CASE)
}

fn other(name: &[u8]) -> KnownField {
    match name.first() {
        Some(b'x' | b'X') => lookalike(name),
        _ => KnownField::Other,
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
