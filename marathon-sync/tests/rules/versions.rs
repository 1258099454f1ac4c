//! Tasks of earlier versions, which a deployment leaves running for a while.

use marathon_sync::document::parse_definition;
use marathon_sync::rules::Desired;
use serde_json::{Value, json};

use crate::world::{World, alive, assert_plan, dead, task, with};

const OLD: &str = "2020-01-01T00:00:00.000Z";
const NEW: &str = "2020-01-01T00:10:00.000Z";

/// `/a` in `version`, whose definition has `more`.
fn app(version: &str, more: &Value, tasks: &[Value]) -> Value {
    let app = json!({ "id": "/a", "version": version, "tasks": tasks });
    with(app, more.clone())
}

fn host(ports: &[&str], label: &str) -> Value {
    let ports: Vec<Value> = ports.iter().map(|name| json!({ "name": name })).collect();
    json!({ "portDefinitions": ports, "labels": { label: "a.test" } })
}

fn container(port: u16) -> Value {
    json!({
        "networks": [{ "mode": "container", "name": "dcos" }],
        "container": { "portMappings": [{ "containerPort": port }] },
        "labels": { "hipacheFrontend": "a.test" },
    })
}

fn with_ports(n: u32, version: &str, ports: &[u16]) -> Value {
    with(task(n), json!({ "ports": ports, "version": version }))
}

fn with_address(n: u32, version: &str) -> Value {
    let address = format!("9.0.0.{n}");
    with(
        task(n),
        json!({ "ports": [], "version": version, "ipAddresses": [{ "ipAddress": address }] }),
    )
}

fn learn(world: &mut World, definition: &Value) {
    let body = definition.to_string();
    let parsed = parse_definition("/a", OLD, body.as_bytes()).expect("a definition");
    world.memory.learn_version(parsed);
}

/// What the agent comes to in the middle of a deployment from `old` to `new`, when it has been there
/// before it, and when it has started since and asked for the earlier definition.
fn deploy(old: &Value, new: &Value, old_task: &Value, new_task: &Value) -> [Desired; 2] {
    let mixed = json!([app(NEW, new, &[old_task.clone(), new_task.clone()])]);
    [true, false].map(|is_continuous| {
        let mut world = World::default();
        if is_continuous {
            let _before = world.look(&json!([app(OLD, old, std::slice::from_ref(old_task))]));
        }
        let first = world.look(&mixed);
        let unknown = &first.apps["/a"].unknown_versions;
        // Of an app that was not routed nothing was remembered.
        assert!(is_continuous || *unknown == [OLD], "{unknown:?}");
        if !unknown.is_empty() {
            learn(&mut world, &app(OLD, old, &[]));
        }
        let second = world.look(&mixed);
        assert_eq!(second.apps["/a"].unknown_versions, [""; 0]);
        second
    })
}

#[test]
fn tasks_of_each_version_are_read_by_their_own_definition() {
    for (what, old, new, old_task, new_task, expected) in [
        (
            "ports that change places by label",
            host(&["web", "admin"], "hipacheFrontend"),
            host(&["admin", "web"], "hipacheFrontend.1"),
            with_ports(1, OLD, &[1001, 1002]),
            with_ports(2, NEW, &[2001, 2002]),
            "a.test = http://10.0.0.1:1001 http://10.0.0.2:2002",
        ),
        (
            "ports that change places under one label",
            host(&["web", "admin"], "hipacheFrontend.web"),
            host(&["admin", "web"], "hipacheFrontend.web"),
            with_ports(1, OLD, &[1001, 1002]),
            with_ports(2, NEW, &[2001, 2002]),
            "a.test = http://10.0.0.1:1001 http://10.0.0.2:2002",
        ),
        (
            "from host mode to a container network",
            host(&["web"], "hipacheFrontend"),
            container(8080),
            with(
                with_ports(1, OLD, &[1001]),
                json!({ "ipAddresses": [{ "ipAddress": "9.0.0.1" }] }),
            ),
            with_address(2, NEW),
            "a.test = http://10.0.0.1:1001 http://9.0.0.2:8080",
        ),
        (
            "from a container network to host mode",
            container(8080),
            host(&["web"], "hipacheFrontend"),
            with_address(1, OLD),
            with_ports(2, NEW, &[2001]),
            "a.test = http://9.0.0.1:8080 http://10.0.0.2:2001",
        ),
        (
            "another port in the container",
            container(8080),
            container(9090),
            with_address(1, OLD),
            with_address(2, NEW),
            "a.test = http://9.0.0.1:8080 http://9.0.0.2:9090",
        ),
        (
            "a host that comes, with a port that keeps its name",
            host(&["web", "admin"], "other"),
            host(&["admin", "web"], "hipacheFrontend.web"),
            with_ports(1, OLD, &[1001, 1002]),
            with_ports(2, NEW, &[2001, 2002]),
            "a.test = http://10.0.0.1:1001 http://10.0.0.2:2002",
        ),
        (
            "a host that comes, at a position that meant something else",
            json!({ "portDefinitions": [{}, {}], "labels": {} }),
            json!({ "portDefinitions": [{}], "labels": { "hipacheFrontend": "a.test" } }),
            with_ports(1, OLD, &[1001, 1002]),
            with_ports(2, NEW, &[2001]),
            "a.test = http://10.0.0.2:2001",
        ),
    ] {
        for desired in deploy(&old, &new, &old_task, &new_task) {
            assert_eq!(crate::world::lines(&desired.plan), [expected], "{what}");
        }
    }
}

#[test]
fn task_of_unknown_version_stays_where_it_is_listed_and_is_not_added() {
    let old = with_ports(1, OLD, &[1001, 1002]);
    let new = with_ports(2, NEW, &[2001, 2002]);
    let definition = host(&["admin", "web"], "hipacheFrontend.1");
    let apps = json!([app(NEW, &definition, &[old, new])]);
    let mut world = World::default();
    assert_plan(&world.look(&apps), &["a.test = http://10.0.0.2:2002"]);
    let mut world = World::default();
    let listed = vec!["http://10.0.0.1:1001".to_owned()];
    world.memory.restore("a.test", "a", &[("/a".to_owned(), listed)].into());
    let desired = world.look(&apps);
    assert_plan(&desired, &["a.test = http://10.0.0.2:2002 ? http://10.0.0.1:1001"]);
    let why = desired.apps["/a"].tasks[0].verdict.to_string();
    assert!(why.contains(&format!("version {OLD}, is not known")), "{why}");
}

#[test]
fn task_that_was_only_scaled_needs_no_other_definition() {
    let info = json!({ "versionInfo": { "lastConfigChangeAt": OLD } });
    let definition = with(host(&["web"], "hipacheFrontend"), info);
    let desired =
        World::default().look(&json!([app(NEW, &definition, &[with_ports(1, OLD, &[1001])])]));
    assert_plan(&desired, &["a.test = http://10.0.0.1:1001"]);
}

/// Marathon goes on to make the checks of the version that a task was started from.
#[test]
fn health_of_a_task_is_judged_by_the_checks_of_its_own_version() {
    let check = json!({ "protocol": "HTTP" });
    let checks = |count: usize| {
        let checks = vec![check.clone(); count];
        with(host(&["web"], "hipacheFrontend"), json!({ "healthChecks": checks }))
    };
    let result = |result: Value| {
        with(with_ports(1, OLD, &[1001]), json!({ "healthCheckResults": [result] }))
    };
    let new_task = with_ports(2, NEW, &[2001]);
    for (old, new, old_task, expected) in [
        (
            checks(1),
            checks(2),
            result(alive()),
            "a.test = http://10.0.0.1:1001 ? http://10.0.0.2:2001",
        ),
        (checks(1), checks(0), result(dead(1)), "a.test = http://10.0.0.2:2001"),
        (
            checks(0),
            checks(1),
            with_ports(1, OLD, &[1001]),
            "a.test = http://10.0.0.1:1001 ? http://10.0.0.2:2001",
        ),
    ] {
        for desired in deploy(&old, &new, &old_task, &new_task) {
            assert_plan(&desired, &[expected]);
        }
    }
}

/// From 1.4 on a task that is inactive tells neither ports nor version.
#[test]
fn remembered_address_is_read_by_the_remembered_version() {
    let mut world = World::default();
    let old = with_ports(1, OLD, &[1001, 1002]);
    let _before =
        world.look(&json!([app(OLD, &host(&["web", "admin"], "hipacheFrontend"), &[old])]));
    let inactive =
        json!({ "id": "t.1", "host": "10.0.0.1", "state": "TASK_UNREACHABLE", "ports": [] });
    let new = host(&["admin", "web"], "hipacheFrontend.1");
    assert_plan(
        &world.look(&json!([app(NEW, &new, &[inactive])])),
        &["a.test = ? http://10.0.0.1:1001"],
    );
}
