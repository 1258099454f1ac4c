//! Those who look on: the admin listener reads off what others do, memories hear of changes in Redis.

use std::sync::Arc;
use std::time::Duration;

use shared::store::{Change, Outage, Tracking, Watcher};

use super::panics;
use crate::metrics::{StandIn, State};
use crate::proxy::tunnel::Tunnels;
use crate::snapshot;
use crate::table::{self, Table};
use crate::tls::{Certificates, Memory, Source, Summary};

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

/// Those who hear of changes in Redis.
#[derive(Debug)]
pub(super) struct Watchers {
    pub(super) routes: Arc<table::Memory>,
    pub(super) certificates: Arc<Memory>,
}

impl Watcher for Watchers {
    fn connected(&self, tracking: &Tracking, server: Option<&str>) {
        self.routes.connected(tracking, server);
        self.certificates.begin_epoch(*tracking == Tracking::Active);
    }

    fn disconnected(&self) {
        self.routes.disconnected();
        self.certificates.begin_epoch(false);
    }

    fn changed(&self, change: Change<'_>) {
        self.routes.changed(change);
        match change {
            Change::Certificate(name) => self.certificates.invalidate(name),
            Change::Everything => self.certificates.invalidate_all(),
            Change::Dead(_) | Change::Frontend(_) | Change::Options(_) => {}
        }
    }
}
