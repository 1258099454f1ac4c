//! The real `router` binary with a Hipache `config.json` of its own.
//!
//! Readiness is what systemd would see: the router sends `READY=1` with a `STATUS=` line that names
//! every listener to the socket in `NOTIFY_SOCKET`. Port 0 is asked for everywhere, and the line
//! says what it became.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::eventually::{DEADLINE, eventually};
use crate::process::{Process, read_lossy};
use crate::program::{Ended, Program};
use crate::redis::Redis;

/// A router to be started: what stands in its `config.json`, on its command line and in its
/// environment.
#[derive(Debug)]
pub struct Builder {
    dir: TempDir,
    config: Option<Value>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    open_files: Option<u64>,
    has_own_etc: bool,
}

/// A running router; ends with the value, and shows its log when the test panics.
#[derive(Debug)]
pub struct Router {
    program: Program,
    urls: Vec<String>,
    admin: Option<String>,
    /// Kept for what the router says later, such as that it ends.
    notifications: Option<UnixDatagram>,
}

/// A router with the harness' defaults in front of this one backend, which serves `a.test`.
pub fn stage(backend: &Backend) -> (Redis, Router) {
    let redis = Redis::start();
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    (redis, router)
}

impl Router {
    /// A router with the harness' defaults that reads its routes from `redis`.
    pub fn start(redis: &Redis) -> Self {
        Self::builder(redis).start()
    }

    /// A router that keeps answers until Redis announces a change, as it does by default.
    pub fn tracking(redis: &Redis) -> Self {
        Self::builder(redis).unset("server.cache").start()
    }

    /// The harness' defaults: one worker, one listener on 127.0.0.1, an access log in a temporary
    /// directory, and Redis read at every request: Hipache's own rule, by which a test knows that
    /// what it has just written counts. Tests of the router's default say [`Router::tracking`].
    pub fn builder(redis: &Redis) -> Builder {
        let mut builder = Builder::bare();
        let log = builder.path("access.log").display().to_string();
        let mut config = json!({
            "server": {"workers": 1, "accessLog": log, "cache": "off"},
            "http": {"bind": ["127.0.0.1"], "port": 0},
            "driver": redis.url(),
        });
        if nix::unistd::geteuid().is_root() {
            // Without this the router gives root up, and with it the temporary directory.
            config["user"] = json!("root");
            config["group"] = json!("root");
        }
        builder.config = Some(config);
        builder
    }

    /// The address of the first listener.
    pub fn addr(&self) -> SocketAddr {
        self.addrs()[0]
    }

    /// The addresses of every listener, in the order that the router named them in.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        let addr = |url: &String| {
            let authority = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            authority
                .and_then(|addr| addr.trim_end_matches('/').parse().ok())
                .unwrap_or_else(|| panic!("not a listener's URL: {url}"))
        };
        self.urls.iter().map(addr).collect()
    }

    /// The URL of the admin listener, if there is one.
    pub fn admin(&self) -> Option<&str> {
        self.admin.as_deref()
    }

    /// Waits until the access log has that many lines and returns them.
    #[track_caller]
    pub fn access_log(&self, count: usize) -> Vec<String> {
        let path = self.path("access.log");
        eventually(DEADLINE, &format!("{count} lines in the access log"), || {
            read_lossy(&path).matches('\n').count() >= count
        });
        read_lossy(&path).lines().map(str::to_owned).collect()
    }
}

impl Deref for Router {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl Drop for Router {
    #[allow(clippy::print_stderr, reason = "a failing test shows what the router said")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The log follows, of the program.
            eprintln!("--- access log ---\n{}", read_lossy(&self.path("access.log")));
        }
    }
}

impl Builder {
    /// Nothing set: no file, no arguments, an empty environment.
    pub fn bare() -> Self {
        let dir =
            tempfile::Builder::new().prefix("router").tempdir().expect("a temporary directory");
        // A router that gives root up still has to reach its socket and its pages.
        open_to_all(dir.path());
        Self {
            dir,
            config: None,
            args: Vec::new(),
            env: Vec::new(),
            open_files: None,
            has_own_etc: false,
        }
    }

    /// Sets a key of `config.json`, such as `server.tcpTimeout`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        let config = self.config.get_or_insert_with(|| json!({}));
        *slot(config, key) = value.into();
        self
    }

    /// Removes a key of `config.json`.
    #[must_use]
    pub fn unset(mut self, key: &str) -> Self {
        let (parent, name) = key.rsplit_once('.').unwrap_or(("", key));
        if let Some(config) = &mut self.config {
            let parent = if parent.is_empty() { config } else { slot(config, parent) };
            parent.as_object_mut().map(|object| object.remove(name));
        }
        self
    }

    /// Replaces the whole `config.json`.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = Some(config);
        self
    }

    /// Number of workers.
    #[must_use]
    pub fn workers(self, count: u64) -> Self {
        self.set("server.workers", count)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
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

    /// Limits how many files the router may hold open.
    #[must_use]
    pub fn open_files(mut self, limit: u64) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// A file that the router sees below `/etc` in place of the machine's own: `hosts`, `resolv.conf` or
    /// `nsswitch.conf`. Ask [`can_replace_etc`](crate::resolver::can_replace_etc) first.
    #[must_use]
    pub fn etc(mut self, name: &str, content: &str) -> Self {
        self.has_own_etc = true;
        self.file(&format!("etc/{name}"), content)
    }

    /// A file in the directory that the router runs in.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, such as an error page or a second configuration, into that directory.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a directory");
        }
        std::fs::write(&path, content)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self
    }

    /// Starts the router and waits until it says that it is ready.
    #[track_caller]
    pub fn start(self) -> Router {
        let socket = self.notify_socket();
        let process = self.spawn();
        let mut router = Router {
            program: Program::new("router", process, self.dir),
            urls: Vec::new(),
            admin: None,
            notifications: None,
        };
        let status = wait_until_ready(&socket, &router);
        for word in status.split_whitespace() {
            match word.strip_prefix("admin=") {
                Some(url) => router.admin = Some(url.to_owned()),
                None if word.starts_with("http") => router.urls.push(word.to_owned()),
                None => {}
            }
        }
        router.notifications = Some(socket);
        assert!(!router.urls.is_empty(), "no listener in {status:?}");
        router
    }

    /// Runs a router that is expected to end by itself.
    #[track_caller]
    pub fn run(self) -> Ended {
        Ended::after(self.spawn(), DEADLINE)
    }

    fn notify_socket(&self) -> UnixDatagram {
        let path = self.path("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a notification socket");
        open_to_all(&path);
        socket
    }

    fn spawn(&self) -> Process {
        let binary = binary();
        let mut command = match (self.open_files, self.has_own_etc) {
            (None, false) => Command::new(binary),
            (None, true) => {
                let mut wrapper = crate::resolver::wrapper();
                wrapper.arg(binary);
                wrapper
            }
            (Some(limit), has_own_etc) => {
                assert!(!has_own_etc, "one wrapper at a time");
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {limit} && exec \"$@\""), "sh"]).arg(binary);
                shell
            }
        };
        if let Some(config) = &self.config {
            let path = self.path("config.json");
            std::fs::write(&path, format!("{config:#}\n")).expect("writes its configuration");
            command.arg("-c").arg(path);
        }
        command
            .args(&self.args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("NOTIFY_SOCKET", self.path("notify.sock"))
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        Process::start(&mut command, self.dir.path(), "router")
    }
}

/// The binary beside the tests, or the one that `ROUTER_BINARY` names: to test a package as it is
/// installed.
pub fn binary() -> PathBuf {
    crate::process::binary("router", "ROUTER_BINARY", &["router/src", "shared/src"])
}

/// Reads notifications until `READY=1` came and returns the newest `STATUS=`.
#[track_caller]
fn wait_until_ready(socket: &UnixDatagram, router: &Router) -> String {
    // Shorter than the deadline, so that an early end is noticed and reported with its log.
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a read timeout");
    let end = Instant::now() + DEADLINE;
    let mut status = None;
    let mut ready = false;
    let mut buffer = [0; 8192];
    loop {
        if let Ok(length) = socket.recv(&mut buffer) {
            for line in String::from_utf8_lossy(&buffer[..length]).lines() {
                ready |= line == "READY=1";
                if let Some(text) = line.strip_prefix("STATUS=") {
                    status = Some(text.to_owned());
                }
            }
        } else {
            let exited = router.process().exited();
            assert!(exited.is_none(), "the router ended before it was ready: {exited:?}");
        }
        match status.take() {
            Some(text) if ready => return text,
            other => status = other,
        }
        assert!(Instant::now() < end, "the router is not ready within {DEADLINE:?}");
    }
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, Permissions::from_mode(0o777)).expect("own file");
}

/// The place of a dotted key, made on the way.
fn slot<'a>(config: &'a mut Value, key: &str) -> &'a mut Value {
    key.split('.').fold(config, |value, name| {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        value.as_object_mut().expect("just made").entry(name).or_insert(Value::Null)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_removes_dotted_keys() {
        let builder = Builder::bare()
            .config(json!({"http": {"port": 0, "bind": []}, "user": "root"}))
            .set("server.lruCache.ttl", 3)
            .unset("http.bind")
            .unset("user");
        let expected = json!({"http": {"port": 0}, "server": {"lruCache": {"ttl": 3}}});
        assert_eq!(builder.config, Some(expected));
    }
}
