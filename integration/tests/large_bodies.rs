//! Bodies that are much larger than any buffer: between plain sockets they pass through a pipe of the
//! kernel, so nothing of them may be lost, repeated, or handed to another request.

use integration::backend::{Backend, Next};
use integration::client::Client;
use integration::eventually::{DEADLINE, eventually};
use integration::gate::Gate;
use integration::router::stage;
use integration::wire::Framing;
use pretty_assertions::assert_eq;

/// Not a multiple of any buffer's size.
const SIZE: usize = 3_000_017;

/// Bytes of which no two stretches are alike.
fn pattern(size: usize) -> Vec<u8> {
    (0..).flat_map(|number: u32| number.to_be_bytes()).take(size).collect()
}

/// Bodies of megabytes are compared by value, and printed by length.
#[track_caller]
fn assert_same(seen: &[u8], expected: &[u8]) {
    assert_eq!(seen.len(), expected.len());
    assert!(seen == expected, "a body of the right length with other bytes");
}

fn content_length(size: usize) -> Framing {
    Framing::Length(size as u64)
}

#[test]
fn large_download_arrives_unchanged_and_connections_are_reused() {
    let body = pattern(SIZE);
    let backend = Backend::with("b", {
        let body = body.clone();
        move |exchange| {
            exchange.respond(200, &[], &body)?;
            Ok(Next::KeepAlive)
        }
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    for _ in 0..5 {
        let response = client.get("a.test", "/");
        assert_eq!(response.status(), 200);
        assert_same(&response.body.data, &body);
    }
    assert_eq!(backend.connections(), 1);
    let sizes = router.access_log(5).iter().map(|line| logged_size(line)).collect::<Vec<_>>();
    assert!(sizes.iter().all(|size| *size > SIZE && *size < SIZE + 1000), "{sizes:?}");
}

/// The bytes of a response in its log line.
fn logged_size(line: &str) -> usize {
    let after_request = line.split("HTTP/1.1\" ").nth(1).expect("a request line");
    after_request.split(' ').nth(1).and_then(|size| size.parse().ok()).expect("status and size")
}

#[test]
fn download_that_the_backend_cuts_is_cut_for_the_client() {
    let backend = Backend::with("b", |exchange| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        exchange.send(head.as_bytes())?;
        exchange.send(&pattern(SIZE - 1))?;
        Ok(Next::Close)
    });
    let (_redis, router) = stage(&backend);
    for _ in 0..2 {
        let mut client = Client::connect(router.addr());
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let body = client.response_or_cut("GET").body;
        assert!(!body.complete, "{} bytes of {SIZE}", body.data.len());
        assert_same(&body.data, &pattern(body.data.len()));
    }
}

/// A client that stops reading holds what is under way, and gets the rest once it goes on; others are served
/// meanwhile.
#[test]
fn download_waits_for_a_client_that_pauses() {
    let body = pattern(20_000_003);
    let backend = Backend::with("b", {
        let body = body.clone();
        move |exchange| {
            let target = exchange.head.target().to_owned();
            exchange.respond(200, &[], if target == "/large" { &body } else { b"small" })?;
            Ok(Next::KeepAlive)
        }
    });
    let (_redis, router) = stage(&backend);
    let mut paused = Client::connect(router.addr());
    paused.send("GET /large HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let head = paused.head().expect("a head");
    assert_eq!(head.response_framing("GET").unwrap(), content_length(body.len()));
    for _ in 0..3 {
        assert_eq!(Client::connect(router.addr()).get("a.test", "/small").text(), "small");
    }
    let seen = paused.conn().read_body(content_length(body.len())).unwrap();
    assert_same(&seen.data, &body);
    assert_eq!(paused.get("a.test", "/small").text(), "small");
}

#[test]
fn large_upload_arrives_unchanged_and_connections_are_reused() {
    let backend = Backend::start("b");
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    let body = pattern(SIZE);
    for number in 0..3 {
        client.send(format!("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {SIZE}\r\n\r\n"));
        client.send(&body);
        assert_eq!(client.response_to("PUT").status(), 200);
        assert_same(&backend.wait_for_body(number).data, &body);
    }
    assert_eq!(client.get("a.test", "/").status(), 200, "nothing is left over of the bodies");
    assert_eq!(backend.connections(), 1);
}

/// Both directions at once, each larger than all buffers on its way: neither waits for the other.
#[test]
fn large_bodies_pass_both_ways_at_once() {
    let backend = Backend::with("b", |exchange| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        exchange.send(head.as_bytes())?;
        let mut left = SIZE;
        while left > 0 {
            let piece = exchange.conn.read_exact(left.min(50_000))?;
            left -= piece.len();
            exchange.send(&piece)?;
        }
        Ok(Next::KeepAlive)
    });
    let (_redis, router) = stage(&backend);
    let body = pattern(SIZE);
    let mut client = Client::connect(router.addr());
    let sender = client.conn().stream().try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::Write as _;
            let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {SIZE}\r\n\r\n");
            (&sender).write_all(head.as_bytes()).unwrap();
            (&sender).write_all(&body).unwrap();
        });
        let response = client.response_to("POST");
        assert_same(&response.body.data, &body);
    });
}

/// The beginning of an upload is gone when its connection breaks: it is answered, and sent nowhere else.
#[test]
fn upload_of_which_a_part_was_passed_on_is_not_sent_again() {
    let backend = Backend::with("b", |exchange| {
        if exchange.head.method() == "GET" {
            exchange.respond(200, &[], b"warm")?;
            return Ok(Next::KeepAlive);
        }
        exchange.conn.read_exact(1_000_000)?;
        Ok(Next::Reset)
    });
    let (_redis, router) = stage(&backend);
    let mut client = Client::connect(router.addr());
    assert_eq!(client.get("a.test", "/").text(), "warm");
    client.send(format!("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {SIZE}\r\n\r\n"));
    let sender = client.conn().stream().try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::Write as _;
            // The router may close before it has read all of it.
            let _cut = (&sender).write_all(&pattern(SIZE));
        });
        assert_eq!(client.response_to("PUT").status(), 502);
    });
    assert_eq!(backend.request_count(), 2);
}

/// Pipes that hold bytes of a request that has failed are not reused.
#[test]
fn clients_that_leave_in_the_middle_leave_nothing_behind() {
    let gate = Gate::new();
    let body = pattern(SIZE);
    let backend = Backend::with("b", {
        let (gate, body) = (gate.clone(), body.clone());
        move |exchange| {
            if exchange.head.target() == "/left" {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
                exchange.send(head.as_bytes())?;
                exchange.send(&vec![b'x'; 1_000_000])?;
                gate.wait()?;
                // Whether it is read does not matter.
                drop(exchange.send(&vec![b'x'; SIZE - 1_000_000]));
                return Ok(Next::Close);
            }
            exchange.respond(200, &[], &body)?;
            Ok(Next::KeepAlive)
        }
    });
    let (_redis, router) = stage(&backend);
    for _ in 0..5 {
        let mut client = Client::connect(router.addr());
        client.send("GET /left HTTP/1.1\r\nHost: a.test\r\n\r\n");
        client.head().expect("a head");
    }
    gate.open();
    let mut client = Client::connect(router.addr());
    for _ in 0..3 {
        assert_same(&client.get("a.test", "/").body.data, &body);
    }
    eventually(DEADLINE, "connections of those who left end", || backend.open_connections() == 1);
}
