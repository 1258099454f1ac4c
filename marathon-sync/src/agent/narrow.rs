//! Looks at single apps: what an event said of them, or what Marathon says of them now.
//!
//! The whole list of a large cluster takes Marathon seconds and us a good part of one. An event about
//! a task is looked after by asking for its app alone; everything is looked at every interval, and
//! whenever one app alone cannot tell.

use std::sync::Arc;

use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::debug;

use super::compute::Compute;
use super::look::LookError;
use super::{Known, Running};
use crate::document::{self, App, Problem};
use crate::marathon::client::{Client, FetchError};
use crate::pass::{Pass, narrow};
use crate::plan::Plan;
use crate::routes::diff::diff;
use crate::routes::lease::{Lease, Standing};
use crate::routes::snapshot::Snapshot;
use crate::rules::desired::narrow::Narrow;

/// What Marathon said of an app, or that it said nothing useful.
pub(super) type Told = Result<Option<(App, Vec<Problem>)>, FetchError>;

/// Asks for `apps`, one after the other: there is one question at a time.
pub(super) async fn fetch(
    client: &Client,
    compute: &Compute,
    apps: &[Arc<str>],
) -> Result<Vec<(Arc<str>, Told)>, JoinError> {
    let mut told = Vec::with_capacity(apps.len());
    for id in apps {
        let answer = match client.fetch_app(id).await {
            Ok(body) => Ok(compute.run(move || document::parse_app(&body)).await?),
            Err(error) => Err(error),
        };
        let is_away = answer.is_err();
        told.push((Arc::clone(id), answer));
        if is_away {
            break;
        }
    }
    Ok(told)
}

impl Running {
    /// Whether tasks of this app may be looked at alone.
    pub(super) fn is_alone(&self, app: &str) -> bool {
        let is_known = self.known.as_ref().is_some_and(|known| !known.is_new);
        // Their results are only in the whole list.
        let needs_readiness = self.agent.config.rules.liveness.readiness;
        let pass = self.last.as_deref().filter(|_| is_known && !needs_readiness);
        pass.is_some_and(|pass| narrow::is_alone(pass, app))
    }

    /// Marathon has answered about single apps.
    pub(super) async fn on_told(
        &mut self,
        told: Vec<(Arc<str>, Told)>,
        event: Option<Instant>,
    ) -> Result<(), LookError> {
        let now = Instant::now();
        self.schedule.fetched(now, None);
        let mut apps = Vec::with_capacity(told.len());
        for (id, answer) in told {
            let counters = &self.agent.state.counters;
            let result = match answer {
                Ok(Some((app, problems))) if *app.id == *id => {
                    apps.push((app, problems));
                    "app"
                }
                Ok(_) => "app_unusable",
                Err(error) => {
                    counters.fetch_failed(&error);
                    debug!(app = %id, %error, "no answer about one app");
                    "app_failed"
                }
            };
            counters.fetches.get_or_create(&[("result", result)]).inc();
            if result != "app" {
                // It is gone, or Marathon is away: the whole list tells.
                self.schedule.full(now);
            }
        }
        if apps.is_empty() {
            return Ok(());
        }
        let Some(found) = self.judge(apps) else {
            // One app alone does not say what may go; the guard judges whole answers.
            self.schedule.full(now);
            return Ok(());
        };
        if self.carry_out_narrow(found, event).await {
            return Ok(());
        }
        self.pass().await
    }

    /// Looks at the last answer's word on these apps again. Returns whether that was enough.
    pub(super) async fn narrow_again(&mut self, ids: impl IntoIterator<Item = Arc<str>>) -> bool {
        let Some(known) = &self.known else { return false };
        let Some(pass) = &self.last else { return false };
        let mut apps = Vec::new();
        for id in ids {
            let mut found = known.answer.apps.iter().filter(|app| *app.id == *id);
            let (Some(app), None) = (found.next(), found.next()) else { return false };
            let problems = pass.apps.get(&*id).map(|report| report.problems.clone());
            apps.push((app.clone(), problems.unwrap_or_default()));
        }
        let Some(found) = self.judge(apps) else { return false };
        let event = self.certain.take();
        let is_done = self.carry_out_narrow(found, event).await;
        if !is_done {
            self.certain = event;
        }
        is_done
    }

    /// What becomes of these apps, if that can be told of each of them alone: what they say then
    /// replaces what the last answer said of them.
    fn judge(&mut self, apps: Vec<(App, Vec<Problem>)>) -> Option<Vec<Narrow>> {
        let before = self.last.clone()?;
        let seen = self.seen.at(Instant::now());
        let mut found = Vec::with_capacity(apps.len());
        let mut is_enough = true;
        for (app, problems) in apps {
            let narrow = narrow::is_alone(&before, &app.id)
                .then(|| self.looker.narrow(&app, problems, &before, seen))
                .flatten();
            let Some(narrow) = narrow else {
                is_enough = false;
                continue;
            };
            found.push(narrow);
            if let Some(known) = &mut self.known {
                known.replace(app);
            }
        }
        is_enough.then_some(found)
    }

    /// Writes what follows. Returns whether a look at everything is not needed now.
    async fn carry_out_narrow(&mut self, found: Vec<Narrow>, event: Option<Instant>) -> bool {
        if self.agent.state.view().redis_failed.is_some() {
            return false;
        }
        let token = match self.lease.as_ref().map(Lease::standing) {
            Some(Standing::Leader { token, .. }) if !self.is_stale() && !self.is_rebuilding => {
                token
            }
            // It notes what it has learnt, and leaves the rest to the leader.
            Some(Standing::Standby { .. }) => {
                self.absorb(found);
                return true;
            }
            Some(Standing::Leader { .. } | Standing::Unknown) | None => return false,
        };
        let hosts: Vec<&String> = found.iter().flat_map(|narrow| narrow.hosts.keys()).collect();
        let Ok(snapshot) = self.agent.routes.read(&hosts).await else { return false };
        let plan = plan(&found, &snapshot);
        let difference = diff(&plan, &snapshot);
        if !difference.problems.is_empty() {
            return false;
        }
        let applied = self.agent.routes.apply(&plan, difference.changes, &token).await;
        self.note_changes(&applied, event);
        self.absorb(found);
        applied.failed.is_empty()
    }

    /// Shows what became of the apps.
    fn absorb(&mut self, found: Vec<Narrow>) {
        let Some(last) = &mut self.last else { return };
        let pass: &mut Pass = Arc::make_mut(last);
        for narrow in found {
            narrow::absorb(pass, narrow);
        }
        let pass = Arc::clone(last);
        self.agent.state.update(|view| view.pass = Some(pass));
    }
}

fn plan(found: &[Narrow], snapshot: &Snapshot) -> Plan {
    found.iter().flat_map(|narrow| narrow::plan(narrow, snapshot)).collect()
}

impl Known {
    /// `app` as it is shown now.
    fn replace(&mut self, app: App) {
        let apps = &mut Arc::make_mut(&mut self.answer).apps;
        if let Some(old) = apps.iter_mut().find(|old| old.id == app.id) {
            *old = app;
        }
    }
}
