//! One day: the cluster goes on, the agent looks at everything or at single apps, the laws judge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use integration::marathon::Dialect;
use marathon_sync::agent::schedule::{Due, Scope};
use marathon_sync::document::{App, parse, parse_app};
use marathon_sync::marathon::events::{Hint, hints};
use marathon_sync::pass::{Occasion, Pass};
use marathon_sync::routes::change::Change;
use marathon_sync::rules::desired::narrow::Narrow;
use marathon_sync::rules::report::AppState;
use serde_json::{Value, json};

use super::agent::{Agent, Writing};
use super::cluster::World;
use super::facts::{Facts, Status};
use super::laws::{Case, Laws, Truth, runs};
use super::lists::Lists;

const DAY: u64 = 24 * 60 * 60;
/// Wait after Marathon has not answered.
const FETCH_RETRY: Duration = Duration::from_secs(5);
/// Things to do that may follow from each other within one step.
const MAX_TURNS: usize = 8;
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

/// How Marathon answers a question about one app.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    /// No answer: what else was to be asked is not asked either.
    Away,
    /// As if it did not know the app.
    Missing,
    /// As it was some steps before.
    Old,
    /// Without some tasks.
    Fewer,
    /// Without `tasks`.
    NoTasks,
    /// Something of one task is nonsense.
    OddTask,
    /// Nonsense.
    Garbage,
    /// About another app.
    Other,
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
    /// Looks at single apps that were enough: as Marathon showed them, and as the last answer did.
    pub(crate) narrow: usize,
    pub(crate) narrow_again: usize,
    pub(crate) narrow_changes: usize,
    /// Those that were not.
    pub(crate) too_narrow: usize,
    /// Faults of answers about single apps.
    pub(crate) odd: usize,
}

impl Day {
    pub(crate) fn new(dialect: Dialect, seed: u64) -> Self {
        let mut redis = Lists::default();
        make_by_hand(&mut redis);
        let mut day = Self {
            seed,
            random: fastrand::Rng::with_seed(seed ^ 0x5eed),
            world: World::new(dialect, seed),
            agent: Agent::start(&redis, Duration::ZERO),
            redis,
            laws: Laws::default(),
            second: 0,
            hears: dialect.has_events(),
            lies: (0, 0),
            over: BTreeMap::new(),
            lost: BTreeMap::new(),
            counts: Counts::default(),
        };
        day.connect();
        day
    }

    /// A whole day. Returns what happened.
    pub(crate) fn live(mut self) -> Counts {
        let has_events = self.world.cluster.dialect.has_events();
        while self.second < DAY {
            self.step();
        }
        let Counts { passes, changes, held, quarantined, lies, restarts, losses, .. } = self.counts;
        assert!(passes > 600 && changes > 600, "{:?}", self.counts);
        assert!(held > 10 && quarantined > 10 && lies > 10, "{:?}", self.counts);
        assert!(restarts > 5 && losses > 5, "{:?}", self.counts);
        let Counts { narrow, narrow_again, narrow_changes, too_narrow, odd, .. } = self.counts;
        let is_narrow = narrow > 100 && narrow_again > 20 && narrow_changes > 100;
        let is_odd = too_narrow > 5 && odd > 10;
        assert!(!has_events || is_narrow && is_odd, "{:?}", self.counts);
        self.counts
    }

    /// Some seconds later.
    pub(crate) fn step(&mut self) {
        // Much at once, then nothing for minutes.
        let is_busy = self.random.u32(..10) < 6;
        self.second += self.random.u64(if is_busy { 1..=10 } else { 20..=200 });
        self.world.at(self.second);
        self.world.step();
        self.hear();
        let changes_within = if self.hears { 60 } else { 10 };
        if self.world.cluster.dialect.has_events() && self.random.u32(..changes_within) == 0 {
            self.hears = !self.hears;
            self.connect();
        }
        match self.random.u32(..100) {
            0 => self.restart(),
            1 => self.lose_redis(),
            2 => self.edit(),
            _ => {}
        }
        self.go_on();
    }

    fn clock(&self) -> Duration {
        Duration::from_secs(self.second)
    }

    /// The stream of events is there, or is not.
    fn connect(&mut self) {
        let hint =
            if self.hears { Hint::Connected } else { Hint::Lost { reason: "silence".into() } };
        self.agent.hear(&hint, self.clock());
    }

    /// Events arrive.
    fn hear(&mut self) {
        let events = self.world.cluster.take_events();
        if !self.hears {
            return;
        }
        for event in events {
            let data = Value::Object(event.body).to_string();
            hints(data.as_bytes(), |hint| {
                if let Hint::TaskGone { task_id, .. } = &hint
                    && self.laws.knows(task_id)
                {
                    let place = self.world.places[&**task_id].clone();
                    drop(self.over.insert(task_id.to_string(), place));
                }
                self.agent.hear(&hint, Duration::from_secs(self.second));
            })
            .unwrap();
        }
    }

    /// Does what is due, and what follows from that.
    fn go_on(&mut self) {
        for _ in 0..MAX_TURNS {
            let due = self.agent.due(self.clock());
            if due == Due::default() {
                return;
            }
            let is_done = match due.again {
                Scope::Nothing => true,
                Scope::Apps(apps) => self.narrow_again(apps),
                Scope::All => false,
            };
            if !is_done {
                self.pass(Truth::Old, None);
                self.agent.looked_again(self.clock());
            }
            match due.fetch {
                Scope::Nothing => {}
                Scope::Apps(apps) => self.look_at(apps),
                Scope::All => self.look(),
            }
        }
        panic!("seed {}, second {}: it never rests", self.seed, self.second);
    }

    /// Looks at the last answer's word on these apps again. Returns whether that was enough.
    fn narrow_again(&mut self, apps: BTreeSet<Arc<str>>) -> bool {
        let Some(shown) = self.agent.recall(apps) else { return false };
        let truths = shown.iter().map(|(app, _)| (app.id.clone(), Truth::Old)).collect();
        let clock = self.clock();
        let found = self.agent.judge(shown, &self.world.cluster, clock);
        if !found.is_enough {
            self.counts.too_narrow += 1;
            return false;
        }
        let is_done = self.carry_out_narrow(found.apps, &truths);
        self.counts.narrow_again += usize::from(is_done);
        is_done
    }

    /// Asks Marathon for these apps.
    fn look_at(&mut self, apps: BTreeSet<Arc<str>>) {
        let clock = self.clock();
        self.agent.fetched(clock, None);
        let (mut shown, mut truths) = (Vec::new(), BTreeMap::new());
        let mut facts = BTreeMap::new();
        for id in apps {
            let told = self.told();
            self.counts.odd += usize::from(told != Told::True);
            let answer = self.ask(&id, told);
            let answer = answer.and_then(|(body, facts)| Some((parse_app(&id, &body)?, facts)));
            match answer {
                Some((one, told_facts)) => {
                    let truth = if told == Told::True { Truth::Whole } else { Truth::Old };
                    truths.insert(id.to_string(), truth);
                    facts.insert(id.to_string(), of_tasks(told_facts, &one.0));
                    shown.push(one);
                }
                None => self.agent.wants_all(clock),
            }
            if told == Told::Away {
                break;
            }
        }
        if shown.is_empty() {
            return;
        }
        let found = self.agent.judge(shown, &self.world.cluster, clock);
        for app in &found.apps {
            self.laws.shown_one(&app.id, &facts[&app.id]);
            self.reused(&facts[&app.id]);
        }
        if !found.is_enough {
            self.counts.too_narrow += 1;
            self.agent.wants_all(clock);
            return;
        }
        if self.carry_out_narrow(found.apps, &truths) {
            self.counts.narrow += 1;
        } else {
            self.pass(Truth::Old, None);
        }
    }

    fn told(&mut self) -> Told {
        match self.random.u32(..100) {
            0 => Told::Away,
            1 => Told::Missing,
            2 => Told::NoTasks,
            3 => Told::Garbage,
            4 => Told::Other,
            5..8 => Told::Fewer,
            8..11 => Told::OddTask,
            11..16 => Told::Old,
            _ => Told::True,
        }
    }

    /// What Marathon answers about an app, and what that shows.
    fn ask(&mut self, id: &str, told: Told) -> Option<(Vec<u8>, Facts)> {
        let look = |cluster: &integration::marathon::Cluster| {
            cluster.app_body(id).map(|body| (body, Facts::of_app(cluster, id)))
        };
        let (body, mut facts) = match told {
            Told::Away | Told::Missing => return None,
            Told::Old => return self.world.in_the_past(id, look)?,
            _ => look(&self.world.cluster)?,
        };
        let mut answer: Value = serde_json::from_slice(&body).unwrap();
        let app = &mut answer["app"];
        match told {
            Told::Fewer => {
                if let Some(tasks) = app["tasks"].as_array_mut() {
                    tasks.retain(|_| self.random.bool());
                }
            }
            Told::NoTasks => drop(app.as_object_mut().unwrap().remove("tasks")),
            Told::OddTask => {
                let nonsense = [
                    ("host", json!({})),
                    ("ports", json!([])),
                    ("ports", json!("many")),
                    ("state", json!(5)),
                    ("startedAt", json!([7])),
                    ("healthCheckResults", json!([5, "x"])),
                ];
                let (key, value) = nonsense[self.random.usize(..nonsense.len())].clone();
                if let Some(tasks) = app["tasks"].as_array_mut()
                    && !tasks.is_empty()
                {
                    let index = self.random.usize(..tasks.len());
                    let task = &mut tasks[index];
                    let fact = facts.0.get_mut(task["id"].as_str().unwrap()).unwrap();
                    task[key] = value;
                    fact.has_address = false;
                    if key == "healthCheckResults" {
                        (fact.has_good_results, fact.has_bad_results) = (false, false);
                    }
                    if fact.status == Status::Well || key == "healthCheckResults" {
                        fact.status = Status::Unknown;
                    }
                }
            }
            Told::Garbage => {
                let nonsense = [
                    ("labels", json!("none")),
                    ("labels", json!({"hipacheFrontend": 7})),
                    ("tasks", json!({"id": 5})),
                    ("tasks", json!([5])),
                    ("portDefinitions", json!([7])),
                ];
                let (key, value) = nonsense[self.random.usize(..nonsense.len())].clone();
                app[key] = value;
            }
            Told::Other => app["id"] = json!("/group/other"),
            Told::Away | Told::Missing | Told::Old | Told::True => {}
        }
        Some((answer.to_string().into_bytes(), facts))
    }

    /// Writes what follows from looks at single apps. Returns whether no look at everything is needed.
    fn carry_out_narrow(&mut self, found: Vec<Narrow>, truths: &BTreeMap<String, Truth>) -> bool {
        let writing = self.writing();
        let clock = self.clock();
        let before = Lists { now: self.redis.now.clone(), ..Lists::default() };
        let hosts: BTreeSet<String> =
            found.iter().flat_map(|narrow| narrow.hosts.keys().cloned()).collect();
        let Some((changes, is_whole)) =
            self.agent.carry_out(&mut self.redis, found, clock, writing)
        else {
            return false;
        };
        self.counts.narrow_changes += changes.len();
        self.check_hand_made();
        if !is_whole {
            return false;
        }
        let pass = self.agent.last().unwrap().clone();
        let said = self.agent.said_to_be_over(clock);
        self.over.retain(|task, _| said.contains(task));
        let judged = self.judge(&pass, &before, Truth::Old, Some(truths));
        let judged = judged.and_then(|()| self.leaves_nothing(&pass, &hosts));
        if let Err(broken) = judged {
            self.fail(&format!("{truths:?}"), writing, &broken, &changes, &pass);
        }
        true
    }

    /// A look at everything right after one at single apps has nothing to write to their hosts, but
    /// for what others have put there or have there now.
    fn leaves_nothing(&mut self, last: &Pass, hosts: &BTreeSet<String>) -> Result<(), String> {
        let full = self.agent.dry_pass(&self.redis, self.clock()).unwrap();
        for change in full.difference.changes.iter().filter(|one| hosts.contains(&one.host)) {
            let apps = full.plan.get(&change.host).into_iter().flat_map(|wanted| &wanted.apps);
            let taken: Vec<&String> =
                apps.filter_map(|app| full.apps.get(app)).flat_map(|app| &app.taken).collect();
            let is_left = change.removed.iter().all(|removed| {
                removed.row == BY_HAND.as_bytes()
                    || taken.iter().any(|url| url.as_bytes() == removed.row)
            });
            if !change.added.is_empty() || change.removed.is_empty() || !is_left {
                return Err(format!("a look at everything would write {change}"));
            }
        }
        for host in hosts {
            let up = |pass: &Pass| -> BTreeSet<String> {
                pass.plan.get(host).into_iter().flat_map(|wanted| wanted.up.clone()).collect()
            };
            if up(last) != up(&full) {
                let (last, full) = (up(last), up(&full));
                return Err(format!("{host} is shown to have {last:?}, not {full:?}"));
            }
        }
        Ok(())
    }

    fn look(&mut self) {
        let answer = match self.random.u32(..100) {
            0..4 => Answer::Error,
            4..7 => Answer::Empty,
            7..10 => Answer::Shrunken,
            _ => Answer::True,
        };
        let clock = self.clock();
        let whole = self.world.cluster.apps_body();
        let (body, truth) = match answer {
            Answer::Error => {
                let half = &whole[..whole.len() / 2];
                assert!(self.agent.look(half, &self.world.cluster, clock).is_none());
                self.agent.fetched(clock, Some(FETCH_RETRY));
                return;
            }
            Answer::Empty => (br#"{"apps":[]}"#.to_vec(), Truth::Old),
            Answer::Shrunken => (self.shrunken(&whole), Truth::Old),
            Answer::True => (whole, Truth::Whole),
        };
        if truth == Truth::Old {
            if !self.may_lie(&body) {
                self.agent.fetched(clock, Some(FETCH_RETRY));
                return;
            }
            self.counts.lies += 1;
        } else {
            self.lies = (0, 0);
        }
        self.agent.fetched(clock, None);
        self.agent.look(&body, &self.world.cluster, clock).expect("an answer");
        let mut shown = Facts::of(&self.world.cluster);
        if truth == Truth::Old {
            let listed = parse(&body).unwrap();
            shown.0.retain(|_, fact| listed.apps.iter().any(|app| app.id == fact.app));
        }
        self.pass(truth, Some(&shown));
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
        let listed = parse(body).unwrap();
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

    fn writing(&mut self) -> Writing {
        match self.random.u32(..100) {
            0 => Writing::BreaksOff(self.random.usize(..3)),
            1 => Writing::Edited(BY_HAND),
            2 => Writing::Unread,
            _ => Writing::Undisturbed,
        }
    }

    /// A pass over everything; `shown` is what its answer shows, if no pass has taken it in yet.
    fn pass(&mut self, truth: Truth, shown: Option<&Facts>) {
        let writing = self.writing();
        let before = Lists { now: self.redis.now.clone(), ..Lists::default() };
        let clock = self.clock();
        let passed = self.agent.pass(&mut self.redis, clock, writing);
        let passed = passed.map(|(occasion, pass)| (occasion, pass.clone()));
        if let Some(shown) = shown {
            self.laws.shown(shown);
            self.reused(shown);
        }
        let Some((occasion, pass)) = passed else { return };
        self.counts.passes += 1;
        self.counts.changes += pass.difference.changes.len();
        self.counts.held += usize::from(pass.held.is_some());
        let is_quarantined = |state: &AppState| matches!(state, AppState::Quarantined(_));
        self.counts.quarantined +=
            pass.apps.values().filter(|report| is_quarantined(&report.state)).count();
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
        let judged = held.and_then(|()| self.judge(&pass, &before, truth, None));
        if let Err(broken) = judged {
            let what = format!("{occasion:?} {truth:?}");
            self.fail(&what, writing, &broken, &pass.difference.changes, &pass);
        }
        self.lost.clear();
    }

    /// Where another task is shown now, it does not count any more that one was over before.
    fn reused(&mut self, shown: &Facts) {
        self.over.retain(|task, place| {
            !shown.0.iter().any(|(other, fact)| other != task && fact.url == *place && runs(fact))
        });
    }

    fn judge(
        &self,
        pass: &Pass,
        before: &Lists,
        truth: Truth,
        alone: Option<&BTreeMap<String, Truth>>,
    ) -> Result<(), String> {
        let facts = Facts::of(&self.world.cluster);
        self.laws.judge(&Case {
            truth,
            facts: &facts,
            before,
            lost: &self.lost,
            after: &self.redis,
            pass,
            over: &self.over,
            places: &self.world.places,
            alone,
        })
    }

    fn fail(
        &self,
        what: &str,
        writing: Writing,
        broken: &str,
        changes: &[Change],
        pass: &Pass,
    ) -> ! {
        let changes: String = changes.iter().map(|change| format!("{change}\n")).collect();
        panic!(
            "seed {} of {}, second {}, {what} {writing:?}: {broken}\n{changes}\n{:?}",
            self.seed, self.world.cluster.dialect, self.second, pass.held,
        );
    }

    fn restart(&mut self) {
        self.counts.restarts += 1;
        self.agent = Agent::start(&self.redis, self.clock());
        self.laws = Laws::default();
        self.over.clear();
        self.lost.clear();
        self.connect();
    }

    fn lose_redis(&mut self) {
        self.counts.losses += 1;
        let hosts = self.redis.now.owned.keys();
        let lost = hosts.map(|host| (host.clone(), self.redis.backends(host)));
        self.lost.extend(lost.collect::<Vec<_>>());
        self.redis.lose_everything();
        make_by_hand(&mut self.redis);
        self.agent.leads_anew(self.clock());
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

/// The facts that a document about one app shows.
fn of_tasks(mut facts: Facts, app: &App) -> Facts {
    let tasks: BTreeSet<&String> = app.tasks.iter().flatten().map(|task| &task.id).collect();
    facts.0.retain(|task, _| tasks.contains(task));
    facts
}

fn make_by_hand(redis: &mut Lists) {
    redis.put(HAND_MADE, vec![b"me".to_vec(), BY_HAND.as_bytes().to_vec()]);
    redis.mark(HAND_MADE, [0].into());
}
