//! Redis away, late, frozen or wrong. A router is never worse off than its last knowledge, and never
//! keeps a client waiting for a store that does not answer.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use integration::backend::Backend;
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::redis::Redis;
use integration::router::Router;
use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;

/// "Starts with Redis down, says so plainly, and heals."
#[test]
fn starts_without_redis_and_heals() {
    let redis = Redis::down();
    let backend = Backend::start("b");
    let router = Router::start(&redis);
    router.wait_for_log(&["WARN", "Redis"]);
    router.wait_for_log(&[&redis.port().to_string()]);
    assert_eq!(get(router.addr(), "a.test", "/").status(), 503);
    assert_eq!(get(router.addr(), "__ping__", "/").status(), 200);
    redis.launch();
    redis.frontend("a.test", "id", &[&backend.url()]);
    eventually(DEADLINE, "routes are read", || get(router.addr(), "a.test", "/").status() == 200);
    router.wait_for_log(&["INFO", "Redis"]);
}

/// "Store unreachable and host unknown: 503", with the error page; "known hosts go on from the last
/// known table".
#[test]
fn known_hosts_go_on_while_redis_is_away() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    redis.frontend("unseen.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.emptyRedisGrace", 0).start();
    let mut client = Client::connect(router.addr());
    assert_eq!(client.get("a.test", "/").text(), "b");
    redis.kill();
    for _ in 0..10 {
        assert_eq!(client.get("a.test", "/").text(), "b");
    }
    let response = client.get_with("unseen.test", "/", "X-Debug: 1\r\n");
    assert_eq!(response.status(), 503);
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    assert!(response.head.has("x-debug-error"));
    router.wait_for_log(&["WARN", "Redis"]);
    redis.launch();
    redis.frontend("unseen.test", "id", &[&backend.url()]);
    eventually(DEADLINE, "new routes are read", || client.get("unseen.test", "/").status() == 200);
    eventually(DEADLINE, "an empty Redis counts, too", || {
        client.get("a.test", "/").status() == 400
    });
}

/// **Ours**: a Redis that comes back empty, after a restart without persistence, takes no host off the air:
/// each goes on until its key exists again. What the new server has had counts as ever.
#[test]
fn ours_known_hosts_go_on_when_redis_comes_back_empty() {
    for cache in ["tracking", "off"] {
        let redis = Redis::start();
        let (old, new) = (Backend::start("old"), Backend::start("new"));
        redis.frontend("a.test", "id", &[&old.url()]);
        redis.frontend("*.w.test", "id", &[&old.url()]);
        let router = Router::builder(&redis)
            .set("server.cache", cache)
            .set("server.admin", "127.0.0.1:0")
            .start();
        let mut client = Client::connect(router.addr());
        for host in ["a.test", "x.w.test"] {
            assert_eq!(client.get(host, "/").text(), "old");
        }
        redis.kill();
        redis.launch();
        // Not for one request does the empty server count.
        for _ in 0..50 {
            for host in ["a.test", "x.w.test"] {
                assert_eq!(client.get(host, "/").text(), "old", "{cache}");
            }
        }
        router.wait_for_log(&["WARN", "Redis has come back empty", "lists=2 missing=2"]);
        eventually(DEADLINE, "an unknown host is unknown", || {
            client.get("unknown.test", "/").status() == 400
        });
        let admin = router.admin().expect("an admin listener");
        let admin = admin.trim_start_matches("http://").trim_end_matches('/');
        let admin = admin.parse().expect("an address");
        let ready = get(admin, "admin", "/readyz");
        assert_eq!(ready.status(), 200);
        assert!(ready.text().contains("Redis came back empty, 2 hosts"), "{}", ready.text());
        assert!(get(admin, "admin", "/metrics").text().contains("router_held_hosts 2"));

        redis.frontend("a.test", "id", &[&new.url()]);
        eventually(DEADLINE, "its key counts again", || client.get("a.test", "/").text() == "new");
        redis.run(&["DEL", "frontend:a.test"]);
        eventually(DEADLINE, "its deletion counts", || client.get("a.test", "/").status() == 400);
        assert_eq!(client.get("x.w.test", "/").text(), "old");
        redis.frontend("*.w.test", "id", &[&new.url()]);
        eventually(DEADLINE, "so does the wildcard", || {
            client.get("x.w.test", "/").text() == "new"
        });
        router.wait_for_log(&["INFO", "the routes are back in Redis"]);
        assert!(get(admin, "admin", "/metrics").text().contains("router_held_hosts 0"));
        redis.run(&["FLUSHALL"]);
        eventually(DEADLINE, "a flush of a living server counts", || {
            client.get("x.w.test", "/").status() == 400
        });
    }
}

/// What was deleted or flushed while its server was running stays deleted when that server comes back empty, also
/// where nobody has asked meanwhile.
#[test]
fn lists_deleted_before_redis_came_back_empty_stay_deleted() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    let hosts = ["kept.test", "deleted.test", "x.w.test", "settings.test"];
    for list in ["kept.test", "deleted.test", "*.w.test", "settings.test", "proof.test"] {
        redis.frontend(list, "id", &[&backend.url()]);
    }
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    for host in hosts {
        assert_eq!(client.get(host, "/").text(), "b", "{host}");
    }
    assert_eq!(client.get("proof.test", "/").text(), "b");
    redis.run(&["DEL", "frontend:deleted.test", "frontend:*.w.test"]);
    redis.run(&["HSET", "options:settings.test", "maintenance", "on"]);
    redis.run(&["SADD", "dead:kept.test", "0"]);
    // Announcements come in order.
    redis.run(&["DEL", "frontend:proof.test"]);
    eventually(DEADLINE, "the deletions are known", || {
        client.get("proof.test", "/").status() == 400
    });
    redis.kill();
    redis.launch();
    router.wait_for_log(&["WARN", "Redis has come back empty", "lists=1 missing=1"]);
    let statuses = hosts.map(|host| client.get(host, "/").status());
    assert_eq!(statuses, [200, 400, 400, 400]);
}

/// The same of a flush.
#[test]
fn flushed_lists_are_not_held_when_redis_is_restarted() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    for host in ["a.test", "b.test"] {
        redis.frontend(host, "id", &[&backend.url()]);
    }
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    for host in ["a.test", "b.test"] {
        assert_eq!(client.get(host, "/").text(), "b");
    }
    redis.run(&["FLUSHALL"]);
    eventually(DEADLINE, "the flush is known", || client.get("a.test", "/").status() == 400);
    redis.kill();
    redis.launch();
    // It ends with Redis up: an outage would serve what was known last.
    redis.frontend("new.test", "id", &[&backend.url()]);
    eventually(DEADLINE, "Redis is read", || client.get("new.test", "/").status() == 200);
    eventually(DEADLINE, "nothing is held", || client.get("b.test", "/").status() == 400);
    assert!(!router.log().contains("come back empty"), "{}", router.log());
}

/// A connection whose question for the server's `run_id` stays unanswered is given up, and another one made.
#[test]
fn an_unanswered_info_does_not_stop_the_connecting() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let driver = format!("redis://{}", listener.local_addr().expect("an address"));
    let port = redis.port();
    drop(std::thread::spawn(move || {
        for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
            let server = TcpStream::connect(("127.0.0.1", port)).expect("Redis");
            let other = (client.try_clone().expect("a file"), server.try_clone().expect("a file"));
            drop(std::thread::spawn(move || copy_without_info(client, server, number == 0)));
            drop(std::thread::spawn(move || copy_without_info(other.1, other.0, false)));
        }
    }));
    let router = Router::builder(&redis).set("driver", driver).start();
    eventually(DEADLINE, "the second connection serves", || {
        get(router.addr(), "a.test", "/").status() == 200
    });
}

/// Copies until one side ends, without `INFO` if that is `swallowed`.
fn copy_without_info(mut from: TcpStream, mut to: TcpStream, swallowed: bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..length];
        if swallowed && bytes.windows(8).any(|word| word == b"\r\nINFO\r\n") {
            continue;
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _is_closed = to.shutdown(Shutdown::Both);
}

/// The time of grace ends.
#[test]
fn an_empty_redis_counts_when_the_time_of_grace_is_over() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router =
        Router::builder(&redis).unset("server.cache").set("server.emptyRedisGrace", 1).start();
    let mut client = Client::connect(router.addr());
    assert_eq!(client.get("a.test", "/").text(), "b");
    redis.kill();
    redis.launch();
    router.wait_for_log(&["WARN", "Redis has come back empty"]);
    eventually(DEADLINE, "the empty Redis counts", || client.get("a.test", "/").status() == 400);
    router.wait_for_log(&["WARN", "emptyRedisGrace is over", "missing=1"]);
}

/// A server that comes back with its data is believed at once, also in what it lacks.
#[test]
fn a_restarted_redis_with_routes_counts_at_once() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    redis.frontend("b.test", "id", &[&backend.url()]);
    redis.run(&["SAVE"]);
    redis.frontend("unsaved.test", "id", &[&backend.url()]);
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    for host in ["a.test", "b.test", "unsaved.test"] {
        assert_eq!(client.get(host, "/").text(), "b");
    }
    redis.kill();
    redis.launch_with_data();
    eventually(DEADLINE, "what it lacks is gone", || {
        client.get("unsaved.test", "/").status() == 400
    });
    assert_eq!(client.get("a.test", "/").text(), "b");
    assert!(!router.log().contains("come back empty"), "{}", router.log());
}

/// An outage is said once, not for every request.
#[test]
fn an_outage_does_not_fill_the_log() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    client.get("a.test", "/");
    redis.kill();
    for _ in 0..200 {
        client.get("a.test", "/");
        client.get("unknown.test", "/");
    }
    let lines = router.log().lines().count();
    assert!(lines < 30, "{lines} lines of log:\n{}", router.log());
}

/// A frozen Redis (the connection stays, nothing is answered) costs a bounded wait, not a hang.
#[test]
fn a_frozen_redis_keeps_nobody_waiting() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    assert_eq!(get(router.addr(), "a.test", "/").text(), "b");
    redis.pause();
    let mut clients: Vec<_> = (0..20)
        .map(|_| Client::connect(router.addr()).patient_for(Duration::from_secs(5)))
        .collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let host = if number % 2 == 0 { "a.test" } else { "unknown.test" };
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let expected = if number % 2 == 0 { 200 } else { 503 };
        assert_eq!(client.response().status(), expected);
    }
    redis.resume();
    redis.frontend("new.test", "id", &[&backend.url()]);
    eventually(DEADLINE, "new routes are read", || {
        get(router.addr(), "new.test", "/").status() == 200
    });
}

/// Redis restarted again and again: every request is answered, and the router ends up with the
/// truth.
#[test]
fn a_flapping_redis_is_followed() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.emptyRedisGrace", 0).start();
    let mut client = Client::connect(router.addr());
    assert_eq!(client.get("a.test", "/").text(), "b");
    for _ in 0..4 {
        redis.kill();
        assert_eq!(client.get("a.test", "/").text(), "b");
        redis.launch();
        redis.frontend("a.test", "id", &[&backend.url()]);
    }
    redis.run(&["DEL", "frontend:a.test"]);
    eventually(DEADLINE, "the deletion counts", || client.get("a.test", "/").status() == 400);
}

/// A password that was changed in its file: the next connection is made with it, and a reload does not
/// ask for a restart because of it.
#[test]
fn a_password_file_is_read_for_each_connection() {
    let redis = Redis::with_password("old");
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let builder = Router::builder(&redis).file("password", "old\n");
    let path = builder.path("password");
    let router = builder
        .set("driver", format!("redis://127.0.0.1:{}", redis.port()))
        .args(&["--redis-password-file", path.to_str().expect("text")])
        .start();
    assert_eq!(get(router.addr(), "a.test", "/").status(), 200);
    std::fs::write(&path, "new\n").expect("it can be written");
    redis.run(&["CONFIG", "SET", "requirepass", "new"]);
    redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    redis.frontend("b.test", "id", &[&backend.url()]);
    eventually(DEADLINE, "the new password is used", || {
        get(router.addr(), "b.test", "/").status() == 200
    });
    router.signal(Signal::SIGHUP);
    router.wait_for_log(&["INFO", "configuration reloaded"]);
    // A file that has gone is named, not only the password that is refused because of it.
    std::fs::remove_file(&path).expect("it can be removed");
    redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    router.wait_for_log(&["WARN", path.to_str().expect("text"), "No such file"]);
}

/// A wrong password: said plainly, without the password, and 503 until it is right.
#[test]
fn a_wrong_password_is_said_plainly() {
    let redis = Redis::with_password("right");
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let driver = format!("redis://:wrong-one@127.0.0.1:{}", redis.port());
    let router = Router::builder(&redis).set("driver", driver).start();
    assert_eq!(get(router.addr(), "a.test", "/").status(), 503);
    router.wait_for_log(&["WARN", "it refuses the password"]);
    assert!(!router.log().contains("wrong-one"), "{}", router.log());
    redis.run(&["CONFIG", "SET", "requirepass", "wrong-one"]);
    eventually(DEADLINE, "the password is right now", || {
        get(router.addr(), "a.test", "/").status() == 200
    });
}

/// A primary that is away costs marks, not requests: reading goes on from the replica.
#[test]
fn a_lost_primary_costs_no_request() {
    let (replica, primary) = (Redis::start(), Redis::down());
    let backend = Backend::start("b");
    let refusing = integration::ports::Reserved::new();
    replica.frontend("a.test", "id", &[&refusing.url(), &backend.url()]);
    let router = Router::builder(&replica)
        .set("driver", serde_json::json!([replica.url(), primary.url()]))
        .set("server.deadBackendTTL", 1)
        .start();
    let mut client = Client::connect(router.addr());
    for _ in 0..20 {
        assert_eq!(client.get("a.test", "/").text(), "b");
    }
    primary.launch();
    eventually(DEADLINE, "marks are written again", || {
        assert_eq!(client.get("a.test", "/").text(), "b");
        primary.dead("a.test").contains("0")
    });
}

/// Dead marks count inside the router even while they cannot be written: a refusing backend is not
/// tried for ever.
#[test]
fn a_redis_that_is_down_does_not_end_the_routing_around_dead_backends() {
    let redis = Redis::start();
    let (flaky, good) = (Backend::start("flaky"), Backend::start("good"));
    redis.frontend("a.test", "id", &[&flaky.url(), &good.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    client.get("a.test", "/");
    redis.kill();
    flaky.kill();
    for _ in 0..20 {
        assert_eq!(client.get("a.test", "/").text(), "good");
    }
}

/// A Redis that is up and still reads its data from disk says LOADING: it counts as away until it
/// has everything, for what it holds so far is not the truth.
#[test]
fn a_redis_that_still_loads_counts_as_away() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    redis.frontend("unseen.test", "id", &[&backend.url()]);
    for number in 0..60 {
        // Not to be compressed: the server looks at its connections every kilobyte it has read.
        let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(8192).collect();
        redis.run(&["SET", &format!("ballast:{number}"), &noise]);
    }
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    assert_eq!(client.get("a.test", "/").text(), "b");
    redis.restart_loading(Duration::from_millis(50));
    router.wait_for_log(&["WARN", "this may pass by itself"]);
    assert_eq!(client.get("a.test", "/").text(), "b");
    assert_eq!(client.get("unseen.test", "/").status(), 503);
    eventually(DEADLINE, "all is loaded", || client.get("unseen.test", "/").status() == 200);
}

/// A node of a Redis cluster answers MOVED for what another node holds. That will not heal, and is
/// said once, with what it means.
#[test]
fn a_node_of_a_cluster_is_named_as_such() {
    let bus = [integration::ports::Reserved::new(), integration::ports::Reserved::new()];
    let node = |bus: &integration::ports::Reserved| {
        let port = bus.port().to_string();
        Redis::with_arguments(&["--cluster-enabled", "yes", "--cluster-port", &port])
    };
    let (empty, full) = (node(&bus[0]), node(&bus[1]));
    full.run(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let (port, bus_port) = (full.port().to_string(), bus[1].port().to_string());
    empty.run(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]);
    eventually(DEADLINE, "the cluster works", || {
        empty.query::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
    });
    let router = Router::tracking(&empty);
    router.wait_for_log(&["WARN", "cannot use Redis", "part of a cluster"]);
    for _ in 0..50 {
        assert_eq!(get(router.addr(), "a.test", "/").status(), 503);
    }
    let lines = router.log().lines().count();
    assert!(lines < 10, "{lines} lines of log:\n{}", router.log());
}

/// A Redis at its `maxmemory` refuses to write, and to queue anything in a MULTI; routes are read all
/// the same, also those that were removed to make room.
#[test]
fn a_full_redis_is_read_all_the_same() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    redis.frontend("unseen.test", "id", &[&backend.url()]);
    for router in [Router::tracking(&redis), Router::start(&redis)] {
        redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
        redis.frontend("a.test", "id", &[&backend.url()]);
        let mut client = Client::connect(router.addr());
        eventually(DEADLINE, "the route counts", || client.get("a.test", "/").text() == "b");
        redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
        redis.run(&["DEL", "frontend:a.test"]);
        assert_eq!(client.get("unseen.test", "/").text(), "b");
        eventually(DEADLINE, "the deletion counts", || client.get("a.test", "/").status() == 400);
    }
}

/// A user without one of the rights that reading takes: said once, with what to do.
#[test]
fn a_missing_right_is_said_plainly() {
    for missing in ["-pttl", "-smembers", "-lrange"] {
        let redis = Redis::start();
        redis.frontend("a.test", "id", &["http://127.0.0.1:1"]);
        let all = ["ACL", "SETUSER", "router", "on", ">pw", "~*", "&*", "+@all", missing];
        redis.run(&all);
        let driver = format!("redis://router:pw@127.0.0.1:{}", redis.port());
        let router = Router::builder(&redis).unset("server.cache").set("driver", driver).start();
        router.wait_for_log(&["WARN", "its user may not do what is needed"]);
        for _ in 0..20 {
            assert_eq!(get(router.addr(), "a.test", "/").status(), 503, "{missing}");
        }
        let lines = router.log().lines().count();
        assert!(lines < 10, "{lines} lines of log:\n{}", router.log());
    }
}

/// A connection that is cut again and again is not made again without a pause, and every request is
/// answered.
#[test]
fn a_connection_that_is_cut_again_and_again_is_made_again_with_pauses() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    assert_eq!(client.get("a.test", "/").text(), "b");
    for _ in 0..200 {
        redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert_eq!(client.get("a.test", "/").text(), "b");
    }
    let lost = router.log().matches("lost the connection").count();
    assert!((1..30).contains(&lost), "{lost} connections lost:\n{}", router.log());
}

/// Passes bytes on to a Redis and holds each of its answers back for a while.
struct Delay {
    port: u16,
    millis: Arc<AtomicU64>,
}

impl Delay {
    fn before(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (port, target) = (listener.local_addr().expect("its address").port(), redis.port());
        let millis = Arc::new(AtomicU64::new(0));
        let shared = Arc::clone(&millis);
        // Threads end with their connections, at the latest with the process of the test.
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { return };
                let (Ok(client_side), Ok(server_side)) = (client.try_clone(), server.try_clone())
                else {
                    return;
                };
                let millis = Arc::clone(&shared);
                std::thread::spawn(move || copy(client_side, server_side, &AtomicU64::new(0)));
                std::thread::spawn(move || copy(server, client, &millis));
            }
        });
        Self { port, millis }
    }

    fn set(&self, millis: u64) {
        self.millis.store(millis, Ordering::SeqCst);
    }
}

#[allow(clippy::disallowed_methods, reason = "the delay is what is tested, on a thread of its own")]
fn copy(mut from: TcpStream, mut to: TcpStream, millis: &AtomicU64) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        std::thread::sleep(Duration::from_millis(millis.load(Ordering::SeqCst)));
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _is_gone = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}

/// A slow Redis delays only what has to be asked for; one that is slower than the limit counts as
/// away, and is used again as soon as it is not.
#[test]
fn a_slow_redis_delays_only_what_is_not_known() {
    let redis = Redis::start();
    let delay = Delay::before(&redis);
    let backend = Backend::start("b");
    for host in ["a.test", "new.test", "other.test"] {
        redis.frontend(host, "id", &[&backend.url()]);
    }
    let driver = format!("redis://127.0.0.1:{}", delay.port);
    let router = Router::builder(&redis).unset("server.cache").set("driver", driver).start();
    let mut client = Client::connect(router.addr());
    assert_eq!(client.get("a.test", "/").text(), "b");
    delay.set(100);
    assert_eq!(client.get("new.test", "/").text(), "b");
    delay.set(1500);
    assert_eq!(client.get("other.test", "/").status(), 503);
    router.wait_for_log(&["WARN", "lost the connection to Redis"]);
    assert_eq!(client.get("a.test", "/").text(), "b");
    assert_eq!(client.get("new.test", "/").text(), "b");
    delay.set(0);
    eventually(DEADLINE, "it is used again", || client.get("other.test", "/").status() == 200);
}
