//! One connection to a backend and the means to run a request on it.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use hyper::client::conn::{TrySendError, http1};
use shared::backend::Scheme;
use shared::time_limit;

use super::connect::ConnectError;
use super::http2::sharing::Place;
use super::names::Reached;
use super::socket::UpstreamIo;
use super::wire::Wire;
use super::{MAX_RESPONSE_HEAD, http2};
use crate::request_body::{Home, RequestBody};
use crate::stream::Stream;

/// The library lets go of the body of a request that was refused at once.
const RETURN_WITHIN: Duration = Duration::from_secs(1);

/// A connection and the means to run one request at a time on it.
#[derive(Debug)]
pub struct Exchange {
    pub(super) sender: Sender,
    /// None once it has ended and is not needed for a tunnel.
    pub(super) driver: Option<http1::Connection<UpstreamIo, RequestBody>>,
    wire: Arc<Wire>,
    is_done: bool,
    /// On a connection that others share.
    place: Option<Place>,
    /// Where the body of the request comes back to, if the backend does not want it.
    home: Home,
    /// Where the connection goes to.
    pub(super) reached: Reached,
    /// A client has begun to log in on it.
    pub(super) has_logged_in: bool,
}

#[derive(Debug)]
pub(super) enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    /// The scheme goes into the request.
    Http2(http2::Sender, Scheme),
    /// The same for a connection that is there for one WebSocket.
    WebSocket(http2::Sender, Scheme),
}

impl Exchange {
    pub(super) async fn over_http1(stream: Stream) -> Result<Box<Self>, ConnectError> {
        let wire = Arc::new(Wire::default());
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(MAX_RESPONSE_HEAD)
            .handshake(UpstreamIo::new(stream, Arc::clone(&wire)))
            .await
            .map_err(ConnectError::Handshake)?;
        let (sender, driver) = (Sender::Http1(sender), Some(driver));
        Ok(Box::new(Self {
            sender,
            driver,
            wire,
            is_done: false,
            place: None,
            home: Home::None,
            reached: Reached::default(),
            has_logged_in: false,
        }))
    }

    pub(super) fn over_http2(sender: Sender, place: Option<Place>) -> Box<Self> {
        let wire = Arc::default();
        Box::new(Self {
            sender,
            driver: None,
            wire,
            is_done: false,
            place,
            home: Home::None,
            reached: Reached::default(),
            has_logged_in: false,
        })
    }

    /// The request has had its answer, all of it.
    pub(super) fn finish(&mut self) {
        if let Some(place) = &mut self.place {
            place.finish();
        }
    }

    /// Whether a WebSocket was asked for by HTTP/2, so that a success is what begins it.
    pub fn is_websocket(&self) -> bool {
        matches!(self.sender, Sender::WebSocket(..))
    }

    /// Hands `request` to the connection; [`Exchange::drive`] then does the work. `records` keeps
    /// it for being sent again.
    pub fn send(
        &mut self,
        mut request: http::Request<RequestBody>,
        records: bool,
    ) -> impl Future<Output = SendResult> + use<> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                self.wire.begin(records);
                let sent = sender.try_send_request(request);
                Either::Left(async move { sent.await.map_err(SendError::from) })
            }
            Sender::WebSocket(sender, scheme) => {
                http2::encode_websocket(&mut request, *scheme);
                let sent = sender.try_send_request(request);
                Either::Right(Either::Left(async move { sent.await.map_err(SendError::from) }))
            }
            Sender::Http2(sender, scheme) => {
                self.wire.keep(&request);
                let (parts, body) = request.into_parts();
                let (body, home) = body.returning();
                self.home = home;
                let mut request = http::Request::from_parts(parts, body);
                http2::encode(&mut request, *scheme);
                let usage = self.place.as_ref().map(Place::usage);
                let sent = sender.try_send_request(request);
                Either::Right(Either::Right(async move {
                    let result = sent.await;
                    if let Some(usage) = usage {
                        usage.note_answer();
                    }
                    result.map_err(|error| match SendError::from(error) {
                        SendError::Unsent(mut request) => {
                            http2::decode(&mut request);
                            SendError::Unsent(request)
                        }
                        error @ (SendError::Broken(_) | SendError::Refused(_)) => error,
                    })
                }))
            }
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_ready(),
            Sender::Http2(sender, _) | Sender::WebSocket(sender, _) => sender.is_ready(),
        }
    }

    /// Reads and writes as far as possible without waiting; where others share the connection, a task
    /// does so. Ready when the connection has ended,
    /// by closing or by an upgrade.
    pub fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_done {
            return Poll::Ready(());
        }
        let Some(driver) = &mut self.driver else {
            return match self.sender {
                Sender::Http1(_) => Poll::Ready(()),
                Sender::Http2(..) | Sender::WebSocket(..) => Poll::Pending,
            };
        };
        match driver.poll_without_shutdown(cx) {
            Poll::Pending => Poll::Pending,
            // The error goes to the request as well, which is who can tell what it means.
            Poll::Ready(_result) => {
                self.is_done = true;
                Poll::Ready(())
            }
        }
    }

    /// Drops a connection that has ended, which hands back a request that it did not get to.
    pub fn abandon(&mut self) {
        self.is_done = true;
        self.driver = None;
    }

    /// Whether the connection has ended for HTTP, by closing or by an upgrade.
    pub fn has_ended(&self) -> bool {
        self.is_done
    }

    /// The request that the backend has refused, if all of it is there still.
    pub async fn take_back(&mut self) -> Option<http::Request<RequestBody>> {
        let head = self.wire.take_request()?;
        let body = match std::mem::take(&mut self.home) {
            Home::None => return None,
            Home::Empty => RequestBody::Empty,
            Home::Here(home) => time_limit::timeout(RETURN_WITHIN, home).await.ok()?.ok()?,
        };
        Some(head.map(|()| body))
    }

    /// There is an answer: nothing of the request need be kept.
    pub fn keep_no_longer(&mut self) {
        self.home = Home::None;
    }

    /// What was seen on the wire.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    pub(super) fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx).is_pending() && self.is_ready()
    }
}

/// Why a request gave no response.
#[derive(Debug)]
pub enum SendError {
    /// The connection ended, or what came is no HTTP.
    Broken(hyper::Error),
    /// The backend says that it has processed nothing of it (RFC 9113 8.7).
    Refused(hyper::Error),
    /// The connection ended before anything of the request was written.
    Unsent(Box<http::Request<RequestBody>>),
}

impl From<TrySendError<http::Request<RequestBody>>> for SendError {
    fn from(mut error: TrySendError<http::Request<RequestBody>>) -> Self {
        match error.take_message() {
            Some(request) => Self::Unsent(Box::new(request)),
            None => {
                let error = error.into_error();
                match http2::is_refusal(&error) {
                    true => Self::Refused(error),
                    false => Self::Broken(error),
                }
            }
        }
    }
}

/// What a request on a connection gives: a response, or an error that holds the request again if
/// no byte of it was sent.
pub(super) type SendResult = Result<http::Response<hyper::body::Incoming>, SendError>;
