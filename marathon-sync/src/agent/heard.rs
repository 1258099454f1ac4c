//! What a hint leads to: a look at everything, at one app, at the last answer again, or nothing. Pure.

use std::sync::Arc;

use tokio::time::Instant;

use super::matters;
use super::schedule::Schedule;
use super::seen::SeenLog;
use crate::marathon::debounce::Urgency;
use crate::marathon::events::Hint;
use crate::pass::{Pass, narrow};

/// What is known when a hint arrives.
#[derive(Clone, Copy, Debug, Default)]
pub struct Knows<'a> {
    /// What the last pass came to.
    pub pass: Option<&'a Pass>,
    /// The last answer has been taken in, and nothing is wanted of an app that only the list of all
    /// shows.
    pub is_settled: bool,
}

impl Knows<'_> {
    /// Whether tasks of this app may be looked at alone.
    fn is_alone(&self, app: &str) -> bool {
        let pass = self.pass.filter(|_| self.is_settled);
        pass.is_some_and(|pass| narrow::is_alone(pass, app))
    }
}

/// What became of a hint.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Heard {
    /// Marathon is asked because of it.
    pub is_asked: bool,
    /// It is a certainty that is news and may take a backend away: the last answer is looked at again.
    pub is_certain: bool,
}

/// Notes what `hint` says for sure, and plans what follows.
pub fn heard(
    hint: &Hint,
    knows: Knows<'_>,
    seen: &mut SeenLog,
    schedule: &mut Schedule,
    now: Instant,
) -> Heard {
    let pass = knows.pass;
    let (app, is_certain) = match hint {
        Hint::Connected => {
            // What happened before is only known after a full look.
            schedule.full(now);
            return Heard::default();
        }
        Hint::Lost { .. } => {
            schedule.stream_lost(now);
            return Heard::default();
        }
        Hint::Look { app_id, .. } => (app_id.as_ref(), false),
        // All are noted, since an answer that is on its way may still list them.
        Hint::AppDeleted { app_id } => {
            let is_news = seen.deleted(app_id, now);
            (None, is_news && pass.is_some_and(|pass| matters::app(pass, app_id)))
        }
        Hint::TaskStarted { task_id, app_id, is_running } => {
            seen.started(task_id, *is_running);
            (Some(app_id), false)
        }
        Hint::TaskGone { task_id, app_id, how } => {
            let is_news = seen.ended(task_id, *how, now);
            let matters = || pass.is_some_and(|pass| matters::task(pass, app_id, task_id));
            (Some(app_id), is_news && matters())
        }
    };
    let is_unrouted = |app: &Arc<str>| pass.is_some_and(|pass| matters::is_unrouted(pass, app));
    // Something else than an app, such as a pod, or an app that is new; what is held may be of it.
    let is_stranger = |app: &Arc<str>| {
        pass.is_some_and(|pass| pass.held.is_none() && !pass.apps.contains_key(&**app))
    };
    let is_asked = match app {
        Some(app) if is_unrouted(app) => false,
        Some(app) if is_stranger(app) => schedule.is_worth_a_look(app, now),
        Some(_) | None => true,
    };
    let alone = app.filter(|app| knows.is_alone(app));
    if is_asked {
        schedule.hint(now, urgency(hint), alone);
    }
    if is_certain {
        schedule.certain(now, alone);
    }
    Heard { is_asked, is_certain }
}

fn urgency(hint: &Hint) -> Urgency {
    match hint {
        Hint::Look {
            kind: "health_status_changed_event" | "instance_health_changed_event",
            ..
        } => Urgency::SoonAndAgain,
        _ => Urgency::Soon,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::agent::schedule::Scope;
    use crate::marathon::events::Gone;
    use crate::plan::Plan;
    use crate::rules::liveness::Verdict;
    use crate::rules::report::{AppReport, AppState, TaskReport};

    fn report(state: AppState, host: Option<&str>, task: &str) -> AppReport {
        let task = TaskReport { id: task.to_owned(), verdict: Verdict::Up, addresses: Vec::new() };
        AppReport::of(state, host.as_slice(), vec![task])
    }

    /// `/a` has a host of its own, `/b` and `/c` share one, `/none` has none.
    fn pass() -> Pass {
        let apps = [("/a", "a.test"), ("/b", "b.test"), ("/c", "b.test")];
        let mut plan = Plan::new();
        let mut pass = Pass::default();
        for (app, host) in apps {
            plan.entry(host.to_owned()).or_default().apps.push(app.to_owned());
            let report = report(AppState::Mapped, Some(host), &format!("{app}.1"));
            drop(pass.apps.insert(app.to_owned(), report.into()));
        }
        let mut skipped = report(AppState::Skipped("no label".to_owned()), None, "/none.1");
        skipped.tasks.clear();
        drop(pass.apps.insert("/none".to_owned(), skipped.into()));
        pass.plan = plan.into();
        pass
    }

    fn look(app: Option<&str>) -> Hint {
        Hint::Look { kind: "status_update_event", app_id: app.map(Into::into) }
    }

    fn gone(app: &str) -> Hint {
        let (task_id, app_id) = (format!("{app}.1").into(), app.into());
        Hint::TaskGone { task_id, app_id, how: Gone::Terminal }
    }

    /// Pods are in no list of apps, however often it is asked for.
    #[test]
    fn what_no_answer_shows_is_not_asked_for_again_and_again() {
        let (pass, second) = (pass(), Duration::from_secs(1));
        let zero = Instant::now();
        let mut schedule = Schedule::new(zero, second * 30, (second / 4, second * 2));
        let mut seen = SeenLog::default();
        let knows = Knows { pass: Some(&pass), is_settled: true };
        let mut is_asked = |hint: &Hint, at: u32| {
            heard(hint, knows, &mut seen, &mut schedule, zero + second * at).is_asked
        };
        let pod = look(Some("/pod"));
        assert_eq!(
            [0, 1, 29, 30, 31].map(|at| is_asked(&pod, at)),
            [true, false, false, true, false]
        );
        assert!(is_asked(&look(Some("/other")), 31) && is_asked(&look(None), 31));
        assert!(is_asked(&look(Some("/a")), 32) && is_asked(&look(Some("/a")), 32));
    }

    #[test]
    fn an_event_leads_to_the_smallest_look_that_can_tell() {
        let a = || Scope::Apps(["/a".into()].into());
        let table = [
            // hint, what Marathon is asked for, what is looked at again
            (look(Some("/a")), a(), Scope::Nothing),
            (look(Some("/b")), Scope::All, Scope::Nothing),
            (look(Some("/none")), Scope::Nothing, Scope::Nothing),
            (look(Some("/unknown")), Scope::All, Scope::Nothing),
            (look(None), Scope::All, Scope::Nothing),
            (gone("/a"), a(), a()),
            (gone("/b"), Scope::All, Scope::All),
            (gone("/none"), Scope::Nothing, Scope::Nothing),
            (gone("/unknown"), Scope::All, Scope::Nothing),
            (Hint::AppDeleted { app_id: "/a".into() }, Scope::All, Scope::All),
            (Hint::Connected, Scope::All, Scope::Nothing),
            (Hint::Lost { reason: "".into() }, Scope::Nothing, Scope::Nothing),
        ];
        let pass = pass();
        for (hint, fetch, again) in table {
            for is_settled in [true, false] {
                let zero = Instant::now();
                let second = Duration::from_secs(1);
                let mut schedule = Schedule::new(zero, second * 30, (second / 4, second * 2));
                schedule.full(zero);
                drop(schedule.due(zero));
                schedule.fetched(zero, None);
                let mut seen = SeenLog::default();
                let knows = Knows { pass: Some(&pass), is_settled };
                let now = zero + second * 10;
                let heard = heard(&hint, knows, &mut seen, &mut schedule, now);
                let due = schedule.due(now);
                let wide = |scope: &Scope| match scope {
                    Scope::Apps(_) if !is_settled => Scope::All,
                    scope => scope.clone(),
                };
                assert_eq!((&due.fetch, &due.again), (&wide(&fetch), &wide(&again)), "{hint:?}");
                assert_eq!(heard.is_certain, again != Scope::Nothing, "{hint:?}");
                let is_event = !matches!(hint, Hint::Connected | Hint::Lost { .. });
                assert_eq!(heard.is_asked, is_event && fetch != Scope::Nothing, "{hint:?}");
            }
        }
    }

    #[test]
    fn what_is_said_for_sure_is_noted_also_when_it_matters_to_nobody() {
        let zero = Instant::now();
        let mut schedule = Schedule::new(zero, Duration::from_secs(30), Default::default());
        let mut seen = SeenLog::default();
        for is_news in [true, false] {
            let pass = pass();
            let knows = Knows { pass: Some(&pass), is_settled: true };
            let heard_of = heard(&gone("/a"), knows, &mut seen, &mut schedule, zero);
            assert_eq!(heard_of, Heard { is_asked: true, is_certain: is_news });
            let _asked = heard(&gone("/none"), Knows::default(), &mut seen, &mut schedule, zero);
        }
        let ended: Vec<&String> = seen.at(zero).ended.iter().collect();
        assert_eq!(ended, ["/a.1", "/none.1"]);
    }
}
