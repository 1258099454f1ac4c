//! What the settings mean: flag before variable before file before default, and every value checked.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use shared::admin::Hosts;
use shared::secret::Secret;

use super::drivers::drivers;
use super::file::{self, CountOrSwitch};
use super::limits::limits;
use super::listeners::{
    DEFAULT_LISTEN, listeners, parse_listen, proxy_protocol, tls_listeners, tls_policy,
};
use super::read::Loaded;
use super::{AccessLogTarget, Config, ConfigError, DEFAULT_CACHE_SIZE, TimeoutMark, legacy};
use crate::cli::{CacheMode, Cli};
use crate::coherence::CachePolicy;

/// Hipache's cap of sockets per backend and worker.
const DEFAULT_MAX_SOCKETS: u32 = 100;
/// Hipache's limit for silence.
const DEFAULT_TCP_TIMEOUT: Duration = Duration::from_secs(30);
/// A SYN that got lost is sent again after 1 s; 3 s leaves room for that once, while a request
/// for a host that is gone can still be answered by another backend before people give up.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Hipache's time for which a failed backend is left out.
const DEFAULT_DEAD_BACKEND_TTL: Duration = Duration::from_secs(30);
/// Hipache's number of retries.
const DEFAULT_RETRY_ON_ERROR: u32 = 3;
/// Hipache's access log.
const DEFAULT_ACCESS_LOG: &str = "/var/log/hipache/access.log";
/// Long enough for an idle chat or terminal, short enough to forget vanished peers.
const DEFAULT_TUNNEL_IDLE_TIMEOUT: Duration = Duration::from_hours(1);
/// What orchestrators commonly leave between SIGTERM and SIGKILL.
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Balancers of clouds close unused connections after 60 s; the side that sends requests has to be the
/// first to close.
const BALANCER_IDLE_TIMEOUT: Duration = Duration::from_secs(65);
/// Time to notice, and to write the routes again by hand or by the next reconciliation.
const DEFAULT_EMPTY_REDIS_GRACE: Duration = Duration::from_mins(5);
/// Hipache's user and group.
const DEFAULT_USER: &str = "www-data";
/// Hipache's `lruCache.ttl` when only its `size` is given.
const DEFAULT_CACHE_TTL: Duration = Duration::from_secs(5);
/// Characters of a key that nobody guesses: 128 bits in hexadecimal digits are 32.
const MIN_COOKIE_KEY: usize = 32;
/// Threads that one process may reasonably have as workers.
const MAX_WORKERS: u32 = 1024;

/// Resolves every setting of `cli` and the file that was `loaded` from `named`.
///
/// # Errors
///
/// [`ConfigError`] names file, line and key, or the flag.
pub(super) fn resolve(
    cli: &Cli,
    mut loaded: Loaded,
    named: Option<PathBuf>,
) -> Result<Config, ConfigError> {
    let mut warnings = std::mem::take(&mut loaded.warnings);
    legacy::apply(&mut loaded, &mut warnings);
    let file = &loaded.file;
    let server = &file.server;

    let listen: Vec<_> = match cli.listen.as_slice() {
        [] => listeners(&loaded, &file.http, "http", DEFAULT_LISTEN)?
            .into_iter()
            .map(|(address, _)| address)
            .collect(),
        texts => {
            let mut addresses = Vec::new();
            for text in texts {
                addresses.extend(parse_listen("--listen", text)?);
            }
            addresses
        }
    };
    let https = tls_listeners(&loaded)?;
    let tls = tls_policy(&loaded, &mut warnings)?;

    let proxy_protocol = proxy_protocol(&loaded, cli.proxy_protocol, &listen, &https)?;

    if listen.is_empty() && https.is_empty() {
        return Err(loaded.error("http.bind", "there is no address to listen on"));
    }

    let drivers = drivers(cli, &loaded, &mut warnings)?;

    let seconds = |key: &str, flag: Option<Duration>, value: Option<f64>, default: Duration| {
        if let Some(flag) = flag {
            return Ok(flag);
        }
        let Some(value) = value else {
            return Ok(default);
        };
        Duration::try_from_secs_f64(value).map_err(|_out_of_range| {
            loaded.error(key, format!("expected a number of seconds from 0 on, not {value}"))
        })
    };
    let or_never = |limit: Duration| Some(limit).filter(|limit| !limit.is_zero());
    let at_least_one = |key: &str, flag: &str, from_cli: Option<u32>, from_file: Option<u32>| {
        let problem = "expected a number from 1 on, not 0";
        match (from_cli, from_file) {
            (Some(0), _) => Err(flag_error(flag, problem)),
            (None, Some(0)) => Err(loaded.error(key, problem)),
            (from_cli, from_file) => Ok(from_cli.or(from_file)),
        }
    };

    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers =
        at_least_one("server.workers", "--workers", cli.workers.map(u32::from), server.workers)?;
    if workers.is_some_and(|workers| workers > MAX_WORKERS) {
        let problem = format!("expected a number from 1 to {MAX_WORKERS}");
        return Err(loaded.error("server.workers", problem));
    }
    let max_sockets =
        at_least_one("server.maxSockets", "--max-sockets", cli.max_sockets, server.max_sockets)?
            .unwrap_or(DEFAULT_MAX_SOCKETS);

    let tcp_timeout =
        seconds("server.tcpTimeout", cli.tcp_timeout, server.tcp_timeout, DEFAULT_TCP_TIMEOUT)?;
    let connect_timeout = seconds(
        "server.connectTimeout",
        cli.connect_timeout,
        server.connect_timeout,
        DEFAULT_CONNECT_TIMEOUT,
    )?;
    if connect_timeout.is_zero() {
        return Err(loaded.error("server.connectTimeout", "expected more than 0 seconds"));
    }
    // Hipache knows only tcpTimeout: a shorter one limits connecting, too.
    let connect_timeout = match or_never(tcp_timeout) {
        Some(limit) => connect_timeout.min(limit),
        None => connect_timeout,
    };

    let retry_on_error = cli.retry_on_error.unwrap_or(match server.retry_on_error {
        None | Some(CountOrSwitch::Switch(true)) => DEFAULT_RETRY_ON_ERROR,
        Some(CountOrSwitch::Switch(false)) => 0,
        Some(CountOrSwitch::Count(count)) => count,
    });

    let mode = match (cli.cache, &server.cache) {
        (Some(mode), _) => mode,
        (None, Some(text)) => {
            text.parse().map_err(|problem: String| loaded.error("server.cache", problem))?
        }
        (None, None) => CacheMode::Tracking,
    };
    let cache = cache_policy(mode, server.lru_cache.as_deref(), |ttl| {
        seconds("server.lruCache.ttl", None, ttl, DEFAULT_CACHE_TTL)
    })?;

    let explicit = cli.access_log.as_deref().or(server.access_log.as_deref());
    let access_log = AccessLogTarget::parse(explicit.unwrap_or(DEFAULT_ACCESS_LOG));

    let static_dir = cli.static_dir.clone().or_else(|| server.static_dir.clone());
    if let Some(directory) = &static_dir
        && !directory.is_dir()
    {
        let problem = format!("{} is not a directory", directory.display());
        return Err(match &cli.static_dir {
            Some(_) => flag_error("--static-dir", problem),
            None => loaded.error("server.staticDir", problem),
        });
    }

    let certificates = file.https.directory.clone().filter(|_| !https.is_empty());
    if let Some(directory) = certificates.as_ref().filter(|directory| !directory.is_dir()) {
        let problem = format!("{} is not a directory", directory.display());
        return Err(loaded.error("https.directory", problem));
    }
    let backend_ca = server.backend_ca.clone();
    if let Some(path) = backend_ca.as_ref().filter(|path| !path.is_file()) {
        let problem = format!("{} is not a file", path.display());
        return Err(loaded.error("server.backendCa", problem));
    }

    let snapshot = cli.snapshot.clone().or_else(|| server.snapshot.clone());
    let snapshot = snapshot.filter(|path| !["", "none"].map(Path::new).contains(&path.as_path()));

    let user = cli.user.clone().or_else(|| file.user.as_ref().map(ToString::to_string));
    let group = cli.group.clone().or_else(|| file.group.as_ref().map(ToString::to_string));
    // A group of its own makes no sense for root; naming a user alone means the user's own group.
    let group = group.or_else(|| match user {
        Some(_) => None,
        None => Some(DEFAULT_USER.to_owned()),
    });
    let user =
        Some(user.unwrap_or_else(|| DEFAULT_USER.to_owned())).filter(|user| !user.is_empty());

    let admin = match cli.admin.as_ref().or(server.admin.as_ref()).filter(|text| *text != "none") {
        None => None,
        Some(text) => {
            let addresses = parse_listen("--admin", text).map_err(|error| match cli.admin {
                Some(_) => error,
                None => loaded.error("server.admin", error.problem),
            })?;
            addresses.into_iter().next()
        }
    };

    let admin_hosts = admin_hosts(cli, &loaded)?;

    let trusted_proxies = networks(
        &loaded,
        ("--trusted-proxies", &cli.trusted_proxies),
        ("server.trustedProxies", server.trusted_proxies.as_ref()),
    )?;
    if !proxy_protocol.is_empty() && trusted_proxies.as_ref().is_none_or(Vec::is_empty) {
        let problem = "PROXY headers are taken from server.trustedProxies only: name the balancers \
                       that send them there";
        return Err(match cli.proxy_protocol {
            Some(_) => flag_error("--proxy-protocol", problem),
            None => loaded.error("http.proxyProtocol", problem),
        });
    }

    let limits = limits(cli, &loaded, or_never(tcp_timeout))?;
    if trusted_proxies.as_ref().is_some_and(|networks| !networks.is_empty())
        && limits.idle_timeout < BALANCER_IDLE_TIMEOUT
    {
        warnings.push(format!(
            "server.idleTimeout is {} s, but server.trustedProxies names balancers: most of them keep \
             an unused connection for 60 s, and their next request on one that was just closed here \
             fails; set server.idleTimeout to {} or more, or theirs below it",
            limits.idle_timeout.as_secs_f64(),
            BALANCER_IDLE_TIMEOUT.as_secs()
        ));
    }

    Ok(Config {
        listen,
        proxy_protocol,
        admin,
        admin_hosts,
        https,
        certificates,
        tls,
        http2: file.https.http2.unwrap_or(true),
        h2c: file.http.h2c.unwrap_or(false),
        backend_ca,
        drivers,
        workers: workers.map_or(cores, |workers| workers as usize),
        max_sockets: max_sockets as usize,
        tcp_timeout: or_never(tcp_timeout),
        connect_timeout,
        dead_backend_ttl: seconds(
            "server.deadBackendTTL",
            cli.dead_backend_ttl,
            server.dead_backend_ttl,
            DEFAULT_DEAD_BACKEND_TTL,
        )?,
        retry_on_error,
        access_log,
        access_log_is_explicit: explicit.is_some(),
        backend_keep_alive: server.http_keep_alive.unwrap_or(true),
        dead_backend_on_500: server.dead_backend_on500.unwrap_or(true),
        dead_backend_on_timeout: timeout_mark(&loaded)?,
        static_dir,
        cache,
        snapshot,
        empty_redis_grace: seconds(
            "server.emptyRedisGrace",
            None,
            server.empty_redis_grace,
            DEFAULT_EMPTY_REDIS_GRACE,
        )?,
        allowed_backends: networks(
            &loaded,
            ("--allowed-backends", &cli.allowed_backends),
            ("server.allowedBackends", server.allowed_backends.as_ref()),
        )?,
        trusted_proxies,
        cookie_key: cookie_key(cli, &loaded)?,
        forwarded: cli.forwarded.or(server.forwarded).unwrap_or(false),
        request_ids: cli.request_ids.or(server.request_ids).unwrap_or(false),
        plain_ipv4: cli.plain_ipv4.or(server.plain_ipv4).unwrap_or(false),
        tunnel_idle_timeout: or_never(seconds(
            "server.tunnelIdleTimeout",
            cli.tunnel_idle_timeout,
            server.tunnel_idle_timeout,
            DEFAULT_TUNNEL_IDLE_TIMEOUT,
        )?),
        limits,
        drain_timeout: seconds(
            "server.drainTimeout",
            cli.drain_timeout,
            server.drain_timeout,
            DEFAULT_DRAIN_TIMEOUT,
        )?,
        user,
        group,
        debug: server.debug.unwrap_or(false),
        file: named,
        warnings,
    })
}

fn timeout_mark(loaded: &Loaded) -> Result<TimeoutMark, ConfigError> {
    match &loaded.file.server.dead_backend_on_timeout {
        None => Ok(TimeoutMark::All),
        Some(text) => TimeoutMark::parse(text).ok_or_else(|| {
            let problem = format!("expected \"all\" or \"connect\", not `{text}`");
            loaded.error("server.deadBackendOnTimeout", problem)
        }),
    }
}

/// `lruCache` gives the size of the memory in any mode, and the time to live that counts where
/// Redis announces nothing.
fn cache_policy(
    mode: CacheMode,
    lru: Option<&file::LruCache>,
    seconds: impl Fn(Option<f64>) -> Result<Duration, ConfigError>,
) -> Result<CachePolicy, ConfigError> {
    let is_set = lru.is_some_and(|lru| lru.size.is_some() || lru.ttl.is_some());
    let size = lru.and_then(|lru| lru.size);
    let ttl = seconds(lru.and_then(|lru| lru.ttl))?;
    let wants_ttl = match mode {
        CacheMode::Off => false,
        CacheMode::Tracking => is_set,
        CacheMode::Ttl => true,
    };
    Ok(CachePolicy {
        tracks: mode == CacheMode::Tracking,
        size: size.filter(|size| *size > 0).unwrap_or(DEFAULT_CACHE_SIZE),
        ttl: Some(ttl).filter(|ttl| wants_ttl && !ttl.is_zero() && size != Some(0)),
    })
}

/// An error about a flag or its variable.
pub(super) fn flag_error(flag: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError { file: None, line: None, key: Some(flag.to_owned()), problem: problem.into() }
}

/// The key of sticky cookies, from its own file or from ours.
fn cookie_key(cli: &Cli, loaded: &Loaded) -> Result<Option<Secret>, ConfigError> {
    let problem = format!(
        "expected at least {MIN_COOKIE_KEY} characters, such as `openssl rand -hex 32` makes"
    );
    let is_long = |key: &str| key.len() >= MIN_COOKIE_KEY;
    if let Some(path) = &cli.cookie_key_file {
        let failed = |problem| flag_error("--cookie-key-file", problem);
        let key = std::fs::read_to_string(path)
            .map_err(|error| failed(format!("{} cannot be read: {error}", path.display())))?;
        let key = key.trim_end_matches(['\r', '\n']);
        return if is_long(key) {
            Ok(Some(Secret::new(key.to_owned())))
        } else {
            Err(failed(problem))
        };
    }
    match &loaded.file.server.cookie_key {
        Some(key) if !is_long(key) => Err(loaded.error("server.cookieKey", problem)),
        key => Ok(key.clone().map(Secret::new)),
    }
}

/// Further names of the admin listener: of the flag if it was given, else of the file.
fn admin_hosts(cli: &Cli, loaded: &Loaded) -> Result<Vec<String>, ConfigError> {
    let parse = |texts: &[String]| texts.iter().map(|text| Hosts::parse(text)).collect();
    let names: Result<Vec<_>, _> = match cli.admin_hosts.as_slice() {
        [] => parse(loaded.file.server.admin_hosts.as_ref().map_or(&[], file::OneOrMany::list)),
        texts => parse(texts),
    };
    names.map_err(|error| match cli.admin_hosts.is_empty() {
        true => loaded.error("server.adminHosts", error.to_string()),
        false => flag_error("--admin-hosts", error.to_string()),
    })
}

/// A list of networks: of the flag if it was given, else of the file's `key`.
fn networks(
    loaded: &Loaded,
    (flag, given): (&str, &[String]),
    (key, texts): (&str, Option<&file::OneOrMany>),
) -> Result<Option<Vec<IpNet>>, ConfigError> {
    let parse = |text: &String| {
        let text = text.trim();
        let network = text.parse::<IpNet>();
        let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map_err(|_no_address| {
            format!("expected a network such as 10.0.0.0/8 or an address, not `{text}`")
        })
    };
    if !given.is_empty() {
        let networks: Result<Vec<_>, _> = given.iter().map(parse).collect();
        return networks.map(Some).map_err(|problem| flag_error(flag, problem));
    }
    let Some(texts) = texts else {
        return Ok(None);
    };
    let networks: Result<Vec<_>, _> = texts.list().iter().map(parse).collect();
    networks.map(Some).map_err(|problem| loaded.error(key, problem))
}
