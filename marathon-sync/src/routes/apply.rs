//! Writes changes: one script a key, many keys at once, a result for each.
//!
//! The script carries a change out only while our token holds the lease and the list is what the
//! diff saw. When somebody edited the list in between, it is read and compared again.
//!
//! Marks in `dead:<host>` move with their backends in the same script. For a wildcard that is
//! impossible: its marks are in the sets of the requested hosts, which nobody can list. There the
//! router does it, which remembers the list before the change.

use std::collections::BTreeMap;

use shared::store::{Client, Command, KeyProblem, StoreError};

use super::Routes;
use super::change::Change;
use super::diff::diff;
use super::scripts::{self, Said};
use super::snapshot::RoutesError;
use crate::plan::Plan;

/// Keys that are written at once: Redis runs a script in some ten microseconds, so others hardly
/// wait, and the response timeout is far away.
const BATCH: usize = 128;
/// Bytes that are sent at once, so that long lists are written in smaller company.
const BATCH_BYTES: usize = 1 << 20;
/// How often a list that keeps changing under our hands is compared again. The next pass tries anew.
const ROUNDS: usize = 4;

/// What became of the changes.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Those that were written. After a conflict this is what was written in the end.
    pub written: Vec<Change>,
    /// Those that were not, and why, by host.
    pub failed: BTreeMap<String, WriteError>,
}

/// Why a change was not written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else edited the list each time we were about to write.
    #[error("somebody else keeps editing the list; the next pass tries again")]
    Conflict,
    /// Another process writes now, or Redis has lost its data. Nothing more is written.
    #[error("this process does not hold the lease any more")]
    LeaseLost,
    /// Somebody made something else of the key meanwhile.
    #[error(transparent)]
    NoList(KeyProblem),
    /// An earlier change showed that Redis is away or that we may not write.
    #[error("not tried, because an earlier change of this pass could not be written")]
    NotTried,
    /// This key cannot be written.
    #[error("Redis refuses to write it: {}", .0.detail())]
    Refused(#[source] StoreError),
    /// The list could not be read again after a conflict.
    #[error("the list was edited meanwhile and cannot be read again")]
    Reread(#[source] RoutesError),
    /// The server has no scripts, or this user may not run them.
    #[error(
        "this Redis does not allow EVAL, without which marathon-sync cannot write safely; allow it to the user (`ACL SETUSER … +eval`) or undo `rename-command`, see docs/redis-schema.md"
    )]
    ScriptsRefused(#[source] StoreError),
    /// Redis did not answer: it was written or not.
    #[error("no answer from Redis: {}", .0.detail())]
    Unanswered(#[source] StoreError),
}

impl Applied {
    /// Whether another process has taken over.
    pub fn is_lease_lost(&self) -> bool {
        self.failed.values().any(|error| matches!(error, WriteError::LeaseLost))
    }

    fn fail(&mut self, change: &Change, error: WriteError) {
        self.failed.insert(change.host.clone(), error);
    }
}

impl Routes {
    /// Writes `changes`, which come from `plan`, while `token` holds the lease.
    pub async fn apply(&self, plan: &Plan, changes: Vec<Change>, token: &str) -> Applied {
        let mut applied = Applied::default();
        let mut open = changes;
        for round in 1..=ROUNDS {
            let conflicts = self.write(open, token, &mut applied).await;
            if conflicts.is_empty() {
                break;
            }
            if round == ROUNDS {
                for change in &conflicts {
                    applied.fail(change, WriteError::Conflict);
                }
                break;
            }
            open = self.compare_again(plan, &conflicts, &mut applied).await;
        }
        applied
    }

    async fn compare_again(
        &self,
        plan: &Plan,
        conflicts: &[Change],
        applied: &mut Applied,
    ) -> Vec<Change> {
        let hosts: Vec<&String> = conflicts.iter().map(|change| &change.host).collect();
        let plan: Plan = hosts
            .iter()
            .filter_map(|host| Some(((*host).clone(), plan.get(*host)?.clone())))
            .collect();
        let snapshot = match self.read(&hosts).await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                for change in conflicts {
                    applied.fail(change, WriteError::Reread(error.clone()));
                }
                return Vec::new();
            }
        };
        for change in conflicts {
            if let Some(Err(problem)) = snapshot.lists.get(&change.host) {
                applied.fail(change, WriteError::NoList(problem.clone()));
            }
        }
        diff(&plan, &snapshot).changes
    }

    /// Returns the changes whose list is not what was seen.
    async fn write(&self, changes: Vec<Change>, token: &str, applied: &mut Applied) -> Vec<Change> {
        let mut conflicts = Vec::new();
        let mut changes = changes.into_iter().peekable();
        let mut batch: Vec<(Change, Command)> = Vec::new();
        let mut bytes: usize = 0;
        while let Some(change) = changes.next() {
            let command = scripts::write(self.client.prefix(), &self.instance, token, &change);
            bytes = bytes.saturating_add(command.bytes());
            batch.push((change, command));
            if changes.peek().is_some() && batch.len() < BATCH && bytes < BATCH_BYTES {
                continue;
            }
            bytes = 0;
            let goes_on =
                write_batch(&self.client, std::mem::take(&mut batch), applied, &mut conflicts);
            if !goes_on.await {
                for change in changes.chain(conflicts.drain(..)) {
                    applied.fail(&change, WriteError::NotTried);
                }
                break;
            }
        }
        conflicts
    }
}

/// Returns whether there is any use in going on.
async fn write_batch(
    client: &Client,
    batch: Vec<(Change, Command)>,
    applied: &mut Applied,
    conflicts: &mut Vec<Change>,
) -> bool {
    let (changes, commands): (Vec<Change>, Vec<Command>) = batch.into_iter().unzip();
    let answers = match client.pipeline(&commands).await {
        Ok(answers) => answers,
        Err(error) => {
            for change in &changes {
                applied.fail(change, WriteError::Unanswered(error.clone()));
            }
            return false;
        }
    };
    let mut goes_on = true;
    for (change, answer) in changes.into_iter().zip(answers) {
        match answer.map(Said::read) {
            Ok(Some(Said::Written)) => applied.written.push(change),
            // An answer that the script does not give is as good as none: look again.
            Ok(Some(Said::Conflict) | None) => conflicts.push(change),
            Ok(Some(Said::Lost)) => {
                applied.fail(&change, WriteError::LeaseLost);
                goes_on = false;
            }
            Err(error) if error.is_scripts_refused() => {
                applied.fail(&change, WriteError::ScriptsRefused(error));
                goes_on = false;
            }
            // Reading again tells which key it is.
            Err(error) if error.is_wrong_type() => conflicts.push(change),
            Err(error) => applied.fail(&change, WriteError::Refused(error)),
        }
    }
    goes_on
}
