//! Reads what stands in Redis of the lists that matter: those that an app claims and those that we
//! own. Never a search over all keys.

use std::collections::{BTreeMap, HashSet};

use shared::keys;
use shared::store::{Client, Command, KeyProblem, Reply, StoreError};

use super::Routes;
use super::backend::Backend;
use super::change::backends;
use super::diff::hosts;
use super::owned::{Foreign, Owned};
use crate::plan::Plan;

/// Hosts that are asked for at once: enough that the way to Redis and back does not count, few
/// enough that other clients of Redis hardly wait.
const BATCH: usize = 256;

/// What stands in Redis.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// Our notes, by host.
    pub owned: BTreeMap<String, Owned>,
    /// The lists by host, item 0 the identifier; a host without a list is not among them.
    pub lists: BTreeMap<String, Result<Vec<Vec<u8>>, KeyProblem>>,
    /// The other instances that are in use.
    pub instances: Vec<String>,
    /// Their notes, by host.
    pub foreign: BTreeMap<String, Vec<Foreign>>,
}

impl Snapshot {
    /// The backends of a host as they are listed now.
    pub fn backends(&self, host: &str) -> &[Vec<u8>] {
        match self.lists.get(host) {
            Some(Ok(list)) => backends(list),
            Some(Err(_)) | None => &[],
        }
    }

    /// What other instances note of a host.
    pub fn foreign(&self, host: &str) -> &[Foreign] {
        self.foreign.get(host).map_or(&[], Vec::as_slice)
    }

    /// The backends that other instances list for a host.
    pub fn foreign_backends(&self, host: &str) -> HashSet<Backend> {
        let rows = self.foreign(host).iter().flat_map(|foreign| &foreign.owned.rows);
        rows.map(|row| Backend::of(row.as_bytes())).collect()
    }
}

/// Why Redis could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RoutesError {
    /// Redis is away, slow, or refuses.
    #[error("cannot read from Redis: {}", .0.detail())]
    Read(#[source] StoreError),
    /// Our notes are in a key of another type.
    #[error(
        "{0} is not a hash, so what marathon-sync owns is unknown; look at it with `TYPE`, and `DEL` it if it is a mistake"
    )]
    NotesUnreadable(String),
    /// The names of the instances are in a key of another type.
    #[error(
        "{0} is not a set, so other instances are unknown; look at it with `TYPE`, and `DEL` it if it is a mistake"
    )]
    InstancesUnreadable(String),
}

impl Routes {
    /// Reads the lists that `plan` claims or that we own, and our notes about them.
    ///
    /// # Errors
    ///
    /// [`RoutesError`] when Redis did not answer, or our notes cannot be read. A list that cannot be
    /// read is no error: see [`Snapshot::lists`].
    pub async fn snapshot(&self, plan: &Plan) -> Result<Snapshot, RoutesError> {
        let key = self.owned_key();
        let names = self.client.run(&Command::new("HKEYS").arg(&key)).await;
        let names = names.map_err(|error| notes_error(&key, error))?;
        let names: Vec<String> = names
            .into_texts()
            .unwrap_or_default()
            .into_iter()
            // A field that is no text is not of our making.
            .filter_map(|name| String::from_utf8(name?).ok())
            .collect();
        let hosts: Vec<&String> = hosts(plan, &names).into_iter().collect();
        self.read(&hosts).await
    }

    /// Reads the lists and notes of these hosts.
    ///
    /// # Errors
    ///
    /// As [`snapshot`](Self::snapshot).
    pub async fn read(&self, hosts: &[&String]) -> Result<Snapshot, RoutesError> {
        let instances = self.other_instances().await?;
        let mut snapshot = Snapshot { instances, ..Snapshot::default() };
        for batch in hosts.chunks(BATCH) {
            self.read_batch(batch, &mut snapshot).await?;
        }
        Ok(snapshot)
    }

    /// The names of the other instances that are in use.
    async fn other_instances(&self) -> Result<Vec<String>, RoutesError> {
        let prefix = self.client.prefix();
        let key = keys::agent_instances(prefix);
        let names = self.client.run(&Command::new("SMEMBERS").arg(&key)).await;
        let names = names.map_err(|error| match error.is_wrong_type() {
            true => RoutesError::InstancesUnreadable(key),
            false => RoutesError::Read(error),
        })?;
        let names = names.into_texts().unwrap_or_default().into_iter().flatten();
        let mut names: Vec<String> = names
            .filter_map(|name| String::from_utf8(name).ok())
            .filter(|name| *name != self.instance)
            .collect();
        if names.is_empty() {
            return Ok(names);
        }
        names.sort_unstable();
        let is_active =
            |name: &String| Command::new("EXISTS").arg(keys::agent_active(prefix, name));
        let commands: Vec<Command> = names.iter().map(is_active).collect();
        let answers = self.client.pipeline(&commands).await.map_err(RoutesError::Read)?;
        let mut active = Vec::with_capacity(names.len());
        for (name, answer) in names.into_iter().zip(answers) {
            if answer.map_err(RoutesError::Read)? != Reply::Integer(0) {
                active.push(name);
            }
        }
        Ok(active)
    }

    async fn read_batch(
        &self,
        hosts: &[&String],
        snapshot: &mut Snapshot,
    ) -> Result<(), RoutesError> {
        let prefix = self.client.prefix();
        let others = snapshot.instances.clone();
        let keys = others.iter().map(|other| keys::agent_owned(prefix, other));
        let keys: Vec<String> = std::iter::once(self.owned_key()).chain(keys).collect();
        let notes = |key| hosts.iter().fold(Command::new("HMGET").arg(key), Command::arg);
        let mut commands: Vec<Command> = keys.iter().map(notes).collect();
        commands.extend(hosts.iter().map(|host| {
            Command::new("LRANGE").arg(keys::frontend(prefix, host)).arg("0").arg("-1")
        }));
        let answers = self.client.pipeline(&commands).await.map_err(RoutesError::Read)?;
        let mut answers = answers.into_iter();

        for (position, key) in keys.iter().enumerate() {
            let notes = answers.next().unwrap_or(Ok(Reply::Nil));
            let notes = notes.map_err(|error| notes_error(key, error))?.into_texts();
            for (host, note) in hosts.iter().zip(notes.unwrap_or_default()) {
                let Some(note) = note else { continue };
                let host = (*host).clone();
                match position.checked_sub(1).and_then(|position| others.get(position)) {
                    None => drop(snapshot.owned.insert(host, Owned::read(&note))),
                    Some(other) => {
                        let foreign = Foreign::read(other, note);
                        snapshot.foreign.entry(host).or_default().push(foreign);
                    }
                }
            }
        }
        for (host, answer) in hosts.iter().zip(answers) {
            let list = match answer {
                Ok(reply) => {
                    Ok(reply.into_texts().unwrap_or_default().into_iter().flatten().collect())
                }
                Err(error) => Err(list_problem(&self.client, host, error)?),
            };
            if list.as_ref().map_or(true, |rows: &Vec<_>| !rows.is_empty()) {
                snapshot.lists.insert((*host).clone(), list);
            }
        }
        Ok(())
    }

    pub(super) fn owned_key(&self) -> String {
        keys::agent_owned(self.client.prefix(), &self.instance)
    }
}

/// Sorts what is wrong with one list from what is wrong with Redis.
fn list_problem(client: &Client, host: &str, error: StoreError) -> Result<KeyProblem, RoutesError> {
    if !error.is_wrong_type() {
        return Err(RoutesError::Read(error));
    }
    let detail = "it is not a list; look at it with `TYPE`, and `DEL` it if it is a mistake";
    Ok(KeyProblem { key: keys::frontend(client.prefix(), host), detail: detail.to_owned() })
}

fn notes_error(key: &str, error: StoreError) -> RoutesError {
    if error.is_wrong_type() {
        RoutesError::NotesUnreadable(key.to_owned())
    } else {
        RoutesError::Read(error)
    }
}
