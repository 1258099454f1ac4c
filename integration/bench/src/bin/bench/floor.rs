//! The layer-4 floor: what it costs to have a process between client and origin at all.
//!
//! It accepts, connects to the origin and copies bytes in both directions until both have ended. It
//! parses nothing and adds nothing. Runtime, system calls and the size of the buffers are the router's,
//! so that the difference to the router is the work of layer 7; HAProxy in TCP mode would have brought
//! its own. Every client connection has one of its own to the origin, because bytes do not say where a
//! request ends: where connections are short, that makes it dearer than a proxy which reuses them.

use anyhow::Context;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;

/// In each direction; what the router reads large bodies with.
const BUFFER: usize = 64 * 1024;
/// As the other proxies have.
const BACKLOG: u32 = 4096;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Floor {
    #[arg(long)]
    port: u16,
    /// Port of the origin
    #[arg(long)]
    origin: u16,
}

impl Floor {
    pub(crate) async fn run(&self) -> anyhow::Result<String> {
        let socket = tokio::net::TcpSocket::new_v4().context("socket")?;
        socket.set_reuseaddr(true)?;
        socket.bind(([127, 0, 0, 1], self.port).into()).context("bind")?;
        let listener = socket.listen(BACKLOG).context("listen")?;
        let origin = self.origin;
        loop {
            let (client, _) = listener.accept().await.context("accept")?;
            tokio::spawn(async move {
                // The client sees a connection that ends early, and the run fails.
                copy(client, origin).await.ok();
            });
        }
    }
}

async fn copy(mut client: TcpStream, origin: u16) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut origin = TcpStream::connect(("127.0.0.1", origin)).await?;
    origin.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut origin, BUFFER, BUFFER).await?;
    Ok(())
}
