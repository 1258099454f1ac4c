//! Sizes, times and resources: how long, how much and how many a proxy has to bear, and where it
//! ends.

use std::time::Duration;

use integration::backend::{Backend, Next};
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::redis::Redis;
use integration::router::Router;
use pretty_assertions::assert_eq;

/// How much is pushed through in each direction, in MiB: 5 GB, which take 8 s on two cores with an
/// unoptimised router; `LIMITS_STREAM_MIB` makes it less for a slower machine.
fn stream_size() -> u64 {
    let mib =
        std::env::var("LIMITS_STREAM_MIB").ok().map_or(5 * 1024, |text| text.parse().expect("MiB"));
    mib * 1024 * 1024
}

/// "5 GB through it with flat memory", both ways at once.
#[test]
fn large_bodies_stream_with_flat_memory() {
    let size = stream_size();
    let patience = Duration::from_secs(100);
    let redis = Redis::start();
    let backend = Backend::with("b", move |exchange| {
        exchange.conn.set_limit(Some(patience));
        if exchange.head.target() == "/up" {
            exchange.conn.skip(size)?;
            exchange.respond(200, &[], b"all of it")?;
        } else {
            exchange
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes())?;
            exchange.conn.send_filling(size)?;
        }
        Ok(Next::KeepAlive)
    });
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    get(router.addr(), "unknown.test", "/");
    let before = router.process().memory_kb("VmHWM");
    let addr = router.addr();
    let upload = std::thread::spawn(move || {
        let mut client = Client::connect(addr).patient_for(patience);
        client.send(format!("POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n"));
        client.conn().send_filling(size).expect("taken");
        client.response().text()
    });
    let mut client = Client::connect(addr).patient_for(patience);
    client.send("GET /down HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.head().expect("a head").status(), 200);
    client.conn().skip(size).expect("all of it");
    assert_eq!(upload.join().expect("uploaded"), "all of it");
    let after = router.process().memory_kb("VmHWM");
    assert!(after < before + 16 * 1024, "VmHWM grew from {before} to {after} kB for {size} bytes");
}

/// Many clients that do not read: what each costs is bounded.
#[test]
fn clients_that_do_not_read_cost_little() {
    let redis = Redis::start();
    let backend = Backend::with("b", |exchange| {
        const SIZE: u64 = 100 * 1024 * 1024;
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes())?;
        exchange.conn.set_limit(Some(Duration::from_secs(30)));
        exchange.conn.send_filling(SIZE)?;
        Ok(Next::KeepAlive)
    });
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    get(router.addr(), "unknown.test", "/");
    let before = router.process().memory_kb("VmHWM");
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = Client::connect(router.addr());
            client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
            assert_eq!(client.head().expect("a head").status(), 200);
            client
        })
        .collect();
    assert_eq!(get(router.addr(), "unknown.test", "/").status(), 400);
    let after = router.process().memory_kb("VmHWM");
    assert!(after < before + 32 * 1024, "VmHWM grew from {before} to {after} kB");
    drop(clients);
    backend.wait_for_open(0);
}

/// Thousands of idle connections cost a few kilobytes each.
#[test]
fn idle_connections_cost_little() {
    let redis = Redis::start();
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    client.get("unknown.test", "/");
    let before = router.process().memory_kb("VmHWM");
    let idle: Vec<_> = (0..1000)
        .map(|_| {
            let mut client = Client::connect(router.addr());
            client.get("unknown.test", "/");
            client
        })
        .collect();
    assert_eq!(client.get("unknown.test", "/").status(), 400);
    let after = router.process().memory_kb("VmHWM");
    assert!(after < before + 1000 * 32, "VmHWM grew from {before} to {after} kB");
    drop(idle);
}

/// A request target or a header section that is too long gets its own answer, and a backend never
/// sees it.
#[test]
fn what_is_too_long_is_refused_by_name() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let long = "x".repeat(200_000);
    let many = "X-A: 1\r\n".repeat(20_000);
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a.test\r\n\r\n"), &[414, 431][..]),
        (format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {long}\r\n\r\n"), &[431]),
        (format!("GET / HTTP/1.1\r\nHost: a.test\r\n{many}\r\n"), &[431]),
    ] {
        let mut client = Client::connect(router.addr());
        // It may be cut off while it sends.
        drop(client.conn().send(request.as_bytes()));
        let response = client.response();
        assert!(status.contains(&response.status()), "{response:?}");
        assert!(client.is_closed());
    }
    assert_eq!(backend.connections(), 0);
    // What Hipache took still passes: Node's limit was 80 kB for the whole head.
    let cookie = "c".repeat(60_000);
    let mut client = Client::connect(router.addr());
    assert_eq!(client.get_with("a.test", "/", &format!("Cookie: {cookie}\r\n")).text(), "b");
    assert_eq!(backend.only_request().head.header("cookie").map(str::len), Some(60_000));
}

/// A response head that is too large is the backend's fault: 502, and nothing of it is passed on.
#[test]
fn an_enormous_response_head_is_refused() {
    let redis = Redis::start();
    let head =
        format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(2_000_000));
    let backend = Backend::answering_once("b", head);
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    assert_eq!(get(router.addr(), "a.test", "/").status(), 502);
}

/// A client that stops in the middle of its body is not waited for longer than `tcpTimeout`.
#[test]
fn a_stalled_body_ends_with_408() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url(), &backend.url()]);
    let published = redis.subscribe("dead");
    let router = Router::builder(&redis).set("server.tcpTimeout", 0.5).start();
    let mut client = Client::connect(router.addr());
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nstalled");
    assert_eq!(client.response().status(), 408);
    assert!(client.is_closed());
    backend.wait_for_open(0);
    redis.run(&["PUBLISH", "dead", "end"]);
    assert_eq!(published.next(), "end", "the client's fault is not the backend's");
}

/// A client that reads nothing is given up after `tcpTimeout`, and its backend connection with it.
#[test]
fn a_client_that_reads_nothing_is_given_up() {
    let redis = Redis::start();
    let backend = Backend::with("b", |exchange| {
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        exchange.conn.set_limit(Some(Duration::from_secs(20)));
        exchange.conn.send_filling(1_000_000_000)?;
        Ok(Next::Close)
    });
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.tcpTimeout", 1).start();
    let mut client = Client::connect(router.addr());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    backend.wait_for_requests(1);
    backend.wait_for_open(0);
    drop(client);
}

/// An idle keep-alive connection is closed after `tcpTimeout`, quietly.
#[test]
fn an_idle_connection_is_closed() {
    let redis = Redis::start();
    let router = Router::builder(&redis).set("server.tcpTimeout", 0.5).start();
    let mut client = Client::connect(router.addr());
    client.get("unknown.test", "/");
    assert!(client.is_closed());
}

/// A request head that dribbles in is not waited for for ever; the limit is the router's own.
#[test]
fn a_dribbling_head_is_given_up() {
    let redis = Redis::start();
    let router = Router::start(&redis);
    let mut conn = integration::wire::Conn::connect(router.addr()).unwrap();
    conn.set_limit(Some(Duration::from_millis(500)));
    conn.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n").unwrap();
    let mut answer = None;
    for _ in 0..40 {
        match conn.read_head() {
            Err(error) if integration::wire::is_late(&error) => {}
            ended => {
                answer = Some(ended);
                break;
            }
        }
        if conn.send(b"X: y\r\n").is_err() {
            break;
        }
    }
    let head = answer.expect("given up within 20 s").unwrap_or_default();
    assert!(head.is_none_or(|head| head.status() == 408));
}

/// Clients cannot take all descriptors: some are left for the router itself and for whoever needs none of a
/// backend. Idle connections give way, the oldest first; what a client is in the middle of goes on.
#[test]
fn silent_clients_do_not_use_up_the_descriptors() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.admin", "127.0.0.1:0").open_files(64).start();
    let admin = admin(&router);
    let mut existing = Client::connect(router.addr());
    assert_eq!(existing.get("a.test", "/").text(), "b");
    let hungry: Vec<_> = (0..100).map(|_| Client::connect(router.addr())).collect();
    router.wait_for_log(&["WARN", "open files"]);
    let before = router.process().cpu_ticks();
    // Each new one may have to wait until an older one has given way.
    eventually(DEADLINE, "health checks are answered", || is_answered(router.addr(), "__ping__"));
    assert_eq!(get(admin, "admin", "/readyz").status(), 200);
    redis.kill();
    redis.launch();
    redis.frontend("new.test", "id", &[&backend.url()]);
    eventually(DEADLINE, "Redis is connected to again", || {
        get(admin, "admin", "/readyz").status() == 200
    });
    assert!(router.process().open_files() < 64, "nothing is left");
    let spent = router.process().cpu_ticks() - before;
    assert!(spent < 100, "{spent} hundredths of a second of processor time in waiting");
    drop(hungry);
    eventually(DEADLINE, "everything is served again", || {
        is_answered(router.addr(), "new.test") && is_answered(router.addr(), "__ping__")
    });
    let warnings = router.log().lines().filter(|line| line.contains("open files")).count();
    assert!(warnings <= 4, "said {warnings} times");
}

/// What needs a backend is refused before the last descriptors are taken, and nobody is marked for it.
#[test]
fn busy_clients_do_not_use_up_the_descriptors() {
    for upgrades in [true, false] {
        let redis = Redis::start();
        let hanging = Backend::hanging("h");
        let tunnels = Backend::upgrading("t");
        redis.frontend("h.test", "id", &[&hanging.url()]);
        redis.frontend("t.test", "id", &[&tunnels.url()]);
        let router = Router::builder(&redis)
            .set("server.admin", "127.0.0.1:0")
            .set("server.maxSockets", 1000)
            .open_files(256)
            .start();
        let admin = admin(&router);
        let host = if upgrades { "t.test" } else { "h.test" };
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
        let headers = if upgrades { upgrade } else { "" };
        let _clients: Vec<_> = (0..200)
            .map(|_| {
                let mut client = Client::connect(router.addr());
                let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
                drop(client.conn().send(request.as_bytes()));
                client
            })
            .collect();
        // By the limit of tunnels or by the reserve: which is first depends on how the clients come.
        router.wait_for_log(&["WARN", "503"]);
        for _ in 0..5 {
            eventually(DEADLINE, "health checks are answered", || {
                is_answered(router.addr(), "__ping__")
            });
        }
        assert_eq!(get(admin, "admin", "/readyz").status(), 200);
        redis.kill();
        redis.launch();
        eventually(DEADLINE, "Redis is connected to again", || {
            get(admin, "admin", "/readyz").status() == 200
        });
        assert!(redis.dead(host).is_empty(), "nobody is marked");
    }
}

fn admin(router: &Router) -> std::net::SocketAddr {
    let url = router.admin().expect("an admin listener");
    url.trim_start_matches("http://").parse().expect("an address")
}

/// Whether a new connection gets a 200 for this host; one that is refused may be reset.
fn is_answered(addr: std::net::SocketAddr, host: &str) -> bool {
    let mut client = Client::connect(addr);
    drop(client.conn().send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()));
    client.head().is_some_and(|head| head.status() == 200)
}
