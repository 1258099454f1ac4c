//! The last known table on disk, for a start while Redis is away.
//!
//! Opt-in. Read once, before the first request; written in the background when what Redis said of
//! a host has changed, and at the end. All work on the file is done on the blocking pool: a disk
//! that hangs keeps neither a worker nor the control thread. Whatever is wrong with the file is
//! said once and harms nothing.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shared::driver::Driver;
use shared::store::Store;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::table::Table;

mod format;

use format::{FormatError, Now, Snapshot, UnixMillis};

/// How often is looked whether there is something to write.
const LOOK: Duration = Duration::from_secs(1);
/// The least time between two writes: what a crash may lose, against wear of the disk.
const INTERVAL: Duration = Duration::from_secs(10);
/// The longest that a start waits for the disk.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// A file of this size is read even when the memory is sized for less than it holds.
const MIN_LIMIT: u64 = 64 << 20;
/// Pause before Redis is asked again that has just failed to answer.
const PAUSE: Duration = Duration::from_secs(1);
/// How often one host is asked for: one list that cannot be read must not hold up the others. It is
/// asked for again by the next request.
const TRIES: usize = 3;
/// Random characters in the name of a file that is not complete yet.
const TEMPORARY: usize = 6;

/// The file of one router.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    /// The Redis that is read, without credentials.
    redis: String,
    table: Arc<Table>,
    clock: Arc<Clock>,
    status: Arc<Status>,
    /// Hosts that were read from the file, for as long as Redis has not been asked for them.
    unread: Vec<Box<str>>,
}

/// What others may know about the snapshot.
#[derive(Debug, Default)]
pub struct Status {
    stand_in: Mutex<Option<Standing>>,
    failures: AtomicU64,
}

/// A snapshot that stands in for a Redis that has not answered yet.
#[derive(Clone, Copy, Debug)]
struct Standing {
    hosts: usize,
    taken_at: UnixMillis,
}

impl Status {
    /// Hosts of the snapshot and its age, until Redis answers for the first time since the start.
    pub fn stand_in(&self) -> Option<(usize, Duration)> {
        let standing = *self.stand_in.lock().unwrap_or_else(PoisonError::into_inner);
        let Standing { hosts, taken_at } = standing?;
        Some((hosts, Duration::from_millis(unix_millis().saturating_sub(taken_at))))
    }

    /// Snapshots that could not be written.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn set(&self, standing: Option<Standing>) {
        *self.stand_in.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is larger than all that fits into memory ({0} bytes)")]
    TooLarge(u64),
    #[error("the disk does not answer")]
    Late,
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Text that tells one Redis from another and does not change with its password.
fn identity(driver: &Driver) -> String {
    Driver { user: None, password: None, ..driver.clone() }.to_string()
}

impl Keeper {
    /// Reads the snapshot at `path` into `table`, in which nothing may have been looked up yet, and
    /// says what it found. `driver` is the Redis that the table reads.
    pub async fn open(
        path: &Path,
        driver: &Driver,
        table: &Arc<Table>,
        clock: &Arc<Clock>,
    ) -> Self {
        let named = path.to_owned();
        let target = tokio::task::spawn_blocking(move || target(&named));
        let target = tokio::time::timeout(READ_TIMEOUT, target).await;
        let mut keeper = Self {
            // What a link names is replaced, not the link.
            path: target.ok().and_then(Result::ok).unwrap_or_else(|| path.to_owned()),
            redis: identity(driver),
            table: Arc::clone(table),
            clock: Arc::clone(clock),
            status: Arc::default(),
            unread: Vec::new(),
        };
        let can_write = keeper.probe().await;
        match keeper.read().await {
            Ok(Some((standing, unread))) => {
                keeper.status.set(Some(standing).filter(|standing| standing.hosts > 0));
                keeper.unread = unread;
            }
            Ok(None) => info!(path = %path.display(), "there is no snapshot yet"),
            Err(error) if can_write => warn!(
                path = %path.display(),
                "snapshot not used: {error}; it is replaced as soon as routes were read from Redis"
            ),
            Err(error) => warn!(
                path = %path.display(),
                "snapshot not used: {error}; it stays as it is until it can be written"
            ),
        }
        keeper
    }

    /// What to show to others.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Warns of a directory that cannot be written to before it matters. Returns whether it can.
    async fn probe(&self) -> bool {
        let path = self.path.clone();
        let probe = tokio::task::spawn_blocking(move || {
            check_replaceable(&path)?;
            temporary(&path).map(drop)
        });
        match tokio::time::timeout(READ_TIMEOUT, probe).await {
            Ok(Ok(Ok(()))) => true,
            Ok(Ok(Err(error))) => {
                self.report(&error);
                false
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Puts the file's hosts into the table; `None` when there is no file.
    async fn read(&self) -> Result<Option<(Standing, Vec<Box<str>>)>, ReadError> {
        let (path, limit) = (self.path.clone(), self.table.capacity().max(MIN_LIMIT));
        let read = tokio::task::spawn_blocking(move || read_file(&path, limit));
        let bytes = match tokio::time::timeout(READ_TIMEOUT, read).await {
            Ok(Ok(bytes)) => bytes?,
            Ok(Err(_)) | Err(_) => return Err(ReadError::Late),
        };
        let Some(bytes) = bytes else { return Ok(None) };
        let now = unix_millis();
        let snapshot = Snapshot::decode(&bytes, &self.redis)?;
        let started = Instant::now();
        self.table.restore(snapshot.records(now));
        info!(
            path = %self.path.display(), hosts = snapshot.len(), bytes = bytes.len(),
            age_s = snapshot.age(now).as_secs(), took_ms = started.elapsed().as_millis(),
            "snapshot read; its hosts count only until Redis answers"
        );
        let standing = Standing { hosts: snapshot.len(), taken_at: snapshot.taken_at };
        Ok(Some((standing, snapshot.names().map(Box::from).collect())))
    }

    /// Writes the snapshot whenever it has changed, and once more at `shutdown`. Meanwhile has the
    /// hosts that were read from it read anew from `store`, one after the other.
    pub async fn run(mut self, store: Store, shutdown: CancellationToken) {
        let unread = std::mem::take(&mut self.unread);
        let rereading = reread(unread, Arc::clone(&self.table), store, Arc::clone(&self.status));
        tokio::join!(shutdown.run_until_cancelled(rereading), self.keep(&shutdown));
    }

    async fn keep(&self, shutdown: &CancellationToken) {
        let mut written = 0;
        let mut last: Option<Instant> = None;
        let mut is_failing = self.status.failures() > 0;
        loop {
            let is_last = shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none();
            // Before the table is read: what changes meanwhile is written next time.
            let changes = self.table.changes();
            let is_due = is_last || last.is_none_or(|last| last.elapsed() >= INTERVAL);
            if changes != written && is_due {
                last = Some(Instant::now());
                match self.write().await {
                    Ok(()) => {
                        written = changes;
                        if is_failing {
                            info!(path = %self.path.display(), "snapshots are written again");
                        }
                        is_failing = false;
                    }
                    Err(error) => {
                        if is_failing {
                            self.status.failures.fetch_add(1, Ordering::Relaxed);
                        } else {
                            self.report(&error);
                        }
                        is_failing = true;
                    }
                }
            }
            if is_last {
                return;
            }
        }
    }

    async fn write(&self) -> std::io::Result<()> {
        let (path, redis) = (self.path.clone(), self.redis.clone());
        let (table, clock) = (Arc::clone(&self.table), Arc::clone(&self.clock));
        let write = tokio::task::spawn_blocking(move || {
            let routes = table.known();
            let now = Now { clock: clock.now(), unix: unix_millis() };
            let snapshot = Snapshot::of(&routes, &redis, now);
            let bytes = snapshot.encode().map_err(std::io::Error::other)?;
            write_file(&path, &bytes)
        });
        write.await.map_err(std::io::Error::other)?
    }

    fn report(&self, error: &std::io::Error) {
        self.status.failures.fetch_add(1, Ordering::Relaxed);
        let path = self.path.display();
        if error.kind() == std::io::ErrorKind::InvalidData {
            warn!(%path, "snapshot cannot be written: {error}; choose another path or remove the file");
            return;
        }
        warn!(
            %path, %error, user = nix::unistd::geteuid().as_raw(),
            "snapshot cannot be written: it needs a directory that exists, has room, and is \
             writable for the user that the router runs as"
        );
    }
}

/// Waits for Redis and asks it for every host that only a snapshot knows, one after the other:
/// whoever is gone is forgotten, and the next request for the others finds them in memory.
async fn reread(hosts: Vec<Box<str>>, table: Arc<Table>, store: Store, status: Arc<Status>) {
    while !store.wait_until_up(Duration::MAX).await {}
    let total = hosts.len();
    if status.stand_in().is_some() {
        status.set(None);
        info!(hosts = total, "Redis answers: the snapshot counts no more, its hosts are read anew");
    }
    for host in hosts {
        for _ in 0..TRIES {
            while !store.wait_until_up(Duration::MAX).await {}
            match table.reread(&host).await {
                Ok(_) => break,
                // Away again, or it refuses: then asking at once is of no use.
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
    if total > 0 {
        info!(hosts = total, "the hosts of the snapshot were read anew");
    }
}

/// At most `limit` bytes of the file, `None` when there is none.
fn read_file(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, ReadError> {
    // Opening a pipe would wait for somebody to write to it.
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if !metadata.is_file() => return Err(ReadError::NotAFile),
        Ok(metadata) if metadata.len() > limit => return Err(ReadError::TooLarge(limit)),
        other => other?,
    };
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// The file that is meant by `path`, and no leftovers beside it of a router that was killed while it
/// wrote.
fn target(path: &Path) -> PathBuf {
    let path = path.canonicalize().unwrap_or_else(|_not_there_yet| path.to_owned());
    let Some(name) = path.file_name() else { return path };
    let is_leftover = |entry: &std::ffi::OsStr| {
        let entry = entry.as_encoded_bytes();
        entry
            .strip_prefix(name.as_encoded_bytes())
            .and_then(|rest| rest.strip_suffix(b".tmp"))
            .is_some_and(|random| random.len() == TEMPORARY)
    };
    for entry in std::fs::read_dir(directory(&path)).into_iter().flatten().flatten() {
        if is_leftover(&entry.file_name())
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            warn!(path = %entry.path().display(), %error, "leftover of a snapshot not removed");
        }
    }
    path
}

/// A new file beside `path` that only its owner may read; removed when it is dropped.
fn temporary(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let directory = directory(path);
    let name = path.file_name().ok_or(std::io::ErrorKind::IsADirectory)?;
    tempfile::Builder::new()
        .prefix(name)
        .suffix(".tmp")
        .rand_bytes(TEMPORARY)
        .tempfile_in(directory)
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Only a snapshot, or an empty file, may be replaced: the path may be that of a device, or of a file that
/// somebody needs, such as the configuration.
///
/// # Errors
///
/// `InvalidData` when there is something else, and whatever keeps the file from being read.
fn check_replaceable(path: &Path) -> std::io::Result<()> {
    let invalid = |text: &str| Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Ok(metadata) if !metadata.is_file() => return invalid("it is not a regular file"),
        other => other?,
    };
    let mut start = Vec::new();
    File::open(path)?.take(format::MAGIC.len() as u64).read_to_end(&mut start)?;
    match start.is_empty() || start == format::MAGIC {
        true => Ok(()),
        false => invalid("there is a file that is not a snapshot of a router"),
    }
}

/// Replaces the file as a whole: whoever reads it, and whatever crashes, sees the old or the new.
fn write_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    check_replaceable(path)?;
    let mut file = temporary(path)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    drop(file.persist(path)?);
    // The rename itself has to survive a crash, too.
    File::open(directory(path))?.sync_all()
}

fn unix_millis() -> UnixMillis {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::try_from(elapsed.as_millis()).unwrap_or(UnixMillis::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::fs::PermissionsExt as _;

    use shared::driver::Driver;

    use super::{ReadError, identity, read_file, write_file};

    #[test]
    fn a_redis_is_told_apart_without_its_credentials() {
        for (driver, shown) in [
            ("redis://me:secret@r:7/2#p:", "redis://r:7/2#p:"),
            ("redis://r:7/2#p:", "redis://r:7/2#p:"),
            ("unix:/run/r.sock", "unix:/run/r.sock"),
        ] {
            assert_eq!(identity(&Driver::parse(driver).unwrap()), shown);
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_belongs_to_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot");
        assert!(read_file(&path, 9).unwrap().is_none());
        std::fs::write(&path, "a file that somebody needs").unwrap();
        assert_eq!(write_file(&path, b"new").unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(std::fs::read(&path).unwrap(), b"a file that somebody needs");
        std::fs::write(&path, "router-snapshot 1 older and longer").unwrap();
        write_file(&path, b"new").unwrap();
        assert_eq!(read_file(&path, 9).unwrap().unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "nothing is left over");
        assert!(matches!(read_file(&path, 2), Err(ReadError::TooLarge(2))));
        assert!(matches!(read_file(directory.path(), 9), Err(ReadError::NotAFile)));
        assert!(write_file(&path.join("below a file"), b"x").is_err());
        assert!(write_file(std::path::Path::new("/"), b"x").is_err());
    }
}
