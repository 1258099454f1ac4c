//! `options:<host>`: what an operator asks for a host beyond its list (docs/redis-schema.md).

use base64::Engine as _;
use integration::backend::Backend;
use integration::client::{Client, Response, get};
use integration::eventually::{DEADLINE, eventually};
use integration::gate::Gate;
use integration::ports::Blackhole;
use integration::redis::Redis;
use integration::router::{Builder, Router};
use integration::websocket::HANDSHAKE;
use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;
use serde_json::json;

/// A host `a.test` with these options.
fn stage(configure: impl FnOnce(Builder) -> Builder, options: &[&str]) -> (Redis, Backend, Router) {
    let (redis, backend) = (Redis::start(), Backend::start("b"));
    redis.frontend("a.test", "id", &[&backend.url()]);
    set(&redis, "a.test", options);
    let router = configure(Router::builder(&redis)).start();
    (redis, backend, router)
}

fn set(redis: &Redis, host: &str, options: &[&str]) {
    let key = format!("options:{host}");
    redis.run(&["DEL", &key]);
    redis.run(&[&["HSET", &key], options].concat());
}

fn get_with(router: &Router, headers: &str) -> Response {
    Client::connect(router.addr()).get_with("a.test", "/", headers)
}

#[test]
fn plain_http_is_sent_to_https_and_only_https_hears_of_hsts() {
    let options = &["https-redirect", "on", "hsts", "max-age=600; includeSubDomains"];
    let trust = |builder: Builder| builder.set("server.trustedProxies", json!(["127.0.0.0/8"]));
    let (redis, backend, router) = stage(trust, options);
    let mut client = Client::connect(router.addr());
    for (request, location) in [
        ("GET /x?y=1 HTTP/1.1\r\nHost: A.test:8080\r\n\r\n", "https://a.test/x?y=1"),
        ("GET http://a.test//evil.test HTTP/1.1\r\nHost: b\r\n\r\n", "https://a.test//evil.test"),
        ("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", "https://a.test/"),
        ("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\na", "https://a.test/x"),
    ] {
        let response = client.send(request).response();
        assert_eq!(response.status(), 308, "{request}");
        assert_eq!(response.header("location"), Some(location));
        assert_eq!(response.header("strict-transport-security"), None);
    }
    assert_eq!(backend.request_count(), 0);
    let https = "X-Forwarded-Proto: https\r\n";
    let response = get_with(&router, https);
    assert_eq!((response.status(), response.text().as_str()), (200, "b"));
    let hsts = Some("max-age=600; includeSubDomains");
    assert_eq!(response.header("strict-transport-security"), hsts);
    set(&redis, "a.test", &["https-redirect", "301", "hsts", "on", "maintenance", "on"]);
    assert_eq!(get_with(&router, "").status(), 301);
    let response = get_with(&router, https);
    assert_eq!(response.status(), 503);
    let hsts = response.header("strict-transport-security");
    assert_eq!(hsts, Some("max-age=31536000"), "also with our own answers");
}

/// Who is not trusted cannot say that it came by HTTPS.
#[test]
fn an_untrusted_client_does_not_pass_for_https() {
    let trust = |builder: Builder| builder.set("server.trustedProxies", json!(["10.0.0.0/8"]));
    let (_redis, _backend, router) = stage(trust, &["https-redirect", "on"]);
    assert_eq!(get_with(&router, "X-Forwarded-Proto: https\r\n").status(), 308);
}

/// Without `trustedProxies` everybody is believed, as by Hipache, which docs/security.md warns of; `allow`
/// reads no header then.
#[test]
fn without_trusted_proxies_everybody_is_believed() {
    let (redis, _backend, router) = stage(|builder| builder, &["https-redirect", "on"]);
    assert_eq!(get_with(&router, "").status(), 308);
    assert_eq!(get_with(&router, "X-Forwarded-Proto: https\r\n").status(), 200);
    set(&redis, "a.test", &["allow", "192.0.2.7"]);
    assert_eq!(get_with(&router, "X-Forwarded-For: 192.0.2.7\r\n").status(), 403);
}

/// A chain of trusted proxies that append the scheme ends in no redirect to where the client is.
#[test]
fn the_first_scheme_of_a_list_decides() {
    let trust = |builder: Builder| builder.set("server.trustedProxies", json!(["127.0.0.0/8"]));
    let (_redis, _backend, router) = stage(trust, &["https-redirect", "on"]);
    for (protos, status) in [
        ("X-Forwarded-Proto: https,https\r\n", 200),
        ("X-Forwarded-Proto: https, http\r\n", 200),
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n", 200),
        ("X-Forwarded-Proto: http, https\r\n", 308),
        ("X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\n", 308),
    ] {
        assert_eq!(get_with(&router, protos).status(), status, "{protos}");
    }
}

#[test]
fn maintenance_answers_503_with_retry_after() {
    let (redis, backend, router) = stage(|builder| builder, &["maintenance", "on"]);
    let response = get_with(&router, "");
    assert_eq!((response.status(), response.header("retry-after")), (503, Some("300")));
    set(&redis, "a.test", &["maintenance", "60"]);
    assert_eq!(get_with(&router, "").header("retry-after"), Some("60"));
    assert_eq!(backend.request_count(), 0);
    set(&redis, "a.test", &["maintenance", "off"]);
    assert_eq!(get_with(&router, "").status(), 200);
}

#[test]
fn only_allowed_addresses_come_in() {
    let (redis, backend, router) = stage(|builder| builder, &["allow", "10.0.0.0/8"]);
    for spoofed in ["", "X-Forwarded-For: 10.0.0.1\r\n", "X-Real-IP: 10.0.0.1\r\n"] {
        assert_eq!(get_with(&router, spoofed).status(), 403, "{spoofed}");
    }
    set(&redis, "a.test", &["allow", "10.0.0.0/8, 127.0.0.0/8"]);
    assert_eq!(get_with(&router, "").status(), 200);
    // Nothing of it can be read: nobody, rather than everybody.
    set(&redis, "a.test", &["allow", "10.0.0/8"]);
    assert_eq!(get_with(&router, "").status(), 403);
    router.wait_for_log(&["WARN", "a.test", "field=allow", "entry 1 is not a network"]);
    assert_eq!(backend.request_count(), 1);
}

/// Behind trusted proxies the client is the last address that is not one of theirs.
#[test]
fn behind_a_trusted_proxy_the_clients_own_address_counts() {
    let trust = |builder: Builder| {
        builder.set("server.trustedProxies", json!(["127.0.0.0/8", "10.0.0.0/8"]))
    };
    let (_redis, _backend, router) = stage(trust, &["allow", "192.0.2.0/24 2001:db8::/32"]);
    for (chain, status) in [
        ("192.0.2.7", 200),
        ("6.6.6.6, 192.0.2.7, 10.0.0.1", 200),
        ("[2001:db8::1]:4711", 200),
        ("::ffff:192.0.2.7", 200),
        ("192.0.2.7, 6.6.6.6", 403),
        ("192.0.2.7, unknown", 403),
        ("192.0.2.7,", 403),
        ("10.0.0.9", 403),
    ] {
        let response = get_with(&router, &format!("X-Forwarded-For: {chain}\r\n"));
        assert_eq!(response.status(), status, "{chain}");
    }
    assert_eq!(get_with(&router, "").status(), 403, "the proxy itself");
}

fn login(name: &str, password: &str) -> String {
    let pair = format!("{name}:{password}");
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    format!("Authorization: Basic {encoded}\r\n")
}

#[test]
fn a_password_is_asked_for_and_checked() {
    let hash = |password: &str| bcrypt::hash(password, 4).expect("hashes");
    let users = format!("me:{}\nyou:{}", hash("one"), hash("two"));
    let (redis, backend, router) = stage(|builder| builder, &["basic-auth", &users]);
    let response = get_with(&router, "");
    assert_eq!(response.status(), 401);
    let challenge = response.header("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Basic realm="), "{challenge}");
    let (me, you) = (login("me", "one"), login("you", "two"));
    for (headers, status) in [
        (&me, 200),
        (&me, 200),
        (&you, 200),
        (&login("me", "two"), 401),
        (&login("nobody", "one"), 401),
        (&format!("{me}{me}"), 401),
        (&"Authorization: Bearer x\r\n".to_owned(), 401),
        (&format!("{me}{HANDSHAKE}"), 200),
        (&HANDSHAKE.to_owned(), 401),
    ] {
        assert_eq!(get_with(&router, headers).status(), status, "{headers}");
    }
    assert_eq!(backend.request_count(), 4);
    set(&redis, "a.test", &["basic-auth", &format!("me:{}", hash("new"))]);
    assert_eq!(get_with(&router, &me).status(), 401, "what was right before is so no more");
    set(&redis, "a.test", &["basic-auth", "me:plain-text"]);
    assert_eq!(get_with(&router, &login("me", "plain-text")).status(), 401);
    let line = router.wait_for_log(&["WARN", "field=basic-auth", "bcrypt"]);
    assert!(!line.contains("plain-text"), "{line}");
}

#[test]
fn a_body_that_is_too_long_gets_413_and_a_shorter_one_passes() {
    let (_redis, backend, router) = stage(|builder| builder, &["max-body", "1k"]);
    let body = "x".repeat(1025);
    let response = Client::connect(router.addr()).post("a.test", "/", &body);
    assert_eq!((response.status(), response.header("connection")), (413, Some("close")));
    let expecting = "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\n\
                     Content-Length: 9999\r\n\r\n";
    let response = Client::connect(router.addr()).send(expecting).response();
    assert_eq!((response.status(), response.informational.len()), (413, 0));
    assert_eq!(backend.request_count(), 0);
    let chunk = format!("201\r\n{}\r\n", "x".repeat(513));
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
    );
    assert_eq!(Client::connect(router.addr()).send(chunked).response().status(), 413);
    let cut = backend.requests().into_iter().filter_map(|request| request.body);
    assert!(cut.into_iter().all(|body| !body.complete), "never a clean end");
    let mut client = Client::connect(router.addr());
    for body in ["x".repeat(1024), String::new()] {
        assert_eq!(client.post("a.test", "/", &body).status(), 200);
    }
}

/// A backend that never says `100 Continue` gets the body while it has time left to answer, also where it
/// has less than the router would wait; the others of the host stay in use.
#[test]
fn a_short_timeout_blames_no_backend_for_a_body_that_is_held_back() {
    let own = (None, &["timeout-read", "0.8"][..]);
    for (timeout, fields) in [own, (Some(0.8), &["timeout-read", "off"])] {
        let (redis, backend, router) = stage(
            |builder| match timeout {
                Some(seconds) => builder.set("server.tcpTimeout", seconds),
                None => builder,
            },
            fields,
        );
        redis.frontend("a.test", "id", &[&backend.url(), &backend.url()]);
        let mut client = Client::connect(router.addr());
        for _ in 0..2 {
            let response = client
                .send(
                    "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\n\
                     Content-Length: 4\r\n\r\nbody",
                )
                .response();
            assert_eq!(response.status(), 200, "{fields:?}");
        }
        assert_eq!(redis.dead("a.test").len(), 0, "{fields:?}");
        let bodies = backend.requests().into_iter().filter_map(|request| request.body);
        assert!(bodies.into_iter().all(|body| body.data == b"body"), "{fields:?}");
    }
}

#[test]
fn a_hosts_own_limit_for_bodies_comes_before_the_servers() {
    let limit = |builder: Builder| builder.set("server.maxBody", 1024);
    let (redis, backend, router) = stage(limit, &["max-body", "2k"]);
    redis.frontend("b.test", "id", &[&backend.url()]);
    for (host, length, status) in
        [("a.test", 1025, 200), ("a.test", 2049, 413), ("b.test", 1024, 200), ("b.test", 1025, 413)]
    {
        let response = Client::connect(router.addr()).post(host, "/", &"x".repeat(length));
        assert_eq!(response.status(), status, "{length} bytes to {host}");
    }
}

#[test]
fn times_of_a_host_replace_those_of_the_server() {
    let (redis, hanging, blackhole) =
        (Redis::start(), Backend::hanging("hanging"), Blackhole::new());
    redis.frontend("read.test", "id", &[&hanging.url()]);
    set(&redis, "read.test", &["timeout-read", "0.3"]);
    redis.frontend("connect.test", "id", &[&blackhole.url()]);
    set(&redis, "connect.test", &["timeout-connect", "0.3"]);
    let router = Router::builder(&redis)
        .set("server.tcpTimeout", 600)
        .set("server.connectTimeout", 600)
        .set("server.retryOnError", 0)
        .start();
    assert_eq!(get(router.addr(), "read.test", "/").status(), 504);
    assert_eq!(get(router.addr(), "connect.test", "/").status(), 502);
}

/// The server gives up such a backend in half a second; this host does not, neither before the head
/// nor within the body.
#[test]
fn a_host_may_have_more_patience_than_the_server() {
    let (redis, gate) = (Redis::start(), Gate::new());
    let backend = Backend::with("slow", {
        let gate = gate.clone();
        move |exchange| {
            let is_patient = exchange.head.header("host") == Some("patient.test");
            let begins_early = exchange.head.target() == "/body";
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab";
            if begins_early {
                exchange.send(head)?;
            }
            if is_patient {
                gate.wait()?;
            } else {
                // Until the router gives up.
                exchange.conn.set_limit(None);
                let _gone = exchange.conn.read_some();
                return Ok(integration::backend::Next::Close);
            }
            exchange.send(if begins_early {
                b"cd"
            } else {
                b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd"
            })?;
            Ok(integration::backend::Next::KeepAlive)
        }
    });
    for host in ["patient.test", "usual.test"] {
        redis.frontend(host, "id", &[&backend.url()]);
    }
    set(&redis, "patient.test", &["timeout-read", "0"]);
    let router = Router::builder(&redis).set("server.tcpTimeout", 0.5).start();
    for target in ["/head", "/body"] {
        let mut patient = Client::connect(router.addr());
        patient.send(format!("GET {target} HTTP/1.1\r\nHost: patient.test\r\n\r\n"));
        eventually(DEADLINE, "the backend is waited for", || gate.waiting() == 1);
        let mut usual = Client::connect(router.addr());
        usual.send(format!("GET {target} HTTP/1.1\r\nHost: usual.test\r\n\r\n"));
        let given_up = usual.response_or_cut("GET");
        assert!(given_up.status() == 504 || !given_up.body.complete, "{target}: {given_up:?}");
        gate.release();
        assert_eq!(patient.response().text(), "abcd", "{target}");
    }
}

/// A field of the host itself comes before that of the list that matched; `off` is a value, too.
#[test]
fn a_wildcards_options_hold_for_its_hosts_unless_they_have_their_own() {
    let (redis, backend) = (Redis::start(), Backend::start("b"));
    redis.frontend("*.w.test", "id", &[&backend.url()]);
    set(&redis, "*.w.test", &["maintenance", "7", "max-body", "0"]);
    set(&redis, "*.test", &["maintenance", "99"]);
    set(&redis, "own.w.test", &["maintenance", "off"]);
    let router = Router::start(&redis);
    let maintenance = |host: &str| {
        let response = get(router.addr(), host, "/");
        response.header("retry-after").map(str::to_owned)
    };
    assert_eq!(maintenance("any.w.test").as_deref(), Some("7"), "and not that of *.test");
    assert_eq!(maintenance("own.w.test"), None);
    let response = Client::connect(router.addr()).post("own.w.test", "/", "x");
    assert_eq!(response.status(), 413, "the wildcard's other fields hold");
    // A list of its own makes the host its own: the wildcard's options are the wildcard's.
    redis.frontend("listed.w.test", "id", &[&backend.url()]);
    assert_eq!(maintenance("listed.w.test"), None);
}

#[test]
fn a_change_counts_at_once_and_what_is_known_is_not_asked_again() {
    let (redis, backend) = (Redis::start(), Backend::start("b"));
    redis.frontend("*.w.test", "id", &[&backend.url()]);
    let router = Router::tracking(&redis);
    let mut client = Client::connect(router.addr());
    let mut becomes = |status: u16| {
        let is_so = || client.get("a.w.test", "/").status() == status;
        eventually(DEADLINE, &format!("answered with {status}"), is_so);
    };
    becomes(200);
    for (command, status) in [
        (&["HSET", "options:*.w.test", "maintenance", "on"][..], 503),
        (&["HSET", "options:a.w.test", "maintenance", "off"], 200),
        (&["DEL", "options:a.w.test"], 503),
        (&["HDEL", "options:*.w.test", "maintenance"], 200),
    ] {
        redis.run(command);
        becomes(status);
        let before = redis.calls("hgetall");
        for _ in 0..5 {
            becomes(status);
        }
        // The connection is checked now and then with a read of its own.
        let reads = redis.calls("hgetall") - before;
        assert!(reads < 4, "{reads} reads after {command:?}");
    }
}

/// Once for each state, however many requests there are, and for all hosts under a wildcard together.
#[test]
fn unknown_fields_and_bad_values_are_named_once_and_harm_nothing_else() {
    let (redis, backend) = (Redis::start(), Backend::start("b"));
    redis.frontend("*.w.test", "id", &[&backend.url()]);
    set(&redis, "*.w.test", &["maintenence", "on", "hsts", "maybe", "max-body", "1"]);
    let router = Router::start(&redis);
    for host in ["a.w.test", "b.w.test", "a.w.test"] {
        assert_eq!(get(router.addr(), host, "/").status(), 200);
        assert_eq!(Client::connect(router.addr()).post(host, "/", "xx").status(), 413);
    }
    router.wait_for_log(&["WARN", "*.w.test", "maintenence", "not known"]);
    router.wait_for_log(&["WARN", "*.w.test", "field=hsts", "expected on, off"]);
    assert_eq!(router.log().matches("option not used").count(), 2, "{}", router.log());
    set(&redis, "*.w.test", &["hsts", "perhaps"]);
    get(router.addr(), "a.w.test", "/");
    eventually(DEADLINE, "a new state is said", || {
        router.log().matches("option not used").count() == 3
    });
}

/// It may have been a lock: without it nobody comes in.
#[test]
fn options_of_another_type_close_their_host_and_no_other() {
    let (redis, backend, router) = stage(|builder| builder, &["maintenance", "off"]);
    redis.frontend("b.test", "id", &[&backend.url()]);
    redis.run(&["SET", "options:b.test", "allow"]);
    assert_eq!(get(router.addr(), "b.test", "/").status(), 502);
    router.wait_for_log(&["WARN", "options:b.test", "it is not a hash"]);
    assert_eq!(get(router.addr(), "a.test", "/").status(), 200);
}

#[test]
fn locks_stay_shut_at_a_start_without_redis() {
    let disk = tempfile::tempdir().expect("a temporary directory");
    let path = disk.path().join("snapshot").display().to_string();
    let (redis, backend) = (Redis::start(), Backend::start("b"));
    redis.frontend("a.test", "id", &[&backend.url()]);
    set(&redis, "a.test", &["allow", "10.0.0.0/8"]);
    let builder = || Router::builder(&redis).unset("server.cache").args(&["--snapshot", &path]);
    let router = builder().start();
    assert_eq!(get(router.addr(), "a.test", "/").status(), 403);
    router.signal(Signal::SIGTERM);
    assert_eq!(router.wait(DEADLINE).code(), Some(0));
    redis.kill();
    let router = builder().start();
    assert_eq!(get(router.addr(), "a.test", "/").status(), 403);
    assert_eq!(backend.request_count(), 0);
}
