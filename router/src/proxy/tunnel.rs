//! Upgraded connections (WebSocket and anything else): bytes both ways until both sides have
//! said all, one breaks, nobody speaks for too long, or the router must end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use shared::time_limit;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;
use tracing::debug;

pub mod count;

use crate::access_log::{OwnedLine, Sink};
use crate::connection::Connection;
use crate::route::Millis;
use crate::seldom::Seldom;
use crate::stream::Stream;

/// Bytes taken from a socket at a time. A direction holds a buffer only while it has bytes.
const BUFFER: usize = 16 * 1024;

/// Silence after which a tunnel ends that one side has closed: a peer that is gone for good looks
/// just like one that only has nothing more to say.
const HALF_CLOSED: Duration = Duration::from_secs(60);

/// A tunnel that is about to begin, but for the client's stream.
#[derive(Debug)]
pub struct Tunnel {
    /// The backend's stream.
    pub backend: Stream,
    /// What the client sent right behind its request.
    pub from_client: Vec<u8>,
    /// What the backend sent right behind its 101.
    pub from_backend: Vec<u8>,
    /// Silence after which it ends.
    pub idle_timeout: Option<Duration>,
    /// What it is counted by.
    pub slot: Option<count::Slot>,
    /// Bytes that were written to the client before.
    pub bytes_sent: u64,
    /// The log line, written at its end.
    pub line: Option<Box<OwnedLine>>,
}

/// Pipes until the end. `connection` is the state of the client's connection, which lives as long as the
/// tunnel does.
pub async fn run(
    client: Stream,
    tunnel: Tunnel,
    connection: Arc<Connection>,
    shutdown: CancellationToken,
    sink: Option<Arc<Sink>>,
) {
    let mut pipe = Pipe {
        client,
        backend: tunnel.backend,
        to_backend: Direction::new(tunnel.from_client),
        to_client: Direction::new(tunnel.from_backend),
        idle_timeout: tunnel.idle_timeout,
        idle: Box::pin(time_limit::sleep(tunnel.idle_timeout.unwrap_or(Duration::ZERO))),
        last_activity: connection.running(),
        connection: Arc::clone(&connection),
        was_half_closed: false,
    };
    let result = shutdown.run_until_cancelled(&mut pipe).await;
    debug!(
        client.addr = %connection.peer, to_client = pipe.to_client.total,
        to_backend = pipe.to_backend.total, ?result, "tunnel ended"
    );
    if let (Some(line), Some(sink)) = (tunnel.line, sink) {
        line.emit(&sink, tunnel.bytes_sent + pipe.to_client.total);
    }
    drop(tunnel.slot);
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ended {
    /// Both sides closed.
    Closed,
    /// Nobody spoke for too long.
    Idle,
}

struct Pipe {
    client: Stream,
    backend: Stream,
    to_backend: Direction,
    to_client: Direction,
    idle_timeout: Option<Duration>,
    idle: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// By the time that the process runs: nobody is silent while it is paused.
    last_activity: Millis,
    connection: Arc<Connection>,
    was_half_closed: bool,
}

impl Pipe {
    /// What is left of the silence that is allowed.
    fn left(&self, limit: Duration) -> Duration {
        let silent = self.connection.running().saturating_sub(self.last_activity);
        limit.saturating_sub(Duration::from_millis(silent))
    }
}

/// One direction of a tunnel.
#[derive(Debug)]
struct Direction {
    buffer: Vec<u8>,
    sent: usize,
    total: u64,
    read_closed: bool,
    write_closed: bool,
}

impl Direction {
    fn new(buffer: Vec<u8>) -> Self {
        Self { buffer, sent: 0, total: 0, read_closed: false, write_closed: false }
    }

    /// Copies until one side would block. Sets `moved` when bytes did.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        loop {
            while let Some(rest) = self.buffer.get(self.sent..).filter(|rest| !rest.is_empty()) {
                let count = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.sent += count;
                self.total += count as u64;
                *moved = true;
            }
            // Encrypted bytes may still wait for room in the socket.
            ready!(Pin::new(&mut *to).poll_flush(cx))?;
            self.sent = 0;
            self.buffer.clear();
            if self.read_closed {
                if !self.write_closed {
                    // The other direction may go on: a half-closed connection is legal.
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.write_closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            self.buffer.resize(BUFFER, 0);
            let mut buf = ReadBuf::new(&mut self.buffer);
            let polled = Pin::new(&mut *from).poll_read(cx, &mut buf);
            let filled = buf.filled().len();
            self.buffer.truncate(filled);
            match polled {
                Poll::Ready(Ok(())) if filled == 0 => self.read_closed = true,
                Poll::Ready(Ok(())) => *moved = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // An idle tunnel costs no buffers.
                    self.buffer = Vec::new();
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Future for Pipe {
    type Output = io::Result<Ended>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut moved = false;
        let up = this.to_backend.poll(cx, &mut this.client, &mut this.backend, &mut moved);
        let down = this.to_client.poll(cx, &mut this.backend, &mut this.client, &mut moved);
        match (up, down) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                return Poll::Ready(Err(error));
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(Ended::Closed)),
            (Poll::Ready(Ok(())), Poll::Pending) | (Poll::Pending, _) => {}
        }
        if moved {
            this.last_activity = this.connection.running();
        }
        let is_half_closed = this.to_backend.write_closed || this.to_client.write_closed;
        let limit = match (this.idle_timeout, is_half_closed) {
            (limit, true) => limit.map_or(HALF_CLOSED, |limit| limit.min(HALF_CLOSED)),
            (Some(limit), false) => limit,
            (None, false) => return Poll::Pending,
        };
        if is_half_closed && !this.was_half_closed {
            this.was_half_closed = true;
            this.idle = Box::pin(time_limit::sleep(this.left(limit)));
        }
        // Both sockets were read just now.
        while this.idle.as_mut().poll(cx).is_ready() {
            let left = this.left(limit);
            if left.is_zero() {
                return Poll::Ready(Ok(Ended::Idle));
            }
            this.idle = Box::pin(time_limit::sleep(left));
        }
        Poll::Pending
    }
}

/// Says what the drain at the end of the process may wait for.
#[derive(Clone, Debug, Default)]
pub struct Tunnels {
    /// Tunnels that are open.
    pub tracker: tokio_util::task::TaskTracker,
    /// Ends them.
    pub shutdown: CancellationToken,
    /// Those of all workers.
    pub counts: Arc<count::Counts>,
    /// Says that tunnels are refused.
    pub refusals: Arc<Seldom>,
}

impl Tunnels {
    /// Runs `tunnel` as a task that the drain knows of.
    pub fn spawn(
        &self,
        client: Stream,
        tunnel: Tunnel,
        connection: Arc<Connection>,
        sink: Option<Arc<Sink>>,
    ) {
        let shutdown = self.shutdown.clone();
        drop(self.tracker.spawn(run(client, tunnel, connection, shutdown, sink)));
    }
}
