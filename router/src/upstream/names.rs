//! Names of backends: looked up off the way of requests, followed while they are in use, and their
//! addresses used in turn.
//!
//! The system's resolver (`getaddrinfo`) knows `/etc/hosts`, `nsswitch.conf`, search domains and whatever
//! else a machine is set up for, but neither a time to live nor a limit of its own: it may take half a
//! minute over a silent server. So nobody waits for it who need not. A known name goes on with its last
//! addresses while it is looked up again; only a name that is unknown, unused for a minute, or without an
//! address that answers is waited for, for a part of the time to connect. Look-ups at a time are bounded.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use futures_util::future::BoxFuture;
use shared::lock::lock;
use shared::time_limit;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::route::millis;

mod queue;
mod state;

use queue::{Next, Queue, SLOW};
use state::{Answer, State};

/// Names remembered at most; backends come from Redis, so this is only a bound.
const MAX_NAMES: usize = 10_000;
/// Finds the addresses of a name; [`io::ErrorKind::NotFound`] is for one that does not exist or has none.
pub type Lookup = dyn Fn(Box<str>) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync;

/// All names of all workers.
pub struct Names {
    names: Mutex<HashMap<Box<str>, Arc<Name>>>,
    clock: Arc<Clock>,
    lookups: Arc<Lookups>,
}

/// The look-ups that run and those that wait for their turn.
struct Lookups {
    queue: Mutex<Queue<Due>>,
    clock: Arc<Clock>,
    lookup: Arc<Lookup>,
}

/// A look-up that is to begin, by its number.
struct Due {
    name: Arc<Name>,
    number: u64,
}

/// One name and what is known of it.
#[derive(Debug)]
pub struct Name {
    text: Box<str>,
    state: Mutex<State>,
    /// Moves with each use of an address.
    turn: AtomicUsize,
    /// How many addresses there are, for the hot path.
    count: AtomicUsize,
    /// Moves when an address has gone.
    generation: AtomicU32,
    /// Moves when a look-up has ended.
    ended: watch::Sender<u64>,
}

/// The address that a connection goes to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    /// None if the socket did not say.
    pub address: Option<IpAddr>,
    /// When the address was last seen to be one of the name's.
    generation: u32,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").field("names", &lock(&self.names).len()).finish_non_exhaustive()
    }
}

/// Asks the system's resolver, on a thread of its own.
pub fn system(name: Box<str>) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
    Box::pin(async move {
        let found = tokio::task::spawn_blocking(move || resolve(&name));
        found.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    })
}

/// `getaddrinfo`, whose errors the standard library does not tell apart.
fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found = getaddrinfo(Some(name), None, Some(hints)).map_err(|error| {
        let is_missing = matches!(error.kind(), LookupErrorKind::NoData | LookupErrorKind::NoName);
        let error = io::Error::from(error);
        if is_missing { io::Error::new(io::ErrorKind::NotFound, error) } else { error }
    })?;
    found.map(|found| Ok(found?.sockaddr.ip())).collect()
}

impl Names {
    /// None known yet.
    pub fn new(clock: Arc<Clock>, lookup: Arc<Lookup>) -> Self {
        let lookups = Lookups { queue: Mutex::default(), clock: Arc::clone(&clock), lookup };
        Self { names: Mutex::default(), clock, lookups: Arc::new(lookups) }
    }

    /// What is known of a name; nothing is looked up for it.
    pub fn entry(&self, text: &str) -> Arc<Name> {
        let mut names = lock(&self.names);
        if let Some(name) = names.get(text) {
            return Arc::clone(name);
        }
        if names.len() >= MAX_NAMES {
            // A pool holds those that have connections.
            names.retain(|_, name| Arc::strong_count(name) > 1);
        }
        let name = Arc::new(Name {
            text: text.into(),
            state: Mutex::default(),
            turn: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            generation: AtomicU32::new(0),
            ended: watch::Sender::new(0),
        });
        if names.len() < MAX_NAMES {
            names.insert(text.into(), Arc::clone(&name));
        }
        name
    }

    /// The addresses of a name in the order in which they are to be tried, waiting at most `limit` if
    /// there is something to wait for.
    ///
    /// # Errors
    ///
    /// What the resolver said of a name that is not known.
    pub async fn addresses(&self, name: &Arc<Name>, limit: Duration) -> io::Result<Vec<IpAddr>> {
        let mut ended = name.ended.subscribe();
        let (answer, begun) = lock(&name.state).ask(self.clock.now(), millis(limit));
        if let Some(number) = begun {
            self.lookups.add(name, number);
        }
        if let Answer::Wait(left) = answer {
            let ended = ended.changed();
            // What is known by then counts, whether the resolver has answered or not.
            let _in_time = time_limit::timeout(Duration::from_millis(left), ended).await;
        }
        let state = lock(&name.state);
        let addresses = state.in_order(name.turn.load(Ordering::Relaxed), self.clock.now());
        if addresses.is_empty() { Err(state.error()) } else { Ok(addresses) }
    }

    /// Looks a name that is in use up again if it is time.
    pub fn refresh(&self, name: &Arc<Name>) {
        let begun = lock(&name.state).refresh(self.clock.now());
        if let Some(number) = begun {
            self.lookups.add(name, number);
        }
    }

    /// An address could not be connected to: for a while the others come first.
    pub fn failed(&self, name: &Name, address: IpAddr) {
        lock(&name.state).failed(address, self.clock.now());
    }

    /// The address that a request is to go to, where a name has several.
    pub fn target(&self, name: &Name) -> Option<IpAddr> {
        if name.count.load(Ordering::Relaxed) < 2 {
            return None;
        }
        lock(&name.state).target(name.turn.load(Ordering::Relaxed), self.clock.coarse())
    }
}

impl Lookups {
    fn add(self: &Arc<Self>, name: &Arc<Name>, number: u64) {
        let due = Due { name: Arc::clone(name), number };
        let refused = lock(&self.queue).push(name.text(), due);
        if let Some(due) = refused {
            let error = io::Error::other("too many names wait for being looked up");
            due.name.ended(due.number, Err(error), &self.clock);
        }
        self.begin();
    }

    /// Begins all that may begin.
    fn begin(self: &Arc<Self>) {
        loop {
            // Not in the loop's head, where the lock would last as long as its body.
            let next = lock(&self.queue).next(self.clock.now());
            let Some(Next { zone, number, item: due }) = next else { return };
            let lookups = Arc::clone(self);
            drop(tokio::spawn(async move {
                let mut found = (lookups.lookup)(due.name.text.clone());
                let limit = Duration::from_millis(SLOW + 1);
                let found = match tokio::time::timeout(limit, &mut found).await {
                    Ok(found) => found,
                    Err(_elapsed) => {
                        // It makes room for another one.
                        lookups.begin();
                        found.await
                    }
                };
                due.name.ended(due.number, found, &lookups.clock);
                lock(&lookups.queue).ended(&zone, number, lookups.clock.now());
                lookups.begin();
            }));
        }
    }
}

impl Name {
    fn ended(&self, number: u64, found: io::Result<Vec<IpAddr>>, clock: &Clock) {
        {
            let mut state = lock(&self.state);
            if state.ended(number, found, clock.now()) {
                self.generation.fetch_add(1, Ordering::Relaxed);
            }
            self.count.store(state.count(), Ordering::Relaxed);
        }
        self.ended.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The name itself.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// No address of it could be connected to: the next request waits for a new look-up.
    pub fn suspect(&self) {
        lock(&self.state).suspect();
    }

    /// The next request has the next address.
    pub fn take_turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection to `address` was made.
    pub fn reached(&self, address: Option<IpAddr>) -> Reached {
        Reached { address, generation: self.generation.load(Ordering::Relaxed) }
    }

    /// Whether the address of a connection is still one of the name's: one memory read, unless one has
    /// gone since this was asked last.
    pub fn is_current(&self, reached: &mut Reached) -> bool {
        let generation = self.generation.load(Ordering::Relaxed);
        if reached.generation == generation {
            return true;
        }
        let Some(address) = reached.address else { return true };
        let is_current = lock(&self.state).contains(address);
        if is_current {
            reached.generation = generation;
        }
        is_current
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// A resolver that answers what a test has set, or fails after as long as the system's does without an
    /// answer. Names below `hangs.test` never have one.
    struct Fake {
        answers: Mutex<Vec<IpAddr>>,
        is_silent: AtomicBool,
        asked: AtomicUsize,
    }

    fn names() -> (Arc<Fake>, Names) {
        let fake = Arc::new(Fake {
            answers: Mutex::new(vec![ip(1)]),
            is_silent: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
        });
        let resolver = Arc::clone(&fake);
        let lookup: Arc<Lookup> = Arc::new(move |name| {
            let fake = Arc::clone(&resolver);
            fake.asked.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                if fake.is_silent.load(Ordering::Relaxed) || name.contains("hangs") {
                    pass(10).await;
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(lock(&fake.answers).clone())
            })
        });
        (fake, Names::new(Arc::new(Clock::new()), lookup))
    }

    const LIMIT: Duration = Duration::from_millis(1500);

    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_known_name_goes_on_at_once_while_the_resolver_is_silent() {
        let (fake, names) = names();
        let name = names.entry("a");
        assert_eq!(names.addresses(&name, LIMIT).await.unwrap(), [ip(1)]);
        fake.is_silent.store(true, Ordering::Relaxed);
        for _ in 0..20 {
            pass(6).await;
            let before = tokio::time::Instant::now();
            assert_eq!(names.addresses(&name, LIMIT).await.unwrap(), [ip(1)]);
            assert_eq!(before.elapsed(), Duration::ZERO);
        }
        // Back again: what it says now is used by the request after the next look-up.
        fake.is_silent.store(false, Ordering::Relaxed);
        *lock(&fake.answers) = vec![ip(2)];
        pass(6).await;
        let _last_known = names.addresses(&name, LIMIT).await.unwrap();
        pass(1).await;
        assert_eq!(names.addresses(&name, LIMIT).await.unwrap(), [ip(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_name_is_waited_for_once_and_not_longer_than_the_limit() {
        let (fake, names) = names();
        fake.is_silent.store(true, Ordering::Relaxed);
        let name = names.entry("a");
        let before = tokio::time::Instant::now();
        for _ in 0..4 {
            assert!(names.addresses(&name, LIMIT).await.is_err());
        }
        assert!(before.elapsed() < LIMIT + Duration::from_millis(100), "{:?}", before.elapsed());
        // A look-up that hangs is not waited for for good.
        fake.is_silent.store(false, Ordering::Relaxed);
        pass(6).await;
        assert_eq!(names.addresses(&name, LIMIT).await.unwrap(), [ip(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_in_use_is_followed_and_connections_to_what_has_gone_are_not_current() {
        let (fake, names) = names();
        let name = names.entry("a");
        *lock(&fake.answers) = vec![ip(1), ip(2)];
        names.addresses(&name, LIMIT).await.unwrap();
        let mut one = name.reached(Some(ip(1)));
        let mut two = name.reached(Some(ip(2)));
        *lock(&fake.answers) = vec![ip(3), ip(2)];
        names.refresh(&name);
        pass(1).await;
        assert!(name.is_current(&mut one), "it is not time yet");
        pass(5).await;
        names.refresh(&name);
        names.refresh(&name);
        pass(1).await;
        assert_eq!(fake.asked.load(Ordering::Relaxed), 2, "one look-up at a time");
        assert!(!name.is_current(&mut one) && name.is_current(&mut two));
    }

    #[tokio::test(start_paused = true)]
    async fn many_requests_for_an_unknown_name_are_one_look_up() {
        let (fake, names) = names();
        let names = Arc::new(names);
        let requests = (0..50).map(|_| {
            let names = Arc::clone(&names);
            tokio::spawn(async move { names.addresses(&names.entry("a"), LIMIT).await.unwrap() })
        });
        for request in requests.collect::<Vec<_>>() {
            assert_eq!(request.await.unwrap(), [ip(1)]);
        }
        assert_eq!(fake.asked.load(Ordering::Relaxed), 1);
    }

    /// Two hundred names of fifty zones hang, and are asked for all the time.
    #[tokio::test(start_paused = true)]
    async fn names_that_hang_leave_look_ups_for_other_names() {
        let (_fake, names) = names();
        let hanging: Vec<_> = (0..200)
            .map(|number| names.entry(&format!("n{number}.hangs{}.test", number % 50)))
            .collect();
        for second in 0..100 {
            for name in &hanging {
                // Nobody waits here: that a look-up is due is enough.
                let _error = names.addresses(name, Duration::ZERO).await;
            }
            pass(1).await;
            // Twenty seconds in which it has to be found out that they hang.
            if second > 20 {
                let name = names.entry(&format!("n{second}.good.example"));
                let before = tokio::time::Instant::now();
                assert_eq!(names.addresses(&name, LIMIT).await.unwrap(), [ip(1)], "{second}");
                assert!(before.elapsed() < Duration::from_millis(50), "{second}");
            }
        }
        let waiting = lock(&names.lookups.queue).waiting();
        assert!(waiting <= 2 * hanging.len(), "{waiting}: at most two for each name");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_go_to_all_addresses_in_turn() {
        let (fake, names) = names();
        *lock(&fake.answers) = vec![ip(1), ip(2), ip(3)];
        let name = names.entry("a");
        let mut firsts = BTreeSet::new();
        for _ in 0..3 {
            firsts.insert(names.addresses(&name, LIMIT).await.unwrap()[0]);
            assert_eq!(names.target(&name), Some(*firsts.last().unwrap()));
            name.take_turn();
        }
        assert_eq!(firsts.len(), 3);
        names.failed(&name, ip(2));
        for _ in 0..6 {
            let addresses = names.addresses(&name, LIMIT).await.unwrap();
            assert_eq!((addresses.len(), addresses[2]), (3, ip(2)), "tried last");
            name.take_turn();
        }
    }
}
