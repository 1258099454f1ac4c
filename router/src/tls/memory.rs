//! What Redis said about the certificates of requested hosts, and what of it still counts.
//!
//! The same rule as for routes: where Redis announces changes an answer counts until one of its keys
//! changes; where it does not, for `lruCache.ttl` or for one handshake. An answer is kept beyond
//! that for one purpose: to go on while Redis is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::identity::Identity;
use crate::clock::Clock;
use crate::config::CachePolicy;
use crate::grace::Grace;
use crate::route::{Millis, millis};

/// Memory for certificates of hosts that have one of their own: some 20,000 of common size.
const EXACT_BYTES: u64 = 128 * 1024 * 1024;
/// Memory for the names of other hosts, which anyone can invent; they only push out each other.
/// Certificates of wildcards, which they share, stay as long as one of them is there.
const OTHERS_BYTES: u64 = 8 * 1024 * 1024;
/// What an entry takes beside its name.
const ENTRY: usize = 160;

/// The certificate that Redis has for a host.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Position of its name in the look-up order of the host.
    pub(super) rank: usize,
    /// The certificate.
    pub(super) identity: Arc<Identity>,
}

#[derive(Debug)]
struct Entry {
    stored: Option<Stored>,
    before: Mark,
    loaded_at: Millis,
    is_stale: AtomicBool,
}

/// The state at one moment of what entries depend on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Mark {
    epoch: u64,
    wildcards: u64,
    /// Changes of any name, to find an answer that a change has overtaken.
    all: u64,
}

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<Box<str>, Arc<Entry>> for Bytes {
    fn weight(&self, host: &Box<str>, entry: &Arc<Entry>) -> u64 {
        let own = entry.stored.as_ref().filter(|stored| stored.rank == 0);
        (host.len() + ENTRY + own.map_or(0, |stored| stored.identity.bytes())) as u64
    }
}

type Names = Cache<Box<str>, Arc<Entry>, Bytes>;

/// Answers of Redis by requested host.
#[derive(Debug)]
pub struct Memory {
    clock: Arc<Clock>,
    grace: Arc<Grace>,
    /// Hosts with a certificate of their own.
    exact: Names,
    /// All others.
    others: Names,
    /// Number of the tracked connection; odd while there is one.
    epoch: AtomicU64,
    wildcards: AtomicU64,
    all: AtomicU64,
    /// One more than the time of the last flush of Redis; 0 is never.
    flushed: AtomicU64,
    tracks: bool,
    ttl: Option<Millis>,
}

impl Memory {
    /// An empty memory by the policy of routes.
    pub fn new(policy: CachePolicy, grace: Arc<Grace>, clock: &Arc<Clock>) -> Self {
        let cache = |bytes: u64, each: u64| {
            let items = usize::try_from(bytes / each).unwrap_or(usize::MAX);
            Cache::with_weighter(items, bytes, Bytes)
        };
        Self {
            clock: Arc::clone(clock),
            grace,
            exact: cache(EXACT_BYTES, 6 * 1024),
            others: cache(OTHERS_BYTES, 256),
            epoch: AtomicU64::new(0),
            wildcards: AtomicU64::new(0),
            all: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            tracks: policy.tracks,
            ttl: policy.ttl.map(millis),
        }
    }

    /// There is a connection that announces changes, or none: nothing that was read before is
    /// verified any more.
    pub fn begin_epoch(&self, is_tracked: bool) {
        let next = |epoch: u64| if is_tracked { (epoch + 1) | 1 } else { (epoch + 2) & !1 };
        let _previous =
            self.epoch.fetch_update(Ordering::AcqRel, Ordering::Acquire, |epoch| Some(next(epoch)));
    }

    /// Redis was flushed.
    pub fn invalidate_all(&self) {
        // While certificates are held, those of the server before: what is flushed has none of them.
        if self.grace.since().is_none() {
            self.flushed.store(self.clock.now().saturating_add(1), Ordering::Release);
        }
        self.epoch.fetch_add(2, Ordering::AcqRel);
    }

    /// The certificate of `name` has changed. Wildcards are few and rarely change: one of them
    /// unverifies every answer.
    pub fn invalidate(&self, name: &str) {
        // First the counters, then the entry: `insert` goes the other way round.
        self.all.fetch_add(1, Ordering::SeqCst);
        if name.starts_with('*') {
            self.wildcards.fetch_add(1, Ordering::SeqCst);
            return;
        }
        for names in [&self.exact, &self.others] {
            if let Some(entry) = names.peek(name) {
                entry.is_stale.store(true, Ordering::SeqCst);
            }
        }
    }

    /// The state to remember before Redis is asked.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            epoch: self.epoch.load(Ordering::SeqCst),
            wildcards: self.wildcards.load(Ordering::SeqCst),
            all: self.all.load(Ordering::SeqCst),
        }
    }

    /// The last answer for `host` if it goes on because Redis came back empty: a certificate from before, where
    /// `new` is none or a less near one. One that was deleted or replaced there is not held, also if nobody has asked
    /// since.
    pub(super) fn held(&self, host: &str, new: Option<&Stored>) -> Option<Stored> {
        let since = self.grace.since()?;
        let entry = self.exact.get(host).or_else(|| self.others.get(host))?;
        let is_valid = entry.loaded_at < since
            && entry.loaded_at >= self.flushed.load(Ordering::Acquire)
            && !entry.is_stale.load(Ordering::Acquire);
        let stored = entry.stored.as_ref().filter(|_| is_valid)?;
        new.is_none_or(|new| new.rank > stored.rank).then(|| stored.clone())
    }

    /// The last answer for `host`, and whether it counts.
    pub(super) fn get(&self, host: &str) -> Option<(Option<Stored>, bool)> {
        let entry = self.exact.get(host).or_else(|| self.others.get(host))?;
        Some((entry.stored.clone(), self.counts(&entry)))
    }

    fn counts(&self, entry: &Entry) -> bool {
        let epoch = self.epoch.load(Ordering::Acquire);
        if self.tracks && epoch % 2 == 1 {
            return entry.before.epoch == epoch
                && entry.before.wildcards == self.wildcards.load(Ordering::Acquire)
                && !entry.is_stale.load(Ordering::Acquire);
        }
        self.ttl.is_some_and(|ttl| self.clock.now().saturating_sub(entry.loaded_at) < ttl)
    }

    /// Keeps the answer for `host` that was asked for after `before`.
    pub(super) fn insert(&self, host: &str, stored: Option<Stored>, before: Mark) {
        let (names, other) = match stored.as_ref().is_some_and(|stored| stored.rank == 0) {
            true => (&self.exact, &self.others),
            false => (&self.others, &self.exact),
        };
        let loaded_at = self.clock.now();
        let entry = Entry { stored, before, loaded_at, is_stale: AtomicBool::new(false) };
        let entry = Arc::new(entry);
        let _replaced = other.remove(host);
        names.insert(host.into(), Arc::clone(&entry));
        if self.mark() != before {
            entry.is_stale.store(true, Ordering::SeqCst);
        }
    }

    /// Every certificate in memory, those of wildcards once for each host.
    pub(super) fn identities(&self) -> impl Iterator<Item = Arc<Identity>> {
        let entries = self.exact.iter().chain(self.others.iter());
        entries.filter_map(|(_host, entry)| Some(Arc::clone(&entry.stored.as_ref()?.identity)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Grace, Memory};
    use crate::clock::Clock;
    use crate::config::CachePolicy;

    fn memory(tracks: bool, ttl: Option<Duration>) -> Memory {
        let grace = Arc::new(Grace::new(Duration::ZERO));
        let policy = CachePolicy { tracks, size: 1, ttl };
        let memory = Memory::new(policy, grace, &Arc::new(Clock::new()));
        memory.begin_epoch(tracks);
        memory
    }

    fn counts(memory: &Memory, host: &str) -> bool {
        memory.get(host).is_some_and(|(_, counts)| counts)
    }

    #[test]
    fn an_answer_counts_until_one_of_its_keys_changes() {
        for (changed, still_counts) in
            [("a.test", false), ("*.test", false), ("*", false), ("b.test", true)]
        {
            let memory = memory(true, None);
            memory.insert("a.test", None, memory.mark());
            assert!(counts(&memory, "a.test"));
            memory.invalidate(changed);
            assert_eq!(counts(&memory, "a.test"), still_counts, "{changed}");
            assert!(memory.get("a.test").is_some(), "the last answer stays");
        }
    }

    #[test]
    fn an_answer_that_a_change_has_overtaken_does_not_count() {
        let memory = memory(true, None);
        let before = memory.mark();
        memory.invalidate("a.test");
        memory.insert("a.test", None, before);
        assert!(!counts(&memory, "a.test"));
    }

    #[test]
    fn a_lost_connection_unverifies_everything() {
        let memory = memory(true, None);
        memory.insert("a.test", None, memory.mark());
        memory.begin_epoch(false);
        assert!(!counts(&memory, "a.test"));
        memory.begin_epoch(true);
        assert!(!counts(&memory, "a.test"));
        memory.insert("a.test", None, memory.mark());
        assert!(counts(&memory, "a.test"));
        memory.invalidate_all();
        assert!(!counts(&memory, "a.test"));
    }

    #[test]
    fn without_announcements_the_time_to_live_decides() {
        for (ttl, expected) in [(None, false), (Some(Duration::from_secs(60)), true)] {
            let memory = memory(false, ttl);
            memory.insert("a.test", None, memory.mark());
            assert_eq!(counts(&memory, "a.test"), expected);
        }
    }

    #[test]
    fn invented_names_take_a_bounded_part_of_the_memory() {
        let memory = memory(true, None);
        for number in 0..200_000 {
            memory.insert(&format!("invented{number}.test"), None, memory.mark());
        }
        assert!(memory.others.weight() <= super::OTHERS_BYTES);
    }
}
