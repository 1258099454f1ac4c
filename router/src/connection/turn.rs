//! The turn that a request has with its backend, one of `maxSockets`, and how long it counts.
//!
//! Turns spare a backend that is at work. A request that waits for nothing but its own client gives its
//! turn up when others want it: else a hundred clients that read or send next to nothing would keep
//! everybody from the backend until their limits end them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use shared::lock::lock;
use tokio::sync::OwnedSemaphorePermit;

/// Sweeps in a row that find a request waiting for its client before it gives its turn up. One may fall
/// between two reads of a client that is as fast as its line.
const PATIENCE: u8 = 2;

/// A request's turn.
#[derive(Debug, Default)]
pub struct Turn {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    /// Sweeps in a row that found the client to be waited for.
    waited: AtomicU8,
    /// The next part of the answer has not come.
    awaits_backend: AtomicBool,
}

impl Turn {
    /// The request has a turn.
    pub fn hold(&self, permit: Option<OwnedSemaphorePermit>) {
        self.waited.store(0, Ordering::Relaxed);
        self.awaits_backend.store(false, Ordering::Relaxed);
        *lock(&self.permit) = permit;
    }

    /// The turn is over.
    pub fn end(&self) {
        drop(lock(&self.permit).take());
    }

    /// Says whether the backend is what an answer waits for.
    pub fn await_backend(&self, awaits: bool) {
        self.awaits_backend.store(awaits, Ordering::Relaxed);
    }

    /// Whether it is.
    pub(super) fn awaits_backend(&self) -> bool {
        self.awaits_backend.load(Ordering::Relaxed)
    }

    /// One sweep, which found the client to be waited for or not.
    pub(super) fn sweep(&self, is_client_awaited: bool) {
        if !is_client_awaited {
            self.waited.store(0, Ordering::Relaxed);
            return;
        }
        let waited = self.waited.load(Ordering::Relaxed).saturating_add(1);
        self.waited.store(waited, Ordering::Relaxed);
        if waited >= PATIENCE {
            let is_wanted =
                |permit: &mut OwnedSemaphorePermit| permit.semaphore().available_permits() == 0;
            drop(lock(&self.permit).take_if(is_wanted));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::{PATIENCE, Turn};

    #[test]
    fn only_who_waits_for_the_client_for_long_gives_a_wanted_turn_up() {
        let turns = Arc::new(Semaphore::new(2));
        let turn = Turn::default();
        let begin = || turn.hold(Arc::clone(&turns).try_acquire_owned().ok());
        begin();
        (0..2 * PATIENCE).for_each(|_| turn.sweep(true));
        assert_eq!(turns.available_permits(), 1, "nobody wants it");
        let other = Arc::clone(&turns).try_acquire_owned();
        turn.sweep(false);
        (1..PATIENCE).for_each(|_| turn.sweep(true));
        turn.sweep(false);
        (1..PATIENCE).for_each(|_| turn.sweep(true));
        assert_eq!(turns.available_permits(), 0, "not for long");
        turn.sweep(true);
        assert_eq!(turns.available_permits(), 1);
        begin();
        (0..PATIENCE).for_each(|_| turn.sweep(false));
        assert_eq!(turns.available_permits(), 0);
        turn.end();
        assert_eq!(turns.available_permits(), 1);
        drop(other);
    }
}
