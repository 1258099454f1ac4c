//! Flags and their environment variables; nothing is resolved or validated beyond its syntax.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand};

use shared::telemetry::LogFormat;

mod limits;

pub use limits::LimitArgs;

/// HTTP and WebSocket router whose routes are Redis lists; a drop-in replacement for Hipache.
///
/// Without arguments it reads routes from a Redis on 127.0.0.1:6379 and listens on 127.0.0.1:80.
/// A flag counts before its environment variable, that before the configuration file.
#[allow(clippy::doc_markdown, reason = "these comments are the text of --help")]
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "router", version, max_term_width = 100, args_conflicts_with_subcommands = false)]
pub struct Cli {
    /// Configuration file in Hipache's JSON format (default: config/config.json, or
    /// config/config_FLAVOR.json when SETTINGS_FLAVOR is set)
    #[arg(short, long, global = true, value_name = "FILE", env = "ROUTER_CONFIG")]
    pub config: Option<PathBuf>,

    /// Check the configuration, print the result with secrets redacted, and exit
    #[arg(short, long, global = true)]
    pub dry: bool,

    /// Address to listen on for HTTP, repeatable [config: http.bind, http.port; default:
    /// 127.0.0.1:80]
    #[arg(
        long,
        global = true,
        value_name = "ADDR:PORT",
        env = "ROUTER_LISTEN",
        value_delimiter = ','
    )]
    pub listen: Vec<String>,

    /// Every connection begins with a PROXY header, version 1 or 2, of a balancer among
    /// --trusted-proxies [config: http.proxyProtocol, https.proxyProtocol]
    #[arg(long, global = true, env = "ROUTER_PROXY_PROTOCOL", value_parser = clap::builder::BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true")]
    pub proxy_protocol: Option<bool>,

    /// Address of the admin listener with /livez, /readyz and /metrics [config: server.admin;
    /// default: none]
    #[arg(long, global = true, value_name = "ADDR:PORT", env = "ROUTER_ADMIN")]
    pub admin: Option<String>,

    /// Further names under which the admin listener may be asked for /metrics, repeatable [config:
    /// server.adminHosts; default: addresses, this machine's name and names without a dot]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "ROUTER_ADMIN_HOSTS",
        value_delimiter = ','
    )]
    pub admin_hosts: Vec<String>,

    /// Redis to use, repeatable: the first is read from, the last written to [config: driver;
    /// default: redis://127.0.0.1:6379/0]
    #[arg(long, global = true, value_name = "URL", env = "ROUTER_REDIS", value_delimiter = ',')]
    pub redis: Vec<String>,

    /// File that holds the Redis password, for drivers that name none
    #[arg(long, global = true, value_name = "FILE", env = "ROUTER_REDIS_PASSWORD_FILE")]
    pub redis_password_file: Option<PathBuf>,

    /// Worker threads [config: server.workers; default: one per core]
    #[arg(long, global = true, value_name = "N", env = "ROUTER_WORKERS")]
    pub workers: Option<u16>,

    /// Access log: a path, `stdout` or `none` [config: server.accessLog; default:
    /// /var/log/hipache/access.log]
    #[arg(long, global = true, value_name = "PATH", env = "ROUTER_ACCESS_LOG")]
    pub access_log: Option<String>,

    /// Directory with error pages of your own, `error_<code>.html` [config: server.staticDir]
    #[arg(long, global = true, value_name = "DIR", env = "ROUTER_STATIC_DIR")]
    pub static_dir: Option<PathBuf>,

    /// Seconds of silence after which a backend or client is given up, 0 for never [config:
    /// server.tcpTimeout; default: 30]
    #[arg(long, global = true, value_name = "SECONDS", env = "ROUTER_TCP_TIMEOUT", value_parser = seconds)]
    pub tcp_timeout: Option<Duration>,

    /// Seconds to wait for a connection to a backend [config: server.connectTimeout; default: 3]
    #[arg(long, global = true, value_name = "SECONDS", env = "ROUTER_CONNECT_TIMEOUT", value_parser = seconds)]
    pub connect_timeout: Option<Duration>,

    /// Seconds that a failed backend is left out [config: server.deadBackendTTL; default: 30]
    #[arg(long, global = true, value_name = "SECONDS", env = "ROUTER_DEAD_BACKEND_TTL", value_parser = seconds)]
    pub dead_backend_ttl: Option<Duration>,

    /// How often a failed request is tried again, 0 for never [config: server.retryOnError;
    /// default: 3]
    #[arg(long, global = true, value_name = "N", env = "ROUTER_RETRY_ON_ERROR")]
    pub retry_on_error: Option<u32>,

    /// Connections per backend and worker; more requests wait [config: server.maxSockets;
    /// default: 100]
    #[arg(long, global = true, value_name = "N", env = "ROUTER_MAX_SOCKETS")]
    pub max_sockets: Option<u32>,

    /// How long answers of Redis count: `tracking` until Redis announces a change, `ttl` for
    /// lruCache.ttl, `off` for one request [config: server.cache; default: tracking where Redis
    /// can, which is from version 6 on]
    #[arg(long, global = true, value_name = "MODE", env = "ROUTER_CACHE")]
    pub cache: Option<CacheMode>,

    /// File that keeps the last known routes, for a start while Redis is away [config:
    /// server.snapshot; default: none]
    #[arg(long, global = true, value_name = "PATH", env = "ROUTER_SNAPSHOT")]
    pub snapshot: Option<PathBuf>,

    /// Networks whose X-Forwarded-* headers are believed, as CIDR, repeatable; when set, everyone
    /// else's are overwritten [config: server.trustedProxies]
    #[arg(
        long,
        global = true,
        value_name = "CIDR",
        env = "ROUTER_TRUSTED_PROXIES",
        value_delimiter = ','
    )]
    pub trusted_proxies: Vec<String>,

    /// Networks that backends may be in, as CIDR, repeatable; never this router itself [config:
    /// server.allowedBackends; default: all but link-local and metadata addresses]
    #[arg(
        long,
        global = true,
        value_name = "CIDR",
        env = "ROUTER_ALLOWED_BACKENDS",
        value_delimiter = ','
    )]
    pub allowed_backends: Vec<String>,

    /// Write the Forwarded header of RFC 7239 to backends, too, and believe that of trusted proxies
    /// [config: server.forwarded]
    #[arg(long, global = true, env = "ROUTER_FORWARDED", value_parser = clap::builder::BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true")]
    pub forwarded: Option<bool>,

    /// Give every request an X-Request-Id and a traceparent [config: server.requestIds]
    #[arg(long, global = true, env = "ROUTER_REQUEST_IDS", value_parser = clap::builder::BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true")]
    pub request_ids: Option<bool>,

    /// File that holds the key that sticky cookies are signed with, the same for all routers of a
    /// site [config: server.cookieKey; default: a key of this process]
    #[arg(long, global = true, value_name = "FILE", env = "ROUTER_COOKIE_KEY_FILE")]
    pub cookie_key_file: Option<PathBuf>,

    /// Write IPv4 addresses as 1.2.3.4, not as ::ffff:1.2.3.4 [config: server.plainIPv4]
    #[arg(long, global = true, env = "ROUTER_PLAIN_IPV4", value_parser = clap::builder::BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true")]
    pub plain_ipv4: Option<bool>,

    /// Seconds without a byte after which a WebSocket or other upgraded connection ends, 0 for
    /// never [config: server.tunnelIdleTimeout; default: 3600]
    #[arg(long, global = true, value_name = "SECONDS", env = "ROUTER_TUNNEL_IDLE_TIMEOUT", value_parser = seconds)]
    pub tunnel_idle_timeout: Option<Duration>,

    /// Seconds that running requests and tunnels get to end after SIGTERM [config:
    /// server.drainTimeout; default: 30]
    #[arg(long, global = true, value_name = "SECONDS", env = "ROUTER_DRAIN_TIMEOUT", value_parser = seconds)]
    pub drain_timeout: Option<Duration>,

    /// User to run as when started as root, `root` to stay root [config: user; default: www-data]
    #[arg(long, global = true, value_name = "NAME|ID", env = "ROUTER_USER")]
    pub user: Option<String>,

    /// Group to run as when started as root [config: group; default: www-data]
    #[arg(long, global = true, value_name = "NAME|ID", env = "ROUTER_GROUP")]
    pub group: Option<String>,

    /// Format of the program's own log on standard error: text or json
    #[arg(long, global = true, value_name = "FORMAT", env = "ROUTER_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Level of the program's own log: error, warn, info, debug or trace [config: server.debug =
    /// true means debug; default: info]
    #[arg(long, global = true, value_name = "LEVEL", env = "ROUTER_LOG_LEVEL", value_parser = level)]
    pub log_level: Option<String>,

    /// Limits of clients.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// What to do instead of routing
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do instead of routing.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Ask the router of this configuration whether it answers; exit 0 if it does, 1 if not
    Healthcheck,
    /// Check the configuration, as --dry does
    Check,
}

/// `server.cache`: which of the ways is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CacheMode {
    /// Redis is asked at every request.
    Off,
    /// Answers count until Redis announces a change.
    Tracking,
    /// Answers count for `lruCache.ttl`.
    Ttl,
}

impl FromStr for CacheMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "tracking" => Ok(Self::Tracking),
            "ttl" => Ok(Self::Ttl),
            other => Err(format!("expected `tracking`, `ttl` or `off`, not `{other}`")),
        }
    }
}

/// Seconds, with fractions.
fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number).ok())
        .ok_or_else(|| "expected a number of seconds, such as 30 or 0.5".to_owned())
}

fn level(text: &str) -> Result<String, String> {
    shared::telemetry::parse_level(text).map(|_filter| text.to_owned())
}
