//! Backends of HTTP/2: a connection per worker carries many requests. A WebSocket has a connection of its
//! own: on a shared one a few tunnels would take the window and the streams of all requests.

use std::error::Error as _;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{Method, Request, Uri, Version};
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo};
use shared::backend::Scheme;
use shared::time_limit::Timer;
use tokio::sync::oneshot;
use tracing::debug;

mod settings;
pub(super) mod sharing;

use settings::Watched;
use sharing::Usage;

use super::connect::ConnectError;
use super::{IDLE_TIMEOUT, MAX_RESPONSE_HEAD};
use crate::request_body::RequestBody;
use crate::stream::Stream;

/// Bytes of one response that a backend may send unasked.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same of all responses of a connection: all that its streams may be sent, so that clients who do
/// not read use up nobody else's.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * sharing::MAX_STREAMS;
/// Bytes of one request's body that wait for a slow backend at most.
const SEND_BUFFER: usize = 64 * 1024;
/// Size of a head, counted as by RFC 9113 6.5.2, beyond which backends may refuse the connection that it
/// comes on: nginx and Tomcat take 8 KiB, some proxies 4 KiB in one field.
const LARGE_HEAD: usize = 4 * 1024;
/// What RFC 9113 6.5.2 adds for each field.
const FIELD_OVERHEAD: usize = 32;
/// How often a silent backend is asked whether it is there, and how long its answer may take.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Sends requests on a connection that many share.
pub(super) type Sender = http2::SendRequest<RequestBody>;

/// Begins HTTP/2 on a connection. `usage` is told what the backend allows.
pub(super) async fn handshake(stream: Stream, usage: Arc<Usage>) -> Result<Sender, ConnectError> {
    begin(TokioIo::new(stream), usage).await
}

/// Begins HTTP/2 on a connection that is for a WebSocket. The second future says whether the backend
/// allows that, once its settings have come; an error is that none have.
pub(super) async fn handshake_for_websocket(
    stream: Stream,
) -> Result<(Sender, oneshot::Receiver<bool>), ConnectError> {
    let (stream, allows_websocket) = Watched::new(TokioIo::new(stream));
    Ok((begin(stream, Usage::new()).await?, allows_websocket))
}

/// The connection is driven by a task of the worker, which ends with the last of its senders and
/// requests.
async fn begin(
    stream: impl Read + Write + Send + Unpin + 'static,
    usage: Arc<Usage>,
) -> Result<Sender, ConnectError> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(Timer)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(MAX_RESPONSE_HEAD).unwrap_or(u32::MAX))
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
            usage.is_driven_by(cx.waker());
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

/// Whether the head of a request is larger than every backend takes.
pub(super) fn is_large<B>(request: &Request<B>) -> bool {
    let target = request.uri().path_and_query().map_or(1, |path| path.as_str().len());
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD);
    target + fields.sum::<usize>() > LARGE_HEAD
}

/// A request as HTTP/2 writes it: the host in `:authority`, framing in frames.
pub(super) fn encode<B>(request: &mut Request<B>, scheme: Scheme) {
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    let host = headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let Some(host) = host else { return };
    headers.remove(HOST);
    let path = request.uri().path_and_query().cloned();
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(match scheme {
        Scheme::Https => UriScheme::HTTPS,
        Scheme::H2c | Scheme::Http => UriScheme::HTTP,
    });
    parts.authority = Some(host);
    parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
}

/// The handshake of a WebSocket as HTTP/2 writes it (RFC 8441 5): a `CONNECT` that names the protocol. There
/// is no key, for nothing but HTTP/2 could answer it.
pub(super) fn encode_websocket<B>(request: &mut Request<B>, scheme: Scheme) {
    encode(request, scheme);
    *request.method_mut() = Method::CONNECT;
    for name in [UPGRADE, SEC_WEBSOCKET_KEY, CONTENT_LENGTH] {
        request.headers_mut().remove(name);
    }
    request.extensions_mut().insert(Protocol::from_static("websocket"));
}

/// Undoes [`encode`] for a request that was not sent.
pub(super) fn decode<B>(request: &mut Request<B>) {
    let authority = request.uri().authority().cloned();
    if let Some(host) = authority.and_then(|a| HeaderValue::from_str(a.as_str()).ok()) {
        request.headers_mut().insert(HOST, host);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.version_mut() = Version::HTTP_11;
}

#[cfg(test)]
mod tests {
    use http::header::HOST;
    use http::{HeaderValue, Request, Version};
    use shared::backend::Scheme;

    use super::{Method, Protocol, decode, encode, encode_websocket};

    #[test]
    fn a_request_is_written_for_http_2_and_back() {
        for (scheme, expected) in
            [(Scheme::H2c, "http://a.test:81/x?y"), (Scheme::Https, "https://a.test:81/x?y")]
        {
            let mut request = Request::new(());
            *request.uri_mut() = "/x?y".parse().unwrap();
            let headers = request.headers_mut();
            headers.insert(HOST, HeaderValue::from_static("a.test:81"));
            headers.insert("connection", HeaderValue::from_static("close"));
            headers.insert("te", HeaderValue::from_static("trailers"));
            encode(&mut request, scheme);
            assert_eq!(request.uri().to_string(), expected);
            assert_eq!(request.headers().keys().collect::<Vec<_>>(), ["te"]);
            decode(&mut request);
            assert_eq!(
                (request.uri().to_string().as_str(), request.version()),
                ("/x?y", Version::HTTP_11)
            );
            assert_eq!(request.headers()[HOST], "a.test:81");
        }
    }
    #[test]
    fn a_websocket_is_asked_for_as_rfc_8441_does() {
        let mut request = Request::new(());
        *request.uri_mut() = "/chat?room=1".parse().unwrap();
        for (name, value) in [
            ("host", "a.test"),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat"),
            ("content-length", "0"),
        ] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        encode_websocket(&mut request, Scheme::Https);
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri().to_string(), "https://a.test/chat?room=1");
        let protocol = request.extensions().get::<Protocol>().unwrap();
        assert_eq!(protocol.as_str(), "websocket");
        let names: Vec<_> = request.headers().keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names.contains(&"sec-websocket-version"));
        assert!(names.contains(&"sec-websocket-protocol"));
    }
}
