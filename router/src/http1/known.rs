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
                    Self::ForwardedOther | Self::ForwardedLookalike | Self::Other => "",
                }
            }
        }
    };
}

known_fields! {
    Authorization = "Authorization",
    Connection = "Connection",
    ContentLength = "Content-Length",
    ContentType = "Content-Type",
    Cookie = "Cookie",
    Date = "Date",
    Expect = "Expect",
    Forwarded = "Forwarded",
    Host = "Host",
    Http2Settings = "HTTP2-Settings",
    KeepAlive = "Keep-Alive",
    Location = "Location",
    Proxy = "Proxy",
    ProxyConnection = "Proxy-Connection",
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
    XDebug = "X-Debug",
    XForwardedFor = "X-Forwarded-For",
    XForwardedPort = "X-Forwarded-Port",
    XForwardedProto = "X-Forwarded-Proto",
    XForwardedProtocol = "X-Forwarded-Protocol",
    XRealIp = "X-Real-IP",
    XRequestId = "X-Request-Id",
}

impl KnownField {
    /// Recognises a name.
    pub fn of(name: &[u8]) -> Self {
        let candidates: &[Self] = match name.len() {
            2 => &[Self::Te],
            4 => &[Self::Host, Self::Date],
            5 => &[Self::Proxy],
            6 => &[Self::Cookie, Self::Expect, Self::Server],
            7 => &[Self::Referer, Self::Upgrade, Self::Trailer, Self::XDebug],
            8 => &[Self::Location],
            9 => &[Self::XRealIp, Self::Forwarded],
            10 => &[
                Self::UserAgent,
                Self::Connection,
                Self::KeepAlive,
                Self::SetCookie,
                Self::Tracestate,
            ],
            11 => &[Self::Traceparent, Self::RetryAfter],
            12 => &[Self::ContentType, Self::XRequestId],
            13 => &[Self::Authorization],
            14 => &[Self::ContentLength, Self::Http2Settings],
            15 => &[Self::XForwardedFor],
            16 => &[Self::XForwardedPort, Self::ProxyConnection],
            17 => &[Self::TransferEncoding, Self::XForwardedProto, Self::SecWebSocketKey],
            20 => &[Self::XForwardedProtocol, Self::SecWebSocketAccept],
            25 => &[Self::StrictTransportSecurity],
            _ => &[],
        };
        let is_name = |known: &&Self| known.name().as_bytes().eq_ignore_ascii_case(name);
        match candidates.iter().find(is_name) {
            Some(known) => *known,
            None if matches!(name.first(), Some(b'x' | b'X')) => forwarded(name),
            None => Self::Other,
        }
    }
}

/// Tells names that begin like a forwarded header, read with hyphens for underscores.
fn forwarded(name: &[u8]) -> KnownField {
    const PREFIX: &[u8] = b"x-forwarded-";
    const REAL_IP: &[u8] = b"x-real-ip";
    let matches = |pattern: &[u8]| {
        name.len() >= pattern.len()
            && pattern.iter().zip(name).all(|(wanted, byte)| match byte {
                b'_' => *wanted == b'-',
                byte => byte.eq_ignore_ascii_case(wanted),
            })
    };
    if matches(PREFIX) || (name.len() == REAL_IP.len() && matches(REAL_IP)) {
        match name.contains(&b'_') {
            true => KnownField::ForwardedLookalike,
            false => KnownField::ForwardedOther,
        }
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
            for name in
                [known.name().to_owned(), known.name().to_lowercase(), known.name().to_uppercase()]
            {
                assert_eq!(KnownField::of(name.as_bytes()), *known, "{name}");
                let other = format!("{name}s");
                assert!(!KnownField::ALL.contains(&KnownField::of(other.as_bytes())), "{other}");
            }
        }
        for name in ["", "x", "accept", "X", "hosts", "h\u{f6}st"] {
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
            ("X_Request_Id", KnownField::Other),
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
    }
}
