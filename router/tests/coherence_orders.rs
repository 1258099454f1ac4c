//! The generations of `router::coherence`, with every order of memory accesses that their atomics allow.
//!
//! `src/coherence/generations.rs` is compiled a second time here, over the atomics of loom, which runs a scenario
//! once for each possible execution. What it knows of sequential consistency is less than the hardware gives
//! (it takes such accesses for acquiring and releasing ones), so that what passes here needs no more than that.
//!
//! Redis and the cache are mutexes here, as a shard of the cache is.

#![allow(dead_code, reason = "the module that is checked has more functions than are used here")]

use loom::sync::{Arc, Mutex};
use loom::thread;

mod atomics {
    pub(super) use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering};
}

#[path = "../src/coherence/generations.rs"]
#[allow(unreachable_pub, reason = "what is public there is private here")]
mod generations;

use generations::{Effect, Generations, Stamp};

const HOST: &str = "a.test";

/// What a reader stored: the content, and whether it is fresh.
type Entry = Option<(u32, Arc<Stamp>)>;

struct World {
    generations: Generations,
    /// What Redis holds.
    content: Mutex<u32>,
    entry: Mutex<Entry>,
}

/// Whether the reader compares the generation of before with that of now.
#[derive(Clone, Copy)]
enum Check {
    Made,
    LeftOut,
}

impl World {
    fn read(&self, check: Check) {
        let dependencies = self.generations.dependencies(HOST);
        let before = self.generations.current(&dependencies);
        let content = *self.content.lock().expect("no thread panics with it");
        let before = match check {
            Check::Made => before,
            Check::LeftOut => self.generations.current(&dependencies),
        };
        let stamp = Arc::new(Stamp::new(dependencies, &before, Some(0)));
        *self.entry.lock().expect("no thread panics with it") = Some((content, Arc::clone(&stamp)));
        match check {
            Check::Made => self.generations.settle(&stamp, &before),
            Check::LeftOut => {
                self.generations.settle(&stamp, &self.generations.current(&dependencies))
            }
        };
    }

    /// A change in Redis, and its announcement.
    fn change(&self, name: &str) {
        *self.content.lock().expect("no thread panics with it") += 1;
        self.generations.count(name, Effect::Content);
        // As the cache does: the entry is taken out under the lock, and marked after it.
        let entry = self.entry.lock().expect("no thread panics with it").clone();
        if let Some((_, stamp)) = entry
            && name == HOST
        {
            stamp.mark(Effect::Content);
        }
    }

    /// A reconnect: what changed meanwhile was not announced.
    fn reconnect(&self) {
        self.generations.begin_epoch(false);
        *self.content.lock().expect("no thread panics with it") += 1;
        self.generations.begin_epoch(true);
    }

    /// When all is quiet: a fresh entry is what Redis holds.
    fn check(&self) {
        if let Some((content, stamp)) = &*self.entry.lock().expect("no thread panics with it")
            && self.generations.is_fresh(stamp) == Some(true)
        {
            assert_eq!(
                *content,
                *self.content.lock().expect("no thread panics with it"),
                "a fresh entry is out of date"
            );
        }
    }
}

/// What happens while a reader reads.
type Event = fn(&World);

fn explore(check: Check, event: Event) {
    loom::model(move || {
        let generations = Generations::new(1);
        generations.begin_epoch(true);
        let world =
            Arc::new(World { generations, content: Mutex::new(0), entry: Mutex::new(None) });
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.read(check))
        };
        event(&world);
        reader.join().expect("the reader does not panic");
        world.check();
    });
}

const EVENTS: [(&str, Event); 3] = [
    ("change of the host", |world| world.change(HOST)),
    ("change of a wildcard", |world| world.change("*.test")),
    ("reconnect", World::reconnect),
];

#[test]
fn fresh_entries_are_what_redis_holds_in_every_execution() {
    for (name, event) in EVENTS {
        println!("{name}");
        explore(Check::Made, event);
    }
}

#[test]
fn a_missing_generation_check_is_found() {
    for (name, event) in EVENTS {
        let found = std::panic::catch_unwind(|| explore(Check::LeftOut, event));
        assert!(found.is_err(), "{name}: the check is not needed");
    }
}
