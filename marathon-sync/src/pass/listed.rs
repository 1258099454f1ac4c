//! What was listed after the last pass, should Redis lose it. Pure.
//!
//! What an answer asks for is written again anyway. But there are backends that only stay where they
//! are listed: of tasks about which too little is known, and those that the guard holds. After a loss
//! they are listed nowhere; they come back because this remembers them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::texts;
use crate::plan::Plan;
use crate::routes::backend::Backend;
use crate::routes::snapshot::Snapshot;

/// Backends by host.
pub(super) type Rows = BTreeMap<String, Vec<String>>;

/// What was listed.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// What the last pass wanted: all that is `up` there has been written.
    plan: Arc<Plan>,
    /// What was listed and only kept, by host.
    kept: Rows,
    /// The same of what no app ever wanted.
    others: Rows,
    /// Redis had notes of ours when it was last read.
    had_notes: bool,
    /// What was lost and is not written again yet.
    lost: Lost,
}

/// What Redis has lost.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost {
    /// Rows that an app wanted.
    pub(super) ours: Rows,
    /// Rows that others had put there.
    pub(super) others: Rows,
}

impl Lost {
    pub(super) fn is_ours(&self, host: &str, row: &String) -> bool {
        self.ours.get(host).is_some_and(|rows| rows.contains(row))
    }

    fn retain(&mut self, stays: impl Fn(&String) -> bool) {
        self.ours.retain(|host, _| stays(host));
        self.others.retain(|host, _| stays(host));
    }
}

impl Listed {
    /// What Redis lists when the agent starts is what it may lose.
    pub(super) fn restore(&mut self, host: &str, rows: Vec<String>) {
        self.had_notes = true;
        let _new = self.kept.insert(host.to_owned(), rows);
    }

    /// The lists that Redis has lost, as they were: nothing of ours is left there, or was not when
    /// the first of them was written again.
    pub(super) fn lost(&mut self, snapshot: &Snapshot) -> &Lost {
        if self.had_notes && snapshot.owned.is_empty() {
            let up = self.plan.iter().map(|(host, wanted)| (host, &wanted.up));
            let mut lost = Rows::new();
            for (host, rows) in up.chain(&self.kept).filter(|(_, rows)| !rows.is_empty()) {
                lost.entry(host.clone()).or_default().extend(rows.iter().cloned());
            }
            self.lost = Lost { ours: lost, others: self.others.clone() };
        }
        // What stands there is what counts, whoever has made it.
        self.lost.retain(|host| !snapshot.lists.contains_key(host));
        &self.lost
    }

    /// Item 0 of a list that no app of the answer claims.
    pub(super) fn identifier(&self, host: &str) -> Option<&String> {
        self.plan.get(host).map(|wanted| &wanted.identifier).filter(|name| !name.is_empty())
    }

    /// A look at one app has left on `host`, of what was listed there, what `stays`, beside what is up.
    pub(super) fn keep(&mut self, host: &str, were_up: &[String], stays: impl Fn(&String) -> bool) {
        let kept = self.kept.entry(host.to_owned()).or_default();
        kept.extend(were_up.iter().cloned());
        kept.retain(stays);
        if kept.is_empty() {
            let _empty = self.kept.remove(host);
        }
    }

    /// Looks at single apps have made this of the plan.
    pub(super) fn replan(&mut self, plan: &Arc<Plan>) {
        self.plan = Arc::clone(plan);
    }

    /// Notes what is listed once `plan` is carried out.
    pub(super) fn note(&mut self, plan: &Arc<Plan>, snapshot: &Snapshot) {
        self.kept.clear();
        for (host, wanted) in plan.iter().filter(|(_, wanted)| !wanted.unsure.is_empty()) {
            let listed = texts(snapshot.backends(host));
            let kept: Vec<String> = listed.filter(|row| wanted.unsure.contains(row)).collect();
            if !kept.is_empty() {
                let _new = self.kept.insert(host.clone(), kept);
            }
        }
        self.others.clear();
        for (host, wanted) in plan.iter().filter(|(_, wanted)| !wanted.others.is_empty()) {
            // Each instance lists its own backends again.
            let foreign = snapshot.foreign_backends(host);
            let is_foreign =
                |row: &Vec<u8>| !foreign.is_empty() && foreign.contains(&Backend::of(row));
            let stays = |row: &&Vec<u8>| wanted.others.contains(row) && !is_foreign(row);
            let others = snapshot.backends(host).iter().filter(stays);
            let others = others.filter_map(|row| String::from_utf8(row.clone()).ok());
            let _new = self.others.insert(host.clone(), others.collect());
        }
        self.plan = Arc::clone(plan);
        self.had_notes = !snapshot.owned.is_empty();
        self.lost.retain(|host| plan.contains_key(host));
    }
}
