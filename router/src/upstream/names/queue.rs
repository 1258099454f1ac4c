//! Which look-up is next. Pure.
//!
//! A look-up holds a thread for as long as the system's resolver likes, so there are few at a time. Names hang
//! together with the servers of their zone: those of one zone get few of the threads, zones that hang get some
//! of them together, and of those that wait the zone with the fewest running look-ups is next. A look-up that
//! hangs makes room for another one, within a bound for all. So names that hang, however many, do not keep the
//! names of others from being looked up.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::route::Millis;

/// Look-ups that wait. Each name has two at most, so this is only a bound.
const MAX_WAITING: usize = 20_000;
/// Look-ups at a time, each of which holds a thread.
const MAX_RUNNING: usize = 128;
/// Those of them that do not hang.
const MAX_QUICK: usize = 32;
/// Look-ups at a time of one zone.
const MAX_PER_ZONE: usize = 4;
/// Look-ups at a time of all zones that hang.
const MAX_HANGING: usize = 24;
/// A look-up that takes longer hangs. Less than the time that requests wait, by default.
pub(super) const SLOW: Millis = 1_000;
/// How long it is remembered that a zone hung.
const REMEMBERED: Millis = 60_000;

/// Waiting look-ups of `T` and counts of those that run.
#[derive(Debug)]
pub(super) struct Queue<T> {
    zones: HashMap<Box<str>, Zone<T>>,
    waiting: usize,
    running: usize,
    /// Of the next look-up.
    number: u64,
}

#[derive(Debug)]
struct Zone<T> {
    /// In the order in which they came, by number.
    waiting: VecDeque<(u64, T)>,
    /// Since when, by number.
    running: BTreeMap<u64, Millis>,
    hung_until: Millis,
}

/// A look-up that may begin.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Next<T> {
    pub(super) zone: Box<str>,
    pub(super) number: u64,
    pub(super) item: T,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { zones: HashMap::new(), waiting: 0, running: 0, number: 0 }
    }
}

impl<T> Queue<T> {
    /// Adds a look-up of `name`, unless too many wait: then it is given back.
    pub(super) fn push(&mut self, name: &str, item: T) -> Option<T> {
        if self.waiting >= MAX_WAITING {
            return Some(item);
        }
        let zone = self.zones.entry(zone_of(name).into()).or_insert_with(Zone::new);
        zone.waiting.push_back((self.number, item));
        self.waiting += 1;
        self.number += 1;
        None
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The next that may begin now; it counts as running until [`Queue::ended`].
    pub(super) fn next(&mut self, now: Millis) -> Option<Next<T>> {
        if self.running >= MAX_RUNNING {
            return None;
        }
        let quick: usize = self.zones.values().map(|zone| zone.quick(now)).sum();
        if quick >= MAX_QUICK {
            return None;
        }
        let hanging: usize =
            self.zones.values().filter(|zone| zone.hangs(now)).map(|zone| zone.running.len()).sum();
        let may_begin = |zone: &Zone<T>| {
            zone.running.len() < MAX_PER_ZONE && (hanging < MAX_HANGING || !zone.hangs(now))
        };
        let (name, zone) = self
            .zones
            .iter_mut()
            .filter(|(_, zone)| may_begin(zone))
            .filter_map(|(name, zone)| {
                let first = zone.waiting.front()?.0;
                Some(((zone.running.len(), first), (name, zone)))
            })
            .min_by_key(|(order, _)| *order)?
            .1;
        let (number, item) = zone.waiting.pop_front()?;
        zone.running.insert(number, now);
        self.waiting -= 1;
        self.running += 1;
        Some(Next { zone: name.clone(), number, item })
    }

    /// A look-up that [`Queue::next`] returned has ended.
    pub(super) fn ended(&mut self, zone: &str, number: u64, now: Millis) {
        let Some(state) = self.zones.get_mut(zone) else { return };
        let Some(since) = state.running.remove(&number) else { return };
        self.running -= 1;
        if now.saturating_sub(since) > SLOW {
            state.hung_until = now + REMEMBERED;
        }
        self.zones.retain(|_, zone| !zone.is_over(now));
    }
}

impl<T> Zone<T> {
    fn new() -> Self {
        Self { waiting: VecDeque::new(), running: BTreeMap::new(), hung_until: 0 }
    }

    /// How many look-ups run and do not hang.
    fn quick(&self, now: Millis) -> usize {
        self.running.values().filter(|since| now.saturating_sub(**since) <= SLOW).count()
    }

    /// Whether a look-up hangs, or did so a while ago.
    fn hangs(&self, now: Millis) -> bool {
        let oldest = self.running.first_key_value();
        now < self.hung_until || oldest.is_some_and(|(_, since)| now.saturating_sub(*since) > SLOW)
    }

    /// Whether there is nothing to remember.
    fn is_over(&self, now: Millis) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && now >= self.hung_until
    }
}

/// The part of a name whose servers answer for all of it, as far as the name itself tells: its last two labels,
/// three where registries sell names below a short second one (`example.co.uk`).
fn zone_of(name: &str) -> &str {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut dots = name.rmatch_indices('.').map(|(index, _)| index);
    let (last, second, third) = (dots.next(), dots.next(), dots.next());
    let (Some(last), Some(second)) = (last, second) else { return name };
    let sells_below = name.len() - last == 3 && last - second <= 4;
    let dot = if sells_below { third } else { Some(second) };
    dot.and_then(|dot| name.get(dot + 1..)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(queue: &mut Queue<String>, now: u64) -> Vec<Next<String>> {
        std::iter::from_fn(|| queue.next(now)).collect()
    }

    fn items(begun: &[Next<String>]) -> Vec<&str> {
        begun.iter().map(|next| next.item.as_str()).collect()
    }

    fn push(queue: &mut Queue<String>, name: &str) {
        assert_eq!(queue.push(name, name.to_owned()), None);
    }

    #[test]
    fn a_zone_is_what_one_owner_has() {
        let table = [
            ("localhost", "localhost"),
            ("example.com", "example.com"),
            ("a.b.example.com.", "example.com"),
            ("web.marathon.mesos", "marathon.mesos"),
            ("a.b.example.co.uk", "example.co.uk"),
            ("example.co.uk", "example.co.uk"),
            ("a.example.de", "example.de"),
            ("x.ibm.de", "x.ibm.de"),
            ("", ""),
            ("..", "."),
        ];
        for (name, zone) in table {
            assert_eq!(zone_of(name), zone, "{name}");
        }
    }

    #[test]
    fn one_zone_has_few_look_ups_at_a_time_and_the_others_are_next() {
        let mut queue = Queue::default();
        for number in 0..100 {
            push(&mut queue, &format!("{number}.busy.test"));
        }
        push(&mut queue, "one.test");
        let begun = begin(&mut queue, 0);
        assert_eq!(begun.len(), MAX_PER_ZONE + 1);
        assert!(items(&begun).contains(&"one.test"));
        queue.ended("busy.test", begun[0].number, 1);
        assert_eq!(items(&begin(&mut queue, 1)), ["4.busy.test"], "in their order");
    }

    #[test]
    fn zones_that_hang_leave_some_to_those_that_do_not() {
        let mut queue = Queue::default();
        for number in 0..200 {
            push(&mut queue, &format!("n{number}.hangs{}.test", number % 50));
        }
        let mut running = begin(&mut queue, 0);
        assert_eq!(running.len(), MAX_QUICK, "nothing hangs as far as is known");
        for time in [10_000, 20_000, 30_000] {
            for next in running.drain(..) {
                queue.ended(&next.zone, next.number, time);
            }
            running = begin(&mut queue, time);
            assert!(running.len() >= MAX_HANGING && running.len() <= MAX_QUICK);
        }
        assert_eq!(running.len(), MAX_HANGING);
        push(&mut queue, "a.new.test");
        running.extend(begin(&mut queue, 30_001));
        assert_eq!(running.last().unwrap().item, "a.new.test");
    }

    #[test]
    fn look_ups_that_hang_make_room_for_other_zones_within_a_bound() {
        let mut queue = Queue::default();
        for number in 0..24 {
            push(&mut queue, &format!("n{number}.hangs{}.test", number % 8));
        }
        assert_eq!(begin(&mut queue, 0).len(), 24);
        let mut now = SLOW + 1;
        push(&mut queue, "n.hangs1.test");
        for number in 0..200 {
            push(&mut queue, &format!("n.new{number}.test"));
        }
        let mut running = 24;
        for begins in [MAX_QUICK, MAX_QUICK, MAX_QUICK, MAX_RUNNING - 24 - 3 * MAX_QUICK, 0] {
            let begun = begin(&mut queue, now);
            running += begun.len();
            assert_eq!(begun.len(), begins);
            assert!(!items(&begun).contains(&"n.hangs1.test"));
            assert_eq!(begin(&mut queue, now + SLOW).len(), 0);
            now += SLOW + 1;
        }
        assert_eq!(running, MAX_RUNNING);
    }

    #[test]
    fn look_ups_that_wait_are_bounded() {
        let mut queue = Queue::default();
        for _ in 0..MAX_WAITING {
            push(&mut queue, "a.test");
        }
        assert_eq!(queue.push("b.test", "b.test".to_owned()).as_deref(), Some("b.test"));
        assert_eq!(begin(&mut queue, 0).len(), MAX_PER_ZONE);
        push(&mut queue, "b.test");
    }

    #[test]
    fn nothing_is_remembered_for_good() {
        let mut queue = Queue::default();
        for time in [0, SLOW + 1, SLOW + 2 + REMEMBERED] {
            push(&mut queue, "a.test");
            let begun = begin(&mut queue, time);
            queue.ended(&begun[0].zone, begun[0].number, time + SLOW);
        }
        assert!(queue.zones.is_empty() && queue.running == 0);
        push(&mut queue, "a.test");
        let begun = begin(&mut queue, 0);
        queue.ended("a.test", begun[0].number, SLOW + 1);
        assert_eq!(queue.zones.len(), 1);
        push(&mut queue, "b.test");
        let begun = begin(&mut queue, SLOW + 1 + REMEMBERED);
        queue.ended("b.test", begun[0].number, SLOW + 1 + REMEMBERED);
        assert!(queue.zones.is_empty());
    }
}
