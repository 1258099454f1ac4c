//! Redis, seen as the place where routes and dead marks live.
//!
//! Every type of the `redis` crate stays inside this module. Reads go to the first driver, writes
//! to the last (Hipache's replica + primary). Each side is a [`link`]: one multiplexed connection
//! that is watched, replaced when it breaks, and absent, never blocking, while Redis is away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{FromRedisValue, ParsingError, Pipeline, RedisError, RedisResult, Value};
use tokio_util::sync::CancellationToken;

use crate::driver::Driver;
use crate::keys::{self, Kind};

mod certificates;
mod client;
mod dial;
mod host_record;
mod link;
mod outage;
mod scripts;

pub use certificates::StoredCertificate;
pub use client::{Client, Command, Reply};
use link::{Audience, Link, Role};
pub use outage::Outage;

/// How to reach Redis, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The first is read from, the last written to.
    pub drivers: Vec<Driver>,
    /// Limit for connecting.
    pub connect_timeout: Duration,
    /// Limit for one answer: the longest that a request can wait for Redis.
    pub response_timeout: Duration,
}

/// Why Redis gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no connection now; one is being tried for.
    #[error("there is no connection to Redis")]
    Unavailable,
    /// It has reached its `maxmemory` and may evict nothing.
    #[error(
        "Redis is full: it uses more memory than its `maxmemory` and may evict nothing (OOM); raise `maxmemory` or remove what is not needed"
    )]
    Full,
    /// The server that is written to takes no writes.
    #[error("it is a read-only replica (READONLY): name its primary, last if several are named")]
    ReadOnly,
    /// The command failed.
    #[error("Redis did not answer as expected: {0}")]
    Command(Arc<RedisError>),
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        match error.code() {
            Some("READONLY") => Self::ReadOnly,
            Some("OOM") => Self::Full,
            // A command of a script, as servers before Redis 7 report it.
            Some("ERR") if error.detail().is_some_and(|detail| detail.contains("-OOM ")) => {
                Self::Full
            }
            _ => Self::Command(Arc::new(error)),
        }
    }
}

impl From<ParsingError> for StoreError {
    fn from(error: ParsingError) -> Self {
        Self::from(RedisError::from(error))
    }
}

/// Hears about the keys that are read. Called from the task that reads the connection: must not
/// block.
pub trait Watcher: std::fmt::Debug + Send + Sync + 'static {
    /// There is a connection to the server with the id `server` (`run_id`, another one after each start of
    /// Redis; `None` where Redis does not tell), and what [`Tracking`] says holds for it. Called before
    /// anything is read over it.
    fn connected(&self, tracking: &Tracking, server: Option<&str>);

    /// There is none any more. What was read over it may be out of date from now on.
    fn disconnected(&self);

    /// Something was written, deleted or has expired.
    fn changed(&self, change: Change<'_>);
}

/// Whether Redis tells us about changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Tracking {
    /// Every change of the keys that we read is announced on the connection.
    Active,
    /// Nobody asked for it.
    Off,
    /// Redis cannot or may not do so, for this reason.
    Unsupported(String),
}

/// What has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change<'a> {
    /// All keys, for example by FLUSHALL.
    Everything,
    /// The key of this kind and name.
    Key(Kind, &'a str),
}

/// What Redis holds for one requested host.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HostRecord {
    /// The first name of the look-up order that holds anything.
    pub found: Option<Found>,
    /// The list is one that the caller knows: its rows are left out, there are none in `found`.
    pub is_known: bool,
    /// What `options:` says of the host, if anything.
    pub options: Option<RawOptions>,
    /// Positions in `dead:<requested host>`, as they stand there.
    pub dead: Vec<u32>,
    /// Time until `dead:<requested host>` expires; `None` when it does not.
    pub dead_ttl: Option<Duration>,
    /// Set when the dead set cannot be read: what is wrong with the key.
    pub dead_problem: Option<KeyProblem>,
}

/// The winning `frontend:` key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// The name behind `frontend:`, such as `*.example.com`.
    pub name: String,
    /// The list as it stands (item 0 is the identifier), or why it cannot be read.
    pub rows: Result<Vec<Vec<u8>>, KeyProblem>,
}

/// Settings of a host as they stand in `options:` hashes: those of the requested host, and for
/// fields that it does not have those of the list that matched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawOptions {
    /// The name behind `options:` of the hash that counts first.
    pub name: String,
    /// Fields and values.
    pub fields: Fields,
}

/// The fields of a hash.
pub type Fields = BTreeMap<Vec<u8>, Vec<u8>>;

/// A key that cannot be used, and why.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{key} cannot be used: {detail}")]
pub struct KeyProblem {
    /// The full key.
    pub key: String,
    /// What Redis said.
    pub detail: String,
}

/// A backend to mark dead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mark {
    /// The requested host, whose dead set is written.
    pub host: String,
    /// Name of the list that the backend stands in, such as `*.example.com`.
    pub frontend: String,
    /// The backend's row in that list, to the byte.
    pub row: Vec<u8>,
    /// The backend's URL as the `dead` channel carries it.
    pub url: String,
    /// Its 0-based position in the list.
    pub position: usize,
    /// Number of backends in the list.
    pub count: usize,
    /// How long it stays dead.
    pub ttl: Duration,
}

impl Mark {
    /// How long Redis keeps the mark: whole seconds, not none and not more than it takes.
    pub fn ttl_in_redis(&self) -> Duration {
        /// About ten years: beyond some number EXPIRE fails, and the mark would stay for ever.
        const MAX_SECONDS: u64 = 315_360_000;
        Duration::from_secs(self.ttl.as_secs().clamp(1, MAX_SECONDS))
    }
}

/// What became of a mark.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Marked {
    /// The dead set holds it, at the position that the backend has now.
    At(usize),
    /// It was announced only: an external checker keeps the dead set.
    LeftToChecker,
    /// The backend is no longer in the list.
    Gone,
}

/// A dead set whose positions mean an older list, and what they mean now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Repair {
    /// The requested host, whose dead set it is.
    pub host: String,
    /// Name of the list.
    pub frontend: String,
    /// The set as it must still stand in Redis.
    pub from: Vec<u32>,
    /// The set as it is to be.
    pub to: Vec<u32>,
    /// Items 1 to n of the list as they must stand in Redis.
    pub rows: Vec<Vec<u8>>,
}

/// The routes' store. Cheap to clone; usable from every thread.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    read: Link,
    write: Link,
    read_prefix: String,
    write_prefix: String,
    /// Nobody announces what changes between two commands.
    reads_in_multi: bool,
    /// The server that is written to is the one that is read.
    is_one_server: bool,
}

impl Store {
    /// Starts to connect, in tasks of the current runtime that end with `shutdown`. Does not wait
    /// for Redis: see [`Store::is_up`]. With `tracks` the watcher hears of changes, where Redis can announce
    /// them; without, of connections alone.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime, or when `config.drivers` is empty.
    pub fn start(
        config: &StoreConfig,
        watcher: Option<Arc<dyn Watcher>>,
        tracks: bool,
        shutdown: &CancellationToken,
    ) -> Self {
        let first = config.drivers.first().expect("the configuration has at least one driver");
        let last = config.drivers.last().expect("the configuration has at least one driver");
        let reads_in_multi = !tracks;
        let audience = watcher.map(|watcher| Audience { watcher, tracks });
        let read = Link::start(first, config, Role::Read, audience, shutdown);
        let write = if config.drivers.len() > 1 {
            Link::start(last, config, Role::Write, None, shutdown)
        } else {
            read.clone()
        };
        let (read_prefix, write_prefix) = (first.prefix.clone(), last.prefix.clone());
        let is_one_server = config.drivers.len() == 1;
        Self {
            inner: Arc::new(Inner {
                read,
                write,
                read_prefix,
                write_prefix,
                reads_in_multi,
                is_one_server,
            }),
        }
    }

    /// Whether the side that is read from is connected.
    pub fn is_up(&self) -> bool {
        self.inner.read.is_up()
    }

    /// What keeps Redis from being used, while the side that is read from is not connected.
    pub fn outage(&self) -> Outage {
        self.inner.read.outage()
    }

    /// Whether the side that is written to is connected.
    pub fn can_write(&self) -> bool {
        self.inner.write.is_up()
    }

    /// Waits until the side that is read from is connected, at most `limit`.
    pub async fn wait_until_up(&self, limit: Duration) -> bool {
        self.inner.read.wait_until_up(limit).await
    }

    /// Indexes of those of `keys` that exist, the prefix of the driver put before each, and whether they are lists.
    /// Keys that the user may not ask for count as missing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when Redis is away or slow.
    pub async fn existing(&self, keys: &[&str]) -> Result<Vec<(usize, bool)>, StoreError> {
        let prefix = &self.inner.read_prefix;
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        for key in keys {
            pipe.cmd("LLEN").arg(format!("{prefix}{key}"));
        }
        let answers = self.inner.read.query(&pipe).await?.into_iter().enumerate();
        let existing = |(index, answer): (usize, RedisResult<Value>)| match answer {
            Ok(length) => (length != Value::Int(0)).then_some((index, true)),
            Err(error) => (error.code() == Some("WRONGTYPE")).then_some((index, false)),
        };
        Ok(answers.filter_map(existing).collect())
    }

    /// How many of the lists with these names do not exist, or are empty.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when Redis is away or slow.
    pub async fn count_missing(&self, names: &[Box<str>]) -> Result<usize, StoreError> {
        /// Names that are asked for at a time: other look-ups come in between.
        const BATCH: usize = 500;
        let mut missing = 0;
        for names in names.chunks(BATCH) {
            let mut pipe = redis::pipe();
            pipe.ignore_errors();
            for name in names {
                pipe.cmd("LLEN").arg(keys::frontend(&self.inner.read_prefix, name));
            }
            let lengths = self.inner.read.query(&pipe).await?;
            // What may not be asked for, or has another type, is not known to be missing.
            missing +=
                lengths.into_iter().filter(|length| matches!(length, Ok(Value::Int(0)))).count();
        }
        Ok(missing)
    }

    /// Whether an external health checker is at work (`hchecker_ping` younger than 30 s).
    ///
    /// # Errors
    ///
    /// [`StoreError`] when Redis is away, slow or refuses.
    pub async fn checker_is_alive(&self) -> Result<bool, StoreError> {
        let mut pipe = redis::pipe();
        pipe.ignore_errors().cmd("GET").arg(keys::CHECKER_PING);
        let answers = self.inner.write.query(&pipe).await?;
        // A key of the wrong type is no ping.
        let ping = answers.into_iter().next().and_then(Result::ok);
        let ping = ping.and_then(|value| Option::<Vec<u8>>::from_redis_value(value).ok().flatten());
        Ok(keys::checker_is_alive(ping.as_deref(), unix_seconds()))
    }

    /// Marks a backend dead as Hipache does: `SADD` and `EXPIRE` unless an external checker is at
    /// work, and the announcement on the `dead` channel always. The backend is found by its row:
    /// a list that was edited meanwhile cannot turn the mark against another one.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when Redis is away or slow, or the set has another type.
    pub async fn mark_dead(&self, mark: &Mark) -> Result<Marked, StoreError> {
        let checker_is_alive = self.checker_is_alive().await?;
        let prefix = &self.inner.write_prefix;
        let command = scripts::mark(prefix, mark, checker_is_alive, self.inner.is_one_server);
        let position = match self.inner.write.run(&command).await {
            Ok(value) => i64::from_redis_value(value).ok(),
            Err(StoreError::Command(error)) if scripts::are_refused(&error) => {
                self.mark_dead_plainly(mark, checker_is_alive).await?;
                i64::try_from(mark.position).ok()
            }
            Err(error) => return Err(error),
        };
        Ok(match position.and_then(|position| usize::try_from(position).ok()) {
            None => Marked::Gone,
            Some(_) if checker_is_alive => Marked::LeftToChecker,
            Some(position) => Marked::At(position),
        })
    }

    /// The same without a script. A full Redis queues nothing in a `MULTI`, but takes the
    /// announcement alone, which needs no memory.
    async fn mark_dead_plainly(
        &self,
        mark: &Mark,
        checker_is_alive: bool,
    ) -> Result<(), StoreError> {
        let pipe = scripts::plain_mark(&self.inner.write_prefix, mark, checker_is_alive);
        let answers = match self.inner.write.query(&pipe).await {
            Err(StoreError::Command(error)) if error.code() == Some("EXECABORT") => {
                let mut plain = redis::pipe();
                plain.ignore_errors();
                for command in pipe.cmd_iter() {
                    plain.add_command(command.clone());
                }
                self.inner.write.query(&plain).await?
            }
            answers => answers?,
        };
        for answer in answers {
            answer.map_err(StoreError::from)?;
        }
        Ok(())
    }

    /// Rewrites a dead set whose positions mean an older list, if list and set still are what
    /// `repair` says; its time to live stays. Returns whether it was rewritten: of several
    /// routers that see the same edit, one does it. While an external checker is at work the set is
    /// its business, and nothing is written.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when Redis is away, slow or refuses scripts.
    pub async fn repair_dead(&self, repair: &Repair) -> Result<bool, StoreError> {
        if self.checker_is_alive().await? {
            return Ok(false);
        }
        let command = scripts::repair(&self.inner.write_prefix, repair);
        let value = self.inner.write.run(&command).await?;
        Ok(i64::from_redis_value(value).is_ok_and(|done| done == 1))
    }
}

impl Link {
    /// Runs one command.
    async fn run(&self, command: &redis::Cmd) -> Result<Value, StoreError> {
        let mut connection = self.connection().ok_or(StoreError::Unavailable)?;
        let answer = self.in_time(command.query_async::<Value>(&mut connection)).await;
        answer.map_err(|error| {
            if error.is_io_error() || error.is_timeout() {
                self.suspect();
            }
            StoreError::from(error)
        })
    }

    /// Runs a pipeline whose commands may fail one by one.
    async fn query(&self, pipe: &Pipeline) -> Result<Vec<RedisResult<Value>>, StoreError> {
        let mut connection = self.connection().ok_or(StoreError::Unavailable)?;
        let answers = pipe.query_async::<Vec<RedisResult<Value>>>(&mut connection);
        match self.in_time(answers).await {
            Ok(answers) => Ok(answers),
            Err(error) => {
                self.suspect();
                Err(StoreError::from(error))
            }
        }
    }
}

/// A member of a dead set; anything that is not a position marks nothing.
fn parse_position(member: &[u8]) -> Option<u32> {
    std::str::from_utf8(member).ok()?.trim().parse().ok()
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::parse_position;

    #[test]
    fn only_positions_are_read_from_a_dead_set() {
        assert_eq!(parse_position(b"0"), Some(0));
        assert_eq!(parse_position(b" 12"), Some(12));
        for garbage in [&b"-1"[..], b"http://a", b"", b"1.5", b"99999999999", b"\xff"] {
            assert_eq!(parse_position(garbage), None);
        }
    }
}
