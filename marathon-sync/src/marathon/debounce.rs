//! When to fetch: hints come in floods, fetches must not. Pure; instants are handed in.
//!
//! At most one fetch is in flight and one more is due. A fetch starts when hints have been quiet for
//! a while, or when the first of them has waited long enough, or at once when one of them is urgent.

use std::time::Duration;

use tokio::time::Instant;

/// How soon a hint wants to be looked after.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Urgency {
    /// At once: a task is going away, the stream has just been joined, the interval is over.
    Now,
    /// Together with the hints that follow closely.
    Soon,
    /// Like `Soon`, and once more afterwards: Marathon may announce a change of health a little
    /// before its list shows it.
    SoonAndAgain,
}

/// The state: what is due and whether a fetch is in flight.
#[derive(Clone, Debug)]
pub struct Debounce {
    quiet: Duration,
    at_most: Duration,
    due: Option<Due>,
    is_in_flight: bool,
    again_after: bool,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    first: Instant,
    last: Instant,
    is_urgent: bool,
    again: bool,
}

impl Debounce {
    /// The bridge's users are used to seconds; a deployment step makes a burst of some 100 ms.
    pub const DEFAULT_QUIET: Duration = Duration::from_millis(250);
    /// However long a flood lasts, the routes are at most this much late because of it.
    pub const DEFAULT_AT_MOST: Duration = Duration::from_secs(2);

    /// Nobody means more than a day.
    const LONGEST: Duration = Duration::from_secs(86_400);

    /// Nothing is due. `quiet`: without a hint before a fetch starts; `at_most`: after the first.
    pub fn new(quiet: Duration, at_most: Duration) -> Self {
        // Added to instants, which have an end.
        let (quiet, at_most) = (quiet.min(Self::LONGEST), at_most.min(Self::LONGEST));
        Self { quiet, at_most, due: None, is_in_flight: false, again_after: false }
    }

    /// Notes a hint.
    pub fn hint(&mut self, now: Instant, urgency: Urgency) {
        let due =
            self.due.get_or_insert(Due { first: now, last: now, is_urgent: false, again: false });
        due.last = due.last.max(now);
        match urgency {
            Urgency::Now => due.is_urgent = true,
            Urgency::Soon => {}
            Urgency::SoonAndAgain => due.again = true,
        }
    }

    /// When the next fetch is to start; `None` while one is in flight or nothing is due. May lie
    /// in the past.
    pub fn next_start(&self) -> Option<Instant> {
        let due = self.due.filter(|_| !self.is_in_flight)?;
        if due.is_urgent {
            return Some(due.first);
        }
        Some((due.last + self.quiet).min(due.first + self.at_most))
    }

    /// Whether a fetch starts now; if so, every hint so far is its business and it is in flight.
    #[must_use]
    pub fn start(&mut self, now: Instant) -> bool {
        if self.next_start().is_none_or(|start| start > now) {
            return false;
        }
        self.again_after = self.due.take().is_some_and(|due| due.again);
        self.is_in_flight = true;
        true
    }

    /// Notes that the fetch in flight has ended, well or not. Trying again after a failure is the
    /// caller's business: it has the back-off. Returns whether the same is due once more.
    pub fn finished(&mut self, now: Instant) -> bool {
        self.is_in_flight = false;
        let again = std::mem::take(&mut self.again_after);
        if again {
            self.hint(now, Urgency::Soon);
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUIET: Duration = Debounce::DEFAULT_QUIET;
    const AT_MOST: Duration = Debounce::DEFAULT_AT_MOST;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_fetch_starts_when_hints_are_quiet_or_the_first_has_waited_long_enough() {
        let zero = Instant::now();
        for (hints, start) in [
            (vec![0], 250),
            (vec![0, 100, 200], 450),
            ((0..40).map(|step| step * 100).collect(), 2000),
        ] {
            let mut debounce = Debounce::new(QUIET, AT_MOST);
            for &at in &hints {
                debounce.hint(zero + ms(at), Urgency::Soon);
            }
            assert_eq!(debounce.next_start(), Some(zero + ms(start)), "{hints:?}");
            assert!(!debounce.start(zero + ms(start - 1)));
            assert!(debounce.start(zero + ms(start)));
            assert_eq!(debounce.next_start(), None);
        }
    }

    #[test]
    fn absurd_settings_do_not_overflow() {
        let mut debounce = Debounce::new(Duration::MAX, Duration::MAX);
        debounce.hint(Instant::now(), Urgency::Soon);
        assert!(debounce.next_start().is_some());
    }

    #[test]
    fn an_urgent_hint_does_not_wait_but_for_the_fetch_in_flight() {
        let zero = Instant::now();
        let mut debounce = Debounce::new(QUIET, AT_MOST);
        debounce.hint(zero, Urgency::Soon);
        debounce.hint(zero + ms(10), Urgency::Now);
        assert!(debounce.start(zero + ms(10)));
        debounce.hint(zero + ms(20), Urgency::Now);
        assert!(!debounce.start(zero + ms(5000)), "one fetch at a time");
        debounce.finished(zero + ms(30));
        assert!(debounce.start(zero + ms(30)));
    }

    #[test]
    fn a_change_of_health_is_looked_at_twice() {
        let zero = Instant::now();
        let mut debounce = Debounce::new(QUIET, AT_MOST);
        debounce.hint(zero, Urgency::SoonAndAgain);
        assert!(debounce.start(zero + ms(250)));
        debounce.finished(zero + ms(300));
        assert_eq!(debounce.next_start(), Some(zero + ms(550)));
        assert!(debounce.start(zero + ms(550)));
        debounce.finished(zero + ms(600));
        assert_eq!(debounce.next_start(), None);
    }

    proptest! {
        #[test]
        fn no_hint_waits_longer_than_the_limit_and_none_is_forgotten(
            gaps in prop::collection::vec((0_u64..3000, 0_u8..3), 1..50),
        ) {
            let (mut now, mut debounce) = (Instant::now(), Debounce::new(QUIET, AT_MOST));
            let mut oldest: Option<Instant> = None;
            for (gap, urgency) in gaps {
                let next = now + ms(gap);
                // A caller that wakes up exactly when told, with fetches that take no time.
                while let Some(start) = debounce.next_start().filter(|start| *start <= next) {
                    prop_assert!(debounce.start(start.max(now)));
                    if let Some(hint) = oldest.take() {
                        prop_assert!(start.saturating_duration_since(hint) <= AT_MOST);
                    }
                    debounce.finished(start.max(now));
                }
                now = next;
                let urgency = [Urgency::Now, Urgency::Soon, Urgency::SoonAndAgain][usize::from(urgency)];
                debounce.hint(now, urgency);
                oldest.get_or_insert(now);
                prop_assert!(debounce.next_start().is_some());
            }
        }
    }
}
