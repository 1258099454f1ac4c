//! What Marathon's answer to `GET /v2/apps?embed=apps.tasks` says, in plain types.
//!
//! Reading is tolerant, because ten years of versions disagree: a key that is missing, `null`, `[]`
//! or `{}` says the same, unknown keys are not looked at, and what has the wrong type becomes a
//! [`Problem`] of its field, task or app and of nothing else. Only what the rules use is kept.

mod read;
mod reader;

use std::collections::{BTreeMap, BTreeSet};

pub use read::{parse, parse_and_tell, parse_app, parse_definition};
pub(crate) use reader::shorten;

/// More problems than this are only counted ([`Answer::problems_left_out`]): an answer of nothing
/// but garbage must not fill the memory with complaints.
pub const MAX_PROBLEMS: usize = 1000;

/// Why bytes are not an answer at all: nothing may be concluded from them.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// `{"apps": …}` with something else than a list.
    #[error("`apps` of Marathon's answer is not a list")]
    AppsNotAList,
    /// An object without `apps`, such as an error message; `0` is what it says instead.
    #[error("Marathon's answer has no `apps`: {0}")]
    NoApps(String),
    /// A JSON value, but no object.
    #[error("Marathon's answer is not a JSON object")]
    NotAnObject,
    /// Not JSON, or only the beginning of it.
    #[error("Marathon's answer is not JSON; is something else answering on this address?")]
    NotJson(#[source] serde_json::Error),
}

/// A whole answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Apps in the order of the answer; ids may repeat.
    pub apps: Vec<App>,
    /// Entries that did not even give their id: any app that is missing may be one of them.
    pub nameless: usize,
    /// What could not be read, at most [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// Further problems, not kept.
    pub problems_left_out: usize,
}

/// Something that could not be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Id of the app, or its place in the list (`#3`).
    pub app: String,
    /// Id of the task or its place in the list, when it is about a task.
    pub task: Option<String>,
    /// The JSON field, or empty for the whole entry.
    pub field: &'static str,
    /// What is wrong, for people.
    pub reason: String,
}

/// One app.
#[derive(Clone, Debug, Default)]
pub struct App {
    /// Absolute path, such as `/shop/web`.
    pub id: String,
    /// Version (a timestamp) of the definition that is shown.
    pub version: Option<String>,
    /// Version since which nothing but the number of instances has changed (from 0.11).
    pub config_since: Option<String>,
    /// Labels whose values are text.
    pub labels: BTreeMap<String, String>,
    /// Names of labels whose values are not text.
    pub bad_labels: BTreeSet<String>,
    /// How many tasks are wished for.
    pub instances: Option<u64>,
    /// Marathon's own count of running tasks.
    pub tasks_running: Option<u64>,
    /// Whether `container` is there.
    pub has_container: bool,
    /// `container.docker.network` (up to 1.4).
    pub docker_network: Option<String>,
    /// `networks` (from 1.5).
    pub networks: Vec<Network>,
    /// `container.portMappings`, or `container.docker.portMappings` (up to 1.4).
    pub port_mappings: Vec<PortMapping>,
    /// `portDefinitions`.
    pub port_definitions: Vec<PortDefinition>,
    /// `ports`: service ports, whose number is the number of ports in old answers.
    pub service_ports: Vec<Option<u16>>,
    /// `ipAddress` (up to 1.4).
    pub ip_address: Option<IpAddress>,
    /// Health checks.
    pub health_checks: Vec<HealthCheck>,
    /// Timeouts of the readiness checks, in seconds.
    pub readiness_timeouts: Vec<u32>,
    /// `readinessCheckResults`: only there while a deployment runs, when asked for.
    pub readiness: Vec<Readiness>,
    /// Number of deployments that change the app now.
    pub deployments: usize,
    /// The tasks, or `None` when the key is not there (not embedded, or none: 1.8 and 1.9).
    pub tasks: Option<Vec<Task>>,
    /// Entries of `tasks` that did not even give their id.
    pub unreadable_tasks: usize,
    /// The first thing that makes the app's wishes or ports unreadable.
    pub broken: Option<String>,
}

impl App {
    /// The definition alone, without tasks and without what Marathon counts.
    pub fn definition(&self) -> Self {
        Self {
            id: self.id.clone(),
            version: self.version.clone(),
            config_since: self.config_since.clone(),
            labels: self.labels.clone(),
            bad_labels: self.bad_labels.clone(),
            has_container: self.has_container,
            docker_network: self.docker_network.clone(),
            networks: self.networks.clone(),
            port_mappings: self.port_mappings.clone(),
            port_definitions: self.port_definitions.clone(),
            service_ports: self.service_ports.clone(),
            ip_address: self.ip_address.clone(),
            health_checks: self.health_checks.clone(),
            ..Self::default()
        }
    }

    /// Whether a task that was started from `version` is described by this definition: it is the
    /// version shown, or one since which the app was only scaled.
    pub fn describes(&self, version: &str) -> bool {
        let Some(shown) = &self.version else { return true };
        if shown == version {
            return true;
        }
        let since = self.config_since.as_deref();
        since.is_some_and(|since| is_in_order(since, version) && is_in_order(version, shown))
    }
}

/// Whether `earlier` is not later than `later`. Marathon writes versions as timestamps in UTC of one
/// length, which sort as text; anything else is in no order.
fn is_in_order(earlier: &str, later: &str) -> bool {
    earlier.len() == later.len()
        && earlier.ends_with('Z')
        && later.ends_with('Z')
        && earlier <= later
}

/// An entry of `networks`.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// `host`, `container/bridge` or `container`; a missing one is `container`, as in Marathon.
    pub mode: Option<String>,
    /// Name of a container network.
    pub name: Option<String>,
}

/// An entry of `portMappings`.
#[derive(Clone, Debug, Default)]
pub struct PortMapping {
    /// Port inside the container; 0 means the same as the host port.
    pub container_port: u16,
    /// Port on the agent; 0 means any, none means that there is none.
    pub host_port: Option<u16>,
    /// `tcp`, `udp` or `udp,tcp`; none is `tcp`.
    pub protocol: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Labels of the port.
    pub labels: BTreeMap<String, String>,
    /// Networks that the port is on; none means all.
    pub network_names: Vec<String>,
}

/// An entry of `portDefinitions`. Its number is a *service port*: no task listens there.
#[derive(Clone, Debug, Default)]
pub struct PortDefinition {
    /// `tcp`, `udp` or `udp,tcp`; none is `tcp`.
    pub protocol: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Labels of the port.
    pub labels: BTreeMap<String, String>,
}

/// `ipAddress` of an app: one address per task (0.14 to 1.4).
#[derive(Clone, Debug, Default)]
pub struct IpAddress {
    /// `discovery.ports`.
    pub ports: Vec<DiscoveryPort>,
}

/// An entry of `ipAddress.discovery.ports`.
#[derive(Clone, Debug, Default)]
pub struct DiscoveryPort {
    /// Port at the task's own address.
    pub number: u16,
    /// `tcp` or `udp`; none is `tcp`.
    pub protocol: Option<String>,
    /// Name.
    pub name: Option<String>,
}

/// An entry of `healthChecks`.
#[derive(Clone, Copy, Debug)]
pub struct HealthCheck {
    /// Failures in a row after which Marathon kills the task.
    pub max_consecutive_failures: u32,
}

/// An entry of `readinessCheckResults`.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// The task that was asked.
    pub task: String,
    /// What it said.
    pub ready: bool,
}

/// One task.
#[derive(Clone, Debug, Default)]
pub struct Task {
    /// Id. Says nothing reliable about the app.
    pub id: String,
    /// Name or address of the agent; never empty.
    pub host: Option<String>,
    /// Host ports in the order of the app's ports that have one; `None` for what is not a port.
    pub ports: Vec<Option<u16>>,
    /// The task's own addresses.
    pub ip_addresses: Vec<String>,
    /// State, which Marathon tells since 0.15.4.
    pub state: Option<State>,
    /// When it reported to run, ISO 8601 in UTC: sorts as text.
    pub started_at: Option<String>,
    /// Version of the app that it was started from.
    pub version: Option<String>,
    /// Results of health checks, in no particular order; `None` for `null` and for garbage.
    pub results: Vec<Option<HealthResult>>,
    /// The first thing about its state or address that could not be read.
    pub broken: Option<String>,
}

/// State of a task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// `TASK_KILLING`: it was told to end, and may still serve.
    Killing,
    /// `TASK_LOST`: what `TASK_UNREACHABLE` was called before 1.4.
    Lost,
    /// `TASK_RUNNING`.
    Running,
    /// `TASK_UNREACHABLE`: its agent has lost contact with Mesos, the task may well serve.
    Unreachable,
    /// Not running yet, or over, or a name that we do not know.
    Other(String),
}

/// One result of a health check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HealthResult {
    /// Marathon's verdict: the last probe succeeded.
    pub alive: bool,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// A probe has succeeded before.
    pub has_succeeded: bool,
    /// A failure was counted.
    pub has_failed: bool,
}

impl HealthResult {
    /// Whether it says anything. Within the grace period a failure is not counted, and leaves
    /// `{"alive": false, "consecutiveFailures": 0}` without any time, which means "not yet known".
    pub fn is_known(self) -> bool {
        self.alive || self.consecutive_failures > 0 || self.has_succeeded || self.has_failed
    }
}
