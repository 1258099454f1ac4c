//! Time in which this process was running.
//!
//! A process that was stopped (`SIGSTOP`, `docker pause`, a migrated virtual machine) wakes with a
//! clock that has gone on. What is to hold "for 30 s" must have been watched for 30 s.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shared::lock::lock;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

/// Between two beats.
const BEAT: Duration = Duration::from_millis(500);
/// A beat that is so late was late because the process did not run, or hardly.
const LATE: Duration = Duration::from_secs(1);

/// A clock that begins at zero and stands still while the process does not run.
#[derive(Debug)]
pub struct RunningTime {
    start: Instant,
    beats: Arc<Mutex<Beats>>,
    _task: AbortOnDropHandle<()>,
}

impl RunningTime {
    /// Starts the clock, and a task that beats it.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn start() -> Self {
        let start = Instant::now();
        let beats = Arc::new(Mutex::new(Beats { last: start, lost: Duration::ZERO }));
        let beating = Arc::clone(&beats);
        let task = tokio::spawn(async move {
            loop {
                sleep(BEAT).await;
                let _lost = lock(&beating).beat(Instant::now());
            }
        });
        Self { start, beats, _task: AbortOnDropHandle::new(task) }
    }

    /// Time since the start in which the process ran, and time in which it did not.
    pub fn read(&self) -> (Duration, Duration) {
        let now = Instant::now();
        // After a pause this may come before the beat.
        let lost = lock(&self.beats).beat(now);
        (now.saturating_duration_since(self.start).saturating_sub(lost), lost)
    }
}

/// The beats so far. Pure.
#[derive(Debug)]
struct Beats {
    last: Instant,
    lost: Duration,
}

impl Beats {
    /// The process runs at `now`. Returns for how long it did not, in all.
    fn beat(&mut self, now: Instant) -> Duration {
        let gap = now.saturating_duration_since(self.last);
        if gap >= BEAT + LATE {
            self.lost += gap - BEAT;
        }
        self.last = self.last.max(now);
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{advance, sleep};

    use super::RunningTime;

    #[tokio::test(start_paused = true)]
    async fn a_pause_does_not_pass() {
        let clock = RunningTime::start();
        sleep(Duration::from_secs(10)).await;
        assert_eq!(clock.read(), (Duration::from_secs(10), Duration::ZERO));
        // Nobody runs while the clock jumps.
        advance(Duration::from_secs(3600)).await;
        let (ran, lost) = clock.read();
        assert!(ran < Duration::from_secs(11), "{ran:?}");
        assert_eq!(ran + lost, Duration::from_secs(3610));
        sleep(Duration::from_secs(10)).await;
        assert_eq!(clock.read(), (ran + Duration::from_secs(10), lost));
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_is_slow_is_not_paused() {
        let clock = RunningTime::start();
        for _ in 0..100 {
            tokio::task::yield_now().await;
            advance(Duration::from_millis(900)).await;
        }
        assert_eq!(clock.read().1, Duration::ZERO);
    }
}
