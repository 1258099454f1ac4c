//! A request on its way to the backend: the head that was encoded for it, then the client's body, read only as
//! fast as the backend takes it.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite as _;

use crate::buffers::{Buffers, LARGE, SMALL};
use crate::client_io::ClientIo;
use crate::connection::{Connection, Paced};
use crate::http1::body::{End, Output};
use crate::http1::encode;
use crate::http1::error::RequestError;
use crate::http1::server::{self, Awaited, EndOfInput};
use crate::pipes::Pipe;
use crate::pool::BackendConnection;
use crate::stream::write_parts;

/// A buffer for heads that has grown beyond this is freed.
pub(super) const MAX_KEPT: usize = 4 * 1024;
/// Parts of a body up to this many bytes are copied behind the head, to be sent with it in one plain write.
const MAX_COPIED: usize = 2 * 1024;

/// What a client's body may not exceed.
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyLimits {
    /// Silence.
    pub silence: Option<Duration>,
    /// Bytes a second while it is waited for, and the patience with fewer.
    pub min_rate: Option<(u32, Duration)>,
}

/// Where the bytes to be sent next are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Source {
    /// In the buffer of the head, behind it.
    #[default]
    Input,
    /// In the body's own buffer.
    Body,
}

/// One request on its way.
#[derive(Debug, Default)]
pub struct Upload {
    /// The encoded head, and trailers: what is not written as it came.
    pending: Vec<u8>,
    written: usize,
    /// Decoded bytes of the source that are to be written behind `pending`.
    chunk: Range<usize>,
    source: Source,
    /// Bytes of the source that are decoded.
    at: usize,
    /// What was read of the body after the head's buffer was used up.
    body: Vec<u8>,
    /// Bytes of the body that are to be written without having been read here.
    pipe: Option<Pipe>,
    /// Where the body ended in the head's buffer, once all of it was sent.
    input_end: Option<usize>,
    /// Every byte of the body that was read is still in the buffers.
    is_kept: bool,
    /// Bytes are kept in the body's buffer for another attempt as long as they fit.
    keeps: bool,
    /// The client waits for `100 Continue`, and the backend has not asked for the body yet.
    is_held: bool,
    /// The backend takes no more. It may still have something to say.
    is_broken: bool,
    is_whole: bool,
    limits: BodyLimits,
    pace: Option<Paced>,
}

impl Upload {
    /// Begins a request, of which the body starts at `body_at` of the head's buffer. `is_held`: the client waits
    /// for `100 Continue` with its body.
    pub fn begin(&mut self, body_at: usize, is_held: bool, limits: BodyLimits) {
        self.body.clear();
        (self.is_held, self.limits) = (is_held, limits);
        self.pace = limits.min_rate.map(|(rate, patience)| Paced::new(rate, patience));
        self.rewind(body_at);
    }

    /// Begins an attempt; its head is to be encoded into what is returned. `keeps`: the backend may refuse the
    /// request after all of it was written, so what fits is kept. What an attempt before has read of the body
    /// is read again.
    pub fn attempt(&mut self, body_at: usize, keeps: bool) -> &mut Vec<u8> {
        self.rewind(body_at);
        self.keeps = keeps;
        &mut self.pending
    }

    fn rewind(&mut self, body_at: usize) {
        self.pending.clear();
        self.pipe = None;
        (self.written, self.chunk) = (0, 0..0);
        (self.source, self.at, self.input_end) = (Source::Input, body_at, None);
        (self.is_kept, self.is_broken, self.is_whole) = (true, false, false);
    }

    /// Whether what was read of the body can be sent again.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Whether the body waits for the backend's `100 Continue`.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// Lets the body go.
    pub fn release(&mut self) {
        self.is_held = false;
    }

    /// Whether nothing more is sent: all of it was, or the backend takes no more.
    pub fn is_over(&self) -> bool {
        self.is_whole || self.is_broken
    }

    /// Whether all of the request is sent, and what the client says from now on may be read behind it.
    pub fn is_whole(&self) -> bool {
        self.is_whole && (self.source == Source::Input || self.at == self.body.len())
    }

    /// Forgets everything but a buffer for ordinary heads.
    pub fn reset(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.clear();
        if pending.capacity() > MAX_KEPT {
            pending = Vec::new();
        }
        *self = Self { pending, ..Self::default() };
    }

    /// Hands the buffers back. Returns how far `input` was decoded; what was read beyond the body is behind it.
    pub fn finish(&mut self, input: &mut Vec<u8>, buffers: &Buffers) -> usize {
        let at = self.return_rest(input);
        if self.body.capacity() > 0 {
            buffers.give_back(std::mem::take(&mut self.body));
        }
        if let Some(pipe) = self.pipe.take() {
            buffers.pipes.give_back(pipe);
        }
        at
    }

    /// Moves what was read beyond the body to where it belongs in `input`. Returns where that is.
    fn return_rest(&mut self, input: &mut Vec<u8>) -> usize {
        if self.source == Source::Input {
            // What an attempt before this one has read.
            input.extend_from_slice(&self.body);
        } else {
            // Nothing is read behind it before it is there.
            let rest = self.body.get(self.at..).unwrap_or_default();
            let end =
                if rest.is_empty() { self.input_end.unwrap_or(input.len()) } else { input.len() };
            input.extend_from_slice(rest);
            (self.source, self.at) = (Source::Input, end);
        }
        self.body.clear();
        self.at
    }

    /// Writes and reads as far as possible without waiting. Ready once nothing more is to be sent.
    ///
    /// # Errors
    ///
    /// What is wrong with the client's body.
    pub fn poll(
        &mut self,
        task: &mut Context<'_>,
        sides: &mut Sides<'_>,
    ) -> Poll<Result<(), RequestError>> {
        while !self.is_over() {
            let can_decode = !self.is_held
                && self.chunk.is_empty()
                && self.pending.len() < SMALL
                && self.at < self.source(sides.input).len()
                && sides.state.awaits_body();
            if can_decode {
                // Before the head is written, so that both go out together.
                self.decode(sides)?;
            } else if self.written < self.pending.len() || !self.chunk.is_empty() {
                ready!(self.poll_write(task, sides));
            } else if self.pipe_holds_bytes() {
                ready!(self.poll_drain(task, sides));
            } else if !sides.state.awaits_body() {
                ready!(self.poll_flush(task, sides));
                self.is_whole = true;
                sides.backend.state.wrote(0, true);
                sides.connection.set_awaited(Awaited::Backend);
                self.input_end = Some(sides.input.len());
                if !self.keeps {
                    self.return_rest(sides.input);
                }
            } else if self.is_held {
                // What is held back is not the backend's fault; its deadline is the patience with it.
                ready!(self.poll_flush(task, sides));
                return Poll::Pending;
            } else {
                ready!(self.poll_flush(task, sides));
                ready!(self.poll_read(task, sides))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn source<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        match self.source {
            Source::Input => input,
            Source::Body => &self.body,
        }
    }

    fn decode(&mut self, sides: &mut Sides<'_>) -> Result<(), RequestError> {
        let bytes = match self.source {
            Source::Input => &sides.input[..],
            Source::Body => &self.body[..],
        };
        let rest = bytes.get(self.at..).unwrap_or_default();
        let decoded = sides.state.read_body(rest, Output::Chunks)?;
        let start = self.at + decoded.skipped;
        self.at += decoded.consumed();
        let data = decoded.data(rest);
        if self.written < self.pending.len() && data.len() <= MAX_COPIED {
            self.pending.extend_from_slice(data);
        } else {
            self.chunk = start..start + decoded.passed;
        }
        if decoded.end == End::Trailers {
            // The chunk, if any, comes before the trailers.
            if !self.chunk.is_empty() {
                let chunk = bytes.get(std::mem::take(&mut self.chunk)).unwrap_or_default();
                self.pending.extend_from_slice(chunk);
            }
            encode::trailers(&mut self.pending, sides.state.body().trailers());
        }
        Ok(())
    }

    fn poll_write(&mut self, task: &mut Context<'_>, sides: &mut Sides<'_>) -> Poll<()> {
        let pending = self.pending.get(self.written..).unwrap_or_default();
        let bytes = match self.source {
            Source::Input => &sides.input[..],
            Source::Body => &self.body[..],
        };
        let chunk = bytes.get(self.chunk.clone()).unwrap_or_default();
        let polled = write_parts(&mut sides.backend.stream, task, pending, chunk);
        let count = ready!(self.note_written(sides, &polled));
        let of_pending = count.min(self.pending.len() - self.written);
        self.written += of_pending;
        self.chunk.start += count - of_pending;
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
        }
        Poll::Ready(())
    }

    /// Encrypted bytes may still wait for room in the socket.
    fn poll_flush(&mut self, task: &mut Context<'_>, sides: &mut Sides<'_>) -> Poll<()> {
        match Pin::new(&mut sides.backend.stream).poll_flush(task) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(_)) => {
                self.is_broken = true;
                Poll::Ready(())
            }
            Poll::Pending => {
                sides.connection.set_awaited(Awaited::Backend);
                Poll::Pending
            }
        }
    }

    /// Reads more of the body into a buffer of its own.
    fn poll_read(
        &mut self,
        task: &mut Context<'_>,
        sides: &mut Sides<'_>,
    ) -> Poll<Result<(), RequestError>> {
        let announced = sides.state.body().announced();
        if self.source == Source::Input {
            (self.source, self.at) = (Source::Body, 0);
            if !self.body.is_empty() {
                // An attempt before this one has read it.
                return Poll::Ready(Ok(()));
            }
        } else if !self.keeps || self.body.len() == self.body.capacity() {
            self.is_kept = false;
            self.body.clear();
            self.at = 0;
            if let Some(polled) = self.poll_splice(task, sides) {
                return polled;
            }
        }
        if self.body.capacity() == 0 {
            let is_large = announced.is_none_or(|left| left > SMALL as u64);
            self.body = if is_large { sides.buffers.large() } else { sides.buffers.small() };
        }
        let room = self.body.capacity() - self.body.len();
        // Nothing beyond the body, where its end is known.
        let room =
            announced.map_or(room, |left| usize::try_from(left).map_or(room, |l| l.min(room)));
        let polled = sides.client.poll_fill(task, &mut self.body, room);
        self.note_read(sides, &polled)
    }

    /// Moves some of a long body from the client's socket into a pipe. None: it is to be read instead. Only for bodies of which the beginning is gone already: what
    /// is in a pipe cannot be sent a second time.
    fn poll_splice(
        &mut self,
        task: &mut Context<'_>,
        sides: &mut Sides<'_>,
    ) -> Option<Poll<Result<(), RequestError>>> {
        let left = sides.state.body().announced()?;
        let _plain = sides.backend.stream.plain()?;
        let socket = sides.client.stream().plain()?;
        let polled = sides.buffers.pipes.poll_fill(&mut self.pipe, task, socket, left)?;
        if self.body.capacity() > 0 {
            sides.buffers.give_back(std::mem::take(&mut self.body));
        }
        if let Poll::Ready(Ok(count)) = &polled {
            sides.state.pass_body(*count);
        }
        Some(self.note_read(sides, &polled))
    }

    fn pipe_holds_bytes(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0)
    }

    /// Writes what is in the pipe.
    fn poll_drain(&mut self, task: &mut Context<'_>, sides: &mut Sides<'_>) -> Poll<()> {
        let (Some(pipe), Some(socket)) = (&mut self.pipe, sides.backend.stream.plain()) else {
            return Poll::Ready(());
        };
        let polled = pipe.poll_drain(task, socket);
        self.note_written(sides, &polled).map(|_count| ())
    }

    /// What a read from the client means for its deadlines, and for the request.
    fn note_read(
        &mut self,
        sides: &mut Sides<'_>,
        polled: &Poll<io::Result<usize>>,
    ) -> Poll<Result<(), RequestError>> {
        match polled {
            Poll::Ready(Ok(count)) if *count > 0 => {
                sides.connection.allow_for(self.limits.silence);
                if let Some(pace) = &mut self.pace {
                    pace.received(*count, sides.connection);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(_) => Poll::Ready(match sides.state.end_of_input() {
                EndOfInput::Cut(error) => Err(error),
                EndOfInput::Close | EndOfInput::Gone => Err(RequestError::BodyCut),
            }),
            Poll::Pending => {
                if sides.connection.awaited() != Awaited::Request {
                    sides.connection.set_awaited(Awaited::Request);
                }
                if let Some(pace) = &mut self.pace {
                    pace.wait(sides.connection);
                }
                Poll::Pending
            }
        }
    }

    /// What a write to the backend means. Returns how many bytes it took.
    fn note_written(
        &mut self,
        sides: &mut Sides<'_>,
        polled: &Poll<io::Result<usize>>,
    ) -> Poll<usize> {
        match polled {
            Poll::Ready(Ok(count)) if *count > 0 => {
                sides.backend.state.wrote(*count, false);
                Poll::Ready(*count)
            }
            // A backend that refuses an upload answers and closes without reading the rest, and that answer
            // is what the client is to get: the read side tells.
            Poll::Ready(_) => {
                self.is_broken = true;
                Poll::Ready(0)
            }
            Poll::Pending => {
                sides.connection.set_awaited(Awaited::Backend);
                Poll::Pending
            }
        }
    }
}

/// Both sides of a request.
#[derive(Debug)]
pub struct Sides<'a> {
    /// The client's socket.
    pub client: &'a mut ClientIo,
    /// Where in its requests it is.
    pub state: &'a mut server::Connection,
    /// Its deadline.
    pub connection: &'a Connection,
    /// The head and what was read with it.
    pub input: &'a mut Vec<u8>,
    /// The connection to the backend.
    pub backend: &'a mut BackendConnection,
    /// Buffers of the worker.
    pub buffers: &'a Buffers,
}

const _: () = assert!(LARGE >= 64 * 1024, "bodies up to 64 KiB can be sent again");
