//! The client side of an upgraded connection, as raw bytes: the router never looks into frames, so
//! neither do the tests.

use std::net::SocketAddr;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::client::Client;
use crate::wire::{Conn, Head};

/// Headers of a WebSocket handshake with the key of RFC 6455 section 1.3.
pub const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// What a server answers to a key (RFC 6455 section 4.2.2).
pub fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    BASE64_STANDARD.encode(digest.as_ref())
}

/// A connection after its `101`.
#[derive(Debug)]
pub struct Tunnel {
    /// The `101` response.
    pub head: Head,
    client: Client,
}

impl Tunnel {
    /// Opens a WebSocket; panics when the answer is not 101.
    #[track_caller]
    pub fn open(addr: SocketAddr, host: &str, target: &str) -> Self {
        Self::open_with(addr, host, target, HANDSHAKE)
    }

    /// Opens an upgraded connection with these header lines, each ended by CRLF.
    #[track_caller]
    pub fn open_with(addr: SocketAddr, host: &str, target: &str, headers: &str) -> Self {
        let mut client = Client::connect(addr);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n"));
        let head = client.head().expect("an answer to the handshake");
        assert_eq!(head.status(), 101, "{head:?}");
        Self { head, client }
    }

    /// The connection.
    pub fn conn(&mut self) -> &mut Conn {
        self.client.conn()
    }

    /// Sends bytes and reads as many back, which have to be the same.
    #[track_caller]
    pub fn echo(&mut self, bytes: &[u8]) {
        self.client.send(bytes);
        let back = self.conn().read_exact(bytes.len()).expect("an echo");
        assert_eq!(back, bytes);
    }

    /// Ends our direction and returns everything that still comes until the other side ends too.
    #[track_caller]
    pub fn finish(&mut self) -> Vec<u8> {
        self.conn().finish().expect("half-close");
        self.conn().read_to_end().expect("the other side ends too")
    }

    /// Whether the other side ends the connection without another byte.
    #[track_caller]
    pub fn is_closed(&mut self) -> bool {
        self.client.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;

    #[test]
    fn echoes_and_half_closes() {
        let backend = Backend::upgrading("b");
        let mut tunnel = Tunnel::open(([127, 0, 0, 1], backend.port()).into(), "a", "/");
        tunnel.echo(b"\x81\x00bytes");
        assert_eq!(tunnel.finish(), b"bye");
        assert_eq!(backend.wait_for_body(0).data, b"\x81\x00bytes");
    }
}
