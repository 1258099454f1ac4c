//! A task: where it is, in which state, and what its health checks have found.

use std::net::{IpAddr, SocketAddr};

use super::super::dialect::Dialect;
use super::app::Overlay;
use super::time::Stamp;

/// Where a task runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The agent's host name or address.
    pub host: String,
    /// Ports of the agent, in the order of the app's ports that have one.
    pub ports: Vec<u16>,
    /// Addresses of the container.
    pub addresses: Vec<String>,
}

impl Place {
    /// On that agent, at those ports.
    pub fn new(host: impl Into<String>, ports: Vec<u16>) -> Self {
        Self { host: host.into(), ports, addresses: Vec::new() }
    }

    /// With an address of its own, e.g. of the container.
    #[must_use]
    pub fn with_address(mut self, address: &str) -> Self {
        self.addresses.push(address.to_owned());
        self
    }
}

impl From<SocketAddr> for Place {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr.ip().to_string(), vec![addr.port()])
    }
}

impl From<(&str, u16)> for Place {
    fn from((host, port): (&str, u16)) -> Self {
        Self::new(host, vec![port])
    }
}

/// State of a task, as Marathon's conditions have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "the names of Marathon")]
pub enum State {
    Staging,
    Starting,
    Running,
    Killing,
    Unreachable,
    /// Unreachable for longer than `inactiveAfterSeconds`: still listed as unreachable, but without
    /// ports.
    UnreachableInactive,
    Finished,
    Failed,
    Killed,
    Error,
    Gone,
    Dropped,
    Unknown,
}

impl State {
    /// Whether the task still counts: others have neither ports nor times from 1.4 on.
    pub(in crate::marathon) fn is_active(self) -> bool {
        matches!(
            self,
            Self::Staging | Self::Starting | Self::Running | Self::Killing | Self::Unreachable
        )
    }

    /// Whether it has ended for good.
    pub(in crate::marathon) fn is_terminal(self) -> bool {
        !self.is_active() && self != Self::UnreachableInactive
    }

    /// `state` and `taskStatus`.
    pub(in crate::marathon) fn name(self, dialect: Dialect) -> &'static str {
        match self {
            Self::Staging => "TASK_STAGING",
            Self::Starting => "TASK_STARTING",
            Self::Running => "TASK_RUNNING",
            Self::Killing => "TASK_KILLING",
            Self::Unreachable | Self::UnreachableInactive if dialect.has_unreachable() => {
                "TASK_UNREACHABLE"
            }
            Self::Unreachable | Self::UnreachableInactive => "TASK_LOST",
            Self::Finished => "TASK_FINISHED",
            Self::Failed => "TASK_FAILED",
            Self::Killed => "TASK_KILLED",
            Self::Error => "TASK_ERROR",
            Self::Gone => "TASK_GONE",
            Self::Dropped => "TASK_DROPPED",
            Self::Unknown => "TASK_UNKNOWN",
        }
    }

    /// `condition` of instance events.
    pub(in crate::marathon) fn condition(self) -> &'static str {
        match self {
            Self::Staging => "Staging",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Killing => "Killing",
            Self::Unreachable => "Unreachable",
            Self::UnreachableInactive => "UnreachableInactive",
            Self::Finished => "Finished",
            Self::Failed => "Failed",
            Self::Killed => "Killed",
            Self::Error => "Error",
            Self::Gone => "Gone",
            Self::Dropped => "Dropped",
            Self::Unknown => "Unknown",
        }
    }
}

/// What a probe finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    /// It answers.
    Healthy,
    /// It does not.
    Sick,
    /// It does not yet, and is within its grace period: `alive` is false, and nothing counts.
    Starting,
}

/// What the leader remembers of one check of one task.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[allow(missing_docs, reason = "the keys of Marathon")]
pub struct HealthResult {
    pub consecutive_failures: u32,
    pub first_success: Option<Stamp>,
    pub last_success: Option<Stamp>,
    pub last_failure: Option<Stamp>,
    pub last_failure_cause: Option<String>,
}

impl HealthResult {
    /// As Marathon counts: the last success is later than the last failure.
    pub fn alive(&self) -> bool {
        self.last_success.is_some() && self.last_success > self.last_failure
    }

    pub(in crate::marathon) fn note(&mut self, health: Health, now: Stamp) {
        match health {
            Health::Healthy => {
                self.consecutive_failures = 0;
                self.first_success.get_or_insert(now);
                self.last_success = Some(now);
            }
            Health::Sick => {
                self.consecutive_failures += 1;
                self.last_failure = Some(now);
                self.last_failure_cause = Some("ConnectionAttemptFailedException".to_owned());
            }
            Health::Starting => {}
        }
    }
}

/// One task.
#[derive(Clone, Debug)]
pub struct Task {
    /// Task id, in the form of the dialect that it was launched in.
    pub id: String,
    /// Instance id, likewise.
    pub instance: String,
    /// Where it runs.
    pub place: Place,
    /// State.
    pub state: State,
    /// When it was launched.
    pub staged: Stamp,
    /// When it began to run.
    pub started: Option<Stamp>,
    /// Version of the app that it was launched from.
    pub version: Stamp,
    /// Results in the order of the checks; `None` while there is none.
    pub results: Vec<Option<HealthResult>>,
    /// Whether its readiness check has succeeded.
    pub ready: bool,
    /// Changes to the JSON of the task.
    pub overlay: Overlay,
}

impl Task {
    /// The agent's id in Mesos, which is made of its host.
    pub(in crate::marathon) fn agent(&self) -> String {
        let host = &self.place.host;
        format!("3b9e2f0c-6a53-4a0f-8c5e-0d6f0f4a7b11-{}", host.replace(['.', ':'], "-"))
    }

    /// Addresses with the word that Marathon has for their kind.
    pub(in crate::marathon) fn addresses(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.place.addresses.iter().map(|address| {
            let v6 = matches!(address.parse(), Ok(IpAddr::V6(_)));
            (address.as_str(), if v6 { "IPv6" } else { "IPv4" })
        })
    }

    /// Results that count as known: all of them, alive or not.
    pub(in crate::marathon) fn known(&self) -> impl Iterator<Item = &HealthResult> {
        self.results.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alive_is_what_the_last_probe_that_counts_has_found() {
        use Health::{Healthy, Sick, Starting};
        let cases: [(&[Health], bool, u32); 6] = [
            (&[], false, 0),
            (&[Starting], false, 0),
            (&[Healthy], true, 0),
            (&[Healthy, Sick], false, 1),
            (&[Sick, Sick, Healthy], true, 0),
            (&[Healthy, Sick, Sick], false, 2),
        ];
        for (probes, alive, failures) in cases {
            let mut result = HealthResult::default();
            for (at, probe) in (1..).zip(probes) {
                result.note(*probe, Stamp(at));
            }
            assert_eq!((result.alive(), result.consecutive_failures), (alive, failures));
        }
    }
}
