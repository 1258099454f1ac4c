//! The first frame of a backend of HTTP/2, its SETTINGS (RFC 9113 3.4), read on its way to the library, which
//! does not report its arrival. A WebSocket may only be asked for once it has come and allows that
//! (RFC 8441 3).

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::sync::oneshot;

/// Bytes of a frame's head (RFC 9113 4.1).
const HEAD: usize = 9;
/// The type of SETTINGS.
const SETTINGS: u8 = 4;
/// `SETTINGS_ENABLE_CONNECT_PROTOCOL` (RFC 8441 9.1).
const ENABLE_CONNECT_PROTOCOL: u16 = 8;
/// The most that a frame may hold before we allow more.
const MAX_FRAME: usize = 16 * 1024;
/// Bytes that are read at a time while the frame is awaited.
const READ: usize = 512;

/// A connection whose first frame is read along.
#[derive(Debug)]
pub(super) struct WatchedSettings<T> {
    inner: T,
    /// None once the settings are known.
    first: Option<(First, oneshot::Sender<bool>)>,
}

/// As much of the first frame as has come.
#[derive(Debug, Default)]
struct First {
    bytes: Vec<u8>,
}

impl First {
    /// Takes further bytes. Returns whether WebSockets are allowed as soon as that is known.
    fn push(&mut self, bytes: &[u8]) -> Option<bool> {
        self.bytes.extend_from_slice(bytes);
        let (head, rest) = self.bytes.split_first_chunk::<HEAD>()?;
        let [l2, l1, l0, kind, flags, ..] = *head;
        let length = usize::try_from(u32::from_be_bytes([0, l2, l1, l0])).unwrap_or(usize::MAX);
        if kind != SETTINGS || flags != 0 || length > MAX_FRAME {
            return Some(false);
        }
        let mut allows = false;
        for setting in rest.get(..length)?.chunks_exact(6) {
            if let [n1, n0, value @ ..] = setting
                && u16::from_be_bytes([*n1, *n0]) == ENABLE_CONNECT_PROTOCOL
            {
                allows = value == [0, 0, 0, 1];
            }
        }
        Some(allows)
    }
}

impl<T> WatchedSettings<T> {
    /// The second part says whether WebSockets are allowed once that is known; an error is that it never will
    /// be.
    pub(super) fn new(inner: T) -> (Self, oneshot::Receiver<bool>) {
        let (sender, receiver) = oneshot::channel();
        (Self { inner, first: Some((First::default(), sender)) }, receiver)
    }
}

impl<T: Read + Unpin> Read for WatchedSettings<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some((first, _)) = &mut this.first else {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        };
        let mut bytes = [const { MaybeUninit::uninit() }; READ];
        let length = READ.min(buf.remaining());
        let mut window = ReadBuf::uninit(bytes.get_mut(..length).unwrap_or_default());
        ready!(Pin::new(&mut this.inner).poll_read(cx, window.unfilled()))?;
        let known = match window.filled() {
            [] => Some(false),
            bytes => first.push(bytes),
        };
        if let Some(allows) = known
            && let Some((_, sender)) = this.first.take()
        {
            let _receiver_may_be_gone = sender.send(allows);
        }
        buf.put_slice(window.filled());
        Poll::Ready(Ok(()))
    }
}

impl<T: Write + Unpin> Write for WatchedSettings<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::First;

    fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
        let payload = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
        let payload: Vec<u8> = payload.collect();
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, 4, 0, 0, 0, 0, 0], &payload[..]].concat()
    }

    #[test]
    fn only_the_setting_of_rfc_8441_allows_a_websocket() {
        let http1 = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
        let ack = [0, 0, 0, 4, 1, 0, 0, 0, 0].to_vec();
        let headers = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88].to_vec();
        for (bytes, expected) in [
            (settings(&[]), false),
            (settings(&[(3, 100), (8, 1), (4, 65_535)]), true),
            (settings(&[(8, 0)]), false),
            (settings(&[(8, 2)]), false),
            (settings(&[(3, 1), (1, 8)]), false),
            (http1, false),
            (ack, false),
            (headers, false),
        ] {
            assert_eq!(First::default().push(&bytes), Some(expected), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn settings_are_read_wherever_reads_end(cuts in proptest::collection::vec(1_usize..9, 1..9), allowed in 0_u32..3) {
            let bytes = settings(&[(4, 1), (8, allowed), (5, 16_384)]);
            let mut first = First::default();
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                let expected = later.is_empty().then_some(allowed == 1);
                prop_assert_eq!(first.push(now), expected);
                rest = later;
            }
        }

        #[test]
        fn any_bytes_are_survived(reads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 0..10)) {
            let mut first = First::default();
            for read in &reads {
                let _known = first.push(read);
            }
        }
    }
}
