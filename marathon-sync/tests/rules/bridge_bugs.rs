//! The bridge's bugs, not copied: `bridge_bug_<row>` after the list of them. The one of ids that
//! match by a part (18) is tested beside the patterns; those of I/O elsewhere.

use marathon_sync::rules::report::AppState;
use serde_json::{Value, json};

use crate::world::{World, alive, app, assert_plan, checked, dead, grace, look, task, with};

const ONE: &str = "a.test = http://10.0.0.1:31000";

#[test]
fn bridge_bug_02_and_03_all_results_count_in_any_order() {
    for (results, expected) in [
        (json!([dead(1), alive()]), "a.test ="),
        (json!([alive(), dead(1)]), "a.test ="),
        (json!([null, alive()]), ONE),
    ] {
        let task = with(task(1), json!({ "healthCheckResults": results }));
        assert_plan(&look(&json!([checked("/a", "a.test", &[task])])), &[expected]);
    }
}

#[test]
fn bridge_bug_04_apps_without_health_checks_are_routed() {
    assert_plan(&look(&json!([app("/a", "a.test", &[task(1)])])), &[ONE]);
}

#[test]
fn bridge_bug_05_hosts_of_deleted_apps_and_removed_labels_leave_the_plan() {
    let mut world = World::default();
    assert_plan(&world.look(&json!([app("/a", "a.test", &[task(1)])])), &[ONE]);
    assert_plan(
        &world.look(&json!([app("/a", "b.test", &[task(1)])])),
        &["b.test = http://10.0.0.1:31000"],
    );
    assert_plan(&world.look(&json!([])), &[]);
}

#[test]
fn bridge_bug_07_a_task_without_ports_harms_nothing() {
    for ports in [Value::Null, json!([])] {
        let tasks = [with(task(2), json!({ "ports": ports })), task(1)];
        assert_plan(&look(&json!([app("/a", "a.test", &tasks)])), &[ONE]);
    }
}

#[test]
fn bridge_bug_08_an_app_without_labels_harms_nothing() {
    for include in [vec![], vec![marathon_sync::rules::labels::Include::parse("hipacheFrontend")]] {
        let mut world = World::default();
        world.options.labels.include = include;
        let desired = world.look(&json!([{ "id": "/0", "labels": null }, { "id": "/1" }, app("/a", "a.test", &[task(1)])]));
        assert_plan(&desired, &[ONE]);
        assert!(matches!(desired.apps["/0"].state, AppState::Skipped(_)));
    }
}

#[test]
fn bridge_bug_12_and_13_states_count_and_the_grace_period_is_no_death() {
    let staging =
        with(task(2), json!({ "state": "TASK_STAGING", "healthCheckResults": [alive()] }));
    let starting = with(task(1), json!({ "healthCheckResults": [grace()] }));
    let desired = look(&json!([checked("/a", "a.test", &[staging, starting])]));
    assert_plan(&desired, &["a.test = ? http://10.0.0.1:31000"]);
}

#[test]
fn bridge_bug_16_and_17_keys_are_clean_and_identifiers_make_sense() {
    let desired = look(&json!([app("/a", "*.example.test, app.example.test, x.test:8080", &[])]));
    assert_plan(&desired, &["*.example.test =", "app.example.test ="]);
    assert_eq!(desired.plan["*.example.test"].identifier, "example");
    assert_eq!(desired.apps["/a"].refused.len(), 1);
}

#[test]
fn bridge_bug_18_excluding_one_app_hides_no_other() {
    let mut world = World::default();
    world.options.exclude = vec!["/hipcheck".to_owned(), "/infra/*".to_owned()];
    let apps = json!([
        app("/chipcheck", "a.test", &[task(1)]),
        app("/hipcheck", "b.test", &[]),
        app("/infra/x", "c.test", &[])
    ]);
    assert_plan(&world.look(&apps), &[ONE]);
}

#[test]
fn bridge_bug_20_ipv6_and_container_addresses_work() {
    let v6 = with(task(1), json!({ "host": "fd00::1" }));
    assert_plan(&look(&json!([app("/a", "a.test", &[v6])])), &["a.test = http://[fd00::1]:31000"]);
}

#[test]
fn bridge_bug_21_an_empty_list_that_contradicts_the_count_is_not_believed() {
    let mut world = World::default();
    assert_plan(&world.look(&json!([app("/a", "a.test", &[task(1)])])), &[ONE]);
    for (tasks, running, instances, expected) in [
        (json!([]), json!(1), json!(1), "a.test = ? http://10.0.0.1:31000"),
        (Value::Null, json!(1), json!(1), "a.test = ? http://10.0.0.1:31000"),
        (Value::Null, Value::Null, json!(1), "a.test = ? http://10.0.0.1:31000"),
        (json!([7]), json!(1), json!(1), "a.test = ? http://10.0.0.1:31000"),
        (Value::Null, json!(0), json!(1), "a.test ="),
        (json!([]), json!(0), json!(0), "a.test ="),
    ] {
        let change = json!({ "tasks": tasks, "tasksRunning": running, "instances": instances });
        let desired = world.look(&json!([with(app("/a", "a.test", &[]), change.clone())]));
        assert_eq!(crate::world::lines(&desired.plan), [expected], "{change}");
    }
}
