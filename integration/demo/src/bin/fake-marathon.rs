//! A Marathon without a cluster behind it, which shows what it is told to show.
//!
//! `try.sh` and the `demo` profile of `compose.yaml` let a deployment arrive through it:
//!
//! ```text
//! fake-marathon --listen 127.0.0.1:8080 --dialect 1.9
//! curl -X PUT 127.0.0.1:8080/_fake/apps -d '{"id": "/web",
//!   "labels": {"hipacheFrontend": "demo.localhost"}, "tasks": ["127.0.0.1:9000"]}'
//! ```

use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use demo::marathon::{Auth, Dialect, Marathon};
use demo::ports::Reserved;
use tokio::signal::unix::{SignalKind, signal};

/// A fake Marathon that is told by HTTP, below /_fake/, which apps and tasks to show
#[derive(Debug, Parser)]
#[command(name = "fake-marathon", version)]
struct Args {
    /// Address to listen on; port 0 takes a free one, and the first line of output names it
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: String,

    /// Version to speak, from 0.8.1 to 1.9
    #[arg(long, value_name = "VERSION", default_value = "1.9")]
    dialect: Dialect,

    /// Path below which everything is served, such as /service/marathon
    #[arg(long, value_name = "PATH", default_value = "")]
    base_path: String,

    /// Ask every request, those below /_fake/ excepted, for this user and password
    #[arg(long, value_name = "USER:PASSWORD")]
    credentials: Option<String>,

    /// Serve HTTPS and write the certificate that clients have to trust into this file
    #[arg(long, value_name = "FILE")]
    tls_authority: Option<std::path::PathBuf>,

    /// Seconds between two heartbeats of the event stream
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    heartbeat: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;

    let listen = resolve(&args.listen)?;
    let port = Reserved::at(listen).with_context(|| format!("cannot listen on {listen}"))?;
    let mut builder =
        Marathon::builder(args.dialect).port(port).base_path(&args.base_path).controlled();
    if let Some(credentials) = args.credentials {
        // A password may hold colons, a user may not.
        let (user, password) =
            credentials.split_once(':').context("--credentials is not USER:PASSWORD")?;
        builder = builder.auth(Auth::Basic(user.to_owned(), password.to_owned()));
    }
    if args.tls_authority.is_some() {
        builder = builder.tls();
    }
    let marathon = builder.start();
    marathon.heartbeat(Duration::from_secs(args.heartbeat), Duration::ZERO);
    if let (Some(file), Some(authority)) = (&args.tls_authority, marathon.authority()) {
        std::fs::write(file, authority)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    announce(marathon.addr()).context("cannot write the address to standard output")?;

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn resolve(listen: &str) -> anyhow::Result<SocketAddr> {
    let mut found = listen
        .to_socket_addrs()
        .with_context(|| format!("--listen {listen:?} is no address with a port"))?;
    found.next().with_context(|| format!("--listen {listen:?} has no address"))
}

/// Prints the bound address as a line of its own: whoever started us with port 0 reads it.
fn announce(address: SocketAddr) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{address}")?;
    stdout.flush()
}
