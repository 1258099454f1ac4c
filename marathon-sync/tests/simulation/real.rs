//! Some hours of the same in a real Redis, done by the real scripts, while somebody reads.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use integration::eventually::DEADLINE;
use integration::marathon::Dialect;
use integration::redis::Redis;
use marathon_sync::plan::Plan;
use marathon_sync::routes::Routes;
use shared::driver::Driver;
use shared::store::{Client, StoreConfig};
use tokio_util::sync::CancellationToken;

use super::day::Day;
use super::lists::{Done, Lists, Rows};

const STEPS: usize = 400;
const TOKEN: &str = "me";
const LEASE: &str = "marathon-sync:sim:lease";
/// Edits by hand in one step, so that the reader sees nothing half-done of theirs.
const PUT: &str = "redis.call('DEL', KEYS[1]) return redis.call('RPUSH', KEYS[1], unpack(ARGV))";

/// Every list that may be seen, by host.
type Versions = Mutex<HashSet<(String, Rows)>>;

#[tokio::test(flavor = "multi_thread")]
async fn the_scripts_do_what_the_model_does_and_no_reader_sees_half_of_a_list() {
    let redis = Redis::start();
    let config = StoreConfig {
        drivers: vec![Driver::parse(&redis.url()).unwrap()],
        connect_timeout: DEADLINE,
        response_timeout: DEADLINE,
    };
    let client = Client::start(&config, &CancellationToken::new());
    assert!(client.wait_until_up(DEADLINE).await);
    let routes = Routes::new(client, "sim");
    redis.run(&["SET", LEASE, TOKEN]);
    let (versions, ends) = (Versions::default(), AtomicBool::new(false));
    let runtime = tokio::runtime::Handle::current();
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&redis, &versions, &ends));
        let stop = Stop(&ends);
        let mut day = Day::new(Dialect::V1_9, 5);
        for _ in 0..STEPS {
            day.step();
            for done in std::mem::take(&mut day.redis.done) {
                let repeated = repeat(&redis, &routes, &versions, done);
                tokio::task::block_in_place(|| runtime.block_on(repeated));
            }
            compare(&redis, &day.redis);
        }
        drop(stop);
        reader.join().unwrap()
    });
    assert!(read > 100, "{read} lists were read");
}

/// Ends the reader, also when something panics: the scope waits for it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn repeat(redis: &Redis, routes: &Routes, versions: &Versions, done: Done) {
    let may_be_seen = |host: &str, rows: Rows| {
        versions.lock().unwrap().insert((host.to_owned(), rows));
    };
    match done {
        Done::Lost => {
            redis.run(&["FLUSHALL"]);
            redis.run(&["SET", LEASE, TOKEN]);
        }
        Done::Marked(host, positions) => {
            redis.run(&["DEL", &format!("dead:{host}")]);
            for position in positions {
                redis.run(&["SADD", &format!("dead:{host}"), &position.to_string()]);
            }
        }
        Done::Put(host, rows) => {
            may_be_seen(&host, rows.clone());
            let key = format!("frontend:{host}");
            let rows = rows.iter().map(|row| std::str::from_utf8(row).unwrap());
            let words: Vec<&str> = ["EVAL", PUT, "1", &key].into_iter().chain(rows).collect();
            redis.run(&words);
        }
        Done::Written(change) => {
            may_be_seen(&change.host, change.after());
            let applied = routes.apply(&Plan::new(), vec![change.clone()], TOKEN).await;
            assert_eq!(applied.written, [change], "{:?}", applied.failed);
        }
    }
}

/// Redis holds what the model holds.
#[track_caller]
fn compare(redis: &Redis, model: &Lists) {
    let keys: BTreeSet<String> = redis.query(&["KEYS", "frontend:*"]);
    let found: BTreeMap<String, Vec<String>> = keys
        .into_iter()
        .map(|key| (host(&key), redis.query(&["LRANGE", &key, "0", "-1"])))
        .collect();
    let text = |row: &Vec<u8>| String::from_utf8(row.clone()).unwrap();
    let expected: BTreeMap<String, Vec<String>> = model
        .now
        .lists
        .iter()
        .map(|(host, list)| (host.clone(), list.as_ref().unwrap().iter().map(text).collect()))
        .collect();
    assert_eq!(found, expected);
    for host in model.now.lists.keys() {
        let marks = model.dead.get(host).into_iter().flatten().map(usize::to_string).collect();
        assert_eq!(redis.dead(host), marks, "{host}");
    }
}

fn host(key: &str) -> String {
    key.strip_prefix("frontend:").unwrap().to_owned()
}

/// Reads every list again and again; returns how many.
fn read(redis: &Redis, versions: &Versions, ends: &AtomicBool) -> usize {
    let url = format!("redis://127.0.0.1:{}", redis.port());
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let mut count = 0;
    while !ends.load(Ordering::SeqCst) {
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("frontend:*").query(&mut connection).unwrap();
        for key in keys {
            let mut command = redis::cmd("LRANGE");
            let rows: Rows = command.arg(&key).arg(0).arg(-1).query(&mut connection).unwrap();
            count += 1;
            // It may have gone in between.
            let is_whole =
                rows.is_empty() || versions.lock().unwrap().contains(&(host(&key), rows.clone()));
            assert!(is_whole, "{key} was {rows:?} for a moment");
        }
    }
    count
}
