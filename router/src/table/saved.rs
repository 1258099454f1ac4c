//! The table as a snapshot sees it: what is known, whether that has changed, and what was known
//! before this process.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shared::store::{HostRecord, StoreError};

use super::{Table, reports};
use crate::coherence;
use crate::route::Route;

impl Table {
    /// The routes of all hosts in memory that have a list. Not for workers: takes each shard's lock
    /// for a moment, once a host.
    pub fn known(&self) -> Vec<Arc<Route>> {
        self.routes.values().filter(|route| route.frontend().is_some()).collect()
    }

    /// Goes up when Redis has given an answer that a snapshot has to hold.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The most that the routes in memory may take, in bytes; their snapshot takes less.
    pub fn capacity(&self) -> u64 {
        self.routes.capacity()
    }

    /// Takes `records` of a snapshot into memory. They never count while Redis answers; while it is
    /// away they are the last known routes. To be called before the first look-up.
    pub fn restore<'a>(&self, records: impl Iterator<Item = (&'a str, HostRecord)>) {
        let now = self.clock.now();
        for (host, record) in records {
            let share = |frontend| self.sharing.list(frontend, None).0;
            let mut route = Route::restored(host, record, now, share);
            if let Some(new) = self.sharing.options(&mut route, None) {
                reports::options(None, new);
            }
            let ticket = self.routes.begin(host);
            let _is_never_fresh = self.routes.insert(host, Arc::new(route), &ticket);
        }
    }

    /// Asks Redis for `host` if all that is known of it is a snapshot's. Says whether it asked.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when Redis gives no answer.
    pub async fn reread(self: &Arc<Self>, host: &str) -> Result<bool, StoreError> {
        if !self.last_known(host).is_some_and(|route| route.is_from_snapshot) {
            return Ok(false);
        }
        coherence::join(self, host).await.map(|_route| true)
    }
}
