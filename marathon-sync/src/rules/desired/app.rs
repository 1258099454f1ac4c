//! What one app asks for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::definitions::{Definition, Definitions};
use super::judge::{Judged, gone, judge};
use super::{Evidence, Seen};
use crate::document::{App, Problem};
use crate::rules::Options;
use crate::rules::address::AppPorts;
use crate::rules::labels::{self, Claim, Claims, Refused};
use crate::rules::liveness::{Reason, Verdict};
use crate::rules::memory::{self, KnownTasks, LastBackend, LastHost, Memory};
use crate::rules::report::{AppReport, AppState, TaskReport};

/// What one app has, by host.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) state: AppState,
    pub(super) parts: BTreeMap<String, Part>,
    /// `host:port`s of tasks that Marathon positively calls unusable.
    pub(super) gone: Vec<String>,
    /// Whether something is missing of which nothing is remembered either.
    pub(super) is_blind: bool,
    hosts: Vec<Claim>,
    tasks: Vec<TaskReport>,
    refused: Vec<Refused>,
    taken: Vec<String>,
    /// Versions that tasks were started from and whose definitions are not known.
    unknown_versions: Vec<String>,
    /// Tasks that an event called ended and that have begun another life.
    running_again: HashSet<Arc<str>>,
}

/// What one app has on one host.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) identifier: String,
    pub(super) up: Vec<LastBackend>,
    pub(super) unsure: Vec<LastBackend>,
    /// Not all of the app's tasks are shown, and nothing is known of its past on this host.
    pub(super) keeps_listed: bool,
}

impl Part {
    pub(super) fn last(&self) -> LastHost {
        LastHost {
            identifier: self.identifier.clone(),
            backends: self.up.iter().chain(&self.unsure).cloned().collect(),
            keeps_listed: self.keeps_listed,
        }
    }
}

impl Share {
    fn new(state: AppState, claims: Claims) -> Self {
        Self {
            state,
            parts: BTreeMap::new(),
            gone: Vec::new(),
            is_blind: false,
            hosts: claims.hosts,
            tasks: Vec::new(),
            refused: claims.refused,
            taken: Vec::new(),
            unknown_versions: Vec::new(),
            running_again: HashSet::new(),
        }
    }

    pub(super) fn skipped(reason: String, refused: Vec<Refused>) -> Self {
        Self::new(AppState::Skipped(reason), Claims { refused, ..Claims::default() })
    }

    /// What it has now, to be known the next time; nothing of an app that is not for us. `None`: a
    /// quarantined app keeps what it had.
    pub(super) fn last(&self) -> Option<BTreeMap<String, LastHost>> {
        match self.state {
            AppState::Mapped | AppState::MappedInPart(_) => {
                Some(self.parts.iter().map(|(host, part)| (host.clone(), part.last())).collect())
            }
            AppState::Quarantined(_) => None,
            AppState::Skipped(_) => Some(BTreeMap::new()),
        }
    }

    /// The hosts that it claims.
    pub(super) fn hosts(&self) -> &[Claim] {
        &self.hosts
    }

    /// What the app had last, on doubt.
    pub(super) fn quarantined(id: &str, reason: String, memory: &Memory) -> Self {
        let mut share = Self::new(AppState::Quarantined(reason), Claims::default());
        let last = memory.apps.get(id);
        share.is_blind = last.is_none();
        for (host, last) in last.into_iter().flat_map(|last| &last.hosts) {
            let part = Part {
                identifier: last.identifier.clone(),
                up: Vec::new(),
                unsure: last.backends.clone(),
                keeps_listed: last.keeps_listed,
            };
            let _new = share.parts.insert(host.clone(), part);
        }
        share
    }

    /// What is only kept goes when an event says that its task is over.
    pub(super) fn drop_ended(&mut self, seen: &Seen) {
        let Self { parts, running_again, .. } = self;
        for part in parts.values_mut() {
            part.unsure.retain(|backend| {
                backend.task.as_ref().is_none_or(|task| {
                    !seen.ended.contains(&**task) || running_again.contains(task)
                })
            });
        }
    }

    /// What is only kept goes when another app listens there now.
    pub(super) fn drop_taken(&mut self, id: &str, evidence: &Evidence) {
        for part in self.parts.values_mut() {
            part.unsure.retain(|backend| {
                let is_taken = evidence.is_taken(id, &memory::address(&backend.url));
                if is_taken {
                    self.taken.push(backend.url.to_string());
                }
                !is_taken
            });
        }
    }

    pub(super) fn into_report(self, problems: Vec<Problem>) -> AppReport {
        AppReport {
            state: self.state,
            hosts: self.hosts,
            tasks: self.tasks,
            refused: self.refused,
            problems,
            taken: self.taken,
            unknown_versions: self.unknown_versions,
        }
    }
}

/// All that a judgement depends on beside the app.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) memory: &'a Memory,
    pub(super) options: &'a Options,
    pub(super) seen: &'a Seen,
    pub(super) now: Timestamp,
}

/// What `app`, which is in the answer once, asks for. Notes its tasks in `known`.
pub(super) fn share(app: &App, context: Context<'_>, known: &mut KnownTasks) -> Share {
    let memory = context.memory;
    let shown = Definition::shown(app, AppPorts::of(app));
    let claims = labels::claims(app, &shown.ports, &context.options.labels);
    if let Some(wrong) = unreadable(app, &claims, memory) {
        return quarantined(app, &shown, wrong, claims, context, known);
    }
    if claims.hosts.is_empty() {
        return Share::skipped(skip_reason(&claims, context.options), claims.refused);
    }
    let definitions = Definitions::of(&shown, memory, &context.options.labels);
    let mut judged = judge(app, &definitions, &claims.hosts, context, known);
    let doubt = tasks_in_doubt(app);
    let state = doubt.clone().map_or(AppState::Mapped, AppState::MappedInPart);
    let mut share = Share::new(state, claims);
    share.gone = gone(&judged);
    share.unknown_versions = definitions.unknown();
    share.running_again = running_again(&judged, context.seen);
    for claim in &share.hosts {
        let mut part = Part { identifier: claim.identifier.clone(), ..Part::default() };
        for task in &judged {
            task.place(claim, &definitions, &mut part);
        }
        let past = memory.backends(&app.id, &claim.host);
        if doubt.is_some() {
            part.keeps_listed = !memory.knows_past(&app.id, &claim.host);
            memory.carry_over(&past, known);
        }
        part.unsure.extend(still_possible(past, &mut judged, doubt.is_some()));
        let _new = share.parts.insert(claim.host.clone(), part);
    }
    share.tasks = judged.into_iter().map(|task| task.report).collect();
    share
}

/// Why the wishes of an app cannot be known.
fn unreadable(app: &App, claims: &Claims, memory: &Memory) -> Option<String> {
    let Some(broken) = &app.broken else { return claims.mistake.clone() };
    let is_ours = !claims.hosts.is_empty()
        || claims.mistake.is_some()
        || memory.apps.contains_key(&app.id)
        || broken.starts_with("`labels`");
    is_ours.then(|| broken.clone())
}

/// An app that keeps what it had, but for what is positively over.
fn quarantined(
    app: &App,
    shown: &Definition<'_>,
    wrong: String,
    claims: Claims,
    context: Context<'_>,
    known: &mut KnownTasks,
) -> Share {
    let mut share = Share::quarantined(&app.id, wrong, context.memory);
    // A wish that is nonsense from the first is no reason to doubt anything else.
    share.is_blind &= app.broken.is_some();
    for claim in &claims.hosts {
        let _part = share.parts.entry(claim.host.clone()).or_insert_with(|| Part {
            identifier: claim.identifier.clone(),
            up: Vec::new(),
            unsure: context.memory.backends(&app.id, &claim.host),
            keeps_listed: !context.memory.knows_past(&app.id, &claim.host),
        });
    }
    let definitions = Definitions::of(shown, context.memory, &context.options.labels);
    let judged = judge(app, &definitions, &[], context, known);
    for part in share.parts.values() {
        context.memory.carry_over(&part.unsure, known);
    }
    share.gone = gone(&judged);
    for part in share.parts.values_mut() {
        part.unsure.retain(|backend| !share.gone.contains(&memory::address(&backend.url)));
    }
    share.hosts = claims.hosts;
    share.refused = claims.refused;
    share.tasks = judged.into_iter().map(|task| task.report).collect();
    share
}

fn skip_reason(claims: &Claims, options: &Options) -> String {
    match &claims.not_meant {
        Some(reason) => reason.clone(),
        None if claims.refused.is_empty() => {
            format!("it has no label `{}` with a host", options.labels.label)
        }
        None => "none of its wishes can be carried out".to_owned(),
    }
}

/// Backends of the past whose tasks this answer does not tell the address of, or says nothing
/// about if it `is_doubtful`. Of backends that were there before this process their tasks are not
/// known: while the app has tasks without an address, they may be theirs.
fn still_possible(
    past: Vec<LastBackend>,
    judged: &mut [Judged<'_>],
    is_doubtful: bool,
) -> Vec<LastBackend> {
    let mut lost: HashMap<&str, &mut Verdict> = HashMap::new();
    let mut listed: HashSet<&str> = HashSet::new();
    let mut found: HashSet<&str> = HashSet::new();
    for Judged { report: TaskReport { id, verdict, addresses }, is_new_life, .. } in judged {
        let _new = listed.insert(id);
        found.extend(addresses.iter().filter_map(|a| Some(a.found.as_ref().ok()?.url.as_str())));
        // Where it listened in its last life says nothing of this one.
        let is_lost = !*is_new_life
            && match verdict {
                Verdict::Down(Reason::NoAddress(_)) => true,
                Verdict::Unsure(Reason::AddressRemembered) => {
                    addresses.iter().all(|a| a.found.is_err())
                }
                _ => false,
            };
        if is_lost {
            let _new = lost.insert(id, verdict);
        }
    }
    let is_doubtful_of_restored = is_doubtful || !lost.is_empty();
    let mut is_open = |backend: &LastBackend| match backend.task.as_deref() {
        Some(task) => match lost.get_mut(task) {
            Some(verdict) => {
                **verdict = Verdict::Unsure(Reason::AddressRemembered);
                true
            }
            None => is_doubtful && !listed.contains(task),
        },
        None => is_doubtful_of_restored && !found.contains(&*backend.url),
    };
    past.into_iter().filter(|backend| is_open(backend)).collect()
}

fn running_again(judged: &[Judged<'_>], seen: &Seen) -> HashSet<Arc<str>> {
    let again = judged.iter().filter(|task| !task.has_ended && seen.ended.contains(&*task.id));
    again.map(|task| Arc::clone(&task.id)).collect()
}

/// Why the list of tasks may not be all of them.
fn tasks_in_doubt(app: &App) -> Option<String> {
    if app.unreadable_tasks > 0 {
        return Some(format!("{} of its tasks cannot be read", app.unreadable_tasks));
    }
    let running = app.tasks_running;
    match (&app.tasks, running) {
        (Some(tasks), Some(running)) if tasks.is_empty() && running > 0 => {
            Some(format!("Marathon counts {running} running tasks and lists none"))
        }
        (Some(_), _) | (None, Some(0)) => None,
        (None, None) if app.instances == Some(0) => None,
        (None, _) => Some("its tasks are not in the answer".to_owned()),
    }
}
