//! One request to a backend of HTTP/2, as a connection of HTTP/1.1: the request is written, then its response
//! is read.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::upgrade::OnUpgrade;
use shared::backend::Scheme;
use shared::time_limit;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body_writer::BodyWriter;
use super::frames::{FrameBody, channel};
use super::handshake::{Sender, is_refusal};
use super::message_reader::MessageReader;
use super::sharing::StreamSlot;
use super::tunnel::Tunnel;
use super::{from_backend, to_backend};
use crate::http1::framing;
use crate::http1::head::{HeadLimits, HeadScan, Method, RequestHead};
use crate::http1::known::KnownField;

/// Bytes of a request head, which the router has encoded from one that was within its own limits.
const MAX_HEAD: usize = 4 * 1024 * 1024;
/// Field lines of an ordinary head. More cost the parser an allocation.
const USUAL_FIELDS: usize = 100;
/// How long the end of a stream is waited for whose response is complete by its length. To reset it would
/// count against the connection with backends that take resets for an attack (CVE-2023-44487).
const END_WITHIN: Duration = Duration::from_secs(1);

/// The backend has processed nothing of a request and never will (RFC 9113 8.7), or nothing of it was sent.
#[derive(Debug, thiserror::Error)]
#[error("the backend did not process the request")]
struct Refused(#[source] hyper::Error);

/// Whether an error of a [`BackendStream`] says that nothing of the request was processed, so that any
/// request may be sent again.
pub fn is_refused(error: &io::Error) -> bool {
    error.get_ref().and_then(|error| error.downcast_ref::<Refused>()).is_some()
}

type ResponseFuture = Pin<Box<dyn Future<Output = io::Result<Response<Incoming>>> + Send>>;

/// A stream of HTTP/2 that carries one request and its response. The response ends with the stream: what is
/// read behind it is its end.
///
/// A request that waits for room, such as a body that the backend does not take, is pending. A failed write says
/// that the backend takes no more of the request; why is what the read says. An error of a read is `is_refused`
/// or not, and then what came before was a part of the response.
///
/// Dropping it before the response is complete resets the stream, and counts as given up on its slot.
pub struct BackendStream {
    sender: Sender,
    scheme: Scheme,
    is_websocket: bool,
    slot: Option<StreamSlot>,
    request: RequestState,
    response: ResponseState,
    /// Behind the head of the `101` that begins it.
    tunnel: Option<Tunnel>,
    /// What waits for the other direction: a read for the request, a write for the tunnel.
    waker: Option<Waker>,
}

/// The request, as far as it was written.
#[derive(Debug)]
enum RequestState {
    Head(Vec<u8>, HeadScan),
    Body(BodyWriter),
}

/// The response, as far as it has come.
enum ResponseState {
    /// The request was not sent yet.
    Unasked,
    Awaited {
        future: ResponseFuture,
        method: Method,
        key: Vec<u8>,
    },
    Message(MessageReader<Incoming>),
    Failed,
}

impl BackendStream {
    /// For the next request on a connection, which `slot` counts if others share it. `is_websocket`: the request
    /// asks for a WebSocket, and a success becomes a `101`.
    pub fn new(
        sender: Sender,
        scheme: Scheme,
        slot: Option<StreamSlot>,
        is_websocket: bool,
    ) -> Self {
        Self {
            sender,
            scheme,
            is_websocket,
            slot,
            request: RequestState::Head(Vec::new(), HeadScan::default()),
            response: ResponseState::Unasked,
            tunnel: None,
            waker: None,
        }
    }

    fn wake_other_direction(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Takes bytes of the head; sends the request once that is whole. Returns how many belong to it.
    fn write_head(&mut self, input: &[u8]) -> io::Result<usize> {
        let RequestState::Head(text, scan) = &mut self.request else { return Ok(0) };
        let before = text.len();
        text.extend_from_slice(input);
        if !scan.is_due(text, MAX_HEAD) {
            return Ok(input.len());
        }
        let mut head = RequestHead::default();
        let lines = memchr::memchr_iter(b'\n', text).count();
        let limits = HeadLimits {
            max_bytes: MAX_HEAD,
            max_fields: lines.max(USUAL_FIELDS),
            max_target: usize::MAX,
        };
        let Some(length) = head.parse(text, &limits).map_err(io::Error::other)? else {
            return Ok(input.len());
        };
        let mut text = std::mem::take(text);
        text.truncate(length);
        self.send(&head, &Bytes::from(text))?;
        Ok(length.saturating_sub(before))
    }

    fn send(&mut self, head: &RequestHead, text: &Bytes) -> io::Result<()> {
        let framing = framing::of_request(head, text).map_err(io::Error::other)?;
        let request = to_backend::request(head, text, self.scheme, self.is_websocket)?;
        let (frames, body) = channel(h2::Reason::CANCEL);
        let writer = BodyWriter::new(framing.body, frames);
        let key = match self.is_websocket {
            true => head.fields.value(KnownField::SecWebSocketKey, text).unwrap_or_default(),
            false => &[],
        };
        let sent = self.sender.try_send_request(request.map(|()| body));
        self.response = ResponseState::Awaited {
            future: Box::pin(async move { sent.await.map_err(classify) }),
            method: head.method,
            key: key.to_vec(),
        };
        self.request = RequestState::Body(writer);
        self.wake_other_direction();
        Ok(())
    }

    /// Waits for the head of the response.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ResponseState::Awaited { future, method, key } = &mut self.response else {
            return Poll::Ready(Ok(()));
        };
        let result = ready!(future.as_mut().poll(cx));
        if let Some(slot) = &self.slot {
            slot.usage().record_response();
        }
        let (method, key) = (*method, std::mem::take(key));
        self.response = ResponseState::Failed;
        let (mut parts, body) = result?.into_parts();
        let (head, framing) = match self.is_websocket && parts.status.is_success() {
            true => {
                let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
                    let error = "an answer that begins no WebSocket";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                };
                self.tunnel = Some(Tunnel::Opening(upgrade));
                (from_backend::switch(&parts, &key), framing::BodyKind::None)
            }
            false => from_backend::response(&parts, method, body.is_end_stream()),
        };
        self.response = ResponseState::Message(MessageReader::new(head, body, framing));
        self.wake_other_direction();
        Poll::Ready(Ok(()))
    }

    fn finish_slot(&mut self) {
        if let ResponseState::Message(message) = &self.response
            && message.is_complete()
            && let Some(slot) = &mut self.slot
        {
            slot.finish();
        }
    }
}

/// What the failure of a request means.
fn classify(mut error: TrySendError<http::Request<FrameBody>>) -> io::Error {
    let was_sent = error.take_message().is_none();
    let error = error.into_error();
    if was_sent && !is_refusal(&error) {
        return io::Error::new(io::ErrorKind::ConnectionReset, error);
    }
    io::Error::new(io::ErrorKind::ConnectionRefused, Refused(error))
}

impl AsyncRead for BackendStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_response(cx))?;
        match &mut this.response {
            ResponseState::Unasked | ResponseState::Awaited { .. } => {
                this.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            ResponseState::Failed => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            ResponseState::Message(message) => match &mut this.tunnel {
                Some(tunnel) if message.is_over() => {
                    ready!(tunnel.poll_open(cx))?.poll_read(cx, buf)
                }
                _ => {
                    let polled = message.poll_read(cx, buf);
                    this.finish_slot();
                    polled
                }
            },
        }
    }
}

impl AsyncWrite for BackendStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        input: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(tunnel) = &mut this.tunnel {
            return ready!(tunnel.poll_open(cx))?.poll_write(cx, input);
        }
        let of_head = this.write_head(input)?;
        let rest = input.get(of_head..).unwrap_or_default();
        let RequestState::Body(body) = &mut this.request else { return Poll::Ready(Ok(of_head)) };
        if rest.is_empty() {
            return Poll::Ready(Ok(of_head));
        }
        if this.is_websocket && matches!(this.response, ResponseState::Awaited { .. }) {
            // It belongs to the tunnel, if there will be one.
            this.waker = Some(cx.waker().clone());
            return if of_head > 0 { Poll::Ready(Ok(of_head)) } else { Poll::Pending };
        }
        match body.poll_write(cx, rest) {
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

    /// Waits until the library has taken everything.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match (&mut this.tunnel, &this.request) {
            (Some(tunnel), _) => ready!(tunnel.poll_open(cx))?.poll_flush(cx),
            (None, RequestState::Body(body)) => body.poll_flush(cx).map(Ok),
            (None, RequestState::Head(..)) => Poll::Ready(Ok(())),
        }
    }

    /// Ends the request. One that is not whole is cut, and its stream reset.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match (&mut this.tunnel, &mut this.request) {
            (Some(tunnel), _) => return ready!(tunnel.poll_open(cx))?.poll_shutdown(cx),
            (None, RequestState::Body(body)) => body.end(),
            (None, RequestState::Head(..)) => this.response = ResponseState::Failed,
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for BackendStream {
    fn drop(&mut self) {
        if let ResponseState::Message(message) = &mut self.response
            && message.is_complete()
            && let Some(mut body) = message.take_body()
            && !body.is_end_stream()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let slot = self.slot.take();
            drop(runtime.spawn(async move {
                let _end = time_limit::timeout(END_WITHIN, body.frame()).await;
                drop(slot);
            }));
        }
    }
}

impl fmt::Debug for BackendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_tunnel = self.tunnel.is_some();
        f.debug_struct("BackendStream")
            .field("slot", &self.slot)
            .field("request", &self.request)
            .field("is_tunnel", &is_tunnel)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
