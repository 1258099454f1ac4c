//! Whole lists only, marks that stay with their backends, edits by hand in between, ownership.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use marathon_sync::plan::Plan;
use marathon_sync::routes::apply::WriteError;
use marathon_sync::routes::diff::diff;
use pretty_assertions::assert_eq;

use super::{LEASE, OWNED, TOKEN, all_written, connect, list, plan, row, stage, sync, wanted};

/// "No half-written list is ever observed by a concurrent reader": it sees the lists before and
/// after each change and nothing else, and the mark is always on the same backend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_concurrent_reader_never_sees_a_half_written_list() {
    const SICK: &str = "http://sick.test:1";
    let (redis, routes) = stage().await;
    let redis = Arc::new(redis);
    redis.frontend("a.test", "id", &["http://0.test:1", SICK]);
    redis.run(&["SADD", "dead:a.test", "1"]);
    let allowed = Arc::new(Mutex::new(HashSet::from([list(&redis, "a.test")])));
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::task::spawn_blocking({
        let (redis, allowed, done) = (Arc::clone(&redis), Arc::clone(&allowed), Arc::clone(&done));
        move || {
            let look =
                "return {redis.call('LRANGE', KEYS[1], 0, -1), redis.call('SMEMBERS', KEYS[2])}";
            let mut seen = HashSet::new();
            while !done.load(Ordering::Relaxed) {
                let (list, dead): (Vec<String>, Vec<usize>) =
                    redis.query(&["EVAL", look, "2", "frontend:a.test", "dead:a.test"]);
                assert!(allowed.lock().unwrap().contains(&list), "{list:?}");
                let dead: Vec<&String> = dead.iter().map(|position| &list[position + 1]).collect();
                assert_eq!(dead, [SICK], "{list:?}");
                seen.insert(list);
            }
            seen.len()
        }
    });
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..1000 {
        let mut up: Vec<String> = (0..12)
            .filter(|_| random.bool())
            .map(|number| format!("http://{number}.test:1"))
            .collect();
        random.shuffle(&mut up);
        // The only backend is never marked, so there is always another.
        if up.is_empty() {
            up.push("http://0.test:1".to_owned());
        }
        up.insert(random.usize(0..=up.len()), SICK.to_owned());
        let plan = Plan::from([("a.test".to_owned(), wanted(&up))]);
        let snapshot = routes.snapshot(&plan).await.unwrap();
        let changes = diff(&plan, &snapshot).changes;
        for change in &changes {
            let after = change.after().into_iter().map(|row| String::from_utf8(row).unwrap());
            allowed.lock().unwrap().insert(after.collect());
        }
        all_written(&routes.apply(&plan, changes, TOKEN).await);
        if reader.is_finished() {
            break;
        }
    }
    done.store(true, Ordering::Relaxed);
    let seen = reader.await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert!(seen > 10, "the reader saw only {seen} lists");
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_follow_their_backends_and_keep_their_expiry() {
    let (redis, routes) = stage().await;
    for case @ (before, dead, up, after, dead_after) in [
        ("a b c", "0 2", "b c d", "b c d", "1"),
        ("a b c d", "1 2", "b d e", "b d e", "0"),
        ("a b c d", "1 2 3", "b c d", "b c d", "0 1 2"),
        ("a b", "1", "a b c", "a b c", "1"),
        // Marks of positions that were not there must not fall on new backends.
        ("a b", "1 2 9", "a b c", "a b c", "1"),
        ("a b", "0", "b", "b", ""),
        ("a b", "0 1", "c", "c", ""),
        // A backend that is left alone is never marked.
        ("a b", "1", "b", "b", ""),
        ("a b", "0", "a", "a", ""),
        ("a b c", "junk 2", "c", "c", "junk"),
        ("a b", "1", "b c", "b c", "0"),
        ("a", "0", "a b", "a b", "0"),
        ("a b", "", "b", "b", ""),
        ("a b a", "0 2", "a c", "a a c", "0 1"),
        ("a b c", "junk -1 2", "b c", "b c", "-1 1 junk"),
        ("a b", "0 junk", "b", "b", "junk"),
    ] {
        let url = |text: &'static str| text.split_whitespace().map(row);
        redis.run(&["FLUSHALL"]);
        redis.run(&["SET", LEASE, TOKEN]);
        let rows: Vec<String> = url(before).collect();
        redis.frontend("a.test", "id", &rows.iter().map(String::as_str).collect::<Vec<_>>());
        for position in dead.split_whitespace() {
            redis.run(&["SADD", "dead:a.test", position]);
        }
        for key in ["dead:a.test", "frontend:a.test"] {
            redis.run(&["EXPIRE", key, "1000"]);
        }
        let plan = Plan::from([("a.test".to_owned(), wanted(&url(up).collect::<Vec<_>>()))]);
        all_written(&sync(&routes, &plan, TOKEN).await);
        let expected: Vec<String> = std::iter::once("id".to_owned()).chain(url(after)).collect();
        assert_eq!(list(&redis, "a.test"), expected, "{case:?}");
        let marks: Vec<String> = redis.dead("a.test").into_iter().collect();
        assert_eq!(marks.join(" "), dead_after, "{case:?}");
        for key in ["dead:a.test", "frontend:a.test"] {
            let left: i64 = redis.query(&["TTL", key]);
            let exists: bool = redis.query(&["EXISTS", key]);
            assert!(!exists || (1..=1000).contains(&left), "{key} {left} {case:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_by_hand_in_between_is_compared_again() {
    let (redis, routes) = stage().await;
    let key = "frontend:a.test";
    for (up, edit, after) in [
        ("c b", &["RPUSH", key, "http://hand:1"][..], "id b c"),
        ("a b c", &["RPUSH", key, "http://c:1"], "id a b c"),
        ("c b", &["LSET", key, "2", "http://B:1/"], "id http://B:1/ c"),
        ("c b", &["LSET", key, "0", "new"], "new b c"),
        ("c b", &["LREM", key, "0", "http://b:1"], "id c b"),
        ("c b", &["LPUSH", key, "new"], "new b c"),
        ("c b", &["DEL", key], "id c b"),
    ] {
        redis.frontend("a.test", "id", &["http://a:1", "http://b:1"]);
        let up: Vec<String> = up.split(' ').map(row).collect();
        let plan = Plan::from([("a.test".to_owned(), wanted(&up))]);
        let changes = diff(&plan, &routes.snapshot(&plan).await.unwrap()).changes;
        redis.run(edit);
        let applied = routes.apply(&plan, changes, TOKEN).await;
        all_written(&applied);
        assert_eq!(applied.written.len(), 1, "{edit:?}");
        let after: Vec<String> = after.split(' ').map(row).collect();
        assert_eq!(list(&redis, "a.test"), after, "{edit:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_by_hand_in_between_is_reported_and_harms_no_other_list() {
    let (redis, routes) = stage().await;
    let first = plan(&[("a.test", &["http://a:1", "http://b:1"])]);
    all_written(&sync(&routes, &first, TOKEN).await);
    let hosts: &[(&str, &[&str])] = &[
        ("a.test", &["http://b:1", "http://c:1"]),
        ("b.test", &["http://b:1"]),
        ("c.test", &["http://c:1"]),
    ];
    let next = plan(hosts);
    let changes = diff(&next, &routes.snapshot(&next).await.unwrap()).changes;
    assert_eq!(changes.len(), 3);
    redis.run(&["LPUSH", "frontend:a.test", "new id"]);
    redis.run(&["RPUSH", "frontend:a.test", "http://hand:1"]);
    redis.run(&["SET", "frontend:b.test", "no list"]);
    let applied = routes.apply(&next, changes, TOKEN).await;
    assert_eq!(list(&redis, "a.test"), ["new id", "http://b:1", "http://c:1"]);
    assert_eq!(list(&redis, "c.test"), ["id", "http://c:1"]);
    let change = applied.written.iter().find(|change| change.host == "a.test").unwrap();
    assert_eq!(
        change.to_string(),
        "a.test: update, +http://c:1 -id (added by hand) -http://a:1 -http://hand:1 (added by hand)"
    );
    let failed: Vec<&String> = applied.failed.keys().collect();
    assert_eq!(failed, ["b.test"], "{applied:?}");
    assert!(matches!(applied.failed["b.test"], WriteError::NoList(_)), "{applied:?}");
    let difference = diff(&next, &routes.snapshot(&next).await.unwrap());
    assert_eq!(difference.changes, []);
    assert_eq!(difference.problems[0].key, "frontend:b.test");
}

/// "Keys of deleted apps go, hand-made keys and hand-added backends are never touched", also by a
/// process that has only just started.
#[tokio::test(flavor = "multi_thread")]
async fn ownership_survives_a_restart() {
    let (redis, routes) = stage().await;
    redis.frontend("hand.test", "hand", &["http://hand:1"]);
    redis.frontend("taken.test", "bridge", &["http://b:1"]);
    let up: &[&str] = &["http://a:1", "http://b:1"];
    let first = plan(&[
        ("made.test", up),
        ("mixed.test", up),
        ("taken.test", up),
        ("kept.test", up),
        ("zero.test", &[]),
    ]);
    all_written(&sync(&routes, &first, TOKEN).await);
    redis.run(&["RPUSH", "frontend:mixed.test", "http://hand:1"]);
    redis.run(&["SADD", "dead:made.test", "0"]);
    redis.run(&["SADD", "dead:zero.test", "0"]);
    drop(routes);

    let routes = connect(&redis.url()).await;
    let next = plan(&[("kept.test", up)]);
    all_written(&sync(&routes, &next, TOKEN).await);
    let mut keys: Vec<String> = redis.query(&["KEYS", "*"]);
    keys.sort();
    let frontends = ["hand", "kept", "mixed", "taken"].map(|name| format!("frontend:{name}.test"));
    assert_eq!(keys, [&frontends[..], &[LEASE.to_owned(), OWNED.to_owned()]].concat());
    assert_eq!(list(&redis, "hand.test"), ["hand", "http://hand:1"]);
    assert_eq!(list(&redis, "mixed.test"), ["id", "http://hand:1"]);
    assert_eq!(list(&redis, "taken.test"), ["bridge"]);
    let owned: Vec<String> = redis.query(&["HKEYS", OWNED]);
    assert_eq!(owned, ["kept.test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_are_written_whole_and_in_order() {
    let (redis, routes) = stage().await;
    let mut up: Vec<String> = (0..1001).map(|number| format!("http://b{number}:1")).collect();
    for _ in 0..3 {
        let plan = Plan::from([("a.test".to_owned(), wanted(&up))]);
        all_written(&sync(&routes, &plan, TOKEN).await);
        assert_eq!(list(&redis, "a.test")[1..], up);
        let mut position = 0;
        up.retain(|_| {
            position += 1;
            position % 3 != 0
        });
        let length = up.len();
        up.extend((0..150).map(|number| format!("http://new{length}-{number}:1")));
    }
}
