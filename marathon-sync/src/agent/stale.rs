//! What may be written from an answer that is too old, after another process wrote. Pure.
//!
//! The other one knew better, so what stands in Redis stays as it is. But when Redis has lost it, the
//! old answer is the best that is left: routes to some tasks that are gone are better than none.

use std::collections::BTreeMap;

use crate::plan::Plan;
use crate::routes::change::Change;
use crate::routes::diff::diff;
use crate::routes::snapshot::Snapshot;

/// Whether Redis has nothing of what this instance wrote. Its notes go with the last host, so that
/// also an instance that never had a host looks like that: then there is nothing to spoil.
pub fn is_lost(snapshot: &Snapshot) -> bool {
    snapshot.owned.is_empty()
}

/// `plan` without any removal: what is listed stays, and lists that nobody claims are not in it.
pub fn additive(plan: &Plan, snapshot: &Snapshot) -> Plan {
    let mut plan = plan.clone();
    for (host, wanted) in &mut plan {
        wanted.others.extend_from_slice(snapshot.backends(host));
    }
    plan
}

/// The changes of an [`additive`] plan.
pub fn additions(plan: &Plan, snapshot: &Snapshot) -> Vec<Change> {
    let mut changes = diff(plan, snapshot).changes;
    changes.retain(|change| plan.contains_key(&change.host));
    changes
}

/// How many of the `wanted` changes are not, or not wholly, among `additions`.
pub fn left(wanted: &[Change], additions: &[Change]) -> usize {
    let additions: BTreeMap<&str, &Change> =
        additions.iter().map(|change| (change.host.as_str(), change)).collect();
    wanted.iter().filter(|change| additions.get(change.host.as_str()) != Some(change)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Wanted;
    use crate::routes::owned::Owned;

    fn list(rows: &[&str]) -> Vec<Vec<u8>> {
        rows.iter().map(|row| row.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_stale_answer_adds_and_removes_nothing() {
        let (old, new) = ("http://old:1", "http://new:1");
        let wanted =
            Wanted { identifier: "id".to_owned(), up: vec![new.to_owned()], ..Wanted::default() };
        let plan: Plan =
            ["lost", "stands", "binary"].map(|host| (host.to_owned(), wanted.clone())).into();
        let mut snapshot = Snapshot::default();
        snapshot.lists.insert("stands".to_owned(), Ok(list(&["id", old])));
        snapshot.lists.insert("binary".to_owned(), Ok(vec![b"id".to_vec(), vec![0xff]]));
        snapshot.lists.insert("unclaimed".to_owned(), Ok(list(&["id", old])));
        assert!(is_lost(&snapshot));
        let note = Owned { made: true, rows: [old.to_owned()].into(), ..Owned::default() };
        snapshot.owned.insert("unclaimed".to_owned(), note);
        assert!(!is_lost(&snapshot));
        let additive = additive(&plan, &snapshot);
        let changes = additions(&additive, &snapshot);
        let after: Vec<_> =
            changes.iter().map(|change| (change.host.as_str(), change.after())).collect();
        assert_eq!(left(&diff(&plan, &snapshot).changes, &changes), 3, "all but the lost one");
        let binary = vec![b"id".to_vec(), vec![0xff], new.as_bytes().to_vec()];
        let (lost, stands) = (list(&["id", new]), list(&["id", old, new]));
        assert_eq!(after, [("binary", binary), ("lost", lost), ("stands", stands)]);
        let notes = changes.iter().filter_map(|change| change.owned.as_ref());
        let is_ours = |owned: &Owned| owned.rows == [new.to_owned()].into();
        assert!(notes.clone().all(is_ours), "what only stays is not ours");
    }
}
