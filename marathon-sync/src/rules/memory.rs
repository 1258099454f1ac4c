//! What has to be remembered from one answer to the next.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::address::without_scheme;
use super::liveness::Health;
use crate::document::Task;

/// How long an app that is no longer listed is remembered: for events about it that come late.
const KEEP_ABSENT: SignedDuration = SignedDuration::from_secs(600);

/// What earlier answers said. Holds the tasks of the last answer and the apps of the last ten
/// minutes, no more.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub(super) tasks: HashMap<String, KnownTask>,
    pub(super) apps: BTreeMap<String, LastGood>,
    /// Addresses of tasks that events call ended, by task, for as long as the events are handed in.
    ended: HashMap<String, Vec<String>>,
    /// What Redis listed at the start for hosts whose apps are not known.
    restored: BTreeMap<String, Vec<String>>,
}

/// A task of the last answer.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownTask {
    pub(super) health: Option<Health>,
    /// Its `host:port`s when it last had any.
    pub(super) addresses: Vec<String>,
    /// Host, ports and addresses when they were last told; the rest is empty.
    pub(super) place: Task,
}

/// What an app had when it could last be read.
#[derive(Clone, Debug, Default)]
pub(super) struct LastGood {
    pub(super) hosts: BTreeMap<String, LastHost>,
    absent_since: Option<Timestamp>,
}

/// What an app had on one host.
#[derive(Clone, Debug, Default)]
pub(super) struct LastHost {
    pub(super) identifier: String,
    pub(super) backends: Vec<LastBackend>,
}

/// A backend that an app had.
#[derive(Clone, Debug)]
pub(super) struct LastBackend {
    pub(super) url: String,
    /// Its task; not known of what came from Redis.
    pub(super) task: Option<String>,
}

impl Memory {
    /// Tells what Redis lists for `host` when the agent starts, and the apps that it was written
    /// for, as far as that is known: an app that cannot be read in the first answer keeps it.
    pub fn restore(&mut self, host: &str, identifier: &str, apps: &[String], urls: &[String]) {
        if apps.is_empty() {
            let _before = self.restored.insert(host.to_owned(), urls.to_vec());
        }
        let backend = |url: &String| LastBackend { url: url.clone(), task: None };
        for app in apps {
            let last = LastHost {
                identifier: identifier.to_owned(),
                backends: urls.iter().map(backend).collect(),
            };
            let hosts = &mut self.apps.entry(app.clone()).or_default().hosts;
            let _before = hosts.insert(host.to_owned(), last);
        }
    }

    /// Number of tasks and apps remembered.
    pub fn sizes(&self) -> (usize, usize) {
        (self.tasks.len(), self.apps.len())
    }

    /// Backends that `app` had on `host`.
    pub(super) fn backends(&self, app: &str, host: &str) -> Vec<LastBackend> {
        if let Some(last) = self.apps.get(app).and_then(|last| last.hosts.get(host)) {
            return last.backends.clone();
        }
        let restored = self.restored.get(host).into_iter().flatten();
        restored.map(|url| LastBackend { url: url.clone(), task: None }).collect()
    }

    /// Notes what an app has now.
    pub(super) fn keep(&mut self, app: &str, hosts: BTreeMap<String, LastHost>) {
        for host in hosts.keys() {
            let _known_better = self.restored.remove(host);
        }
        let last = LastGood { hosts, absent_since: None };
        let _before = self.apps.insert(app.to_owned(), last);
    }

    /// `host:port`s of tasks that events call ended, also of those that are no longer listed.
    pub(super) fn ended(&mut self, ended: &BTreeSet<String>) -> HashSet<String> {
        self.ended.retain(|task, _| ended.contains(task));
        for id in ended {
            if let Some(task) = self.tasks.get(id) {
                let _before = self.ended.insert(id.clone(), task.addresses.clone());
            }
        }
        self.ended.values().flatten().cloned().collect()
    }

    /// `host:port`s that deleted apps had.
    pub(super) fn deleted<'a>(&'a self, id: &str) -> impl Iterator<Item = String> + use<'a> {
        let hosts = self.apps.get(id).into_iter().flat_map(|last| last.hosts.values());
        hosts.flat_map(|host| &host.backends).map(|backend| address(&backend.url))
    }

    /// Forgets tasks that are not in `tasks`, and apps that have been away for long.
    pub(super) fn settle(
        &mut self,
        tasks: HashMap<String, KnownTask>,
        listed: &BTreeSet<&str>,
        now: Timestamp,
    ) {
        self.tasks = tasks;
        self.apps.retain(|id, last| {
            if listed.contains(id.as_str()) {
                last.absent_since = None;
                return true;
            }
            let since = *last.absent_since.get_or_insert(now);
            now.duration_since(since) < KEEP_ABSENT
        });
    }
}

/// `host:port` of a row, whatever its spelling.
pub(crate) fn address(url: &str) -> String {
    match shared::backend::BackendUrl::parse(url.as_bytes()) {
        Ok(parsed) => without_scheme(&parsed.origin.to_string()).to_owned(),
        Err(_) => url.to_owned(),
    }
}
