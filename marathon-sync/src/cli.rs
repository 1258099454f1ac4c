//! Flags and their environment variables; nothing is resolved or validated beyond its syntax.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Parser, Subcommand};

use shared::telemetry::LogFormat;

use crate::rules::Policy;
use crate::rules::liveness::{FailureThreshold, HealthRule};

/// Keeps the router's lists in Redis equal to the live tasks of a Marathon cluster; a drop-in
/// replacement for the Marathon-Hipache bridge.
///
/// Apps say by a label (hipacheFrontend=www.example.com) which hosts they serve. The flags of the
/// bridge (-m -r -P -i -d -l, --MarathonUrl and so on) work unchanged. A flag counts before its
/// environment variable.
#[allow(clippy::doc_markdown, reason = "these comments are the text of --help")]
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "marathon-sync", version, max_term_width = 100)]
pub struct Cli {
    /// Marathon's URL, with its base path if there is one, repeatable: any of a cluster may answer
    #[arg(
        short,
        long,
        alias = "MarathonUrl",
        global = true,
        value_name = "URL",
        env = "MARATHON_SYNC_MARATHON",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub marathon: Vec<String>,

    /// Redis to write to: a driver as of the router, or HOST:PORT [default: redis://127.0.0.1:6379/0]
    #[arg(
        short,
        long,
        alias = "RedisHost",
        global = true,
        value_name = "DRIVER",
        env = "MARATHON_SYNC_REDIS",
        hide_env_values = true
    )]
    pub redis: Option<String>,

    /// File that holds the Redis password, for a driver that names none
    #[arg(long, global = true, value_name = "FILE", env = "MARATHON_SYNC_REDIS_PASSWORD_FILE")]
    pub redis_password_file: Option<PathBuf>,

    /// Absolute path of the list of apps, instead of the URL's own path and /v2/apps
    #[arg(
        short = 'P',
        long,
        alias = "AppsPath",
        global = true,
        value_name = "PATH",
        env = "MARATHON_SYNC_APPS_PATH"
    )]
    pub apps_path: Option<String>,

    /// Seconds between two full looks, whatever events say [default: 30]
    #[arg(short, long, alias = "Interval", global = true, value_name = "SECONDS", env = "MARATHON_SYNC_INTERVAL", value_parser = seconds)]
    pub interval: Option<Duration>,

    /// Write nothing; print what would be written as redis-cli lines
    #[arg(short, long, alias = "DryRun", global = true, env = "MARATHON_SYNC_DRY_RUN", action = ArgAction::Set, value_name = "BOOL", value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true)]
    pub dry_run: bool,

    /// Look once and end: 0 done, 1 failed, 2 done but for what is held back or cannot be read
    #[arg(long, global = true, env = "MARATHON_SYNC_ONCE", action = ArgAction::Set, value_name = "BOOL", value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true)]
    pub once: bool,

    /// Only apps that have this label, repeatable: one of them is enough
    #[arg(
        short,
        long,
        alias = "IncludeLabel",
        global = true,
        value_name = "NAME[=VALUE]",
        env = "MARATHON_SYNC_LABEL",
        value_delimiter = ','
    )]
    pub label: Vec<String>,

    /// Label that lists an app's hosts [default: hipacheFrontend]
    #[arg(long, global = true, value_name = "NAME", env = "MARATHON_SYNC_FRONTEND_LABEL")]
    pub frontend_label: Option<String>,

    /// Read marathon-lb's HAPROXY_* labels of this group too, repeatable; `*` for all
    #[arg(
        long,
        global = true,
        value_name = "GROUP",
        env = "MARATHON_SYNC_GROUP",
        value_delimiter = ','
    )]
    pub group: Vec<String>,

    /// With --group: only ports with HAPROXY_n_ENABLED
    #[arg(long, global = true, env = "MARATHON_SYNC_STRICT", action = ArgAction::Set, value_name = "BOOL", value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true)]
    pub strict: bool,

    /// Read traefik.* labels too
    #[arg(long, global = true, env = "MARATHON_SYNC_TRAEFIK", action = ArgAction::Set, value_name = "BOOL", value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true)]
    pub traefik: bool,

    /// Id of an app to leave out, with * and ?, repeatable
    #[arg(
        long,
        global = true,
        value_name = "ID",
        env = "MARATHON_SYNC_EXCLUDE",
        value_delimiter = ','
    )]
    pub exclude: Vec<String>,

    /// Which health results make a task healthy: all, any (marathon-lb) or first (the bridge)
    /// [default: all]
    #[arg(long, global = true, value_name = "RULE", env = "MARATHON_SYNC_HEALTH", value_parser = health)]
    pub health: Option<HealthRule>,

    /// Failures in a row from which a result is bad, or `max` for the check's own
    /// maxConsecutiveFailures [default: 1]
    #[arg(long, global = true, value_name = "N|max", env = "MARATHON_SYNC_HEALTH_FAILURES", value_parser = threshold)]
    pub health_failures: Option<FailureThreshold>,

    /// Tasks whose health is not known yet: down, keep (where they are listed) or up
    /// [default: keep]
    #[arg(long, global = true, value_name = "POLICY", env = "MARATHON_SYNC_UNKNOWN_HEALTH", value_parser = policy)]
    pub unknown_health: Option<Policy>,

    /// Seconds after which a running task of unknown health counts as well [default: never]
    #[arg(long, global = true, value_name = "SECONDS", env = "MARATHON_SYNC_UNKNOWN_HEALTH_AFTER", value_parser = seconds)]
    pub unknown_health_after: Option<Duration>,

    /// Tasks of agents that Mesos does not reach: down, keep (where they are listed) or up
    /// [default: keep]
    #[arg(long, global = true, value_name = "POLICY", env = "MARATHON_SYNC_UNREACHABLE", value_parser = policy)]
    pub unreachable: Option<Policy>,

    /// Let new tasks wait for their readiness checks during a deployment
    #[arg(long, global = true, env = "MARATHON_SYNC_READINESS", action = ArgAction::Set, value_name = "BOOL", value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true)]
    pub readiness: bool,

    /// Leave the tasks of an app listed when all of them are sick
    #[arg(long, global = true, env = "MARATHON_SYNC_KEEP_ALL_SICK", action = ArgAction::Set, value_name = "BOOL", value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true)]
    pub keep_all_sick: bool,

    /// Percentage of all backends beyond which removals that nothing explains have to be confirmed
    /// [default: 50]
    #[arg(long, global = true, value_name = "PERCENT", env = "MARATHON_SYNC_GUARD_SHARE", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub guard_share: Option<u32>,

    /// So many may go whatever their percentage, but never all [default: 3]
    #[arg(long, global = true, value_name = "N", env = "MARATHON_SYNC_GUARD_COUNT")]
    pub guard_count: Option<usize>,

    /// Answers in a row that confirm such removals [default: 3]
    #[arg(long, global = true, value_name = "N", env = "MARATHON_SYNC_GUARD_ANSWERS")]
    pub guard_answers: Option<u32>,

    /// Seconds over which they have to agree [default: 30]
    #[arg(long, global = true, value_name = "SECONDS", env = "MARATHON_SYNC_GUARD_FOR", value_parser = seconds)]
    pub guard_for: Option<Duration>,

    /// Seconds without an event after which a burst of them leads to a look [default: 0.25]
    #[arg(long, global = true, value_name = "SECONDS", env = "MARATHON_SYNC_DEBOUNCE", value_parser = seconds)]
    pub debounce: Option<Duration>,

    /// Seconds after which a burst leads to a look though it goes on [default: 2]
    #[arg(long, global = true, value_name = "SECONDS", env = "MARATHON_SYNC_DEBOUNCE_MAX", value_parser = seconds)]
    pub debounce_max: Option<Duration>,

    /// Name under which this marathon-sync, all its processes together, notes what it owns
    /// [default: default]
    #[arg(long, global = true, value_name = "NAME", env = "MARATHON_SYNC_INSTANCE")]
    pub instance: Option<String>,

    /// User of Marathon's basic authentication
    #[arg(long, global = true, value_name = "NAME", env = "MARATHON_SYNC_MARATHON_USER")]
    pub marathon_user: Option<String>,

    /// File that holds the user's password
    #[arg(long, global = true, value_name = "FILE", env = "MARATHON_SYNC_MARATHON_PASSWORD_FILE")]
    pub marathon_password_file: Option<PathBuf>,

    /// File that holds a token, sent as `Authorization: token=…`
    #[arg(long, global = true, value_name = "FILE", env = "MARATHON_SYNC_MARATHON_TOKEN_FILE")]
    pub marathon_token_file: Option<PathBuf>,

    /// File with the JSON document of a DC/OS service account
    #[arg(long, global = true, value_name = "FILE", env = "MARATHON_SYNC_DCOS_SERVICE_ACCOUNT")]
    pub dcos_service_account: Option<PathBuf>,

    /// File in PEM with authorities that may have signed Marathon's certificate, alongside the
    /// system's, or with that certificate itself; repeatable
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MARATHON_SYNC_MARATHON_CA",
        value_delimiter = ','
    )]
    pub marathon_ca: Vec<PathBuf>,

    /// File in PEM with the certificate to show to Marathon
    #[arg(long, global = true, value_name = "FILE", env = "MARATHON_SYNC_MARATHON_CERT")]
    pub marathon_cert: Option<PathBuf>,

    /// File in PEM with its key
    #[arg(long, global = true, value_name = "FILE", env = "MARATHON_SYNC_MARATHON_KEY")]
    pub marathon_key: Option<PathBuf>,

    /// Believe every certificate of Marathon: whoever is on the way then decides on the routes
    #[arg(long, global = true, env = "MARATHON_SYNC_INSECURE", action = ArgAction::Set, value_name = "BOOL", value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true)]
    pub insecure: bool,

    /// Address of the admin listener with /livez, /readyz, /metrics and /status [default: none]
    #[arg(long, global = true, value_name = "ADDR:PORT", env = "MARATHON_SYNC_ADMIN")]
    pub admin: Option<String>,

    /// Further names under which the admin listener may be asked for /metrics and /status, repeatable
    /// [default: addresses, this machine's name and names without a dot]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "MARATHON_SYNC_ADMIN_HOSTS",
        value_delimiter = ','
    )]
    pub admin_hosts: Vec<String>,

    /// Format of the program's log on standard error: text or json [default: text]
    #[arg(long, global = true, value_name = "FORMAT", env = "MARATHON_SYNC_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Level of the program's log: error, warn, info, debug or trace [default: info]
    #[arg(long, global = true, value_name = "LEVEL", env = "MARATHON_SYNC_LOG_LEVEL", value_parser = level)]
    pub log_level: Option<String>,

    /// What to do instead of keeping the lists
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do instead of keeping the lists.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Check the settings, print them with secrets censored, and exit
    Check,
    /// Explain an app or a host: claims, tasks, why each is in or out, what would be written
    Explain {
        /// Id of the app, such as /shop/web, or a host, such as www.example.com
        #[arg(value_name = "APP|HOST")]
        app: String,
    },
    /// Ask the admin listener of these settings whether the process lives; exit 0 if it does, 1 if
    /// not
    Healthcheck,
    /// Compare Redis with Marathon and write nothing; exit 0 if they agree, 1 if they differ, 2 if
    /// that cannot be told
    Verify,
}

/// Seconds, with fractions.
fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number).ok())
        .filter(|duration| *duration <= Duration::from_secs(86_400))
        .ok_or_else(|| {
            "expected a number of seconds of at most a day, such as 30 or 0.5".to_owned()
        })
}

fn health(text: &str) -> Result<HealthRule, String> {
    match text {
        "all" => Ok(HealthRule::All),
        "any" => Ok(HealthRule::Any),
        "first" => Ok(HealthRule::First),
        _ => Err("expected all, any or first".to_owned()),
    }
}

fn threshold(text: &str) -> Result<FailureThreshold, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(FailureThreshold::Failures(number)),
        _ if text == "max" => Ok(FailureThreshold::CheckMaximum),
        _ => Err("expected a number from 1 on, or max".to_owned()),
    }
}

fn policy(text: &str) -> Result<Policy, String> {
    match text {
        "down" => Ok(Policy::Down),
        "keep" => Ok(Policy::Keep),
        "up" => Ok(Policy::Up),
        _ => Err("expected down, keep or up".to_owned()),
    }
}

fn level(text: &str) -> Result<String, String> {
    shared::telemetry::parse_level(text).map(|_filter| text.to_owned())
}
