//! Keys that are huge by mistake: they harm their own host, and no other.

use integration::backend::Backend;
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::redis::Redis;
use integration::router::Router;
use pretty_assertions::assert_eq;

/// Bytes that Redis has sent to all its clients.
fn sent(redis: &Redis) -> u64 {
    let stats: String = redis.query(&["INFO", "stats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    line.and_then(|count| count.trim().parse().ok()).expect("Redis counts what it sends")
}

/// Makes a list of an identifier and `rows` backends, `url` first and then its like.
fn fill(redis: &Redis, key: &str, rows: usize, url: &str) {
    let script = "redis.call('RPUSH', KEYS[1], 'id') \
                  for index = 1, tonumber(ARGV[1]) do redis.call('RPUSH', KEYS[1], ARGV[2]) end";
    redis.run(&["EVAL", script, "1", key, &rows.to_string(), url]);
}

/// A host with a list of so many rows, one with an item of so many bytes, and ones whose settings and
/// dead set are as large, get 502 and a line in the log; nothing of them is sent.
#[test]
fn a_huge_key_harms_its_own_host_only() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    for host in ["rows.test", "fine.test", "options.test", "dead.test"] {
        redis.frontend(host, "id", &[&backend.url()]);
    }
    fill(&redis, "frontend:rows.test", 300_000, &backend.url());
    let script = "redis.call(ARGV[1], KEYS[1], 'id', string.rep('x', 50000000))";
    for (command, key) in [
        ("RPUSH", "frontend:item.test"),
        ("RPUSH", "frontend:*.w.test"),
        ("HSET", "options:options.test"),
        ("SADD", "dead:dead.test"),
    ] {
        redis.run(&["EVAL", script, "1", key, command]);
    }
    for router in [Router::tracking(&redis), Router::start(&redis)] {
        let before = sent(&redis);
        for (host, key, words) in [
            ("rows.test", "frontend:rows.test", "300003 items, and at most 10000"),
            ("item.test", "frontend:item.test", "bytes in 2 items, and at most 4194304 bytes"),
            ("random.w.test", "frontend:*.w.test", "bytes in 2 items"),
            ("options.test", "options:options.test", "at most 1048576 bytes"),
        ] {
            assert_eq!(get(router.addr(), host, "/").status(), 502, "{host}");
            router.wait_for_log(&["WARN", key, words]);
            assert_eq!(get(router.addr(), "fine.test", "/").status(), 200);
        }
        assert_eq!(get(router.addr(), "dead.test", "/").status(), 200, "its dead set is ignored");
        router.wait_for_log(&["WARN", "dead:dead.test", "dead set ignored"]);
        let sent = sent(&redis) - before;
        assert!(sent < 1_000_000, "{sent} bytes were sent");
    }
}

/// A list that is put right counts like any other change.
#[test]
fn a_huge_list_that_is_shortened_counts() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    fill(&redis, "frontend:a.test", 20_000, &backend.url());
    let router = Router::tracking(&redis);
    assert_eq!(get(router.addr(), "a.test", "/").status(), 502);
    redis.run(&["LTRIM", "frontend:a.test", "0", "10"]);
    eventually(DEADLINE, "the list is read", || get(router.addr(), "a.test", "/").status() == 200);
}

/// A long list of a wildcard is sent and parsed once, however many names are asked for; and an edit
/// of it counts for all of them.
#[test]
fn a_wildcard_is_sent_once_for_all_its_hosts() {
    let redis = Redis::start();
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    fill(&redis, "frontend:*.w.test", 5000, &old.url());
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    assert_eq!(client.get("first.w.test", "/").text(), "old");
    let before = sent(&redis);
    for number in 0..50 {
        assert_eq!(client.get(&format!("{number}.w.test"), "/").text(), "old");
    }
    let grown = sent(&redis) - before;
    assert!(grown < 100_000, "{grown} bytes were sent");
    redis.run(&["DEL", "frontend:*.w.test"]);
    redis.frontend("*.w.test", "id", &[&new.url()]);
    for host in ["first.w.test", "7.w.test", "never.w.test"] {
        eventually(DEADLINE, "the edit counts", || client.get(host, "/").text() == "new");
    }
    // A nearer list, and one's own, come before the one that is known.
    redis.frontend("*.x.w.test", "id", &[&old.url()]);
    assert_eq!(client.get("a.x.w.test", "/").text(), "old");
    redis.frontend("own.w.test", "id", &[&old.url()]);
    assert_eq!(client.get("own.w.test", "/").text(), "old");
    redis.run(&["HSET", "options:*.w.test", "maintenance", "on"]);
    eventually(DEADLINE, "settings count", || client.get("1.w.test", "/").status() == 503);
}

/// Where scripts are not allowed, the number of rows is bounded all the same, and the log says what is
/// missing.
#[test]
fn without_scripts_lists_are_bounded_by_their_rows() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("fine.test", "id", &[&backend.url()]);
    fill(&redis, "frontend:rows.test", 100_000, &backend.url());
    for missing in ["-eval", "-llen"] {
        redis.run(&["ACL", "SETUSER", "router", "on", ">pw", "~*", "&*", "+@all", missing]);
        let driver = format!("redis://router:pw@127.0.0.1:{}", redis.port());
        let router = Router::builder(&redis).unset("server.cache").set("driver", driver).start();
        assert_eq!(get(router.addr(), "fine.test", "/").status(), 200, "{missing}");
        assert_eq!(get(router.addr(), "rows.test", "/").status(), 502, "{missing}");
        assert_eq!(get(router.addr(), "unknown.test", "/").status(), 400, "{missing}");
        router.wait_for_log(&["WARN", "allows no scripts"]);
        assert_eq!(router.log().matches("allows no scripts").count(), 1);
        redis.run(&["ACL", "DELUSER", "router"]);
    }
}

/// The same where a command that only the script needs is renamed or switched off.
#[test]
fn without_a_command_of_the_script_hosts_are_read_by_others() {
    for command in ["HLEN", "LLEN", "SCARD", "MEMORY"] {
        let redis = Redis::with_arguments(&["--rename-command", command, ""]);
        let backend = Backend::start("b");
        redis.frontend("a.test", "id", &[&backend.url()]);
        let router = Router::start(&redis);
        assert_eq!(get(router.addr(), "a.test", "/").text(), "b", "{command}");
    }
}

/// An identifier of a megabyte is no megabyte in the log and in every answer to `X-Debug`.
#[test]
fn a_huge_identifier_is_cut_where_it_is_shown() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", &"x".repeat(1_000_000), &[&backend.url()]);
    let router = Router::start(&redis);
    let response = Client::connect(router.addr()).get_with("a.test", "/", "X-Debug: 1\r\n");
    let cut = format!("{}[cut]", "x".repeat(1024));
    assert_eq!(response.header("x-debug-vhost"), Some(&*cut));
    let lines = router.access_log(1);
    assert!(
        lines[0].contains(&format!("\"{cut}\"")) && lines[0].len() < 2000,
        "{}",
        lines[0].len()
    );
}
