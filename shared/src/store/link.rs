//! One supervised connection to Redis.
//!
//! The supervisor task connects, checks the connection with `PING`, replaces it when it breaks,
//! and logs changes of state only. A connection that is read from also announces changes of the
//! keys (`CLIENT TRACKING` in broadcast mode, RESP3), where Redis can. Users take the current
//! connection or none; they never wait for a connection to come back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ErrorKind, FromRedisValue, ProtocolVersion, PushInfo, PushKind,
    RedisError, RedisResult, Value,
};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::dial::{Dialer, Target, in_time};
use super::outage::{Outage, one_line};
use super::{Change, StoreConfig, Tracking, Watcher};
use crate::backoff::Backoff;
use crate::driver::{Address, Driver};
use crate::keys::Kind;
use crate::lock::lock;

/// How often an idle connection is asked whether it is alive: a frozen Redis is noticed within
/// this and the response timeout.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// The same where Sentinels decide who the primary is: they are asked as often, so that a primary
/// that was replaced without its knowledge is left, too.
const SENTINEL_INTERVAL: Duration = Duration::from_secs(1);
/// First and last pause between attempts to connect. The last is short: a proxy without its
/// routes is an outage, and one small connection a second costs Redis nothing.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Reading, and writing too where there is one driver.
    Read,
    /// Writing dead marks only.
    Write,
    /// Keeping the lists, for marathon-sync.
    Keep,
}

impl Role {
    /// What an outage means.
    fn consequence(self) -> &'static str {
        match self {
            Self::Read => "hosts that are not in memory get 503",
            Self::Write => "dead marks count in this process only",
            Self::Keep => "routes stay as they are",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Keep => "keep",
        })
    }
}

/// A connection that ends sooner is followed by a pause, longer each time: whatever ends it will end
/// the next one, too.
const STEADY: Duration = Duration::from_secs(5);

/// A connection that heals itself. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    connection: ArcSwapOption<MultiplexedConnection>,
    /// Told when a command failed, so that the connection is checked at once.
    suspected: Notify,
    up: watch::Sender<bool>,
    /// Why there is no connection; means nothing while there is one.
    outage: Mutex<Outage>,
    /// It was said that the present connection refuses something.
    has_refused: AtomicBool,
    /// How long an answer may take.
    response_timeout: Duration,
    /// Scripts are refused on the present connection.
    has_refused_scripts: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("up", &*self.up.borrow()).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn start(
        driver: &Driver,
        config: &StoreConfig,
        role: Role,
        audience: Option<Audience>,
        shutdown: &CancellationToken,
    ) -> Self {
        let shared = Arc::new(Shared {
            connection: ArcSwapOption::empty(),
            suspected: Notify::new(),
            up: watch::Sender::new(false),
            outage: Mutex::default(),
            has_refused: AtomicBool::new(false),
            response_timeout: config.response_timeout,
            has_refused_scripts: AtomicBool::new(false),
        });
        let supervisor = Supervisor {
            shared: Arc::clone(&shared),
            driver: driver.clone(),
            dialer: Dialer::new(driver, config),
            role,
            audience,
        };
        let shutdown = shutdown.clone();
        drop(tokio::spawn(async move {
            shutdown.run_until_cancelled(supervisor.run()).await;
        }));
        Self { shared }
    }

    /// The connection, if there is one now.
    pub(super) fn connection(&self) -> Option<MultiplexedConnection> {
        self.shared.connection.load().as_deref().cloned()
    }

    /// Waits for an answer on the connection, as long as one may take.
    pub(super) async fn in_time<T>(
        &self,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        in_time(self.shared.response_timeout, answer).await
    }

    /// Says that a command failed on the connection.
    pub(super) fn suspect(&self) {
        self.shared.suspected.notify_one();
    }

    /// Says once for each connection that Redis refuses what it was asked, although it serves.
    pub(super) fn refused(&self, error: &RedisError) {
        if !self.shared.has_refused.swap(true, Ordering::Relaxed) {
            let advice = Outage::of(error).advice(false);
            warn!(%error, "Redis refuses to be read: {advice}");
        }
    }

    /// What keeps Redis from being used, while there is no connection.
    pub(super) fn outage(&self) -> Outage {
        *lock(&self.shared.outage)
    }

    /// Whether the present connection has refused no script yet.
    pub(super) fn allows_scripts(&self) -> bool {
        !self.shared.has_refused_scripts.load(Ordering::Relaxed)
    }

    /// Notes that scripts are refused, and says so once for each connection.
    pub(super) fn refused_scripts(&self, error: &RedisError) {
        if !self.shared.has_refused_scripts.swap(true, Ordering::Relaxed) {
            warn!(
                %error,
                "Redis allows no scripts to read with (+eval +llen +hlen +scard, see \
                 docs/redis-schema.md): a key with huge items delays the look-ups of all hosts"
            );
        }
    }

    pub(super) fn is_up(&self) -> bool {
        *self.shared.up.borrow()
    }

    pub(super) async fn wait_until_up(&self, limit: Duration) -> bool {
        let mut up = self.shared.up.subscribe();
        let reached = tokio::time::timeout(limit, up.wait_for(|up| *up)).await;
        matches!(reached, Ok(Ok(_)))
    }
}

struct Supervisor {
    shared: Arc<Shared>,
    driver: Driver,
    dialer: Dialer,
    role: Role,
    audience: Option<Audience>,
}

/// Who hears of a connection.
pub(super) struct Audience {
    pub(super) watcher: Arc<dyn Watcher>,
    /// It wants changes announced.
    pub(super) tracks: bool,
}

impl Supervisor {
    async fn run(self) {
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
        // What was said about the present outage: each cause once.
        let mut reported: Vec<&str> = Vec::new();
        loop {
            match self.establish().await {
                Ok(Established { target, connection, tracking, server }) => {
                    info!(
                        redis = %self.driver, address = %target, role = %self.role, ?tracking,
                        "connected to Redis"
                    );
                    if let Some(Audience { watcher, .. }) = &self.audience {
                        watcher.connected(&tracking, server.as_deref());
                    }
                    reported.clear();
                    *lock(&self.shared.outage) = Outage::Unreachable;
                    let since = Instant::now();
                    self.shared.has_refused.store(false, Ordering::Relaxed);
                    self.shared.has_refused_scripts.store(false, Ordering::Relaxed);
                    self.shared.connection.store(Some(Arc::new(connection.clone())));
                    self.shared.up.send_replace(true);
                    let error = self.watch(&target, connection).await;
                    self.shared.connection.store(None);
                    self.shared.up.send_replace(false);
                    if let Some(Audience { watcher, .. }) = &self.audience {
                        watcher.disconnected();
                    }
                    warn!(
                        redis = %self.driver, role = %self.role, %error,
                        "lost the connection to Redis, reconnecting"
                    );
                    if since.elapsed() >= STEADY {
                        backoff.reset();
                    } else {
                        tokio::time::sleep(backoff.next_delay()).await;
                    }
                }
                Err(error) => {
                    let outage = Outage::of(&error);
                    *lock(&self.shared.outage) = outage;
                    let advice = outage.advice(self.driver.tls.is_some());
                    if !reported.contains(&advice) {
                        warn!(
                            redis = %self.driver, role = %self.role, error = one_line(&error),
                            "cannot use Redis: {advice}; until then, {}", self.role.consequence()
                        );
                        reported.push(advice);
                    }
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    /// Returns the error that shows that the connection is of no use any more.
    async fn watch(&self, target: &Target, mut connection: MultiplexedConnection) -> RedisError {
        let follows_sentinels = matches!(self.driver.address, Address::Sentinel { .. });
        let interval = if follows_sentinels { SENTINEL_INTERVAL } else { PING_INTERVAL };
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = self.shared.suspected.notified() => {}
            }
            let ping = redis::cmd("PING");
            let answer = self.dialer.in_time(ping.query_async::<Value>(&mut connection)).await;
            if let Err(error) = answer {
                return error;
            }
            if follows_sentinels {
                // Sentinels that are away say nothing against a primary that answers.
                match self.dialer.target().await {
                    Ok(primary) if primary != *target => {
                        return std::io::Error::other(format!("the primary is {primary} now"))
                            .into();
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        }
    }
}

impl Supervisor {
    /// Whether a new connection serves. Where it is read from, reading is what has to work, just as it is
    /// done for a host: a node of a cluster, or a user without a right, answers PING all the same.
    async fn probe(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        if self.role == Role::Read {
            // These rights every look-up needs. No host has an empty name: there is nothing to send
            // back.
            let prefix = &self.driver.prefix;
            let dead = Kind::Dead.prefix(prefix);
            pipe.cmd("LRANGE").arg(Kind::Frontend.prefix(prefix)).arg(0).arg(-1);
            pipe.cmd("HGETALL").arg(Kind::Options.prefix(prefix));
            pipe.cmd("SMEMBERS").arg(&dead).cmd("PTTL").arg(&dead);
        } else {
            pipe.cmd("PING");
        }
        let answers: Vec<RedisResult<Value>> =
            self.dialer.in_time(pipe.query_async(connection)).await?;
        for answer in answers {
            match answer {
                // A key of the wrong type harms its own host only.
                Err(error) if error.code() != Some("WRONGTYPE") => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Connects to a Redis that serves.
    async fn establish(&self) -> RedisResult<Established> {
        let (target, mut connection, tracking) = self.connect_tracked().await?;
        // Logging in succeeds on a Redis that is still loading its data; it must not count as up.
        self.probe(&mut connection).await?;
        let server = match self.audience {
            // A proxy before Redis may leave it unanswered, and the server may freeze just now.
            Some(_) => self.dialer.in_time(run_id(&mut connection)).await?,
            None => None,
        };
        Ok(Established { target, connection, tracking, server })
    }

    /// Connects, with tracking when somebody watches and Redis can do it.
    async fn connect_tracked(&self) -> RedisResult<(Target, MultiplexedConnection, Tracking)> {
        let target = self.dialer.target().await?;
        let plain = || self.dialer.connect(&target, ProtocolVersion::RESP2, |settings| settings);
        let Some(Audience { watcher, .. }) = self.audience.as_ref().filter(|who| who.tracks) else {
            return Ok((target.clone(), plain().await?, Tracking::Off));
        };
        let push_sender = self.push_sender(watcher);
        let with_push = |settings: AsyncConnectionConfig| settings.set_push_sender(push_sender);
        let reason = match self.dialer.connect(&target, ProtocolVersion::RESP3, with_push).await {
            Ok(mut connection) => {
                let prefix = &self.driver.prefix;
                let mut command = redis::cmd("CLIENT");
                command.arg("TRACKING").arg("ON").arg("BCAST");
                for kind in Kind::ALL {
                    command.arg("PREFIX").arg(kind.prefix(prefix));
                }
                let answer = command.query_async::<Value>(&mut connection);
                match self.dialer.in_time(answer).await {
                    Ok(_ok) => return Ok((target, connection, Tracking::Active)),
                    Err(error) if is_refusal(&error) => {
                        let tracking = Tracking::Unsupported(error.to_string());
                        return Ok((target, connection, tracking));
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) if is_refusal(&error) => error.to_string(),
            Err(error) => return Err(error),
        };
        Ok((target.clone(), plain().await?, Tracking::Unsupported(reason)))
    }

    /// What happens to what Redis says unasked. Runs in the task that reads the connection, before
    /// any later answer is read.
    fn push_sender(
        &self,
        watcher: &Arc<dyn Watcher>,
    ) -> impl Fn(PushInfo) -> Result<(), std::convert::Infallible> + use<> {
        let watcher = Arc::clone(watcher);
        let shared = Arc::clone(&self.shared);
        let prefix = self.driver.prefix.clone();
        move |push| {
            match push.kind {
                PushKind::Invalidate => match push.data.into_iter().next() {
                    Some(Value::Array(changed)) => {
                        for key in changed {
                            let Value::BulkString(key) = key else { continue };
                            // A key that is no text is no host's.
                            let Ok(key) = std::str::from_utf8(&key) else { continue };
                            if let Some((kind, name)) = Kind::parse(&prefix, key) {
                                watcher.changed(Change::Key(kind, name));
                            }
                        }
                    }
                    _ => watcher.changed(Change::Everything),
                },
                PushKind::Disconnection => shared.suspected.notify_one(),
                _ => {}
            }
            Ok(())
        }
    }
}

/// A connection that serves.
struct Established {
    target: Target,
    connection: MultiplexedConnection,
    tracking: Tracking,
    /// Which start of which server it leads to, if that may be asked for.
    server: Option<String>,
}

/// Asks the server which of its starts this is.
async fn run_id(connection: &mut MultiplexedConnection) -> RedisResult<Option<String>> {
    let mut pipe = redis::pipe();
    pipe.ignore_errors().cmd("INFO").arg("server");
    let answers: Vec<RedisResult<Value>> = pipe.query_async(connection).await?;
    let info = answers.into_iter().next().and_then(Result::ok);
    let info = info.and_then(|info| String::from_redis_value(info).ok()).unwrap_or_default();
    Ok(info.lines().find_map(|line| line.strip_prefix("run_id:")).map(|id| id.trim().to_owned()))
}

/// Whether Redis understood the command and will not do it, now or later; anything else may pass.
fn is_refusal(error: &RedisError) -> bool {
    // Says nothing about what Redis can do.
    let is_full = error.to_string().contains("max number of clients");
    matches!(error.kind(), ErrorKind::RESP3NotSupported)
        || matches!(error.code(), Some("NOPROTO" | "NOPERM" | "ERR")) && !is_full
}
