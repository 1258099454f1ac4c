//! The route table: what Redis said about each requested host, in memory and never staler than
//! Redis itself.
//!
//! The seam between routing and the store. Knows no HTTP. Where Redis announces changes
//! ([`Tracking::Active`]) an answer counts until one of the keys that it came from changes. Where
//! it does not, an answer counts for the `lruCache` time to live or for one request. An answer is
//! never thrown away before there is a newer one: while Redis is away, the last known route goes
//! on serving.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, Weak};

use shared::lock::lock;
use shared::store::{
    Change, Found, HostRecord, Outage, Repair, Store, StoreError, Tracking, Watcher,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::config::CachePolicy;
use crate::grace::Grace;
use crate::route::options::Options;
use crate::route::trust::Trust;
use crate::route::{Frontend, Route, Target};

mod held;
mod misspelt;
mod routes;
mod saved;

use misspelt::Misspelt;
use routes::{Dependencies, Routes, Verdict, Version};

/// An answer overtaken by a change is asked for again at most so often; then it serves the
/// requests that wait for it, which is right, and is not kept.
const MAX_OVERTAKEN: usize = 3;

/// Rows of one list that are named in the log because they cannot be used.
const MAX_REPORTED: usize = 5;

/// Rows of a list that are parsed by the task that asked for them; more take milliseconds, in which a worker
/// serves nobody else.
const MAX_PARSED_HERE: usize = 500;

/// Lists of wildcards to share before those that nobody uses any more are forgotten.
const MAX_WILDCARDS: usize = 10_000;

/// Routes by requested host, shared by all workers.
#[derive(Debug)]
pub struct Table {
    store: Store,
    clock: Arc<Clock>,
    routes: Arc<Routes>,
    grace: Arc<Grace>,
    suspected: Arc<Notify>,
    /// The control thread's runtime: look-ups go on there when the request that began them ends.
    control: Handle,
    flights: Mutex<HashMap<Box<str>, Flight>>,
    repairs: Mutex<HashSet<Box<str>>>,
    /// Lists of wildcards in memory, which any number of hosts may have in common.
    wildcards: Mutex<HashMap<Box<str>, Wildcard>>,
    /// The same of their settings.
    options: Mutex<HashMap<Box<str>, Weak<Options>>>,
    /// Hosts whose keys were looked for under other spellings.
    misspelt: Misspelt,
}

/// A list of a wildcard.
#[derive(Debug)]
struct Wildcard {
    frontend: Weak<Frontend>,
    /// Of the list when it was asked for; `None` where nobody announces changes.
    version: Option<Version>,
}

/// A look-up under way; all requests for the host wait for the same one.
type Flight = watch::Receiver<Option<Result<Arc<Route>, StoreError>>>;

/// Makes the memory of a table, which has to exist before the store that reports changes to it.
/// `grace` decides on servers that come back empty.
pub fn memory(policy: CachePolicy, grace: Arc<Grace>, clock: &Arc<Clock>) -> Arc<Memory> {
    let routes = Arc::new(Routes::new(policy, Arc::clone(clock)));
    Arc::new(Memory { routes, grace, clock: Arc::clone(clock), suspected: Arc::default() })
}

/// The routes of a table and what invalidates them.
#[derive(Debug)]
pub struct Memory {
    routes: Arc<Routes>,
    grace: Arc<Grace>,
    clock: Arc<Clock>,
    /// Told when another server than before has to be looked at.
    suspected: Arc<Notify>,
}

impl Watcher for Memory {
    fn connected(&self, tracking: &Tracking, server: Option<&str>) {
        // First: nothing may be read from an empty server as if it were the truth.
        if self.grace.connected(server, self.clock.now()) {
            self.suspected.notify_one();
        }
        self.routes.begin_epoch(*tracking == Tracking::Active);
        if let Tracking::Unsupported(reason) = tracking {
            info!(
                reason,
                "Redis does not announce changes (CLIENT TRACKING, Redis 6 and later): answers \
                 count for lruCache.ttl if it is set, else Redis is read at every request"
            );
        }
    }

    fn disconnected(&self) {
        self.routes.begin_epoch(false);
    }

    fn changed(&self, change: Change<'_>) {
        match change {
            Change::Everything => {
                // While routes are held, those of the server before: what is flushed has none of them.
                if self.grace.since().is_none() {
                    self.routes.note_flush();
                }
                self.routes.invalidate_all();
            }
            Change::Dead(host) => {
                if let Some((route, _)) = self.routes.get(host) {
                    route.note_dead_change();
                }
                self.routes.invalidate_dead(host);
            }
            Change::Frontend(name) | Change::Options(name) => self.routes.invalidate(name),
            Change::Certificate(_) => {}
        }
    }
}

impl Table {
    /// A table over `store` that remembers in `memory`. `control` runs look-ups.
    pub fn new(store: Store, memory: &Memory, clock: Arc<Clock>, control: Handle) -> Self {
        Self {
            store,
            clock,
            routes: Arc::clone(&memory.routes),
            grace: Arc::clone(&memory.grace),
            suspected: Arc::clone(&memory.suspected),
            control,
            flights: Mutex::default(),
            repairs: Mutex::default(),
            wildcards: Mutex::default(),
            misspelt: Misspelt::default(),
            options: Mutex::default(),
        }
    }

    /// The route of `host`, if what is in memory counts.
    pub fn fresh(&self, host: &str) -> Option<Arc<Route>> {
        let (route, verdict) = self.routes.get(host)?;
        match verdict {
            Verdict::Counts => Some(route),
            // Asking is of no use; what was true last is the best there is.
            Verdict::Unverified if !self.store.is_up() => Some(route),
            Verdict::Unverified => None,
        }
    }

    /// Asks Redis for the route of `host` and keeps the answer.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when Redis gives no answer and the host was never looked up before.
    pub async fn load(self: &Arc<Self>, host: &str) -> Result<Arc<Route>, StoreError> {
        let answer = if self.routes.shares_answers() {
            self.join(host).await
        } else {
            // Without announcements only an answer asked for by this very request is fresh.
            self.read(host).await
        };
        answer.or_else(|error| self.last_known(host).ok_or(error))
    }

    /// The last known route of `host`, however old.
    pub fn last_known(&self, host: &str) -> Option<Arc<Route>> {
        self.routes.get(host).map(|(route, _)| route)
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

    /// Waits for the look-up that is under way for `host`, or begins one.
    async fn join(self: &Arc<Self>, host: &str) -> Result<Arc<Route>, StoreError> {
        let mut flight = {
            let mut flights = lock(&self.flights);
            match flights.get(host) {
                Some(flight) => flight.clone(),
                None => {
                    let (sender, receiver) = watch::channel(None);
                    flights.insert(host.into(), receiver.clone());
                    let (table, host) = (Arc::clone(self), Box::<str>::from(host));
                    drop(self.control.spawn(async move {
                        let answer = table.read(&host).await;
                        // Before the answer is given: whoever comes later asks anew.
                        lock(&table.flights).remove(&host);
                        sender.send_replace(Some(answer));
                    }));
                    receiver
                }
            }
        };
        match flight.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or(Err(StoreError::Unavailable)),
            Err(_look_up_is_gone) => Err(StoreError::Unavailable),
        }
    }

    /// Reads the route of `host` and keeps it, unless a change overtook the answer.
    async fn read(self: &Arc<Self>, host: &str) -> Result<Arc<Route>, StoreError> {
        let dependencies = Dependencies::of(host);
        let mut overtaken = 0;
        loop {
            let before = self.routes.mark(&dependencies);
            let versions = self.routes.versions(host);
            let known = self.known_wildcards(host);
            let is_known = |name: &str| known.iter().any(|frontend| *frontend.name == *name);
            let mut record = self.store.read_host(host, is_known).await?;
            let previous = self.last_known(host);
            let is_held = |route: &&Arc<Route>| {
                self.grace.holds(route, &record) && !self.routes.is_withdrawn(host)
            };
            if let Some(held) = previous.as_ref().filter(is_held) {
                // Until its key exists again, which is announced, or the time of grace is over.
                let is_kept = self.routes.insert(held, &dependencies, before);
                if is_kept || overtaken == MAX_OVERTAKEN {
                    return Ok(Arc::clone(held));
                }
                overtaken += 1;
                continue;
            }
            if let Some(problem) = &record.dead_problem {
                report(previous.as_deref(), problem);
            }
            let (frontend, is_new) = self.frontend(&mut record, known, versions).await;
            let now = self.clock.now();
            if let Some(previous) = &previous {
                previous.compare_dead(&record, now, self.routes.follows(host));
            }
            let mut route = Route::with_frontend(host, record, frontend, previous.as_deref(), now);
            self.share_options(&mut route, previous.as_deref());
            let route = Arc::new(route);
            if is_new {
                // What an earlier process has reported is not known of here.
                let reported = previous.as_deref().filter(|previous| !previous.is_from_snapshot);
                report_broken_rows(reported, &route);
            }
            if previous.as_deref().is_none_or(|previous| previous.is_from_snapshot) {
                self.look_for_misspelt(&route);
            }
            if let Some(repair) = route.repair() {
                self.repair(repair);
            }
            let is_kept = self.routes.insert(&route, &dependencies, before);
            if !route.is_saved_like(previous.as_deref(), now) {
                self.routes.count_change();
            }
            if is_kept || overtaken == MAX_OVERTAKEN {
                return Ok(route);
            }
            overtaken += 1;
            debug!(host, "answer of Redis was overtaken by a change, asking again");
        }
    }

    /// The lists of the wildcards above `host` that are in memory as they are in Redis now.
    fn known_wildcards(&self, host: &str) -> Vec<Arc<Frontend>> {
        let versions = self.routes.versions(host);
        if versions.is_empty() {
            return Vec::new();
        }
        let wildcards = lock(&self.wildcards);
        let known = |(name, version): (Cow<'_, str>, Version)| {
            let wildcard = wildcards.get(&*name).filter(|known| known.version == Some(version))?;
            wildcard.frontend.upgrade()
        };
        versions.into_iter().filter_map(known).collect()
    }

    /// The list of `record`, and whether nobody has seen it before. The `versions` are those of before it was
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
        let (frontend, is_known) = self.share(frontend, version.map(|(_, version)| version));
        (Some(frontend), !is_known)
    }

    /// Takes an equal list of a wildcard from memory. Says whether there was one.
    fn share(&self, frontend: Frontend, version: Option<Version>) -> (Arc<Frontend>, bool) {
        if !frontend.name.starts_with('*') {
            return (Arc::new(frontend), false);
        }
        let mut wildcards = lock(&self.wildcards);
        if let Some(known) = wildcards.get_mut(&frontend.name)
            && let Some(same) = known.frontend.upgrade().filter(|same| **same == frontend)
        {
            known.version = version;
            return (same, true);
        }
        if wildcards.len() >= MAX_WILDCARDS {
            wildcards.retain(|_, wildcard| wildcard.frontend.strong_count() > 0);
        }
        let frontend = Arc::new(frontend);
        let wildcard = Wildcard { frontend: Arc::downgrade(&frontend), version };
        wildcards.insert(frontend.name.clone(), wildcard);
        (frontend, false)
    }

    /// Takes equal settings from memory; says what is wrong with new ones, once for each state.
    fn share_options(&self, route: &mut Route, previous: Option<&Route>) {
        let Some(new) = &route.options else { return };
        // What an earlier process has reported is not known of here.
        let previous = previous.filter(|previous| !previous.is_from_snapshot);
        let known = previous.and_then(|previous| previous.options.clone());
        let name = new.raw().map_or("", |raw| &raw.name);
        let mut shared = name.starts_with('*').then(|| lock(&self.options));
        let known = known.filter(|known| known == new).or_else(|| {
            let shared = shared.as_ref()?;
            shared.get(name).and_then(Weak::upgrade).filter(|known| known == new)
        });
        if let Some(known) = known {
            route.options = Some(known);
            return;
        }
        if let Some(shared) = &mut shared {
            if shared.len() >= MAX_WILDCARDS {
                shared.retain(|_, options| options.strong_count() > 0);
            }
            shared.insert(name.into(), Arc::downgrade(new));
        }
        for problem in new.problems.iter().take(MAX_REPORTED) {
            warn!(
                options = name, field = %problem.field,
                "option not used as it stands: {}", problem.problem
            );
        }
        let is_open =
            |options: &Options| options.trust.as_ref().is_some_and(Trust::verifies_nothing);
        let was_open =
            previous.and_then(|previous| previous.options.as_deref()).is_some_and(is_open);
        if is_open(new) && !was_open {
            warn!(
                options = name,
                "backend-verify off: https:// backends of the host are not verified, so whoever gets \
                 between can read and change everything; give their authority in backend-ca instead"
            );
        }
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

/// Says once that a dead set is unreadable; the host is served as if it were empty.
fn report(previous: Option<&Route>, problem: &shared::store::KeyProblem) {
    if previous.is_none_or(|previous| !previous.has_dead_problem) {
        warn!(key = %problem.key, "dead set ignored: {}", problem.detail);
    }
}

/// Names the rows that cannot be used, once for each state of the list.
fn report_broken_rows(previous: Option<&Route>, route: &Route) {
    match &route.target {
        Target::Unknown => {}
        Target::Broken(problem) => {
            if !matches!(previous.map(|p| &p.target), Some(Target::Broken(old)) if old == problem) {
                warn!(host = %route.host, key = %problem.key, "key not used, its host gets 502: {}", problem.detail);
            }
        }
        Target::Frontend(frontend) => {
            let old = previous.and_then(Route::frontend);
            if old.is_none_or(|old| old.identifier != frontend.identifier)
                && frontend.has_url_as_identifier()
            {
                warn!(
                    frontend = %frontend.name, identifier = frontend.shown_identifier().0,
                    "the first item of a list is its identifier and gets no requests, but this one is a URL; \
                     if it is a backend, put an identifier before it: LPUSH frontend:{} NAME",
                    frontend.name
                );
            }
            if old.is_some_and(|old| old.backends == frontend.backends) {
                return;
            }
            let broken = frontend.backends.iter().filter(|backend| backend.is_err()).count();
            if broken > MAX_REPORTED {
                warn!(frontend = %frontend.name, broken, "many backends skipped, the first are:");
            }
            let rows = frontend.backends.iter().enumerate();
            let rows = rows.filter_map(|(position, row)| Some((position, row.as_ref().err()?)));
            for (position, error) in rows.take(MAX_REPORTED) {
                warn!(
                    frontend = %frontend.name, backend.position = position,
                    "backend skipped: {error}; write it as http://host:port"
                );
            }
            if frontend.backends.is_empty() {
                warn!(frontend = %frontend.name, "frontend has an identifier but no backends");
            }
        }
    }
}
