//! Looks at single apps: what an event said of them, or what Marathon says of them now.
//!
//! The whole list of a large cluster takes Marathon seconds and us a good part of one. An event about
//! a task is looked after by asking for its app alone; everything is looked at every interval, and
//! whenever one app alone cannot tell.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::Running;
use super::compute::Compute;
use super::look::LookError;
use super::news::printable;
use crate::document;
use crate::marathon::client::{Client, FetchError};
use crate::pass::narrow::{self, Found, Shown};
use crate::routes::diff::diff;
use crate::routes::lease::Standing;
use crate::rules::desired::narrow::Narrow;

/// What Marathon said of an app, or that it said nothing useful.
pub(super) type Told = Result<Option<Shown>, FetchError>;

/// What a look at single apps may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum May<'a> {
    /// Write, with this token.
    Write(&'a str),
    /// Note what was learnt; the rest is the leader's.
    Note,
    /// Nothing: everything has to be looked at.
    Nothing,
}

impl<'a> May<'a> {
    /// `standing`: `None` is a dry run. `has_failed`: Redis could not be read or written when last
    /// tried. `is_doubtful`: the last answer is too old to be written wholly.
    pub fn of(standing: Option<&'a Standing>, has_failed: bool, is_doubtful: bool) -> Self {
        match standing {
            _ if has_failed => Self::Nothing,
            Some(Standing::Leader { token, .. }) if !is_doubtful => Self::Write(token),
            Some(Standing::Standby { .. }) => Self::Note,
            Some(Standing::Leader { .. } | Standing::Unknown) | None => Self::Nothing,
        }
    }
}

/// How long single apps may be asked for together: meanwhile the list of all waits.
const LIMIT: Duration = Duration::from_secs(2);

/// What Marathon said of single apps.
pub(super) struct Answers {
    told: Vec<(Arc<str>, Told)>,
    /// Not all of them were asked for, or not answered in time.
    is_cut: bool,
}

/// Asks for `apps`, one after the other: there is one question at a time.
pub(super) async fn fetch(
    client: &Client,
    compute: &Compute,
    apps: &[Arc<str>],
) -> Result<Answers, JoinError> {
    let mut told = Vec::with_capacity(apps.len());
    let end = Instant::now() + LIMIT;
    for id in apps {
        let Ok(answer) = timeout_at(end, client.fetch_app(id)).await else { break };
        let answer = match answer {
            Ok(body) => {
                let id = Arc::clone(id);
                Ok(compute.run(move || document::parse_app(&id, &body)).await?)
            }
            Err(error) => Err(error),
        };
        let is_away = answer.is_err();
        told.push((Arc::clone(id), answer));
        if is_away {
            break;
        }
    }
    let is_cut = told.len() < apps.len();
    Ok(Answers { told, is_cut })
}

impl Running {
    /// Whether single apps may be looked at: see [`Knows`](super::heard::Knows).
    pub(super) fn is_settled(&self) -> bool {
        // Their results are only in the whole list.
        let needs_readiness = self.agent.config.rules.liveness.readiness;
        !needs_readiness && self.known.as_ref().is_some_and(|known| !known.is_new)
    }

    /// Marathon has answered about single apps.
    pub(super) async fn on_told(
        &mut self,
        Answers { told, is_cut }: Answers,
        asked: Instant,
        event: Option<Instant>,
    ) -> Result<(), LookError> {
        let now = Instant::now();
        self.schedule.fetched(now, None);
        if is_cut {
            self.schedule.full(now);
        }
        let mut apps = Vec::with_capacity(told.len());
        for (id, answer) in told {
            let counters = &self.agent.state.counters;
            let result = match answer {
                Ok(Some(shown)) => {
                    apps.push(shown);
                    "app"
                }
                Ok(None) => "app_unusable",
                Err(error) => {
                    counters.fetch_failed(&error);
                    debug!(app = %printable(&id), %error, "no answer about one app");
                    "app_failed"
                }
            };
            counters.fetches.get_or_create(&[("result", result)]).inc();
            if result != "app" {
                // It is gone, or Marathon is away: the whole list tells.
                self.schedule.full(now);
            }
        }
        let missing = self.expected.shown(apps.iter().map(|(app, _)| app), false, asked);
        self.ask_for_missing(missing);
        if apps.is_empty() {
            return Ok(());
        }
        let found = self.judge(apps);
        if !found.is_enough {
            // One app alone does not say what may go; the guard judges whole answers.
            self.schedule.full(now);
            return Ok(());
        }
        if self.carry_out_narrow(found.apps, event).await {
            return Ok(());
        }
        self.pass().await
    }

    /// Looks at the last answer's word on these apps again. Returns whether that was enough.
    pub(super) async fn narrow_again(&mut self, ids: impl IntoIterator<Item = Arc<str>>) -> bool {
        let (Some(known), Some(last)) = (&self.known, &self.last) else { return false };
        let Some(apps) = narrow::recall(&known.answer, last, ids) else { return false };
        let found = self.judge(apps);
        if !found.is_enough {
            return false;
        }
        let event = self.certain.take();
        let is_done = self.carry_out_narrow(found.apps, event).await;
        if !is_done {
            self.certain = event;
        }
        is_done
    }

    /// What becomes of these apps.
    fn judge(&mut self, apps: Vec<Shown>) -> Found {
        let (Some(known), Some(last)) = (&mut self.known, &self.last) else {
            return Found::default();
        };
        let seen = self.seen.at(Instant::now());
        self.looker.narrow(apps, &mut known.answer, last, seen)
    }

    /// Writes what follows. Returns whether a look at everything is not needed now.
    async fn carry_out_narrow(&mut self, found: Vec<Narrow>, event: Option<Instant>) -> bool {
        let has_failed = self.agent.state.view().redis_failed.is_some();
        let is_doubtful = self.is_stale() || self.is_rebuilding;
        let standing = self.standing();
        let token = match May::of(standing.as_ref(), has_failed, is_doubtful) {
            May::Write(token) => token,
            May::Note => {
                self.absorb(found);
                return true;
            }
            May::Nothing => return false,
        };
        let hosts: Vec<&String> = found.iter().flat_map(|narrow| narrow.hosts.keys()).collect();
        let Ok(snapshot) = self.agent.routes.read(&hosts).await else { return false };
        let Some(plan) = narrow::plan(&found, &snapshot) else { return false };
        let difference = diff(&plan, &snapshot);
        if !difference.problems.is_empty() {
            return false;
        }
        let applied = self.agent.routes.apply(&plan, difference.changes, token).await;
        self.note_changes(&applied, event);
        self.absorb(found);
        applied.failed.is_empty()
    }

    /// Shows what became of the apps.
    fn absorb(&mut self, found: Vec<Narrow>) {
        let Some(last) = &mut self.last else { return };
        self.looker.absorb(Arc::make_mut(last), found);
        let pass = Arc::clone(last);
        self.agent.state.update(|view| view.pass = Some(pass));
        self.begin_versions();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leader_without_doubt_writes() {
        let token = "me".to_owned();
        let leader = Standing::Leader { token, term: 1 };
        let standby = Standing::Standby { leader: "other".to_owned() };
        for (standing, is_doubtful, expected) in [
            (Some(&leader), false, May::Write("me")),
            (Some(&leader), true, May::Nothing),
            (Some(&standby), false, May::Note),
            (Some(&standby), true, May::Note),
            (Some(&Standing::Unknown), false, May::Nothing),
            (None, false, May::Nothing),
        ] {
            assert_eq!(May::of(standing, false, is_doubtful), expected, "{standing:?}");
            assert_eq!(May::of(standing, true, is_doubtful), May::Nothing, "{standing:?}");
        }
    }
}
