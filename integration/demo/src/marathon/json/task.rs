//! Tasks, whose keys came and went more than any others.

use serde_json::{Map, Value, json};

use super::super::dialect::Dialect;
use super::super::model::{App, Cluster, HealthResult, State, Task};

/// A task, as an element of an app or, with `alone`, of `/v2/tasks`.
pub(in crate::marathon) fn task(task: &Task, app: &App, cluster: &Cluster, alone: bool) -> Value {
    let dialect = cluster.dialect;
    let mut object = Map::new();
    let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);

    set("id", task.id.clone().into());
    set("appId", app.id.clone().into());
    set("host", task.place.host.clone().into());

    let shows_launch = task.state.is_active() || !dialect.has_instances();
    if shows_launch {
        set("ports", json!(task.place.ports));
        set("stagedAt", task.staged.to_string().into());
        set("version", task.version.to_string().into());
        match task.started {
            Some(started) => drop(set("startedAt", started.to_string().into())),
            None if dialect.has_full_lists() => {}
            None => drop(set("startedAt", Value::Null)),
        }
    } else if dialect.has_full_lists() {
        set("ports", json!([]));
    }
    if dialect.has_slave_id() {
        set("slaveId", task.agent().into());
    }
    if dialect.has_state() {
        set("state", state(task, dialect).into());
    }
    if dialect.has_ip_per_task() {
        list(&mut set, "ipAddresses", addresses(task), dialect);
    }
    // Whoever embeds tasks in apps is not told, but from 1.6 on every list is there.
    let service_ports: Value =
        if alone { app.ports.iter().map(|port| port.service).collect() } else { json!([]) };
    list(&mut set, "servicePorts", service_ports, dialect);
    list(&mut set, "healthCheckResults", results(task, dialect), dialect);
    if dialect.has_full_lists() {
        set("localVolumes", json!([]));
        set("region", "primary".into());
        set("zone", "a".into());
    }
    if dialect.has_role() {
        set("role", "*".into());
    }
    task.overlay.apply(&mut object);
    Value::Object(object)
}

/// `ipAddresses`.
pub(in crate::marathon) fn addresses(task: &Task) -> Value {
    task.addresses().map(|(ip, kind)| json!({"ipAddress": ip, "protocol": kind})).collect()
}

/// Whether the task counts as healthy; `None` while nothing is known.
pub(super) fn health(task: &Task) -> Option<bool> {
    if task.state != State::Running || task.known().next().is_none() {
        return None;
    }
    Some(task.known().all(HealthResult::alive))
}

/// What is staged and what is being launched look alike.
fn state(task: &Task, dialect: Dialect) -> &'static str {
    task.state.name(dialect)
}

fn list(
    set: &mut impl FnMut(&str, Value) -> Option<Value>,
    key: &str,
    value: Value,
    dialect: Dialect,
) {
    if dialect.has_full_lists() || value != json!([]) {
        set(key, value);
    }
}

fn results(task: &Task, dialect: Dialect) -> Value {
    let mut values = Vec::new();
    for known in &task.results {
        match known {
            Some(known) => values.push(result(known, task, dialect)),
            None if dialect.lists_missing_results() => values.push(Value::Null),
            None => {}
        }
    }
    // The list comes out of a map: its order is not the order of the checks.
    values.reverse();
    Value::Array(values)
}

fn result(result: &HealthResult, task: &Task, dialect: Dialect) -> Value {
    let mut object = Map::new();
    let mut set = |key: &str, value: Value| {
        if !(value.is_null() && dialect.has_full_lists()) {
            object.insert(key.to_owned(), value);
        }
    };
    let time = |at: Option<super::super::model::Stamp>| at.map(|at| at.to_string()).into();
    set("alive", result.alive().into());
    set("consecutiveFailures", result.consecutive_failures.into());
    set("firstSuccess", time(result.first_success));
    set("lastSuccess", time(result.last_success));
    set("lastFailure", time(result.last_failure));
    if dialect.has_ip_per_task() {
        set("lastFailureCause", result.last_failure_cause.clone().into());
    }
    if dialect.has_instances() {
        set("instanceId", task.instance.clone().into());
    } else {
        set("taskId", task.id.clone().into());
    }
    Value::Object(object)
}
