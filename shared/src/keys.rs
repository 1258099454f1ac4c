//! The Redis key schema, in one place. `docs/redis-schema.md` is its reference page.

/// Channel that dead backends are announced on. Hipache gives it no prefix.
pub const DEAD_CHANNEL: &str = "dead";

/// Key that an external health checker writes the Unix time to. Hipache gives it no prefix.
pub const CHECKER_PING: &str = "hchecker_ping";

/// An external checker counts as alive while its ping is younger than this, in seconds.
pub const CHECKER_ALIVE_SECONDS: u64 = 30;

/// A kind of key that says something about one name: `<prefix><word>:<name>`.
///
/// All that depends on the kind alone is in [`Kind::facts`]: a new kind is one more variant and one more row
/// there, and the compiler names the places that have to decide what a change of it affects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Certificate and private key of a name, which may be a wildcard.
    Certificate,
    /// Positions of the dead backends of a requested host.
    Dead,
    /// Identifier and backends of a name, which may be a wildcard.
    Frontend,
    /// Settings of a name, which may be a wildcard.
    Options,
}

/// What holds for all keys of one kind.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// What stands before the colon.
    word: &'static str,
    /// The type of its values, as `TYPE` shows it.
    redis_type: &'static str,
    /// Most items of a value that is read.
    max_items: usize,
    /// Most memory of a value that is read, in bytes.
    max_bytes: usize,
}

impl Kind {
    /// Every kind. Redis is asked to announce changes of all of them.
    pub const ALL: [Self; 4] = [Self::Certificate, Self::Dead, Self::Frontend, Self::Options];

    const fn facts(self) -> Facts {
        /// Far more than any host has backends, and few enough that they are copied and parsed in some
        /// milliseconds.
        const ROWS: usize = 10_000;
        /// [`ROWS`] rows of some hundred bytes each, and what Redis needs for them.
        const ROWS_BYTES: usize = 4 * 1024 * 1024;
        match self {
            Self::Certificate => Facts {
                word: "tls",
                redis_type: "hash",
                max_items: 2,
                // Of each field: more than the longest chain of large RSA certificates.
                max_bytes: 256 * 1024,
            },
            Self::Dead => {
                Facts { word: "dead", redis_type: "set", max_items: ROWS, max_bytes: ROWS_BYTES }
            }
            Self::Frontend => Facts {
                word: "frontend",
                redis_type: "list",
                max_items: ROWS,
                max_bytes: ROWS_BYTES,
            },
            Self::Options => Facts {
                word: "options",
                redis_type: "hash",
                // There are fewer than twenty settings; authorities and lists of users may be long.
                max_items: 256,
                max_bytes: 1024 * 1024,
            },
        }
    }

    /// The key of this kind for `name`.
    pub fn key(self, prefix: &str, name: &str) -> String {
        format!("{prefix}{}:{name}", self.facts().word)
    }

    /// What begins every key of this kind.
    pub fn prefix(self, prefix: &str) -> String {
        self.key(prefix, "")
    }

    /// Kind and name of `key`; `None` when it is no key of a name.
    pub fn parse<'a>(prefix: &str, key: &'a str) -> Option<(Self, &'a str)> {
        let (word, name) = key.strip_prefix(prefix)?.split_once(':')?;
        let kind = Self::ALL.into_iter().find(|kind| kind.facts().word == word)?;
        Some((kind, name))
    }

    /// The type of its values, as `TYPE` shows it.
    pub const fn redis_type(self) -> &'static str {
        self.facts().redis_type
    }

    /// Most items of a value that is read.
    pub const fn max_items(self) -> usize {
        self.facts().max_items
    }

    /// Most memory of a value that is read, in bytes; of a [`Kind::Certificate`], of each field.
    pub const fn max_bytes(self) -> usize {
        self.facts().max_bytes
    }
}

/// Key of the list that holds the identifier and the backends of `name`.
pub fn frontend(prefix: &str, name: &str) -> String {
    Kind::Frontend.key(prefix, name)
}

/// Key of the set that holds the positions of the dead backends of the requested `host`.
pub fn dead(prefix: &str, host: &str) -> String {
    Kind::Dead.key(prefix, host)
}

/// Key of the hash in which the marathon-sync of that name notes which lists it keeps: host to what
/// it knows of the list.
pub fn agent_owned(prefix: &str, instance: &str) -> String {
    format!("{prefix}marathon-sync:{instance}:owned")
}

/// Key of the string that names the one process of that marathon-sync that may write.
pub fn agent_lease(prefix: &str, instance: &str) -> String {
    format!("{prefix}marathon-sync:{instance}:lease")
}

/// Key of the set of the names of all marathon-syncs that write to this Redis.
pub fn agent_instances(prefix: &str) -> String {
    format!("{prefix}marathon-sync:instances")
}

/// Key of the string that is there while the marathon-sync of that name is in use.
pub fn agent_active(prefix: &str, instance: &str) -> String {
    format!("{prefix}marathon-sync:{instance}:active")
}

/// Message on [`DEAD_CHANNEL`]: `<host>;<backend url>;<position>;<number of backends>`.
pub fn dead_message(host: &str, url: &str, position: usize, count: usize) -> String {
    format!("{host};{url};{position};{count}")
}

/// A ping from further in the future than this, in seconds, is no clock that runs ahead but
/// garbage, which would count for ever.
const MAX_CLOCK_SKEW: f64 = 3600.0;

/// Whether a checker that wrote `ping` (Unix seconds, as text) is alive at `now` (Unix seconds).
/// Garbage counts as no checker: then we keep the dead set ourselves.
pub fn checker_is_alive(ping: Option<&[u8]>, now: u64) -> bool {
    ping.and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.trim().parse::<f64>().ok())
        .is_some_and(|written| {
            let age = now as f64 - written;
            age < CHECKER_ALIVE_SECONDS as f64 && age > -MAX_CLOCK_SKEW
        })
}

#[cfg(test)]
mod tests {
    use super::{
        Kind, agent_active, agent_instances, agent_lease, agent_owned, checker_is_alive, dead,
        dead_message, frontend,
    };

    #[test]
    fn keys_put_the_prefix_first_as_it_stands() {
        assert_eq!(frontend("", "a.test"), "frontend:a.test");
        assert_eq!(frontend("x", "*.a.test"), "xfrontend:*.a.test");
        assert_eq!(dead("x:", "a.test"), "x:dead:a.test");
        assert_eq!(Kind::Options.key("x:", "*.a.test"), "x:options:*.a.test");
        assert_eq!(Kind::Certificate.prefix("x:"), "x:tls:");
        assert_eq!(agent_owned("x:", "blue"), "x:marathon-sync:blue:owned");
        assert_eq!(agent_lease("", "blue"), "marathon-sync:blue:lease");
        assert_eq!(agent_active("x:", "blue"), "x:marathon-sync:blue:active");
        assert_eq!(agent_instances("x:"), "x:marathon-sync:instances");
    }

    #[test]
    fn keys_are_parsed_as_they_are_made() {
        for prefix in ["", "x", "x:", "frontend:"] {
            for kind in Kind::ALL {
                for name in ["a.test", "*.a.test", "*", "", "[::1]", "dead:a.test"] {
                    let key = kind.key(prefix, name);
                    assert_eq!(Kind::parse(prefix, &key), Some((kind, name)), "{key}");
                }
            }
        }
        for key in ["", "frontend", "frontends:a.test", "marathon-sync:a:owned", "dead"] {
            assert_eq!(Kind::parse("", key), None, "{key}");
        }
        assert_eq!(Kind::parse("x:", "frontend:a.test"), None, "another prefix");
    }

    #[test]
    fn the_dead_message_is_hipaches() {
        assert_eq!(
            dead_message("a.test", "http://10.0.0.1:80/", 0, 2),
            "a.test;http://10.0.0.1:80/;0;2"
        );
    }

    #[test]
    fn a_checker_is_alive_while_its_ping_is_younger_than_30_s() {
        assert!(checker_is_alive(Some(b"1000"), 1000));
        assert!(checker_is_alive(Some(b"1000"), 1029));
        assert!(checker_is_alive(Some(b"1000.5\n"), 1029));
        assert!(!checker_is_alive(Some(b"1000"), 1030));
        assert!(!checker_is_alive(Some(b"soon"), 1000));
        assert!(!checker_is_alive(None, 1000));
        assert!(checker_is_alive(Some(b"1100"), 1000), "its clock runs ahead");
        for garbage in [&b"inf"[..], b"1e300", b"99999", b"NaN"] {
            assert!(!checker_is_alive(Some(garbage), 1000));
        }
    }
}
