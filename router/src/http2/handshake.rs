//! Connections to backends of HTTP/2: one per worker carries many requests. A WebSocket has a connection of
//! its own: on a shared one a few tunnels would take the window and the streams of all requests.

use std::error::Error as _;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo};
use shared::time_limit::Timer;
use tokio::sync::oneshot;
use tracing::debug;

use super::frames::FrameBody;
use super::settings::WatchedSettings;
use super::sharing::{MAX_STREAMS, StreamUsage};
use crate::stream::Stream;
use crate::upstream::connect::ConnectError;

/// Largest head of a response, counted as by RFC 9113 6.5.2; more than any sane backend sends.
pub(super) const MAX_RESPONSE_HEAD: u32 = 256 * 1024;
/// Bytes of one response that a backend may send unasked.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same of all responses of a connection: all that its streams may be sent, so that clients who do
/// not read use up no other stream's window.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS;
/// Bytes of one request's body that wait for a slow backend at most.
const SEND_BUFFER: usize = 64 * 1024;
/// Size of a head, counted as by RFC 9113 6.5.2, beyond which backends may refuse the connection that it
/// comes on: nginx and Tomcat take 8 KiB, some proxies 4 KiB in one field.
const LARGE_HEAD: usize = 4 * 1024;
/// What RFC 9113 6.5.2 adds for each field.
const FIELD_OVERHEAD: usize = 32;
/// Bytes of a field line of HTTP/1.1 besides name and value.
const LINE_OVERHEAD: usize = b": \r\n".len();
/// How often a silent backend is asked whether it is there, and how long its answer may take.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Sends requests on a connection that many share.
pub type Sender = http2::SendRequest<FrameBody>;

/// Begins HTTP/2 on a connection. `usage` learns what the backend allows.
///
/// # Errors
///
/// When the library cannot write its preface.
pub async fn handshake(stream: Stream, usage: Arc<StreamUsage>) -> Result<Sender, ConnectError> {
    begin(TokioIo::new(stream), usage).await
}

/// Begins HTTP/2 on a connection that is for a WebSocket. The second part says whether the backend
/// allows that (RFC 8441 3), once its settings have come; an error is that none will.
///
/// # Errors
///
/// As [`handshake`].
pub async fn handshake_for_websocket(
    stream: Stream,
) -> Result<(Sender, oneshot::Receiver<bool>), ConnectError> {
    let (stream, allows_websocket) = WatchedSettings::new(TokioIo::new(stream));
    Ok((begin(stream, StreamUsage::new()).await?, allows_websocket))
}

/// The connection is driven by a task of the worker, which ends with the last of its senders and
/// requests.
async fn begin(
    stream: impl Read + Write + Send + Unpin + 'static,
    usage: Arc<StreamUsage>,
) -> Result<Sender, ConnectError> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(Timer)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_RESPONSE_HEAD)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .handshake(stream)
        .await
        .map_err(ConnectError::Handshake)?;
    drop(tokio::spawn(async move {
        let mut connection = pin!(connection);
        let ended = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            usage.allow(connection.current_max_send_streams());
            usage.register_driver(cx.waker());
            polled
        });
        if let Err(error) = ended.await {
            debug!(%error, "connection to a backend of HTTP/2 ended");
        }
    }));
    Ok(sender)
}

/// Whether the backend says that it has processed nothing of a request and never will: a stream beyond the
/// last one of a GOAWAY, or one that was refused (RFC 9113 8.7).
pub(super) fn is_refusal(error: &hyper::Error) -> bool {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.filter_map(|cause| cause.downcast_ref::<h2::Error>()).any(|error| {
        error.is_remote()
            && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// Whether the head of a request, of `head` bytes in HTTP/1.1 with so many fields, is larger than every
/// backend takes.
pub fn is_large(head: usize, fields: usize) -> bool {
    head.saturating_add(fields.saturating_mul(FIELD_OVERHEAD - LINE_OVERHEAD)) > LARGE_HEAD
}

#[cfg(test)]
mod tests {
    use super::is_large;

    #[test]
    fn fields_count_more_than_their_bytes() {
        for (head, fields, expected) in [
            (0, 0, false),
            (4096, 0, false),
            (4097, 0, true),
            (4040, 2, false),
            (4041, 2, true),
            (1000, 100, false),
            (2000, 100, true),
            (usize::MAX, usize::MAX, true),
        ] {
            assert_eq!(is_large(head, fields), expected, "{head} {fields}");
        }
    }
}
