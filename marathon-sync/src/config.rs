//! All settings, typed and validated. [`Config`] has no value that means "default".

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use shared::admin::Hosts;
use shared::driver::Driver;
use shared::secret::Secret;

use crate::cli::Cli;
use crate::guard::Limits;
use crate::marathon::auth::{Credentials, CredentialsError, ReadFrom, Source, read_secret};
use crate::marathon::client;
use crate::marathon::debounce::Debounce;
use crate::marathon::endpoints::Endpoints;
use crate::marathon::tls::Tls;
use crate::rules::labels::{DEFAULT_LABEL, Include};
use crate::rules::liveness::{self, FailureThreshold, HealthRule};
use crate::rules::{self, Policy, labels};

/// Full looks are what finds that health went missing, which makes no event; Marathon answers a list
/// of 5,000 apps in some seconds.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);

/// Below this, looks would follow each other without a pause.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

const DEFAULT_INSTANCE: &str = "default";

/// Bytes of an instance's name, which is part of keys and log lines.
const LONGEST_INSTANCE: usize = 64;

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where Marathon is.
    pub endpoints: Endpoints,
    /// Who we are to it.
    pub credentials: Credentials,
    /// Where that was read.
    pub credentials_from: ReadFrom,
    /// Whom we trust.
    pub tls: Tls,
    /// Which Redis is written to.
    pub driver: Driver,
    /// Between two full looks.
    pub interval: Duration,
    /// How answers are read.
    pub rules: rules::Options,
    /// Which removals need confirmation.
    pub limits: Limits,
    /// Quiet time and longest delay of a burst of events.
    pub debounce: (Duration, Duration),
    /// Under which name the lists are kept.
    pub instance: String,
    /// Where the admin listener listens, if anywhere.
    pub admin: Option<SocketAddr>,
    /// Further names under which it is asked, normalized.
    pub admin_hosts: Vec<String>,
    /// Look once and end.
    pub once: bool,
    /// Write nothing.
    pub dry_run: bool,
}

/// What is wrong with the settings.
#[derive(Debug)]
pub struct ConfigError {
    /// The flag.
    pub flag: &'static str,
    /// What is wrong, and what was expected.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.flag, self.problem)
    }
}

impl std::error::Error for ConfigError {}

fn wrong(flag: &'static str, problem: impl fmt::Display) -> ConfigError {
    ConfigError { flag, problem: problem.to_string() }
}

impl Config {
    /// Resolves every setting, and reads files with secrets.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the flag.
    pub fn load(cli: &Cli) -> Result<Self, ConfigError> {
        let endpoints = Endpoints::parse(&cli.marathon, cli.apps_path.as_deref())
            .map_err(|error| wrong("--marathon", error))?;
        let interval = cli.interval.unwrap_or(DEFAULT_INTERVAL);
        if interval < SHORTEST_INTERVAL {
            return Err(wrong("--interval", "expected a number of seconds from 0.1 on"));
        }
        let instance = cli.instance.as_deref().unwrap_or(DEFAULT_INSTANCE);
        check_instance(instance)?;
        let frontend_label = cli.frontend_label.as_deref().unwrap_or(DEFAULT_LABEL);
        if frontend_label.is_empty() {
            return Err(wrong("--frontend-label", "a label needs a name"));
        }
        if cli.strict && cli.group.is_empty() {
            return Err(wrong(
                "--strict",
                "it is about HAPROXY_* labels, which are read with --group",
            ));
        }
        let (credentials_from, credentials) = credentials(cli)?;
        let limits = Limits::default();
        let debounce = (
            cli.debounce.unwrap_or(Debounce::DEFAULT_QUIET),
            cli.debounce_max.unwrap_or(Debounce::DEFAULT_AT_MOST),
        );
        Ok(Self {
            endpoints,
            credentials,
            credentials_from,
            tls: tls(cli)?,
            driver: driver(cli)?,
            interval,
            rules: rules::Options {
                labels: labels::Options {
                    label: frontend_label.to_owned(),
                    include: cli.label.iter().map(|text| Include::parse(text)).collect(),
                    groups: cli.group.clone(),
                    strict: cli.strict,
                    traefik: cli.traefik,
                },
                liveness: liveness(cli),
                exclude: cli.exclude.clone(),
            },
            limits: Limits {
                percent: cli.guard_share.unwrap_or(limits.percent),
                count: cli.guard_count.unwrap_or(limits.count),
                observations: cli.guard_answers.unwrap_or(limits.observations),
                duration: cli.guard_for.unwrap_or(limits.duration),
            },
            debounce,
            instance: instance.to_owned(),
            admin: admin(cli)?,
            admin_hosts: cli
                .admin_hosts
                .iter()
                .map(|name| Hosts::parse(name))
                .collect::<Result<_, _>>()
                .map_err(|error| wrong("--admin-hosts", error))?,
            once: cli.once,
            dry_run: cli.dry_run,
        })
    }

    /// What to ask Marathon for.
    pub fn client_options(&self) -> client::Options {
        // No selector of Marathon's: apps without our label tell whose an address is.
        client::Options { readiness: self.rules.liveness.readiness, ..client::Options::default() }
    }

    /// The effective settings without secrets, for `check`.
    pub fn censored(&self) -> String {
        let liveness = &self.rules.liveness;
        let labels = &self.rules.labels;
        let include = labels.include.iter().map(|Include { name, value }| match value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        });
        let urls = |endpoints: &Endpoints| -> Vec<_> {
            endpoints.iter().map(|endpoint| endpoint.apps_url().to_string()).collect()
        };
        let has_login = self.endpoints.iter().any(|endpoint| endpoint.login().is_some());
        let settings = json!({
            "marathon": urls(&self.endpoints),
            "login": match &self.credentials {
                Credentials::None if has_login => "in the URL".to_owned(),
                Credentials::None => "none".to_owned(),
                Credentials::Basic(basic) => format!("user {}", basic.user),
                Credentials::Token(_) => "token".to_owned(),
                Credentials::ServiceAccount(_) => "DC/OS service account".to_owned(),
            },
            "tls": {
                "ca": self.tls.ca_files,
                "certificate": self.tls.identity.as_ref().map(|(certificate, _key)| certificate),
                "insecure": self.tls.is_insecure,
            },
            "redis": self.driver.to_string(),
            "interval": self.interval.as_secs_f64(),
            "once": self.once,
            "dryRun": self.dry_run,
            "label": include.collect::<Vec<_>>(),
            "frontendLabel": labels.label,
            "group": labels.groups,
            "strict": labels.strict,
            "traefik": labels.traefik,
            "exclude": self.rules.exclude,
            "health": match liveness.health {
                HealthRule::All => "all",
                HealthRule::Any => "any",
                HealthRule::First => "first",
            },
            "healthFailures": match liveness.threshold {
                FailureThreshold::CheckMaximum => json!("max"),
                FailureThreshold::Failures(number) => json!(number),
            },
            "unknownHealth": name(liveness.unknown_health),
            "unknownHealthAfter": liveness.unknown_health_grace.map(|grace| grace.as_secs_f64()),
            "unreachable": name(liveness.unreachable),
            "readiness": liveness.readiness,
            "keepAllSick": liveness.keep_all_sick,
            "guard": {
                "share": self.limits.percent,
                "count": self.limits.count,
                "answers": self.limits.observations,
                "for": self.limits.duration.as_secs_f64(),
            },
            "debounce": self.debounce.0.as_secs_f64(),
            "debounceMax": self.debounce.1.as_secs_f64(),
            "instance": self.instance,
            "admin": self.admin.map(|address| address.to_string()),
            "adminHosts": self.admin_hosts,
        });
        format!("{settings:#}")
    }
}

fn name(policy: Policy) -> &'static str {
    match policy {
        Policy::Down => "down",
        Policy::Keep => "keep",
        Policy::Up => "up",
    }
}

/// The name stands in keys, between colons, and in what operators type.
fn check_instance(name: &str) -> Result<(), ConfigError> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > LONGEST_INSTANCE || !name.bytes().all(is_safe) {
        let problem = format!(
            "expected a name of at most {LONGEST_INSTANCE} letters, digits, `.`, `_` and `-`, not {name:?}"
        );
        return Err(wrong("--instance", problem));
    }
    Ok(())
}

fn liveness(cli: &Cli) -> liveness::Options {
    let default = liveness::Options::default();
    liveness::Options {
        health: cli.health.unwrap_or(default.health),
        threshold: cli.health_failures.unwrap_or(default.threshold),
        unknown_health: cli.unknown_health.unwrap_or(default.unknown_health),
        unknown_health_grace: cli
            .unknown_health_after
            .and_then(|grace| SignedDuration::try_from(grace).ok()),
        unreachable: cli.unreachable.unwrap_or(default.unreachable),
        readiness: cli.readiness,
        keep_all_sick: cli.keep_all_sick,
    }
}

/// The driver; the bridge wrote `HOST:PORT`.
fn driver(cli: &Cli) -> Result<Driver, ConfigError> {
    let flag = "--redis";
    let mut driver = match cli.redis.as_deref() {
        None => Driver::default(),
        Some(text) if is_host_and_port(text) => {
            Driver::parse(&format!("redis://{text}")).map_err(|error| wrong(flag, error))?
        }
        Some(text) => Driver::parse(text).map_err(|error| wrong(flag, error))?,
    };
    if let Some(path) = &cli.redis_password_file {
        let password = secret("--redis-password-file", path)?;
        if driver.password.is_none() {
            (driver.password, driver.password_file) = (Some(password), Some(path.clone()));
        }
    }
    Ok(driver)
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(['/', '@'])
            && (!host.contains(':') || host.starts_with('['))
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && !port.is_empty()
    })
}

/// The text of a file without line ends at its end.
fn secret(flag: &'static str, path: &Path) -> Result<Secret, ConfigError> {
    let text = read_secret(path).map_err(|error| unreadable(flag, &error))?;
    let text = text.expose().trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        let problem = format!("{} is empty: expected the password in it", path.display());
        return Err(wrong(flag, problem));
    }
    Ok(Secret::new(text))
}

fn unreadable(flag: &'static str, error: &CredentialsError) -> ConfigError {
    match std::error::Error::source(error) {
        Some(cause) => wrong(flag, format!("{error}: {cause}")),
        None => wrong(flag, error),
    }
}

fn credentials(cli: &Cli) -> Result<(ReadFrom, Credentials), ConfigError> {
    let basic = match (&cli.marathon_user, &cli.marathon_password_file) {
        (None, None) => None,
        (Some(user), Some(path)) if !user.contains(':') => {
            let source = Source::Basic { user: user.clone(), password: path.clone() };
            Some(("--marathon-password-file", source))
        }
        (Some(_), Some(_)) => return Err(wrong("--marathon-user", "a user's name has no colon")),
        _ => {
            return Err(wrong("--marathon-user", "it needs --marathon-password-file, and that it"));
        }
    };
    let token = cli.marathon_token_file.clone();
    let token = token.map(|path| ("--marathon-token-file", Source::Token(path)));
    let account = cli.dcos_service_account.clone();
    let account = account.map(|path| ("--dcos-service-account", Source::ServiceAccount(path)));
    let mut all = basic.into_iter().chain(token).chain(account);
    match (all.next(), all.next()) {
        (None, _) => Ok((ReadFrom::default(), Credentials::None)),
        (Some((flag, source)), None) => match source.read() {
            Ok((text, credentials)) => Ok((ReadFrom { source, text }, credentials)),
            Err(error) => Err(unreadable(flag, &error)),
        },
        (Some(_), Some(_)) => Err(wrong(
            "--marathon-user, --marathon-token-file, --dcos-service-account",
            "there can be only one of them",
        )),
    }
}

fn tls(cli: &Cli) -> Result<Tls, ConfigError> {
    let identity = match (&cli.marathon_cert, &cli.marathon_key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        _ => return Err(wrong("--marathon-cert", "it needs --marathon-key, and that it")),
    };
    Ok(Tls { ca_files: cli.marathon_ca.clone(), identity, is_insecure: cli.insecure })
}

/// `ADDR:PORT`, `:PORT` for every address, or `PORT` for this machine only.
fn admin(cli: &Cli) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(text) = cli.admin.as_deref().filter(|text| !text.is_empty() && *text != "none") else {
        return Ok(None);
    };
    if let Ok(port) = text.parse() {
        return Ok(Some((IpAddr::V4(Ipv4Addr::LOCALHOST), port).into()));
    }
    let whole =
        text.strip_prefix(':').map_or_else(|| text.to_owned(), |port| format!("[::]:{port}"));
    whole.parse().map(Some).map_err(|_not_an_address| {
        wrong("--admin", format!("expected ADDR:PORT such as 127.0.0.1:9002, not `{text}`"))
    })
}

#[cfg(test)]
mod tests;
