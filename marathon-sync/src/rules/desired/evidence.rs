//! What explains that a backend is no longer wanted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::Seen;
use super::app::Share;
use crate::document::{Answer, App, State, Task};
use crate::plan::Plan;
use crate::rules::address::{self, AppPorts};
use crate::rules::memory::{Memory, address};
use crate::rules::report::AppState;

/// Positive reasons for removals, by the `host:port` of a backend.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Tasks that are positively over or sick, by the answer or by events, and backends of apps
    /// that were deleted by an event.
    gone: HashSet<String>,
    /// Apps whose running tasks listen there.
    live: HashMap<String, Vec<Arc<str>>>,
    /// Addresses that an app had and only others have now.
    moved: HashSet<String>,
    /// Apps whose wishes cannot be read.
    quarantined: HashSet<String>,
    /// Why more may be missing than can be seen.
    pub blind: Option<String>,
}

impl Evidence {
    pub(super) fn of(
        answer: &Answer,
        memory: &mut Memory,
        seen: &Seen,
        by_id: &BTreeMap<&str, Vec<&App>>,
    ) -> Self {
        let mut evidence = Self { gone: memory.ended(&seen.ended), ..Self::default() };
        let tasks = answer.apps.iter().flat_map(|app| &app.tasks).map(Vec::len).sum();
        evidence.live.reserve(tasks);
        for app in &answer.apps {
            evidence.add_live(app, memory, seen);
        }
        for id in &seen.deleted {
            if !by_id.contains_key(id.as_str()) {
                evidence.gone.extend(memory.deleted(id));
            }
        }
        for (id, last) in &memory.apps {
            for backend in last.hosts.values().flat_map(|host| &host.backends) {
                let address = address(&backend.url);
                if evidence.is_taken(id, &address) {
                    let _new = evidence.moved.insert(address);
                }
            }
        }
        if answer.nameless > 0 {
            evidence.blind =
                Some(format!("{} apps of the answer do not even tell their id", answer.nameless));
        }
        evidence
    }

    fn add_live(&mut self, app: &App, memory: &Memory, seen: &Seen) {
        let id: Arc<str> = Arc::from(app.id.as_str());
        let ports = AppPorts::of(app);
        let addresses = |task| addresses(app, &ports, task, memory);
        for address in running(app, memory, seen).flat_map(addresses) {
            // Nearly always one: addresses are many, so its room is not rounded up.
            let apps = self.live.entry(address).or_insert_with(|| Vec::with_capacity(1));
            if !apps.contains(&id) {
                apps.push(Arc::clone(&id));
            }
        }
    }

    /// Adds what was learnt about one app.
    pub(super) fn note(&mut self, id: &str, share: &Share) {
        self.gone.extend(share.gone.iter().cloned());
        if let AppState::Quarantined(_) = share.state {
            let _new = self.quarantined.insert(id.to_owned());
        }
        if share.is_blind && self.blind.is_none() {
            self.blind = Some(format!("app {id} cannot be read, and nothing is known of its past"));
        }
    }

    /// Whether a task runs at `address`.
    pub(super) fn is_live(&self, address: &str) -> bool {
        self.live.contains_key(address)
    }

    /// Whether other apps listen at `address`, and `app` does not.
    pub(super) fn is_taken(&self, app: &str, address: &str) -> bool {
        self.live.get(address).is_some_and(|apps| apps.iter().all(|other| **other != *app))
    }

    /// Whether `url` may leave `host` at once, because something positive is known.
    pub fn explains(&self, host: &str, url: &str, plan: &Plan) -> bool {
        let address = address(url);
        if self.gone.contains(&address) || self.moved.contains(&address) {
            return true;
        }
        let (Some(wanted), Some(apps)) = (plan.get(host), self.live.get(&address)) else {
            return false;
        };
        apps.iter().all(|app| {
            !wanted.apps.iter().any(|claimant| **claimant == **app)
                && !self.quarantined.contains(&**app)
        })
    }
}

/// Every `host:port` where a task of `app` may listen, by the definition that it was started from, as far
/// as that is known; `ports` are those of the definition shown.
pub(super) fn addresses(
    app: &App,
    ports: &AppPorts<'_>,
    task: &Task,
    memory: &Memory,
) -> Vec<String> {
    match task.version.as_deref().filter(|version| !app.describes(version)) {
        None => address::all(Some(ports), task),
        Some(version) => {
            let own = memory.versions.get(&app.id, version).map(AppPorts::of);
            address::all(own.as_ref(), task)
        }
    }
}

/// The tasks of `app` that run, whether well or not.
pub(super) fn running<'a>(
    app: &'a App,
    memory: &Memory,
    seen: &Seen,
) -> impl Iterator<Item = &'a Task> {
    app.tasks.iter().flatten().filter(|task| is_running(task, memory, seen))
}

fn is_running(task: &Task, memory: &Memory, seen: &Seen) -> bool {
    let is_running = match &task.state {
        Some(state) => *state == State::Running,
        None => task.started_at.is_some(),
    };
    is_running && task.broken.is_none() && !memory.has_ended(task, &seen.ended)
}
