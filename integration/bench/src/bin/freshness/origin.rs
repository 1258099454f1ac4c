//! Tiny backends on one thread of this process, each answering with its own number.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Longest request that comes through the router.
const HEAD_BYTES: usize = 8192;

#[derive(Debug)]
pub(crate) struct Origins {
    addrs: Vec<SocketAddr>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Origins {
    pub(crate) fn start(count: usize) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listen = || runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listeners = (0..count).map(|_| listen()).collect::<Result<Vec<_>, _>>();
        let listeners = listeners.context("no port to listen on")?;
        let addrs = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            for (number, listener) in listeners.into_iter().enumerate() {
                drop(runtime.spawn(accept(listener, number)));
            }
            runtime.block_on(stopped.cancelled());
        });
        Ok(Self { addrs, stop, thread: Some(thread) })
    }

    pub(crate) fn count(&self) -> usize {
        self.addrs.len()
    }

    pub(crate) fn url(&self, number: usize) -> String {
        format!("http://{}", self.addrs[number % self.addrs.len()])
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn accept(listener: TcpListener, number: usize) {
    while let Ok((stream, _)) = listener.accept().await {
        // Without it answers would still go out whole; it only costs time.
        drop(stream.set_nodelay(true));
        drop(tokio::spawn(serve(stream, number)));
    }
}

async fn serve(mut stream: TcpStream, number: usize) {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{number:02}");
    let mut head = Vec::with_capacity(HEAD_BYTES);
    // Requests have no body, and the next one comes after the answer to this one only.
    while let Ok(length @ 1..) = stream.read_buf(&mut head).await {
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        } else if length == HEAD_BYTES || head.len() >= HEAD_BYTES {
            return;
        }
    }
}
