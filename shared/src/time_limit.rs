//! Time limits that a pause of the process does not use up.
//!
//! A process that was stopped (`SIGSTOP`, `docker pause`, a migrated virtual machine) wakes with its
//! timers over and its sockets unread, and the kernel may end the wait for both without saying which
//! sockets are readable: `epoll_wait` returns `EINTR` (signal(7)). A plain timer then gives up what
//! was answered long ago. The limits here pass in steps. A pause takes one step at most, and behind
//! the last one the runtime reads its sockets once more before the limit has passed.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

/// Steps of a limit: a pause takes one of them at most.
const STEPS: u32 = 8;
/// The shortest step: short limits need no more timers than that.
const MIN_STEP: Duration = Duration::from_millis(50);
/// Makes the runtime read its sockets once more.
const LAST_LOOK: Duration = Duration::from_millis(5);

/// The limit has passed, most of it while the process was running.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the time limit has passed")]
pub struct Elapsed;

/// Waits for `future`, at most `limit` of the time in which the process runs.
///
/// # Errors
///
/// [`Elapsed`] when the limit has passed and the future is not ready after the sockets were read.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut limit = pin!(sleep(limit));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => limit.as_mut().poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}

/// Passes with `limit` of the time in which the process runs. Not for limits of requests, which the
/// router's workers look after together.
pub async fn sleep(limit: Duration) {
    let step = (limit / STEPS).max(MIN_STEP);
    let mut left = limit;
    while !left.is_zero() {
        let now = step.min(left);
        tokio::time::sleep(now).await;
        left -= now;
    }
    tokio::time::sleep(LAST_LOOK).await;
}

/// The same for hyper, whose pings of HTTP/2 would end every connection after a pause.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

struct Sleep(Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl hyper::rt::Sleep for Sleep {}

#[allow(clippy::disallowed_types, reason = "hyper's trait has the type of the standard library")]
impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(Box::pin(sleep(duration))))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep(Instant::from_std(deadline).saturating_duration_since(Instant::now()))
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::{Elapsed, LAST_LOOK, sleep, timeout};

    #[tokio::test(start_paused = true)]
    async fn a_limit_passes_when_its_time_is_over() {
        for millis in [0, 1, 49, 51, 500, 3000, 30_000] {
            let limit = Duration::from_millis(millis);
            let before = Instant::now();
            assert_eq!(timeout(limit, std::future::pending::<()>()).await, Err(Elapsed));
            let passed = before.elapsed();
            let steps = Duration::from_millis(10);
            assert!(passed >= limit && passed <= limit + LAST_LOOK + steps, "{limit:?} {passed:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_uses_up_one_step_of_a_limit() {
        let limit = Duration::from_secs(8);
        let before = Instant::now();
        let limited = tokio::spawn(timeout(limit, std::future::pending::<()>()));
        tokio::task::yield_now().await;
        // Nobody runs while the clock jumps.
        advance(Duration::from_secs(3600)).await;
        assert_eq!(limited.await.unwrap(), Err(Elapsed));
        let ran = before.elapsed() - Duration::from_secs(3600);
        assert!(ran >= Duration::from_secs(7), "{ran:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_after_the_last_look_counts() {
        let limit = Duration::from_millis(50);
        // As a socket that is found readable in the moment in which the timer passes, or right after.
        let late = async {
            tokio::time::sleep(limit + LAST_LOOK / 2).await;
            7
        };
        assert_eq!(timeout(limit, late).await, Ok(7));
        sleep(Duration::ZERO).await;
    }
}
