//! The route table: what Redis holds for each requested host, in memory and never staler than
//! Redis itself.
//!
//! The seam between routing and the store. Knows no HTTP. What is kept how long is decided in
//! [`crate::coherence`]; how a route is read, and what else follows from the answer, here.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use shared::host::lookup_rank;
use shared::lock::lock;
use shared::store::{Found, HostRecord, Outage, Repair, Store, StoreError};
use tokio::runtime::Handle;
use tracing::{debug, info};

use crate::clock::Clock;
use crate::coherence::{self, Reads, Source, Version};
use crate::grace::Grace;
use crate::route::{Frontend, Route};

mod held;
mod misspelt;
mod reports;
mod routes;
mod saved;
mod sharing;

use misspelt::Misspelt;
pub use routes::{RouteCache, route_cache};
use sharing::Sharing;

/// Rows of a list that are parsed by the task that asked for them; more take milliseconds, in which a worker
/// serves no other client.
const MAX_PARSED_HERE: usize = 500;

/// Routes by requested host, shared by all workers.
#[derive(Debug)]
pub struct Table {
    store: Store,
    clock: Arc<Clock>,
    routes: Arc<RouteCache>,
    reads: Reads<Arc<Route>>,
    grace: Arc<Grace>,
    /// The control thread's runtime, for what no request waits for.
    control: Handle,
    /// See [`Table::changes`].
    changes: AtomicU64,
    repairs: Mutex<HashSet<Box<str>>>,
    sharing: Sharing,
    /// Hosts whose keys were searched for under other spellings.
    misspelt: Misspelt,
}

impl Table {
    /// A table over `store` that keeps `routes`. `grace` decides on servers that come back empty. `control` runs
    /// reads.
    pub fn new(
        store: Store,
        routes: Arc<RouteCache>,
        grace: Arc<Grace>,
        clock: Arc<Clock>,
        control: Handle,
    ) -> Self {
        Self {
            store,
            clock,
            routes,
            reads: Reads::new(control.clone()),
            grace,
            control,
            changes: AtomicU64::new(0),
            repairs: Mutex::default(),
            sharing: Sharing::default(),
            misspelt: Misspelt::default(),
        }
    }

    /// The route of `host`, if it can be used without asking Redis: it is fresh, or Redis is not connected.
    pub fn fresh(&self, host: &str) -> Option<Arc<Route>> {
        self.routes.usable(host, self.clock.coarse(), || self.store.is_up())
    }

    /// Asks Redis for the route of `host` and keeps the answer.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when Redis gives no answer and the host is not in memory.
    pub async fn load(self: &Arc<Self>, host: &str) -> Result<Arc<Route>, StoreError> {
        coherence::load(self, host).await
    }

    /// The last known route of `host`, however old.
    pub fn last_known(&self, host: &str) -> Option<Arc<Route>> {
        self.routes.last_known(host)
    }

    /// Hosts in memory.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether Redis is connected, on the side that is read and on the side that is written.
    pub fn redis_is_up(&self) -> (bool, bool) {
        (self.store.is_up(), self.store.can_write())
    }

    /// What keeps Redis from being used, while it is not connected.
    pub fn outage(&self) -> Outage {
        self.store.outage()
    }

    /// The list of `record`, and whether it is new to this process. The `versions` are those of before it was
    /// asked for.
    async fn frontend(
        &self,
        record: &mut HostRecord,
        known: Vec<Arc<Frontend>>,
        versions: Vec<(Cow<'_, str>, Version)>,
    ) -> (Option<Arc<Frontend>>, bool) {
        let Some(Found { name, rows: Ok(rows) }) = &mut record.found else { return (None, true) };
        if record.is_known {
            return (known.into_iter().find(|frontend| *frontend.name == **name), false);
        }
        let rows = std::mem::take(rows);
        let frontend = match rows.len() > MAX_PARSED_HERE {
            false => Frontend::new(name, &rows),
            true => {
                let name = name.clone();
                let parsed = tokio::task::spawn_blocking(move || Frontend::new(&name, &rows));
                match parsed.await {
                    Ok(frontend) => frontend,
                    // The runtime is ending.
                    Err(_) => return (None, true),
                }
            }
        };
        let version = versions.into_iter().find(|(other, _)| **other == **name);
        let (frontend, is_known) = self.sharing.list(frontend, version.map(|(_, version)| version));
        (Some(frontend), !is_known)
    }

    /// Puts a dead set right whose positions mean an older list, in the background.
    fn repair(self: &Arc<Self>, repair: Repair) {
        if !lock(&self.repairs).insert(repair.host.as_str().into()) {
            return;
        }
        let table = Arc::clone(self);
        drop(self.control.spawn(async move {
            match table.store.repair_dead(&repair).await {
                Ok(true) => info!(
                    host = repair.host, from = ?repair.from, to = ?repair.to,
                    "dead set follows the edited list"
                ),
                Ok(false) => debug!(host = repair.host, "dead set was put right by someone else"),
                Err(error) => debug!(host = repair.host, %error, "dead set not put right"),
            }
            lock(&table.repairs).remove(repair.host.as_str());
        }));
    }
}

impl Source for Table {
    type Value = Arc<Route>;

    fn cache(&self) -> &RouteCache {
        &self.routes
    }

    fn reads(&self) -> &Reads<Arc<Route>> {
        &self.reads
    }

    async fn fetch(self: &Arc<Self>, host: &str) -> Result<Arc<Route>, StoreError> {
        // Before Redis is asked, like the generation of the answer.
        let versions = self.routes.versions(host);
        let known = self.sharing.known_lists(&versions);
        let is_known = |name: &str| known.iter().any(|frontend| *frontend.name == *name);
        let mut record = self.store.read_host(host, is_known).await?;
        if let Some(since) = self.grace.since() {
            let found = record.found.as_ref();
            let rank = found.and_then(|found| lookup_rank(host, &found.name));
            // Until its key exists again, which is announced, or the time of grace is over.
            if let Some(held) = self.routes.held(host, since, rank) {
                return Ok(held);
            }
        }
        let previous = self.last_known(host);
        let previous = previous.as_deref();
        if let Some(problem) = &record.dead_problem {
            reports::dead_set(previous, problem);
        }
        let (frontend, is_new) = self.frontend(&mut record, known, versions).await;
        let now = self.clock.now();
        if let Some(previous) = previous {
            previous.compare_dead(&record, now, self.routes.is_followed(host));
        }
        let mut route = Route::with_frontend(host, record, frontend, previous, now);
        // What an earlier process has reported is not known here.
        let of_this_process = previous.filter(|previous| !previous.is_from_snapshot);
        if let Some(new) = self.sharing.options(&mut route, of_this_process) {
            reports::options(of_this_process, new);
        }
        let route = Arc::new(route);
        if is_new {
            reports::rows(of_this_process, &route);
        }
        if of_this_process.is_none() {
            self.look_for_misspelt(&route);
        }
        if let Some(repair) = route.repair() {
            self.repair(repair);
        }
        Ok(route)
    }

    fn note_stored(&self, previous: Option<&Arc<Route>>, route: &Arc<Route>) {
        // After it was stored: a reader that sees the count finds the route.
        if !route.is_saved_like(previous.map(|previous| &**previous), self.clock.now()) {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }
}
