//! Peers that take their time: each wait has its own limit and its own answer. The limits are small
//! here; docs/configuration.md has the defaults.

use std::time::Duration;

use integration::backend::Backend;
use integration::client::Client;
use integration::wire::is_late;
use serde_json::json;

use super::{Probe, Stage, play};

pub(crate) fn probes() -> Vec<Probe> {
    vec![
        Probe::new("slow_headers", |stage| {
            let mut client = stage.connect();
            client.send("GET / HTTP/1.1\r\nHost: a.test\r\n");
            assert_eq!(drip(&mut client, "X: y\r\n"), Some(408));
        }),
        Probe::new("slow_body", |stage| {
            let before = stage.backend.request_count();
            let mut client = stage.connect();
            client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n");
            assert_eq!(drip(&mut client, "x"), Some(408));
            let body = stage.backend.requests()[before].body.clone().unwrap_or_default();
            assert!(!body.complete);
        }),
        Probe::new("stalled_body", |stage| {
            let mut client = stage.connect();
            client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nstalled");
            assert_eq!(client.response().status(), 408);
            assert!(client.is_closed());
        }),
        Probe::new("idle_keepalive", |stage| {
            let mut client = stage.connect();
            assert_eq!(client.get("a.test", "/").status(), 200);
            assert!(client.is_closed(), "it stays open");
        }),
        Probe::new("no_bytes_conn", |stage| {
            assert!(stage.connect().is_closed(), "it stays open");
        }),
        Probe::new("upstream_hang", |stage| {
            let backend = Backend::hanging("b");
            let host = stage.host(&backend);
            assert_eq!(stage.connect().get(&host, "/").status(), 504);
            backend.wait_for_open(0);
        }),
    ]
}

/// Sends a little again and again, never silent for long, until an answer comes; its status.
fn drip(client: &mut Client, bytes: &str) -> Option<u16> {
    client.conn().set_limit(Some(Duration::from_millis(100)));
    for _ in 0..150 {
        match client.conn().read_head() {
            Err(error) if is_late(&error) => {}
            ended => return ended.ok().flatten().map(|head| head.status()),
        }
        // The answer may be on its way already.
        drop(client.conn().send(bytes.as_bytes()));
    }
    None
}

#[test]
fn every_wait_has_an_end() {
    let stage = Stage::new(|builder| {
        let limits = [
            ("tcpTimeout", json!(1)),
            ("headTimeout", json!(0.5)),
            ("firstByteTimeout", json!(0.5)),
            ("idleTimeout", json!(0.5)),
            ("minBodyRate", json!(1000)),
        ];
        limits
            .into_iter()
            .fold(builder, |builder, (key, value)| builder.set(&format!("server.{key}"), value))
    });
    play(&stage, &probes());
}
