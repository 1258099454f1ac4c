//! Files, memory and processor time under clients that take and give nothing.

use std::time::Duration;

use integration::backend::{Backend, Next};
use integration::client::Client;
use integration::eventually::{DEADLINE, eventually};

use super::{Probe, Stage, play};

pub(crate) fn probes() -> Vec<Probe> {
    vec![
        Probe::new("slow_read_backpressure", slow_readers),
        Probe::new("many_idle_conns", many_idle),
        Probe::new("emfile_recovers", |_| emfile()),
    ]
}

/// Ten clients that read nothing of 100 MB each: neither is it buffered nor taken from the backend.
fn slow_readers(stage: &Stage) {
    const SIZE: u64 = 100 * 1024 * 1024;
    let backend = Backend::with("large", |exchange| {
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes())?;
        exchange.conn.set_limit(Some(Duration::from_secs(30)));
        exchange.conn.send_filling(SIZE)?;
        Ok(Next::Close)
    });
    let host = stage.host(&backend);
    let before = stage.router.process().memory_kb("VmHWM");
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let mut client = stage.connect();
            client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(client.head().map(|head| head.status()), Some(200));
            client
        })
        .collect();
    stage.is_well();
    let after = stage.router.process().memory_kb("VmHWM");
    assert!(after < before + 32 * 1024, "VmHWM grew from {before} to {after} kB");
    drop(clients);
    backend.wait_for_open(0);
}

/// 500 idle connections cost a few kilobytes each, and others are still served.
fn many_idle(stage: &Stage) {
    stage.is_well();
    let before = stage.router.process().memory_kb("VmRSS");
    let idle: Vec<_> = (0..500).map(|_| stage.connect()).collect();
    stage.is_well();
    let after = stage.router.process().memory_kb("VmRSS");
    assert!(after < before + 500 * 16, "VmRSS grew from {before} to {after} kB");
    drop(idle);
}

/// Clients that want all file descriptors: those of the reserve stay free, next to no processor time is spent,
/// whoever is in the middle of something goes on, and it ends by itself.
fn emfile() {
    let stage = Stage::new(|builder| builder.open_files(64));
    let mut existing = stage.connect();
    assert_eq!(existing.get("a.test", "/").status(), 200);
    existing.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\na");
    let hungry: Vec<_> = (0..100).map(|_| Client::connect(stage.router.addr())).collect();
    stage.router.wait_for_log(&["WARN", "open files"]);
    existing.send("b");
    assert_eq!(existing.response().status(), 200, "an existing exchange goes on");
    let before = stage.router.process().cpu_ticks();
    let mut refused = Client::connect(stage.router.addr());
    eventually(DEADLINE, "a further client is served or told why not", || {
        let asked = "GET / HTTP/1.1\r\nHost: __ping__\r\nConnection: close\r\n\r\n";
        drop(refused.conn().send(asked.as_bytes()));
        let is_told = refused.head().is_some_and(|head| [200, 503].contains(&head.status()));
        refused = Client::connect(stage.router.addr());
        is_told
    });
    let spent = stage.router.process().cpu_ticks() - before;
    assert!(spent < 100, "{spent} hundredths of a second of processor time");
    assert!(stage.router.process().open_files() < 64, "nothing is left");
    drop((hungry, refused));
    eventually(DEADLINE, "connections are accepted again", || {
        stage.connect().get("a.test", "/").status() == 200
    });
}

#[test]
fn nobody_can_use_up_what_others_need() {
    play(&Stage::new(|builder| builder), &probes());
}
