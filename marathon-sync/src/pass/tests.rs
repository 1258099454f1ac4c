//! Passes over small clusters.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::document::parse;
use crate::guard::Limits;
use crate::routes::change::Action;
use crate::routes::owned::Owned;

/// An agent with a Redis of its own.
struct World {
    state: State,
    seen: Seen,
    redis: Snapshot,
    second: u64,
}

impl World {
    fn new() -> Self {
        let guard = Guard::new(Limits::default());
        let state = State { memory: Memory::default(), guard };
        Self { state, seen: Seen::default(), redis: Snapshot::default(), second: 0 }
    }

    fn look(&mut self, apps: &Value, occasion: Occasion) -> Pass {
        let answer = parse(json!({ "apps": apps }).to_string().as_bytes()).unwrap();
        self.second += 10;
        let now = Now {
            occasion,
            wall: Timestamp::from_second(1_600_000_000).unwrap(),
            clock: Duration::from_secs(self.second),
        };
        let options = Options::default();
        let pass = pass(&answer, &mut self.state, &options, &self.seen, &self.redis, now);
        self.write(&pass);
        pass
    }

    fn write(&mut self, pass: &Pass) {
        for change in &pass.difference.changes {
            let host = change.host.clone();
            match &change.owned {
                Some(owned) => drop(self.redis.owned.insert(host.clone(), owned.clone())),
                None => drop(self.redis.owned.remove(&host)),
            }
            let list = change.after();
            if list.is_empty() {
                drop(self.redis.lists.remove(&host));
            } else {
                drop(self.redis.lists.insert(host, Ok(list)));
            }
        }
    }

    fn list(&self, host: &str) -> Vec<String> {
        let list = self.redis.lists.get(host).map(|list| list.as_ref().unwrap().as_slice());
        texts(list.unwrap_or_default()).collect()
    }
}

fn app(id: &str, host: &str, tasks: impl IntoIterator<Item = u32>) -> Value {
    let task = |n: u32| {
        json!({ "id": format!("t.{n}"), "host": format!("10.0.0.{n}"), "ports": [80],
            "state": "TASK_RUNNING", "startedAt": "2020-01-01T00:00:00.000Z" })
    };
    let tasks: Vec<_> = tasks.into_iter().map(task).collect();
    json!({ "id": id, "labels": { "hipacheFrontend": host }, "tasks": tasks })
}

#[test]
fn an_event_takes_its_task_out_of_the_last_answer_at_once() {
    let mut world = World::new();
    let apps = json!([app("/a", "a.test", [1, 2])]);
    world.look(&apps, Occasion::Answer);
    assert_eq!(world.list("a.test"), ["a", "http://10.0.0.1:80", "http://10.0.0.2:80"]);
    world.seen.ended.insert("t.1".to_owned());
    let pass = world.look(&apps, Occasion::Again);
    assert!(pass.held.is_none());
    assert_eq!(world.list("a.test"), ["a", "http://10.0.0.2:80"]);
}

#[test]
fn looking_again_confirms_nothing_and_answers_do() {
    let mut world = World::new();
    world.look(&json!([app("/a", "a.test", 1..=10)]), Occasion::Answer);
    let nothing = json!([]);
    for _ in 0..2 {
        assert!(world.look(&nothing, Occasion::Answer).held.is_some());
    }
    for _ in 0..5 {
        let pass = world.look(&nothing, Occasion::Again);
        assert!(pass.held.is_some() && pass.difference.changes.is_empty(), "{pass:?}");
    }
    let pass = world.look(&nothing, Occasion::Answer);
    assert!(pass.held.is_none());
    assert_eq!(pass.difference.changes[0].action, Action::Delete);
    assert_eq!(world.list("a.test"), [""; 0]);
}

#[test]
fn what_others_put_into_a_list_that_is_only_held_stays() {
    let mut world = World::new();
    world.look(&json!([app("/a", "a.test", 1..=5)]), Occasion::Answer);
    let Some(Ok(list)) = world.redis.lists.get_mut("a.test") else { panic!("no list") };
    list.push(b"http://by.hand:1".to_vec());
    let owned: Owned = world.redis.owned["a.test"].clone();
    let pass = world.look(&json!([]), Occasion::Answer);
    assert!(pass.held.is_some() && pass.difference.changes.is_empty(), "{pass:?}");
    assert_eq!(world.redis.owned["a.test"], owned);
    for _ in 0..4 {
        world.look(&json!([]), Occasion::Answer);
    }
    assert_eq!(world.list("a.test"), ["a", "http://by.hand:1"]);
}

#[test]
fn lists_that_were_there_at_the_start_outlive_an_app_that_cannot_be_read() {
    let mut world = World::new();
    world.look(&json!([app("/a", "a.test", [1])]), Occasion::Answer);
    world.state.memory = Memory::default();
    restore(&mut world.state.memory, &world.redis);
    let mut broken = app("/a", "a.test", []);
    broken["tasks"] = json!("?");
    world.look(&json!([broken, app("/b", "b.test", [2])]), Occasion::Answer);
    assert_eq!(world.list("a.test"), ["a", "http://10.0.0.1:80"]);
}

proptest! {
    /// Once nothing waits any more, the same answer changes nothing.
    #[test]
    fn a_pass_after_a_pass_has_nothing_to_do(
        answers in proptest::collection::vec(
            proptest::collection::vec((0..4_u32, 0..3_u32, 0..6_u32), 0..6), 1..6),
    ) {
        let mut world = World::new();
        let mut last = json!([]);
        for answer in answers {
            let apps = answer.iter().enumerate().map(|(index, (host, from, to))| {
                let base = u32::try_from(index).unwrap() * 10;
                let tasks = base + *from..base + *to;
                app(&format!("/{index}"), &format!("h{host}.test"), tasks)
            });
            last = Value::Array(apps.collect());
            world.look(&last, Occasion::Answer);
        }
        for _ in 0..6 {
            world.look(&last, Occasion::Answer);
        }
        let pass = world.look(&last, Occasion::Answer);
        prop_assert!(pass.held.is_none());
        prop_assert_eq!(pass.difference, Difference::default());
    }
}
