//! What cannot be read keeps what it had, and no more than that.

use marathon_sync::rules::report::AppState;
use serde_json::{Value, json};

use crate::world::{World, app, assert_plan, task, with};

const KEPT: &str = "a.test = ? http://10.0.0.1:31000";

fn broken() -> Vec<Value> {
    let app = app("/a", "a.test", &[task(1)]);
    [
        json!({ "labels": 7 }),
        json!({ "labels": { "hipacheFrontend": 7 } }),
        json!({ "labels": { "hipacheFrontend": "http://x/" } }),
        json!({ "labels": { "hipacheFrontend.9": "x" }, "ports": [1] }),
        json!({ "tasks": {"a": 1} }),
        json!({ "networks": 5 }),
        json!({ "container": { "portMappings": [7] } }),
        json!({ "portDefinitions": "x" }),
    ]
    .map(|change| with(app.clone(), change))
    .to_vec()
}

#[test]
fn a_broken_app_keeps_what_it_had_until_it_can_be_read() {
    for bad in broken() {
        let mut world = World::default();
        let good = json!([app("/a", "a.test", &[task(1)])]);
        let _up = world.look(&good);
        for _again in 0..3 {
            let desired = world.look(&json!([bad]));
            assert_plan(&desired, &[KEPT]);
            assert!(!matches!(desired.apps["/a"].state, AppState::Mapped), "{bad}");
        }
        assert_plan(&world.look(&good), &["a.test = http://10.0.0.1:31000"]);
    }
}

#[test]
fn an_app_that_is_twice_in_the_answer_or_lost_its_id_keeps_what_it_had() {
    let mut world = World::default();
    let good = app("/a", "a.test", &[task(1)]);
    let _up = world.look(&json!([good]));
    assert_plan(&world.look(&json!([good, good])), &[KEPT]);
    let desired = world.look(&json!([with(good.clone(), json!({ "id": null }))]));
    assert_plan(&desired, &[KEPT]);
    assert!(desired.evidence.blind.is_some());
    let _new = world.seen.deleted.insert("/a".to_owned());
    assert_plan(&world.look(&json!([with(good, json!({ "id": null }))])), &[]);
}

#[test]
fn quarantine_does_not_keep_what_is_positively_over() {
    let killing = with(task(1), json!({ "state": "TASK_KILLING" }));
    for bad in [app("/a", "http://x/", &[killing]), app("/a", "http://x/", &[])] {
        let mut world = World::default();
        let _up = world.look(&json!([app("/a", "a.test", &[task(1), task(2)])]));
        let _new = world.seen.ended.insert("t.1".to_owned());
        assert_plan(&world.look(&json!([bad])), &["a.test = ? http://10.0.0.2:31000"]);
    }
}

#[test]
fn what_redis_listed_at_the_start_counts_as_the_past() {
    let url = vec!["http://10.0.0.1:31000".to_owned()];
    for bad in broken() {
        let mut world = World::default();
        world.memory.restore("a.test", "a", &[("/a".to_owned(), url.clone())].into());
        assert_plan(&world.look(&json!([bad])), &[KEPT]);
    }
    let mut world = World::default();
    world.memory.restore_host("a.test", url);
    assert_plan(
        &world.look(&json!([with(app("/a", "a.test", &[]), json!({ "tasks": null }))])),
        &[KEPT],
    );
}

#[test]
fn an_unreadable_task_costs_neither_the_others_nor_its_own_place() {
    let mut world = World::default();
    let _up = world.look(&json!([app("/a", "a.test", &[task(1), task(2)])]));
    for bad in [
        json!("x"),
        json!({ "id": 7 }),
        with(task(1), json!({ "host": 7, "ports": null })),
        with(task(1), json!({ "ports": "x" })),
    ] {
        let desired = world.look(&json!([app("/a", "a.test", &[bad, task(2)])]));
        assert_plan(&desired, &["a.test = http://10.0.0.2:31000 ? http://10.0.0.1:31000"]);
        assert!(!desired.apps["/a"].problems.is_empty());
    }
}

#[test]
fn an_address_that_another_app_has_now_is_not_kept_on_doubt() {
    let other = |labels: Value| json!({ "id": "/b", "labels": labels, "tasks": [with(task(1), json!({ "id": "b.1" }))] });
    let away = with(task(1), json!({ "state": "TASK_UNREACHABLE" }));
    let a = app("/a", "a.test", &[away]);
    let mut world = World::default();
    assert_plan(&world.look(&json!([a])), &[KEPT]);
    // Whether the other app is routed or not.
    let desired = world.look(&json!([a, other(json!({}))]));
    assert_plan(&desired, &["a.test ="]);
    assert_eq!(desired.apps["/a"].taken, ["http://10.0.0.1:31000"]);
    assert!(desired.evidence.explains("a.test", "http://10.0.0.1:31000", &desired.plan));
}
