//! The permit that a request holds while a backend works for it, one of `maxSockets`.
//!
//! Permits spare a backend that is at work. A request that waits for nothing but its own client gives its
//! permit up when fewer than half of them are left: else a hundred clients that read or send next to nothing
//! would keep everybody from the backend until their limits end them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::lock::lock;
use tokio::sync::OwnedSemaphorePermit;

/// A permit while it is held.
#[derive(Debug)]
pub struct Permit {
    permit: OwnedSemaphorePermit,
    /// Permits that are to be left for requests that do not wait for their clients.
    reserve: usize,
}

impl Permit {
    /// One of `most` permits.
    pub fn new(permit: OwnedSemaphorePermit, most: usize) -> Self {
        Self { permit, reserve: most.div_ceil(2) }
    }

    fn is_scarce(&self) -> bool {
        self.permit.semaphore().available_permits() < self.reserve
    }
}

/// The permit of a request, if it holds one.
#[derive(Debug, Default)]
pub struct RequestPermit {
    /// Whether `permit` is worth its lock. Both are changed by the worker's own thread only.
    is_held: AtomicBool,
    permit: Mutex<Option<Permit>>,
}

impl RequestPermit {
    /// The request holds this permit.
    pub fn hold(&self, permit: Option<Permit>) {
        self.is_held.store(permit.is_some(), Ordering::Relaxed);
        *lock(&self.permit) = permit;
    }

    /// The backend has done its part.
    pub fn release(&self) {
        if self.is_held.load(Ordering::Relaxed) {
            self.is_held.store(false, Ordering::Relaxed);
            drop(lock(&self.permit).take());
        }
    }

    /// The request waits for nothing but its client.
    pub fn release_while_blocked(&self) {
        if self.is_held.load(Ordering::Relaxed)
            && lock(&self.permit).as_ref().is_some_and(Permit::is_scarce)
        {
            self.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::{Permit, RequestPermit};

    #[test]
    fn blocked_requests_release_their_permit_once_fewer_than_half_are_left() {
        let semaphore = Arc::new(Semaphore::new(4));
        let request = || {
            let request = RequestPermit::default();
            let permit = Arc::clone(&semaphore).try_acquire_owned().unwrap();
            request.hold(Some(Permit::new(permit, 4)));
            request
        };
        let (first, second) = (request(), request());
        first.release_while_blocked();
        assert_eq!(semaphore.available_permits(), 2, "half of them are left");
        let third = request();
        first.release_while_blocked();
        first.release_while_blocked();
        assert_eq!(semaphore.available_permits(), 2);
        second.release();
        second.release();
        drop(third);
        assert_eq!(semaphore.available_permits(), 4);
    }
}
