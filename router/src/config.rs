//! All settings, typed and validated, from flags, environment, file and defaults.
//!
//! [`Config`] has no value that means "default": whoever reads it needs to know nothing of where
//! it came from.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::json;
use shared::driver::Driver;
use shared::secret::Secret;

use crate::cli::Cli;
use crate::coherence::CachePolicy;
use crate::limits::Limits;

mod drivers;
mod file;
mod legacy;
mod limits;
mod listeners;
mod locate;
mod numbers;
mod openssl;
mod read;
mod resolve;
mod words;

pub use openssl::{CIPHERS, TlsPolicy};
use resolve::resolve;

/// Entries of `lruCache` when only its `ttl` is given.
const DEFAULT_CACHE_SIZE: usize = 100_000;

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen for plain HTTP.
    pub listen: Vec<SocketAddr>,
    /// Those of these addresses, and of HTTPS, whose connections begin with a PROXY header.
    pub proxy_protocol: Vec<SocketAddr>,
    /// Where the admin listener listens, if anywhere.
    pub admin: Option<SocketAddr>,
    /// Further names under which the admin listener is asked, normalized.
    pub admin_hosts: Vec<String>,
    /// Where to listen for HTTPS.
    pub https: Vec<TlsListener>,
    /// Directory of certificates by host, if there is one.
    pub certificates: Option<PathBuf>,
    /// Which TLS is spoken with clients.
    pub tls: TlsPolicy,
    /// HTTP/2 is offered to clients of HTTPS.
    pub http2: bool,
    /// Clients of HTTP may begin with HTTP/2.
    pub h2c: bool,
    /// Authorities that `https://` backends are verified by; `None` is those of the system.
    pub backend_ca: Option<PathBuf>,
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
    /// Which exceeded times mark a backend dead.
    pub dead_backend_on_timeout: TimeoutMark,
    /// Directory of the operator's own error pages.
    pub static_dir: Option<PathBuf>,
    /// How answers of Redis are kept.
    pub cache: CachePolicy,
    /// Where the last known routes are kept for a start without Redis, if anywhere.
    pub snapshot: Option<PathBuf>,
    /// How long known routes go on after Redis came back empty; zero is not at all.
    pub empty_redis_grace: Duration,
    /// Networks that backends may be in; `None` is all but link-local ones.
    pub allowed_backends: Option<Vec<IpNet>>,
    /// Peers whose forwarded headers are believed; `None` is Hipache's rule (everyone).
    pub trusted_proxies: Option<Vec<IpNet>>,
    /// `Forwarded` (RFC 7239) is written, and believed from trusted proxies.
    pub forwarded: bool,
    /// Requests get `X-Request-Id` and `traceparent`.
    pub request_ids: bool,
    /// What sticky cookies are signed with; `None` is a key of this process alone.
    pub cookie_key: Option<Secret>,
    /// IPv4 addresses without `::ffff:`.
    pub plain_ipv4: bool,
    /// Silence after which a tunnel ends; `None` is never.
    pub tunnel_idle_timeout: Option<Duration>,
    /// What clients may make the router bear.
    pub limits: Limits,
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

/// An address of HTTPS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsListener {
    /// Where to listen.
    pub address: SocketAddr,
    /// What is served to clients that name no host, or one without a certificate of its own.
    pub default: Option<CertificateFiles>,
}

/// The files of a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFiles {
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

/// `server.deadBackendOnTimeout`: which exceeded times mark a backend dead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimeoutMark {
    /// That for an answer, too: Hipache's rule.
    All,
    /// That for connecting alone.
    Connect,
}

impl TimeoutMark {
    fn parse(text: &str) -> Option<Self> {
        [Self::All, Self::Connect].into_iter().find(|mark| mark.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Connect => "connect",
        }
    }
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
            Some(path) => read::load(&path)?,
            None => read::parse(Path::new("(no file)"), "{}".to_owned())?,
        };
        let named = config_path(cli, flavor);
        resolve(cli, loaded, named)
    }

    /// Resolves every setting of `text`, which is said to come from `path`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names file, line and key.
    pub fn parse(cli: &Cli, path: &Path, text: String) -> Result<Self, ConfigError> {
        resolve(cli, read::parse(path, text)?, Some(path.to_owned()))
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
                    "proxyProtocol": self.proxy_protocol.contains(&bind.address),
                    "key": bind.default.as_ref().map(|_| "***"),
                    "cert": bind.default.as_ref().map(|_| "***"),
                    "passphrase": bind.default.as_ref().and_then(|files| {
                        files.passphrase.as_ref().map(|_| "***")
                    }),
                })
            })
            .collect();
        let networks = |networks: Option<&[IpNet]>| {
            networks.map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let mut value = json!({
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
                "deadBackendOnTimeout": self.dead_backend_on_timeout.as_str(),
                "staticDir": self.static_dir,
                "backendCa": self.backend_ca,
                "cache": mode,
                "lruCache": (ttl.is_some() || size != DEFAULT_CACHE_SIZE)
                    .then(|| json!({ "size": size, "ttl": seconds(ttl) })),
                "snapshot": self.snapshot,
                "emptyRedisGrace": self.empty_redis_grace.as_secs_f64(),
                "trustedProxies": networks(self.trusted_proxies.as_deref()),
                "allowedBackends": networks(self.allowed_backends.as_deref()),
                "forwarded": self.forwarded,
                "requestIds": self.request_ids,
                "cookieKey": self.cookie_key.as_ref().map(|_| "***"),
                "plainIPv4": self.plain_ipv4,
                "tunnelIdleTimeout": seconds(self.tunnel_idle_timeout),
                "drainTimeout": self.drain_timeout.as_secs_f64(),
                "headTimeout": self.limits.head_timeout.as_secs_f64(),
                "firstByteTimeout": self.limits.first_byte_timeout.as_secs_f64(),
                "idleTimeout": self.limits.idle_timeout.as_secs_f64(),
                "minBodyRate": self.limits.min_body_rate.unwrap_or(0),
                "maxBody": self.limits.max_body.unwrap_or(0),
                "maxHead": self.limits.max_head,
                "maxHeaders": self.limits.max_headers,
                "maxUri": self.limits.max_uri,
                "maxRequests": self.limits.max_requests.unwrap_or(0),
                "maxRequestsPerConnection": self.limits.max_requests_per_connection.unwrap_or(0),
                "maxConnections": self.limits.max_connections.unwrap_or(0),
                "maxConnectionsPerAddress": self.limits.max_connections_per_address.unwrap_or(0),
                "maxTunnels": self.limits.max_tunnels.unwrap_or(0),
                "maxTunnelsPerBackend": self.limits.max_tunnels_per_backend.unwrap_or(0),
            },
            "http": { "h2c": self.h2c, "bind": self.listen.iter().map(|address| {
                json!({
                    "address": address.ip().to_string(), "port": address.port(),
                    "proxyProtocol": self.proxy_protocol.contains(address),
                })
            }).collect::<Vec<_>>() },
            "https": {
                "bind": https,
                "http2": self.http2,
                "directory": self.certificates,
                "preset": if self.tls.tls_1_2 { "intermediate" } else { "modern" },
            },
            "driver": self.drivers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "user": self.user,
            "group": self.group,
        });
        // Apart from the others, of which the macro takes no more.
        if let Some(server) = value.get_mut("server").and_then(serde_json::Value::as_object_mut) {
            server.insert("adminHosts".to_owned(), json!(self.admin_hosts));
        }
        format!("{value:#}")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use clap::Parser;

    use super::{AccessLogTarget, CachePolicy, Cli, Config, TimeoutMark, read, resolve};

    fn load(text: &str, flags: &[&str]) -> Result<Config, String> {
        let cli = Cli::try_parse_from(std::iter::once(&"router").chain(flags))
            .map_err(|error| error.to_string())?;
        let loaded = read::parse(Path::new("c.json"), text.to_owned());
        loaded.and_then(|loaded| resolve(&cli, loaded, None)).map_err(|error| error.to_string())
    }

    fn listen(text: &str) -> Vec<String> {
        load(text, &[]).unwrap().listen.iter().map(ToString::to_string).collect()
    }

    /// hipache-contract 4, the table of defaults.
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

    /// hipache-contract 4, `http.bind`.
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

    /// hipache-contract 4, "Older files".
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
        assert_eq!(config.warnings[0], "c.json:1: server.port is old, write http.port: 81");
    }

    #[test]
    fn a_flag_counts_before_the_file() {
        let text = r#"{"server": {"workers": 3, "tcpTimeout": 4, "accessLog": "/a", "snapshot": "/s"},
            "http": {"bind": "10.0.0.1"}, "driver": "redis://file", "user": 7}"#;
        let config = load(text, &[]).unwrap();
        assert_eq!((config.workers, config.tcp_timeout), (3, Some(Duration::from_secs(4))));
        assert_eq!((config.user.as_deref(), config.group.as_deref()), (Some("7"), None));
        assert_eq!(config.snapshot.as_deref(), Some(Path::new("/s")));
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
            "--snapshot=none",
        ];
        let config = load(text, &flags).unwrap();
        assert_eq!((config.workers, config.tcp_timeout, config.retry_on_error), (5, None, 0));
        assert_eq!((config.access_log, config.snapshot), (AccessLogTarget::None, None));
        let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["[::1]:8080", "127.0.0.1:9090"]);
        assert_eq!(config.drivers[0].to_string(), "redis://flag:6379/0");
        assert_eq!(config.user.as_deref(), Some("root"));
    }

    #[test]
    fn switches_and_numbers_of_hipache_are_understood() {
        let config = load(
            r#"{"server": {"retryOnError": false, "httpKeepAlive": false, "deadBackendOn500": false, "deadBackendOnTimeout": "connect",
                "lruCache": {"size": 10, "ttl": 2.5}, "tcpTimeout": 0.5}}"#,
            &[],
        )
        .unwrap();
        assert_eq!(config.retry_on_error, 0);
        assert_eq!(config.dead_backend_on_timeout, TimeoutMark::Connect);
        assert!(!config.backend_keep_alive && !config.dead_backend_on_500);
        assert_eq!(
            config.cache,
            CachePolicy { tracks: true, size: 10, ttl: Some(Duration::from_millis(2500)) }
        );
        // A shorter tcpTimeout limits connecting, too.
        assert_eq!(config.connect_timeout, Duration::from_millis(500));
    }

    #[test]
    fn an_idle_timeout_below_that_of_balancers_is_a_warning_where_balancers_are_named() {
        let warnings = |text: &str, flags: &[&str]| load(text, flags).unwrap().warnings;
        let short = warnings("{}", &["--trusted-proxies=10.0.0.0/8"]);
        assert!(short.len() == 1 && short[0].contains("server.idleTimeout is 30 s"), "{short:?}");
        for (text, flags) in [
            ("{}", &["--trusted-proxies=10.0.0.0/8", "--idle-timeout=65"][..]),
            (r#"{"server": {"trustedProxies": []}}"#, &[]),
            (r#"{"server": {"tcpTimeout": 0, "trustedProxies": "::1"}}"#, &[]),
            ("{}", &["--idle-timeout=1"]),
        ] {
            assert_eq!(warnings(text, flags), Vec::<String>::new(), "{text} {flags:?}");
        }
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
            (
                "{\"server\": {\"deadBackendOnTimeout\": true}}",
                &[],
                "c.json:1: server.deadBackendOnTimeout: expected a text in quotes, not true",
            ),
            (
                "{\"server\": {\"deadBackendOnTimeout\": \"never\"}}",
                &[],
                "c.json:1: server.deadBackendOnTimeout: expected \"all\" or \"connect\", not `never`",
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

    /// hipache-contract 4, `--dry`; also the driver's password, which Hipache showed.
    #[test]
    fn the_printed_configuration_holds_no_secrets() {
        let text = r#"{"driver": "redis://:hunter2@h#p:"}"#;
        let shown = load(text, &["--trusted-proxies=10.0.0.0/8,::1"]).unwrap().censored();
        assert!(shown.contains("redis://:***@h:6379/0#p:") && shown.contains("::1/128"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
