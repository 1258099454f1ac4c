//! Backends that are named: names that move, have several addresses, or cannot be looked up. The router sees
//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/nsswitch.conf` of the test in a mount namespace of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use integration::backend::{Backend, Next};
use integration::client::{Client, debug_get, get};
use integration::eventually::{DEADLINE, eventually};
use integration::gate::Gate;
use integration::ports::Reserved;
use integration::redis::Redis;
use integration::resolver::{Answer, Resolver, can_replace_etc};
use integration::router::{Builder, Router};
use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;

/// A name is looked up every five seconds, and again at the sweep after that.
const FOLLOWED: Duration = DEADLINE.saturating_mul(2);

/// A router that finds names in the hosts file and at this DNS server.
fn router(redis: &Redis, hosts: &str, resolv_conf: &str) -> Option<Builder> {
    if !can_replace_etc() {
        left_out();
        return None;
    }
    let builder = Router::builder(redis)
        .etc("hosts", hosts)
        .etc("resolv.conf", resolv_conf)
        .etc("nsswitch.conf", "hosts: files dns\n");
    Some(builder)
}

#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
fn left_out() {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    let why = "no mount namespace with files of its own below /etc: that takes root and unshare";
    assert!(!is_ci, "{why}");
    eprintln!("{why}: this test is left out");
}

/// The same free port of each of these addresses.
fn ports<const COUNT: usize>(ips: [Ipv4Addr; COUNT]) -> [Reserved; COUNT] {
    for _ in 0..100 {
        let mut port = 0;
        let reserved: Vec<_> = ips
            .iter()
            .map_while(|ip| {
                let reserved = Reserved::at(SocketAddr::from((*ip, port))).ok()?;
                port = reserved.port();
                Some(reserved)
            })
            .collect();
        if let Ok(reserved) = reserved.try_into() {
            return reserved;
        }
    }
    panic!("no port that is free on each of {ips:?}");
}

fn loopback(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// Answers with its name; for `/slow` only after a pass through the gate.
fn backend(port: Reserved, name: &str, gate: &Gate) -> Backend {
    let (gate, body) = (gate.clone(), name.to_owned());
    Backend::on(port, name, move |exchange| {
        exchange.read_body()?;
        if exchange.head.target() == "/slow" {
            gate.wait()?;
        }
        exchange.respond(200, &[], body.as_bytes())?;
        Ok(Next::KeepAlive)
    })
}

fn url(name: &str, port: u16) -> String {
    format!("http://{name}:{port}")
}

/// "Names … looked up every 5 seconds while they are in use": with steady keep-alive traffic new requests go
/// to the new address, none fails, and what runs on the old one is answered.
#[test]
fn a_name_that_moves_is_followed_and_no_request_fails() {
    let redis = Redis::start();
    let gate = Gate::new();
    let [old, new] = ports([loopback(2), loopback(3)]);
    let port = old.port();
    let (old, new) = (backend(old, "old", &gate), backend(new, "new", &gate));
    redis.frontend("a.test", "id", &[&url("moves.test", port)]);
    let Some(builder) = router(&redis, "127.0.0.2 moves.test\n", "") else { return };
    let hosts = builder.path("etc/hosts");
    let router = builder.start();
    let mut client = Client::connect(router.addr());
    for _ in 0..20 {
        assert_eq!(client.get("a.test", "/").text(), "old");
    }
    assert_eq!((old.connections(), new.connections()), (1, 0));
    let mut slow = Client::connect(router.addr());
    slow.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n");
    eventually(DEADLINE, "the slow request is on its way", || gate.waiting() == 1);

    // In place: the router sees this very file.
    fs::write(hosts, "127.0.0.3 moves.test\n").expect("writes the hosts file");
    eventually(FOLLOWED, "a request reaches the new address", || {
        let response = client.get("a.test", "/");
        assert_eq!(response.status(), 200, "{response:?}");
        response.text() == "new"
    });
    let before = old.request_count();
    for _ in 0..50 {
        assert_eq!(client.get("a.test", "/").text(), "new");
        assert_eq!(get(router.addr(), "a.test", "/").text(), "new");
    }
    assert_eq!(old.request_count(), before);
    old.wait_for_open(1);
    gate.release();
    assert_eq!(slow.response().text(), "old");
    old.wait_for_open(0);
}

/// "Requests take turns with all addresses", and those of an address that refuses go to the others.
#[test]
fn addresses_of_one_name_share_its_requests() {
    let redis = Redis::start();
    let gate = Gate::new();
    let ips = [loopback(2), loopback(3), loopback(4)];
    let ports = ports(ips);
    let url = url("three.test", ports[0].port());
    redis.frontend("a.test", "id", &[&url]);
    let mut names = ["two", "three", "four"].into_iter();
    let backends = ports.map(|port| backend(port, names.next().expect("a name each"), &gate));
    if !can_replace_etc() {
        return left_out();
    }
    let resolver = Resolver::start(move |_| Answer::Addresses(ips.to_vec()));
    let Some(builder) = router(&redis, "", &resolver.conf()) else { return };
    let router = builder.start();
    let mut client = Client::connect(router.addr());
    for _ in 0..30 {
        assert_eq!(client.get("a.test", "/").status(), 200);
    }
    let counts = |backends: &[Backend; 3]| backends.each_ref().map(Backend::request_count);
    assert_eq!(counts(&backends), [10, 10, 10]);
    assert_eq!(backends.each_ref().map(Backend::connections), [1, 1, 1]);

    backends[1].kill();
    for _ in 0..30 {
        assert_eq!(client.get("a.test", "/").status(), 200);
    }
    let [two, three, four] = counts(&backends);
    assert_eq!((three, two + four), (10, 50));
    assert!(two >= 24 && four >= 24, "{two} and {four}");
}

/// `localhost` has two addresses, and a backend commonly listens on one of them.
#[test]
fn localhost_is_reached_by_either_family() {
    let redis = Redis::start();
    let gate = Gate::new();
    let (v4, v6) = (Reserved::new(), Reserved::v6());
    redis.frontend("v4.test", "id", &[&url("localhost", v4.port())]);
    redis.frontend("v6.test", "id", &[&url("localhost", v6.port())]);
    let _backends = [backend(v4, "IPv4", &gate), backend(v6, "IPv6", &gate)];
    for hosts in ["127.0.0.1 localhost\n::1 localhost\n", "::1 localhost\n127.0.0.1 localhost\n"] {
        let Some(builder) = router(&redis, hosts, "") else { return };
        let router = builder.start();
        for _ in 0..5 {
            assert_eq!(get(router.addr(), "v4.test", "/").text(), "IPv4");
            assert_eq!(get(router.addr(), "v6.test", "/").text(), "IPv6");
        }
        assert!(redis.dead("v4.test").is_empty() && redis.dead("v6.test").is_empty());
    }
}

/// A resolver that falls silent: "known names go on with their last addresses", "an unknown one gets 502 after
/// half of `connectTimeout`" (the system's resolver waits for 25 s here), nobody else is harmed, and the
/// router ends all the same.
#[test]
fn a_silent_resolver_holds_up_no_known_name_and_no_other_host() {
    if !can_replace_etc() {
        return left_out();
    }
    let redis = Redis::start();
    let known = Backend::start("known");
    redis.frontend("known.test", "id", &[&url("known.dns.test", known.port())]);
    redis.frontend("unknown.test", "id", &[&url("unknown.dns.test", known.port())]);
    let found = |_: &str| Answer::Addresses(vec![loopback(1)]);
    let resolver = Resolver::start(found);
    let Some(builder) = router(&redis, "", &resolver.conf()) else { return };
    let router = builder.start();
    let mut client = Client::connect(router.addr());
    assert_eq!(client.get("known.test", "/").text(), "known");

    resolver.become_like(|_| Answer::Silence);
    let before = resolver.asked("known.dns.test");
    eventually(FOLLOWED, "the known name is asked for without an answer", || {
        assert_eq!(client.get("known.test", "/").text(), "known");
        resolver.asked("known.dns.test") > before
    });
    let mut unlucky = Client::connect(router.addr());
    unlucky.send("GET / HTTP/1.1\r\nHost: unknown.test\r\nX-Debug: 1\r\n\r\n");
    eventually(DEADLINE, "the unknown name is asked for", || {
        assert_eq!(client.get("known.test", "/").text(), "known");
        resolver.asked("unknown.dns.test") > 0
    });
    let response = unlucky.response();
    assert_eq!(response.status(), 502);
    let cause = response.header("x-debug-error-cause");
    assert!(cause.is_some_and(|cause| cause.contains("unknown.dns.test")), "{cause:?}");
    for _ in 0..20 {
        assert_eq!(client.get("known.test", "/").text(), "known");
        assert_eq!(get(router.addr(), "known.test", "/").text(), "known");
        assert_eq!(get(router.addr(), "unknown.test", "/").status(), 502);
    }
    assert!(redis.dead("unknown.test").is_empty());

    resolver.become_like(found);
    eventually(FOLLOWED, "the name is known once the resolver answers", || {
        get(router.addr(), "unknown.test", "/").status() == 200
    });
    resolver.become_like(|_| Answer::Silence);
    redis.frontend("late.test", "id", &[&url("late.dns.test", known.port())]);
    assert_eq!(get(router.addr(), "late.test", "/").status(), 502);
    drop(client);
    router.signal(Signal::SIGTERM);
    assert!(router.wait(DEADLINE).success(), "a look-up that hangs keeps no router from ending");
}

/// Names whose servers never answer hold some of the look-ups; new names of everybody else find others.
#[test]
fn names_that_hang_leave_look_ups_for_other_names() {
    if !can_replace_etc() {
        return left_out();
    }
    let redis = Redis::start();
    let backend = Backend::start("b");
    let hanging: Vec<_> = (0..60).map(|number| format!("h{number}.test")).collect();
    for (number, host) in hanging.iter().enumerate() {
        let name = format!("n{number}.zone{}.test", number % 10);
        redis.frontend(host, "id", &[&url(&name, backend.port())]);
    }
    let resolver = Resolver::start(|name| match name.contains(".zone") {
        true => Answer::Silence,
        false => Answer::Addresses(vec![loopback(1)]),
    });
    let Some(builder) = router(&redis, "", &resolver.conf()) else { return };
    let router = builder.start();
    for _ in 0..2 {
        let mut clients: Vec<_> = hanging
            .iter()
            .map(|host| {
                let mut client = Client::connect(router.addr());
                client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
                client
            })
            .collect();
        for client in &mut clients {
            assert_eq!(client.response().status(), 502);
        }
    }
    for number in 0..20 {
        let host = format!("good{number}.test");
        redis.frontend(&host, "id", &[&url(&format!("good{number}.example"), backend.port())]);
        let response = debug_get(router.addr(), &host, "/");
        assert_eq!(response.status(), 200, "{response:?}");
    }
}

/// What a resolver says only for a moment changes nothing; a name that it does not know gets its 502 at once.
#[test]
fn a_name_that_is_missing_for_a_moment_goes_on() {
    if !can_replace_etc() {
        return left_out();
    }
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&url("a.dns.test", backend.port())]);
    redis.frontend("none.test", "id", &[&url("none.dns.test", backend.port())]);
    let resolver = Resolver::start(|name| match name == "a.dns.test" {
        true => Answer::Addresses(vec![loopback(1)]),
        false => Answer::NoSuchName,
    });
    let Some(builder) = router(&redis, "", &resolver.conf()) else { return };
    let router = builder.start();
    let mut client = Client::connect(router.addr());
    assert_eq!(client.get("a.test", "/").text(), "b");
    let response = debug_get(router.addr(), "none.test", "/");
    assert_eq!(response.status(), 502);
    let cause = response.header("x-debug-error-cause").unwrap_or_default();
    assert!(cause.contains("none.dns.test") && !cause.contains("does not answer"), "{cause}");
    for trouble in [Answer::NoSuchName, Answer::ServerFailure] {
        let before = resolver.asked("a.dns.test");
        resolver.become_like(move |_| trouble.clone());
        eventually(FOLLOWED, "the name is looked up again", || {
            assert_eq!(client.get("a.test", "/").text(), "b");
            resolver.asked("a.dns.test") > before
        });
        for _ in 0..20 {
            assert_eq!(client.get("a.test", "/").text(), "b");
            assert_eq!(get(router.addr(), "a.test", "/").text(), "b");
        }
    }
}
