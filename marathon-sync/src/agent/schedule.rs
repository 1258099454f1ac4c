//! When to ask Marathon, for what, and when to look at its last answer again. Pure; instants are
//! handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::marathon::debounce::{Debounce, Urgency};

/// How long the first look waits for the stream of events: whoever subscribes first misses nothing.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// Rest after looking at the whole last answer again before an event makes us do so once more: many
/// tasks end together, and each look reads all lists.
const REST: Duration = Duration::from_millis(100);

/// Apps that are asked for one by one, at most. Beyond that the whole list costs Marathon less.
const MAX_APPS: usize = 8;

/// Ids that no answer shows and that are remembered, at most.
const MAX_STRANGERS: usize = 1000;

/// What is looked at.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Scope {
    /// Nothing.
    #[default]
    Nothing,
    /// These apps, at most [`MAX_APPS`].
    Apps(BTreeSet<Arc<str>>),
    /// Everything.
    All,
}

impl Scope {
    /// Adds an app; `None` is everything.
    fn add(&mut self, app: Option<&Arc<str>>) {
        match (&mut *self, app) {
            (Self::All, _) => {}
            (Self::Apps(apps), Some(app)) if apps.len() < MAX_APPS || apps.contains(app) => {
                let _new = apps.insert(Arc::clone(app));
            }
            (Self::Nothing, Some(app)) => *self = Self::Apps([Arc::clone(app)].into()),
            (Self::Apps(_), Some(_)) | (Self::Apps(_) | Self::Nothing, None) => *self = Self::All,
        }
    }

    fn merge(&mut self, other: &Self) {
        match other {
            Self::Nothing => {}
            Self::Apps(apps) => apps.iter().for_each(|app| self.add(Some(app))),
            Self::All => *self = Self::All,
        }
    }
}

/// What is due.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Due {
    /// What Marathon is to be asked for.
    pub fetch: Scope,
    /// What of the last answer is to be looked at again.
    pub again: Scope,
}

/// All that is planned.
#[derive(Debug)]
pub struct Schedule {
    debounce: Debounce,
    interval: Duration,
    quiet: Duration,
    at_most: Duration,
    full_at: Instant,
    /// What the next fetch asks for.
    next: Scope,
    /// What the one on its way, or the last one, asks for.
    asked: Scope,
    /// When an event about an app last made us ask at once.
    at_once: BTreeMap<Arc<str>, Instant>,
    /// When an event about what no answer shows last made us ask.
    strangers: BTreeMap<Arc<str>, Instant>,
    /// What Marathon is to be asked for at some time, whatever else happens.
    later: Option<(Instant, Scope)>,
    again_at: Option<Instant>,
    again: Scope,
    rests_until: Option<Instant>,
    /// When everything was last asked for.
    last_start: Option<Instant>,
}

impl Schedule {
    /// The first look is due when the stream of events is there or known not to be, or soon anyway.
    pub fn new(now: Instant, interval: Duration, (quiet, at_most): (Duration, Duration)) -> Self {
        Self {
            debounce: Debounce::new(quiet, at_most),
            interval,
            quiet,
            at_most,
            full_at: now + START_PATIENCE,
            next: Scope::Nothing,
            asked: Scope::Nothing,
            at_once: BTreeMap::new(),
            strangers: BTreeMap::new(),
            later: None,
            again_at: None,
            again: Scope::Nothing,
            rests_until: None,
            last_start: None,
        }
    }

    /// Everything may have changed: Marathon is asked as soon as no answer is on its way.
    pub fn full(&mut self, now: Instant) {
        self.next = Scope::All;
        self.debounce.hint(now, Urgency::Now);
    }

    /// Events arrive no more. The interval takes over; only the first look need not wait for them.
    pub fn stream_lost(&mut self, now: Instant) {
        if self.last_start.is_none() {
            self.full(now);
        }
    }

    /// Something has changed: tasks of this app, or `None`, anything. After a time of quiet Marathon
    /// is asked at once, and once more after the burst: the first event of it is often the only one.
    pub fn hint(&mut self, now: Instant, urgency: Urgency, app: Option<&Arc<str>>) {
        self.next.add(app);
        let is_first = match app {
            // A look at everything that waits for the end of a burst waits on.
            Some(_) if self.next == Scope::All => false,
            Some(app) => self.is_first_of(app, now),
            None => self.last_start.is_some_and(|start| now >= start + self.at_most),
        };
        if is_first {
            self.debounce.hint(now, Urgency::Now);
            self.debounce.hint(now, Urgency::SoonAndAgain);
        } else {
            self.debounce.hint(now, urgency);
        }
    }

    fn is_first_of(&mut self, app: &Arc<str>, now: Instant) -> bool {
        let quiet = self.quiet;
        let is_recent = |when: &Instant| now.saturating_duration_since(*when) < quiet;
        if self.at_once.get(app).is_some_and(is_recent) {
            return false;
        }
        self.at_once.retain(|_, when| is_recent(when));
        let _before = self.at_once.insert(Arc::clone(app), now);
        true
    }

    /// Whether an event about what the last answer does not show is worth a look at everything: once
    /// an interval, for then everything is looked at anyway.
    pub fn is_worth_a_look(&mut self, stranger: &Arc<str>, now: Instant) -> bool {
        let interval = self.interval;
        let is_recent = |when: &Instant| now.saturating_duration_since(*when) < interval;
        if self.strangers.get(stranger).is_some_and(is_recent) {
            return false;
        }
        if self.strangers.len() >= MAX_STRANGERS {
            self.strangers.retain(|_, when| is_recent(when));
        }
        if self.strangers.len() < MAX_STRANGERS {
            let _before = self.strangers.insert(Arc::clone(stranger), now);
        }
        true
    }

    /// Marathon is to be asked for this app, or for `None`, everything, at `when`, or before.
    pub fn ask_at(&mut self, when: Instant, app: Option<&Arc<str>>) {
        let (planned, scope) = self.later.get_or_insert((when, Scope::Nothing));
        *planned = when.min(*planned);
        scope.add(app);
    }

    /// The whole last answer is to be looked at again at `when`, or before.
    pub fn again(&mut self, when: Instant) {
        self.again = Scope::All;
        self.again_at = Some(self.again_at.map_or(when, |planned| planned.min(when)));
    }

    /// An event said for sure what the last answer does not know of this app, or of `None`, any: it is
    /// looked at again, at once or after a rest.
    pub fn certain(&mut self, now: Instant, app: Option<&Arc<str>>) {
        self.again.add(app);
        let when = match self.again {
            Scope::All => self.rests_until.map_or(now, |until| until.max(now)),
            Scope::Nothing | Scope::Apps(_) => now,
        };
        self.again_at = Some(self.again_at.map_or(when, |planned| planned.min(when)));
    }

    /// A look at the whole last answer again has ended.
    pub fn looked_again(&mut self, now: Instant) {
        self.rests_until = Some(now + REST);
    }

    /// The whole last answer is being looked at.
    pub fn looked(&mut self) {
        (self.again, self.again_at) = (Scope::Nothing, None);
    }

    /// When [`due`](Self::due) has something to say next.
    pub fn wake(&self) -> Instant {
        let later = self.later.as_ref().map(|(when, _)| *when);
        let others = self.debounce.next_start().into_iter().chain(self.again_at).chain(later);
        others.fold(self.full_at, Instant::min)
    }

    /// What is due now. A fetch that is due counts as started, a look as done.
    pub fn due(&mut self, now: Instant) -> Due {
        if now >= self.full_at {
            self.full_at = now + self.interval;
            self.full(now);
        }
        if let Some((_, scope)) = self.later.take_if(|(when, _)| now >= *when) {
            self.next.merge(&scope);
            self.debounce.hint(now, Urgency::Now);
        }
        let mut due = Due::default();
        if self.debounce.start(now) {
            due.fetch = match std::mem::take(&mut self.next) {
                // Whoever asks for nothing would wait for ever for the answer.
                Scope::Nothing => Scope::All,
                next => next,
            };
            self.asked.clone_from(&due.fetch);
            if due.fetch == Scope::All {
                self.last_start = Some(now);
                self.full_at = now + self.interval;
            }
        }
        if self.again_at.is_some_and(|when| now >= when) {
            due.again = std::mem::take(&mut self.again);
            self.again_at = None;
        }
        due
    }

    /// The fetch has ended; after a failure the next one comes in `retry`.
    pub fn fetched(&mut self, now: Instant, retry: Option<Duration>) {
        if self.debounce.finished(now) {
            let asked = std::mem::take(&mut self.asked);
            self.next.merge(&asked);
        }
        if let Some(retry) = retry {
            self.full_at = self.full_at.min(now + retry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);
    const FETCH: Due = Due { fetch: Scope::All, again: Scope::Nothing };
    const NOTHING: Due = Due { fetch: Scope::Nothing, again: Scope::Nothing };
    const AGAIN: Due = Due { fetch: Scope::Nothing, again: Scope::All };

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn schedule(now: Instant) -> Schedule {
        Schedule::new(now, INTERVAL, (ms(250), ms(2000)))
    }

    #[test]
    fn what_is_to_be_asked_for_later_is_asked_for_then() {
        let zero = Instant::now();
        let mut schedule = Schedule::new(zero, INTERVAL, (ms(250), ms(2000)));
        schedule.full(zero);
        assert_eq!(schedule.due(zero), FETCH);
        schedule.fetched(zero, None);
        let app: Arc<str> = "/a".into();
        schedule.ask_at(zero + ms(500), Some(&app));
        schedule.ask_at(zero + ms(400), Some(&app));
        assert_eq!(schedule.wake(), zero + ms(400));
        assert_eq!(schedule.due(zero + ms(399)), NOTHING);
        let due = Due { fetch: Scope::Apps([app].into()), ..NOTHING };
        assert_eq!(schedule.due(zero + ms(400)), due);
        schedule.fetched(zero + ms(400), None);
        assert_eq!(schedule.due(zero + ms(500)), NOTHING);
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
        schedule.hint(event, Urgency::Soon, None);
        assert_eq!(schedule.due(event), FETCH);
        for more in 1..100 {
            schedule.hint(event + ms(more), Urgency::Soon, None);
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
        assert_eq!(schedule.due(zero + ms(800)), AGAIN);
        schedule.looked();
        assert_eq!(schedule.due(zero + ms(900)), NOTHING);
    }

    #[test]
    fn certainties_are_looked_after_at_once_and_in_a_flood_together() {
        let zero = Instant::now();
        let mut schedule = schedule(zero);
        let again = |schedule: &mut Schedule, now| schedule.due(now).again == Scope::All;
        schedule.certain(zero, None);
        assert!(again(&mut schedule, zero));
        schedule.looked();
        schedule.looked_again(zero + ms(5));
        for more in 5..105 {
            schedule.certain(zero + ms(more), None);
            assert!(!again(&mut schedule, zero + ms(more)), "{more}");
        }
        assert!(again(&mut schedule, zero + ms(105)));
        schedule.looked();
        schedule.certain(zero + ms(500), None);
        assert!(again(&mut schedule, zero + ms(500)), "after a rest at once again");
    }

    fn apps(ids: &[&str]) -> Scope {
        Scope::Apps(ids.iter().map(|id| Arc::from(*id)).collect())
    }

    /// Ready for events: everything was just asked for.
    fn started(zero: Instant) -> Schedule {
        let mut schedule = schedule(zero);
        schedule.full(zero);
        assert_eq!(schedule.due(zero), FETCH);
        schedule.fetched(zero, None);
        schedule
    }

    #[test]
    fn an_event_about_an_app_asks_for_it_at_once_and_once_more() {
        let zero = Instant::now();
        let mut schedule = started(zero);
        let (a, b): (Arc<str>, Arc<str>) = ("/a".into(), "/b".into());
        let fetch = |schedule: &mut Schedule, at| {
            let due = schedule.due(zero + ms(at)).fetch;
            schedule.fetched(zero + ms(at + 1), None);
            due
        };
        schedule.hint(zero + ms(10), Urgency::Soon, Some(&a));
        assert_eq!(fetch(&mut schedule, 10), apps(&["/a"]));
        // Another app need not wait for the first one's quiet.
        schedule.hint(zero + ms(20), Urgency::Soon, Some(&b));
        assert_eq!(fetch(&mut schedule, 20), apps(&["/a", "/b"]));
        schedule.hint(zero + ms(30), Urgency::Soon, Some(&a));
        assert_eq!(fetch(&mut schedule, 40), Scope::Nothing, "it was just asked for");
        assert_eq!(fetch(&mut schedule, 280), apps(&["/a", "/b"]));
        assert_eq!(schedule.wake(), zero + INTERVAL, "looking at apps puts nothing off");
    }

    #[test]
    fn many_apps_are_asked_for_together_after_the_burst() {
        let zero = Instant::now();
        let mut schedule = started(zero);
        for number in 0..=MAX_APPS {
            let app: Arc<str> = format!("/{number}").into();
            schedule.hint(zero + ms(10), Urgency::Soon, Some(&app));
        }
        assert_eq!(schedule.due(zero + ms(10)).fetch, Scope::All);
        schedule.fetched(zero + ms(11), None);
        // What may be anything waits for the quiet, and apps do not hurry it.
        schedule.hint(zero + ms(600), Urgency::Soon, None);
        schedule.hint(zero + ms(610), Urgency::Soon, Some(&"/x".into()));
        assert_eq!(schedule.due(zero + ms(620)), NOTHING);
        assert_eq!(schedule.due(zero + ms(860)).fetch, Scope::All);
    }

    #[test]
    fn certainties_about_apps_rest_after_nothing() {
        let zero = Instant::now();
        let mut schedule = started(zero);
        schedule.looked_again(zero);
        schedule.certain(zero + ms(1), Some(&"/a".into()));
        assert_eq!(schedule.due(zero + ms(1)).again, apps(&["/a"]));
        schedule.certain(zero + ms(2), Some(&"/a".into()));
        schedule.again(zero + ms(3));
        assert_eq!(schedule.due(zero + ms(3)).again, Scope::All, "all is more than one");
    }
}
