//! The turn that a request has with its backend, one of `maxSockets`, and how long it counts.
//!
//! Turns spare a backend that is at work. A request that waits for nothing but its own client gives its
//! turn up when fewer than half of them are left: else a hundred clients that read or send next to nothing
//! would keep everybody from the backend until their limits end them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::lock::lock;
use tokio::sync::OwnedSemaphorePermit;

/// A request's turn.
#[derive(Debug, Default)]
pub struct Turn {
    permit: Mutex<Option<Permit>>,
    /// The next part of the answer has not come.
    awaits_backend: AtomicBool,
}

/// A turn while it counts.
#[derive(Debug)]
pub struct Permit {
    permit: OwnedSemaphorePermit,
    /// Turns that are to be left for whoever does not wait for its client.
    reserve: usize,
}

impl Permit {
    /// One of `most` turns.
    pub fn new(permit: OwnedSemaphorePermit, most: usize) -> Self {
        Self { permit, reserve: most.div_ceil(2) }
    }

    fn is_wanted(&self) -> bool {
        self.permit.semaphore().available_permits() < self.reserve
    }
}

impl Turn {
    /// The request has a turn.
    pub fn hold(&self, permit: Option<Permit>) {
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

    /// Nothing but the client is waited for.
    pub fn await_client(&self) {
        drop(lock(&self.permit).take_if(|permit| permit.is_wanted()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::{Permit, Turn};

    #[test]
    fn whoever_waits_for_its_client_leaves_half_of_the_turns_to_others() {
        for most in [1, 2, 3, 10, 100] {
            let semaphore = Arc::new(Semaphore::new(most));
            let take = || Arc::clone(&semaphore).try_acquire_owned().ok();
            let turns: Vec<Turn> = (0..most).map(|_| Turn::default()).collect();
            for turn in &turns {
                turn.hold(take().map(|permit| Permit::new(permit, most)));
            }
            assert_eq!(semaphore.available_permits(), 0);
            turns.iter().for_each(Turn::await_client);
            assert_eq!(semaphore.available_permits(), most.div_ceil(2));
            turns.iter().for_each(Turn::end);
            assert_eq!(semaphore.available_permits(), most);
        }
    }
}
