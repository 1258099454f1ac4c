//! A pass over single apps: their hosts and no others. Pure.
//!
//! ```text
//! shown (by Marathon now, or by the last answer) ── judge ──▶ found ── plan ──▶ diff ──▶ absorb
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::listed::Listed;
use super::{Pass, texts};
use crate::document::{Answer, App, MAX_PROBLEMS, Problem};
use crate::plan::{Plan, Wanted};
use crate::routes::backend::Backend;
use crate::routes::snapshot::Snapshot;
use crate::rules::desired::narrow::{Narrow, fresh, narrow};
use crate::rules::memory::{Memory, address};
use crate::rules::{Options, Seen};

/// An app, and what of it could not be read.
pub type Shown = (App, Vec<Problem>);

/// What single apps are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Basis<'a> {
    /// The last pass.
    pub last: &'a Pass,
    /// The rules.
    pub options: &'a Options,
    /// What events said.
    pub seen: &'a Seen,
    /// Time of day.
    pub now: Timestamp,
}

/// What single apps come to.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// What was found of those of which one app alone can tell.
    pub apps: Vec<Narrow>,
    /// These were all of them: no look at everything is needed.
    pub is_enough: bool,
}

/// Whether a look at `app` alone may do: it has hosts that are its alone, and nothing is held, which
/// might be of a host that it had before.
pub fn is_alone(pass: &Pass, app: &str) -> bool {
    pass.held.is_none()
        && pass.apps.get(app).is_some_and(|report| {
            !report.hosts.is_empty()
                && report.hosts.iter().all(|claim| {
                    let wanted = pass.plan.get(&claim.host);
                    wanted.is_some_and(
                        |wanted| matches!(wanted.apps.as_slice(), [only] if only == app),
                    )
                })
        })
}

/// What the last answer says of these apps. `None`: not of each of them one thing.
pub fn recall(
    answer: &Answer,
    last: &Pass,
    ids: impl IntoIterator<Item = Arc<str>>,
) -> Option<Vec<Shown>> {
    let mut shown = Vec::new();
    for id in ids {
        let mut found = answer.apps.iter().filter(|app| *app.id == *id);
        let (Some(app), None) = (found.next(), found.next()) else { return None };
        let problems = last.apps.get(&*id).map(|report| report.problems.clone());
        shown.push((app.clone(), problems.unwrap_or_default()));
    }
    Some(shown)
}

/// What becomes of these apps, as far as that can be told of each of them alone: what they say then
/// replaces what `answer`, which the last pass was made of, said of them.
pub fn judge(
    shown: Vec<Shown>,
    answer: &mut Arc<Answer>,
    memory: &mut Memory,
    basis: Basis<'_>,
) -> Found {
    let Basis { last, options, seen, now } = basis;
    let mut found = Found { apps: Vec::with_capacity(shown.len()), is_enough: true };
    for (app, problems) in shown {
        let report = last.apps.get(&app.id).filter(|_| is_alone(last, &app.id));
        let narrow = report.and_then(|report| {
            let new = fresh(&app, report, memory, seen);
            // Where a new task listens, another app's backend may be listed that is over.
            if !new.is_empty() && is_listed_elsewhere(last, &app.id, &new) {
                return None;
            }
            narrow(&app, report, memory, options, (seen, &new), now)
        });
        let Some(mut narrow) = narrow else {
            found.is_enough = false;
            continue;
        };
        narrow.report.problems.clone_from(&problems);
        found.apps.push(narrow);
        replace(answer, app, problems);
    }
    found
}

/// Whether one of these `host:port`s is a backend of a host that is not the app's alone.
fn is_listed_elsewhere(last: &Pass, app: &str, addresses: &HashSet<String>) -> bool {
    let others = last.plan.values().filter(|wanted| wanted.apps != [app]);
    let mut rows = others.flat_map(|wanted| wanted.up.iter().chain(&wanted.unsure));
    // There may be very many rows, and to read one takes longer than to see that its port is another.
    let ports: Vec<&str> = addresses.iter().filter_map(|address| spelled_port(address)).collect();
    let may_be_spelled =
        |row: &String| ports.len() < addresses.len() || ports.iter().any(|port| row.contains(port));
    rows.any(|row| may_be_spelled(row) && addresses.contains(&address(row)))
}

/// `:port` of a `host:port`, unless it is a port that a URL need not spell.
fn spelled_port(address: &str) -> Option<&str> {
    let port = address.get(address.rfind(':')?..)?;
    (!matches!(port, ":80" | ":443")).then_some(port)
}

/// Makes `answer` show `app` as it is now.
fn replace(answer: &mut Arc<Answer>, app: App, problems: Vec<Problem>) {
    let answer = Arc::make_mut(answer);
    answer.problems.retain(|problem| problem.app != app.id);
    answer.problems.extend(problems);
    answer.problems.truncate(MAX_PROBLEMS);
    if let Some(old) = answer.apps.iter_mut().find(|old| old.id == app.id) {
        *old = app;
    }
}

/// The wish for the hosts of `found`: what stands there stays, but for what is gone. `None`: something
/// else than ours stands there, which a look at everything judges, and tells people about.
pub fn plan(found: &[Narrow], snapshot: &Snapshot) -> Option<Plan> {
    let mut plan = Plan::new();
    for narrow in found {
        plan.extend(plan_of_one(narrow, snapshot)?);
    }
    Some(plan)
}

fn plan_of_one(narrow: &Narrow, snapshot: &Snapshot) -> Option<Plan> {
    let mut plan = Plan::new();
    for (host, part) in &narrow.hosts {
        let ours = snapshot.owned.get(host).map(|owned| &owned.rows);
        let is_ours = |row: &str| {
            ours.is_some_and(|ours| ours.contains(row)) || part.up.iter().any(|up| up == row)
        };
        let theirs = snapshot.foreign_backends(host);
        let is_foreign = |row: &Vec<u8>| !theirs.is_empty() && theirs.contains(&Backend::of(row));
        let rows = snapshot.backends(host);
        let is_known =
            |row: &Vec<u8>| is_foreign(row) || std::str::from_utf8(row).is_ok_and(&is_ours);
        if !rows.iter().all(is_known) {
            return None;
        }
        let stays = |row: &String| is_ours(row) && !narrow.gone.contains(&address(row));
        let wanted = Wanted {
            identifier: part.identifier.clone(),
            up: part.up.clone(),
            unsure: texts(rows).filter(stays).collect(),
            apps: vec![narrow.id.clone()],
            ..Wanted::default()
        };
        let _new = plan.insert(host.clone(), wanted);
    }
    Some(plan)
}

/// Makes `pass` show what became of the apps, and `listed` know what is listed then.
pub fn absorb(pass: &mut Pass, listed: &mut Listed, found: Vec<Narrow>) {
    for narrow in found {
        absorb_one(pass, listed, narrow);
    }
    listed.replan(&pass.plan);
}

fn absorb_one(pass: &mut Pass, listed: &mut Listed, narrow: Narrow) {
    let plan = Arc::make_mut(&mut pass.plan);
    for (host, part) in narrow.hosts {
        let Some(wanted) = plan.get_mut(&host) else { continue };
        let up: HashSet<&String> = part.up.iter().collect();
        let stays = |row: &String| !up.contains(row) && !narrow.gone.contains(&address(row));
        let were_up = std::mem::take(&mut wanted.up);
        listed.keep(&host, &were_up, stays);
        wanted.unsure.extend(were_up);
        wanted.unsure.retain(stays);
        wanted.up = part.up;
    }
    let _before = pass.apps.insert(narrow.id, Arc::new(narrow.report));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_of_another_host_is_found_however_it_is_spelled() {
        let mut last = Pass::default();
        for (host, app, row) in [
            ("a", "/a", "http://10.0.0.1:31000"),
            ("b", "/b", "http://10.0.0.2:31000/"),
            ("c", "/b", "http://10.0.0.3"),
        ] {
            let (apps, up) = (vec![app.to_owned()], vec![row.to_owned()]);
            let wanted = Wanted { apps, up, ..Wanted::default() };
            let _new = Arc::make_mut(&mut last.plan).insert(host.to_owned(), wanted);
        }
        for (address, expected) in [
            ("10.0.0.1:31000", false),
            ("10.0.0.2:31000", true),
            ("10.0.0.2:31001", false),
            ("10.0.0.3:80", true),
            ("10.0.0.3:8080", false),
        ] {
            let addresses = [address.to_owned()].into();
            assert_eq!(is_listed_elsewhere(&last, "/a", &addresses), expected, "{address}");
        }
    }
}
