//! The files that Hipache shipped with its versions and showed in its manuals, key by key, and what they
//! made it do. `Cargo.toml` stands for a certificate: only its existence matters here.

use std::path::Path;

use clap::Parser;

use super::super::{Config, read, resolve::resolve};
use crate::cli::Cli;

fn load(text: &str) -> Result<Config, String> {
    let cli = Cli::try_parse_from(["router"]).map_err(|error| error.to_string())?;
    let loaded = read::parse(Path::new("c.json"), text.to_owned());
    loaded.and_then(|loaded| resolve(&cli, loaded, None)).map_err(|error| error.to_string())
}

/// Where a file listens for HTTP and HTTPS, and its drivers.
#[track_caller]
fn meaning(text: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
    let config = load(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (
        config.listen.iter().map(ToString::to_string).collect(),
        config.https.iter().map(|listener| listener.address.to_string()).collect(),
        config.drivers.iter().map(ToString::to_string).collect(),
    )
}

/// A file, where it listens for HTTP and for HTTPS, and its drivers.
type Case = (&'static str, &'static [&'static str], &'static [&'static str], &'static str);

const LOCAL: &str = "redis://127.0.0.1:6379/0";

/// The files of 0.1: a `redis` object, `errorMaxRetries`, HTTPS inside of `server`.
const VERSION_0_1: &[Case] = &[
    (
        r#"{"server": {"accessLog": "/var/log/nginx/access.log", "port": 80, "workers": 10,
            "maxSockets": 100, "deadBackendTTL": 30, "tcpTimeout": 30, "errorMaxRetries": 3,
            "https": {"port": 443, "key": "Cargo.toml", "cert": "Cargo.toml"}},
            "redis": {"port": 6379, "host": "127.0.0.1"}}"#,
        &["[::]:80"],
        &["[::]:443"],
        LOCAL,
    ),
    (
        r#"{"server": {"accessLog": "/tmp/proxy2_access.log", "port": 1080, "workers": 2,
            "maxSockets": 100, "deadBackendTTL": 5, "tcpTimeout": 5, "errorMaxRetries": 3,
            "debug": true}, "redis": {"port": 7000, "host": "10.0.0.9", "database": 2}}"#,
        &["[::]:1080"],
        &[],
        "redis://10.0.0.9:7000/2",
    ),
];

/// The files of 0.2: keys of Redis at the top, `address` and `address6` since 0.2.4.
const VERSION_0_2: &[Case] = &[
    (
        r#"{"server": {"accessLog": "/var/log/nginx/access.log", "port": 80, "workers": 10,
            "maxSockets": 100, "deadBackendTTL": 30, "tcpTimeout": 30, "retryOnError": 3,
            "deadBackendOn500": true, "httpKeepAlive": false,
            "https": {"port": 443, "key": "Cargo.toml", "cert": "Cargo.toml"}},
            "redisHost": "127.0.0.1", "redisPort": 6379}"#,
        &["[::]:80"],
        &["[::]:443"],
        LOCAL,
    ),
    (
        r#"{"server": {"accessLog": "/var/log/hipache_access.log", "port": 80, "workers": 5,
            "maxSockets": 100, "deadBackendTTL": 30, "address": ["127.0.0.1"], "address6": ["::1"],
            "https": {"port": 443, "key": "Cargo.toml", "cert": "Cargo.toml"}},
            "redisHost": "127.0.0.1", "redisPort": 6379, "redisDatabase": 0,
            "redisPassword": "password"}"#,
        &["127.0.0.1:80", "[::1]:80"],
        &["127.0.0.1:443", "[::1]:443"],
        "redis://:***@127.0.0.1:6379/0",
    ),
    (
        r#"{"server": {"port": 8000, "address6": ["::0"]}, "redisPassword": null,
            "redisHost": "192.168.56.101"}"#,
        &["0.0.0.0:8000", "[::]:8000"],
        &[],
        "redis://192.168.56.101:6379/0",
    ),
    (
        r#"{"server": {"debug": true, "accessLog": "/tmp/proxy2_test_access.log", "port": 1080,
            "workers": 2, "maxSockets": 100, "deadBackendTTL": 30, "tcpTimeout": 5,
            "retryOnError": 0, "deadBackendOn500": true, "httpKeepAlive": false}}"#,
        &["[::]:1080"],
        &[],
        LOCAL,
    ),
];

/// Files that leave the port of 0.1 to 0.3 to its default are old by their other keys.
const WITHOUT_PORT: &[Case] = &[
    (
        r#"{"server": {"workers": 5}, "redisHost": "10.0.0.9"}"#,
        &["[::]:80"],
        &[],
        "redis://10.0.0.9:6379/0",
    ),
    (
        r#"{"server": {"errorMaxRetries": 3}, "redis": {"port": 7000}}"#,
        &["[::]:80"],
        &[],
        "redis://127.0.0.1:7000/0",
    ),
    (
        r#"{"http": {"port": 8080}, "redisHost": "10.0.0.9"}"#,
        &["127.0.0.1:8080"],
        &[],
        "redis://10.0.0.9:6379/0",
    ),
];

/// The files of 0.3: `driver`, one `address` for both families.
const VERSION_0_3: &[Case] = &[
    (
        r#"{"server": {"accessLog": "/var/log/hipache_access.log", "port": 80, "workers": 5,
            "maxSockets": 100, "deadBackendTTL": 30, "address": ["127.0.0.1", "::1"],
            "https": {"port": 443, "key": "Cargo.toml", "cert": "Cargo.toml"}},
            "driver": ["redis://:password@127.0.0.1:6379/0"]}"#,
        &["127.0.0.1:80", "[::1]:80"],
        &["127.0.0.1:443", "[::1]:443"],
        "redis://:***@127.0.0.1:6379/0",
    ),
    (
        r#"{"server": {"debug": true, "accessLog": "/tmp/hipache-test.log", "port": 1080,
            "workers": 2, "maxSockets": 100, "deadBackendTTL": 30, "tcpTimeout": 5,
            "retryOnError": 0, "deadBackendOn500": true, "httpKeepAlive": false,
            "https": {"port": 1443, "key": "Cargo.toml", "cert": "Cargo.toml"}},
            "driver": "redis://127.0.0.1:7777"}"#,
        &["[::]:1080"],
        &["[::]:1443"],
        "redis://127.0.0.1:7777/0",
    ),
    (
        r#"{"server": {"accessLog": "/var/log/hipache.log", "port": 80, "workers": 10,
            "maxSockets": 10000, "deadBackendTTL": 30, "tcpTimeout": 30, "retryOnError": 3,
            "deadBackendOn500": false, "httpKeepAlive": false,
            "lruCache": {"size": 5, "ttl": 5}}, "driver": ["redis://10.0.1.79:6379"]}"#,
        &["[::]:80"],
        &[],
        "redis://10.0.1.79:6379/0",
    ),
];

/// Those of 0.4, which has `http` and `https`: without `bind` it is this machine alone.
const VERSION_0_4: &[Case] = &[
    (
        r#"{"server": {"debug": true, "accessLog": "/tmp/hipache-test.log", "workers": 2,
            "retryOnError": 0}, "user": "nobody", "group": "nogroup",
            "http": {"port": 1080, "bind": "127.0.0.1"},
            "https": {"port": 1443, "bind": "127.0.0.1", "key": "Cargo.toml",
            "cert": "Cargo.toml"}, "driver": "redis://127.0.0.1:7777"}"#,
        &["127.0.0.1:1080"],
        &["127.0.0.1:1443"],
        "redis://127.0.0.1:7777/0",
    ),
    (
        r#"{"server": {"workers": 10, "deadBackendTTL": 60, "tcpTimeout": 1800},
            "http": {"port": 80, "bind": ["0.0.0.0"]}, "driver": "redis://127.0.0.1:6379"}"#,
        &["0.0.0.0:80"],
        &[],
        LOCAL,
    ),
    (
        r#"{"server": {"debug": true, "workers": 2, "lruCache": {"size": 5, "ttl": 5}}}"#,
        &["127.0.0.1:80"],
        &[],
        LOCAL,
    ),
    // What 0.4 itself made of older keys beside newer ones.
    (
        r#"{"server": {"address": "10.0.0.1"}, "http": {"port": 81},
            "https": {"port": 444, "key": "Cargo.toml", "cert": "Cargo.toml"}}"#,
        &["10.0.0.1:81"],
        &["10.0.0.1:444"],
        LOCAL,
    ),
    (
        r#"{"server": {"https": {"key": "Cargo.toml", "cert": "Cargo.toml"}},
            "http": {"bind": [{"address": "10.0.0.1", "port": 8080}]}}"#,
        &["10.0.0.1:8080"],
        &["10.0.0.1:443"],
        LOCAL,
    ),
];

#[test]
fn every_file_that_hipache_shipped_means_what_it_meant() {
    for (text, http, https, driver) in
        [VERSION_0_1, VERSION_0_2, WITHOUT_PORT, VERSION_0_3, VERSION_0_4].into_iter().flatten()
    {
        let (found_http, found_https, drivers) = meaning(text);
        assert_eq!(found_http, *http, "{text}");
        assert_eq!(found_https, *https, "{text}");
        assert_eq!(drivers, [*driver], "{text}");
    }
    let config = load(r#"{"server": {"errorMaxRetries": 7}}"#).unwrap();
    assert_eq!(config.retry_on_error, 7);
}

/// A warning for each old key, which says what it became.
#[test]
fn warnings_name_what_each_key_became() {
    let warnings = |text: &str| load(text).unwrap().warnings;
    assert_eq!(
        warnings(
            "{\"server\": {\"port\": \"81\",\n\"errorMaxRetries\": 2,\n\"https\": {\"key\": \
             \"Cargo.toml\", \"cert\": \"Cargo.toml\"}},\n\"redis\": {\"host\": \"h\"}}"
        ),
        [
            "c.json:1: server.port is a text, read as the number 81: remove its quotes",
            "c.json:1: server.port is old, write http.port: 81",
            "c.json: older files without server.address listen on every address, and so does this \
             one: write \"http\": {\"bind\": [\"127.0.0.1\"]} for this machine only",
            "c.json:3: server.https is old, write https, with \"bind\": [\"::\"]",
            "c.json:2: server.errorMaxRetries is old, write server.retryOnError: 2",
            "c.json:4: redis is old, write driver: \"redis://h:6379/0\"",
        ]
    );
    assert_eq!(
        warnings(r#"{"server": {"address": ["10.0.0.1"], "address6": "::1", "port": 1}}"#)[1..],
        [
            "c.json:1: server.address is old, write http.bind: [\"10.0.0.1\",\"::1\"]",
            "c.json:1: server.address6 is old, write http.bind: [\"10.0.0.1\",\"::1\"]",
        ]
    );
}

/// Older keys beside the newer ones that count are named as well.
#[test]
fn old_keys_that_are_not_used_are_named() {
    let config = load(
        r#"{"server": {"port": 1, "address": "::1", "errorMaxRetries": 1, "retryOnError": 2,
            "https": {}}, "http": {"port": 2, "bind": "127.0.0.1"}, "https": {"bind": []},
            "driver": "redis:", "redisHost": "h"}"#,
    )
    .unwrap();
    assert_eq!(config.warnings.len(), 5, "{:#?}", config.warnings);
    assert!(config.warnings.iter().all(|warning| warning.contains("is old and ignored")));
    let config = load(r#"{"redisMasterPort": 1}"#).unwrap();
    assert_eq!(config.drivers[0].to_string(), LOCAL);
    let is_named = |warning: &String| warning.contains("there is no redisMasterHost");
    assert!(config.warnings.iter().any(is_named), "{:?}", config.warnings);
    let text = r#"{"https": {"key": "Cargo.toml", "cert": "Cargo.toml"}}"#;
    assert!(load(text).unwrap().warnings[0].contains("nothing listens for HTTPS"));
}

/// The reading side is the default where only a master is named.
#[test]
fn a_master_alone_is_only_written_to() {
    let (_, _, drivers) = meaning(r#"{"redisMasterHost": "m", "redisMasterPort": 3}"#);
    assert_eq!(drivers, [LOCAL, "redis://m:3/0"]);
}

/// Mistakes in an older key name that key, not the one that took its place.
#[test]
fn mistakes_name_the_key_that_stands_in_the_file() {
    for (text, error) in [
        (
            "{\"server\": {\n\"https\": {\"key\": \"/no/such.key\", \"cert\": \"Cargo.toml\"}}}",
            "c.json:2: server.https.key: /no/such.key cannot be read: ",
        ),
        (
            "{\"server\": {\"port\": 1,\n\"https\": {}}}",
            "c.json:2: server.https.bind: [::]:443 needs server.https.key: ",
        ),
        (
            "{\"server\": {\"address\": [\"::1\"],\n\"address6\": [\"no such\"]}}",
            "c.json:2: server.address6: `no such` is ",
        ),
    ] {
        let said = load(text).unwrap_err();
        assert!(said.starts_with(error), "{said}");
    }
}
