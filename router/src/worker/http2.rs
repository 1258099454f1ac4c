//! A client's connection of HTTP/2: each of its requests is answered as if it had a connection of its own.

use std::sync::Arc;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tracing::debug;

use crate::client_io::ClientIo;
use crate::http1::error::RequestError;
use crate::http2::{EdgeError, EdgeLimits, Opened, Rewound, serve as serve_connection};
use crate::proxy::error::ProxyError;
use crate::proxy::{Client, Ended, serve as serve_stream};
use crate::stream::Stream;

/// Serves the connection until it ends. `early` was read from it before.
pub(super) async fn serve(stream: Stream, early: Vec<u8>, client: Client) {
    let client = Arc::new(client);
    let limits = &client.settings.limits;
    let limits = EdgeLimits {
        max_head: limits.max_head,
        max_headers: limits.max_headers,
        max_requests: limits.max_requests_per_connection,
    };
    let io = TokioIo::new(Rewound::new(Bytes::from(early), stream));
    let (parent, connection) = (Arc::clone(&client), &client.connection);
    let answer = move |opened: Opened, state| {
        let client = parent.for_stream(state, opened.refusal.map(refusal));
        answer(ClientIo::new(Stream::Virtual(Box::new(opened.stream))), client)
    };
    let connections = Arc::clone(&client.shared.connections);
    let result = serve_connection(io, connection, connections, limits, answer).await;
    if let Err(error) = result {
        debug!(client.addr = %connection.peer, %error, "client connection ended");
    }
}

/// Answers one request.
async fn answer(mut io: ClientIo, client: Client) {
    match serve_stream(&mut io, &client).await {
        // No request of HTTP/1 begins with the preface of HTTP/2, and these are none other.
        Ended::Closed | Ended::Http2(_) => {}
        Ended::Tunnel(tunnel) => {
            let (shared, connection) = (&client.shared, Arc::clone(&client.connection));
            shared.tunnels.spawn(io.into_stream(), *tunnel, connection, shared.sink.clone());
        }
    }
}

/// What a request that HTTP/2 itself forbids is answered with.
fn refusal(error: EdgeError) -> ProxyError {
    match error {
        EdgeError::BadRequest(reason) => ProxyError::BadRequest(reason),
        EdgeError::MethodNotAllowed => ProxyError::MethodNotAllowed,
        EdgeError::NoHost => ProxyError::Request(RequestError::HostMissing),
        EdgeError::TooLargeHeads => ProxyError::TooLargeHeads,
        EdgeError::TooManyHeaders => ProxyError::Request(RequestError::TooManyFields),
    }
}
