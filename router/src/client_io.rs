//! The client's side of a connection: bytes in and out, without a system call or a buffer where there is
//! nothing to read.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BufMut as _;
use socket2::SockRef;
use tokio::io::{AsyncWrite as _, Interest};
use tokio_util::io::poll_read_buf;

use crate::stream::Stream;

/// A client's stream.
#[derive(Debug)]
pub struct ClientIo {
    stream: Stream,
    /// The last read filled its buffer: the stream may hold more that its socket knows nothing of (TLS).
    may_hold_more: bool,
}

impl ClientIo {
    /// Of a connection, or of one request of HTTP/2.
    pub fn new(stream: Stream) -> Self {
        // What a client sent right behind its handshake is decrypted already.
        let may_hold_more = matches!(stream, Stream::Tls(_));
        Self { stream, may_hold_more }
    }

    /// Waits until there is something to read, without a buffer. Now and then there is nothing after all:
    /// the read tells.
    pub fn poll_readable(&mut self, task: &mut Context<'_>) -> Poll<()> {
        if self.may_hold_more { Poll::Ready(()) } else { self.stream.poll_readable(task) }
    }

    /// Reads at most `room` bytes, which `buffer` has to have room for, to its end. 0 is the end of the stream.
    ///
    /// # Errors
    ///
    /// Of the stream.
    pub fn poll_fill(
        &mut self,
        task: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        let polled = poll_read_buf(Pin::new(&mut self.stream), task, &mut buffer.limit(room));
        self.may_hold_more = matches!(polled, Poll::Ready(Ok(count)) if count == room);
        polled
    }

    /// The stream, to be written to.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// The stream, for another protocol.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Whether the client has closed its side, although what it sent before is not read yet. Such a client
    /// is taken to be gone, as nginx and Node do: hardly anyone half-closes a connection and goes on reading.
    pub fn has_closed(&self, task: &mut Context<'_>) -> bool {
        let Some(socket) = self.stream.socket() else { return false };
        let mut readiness = pin!(socket.ready(Interest::READABLE));
        matches!(readiness.as_mut().poll(task), Poll::Ready(Ok(readiness)) if readiness.is_read_closed())
    }

    /// Has the connection end by a reset: the client takes nothing, or must see that its response is cut.
    /// Otherwise the kernel would offer for minutes what was written.
    pub fn reset(&self) {
        if let Some(socket) = self.stream.socket() {
            let _is_set = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// Says goodbye where the protocol below has a way to (TLS, HTTP/2), as far as that needs no wait. A socket
    /// is closed by being dropped.
    pub fn say_goodbye(&mut self, task: &mut Context<'_>) {
        if !matches!(self.stream, Stream::Plain(_)) {
            let _closed = Pin::new(&mut self.stream).poll_shutdown(task);
        }
    }

    /// Closes the sending side, as far as that needs no wait.
    pub fn poll_close(&mut self, task: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.stream).poll_shutdown(task).map(|_gone| ())
    }
}
