//! The limits of clients: flag before variable before file before default.

use std::time::Duration;

use super::ConfigError;
use super::read::Loaded;
use super::resolve::flag_error;
use crate::cli::Cli;
use crate::descriptors::Descriptors;
use crate::limits::{DEFAULT_MAX_HEAD, DEFAULT_MAX_HEADERS, Limits, MAX_URI, MIN_HEAD};

/// A slow phone sends a head within a second; whoever needs ten has other plans.
const DEFAULT_HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Browsers open connections that they may need soon; they make new ones when those are gone.
const DEFAULT_FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time between requests where `tcpTimeout` sets none. A connection without a request is
/// worth nothing to its client that a new one is not.
const MAX_IDLE: Duration = Duration::from_secs(300);
/// Far below the slowest modem, far above what it takes to look alive.
const DEFAULT_MIN_BODY_RATE: u32 = 100;
/// A worker that has this many is not keeping up: those that it takes on top would only be answered
/// later still, and each takes memory until it is.
const DEFAULT_MAX_REQUESTS: u32 = 10_000;
/// More lines than any client sends; each costs memory in every request.
const MAX_HEADERS: u32 = 10_000;
/// Memory that one connection may take for a head.
const MAX_HEAD: u32 = 16 * 1024 * 1024;

/// Resolves the limits. `tcp_timeout` is the default of what is not set.
pub(super) fn limits(
    cli: &Cli,
    loaded: &Loaded,
    tcp_timeout: Option<Duration>,
) -> Result<Limits, ConfigError> {
    let (cli, server) = (&cli.limits, &loaded.file.server);
    let seconds = |key: &str, flag: Option<Duration>, value: Option<f64>, default: Duration| {
        let problem = "expected more than 0 seconds";
        let limit = match (flag, value) {
            (Some(limit), _) => limit,
            (None, None) => default,
            (None, Some(value)) => Duration::try_from_secs_f64(value)
                .map_err(|_out_of_range| loaded.error(&format!("server.{key}"), problem))?,
        };
        match (limit.is_zero(), flag) {
            (false, _) => Ok(limit),
            (true, None) => Err(loaded.error(&format!("server.{key}"), problem)),
            (true, Some(_)) => Err(flag_error(&flag_of(key), problem)),
        }
    };
    let within = |key: &str, flag: Option<u32>, value: Option<u32>, default, least, most| {
        let Some(number) = flag.or(value) else { return Ok(default) };
        if (least..=most).contains(&number) {
            return Ok(number as usize);
        }
        let problem = format!("expected a number from {least} to {most}, not {number}");
        Err(match flag {
            Some(_) => flag_error(&flag_of(key), problem),
            None => loaded.error(&format!("server.{key}"), problem),
        })
    };
    let count = |flag: Option<u32>, value: Option<u32>, default: u32| {
        Some(flag.or(value).unwrap_or(default)).filter(|count| *count != 0)
    };
    let per_connection =
        count(cli.max_requests_per_connection, server.max_requests_per_connection, 0);
    let per_address = count(cli.max_connections_per_address, server.max_connections_per_address, 0);
    // Generous, but no tunnels of one kind of client or one backend take the descriptors of all others.
    let tunnels = Descriptors::of_process().tunnels();
    let max_tunnels = count(cli.max_tunnels, server.max_tunnels, tunnels);
    let per_backend = max_tunnels.unwrap_or(tunnels).div_ceil(2);
    let per_backend =
        count(cli.max_tunnels_per_backend, server.max_tunnels_per_backend, per_backend);
    let uri_limit = u32::try_from(MAX_URI).unwrap_or(u32::MAX);
    let least_head = u32::try_from(MIN_HEAD).unwrap_or(u32::MAX);
    Ok(Limits {
        head_timeout: seconds(
            "headTimeout",
            cli.head_timeout,
            server.head_timeout,
            DEFAULT_HEAD_TIMEOUT,
        )?,
        first_byte_timeout: seconds(
            "firstByteTimeout",
            cli.first_byte_timeout,
            server.first_byte_timeout,
            DEFAULT_FIRST_BYTE_TIMEOUT,
        )?,
        idle_timeout: seconds(
            "idleTimeout",
            cli.idle_timeout,
            server.idle_timeout,
            tcp_timeout.unwrap_or(MAX_IDLE),
        )?,
        max_head: within(
            "maxHead",
            cli.max_head,
            server.max_head,
            DEFAULT_MAX_HEAD,
            least_head,
            MAX_HEAD,
        )?,
        max_headers: within(
            "maxHeaders",
            cli.max_headers,
            server.max_headers,
            DEFAULT_MAX_HEADERS,
            1,
            MAX_HEADERS,
        )?,
        max_uri: within("maxUri", cli.max_uri, server.max_uri, MAX_URI, 1, uri_limit)?,
        max_body: cli.max_body.or(server.max_body).filter(|bytes| *bytes != 0),
        min_body_rate: count(cli.min_body_rate, server.min_body_rate, DEFAULT_MIN_BODY_RATE),
        max_requests: count(cli.max_requests, server.max_requests, DEFAULT_MAX_REQUESTS),
        max_requests_per_connection: per_connection,
        max_connections: count(cli.max_connections, server.max_connections, 0),
        max_connections_per_address: per_address,
        max_tunnels,
        max_tunnels_per_backend: per_backend,
    })
}

/// `headTimeout` is `--head-timeout`.
fn flag_of(key: &str) -> String {
    let mut flag = "--".to_owned();
    for letter in key.chars() {
        if letter.is_ascii_uppercase() {
            flag.push('-');
        }
        flag.push(letter.to_ascii_lowercase());
    }
    flag
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use clap::Parser;

    use super::super::read;
    use super::{Cli, Limits, limits};

    fn load(text: &str, flags: &[&str]) -> Result<Limits, String> {
        let cli = Cli::try_parse_from(std::iter::once(&"router").chain(flags))
            .map_err(|error| error.to_string())?;
        let loaded = read::parse(Path::new("c.json"), text.to_owned()).unwrap();
        assert_eq!(loaded.warnings, Vec::<String>::new());
        let tcp_timeout = Some(Duration::from_secs(30));
        limits(&cli, &loaded, tcp_timeout).map_err(|error| error.to_string())
    }

    #[test]
    fn zero_is_no_limit_where_that_makes_sense() {
        let limits = load("{}", &[]).unwrap();
        assert_eq!((limits.max_body, limits.max_connections), (None, None));
        assert_eq!((limits.min_body_rate, limits.max_requests), (Some(100), Some(10_000)));
        assert_eq!(limits.idle_timeout, Duration::from_secs(30));
        let tunnels = limits.max_tunnels.unwrap();
        assert_eq!(limits.max_tunnels_per_backend, Some(tunnels.div_ceil(2)));
        let text = r#"{"server": {"maxTunnels": 0, "maxTunnelsPerBackend": 11,
            "minBodyRate": 0, "maxRequests": 0, "maxBody": 7,
            "maxConnections": 8, "maxConnectionsPerAddress": 9, "maxRequestsPerConnection": 10,
            "idleTimeout": 0.5}}"#;
        let limits = load(text, &["--max-connections=0"]).unwrap();
        assert_eq!((limits.min_body_rate, limits.max_requests), (None, None));
        assert_eq!((limits.max_body, limits.max_connections), (Some(7), None));
        assert_eq!(limits.max_connections_per_address, Some(9));
        assert_eq!(limits.max_requests_per_connection, Some(10));
        assert_eq!((limits.max_tunnels, limits.max_tunnels_per_backend), (None, Some(11)));
        assert_eq!(limits.idle_timeout, Duration::from_millis(500));
        let limits = load(r#"{"server": {"maxTunnels": 7}}"#, &[]).unwrap();
        assert_eq!((limits.max_tunnels, limits.max_tunnels_per_backend), (Some(7), Some(4)));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        for (text, flags, error) in [
            (
                r#"{"server": {"headTimeout": 0}}"#,
                &[][..],
                "c.json:1: server.headTimeout: expected more than 0 seconds",
            ),
            (
                "{}",
                &["--first-byte-timeout=0"],
                "--first-byte-timeout: expected more than 0 seconds",
            ),
            (
                r#"{"server": {"maxHead": 4096}}"#,
                &[],
                "c.json:1: server.maxHead: expected a number from 8192 to 16777216, not 4096",
            ),
            ("{}", &["--max-uri=65535"], "--max-uri: expected a number from 1 to 65534, not 65535"),
            (
                r#"{"server": {"maxHeaders": 0}}"#,
                &[],
                "c.json:1: server.maxHeaders: expected a number from 1 to 10000, not 0",
            ),
        ] {
            assert_eq!(load(text, flags).unwrap_err(), error);
        }
    }
}
