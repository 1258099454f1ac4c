//! A child process that is watched, signalled and ended by its own process id.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually::wait_for;

/// A running program with its output in files; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` with its output going to `<name>.out` and `<name>.err` in `dir`; both are
    /// appended to, so a restarted program keeps its history.
    pub fn start(command: &mut Command, dir: &Path, name: &str) -> Self {
        let stdout = dir.join(format!("{name}.out"));
        let stderr = dir.join(format!("{name}.err"));
        let child = command
            .stdin(Stdio::null())
            .stdout(append(&stdout))
            .stderr(append(&stderr))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, stdout, stderr }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id fits");
        kill(Pid::from_raw(pid), signal)
            .unwrap_or_else(|error| panic!("{signal} to {pid}: {error}"));
    }

    /// The exit status if it has ended by now.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("own child can be waited for")
    }

    /// Waits for the end; `None` when it still runs after the deadline.
    pub fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        wait_for(deadline, || self.exited())
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        // An error means that it has ended already, which is what was wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Everything written to standard output so far.
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// Everything written to standard error so far.
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr)
    }

    /// A line of `/proc/<pid>/status` that counts in kB, such as `VmHWM` or `VmRSS`.
    pub fn memory_kb(&self, field: &str) -> u64 {
        let status = read_lossy(Path::new(&format!("/proc/{}/status", self.pid())));
        status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .and_then(|value| value.trim().trim_end_matches("kB").trim().parse().ok())
            .unwrap_or_else(|| panic!("{field} is not in the status of {}", self.pid()))
    }

    /// Processor time used so far, in clock ticks (hundredths of a second).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = read_lossy(Path::new(&format!("/proc/{}/stat", self.pid())));
        // The second field is the name in brackets and may hold spaces; utime and stime are 12th
        // and 13th after it.
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .map(|rest| rest.split_whitespace().filter_map(|field| field.parse().ok()).collect())
            .unwrap_or_default();
        // The state letter was filtered out, so counting starts at ppid.
        fields.get(10).copied().unwrap_or(0) + fields.get(11).copied().unwrap_or(0)
    }

    /// How many file descriptors it holds open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program of that name beside the tests, or the one that the variable names. One that is older
/// than its sources is not taken for them.
pub fn binary(name: &str, variable: &str, sources: &[&str]) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    // target/<profile>/deps/<test> for tests, target/<profile>/<name> for the binaries of this
    // crate.
    let dir = test.parent().expect("a file has a directory");
    let dir = if dir.ends_with("deps") { dir.parent().expect("deps has a parent") } else { dir };
    let binary = dir.join(name);
    let hint = "build it with: cargo build --bins";
    let built = std::fs::metadata(&binary)
        .and_then(|meta| meta.modified())
        .unwrap_or_else(|error| panic!("{}: {error}; {hint}", binary.display()));
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    for sources in sources {
        let newest = newest_file(&workspace.join(sources));
        assert!(newest <= built, "{} is older than {sources}; {hint}", binary.display());
    }
    binary
}

fn newest_file(dir: &Path) -> SystemTime {
    // A release without its sources has nothing to be older than.
    let Ok(entries) = std::fs::read_dir(dir) else {
        return SystemTime::UNIX_EPOCH;
    };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => newest_file(&entry.path()),
            _ => {
                entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
            }
        })
        .max()
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Reads a file that may not be there yet or may hold any bytes.
pub fn read_lossy(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn append(path: &Path) -> File {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually::DEADLINE;

    #[test]
    fn reports_output_and_exit_code() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 7"]);
        let mut process = Process::start(&mut command, dir.path(), "shell");
        assert_eq!(process.wait(DEADLINE).unwrap().code(), Some(7));
        assert_eq!((process.stdout().as_str(), process.stderr().as_str()), ("out\n", "err\n"));
    }

    #[test]
    fn ends_with_the_value() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::start(Command::new("sleep").arg("600"), dir.path(), "sleep");
        assert!(process.memory_kb("VmHWM") > 0);
        let proc_entry = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(proc_entry.exists());
        drop(process);
        assert!(!proc_entry.exists());
    }
}
