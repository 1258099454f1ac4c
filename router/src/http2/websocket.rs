//! The handshake of RFC 6455, which HTTP/2 does without (RFC 8441): where one side speaks HTTP/2 and the other
//! does not, the router is the side that asks or answers.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// What RFC 6455 4.2.2 appends to a key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// `Sec-WebSocket-Accept` of a handshake with this `Sec-WebSocket-Key` (RFC 6455 4.2.2).
pub fn accept_for(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    BASE64_STANDARD.encode(context.finish().as_ref())
}

/// Whether a `Sec-WebSocket-Accept` answers the handshake with this key.
pub fn accepts(key: &[u8], accept: &[u8]) -> bool {
    accept == accept_for(key).as_bytes()
}

/// A `Sec-WebSocket-Key` of these random bytes (RFC 6455 4.1).
pub(super) fn key_of(random: [u8; 16]) -> String {
    BASE64_STANDARD.encode(random)
}

#[cfg(test)]
mod tests {
    use super::{accepts, key_of};

    /// The example of RFC 6455 1.3.
    #[test]
    fn only_the_right_answer_to_a_key_is_accepted() {
        let key = b"dGhlIHNhbXBsZSBub25jZQ==";
        assert!(accepts(key, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!accepts(key, b"AAAALMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!accepts(key, b""));
        assert_eq!(key_of([0; 16]), "AAAAAAAAAAAAAAAAAAAAAA==");
    }
}
