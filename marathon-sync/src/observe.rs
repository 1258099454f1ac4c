//! marathon-sync seen from outside: metrics, readiness and `/status` of the admin listener, and the
//! texts of `explain` and `verify`.
//!
//! The agent notes what happens in its [`State`]; all that is shown is made of it by pure functions
//! at the moment of asking. Nothing here changes what the agent does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shared::backend::Scheme;
use shared::store::{Client, Outage};

use crate::agent::state::{State, View};
use crate::pass::Pass;

pub mod admin;
pub mod explain;
pub mod metrics;
pub mod readiness;
pub mod status;
pub mod sums;
#[cfg(test)]
mod testing;
pub mod verify;

/// All that is looked at.
#[derive(Debug)]
pub struct Observed {
    /// What does not change.
    pub identity: Identity,
    /// What the agent notes.
    pub state: Arc<State>,
    /// The connection to Redis, once there is one.
    pub redis: Option<Client>,
    /// Set when the process is about to end.
    pub is_ending: AtomicBool,
}

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The name under which all processes of this marathon-sync note what they own.
    pub instance: String,
    /// The name of this process in the election.
    pub process: String,
    /// The Marathons, as they are shown: without credentials.
    pub endpoints: Vec<String>,
    /// Age of the last success from which on the process is not ready.
    pub stale_after: Duration,
}

/// A sensible [`Identity::stale_after`] for passes every `interval`: two may fail or be late, and a
/// fetch takes its time.
pub fn stale_after(interval: Duration) -> Duration {
    interval.saturating_mul(3).saturating_add(Duration::from_secs(30))
}

/// One moment.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What the agent has noted.
    pub view: View,
    /// Whether Redis is connected.
    pub redis_is_up: bool,
    /// What keeps Redis from being used, while it is not connected.
    pub outage: Outage,
    /// Whether the process is about to end.
    pub is_ending: bool,
}

impl Observed {
    /// What is known now. Cheap.
    pub fn facts(&self) -> Facts {
        Facts {
            view: self.state.view(),
            redis_is_up: self.redis.as_ref().is_some_and(Client::is_up),
            outage: self.redis.as_ref().map(Client::outage).unwrap_or_default(),
            is_ending: self.is_ending.load(Ordering::Relaxed),
        }
    }
}

/// The name of a process by its token, without what makes the token unique.
fn process_name(token: &str) -> &str {
    token.rsplitn(3, '/').nth(2).unwrap_or(token)
}

/// An app's id as Marathon writes it.
fn app_id(text: &str) -> String {
    if text.starts_with('/') { text.to_owned() } else { format!("/{text}") }
}

fn scheme(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::H2c => "h2c",
        Scheme::Https => "https",
    }
}

/// A few ids that may have been meant by `id`, as the end of a sentence.
fn similar(id: &str, pass: &Pass) -> String {
    let name = id.rsplit('/').next().unwrap_or(id);
    let is_like = |other: &&String| !name.is_empty() && other.contains(name);
    let found: Vec<&str> = pass.apps.keys().filter(is_like).take(5).map(String::as_str).collect();
    if found.is_empty() { String::new() } else { format!("; it has {}", found.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::process_name;

    #[test]
    fn a_process_is_named_without_its_token() {
        for (token, name) in
            [("host/17/00ab/3", "host/17"), ("host/00ab/3", "host"), ("host", "host"), ("", "")]
        {
            assert_eq!(process_name(token), name);
        }
    }
}
