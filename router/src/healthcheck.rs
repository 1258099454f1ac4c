//! `router healthcheck`: the question that a load balancer asks.

use std::io;
use std::net::SocketAddr;

/// Asks the router at `listen` for `Host: __ping__`, with a PROXY header of our own where it expects
/// one; it has to trust the loopback address then.
///
/// # Errors
///
/// When it does not answer 200.
pub fn ask(listen: SocketAddr, has_preface: bool) -> io::Result<()> {
    let preface = if has_preface { "PROXY UNKNOWN\r\n" } else { "" };
    shared::healthcheck::ask(listen, |_address| {
        let ping = shared::host::PING;
        format!("{preface}GET / HTTP/1.1\r\nHost: {ping}\r\nConnection: close\r\n\r\n")
    })
}
