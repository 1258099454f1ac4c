//! The router's monotonic clock: exact where a time is written down, coarse where a limit is set.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::route::{Millis, millis};

/// How often [`Clock::tick`] is to be called: the error of every limit set by the coarse time.
pub const TICK: Duration = Duration::from_millis(50);

/// Milliseconds since its creation. One per process, shared by all threads.
#[derive(Debug)]
pub struct Clock {
    epoch: Instant,
    coarse: AtomicU64,
}

impl Clock {
    /// Starts at zero.
    pub fn new() -> Self {
        Self { epoch: Instant::now(), coarse: AtomicU64::new(0) }
    }

    /// The exact time.
    pub fn now(&self) -> Millis {
        millis(self.epoch.elapsed())
    }

    /// The time of the last [`Clock::tick`]: one memory read, for the hot path.
    pub fn coarse(&self) -> Millis {
        self.coarse.load(Ordering::Relaxed)
    }

    /// Brings the coarse time up to date.
    pub fn tick(&self) -> Millis {
        let now = self.now();
        self.coarse.fetch_max(now, Ordering::Relaxed);
        now
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
