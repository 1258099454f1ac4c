//! Why Redis cannot be used, in words for operators. Pure.

use std::fmt;

use redis::{ErrorKind, RedisError};

/// Longest text of an error that is shown.
const SHOWN: usize = 200;

/// What keeps Redis from being used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Outage {
    /// It loads its data, runs a script or has lost its primary; this may pass by itself.
    Busy,
    /// Its certificate, or the file of its authorities, is not good.
    Certificate,
    /// It is a node of a cluster.
    Cluster,
    /// It has no database of that number.
    Database,
    /// It has as many clients as it takes.
    Full,
    /// Something that does not speak Redis' protocol listens there.
    NotRedis,
    /// It refuses the password, or wants one.
    Password,
    /// It is in protected mode, Redis' default without a password: local clients only.
    Protected,
    /// Its user may not do what is needed.
    Rights,
    /// There is no connection.
    #[default]
    Unreachable,
}

impl Outage {
    /// What an error of connecting, or of the first commands, means.
    pub(super) fn of(error: &RedisError) -> Self {
        let text = error.to_string();
        match error.code() {
            Some("LOADING" | "BUSY" | "MASTERDOWN") => return Self::Busy,
            Some("MOVED" | "CLUSTERDOWN") => return Self::Cluster,
            Some("NOAUTH" | "WRONGPASS") => return Self::Password,
            Some("NOPERM") => return Self::Rights,
            Some("DENIED") => return Self::Protected,
            _ => {}
        }
        if text.contains("max number of clients") {
            Self::Full
        } else if text.contains("refused to switch database") {
            Self::Database
        } else if text.contains("DENIED") {
            Self::Protected
        } else if text.contains("certificate") {
            Self::Certificate
        } else if error.kind() == ErrorKind::AuthenticationFailed || text.contains("AUTH") {
            Self::Password
        } else if matches!(error.kind(), ErrorKind::Parse | ErrorKind::UnexpectedReturnType) {
            Self::NotRedis
        } else {
            Self::Unreachable
        }
    }

    /// What to do about it.
    pub(super) fn advice(self, is_tls: bool) -> &'static str {
        match self {
            Self::Busy => "it is up but busy, this may pass by itself",
            Self::Certificate => "check its certificate, and `ca` of the driver",
            Self::Cluster => "it is part of a cluster, which is not supported",
            Self::Database => {
                "it refuses the database, which is the number at the end of `driver` or --redis: its \
                 `databases` allow 0 to 15 unless set otherwise"
            }
            Self::Full => "it has as many clients as its `maxclients` allows",
            Self::NotRedis if is_tls => {
                "what listens there does not speak Redis' protocol: check the port"
            }
            Self::NotRedis => {
                "what listens there does not speak Redis' protocol: check the port, and whether it \
                 wants TLS (rediss://)"
            }
            Self::Password => {
                "it refuses the password, check that and the user in `driver` or --redis, or the file of \
                 --redis-password-file"
            }
            Self::Protected => {
                "it is in protected mode and takes clients of its own machine only: set \
                 `requirepass` in redis.conf and name the password here"
            }
            Self::Rights => "its user may not do what is needed, see docs/redis-schema.md",
            Self::Unreachable if is_tls => {
                "check that it runs, speaks TLS on that port, and takes the certificate of the \
                 driver, if it asks for one"
            }
            Self::Unreachable => "check that it runs and that `driver` or --redis names it",
        }
    }
}

/// A sentence without its end.
impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "Redis is busy",
            Self::Certificate => "Redis has no certificate that can be trusted",
            Self::Cluster => "Redis is part of a cluster, which is not supported",
            Self::Database => "Redis refuses the database",
            Self::Full => "Redis takes no more clients",
            Self::NotRedis => "what listens at the address of Redis is not Redis",
            Self::Password => "Redis refuses the password",
            Self::Protected => "Redis is in protected mode and refuses other machines",
            Self::Rights => "Redis does not allow its user what is needed",
            Self::Unreachable => "Redis is not reachable",
        })
    }
}

/// The error in one line: a server that is not Redis may have answered anything.
pub(super) fn one_line(error: &RedisError) -> String {
    let text = error.to_string();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let is_first = line.is_empty();
        if line.len() + word.len() > SHOWN {
            line.push('…');
            break;
        }
        if !is_first {
            line.push(' ');
        }
        line.extend(word.chars().filter(|c| !c.is_control()));
    }
    line
}

#[cfg(test)]
mod tests {
    use redis::{ErrorKind, RedisError};

    use super::{Outage, one_line};

    fn io(text: &str) -> RedisError {
        std::io::Error::other(text.to_owned()).into()
    }

    #[test]
    fn an_error_says_what_keeps_redis_from_being_used() {
        for (error, expected) in [
            (io("Connection refused"), Outage::Unreachable),
            (io("ERR max number of clients reached"), Outage::Full),
            (io("DENIED Redis is running in protected mode because …"), Outage::Protected),
            (io("invalid peer certificate: UnknownIssuer"), Outage::Certificate),
            (io("Redis server refused to switch database"), Outage::Database),
            ((ErrorKind::AuthenticationFailed, "no").into(), Outage::Password),
            ((ErrorKind::Parse, "Incompatible type").into(), Outage::NotRedis),
            ((ErrorKind::UnexpectedReturnType, "no").into(), Outage::NotRedis),
        ] {
            assert_eq!(Outage::of(&error), expected, "{error}");
        }
    }

    #[test]
    fn an_error_is_shown_in_one_line_of_bounded_length() {
        assert_eq!(one_line(&io("a\nb \u{7} c")), "a b  c");
        let long = one_line(&io(&"word ".repeat(100)));
        assert!(long.len() < 210 && long.ends_with('…'), "{long}");
    }
}
