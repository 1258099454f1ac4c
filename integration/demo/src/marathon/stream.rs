//! The server's side of `/v2/events`.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::http::{Answer, Request};
use super::node::{Node, Settings};
use super::server::Socket;
use super::shared::Subscription;

/// How long a stream that is closed may take to send what is queued.
const DRAIN: Duration = Duration::from_secs(1);

/// How events reach their clients.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum EventMode {
    /// As they should.
    #[default]
    Normal,
    /// Each byte in a write of its own.
    ByteByByte,
    /// Nothing is written any more, heartbeats neither; connections stay, and what happens in the
    /// meantime is never told.
    Silent,
    /// Everything arrives when the stream ends, as through the proxy of 0.10.
    Buffered,
    /// 200, and the end at once: what a process does that is not ready to lead.
    EndAtOnce,
}

/// Whether the request is one for a stream: one header that says so and nothing else.
pub(super) fn is_asked_for(request: &Request) -> bool {
    request.head.values("accept").contains(&"text/event-stream")
}

/// The answer to a request that is not, from the servlet of the stream.
pub(super) fn not_asked_for() -> Answer {
    Answer::html(405, "HTTP method GET is not supported by this URL")
}

/// Sends events until one of the sides has enough. `head` is the answer's without the empty line.
pub(super) async fn serve(
    socket: &mut Socket,
    node: &Node,
    request: &Request,
    head: &Answer,
    proxied: bool,
) -> std::io::Result<()> {
    let dialect = node.shared.state().cluster.dialect;
    let mut bytes = head.head();
    bytes.extend_from_slice(b"\r\n");
    let remote = super::server::tcp(socket).peer_addr()?.ip().to_string();
    let filter = match dialect.has_event_filter() {
        true => request.parameter("event_type").map(str::to_owned).collect(),
        false => Vec::new(),
    };
    let asks_light = request.parameter("plan-format").any(|format| format == "light");
    let mut out =
        Out { node, buffers: proxied && dialect.buffers_proxied_events(), held: Vec::new() };
    if out.mode() != EventMode::Silent {
        out.write(socket, &bytes).await?;
    }
    if out.mode() == EventMode::EndAtOnce {
        return out.end(socket).await;
    }
    let subscription = node.shared.state().subscribe(node.number, filter, &remote);
    let _leave = Leave { node, number: subscription.number, remote };
    let closed = subscription.closed.clone();
    let light = asks_light && dialect.has_light_plans();
    let sending = send(socket, &mut out, subscription, |event| event.frame(dialect, light));
    drained(sending, &closed).await?;
    out.end(socket).await
}

/// Sends until the stream is closed. What is queued then still goes out, but a reader that does not
/// read may not hold it for ever.
async fn drained(
    sending: impl Future<Output = std::io::Result<()>>,
    closed: &CancellationToken,
) -> std::io::Result<()> {
    tokio::pin!(sending);
    tokio::select! {
        sent = sending.as_mut() => sent,
        () = closed.cancelled() => tokio::time::timeout(DRAIN, sending).await.unwrap_or(Ok(())),
    }
}

/// Takes a stream off the list however it ends, with its whole process, too.
struct Leave<'a> {
    node: &'a Node,
    number: usize,
    remote: String,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.node.shared.state().unsubscribe(self.number, &self.remote);
    }
}

async fn send(
    socket: &mut Socket,
    out: &mut Out<'_>,
    mut subscription: Subscription,
    frame: impl Fn(&super::events::Event) -> Vec<u8>,
) -> std::io::Result<()> {
    let mut settings = out.node.settings.subscribe();
    let mut beats = settings.borrow_and_update().beats;
    let mut last_beat = Instant::now();
    let mut ignored = [0; 256];
    loop {
        let period = settings.borrow().heartbeat;
        tokio::select! {
            event = subscription.events.recv() => match event {
                Some(event) => out.write(socket, &frame(&event)).await?,
                None => return Ok(()),
            },
            () = tokio::time::sleep_until(last_beat + period) => {
                last_beat = Instant::now();
                out.beat(socket).await?;
            }
            changed = settings.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let Settings { beats: wanted, .. } = *settings.borrow_and_update();
                if wanted != beats {
                    beats = wanted;
                    out.beat(socket).await?;
                }
            }
            read = socket.read(&mut ignored) => {
                if read? == 0 {
                    return Ok(());
                }
            }
        }
    }
}

struct Out<'a> {
    node: &'a Node,
    buffers: bool,
    held: Vec<u8>,
}

impl Out<'_> {
    fn mode(&self) -> EventMode {
        match self.node.settings.borrow().events {
            EventMode::Normal if self.buffers => EventMode::Buffered,
            mode => mode,
        }
    }

    async fn write(&mut self, socket: &mut Socket, bytes: &[u8]) -> std::io::Result<()> {
        match self.mode() {
            EventMode::Normal | EventMode::EndAtOnce => {
                socket.write_all(bytes).await?;
                socket.flush().await
            }
            EventMode::ByteByByte => {
                for byte in bytes {
                    socket.write_all(&[*byte]).await?;
                    socket.flush().await?;
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
            EventMode::Silent => Ok(()),
            EventMode::Buffered => {
                self.held.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// A blank line, whose two bytes are flushed one by one.
    async fn beat(&mut self, socket: &mut Socket) -> std::io::Result<()> {
        let gap: Duration = self.node.settings.borrow().heartbeat_gap;
        self.write(socket, b"\r").await?;
        tokio::time::sleep(gap).await;
        self.write(socket, b"\n").await
    }

    async fn end(&self, socket: &mut Socket) -> std::io::Result<()> {
        socket.write_all(&self.held).await?;
        socket.shutdown().await
    }
}
