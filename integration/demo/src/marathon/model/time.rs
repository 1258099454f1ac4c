//! Time of a cluster: the real one, or whatever a test says.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch; shown as Marathon writes timestamps.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Stamp(pub i64);

impl fmt::Display for Stamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::MAX);
        write!(formatter, "{time:.3}")
    }
}

/// Gives every change a timestamp of its own: versions and ids of two changes never fall together.
#[derive(Debug, Default)]
pub struct Clock {
    fixed: Option<i64>,
    last: i64,
}

impl Clock {
    /// From now on time stands still here, until it is set again.
    pub fn set(&mut self, millis: i64) {
        self.fixed = Some(millis);
    }

    /// Now, but at least a millisecond after the last stamp.
    pub(in crate::marathon) fn stamp(&mut self) -> Stamp {
        let now = self.fixed.unwrap_or_else(system_millis);
        self.last = now.max(self.last + 1);
        Stamp(self.last)
    }
}

fn system_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_written_as_marathon_does_and_never_repeat() {
        let mut clock = Clock::default();
        clock.set(1_442_482_362_598);
        assert_eq!(clock.stamp().to_string(), "2015-09-17T09:32:42.598Z");
        assert_eq!(clock.stamp().to_string(), "2015-09-17T09:32:42.599Z");
    }
}
