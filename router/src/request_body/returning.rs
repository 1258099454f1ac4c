//! A request body that comes back if nobody wanted it: what was read of it is kept, as far as that is little.
//!
//! A backend of HTTP/2 may say that it has not processed a request that is on its way already (RFC 9113
//! 8.7), and does so whenever it ends a connection in good order. Such a request can be sent again.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::sync::oneshot;

use super::{RequestBody, RequestBodyError, StreamingRequest};

/// Bytes that are kept of a body at most. One of which more was read does not come back.
const MAX_KEPT: usize = 64 * 1024;

/// Where a body comes back to.
#[derive(Debug, Default)]
pub enum Home {
    /// Nowhere: it is lost once it was read.
    #[default]
    None,
    /// There is no body.
    Empty,
    /// Here. An error is that it does not come.
    Here(oneshot::Receiver<RequestBody>),
}

/// A body that comes back when it is dropped.
#[derive(Debug)]
pub struct Returning {
    /// None once it is on its way home.
    body: Option<Box<StreamingRequest>>,
    kept: Vec<Kept>,
    bytes: usize,
    /// None once too much of it was read, or an error.
    home: Option<oneshot::Sender<RequestBody>>,
}

/// A part of a body that was read.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Returning {
    pub(super) fn new(body: Box<StreamingRequest>) -> (Self, Home) {
        let (home, receiver) = oneshot::channel();
        let body = Self { body: Some(body), kept: Vec::new(), bytes: 0, home: Some(home) };
        (body, Home::Here(receiver))
    }

    /// The body, if nothing of it was read.
    pub(super) fn unread(&mut self) -> Option<Box<StreamingRequest>> {
        if self.bytes > 0 || !self.kept.is_empty() { None } else { self.body.take() }
    }

    pub(super) fn body(&self) -> Option<&StreamingRequest> {
        self.body.as_deref()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(body.poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.keep(frame),
            Some(Err(_)) => self.stay(),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        // Once there is an answer nobody waits at home.
        if self.home.as_ref().is_none_or(oneshot::Sender::is_closed) {
            return self.stay();
        }
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Kept::Data(data.clone()),
            (None, Some(trailers)) => Kept::Trailers(trailers.clone()),
            (None, None) => return,
        };
        self.bytes += kept.len();
        if self.bytes > MAX_KEPT {
            return self.stay();
        }
        self.kept.push(kept);
    }

    fn stay(&mut self) {
        self.home = None;
        self.kept = Vec::new();
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        if let (Some(home), Some(mut body)) = (self.home.take(), self.body.take()) {
            // What had come back before and was not read yet stands behind what was.
            for kept in std::mem::take(&mut self.kept).into_iter().rev() {
                body.again.push_front(kept);
            }
            let _nobody_waits = home.send(RequestBody::Streaming(body));
        }
    }
}

impl Kept {
    /// Bytes of content.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }
}

impl From<Kept> for Frame<Bytes> {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::Data(data) => Self::data(data),
            Kept::Trailers(trailers) => Self::trailers(trailers),
        }
    }
}
