//! Which certainties of events are worth a pass at once. Pure.
//!
//! A cluster ends many tasks that no route has: jobs, services of others. Each pass reads all lists,
//! so those may not cause one. They are remembered all the same, for answers to come.

use crate::pass::Pass;
use crate::rules::report::{AppReport, AppState};

/// Whether the end of `task` may take a backend away that `pass` has left.
pub fn task(pass: &Pass, app: &str, task: &str) -> bool {
    match pass.apps.get(app) {
        Some(report) => is_doubtful(report) || report.tasks.iter().any(|known| known.id == task),
        None => is_held(pass),
    }
}

/// Whether the deletion of `app` may.
pub fn app(pass: &Pass, app: &str) -> bool {
    match pass.apps.get(app) {
        Some(report) => is_doubtful(report) || !report.hosts.is_empty(),
        None => is_held(pass),
    }
}

/// Whether events about the tasks of `app` concern no route: it has none, and gets none without a
/// deployment, which other events announce.
pub fn is_unrouted(pass: &Pass, app: &str) -> bool {
    pass.apps.get(app).is_some_and(|report| matches!(report.state, AppState::Skipped(_)))
}

/// Keeps backends of earlier answers, which the report does not list.
fn is_doubtful(report: &AppReport) -> bool {
    report.state.doubt().is_some()
}

/// An app that is not in the answer has at most backends that the guard holds: its end explains
/// why they go.
fn is_held(pass: &Pass) -> bool {
    pass.held.is_some()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::guard::Held;
    use crate::rules::liveness::Verdict;
    use crate::rules::report::TaskReport;

    fn report(state: AppState, tasks: &[&str]) -> AppReport {
        let report = |id: &&str| TaskReport {
            id: (*id).to_owned(),
            verdict: Verdict::Up,
            addresses: Vec::new(),
        };
        AppReport::of(state, &[], tasks.iter().map(report).collect())
    }

    #[test]
    fn only_the_end_of_what_a_route_may_have_matters() {
        let apps = [
            ("/routed", report(AppState::Mapped, &["routed.1"])),
            ("/other", report(AppState::Skipped("no label".to_owned()), &[])),
            ("/doubtful", report(AppState::Quarantined("garbage".to_owned()), &[])),
        ];
        let apps = apps.map(|(id, report)| (id.to_owned(), report.into())).into();
        let mut pass = Pass { apps, ..Pass::default() };
        for (app, id, expected) in [
            ("/routed", "routed.1", true),
            ("/routed", "routed.2", false),
            ("/other", "other.1", false),
            ("/doubtful", "doubtful.1", true),
            ("/unknown", "unknown.1", false),
        ] {
            assert_eq!(task(&pass, app, id), expected, "{id}");
        }
        let unrouted = ["/routed", "/other", "/doubtful", "/unknown"];
        assert_eq!(unrouted.map(|id| is_unrouted(&pass, id)), [false, true, false, false]);
        assert!(app(&pass, "/doubtful") && !app(&pass, "/other") && !app(&pass, "/unknown"));
        let (rows, reason) = (Default::default(), "missing".to_owned());
        pass.held = Some(Held { rows, reason, until: Duration::ZERO, observations_left: 1 });
        assert!(task(&pass, "/unknown", "unknown.1") && app(&pass, "/unknown"));
        assert!(!task(&pass, "/other", "other.1"));
    }
}
