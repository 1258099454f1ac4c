//! Plain HTTP on an address of HTTPS: an answer in words, where an alert of TLS means nothing to anyone.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PAGE: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
    <title>400 Bad Request</title></head>\n<body><h1>400 Bad Request</h1>\n<p>A plain HTTP request was \
    sent to an HTTPS port: use an address that begins with https://.</p></body>\n</html>\n";

/// Bytes of a request that are read after it was answered. Closing a socket with unread bytes resets
/// the connection, and the client may lose the answer.
const MAX_DRAIN: usize = 64 * 1024;

/// Whether the client begins with plain HTTP instead of a TLS handshake. Takes nothing off the
/// connection. A handshake begins with 22 (RFC 8446 5.1), every method with a letter.
pub(super) async fn is_http(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 1];
    let length = stream.peek(&mut first).await?;
    Ok(length > 0 && first.iter().all(u8::is_ascii_alphabetic))
}

/// Answers 400 and ends the connection. `answered` is called with the bytes of the answer that were written, which
/// are none for a client that is gone. Has no limit in time: the caller sets one.
pub(super) async fn refuse(mut stream: TcpStream, answered: impl FnOnce(u64)) {
    let written = answer(&mut stream).await;
    answered(*written.as_ref().unwrap_or(&0));
    if written.is_ok() {
        // Read only so that the answer is not lost.
        let _is_read = drain(stream).await;
    }
}

async fn answer(stream: &mut TcpStream) -> io::Result<u64> {
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\
         cache-control: no-cache\r\npragma: no-cache\r\nexpires: -1\r\nconnection: close\r\n\r\n{PAGE}",
        PAGE.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(answer.len() as u64)
}

async fn drain(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut drained = 0;
    while drained < MAX_DRAIN {
        match stream.read(&mut buffer).await? {
            0 => break,
            length => drained += length,
        }
    }
    Ok(())
}
