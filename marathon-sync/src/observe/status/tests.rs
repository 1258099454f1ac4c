use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::testing::{at, facts, failure, observed, pass, standby};
use super::{AppDetail, Status};
use crate::agent::state::{AnswerSeen, Changes, Stream};
use crate::pass::Occasion;
use crate::routes::lease::Problem;
use crate::rules::report::AppState;

fn document(change: impl FnOnce(&mut super::Facts)) -> Value {
    let observed = observed();
    let mut facts = facts();
    change(&mut facts);
    serde_json::to_value(Status::of(&observed.identity, &facts, at(10))).expect("a document")
}

#[test]
fn who_writes_what_is_heard_and_what_failed_is_told() {
    let document = document(|facts| {
        facts.view.standing = standby();
        facts.view.stream = Stream::Lost { since: at(5), reason: "closed".into() };
        facts.view.answer_failed = failure("no answer");
        facts.view.passed = Some((at(9), Occasion::Again));
        facts.view.answer = Some(AnswerSeen {
            at: at(8),
            endpoint: "http://m.test:8080".to_owned(),
            leader: Some("m.test:8080".to_owned()),
            duration: Duration::from_millis(250),
            bytes: 100,
            apps: 4,
        });
        facts.view.changes = Changes {
            at: Some(at(9)),
            is_written: true,
            lines: Arc::from(["ab.test: update".to_owned()]),
            count: 7,
            failed: Arc::from([]),
        };
    });
    for (pointer, expected) in [
        ("/version", json!(env!("CARGO_PKG_VERSION"))),
        ("/instance", json!("default")),
        ("/process", json!("host/17")),
        ("/started", json!({"at": "2023-11-14T22:13:20Z", "seconds_ago": 10})),
        ("/ready", json!(true)),
        ("/not_ready", Value::Null),
        ("/lease", json!({"standing": "standby", "leader": "other/9"})),
        ("/redis", json!({"connected": false, "failing": null})),
        ("/marathon/endpoints/0", json!("http://marathon.test:8080")),
        ("/marathon/events/connected", json!(false)),
        ("/marathon/events/reason", json!("closed")),
        ("/marathon/failing/times", json!(2)),
        ("/marathon/failing/last", json!("no answer")),
        ("/marathon/last_answer/leader", json!("m.test:8080")),
        ("/marathon/last_answer/fetch_seconds", json!(0.25)),
        ("/last_success/seconds_ago", json!(10)),
        ("/last_pass/occasion", json!("the last answer again")),
        ("/last_difference/count", json!(7)),
        ("/last_difference/lines", json!(["ab.test: update"])),
    ] {
        assert_eq!(document.pointer(pointer), Some(&expected), "{pointer}\n{document:#}");
    }
}

#[test]
fn a_full_redis_is_told_with_its_time() {
    let document = document(|facts| facts.view.lease_problem = Some((at(4), Problem::Full)));
    let problem = document.pointer("/redis/problem").expect("a problem");
    assert_eq!(problem["since"]["seconds_ago"], json!(6));
    assert!(problem["text"].to_string().contains("Redis is full"), "{problem}");
    assert_eq!(document["ready"], json!(true));
}

#[test]
fn each_app_is_listed_with_its_reason_and_each_host_that_is_shared() {
    let document = document(|_| {});
    for (pointer, expected) in [
        ("/sums/apps/quarantined", json!(1)),
        ("/sums/backends", json!({"up": 2, "unsure": 2, "held": 1})),
        ("/sums/hosts", json!({"claimed": 3, "shared": 1})),
        ("/shared_hosts/shown/0/host", json!("ab.test")),
        ("/shared_hosts/shown/0/apps/shown", json!(["/a", "/b"])),
        ("/held/until", json!(at(60).to_string())),
        ("/held/observations_left", json!(2)),
        ("/held/hosts/shown/0", json!(["held.test", ["http://10.0.0.9:80"]])),
        ("/apps/mapped/shown/0/tasks", json!({"up": 1, "unsure": 0, "down": 1})),
        ("/apps/mapped/shown/0/hosts/shown", json!(["ab.test"])),
        ("/apps/mapped/shown/0/refused/shown/0/label", json!("HAPROXY_0_PATH")),
        ("/apps/mapped_in_part/shown/0/reason", json!("1 of its tasks cannot be read")),
        (
            "/apps/quarantined/shown/0",
            json!({
                "id": "/q",
                "reason": "`labels` is not an object",
                "problems": {"count": 1, "shown": ["`labels`: a number"]},
            }),
        ),
        (
            "/apps/skipped/shown/0",
            json!({"id": "/s", "reason": "it has no label `hipacheFrontend` with a host"}),
        ),
    ] {
        assert_eq!(document.pointer(pointer), Some(&expected), "{pointer}\n{document:#}");
    }
}

#[test]
fn before_the_first_answer_there_is_a_document_too() {
    let document = document(|facts| {
        facts.view.pass = None;
        facts.view.succeeded = None;
    });
    assert_eq!(document["ready"], json!(false));
    assert_eq!(document["not_ready"], json!("no pass has succeeded since the start"));
    assert_eq!(document["apps"]["mapped"], json!({"count": 0, "shown": []}));
    assert_eq!(document["sums"], Value::Null);
}

#[test]
fn long_lists_are_counted_and_shown_in_part() {
    let document = document(|facts| {
        let mut pass = pass();
        let skipped = pass.apps.remove("/s").expect("an app");
        for number in 0..5001 {
            let reason = AppState::Skipped("x".to_owned());
            let app = crate::rules::report::AppReport { state: reason, ..(*skipped).clone() };
            pass.apps.insert(format!("/s/{number}"), app.into());
        }
        facts.view.pass = Some(Arc::new(pass));
    });
    let skipped = &document["apps"]["skipped"];
    assert_eq!(skipped["count"], json!(5001));
    assert_eq!(skipped["shown"].as_array().map(Vec::len), Some(5000));
}

#[test]
fn the_document_of_an_app_says_how_each_address_was_chosen() {
    let pass = pass();
    let app = pass.apps.get("/b").expect("an app");
    let document = serde_json::to_value(AppDetail::of("/b", app)).expect("a document");
    let tasks = json!([
        {
            "id": "b.1",
            "verdict": "up",
            "reason": null,
            "addresses": [{
                "port": "port 0",
                "url": "http://10.0.0.3:80",
                "how": "the task's host and its ports[0]",
                "remembered": false,
            }],
        },
        {
            "id": "b.2",
            "verdict": "unsure",
            "reason": "its health is not known yet",
            "addresses": [{
                "port": "port 0",
                "url": null,
                "how": "Marathon does not say on which host it runs",
                "remembered": false,
            }],
        },
    ]);
    assert_eq!(document["tasks"], json!({"count": 2, "shown": tasks}));
    assert_eq!(document["state"], json!("mapped_in_part"));
    let claim = &document["claims"]["shown"][1];
    assert_eq!((&claim["host"], &claim["scheme"]), (&json!("b.test"), &json!("http")));
}
