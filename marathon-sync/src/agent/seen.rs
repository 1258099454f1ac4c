//! What events said for sure, for as long as it counts. Pure.
//!
//! An answer may be older than an event, and a standby may be behind its leader by seconds. So what
//! an event said goes on to count for some minutes: ids of tasks are never used twice.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

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
}

impl SeenLog {
    /// A task is being killed or has ended. Returns whether that is news.
    pub fn ended(&mut self, task: &str, now: Instant) -> bool {
        let is_new = self.seen.ended.insert(task.to_owned());
        if is_new {
            self.push(Entry::Ended(task.to_owned()), now);
        }
        is_new
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
        let Self { seen, order } = self;
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
            Some((_, Entry::Ended(task))) => self.seen.ended.remove(&task),
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
        assert!(log.ended("t.1", start) && !log.ended("t.1", start + KEEP / 2));
        assert!(log.deleted("/a", start + KEEP / 2));
        assert!(log.at(start + KEEP / 2).ended.contains("t.1"));
        assert!(log.at(start + KEEP).ended.is_empty());
        assert!(log.at(start + KEEP).deleted.contains("/a"));
        for number in 0..=CAPACITY {
            log.ended(&format!("t.{number}"), start + KEEP);
        }
        let seen = log.at(start + KEEP);
        assert_eq!((seen.ended.len(), seen.deleted.len()), (CAPACITY, 0));
        assert!(!seen.ended.contains("t.0"));
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
