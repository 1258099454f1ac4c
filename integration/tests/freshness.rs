//! The router's default: answers come from memory, and a change in Redis counts at once, because
//! Redis announces it.

use std::time::Duration;

use integration::backend::Backend;
use integration::client::Client;
use integration::eventually::{DEADLINE, eventually};
use integration::ports::Reserved;
use integration::redis::Redis;
use integration::router::Router;
use pretty_assertions::assert_eq;

/// Look-ups of hosts that Redis has seen: each asks once for the expiry of the dead set.
fn reads(redis: &Redis) -> u64 {
    redis.calls("pttl")
}

fn answer(client: &mut Client, host: &str) -> String {
    let response = client.get(host, "/");
    match response.status() {
        200 => response.text(),
        status => status.to_string(),
    }
}

/// Waits until `host` is answered so.
fn becomes(client: &mut Client, host: &str, wanted: &str) {
    eventually(DEADLINE, &format!("{host} is answered with {wanted}"), || {
        answer(client, host) == wanted
    });
}

#[test]
fn answers_come_from_memory_and_every_kind_of_change_counts() {
    let redis = Redis::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    let key = "frontend:a.w.test";
    assert_eq!(answer(&mut client, "a.w.test"), "400");
    let steps: [(&[&str], &str); 14] = [
        (&["RPUSH", "frontend:*", "id", &one.url()], "one"),
        (&["RPUSH", "frontend:*.w.test", "id", &two.url()], "two"),
        (&["DEL", "frontend:*.w.test"], "one"),
        (&["RPUSH", key, "id"], "502"),
        (&["RPUSH", key, &two.url()], "two"),
        (&["LSET", key, "1", &one.url()], "one"),
        (&["RPUSH", "frontend:next", "id", &two.url()], "one"),
        (&["RENAME", "frontend:next", key], "two"),
        (&["SADD", "dead:a.w.test", "0"], "502"),
        (&["SREM", "dead:a.w.test", "0"], "two"),
        (&["LREM", key, "1", &two.url()], "502"),
        (&["RPUSH", key, &one.url()], "one"),
        (&["FLUSHALL"], "400"),
        (&["RPUSH", key, "id", &two.url()], "two"),
    ];
    for (command, wanted) in steps {
        redis.run(command);
        becomes(&mut client, "a.w.test", wanted);
        let before = reads(&redis);
        for _ in 0..5 {
            assert_eq!(answer(&mut client, "a.w.test"), wanted);
        }
        assert_eq!(reads(&redis), before, "{command:?}: what is known is not asked again");
    }
}

#[test]
fn changes_elsewhere_cost_no_look_up() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    assert_eq!(answer(&mut client, "a.test"), "b");
    let before = reads(&redis);
    for number in 0..200 {
        redis.frontend(&format!("other{number}.test"), "id", &[&backend.url()]);
        redis.run(&["SADD", &format!("dead:other{number}.test"), "0"]);
        redis.run(&["SET", &format!("session:{number}"), "x"]);
        assert_eq!(answer(&mut client, "a.test"), "b");
    }
    assert_eq!(reads(&redis), before);
}

#[test]
fn the_prefix_of_the_driver_holds_for_announcements() {
    let redis = Redis::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    redis.run(&["RPUSH", "x:frontend:a.test", "id", &one.url()]);
    let router = Router::builder(&redis)
        .unset("server.cache")
        .set("driver", format!("{}/0#x:", redis.url().trim_end_matches('/')))
        .start();
    let mut client = Client::connect(router.addr());
    assert_eq!(answer(&mut client, "a.test"), "one");
    redis.run(&["LSET", "x:frontend:a.test", "1", &two.url()]);
    becomes(&mut client, "a.test", "two");
}

/// A mark ends when its time is over, without anybody saying so.
#[test]
fn the_expiry_of_a_dead_set_counts_by_itself() {
    let redis = Redis::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    redis.frontend("a.test", "id", &[&one.url(), &two.url()]);
    redis.run(&["SADD", "dead:a.test", "0"]);
    redis.run(&["PEXPIRE", "dead:a.test", "700"]);
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    assert_eq!(answer(&mut client, "a.test"), "two");
    eventually(DEADLINE, "the revived backend is used", || answer(&mut client, "a.test") == "one");
}

/// Whatever changed while nobody could announce it counts once there is a connection again.
#[test]
fn nothing_is_trusted_after_the_connection_was_lost() {
    let redis = Redis::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    redis.frontend("a.test", "id", &[&one.url()]);
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    for (index, wanted) in [&two, &one, &two, &one].into_iter().enumerate() {
        // One transaction: the change happens while the router has no connection.
        redis.run(&[
            "EVAL",
            "redis.call('LSET', KEYS[1], 1, ARGV[1]) return 1",
            "1",
            "frontend:a.test",
            &wanted.url(),
        ]);
        redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        becomes(&mut client, "a.test", wanted.name());
        assert!(router.is_running(), "{index}");
    }
}

/// Redis killed: known hosts go on from the last known table, unknown ones get 503; afterwards
/// what Redis says counts again.
#[test]
fn known_hosts_are_served_while_redis_is_away() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router =
        Router::builder(&redis).unset("server.cache").set("server.emptyRedisGrace", 0).start();
    let mut client = Client::connect(router.addr());
    assert_eq!(answer(&mut client, "a.test"), "b");
    redis.kill();
    eventually(DEADLINE, "the loss is noticed", || {
        assert_eq!(answer(&mut client, "a.test"), "b");
        answer(&mut client, "unknown.test") == "503"
    });
    for _ in 0..100 {
        assert_eq!(answer(&mut client, "a.test"), "b");
    }
    redis.launch();
    redis.frontend("b.test", "id", &[&backend.url()]);
    becomes(&mut client, "b.test", "b");
    // The server came back empty.
    becomes(&mut client, "a.test", "400");
}

/// Redis frozen: as long as it is not noticed nothing can have changed, and then it is away.
#[test]
fn a_frozen_redis_costs_no_request() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    assert_eq!(answer(&mut client, "a.test"), "b");
    redis.pause();
    assert_eq!(answer(&mut client, "unknown.test"), "503", "within the store's time limit");
    eventually(DEADLINE, "the loss is noticed", || {
        assert_eq!(answer(&mut client, "a.test"), "b");
        router.log().contains("lost the connection to Redis")
    });
    for _ in 0..100 {
        assert_eq!(answer(&mut client, "a.test"), "b");
    }
    redis.resume();
    redis.frontend("unknown.test", "id", &[&backend.url()]);
    becomes(&mut client, "unknown.test", "b");
}

/// Managed servers that forbid `CLIENT`, and servers without RESP3: said, and read per request.
#[test]
fn a_redis_that_cannot_announce_is_read_at_every_request() {
    for command in ["CLIENT", "HELLO"] {
        let redis = Redis::with_arguments(&["--rename-command", command, ""]);
        let (one, two) = (Backend::start("one"), Backend::start("two"));
        redis.frontend("a.test", "id", &[&one.url()]);
        let router = Router::tracking(&redis);
        let mut client = Client::connect(router.addr());
        assert_eq!(answer(&mut client, "a.test"), "one", "{command}");
        redis.run(&["LSET", "frontend:a.test", "1", &two.url()]);
        assert_eq!(answer(&mut client, "a.test"), "two", "{command}");
        router.wait_for_log(&["Redis does not announce changes"]);
    }
}

/// Requests for one host that come together share one look-up.
#[test]
fn a_host_is_looked_up_once_for_many_requests() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::tracking(&redis);
    redis.pause();
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(router.addr())).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    }
    // Redis answers before the look-up's time is over.
    redis.resume();
    for client in &mut clients {
        assert_eq!(client.response().text(), "b");
    }
    assert!(reads(&redis) <= 2, "{} look-ups", reads(&redis));
}

/// hipache-contract 5: a list edit moves positions; the set in Redis follows the backends, keeps its
/// time to live, and of several routers one writes it.
#[test]
fn dead_sets_follow_edited_lists_once() {
    let redis = Redis::start();
    let refusing = Reserved::new();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    redis.frontend("a.test", "id", &[&one.url(), &refusing.url(), &two.url()]);
    let routers = [Router::tracking(&redis), Router::tracking(&redis), Router::tracking(&redis)];
    redis.run(&["SADD", "dead:a.test", "1"]);
    redis.run(&["EXPIRE", "dead:a.test", "1000"]);
    let mut clients: Vec<_> = routers.iter().map(|r| Client::connect(r.addr())).collect();
    for client in &mut clients {
        for _ in 0..10 {
            assert_ne!(answer(client, "a.test"), "502");
        }
    }
    redis.run(&["LREM", "frontend:a.test", "1", &one.url()]);
    for client in &mut clients {
        becomes(client, "a.test", "two");
    }
    eventually(DEADLINE, "the set follows", || redis.dead("a.test").contains("0"));
    assert_eq!(redis.dead("a.test").len(), 1);
    let left: i64 = redis.query(&["TTL", "dead:a.test"]);
    assert!((900..=1000).contains(&left), "{left}");
    for client in &mut clients {
        for _ in 0..20 {
            assert_eq!(answer(client, "a.test"), "two");
        }
    }
    let repairs: usize =
        routers.iter().map(|r| r.log().matches("dead set follows the edited list").count()).sum();
    assert_eq!(repairs, 1);
    assert_eq!(redis.dead("a.test").len(), 1, "nobody has written it again");
}

/// docs/redis-schema.md, "the frontend has one backend only: never": an edit does not carry a mark
/// there either. What somebody writes for that very list is obeyed.
#[test]
fn a_backend_that_an_edit_leaves_alone_is_tried() {
    for (cache, has_checker) in [("tracking", false), ("tracking", true), ("off", false)] {
        let case = format!("cache {cache}, checker {has_checker}");
        let redis = Redis::start();
        let (one, two) = (Backend::start("one"), Backend::start("two"));
        redis.frontend("a.test", "id", &[&one.url(), &two.url()]);
        redis.run(&["SADD", "dead:a.test", "1"]);
        redis.run(&["EXPIRE", "dead:a.test", "1000"]);
        if has_checker {
            let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
            redis.run(&["SET", "hchecker_ping", &now.to_string()]);
        }
        let router = Router::builder(&redis).set("server.cache", cache).start();
        let mut client = Client::connect(router.addr());
        for _ in 0..10 {
            assert_eq!(answer(&mut client, "a.test"), "one", "{case}");
        }
        redis.run(&["LREM", "frontend:a.test", "0", &one.url()]);
        becomes(&mut client, "a.test", "two");
        if !has_checker {
            eventually(DEADLINE, "the mark is gone", || redis.dead("a.test").is_empty());
        }
        for _ in 0..10 {
            // Makes the router read again, and changes nothing.
            redis.run(&["LSET", "frontend:a.test", "0", "id"]);
            assert_eq!(answer(&mut client, "a.test"), "two", "{case}");
        }
        let left: Vec<_> = redis.dead("a.test").into_iter().collect();
        assert_eq!(left.join(" "), if has_checker { "1" } else { "" }, "{case}");
        redis.run(&["SADD", "dead:a.test", "0"]);
        becomes(&mut client, "a.test", "502");
    }
}

/// docs/migrating-from-hipache.md: of a URL that is listed twice the drawn position is marked in
/// Redis, and all are left out.
#[test]
fn one_mark_of_a_url_that_is_listed_twice_stays_one() {
    for cache in ["tracking", "off"] {
        let redis = Redis::start();
        let (refusing, good) = (Reserved::new(), Backend::start("good"));
        let urls = [refusing.url(), good.url()];
        redis.frontend("a.test", "id", &[&urls[0], &urls[1], &urls[0], &urls[1]]);
        let published = redis.subscribe("dead");
        let router = Router::builder(&redis).set("server.cache", cache).start();
        let mut client = Client::connect(router.addr());
        let mut message = None;
        eventually(DEADLINE, "a mark", || {
            assert_eq!(answer(&mut client, "a.test"), "good");
            message = published.within(Duration::from_millis(30));
            message.is_some()
        });
        let position = message.as_deref().and_then(|message| message.split(';').nth(2));
        let position = position.expect("host;url;position;count").to_owned();
        for _ in 0..50 {
            // Makes the router read again, and changes nothing.
            redis.run(&["LSET", "frontend:a.test", "0", "id"]);
            assert_eq!(answer(&mut client, "a.test"), "good", "cache {cache}");
        }
        assert_eq!(redis.dead("a.test"), [position].into(), "cache {cache}");
        assert!(!router.log().contains("dead set follows"), "cache {cache}");
    }
}

/// A list swapped by `RENAME` has nothing to do with the marks of the old one.
#[test]
fn a_swapped_list_begins_without_marks() {
    let redis = Redis::start();
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    redis.frontend("a.test", "id", &[&blue.url(), &blue.url()]);
    redis.run(&["SADD", "dead:a.test", "0"]);
    redis.run(&["EXPIRE", "dead:a.test", "1000"]);
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    assert_eq!(answer(&mut client, "a.test"), "blue");
    redis.frontend("next", "id", &[&green.url()]);
    redis.run(&["RENAME", "frontend:next", "frontend:a.test"]);
    becomes(&mut client, "a.test", "green");
    eventually(DEADLINE, "the old marks are gone", || redis.dead("a.test").is_empty());
}

/// A mark is written for the backend, wherever it stands by then.
#[test]
fn a_mark_finds_its_backend_in_a_list_that_was_edited() {
    let redis = Redis::start();
    let (refusing, good) = (Reserved::new(), Backend::start("good"));
    redis.frontend("a.test", "id", &[&refusing.url(), &good.url()]);
    // The answer is kept, so the router works with the list as it was.
    let router = Router::builder(&redis)
        .set("server.cache", "ttl")
        .set("server.lruCache", serde_json::json!({"size": 10, "ttl": 1000}))
        .start();
    let mut client = Client::connect(router.addr());
    // Until this expires the refusing backend is not tried.
    redis.run(&["SADD", "dead:a.test", "0"]);
    redis.run(&["PEXPIRE", "dead:a.test", "700"]);
    assert_eq!(answer(&mut client, "a.test"), "good");
    redis.run(&["LINSERT", "frontend:a.test", "BEFORE", &refusing.url(), &good.url()]);
    eventually(DEADLINE, "the mark is at position 1", || {
        assert_eq!(answer(&mut client, "a.test"), "good");
        redis.dead("a.test").contains("1")
    });
    assert_eq!(redis.dead("a.test").len(), 1);
}

/// Nor is a mark written, or published, for a backend that an edit has left alone meanwhile.
#[test]
fn a_mark_on_its_way_to_a_backend_that_is_alone_by_now_is_not_written() {
    let redis = Redis::start();
    let (refusing, good) = (Reserved::new(), Backend::start("good"));
    redis.frontend("a.test", "id", &[&refusing.url(), &good.url()]);
    redis.frontend("proof.test", "id", &[&refusing.url(), &refusing.url()]);
    // The answer is kept, so the router works with the list as it was.
    let router = Router::builder(&redis)
        .set("server.cache", "ttl")
        .set("server.lruCache", serde_json::json!({"size": 10, "ttl": 1000}))
        .start();
    let published = redis.subscribe("dead");
    let mut client = Client::connect(router.addr());
    // Until this expires the refusing backend is not tried.
    redis.run(&["SADD", "dead:a.test", "0"]);
    redis.run(&["PEXPIRE", "dead:a.test", "700"]);
    assert_eq!(answer(&mut client, "a.test"), "good");
    redis.run(&["LREM", "frontend:a.test", "1", &good.url()]);
    eventually(DEADLINE, "the refusing backend is tried", || {
        assert_eq!(answer(&mut client, "a.test"), "good");
        router.log().contains("backend marked dead host=a.test")
    });
    // Marks are written one after another.
    assert_eq!(answer(&mut client, "proof.test"), "502");
    let message = published.next();
    assert!(message.starts_with("proof.test;"), "{message}");
    assert!(redis.dead("a.test").is_empty());
}

/// A dead set that was made anew for a list that was replaced says what it says: the same positions
/// mean other backends, and nobody may put that "right".
#[test]
fn a_dead_set_made_anew_for_a_new_list_is_taken_as_it_is() {
    let redis = Redis::start();
    let (one, two, three) = (Backend::start("one"), Backend::start("two"), Backend::start("three"));
    redis.frontend("a.test", "id", &[&one.url(), &two.url(), &three.url()]);
    redis.run(&["SADD", "dead:a.test", "0"]);
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    assert_ne!(answer(&mut client, "a.test"), "one");
    let script = "redis.call('DEL', KEYS[1], KEYS[2]) \
                  redis.call('RPUSH', KEYS[1], 'id', ARGV[1], ARGV[2]) \
                  redis.call('SADD', KEYS[2], 0)";
    let (two, one) = (two.url(), one.url());
    redis.run(&["EVAL", script, "2", "frontend:a.test", "dead:a.test", &two, &one]);
    becomes(&mut client, "a.test", "one");
    for _ in 0..50 {
        assert_eq!(answer(&mut client, "a.test"), "one");
    }
    assert!(redis.dead("a.test").contains("0"));
}

/// Marks in any order are no reason to rewrite the set.
#[test]
fn several_marks_are_written_once_each() {
    let redis = Redis::start();
    let good = Backend::start("good");
    let dead: Vec<_> = (0..3).map(|_| Reserved::new()).collect();
    let mut urls: Vec<_> = dead.iter().map(Reserved::url).collect();
    urls.insert(2, good.url());
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    redis.frontend("a.test", "id", &urls);
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    eventually(DEADLINE, "all are marked", || {
        assert_eq!(answer(&mut client, "a.test"), "good");
        redis.dead("a.test").len() == 3
    });
    for _ in 0..200 {
        assert_eq!(answer(&mut client, "a.test"), "good");
    }
    assert!(redis.calls("publish") <= 6, "{} marks", redis.calls("publish"));
    assert!(!router.log().contains("dead set follows"), "{}", router.log());
}
