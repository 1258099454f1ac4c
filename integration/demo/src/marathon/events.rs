//! The events of `/v2/events`: their JSON, and their bytes on the wire.

use serde_json::{Map, Value, json};

use super::dialect::Dialect;
use super::json;
use super::model::{App, Cluster, Deployment, Stamp, State, Task};

/// One event as the leader sends it to everybody.
#[derive(Clone, Debug)]
pub struct Event {
    /// `eventType`.
    pub kind: String,
    /// The JSON object, `eventType` and `timestamp` included.
    pub body: Map<String, Value>,
    /// Keys of `plan` that only clients get who did not ask for light plans.
    heavy: Map<String, Value>,
}

impl Event {
    /// An event of that type and with those fields; anything but an object makes one without
    /// fields.
    pub fn new(kind: &str, fields: Value, now: Stamp) -> Self {
        let mut body = match fields {
            Value::Object(body) => body,
            _ => Map::new(),
        };
        body.insert("eventType".to_owned(), kind.into());
        body.insert("timestamp".to_owned(), now.to_string().into());
        Self { kind: kind.to_owned(), body, heavy: Map::new() }
    }

    /// The bytes on the wire.
    pub(super) fn frame(&self, dialect: Dialect, light: bool) -> Vec<u8> {
        let mut body = self.body.clone();
        if !light && let Some(Value::Object(plan)) = body.get_mut("plan") {
            plan.extend(self.heavy.clone());
        }
        let line = if dialect.has_event_line() {
            format!("event: {}\r\n", self.kind)
        } else {
            String::new()
        };
        format!("{line}data: {}\r\n\r\n", Value::Object(body)).into_bytes()
    }
}

pub(super) fn status_update(cluster: &Cluster, app: &App, task: &Task, now: Stamp) -> Event {
    let mut fields = json!({
        "slaveId": task.agent(),
        "taskId": task.id,
        "taskStatus": task.state.name(cluster.dialect),
        "message": "",
        "appId": app.id,
        "host": task.place.host,
        "ports": task.place.ports,
        "version": task.version.to_string(),
    });
    if cluster.dialect.has_ip_per_task() {
        fields["ipAddresses"] = json::addresses(task);
    }
    Event::new("status_update_event", fields, now)
}

pub(super) fn instance_changed(
    _: &Cluster,
    app: &App,
    task: &Task,
    state: State,
    now: Stamp,
) -> Event {
    let fields = json!({
        "instanceId": task.instance,
        "condition": state.condition(),
        "runSpecId": app.id,
        "agentId": task.agent(),
        "host": task.place.host,
        "runSpecVersion": task.version.to_string(),
    });
    Event::new("instance_changed_event", fields, now)
}

pub(super) fn health_changed(
    cluster: &Cluster,
    app: &App,
    task: &Task,
    alive: bool,
    now: Stamp,
) -> Event {
    let mut fields = json!({"appId": app.id, "version": task.version.to_string(), "alive": alive});
    if cluster.dialect.has_instances() {
        fields["instanceId"] = task.instance.clone().into();
    } else {
        fields["taskId"] = task.id.clone().into();
    }
    Event::new("health_status_changed_event", fields, now)
}

pub(super) fn instance_health_changed(
    app: &App,
    task: &Task,
    healthy: Option<bool>,
    now: Stamp,
) -> Event {
    let fields = json!({
        "instanceId": task.instance,
        "runSpecId": app.id,
        "healthy": healthy,
        "runSpecVersion": task.version.to_string(),
    });
    Event::new("instance_health_changed_event", fields, now)
}

pub(super) fn failed_probe(
    cluster: &Cluster,
    app: &App,
    task: &Task,
    check: usize,
    now: Stamp,
) -> Event {
    // From 1.4 on the key still says task, but what it holds is the instance.
    let id = if cluster.dialect.has_instances() { &task.instance } else { &task.id };
    let check = app.checks.get(check).map(|check| json::check(check, cluster.dialect));
    let fields = json!({"appId": app.id, "taskId": id, "healthCheck": check});
    Event::new("failed_health_check_event", fields, now)
}

pub(super) fn api_post(cluster: &Cluster, app: &str, now: Stamp) -> Event {
    let definition = cluster.apps.get(app).map(|app| json::definition(app, cluster.dialect));
    let fields = json!({
        "clientIp": "127.0.0.1",
        "uri": format!("/v2/apps/{app}"),
        "appDefinition": definition,
    });
    Event::new("api_post_event", fields, now)
}

pub(super) fn app_terminated(app: &str, now: Stamp) -> Event {
    Event::new("app_terminated_event", json!({ "appId": app }), now)
}

/// `deployment_info`, `deployment_step_…` and `deployment_success`, which share a form.
pub(super) fn deployment(
    cluster: &Cluster,
    kind: &str,
    deployment: &Deployment,
    now: Stamp,
) -> Event {
    let step = json!({
        "actions": [{cluster.dialect.action_key(): deployment.action, "app": deployment.app}],
    });
    let plan = json!({
        "id": deployment.id,
        "version": deployment.version.to_string(),
        "steps": [step],
    });
    let fields = if kind == "deployment_success" {
        json!({"id": deployment.id, "plan": plan})
    } else {
        json!({"plan": plan, "currentStep": step})
    };
    let mut event = Event::new(kind, fields, now);
    if !cluster.dialect.has_only_light_plans() {
        let apps: Vec<Value> =
            cluster.apps.values().map(|app| json::definition(app, cluster.dialect)).collect();
        let group = json!({
            "id": "/",
            "apps": apps,
            "groups": [],
            "dependencies": [],
            "version": deployment.version.to_string(),
        });
        event.heavy.insert("original".to_owned(), group.clone());
        event.heavy.insert("target".to_owned(), group);
    }
    event
}

pub(super) fn stream(kind: &str, remote: &str, now: Stamp) -> Event {
    Event::new(kind, json!({ "remoteAddress": remote }), now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_a_type_line_from_0_11_on() {
        let event = Event::new("e", json!({"a": "x\ny"}), Stamp(0));
        let data = r#"data: {"a":"x\ny","eventType":"e","timestamp":"1970-01-01T00:00:00.000Z"}"#;
        for dialect in Dialect::ALL {
            let line = if dialect >= Dialect::V0_11 { "event: e\r\n" } else { "" };
            let bytes = event.frame(dialect, true);
            assert_eq!(String::from_utf8(bytes).unwrap(), format!("{line}{data}\r\n\r\n"));
        }
    }

    #[test]
    fn heavy_plans_carry_the_groups_until_1_7() {
        for dialect in Dialect::ALL {
            let mut cluster = Cluster::new(dialect);
            cluster.heard = true;
            cluster.begin("/a", "ScaleApplication");
            let event = cluster.take_events().remove(0);
            let has = |light| {
                String::from_utf8(event.frame(dialect, light)).unwrap().contains(r#""original""#)
            };
            assert_eq!((has(false), has(true)), (dialect <= Dialect::V1_6, false), "{dialect}");
        }
    }
}
