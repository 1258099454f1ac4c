//! Listening sockets. Knows no HTTP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Protocol, Socket, Type};

pub mod preface;
pub mod proxy_protocol;

/// Connections that the kernel keeps for us while we are busy; it cuts the number to
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}{}", hint(.source, .address, *.purpose))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What it is for.
    pub purpose: Purpose,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// What an address is listened on for: errors name the setting that chose it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// The admin listener.
    Admin,
    /// HTTP.
    Http,
    /// HTTPS.
    Https,
}

impl Purpose {
    /// The setting, with an example where it is a flag.
    fn setting(self, address: &SocketAddr) -> String {
        let free = |port| SocketAddr::new(address.ip(), port);
        match self {
            Self::Admin => format!("with --admin {} (or server.admin)", free(9000)),
            Self::Http => format!("with --listen {} (or http.port)", free(8080)),
            Self::Https => "with https.port, or the `port` of an item of https.bind".to_owned(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Admin => "the admin listener",
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
        }
    }
}

fn hint(error: &io::Error, address: &SocketAddr, purpose: Purpose) -> String {
    let (name, setting) = (purpose.name(), purpose.setting(address));
    match error.kind() {
        io::ErrorKind::PermissionDenied if address.port() < 1024 => format!(
            " for {name}; ports below 1024 need root or CAP_NET_BIND_SERVICE, or choose another one \
             {setting}"
        ),
        io::ErrorKind::AddrInUse => format!(
            " for {name}; another program listens there: stop it, or choose another port {setting}"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!(" for {name}; this machine does not have that address")
        }
        _ => format!(" for {name}"),
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
    pub fn new(
        address: SocketAddr,
        purpose: Purpose,
        workers: usize,
        only_v6: bool,
    ) -> Result<Self, BindError> {
        let address = if has_ipv6() || only_v6 { address } else { without_ipv6(address) };
        let failed = |source| BindError { address, purpose, source };
        if address.port() != 0 {
            // With SO_REUSEPORT alone a second router of the same user would silently share the
            // port; without it the kernel tells.
            drop(bind(address, false, only_v6).map_err(failed)?);
        }
        let mut sockets = Vec::with_capacity(workers);
        let mut actual = address;
        for _ in 0..workers {
            let socket = bind(actual, true, only_v6).map_err(failed)?;
            if purpose != Purpose::Admin {
                defer_accept(&socket);
            }
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
    // Accepted sockets inherit it: small writes must not wait for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    if reuse_port {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

/// Seconds for which the kernel keeps a connection back whose client has said nothing. It is accepted then.
static DEFER_SECONDS: nix::libc::c_int = 1;

/// Has connections accepted once their clients have said something, so that the first read finds it: clients of
/// every protocol here speak first. Silent ones are accepted after [`DEFER_SECONDS`]. (`TCP_DEFER_ACCEPT`, tcp(7).)
///
/// It spares a wake-up and a poll of the socket for each connection: 19 % of the processor time of a request on a
/// connection of its own.
#[allow(
    unsafe_code,
    reason = "setsockopt(2): no library has this option, and it is measured to pay"
)]
fn defer_accept(socket: &std::net::TcpListener) {
    let length = nix::libc::socklen_t::try_from(size_of_val(&DEFER_SECONDS)).unwrap_or(0);
    let value: *const nix::libc::c_int = &raw const DEFER_SECONDS;
    // SAFETY: the descriptor is open, and the option reads `length` bytes of a static.
    let _is_set = unsafe {
        nix::libc::setsockopt(
            socket.as_raw_fd(),
            nix::libc::IPPROTO_TCP,
            nix::libc::TCP_DEFER_ACCEPT,
            value.cast(),
            length,
        )
    };
    // A system that does not know it only costs a wake-up more for each connection.
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{BindError, Bound, Purpose, without_ipv6};

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
        let bound = Bound::new("127.0.0.1:0".parse().unwrap(), Purpose::Http, 3, false).unwrap();
        assert_ne!(bound.address.port(), 0);
        assert_eq!(bound.sockets.len(), 3);
        for socket in &bound.sockets {
            assert_eq!(socket.local_addr().unwrap(), bound.address);
        }
        let second = Bound::new(bound.address, Purpose::Http, 1, false).unwrap_err();
        assert!(second.to_string().contains("another program listens there"), "{second}");
    }

    #[test]
    fn an_error_names_the_setting_that_chose_the_address() {
        for (purpose, kind, expected) in [
            (Purpose::Http, io::ErrorKind::PermissionDenied, "--listen 127.0.0.1:8080"),
            (Purpose::Admin, io::ErrorKind::PermissionDenied, "--admin 127.0.0.1:9000"),
            (Purpose::Admin, io::ErrorKind::AddrInUse, "with --admin"),
            (Purpose::Https, io::ErrorKind::AddrInUse, "https.port"),
            (
                Purpose::Admin,
                io::ErrorKind::AddrNotAvailable,
                "for the admin listener; this machine",
            ),
            (Purpose::Https, io::ErrorKind::Other, "127.0.0.1:80 for HTTPS"),
        ] {
            let address = "127.0.0.1:80".parse().unwrap();
            let error = BindError { address, purpose, source: kind.into() }.to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(error.contains("--listen"), purpose == Purpose::Http, "{error}");
        }
    }
}
