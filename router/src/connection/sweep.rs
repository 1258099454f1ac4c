//! All connections of a worker: swept for those whose time is over, drained together.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};

use shared::lock::lock;

use super::{Connection, NEVER, Phase};
use crate::route::Millis;

/// The connections of one worker.
#[derive(Debug, Default)]
pub struct Connections {
    list: Mutex<Vec<Weak<Connection>>>,
}

impl Connections {
    /// Adds a connection to the sweep; it leaves by being dropped.
    pub fn add(&self, connection: &Arc<Connection>) {
        lock(&self.list).push(Arc::downgrade(connection));
    }

    /// How many there are, as far as is known.
    pub fn count(&self) -> usize {
        lock(&self.list).len()
    }

    /// Marks every connection whose deadline has passed, in one of so many `parts` of all. They are to
    /// be woken.
    #[must_use]
    pub fn sweep(&self, now: Millis, part: usize, parts: usize) -> Vec<Weak<Connection>> {
        let mut expired = Vec::new();
        let mut list = lock(&self.list);
        let (mut place, mut end) = (list.len() * part / parts, list.len() * (part + 1) / parts);
        while place < end {
            let Some(connection) = list.get(place).and_then(Weak::upgrade) else {
                list.swap_remove(place);
                end = end.min(list.len());
                continue;
            };
            place += 1;
            connection.check_turn();
            if connection.phase() == Phase::Busy {
                connection.grow_older();
            }
            if connection.deadline.load(Ordering::Relaxed) <= now {
                connection.deadline.store(NEVER, Ordering::Relaxed);
                connection.expired.store(true, Ordering::Relaxed);
                expired.push(Arc::downgrade(&connection));
            }
        }
        expired
    }

    /// Has every connection end with the next answer that it carries.
    pub fn drain(&self) {
        for connection in lock(&self.list).iter().filter_map(Weak::upgrade) {
            connection.draining.store(true, Ordering::Relaxed);
            if connection.is_multiplexed.load(Ordering::Relaxed) {
                // It says so at once (GOAWAY); clients know what that means for what is on its way.
                connection.wake();
            }
        }
    }

    /// Has every connection end as soon as it carries no request.
    pub fn close_idle(&self) {
        for connection in lock(&self.list).iter().filter_map(Weak::upgrade) {
            connection.closing.store(true, Ordering::Relaxed);
            connection.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::connection::Load;

    #[test]
    fn every_part_is_looked_at_and_what_has_gone_is_forgotten() {
        let clock = Arc::new(Clock::new());
        let address = "127.0.0.1:1".parse().unwrap();
        let connections = Connections::default();
        let make = || {
            let (clock, load) = (Arc::clone(&clock), Arc::new(Load::default()));
            let connection = Arc::new(Connection::blank(address, address, clock, load));
            connection.allow(10);
            connections.add(&connection);
            connection
        };
        let kept: Vec<_> = (0..100).map(|place| (place % 3 > 0).then(make)).collect();
        drop((0..7).map(|_| make()).collect::<Vec<_>>());
        let living = kept.iter().flatten().count();
        for parts in [1, 7, 20] {
            // Gone ones are replaced from behind, so that a second round may be needed to see all.
            let rounds = (0..2 * parts).map(|turn| connections.sweep(0, turn % parts, parts).len());
            assert_eq!(rounds.sum::<usize>(), 0, "nobody's time is over");
        }
        assert_eq!(connections.count(), living);
        let expired: usize = (0..7).map(|part| connections.sweep(NEVER - 1, part, 7).len()).sum();
        assert_eq!(expired, living);
        assert!(kept.iter().flatten().all(|connection| connection.has_expired()));
    }
}
