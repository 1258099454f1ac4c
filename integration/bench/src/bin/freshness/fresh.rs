//! Part one: random writes under load, and how old each answer was.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use redis::Connection;

use crate::http::{self, Conn};
use crate::judge::{Observation, State, Verdict, effects, judge, quantile};
use crate::model::{Answers, Model, NONE_ALIVE, Random, UNKNOWN, Write};
use crate::origin::Origins;
use crate::probe::{Clock, check, pause};

/// An answer older than this fails a strict run.
pub(crate) const OLDEST: Duration = Duration::from_millis(5);
/// The 99th percentile of the time to effect above this fails a strict run.
pub(crate) const P99: Duration = Duration::from_millis(2);
/// Between two requests of a background connection: the load leaves the cores some room, because
/// a router that waits for a core says nothing about the router.
const BACKGROUND_PAUSE: Duration = Duration::from_millis(2);
/// The focused connections ask for a host this long before it is written to.
const FOCUS: Duration = Duration::from_micros(300);
/// The focused connections stay with a host at least that long after a write.
const SHORTEST_GAP: Duration = Duration::from_millis(1);
/// And at most so many microseconds longer.
const LONGEST_GAP: usize = 2000;
/// Offending answers that are shown.
const SHOWN: usize = 10;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) writes: usize,
    pub(crate) seed: u64,
    pub(crate) focused: usize,
    pub(crate) background: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) writes: usize,
    pub(crate) kinds: BTreeMap<&'static str, usize>,
    pub(crate) seconds: f64,
    pub(crate) requests: usize,
    pub(crate) failed: usize,
    pub(crate) wrong: usize,
    /// Answers that no state allowed any more when they were asked for, in nanoseconds; sorted.
    pub(crate) ages: Vec<u64>,
    /// Of each write that can be told from the one before, the time to effect; sorted.
    pub(crate) effects: Vec<u64>,
    /// Writes of that kind that the next one came after before anybody had asked.
    pub(crate) unseen: usize,
    /// Of each write, the age of the oldest answer that it ended; sorted.
    pub(crate) oldest_by_write: Vec<u64>,
    /// Duration of the requests; sorted.
    pub(crate) latencies: Vec<u64>,
    /// Duration of the writes; sorted.
    pub(crate) write_times: Vec<u64>,
    pub(crate) offenders: Vec<String>,
}

impl Outcome {
    pub(crate) fn too_old(&self) -> usize {
        self.ages.iter().filter(|age| u128::from(**age) > OLDEST.as_nanos()).count()
    }

    /// Promises that were broken, whatever the machine does.
    pub(crate) fn is_broken(&self) -> bool {
        self.failed + self.wrong > 0
    }

    pub(crate) fn misses_thresholds(&self) -> bool {
        self.too_old() > 0 || u128::from(quantile(&self.effects, 0.99)) >= P99.as_nanos()
    }
}

pub(crate) fn run(
    router: SocketAddr,
    redis: &mut Connection,
    origins: &Origins,
    options: Options,
) -> anyhow::Result<Outcome> {
    let urls = (0..origins.count()).map(|number| origins.url(number)).collect();
    let mut model = Model::new(urls);
    let mut random = Random(options.seed);
    // Something to begin with.
    for _ in 0..200 {
        execute(redis, &model.write(&mut random))?;
    }
    let requests: Vec<Vec<u8>> = model.hosts.iter().map(|host| http::request(host)).collect();
    let clock = Clock::start();
    let (stop, focus) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut histories: Vec<Vec<State>> = Vec::new();
    for host in &model.hosts {
        let allowed = model.allowed(host);
        let first = State { sent: 0, replied: 0, allowed, kind: "start", watched_until: 0 };
        histories.push(vec![first]);
    }

    let mut outcome = Outcome { writes: options.writes, ..Outcome::default() };
    let mut seen = std::thread::scope(|scope| {
        let checkers: Vec<_> = (0..options.focused + options.background)
            .map(|number| {
                let checker = Checker {
                    conn: Conn::new(router),
                    clock,
                    requests: &requests,
                    focus: (number < options.focused).then_some(&focus),
                    random: Random(options.seed ^ (number as u64 + 1)),
                };
                let stop = &stop;
                scope.spawn(move || checker.run(stop))
            })
            .collect();
        let mut watched = None;
        let written = (0..options.writes).try_for_each(|_| {
            check()?;
            let before = model.clone();
            let write = model.write(&mut random);
            let changed: Vec<(usize, Answers)> = (model.hosts.iter().enumerate())
                .map(|(index, host)| (index, model.allowed(host)))
                .filter(|(index, allowed)| before.allowed(&model.hosts[*index]) != *allowed)
                .collect();
            // One in four comes right after the one before, to overtake what that one set off.
            let is_burst = random.below(4) == 0;
            let focused = random.choose(&changed).map(|(host, _)| *host).filter(|_| !is_burst);
            if let Some(host) = focused {
                pause(SHORTEST_GAP + Duration::from_micros(random.below(LONGEST_GAP) as u64));
                end_watch(&mut watched, &mut histories, clock);
                focus.store(host, Ordering::Release);
                pause(FOCUS);
            }
            let sent = clock.now();
            execute(redis, &write)?;
            let replied = clock.now();
            outcome.write_times.push(replied - sent);
            *outcome.kinds.entry(write.kind).or_default() += 1;
            for (host, allowed) in changed {
                let watched_until = 0;
                let kind = write.kind;
                histories[host].push(State { sent, replied, allowed, kind, watched_until });
            }
            watched = focused.or(watched);
            anyhow::Ok(())
        });
        end_watch(&mut watched, &mut histories, clock);
        stop.store(true, Ordering::Release);
        let mut seen: Vec<Vec<Observation>> = vec![Vec::new(); requests.len()];
        for checker in checkers {
            let (observations, errors) = checker.join().expect("a checker does not panic");
            outcome.offenders.extend(errors);
            for observation in observations {
                seen[observation.host as usize].push(observation);
            }
        }
        written.map(|()| seen)
    })?;
    outcome.seconds = clock.now() as f64 / 1e9;

    for (host, (states, seen)) in histories.iter().zip(&mut seen).enumerate() {
        seen.sort_unstable_by_key(|seen| seen.sent);
        let mut oldest: BTreeMap<u64, u64> = BTreeMap::new();
        for observation in &*seen {
            outcome.latencies.push(observation.received - observation.sent);
            if observation.answer == 0 {
                outcome.failed += 1;
                continue;
            }
            let verdict = judge(states, observation);
            match verdict {
                Verdict::Age(0) => continue,
                Verdict::Wrong => outcome.wrong += 1,
                Verdict::Age(age) => {
                    outcome.ages.push(age);
                    let write = oldest.entry(observation.sent - age).or_default();
                    *write = age.max(*write);
                }
            }
            let is_bad = match verdict {
                Verdict::Wrong => true,
                Verdict::Age(age) => u128::from(age) > OLDEST.as_nanos(),
            };
            if is_bad && outcome.offenders.len() < SHOWN {
                outcome.offenders.push(describe(&model.hosts[host], states, observation, verdict));
            }
        }
        outcome.oldest_by_write.extend(oldest.values());
        for effect in effects(states, seen) {
            match effect {
                Some(delay) => outcome.effects.push(delay),
                None => outcome.unseen += 1,
            }
        }
    }
    outcome.requests = outcome.latencies.len();
    for values in [
        &mut outcome.ages,
        &mut outcome.effects,
        &mut outcome.oldest_by_write,
        &mut outcome.latencies,
        &mut outcome.write_times,
    ] {
        values.sort_unstable();
    }
    Ok(outcome)
}

/// Notes that the focused connections leave the host of the last write.
fn end_watch(watched: &mut Option<usize>, histories: &mut [Vec<State>], clock: Clock) {
    if let Some(state) = watched.take().and_then(|host| histories[host].last_mut()) {
        state.watched_until = clock.now();
    }
}

fn execute(redis: &mut Connection, write: &Write) -> anyhow::Result<()> {
    let mut pipe = redis::pipe();
    if write.commands.len() > 1 {
        pipe.atomic();
    }
    for words in &write.commands {
        let mut words = words.iter();
        pipe.cmd(words.next().context("a command has a name")?);
        for word in words {
            pipe.arg(word);
        }
    }
    pipe.exec(redis).with_context(|| format!("{:?}", write.commands))
}

fn describe(host: &str, states: &[State], seen: &Observation, verdict: Verdict) -> String {
    let begun = states.partition_point(|state| state.sent <= seen.received);
    let ms = |nanos: u64| nanos as f64 / 1e6;
    let mut text = format!(
        "{host}: {verdict:?}: answer {:#x} sent {:.3} ms, received {:.3} ms; states:",
        seen.answer,
        ms(seen.sent),
        ms(seen.received)
    );
    for state in &states[begun.saturating_sub(4)..begun] {
        text.push_str(&format!(
            " [{} sent {:.3} replied {:.3} allows {:#x}]",
            state.kind,
            ms(state.sent),
            ms(state.replied),
            state.allowed
        ));
    }
    text
}

struct Checker<'a> {
    conn: Conn,
    clock: Clock,
    requests: &'a [Vec<u8>],
    /// Asks for the host that is written to, without a pause; otherwise for any.
    focus: Option<&'a AtomicUsize>,
    random: Random,
}

impl Checker<'_> {
    fn run(mut self, stop: &AtomicBool) -> (Vec<Observation>, Vec<String>) {
        let (mut seen, mut errors) = (Vec::new(), Vec::new());
        while !stop.load(Ordering::Acquire) {
            let host = match self.focus {
                Some(focus) => focus.load(Ordering::Acquire),
                None => {
                    pause(BACKGROUND_PAUSE);
                    self.random.below(self.requests.len())
                }
            };
            // A failure shows when it is asked over it.
            drop(self.conn.prepare());
            let sent = self.clock.now();
            let answer = self.conn.ask(&self.requests[host]);
            let received = self.clock.now();
            let answer = match answer {
                Ok(http::Answer { backend: Some(number), .. }) => 1 << number,
                Ok(http::Answer { status: 400, .. }) => UNKNOWN,
                Ok(http::Answer { status: 502, .. }) => NONE_ALIVE,
                other => {
                    if errors.len() < SHOWN {
                        errors.push(format!("failed at {:.3} ms: {other:?}", sent as f64 / 1e6));
                    }
                    0
                }
            };
            let host = u32::try_from(host).unwrap_or(u32::MAX);
            seen.push(Observation { host, answer, sent, received });
        }
        (seen, errors)
    }
}
