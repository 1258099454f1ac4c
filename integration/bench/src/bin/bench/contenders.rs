//! What is measured and what it needs: the origin, Redis, and each proxy with its configuration.
//!
//! The proxies are set up to do the same work: one worker, connections to the origin kept alive,
//! the client's Host and the same five forwarded headers sent on, nothing spooled to disk. Before
//! a proxy is measured one request of each kind proves that it does.

mod configs;
mod verify;

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::process::{Process, free_port};
use crate::tls::Files;
use configs::{haproxy_config, nginx_config, nginx_http, nginx_main, router_config};
pub(crate) use verify::parse_answer;
use verify::{get, verify};

/// The virtual host of every request.
pub(crate) const HOST: &str = "bench.test";
/// Body of the small answers.
const SMALL_BODY: &str = "a body of fifty bytes, as a health check answers.\n";
/// Body of the large answers: 1 MiB.
const LARGE_BYTES: usize = 1024 * 1024;
/// Body that slow readers ask for: more than any socket buffer holds.
const HUGE_BYTES: u64 = 16 * 1024 * 1024;
/// A start takes milliseconds; under valgrind on a busy machine, seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Names of the forwarded headers that every proxy sets, as nginx variables of the origin.
const ECHO: &str = "$http_host|$http_x_forwarded_for|$http_x_real_ip|$http_x_forwarded_proto\
                    |$http_x_forwarded_protocol|$http_x_forwarded_port";

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Contender {
    Router,
    Nginx,
    Haproxy,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Scenario {
    /// 50 bytes, keep-alive
    Small,
    /// 50 bytes, a new client connection for every request
    Connect,
    /// 1 MiB, keep-alive
    Large,
    /// 50 bytes over TLS 1.3, keep-alive
    Tls,
    /// 50 bytes over TLS 1.3, a connection with a full handshake for every request
    Handshake,
    /// The same, going on with the session of an earlier connection
    Resume,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum AccessLog {
    Off,
    On,
}

/// How clients speak to a proxy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Front {
    Plain,
    /// TLS 1.3 alone.
    Tls,
}

impl Front {
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Tls => "https",
        }
    }
}

/// How a contender is started: as an operator would, or under valgrind.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    Normal,
    /// Counts instructions into this file.
    Callgrind(PathBuf),
}

/// What all contenders share.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) proxy_core: u32,
    pub(crate) load_core: u32,
    pub(crate) router: PathBuf,
    pub(crate) origin: Process,
    origin_port: u16,
    redis: Process,
    redis_port: u16,
    tls: Files,
    room: Room,
    // Declared last, so dropped after the processes that use it.
    pub(crate) dir: TempDir,
}

/// A running proxy that has answered every kind of request.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) process: Process,
    pub(crate) port: u16,
    /// Its configuration and logs, removed with it.
    _dir: TempDir,
}

/// How many connections there is room for, at every program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Room {
    Usual,
    /// For thousands of slow clients, each with a connection to the origin.
    Storm,
}

impl Room {
    fn connections(self) -> u32 {
        match self {
            Self::Usual => 4096,
            Self::Storm => 18_000,
        }
    }

    /// To the origin: above what `--connections` allows, or what a storm needs.
    fn to_origin(self) -> u32 {
        match self {
            Self::Usual => 1024,
            Self::Storm => 8192,
        }
    }

    /// For the processes that are started from now on, too.
    fn raise_open_files(self) -> anyhow::Result<()> {
        if self == Self::Usual {
            return Ok(());
        }
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("no limit of open files")?;
        let need = u64::from(self.connections()) + 1000;
        ensure!(hard >= need, "{hard} open files are allowed; a storm needs {need} (ulimit -Hn)");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("the limit of open files stays")
    }
}

impl Setup {
    pub(crate) async fn start(
        proxy_core: u32,
        load_core: u32,
        router: PathBuf,
        room: Room,
    ) -> anyhow::Result<Self> {
        room.raise_open_files()?;
        let dir = tempfile::Builder::new().prefix("bench-").tempdir().context("no directory")?;
        let (origin, origin_port) = start_origin(load_core, dir.path(), room).await?;
        let (redis, redis_port) = start_redis(load_core, dir.path(), origin_port).await?;
        let tls = Files::create(dir.path())?;
        Ok(Self {
            proxy_core,
            load_core,
            router,
            origin,
            origin_port,
            redis,
            redis_port,
            tls,
            room,
            dir,
        })
    }

    pub(crate) async fn stop(self) {
        for process in [self.origin, self.redis] {
            if let Err(error) = process.stop().await {
                eprintln!("bench: {error:#}");
            }
        }
    }
}

impl Contender {
    pub(crate) async fn start(
        self,
        setup: &Setup,
        log: AccessLog,
        front: Front,
    ) -> anyhow::Result<Proxy> {
        self.start_in(setup, log, front, &Mode::Normal).await
    }

    pub(crate) async fn start_in(
        self,
        setup: &Setup,
        log: AccessLog,
        front: Front,
        mode: &Mode,
    ) -> anyhow::Result<Proxy> {
        // Twice: between choosing a free port and binding it another process may have taken it.
        match self.try_start(setup, log, front, mode).await {
            Ok(proxy) => Ok(proxy),
            Err(error) => {
                eprintln!("bench: starting {self} again after: {error:#}");
                self.try_start(setup, log, front, mode).await
            }
        }
    }

    async fn try_start(
        self,
        setup: &Setup,
        log: AccessLog,
        front: Front,
        mode: &Mode,
    ) -> anyhow::Result<Proxy> {
        let dir = tempfile::Builder::new()
            .prefix(self.name())
            .tempdir_in(setup.dir.path())
            .context("no directory")?;
        let port = free_port()?;
        let own = dir.path();
        let command = match self {
            Self::Router => {
                let config =
                    write(own, "config.json", &router_config(setup, port, log, front, own))?;
                vec![setup.router.clone(), "-c".into(), config]
            }
            Self::Nginx => {
                let text = nginx_config(setup, port, log, front, mode, own);
                let config = write(own, "nginx.conf", &text)?;
                vec!["nginx".into(), "-p".into(), own.into(), "-c".into(), config]
            }
            Self::Haproxy => {
                let config = write(own, "haproxy.cfg", &haproxy_config(setup, port, log, front))?;
                vec!["haproxy".into(), "-db".into(), "-f".into(), config]
            }
        };
        let (program, args) = match mode {
            Mode::Normal => (command[0].clone(), command[1..].to_vec()),
            Mode::Callgrind(out) => {
                let mut out_flag = std::ffi::OsString::from("--callgrind-out-file=");
                out_flag.push(out);
                let mut args = vec!["--tool=callgrind".into(), PathBuf::from(out_flag)];
                args.extend(command);
                (PathBuf::from("valgrind"), args)
            }
        };
        let mut process = Process::start(self.name(), setup.proxy_core, own, program, args)?;
        ready(&mut process, port, front).await?;
        verify(port, front).await.with_context(|| format!("{self}{}", process.log_tail()))?;
        Ok(Proxy { process, port, _dir: dir })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// The version as the program itself tells it.
    pub(crate) async fn version(self, setup: &Setup) -> String {
        let (program, flag) = match self {
            Self::Router => (setup.router.clone(), "--version"),
            Self::Nginx => (PathBuf::from("nginx"), "-v"),
            Self::Haproxy => (PathBuf::from("haproxy"), "-v"),
        };
        let run = Command::new(program).arg(flag).kill_on_drop(true).output();
        let Ok(Ok(output)) = timeout(Duration::from_secs(10), run).await else {
            return self.to_string();
        };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next().unwrap_or_default();
        line.trim_start_matches("nginx version: ")
            .split(" - http")
            .next()
            .unwrap_or_default()
            .to_owned()
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Router => "router",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
        })
    }
}

impl Scenario {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Large => "/large",
            _ => "/",
        }
    }

    /// What the proxy listens for.
    pub(crate) fn front(self) -> Front {
        match self {
            Self::Small | Self::Connect | Self::Large => Front::Plain,
            Self::Tls | Self::Handshake | Self::Resume => Front::Tls,
        }
    }

    /// Bytes of a complete body.
    pub(crate) fn body_bytes(self) -> usize {
        match self {
            Self::Large => LARGE_BYTES,
            _ => SMALL_BODY.len(),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Small => "small",
            Self::Connect => "connect",
            Self::Large => "large",
            Self::Tls => "tls",
            Self::Handshake => "handshake",
            Self::Resume => "resume",
        })
    }
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Off => "off",
            Self::On => "on",
        })
    }
}

/// Says which Debian package is missing before anything is started.
pub(crate) fn check_tools(contenders: &[Contender], callgrind: bool) -> anyhow::Result<()> {
    let mut tools = vec![
        ("redis-server", "redis-server"),
        ("redis-cli", "redis-tools"),
        ("nginx", "nginx"),
        ("taskset", "util-linux"),
        ("setpriv", "util-linux"),
    ];
    if contenders.contains(&Contender::Haproxy) {
        tools.push(("haproxy", "haproxy"));
    }
    tools.push(if callgrind { ("valgrind", "valgrind") } else { ("wrk", "wrk") });

    let path = env::var_os("PATH").unwrap_or_default();
    let mut packages: Vec<&str> = tools
        .into_iter()
        .filter(|(tool, _)| !env::split_paths(&path).any(|dir| dir.join(tool).is_file()))
        .map(|(_, package)| package)
        .collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    bail!(
        "not found in PATH ({}); on Debian: apt-get install {}",
        path.to_string_lossy(),
        packages.join(" ")
    )
}

/// Builds the release router and returns the path that cargo gives for it.
pub(crate) async fn build_router() -> anyhow::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("bench: cargo build --release -p router");
    let output = Command::new(cargo)
        .args(["build", "--release", "-p", "router", "--bin", "router"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .context("could not start cargo")?;
    ensure!(output.status.success(), "the router could not be built ({})", output.status);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(executable)
        .context("cargo built no executable named router")
}

/// The executable in a line of cargo's JSON messages, if the line is about the router's.
fn executable(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    if message["target"]["name"] != "router" {
        return None;
    }
    Some(message["executable"].as_str()?.into())
}

async fn start_origin(core: u32, dir: &Path, room: Room) -> anyhow::Result<(Process, u16)> {
    fs::write(dir.join("large"), vec![b'x'; LARGE_BYTES]).context("no file to serve")?;
    let port = free_port()?;
    let (main, http) = (nginx_main(&Mode::Normal), nginx_http());
    File::create(dir.join("huge"))
        .and_then(|file| file.set_len(HUGE_BYTES))
        .context("no large file to serve")?;
    let (root, connections) = (dir.display(), room.connections());
    // Were it another machine, what it keeps for slow readers would not come out of the memory that
    // the kernel has for the proxy's connections.
    let send_buffer = if room == Room::Storm { "sndbuf=32k" } else { "" };
    // Copying 1 MiB out of the page cache costs the same for every contender.
    let config = format!(
        "{main}
        events {{ worker_connections {connections}; }}
        http {{
            {http}
            access_log off;
            sendfile on;
            open_file_cache max=10 inactive=1h;
            open_file_cache_valid 1h;
            server {{
                listen 127.0.0.1:{port} backlog=4096 {send_buffer};
                root {root};
                default_type text/plain;
                location = / {{ return 200 '{SMALL_BODY}'; }}
                location = /large {{ }}
                location = /huge {{ }}
                location = /upload {{ proxy_pass http://127.0.0.1:{port}/; }}
                location = /echo {{ return 200 '{ECHO}'; }}
            }}
        }}\n"
    );
    let config = write(dir, "origin.conf", &config)?;
    let args = ["-p".into(), dir.to_path_buf(), "-c".into(), config];
    let mut process = Process::start("origin", core, dir, "nginx", args)?;
    ready(&mut process, port, Front::Plain).await?;
    Ok((process, port))
}

async fn start_redis(core: u32, dir: &Path, origin: u16) -> anyhow::Result<(Process, u16)> {
    let port = free_port()?;
    let port_text = port.to_string();
    let args = ["--bind", "127.0.0.1", "--port", &port_text, "--save", "", "--appendonly", "no"];
    let mut process = Process::start("redis", core, dir, "redis-server", args)?;

    let key = format!("frontend:{HOST}");
    let backend = format!("http://127.0.0.1:{origin}");
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        process.check_alive()?;
        let run = Command::new("redis-cli")
            .args(["-p", &port_text, "RPUSH", &key, "bench", &backend])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(READY_WITHIN, run).await.context("redis-cli hangs")??;
        let printed = String::from_utf8_lossy(&output.stdout);
        if printed.trim() == "2" {
            return Ok((process, port));
        }
        ensure!(Instant::now() < deadline, "Redis did not take the route: {printed}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Waits until the process answers 200.
async fn ready(process: &mut Process, port: u16, front: Front) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        process.check_alive()?;
        let last = match get(port, front, "/").await {
            Ok((200, _)) => return Ok(()),
            Ok((status, _)) => format!("status {status}"),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > deadline {
            bail!("no 200 within {READY_WITHIN:?}, last: {last}{}", process.log_tail());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_body_is_fifty_bytes() {
        assert_eq!(SMALL_BODY.len(), 50);
    }

    #[test]
    fn answers_are_split_into_status_and_body() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(parse_answer(answer), Some((200, b"ok".to_vec())));
        assert_eq!(parse_answer(b"HTTP/1.1 200 OK\r\n"), None);
    }

    #[test]
    fn only_the_routers_executable_is_taken() {
        let other =
            r#"{"reason":"compiler-artifact","target":{"name":"shared"},"executable":null}"#;
        let router =
            r#"{"reason":"compiler-artifact","target":{"name":"router"},"executable":"/t/router"}"#;
        assert_eq!(executable(other), None);
        assert_eq!(executable(router), Some("/t/router".into()));
        assert_eq!(executable("not JSON"), None);
    }
}
