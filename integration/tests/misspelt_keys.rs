//! Mistakes in keys that would be silent for ever are named in the log, once.

use integration::backend::Backend;
use integration::client::{Client, get};
use integration::redis::Redis;
use integration::router::Router;
use pretty_assertions::assert_eq;

/// A request for a host without a list names the key that was probably meant for it.
#[test]
fn a_key_that_is_nearly_the_hosts_own_is_named_once() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    let mistakes = [
        ("upper.example.com", "frontend:Upper.example.com", "lower case"),
        ("port.example.com", "frontend:port.example.com:80", "no port"),
        ("dot.example.com", "frontend:dot.example.com.", "no dot at the end"),
        (
            "plural.example.com",
            "frontends:plural.example.com",
            "the key of a list is frontend:<host>",
        ),
        ("www.star.test", "frontend:*star.test", "a wildcard is written *.<domain>"),
        ("bare.test", "frontend:*.bare.test", "does not stand for its domain itself"),
        ("plain.example.com", "plain.example.com", "if it is the list of this host"),
    ];
    for (_, key, _) in mistakes {
        redis.run(&["RPUSH", key, "id", &backend.url()]);
    }
    for router in [Router::tracking(&redis), Router::start(&redis)] {
        for (host, key, mistake) in mistakes {
            for _ in 0..3 {
                assert_eq!(get(router.addr(), host, "/").status(), 400, "{host}");
            }
            let key = format!("key=\"{key}\"");
            router.wait_for_log(&["WARN", host, &key, mistake]);
            assert_eq!(router.log().matches(&key).count(), 1, "{key}");
        }
        // Nothing is said of hosts that nobody has meant.
        get(router.addr(), "nobody.test", "/");
        redis.frontend("proof.test", "http://10.0.0.1:80", &[&backend.url()]);
        assert_eq!(get(router.addr(), "proof.test", "/").status(), 200);
        router.wait_for_log(&["WARN", "frontend=proof.test", "this one is a URL"]);
        assert!(!router.log().contains("nobody.test"), "{}", router.log());
    }
}

/// Clients choose the host, and others may use the same Redis: what is theirs is not named as a mistake.
#[test]
fn keys_of_other_programs_are_not_taken_for_misspelt_ones() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.run(&["RPUSH", "celery", "job"]);
    redis.run(&["HSET", "cache.example.com", "field", "value"]);
    redis.run(&["RPUSH", "frontends:last.test", "id", &backend.url()]);
    let router = Router::tracking(&redis);
    for host in ["celery", "cache.example.com", "last.test"] {
        assert_eq!(get(router.addr(), host, "/").status(), 400, "{host}");
    }
    router.wait_for_log(&["WARN", "frontends:last.test"]);
    for key in ["celery", "cache.example.com"] {
        assert!(!router.log().contains(key), "{}", router.log());
    }
}

/// So does the first request for a host whose settings are kept under another spelling; and one for a host
/// that a wildcard serves although there is a list that was meant for it.
#[test]
fn misspelt_settings_and_lists_behind_a_wildcard_are_named() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    redis.frontend("*", "id", &[&backend.url()]);
    redis.run(&["HSET", "options:A.test", "maintenance", "on"]);
    redis.run(&["RPUSH", "frontend:Own.example.com", "id", &backend.url()]);
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    for host in ["a.test", "own.example.com"] {
        assert_eq!(client.get(host, "/").status(), 200);
    }
    router.wait_for_log(&["WARN", "a.test", "options:A.test", "lower case"]);
    router.wait_for_log(&["WARN", "own.example.com", "frontend:Own.example.com", "lower case"]);
}
