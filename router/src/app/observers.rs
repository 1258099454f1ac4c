//! What the admin listener shows, and which caches a change in Redis concerns.

use std::sync::Arc;
use std::time::Duration;

use shared::store::{Change, Outage, Tracking, Watcher};
use tracing::info;

use super::panics;
use crate::clock::Clock;
use crate::grace::Grace;
use crate::metrics::{StandIn, State};
use crate::proxy::tunnel::Tunnels;
use crate::snapshot;
use crate::table::{RouteCache, Table};
use crate::tls::{CertificateCache, Certificates, Source, Summary};

/// What the admin listener reads off.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) table: Arc<Table>,
    pub(super) tunnels: Vec<Arc<Tunnels>>,
    pub(super) snapshot: Option<Arc<snapshot::Status>>,
    pub(super) certificates: Option<Arc<Certificates>>,
}

impl State for Observed {
    fn redis_is_up(&self) -> (bool, bool) {
        self.table.redis_is_up()
    }

    fn outage(&self) -> Outage {
        self.table.outage()
    }

    fn panics(&self) -> u64 {
        panics()
    }

    fn routes(&self) -> usize {
        self.table.len()
    }

    fn tunnels(&self) -> usize {
        self.tunnels.iter().map(|tunnels| tunnels.tracker.len()).sum()
    }

    fn stand_in(&self) -> Option<StandIn> {
        let (hosts, age) = self.snapshot.as_ref()?.stand_in()?;
        Some(StandIn { hosts, age })
    }

    fn held(&self) -> Option<(usize, Duration)> {
        self.table.held()
    }

    fn snapshot_failures(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |status| status.failures())
    }

    fn certificates(&self) -> Vec<(&'static str, u64, u64, i64)> {
        let Some(certificates) = &self.certificates else { return Vec::new() };
        let summaries = certificates.summaries().into_iter();
        let row =
            |(source, s): (Source, Summary)| (source.as_str(), s.count, s.expiring, s.first_expiry);
        summaries.map(row).collect()
    }

    fn certificate_failures(&self) -> u64 {
        self.certificates.as_ref().map_or(0, |certificates| certificates.failures())
    }
}

/// The caches of what Redis holds, and who decides on a server that comes back empty.
#[derive(Debug)]
pub(super) struct Caches {
    pub(super) grace: Arc<Grace>,
    pub(super) clock: Arc<Clock>,
    pub(super) routes: Arc<RouteCache>,
    pub(super) certificates: Arc<CertificateCache>,
}

impl Caches {
    fn begin_epoch(&self, is_tracked: bool) {
        self.routes.begin_epoch(is_tracked);
        self.certificates.begin_epoch(is_tracked);
    }
}

impl Watcher for Caches {
    fn connected(&self, tracking: &Tracking, server: Option<&str>) {
        // First: nothing may be read from an empty server as if it were the truth.
        let _is_suspected = self.grace.connected(server, self.clock.now());
        self.begin_epoch(*tracking == Tracking::Active);
        if let Tracking::Unsupported(reason) = tracking {
            info!(
                reason,
                "Redis does not announce changes (CLIENT TRACKING, Redis 6 and later): answers \
                 count for lruCache.ttl if it is set, else Redis is read at every request"
            );
        }
    }

    fn disconnected(&self) {
        self.begin_epoch(false);
    }

    fn changed(&self, change: Change<'_>) {
        match change {
            Change::Everything => {
                // What is held is of the server before: what is flushed has none of it.
                if self.grace.since().is_none() {
                    let now = self.clock.now();
                    self.routes.withdraw_all(now);
                    self.certificates.withdraw_all(now);
                }
                self.routes.invalidate_all();
                self.certificates.invalidate_all();
            }
            Change::Key(kind, name) => {
                self.routes.invalidate(kind, name);
                self.certificates.invalidate(kind, name);
            }
        }
    }
}
