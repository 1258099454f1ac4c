//! A router that is stopped for longer than its limits (`SIGSTOP`, `docker pause`, a paused virtual machine)
//! blames nobody for it: what came meanwhile is read before anything counts as late, and who was stopped
//! with it has the rest of its time.

use std::sync::mpsc;
use std::time::Duration;

use integration::backend::Backend;
use integration::client::Client;
use integration::eventually::{DEADLINE, eventually};
use integration::gate::Gate;
use integration::redis::Redis;
use integration::router::Router;
use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;

/// Longer than every limit here.
const PAUSE: Duration = Duration::from_millis(2500);

/// Stops the router, does `meanwhile`, and lets the router go on.
fn pause(router: &Router, meanwhile: impl FnOnce()) {
    stop(router);
    meanwhile();
    go_on(router);
}

fn stop(router: &Router) {
    router.signal(Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", router.process().pid());
    eventually(DEADLINE, "the router stops", || {
        std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "))
    });
}

fn go_on(router: &Router) {
    // Nothing is waited for here: the pause itself is what is tested.
    let (_open, never) = mpsc::channel::<()>();
    assert!(never.recv_timeout(PAUSE).is_err());
    router.signal(Signal::SIGCONT);
}

struct Stage {
    redis: Redis,
    router: Router,
    gate: Gate,
    _backends: [Backend; 2],
    clients: Vec<Client>,
}

/// Requests that wait for two backends, which may take two seconds.
fn stage() -> Stage {
    let redis = Redis::start();
    let gate = Gate::new();
    let backends = ["a", "b"].map(|name| Backend::gated(name, &gate));
    redis.frontend("a.test", "id", &[&backends[0].url(), &backends[1].url()]);
    let router = Router::builder(&redis).set("server.tcpTimeout", 2).start();
    let clients = (0..10).map(|_| {
        let mut client = Client::connect(router.addr());
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        client
    });
    let clients = clients.collect();
    eventually(DEADLINE, "all requests wait", || gate.waiting() == 10);
    Stage { redis, router, gate, _backends: backends, clients }
}

impl Stage {
    #[track_caller]
    fn nobody_is_blamed(mut self) {
        for client in &mut self.clients {
            assert_eq!(client.response().status(), 200);
        }
        assert_eq!(self.redis.dead("a.test").len(), 0);
        assert!(!self.router.log().contains("backend marked dead"));
    }
}

#[test]
fn answers_that_come_during_a_pause_are_in_time() {
    let stage = stage();
    pause(&stage.router, || stage.gate.open());
    stage.nobody_is_blamed();
}

#[test]
fn a_backend_that_was_paused_too_has_the_rest_of_its_time() {
    let stage = stage();
    pause(&stage.router, || {});
    stage.gate.open();
    stage.nobody_is_blamed();
}

/// A backend that is silent after the pause, too, is marked as ever.
#[test]
fn a_pause_does_not_keep_a_limit_from_passing() {
    let mut stage = stage();
    pause(&stage.router, || {});
    for client in &mut stage.clients {
        assert_eq!(client.response().status(), 504);
    }
    eventually(DEADLINE, "marks", || !stage.redis.dead("a.test").is_empty());
    stage.gate.open();
}

#[test]
fn clients_and_tunnels_that_speak_during_a_pause_are_heard() {
    let redis = Redis::start();
    let (backend, tunnel) = (Backend::start("b"), Backend::upgrading("t"));
    redis.frontend("a.test", "id", &[&backend.url()]);
    redis.frontend("t.test", "id", &[&tunnel.url()]);
    let router = Router::builder(&redis)
        .set("server.idleTimeout", 1)
        .set("server.headTimeout", 1)
        .set("server.tcpTimeout", 2)
        .set("server.tunnelIdleTimeout", 1)
        .start();
    let mut idle = Client::connect(router.addr());
    assert_eq!(idle.get("a.test", "/").status(), 200);
    let mut slow = Client::connect(router.addr());
    slow.send("GET / HTTP/1.1\r\nHost: a.test\r\n");
    let mut upgraded = Client::connect(router.addr());
    upgraded
        .send("GET / HTTP/1.1\r\nHost: t.test\r\nConnection: upgrade\r\nUpgrade: anything\r\n\r\n");
    assert_eq!(upgraded.head().expect("an answer").status(), 101);
    upgraded.send("one");
    assert_eq!(upgraded.conn().read_exact(3).expect("an echo"), b"one");
    pause(&router, || {
        idle.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        slow.send("\r\n");
        upgraded.send("two");
    });
    assert_eq!(idle.response().status(), 200);
    assert_eq!(slow.response().status(), 200);
    assert_eq!(upgraded.conn().read_exact(3).expect("an echo"), b"two");
}

/// Bytes that the program on this port has not read yet.
fn unread(port: u16) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("on Linux");
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_port = fields.next().is_some_and(|local| local.ends_with(&format!(":{port:04X}")));
        let queues = fields.nth(2).unwrap_or_default();
        is_port && line.contains(" 01 ") && !queues.ends_with(":00000000")
    })
}

/// Redis has half a second for an answer. One that came during a pause counts, and the connection stays.
#[test]
fn what_redis_says_during_a_pause_is_in_time() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    for _attempt in 0..20 {
        let mut client = Client::connect(router.addr());
        redis.pause();
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        eventually(DEADLINE, "Redis is asked", || unread(redis.port()));
        stop(&router);
        redis.resume();
        go_on(&router);
        let response = client.response();
        if response.status() == 503 && router.log().contains("lost the connection") {
            // The half second was over before the router was stopped.
            continue;
        }
        assert_eq!(response.status(), 200);
        assert!(!router.log().contains("lost the connection"));
        return;
    }
    panic!("Redis was never asked right before the pause");
}
