//! Ports that are ours without anybody listening on them.
//!
//! A socket that is bound but never listens keeps its port from being handed out to anybody else,
//! refuses connections, and, with `SO_REUSEADDR` on both, lets our own server listen there: so a
//! port can be refusing, then alive, then refusing again, and no other test can slip in between.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Longest queue of connections waiting to be accepted.
const BACKLOG: i32 = 1024;

/// A reserved port of the loopback that refuses every connection.
#[derive(Debug)]
pub struct Reserved {
    socket: Socket,
    addr: SocketAddr,
}

impl Reserved {
    /// Reserves a free port of 127.0.0.1.
    pub fn new() -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into())
    }

    /// Reserves a free port of `[::1]`.
    pub fn v6() -> Self {
        Self::on(Ipv6Addr::LOCALHOST.into())
    }

    /// Reserves that very port; for programs, as tests take what is free.
    pub fn at(addr: SocketAddr) -> io::Result<Self> {
        let socket = try_bind(addr)?;
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { socket, addr })
    }

    fn on(ip: IpAddr) -> Self {
        let socket = bound(SocketAddr::new(ip, 0));
        let addr = socket.local_addr().expect("own address").as_socket().expect("an IP socket");
        Self { socket, addr }
    }

    /// The address that refuses.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port alone.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The address as a backend URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// A listener on the reserved port, which accepts from now until it is dropped.
    pub fn listen(&self) -> TcpListener {
        debug_assert!(self.socket.reuse_address().unwrap_or(false), "sharing needs SO_REUSEADDR");
        let socket = bound(self.addr);
        socket.listen(BACKLOG).expect("listens on a reserved port");
        socket.into()
    }
}

impl Default for Reserved {
    fn default() -> Self {
        Self::new()
    }
}

fn bound(addr: SocketAddr) -> Socket {
    try_bind(addr).unwrap_or_else(|error| panic!("cannot bind {addr}: {error}"))
}

fn try_bind(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// A listener that never accepts and whose queue is full: connecting to it gets no answer at all.
#[derive(Debug)]
pub struct Blackhole {
    addr: SocketAddr,
    _listener: Socket,
    _queued: Vec<TcpStream>,
}

impl Blackhole {
    /// Listens with the shortest queue there is and fills it.
    pub fn new() -> Self {
        let listener = bound(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
        listener.listen(0).expect("listens");
        let addr = listener.local_addr().expect("own address").as_socket().expect("an IP socket");
        let mut queued = Vec::new();
        // The kernel rounds the queue up; a connect that stays unanswered proves that it is full.
        while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
            queued.push(stream);
            assert!(queued.len() < 64, "the queue of {addr} does not fill");
        }
        Self { addr, _listener: listener, _queued: queued }
    }

    /// The address as a backend URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Default for Blackhole {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_reserved_port_refuses_then_listens_then_refuses() {
        let reserved = Reserved::new();
        assert_eq!(refusal(&reserved), Some(ErrorKind::ConnectionRefused));
        let listener = reserved.listen();
        assert_eq!(refusal(&reserved), None);
        drop(listener);
        assert_eq!(refusal(&reserved), Some(ErrorKind::ConnectionRefused));
    }

    #[test]
    fn a_blackhole_does_not_answer() {
        let blackhole = Blackhole::new();
        let error =
            TcpStream::connect_timeout(&blackhole.addr, Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    fn refusal(reserved: &Reserved) -> Option<ErrorKind> {
        TcpStream::connect(reserved.addr()).err().map(|error| error.kind())
    }
}
