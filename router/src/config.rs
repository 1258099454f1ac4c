//! All settings, typed and validated, from flags, environment, file and defaults.
//!
//! [`Config`] has no value that means "default": whoever reads it needs to know nothing of where
//! it came from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::json;
use shared::driver::{Address, Driver};
use shared::secret::Secret;

use crate::cli::{CacheMode, Cli};

mod file;
mod locate;

use file::{Bind, CountOrSwitch, Listener, Loaded, OneOrMany};

/// Hipache's port and address for plain HTTP.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);
/// Hipache's port for HTTPS.
const DEFAULT_HTTPS_PORT: u16 = 443;
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
/// Hipache's user and group.
const DEFAULT_USER: &str = "www-data";
/// Entries of `lruCache` when only its `ttl` is given.
const DEFAULT_CACHE_SIZE: usize = 100_000;
/// Hipache's `lruCache.ttl` when only its `size` is given.
const DEFAULT_CACHE_TTL: Duration = Duration::from_secs(5);
/// Threads that one process may reasonably have as workers.
const MAX_WORKERS: u32 = 1024;

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen for plain HTTP.
    pub listen: Vec<SocketAddr>,
    /// Where the admin listener listens, if anywhere.
    pub admin: Option<SocketAddr>,
    /// Where HTTPS is configured to listen.
    pub https: Vec<TlsListener>,
    /// Redis; the first is read from, the last written to.
    pub drivers: Vec<Driver>,
    /// Worker threads.
    pub workers: usize,
    /// Connections per backend and worker.
    pub max_sockets: usize,
    /// Silence after which a peer is given up; `None` is never.
    pub tcp_timeout: Option<Duration>,
    /// Limit for a connection to a backend.
    pub connect_timeout: Duration,
    /// How long a failed backend is left out.
    pub dead_backend_ttl: Duration,
    /// How often a failed request is tried again.
    pub retry_on_error: u32,
    /// Where access-log lines go.
    pub access_log: AccessLogTarget,
    /// Whether somebody asked for that target; nobody did when it is the default.
    pub access_log_is_explicit: bool,
    /// Whether connections to backends are used again.
    pub backend_keep_alive: bool,
    /// Whether an answer 500 marks dead while an external checker is alive.
    pub dead_backend_on_500: bool,
    /// Directory of the operator's own error pages.
    pub static_dir: Option<PathBuf>,
    /// How answers of Redis are kept.
    pub cache: CachePolicy,
    /// Peers whose forwarded headers are believed; `None` is Hipache's rule (everyone).
    pub trusted_proxies: Option<Vec<IpNet>>,
    /// IPv4 addresses without `::ffff:`.
    pub plain_ipv4: bool,
    /// Silence after which a tunnel ends; `None` is never.
    pub tunnel_idle_timeout: Option<Duration>,
    /// Time for running requests after SIGTERM.
    pub drain_timeout: Duration,
    /// Name or number of the user to become; `None` refuses to run as root.
    pub user: Option<String>,
    /// Name or number of the group to become.
    pub group: Option<String>,
    /// `server.debug`.
    pub debug: bool,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// What should be said about the configuration, one sentence each.
    pub warnings: Vec<String>,
}

/// A configured HTTPS address, valid but not served by this version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsListener {
    /// Where to listen.
    pub address: SocketAddr,
    /// Private key file.
    pub key: PathBuf,
    /// Certificate file.
    pub cert: PathBuf,
    /// Further certificates of the chain.
    pub ca: Vec<PathBuf>,
    /// Opens an encrypted key.
    pub passphrase: Option<Secret>,
}

/// Where access-log lines go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AccessLogTarget {
    /// A file, reopened on SIGUSR1.
    File(PathBuf),
    /// Nowhere.
    None,
    /// Standard output.
    Stdout,
}

impl AccessLogTarget {
    fn parse(text: &str) -> Self {
        match text {
            "none" | "" => Self::None,
            "stdout" | "-" => Self::Stdout,
            path => Self::File(path.into()),
        }
    }
}

impl fmt::Display for AccessLogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::None => f.write_str("none"),
            Self::Stdout => f.write_str("stdout"),
        }
    }
}

/// How answers of Redis are kept in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CachePolicy {
    /// Answers count until Redis announces a change, where it can.
    pub tracks: bool,
    /// Hosts that the memory is sized for.
    pub size: usize,
    /// How long an answer counts where Redis announces nothing; `None` is for one request.
    pub ttl: Option<Duration>,
}

/// What is wrong with the configuration, and where.
#[derive(Debug)]
pub struct ConfigError {
    /// The file, unless the value came from elsewhere.
    pub file: Option<PathBuf>,
    /// 1-based line in it.
    pub line: Option<usize>,
    /// Dotted key or flag.
    pub key: Option<String>,
    /// What is wrong, and what was expected.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// The file to read: the one that was named, or Hipache's default, which may be missing.
fn config_path(cli: &Cli, flavor: Option<&str>) -> Option<PathBuf> {
    if let Some(path) = &cli.config {
        return Some(path.clone());
    }
    match flavor.filter(|flavor| !flavor.is_empty()) {
        Some(flavor) => Some(format!("config/config_{flavor}.json").into()),
        None => Some(PathBuf::from("config/config.json")).filter(|path| path.exists()),
    }
}

impl Config {
    /// Reads the file that `cli` or `flavor` (the value of `SETTINGS_FLAVOR`) names and resolves
    /// every setting.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names file, line and key.
    pub fn load(cli: &Cli, flavor: Option<&str>) -> Result<Self, ConfigError> {
        let loaded = match config_path(cli, flavor) {
            Some(path) => file::load(&path)?,
            None => file::parse(Path::new("(no file)"), "{}".to_owned())?,
        };
        let named = config_path(cli, flavor);
        resolve(cli, loaded, named)
    }

    /// The effective settings in the shape of the file, without secrets, for `--dry`.
    pub fn censored(&self) -> String {
        let seconds = |limit: Option<Duration>| limit.map_or(0.0, |limit| limit.as_secs_f64());
        let CachePolicy { tracks, size, ttl } = self.cache;
        let mode = match (tracks, ttl) {
            (true, _) => "tracking",
            (false, Some(_)) => "ttl",
            (false, None) => "off",
        };
        let https: Vec<_> = self
            .https
            .iter()
            .map(|bind| {
                json!({
                    "address": bind.address.ip().to_string(), "port": bind.address.port(),
                    "key": "***", "cert": "***", "passphrase": bind.passphrase.as_ref().map(|_| "***"),
                })
            })
            .collect();
        let value = json!({
            "server": {
                "admin": self.admin.map(|address| address.to_string()),
                "debug": self.debug,
                "workers": self.workers,
                "maxSockets": self.max_sockets,
                "tcpTimeout": seconds(self.tcp_timeout),
                "connectTimeout": self.connect_timeout.as_secs_f64(),
                "deadBackendTTL": self.dead_backend_ttl.as_secs_f64(),
                "retryOnError": self.retry_on_error,
                "accessLog": self.access_log.to_string(),
                "httpKeepAlive": self.backend_keep_alive,
                "deadBackendOn500": self.dead_backend_on_500,
                "staticDir": self.static_dir,
                "cache": mode,
                "lruCache": (ttl.is_some() || size != DEFAULT_CACHE_SIZE)
                    .then(|| json!({ "size": size, "ttl": seconds(ttl) })),
                "trustedProxies": self.trusted_proxies.as_ref().map(|networks| {
                    networks.iter().map(ToString::to_string).collect::<Vec<_>>()
                }),
                "plainIPv4": self.plain_ipv4,
                "tunnelIdleTimeout": seconds(self.tunnel_idle_timeout),
                "drainTimeout": self.drain_timeout.as_secs_f64(),
            },
            "http": { "bind": self.listen.iter().map(|address| {
                json!({ "address": address.ip().to_string(), "port": address.port() })
            }).collect::<Vec<_>>() },
            "https": { "bind": https },
            "driver": self.drivers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "user": self.user,
            "group": self.group,
        });
        format!("{value:#}")
    }
}

fn resolve(cli: &Cli, mut loaded: Loaded, named: Option<PathBuf>) -> Result<Config, ConfigError> {
    let mut warnings = std::mem::take(&mut loaded.warnings);
    apply_legacy_listeners(&mut loaded, &mut warnings);
    let file = &loaded.file;
    let server = &file.server;

    let listen = match cli.listen.as_slice() {
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
    let https = tls_listeners(&loaded, &mut warnings)?;

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

    Ok(Config {
        listen,
        admin,
        https,
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
        static_dir,
        cache,
        trusted_proxies: trusted_proxies(cli, &loaded)?,
        plain_ipv4: cli.plain_ipv4.or(server.plain_ipv4).unwrap_or(false),
        tunnel_idle_timeout: or_never(seconds(
            "server.tunnelIdleTimeout",
            cli.tunnel_idle_timeout,
            server.tunnel_idle_timeout,
            DEFAULT_TUNNEL_IDLE_TIMEOUT,
        )?),
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

fn flag_error(flag: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError { file: None, line: None, key: Some(flag.to_owned()), problem: problem.into() }
}

/// Moves `server.port`, `server.address` and `server.https` of older files to where they belong.
fn apply_legacy_listeners(loaded: &mut Loaded, warnings: &mut Vec<String>) {
    if loaded.file.server.port.is_some() {
        warnings.push(format!("{} is old, write http.port", loaded.place("server.port")));
    }
    if loaded.file.server.address.is_some() {
        warnings.push(format!("{} is old, write http.bind", loaded.place("server.address")));
    }
    if loaded.file.server.https.is_some() {
        warnings.push(format!("{} is old, write https", loaded.place("server.https")));
    }
    let file = &mut loaded.file;
    file.http.port = file.http.port.or(file.server.port);
    if file.http.bind.is_none()
        && let Some(addresses) = &file.server.address
    {
        let binds = addresses.list().iter().cloned().map(Bind::Address).collect();
        file.http.bind = Some(file::Binds::Many(binds));
    }
    if let Some(mut https) = file.server.https.take() {
        // In those files the addresses of HTTPS are those of HTTP.
        if https.bind.is_none() {
            https.bind = file.http.bind.clone();
        }
        if file.https.bind.is_none() {
            file.https = https;
        }
    }
}

/// The addresses of a `bind` list with what each overrides.
fn listeners<'a>(
    loaded: &Loaded,
    section: &'a Listener,
    name: &str,
    default: SocketAddr,
) -> Result<Vec<(SocketAddr, Option<&'a file::BindObject>)>, ConfigError> {
    let default_port = section.port.unwrap_or_else(|| default.port());
    let Some(binds) = &section.bind else {
        return Ok(vec![(SocketAddr::new(default.ip(), default_port), None)]);
    };
    let mut addresses = Vec::new();
    for (index, bind) in binds.list().iter().enumerate() {
        let key = match binds {
            file::Binds::One(_) => format!("{name}.bind"),
            file::Binds::Many(_) => format!("{name}.bind.{index}"),
        };
        let (text, port, object) = match bind {
            Bind::Address(text) => (text.as_str(), default_port, None),
            Bind::Object(object) => (
                object.address.as_deref().unwrap_or("127.0.0.1"),
                object.port.unwrap_or(default_port),
                Some(&**object),
            ),
        };
        let resolved = resolve_address(text, port)
            .map_err(|problem| loaded.error(&key, format!("`{text}` {problem}")))?;
        addresses.extend(resolved.into_iter().map(|address| (address, object)));
    }
    Ok(addresses)
}

/// `--listen`: `addr:port`, `[v6]:port`, `:port` or a port alone.
fn parse_listen(flag: &str, text: &str) -> Result<Vec<SocketAddr>, ConfigError> {
    let problem =
        || flag_error(flag, format!("expected ADDR:PORT such as 0.0.0.0:80, not `{text}`"));
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None => ("127.0.0.1", text),
    };
    let port = port.parse::<u16>().map_err(|_not_a_port| problem())?;
    let host = match host {
        "" => "::",
        host => host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host),
    };
    resolve_address(host, port).map_err(|_unresolved| problem())
}

fn resolve_address(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let addresses: Vec<_> = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("is neither an address nor a name of this machine ({error})"))?
        .collect();
    if addresses.is_empty() {
        return Err("is a name without an address".to_owned());
    }
    Ok(addresses)
}

fn tls_listeners(
    loaded: &Loaded,
    warnings: &mut Vec<String>,
) -> Result<Vec<TlsListener>, ConfigError> {
    let section = &loaded.file.https;
    if section.bind.is_none() {
        return Ok(Vec::new());
    }
    let default = SocketAddr::new(DEFAULT_LISTEN.ip(), DEFAULT_HTTPS_PORT);
    let mut listeners_found = Vec::new();
    for (address, object) in listeners(loaded, section, "https", default)? {
        let own = |pick: fn(&file::BindObject) -> Option<PathBuf>| object.and_then(pick);
        let missing = |what: &str| {
            loaded.error("https.bind", format!("{address} needs https.{what}: the path of a file"))
        };
        let key = own(|o| o.key.clone()).or_else(|| section.key.clone());
        let key = key.ok_or_else(|| missing("key"))?;
        let cert = own(|o| o.cert.clone()).or_else(|| section.cert.clone());
        let cert = cert.ok_or_else(|| missing("cert"))?;
        let ca = object.and_then(|o| o.ca.as_ref()).or(section.ca.as_ref());
        let ca: Vec<PathBuf> =
            ca.map(|ca| ca.list().iter().map(PathBuf::from).collect()).unwrap_or_default();
        for (name, path) in
            [("key", &key), ("cert", &cert)].into_iter().chain(ca.iter().map(|path| ("ca", path)))
        {
            if let Err(error) = std::fs::metadata(path) {
                let problem = format!("{} cannot be read: {error}", path.display());
                return Err(loaded.error(&format!("https.{name}"), problem));
            }
        }
        let passphrase = object.and_then(|o| o.passphrase.clone());
        let passphrase = passphrase.or_else(|| section.passphrase.clone()).map(Secret::new);
        listeners_found.push(TlsListener { address, key, cert, ca, passphrase });
    }
    for (key, is_set) in [
        ("secureProtocol", section.secure_protocol.is_some()),
        ("secureOptions", section.secure_options.is_some()),
        ("ciphers", section.ciphers.is_some()),
        ("honorCipherOrder", section.honor_cipher_order.is_some()),
    ] {
        if is_set {
            warnings.push(format!(
                "{} is an OpenSSL setting and is not used; TLS 1.2 and 1.3 with their modern \
                 ciphers will be",
                loaded.place(&format!("https.{key}"))
            ));
        }
    }
    for listener in &listeners_found {
        warnings.push(format!(
            "{} {} is valid, but this version does not serve HTTPS yet: nothing listens there",
            loaded.place("https.bind"),
            listener.address
        ));
    }
    Ok(listeners_found)
}

fn drivers(
    cli: &Cli,
    loaded: &Loaded,
    warnings: &mut Vec<String>,
) -> Result<Vec<Driver>, ConfigError> {
    let file = &loaded.file;
    let mut drivers = Vec::new();
    if !cli.redis.is_empty() {
        for text in &cli.redis {
            let driver = Driver::parse(text);
            drivers.push(driver.map_err(|error| flag_error("--redis", error.to_string()))?);
        }
    } else if let Some(texts) = &file.driver {
        for (index, text) in texts.list().iter().enumerate() {
            let key = match texts {
                OneOrMany::One(_) => "driver".to_owned(),
                OneOrMany::Many(_) => format!("driver.{index}"),
            };
            let driver = Driver::parse(text);
            drivers.push(driver.map_err(|error| loaded.error(&key, error.to_string()))?);
        }
    } else {
        drivers = legacy_drivers(loaded, warnings);
    }
    if drivers.is_empty() {
        drivers.push(Driver::default());
    }
    if let Some(path) = &cli.redis_password_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let problem = format!("{} cannot be read: {error}", path.display());
            flag_error("--redis-password-file", problem)
        })?;
        let password = Secret::new(text.trim_end_matches(['\r', '\n']));
        for driver in &mut drivers {
            driver.password.get_or_insert_with(|| password.clone());
        }
    }
    Ok(drivers)
}

/// `redisHost` and its fellows: the replica is what is read from, the master what is written to.
fn legacy_drivers(loaded: &Loaded, warnings: &mut Vec<String>) -> Vec<Driver> {
    let file = &loaded.file;
    let old = [
        ("redisHost", file.redis_host.is_some()),
        ("redisPort", file.redis_port.is_some()),
        ("redisPassword", file.redis_password.is_some()),
        ("redisDatabase", file.redis_database.is_some()),
        ("redisMasterHost", file.redis_master_host.is_some()),
        ("redisMasterPort", file.redis_master_port.is_some()),
        ("redisMasterPassword", file.redis_master_password.is_some()),
        ("redisMasterDatabase", file.redis_master_database.is_some()),
    ];
    for (key, _) in old.iter().filter(|(_, is_set)| *is_set) {
        warnings.push(format!("{} is old, write driver", loaded.place(key)));
    }
    let driver = |host: &Option<String>, port: Option<u16>, password: &Option<String>, db| {
        let default = Driver::default();
        let host = host.clone().unwrap_or_else(|| shared::driver::DEFAULT_HOST.to_owned());
        let port = port.unwrap_or(shared::driver::DEFAULT_PORT);
        Driver {
            address: Address::Tcp { host, port },
            password: password.clone().map(Secret::new),
            database: Option::unwrap_or(db, 0),
            ..default
        }
    };
    let mut drivers = Vec::new();
    if old.iter().any(|(key, is_set)| *is_set && !key.contains("Master")) {
        drivers.push(driver(
            &file.redis_host,
            file.redis_port,
            &file.redis_password,
            file.redis_database,
        ));
    }
    if file.redis_master_host.is_some() || file.redis_master_port.is_some() {
        drivers.push(driver(
            &file.redis_master_host,
            file.redis_master_port,
            &file.redis_master_password,
            file.redis_master_database,
        ));
    }
    drivers
}

fn trusted_proxies(cli: &Cli, loaded: &Loaded) -> Result<Option<Vec<IpNet>>, ConfigError> {
    let parse = |text: &str| {
        let text = text.trim();
        let network = text.parse::<IpNet>();
        let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map_err(|_no_address| {
            format!("expected a network such as 10.0.0.0/8 or an address, not `{text}`")
        })
    };
    if !cli.trusted_proxies.is_empty() {
        let networks: Result<Vec<_>, _> =
            cli.trusted_proxies.iter().map(|text| parse(text)).collect();
        return networks.map(Some).map_err(|problem| flag_error("--trusted-proxies", problem));
    }
    let Some(texts) = &loaded.file.server.trusted_proxies else {
        return Ok(None);
    };
    let networks: Result<Vec<_>, _> = texts.list().iter().map(|text| parse(text)).collect();
    networks.map(Some).map_err(|problem| loaded.error("server.trustedProxies", problem))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use clap::Parser;

    use super::{AccessLogTarget, CachePolicy, Cli, Config, file, resolve};

    fn load(text: &str, flags: &[&str]) -> Result<Config, String> {
        let cli = Cli::try_parse_from(std::iter::once(&"router").chain(flags))
            .map_err(|error| error.to_string())?;
        let loaded = file::parse(Path::new("c.json"), text.to_owned());
        loaded.and_then(|loaded| resolve(&cli, loaded, None)).map_err(|error| error.to_string())
    }

    fn listen(text: &str) -> Vec<String> {
        load(text, &[]).unwrap().listen.iter().map(ToString::to_string).collect()
    }

    /// hipache.md 4, the table of defaults.
    #[test]
    fn an_empty_file_means_hipaches_defaults() {
        let config = load("{}", &[]).unwrap();
        assert_eq!(listen("{}"), ["127.0.0.1:80"]);
        assert_eq!(config.max_sockets, 100);
        assert_eq!(config.tcp_timeout, Some(Duration::from_secs(30)));
        assert_eq!(config.dead_backend_ttl, Duration::from_secs(30));
        assert_eq!(config.retry_on_error, 3);
        assert_eq!(config.access_log, AccessLogTarget::File("/var/log/hipache/access.log".into()));
        assert!(config.backend_keep_alive && config.dead_backend_on_500);
        assert_eq!(
            (config.static_dir, config.cache),
            (None, CachePolicy { tracks: true, size: 100_000, ttl: None })
        );
        assert_eq!(config.drivers[0].to_string(), "redis://127.0.0.1:6379/0");
        assert_eq!(config.user.as_deref(), Some("www-data"));
        assert_eq!(config.group.as_deref(), Some("www-data"));
        assert!(config.https.is_empty() && config.warnings.is_empty());
    }

    /// hipache.md 4, `http.bind`.
    #[test]
    fn bind_is_an_address_a_list_or_objects() {
        assert_eq!(listen(r#"{"http": {"port": 8080}}"#), ["127.0.0.1:8080"]);
        assert_eq!(listen(r#"{"http": {"bind": "0.0.0.0"}}"#), ["0.0.0.0:80"]);
        assert_eq!(
            listen(r#"{"http": {"port": 1, "bind": ["::1", {"address": "10.0.0.1", "port": 2}]}}"#),
            ["[::1]:1", "10.0.0.1:2"]
        );
        assert_eq!(
            load(r#"{"http": {"bind": []}}"#, &[]).unwrap_err(),
            "c.json:1: http.bind: there is no address to listen on"
        );
        assert_eq!(
            load("{\"http\": {\n\"bind\": [\"::1\",\n\"no such host\"]}}", &[])
                .unwrap_err()
                .split(" is ")
                .next(),
            Some("c.json:3: http.bind.1: `no such host`")
        );
    }

    /// hipache.md 4, "Older files".
    #[test]
    fn older_keys_are_honoured_with_a_warning_that_names_the_new_one() {
        let text = r#"{"server": {"port": 81, "address": ["10.0.0.1", "::1"]},
            "redisHost": "replica", "redisPort": 1, "redisPassword": "x", "redisDatabase": 2,
            "redisMasterHost": "master", "redisMasterPort": 3}"#;
        let config = load(text, &[]).unwrap();
        assert_eq!(listen(text), ["10.0.0.1:81", "[::1]:81"]);
        let drivers: Vec<_> = config.drivers.iter().map(ToString::to_string).collect();
        assert_eq!(drivers, ["redis://:***@replica:1/2", "redis://master:3/0"]);
        assert_eq!(config.warnings.len(), 8, "{:#?}", config.warnings);
        assert_eq!(config.warnings[0], "c.json:1: server.port is old, write http.port");
    }

    #[test]
    fn a_flag_counts_before_the_file() {
        let text = r#"{"server": {"workers": 3, "tcpTimeout": 4, "accessLog": "/a"},
            "http": {"bind": "10.0.0.1"}, "driver": "redis://file", "user": 7}"#;
        let config = load(text, &[]).unwrap();
        assert_eq!((config.workers, config.tcp_timeout), (3, Some(Duration::from_secs(4))));
        assert_eq!((config.user.as_deref(), config.group.as_deref()), (Some("7"), None));
        let flags = [
            "--workers=5",
            "--tcp-timeout=0",
            "--access-log=none",
            "--listen=[::1]:8080",
            "--listen",
            "9090",
            "--redis=redis://flag",
            "--user=root",
            "--retry-on-error=0",
        ];
        let config = load(text, &flags).unwrap();
        assert_eq!((config.workers, config.tcp_timeout, config.retry_on_error), (5, None, 0));
        assert_eq!(config.access_log, AccessLogTarget::None);
        let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["[::1]:8080", "127.0.0.1:9090"]);
        assert_eq!(config.drivers[0].to_string(), "redis://flag:6379/0");
        assert_eq!(config.user.as_deref(), Some("root"));
    }

    #[test]
    fn switches_and_numbers_of_hipache_are_understood() {
        let config = load(
            r#"{"server": {"retryOnError": false, "httpKeepAlive": false, "deadBackendOn500": false,
                "lruCache": {"size": 10, "ttl": 2.5}, "tcpTimeout": 0.5}}"#,
            &[],
        )
        .unwrap();
        assert_eq!(config.retry_on_error, 0);
        assert!(!config.backend_keep_alive && !config.dead_backend_on_500);
        assert_eq!(
            config.cache,
            CachePolicy { tracks: true, size: 10, ttl: Some(Duration::from_millis(2500)) }
        );
        // A shorter tcpTimeout limits connecting, too.
        assert_eq!(config.connect_timeout, Duration::from_millis(500));
    }

    #[test]
    fn wrong_values_name_line_key_and_what_was_expected() {
        for (text, flags, error) in [
            (
                "{\"server\": {\n\"tcpTimeout\": -1}}",
                &[][..],
                "c.json:2: server.tcpTimeout: expected a number of seconds from 0 on, not -1",
            ),
            (
                "{\"server\": {\n\n\"workers\": 0}}",
                &[],
                "c.json:3: server.workers: expected a number from 1 on, not 0",
            ),
            (
                "{\"driver\": [\"redis:\",\n\"redis://h/x\"]}",
                &[],
                "c.json:2: driver.1: the database of the driver must be a number (a `/` in a \
                 password is written %2F)",
            ),
            (
                "{\"server\": {\"trustedProxies\": \"10.0.0.0/99\"}}",
                &[],
                "c.json:1: server.trustedProxies: expected a network such as 10.0.0.0/8 or an \
                 address, not `10.0.0.0/99`",
            ),
            (
                "{}",
                &["--listen=nonsense"],
                "--listen: expected ADDR:PORT such as 0.0.0.0:80, not `nonsense`",
            ),
            ("{}", &["--max-sockets=0"], "--max-sockets: expected a number from 1 on, not 0"),
            (
                "{\"https\": {\"bind\": \"127.0.0.1\"}}",
                &[],
                "c.json:1: https.bind: 127.0.0.1:443 needs https.key: the path of a file",
            ),
        ] {
            assert_eq!(load(text, flags).unwrap_err(), error);
        }
    }

    /// hipache.md 4, `--dry`; also the driver's password, which Hipache showed.
    #[test]
    fn the_printed_configuration_holds_no_secrets() {
        let text = r#"{"driver": "redis://:hunter2@h#p:"}"#;
        let shown = load(text, &["--trusted-proxies=10.0.0.0/8,::1"]).unwrap().censored();
        assert!(shown.contains("redis://:***@h:6379/0#p:") && shown.contains("::1/128"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
