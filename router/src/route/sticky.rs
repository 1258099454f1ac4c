//! Sticky cookies: opaque, signed tokens for the backends of a frontend. Pure.
//!
//! A token is a keyed hash of the frontend's name and the backend's origin. It says nothing of the
//! address, cannot be made without the key, and means a backend only while that stands in the list.
//! Routers with one key make the same tokens.

use aws_lc_rs::{constant_time, hmac};
use shared::backend::{BackendUrl, Origin};

use super::{Frontend, Millis, Route};

/// Bytes of the hash in a token: 128 bits, which nobody guesses.
const BYTES: usize = 16;

/// The value of a sticky cookie, in hexadecimal digits.
pub type Token = Box<str>;

/// What tokens are made with.
#[derive(Debug)]
pub struct StickyKey(hmac::Key);

impl StickyKey {
    /// From a secret of any length.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    fn token(&self, frontend: &str, origin: &Origin) -> Token {
        // Neither part can hold a zero byte.
        let message = format!("sticky\0{frontend}\0{origin}");
        let tag = hmac::sign(&self.0, message.as_bytes());
        tag.as_ref().iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Route {
    /// The tokens of all positions, made at first use.
    fn tokens(&self, key: &StickyKey) -> &[Option<Token>] {
        self.tokens.get_or_init(|| {
            let Some(Frontend { name, backends, .. }) = self.frontend() else {
                return Box::default();
            };
            let token = |url: &BackendUrl| key.token(name, &url.origin);
            backends.iter().map(|backend| backend.as_ref().ok().map(token)).collect()
        })
    }

    /// The token of the backend at `position`.
    pub fn token(&self, key: &StickyKey, position: usize) -> Option<&str> {
        self.tokens(key).get(position)?.as_deref()
    }

    /// The position that one of these cookie values stands for, if its backend is in the list and
    /// alive at `now`.
    pub fn stuck<'a>(
        &self,
        key: &StickyKey,
        mut values: impl Iterator<Item = &'a [u8]>,
        now: Millis,
    ) -> Option<usize> {
        values.find_map(|value| {
            let is_it = |token: &Option<Token>| {
                token.as_ref().is_some_and(|token| {
                    constant_time::verify_slices_are_equal(token.as_bytes(), value).is_ok()
                })
            };
            let mut positions = self.tokens(key).iter().enumerate();
            positions.find_map(|(position, token)| {
                (is_it(token) && !self.is_dead(position, now)).then_some(position)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::store::{Found, HostRecord};

    use super::{Route, StickyKey};

    fn route(name: &str, rows: &[&str]) -> Route {
        let rows = std::iter::once(&"id").chain(rows).map(|row| row.as_bytes().to_vec());
        let found = Some(Found { name: name.to_owned(), rows: Ok(rows.collect()) });
        let record = HostRecord { found, ..HostRecord::default() };
        Route::new("a.test", record, None, 0, Arc::new)
    }

    fn stuck(route: &Route, key: &StickyKey, value: &str) -> Option<usize> {
        route.stuck(key, [value.as_bytes()].into_iter(), 0)
    }

    #[test]
    fn a_token_means_its_backend_wherever_it_stands_and_nothing_once_it_is_gone() {
        let (key, same) = (StickyKey::new(b"secret"), StickyKey::new(b"secret"));
        let old = route("*.test", &["http://10.0.0.1:80", "garbage", "http://10.0.0.2:80"]);
        let token = old.token(&key, 2).unwrap().to_owned();
        assert_eq!(old.token(&key, 1), None);
        assert_eq!(stuck(&old, &key, &token), Some(2));
        let edited = route("*.test", &["http://10.0.0.2", "http://10.0.0.1"]);
        assert_eq!(stuck(&edited, &same, &token), Some(0), "of another router, too");
        let removed = route("*.test", &["http://10.0.0.1", "http://10.0.0.3"]);
        assert_eq!(stuck(&removed, &key, &token), None);
        assert!(edited.mark_dead(0, 0, 100));
        assert_eq!(stuck(&edited, &key, &token), None, "dead");
    }

    #[test]
    fn tokens_are_opaque_and_bound_to_key_and_frontend() {
        let key = StickyKey::new(b"secret");
        let one = route("a.test", &["http://10.0.0.1:80"]);
        let token = one.token(&key, 0).unwrap();
        assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()));
        for (other, key) in [
            (route("b.test", &["http://10.0.0.1:80"]), StickyKey::new(b"secret")),
            (route("a.test", &["http://10.0.0.1:80"]), StickyKey::new(b"other")),
            (route("a.test", &["http://10.0.0.1:81"]), StickyKey::new(b"secret")),
        ] {
            assert_ne!(other.token(&key, 0), Some(token));
            assert_eq!(stuck(&other, &key, token), None);
        }
        for value in ["", "x", token.trim_end_matches(char::is_alphanumeric), "http://10.0.0.1:80"]
        {
            assert_eq!(stuck(&one, &key, value), None, "{value}");
        }
        assert_eq!(stuck(&one, &key, &format!("{token}0")), None);
    }
}
