//! What one app asks for, between two looks at everything.
//!
//! An event names its app. To judge that app alone is a matter of milliseconds, whatever the size of
//! the cluster, but it shows nothing of the others. So only what needs nothing of them is decided
//! here: backends of the same hosts come, and go when something positive is known of them. Everything
//! else (other hosts, doubt, backends that are merely missing) is left to a look at everything.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::app::{self, Context};
use super::{Seen, evidence};
use crate::document::App;
use crate::rules::address::AppPorts;
use crate::rules::liveness::Verdict;
use crate::rules::memory::{self, Memory};
use crate::rules::report::{AppReport, AppState};
use crate::rules::{Options, glob};

/// What became of one app.
#[derive(Clone, Debug)]
pub struct Narrow {
    /// Its id.
    pub id: String,
    /// The report that stands for it from now on, without what could not be read.
    pub report: AppReport,
    /// What it has on each of its hosts, all of which are its alone.
    pub hosts: BTreeMap<String, Part>,
    /// `host:port`s of what is positively not to be used any more, on any of them.
    pub gone: HashSet<String>,
}

/// What an app has on a host.
#[derive(Clone, Debug)]
pub struct Part {
    /// Item 0 of the list, if it is made anew.
    pub identifier: String,
    /// URLs of live backends.
    pub up: Vec<String>,
}

/// Looks at `app`, of whom `before` is known, and which has `new` addresses: see [`fresh`]. `None`: only a look at everything can tell, and nothing
/// is remembered.
pub fn narrow(
    app: &App,
    before: &AppReport,
    memory: &mut Memory,
    options: &Options,
    (seen, new): (&Seen, &HashSet<String>),
    now: Timestamp,
) -> Option<Narrow> {
    let is_excluded = options.exclude.iter().any(|pattern| glob::matches(pattern, &app.id));
    if is_excluded || before.state != AppState::Mapped || seen.deleted.contains(&app.id) {
        return None;
    }
    let mut tasks = HashMap::new();
    let mut share = app::share(app, Context { memory, options, seen, now }, &mut tasks);
    if share.state != AppState::Mapped || share.hosts() != before.hosts {
        return None;
    }
    share.drop_ended(seen);
    let mut gone: HashSet<String> = share.gone.iter().cloned().collect();
    let known = |task: &crate::rules::report::TaskReport| -> Vec<String> {
        let found = task.addresses.iter().filter_map(|address| address.found.as_ref().ok());
        found.map(|found| memory::address(&found.url)).collect()
    };
    gone.extend(before.tasks.iter().filter(|task| seen.ended.contains(&task.id)).flat_map(known));
    // The report does not tell the address of a task that Marathon does not tell any more; its backend does.
    let past: Vec<_> = share.parts.keys().flat_map(|host| memory.backends(&app.id, host)).collect();
    let has_ended = |task: &Arc<str>| seen.ended.contains(&**task);
    let ended = past.iter().filter(|backend| backend.task.as_ref().is_some_and(has_ended));
    gone.extend(ended.map(|backend| memory::address(&backend.url)));
    let parts = share.parts.values();
    let stays: HashSet<String> = parts
        .flat_map(|part| part.up.iter().chain(&part.unsure))
        .map(|b| memory::address(&b.url))
        .collect();
    gone.retain(|address| !stays.contains(address));
    let is_missing = |address: &String| !stays.contains(address) && !gone.contains(address);
    let were_listed = before.tasks.iter().filter(|task| !matches!(task.verdict, Verdict::Down(_)));
    let had = past.iter().map(|backend| memory::address(&backend.url));
    if were_listed.flat_map(known).chain(had).any(|address| is_missing(&address)) {
        return None;
    }
    let part = |(host, part): (&String, &app::Part)| {
        let up = part.up.iter().map(|backend| backend.url.to_string()).collect();
        let part = Part { identifier: part.identifier.clone(), up };
        (host.clone(), part)
    };
    let hosts = share.parts.iter().map(part).collect();
    memory.versions.note(app);
    memory.learn(tasks, before.tasks.iter().map(|task| task.id.as_str()), &seen.ended);
    if !new.is_empty() {
        memory.reused(|address| new.contains(address));
    }
    if let Some(hosts) = share.last() {
        memory.keep(&app.id, hosts);
    }
    Some(Narrow { id: app.id.clone(), report: share.into_report(Vec::new()), hosts, gone })
}

/// `host:port`s of running tasks that were not up before: where those listen is noted already.
pub fn fresh(app: &App, before: &AppReport, memory: &Memory, seen: &Seen) -> HashSet<String> {
    let ports = AppPorts::of(app);
    let were_up = before.tasks.iter().filter(|task| task.verdict == Verdict::Up);
    let were_up: HashSet<&str> = were_up.map(|task| task.id.as_str()).collect();
    let new =
        evidence::running(app, memory, seen).filter(|task| !were_up.contains(task.id.as_str()));
    new.flat_map(|task| evidence::addresses(app, &ports, task, memory)).collect()
}
