//! One request of a client of HTTP/2, as a connection of HTTP/1.1: the request is read, then its response is
//! written.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::body_writer::BodyWriter;
use super::error::EdgeError;
use super::frames::{FrameBody, FrameProbe, FrameSender, channel};
use super::from_client::{self, Translated};
use super::message_reader::MessageReader;
use super::tunnel::Tunnel;
use super::{to_client, websocket};
use crate::http1::client::{Asked, Connection, HeadStep};
use crate::http1::head::{HeadLimits, Method, ResponseHead};

/// Bytes of a response head, which the router has encoded from one that was within its own limits.
const MAX_HEAD: usize = 4 * 1024 * 1024;
/// Bytes of a write that are searched for the end of a head.
const HEAD_PART: usize = 16 * 1024;
/// Field lines of an ordinary head. More cost the parser an allocation.
const USUAL_FIELDS: usize = 100;

/// A stream of HTTP/2 that carries one request and its response.
///
/// Reading gives the request; behind its end a read is pending, for the client is still there, until the
/// response has been delivered: then the stream is over. A body that breaks off is an error.
///
/// Writing takes the response. Informational ones are left out, for the library cannot send them. A flush waits
/// until the library has taken everything. Dropping it before the response is complete resets the stream.
pub struct ClientStream {
    request: MessageReader<Incoming>,
    response: ResponseState,
    websocket: Option<WebSocket>,
    tunnel: Option<Tunnel>,
    /// A read that waits for the end of the response.
    reader: Option<Waker>,
}

/// A request that has come.
#[derive(Debug)]
pub struct Opened {
    /// The request, and the way of its response.
    pub stream: ClientStream,
    /// Why it has to be refused, whatever its head says. That can be read all the same, for the access log.
    pub refusal: Option<EdgeError>,
}

/// The other end of a [`ClientStream`]: its response, for the library.
#[derive(Debug)]
pub(super) struct Responder {
    /// The response, once its head was written. An error is that there will be none.
    pub(super) response: oneshot::Receiver<Response<FrameBody>>,
    /// Whether all of it was written.
    pub(super) probe: FrameProbe,
}

/// A request for a tunnel (RFC 8441).
#[derive(Debug)]
struct WebSocket {
    key: String,
    upgrade: OnUpgrade,
}

/// The response, as far as it was written.
enum ResponseState {
    Head(Box<AwaitedHead>),
    Body(BodyWriter),
    Failed,
}

/// A response of which no final head was written.
struct AwaitedHead {
    text: Vec<u8>,
    state: Connection,
    head: ResponseHead,
    frames: FrameSender,
    body: FrameBody,
    respond: oneshot::Sender<Response<FrameBody>>,
}

/// Opens the stream of a request. One with more than `max_fields` field lines is refused; one that is refused
/// already, for `refusal`, says no more than what is logged.
pub(super) fn open(
    mut request: Request<Incoming>,
    refusal: Option<EdgeError>,
    max_fields: usize,
    random: impl FnOnce() -> [u8; 16],
) -> (Opened, Responder) {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let Translated { head, framing, key, refusal } = match refusal {
        Some(error) => from_client::refused(&parts, error),
        None => from_client::request(&parts, body.is_end_stream(), max_fields, random),
    };
    let method = match key {
        Some(_) => Method::Get,
        None => Method::of(parts.method.as_str().as_bytes()),
    };
    let (frames, content) = channel(h2::Reason::INTERNAL_ERROR);
    let (respond, response) = oneshot::channel();
    let responder = Responder { response, probe: frames.probe() };
    let mut state = Connection::default();
    state.begin(Asked { method, close: false, upgrade: key.is_some() });
    // The request is there; a response may come.
    state.wrote(0, true);
    let awaited = AwaitedHead {
        text: Vec::new(),
        state,
        head: ResponseHead::default(),
        frames,
        body: content,
        respond,
    };
    let stream = ClientStream {
        request: MessageReader::new(head, body, framing),
        response: ResponseState::Head(Box::new(awaited)),
        websocket: key.map(|key| WebSocket { key, upgrade }),
        tunnel: None,
        reader: None,
    };
    (Opened { stream, refusal }, responder)
}

/// What became of the bytes of a head.
enum Written {
    /// So many were taken, and more are to come.
    Partly(usize),
    /// The last of them; what follows is the body or the tunnel.
    Whole(usize),
}

impl AwaitedHead {
    /// Takes bytes up to the end of the final head.
    fn write(&mut self, input: &[u8]) -> io::Result<(Written, HeadStep)> {
        let part = input.get(..HEAD_PART).unwrap_or(input);
        self.text.extend_from_slice(part);
        let lines = memchr::memchr_iter(b'\n', &self.text).count();
        let limits = HeadLimits {
            max_bytes: MAX_HEAD,
            max_fields: lines.max(USUAL_FIELDS),
            max_target: usize::MAX,
        };
        loop {
            let step = self.state.read_head(&self.text, &mut self.head, &limits);
            let step = step.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let length = match step {
                HeadStep::Incomplete => return Ok((Written::Partly(part.len()), step)),
                HeadStep::Informational(length) => {
                    self.text.drain(..length);
                    continue;
                }
                HeadStep::Response(received) => received.consumed,
                HeadStep::Switch(length) => length,
            };
            let behind = self.text.len().saturating_sub(length);
            self.text.truncate(length);
            return Ok((Written::Whole(part.len().saturating_sub(behind)), step));
        }
    }
}

impl ClientStream {
    /// Whether a backend's `Sec-WebSocket-Accept` answers the handshake that this stream has asked for. The client
    /// sees none, so that nobody else can check it.
    pub fn accepts_websocket(&self, accept: Option<&[u8]>) -> bool {
        let key = self.websocket.as_ref().map(|websocket| websocket.key.as_bytes());
        key.zip(accept).is_some_and(|(key, accept)| websocket::accepts(key, accept))
    }

    /// Takes bytes of the head, and answers the library once that is whole.
    fn write_head(&mut self, input: &[u8]) -> io::Result<usize> {
        let ResponseState::Head(awaited) = &mut self.response else { return Ok(0) };
        let (written, step) = match awaited.write(input) {
            Ok((Written::Partly(count), _)) => return Ok(count),
            Ok((Written::Whole(count), step)) => (count, step),
            Err(error) => {
                self.response = ResponseState::Failed;
                return Err(error);
            }
        };
        let ResponseState::Head(awaited) =
            std::mem::replace(&mut self.response, ResponseState::Failed)
        else {
            return Ok(written);
        };
        let AwaitedHead { text, head, frames, body, respond, .. } = *awaited;
        let text = Bytes::from(text);
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let response = to_client::response(&head, &text).map_err(|_unwritable| invalid())?;
        let writer = match step {
            HeadStep::Response(received) => {
                // In HTTP/2 it would begin the tunnel.
                if self.websocket.is_some() && response.status().is_success() {
                    return Err(invalid());
                }
                BodyWriter::new(received.framing.body, frames)
            }
            _ => {
                use crate::http1::known::KnownField;
                let accept = head.fields.value(KnownField::SecWebSocketAccept, &text);
                if !self.accepts_websocket(accept) {
                    return Err(invalid());
                }
                let upgrade = self.websocket.take().map(|websocket| websocket.upgrade);
                self.tunnel = upgrade.map(Tunnel::Opening);
                frames.finish(HeaderMap::new());
                BodyWriter::new(crate::http1::framing::BodyKind::None, frames)
            }
        };
        self.response = ResponseState::Body(writer);
        match respond.send(response.map(|()| body)) {
            Ok(()) => Ok(written),
            Err(_reset) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Whether the response was delivered, or will not be.
    fn poll_delivered(&self, cx: &Context<'_>) -> Poll<()> {
        match &self.response {
            ResponseState::Head(_) => Poll::Pending,
            ResponseState::Body(body) if body.is_over() => body.poll_delivered(cx),
            ResponseState::Body(_) => Poll::Pending,
            ResponseState::Failed => Poll::Ready(()),
        }
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(tunnel) = &mut this.tunnel {
            return ready!(tunnel.poll_open(cx))?.poll_read(cx, buf);
        }
        if this.poll_delivered(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !this.request.is_over() {
            let before = buf.filled().len();
            ready!(this.request.poll_read(cx, buf))?;
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        this.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        input: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(tunnel) = &mut this.tunnel {
            return ready!(tunnel.poll_open(cx))?.poll_write(cx, input);
        }
        let mut of_head = 0;
        while let Some(rest) = input.get(of_head..).filter(|rest| !rest.is_empty())
            && matches!(this.response, ResponseState::Head(_))
        {
            of_head += this.write_head(rest)?;
        }
        let rest = input.get(of_head..).unwrap_or_default();
        let polled = match &mut this.response {
            _ if rest.is_empty() || this.tunnel.is_some() => Poll::Ready(Ok(0)),
            ResponseState::Body(body) => body.poll_write(cx, rest),
            ResponseState::Head(_) | ResponseState::Failed => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
        };
        this.wake_reader();
        match polled {
            Poll::Ready(Ok(count)) => Poll::Ready(Ok(of_head + count)),
            _ if of_head > 0 => Poll::Ready(Ok(of_head)),
            polled => polled,
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        super::write_each(self, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Waits until the library has taken everything and, behind the end of the response, has sent it as far as it
    /// keeps it back itself.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match (&mut this.tunnel, &this.response) {
            (Some(tunnel), _) => ready!(tunnel.poll_open(cx))?.poll_flush(cx),
            (None, ResponseState::Body(body)) => body.poll_delivered(cx).map(Ok),
            (None, ResponseState::Head(_) | ResponseState::Failed) => Poll::Ready(Ok(())),
        }
    }

    /// Ends the response; one that is not complete is cut, and its stream reset.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match (&mut this.tunnel, &mut this.response) {
            (Some(tunnel), _) => return ready!(tunnel.poll_open(cx))?.poll_shutdown(cx),
            (None, ResponseState::Body(body)) => body.end(),
            (None, state @ ResponseState::Head(_)) => *state = ResponseState::Failed,
            (None, ResponseState::Failed) => {}
        }
        this.wake_reader();
        self.poll_flush(cx)
    }
}

impl fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.response {
            _ if self.tunnel.is_some() => "tunnel",
            ResponseState::Head(_) => "no response",
            ResponseState::Body(_) => "response",
            ResponseState::Failed => "failed",
        };
        f.debug_struct("ClientStream").field("state", &state).finish_non_exhaustive()
    }
}
