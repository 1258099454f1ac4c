//! The admin listener: alive, ready, and what was counted.

use std::net::SocketAddr;

use integration::backend::Backend;
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::gate::Gate;
use integration::redis::Redis;
use integration::router::Router;
use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;

fn stage(redis: &Redis) -> (Router, SocketAddr) {
    let router = Router::builder(redis).set("server.admin", "127.0.0.1:0").start();
    let url = router.admin().expect("an admin listener").to_owned();
    let address = url.trim_start_matches("http://").parse().expect("an address");
    (router, address)
}

#[test]
fn there_is_none_unless_it_is_asked_for() {
    let redis = Redis::start();
    assert_eq!(Router::start(&redis).admin(), None);
}

#[test]
fn requests_are_counted() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let (router, admin) = stage(&redis);
    for _ in 0..3 {
        assert_eq!(get(router.addr(), "a.test", "/").status(), 200);
    }
    assert_eq!(get(router.addr(), "unknown.test", "/").status(), 400);
    let metrics = get(admin, "admin", "/metrics").text();
    for line in [
        "router_http_requests_total{code=\"2xx\"} 3",
        "router_http_requests_total{code=\"4xx\"} 1",
        "router_redis_up{role=\"read\"} 1",
        "router_panics_total 0",
        "router_connections_accepted_total 4",
    ] {
        assert!(metrics.lines().any(|shown| shown == line), "{line}\n{metrics}");
    }
    assert_eq!(get(admin, "admin", "/nothing").status(), 404);
    assert_eq!(Client::connect(admin).post("admin", "/metrics", "").status(), 405);
}

#[test]
fn readiness_follows_redis_and_the_drain() {
    let redis = Redis::start();
    let gate = Gate::new();
    let backend = Backend::gated("b", &gate);
    redis.frontend("a.test", "id", &[&backend.url()]);
    let (router, admin) = stage(&redis);
    assert_eq!(get(admin, "admin", "/readyz").status(), 200);
    redis.kill();
    eventually(DEADLINE, "not ready without Redis", || {
        get(admin, "admin", "/readyz").text().contains("Redis is not reachable")
    });
    assert_eq!(get(admin, "admin", "/livez").status(), 200);
    let metrics = get(admin, "admin", "/metrics").text();
    assert!(metrics.contains("router_redis_up{role=\"read\"} 0"), "{metrics}");
    redis.launch();
    redis.frontend("a.test", "id", &[&backend.url()]);
    eventually(DEADLINE, "ready again", || get(admin, "admin", "/readyz").status() == 200);

    let mut client = Client::connect(router.addr());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    backend.wait_for_requests(1);
    router.signal(Signal::SIGTERM);
    eventually(DEADLINE, "not ready while draining", || {
        get(admin, "admin", "/readyz").text() == "draining\n"
    });
    gate.open();
    assert_eq!(client.response().text(), "b");
    assert_eq!(router.wait(DEADLINE).code(), Some(0));
}

/// Connections that ask for nothing cannot keep a monitor out.
#[test]
fn silent_connections_do_not_keep_monitors_out() {
    let redis = Redis::start();
    // Of the descriptors that are kept back, a quarter may be taken here.
    for (files, most) in [(64, 4), (1024, 32)] {
        let builder = Router::builder(&redis).set("server.admin", "127.0.0.1:0").open_files(files);
        let router = builder.start();
        let url = router.admin().expect("an admin listener").trim_start_matches("http://");
        let admin = url.parse().expect("an address");
        let before = router.process().open_files();
        let mut silent: Vec<_> = (0..200).map(|_| Client::connect(admin)).collect();
        for _ in 0..5 {
            assert_eq!(get(admin, "admin", "/livez").status(), 200);
            assert!(get(admin, "admin", "/metrics").text().ends_with("# EOF\n"));
        }
        assert!(silent[0].is_closed(), "the oldest gives way");
        let now = router.process().open_files();
        // The router may have connected to Redis meanwhile, and the like.
        let others = 8;
        assert!(now <= before + most + others, "{now} descriptors after {before}");
    }
}

/// A page of the web that leads its own name here (DNS rebinding) reads nothing.
#[test]
fn metrics_are_told_under_known_names_only() {
    let redis = Redis::start();
    let (router, admin) = stage(&redis);
    let port = admin.port();
    for (host, status) in [
        ("evil.test", 403),
        (&*format!("evil.test:{port}"), 403),
        (&*format!("127.0.0.1:{port}"), 200),
        ("[::1]", 200),
        ("localhost", 200),
        ("router1", 200),
    ] {
        assert_eq!(get(admin, host, "/metrics").status(), status, "{host}");
        assert_eq!(get(admin, host, "/livez").status(), 200, "{host}");
        assert_eq!(get(admin, host, "/readyz").status(), 200, "{host}");
    }
    assert!(get(admin, "evil.test", "/metrics").text().contains("server.adminHosts"));
    drop(router);

    for by_flag in [false, true] {
        let builder = Router::builder(&redis).set("server.admin", "127.0.0.1:0");
        let router = match by_flag {
            true => builder.args(&["--admin-hosts", "x.test,router1.example.com"]).start(),
            false => {
                let names = serde_json::json!(["x.test", "Router1.example.com"]);
                builder.set("server.adminHosts", names).start()
            }
        };
        let url = router.admin().expect("an admin listener").trim_start_matches("http://");
        let admin = url.parse().expect("an address");
        assert_eq!(get(admin, "router1.example.com:9000", "/metrics").status(), 200);
        assert_eq!(get(admin, "example.com", "/metrics").status(), 403);
    }
    let wrong = Router::builder(&redis).set("server.adminHosts", "http://a.test").run();
    assert_eq!(wrong.code, Some(78));
    assert!(wrong.stderr.contains("server.adminHosts"), "{}", wrong.stderr);
}
