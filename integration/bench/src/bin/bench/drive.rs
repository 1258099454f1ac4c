//! The load generator for what wrk cannot send or cannot count exactly: HTTP/2, WebSocket messages,
//! and a fixed number of requests.
//!
//! Every client sends its next request when the response to the one before is complete. Each
//! response is checked: its status and the length of its body, or every byte of a message.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::contenders::HOST;
use crate::tally::Tally;
use crate::tls;
use crate::websocket;

/// Concurrent requests on an HTTP/2 connection; what a browser or a gRPC client may well have.
pub(crate) const STREAMS: u64 = 16;
/// As wrk's limit in `load`. Under valgrind the whole run has a limit of its own.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What a client sends over its connection.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Protocol {
    /// GETs over HTTP/1.1
    Http1,
    /// GETs over HTTP/1.1 over TLS
    Tls,
    /// GETs over HTTP/2 over TLS, 16 at a time on each connection
    Http2,
    /// WebSocket messages, echoed by the origin
    Websocket,
}

/// What is asked for, and what a complete response is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) protocol: Protocol,
    pub(crate) path: &'static str,
    pub(crate) body_bytes: usize,
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After this many requests of all clients together.
    Requests(u64),
    /// No request begins after this.
    Instant(Instant),
}

/// When one client stops.
#[derive(Clone, Copy, Debug)]
enum Share {
    Requests(u64),
    Until(Instant),
}

impl Until {
    /// What falls to one of `clients`; the first ones take the remainder.
    fn share(self, client: u64, clients: u64) -> Share {
        match self {
            Self::Requests(all) => {
                Share::Requests(all / clients + u64::from(client < all % clients))
            }
            Self::Instant(instant) => Share::Until(instant),
        }
    }
}

impl Share {
    fn is_used_up(self, done: u64) -> bool {
        match self {
            Self::Requests(most) => done >= most,
            Self::Until(instant) => Instant::now() >= instant,
        }
    }
}

/// Runs `clients` at once, with connections that stay open until all have finished.
///
/// # Errors
/// When a connection cannot be made. A failed request is in the tally and ends its client.
pub(crate) async fn drive(
    port: u16,
    work: Work,
    clients: u64,
    until: Until,
) -> anyhow::Result<Tally> {
    let mut running = JoinSet::new();
    let per_connection = if work.protocol == Protocol::Http2 { STREAMS } else { 1 };
    let mut client = 0;
    while client < clients {
        let on_this = per_connection.min(clients - client);
        let shares = (client..client + on_this).map(|each| until.share(each, clients)).collect();
        running.spawn(connection(port, work, shares));
        client += on_this;
    }
    let mut all = Tally::default();
    while let Some(result) = running.join_next().await {
        all.add(result.context("a client panicked")??);
    }
    Ok(all)
}

/// One connection with as many clients as there are shares.
async fn connection(port: u16, work: Work, shares: Vec<Share>) -> anyhow::Result<Tally> {
    match work.protocol {
        Protocol::Http1 => over_http1(connect(port).await?, work, shares).await,
        Protocol::Tls => {
            let (stream, _is_resumed) = tls::Client::new(false)?.connect(port).await?;
            over_http1(stream, work, shares).await
        }
        Protocol::Http2 => {
            let (stream, _is_resumed) = tls::Client::http2()?.connect(port).await?;
            over_http2(stream, work, shares).await
        }
        Protocol::Websocket => over_websocket(connect(port).await?, shares).await,
    }
}

pub(crate) async fn connect(port: u16) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.context("connect")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn over_http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    work: Work,
    shares: Vec<Share>,
) -> anyhow::Result<Tally> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchanges = async move {
        let mut tally = Tally::default();
        for share in shares {
            while !share.is_used_up(done(&tally)) && tally.failed == 0 {
                let started = Instant::now();
                let exchange = async {
                    sender.ready().await?;
                    let request = Request::get(work.path).header(header::HOST, HOST);
                    let request = request.body(Empty::<Bytes>::new())?;
                    read(sender.send_request(request).await?, work).await
                };
                tally.record(started, in_time(exchange).await);
            }
        }
        tally
    };
    // The connection ends when the exchanges drop their sender.
    let (tally, connected) = tokio::join!(exchanges, connection);
    if tally.failed == 0 {
        connected.context("connection")?;
    }
    Ok(tally)
}

async fn over_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    work: Work,
    shares: Vec<Share>,
) -> anyhow::Result<Tally> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let mut clients = JoinSet::new();
    for share in shares {
        let mut sender = sender.clone();
        clients.spawn(async move {
            let mut tally = Tally::default();
            while !share.is_used_up(done(&tally)) && tally.failed == 0 {
                let started = Instant::now();
                let exchange = async {
                    sender.ready().await?;
                    let uri = format!("https://{HOST}{}", work.path);
                    let request = Request::get(uri).body(Empty::<Bytes>::new())?;
                    read(sender.send_request(request).await?, work).await
                };
                tally.record(started, in_time(exchange).await);
            }
            tally
        });
    }
    drop(sender);
    let exchanges = async move {
        let mut all = Tally::default();
        while let Some(result) = clients.join_next().await {
            all.add(result.context("a client panicked")?);
        }
        anyhow::Ok(all)
    };
    let (tally, connected) = tokio::join!(exchanges, connection);
    let tally = tally?;
    if tally.failed == 0 {
        connected.context("connection")?;
    }
    Ok(tally)
}

/// Bytes of the body of a complete response.
async fn read(response: Response<Incoming>, work: Work) -> anyhow::Result<usize> {
    ensure!(response.status() == 200, "status {}", response.status());
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(body.len() == work.body_bytes, "a body of {} bytes", body.len());
    Ok(body.len())
}

async fn over_websocket(mut stream: TcpStream, shares: Vec<Share>) -> anyhow::Result<Tally> {
    websocket::open(&mut stream).await?;
    let message = websocket::message();
    let mut tally = Tally::default();
    for share in shares {
        while !share.is_used_up(done(&tally)) && tally.failed == 0 {
            let started = Instant::now();
            let exchange = async {
                stream.write_all(&message).await?;
                let mut echo = vec![0; message.len()];
                stream.read_exact(&mut echo).await?;
                ensure!(echo == message, "another message came back: {echo:?}");
                Ok(websocket::PAYLOAD.len())
            };
            tally.record(started, in_time(exchange).await);
        }
    }
    Ok(tally)
}

async fn in_time(exchange: impl Future<Output = anyhow::Result<usize>>) -> anyhow::Result<usize> {
    timeout(ANSWER_WITHIN, exchange).await.context("no answer in time")?
}

fn done(tally: &Tally) -> u64 {
    u64::try_from(tally.latencies.len()).unwrap_or(u64::MAX)
}

/// This load generator as a process of its own.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Drive {
    #[arg(long)]
    pub(crate) port: u16,
    #[arg(long)]
    pub(crate) seconds: u64,
    /// Clients that each wait for their response before they go on
    #[arg(long)]
    pub(crate) connections: u64,
    #[arg(long)]
    pub(crate) protocol: Protocol,
}

impl Drive {
    pub(crate) async fn run(&self) -> anyhow::Result<String> {
        let body_bytes = match self.protocol {
            Protocol::Websocket => websocket::PAYLOAD.len(),
            _ => crate::contenders::SMALL_BODY.len(),
        };
        let work = Work { protocol: self.protocol, path: "/", body_bytes };
        let started = Instant::now();
        let until = Until::Instant(started + Duration::from_secs(self.seconds));
        let tally = drive(self.port, work, self.connections, until).await?;
        Ok(tally.report(started.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_all_requests() {
        for (all, clients) in [(10, 3), (64, 64), (2, 5), (2000, 16)] {
            let sum: u64 = (0..clients)
                .map(|client| match Until::Requests(all).share(client, clients) {
                    Share::Requests(own) => own,
                    Share::Until(_) => 0,
                })
                .sum();
            assert_eq!(sum, all, "{all} requests of {clients} clients");
        }
    }
}
