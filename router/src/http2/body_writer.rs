//! The body of a message of HTTP/1.1, as it is written, on its way into HTTP/2.

use std::io;
use std::task::{Context, Poll};

use super::fields::trailers_to_map;
use super::frames::{FrameSender, ReceiverGone};
use crate::http1::body::{Decoder, End, Output};
use crate::http1::framing::BodyKind;

/// Takes the bytes of one body.
#[derive(Debug)]
pub(super) struct BodyWriter {
    decoder: Decoder,
    /// None once the body was cut.
    frames: Option<FrameSender>,
    is_over: bool,
    /// What was written is no such body.
    is_invalid: bool,
}

impl BodyWriter {
    /// For the body that follows a head.
    pub(super) fn new(kind: BodyKind, frames: FrameSender) -> Self {
        let decoder = Decoder::new(kind);
        let is_over = decoder.is_done();
        if is_over {
            frames.finish(http::HeaderMap::new());
        }
        Self { decoder, frames: Some(frames), is_over, is_invalid: false }
    }

    /// Whether its end was written.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes as much of `input` as there is room for, and nothing behind the end of the body.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` when the receiver takes no more, `InvalidData` when this is no such body, `InvalidInput` when
    /// it is over.
    pub(super) fn poll_write(&mut self, cx: &Context<'_>, input: &[u8]) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        while let Some(rest) = input.get(taken..).filter(|rest| !rest.is_empty()) {
            match self.poll_part(cx, rest) {
                Poll::Ready(Ok(count)) => taken += count,
                _ if taken > 0 => break,
                polled => return polled,
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_part(&mut self, cx: &Context<'_>, input: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_over {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        }
        let Some(frames) = &self.frames else {
            let is_invalid = self.is_invalid;
            let kind =
                if is_invalid { io::ErrorKind::InvalidData } else { io::ErrorKind::BrokenPipe };
            return Poll::Ready(Err(kind.into()));
        };
        let room = match frames.poll_room(cx) {
            Poll::Ready(Ok(room)) => room,
            Poll::Ready(Err(ReceiverGone)) => {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            Poll::Pending => return Poll::Pending,
        };
        let part = input.get(..room).unwrap_or(input);
        let Ok(decoded) = self.decoder.decode(part, Output::Content) else {
            self.frames = None;
            self.is_invalid = true;
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        frames.push(decoded.data(part));
        if decoded.end != End::No {
            frames.finish(trailers_to_map(self.decoder.trailers()));
            self.is_over = true;
        }
        Poll::Ready(Ok(decoded.consumed()))
    }

    /// Waits until everything was taken.
    pub(super) fn poll_flush(&self, cx: &Context<'_>) -> Poll<()> {
        match &self.frames {
            Some(frames) => frames.poll_drained(cx),
            None => Poll::Ready(()),
        }
    }

    /// Waits until everything was taken and, where that is all of the body, until the receiver is done with it.
    pub(super) fn poll_delivered(&self, cx: &Context<'_>) -> Poll<()> {
        match &self.frames {
            Some(frames) if self.is_over => frames.poll_delivered(cx),
            Some(frames) => frames.poll_drained(cx),
            None => Poll::Ready(()),
        }
    }

    /// No more is written: a body that is not over, and has another end than this, is cut.
    pub(super) fn end(&mut self) {
        if self.is_over {
            return;
        }
        match (&self.frames, self.decoder.end_of_connection()) {
            (Some(frames), Ok(())) => {
                frames.finish(http::HeaderMap::new());
                self.is_over = true;
            }
            _ => self.frames = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use http_body::Body as _;

    use super::{BodyKind, BodyWriter};
    use crate::http2::frames::{FrameBody, MAX_BUFFERED, channel};

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    /// What the receiver takes at once: content, then trailers in brackets, then how it ends.
    fn taken(body: &mut FrameBody) -> String {
        let mut seen = String::new();
        loop {
            match Pin::new(&mut *body).poll_frame(&mut cx()) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => seen += std::str::from_utf8(&data).unwrap(),
                    Err(frame) => seen += &format!("{:?}", frame.into_trailers().unwrap()),
                },
                Poll::Ready(Some(Err(_cut))) => return seen + "|cut",
                Poll::Ready(None) => return seen + "|end",
                Poll::Pending => return seen + "|…",
            }
        }
    }

    /// Writes in pieces of `size`, then ends.
    fn written(kind: BodyKind, input: &str, size: usize) -> (String, Result<(), io::ErrorKind>) {
        let (sender, mut body) = channel(h2::Reason::CANCEL);
        let mut writer = BodyWriter::new(kind, sender);
        for mut piece in input.as_bytes().chunks(size) {
            while !piece.is_empty() {
                match writer.poll_write(&cx(), piece) {
                    Poll::Ready(Ok(count)) => piece = &piece[count..],
                    Poll::Ready(Err(error)) => return (taken(&mut body), Err(error.kind())),
                    Poll::Pending => panic!("there is room"),
                }
            }
        }
        writer.end();
        (taken(&mut body), Ok(()))
    }

    #[test]
    fn bodies_become_frames_wherever_writes_end() {
        use BodyKind::{Chunked, Length, None, UntilClose};
        use io::ErrorKind::{InvalidData, InvalidInput};
        for (kind, input, expected) in [
            (None, "", ("|end", Ok(()))),
            (Length(0), "", ("|end", Ok(()))),
            (Length(3), "abc", ("abc|end", Ok(()))),
            (Length(4), "abc", ("abc|cut", Ok(()))),
            (UntilClose, "abc", ("abc|end", Ok(()))),
            (Chunked, "3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n", ("abcde|end", Ok(()))),
            (Chunked, "3\r\nabc\r\n", ("abc|cut", Ok(()))),
            (
                Chunked,
                "3\r\nabc\r\n0\r\nX: y\r\nHost: z\r\n\r\n",
                ("abc{\"x\": \"y\"}|end", Ok(())),
            ),
            (Chunked, "3\r\nabc\r\nz", ("abc|cut", Err(InvalidData))),
            (Length(3), "abcd", ("abc|end", Err(InvalidInput))),
            (None, "a", ("|end", Err(InvalidInput))),
        ] {
            for size in 1..=input.len().max(1) {
                let (seen, result) = written(kind, input, size);
                assert_eq!((seen.as_str(), result), expected, "{kind:?} {input:?} by {size}");
            }
        }
    }

    #[test]
    fn a_slow_receiver_holds_the_writer_back() {
        let (sender, mut body) = channel(h2::Reason::CANCEL);
        let mut writer = BodyWriter::new(BodyKind::Length(1 << 20), sender);
        let input = vec![b'x'; 3 * MAX_BUFFERED];
        let count = |polled: Poll<io::Result<usize>>| polled.map(Result::unwrap);
        assert_eq!(count(writer.poll_write(&cx(), &input)), Poll::Ready(MAX_BUFFERED));
        assert_eq!(count(writer.poll_write(&cx(), &input)), Poll::Pending);
        assert_eq!(writer.poll_flush(&cx()), Poll::Pending);
        assert_eq!(taken(&mut body).len(), MAX_BUFFERED + "|…".len());
        assert_eq!(writer.poll_flush(&cx()), Poll::Ready(()));
        assert_eq!(count(writer.poll_write(&cx(), &input)), Poll::Ready(MAX_BUFFERED));
        drop(body);
        let Poll::Ready(Err(error)) = writer.poll_write(&cx(), &input) else { panic!("taken") };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(writer.poll_flush(&cx()), Poll::Ready(()));
    }
}
