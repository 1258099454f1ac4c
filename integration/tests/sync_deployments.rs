//! Deployments that change where tasks listen, while tasks of the version before still serve.

#![allow(clippy::unwrap_used, reason = "a test, also in its helpers")]

use integration::eventually::{DEADLINE, wait_for};
use integration::marathon::{
    App, AppRef, Dialect, Fault, Marathon, Network, Place, Port, Route, Step,
};
use integration::redis::Redis;
use integration::sync::MarathonSync;
use serde_json::json;

const HOST: &str = "www.test";
const OLD: &str = "http://10.0.0.1:31001";

#[track_caller]
fn is_served_by(redis: &Redis, expected: &[&str]) {
    let mut last: Vec<String> = Vec::new();
    let found = wait_for(DEADLINE, || {
        last = redis.query(&["LRANGE", &format!("frontend:{HOST}"), "1", "-1"]);
        (last == expected).then_some(())
    });
    assert!(found.is_some(), "{last:?}, not {expected:?}");
}

/// `/web` with a public port and one for its administration.
fn web(marathon: &Marathon) -> AppRef {
    let ports = [Port::tcp(8080).named("web"), Port::tcp(8081).named("admin")];
    let app = marathon.app("/web").label("hipacheFrontend", HOST).ports(ports);
    app.running_at([Place::new("10.0.0.1", vec![31_001, 31_002])])
}

fn ports_change_places(app: &mut App) {
    app.ports.reverse();
    app.labels = [("hipacheFrontend.1".to_owned(), HOST.to_owned())].into();
}

fn moves_to_a_container_network(app: &mut App) {
    app.network = Network::Container("overlay".to_owned());
    app.ports = vec![Port::tcp(8080).named("web").unmapped()];
}

#[test]
fn task_of_the_version_before_keeps_its_address_until_it_ends() {
    let to_overlay = Place::new("10.0.0.2", Vec::new()).with_address("9.0.0.2");
    let to_other_port = Place::new("10.0.0.2", vec![32_001, 32_002]);
    type Change = fn(&mut App);
    let changes: [(Place, Change, &str); 2] = [
        (to_other_port, ports_change_places, "http://10.0.0.2:32002"),
        (to_overlay, moves_to_a_container_network, "http://9.0.0.2:8080"),
    ];
    for dialect in [Dialect::V1_3, Dialect::V1_9] {
        for (place, change, new) in changes.clone() {
            let (marathon, redis) = (Marathon::start(dialect), Redis::start());
            let app = web(&marathon);
            let sync = MarathonSync::start(&marathon, &redis);
            is_served_by(&redis, &[OLD]);
            marathon.wait_for_listeners(1);
            sync.wait_for_log(&["events from Marathon arrive"]);
            let mut rollout = app.roll_out([place], change);
            while !matches!(rollout.step(), Some(Step::Healthy(_))) {}
            is_served_by(&redis, &[OLD, new]);
            // Whoever starts only now has to ask what the older task was started from.
            let other = Redis::start();
            let late = MarathonSync::start(&marathon, &other);
            is_served_by(&other, &[OLD, new]);
            drop(late);
            rollout.finish();
            is_served_by(&redis, &[new]);
        }
    }
}

#[test]
fn definition_that_marathon_does_not_give_is_requested_again() {
    let (marathon, redis) = (Marathon::start(Dialect::V1_9), Redis::start());
    let app = web(&marathon);
    let mut rollout =
        app.roll_out([Place::new("10.0.0.2", vec![32_001, 32_002])], ports_change_places);
    while !matches!(rollout.step(), Some(Step::Healthy(_))) {}
    marathon.fail(Route::AppVersions, Fault::message(503, "Futures timed out"));
    let _sync = MarathonSync::builder(&marathon, &redis).args(&["--interval", "0.2"]).start();
    is_served_by(&redis, &["http://10.0.0.2:32002"]);
    marathon.wait_for_requests(Route::AppVersions, 2);
    is_served_by(&redis, &["http://10.0.0.2:32002"]);
    marathon.heal(Route::AppVersions);
    is_served_by(&redis, &["http://10.0.0.2:32002", OLD]);
}

/// Marathon 1.0 to 1.4 does so with resident tasks, at the agent where their volumes are.
#[test]
fn task_that_is_launched_again_under_its_id_is_listed_again() {
    let (marathon, redis) = (Marathon::start(Dialect::V1_3), Redis::start());
    let app = web(&marathon);
    let sync = MarathonSync::start(&marathon, &redis);
    is_served_by(&redis, &[OLD]);
    marathon.wait_for_listeners(1);
    sync.wait_for_log(&["events from Marathon arrive"]);
    let other = app.launch(Place::new("10.0.0.2", vec![32_001, 32_002]));
    other.run();
    is_served_by(&redis, &[OLD, "http://10.0.0.2:32001"]);
    for port in [31_001, 31_003, 31_003] {
        let task = app.tasks().into_iter().find(|task| task.id() != other.id()).unwrap();
        let ended = task.look().unwrap();
        task.kill();
        is_served_by(&redis, &["http://10.0.0.2:32001"]);
        app.launch_again(&ended, Place::new("10.0.0.1", vec![port, 31_002])).run();
        let again = format!("http://10.0.0.1:{port}");
        is_served_by(&redis, &["http://10.0.0.2:32001", &again]);
    }
}

/// Marathon may announce that a task runs before its lists show it.
#[test]
fn app_is_requested_until_it_shows_the_task_that_an_event_named() {
    let (marathon, redis) = (Marathon::start(Dialect::V1_9), Redis::start());
    drop(web(&marathon));
    let sync = MarathonSync::start(&marathon, &redis);
    is_served_by(&redis, &[OLD]);
    marathon.wait_for_listeners(1);
    sync.wait_for_log(&["events from Marathon arrive"]);
    let before = marathon.requests(Route::App);
    let status =
        json!({ "taskId": "web.instance-1._app.1", "taskStatus": "TASK_RUNNING", "appId": "/web" });
    marathon.emit("status_update_event", status);
    // The event itself is good for two.
    marathon.wait_for_requests(Route::App, before + 4);
}
