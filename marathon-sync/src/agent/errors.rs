//! Errors by kind, as they are counted.

use super::state::Counters;
use crate::marathon::AttemptError;
use crate::marathon::client::FetchError;
use crate::routes::apply::{Applied, WriteError};
use crate::routes::snapshot::RoutesError;

impl Counters {
    /// Counts each endpoint that gave no answer.
    pub fn fetch_failed(&self, error: &FetchError) {
        for (_endpoint, error) in &error.attempts {
            self.fetch_errors.get_or_create(&[("kind", fetch_error(error))]).inc();
        }
    }

    /// Counts that the lists could not be read.
    pub fn read_failed(&self, error: &RoutesError) {
        self.redis_errors.get_or_create(&[("kind", read_error(error))]).inc();
    }

    /// Counts each list that could not be written.
    pub fn write_failed(&self, applied: &Applied) {
        for error in applied.failed.values() {
            self.redis_errors.get_or_create(&[("kind", write_error(error))]).inc();
        }
    }
}

/// Kinds of [`Counters::fetch_errors`].
pub const FETCH_ERRORS: [&str; 10] = [
    "answer",
    "body",
    "connect",
    "exchange",
    "login",
    "no_app",
    "redirect",
    "status",
    "timed_out",
    "too_long",
];

fn fetch_error(error: &AttemptError) -> &'static str {
    match error {
        AttemptError::Answer(_) => "answer",
        AttemptError::Body { .. } => "body",
        AttemptError::Connect(_) => "connect",
        AttemptError::Exchange(_) => "exchange",
        AttemptError::Login(_) => "login",
        AttemptError::NoApp => "no_app",
        AttemptError::Redirect(_) | AttemptError::RedirectedTwice { .. } => "redirect",
        AttemptError::Status { .. } => "status",
        AttemptError::TimedOut { .. } => "timed_out",
        AttemptError::TooLong { .. } => "too_long",
    }
}

/// Kinds of [`Counters::redis_errors`].
pub const REDIS_ERRORS: [&str; 9] = [
    "conflict",
    "lease_lost",
    "no_list",
    "not_tried",
    "notes_unreadable",
    "read",
    "refused",
    "scripts_refused",
    "unanswered",
];

fn read_error(error: &RoutesError) -> &'static str {
    match error {
        RoutesError::InstancesUnreadable(_) | RoutesError::NotesUnreadable(_) => "notes_unreadable",
        RoutesError::Read(_) => "read",
    }
}

fn write_error(error: &WriteError) -> &'static str {
    match error {
        WriteError::Conflict => "conflict",
        WriteError::LeaseLost => "lease_lost",
        WriteError::NoList(_) => "no_list",
        WriteError::NotTried => "not_tried",
        WriteError::Refused(_) => "refused",
        WriteError::Reread(error) => read_error(error),
        WriteError::ScriptsRefused(_) => "scripts_refused",
        WriteError::Unanswered(_) => "unanswered",
    }
}
