//! `router healthcheck`: the question that a load balancer asks, for images without any other
//! program in them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// A router that needs longer than this is not healthy.
const LIMIT: Duration = Duration::from_secs(2);

/// Asks the router at `listen` for `Host: __ping__`, with a PROXY header of our own where it expects
/// one; it has to trust the loopback address then.
///
/// # Errors
///
/// When it does not answer 200.
pub fn ask(listen: SocketAddr, has_preface: bool) -> io::Result<()> {
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
    let preface = if has_preface { "PROXY UNKNOWN\r\n" } else { "" };
    let request = format!(
        "{preface}GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        shared::host::PING
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let _length = stream.take(4096).read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Err(io::Error::other(format!("it answered `{}`", String::from_utf8_lossy(line))))
}
