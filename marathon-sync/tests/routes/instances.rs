//! Several instances on one Redis, each with a lease and notes of its own.

use integration::eventually::{DEADLINE, eventually};
use integration::redis::Redis;
use marathon_sync::plan::Plan;
use marathon_sync::routes::Routes;
use marathon_sync::routes::diff::diff;
use marathon_sync::routes::lease::Lease;
use marathon_sync::routes::snapshot::RoutesError;
use pretty_assertions::assert_eq;
use tokio_util::sync::CancellationToken;

use super::{TOKEN, all_written, connect, connect_as, list, plan, stage, sync};

const NAMES: &str = "marathon-sync:instances";

/// A Redis that `blue` and `green` write to.
async fn two() -> (Redis, Routes, Routes) {
    let (redis, blue) = stage().await;
    let green = connect_as(&redis.url(), "green").await;
    redis.run(&["SET", "marathon-sync:green:lease", TOKEN]);
    for instance in ["blue", "green"] {
        redis.run(&["SADD", NAMES, instance]);
        redis.run(&["SET", &format!("marathon-sync:{instance}:active"), "1"]);
    }
    (redis, blue, green)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_of_one_host_keep_the_union_and_rest() {
    let (redis, blue, green) = two().await;
    let (a, b) = (plan(&[("a.test", &["http://a:1"])]), plan(&[("a.test", &["http://b:1"])]));
    all_written(&sync(&blue, &a, TOKEN).await);
    all_written(&sync(&green, &b, TOKEN).await);
    let both = ["id", "http://a:1", "http://b:1"];
    assert_eq!(list(&redis, "a.test"), both);
    for (routes, plan) in [(&blue, &a), (&green, &b), (&blue, &a), (&green, &b)] {
        let applied = sync(routes, plan, TOKEN).await;
        all_written(&applied);
        assert!(applied.written.is_empty(), "{applied:?}");
    }
    assert_eq!(list(&redis, "a.test"), both);
    // The one that made the list goes first.
    all_written(&sync(&blue, &Plan::new(), TOKEN).await);
    assert_eq!(list(&redis, "a.test"), ["id", "http://b:1"]);
    all_written(&sync(&green, &Plan::new(), TOKEN).await);
    assert_eq!(list(&redis, "a.test"), [""; 0]);
    for instance in ["blue", "green"] {
        let notes = format!("marathon-sync:{instance}:owned");
        assert_eq!(redis.query::<usize>(&["HLEN", &notes]), 0, "{instance}");
    }
}

/// Two instances of the same cluster: both see at once that a task has ended.
#[tokio::test(flavor = "multi_thread")]
async fn row_that_two_instances_give_up_at_once_is_removed_by_the_second() {
    let (redis, blue, green) = two().await;
    let before = plan(&[("a.test", &["http://a:1", "http://gone:1"])]);
    all_written(&sync(&blue, &before, TOKEN).await);
    all_written(&sync(&green, &before, TOKEN).await);
    let after = plan(&[("a.test", &["http://a:1"])]);
    let late = diff(&after, &green.snapshot(&after).await.unwrap()).changes;
    all_written(&sync(&blue, &after, TOKEN).await);
    assert_eq!(list(&redis, "a.test"), ["id", "http://a:1", "http://gone:1"]);
    all_written(&green.apply(&after, late, TOKEN).await);
    assert_eq!(list(&redis, "a.test"), ["id", "http://a:1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_instance_that_is_not_in_use_go() {
    let (redis, blue, green) = two().await;
    let (a, b) = (plan(&[("a.test", &["http://a:1"])]), plan(&[("a.test", &["http://b:1"])]));
    all_written(&sync(&green, &b, TOKEN).await);
    all_written(&sync(&blue, &a, TOKEN).await);
    redis.run(&["DEL", "marathon-sync:green:active"]);
    all_written(&sync(&blue, &a, TOKEN).await);
    assert_eq!(list(&redis, "a.test"), ["id", "http://a:1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_enters_its_name_and_takes_unused_ones_off() {
    let redis = Redis::start();
    redis.run(&["SADD", NAMES, "used", "unused"]);
    redis.run(&["SET", "marathon-sync:used:active", "1"]);
    let blue = connect(&redis.url()).await;
    let shutdown = CancellationToken::new();
    let lease = Lease::start(&blue, "me", DEADLINE, &shutdown);
    eventually(DEADLINE, "leads", || lease.token().is_some());
    let mut names: Vec<String> = redis.query(&["SMEMBERS", NAMES]);
    names.sort();
    assert_eq!(names, ["blue", "used"]);
    let ends_in: i64 = redis.query(&["TTL", "marathon-sync:blue:active"]);
    assert!((3_000..=3_600).contains(&ends_in), "{ends_in}");
    // It stays in use between two processes, as at an upgrade.
    shutdown.cancel();
    lease.ended(DEADLINE).await;
    assert_eq!(redis.query::<usize>(&["EXISTS", "marathon-sync:blue:active"]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_set_are_reported_with_their_key() {
    let (redis, blue) = stage().await;
    redis.run(&["SET", NAMES, "x"]);
    let error = blue.snapshot(&Plan::new()).await.unwrap_err();
    assert!(matches!(error, RoutesError::InstancesUnreadable(_)), "{error:?}");
    assert!(error.to_string().starts_with("marathon-sync:instances is not a set"), "{error}");
}
