//! When two rows mean the same backend.

use shared::backend::Origin;

/// What a row stands for. Rows with the same origin are one backend however they are spelled (a
/// slash at the end, capitals, the default port), because the router and Hipache send to the same
/// peer. A row that is no backend is only equal to itself.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Backend {
    /// A peer.
    Peer(Origin),
    /// Anything else, as it stands.
    Unusable(Vec<u8>),
}

impl Backend {
    /// Reads a row.
    pub fn of(row: &[u8]) -> Self {
        match Origin::parse(row) {
            Ok(origin) => Self::Peer(origin),
            Err(_not_a_backend) => Self::Unusable(row.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Backend;

    #[test]
    fn spellings_of_one_peer_are_one_backend() {
        let plain = Backend::of(b"http://web.test:80");
        for same in ["http://web.test:80/", "HTTP://Web.Test:80", "http://web.test", "web.test:80"]
        {
            assert_eq!(Backend::of(same.as_bytes()), plain, "{same}");
        }
        for other in ["http://web.test:81", "https://web.test:80", "http://web2.test:80", "junk"] {
            assert_ne!(Backend::of(other.as_bytes()), plain, "{other}");
        }
        assert_ne!(Backend::of(b"junk"), Backend::of(b"junk/"));
    }
}
