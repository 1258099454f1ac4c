//! A message of HTTP/2 as the bytes of one of HTTP/1.1: its head, then its content as it comes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::Body;
use tokio::io::ReadBuf;

use super::fields;
use crate::http1::encode::chunk_size;
use crate::http1::framing::BodyKind;

/// A buffer for text that is not kept once it is larger than this: heads come once, sizes of chunks often.
const MAX_KEPT_TEXT: usize = 256;

/// Gives out a message as HTTP/1.1.
#[derive(Debug)]
pub(super) struct MessageReader<B> {
    /// What stands before the content: the head, or the size of a chunk; or the end of a body.
    text: Vec<u8>,
    /// Bytes of `text` that are given out.
    at: usize,
    /// Content, behind `text`.
    content: Bytes,
    /// The content is a chunk, whose line end comes next.
    ends_chunk: bool,
    /// None once its end has come, or it has failed.
    body: Option<B>,
    /// How the body is framed, and the bytes that are missing of one with a length.
    framing: BodyKind,
    failure: Option<io::Error>,
    has_failed: bool,
}

impl<B> MessageReader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Gives out `head`, then `body` framed as the head says. A body that is framed as none is dropped.
    pub(super) fn new(head: Vec<u8>, body: B, framing: BodyKind) -> Self {
        Self {
            text: head,
            at: 0,
            content: Bytes::new(),
            ends_chunk: false,
            body: (framing != BodyKind::None).then_some(body),
            framing,
            failure: None,
            has_failed: false,
        }
    }

    /// Whether the end of the message has been given out.
    pub(super) fn is_over(&self) -> bool {
        self.body.is_none() && !self.has_failed && self.is_drained()
    }

    /// Whether all of the message has come, as far as its receiver can tell.
    pub(super) fn is_complete(&self) -> bool {
        match self.framing {
            _ if self.has_failed => false,
            BodyKind::None | BodyKind::Length(0) => true,
            BodyKind::Length(_) | BodyKind::Chunked | BodyKind::UntilClose => self.body.is_none(),
        }
    }

    /// The body, if its end has not come.
    pub(super) fn take_body(&mut self) -> Option<B> {
        self.body.take()
    }

    fn is_drained(&self) -> bool {
        self.at == self.text.len() && self.content.is_empty() && !self.ends_chunk
    }

    /// Reads what has come. Nothing is added to `buf` once the message is over.
    ///
    /// # Errors
    ///
    /// `ConnectionReset` where the message broke off, `InvalidData` where its content is longer than its head
    /// says.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            self.copy_to(buf);
            if buf.remaining() == 0 || self.is_over() {
                return Poll::Ready(Ok(()));
            }
            let has_read = buf.filled().len() > before;
            match self.poll_body(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) if has_read => {
                    self.failure = Some(error);
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending if has_read => return Poll::Ready(Ok(())),
                polled => return polled,
            }
        }
    }

    /// Gives out what is there, as much as fits.
    fn copy_to(&mut self, buf: &mut ReadBuf<'_>) {
        while buf.remaining() > 0 {
            if let Some(rest) = self.text.get(self.at..).filter(|rest| !rest.is_empty()) {
                let part = rest.get(..buf.remaining()).unwrap_or(rest);
                buf.put_slice(part);
                self.at += part.len();
            } else if !self.content.is_empty() {
                let length = self.content.len().min(buf.remaining());
                buf.put_slice(self.content.get(..length).unwrap_or_default());
                self.content.advance(length);
            } else if std::mem::take(&mut self.ends_chunk) {
                self.clear_text();
                self.text.extend_from_slice(b"\r\n");
            } else {
                return;
            }
        }
    }

    fn clear_text(&mut self) {
        self.at = 0;
        self.text.clear();
        if self.text.capacity() > MAX_KEPT_TEXT {
            self.text = Vec::new();
        }
    }

    /// Takes the next frame, while everything of the last one is given out.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(body) = &mut self.body else {
            let again = || io::ErrorKind::ConnectionReset.into();
            return Poll::Ready(Err(self.failure.take().unwrap_or_else(again)));
        };
        self.at = self.text.len();
        let result = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(content) => self.take_content(content),
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => self.end(&trailers),
                    Err(_unknown) => Ok(()),
                },
            },
            Some(Err(error)) => Err(io::Error::new(io::ErrorKind::ConnectionReset, error)),
            None if body.is_end_stream() => self.end(&HeaderMap::new()),
            // The library takes a reset with NO_ERROR for an end.
            None => Err(io::ErrorKind::ConnectionReset.into()),
        };
        if result.is_err() {
            self.has_failed = true;
            self.body = None;
        }
        Poll::Ready(result)
    }

    fn take_content(&mut self, content: Bytes) -> io::Result<()> {
        // A chunk without content would end the body.
        let Some(size) = chunk_size(content.len()) else { return Ok(()) };
        match self.framing {
            BodyKind::Length(left) => {
                let left = left.checked_sub(content.len() as u64);
                self.framing = BodyKind::Length(left.ok_or(io::ErrorKind::InvalidData)?);
            }
            BodyKind::Chunked => {
                self.clear_text();
                self.text.extend_from_slice(size.as_bytes());
                self.ends_chunk = true;
            }
            BodyKind::None | BodyKind::UntilClose => {}
        }
        self.content = content;
        Ok(())
    }

    fn end(&mut self, trailers: &HeaderMap) -> io::Result<()> {
        match self.framing {
            BodyKind::Length(0) | BodyKind::None | BodyKind::UntilClose => {}
            BodyKind::Length(_) => return Err(io::ErrorKind::ConnectionReset.into()),
            BodyKind::Chunked => {
                self.clear_text();
                self.text.extend_from_slice(b"0\r\n");
                for (name, value) in trailers {
                    fields::write(&mut self.text, name.as_ref(), value.as_bytes());
                }
                self.text.extend_from_slice(b"\r\n");
            }
        }
        self.body = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::task::{Context, Poll, Waker};

    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;
    use tokio::io::ReadBuf;

    use super::{BodyKind, MessageReader};
    use crate::http2::frames::{FrameBody, FrameSender, channel};

    fn message(framing: BodyKind) -> (FrameSender, MessageReader<FrameBody>) {
        let (sender, body) = channel(h2::Reason::CANCEL);
        (sender, MessageReader::new(b"head\r\n\r\n".to_vec(), body, framing))
    }

    fn read(reader: &mut MessageReader<FrameBody>, room: usize) -> Poll<io::Result<Vec<u8>>> {
        let mut bytes = vec![0; room];
        let mut buf = ReadBuf::new(&mut bytes);
        let polled = reader.poll_read(&mut Context::from_waker(Waker::noop()), &mut buf);
        polled.map_ok(|()| buf.filled().to_vec())
    }

    /// Reads until there is nothing to be read: the bytes, and what followed.
    fn read_all(reader: &mut MessageReader<FrameBody>, room: usize) -> (String, &'static str) {
        let mut all = Vec::new();
        let end = loop {
            match read(reader, room) {
                Poll::Ready(Ok(bytes)) if bytes.is_empty() => break "end",
                Poll::Ready(Ok(bytes)) => all.extend(bytes),
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    break "invalid";
                }
                Poll::Ready(Err(error)) => {
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                    assert!(read(reader, room).map_err(|error| error.kind()).is_ready());
                    break "reset";
                }
                Poll::Pending => break "pending",
            }
        };
        (String::from_utf8(all).unwrap(), end)
    }

    fn trailers() -> HeaderMap {
        HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("x"))])
    }

    #[test]
    fn content_is_framed_as_the_head_says() {
        for (framing, content, expected) in [
            (BodyKind::None, &[][..], "head\r\n\r\n"),
            (BodyKind::Length(0), &[], "head\r\n\r\n"),
            (BodyKind::Length(5), &["abc", "", "de"], "head\r\n\r\nabcde"),
            (BodyKind::Chunked, &[], "head\r\n\r\n0\r\n\r\n"),
            (
                BodyKind::Chunked,
                &["abc", "", "0123456789abcdef"],
                "head\r\n\r\n3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n",
            ),
        ] {
            for room in [1, 2, 7, 1000] {
                let (sender, mut reader) = message(framing);
                let mut seen = String::new();
                for piece in content {
                    sender.push(piece.as_bytes());
                    let (bytes, end) = read_all(&mut reader, room);
                    assert_eq!(end, "pending", "{framing:?}");
                    seen += &bytes;
                }
                sender.finish(HeaderMap::new());
                let (bytes, end) = read_all(&mut reader, room);
                assert_eq!((seen + &bytes, end), (expected.to_owned(), "end"), "{framing:?}");
                assert!(reader.is_over() && reader.is_complete());
            }
        }
    }

    #[test]
    fn trailers_stand_behind_the_last_chunk_and_behind_no_length() {
        let (sender, mut reader) = message(BodyKind::Chunked);
        sender.push(b"abc");
        sender.finish(trailers());
        let expected = "head\r\n\r\n3\r\nabc\r\n0\r\netag: x\r\n\r\n";
        assert_eq!(read_all(&mut reader, 1000), (expected.to_owned(), "end"));
        let (sender, mut reader) = message(BodyKind::Length(3));
        sender.push(b"abc");
        sender.finish(trailers());
        assert_eq!(read_all(&mut reader, 1000), ("head\r\n\r\nabc".to_owned(), "end"));
    }

    #[test]
    fn a_message_that_is_cut_has_no_end() {
        for framing in [BodyKind::Length(5), BodyKind::Length(3), BodyKind::Chunked] {
            let (sender, mut reader) = message(framing);
            sender.push(b"abc");
            drop(sender);
            let (bytes, end) = read_all(&mut reader, 1000);
            assert!(bytes.contains("abc") && !bytes.contains("0\r\n"), "{bytes}");
            assert_eq!(end, "reset", "{framing:?}");
            assert!(!reader.is_over() && !reader.is_complete());
        }
    }

    #[test]
    fn a_length_that_is_wrong_is_an_error() {
        for (length, end) in [(2, "invalid"), (4, "reset")] {
            let (sender, mut reader) = message(BodyKind::Length(length));
            sender.push(b"abc");
            sender.finish(HeaderMap::new());
            assert_eq!(read_all(&mut reader, 1000).1, end);
        }
    }

    /// The receiver does not wait for a frame that only says that this was all.
    #[test]
    fn a_message_of_known_length_is_complete_before_its_end() {
        let (sender, mut reader) = message(BodyKind::Length(3));
        sender.push(b"abc");
        assert_eq!(read_all(&mut reader, 1000), ("head\r\n\r\nabc".to_owned(), "pending"));
        assert!(reader.is_complete() && !reader.is_over());
        assert!(reader.take_body().is_some());
    }

    proptest! {
        /// Whatever reads there are, the bytes are the same; read again they are the content.
        #[test]
        fn reads_may_end_anywhere(content in proptest::collection::vec("[a-z]{0,20}", 0..6), rooms in proptest::collection::vec(1_usize..9, 1..9)) {
            use crate::http1::body::{Decoder, Output};
            let (sender, mut reader) = message(BodyKind::Chunked);
            sender.push(content.concat().as_bytes());
            sender.finish(trailers());
            let mut all = Vec::new();
            for room in rooms.iter().cycle() {
                let Poll::Ready(Ok(bytes)) = read(&mut reader, *room) else { panic!("not there") };
                if bytes.is_empty() {
                    break;
                }
                all.extend(bytes);
            }
            let mut rest = all.strip_prefix(b"head\r\n\r\n").unwrap();
            let (mut decoder, mut seen) = (Decoder::new(BodyKind::Chunked), Vec::new());
            while !decoder.is_done() {
                let decoded = decoder.decode(rest, Output::Content).unwrap();
                seen.extend_from_slice(decoded.data(rest));
                rest = &rest[decoded.consumed()..];
            }
            prop_assert_eq!(seen, content.concat().into_bytes());
            prop_assert!(rest.is_empty());
        }
    }
}
