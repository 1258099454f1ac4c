//! Redis addresses as Hipache's `driver` setting writes them:
//! `redis://user:password@host:port/db#prefix`, every part optional, or `unix:/path/to.sock`; and
//! two of our own: `rediss://` (TLS) and `redis+sentinel://host:port,host:port/service/db`.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::secret::Secret;

/// Where Redis listens when nothing is said.
pub const DEFAULT_HOST: &str = "127.0.0.1";
/// The port that Redis listens on when nothing is said.
pub const DEFAULT_PORT: u16 = 6379;
/// The port that Sentinel listens on when nothing is said.
pub const DEFAULT_SENTINEL_PORT: u16 = 26379;

/// How to reach one Redis.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Driver {
    /// Host and port, or socket, or who knows them.
    pub address: Address,
    /// ACL user, for Redis 6 and later.
    pub user: Option<String>,
    /// Password of the user, or of the whole server.
    pub password: Option<Secret>,
    /// File that `password` was read from. It is read again for each connection, so that a password
    /// can be changed while the process runs.
    pub password_file: Option<PathBuf>,
    /// Database number.
    pub database: u32,
    /// Put before `frontend:` and `dead:` as it stands.
    pub prefix: String,
    /// Set when the connection is encrypted.
    pub tls: Option<Tls>,
}

/// Host and port, or socket, or who knows them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// TCP.
    Tcp(HostPort),
    /// A Unix socket.
    Unix(PathBuf),
    /// The primary that these Sentinels name at the moment.
    Sentinel {
        /// Any number of them; all are asked.
        sentinels: Vec<HostPort>,
        /// What the Sentinels call the primary.
        service: String,
        /// ACL user of the Sentinels.
        user: Option<String>,
        /// Password of the Sentinels, which is not that of Redis.
        password: Option<Secret>,
    },
}

/// A TCP address whose host need not be resolved yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Files for an encrypted connection, PEM each. They are read anew for every connection, so that
/// renewed ones count without a restart.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tls {
    /// Authorities that may have signed the server's certificate; those of the system without it.
    pub ca: Option<PathBuf>,
    /// Certificate to show, for servers with `tls-auth-clients`, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why a driver setting cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DriverError {
    /// Not a driver of ours.
    #[error(
        "the driver must be `redis://[:password@]host[:port][/database][#prefix]`, `rediss://…`, \
         `redis+sentinel://host,host/service` or `unix:/path`, not `{0}:`"
    )]
    UnknownScheme(String),
    /// HOST:PORT without a scheme.
    #[error("the driver must begin with a scheme: write `redis://{0}`")]
    HostAndPort(String),
    /// No scheme at all.
    #[error("the driver must begin with `redis://`, `rediss://`, `redis+sentinel://` or `unix:`")]
    NoScheme,
    /// The database is not a number.
    #[error("the database of the driver must be a number (a `/` in a password is written %2F)")]
    BadDatabase,
    /// The port is not a number from 1 to 65535.
    #[error(
        "the port of the driver must be a number from 1 to 65535 (in a password, `#` is written \
         %23 and `/` %2F)"
    )]
    BadPort,
    /// `[...` without an end.
    #[error("the driver has `[` without `]`")]
    BadLiteral,
    /// `unix:` without a path.
    #[error("the driver `unix:` needs the path of a socket behind it")]
    NoPath,
    /// A percent escape that is not UTF-8.
    #[error("user, password or file of the driver is not UTF-8 text")]
    NotText,
    /// Sentinels without the name of what they watch.
    #[error(
        "the driver `redis+sentinel://` needs the name of the service behind the addresses, as in \
         `redis+sentinel://host1,host2/mymaster`"
    )]
    NoService,
    /// A parameter that does not exist.
    #[error(
        "the driver knows the parameters `ca`, `cert`, `key`, `sentinelUser` and \
         `sentinelPassword` behind `?`, and this is none of them"
    )]
    UnknownParameter,
    /// Files for TLS, but a plain connection.
    #[error("the driver has files for TLS: it must then begin with `rediss`")]
    NotTls,
    /// A certificate without its key, or the other way round.
    #[error("the driver needs `cert` and `key` together")]
    HalfIdentity,
}

/// What may stand behind `?`.
#[derive(Default)]
struct Parameters {
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
}

impl Driver {
    /// Parses a `driver` value.
    ///
    /// # Errors
    ///
    /// [`DriverError`] names the part that is wrong, and shows none of it: what stands in the wrong
    /// place may be a piece of a password.
    pub fn parse(text: &str) -> Result<Self, DriverError> {
        let (scheme, rest) = text.trim().split_once(':').ok_or(DriverError::NoScheme)?;
        if is_port(rest) && is_host(scheme) {
            return Err(DriverError::HostAndPort(format!("{scheme}:{rest}")));
        }
        let (rest, prefix) = rest.split_once('#').unwrap_or((rest, ""));
        let prefix = prefix.to_owned();
        let scheme = scheme.to_ascii_lowercase();
        let (is_tls, is_sentinel) = match scheme.as_str() {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis+sentinel" => (false, true),
            "rediss+sentinel" => (true, true),
            "unix" | "redis+unix" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() {
                    return Err(DriverError::NoPath);
                }
                return Ok(Self { address: Address::Unix(path.into()), prefix, ..Self::default() });
            }
            // What stands in front of the colon may be a piece of a password.
            _ if !rest.starts_with("//") => return Err(DriverError::NoScheme),
            _ => return Err(DriverError::UnknownScheme(scheme)),
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let parameters = Parameters::parse(query, is_tls || is_sentinel)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, authority),
        };
        let (user, password) = match credentials {
            Some(credentials) => {
                let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
                (decode(user)?, decode(password)?)
            }
            None => (None, None),
        };
        let tls = parameters.tls(is_tls)?;
        let (address, database) = if is_sentinel {
            let (service, database) = path.split_once('/').unwrap_or((path, ""));
            let sentinels =
                address.split(',').map(|one| HostPort::parse(one, DEFAULT_SENTINEL_PORT));
            let address = Address::Sentinel {
                sentinels: sentinels.collect::<Result<_, _>>()?,
                service: decode(service)?.ok_or(DriverError::NoService)?,
                user: parameters.sentinel_user,
                password: parameters.sentinel_password.map(Secret::new),
            };
            (address, database)
        } else {
            (Address::Tcp(HostPort::parse(address, DEFAULT_PORT)?), path)
        };
        let database = match database {
            "" => 0,
            digits => digits.parse::<u32>().map_err(|_not_a_number| DriverError::BadDatabase)?,
        };
        let password = password.map(Secret::new);
        Ok(Self { address, user, password, password_file: None, database, prefix, tls })
    }
}

impl Driver {
    /// Whether connections by `other` go to the same place in the same way. A password that comes from a
    /// file does not matter: it is read for each connection.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let settings = |driver: &Self| Self {
            password: driver.password.clone().filter(|_| driver.password_file.is_none()),
            ..driver.clone()
        };
        settings(self) == settings(other)
    }
}

impl HostPort {
    fn parse(text: &str, default_port: u16) -> Result<Self, DriverError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(literal) => {
                let (host, rest) = literal.split_once(']').ok_or(DriverError::BadLiteral)?;
                (host, rest.strip_prefix(':').unwrap_or(rest))
            }
            None => text.split_once(':').unwrap_or((text, "")),
        };
        let port = match port {
            "" => default_port,
            digits => {
                digits.parse::<u16>().ok().filter(|port| *port > 0).ok_or(DriverError::BadPort)?
            }
        };
        let host = if host.is_empty() { DEFAULT_HOST } else { host };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Parameters {
    /// Hipache ignores what stands behind `?`; with schemes of our own, an unknown name is a
    /// mistake.
    fn parse(query: &str, is_strict: bool) -> Result<Self, DriverError> {
        let mut parameters = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match name {
                "ca" => &mut parameters.ca,
                "cert" => &mut parameters.cert,
                "key" => &mut parameters.key,
                "sentinelUser" => &mut parameters.sentinel_user,
                "sentinelPassword" => &mut parameters.sentinel_password,
                _ if is_strict => return Err(DriverError::UnknownParameter),
                _ => continue,
            };
            *slot = decode(value)?;
        }
        Ok(parameters)
    }

    fn tls(&self, is_tls: bool) -> Result<Option<Tls>, DriverError> {
        let path = |text: &Option<String>| text.as_ref().map(PathBuf::from);
        let identity = match (path(&self.cert), path(&self.key)) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) | (None, Some(_)) => return Err(DriverError::HalfIdentity),
        };
        let tls = Tls { ca: path(&self.ca), identity };
        if !is_tls && tls != Tls::default() {
            return Err(DriverError::NotTls);
        }
        Ok(is_tls.then_some(tls))
    }
}

impl Default for Driver {
    /// A local Redis on its default port.
    fn default() -> Self {
        Self {
            address: Address::Tcp(HostPort { host: DEFAULT_HOST.to_owned(), port: DEFAULT_PORT }),
            user: None,
            password: None,
            password_file: None,
            database: 0,
            prefix: String::new(),
            tls: None,
        }
    }
}

/// The driver without its password, for logs and `--dry`.
impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Address::Unix(path) = &self.address {
            write!(f, "unix:{}", path.display())?;
        } else {
            f.write_str(if self.tls.is_some() { "rediss" } else { "redis" })?;
            if matches!(self.address, Address::Sentinel { .. }) {
                f.write_str("+sentinel")?;
            }
            f.write_str("://")?;
            if self.user.is_some() || self.password.is_some() {
                f.write_str(self.user.as_deref().unwrap_or(""))?;
                if self.password.is_some() {
                    f.write_str(":***")?;
                }
                f.write_str("@")?;
            }
            match &self.address {
                Address::Tcp(address) => write!(f, "{address}")?,
                Address::Sentinel { sentinels, service, .. } => {
                    for (index, sentinel) in sentinels.iter().enumerate() {
                        write!(f, "{}{sentinel}", if index > 0 { "," } else { "" })?;
                    }
                    write!(f, "/{service}")?;
                }
                Address::Unix(_) => {}
            }
            write!(f, "/{}", self.database)?;
        }
        if !self.prefix.is_empty() {
            write!(f, "#{}", self.prefix)?;
        }
        Ok(())
    }
}

/// A port, and perhaps a database.
fn is_port(text: &str) -> bool {
    let (port, database) = text.split_once('/').unwrap_or((text, ""));
    port.parse::<u16>().is_ok() && database.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_host(text: &str) -> bool {
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !text.is_empty() && text != "unix" && text.bytes().all(is_host_byte)
}

fn decode(text: &str) -> Result<Option<String>, DriverError> {
    if text.is_empty() {
        return Ok(None);
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(Some(text.into_owned())),
        Err(_not_utf8) => Err(DriverError::NotText),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Driver, DriverError, Tls};

    #[test]
    fn every_part_of_a_driver_is_optional() {
        for (text, shown) in [
            ("redis:", "redis://127.0.0.1:6379/0"),
            ("redis://", "redis://127.0.0.1:6379/0"),
            ("redis://redis", "redis://redis:6379/0"),
            ("redis://redis:7000", "redis://redis:7000/0"),
            ("redis://redis/2", "redis://redis:6379/2"),
            ("redis://:p%40ss@redis:1/3#pre:", "redis://:***@redis:1/3#pre:"),
            ("redis://me:pw@redis", "redis://me:***@redis:6379/0"),
            ("redis:///1", "redis://127.0.0.1:6379/1"),
            ("redis://[::1]:6380", "redis://[::1]:6380/0"),
            ("unix:/run/redis.sock#x", "unix:/run/redis.sock#x"),
            ("unix:///run/redis.sock", "unix:/run/redis.sock"),
            ("rediss://redis", "rediss://redis:6379/0"),
            ("rediss://me:pw@h:1/2?ca=/ca.pem&cert=/c&key=/k#x:", "rediss://me:***@h:1/2#x:"),
            ("redis://h?family=4", "redis://h:6379/0"),
            ("redis+sentinel://a,b:1,[::1]:2/main", "redis+sentinel://a:26379,b:1,[::1]:2/main/0"),
            (
                "REDISS+sentinel://:pw@a/main/3?sentinelPassword=x#p",
                "rediss+sentinel://:***@a:26379/main/3#p",
            ),
        ] {
            assert_eq!(Driver::parse(text).unwrap().to_string(), shown, "{text}");
        }
        let driver = Driver::parse("redis://:p%40ss:1@h").unwrap();
        assert_eq!(driver.password.unwrap().expose(), "p@ss:1");
        let driver = Driver::parse("rediss://h?ca=/a%20b&cert=/c&key=/k").unwrap();
        let identity = Some(("/c".into(), "/k".into()));
        assert_eq!(driver.tls, Some(Tls { ca: Some("/a b".into()), identity }));
    }

    #[test]
    fn a_wrong_driver_says_which_part_is_wrong() {
        for (text, error) in [
            ("redis", DriverError::NoScheme),
            ("localhost:25379", DriverError::HostAndPort("localhost:25379".into())),
            ("10.0.0.1:6379/2", DriverError::HostAndPort("10.0.0.1:6379/2".into())),
            ("redis:6379", DriverError::HostAndPort("redis:6379".into())),
            ("hunter2:x@host", DriverError::NoScheme),
            ("memcached://h", DriverError::UnknownScheme("memcached".into())),
            ("redis://h/x", DriverError::BadDatabase),
            ("redis://h:0", DriverError::BadPort),
            ("redis://h:99999", DriverError::BadPort),
            ("redis://[::1", DriverError::BadLiteral),
            ("unix:", DriverError::NoPath),
            ("redis://:%ff@h", DriverError::NotText),
            ("redis+sentinel://a,b", DriverError::NoService),
            ("redis+sentinel://a/s/x", DriverError::BadDatabase),
            ("redis+sentinel://a:x/s", DriverError::BadPort),
            ("rediss://h?tls=no", DriverError::UnknownParameter),
            ("redis://h?ca=/ca.pem", DriverError::NotTls),
            ("rediss://h?cert=/c", DriverError::HalfIdentity),
        ] {
            assert_eq!(Driver::parse(text).unwrap_err(), error, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_password_is_shown(text in "rediss?(\\+sentinel)?://(:[A-Z]{9}@)?[a-z0-9:/,=&#@%?\\[\\]]{0,20}") {
            if let Ok(driver) = Driver::parse(&text)
                && let Some(password) = driver.password.as_ref()
                && password.expose().len() >= 9
            {
                let shown = format!("{driver} {driver:?}");
                prop_assert!(!shown.contains(password.expose()));
            }
        }
    }
}
