//! Slow clients by the hundred, all kinds at once: others are served meanwhile, limits end every one
//! of them, and the memory that they took is given back. How fast others are served is for the
//! benchmark to say (docs/benchmarks.md, "Slow clients").

use std::io::ErrorKind;

use integration::backend::{Backend, Next};
use integration::client::Client;
use integration::eventually::{DEADLINE, eventually};
use integration::redis::Redis;
use integration::router::Router;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Of each kind.
const CLIENTS: usize = 300;
const HUGE: u64 = 64 * 1024 * 1024;

/// Sends a byte to each client's connection that has not ended; says which status the others got.
fn trickle(storm: &mut Vec<Client>) -> Vec<u16> {
    let mut statuses = Vec::new();
    storm.retain_mut(|client| {
        let stream = client.conn().stream();
        stream.set_nonblocking(true).expect("a socket");
        let has_news = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("a socket");
        match has_news {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // It may be ended just now.
                drop(client.conn().send(b"x"));
                true
            }
            _ => {
                statuses.push(client.head().expect("an answer").status());
                false
            }
        }
    });
    statuses
}

#[test]
fn a_storm_of_slow_clients_passes_without_a_trace() {
    // Sockets of both sides of the router are in this process.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit of open files");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the limit can be raised");

    let redis = Redis::start();
    let backend = Backend::with("b", |exchange| {
        match exchange.head.target() {
            "/huge" => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n");
                exchange.send(head.as_bytes())?;
                exchange.conn.set_limit(Some(DEADLINE));
                exchange.conn.send_filling(HUGE)?;
            }
            _ => {
                exchange.read_body()?;
                exchange.respond(200, &[], b"b")?;
            }
        }
        Ok(Next::KeepAlive)
    });
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis)
        .set("server.headTimeout", 2)
        .set("server.minBodyRate", 1_000_000)
        .set("server.tcpTimeout", 2)
        .start();
    let resident = || router.process().memory_kb("VmRSS");
    let is_served = || {
        let mut other = Client::connect(router.addr());
        assert_eq!(other.get("a.test", "/").text(), "b");
    };
    is_served();
    let before = resident();

    let (mut trickling, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..CLIENTS {
        let opened = |request: &str| {
            let mut client = Client::connect(router.addr());
            client.send(request);
            client
        };
        trickling.push(opened("GET / HTTP/1.1\r\nHost: a.test\r\nX-Slow: "));
        trickling.push(opened("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 999999\r\n\r\n"));
        readers.push(opened("GET /huge HTTP/1.1\r\nHost: a.test\r\n\r\n"));
    }
    let mut peak = 0;
    eventually(DEADLINE, "every slow head and body is ended with 408", || {
        is_served();
        peak = peak.max(resident());
        assert!(trickle(&mut trickling).iter().all(|status| *status == 408));
        trickling.is_empty()
    });
    eventually(DEADLINE, "the backend is rid of all who do not read", || {
        is_served();
        backend.open_connections() < 10
    });
    // Else the kernel would keep what they have not taken, for minutes.
    for reader in &mut readers {
        eventually(DEADLINE, "who does not read is reset", || {
            let error = reader.conn().stream().take_error().expect("a socket");
            error.is_some_and(|error| error.kind() == ErrorKind::ConnectionReset)
        });
    }
    // What is left is one connection to the backend, and what the allocator keeps.
    eventually(
        DEADLINE,
        &format!("memory of {before} kB, {peak} kB in the storm, returns"),
        || {
            is_served();
            resident() < before + (peak - before) / 4
        },
    );
    drop(readers);
}
