//! `marathon-sync healthcheck`: asks `/livez`.

use std::io;
use std::net::SocketAddr;

/// Asks the admin listener at `admin`.
///
/// # Errors
///
/// When it does not answer 200.
pub fn ask(admin: SocketAddr) -> io::Result<()> {
    shared::healthcheck::ask(admin, |address| {
        format!("GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
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
