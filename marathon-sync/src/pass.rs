//! One pass, pure: from Marathon's answer and what stands in Redis to what is to be written.
//!
//! ```text
//! answer ── desired ──▶ wish ── (its lists are read from Redis) ──▶ conclude ──▶ Pass
//!             ▲ Memory                                                ▲ Guard
//! ```
//!
//! [`pass`] is all of it, for whoever has all of Redis at hand. The agent reads the lists of the
//! hosts that the wish names in between, and so calls the two halves.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::document::Answer;
use crate::guard::{Guard, Held, Judged};
use crate::plan::Plan;
use crate::routes::change::backends;
use crate::routes::diff::{Difference, diff};
use crate::routes::snapshot::Snapshot;
use crate::rules::memory::Memory;
use crate::rules::report::AppReport;
use crate::rules::{Desired, Options, Seen, desired};

/// What goes on from pass to pass.
#[derive(Clone, Debug)]
pub struct State {
    /// What earlier answers said.
    pub memory: Memory,
    /// Which removals wait for confirmation.
    pub guard: Guard,
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
    pub plan: Plan,
    /// What became of each app, by id.
    pub apps: BTreeMap<String, AppReport>,
    /// Hosts that several apps claim, with their ids.
    pub shared: BTreeMap<String, Vec<String>>,
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
    conclude(wish, &mut state.guard, snapshot, now.occasion, now.clock)
}

/// The second half: judges the wish and compares it with Redis.
pub fn conclude(
    wish: Desired,
    guard: &mut Guard,
    snapshot: &Snapshot,
    occasion: Occasion,
    clock: Duration,
) -> Pass {
    let Desired { plan, apps, shared, evidence } = wish;
    let managed = managed(&plan, snapshot);
    let Judged { mut plan, held } = match occasion {
        Occasion::Answer => guard.judge(&managed, plan, &evidence, clock),
        Occasion::Again => guard.judge_again(&managed, plan, &evidence, clock),
    };
    for (host, wanted) in &mut plan {
        // Only the guard keeps it: what others have put there is not an app's to remove.
        if wanted.apps.is_empty() {
            let ours = snapshot.owned.get(host).map(|owned| &owned.rows);
            let others = texts(snapshot.backends(host));
            wanted.unsure.extend(others.filter(|row| ours.is_none_or(|ours| !ours.contains(row))));
        }
    }
    let mut difference = diff(&plan, snapshot);
    difference.changes.retain(|change| {
        change.is_visible() || plan.get(&change.host).is_none_or(|wanted| !wanted.apps.is_empty())
    });
    Pass { plan, apps, shared, held, difference }
}

/// What Redis tells a process that starts: lists of apps that cannot be read at first stay.
pub fn restore(memory: &mut Memory, snapshot: &Snapshot) {
    for (host, owned) in &snapshot.owned {
        let Some(Ok(list)) = snapshot.lists.get(host) else { continue };
        let identifier = list.first().map(|row| String::from_utf8_lossy(row)).unwrap_or_default();
        let rows: Vec<String> =
            texts(backends(list)).filter(|row| owned.rows.contains(row)).collect();
        memory.restore(host, &identifier, &[], &rows);
    }
}

/// The backends that may be removed, by host: of a claimed host all of its list, of any other what
/// our notes say.
fn managed(plan: &Plan, snapshot: &Snapshot) -> BTreeMap<String, Vec<String>> {
    let mut managed = BTreeMap::new();
    for host in snapshot.lists.keys() {
        let ours = snapshot.owned.get(host).map(|owned| &owned.rows);
        let is_claimed = plan.contains_key(host);
        let rows: Vec<String> = texts(snapshot.backends(host))
            .filter(|row| is_claimed || ours.is_some_and(|ours| ours.contains(row)))
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
