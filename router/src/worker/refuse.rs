//! What is refused before there is a request: connections beyond a limit, heads that take too long, PROXY
//! headers that cannot be used, plain HTTP where TLS is spoken. Each leaves a line in the access log; how many
//! there can be is the log's own limit.

use std::net::SocketAddr;

use http::StatusCode;
use tokio::net::TcpStream;
use tracing::warn;

use super::Acceptor;
use crate::access_log;
use crate::clients::Refusal;
use crate::listen::preface::PrefaceError;
use crate::proxy::{Client, Settings, Shared};
use crate::route::Millis;

/// The answer to a connection beyond a limit, as far as a socket takes it at once.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\n";

impl Acceptor {
    /// Ends a connection beyond a limit, as cheaply as it came.
    pub(super) fn refuse(&self, stream: &TcpStream, peer: SocketAddr, refusal: Refusal) {
        self.shared.counters.connections_refused.add();
        // A client that is not told sees a closed connection, which says the same.
        let written = stream.try_write(TOO_MANY).unwrap_or(0);
        self.log_refusal(peer, StatusCode::SERVICE_UNAVAILABLE, written as u64);
        if self.clients.may_complain(self.shared.clock.coarse()) {
            warn!(
                client.addr = %peer, setting = refusal.setting(),
                "connections are refused: a limit is reached; this is said once a minute at most"
            );
        }
    }

    /// Writes the line of a connection that was refused at once.
    pub(super) fn log_refusal(&self, peer: SocketAddr, status: StatusCode, bytes: u64) {
        log(&self.shared, &self.settings.load(), peer, (status, bytes, 0));
    }
}

/// Writes the line of a request that was refused before its head was read.
pub(super) fn log_for(client: &Client, status: StatusCode, bytes: u64, waited: Millis) {
    log(&client.shared, &client.settings, client.connection.peer, (status, bytes, waited));
}

fn log(
    shared: &Shared,
    settings: &Settings,
    peer: SocketAddr,
    (status, bytes, waited): (StatusCode, u64, Millis),
) {
    if let Some(sink) = &shared.sink {
        let has_id_field = settings.request_ids;
        access_log::Refusal { client: peer.ip(), status, bytes, waited, has_id_field }.emit(sink);
    }
}

/// The status that names the reason for which a connection with a PROXY header was closed; there was no answer.
/// A client that went away before the header was complete, as checks of open ports do, was not refused.
pub(super) fn status_of(error: &PrefaceError) -> Option<StatusCode> {
    match error {
        PrefaceError::Header(_) => Some(StatusCode::BAD_REQUEST),
        PrefaceError::Io(_) => None,
        PrefaceError::TimedOut => Some(StatusCode::REQUEST_TIMEOUT),
    }
}
