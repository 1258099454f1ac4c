//! One read of Redis for all requests that wait for the same answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use shared::lock::lock;
use tokio::runtime::Handle;
use tokio::sync::watch;

type Flight<T> = watch::Receiver<Option<T>>;
type Flights<T> = Arc<Mutex<HashMap<Box<str>, Flight<T>>>>;

/// Reads under way, by key.
#[derive(Debug)]
pub(super) struct SingleFlight<T> {
    flights: Flights<T>,
    /// Where reads run: they go on when the request that has begun them ends.
    runtime: Handle,
}

/// Takes a read off the list when it ends, even by a panic: a read that has ended must not be waited for.
struct Landing<T> {
    flights: Flights<T>,
    key: Box<str>,
}

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        let _flight = lock(&self.flights).remove(&self.key);
    }
}

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { flights: Arc::default(), runtime }
    }

    /// Waits for the read that is under way for `key`, or begins one. `None` when it has ended without an
    /// answer: by a panic, or because the process ends.
    pub(super) async fn join<F>(&self, key: &str, read: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flight = self.flight(key, read);
        // An error is a sender that was dropped without an answer.
        flight.wait_for(Option::is_some).await.ok()?.clone()
    }

    fn flight<F>(&self, key: &str, read: impl FnOnce() -> F) -> Flight<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.get(key) {
            return flight.clone();
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(key.into(), receiver.clone());
        // The lock is held: the read cannot end before it is on the list.
        let landing = Landing { flights: Arc::clone(&self.flights), key: key.into() };
        let read = read();
        drop(self.runtime.spawn(async move {
            let landing = landing;
            let answer = read.await;
            // Before the answer is given: a request that comes later begins a read of its own.
            drop(landing);
            sender.send_replace(Some(answer));
        }));
        receiver
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::runtime::Handle;
    use tokio::sync::oneshot;

    use super::{SingleFlight, lock};

    #[tokio::test]
    async fn concurrent_requests_share_one_read_and_later_ones_begin_another() {
        let flights = SingleFlight::new(Handle::current());
        let reads = Arc::new(AtomicUsize::new(0));
        let read = || {
            let reads = Arc::clone(&reads);
            async move { reads.fetch_add(1, Ordering::SeqCst) + 1 }
        };
        let all = join_all((0..100).map(|_| flights.join("a", read))).await;
        assert!(all.iter().all(|answer| *answer == Some(1)), "{all:?}");
        assert_eq!(flights.join("a", read).await, Some(2));
        let (a, b) = tokio::join!(flights.join("a", read), flights.join("b", read));
        assert_ne!(a, b, "other keys have reads of their own");
        assert!(lock(&flights.flights).is_empty());
    }

    #[tokio::test]
    async fn read_goes_on_when_the_request_that_began_it_ends() {
        let flights = SingleFlight::new(Handle::current());
        let (sender, receiver) = oneshot::channel::<u8>();
        let mut receiver = Some(receiver);
        let mut first = Box::pin(flights.join("a", || {
            let receiver = receiver.take();
            async move { receiver.expect("is begun once").await.ok() }
        }));
        assert!(futures_util::poll!(&mut first).is_pending());
        drop(first);
        let mut second = Box::pin(flights.join("a", || async { None }));
        assert!(futures_util::poll!(&mut second).is_pending(), "joined the first read");
        sender.send(7).expect("the read is under way");
        assert_eq!(second.await, Some(Some(7)));
    }

    #[tokio::test]
    async fn read_that_panics_ends_its_waiters_and_is_not_joined_again() {
        let flights = SingleFlight::new(Handle::current());
        let broken = || async { panic!("a mistake in a read") };
        let answers = join_all([flights.join("a", broken), flights.join("a", broken)]).await;
        assert_eq!(answers, [None, None]);
        assert!(lock(&flights.flights).is_empty());
        assert_eq!(flights.join("a", || async { 1 }).await, Some(1));
    }
}
