//! Which request may use a connection that has carried another one. Pure.
//!
//! A backend may close an idle connection at the moment that a request is written to it, and a request that
//! may not be sent twice is lost then (RFC 9112 9.3.1). Whether that can happen depends on how long the
//! connection has been idle: servers close theirs after seconds, and most announce nothing.

use crate::route::Millis;
use crate::route::options::KeepAlive;

/// An unused connection is closed after this. Backends commonly close theirs after 60 s or more; those that
/// do so sooner are noticed before the connection is used.
pub(super) const IDLE_TIMEOUT: Millis = 55_000;
/// The shortest idle time after which servers in wide use close connections is 2 s (Gunicorn); so young a
/// connection is closed by a server only if it ends.
const PROVEN_WITHIN: Millis = 1_000;
/// Least margin before the end of an announced time.
const MIN_MARGIN: Millis = 1_000;

/// What is known of an idle connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Idle {
    /// For how long it has been idle.
    pub(super) age: Millis,
    /// Seconds that the backend keeps idle connections, as `Keep-Alive: timeout` announced.
    pub(super) announced: Option<u32>,
}

impl Idle {
    /// Whether it is to be kept at all: well inside the announced time, by a second or a tenth of it.
    pub(super) fn is_kept(self) -> bool {
        let limit = self.announced.map_or(IDLE_TIMEOUT, |seconds| {
            let announced = Millis::from(seconds) * 1000;
            announced.saturating_sub(MIN_MARGIN.max(announced / 10)).min(IDLE_TIMEOUT)
        });
        self.age < limit
    }

    /// Whether a request may use it. `is_safe`: it is idempotent and without a body, so that it is sent again
    /// if the connection turns out to be closed.
    pub(super) fn suits(self, keep_alive: KeepAlive, is_safe: bool) -> bool {
        self.is_kept()
            && match keep_alive {
                KeepAlive::Off => false,
                KeepAlive::Safe => is_safe,
                KeepAlive::On => is_safe || self.age < PROVEN_WITHIN,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::{IDLE_TIMEOUT, Idle, KeepAlive};

    #[test]
    fn connections_suit_requests_by_their_age_and_what_the_host_says() {
        use KeepAlive::{Off, On, Safe};
        for (age, announced, keep_alive, safe, unsafe_one) in [
            (0, None, On, true, true),
            (999, None, On, true, true),
            (1_000, None, On, true, false),
            (IDLE_TIMEOUT - 1, None, On, true, false),
            (IDLE_TIMEOUT, None, On, false, false),
            (0, None, Safe, true, false),
            (0, None, Off, false, false),
            (3_999, Some(5), On, true, false),
            (4_000, Some(5), On, false, false),
            (26_999, Some(30), Safe, true, false),
            (27_000, Some(30), Safe, false, false),
            (0, Some(1), On, false, false),
            (0, Some(0), On, false, false),
            (IDLE_TIMEOUT, Some(u32::MAX), On, false, false),
        ] {
            let idle = Idle { age, announced };
            let seen = (idle.suits(keep_alive, true), idle.suits(keep_alive, false));
            assert_eq!(seen, (safe, unsafe_one), "{idle:?} {keep_alive:?}");
        }
    }
}
