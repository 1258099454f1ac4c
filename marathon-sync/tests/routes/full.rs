//! A Redis that has reached its `maxmemory` and may evict nothing refuses every command that could
//! need memory, of a script too, until the script has written something. The routes must go on.

use integration::eventually::{DEADLINE, eventually};
use marathon_sync::plan::Plan;
use marathon_sync::routes::lease::{Lease, Standing};
use pretty_assertions::assert_eq;
use tokio_util::sync::CancellationToken;

use super::{LEASE, OWNED, TTL, all_written, list, plan, stage, sync};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_gives_the_lease_and_takes_every_change() {
    let (redis, routes) = stage().await;
    let before = plan(&[
        ("a.test", &["http://a:1", "http://b:1", "http://c:1"]),
        ("gone.test", &["http://g:1"]),
        ("more.test", &["http://m:1"]),
    ]);
    all_written(&sync(&routes, &before, super::TOKEN).await);
    redis.run(&["SADD", "dead:a.test", "1", "2"]);
    redis.run(&["DEL", LEASE]);
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(!redis.takes_writes(), "the server refuses plain writes");

    let shutdown = CancellationToken::new();
    let lease = Lease::start(&routes, "me", TTL, &shutdown);
    eventually(DEADLINE, "leads", || lease.token().is_some());
    eventually(DEADLINE, "it is noticed", || {
        lease
            .problem()
            .borrow()
            .as_ref()
            .is_some_and(|problem| problem.to_string().contains("full"))
    });
    let token = lease.token().unwrap();
    let after = plan(&[
        ("a.test", &["http://a:1", "http://c:1"]),
        ("more.test", &["http://m:1", "http://n:2"]),
        ("new.test", &["http://new:1"]),
    ]);
    all_written(&sync(&routes, &after, &token).await);
    assert_eq!(list(&redis, "a.test"), ["id", "http://a:1", "http://c:1"]);
    assert_eq!(redis.dead("a.test").into_iter().collect::<Vec<_>>(), ["1"], "marks follow");
    assert_eq!(list(&redis, "more.test"), ["id", "http://m:1", "http://n:2"]);
    assert_eq!(list(&redis, "new.test"), ["id", "http://new:1"]);
    assert_eq!(list(&redis, "gone.test"), Vec::<String>::new());
    assert_eq!(redis.query::<usize>(&["HLEN", OWNED]), 3);

    // It is renewed as well, and no other process gets it.
    let renewals = redis.calls("eval");
    eventually(DEADLINE, "renewed", || redis.calls("eval") >= renewals + 3);
    assert_eq!(lease.token(), Some(token));
    let other = Lease::start(&routes, "other", TTL, &CancellationToken::new());
    eventually(DEADLINE, "stands by", || matches!(other.standing(), Standing::Standby { .. }));

    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    eventually(DEADLINE, "there is room again", || lease.problem().borrow().is_none());
    shutdown.cancel();
    lease.ended(DEADLINE).await;
}

/// Rows that go, go first: an address that is gone may be another app's in a moment.
#[tokio::test(flavor = "multi_thread")]
async fn removals_are_written_before_additions() {
    let (redis, routes) = stage().await;
    all_written(
        &sync(&routes, &plan(&[("z.test", &["http://z:1", "http://y:1"])]), super::TOKEN).await,
    );
    let after = plan(&[("a.test", &["http://a:1"]), ("z.test", &["http://z:1"])]);
    let applied = sync(&routes, &after, super::TOKEN).await;
    all_written(&applied);
    let hosts: Vec<_> = applied.written.iter().map(|change| change.host.as_str()).collect();
    assert_eq!(hosts, ["z.test", "a.test"]);
    let applied = sync(&routes, &Plan::new(), super::TOKEN).await;
    assert_eq!(applied.written.len(), 2);
    assert_eq!(redis.query::<usize>(&["EXISTS", OWNED]), 0);
}
