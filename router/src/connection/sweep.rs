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

    /// Marks every connection whose deadline has passed. They are to be woken.
    #[must_use]
    pub fn sweep(&self, now: Millis) -> Vec<Weak<Connection>> {
        let mut expired = Vec::new();
        lock(&self.list).retain(|connection| {
            let Some(connection) = connection.upgrade() else {
                return false;
            };
            connection.check_turn();
            if connection.phase() == Phase::Busy {
                connection.grow_older();
            }
            if connection.deadline.load(Ordering::Relaxed) <= now {
                connection.deadline.store(NEVER, Ordering::Relaxed);
                connection.expired.store(true, Ordering::Relaxed);
                expired.push(Arc::downgrade(&connection));
            }
            true
        });
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
