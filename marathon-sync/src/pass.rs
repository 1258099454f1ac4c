//! One pass, pure: from Marathon's answer and what stands in Redis to what is to be written.
//!
//! ```text
//! answer ── desired ──▶ wish ── (its lists are read from Redis) ──▶ conclude ──▶ Pass
//!             ▲ Memory                                                ▲ Guard
//! ```
//!
//! [`pass`] is all of it, for whoever has all of Redis at hand. The agent reads the lists of the
//! hosts that the wish names in between, and so calls the two halves.

mod listed;
pub mod narrow;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::document::Answer;
use crate::guard::{Guard, Held, Judged, Limits};
use crate::plan::Plan;
use crate::routes::backend::Backend;
use crate::routes::change::backends;
use crate::routes::diff::{Difference, diff};
use crate::routes::snapshot::Snapshot;
use crate::rules::desired::Evidence;
use crate::rules::labels::identifier;
use crate::rules::memory::Memory;
use crate::rules::report::AppReport;
use crate::rules::{Desired, Options, Seen, desired};
use listed::{Listed, Lost, Rows};

/// What goes on from pass to pass.
#[derive(Clone, Debug)]
pub struct State {
    /// What earlier answers said.
    pub memory: Memory,
    /// Which removals wait for confirmation.
    pub guard: Guard,
    /// What was listed.
    pub listed: Listed,
}

impl State {
    /// Knows nothing.
    pub fn new(limits: Limits) -> Self {
        Self { memory: Memory::default(), guard: Guard::new(limits), listed: Listed::default() }
    }
}

/// When and why there is a pass.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Why.
    pub occasion: Occasion,
    /// Of day, to compare with what Marathon says.
    pub wall: Timestamp,
    /// Since the start of the process; never goes back.
    pub clock: Duration,
}

/// Why there is a pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Occasion {
    /// A new answer, which counts as an observation.
    Answer,
    /// The last answer is looked at again, because an event or Redis has news: it confirms nothing.
    Again,
}

/// What a pass comes to.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// What each host is to have, after the guard.
    pub plan: Arc<Plan>,
    /// What became of each app, by id.
    pub apps: BTreeMap<String, Arc<AppReport>>,
    /// Hosts that several apps claim, with their ids.
    pub shared: BTreeMap<String, Vec<String>>,
    /// Claimed hosts that other instances list backends for as well, with the names of those.
    pub instances: BTreeMap<String, Vec<String>>,
    /// Removals that are not believed yet.
    pub held: Option<Held>,
    /// What is to be written.
    pub difference: Difference,
}

/// A whole pass. `snapshot` holds at least the lists and notes of the hosts that `answer` claims and
/// of those that we own.
pub fn pass(
    answer: &Answer,
    state: &mut State,
    options: &Options,
    seen: &Seen,
    snapshot: &Snapshot,
    now: Now,
) -> Pass {
    let wish = desired(answer, &mut state.memory, options, seen, now.wall);
    conclude(wish, state, snapshot, now.occasion, now.clock)
}

/// The second half: judges the wish and compares it with Redis.
pub fn conclude(
    wish: Desired,
    state: &mut State,
    snapshot: &Snapshot,
    occasion: Occasion,
    clock: Duration,
) -> Pass {
    let Desired { mut plan, apps, shared, evidence } = wish;
    let lost = state.listed.lost(snapshot).clone();
    keep_others(&mut plan, snapshot, &lost);
    let instances = keep_foreign(&mut plan, snapshot);
    let managed = managed(&plan, snapshot, &lost);
    keep_listed(&mut plan, &managed, &evidence);
    let Judged { mut plan, held } = match occasion {
        Occasion::Answer => state.guard.judge(&managed, plan, &evidence, clock),
        Occasion::Again => state.guard.judge_again(&managed, plan, &evidence, clock),
    };
    for (host, wanted) in &mut plan {
        // Only the guard keeps it: what others have put there is not an app's to remove.
        if wanted.apps.is_empty() {
            wanted.keeps_others = true;
            wanted.others = others(snapshot, host);
            let name = state.listed.identifier(host).cloned();
            wanted.identifier = name.unwrap_or_else(|| identifier(host, host));
        }
    }
    for (host, rows) in held.iter().flat_map(|held| &held.rows) {
        let Some(wanted) = plan.get_mut(host) else { continue };
        // That the guard holds a row does not make it one that an app wanted.
        let ours = snapshot.owned.get(host).map(|owned| &owned.rows);
        let is_ours =
            |row: &String| ours.is_some_and(|ours| ours.contains(row)) || lost.is_ours(host, row);
        let others = wanted.unsure.extract_if(.., |row| rows.contains(row) && !is_ours(row));
        wanted.others.extend(others.map(String::into_bytes));
    }
    for (host, rows) in &lost.ours {
        let Some(wanted) = plan.get_mut(host) else { continue };
        // Only kept, but Redis does not keep it any more.
        let again = wanted.unsure.extract_if(.., |row| rows.contains(row));
        wanted.up.extend(again);
    }
    for (host, rows) in &lost.others {
        let Some(wanted) = plan.get_mut(host) else { continue };
        let stays = |row: &&String| {
            wanted.keeps_others || wanted.others.iter().any(|o| o == row.as_bytes())
        };
        wanted.again = rows.iter().filter(stays).cloned().collect();
    }
    let mut difference = diff(&plan, snapshot);
    difference.changes.retain(|change| {
        change.is_visible() || plan.get(&change.host).is_none_or(|wanted| !wanted.apps.is_empty())
    });
    let plan = Arc::new(plan);
    state.listed.note(&plan, snapshot);
    Pass { plan, apps, shared, instances, held, difference }
}

/// While not all is known of what an app wants, a row that somebody has added may be what keeps its
/// host up. Where nothing is known of its past either, and nothing is noted, all rows may be its own,
/// and [`keep_listed`] sees to them.
fn keep_others(plan: &mut Plan, snapshot: &Snapshot, lost: &Lost) {
    for (host, wanted) in plan.iter_mut().filter(|(_, wanted)| wanted.keeps_others) {
        let is_noted = snapshot.owned.contains_key(host) || lost.ours.contains_key(host);
        wanted.keeps_others = is_noted || !wanted.keeps_listed;
        if wanted.keeps_others {
            wanted.others = others(snapshot, host);
        }
    }
}

/// Rows that another instance notes, and our note does not have, are not ours to remove. Returns the hosts
/// that other instances have a part in.
fn keep_foreign(plan: &mut Plan, snapshot: &Snapshot) -> BTreeMap<String, Vec<String>> {
    let mut instances = BTreeMap::new();
    for (host, foreign) in &snapshot.foreign {
        let Some(wanted) = plan.get_mut(host) else { continue };
        let theirs = snapshot.foreign_backends(host);
        let rows = others(snapshot, host);
        let rows = rows.into_iter().filter(|row| theirs.contains(&Backend::of(row)));
        let rows: Vec<Vec<u8>> = rows.filter(|row| !wanted.others.contains(row)).collect();
        wanted.others.extend(rows);
        let names = foreign.iter().map(|foreign| foreign.instance.clone());
        let _new = instances.insert(host.clone(), names.collect());
    }
    instances
}

/// The rows of a list that our note does not have.
fn others(snapshot: &Snapshot, host: &str) -> Vec<Vec<u8>> {
    let ours = snapshot.owned.get(host).into_iter().flat_map(|owned| &owned.rows);
    let ours: HashSet<Backend> = ours.map(|row| Backend::of(row.as_bytes())).collect();
    let rows = snapshot.backends(host).iter();
    rows.filter(|row| !ours.contains(&Backend::of(row))).cloned().collect()
}

/// Where nothing is known of the past of an app that is not wholly shown, everything stays but for
/// what has a reason to go.
fn keep_listed(plan: &mut Plan, managed: &Rows, evidence: &Evidence) {
    let hosts = plan.iter().filter(|(_, wanted)| wanted.keeps_listed);
    let hosts: Vec<String> = hosts.map(|(host, _)| host.clone()).collect();
    for host in hosts {
        let Some(rows) = managed.get(&host) else { continue };
        let stay: Vec<String> =
            rows.iter().filter(|row| !evidence.explains(&host, row, plan)).cloned().collect();
        if let Some(wanted) = plan.get_mut(&host) {
            let up: HashSet<&String> = wanted.up.iter().chain(&wanted.unsure).collect();
            let stay: Vec<String> = stay.into_iter().filter(|row| !up.contains(row)).collect();
            wanted.unsure.extend(stay);
        }
    }
}

/// What Redis tells a process that starts: lists of apps that cannot be read at first stay.
pub fn restore(state: &mut State, snapshot: &Snapshot) {
    let State { memory, listed, .. } = state;
    for (host, owned) in &snapshot.owned {
        let Some(Ok(list)) = snapshot.lists.get(host) else { continue };
        let identifier = list.first().map(|row| String::from_utf8_lossy(row)).unwrap_or_default();
        let rows = || texts(backends(list)).filter(|row| owned.rows.contains(row));
        listed.restore(host, rows().collect());
        if owned.apps.is_empty() {
            memory.restore_host(host, rows().collect());
            continue;
        }
        let is_alone = owned.apps.len() == 1;
        let share = |share: &BTreeSet<String>| {
            rows().filter(|row| is_alone || share.contains(row)).collect()
        };
        let apps = owned.apps.iter().map(|(app, rows)| (app.clone(), share(rows)));
        memory.restore(host, &identifier, &apps.collect());
    }
}

/// The backends that may be removed, by host: of a claimed host all of its list, of any other what
/// our notes say; where Redis has `lost` the list, what stood there. What others may keep is not among
/// them.
fn managed(plan: &Plan, snapshot: &Snapshot, lost: &Lost) -> Rows {
    let mut managed = lost.ours.clone();
    for (host, rows) in &lost.others {
        if plan.get(host).is_some_and(|wanted| !wanted.keeps_others) {
            managed.entry(host.clone()).or_default().extend(rows.iter().cloned());
        }
    }
    for host in snapshot.lists.keys() {
        let ours = snapshot.owned.get(host).map(|owned| &owned.rows);
        let claimed = plan.get(host);
        let others: HashSet<&[u8]> =
            claimed.iter().flat_map(|wanted| &wanted.others).map(Vec::as_slice).collect();
        let rows: Vec<String> = texts(snapshot.backends(host))
            .filter(|row| match claimed {
                Some(_) => !others.contains(row.as_bytes()),
                None => ours.is_some_and(|ours| ours.contains(row)),
            })
            .collect();
        if !rows.is_empty() {
            let _new = managed.insert(host.clone(), rows);
        }
    }
    managed
}

/// Rows that are text; others are nothing that an app ever wanted.
fn texts(rows: &[Vec<u8>]) -> impl Iterator<Item = String> {
    rows.iter().filter_map(|row| String::from_utf8(row.clone()).ok())
}

#[cfg(test)]
mod tests;
