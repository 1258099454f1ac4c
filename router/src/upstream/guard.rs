//! Which addresses backends may have. Backend URLs come from Redis, another trust domain: whoever
//! writes there must not reach this process itself or a cloud's metadata service through us.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// Addresses beside the link-local ones under which clouds keep metadata and credentials.
const METADATA: &[IpAddr] = &[
    // Amazon EC2 and Google Compute Engine, over IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    // Amazon EKS, credentials of pods. Over IPv4 they are link-local.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    // Alibaba, Azure's host agent, Oracle.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// Why an address is not connected to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Forbidden {
    /// It is one that we listen on ourselves: a loop, or the admin listener.
    #[error("the router itself listens there")]
    Itself,
    /// It is link-local or a metadata service, which only `server.allowedBackends` opens.
    #[error(
        "it is link-local or a metadata service; list it in server.allowedBackends to allow it"
    )]
    LinkLocal,
    /// `server.allowedBackends` is set and does not hold it.
    #[error("server.allowedBackends does not hold it")]
    NotListed,
}

/// The rule.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// `server.allowedBackends`, if it is set.
    pub allowed: Option<Vec<IpNet>>,
    /// Where this process listens.
    pub own: Vec<SocketAddr>,
}

impl Guard {
    /// Whether a backend may have this address. `is_local` tells whether an address is one of this
    /// machine's; it is asked only where that matters.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check(
        &self,
        address: SocketAddr,
        is_local: impl FnOnce(IpAddr) -> bool,
    ) -> Result<(), Forbidden> {
        let ip = plain(address.ip());
        let same_port = || self.own.iter().filter(|own| own.port() == address.port());
        if same_port().any(|own| plain(own.ip()) == ip) {
            return Err(Forbidden::Itself);
        }
        let has_wildcard = same_port().any(|own| own.ip().is_unspecified());
        // The kernel takes the unspecified address for the loopback one.
        let is_self = || ip.is_loopback() || ip.is_unspecified() || is_local(ip);
        if has_wildcard && is_self() {
            return Err(Forbidden::Itself);
        }
        if ip.is_unspecified() && same_port().any(|own| own.ip().is_loopback()) {
            return Err(Forbidden::Itself);
        }
        match &self.allowed {
            Some(networks) if networks.iter().any(|network| network.contains(&ip)) => Ok(()),
            Some(_) => Err(Forbidden::NotListed),
            None if is_link_local(ip) || METADATA.contains(&ip) => Err(Forbidden::LinkLocal),
            None => Ok(()),
        }
    }
}

/// The IPv4 address that an IPv6 one stands for: `::ffff:1.2.3.4`, and `64:ff9b::1.2.3.4`, which a
/// NAT64 gateway turns into it (RFC 6052); also below the prefix for networks of one's own,
/// `64:ff9b:1::/48`, where it stands last (RFC 8215).
fn plain(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0 | 1, 0, 0, 0, high, low] => {
                IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
            }
            _ => IpAddr::V6(v6),
        },
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::{Forbidden, Guard};

    fn guard(allowed: Option<&[&str]>, own: &[&str]) -> Guard {
        Guard {
            allowed: allowed.map(|list| list.iter().map(|text| text.parse().unwrap()).collect()),
            own: own.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    /// This machine has 10.0.0.7 and `2001:db8::7`.
    fn check(guard: &Guard, address: &str) -> Result<(), Forbidden> {
        let mine: [IpAddr; 2] = ["10.0.0.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        guard.check(address.parse().unwrap(), |ip| mine.contains(&ip))
    }

    #[test]
    fn private_and_public_addresses_are_open_and_link_local_ones_are_not() {
        let open = guard(None, &[]);
        for address in ["10.1.2.3:80", "127.0.0.1:80", "192.168.1.1:80", "8.8.8.8:1", "[fd00::1]:1"]
        {
            assert_eq!(check(&open, address), Ok(()), "{address}");
        }
        for address in [
            "169.254.169.254:80",
            "169.254.0.1:8080",
            "[fe80::1]:80",
            "[febf::1]:80",
            "[fd00:ec2::254]:80",
            "[fd20:ce::254]:80",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::169.254.169.254]:80",
            "[64:ff9b:1::a9fe:a9fe]:80",
            "[fd00:ec2::23]:80",
            "100.100.100.200:80",
            "168.63.129.16:80",
        ] {
            assert_eq!(check(&open, address), Err(Forbidden::LinkLocal), "{address}");
        }
    }

    #[test]
    fn a_list_allows_what_it_holds_and_nothing_else() {
        let listed = guard(Some(&["10.0.0.0/8", "169.254.1.0/24"]), &[]);
        for (address, expected) in [
            ("10.9.9.9:80", Ok(())),
            ("[::ffff:10.9.9.9]:80", Ok(())),
            ("169.254.1.1:80", Ok(())),
            ("169.254.169.254:80", Err(Forbidden::NotListed)),
            ("192.168.0.1:80", Err(Forbidden::NotListed)),
            ("[::1]:80", Err(Forbidden::NotListed)),
        ] {
            assert_eq!(check(&listed, address), expected, "{address}");
        }
    }

    #[test]
    fn no_backend_is_one_of_our_listeners() {
        for (own, address, is_own) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("[::1]:80", "[::]:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "10.0.0.7:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.9.9.9:80", true),
            ("0.0.0.0:80", "10.0.0.7:80", true),
            ("0.0.0.0:80", "10.0.0.8:80", false),
            ("0.0.0.0:80", "10.0.0.7:81", false),
            ("[::]:80", "10.0.0.7:80", true),
            ("[::]:80", "[2001:db8::7]:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "[2001:db8::8]:80", false),
        ] {
            // An allow-list opens nothing of it.
            for allowed in [None, Some(&["0.0.0.0/0", "::/0"][..])] {
                let result = check(&guard(allowed, &[own]), address);
                let expected = if is_own { Err(Forbidden::Itself) } else { Ok(()) };
                assert_eq!(result, expected, "{own} and {address}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_mapped_address_is_judged_like_the_address(
            ip in any::<std::net::Ipv4Addr>(), port in 79_u16..82,
        ) {
            for own in ["0.0.0.0:80", "127.0.0.1:80"] {
                let guard = guard(None, &[own]);
                let v4 = check(&guard, &format!("{ip}:{port}"));
                prop_assert_eq!(v4, check(&guard, &format!("[::ffff:{ip}]:{port}")));
            }
        }
    }
}
