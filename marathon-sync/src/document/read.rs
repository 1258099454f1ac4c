//! From bytes to [`Answer`], app by app and task by task.
//!
//! The whole never exists as a tree: each level is cut into borrowed pieces of the text
//! (`RawValue`), so that a piece of the wrong type fails alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::reader::{Raw, Reader, is_empty, object, shorten};
use super::{
    Answer, App, DiscoveryPort, DocumentError, HealthCheck, HealthResult, IpAddress, Network,
    PortDefinition, PortMapping, Problem, Readiness, State, Task,
};

/// Marathon's default of `maxConsecutiveFailures`.
const MAX_CONSECUTIVE_FAILURES: u32 = 3;

/// Marathon's default of a readiness check's `timeoutSeconds`.
const READINESS_TIMEOUT: u32 = 10;

/// Reads a whole answer.
///
/// # Errors
///
/// [`DocumentError`] when the bytes are no answer; what is wrong inside an answer is in
/// [`Answer::problems`] instead.
pub fn parse(body: &[u8]) -> Result<Answer, DocumentError> {
    parse_and_tell(body, || ())
}

/// The same. Calls `accepted` as soon as the bytes are known to be an answer, before its apps are read:
/// what it replaces need not stay in memory beside it.
///
/// # Errors
///
/// As [`parse`]; `accepted` has not been called then.
pub fn parse_and_tell(body: &[u8], accepted: impl FnOnce()) -> Result<Answer, DocumentError> {
    // A byte that is not UTF-8 spoils the text that it is in, and no more.
    let text = String::from_utf8_lossy(body);
    let whole: &RawValue = serde_json::from_str(&text).map_err(DocumentError::NotJson)?;
    let fields: RawAnswer<'_> =
        object(whole).map_err(|_not_an_object| DocumentError::NotAnObject)?;
    let Some(apps) = fields.apps else {
        return Err(DocumentError::NoApps(shorten(fields.message.unwrap_or(whole).get())));
    };
    let entries: Vec<&RawValue> =
        serde_json::from_str(apps.get()).map_err(|_not_a_list| DocumentError::AppsNotAList)?;
    accepted();
    let mut reader = Reader::default();
    let mut answer = Answer { apps: Vec::with_capacity(entries.len()), ..Answer::default() };
    for (place, entry) in entries.into_iter().enumerate() {
        match app(entry, place, &mut reader) {
            Some(app) => answer.apps.push(app),
            None => answer.nameless += 1,
        }
    }
    answer.problems = reader.problems;
    answer.problems_left_out = reader.left_out;
    Ok(answer)
}

/// Reads the answer to `GET /v2/apps/{id}`, with what of it could not be read. `None`: it does not
/// show that app.
pub fn parse_app(id: &str, body: &[u8]) -> Option<(App, Vec<Problem>)> {
    let text = String::from_utf8_lossy(body);
    let whole: &RawValue = serde_json::from_str(&text).ok()?;
    let fields: RawAppAnswer<'_> = object(whole).ok()?;
    let mut reader = Reader::default();
    let app = app(fields.app?, 0, &mut reader).filter(|app| app.id == id)?;
    Some((app, reader.problems))
}

/// Reads the answer to `GET /v2/apps/{id}/versions/{version}`. `None`: it is not that definition, or
/// not all of it can be read.
pub fn parse_definition(id: &str, version: &str, body: &[u8]) -> Option<App> {
    let text = String::from_utf8_lossy(body);
    let whole: &RawValue = serde_json::from_str(&text).ok()?;
    let app = app(whole, 0, &mut Reader::default())?;
    let is_asked_for = app.id == id && app.version.as_deref() == Some(version);
    (is_asked_for && app.broken.is_none()).then(|| app.definition())
}

macro_rules! raw_object {
    ($(#[$doc:meta])* $name:ident { $($field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        #[derive(Default)]
        struct $name<'a> {
            $(#[serde(borrow)] $field: Raw<'a>,)+
        }
    };
}

raw_object!(RawAnswer { apps, message });
raw_object!(RawAppAnswer { app });
raw_object!(RawApp {
    id,
    version,
    version_info,
    labels,
    instances,
    tasks_running,
    container,
    networks,
    port_definitions,
    ports,
    ip_address,
    health_checks,
    readiness_checks,
    readiness_check_results,
    deployments,
    tasks,
});
raw_object!(RawVersionInfo { last_config_change_at });
raw_object!(RawContainer { docker, port_mappings });
raw_object!(RawDocker { network, port_mappings });
raw_object!(RawNetwork { mode, name });
raw_object!(RawPort { container_port, host_port, number, protocol, name, labels, network_names });
raw_object!(RawIpAddress { discovery, ip_address });
raw_object!(RawDiscovery { ports });
raw_object!(RawCheck { max_consecutive_failures, timeout_seconds });
raw_object!(RawReadiness { task_id, ready });
raw_object!(RawTask {
    id,
    host,
    ports,
    ip_addresses,
    state,
    started_at,
    version,
    health_check_results,
});
raw_object!(RawResult { alive, consecutive_failures, first_success, last_success, last_failure });

/// `None` when the entry does not tell its id.
fn app(entry: &RawValue, place: usize, reader: &mut Reader) -> Option<App> {
    reader.app = format!("#{place}");
    reader.task = None;
    reader.broken = None;
    let raw: RawApp<'_> = match object(entry) {
        Ok(raw) => raw,
        Err(reason) => {
            reader.complain("", &reason);
            return None;
        }
    };
    let id: Option<String> = reader.minor("id", raw.id);
    let Some(id) = id.filter(|id| !id.is_empty()) else {
        reader.complain("id", "an app without an id");
        return None;
    };
    reader.app.clone_from(&id);
    let (labels, bad_labels) = labels(reader, raw.labels);
    let container: Option<RawContainer<'_>> = reader.object("container", raw.container);
    let has_container = container.is_some();
    let container = container.unwrap_or_default();
    let docker: RawDocker<'_> =
        reader.object("container.docker", container.docker).unwrap_or_default();
    let new_mappings = container.port_mappings.filter(|raw| !is_empty(raw));
    let mut app = App {
        version: reader.minor("version", raw.version),
        config_since: config_since(reader, raw.version_info),
        labels,
        bad_labels,
        instances: reader.minor("instances", raw.instances),
        tasks_running: reader.minor("tasksRunning", raw.tasks_running),
        has_container,
        docker_network: reader.vital("container.docker.network", docker.network),
        networks: networks(reader, raw.networks),
        port_mappings: port_mappings(reader, new_mappings.or(docker.port_mappings)),
        port_definitions: port_definitions(reader, raw.port_definitions),
        service_ports: reader.ports("ports", raw.ports),
        ip_address: ip_address(reader, raw.ip_address),
        health_checks: health_checks(reader, raw.health_checks),
        readiness_timeouts: readiness_timeouts(reader, raw.readiness_checks),
        readiness: readiness(reader, raw.readiness_check_results),
        deployments: reader
            .minor::<Vec<&RawValue>>("deployments", raw.deployments)
            .map_or(0, |deployments| deployments.len()),
        ..App::default()
    };
    if let Some(entries) = raw.tasks {
        let entries = reader.list("tasks", Some(entries));
        app.broken = reader.broken.take();
        let mut tasks = Vec::with_capacity(entries.len());
        for (place, entry) in entries.into_iter().enumerate() {
            match task(entry, place, reader) {
                Some(task) => tasks.push(task),
                None => app.unreadable_tasks += 1,
            }
        }
        app.tasks = Some(tasks);
    } else {
        app.broken = reader.broken.take();
    }
    app.id = id;
    Some(app)
}

fn config_since(reader: &mut Reader, raw: Raw<'_>) -> Option<String> {
    let raw: RawVersionInfo<'_> = object(raw?).ok()?;
    reader.minor("versionInfo.lastConfigChangeAt", raw.last_config_change_at)
}

fn labels(reader: &mut Reader, raw: Raw<'_>) -> (BTreeMap<String, String>, BTreeSet<String>) {
    let mut labels = BTreeMap::new();
    let mut bad = BTreeSet::new();
    let entries: BTreeMap<String, &RawValue> = reader.vital("labels", raw).unwrap_or_default();
    for (name, value) in entries {
        if value.get() == "null" {
            continue;
        }
        match serde_json::from_str(value.get()) {
            Ok(text) => {
                let _new = labels.insert(name, text);
            }
            Err(error) => {
                reader.complain("labels", &format!("{name}: {error}"));
                let _new = bad.insert(name);
            }
        }
    }
    (labels, bad)
}

fn port_labels(reader: &mut Reader, raw: Raw<'_>) -> BTreeMap<String, String> {
    let (labels, bad) = labels(reader, raw);
    if let Some(name) = bad.first() {
        reader.complain_vital("labels", &format!("{name}: of a port, and not text"));
    }
    labels
}

fn networks(reader: &mut Reader, raw: Raw<'_>) -> Vec<Network> {
    objects(reader, "networks", raw, |reader, raw: RawNetwork<'_>| Network {
        mode: reader.vital("networks.mode", raw.mode),
        name: reader.minor("networks.name", raw.name),
    })
}

/// The entries of a vital list of objects; one that is none breaks the app, as positions matter.
fn objects<'a, R: Deserialize<'a>, T>(
    reader: &mut Reader,
    field: &'static str,
    raw: Raw<'a>,
    mut read: impl FnMut(&mut Reader, R) -> T,
) -> Vec<T> {
    let mut found = Vec::new();
    for entry in reader.list(field, raw) {
        match object(entry) {
            Ok(raw) => found.push(read(reader, raw)),
            Err(reason) => reader.complain_vital(field, &reason),
        }
    }
    found
}

fn port_mappings(reader: &mut Reader, raw: Raw<'_>) -> Vec<PortMapping> {
    objects(reader, "portMappings", raw, |reader, raw: RawPort<'_>| PortMapping {
        container_port: reader.vital("containerPort", raw.container_port).unwrap_or(0),
        host_port: reader.vital("hostPort", raw.host_port),
        protocol: reader.vital("protocol", raw.protocol),
        name: reader.vital("name", raw.name),
        labels: port_labels(reader, raw.labels),
        network_names: reader.texts("networkNames", raw.network_names),
    })
}

fn port_definitions(reader: &mut Reader, raw: Raw<'_>) -> Vec<PortDefinition> {
    objects(reader, "portDefinitions", raw, |reader, raw: RawPort<'_>| PortDefinition {
        protocol: reader.vital("protocol", raw.protocol),
        name: reader.vital("name", raw.name),
        labels: port_labels(reader, raw.labels),
    })
}

/// Its presence means that tasks have addresses of their own.
fn ip_address(reader: &mut Reader, raw: Raw<'_>) -> Option<IpAddress> {
    let raw = match object::<RawIpAddress<'_>>(raw.filter(|raw| !is_empty(raw))?) {
        Ok(raw) => raw,
        Err(reason) => {
            reader.complain_vital("ipAddress", &reason);
            return None;
        }
    };
    let discovery: RawDiscovery<'_> =
        reader.object("ipAddress.discovery", raw.discovery).unwrap_or_default();
    let ports = objects(
        reader,
        "ipAddress.discovery.ports",
        discovery.ports,
        |reader, raw: RawPort<'_>| DiscoveryPort {
            number: reader.vital("number", raw.number).unwrap_or(0),
            protocol: reader.vital("protocol", raw.protocol),
            name: reader.vital("name", raw.name),
        },
    );
    Some(IpAddress { ports })
}

/// A check that cannot be read is a check all the same: its result has to be waited for.
fn health_checks(reader: &mut Reader, raw: Raw<'_>) -> Vec<HealthCheck> {
    let entries = reader.list("healthChecks", raw);
    let failures = |reader: &mut Reader, entry| match object::<RawCheck<'_>>(entry) {
        Ok(raw) => reader.minor("maxConsecutiveFailures", raw.max_consecutive_failures),
        Err(reason) => {
            reader.complain("healthChecks", &reason);
            None
        }
    };
    entries
        .into_iter()
        .map(|entry| HealthCheck {
            max_consecutive_failures: failures(reader, entry).unwrap_or(MAX_CONSECUTIVE_FAILURES),
        })
        .collect()
}

fn readiness_timeouts(reader: &mut Reader, raw: Raw<'_>) -> Vec<u32> {
    let entries: Vec<&RawValue> = reader.minor("readinessChecks", raw).unwrap_or_default();
    let timeout = |entry| {
        let raw: RawCheck<'_> = object(entry).unwrap_or_default();
        reader.minor("timeoutSeconds", raw.timeout_seconds).unwrap_or(READINESS_TIMEOUT)
    };
    entries.into_iter().map(timeout).collect()
}

fn readiness(reader: &mut Reader, raw: Raw<'_>) -> Vec<Readiness> {
    let entries: Vec<&RawValue> = reader.minor("readinessCheckResults", raw).unwrap_or_default();
    let mut found = Vec::new();
    for entry in entries {
        let raw: RawReadiness<'_> = object(entry).unwrap_or_default();
        let task = reader.minor("readinessCheckResults.taskId", raw.task_id);
        let ready = reader.minor("readinessCheckResults.ready", raw.ready);
        if let (Some(task), Some(ready)) = (task, ready) {
            found.push(Readiness { task, ready });
        }
    }
    found
}

/// `None` when the entry does not tell its id.
fn task(entry: &RawValue, place: usize, reader: &mut Reader) -> Option<Task> {
    reader.broken = None;
    reader.task = None;
    let id = match object::<RawTask<'_>>(entry) {
        Ok(raw) => {
            let id: Option<String> = reader.minor("id", raw.id);
            id.filter(|id| !id.is_empty()).map(|id| (id, raw))
        }
        Err(_reason) => None,
    };
    let Some((id, raw)) = id else {
        reader.task = Some(format!("#{place}"));
        reader.complain("", "not an object with an id");
        return None;
    };
    reader.task = Some(id.clone());
    let host: Option<String> = reader.vital("host", raw.host);
    let state: Option<String> = reader.vital("state", raw.state);
    Some(Task {
        host: host.filter(|host| !host.is_empty()),
        ports: reader.ports("ports", raw.ports),
        ip_addresses: ip_addresses(reader, raw.ip_addresses),
        state: state.map(State::from),
        started_at: reader.vital("startedAt", raw.started_at),
        version: reader.minor("version", raw.version),
        results: results(reader, raw.health_check_results),
        broken: reader.broken.take(),
        id,
    })
}

/// An address that is still to come may be announced by an empty entry.
fn ip_addresses(reader: &mut Reader, raw: Raw<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for entry in reader.list("ipAddresses", raw).into_iter().filter(|entry| !is_empty(entry)) {
        match object::<RawIpAddress<'_>>(entry) {
            Ok(raw) => found.extend(reader.vital::<String>("ipAddresses", raw.ip_address)),
            Err(reason) => reader.complain_vital("ipAddresses", &reason),
        }
    }
    found.retain(|address| !address.trim().is_empty());
    found
}

/// Garbage among the results makes the health of the task unknown, not the task broken.
fn results(reader: &mut Reader, raw: Raw<'_>) -> Vec<Option<HealthResult>> {
    let entries: Vec<&RawValue> = reader.minor("healthCheckResults", raw).unwrap_or_default();
    let mut read = |entry: &RawValue| {
        if is_empty(entry) {
            return None;
        }
        let raw: RawResult<'_> =
            object(entry).map_err(|reason| reader.complain("healthCheckResults", &reason)).ok()?;
        Some(HealthResult {
            alive: reader.minor("healthCheckResults.alive", raw.alive)?,
            consecutive_failures: reader
                .minor("healthCheckResults.consecutiveFailures", raw.consecutive_failures)
                .unwrap_or(0),
            has_succeeded: raw.first_success.is_some() || raw.last_success.is_some(),
            has_failed: raw.last_failure.is_some(),
        })
    };
    // Not collected: see `Reader::ports`.
    let mut results = Vec::with_capacity(entries.len());
    results.extend(entries.into_iter().map(&mut read));
    results
}

impl From<String> for State {
    fn from(name: String) -> Self {
        match name.as_str() {
            "TASK_KILLING" => Self::Killing,
            "TASK_LOST" => Self::Lost,
            "TASK_RUNNING" => Self::Running,
            "TASK_UNREACHABLE" => Self::Unreachable,
            _ => Self::Other(shorten(&name)),
        }
    }
}
