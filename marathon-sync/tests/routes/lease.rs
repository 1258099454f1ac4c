//! One writer at a time, and all is rebuilt after a loss.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use integration::eventually::{DEADLINE, eventually};
use integration::redis::Redis;
use marathon_sync::plan::Plan;
use marathon_sync::routes::lease::{Lease, Standing};
use pretty_assertions::assert_eq;
use tokio_util::sync::CancellationToken;

use super::{LEASE, OWNED, TOKEN, TTL, all_written, connect, list, plan, stage, sync, wanted};

/// "No double writing": whoever has lost the lease writes nothing, whatever it believes.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_token_writes_nothing() {
    let (redis, routes) = stage().await;
    let plan: Plan = (0..300).map(|app| (format!("{app}.test"), wanted(&["http://a:1"]))).collect();
    for holder in [Some("another"), None] {
        redis.run(&["DEL", LEASE]);
        if let Some(holder) = holder {
            redis.run(&["SET", LEASE, holder]);
        }
        let before = redis.calls("eval");
        let applied = sync(&routes, &plan, TOKEN).await;
        assert!(applied.is_lease_lost() && applied.written.is_empty(), "{applied:?}");
        assert_eq!(applied.failed.len(), plan.len());
        assert!(redis.calls("eval") - before < 200, "it stops at once");
        assert_eq!(redis.query::<usize>(&["EXISTS", "frontend:0.test", OWNED]), 0);
    }
}

/// One writes without end; the lease changes hands in the middle; from then on only the other's
/// writes count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_only_the_holder_of_the_lease_writes() {
    let (redis, routes) = stage().await;
    let written = Arc::new(AtomicBool::new(false));
    let old = tokio::spawn({
        let written = Arc::clone(&written);
        async move {
            for number in 0..u64::MAX {
                let up = format!("http://old{number}:1");
                let applied = sync(&routes, &plan(&[("a.test", &[&up])]), TOKEN).await;
                if applied.is_lease_lost() {
                    return applied.written.len();
                }
                written.store(true, Ordering::Relaxed);
            }
            0
        }
    });
    eventually(DEADLINE, "the first writes", || written.load(Ordering::Relaxed));
    redis.run(&["SET", LEASE, "other"]);
    let other = connect(&redis.url()).await;
    let mine = plan(&[("a.test", &["http://new:1"])]);
    all_written(&sync(&other, &mine, "other").await);
    assert_eq!(list(&redis, "a.test"), ["id", "http://new:1"]);
    assert_eq!(old.await.unwrap(), 0);
    assert_eq!(list(&redis, "a.test"), ["id", "http://new:1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_rebuilt_after_redis_lost_its_data() {
    let redis = Redis::start();
    let routes = connect(&redis.url()).await;
    let shutdown = CancellationToken::new();
    let lease = Lease::start(&routes, "me", TTL, &shutdown);
    let plan = plan(&[("a.test", &["http://a:1"]), ("*.b.test", &["http://b:1"])]);
    let mut standing = lease.subscribe();
    let mut last = 0;
    for loss in ["none yet", "FLUSHALL", "restart"] {
        match loss {
            "FLUSHALL" => redis.run(&["FLUSHALL"]),
            "restart" => {
                redis.kill();
                redis.launch();
            }
            _ => {}
        }
        let leads_anew =
            |standing: &Standing| matches!(standing, Standing::Leader { term, .. } if *term > last);
        let now = tokio::time::timeout(DEADLINE, standing.wait_for(leads_anew)).await;
        let Standing::Leader { token, term } = now.expect(loss).unwrap().clone() else {
            unreachable!("waited for a leader")
        };
        last = term;
        all_written(&sync(&routes, &plan, &token).await);
        assert_eq!(list(&redis, "a.test"), ["id", "http://a:1"], "{loss}");
        assert_eq!(list(&redis, "*.b.test"), ["id", "http://b:1"], "{loss}");
        assert_eq!(redis.query::<usize>(&["HLEN", OWNED]), 2, "{loss}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_passes_on_at_shutdown_and_when_its_holder_is_gone() {
    let redis = Redis::start();
    let routes = connect(&redis.url()).await;
    let shutdown = CancellationToken::new();
    let first = Lease::start(&routes, "first", TTL, &shutdown);
    eventually(DEADLINE, "the first leads", || first.token().is_some());
    let second = Lease::start(&routes, "second", TTL, &CancellationToken::new());
    eventually(
        DEADLINE,
        "the second stands by",
        || matches!(second.standing(), Standing::Standby { leader } if leader.starts_with("first/")),
    );
    assert!(second.token().is_none());
    shutdown.cancel();
    first.ended(DEADLINE).await;
    let held: Option<String> = redis.query(&["GET", LEASE]);
    assert!(held.is_none_or(|holder| holder.starts_with("second/")), "given back");
    eventually(DEADLINE, "the second leads", || second.token().is_some());
    let lost = second.token().unwrap();

    // Somebody else holds it, without renewing it.
    redis.run(&["SET", LEASE, "gone", "PX", "300"]);
    second.suspect();
    eventually(DEADLINE, "the second has lost it", || second.token().as_ref() != Some(&lost));
    eventually(DEADLINE, "and has it again", || second.token().is_some());
    assert!(second.token() > Some(lost), "with another token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_ends_the_leadership() {
    let redis = Redis::start();
    let routes = connect(&redis.url()).await;
    let ttl = Duration::from_millis(600);
    let lease = Lease::start(&routes, "me", ttl, &CancellationToken::new());
    eventually(DEADLINE, "leads", || lease.token().is_some());
    redis.pause();
    eventually(DEADLINE, "leads no longer", || lease.standing() == Standing::Unknown);
    redis.resume();
    eventually(DEADLINE, "leads again", || lease.token().is_some());
}
