//! From a plan and what stands in Redis to what is to change. Pure.
//!
//! Whoever is not in the plan and not in our notes is not even looked at.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use shared::store::KeyProblem;

use super::backend::Backend;
use super::change::{Action, Change, Removed, backends};
use super::owned::Owned;
use super::snapshot::Snapshot;
use crate::plan::{Plan, Wanted};

/// What is to change, and what cannot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Difference {
    /// In the order of writing: those that add nothing come first, because Mesos may give an address
    /// that is gone to another app at any moment, and because they make room in a Redis that is full;
    /// then by host. A list that is as it should be is not among them.
    pub changes: Vec<Change>,
    /// Keys of claimed or owned hosts that are no lists: they are left alone.
    pub problems: Vec<KeyProblem>,
}

/// Compares the plan with what stands in Redis.
pub fn diff(plan: &Plan, snapshot: &Snapshot) -> Difference {
    let mut difference = Difference::default();
    for host in hosts(plan, snapshot.owned.keys()) {
        let list = match snapshot.lists.get(host) {
            Some(Ok(list)) => list.as_slice(),
            Some(Err(problem)) => {
                difference.problems.push(problem.clone());
                continue;
            }
            None => &[],
        };
        let owned = snapshot.owned.get(host);
        let change = match (plan.get(host), owned) {
            (Some(wanted), owned) => claimed(host, wanted, list, owned),
            (None, Some(owned)) => Some(given_up(host, list, owned)),
            (None, None) => None,
        };
        difference.changes.extend(change);
    }
    difference.changes.sort_by_key(|change| !change.added.is_empty());
    difference
}

/// The hosts that matter: claimed or owned.
pub fn hosts<'a>(
    plan: &'a Plan,
    owned: impl IntoIterator<Item = &'a String>,
) -> BTreeSet<&'a String> {
    plan.keys().chain(owned).collect()
}

/// An app claims the host: its list is the identifier, the survivors in their order, and the
/// missing live backends behind. Everything else goes, whoever put it there: the bridge's rule, but for
/// [`Wanted::keeps_others`]. A backend that is listed twice stays listed twice, which is how people give
/// weights.
fn claimed(host: &str, wanted: &Wanted, list: &[Vec<u8>], owned: Option<&Owned>) -> Option<Change> {
    if is_as_wanted(wanted, list, owned) {
        return None;
    }
    let may_stay: HashSet<Backend> =
        wanted.up.iter().chain(&wanted.unsure).map(|row| Backend::of(row.as_bytes())).collect();
    let again = wanted.again.iter().map(String::as_bytes);
    let others: HashSet<Backend> =
        wanted.others.iter().map(Vec::as_slice).chain(again).map(Backend::of).collect();
    let ours = ours(owned);
    let (mut kept, mut removed, mut rows) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut listed = HashSet::new();
    for (position, row) in backends(list).iter().enumerate() {
        let backend = Backend::of(row);
        let is_ours = ours.contains(&backend);
        let is_wanted = may_stay.contains(&backend);
        let stays = others.contains(&backend) || (wanted.keeps_others && !is_ours);
        if !is_wanted && !stays {
            removed.push(Removed { row: row.clone(), by_hand: !is_ours });
            continue;
        }
        kept.push(position);
        if is_wanted || is_ours {
            // Lossless: what is equal to a row of the plan or of a note is text.
            rows.insert(String::from_utf8_lossy(row).into_owned());
        }
        listed.insert(backend);
    }
    let missing = wanted.up.iter().filter(|row| listed.insert(Backend::of(row.as_bytes())));
    let mut added: Vec<String> = missing.cloned().collect();
    rows.extend(added.iter().cloned());
    let again = wanted.again.iter().filter(|row| listed.insert(Backend::of(row.as_bytes())));
    added.extend(again.cloned());

    let made = list.is_empty() || owned.is_some_and(|owned| owned.made);
    let note = Owned { made, rows, apps: apps(wanted, owned, &listed) };
    let action = if list.is_empty() {
        Action::Create
    } else if added.is_empty() && removed.is_empty() {
        if owned == Some(&note) {
            return None;
        }
        Action::Adopt
    } else {
        Action::Update
    };
    let identifier =
        list.first().map_or_else(|| wanted.identifier.clone().into_bytes(), Vec::clone);
    Some(Change {
        host: host.to_owned(),
        action,
        seen: list.to_vec(),
        identifier,
        kept,
        added,
        removed,
        owned: Some(note),
    })
}

/// Whether list and note are letter by letter what is wanted, as nearly all of them are nearly always:
/// then no row has to be taken apart.
fn is_as_wanted(wanted: &Wanted, list: &[Vec<u8>], owned: Option<&Owned>) -> bool {
    let Some(owned) = owned.filter(|_| !list.is_empty()) else { return false };
    let listed: HashSet<&[u8]> = backends(list).iter().map(Vec::as_slice).collect();
    let up: HashSet<&[u8]> = wanted.up.iter().map(String::as_bytes).collect();
    let [app] = wanted.apps.as_slice() else { return false };
    listed == up
        && owned.rows.len() == up.len()
        && wanted.up.iter().all(|row| owned.rows.contains(row))
        && owned.apps.len() == 1
        && owned.apps.get(app).is_some_and(BTreeSet::is_empty)
}

/// What the note says of the apps. While only the guard keeps the host, that is what it said before.
fn apps(
    wanted: &Wanted,
    owned: Option<&Owned>,
    listed: &HashSet<Backend>,
) -> BTreeMap<String, BTreeSet<String>> {
    match wanted.apps.as_slice() {
        [] => owned.map(|owned| owned.apps.clone()).unwrap_or_default(),
        [app] => [(app.clone(), BTreeSet::new())].into(),
        several => {
            let is_listed = |row: &&String| listed.contains(&Backend::of(row.as_bytes()));
            let share = |app| wanted.shares.get(app).into_iter().flatten().filter(is_listed);
            several.iter().map(|app| (app.clone(), share(app).cloned().collect())).collect()
        }
    }
}

/// No app claims the host any more: our backends go, and the list with them if it is ours and
/// nothing else is in it.
fn given_up(host: &str, list: &[Vec<u8>], owned: &Owned) -> Change {
    let ours = ours(Some(owned));
    let (mut kept, mut removed) = (Vec::new(), Vec::new());
    for (position, row) in backends(list).iter().enumerate() {
        if ours.contains(&Backend::of(row)) {
            removed.push(Removed { row: row.clone(), by_hand: false });
        } else {
            kept.push(position);
        }
    }
    let action = match (list.is_empty(), owned.made && kept.is_empty()) {
        (true, _) => Action::Forget,
        (false, true) => Action::Delete,
        (false, false) => Action::Release,
    };
    Change {
        host: host.to_owned(),
        action,
        seen: list.to_vec(),
        identifier: list.first().cloned().unwrap_or_default(),
        kept,
        added: Vec::new(),
        removed,
        owned: None,
    }
}

fn ours(owned: Option<&Owned>) -> HashSet<Backend> {
    let rows = owned.into_iter().flat_map(|owned| &owned.rows);
    rows.map(|row| Backend::of(row.as_bytes())).collect()
}

#[cfg(test)]
mod tests;
