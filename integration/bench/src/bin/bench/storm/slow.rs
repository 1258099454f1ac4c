//! The slow clients: each sends or reads a byte a second and comes back when it is ended.

use std::time::Duration;

use anyhow::Context;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::{ARRIVAL, PATIENCE, Storm};
use crate::contenders::parse_answer;

/// "A byte now and then."
const BYTE_INTERVAL: Duration = Duration::from_secs(1);
/// Receive buffer of a slow reader: the least that a kernel gives.
const SMALL_WINDOW: usize = 4096;

/// The slow clients, as a process of their own.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Slow {
    #[arg(long)]
    kind: Storm,
    #[arg(long)]
    port: u16,
    /// Of each kind
    #[arg(long)]
    clients: u32,
    /// How long clients that were ended are replaced by new ones
    #[arg(long)]
    seconds: u64,
}

/// How a slow client was ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// With an answer of this status, if it begins with one.
    Answered(u16),
    Closed,
    /// It was let be.
    Never,
}

impl Slow {
    pub(crate) async fn run(&self) -> anyhow::Result<String> {
        let over = Instant::now() + Duration::from_secs(self.seconds);
        let mut slow = JoinSet::new();
        for &kind in self.kind.kinds() {
            for client in 0..self.clients {
                let wait = ARRIVAL * client / self.clients;
                slow.spawn(come_back(kind, self.port, wait, over));
            }
        }
        let mut ends = Vec::new();
        while let Some(own) = slow.join_next().await {
            ends.extend(own.context("a client panicked")?);
        }
        Ok(describe(&ends))
    }
}

fn describe(ends: &[End]) -> String {
    let count = |wanted: fn(&End) -> bool| ends.iter().filter(|end| wanted(end)).count();
    format!(
        "slow clients: {} in all, {} ended by 408, {} by another answer, {} closed, {} not ended \
         after {} s",
        ends.len(),
        count(|end| *end == End::Answered(408)),
        count(|end| matches!(end, End::Answered(status) if *status != 408)),
        count(|end| *end == End::Closed),
        count(|end| *end == End::Never),
        PATIENCE.as_secs(),
    )
}

async fn come_back(kind: Storm, port: u16, wait: Duration, over: Instant) -> Vec<End> {
    sleep(wait).await;
    let mut ends = Vec::new();
    while ends.is_empty() || Instant::now() < over {
        match be_slow(kind, port, over + PATIENCE).await {
            Ok(end) => ends.push(end),
            // Refused, or ended while it was connecting or writing.
            Err(_gone) => {
                ends.push(End::Closed);
                sleep(BYTE_INTERVAL).await;
            }
        }
    }
    ends
}

async fn be_slow(kind: Storm, port: u16, until: Instant) -> std::io::Result<End> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    SockRef::from(&stream).set_recv_buffer_size(SMALL_WINDOW)?;
    stream.write_all(kind.opening().as_bytes()).await?;
    let mut due = Instant::now();
    while Instant::now() < until {
        due += BYTE_INTERVAL;
        if kind == Storm::Readers {
            sleep_until(due).await;
            // The end shows behind all that the kernel keeps, or as a reset.
            if stream.read(&mut [0]).await? == 0 || has_ended(&stream)? {
                return Ok(End::Closed);
            }
            continue;
        }
        let mut answer = [0; 1024];
        tokio::select! {
            count = stream.read(&mut answer) => {
                return Ok(match parse_answer(&answer[..count?]) {
                    Some((status, _)) => End::Answered(status),
                    None => End::Closed,
                });
            }
            () = sleep_until(due) => stream.write_all(b"x").await?,
        }
    }
    Ok(End::Never)
}

/// Whether the other side has closed, although bytes of it wait to be read.
fn has_ended(stream: &TcpStream) -> std::io::Result<bool> {
    use std::future::Future as _;
    let readiness = std::pin::pin!(stream.ready(tokio::io::Interest::READABLE));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match readiness.poll(&mut cx) {
        std::task::Poll::Ready(readiness) => Ok(readiness?.is_read_closed()),
        std::task::Poll::Pending => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_by_kind() {
        let ends = [End::Answered(408), End::Answered(408), End::Closed, End::Answered(503)];
        assert_eq!(
            describe(&ends),
            "slow clients: 4 in all, 2 ended by 408, 1 by another answer, 1 closed, 0 not ended \
             after 60 s"
        );
    }
}
