//! All connections of a worker: swept for those whose time is over, drained together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use shared::lock::lock;

use super::{Connection, NEVER, Phase};
use crate::route::Millis;

/// The connections of one worker.
#[derive(Debug, Default)]
pub struct Connections {
    list: Mutex<Vec<Weak<Connection>>>,
    /// When idle connections last gave way.
    gave_way: AtomicU64,
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

    /// Marks every connection whose deadline had passed by the sweep before, too, in one of so many
    /// `parts` of all. They are to be woken. `now` is the time of [`crate::clock::Clock::running`].
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
            connection.check_permit();
            if connection.phase() == Phase::Busy {
                connection.grow_older();
            }
            if connection.check_deadline(now) {
                expired.push(Arc::downgrade(&connection));
            }
        }
        expired
    }

    /// Moves every deadline, after a time in which nobody looked at the sockets of this worker.
    pub fn postpone(&self, by: Millis) {
        for connection in lock(&self.list).iter().filter_map(Weak::upgrade) {
            connection.postpone(by);
        }
    }

    /// Marks those `count` of the connections without a request as expired whose time is over first. They
    /// are to be woken. Does so once a tick: to look for them takes as long as a sweep.
    #[must_use]
    pub fn give_way(&self, now: Millis, count: usize) -> Vec<Weak<Connection>> {
        if self.gave_way.swap(now, Ordering::Relaxed) == now {
            return Vec::new();
        }
        let list = lock(&self.list);
        let is_idle = |connection: &Arc<Connection>| {
            matches!(connection.phase(), Phase::Idle | Phase::Head)
                && connection.deadline.load(Ordering::Relaxed) != NEVER
        };
        let mut idle: Vec<_> = list.iter().filter_map(Weak::upgrade).filter(is_idle).collect();
        idle.sort_unstable_by_key(|connection| connection.deadline.load(Ordering::Relaxed));
        idle.truncate(count);
        for connection in &idle {
            connection.expire();
        }
        idle.iter().map(Arc::downgrade).collect()
    }

    /// Has every connection end with the next answer that it carries.
    pub fn drain(&self) {
        for connection in lock(&self.list).iter().filter_map(Weak::upgrade) {
            connection.draining.store(true, Ordering::Relaxed);
            if connection.multiplex.get().is_some() {
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
    use crate::connection::{Load, NEVER};

    #[test]
    fn idle_connections_give_way_once_a_tick_the_oldest_first() {
        let clock = Arc::new(Clock::new());
        let address = "127.0.0.1:1".parse().unwrap();
        let connections = Connections::default();
        let make = |limit: Millis, phase: Phase| {
            let (clock, load) = (Arc::clone(&clock), Arc::new(Load::default()));
            let connection = Arc::new(Connection::blank(address, clock, load));
            connection.enter(phase, limit);
            connections.add(&connection);
            connection
        };
        let all = [
            make(300, Phase::Idle),
            make(100, Phase::Busy),
            make(200, Phase::Idle),
            make(100, Phase::Streaming),
            make(100, Phase::Head),
            make(400, Phase::Idle),
        ];
        let expired = || all.iter().map(|connection| connection.has_expired()).collect::<Vec<_>>();
        assert_eq!(connections.give_way(1, 2).len(), 2);
        assert_eq!(expired(), [false, false, true, false, true, false]);
        assert!(connections.give_way(1, 2).is_empty(), "once a tick");
        assert_eq!(connections.give_way(2, 9).len(), 2);
        assert_eq!(expired(), [true, false, true, false, true, true]);
    }

    #[test]
    fn every_part_is_looked_at_and_what_has_gone_is_forgotten() {
        let clock = Arc::new(Clock::new());
        let address = "127.0.0.1:1".parse().unwrap();
        let connections = Connections::default();
        let make = || {
            let (clock, load) = (Arc::clone(&clock), Arc::new(Load::default()));
            let connection = Arc::new(Connection::blank(address, clock, load));
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
        for expected in [0, living, 0] {
            let sweep = |part| connections.sweep(NEVER - 1, part, 7).len();
            assert_eq!((0..7).map(sweep).sum::<usize>(), expected);
        }
        assert!(kept.iter().flatten().all(|connection| connection.has_expired()));
    }

    #[test]
    fn a_deadline_passes_at_the_second_sweep_and_not_if_it_was_renewed_or_postponed_meanwhile() {
        let address = "127.0.0.1:1".parse().unwrap();
        let (clock, load) = (Arc::new(Clock::new()), Arc::new(Load::default()));
        let connections = Connections::default();
        let connection = Arc::new(Connection::blank(address, clock, load));
        connections.add(&connection);
        let expires = |now| !connections.sweep(now, 0, 1).is_empty();
        connection.allow(10);
        assert!(!expires(10));
        assert!(expires(11));
        assert!(connection.has_expired());
        connection.allow(10);
        assert!(!connection.has_expired());
        assert!(!expires(50), "the first sweep only makes its socket be read");
        connection.allow(60);
        assert!(!expires(51) && !expires(59) && !expires(60), "it had something to read");
        connections.postpone(1000);
        assert!(!expires(70) && !expires(1059));
        assert!(expires(1060));
        connections.postpone(1000);
        assert_eq!(connection.deadline.load(Ordering::Relaxed), NEVER, "no limit stays none");
    }
}
