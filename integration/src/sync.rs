//! The real `marathon-sync` binary between a fake Marathon and a real Redis.
//!
//! Readiness is what systemd would see: it sends `READY=1` to the socket in `NOTIFY_SOCKET`.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::eventually::{DEADLINE, eventually, wait_for};
use crate::marathon::Marathon;
use crate::process::{self, Process};
use crate::redis::Redis;
use crate::router::Ended;

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
    // Ends before its directory goes away.
    process: Mutex<Process>,
    /// Keeps the process' files.
    dir: TempDir,
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

    /// The log so far.
    pub fn log(&self) -> String {
        self.process().stderr()
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.process().stdout()
    }

    /// Waits until a line of the log contains every one of these words and returns it.
    #[track_caller]
    pub fn wait_for_log(&self, words: &[&str]) -> String {
        let find = || {
            let log = self.log();
            log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        };
        wait_for(DEADLINE, find).unwrap_or_else(|| panic!("no log line with {words:?}"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn wait(&self, deadline: Duration) -> ExitStatus {
        let end = wait_for(deadline, || self.process().exited());
        end.unwrap_or_else(|| panic!("marathon-sync did not end within {deadline:?}"))
    }

    /// The process, for its memory, processor time and files.
    pub fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for MarathonSync {
    #[allow(clippy::print_stderr, reason = "a failing test shows what it said")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
            eprintln!("--- marathon-sync log ---\n{}", process.stderr());
        }
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
        let process = Mutex::new(self.spawn());
        let sync = MarathonSync { process, dir: self.dir, notifications: socket };
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
        let mut process = self.spawn();
        let status = process.wait(DEADLINE * 2).unwrap_or_else(|| {
            panic!("it should have ended by itself; its log: {}", process.stderr())
        });
        Ended { code: status.code(), stdout: process.stdout(), stderr: process.stderr() }
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
