//! `options:<host>` `sticky`: a cookie brings a client back to its backend.

use std::collections::BTreeSet;

use integration::backend::Backend;
use integration::client::{Client, Response};
use integration::redis::Redis;
use integration::router::Router;
use pretty_assertions::assert_eq;

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// The cookie that was set, as it is to be sent back.
fn cookie(response: &Response) -> Option<String> {
    let cookie = response.header("set-cookie")?;
    Some(cookie.split(';').next().unwrap_or_default().to_owned())
}

fn stage(backends: &[&Backend]) -> Redis {
    let redis = Redis::start();
    let urls: Vec<_> = backends.iter().map(|backend| backend.url()).collect();
    redis.frontend("a.test", "id", &urls.iter().map(String::as_str).collect::<Vec<_>>());
    redis.run(&["HSET", "options:a.test", "sticky", "on"]);
    redis
}

fn get_as(router: &Router, cookie: &str) -> Response {
    Client::connect(router.addr()).get_with("a.test", "/", &format!("Cookie: {cookie}\r\n"))
}

/// Twenty requests with that cookie: the backends that answered.
fn answered(router: &Router, cookie: &str) -> BTreeSet<String> {
    (0..20).map(|_| get_as(router, cookie).text()).collect()
}

#[test]
fn a_client_returns_to_its_backend_by_an_opaque_cookie() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let redis = stage(&[&one, &two]);
    let router = Router::builder(&redis).set("server.cookieKey", KEY).start();
    let first = Client::connect(router.addr()).get("a.test", "/");
    let set = first.header("set-cookie").expect("a cookie").to_owned();
    assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
    let sent = cookie(&first).expect("a cookie");
    for revealing in [one.port().to_string(), "127.0.0.1".to_owned(), "one".to_owned()] {
        assert!(!set.contains(&revealing), "{set}");
    }
    let theirs = format!("x=1; {sent}; y=2");
    assert_eq!(answered(&router, &theirs), BTreeSet::from([first.text()]));
    assert_eq!(cookie(&get_as(&router, &sent)), None, "who has it is not told again");
    let secure =
        Client::connect(router.addr()).get_with("a.test", "/", "X-Forwarded-Proto: https\r\n");
    assert!(secure.header("set-cookie").is_some_and(|set| set.ends_with("; Secure")));
    // Another router of the site understands it, one with another key does not.
    let same = Router::builder(&redis).set("server.cookieKey", KEY).start();
    assert_eq!(answered(&same, &sent), BTreeSet::from([first.text()]));
    let other = Router::start(&redis);
    assert!(cookie(&get_as(&other, &sent)).is_some_and(|new| new != sent));
}

#[test]
fn a_forged_or_foreign_cookie_is_drawn_anew() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let redis = stage(&[&one, &two]);
    let router = Router::start(&redis);
    for forged in [
        "router_sticky=".to_owned(),
        format!("router_sticky={}", one.url()),
        format!("router_sticky={}", "0".repeat(32)),
        "router_sticky".to_owned(),
        "router_sticky=\u{e9}".to_owned(),
    ] {
        let response = get_as(&router, &forged);
        assert_eq!(response.status(), 200);
        assert!(cookie(&response).is_some(), "{forged}");
    }
    redis.run(&["HSET", "options:a.test", "sticky", "SRV"]);
    let response = Client::connect(router.addr()).get("a.test", "/");
    assert!(cookie(&response).is_some_and(|cookie| cookie.starts_with("SRV=")));
}

#[test]
fn a_dead_or_removed_backend_is_left_for_another() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let redis = stage(&[&one, &two]);
    let router = Router::start(&redis);
    let first = Client::connect(router.addr()).get("a.test", "/");
    let sent = cookie(&first).expect("a cookie");
    let (mine, other) = if first.text() == "one" { (&one, &two) } else { (&two, &one) };
    let position = if first.text() == "one" { "0" } else { "1" };
    let moved = |why: &str| {
        let response = get_as(&router, &sent);
        assert_eq!(response.text(), other.name(), "{why}");
        assert!(cookie(&response).is_some_and(|new| new != sent), "{why}");
    };
    redis.run(&["SADD", "dead:a.test", position]);
    moved("marked dead");
    redis.run(&["DEL", "dead:a.test"]);
    assert_eq!(get_as(&router, &sent).text(), mine.name(), "alive again");
    mine.kill();
    moved("refuses connections");
    mine.revive();
    redis.run(&["DEL", "dead:a.test"]);
    redis.frontend("a.test", "id", &[&other.url()]);
    moved("removed from the list");
}

#[test]
fn a_short_key_is_refused_and_none_is_shown() {
    let redis = Redis::start();
    let ended = Router::builder(&redis).set("server.cookieKey", "short-secret").run();
    assert_eq!(ended.code, Some(78));
    assert!(ended.stderr.contains("server.cookieKey: expected at least 32"), "{}", ended.stderr);
    let builder = Router::builder(&redis).file("key", format!("{KEY}\n"));
    let path = builder.path("key").display().to_string();
    let ended = builder.args(&["--cookie-key-file", &path, "--dry"]).run();
    assert_eq!(ended.code, Some(0));
    assert!(ended.stdout.contains("\"cookieKey\": \"***\""), "{}", ended.stdout);
    assert!(!ended.stdout.contains(KEY));
}
