//! From an answer and what is remembered to the [`Plan`].

mod app;
mod definitions;
mod evidence;
mod judge;
pub mod narrow;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::memory::{KnownTasks, Memory};
use super::report::AppReport;
use super::{Options, glob};
use crate::document::{Answer, App, Problem};
use crate::plan::Plan;
use app::{Context, Part, Share};
pub use evidence::Evidence;

/// What events said, as long as it counts. The caller bounds it and lets it grow old.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Ids of tasks that are being killed or have ended.
    pub ended: BTreeSet<String>,
    /// Ids of apps that were deleted.
    pub deleted: BTreeSet<String>,
}

/// What an answer comes to.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// What each claimed host is to have.
    pub plan: Plan,
    /// What became of each app, by id.
    pub apps: BTreeMap<String, Arc<AppReport>>,
    /// Hosts that several apps claim, with their ids: all of them serve it.
    pub shared: BTreeMap<String, Vec<String>>,
    /// Why backends may go: what [`crate::guard`] asks for.
    pub evidence: Evidence,
}

/// Makes the plan that `answer` asks for, independent of the order of its apps.
pub fn desired(
    answer: &Answer,
    memory: &mut Memory,
    options: &Options,
    seen: &Seen,
    now: Timestamp,
) -> Desired {
    let mut by_id: BTreeMap<&str, Vec<&App>> = BTreeMap::new();
    for app in &answer.apps {
        by_id.entry(&app.id).or_default().push(app);
    }
    let mut problems: HashMap<&str, Vec<Problem>> = HashMap::new();
    for problem in &answer.problems {
        problems.entry(&problem.app).or_default().push(problem.clone());
    }
    let mut evidence = Evidence::of(answer, memory, seen, &by_id);
    let mut ids: BTreeMap<&str, &[&App]> =
        by_id.iter().map(|(id, apps)| (*id, apps.as_slice())).collect();
    if answer.nameless > 0 {
        // An entry that does not tell its id may be any app that is missing.
        for id in memory.apps.keys().filter(|id| !seen.deleted.contains(*id)) {
            let _apps = ids.entry(id).or_default();
        }
    }
    let count = answer.apps.iter().flat_map(|app| &app.tasks).map(Vec::len).sum();
    let mut tasks = KnownTasks::with_capacity(count);
    let mut desired = Desired::default();
    // Taken in when all apps have been looked at: what one of them had is the same for all.
    let mut last = Vec::new();
    for (id, apps) in ids {
        let mut share = match apps {
            [] => {
                let nameless = answer.nameless;
                let reason = format!(
                    "it is not in the answer, but may be one of {nameless} entries that cannot be \
                     read"
                );
                Share::quarantined(id, reason, memory)
            }
            _ if options.exclude.iter().any(|pattern| glob::matches(pattern, id)) => {
                Share::skipped("it is excluded by its id".to_owned(), Vec::new())
            }
            [app] => app::share(app, Context { memory, options, seen, now }, &mut tasks),
            _ => Share::quarantined(id, "it is in the answer more than once".to_owned(), memory),
        };
        evidence.note(id, &share);
        share.drop_ended(seen);
        share.drop_taken(id, &evidence);
        for (host, part) in &share.parts {
            desired.add(id, host, part, share.state.doubt().is_some());
        }
        let hosts = share.last().filter(|hosts| !memory.has(id, hosts));
        last.extend(hosts.map(|hosts| (id.to_owned(), hosts)));
        let report = share.into_report(problems.remove(id).unwrap_or_default());
        let _new = desired.apps.insert(id.to_owned(), memory.shared(id, report));
    }
    for (id, hosts) in last {
        memory.keep(&id, hosts);
    }
    for app in by_id.values().filter_map(|apps| if let [app] = apps[..] { Some(app) } else { None })
    {
        if desired.apps.get(&app.id).is_some_and(|report| report.state.is_mapped()) {
            memory.versions.note(app);
        }
    }
    memory.told(&desired.apps);
    for (host, wanted) in &mut desired.plan {
        let up = &wanted.up;
        wanted.unsure.retain(|url| !up.contains(url));
        if wanted.apps.len() > 1 {
            let _new = desired.shared.insert(host.clone(), wanted.apps.clone());
        }
    }
    memory.settle(tasks, &by_id.keys().copied().collect(), now);
    memory.reused(|address| evidence.is_live(address));
    desired.evidence = evidence;
    desired
}

impl Desired {
    /// Adds what one app has on one host. Apps come in the order of their ids.
    fn add(&mut self, app: &str, host: &str, part: &Part, is_in_doubt: bool) {
        let wanted = self.plan.entry(host.to_owned()).or_default();
        if wanted.apps.is_empty() {
            wanted.identifier.clone_from(&part.identifier);
        }
        wanted.keeps_listed |= part.keeps_listed;
        wanted.keeps_others |= is_in_doubt;
        if let ([first], true) = (wanted.apps.as_slice(), wanted.shares.is_empty()) {
            let share = wanted.up.iter().chain(&wanted.unsure).cloned().collect();
            let _new = wanted.shares.insert(first.clone(), share);
        }
        if !wanted.apps.is_empty() {
            let backends = part.up.iter().chain(&part.unsure);
            let share = backends.map(|backend| backend.url.to_string()).collect();
            let _new = wanted.shares.insert(app.to_owned(), share);
        }
        wanted.apps.push(app.to_owned());
        for (list, more) in [(&mut wanted.up, &part.up), (&mut wanted.unsure, &part.unsure)] {
            // Lists are long for few hosts only, but a host with thousands of tasks may not cost
            // the square of their number.
            let mut known: HashSet<&str> = HashSet::with_capacity(list.len() + more.len());
            let earlier = std::mem::take(list);
            known.extend(earlier.iter().map(String::as_str));
            let more = more.iter().map(|backend| &*backend.url).filter(|url| known.insert(url));
            let more: Vec<String> = more.map(str::to_owned).collect();
            *list = earlier;
            list.extend(more);
        }
    }
}
