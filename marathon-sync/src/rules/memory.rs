//! What has to be remembered from one answer to the next.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use shared::backend::Origin;

use crate::document::{App, Task};

use super::address::Whereabouts;
use super::liveness::Health;
use super::report::AppReport;
use super::versions::Versions;

/// How long an app that is no longer listed is remembered: for events about it that come late.
const KEEP_ABSENT: SignedDuration = SignedDuration::from_secs(600);

/// What earlier answers said. Holds the tasks of the last answer, the apps of the last ten minutes,
/// and the tasks of those that the last answer does not show, no more.
///
/// There is much of it, and mostly the same after each answer: what has not changed is shared with what
/// was, so that there are not two of it while the next answer is looked at.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub(super) tasks: KnownTasks,
    pub(super) apps: BTreeMap<String, LastGood>,
    /// Definitions that tasks were started from.
    pub(super) versions: Versions,
    /// Tasks that events call ended, as they were then, for as long as the events are handed in.
    ended: HashMap<String, EndedTask>,
    /// What Redis listed at the start for hosts whose apps are not known.
    restored: BTreeMap<String, Vec<String>>,
    /// What was told of each app after the last answer.
    reports: BTreeMap<String, Arc<AppReport>>,
}

/// Tasks by id.
pub(super) type KnownTasks = HashMap<Arc<str>, Arc<KnownTask>>;

/// A task of the last answer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct KnownTask {
    pub(super) health: Option<Health>,
    /// When it began to run.
    pub(super) started_at: Option<Box<str>>,
    /// Its `host:port`s when it last had any.
    pub(super) addresses: Vec<String>,
    /// What was last told of it that has ports or addresses.
    pub(super) place: Place,
}

impl KnownTask {
    /// Whether `task`, which has the same id, is another life: it began to run at another time or has
    /// other ports. Up to Marathon 1.4 a resident task that ended is launched again under its id.
    pub(super) fn is_other_life(&self, task: &Task) -> bool {
        let ports = &*self.place.ports;
        let has_other_ports = !ports.is_empty() && !task.ports.is_empty() && *ports != task.ports;
        let started = self.started_at.as_deref().zip(task.started_at.as_deref());
        task.broken.is_none()
            && (has_other_ports || started.is_some_and(|(one, other)| one != other))
    }

    /// The version of the app that it was started from.
    pub(super) fn version(&self) -> Option<&str> {
        self.place.version.as_deref()
    }
}

/// [`Whereabouts`], kept. There is one for each task, so it is small.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Place {
    /// Version of the app that the rest is read by; shared by the tasks that have it.
    version: Option<Arc<str>>,
    host: Option<Box<str>>,
    ports: Box<[Option<u16>]>,
    ip_address: Option<Box<str>>,
}

impl Place {
    /// Where a task of `version` is.
    pub(super) fn new(told: Whereabouts<'_>, version: Option<&Arc<str>>) -> Self {
        Self {
            version: version.map(Arc::clone),
            host: told.host.map(Into::into),
            ports: told.ports.into(),
            ip_address: told.ip_address.map(Into::into),
        }
    }
}

impl<'a> From<&'a Place> for Whereabouts<'a> {
    fn from(place: &'a Place) -> Self {
        Self {
            host: place.host.as_deref(),
            ports: &place.ports,
            ip_address: place.ip_address.as_deref(),
        }
    }
}

/// A task that an event called ended.
#[derive(Clone, Debug)]
struct EndedTask {
    /// The life that ended.
    life: Arc<KnownTask>,
    /// Those of its `host:port`s where nothing runs since.
    addresses: Vec<String>,
}

impl EndedTask {
    fn new(life: &Arc<KnownTask>) -> Self {
        Self { life: Arc::clone(life), addresses: life.addresses.clone() }
    }
}

/// What an app had when it could last be read.
#[derive(Clone, Debug, Default)]
pub(super) struct LastGood {
    pub(super) hosts: BTreeMap<String, LastHost>,
    absent_since: Option<Timestamp>,
}

/// What an app had on one host.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct LastHost {
    pub(super) identifier: String,
    pub(super) backends: Vec<LastBackend>,
    /// Not all of the app's tasks were shown, and nothing was known of its past.
    pub(super) keeps_listed: bool,
}

/// A backend that an app had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct LastBackend {
    pub(super) url: Arc<str>,
    /// Its task; not known of what came from Redis.
    pub(super) task: Option<Arc<str>>,
}

impl Memory {
    /// Tells what Redis lists for `host` when the agent starts, by the apps that it was written for:
    /// one that cannot be read in the first answer keeps it.
    pub fn restore(&mut self, host: &str, identifier: &str, apps: &BTreeMap<String, Vec<String>>) {
        let backend = |url: &String| LastBackend { url: Arc::from(url.as_str()), task: None };
        for (app, urls) in apps {
            let last = LastHost {
                identifier: identifier.to_owned(),
                backends: urls.iter().map(backend).collect(),
                keeps_listed: false,
            };
            let hosts = &mut self.apps.entry(app.clone()).or_default().hosts;
            let _before = hosts.insert(host.to_owned(), last);
        }
    }

    /// The same for a host of which it is not known for which apps it was written.
    pub fn restore_host(&mut self, host: &str, urls: Vec<String>) {
        let _before = self.restored.insert(host.to_owned(), urls);
    }

    /// Takes in the definition of an earlier version of an app, which Marathon was asked for.
    pub fn learn_version(&mut self, definition: App) {
        self.versions.learn(definition);
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
        restored.map(|url| LastBackend { url: Arc::from(url.as_str()), task: None }).collect()
    }

    /// Whether it is known what `app` had on `host`, be it nothing.
    pub(super) fn knows_past(&self, app: &str, host: &str) -> bool {
        match self.apps.get(app).and_then(|last| last.hosts.get(host)) {
            Some(last) => !last.keeps_listed,
            None => self.restored.contains_key(host),
        }
    }

    /// Keeps what is known of the tasks behind `backends` that an answer does not show.
    pub(super) fn carry_over(&self, backends: &[LastBackend], known: &mut KnownTasks) {
        for id in backends.iter().filter_map(|backend| backend.task.as_ref()) {
            if let Some(task) = self.tasks.get(id)
                && !known.contains_key(id)
            {
                let _new = known.insert(Arc::clone(id), Arc::clone(task));
            }
        }
    }

    /// Whether these hosts are what `app` had last.
    pub(super) fn has(&self, app: &str, hosts: &BTreeMap<String, LastHost>) -> bool {
        self.apps.get(app).map_or(hosts.is_empty(), |last| last.hosts == *hosts)
    }

    /// `report`, or the one of the last time if it says the same.
    pub(super) fn shared(&self, app: &str, report: AppReport) -> Arc<AppReport> {
        let before = self.reports.get(app).filter(|before| ***before == report);
        before.map_or_else(|| Arc::new(report), Arc::clone)
    }

    /// Notes what was told of each app.
    pub(super) fn told(&mut self, reports: &BTreeMap<String, Arc<AppReport>>) {
        self.reports.clone_from(reports);
    }

    /// Notes what an app has now, be it nothing.
    pub(super) fn keep(&mut self, app: &str, hosts: BTreeMap<String, LastHost>) {
        if hosts.is_empty() {
            let _forgotten = self.apps.remove(app);
            return;
        }
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
            if let Some(task) = self.tasks.get(id.as_str())
                && !self.ended.contains_key(id)
            {
                let _new = self.ended.insert(id.clone(), EndedTask::new(task));
            }
        }
        self.ended.values().flat_map(|ended| &ended.addresses).cloned().collect()
    }

    /// Whether an event called this life of `task` ended.
    pub(super) fn has_ended(&self, task: &Task, ended: &BTreeSet<String>) -> bool {
        if !ended.contains(&task.id) {
            return false;
        }
        let noted = self.ended.get(&task.id).map(|ended| &ended.life);
        // The first look after the event: the last answer showed the life that it is about.
        let life = noted.or_else(|| self.tasks.get(task.id.as_str()));
        life.is_none_or(|life| !life.is_other_life(task))
    }

    /// Forgets that something ended where a task runs now: Mesos has given the port again. Else an
    /// answer that leaves that task out, by mistake, would seem explained.
    pub(super) fn reused(&mut self, lives: impl Fn(&str) -> bool) {
        for ended in self.ended.values_mut() {
            ended.addresses.retain(|address| !lives(address));
        }
        for last in self.apps.values_mut().filter(|last| last.absent_since.is_some()) {
            for host in last.hosts.values_mut() {
                host.backends.retain(|backend| !lives(&address(&backend.url)));
            }
        }
    }

    /// `host:port`s that deleted apps had.
    pub(super) fn deleted<'a>(&'a self, id: &str) -> impl Iterator<Item = String> + use<'a> {
        let hosts = self.apps.get(id).into_iter().flat_map(|last| last.hosts.values());
        hosts.flat_map(|host| &host.backends).map(|backend| address(&backend.url))
    }

    /// Replaces what was known of the tasks of one app, which were `before`. Where those that have
    /// `ended` were is noted as by a whole answer, before they are forgotten.
    pub(super) fn learn<'a>(
        &mut self,
        tasks: KnownTasks,
        before: impl Iterator<Item = &'a str>,
        ended: &BTreeSet<String>,
    ) {
        for id in before.filter(|id| !tasks.contains_key(*id)) {
            if let Some(task) = self.tasks.remove(id)
                && ended.contains(id)
                && !self.ended.contains_key(id)
            {
                let _new = self.ended.insert(id.to_owned(), EndedTask::new(&task));
            }
        }
        for id in tasks.keys().filter(|id| ended.contains(&***id)) {
            // The life that ended, before another one takes its place.
            if let Some(task) = self.tasks.get(id)
                && !self.ended.contains_key(&**id)
            {
                let _new = self.ended.insert(id.to_string(), EndedTask::new(task));
            }
        }
        self.tasks.extend(tasks);
    }

    /// Forgets tasks that are not in `tasks` and of no app that is away, and apps that have been away
    /// for long.
    pub(super) fn settle(
        &mut self,
        mut tasks: KnownTasks,
        listed: &BTreeSet<&str>,
        now: Timestamp,
    ) {
        for (_, last) in self.apps.iter().filter(|(id, _)| !listed.contains(id.as_str())) {
            for host in last.hosts.values() {
                self.carry_over(&host.backends, &mut tasks);
            }
        }
        self.tasks = tasks;
        self.apps.retain(|id, last| {
            if listed.contains(id.as_str()) {
                last.absent_since = None;
                return true;
            }
            let since = *last.absent_since.get_or_insert(now);
            now.duration_since(since) < KEEP_ABSENT
        });
        let apps = &self.apps;
        self.versions.retain(|app| apps.contains_key(app));
    }
}

/// `host:port` of a row, whatever its spelling.
pub(crate) fn address(url: &str) -> String {
    match Origin::parse(url.as_bytes()) {
        Ok(origin) => format!("{}:{}", origin.host, origin.port),
        Err(_) => url.to_owned(),
    }
}
