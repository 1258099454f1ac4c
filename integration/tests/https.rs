//! HTTPS: which certificate a client is served, how certificates change, what a handshake may cost.
//! Backends over TLS are in `https_backends.rs`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use integration::backend::Backend;
use integration::certificates::{Authority, Identity};
use integration::client::Client;
use integration::eventually::{DEADLINE, eventually, wait_for};
use integration::redis::Redis;
use integration::router::{Builder, Router};
use integration::tls::Kind;
use integration::websocket::HANDSHAKE;
use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;
use rustls::ProtocolVersion;
use serde_json::json;

/// A router that listens on one address of HTTPS, with this default certificate, and follows Redis.
fn with_https(redis: &Redis, default: &Identity) -> Builder {
    Router::builder(redis)
        .unset("server.cache")
        .set("https.bind", json!(["127.0.0.1"]))
        .set("https.port", 0)
        .set("https.cert", default.certificate.display().to_string())
        .set("https.key", default.key.display().to_string())
}

/// One authority, a default certificate, `a.test` in Redis with a backend.
struct Stage {
    authority: Authority,
    default: Identity,
    redis: Redis,
    backend: Backend,
}

impl Stage {
    fn new() -> Self {
        let authority = Authority::new();
        let default = authority.sign(&["default.test"]);
        let (redis, backend) = (Redis::start(), Backend::start("b"));
        redis.frontend("a.test", "id", &[&backend.url()]);
        Self { authority, default, redis, backend }
    }

    fn builder(&self) -> Builder {
        with_https(&self.redis, &self.default)
    }

    fn kind(&self) -> Kind {
        Kind::trusting(&self.authority.ca())
    }

    /// Puts a certificate of `names` into `tls:<name>` and returns its text.
    fn store(&self, name: &str, names: &[&str]) -> String {
        let (certificate, key) = self.authority.sign(names).pem();
        store(&self.redis, name, &certificate, &key);
        certificate
    }
}

fn store(redis: &Redis, name: &str, certificate: &str, key: &str) {
    redis.run(&["HSET", &format!("tls:{name}"), "certificate", certificate, "key", key]);
}

/// Waits until a client that asks for `host` is served this certificate.
#[track_caller]
fn is_served(router: &Router, kind: &Kind, host: &str, certificate: &str) {
    let (kind, mut last) = (kind.forgetful(), String::new());
    let served = wait_for(DEADLINE, || match kind.try_connect(https(router), host) {
        Ok(connected) if connected.is(certificate) => Some(()),
        Ok(_) => None,
        Err(error) => {
            last = error.to_string();
            None
        }
    });
    assert!(served.is_some(), "{host} is not served its certificate; {last}");
}

fn https(router: &Router) -> std::net::SocketAddr {
    router.addrs()[1]
}

fn metric(router: &Router, line: &str) -> Option<f64> {
    let address = router.admin()?.strip_prefix("http://")?.parse().ok()?;
    let metrics = integration::client::get(address, "localhost", "/metrics").text();
    metrics.lines().find_map(|shown| shown.strip_prefix(line)?.trim().parse().ok())
}

/// The whole way: many requests on one connection, bodies larger than any buffer, and what the
/// backend is told of the scheme and the port.
#[test]
fn requests_over_tls_reach_the_backend_and_say_that_they_did() {
    let stage = Stage::new();
    let router = stage.builder().start();
    stage.store("a.test", &["a.test"]);
    let mut client = stage.kind().connect(https(&router), "a.test").client;
    for _ in 0..3 {
        assert_eq!(client.get("a.test", "/x").text(), "b");
    }
    let head = &stage.backend.requests()[0].head;
    for (name, value) in [
        ("x-forwarded-proto", "https".to_owned()),
        ("x-forwarded-protocol", "https".to_owned()),
        ("x-forwarded-port", https(&router).port().to_string()),
        ("x-forwarded-for", "::ffff:127.0.0.1".to_owned()),
    ] {
        assert_eq!(head.header(name), Some(value.as_str()), "{name}");
    }
    assert_eq!(stage.backend.connections(), 1);
    let log = router.access_log(3);
    assert!(log[2].contains("\"GET /x HTTP/1.1\" 200"), "{log:?}");
}

/// As nginx and Hipache do; a client whose only offer is unknown is refused (RFC 7301 3.2).
#[test]
fn clients_that_offer_only_http_1_0_by_alpn_are_served() {
    let stage = Stage::new();
    let router = stage.builder().start();
    stage.store("a.test", &["a.test"]);
    for offers in [&["http/1.0"][..], &["spdy/3", "http/1.0"]] {
        let mut connected = stage.kind().offering(offers).connect(https(&router), "a.test");
        assert_eq!(connected.protocol.as_deref(), Some("http/1.0"));
        assert_eq!(connected.client.get("a.test", "/").text(), "b");
    }
    assert!(stage.kind().offering(&["spdy/3"]).try_connect(https(&router), "a.test").is_err());
}

/// In words, as nginx does, and with all of it: what the client sent does not reset the connection.
#[test]
fn plain_http_to_an_https_port_is_answered_in_words() {
    let stage = Stage::new();
    let router = stage.builder().start();
    for first in ["GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "PUT / HTTP/1.0\r\n\r\n1234", "g"] {
        let mut client = Client::connect(https(&router));
        let response = client.send(first).response();
        assert_eq!(response.status(), 400, "{first:?}");
        assert!(response.text().contains("HTTPS port"), "{first:?}: {}", response.text());
        assert_eq!(response.header("connection"), Some("close"));
        assert!(client.is_closed());
    }
    assert_eq!(stage.backend.requests().len(), 0);
    let lines = router.access_log(3);
    assert!(lines.len() == 3 && lines.iter().all(|line| line.contains("\"-\" 400 ")), "{lines:?}");
    stage.kind().connect(https(&router), "default.test");
}

/// Also where nobody is distrusted, a client cannot have itself redirected for ever; a trusted proxy
/// may say that it carries what came without encryption.
#[test]
fn a_request_over_tls_is_not_sent_to_https_again_unless_a_trusted_proxy_says_so() {
    let stage = Stage::new();
    stage.redis.run(&["HSET", "options:a.test", "https-redirect", "on", "hsts", "600"]);
    stage.store("a.test", &["a.test"]);
    for (trusted, status) in [(None, 200), (Some("10.0.0.0/8"), 200), (Some("127.0.0.0/8"), 308)] {
        let builder = match trusted {
            Some(network) => stage.builder().set("server.trustedProxies", json!([network])),
            None => stage.builder(),
        };
        let router = builder.start();
        let mut client = stage.kind().connect(https(&router), "a.test").client;
        let response = client.get("a.test", "/");
        assert_eq!(response.status(), 200, "{trusted:?}");
        assert_eq!(response.header("strict-transport-security"), Some("max-age=600"));
        let response = client.get_with("a.test", "/", "X-Forwarded-Proto: http\r\n");
        assert_eq!(response.status(), status, "{trusted:?}");
    }
}

#[test]
fn large_bodies_pass_both_ways_unharmed() {
    let stage = Stage::new();
    let echo = Backend::with("echo", |exchange| {
        let body = exchange.read_body()?;
        exchange.respond(200, &[], &body.data)?;
        Ok(integration::backend::Next::KeepAlive)
    });
    stage.redis.frontend("a.test", "id", &[&echo.url()]);
    let router = stage.builder().start();
    let body: String = ('a'..='z').cycle().take(5_000_000).collect();
    stage.store("a.test", &["a.test"]);
    let mut client = stage.kind().connect(https(&router), "a.test").client;
    for _ in 0..2 {
        assert!(client.post("a.test", "/", &body).text() == body, "the echo differs");
    }
}

#[test]
fn a_websocket_over_tls_is_a_tunnel() {
    let stage = Stage::new();
    let backend = Backend::with("ws", |exchange| {
        exchange.accept_upgrade()?;
        let bytes = exchange.conn.read_to_end()?;
        exchange.send(&bytes)?;
        Ok(integration::backend::Next::Close)
    });
    stage.redis.frontend("a.test", "id", &[&backend.url()]);
    let router = stage.builder().start();
    stage.store("a.test", &["a.test"]);
    let mut client = stage.kind().connect(https(&router), "a.test").client;
    client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{HANDSHAKE}\r\n"));
    assert_eq!(client.head().expect("an answer").status(), 101);
    client.send(vec![7; 100_000]);
    // The end of one direction passes through, and the other goes on.
    client.conn().finish().unwrap();
    assert_eq!(client.conn().read_to_end().unwrap(), vec![7; 100_000]);
}

/// Exact name, then the nearest wildcard, then the default, also without a name.
#[test]
fn the_nearest_certificate_of_redis_is_served_and_else_the_default() {
    let stage = Stage::new();
    let exact = stage.store("a.w.test", &["a.w.test"]);
    let wildcard = stage.store("*.w.test", &["*.w.test"]);
    let wide = stage.store("*.test", &["x.y.test"]);
    let router = stage.builder().start();
    let default = stage.default.pem().0;
    for (host, certificate) in [
        ("a.w.test", &exact),
        ("A.W.test", &exact),
        ("b.w.test", &wildcard),
        ("x.y.test", &wide),
        ("default.test", &default),
    ] {
        // `*.test` has a certificate for `default.test`, which a client would refuse.
        if host == "default.test" {
            stage.redis.run(&["DEL", "tls:*.test"]);
        }
        is_served(&router, &stage.kind(), host, certificate);
    }
    assert!(stage.kind().connect(https(&router), "127.0.0.1").is(&default), "no name at all");
}

#[test]
fn a_changed_certificate_of_redis_counts_for_the_next_handshake() {
    let stage = Stage::new();
    let first = stage.store("a.test", &["a.test"]);
    let router = stage.builder().start();
    is_served(&router, &stage.kind(), "a.test", &first);
    let mut old = stage.kind().connect(https(&router), "a.test").client;
    let second = stage.store("a.test", &["a.test"]);
    assert_ne!(first, second);
    is_served(&router, &stage.kind(), "a.test", &second);
    assert_eq!(old.get("a.test", "/").text(), "b", "a connection outlives its certificate");
    // Known certificates are served while Redis is away.
    stage.redis.pause();
    assert!(stage.kind().connect(https(&router), "a.test").is(&second));
    stage.redis.resume();
    stage.redis.run(&["DEL", "tls:a.test"]);
    let error = |kind: &Kind| kind.try_connect(https(&router), "a.test").is_err();
    eventually(DEADLINE, "a.test gets the default certificate", || error(&stage.kind()));
}

/// "last good kept when a new one is broken", in each way that one can be.
#[test]
fn a_broken_certificate_in_redis_never_replaces_a_good_one() {
    let stage = Stage::new();
    let good = stage.store("a.test", &["a.test"]);
    let router = stage.builder().start();
    is_served(&router, &stage.kind(), "a.test", &good);
    let (certificate, key) = stage.authority.sign(&["a.test"]).pem();
    let (_, other_key) = stage.authority.sign(&["b.test"]).pem();
    let encrypted = include_str!("pem/encrypted.key");
    for (certificate, key, reason) in [
        ("garbage", key.as_str(), "BEGIN CERTIFICATE"),
        (&certificate, "garbage", "no private key"),
        (&certificate, &other_key, "belongs to another certificate"),
        (&certificate, encrypted, "key is encrypted"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key, "cannot be read"),
    ] {
        store(&stage.redis, "a.test", certificate, key);
        // Whoever asks makes the router look.
        eventually(DEADLINE, &format!("a warning with {reason}"), || {
            let connected = stage.kind().connect(https(&router), "a.test");
            assert!(connected.is(&good), "{reason}");
            let log = router.log();
            log.lines()
                .any(|l| l.contains("WARN") && l.contains("tls:a.test") && l.contains(reason))
        });
    }
    stage.redis.run(&["HDEL", "tls:a.test", "key"]);
    stage.redis.run(&["SET", "tls:b.test", "a string"]);
    eventually(DEADLINE, "missing fields and wrong types are named", || {
        assert!(stage.kind().connect(https(&router), "a.test").is(&good));
        let _default = stage.kind().try_connect(https(&router), "b.test");
        let log = router.log();
        log.contains("no field `key`") && log.contains("it is not a hash")
    });
    store(&stage.redis, "a.test", &certificate, &key);
    is_served(&router, &stage.kind(), "a.test", &certificate);
    let complaints = router.log().matches("belongs to another").count();
    assert_eq!(complaints, 1, "each is said once: {}", router.log());
}

/// A directory of `<host>.crt` and `<host>.key`: changes count by themselves, what is broken does not.
#[test]
fn certificates_of_a_directory_follow_their_files() {
    let stage = Stage::new();
    let builder = stage.builder();
    let directory = builder.path("certificates");
    std::fs::create_dir(&directory).unwrap();
    let (one, wild) = (stage.authority.sign(&["a.test"]), stage.authority.sign(&["*.w.test"]));
    one.copy_to(&directory, "a.test");
    wild.copy_to(&directory, "_.w.test");
    std::fs::write(directory.join("broken.test.crt"), "garbage").unwrap();
    let (first, wild) = (one.pem().0, wild.pem().0);
    let router = builder.set("https.directory", directory.display().to_string()).start();
    router.wait_for_log(&["WARN", "broken.test"]);
    is_served(&router, &stage.kind(), "a.test", &first);
    is_served(&router, &stage.kind(), "x.w.test", &wild);

    let second = stage.authority.sign(&["a.test"]);
    second.copy_to(&directory, "a.test");
    is_served(&router, &stage.kind(), "a.test", &second.pem().0);

    std::fs::write(directory.join("a.test.key"), "garbage").unwrap();
    router.wait_for_log(&["WARN", "a.test.crt", "no private key"]);
    is_served(&router, &stage.kind(), "a.test", &second.pem().0);

    // At the same name Redis counts first; a nearer name counts before a wildcard, wherever it is.
    let stored = stage.store("a.test", &["a.test"]);
    let near = stage.store("x.w.test", &["x.w.test"]);
    is_served(&router, &stage.kind(), "a.test", &stored);
    is_served(&router, &stage.kind(), "x.w.test", &near);

    for kind in ["crt", "key"] {
        std::fs::remove_file(directory.join(format!("_.w.test.{kind}"))).unwrap();
    }
    let is_gone = || stage.kind().try_connect(https(&router), "y.w.test").is_err();
    eventually(DEADLINE, "a removed file is served no more", is_gone);
}

/// The default of an address, renewed in place and by a swapped link that nothing announces.
#[test]
fn the_default_certificate_is_renewed_without_a_restart() {
    let stage = Stage::new();
    let elsewhere = tempfile::tempdir().unwrap();
    stage.default.copy_to(elsewhere.path(), "live");
    let links = tempfile::tempdir().unwrap();
    for kind in ["crt", "key"] {
        let (from, to) = (elsewhere.path().join(format!("live.{kind}")), links.path().join(kind));
        std::os::unix::fs::symlink(from, to).unwrap();
    }
    let router = stage
        .builder()
        .set("https.cert", links.path().join("crt").display().to_string())
        .set("https.key", links.path().join("key").display().to_string())
        .start();
    is_served(&router, &stage.kind(), "default.test", &stage.default.pem().0);
    let renewed = stage.authority.sign(&["default.test"]);
    renewed.copy_to(elsewhere.path(), "live");
    router.signal(Signal::SIGHUP);
    is_served(&router, &stage.kind(), "default.test", &renewed.pem().0);
    // A connection of the start still works, and a broken file changes nothing.
    std::fs::write(elsewhere.path().join("live.key"), "garbage").unwrap();
    router.signal(Signal::SIGHUP);
    router.wait_for_log(&["WARN", "certificate not used", "no private key"]);
    is_served(&router, &stage.kind(), "default.test", &renewed.pem().0);
}

/// `https.passphrase` opens a key as OpenSSL encrypts it today; what cannot be opened is named.
#[test]
fn encrypted_keys_open_with_their_passphrase_or_are_named() {
    let redis = Redis::start();
    let pem = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pem");
    let file = |name: &str| pem.join(name).display().to_string();
    let builder = |key: &str, passphrase: &str| {
        Router::builder(&redis)
            .set("https.bind", json!([{"address": "127.0.0.1", "port": 0, "key": file(key)}]))
            .set("https.cert", file("default.crt"))
            .set("https.passphrase", passphrase)
    };
    let router = builder("encrypted.key", "opensesame").start();
    let kind = Kind::trusting(&pem.join("ca.crt"));
    let connected = kind.connect(https(&router), "default.test");
    assert!(connected.is(&std::fs::read_to_string(pem.join("default.crt")).unwrap()));
    for (key, passphrase, reason) in [
        ("encrypted.key", "wrong", "does not open with https.passphrase"),
        ("legacy.key", "opensesame", "openssl pkcs8 -topk8"),
        ("default.crt", "", "no private key"),
    ] {
        // A mistake in the configuration, which a restart does not mend and `--dry` finds.
        for args in [&[][..], &["--dry"]] {
            let ended = builder(key, passphrase).args(args).run();
            assert_eq!(ended.code, Some(78), "{key}: {}", ended.stderr);
            assert!(ended.stderr.contains(reason), "{key}: {}", ended.stderr);
            assert!(ended.stderr.contains("default.crt"), "{key}: {}", ended.stderr);
        }
    }
}

/// A Redis that comes back empty takes no host off the air, nor its certificate.
#[test]
fn certificates_of_redis_go_on_when_it_comes_back_empty() {
    let stage = Stage::new();
    let old = stage.store("a.test", &["a.test"]);
    let router = stage.builder().start();
    is_served(&router, &stage.kind(), "a.test", &old);
    assert_eq!(integration::client::get(router.addr(), "a.test", "/").text(), "b");
    stage.redis.kill();
    stage.redis.launch();
    router.wait_for_log(&["WARN", "Redis has come back empty"]);
    for _ in 0..5 {
        assert!(stage.kind().forgetful().connect(https(&router), "a.test").is(&old));
    }
    let new = stage.store("a.test", &["a.test"]);
    is_served(&router, &stage.kind(), "a.test", &new);
    stage.redis.run(&["DEL", "tls:a.test"]);
    let default = std::fs::read_to_string(&stage.default.certificate).expect("a PEM file");
    is_served(&router, &stage.kind(), "default.test", &default);
    eventually(DEADLINE, "the deletion counts", || {
        let connected = stage.kind().forgetful().try_connect(https(&router), "a.test");
        connected.map_or(true, |connected| !connected.is(&new))
    });
}

/// A certificate under a name that it is not for is served, and named.
#[test]
fn a_certificate_that_does_not_cover_its_name_is_named() {
    let stage = Stage::new();
    for (name, subject, is_named) in [
        ("a.test", "b.test", true),
        ("c.test", "c.test", false),
        ("*.w.test", "w.test", true),
        ("*.x.test", "*.x.test", false),
    ] {
        let (certificate, key) = stage.authority.sign(&[subject]).pem();
        store(&stage.redis, name, &certificate, &key);
        let router = stage.builder().start();
        let host = name.replace('*', "any");
        let _refused = stage.kind().try_connect(https(&router), &host);
        if is_named {
            router.wait_for_log(&["WARN", "not valid for the name", &format!("tls:{name}")]);
        } else {
            is_served(&router, &stage.kind(), &host, &certificate);
            assert!(!router.log().contains("not valid for the name"), "{}", router.log());
        }
    }
}

/// PlanB's users have thousands: nothing is read ahead, and each is asked for once.
#[test]
fn fifteen_thousand_certificates_in_redis_are_read_only_as_they_are_asked_for() {
    const COUNT: usize = 15_000;
    let stage = Stage::new();
    let shared = stage.authority.sign(&["*.many.test"]).pem();
    for number in 0..COUNT {
        store(&stage.redis, &format!("h{number}.many.test"), &shared.0, &shared.1);
    }
    let router = stage.builder().set("server.admin", "127.0.0.1:0").start();
    let asked = stage.redis.calls("hmget");
    // A new connection tries what look-ups of options need.
    let of_the_connection = stage.redis.calls("hgetall");
    let hosts: Vec<_> = (0..200).map(|number| format!("h{}.many.test", number * 75)).collect();
    for host in hosts.iter().chain(&hosts) {
        assert!(stage.kind().connect(https(&router), host).is(&shared.0), "{host}");
    }
    // One question for each of the four names of its look-up order, once.
    assert_eq!(stage.redis.calls("hmget") - asked, 200 * 4);
    for (command, before) in [("scan", 0), ("keys", 0), ("hgetall", of_the_connection)] {
        assert_eq!(stage.redis.calls(command), before, "{command}");
    }
    assert_eq!(metric(&router, "router_certificates{source=\"redis\"}"), Some(200.0));
    // Names that nobody has are no way to more memory or more questions of the same kind.
    for _ in 0..2 {
        let _refused = stage.kind().try_connect(https(&router), "nobody.test");
    }
    assert_eq!(stage.redis.calls("hmget") - asked, 200 * 4 + 3);
}

/// The limit of 10 s, and that whoever dawdles keeps nobody else waiting.
#[test]
fn a_stalled_handshake_is_cut_and_stops_no_other() {
    let stage = Stage::new();
    let router = stage.builder().set("server.admin", "127.0.0.1:0").start();
    stage.store("a.test", &["a.test"]);
    let address = https(&router);
    let mut stalled: Vec<_> = (0..300)
        .map(|number| {
            let mut stream = TcpStream::connect(address).unwrap();
            // Nothing, one byte, or the beginning of a ClientHello.
            let part: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
            stream.write_all(&part[..number % part.len()]).unwrap();
            stream
        })
        .collect();
    let mut client = stage.kind().connect(address, "a.test").client;
    assert_eq!(client.get("a.test", "/").text(), "b");
    for stream in &mut stalled {
        stream.set_read_timeout(Some(3 * DEADLINE)).unwrap();
        let end = stream.read(&mut [0; 16]);
        assert!(
            matches!(end, Ok(0)) || end.is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock)
        );
    }
    let failures = "router_tls_handshake_failures_total{reason=\"timeout\"}";
    eventually(DEADLINE, "every one is counted", || metric(&router, failures) == Some(300.0));
}

/// Tickets are shared: whichever worker a client comes back to, its session goes on.
#[test]
fn a_session_is_resumed_by_any_worker_but_for_no_other_host() {
    let stage = Stage::new();
    stage.store("a.test", &["a.test"]);
    stage.store("b.test", &["b.test"]);
    let router = stage.builder().workers(4).set("server.admin", "127.0.0.1:0").start();
    for kind in [stage.kind(), Kind::tls_1_2(&stage.authority.ca())] {
        for round in 0..20 {
            let mut connected = kind.connect(https(&router), "a.test");
            assert_eq!(connected.is_resumed, round > 0, "{:?} {round}", connected.version);
            // The ticket of TLS 1.3 comes behind the handshake.
            assert_eq!(connected.client.get("a.test", "/").text(), "b");
        }
        assert!(!kind.connect(https(&router), "b.test").is_resumed);
    }
    for version in ["1.2", "1.3"] {
        let line = format!("router_tls_handshakes_total{{version=\"{version}\",resumed=\"yes\"}}");
        assert_eq!(metric(&router, &line), Some(19.0), "{version}");
    }
}

/// Old versions get the alert that says so, and presets say which are old.
#[test]
fn versions_before_1_2_are_refused_and_modern_means_1_3() {
    let stage = Stage::new();
    let modern = stage.builder().set("https.preset", "modern").start();
    let intermediate = stage.builder().start();
    let old = Kind::tls_1_2(&stage.authority.ca());
    let version = |router: &Router, kind: &Kind| {
        kind.try_connect(https(router), "default.test").ok().map(|connected| connected.version)
    };
    assert_eq!(version(&modern, &stage.kind()), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(version(&modern, &old), None);
    assert_eq!(version(&intermediate, &stage.kind()), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(version(&intermediate, &old), Some(ProtocolVersion::TLSv1_2));
    for minor in [1, 2] {
        // A whole ClientHello of TLS 1.0 or 1.1 with one cipher, which any server of theirs takes.
        let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, minor];
        hello.extend([0; 32]);
        hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
        let mut stream = TcpStream::connect(https(&intermediate)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&hello).unwrap();
        let mut alert = Vec::new();
        stream.read_to_end(&mut alert).unwrap();
        // Alert, fatal: handshake_failure, or protocol_version.
        assert_eq!((alert.first(), alert.get(5)), (Some(&21), Some(&2)), "{alert:?}");
        assert!(matches!(alert.get(6), Some(40 | 70)), "{alert:?}");
    }
}

/// RFC 9110 15.5.20: a connection that proved one host is not used for another.
#[test]
fn a_request_for_a_host_that_the_certificate_does_not_cover_gets_421() {
    let stage = Stage::new();
    stage.redis.frontend("b.test", "id", &[&stage.backend.url()]);
    stage.redis.frontend("x.test", "id", &[&stage.backend.url()]);
    stage.store("a.test", &["a.test", "x.test"]);
    let router = stage.builder().start();
    let statuses = |name: &str| {
        let mut client = stage.kind().connect(https(&router), name).client;
        ["a.test", "x.test", "b.test"].map(|host| client.get(host, "/").status())
    };
    assert_eq!(statuses("a.test"), [200, 200, 421]);
    // The default proves no host to anyone: balancers ask for none, or for one of their own.
    assert_eq!(statuses("127.0.0.1"), [200, 200, 200]);
    assert_eq!(statuses("default.test"), [200, 200, 200]);
}

#[test]
fn a_certificate_that_expires_is_warned_about_and_counted() {
    let stage = Stage::new();
    let old = stage.authority.sign_until(&["old.test"], (2020, 1, 1));
    let (certificate, key) = old.pem();
    store(&stage.redis, "old.test", &certificate, &key);
    let router = stage.builder().set("server.admin", "127.0.0.1:0").start();
    let error = stage.kind().try_connect(https(&router), "old.test").unwrap_err();
    assert!(error.to_string().contains("xpired"), "{error}");
    router.wait_for_log(&["WARN", "tls:old.test", "has expired"]);
    for (line, value) in [
        ("router_certificates{source=\"bind\"}", 1.0),
        ("router_certificates_expiring{source=\"bind\"}", 0.0),
        ("router_certificates_expiring{source=\"redis\"}", 1.0),
        ("router_certificates_first_expiry_timestamp_seconds{source=\"redis\"}", 1_577_836_800.0),
    ] {
        assert_eq!(metric(&router, line), Some(value), "{line}");
    }
}

/// With a directory an address needs no default: clients without a certificate of theirs get an
/// alert, and the process goes on.
#[test]
fn without_a_default_certificate_unknown_names_are_refused() {
    let stage = Stage::new();
    let builder = stage.builder().unset("https.cert").unset("https.key");
    let directory = builder.path("certificates");
    std::fs::create_dir(&directory).unwrap();
    stage.authority.sign(&["a.test"]).copy_to(&directory, "a.test");
    let router = builder.set("https.directory", directory.display().to_string()).start();
    assert!(stage.kind().try_connect(https(&router), "nobody.test").is_err());
    let mut client = stage.kind().connect(https(&router), "a.test").client;
    assert_eq!(client.get("a.test", "/").text(), "b");
}

/// Plain bytes on an address of TLS end that connection alone.
#[test]
fn what_is_not_tls_is_refused() {
    let stage = Stage::new();
    let router = stage.builder().start();
    let mut client = Client::connect(https(&router));
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let _alert = client.conn().read_to_end();
    stage.store("a.test", &["a.test"]);
    let mut client = stage.kind().connect(https(&router), "a.test").client;
    assert_eq!(client.get("a.test", "/").text(), "b");
}

/// SIGTERM with a handshake that goes nowhere and a request that runs: the latter is finished.
#[test]
fn draining_finishes_requests_and_leaves_handshakes() {
    let stage = Stage::new();
    let gate = integration::gate::Gate::new();
    let gated = Backend::gated("gated", &gate);
    stage.redis.frontend("a.test", "id", &[&gated.url()]);
    stage.store("a.test", &["a.test"]);
    let router = stage.builder().start();
    let _stalled = TcpStream::connect(https(&router)).unwrap();
    let mut client = stage.kind().connect(https(&router), "a.test").client;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    gated.wait_for_requests(1);
    router.signal(Signal::SIGTERM);
    router.wait_for_log(&["draining"]);
    gate.open();
    let response = client.response();
    assert_eq!((response.text().as_str(), response.header("connection")), ("gated", Some("close")));
    assert_eq!(router.wait(Duration::from_secs(5)).code(), Some(0));
}
