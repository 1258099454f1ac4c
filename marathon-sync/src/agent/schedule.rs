//! When to ask Marathon, and when to look at its last answer again. Pure; instants are handed in.

use std::time::Duration;

use tokio::time::Instant;

use crate::marathon::debounce::{Debounce, Urgency};

/// How long the first look waits for the stream of events: whoever subscribes first misses nothing.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// Rest after looking at the last answer again before an event makes us do so once more: many tasks
/// end together, and each look reads all lists.
const REST: Duration = Duration::from_millis(100);

/// What is due.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Due {
    /// Marathon is to be asked.
    pub fetch: bool,
    /// The last answer is to be looked at again.
    pub again: bool,
}

/// All that is planned.
#[derive(Debug)]
pub struct Schedule {
    debounce: Debounce,
    interval: Duration,
    at_most: Duration,
    full_at: Instant,
    again_at: Option<Instant>,
    rests_until: Option<Instant>,
    last_start: Option<Instant>,
}

impl Schedule {
    /// The first look is due when the stream of events is there or known not to be, or soon anyway.
    pub fn new(now: Instant, interval: Duration, (quiet, at_most): (Duration, Duration)) -> Self {
        Self {
            debounce: Debounce::new(quiet, at_most),
            interval,
            at_most,
            full_at: now + START_PATIENCE,
            again_at: None,
            rests_until: None,
            last_start: None,
        }
    }

    /// Everything may have changed: Marathon is asked as soon as no answer is on its way.
    pub fn full(&mut self, now: Instant) {
        self.debounce.hint(now, Urgency::Now);
    }

    /// Events arrive no more. The interval takes over; only the first look need not wait for them.
    pub fn stream_lost(&mut self, now: Instant) {
        if self.last_start.is_none() {
            self.full(now);
        }
    }

    /// Something has changed. After a time of quiet Marathon is asked at once, and once more after
    /// the burst: the first event of it is often the only one.
    pub fn hint(&mut self, now: Instant, urgency: Urgency) {
        let is_first = self.last_start.is_some_and(|start| now >= start + self.at_most);
        if is_first {
            self.debounce.hint(now, Urgency::Now);
            self.debounce.hint(now, Urgency::SoonAndAgain);
        } else {
            self.debounce.hint(now, urgency);
        }
    }

    /// The last answer is to be looked at again at `when`, or before.
    pub fn again(&mut self, when: Instant) {
        self.again_at = Some(self.again_at.map_or(when, |planned| planned.min(when)));
    }

    /// An event said for sure what the last answer does not know: it is looked at again, at once or
    /// after a rest.
    pub fn certain(&mut self, now: Instant) {
        self.again(self.rests_until.map_or(now, |until| until.max(now)));
    }

    /// A look at the last answer again has ended.
    pub fn looked_again(&mut self, now: Instant) {
        self.rests_until = Some(now + REST);
    }

    /// The last answer is being looked at.
    pub fn looked(&mut self) {
        self.again_at = None;
    }

    /// When [`due`](Self::due) has something to say next.
    pub fn wake(&self) -> Instant {
        let others = self.debounce.next_start().into_iter().chain(self.again_at);
        others.fold(self.full_at, Instant::min)
    }

    /// What is due now. A fetch that is due counts as started.
    pub fn due(&mut self, now: Instant) -> Due {
        if now >= self.full_at {
            self.full_at = now + self.interval;
            self.full(now);
        }
        let fetch = self.debounce.start(now);
        if fetch {
            self.last_start = Some(now);
            self.full_at = now + self.interval;
        }
        let again = self.again_at.is_some_and(|when| now >= when);
        Due { fetch, again }
    }

    /// The fetch has ended; after a failure the next one comes in `retry`.
    pub fn fetched(&mut self, now: Instant, retry: Option<Duration>) {
        self.debounce.finished(now);
        if let Some(retry) = retry {
            self.full_at = self.full_at.min(now + retry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);
    const FETCH: Due = Due { fetch: true, again: false };
    const NOTHING: Due = Due { fetch: false, again: false };

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn schedule(now: Instant) -> Schedule {
        Schedule::new(now, INTERVAL, (ms(250), ms(2000)))
    }

    #[test]
    fn the_first_look_waits_a_little_for_the_stream() {
        let zero = Instant::now();
        let mut alone = schedule(zero);
        assert_eq!((alone.due(zero), alone.wake()), (NOTHING, zero + START_PATIENCE));
        assert_eq!(alone.due(zero + START_PATIENCE), FETCH);
        for there in [Schedule::full, Schedule::stream_lost] {
            let mut schedule = schedule(zero);
            there(&mut schedule, zero + ms(10));
            assert_eq!(schedule.due(zero + ms(10)), FETCH);
        }
    }

    #[test]
    fn a_full_look_comes_every_interval_whatever_happens() {
        let zero = Instant::now();
        let mut schedule = schedule(zero);
        schedule.full(zero);
        assert_eq!(schedule.due(zero), FETCH);
        schedule.stream_lost(zero);
        schedule.fetched(zero + ms(5), None);
        assert_eq!(schedule.wake(), zero + INTERVAL);
        assert_eq!(schedule.due(zero + INTERVAL), FETCH);
        // It hangs: nothing is asked beside it, and the next one follows it.
        assert_eq!(schedule.due(zero + INTERVAL * 2), NOTHING);
        assert!(schedule.wake() > zero + INTERVAL * 2);
        schedule.fetched(zero + INTERVAL * 2 + ms(1), None);
        assert_eq!(schedule.due(zero + INTERVAL * 2 + ms(1)), FETCH);
    }

    #[test]
    fn an_event_after_quiet_is_looked_after_at_once_and_a_burst_together() {
        let zero = Instant::now();
        let mut schedule = schedule(zero);
        schedule.full(zero);
        assert_eq!(schedule.due(zero), FETCH);
        schedule.fetched(zero, None);
        let event = zero + ms(5000);
        schedule.hint(event, Urgency::Soon);
        assert_eq!(schedule.due(event), FETCH);
        for more in 1..100 {
            schedule.hint(event + ms(more), Urgency::Soon);
        }
        schedule.fetched(event + ms(100), None);
        assert_eq!(schedule.due(event + ms(100)), NOTHING);
        assert_eq!(schedule.due(event + ms(350)), FETCH);
        schedule.fetched(event + ms(351), None);
        assert_eq!(schedule.wake(), event + ms(350) + INTERVAL);
    }

    #[test]
    fn failures_are_retried_before_the_interval_and_redis_by_looking_again() {
        let zero = Instant::now();
        let mut schedule = schedule(zero);
        schedule.full(zero);
        assert_eq!(schedule.due(zero), FETCH);
        schedule.fetched(zero, Some(ms(700)));
        assert_eq!((schedule.wake(), schedule.due(zero + ms(700))), (zero + ms(700), FETCH));
        schedule.again(zero + ms(900));
        schedule.again(zero + ms(800));
        assert_eq!(schedule.wake(), zero + ms(800));
        assert_eq!(schedule.due(zero + ms(800)), Due { fetch: false, again: true });
        schedule.looked();
        assert_eq!(schedule.due(zero + ms(900)), NOTHING);
    }

    #[test]
    fn certainties_are_looked_after_at_once_and_in_a_flood_together() {
        let zero = Instant::now();
        let mut schedule = schedule(zero);
        let again = |schedule: &mut Schedule, now| schedule.due(now).again;
        schedule.certain(zero);
        assert!(again(&mut schedule, zero));
        schedule.looked();
        schedule.looked_again(zero + ms(5));
        for more in 5..105 {
            schedule.certain(zero + ms(more));
            assert!(!again(&mut schedule, zero + ms(more)), "{more}");
        }
        assert!(again(&mut schedule, zero + ms(105)));
        schedule.looked();
        schedule.certain(zero + ms(500));
        assert!(again(&mut schedule, zero + ms(500)), "after a rest at once again");
    }
}
