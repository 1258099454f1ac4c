//! One app with two tasks, as ten years of Marathon tell it: the plan is the same.

use crate::world::{World, assert_plan};

const DIALECTS: &[(&str, &str)] = &[
    ("0.8.1", include_str!("../fixtures/v0_8_1.json")),
    ("0.8.2", include_str!("../fixtures/v0_8_2.json")),
    ("1.1", include_str!("../fixtures/v1_1.json")),
    ("1.4", include_str!("../fixtures/v1_4.json")),
    ("1.5", include_str!("../fixtures/v1_5.json")),
    ("1.6", include_str!("../fixtures/v1_6.json")),
    ("1.9", include_str!("../fixtures/v1_9.json")),
];

#[test]
fn every_dialect_gives_the_same_plan() {
    for (version, document) in DIALECTS {
        let desired = World::default().read(document);
        // The second task has no result yet, each version in its own way.
        assert_plan(&desired, &["www.shop.test = http://10.1.0.1:31001 ? http://10.1.0.2:31003"]);
        assert_eq!(desired.plan["www.shop.test"].identifier, "www", "{version}");
        assert_eq!(desired.plan["www.shop.test"].apps, ["/shop/web"], "{version}");
        assert_eq!(desired.apps["/shop/web"].problems, [], "{version}");
    }
}

/// Marathon's results vanish when another leader takes over: absent, `null`, `[null]` or `[]`.
#[test]
fn every_dialect_keeps_the_last_health_when_results_vanish() {
    for (version, document) in DIALECTS {
        let mut world = World::default();
        let before = world.read(document);
        let mut value: serde_json::Value = serde_json::from_str(document).expect("JSON");
        for results in [serde_json::Value::Null, serde_json::json!([null]), serde_json::json!([])] {
            value["apps"][0]["tasks"][0]["healthCheckResults"] = results;
            assert_eq!(world.read(&value.to_string()).plan, before.plan, "{version}");
        }
    }
}
