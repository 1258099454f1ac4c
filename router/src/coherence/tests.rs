//! Tests of the room as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shared::keys::Kind;

use super::{Cache, CachePolicy, Cached, Effect, Limits};
use crate::clock::Millis;

mod cache;
mod protocol;
mod read_through;

const LIMITS: Limits = Limits { own: 64 * 1024, others: 16 * 1024, entry: (64, 64) };

/// A value whose every property a test can choose.
#[derive(Clone, Debug)]
struct Value {
    content: u32,
    rank: Option<usize>,
    loaded_at: Millis,
    weight: u64,
    is_verified: bool,
    state_changes: Arc<AtomicUsize>,
}

impl Value {
    /// Read at 0 from the record at index `rank` of the look-up order.
    fn new(content: u32, rank: Option<usize>) -> Self {
        Self {
            content,
            rank,
            loaded_at: 0,
            weight: 64,
            is_verified: true,
            state_changes: Arc::default(),
        }
    }
}

impl Cached for Value {
    fn effect(kind: Kind) -> Option<Effect> {
        match kind {
            Kind::Frontend => Some(Effect::Content),
            Kind::Dead => Some(Effect::State),
            Kind::Certificate | Kind::Options => None,
        }
    }

    fn rank(&self, _host: &str) -> Option<usize> {
        self.rank
    }

    fn loaded_at(&self) -> Millis {
        self.loaded_at
    }

    fn weight(&self, _host: &str) -> u64 {
        self.weight
    }

    fn is_verified(&self) -> bool {
        self.is_verified
    }

    fn note_state_change(&self) {
        self.state_changes.fetch_add(1, Ordering::Relaxed);
    }
}

fn cache(is_tracked: bool, ttl: Option<Duration>) -> Cache<Value> {
    cache_with_counters(is_tracked, ttl, 8192)
}

fn cache_with_counters(is_tracked: bool, ttl: Option<Duration>, counters: u16) -> Cache<Value> {
    let policy = CachePolicy { tracks: is_tracked, size: 100, ttl };
    let cache = Cache::with_counters(policy, LIMITS, counters);
    cache.begin_epoch(is_tracked);
    cache
}
