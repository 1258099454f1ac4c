//! Files, memory and processor time under clients that take and give nothing.

use std::time::Duration;

use integration::backend::{Backend, Next};
use integration::client::Client;
use integration::eventually::{DEADLINE, eventually};
use integration::wire::{Conn, is_late};

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

/// Out of file descriptors: next to no processor time, existing connections go on, and it ends by
/// itself.
fn emfile() {
    let stage = Stage::new(|builder| builder.open_files(64));
    let mut existing = stage.connect();
    assert_eq!(existing.get("a.test", "/").status(), 200);
    let hungry: Vec<_> = (0..100).map(|_| Client::connect(stage.router.addr())).collect();
    stage.router.wait_for_log(&["WARN", "accept"]);
    assert_eq!(existing.get("a.test", "/").status(), 200, "an existing connection goes on");
    let before = stage.router.process().cpu_ticks();
    let mut waiting = Conn::connect(stage.router.addr()).expect("the kernel accepts");
    waiting.set_limit(Some(Duration::from_secs(1)));
    assert!(is_late(&waiting.read_some().expect_err("nobody answers")));
    let spent = stage.router.process().cpu_ticks() - before;
    assert!(spent < 30, "{spent} hundredths of a second of processor time in one of waiting");
    drop((hungry, waiting));
    eventually(DEADLINE, "connections are accepted again", || {
        stage.connect().get("a.test", "/").status() == 200
    });
}

#[test]
fn nobody_can_use_up_what_others_need() {
    play(&Stage::new(|builder| builder), &probes());
}
