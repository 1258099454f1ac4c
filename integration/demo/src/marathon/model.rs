//! The one internal model of a cluster, which every dialect is a view of. Pure: it knows neither
//! sockets nor JSON answers; what changes leaves the events that Marathon would send in an outbox.

mod app;
mod change;
mod task;
mod time;

use std::collections::{BTreeMap, HashMap};

use super::dialect::Dialect;
use super::events::Event;

pub use app::{App, Check, HostPort, Network, Overlay, Port, Protocol};
pub use task::{Health, HealthResult, Place, State, Task};
pub use time::{Clock, Stamp};

/// First port of the range from which host ports are given, as Mesos agents do by default.
const FIRST_HOST_PORT: u16 = 31_000;

/// First service port, as `--local_port_min` has it by default.
const FIRST_SERVICE_PORT: u16 = 10_000;

/// Versions of an app that are kept, as `--zk_max_versions` has it by default since 1.5. Those that tasks
/// were launched from are not spared.
const MAX_VERSIONS: usize = 50;

/// A running deployment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Deployment {
    /// Its id, a UUID.
    pub id: String,
    /// When it was started.
    pub version: Stamp,
    /// The app it changes.
    pub app: String,
    /// What it does to the app, e.g. `ScaleApplication`.
    pub action: &'static str,
}

/// Everything that the Marathon processes of a cluster agree upon.
#[derive(Debug)]
pub struct Cluster {
    /// The version that all processes run.
    pub dialect: Dialect,
    /// Apps by id.
    pub apps: BTreeMap<String, App>,
    /// Deployments that run, oldest first.
    pub deployments: Vec<Deployment>,
    /// Whether empty `tasks` and `deployments` are left out, as some builds of 1.8 and 1.9 do.
    pub omits_empty_lists: bool,
    /// Where time comes from.
    pub clock: Clock,
    /// Whether anybody hears events; without, none are made.
    pub(super) heard: bool,
    /// The app of each task, by their ids: there may be many of both.
    app_of: HashMap<String, String>,
    outbox: Vec<Event>,
    /// Definitions that apps had, without tasks, by version.
    versions: BTreeMap<String, BTreeMap<Stamp, App>>,
    random: fastrand::Rng,
    host_ports: u16,
    service_ports: u16,
    agents: usize,
}

impl Cluster {
    /// A cluster without apps. Ids are drawn from a fixed seed: the same changes give the same ids.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            apps: BTreeMap::new(),
            deployments: Vec::new(),
            omits_empty_lists: false,
            clock: Clock::default(),
            heard: false,
            app_of: HashMap::new(),
            outbox: Vec::new(),
            versions: BTreeMap::new(),
            random: fastrand::Rng::with_seed(0x6d61_7261_7468_6f6e),
            host_ports: 0,
            service_ports: 0,
            agents: 0,
        }
    }

    /// Every task, in the order of apps and of launching.
    pub fn tasks(&self) -> impl Iterator<Item = (&App, &Task)> {
        self.apps.values().flat_map(|app| app.tasks.iter().map(move |task| (app, task)))
    }

    /// The task of that id with its app.
    pub fn task(&self, id: &str) -> Option<(&App, &Task)> {
        let app = self.apps.get(self.app_of.get(id)?)?;
        Some((app, app.tasks.iter().find(|task| task.id == id)?))
    }

    /// Ids of the tasks that are wanted.
    pub fn task_ids(&self, wanted: impl Fn(&Task) -> bool) -> Vec<String> {
        let tasks = self.tasks().filter(|(_, task)| wanted(task));
        tasks.map(|(_, task)| task.id.clone()).collect()
    }

    /// The definition that an app had in a version, without tasks.
    pub fn version(&self, app: &str, version: Stamp) -> Option<&App> {
        self.versions.get(app)?.get(&version)
    }

    /// The definition that a task was launched from.
    pub fn definition_of(&self, app: &App, task: &Task) -> Option<&App> {
        self.version(&app.id, task.version)
    }

    /// The versions of an app, newest first.
    pub(super) fn versions(&self, app: &str) -> impl Iterator<Item = (&Stamp, &App)> {
        self.versions.get(app).into_iter().flatten().rev()
    }

    /// Makes events from now on, for whoever takes them without a server.
    pub fn hear(&mut self) {
        self.heard = true;
    }

    /// Takes the events of what has changed since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.outbox)
    }

    /// Puts an event into the outbox, if anybody hears it.
    pub(super) fn emit(&mut self, build: impl FnOnce(&Self, Stamp) -> Event) {
        if self.heard {
            let now = self.clock.stamp();
            let event = build(self, now);
            self.outbox.push(event);
        }
    }

    /// A place that no task had before, with as many ports as `app` asks for.
    pub fn free_place(&mut self, app: &App) -> Place {
        self.agents = self.agents % 16 + 1;
        let ports = (0..app.host_ports()).map(|_| self.host_port()).collect();
        let mut place = Place::new(format!("10.0.0.{}", self.agents), ports);
        if app.network.has_addresses() && self.dialect.has_ip_per_task() {
            let number = self.random.u16(..);
            place.addresses = vec![format!("172.17.{}.{}", number >> 8, number & 0xff)];
        }
        place
    }

    fn host_port(&mut self) -> u16 {
        // 29,000 later the first ones come again, as they do with Mesos.
        self.host_ports = (self.host_ports + 1) % 29_000;
        FIRST_HOST_PORT + self.host_ports
    }

    fn service_port(&mut self) -> u16 {
        self.service_ports = (self.service_ports + 1) % 10_000;
        FIRST_SERVICE_PORT + self.service_ports - 1
    }

    fn uuid(&mut self) -> String {
        let bits = self.random.u128(..);
        // Version and variant of a random UUID, so that strict readers take it.
        let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
        let hex = format!("{bits:032x}");
        let mut text = String::with_capacity(36);
        for (index, digit) in hex.chars().enumerate() {
            if matches!(index, 8 | 12 | 16 | 20) {
                text.push('-');
            }
            text.push(digit);
        }
        text
    }
}
