//! The only wiring: settings and sockets become threads and tasks, signals end them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use shared::secret::Secret;
use shared::store::{Outage, Store, StoreConfig, Watcher};
use shared::telemetry::LevelHandle;
use shared::time_limit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::access_log::{AccessLog, Opened, Sink};
use crate::admin::{self, Admin};
use crate::buffers::Buffers;
use crate::clients::Clients;
use crate::clock::Clock;
use crate::coherence::CachePolicy;
use crate::config::{AccessLogTarget, Config, ConfigError, TimeoutMark};
use crate::dead_marks;
use crate::descriptors::Descriptors;
use crate::grace::Grace;
use crate::host_failures::HostFailures;
use crate::listen::{Bound, Purpose};
use crate::message::client_info::Style;
use crate::metrics::{Counters, Metrics, StandIn, State};
use crate::passwords::Passwords;
use crate::pool::Pools;
use crate::privileges;
use crate::proxy::date::Dates;
use crate::proxy::pages::Pages;
use crate::proxy::tunnel::Tunnels;
use crate::proxy::{FreeWork, Settings, Shared};
use crate::route::sticky::StickyKey;
use crate::route::trust::Authorities;
use crate::seldom::Seldom;
use crate::snapshot::Keeper;
use crate::table::{self, Table};
use crate::tls::{self, Certificates, Places, StoredSource, Terminator};
use crate::upstream::connect::Connector;
use crate::upstream::guard::Guard;
use crate::upstream::names;
use crate::upstream::trust::read_authorities;
use crate::worker::{Listening, Worker};

mod check;
mod observers;
mod signals;

pub use check::missing_here;
use observers::{Caches, Observed};
use signals::{Reloadable, Signals};

/// The longest that a request waits for an answer of Redis.
const STORE_RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Limit for connecting to Redis.
const STORE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long "ready" is held back for a Redis that is there: the first requests shall not meet a
/// connection that is just being made.
const STORE_START_PATIENCE: Duration = Duration::from_secs(1);
/// Longest wait for a connection to a backend when `maxSockets` are in use and nothing else
/// limits it.
const MAX_QUEUE_TIME: Duration = Duration::from_secs(30);

/// What is spoken inside TLS, as clients are told in the handshake (ALPN), the preferred one first.
/// A client that offers others only is refused (RFC 7301 3.2).
const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1", b"http/1.0"];

/// How long the last snapshot may take at the end.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(3);

/// How long workers get to drop what is cut off, so that it is still logged.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Connections and requests lost to panics since the start.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// How often something panicked. Each cost one connection, never the process.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// A router whose sockets are bound and whose privileges are dropped.
#[derive(Debug)]
pub struct App {
    config: Config,
    /// First those of HTTP, then those of HTTPS.
    listeners: Vec<Bound>,
    admin: Option<Bound>,
    access_log: Opened,
    clock: Arc<Clock>,
    grace: Arc<Grace>,
    certificates: Option<Certificates>,
    authorities: Option<Authorities>,
}

/// What the configuration names files for, read.
#[derive(Debug)]
pub struct Files {
    clock: Arc<Clock>,
    grace: Arc<Grace>,
    certificates: Option<Certificates>,
    authorities: Option<Authorities>,
}

impl Files {
    /// Reads them, which may need rights that are given up later.
    ///
    /// # Errors
    ///
    /// When one that the router cannot do without cannot be used: a mistake in the configuration.
    pub fn read(config: &Config) -> anyhow::Result<Self> {
        let clock = Arc::new(Clock::new());
        let grace = Arc::new(Grace::new(config.empty_redis_grace));
        let certificates = match config.https.as_slice() {
            [] => None,
            https => {
                let binds = https.iter().map(|listener| listener.default.clone()).collect();
                let protocols = PROTOCOLS.get(usize::from(!config.http2)..).unwrap_or_default();
                let places = Places { binds, directory: config.certificates.clone() };
                Some(Certificates::read(places, &config.tls, protocols)?)
            }
        };
        let authorities = config.backend_ca.as_deref().map(read_authorities).transpose()?;
        Ok(Self { clock, grace, certificates, authorities })
    }
}

impl App {
    /// Binds every address, opens the access log and drops privileges. To be called before
    /// there are threads.
    ///
    /// # Errors
    ///
    /// When one of these fails; the message says what to do.
    pub fn bind(config: Config, files: Files) -> anyhow::Result<Self> {
        privileges::raise_open_files();
        let target = privileges::target(config.user.as_deref(), config.group.as_deref())?;
        let addresses: Vec<_> =
            config.listen.iter().copied().chain(config.https.iter().map(|l| l.address)).collect();
        if addresses.is_empty() {
            anyhow::bail!("there is no address to listen on: http.bind is empty");
        }
        let listeners = addresses
            .iter()
            .enumerate()
            .map(|(index, address)| {
                let is_http = index < config.listen.len();
                let purpose = if is_http { Purpose::Http } else { Purpose::Https };
                let is_twin = |other: &std::net::SocketAddr| {
                    other.is_ipv4() && other.port() == address.port()
                };
                Bound::new(*address, purpose, config.workers, addresses.iter().any(is_twin))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let admin = config
            .admin
            .map(|address| Bound::new(address, Purpose::Admin, 1, false))
            .transpose()?;
        let owner = target.as_ref().map(|target| (target.uid, target.gid));
        let access_log = match Opened::new(&config.access_log, owner) {
            Ok(opened) => opened,
            // Nobody asked for Hipache's default path; a machine without it can still route.
            Err(error) if !config.access_log_is_explicit => {
                let error = anyhow::Error::new(error);
                warn!("{error:#}: no access log is written; set one with --access-log");
                Opened::new(&AccessLogTarget::None, None)?
            }
            Err(error) => return Err(error.into()),
        };
        let Files { clock, grace, certificates, authorities } = files;
        if let Some(target) = target {
            target.become_it()?;
            info!(uid = target.uid.as_raw(), gid = target.gid.as_raw(), "privileges dropped");
        }
        Ok(Self { config, listeners, admin, access_log, clock, grace, certificates, authorities })
    }

    /// Routes until a signal ends it. `reload` reads the configuration anew for SIGHUP.
    ///
    /// # Errors
    ///
    /// When threads or runtimes cannot be made.
    pub fn run(
        self,
        level: &LevelHandle,
        reload: impl Fn() -> Result<Config, ConfigError>,
    ) -> anyhow::Result<()> {
        log_panics();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot make the control thread's runtime")?;
        let result = runtime.block_on(self.control(level, reload));
        runtime.shutdown_background();
        result
    }

    async fn control(
        self,
        level: &LevelHandle,
        reload: impl Fn() -> Result<Config, ConfigError>,
    ) -> anyhow::Result<()> {
        let Self { config, listeners, admin, access_log, clock, grace, certificates, authorities } =
            self;
        // Before anything is started: a signal that comes early must not be lost.
        let mut signals = Signals::new()?;
        let shutdown = CancellationToken::new();
        let routes = Arc::new(table::route_cache(config.cache));
        let stored_certificates = Arc::new(tls::certificate_cache(config.cache));
        let watcher: Arc<dyn Watcher> = Arc::new(Caches {
            grace: Arc::clone(&grace),
            clock: Arc::clone(&clock),
            routes: Arc::clone(&routes),
            certificates: Arc::clone(&stored_certificates),
        });
        let store = Store::start(
            &StoreConfig {
                drivers: config.drivers.clone(),
                connect_timeout: STORE_CONNECT_TIMEOUT,
                response_timeout: STORE_RESPONSE_TIMEOUT,
            },
            Some(watcher),
            config.cache.tracks,
            &shutdown,
        );
        let control = tokio::runtime::Handle::current();
        let certificates = certificates.map(|read| {
            Arc::new(read.with_store(StoredSource {
                store: store.clone(),
                cache: stored_certificates,
                grace: Arc::clone(&grace),
                clock: Arc::clone(&clock),
                control: control.clone(),
            }))
        });
        if let Some(certificates) = &certificates {
            drop(tokio::spawn(Arc::clone(certificates).follow()));
        }
        let table = Table::new(store.clone(), routes, grace, Arc::clone(&clock), control);
        let table = Arc::new(table);
        drop(tokio::spawn(Arc::clone(&table).follow_servers()));
        let keeper = match (&config.snapshot, config.drivers.first()) {
            (Some(path), Some(driver)) => Some(Keeper::open(path, driver, &table, &clock).await),
            _ => None,
        };
        let snapshot = keeper.as_ref().map(Keeper::status);
        let (marks, writer) = dead_marks::channel(&clock);
        drop(tokio::spawn(writer.run(store.clone(), Arc::clone(&table))));
        let pages = Pages::new(config.static_dir.clone());
        drop(tokio::spawn(Arc::clone(&pages).follow()));
        let settings = Arc::new(ArcSwap::from_pointee(settings(&config)));
        let (access_log, mut sinks) = match AccessLog::start(access_log, config.workers, &clock)? {
            Some((log, sinks)) => (Some(log), sinks),
            None => (None, Vec::new()),
        };
        let descriptors = Descriptors::of_process();
        let own = listeners.iter().chain(&admin).map(|bound| bound.address).collect();
        let guard = Guard { allowed: config.allowed_backends.clone(), own };
        let lookup = Arc::new(names::system);
        let connector = Connector::new(
            config.connect_timeout,
            guard,
            Arc::clone(&clock),
            authorities,
            lookup,
            descriptors,
        );
        let connector = Arc::new(connector);
        let queue_time = config.tcp_timeout.unwrap_or(MAX_QUEUE_TIME).min(MAX_QUEUE_TIME);

        let addresses: Vec<_> = listeners.iter().map(|bound| bound.address).collect();
        let https = config.https.iter().map(|listener| &listener.address);
        let prefaces = config.listen.iter().chain(https);
        let prefaces = prefaces.map(|address| config.proxy_protocol.contains(address));
        let mut sockets: Vec<_> = listeners
            .into_iter()
            .zip(prefaces)
            .enumerate()
            .map(|(index, (bound, has_preface))| {
                let bind = index.checked_sub(config.listen.len());
                let tls = bind
                    .zip(certificates.as_ref())
                    .map(|(bind, certificates)| Terminator::new(Arc::clone(certificates), bind));
                let sockets = bound.sockets.into_iter();
                sockets.map(move |socket| Listening { socket, has_preface, tls: tls.clone() })
            })
            .collect();
        let drain = CancellationToken::new();
        let stop = CancellationToken::new();
        let mut threads = Vec::new();
        let counters: Vec<_> = (0..config.workers).map(|_| Arc::<Counters>::default()).collect();
        let (counts, tunnel_refusals) = (Arc::default(), Arc::default());
        let tunnels: Vec<_> = (0..config.workers)
            .map(|_| {
                let (counts, refusals) = (Arc::clone(&counts), Arc::clone(&tunnel_refusals));
                let (tracker, shutdown) = (TaskTracker::new(), stop.clone());
                Arc::new(Tunnels { tracker, shutdown, counts, refusals })
            })
            .collect();
        let state: Arc<dyn State> = Arc::new(Observed {
            table: Arc::clone(&table),
            tunnels: tunnels.clone(),
            snapshot,
            certificates: certificates.clone(),
        });
        let admin_state = Arc::new(Admin {
            metrics: Metrics::new(counters.clone(), Arc::clone(&state)),
            state,
            is_draining: AtomicBool::new(false),
        });
        let admin_address = admin.as_ref().map(|bound| bound.address);
        if let Some(socket) = admin.and_then(|bound| bound.sockets.into_iter().next()) {
            drop(tokio::spawn(admin::serve(
                socket,
                Arc::clone(&admin_state),
                descriptors.monitors(),
                config.admin_hosts.clone(),
            )));
        }
        // Before the first request: a snapshot shall not answer for a Redis that is there. Who comes
        // meanwhile waits in the backlog of the sockets.
        let is_up = store.wait_until_up(STORE_START_PATIENCE).await;
        let keep = CancellationToken::new();
        let stand_in = admin_state.state.stand_in();
        let keeping = keeper.map(|keeper| tokio::spawn(keeper.run(store.clone(), keep.clone())));
        let passwords = Passwords::new(config.workers.div_ceil(2)).context("no random bytes")?;
        let passwords = Arc::new(passwords);
        let sticky_key = Arc::new(sticky_key(config.cookie_key.as_ref())?);
        let preface_refusals = Arc::<Seldom>::default();
        let failures = Arc::<HostFailures>::default();
        let clients = Arc::<Clients>::default();
        let mut workers = counters.into_iter().zip(tunnels);
        for index in 0..config.workers {
            let sink: Option<Arc<Sink>> = sinks.pop();
            let (counters, tunnels) = workers.next().unwrap_or_default();
            let worker = Worker {
                sockets: sockets.iter_mut().filter_map(Iterator::next).collect(),
                shared: Arc::new(Shared {
                    table: Arc::clone(&table),
                    pools: Pools::new(Arc::clone(&connector), config.max_sockets, queue_time),
                    connections: Arc::default(),
                    buffers: Buffers::new(descriptors),
                    dates: Dates::default(),
                    work: FreeWork::default(),
                    marks: marks.clone(),
                    pages: Arc::clone(&pages),
                    clock: Arc::clone(&clock),
                    sink,
                    tunnels,
                    counters,
                    passwords: Arc::clone(&passwords),
                    failures: Arc::clone(&failures),
                    sticky_key: Arc::clone(&sticky_key),
                    preface_refusals: Arc::clone(&preface_refusals),
                    loop_reports: Seldom::default(),
                }),
                h2c: config.h2c,
                settings: Arc::clone(&settings),
                clients: Arc::clone(&clients),
                descriptors,
                drain: drain.clone(),
                stop: stop.clone(),
            };
            let name = format!("worker-{index}");
            let spawn = std::thread::Builder::new().name(name).spawn(move || worker.run());
            threads.push(spawn.context("cannot start a worker thread")?);
        }
        drop(marks);

        // Hipache's default path may have been impossible to open.
        let logs_to = access_log.as_ref().map_or(&AccessLogTarget::None, |_| &config.access_log);
        let outage = (!is_up).then(|| store.outage());
        announce(&config, logs_to, &addresses, admin_address, outage, stand_in);
        signals
            .serve(
                &config,
                level,
                &reload,
                &Reloadable {
                    settings: &settings,
                    pages: &pages,
                    access_log: access_log.as_ref(),
                    certificates: certificates.as_deref(),
                },
            )
            .await;

        admin_state.is_draining.store(true, Ordering::Relaxed);
        notify(&[sd_notify::NotifyState::Stopping]);
        info!(
            seconds = config.drain_timeout.as_secs_f64(),
            "draining: no new connections, running requests may finish"
        );
        drain.cancel();
        let mut joined = tokio::task::spawn_blocking(move || join(threads));
        let mut is_joined = false;
        tokio::select! {
            result = &mut joined => {
                result.context("cannot wait for the workers")?;
                is_joined = true;
            }
            () = time_limit::sleep(config.drain_timeout) => {
                warn!("drain time is over: what still runs is cut off");
            }
            () = signals.terminate() => warn!("second signal: what still runs is cut off"),
        }
        stop.cancel();
        if !is_joined && tokio::time::timeout(STOP_PATIENCE, joined).await.is_err() {
            warn!("a worker does not end");
        }
        keep.cancel();
        if let Some(keeping) = keeping {
            tokio::select! {
                ended = tokio::time::timeout(SNAPSHOT_PATIENCE, keeping) => {
                    if ended.is_err() {
                        warn!("the last snapshot is not written: the disk does not answer");
                    }
                }
                () = signals.terminate() => {}
            }
        }
        if let Some(log) = access_log {
            // A disk or a reader that takes nothing must not keep the process.
            let stopped = tokio::task::spawn_blocking(move || log.stop());
            tokio::select! {
                _ = tokio::time::timeout(STOP_PATIENCE, stopped) => {}
                () = signals.terminate() => {}
            }
        }
        shutdown.cancel();
        info!("stopped");
        Ok(())
    }
}

/// The key that was configured, or one that ends with this process.
fn sticky_key(configured: Option<&Secret>) -> anyhow::Result<StickyKey> {
    if let Some(key) = configured {
        return Ok(StickyKey::new(key.expose().as_bytes()));
    }
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_unspecified| anyhow::anyhow!("no random bytes"))?;
    Ok(StickyKey::new(&key))
}

fn settings(config: &Config) -> Settings {
    Settings {
        tcp_timeout: config.tcp_timeout,
        retry_on_error: config.retry_on_error,
        dead_backend_ttl: config.dead_backend_ttl,
        backend_keep_alive: config.backend_keep_alive,
        dead_backend_on_500: config.dead_backend_on_500,
        dead_backend_on_silence: config.dead_backend_on_timeout == TimeoutMark::All,
        tunnel_idle_timeout: config.tunnel_idle_timeout,
        trusted_proxies: config.trusted_proxies.clone(),
        style: Style { plain_ipv4: config.plain_ipv4, rfc_7239: config.forwarded },
        request_ids: config.request_ids,
        limits: config.limits.clone(),
    }
}

/// Says what is served and from where: in the log for people, to the service manager for
/// programs.
fn announce(
    config: &Config,
    access_log: &AccessLogTarget,
    addresses: &[std::net::SocketAddr],
    admin: Option<std::net::SocketAddr>,
    outage: Option<Outage>,
    stand_in: Option<StandIn>,
) {
    let urls = addresses.iter().enumerate().map(|(index, address)| {
        let scheme = if index < config.listen.len() { "http" } else { "https" };
        format!("{scheme}://{address}")
    });
    let urls: Vec<_> = urls.chain(admin.map(|admin| format!("admin=http://{admin}"))).collect();
    let urls = urls.join(" ");
    let CachePolicy { tracks, size, ttl } = config.cache;
    let cache = match (tracks, ttl) {
        (true, _) => format!("about {size} hosts, each until Redis announces a change"),
        (false, Some(ttl)) => format!("about {size} hosts, for {} s each", ttl.as_secs_f64()),
        (false, None) => "off, Redis is read at every request".to_owned(),
    };
    let redis: Vec<_> = config.drivers.iter().map(ToString::to_string).collect();
    info!(
        version = env!("CARGO_PKG_VERSION"), workers = config.workers, redis = redis.join(" "),
        redis.up = outage.is_none(), cache, %access_log,
        "serving {urls}"
    );
    let Some(outage) = outage else {
        ready(&urls);
        return;
    };
    if let Some(StandIn { hosts, age }) = stand_in {
        warn!(
            "{outage}: until that changes, {hosts} hosts are served from the snapshot {}, {} s old, \
             and all others get 503",
            config.snapshot.as_deref().unwrap_or_else(|| Path::new("")).display(),
            age.as_secs()
        );
    } else {
        warn!(
            "{outage}: every request gets 503 until that changes; routes are read as soon as Redis \
             answers"
        );
    }
    ready(&urls);
}

fn ready(urls: &str) {
    notify(&[
        sd_notify::NotifyState::Status(&format!("serving {urls}")),
        sd_notify::NotifyState::Ready,
    ]);
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    // Without a service manager there is nobody to tell.
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell the service manager");
    }
}

fn join(threads: Vec<JoinHandle<std::io::Result<()>>>) {
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => error!(%error, "a worker failed"),
            Err(_panic) => error!("a worker panicked"),
        }
    }
}

/// A panic loses the connection whose task it was in; it is said and counted.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let count = PANICS.fetch_add(1, Ordering::Relaxed) + 1;
        let thread = std::thread::current();
        error!(
            router.panics_total = count, thread = thread.name().unwrap_or("?"),
            backtrace = %std::backtrace::Backtrace::capture(),
            "{panic}; one connection is lost, please report this"
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::{log_panics, panics};

    #[test]
    fn a_panic_ends_its_own_task_and_is_counted() {
        log_panics();
        let before = panics();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let other = tokio::spawn(async { 7 });
            let lost = tokio::spawn(async { panic!("as if a connection did") });
            assert!(lost.await.unwrap_err().is_panic());
            assert_eq!(other.await.unwrap(), 7, "the worker goes on");
        });
        // Other tests of this process keep the usual messages.
        drop(std::panic::take_hook());
        assert!(panics() > before);
    }
}
