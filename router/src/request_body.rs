//! The client's request body on its way to the backend.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::connection::{BodyState, Connection};

/// A backend that does not know `Expect` waits for the body without saying so. This is how long
/// the body is held back for it (RFC 9110 10.1.1: a client should not wait for ever either).
const EXPECT_PATIENCE: Duration = Duration::from_secs(1);

/// The body of a request to a backend.
#[derive(Debug)]
pub enum RequestBody {
    /// There is none.
    Empty,
    /// The client's, as it comes in.
    Streaming(Box<StreamingRequest>),
}

/// A request body that is still being received.
#[derive(Debug)]
pub struct StreamingRequest {
    incoming: Incoming,
    connection: Arc<Connection>,
    limit: Option<Duration>,
    gate: Option<(Arc<Gate>, Pin<Box<Sleep>>)>,
}

impl RequestBody {
    /// Wraps the client's body. `limit` is how long it may be silent; `gate`, if any, holds it
    /// back until the backend wants it.
    pub fn new(
        incoming: Incoming,
        connection: &Arc<Connection>,
        limit: Option<Duration>,
        gate: Option<Arc<Gate>>,
    ) -> Self {
        if incoming.is_end_stream() {
            connection.set_body_state(BodyState::Complete);
            return Self::Empty;
        }
        connection.set_body_state(BodyState::Moving);
        let connection = Arc::clone(connection);
        let gate = gate.map(|gate| (gate, Box::pin(tokio::time::sleep(EXPECT_PATIENCE))));
        Self::Streaming(Box::new(StreamingRequest { incoming, connection, limit, gate }))
    }

    /// Whether there is nothing to send, so that the request can be sent again.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self::Streaming(body) = &mut *self else {
            return Poll::Ready(None);
        };
        if let Some((gate, patience)) = &mut body.gate {
            if gate.poll_open(cx).is_pending() && patience.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            body.gate = None;
        }
        let result = Pin::new(&mut body.incoming).poll_frame(cx);
        match &result {
            Poll::Pending => body.connection.set_body_state(BodyState::Waiting),
            Poll::Ready(Some(Ok(_))) => {
                body.connection.allow_for(body.limit);
                body.connection.set_body_state(if body.incoming.is_end_stream() {
                    BodyState::Complete
                } else {
                    BodyState::Moving
                });
            }
            Poll::Ready(Some(Err(_))) => body.connection.set_body_state(BodyState::Broken),
            Poll::Ready(None) => body.connection.set_body_state(BodyState::Complete),
        }
        result
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(body) => body.incoming.size_hint(),
        }
    }
}

/// Holds back a request body until the backend says `100 Continue`.
#[derive(Debug, Default)]
pub struct Gate {
    is_open: AtomicBool,
    was_noticed: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Gate {
    /// Lets the body through.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Release);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    /// Whether it was opened since this was asked last.
    pub fn was_just_opened(&self) -> bool {
        self.is_open.load(Ordering::Acquire) && !self.was_noticed.swap(true, Ordering::Relaxed)
    }

    fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_open.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        Poll::Pending
    }
}
