//! What follows when Redis comes back empty: see [`crate::grace`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Table;
use crate::grace::Phase;
use crate::route::{Millis, Route};

/// Known lists that a server is judged by.
const SAMPLE: usize = 1000;
/// How often Redis is checked for the lists.
const CHECK: Duration = Duration::from_secs(2);
/// Lists of which each check asks whether they exist.
const MAX_CHECKED: usize = 10_000;
/// Pause after a question that Redis did not answer.
const RETRY: Duration = Duration::from_millis(500);

impl Table {
    /// Hosts that go on from their last known routes because Redis came back empty, and for how long at most.
    pub fn held(&self) -> Option<(usize, Duration)> {
        let Phase::Holding(since, until) = self.grace.phase() else { return None };
        let hosts = self.before(since).count();
        let left = until.saturating_sub(self.clock.now());
        Some((hosts, Duration::from_millis(left)))
    }

    /// Follows which server answers, and ends the time of grace, until the process ends.
    pub async fn follow_servers(self: Arc<Self>) {
        loop {
            match self.grace.phase() {
                Phase::Off => self.grace.suspected().await,
                Phase::Suspected(since) => self.examine(since).await,
                Phase::Holding(since, until) => self.hold(since, until).await,
            }
        }
    }

    /// Routes of hosts with a list that were read before `since`, and whose list was not announced to have changed
    /// after that: what was deleted while its server was running is not held, even if it was not requested since.
    fn before(&self, since: Millis) -> impl Iterator<Item = Arc<Route>> {
        self.routes.values_before(since)
    }

    /// Names of at most `most` lists that were read before `since`.
    fn lists_before(&self, since: Millis, most: usize) -> Vec<Box<str>> {
        let mut names = BTreeSet::new();
        for route in self.before(since) {
            names.extend(route.frontend().map(|frontend| frontend.name.clone()));
            if names.len() >= most {
                break;
            }
        }
        names.into_iter().collect()
    }

    /// Looks whether another server than before has the lists.
    async fn examine(&self, since: Millis) {
        let names = self.lists_before(since, SAMPLE);
        let Ok(missing) = self.store.count_missing(&names).await else {
            return tokio::time::sleep(RETRY).await;
        };
        match self.grace.decide(since, names.len(), missing, self.clock.now()) {
            Some(true) => {
                let seconds = self.held().map_or(0, |(_, left)| left.as_secs());
                warn!(
                    lists = names.len(),
                    missing,
                    "Redis has come back empty, as another server or after a restart without its data: known \
                     hosts go on from their last known routes until their keys exist again, for {seconds} s at \
                     most (server.emptyRedisGrace); write the routes again"
                );
            }
            // What was held meanwhile is read again.
            Some(false) => self.routes.invalidate_all(),
            None => {}
        }
    }

    /// Ends the time of grace when the lists are back, or when it is over.
    async fn hold(&self, since: Millis, until: Millis) {
        let left = Duration::from_millis(until.saturating_sub(self.clock.now()));
        // Another server is noticed in time.
        let _is_another = tokio::time::timeout(CHECK.min(left), self.grace.suspected()).await;
        let phase = Phase::Holding(since, until);
        if self.grace.phase() != phase {
            return;
        }
        let names = self.lists_before(since, MAX_CHECKED);
        let missing = self.store.count_missing(&names).await;
        let is_over = self.clock.now() >= until;
        if !is_over && missing.as_ref().map_or(true, |missing| *missing > 0)
            || !self.grace.end(phase)
        {
            return;
        }
        self.routes.invalidate_all();
        match missing {
            Ok(0) => info!("the routes are back in Redis; it alone counts again"),
            Ok(missing) => warn!(
                missing,
                "server.emptyRedisGrace is over: lists that are still missing in Redis count no more, their hosts \
                 get 400"
            ),
            Err(error) => warn!(%error, "server.emptyRedisGrace is over; Redis alone counts again"),
        }
    }
}
