//! Making one connection: who the primary is, TLS, logging in.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo,
    IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError, RedisResult,
    TlsCertificates, Value,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tracing::warn;

use super::StoreConfig;
use crate::driver::{Address, Driver, HostPort, Tls};
use crate::secret::Secret;
use crate::time_limit;

/// How long the other Sentinels may take once one has answered: of several answers the newest
/// counts, and a Sentinel that is cut off from the others names the old primary.
const SENTINEL_GRACE: Duration = Duration::from_millis(200);

/// Bytes that are read of what a server says before it is asked anything.
const MAX_REFUSAL: usize = 1024;

/// Where a connection goes to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Target {
    Server(HostPort),
    Socket(std::path::PathBuf),
}

impl Target {
    fn address(&self, is_tls: bool) -> ConnectionAddr {
        match self {
            Self::Socket(path) => ConnectionAddr::Unix(path.clone()),
            Self::Server(HostPort { host, port }) if is_tls => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: false,
                tls_params: None,
            },
            Self::Server(HostPort { host, port }) => ConnectionAddr::Tcp(host.clone(), *port),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server(address) => write!(f, "{address}"),
            Self::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Makes connections for one driver.
#[derive(Clone, Debug)]
pub(super) struct Dialer {
    driver: Driver,
    settings: AsyncConnectionConfig,
    connect_timeout: Duration,
    response_timeout: Duration,
    /// The file of the password could not be read the last time: logged once until it can.
    lacks_password_file: Arc<AtomicBool>,
}

/// See [`Dialer::in_time`].
pub(super) async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    match time_limit::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

impl Dialer {
    pub(super) fn new(driver: &Driver, config: &StoreConfig) -> Self {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.connect_timeout))
            // Ours, see `in_time`.
            .set_response_timeout(None);
        Self {
            driver: driver.clone(),
            settings,
            connect_timeout: config.connect_timeout,
            response_timeout: config.response_timeout,
            lacks_password_file: Arc::default(),
        }
    }

    /// Waits for an answer as long as one may take. The limit of the crate would pass in a pause of the
    /// process, with the answer unread.
    pub(super) async fn in_time<T>(
        &self,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        in_time(self.response_timeout, answer).await
    }

    /// Where the connection is to go to now. Sentinels are asked each time.
    pub(super) async fn target(&self) -> RedisResult<Target> {
        match &self.driver.address {
            Address::Tcp(address) => Ok(Target::Server(address.clone())),
            Address::Unix(path) => Ok(Target::Socket(path.clone())),
            Address::Sentinel { sentinels, service, user, password } => {
                let login = login(user.as_deref(), password.as_ref());
                let questions = sentinels.iter().map(|sentinel| {
                    let (target, login) = (Target::Server(sentinel.clone()), login.clone());
                    async move {
                        let answer = self.ask(&target, login, service).await;
                        answer.map_err(|error| said_by("Sentinel", &target, &error))
                    }
                });
                newest(questions.collect()).await.map(Target::Server)
            }
        }
    }

    /// What one Sentinel says, with its epoch.
    async fn ask(
        &self,
        sentinel: &Target,
        login: RedisConnectionInfo,
        service: &str,
    ) -> RedisResult<(u64, HostPort)> {
        let mut connection = self.open(sentinel, login, self.settings.clone()).await?;
        let mut pipe = redis::pipe();
        // The first changes as soon as a replica is promoted, the second knows the epoch.
        pipe.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        pipe.cmd("SENTINEL").arg("MASTER").arg(service);
        let (address, details): (Option<(String, u16)>, HashMap<String, String>) =
            self.in_time(pipe.query_async(&mut connection)).await?;
        let (host, port) = address.ok_or_else(|| failure("it knows no primary of that name"))?;
        let epoch = details.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        Ok((epoch, HostPort { host, port }))
    }

    /// The password as it is now. A file that cannot be read, or is empty because it is being written,
    /// leaves the last one; Redis says whether that still does.
    async fn password(&self) -> Option<Secret> {
        let before = self.driver.password.clone();
        let Some(path) = self.driver.password_file.clone() else { return before };
        let shown = path.display().to_string();
        let problem = match tokio::task::spawn_blocking(move || Secret::read(&path)).await {
            Ok(Ok(password)) if !password.expose().is_empty() => {
                self.lacks_password_file.store(false, Ordering::Relaxed);
                return Some(password);
            }
            Ok(Ok(_)) => "it is empty".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if !self.lacks_password_file.swap(true, Ordering::Relaxed) {
            warn!(
                path = %shown,
                "the file of the password of Redis cannot be used, the password that was read before is: {problem}"
            );
        }
        before
    }

    /// Connects to `target`, which must be a primary if a Sentinel named it.
    pub(super) async fn connect(
        &self,
        target: &Target,
        protocol: ProtocolVersion,
        with: impl FnOnce(AsyncConnectionConfig) -> AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let login = login(self.driver.user.as_deref(), self.password().await.as_ref())
            .set_db(i64::from(self.driver.database))
            .set_protocol(protocol);
        let mut connection = self.open(target, login, with(self.settings.clone())).await?;
        if matches!(self.driver.address, Address::Sentinel { .. }) {
            let role = redis::cmd("ROLE");
            let role: Vec<Value> = self.in_time(role.query_async(&mut connection)).await?;
            if role.first() != Some(&Value::BulkString(b"master".to_vec())) {
                // For a moment after a failover, and for good when a Sentinel is cut off.
                return Err(failure(format!(
                    "{target} is no primary, although a Sentinel says so"
                )));
            }
        }
        Ok(connection)
    }

    async fn open(
        &self,
        target: &Target,
        login: RedisConnectionInfo,
        settings: AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let tls = self.driver.tls.as_ref();
        let info: ConnectionInfo = target.address(tls.is_some()).into_connection_info()?;
        let info = info
            .set_redis_settings(login)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let connecting = async {
            let client = match tls {
                Some(tls) => Client::build_with_tls(info, certificates(tls).await?)?,
                None => Client::open(info)?,
            };
            client.get_multiplexed_async_connection_with_config(&settings).await
        };
        // The limit of the crate does not cover every step, such as the files of TLS.
        match time_limit::timeout(2 * self.connect_timeout, connecting).await {
            Ok(Err(error)) if error.is_connection_dropped() && tls.is_none() => {
                Err(self.refusal(target).await.unwrap_or(error))
            }
            Ok(connection) => connection,
            Err(_elapsed) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
}

impl Dialer {
    /// What a server says before it is asked anything. In protected mode, or with too many clients, Redis
    /// says so and closes at once: what was sent to it meanwhile makes the kernel drop its answer.
    async fn refusal(&self, target: &Target) -> Option<RedisError> {
        let Target::Server(HostPort { host, port }) = target else { return None };
        let reading = async {
            let mut stream = TcpStream::connect((host.as_str(), *port)).await.ok()?;
            let mut said = [0; MAX_REFUSAL];
            let mut length = 0;
            while length < said.len() {
                match stream.read(said.get_mut(length..)?).await {
                    Ok(0) | Err(_) => break,
                    Ok(more) => length += more,
                }
            }
            let said = String::from_utf8_lossy(said.get(..length)?).into_owned();
            // The first sentence says what is wrong; Redis goes on with all the ways out.
            let sentence = said.strip_prefix('-')?.split(['\r', '\n']).next()?;
            let sentence = sentence.split_once(". ").map_or(sentence, |(first, _)| first);
            Some(failure(sentence))
        };
        tokio::time::timeout(self.connect_timeout, reading).await.ok().flatten()
    }
}

/// Of the answers that come in time, the one of the highest epoch.
async fn newest<A>(mut questions: FuturesUnordered<A>) -> RedisResult<HostPort>
where
    A: Future<Output = RedisResult<(u64, HostPort)>>,
{
    let mut best: Option<(u64, HostPort)> = None;
    let mut errors = Vec::new();
    let grace = tokio::time::sleep(Duration::MAX);
    tokio::pin!(grace);
    loop {
        let answer = tokio::select! {
            answer = questions.next() => answer,
            () = &mut grace => None,
        };
        match answer {
            Some(Ok(answer)) => {
                if best.is_none() {
                    grace.as_mut().reset(tokio::time::Instant::now() + SENTINEL_GRACE);
                }
                if best.as_ref().is_none_or(|(epoch, _)| answer.0 > *epoch) {
                    best = Some(answer);
                }
            }
            Some(Err(error)) => errors.push(error.to_string()),
            None => break,
        }
    }
    best.map(|(_, address)| address).ok_or_else(|| failure(errors.join("; ")))
}

fn login(user: Option<&str>, password: Option<&Secret>) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default();
    if let Some(user) = user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password.expose());
    }
    login
}

async fn certificates(tls: &Tls) -> RedisResult<TlsCertificates> {
    // The process has one provider; which of the libraries asks for it first does not matter.
    let _is_set_already = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let tls = tls.clone();
    let read = tokio::task::spawn_blocking(move || {
        let root_cert = tls.ca.as_deref().map(read).transpose()?;
        let client_tls = match &tls.identity {
            None => None,
            Some((certificate, key)) => {
                Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
            }
        };
        Ok::<_, RedisError>(TlsCertificates { client_tls, root_cert })
    });
    read.await.unwrap_or_else(|error| Err(failure(error.to_string())))
}

fn read(path: &Path) -> RedisResult<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| failure(format!("{} cannot be read: {error}", path.display())))
}

fn said_by(who: &str, target: &Target, error: &RedisError) -> RedisError {
    failure(format!("{who} {target}: {error}"))
}

fn failure(text: impl Into<String>) -> RedisError {
    std::io::Error::other(text.into()).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::{HostPort, failure, newest};

    fn at(port: u16) -> HostPort {
        HostPort { host: "h".into(), port }
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_sentinels_the_newest_answer_counts() {
        let answer = |millis, epoch, port| {
            async move {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                Ok((epoch, at(port)))
            }
            .boxed()
        };
        let refused = async { Err(failure("refused")) }.boxed();
        let all = [refused, answer(1, 7, 1), answer(100, 8, 2), answer(9000, 9, 3)];
        assert_eq!(
            newest(all.into_iter().collect()).await.unwrap(),
            at(2),
            "who is late is not heard"
        );
    }

    #[tokio::test]
    async fn without_any_answer_every_reason_is_named() {
        let all = ["a is away", "b is away"].map(|text| async move { Err(failure(text)) });
        let error = newest(all.into_iter().collect()).await.unwrap_err().to_string();
        assert!(error.contains("a is away; b is away"), "{error}");
    }
}
