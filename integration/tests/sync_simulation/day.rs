//! One day: the cluster goes on, the agent looks, the laws judge.

use std::collections::BTreeMap;
use std::time::Duration;

use integration::marathon::Dialect;
use marathon_sync::pass::Occasion;
use serde_json::Value;

use crate::agent::{Agent, Writing};
use crate::cluster::World;
use crate::facts::Facts;
use crate::laws::{Case, Laws, Truth};
use crate::lists::Lists;

const DAY: u64 = 24 * 60 * 60;
/// Longest time between two looks when nothing else happens.
const INTERVAL: u64 = 30;
const BY_HAND: &str = "http://by.hand:80";
const HAND_MADE: &str = "hand-made.test";

/// How Marathon answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    Empty,
    Error,
    Shrunken,
    True,
}

pub(crate) struct Day {
    seed: u64,
    random: fastrand::Rng,
    world: World,
    pub(crate) redis: Lists,
    agent: Agent,
    laws: Laws,
    second: u64,
    looked: u64,
    /// Whether events arrive.
    hears: bool,
    /// Lies since the last true answer, and when the first was told.
    lies: (u32, u64),
    /// Tasks that the agent knew when an event called them over, with their addresses.
    over: BTreeMap<String, String>,
    /// What Redis has lost and is not written again.
    lost: BTreeMap<String, Vec<String>>,
    counts: Counts,
}

/// A test in which nothing happens proves nothing.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) passes: usize,
    pub(crate) changes: usize,
    pub(crate) held: usize,
    pub(crate) quarantined: usize,
    pub(crate) lies: usize,
    pub(crate) restarts: usize,
    pub(crate) losses: usize,
}

impl Day {
    pub(crate) fn new(dialect: Dialect, seed: u64) -> Self {
        let mut redis = Lists::default();
        make_by_hand(&mut redis);
        Self {
            seed,
            random: fastrand::Rng::with_seed(seed ^ 0x5eed),
            world: World::new(dialect, seed),
            agent: Agent::start(&redis),
            redis,
            laws: Laws::default(),
            second: 0,
            looked: 0,
            hears: dialect.has_events(),
            lies: (0, 0),
            over: BTreeMap::new(),
            lost: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// A whole day.
    pub(crate) fn live(mut self) {
        let has_events = self.hears;
        while self.second < DAY {
            self.step();
        }
        let Counts { passes, changes, held, quarantined, lies, restarts, losses } = self.counts;
        assert!(passes > 600 && changes > 600, "{:?}", self.counts);
        assert!(held > 10 && quarantined > 10 && lies > 10, "{:?}", self.counts);
        assert!(restarts > 5 && losses > 5, "{:?}", self.counts);
        assert!(!has_events || !self.over.is_empty() || self.second > DAY);
    }

    /// Some seconds later.
    pub(crate) fn step(&mut self) {
        // Much at once, then nothing for minutes.
        let is_busy = self.random.u32(..10) < 6;
        self.second += self.random.u64(if is_busy { 1..=10 } else { 20..=200 });
        self.world.at(self.second);
        self.world.step();
        let has_news = self.hear();
        if self.world.cluster.dialect.has_events() && self.random.u32(..30) == 0 {
            self.hears = !self.hears;
        }
        match self.random.u32(..100) {
            0 => self.restart(),
            1 => self.lose_redis(),
            2 => self.edit(),
            _ => {}
        }
        if has_news || self.second - self.looked >= INTERVAL {
            self.look();
        }
    }

    fn clock(&self) -> Duration {
        Duration::from_secs(self.second)
    }

    /// Events arrive: what they say for sure counts at once.
    fn hear(&mut self) -> bool {
        let events = self.world.cluster.take_events();
        if !self.hears {
            return false;
        }
        let has_news = !events.is_empty();
        let mut is_sure = false;
        for event in events {
            let text = |key: &str| event.body.get(key).and_then(Value::as_str).unwrap_or_default();
            match (event.kind.as_str(), text("taskStatus")) {
                (
                    "status_update_event",
                    "TASK_KILLING" | "TASK_KILLED" | "TASK_FAILED" | "TASK_FINISHED",
                ) => {
                    let task = text("taskId");
                    if self.laws.knows(task) {
                        let place = self.world.places[task].clone();
                        drop(self.over.insert(task.to_owned(), place));
                    }
                    self.agent.ended(task, self.clock());
                    is_sure = true;
                }
                ("app_terminated_event", _) => {
                    self.agent.deleted(text("appId"), self.clock());
                    is_sure = true;
                }
                _ => {}
            }
        }
        if is_sure {
            self.pass(Occasion::Again, Truth::Old);
        }
        has_news
    }

    fn look(&mut self) {
        self.looked = self.second;
        let answer = match self.random.u32(..100) {
            0..4 => Answer::Error,
            4..7 => Answer::Empty,
            7..10 => Answer::Shrunken,
            _ => Answer::True,
        };
        let whole = self.world.cluster.apps_body();
        let (body, truth) = match answer {
            Answer::Error => {
                let half = &whole[..whole.len() / 2];
                assert!(self.agent.look(half, self.clock()).is_none());
                return;
            }
            Answer::Empty => (br#"{"apps":[]}"#.to_vec(), Truth::Old),
            Answer::Shrunken => (self.shrunken(&whole), Truth::Old),
            Answer::True => (whole, Truth::Whole),
        };
        if truth == Truth::Old {
            if !self.may_lie(&body) {
                return;
            }
            self.counts.lies += 1;
        } else {
            self.lies = (0, 0);
        }
        self.agent.look(&body, self.clock()).expect("an answer");
        let mut shown = Facts::of(&self.world.cluster);
        let listed = marathon_sync::document::parse(&body).unwrap();
        shown.0.retain(|_, fact| listed.apps.iter().any(|app| app.id == fact.app));
        self.pass_with(Occasion::Answer, truth, Some(&shown));
    }

    /// The beginning of the list of apps.
    fn shrunken(&mut self, body: &[u8]) -> Vec<u8> {
        let mut answer: Value = serde_json::from_slice(body).unwrap();
        let apps = answer["apps"].as_array_mut().unwrap();
        apps.truncate(self.random.usize(..=apps.len() / 4));
        answer.to_string().into_bytes()
    }

    /// Lies are told as long as the guard promises to see through them: they are large, and few in
    /// a row. A small one cannot be told from a scaling.
    fn may_lie(&mut self, body: &[u8]) -> bool {
        let listed = marathon_sync::document::parse(body).unwrap();
        let facts = Facts::of(&self.world.cluster);
        let lives = |host: &String, url: &String| {
            facts.on(host).any(|(_, fact)| {
                fact.url == *url && listed.apps.iter().any(|app| app.id == fact.app)
            })
        };
        let hosts = self.redis.now.owned.keys();
        let rows: Vec<(String, String)> = hosts
            .flat_map(|host| self.redis.backends(host).into_iter().map(|url| (host.clone(), url)))
            .collect();
        let kept = rows.iter().filter(|(host, url)| lives(host, url)).count();
        // Well above the guard's limits, because some of them may go for good reasons.
        let is_large = rows.len() >= 12 && kept * 5 < rows.len();
        if self.lies.0 == 0 {
            self.lies.1 = self.second;
        }
        let is_short = self.lies.0 < 2 || self.second - self.lies.1 < 30;
        if is_large && is_short {
            self.lies.0 += 1;
        }
        is_large && is_short
    }

    fn pass(&mut self, occasion: Occasion, truth: Truth) {
        self.pass_with(occasion, truth, None);
    }

    fn pass_with(&mut self, occasion: Occasion, truth: Truth, shown: Option<&Facts>) {
        let writing = match self.random.u32(..100) {
            0 => Writing::BreaksOff(self.random.usize(..3)),
            1 => Writing::Edited(BY_HAND),
            _ => Writing::Undisturbed,
        };
        let before = Lists { now: self.redis.now.clone(), ..Lists::default() };
        let clock = self.clock();
        let Some(pass) = self.agent.pass(&mut self.redis, occasion, clock, writing) else { return };
        self.counts.passes += 1;
        self.counts.changes += pass.difference.changes.len();
        self.counts.held += usize::from(pass.held.is_some());
        self.counts.quarantined += pass
            .apps
            .values()
            .filter(|report| {
                matches!(report.state, marathon_sync::rules::report::AppState::Quarantined(_))
            })
            .count();
        if let Some(shown) = shown {
            self.laws.shown(shown);
        }
        let said = self.agent.said_to_be_over(clock);
        self.over.retain(|task, _| said.contains(task));
        self.check_hand_made();
        let held = match occasion {
            Occasion::Answer => self.laws.hold(&pass, clock),
            Occasion::Again => Ok(()),
        };
        if held.is_ok() && matches!(writing, Writing::BreaksOff(_)) {
            // Each list was whole; that all are right is up to the next pass.
            return;
        }
        let facts = Facts::of(&self.world.cluster);
        let case = Case {
            truth,
            facts: &facts,
            before: &before,
            lost: &self.lost,
            after: &self.redis,
            pass: &pass,
            over: &self.over,
            places: &self.world.places,
        };
        if let Err(broken) = held.and_then(|()| self.laws.judge(&case)) {
            panic!(
                "seed {} of {}, second {}, {occasion:?} {truth:?} {writing:?}: {broken}\n{}\n{:?}",
                self.seed,
                self.world.cluster.dialect,
                self.second,
                pass.difference
                    .changes
                    .iter()
                    .map(|change| format!("{change}\n"))
                    .collect::<String>(),
                pass.held,
            );
        }
        self.lost.clear();
    }

    fn restart(&mut self) {
        self.counts.restarts += 1;
        self.agent = Agent::start(&self.redis);
        self.laws = Laws::default();
        self.over.clear();
        self.lost.clear();
    }

    fn lose_redis(&mut self) {
        self.counts.losses += 1;
        let hosts = self.redis.now.owned.keys();
        let lost = hosts.map(|host| (host.clone(), self.redis.backends(host)));
        self.lost.extend(lost.collect::<Vec<_>>());
        self.redis.lose_everything();
        make_by_hand(&mut self.redis);
        // A new term of the lease: everything is compared again.
        self.pass(Occasion::Again, Truth::Old);
    }

    /// Somebody adds a backend to a list of ours, and the router marks backends dead.
    fn edit(&mut self) {
        let hosts: Vec<String> = self.redis.now.owned.keys().cloned().collect();
        if hosts.is_empty() {
            return;
        }
        let host = &hosts[self.random.usize(..hosts.len())];
        let mut rows = self.redis.rows(host);
        if rows.is_empty() {
            return;
        }
        rows.push(BY_HAND.as_bytes().to_vec());
        let marks = (0..rows.len() - 1).filter(|_| self.random.bool()).collect();
        self.redis.put(host, rows);
        self.redis.mark(host, marks);
    }

    fn check_hand_made(&self) {
        assert_eq!(self.redis.backends(HAND_MADE), [BY_HAND], "seed {}", self.seed);
        assert!(self.redis.dead[HAND_MADE].contains(&0), "seed {}", self.seed);
    }
}

fn make_by_hand(redis: &mut Lists) {
    redis.put(HAND_MADE, vec![b"me".to_vec(), BY_HAND.as_bytes().to_vec()]);
    redis.mark(HAND_MADE, [0].into());
}
