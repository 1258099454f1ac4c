//! Real Sentinels that watch a primary and make a replica its successor.

use std::net::SocketAddr;
use std::process::Command;

use redis::{Client, FromRedisValue};
use tempfile::TempDir;

use crate::eventually::{DEADLINE, eventually};
use crate::ports::Reserved;
use crate::process::Process;
use crate::redis::Redis;

/// The name that every Sentinel here gives the primary.
pub const SERVICE: &str = "main";

/// One `redis-sentinel`; ends with the value.
#[derive(Debug)]
pub struct Sentinel {
    process: Process,
    port: Reserved,
    _dir: TempDir,
}

impl Sentinel {
    /// Watches `primary` and takes it for down after half a second of silence, on its own vote.
    pub fn start(primary: &Redis) -> Self {
        let dir = tempfile::Builder::new().prefix("sentinel").tempdir().expect("a directory");
        let port = Reserved::new();
        let file = dir.path().join("sentinel.conf");
        let config = format!(
            "bind 127.0.0.1\nport {}\ndir {}\n\
             sentinel monitor {SERVICE} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {SERVICE} 500\n\
             sentinel failover-timeout {SERVICE} 3000\n",
            port.port(),
            dir.path().display(),
            primary.port(),
        );
        std::fs::write(&file, config).expect("a file");
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel");
        let process = Process::start(&mut command, dir.path(), "sentinel");
        let sentinel = Self { process, port, _dir: dir };
        eventually(DEADLINE, "Sentinel answers PING", || {
            sentinel.query::<String>(&["PING"]).is_some()
        });
        sentinel
    }

    /// Waits until it knows that many replicas: without one there is nothing to fail over to.
    pub fn wait_for_replicas(&self, count: usize) {
        eventually(DEADLINE, "Sentinel knows the replicas", || {
            let details: Option<std::collections::HashMap<String, String>> =
                self.query(&["SENTINEL", "MASTER", SERVICE]);
            details.and_then(|d| d.get("num-slaves")?.parse().ok()) == Some(count)
        });
    }

    /// The port of the server that it takes for the primary.
    pub fn primary(&self) -> Option<u16> {
        self.query::<(String, u16)>(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE])
            .map(|(_, port)| port)
    }

    /// Makes it fail over now, although the primary is well.
    pub fn fail_over(&self) {
        eventually(DEADLINE, "Sentinel starts a failover", || {
            self.query::<String>(&["SENTINEL", "FAILOVER", SERVICE]).is_some()
        });
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.process.stdout()
    }

    fn query<T: FromRedisValue>(&self, words: &[&str]) -> Option<T> {
        let client = Client::open(format!("redis://{}", self.addr())).expect("a URL");
        let mut connection = client.get_connection_with_timeout(DEADLINE).ok()?;
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut connection).ok()
    }
}
