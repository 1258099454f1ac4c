//! What broke agents like this one: `breakage_<row>` after the list of known breakages.

use marathon_sync::document::{DocumentError, parse, parse_and_tell};
use marathon_sync::rules::report::AppState;
use serde_json::{Value, json};

use crate::world::{World, alive, app, assert_plan, checked, dead, grace, look, task, with};

fn well(n: u32) -> Value {
    with(task(n), json!({ "healthCheckResults": [alive()] }))
}

const BOTH: &str = "a.test = http://10.0.0.1:31000 http://10.0.0.2:31000";

#[test]
fn breakage_01_and_02_a_failover_empties_the_results_in_any_spelling_and_nothing_goes() {
    for gone in [Value::Null, json!([]), json!([null]), json!([grace()])] {
        let mut world = World::default();
        assert_plan(&world.look(&json!([checked("/a", "a.test", &[well(1), well(2)])])), &[BOTH]);
        let without = |n| with(task(n), json!({ "healthCheckResults": gone }));
        for _again in 0..3 {
            assert_plan(
                &world.look(&json!([checked("/a", "a.test", &[without(1), without(2)])])),
                &[BOTH],
            );
        }
        // What was sick before stays out, and what comes back counts.
        let sick = with(task(1), json!({ "healthCheckResults": [dead(1)] }));
        let one = &["a.test = http://10.0.0.2:31000"];
        assert_plan(&world.look(&json!([checked("/a", "a.test", &[sick, without(2)])])), one);
        assert_plan(&world.look(&json!([checked("/a", "a.test", &[without(1), without(2)])])), one);
        assert_plan(
            &world.look(&json!([checked("/a", "a.test", &[well(1), without(2)])])),
            &[BOTH],
        );
    }
}

#[test]
fn breakage_03_null_results_are_unknown() {
    let task = with(task(1), json!({ "state": null, "healthCheckResults": [null] }));
    assert_plan(
        &look(&json!([checked("/a", "a.test", &[task])])),
        &["a.test = ? http://10.0.0.1:31000"],
    );
}

#[test]
fn breakage_04_the_grace_period_is_unknown_not_sick() {
    let task = with(task(1), json!({ "healthCheckResults": [grace()] }));
    assert_plan(
        &look(&json!([checked("/a", "a.test", &[task])])),
        &["a.test = ? http://10.0.0.1:31000"],
    );
}

#[test]
fn breakage_05_a_new_task_without_results_waits_while_the_old_one_goes() {
    let killing = with(well(1), json!({ "state": "TASK_KILLING" }));
    let desired = look(&json!([checked("/a", "a.test", &[killing, task(2)])]));
    assert_plan(&desired, &["a.test = ? http://10.0.0.2:31000"]);
}

#[test]
fn breakage_06_08_and_28_what_is_no_answer_is_an_error() {
    for (body, is_this) in [
        ("", "NotJson"),
        ("<html>502</html>", "NotJson"),
        ("{\"apps\":[{\"id\":\"/a\"", "NotJson"),
        ("[]", "NotAnObject"),
        ("null", "NotAnObject"),
        ("{\"message\":\"Futures timed out\"}", "NoApps"),
        ("{\"apps\":null}", "NoApps"),
        ("{\"apps\":{}}", "AppsNotAList"),
    ] {
        let mut is_accepted = false;
        let error = parse_and_tell(body.as_bytes(), || is_accepted = true).expect_err(body);
        assert!(!is_accepted, "{body}");
        assert!(format!("{error:?}").starts_with(is_this), "{body}: {error:?}");
    }
    let mut is_accepted = false;
    assert!(parse_and_tell(b"{\"apps\":[]}", || is_accepted = true).is_ok() && is_accepted);
    let error = parse(b"{\"message\":\"no leader\"}").expect_err("an error");
    assert!(matches!(&error, DocumentError::NoApps(text) if text.contains("no leader")), "{error}");
}

#[test]
fn breakage_09_tasks_without_host_or_ports_have_no_address() {
    for change in [
        json!({ "host": "" }),
        json!({ "host": null }),
        json!({ "ports": [] }),
        json!({ "ports": null }),
    ] {
        let desired = look(&json!([app("/a", "a.test", &[with(task(1), change), task(2)])]));
        assert_plan(&desired, &["a.test = http://10.0.0.2:31000"]);
        let verdict = desired.apps["/a"].tasks[0].verdict.to_string();
        assert!(verdict.contains("no address"), "{verdict}");
    }
}

#[test]
fn breakage_15_ports_moved_between_versions() {
    for ports in [
        json!({ "ports": [10000] }),
        json!({ "portDefinitions": [{ "port": 10000 }] }),
        json!({ "container": { "docker": { "network": "BRIDGE", "portMappings": [{ "containerPort": 80, "hostPort": 0 }] } } }),
        json!({ "networks": [{ "mode": "container/bridge" }], "container": { "portMappings": [{ "containerPort": 80, "hostPort": 0 }] } }),
    ] {
        let desired = look(&json!([with(app("/a", "a.test", &[task(1)]), ports)]));
        assert_plan(&desired, &["a.test = http://10.0.0.1:31000"]);
    }
}

#[test]
fn breakage_16_to_18_null_is_as_good_as_missing() {
    let nulls = json!({ "container": null, "ipAddress": null, "networks": null, "portDefinitions": null,
        "ports": null, "healthChecks": null, "deployments": null, "readinessChecks": null });
    let docker = json!({ "container": { "docker": null, "portMappings": null } });
    let empty = json!({ "container": { "docker": { "portMappings": null } }, "ipAddress": {}, "networks": [], "labels2": 5 });
    for change in [nulls, docker, empty, json!({ "healthChecks": [{}] })] {
        let is_checked = change.get("healthChecks").is_some_and(Value::is_array);
        let desired = look(&json!([with(app("/a", "a.test", &[task(1)]), change)]));
        let up = "a.test = http://10.0.0.1:31000";
        assert_plan(&desired, &[if is_checked { "a.test = ? http://10.0.0.1:31000" } else { up }]);
        assert_eq!(desired.apps["/a"].problems, []);
    }
}

#[test]
fn breakage_19_one_bad_app_poisons_no_other() {
    let good = app("/good", "a.test", &[task(1)]);
    for bad in [
        json!(null),
        json!(7),
        json!([]),
        json!({}),
        json!({ "id": 5 }),
        json!({ "id": "/bad", "labels": 7 }),
        json!({ "id": "/bad", "labels": { "hipacheFrontend": ["x"] } }),
        json!({ "id": "/bad", "labels": { "hipacheFrontend": "http://x/" }, "tasks": "none" }),
    ] {
        let desired = look(&json!([bad, good]));
        assert_plan(&desired, &["a.test = http://10.0.0.1:31000"]);
    }
}

#[test]
fn breakage_20_hosts_are_trimmed_and_empty_ones_dropped() {
    let desired = look(&json!([app("/a", "a.test, b.test,,", &[])]));
    assert_plan(&desired, &["a.test =", "b.test ="]);
}

#[test]
fn breakage_21_two_apps_on_one_host_are_united_and_reported() {
    let desired =
        look(&json!([app("/b", "a.test", &[task(1)]), app("/a", "A.test", &[task(3), task(2)])]));
    assert_plan(
        &desired,
        &["a.test = http://10.0.0.2:31000 http://10.0.0.3:31000 http://10.0.0.1:31000"],
    );
    assert_eq!(desired.shared["a.test"], ["/a", "/b"]);
    assert_eq!(desired.plan["a.test"].apps, ["/a", "/b"]);
}

#[test]
fn breakage_22_a_task_that_is_killed_goes_at_once() {
    let killing = with(task(1), json!({ "state": "TASK_KILLING" }));
    let desired = look(&json!([app("/a", "a.test", &[killing, task(2)])]));
    assert_plan(&desired, &["a.test = http://10.0.0.2:31000"]);
    assert!(desired.evidence.explains("a.test", "http://10.0.0.1:31000/", &desired.plan));
}

#[test]
fn breakage_23_a_lost_agents_tasks_stay_while_they_are_listed() {
    let mut world = World::default();
    let unsure = "a.test = ? http://10.0.0.1:31000";
    let away = |ports: Value| {
        json!([app(
            "/a",
            "a.test",
            &[with(task(1), json!({ "state": "TASK_UNREACHABLE", "ports": ports }))]
        )])
    };
    assert_plan(
        &world.look(&json!([app("/a", "a.test", &[task(1)])])),
        &["a.test = http://10.0.0.1:31000"],
    );
    assert_plan(&world.look(&away(json!([31000]))), &[unsure]);
    // Inactive: its ports are not told any more, and are remembered.
    for ports in [json!([]), Value::Null] {
        let desired = world.look(&away(ports));
        assert_plan(&desired, &[unsure]);
        assert!(desired.apps["/a"].tasks[0].addresses[0].is_remembered);
    }
    let desired = world.look(&json!([app("/a", "a.test", &[])]));
    assert_plan(&desired, &["a.test ="]);
    let explained = desired.evidence.explains("a.test", "http://10.0.0.1:31000", &desired.plan);
    assert!(!explained, "it vanished, and the guard has to judge that");
    assert_plan(
        &world.look(&json!([app("/a", "a.test", &[task(1)])])),
        &["a.test = http://10.0.0.1:31000"],
    );
}

#[test]
fn breakage_24_and_25_neither_state_nor_task_id_are_counted_on() {
    let task = with(task(1), json!({ "id": "x.instance-0._app.1", "state": null }));
    assert_plan(&look(&json!([app("/a", "a.test", &[task])])), &["a.test = http://10.0.0.1:31000"]);
}

#[test]
fn breakage_30_a_worker_without_ports_has_no_backends() {
    let worker =
        with(app("/a", "a.test", &[with(task(1), json!({ "ports": [] }))]), json!({ "ports": [] }));
    let desired = look(&json!([worker]));
    assert_plan(&desired, &["a.test ="]);
    assert_eq!(desired.apps["/a"].state, AppState::Mapped);
}

#[test]
fn breakage_32_a_flapping_probe_is_obeyed_or_spared_as_chosen() {
    let apps = json!([checked(
        "/a",
        "a.test",
        &[with(task(1), json!({ "healthCheckResults": [dead(1)] }))]
    )]);
    let mut world = World::default();
    assert_plan(&world.look(&apps), &["a.test ="]);
    world.options.liveness.threshold =
        marathon_sync::rules::liveness::FailureThreshold::CheckMaximum;
    assert_plan(&world.look(&apps), &["a.test = http://10.0.0.1:31000"]);
}
