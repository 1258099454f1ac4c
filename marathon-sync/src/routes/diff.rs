//! From a plan and what stands in Redis to what is to change. Pure.
//!
//! Whoever is not in the plan and not in our notes is not even looked at. A list that several instances
//! claim is the union of what each of them notes: no instance removes a row that another one notes, nor
//! notes it unless it wants it itself. Whoever gives such a row up last removes it.

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
            (Some(wanted), owned) => claimed(host, wanted, list, owned, snapshot),
            (None, Some(owned)) => Some(given_up(host, list, owned, snapshot)),
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
fn claimed(
    host: &str,
    wanted: &Wanted,
    list: &[Vec<u8>],
    owned: Option<&Owned>,
    snapshot: &Snapshot,
) -> Option<Change> {
    // Whoever of the instances gives the list up last deletes it if any of them made it.
    let is_made = owned.is_some_and(|owned| owned.made)
        || snapshot.foreign(host).iter().any(|foreign| foreign.owned.made);
    if is_as_wanted(wanted, list, owned.filter(|owned| owned.made == is_made)) {
        return None;
    }
    let theirs = snapshot.foreign_backends(host);
    let Sorted { kept, removed, mut rows, mut listed } = sort(wanted, list, owned, &theirs);
    let missing = wanted.up.iter().filter(|row| listed.insert(Backend::of(row.as_bytes())));
    let mut added: Vec<String> = missing.cloned().collect();
    rows.extend(added.iter().cloned());
    let again = wanted.again.iter().filter(|row| listed.insert(Backend::of(row.as_bytes())));
    added.extend(again.cloned());

    let made = list.is_empty() || is_made;
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
        records: records(host, snapshot),
    })
}

/// What becomes of the rows of a claimed list.
#[derive(Default)]
struct Sorted {
    kept: Vec<usize>,
    removed: Vec<Removed>,
    /// Those of the kept ones that are to be noted.
    rows: BTreeSet<String>,
    /// What the kept ones stand for.
    listed: HashSet<Backend>,
}

/// `theirs`: what other instances note.
fn sort(
    wanted: &Wanted,
    list: &[Vec<u8>],
    owned: Option<&Owned>,
    theirs: &HashSet<Backend>,
) -> Sorted {
    let may_stay: HashSet<Backend> =
        wanted.up.iter().chain(&wanted.unsure).map(|row| Backend::of(row.as_bytes())).collect();
    let again = wanted.again.iter().map(String::as_bytes);
    let others: HashSet<Backend> =
        wanted.others.iter().map(Vec::as_slice).chain(again).map(Backend::of).collect();
    let ours = ours(owned);
    let mut sorted = Sorted::default();
    for (position, row) in backends(list).iter().enumerate() {
        let backend = Backend::of(row);
        let is_ours = ours.contains(&backend);
        let is_wanted = may_stay.contains(&backend);
        let stays = others.contains(&backend) || (wanted.keeps_others && !is_ours);
        let is_theirs = theirs.contains(&backend);
        if !is_wanted && !stays && !is_theirs {
            sorted.removed.push(Removed { row: row.clone(), by_hand: !is_ours });
            continue;
        }
        sorted.kept.push(position);
        // One that only another instance wants by now is that instance's.
        if is_wanted || (is_ours && (stays || !is_theirs)) {
            // Lossless: what is equal to a row of the plan or of a note is text.
            sorted.rows.insert(String::from_utf8_lossy(row).into_owned());
        }
        sorted.listed.insert(backend);
    }
    sorted
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
/// nothing else is in it. What another instance notes stays, also a list without a backend.
fn given_up(host: &str, list: &[Vec<u8>], owned: &Owned, snapshot: &Snapshot) -> Change {
    let ours = ours(Some(owned));
    let theirs = snapshot.foreign_backends(host);
    let is_shared = !snapshot.foreign(host).is_empty();
    let (mut kept, mut removed) = (Vec::new(), Vec::new());
    for (position, row) in backends(list).iter().enumerate() {
        let backend = Backend::of(row);
        if ours.contains(&backend) && !theirs.contains(&backend) {
            removed.push(Removed { row: row.clone(), by_hand: false });
        } else {
            kept.push(position);
        }
    }
    let action = match (list.is_empty(), owned.made && kept.is_empty() && !is_shared) {
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
        records: records(host, snapshot),
    }
}

/// What each other instance notes of the host.
fn records(host: &str, snapshot: &Snapshot) -> Vec<(String, Vec<u8>)> {
    let foreign = snapshot.foreign(host);
    let record = |instance: &String| {
        let note = foreign.iter().find(|foreign| foreign.instance == *instance);
        (instance.clone(), note.map(|foreign| foreign.text.clone()).unwrap_or_default())
    };
    snapshot.instances.iter().map(record).collect()
}

fn ours(owned: Option<&Owned>) -> HashSet<Backend> {
    let rows = owned.into_iter().flat_map(|owned| &owned.rows);
    rows.map(|row| Backend::of(row.as_bytes())).collect()
}

#[cfg(test)]
mod tests;
