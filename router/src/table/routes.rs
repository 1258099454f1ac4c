//! Routes as values of a cache that Redis keeps fresh.

use std::sync::Arc;

use shared::host::lookup_rank;
use shared::keys::Kind;

use crate::clock::Millis;
use crate::coherence::{Cache, CachePolicy, Cached, Effect, Limits};
use crate::route::Route;

/// Memory for each host that the table is sized for: two backends and some room.
const BYTES_PER_HOST: u64 = 1024;
/// Share of the memory for hosts that have no list of their own.
const OTHERS_SHARE: u64 = 4;
/// The least number of those that there is room for.
const MIN_OTHERS: u64 = 64;

/// Routes by requested host.
pub type RouteCache = Cache<Arc<Route>>;

/// The cache of a table, which has to exist before the store that reports changes to it.
pub fn route_cache(policy: CachePolicy) -> RouteCache {
    let own = (policy.size as u64).saturating_mul(BYTES_PER_HOST);
    let others = (own / OTHERS_SHARE).max(MIN_OTHERS * BYTES_PER_HOST);
    Cache::new(policy, Limits { own, others, entry: (BYTES_PER_HOST, BYTES_PER_HOST) })
}

impl Cached for Arc<Route> {
    fn effect(kind: Kind) -> Option<Effect> {
        match kind {
            Kind::Frontend | Kind::Options => Some(Effect::Content),
            Kind::Dead => Some(Effect::State),
            Kind::Certificate => None,
        }
    }

    fn rank(&self, host: &str) -> Option<usize> {
        lookup_rank(host, &self.frontend()?.name)
    }

    fn loaded_at(&self) -> Millis {
        self.loaded_at
    }

    fn weight(&self, _host: &str) -> u64 {
        self.bytes() as u64
    }

    fn is_verified(&self) -> bool {
        !self.is_from_snapshot
    }

    fn note_state_change(&self) {
        self.note_dead_change();
    }
}
