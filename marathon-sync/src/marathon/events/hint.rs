//! What an event means to the agent: a reason to look, seldom more. Pure.
//!
//! Marathon promises neither that events arrive nor in which order, so no state is built from them.

use std::sync::Arc;

use serde::Deserialize;

/// What the stream of events has to say.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Hint {
    /// An app and all its tasks are gone (`app_terminated_event`). A reason to look, too.
    AppDeleted {
        /// The app's path.
        app_id: Arc<str>,
    },
    /// Events arrive from now on; what happened before is only known after a full look.
    Connected,
    /// Something has changed.
    Look {
        /// The type of the event, or `garbage`, `oversized`, `overflow` for hints that got lost.
        kind: &'static str,
        /// The path of the app, when it is about the tasks of one app and nothing else.
        app_id: Option<Arc<str>>,
    },
    /// No events arrive any more, for now; looking at intervals must do.
    Lost {
        /// What happened, for people.
        reason: Arc<str>,
    },
    /// A task is going or gone (`status_update_event`). A reason to look, too.
    TaskGone {
        /// The task.
        task_id: Arc<str>,
        /// The path of its app.
        app_id: Arc<str>,
        /// How sure that is.
        how: Gone,
    },
    /// A task is being started, or runs (`status_update_event`). A reason to look, too.
    TaskStarted {
        /// The task.
        task_id: Arc<str>,
        /// The path of its app.
        app_id: Arc<str>,
        /// It runs; else it is staged or starting.
        is_running: bool,
    },
}

impl Hint {
    /// The type of the event behind it; none of a change of the connection.
    pub(super) fn kind(&self) -> Option<&'static str> {
        match self {
            Self::AppDeleted { .. } => Some("app_terminated_event"),
            Self::Connected | Self::Lost { .. } => None,
            Self::Look { kind, .. } => Some(kind),
            Self::TaskGone { .. } | Self::TaskStarted { .. } => Some(STATUS_UPDATE),
        }
    }
}

/// The two ways for a task to be no backend any more.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Gone {
    /// `TASK_KILLING`: told to end, still answering. Comes only from a Marathon with
    /// `--enable_features task_killing`.
    Killing,
    /// It ended.
    Terminal,
}

/// Events that make us look: those after which the list of apps may differ in a way that concerns
/// routes. They are also what the server is asked for; servers before 1.3.7 send everything.
///
/// `failed_health_check_event` is not among them: a task that is sick for good sends one with every
/// check, and each would cost Marathon a question. What it alone would tell, a first result that is bad
/// after an election, is left to the interval.
pub(super) const LOOK_AT: [&str; 17] = [
    "api_post_event",
    "app_terminated_event",
    "deployment_failed",
    "deployment_step_failure",
    "deployment_step_success",
    "deployment_success",
    "group_change_failed",
    "group_change_success",
    "health_status_changed_event",
    "instance_changed_event",
    "instance_health_changed_event",
    "scheduler_disconnected_event",
    "scheduler_registered_event",
    "scheduler_reregistered_event",
    "status_update_event",
    "unhealthy_instance_kill_event",
    "unhealthy_task_kill_event",
];

/// What Mesos says of a task.
pub(super) const STATUS_UPDATE: &str = "status_update_event";

/// Sent to every new listener: shows that the stream works. Not a reason to look, because others'
/// arrivals are announced as well.
pub(super) const ATTACHED: &str = "event_stream_attached";

/// Ids longer than this are not handed on. Marathon's have some hundred bytes.
const LONGEST_ID: usize = 1024;

/// What of an event is of interest. `eventType` is always inside; an `event:` line came with 0.11.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    event_type: String,
    #[serde(default)]
    app_id: Option<String>,
    /// The app of an instance, from 1.4 on.
    #[serde(default)]
    run_spec_id: Option<String>,
    #[serde(default)]
    task_id: Option<String>,
    #[serde(default)]
    task_status: Option<String>,
}

/// The hints of one event's data, handed to `each`. Some versions put several documents into one.
///
/// # Errors
///
/// When the rest of the data is no event.
pub fn hints(data: &[u8], mut each: impl FnMut(Hint)) -> Result<(), serde_json::Error> {
    for event in serde_json::Deserializer::from_slice(data).into_iter::<Event>() {
        if let Some(hint) = event?.hint() {
            each(hint);
        }
    }
    Ok(())
}

impl Event {
    fn hint(self) -> Option<Hint> {
        let kind = LOOK_AT.into_iter().find(|kind| *kind == self.event_type)?;
        Some(self.certainty(kind).unwrap_or_else(|| Hint::Look { kind, app_id: self.app(kind) }))
    }

    /// The app, of events after which nothing but its tasks may differ. Labels and ports of an app
    /// change by deployments, which are announced by others.
    fn app(&self, kind: &'static str) -> Option<Arc<str>> {
        match kind {
            "health_status_changed_event" | "status_update_event" => id(self.app_id.as_ref()),
            "instance_changed_event" | "instance_health_changed_event" => {
                id(self.run_spec_id.as_ref())
            }
            _ => None,
        }
    }

    /// What the event says for sure.
    fn certainty(&self, kind: &'static str) -> Option<Hint> {
        let app_id = id(self.app_id.as_ref())?;
        match kind {
            "app_terminated_event" => Some(Hint::AppDeleted { app_id }),
            "status_update_event" => {
                let (task_id, status) = (id(self.task_id.as_ref())?, self.task_status.as_deref()?);
                match status {
                    "TASK_STAGING" | "TASK_STARTING" | "TASK_RUNNING" => {
                        let is_running = status == "TASK_RUNNING";
                        Some(Hint::TaskStarted { task_id, app_id, is_running })
                    }
                    _ => Some(Hint::TaskGone { task_id, app_id, how: gone(status)? }),
                }
            }
            _ => None,
        }
    }
}

fn id(text: Option<&String>) -> Option<Arc<str>> {
    let text = text.filter(|text| !text.is_empty() && text.len() <= LONGEST_ID)?;
    Some(Arc::from(text.as_str()))
}

/// `TASK_LOST`, `TASK_UNREACHABLE` and `TASK_UNKNOWN` are not among them: a task may come back from
/// the first two, and the last one says that nobody knows.
fn gone(status: &str) -> Option<Gone> {
    match status {
        "TASK_KILLING" => Some(Gone::Killing),
        "TASK_DROPPED"
        | "TASK_ERROR"
        | "TASK_FAILED"
        | "TASK_FINISHED"
        | "TASK_GONE"
        | "TASK_GONE_BY_OPERATOR"
        | "TASK_KILLED" => Some(Gone::Terminal),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(data: &str) -> Option<Vec<Hint>> {
        let mut found = Vec::new();
        hints(data.as_bytes(), |hint| found.push(hint)).ok().map(|()| found)
    }

    fn look(kind: &'static str) -> Hint {
        Hint::Look { kind, app_id: None }
    }

    fn look_at(kind: &'static str, app: &str) -> Hint {
        Hint::Look { kind, app_id: Some(app.into()) }
    }

    #[test]
    fn an_event_is_a_reason_to_look_or_a_certainty_or_nothing() {
        let gone = |how| Hint::TaskGone { task_id: "t.1".into(), app_id: "/t".into(), how };
        let started = |is_running| Hint::TaskStarted {
            task_id: "t.1".into(),
            app_id: "/t".into(),
            is_running,
        };
        let table: &[(&str, Option<Vec<Hint>>)] = &[
            (
                r#"{"eventType":"deployment_success","id":"x","plan":{}}"#,
                Some(vec![look("deployment_success")]),
            ),
            (r#"{"eventType":"event_stream_attached","remoteAddress":"::1"}"#, Some(vec![])),
            (r#"{"eventType":"new_in_2_0"}"#, Some(vec![])),
            (
                r#"{"taskId":"t.1","taskStatus":"TASK_RUNNING","appId":"/t","eventType":"status_update_event"}"#,
                Some(vec![started(true)]),
            ),
            (
                r#"{"taskId":"t.1","taskStatus":"TASK_STAGING","appId":"/t","eventType":"status_update_event"}"#,
                Some(vec![started(false)]),
            ),
            (
                r#"{"taskId":"t.1","taskStatus":"TASK_KILLING","appId":"/t","eventType":"status_update_event"}"#,
                Some(vec![gone(Gone::Killing)]),
            ),
            (
                r#"{"taskId":"t.1","taskStatus":"TASK_FAILED","appId":"/t","eventType":"status_update_event"}"#,
                Some(vec![gone(Gone::Terminal)]),
            ),
            (
                r#"{"taskId":"t.1","taskStatus":"TASK_UNREACHABLE","appId":"/t","eventType":"status_update_event"}"#,
                Some(vec![look_at("status_update_event", "/t")]),
            ),
            (
                r#"{"eventType":"instance_health_changed_event","runSpecId":"/t","healthy":true}"#,
                Some(vec![look_at("instance_health_changed_event", "/t")]),
            ),
            (
                r#"{"eventType":"deployment_success","appId":"/t"}"#,
                Some(vec![look("deployment_success")]),
            ),
            (
                r#"{"taskId":null,"taskStatus":"TASK_KILLED","appId":"/t","eventType":"status_update_event"}"#,
                Some(vec![look_at("status_update_event", "/t")]),
            ),
            (
                r#"{"appId":"/t","eventType":"app_terminated_event"}"#,
                Some(vec![Hint::AppDeleted { app_id: "/t".into() }]),
            ),
            (r#"{"eventType":"app_terminated_event"}"#, Some(vec![look("app_terminated_event")])),
            (
                "{\"eventType\":\"api_post_event\"}\r\n{\"eventType\":\"deployment_failed\"}",
                Some(vec![look("api_post_event"), look("deployment_failed")]),
            ),
            ("", Some(vec![])),
            ("{", None),
            ("[]", None),
            (r#"{"timestamp":"x"}"#, None),
            (r#"{"eventType":7}"#, None),
            ("\u{0}", None),
        ];
        for (data, expected) in table {
            assert_eq!(all(data), *expected, "{data}");
        }
    }

    #[test]
    fn ids_of_absurd_length_are_not_handed_on() {
        let id = "x".repeat(LONGEST_ID + 1);
        let data = format!(r#"{{"eventType":"app_terminated_event","appId":"{id}"}}"#);
        assert_eq!(all(&data), Some(vec![look("app_terminated_event")]));
    }

    proptest! {
        #[test]
        fn no_data_makes_it_panic(data: Vec<u8>) {
            drop(hints(&data, |_| {}));
        }
    }
}
