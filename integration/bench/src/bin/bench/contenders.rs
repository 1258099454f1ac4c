//! The proxies that are compared, and how each is started.
//!
//! The HTTP proxies are set up to do the same work: as many workers, connections to the origin kept
//! alive, the client's Host and the same five forwarded headers sent on, nothing spooled to disk.
//! Before a proxy is measured one request of each kind proves that it does.

pub(crate) mod configs;
mod verify;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::process::{Process, free_port};
use crate::setup::Setup;
use configs::{haproxy_config, nginx_config, router_config};
pub(crate) use verify::parse_answer;
use verify::{probe, verify};

/// The virtual host of every request but those of WebSockets.
pub(crate) const HOST: &str = "bench.test";
/// The virtual host whose origin echoes WebSocket messages.
pub(crate) const WEBSOCKET_HOST: &str = "websocket.bench.test";
/// Body of the small responses.
pub(crate) const SMALL_BODY: &str = "a body of fifty bytes, as a health check answers.\n";
/// Body of the medium responses: 100 KiB.
pub(crate) const MEDIUM_BYTES: usize = 100 * 1024;
/// Body of the large responses: 1 MiB.
pub(crate) const LARGE_BYTES: usize = 1024 * 1024;
/// A start takes milliseconds; under valgrind on a busy machine, seconds.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Contender {
    Router,
    Nginx,
    Haproxy,
    /// Copies bytes between client and origin and does nothing else
    Floor,
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
    /// TLS 1.3 with HTTP/2 for clients that offer it.
    Http2,
    /// WebSockets in HTTP/1.1, and their origin.
    Websocket,
}

impl Front {
    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Http2)
    }

    pub(crate) fn scheme(self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }
}

/// How a contender is started: as an operator would, or under valgrind.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    Normal,
    /// Counts instructions into this file.
    Callgrind(PathBuf),
}

/// What a contender is started for.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) log: AccessLog,
    pub(crate) front: Front,
    pub(crate) workers: u32,
    /// Virtual hosts that are asked for.
    pub(crate) hosts: u32,
    /// It may use the load generator's core, too.
    pub(crate) shares_cores: bool,
    pub(crate) mode: Mode,
}

impl Launch {
    /// One worker on a core of its own.
    pub(crate) fn new(log: AccessLog, front: Front) -> Self {
        Self { log, front, workers: 1, hosts: 0, shares_cores: false, mode: Mode::Normal }
    }
}

/// A running proxy that has answered every kind of request.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) process: Process,
    pub(crate) port: u16,
    /// Its configuration and logs, removed with it.
    _dir: TempDir,
}

impl Contender {
    pub(crate) async fn start(self, setup: &Setup, launch: &Launch) -> anyhow::Result<Proxy> {
        // Twice: between choosing a free port and binding it another process may have taken it.
        match self.try_start(setup, launch).await {
            Ok(proxy) => Ok(proxy),
            Err(error) => {
                eprintln!("bench: starting {self} again after: {error:#}");
                self.try_start(setup, launch).await
            }
        }
    }

    async fn try_start(self, setup: &Setup, launch: &Launch) -> anyhow::Result<Proxy> {
        let dir = tempfile::Builder::new()
            .prefix(self.name())
            .tempdir_in(setup.dir.path())
            .context("no directory")?;
        let port = free_port()?;
        let command = self.command(setup, launch, port, dir.path())?;
        let (program, args) = match &launch.mode {
            Mode::Normal => (command[0].clone(), command[1..].to_vec()),
            Mode::Callgrind(out) => {
                let mut out_flag = OsString::from("--callgrind-out-file=");
                out_flag.push(out);
                let mut args = vec!["--tool=callgrind".into(), out_flag];
                args.extend(command);
                (OsString::from("valgrind"), args)
            }
        };
        let cores = match launch.shares_cores {
            true => vec![setup.load_core, setup.proxy_core],
            false => vec![setup.proxy_core],
        };
        let mut process = Process::start(self.name(), &cores, dir.path(), program, args)?;
        ready(&mut process, port, launch.front).await?;
        if launch.front != Front::Websocket {
            verify(self, port, launch.front)
                .await
                .with_context(|| format!("{self}{}", process.log_tail()))?;
        }
        Ok(Proxy { process, port, _dir: dir })
    }

    /// Program and arguments; configuration files go to `dir`.
    fn command(
        self,
        setup: &Setup,
        launch: &Launch,
        port: u16,
        dir: &Path,
    ) -> anyhow::Result<Vec<OsString>> {
        Ok(match self {
            Self::Router => {
                let config = write(dir, "config.json", &router_config(setup, launch, port, dir))?;
                vec![setup.router.clone().into(), "-c".into(), config.into()]
            }
            Self::Nginx => {
                let config = write(dir, "nginx.conf", &nginx_config(setup, launch, port, dir))?;
                vec!["nginx".into(), "-p".into(), dir.into(), "-c".into(), config.into()]
            }
            Self::Haproxy => {
                let config = write(dir, "haproxy.cfg", &haproxy_config(setup, launch, port))?;
                vec!["haproxy".into(), "-db".into(), "-f".into(), config.into()]
            }
            Self::Floor => {
                let own = std::env::current_exe().context("no path of this program")?;
                let origin = configs::origin_port(setup, launch.front);
                let (port, origin) = (format!("--port={port}"), format!("--origin={origin}"));
                vec![own.into(), "floor".into(), port.into(), origin.into()]
            }
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Floor => "floor",
        }
    }

    /// The version that the program itself reports.
    pub(crate) async fn version(self, setup: &Setup) -> String {
        let (program, flag) = match self {
            Self::Router => (setup.router.clone(), "--version"),
            Self::Nginx => (PathBuf::from("nginx"), "-v"),
            Self::Haproxy => (PathBuf::from("haproxy"), "-v"),
            Self::Floor => return self.to_string(),
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
            Self::Floor => "layer-4 floor",
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

pub(crate) fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Waits until the process answers.
pub(crate) async fn ready(process: &mut Process, port: u16, front: Front) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        process.check_alive()?;
        let Err(last) = probe(port, front).await else {
            return Ok(());
        };
        if Instant::now() > deadline {
            bail!("no answer within {READY_WITHIN:?}, last: {last:#}{}", process.log_tail());
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
}
