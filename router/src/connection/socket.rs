//! The client's socket, as hyper sees it.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use shared::lock::lock;
use socket2::SockRef;
use tokio::io::Interest;

use super::counted::Counted;
use super::{BodyState, Connection, Phase};
use crate::route::millis;
use crate::stream::Stream;

/// The client's socket: counts bytes, notes progress, ends politely.
#[derive(Debug)]
pub struct ClientIo {
    inner: TokioIo<Counted>,
    connection: Arc<Connection>,
    /// What was read before it was known who reads it.
    early_read: Bytes,
    /// Position in `connection.early`.
    early_sent: usize,
    /// The write side was shut down; what still comes is thrown away.
    lingering: Option<Linger>,
}

/// Reads what a client still sends after our answer, so that the kernel does not answer its
/// bytes with a reset that would destroy the answer on its way (RFC 9112 9.6).
#[derive(Debug)]
struct Linger {
    left: usize,
}

/// Bytes of a read that is looked at. On the stack, and not initialised.
const TRACKED_READ: usize = 16 * 1024;

/// Bytes thrown away at most while lingering.
const LINGER_BYTES: usize = 1024 * 1024;
/// How long to linger at most.
const LINGER_TIME: Duration = Duration::from_secs(2);

impl ClientIo {
    /// Wraps an accepted connection, of which `early_read` was read already.
    pub fn new(stream: Stream, early_read: Bytes, connection: Arc<Connection>) -> Self {
        let inner = TokioIo::new(Counted { stream, count: 0 });
        Self { inner, connection, early_read, early_sent: 0, lingering: None }
    }

    /// Reads what nobody has to look at.
    fn read_untracked(
        &mut self,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early_read.is_empty() {
            let length = self.early_read.len().min(buf.remaining());
            buf.put_slice(&self.early_read.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }

    /// The connection, for a tunnel.
    pub fn into_stream(self) -> Stream {
        self.inner.into_inner().stream
    }

    /// Writes waiting informational responses. Called only while no part of a response of
    /// hyper's waits to be written.
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = Arc::clone(&self.connection);
        let mut early = lock(&connection.early);
        while let Some(bytes) = early.get(self.early_sent..).filter(|bytes| !bytes.is_empty()) {
            match Pin::new(&mut self.inner).poll_write(cx, bytes) {
                Poll::Ready(Ok(count)) => {
                    self.early_sent += count;
                    connection.count_written(count);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        early.clear();
        self.early_sent = 0;
        connection.has_early.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Looks whether the client has closed its side. Such a client is taken to be gone, as nginx
    /// and Node do: nobody else than a rare script half-closes a connection and goes on reading.
    fn ask_socket(&self, cx: &mut Context<'_>) {
        self.connection.is_in_question.store(false, Ordering::Relaxed);
        let Some(socket) = self.inner.inner().stream.socket() else { return };
        let mut readiness = pin!(socket.ready(Interest::READABLE));
        if let Poll::Ready(Ok(readiness)) = readiness.as_mut().poll(cx)
            && readiness.is_read_closed()
        {
            self.connection.is_abandoned.store(true, Ordering::Relaxed);
            self.connection.wake();
        }
    }

    fn note_written(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(count)) => {
                self.connection.count_written(*count);
                if self.connection.phase() == Phase::Streaming {
                    self.connection.allow(self.connection.stream_timeout.load(Ordering::Relaxed));
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.note_stalled(),
        }
    }

    /// The client takes nothing. Once its time is over the connection ends by a reset: else the
    /// kernel would keep what was written, and offer it to the client for minutes.
    fn note_stalled(&self) {
        if self.connection.phase() != Phase::Streaming {
            return;
        }
        self.connection.turn.await_client();
        if self.connection.has_expired()
            && let Some(socket) = self.inner.inner().stream.socket()
        {
            let _is_set = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Read for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let is_idle = self.connection.phase() == Phase::Idle;
        let is_multiplexed = self.connection.is_multiplexed.load(Ordering::Relaxed);
        if is_multiplexed {
            return self.read_untracked(cx, buf);
        }
        let may_skip = !is_idle && self.early_read.is_empty();
        if may_skip && lock(&self.connection.tracker).may_skip() >= buf.remaining() as u64 {
            // All of it is body, whatever comes.
            let before = self.inner.inner().count;
            std::task::ready!(self.read_untracked(cx, buf))?;
            let count = self.inner.inner().count.wrapping_sub(before);
            lock(&self.connection.tracker).skipped(count);
            return Poll::Ready(Ok(()));
        }
        // What decides on where messages end is looked at on its way to hyper.
        let mut bytes = [const { MaybeUninit::uninit() }; TRACKED_READ];
        let length = TRACKED_READ.min(buf.remaining());
        let mut window = hyper::rt::ReadBuf::uninit(bytes.get_mut(..length).unwrap_or_default());
        std::task::ready!(self.read_untracked(cx, window.unfilled()))?;
        let connection = &*self.connection;
        let mut tracker = lock(&connection.tracker);
        if is_idle {
            connection.begin_head();
        }
        tracker.received(window.filled());
        // A head is refused when it is its turn; a body cannot be taken back later.
        if tracker.has_bad_body() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        buf.put_slice(window.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.connection.has_early.load(Ordering::Relaxed) {
            std::task::ready!(self.poll_early(cx))?;
        }
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note_written(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.connection.has_early.load(Ordering::Relaxed) {
            std::task::ready!(self.poll_early(cx))?;
        }
        let result = write_vectored(&mut self.inner, cx, bufs);
        self.note_written(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper calls this only when none of its bytes wait to be written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.has_early.load(Ordering::Relaxed) {
            std::task::ready!(self.poll_early(cx))?;
        }
        // Encrypted bytes may still wait for room in the socket.
        match Pin::new(&mut self.inner).poll_flush(cx) {
            Poll::Ready(flushed) => flushed?,
            Poll::Pending => {
                self.note_stalled();
                return Poll::Pending;
            }
        }
        self.connection.flushed();
        if self.connection.is_in_question.load(Ordering::Relaxed) {
            self.ask_socket(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            std::task::ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            if self.connection.body_state() == BodyState::Complete {
                return Poll::Ready(Ok(()));
            }
            self.lingering = Some(Linger { left: LINGER_BYTES });
            self.connection.is_over.store(true, Ordering::Relaxed);
            self.connection.enter(Phase::Busy, millis(LINGER_TIME));
        }
        let mut waste = [0_u8; 8192];
        loop {
            if self.connection.has_expired() {
                return Poll::Ready(Ok(()));
            }
            let mut buf = hyper::rt::ReadBuf::new(&mut waste);
            match Pin::new(&mut self.inner).poll_read(cx, buf.unfilled()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_gone)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {
                    let count = buf.filled().len();
                    let Some(linger) = &mut self.lingering else {
                        return Poll::Ready(Ok(()));
                    };
                    linger.left = linger.left.saturating_sub(count);
                    if count == 0 || linger.left == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

/// Largest message that is copied together to be written with one plain `send`, which costs the
/// kernel less than a vector of two.
const SMALL_WRITE: usize = 2048;

/// Writes several buffers, small ones as one.
pub fn write_vectored(
    stream: &mut (impl Write + Unpin),
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [buf] = bufs {
        return Pin::new(stream).poll_write(cx, buf);
    }
    let total: usize = bufs.iter().map(|buf| buf.len()).sum();
    if total > SMALL_WRITE {
        return Pin::new(stream).poll_write_vectored(cx, bufs);
    }
    let mut message = [const { MaybeUninit::uninit() }; SMALL_WRITE];
    let mut message = tokio::io::ReadBuf::uninit(&mut message);
    for buf in bufs {
        message.put_slice(buf);
    }
    Pin::new(stream).poll_write(cx, message.filled())
}
