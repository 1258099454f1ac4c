//! Passes over small clusters.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::document::parse;
use crate::guard::Limits;
use crate::routes::change::Action;
use crate::routes::owned::{Foreign, Owned};

/// An agent with a Redis of its own.
struct World {
    state: State,
    seen: Seen,
    redis: Snapshot,
    second: u64,
}

impl World {
    fn new() -> Self {
        let state = State::new(Limits::default());
        Self { state, seen: Seen::default(), redis: Snapshot::default(), second: 0 }
    }

    fn restart(&mut self) {
        self.state = State::new(Limits::default());
        restore(&mut self.state, &self.redis);
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

impl World {
    fn make(&mut self, host: &str, rows: &[&str]) {
        let list = rows.iter().map(|row| row.as_bytes().to_vec()).collect();
        drop(self.redis.lists.insert(host.to_owned(), Ok(list)));
    }

    fn push(&mut self, host: &str, row: &str) {
        let Some(Ok(list)) = self.redis.lists.get_mut(host) else { panic!("no list") };
        list.push(row.as_bytes().to_vec());
    }

    fn noted(&self, host: &str) -> Vec<&str> {
        self.redis.owned[host].rows.iter().map(String::as_str).collect()
    }
}

/// A list of two clusters: the other one's backends are many, and no removal of this one's.
#[test]
fn backends_of_another_instance_are_neither_removed_nor_held_nor_noted() {
    let theirs: Vec<String> = (1..=10).map(|n| format!("http://10.1.0.{n}:80")).collect();
    let listed = |ours: &[&str]| {
        let theirs = theirs.iter().map(String::as_str);
        std::iter::once("id")
            .chain(theirs)
            .chain(ours.iter().copied())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut world = World::new();
    let rows: Vec<&str> = std::iter::once("id").chain(theirs.iter().map(String::as_str)).collect();
    world.make("a.test", &rows);
    let note = Owned { made: true, rows: theirs.iter().cloned().collect(), ..Owned::default() };
    let foreign = Foreign::read("other", note.to_json().into_bytes());
    world.redis.instances = vec!["other".to_owned()];
    world.redis.foreign = [("a.test".to_owned(), vec![foreign])].into();

    let (one, two) = ("http://10.0.0.1:80", "http://10.0.0.2:80");
    for _ in 0..2 {
        let pass = world.look(&json!([app("/a", "a.test", [1])]), Occasion::Answer);
        assert!(pass.held.is_none(), "{:?}", pass.held);
        assert_eq!(pass.instances, [("a.test".to_owned(), vec!["other".to_owned()])].into());
        assert_eq!(world.list("a.test").join(" "), listed(&[one]));
        assert_eq!(world.noted("a.test"), [one]);
    }
    // A look at one app alone is enough, as in a list that is not shared.
    let mut last = world.look(&json!([app("/a", "a.test", [1])]), Occasion::Answer);
    assert!(world.glance(&mut last, &app("/a", "a.test", [1, 2])));
    assert_eq!(world.list("a.test").join(" "), listed(&[one, two]));
    assert_eq!(world.noted("a.test"), [one, two]);
    // The app cannot be read, then it is gone.
    let mut broken = app("/a", "a.test", [1]);
    broken["labels"] = json!(7);
    world.look(&json!([broken]), Occasion::Answer);
    assert_eq!(world.noted("a.test"), [one, two]);
    for _ in 0..6 {
        world.look(&json!([]), Occasion::Answer);
    }
    assert_eq!(world.list("a.test").join(" "), listed(&[]));
    assert!(world.redis.owned.is_empty());
}

const HAND: &str = "http://by.hand:1";

/// An emergency: the app's tasks are dead, Marathon's answer is garbage, and somebody mends the list.
#[test]
fn what_people_add_while_an_app_cannot_be_read_stays() {
    let other = app("/b", "b.test", [9]);
    let whole = app("/a", "a.test", [1, 2]);
    let (mut garbage, mut without, mut nameless) = (whole.clone(), whole.clone(), whole.clone());
    garbage["tasks"] = json!("garbage");
    nameless["id"] = json!(1);
    drop(without.as_object_mut().unwrap().remove("tasks"));
    for (bad, is_restarted) in
        [&garbage, &without, &nameless].into_iter().flat_map(|bad| [(bad, false), (bad, true)])
    {
        let mut world = World::new();
        world.look(&json!([whole, other]), Occasion::Answer);
        let answer = json!([bad, other]);
        let look = |world: &mut World| {
            for _ in 0..5 {
                if is_restarted {
                    world.restart();
                }
                let pass = world.look(&answer, Occasion::Answer);
                assert!(pass.held.is_none(), "{bad}: {:?}", pass.held);
            }
        };
        look(&mut world);
        world.push("a.test", HAND);
        look(&mut world);
        let (first, second) = ("http://10.0.0.1:80", "http://10.0.0.2:80");
        assert_eq!(world.list("a.test"), ["a", first, second, HAND], "{bad}");
        assert_eq!(world.noted("a.test"), [first, second]);
        // Also where a task of another app is, and when it is all that is left.
        world.make("a.test", &["a", HAND, "http://10.0.0.9:80"]);
        look(&mut world);
        assert_eq!(world.list("a.test"), ["a", HAND, "http://10.0.0.9:80"], "{bad}");
        assert_eq!(world.noted("a.test"), [""; 0]);
        if !is_restarted {
            lose_redis(&mut world);
            look(&mut world);
            assert_eq!(world.list("a.test"), ["a", HAND, "http://10.0.0.9:80"], "{bad}");
            assert_eq!(world.noted("a.test"), [""; 0]);
        }
        // Once it can be read it has its list for itself again.
        let pass = world.look(&json!([whole, other]), Occasion::Answer);
        assert!(pass.difference.changes[0].removed.iter().all(|removed| removed.by_hand));
        assert_eq!(world.list("a.test"), ["a", first, second], "{bad}");
    }
}

/// That the guard holds a row does not make it the app's.
#[test]
fn what_no_app_wanted_is_not_noted_while_the_guard_holds_it() {
    let many = app("/many", "many.test", 1..=9);
    let few = app("/few", "few.test", [10]);
    let new = app("/new", "hand.test", [20]);
    let stage = || {
        let mut world = World::new();
        world.look(&json!([many, few]), Occasion::Answer);
        world.make("hand.test", &["hand", HAND]);
        let pass = world.look(&json!([few, new]), Occasion::Answer);
        assert!(pass.held.is_some_and(|held| held.rows.contains_key("hand.test")));
        world
    };
    let claimed = ["hand", HAND, "http://10.0.0.20:80"];
    let mut world = stage();
    assert_eq!(world.list("hand.test"), claimed);
    assert_eq!(world.noted("hand.test"), ["http://10.0.0.20:80"]);
    // The app is deleted before the guard believes anything.
    world.seen.deleted.insert("/new".to_owned());
    for _ in 0..6 {
        world.look(&json!([few]), Occasion::Answer);
    }
    assert_eq!(world.list("hand.test"), ["hand", HAND]);
    assert!(!world.redis.owned.contains_key("hand.test"));

    // It is not, and the row goes as one that was added by hand.
    let mut world = stage();
    let mut changes = Vec::new();
    for _ in 0..6 {
        changes.extend(world.look(&json!([few, new]), Occasion::Answer).difference.changes);
    }
    let texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let gone = format!("hand.test: update, -{HAND} (added by hand)");
    assert!(texts.contains(&gone), "{texts:?}");

    // Redis loses everything meanwhile.
    let mut world = stage();
    world.look(&json!([few, new]), Occasion::Again);
    lose_redis(&mut world);
    world.look(&json!([few, new]), Occasion::Again);
    let rows = ["hand", "http://10.0.0.20:80", HAND];
    assert_eq!(world.list("hand.test"), rows);
    assert_eq!(world.list("many.test").len(), 10);
    assert_eq!(world.noted("hand.test"), ["http://10.0.0.20:80"]);
    assert_eq!(world.noted("many.test").len(), 9);
    world.seen.deleted.insert("/new".to_owned());
    for _ in 0..6 {
        world.look(&json!([few]), Occasion::Answer);
    }
    assert_eq!(world.list("hand.test"), ["hand", HAND]);
}

#[test]
fn lists_that_were_there_at_the_start_outlive_an_app_that_cannot_be_read() {
    let mut world = World::new();
    world.look(&json!([app("/a", "a.test", [1])]), Occasion::Answer);
    world.restart();
    let mut broken = app("/a", "a.test", []);
    broken["tasks"] = json!("?");
    world.look(&json!([broken, app("/b", "b.test", [2])]), Occasion::Answer);
    assert_eq!(world.list("a.test"), ["a", "http://10.0.0.1:80"]);
}

/// Bug 21 of the bridge, and its lists: what is not shown is not gone.
#[test]
fn a_list_of_the_bridge_stays_while_the_tasks_of_its_app_are_not_shown() {
    let mut world = World::new();
    let rows = ["a", "http://10.0.0.1:80", "http://10.0.0.2:80"];
    let list = rows.iter().map(|row| row.as_bytes().to_vec()).collect();
    drop(world.redis.lists.insert("a.test".to_owned(), Ok(list)));
    let mut without = app("/a", "a.test", []);
    drop(without.as_object_mut().unwrap().remove("tasks"));
    for _ in 0..5 {
        let pass = world.look(&json!([without]), Occasion::Answer);
        assert!(pass.held.is_none(), "{:?}", pass.held);
        assert_eq!(world.list("a.test"), rows);
    }
    // But for what has a reason to go: another app has its place.
    world.look(&json!([without, app("/b", "b.test", [2])]), Occasion::Answer);
    assert_eq!(world.list("a.test"), ["a", "http://10.0.0.1:80"]);
    world.look(&json!([app("/a", "a.test", [3])]), Occasion::Answer);
    assert_eq!(world.list("a.test"), ["a", "http://10.0.0.3:80"]);
}

fn lose_redis(world: &mut World) {
    world.redis = Snapshot::default();
}

#[test]
fn what_is_only_kept_comes_back_after_redis_has_lost_it() {
    let mut world = World::new();
    let whole = json!([app("/a", "a.test", [1, 2]), app("/b", "b.test", [3, 4, 5, 6])]);
    world.look(&whole, Occasion::Answer);
    // A machine is lost, and most of an answer.
    let mut away = app("/a", "a.test", [1, 2]);
    away["tasks"][1]["state"] = json!("TASK_UNREACHABLE");
    let part = json!([away]);
    assert!(world.look(&part, Occasion::Answer).held.is_some());
    let before = world.redis.lists.clone();
    lose_redis(&mut world);
    assert!(world.look(&part, Occasion::Again).held.is_some());
    assert_eq!(world.redis.lists, before);
    // The guard goes on where it was, and what it lets go does not come back.
    for _ in 0..2 {
        world.look(&part, Occasion::Answer);
    }
    assert_eq!(world.list("a.test"), ["a", "http://10.0.0.1:80", "http://10.0.0.2:80"]);
    assert_eq!(world.list("b.test"), [""; 0]);
}

#[test]
fn a_rebuilding_that_broke_off_goes_on() {
    let mut world = World::new();
    let whole = json!([app("/a", "a.test", [1, 2]), app("/b", "b.test", [3, 4, 5, 6])]);
    world.look(&whole, Occasion::Answer);
    let before = world.redis.clone();
    world.look(&json!([]), Occasion::Answer);
    lose_redis(&mut world);
    world.look(&json!([]), Occasion::Again);
    // Only one of two was written.
    drop(world.redis.lists.remove("b.test"));
    drop(world.redis.owned.remove("b.test"));
    world.look(&json!([]), Occasion::Again);
    assert_eq!(world.redis.lists, before.lists);
}

#[test]
fn a_restart_keeps_a_lost_machine_whose_ports_are_not_told() {
    let mut world = World::new();
    world.look(&json!([app("/a", "a.test", [1, 2])]), Occasion::Answer);
    let mut away = app("/a", "a.test", [1, 2]);
    away["tasks"][1]["state"] = json!("TASK_UNREACHABLE");
    away["tasks"][1]["ports"] = json!([]);
    world.restart();
    for _ in 0..4 {
        let pass = world.look(&json!([away]), Occasion::Answer);
        assert!(pass.held.is_none(), "{:?}", pass.held);
        assert_eq!(world.list("a.test"), ["a", "http://10.0.0.1:80", "http://10.0.0.2:80"]);
    }
    world.look(&json!([app("/a", "a.test", [1, 3])]), Occasion::Answer);
    assert_eq!(world.list("a.test"), ["a", "http://10.0.0.1:80", "http://10.0.0.3:80"]);
}

/// Its labels are garbage, so that only the note says what it had.
#[test]
fn a_broken_app_keeps_its_list_beyond_a_restart() {
    let mut world = World::new();
    world.look(&json!([app("/a", "a.test", [1]), app("/b", "b.test", [2])]), Occasion::Answer);
    world.restart();
    let mut broken = app("/a", "a.test", [1]);
    broken["labels"] = json!(7);
    for _ in 0..6 {
        let pass = world.look(&json!([broken, app("/b", "b.test", [2])]), Occasion::Answer);
        assert!(pass.held.is_none(), "{:?}", pass.held);
        assert_eq!(world.list("a.test"), ["a", "http://10.0.0.1:80"]);
    }
}

/// Of two apps on a host each keeps what is its own.
#[test]
fn a_broken_app_keeps_nothing_of_those_that_it_shared_a_host_with() {
    let mut world = World::new();
    let (a, b) = (app("/a", "x.test", [1]), app("/b", "x.test", [2]));
    world.look(&json!([a, b]), Occasion::Answer);
    world.restart();
    let mut broken = a;
    broken["labels"] = json!(7);
    world.look(&json!([broken, app("/b", "x.test", [3])]), Occasion::Answer);
    assert_eq!(world.list("x.test"), ["x", "http://10.0.0.1:80", "http://10.0.0.3:80"]);
}

/// Health is forgotten only by an answer that shows the app's tasks.
#[test]
fn health_outlives_answers_that_do_not_show_the_tasks() {
    let with_checks = |results: Value| {
        let mut app = app("/a", "a.test", [1]);
        app["healthChecks"] = json!([{ "protocol": "HTTP" }]);
        app["tasks"][0]["healthCheckResults"] = results;
        app
    };
    let well = with_checks(json!([{ "alive": true, "firstSuccess": "2020-01-01T00:00:00.000Z" }]));
    let unknown = with_checks(json!([]));
    let mut without = well.clone();
    drop(without.as_object_mut().unwrap().remove("tasks"));
    for between in [json!([without]), json!([])] {
        let mut world = World::new();
        world.look(&json!([well]), Occasion::Answer);
        world.look(&between, Occasion::Answer);
        let pass = world.look(&json!([unknown]), Occasion::Answer);
        assert_eq!(pass.plan["a.test"].up, ["http://10.0.0.1:80"], "{between}");
    }
}

impl World {
    /// What the agent does with one app that Marathon shows now. Returns whether that was enough.
    fn glance(&mut self, last: &mut Pass, shown: &Value) -> bool {
        let body = json!({ "app": shown }).to_string();
        let id = shown["id"].as_str().unwrap();
        let shown = crate::document::parse_app(id, body.as_bytes()).unwrap();
        let now = Timestamp::from_second(1_600_000_000).unwrap();
        let basis = narrow::Basis { last, options: &Options::default(), seen: &self.seen, now };
        let mut answer = Arc::new(Answer::default());
        let found = narrow::judge(vec![shown], &mut answer, &mut self.state.memory, basis);
        if !found.is_enough {
            return false;
        }
        let found = found.apps;
        // As the agent reads them: these hosts and no others.
        let mut snapshot = self.redis.clone();
        let is_read = |host: &String| found.iter().any(|app| app.hosts.contains_key(host));
        snapshot.lists.retain(|host, _| is_read(host));
        snapshot.owned.retain(|host, _| is_read(host));
        let Some(plan) = narrow::plan(&found, &snapshot) else { return false };
        let difference = diff(&plan, &snapshot);
        self.write(&Pass { difference, ..Pass::default() });
        narrow::absorb(last, &mut self.state.listed, found);
        true
    }
}

#[test]
fn one_app_alone_gets_and_loses_what_needs_nothing_of_the_others() {
    let mut world = World::new();
    let other = app("/b", "b.test", [9]);
    let mut last = world.look(&json!([app("/a", "a.test", [1, 2]), other]), Occasion::Answer);
    let listed = |world: &World| world.list("a.test").join(" ");
    // One comes.
    assert!(world.glance(&mut last, &app("/a", "a.test", [1, 2, 3])));
    assert_eq!(listed(&world), "a http://10.0.0.1:80 http://10.0.0.2:80 http://10.0.0.3:80");
    // One is being killed.
    let mut killing = app("/a", "a.test", [1, 2, 3]);
    killing["tasks"][0]["state"] = json!("TASK_KILLING");
    assert!(world.glance(&mut last, &killing));
    assert_eq!(listed(&world), "a http://10.0.0.2:80 http://10.0.0.3:80");
    assert_eq!(last.plan["a.test"].up, ["http://10.0.0.2:80", "http://10.0.0.3:80"]);
    // One is gone, as an event said.
    world.seen.ended.insert("t.2".to_owned());
    assert!(world.glance(&mut last, &app("/a", "a.test", [3])));
    assert_eq!(listed(&world), "a http://10.0.0.3:80");
    // What somebody has put there is the business of a look at everything.
    let Some(Ok(list)) = world.redis.lists.get_mut("a.test") else { panic!("no list") };
    list.push(b"http://by.hand:1".to_vec());
    assert!(!world.glance(&mut last, &app("/a", "a.test", [3, 4])));
    assert_eq!(listed(&world), "a http://10.0.0.3:80 http://by.hand:1");
    assert_eq!(world.list("b.test"), ["b", "http://10.0.0.9:80"]);
}

#[test]
fn one_app_alone_does_not_tell_what_is_merely_missing() {
    let mut without = app("/a", "a.test", []);
    drop(without.as_object_mut().unwrap().remove("tasks"));
    let mut broken = app("/a", "a.test", [1, 2]);
    broken["labels"] = json!(7);
    for shown in [
        app("/a", "a.test", [1]),
        app("/a", "a.test", []),
        app("/a", "other.test", [1, 2]),
        app("/a", "a.test,other.test", [1, 2]),
        // Another app's backend is listed there, which must be over.
        app("/a", "a.test", [1, 2, 9]),
        without,
        broken,
        app("/c", "c.test", [5]),
    ] {
        let mut world = World::new();
        let shared = [app("/b", "b.test", [8]), app("/b2", "b.test", [9])];
        let apps = json!([app("/a", "a.test", [1, 2]), shared[0], shared[1]]);
        let mut last = world.look(&apps, Occasion::Answer);
        let before = world.redis.clone();
        assert!(!world.glance(&mut last, &shown), "{shown}");
        assert!(!world.glance(&mut last, &app("/b", "b.test", [7, 8])), "two apps share it");
        assert_eq!(world.redis, before);
    }
}

/// Its label names a port that its tasks were not given, so that only what they had is known.
#[test]
fn task_whose_address_is_not_told_goes_by_its_event_and_is_missed_without_one() {
    let moved = |tasks: &[u32]| {
        let mut app = app("/a", "a.test", tasks.iter().copied());
        app["labels"] = json!({ "hipacheFrontend.1": "a.test" });
        app["portDefinitions"] = json!([{ "port": 0 }, { "port": 0 }]);
        app
    };
    for is_told in [true, false] {
        let mut world = World::new();
        world.look(&json!([app("/a", "a.test", [1, 2])]), Occasion::Answer);
        let mut last = world.look(&json!([moved(&[1, 2])]), Occasion::Answer);
        assert_eq!(world.list("a.test"), ["a", "http://10.0.0.1:80", "http://10.0.0.2:80"]);
        if is_told {
            world.seen.ended.insert("t.2".to_owned());
        }
        assert_eq!(world.glance(&mut last, &moved(&[1])), is_told);
        if is_told {
            assert_eq!(world.list("a.test"), ["a", "http://10.0.0.1:80"]);
        }
    }
}

#[test]
fn while_the_guard_holds_something_one_app_alone_does_not_tell() {
    let mut world = World::new();
    let old = app("/a", "a.test", 1..6);
    world.look(&json!([old]), Occasion::Answer);
    // Much goes at once: it waits.
    let mut last = world.look(&json!([app("/a", "new.test", 1..6)]), Occasion::Answer);
    assert!(last.held.is_some() && world.list("a.test").len() == 6);
    // What is over may not wait on the host that the app had.
    world.seen.ended.insert("t.1".to_owned());
    assert!(!world.glance(&mut last, &app("/a", "new.test", 1..6)));
    world.look(&json!([app("/a", "new.test", 1..6)]), Occasion::Again);
    assert!(!world.list("a.test").contains(&"http://10.0.0.1:80".to_owned()));
}

#[test]
fn what_one_app_alone_had_comes_back_when_redis_loses_it() {
    let mut world = World::new();
    for _ in 0..2 {
        world.look(&json!([app("/a", "a.test", [1])]), Occasion::Answer);
    }
    let mut last = world.look(&json!([app("/a", "a.test", [1])]), Occasion::Answer);
    assert!(world.glance(&mut last, &app("/a", "a.test", [1, 2, 3])));
    let mut lost = app("/a", "a.test", [1, 2, 3]);
    lost["tasks"][1]["state"] = json!("TASK_UNREACHABLE");
    lost["tasks"][2]["state"] = json!("TASK_KILLING");
    assert!(world.glance(&mut last, &lost));
    let rows = ["a", "http://10.0.0.1:80", "http://10.0.0.2:80"];
    assert_eq!(world.list("a.test"), rows);
    world.redis = Snapshot::default();
    world.look(&json!([lost]), Occasion::Again);
    assert_eq!(world.list("a.test"), rows);
}

#[test]
fn what_was_there_before_the_agent_goes_by_a_look_at_everything() {
    let mut world = World::new();
    world.look(&json!([app("/a", "a.test", [1, 2])]), Occasion::Answer);
    world.restart();
    // The first one's machine is lost, and Marathon does not tell any more which it was.
    let mut lost = app("/a", "a.test", [1, 2]);
    lost["tasks"][0] = json!({ "id": "t.1", "state": "TASK_UNREACHABLE" });
    let mut last = world.look(&json!([lost]), Occasion::Answer);
    assert!(world.glance(&mut last, &lost));
    assert_eq!(world.list("a.test"), ["a", "http://10.0.0.1:80", "http://10.0.0.2:80"]);
    world.seen.ended.insert("t.1".to_owned());
    assert!(!world.glance(&mut last, &lost));
    world.look(&json!([lost]), Occasion::Again);
    assert_eq!(world.list("a.test"), ["a", "http://10.0.0.2:80"]);
}

#[test]
fn what_one_app_says_now_replaces_what_the_last_answer_said_with_its_problems() {
    let mut world = World::new();
    let odd = |id: &str, key: &str| {
        let task = if id == "/a" { 1 } else { 5 };
        let mut app = app(id, &format!("{}.test", id.trim_start_matches('/')), [task]);
        app[key] = json!(["odd"]);
        app
    };
    let apps = json!([odd("/a", "instances"), odd("/b", "instances")]);
    let last = world.look(&apps, Occasion::Answer);
    let mut answer = Arc::new(parse(json!({ "apps": apps }).to_string().as_bytes()).unwrap());
    let body = json!({ "app": odd("/a", "version") }).to_string().replace("\"t.1\"", "\"t.2\"");
    world.seen.ended.insert("t.1".to_owned());
    let shown = crate::document::parse_app("/a", body.as_bytes()).unwrap();
    let now = Timestamp::from_second(1_600_000_000).unwrap();
    let basis = narrow::Basis { last: &last, options: &Options::default(), seen: &world.seen, now };
    let found = narrow::judge(vec![shown], &mut answer, &mut world.state.memory, basis);
    assert!(found.is_enough);
    let problems: Vec<(&str, &str)> =
        answer.problems.iter().map(|problem| (problem.app.as_str(), problem.field)).collect();
    assert_eq!(problems, [("/b", "instances"), ("/a", "version")]);
    assert_eq!(found.apps[0].report.problems, [answer.problems[1].clone()]);
    let recalled = narrow::recall(&answer, &last, ["/a".into()]).unwrap();
    assert_eq!(recalled[0].0.tasks.as_ref().unwrap()[0].id, "t.2");
    assert!(narrow::recall(&answer, &last, ["/c".into()]).is_none());
}

/// Mesos gives ports again. That the task before has ended does not explain that the one there now is
/// missing from a later answer.
#[test]
fn the_end_of_a_task_explains_nothing_once_one_app_alone_has_shown_another_at_its_address() {
    let other = app("/b", "b.test", [9]);
    let mut next = app("/a", "a.test", [1]);
    next["tasks"][0]["id"] = json!("t.next");
    let mut staged = next.clone();
    staged["tasks"][0]["state"] = json!("TASK_STAGING");
    for is_staged_before in [false, true] {
        let mut world = World::new();
        let before = json!([app("/a", "a.test", [1]), other]);
        let mut last = world.look(&before, Occasion::Answer);
        world.seen.ended.insert("t.1".to_owned());
        if is_staged_before {
            last = world.look(&json!([staged, other]), Occasion::Answer);
        }
        let meanwhile = if is_staged_before { staged.clone() } else { app("/a", "a.test", []) };
        assert!(world.glance(&mut last, &meanwhile));
        assert!(world.glance(&mut last, &next));
        assert_eq!(world.list("a.test"), ["a", "http://10.0.0.1:80"]);
        let pass = world.look(&json!([]), Occasion::Answer);
        assert!(pass.held.is_some());
        assert_eq!(world.list("a.test"), ["a", "http://10.0.0.1:80"], "{is_staged_before}");
    }
}

proptest! {
    /// What one app alone leads to is what a look at everything leads to.
    #[test]
    fn a_look_at_one_app_leaves_a_look_at_everything_nothing_to_do(
        states in proptest::collection::vec((0..6_u32, 0..4_usize), 1..12),
        first in 0..4_u32,
    ) {
        let mut world = World::new();
        let names = ["TASK_RUNNING", "TASK_KILLING", "TASK_UNREACHABLE", "TASK_STAGING"];
        let mut shown = app("/a", "a.test", 0..first + 1);
        let other = app("/b", "b.test", [99]);
        let mut last = world.look(&json!([shown, other]), Occasion::Answer);
        for (task, state) in states {
            let mut changed = app("/a", "a.test", 0..6);
            for (number, entry) in changed["tasks"].as_array_mut().unwrap().iter_mut().enumerate() {
                entry["state"] = match shown["tasks"].get(number) {
                    _ if number == task as usize => json!(names[state]),
                    Some(before) => before["state"].clone(),
                    None => json!("TASK_STAGING"),
                };
            }
            shown = changed;
            if world.glance(&mut last, &shown) {
                let after = world.redis.clone();
                let pass = world.look(&json!([shown, other]), Occasion::Again);
                prop_assert_eq!(&pass.difference, &Difference::default());
                prop_assert_eq!(after, world.redis.clone());
                last = pass;
            } else {
                last = world.look(&json!([shown, other]), Occasion::Answer);
            }
        }
    }
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
