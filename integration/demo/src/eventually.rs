//! The only place that may poll.

use std::time::Duration;

use tokio::time::Instant;

/// How long anything in a test may take before it counts as hanging.
///
/// Far above what a loaded two-core machine needs, far below nextest's slow-test limit.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Pause between two looks: short enough not to add to a test's time, long enough not to steal its
/// processor.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `condition` holds, and panics with `what` when it does not within `deadline`.
#[track_caller]
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    assert!(
        wait_for(deadline, || condition().then_some(())).is_some(),
        "not within {deadline:?}: {what}"
    );
}

/// Waits until `look` finds something and returns it; `None` after the deadline.
pub fn wait_for<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        pause();
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one sleep of the harness, inside a loop with a deadline"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_what_the_look_found() {
        let mut looks = 0;
        let found = wait_for(DEADLINE, || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, Some(3));
    }

    #[test]
    fn gives_up_after_the_deadline() {
        assert_eq!(wait_for(Duration::from_millis(20), || None::<()>), None);
    }

    #[test]
    #[should_panic(expected = "not within 20ms: the moon is cheese")]
    fn names_what_was_waited_for() {
        eventually(Duration::from_millis(20), "the moon is cheese", || false);
    }
}
