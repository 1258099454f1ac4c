//! A door that backends wait at until the test opens it: order without sleeping.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a backend waits before it gives up: longer than every deadline of a test, so the test
/// fails first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts passes: each [`wait`](Self::wait) takes one, [`release`](Self::release) adds one,
/// [`open`](Self::open) lets everybody through from then on. Clones share the door.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    passes: usize,
    open: bool,
    waiting: usize,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.change(|state| state.open = true);
    }

    /// Lets exactly one more through.
    pub fn release(&self) {
        self.change(|state| state.passes += 1);
    }

    /// Whether everybody is let through.
    pub fn is_open(&self) -> bool {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).open
    }

    /// How many are waiting right now.
    pub fn waiting(&self) -> usize {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).waiting
    }

    /// Blocks until a pass is there; an error after a minute, so that no thread outlives its test
    /// for long.
    pub fn wait(&self) -> std::io::Result<()> {
        let (lock, changed) = &*self.shared;
        let end = Instant::now() + PATIENCE;
        let mut state = lock.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting += 1;
        let passed = loop {
            if state.open {
                break true;
            }
            if state.passes > 0 {
                state.passes -= 1;
                break true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break false;
            }
            state = changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting -= 1;
        if passed { Ok(()) } else { Err(std::io::ErrorKind::TimedOut.into()) }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let (lock, changed) = &*self.shared;
        change(&mut lock.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually::{DEADLINE, eventually};

    #[test]
    fn one_release_lets_one_through() {
        let gate = Gate::new();
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let gate = gate.clone();
                std::thread::spawn(move || gate.wait().is_ok())
            })
            .collect();
        eventually(DEADLINE, "both wait", || gate.waiting() == 2);
        gate.release();
        eventually(DEADLINE, "one is through", || gate.waiting() == 1);
        gate.open();
        assert!(workers.into_iter().all(|worker| worker.join().unwrap()));
    }
}
