//! What events said for sure, for as long as it counts. Pure.
//!
//! An answer may be older than an event, and a standby may be behind its leader by seconds. So what
//! an event said goes on to count for some minutes, unless a later one says that a task is started again
//! under its id, as Marathon 1.0 to 1.4 does with resident tasks.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::marathon::events::Gone;
use crate::rules::Seen;

/// How long an event counts. Longer than any answer is behind.
const KEEP: Duration = Duration::from_secs(600);
/// Events that count at once: more than a cluster of the size that we are made for can end in ten
/// minutes. Beyond that the oldest go.
const CAPACITY: usize = 100_000;

/// One thing that an event said.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Entry {
    Ended(String),
    Deleted(String),
}

/// What events said.
#[derive(Debug, Default)]
pub struct SeenLog {
    seen: Seen,
    order: VecDeque<(Instant, Entry)>,
    /// Those of the ended tasks that were only said to be killed.
    killing: HashSet<String>,
}

impl SeenLog {
    /// A task is being killed or has ended. Returns whether that is news.
    pub fn ended(&mut self, task: &str, how: Gone, now: Instant) -> bool {
        let is_new = self.seen.ended.insert(task.to_owned());
        match how {
            Gone::Killing if is_new => drop(self.killing.insert(task.to_owned())),
            Gone::Killing => {}
            Gone::Terminal => drop(self.killing.remove(task)),
        }
        if is_new {
            self.push(Entry::Ended(task.to_owned()), now);
        }
        is_new
    }

    /// A task is staged or starting, or runs. One that had ended has begun another life; but that one
    /// which is being killed still runs is no news.
    pub fn started(&mut self, task: &str, is_running: bool) {
        if (is_running && self.killing.contains(task)) || !self.seen.ended.remove(task) {
            return;
        }
        self.killing.remove(task);
        self.order.retain(|(_, entry)| !matches!(entry, Entry::Ended(ended) if ended == task));
    }

    /// An app was deleted. Returns whether that is news.
    pub fn deleted(&mut self, app: &str, now: Instant) -> bool {
        let is_new = self.seen.deleted.insert(app.to_owned());
        if is_new {
            self.push(Entry::Deleted(app.to_owned()), now);
        }
        is_new
    }

    /// An answer that was asked for at `asked` lists `apps`: those that were deleted before exist
    /// again.
    pub fn listed<'a>(&mut self, apps: impl IntoIterator<Item = &'a str>, asked: Instant) {
        if self.seen.deleted.is_empty() {
            return;
        }
        let Self { seen, order, .. } = self;
        // Each of the many apps and events is looked at once.
        let apps: HashSet<&str> =
            apps.into_iter().filter(|app| seen.deleted.contains(*app)).collect();
        if apps.is_empty() {
            return;
        }
        order.retain(|(when, what)| match what {
            Entry::Deleted(app) if *when < asked && apps.contains(app.as_str()) => {
                !seen.deleted.remove(app)
            }
            Entry::Deleted(_) | Entry::Ended(_) => true,
        });
    }

    /// What counts at `now`.
    pub fn at(&mut self, now: Instant) -> &Seen {
        while let Some((when, _)) = self.order.front()
            && now.saturating_duration_since(*when) >= KEEP
        {
            self.forget_first();
        }
        &self.seen
    }

    fn push(&mut self, entry: Entry, now: Instant) {
        self.order.push_back((now, entry));
        if self.order.len() > CAPACITY {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let _known = match self.order.pop_front() {
            Some((_, Entry::Ended(task))) => {
                self.killing.remove(&task);
                self.seen.ended.remove(&task)
            }
            Some((_, Entry::Deleted(app))) => self.seen.deleted.remove(&app),
            None => false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_count_for_ten_minutes_and_are_bounded() {
        let start = Instant::now();
        let mut log = SeenLog::default();
        assert!(
            log.ended("t.1", Gone::Terminal, start)
                && !log.ended("t.1", Gone::Terminal, start + KEEP / 2)
        );
        assert!(log.deleted("/a", start + KEEP / 2));
        assert!(log.at(start + KEEP / 2).ended.contains("t.1"));
        assert!(log.at(start + KEEP).ended.is_empty());
        assert!(log.at(start + KEEP).deleted.contains("/a"));
        for number in 0..=CAPACITY {
            log.ended(&format!("t.{number}"), Gone::Killing, start + KEEP);
        }
        let seen = log.at(start + KEEP);
        assert_eq!((seen.ended.len(), seen.deleted.len()), (CAPACITY, 0));
        assert!(!seen.ended.contains("t.0"));
    }

    #[test]
    fn task_that_starts_after_its_end_begins_another_life() {
        use Gone::{Killing, Terminal};
        let now = Instant::now();
        for (ends, is_running, has_ended) in [
            (&[Terminal][..], true, false),
            (&[Terminal], false, false),
            (&[Killing, Terminal], true, false),
            (&[Killing], false, false),
            // It is being killed, and still runs.
            (&[Killing], true, true),
        ] {
            let mut log = SeenLog::default();
            for how in ends {
                log.ended("t.1", *how, now);
            }
            log.started("t.1", is_running);
            assert_eq!(log.at(now).ended.contains("t.1"), has_ended, "{ends:?} {is_running}");
            // Its next end is news, and counts for as long as any.
            assert_eq!(log.ended("t.1", Terminal, now + KEEP / 2), !has_ended);
            assert_eq!(log.at(now + KEEP).ended.contains("t.1"), !has_ended);
        }
    }

    #[test]
    fn an_app_that_is_listed_after_its_end_exists_again() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        for (asked, exists_again) in [(start, false), (later, true)] {
            let mut log = SeenLog::default();
            log.deleted("/a", start);
            log.listed(["/b", "/a"], asked);
            assert_eq!(log.at(later).deleted.is_empty(), exists_again);
        }
    }
}
