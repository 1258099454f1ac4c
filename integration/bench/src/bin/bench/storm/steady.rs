//! The well-behaved clients: a fixed rate of requests, each latency from the moment it was due.

use std::io::{Read, Write};
use std::net::TcpStream as BlockingStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::Instant;

use super::{ANSWER_WITHIN, STEADY_CLIENTS, STEADY_RATE};
use crate::contenders::{HOST, SMALL_BODY, parse_answer};
use crate::tally::percentile;

/// The well-behaved clients, as a process of their own. Threads that block: what wakes them is the
/// kernel's timer, which is finer than a runtime's.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Steady {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    seconds: u64,
}

impl Steady {
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        let (port, length) = (self.port, Duration::from_secs(self.seconds));
        let start = Instant::now() + Duration::from_millis(10);
        let clients: Vec<_> = (0..STEADY_CLIENTS)
            .map(|client| {
                let period = Duration::from_secs(1) / STEADY_RATE;
                let first = start + period * client;
                thread::spawn(move || steady(port, first, period * STEADY_CLIENTS, start + length))
            })
            .collect();
        let (mut latencies, mut failed) = (Vec::new(), 0);
        for client in clients {
            let (own, failures) = client.join().ok().context("a client panicked")?;
            latencies.extend(own);
            failed += failures;
        }
        latencies.sort_unstable();
        let (p50, p99) = (percentile(&latencies, 0.5), percentile(&latencies, 0.99));
        Ok(format!("{} {} {failed}", p50.as_micros(), p99.as_micros()))
    }
}

/// A request in every `period` from `start` on, each elsewhere in its period: the slow clients' timer
/// goes by the millisecond, and in step with it either every request would meet them or none. One that
/// has to wait for the one before is late, and its latency says so.
#[allow(clippy::disallowed_methods, reason = "a thread of its own, without a runtime")]
fn steady(port: u16, start: Instant, period: Duration, end: Instant) -> (Vec<Duration>, usize) {
    let (mut latencies, mut failed) = (Vec::new(), 0);
    let mut connection = None;
    for (count, place) in (0_u32..).zip(golden_places()) {
        let due = start + period * count + period.mul_f64(place);
        if due >= end {
            break;
        }
        let early = due.saturating_duration_since(Instant::now());
        thread::sleep(early);
        // Late because of the answer before counts, late because the timer woke us late does not.
        let begin = if early.is_zero() { due } else { Instant::now() };
        match ask(&mut connection, port) {
            Ok(()) => latencies.push(begin.elapsed()),
            Err(_failure) => {
                failed += 1;
                connection = None;
            }
        }
    }
    (latencies, failed)
}

/// Places between 0 and 1 that fill it evenly however many are taken (multiples of the golden ratio).
fn golden_places() -> impl Iterator<Item = f64> {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    std::iter::successors(Some(0.0), |place: &f64| Some((place + GOLDEN).fract()))
}

fn ask(connection: &mut Option<BlockingStream>, port: u16) -> anyhow::Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = BlockingStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            connection.insert(stream)
        }
    };
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::with_capacity(1024);
    let mut chunk = [0; 1024];
    loop {
        let count = stream.read(&mut chunk)?;
        ensure!(count > 0, "the connection ended");
        answer.extend_from_slice(&chunk[..count]);
        if let Some((status, body)) = parse_answer(&answer)
            && body.len() >= SMALL_BODY.len()
        {
            ensure!(status == 200, "status {status}");
            return Ok(());
        }
    }
}
