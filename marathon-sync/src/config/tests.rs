//! From command lines to settings.

use std::io::Write as _;

use clap::Parser as _;
use tempfile::NamedTempFile;

use super::*;

fn load(args: &[&str]) -> Result<Config, String> {
    let cli = Cli::try_parse_from(std::iter::once(&"marathon-sync").chain(args));
    Config::load(&cli.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// The flags of the bridge: short and long forms, in either spelling of a value.
#[test]
fn command_lines_of_the_bridge_mean_what_they_meant() {
    for args in [
        &["-i", "5", "-m", "http://m:8080/", "-P", "/v2/apps", "-r", "r:6379", "-d", "-l", "x"][..],
        &[
            "--Interval",
            "5",
            "--MarathonUrl",
            "http://m:8080/",
            "--AppsPath",
            "/v2/apps",
            "--RedisHost",
            "r:6379",
            "--DryRun",
            "--IncludeLabel",
            "x",
        ],
        &[
            "--Interval=5",
            "--MarathonUrl=http://m:8080/",
            "--AppsPath=/v2/apps",
            "--RedisHost=r:6379",
            "--DryRun",
            "--IncludeLabel=x",
        ],
    ] {
        let config = load(args).unwrap();
        let urls: Vec<_> = config.endpoints.iter().map(|one| one.apps_url().to_string()).collect();
        assert_eq!(urls, ["http://m:8080/v2/apps"]);
        assert_eq!(config.driver.to_string(), "redis://r:6379/0");
        assert_eq!(config.interval, Duration::from_secs(5));
        assert_eq!(config.rules.labels.include, [Include { name: "x".to_owned(), value: None }]);
        assert!(config.dry_run && !config.once);
    }
}

#[test]
fn redis_is_a_driver_or_host_and_port() {
    for (text, shown) in [
        ("redis:6379", "redis://redis:6379/0"),
        ("[::1]:7000", "redis://[::1]:7000/0"),
        ("redis://r/2#x:", "redis://r:6379/2#x:"),
        ("rediss://r", "rediss://r:6379/0"),
        ("redis+sentinel://a,b/main", "redis+sentinel://a:26379,b:26379/main/0"),
        ("unix:/run/r.sock", "unix:/run/r.sock"),
    ] {
        let config = load(&["-m", "http://m", "-r", text]).unwrap();
        assert_eq!(config.driver.to_string(), shown, "{text}");
    }
}

#[test]
fn wrong_settings_name_the_flag_and_what_was_expected() {
    let long = "x".repeat(65);
    for (args, message) in [
        (&[][..], "--marathon: no Marathon given; name at least one"),
        (&["-m", "m:8080"], "--marathon: m:8080: Marathon's address begins with http://"),
        (&["-m", "http://m", "-r", "memcached://h"], "--redis: the driver must be `redis://"),
        (&["-m", "http://m", "-i", "0"], "--interval: expected a number of seconds from 0.1 on"),
        (&["-m", "http://m", "--instance", "a:b"], "--instance: expected a name of at most 64"),
        (&["-m", "http://m", "--instance", &long], "--instance: expected a name"),
        (&["-m", "http://m", "--instance="], "--instance: expected a name"),
        (&["-m", "http://m", "--strict"], "--strict: it is about HAPROXY_* labels"),
        (&["-m", "http://m", "--marathon-user", "u"], "--marathon-user: it needs"),
        (&["-m", "http://m", "--marathon-cert", "c"], "--marathon-cert: it needs --marathon-key"),
        (&["-m", "http://m", "--admin", "here"], "--admin: expected ADDR:PORT"),
        (
            &["-m", "http://m", "--redis-password-file", "/no/such"],
            "--redis-password-file: /no/such: cannot be read: No such file",
        ),
        (
            &["-m", "http://m", "--marathon-token-file", "/no/such"],
            "--marathon-token-file: /no/such: cannot be read: No such file",
        ),
    ] {
        let error = load(args).unwrap_err();
        assert!(error.starts_with(message), "{args:?}: {error}");
    }
    for args in [&["-i", "soon"][..], &["--health", "some"], &["--guard-share", "101"]] {
        let error = load(args).unwrap_err();
        assert!(error.starts_with("error: invalid value"), "{error}");
    }
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let (password, token) = (file("hunter2\n"), file("token=hunter3\n"));
    let path = |file: &NamedTempFile| file.path().display().to_string();
    let (password, token) = (path(&password), path(&token));
    let user = ["--marathon-user", "joe", "--marathon-password-file", &password];
    let redis = ["-m", "http://m", "--redis-password-file", &password];
    let config = load(&[&redis[..], &user[..]].concat()).unwrap();
    assert_eq!(config.driver.password.as_ref().map(Secret::expose), Some("hunter2"));
    let Credentials::Basic(basic) = &config.credentials else { panic!("no user") };
    assert_eq!(basic.password.expose(), "hunter2");
    let with_token = load(&["-m", "http://u:hunter4@m", "--marathon-token-file", &token]).unwrap();
    for config in [&config, &with_token] {
        let shown = format!("{}{config:?}", config.censored());
        assert!(!shown.contains("hunter"), "{shown}");
    }
    let both = [&redis[..], &user[..], &["--marathon-token-file", &token]].concat();
    assert!(load(&both).unwrap_err().contains("only one of them"));
}

#[test]
fn the_printed_settings_are_those_that_count() {
    let config = load(&[
        "-m=http://a/base,http://b",
        "--group=x,y",
        "--strict",
        "--health=any",
        "--readiness=no",
        "--health-failures=max",
        "--unreachable=down",
        "--guard-for=1.5",
        "--admin=:9002",
        "--label=a=b",
        "verify",
    ])
    .unwrap();
    let shown: serde_json::Value = serde_json::from_str(&config.censored()).unwrap();
    for (pointer, value) in [
        ("/marathon/0", json!("http://a/base/v2/apps")),
        ("/marathon/1", json!("http://b/v2/apps")),
        ("/group", json!(["x", "y"])),
        ("/strict", json!(true)),
        ("/readiness", json!(false)),
        ("/health", json!("any")),
        ("/healthFailures", json!("max")),
        ("/unreachable", json!("down")),
        ("/unknownHealth", json!("keep")),
        ("/guard/for", json!(1.5)),
        ("/guard/share", json!(50)),
        ("/interval", json!(30.0)),
        ("/admin", json!("[::]:9002")),
        ("/label/0", json!("a=b")),
        ("/instance", json!("default")),
    ] {
        assert_eq!(shown.pointer(pointer), Some(&value), "{pointer}");
    }
}
