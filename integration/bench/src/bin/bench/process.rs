//! A child process on its cores: started, watched and stopped by its own process group.
//!
//! Each child leads a process group, so a proxy's workers are counted and stopped with it, and gets
//! SIGTERM should this program die (`setpriv --pdeathsig`). Knows nothing of proxies or HTTP.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a child may take to end after SIGTERM; a draining proxy has no connection left by then.
const STOP_WITHIN: Duration = Duration::from_secs(5);
const STOP_TRIES: u32 = 3;

#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    group: Pid,
    log: PathBuf,
}

/// Time of a process group on the cores since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    /// User and system time.
    pub(crate) ran: Duration,
    /// Ready to run, but another process had the core.
    pub(crate) waited: Duration,
}

/// Resident memory of a process group; pages that its processes share count for each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    pub(crate) resident_kib: u64,
    pub(crate) peak_kib: u64,
}

impl Process {
    /// Starts `program` on `cores` in `dir`; what it prints goes to `<name>.log` there.
    pub(crate) fn start(
        name: &'static str,
        cores: &[u32],
        dir: &Path,
        program: impl Into<OsString>,
        args: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let cores: Vec<String> = cores.iter().map(u32::to_string).collect();
        let output = File::create(&log).with_context(|| log.display().to_string())?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "taskset", "-c", &cores.join(",")])
            .arg(program.into())
            .args(args.into_iter().map(Into::into))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("no second handle of the log")?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("could not start {name}"))?;
        let id = child.id().context("a fresh child has an id")?;
        let group = Pid::from_raw(i32::try_from(id).context("a process id fits in an i32")?);
        Ok(Self { name, child, group, log })
    }

    /// Runs before everything else on its core from now on, threads and processes to come included.
    pub(crate) async fn run_first(&self) -> anyhow::Result<()> {
        for pid in members(self.group)? {
            let args = ["--all-tasks", "--rr", "--pid", "1", &pid.to_string()].map(str::to_owned);
            let output = Command::new("chrt").args(args).output().await.context("chrt")?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{}: {}", self.name, said.trim());
        }
        Ok(())
    }

    /// Fails when the process has ended, with the end of what it printed.
    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().with_context(|| format!("{}: no status", self.name))? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}){}", self.name, self.log_tail()),
        }
    }

    /// Waits for the process to end by itself and returns what it printed.
    pub(crate) async fn output(mut self, within: Duration) -> anyhow::Result<String> {
        let status = timeout(within, self.child.wait())
            .await
            .with_context(|| format!("{} still ran after {within:?}", self.name))??;
        let printed = fs::read_to_string(&self.log).context("no output")?;
        if !status.success() {
            bail!("{} failed ({status}): {printed}", self.name);
        }
        Ok(printed)
    }

    /// Asks the process to end and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.check_alive()?;
        // Asked again while it runs: a signal that comes between nginx' check of its flag and its
        // wait for events is seen only with the next event, and under valgrind that does happen.
        for _ in 0..STOP_TRIES {
            kill(self.group, Signal::SIGTERM)
                .with_context(|| format!("could not stop {}", self.name))?;
            if let Ok(status) = timeout(STOP_WITHIN, self.child.wait()).await {
                status.with_context(|| format!("{}: no status", self.name))?;
                return Ok(());
            }
        }
        // The drop kills the whole group.
        bail!("{} still runs after {STOP_TRIES} times SIGTERM{}", self.name, self.log_tail())
    }

    pub(crate) fn cpu(&self) -> anyhow::Result<Cpu> {
        let mut total = Cpu::default();
        for pid in members(self.group)? {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                // A thread that ended between the listing and this is missing: workers stay.
                let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
                    continue;
                };
                let cpu = parse_schedstat(&text).context("/proc/<pid>/task/<tid>/schedstat")?;
                total.ran += cpu.ran;
                total.waited += cpu.waited;
            }
        }
        if total.ran.is_zero() {
            bail!("{} has no CPU time: is the kernel built without CONFIG_SCHED_INFO?", self.name);
        }
        Ok(total)
    }

    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let mut total = Memory::default();
        for pid in members(self.group)? {
            let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else {
                continue;
            };
            total.resident_kib += status_kib(&text, "VmRSS:");
            total.peak_kib += status_kib(&text, "VmHWM:");
        }
        Ok(total)
    }

    /// The end of the output, ready to be appended to an error message.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        if tail.is_empty() { String::new() } else { format!("; it printed:\n{tail}") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Not reaped yet, so the number still belongs to this child and its group.
        if self.child.id().is_some() {
            killpg(self.group, Signal::SIGKILL).ok();
        }
    }
}

/// The processes of a group, found by `/proc`: not every kernel lists a process' children.
fn members(group: Pid) -> anyhow::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if parse_process_group(&stat) == Some(group.as_raw()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// `pid (any name) state ppid pgrp …`: the name may hold spaces and parentheses.
fn parse_process_group(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// `<nanoseconds run> <nanoseconds waited> <time slices>`
fn parse_schedstat(text: &str) -> anyhow::Result<Cpu> {
    let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
    match (fields.next(), fields.next()) {
        (Some(Ok(ran)), Some(Ok(waited))) => {
            Ok(Cpu { ran: Duration::from_nanos(ran), waited: Duration::from_nanos(waited) })
        }
        _ => bail!("unexpected content {text:?}"),
    }
}

fn status_kib(status: &str, field: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// The cores that this process may use, in order.
pub(crate) fn allowed_cores() -> anyhow::Result<Vec<u32>> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .context("no Cpus_allowed_list in /proc/self/status")?;
    parse_cores(list.trim()).with_context(|| format!("unexpected core list {list:?}"))
}

/// `0-3,8`
fn parse_cores(list: &str) -> Option<Vec<u32>> {
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    Some(cores)
}

/// A port that is free now. Another process may take it first: starting retries with a new one.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr().context("a bound socket has an address")?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_group_is_read_behind_a_hostile_name() {
        assert_eq!(parse_process_group("12 (a) b (c)) S 1 77 12 0 -1"), Some(77));
        assert_eq!(parse_process_group("12 (cut"), None);
    }

    #[test]
    fn schedstat_is_in_nanoseconds() {
        let cpu = parse_schedstat("1500 20 3\n").unwrap();
        assert_eq!(cpu, Cpu { ran: Duration::from_nanos(1500), waited: Duration::from_nanos(20) });
        parse_schedstat("").unwrap_err();
    }

    #[test]
    fn memory_fields_are_found_by_name() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(status_kib(status, "VmRSS:"), 1024);
        assert_eq!(status_kib(status, "VmHWM:"), 2048);
        assert_eq!(status_kib(status, "VmPTE:"), 0);
    }

    #[test]
    fn core_lists_hold_ranges_and_numbers() {
        assert_eq!(parse_cores("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_cores("3"), Some(vec![3]));
        assert_eq!(parse_cores("x"), None);
    }
}
