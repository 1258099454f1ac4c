//! Decides over time which removals are believed.
//!
//! A backend that is no longer wanted goes at once when something positive is known: its task was
//! seen to end, its app was seen deleted, another app listens there. What merely is not in the
//! answer any more goes at once as long as it is little. If it is much, or all there is, it has to
//! stay away for several answers and some time: Marathon is known to forget for a while.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use crate::plan::Plan;
use crate::rules::desired::Evidence;

/// From when on removals need confirmation, and what confirms them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Percentage of the managed backends that may go unexplained.
    pub percent: u32,
    /// Number that may go unexplained whatever their percentage, but never all.
    pub count: usize,
    /// Answers in a row that must agree.
    pub observations: u32,
    /// How long they must agree.
    pub duration: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { percent: 50, count: 3, observations: 3, duration: Duration::from_secs(30) }
    }
}

/// A backend on a host.
type Row = (String, String);

/// The state between answers.
#[derive(Clone, Debug)]
pub struct Guard {
    limits: Limits,
    /// Removals that wait: since when, and how many answers have asked for them.
    waiting: BTreeMap<Row, (Duration, u32)>,
    /// What began the alarm that they belong to.
    reason: String,
    /// Unexplained removals that were believed without confirmation, and when: small steps in quick
    /// succession are one large step.
    believed: BTreeMap<Row, Duration>,
}

/// A judgement.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The plan to carry out.
    pub plan: Plan,
    /// What is held back, if anything.
    pub held: Option<Held>,
}

/// Removals that are not believed yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// Backends that stay, by host.
    pub rows: BTreeMap<String, Vec<String>>,
    /// Why, for people.
    pub reason: String,
    /// When they may go at the earliest, on the clock of [`Guard::judge`].
    pub until: Duration,
    /// How many more answers have to agree before the first of them goes.
    pub observations_left: u32,
}

impl Guard {
    /// A guard that has seen nothing.
    pub fn new(limits: Limits) -> Self {
        Self { limits, waiting: BTreeMap::new(), reason: String::new(), believed: BTreeMap::new() }
    }

    /// Moves removals that are not believed yet to `unsure`. `owned` is what we manage in Redis
    /// now, by host, without identifiers; `now` is the time on any clock that never goes back.
    /// Call it once for each answer.
    pub fn judge(
        &mut self,
        owned: &BTreeMap<String, Vec<String>>,
        mut plan: Plan,
        evidence: &Evidence,
        now: Duration,
    ) -> Judged {
        let unexplained = unexplained(owned, &plan, evidence);
        let recent = self.limits.duration;
        self.believed.retain(|_, when| now.saturating_sub(*when) < recent);
        self.waiting.retain(|row, _| unexplained.contains(row));
        match self.alarm(owned, &plan, &unexplained, evidence) {
            Some(reason) => self.reason = reason,
            None if self.waiting.is_empty() => {
                self.believed.extend(unexplained.into_iter().map(|row| (row, now)));
                return Judged { plan, held: None };
            }
            // What waits has to be confirmed, even if little is left of it.
            None => {}
        }
        let limits = self.limits;
        let mut held = Held {
            rows: BTreeMap::new(),
            reason: self.reason.clone(),
            until: Duration::MAX,
            observations_left: u32::MAX,
        };
        for row in unexplained {
            let (since, observations) = self.waiting.entry(row.clone()).or_insert((now, 0));
            *observations = observations.saturating_add(1);
            let until = since.saturating_add(limits.duration);
            if *observations >= limits.observations && now >= until {
                // It stays among those that wait until it is gone, so that a write that fails
                // need not be confirmed again.
                continue;
            }
            held.until = held.until.min(until);
            let left = limits.observations.saturating_sub(*observations).max(1);
            held.observations_left = held.observations_left.min(left);
            let (host, url) = row;
            plan.entry(host.clone()).or_default().unsure.push(url.clone());
            held.rows.entry(host).or_default().push(url);
        }
        let held = (!held.rows.is_empty()).then_some(held);
        Judged { plan, held }
    }

    /// Judges a plan that comes from an answer which was judged before: that confirms nothing and is
    /// not remembered.
    pub fn judge_again(
        &self,
        owned: &BTreeMap<String, Vec<String>>,
        plan: Plan,
        evidence: &Evidence,
        now: Duration,
    ) -> Judged {
        let mut guard = self.clone();
        for (_since, observations) in guard.waiting.values_mut() {
            *observations = observations.saturating_sub(1);
        }
        guard.judge(owned, plan, evidence, now)
    }

    /// Why `unexplained` needs confirmation, or `None`.
    fn alarm(
        &self,
        owned: &BTreeMap<String, Vec<String>>,
        plan: &Plan,
        unexplained: &BTreeSet<Row>,
        evidence: &Evidence,
    ) -> Option<String> {
        if unexplained.is_empty() {
            return None;
        }
        let managed: usize = owned.values().map(Vec::len).sum();
        let earlier = self.believed.keys().filter(|row| !unexplained.contains(*row)).count();
        let going = unexplained.len() + earlier;
        let before = managed + earlier;
        let is_all = plan.values().all(|wanted| wanted.up.is_empty() && wanted.unsure.is_empty());
        if is_all {
            return Some(format!(
                "nothing would be left of {managed} backends, and nothing says why"
            ));
        }
        if going > self.limits.count
            && going as u128 * 100 > before as u128 * u128::from(self.limits.percent)
        {
            return Some(format!(
                "{going} of {before} backends would go, more than {} %, and nothing says why",
                self.limits.percent
            ));
        }
        evidence.blind.clone()
    }
}

/// Rows that we have, that nobody wants, and of which nothing positive is known.
fn unexplained(
    owned: &BTreeMap<String, Vec<String>>,
    plan: &Plan,
    evidence: &Evidence,
) -> BTreeSet<Row> {
    let mut found = BTreeSet::new();
    for (host, urls) in owned {
        let wanted = plan.get(host);
        let wanted =
            || wanted.into_iter().flat_map(|wanted| wanted.up.iter().chain(&wanted.unsure));
        // Nearly every row is spelled as it is wanted; only for others the spellings are compared.
        let exact: HashSet<&String> = wanted().collect();
        let others: Vec<&String> = urls.iter().filter(|url| !exact.contains(url)).collect();
        if others.is_empty() {
            continue;
        }
        let wanted: HashSet<String> = wanted().map(|url| origin(url)).collect();
        for url in others {
            if !wanted.contains(&origin(url)) && !evidence.explains(host, url, plan) {
                let _new = found.insert((host.clone(), url.clone()));
            }
        }
    }
    found
}

/// The spelling that compares.
fn origin(url: &str) -> String {
    match shared::backend::Origin::parse(url.as_bytes()) {
        Ok(origin) => origin.to_string(),
        Err(_) => url.to_owned(),
    }
}
