//! The accept loop. Knows no HTTP.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tracing::{info, warn};

/// Pause after an error that a busy loop would only repeat: no file descriptors, no memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections for ever and hands each to `serve`.
///
/// Errors of `accept` end neither the loop nor the process. Those of one connection are passed
/// over; those of resources are waited out, said once, and said to be over once.
pub async fn accept_loop(listener: &TcpListener, mut serve: impl FnMut(TcpStream, SocketAddr)) {
    let mut incoming = Incoming::new(listener);
    loop {
        let (stream, peer) = incoming.next().await;
        serve(stream, peer);
    }
}

/// The connections of a listener one by one, for a loop of one's own; errors as in [`accept_loop`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
    exhausted: bool,
}

impl<'a> Incoming<'a> {
    /// Those of `listener`.
    pub fn new(listener: &'a TcpListener) -> Self {
        Self { listener, exhausted: false }
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => {
                    if self.exhausted {
                        self.exhausted = false;
                        info!("connections are accepted again");
                    }
                    return accepted;
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    if !self.exhausted {
                        self.exhausted = true;
                        warn!(
                            %error,
                            "cannot accept connections, waiting for some to end; raise the limit of \
                             open files (`ulimit -n`, LimitNOFILE) if this happens often"
                        );
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Errors that the peer caused by going away before it was accepted (accept(2)).
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::is_about_one_connection;

    #[test]
    fn only_errors_of_the_peer_are_passed_over() {
        for (number, is_peers) in
            [(103, true), (104, true), (4, true), (24, false), (23, false), (12, false)]
        {
            assert_eq!(is_about_one_connection(&io::Error::from_raw_os_error(number)), is_peers);
        }
    }
}
