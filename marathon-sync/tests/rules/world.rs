//! Short ways to write documents down and to read plans.

use jiff::Timestamp;
use marathon_sync::document::parse;
use marathon_sync::plan::Plan;
use marathon_sync::rules::memory::Memory;
use marathon_sync::rules::{Desired, Options, Seen, desired};
use serde_json::{Value, json};

/// An agent that sees one answer after the other.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) options: Options,
    pub(crate) seen: Seen,
}

impl World {
    pub(crate) fn look(&mut self, apps: &Value) -> Desired {
        self.read(&json!({ "apps": apps }).to_string())
    }

    pub(crate) fn read(&mut self, document: &str) -> Desired {
        let answer = parse(document.as_bytes()).expect("the document is an answer");
        let now: Timestamp = "2020-01-01T12:00:00Z".parse().expect("a time");
        desired(&answer, &mut self.memory, &self.options, &self.seen, now)
    }
}

pub(crate) fn look(apps: &Value) -> Desired {
    World::default().look(apps)
}

/// `host = up… ? unsure…`, one host after the other.
pub(crate) fn lines(plan: &Plan) -> Vec<String> {
    let line = |(host, wanted): (&String, &marathon_sync::plan::Wanted)| {
        let mut line = format!("{host} =");
        for url in &wanted.up {
            line.push_str(&format!(" {url}"));
        }
        if !wanted.unsure.is_empty() {
            line.push_str(" ?");
        }
        for url in &wanted.unsure {
            line.push_str(&format!(" {url}"));
        }
        line
    };
    plan.iter().map(line).collect()
}

/// An app in host mode that claims `host`.
pub(crate) fn app(id: &str, host: &str, tasks: &[Value]) -> Value {
    json!({ "id": id, "labels": { "hipacheFrontend": host }, "tasks": tasks })
}

/// The same with one health check.
pub(crate) fn checked(id: &str, host: &str, tasks: &[Value]) -> Value {
    let mut app = app(id, host, tasks);
    app["healthChecks"] = json!([{ "protocol": "HTTP", "portIndex": 0 }]);
    app
}

/// A running task on `10.0.0.<n>:31000`.
pub(crate) fn task(n: u32) -> Value {
    json!({
        "id": format!("t.{n}"), "host": format!("10.0.0.{n}"), "ports": [31000],
        "state": "TASK_RUNNING", "startedAt": format!("2020-01-01T00:00:{n:02}.000Z"),
        "version": "2020-01-01T00:00:00.000Z",
    })
}

/// `value` with some keys replaced.
pub(crate) fn with(mut value: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    for (key, change) in changes {
        value[key] = change;
    }
    value
}

pub(crate) fn alive() -> Value {
    json!({ "alive": true, "consecutiveFailures": 0, "firstSuccess": "2020-01-01T00:01:00.000Z",
        "lastSuccess": "2020-01-01T00:02:00.000Z", "lastFailure": null })
}

pub(crate) fn dead(failures: u32) -> Value {
    json!({ "alive": false, "consecutiveFailures": failures, "firstSuccess": "2020-01-01T00:01:00.000Z",
        "lastSuccess": "2020-01-01T00:02:00.000Z", "lastFailure": "2020-01-01T00:03:00.000Z" })
}

/// A failure within the grace period leaves this.
pub(crate) fn grace() -> Value {
    json!({ "alive": false, "consecutiveFailures": 0, "firstSuccess": null, "lastSuccess": null,
        "lastFailure": null })
}

#[track_caller]
pub(crate) fn assert_plan(desired: &Desired, expected: &[&str]) {
    assert_eq!(lines(&desired.plan), expected);
}
