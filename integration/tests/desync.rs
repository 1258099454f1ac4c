//! A seeded corpus of requests that two programs could read differently, through the router: what it
//! forwards has to be, byte by byte, what RFC 9112 makes of the client's bytes, as exactly the requests
//! that it answered for; and nginx, where it is installed, has to count and read the same.
//!
//! `DESYNC_SEED` and `DESYNC_VARIANTS` choose another corpus.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use integration::redis::Redis;
use integration::router::Router;
use integration::strict::{Message, Rules, read_all};
use integration::wire::{Conn, is_cut};

mod corpus;
mod nginx;
mod recorder;

use corpus::Variant;

/// Connections at a time: those that wait for the rest of a request cost a limit each.
const CLIENTS: usize = 64;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

fn corpus() -> Vec<Variant> {
    corpus::generate(setting("DESYNC_SEED", 9112), setting("DESYNC_VARIANTS", 5_500))
}

/// A router in front of one backend, with limits that end what waits for more.
fn router(redis: &Redis, backend: &str) -> Router {
    redis.frontend("a.test", "id", &[backend]);
    let limits = ["headTimeout", "firstByteTimeout", "idleTimeout"];
    let builder = Router::builder(redis).unset("server.cache");
    limits
        .iter()
        .fold(builder, |builder, key| builder.set(&format!("server.{key}"), 0.4))
        .set("server.tcpTimeout", 1)
        .set("server.deadBackendTTL", 0)
        .start()
}

/// Sends every variant on a connection of its own and returns what came back, by its number.
fn send_all(router: SocketAddr, variants: &[Variant]) -> Vec<Vec<u8>> {
    let next = AtomicUsize::new(0);
    let mut answers: Vec<(usize, Vec<u8>)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut answers = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(variant) = variants.get(number) else { return answers };
                        answers.push((number, send(router, variant)));
                    }
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    answers.sort_unstable();
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn send(router: SocketAddr, variant: &Variant) -> Vec<u8> {
    let mut conn = Conn::connect(router).expect("connects");
    conn.set_limit(Some(Duration::from_secs(20)));
    // It may be refused before all of it is taken.
    drop(conn.send(&variant.bytes));
    let mut answer = Vec::new();
    loop {
        match conn.read_some() {
            Ok(bytes) if bytes.is_empty() => return answer,
            Ok(bytes) => answer.extend_from_slice(&bytes),
            Err(error) if is_cut(&error) => return answer,
            Err(error) => panic!("no end to the answer of {variant:?}: {error}"),
        }
    }
}

/// The statuses of the answers in a stream of them; every one of them has a length.
fn statuses(mut bytes: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        statuses.push(status.unwrap_or_else(|| panic!("no status in {head:?}")));
        bytes = bytes.get(end + 4 + length..).unwrap_or_default();
    }
    statuses
}

/// What identifies a request whatever form its target has: path and content.
fn essence(message: &Message) -> (String, Vec<u8>) {
    let target = message.target.strip_prefix("http://a.test").unwrap_or(&message.target);
    let target = target.split('#').next().unwrap_or_default();
    (target.to_owned(), message.body.clone())
}

/// Which variant a target belongs to.
fn number_of(target: &str) -> Option<usize> {
    target.split("/v").nth(1)?.split('/').next()?.parse().ok()
}

type Seen = HashMap<usize, Vec<(String, Vec<u8>)>>;

/// Compares what a backend saw with what the variants mean and what their clients were told.
#[track_caller]
fn compare(variants: &[Variant], answers: &[Vec<u8>], seen: &Seen) {
    let mut wrong = Vec::new();
    let mut forwarded = 0;
    let none = Vec::new();
    for (number, (variant, answer)) in variants.iter().zip(answers).enumerate() {
        let seen = seen.get(&number).unwrap_or(&none);
        let statuses: Vec<_> =
            statuses(answer).into_iter().filter(|status| *status >= 200).collect();
        let meant: Vec<_> =
            read_all(&variant.bytes, Rules::Recipient).iter().map(essence).collect();
        // What is no request any more may be answered once, but not by the backend.
        let rest = statuses.get(meant.len()..).unwrap_or_default();
        let mut rest_seen = seen.clone();
        let told =
            |wanted| meant.iter().zip(&statuses).filter(move |(_, status)| **status == wanted);
        // On a busy machine a limit of this test may end the wait for the backend's answer.
        for (late, _) in told(504) {
            if let Some(at) = rest_seen.iter().position(|message| message == late) {
                rest_seen.remove(at);
            }
        }
        let agrees = told(200).map(|(message, _)| message).eq(&rest_seen);
        if !agrees || rest.len() > 1 || rest.contains(&200) {
            wrong.push(format!(
                "{variant:?}\n  means {meant:?}\n  seen {seen:?}\n  answered {statuses:?}"
            ));
        }
        forwarded += seen.len();
    }
    assert!(wrong.is_empty(), "{} disagreements:\n{}", wrong.len(), wrong.join("\n"));
    // A router that refuses everything would agree as well.
    assert!(forwarded > variants.len() / 5, "{forwarded} requests of {} variants", variants.len());
}

#[test]
fn router_and_backend_never_disagree() {
    let variants = corpus();
    let redis = Redis::start();
    let backend = recorder::Recorder::start();
    let router = router(&redis, &backend.url());
    let answers = send_all(router.addr(), &variants);
    let (seen, violations) = backend.end();
    let violations: Vec<_> =
        violations.iter().map(|(why, bytes)| format!("{why}: {bytes}")).collect();
    assert!(violations.is_empty(), "forwarded, but no HTTP:\n{}", violations.join("\n"));
    compare(&variants, &answers, &seen);
}

#[test]
#[allow(clippy::print_stderr, reason = "a half that is left out says so")]
fn nginx_reads_what_the_router_answers_for() {
    let Some(nginx) = nginx::Nginx::start() else {
        let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
        assert!(!is_ci, "no nginx: install it, or let test.sh unpack it below target/nginx");
        eprintln!("no nginx, neither installed nor unpacked by test.sh: this half is left out");
        return;
    };
    let variants = corpus();
    let redis = Redis::start();
    let router = router(&redis, &nginx.url());
    let answers = send_all(router.addr(), &variants);
    compare(&variants, &answers, &nginx.end());
}
