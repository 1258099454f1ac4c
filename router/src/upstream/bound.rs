//! Backend connections that belong to one client connection.
//!
//! NTLM and Negotiate log the TCP connection in, not the request (RFC 4559 6): whoever sends the next request
//! on it is answered as the same user. A connection on which a client logs in, or is asked to, is kept for
//! that client connection, ends with it, and never reaches the pool.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use shared::backend::Origin;
use shared::lock::lock;

use super::Exchange;
use super::pool::Pool;

/// The idle backend connection that belongs to a client connection, if there is one. One is enough: a client
/// that logs in at a second backend logs in again when it returns to the first.
#[derive(Debug, Default)]
pub struct Bound {
    /// Whether `held` is worth its lock: most clients never log in. Both are changed by the worker's own
    /// thread only.
    is_held: AtomicBool,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    exchange: Box<Exchange>,
    pool: Arc<Pool>,
}

/// How many connections of a pool clients hold while they are idle. In use they have a permit like all others.
#[derive(Debug)]
pub(super) struct Slots {
    free: AtomicUsize,
}

impl Slots {
    pub(super) fn new(most: usize) -> Self {
        Self { free: AtomicUsize::new(most) }
    }

    fn take(&self) -> bool {
        let one_less = |free: usize| free.checked_sub(1);
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    fn put_back(&self) {
        self.free.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bound {
    /// What `find` makes of the backend that the connection leads to.
    pub fn at<T>(&self, find: impl FnOnce(&Origin) -> Option<T>) -> Option<T> {
        if !self.is_held.load(Ordering::Relaxed) {
            return None;
        }
        find(&lock(&self.held).as_ref()?.pool.origin)
    }

    /// The connection, if it is one of `pool`. A pool stands for a backend and the rule that its certificate
    /// is verified by.
    pub(super) fn take(&self, pool: &Arc<Pool>) -> Option<Box<Exchange>> {
        if !self.is_held.load(Ordering::Relaxed) {
            return None;
        }
        let mut held = lock(&self.held);
        let Held { exchange, pool } = held.take_if(|held| Arc::ptr_eq(&held.pool, pool))?;
        self.is_held.store(false, Ordering::Relaxed);
        pool.bound.put_back();
        Some(exchange)
    }

    /// Keeps a connection until the client's next request, in place of one that is kept already. When
    /// clients hold as many as `maxSockets` allows, it is closed, and the client has to log in again.
    pub(super) fn keep(&self, exchange: Box<Exchange>, pool: &Arc<Pool>) {
        let held = pool.bound.take().then(|| Held { exchange, pool: Arc::clone(pool) });
        self.is_held.store(held.is_some(), Ordering::Relaxed);
        let replaced = std::mem::replace(&mut *lock(&self.held), held);
        if let Some(replaced) = replaced {
            replaced.pool.bound.put_back();
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(held) = lock(&self.held).take() {
            held.pool.bound.put_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

    #[test]
    fn slots_are_bounded_and_come_back() {
        let slots = Slots::new(2);
        assert_eq!([slots.take(), slots.take(), slots.take()], [true, true, false]);
        slots.put_back();
        assert_eq!([slots.take(), slots.take()], [true, false]);
    }
}
