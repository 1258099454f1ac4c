//! The control API below `/_fake/`: the methods of tests, for shells and other programs.
//!
//! | request | body | does |
//! |---|---|---|
//! | `PUT /_fake/apps` | [`AppSpec`] | deploys an app, its tasks running and healthy |
//! | `POST /_fake/rollout` | [`RollOutSpec`] | replaces its tasks step by step |
//! | `POST /_fake/scale` | `{"id", "instances"}` | scales, to places of its own choice |
//! | `POST /_fake/delete` | `{"id"}` | kills the tasks and removes the app |
//! | `POST /_fake/task` | [`TaskSpec`] | moves a task, or probes it |
//! | `POST /_fake/agent` | `{"host", "state"}` | loses an agent, or gets it back |
//! | `POST /_fake/fault` | [`FaultSpec`] | makes a route fail, or heals it |
//! | `POST /_fake/failover` | | this process leads anew: streams end, health is lost |
//! | `POST /_fake/probe` | | every running task passes its checks |
//! | `GET /_fake/tasks` | | ids, apps, addresses and states of all tasks |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::apps::{AppBuilder, AppRef, TaskRef};
use super::faults::{Fault, Route};
use super::http::{Answer, Request};
use super::model::{Check, Health, Network, Place, Port, Protocol, State};
use super::node::Node;

/// Path before every other of this API.
pub(super) const PREFIX: &str = "/_fake/";

/// An app with its tasks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AppSpec {
    id: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    network: Network,
    ports: Option<Vec<Port>>,
    #[serde(default)]
    checks: Vec<Protocol>,
    /// Addresses of its tasks, each `host:port[,port…]`.
    #[serde(default)]
    tasks: Vec<String>,
}

/// A rolling deployment.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RollOutSpec {
    id: String,
    /// Labels to be changed.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Addresses of the new tasks.
    tasks: Vec<String>,
    /// How many tasks are replaced at a time.
    #[serde(default = "one")]
    batch: usize,
    /// Whether `TASK_KILLING` is shown.
    #[serde(default = "yes")]
    killing: bool,
    /// Pause after each step.
    #[serde(default)]
    step_millis: u64,
}

/// What happens to a task.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TaskSpec {
    id: String,
    state: Option<TaskState>,
    healthy: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TaskState {
    Running,
    Killing,
    Killed,
    Failed,
    Unreachable,
    Inactive,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scale {
    id: String,
    instances: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    id: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agent {
    host: String,
    state: TaskState,
}

/// What goes wrong: nothing but the route heals it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultSpec {
    /// Path such as `/v2/apps`.
    route: String,
    /// Answers with this status, and
    status: Option<u16>,
    /// this JSON body, or an error page without.
    body: Option<Value>,
    /// Or does not answer at all.
    #[serde(default)]
    hang: bool,
}

impl From<TaskState> for State {
    fn from(state: TaskState) -> Self {
        match state {
            TaskState::Running => Self::Running,
            TaskState::Killing => Self::Killing,
            TaskState::Killed => Self::Killed,
            TaskState::Failed => Self::Failed,
            TaskState::Unreachable => Self::Unreachable,
            TaskState::Inactive => Self::UnreachableInactive,
        }
    }
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

/// The answer to a request of this API.
pub(super) fn answer(node: &Arc<Node>, request: &Request) -> Answer {
    match carry_out(node, request) {
        Ok(body) => Answer::new(200, "application/json", format!("{body}\n")),
        Err(reason) => {
            let body = json!({ "message": reason });
            Answer::new(422, "application/json", format!("{body}\n"))
        }
    }
}

fn carry_out(node: &Arc<Node>, request: &Request) -> Result<Value, String> {
    let path = request.path.strip_prefix(PREFIX).unwrap_or_default();
    match (request.head.method(), path) {
        ("PUT" | "POST", "apps") => deploy(node, read(request)?)?,
        ("POST", "rollout") => roll_out(node, read(request)?)?,
        ("POST", "scale") => {
            let Scale { id, instances } = read(request)?;
            known(node, &id)?.scale(instances);
        }
        ("POST", "delete") => known(node, &read::<Named>(request)?.id)?.delete(),
        ("POST", "task") => move_task(node, &read(request)?)?,
        ("POST", "agent") => {
            let Agent { host, state } = read(request)?;
            node.shared.change(|cluster| cluster.move_agent(&host, state.into()));
        }
        ("POST", "fault") => fail(node, read(request)?),
        ("POST", "failover") => node.shared.state().elect(Some(node.number)),
        ("POST", "probe") => node.shared.change(|cluster| {
            for id in cluster.task_ids(|_| true) {
                cluster.probe(&id, None, Health::Healthy);
            }
        }),
        ("GET", "tasks") => {}
        (method, _) => return Err(format!("nothing is known of {method} {}", request.path)),
    }
    Ok(tasks(node))
}

fn read<T: DeserializeOwned>(request: &Request) -> Result<T, String> {
    serde_json::from_slice(&request.body).map_err(|error| format!("the body: {error}"))
}

fn known(node: &Node, id: &str) -> Result<AppRef, String> {
    if !node.shared.state().cluster.apps.contains_key(id) {
        return Err(format!("there is no app {id}"));
    }
    Ok(AppRef::new(&node.shared, id))
}

fn deploy(node: &Node, spec: AppSpec) -> Result<(), String> {
    let places = places(&spec.tasks)?;
    let mut app = AppBuilder::new(&node.shared, &spec.id).network(spec.network);
    for (key, value) in &spec.labels {
        app = app.label(key, value);
    }
    for protocol in spec.checks {
        app = app.check(Check::by(protocol));
    }
    if let Some(ports) = spec.ports {
        app = app.ports(ports);
    }
    app.try_running_at(places).map(drop)
}

fn roll_out(node: &Node, spec: RollOutSpec) -> Result<(), String> {
    let places = places(&spec.tasks)?;
    let mut rolling = known(node, &spec.id)?
        .roll_out(places, |app| app.labels.extend(spec.labels))
        .batches_of(spec.batch);
    if !spec.killing {
        rolling = rolling.without_killing();
    }
    let pause = Duration::from_millis(spec.step_millis);
    if pause.is_zero() {
        rolling.finish();
    } else {
        tokio::spawn(async move {
            while rolling.step().is_some() {
                tokio::time::sleep(pause).await;
            }
        });
    }
    Ok(())
}

fn move_task(node: &Node, spec: &TaskSpec) -> Result<(), String> {
    let task = TaskRef::new(&node.shared, &spec.id);
    if task.look().is_none() {
        return Err(format!("there is no task {}", spec.id));
    }
    if let Some(state) = spec.state {
        task.to(state.into());
    }
    if let Some(healthy) = spec.healthy {
        task.probe(if healthy { Health::Healthy } else { Health::Sick });
    }
    Ok(())
}

fn fail(node: &Node, spec: FaultSpec) {
    let route = Route::of(&spec.route);
    let fault = match (spec.hang, spec.status, spec.body) {
        (true, ..) => Some(Fault::Hang),
        (false, status, Some(body)) => Some(Fault::json(status.unwrap_or(200), &body)),
        (false, Some(status), None) => Some(Fault::page(status, "fake")),
        (false, None, None) => None,
    };
    node.settings.send_modify(|settings| match fault {
        Some(fault) => settings.faults.set(route, fault, None),
        None => settings.faults.clear(route),
    });
}

/// `host:port[,port…]`, where an IPv6 address may stand in brackets.
fn places(texts: &[String]) -> Result<Vec<Place>, String> {
    let place = |text: &String| {
        let (host, ports) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let ports = ports.split(',').map(|port| port.parse().ok()).collect::<Option<_>>()?;
        Some(Place::new(host, ports))
    };
    let wrong = |text| format!("task {text:?} is not host:port[,port...]");
    texts.iter().map(|text| place(text).ok_or_else(|| wrong(text))).collect()
}

fn tasks(node: &Node) -> Value {
    let state = node.shared.state();
    let cluster = &state.cluster;
    let tasks = cluster.tasks().map(|(app, task)| {
        json!({
            "id": task.id,
            "app": app.id,
            "host": task.place.host,
            "ports": task.place.ports,
            "state": task.state.name(cluster.dialect),
        })
    });
    json!({ "tasks": tasks.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_a_host_and_its_ports() {
        let cases = [
            ("h:1", Some(Place::new("h", vec![1]))),
            ("127.0.0.1:1,2", Some(Place::new("127.0.0.1", vec![1, 2]))),
            ("[::1]:8", Some(Place::new("::1", vec![8]))),
            ("h", None),
            ("h:", None),
            ("h:1,", None),
            ("h:65536", None),
        ];
        for (text, place) in cases {
            let read = places(&[text.to_owned()]).ok();
            assert_eq!(read, place.map(|place| vec![place]), "{text:?}");
        }
    }
}
