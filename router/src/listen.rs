//! Listening sockets. Knows no HTTP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

pub mod preface;
pub mod proxy_protocol;

/// Connections that the kernel keeps for us while we are busy; it cuts the number to
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}{}", hint(.source, .address))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

fn hint(error: &io::Error, address: &SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied if address.port() < 1024 => format!(
            "; ports below 1024 need root or CAP_NET_BIND_SERVICE, or choose another one with \
             --listen {}:8080",
            address.ip()
        ),
        io::ErrorKind::AddrInUse => {
            "; another program listens there: stop it, or choose another port with --listen"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address".to_owned(),
        _ => String::new(),
    }
}

/// One address, with a socket for each worker.
#[derive(Debug)]
pub struct Bound {
    /// The address, with the real port where 0 was asked for.
    pub address: SocketAddr,
    /// `SO_REUSEPORT` sockets: the kernel spreads connections over them.
    pub sockets: Vec<std::net::TcpListener>,
}

impl Bound {
    /// Binds `address` once for each of `workers`. `[::]` listens for IPv4 as well, as in Node, unless
    /// `only_v6` says that another listener of this process does; where the system has no IPv6, it is
    /// IPv4 alone.
    ///
    /// # Errors
    ///
    /// [`BindError`] says what to do about it.
    pub fn new(address: SocketAddr, workers: usize, only_v6: bool) -> Result<Self, BindError> {
        let address = if has_ipv6() || only_v6 { address } else { without_ipv6(address) };
        let failed = |source| BindError { address, source };
        if address.port() != 0 {
            // With SO_REUSEPORT alone a second router of the same user would silently share the
            // port; without it the kernel tells.
            drop(bind(address, false, only_v6).map_err(failed)?);
        }
        let mut sockets = Vec::with_capacity(workers);
        let mut actual = address;
        for _ in 0..workers {
            let socket = bind(actual, true, only_v6).map_err(failed)?;
            actual = socket.local_addr().map_err(failed)?;
            sockets.push(socket);
        }
        Ok(Self { address: actual, sockets })
    }
}

/// Whether the system can listen on IPv6 addresses at all: containers often cannot.
fn has_ipv6() -> bool {
    std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

/// Every IPv4 address instead of every address.
fn without_ipv6(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv4Addr::UNSPECIFIED, address.port()).into(),
        _ => address,
    }
}

fn bind(address: SocketAddr, reuse_port: bool, only_v6: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6 || !address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if reuse_port {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{BindError, Bound, without_ipv6};

    #[test]
    fn every_address_is_every_ipv4_address_without_ipv6() {
        for (address, expected) in
            [("[::]:80", "0.0.0.0:80"), ("[::1]:80", "[::1]:80"), ("127.0.0.1:1", "127.0.0.1:1")]
        {
            assert_eq!(without_ipv6(address.parse().unwrap()), expected.parse().unwrap());
        }
    }

    #[test]
    fn every_worker_gets_a_socket_on_the_same_port() {
        let bound = Bound::new("127.0.0.1:0".parse().unwrap(), 3, false).unwrap();
        assert_ne!(bound.address.port(), 0);
        assert_eq!(bound.sockets.len(), 3);
        for socket in &bound.sockets {
            assert_eq!(socket.local_addr().unwrap(), bound.address);
        }
        let second = Bound::new(bound.address, 1, false).unwrap_err();
        assert!(second.to_string().contains("another program listens there"), "{second}");
    }

    #[test]
    fn a_port_that_needs_privileges_names_the_way_out() {
        let error = BindError {
            address: "127.0.0.1:80".parse().unwrap(),
            source: io::ErrorKind::PermissionDenied.into(),
        };
        assert!(error.to_string().contains("--listen 127.0.0.1:8080"), "{error}");
    }
}
