//! The document of `/status`, and that of one app. Pure.
//!
//! Its parts are bounded: of each list the first [`SHOWN`] entries are written out, beside how many
//! there are. All tasks of an app are in the document of the app alone.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::readiness::readiness;
use super::sums::{STATES, Sums, reason, state, verdict};
use super::{Facts, Identity, process_name};
use crate::agent::state::{Failure, Stream, View};
use crate::document::Problem;
use crate::guard::Held;
use crate::pass::{Occasion, Pass};
use crate::routes::lease::Standing;
use crate::rules::labels::{Claim, Refused};
use crate::rules::report::{AppReport, TaskAddress, TaskReport};

/// Entries of a list that are written out.
const SHOWN: usize = 5000;
/// The same of the lists inside such an entry.
const SHOWN_INSIDE: usize = 20;

/// A list of which the beginning is shown.
#[derive(Debug, Serialize)]
struct Listed<T> {
    count: usize,
    shown: Vec<T>,
}

impl<T> Listed<T> {
    fn of(limit: usize, all: impl ExactSizeIterator<Item = T>) -> Self {
        Self { count: all.len(), shown: all.take(limit).collect() }
    }
}

/// `/status`.
#[derive(Debug, Serialize)]
pub struct Status<'a> {
    version: &'static str,
    instance: &'a str,
    process: &'a str,
    started: Timed,
    ready: bool,
    /// Why not.
    not_ready: Option<String>,
    lease: Lease<'a>,
    redis: Redis<'a>,
    marathon: Marathon<'a>,
    last_success: Option<Timed>,
    last_pass: Option<LastPass>,
    last_difference: Option<LastDifference<'a>>,
    held: Option<HeldBack<'a>>,
    /// Hosts that several apps claim.
    shared_hosts: Listed<Shared<'a>>,
    /// Sums of the last answer, then its apps by what was done with them.
    sums: Option<BTreeMap<&'static str, BTreeMap<&'static str, usize>>>,
    apps: BTreeMap<&'static str, Listed<AppLine<'a>>>,
}

/// A time, and how long ago it was.
#[derive(Debug, Serialize)]
struct Timed {
    at: String,
    seconds_ago: i64,
}

impl Timed {
    fn of(at: Timestamp, now: Timestamp) -> Self {
        Self { at: at.to_string(), seconds_ago: now.duration_since(at).as_secs() }
    }
}

#[derive(Debug, Serialize)]
struct Lease<'a> {
    standing: &'static str,
    /// The process that writes.
    leader: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Redis<'a> {
    connected: bool,
    /// What was wrong when it was last asked for the lease although it answered, such as that it is
    /// full.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<RedisProblem>,
    failing: Option<Failing<'a>>,
}

#[derive(Debug, Serialize)]
struct RedisProblem {
    since: Timed,
    text: String,
}

#[derive(Debug, Serialize)]
struct Failing<'a> {
    since: Timed,
    times: u64,
    last: &'a str,
}

#[derive(Debug, Serialize)]
struct Marathon<'a> {
    endpoints: &'a [String],
    last_answer: Option<Answer<'a>>,
    failing: Option<Failing<'a>>,
    events: Events<'a>,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    at: Timed,
    endpoint: &'a str,
    leader: Option<&'a str>,
    fetch_seconds: f64,
    bytes: usize,
    apps: usize,
}

#[derive(Debug, Serialize)]
struct Events<'a> {
    connected: bool,
    since: Option<Timed>,
    /// Why there are none.
    reason: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct LastPass {
    at: Timed,
    occasion: &'static str,
}

#[derive(Debug, Serialize)]
struct LastDifference<'a> {
    at: Timed,
    /// Else it was only seen: another process writes.
    written: bool,
    count: usize,
    lines: &'a [String],
    failed: &'a [String],
}

#[derive(Debug, Serialize)]
struct HeldBack<'a> {
    reason: &'a str,
    /// When the first of them may go at the earliest.
    until: String,
    /// And how many more answers have to agree.
    observations_left: u32,
    hosts: Listed<(&'a str, &'a [String])>,
}

#[derive(Debug, Serialize)]
struct Shared<'a> {
    host: &'a str,
    apps: Listed<&'a str>,
}

/// An app in few words.
#[derive(Debug, Serialize)]
struct AppLine<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "is_empty")]
    hosts: Listed<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<Tasks>,
    #[serde(skip_serializing_if = "is_empty")]
    refused: Listed<RefusedLine<'a>>,
    #[serde(skip_serializing_if = "is_empty")]
    problems: Listed<String>,
}

fn is_empty<T>(list: &Listed<T>) -> bool {
    list.count == 0
}

#[derive(Debug, Default, Serialize)]
struct Tasks {
    up: usize,
    unsure: usize,
    down: usize,
}

#[derive(Debug, Serialize)]
struct RefusedLine<'a> {
    label: &'a str,
    reason: &'a str,
}

impl<'a> RefusedLine<'a> {
    fn of(refused: &'a Refused) -> Self {
        Self { label: &refused.label, reason: &refused.reason }
    }
}

impl<'a> Status<'a> {
    /// What is known at `now`.
    pub fn of(identity: &'a Identity, facts: &'a Facts, now: Timestamp) -> Self {
        let view = &facts.view;
        let pass = view.pass.as_deref();
        let readiness = readiness(facts, identity.stale_after, now);
        let shared = pass.map(|pass| &pass.shared);
        let apps = STATES.map(|word| (word, apps(pass, word)));
        Self {
            version: env!("CARGO_PKG_VERSION"),
            instance: &identity.instance,
            process: &identity.process,
            started: Timed::of(view.started, now),
            ready: readiness.is_ok(),
            not_ready: readiness.err(),
            lease: lease(identity, &view.standing),
            redis: Redis {
                connected: facts.redis_is_up,
                problem: view.lease_problem.as_ref().map(|(since, problem)| RedisProblem {
                    since: Timed::of(*since, now),
                    text: problem.to_string(),
                }),
                failing: failing(view.redis_failed.as_ref(), now),
            },
            marathon: marathon(identity, view, now),
            last_success: view.succeeded.map(|at| Timed::of(at, now)),
            last_pass: view.passed.map(|(at, occasion)| LastPass {
                at: Timed::of(at, now),
                occasion: match occasion {
                    Occasion::Answer => "a new answer",
                    Occasion::Again => "the last answer again",
                },
            }),
            last_difference: view.changes.at.map(|at| LastDifference {
                at: Timed::of(at, now),
                written: view.changes.is_written,
                count: view.changes.count,
                lines: &view.changes.lines,
                failed: &view.changes.failed,
            }),
            held: pass
                .and_then(|pass| pass.held.as_ref())
                .map(|held| held_back(held, view.started)),
            shared_hosts: Listed {
                count: shared.map_or(0, BTreeMap::len),
                shown: shared.into_iter().flatten().take(SHOWN).map(shared_host).collect(),
            },
            sums: pass.map(sums),
            apps: apps.into(),
        }
    }
}

fn lease<'a>(identity: &'a Identity, standing: &'a Standing) -> Lease<'a> {
    match standing {
        Standing::Leader { .. } => Lease { standing: "leader", leader: Some(&identity.process) },
        Standing::Standby { leader } => {
            Lease { standing: "standby", leader: Some(process_name(leader)) }
        }
        Standing::Unknown => Lease { standing: "unknown", leader: None },
    }
}

fn failing(failure: Option<&Failure>, now: Timestamp) -> Option<Failing<'_>> {
    let Failure { since, times, message } = failure?;
    Some(Failing { since: Timed::of(*since, now), times: *times, last: message })
}

fn marathon<'a>(identity: &'a Identity, view: &'a View, now: Timestamp) -> Marathon<'a> {
    let answer = view.answer.as_ref().map(|answer| Answer {
        at: Timed::of(answer.at, now),
        endpoint: &answer.endpoint,
        leader: answer.leader.as_deref(),
        fetch_seconds: answer.duration.as_secs_f64(),
        bytes: answer.bytes,
        apps: answer.apps,
    });
    let (connected, since, reason) = match &view.stream {
        Stream::Connecting => (false, None, None),
        Stream::Connected { since } => (true, Some(*since), None),
        Stream::Lost { since, reason } => (false, Some(*since), Some(&**reason)),
    };
    Marathon {
        endpoints: &identity.endpoints,
        last_answer: answer,
        failing: failing(view.answer_failed.as_ref(), now),
        events: Events { connected, since: since.map(|at| Timed::of(at, now)), reason },
    }
}

/// The guard's clock counts from the start of the process.
fn held_back(held: &Held, started: Timestamp) -> HeldBack<'_> {
    let until = SignedDuration::try_from(held.until).unwrap_or(SignedDuration::MAX);
    HeldBack {
        reason: &held.reason,
        until: started.checked_add(until).unwrap_or(Timestamp::MAX).to_string(),
        observations_left: held.observations_left,
        hosts: Listed::of(
            SHOWN,
            held.rows.iter().map(|(host, rows)| {
                (host.as_str(), rows.get(..SHOWN_INSIDE).unwrap_or(rows.as_slice()))
            }),
        ),
    }
}

fn shared_host<'a>((host, apps): (&'a String, &'a Vec<String>)) -> Shared<'a> {
    Shared { host, apps: Listed::of(SHOWN_INSIDE, apps.iter().map(String::as_str)) }
}

fn sums(pass: &Pass) -> BTreeMap<&'static str, BTreeMap<&'static str, usize>> {
    let Sums { apps, tasks, backends, hosts, refused, held } = Sums::of(pass);
    let shared = pass.shared.len();
    [
        ("apps", apps.into()),
        ("tasks", tasks.into()),
        ("backends", BTreeMap::from(backends).into_iter().chain([("held", held)]).collect()),
        ("hosts", [("claimed", hosts), ("shared", shared)].into()),
        ("wishes", [("refused", refused)].into()),
    ]
    .into()
}

fn apps<'a>(pass: Option<&'a Pass>, word: &str) -> Listed<AppLine<'a>> {
    let all = pass.into_iter().flat_map(|pass| &pass.apps);
    let mut all = all.filter(|(_, app)| state(&app.state).0 == word);
    let shown: Vec<_> = all.by_ref().take(SHOWN).map(|(id, app)| line(id, app)).collect();
    Listed { count: shown.len() + all.count(), shown }
}

fn line<'a>(id: &'a str, app: &'a AppReport) -> AppLine<'a> {
    let mut tasks = Tasks::default();
    for task in &app.tasks {
        match verdict(&task.verdict) {
            "up" => tasks.up += 1,
            "unsure" => tasks.unsure += 1,
            _ => tasks.down += 1,
        }
    }
    AppLine {
        id,
        reason: state(&app.state).1,
        hosts: Listed::of(SHOWN_INSIDE, app.hosts.iter().map(|claim| claim.host.as_str())),
        tasks: (!app.tasks.is_empty()).then_some(tasks),
        refused: Listed::of(SHOWN_INSIDE, app.refused.iter().map(RefusedLine::of)),
        problems: Listed::of(SHOWN_INSIDE, app.problems.iter().map(problem)),
    }
}

/// What could not be read, as a sentence.
pub(super) fn problem(problem: &Problem) -> String {
    let task = problem.task.as_ref().map(|task| format!("task {task}: ")).unwrap_or_default();
    let field = Some(problem.field).filter(|field| !field.is_empty());
    let field = field.map(|field| format!("`{field}`: ")).unwrap_or_default();
    format!("{task}{field}{}", problem.reason)
}

/// `/status?app=…`: one app with all its tasks.
#[derive(Debug, Serialize)]
pub struct AppDetail<'a> {
    id: &'a str,
    state: &'static str,
    reason: Option<&'a str>,
    claims: Listed<ClaimLine<'a>>,
    tasks: Listed<TaskLine<'a>>,
    refused: Listed<RefusedLine<'a>>,
    problems: Listed<String>,
    /// Addresses that it only kept on doubt, and that other apps have now.
    taken: Listed<&'a str>,
}

#[derive(Debug, Serialize)]
struct ClaimLine<'a> {
    host: &'a str,
    label: &'a str,
    port: String,
    scheme: &'static str,
    identifier: &'a str,
}

#[derive(Debug, Serialize)]
struct TaskLine<'a> {
    id: &'a str,
    verdict: &'static str,
    reason: Option<String>,
    addresses: Vec<AddressLine<'a>>,
}

#[derive(Debug, Serialize)]
struct AddressLine<'a> {
    port: String,
    url: Option<&'a str>,
    /// How it was found, or why there is none.
    how: String,
    /// Marathon does not tell it now.
    remembered: bool,
}

impl<'a> AppDetail<'a> {
    /// All that is known of one app.
    pub fn of(id: &'a str, app: &'a AppReport) -> Self {
        let (state, reason) = state(&app.state);
        Self {
            id,
            state,
            reason,
            claims: Listed::of(SHOWN, app.hosts.iter().map(claim)),
            tasks: Listed::of(SHOWN, app.tasks.iter().map(task)),
            refused: Listed::of(SHOWN, app.refused.iter().map(RefusedLine::of)),
            problems: Listed::of(SHOWN, app.problems.iter().map(problem)),
            taken: Listed::of(SHOWN, app.taken.iter().map(String::as_str)),
        }
    }
}

fn claim(claim: &Claim) -> ClaimLine<'_> {
    let Claim { host, identifier, port, scheme, label } = claim;
    ClaimLine { host, label, port: port.to_string(), scheme: super::scheme(*scheme), identifier }
}

fn task<'a>(task: &'a TaskReport) -> TaskLine<'a> {
    let address = |address: &'a TaskAddress| AddressLine {
        port: address.port.to_string(),
        url: address.found.as_ref().ok().map(|found| found.url.as_str()),
        how: match &address.found {
            Ok(found) => found.how.to_string(),
            Err(why) => why.to_string(),
        },
        remembered: address.is_remembered,
    };
    TaskLine {
        id: &task.id,
        verdict: verdict(&task.verdict),
        reason: reason(&task.verdict),
        addresses: task.addresses.iter().map(address).collect(),
    }
}

#[cfg(test)]
mod tests;
