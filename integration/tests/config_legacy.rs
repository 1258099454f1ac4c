//! The command line and the one JSON file: docs/hipache-contract.md 4, and the router's own
//! settings, exit codes and privileges.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use integration::backend::Backend;
use integration::certificates::Authority;
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::ports::Reserved;
use integration::program::Ended;
use integration::redis::Redis;
use integration::router::{Builder, Router, binary};
use integration::tls::Kind;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

/// Runs `--dry` on a file with this text and returns what it printed.
fn dry(text: &str) -> Ended {
    Builder::bare().file("c.json", text).args(&["-c", "c.json", "--dry"]).run()
}

/// The settings that come out of a file with this text.
#[track_caller]
fn settings(text: &str) -> Value {
    let ended = dry(text);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

/// What is said about a wrong file; the exit code is that for configurations, and nothing is
/// printed.
#[track_caller]
fn complaint(text: &str) -> String {
    let ended = dry(text);
    assert_eq!(ended.code, Some(78), "{text}\n{}", ended.stderr);
    assert_eq!(ended.stdout, "", "{text}");
    assert_eq!(ended.stderr.lines().count(), 1, "one line: {}", ended.stderr);
    ended.stderr
}

#[track_caller]
fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
}

/// The table of keys: every default.
#[test]
fn an_empty_file_gives_hipaches_defaults() {
    let settings = settings("{}");
    let server = &settings["server"];
    for (key, value) in [
        ("debug", json!(false)),
        ("maxSockets", json!(100)),
        ("accessLog", json!("/var/log/hipache/access.log")),
        ("httpKeepAlive", json!(true)),
        ("deadBackendOn500", json!(true)),
        ("staticDir", json!(null)),
        ("lruCache", json!(null)),
        ("retryOnError", json!(3)),
    ] {
        assert_eq!(server[key], value, "server.{key}");
    }
    for (key, seconds) in [("tcpTimeout", 30.0), ("deadBackendTTL", 30.0)] {
        assert_eq!(server[key].as_f64(), Some(seconds), "server.{key}");
    }
    assert_eq!((&settings["user"], &settings["group"]), (&json!("www-data"), &json!("www-data")));
    assert_says(&settings["http"].to_string(), &["127.0.0.1", "80"]);
    assert_says(&settings["driver"].to_string(), &["redis://", "6379"]);
}

/// Hipache's own sample, key by key, as its users have it.
#[test]
fn the_file_of_a_hipache_user_is_understood() {
    let text = r#"{
        "server": {
            "accessLog": "/var/log/hipache_access.log", "workers": 5, "maxSockets": 100, "deadBackendTTL": 30,
            "tcpTimeout": 30, "retryOnError": 3, "deadBackendOn500": true, "httpKeepAlive": false,
            "lruCache": {"size": 1000, "ttl": 60}, "staticDir": null, "debug": true
        },
        "http": {"port": 8080, "bind": ["0.0.0.0", "::1", {"address": "127.0.0.2", "port": 81}]},
        "user": "www-data", "group": 33,
        "driver": ["redis://:replica@10.0.0.1:6380/1#pre", "redis://primary"]
    }"#;
    let settings = settings(text);
    assert_eq!(settings["server"]["workers"], 5);
    assert_eq!(settings["server"]["httpKeepAlive"], false);
    assert_eq!(settings["server"]["debug"], true);
    assert_eq!(settings["server"]["lruCache"]["size"], 1000);
    assert_eq!(settings["server"]["lruCache"]["ttl"].as_f64(), Some(60.0));
    assert_says(&settings["http"].to_string(), &["0.0.0.0", "8080", "::1", "127.0.0.2", "81"]);
    assert_says(&settings["driver"].to_string(), &["10.0.0.1:6380/1#pre", "redis://primary"]);
    assert_eq!(settings["group"], "33");
    assert_eq!(dry(text).stderr, "router: configuration file c.json\n", "no warning");
}

/// A key and its certificate, PEM.
fn key_and_certificate() -> (String, String) {
    let authority = Authority::new();
    let identity = authority.sign(&["a.test"]);
    let read = |path| std::fs::read_to_string(path).expect("a PEM file");
    (read(identity.key), read(identity.certificate))
}

/// "`--dry` checks the file, prints the result with keys and certificates censored, and exits"; the
/// short `-d`, too.
#[test]
fn dry_prints_the_result_without_secrets() {
    let builder = Builder::bare();
    let (key, cert) = (builder.path("secret-key.pem"), builder.path("cert.pem"));
    let (secret, certificate) = key_and_certificate();
    let in_the_key = secret.lines().nth(1).expect("what is in the key").to_owned();
    let text = json!({
        "driver": "redis://:hunter2@example.test:1/2#p",
        "https": {"bind": ["127.0.0.1"], "key": key, "cert": cert, "passphrase": "opensesame"},
    });
    let ended = builder
        .file("secret-key.pem", secret)
        .file("cert.pem", certificate)
        .file("c.json", text.to_string())
        .args(&["-d", "-c", "c.json"])
        .run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let shown = format!("{}{}", ended.stdout, ended.stderr);
    for secret in ["hunter2", "opensesame", &in_the_key, "secret-key.pem"] {
        assert!(!ended.stdout.contains(secret), "{secret} in {shown}");
    }
    assert!(!shown.contains("hunter2") && !shown.contains("opensesame"), "{shown}");
    assert_says(&ended.stdout, &["example.test:1/2#p"]);
    serde_json::from_str::<Value>(&ended.stdout).expect("JSON");
}

/// "`hipache [-c|--config FILE] [-d|--dry] [-h|--help]`": both spellings of each.
#[test]
fn hipaches_flags_are_understood() {
    for flag in ["-c", "--config"] {
        for dry in ["-d", "--dry"] {
            let ended = Builder::bare().file("c.json", "{}").args(&[flag, "c.json", dry]).run();
            assert_eq!(ended.code, Some(0), "{flag} {dry}: {}", ended.stderr);
        }
    }
    for help in ["-h", "--help"] {
        let ended = Builder::bare().arg(help).run();
        assert_eq!(ended.code, Some(0));
        assert_says(&ended.stdout, &["--config", "--dry", "--listen", "--redis"]);
    }
}

/// "Without `-c`: `config/config.json`, or `config/config_<SETTINGS_FLAVOR>.json` when that
/// variable is set."
#[test]
fn without_a_name_hipaches_default_files_are_read() {
    let builder = |path: &str, workers: u64| {
        Builder::bare().file(path, json!({"server": {"workers": workers}}).to_string()).arg("--dry")
    };
    let workers = |ended: Ended| {
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        serde_json::from_str::<Value>(&ended.stdout).expect("JSON")["server"]["workers"].clone()
    };
    assert_eq!(workers(builder("config/config.json", 3).run()), 3);
    let flavored = builder("config/config_prod.json", 4).file("config/config.json", "{}");
    assert_eq!(workers(flavored.env("SETTINGS_FLAVOR", "prod").run()), 4);
    let missing = builder("config/config.json", 3).env("SETTINGS_FLAVOR", "prod").run();
    assert_eq!(missing.code, Some(78));
    assert_says(&missing.stderr, &["config/config_prod.json"]);
    assert_eq!(Builder::bare().arg("--dry").run().code, Some(0), "a file is not needed");
}

/// Which file was read is told, by `--dry` and in the log.
#[test]
fn the_file_that_was_read_is_named() {
    let dry = Builder::bare().file("config/config.json", "{}").arg("--dry").run();
    assert_eq!(dry.stderr, "router: configuration file config/config.json\n");
    let without = Builder::bare().arg("--dry").run();
    assert_says(&without.stderr, &["no configuration file"]);
    let redis = Redis::start();
    Router::start(&redis).wait_for_log(&["INFO", "configuration read", "config.json"]);
}

/// `--dry | head`: a reader that has seen enough is no failure.
#[test]
fn a_closed_pipe_does_not_fail_dry() {
    let mut router = Command::new(binary())
        .arg("--dry")
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the router");
    drop(router.stdout.take());
    let ended = router.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
}

/// Arguments, a file with its text, the exit code, what is said, and what is not.
type Mistake<'a> = (&'a [&'a str], (&'a str, &'a str), i32, &'a [&'a str], &'a str);

/// Each mistake is said with what to do, and names the setting that made it.
#[test]
fn mistakes_at_the_start_say_what_to_do() {
    let taken = Reserved::new();
    let _listener = taken.listen();
    let admin = format!("127.0.0.1:{}", taken.port());
    let run = ["--user", "root", "--listen", "127.0.0.1:0"];
    let mistakes: &[Mistake<'_>] = &[
        (&["--admin", &admin], ("", ""), 1, &["admin listener", "with --admin"], "--listen"),
        (
            &["--redis", "localhost:25379"],
            ("", ""),
            78,
            &["--redis", "write `redis://localhost:25379`"],
            "`localhost:`",
        ),
        (
            &["--redis-password-file", "empty"],
            ("empty", "\n"),
            78,
            &["--redis-password-file", "is empty"],
            "WRONGPASS",
        ),
        (
            &["--access-log", "no/such/access.log"],
            ("", ""),
            1,
            &["no/such/access.log", "install -d no/such", "--access-log"],
            "panic",
        ),
        (&["-c", "c.json"], ("c.json", ""), 78, &["c.json:1", "is empty"], "column"),
        (&["-c", "c.json"], ("c.json", "{\n// x\n}"), 78, &["c.json:2", "no comments"], "column"),
        (
            &["-c", "c.json"],
            ("c.json", "{\"http\": {\"port\": \"x\"}}"),
            78,
            &["http.port", "0 to 65535", "\"x\""],
            "u16",
        ),
    ];
    for (args, (name, content), code, words, not) in mistakes {
        let mut builder = Builder::bare().args(&run).args(args);
        if !name.is_empty() {
            builder = builder.file(name, content);
        }
        let ended = builder.run();
        assert_eq!(ended.code, Some(*code), "{args:?}: {}", ended.stderr);
        assert_says(&ended.stderr, words);
        assert!(!ended.stderr.contains(not), "{}", ended.stderr);
    }
}

/// What keeps Redis from being used is named, once, and not as something else.
#[test]
fn the_log_names_what_keeps_redis_from_being_used() {
    let (locked, redis) = (Redis::start(), Redis::start());
    redis.run(&["ACL", "SETUSER", "small", "on", ">x", "+ping", "+hello", "+auth"]);
    locked.run(&["CONFIG", "SET", "requirepass", "secret"]);
    let web = answering("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n", true);
    // As Redis does: closed at once, so that what the client has sent resets the connection.
    let protected = answering(
        "-DENIED Redis is running in protected mode because no password is set. Do this.\r\n",
        false,
    );
    for (driver, words) in [
        (
            format!("redis://:wrong@127.0.0.1:{}", locked.port()),
            ["refuses the password, check", "Redis refuses the password: every"],
        ),
        (
            format!("redis://small:x@127.0.0.1:{}", redis.port()),
            ["its user may not", "does not allow its user what is needed: every"],
        ),
        (
            format!("redis://127.0.0.1:{}/99", redis.port()),
            ["it refuses the database", "Redis refuses the database: every"],
        ),
        (
            format!("redis://127.0.0.1:{web}"),
            ["does not speak Redis' protocol", "is not Redis: every"],
        ),
        (
            format!("redis://127.0.0.1:{protected}"),
            ["set `requirepass`", "is in protected mode and refuses other machines: every"],
        ),
    ] {
        let router = Router::builder(&redis).set("driver", driver.as_str()).start();
        for word in words {
            router.wait_for_log(&["WARN", word]);
        }
        let log = router.log();
        assert!(!log.contains("not reachable") && !log.contains("reset by peer"), "{log}");
        let lines = log.lines().filter(|line| line.contains("WARN")).count();
        assert_eq!(lines, 2, "{log}");
        assert_eq!(log.matches("cannot use Redis").count(), 1, "{log}");
    }
}

/// The port of a server that says this to each client, once it was asked something if it `waits`.
fn answering(said: &'static str, waits: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if waits {
                let _length = stream.read(&mut [0; 1024]);
            }
            let _is_written = stream.write_all(said.as_bytes());
        }
    }));
    port
}

/// "Exit codes: 2 (usage), 78 (configuration)", and one line that says what is wrong.
#[test]
fn wrong_usage_and_a_missing_file_have_their_exit_codes() {
    for args in [
        &["--nonsense"][..],
        &["--workers", "many"],
        &["--tcp-timeout=-1"],
        &["nonsense"],
        &["-c"],
        &["--log-level", "warning", "--dry"],
    ] {
        let ended = Builder::bare().args(args).run();
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.stderr);
    }
    let ended = Builder::bare().args(&["-c", "missing.json"]).run();
    assert_eq!(ended.code, Some(78));
    assert_says(&ended.stderr, &["missing.json"]);
    let listen = Builder::bare().args(&["--dry", "--listen", "nonsense"]).run();
    assert!([Some(2), Some(78)].contains(&listen.code), "{listen:?}");
    assert_says(&listen.stderr, &["--listen", "nonsense"]);
}

/// "Wrong JSON …: file, line".
#[test]
fn wrong_json_is_reported_with_its_line() {
    assert_says(&complaint("{\n  \"server\": {\n    \"workers\": 1,\n  }\n}"), &["c.json:4"]);
    assert_says(&complaint("{\n\"server\": {"), &["c.json:2"]);
    assert_says(&complaint(""), &["c.json"]);
    assert_says(&complaint("[]"), &["c.json"]);
    assert_says(&complaint("{} more"), &["c.json:1"]);
}

/// "Bad values: file, line, key, what was expected".
#[test]
fn a_bad_value_is_reported_with_line_key_and_expectation() {
    for (text, words) in [
        ("{\"server\": {\n\"workers\": \"ten\"}}", &["c.json:2", "server.workers", "ten"][..]),
        ("{\"server\": {\n\n\"workers\": 0}}", &["c.json:3", "server.workers", "1"]),
        ("{\"server\": {\n\"tcpTimeout\": -1}}", &["c.json:2", "server.tcpTimeout", "-1"]),
        ("{\"server\": {\n\"tcpTimeout\": \"30 s\"}}", &["c.json:2", "server.tcpTimeout", "30 s"]),
        ("{\"server\": {\n\"deadBackendTTL\": true}}", &["c.json:2", "server.deadBackendTTL"]),
        (
            "{\"server\": {\n\"retryOnError\": \"no\"}}",
            &["c.json:2", "server.retryOnError", "number"],
        ),
        ("{\"server\": {\n\"maxSockets\": 0}}", &["c.json:2", "server.maxSockets"]),
        ("{\"server\": {\n\"maxSockets\": 1.5}}", &["c.json:2", "server.maxSockets"]),
        (
            "{\"server\": {\n\"staticDir\": \"/does/not/exist\"}}",
            &["c.json:2", "server.staticDir", "/does/not/exist"],
        ),
        (
            "{\"server\": {\n\"trustedProxies\": [\"10.0.0.0/33\"]}}",
            &["c.json:2", "server.trustedProxies", "10.0.0.0/33"],
        ),
        ("{\"http\": {\n\"port\": 65536}}", &["c.json:2", "http.port", "65536"]),
        ("{\"http\": {\n\"bind\": {\"address\": 1}}}", &["c.json:2", "http.bind"]),
        ("{\n\"driver\": \"mysql://x\"}", &["c.json:2", "driver", "redis"]),
        ("{\n\"driver\": \"redis://h/notanumber\"}", &["c.json:2", "driver", "database"]),
        ("{\n\"server\": []}", &["c.json:2", "server"]),
    ] {
        assert_says(&complaint(text), words);
    }
}

/// "Unknown keys: a warning, with \"did you mean\"."
#[test]
fn unknown_keys_are_named_with_what_was_meant() {
    let ended = dry("{\"server\": {\n\"tcpTimout\": 3,\n\"colour\": 1},\n\"drivers\": \"redis:\"}");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let line = |word| ended.stderr.lines().find(|line| line.contains(word)).expect(word).to_owned();
    assert_says(&line("tcpTimout"), &["c.json:2", "did you mean", "tcpTimeout"]);
    assert_says(&line("drivers"), &["c.json:4", "did you mean", "driver"]);
    assert_says(&line("colour"), &["c.json:3"]);
    assert!(!line("colour").contains("did you mean"), "nothing is near that");
}

/// "Older files: … honoured, with a warning naming the new key."
#[test]
fn the_keys_of_older_files_are_honoured_with_a_warning() {
    let text = r#"{
        "server": {"port": 8081, "address": ["127.0.0.3", "::1"]},
        "redisHost": "replica.test", "redisPort": 6380, "redisDatabase": 2, "redisPassword": "old-one",
        "redisMasterHost": "primary.test", "redisMasterPort": 6381, "redisMasterDatabase": 3,
        "redisMasterPassword": "old-two"
    }"#;
    let settings = settings(text);
    assert_says(&settings["http"].to_string(), &["127.0.0.3", "::1", "8081"]);
    let drivers = settings["driver"].as_array().expect("two drivers");
    assert_says(&drivers[0].to_string(), &["replica.test:6380/2"]);
    assert_says(&drivers[1].to_string(), &["primary.test:6381/3"]);
    let said = dry(text).stderr;
    for (old, new) in [
        ("server.port", "http.port"),
        ("server.address", "http.bind"),
        ("redisHost", "driver"),
        ("redisPort", "driver"),
        ("redisPassword", "driver"),
        ("redisDatabase", "driver"),
        ("redisMasterHost", "driver"),
        ("redisMasterPort", "driver"),
        ("redisMasterPassword", "driver"),
        ("redisMasterDatabase", "driver"),
    ] {
        let warned =
            said.lines().any(|line| line.contains(&format!("{old} ")) && line.contains(new));
        assert!(warned, "no warning for {old} that names {new}:\n{said}");
    }
    assert!(!said.contains("old-one") && !said.contains("old-two"), "{said}");
}

/// `server.address` may be a string, and older files work end to end.
#[test]
fn a_router_runs_on_an_old_file() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis)
        .unset("http")
        .unset("driver")
        .set("server.address", "127.0.0.1")
        .set("server.port", 0)
        .set("redisHost", "127.0.0.1")
        .set("redisPort", redis.port())
        .start();
    assert_eq!(get(router.addr(), "a.test", "/").text(), "b");
    router.wait_for_log(&["WARN", "server.port", "http.port"]);
    router.wait_for_log(&["WARN", "redisHost", "driver"]);
}

/// Hipache 0.1 to 0.3 listened on every address unless the file named some, for HTTPS as well.
#[test]
fn an_old_file_without_addresses_listens_on_every_address() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let authority = Authority::new();
    let identity = authority.sign(&["a.test"]);
    let router = Router::builder(&redis)
        .unset("http")
        .unset("driver")
        .set("server.port", "0")
        .set("server.https.port", 0)
        .set("server.https.key", identity.key.display().to_string())
        .set("server.https.cert", identity.certificate.display().to_string())
        .set("redis.port", redis.port())
        .start();
    let ports: Vec<_> = router.addrs().iter().map(SocketAddr::port).collect();
    assert_eq!(ports.len(), 2, "HTTP and HTTPS");
    let mut addresses = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        addresses.push(Ipv6Addr::LOCALHOST.into());
    }
    for address in addresses {
        assert_eq!(get((address, ports[0]).into(), "a.test", "/").text(), "b", "{address}");
        let kind = Kind::trusting(&authority.ca());
        let mut connected = kind.connect((address, ports[1]).into(), "a.test");
        assert_eq!(connected.client.get("a.test", "/").text(), "b", "{address}");
    }
    router.wait_for_log(&["WARN", "every address"]);
    router.wait_for_log(&["WARN", "server.https", "https"]);
    router.wait_for_log(&["WARN", "server.port", "number 0"]);
}

/// Node took numbers in quotes: they count, with a warning that says what was read.
#[test]
fn numbers_in_quotes_count_with_a_warning() {
    let text = r#"{"server": {"tcpTimeout": "30.5", "workers": "3"}, "redisPort": "6380"}"#;
    let settings = settings(text);
    assert_eq!(settings["server"]["tcpTimeout"], 30.5);
    assert_eq!(settings["server"]["workers"], 3);
    assert_says(&settings["driver"].to_string(), &["127.0.0.1:6380"]);
    assert_says(&dry(text).stderr, &["server.tcpTimeout is a text", "server.workers", "redisPort"]);
}

/// `http.bind`: "string, list of strings, or of `{address, port}`; IPv6 too".
#[test]
fn every_form_of_bind_is_listened_on() {
    let redis = Redis::start();
    let reserved = Reserved::new();
    for (bind, count) in [
        (json!("127.0.0.1"), 1),
        (json!(["127.0.0.1", "127.0.0.2", "::1"]), 3),
        (json!([{"address": "127.0.0.1", "port": reserved.port()}, "::1"]), 2),
        (json!({"address": "127.0.0.1"}), 1),
    ] {
        let router = Router::builder(&redis).set("http.bind", bind.clone()).start();
        assert_eq!(router.addrs().len(), count, "{bind}");
        for addr in router.addrs() {
            assert_eq!(get(addr, "__ping__", "/").status(), 200, "{bind}: {addr}");
        }
        if bind.to_string().contains("port") {
            assert_eq!(router.addr().port(), reserved.port());
        }
    }
}

/// "could not start or run: 1", saying which address is taken and what can be done.
#[test]
fn an_address_that_is_taken_ends_the_start() {
    let redis = Redis::start();
    let reserved = Reserved::new();
    let _listener = reserved.listen();
    let ended = Router::builder(&redis).set("http.port", reserved.port()).run();
    assert_eq!(ended.code, Some(1));
    assert_says(&ended.stderr, &[&reserved.addr().to_string()]);
    let ended = Router::builder(&redis).set("http.bind", json!(["192.0.2.1"])).run();
    assert_eq!(ended.code, Some(1));
    assert_says(&ended.stderr, &["192.0.2.1"]);
}

/// The two routers that an operator starts by mistake do not share the port silently.
#[test]
fn a_second_router_on_the_same_port_refuses_to_start() {
    let redis = Redis::start();
    let first = Router::builder(&redis).workers(2).start();
    let second = Router::builder(&redis).set("http.port", first.addr().port()).run();
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert_says(&second.stderr, &[&first.addr().to_string()]);
}

/// "flag > `ROUTER_*` environment > `config.json` > default", for each of the settings that have a
/// flag.
#[test]
fn a_flag_counts_before_the_environment_before_the_file() {
    let file = json!({
        "server": {
            "workers": 2, "accessLog": "/tmp/file.log", "tcpTimeout": 2, "connectTimeout": 2, "deadBackendTTL": 2,
            "retryOnError": 2, "maxSockets": 2, "tunnelIdleTimeout": 2, "drainTimeout": 2, "plainIPv4": false,
            "trustedProxies": ["10.0.0.2/32"],
        },
        "http": {"bind": "127.0.0.2", "port": 2}, "driver": "redis://file:2/2", "user": "2", "group": "2",
    });
    // Setting, its variable and its flag, and how the three values show.
    let cases = [
        ("/server/workers", "ROUTER_WORKERS", "--workers", ["2", "3", "4"]),
        (
            "/server/accessLog",
            "ROUTER_ACCESS_LOG",
            "--access-log",
            ["/tmp/file.log", "stdout", "none"],
        ),
        ("/server/tcpTimeout", "ROUTER_TCP_TIMEOUT", "--tcp-timeout", ["2.0", "3", "4"]),
        (
            "/server/connectTimeout",
            "ROUTER_CONNECT_TIMEOUT",
            "--connect-timeout",
            ["2.0", "1", "0.5"],
        ),
        (
            "/server/deadBackendTTL",
            "ROUTER_DEAD_BACKEND_TTL",
            "--dead-backend-ttl",
            ["2.0", "3", "4"],
        ),
        ("/server/retryOnError", "ROUTER_RETRY_ON_ERROR", "--retry-on-error", ["2", "3", "4"]),
        ("/server/maxSockets", "ROUTER_MAX_SOCKETS", "--max-sockets", ["2", "3", "4"]),
        (
            "/server/tunnelIdleTimeout",
            "ROUTER_TUNNEL_IDLE_TIMEOUT",
            "--tunnel-idle-timeout",
            ["2.0", "3", "4"],
        ),
        ("/server/drainTimeout", "ROUTER_DRAIN_TIMEOUT", "--drain-timeout", ["2.0", "3", "4"]),
        (
            "/server/trustedProxies",
            "ROUTER_TRUSTED_PROXIES",
            "--trusted-proxies",
            ["10.0.0.2/32", "10.0.0.3/32", "10.0.0.4/32"],
        ),
        ("/http/bind", "ROUTER_LISTEN", "--listen", ["127.0.0.2:2", "127.0.0.3:3", "127.0.0.4:4"]),
        (
            "/driver",
            "ROUTER_REDIS",
            "--redis",
            ["redis://file:2/2", "redis://env:3/3", "redis://flag:4/4"],
        ),
        ("/user", "ROUTER_USER", "--user", ["2", "3", "4"]),
        ("/group", "ROUTER_GROUP", "--group", ["2", "3", "4"]),
    ];
    for (pointer, variable, flag, values) in cases {
        for (level, value) in values.iter().enumerate() {
            let mut builder = Builder::bare().config(file.clone()).arg("--dry");
            if level >= 1 {
                builder = builder.env(variable, values[1]);
            }
            if level == 2 {
                builder = builder.args(&[flag, values[2]]);
            }
            let ended = builder.run();
            assert_eq!(ended.code, Some(0), "{flag}: {}", ended.stderr);
            let shown: Value = serde_json::from_str(&ended.stdout).expect("JSON");
            let shown = shown.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}: {shown}"));
            assert!(is_shown(shown, value), "{flag}: {shown} instead of {value}");
        }
    }
}

/// Whether a setting printed as JSON is the one written as `value`.
fn is_shown(shown: &Value, value: &str) -> bool {
    match shown {
        Value::Number(number) => number.as_f64() == value.parse().ok(),
        Value::String(text) => text == value,
        // An address is shown in its parts.
        Value::Array(items) => items.iter().any(|item| match item {
            Value::Object(parts) => {
                let text = |name: &str| {
                    parts
                        .get(name)
                        .map(|part| part.to_string().replace('"', ""))
                        .unwrap_or_default()
                };
                format!("{}:{}", text("address"), text("port")) == value
            }
            item => is_shown(item, value),
        }),
        _ => false,
    }
}

/// "`--listen` (repeatable), `--redis` (repeatable: first read, last write)": a router without any
/// file.
#[test]
fn a_router_runs_on_flags_alone() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let mut builder = Builder::bare()
        .args(&[
            "--listen",
            "127.0.0.1:0",
            "--listen",
            "[::1]:0",
            "--access-log",
            "none",
            "--workers",
            "1",
        ])
        .args(&["--redis", &redis.url()]);
    if nix::unistd::geteuid().is_root() {
        builder = builder.args(&["--user", "root"]);
    }
    let router = builder.start();
    assert_eq!(router.addrs().len(), 2);
    for addr in router.addrs() {
        assert_eq!(get(addr, "a.test", "/").text(), "b");
    }
}

/// The log says plainly what is served and from which Redis.
#[test]
fn the_start_is_told_in_the_log() {
    let redis = Redis::start();
    let router = Router::start(&redis);
    router.wait_for_log(&["INFO", &format!("http://{}", router.addr()), &redis.port().to_string()]);
    assert!(!router.log().contains("WARN"), "{}", router.log());
}

/// `server.debug`: true shows what happens to single requests, false does not.
#[test]
fn debug_shows_single_requests() {
    let redis = Redis::start();
    let refusing = Reserved::new();
    redis.frontend("a.test", "id", &[&refusing.url()]);
    let quiet = Router::start(&redis);
    get(quiet.addr(), "a.test", "/");
    assert!(!quiet.log().contains("DEBUG"), "{}", quiet.log());
    let talkative = Router::builder(&redis).set("server.debug", true).start();
    get(talkative.addr(), "a.test", "/");
    talkative.wait_for_log(&["DEBUG", "a.test", &refusing.port().to_string()]);
}

/// "`router healthcheck` exits 0/1 asking `Host: __ping__` of the first listener of the same
/// configuration".
#[test]
fn healthcheck_asks_the_first_listener() {
    let redis = Redis::start();
    let port = Reserved::new();
    let check = || Router::builder(&redis).set("http.port", port.port()).arg("healthcheck").run();
    let ended = check();
    assert_eq!(ended.code, Some(1), "nothing listens yet");
    assert_eq!(ended.stderr.lines().count(), 1, "one line: {}", ended.stderr);
    let router = Router::builder(&redis).set("http.port", port.port()).start();
    assert_eq!(check().code, Some(0));
    assert_eq!(router.addr().port(), port.port());
    let by_flag = Builder::bare()
        .args(&["healthcheck", "--listen", &format!("0.0.0.0:{}", port.port())])
        .run();
    assert_eq!(by_flag.code, Some(0), "{}", by_flag.stderr);
}

/// `https.key`, `.cert`, `.ca`, `.passphrase`, and the OpenSSL settings: "accepted; where they
/// cannot be expressed, a warning says what is used instead".
#[test]
fn https_settings_are_checked() {
    let builder = Builder::bare();
    let path = |name| builder.path(name).display().to_string();
    let (key, cert) = (path("k.pem"), path("c.pem"));
    let text = json!({"https": {
        "port": 8443, "bind": ["127.0.0.1", {"address": "::1", "port": 8444, "key": key, "cert": cert}],
        "key": key, "cert": cert, "ca": [cert, cert], "passphrase": "x",
        "secureProtocol": "SSLv23_method", "secureOptions": 0, "ciphers": "HIGH:!aNULL", "honorCipherOrder": true,
    }});
    let (secret, certificate) = key_and_certificate();
    let ended = builder
        .file("k.pem", secret)
        .file("c.pem", certificate)
        .file("c.json", text.to_string())
        .args(&["-c", "c.json", "-d"])
        .run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for key in ["secureProtocol", "secureOptions", "ciphers", "honorCipherOrder"] {
        let warned = ended.stderr.lines().any(|line| line.contains(key) && line.contains("TLS"));
        assert!(warned, "no warning for {key}:\n{}", ended.stderr);
    }
    let missing = complaint(
        r#"{"https": {"bind": ["127.0.0.1"], "key": "/no/key.pem", "cert": "/no/cert.pem"}}"#,
    );
    assert_says(&missing, &["https.key", "/no/key.pem"]);
    assert_says(&complaint(r#"{"https": {"bind": ["127.0.0.1"]}}"#), &["https", "key"]);
}

/// "started as root with no user: refuse, unless `"root"`".
#[test]
fn root_needs_a_user_to_become() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can drop privileges");
        return;
    }
    let redis = Redis::start();
    let ended = Router::builder(&redis).set("user", "").set("group", "").run();
    assert!([Some(1), Some(78)].contains(&ended.code), "{ended:?}");
    assert_says(&ended.stderr, &["root", "user"]);
    let ended = Router::builder(&redis).set("user", "no-such-user").unset("group").run();
    assert!([Some(1), Some(78)].contains(&ended.code), "{ended:?}");
    assert_says(&ended.stderr, &["no-such-user"]);
}

/// `user`, `group`: "names or numbers; dropped to after every bind", with the log file still
/// writable after a rotation.
#[test]
fn privileges_are_dropped_after_the_binds() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can drop privileges");
        return;
    }
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    for (user, group) in [(json!("www-data"), json!("www-data")), (json!(33), json!(33))] {
        let router = Router::builder(&redis).set("user", user).set("group", group).start();
        assert_eq!(get(router.addr(), "a.test", "/").text(), "b");
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", router.process().pid())).unwrap();
        let ids = |name: &str| {
            let line =
                status.lines().find(|line| line.starts_with(name)).expect("a line").to_owned();
            line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(ids("Uid:"), ["33"; 4]);
        assert_eq!(ids("Gid:"), ["33"; 4]);
        assert!(!ids("Groups:").contains(&"0".to_owned()), "supplementary groups of root are kept");
        router.access_log(1);
        let owner = std::fs::metadata(router.path("access.log")).unwrap().uid();
        assert_eq!(owner, 33, "the log can be reopened");
        std::fs::rename(router.path("access.log"), router.path("access.log.1")).unwrap();
        router.signal(nix::sys::signal::Signal::SIGUSR1);
        eventually(DEADLINE, "the log is reopened", || router.path("access.log").exists());
    }
}

/// SIGHUP re-reads what can be re-read, and a broken file leaves everything as it was.
#[test]
fn sighup_rereads_the_file() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let path = router.path("config.json");
    let original = std::fs::read_to_string(&path).unwrap();
    let address = || {
        Client::connect(router.addr()).get("a.test", "/");
        backend.requests().pop().expect("seen").head.header("x-real-ip").map(str::to_owned)
    };
    assert_eq!(address().as_deref(), Some("::ffff:127.0.0.1"));
    let mut config: Value = serde_json::from_str(&original).unwrap();
    config["server"]["plainIPv4"] = json!(true);
    std::fs::write(&path, config.to_string()).unwrap();
    router.signal(nix::sys::signal::Signal::SIGHUP);
    eventually(DEADLINE, "the new setting counts", || address().as_deref() == Some("127.0.0.1"));
    std::fs::write(&path, "{\"server\": ").unwrap();
    router.signal(nix::sys::signal::Signal::SIGHUP);
    router.wait_for_log(&["WARN", "config.json:1"]);
    assert_eq!(address().as_deref(), Some("127.0.0.1"));
    assert!(router.is_running());
}
