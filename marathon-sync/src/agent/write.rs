//! Carries a pass out: writes, prints, or leaves it to the leader, and says what became of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::state::{Changes, Failure, MAX_CHANGES};
use super::{Running, chain, news, once, say, stale};
use crate::pass::Pass;
use crate::plan::Plan;
use crate::routes::apply::Applied;
use crate::routes::change::Change;
use crate::routes::lease::Standing;
use crate::routes::snapshot::Snapshot;

/// An answer older than this, or than two intervals, is not what a process that has just taken over
/// writes: the one before it knew better. `stale` says what it may write.
const STALE: Duration = Duration::from_secs(60);

impl Running {
    /// Writes, or prints, or leaves it to the leader.
    pub(super) async fn carry_out(
        &mut self,
        pass: &mut Pass,
        snapshot: &Snapshot,
        event: Option<Instant>,
    ) {
        let changes = std::mem::take(&mut pass.difference.changes);
        let Some(standing) = self.standing() else {
            let lines: Vec<String> =
                changes.iter().flat_map(|change| self.agent.routes.render(change)).collect();
            if lines != self.printed && !once::print(&lines) {
                debug!("nobody reads what the dry run prints");
            }
            self.printed = lines;
            let texts = changes.iter().map(ToString::to_string);
            self.succeeded(texts.collect(), changes.len(), false);
            return;
        };
        let token = match standing {
            Standing::Leader { token, .. } => token,
            Standing::Standby { .. } => {
                let texts = changes.iter().take(MAX_CHANGES).map(ToString::to_string);
                self.succeeded(texts.collect(), changes.len(), false);
                return;
            }
            // Readiness says so. It is made up for when the standing is known.
            Standing::Unknown => {
                debug!("nothing is written until it is known which process writes");
                return;
            }
        };
        if changes.is_empty() {
            self.caught_up();
            self.succeeded(Vec::new(), 0, true);
            return;
        }
        if self.is_stale() {
            self.rebuild(&pass.plan, snapshot, &changes, &token).await;
            return;
        }
        let applied = self.agent.routes.apply(&pass.plan, changes, &token).await;
        if applied.failed.is_empty() {
            self.caught_up();
        }
        self.written(&applied, event, 0);
    }

    /// What a plan may be carried out as; `None` is a dry run. A pass takes a while, and the lease may
    /// be lost and won again meanwhile: see [`Terms::admit`](super::terms::Terms::admit).
    pub(super) fn standing(&self) -> Option<Standing> {
        self.lease.as_ref().map(|lease| self.terms.admit(lease.standing()))
    }

    /// Redis is as this process wants it, whatever another one wrote before.
    fn caught_up(&mut self) {
        self.terms.caught_up();
        self.is_rebuilding = false;
    }

    /// Whether another process wrote, or may have written, since our last write, and the last answer is
    /// too old to contradict it.
    pub(super) fn is_stale(&self) -> bool {
        let limit = STALE.max(self.agent.config.interval.saturating_mul(2));
        let now = Instant::now();
        self.known.as_ref().is_some_and(|known| self.terms.is_outdated(known.asked, now, limit))
    }

    /// Adds what a stale answer has if Redis has lost all, and says what is left undone of `wanted`.
    async fn rebuild(&mut self, plan: &Plan, snapshot: &Snapshot, wanted: &[Change], token: &str) {
        self.is_rebuilding |= stale::is_lost(snapshot);
        let mut left = wanted.len();
        if self.is_rebuilding {
            let plan = stale::additive(plan, snapshot);
            let additions = stale::additions(&plan, snapshot);
            left = stale::left(wanted, &additions);
            if !additions.is_empty() {
                let count = additions.len();
                warn!("Redis has lost its lists: {count} are made again from an old answer");
                let applied = self.agent.routes.apply(&plan, additions, token).await;
                let is_whole = applied.failed.is_empty();
                self.written(&applied, None, left);
                if !is_whole {
                    return;
                }
            }
            if left == 0 {
                self.caught_up();
            }
        }
        if left > 0 {
            self.withheld(format!(
                "{left} changes are not written: another process may have written since, and Marathon's \
                 last answer is too old to contradict it"
            ));
        }
    }

    /// Not all was written, and will not be before something else happens.
    fn withheld(&self, message: String) {
        self.agent.state.counters.passes.get_or_create(&[("result", "write_failed")]).inc();
        self.note_failure(message);
    }

    /// Says, counts and shows what was written and what was not, and doubts the lease if Redis does.
    pub(super) fn note_changes(&mut self, applied: &Applied, event: Option<Instant>) {
        if applied.is_lease_lost()
            && let Some(lease) = &self.lease
        {
            lease.suspect();
        }
        say(&news::of_changes(&applied.written));
        let counters = &self.agent.state.counters;
        counters.write_failed(applied);
        for change in &applied.written {
            counters.changes.get_or_create(&[("action", change.action.as_str())]).inc();
            let count = |what, number: usize| {
                let number = u64::try_from(number).unwrap_or(u64::MAX);
                counters.backends.get_or_create(&[("change", what)]).inc_by(number);
            };
            count("added", change.added.len());
            count("removed", change.removed.len());
        }
        if let Some(event) = event
            && applied.written.iter().any(Change::is_visible)
        {
            counters.lag_seconds.observe(event.elapsed().as_secs_f64());
        }
        let count = applied.failed.len();
        counters.failed_changes.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        if count == 0 && applied.written.is_empty() {
            return;
        }
        let lines = applied.written.iter().take(MAX_CHANGES).map(ToString::to_string).collect();
        let failed = applied.failed.iter().take(MAX_CHANGES);
        let failed = failed.map(|(host, error)| format!("{host}: {error}")).collect();
        self.agent.state.update(|view| {
            view.changes = Changes {
                at: Some(Timestamp::now()),
                is_written: true,
                lines,
                count: applied.written.len(),
                failed,
            };
        });
        let Some((host, error)) = applied.failed.iter().next() else { return };
        let text = format!("{count} lists could not be written, {host} first: {}", chain(error));
        self.redis_failed("write_failed", text);
    }

    /// `left`: changes that were not even tried, so that this is no success.
    fn written(&mut self, applied: &Applied, event: Option<Instant>, left: usize) {
        self.note_changes(applied, event);
        if applied.failed.is_empty() && left == 0 {
            self.succeeded(Vec::new(), 0, true);
        }
    }

    /// Redis is as it should be, as far as that is our business.
    fn succeeded(&mut self, lines: Vec<String>, count: usize, is_written: bool) {
        self.redis_retry.reset();
        self.agent.state.counters.passes.get_or_create(&[("result", "ok")]).inc();
        let now = Timestamp::now();
        self.agent.state.update(|view| {
            if let Some(failure) = view.redis_failed.take() {
                info!(failures = failure.times, "Redis can be read and written again");
            }
            view.succeeded = Some(now);
            if count > 0 {
                let (at, lines) = (Some(now), lines.into_iter().take(MAX_CHANGES).collect());
                view.changes = Changes { at, is_written, lines, count, failed: Arc::default() };
            }
        });
    }

    pub(super) fn redis_failed(&mut self, result: &'static str, message: String) {
        self.agent.state.counters.passes.get_or_create(&[("result", result)]).inc();
        self.schedule.again(Instant::now() + self.redis_retry.next_delay());
        self.note_failure(message);
    }

    fn note_failure(&self, message: String) {
        self.agent.state.update(|view| {
            let before = view.redis_failed.as_ref();
            if before.is_none_or(|before| before.message != message) {
                warn!("{}", news::printable(&message));
            }
            view.redis_failed = Some(Failure::after(before, Timestamp::now(), message));
        });
    }
}
