//! What is sent twice and what is not (RFC 9110 section 9.2.2), and tunnels (RFC 6455).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use integration::backend::{Backend, Next};
use integration::websocket::{HANDSHAKE, Tunnel};

use super::{Probe, Stage, play};

pub(crate) fn probes() -> Vec<Probe> {
    vec![
        Probe::new("retry_post_once", |stage| {
            sent_at_most(stage, &Backend::resetting("b"), "POST", 1);
        }),
        Probe::new("retry_post_fin_once", |stage| {
            sent_at_most(stage, &Backend::closing("b"), "POST", 1);
        }),
        Probe::new("retry_get_bounded", |stage| {
            sent_at_most(stage, &Backend::resetting("b"), "GET", 2);
        }),
        Probe::new("retry_stale_pool_post", stale_post),
        Probe::new("ws_tunnel_echo", |stage| {
            let backend = Backend::upgrading("b");
            let mut tunnel = Tunnel::open(stage.router.addr(), &stage.host(&backend), "/");
            tunnel.echo(b"\x00raw bytes\xff");
        }),
        Probe::new("ws_early_data", |stage| {
            let backend = Backend::upgrading("b");
            let host = stage.host(&backend);
            let mut client = stage.connect();
            client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{HANDSHAKE}\r\nEARLY"));
            assert_eq!(client.head().map(|head| head.status()), Some(101));
            assert_eq!(client.conn().read_exact(5).expect("an echo"), b"EARLY");
        }),
        Probe::new("ws_fin_propagates", |stage| {
            let backend = Backend::upgrading("b");
            let mut tunnel = Tunnel::open(stage.router.addr(), &stage.host(&backend), "/");
            tunnel.echo(b"x");
            assert_eq!(tunnel.finish(), b"bye");
            assert_eq!(backend.wait_for_body(0).data, b"x");
        }),
    ]
}

/// A request to a backend that breaks every connection is sent that often at most, and answered 502.
fn sent_at_most(stage: &Stage, backend: &Backend, method: &str, most: usize) {
    let host = stage.host(backend);
    let mut client = stage.connect();
    client.send(format!("{method} / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(client.response().status(), 502);
    assert!(
        (1..=most).contains(&backend.request_count()),
        "sent {} times",
        backend.request_count()
    );
}

/// A pooled connection that breaks while a POST is on it: the POST may have been executed.
fn stale_post(stage: &Stage) {
    let is_broken = Arc::new(AtomicBool::new(false));
    let backend = Backend::with("b", {
        let is_broken = Arc::clone(&is_broken);
        move |exchange| {
            exchange.read_body()?;
            if is_broken.load(Ordering::Relaxed) {
                return Ok(Next::Reset);
            }
            exchange.respond(200, &[], b"b")?;
            Ok(Next::KeepAlive)
        }
    });
    let host = stage.host(&backend);
    let mut client = stage.connect();
    assert_eq!(client.get(&host, "/").status(), 200);
    is_broken.store(true, Ordering::Relaxed);
    assert_eq!(client.post(&host, "/", "once").status(), 502);
    let posts = backend.requests();
    let posts = posts.iter().filter(|request| request.head.method() == "POST").count();
    assert_eq!(posts, 1);
}

#[test]
fn nothing_is_executed_twice_and_tunnels_are_pipes() {
    play(&Stage::new(|builder| builder), &probes());
}
