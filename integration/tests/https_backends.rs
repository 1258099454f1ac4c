//! Backends that speak TLS: verified, named, and left out when they cannot prove who they are.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};

use integration::backend::Backend;
use integration::certificates::{Authority, Identity};
use integration::client::{Client, debug_get, get};
use integration::eventually::{DEADLINE, eventually};
use integration::http2;
use integration::redis::Redis;
use integration::router::Router;
use integration::tls::Front;
use integration::websocket::Tunnel;
use pretty_assertions::assert_eq;

/// Says the same to everyone, and closes.
struct Answering(u16);

impl Answering {
    fn start(bytes: &'static [u8]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        // Ends with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let _read = stream.read(&mut [0; 1024]);
                let _written = stream.write_all(bytes);
            }
        });
        Self(port)
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.0)
    }
}

fn trusting(redis: &Redis, authority: &Authority) -> Router {
    Router::builder(redis).set("server.backendCa", authority.ca().display().to_string()).start()
}

#[test]
fn an_https_backend_is_verified_by_the_host_of_its_url() {
    let authority = Authority::new();
    let (redis, backend) = (Redis::start(), Backend::start("b"));
    let front = Front::start(&authority.sign(&["localhost"]), backend.port());
    redis.frontend("name.test", "id", &[&front.url("localhost")]);
    redis.frontend("address.test", "id", &[&front.url("127.0.0.1")]);
    let router = trusting(&redis, &authority);
    let mut client = Client::connect(router.addr());
    for _ in 0..3 {
        assert_eq!(client.get("name.test", "/").text(), "b");
        assert_eq!(client.get("address.test", "/").text(), "b");
    }
    // One connection to each, used again; an address is no server name.
    assert_eq!(front.server_names(), [Some("localhost".to_owned()), None]);
    assert_eq!(backend.requests()[0].head.header("host"), Some("name.test"));
}

/// Wrong name, unknown authority, no TLS at all: 502, a dead mark where there is another backend,
/// and a line in the log where there is none.
#[test]
fn a_backend_that_proves_nothing_is_left_out() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (redis, backend) = (Redis::start(), Backend::start("good"));
    let secret = Backend::start("secret");
    let wrong_name = Front::start(&authority.sign(&["other.test"]), secret.port());
    let unknown = Front::start(&other.sign(&["localhost"]), secret.port());
    let plain = Answering::start(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let router = trusting(&redis, &authority);
    for (host, url) in [
        ("wrong.test", wrong_name.url("localhost")),
        ("unknown.test", unknown.url("localhost")),
        ("plain.test", plain.url()),
    ] {
        redis.frontend(host, "id", &[&url]);
        assert_eq!(get(router.addr(), host, "/").status(), 502, "{host}");
        router.wait_for_log(&["WARN", "no TLS with the backend", &url]);
        redis.frontend(host, "id", &[&url, &backend.url()]);
        let mut client = Client::connect(router.addr());
        eventually(DEADLINE, &format!("{host}: a mark"), || {
            assert_eq!(client.get(host, "/").text(), "good", "{host}");
            redis.dead(host) == BTreeSet::from(["0".to_owned()])
        });
    }
    assert!(secret.requests().is_empty(), "nothing was sent to whom nobody knows");
}

#[test]
fn a_websocket_to_an_https_backend_is_a_tunnel() {
    let authority = Authority::new();
    let redis = Redis::start();
    let backend = Backend::with("ws", |exchange| {
        exchange.accept_upgrade()?;
        while let Ok(bytes) = exchange.conn.read_exact(4) {
            exchange.send(&bytes)?;
        }
        Ok(integration::backend::Next::Close)
    });
    let front = Front::start(&authority.sign(&["localhost"]), backend.port());
    redis.frontend("a.test", "id", &[&front.url("localhost")]);
    let router = trusting(&redis, &authority);
    let mut tunnel = Tunnel::open(router.addr(), "a.test", "/");
    tunnel.echo(b"ping");
    tunnel.echo(b"pong");
    assert_eq!(tunnel.finish(), b"");
}

/// Sets `options:<host>`, in place of what was there.
fn options(redis: &Redis, host: &str, fields: &[&str]) {
    let key = format!("options:{host}");
    redis.run(&["DEL", &key]);
    redis.run(&[&["HSET", &key], fields].concat());
}

fn pem(authority: &Authority) -> String {
    std::fs::read_to_string(authority.ca()).expect("own file")
}

fn status(router: &Router, host: &str) -> u16 {
    get(router.addr(), host, "/").status()
}

/// The same backend for two hosts: only the one that knows its authority reaches it, whoever comes
/// first. HTTP/2, where all requests share a connection, is no way round.
#[test]
fn an_authority_of_one_host_opens_the_backend_to_no_other() {
    let authority = Authority::new();
    let (redis, backend) = (Redis::start(), Backend::start("b"));
    let http2 = http2::Backend::start();
    let identity = authority.sign(&["localhost"]);
    let plain = Front::start(&identity, backend.port());
    let multiplexed = Front::offering(&identity, http2.port(), &["h2", "http/1.1"]);
    for (number, front) in [plain, multiplexed].into_iter().enumerate() {
        let [own, other, late] =
            ["own", "other", "late"].map(|name| format!("{name}{number}.test"));
        for host in [&own, &other, &late] {
            redis.frontend(host, "id", &[&front.url("localhost")]);
        }
        options(&redis, &own, &["backend-ca", &pem(&authority)]);
        // One worker, so that all of them look into the same pools.
        let router = Router::builder(&redis).workers(1).start();
        for _ in 0..2 {
            assert_eq!(status(&router, &other), 502);
            assert_eq!(status(&router, &own), 200);
            assert_eq!(status(&router, &late), 502);
        }
        assert_eq!(front.server_names().len(), 1, "one connection, used again");
    }
    assert_eq!((backend.request_count(), http2.requests().len()), (2, 2));
}

/// One that signs itself says that it is an authority, which no backend may be unless it is named.
#[test]
fn a_certificate_that_signed_itself_is_pinned() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let own = |file, name, day| Identity::self_signed(dir.path(), file, name, day);
    let later = (4000, 1, 1);
    let [pinned, unknown] = ["pinned", "unknown"].map(|file| own(file, "localhost", later));
    let other_name = own("other-name", "other.test", later);
    let expired = own("expired", "localhost", (2001, 1, 1));
    let named = [&pinned, &other_name, &expired].map(|identity| identity.pem().0).concat();
    let file = dir.path().join("named.pem");
    std::fs::write(&file, &named).expect("a file");

    let (redis, backend) = (Redis::start(), Backend::start("b"));
    options(&redis, "*.own.test", &["backend-ca", &named]);
    let router =
        Router::builder(&redis).set("server.backendCa", file.display().to_string()).start();
    for (label, identity, expected) in [
        ("pinned", &pinned, 200),
        ("unknown", &unknown, 502),
        ("other-name", &other_name, 502),
        ("expired", &expired, 502),
    ] {
        let front = Front::start(identity, backend.port());
        for domain in ["own", "configured"] {
            let host = format!("{label}.{domain}.test");
            redis.frontend(&host, "id", &[&front.url("localhost")]);
            assert_eq!(status(&router, &host), expected, "{host}");
        }
    }
    router.wait_for_log(&["no TLS with the backend", "certificate expired"]);
}

/// `backend-name` is what the certificate has to be valid for, and what is asked for (SNI).
#[test]
fn a_backend_name_is_verified_in_place_of_the_urls_host() {
    let authority = Authority::new();
    let (redis, backend) = (Redis::start(), Backend::start("b"));
    let front = Front::start(&authority.sign(&["inner.test"]), backend.port());
    redis.frontend("a.test", "id", &[&front.url("localhost")]);
    let ca = &pem(&authority);
    options(&redis, "a.test", &["backend-ca", ca]);
    let router = Router::start(&redis);
    assert_eq!(status(&router, "a.test"), 502, "localhost is not inner.test");
    options(&redis, "a.test", &["backend-ca", ca, "backend-name", "Inner.test"]);
    assert_eq!(status(&router, "a.test"), 200);
    assert_eq!(front.server_names(), [Some("inner.test".to_owned())]);
    assert_eq!(backend.requests()[0].head.header("host"), Some("a.test"));
    // A connection that was made under one name is not used under another.
    options(&redis, "a.test", &["backend-ca", ca, "backend-name", "other.test"]);
    assert_eq!(status(&router, "a.test"), 502);
    // An address is no server name, but the certificate is valid for it.
    options(&redis, "a.test", &["backend-ca", ca, "backend-name", "127.0.0.1"]);
    assert_eq!(status(&router, "a.test"), 200);
    // With the configured authorities, too.
    options(&redis, "a.test", &["backend-name", "inner.test"]);
    assert_eq!(get(trusting(&redis, &authority).addr(), "a.test", "/").text(), "b");
}

/// Each change counts from the next request, although there are connections that are open.
#[test]
fn verification_is_opted_out_of_and_back_in() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (redis, backend) = (Redis::start(), Backend::start("b"));
    let front = Front::start(&authority.sign(&["other.test"]), backend.port());
    redis.frontend("a.test", "id", &[&front.url("localhost")]);
    redis.frontend("b.test", "id", &[&front.url("localhost")]);
    options(&redis, "a.test", &["backend-verify", "off"]);
    let router = Router::builder(&redis).workers(1).start();
    let mut client = Client::connect(router.addr());
    let mut status = |host| client.get(host, "/").status();
    for _ in 0..3 {
        assert_eq!((status("a.test"), status("b.test")), (200, 502));
    }
    router.wait_for_log(&["WARN", "a.test", "backend-verify off"]);
    assert_eq!(router.log().matches("backend-verify off").count(), 1, "{}", router.log());
    for (fields, expected) in [
        (&["backend-verify", "on"][..], 502),
        (&["backend-verify", "off"], 200),
        (&["backend-verify", "no!"], 502),
        (&["backend-verify", ""], 502),
        (&["backend-ca", &pem(&authority), "backend-name", "other.test"], 200),
        (&["backend-ca", &pem(&other), "backend-name", "other.test"], 502),
        (&["backend-ca", &pem(&other), "backend-verify", "off"], 200),
        (&["maintenance", "off"], 502),
    ] {
        options(&redis, "a.test", fields);
        assert_eq!(status("a.test"), expected, "{fields:?}");
        assert_eq!(status("b.test"), 502);
    }
}

/// A mistake closes the `https://` backends of its host, says so once, and marks nobody dead.
#[test]
fn what_cannot_be_read_closes_its_host_and_no_other() {
    let authority = Authority::new();
    let (redis, backend) = (Redis::start(), Backend::start("plain"));
    let secret = Backend::start("secret");
    let front = Front::start(&authority.sign(&["localhost"]), secret.port());
    let url = &front.url("localhost");
    let router = trusting(&redis, &authority);
    for (host, field, value) in [
        ("ca.test", "backend-ca", "garbage"),
        ("name.test", "backend-name", "*.test"),
        ("verify.test", "backend-verify", "maybe"),
    ] {
        redis.frontend(host, "id", &[url]);
        options(&redis, host, &[field, value, "hsts", "on"]);
        for _ in 0..3 {
            let response = debug_get(router.addr(), host, "/");
            assert_eq!(response.status(), 502, "{host}");
            let error = response.header("x-debug-error").unwrap_or_default();
            assert!(error.contains("backend-verify of options cannot be read"), "{error}");
        }
        router.wait_for_log(&["WARN", host, field, "no requests until it is right"]);
        // A backend that needs no certificate goes on, and the other one is not to blame.
        redis.frontend(host, "id", &[url, &backend.url()]);
        for _ in 0..5 {
            assert_eq!(get(router.addr(), host, "/").text(), "plain");
        }
        assert_eq!(redis.dead(host), BTreeSet::new());
        let log = router.log();
        let named = log.lines().filter(|line| line.contains(host) && line.contains(field));
        let refused = named.filter(|line| line.contains("no requests until it is right"));
        assert_eq!(refused.count(), 1, "{log}");
    }
    assert_eq!(secret.request_count(), 0);
    redis.frontend("other.test", "id", &[url]);
    assert_eq!(get(router.addr(), "other.test", "/").text(), "secret");
}

/// The nearer hash wins field by field, as with every option.
#[test]
fn a_host_overrules_its_wildcard() {
    let authority = Authority::new();
    let (redis, backend) = (Redis::start(), Backend::start("b"));
    let front = Front::start(&authority.sign(&["localhost"]), backend.port());
    redis.frontend("*.example.com", "id", &[&front.url("localhost")]);
    options(&redis, "*.example.com", &["backend-ca", &pem(&authority)]);
    options(&redis, "off.example.com", &["backend-ca", "off"]);
    options(&redis, "open.example.com", &["backend-verify", "off"]);
    options(&redis, "broken.example.com", &["backend-ca", "garbage"]);
    let router = Router::start(&redis);
    for (host, expected) in [
        ("any.example.com", 200),
        ("off.example.com", 502),
        ("open.example.com", 200),
        ("broken.example.com", 502),
        ("other.example.com", 200),
    ] {
        assert_eq!(status(&router, host), expected, "{host}");
    }
}

/// A file without a certificate is a mistake at the start, not at the first request.
#[test]
fn a_backend_authority_that_cannot_be_read_is_named() {
    let redis = Redis::start();
    let builder = Router::builder(&redis).file("ca.pem", "garbage");
    let path = builder.path("ca.pem").display().to_string();
    let ended = builder.set("server.backendCa", path.clone()).run();
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("backendCa") && ended.stderr.contains(&path), "{}", ended.stderr);
}
