//! What is told about each app, for `/status` and `explain`.

use super::address::{Address, NoAddress, PortRef};
use super::labels::{Claim, Refused};
use super::liveness::Verdict;
use crate::document::Problem;

/// What became of one app.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AppReport {
    /// What was done with it.
    pub state: AppState,
    /// Hosts that it claims; of a quarantined app those that it claimed last.
    pub hosts: Vec<Claim>,
    /// Its tasks, in the order in which they are appended; empty if the app claims nothing.
    pub tasks: Vec<TaskReport>,
    /// Wishes that are not carried out.
    pub refused: Vec<Refused>,
    /// What of it could not be read.
    pub problems: Vec<Problem>,
    /// Addresses that it only kept on doubt, and that other apps have now.
    pub taken: Vec<String>,
    /// Versions of the app that tasks were started from and whose definitions are not known: such tasks
    /// stay where they are listed.
    pub unknown_versions: Vec<String>,
}

#[cfg(test)]
impl AppReport {
    /// Of an app about which there is nothing to complain, with its first port on `hosts`.
    pub(crate) fn of(state: AppState, hosts: &[&str], tasks: Vec<TaskReport>) -> Self {
        let claim = |host: &&str| Claim {
            host: (*host).to_owned(),
            identifier: "id".to_owned(),
            port: PortRef::Index(0),
            scheme: shared::backend::Scheme::Http,
            label: "hipacheFrontend".to_owned(),
        };
        let hosts = hosts.iter().map(claim).collect();
        let (refused, problems, taken) = (Vec::new(), Vec::new(), Vec::new());
        let unknown_versions = Vec::new();
        Self { state, hosts, tasks, refused, problems, taken, unknown_versions }
    }
}

/// What was done with an app.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AppState {
    /// Its hosts have its live tasks.
    Mapped,
    /// The same, but not all that it had before can be judged, for this reason.
    MappedInPart(String),
    /// Its wishes cannot be read, for this reason: it keeps what it had.
    Quarantined(String),
    /// It is not for us, for this reason.
    Skipped(String),
}

impl AppState {
    /// Whether its hosts have its live tasks.
    pub fn is_mapped(&self) -> bool {
        matches!(self, Self::Mapped | Self::MappedInPart(_))
    }

    /// Why not all that the app wants can be told, where that is so.
    pub fn doubt(&self) -> Option<&str> {
        match self {
            Self::MappedInPart(why) | Self::Quarantined(why) => Some(why),
            Self::Mapped | Self::Skipped(_) => None,
        }
    }
}

/// What became of one task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TaskReport {
    /// Its id.
    pub id: String,
    /// Whether it is live.
    pub verdict: Verdict,
    /// Where it listens, for each port that a host is claimed for.
    pub addresses: Vec<TaskAddress>,
}

/// Where a task listens for one port of its app.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TaskAddress {
    /// The port.
    pub port: PortRef,
    /// The address, and how it was found, or why there is none.
    pub found: Result<Address, NoAddress>,
    /// Marathon does not tell the address now; it did before.
    pub is_remembered: bool,
}
