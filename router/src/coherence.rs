//! What the router keeps of Redis in memory, and whether it is still what Redis holds.
//!
//! One protocol for every kind of answer. Routes and certificates are policies over it: [`Cached`] says what a
//! value is worth, [`Source`] how it is read.
//!
//! - An **epoch** is the life of one connection that announces changes. Nothing that was read in an earlier one
//!   is fresh: its changes may have gone unannounced.
//! - A **generation** is the state of epoch and change counters at one moment. It is taken before Redis is
//!   asked. When it is another one by the time that the answer is stored, a change has overtaken the answer,
//!   which is then not fresh, and asked for again.
//! - **Dependencies** are the names whose records decide on a host: itself and the wildcards above it. A change
//!   of the host itself marks its one entry. A change of a wildcard may concern any number of hosts and is only
//!   counted; entries compare the counts when they are used.
//! - **Segments**: hosts with a record of their own, and all others. Clients can invent any number of the
//!   latter; those evict each other only.
//! - Where Redis announces nothing, an answer is fresh for a **time to live**, or for one request.
//!
//! An answer is kept beyond all that until a newer one replaces it, for use while Redis is away.
//!
//! `coherence/tests/` explores the interleavings of readers, changes, and reconnects, and shows that each check
//! is needed; `tests/coherence_orders.rs` runs the same protocol with every memory order that the atomics allow.

use std::time::Duration;

use shared::keys::Kind;

use crate::clock::Millis;

mod cache;
mod generations;
mod read_through;
mod single_flight;
#[cfg(test)]
mod tests;

/// The atomics of [`generations`], which `tests/coherence_orders.rs` replaces by those of a model checker.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
}

pub use cache::{Cache, Limits, Lookup};
pub use generations::{Effect, Version};
pub(crate) use read_through::join;
pub use read_through::{Reads, Source, load};

/// How answers of Redis are kept in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CachePolicy {
    /// Redis is asked to announce changes; where it can, answers are fresh until it announces one.
    pub tracks: bool,
    /// Hosts that the memory is sized for.
    pub size: usize,
    /// How long an answer is fresh where Redis announces nothing; `None` is for one request.
    pub ttl: Option<Duration>,
}

/// A value that is kept for a host: cheap to clone.
pub trait Cached: Clone {
    /// What a change of a key of this kind means for values of this type; `None` when they do not depend on it.
    fn effect(kind: Kind) -> Option<Effect>;

    /// Index, in the look-up order of `host`, of the name whose record the value is: 0 is the host itself.
    /// `None` when there is no record.
    fn rank(&self, host: &str) -> Option<usize>;

    /// When Redis had answered.
    fn loaded_at(&self) -> Millis;

    /// Memory in bytes, without what hosts under one wildcard share.
    fn weight(&self, host: &str) -> u64;

    /// Whether Redis was read for it by this process. If not, it is used only while Redis is away.
    fn is_verified(&self) -> bool {
        true
    }

    /// A change with [`Effect::State`] was announced for the host of this value.
    fn note_state_change(&self) {}
}
