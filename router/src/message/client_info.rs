//! What backends are told about a client; the same for all requests of its connection.

use std::net::{IpAddr, SocketAddr};

use super::text::InlineText;

/// An address as it stands in a field: at most `2001:ddb8:ffff:ffff:ffff:ffff:ffff:ffff`.
pub(super) type AddressText = InlineText<39>;

/// How backends are told about clients.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Style {
    /// IPv4 addresses without `::ffff:`.
    pub plain_ipv4: bool,
    /// `Forwarded` (RFC 7239), too, and believed from trusted proxies.
    pub rfc_7239: bool,
}

impl Style {
    /// The address as it is written.
    pub(super) fn write(self, address: IpAddr) -> AddressText {
        match address.to_canonical() {
            IpAddr::V4(address) if !self.plain_ipv4 => {
                AddressText::of(format_args!("::ffff:{address}"))
            }
            address => AddressText::of(address),
        }
    }
}

/// Whether forwarded fields that a client brings along are believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trust {
    /// Hipache's rule: what came is kept, what is missing is added.
    Keep,
    /// From a trusted proxy: the address is appended, the rest kept.
    Append,
    /// From anyone else while there are trusted proxies: overwritten.
    Overwrite,
}

/// A client, as one connection of it shows.
#[derive(Clone, Copy, Debug)]
pub struct ClientInfo {
    /// The peer's address in the form for backends.
    text: AddressText,
    peer: IpAddr,
    local_port: u16,
    over_tls: bool,
    style: Style,
    trust: Trust,
}

// Each client connection has one, and each request copies it.
const _: () = assert!(size_of::<ClientInfo>() <= 64);

impl ClientInfo {
    /// For a connection from `peer` to our `local` address, `over_tls` or not.
    pub fn new(
        peer: SocketAddr,
        local: SocketAddr,
        over_tls: bool,
        style: Style,
        trust: Trust,
    ) -> Self {
        Self {
            text: style.write(peer.ip()),
            // An IPv4 address that arrived on an IPv6 socket is an IPv4 address.
            peer: peer.ip().to_canonical(),
            local_port: local.port(),
            over_tls,
            style,
            trust,
        }
    }

    /// The peer's address in the form for backends, which the access log shows when no field says otherwise.
    pub fn address(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The same as a value.
    pub(super) fn text(&self) -> AddressText {
        self.text
    }

    /// The peer's address; an IPv4 address on an IPv6 socket as IPv4.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The local port that the client connected to.
    pub fn local_port(&self) -> u16 {
        self.local_port
    }

    /// Whether the connection is encrypted.
    pub fn over_tls(&self) -> bool {
        self.over_tls
    }

    /// How backends are told about the client.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Whether forwarded fields of this client are believed.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// `http` or `https`.
    pub(super) fn scheme(&self) -> &'static str {
        if self.over_tls { "https" } else { "http" }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr, SocketAddr};

    use proptest::prelude::*;

    use super::{ClientInfo, Style, Trust};

    #[test]
    fn addresses_are_written_as_hipache_does_unless_plain_ones_are_wanted() {
        for (peer, plain_ipv4, shown) in [
            ("1.2.3.4:5", false, "::ffff:1.2.3.4"),
            ("255.255.255.255:5", false, "::ffff:255.255.255.255"),
            ("1.2.3.4:5", true, "1.2.3.4"),
            ("[::ffff:1.2.3.4]:5", true, "1.2.3.4"),
            ("[2001:db8::1]:5", false, "2001:db8::1"),
            (
                "[2001:ddb8:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                false,
                "2001:ddb8:ffff:ffff:ffff:ffff:ffff:ffff",
            ),
        ] {
            let style = Style { plain_ipv4, rfc_7239: false };
            let (peer, local) = (peer.parse().unwrap(), "127.0.0.1:80".parse().unwrap());
            let info = ClientInfo::new(peer, local, false, style, Trust::Keep);
            assert_eq!(info.address(), shown.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn every_address_fits_and_is_read_back(address in any::<IpAddr>(), low in any::<u32>(), plain_ipv4: bool) {
            for address in [address, IpAddr::V6(Ipv6Addr::from(u128::from(low)))] {
                let style = Style { plain_ipv4, rfc_7239: false };
                let peer = SocketAddr::new(address, 1);
                let info = ClientInfo::new(peer, peer, false, style, Trust::Keep);
                let read: IpAddr = std::str::from_utf8(info.address()).unwrap().parse().unwrap();
                prop_assert_eq!(read.to_canonical(), address.to_canonical());
                prop_assert_eq!(info.peer(), address.to_canonical());
            }
        }
    }
}
