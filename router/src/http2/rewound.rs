//! A stream of which something was read already: that comes first.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use shared::time_limit;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// Bytes that are thrown away at most before the stream is closed.
const LINGER_BYTES: usize = 1024 * 1024;
/// How long bytes are thrown away at most.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// Bytes that are thrown away at a time.
const DISCARDED: usize = 8 * 1024;

/// A stream, and what was read from it before.
///
/// Shutting it down takes what the peer still sends, within limits, so that the kernel does not answer its bytes
/// with a reset that would destroy what is on its way (RFC 9112 9.6).
pub struct Rewound {
    early: Bytes,
    stream: Stream,
    lingering: Option<Linger>,
}

struct Linger {
    bytes_left: usize,
    time: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Rewound {
    /// `early` was read from `stream`.
    pub fn new(early: Bytes, stream: Stream) -> Self {
        Self { early, stream, lingering: None }
    }

    /// Throws away what comes, until the peer has closed or a limit is reached.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(linger) = &mut self.lingering else { return Poll::Ready(()) };
        let mut waste = [0; DISCARDED];
        while linger.bytes_left > 0 && linger.time.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut waste);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
            linger.bytes_left = linger.bytes_left.saturating_sub(buf.filled().len());
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.early.len().min(buf.remaining());
        buf.put_slice(self.early.get(..length).unwrap_or_default());
        self.early.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            let time = Box::pin(time_limit::sleep(LINGER_TIME));
            self.lingering = Some(Linger { bytes_left: LINGER_BYTES, time });
        }
        self.poll_linger(cx).map(Ok)
    }
}

impl fmt::Debug for Rewound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rewound")
            .field("early", &self.early.len())
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::{LINGER_TIME, Rewound};
    use crate::stream::Stream;

    #[tokio::test]
    async fn what_was_read_comes_first() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut rewound =
            Rewound::new(Bytes::from_static(b"early "), Stream::Virtual(Box::new(ours)));
        theirs.write_all(b"late").await.unwrap();
        drop(theirs);
        let mut seen = vec![rewound.read_u8().await.unwrap()];
        rewound.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"early late");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_still_sends_is_read_for_a_while() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut rewound = Rewound::new(Bytes::new(), Stream::Virtual(Box::new(ours)));
        let sender = tokio::spawn(async move {
            let mut sent = 0;
            while theirs.write_all(&[0; 64]).await.is_ok() {
                sent += 64;
            }
            sent
        });
        rewound.shutdown().await.unwrap();
        drop(rewound);
        let sent = sender.await.unwrap();
        assert!((1024 * 1024..1024 * 1024 + 1024).contains(&sent), "{sent}");

        let (ours, theirs) = tokio::io::duplex(64);
        let mut silent = Rewound::new(Bytes::new(), Stream::Virtual(Box::new(ours)));
        let before = tokio::time::Instant::now();
        silent.shutdown().await.unwrap();
        let waited = before.elapsed();
        assert!(waited >= LINGER_TIME && waited < LINGER_TIME + Duration::from_secs(1));
        drop(theirs);
    }
}
