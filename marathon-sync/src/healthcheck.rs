//! `marathon-sync healthcheck`: asks `/livez`, for images without any other program in them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// A process that needs longer than this is not healthy.
const LIMIT: Duration = Duration::from_secs(2);

/// Asks the admin listener at `admin`.
///
/// # Errors
///
/// When it does not answer 200.
pub fn ask(admin: SocketAddr) -> io::Result<()> {
    let mut address = admin;
    if admin.ip().is_unspecified() {
        address.set_ip(match admin.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let request = format!("GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let _length = stream.take(4096).read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Err(io::Error::other(format!("it answered `{}`", String::from_utf8_lossy(line))))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_a_200_is_healthy() {
        for (answer, is_healthy) in [
            ("HTTP/1.1 200 OK\r\n\r\nok", true),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\nstuck", false),
            ("", false),
        ] {
            let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap();
                assert!(request[..length].starts_with(b"GET /livez HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(ask(address).is_ok(), is_healthy, "{answer}");
            server.join().unwrap();
        }
    }
}
