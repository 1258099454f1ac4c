//! Log lines that a client or a row in Redis could cause at will, said now and then only.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::route::Millis;

/// Time between two lines of one kind.
const INTERVAL: Millis = 10_000;

/// Decides whether one kind of line is due. Shared by threads.
#[derive(Debug, Default)]
pub struct Seldom {
    /// Clock of the next line.
    next: AtomicU64,
    suppressed: AtomicU64,
}

impl Seldom {
    /// Whether to say it at `now`: then how often it was not said since the last time.
    pub fn is_due(&self, now: Millis) -> Option<u64> {
        let claimed = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            (next <= now).then(|| now.saturating_add(INTERVAL))
        });
        match claimed {
            Ok(_) => Some(self.suppressed.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.suppressed.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Seldom;

    #[test]
    fn one_line_in_ten_seconds_and_the_rest_is_counted() {
        let seldom = Seldom::default();
        assert_eq!(seldom.is_due(0), Some(0));
        assert_eq!((seldom.is_due(1), seldom.is_due(9_999)), (None, None));
        assert_eq!(seldom.is_due(10_000), Some(2));
        assert_eq!(seldom.is_due(10_001), None);
        assert_eq!(seldom.is_due(50_000), Some(1));
    }
}
