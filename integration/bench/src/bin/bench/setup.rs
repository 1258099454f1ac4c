//! What all contenders share: the origin, the WebSocket echo, Redis with the routes, a certificate.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::contenders::configs::{nginx_http, nginx_main};
use crate::contenders::{
    Front, HOST, LARGE_BYTES, MEDIUM_BYTES, Mode, READY_WITHIN, SMALL_BODY, WEBSOCKET_HOST, ready,
    write,
};
use crate::process::{Process, free_port};
use crate::tls::Files;

/// Body that slow readers ask for: more than any socket buffer holds.
const HUGE_BYTES: u64 = 16 * 1024 * 1024;
/// Names of the forwarded headers that every proxy sets, as nginx variables of the origin.
const ECHO: &str = "$http_host|$http_x_forwarded_for|$http_x_real_ip|$http_x_forwarded_proto\
                    |$http_x_forwarded_protocol|$http_x_forwarded_port";
/// Routes written to Redis at once.
const BATCH: u32 = 10_000;

#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) proxy_core: u32,
    pub(crate) load_core: u32,
    pub(crate) router: PathBuf,
    pub(crate) origin: Process,
    pub(crate) origin_port: u16,
    echo: Process,
    pub(crate) echo_port: u16,
    redis: Process,
    pub(crate) redis_port: u16,
    pub(crate) tls: Files,
    pub(crate) room: Room,
    // Declared last, so dropped after the processes that use it.
    pub(crate) dir: TempDir,
}

/// How many connections every program has room for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Room {
    Usual,
    /// Thousands of clients that send nothing.
    Idle,
    /// Thousands of slow clients, each with a connection to the origin.
    Storm,
}

impl Room {
    pub(crate) fn connections(self) -> u32 {
        match self {
            Self::Usual => 4096,
            Self::Idle | Self::Storm => 18_000,
        }
    }

    /// To the origin: above what `--connections` allows, or what a storm needs.
    pub(crate) fn to_origin(self) -> u32 {
        match self {
            Self::Usual | Self::Idle => 1024,
            Self::Storm => 8192,
        }
    }

    /// Applies to the processes started from now on, too.
    fn raise_open_files(self) -> anyhow::Result<()> {
        if self == Self::Usual {
            return Ok(());
        }
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("no limit of open files")?;
        let need = u64::from(self.connections()) + 1000;
        ensure!(hard >= need, "the limit of open files is {hard}; this needs {need} (ulimit -Hn)");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("could not raise the limit of files")
    }
}

/// Cores of the proxy, and of everything else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) proxy: u32,
    pub(crate) load: u32,
}

impl Setup {
    /// Starts everything but the proxies. `hosts`: virtual hosts in Redis besides [`HOST`].
    pub(crate) async fn start(
        cores: Cores,
        router: PathBuf,
        room: Room,
        hosts: u32,
    ) -> anyhow::Result<Self> {
        room.raise_open_files()?;
        let dir = tempfile::Builder::new().prefix("bench-").tempdir().context("no directory")?;
        let (origin, origin_port) = start_origin(cores.load, dir.path(), room).await?;
        let (echo, echo_port) = start_echo(cores.load, dir.path()).await?;
        let (redis, redis_port) = start_redis(cores.load, dir.path()).await?;
        write_routes(redis_port, origin_port, echo_port, hosts)?;
        let tls = Files::create(dir.path())?;
        Ok(Self {
            proxy_core: cores.proxy,
            load_core: cores.load,
            router,
            origin,
            origin_port,
            echo,
            echo_port,
            redis,
            redis_port,
            tls,
            room,
            dir,
        })
    }

    pub(crate) async fn stop(self) {
        for process in [self.origin, self.echo, self.redis] {
            if let Err(error) = process.stop().await {
                eprintln!("bench: {error:#}");
            }
        }
    }
}

async fn start_origin(core: u32, dir: &Path, room: Room) -> anyhow::Result<(Process, u16)> {
    let files =
        [("1k", 1024), ("medium", MEDIUM_BYTES), ("large", LARGE_BYTES), ("10m", 10 * LARGE_BYTES)];
    for (name, bytes) in files {
        fs::write(dir.join(name), vec![b'x'; bytes]).context("no file to serve")?;
    }
    File::create(dir.join("huge"))
        .and_then(|file| file.set_len(HUGE_BYTES))
        .context("no large file to serve")?;
    let port = free_port()?;
    let config = write(dir, "origin.conf", &origin_config(port, dir, room))?;
    let args = ["-p".into(), dir.to_path_buf(), "-c".into(), config];
    let mut process = Process::start("origin", &[core], dir, "nginx", args)?;
    ready(&mut process, port, Front::Plain).await?;
    Ok((process, port))
}

/// The origin answers an upload when it has all of it, in memory: it passes the request on to itself
/// without the body, because `return` would answer before the body is read.
fn origin_config(port: u16, dir: &Path, room: Room) -> String {
    let (main, http) = (nginx_main(&Mode::Normal, 1), nginx_http());
    let (root, connections) = (dir.display(), room.connections());
    // Without this limit the data kept for slow readers would come out of the kernel's memory for
    // TCP, which the proxy's connections need; a real origin is on another machine.
    let send_buffer = if room == Room::Storm { "sndbuf=32k" } else { "" };
    // Copying 1 MiB out of the page cache costs the same for every contender.
    format!(
        "{main}
        events {{ worker_connections {connections}; }}
        http {{
            {http}
            access_log off;
            sendfile on;
            open_file_cache max=10 inactive=1h;
            open_file_cache_valid 1h;
            upstream self {{
                server 127.0.0.1:{port};
                keepalive 1024;
                keepalive_requests 1000000000;
            }}
            server {{
                listen 127.0.0.1:{port} backlog=4096 {send_buffer};
                root {root};
                default_type text/plain;
                location = / {{ return 200 '{SMALL_BODY}'; }}
                location / {{ }}
                location = /upload {{ proxy_pass http://127.0.0.1:{port}/; }}
                location = /sink {{
                    client_max_body_size 0;
                    client_body_buffer_size 11m;
                    proxy_pass http://self/;
                    proxy_pass_request_body off;
                    proxy_set_header Content-Length '';
                    proxy_set_header Connection '';
                    proxy_http_version 1.1;
                }}
                location = /echo {{ return 200 '{ECHO}'; }}
            }}
        }}\n"
    )
}

async fn start_echo(core: u32, dir: &Path) -> anyhow::Result<(Process, u16)> {
    let port = free_port()?;
    let own = std::env::current_exe().context("no path of this program")?;
    let args = ["echo".to_owned(), format!("--port={port}")];
    let mut process = Process::start("echo", &[core], dir, own, args)?;
    ready(&mut process, port, Front::Websocket).await?;
    Ok((process, port))
}

async fn start_redis(core: u32, dir: &Path) -> anyhow::Result<(Process, u16)> {
    let port = free_port()?;
    let port_text = port.to_string();
    let args = ["--bind", "127.0.0.1", "--port", &port_text, "--save", "", "--appendonly", "no"];
    let mut process = Process::start("redis", &[core], dir, "redis-server", args)?;
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        process.check_alive()?;
        match connect_redis(port) {
            Ok(_) => return Ok((process, port)),
            Err(error) => ensure!(Instant::now() < deadline, "Redis does not answer: {error:#}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn connect_redis(port: u16) -> anyhow::Result<redis::Connection> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let mut connection = client.get_connection()?;
    redis::cmd("PING").query::<()>(&mut connection)?;
    Ok(connection)
}

/// Blocks, before anything is measured.
fn write_routes(redis_port: u16, origin: u16, echo: u16, hosts: u32) -> anyhow::Result<()> {
    let mut connection = connect_redis(redis_port)?;
    let (origin, echo) = (format!("http://127.0.0.1:{origin}"), format!("http://127.0.0.1:{echo}"));
    for (host, backend) in [(HOST, &origin), (WEBSOCKET_HOST, &echo)] {
        redis::cmd("RPUSH")
            .arg(format!("frontend:{host}"))
            .arg(&["bench", backend])
            .query::<()>(&mut connection)
            .context("could not write a route")?;
    }
    for first in (0..hosts).step_by(usize::try_from(BATCH).unwrap_or(1)) {
        let mut pipe = redis::pipe();
        for host in first..hosts.min(first + BATCH) {
            let key = format!("frontend:{}", vhost(host));
            pipe.cmd("RPUSH").arg(key).arg(&["bench", &origin]).ignore();
        }
        pipe.query::<()>(&mut connection).context("could not write the routes")?;
    }
    Ok(())
}

/// Name of a virtual host of the scenario `vhosts`; the script of wrk writes the same.
pub(crate) fn vhost(index: u32) -> String {
    format!("host-{index}.{HOST}")
}
