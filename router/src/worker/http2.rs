//! One client connection of HTTP/2: many requests at a time, each with a state and a limit of its own.
//!
//! A request is a task of its own, which hyper hands to an executor. The one here ties the task to the
//! state of its request, so that the sweep that ends requests of HTTP/1.1 ends these, too.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use shared::time_limit::Timer;
use tracing::debug;

use super::{Open, report_end};
use crate::connection::{ClientIo, Connection, Connections, Phase};
use crate::proxy::{Client, answer};

/// Requests at a time on one connection (RFC 9113 6.5.2 recommends no fewer than 100).
const MAX_STREAMS: u32 = 100;
/// Bytes of one request's body that a client may send unasked.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all requests of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one response that wait for a slow client at most; also what each of 100 streams without
/// a window costs.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client has reset before we looked at them, and errors of a client that made us
/// reset one, before the connection is ended (CVE-2023-44487, CVE-2025-8671).
const MAX_RESETS: usize = 50;
/// How often a silent client is asked whether it is there, and how long its answer may take.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// How long a client may take to hear that an idle connection ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// Runs the task of each request together with the request's state.
#[derive(Clone, Debug, Default)]
struct Streams {
    /// The state of the request that hyper is about to make a task of.
    next: Arc<Mutex<Option<Arc<Connection>>>>,
}

impl Streams {
    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Connection>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let Some(stream) = self.slot().take() else {
            // What carries the bytes of a tunnel; the tunnel has limits of its own.
            drop(tokio::spawn(future));
            return;
        };
        drop(tokio::spawn(async move {
            let mut future = Box::pin(future);
            std::future::poll_fn(|cx| {
                stream.register(cx.waker());
                if stream.has_expired() && stream.phase() == Phase::Streaming {
                    // The client takes nothing; dropping the task resets the stream.
                    return Poll::Ready(());
                }
                future.as_mut().poll(cx)
            })
            .await;
        }));
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve(io: ClientIo, client: Client, connections: Arc<Connections>) {
    let connection = Arc::clone(&client.connection);
    let _open = Open::new(&client.shared.counters);
    connection.multiplex();
    let max_head = u32::try_from(client.settings.limits.max_head).unwrap_or(u32::MAX);
    let most = client.settings.limits.max_requests_per_connection;
    let streams = Streams::default();
    let slot = streams.clone();
    let parent = Arc::clone(&connection);
    let service = service_fn(move |request| {
        let stream = Connection::stream_of(&parent);
        connections.add(&stream);
        *slot.slot() = Some(Arc::clone(&stream));
        answer(Arc::new(client.for_stream(stream)), request)
    });
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(Timer)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(max_head)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .enable_connect_protocol();
    let mut http = pin!(builder.serve_connection(io, service));
    let mut is_ending = false;
    let result = std::future::poll_fn(|cx| {
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
        if polled.is_pending()
            && !is_ending
            && most.is_some_and(|most| connection.requests() >= most)
        {
            // The last request has begun. What follows before the client has heard is served, too.
            is_ending = true;
            http.as_mut().graceful_shutdown();
            return http.as_mut().poll(cx);
        }
        polled
    })
    .await;
    report_end(&connection, result);
}
