//! When a backend counts as dead, and what is written and published then: dead marks in
//! docs/hipache-contract.md 1 and the answers of backends in 2.

use std::net::SocketAddr;
use std::time::Duration;

use integration::backend::{Backend, Exchange, Next};
use integration::client::{Client, debug_get, get};
use integration::eventually::{DEADLINE, eventually};
use integration::gate::Gate;
use integration::ports::{Blackhole, Reserved};
use integration::redis::{Redis, Subscription};
use integration::router::Router;
use integration::wire::{Framing, is_late};
use pretty_assertions::assert_eq;

fn unix_now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

/// Sends requests until position 0 of the list has been tried, which its publication shows.
fn provoke(addr: SocketAddr, host: &str, published: &Subscription) -> String {
    let mut client = Client::connect(addr);
    for _ in 0..200 {
        client.get(host, "/");
        if let Some(message) = published.within(Duration::from_millis(30)) {
            return message;
        }
    }
    panic!("nothing was published");
}

/// Proves that nothing was published before: a mark of another host is the next message.
fn assert_nothing_published(redis: &Redis, addr: SocketAddr, published: &Subscription) {
    let refusing = [Reserved::new(), Reserved::new()];
    redis.frontend("proof.test", "id", &[&refusing[0].url(), &refusing[1].url()]);
    get(addr, "proof.test", "/");
    for _ in 0..2 {
        let message = published.next();
        assert!(message.starts_with("proof.test;"), "published before: {message}");
    }
    redis.run(&["DEL", "dead:proof.test"]);
}

/// A Redis above its `maxmemory` refuses what could need memory, unless the script has written before.
#[test]
fn a_mark_reaches_a_full_redis() {
    let redis = Redis::start();
    let (refusing, good) = (Reserved::new(), Backend::start("good"));
    redis.frontend("a.test", "id", &[&good.url(), &refusing.url(), &good.url()]);
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let published = redis.subscribe("dead");
    let router = Router::builder(&redis).set("server.deadBackendTTL", 77).start();
    let message = provoke(router.addr(), "a.test", &published);
    assert_eq!(message, format!("a.test;{}/;1;3", refusing.url()));
    assert_eq!(redis.dead("a.test").into_iter().collect::<Vec<_>>(), ["1"]);
    let ttl: i64 = redis.query(&["TTL", "dead:a.test"]);
    assert!((60..=77).contains(&ttl), "TTL {ttl}");
}

/// A full server without scripts takes no mark; the announcement is published, and the log names the cause.
#[test]
fn a_full_redis_without_scripts_is_announced_to_and_named() {
    let redis = Redis::with_arguments(&["--rename-command", "EVAL", ""]);
    let (refusing, good) = (Reserved::new(), Backend::start("good"));
    redis.frontend("a.test", "id", &[&good.url(), &refusing.url(), &good.url()]);
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let published = redis.subscribe("dead");
    let router = Router::start(&redis);
    let message = provoke(router.addr(), "a.test", &published);
    assert_eq!(message, format!("a.test;{}/;1;3", refusing.url()));
    router.wait_for_log(&["WARN", "cannot write dead marks", "Redis is full"]);
}

/// Section 1: "`MULTI`: `SADD dead:<host> <position>`, `EXPIRE dead:<host> <deadBackendTTL>`,
/// `PUBLISH dead …`", and the message `<host>;<backend url>;<position>;<number of backends>`, "the
/// URL with its trailing slash".
#[test]
fn a_refusing_backend_is_marked_with_a_ttl_and_published() {
    let redis = Redis::start();
    let (refusing, good) = (Reserved::new(), Backend::start("good"));
    redis.frontend("a.test", "id", &[&good.url(), &refusing.url(), &good.url()]);
    let published = redis.subscribe("dead");
    let router = Router::builder(&redis).set("server.deadBackendTTL", 77).start();
    let message = provoke(router.addr(), "a.test", &published);
    assert_eq!(message, format!("a.test;{}/;1;3", refusing.url()));
    assert_eq!(redis.dead("a.test").into_iter().collect::<Vec<_>>(), ["1"]);
    let ttl: i64 = redis.query(&["TTL", "dead:a.test"]);
    assert!((60..=77).contains(&ttl), "TTL {ttl}");
    router.wait_for_log(&["WARN", "backend marked dead", "cannot connect to", "os error 111"]);
}

/// Section 1: the dead set and the message name the *requested* host, also when a wildcard matched.
#[test]
fn a_mark_under_a_wildcard_names_the_requested_host() {
    let redis = Redis::start();
    let (refusing, good) = (Reserved::new(), Backend::start("good"));
    redis.frontend("*.w.test", "id", &[&refusing.url(), &good.url()]);
    let published = redis.subscribe("dead");
    let router = Router::start(&redis);
    let message = provoke(router.addr(), "X.w.test:80", &published);
    assert_eq!(message, format!("x.w.test;{}/;0;2", refusing.url()));
    assert!(redis.dead("x.w.test").contains("0") && redis.dead("*.w.test").is_empty());
}

/// Section 1: "Marking dead, only when the list has more than one backend".
#[test]
fn the_only_backend_is_never_marked() {
    let redis = Redis::start();
    let refusing = Reserved::new();
    redis.frontend("a.test", "id", &[&refusing.url()]);
    let published = redis.subscribe("dead");
    let router = Router::start(&redis);
    for _ in 0..3 {
        assert_eq!(get(router.addr(), "a.test", "/").status(), 502);
    }
    assert_nothing_published(&redis, router.addr(), &published);
    assert!(redis.dead("a.test").is_empty());
}

/// Section 1: "both left out while `hchecker_ping` is younger than 30 s", and "`PUBLISH dead …`
/// (always)".
#[test]
fn while_the_checker_is_alive_marking_is_left_to_it() {
    let redis = Redis::start();
    let (refusing, good) = (Reserved::new(), Backend::start("good"));
    redis.frontend("a.test", "id", &[&refusing.url(), &good.url()]);
    redis.run(&["SET", "hchecker_ping", &unix_now().to_string()]);
    let published = redis.subscribe("dead");
    let router = Router::start(&redis);
    let message = provoke(router.addr(), "a.test", &published);
    assert_eq!(message, format!("a.test;{}/;0;2", refusing.url()));
    assert_eq!(redis.query::<bool>(&["EXISTS", "dead:a.test"]), false);
}

/// Section 1: a `hchecker_ping` older than 30 s is that of a dead checker, one that is no number is
/// none.
#[test]
fn an_old_or_broken_ping_of_the_checker_does_not_count() {
    for ping in [(unix_now() - 40).to_string(), "soon".to_owned()] {
        let redis = Redis::start();
        let (refusing, good) = (Reserved::new(), Backend::start("good"));
        redis.frontend("a.test", "id", &[&refusing.url(), &good.url()]);
        redis.run(&["SET", "hchecker_ping", &ping]);
        let published = redis.subscribe("dead");
        let router = Router::start(&redis);
        provoke(router.addr(), "a.test", &published);
        assert!(redis.dead("a.test").contains("0"), "hchecker_ping {ping}");
    }
}

/// Section 2: "list with only the identifier; all backends dead: 502".
#[test]
fn without_a_live_backend_the_answer_is_502() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.run(&["RPUSH", "frontend:none.test", "id"]);
    redis.frontend("dead.test", "id", &[&backend.url(), &backend.url()]);
    redis.run(&["SADD", "dead:dead.test", "0", "1"]);
    let router = Router::start(&redis);
    for host in ["none.test", "dead.test"] {
        let response = debug_get(router.addr(), host, "/");
        assert_eq!(response.status(), 502, "{host}");
        assert_eq!(response.header("x-debug-error"), Some("Cannot find a valid backend"), "{host}");
    }
    assert_eq!(backend.connections(), 0);
}

/// Section 1: a mark ends with its TTL, and the backend is used again.
#[test]
fn a_mark_ends_with_its_time() {
    let redis = Redis::start();
    let (flaky, good) = (Backend::start("flaky"), Backend::start("good"));
    flaky.kill();
    redis.frontend("a.test", "id", &[&flaky.url(), &good.url()]);
    let published = redis.subscribe("dead");
    let router = Router::builder(&redis).set("server.deadBackendTTL", 1).start();
    provoke(router.addr(), "a.test", &published);
    flaky.revive();
    let mut client = Client::connect(router.addr());
    eventually(DEADLINE, "the backend is used again", || {
        client.get("a.test", "/").text() == "flaky"
    });
}

/// Section 2: "connecting refused or timed out: mark dead".
#[test]
fn a_backend_that_cannot_be_reached_in_time_is_marked() {
    let redis = Redis::start();
    let (blackhole, good) = (Blackhole::new(), Backend::start("good"));
    redis.frontend("a.test", "id", &[&blackhole.url(), &good.url()]);
    let published = redis.subscribe("dead");
    let router = Router::builder(&redis).set("server.connectTimeout", 0.3).start();
    let message = provoke(router.addr(), "a.test", &published);
    assert_eq!(message, format!("a.test;{}/;0;2", blackhole.url()));
    assert!(redis.dead("a.test").contains("0"));
}

/// Section 2: "backend answers 501, 502, 504 … 599: passed on, marks dead (if > 1)".
#[test]
fn answers_of_a_broken_backend_are_passed_on_and_mark_it() {
    for status in [501, 502, 504, 505, 599] {
        let redis = Redis::start();
        let broken = Backend::status("broken", status, &[("X-From", "backend")]);
        let good = Backend::start("good");
        redis.frontend("one.test", "id", &[&broken.url()]);
        redis.frontend("a.test", "id", &[&broken.url(), &good.url()]);
        let published = redis.subscribe("dead");
        let router = Router::start(&redis);
        let response = get(router.addr(), "one.test", "/");
        assert_eq!((response.status(), response.text().as_str()), (status, "broken"));
        assert_eq!(response.header("x-from"), Some("backend"));
        let message = provoke(router.addr(), "a.test", &published);
        assert_eq!(message, format!("a.test;{}/;0;2", broken.url()), "and nothing for one.test");
        assert!(redis.dead("a.test").contains("0"));
    }
}

/// **Ours**: 501 and 505 speak of a method that servers need not know (RFC 9110 9.1, 15.6.2); a client
/// that makes one up takes no site off the air.
#[test]
fn ours_a_method_that_nobody_knows_marks_nothing() {
    for status in [501, 505, 507, 510] {
        assert_marks_nothing(status, &["FOO", "POST", "OPTIONS", "HEAD", "FOO"], "");
    }
}

/// **Ours**: nor does a header that a healthy backend need not take, nor an upload. 502 to 504 are
/// the common errors of gateways, which a common request may still bring to light.
#[test]
fn ours_no_client_causes_a_mark_by_its_headers() {
    let long = format!("Cookie: {}\r\n", "x".repeat(6000));
    for headers in [
        "Expect: 200-maybe\r\n",
        "Range: bytes=0-0,2-2\r\n",
        "X-HTTP-Method-Override: FOO\r\n",
        "Upgrade: nonsense\r\nConnection: upgrade\r\n",
        "Max-Forwards: 0\r\n",
        &long,
    ] {
        for status in [501, 502, 503, 504, 599] {
            assert_marks_nothing(status, &["GET", "GET"], headers);
        }
    }
    for status in [502, 504] {
        assert_marks_nothing(status, &["PROPFIND", "FOO"], "");
    }
    assert_marks_nothing(508, &["GET", "HEAD"], "");
}

/// Sends requests with these methods and headers to a backend that always answers `status`, and
/// proves that a plain `GET` counts all the same.
#[track_caller]
fn assert_marks_nothing(status: u16, methods: &[&str], headers: &str) {
    let redis = Redis::start();
    let backend = Backend::status("b", status, &[]);
    redis.frontend("a.test", "id", &[&backend.url(), &backend.url()]);
    let published = redis.subscribe("dead");
    let router = Router::start(&redis);
    for method in methods {
        let mut client = Client::connect(router.addr());
        let length = if *method == "GET" { "" } else { "Content-Length: 0\r\n" };
        client.send(format!("{method} / HTTP/1.1\r\nHost: a.test\r\n{length}{headers}\r\n"));
        assert_eq!(client.response_to(method).status(), status, "{method} {headers:.40}");
    }
    assert_nothing_published(&redis, router.addr(), &published);
    assert!(redis.dead("a.test").is_empty(), "{status}");
    if status != 508 {
        get(router.addr(), "a.test", "/");
        assert!(published.next().starts_with("a.test;"), "{status}");
    }
}

/// **Ours**: silence marks, as in Hipache, unless the operator's pages are slower than `tcpTimeout`; then
/// only a backend that cannot be connected to is marked. A method that nobody knows never marks.
#[test]
fn ours_the_operator_decides_whether_silence_marks() {
    for (setting, method, marks) in
        [("all", "GET", true), ("all", "FOO", false), ("connect", "GET", false)]
    {
        let redis = Redis::start();
        let silent = Backend::hanging("silent");
        redis.frontend("a.test", "id", &[&silent.url(), &silent.url()]);
        let published = redis.subscribe("dead");
        let router = Router::builder(&redis)
            .set("server.tcpTimeout", 0.5)
            .set("server.deadBackendOnTimeout", setting)
            .start();
        let mut client = Client::connect(router.addr());
        client.send(format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(client.response().status(), 504, "{setting} {method}");
        if marks {
            assert!(published.next().starts_with("a.test;"), "{setting} {method}");
        } else {
            assert_nothing_published(&redis, router.addr(), &published);
        }
    }
}

/// Section 2: "backend answers 500: passed on; never marks dead unless `deadBackendOn500` is true
/// **and** an external checker is alive". Other answers never mark.
#[test]
fn an_answer_500_alone_marks_nothing() {
    for status in [200, 204, 302, 400, 404, 429, 499, 500] {
        let redis = Redis::start();
        let backend = Backend::status("b", status, &[]);
        redis.frontend("a.test", "id", &[&backend.url(), &backend.url()]);
        let published = redis.subscribe("dead");
        let router = Router::start(&redis);
        assert_eq!(get(router.addr(), "a.test", "/").status(), status);
        assert_nothing_published(&redis, router.addr(), &published);
        assert!(redis.dead("a.test").is_empty(), "{status}");
    }
}

/// Section 2: with `deadBackendOn500` true and an external checker alive, a 500 is published for
/// the checker.
#[test]
fn an_answer_500_is_published_for_a_living_checker() {
    let redis = Redis::start();
    let backend = Backend::status("b", 500, &[]);
    redis.frontend("a.test", "id", &[&backend.url(), &backend.url()]);
    redis.frontend("one.test", "id", &[&backend.url()]);
    redis.run(&["SET", "hchecker_ping", &unix_now().to_string()]);
    let published = redis.subscribe("dead");
    let router = Router::start(&redis);
    assert_eq!(get(router.addr(), "one.test", "/").status(), 500);
    assert_eq!(get(router.addr(), "a.test", "/").status(), 500);
    let message = published.next();
    let expected = [0, 1].map(|position| format!("a.test;{}/;{position};2", backend.url()));
    assert!(expected.contains(&message), "{message}");
    assert!(redis.dead("a.test").is_empty(), "the checker decides");
    let off = Router::builder(&redis).set("server.deadBackendOn500", false).start();
    assert_eq!(get(off.addr(), "a.test", "/").status(), 500);
    assert_nothing_published(&redis, off.addr(), &published);
}

/// Section 2, 503. **Ours**: "a 503 without `Retry-After` marks, one with it does not, as Hipache's
/// source means it".
#[test]
fn ours_a_503_marks_unless_it_announces_its_end() {
    let redis = Redis::start();
    let planned = Backend::status("planned", 503, &[("Retry-After", "5")]);
    let broken = Backend::status("broken", 503, &[]);
    let good = Backend::start("good");
    redis.frontend("planned.test", "id", &[&planned.url(), &planned.url()]);
    redis.frontend("broken.test", "id", &[&broken.url(), &good.url()]);
    let published = redis.subscribe("dead");
    let router = Router::start(&redis);
    let response = get(router.addr(), "planned.test", "/");
    assert_eq!((response.status(), response.header("retry-after")), (503, Some("5")));
    assert_nothing_published(&redis, router.addr(), &published);
    let message = provoke(router.addr(), "broken.test", &published);
    assert_eq!(message, format!("broken.test;{}/;0;2", broken.url()));
    assert!(redis.dead("broken.test").contains("0"));
}

/// Section 2, "backend silent for `tcpTimeout` s". **Ours**: "504 with `error_504.html`, and it
/// counts as a dead mark".
#[test]
fn ours_a_silent_backend_gets_504_and_a_mark() {
    let redis = Redis::start();
    let (silent, good) = (Backend::hanging("silent"), Backend::start("good"));
    redis.frontend("one.test", "id", &[&silent.url()]);
    redis.frontend("a.test", "id", &[&silent.url(), &good.url()]);
    let published = redis.subscribe("dead");
    let router = Router::builder(&redis).set("server.tcpTimeout", 0.5).start();
    let response = get(router.addr(), "one.test", "/");
    assert_eq!(response.status(), 504);
    assert_eq!(
        response.header("content-type").map(|kind| kind.starts_with("text/html")),
        Some(true)
    );
    let message = provoke(router.addr(), "a.test", &published);
    assert_eq!(message, format!("a.test;{}/;0;2", silent.url()));
    assert!(redis.dead("a.test").contains("0"));
    // The connection to the silent backend is not used again, nor kept.
    silent.wait_for_open(0);
}

/// Section 2: a backend that keeps talking is not silent, however long it takes in all.
#[test]
fn a_slow_backend_that_keeps_talking_is_not_silent() {
    let redis = Redis::start();
    let backend = Backend::with("slow", |exchange| {
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")?;
        for byte in b"slowly" {
            // Nothing is waited for here: the pause itself is what is tested, and it is half the
            // limit.
            exchange.conn.set_limit(Some(Duration::from_millis(500)));
            drop(exchange.conn.read_some());
            exchange.send(&[*byte])?;
        }
        Ok(Next::KeepAlive)
    });
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.tcpTimeout", 1).start();
    assert_eq!(get(router.addr(), "a.test", "/").text(), "slowly");
}

/// A backend that never finishes a head is as silent as one that says nothing: one deadline for all heads,
/// informational ones included, from the first byte on.
#[test]
fn ours_a_head_that_never_ends_gets_504_and_a_mark() {
    for (first, more) in [
        ("HTTP/1.1 200 OK\r\n", "X: y\r\n"),
        ("HTTP/1.1 200 OK\r\nX: ", "y"),
        ("", "HTTP/1.1 102 Processing\r\n\r\n"),
        ("HTTP/1.1 103 Early Hints\r\nLink: ", "y"),
    ] {
        let drips = move |exchange: &mut Exchange<'_>| {
            exchange.send(first.as_bytes())?;
            // Nothing is waited for here: the pause itself is what is tested, a fifth of the limit. The
            // end is that of the connection.
            exchange.conn.set_limit(Some(Duration::from_millis(200)));
            while exchange.conn.read_some().is_err_and(|error| is_late(&error)) {
                exchange.send(more.as_bytes())?;
            }
            Ok(Next::Close)
        };
        let redis = Redis::start();
        let backends = [Backend::with("a", drips), Backend::with("b", drips)];
        redis.frontend("a.test", "id", &[&backends[0].url(), &backends[1].url()]);
        let router = Router::builder(&redis).set("server.tcpTimeout", 1).start();
        let mut client = Client::connect(router.addr());
        assert_eq!(client.get("a.test", "/").status(), 504, "{first}{more}");
        eventually(DEADLINE, "the mark", || redis.dead("a.test").len() == 1);
    }
}

/// Section 4, `server.tcpTimeout`: "0 = never".
#[test]
fn without_a_limit_a_silent_backend_is_waited_for() {
    let redis = Redis::start();
    let gate = Gate::new();
    let backend = Backend::gated("b", &gate);
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.tcpTimeout", 0).start();
    let mut client = Client::connect(router.addr());
    client.conn().set_limit(Some(Duration::from_millis(1500)));
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert!(!client.is_closed(), "given up although there is no limit");
    gate.open();
    assert_eq!(client.response().text(), "b");
}

/// Section 2, "backend closes or sends garbage before a response". **Ours**: "502, other requests
/// undisturbed".
#[test]
fn ours_a_backend_that_breaks_off_costs_one_request() {
    let redis = Redis::start();
    let gate = Gate::new();
    let good = Backend::gated("good", &gate);
    redis.frontend("good.test", "id", &[&good.url()]);
    let router = Router::start(&redis);
    let mut undisturbed = Client::connect(router.addr());
    undisturbed.send("GET / HTTP/1.1\r\nHost: good.test\r\n\r\n");
    good.wait_for_requests(1);
    for broken in [
        Backend::closing("closes"),
        Backend::resetting("resets"),
        Backend::answering_once("garbage", "this is not HTTP\r\n\r\n"),
        Backend::answering_once("binary", vec![0, 255, 13, 10, 13, 10]),
        Backend::answering_once("half a head", "HTTP/1.1 200 OK\r\nContent-"),
        Backend::answering_once("bad status", "HTTP/1.1 2000 OK\r\n\r\n"),
        Backend::answering_once(
            "fold",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        ),
        Backend::answering_once(
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        ),
        Backend::answering_once("negative", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        Backend::answering_once(
            "unasked 101",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        ),
    ] {
        redis.frontend("broken.test", "id", &[&broken.url()]);
        let response = get(router.addr(), "broken.test", "/");
        assert_eq!(response.status(), 502, "{}", broken.name());
        assert_eq!(broken.request_count(), 1, "{} was asked again", broken.name());
    }
    gate.open();
    assert_eq!(undisturbed.response().text(), "good");
    assert!(router.is_running());
}

/// Section 2: "body shorter than its Content-Length: the client's connection must end without the
/// missing bytes (never padded, never reported complete)". What did come reaches the client.
#[test]
fn a_cut_body_is_never_padded_nor_reported_complete() {
    let redis = Redis::start();
    let router = Router::start(&redis);
    for (name, raw, end) in CUT_BODIES {
        let gate = Gate::new();
        let backend = Backend::with(name, {
            let gate = gate.clone();
            move |exchange| {
                exchange.send(raw.as_bytes())?;
                gate.wait()?;
                Ok(end)
            }
        });
        redis.frontend("a.test", "id", &[&backend.url()]);
        let mut client = Client::connect(router.addr());
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let head = client.head().expect("the head, before the body is complete");
        assert_eq!(head.status(), 200, "{name}");
        let framing = head.response_framing("GET").expect("one framing");
        let start = match framing {
            Framing::Chunked => client.conn().read_chunk(&mut Vec::new()).expect("a chunk"),
            _ => client.conn().read_exact(5).ok(),
        };
        assert_eq!(start.as_deref(), Some(&b"short"[..]), "{name}");
        gate.open();
        let rest = client.conn().read_body(framing).expect("the end of the connection");
        assert!(!rest.complete && rest.data.is_empty(), "{name}: {rest:?}");
    }
}

/// The same when all that there is comes at once: the client may see less of it, never a complete
/// response.
#[test]
fn a_body_cut_in_its_first_packet_is_not_complete_either() {
    let redis = Redis::start();
    let router = Router::start(&redis);
    for (name, raw, end) in CUT_BODIES {
        let backend = Backend::with(name, move |exchange| {
            exchange.send(raw.as_bytes())?;
            Ok(end)
        });
        redis.frontend("a.test", "id", &[&backend.url()]);
        let mut client = Client::connect(router.addr());
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        if let Some(head) = client.head() {
            let is_reported_by_status = head.status() == 502;
            let framing = head.response_framing("GET").expect("one framing");
            let body = client.conn().read_body(framing).expect("the end of the connection");
            assert!(is_reported_by_status || !body.complete, "{name}: {body:?}");
        }
    }
}

const CUT_BODIES: [(&str, &str, Next); 4] = [
    ("length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", Next::Close),
    (
        "between chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        Next::Close,
    ),
    (
        "in a chunk",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nff\r\n",
        Next::Close,
    ),
    ("reset", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", Next::Reset),
];
