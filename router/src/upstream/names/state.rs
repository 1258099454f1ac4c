//! What is known of one name, and when it is to be looked up again. Pure.

use std::io;
use std::net::IpAddr;

use crate::route::Millis;

/// How long an answer is believed. The system's resolver does not tell the record's own time to live; 5 s
/// follows changes quickly and still spares the resolver.
const FRESH: Millis = 5_000;
/// How long an unknown name stays unknown.
const UNKNOWN: Millis = 1_000;
/// A look-up that takes longer is not waited for any more: another one is made, as long as it is the only one.
const HANGS: Millis = 5_000;
/// Addresses that nobody has asked for so long are looked up first: somebody else may have them by now.
const UNUSED: Millis = 60_000;
/// How long the resolver has to say that a name does not exist, or has no addresses, before its last ones are
/// given up: HAProxy's `hold nx`. A zone that is being loaded, or a hosts file that is being written, lacks
/// names for a moment.
const GONE: Millis = 30_000;
/// Look-ups of one name at a time, those that wait for their turn included.
const MAX_LOOKUPS: usize = 2;
/// A look-up of which nothing was heard for so long may never end, and is not counted any more. The system's
/// resolver has limits of its own, half a minute mostly; modules of `nsswitch.conf` may have none.
const LOST: Millis = 300_000;
/// A name is not looked up again sooner than this for requests that could not connect: how many there are is
/// for clients to say.
const RECHECK: Millis = 1000;
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
    /// Since when the resolver says that the name does not exist.
    gone_since: Option<Millis>,
    /// Look-ups that run or wait for their turn, oldest first: their numbers, and since when.
    running: Vec<(u64, Millis)>,
    /// Number of the next look-up, and of the newest that has found addresses.
    next: u64,
    newest_found: Option<u64>,
    /// Until when it is waited for.
    wait_until: Millis,
    last_used: Millis,
    is_suspect: bool,
    /// When the last look-up ended.
    ended_at: Option<Millis>,
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
    /// A request needs the addresses and can wait for `limit`. The second part is the number of the look-up
    /// that is to begin, if one is.
    pub(super) fn ask(&mut self, now: Millis, limit: Millis) -> (Answer, Option<u64>) {
        let is_suspect = self.is_suspect
            && self.ended_at.is_none_or(|ended| now.saturating_sub(ended) >= RECHECK);
        let has_to_wait =
            self.addresses.is_empty() || is_suspect || now.saturating_sub(self.last_used) > UNUSED;
        self.last_used = now;
        let is_first = self.running.is_empty();
        let mut begun = None;
        if (now >= self.fresh_until || is_suspect) && self.may_begin(now) {
            begun = Some(self.begin(now));
            self.is_suspect = false;
            // Whoever comes after the first has waited for a resolver that hangs waits no more.
            self.wait_until = if has_to_wait && is_first { now + limit } else { now };
            if self.addresses.is_empty() {
                self.wait_until = now + limit;
            }
        }
        let left = self.wait_until.saturating_sub(now);
        if !self.running.is_empty() && left > 0 {
            return (Answer::Wait(left.min(limit)), begun);
        }
        (Answer::Known, begun)
    }

    /// The number of the look-up that is to begin for a name that is in use, if it is time.
    pub(super) fn refresh(&mut self, now: Millis) -> Option<u64> {
        if now < self.fresh_until || !self.may_begin(now) {
            return None;
        }
        self.wait_until = now;
        Some(self.begin(now))
    }

    fn may_begin(&mut self, now: Millis) -> bool {
        self.running.retain(|(_, since)| now.saturating_sub(*since) < LOST);
        let Some((_, newest)) = self.running.last() else { return true };
        self.running.len() < MAX_LOOKUPS && now.saturating_sub(*newest) >= HANGS
    }

    fn begin(&mut self, now: Millis) -> u64 {
        let number = self.next;
        self.next += 1;
        self.running.push((number, now));
        number
    }

    /// The look-up of this `number` has ended; whether an address has gone. [`io::ErrorKind::NotFound`] means
    /// that the name does not exist, every other error that it could not be looked up.
    pub(super) fn ended(
        &mut self,
        number: u64,
        found: io::Result<Vec<IpAddr>>,
        now: Millis,
    ) -> bool {
        self.running.retain(|(running, _)| *running != number);
        self.ended_at = Some(now);
        // One that began later has found them and knows better.
        if self.newest_found.is_some_and(|newest| newest > number) {
            return false;
        }
        let found = found.and_then(|found| match found.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no addresses")),
            false => Ok(found),
        });
        match found {
            Ok(found) => {
                self.fresh_until = now + FRESH;
                self.error = None;
                self.gone_since = None;
                self.newest_found = Some(number);
                self.replace(found)
            }
            Err(error) => {
                let has_gone = self.is_given_up(&error, now);
                if has_gone {
                    self.addresses.clear();
                    self.avoided.clear();
                }
                self.fresh_until = now + if self.addresses.is_empty() { UNKNOWN } else { FRESH };
                self.error = Some((error.kind(), error.to_string()));
                has_gone
            }
        }
    }

    /// Whether an address has gone.
    fn replace(&mut self, found: Vec<IpAddr>) -> bool {
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

    /// What was known is better than nothing, unless the name has been missing for long: others may have
    /// its addresses by now.
    fn is_given_up(&mut self, error: &io::Error, now: Millis) -> bool {
        if error.kind() != io::ErrorKind::NotFound {
            return false;
        }
        let since = *self.gone_since.get_or_insert(now);
        now.saturating_sub(since) >= GONE && !self.addresses.is_empty()
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
    fn preferred(&self, now: Millis) -> impl Iterator<Item = IpAddr> {
        let mut family = None;
        self.addresses.iter().copied().filter(move |address| {
            !self.is_avoided(*address, now)
                && *family.get_or_insert_with(|| address.is_ipv4()) == address.is_ipv4()
        })
    }

    /// All addresses, the one whose `turn` it is first and those that do not answer last.
    pub(super) fn in_order(&self, turn: usize, now: Millis) -> Vec<IpAddr> {
        let mut order: Vec<IpAddr> = self.preferred(now).collect();
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
        // Asked for each request: two passes allocate nothing.
        let count = self.preferred(now).count();
        if count < 2 {
            return None;
        }
        self.preferred(now).nth(turn % count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn known(texts: &[&str]) -> State {
        let mut state = State::default();
        assert_eq!(state.ask(0, 100), (Answer::Wait(100), Some(0)));
        assert!(!state.ended(0, Ok(ips(texts)), 0));
        state
    }

    fn refused() -> io::Result<Vec<IpAddr>> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    #[test]
    fn who_waits_and_when_a_look_up_begins() {
        let mut state = known(&["10.0.0.1"]);
        assert_eq!(state.ask(FRESH - 1, 100), (Answer::Known, None));
        assert_eq!(state.ask(FRESH, 100), (Answer::Known, Some(1)), "known ones do not wait");
        assert_eq!(state.ask(FRESH, 100), (Answer::Known, None), "one look-up at a time");
        let hangs = FRESH + HANGS;
        assert_eq!(state.ask(hangs - 1, 100), (Answer::Known, None));
        assert_eq!(state.ask(hangs, 100), (Answer::Known, Some(2)));
        assert_eq!(state.ask(hangs + 2 * HANGS, 100), (Answer::Known, None), "two, however long");
        assert!(!state.ended(1, refused(), hangs));
        assert!(!state.ended(2, refused(), hangs));
        assert_eq!(state.in_order(0, hangs), ips(&["10.0.0.1"]), "what was known stays");
        assert_eq!(state.ask(hangs + FRESH - 1, 100), (Answer::Known, None));
        state.suspect();
        let now = hangs + FRESH - 1;
        assert_eq!(state.ask(now, 100), (Answer::Wait(100), Some(3)), "it may have moved");
        assert_eq!(state.ask(now + 99, 100), (Answer::Wait(1), None));
        assert_eq!(state.ask(now + 100, 100), (Answer::Known, None), "the resolver is silent");
        state.ended(3, Ok(ips(&["10.0.0.1"])), now + 100);
        let unused = now + 100 + UNUSED + 1;
        assert_eq!(
            state.ask(unused, 100),
            (Answer::Wait(100), Some(4)),
            "others may have it by now"
        );
    }

    #[test]
    fn requests_that_fail_begin_one_look_up_a_second_at_most() {
        let mut state = known(&["10.0.0.1"]);
        let mut begun = 0;
        for now in 2 * RECHECK..2 * RECHECK + 3000 {
            state.suspect();
            if let (_, Some(number)) = state.ask(now, 100) {
                state.ended(number, Ok(ips(&["10.0.0.1"])), now);
                begun += 1;
            }
        }
        assert_eq!(begun, 3);
    }

    #[test]
    fn look_ups_that_never_end_are_not_waited_for_for_good() {
        let mut state = known(&["10.0.0.1"]);
        let begun: Vec<_> =
            (FRESH..2 * LOST).step_by(1_000).filter_map(|now| state.refresh(now)).collect();
        assert_eq!(begun, [1, 2, 3, 4]);
    }

    #[test]
    fn an_unknown_name_is_asked_for_again_soon() {
        let mut state = State::default();
        assert_eq!(state.ask(0, 100), (Answer::Wait(100), Some(0)));
        assert_eq!(state.ask(50, 100), (Answer::Wait(50), None));
        assert_eq!(state.ask(100, 100), (Answer::Known, None), "with an error, at once");
        assert_eq!(state.error().kind(), io::ErrorKind::TimedOut);
        state.ended(0, refused(), 200);
        assert_eq!(state.error().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(state.ask(200 + UNKNOWN - 1, 100), (Answer::Known, None));
        assert_eq!(state.ask(200 + UNKNOWN, 100), (Answer::Wait(100), Some(1)));
        state.ended(1, Ok(Vec::new()), 1300);
        assert_eq!(state.error().kind(), io::ErrorKind::NotFound);
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

    fn ends(state: &mut State, found: io::Result<Vec<IpAddr>>, now: Millis) -> bool {
        let number = state.refresh(now).unwrap();
        state.ended(number, found, now)
    }

    #[test]
    fn only_an_address_that_has_gone_is_a_change_for_connections() {
        let mut state = known(&["10.0.0.1", "10.0.0.2"]);
        assert!(!ends(&mut state, Ok(ips(&["10.0.0.2", "10.0.0.1"])), FRESH), "shuffled");
        assert_eq!(state.in_order(0, 0), ips(&["10.0.0.1", "10.0.0.2"]), "the order stays");
        let more = ips(&["10.0.0.2", "10.0.0.1", "10.0.0.3"]);
        assert!(!ends(&mut state, Ok(more), 2 * FRESH), "one more");
        assert!(!ends(&mut state, refused(), 3 * FRESH));
        assert!(ends(&mut state, Ok(ips(&["10.0.0.3", "10.0.0.1"])), 4 * FRESH));
        assert!(!state.contains("10.0.0.2".parse().unwrap()));
    }

    #[test]
    fn a_name_that_is_missing_for_long_is_given_up_and_one_that_cannot_be_looked_up_is_not() {
        let missing = || Err(io::ErrorKind::NotFound.into());
        let mut state = known(&["10.0.0.1"]);
        let mut now = FRESH;
        for _ in 0..100 {
            assert!(!ends(&mut state, refused(), now), "a resolver in trouble");
            now += FRESH;
        }
        let since = now;
        while now < since + GONE {
            assert!(!ends(&mut state, missing(), now), "for a moment");
            now += FRESH;
        }
        assert!(!ends(&mut state, Ok(ips(&["10.0.0.1"])), now));
        now += FRESH;
        let since = now;
        while now < since + GONE {
            assert!(!ends(&mut state, missing(), now), "counted from its first time");
            now += FRESH;
        }
        assert_eq!(state.count(), 1);
        assert!(ends(&mut state, missing(), now));
        assert_eq!((state.count(), state.error().kind()), (0, io::ErrorKind::NotFound));
        let (answer, begun) = state.ask(now + UNKNOWN, 100);
        assert_eq!(answer, Answer::Wait(100));
        assert!(!state.ended(begun.unwrap(), Ok(ips(&["10.0.0.9"])), now + UNKNOWN));
        assert_eq!(state.in_order(0, now), ips(&["10.0.0.9"]));
    }

    #[test]
    fn what_began_earlier_and_ends_later_changes_nothing() {
        let mut state = known(&["10.0.0.1"]);
        let (old, now) = (state.refresh(FRESH).unwrap(), FRESH + HANGS);
        let new = state.refresh(now).unwrap();
        assert!(state.ended(new, Ok(ips(&["10.0.0.2"])), now));
        assert!(!state.ended(old, Ok(ips(&["10.0.0.1"])), now));
        assert_eq!(state.in_order(0, now), ips(&["10.0.0.2"]));
    }
}
