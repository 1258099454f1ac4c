//! Backend connections that belong to one client connection.
//!
//! NTLM and Negotiate log the TCP connection in, not the request (RFC 4559 6): whoever sends the next request
//! on it is answered as the same user. A connection on which a client logs in, or is asked to, is kept for
//! that client connection, ends with it, and never reaches the pool.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use shared::backend::Origin;
use shared::lock::lock;

use super::backend::{BackendConnection, Pool};

/// The idle backend connection that belongs to a client connection, if there is one. One is enough: a client
/// that logs in at a second backend logs in again when it returns to the first.
#[derive(Debug, Default)]
pub struct BoundConnection {
    /// Whether `held` is worth its lock: most clients never log in. Both are changed by the worker's own
    /// thread only.
    is_held: AtomicBool,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    connection: Box<BackendConnection>,
    pool: Arc<Pool>,
    /// Its slot in `pool`.
    slot: Slot,
}

/// The connections of a pool that clients hold while they are idle: at most `maxSockets`. In use they have a
/// permit like all others.
#[derive(Debug)]
pub(super) struct Slots {
    most: usize,
    holders: Mutex<Holders>,
}

/// In the order in which slots are given up: first those of clients that were only asked to log in, which have
/// nothing to lose, and of these and of the others the one that has been idle for longest.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Slot {
    has_logged_in: bool,
    number: u64,
}

#[derive(Debug, Default)]
struct Holders {
    next: u64,
    by_slot: BTreeMap<Slot, Weak<BoundConnection>>,
}

impl Slots {
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), holders: Mutex::default() }
    }

    /// A slot for `holder`, and who has to give up its own for that, if anybody. None when all belong to clients
    /// that have logged in and `holder` has not.
    fn take(
        &self,
        holder: &Arc<BoundConnection>,
        has_logged_in: bool,
    ) -> Option<(Slot, Option<Arc<BoundConnection>>)> {
        let mut holders = lock(&self.holders);
        let mut first = None;
        if holders.by_slot.len() >= self.most {
            let entry = holders.by_slot.first_entry();
            first =
                Some(entry.filter(|entry| has_logged_in || !entry.key().has_logged_in)?.remove());
        }
        let slot = Slot { has_logged_in, number: holders.next };
        holders.next += 1;
        holders.by_slot.insert(slot, Arc::downgrade(holder));
        Some((slot, first.and_then(|first| first.upgrade())))
    }

    fn put_back(&self, slot: Slot) {
        lock(&self.holders).by_slot.remove(&slot);
    }
}

impl BoundConnection {
    /// What `find` makes of the backend that the connection leads to.
    pub fn at<T>(&self, find: impl FnOnce(&Origin) -> Option<T>) -> Option<T> {
        if !self.is_held.load(Ordering::Relaxed) {
            return None;
        }
        find(&lock(&self.held).as_ref()?.pool.origin)
    }

    /// The connection, if it is one of `pool`. A pool stands for a backend and the rule that its certificate
    /// is verified by.
    pub(super) fn take(&self, pool: &Arc<Pool>) -> Option<Box<BackendConnection>> {
        if !self.is_held.load(Ordering::Relaxed) {
            return None;
        }
        let mut held = lock(&self.held);
        let Held { connection, pool, slot } = held.take_if(|held| Arc::ptr_eq(&held.pool, pool))?;
        self.is_held.store(false, Ordering::Relaxed);
        pool.bound.put_back(slot);
        Some(connection)
    }

    /// Keeps a connection until the client's next request, in place of one that is kept already. When
    /// clients hold as many as `maxSockets` allows, another one is closed, and its client has to log in again:
    /// idle clients must not keep others from logging in.
    pub(super) fn keep(self: &Arc<Self>, connection: Box<BackendConnection>, pool: &Arc<Pool>) {
        let slot = pool.bound.take(self, connection.has_logged_in);
        if let Some((_, Some(other))) = &slot {
            // It has its slot no more.
            let closed = lock(&other.held).take();
            other.is_held.store(false, Ordering::Relaxed);
            drop(closed);
        }
        let held = slot.map(|(slot, _)| Held { connection, pool: Arc::clone(pool), slot });
        self.is_held.store(held.is_some(), Ordering::Relaxed);
        let replaced = std::mem::replace(&mut *lock(&self.held), held);
        if let Some(replaced) = replaced {
            replaced.pool.bound.put_back(replaced.slot);
        }
    }
}

impl Drop for BoundConnection {
    fn drop(&mut self) {
        if let Some(held) = lock(&self.held).take() {
            held.pool.bound.put_back(held.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{BoundConnection, Slots};

    #[test]
    fn slots_are_bounded_and_those_who_lose_least_make_room() {
        let slots = Slots::new(2);
        let clients = [(); 5].map(|()| Arc::new(BoundConnection::default()));
        let [one, two, three, four, five] = &clients;
        let take = |client, has_logged_in| {
            let (slot, other) = slots.take(client, has_logged_in)?;
            Some((
                slot,
                clients
                    .iter()
                    .position(|client| other.as_ref().is_some_and(|o| Arc::ptr_eq(o, client))),
            ))
        };
        let (first, nobody) = take(one, false).unwrap();
        assert_eq!(nobody, None);
        assert_eq!(take(two, true).unwrap().1, None);
        slots.put_back(first);
        assert_eq!(take(three, false).unwrap().1, None, "a slot has come back");
        assert_eq!(take(four, false).unwrap().1, Some(2), "not the older one that has logged in");
        assert_eq!(take(four, true).unwrap().1, Some(3));
        assert_eq!(take(five, true).unwrap().1, Some(1), "the oldest");
        assert!(take(three, false).is_none());
    }
}
