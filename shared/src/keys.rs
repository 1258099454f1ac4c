//! The Redis key schema, in one place. `docs/redis-schema.md` is its reference page.

/// Channel that dead backends are announced on. Hipache gives it no prefix.
pub const DEAD_CHANNEL: &str = "dead";

/// Key that an external health checker writes the Unix time to. Hipache gives it no prefix.
pub const CHECKER_PING: &str = "hchecker_ping";

/// An external checker counts as alive while its ping is younger than this, in seconds.
pub const CHECKER_ALIVE_SECONDS: u64 = 30;

/// Key of the list that holds the identifier and the backends of `name`.
pub fn frontend(prefix: &str, name: &str) -> String {
    format!("{prefix}frontend:{name}")
}

/// Key of the set that holds the positions of the dead backends of the requested `host`.
pub fn dead(prefix: &str, host: &str) -> String {
    format!("{prefix}dead:{host}")
}

/// Key of the hash that holds the settings of `name`, a host or a wildcard.
pub fn options(prefix: &str, name: &str) -> String {
    format!("{prefix}options:{name}")
}

/// What begins every `options:` key.
pub fn options_prefix(prefix: &str) -> String {
    options(prefix, "")
}

/// Key of the hash that holds the certificate of `name`, which may be a wildcard.
pub fn certificate(prefix: &str, name: &str) -> String {
    format!("{prefix}tls:{name}")
}

/// What begins every `tls:` key.
pub fn certificate_prefix(prefix: &str) -> String {
    certificate(prefix, "")
}

/// What begins every `frontend:` key.
pub fn frontend_prefix(prefix: &str) -> String {
    frontend(prefix, "")
}

/// What begins every `dead:` key.
pub fn dead_prefix(prefix: &str) -> String {
    dead(prefix, "")
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
        agent_active, agent_instances, agent_lease, agent_owned, checker_is_alive, dead,
        dead_message, frontend, options,
    };

    #[test]
    fn keys_put_the_prefix_first_as_it_stands() {
        assert_eq!(frontend("", "a.test"), "frontend:a.test");
        assert_eq!(frontend("x", "*.a.test"), "xfrontend:*.a.test");
        assert_eq!(dead("x:", "a.test"), "x:dead:a.test");
        assert_eq!(options("x:", "*.a.test"), "x:options:*.a.test");
        assert_eq!(agent_owned("x:", "blue"), "x:marathon-sync:blue:owned");
        assert_eq!(agent_lease("", "blue"), "marathon-sync:blue:lease");
        assert_eq!(agent_active("x:", "blue"), "x:marathon-sync:blue:active");
        assert_eq!(agent_instances("x:"), "x:marathon-sync:instances");
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
