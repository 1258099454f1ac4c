//! One client connection of HTTP/2: many requests at a time, each with a task, a state and a limit of its own.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Executor, Read, Write};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use shared::lock::lock;
use shared::time_limit::Timer;
use tracing::debug;

use super::client_stream::{self, Opened, Responder};
use super::error::EdgeError;
use super::frames::FrameProbe;
use super::from_client::head_size;
use crate::connection::{Connection, Connections, Phase};

/// Requests at a time on one connection (RFC 9113 6.5.2 recommends no fewer than 100).
const MAX_STREAMS: u32 = 100;
/// Bytes of one request's body that a client may send unasked.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all requests of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one response that wait for a slow client at most; also what each of 100 streams without
/// a window costs.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client has reset before they were accepted, and errors of a client that made us
/// reset one, before the connection is ended (CVE-2023-44487, CVE-2025-8671).
const MAX_RESETS: usize = 50;
/// How often a silent client is asked whether it is there, and how long its answer may take.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// How long a client may take to hear that an idle connection ends.
const GOODBYE: Duration = Duration::from_secs(1);
/// Bytes of the heads of all requests of a connection at a time: 100 requests with 10 KiB each. References of
/// HPACK, and cookies in crumbs, make a megabyte of a few hundred bytes.
const MAX_HEADS: usize = 1024 * 1024;

/// What a client's connection may not exceed.
#[derive(Clone, Copy, Debug)]
pub struct EdgeLimits {
    /// Bytes of the head of one request, counted as by RFC 9113 6.5.2.
    pub max_head: usize,
    /// Field lines of one request, as they are in HTTP/1.1.
    pub max_headers: usize,
    /// Requests after which the connection ends.
    pub max_requests: Option<u32>,
}

/// Serves a connection until it ends. `connection` is its state; each request gets one of its own, which is
/// added to `connections`, and is answered by `answer`: it reads and writes the stream as a connection of
/// HTTP/1.1. `answer` and what it returns run in one task with the library's part of the request, so that both
/// directions move whichever of them is blocked; both are dropped when the client resets the stream. `answer`
/// flushes before it ends: a client that takes nothing of what is left is given up by the deadline that the state
/// of the request has then, and never if there is none.
///
/// # Errors
///
/// Of the connection.
pub async fn serve<T, F>(
    io: T,
    connection: &Arc<Connection>,
    connections: Arc<Connections>,
    limits: EdgeLimits,
    answer: impl Fn(Opened, Arc<Connection>) -> F,
) -> hyper::Result<()>
where
    T: Read + Write + Unpin + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    connection.multiplex();
    let streams = Streams::default();
    let next = streams.clone();
    let parent = Arc::clone(connection);
    let service = service_fn(move |request| {
        let state = Connection::stream_of(&parent);
        connections.add(&state);
        let (opened, responder) = open(request, &state, limits.max_headers);
        let Responder { response, probe } = responder;
        let answer: Answer = Box::pin(answer(opened, Arc::clone(&state)));
        *next.slot() = Some(Stream { state, answer: Some(answer), probe });
        response
    });
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(Timer)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .enable_connect_protocol();
    let mut http = pin!(builder.serve_connection(io, service));
    let mut is_ending = false;
    std::future::poll_fn(|cx| {
        connection.register(cx.waker());
        let is_idle_for_long = connection.has_expired() && connection.phase() != Phase::Busy;
        if is_ending && is_idle_for_long {
            return Poll::Ready(Ok(()));
        }
        if !is_ending && (is_idle_for_long || connection.is_draining() || connection.is_closing()) {
            // GOAWAY: what runs is finished, nothing new begins.
            is_ending = true;
            http.as_mut().graceful_shutdown();
            if is_idle_for_long {
                connection.allow_for(Some(GOODBYE));
            }
        }
        if connection.is_flooded() {
            debug!(client.addr = %connection.peer, "client gives up too many requests");
            http.as_mut().graceful_shutdown();
            let _goaway_sent = http.as_mut().poll(cx);
            return Poll::Ready(Ok(()));
        }
        let polled = http.as_mut().poll(cx);
        let is_used_up = limits.max_requests.is_some_and(|most| connection.requests() >= most);
        if polled.is_pending() && !is_ending && is_used_up {
            // The last request has begun. What follows before the client has heard is served, too.
            is_ending = true;
            http.as_mut().graceful_shutdown();
            return http.as_mut().poll(cx);
        }
        polled
    })
    .await
}

/// Opens the stream of a request, whose head is counted among those of its connection. Nothing of a head that
/// is one too many is kept until its response is taken.
fn open(
    request: http::Request<hyper::body::Incoming>,
    state: &Connection,
    max_fields: usize,
) -> (Opened, Responder) {
    let (mut parts, body) = request.into_parts();
    let is_taken = state.carries_head(head_size(&parts), MAX_HEADS);
    if !is_taken {
        parts.headers = http::HeaderMap::new();
    }
    let refusal = (!is_taken).then_some(EdgeError::TooLargeHeads);
    let request = http::Request::from_parts(parts, body);
    client_stream::open(request, refusal, max_fields, || std::array::from_fn(|_| fastrand::u8(..)))
}

type Answer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What belongs to a request besides the library's part of it.
struct Stream {
    state: Arc<Connection>,
    /// None once it is over.
    answer: Option<Answer>,
    probe: FrameProbe,
}

/// Runs the task of each request together with its answer.
#[derive(Clone, Default)]
struct Streams {
    /// Of the request that the library is about to make a task of.
    next: Arc<Mutex<Option<Stream>>>,
}

impl Streams {
    fn slot(&self) -> MutexGuard<'_, Option<Stream>> {
        lock(&self.next)
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, http: F) {
        let Some(mut stream) = self.slot().take() else {
            // What carries the bytes of a tunnel; the tunnel has limits of its own.
            drop(tokio::spawn(http));
            return;
        };
        drop(tokio::spawn(async move {
            let mut http = pin!(Some(http));
            std::future::poll_fn(|cx| stream.poll(cx, http.as_mut())).await;
        }));
    }
}

impl Stream {
    /// Polls both parts. `http` is None once the library has done its part, which drops what it held.
    fn poll<F: Future<Output = ()>>(
        &mut self,
        cx: &mut Context<'_>,
        mut http: Pin<&mut Option<F>>,
    ) -> Poll<()> {
        self.state.register(cx.waker());
        loop {
            // First: a client that has reset its stream gets no answer.
            if poll_once(cx, http.as_mut()) && !self.probe.is_complete() {
                return Poll::Ready(());
            }
            if let Some(answer) = &mut self.answer
                && answer.as_mut().poll(cx).is_ready()
            {
                self.answer = None;
            }
            // Then what the answer has written.
            let has_sent = poll_once(cx, http.as_mut());
            let is_complete = self.probe.is_complete();
            if has_sent && is_complete && self.answer.is_some() {
                // It may wait for that.
                continue;
            }
            return match (http.is_none(), self.answer.is_none()) {
                (true, true) => Poll::Ready(()),
                (true, false) if !is_complete => Poll::Ready(()),
                // The response was given up; what waits for the client is, too.
                (false, true) if !is_complete => Poll::Ready(()),
                // The client takes nothing. Dropping the library's part resets the stream.
                (false, _) if self.is_stalled() => Poll::Ready(()),
                _ => Poll::Pending,
            };
        }
    }

    /// Whether nothing but a client is waited for that has had its time.
    fn is_stalled(&self) -> bool {
        let awaits_client = self.answer.is_none() || self.state.phase() == Phase::Streaming;
        awaits_client && self.state.has_expired()
    }
}

/// Polls the library's part, if it is there; drops it once it is over. Returns whether it is over now.
fn poll_once<F: Future<Output = ()>>(cx: &mut Context<'_>, mut http: Pin<&mut Option<F>>) -> bool {
    let is_over = match http.as_mut().as_pin_mut() {
        Some(future) => future.poll(cx).is_ready(),
        None => return false,
    };
    if is_over {
        http.set(None);
    }
    is_over
}

#[cfg(test)]
mod tests;
