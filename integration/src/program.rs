//! A program under test: its process, its directory, and what it has said.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::eventually::{DEADLINE, wait_for};
use crate::process::Process;

/// A running program; ends with the value, and shows its log when the test panics.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    // Ends before its directory goes away.
    process: Mutex<Process>,
    dir: TempDir,
}

impl Program {
    pub(crate) fn new(name: &'static str, process: Process, dir: TempDir) -> Self {
        Self { name, process: Mutex::new(process), dir }
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

    /// A file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn wait(&self, deadline: Duration) -> ExitStatus {
        let end = wait_for(deadline, || self.process().exited());
        end.unwrap_or_else(|| panic!("{} did not end within {deadline:?}", self.name))
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.process().exited().is_none()
    }

    /// The process, for its memory, processor time and files.
    pub fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Program {
    #[allow(clippy::print_stderr, reason = "a failing test shows what the program said")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
            eprintln!("--- {} log ---\n{}", self.name, process.stderr());
        }
    }
}

/// A program that ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
}

impl Ended {
    /// Waits for a program that is expected to end by itself.
    #[track_caller]
    pub(crate) fn after(mut process: Process, deadline: Duration) -> Self {
        let status = process.wait(deadline).unwrap_or_else(|| {
            panic!("it should have ended by itself; its log: {}", process.stderr())
        });
        Self { code: status.code(), stdout: process.stdout(), stderr: process.stderr() }
    }
}
