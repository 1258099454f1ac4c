//! All interleavings, up to a bound, of reads, changes, announcements, and reconnects, on the real cache.
//!
//! Each actor is a list of steps, of which every one is atomic in the real program, or made of parts of which only
//! one is visible to others. A schedule says which actor moves next; all schedules are tried. What must hold after
//! each step: a hit is what the connected server holds, unless the announcement of a change is on its way.
//!
//! The same search is made with a [`Mutation`] of the protocol, and must find a fault: it sees what it looks for,
//! and each part of the protocol is needed.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::cache::{Entry, Ticket};
use super::super::{Cache, Effect, Lookup};
use super::{Value, cache_with_counters};

const HOST: &str = "a.test";
const EFFECT: Effect = Effect::Content;

/// What is done in another way than the protocol says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mutation {
    None,
    /// The generation is taken when the answer has come.
    GenerationAfterAnswer,
    /// An answer is fresh, whatever the generation is by then.
    NoGenerationCheck,
    /// The generations are compared before the answer is stored.
    CheckBeforeStoring,
    /// The answer is fresh from when it is stored to when the generations are compared.
    FreshBeforeCheck,
    /// An announcement marks the entry, and does not raise the counter.
    NoCount,
    /// An announcement raises the counter, and does not mark the entry.
    NoMark,
    /// An announcement marks the entry before it raises the counter.
    MarkBeforeCount,
    /// A lost connection begins no epoch.
    NoEpochWhenLost,
    /// A connection continues the epoch of the one before.
    NoEpochs,
}

/// What happens in a run.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    /// The key that changes: the host's own, or a wildcard's.
    changed: &'static str,
    readers: usize,
    writes: u32,
    /// The connection breaks, and the next one leads to this server.
    reconnects_to: Option<usize>,
}

const OWN: &str = HOST;
const WILDCARD: &str = "*.test";

const SCENARIOS: [Scenario; 10] = [
    Scenario { changed: OWN, readers: 1, writes: 2, reconnects_to: None },
    Scenario { changed: WILDCARD, readers: 1, writes: 2, reconnects_to: None },
    Scenario { changed: OWN, readers: 2, writes: 1, reconnects_to: None },
    Scenario { changed: WILDCARD, readers: 2, writes: 1, reconnects_to: None },
    Scenario { changed: OWN, readers: 1, writes: 1, reconnects_to: Some(0) },
    Scenario { changed: WILDCARD, readers: 1, writes: 1, reconnects_to: Some(0) },
    Scenario { changed: OWN, readers: 1, writes: 1, reconnects_to: Some(1) },
    Scenario { changed: WILDCARD, readers: 1, writes: 1, reconnects_to: Some(1) },
    Scenario { changed: OWN, readers: 1, writes: 2, reconnects_to: Some(1) },
    Scenario { changed: WILDCARD, readers: 1, writes: 2, reconnects_to: Some(1) },
];

#[derive(Clone, Copy, Debug)]
enum Message {
    Changed,
    Answer { reader: usize, content: u32 },
}

/// Where a reader is.
#[derive(Clone, Debug)]
enum Reader {
    Begin,
    Ask(Ticket),
    Wait(Ticket),
    Store(Ticket, u32),
    /// Only in a mutation: the generations were compared, and found equal or not.
    StoreCompared(Ticket, u32, bool),
    Settle(Ticket, Arc<Entry<Value>>),
    Done,
}

/// Of the connection that is read over, and that changes are announced on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Link {
    Up,
    /// It is broken, and that was not noticed yet.
    Broken,
    Down,
    /// The next one announces changes, but nothing is read over it yet.
    Tracking,
}

struct World {
    scenario: Scenario,
    mutation: Mutation,
    cache: Cache<Value>,
    /// What each server holds. The second one is a replica that has diverged.
    contents: [u32; 2],
    server: usize,
    link: Link,
    has_reconnected: bool,
    /// What the connection carries to the router, in order.
    messages: VecDeque<Message>,
    /// An announcement that is half processed.
    half: bool,
    writes: u32,
    readers: Vec<Reader>,
}

/// Who moves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Actor {
    Reader(usize),
    Writer,
    /// The task that reads the connection.
    Connection,
    Supervisor,
}

impl World {
    fn new(scenario: Scenario, mutation: Mutation) -> Self {
        // One counter of each sort: nothing depends on luck with hashes.
        let cache = cache_with_counters(true, None, 1);
        let ticket = cache.begin(HOST);
        let rank = Some(usize::from(scenario.changed != HOST));
        assert!(cache.insert(HOST, Value::new(0, rank), &ticket));
        Self {
            scenario,
            mutation,
            cache,
            contents: [0, 100],
            server: 0,
            link: Link::Up,
            has_reconnected: false,
            messages: VecDeque::new(),
            half: false,
            writes: 0,
            readers: vec![Reader::Begin; scenario.readers],
        }
    }

    fn enabled(&self) -> Vec<Actor> {
        let mut actors = Vec::new();
        for (index, reader) in self.readers.iter().enumerate() {
            if !matches!(reader, Reader::Wait(_) | Reader::Done) {
                actors.push(Actor::Reader(index));
            }
        }
        if self.writes < self.scenario.writes {
            actors.push(Actor::Writer);
        }
        if self.half || !self.messages.is_empty() {
            actors.push(Actor::Connection);
        }
        if self.scenario.reconnects_to.is_some() && !self.has_reconnected {
            actors.push(Actor::Supervisor);
        }
        actors
    }

    fn step(&mut self, actor: Actor) {
        match actor {
            Actor::Reader(index) => {
                let reader = std::mem::replace(&mut self.readers[index], Reader::Done);
                self.readers[index] = self.read(index, reader);
            }
            Actor::Writer => {
                self.writes += 1;
                self.contents[self.server] += 1;
                if matches!(self.link, Link::Up | Link::Tracking) {
                    self.messages.push_back(Message::Changed);
                }
            }
            Actor::Connection => self.receive(),
            Actor::Supervisor => self.supervise(),
        }
    }

    fn read(&mut self, index: usize, reader: Reader) -> Reader {
        match reader {
            Reader::Begin => Reader::Ask(self.cache.begin(HOST)),
            Reader::Ask(ticket) => match self.link {
                Link::Up => {
                    let content = self.contents[self.server];
                    self.messages.push_back(Message::Answer { reader: index, content });
                    Reader::Wait(ticket)
                }
                Link::Broken | Link::Down | Link::Tracking => Reader::Done,
            },
            Reader::Store(ticket, content) => self.store(ticket, content),
            Reader::StoreCompared(ticket, content, is_equal) => {
                let entry = self.publish(&ticket, content);
                if is_equal {
                    self.declare_fresh(&entry);
                }
                Reader::Done
            }
            Reader::Settle(ticket, entry) => {
                match self.mutation {
                    Mutation::NoGenerationCheck => self.declare_fresh(&entry),
                    _ => {
                        let generations = &self.cache.generations;
                        let _is_fresh = generations.settle(&entry.stamp, &ticket.before);
                    }
                }
                Reader::Done
            }
            Reader::Wait(_) | Reader::Done => reader,
        }
    }

    /// The first half of `Cache::insert`.
    fn store(&self, ticket: Ticket, content: u32) -> Reader {
        let ticket = match self.mutation {
            Mutation::GenerationAfterAnswer => self.cache.begin(HOST),
            Mutation::CheckBeforeStoring => {
                let is_equal = self.cache.begin(HOST).before == ticket.before;
                return Reader::StoreCompared(ticket, content, is_equal);
            }
            _ => ticket,
        };
        let entry = self.publish(&ticket, content);
        if self.mutation == Mutation::FreshBeforeCheck {
            self.declare_fresh(&entry);
        }
        Reader::Settle(ticket, entry)
    }

    fn publish(&self, ticket: &Ticket, content: u32) -> Arc<Entry<Value>> {
        let rank = usize::from(self.scenario.changed != HOST);
        self.cache.publish(HOST, Value::new(content, Some(rank)), ticket)
    }

    /// Settles an answer as if its generation were that of now.
    fn declare_fresh(&self, entry: &Entry<Value>) {
        let now = self.cache.begin(HOST).before;
        let _is_fresh = self.cache.generations.settle(&entry.stamp, &now);
    }

    fn receive(&mut self) {
        let name = self.scenario.changed;
        let count = || self.cache.generations.count(name, EFFECT);
        let mark = || self.cache.mark(name, EFFECT);
        let (first, second): (&dyn Fn(), &dyn Fn()) = match self.mutation {
            Mutation::NoCount => (&mark, &|| {}),
            Mutation::NoMark => (&count, &|| {}),
            Mutation::MarkBeforeCount => (&mark, &count),
            _ => (&count, &mark),
        };
        if std::mem::take(&mut self.half) {
            return second();
        }
        match self.messages.pop_front() {
            Some(Message::Changed) => {
                first();
                self.half = true;
            }
            Some(Message::Answer { reader, content }) => {
                if let Reader::Wait(ticket) = self.readers[reader] {
                    self.readers[reader] = Reader::Store(ticket, content);
                }
            }
            None => {}
        }
    }

    fn supervise(&mut self) {
        self.link = match self.link {
            Link::Up => {
                self.messages.clear();
                // A command fails with its connection.
                for reader in &mut self.readers {
                    if matches!(reader, Reader::Wait(_)) {
                        *reader = Reader::Done;
                    }
                }
                Link::Broken
            }
            Link::Broken => {
                if !matches!(self.mutation, Mutation::NoEpochs | Mutation::NoEpochWhenLost) {
                    self.cache.begin_epoch(false);
                }
                Link::Down
            }
            Link::Down => {
                self.server = self.scenario.reconnects_to.unwrap_or(self.server);
                Link::Tracking
            }
            Link::Tracking => {
                if self.mutation != Mutation::NoEpochs {
                    self.cache.begin_epoch(true);
                }
                self.has_reconnected = true;
                Link::Up
            }
        };
    }

    /// What must hold after each step.
    fn check(&self) -> Result<(), String> {
        let Lookup::Hit(value) = self.cache.get(HOST, 0) else { return Ok(()) };
        let is_announced =
            self.half || self.messages.iter().any(|message| matches!(message, Message::Changed));
        let held = self.contents[self.server];
        match self.link {
            Link::Up if !is_announced && value.content != held => {
                Err(format!("hit is {}, and Redis holds {held}", value.content))
            }
            Link::Down | Link::Tracking => Err("hit without a connection".to_owned()),
            Link::Up | Link::Broken => Ok(()),
        }
    }

    /// Whether what was read last is a hit; then what is read next must be one, too.
    fn end(&self) -> Result<bool, String> {
        let is_hit = matches!(self.cache.get(HOST, 0), Lookup::Hit(_));
        let rank = usize::from(self.scenario.changed != HOST);
        let value = Value::new(self.contents[self.server], Some(rank));
        let is_kept = self.cache.insert(HOST, value, &self.cache.begin(HOST));
        match is_kept && matches!(self.cache.get(HOST, 0), Lookup::Hit(_)) {
            true => Ok(is_hit),
            false => Err("nothing changes, and the answer is not kept".to_owned()),
        }
    }
}

/// Of a search that has found no fault.
#[derive(Debug, Default)]
struct Explored {
    schedules: usize,
    /// At the end of which a read was a hit.
    hits: usize,
}

/// Tries all schedules. Fails with what is wrong, and the schedule that shows it.
fn explore(scenario: Scenario, mutation: Mutation) -> Result<Explored, String> {
    let mut explored = Explored::default();
    // Which of the enabled actors moved at each step, and how many there were.
    let mut choices: Vec<(usize, usize)> = Vec::new();
    loop {
        let mut world = World::new(scenario, mutation);
        let mut schedule = Vec::new();
        loop {
            let enabled = world.enabled();
            if enabled.is_empty() {
                break;
            }
            if choices.len() == schedule.len() {
                choices.push((0, enabled.len()));
            }
            let actor = enabled[choices[schedule.len()].0];
            schedule.push(actor);
            world.step(actor);
            world.check().map_err(|fault| format!("{fault}: {schedule:?}"))?;
        }
        explored.schedules += 1;
        explored.hits +=
            usize::from(world.end().map_err(|fault| format!("{fault}: {schedule:?}"))?);
        // The next schedule in lexical order.
        while choices.last().is_some_and(|(chosen, count)| chosen + 1 == *count) {
            choices.pop();
        }
        match choices.last_mut() {
            Some((chosen, _)) => *chosen += 1,
            None => return Ok(explored),
        }
    }
}

#[test]
fn hits_are_what_redis_holds_in_every_interleaving() {
    for scenario in SCENARIOS {
        let explored = explore(scenario, Mutation::None)
            .unwrap_or_else(|fault| panic!("{scenario:?}: {fault}"));
        println!("{scenario:?}: {explored:?}");
        assert!(explored.schedules > 100, "{scenario:?}: {explored:?}");
        assert!(explored.hits > 0, "{scenario:?}: nothing is ever fresh");
    }
}

#[test]
fn every_part_of_the_protocol_is_needed() {
    for mutation in [
        Mutation::GenerationAfterAnswer,
        Mutation::NoGenerationCheck,
        Mutation::CheckBeforeStoring,
        Mutation::FreshBeforeCheck,
        Mutation::NoCount,
        Mutation::NoMark,
        Mutation::MarkBeforeCount,
        Mutation::NoEpochWhenLost,
        Mutation::NoEpochs,
    ] {
        let fault = SCENARIOS.into_iter().find_map(|scenario| explore(scenario, mutation).err());
        println!("{mutation:?}: {fault:?}");
        assert!(fault.is_some(), "{mutation:?} is not found to be a fault");
    }
}
