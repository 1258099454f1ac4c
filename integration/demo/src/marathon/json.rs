//! The JSON of apps, tasks and deployments, as each dialect writes it.

mod app;
mod task;

use serde_json::{Map, Value, json};

use super::model::{App, Cluster, Stamp, Task};

pub(super) use app::{check, definition};
pub(super) use task::{addresses, task};

/// What is embedded in an app.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Embed {
    /// `tasks`.
    pub(super) tasks: bool,
    /// `deployments`.
    pub(super) deployments: bool,
    /// The four counts of tasks.
    pub(super) counts: bool,
    /// `readinessCheckResults`.
    pub(super) readiness: bool,
    /// `lastTaskFailure`.
    pub(super) last_failure: bool,
}

impl Embed {
    /// What `GET /v2/apps/{id}` shows.
    pub(super) const ONE_APP: Self =
        Self { tasks: true, deployments: true, counts: true, readiness: false, last_failure: true };
}

/// An app with what was asked for.
pub(super) fn app(app: &App, cluster: &Cluster, embed: Embed) -> Value {
    let mut object = bare(app, cluster);
    if embed.counts {
        let count =
            |test: &dyn Fn(&Task) -> bool| app.tasks.iter().filter(|task| test(task)).count();
        use super::model::State::{Running, Staging, Starting};
        let staged = count(&|task| matches!(task.state, Staging | Starting));
        let running = count(&|task| task.state == Running);
        let healthy = count(&|task| task::health(task) == Some(true));
        let unhealthy = count(&|task| task::health(task) == Some(false));
        object.insert("tasksStaged".to_owned(), staged.into());
        object.insert("tasksRunning".to_owned(), running.into());
        object.insert("tasksHealthy".to_owned(), healthy.into());
        object.insert("tasksUnhealthy".to_owned(), unhealthy.into());
    }
    if embed.deployments {
        let ids = cluster.deployments.iter().filter(|running| running.app == app.id);
        let ids = ids.map(|running| json!({ "id": running.id })).collect();
        list(&mut object, "deployments", ids, cluster);
    }
    if embed.tasks {
        let tasks = app.tasks.iter().map(|one| task(one, app, cluster, false)).collect();
        list(&mut object, "tasks", tasks, cluster);
    }
    if embed.readiness && app.readiness {
        object.insert("readinessCheckResults".to_owned(), readiness(app, cluster));
    }
    if embed.last_failure
        && let Some(failure) = &app.last_failure
    {
        object.insert("lastTaskFailure".to_owned(), failure.clone());
    }
    // Once more, so that what is embedded can be changed as well.
    app.overlay.apply(&mut object);
    Value::Object(object)
}

/// An element of `/v2/deployments`.
pub(super) fn deployments(cluster: &Cluster) -> Value {
    let describe = |running: &super::model::Deployment| {
        let action = json!({cluster.dialect.action_key(): running.action, "app": running.app});
        json!({
            "id": running.id,
            "version": running.version.to_string(),
            "affectedApps": [running.app],
            "affectedPods": [],
            "steps": [{"actions": [action]}],
            "currentActions": [{"action": running.action, "app": running.app, "readinessCheckResults": []}],
            "currentStep": 1,
            "totalSteps": 1,
        })
    };
    cluster.deployments.iter().map(describe).collect()
}

/// `lastTaskFailure`.
pub(super) fn last_failure(app: &str, task: &Task, state: &str, now: Stamp) -> Value {
    json!({
        "appId": app,
        "host": task.place.host,
        "message": "Command exited with status 1",
        "state": state,
        "taskId": task.id,
        "timestamp": now.to_string(),
        "version": task.version.to_string(),
        "slaveId": task.agent(),
    })
}

fn bare(app: &App, cluster: &Cluster) -> Map<String, Value> {
    match definition(app, cluster.dialect) {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn list(object: &mut Map<String, Value>, key: &str, values: Vec<Value>, cluster: &Cluster) {
    if !(values.is_empty() && cluster.omits_empty_lists) {
        object.insert(key.to_owned(), Value::Array(values));
    }
}

/// Results are there only while the app is being deployed.
fn readiness(app: &App, cluster: &Cluster) -> Value {
    if !cluster.deployments.iter().any(|running| running.app == app.id) {
        return json!([]);
    }
    let results = app.tasks.iter().filter(|task| task.started.is_some()).map(|task| {
        let status = if task.ready { 200 } else { 503 };
        let last = json!({"status": status, "contentType": "text/plain", "body": ""});
        json!({"name": "ready", "taskId": task.id, "ready": task.ready, "lastResponse": last})
    });
    results.collect()
}
