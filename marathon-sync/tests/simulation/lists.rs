//! Redis as the scripts of `routes::scripts` use it, in memory.

use std::collections::{BTreeMap, BTreeSet};

use marathon_sync::routes::change::{Action, Change};
use marathon_sync::routes::snapshot::Snapshot;

pub(crate) type Rows = Vec<Vec<u8>>;

/// Something that was done to Redis.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    /// Everything was lost.
    Lost,
    /// Somebody marked these positions of a host as dead.
    Marked(String, BTreeSet<usize>),
    /// Somebody put this list there.
    Put(String, Rows),
    /// The script ran.
    Written(Change),
}

#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// What was done, in its order.
    pub(crate) done: Vec<Done>,
    pub(crate) now: Snapshot,
    /// Positions that are marked as dead, by host.
    pub(crate) dead: BTreeMap<String, BTreeSet<usize>>,
}

impl Lists {
    pub(crate) fn rows(&self, host: &str) -> Rows {
        self.now.lists.get(host).map(|list| list.clone().unwrap()).unwrap_or_default()
    }

    /// The backends of a host.
    pub(crate) fn backends(&self, host: &str) -> Vec<String> {
        let rows = self.rows(host);
        rows.iter().skip(1).map(|row| String::from_utf8(row.clone()).unwrap()).collect()
    }

    /// Somebody puts a list there.
    pub(crate) fn put(&mut self, host: &str, rows: Rows) {
        self.done.push(Done::Put(host.to_owned(), rows.clone()));
        self.set(host, rows);
    }

    /// Somebody marks backends as dead.
    pub(crate) fn mark(&mut self, host: &str, positions: BTreeSet<usize>) {
        self.done.push(Done::Marked(host.to_owned(), positions.clone()));
        drop(self.dead.insert(host.to_owned(), positions));
    }

    fn set(&mut self, host: &str, rows: Rows) {
        if rows.is_empty() {
            drop(self.now.lists.remove(host));
        } else {
            drop(self.now.lists.insert(host.to_owned(), Ok(rows)));
        }
    }

    /// The script: all of a change, or, when the list is not what was seen, nothing.
    pub(crate) fn write(&mut self, change: &Change) -> bool {
        let list = self.rows(&change.host);
        if list != change.seen {
            return false;
        }
        match &change.owned {
            Some(note) => drop(self.now.owned.insert(change.host.clone(), note.clone())),
            None => drop(self.now.owned.remove(&change.host)),
        }
        let mut after = list.clone();
        if change.action == Action::Delete {
            after.clear();
        } else {
            if change.action == Action::Create {
                after.push(change.identifier.clone());
            }
            if change.kept.len() + 1 < list.len() {
                let kept = change.kept.iter().map(|position| list[position + 1].clone());
                after = std::iter::once(list[0].clone()).chain(kept).collect();
            }
            after.extend(change.added.iter().map(|row| row.clone().into_bytes()));
        }
        Self::judge(change, &list, &after);
        let marks = self.dead.remove(&change.host).unwrap_or_default();
        let moved = |mark: &usize| change.kept.iter().position(|kept| kept == mark);
        let mut moved: BTreeSet<usize> = marks.iter().filter_map(moved).collect();
        for (mark, row) in marks.iter().filter_map(|mark| Some((mark, list.get(mark + 1)?))) {
            let place = after.iter().skip(1).position(|other| other == row);
            assert!(place.is_none_or(|place| moved.contains(&place)), "{mark} got lost: {change}");
        }
        // The only backend that an edit leaves is never marked.
        if after != list && after.len() <= 2 {
            moved.clear();
        }
        if !after.is_empty() && !moved.is_empty() {
            drop(self.dead.insert(change.host.clone(), moved));
        }
        self.set(&change.host, after);
        self.done.push(Done::Written(change.clone()));
        true
    }

    /// What holds for every list at every moment: a reader of it sees nothing else.
    fn judge(change: &Change, before: &[Vec<u8>], after: &[Vec<u8>]) {
        assert_eq!(after, change.after(), "{change}");
        let Some((identifier, rows)) = after.split_first() else { return };
        assert!(!identifier.is_empty(), "a list begins with its identifier: {change}");
        assert!(before.first().is_none_or(|first| first == identifier), "{change}");
        let survivors: Rows =
            before.iter().skip(1).filter(|row| rows.contains(row)).cloned().collect();
        assert!(rows.starts_with(&survivors), "survivors keep their order: {change}");
        assert!(change.added.iter().all(|row| !before.contains(&row.clone().into_bytes())));
    }

    pub(crate) fn lose_everything(&mut self) {
        self.done.push(Done::Lost);
        self.now = Snapshot::default();
        self.dead.clear();
    }
}
