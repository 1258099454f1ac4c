//! One supervised connection to Redis.
//!
//! The supervisor task connects, checks the connection with `PING`, replaces it when it breaks,
//! and logs changes of state only. Users take the current connection or none; they never wait
//! for a connection to come back.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisResult,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::StoreConfig;
use crate::backoff::Backoff;
use crate::driver::{Address, Driver};

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
}

impl Supervisor {
    async fn run(self) {
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
        let mut reported_down = false;
        loop {
            match connect(&self.driver, &self.config).await {
                Ok(connection) => {
                    info!(redis = %self.driver, role = self.role, "connected to Redis");
                    reported_down = false;
                    backoff.reset();
                    self.shared.connection.store(Some(Arc::new(connection.clone())));
                    self.shared.up.send_replace(true);
                    let error = self.watch(connection).await;
                    self.shared.connection.store(None);
                    self.shared.up.send_replace(false);
                    warn!(
                        redis = %self.driver, role = self.role, %error,
                        "lost the connection to Redis, reconnecting"
                    );
                }
                Err(error) => {
                    if !reported_down {
                        warn!(
                            redis = %self.driver, role = self.role, %error,
                            "cannot reach Redis: hosts that are not in memory get 503 until it \
                             answers; check that it runs and that `driver` or --redis names it"
                        );
                        reported_down = true;
                    }
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    /// Returns the error that shows that the connection is of no use any more.
    async fn watch(&self, mut connection: MultiplexedConnection) -> redis::RedisError {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PING_INTERVAL) => {}
                () = self.shared.suspected.notified() => {}
            }
            let ping = redis::cmd("PING");
            if let Err(error) = ping.query_async::<redis::Value>(&mut connection).await {
                return error;
            }
        }
    }
}

async fn connect(driver: &Driver, config: &StoreConfig) -> RedisResult<MultiplexedConnection> {
    let client = Client::open(connection_info(driver)?)?;
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        .set_response_timeout(Some(config.response_timeout));
    let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await?;
    // Logging in succeeds on a Redis that is still loading its data; it must not count as up.
    let _pong: redis::Value = redis::cmd("PING").query_async(&mut connection).await?;
    Ok(connection)
}

fn connection_info(driver: &Driver) -> RedisResult<ConnectionInfo> {
    let address = match &driver.address {
        Address::Tcp { host, port } => ConnectionAddr::Tcp(host.clone(), *port),
        Address::Unix(path) => ConnectionAddr::Unix(path.clone()),
    };
    let mut login = RedisConnectionInfo::default().set_db(i64::from(driver.database));
    if let Some(user) = &driver.user {
        login = login.set_username(user);
    }
    if let Some(password) = &driver.password {
        login = login.set_password(password.expose());
    }
    let tcp = TcpSettings::default().set_nodelay(true);
    Ok(address.into_connection_info()?.set_redis_settings(login).set_tcp_settings(tcp))
}
