//! The backend's response body on its way to the client, and what has to happen when it ends.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::access_log::Record;
use crate::connection::Connection;
use crate::fields::trailers;
use crate::route::Millis;
use crate::upstream::Lease;

/// nginx's status for a client that went away before its answer; it is only ever logged.
const CLIENT_CLOSED_REQUEST: u16 = 499;
/// Sees to it that a request is logged once its answer is complete or given up.
#[derive(Debug)]
pub struct RequestLog {
    connection: Arc<Connection>,
    record: Option<Box<Record>>,
    is_answered: bool,
}

impl RequestLog {
    /// Watches over the current request of `connection`; without a `record` nothing is written.
    pub fn new(connection: &Arc<Connection>, record: Option<Box<Record>>) -> Self {
        Self { connection: Arc::clone(connection), record, is_answered: false }
    }

    /// What will be written.
    pub fn record(&mut self) -> Option<&mut Record> {
        self.record.as_deref_mut()
    }

    /// Writes nothing for this request.
    pub fn forget(&mut self) {
        self.record = None;
    }

    /// Takes the record over, for a tunnel that logs its own end.
    pub fn take(&mut self) -> Option<Box<Record>> {
        self.record.take()
    }

    /// Notes the status that the client gets.
    pub fn answer(&mut self, status: StatusCode) {
        self.is_answered = true;
        if let Some(record) = &mut self.record {
            record.status = status;
        }
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        if let Some(record) = &mut self.record
            && !self.is_answered
        {
            record.status =
                StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST);
        }
        self.connection.finish(self.record.take());
    }
}

/// The body of a response to a client, with what has to happen when it ends.
#[derive(Debug)]
pub struct ResponseBody {
    content: Content,
    // Behind `content`: the backend's connection is let go before the request counts as finished.
    log: RequestLog,
}

enum Content {
    Empty,
    Full(Bytes),
    Upstream(Box<UpstreamContent>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Full(_) => "Full",
            Self::Upstream(_) => "Upstream",
        })
    }
}

struct UpstreamContent {
    incoming: Incoming,
    lease: Option<Lease>,
    limit: Option<Duration>,
    now: Millis,
}

/// Why a response body broke off.
#[derive(Debug, thiserror::Error)]
pub enum ResponseBodyError {
    /// The backend's body ended early or was malformed.
    #[error("the response body of the backend broke off")]
    Broken(#[source] hyper::Error),
    /// The backend was silent for too long.
    #[error("the backend stopped sending its response")]
    TimedOut,
}

impl ResponseBody {
    /// No body.
    pub fn empty(log: RequestLog) -> Self {
        Self { content: Content::Empty, log }
    }

    /// A body of our own.
    pub fn full(bytes: Bytes, log: RequestLog) -> Self {
        Self { content: Content::Full(bytes), log }
    }

    /// The body of a backend's response. `limit` is how long the backend may be silent. The
    /// connection goes back to its pool when the body is complete; `now` is the time to count
    /// its idleness from.
    pub fn upstream(
        incoming: Incoming,
        lease: Lease,
        limit: Option<Duration>,
        now: Millis,
        log: RequestLog,
    ) -> Self {
        if incoming.is_end_stream() {
            lease.give_back(now, &mut Context::from_waker(Waker::noop()));
            log.connection.turn.end();
            return Self::empty(log);
        }
        let content = UpstreamContent { incoming, lease: Some(lease), limit, now };
        Self { content: Content::Upstream(Box::new(content)), log }
    }
}

impl UpstreamContent {
    fn poll_frame(
        &mut self,
        connection: &Connection,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let mut polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_pending()
            && let Some(lease) = &mut self.lease
        {
            let _ended = lease.exchange().drive(cx);
            polled = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        connection.turn.await_backend(polled.is_pending());
        match polled {
            Poll::Ready(Some(Ok(mut frame))) => {
                connection.allow_for(self.limit);
                if let Some(fields) = frame.trailers_mut() {
                    trailers::strip(fields);
                    if fields.is_empty() {
                        // Behind trailers there is the end.
                        return self.poll_frame(connection, cx);
                    }
                }
                // Behind trailers nobody asks for more.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.give_back(connection, cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.lease = None;
                Poll::Ready(Some(Err(ResponseBodyError::Broken(error))))
            }
            Poll::Ready(None) => {
                self.give_back(connection, cx);
                Poll::Ready(None)
            }
            Poll::Pending if connection.has_expired() => {
                self.lease = None;
                Poll::Ready(Some(Err(ResponseBodyError::TimedOut)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn give_back(&mut self, connection: &Connection, cx: &mut Context<'_>) {
        if let Some(lease) = self.lease.take() {
            lease.give_back(self.now, cx);
            // Only now: whoever waits for the turn finds the connection.
            connection.turn.end();
        }
    }
}

impl Drop for ResponseBody {
    /// A connection that is still leased has more to bring, which nobody takes any more.
    fn drop(&mut self) {
        if let Content::Upstream(content) = &self.content
            && content.lease.is_some()
        {
            self.log.connection.note_cut();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let this = &mut *self;
        match &mut this.content {
            Content::Empty => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.content = Content::Empty;
                this.log.connection.body_handed_on(bytes.len());
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Upstream(content) => {
                let polled = content.poll_frame(&this.log.connection, cx);
                if let Poll::Ready(Some(Ok(frame))) = &polled {
                    this.log.connection.body_handed_on(frame.data_ref().map_or(0, Bytes::len));
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(_) => false,
            Content::Upstream(content) => content.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Upstream(content) => content.incoming.size_hint(),
        }
    }
}
