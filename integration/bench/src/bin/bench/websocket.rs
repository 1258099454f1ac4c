//! WebSocket messages from both sides: what a client sends, and an origin that echoes it.

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::contenders::WEBSOCKET_HOST;

/// Content of every message.
pub(crate) const PAYLOAD: &[u8; 50] = b"a message of fifty bytes, as a chat or game sends.";
/// The key and what a server answers to it, from RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Longer than any head here.
const MOST_HEAD: usize = 8192;

/// The frame of [`PAYLOAD`] (RFC 6455 section 5.2): one final text frame, masked as a client's is.
pub(crate) fn message() -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    #[allow(clippy::cast_possible_truncation, reason = "50 fits into seven bits")]
    let mut frame = vec![0x81, 0x80 | PAYLOAD.len() as u8];
    frame.extend(MASK);
    frame.extend(PAYLOAD.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The opening handshake of a client.
pub(crate) async fn open(stream: &mut TcpStream) -> anyhow::Result<()> {
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {WEBSOCKET_HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let head = read_head(stream).await?;
    ensure!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "no upgrade: {head}");
    Ok(())
}

/// The head that the other side sends before anything else. It waits for our next bytes then, so
/// nothing behind the head is read along with it.
async fn read_head(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < MOST_HEAD, "a head without an end");
        let count = stream.read_buf(&mut head).await?;
        ensure!(count > 0, "the connection ended within the head");
    }
    String::from_utf8(head).context("a head that is not text")
}

/// The origin of the WebSocket scenario, as a process of its own.
///
/// It sends every byte back as it came, mask included. A server's frames have no mask, but a proxy
/// does not look into frames, and the client compares bytes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Echo {
    #[arg(long)]
    port: u16,
}

impl Echo {
    pub(crate) async fn run(&self) -> anyhow::Result<String> {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.context("bind")?;
        loop {
            let (stream, _) = listener.accept().await.context("accept")?;
            tokio::spawn(async move {
                // A client that goes away is no fault of the echo; the client reports its own.
                echo(stream).await.ok();
            });
        }
    }
}

async fn echo(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    read_head(&mut stream).await?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut bytes = [0; 4096];
    loop {
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&bytes[..count]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_one_masked_text_frame() {
        let frame = message();
        assert_eq!(frame[..2], [0x81, 0x80 | 50]);
        let (mask, content) = frame[2..].split_at(4);
        let plain: Vec<u8> =
            content.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(plain, PAYLOAD);
    }
}
