//! One supervised connection to Redis.
//!
//! The supervisor task connects, checks the connection with `PING`, replaces it when it breaks,
//! and logs changes of state only. A connection that is read from also announces changes of the
//! keys (`CLIENT TRACKING` in broadcast mode, RESP3), where Redis can. Users take the current connection or none; they never wait
//! for a connection to come back.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, RedisResult, Value,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Change, StoreConfig, Tracking, Watcher};
use crate::backoff::Backoff;
use crate::driver::{Address, Driver};
use crate::keys;

/// How often an idle connection is asked whether it is alive: a frozen Redis is noticed within
/// this and the response timeout.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// First and last pause between attempts to connect. The last is short: a proxy without its
/// routes is an outage, and one small connection a second costs Redis nothing.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

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
        role: &'static str,
        watcher: Option<Arc<dyn Watcher>>,
        shutdown: &CancellationToken,
    ) -> Self {
        let shared = Arc::new(Shared {
            connection: ArcSwapOption::empty(),
            suspected: Notify::new(),
            up: watch::Sender::new(false),
        });
        let supervisor = Supervisor {
            shared: Arc::clone(&shared),
            driver: driver.clone(),
            config: config.clone(),
            role,
            watcher,
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

    /// Says that a command failed on the connection.
    pub(super) fn suspect(&self) {
        self.shared.suspected.notify_one();
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
    config: StoreConfig,
    role: &'static str,
    watcher: Option<Arc<dyn Watcher>>,
}

impl Supervisor {
    async fn run(self) {
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
        let mut reported_down = false;
        loop {
            match self.connect_tracked().await {
                Ok((connection, tracking)) => {
                    info!(
                        redis = %self.driver, role = self.role, ?tracking, "connected to Redis"
                    );
                    if let Some(watcher) = &self.watcher {
                        watcher.connected(&tracking);
                    }
                    reported_down = false;
                    backoff.reset();
                    self.shared.connection.store(Some(Arc::new(connection.clone())));
                    self.shared.up.send_replace(true);
                    let error = self.watch(connection).await;
                    self.shared.connection.store(None);
                    self.shared.up.send_replace(false);
                    if let Some(watcher) = &self.watcher {
                        watcher.disconnected();
                    }
                    warn!(
                        redis = %self.driver, role = self.role, %error,
                        "lost the connection to Redis, reconnecting"
                    );
                }
                Err(error) => {
                    if !reported_down {
                        warn!(
                            redis = %self.driver, role = self.role, %error,
                            "cannot use Redis: {}; until then, hosts that are not in memory get 503",
                            advice(&error)
                        );
                        reported_down = true;
                    }
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    /// Returns the error that shows that the connection is of no use any more.
    async fn watch(&self, mut connection: MultiplexedConnection) -> RedisError {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PING_INTERVAL) => {}
                () = self.shared.suspected.notified() => {}
            }
            let ping = redis::cmd("PING");
            if let Err(error) = ping.query_async::<Value>(&mut connection).await {
                return error;
            }
        }
    }
}

impl Supervisor {
    /// Connects, with tracking when somebody watches and Redis can do it.
    async fn connect_tracked(&self) -> RedisResult<(MultiplexedConnection, Tracking)> {
        if self.watcher.is_none() {
            return Ok((self.connect(ProtocolVersion::RESP2).await?, Tracking::Off));
        }
        let reason = match self.connect(ProtocolVersion::RESP3).await {
            Ok(mut connection) => {
                let prefix = &self.driver.prefix;
                let mut command = redis::cmd("CLIENT");
                command.arg("TRACKING").arg("ON").arg("BCAST");
                command.arg("PREFIX").arg(keys::frontend_prefix(prefix));
                command.arg("PREFIX").arg(keys::dead_prefix(prefix));
                match command.query_async::<Value>(&mut connection).await {
                    Ok(_ok) => return Ok((connection, Tracking::Active)),
                    Err(error) if is_refusal(&error) => {
                        return Ok((connection, Tracking::Unsupported(error.to_string())));
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) if is_refusal(&error) => error.to_string(),
            Err(error) => return Err(error),
        };
        let connection = self.connect(ProtocolVersion::RESP2).await?;
        Ok((connection, Tracking::Unsupported(reason)))
    }

    async fn connect(&self, protocol: ProtocolVersion) -> RedisResult<MultiplexedConnection> {
        let client = Client::open(connection_info(&self.driver, protocol)?)?;
        let mut settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.config.connect_timeout))
            .set_response_timeout(Some(self.config.response_timeout));
        if let Some(watcher) = self.watcher.as_ref().filter(|_| protocol == ProtocolVersion::RESP3)
        {
            settings = settings.set_push_sender(self.push_sender(watcher));
        }
        let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await?;
        // Logging in succeeds on a Redis that is still loading its data; it must not count as up.
        let _pong: Value = redis::cmd("PING").query_async(&mut connection).await?;
        Ok(connection)
    }

    /// What happens to what Redis says unasked. Runs in the task that reads the connection, before
    /// any later answer is read.
    fn push_sender(
        &self,
        watcher: &Arc<dyn Watcher>,
    ) -> impl Fn(PushInfo) -> Result<(), std::convert::Infallible> + use<> {
        let watcher = Arc::clone(watcher);
        let shared = Arc::clone(&self.shared);
        let frontends = keys::frontend_prefix(&self.driver.prefix);
        let deads = keys::dead_prefix(&self.driver.prefix);
        move |push| {
            match push.kind {
                PushKind::Invalidate => match push.data.into_iter().next() {
                    Some(Value::Array(changed)) => {
                        for key in changed {
                            let Value::BulkString(key) = key else { continue };
                            // A key that is no text is no host's.
                            let Ok(key) = std::str::from_utf8(&key) else { continue };
                            if let Some(name) = key.strip_prefix(&frontends) {
                                watcher.changed(Change::Frontend(name));
                            } else if let Some(host) = key.strip_prefix(&deads) {
                                watcher.changed(Change::Dead(host));
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

/// What to do about an error of connecting.
fn advice(error: &RedisError) -> &'static str {
    let text = error.to_string();
    match error.code() {
        Some("LOADING" | "BUSY" | "MASTERDOWN") => "it is up but busy, this may pass by itself",
        Some("MOVED" | "CLUSTERDOWN") => "it is part of a cluster, which is not supported",
        Some("NOAUTH" | "WRONGPASS") => "it refuses the password, check `driver` or --redis",
        Some("NOPERM") => "its user may not do what is needed, see docs/redis-schema.md",
        _ if error.kind() == ErrorKind::AuthenticationFailed || text.contains("AUTH") => {
            "it refuses the password, check `driver` or --redis"
        }
        _ => "check that it runs and that `driver` or --redis names it",
    }
}

/// Whether Redis understood the command and will not do it, now or later; anything else may pass.
fn is_refusal(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::RESP3NotSupported)
        || matches!(error.code(), Some("NOPROTO" | "NOPERM" | "ERR"))
}

fn connection_info(driver: &Driver, protocol: ProtocolVersion) -> RedisResult<ConnectionInfo> {
    let address = match &driver.address {
        Address::Tcp { host, port } => ConnectionAddr::Tcp(host.clone(), *port),
        Address::Unix(path) => ConnectionAddr::Unix(path.clone()),
    };
    let mut login =
        RedisConnectionInfo::default().set_db(i64::from(driver.database)).set_protocol(protocol);
    if let Some(user) = &driver.user {
        login = login.set_username(user);
    }
    if let Some(password) = &driver.password {
        login = login.set_password(password.expose());
    }
    let tcp = TcpSettings::default().set_nodelay(true);
    Ok(address.into_connection_info()?.set_redis_settings(login).set_tcp_settings(tcp))
}
