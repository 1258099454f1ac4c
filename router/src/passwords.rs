//! Passwords of `basic-auth`, checked off the workers: a bcrypt hash takes a processor for tens of
//! milliseconds, and is meant to. How many are computed at once and how many wait is bounded; what
//! was right once is remembered and costs nothing more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use quick_cache::sync::Cache;
use shared::lock::lock;
use shared::time_limit;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::route::options::User;

/// Right passwords that are remembered, in all.
const REMEMBERED: usize = 10_000;
/// Requests that may wait for a processor. More get 503: they would only wait longer.
const MAX_WAITING: usize = 64;
/// How many of them one list of users may take, so that who guesses passwords of one host keeps others
/// from no other. By the list and not by the host: under a wildcard hosts can be made up.
const MAX_WAITING_PER_LIST: usize = MAX_WAITING / 4;
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
    /// How many wait, by list of users.
    waiting: Mutex<Queue>,
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
            waiting: Mutex::default(),
        })
    }

    /// Whether `password` is that of `name` among `users`.
    pub async fn check(&self, users: &[User], name: &[u8], password: &[u8]) -> Verdict {
        let user = users.iter().find(|user| user.name.as_bytes() == name);
        // Who does not exist takes as long as who does, so that nobody learns which names there are.
        let Some(dearest) = users.iter().max_by_key(|user| cost(&user.hash)) else {
            return Verdict::Wrong;
        };
        let User { hash, .. } = user.unwrap_or(dearest);
        let key = self.key_of(name, hash, password);
        if user.is_some() && self.verified.get(&key).is_some() {
            return Verdict::Right;
        }
        // Hashes hold a random salt: no two lists have the same one first.
        let list = users.first().map_or("", |user| &user.hash);
        let Some(waiting) = Waiting::new(&self.waiting, list) else {
            return Verdict::Busy;
        };
        let turn = Arc::clone(&self.processors).acquire_owned();
        let Ok(Ok(turn)) = time_limit::timeout(PATIENCE, turn).await else {
            return Verdict::Busy;
        };
        drop(waiting);
        let (hash, password, dearest) = (hash.clone(), password.to_vec(), cost(&dearest.hash));
        let checked = tokio::task::spawn_blocking(move || {
            // Held to the end, also when the client is gone by then.
            let _turn = turn;
            let result = bcrypt::verify(&password, &hash);
            if !matches!(result, Ok(true)) {
                for cost in padding(cost(&hash), dearest) {
                    let _of_no_use = bcrypt::hash_with_salt(&password, cost, [0; 16]);
                }
            }
            result
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

/// The cost that a bcrypt hash names: each step doubles the work.
fn cost(hash: &str) -> u32 {
    hash.split('$').nth(2).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// The costs of the hashes that take, together with one of `cost`, as long as one of the `dearest`: a wrong
/// password is to take as long for every name.
fn padding(cost: u32, dearest: u32) -> std::ops::Range<u32> {
    // 2^c + 2^c + 2^(c+1) + … + 2^(d-1) = 2^d.
    cost..dearest
}

/// Those who wait for a processor.
#[derive(Debug, Default)]
struct Queue {
    all: usize,
    by_list: HashMap<Box<str>, usize>,
}

impl Queue {
    /// Takes a place, if there is one.
    fn enter(&mut self, list: &str) -> bool {
        let own = self.by_list.get(list).copied().unwrap_or(0);
        if self.all >= MAX_WAITING || own >= MAX_WAITING_PER_LIST {
            return false;
        }
        self.all += 1;
        self.by_list.insert(list.into(), own + 1);
        true
    }

    fn leave(&mut self, list: &str) {
        self.all = self.all.saturating_sub(1);
        match self.by_list.get_mut(list) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(self.by_list.remove(list)),
        }
    }
}

/// A place in the queue, until it is dropped.
struct Waiting<'a> {
    queue: &'a Mutex<Queue>,
    list: &'a str,
}

impl<'a> Waiting<'a> {
    fn new(queue: &'a Mutex<Queue>, list: &'a str) -> Option<Self> {
        // A place that was not taken must not be given back.
        let has_entered = lock(queue).enter(list);
        has_entered.then(|| Self { queue, list })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(self.queue).leave(self.list);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        MAX_WAITING, MAX_WAITING_PER_LIST, Passwords, Queue, User, Verdict, cost, lock, padding,
    };

    fn user(name: &str, password: &str) -> User {
        user_of(name, password, 4)
    }

    fn user_of(name: &str, password: &str, cost: u32) -> User {
        let hash = bcrypt::hash(password, cost).unwrap();
        User { name: name.into(), hash: hash.into() }
    }

    /// Work doubles with each step of cost; no name is to be told from another by it.
    #[test]
    fn a_wrong_password_is_the_same_work_for_every_name() {
        assert_eq!(cost(&user_of("me", "one", 5).hash), 5);
        for dearest in 4..=14 {
            for cost in 4..=dearest {
                let work: u32 =
                    [cost].into_iter().chain(padding(cost, dearest)).map(|c| 1 << c).sum();
                assert_eq!(work, 1 << dearest, "{cost} {dearest}");
            }
        }
    }

    /// Costs that differ change no verdict.
    #[tokio::test]
    async fn users_of_different_costs_are_told_apart() {
        let passwords = Passwords::new(1).unwrap();
        let users = [user_of("me", "one", 4), user_of("you", "two", 6), user_of("she", "six", 5)];
        for (name, password, verdict) in [
            ("me", "one", Verdict::Right),
            ("me", "two", Verdict::Wrong),
            ("me", "", Verdict::Wrong),
            ("you", "two", Verdict::Right),
            ("she", "two", Verdict::Wrong),
            ("she", "six", Verdict::Right),
            ("nobody", "two", Verdict::Wrong),
        ] {
            let seen = passwords.check(&users, name.as_bytes(), password.as_bytes()).await;
            assert_eq!(seen, verdict, "{name} {password}");
        }
    }

    /// Whoever guesses at one list leaves places for the others, and all of them are bounded.
    #[test]
    fn one_list_takes_no_more_than_its_share_of_the_queue() {
        let mut queue = Queue::default();
        let enter = |queue: &mut Queue, list: &str| {
            (0..2 * MAX_WAITING).filter(|_| queue.enter(list)).count()
        };
        for list in ["a", "b", "c", "d"] {
            assert_eq!(enter(&mut queue, list), MAX_WAITING_PER_LIST, "{list}");
        }
        assert_eq!(enter(&mut queue, "e"), MAX_WAITING - 4 * MAX_WAITING_PER_LIST);
        queue.leave("a");
        assert_eq!(enter(&mut queue, "e"), 1);
        for list in ["b", "c", "d"] {
            (0..MAX_WAITING_PER_LIST).for_each(|_| queue.leave(list));
        }
        (1..MAX_WAITING_PER_LIST).for_each(|_| queue.leave("a"));
        queue.leave("e");
        assert_eq!((queue.all, queue.by_list.len()), (0, 0));
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
        for _ in 0..MAX_WAITING_PER_LIST {
            assert!(lock(&passwords.waiting).enter(&users[0].hash));
        }
        let before = tokio::time::Instant::now();
        assert_eq!(passwords.check(&users, b"me", b"two").await, Verdict::Busy);
        assert_eq!(before.elapsed(), std::time::Duration::ZERO, "refused without waiting");
    }
}
