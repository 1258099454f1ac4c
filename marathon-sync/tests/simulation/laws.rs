//! What must hold after each pass.
//!
//! **Nothing live is missing**: every backend whose task Marathon shows as running and well is in the
//! list of each host that its app claims, at once. So is one whose health is not shown now but was
//! good when this agent last saw any, and one whose machine is lost, if it was listed. When an answer
//! lies (it is empty, or most of it is missing) or is old, nothing that lives leaves a list; nor when
//! its app cannot be read any more. (An app that this agent has never been able to read is not
//! protected beyond the guard's time.)
//!
//! **Safe superset**: every listed backend is live in that sense, or
//! 1. it was listed before, and its task runs with unknown health, or its machine is lost, or
//! 2. it was listed before, or added by hand since, and an app that had it cannot be read now, or
//! 3. the guard holds it: since less than 3 answers or 30 s, counted from the answer that did not show
//!    it any more. It waits only if much is missing at once and nothing says why, or
//! 4. it was there before this agent, which has not seen whose it is, and an app of the host has a
//!    task on a lost machine whose address Marathon has not told this agent: it may be that one's, or
//! 5. no app claims the host, and no task was ever there: others have put it there.
//!
//! **Nothing stays that is positively dead**: neither rule 1 to 5 keeps a backend whose task was
//! shown ending or sick, or which an event called over, unless another task of the host's apps
//! listens there; nor, on a host that an app claims, one at whose address only tasks of other apps run.
//!
//! What an event called over goes at once, also between two answers, until another task is shown there.
//!
//! **Single apps.** A look at some apps alone touches no list but theirs. On those the same holds as after
//! a look at everything, but for what such a look cannot tell: what is not the apps' own may stay where it
//! was listed. And a look at everything right after it has nothing to write there, unless others have put
//! something there or listen there now.
//!
//! What Redis loses counts as listed until it is written again.
//!
//! That lists are whole at each moment, keep identifier, order and dead marks is judged at each write,
//! in [`super::lists`]. Lists made by hand are compared as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use marathon_sync::pass::Pass;

use super::facts::{Fact, Facts, Status};
use super::lists::Lists;

/// How true the answer of a pass was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Truth {
    /// The last answer is looked at again, or the answer lies.
    Old,
    /// It shows what is.
    Whole,
}

#[derive(Debug, Default)]
pub(crate) struct Laws {
    /// Tasks that this agent has seen well, and not sick or gone since.
    well: BTreeSet<String>,
    /// The same, those included that it need not have looked at.
    perhaps_well: BTreeSet<String>,
    /// Those of them whose apps have hosts and can be read.
    looked_at: BTreeSet<String>,
    /// Every task that an answer has shown to this agent.
    shown: BTreeSet<String>,
    /// Apps that this agent has been able to read.
    read: BTreeSet<String>,
    /// Where the tasks were whose addresses an answer has shown to this agent.
    placed: BTreeMap<String, String>,
    /// Tasks of the last answer, as it showed them.
    known: BTreeMap<String, Status>,
    /// The apps of all tasks that were shown.
    app_of: BTreeMap<String, String>,
    /// Since when, and for how many answers, the guard holds a backend.
    held: BTreeMap<(String, String), (Duration, u32)>,
}

/// All that a judgement depends on.
pub(crate) struct Case<'a> {
    pub(crate) truth: Truth,
    pub(crate) facts: &'a Facts,
    pub(crate) before: &'a Lists,
    /// What was listed when Redis lost it, as long as it is not written again.
    pub(crate) lost: &'a BTreeMap<String, Vec<String>>,
    pub(crate) after: &'a Lists,
    pub(crate) pass: &'a Pass,
    /// URLs of tasks that events have called over, by id.
    pub(crate) over: &'a BTreeMap<String, String>,
    /// Where all tasks are and were.
    pub(crate) places: &'a BTreeMap<String, String>,
    /// The apps that were looked at, if not all, and how true what was shown of each is.
    pub(crate) alone: Option<&'a BTreeMap<String, Truth>>,
}

impl Case<'_> {
    /// What was listed before the pass, or before Redis lost it.
    fn listed(&self, host: &str) -> Vec<String> {
        let mut listed = self.before.backends(host);
        listed.extend(self.lost.get(host).into_iter().flatten().cloned());
        listed
    }

    /// How true what the pass was made of is, as to one app.
    fn truth(&self, app: &str) -> Truth {
        match self.alone {
            None => self.truth,
            Some(apps) => apps.get(app).copied().unwrap_or(Truth::Old),
        }
    }
}

impl Laws {
    /// Whether the agent knows where the task is, so that an event about it says where something
    /// ended. It does not look at tasks of apps without a host, nor has one that has just started seen
    /// where those on lost machines were.
    pub(crate) fn knows(&self, task: &str) -> bool {
        self.looked_at.contains(task) && self.placed.contains_key(task)
    }

    /// An answer that shows these tasks has been taken in.
    pub(crate) fn shown(&mut self, facts: &Facts) {
        self.known.clear();
        self.looked_at.clear();
        self.learn(facts);
        self.well.retain(|task| self.looked_at.contains(task));
    }

    /// An answer about one app that shows these tasks of it has been taken in.
    pub(crate) fn shown_one(&mut self, app: &str, facts: &Facts) {
        let Self { known, looked_at, well, app_of, .. } = self;
        let is_other = |task: &String| app_of.get(task).is_none_or(|of| of != app);
        known.retain(|task, _| is_other(task));
        looked_at.retain(is_other);
        well.retain(|task| is_other(task) || facts.0.contains_key(task));
        self.learn(facts);
    }

    fn learn(&mut self, facts: &Facts) {
        self.shown.extend(facts.0.keys().cloned());
        self.app_of.extend(facts.0.iter().map(|(task, fact)| (task.clone(), fact.app.clone())));
        self.known.extend(facts.0.iter().map(|(task, fact)| (task.clone(), fact.status)));
        let is_looked_at = |fact: &Fact| !fact.is_garbage && !fact.hosts.is_empty();
        let looked_at = facts.0.iter().filter(|(_, fact)| is_looked_at(fact));
        self.looked_at.extend(looked_at.map(|(task, _)| task.clone()));
        for (task, fact) in &facts.0 {
            if fact.has_address && is_looked_at(fact) {
                drop(self.placed.insert(task.clone(), fact.url.clone()));
            }
            if !fact.is_garbage {
                self.read.insert(fact.app.clone());
            }
            if fact.has_bad_results {
                self.well.remove(task);
                if is_looked_at(fact) {
                    self.perhaps_well.remove(task);
                }
            } else if fact.status == Status::Well {
                self.perhaps_well.insert(task.clone());
                if is_looked_at(fact) {
                    self.well.insert(task.clone());
                }
            } else if matches!(fact.status, Status::Unknown | Status::Unreachable)
                && fact.has_good_results
            {
                self.perhaps_well.insert(task.clone());
            }
        }
    }

    /// Judges one pass.
    pub(crate) fn judge(&self, case: &Case<'_>) -> Result<(), String> {
        let hosts: BTreeSet<&String> = case
            .after
            .now
            .owned
            .keys()
            .chain(case.facts.0.values().flat_map(|f| &f.hosts))
            .collect();
        for host in hosts {
            self.missing(case, host)?;
            self.over(case, host)?;
            match case.alone {
                None if case.truth == Truth::Whole => self.surplus(case, host)?,
                None => {}
                Some(apps) => self.surplus_of_apps(case, apps, host)?,
            }
        }
        Ok(())
    }

    /// Counts how long the guard holds what. Of each pass over a new answer, also of one that cannot
    /// be written.
    pub(crate) fn hold(&mut self, pass: &Pass, clock: Duration) -> Result<(), String> {
        let rows = pass.held.iter().flat_map(|held| &held.rows);
        let rows: BTreeSet<(String, String)> = rows
            .flat_map(|(host, urls)| urls.iter().map(move |url| (host.clone(), url.clone())))
            .collect();
        self.held.retain(|row, _| rows.contains(row));
        for row in rows {
            let (since, answers) = self.held.entry(row.clone()).or_insert((clock, 0));
            *answers += 1;
            if *answers >= 3 && clock - *since >= Duration::from_secs(30) {
                return Err(format!(
                    "{row:?} is held for too long: {answers} answers, since {since:?}"
                ));
            }
        }
        Ok(())
    }

    fn missing(&self, case: &Case<'_>, host: &str) -> Result<(), String> {
        let (before, after) = (case.listed(host), case.after.backends(host));
        for (task, fact) in case.facts.on(host) {
            let was_listed = before.contains(&fact.url);
            let is_well = fact.status == Status::Well
                || (fact.status == Status::Unknown && self.well.contains(task));
            let must = match case.truth(&fact.app) {
                _ if case.over.contains_key(task) => false,
                // Whoever has its place after one that is over is only known by the next answer.
                Truth::Old => {
                    let mut places = case.places.iter();
                    let follows = !self.shown.contains(task)
                        && places.any(|(other, place)| other != task && *place == fact.url);
                    // Nor is a recovery since.
                    let was_down =
                        matches!(self.known.get(task), Some(Status::Down | Status::Sick));
                    was_listed && fact.status == Status::Well && !follows && !was_down
                }
                // One that came after its app could be read last is nothing that the app had, even at
                // the address of one that it had.
                Truth::Whole if fact.is_garbage => {
                    let has_been_read = self.placed.contains_key(task);
                    was_listed && is_well && has_been_read && self.read.contains(&fact.app)
                }
                Truth::Whole => {
                    is_well
                        || (was_listed && fact.has_address && fact.status == Status::Unreachable)
                }
            };
            if must && !after.contains(&fact.url) && !is_taken(case, fact) {
                return Err(format!("{host} lacks {} of {task}, {fact:?}", fact.url));
            }
        }
        Ok(())
    }

    /// What an event called over goes at once, unless something else listens there, as far as is known.
    fn over(&self, case: &Case<'_>, host: &str) -> Result<(), String> {
        let listed = case.after.backends(host);
        for (task, url) in case.over.iter().filter(|(_, url)| listed.contains(url)) {
            let is_other = |other: &String| other != task && !case.over.contains_key(other);
            let lives = case.facts.0.iter().any(|(other, fact)| {
                is_other(other)
                    && fact.url == *url
                    && (fact.is_garbage || fact.hosts.iter().any(|one| one == host))
            });
            let is_known = self.known.keys().any(|other| {
                is_other(other) && case.places.get(other).is_some_and(|place| place == url)
            });
            if !lives && !is_known {
                return Err(format!("{host} keeps {url} although {task} is over"));
            }
        }
        Ok(())
    }

    /// What a look at single apps leaves: nothing comes that is not live, and nothing stays that is
    /// shown dead. What is merely not theirs is left to a look at everything.
    fn surplus_of_apps(
        &self,
        case: &Case<'_>,
        apps: &BTreeMap<String, Truth>,
        host: &str,
    ) -> Result<(), String> {
        let (before, after) = (case.before.rows(host), case.after.rows(host));
        let mut claimants = case.pass.plan.get(host).into_iter().flat_map(|wanted| &wanted.apps);
        let Some(app) = claimants.find(|app| apps.contains_key(*app)) else {
            let is_same = before == after;
            return is_same.then_some(()).ok_or_else(|| format!("{host} was changed for {apps:?}"));
        };
        if case.truth(app) == Truth::Old {
            return Ok(());
        }
        let listed = case.listed(host);
        for url in case.after.backends(host) {
            let here: Vec<(&String, &Fact)> = case
                .facts
                .on(host)
                .filter(|(_, fact)| fact.url == url && fact.app == *app)
                .collect();
            let was_listed = listed.contains(&url);
            let lives = here.iter().any(|(task, fact)| {
                fact.status == Status::Well
                    || (fact.status == Status::Unknown
                        && (was_listed || self.perhaps_well.contains(*task)))
                    || (fact.status == Status::Unreachable && was_listed)
            });
            if lives {
                continue;
            }
            if !was_listed {
                return Err(format!("{host} got {url} without a reason: {here:?}"));
            }
            if let Some(dead) =
                here.iter().find(|(_, fact)| matches!(fact.status, Status::Sick | Status::Down))
            {
                return Err(format!("{host} keeps {url} although {dead:?}"));
            }
        }
        Ok(())
    }

    fn surplus(&self, case: &Case<'_>, host: &str) -> Result<(), String> {
        let before = case.listed(host);
        for url in case.after.backends(host) {
            let was_listed = before.contains(&url);
            let here: Vec<(&String, &Fact)> =
                case.facts.on(host).filter(|(_, fact)| fact.url == url).collect();
            let lives = |task: &String, fact: &Fact| {
                fact.status == Status::Well
                    || (fact.status == Status::Unknown
                        && (was_listed || self.perhaps_well.contains(task)))
                    || (fact.status == Status::Unreachable && was_listed)
            };
            let can_be_read = |fact: &Fact| !fact.is_garbage;
            if here.iter().any(|(task, fact)| can_be_read(fact) && lives(task, fact)) {
                continue;
            }
            let garbage = case.facts.0.values().any(|fact| fact.is_garbage)
                || case.pass.apps.values().any(|report| {
                    matches!(report.state, marathon_sync::rules::report::AppState::Quarantined(_))
                });
            let is_held =
                case.pass.held.as_ref().is_some_and(|held| {
                    held.rows.get(host).is_some_and(|rows| rows.contains(&url))
                });
            let is_claimed = case.pass.plan.get(host).is_some_and(|wanted| !wanted.apps.is_empty());
            let may_be_lost = was_listed
                && !self.placed.values().any(|place| *place == url)
                && case.facts.on(host).any(|(task, fact)| {
                    fact.status == Status::Unreachable
                        && !fact.has_address
                        && !self.placed.contains_key(task)
                });
            let is_by_hand = !case.places.values().any(|place| *place == url);
            let is_of_others = !is_claimed && is_by_hand;
            // Somebody may add a row just before the list is written.
            let stays_unread = (was_listed || is_by_hand) && garbage;
            let is_excused = stays_unread || is_held || may_be_lost || is_of_others;
            if !is_excused {
                return Err(format!("{host} has {url} without a reason: {here:?}"));
            }
            if let Some(task) = case.over.iter().find(|(_, place)| **place == url)
                && here.is_empty()
            {
                return Err(format!("{host} keeps {url} although {task:?} is over"));
            }
            let shown_dead = here.iter().find(|(_, fact)| {
                can_be_read(fact) && matches!(fact.status, Status::Sick | Status::Down)
            });
            if let Some(dead) = shown_dead
                && !garbage
            {
                return Err(format!("{host} keeps {url} although {dead:?}"));
            }
            let others: Vec<&Fact> =
                case.facts.0.values().filter(|fact| fact.url == url && runs(fact)).collect();
            if is_claimed
                && !others.is_empty()
                && here.is_empty()
                && others.iter().all(|fact| !fact.is_garbage)
            {
                return Err(format!("{host} keeps {url}, where only others listen: {others:?}"));
            }
        }
        Ok(())
    }
}

/// Whether the task listens at its address, as far as is shown.
pub(crate) fn runs(fact: &Fact) -> bool {
    matches!(fact.status, Status::Sick | Status::Unknown | Status::Well)
}

/// Another app's task runs at the address of one that is lost.
fn is_taken(case: &Case<'_>, fact: &Fact) -> bool {
    !runs(fact)
        && case
            .facts
            .0
            .values()
            .any(|other| other.app != fact.app && other.url == fact.url && runs(other))
}
