//! What holds for any document.

use marathon_sync::document::parse;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{World, alive, app, checked, dead, look, task, with};

/// Any JSON, mostly built of the keys and values that are looked at.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u16..3).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(TASK_RUNNING|a\\.test|10\\.0\\.0\\.1|container|BRIDGE|udp|\\*|.{0,8})"
            .prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "id",
        "labels",
        "hipacheFrontend",
        "tasks",
        "host",
        "ports",
        "state",
        "startedAt",
        "container",
        "docker",
        "network",
        "networks",
        "mode",
        "portMappings",
        "containerPort",
        "hostPort",
        "name",
        "portDefinitions",
        "ipAddress",
        "discovery",
        "ipAddresses",
        "healthChecks",
        "healthCheckResults",
        "alive",
        "deployments",
        "consecutiveFailures",
        "readinessChecks",
        "readinessCheckResults",
        "instances",
        "tasksRunning",
    ]);
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..8).prop_map(|pairs| pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect()),
        ]
    })
}

/// Some good apps, two of them on one host.
fn good() -> Vec<Value> {
    let sick = |n| with(task(n), json!({ "healthCheckResults": [dead(1)] }));
    let well = |n| with(task(n), json!({ "healthCheckResults": [alive()] }));
    vec![
        app("/a", "a.test,shared.test", &[task(1), task(2)]),
        checked("/b", "shared.test", &[well(3), sick(4), task(5)]),
        app("/c", "c.test", &[with(task(6), json!({ "state": "TASK_UNREACHABLE" }))]),
    ]
}

proptest! {
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _answer = parse(&body);
    }

    #[test]
    fn no_json_panics_with_any_options(apps in prop::collection::vec(any_json(), 0..6)) {
        let mut world = World::default();
        world.options.labels.groups = vec!["*".to_owned()];
        world.options.labels.traefik = true;
        world.options.liveness.readiness = true;
        for _again in 0..2 {
            let _desired = world.look(&json!(apps));
        }
    }

    #[test]
    fn one_garbage_app_changes_nothing_for_the_others(garbage in any_json(), at in 0_usize..=3) {
        let before = look(&json!(good()));
        let mut apps = good();
        apps.insert(at, garbage);
        let after = look(&json!(apps));
        for (host, wanted) in &before.plan {
            let now = &after.plan[host];
            if now.apps == wanted.apps {
                prop_assert_eq!(&now.up, &wanted.up);
            } else {
                prop_assert!(wanted.up.iter().all(|url| now.up.contains(url)));
            }
        }
    }

    #[test]
    fn the_plan_is_independent_of_the_order_of_apps_and_tasks(
        order in Just(good()).prop_shuffle(), turn in any::<bool>()
    ) {
        let mut order = order;
        for app in &mut order {
            if turn && let Some(tasks) = app["tasks"].as_array_mut() {
                tasks.reverse();
            }
        }
        prop_assert_eq!(look(&json!(order)).plan, look(&json!(good())).plan);
    }

    #[test]
    fn a_garbage_task_harms_no_other_task(garbage in any_json(), at in 0_usize..=2) {
        let mut tasks = vec![task(1), task(2)];
        tasks.insert(at, garbage);
        let plan = look(&json!([app("/a", "a.test", &tasks)])).plan;
        for n in 1..=2 {
            let url = format!("http://10.0.0.{n}:31000");
            prop_assert!(plan["a.test"].up.contains(&url));
        }
    }
}
