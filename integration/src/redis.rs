//! One real `redis-server` per test, on a reserved TCP port and a Unix socket, empty and without
//! persistence.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use redis::{Client, Connection, FromRedisValue, Value};
use tempfile::TempDir;

use crate::certificates::Identity;
use crate::eventually::{DEADLINE, eventually};
use crate::ports::Reserved;
use crate::process::Process;

/// A `redis-server` of the test's own; ends with the value.
pub struct Redis {
    connection: Mutex<Option<Connection>>,
    // Ends before its directory and its port are given back.
    process: Mutex<Option<Process>>,
    dir: TempDir,
    port: Reserved,
    password: Option<String>,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        let redis = Self::down();
        redis.launch();
        redis
    }

    /// Starts one that asks for a password.
    pub fn with_password(password: &str) -> Self {
        let mut redis = Self::down();
        redis.password = Some(password.to_owned());
        redis.launch();
        redis
    }

    /// Starts one with further arguments, such as `--rename-command CLIENT ""`.
    pub fn with_arguments(arguments: &[&str]) -> Self {
        let mut redis = Self::down();
        redis.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        redis.launch();
        redis
    }

    /// Starts one that follows `primary`, and waits until it has all that the primary has.
    pub fn replica_of(primary: &Self) -> Self {
        let redis = Self::start();
        redis.follow(primary);
        redis
    }

    /// Makes it a replica of `primary`, and waits until it has all that the primary has.
    pub fn follow(&self, primary: &Self) {
        self.run(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
        eventually(DEADLINE, "the replica is in step", || {
            let info: String = self.query(&["INFO", "replication"]);
            info.contains("master_link_status:up")
        });
    }

    /// Waits until that many replicas have everything that was written here so far.
    pub fn wait_for_replicas(&self, count: usize) {
        let count = count.to_string();
        eventually(DEADLINE, "replicas are in step", || {
            self.query::<usize>(&["WAIT", &count, "100"]).to_string() == count
        });
    }

    /// Starts one that speaks TLS only, with the certificate of `identity`; `client_ca` makes it
    /// ask clients for theirs.
    pub fn with_tls(identity: &Identity, ca: &Path, asks_clients: bool) -> Self {
        let mut redis = Self::down();
        let file = |path: &Path| path.display().to_string();
        redis.arguments = [
            ["--port", "0"],
            ["--tls-port", &redis.port.port().to_string()],
            ["--tls-cert-file", &file(&identity.certificate)],
            ["--tls-key-file", &file(&identity.key)],
            ["--tls-ca-cert-file", &file(ca)],
            ["--tls-auth-clients", if asks_clients { "yes" } else { "no" }],
        ]
        .concat()
        .iter()
        .map(ToString::to_string)
        .collect();
        redis.launch();
        redis
    }

    /// Reserves the address but starts nothing yet: see [`launch`](Self::launch).
    pub fn down() -> Self {
        Self {
            dir: tempfile::Builder::new().prefix("redis").tempdir().expect("a temporary directory"),
            port: Reserved::new(),
            password: None,
            arguments: Vec::new(),
            process: Mutex::new(None),
            connection: Mutex::new(None),
        }
    }

    /// Starts the server on its address, again after [`kill`](Self::kill), always empty.
    pub fn launch(&self) {
        self.spawn();
        eventually(DEADLINE, "redis-server answers PING", || {
            self.try_query::<String>(&["PING"]).is_ok()
        });
    }

    /// Starts the server again with what it saved (`SAVE`) before it was killed.
    pub fn launch_with_data(&self) {
        self.spawn_with(&[]);
        eventually(DEADLINE, "redis-server answers PING", || {
            self.try_query::<String>(&["PING"]).is_ok()
        });
    }

    /// Saves everything to disk, kills the server and starts it again, and does not wait: it says
    /// `LOADING` for that long for each key.
    pub fn restart_loading(&self, per_key: Duration) {
        self.run(&["SAVE"]);
        self.kill();
        let micros = per_key.as_micros().to_string();
        self.spawn_with(&[
            "--key-load-delay",
            &micros,
            "--loading-process-events-interval-bytes",
            "1024",
        ]);
    }

    fn spawn(&self) {
        // A file that an earlier life has saved would be loaded.
        let _is_gone = std::fs::remove_file(self.dir.path().join("dump.rdb"));
        self.spawn_with(&[]);
    }

    fn spawn_with(&self, further: &[&str]) {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.port().to_string()])
            .arg("--unixsocket")
            .arg(self.socket())
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            // A replica is served at once, not after the usual five seconds.
            .args(["--repl-diskless-sync-delay", "0", "--dir"])
            .arg(self.dir.path());
        command.args(&self.arguments).args(further);
        if let Some(password) = &self.password {
            command.args(["--requirepass", password]);
        }
        let process = Process::start(&mut command, self.dir.path(), "redis");
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
    }

    /// `redis://…` with the password if there is one.
    pub fn url(&self) -> String {
        let login = self.password.as_ref().map(|word| format!(":{word}@")).unwrap_or_default();
        format!("redis://{login}{}", self.port.addr())
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// The Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("r.sock")
    }

    /// Runs a command and converts its answer.
    #[track_caller]
    pub fn query<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_query(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Runs a command whose answer does not matter, as long as it is no error.
    #[track_caller]
    pub fn run(&self, words: &[&str]) {
        self.query::<Value>(words);
    }

    /// Whether it takes writes: no replica, and not away.
    pub fn takes_writes(&self) -> bool {
        self.try_query::<Value>(&["SET", "probe", "1"]).is_ok()
    }

    /// Makes the list `frontend:<host>`: the identifier, then the backend URLs.
    #[track_caller]
    pub fn frontend(&self, host: &str, identifier: &str, backends: &[&str]) {
        let key = format!("frontend:{host}");
        self.run(&["DEL", &key]);
        self.run(&[&["RPUSH", &key, identifier], backends].concat());
    }

    /// The positions in `dead:<host>`.
    #[track_caller]
    pub fn dead(&self, host: &str) -> BTreeSet<String> {
        self.query(&["SMEMBERS", &format!("dead:{host}")])
    }

    /// How often a command was called since the start (`INFO commandstats`).
    pub fn calls(&self, command: &str) -> u64 {
        let stats: String = self.query(&["INFO", "commandstats"]);
        let name = format!("cmdstat_{command}:calls=");
        stats
            .lines()
            .find_map(|line| line.strip_prefix(&name)?.split(',').next()?.parse().ok())
            .unwrap_or(0)
    }

    /// Subscribes to a channel; returns when the subscription counts.
    pub fn subscribe(&self, channel: &str) -> Subscription {
        let (confirm, confirmed) = sync_channel(1);
        let (sender, messages) = sync_channel(4096);
        let client = self.client();
        let channel = channel.to_owned();
        // Ends when the server does or when nobody listens any more.
        std::thread::spawn(move || follow(&client, &channel, &confirm, &sender));
        confirmed.recv_timeout(DEADLINE).expect("the subscription is confirmed");
        Subscription { messages }
    }

    /// Kills the server; its port refuses until [`launch`](Self::launch).
    pub fn kill(&self) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(process);
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Freezes the server: connections stay, nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Undoes [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Every key with its content, for the report of a failed test.
    pub fn dump(&self) -> String {
        let keys: Vec<String> = match self.try_query(&["KEYS", "*"]) {
            Ok(keys) => keys,
            Err(error) => return format!("no dump: {error}\n"),
        };
        let mut dump = String::new();
        for key in keys {
            let content = ["LRANGE 0 -1", "SMEMBERS", "GET", "HGETALL"].iter().find_map(|read| {
                let mut words: Vec<&str> = read.split(' ').collect();
                words.insert(1, &key);
                self.try_query::<Value>(&words).ok()
            });
            writeln!(dump, "{key}: {content:?}").expect("a string takes everything");
        }
        dump
    }

    fn try_query<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => {
                let connection = self.client().get_connection_with_timeout(DEADLINE)?;
                connection.set_read_timeout(Some(DEADLINE))?;
                connection
            }
        };
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        let result = command.query(&mut connection);
        // After a lost connection the next command gets a new one.
        *slot = result
            .as_ref()
            .map_or_else(|error| !error.is_io_error(), |_| true)
            .then_some(connection);
        result
    }

    fn client(&self) -> Client {
        let login = self.password.as_ref().map(|word| format!("?pass={word}")).unwrap_or_default();
        Client::open(format!("unix://{}{login}", self.socket().display())).expect("a Redis URL")
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.as_ref().expect("redis-server runs").signal(signal);
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Redis").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Drop for Redis {
    #[allow(clippy::print_stderr, reason = "a failing test shows what was in Redis")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
            if let Some(process) = process {
                process.signal(Signal::SIGCONT);
                let log = process.stdout();
                eprintln!("--- redis on port {} ---\n{}\n{log}", self.port(), self.dump());
            }
        }
    }
}

fn follow(client: &Client, channel: &str, confirm: &SyncSender<()>, sender: &SyncSender<String>) {
    let Ok(mut connection) = client.get_connection() else {
        return;
    };
    let mut subscription = connection.as_pubsub();
    if subscription.subscribe(channel).is_err() || confirm.send(()).is_err() {
        return;
    }
    while let Ok(message) = subscription.get_message() {
        let Ok(payload) = message.get_payload() else {
            return;
        };
        if sender.send(payload).is_err() {
            return;
        }
    }
}

/// What is published on one channel from the subscription on.
#[derive(Debug)]
pub struct Subscription {
    messages: Receiver<String>,
}

impl Subscription {
    /// The next message.
    #[track_caller]
    pub fn next(&self) -> String {
        self.messages.recv_timeout(DEADLINE).expect("a message is published")
    }

    /// The next message if one comes within that time.
    pub fn within(&self, time: Duration) -> Option<String> {
        self.messages.recv_timeout(time).ok()
    }

    /// Whether nothing comes for that long; for absence that nothing else can prove.
    pub fn is_quiet_for(&self, time: Duration) -> bool {
        self.messages.recv_timeout(time).is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_list_and_dumps_it() {
        let redis = Redis::start();
        redis.frontend("a.test", "id", &["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        let length: usize = redis.query(&["LLEN", "frontend:a.test"]);
        assert_eq!(length, 3);
        assert!(redis.dump().contains("frontend:a.test"), "{}", redis.dump());
        assert!(redis.calls("llen") == 1 && redis.calls("spop") == 0);
    }

    #[test]
    fn comes_back_empty_on_the_same_port() {
        let redis = Redis::start();
        redis.run(&["SET", "k", "v"]);
        let port = redis.port();
        redis.kill();
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
        redis.launch();
        assert_eq!((redis.port(), redis.query::<usize>(&["DBSIZE"])), (port, 0));
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn delivers_what_is_published() {
        let redis = Redis::with_password("secret");
        let subscription = redis.subscribe("dead");
        redis.run(&["PUBLISH", "dead", "a;b;0;2"]);
        assert_eq!(subscription.next(), "a;b;0;2");
        assert!(subscription.is_quiet_for(Duration::from_millis(10)));
    }
}
