//! Requests that prove that a proxy does its work.

use anyhow::{Context, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::{Contender, Front, HOST, LARGE_BYTES, READY_WITHIN, SMALL_BODY};
use crate::{drive, tls, websocket};

/// One request, or one opening handshake of a WebSocket.
pub(super) async fn probe(port: u16, front: Front) -> anyhow::Result<()> {
    if front == Front::Websocket {
        let open = async { websocket::open(&mut drive::connect(port).await?).await };
        return timeout(READY_WITHIN, open).await.context("no answer")?;
    }
    let (status, _) = get(port, front, "/").await?;
    ensure!(status == 200, "status {status}");
    Ok(())
}

/// One request of each kind: bodies are whole, and the origin sees the headers that it should.
pub(super) async fn verify(contender: Contender, port: u16, front: Front) -> anyhow::Result<()> {
    for (path, length) in [("/", SMALL_BODY.len()), ("/large", LARGE_BYTES)] {
        let (status, body) = get(port, front, path).await?;
        ensure!(status == 200, "{path}: status {status}");
        ensure!(body.len() == length, "{path}: a body of {} bytes", body.len());
    }
    if contender == Contender::Floor {
        return Ok(());
    }
    let (_, body) = get(port, front, "/echo").await?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let fields: Vec<&str> = body.split('|').collect();
    // The router writes IPv4 addresses as Hipache did, `::ffff:127.0.0.1`.
    let same_work = match fields[..] {
        [host, forwarded_for, real_ip, proto, protocol, forwarded_port] => {
            host == HOST
                && forwarded_for.ends_with("127.0.0.1")
                && real_ip.ends_with("127.0.0.1")
                && proto == front.scheme()
                && protocol == front.scheme()
                && forwarded_port == port.to_string()
        }
        _ => false,
    };
    ensure!(same_work, "other headers at the origin than expected: {body}");
    Ok(())
}

/// One request on its own connection.
async fn get(port: u16, front: Front, path: &str) -> anyhow::Result<(u16, Vec<u8>)> {
    let exchange = async {
        if front.is_tls() {
            let (stream, _is_resumed) = tls::Client::new(false)?.connect(port).await?;
            ask(stream, path).await
        } else {
            ask(drive::connect(port).await?, path).await
        }
    };
    let answer = timeout(READY_WITHIN, exchange).await.context("no answer")??;
    parse_answer(&answer).context("no HTTP answer")
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
) -> anyhow::Result<Vec<u8>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Status and body of what came of an answer; `None` while its head is not complete.
pub(crate) fn parse_answer(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = answer.split_at(end);
    let head = std::str::from_utf8(head).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    Some((status, body.get(4..)?.to_vec()))
}
