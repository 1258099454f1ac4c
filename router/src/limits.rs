//! How long, how much and how many a client may make the router bear.

use std::time::Duration;

/// Header lines of a request. Browsers send about twenty; HAProxy's default is 101.
pub const DEFAULT_MAX_HEADERS: usize = 100;
/// Node, and with it Hipache, took 80 KiB.
pub const DEFAULT_MAX_HEAD: usize = 80 * 1024;
/// Bytes of a request target that no setting can raise: HTTP/2's URI type takes no more.
pub const MAX_URI: usize = 65_534;
/// The least for a head: the size of an ordinary buffer, which every head may fill.
pub const MIN_HEAD: usize = 8 * 1024;

/// Limits of client connections and their requests. `None` is no limit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Time for a request head from its first byte on.
    pub head_timeout: Duration,
    /// Time for the first byte of a new connection.
    pub first_byte_timeout: Duration,
    /// Time between the end of an answer and the first byte of the next request.
    pub idle_timeout: Duration,
    /// Bytes of a request's head, which is also the largest read buffer of a connection.
    pub max_head: usize,
    /// Header lines of a request.
    pub max_headers: usize,
    /// Bytes of path and query.
    pub max_uri: usize,
    /// Bytes of a request's body.
    pub max_body: Option<u64>,
    /// Bytes a second that a request body has to bring while it is waited for.
    pub min_body_rate: Option<u32>,
    /// Requests that one worker answers at a time.
    pub max_requests: Option<u32>,
    /// Requests after which a connection ends.
    pub max_requests_per_connection: Option<u32>,
    /// Connections of all workers together.
    pub max_connections: Option<u32>,
    /// Connections from one IPv4 address, or one IPv6 network of 64 bits.
    pub max_connections_per_address: Option<u32>,
    /// Tunnels of all workers together.
    pub max_tunnels: Option<u32>,
    /// Tunnels of all workers together to one backend.
    pub max_tunnels_per_backend: Option<u32>,
}

/// What a peer has left of the time that its bytes have bought: each byte buys 1/rate seconds, and
/// no more can be saved up than the patience that it begins with, which one lost packet must not use up. Silence is not enough to be measured by: a byte now and
/// then holds a connection for ever.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes a second.
    rate: u32,
    /// Milliseconds, exact to a byte's worth at rates from 1 on.
    left: f64,
    patience: f64,
}

impl Pace {
    /// A full measure of patience with a peer that should bring `rate` bytes a second.
    pub fn new(rate: u32, patience: Duration) -> Self {
        let patience = patience.as_secs_f64() * 1000.0;
        Self { rate, left: patience, patience }
    }

    /// How long the peer may go on being waited for, in milliseconds.
    pub fn left(&self) -> u64 {
        // Never negative, and far below 2^53.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "said above")]
        let left = self.left.max(0.0) as u64;
        left
    }

    /// `bytes` came after `waited` milliseconds.
    pub fn received(&mut self, bytes: usize, waited: u64) {
        #[allow(clippy::cast_precision_loss, reason = "approximate by nature")]
        let (bytes, waited) = (bytes as f64, waited as f64);
        let bought = bytes * 1000.0 / f64::from(self.rate);
        self.left = (self.left - waited + bought).min(self.patience);
    }
}

/// How much of our work a client may give up. What it spends comes back with time alone: whatever else the
/// client does costs us something, too, and buys it nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// Thousandths of what was spent and has not come back.
    spent: u64,
    /// When that was so, in milliseconds.
    at: u64,
}

impl Budget {
    /// Spends 1 at `now`, in milliseconds, of at most `most`, with `per_second` coming back. `false` when it was not there.
    pub fn spend(&mut self, now: u64, most: u32, per_second: u32) -> bool {
        let back = now.saturating_sub(self.at).saturating_mul(per_second.into());
        self.spent = self.spent.saturating_sub(back).saturating_add(1000);
        self.at = now;
        self.spent <= u64::from(most) * 1000
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::{Budget, Duration, Limits, Pace};

    /// No limits, for tests that set those that they are about.
    pub(crate) fn unlimited() -> Limits {
        Limits {
            head_timeout: Duration::MAX,
            first_byte_timeout: Duration::MAX,
            idle_timeout: Duration::MAX,
            max_head: usize::MAX,
            max_headers: usize::MAX,
            max_uri: usize::MAX,
            max_body: None,
            min_body_rate: None,
            max_requests: None,
            max_requests_per_connection: None,
            max_connections: None,
            max_connections_per_address: None,
            max_tunnels: None,
            max_tunnels_per_backend: None,
        }
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_trickle_uses_the_patience_up_and_a_stream_does_not() {
        let mut trickle = Pace::new(100, PATIENCE);
        for _ in 0..10 {
            trickle.received(2, 1000);
        }
        assert_eq!(trickle.left(), 200);
        trickle.received(2, 1000);
        assert_eq!(trickle.left(), 0);
        let mut stream = Pace::new(100, PATIENCE);
        for _ in 0..1000 {
            stream.received(101, 1000);
        }
        assert_eq!(stream.left(), 10_000);
    }

    #[test]
    fn a_burst_buys_no_more_than_one_measure_of_patience() {
        let mut pace = Pace::new(100, PATIENCE);
        pace.received(1_000_000_000, 0);
        assert_eq!(pace.left(), 10_000);
    }

    #[test]
    fn budget_comes_back_with_time_alone() {
        let mut budget = Budget::default();
        assert!((0..20).all(|_| budget.spend(5, 20, 10)));
        assert!(!budget.spend(5, 20, 10));
        // 50 ms bring half of one back.
        assert!(!budget.spend(55, 20, 10));
        assert!(!budget.spend(155, 20, 10));
        assert!(budget.spend(455, 20, 10));
        assert!((0..20).all(|_| budget.spend(10_000, 20, 10)));
        assert!(!budget.spend(10_000, 20, 10));
    }

    proptest! {
        /// Within any time no more is spent than the budget and what has come back.
        #[test]
        fn budget_bounds_the_rate(pauses in proptest::collection::vec(0_u64..500, 1..300)) {
            let (mut budget, mut now, mut granted) = (Budget::default(), 0, 0_u64);
            for pause in pauses {
                now += pause;
                granted += u64::from(budget.spend(now, 20, 10));
                prop_assert!(granted <= 20 + now * 10 / 1000);
            }
        }

        /// Whoever keeps to the rate is never given up, however its bytes are spread.
        #[test]
        fn a_peer_that_keeps_its_rate_is_never_given_up(
            rate in 1_u32..1_000_000,
            waits in proptest::collection::vec(0_u64..9_000, 1..50),
        ) {
            let mut pace = Pace::new(rate, PATIENCE);
            for waited in waits {
                prop_assert!(pace.left() >= waited);
                let bytes = usize::try_from((u64::from(rate) * waited).div_ceil(1000)).unwrap();
                pace.received(bytes, waited);
            }
        }
    }
}
