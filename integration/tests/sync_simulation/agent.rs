//! The agent without its sockets: what it does with an answer, an event, a new Redis.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use marathon_sync::agent::seen::SeenLog;
use marathon_sync::document::{Answer, parse};
use marathon_sync::guard::Limits;
use marathon_sync::pass::{Now, Occasion, Pass, State, pass, restore};
use marathon_sync::routes::diff::diff;
use marathon_sync::rules::Options;
use tokio::time::Instant;

use crate::lists::Lists;

pub(crate) struct Agent {
    state: State,
    seen: SeenLog,
    answer: Option<Answer>,
    epoch: Instant,
}

/// What happens while it writes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Writing {
    /// Redis goes away after so many lists.
    BreaksOff(usize),
    /// Somebody adds this row to the first of the lists just before.
    Edited(&'static str),
    #[default]
    Undisturbed,
}

impl Agent {
    pub(crate) fn start(redis: &Lists) -> Self {
        let mut state = State::new(Limits::default());
        restore(&mut state, &redis.now);
        Self { state, seen: SeenLog::default(), answer: None, epoch: Instant::now() }
    }

    /// An event: a task is ending or over.
    pub(crate) fn ended(&mut self, task: &str, clock: Duration) {
        self.seen.ended(task, self.epoch + clock);
    }

    /// An event: an app was deleted.
    pub(crate) fn deleted(&mut self, app: &str, clock: Duration) {
        self.seen.deleted(app, self.epoch + clock);
    }

    /// Ids of tasks that events said to be over, as far as that counts.
    pub(crate) fn said_to_be_over(&mut self, clock: Duration) -> BTreeSet<String> {
        self.seen.at(self.epoch + clock).ended.clone()
    }

    /// An answer has come. `None` when it is none.
    pub(crate) fn look(&mut self, body: &[u8], clock: Duration) -> Option<()> {
        let answer = parse(body).ok()?;
        self.seen.listed(answer.apps.iter().map(|app| app.id.as_str()), self.epoch + clock);
        self.answer = Some(answer);
        Some(())
    }

    /// Makes a pass over the last answer, and writes. `None` before the first answer.
    pub(crate) fn pass(
        &mut self,
        redis: &mut Lists,
        occasion: Occasion,
        clock: Duration,
        writing: Writing,
    ) -> Option<Pass> {
        let answer = self.answer.as_ref()?;
        let wall = Timestamp::from_second(i64::try_from(clock.as_secs()).unwrap()).unwrap();
        let now = Now { occasion, wall, clock };
        let seen = self.seen.at(self.epoch + clock);
        let pass = pass(answer, &mut self.state, &Options::default(), seen, &redis.now, now);
        write(redis, &pass, writing);
        Some(pass)
    }
}

/// As `Routes::apply`: what was edited meanwhile is compared again.
fn write(redis: &mut Lists, pass: &Pass, writing: Writing) {
    let mut open = pass.difference.changes.clone();
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
        Writing::Undisturbed => {}
    }
    while !open.is_empty() {
        let conflicts: Vec<_> = open.iter().filter(|change| !redis.write(change)).collect();
        let hosts: BTreeSet<&String> = conflicts.iter().map(|change| &change.host).collect();
        let mut again = diff(&pass.plan, &redis.now).changes;
        again.retain(|change| hosts.contains(&change.host));
        open = again;
    }
}
