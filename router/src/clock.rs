//! The router's monotonic clock: exact where a time is written down, coarse where a limit is set,
//! without the pauses of the process where a peer would be blamed for them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Milliseconds on the router's own monotonic clock.
pub type Millis = u64;

/// How often [`Clock::tick`] is to be called: the error of every limit set by the coarse time.
pub const TICK: Duration = Duration::from_millis(50);

/// The most that passes for limits between two ticks. More than that means that the process did not run,
/// or hardly, so that no peer could have been heard.
const MAX_STEP: Duration = Duration::from_millis(200);

/// Milliseconds since its creation. One per process, shared by all threads.
#[derive(Debug)]
pub struct Clock {
    epoch: Instant,
    coarse: AtomicU64,
    running: AtomicU64,
}

impl Clock {
    /// Starts at zero.
    pub fn new() -> Self {
        Self { epoch: Instant::now(), coarse: AtomicU64::new(0), running: AtomicU64::new(0) }
    }

    /// The exact time.
    pub fn now(&self) -> Millis {
        millis(self.epoch.elapsed())
    }

    /// The time of the last [`Clock::tick`]: one memory read, for the hot path.
    pub fn coarse(&self) -> Millis {
        self.coarse.load(Ordering::Relaxed)
    }

    /// The time that the process has run by the last [`Clock::tick`]: what limits of peers are set and
    /// compared by. It stands still in a pause.
    pub fn running(&self) -> Millis {
        self.running.load(Ordering::Relaxed)
    }

    /// How much of the time since `last`, both of [`Clock::running`], is more than one step: for a thread
    /// that did not run while others did.
    pub fn missed_since(&self, last: Millis) -> Millis {
        self.running().saturating_sub(last).saturating_sub(millis(MAX_STEP))
    }

    /// Brings the coarse times up to date.
    pub fn tick(&self) -> Millis {
        let now = self.now();
        // Of several threads that tick each adds what the ones before it have not.
        let step = now.saturating_sub(self.coarse.fetch_max(now, Ordering::Relaxed));
        self.running.fetch_add(step.min(millis(MAX_STEP)), Ordering::Relaxed);
        now
    }
}

/// Whole milliseconds of `duration`, at most [`Millis::MAX`].
pub fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Clock, MAX_STEP, TICK, millis};

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_no_time_for_limits() {
        let clock = Clock::new();
        for _ in 0..10 {
            tokio::time::advance(TICK).await;
            clock.tick();
            // Another worker, at the same time.
            clock.tick();
        }
        assert_eq!((clock.coarse(), clock.running()), (500, 500));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.tick(), 3_600_500);
        assert_eq!(clock.coarse(), 3_600_500);
        assert_eq!(clock.running(), 500 + millis(MAX_STEP));
        tokio::time::advance(TICK).await;
        clock.tick();
        assert_eq!(clock.running(), 550 + millis(MAX_STEP));
        let ticks = (0..10).map(|_| async {
            tokio::time::advance(TICK).await;
            clock.tick();
        });
        for tick in ticks {
            tick.await;
        }
        let last = clock.running();
        assert_eq!(clock.missed_since(last - 200), 0);
        assert_eq!(clock.missed_since(last - 500), 300, "another thread slept through it");
    }
}
