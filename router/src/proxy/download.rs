//! A response on its way to the client: read from the backend only as fast as the client takes it.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BufMut as _;
use tokio::io::AsyncWrite as _;
use tokio_util::io::poll_read_buf;

use super::upload::MAX_KEPT;
use crate::buffers::{Buffers, LARGE};
use crate::client_io::ClientIo;
use crate::http1::body::{End, Output};
use crate::http1::client::HeadStep;
use crate::http1::encode::{self, LAST_CHUNK, chunk_size};
use crate::http1::error::ResponseError;
use crate::http1::head::{HeadLimits, ResponseHead};
use crate::http1::server::ResponsePlan;
use crate::pipes::Pipe;
use crate::pool::BackendConnection;
use crate::stream::write_parts;

/// Parts of a body up to this many bytes are copied behind the head, to be sent with it in one plain write,
/// which costs the kernel less than a vector of two.
const MAX_COPIED: usize = 4 * 1024;
/// Limits of a response head: more than any sane backend sends.
const LIMITS: HeadLimits =
    HeadLimits { max_bytes: 256 * 1024, max_fields: 256, max_target: usize::MAX };
/// Bytes of informational responses that wait for one client. Further ones are dropped: they are hints.
const MAX_INFORMATIONAL_BYTES: usize = 64 * 1024;

/// Why a response does not come.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Broken {
    /// What is missing or wrong.
    pub error: ResponseError,
    /// What the system said.
    pub source: Option<io::Error>,
}

impl From<ResponseError> for Broken {
    fn from(error: ResponseError) -> Self {
        Self { error, source: None }
    }
}

/// One response on its way.
#[derive(Debug, Default)]
pub struct Download {
    /// What was read from the backend.
    input: Vec<u8>,
    /// Bytes of `input` that are decoded.
    at: usize,
    /// Something of the response has come.
    has_begun: bool,
    /// A read has filled the buffer, so that a larger one saves system calls.
    was_full: bool,
    /// Everything of it has come.
    is_over: bool,
    /// Bytes of content so far.
    content: u64,
    /// The client takes trailers (RFC 9110 6.5.1).
    takes_trailers: bool,
    /// Heads and chunk framing, to be written to the client.
    pending: Vec<u8>,
    written: usize,
    /// Decoded bytes of `input`, to be written behind `pending`.
    chunk: Range<usize>,
    /// Bytes of the body that are to be written without having been read here.
    pipe: Option<Pipe>,
}

impl Download {
    /// Whether something of it has come.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether everything of it has come from the backend.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Bytes of content that were decoded.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// Whether all that was decoded is written.
    pub fn is_flushed(&self) -> bool {
        self.written == self.pending.len()
            && self.chunk.is_empty()
            && self.pipe.as_ref().is_none_or(|pipe| pipe.held() == 0)
    }

    /// What was read and is not decoded: the head, until [`Download::skip_head`], and what is behind.
    pub fn rest(&self) -> &[u8] {
        self.input.get(self.at..).unwrap_or_default()
    }

    /// The head that was `length` bytes long is dealt with.
    pub fn skip_head(&mut self, length: usize) {
        self.at += length;
    }

    /// Says whether the client takes trailers.
    pub fn take_trailers(&mut self, takes: bool) {
        self.takes_trailers = takes;
    }

    /// Where heads are encoded to.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Both: what was read and is not decoded, and where heads are encoded to.
    pub fn rest_and_out(&mut self) -> (&[u8], &mut Vec<u8>) {
        (self.input.get(self.at..).unwrap_or_default(), &mut self.pending)
    }

    /// Whether further informational responses may be queued for the client.
    pub fn takes_informational(&self) -> bool {
        self.pending.len() < MAX_INFORMATIONAL_BYTES
    }

    /// Begins an attempt. What waits for the client stays: it gets that first.
    pub fn attempt(&mut self) {
        self.input.clear();
        (self.at, self.chunk, self.content) = (0, 0..0, 0);
        (self.has_begun, self.was_full, self.is_over) = (false, false, false);
    }

    /// Hands the buffers back.
    pub fn finish(&mut self, buffers: &Buffers) {
        if self.input.capacity() > 0 {
            buffers.give_back(std::mem::take(&mut self.input));
        }
        if let Some(pipe) = self.pipe.take() {
            buffers.pipes.give_back(pipe);
        }
        self.pending.clear();
        self.written = 0;
        self.attempt();
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

    /// Reads a head, informational or not. Its bytes are those of [`Download::rest`].
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn poll_head(
        &mut self,
        task: &mut Context<'_>,
        backend: &mut BackendConnection,
        head: &mut ResponseHead,
        buffers: &Buffers,
    ) -> Poll<Result<HeadStep, Broken>> {
        loop {
            match backend.state.read_head(self.rest(), head, &LIMITS)? {
                HeadStep::Incomplete => {}
                step => return Poll::Ready(Ok(step)),
            }
            match ready!(self.poll_fill(task, backend, buffers)) {
                Ok(count) if count > 0 => {}
                end => {
                    let error = backend.state.end_of_input().err();
                    let error = error.unwrap_or(ResponseError::NoResponse);
                    return Poll::Ready(Err(Broken { error, source: end.err() }));
                }
            }
        }
    }

    fn poll_fill(
        &mut self,
        task: &mut Context<'_>,
        backend: &mut BackendConnection,
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        if self.at == self.input.len() {
            self.input.clear();
            self.at = 0;
        }
        if self.input.capacity() == 0 {
            // A backend that takes its time costs no buffer.
            ready!(backend.stream.poll_readable(task));
            self.input = if self.was_full { buffers.large() } else { buffers.small() };
        } else if self.was_full && self.input.is_empty() && self.input.capacity() < LARGE {
            buffers.give_back(std::mem::replace(&mut self.input, buffers.large()));
        } else if self.input.len() == self.input.capacity() {
            // A head that is larger than the buffer.
            self.input.reserve(self.input.len());
        }
        let room = self.input.capacity() - self.input.len();
        let stream = Pin::new(&mut backend.stream);
        match poll_read_buf(stream, task, &mut (&mut self.input).limit(room)) {
            Poll::Ready(result) => {
                let count = result?;
                self.has_begun = true;
                self.was_full |= count == room;
                Poll::Ready(Ok(count))
            }
            Poll::Pending => {
                // Whoever reads next has a buffer that is in the processor's cache.
                if self.input.is_empty() {
                    buffers.give_back(std::mem::take(&mut self.input));
                }
                Poll::Pending
            }
        }
    }

    /// Decodes some of the body, reading more of it if there is nothing to decode. To be called while all that
    /// was decoded before is written.
    ///
    /// # Errors
    ///
    /// Why the rest does not come.
    pub fn poll_body(
        &mut self,
        task: &mut Context<'_>,
        backend: &mut BackendConnection,
        plan: &ResponsePlan,
        buffers: &Buffers,
    ) -> Poll<Result<(), Broken>> {
        if self.at == self.input.len() {
            match ready!(self.poll_fill(task, backend, buffers)) {
                Ok(0) => {
                    backend.state.end_of_input()?;
                    self.end(plan);
                    return Poll::Ready(Ok(()));
                }
                Ok(_) => {}
                // Not the end of a body that ends with its connection, either.
                Err(error) => {
                    let cut = ResponseError::BodyCut;
                    return Poll::Ready(Err(Broken { error: cut, source: Some(error) }));
                }
            }
        }
        Poll::Ready(self.decode(backend, plan).map_err(Broken::from))
    }

    /// Moves some of a long body, which passes as it is, from the backend's socket into a pipe. To be called while
    /// all that was decoded before is written. None: it is to be read instead.
    ///
    /// # Errors
    ///
    /// Why the rest does not come.
    pub fn poll_splice(
        &mut self,
        task: &mut Context<'_>,
        backend: &mut BackendConnection,
        plan: &ResponsePlan,
        buffers: &Buffers,
    ) -> Option<Poll<Result<(), Broken>>> {
        if self.at < self.input.len() || plan.makes_chunks {
            return None;
        }
        let left = backend.state.body().announced()?;
        let socket = backend.stream.plain()?;
        let polled = buffers.pipes.poll_fill(&mut self.pipe, task, socket, left)?;
        if self.input.capacity() > 0 {
            buffers.give_back(std::mem::take(&mut self.input));
            self.at = 0;
        }
        Some(polled.map(|moved| match moved {
            Ok(0) => Ok(backend.state.end_of_input()?),
            Ok(count) => {
                self.content += count as u64;
                backend.state.pass_body(count);
                self.is_over = backend.state.is_over();
                Ok(())
            }
            Err(error) => Err(Broken { error: ResponseError::BodyCut, source: Some(error) }),
        }))
    }

    /// Decodes what was read. Does nothing once the response is over.
    ///
    /// # Errors
    ///
    /// When it is malformed.
    pub fn decode(
        &mut self,
        backend: &mut BackendConnection,
        plan: &ResponsePlan,
    ) -> Result<(), ResponseError> {
        if self.is_over {
            return Ok(());
        }
        if backend.state.is_over() {
            self.end(plan);
            return Ok(());
        }
        let rest = self.input.get(self.at..).unwrap_or_default();
        let decoded = backend.state.read_body(rest, plan.output)?;
        let data = decoded.data(rest);
        self.content += decoded.content as u64;
        if plan.makes_chunks {
            if let Some(size) = chunk_size(data.len()) {
                for part in [size.as_bytes(), data, b"\r\n"] {
                    self.pending.extend_from_slice(part);
                }
            }
        } else if self.written < self.pending.len() && data.len() <= MAX_COPIED {
            self.pending.extend_from_slice(data);
        } else {
            let start = self.at + decoded.skipped;
            self.chunk = start..start + decoded.passed;
        }
        self.at += decoded.consumed();
        match decoded.end {
            End::No => {}
            End::Complete => self.end(plan),
            End::Trailers => {
                self.end(plan);
                if plan.output == Output::Chunks {
                    if let Some(chunk) = self.input.get(std::mem::take(&mut self.chunk)) {
                        self.pending.extend_from_slice(chunk);
                    }
                    let trailers = backend.state.body().trailers();
                    encode::trailers(&mut self.pending, trailers.filter(|_| self.takes_trailers));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, plan: &ResponsePlan) {
        self.is_over = true;
        if plan.makes_chunks {
            self.pending.extend_from_slice(LAST_CHUNK);
        }
    }

    /// Writes some of what waits for the client, and returns how many bytes.
    ///
    /// # Errors
    ///
    /// The client is gone.
    pub fn poll_write(
        &mut self,
        task: &mut Context<'_>,
        client: &mut ClientIo,
    ) -> Poll<io::Result<usize>> {
        if let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held() > 0)
            && let Some(socket) = client.stream().plain()
        {
            return pipe.poll_drain(task, socket);
        }
        let pending = self.pending.get(self.written..).unwrap_or_default();
        let chunk = self.input.get(self.chunk.clone()).unwrap_or_default();
        let count = ready!(write_parts(client.stream(), task, pending, chunk))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_pending = count.min(pending.len());
        self.written += of_pending;
        self.chunk.start += count - of_pending;
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
        }
        Poll::Ready(Ok(count))
    }

    /// Encrypted bytes may still wait for room in the socket.
    ///
    /// # Errors
    ///
    /// The client is gone.
    pub fn poll_flush(task: &mut Context<'_>, client: &mut ClientIo) -> Poll<io::Result<()>> {
        Pin::new(client.stream()).poll_flush(task)
    }
}
