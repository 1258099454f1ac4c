//! A rolling deployment, which goes on only when it is told to.

use std::collections::VecDeque;

use super::apps::{AppRef, TaskRef};
use super::model::{Health, Place, State};

/// What the last step of a [`RollOut`] did, and to which tasks.
#[derive(Clone, Debug)]
pub enum Step {
    /// New tasks are staged.
    Staged(Vec<TaskRef>),
    /// They run, without results of their checks.
    Running(Vec<TaskRef>),
    /// They have failed a probe within their grace period.
    InGrace(Vec<TaskRef>),
    /// They have passed their checks, and are ready.
    Healthy(Vec<TaskRef>),
    /// Old tasks are being killed: their processes have been told to end.
    Killing(Vec<TaskRef>),
    /// They are gone.
    Gone(Vec<TaskRef>),
    /// The deployment has ended.
    Finished,
}

/// Replaces tasks batch by batch: each [`step`](Self::step) is one thing that can be observed.
#[derive(Debug)]
pub struct RollOut {
    app: AppRef,
    old: VecDeque<TaskRef>,
    places: VecDeque<Place>,
    batch: usize,
    killing: bool,
    next: Next,
    now: Vec<TaskRef>,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    Stage,
    Run,
    Grace,
    Healthy,
    Killing,
    Gone,
    Nothing,
}

impl RollOut {
    pub(super) fn new(app: AppRef, old: Vec<TaskRef>, places: Vec<Place>) -> Self {
        app.begin("RestartApplication");
        Self {
            app,
            old: old.into(),
            places: places.into(),
            batch: 1,
            killing: true,
            next: Next::Stage,
            now: Vec::new(),
        }
    }

    /// Replaces so many tasks at a time instead of one.
    #[must_use]
    pub fn batches_of(mut self, size: usize) -> Self {
        self.batch = size.max(1);
        self
    }

    /// Shows no `TASK_KILLING`, as without `--enable_features task_killing`. Dialects that do not
    /// know it never show it.
    #[must_use]
    pub fn without_killing(mut self) -> Self {
        self.killing = false;
        self
    }

    /// Goes one step on; `None` when there is none left.
    pub fn step(&mut self) -> Option<Step> {
        let (step, next) = match self.next {
            Next::Stage if self.places.is_empty() => {
                return if self.old.is_empty() { self.end() } else { self.kill() };
            }
            Next::Stage => {
                let count = self.batch.min(self.places.len());
                self.now = self.places.drain(..count).map(|place| self.app.launch(place)).collect();
                (Step::Staged(self.now.clone()), Next::Run)
            }
            Next::Run => {
                self.each(|task| {
                    task.run();
                });
                (Step::Running(self.now.clone()), Next::Grace)
            }
            Next::Grace => {
                self.each(|task| {
                    task.probe(Health::Starting);
                });
                (Step::InGrace(self.now.clone()), Next::Healthy)
            }
            Next::Healthy => {
                self.each(|task| {
                    task.change(|task| task.ready = true).probe(Health::Healthy);
                });
                (Step::Healthy(self.now.clone()), Next::Killing)
            }
            Next::Killing => return self.kill(),
            Next::Gone => {
                self.each(TaskRef::kill);
                (Step::Gone(self.now.clone()), Next::Stage)
            }
            Next::Nothing => return None,
        };
        self.next = next;
        Some(step)
    }

    /// Goes on to the end.
    pub fn finish(mut self) {
        while self.step().is_some() {}
    }

    fn kill(&mut self) -> Option<Step> {
        let count = self.batch.min(self.old.len());
        self.now = self.old.drain(..count).collect();
        if self.now.is_empty() {
            self.next = Next::Stage;
            return self.step();
        }
        if self.killing && self.shows_killing() {
            self.each(|task| {
                task.to(State::Killing);
            });
            self.next = Next::Gone;
            return Some(Step::Killing(self.now.clone()));
        }
        self.next = Next::Gone;
        self.step()
    }

    fn end(&mut self) -> Option<Step> {
        self.app.finish();
        self.next = Next::Nothing;
        Some(Step::Finished)
    }

    fn shows_killing(&self) -> bool {
        self.app.shared.state().cluster.dialect.has_killing()
    }

    fn each(&self, act: impl Fn(&TaskRef)) {
        self.now.iter().for_each(act);
    }
}
