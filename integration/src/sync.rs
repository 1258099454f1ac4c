//! The real `marathon-sync` binary between a fake Marathon and a real Redis.
//!
//! Readiness is what systemd would see: it sends `READY=1` to the socket in `NOTIFY_SOCKET`.

use std::ops::Deref;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use tempfile::TempDir;

use crate::eventually::{DEADLINE, eventually};
use crate::marathon::Marathon;
use crate::process::{self, Process};
use crate::program::{Ended, Program};
use crate::redis::Redis;

/// A marathon-sync to be started.
#[derive(Debug)]
pub struct Builder {
    dir: TempDir,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

/// A running marathon-sync; ends with the value, and shows its log when the test panics.
#[derive(Debug)]
pub struct MarathonSync {
    program: Program,
    /// What it says about itself, such as that it ends.
    notifications: UnixDatagram,
}

impl MarathonSync {
    /// One with the harness' defaults.
    pub fn start(marathon: &Marathon, redis: &Redis) -> Self {
        Self::builder(marathon, redis).start()
    }

    /// The harness' defaults: an interval of an hour, so that what happens has a reason.
    pub fn builder(marathon: &Marathon, redis: &Redis) -> Builder {
        Builder::bare()
            .args(&["--marathon", &marathon.url(), "--redis", &redis.url()])
            // So that a test may say otherwise by a flag.
            .env("MARATHON_SYNC_INTERVAL", "3600")
            .env("MARATHON_SYNC_LOG_LEVEL", "debug")
    }
}

impl Deref for MarathonSync {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl Builder {
    /// No arguments, an empty environment.
    pub fn bare() -> Self {
        let dir = tempfile::Builder::new().prefix("sync").tempdir().expect("a temporary directory");
        Self { dir, args: Vec::new(), env: Vec::new() }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Sets a variable of the otherwise empty environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it says that it is ready, which is not yet that it has looked.
    #[track_caller]
    pub fn start(self) -> MarathonSync {
        let socket = UnixDatagram::bind(self.dir.path().join("notify.sock")).expect("a socket");
        socket.set_nonblocking(true).expect("a socket that does not block");
        let process = self.spawn();
        let program = Program::new("marathon-sync", process, self.dir);
        let sync = MarathonSync { program, notifications: socket };
        eventually(DEADLINE, "marathon-sync is ready", || {
            let exited = sync.process().exited();
            assert!(exited.is_none(), "it ended before it was ready: {exited:?}");
            let mut buffer = [0; 4096];
            let length = sync.notifications.recv(&mut buffer).unwrap_or(0);
            String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == "READY=1")
        });
        sync
    }

    /// Runs one that is expected to end by itself.
    #[track_caller]
    pub fn run(self) -> Ended {
        Ended::after(self.spawn(), DEADLINE * 2)
    }

    fn spawn(&self) -> Process {
        let sources = ["marathon-sync/src", "shared/src"];
        let mut command =
            Command::new(process::binary("marathon-sync", "MARATHON_SYNC_BINARY", &sources));
        command
            .args(&self.args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("NOTIFY_SOCKET", self.dir.path().join("notify.sock"))
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        Process::start(&mut command, self.dir.path(), "marathon-sync")
    }
}
