//! The backend's socket, as hyper sees it.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;

use super::wire::Wire;
use crate::connection::write_vectored;
use crate::stream::Stream;

/// Bytes of the first read of an answer, which is looked at on its way to hyper: most answers
/// to small requests are smaller.
const HEAD_READ: usize = 4096;

/// The backend's socket. When writing fails it goes on reading: a backend that refuses an upload
/// answers and closes without reading the rest, and that answer is what the client is to get.
#[derive(Debug)]
pub(super) struct UpstreamIo {
    inner: TokioIo<Stream>,
    wire: Arc<Wire>,
    is_write_broken: bool,
}

impl UpstreamIo {
    pub(super) fn new(stream: Stream, wire: Arc<Wire>) -> Self {
        Self { inner: TokioIo::new(stream), wire, is_write_broken: false }
    }

    /// The connection, for a tunnel.
    pub(super) fn into_stream(self) -> Stream {
        self.inner.into_inner()
    }

    fn survive(
        &mut self,
        result: Poll<io::Result<usize>>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                self.is_write_broken = true;
                Poll::Ready(Ok(length))
            }
            result => result,
        }
    }
}

impl Read for UpstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.wire.awaits_head() {
            let result = Pin::new(&mut self.inner).poll_read(cx, buf);
            if result.is_ready() {
                self.wire.note_progress();
            }
            return result;
        }
        // The first bytes of an answer are looked at on their way to hyper.
        let mut head = [const { MaybeUninit::uninit() }; HEAD_READ];
        let length = HEAD_READ.min(buf.remaining());
        let mut window = hyper::rt::ReadBuf::uninit(head.get_mut(..length).unwrap_or_default());
        ready!(Pin::new(&mut self.inner).poll_read(cx, window.unfilled()))?;
        self.wire.received(window.filled());
        buf.put_slice(window.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for UpstreamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_write_broken {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = result
            && let Some(sent) = buf.get(..count)
        {
            self.wire.sent(sent);
        }
        self.survive(result, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.is_write_broken {
            return Poll::Ready(Ok(length));
        }
        let result = write_vectored(&mut self.inner, cx, bufs);
        if let Poll::Ready(Ok(mut count)) = result {
            for buf in bufs {
                let (sent, _rest) = buf.split_at(count.min(buf.len()));
                self.wire.sent(sent);
                count -= sent.len();
            }
        }
        self.survive(result, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_write_broken {
            return Poll::Ready(Ok(()));
        }
        // Encrypted bytes that waited for room may be what the backend does not take any more.
        let result = Pin::new(&mut self.inner).poll_flush(cx).map_ok(|()| 0);
        self.survive(result, 0).map_ok(|_count| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
