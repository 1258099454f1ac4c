//! Whether a task is live: by its state, its readiness and its health, each of which may be unknown.

use std::borrow::Cow;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::Policy;
use crate::document::{App, HealthCheck, HealthResult, State, Task};

/// Which results make a task healthy.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HealthRule {
    /// Every check has a result, and none is bad.
    #[default]
    All,
    /// One good result is enough (marathon-lb).
    Any,
    /// The first result of the list decides (the Marathon-Hipache bridge).
    First,
}

/// From which failure on a result is bad.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailureThreshold {
    /// From when Marathon would kill the task: `maxConsecutiveFailures`.
    CheckMaximum,
    /// From so many failures in a row; 1 is what Marathon calls `alive: false`.
    Failures(u32),
}

/// How to judge tasks.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which results make a task healthy.
    pub health: HealthRule,
    /// From which failure on a result is bad.
    pub threshold: FailureThreshold,
    /// A running task whose health is unknown and was never known.
    pub unknown_health: Policy,
    /// A running task of unknown health counts as well once it has run so long: for checks that
    /// never report. None: never.
    pub unknown_health_grace: Option<SignedDuration>,
    /// `TASK_UNREACHABLE` and `TASK_LOST`.
    pub unreachable: Policy,
    /// Whether new tasks wait for their readiness checks during a deployment.
    pub readiness: bool,
    /// Whether an app all of whose running tasks are sick keeps those that are listed.
    pub keep_all_sick: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            health: HealthRule::All,
            threshold: FailureThreshold::Failures(1),
            unknown_health: Policy::Keep,
            unknown_health_grace: None,
            unreachable: Policy::Keep,
            readiness: false,
            keep_all_sick: false,
        }
    }
}

/// The judgement of one task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Out.
    Down(Reason),
    /// Kept where it is listed.
    Unsure(Reason),
    /// In.
    Up,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(reason) => write!(f, "down: {reason}"),
            Self::Unsure(reason) => write!(f, "unsure: {reason}"),
            Self::Up => f.write_str("up"),
        }
    }
}

/// Why a task is not simply up; its text is for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reason {
    /// Nothing tells where it listens now, but it is known where it did.
    AddressRemembered,
    /// What says where it runs is unreadable.
    Broken(String),
    /// The app's rules or history decide.
    Doubt(Cow<'static, str>),
    /// An event said so, and may be ahead of the answer.
    EndedByEvent,
    /// Nothing tells where it listens.
    NoAddress(String),
    /// `state` is missing and so is `startedAt`.
    NotStarted,
    /// A readiness check has not said yes.
    NotReady,
    /// A health check fails.
    Sick,
    /// A health check failed when results were last seen.
    SickRemembered,
    /// Its state.
    State(String),
    /// Some of the checks have said something, and it is good, but not all have.
    ReportedInPart {
        /// Checks that have.
        reported: usize,
        /// Checks that there are.
        checks: usize,
    },
    /// No result says anything.
    UnknownHealth,
}

impl Reason {
    /// Whether Marathon has said in so many words that the task is not to be used: such a removal
    /// needs no confirmation.
    pub fn is_positive(&self) -> bool {
        matches!(self, Self::EndedByEvent | Self::NotStarted | Self::Sick | Self::State(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressRemembered => {
                f.write_str("Marathon does not tell its address now; it keeps the one it had")
            }
            Self::Broken(what) => write!(f, "cannot be read: {what}"),
            Self::Doubt(why) => f.write_str(why),
            Self::EndedByEvent => f.write_str("an event said that it ends or has ended"),
            Self::NoAddress(why) => write!(f, "no address: {why}"),
            Self::NotStarted => f.write_str("it has not started (no `startedAt`)"),
            Self::NotReady => f.write_str("its readiness check has not passed"),
            Self::Sick => f.write_str("a health check fails"),
            Self::SickRemembered => {
                f.write_str("a health check failed when Marathon last had results")
            }
            Self::State(state) => write!(f, "its state is {state}"),
            Self::ReportedInPart { reported, checks } => {
                let has = if *reported == 1 { "has" } else { "have" };
                write!(f, "{reported} of {checks} checks {has} reported")
            }
            Self::UnknownHealth => f.write_str("its health is not known yet"),
        }
    }
}

/// What the health results of a task say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    /// Bad.
    Sick,
    /// Nothing yet, or not all that has to be known.
    Unknown,
    /// Good.
    Well,
}

/// What is known of a task beyond the document.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Health when it was last known.
    pub health: Option<Health>,
    /// Whether an event said that it is ending or over.
    pub has_ended: bool,
}

/// Judges `task` of `app` but for its address. `checks` are those of the definition that it was started
/// from, as Marathon goes on to make them; `None`: not known. Also returns what its results say by themselves,
/// which is what to remember.
pub fn judge(
    app: &App,
    task: &Task,
    checks: Option<&[HealthCheck]>,
    known: Known,
    options: &Options,
    now: Timestamp,
) -> (Verdict, Health) {
    let health = health(checks, task, options);
    let verdict = by_state(task, known, options)
        .or_else(|| by_readiness(app, task, options, now))
        .unwrap_or_else(|| by_health(health, known, app, task, options, now));
    (verdict, health)
}

/// `None`: it runs.
fn by_state(task: &Task, known: Known, options: &Options) -> Option<Verdict> {
    if known.has_ended {
        return Some(Verdict::Down(Reason::EndedByEvent));
    }
    if let Some(what) = &task.broken {
        return Some(Verdict::Unsure(Reason::Broken(what.clone())));
    }
    let down = |name: &str| Some(Verdict::Down(Reason::State(name.to_owned())));
    let away = |name: &str| match options.unreachable {
        Policy::Down => down(name),
        Policy::Keep => Some(Verdict::Unsure(Reason::State(name.to_owned()))),
        Policy::Up => Some(Verdict::Up),
    };
    match &task.state {
        Some(State::Running) => None,
        Some(State::Unreachable) => away("TASK_UNREACHABLE"),
        Some(State::Lost) => away("TASK_LOST"),
        Some(State::Killing) => down("TASK_KILLING"),
        Some(State::Other(name)) => down(name),
        // Marathon up to 0.15.3 tells no state.
        None if task.started_at.is_some() => None,
        None => Some(Verdict::Down(Reason::NotStarted)),
    }
}

/// `None`: readiness does not stand against it.
fn by_readiness(app: &App, task: &Task, options: &Options, now: Timestamp) -> Option<Verdict> {
    let longest = app.readiness_timeouts.iter().max()?;
    // Only the tasks of the new version are asked.
    if !options.readiness || app.deployments == 0 || task.version != app.version {
        return None;
    }
    let mut results = app.readiness.iter().filter(|result| result.task == task.id).peekable();
    let is_ready = if results.peek().is_some() {
        results.all(|result| result.ready)
    } else {
        // Without a result it may be too new to be asked, or old enough not to be asked again.
        const MARGIN: i64 = 5;
        let limit = SignedDuration::from_secs(i64::from(*longest) + MARGIN);
        has_run_for(task, limit, now)
    };
    (!is_ready).then_some(Verdict::Unsure(Reason::NotReady))
}

fn by_health(
    health: Health,
    known: Known,
    app: &App,
    task: &Task,
    options: &Options,
    now: Timestamp,
) -> Verdict {
    match (health, known.health) {
        (Health::Well, _) | (Health::Unknown, Some(Health::Well)) => Verdict::Up,
        (Health::Sick, _) => Verdict::Down(Reason::Sick),
        (Health::Unknown, Some(Health::Sick)) => Verdict::Down(Reason::SickRemembered),
        (Health::Unknown, _)
            if options.unknown_health_grace.is_some_and(|grace| has_run_for(task, grace, now)) =>
        {
            Verdict::Up
        }
        (Health::Unknown, _) => match options.unknown_health {
            Policy::Down => Verdict::Down(unknown(app, task)),
            Policy::Keep => Verdict::Unsure(unknown(app, task)),
            Policy::Up => Verdict::Up,
        },
    }
}

/// Why the health of a running task is not known.
fn unknown(app: &App, task: &Task) -> Reason {
    let known = task.results.iter().flatten().filter(|result| result.alive || result.is_known());
    match (known.count(), app.health_checks.len()) {
        (reported, checks) if reported > 0 && reported < checks => {
            Reason::ReportedInPart { reported, checks }
        }
        _ => Reason::UnknownHealth,
    }
}

fn has_run_for(task: &Task, least: SignedDuration, now: Timestamp) -> bool {
    let started = task.started_at.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
    started.is_some_and(|started| now.duration_since(started) >= least)
}

fn health(checks: Option<&[HealthCheck]>, task: &Task, options: &Options) -> Health {
    let maximum = checks.unwrap_or_default().iter().map(|check| check.max_consecutive_failures);
    let maximum = maximum.max();
    let checks = checks.map_or_else(|| task.results.len().max(1), <[_]>::len);
    if checks == 0 {
        return Health::Well;
    }
    let threshold = match options.threshold {
        // Results do not say which check they are of.
        FailureThreshold::CheckMaximum => maximum.unwrap_or(1),
        FailureThreshold::Failures(failures) => failures,
    };
    let each = task.results.iter().map(|result| match result {
        Some(result) => one(*result, threshold),
        None => Health::Unknown,
    });
    let count = |wanted| each.clone().filter(|health| *health == wanted).count();
    let (well, sick) = (count(Health::Well), count(Health::Sick));
    let is_complete = well + sick >= checks;
    match options.health {
        HealthRule::All if sick > 0 => Health::Sick,
        HealthRule::All if is_complete => Health::Well,
        HealthRule::Any if well > 0 => Health::Well,
        HealthRule::Any if is_complete => Health::Sick,
        HealthRule::All | HealthRule::Any => Health::Unknown,
        HealthRule::First => each.clone().next().unwrap_or(Health::Unknown),
    }
}

fn one(result: HealthResult, threshold: u32) -> Health {
    if result.alive {
        Health::Well
    } else if !result.is_known() {
        Health::Unknown
    } else if threshold <= 1 || result.consecutive_failures >= threshold {
        Health::Sick
    } else if result.has_succeeded {
        // Failing, but not yet often enough to count.
        Health::Well
    } else {
        Health::Unknown
    }
}
