//! The header of the PROXY protocol, versions 1 and 2, with which a balancer says whose connection it
//! passes on. Pure.
//!
//! See <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. Own code, since the crate that
//! there is refuses `LOCAL` headers of families that it does not know, and takes ports like `+80`.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Bytes that tell the two versions apart; no header is shorter.
pub const PREFIX: usize = 12;
/// Bytes of version 2 before the part whose length they say.
pub const V2_FIXED: usize = 16;
/// Longest header of version 1, with its line end (section 2.1).
pub const V1_MAX: usize = 107;
/// Longest variable part of version 2 that is taken: addresses, and room for some extensions (TLVs),
/// which are skipped. Those in use need a few hundred bytes.
pub const V2_MAX: usize = 4096;

const V1: &[u8] = b"PROXY ";
const V2: &[u8; PREFIX] = b"\r\n\r\n\0\r\nQUIT\n";

/// Whose connection it is: of `source`, which connected to `destination`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What it connected to.
    pub destination: SocketAddr,
}

/// Why a connection does not begin with a usable header.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeaderError {
    /// It begins with something else.
    #[error("it does not begin with a PROXY header")]
    NoHeader,
    /// It is longer than [`V1_MAX`] or [`V2_MAX`].
    #[error("its PROXY header is too long")]
    TooLong,
    /// The header breaks a rule.
    #[error("its PROXY header is malformed")]
    Malformed,
}

/// The version of a header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// A line of text.
    One,
    /// Binary.
    Two,
}

/// Which version begins with `prefix`.
///
/// # Errors
///
/// [`HeaderError::NoHeader`].
pub fn version(prefix: &[u8; PREFIX]) -> Result<Version, HeaderError> {
    match prefix {
        V2 => Ok(Version::Two),
        prefix if prefix.starts_with(V1) => Ok(Version::One),
        _ => Err(HeaderError::NoHeader),
    }
}

/// Reads a header of version 1, with its line end. `None` is a connection of the balancer's own, or
/// of a kind that has no addresses: then those of the connection count.
///
/// # Errors
///
/// [`HeaderError`] for anything but one whole header.
pub fn parse_v1(line: &[u8]) -> Result<Option<Addresses>, HeaderError> {
    if line.len() > V1_MAX {
        return Err(HeaderError::TooLong);
    }
    let line = line.strip_prefix(V1).and_then(|line| line.strip_suffix(b"\r\n"));
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let line = line.filter(|line| !line.contains(['\r', '\n'])).ok_or(HeaderError::Malformed)?;
    // What follows it is to be ignored (section 2.1).
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(None);
    }
    let mut parts = line.split(' ');
    let mut next = || parts.next().ok_or(HeaderError::Malformed);
    let (family, source, destination) = (next()?, next()?, next()?);
    let (source_port, destination_port) = (next()?, next()?);
    if parts.next().is_some() {
        return Err(HeaderError::Malformed);
    }
    let address = |text: &str| {
        let address = IpAddr::from_str(text).ok();
        let is_of_family = |address: &IpAddr| match family {
            "TCP4" => address.is_ipv4(),
            "TCP6" => address.is_ipv6(),
            _ => false,
        };
        address.filter(is_of_family).ok_or(HeaderError::Malformed)
    };
    let port = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        let port = text.parse::<u16>().ok().filter(|_| is_number);
        port.ok_or(HeaderError::Malformed)
    };
    Ok(Some(Addresses {
        source: SocketAddr::new(address(source)?, port(source_port)?),
        destination: SocketAddr::new(address(destination)?, port(destination_port)?),
    }))
}

/// How long the variable part of a header of version 2 is that begins with `fixed`.
///
/// # Errors
///
/// [`HeaderError`] when this is no such beginning, or the part is too long.
pub fn v2_length(fixed: &[u8; V2_FIXED]) -> Result<usize, HeaderError> {
    let [.., version_command, _family, high, low] = fixed;
    if !fixed.starts_with(V2) || version_command >> 4 != 2 {
        return Err(HeaderError::Malformed);
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > V2_MAX { Err(HeaderError::TooLong) } else { Ok(length) }
}

/// Reads a header of version 2: its first bytes and its variable part. `None` is as in [`parse_v1`].
///
/// # Errors
///
/// [`HeaderError`] for what the specification has receivers refuse.
pub fn parse_v2(fixed: &[u8; V2_FIXED], rest: &[u8]) -> Result<Option<Addresses>, HeaderError> {
    if v2_length(fixed)? != rest.len() {
        return Err(HeaderError::Malformed);
    }
    let [.., version_command, family, _high, _low] = fixed;
    match version_command & 15 {
        // LOCAL: whatever else it says is to be ignored (section 2.2).
        0 => return Ok(None),
        1 => {}
        _ => return Err(HeaderError::Malformed),
    }
    match family {
        // TCP over IPv4 and IPv6. Extensions may follow the addresses.
        0x11 => {
            let (addresses, _extensions) =
                rest.split_first_chunk::<12>().ok_or(HeaderError::Malformed)?;
            let [s1, s2, s3, s4, d1, d2, d3, d4, sp1, sp2, dp1, dp2] = *addresses;
            Ok(Some(Addresses {
                source: SocketAddr::from(([s1, s2, s3, s4], u16::from_be_bytes([sp1, sp2]))),
                destination: SocketAddr::from(([d1, d2, d3, d4], u16::from_be_bytes([dp1, dp2]))),
            }))
        }
        0x21 => {
            let (source, rest) = rest.split_first_chunk::<16>().ok_or(HeaderError::Malformed)?;
            let (destination, rest) =
                rest.split_first_chunk::<16>().ok_or(HeaderError::Malformed)?;
            let ([sp1, sp2, dp1, dp2], _extensions) =
                rest.split_first_chunk::<4>().ok_or(HeaderError::Malformed)?;
            Ok(Some(Addresses {
                source: SocketAddr::from((*source, u16::from_be_bytes([*sp1, *sp2]))),
                destination: SocketAddr::from((*destination, u16::from_be_bytes([*dp1, *dp2]))),
            }))
        }
        // Unspecified, and what we know to have no addresses for us: UDP, Unix sockets.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => Ok(None),
        // "Must be rejected as invalid by receivers."
        _ => Err(HeaderError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        Addresses, HeaderError, SocketAddr, V2, V2_FIXED, Version, parse_v1, parse_v2, v2_length,
        version,
    };

    fn shown(result: Result<Option<Addresses>, HeaderError>) -> String {
        match result {
            Ok(Some(Addresses { source, destination })) => format!("{source} {destination}"),
            Ok(None) => "own".to_owned(),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn version_1_is_read_strictly() {
        for (line, expected) in [
            ("PROXY TCP4 1.2.3.4 5.6.7.8 56324 443\r\n", "1.2.3.4:56324 5.6.7.8:443"),
            ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "[2001:db8::1]:1 [::1]:2"),
            ("PROXY UNKNOWN\r\n", "own"),
            ("PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n", "own"),
            ("PROXY UNKNOWNS\r\n", "Malformed"),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 56324 443\n", "Malformed"),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 56324 443", "Malformed"),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 56324 443 \r\n", "Malformed"),
            ("PROXY TCP4  1.2.3.4 5.6.7.8 56324 443\r\n", "Malformed"),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 +56324 443\r\n", "Malformed"),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 056 443\r\n", "Malformed"),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 65536 443\r\n", "Malformed"),
            ("PROXY TCP4 1.2.3.4 5.6.7.8  443\r\n", "Malformed"),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", "Malformed"),
            ("PROXY TCP6 1.2.3.4 ::1 1 2\r\n", "Malformed"),
            ("PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n", "Malformed"),
            ("PROXY TCP4 1.2.3.4\r\n", "Malformed"),
            ("proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "Malformed"),
        ] {
            assert_eq!(shown(parse_v1(line.as_bytes())), expected, "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        assert_eq!(parse_v1(long.as_bytes()), Err(HeaderError::TooLong));
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> ([u8; V2_FIXED], Vec<u8>) {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        let fixed = [&V2[..], &[command, family], &length].concat();
        (fixed.try_into().unwrap(), rest.to_vec())
    }

    #[test]
    fn version_2_is_read_and_its_extensions_are_skipped() {
        let v4 = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];
        let mut v6 = [0; 36];
        (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 3, 4);
        let extended = [&v4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        let four = "1.2.3.4:80 5.6.7.8:443";
        for (command, family, rest, expected) in [
            (0x21, 0x11, &v4[..], four),
            (0x21, 0x11, &extended, four),
            (0x21, 0x21, &v6, "[::1]:3 [::2]:4"),
            (0x20, 0x00, &[], "own"),
            (0x20, 0x11, &v4, "own"),
            (0x20, 0xff, &v4, "own"),
            (0x21, 0x00, &[], "own"),
            (0x21, 0x31, &[0; 216], "own"),
            (0x21, 0x12, &v4, "own"),
            (0x21, 0x41, &v4, "Malformed"),
            (0x21, 0x13, &v4, "Malformed"),
            (0x22, 0x11, &v4, "Malformed"),
            (0x11, 0x11, &v4, "Malformed"),
            (0x21, 0x11, &v4[..11], "Malformed"),
            (0x21, 0x21, &v6[..35], "Malformed"),
            (0x21, 0x21, &v4, "Malformed"),
            (0x20, 0x00, &[0; 4097], "TooLong"),
        ] {
            let (fixed, rest) = v2(command, family, rest);
            assert_eq!(shown(parse_v2(&fixed, &rest)), expected, "{command:x} {family:x}");
        }
    }

    #[test]
    fn other_protocols_are_no_header() {
        assert_eq!(version(b"PROXY TCP4 1"), Ok(Version::One));
        assert_eq!(version(V2), Ok(Version::Two));
        for other in
            [b"GET / HTTP/1", b"PRI * HTTP/2", b"PROXY\tTCP4 1", b"\x16\x03\x01\0\0\0\0\0\0\0\0\0"]
        {
            assert_eq!(version(other), Err(HeaderError::NoHeader));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(source in any::<SocketAddr>(), port in any::<u16>()) {
            let source = SocketAddr::new(source.ip(), source.port());
            let destination = SocketAddr::new(source.ip(), port);
            let expected = Ok(Some(Addresses { source, destination }));
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let ip = source.ip();
            let line = format!("PROXY {family} {ip} {ip} {} {port}\r\n", source.port());
            prop_assert_eq!(parse_v1(line.as_bytes()), expected);
            let octets = match ip {
                std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
                std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            let ports = [source.port().to_be_bytes(), port.to_be_bytes()].concat();
            let family = if source.is_ipv4() { 0x11 } else { 0x21 };
            let (fixed, rest) = v2(0x21, family, &[&octets[..], &octets, &ports].concat());
            prop_assert_eq!(parse_v2(&fixed, &rest), expected);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _v1 = parse_v1(&bytes);
            let _line = parse_v1(&[b"PROXY ", &bytes[..], b"\r\n"].concat());
            for command in [0x20, 0x21] {
                for family in 0..=0xff {
                    let (fixed, rest) = v2(command, family, &bytes);
                    let _v2 = parse_v2(&fixed, &rest);
                }
            }
            if let Some(fixed) = bytes.first_chunk() {
                let _length = v2_length(fixed);
            }
        }
    }
}
