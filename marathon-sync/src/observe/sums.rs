//! Words for what became of apps and tasks, and how many there are of each. Pure.

use crate::pass::Pass;
use crate::rules::liveness::Verdict;
use crate::rules::report::AppState;

/// Sums over a pass, each with its word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sums {
    /// Apps by [`state`].
    pub apps: [(&'static str, usize); 4],
    /// Tasks of apps that claim a host, by [`verdict`].
    pub tasks: [(&'static str, usize); 3],
    /// Backends of the plan: live ones, and those that stay where they are listed.
    pub backends: [(&'static str, usize); 2],
    /// Hosts that are claimed.
    pub hosts: usize,
    /// Wishes of labels that are not carried out.
    pub refused: usize,
    /// Backends whose removal waits for confirmation.
    pub held: usize,
}

impl Sums {
    /// Adds up what `pass` came to.
    pub fn of(pass: &Pass) -> Self {
        let Pass { apps, plan, .. } = pass;
        let count = |word| (word, apps.values().filter(|app| state(&app.state).0 == word).count());
        let tasks = || apps.values().flat_map(|app| &app.tasks);
        let judged = |word| (word, tasks().filter(|task| verdict(&task.verdict) == word).count());
        Self {
            apps: STATES.map(count),
            tasks: VERDICTS.map(judged),
            backends: [
                ("up", plan.values().map(|wanted| wanted.up.len()).sum()),
                ("unsure", plan.values().map(|wanted| wanted.unsure.len()).sum()),
            ],
            // Hosts that only the guard keeps are nobody's.
            hosts: plan.values().filter(|wanted| !wanted.apps.is_empty()).count(),
            refused: apps.values().map(|app| app.refused.len()).sum(),
            held: pass.held.iter().flat_map(|held| held.rows.values()).map(Vec::len).sum(),
        }
    }
}

/// The words of [`state`].
pub const STATES: [&str; 4] = ["mapped", "mapped_in_part", "quarantined", "skipped"];

/// What was done with an app, in one word, and why.
pub fn state(state: &AppState) -> (&'static str, Option<&str>) {
    match state {
        AppState::Mapped => ("mapped", None),
        AppState::MappedInPart(reason) => ("mapped_in_part", Some(reason)),
        AppState::Quarantined(reason) => ("quarantined", Some(reason)),
        AppState::Skipped(reason) => ("skipped", Some(reason)),
    }
}

/// The words of [`verdict`].
pub const VERDICTS: [&str; 3] = ["up", "unsure", "down"];

/// What is thought of a task, in one word.
pub fn verdict(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Down(_) => "down",
        Verdict::Unsure(_) => "unsure",
        Verdict::Up => "up",
    }
}

/// Why.
pub fn reason(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Down(reason) | Verdict::Unsure(reason) => Some(reason.to_string()),
        Verdict::Up => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::pass;
    use super::Sums;

    #[test]
    fn apps_tasks_and_backends_are_added_up() {
        let expected = Sums {
            apps: [("mapped", 1), ("mapped_in_part", 1), ("quarantined", 1), ("skipped", 1)],
            tasks: [("up", 2), ("unsure", 1), ("down", 1)],
            backends: [("up", 2), ("unsure", 2)],
            hosts: 3,
            refused: 1,
            held: 1,
        };
        assert_eq!(Sums::of(&pass()), expected);
    }
}
