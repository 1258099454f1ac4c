//! One HTTP question to a program on this machine, for images without any other program in them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// A program that needs longer than this is not healthy.
const LIMIT: Duration = Duration::from_secs(2);

/// Sends the request that `request` makes for the address that is asked: `listen`, or the loopback
/// address where that is every address.
///
/// # Errors
///
/// When the answer is not 200.
pub fn ask(listen: SocketAddr, request: impl FnOnce(SocketAddr) -> String) -> io::Result<()> {
    let mut address = listen;
    if listen.ip().is_unspecified() {
        address.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(request(address).as_bytes())?;
    let mut answer = Vec::new();
    let _length = stream.take(4096).read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Err(io::Error::other(format!("it answered `{}`", String::from_utf8_lossy(line))))
}
