//! What the kernel says about a process, the clock of the run, and the one pause.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes SIGINT, SIGTERM and SIGHUP end the run by way of [`check`], so that everything that was started
/// is stopped.
pub(crate) fn catch_signals() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    drop(guard);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        INTERRUPTED.store(true, Ordering::SeqCst);
    });
    Ok(())
}

/// Fails once the run is to end.
pub(crate) fn check() -> anyhow::Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) { bail!("interrupted") } else { Ok(()) }
}

#[allow(clippy::disallowed_methods, reason = "paces load on threads that run nothing else")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Pauses for a long time, unless the run is to end.
pub(crate) fn wait(time: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        check()?;
        pause(end.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
    }
    Ok(())
}

/// Nanoseconds since the start of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Time that all threads of a process were on a core, and were ready while others had it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) ran: Duration,
    pub(crate) waited: Duration,
}

impl Cpu {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let mut total = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task")).context("the process is gone")? {
            // A thread that ended meanwhile is missing.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
            let (Some(Ok(ran)), Some(Ok(waited))) = (fields.next(), fields.next()) else {
                bail!("unexpected schedstat {text:?}");
            };
            total.ran += Duration::from_nanos(ran);
            total.waited += Duration::from_nanos(waited);
        }
        Ok(total)
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            ran: self.ran.saturating_sub(before.ran),
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

/// Keeps all threads of a process on these cores, such as `0` or `0-3`.
pub(crate) fn pin(pid: u32, cores: &str) -> anyhow::Result<()> {
    let status = Command::new("taskset")
        .args(["-a", "-c", "-p", cores, &pid.to_string()])
        .stdout(Stdio::null())
        .status()
        .context("could not start taskset")?;
    if !status.success() {
        bail!("taskset failed ({status})");
    }
    Ok(())
}

/// The cores that this process may use, as the kernel lists them.
pub(crate) fn allowed_cores() -> anyhow::Result<String> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    Ok(list.context("no Cpus_allowed_list in /proc/self/status")?.trim().to_owned())
}
