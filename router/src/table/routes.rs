//! The memory of the route table: bounded, and exact about what still counts.
//!
//! A route depends on up to eight keys: the lists of its look-up order and its dead set. A change
//! of the host's own list or dead set invalidates the one entry. A change of a wildcard may
//! concern any number of hosts, so it is only counted: each entry remembers the counters of the
//! wildcards above it, and compares them when it is used. Counters are shared by all names with
//! the same hash; a coincidence costs look-ups, never a stale answer. Hosts have counters of their
//! own, which only look-ups under way compare: edits of many hosts cannot touch a wildcard's.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use shared::host::lookup_names;

use crate::clock::Clock;
use crate::config::CachePolicy;
use crate::route::{Millis, Route, millis};

/// Counters of changes, for wildcards and for hosts each. Many enough that coincidences are rare;
/// 64 KiB each, so that they stay in the processor's cache.
const COUNTERS: usize = 8192;
/// Names of a look-up order besides the host's own.
const MAX_WILDCARDS: usize = 6;
/// Memory for each host that the table is sized for: two backends and some room.
const BYTES_PER_HOST: u64 = 1024;
/// Share of the memory for hosts that have no list of their own: unknown ones and those under a
/// wildcard. Anyone can ask for any number of such names; they only push out each other.
const OTHERS_SHARE: u64 = 4;

/// Whether a route in memory may be used as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It is as new as Redis.
    Counts,
    /// Redis has to be asked.
    Unverified,
}

/// The counters that a host's route depends on.
#[derive(Clone, Debug)]
pub(super) struct Dependencies {
    own: u16,
    wildcards: [u16; MAX_WILDCARDS],
    count: usize,
}

/// The state of the counters, and of the connection, at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Mark {
    epoch: u64,
    own: u64,
    wildcards: u64,
}

#[derive(Debug)]
struct Entry {
    route: Arc<Route>,
    dependencies: Dependencies,
    /// What the wildcards' counters were.
    wildcards: u64,
    /// The tracked connection that it was read over.
    epoch: u64,
    is_stale: AtomicBool,
    /// A change of the host's own list or settings was announced since.
    has_changed: AtomicBool,
    /// What the counter of the list was, where that is a wildcard's.
    list: u64,
}

/// Weighs an entry in bytes.
#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<Box<str>, Arc<Entry>> for Bytes {
    fn weight(&self, _host: &Box<str>, entry: &Arc<Entry>) -> u64 {
        entry.route.bytes() as u64
    }
}

type Memory = Cache<Box<str>, Arc<Entry>, Bytes>;

/// All routes in memory.
#[derive(Debug)]
pub(super) struct Routes {
    clock: Arc<Clock>,
    /// Hosts that have a list of their own.
    exact: Memory,
    /// All others.
    others: Memory,
    /// Changes of hosts' own lists and dead sets.
    hosts: Box<[AtomicU64]>,
    /// Changes of wildcards' lists.
    wildcards: Box<[AtomicU64]>,
    /// Number of the tracked connection; odd while there is one.
    epoch: AtomicU64,
    /// See [`Routes::changes`].
    changes: AtomicU64,
    /// One more than the time of the last flush of Redis; 0 is never.
    flushed: AtomicU64,
    tracks: bool,
    ttl: Option<Millis>,
}

impl Dependencies {
    /// Those of `host`, which must be normalized.
    pub(super) fn of(host: &str) -> Self {
        let mut wildcards = [0; MAX_WILDCARDS];
        let mut count = 0;
        for (slot, name) in wildcards.iter_mut().zip(lookup_names(host).skip(1)) {
            *slot = counter_of(&name);
            count += 1;
        }
        Self { own: counter_of(host), wildcards, count }
    }

    fn wildcards(&self) -> &[u16] {
        self.wildcards.get(..self.count).unwrap_or_default()
    }
}

fn counter_of(name: &str) -> u16 {
    // Not seeded: whoever can choose keys in Redis needs no collisions to do harm.
    let hash = foldhash::fast::FixedState::default().hash_one(name);
    u16::try_from(hash % COUNTERS as u64).unwrap_or(0)
}

fn sum(counters: &[AtomicU64], slots: &[u16]) -> u64 {
    let counter = |slot: &u16| counters.get(usize::from(*slot));
    slots.iter().filter_map(counter).map(|counter| counter.load(Ordering::SeqCst)).sum()
}

/// The state of one wildcard's list: the same as long as no change of it was announced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Version {
    epoch: u64,
    counter: u64,
}

impl Routes {
    pub(super) fn new(policy: CachePolicy, clock: Arc<Clock>) -> Self {
        let bytes = (policy.size as u64).saturating_mul(BYTES_PER_HOST);
        let others = (bytes / OTHERS_SHARE).max(64 * BYTES_PER_HOST);
        let items = |bytes: u64| usize::try_from(bytes / BYTES_PER_HOST).unwrap_or(usize::MAX);
        Self {
            clock,
            exact: Cache::with_weighter(items(bytes), bytes, Bytes),
            others: Cache::with_weighter(items(others), others, Bytes),
            hosts: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            wildcards: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            epoch: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            tracks: policy.tracks,
            ttl: policy.ttl.map(millis),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.exact.len() + self.others.len()
    }

    /// The most that all of them may take, in bytes.
    pub(super) fn capacity(&self) -> u64 {
        self.exact.capacity().saturating_add(self.others.capacity())
    }

    /// Every route with a list that is not known to have changed since: see [`Routes::is_withdrawn`].
    pub(super) fn last_valid(&self) -> impl Iterator<Item = Arc<Route>> {
        let entries = self.exact.iter().chain(self.others.iter());
        let valid = entries.filter(|(_host, entry)| !self.has_changed(entry));
        valid.map(|(_host, entry)| Arc::clone(&entry.route))
    }

    /// Every route in memory.
    pub(super) fn iter(&self) -> impl Iterator<Item = Arc<Route>> {
        let entries = self.exact.iter().chain(self.others.iter());
        entries.map(|(_host, entry)| Arc::clone(&entry.route))
    }

    /// How often what Redis says of a host has changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Counts a change, after it was kept: whoever sees the count finds the route.
    pub(super) fn count_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn tracked_epoch(&self) -> Option<u64> {
        let epoch = self.epoch.load(Ordering::Acquire);
        (self.tracks && epoch % 2 == 1).then_some(epoch)
    }

    /// Whether an answer that another request asked for is good enough.
    pub(super) fn shares_answers(&self) -> bool {
        self.ttl.is_some() || self.tracked_epoch().is_some()
    }

    /// A new connection, or none: nothing that was read before is verified any more.
    pub(super) fn begin_epoch(&self, is_tracked: bool) {
        let next = |epoch: u64| if is_tracked { (epoch + 1) | 1 } else { (epoch + 2) & !1 };
        let _previous =
            self.epoch.fetch_update(Ordering::AcqRel, Ordering::Acquire, |epoch| Some(next(epoch)));
    }

    /// Everything may have changed.
    pub(super) fn invalidate_all(&self) {
        let _previous = self.epoch.fetch_add(2, Ordering::AcqRel);
    }

    /// All that was read until now was deleted at once.
    pub(super) fn note_flush(&self) {
        self.flushed.store(self.clock.now().saturating_add(1), Ordering::Release);
    }

    /// The list or the settings of `name` have changed.
    pub(super) fn invalidate(&self, name: &str) {
        self.change(name, true);
    }

    /// The dead set of `host` has changed.
    pub(super) fn invalidate_dead(&self, host: &str) {
        self.change(host, false);
    }

    fn change(&self, name: &str, has_changed: bool) {
        // First the counter, then the entries: `insert` goes the other way round, so that one of
        // the two sees what the other did.
        let counters = if name.starts_with('*') { &self.wildcards } else { &self.hosts };
        if let Some(counter) = counters.get(usize::from(counter_of(name))) {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        for memory in [&self.exact, &self.others] {
            if let Some(entry) = memory.peek(name) {
                if has_changed {
                    entry.has_changed.store(true, Ordering::SeqCst);
                }
                entry.is_stale.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Whether the list that the route of `host` comes from was announced to have changed since it was read, or
    /// there is none: it may have been deleted, and nobody has asked since.
    pub(super) fn is_withdrawn(&self, host: &str) -> bool {
        let entry = self.exact.peek(host).or_else(|| self.others.peek(host));
        entry.is_none_or(|entry| self.has_changed(&entry))
    }

    fn has_changed(&self, entry: &Entry) -> bool {
        entry.route.frontend().is_none_or(|frontend| {
            entry.has_changed.load(Ordering::Acquire)
                || entry.route.loaded_at < self.flushed.load(Ordering::Acquire)
                || self.list_counter(&frontend.name) != entry.list
        })
    }

    /// The counter of the list `name` where that is a wildcard's: changes of other lists are noted by entry.
    fn list_counter(&self, name: &str) -> u64 {
        match name.starts_with('*') {
            true => sum(&self.wildcards, &[counter_of(name)]),
            false => 0,
        }
    }

    /// The state to remember before Redis is asked.
    pub(super) fn mark(&self, dependencies: &Dependencies) -> Mark {
        Mark {
            epoch: self.epoch.load(Ordering::Acquire),
            own: sum(&self.hosts, &[dependencies.own]),
            wildcards: sum(&self.wildcards, dependencies.wildcards()),
        }
    }

    /// The wildcards above `host`, with the state of each; none where nobody announces changes.
    pub(super) fn versions<'a>(&self, host: &'a str) -> Vec<(Cow<'a, str>, Version)> {
        let Some(epoch) = self.tracked_epoch() else { return Vec::new() };
        let names = lookup_names(host).skip(1);
        let version =
            |name: &str| Version { epoch, counter: sum(&self.wildcards, &[counter_of(name)]) };
        names
            .map(|name| {
                let version = version(&name);
                (name, version)
            })
            .collect()
    }

    /// The route of `host`, and whether it counts.
    pub(super) fn get(&self, host: &str) -> Option<(Arc<Route>, Verdict)> {
        let entry = self.exact.get(host).or_else(|| self.others.get(host))?;
        let verdict = if self.counts(&entry) { Verdict::Counts } else { Verdict::Unverified };
        Some((Arc::clone(&entry.route), verdict))
    }

    /// Whether every change of the host's keys since it was read was announced, or would have been.
    pub(super) fn follows(&self, host: &str) -> bool {
        let entry = self.exact.peek(host).or_else(|| self.others.peek(host));
        entry.is_some_and(|entry| self.tracked_epoch() == Some(entry.epoch))
    }

    fn counts(&self, entry: &Entry) -> bool {
        if entry.route.is_from_snapshot {
            return false;
        }
        match self.tracked_epoch() {
            Some(epoch) => {
                entry.epoch == epoch
                    && !entry.is_stale.load(Ordering::Acquire)
                    && sum(&self.wildcards, entry.dependencies.wildcards()) == entry.wildcards
            }
            None => self
                .ttl
                .is_some_and(|ttl| self.clock.coarse().saturating_sub(entry.route.loaded_at) < ttl),
        }
    }

    /// Keeps `route`, which was asked for after `before`. `false` when a change overtook the
    /// answer: then it is kept as the last known one only.
    pub(super) fn insert(
        &self,
        route: &Arc<Route>,
        dependencies: &Dependencies,
        before: Mark,
    ) -> bool {
        let entry = Arc::new(Entry {
            route: Arc::clone(route),
            dependencies: dependencies.clone(),
            wildcards: before.wildcards,
            epoch: before.epoch,
            is_stale: AtomicBool::new(false),
            has_changed: AtomicBool::new(false),
            list: route.frontend().map_or(0, |frontend| self.list_counter(&frontend.name)),
        });
        let is_own = route.frontend().is_some_and(|frontend| *frontend.name == *route.host);
        let (memory, other) = match is_own {
            true => (&self.exact, &self.others),
            false => (&self.others, &self.exact),
        };
        let _replaced = other.remove(&*route.host);
        memory.insert(route.host.clone(), Arc::clone(&entry));
        let was_overtaken = self.tracked_epoch().is_some() && self.mark(dependencies) != before;
        if was_overtaken {
            entry.is_stale.store(true, Ordering::SeqCst);
        }
        !was_overtaken
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use shared::store::{Found, HostRecord};

    use super::{Dependencies, Routes, Verdict};
    use crate::clock::Clock;
    use crate::config::CachePolicy;
    use crate::route::Route;

    fn routes(tracks: bool, ttl: Option<Duration>) -> Routes {
        let routes = Routes::new(CachePolicy { tracks, size: 1000, ttl }, Arc::new(Clock::new()));
        routes.begin_epoch(tracks);
        routes
    }

    fn route(host: &str, name: Option<&str>) -> Arc<Route> {
        let rows = Ok(vec![b"id".to_vec(), b"http://a".to_vec()]);
        let found = name.map(|name| Found { name: name.to_owned(), rows });
        let record = HostRecord { found, ..HostRecord::default() };
        Arc::new(Route::new(host, record, None, 0, Arc::new))
    }

    fn put(routes: &Routes, host: &str, name: Option<&str>) {
        let dependencies = Dependencies::of(host);
        let before = routes.mark(&dependencies);
        assert!(routes.insert(&route(host, name), &dependencies, before));
    }

    fn counts(routes: &Routes, host: &str) -> bool {
        routes.get(host).is_some_and(|(_, verdict)| verdict == Verdict::Counts)
    }

    #[test]
    fn a_route_counts_until_one_of_its_keys_changes() {
        for changed in ["a.w.test", "*.w.test", "*.test", "*"] {
            let routes = routes(true, None);
            put(&routes, "a.w.test", Some("*.test"));
            routes.invalidate("b.w.test");
            routes.invalidate("*.a.w.test");
            assert!(counts(&routes, "a.w.test"), "{changed}");
            routes.invalidate(changed);
            assert!(!counts(&routes, "a.w.test"), "{changed}");
            assert!(routes.get("a.w.test").is_some(), "the last known route stays");
            put(&routes, "a.w.test", Some("*.test"));
            assert!(counts(&routes, "a.w.test"), "{changed}");
        }
    }

    #[test]
    fn only_changes_of_a_list_or_its_settings_withdraw_its_routes() {
        let routes = routes(true, None);
        assert!(routes.is_withdrawn("a.w.test"), "not known");
        put(&routes, "a.w.test", Some("*.w.test"));
        put(&routes, "own.w.test", Some("own.w.test"));
        put(&routes, "none.w.test", None);
        assert!(routes.is_withdrawn("none.w.test"));
        routes.invalidate("*");
        routes.invalidate_dead("a.w.test");
        routes.invalidate_dead("own.w.test");
        routes.begin_epoch(false);
        routes.begin_epoch(true);
        routes.invalidate_all();
        assert!(!routes.is_withdrawn("a.w.test") && !routes.is_withdrawn("own.w.test"));
        routes.invalidate("*.w.test");
        assert!(routes.is_withdrawn("a.w.test") && !routes.is_withdrawn("own.w.test"));
        routes.invalidate("own.w.test");
        assert!(routes.is_withdrawn("own.w.test"));
        assert_eq!(routes.last_valid().count(), 0);
        put(&routes, "a.w.test", Some("*.w.test"));
        put(&routes, "own.w.test", Some("own.w.test"));
        assert_eq!(routes.last_valid().count(), 2);
        routes.note_flush();
        assert!(routes.is_withdrawn("a.w.test") && routes.is_withdrawn("own.w.test"));
    }

    #[test]
    fn edits_of_hosts_never_touch_other_hosts() {
        let routes = routes(true, None);
        put(&routes, "a.w.test", Some("*.w.test"));
        for number in 0..100_000 {
            routes.invalidate(&format!("edited{number}.w.test"));
        }
        assert!(counts(&routes, "a.w.test"));
    }

    #[test]
    fn unknown_hosts_are_remembered_until_their_list_appears() {
        let routes = routes(true, None);
        put(&routes, "a.test", None);
        assert!(counts(&routes, "a.test"));
        routes.invalidate("a.test");
        assert!(!counts(&routes, "a.test"));
        put(&routes, "a.test", Some("a.test"));
        assert!(counts(&routes, "a.test"));
    }

    /// The race that Redis' documentation of client-side caching warns of: the answer was read
    /// before a change, and arrives after the announcement of it.
    #[test]
    fn an_answer_that_a_change_has_overtaken_does_not_count() {
        for changed in ["a.test", "*.test", "*"] {
            let routes = routes(true, None);
            let dependencies = Dependencies::of("a.test");
            let before = routes.mark(&dependencies);
            routes.invalidate(changed);
            assert!(!routes.insert(&route("a.test", Some("a.test")), &dependencies, before));
            assert!(!counts(&routes, "a.test"), "{changed}");
        }
        let routes = routes(true, None);
        let dependencies = Dependencies::of("a.test");
        let before = routes.mark(&dependencies);
        routes.invalidate_all();
        assert!(!routes.insert(&route("a.test", Some("a.test")), &dependencies, before));
    }

    #[test]
    fn losing_the_connection_or_flushing_redis_unverifies_everything() {
        let routes = routes(true, None);
        put(&routes, "a.test", Some("a.test"));
        routes.begin_epoch(false);
        assert!(!counts(&routes, "a.test"));
        routes.begin_epoch(true);
        assert!(!counts(&routes, "a.test"), "a new connection has announced nothing of before");
        put(&routes, "a.test", Some("a.test"));
        assert!(counts(&routes, "a.test"));
        routes.invalidate_all();
        assert!(!counts(&routes, "a.test"));
    }

    #[test]
    fn without_announcements_the_time_to_live_decides() {
        let fresh = routes(false, Some(Duration::from_secs(60)));
        put(&fresh, "a.test", Some("a.test"));
        assert!(counts(&fresh, "a.test") && fresh.shares_answers());
        let never = routes(false, None);
        put(&never, "a.test", Some("a.test"));
        assert!(!counts(&never, "a.test") && !never.shares_answers());
    }

    /// Whatever connection comes, and however soon: only Redis verifies.
    #[test]
    fn what_a_snapshot_says_never_counts() {
        for (tracks, ttl) in [(true, None), (false, Some(Duration::from_secs(60)))] {
            let routes = routes(tracks, ttl);
            let rows = Ok(vec![b"id".to_vec(), b"http://a".to_vec()]);
            let found = Some(Found { name: "a.test".to_owned(), rows });
            let record = HostRecord { found, ..HostRecord::default() };
            let restored = Arc::new(Route::restored("a.test", record, 0, Arc::new));
            let dependencies = Dependencies::of("a.test");
            routes.insert(&restored, &dependencies, routes.mark(&dependencies));
            assert!(!counts(&routes, "a.test") && routes.get("a.test").is_some());
            put(&routes, "a.test", Some("a.test"));
            assert!(counts(&routes, "a.test"));
        }
    }

    #[test]
    fn random_hosts_push_out_each_other_only() {
        let routes = routes(true, None);
        for number in 0..100 {
            put(&routes, &format!("real{number}.test"), Some(&format!("real{number}.test")));
        }
        for number in 0..50_000 {
            put(&routes, &format!("x{number}.test"), Some("*.test"));
            put(&routes, &format!("y{number}.example"), None);
        }
        for number in 0..100 {
            assert!(counts(&routes, &format!("real{number}.test")), "{number}");
        }
        assert!(routes.others.weight() <= 300 * 1024, "{}", routes.others.weight());
    }
}
