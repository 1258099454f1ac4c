//! Redis addresses as Hipache's `driver` setting writes them:
//! `redis://user:password@host:port/db#prefix`, every part optional, or `unix:/path/to.sock`.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::secret::Secret;

/// Where Redis listens when nothing is said.
pub const DEFAULT_HOST: &str = "127.0.0.1";
/// The port that Redis listens on when nothing is said.
pub const DEFAULT_PORT: u16 = 6379;

/// How to reach one Redis.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Driver {
    /// Host and port, or socket.
    pub address: Address,
    /// ACL user, for Redis 6 and later.
    pub user: Option<String>,
    /// Password of the user, or of the whole server.
    pub password: Option<Secret>,
    /// Database number.
    pub database: u32,
    /// Put before `frontend:` and `dead:` as it stands.
    pub prefix: String,
}

/// Host and port, or socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// Plain TCP.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why a driver setting cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DriverError {
    /// Not a driver of ours.
    #[error(
        "the driver must be `redis://[:password@]host[:port][/database][#prefix]` or `unix:/path`, not `{0}:`"
    )]
    UnknownScheme(String),
    /// No scheme at all.
    #[error("the driver must begin with `redis://` or `unix:`")]
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
    #[error("user or password of the driver is not UTF-8 text")]
    NotText,
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
        let (rest, prefix) = rest.split_once('#').unwrap_or((rest, ""));
        let prefix = prefix.to_owned();
        if scheme.eq_ignore_ascii_case("unix") || scheme.eq_ignore_ascii_case("redis+unix") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if path.is_empty() {
                return Err(DriverError::NoPath);
            }
            return Ok(Self { address: Address::Unix(path.into()), prefix, ..Self::default() });
        }
        if !scheme.eq_ignore_ascii_case("redis") {
            return Err(DriverError::UnknownScheme(scheme.to_owned()));
        }
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let rest = rest.split_once('?').map_or(rest, |(before, _query)| before);
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
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
        let (host, port) = match address.strip_prefix('[') {
            Some(literal) => {
                let (host, rest) = literal.split_once(']').ok_or(DriverError::BadLiteral)?;
                (host, rest.strip_prefix(':').unwrap_or(rest))
            }
            None => address.split_once(':').unwrap_or((address, "")),
        };
        let port = match port {
            "" => DEFAULT_PORT,
            digits => {
                digits.parse::<u16>().ok().filter(|port| *port > 0).ok_or(DriverError::BadPort)?
            }
        };
        let database = match database {
            "" => 0,
            digits => digits.parse::<u32>().map_err(|_not_a_number| DriverError::BadDatabase)?,
        };
        let host = if host.is_empty() { DEFAULT_HOST } else { host };
        Ok(Self {
            address: Address::Tcp { host: host.to_owned(), port },
            user,
            password: password.map(Secret::new),
            database,
            prefix,
        })
    }
}

impl Default for Driver {
    /// A local Redis on its default port.
    fn default() -> Self {
        Self {
            address: Address::Tcp { host: DEFAULT_HOST.to_owned(), port: DEFAULT_PORT },
            user: None,
            password: None,
            database: 0,
            prefix: String::new(),
        }
    }
}

/// The driver without its password, for logs and `--dry`.
impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp { host, port } => {
                f.write_str("redis://")?;
                if self.user.is_some() || self.password.is_some() {
                    f.write_str(self.user.as_deref().unwrap_or(""))?;
                    if self.password.is_some() {
                        f.write_str(":***")?;
                    }
                    f.write_str("@")?;
                }
                if host.contains(':') {
                    write!(f, "[{host}]:{port}/{}", self.database)?;
                } else {
                    write!(f, "{host}:{port}/{}", self.database)?;
                }
            }
            Address::Unix(path) => write!(f, "unix:{}", path.display())?,
        }
        if !self.prefix.is_empty() {
            write!(f, "#{}", self.prefix)?;
        }
        Ok(())
    }
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

    use super::{Driver, DriverError};

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
        ] {
            assert_eq!(Driver::parse(text).unwrap().to_string(), shown, "{text}");
        }
        let driver = Driver::parse("redis://:p%40ss:1@h").unwrap();
        assert_eq!(driver.password.unwrap().expose(), "p@ss:1");
    }

    #[test]
    fn a_wrong_driver_says_which_part_is_wrong() {
        for (text, error) in [
            ("redis", DriverError::NoScheme),
            ("memcached://h", DriverError::UnknownScheme("memcached".into())),
            ("redis://h/x", DriverError::BadDatabase),
            ("redis://h:0", DriverError::BadPort),
            ("redis://h:99999", DriverError::BadPort),
            ("redis://[::1", DriverError::BadLiteral),
            ("unix:", DriverError::NoPath),
            ("redis://:%ff@h", DriverError::NotText),
        ] {
            assert_eq!(Driver::parse(text).unwrap_err(), error, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_password_is_shown(text in "redis://(:[A-Z]{9}@)?[a-z0-9:/#@%?\\[\\]]{0,20}") {
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
