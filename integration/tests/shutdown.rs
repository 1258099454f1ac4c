//! The end of a router: SIGTERM drains (stop accepting, finish requests, tunnels to a deadline,
//! exit 0), a second signal ends at once.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use integration::backend::{Backend, Next};
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::gate::Gate;
use integration::redis::Redis;
use integration::router::Router;
use integration::websocket::Tunnel;
use integration::wire::Conn;
use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;

/// An idle router ends at once, with exit code 0, on either signal.
#[test]
fn an_idle_router_ends_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let redis = Redis::start();
        let router = Router::builder(&redis).workers(2).start();
        router.signal(signal);
        assert_eq!(router.wait(DEADLINE).code(), Some(0), "{signal}");
    }
}

/// "Stop accepting, finish requests … exit 0".
#[test]
fn running_requests_are_finished() {
    let redis = Redis::start();
    let gate = Gate::new();
    let backend = Backend::gated("b", &gate);
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut idle = Client::connect(router.addr());
    // Not the beginning of a request (RFC 9112 2.2), but enough to be accepted at once.
    idle.send("\r\n");
    let mut kept = Client::connect(router.addr());
    kept.get("unknown.test", "/");
    let mut running: Vec<_> = (0..5).map(|_| Client::connect(router.addr())).collect();
    for client in &mut running {
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    }
    backend.wait_for_requests(5);
    router.signal(Signal::SIGTERM);
    assert!(kept.is_closed(), "an idle connection is closed");
    assert!(idle.is_closed(), "a connection without a request is closed");
    eventually(DEADLINE, "nothing is accepted any more", || {
        TcpStream::connect(router.addr()).is_err()
    });
    assert!(router.is_running());
    gate.open();
    for client in &mut running {
        let response = client.response();
        assert_eq!(response.text(), "b");
        assert_eq!(
            response.header("connection").map(str::to_ascii_lowercase).as_deref(),
            Some("close")
        );
        assert!(client.is_closed());
    }
    assert_eq!(router.wait(DEADLINE).code(), Some(0));
    assert_eq!(router.access_log(6).len(), 6, "every line is written");
}

/// A body that is on its way, in either direction, is finished, too.
#[test]
fn running_bodies_are_finished() {
    let redis = Redis::start();
    let backend = Backend::echoing("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    client
        .send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    assert_eq!(client.head().expect("a head").status(), 200);
    assert_eq!(client.conn().read_chunk(&mut Vec::new()).unwrap().as_deref(), Some(&b"one"[..]));
    router.signal(Signal::SIGTERM);
    eventually(DEADLINE, "nothing is accepted any more", || {
        TcpStream::connect(router.addr()).is_err()
    });
    client.send("3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(client.conn().read_chunk(&mut Vec::new()).unwrap().as_deref(), Some(&b"two"[..]));
    assert_eq!(client.conn().read_chunk(&mut Vec::new()).unwrap(), None);
    assert_eq!(router.wait(DEADLINE).code(), Some(0));
}

/// "Tunnels to a deadline": `drainTimeout` ends them, exit 0, and each has its line in the access
/// log.
#[test]
fn tunnels_live_to_the_deadline() {
    let redis = Redis::start();
    let backend = Backend::upgrading("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.drainTimeout", 1).start();
    let mut tunnel = Tunnel::open(router.addr(), "a.test", "/tunnel");
    tunnel.echo(b"before");
    router.signal(Signal::SIGTERM);
    eventually(DEADLINE, "nothing is accepted any more", || {
        TcpStream::connect(router.addr()).is_err()
    });
    tunnel.echo(b"while draining");
    assert!(tunnel.is_closed());
    assert_eq!(router.wait(DEADLINE).code(), Some(0));
    let lines = router.access_log(1);
    assert!(lines[0].contains("GET /tunnel"), "{lines:?}");
}

/// A tunnel that ends by itself ends the drain early.
#[test]
fn the_last_tunnel_to_end_ends_the_drain() {
    let redis = Redis::start();
    let backend = Backend::upgrading("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.drainTimeout", 600).start();
    let mut tunnel = Tunnel::open(router.addr(), "a.test", "/");
    tunnel.echo(b"x");
    router.signal(Signal::SIGTERM);
    eventually(DEADLINE, "nothing is accepted any more", || {
        TcpStream::connect(router.addr()).is_err()
    });
    assert_eq!(tunnel.finish(), b"bye");
    assert_eq!(router.wait(DEADLINE).code(), Some(0));
}

/// A request that never ends is cut off at the deadline; the exit code is still 0.
#[test]
fn a_request_that_never_ends_is_cut_off_at_the_deadline() {
    let redis = Redis::start();
    let backend = Backend::hanging("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.drainTimeout", 1).start();
    let mut client = Client::connect(router.addr());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    backend.wait_for_requests(1);
    router.signal(Signal::SIGTERM);
    assert!(client.is_closed());
    assert_eq!(router.wait(DEADLINE).code(), Some(0));
}

/// "A second signal ends at once."
#[test]
fn a_second_signal_ends_at_once() {
    let redis = Redis::start();
    let backend = Backend::hanging("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.drainTimeout", 600).start();
    let mut client = Client::connect(router.addr());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    backend.wait_for_requests(1);
    router.signal(Signal::SIGTERM);
    eventually(DEADLINE, "nothing is accepted any more", || {
        TcpStream::connect(router.addr()).is_err()
    });
    assert!(router.is_running());
    router.signal(Signal::SIGTERM);
    router.wait(DEADLINE);
}

/// A signal in the middle of a load: every request that reached a backend is answered, and no
/// answer is cut. A request that crosses the end of its connection on the wire was read by nobody;
/// its client sees that not a byte came.
#[test]
fn no_request_that_was_begun_is_lost_under_load() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).workers(2).start();
    let addr = router.addr();
    let clients: Vec<_> = (0..8).map(|_| std::thread::spawn(move || load(addr))).collect();
    backend.wait_for_requests(200);
    router.signal(Signal::SIGTERM);
    let answered: usize =
        clients.into_iter().map(|client| client.join().expect("no cut answer")).sum();
    assert_eq!(router.wait(DEADLINE).code(), Some(0));
    assert_eq!(answered, backend.request_count());
    assert_eq!(router.access_log(answered).len(), answered, "every line is written");
}

/// Clients that keep one connection busy lose nothing: the answer that they get while the router
/// drains says `Connection: close`.
#[test]
fn busy_connections_end_with_an_answer() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).workers(2).start();
    let addr = router.addr();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(addr);
                loop {
                    let response = client.get("a.test", "/");
                    assert_eq!(response.text(), "b");
                    if response.header("connection").is_some_and(|v| v.contains("close")) {
                        return client.is_closed();
                    }
                }
            })
        })
        .collect();
    backend.wait_for_requests(200);
    router.signal(Signal::SIGTERM);
    for client in clients {
        assert!(client.join().expect("every request was answered"));
    }
    assert_eq!(router.wait(DEADLINE).code(), Some(0));
}

/// Sends requests until nobody accepts connections any more; returns how many were answered.
fn load(addr: SocketAddr) -> usize {
    let mut count = 0;
    while let Ok(mut conn) = Conn::connect(addr) {
        for _ in 0..5 {
            if conn.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").is_err() {
                break;
            }
            let head = match conn.read_head() {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error}"),
            };
            assert_eq!(head.status(), 200);
            let framing = head.response_framing("GET").expect("framed");
            assert!(conn.read_body(framing).expect("a body").complete);
            count += 1;
        }
    }
    count
}

/// That a panic would lose one connection only is proved from outside by what does not happen:
/// nothing that a peer sends ends the router.
#[test]
fn nothing_that_peers_send_ends_the_router() {
    let redis = Redis::start();
    let backend = Backend::with("b", |exchange| {
        exchange.send(&[0xff; 100_000])?;
        Ok(Next::Reset)
    });
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 1000],
        &[255; 200_000],
    ] {
        let mut client = Client::connect(router.addr());
        // It may be cut off while it sends.
        drop(client.conn().send(bytes));
        client.conn().finish().unwrap_or_default();
        drop(client.conn().read_to_end());
        assert_eq!(get(router.addr(), "a.test", "/").status(), 502);
    }
    assert!(!router.log().contains("panicked"), "{}", router.log());
    router.signal(Signal::SIGTERM);
    assert_eq!(router.wait(Duration::from_secs(10)).code(), Some(0));
}
