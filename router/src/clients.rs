//! How many connections there are, in all and from each address, over all workers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::Limits;
use crate::route::Millis;

/// Time between two complaints about one limit: an attack must not fill the log.
const COMPLAINT_PAUSE: Millis = 60_000;

/// Connections of which each may have what the kernel likes to keep for it.
const FEW: u32 = 64;

/// Counts the connections of all workers. Addresses are only kept while they have one, so that
/// there are never more of them than connections.
#[derive(Debug, Default)]
pub struct Clients {
    open: AtomicU32,
    by_address: Mutex<HashMap<IpAddr, u32>>,
    /// When a refusal was last to be said; 0 is never.
    complained: AtomicU64,
}

/// A counted connection; dropping it counts it off.
#[derive(Debug)]
pub struct Ticket {
    clients: Arc<Clients>,
    /// Where it is counted by address.
    address: Option<IpAddr>,
}

/// Which limit a connection would exceed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// `maxConnections`.
    Connections,
    /// The limit of open files, but for a reserve.
    Files,
    /// `maxConnectionsPerAddress`.
    PerAddress,
}

impl Refusal {
    /// The setting that refuses.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Connections => "server.maxConnections",
            Self::Files => "open files (ulimit -n, LimitNOFILE)",
            Self::PerAddress => "server.maxConnectionsPerAddress",
        }
    }
}

impl Clients {
    /// Counts a connection from `address`. `is_trusted` says that it comes from a proxy that
    /// carries the requests of many.
    ///
    /// # Errors
    ///
    /// The limit that it would exceed.
    pub fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        is_trusted: bool,
        limits: &Limits,
    ) -> Result<Ticket, Refusal> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        // Counted off again by being dropped, whatever follows.
        let mut ticket = Ticket { clients: Arc::clone(self), address: None };
        if limits.max_connections.is_some_and(|most| before >= most) {
            return Err(Refusal::Connections);
        }
        if let Some(most) = limits.max_connections_per_address.filter(|_| !is_trusted) {
            let address = network(address);
            let mut by_address = self.by_address();
            let count = by_address.entry(address).or_insert(0);
            if *count >= most {
                return Err(Refusal::PerAddress);
            }
            *count += 1;
            ticket.address = Some(address);
        }
        Ok(ticket)
    }

    /// Whether there are so many connections that each has to do with less.
    pub fn are_many(&self) -> bool {
        self.open.load(Ordering::Relaxed) > FEW
    }

    /// Whether a refusal at `now` is to be said in the log.
    pub fn may_complain(&self, now: Millis) -> bool {
        let last = self.complained.load(Ordering::Relaxed);
        if last != 0 && now.saturating_sub(last) < COMPLAINT_PAUSE {
            return false;
        }
        self.complained
            .compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.clients.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address {
            let mut by_address = self.clients.by_address();
            if let Some(count) = by_address.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    by_address.remove(&address);
                }
            }
        }
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::{COMPLAINT_PAUSE, Clients, Limits, Refusal};
    use crate::limits;

    fn limits(connections: u32, per_address: u32) -> Limits {
        Limits {
            max_connections: Some(connections),
            max_connections_per_address: Some(per_address),
            ..limits::tests::unlimited()
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_are_counted_on_and_off() {
        let clients = Arc::<Clients>::default();
        let limits = limits(3, 2);
        let first = clients.admit(ip("1.1.1.1"), false, &limits).unwrap();
        let _second = clients.admit(ip("::ffff:1.1.1.1"), false, &limits).unwrap();
        let third = clients.admit(ip("1.1.1.1"), false, &limits);
        assert_eq!(third.unwrap_err(), Refusal::PerAddress);
        let _trusted = clients.admit(ip("1.1.1.1"), true, &limits).unwrap();
        let fourth = clients.admit(ip("2.2.2.2"), false, &limits);
        assert_eq!(fourth.unwrap_err(), Refusal::Connections);
        drop(first);
        let _again = clients.admit(ip("1.1.1.1"), false, &limits).unwrap();
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_nobody_is_remembered() {
        let clients = Arc::<Clients>::default();
        let limits = limits(9, 1);
        let first = clients.admit(ip("2001:db8::1"), false, &limits).unwrap();
        assert!(clients.admit(ip("2001:db8::2:1"), false, &limits).is_err());
        let other = clients.admit(ip("2001:db8:0:1::1"), false, &limits).unwrap();
        drop((first, other));
        assert!(clients.by_address().is_empty());
        assert_eq!(clients.open.load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[test]
    fn a_limit_is_complained_about_once_a_minute() {
        let clients = Clients::default();
        assert!(clients.may_complain(5));
        assert!(!clients.may_complain(6));
        assert!(clients.may_complain(5 + COMPLAINT_PAUSE));
    }
}
