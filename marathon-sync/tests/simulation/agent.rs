//! The agent without its sockets: what it does with an answer, an event, a new Redis. The turns of
//! `agent`, `agent/look` and `agent/write`, with the same decisions; that Redis is a model is the rest.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use integration::marathon::Cluster;
use jiff::Timestamp;
use marathon_sync::agent::heard::{Heard, Knows, heard};
use marathon_sync::agent::narrow::May;
use marathon_sync::agent::schedule::{Due, Schedule};
use marathon_sync::agent::seen::SeenLog;
use marathon_sync::document::{Answer, parse, parse_definition};
use marathon_sync::guard::Limits;
use marathon_sync::marathon::debounce::Debounce;
use marathon_sync::marathon::events::Hint;
use marathon_sync::pass::narrow::{self, Basis, Found, Shown};
use marathon_sync::pass::{Now, Occasion, Pass, State, pass, restore};
use marathon_sync::plan::Plan;
use marathon_sync::routes::change::Change;
use marathon_sync::routes::diff::{Difference, diff};
use marathon_sync::routes::lease::Standing;
use marathon_sync::rules::desired::narrow::Narrow;
use marathon_sync::rules::{Options, desired};
use tokio::time::Instant;

use super::lists::Lists;

/// Longest time between two looks at everything.
const INTERVAL: Duration = Duration::from_secs(30);
/// Wait after Redis could not be read or written.
const REDIS_RETRY: Duration = Duration::from_millis(500);

pub(crate) struct Agent {
    state: State,
    seen: SeenLog,
    schedule: Schedule,
    known: Option<Known>,
    /// What the last pass came to, and what looks at single apps since.
    last: Option<Pass>,
    /// Redis could not be read or written when last tried.
    has_failed: bool,
    epoch: Instant,
}

struct Known {
    answer: Arc<Answer>,
    /// No pass has taken it in yet.
    is_new: bool,
}

/// What happens while it reads and writes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Writing {
    /// Redis goes away after so many lists.
    BreaksOff(usize),
    /// Somebody adds this row to the first of the lists just before.
    Edited(&'static str),
    #[default]
    Undisturbed,
    /// Redis cannot be read.
    Unread,
}

impl Agent {
    pub(crate) fn start(redis: &Lists, clock: Duration) -> Self {
        let mut state = State::new(Limits::default());
        restore(&mut state, &redis.now);
        let epoch = Instant::now();
        let debounce = (Debounce::DEFAULT_QUIET, Debounce::DEFAULT_AT_MOST);
        Self {
            state,
            seen: SeenLog::default(),
            schedule: Schedule::new(epoch + clock, INTERVAL, debounce),
            known: None,
            last: None,
            has_failed: false,
            epoch,
        }
    }

    /// An event has arrived, or the stream has changed.
    pub(crate) fn hear(&mut self, hint: &Hint, clock: Duration) -> Heard {
        let is_settled = self.known.as_ref().is_some_and(|known| !known.is_new);
        let knows = Knows { pass: self.last.as_ref(), is_settled };
        heard(hint, knows, &mut self.seen, &mut self.schedule, self.epoch + clock)
    }

    /// A new term of the lease: Redis may have lost everything.
    pub(crate) fn leads_anew(&mut self, clock: Duration) {
        self.schedule.again(self.epoch + clock);
        self.schedule.full(self.epoch + clock);
    }

    /// What is to be done now.
    pub(crate) fn due(&mut self, clock: Duration) -> Due {
        self.schedule.due(self.epoch + clock)
    }

    /// Marathon has answered, or not: then it is asked again in `retry`.
    pub(crate) fn fetched(&mut self, clock: Duration, retry: Option<Duration>) {
        self.schedule.fetched(self.epoch + clock, retry);
    }

    /// Single apps were not enough.
    pub(crate) fn wants_all(&mut self, clock: Duration) {
        self.schedule.full(self.epoch + clock);
    }

    /// The whole last answer has been looked at again.
    pub(crate) fn looked_again(&mut self, clock: Duration) {
        self.schedule.looked_again(self.epoch + clock);
    }

    /// Ids of tasks that events said to be over, as far as that counts.
    pub(crate) fn said_to_be_over(&mut self, clock: Duration) -> BTreeSet<String> {
        self.seen.at(self.epoch + clock).ended.clone()
    }

    /// What the last pass came to.
    pub(crate) fn last(&self) -> Option<&Pass> {
        self.last.as_ref()
    }

    /// An answer has come. `None` when it is none.
    pub(crate) fn look(&mut self, body: &[u8], marathon: &Cluster, clock: Duration) -> Option<()> {
        let answer = parse(body).ok()?;
        self.ask_for_versions(&answer, marathon, clock);
        self.seen.listed(answer.apps.iter().map(|app| app.id.as_str()), self.epoch + clock);
        self.known = Some(Known { answer: Arc::new(answer), is_new: true });
        Some(())
    }

    /// Asks for the earlier definitions that `answer` needs, before it is taken in: the agent looks at an
    /// answer a second time for their sake.
    fn ask_for_versions(&mut self, answer: &Answer, marathon: &Cluster, clock: Duration) {
        let mut memory = self.state.memory.clone();
        let seen = self.seen.at(self.epoch + clock);
        let wish = desired(answer, &mut memory, &Options::default(), seen, wall(clock));
        for (app, report) in &wish.apps {
            for version in &report.unknown_versions {
                let body = marathon.version_body(app, version).unwrap_or_default();
                if let Some(definition) = parse_definition(app, version, &body) {
                    self.state.memory.learn_version(definition);
                }
            }
        }
    }

    /// Makes a pass over the last answer, and writes. `None` before the first answer, and when Redis
    /// cannot be read.
    pub(crate) fn pass(
        &mut self,
        redis: &mut Lists,
        clock: Duration,
        writing: Writing,
    ) -> Option<(Occasion, &Pass)> {
        self.schedule.looked();
        let known = self.known.as_mut()?;
        let occasion = if known.is_new { Occasion::Answer } else { Occasion::Again };
        let seen = self.seen.at(self.epoch + clock);
        let options = Options::default();
        if writing == Writing::Unread {
            // The first half is done by then.
            let _wish = desired(&known.answer, &mut self.state.memory, &options, seen, wall(clock));
            self.failed(clock);
            return None;
        }
        let now = Now { occasion, wall: wall(clock), clock };
        let pass = pass(&known.answer, &mut self.state, &options, seen, &redis.now, now);
        known.is_new = false;
        let Difference { changes, .. } = &pass.difference;
        let is_whole = write(redis, &pass.plan, changes, writing);
        self.has_failed = false;
        if !is_whole {
            self.failed(clock);
        }
        Some((occasion, self.last.insert(pass)))
    }

    fn failed(&mut self, clock: Duration) {
        self.has_failed = true;
        self.schedule.again(self.epoch + clock + REDIS_RETRY);
    }

    /// What the last answer says of these apps.
    pub(crate) fn recall(&self, ids: impl IntoIterator<Item = Arc<str>>) -> Option<Vec<Shown>> {
        narrow::recall(&self.known.as_ref()?.answer, self.last.as_ref()?, ids)
    }

    /// What becomes of single apps.
    pub(crate) fn judge(
        &mut self,
        shown: Vec<Shown>,
        marathon: &Cluster,
        clock: Duration,
    ) -> Found {
        let apps = shown.iter().map(|(app, _)| app.clone()).collect();
        self.ask_for_versions(&Answer { apps, ..Answer::default() }, marathon, clock);
        let (Some(known), Some(last)) = (&mut self.known, &self.last) else {
            return Found::default();
        };
        let seen = self.seen.at(self.epoch + clock);
        let basis = Basis { last, options: &Options::default(), seen, now: wall(clock) };
        narrow::judge(shown, &mut known.answer, &mut self.state.memory, basis)
    }

    /// Writes what follows. Returns what was to be written, and whether no look at everything is needed.
    /// `None`: nothing was tried, one is needed.
    pub(crate) fn carry_out(
        &mut self,
        redis: &mut Lists,
        found: Vec<Narrow>,
        clock: Duration,
        writing: Writing,
    ) -> Option<(Vec<Change>, bool)> {
        // It leads from its start to its end, without a pause in which its answer could grow old.
        let standing = Standing::Leader { token: "me".to_owned(), term: 1 };
        if !matches!(May::of(Some(&standing), self.has_failed, false), May::Write(_))
            || writing == Writing::Unread
        {
            return None;
        }
        let mut snapshot = redis.now.clone();
        let is_read = |host: &String| found.iter().any(|app| app.hosts.contains_key(host));
        snapshot.lists.retain(|host, _| is_read(host));
        snapshot.owned.retain(|host, _| is_read(host));
        let plan = narrow::plan(&found, &snapshot)?;
        let Difference { changes, problems } = diff(&plan, &snapshot);
        if !problems.is_empty() {
            return None;
        }
        let is_whole = write(redis, &plan, &changes, writing);
        if !is_whole {
            self.failed(clock);
        }
        if let Some(last) = &mut self.last {
            narrow::absorb(last, &mut self.state.listed, found);
        }
        Some((changes, is_whole))
    }

    /// What a look at the whole last answer would come to, were it made now. Nothing is written or
    /// remembered.
    pub(crate) fn dry_pass(&mut self, redis: &Lists, clock: Duration) -> Option<Pass> {
        let answer = &self.known.as_ref()?.answer;
        let now = Now { occasion: Occasion::Again, wall: wall(clock), clock };
        let seen = self.seen.at(self.epoch + clock);
        let mut state = self.state.clone();
        Some(pass(answer, &mut state, &Options::default(), seen, &redis.now, now))
    }
}

fn wall(clock: Duration) -> Timestamp {
    Timestamp::from_second(i64::try_from(clock.as_secs()).unwrap()).unwrap()
}

/// As `Routes::apply`: what was edited meanwhile is compared again. Returns whether all was written.
fn write(redis: &mut Lists, plan: &Plan, changes: &[Change], writing: Writing) -> bool {
    let mut open = changes.to_vec();
    match writing {
        Writing::BreaksOff(count) => open.truncate(count),
        Writing::Edited(row) => {
            if let Some(first) = open.first() {
                let mut rows = redis.rows(&first.host);
                if rows.is_empty() {
                    rows.push(b"by-hand".to_vec());
                }
                rows.push(row.as_bytes().to_vec());
                redis.put(&first.host, rows);
            }
        }
        Writing::Undisturbed | Writing::Unread => {}
    }
    let is_whole = open.len() == changes.len();
    while !open.is_empty() {
        let conflicts: Vec<_> = open.iter().filter(|change| !redis.write(change)).collect();
        let hosts: BTreeSet<&String> = conflicts.iter().map(|change| &change.host).collect();
        let mut again = diff(plan, &redis.now).changes;
        again.retain(|change| hosts.contains(&change.host));
        open = again;
    }
    is_whole
}
