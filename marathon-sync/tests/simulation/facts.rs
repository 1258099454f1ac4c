//! What is true of a cluster as far as Marathon shows it: the yardstick, made without the agent's
//! code.

use std::collections::BTreeMap;

use integration::marathon::{App, Cluster, Dialect, HostPort, State, Task};

/// Name of the port that serves the hosts of an app.
pub(crate) const PUBLIC: &str = "public";

/// What Marathon shows of a task.
/// In this order the worse counts of two: running tasks only.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Status {
    /// It is being killed, or has not started.
    Down,
    /// It runs and fails a check.
    Sick,
    /// It runs, and not every check has a result.
    Unknown,
    /// Its agent is lost.
    Unreachable,
    /// It runs, and all checks pass.
    Well,
}

#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) app: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) url: String,
    pub(crate) status: Status,
    /// All its checks pass, whatever its state: results of a task on a lost machine stand still.
    pub(crate) has_good_results: bool,
    /// One of them fails, whatever its state.
    pub(crate) has_bad_results: bool,
    /// Marathon says where it is.
    pub(crate) has_address: bool,
    /// Its app cannot be read.
    pub(crate) is_garbage: bool,
}

/// By id of the task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts(pub(crate) BTreeMap<String, Fact>);

impl Facts {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let fact = |app: &App, task: &Task| Fact {
            app: app.id.clone(),
            hosts: hosts(app),
            url: url(cluster, app, task),
            status: status(task, cluster.dialect),
            has_good_results: health(task) == Status::Well,
            has_bad_results: health(task) == Status::Sick,
            has_address: !cluster.dialect.has_instances()
                || task.state != State::UnreachableInactive,
            is_garbage: app.overlay != Default::default(),
        };
        Self(cluster.tasks().map(|(app, task)| (task.id.clone(), fact(app, task))).collect())
    }

    /// Those of one app.
    pub(crate) fn of_app(cluster: &Cluster, app: &str) -> Self {
        let mut facts = Self::of(cluster);
        facts.0.retain(|_, fact| fact.app == app);
        facts
    }

    /// Those that claim `host`, with their ids.
    pub(crate) fn on(&self, host: &str) -> impl Iterator<Item = (&String, &Fact)> {
        self.0.iter().filter(move |(_, fact)| fact.hosts.iter().any(|one| one == host))
    }
}

/// The hosts that an app claims: its labels are plain here.
pub(crate) fn hosts(app: &App) -> Vec<String> {
    let label = app.labels.get(&label(app));
    label.into_iter().flat_map(|hosts| hosts.split(',')).map(str::to_owned).collect()
}

/// The label that names the hosts of the public port.
pub(crate) fn label(app: &App) -> String {
    match position(app) {
        0 => "hipacheFrontend".to_owned(),
        position => format!("hipacheFrontend.{position}"),
    }
}

fn position(app: &App) -> usize {
    app.ports.iter().position(|port| port.name.as_deref() == Some(PUBLIC)).unwrap()
}

/// Where the public port of a task is, as it was launched.
pub(crate) fn url(cluster: &Cluster, app: &App, task: &Task) -> String {
    let launched = cluster.definition_of(app, task).unwrap();
    let position = position(launched);
    let port = &launched.ports[position];
    if port.host == HostPort::None {
        return format!("http://{}:{}", task.place.addresses[0], port.container);
    }
    let before = &launched.ports[..position];
    let index = before.iter().filter(|port| port.host != HostPort::None).count();
    format!("http://{}:{}", task.place.host, task.place.ports[index])
}

pub(crate) fn status(task: &Task, dialect: Dialect) -> Status {
    if task.started.is_none() {
        return Status::Down;
    }
    if dialect.has_state() {
        match task.state {
            State::Running => {}
            State::Unreachable | State::UnreachableInactive => return Status::Unreachable,
            _ => return Status::Down,
        }
    }
    health(task)
}

/// What its results say.
fn health(task: &Task) -> Status {
    let mut status = Status::Well;
    for result in &task.results {
        match result {
            Some(result) if result.alive() => {}
            // Within its grace period nothing is known.
            Some(result) if result.last_failure.is_none() && result.last_success.is_none() => {
                status = status.min(Status::Unknown);
            }
            Some(_) => status = Status::Sick,
            None => status = status.min(Status::Unknown),
        }
    }
    status
}
