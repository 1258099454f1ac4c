//! Living with the other programs that use the same keys (docs/hipache-contract.md 5), and with
//! what people leave there by mistake.

use integration::backend::Backend;
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::ports::Reserved;
use integration::redis::Redis;
use integration::router::Router;
use pretty_assertions::assert_eq;

fn unix_now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

/// **hchecker**: "subscribes to `dead`; sets `hchecker_ping`; … dead = `SADD dead:<host> <pos>` +
/// `EXPIRE 60`, alive = `SREM`". Its part is played here step by step.
#[test]
fn hchecker_works_beside_us_unchanged() {
    let redis = Redis::start();
    let (flaky, good) = (Backend::start("flaky"), Backend::start("good"));
    redis.frontend("a.test", "id", &[&flaky.url(), &good.url()]);
    let dead = redis.subscribe("dead");
    redis.run(&["SET", "hchecker_ping", &unix_now().to_string()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());

    // The backend dies; the router reports it and leaves the marking to the checker.
    flaky.kill();
    let mut report = None;
    eventually(DEADLINE, "the failure is reported", || {
        assert_eq!(client.get("a.test", "/").text(), "good");
        report = dead.within(std::time::Duration::from_millis(20));
        report.is_some()
    });
    let report = report.expect("reported");
    let fields: Vec<_> = report.split(';').collect();
    assert_eq!(fields, ["a.test", &format!("{}/", flaky.url()), "0", "2"]);
    assert!(redis.dead("a.test").is_empty(), "marking is the checker's business");

    // The checker finds it dead.
    redis.run(&["SADD", "dead:a.test", fields[2]]);
    redis.run(&["EXPIRE", "dead:a.test", "60"]);
    flaky.revive();
    let before = flaky.request_count();
    for _ in 0..30 {
        assert_eq!(client.get("a.test", "/").text(), "good");
    }
    assert_eq!(flaky.request_count(), before, "a backend that the checker has marked is not asked");

    // The checker asks it as it does, and finds it alive again.
    let mut checker = Client::connect(([127, 0, 0, 1], flaky.port()).into());
    checker.send("HEAD /CloudHealthCheck HTTP/1.1\r\nHost: ping\r\n\r\n");
    assert_eq!(checker.response_to("HEAD").status(), 200);
    redis.run(&["SREM", "dead:a.test", "0"]);
    eventually(DEADLINE, "the backend is used again", || {
        client.get("a.test", "/").text() == "flaky"
    });
}

/// hchecker's lock, the hash `hchecker`, is left alone; so is every key that is not ours.
#[test]
fn keys_of_others_are_left_alone() {
    let redis = Redis::start();
    let (refusing, good) = (Reserved::new(), Backend::start("good"));
    redis.frontend("a.test", "id", &[&refusing.url(), &good.url()]);
    redis.run(&["HSET", "hchecker", "lock", "me"]);
    redis.run(&["HSET", "tls:a.test", "certificate", "x", "key", "y"]);
    redis.run(&["HSET", "healthcheck:a.test", "path", "/"]);
    redis.run(&["SET", "session:1", "theirs"]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    eventually(DEADLINE, "a mark is written", || {
        assert_eq!(client.get("a.test", "/").text(), "good");
        redis.dead("a.test").contains("0")
    });
    let mut keys: Vec<String> = redis.query(&["KEYS", "*"]);
    keys.sort();
    assert_eq!(
        keys,
        [
            "dead:a.test",
            "frontend:a.test",
            "hchecker",
            "healthcheck:a.test",
            "session:1",
            "tls:a.test"
        ]
    );
    assert_eq!(redis.query::<String>(&["GET", "session:1"]), "theirs");
    assert_eq!(redis.query::<String>(&["HGET", "hchecker", "lock"]), "me");
}

/// **PlanB**: "Its lock keys are strings `dead:<host>:<url>`: a string under `dead:` must not break
/// us."
#[test]
fn planbs_lock_keys_do_not_break_us() {
    let redis = Redis::start();
    let (refusing, good) = (Reserved::new(), Backend::start("good"));
    redis.frontend("a.test", "id", &[&refusing.url(), &good.url()]);
    let lock = format!("dead:a.test:{}", refusing.url());
    redis.run(&["SET", &lock, "1"]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    eventually(DEADLINE, "marks work beside them", || {
        assert_eq!(client.get("a.test", "/").text(), "good");
        redis.dead("a.test").contains("0")
    });
    assert_eq!(redis.query::<String>(&["GET", &lock]), "1");
}

/// "A `dead:` key of the wrong type": ignored, the host is served, and the log names the key.
#[test]
fn a_dead_key_of_the_wrong_type_is_ignored() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    let router = Router::start(&redis);
    let kinds: [&[&str]; 4] = [
        &["SET", "dead:string.test", "0"],
        &["RPUSH", "dead:list.test", "0"],
        &["HSET", "dead:hash.test", "0", "1"],
        &["ZADD", "dead:zset.test", "0", "0"],
    ];
    for command in kinds {
        redis.run(command);
        let key = command[1];
        let host = key.trim_start_matches("dead:");
        redis.frontend(host, "id", &[&backend.url(), &backend.url()]);
        for _ in 0..5 {
            assert_eq!(get(router.addr(), host, "/").text(), "b", "{key}");
        }
        router.wait_for_log(&["WARN", key]);
    }
    let refusing = Reserved::new();
    redis.frontend("string.test", "id", &[&refusing.url(), &backend.url()]);
    for _ in 0..10 {
        assert_eq!(get(router.addr(), "string.test", "/").text(), "b");
    }
    assert_eq!(
        redis.query::<String>(&["TYPE", "dead:string.test"]),
        "string",
        "not ours to delete"
    );
}

/// Members of the dead set that are no positions: ignored.
#[test]
fn garbage_in_the_dead_set_is_ignored() {
    let redis = Redis::start();
    let (first, second) = (Backend::start("1"), Backend::start("2"));
    redis.frontend("a.test", "id", &[&first.url(), &second.url()]);
    redis.run(&["SADD", "dead:a.test", "x", "-1", "7", "99999999999999999999", "", "0.5", "1"]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    for _ in 0..30 {
        assert_eq!(client.get("a.test", "/").text(), "1");
    }
}

/// "A `frontend:` key that is a string: a clear log line, 502 for that host, nobody else harmed":
/// the line names the key, its type and the fix.
#[test]
fn a_frontend_of_the_wrong_type_harms_its_host_only() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("good.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    let kinds: [(&str, &[&str]); 4] = [
        ("string", &["SET", "frontend:string.test", "http://127.0.0.1:1"]),
        ("set", &["SADD", "frontend:set.test", "x"]),
        ("hash", &["HSET", "frontend:hash.test", "a", "b"]),
        ("zset", &["ZADD", "frontend:zset.test", "0", "x"]),
    ];
    for (kind, command) in kinds {
        redis.run(command);
        let key = command[1];
        let host = key.trim_start_matches("frontend:");
        assert_eq!(client.get(host, "/").status(), 502, "{key}");
        assert_eq!(client.get("good.test", "/").text(), "b");
        let line = router.wait_for_log(&["WARN", key]);
        assert!(line.contains(kind) && line.contains("list"), "{line}");
        let fix = ["DEL", "RPUSH", "delete", "redis-cli"];
        assert!(fix.iter().any(|word| line.contains(word)), "no fix in {line}");
    }
    // It heals by itself.
    redis.frontend("string.test", "id", &[&backend.url()]);
    assert_eq!(client.get("string.test", "/").text(), "b");
}

/// The same for a wildcard that a host falls back to, and for a prefix that the key shows.
#[test]
fn a_wildcard_of_the_wrong_type_harms_those_that_need_it() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("good.w.test", "id", &[&backend.url()]);
    redis.run(&["SET", "frontend:*.w.test", "oops"]);
    let router = Router::start(&redis);
    assert_eq!(get(router.addr(), "good.w.test", "/").text(), "b", "has a list of its own");
    assert_eq!(get(router.addr(), "other.w.test", "/").status(), 502);
    router.wait_for_log(&["WARN", "frontend:*.w.test"]);
}

/// "Rows of garbage": skipped with a warning; the others are used, and positions still count as
/// they stand in the list.
#[test]
fn rows_of_garbage_are_skipped() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    let garbage = [
        "garbage",
        "",
        "http://",
        "\u{0}\u{1}",
        "http://a b/",
        "http://[::1/",
        "://x",
        "http://x:99999/",
    ];
    let url = backend.url();
    let rows = [&garbage[..], &[url.as_str()]].concat();
    redis.frontend("a.test", "id", &rows);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    for _ in 0..20 {
        let response = client.get_with("a.test", "/", "X-Debug: 1\r\n");
        assert_eq!(response.text(), "b");
        assert_eq!(response.header("x-debug-backend-id"), Some(garbage.len().to_string().as_str()));
    }
    router.wait_for_log(&["WARN", "a.test", "position=0"]);
    let warnings = router.log().matches("WARN").count();
    assert!(warnings <= 2 * garbage.len(), "said for every request: {warnings} warnings");
}

/// A row of garbage that is also binary or enormous.
#[test]
fn binary_and_enormous_rows_harm_nobody() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("good.test", "id", &[&backend.url()]);
    let huge = "x".repeat(1024 * 1024);
    redis.frontend("huge.test", &huge, &[&huge, &backend.url()]);
    redis.run(&[
        "EVAL",
        "redis.call('RPUSH', KEYS[1], 'id\\255\\254', '\\255\\0\\13\\10', ARGV[1])",
        "1",
        "frontend:binary.test",
        &backend.url(),
    ]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    for host in ["huge.test", "binary.test", "good.test"] {
        assert_eq!(client.get(host, "/").text(), "b", "{host}");
    }
    let lines = router.access_log(3);
    assert!(lines.iter().all(|line| line.is_ascii()), "{lines:?}");
    assert!(router.log().len() < 100_000, "the log repeats a row of a megabyte");
}

/// "`LREM` shifts positions, so marks point at the wrong backend … **Ours**: a list edit never
/// makes a live backend look dead for longer than the edit takes."
#[test]
fn ours_a_list_edit_does_not_make_a_live_backend_look_dead() {
    let redis = Redis::start();
    let (dead, one, two) = (Reserved::new(), Backend::start("one"), Backend::start("two"));
    redis.frontend("a.test", "id", &[&dead.url(), &one.url(), &two.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    eventually(DEADLINE, "position 0 is marked", || {
        client.get("a.test", "/");
        redis.dead("a.test").contains("0")
    });
    // The operator removes the dead backend; now position 0 is a live one.
    redis.run(&["LREM", "frontend:a.test", "1", &dead.url()]);
    eventually(DEADLINE, "the backend now at position 0 is used", || {
        client.get("a.test", "/").text() == "one"
    });
}

/// **airfield, hipachectl, redis-cli**: each kind of edit counts from the next request on.
#[test]
fn every_kind_of_edit_counts() {
    let redis = Redis::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    let key = "frontend:a.test";
    redis.run(&["RPUSH", key, "id", &one.url()]);
    assert_eq!(client.get("a.test", "/").text(), "one");
    redis.run(&["RPUSH", key, &two.url()]);
    redis.run(&["LREM", key, "0", &one.url()]);
    assert_eq!(client.get("a.test", "/").text(), "two");
    redis.run(&["LSET", key, "1", &one.url()]);
    assert_eq!(client.get("a.test", "/").text(), "one");
    redis.run(&["RENAME", key, "frontend:b.test"]);
    assert_eq!(client.get("a.test", "/").status(), 400);
    assert_eq!(client.get("b.test", "/").text(), "one");
    redis.run(&["EXPIRE", "frontend:b.test", "0"]);
    assert_eq!(client.get("b.test", "/").status(), 400);
    redis.run(&["RPUSH", key, "id", &two.url()]);
    assert_eq!(client.get("a.test", "/").text(), "two");
    redis.run(&["FLUSHALL"]);
    assert_eq!(client.get("a.test", "/").status(), 400);
}
