//! The client's request body on its way to the backend.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::connection::{BodyState, Connection, Paced};
use crate::fields::trailers;

mod returning;

use returning::Kept;
pub use returning::{Home, Returning};

/// A backend that does not know `Expect` waits for the body without saying so. This is how long
/// the body is held back for it at most (RFC 9110 10.1.1: a client should not wait for ever either).
const EXPECT_PATIENCE: Duration = Duration::from_secs(1);

/// How long the body is held back for a backend that may be silent for `limit`: it has to be left time
/// for its answer, or it would be blamed for our waiting.
fn patience(limit: Option<Duration>) -> Duration {
    limit.map_or(EXPECT_PATIENCE, |limit| EXPECT_PATIENCE.min(limit / 2))
}

/// The body of a request to a backend.
#[derive(Debug)]
pub enum RequestBody {
    /// There is none.
    Empty,
    /// The client's, as it comes in.
    Streaming(Box<StreamingRequest>),
    /// The same, and it comes back if it was not wanted. Boxed: requests are moved a lot.
    Returning(Box<Returning>),
}

/// A request body that is still being received.
#[derive(Debug)]
pub struct StreamingRequest {
    /// What was read before, and is to be read again.
    again: VecDeque<Kept>,
    incoming: Incoming,
    connection: Arc<Connection>,
    limit: Option<Duration>,
    /// Bytes that may still come.
    left: u64,
    pace: Option<Paced>,
    gate: Option<(Arc<Gate>, Pin<Box<Sleep>>)>,
}

/// What a client's body may not exceed.
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyLimits {
    /// Silence.
    pub silence: Option<Duration>,
    /// Bytes in all.
    pub max: Option<u64>,
    /// Bytes a second while it is waited for, and the patience with fewer.
    pub min_rate: Option<(u32, Duration)>,
}

/// Why a request body did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// The client broke off or sent what is no body.
    #[error("the body of the request broke off")]
    Broken(#[source] hyper::Error),
    /// It is longer than allowed.
    #[error("the body of the request is too long")]
    TooLarge,
}

impl RequestBody {
    /// Wraps the client's body. `gate`, if any, holds it back until the backend wants it.
    pub fn new(
        incoming: Incoming,
        connection: &Arc<Connection>,
        limits: BodyLimits,
        gate: Option<Arc<Gate>>,
    ) -> Self {
        if incoming.is_end_stream() {
            connection.set_body_state(BodyState::Complete);
            return Self::Empty;
        }
        connection.set_body_state(BodyState::Moving);
        let connection = Arc::clone(connection);
        let gate = gate.map(|gate| (gate, Box::pin(tokio::time::sleep(patience(limits.silence)))));
        Self::Streaming(Box::new(StreamingRequest {
            again: VecDeque::new(),
            incoming,
            connection,
            limit: limits.silence,
            left: limits.max.unwrap_or(u64::MAX),
            pace: limits.min_rate.map(|(rate, patience)| Paced::new(rate, patience)),
            gate,
        }))
    }

    /// Sets what the options of the host say, before anything is read: how long it may be silent,
    /// and how long it may be, if they say that.
    pub fn restrict(&mut self, silence: Option<Duration>, max: Option<u64>) {
        if let Self::Streaming(body) = self {
            body.limit = silence;
            if let Some((_, sleep)) = &mut body.gate {
                sleep.as_mut().reset(Instant::now() + patience(silence));
            }
            body.left = max.unwrap_or(body.left);
        }
    }

    /// Looks at the length that the client has announced, if it has.
    ///
    /// # Errors
    ///
    /// When it is known to be too large.
    pub fn check_length(&self) -> Result<(), RequestBodyError> {
        match self {
            Self::Streaming(body) if body.incoming.size_hint().lower() > body.left => {
                Err(RequestBodyError::TooLarge)
            }
            _ => Ok(()),
        }
    }

    /// Has the body come back to the second part if it is dropped with little of it read.
    pub fn returning(mut self) -> (Self, Home) {
        let body = match &mut self {
            Self::Empty => return (self, Home::Empty),
            Self::Streaming(_) => None,
            // It was on its way before, and not sent.
            Self::Returning(body) => body.unread(),
        };
        match (self, body) {
            (Self::Streaming(body), _) | (_, Some(body)) => {
                let (body, home) = Returning::new(body);
                (Self::Returning(Box::new(body)), home)
            }
            (body, None) => (body, Home::None),
        }
    }

    fn streaming(&self) -> Option<&StreamingRequest> {
        match self {
            Self::Empty => None,
            Self::Streaming(body) => Some(body),
            Self::Returning(body) => body.body(),
        }
    }

    /// Whether there is nothing to send, so that the request can be sent again.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Streaming(body) => body.poll_frame(cx),
            Self::Returning(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.streaming().is_none_or(StreamingRequest::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.streaming().map_or_else(|| SizeHint::with_exact(0), StreamingRequest::size_hint)
    }
}

impl StreamingRequest {
    fn is_end_stream(&self) -> bool {
        self.again.is_empty() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.incoming.size_hint();
        let again: u64 = self.again.iter().map(|kept| kept.len() as u64).sum();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + again);
        }
        hint.set_lower(hint.lower() + again);
        hint
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let body = self;
        if let Some(kept) = body.again.pop_front() {
            return Poll::Ready(Some(Ok(kept.into())));
        }
        if let Some((gate, patience)) = &mut body.gate {
            if gate.poll_open(cx).is_pending() && patience.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            body.gate = None;
        }
        let mut result = Pin::new(&mut body.incoming).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut result
            && let Some(fields) = frame.trailers_mut()
        {
            trailers::strip(fields);
            if fields.is_empty() {
                // Behind trailers there is the end.
                result = Pin::new(&mut body.incoming).poll_frame(cx);
            }
        }
        match &result {
            Poll::Pending => {
                body.connection.set_body_state(BodyState::Waiting);
                body.connection.turn.await_client();
                if let Some(pace) = &mut body.pace {
                    pace.wait(&body.connection);
                }
            }
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                let Some(left) = body.left.checked_sub(length as u64) else {
                    body.connection.set_body_state(BodyState::TooLarge);
                    return Poll::Ready(Some(Err(RequestBodyError::TooLarge)));
                };
                body.left = left;
                body.connection.allow_for(body.limit);
                if let Some(pace) = &mut body.pace {
                    pace.received(length, &body.connection);
                }
                body.connection.set_body_state(if body.incoming.is_end_stream() {
                    BodyState::Complete
                } else {
                    BodyState::Moving
                });
            }
            Poll::Ready(Some(Err(_))) => body.connection.set_body_state(BodyState::Broken),
            Poll::Ready(None) => body.connection.set_body_state(BodyState::Complete),
        }
        result.map_err(RequestBodyError::Broken)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::patience;

    #[test]
    fn a_body_is_held_back_for_half_the_time_that_the_backend_has() {
        for (limit, expected) in
            [(None, 1000), (Some(30_000), 1000), (Some(2000), 1000), (Some(800), 400), (Some(0), 0)]
        {
            let seen = patience(limit.map(Duration::from_millis));
            assert_eq!(seen, Duration::from_millis(expected), "{limit:?}");
        }
    }
}
