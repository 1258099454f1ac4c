//! Memory of idle connections: how much the resident set of a proxy grows by each of them, and how
//! much of that it gives back.
//!
//! `VmRSS` is user space only. What the kernel keeps for a socket is the same for all proxies and is
//! not counted.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;

use crate::contenders::{AccessLog, Contender, Front, HOST, Launch, SMALL_BODY, parse_answer};
use crate::drive::connect;
use crate::report::spread;
use crate::setup::Setup;
use crate::tls;

/// Connections at once.
const CONNECTIONS: usize = 5_000;
/// Connections being opened at the same time.
const OPENING: usize = 50;
/// From the last connection to the measurement. The router lets the kernel hold back connections
/// whose clients are silent, for a second or a little more; by then it has accepted them.
const SETTLING: Duration = Duration::from_secs(4);
/// From the end of the connections to the second measurement.
const RELEASE: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What an idle connection has done before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Fresh,
    Used,
    TlsFresh,
    TlsUsed,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Fresh, Self::Used, Self::TlsFresh, Self::TlsUsed];

    fn front(self) -> Front {
        match self {
            Self::Fresh | Self::Used => Front::Plain,
            Self::TlsFresh | Self::TlsUsed => Front::Tls,
        }
    }
}

/// A connection that is kept open by not being dropped.
enum Client {
    Plain(#[expect(dead_code, reason = "held open")] TcpStream),
    Tls(#[expect(dead_code, reason = "held open")] Box<TlsStream<TcpStream>>),
}

/// Memory above that of the proxy before the first of the connections, in bytes.
#[derive(Clone, Copy, Debug)]
struct Growth {
    while_open: f64,
    after: f64,
}

/// Prints a table with a row for each contender.
pub(crate) async fn measure(
    setup: &Setup,
    contenders: &[Contender],
    rounds: u64,
) -> anyhow::Result<()> {
    println!("\n**Memory of {CONNECTIONS} idle connections**, growth of the resident set; median");
    println!("(least–most) of {rounds} rounds\n");
    let after = format!("MiB left {} s after they closed", RELEASE.as_secs());
    println!(
        "| KB a connection | fresh | after a request | TLS, fresh | TLS, after a request | \
         {after} | {after}, TLS |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for &contender in contenders {
        let mut open = Vec::new();
        let mut left = [Vec::new(), Vec::new()];
        for kind in Kind::ALL {
            if contender == Contender::Floor && kind.front().is_tls() {
                open.push(Vec::new());
                continue;
            }
            let mut per_connection = Vec::new();
            for round in 1..=rounds {
                eprintln!("round {round}/{rounds} idle: {contender}, {kind:?}");
                let growth = one(setup, contender, kind)
                    .await
                    .with_context(|| format!("{contender}, idle, {kind:?}"))?;
                #[allow(clippy::cast_precision_loss, reason = "a few thousand connections")]
                per_connection.push(growth.while_open / CONNECTIONS as f64 / 1000.0);
                left[usize::from(kind.front().is_tls())].push(growth.after / 1024.0 / 1024.0);
            }
            open.push(per_connection);
        }
        let open = open.iter().map(|values| cell(values, 2));
        let cells: Vec<String> = open.chain(left.iter().map(|values| cell(values, 1))).collect();
        println!("| {contender} | {} |", cells.join(" | "));
    }
    Ok(())
}

fn cell(values: &[f64], decimals: usize) -> String {
    if values.is_empty() { "–".to_owned() } else { spread(values, decimals) }
}

async fn one(setup: &Setup, contender: Contender, kind: Kind) -> anyhow::Result<Growth> {
    let mut proxy = contender.start(setup, &Launch::new(AccessLog::Off, kind.front())).await?;
    // What the first connections allocate once is not the price of a connection.
    drop(open(proxy.port, kind, OPENING).await?);
    sleep(SETTLING).await;
    let before = proxy.process.memory()?.resident_kib;

    let clients = open(proxy.port, kind, CONNECTIONS).await?;
    sleep(SETTLING).await;
    let while_open = proxy.process.memory()?.resident_kib;
    drop(clients);
    sleep(RELEASE).await;
    let after = proxy.process.memory()?.resident_kib;

    proxy.process.check_alive()?;
    proxy.process.stop().await?;
    let bytes = |kib: u64| {
        #[allow(clippy::cast_precision_loss, reason = "kibibytes of memory are far below 2^52")]
        let growth = kib as f64 - before as f64;
        1024.0 * growth
    };
    Ok(Growth { while_open: bytes(while_open), after: bytes(after) })
}

async fn open(port: u16, kind: Kind, count: usize) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    let mut opening = JoinSet::new();
    for _ in 0..count {
        if opening.len() >= OPENING {
            take(&mut opening, &mut clients).await?;
        }
        opening.spawn(async move {
            timeout(ANSWER_WITHIN, open_one(port, kind)).await.context("no connection in time")?
        });
    }
    while !opening.is_empty() {
        take(&mut opening, &mut clients).await?;
    }
    Ok(clients)
}

async fn take(
    opening: &mut JoinSet<anyhow::Result<Client>>,
    clients: &mut Vec<Client>,
) -> anyhow::Result<()> {
    if let Some(opened) = opening.join_next().await {
        clients.push(opened.context("a client panicked")??);
    }
    Ok(())
}

async fn open_one(port: u16, kind: Kind) -> anyhow::Result<Client> {
    match kind {
        Kind::Fresh | Kind::Used => {
            let mut stream = connect(port).await?;
            if kind == Kind::Used {
                ask(&mut stream).await?;
            }
            Ok(Client::Plain(stream))
        }
        Kind::TlsFresh | Kind::TlsUsed => {
            let (mut stream, _is_resumed) = tls::Client::new(false)?.connect(port).await?;
            if kind == Kind::TlsUsed {
                ask(&mut stream).await?;
            }
            Ok(Client::Tls(Box::new(stream)))
        }
    }
}

/// One request; the connection stays open.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> anyhow::Result<()> {
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        match parse_answer(&answer) {
            Some((200, body)) if body.len() == SMALL_BODY.len() => return Ok(()),
            Some((status, _)) if status != 200 => bail!("status {status}"),
            _ => {}
        }
        ensure!(stream.read_buf(&mut answer).await? > 0, "the connection ended");
    }
}
