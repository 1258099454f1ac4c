//! Which tasks are live.

use marathon_sync::rules::Policy;
use marathon_sync::rules::liveness::{FailureThreshold, HealthRule, Options};
use serde_json::{Value, json};

use crate::world::{World, alive, app, assert_plan, checked, dead, grace, lines, task, with};

const UP: &str = "a.test = http://10.0.0.1:31000";
const UNSURE: &str = "a.test = ? http://10.0.0.1:31000";
const DOWN: &str = "a.test =";

/// What becomes of the only task of an app with two health checks.
fn judged(results: &Value, options: &Options) -> String {
    let mut world = World::default();
    world.options.liveness = options.clone();
    let mut app =
        checked("/a", "a.test", &[with(task(1), json!({ "healthCheckResults": results }))]);
    app["healthChecks"] = json!([{ "protocol": "HTTP" }, { "protocol": "COMMAND" }]);
    lines(&world.look(&json!([app])).plan).join("")
}

#[test]
fn states_decide_first() {
    let keep = Options::default();
    let up = Options { unreachable: Policy::Up, ..Options::default() };
    let out = Options { unreachable: Policy::Down, ..Options::default() };
    for (state, options, expected) in [
        (json!("TASK_RUNNING"), &keep, UP),
        (json!("TASK_UNREACHABLE"), &keep, UNSURE),
        (json!("TASK_LOST"), &keep, UNSURE),
        (json!("TASK_UNREACHABLE"), &up, UP),
        (json!("TASK_LOST"), &out, DOWN),
        (json!("TASK_KILLING"), &keep, DOWN),
        (json!("TASK_STAGING"), &keep, DOWN),
        (json!("TASK_STARTING"), &keep, DOWN),
        (json!("TASK_FINISHED"), &keep, DOWN),
        (json!("TASK_GONE_BY_OPERATOR"), &keep, DOWN),
        (json!("TASK_SOMETHING_NEW"), &keep, DOWN),
        (Value::Null, &keep, UP),
        (json!(7), &keep, UNSURE),
    ] {
        let mut world = World::default();
        world.options.liveness = options.clone();
        let task = with(task(1), json!({ "state": state }));
        assert_plan(&world.look(&json!([app("/a", "a.test", &[task])])), &[expected]);
    }
    let waiting = with(task(1), json!({ "state": null, "startedAt": null }));
    assert_plan(&World::default().look(&json!([app("/a", "a.test", &[waiting])])), &[DOWN]);
}

#[test]
fn health_has_three_values() {
    let rule = |health| Options { health, ..Options::default() };
    let (all, any, first) = (rule(HealthRule::All), rule(HealthRule::Any), rule(HealthRule::First));
    for (results, expected) in [
        (json!([alive(), alive()]), [UP, UP, UP]),
        (json!([alive(), dead(1)]), [DOWN, UP, UP]),
        (json!([dead(1), alive()]), [DOWN, UP, DOWN]),
        (json!([dead(1), dead(1)]), [DOWN, DOWN, DOWN]),
        (json!([alive()]), [UNSURE, UP, UP]),
        (json!([dead(1)]), [DOWN, UNSURE, DOWN]),
        (json!([grace(), alive()]), [UNSURE, UP, UNSURE]),
        (json!([null, alive()]), [UNSURE, UP, UNSURE]),
        (json!(["?", 7]), [UNSURE, UNSURE, UNSURE]),
        (json!([]), [UNSURE, UNSURE, UNSURE]),
        (Value::Null, [UNSURE, UNSURE, UNSURE]),
    ] {
        let found = [&all, &any, &first].map(|options| judged(&results, options));
        assert_eq!(found, expected, "{results}");
    }
}

/// Why the health of the only task of an app with two health checks is not known.
#[test]
fn checks_that_have_reported_are_counted() {
    for (results, expected) in [
        (json!([alive()]), "unsure: 1 of 2 checks has reported"),
        (json!([grace(), alive()]), "unsure: 1 of 2 checks has reported"),
        (json!([null, alive()]), "unsure: 1 of 2 checks has reported"),
        (json!([grace(), grace()]), "unsure: its health is not known yet"),
        (json!([]), "unsure: its health is not known yet"),
    ] {
        let task = with(task(1), json!({ "healthCheckResults": results }));
        let mut app = checked("/a", "a.test", &[task]);
        app["healthChecks"] = json!([{ "protocol": "HTTP" }, { "protocol": "COMMAND" }]);
        let desired = World::default().look(&json!([app]));
        assert_eq!(desired.apps["/a"].tasks[0].verdict.to_string(), expected, "{results}");
    }
}

#[test]
fn a_threshold_spares_tasks_that_failed_once() {
    let from = |threshold| Options { threshold, ..Options::default() };
    for (failures, options, expected) in [
        (1, from(FailureThreshold::Failures(1)), DOWN),
        (1, from(FailureThreshold::Failures(2)), UP),
        (2, from(FailureThreshold::Failures(2)), DOWN),
        (2, from(FailureThreshold::CheckMaximum), UP),
        (3, from(FailureThreshold::CheckMaximum), DOWN),
    ] {
        assert_eq!(
            judged(&json!([alive(), dead(failures)]), &options),
            expected,
            "{failures} {options:?}"
        );
    }
}

#[test]
fn unknown_health_follows_the_option_and_its_grace() {
    let unknown = |unknown_health| Options { unknown_health, ..Options::default() };
    assert_eq!(judged(&json!([]), &unknown(Policy::Keep)), UNSURE);
    assert_eq!(judged(&json!([]), &unknown(Policy::Up)), UP);
    assert_eq!(judged(&json!([]), &unknown(Policy::Down)), DOWN);
    // The task has run for twelve hours.
    for (hours, expected) in [(11, UP), (13, UNSURE)] {
        let grace = Some(jiff::SignedDuration::from_hours(hours));
        let options = Options { unknown_health_grace: grace, ..Options::default() };
        assert_eq!(judged(&json!([]), &options), expected);
    }
}

#[test]
fn readiness_holds_new_tasks_back_during_a_deployment() {
    let new = "2020-01-01T11:00:00.000Z";
    let recent = "2020-01-01T11:59:50.000Z";
    let ready = |ready: bool| json!([{ "taskId": "t.1", "ready": ready }]);
    for (what, version, started, deployments, results, wants, expected) in [
        ("not ready", new, recent, json!([{ "id": "d" }]), ready(false), true, UNSURE),
        ("ready", new, recent, json!([{ "id": "d" }]), ready(true), true, UP),
        ("not asked yet", new, recent, json!([{ "id": "d" }]), json!([]), true, UNSURE),
        ("long past", new, "2020-01-01T11:59:45.000Z", json!([{ "id": "d" }]), json!([]), true, UP),
        (
            "an old task",
            "2019-01-01T00:00:00.000Z",
            recent,
            json!([{ "id": "d" }]),
            json!([]),
            true,
            UP,
        ),
        ("no deployment", new, recent, json!([]), ready(false), true, UP),
        ("not wanted", new, recent, json!([{ "id": "d" }]), ready(false), false, UP),
    ] {
        let mut world = World::default();
        world.options.liveness.readiness = wants;
        let task = with(task(1), json!({ "version": version, "startedAt": started }));
        let app = with(
            app("/a", "a.test", &[task]),
            // An older task is read by its own definition, which differs in the number of instances only.
            json!({ "version": new, "versionInfo": { "lastConfigChangeAt": "2018-01-01T00:00:00.000Z" },
            "deployments": deployments, "readinessChecks": [{ "timeoutSeconds": 10 }], "readinessCheckResults": results }),
        );
        assert_eq!(lines(&world.look(&json!([app])).plan), [expected], "{what}");
    }
}

/// Marathon 1.0 to 1.4 launches a resident task that ended again under its id.
#[test]
fn task_that_runs_again_under_its_id_is_judged_anew() {
    let first = with(task(1), json!({ "healthCheckResults": [alive()] }));
    let started = with(first.clone(), json!({ "startedAt": "2020-01-01T01:00:00.000Z" }));
    let moved = with(first.clone(), json!({ "ports": [31002] }));
    let with_old_url = "a.test = ? http://10.0.0.1:31000";
    for (what, again, url, unknown) in [
        ("another start", started, "http://10.0.0.1:31000", with_old_url),
        ("other ports", moved, "http://10.0.0.1:31002", "a.test = ? http://10.0.0.1:31002"),
    ] {
        let look = |world: &mut World, task: &Value| {
            let checked = checked("/a", "a.test", std::slice::from_ref(task));
            lines(&world.look(&json!([checked])).plan)
        };
        // Without the event, too, its health is not that of its last life.
        let mut world = World::default();
        assert_eq!(look(&mut world, &first), [UP]);
        let sick_or_well = with(again.clone(), json!({ "healthCheckResults": [] }));
        assert_eq!(look(&mut world, &sick_or_well), [unknown], "{what}");
        assert_eq!(look(&mut world, &again), [format!("a.test = {url}")], "{what}");

        let mut world = World::default();
        let _before = look(&mut world, &first);
        let _new = world.seen.ended.insert("t.1".to_owned());
        for _again in 0..2 {
            assert_eq!(look(&mut world, &first), [DOWN], "an answer that is behind the event");
        }
        for _again in 0..2 {
            assert_eq!(look(&mut world, &again), [format!("a.test = {url}")], "{what}");
        }
    }
}

#[test]
fn an_event_is_ahead_of_the_answer() {
    let mut world = World::default();
    let apps = json!([app("/a", "a.test", &[task(1)])]);
    assert_plan(&world.look(&apps), &[UP]);
    let _new = world.seen.ended.insert("t.1".to_owned());
    assert_plan(&world.look(&apps), &[DOWN]);
}

#[test]
fn a_sick_app_keeps_its_tasks_when_asked_to() {
    let sick = |n| with(task(n), json!({ "healthCheckResults": [dead(1)] }));
    let apps = json!([checked(
        "/a",
        "a.test",
        &[sick(1), with(sick(2), json!({ "state": "TASK_KILLING" }))]
    )]);
    let mut world = World::default();
    assert_plan(&world.look(&apps), &[DOWN]);
    world.options.liveness.keep_all_sick = true;
    assert_plan(&world.look(&apps), &[UNSURE]);
}

#[test]
fn memory_holds_the_tasks_of_the_last_answer_alone() {
    let mut world = World::default();
    let _plan = world.look(&json!([app("/a", "a.test", &[task(1), task(2)])]));
    assert_eq!(world.memory.sizes(), (2, 1));
    let _plan = world.look(&json!([app("/a", "a.test", &[task(2)])]));
    assert_eq!(world.memory.sizes(), (1, 1));
}
