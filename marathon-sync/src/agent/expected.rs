//! Tasks that events called running before an answer shows them so. Pure.
//!
//! Marathon announces a status a little before its lists have it, and a standby may be behind its leader.
//! Without the next event such a task would wait for the interval.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::document::{App, State};

/// Tasks that are waited for, at most: beyond that a deployment has events enough.
const MAX: usize = 1000;

/// Answers without the task after which it is not waited for any more.
const MAX_ANSWERS: u32 = 6;

/// Wait after the first answer without the task; doubled with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The tasks that are waited for.
#[derive(Debug, Default)]
pub(super) struct Expected {
    tasks: BTreeMap<Arc<str>, Task>,
}

#[derive(Debug)]
struct Task {
    app: Arc<str>,
    since: Instant,
    /// Answers that should have shown it.
    answers: u32,
}

impl Expected {
    /// An event says that a task of `app` runs.
    pub(super) fn started(&mut self, task: &Arc<str>, app: &Arc<str>, now: Instant) {
        if self.tasks.len() < MAX && !self.tasks.contains_key(task) {
            let task_of = Task { app: Arc::clone(app), since: now, answers: 0 };
            let _new = self.tasks.insert(Arc::clone(task), task_of);
        }
    }

    /// An event says that it does not run any more.
    pub(super) fn ended(&mut self, task: &str) {
        let _expected = self.tasks.remove(task);
    }

    /// Takes in an answer that was asked for at `asked` and shows `apps`: all that there are, or single
    /// ones. Returns which apps to ask for again, and how long to wait before.
    pub(super) fn shown<'a>(
        &mut self,
        apps: impl Iterator<Item = &'a App>,
        is_everything: bool,
        asked: Instant,
    ) -> Option<(Duration, BTreeSet<Arc<str>>)> {
        if self.tasks.is_empty() {
            return None;
        }
        let wanted: BTreeSet<&str> = self.tasks.values().map(|task| &*task.app).collect();
        let apps = apps.filter(|app| wanted.contains(app.id.as_str()));
        let apps: HashMap<String, &App> = apps.map(|app| (app.id.clone(), app)).collect();
        let (mut wait, mut again) = (Duration::MAX, BTreeSet::new());
        self.tasks.retain(|id, task| {
            let app = apps.get(&*task.app);
            if task.since > asked || (app.is_none() && !is_everything) {
                return true;
            }
            if app.is_some_and(|app| runs(app, id)) || task.answers >= MAX_ANSWERS {
                return false;
            }
            wait = wait.min(FIRST_WAIT * (1 << task.answers));
            task.answers += 1;
            let _new = again.insert(Arc::clone(&task.app));
            true
        });
        (!again.is_empty()).then_some((wait, again))
    }
}

fn runs(app: &App, id: &str) -> bool {
    let mut tasks = app.tasks.iter().flatten().filter(|task| task.id == id);
    tasks.any(|task| match &task.state {
        Some(state) => *state == State::Running,
        None => task.started_at.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Task as Shown;

    fn app(tasks: &[(&str, State)]) -> App {
        let task = |(id, state): &(&str, State)| Shown {
            id: (*id).to_owned(),
            state: Some(state.clone()),
            ..Shown::default()
        };
        App { id: "/a".to_owned(), tasks: Some(tasks.iter().map(task).collect()), ..App::default() }
    }

    #[test]
    fn app_is_requested_until_it_shows_the_task_running() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let staging = app(&[("t.1", State::Other("TASK_STAGING".to_owned()))]);
        let running = app(&[("t.1", State::Running)]);
        let mut expected = Expected::default();
        expected.started(&"t.1".into(), &"/a".into(), start);
        let again = |milliseconds| {
            Some((Duration::from_millis(milliseconds), BTreeSet::from([Arc::from("/a")])))
        };
        // Asked before the event, or about others: that says nothing.
        let before = start - Duration::from_millis(1);
        assert_eq!(expected.shown([&staging].into_iter(), true, before), None);
        assert_eq!(expected.shown([].into_iter(), false, later), None);
        assert_eq!(expected.shown([&staging].into_iter(), false, later), again(250));
        assert_eq!(expected.shown([].into_iter(), true, later), again(500));
        assert_eq!(expected.shown([&running].into_iter(), false, later), None);
        assert_eq!(expected.shown([&staging].into_iter(), false, later), None, "it was shown");
    }

    #[test]
    fn a_task_that_never_shows_is_given_up() {
        let start = Instant::now();
        let mut expected = Expected::default();
        for number in 0..=MAX {
            expected.started(&format!("t.{number}").into(), &"/a".into(), start);
        }
        assert_eq!(expected.tasks.len(), MAX);
        let mut total = Duration::ZERO;
        while let Some((wait, _)) = expected.shown([].into_iter(), true, start) {
            total += wait;
        }
        assert_eq!(total, FIRST_WAIT * 63);
        assert!(expected.tasks.is_empty());
        expected.started(&"t.1".into(), &"/a".into(), start);
        expected.ended("t.1");
        assert_eq!(expected.shown([].into_iter(), true, start), None);
    }
}
