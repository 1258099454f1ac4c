//! Twenty-four hours of a cluster, simulated: random deployments, scalings, new labels, failovers,
//! lost machines, re-used ports, lies and silence of Marathon, restarts of the agent, edits by hand,
//! losses of Redis.
//!
//! What is real: how Marathon writes its answers and events (the model of the fake one), reading
//! them, what an event leads to and when, the rules, the guard, looks at everything and at single apps,
//! the comparison with Redis. What is simulated: time, the way there, and Redis, whose scripts [`lists`]
//! follows step by step. After each look [`laws`] judges, which says what a safe superset is.

#![allow(clippy::unwrap_used, reason = "a test, also in its helpers")]

mod agent;
mod cluster;
mod day;
mod facts;
mod laws;
mod lists;
mod real;

use day::Day;
use integration::marathon::Dialect;

/// For whoever has changed the rules: `SEEDS=100..200` and some patience.
#[test]
#[ignore = "explores; takes as long as it is told to"]
fn more_days() {
    let seeds = std::env::var("SEEDS").unwrap_or_else(|_| "100..108".to_owned());
    let (first, last) = seeds.split_once("..").unwrap();
    for seed in first.parse::<u64>().unwrap()..last.parse().unwrap() {
        let index = usize::try_from(seed).unwrap() % Dialect::ALL.len();
        let dialect = Dialect::ALL[index];
        eprintln!("seed {seed} of {dialect}: {:?}", Day::new(dialect, seed).live());
    }
}

/// A failure names its seed and its step; `Day::new` with that seed repeats it.
#[test]
fn for_a_day_of_0_8_1_redis_is_what_marathon_shows_or_a_safe_superset() {
    Day::new(Dialect::V0_8_1, 1).live();
}

#[test]
fn for_a_day_of_1_3_redis_is_what_marathon_shows_or_a_safe_superset() {
    Day::new(Dialect::V1_3, 2).live();
}

#[test]
fn for_a_day_of_1_5_redis_is_what_marathon_shows_or_a_safe_superset() {
    Day::new(Dialect::V1_5, 3).live();
}

#[test]
fn for_a_day_of_1_9_redis_is_what_marathon_shows_or_a_safe_superset() {
    Day::new(Dialect::V1_9, 4).live();
}

/// Its events end a task whose address Marathon does not tell any more.
#[test]
fn for_another_day_of_1_5_redis_is_what_marathon_shows_or_a_safe_superset() {
    Day::new(Dialect::V1_5, 107).live();
}
