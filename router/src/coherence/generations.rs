//! Epochs and change counters: whether an answer of Redis is still what Redis holds.
//!
//! Counters are shared by all names with the same hash: a collision costs a look-up, never a stale answer. Hosts
//! and wildcards have counters of their own, so that edits of many hosts cannot touch a wildcard's.
//!
//! Every access is sequentially consistent, so that one may reason by interleavings. On x86-64 and 64-bit ARM the
//! loads of a hit cost no more than acquiring ones.

use std::borrow::Cow;
use std::hash::BuildHasher;

use shared::host::lookup_names;

use super::atomics::{AtomicU8, AtomicU64, Ordering::SeqCst};

/// Names of a look-up order besides the host's own.
const MAX_WILDCARDS: usize = 6;

/// A change of the content of a host's record, in a host's counter: the upper half.
const CONTENT: u64 = 1 << 32;
/// A change of its state: the lower half. An overflow looks like a change of the content, which is harmless.
const STATE: u64 = 1;

/// Bits of [`Stamp::state`]. None is an answer that was stored, but not yet compared with the generation.
const FRESH: u8 = 1;
/// A change was announced since, or has overtaken the answer.
const STALE: u8 = 2;
/// That was a change of the content.
const WITHDRAWN: u8 = 4;

/// What a change means for an answer that depends on the key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// The record that the answer comes from: it may have been deleted.
    Content,
    /// What is stored alongside the record, such as a dead set.
    State,
}

/// The counters that a host depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dependencies {
    own: u16,
    wildcards: [u16; MAX_WILDCARDS],
    count: u8,
}

/// Epoch and counters of a host's dependencies at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Generation {
    epoch: u64,
    own: u64,
    wildcards: [u64; MAX_WILDCARDS],
}

/// The state of one wildcard's record: equal as long as no change of it was announced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Version {
    epoch: u64,
    counter: u64,
}

/// What an answer depends on, as of when it was asked for, and what has been announced since.
#[derive(Debug)]
pub(crate) struct Stamp {
    dependencies: Dependencies,
    /// Sum of the wildcards' counters. They only grow, so that it is equal only if all are.
    wildcards: u64,
    epoch: u64,
    /// The wildcard whose record the answer is, and its counter; the host's own record is followed by `state`.
    record: Option<(u16, u64)>,
    /// See [`FRESH`]. Set by the reader that stores the answer and by announcements.
    state: AtomicU8,
}

/// Epoch and counters of one cache.
#[derive(Debug)]
pub(crate) struct Generations {
    /// Number of the connection, or of the time without one. Odd while there is one that announces changes.
    epoch: AtomicU64,
    hosts: Box<[AtomicU64]>,
    wildcards: Box<[AtomicU64]>,
}

impl Dependencies {
    /// The hash of a name is taken modulo `counters`.
    fn of(host: &str, counters: usize) -> Self {
        let mut wildcards = [0; MAX_WILDCARDS];
        let mut count = 0;
        for (slot, name) in wildcards.iter_mut().zip(lookup_names(host).skip(1)) {
            *slot = slot_of(&name, counters);
            count += 1;
        }
        Self { own: slot_of(host, counters), wildcards, count }
    }

    fn wildcards(&self) -> &[u16] {
        self.wildcards.get(..usize::from(self.count)).unwrap_or_default()
    }
}

impl Generation {
    fn sum_of_wildcards(&self) -> u64 {
        self.wildcards.iter().fold(0, |sum, counter| sum.wrapping_add(*counter))
    }
}

impl Stamp {
    /// For an answer that was asked for in the generation `before`. `rank` is the index in the look-up order of
    /// the name whose record it is. It is not fresh before [`Generations::settle`].
    pub(crate) fn new(
        dependencies: Dependencies,
        before: &Generation,
        rank: Option<usize>,
    ) -> Self {
        let index = rank.and_then(|rank| rank.checked_sub(1));
        let record = index.and_then(|index| {
            let slot = dependencies.wildcards().get(index)?;
            Some((*slot, *before.wildcards.get(index)?))
        });
        Self {
            dependencies,
            wildcards: before.sum_of_wildcards(),
            epoch: before.epoch,
            record,
            state: AtomicU8::new(0),
        }
    }

    /// A change of the host itself was announced. The counter must have been raised before: see
    /// [`Generations::settle`].
    pub(crate) fn mark(&self, effect: Effect) {
        let bits = match effect {
            Effect::Content => STALE | WITHDRAWN,
            Effect::State => STALE,
        };
        self.state.fetch_or(bits, SeqCst);
    }
}

impl Generations {
    /// With `counters` for hosts and for wildcards each, at least one.
    pub(crate) fn new(counters: u16) -> Self {
        let zeros = || (0..counters.max(1)).map(|_| AtomicU64::new(0)).collect();
        Self { epoch: AtomicU64::new(0), hosts: zeros(), wildcards: zeros() }
    }

    /// A connection to Redis begins, or has ended. `is_tracked`: it announces changes. Nothing that was read
    /// before is fresh.
    pub(crate) fn begin_epoch(&self, is_tracked: bool) {
        let next = |epoch: u64| if is_tracked { (epoch + 1) | 1 } else { (epoch + 2) & !1 };
        let _previous = self.epoch.fetch_update(SeqCst, SeqCst, |epoch| Some(next(epoch)));
    }

    /// Everything may have changed. The connection stays as it is.
    pub(crate) fn invalidate_all(&self) {
        self.epoch.fetch_add(2, SeqCst);
    }

    /// The epoch, while changes are announced.
    pub(crate) fn tracked_epoch(&self) -> Option<u64> {
        let epoch = self.epoch.load(SeqCst);
        (epoch % 2 == 1).then_some(epoch)
    }

    /// Counts a change of the record `name`, or of its state. To be called before entries are marked.
    pub(crate) fn count(&self, name: &str, effect: Effect) {
        let is_wildcard = name.starts_with('*');
        let counters = if is_wildcard { &self.wildcards } else { &self.hosts };
        let step = match effect {
            Effect::Content => CONTENT,
            Effect::State => STATE,
        };
        if let Some(counter) = counters.get(usize::from(slot_of(name, counters.len()))) {
            // Requested hosts are no wildcards, so these have no state of their own.
            counter.fetch_add(if is_wildcard { 1 } else { step }, SeqCst);
        }
    }

    pub(crate) fn dependencies(&self, host: &str) -> Dependencies {
        Dependencies::of(host, self.hosts.len())
    }

    /// The generation of now. To be taken before Redis is asked: what is taken later says nothing about a
    /// change in between.
    pub(crate) fn current(&self, dependencies: &Dependencies) -> Generation {
        let mut wildcards = [0; MAX_WILDCARDS];
        for (value, slot) in wildcards.iter_mut().zip(dependencies.wildcards()) {
            *value = load(&self.wildcards, *slot);
        }
        // Not the order of a snapshot, and none is needed: a change between two of the loads makes it differ from
        // the generation that the answer is compared with.
        Generation {
            epoch: self.epoch.load(SeqCst),
            own: load(&self.hosts, dependencies.own),
            wildcards,
        }
    }

    /// Declares an answer fresh, which must be where [`Stamp::mark`] finds it, unless a change has overtaken it
    /// since `before`. Returns `false` when one has.
    ///
    /// A change is counted first and then marks what it finds. So it either was counted before the comparison
    /// here, or finds the stored answer. In the latter case its mark may come before the answer is declared
    /// fresh, which must not undo it: hence the exchange.
    pub(crate) fn settle(&self, stamp: &Stamp, before: &Generation) -> bool {
        let now = self.current(&stamp.dependencies);
        // Without announcements nothing is known to have changed, and time decides.
        if now.epoch % 2 == 1 && now != *before {
            let is_changed = now.own / CONTENT != before.own / CONTENT;
            stamp.mark(if is_changed { Effect::Content } else { Effect::State });
            return false;
        }
        let _is_marked = stamp.state.compare_exchange(0, FRESH, SeqCst, SeqCst);
        true
    }

    /// Whether no change was announced since the answer was asked for, where announcements are what decides;
    /// `None` where they are not.
    pub(crate) fn is_fresh(&self, stamp: &Stamp) -> Option<bool> {
        if stamp.state.load(SeqCst) != FRESH {
            return Some(false);
        }
        let epoch = self.tracked_epoch()?;
        let wildcards = stamp.dependencies.wildcards().iter();
        let sum =
            wildcards.fold(0, |sum: u64, slot| sum.wrapping_add(load(&self.wildcards, *slot)));
        Some(stamp.epoch == epoch && sum == stamp.wildcards)
    }

    /// Whether every change since the answer was asked for has been announced.
    pub(crate) fn is_followed(&self, stamp: &Stamp) -> bool {
        self.tracked_epoch() == Some(stamp.epoch)
    }

    /// Whether the record that the answer comes from was announced to have changed since.
    pub(crate) fn is_withdrawn(&self, stamp: &Stamp) -> bool {
        stamp.state.load(SeqCst) & WITHDRAWN != 0
            || stamp.record.is_some_and(|(slot, counter)| load(&self.wildcards, slot) != counter)
    }

    /// The wildcards above `host`, nearest first, with the version of each; none where changes are not announced.
    pub(crate) fn versions<'a>(&self, host: &'a str) -> Vec<(Cow<'a, str>, Version)> {
        let Some(epoch) = self.tracked_epoch() else { return Vec::new() };
        let version = |name: &str| {
            let slot = slot_of(name, self.wildcards.len());
            Version { epoch, counter: load(&self.wildcards, slot) }
        };
        let names = lookup_names(host).skip(1);
        names
            .map(|name| {
                let version = version(&name);
                (name, version)
            })
            .collect()
    }
}

fn load(counters: &[AtomicU64], slot: u16) -> u64 {
    counters.get(usize::from(slot)).map_or(0, |counter| counter.load(SeqCst))
}

fn slot_of(name: &str, counters: usize) -> u16 {
    // Not seeded: an attacker who can choose keys in Redis needs no collisions to do harm.
    let hash = foldhash::fast::FixedState::default().hash_one(name);
    u16::try_from(hash % counters.max(1) as u64).unwrap_or(0)
}
