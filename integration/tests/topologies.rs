//! Redis in every shape that `driver` can name: sockets, users, TLS, replicas, Sentinels.

use std::sync::atomic::{AtomicBool, Ordering};

use integration::backend::Backend;
use integration::certificates::Authority;
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::ports::Reserved;
use integration::redis::Redis;
use integration::router::Router;
use integration::sentinel::{SERVICE, Sentinel};
use pretty_assertions::assert_eq;

/// A router in its default mode over this `driver`.
fn router(redis: &Redis, driver: impl Into<serde_json::Value>) -> Router {
    Router::builder(redis).unset("server.cache").set("driver", driver.into()).start()
}

/// Waits until `host` is answered with 200.
fn is_served(router: &Router, host: &str) {
    eventually(DEADLINE, &format!("{host} is served"), || {
        get(router.addr(), host, "/").status() == 200
    });
}

/// Serves a host, and follows a change of it: reading, tracking and marking all work.
fn works(router: &Router, redis: &Redis) {
    let (one, two, refusing) = (Backend::start("one"), Backend::start("two"), Reserved::new());
    redis.frontend("works.test", "id", &[&one.url()]);
    let mut client = Client::connect(router.addr());
    eventually(DEADLINE, "the host is served", || client.get("works.test", "/").text() == "one");
    redis.run(&["LSET", "frontend:works.test", "1", &two.url()]);
    eventually(DEADLINE, "a change counts", || client.get("works.test", "/").text() == "two");
    redis.run(&["RPUSH", "frontend:works.test", &refusing.url()]);
    eventually(DEADLINE, "a mark is written", || {
        assert_eq!(client.get("works.test", "/").text(), "two");
        redis.dead("works.test").contains("1")
    });
}

#[test]
fn a_unix_socket_serves_like_any_other_redis() {
    let redis = Redis::start();
    let router = router(&redis, format!("unix:{}", redis.socket().display()));
    router.wait_for_log(&["INFO", "connected to Redis", "Active"]);
    works(&router, &redis);
}

/// The rights that docs/redis-schema.md gives the router suffice, and the password may come from a
/// file.
#[test]
fn an_acl_user_with_the_documented_rights_suffices() {
    let schema = include_str!("../../docs/redis-schema.md");
    let rule = schema.split("redis-cli ACL SETUSER router ").nth(1);
    let rule = rule.expect("docs/redis-schema.md has the rule").split("```").next().unwrap();
    // It stands there for a shell.
    let rule = rule.replace("\\\n", " ").replace('\'', "");
    let redis = Redis::start();
    let words: Vec<_> = ["ACL", "SETUSER", "router"]
        .into_iter()
        .chain(
            rule.split_whitespace()
                .map(|word| if word.starts_with('>') { ">s3cret" } else { word }),
        )
        .collect();
    redis.run(&words);
    let mut builder = Router::builder(&redis)
        .unset("server.cache")
        .set("driver", format!("redis://router@127.0.0.1:{}", redis.port()));
    let file = builder.path("password");
    std::fs::write(&file, "s3cret\n").unwrap();
    builder = builder.arg("--redis-password-file").arg(&file.display().to_string());
    let router = builder.start();
    router.wait_for_log(&["INFO", "connected to Redis", "Active"]);
    works(&router, &redis);
    assert!(!router.log().contains("WARN Redis"), "{}", router.log());
    // The guard against huge items works, too.
    let script = "redis.call('RPUSH', KEYS[1], 'id', string.rep('x', 5000000))";
    redis.run(&["EVAL", script, "1", "frontend:huge.test"]);
    assert_eq!(get(router.addr(), "huge.test", "/").status(), 502);
    router.wait_for_log(&["WARN", "frontend:huge.test", "at most 4194304 bytes"]);
}

#[test]
fn an_encrypted_redis_is_verified_by_the_named_authority() {
    let (authority, other) = (Authority::new(), Authority::new());
    let redis = Redis::with_tls(&authority.sign(&["redis.test"]), &authority.ca(), false);
    let driver =
        |ca: &Authority| format!("rediss://127.0.0.1:{}?ca={}", redis.port(), ca.ca().display());
    works(&router(&redis, driver(&authority)), &redis);
    let distrustful = router(&redis, driver(&other));
    distrustful.wait_for_log(&["WARN", "cannot use Redis", "check its certificate"]);
    assert_eq!(get(distrustful.addr(), "works.test", "/").status(), 503);
}

#[test]
fn a_client_certificate_is_shown_where_redis_asks_for_one() {
    let authority = Authority::new();
    let redis = Redis::with_tls(&authority.sign(&["redis.test"]), &authority.ca(), true);
    let driver = format!("rediss://127.0.0.1:{}?ca={}", redis.port(), authority.ca().display());
    let me = authority.sign(&["router.test"]);
    let (certificate, key) = (me.certificate.display(), me.key.display());
    works(&router(&redis, format!("{driver}&cert={certificate}&key={key}")), &redis);
    let nobody = router(&redis, driver.clone());
    nobody.wait_for_log(&["WARN", "cannot use Redis"]);
    assert_eq!(get(nobody.addr(), "works.test", "/").status(), 503);
    let without = router(&redis, format!("{driver}&cert=/nowhere.pem&key={key}"));
    without.wait_for_log(&["WARN", "/nowhere.pem cannot be read"]);
}

/// Hipache's pair of drivers: reads and announcements come from the replica, marks go to the
/// primary and return by replication.
#[test]
fn a_replica_is_read_and_its_primary_written() {
    let primary = Redis::start();
    let replica = Redis::replica_of(&primary);
    let router = router(&replica, serde_json::json!([replica.url(), primary.url()]));
    works(&router, &primary);
    assert_eq!(replica.dead("works.test"), primary.dead("works.test"));
    assert_eq!(primary.calls("lrange"), 0, "nothing is read from the primary");
}

/// Somebody names the replica as the only driver: requests are served and routed around dead
/// backends, and it is said once that marks cannot be written.
#[test]
fn a_read_only_replica_alone_costs_marks_and_no_request() {
    let primary = Redis::start();
    let replica = Redis::replica_of(&primary);
    let (good, refusing) = (Backend::start("good"), Reserved::new());
    primary.frontend("a.test", "id", &[&refusing.url(), &good.url()]);
    let router = Router::builder(&replica).set("server.deadBackendTTL", 1).start();
    is_served(&router, "a.test");
    let mut client = Client::connect(router.addr());
    for _ in 0..50 {
        assert_eq!(client.get("a.test", "/").text(), "good");
    }
    router.wait_for_log(&["WARN", "dead marks", "READONLY"]);
    let complaints = router.log().matches("READONLY").count();
    assert_eq!(complaints, 1, "{}", router.log());
}

/// A primary, its replica and a Sentinel.
fn watched_pair() -> (Redis, Redis, Sentinel) {
    let primary = Redis::start();
    let replica = Redis::replica_of(&primary);
    let sentinel = Sentinel::start(&primary);
    sentinel.wait_for_replicas(1);
    (primary, replica, sentinel)
}

/// Asks for the known host all the time while `disturb` runs; every request must be answered.
fn under_load(router: &Router, host: &str, disturb: impl FnOnce()) {
    let over = AtomicBool::new(false);
    let address = router.addr();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut client = Client::connect(address);
            let mut answered = 0;
            while !over.load(Ordering::Relaxed) {
                let response = client.get(host, "/");
                assert_eq!(response.status(), 200, "after {answered} requests");
                answered += 1;
            }
            answered
        });
        // The load must end even if the disturbance fails.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(disturb));
        over.store(true, Ordering::Relaxed);
        let answered = load.join().expect("every request is answered");
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(answered > 10, "{answered} requests are no load");
    });
}

/// Both ways a failover happens: the primary dies, or it is told to step down.
#[test]
fn a_failover_by_sentinel_costs_no_request_and_new_routes_follow() {
    for is_killed in [true, false] {
        let (primary, replica, sentinel) = watched_pair();
        let backend = Backend::start("b");
        primary.frontend("a.test", "id", &[&backend.url()]);
        primary.wait_for_replicas(1);
        let unused = Reserved::new();
        let driver = format!("redis+sentinel://{},{}/{SERVICE}", unused.addr(), sentinel.addr());
        let router = router(&primary, driver);
        is_served(&router, "a.test");
        under_load(&router, "a.test", || {
            if is_killed {
                primary.kill();
            } else {
                sentinel.fail_over();
            }
            eventually(DEADLINE, "the replica is the primary", || {
                sentinel.primary() == Some(replica.port()) && replica.takes_writes()
            });
            replica.frontend("new.test", "id", &[&backend.url()]);
            is_served(&router, "new.test");
        });
        router.wait_for_log(&["INFO", "connected to Redis", &replica.port().to_string()]);
        works(&router, &replica);
    }
}

/// A frozen primary keeps its connections; the Sentinels' word counts all the same. When it thaws it
/// still takes itself for the primary, for a while.
#[test]
fn a_frozen_primary_is_left_for_its_successor() {
    let (primary, replica, sentinel) = watched_pair();
    let backend = Backend::start("b");
    primary.frontend("a.test", "id", &[&backend.url()]);
    primary.wait_for_replicas(1);
    let router = router(&primary, format!("redis+sentinel://{}/{SERVICE}", sentinel.addr()));
    is_served(&router, "a.test");
    under_load(&router, "a.test", || {
        primary.pause();
        eventually(DEADLINE, "the replica is the primary", || {
            sentinel.primary() == Some(replica.port()) && replica.takes_writes()
        });
        replica.frontend("new.test", "id", &[&backend.url()]);
        is_served(&router, "new.test");
        primary.resume();
        works(&router, &replica);
    });
}

#[test]
fn sentinels_that_know_nothing_are_named() {
    let redis = Redis::start();
    let sentinel = Sentinel::start(&redis);
    let router = router(&redis, format!("redis+sentinel://{}/other", sentinel.addr()));
    router.wait_for_log(&["WARN", "cannot use Redis", "Sentinel", &sentinel.addr().to_string()]);
    assert_eq!(get(router.addr(), "a.test", "/").status(), 503);
}
