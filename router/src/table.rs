//! The route table: what Redis said about each requested host, kept as the cache policy allows.
//!
//! The seam between routing and the store. Knows no HTTP. An answer of Redis is never thrown away
//! before there is a newer one: while Redis is away, the last known route goes on serving.

use std::sync::Arc;

use quick_cache::sync::Cache;
use shared::store::{Store, StoreError};
use tracing::warn;

use crate::clock::Clock;
use crate::config::CachePolicy;
use crate::route::{Millis, Route, Target, millis};

/// Hosts kept for the case that Redis goes away, when no `lruCache` says how many.
const LAST_KNOWN_HOSTS: usize = 100_000;

/// Routes by requested host, shared by all workers.
#[derive(Debug)]
pub struct Table {
    store: Store,
    clock: Arc<Clock>,
    routes: Cache<Box<str>, Arc<Route>>,
    /// How long an answer counts; `None` asks Redis at every request.
    ttl: Option<Millis>,
}

impl Table {
    /// An empty table over `store`.
    pub fn new(store: Store, policy: CachePolicy, clock: Arc<Clock>) -> Self {
        let (size, ttl) = match policy {
            CachePolicy::Off => (LAST_KNOWN_HOSTS, None),
            CachePolicy::Ttl { size, ttl } => (size, Some(millis(ttl))),
        };
        Self { store, clock, routes: Cache::new(size), ttl }
    }

    /// The route of `host`, if an answer that still counts is in memory.
    pub fn fresh(&self, host: &str) -> Option<Arc<Route>> {
        let ttl = self.ttl?;
        let route = self.routes.get(host)?;
        (self.clock.coarse().saturating_sub(route.loaded_at) < ttl).then_some(route)
    }

    /// Asks Redis for the route of `host` and keeps the answer.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when Redis gives no answer and the host was never looked up before.
    pub async fn load(&self, host: &str) -> Result<Arc<Route>, StoreError> {
        let record = match self.store.read_host(host).await {
            Ok(record) => record,
            Err(error) => return self.routes.get(host).ok_or(error),
        };
        let previous = self.routes.get(host);
        if let Some(problem) = &record.dead_problem {
            report(previous.as_deref(), problem);
        }
        let route = Arc::new(Route::new(host, record, previous.as_deref(), self.clock.now()));
        report_broken_rows(previous.as_deref(), &route);
        match (&route.target, &previous) {
            // An unknown host that was never known is not worth memory unless answers are cached.
            (Target::Unknown, None) if self.ttl.is_none() => {}
            _ => self.routes.insert(host.into(), Arc::clone(&route)),
        }
        Ok(route)
    }

    /// The last known route of `host`, however old.
    pub fn last_known(&self, host: &str) -> Option<Arc<Route>> {
        self.routes.get(host)
    }
}

/// Says once per load that a dead set is unreadable; the host is served as if it were empty.
fn report(previous: Option<&Route>, problem: &shared::store::KeyProblem) {
    if previous.is_none() {
        warn!(key = %problem.key, "dead set ignored: {}", problem.detail);
    }
}

/// Names the rows that cannot be used, once for each state of the list.
fn report_broken_rows(previous: Option<&Route>, route: &Route) {
    match &route.target {
        Target::Unknown => {}
        Target::Broken(problem) => {
            if !matches!(previous.map(|p| &p.target), Some(Target::Broken(old)) if old == problem) {
                warn!(host = %route.host, key = %problem.key, "host answered with 502: {}", problem.detail);
            }
        }
        Target::Frontend(frontend) => {
            let old = previous.and_then(Route::frontend);
            if old.is_some_and(|old| old.backends == frontend.backends) {
                return;
            }
            for (position, backend) in frontend.backends.iter().enumerate() {
                if let Err(error) = backend {
                    warn!(
                        frontend = %frontend.name, backend.position = position,
                        "backend skipped: {error}; write it as http://host:port"
                    );
                }
            }
            if frontend.backends.is_empty() {
                warn!(frontend = %frontend.name, "frontend has an identifier but no backends");
            }
        }
    }
}
