//! How many tunnels there are, in all and to each backend, over all workers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use shared::backend::Origin;
use shared::lock::lock;

use crate::limits::Limits;

/// Counts the tunnels of all workers. Backends are only kept while they have one.
#[derive(Debug, Default)]
pub struct Counts {
    open: AtomicU32,
    by_backend: Mutex<HashMap<Origin, u32>>,
}

/// A counted tunnel; dropping it counts it off.
#[derive(Debug)]
pub struct Slot {
    counts: Arc<Counts>,
    /// Where it is counted by backend.
    backend: Option<Origin>,
}

/// Which limit a tunnel would exceed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// `maxTunnelsPerBackend`.
    PerBackend,
    /// `maxTunnels`.
    Tunnels,
}

impl Refusal {
    /// The setting that refuses.
    pub fn setting(self) -> &'static str {
        match self {
            Self::PerBackend => "server.maxTunnelsPerBackend",
            Self::Tunnels => "server.maxTunnels",
        }
    }
}

impl Counts {
    /// Counts a tunnel to `backend`, from before it is asked for: many may be asked for at once.
    ///
    /// # Errors
    ///
    /// The limit that it would exceed.
    pub fn admit(self: &Arc<Self>, backend: &Origin, limits: &Limits) -> Result<Slot, Refusal> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        // Counted off again by being dropped, whatever follows.
        let mut slot = Slot { counts: Arc::clone(self), backend: None };
        if limits.max_tunnels.is_some_and(|most| before >= most) {
            return Err(Refusal::Tunnels);
        }
        if let Some(most) = limits.max_tunnels_per_backend {
            let mut by_backend = lock(&self.by_backend);
            let count = by_backend.entry(backend.clone()).or_insert(0);
            if *count >= most {
                return Err(Refusal::PerBackend);
            }
            *count += 1;
            slot.backend = Some(backend.clone());
        }
        Ok(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
        let Some(backend) = &self.backend else { return };
        let mut by_backend = lock(&self.counts.by_backend);
        if let Some(count) = by_backend.get_mut(backend) {
            *count -= 1;
            if *count == 0 {
                by_backend.remove(backend);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use shared::backend::BackendUrl;

    use super::{Counts, Limits, Refusal};
    use crate::limits;

    fn limits(tunnels: u32, per_backend: u32) -> Limits {
        Limits {
            max_tunnels: Some(tunnels),
            max_tunnels_per_backend: Some(per_backend),
            ..limits::tests::unlimited()
        }
    }

    #[test]
    fn tunnels_are_counted_on_and_off_in_all_and_per_backend() {
        let origin = |url: &str| BackendUrl::parse(url.as_bytes()).unwrap().origin;
        let (one, other) = (origin("http://10.0.0.1:1"), origin("http://10.0.0.1:2"));
        let counts = Arc::<Counts>::default();
        let limits = limits(3, 2);
        let first = counts.admit(&one, &limits).unwrap();
        let second = counts.admit(&one, &limits).unwrap();
        assert_eq!(counts.admit(&one, &limits).unwrap_err(), Refusal::PerBackend);
        let third = counts.admit(&other, &limits).unwrap();
        assert_eq!(counts.admit(&other, &limits).unwrap_err(), Refusal::Tunnels);
        drop(first);
        let fourth = counts.admit(&one, &limits).unwrap();
        drop((second, third, fourth));
        assert_eq!(counts.open.load(Ordering::Relaxed), 0);
        assert!(counts.by_backend.lock().unwrap().is_empty());
    }
}
