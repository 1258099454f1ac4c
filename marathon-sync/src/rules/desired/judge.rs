//! What is thought of each task of an app: whether it is live, and where it listens.

use std::sync::Arc;

use shared::backend::Scheme;

use super::app::{Context, Part};
use super::definitions::{Definition, Definitions};
use crate::document::{App, Task};
use crate::rules::address::{self, AppPorts, NoAddress, Whereabouts};
use crate::rules::labels::Claim;
use crate::rules::liveness::{self, Health, Known, Reason, Verdict};
use crate::rules::memory::{KnownTask, KnownTasks, LastBackend, Place};
use crate::rules::report::{TaskAddress, TaskReport};

/// A task and what is thought of it.
pub(super) struct Judged<'a> {
    task: &'a Task,
    /// Its id, once for all that is remembered of it.
    pub(super) id: Arc<str>,
    pub(super) report: TaskReport,
    /// What it was started from. `None`: not known.
    definition: Option<&'a Definition<'a>>,
    /// Another task ran under its id before.
    pub(super) is_new_life: bool,
    /// An event said that it ends or has ended.
    pub(super) has_ended: bool,
}

impl Judged<'_> {
    /// Puts the task where it belongs on a host.
    pub(super) fn place(&self, claim: &Claim, definitions: &Definitions<'_>, part: &mut Part) {
        let Some(definition) = self.definition else { return };
        let Some((port, scheme)) = definitions.port(definition, claim) else { return };
        let found = self.report.addresses.iter().find(|address| address.port == *port);
        let Some(TaskAddress { found: Ok(address), is_remembered, .. }) = found else { return };
        let mut url = address.url.clone();
        if scheme == Scheme::Https {
            url = format!("https://{}", address::without_scheme(&url));
        }
        let backend = LastBackend { url: url.into(), task: Some(Arc::clone(&self.id)) };
        match self.report.verdict {
            Verdict::Down(_) => {}
            Verdict::Up if !is_remembered => part.up.push(backend),
            Verdict::Up | Verdict::Unsure(_) => part.unsure.push(backend),
        }
    }
}

/// Judges all tasks of `app`, in the order in which they are appended to lists. Notes them in `known`.
pub(super) fn judge<'a>(
    app: &'a App,
    definitions: &'a Definitions<'a>,
    claims: &[Claim],
    context: Context<'_>,
    known: &mut KnownTasks,
) -> Vec<Judged<'a>> {
    let Context { memory, options, seen, now } = context;
    let mut tasks: Vec<&Task> = app.tasks.iter().flatten().collect();
    // Tasks that have not started come last: `None` sorts first.
    tasks.sort_by(|a, b| {
        let key = |task: &'a Task| (task.started_at.is_none(), &task.started_at, &task.id);
        key(a).cmp(&key(b))
    });
    let mut judged: Vec<Judged<'_>> = Vec::with_capacity(tasks.len());
    for task in tasks {
        let before = memory.tasks.get_key_value(task.id.as_str());
        let (id, before) = match before {
            Some((id, before)) => (Arc::clone(id), Some(before)),
            None => (Arc::from(task.id.as_str()), None),
        };
        let is_new_life = before.is_some_and(|before| before.is_other_life(task));
        let before = before.filter(|_| !is_new_life);
        let has_ended = memory.has_ended(task, &seen.ended);
        let facts = Known { health: before.and_then(|before| before.health), has_ended };
        let version = definitions.version(task, before.map(|before| &**before));
        let definition = definitions.get(version);
        let checks = definition.map(Definition::health_checks);
        let (verdict, health) = liveness::judge(app, task, checks, facts, &options.liveness, now);
        let addresses = match (definition, version) {
            (Some(definition), _) => addresses(task, definitions, definition, claims, before),
            (None, version) => {
                let version: Box<str> = version.map(|version| &**version).unwrap_or("?").into();
                no_address(claims, NoAddress::UnknownVersion(version)).into_iter().collect()
            }
        };
        let ports = definition.map(|definition| &definition.ports);
        let _before = known.insert(Arc::clone(&id), remember(task, version, ports, health, before));
        let report = TaskReport { id: task.id.clone(), verdict, addresses };
        judged.push(Judged { task, id, report, definition, is_new_life, has_ended });
    }
    if options.liveness.keep_all_sick {
        keep_all_sick(&mut judged);
    }
    for task in &mut judged {
        let first = task.report.addresses.first().and_then(|address| address.found.as_ref().err());
        let has_none = task.report.addresses.iter().all(|address| address.found.is_err());
        if let (Some(why), true, Verdict::Up | Verdict::Unsure(_)) =
            (first, has_none, &task.report.verdict)
        {
            task.report.verdict = Verdict::Down(Reason::NoAddress(why.to_string()));
        }
    }
    judged
}

/// That a task has no address for the first of the claims.
fn no_address(claims: &[Claim], why: NoAddress) -> Option<TaskAddress> {
    let port = claims.first()?.port.clone();
    Some(TaskAddress { port, found: Err(why), is_remembered: false })
}

/// Each port that is claimed, once, as the task's own definition has it.
fn addresses(
    task: &Task,
    definitions: &Definitions<'_>,
    definition: &Definition<'_>,
    claims: &[Claim],
    before: Option<&Arc<KnownTask>>,
) -> Vec<TaskAddress> {
    // Nearly always one port; there is a list for each task.
    let mut addresses: Vec<TaskAddress> = Vec::with_capacity(claims.len().min(1));
    for claim in claims {
        let Some((port, scheme)) = definitions.port(definition, claim) else { continue };
        if addresses.iter().any(|address| address.port == *port) {
            continue;
        }
        let mut found = definition.ports.address(task, &port, scheme);
        let mut is_remembered = false;
        if found.is_err()
            && let Some(before) = before
            && let Ok(address) = definition.ports.address(&before.place, &port, scheme)
        {
            found = Ok(address);
            is_remembered = true;
        }
        addresses.push(TaskAddress { port: port.into_owned(), found, is_remembered });
    }
    if addresses.is_empty() {
        let version = task.version.as_deref().unwrap_or("?").into();
        addresses.extend(no_address(claims, NoAddress::NotOfItsVersion(version)));
    }
    addresses
}

/// What is known of the task from now on: what the answer says, else what was known before.
fn remember(
    task: &Task,
    version: Option<&Arc<str>>,
    ports: Option<&AppPorts<'_>>,
    health: Health,
    before: Option<&Arc<KnownTask>>,
) -> Arc<KnownTask> {
    let health = match health {
        Health::Unknown => before.and_then(|before| before.health),
        Health::Sick | Health::Well => Some(health),
    };
    let place = if task.ports.is_empty() && task.ip_addresses.is_empty() {
        before.map(|before| before.place.clone()).unwrap_or_default()
    } else {
        Place::new(Whereabouts::from(task), version)
    };
    let started_at = match &task.started_at {
        Some(started_at) => Some(started_at.as_str().into()),
        None => before.and_then(|before| before.started_at.clone()),
    };
    let known = KnownTask { health, started_at, addresses: address::all(ports, &place), place };
    let same = before.filter(|before| ***before == known);
    same.map_or_else(|| Arc::new(known), Arc::clone)
}

/// An app that runs but is sick altogether: its checks may be what is wrong.
fn keep_all_sick(judged: &mut [Judged<'_>]) {
    let is_sick =
        |verdict: &Verdict| matches!(verdict, Verdict::Down(Reason::Sick | Reason::SickRemembered));
    if judged.iter().any(|task| !matches!(task.report.verdict, Verdict::Down(_))) {
        return;
    }
    for task in judged.iter_mut().filter(|task| is_sick(&task.report.verdict)) {
        let why = "all tasks of the app are sick, so they stay";
        task.report.verdict = Verdict::Unsure(Reason::Doubt(why.into()));
    }
}

/// `host:port`s of tasks that Marathon positively calls unusable.
pub(super) fn gone(judged: &[Judged<'_>]) -> Vec<String> {
    let over = judged.iter().filter(
        |task| matches!(&task.report.verdict, Verdict::Down(reason) if reason.is_positive()),
    );
    over.flat_map(|task| address::all(task.definition.map(|own| &own.ports), task.task)).collect()
}
