//! Passwords of `basic-auth`, checked off the workers: a bcrypt hash takes a processor for tens of
//! milliseconds, and is meant to. How many are computed at once and how many wait is bounded; what
//! was right once is remembered and costs nothing more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::route::options::User;

/// Right passwords that are remembered, in all.
const REMEMBERED: usize = 10_000;
/// Requests that may wait for a processor. More get 503: they would only wait longer.
const MAX_WAITING: usize = 64;
/// How long one of them waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It could not be checked: too many are being checked.
    Busy,
    /// It is the user's.
    Right,
    /// It is not, or there is no such user.
    Wrong,
}

/// Checks passwords. Shared by all workers.
#[derive(Debug)]
pub struct Passwords {
    /// Keyed hashes of user, hash and password: neither is kept, and a changed hash is another key.
    verified: Cache<[u8; 32], ()>,
    key: hmac::Key,
    processors: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Passwords {
    /// Computes at most `at_once` hashes at the same time.
    ///
    /// # Errors
    ///
    /// When the system has no random bytes.
    pub fn new(at_once: usize) -> Result<Self, aws_lc_rs::error::Unspecified> {
        Ok(Self {
            verified: Cache::new(REMEMBERED),
            key: hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())?,
            processors: Arc::new(Semaphore::new(at_once)),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Whether `password` is that of `name` among `users`.
    pub async fn check(&self, users: &[User], name: &[u8], password: &[u8]) -> Verdict {
        let user = users.iter().find(|user| user.name.as_bytes() == name);
        // Who does not exist takes as long as who does, so that nobody learns which names there are.
        let Some(User { hash, .. }) = user.or_else(|| users.first()) else {
            return Verdict::Wrong;
        };
        let key = self.key_of(name, hash, password);
        if user.is_some() && self.verified.get(&key).is_some() {
            return Verdict::Right;
        }
        let waiting = Waiting::new(&self.waiting);
        if waiting.ahead >= MAX_WAITING {
            return Verdict::Busy;
        }
        let turn = Arc::clone(&self.processors).acquire_owned();
        let Ok(Ok(turn)) = tokio::time::timeout(PATIENCE, turn).await else {
            return Verdict::Busy;
        };
        drop(waiting);
        let (hash, password) = (hash.clone(), password.to_vec());
        let checked = tokio::task::spawn_blocking(move || {
            // Held to the end, also when the client is gone by then.
            let _turn = turn;
            bcrypt::verify(password, &hash)
        });
        match checked.await {
            Ok(Ok(true)) if user.is_some() => {
                self.verified.insert(key, ());
                Verdict::Right
            }
            Ok(Ok(_)) => Verdict::Wrong,
            Ok(Err(error)) => {
                warn!(%error, "a password hash of basic-auth cannot be used");
                Verdict::Wrong
            }
            Err(_runtime_ends) => Verdict::Busy,
        }
    }

    fn key_of(&self, name: &[u8], hash: &str, password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [name, hash.as_bytes(), password] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut key = [0; 32];
        key.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        key
    }
}

/// Counts one who waits, until it is dropped.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    ahead: usize,
}

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        Self { count, ahead: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_WAITING, Passwords, User, Verdict};

    fn user(name: &str, password: &str) -> User {
        let hash = bcrypt::hash(password, 4).unwrap();
        User { name: name.into(), hash: hash.into() }
    }

    #[tokio::test]
    async fn a_password_is_right_for_its_user_alone_and_until_it_changes() {
        let passwords = Passwords::new(1).unwrap();
        let users = [user("me", "one"), user("you", "two")];
        for (name, password, verdict) in [
            ("me", "one", Verdict::Right),
            ("me", "one", Verdict::Right),
            ("me", "two", Verdict::Wrong),
            ("you", "two", Verdict::Right),
            ("nobody", "one", Verdict::Wrong),
            ("", "", Verdict::Wrong),
        ] {
            let seen = passwords.check(&users, name.as_bytes(), password.as_bytes()).await;
            assert_eq!(seen, verdict, "{name} {password}");
        }
        let changed = [user("me", "new")];
        assert_eq!(passwords.check(&changed, b"me", b"one").await, Verdict::Wrong);
        assert_eq!(passwords.check(&[], b"me", b"one").await, Verdict::Wrong);
    }

    /// Others of the worker go on meanwhile.
    #[tokio::test]
    async fn no_hash_is_computed_on_the_workers_thread() {
        let passwords = Passwords::new(1).unwrap();
        let users = [user("me", "one")];
        let mut check = std::pin::pin!(passwords.check(&users, b"me", b"one"));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(check.as_mut().poll(&mut cx).is_pending());
        assert_eq!(check.await, Verdict::Right);
    }

    /// Only what is in memory needs no processor, of which there is none here.
    #[tokio::test(start_paused = true)]
    async fn what_was_right_is_remembered_and_the_rest_waits_for_a_bounded_time() {
        let passwords = Passwords::new(1).unwrap();
        let users = [user("me", "one")];
        assert_eq!(passwords.check(&users, b"me", b"one").await, Verdict::Right);
        let _taken = passwords.processors.acquire().await.unwrap();
        assert_eq!(passwords.check(&users, b"me", b"one").await, Verdict::Right);
        assert_eq!(passwords.check(&users, b"me", b"two").await, Verdict::Busy);
        passwords.waiting.store(MAX_WAITING, std::sync::atomic::Ordering::Relaxed);
        let before = tokio::time::Instant::now();
        assert_eq!(passwords.check(&users, b"me", b"two").await, Verdict::Busy);
        assert_eq!(before.elapsed(), std::time::Duration::ZERO, "refused without waiting");
    }
}
