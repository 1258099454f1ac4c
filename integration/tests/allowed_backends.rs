//! Backend URLs come from Redis: they reach neither the router itself nor link-local addresses.

use integration::backend::Backend;
use integration::client::{debug_get, get};
use integration::eventually::{DEADLINE, eventually};
use integration::redis::Redis;
use integration::router::Router;
use pretty_assertions::assert_eq;
use serde_json::json;

/// Every way to write an own listener: as it is, mapped, as "any address", by a name.
#[test]
fn no_backend_is_the_router_itself() {
    let redis = Redis::start();
    for bind in ["127.0.0.1", "0.0.0.0", "::"] {
        let router = Router::builder(&redis)
            .set("http.bind", json!([bind]))
            .set("server.admin", "127.0.0.1:0")
            .set("server.allowedBackends", json!(["0.0.0.0/0", "::/0"]))
            .start();
        let port = router.addr().port();
        let admin = router.admin().expect("an admin listener").to_owned();
        let urls = [
            format!("http://127.0.0.1:{port}"),
            format!("http://[::ffff:127.0.0.1]:{port}"),
            format!("http://0.0.0.0:{port}"),
            format!("http://localhost:{port}"),
            admin,
        ];
        let addr = (std::net::Ipv4Addr::LOCALHOST, port).into();
        for url in &urls {
            redis.frontend("a.test", "id", &[url]);
            assert_eq!(get(addr, "a.test", "/livez").status(), 502, "{bind}: {url}");
        }
        // A loop would have come back as a request of its own.
        let lines = router.access_log(4);
        assert!(lines.len() <= 5, "{lines:#?}");
        router.wait_for_log(&["WARN", "counts as failed", "the router itself listens there"]);
    }
}

#[test]
fn metadata_services_are_closed_unless_listed_and_the_next_backend_is_tried() {
    let redis = Redis::start();
    let good = Backend::start("good");
    let router = Router::start(&redis);
    for url in ["http://169.254.169.254", "http://[fe80::1]", "http://[::ffff:169.254.169.254]"] {
        redis.frontend("a.test", "id", &[url]);
        assert_eq!(get(router.addr(), "a.test", "/latest/meta-data").status(), 502, "{url}");
    }
    let line = router.wait_for_log(&["WARN", "169.254.169.254", "server.allowedBackends"]);
    assert!(line.contains("counts as failed"), "{line}");
    redis.frontend("b.test", "id", &["http://169.254.169.254", &good.url()]);
    eventually(DEADLINE, "the forbidden one is marked", || {
        assert_eq!(get(router.addr(), "b.test", "/").text(), "good");
        redis.dead("b.test").contains("0")
    });
    let complaints = router.log().matches("counts as failed").count();
    assert_eq!(complaints, 1, "said now and then only: {}", router.log());
}

#[test]
fn a_list_allows_what_it_holds_and_nothing_else() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    for (allowed, status) in [("127.0.0.0/8", 200), ("10.0.0.0/8", 502)] {
        let router = Router::builder(&redis).args(&["--allowed-backends", allowed]).start();
        let response = debug_get(router.addr(), "a.test", "/");
        assert_eq!(response.status(), status, "{allowed}");
    }
    let ended = Router::builder(&redis).set("server.allowedBackends", json!(["10.0.0/8"])).run();
    assert_eq!(ended.code, Some(78));
    assert!(
        ended.stderr.contains("server.allowedBackends: expected a network"),
        "{}",
        ended.stderr
    );
}
