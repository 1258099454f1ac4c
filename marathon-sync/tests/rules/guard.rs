//! Which removals are believed.

use std::collections::BTreeMap;
use std::time::Duration;

use marathon_sync::guard::{Guard, Judged, Limits};
use marathon_sync::plan::Plan;
use marathon_sync::rules::Desired;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{World, app, task};

type Owned = BTreeMap<String, Vec<String>>;

/// An app of ten tasks on `a.test`, without those that are named.
fn ten_without(gone: &[u32]) -> Value {
    let tasks: Vec<_> = (1..=10).filter(|n| !gone.contains(n)).map(task).collect();
    json!([app("/a", "a.test", &tasks)])
}

/// What Redis holds after `plan` was carried out.
fn carried_out(plan: &Plan, before: &Owned) -> Owned {
    let rows = |(host, wanted): (&String, &marathon_sync::plan::Wanted)| {
        let listed = before.get(host).into_iter().flatten();
        let kept = listed.filter(|url| wanted.unsure.contains(url) || wanted.up.contains(url));
        let mut rows: Vec<String> = kept.cloned().collect();
        rows.extend(
            wanted.up.iter().filter(|url| !rows.contains(url)).cloned().collect::<Vec<_>>(),
        );
        (host.clone(), rows)
    };
    plan.iter().map(rows).filter(|(_, rows)| !rows.is_empty()).collect()
}

/// A guard, what Redis holds, and what Marathon says.
struct Scene {
    world: World,
    guard: Guard,
    owned: Owned,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self {
            world: World::default(),
            guard: Guard::new(Limits::default()),
            owned: Owned::new(),
        };
        let first = scene.judge(&ten_without(&[]), 0);
        scene.owned = carried_out(&first.plan, &scene.owned);
        assert_eq!(scene.count(), 10);
        scene
    }

    fn judge(&mut self, apps: &Value, second: u64) -> Judged {
        let Desired { plan, evidence, .. } = self.world.look(apps);
        self.guard.judge(&self.owned, plan, &evidence, Duration::from_secs(second))
    }

    /// The number of rows that are left, and whether something is held back.
    fn step(&mut self, apps: &Value, second: u64) -> (usize, bool) {
        let judged = self.judge(apps, second);
        self.owned = carried_out(&judged.plan, &self.owned);
        (self.count(), judged.held.is_some())
    }

    fn count(&self) -> usize {
        self.owned.values().map(Vec::len).sum()
    }
}

#[test]
fn little_that_vanishes_is_believed_at_once() {
    let mut scene = Scene::new();
    assert_eq!(scene.step(&ten_without(&[1, 2, 3, 4, 5]), 1), (5, false));
}

#[test]
fn much_that_vanishes_needs_three_answers_over_thirty_seconds() {
    for apps in [json!([]), ten_without(&[1, 2, 3, 4, 5, 6])] {
        let mut scene = Scene::new();
        let judged = scene.judge(&apps, 10);
        let held = judged.held.expect("it is held back");
        assert_eq!((held.until, held.observations_left), (Duration::from_secs(40), 2));
        assert!(held.reason.contains("nothing says why"), "{}", held.reason);
        assert_eq!(scene.step(&apps, 11), (10, true), "two answers");
        assert_eq!(scene.step(&apps, 39), (10, true), "29 seconds");
        let (left, is_held) = scene.step(&apps, 40);
        assert!(left < 5 && !is_held);
    }
}

#[test]
fn two_answers_are_too_few_however_long_they_take() {
    let mut scene = Scene::new();
    assert_eq!(scene.step(&json!([]), 10), (10, true));
    assert_eq!(scene.step(&json!([]), 1000), (10, true));
    assert_eq!(scene.step(&json!([]), 1001), (0, false));
}

#[test]
fn a_host_that_vanishes_stays_with_nothing_up_while_it_is_held() {
    let mut scene = Scene::new();
    let judged = scene.judge(&json!([]), 10);
    let wanted = &judged.plan["a.test"];
    assert_eq!((wanted.up.len(), wanted.unsure.len()), (0, 10));
}

#[test]
fn what_comes_back_begins_anew() {
    let mut scene = Scene::new();
    assert_eq!(scene.step(&json!([]), 10), (10, true));
    assert_eq!(scene.step(&json!([]), 20), (10, true));
    assert_eq!(scene.step(&ten_without(&[]), 30), (10, false));
    assert_eq!(scene.step(&json!([]), 41), (10, true));
    // Half of it is back, and the other half still has to be confirmed.
    assert_eq!(scene.step(&ten_without(&[1, 2]), 42), (10, true));
    assert_eq!(scene.step(&ten_without(&[1, 2]), 71), (8, false));
}

#[test]
fn many_small_steps_are_one_large_one() {
    let mut scene = Scene::new();
    assert_eq!(scene.step(&ten_without(&[1, 2, 3]), 1), (7, false));
    assert_eq!(scene.step(&ten_without(&[1, 2, 3, 4, 5]), 2), (5, false));
    assert_eq!(scene.step(&ten_without(&[1, 2, 3, 4, 5, 6]), 3), (5, true));
}

#[test]
fn positive_evidence_needs_no_confirmation() {
    // Tasks that events call ended, whether they are still listed or not.
    for apps in [ten_without(&[]), ten_without(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10])] {
        let mut scene = Scene::new();
        scene.world.seen.ended = (1..=10).map(|n| format!("t.{n}")).collect();
        assert_eq!(scene.step(&apps, 1), (0, false));
    }
    // An app that was deleted.
    let mut scene = Scene::new();
    let _new = scene.world.seen.deleted.insert("/a".to_owned());
    assert_eq!(scene.step(&json!([]), 1), (0, false));
    // Tasks that the answer calls terminal or killing.
    let mut scene = Scene::new();
    let mut apps = ten_without(&[]);
    for (n, state) in ["TASK_KILLING", "TASK_FAILED"].iter().cycle().take(10).enumerate() {
        apps[0]["tasks"][n]["state"] = json!(state);
    }
    assert_eq!(scene.step(&apps, 1), (0, false));
    // Addresses that another app's tasks have now.
    let mut scene = Scene::new();
    let mut apps = ten_without(&[]);
    apps[0]["id"] = json!("/b");
    apps[0]["labels"] = json!({});
    assert_eq!(scene.step(&apps, 1), (0, false));
}

#[test]
fn a_removal_whose_write_failed_needs_no_second_confirmation() {
    let mut scene = Scene::new();
    for second in [10, 25, 40, 41] {
        let held = scene.judge(&json!([]), second).held;
        assert_eq!(held.is_some(), second < 40, "{second}");
    }
}

#[test]
fn blindness_asks_for_confirmation_of_little_too() {
    let mut scene = Scene::new();
    let apps = json!([ten_without(&[1])[0], { "nothing": "known" }]);
    assert_eq!(scene.step(&apps, 1), (10, true));
}

proptest! {
    #[test]
    fn one_observation_never_takes_more_than_is_allowed(
        answers in proptest::collection::vec((proptest::collection::vec(any::<bool>(), 10), 0_u64..3), 1..12)
    ) {
        let mut scene = Scene::new();
        let mut now = 0;
        for (listed, pause) in answers {
            now += pause;
            let gone: Vec<u32> = (1_u32..).zip(&listed).filter(|(_, is_in)| !**is_in).map(|(n, _)| n).collect();
            let before = scene.owned.clone();
            let _left = scene.step(&ten_without(&gone), now);
            let removed = before.get("a.test").into_iter().flatten()
                .filter(|url| !scene.owned.get("a.test").is_some_and(|rows| rows.contains(url))).count();
            let total = before.values().map(Vec::len).sum::<usize>();
            // All answers lie within 30 seconds: nothing can be confirmed.
            prop_assert!(removed <= 3 || removed * 2 <= total, "{removed} of {total}");
            prop_assert!(scene.count() > 0);
        }
    }
}
