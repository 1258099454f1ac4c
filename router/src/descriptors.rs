//! File descriptors: how many the process may have, and which share of them is out of reach for clients.
//!
//! The kernel gives a new socket the lowest number that is free (POSIX, open(2)): a number says how many
//! descriptors are in use at least, of every kind and in every thread, without anything being counted.

use std::os::fd::RawFd;

use nix::sys::resource::{Resource, getrlimit};

/// Bounds of the reserve, in descriptors. 16 are enough for both connections to Redis, a monitor, a file of
/// the access log, and a few health checks.
const RESERVE: std::ops::RangeInclusive<RawFd> = 16..=128;

/// The limit of open files, and what is kept of it for the router itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Descriptors {
    limit: RawFd,
    reserve: RawFd,
}

/// What there is for a new client connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Room {
    /// It can be served.
    Enough,
    /// It can be served, health checks above all, but idle ones have to give way.
    Scarce,
    /// The rest is for the router itself.
    None,
}

impl Descriptors {
    /// Of a process that may have `limit` files open: an eighth of them is the reserve, within bounds.
    pub fn new(limit: u64) -> Self {
        let limit = RawFd::try_from(limit).unwrap_or(RawFd::MAX);
        let reserve = (limit / 8).clamp(*RESERVE.start(), *RESERVE.end()).min(limit / 4);
        Self { limit, reserve }
    }

    /// Of this process once it has raised its limit as far as it may.
    pub fn of_process() -> Self {
        // A system that does not say it has a limit is not known to have one.
        Self::new(getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_soft, hard)| hard))
    }

    /// What there is for a client connection that was given this number.
    pub fn room(self, descriptor: RawFd) -> Room {
        if descriptor >= self.limit - self.reserve / 2 {
            Room::None
        } else if descriptor >= self.limit - self.reserve {
            Room::Scarce
        } else {
            Room::Enough
        }
    }

    /// Whether a connection to a backend may have this number. What it may not have is left for client
    /// connections that need no backend, and for the router itself.
    pub fn allows_backend(self, descriptor: RawFd) -> bool {
        descriptor < self.limit - self.reserve
    }

    /// Client connections that give way at once when there is not enough room.
    pub fn given_way_at_once(self) -> usize {
        usize::try_from(self.reserve / 2).unwrap_or(0).max(1)
    }

    /// Connections of monitors at a time.
    pub fn monitors(self) -> usize {
        usize::try_from(self.reserve / 4).unwrap_or(0).max(1)
    }

    /// Tunnels that fit, at two descriptors each, into half of what clients may take.
    pub fn tunnels(self) -> u32 {
        u32::try_from((self.limit - self.reserve) / 4).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::{Descriptors, Room};

    #[test]
    fn an_eighth_is_kept_within_bounds() {
        for (limit, reserve, tunnels) in [
            (16, 4, 3),
            (64, 16, 12),
            (256, 32, 56),
            (1024, 128, 224),
            (1_048_576, 128, 262_112),
            (u64::MAX, 128, 536_870_879),
        ] {
            let descriptors = Descriptors::new(limit);
            assert_eq!((descriptors.reserve, descriptors.tunnels()), (reserve, tunnels), "{limit}");
        }
    }

    #[test]
    fn backends_stop_before_clients_and_clients_before_the_end() {
        let descriptors = Descriptors::new(256);
        for (number, room, backend) in [
            (3, Room::Enough, true),
            (223, Room::Enough, true),
            (224, Room::Scarce, false),
            (239, Room::Scarce, false),
            (240, Room::None, false),
            (255, Room::None, false),
        ] {
            let seen = (descriptors.room(number), descriptors.allows_backend(number));
            assert_eq!(seen, (room, backend), "{number}");
        }
        assert_eq!((descriptors.given_way_at_once(), descriptors.monitors()), (16, 8));
    }
}
