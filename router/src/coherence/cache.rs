//! Answers by requested host: bounded, and exact about what is fresh.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use shared::host::lookup_names;
use shared::keys::Kind;

use super::generations::{Dependencies, Effect, Generation, Generations, Stamp, Version};
use super::{CachePolicy, Cached};
use crate::clock::{Millis, millis};

/// Change counters for hosts and for wildcards each: enough that collisions are rare, and 64 KiB, which stay in
/// the processor's cache.
const COUNTERS: u16 = 8192;

/// Bounds of a cache.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Memory for hosts that have a record of their own, in bytes.
    pub own: u64,
    /// Memory for all others, in bytes: unknown hosts, and those under a wildcard.
    pub others: u64,
    /// What one of them commonly takes, in bytes: [`Limits::own`] and [`Limits::others`].
    pub entry: (u64, u64),
}

/// What memory has of a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lookup<V> {
    /// What Redis holds.
    Hit(V),
    /// What Redis held last. It may hold something else by now.
    Unverified(V),
    /// Nothing.
    Miss,
}

/// The generation that an answer is going to be asked for in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    dependencies: Dependencies,
    pub(super) before: Generation,
}

#[derive(Debug)]
pub(super) struct Entry<V> {
    value: V,
    pub(super) stamp: Stamp,
    loaded_at: Millis,
    weight: u64,
    rank: Option<usize>,
}

#[derive(Clone, Debug)]
struct Bytes;

impl<V> Weighter<Box<str>, Arc<Entry<V>>> for Bytes {
    fn weight(&self, _host: &Box<str>, entry: &Arc<Entry<V>>) -> u64 {
        entry.weight
    }
}

type Segment<V> = quick_cache::sync::Cache<Box<str>, Arc<Entry<V>>, Bytes>;

/// Answers of Redis by requested host. Shared by all threads.
#[derive(Debug)]
pub struct Cache<V> {
    pub(super) generations: Generations,
    /// Hosts that have a record of their own.
    own: Segment<V>,
    /// All others.
    others: Segment<V>,
    /// One more than the time of the last [`Cache::withdraw_all`]; 0 is never.
    withdrawn: AtomicU64,
    ttl: Option<Millis>,
}

impl<V: Cached> Cache<V> {
    /// An empty cache. No changes are announced to it before [`Cache::begin_epoch`].
    pub fn new(policy: CachePolicy, limits: Limits) -> Self {
        Self::with_counters(policy, limits, COUNTERS)
    }

    pub(super) fn with_counters(policy: CachePolicy, limits: Limits, counters: u16) -> Self {
        let segment = |bytes: u64, entry: u64| {
            let items = usize::try_from(bytes / entry.max(1)).unwrap_or(usize::MAX);
            Segment::with_weighter(items, bytes, Bytes)
        };
        Self {
            generations: Generations::new(counters),
            own: segment(limits.own, limits.entry.0),
            others: segment(limits.others, limits.entry.1),
            withdrawn: AtomicU64::new(0),
            ttl: policy.ttl.map(millis),
        }
    }

    /// What memory has of `host` at `now`.
    pub fn get(&self, host: &str, now: Millis) -> Lookup<V> {
        let Some(entry) = self.own.get(host).or_else(|| self.others.get(host)) else {
            return Lookup::Miss;
        };
        let is_fresh = self.generations.is_fresh(&entry.stamp).unwrap_or_else(|| {
            self.ttl.is_some_and(|ttl| now.saturating_sub(entry.loaded_at) < ttl)
        });
        let value = entry.value.clone();
        if is_fresh { Lookup::Hit(value) } else { Lookup::Unverified(value) }
    }

    /// The value of `host` that is to be used at `now` without asking Redis: a fresh one, or the last known one
    /// while Redis is not connected.
    pub fn usable(
        &self,
        host: &str,
        now: Millis,
        is_connected: impl FnOnce() -> bool,
    ) -> Option<V> {
        match self.get(host, now) {
            Lookup::Hit(value) => Some(value),
            Lookup::Unverified(value) if !is_connected() => Some(value),
            Lookup::Unverified(_) | Lookup::Miss => None,
        }
    }

    /// The last answer for `host`, however old.
    pub fn last_known(&self, host: &str) -> Option<V> {
        self.peek(host).map(|entry| entry.value.clone())
    }

    /// Begins a read of Redis for `host`. To be called before Redis is asked.
    pub(crate) fn begin(&self, host: &str) -> Ticket {
        let dependencies = self.generations.dependencies(host);
        Ticket { dependencies, before: self.generations.current(&dependencies) }
    }

    /// Stores the answer for `host` to a question that was asked after `ticket`. Returns `false` when a change
    /// has overtaken it: then it is the last known one, but not fresh. One that is not [`Cached::is_verified`]
    /// never is.
    pub(crate) fn insert(&self, host: &str, value: V, ticket: &Ticket) -> bool {
        let is_verified = value.is_verified();
        let entry = self.publish(host, value, ticket);
        debug_assert_ne!(
            self.generations.is_fresh(&entry.stamp),
            Some(true),
            "an answer is not fresh before its generations were compared"
        );
        if !is_verified {
            return true;
        }
        let is_kept = self.generations.settle(&entry.stamp, &ticket.before);
        debug_assert!(
            is_kept || self.generations.is_fresh(&entry.stamp) == Some(false),
            "an overtaken answer is never fresh"
        );
        is_kept
    }

    /// Puts an answer where announcements find it. It is not fresh before it is settled.
    pub(super) fn publish(&self, host: &str, value: V, ticket: &Ticket) -> Arc<Entry<V>> {
        let rank = value.rank(host);
        debug_assert!(
            rank.is_none_or(|rank| rank < lookup_names(host).count()),
            "a record is one of the look-up order"
        );
        let entry = Arc::new(Entry {
            stamp: Stamp::new(ticket.dependencies, &ticket.before, rank),
            loaded_at: value.loaded_at(),
            weight: value.weight(host),
            rank,
            value,
        });
        let (segment, other) = match rank {
            Some(0) => (&self.own, &self.others),
            Some(_) | None => (&self.others, &self.own),
        };
        let _replaced = other.remove(host);
        segment.insert(host.into(), Arc::clone(&entry));
        entry
    }

    /// A connection to Redis begins, or has ended. `is_tracked`: it announces changes. Nothing in memory is fresh
    /// any more.
    pub fn begin_epoch(&self, is_tracked: bool) {
        self.generations.begin_epoch(is_tracked);
    }

    /// Everything may have changed.
    pub fn invalidate_all(&self) {
        self.generations.invalidate_all();
    }

    /// All that was read until `now` was deleted at once: see [`Cache::held`].
    pub fn withdraw_all(&self, now: Millis) {
        self.withdrawn.store(now.saturating_add(1), Ordering::Release);
    }

    /// The key of this kind and name has changed.
    pub fn invalidate(&self, kind: Kind, name: &str) {
        if let Some(effect) = V::effect(kind) {
            // In this order: see `Generations::settle`.
            self.generations.count(name, effect);
            self.mark(name, effect);
        }
    }

    pub(super) fn mark(&self, name: &str, effect: Effect) {
        for segment in [&self.own, &self.others] {
            if let Some(entry) = segment.peek(name) {
                if effect == Effect::State {
                    entry.value.note_state_change();
                }
                entry.stamp.mark(effect);
            }
        }
    }

    /// The value of `host` that goes on although Redis, which came back empty, holds the record at index `new` of
    /// the look-up order or none: one that was read before `since`, whose own record is nearer, and which was not
    /// announced to have been changed or deleted while its server was running.
    pub(crate) fn held(&self, host: &str, since: Millis, new: Option<usize>) -> Option<V> {
        let entry = self.peek(host)?;
        let rank = entry.rank?;
        let is_held = entry.loaded_at < since
            && !self.is_withdrawn(&entry)
            && new.is_none_or(|new| new > rank);
        is_held.then(|| entry.value.clone())
    }

    fn is_withdrawn(&self, entry: &Entry<V>) -> bool {
        entry.loaded_at < self.withdrawn.load(Ordering::Acquire)
            || self.generations.is_withdrawn(&entry.stamp)
    }

    /// Whether every change of the host's keys since its last answer was announced.
    pub fn is_followed(&self, host: &str) -> bool {
        self.peek(host).is_some_and(|entry| self.generations.is_followed(&entry.stamp))
    }

    /// Whether an answer that another request has asked for is good enough: not where only one that is asked for
    /// after the request has come is fresh.
    pub(crate) fn shares_answers(&self) -> bool {
        self.ttl.is_some() || self.generations.tracked_epoch().is_some()
    }

    /// The wildcards above `host`, nearest first, with the version of each; none where changes are not announced.
    pub fn versions<'a>(&self, host: &'a str) -> Vec<(Cow<'a, str>, Version)> {
        self.generations.versions(host)
    }

    /// Every value in memory. Takes each shard's lock for a moment, once for each entry.
    pub fn values(&self) -> impl Iterator<Item = V> {
        self.entries().map(|entry| entry.value.clone())
    }

    /// Every value with a record that was read before `since` and that may be [`Cache::held`].
    pub fn values_before(&self, since: Millis) -> impl Iterator<Item = V> {
        let is_valid = move |entry: &Arc<Entry<V>>| {
            entry.rank.is_some() && entry.loaded_at < since && !self.is_withdrawn(entry)
        };
        self.entries().filter(is_valid).map(|entry| entry.value.clone())
    }

    fn entries(&self) -> impl Iterator<Item = Arc<Entry<V>>> {
        self.own.iter().chain(self.others.iter()).map(|(_host, entry)| entry)
    }

    fn peek(&self, host: &str) -> Option<Arc<Entry<V>>> {
        self.own.peek(host).or_else(|| self.others.peek(host))
    }

    /// Hosts in memory.
    pub fn len(&self) -> usize {
        self.own.len() + self.others.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most that all of them may take, in bytes.
    pub fn capacity(&self) -> u64 {
        self.own.capacity().saturating_add(self.others.capacity())
    }
}
