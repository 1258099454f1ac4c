//! What is known of one name, and when it is to be looked up again. Pure.

use std::io;
use std::net::IpAddr;

use crate::route::Millis;

/// How long an answer is believed. The system's resolver does not tell the record's own time to live; 5 s
/// follows changes quickly and still spares the resolver.
const FRESH: Millis = 5_000;
/// How long an unknown name stays unknown.
const UNKNOWN: Millis = 1_000;
/// A look-up that takes longer is not waited for any more: another one is made.
const HANGS: Millis = 5_000;
/// Addresses that nobody has asked for so long are looked up first: somebody else may have them by now.
const UNUSED: Millis = 60_000;
/// How long an address that could not be connected to is tried last.
const AVOIDED: Millis = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct State {
    addresses: Vec<IpAddr>,
    /// Those of them that are tried last, and until when.
    avoided: Vec<(IpAddr, Millis)>,
    /// Of the last look-up, if it failed.
    error: Option<(io::ErrorKind, String)>,
    fresh_until: Millis,
    /// Since when a look-up runs.
    asking_since: Option<Millis>,
    /// Until when it is waited for.
    wait_until: Millis,
    last_used: Millis,
    is_suspect: bool,
}

/// What a request is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// Go on with what is known.
    Known,
    /// Wait so long for the look-up that runs.
    Wait(Millis),
}

impl State {
    /// A request needs the addresses and can wait for `limit`. The second part says that a look-up is to
    /// begin.
    pub(super) fn ask(&mut self, now: Millis, limit: Millis) -> (Answer, bool) {
        let has_to_wait = self.addresses.is_empty()
            || self.is_suspect
            || now.saturating_sub(self.last_used) > UNUSED;
        self.last_used = now;
        let begins = (now >= self.fresh_until || self.is_suspect) && self.may_begin(now);
        if begins {
            // Whoever comes after the first has waited for a resolver that hangs waits no more.
            let is_first = self.asking_since.is_none();
            self.asking_since = Some(now);
            self.is_suspect = false;
            self.wait_until = if has_to_wait && is_first { now + limit } else { now };
            if self.addresses.is_empty() {
                self.wait_until = now + limit;
            }
        }
        let left = self.wait_until.saturating_sub(now);
        match self.asking_since {
            Some(_) if left > 0 => (Answer::Wait(left.min(limit)), begins),
            _ => (Answer::Known, begins),
        }
    }

    /// Whether a name that is in use is to be looked up again.
    pub(super) fn refresh(&mut self, now: Millis) -> bool {
        let begins = now >= self.fresh_until && self.may_begin(now);
        if begins {
            self.asking_since = Some(now);
            self.wait_until = now;
        }
        begins
    }

    fn may_begin(&self, now: Millis) -> bool {
        self.asking_since.is_none_or(|since| now.saturating_sub(since) >= HANGS)
    }

    /// A look-up has ended; whether an address has gone.
    pub(super) fn ended(&mut self, found: io::Result<Vec<IpAddr>>, now: Millis) -> bool {
        self.asking_since = None;
        let found = found.and_then(|found| match found.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no addresses")),
            false => Ok(found),
        });
        match found {
            Ok(found) => {
                self.fresh_until = now + FRESH;
                self.error = None;
                let has_gone = self.addresses.iter().any(|address| !found.contains(address));
                let has_new = found.iter().any(|address| !self.addresses.contains(address));
                // Resolvers shuffle; the order stays for whoever takes them in turn.
                if has_gone || has_new {
                    self.addresses.clear();
                    for address in found {
                        if !self.addresses.contains(&address) {
                            self.addresses.push(address);
                        }
                    }
                    self.avoided.retain(|(address, _)| self.addresses.contains(address));
                }
                has_gone
            }
            // What was known is better than nothing.
            Err(error) => {
                self.fresh_until = now + if self.addresses.is_empty() { UNKNOWN } else { FRESH };
                self.error = Some((error.kind(), error.to_string()));
                false
            }
        }
    }

    /// Why there are no addresses.
    pub(super) fn error(&self) -> io::Error {
        match &self.error {
            Some((kind, text)) => io::Error::new(*kind, text.as_str()),
            None => io::Error::new(io::ErrorKind::TimedOut, "the resolver does not answer"),
        }
    }

    /// How many addresses are known.
    pub(super) fn count(&self) -> usize {
        self.addresses.len()
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// An address could not be connected to.
    pub(super) fn failed(&mut self, address: IpAddr, now: Millis) {
        self.avoided.retain(|(avoided, until)| *avoided != address && *until > now);
        if self.contains(address) {
            self.avoided.push((address, now + AVOIDED));
        }
    }

    /// None of them could: they are to be looked up before the next request.
    pub(super) fn suspect(&mut self) {
        self.is_suspect = true;
    }

    fn is_avoided(&self, address: IpAddr, now: Millis) -> bool {
        self.avoided.iter().any(|(avoided, until)| *avoided == address && *until > now)
    }

    /// Those that requests take turns with: the ones of the family that the resolver puts first (RFC 6724),
    /// as far as they answer.
    fn preferred(&self, now: Millis) -> Vec<IpAddr> {
        let answering = self.addresses.iter().copied().filter(|a| !self.is_avoided(*a, now));
        let mut preferred: Vec<IpAddr> = answering.collect();
        if let Some(first) = preferred.first().copied() {
            preferred.retain(|address| address.is_ipv4() == first.is_ipv4());
        }
        preferred
    }

    /// All addresses, the one whose `turn` it is first and those that do not answer last.
    pub(super) fn in_order(&self, turn: usize, now: Millis) -> Vec<IpAddr> {
        let mut order = self.preferred(now);
        if !order.is_empty() {
            let start = turn % order.len();
            order.rotate_left(start);
        }
        for is_avoided in [false, true] {
            for address in &self.addresses {
                if self.is_avoided(*address, now) == is_avoided && !order.contains(address) {
                    order.push(*address);
                }
            }
        }
        order
    }

    /// The address whose `turn` it is, if there are several to take turns with.
    pub(super) fn target(&self, turn: usize, now: Millis) -> Option<IpAddr> {
        let preferred = self.preferred(now);
        if preferred.len() < 2 {
            return None;
        }
        preferred.get(turn % preferred.len()).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{AVOIDED, Answer, FRESH, HANGS, State, UNKNOWN, UNUSED};

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn known(texts: &[&str]) -> State {
        let mut state = State::default();
        assert_eq!(state.ask(0, 100), (Answer::Wait(100), true));
        assert!(!state.ended(Ok(ips(texts)), 0));
        state
    }

    fn refused() -> std::io::Result<Vec<IpAddr>> {
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }

    #[test]
    fn who_waits_and_when_a_look_up_begins() {
        let mut state = known(&["10.0.0.1"]);
        assert_eq!(state.ask(FRESH - 1, 100), (Answer::Known, false));
        assert_eq!(state.ask(FRESH, 100), (Answer::Known, true), "known ones do not wait");
        assert_eq!(state.ask(FRESH, 100), (Answer::Known, false), "one look-up at a time");
        let hangs = FRESH + HANGS;
        assert_eq!(state.ask(hangs - 1, 100), (Answer::Known, false));
        assert_eq!(state.ask(hangs, 100), (Answer::Known, true));
        assert!(!state.ended(refused(), hangs));
        assert_eq!(state.in_order(0, hangs), ips(&["10.0.0.1"]), "what was known stays");
        assert_eq!(state.ask(hangs + FRESH - 1, 100), (Answer::Known, false));
        state.suspect();
        let now = hangs + FRESH - 1;
        assert_eq!(state.ask(now, 100), (Answer::Wait(100), true), "it may have moved");
        assert_eq!(state.ask(now + 99, 100), (Answer::Wait(1), false));
        assert_eq!(state.ask(now + 100, 100), (Answer::Known, false), "the resolver is silent");
        state.ended(Ok(ips(&["10.0.0.1"])), now + 100);
        let unused = now + 100 + UNUSED + 1;
        assert_eq!(state.ask(unused, 100), (Answer::Wait(100), true), "others may have it by now");
    }

    #[test]
    fn an_unknown_name_is_asked_for_again_soon() {
        let mut state = State::default();
        assert_eq!(state.ask(0, 100), (Answer::Wait(100), true));
        assert_eq!(state.ask(50, 100), (Answer::Wait(50), false));
        assert_eq!(state.ask(100, 100), (Answer::Known, false), "with an error, at once");
        assert_eq!(state.error().kind(), std::io::ErrorKind::TimedOut);
        state.ended(refused(), 200);
        assert_eq!(state.error().kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(state.ask(200 + UNKNOWN - 1, 100), (Answer::Known, false));
        assert_eq!(state.ask(200 + UNKNOWN, 100), (Answer::Wait(100), true));
        state.ended(Ok(Vec::new()), 1300);
        assert_eq!(state.error().kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn addresses_take_turns_within_the_first_family_that_answers() {
        let mut state = known(&["::1", "::2", "127.0.0.1", "127.0.0.2", "::1"]);
        assert_eq!(state.count(), 4);
        assert_eq!(state.in_order(0, 0), ips(&["::1", "::2", "127.0.0.1", "127.0.0.2"]));
        assert_eq!(state.in_order(3, 0), ips(&["::2", "::1", "127.0.0.1", "127.0.0.2"]));
        assert_eq!(state.target(3, 0), Some("::2".parse().unwrap()));
        for address in ips(&["::2", "::1"]) {
            state.failed(address, 0);
        }
        assert_eq!(state.in_order(1, 0), ips(&["127.0.0.2", "127.0.0.1", "::1", "::2"]));
        state.failed("127.0.0.1".parse().unwrap(), 0);
        assert_eq!(state.target(7, 0), None, "there is one to take turns with");
        state.failed("127.0.0.2".parse().unwrap(), 0);
        assert_eq!(state.in_order(1, 0).len(), 4, "when none answers all are tried");
        assert_eq!(state.in_order(0, AVOIDED), ips(&["::1", "::2", "127.0.0.1", "127.0.0.2"]));
    }

    #[test]
    fn only_an_address_that_has_gone_is_a_change_for_connections() {
        let mut state = known(&["10.0.0.1", "10.0.0.2"]);
        assert!(!state.ended(Ok(ips(&["10.0.0.2", "10.0.0.1"])), 0), "shuffled");
        assert_eq!(state.in_order(0, 0), ips(&["10.0.0.1", "10.0.0.2"]), "the order stays");
        assert!(!state.ended(Ok(ips(&["10.0.0.2", "10.0.0.1", "10.0.0.3"])), 0), "one more");
        assert!(!state.ended(refused(), 0));
        assert!(state.ended(Ok(ips(&["10.0.0.3", "10.0.0.1"])), 0));
        assert!(!state.contains("10.0.0.2".parse().unwrap()));
    }
}
