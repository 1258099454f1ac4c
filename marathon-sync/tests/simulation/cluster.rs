//! What happens to the cluster: people deploy, machines get lost, tasks get sick.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use integration::marathon::{
    App, Check, Cluster, Dialect, Health, Network, Overlay, Place, Port, State,
};
use serde_json::json;

use super::facts;

const APPS: usize = 7;
const HOSTS: [&str; 6] =
    ["one.test", "two.test", "three.test", "*.wild.test", "shared.test", "six.test"];
/// Steps whose state is kept.
const PAST: usize = 4;
const START: i64 = 1_600_000_000_000;

/// An app that is being replaced, task by task.
#[derive(Debug)]
struct Rollout {
    old: Vec<String>,
    missing: usize,
    fresh: Option<String>,
}

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    random: fastrand::Rng,
    rollouts: BTreeMap<String, Rollout>,
    lost: BTreeMap<String, u32>,
    /// Places of tasks that are over: Mesos gives ports again.
    free: Vec<Place>,
    /// Where tasks were, by their ids.
    pub(crate) places: BTreeMap<String, String>,
    /// The apps as they were after the last steps, oldest first.
    past: VecDeque<BTreeMap<String, App>>,
}

impl World {
    pub(crate) fn new(dialect: Dialect, seed: u64) -> Self {
        let mut cluster = Cluster::new(dialect);
        if dialect.has_events() {
            cluster.hear();
        }
        let mut world = Self {
            cluster,
            random: fastrand::Rng::with_seed(seed),
            rollouts: BTreeMap::new(),
            lost: BTreeMap::new(),
            free: Vec::new(),
            places: BTreeMap::new(),
            past: VecDeque::new(),
        };
        for _ in 0..APPS {
            world.create();
        }
        world
    }

    pub(crate) fn at(&mut self, second: u64) {
        self.cluster.clock.set(START + i64::try_from(second).unwrap() * 1000);
    }

    /// Something happens, or nothing.
    pub(crate) fn step(&mut self) {
        self.past.push_back(self.cluster.apps.clone());
        if self.past.len() > PAST {
            self.past.pop_front();
        }
        self.go_on();
        match self.random.u32(..100) {
            0..20 => self.probe_one(),
            20..30 => self.scale(),
            30..38 => self.roll_out(),
            38..43 => self.relabel(),
            43..47 => self.cluster.forget_health(),
            47..54 => self.lose_an_agent(),
            54..60 => self.fail_one(),
            60..63 => self.delete(),
            63..68 => self.create(),
            68..72 => self.spoil(),
            _ => {}
        }
    }

    /// What `look` sees of the cluster as it was some steps before, if the app existed.
    pub(crate) fn in_the_past<T>(
        &mut self,
        app: &str,
        look: impl FnOnce(&Cluster) -> T,
    ) -> Option<T> {
        let index = self.random.usize(..self.past.len().max(1));
        let old = self.past.get(index)?.get(app)?.clone();
        let now = self.cluster.apps.insert(app.to_owned(), old);
        let seen = look(&self.cluster);
        match now {
            Some(now) => drop(self.cluster.apps.insert(app.to_owned(), now)),
            None => drop(self.cluster.apps.remove(app)),
        }
        Some(seen)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(..100) < percent
    }

    fn any_app(&mut self) -> Option<App> {
        // Nobody touches an app while it cannot be read, so that its wishes stay the same.
        let apps: Vec<&App> =
            self.cluster.apps.values().filter(|app| app.overlay == Overlay::default()).collect();
        (!apps.is_empty()).then(|| apps[self.random.usize(..apps.len())].clone())
    }

    fn any_task(&mut self, wanted: impl Fn(&State) -> bool) -> Option<String> {
        let ids = self.cluster.task_ids(|task| wanted(&task.state));
        (!ids.is_empty()).then(|| ids[self.random.usize(..ids.len())].clone())
    }

    /// A host or two of the app's own, or some that others may claim as well.
    fn some_hosts(&mut self, app: &str) -> String {
        if self.chance(75) {
            let own = format!("{}.own.test", app.rsplit('/').next().unwrap());
            return if self.chance(30) { format!("{own},*.{own}") } else { own };
        }
        let count = self.random.usize(1..=2);
        let hosts: BTreeSet<&str> =
            (0..count).map(|_| HOSTS[self.random.usize(..HOSTS.len())]).collect();
        hosts.into_iter().collect::<Vec<_>>().join(",")
    }

    fn create(&mut self) {
        let Some(number) =
            (0..APPS).find(|n| !self.cluster.apps.contains_key(&format!("/group/app{n}")))
        else {
            return;
        };
        let checks = self.random.usize(..3);
        let id = format!("/group/app{number}");
        let app = App {
            labels: [("hipacheFrontend".to_owned(), self.some_hosts(&id))].into(),
            id,
            ports: vec![Port::default().named(facts::PUBLIC)],
            checks: vec![Check::http("/"); checks],
            ..App::default()
        };
        self.cluster.define(app.clone()).unwrap();
        for _ in 0..self.random.usize(1..5) {
            self.launch(&app.id);
        }
        self.agree(&app.id);
    }

    /// A task that is staged; where another one was, at times.
    fn launch(&mut self, app: &str) -> String {
        let definition = self.cluster.apps[app].clone();
        let mut fresh = self.cluster.free_place(&definition);
        let fits = |place: &Place| {
            place.addresses.is_empty()
                && fresh.addresses.is_empty()
                && place.ports.len() == fresh.ports.len()
        };
        let fitting: Vec<usize> =
            (0..self.free.len()).filter(|index| fits(&self.free[*index])).collect();
        if !fitting.is_empty() && self.chance(40) {
            fresh = self.free.swap_remove(fitting[self.random.usize(..fitting.len())]);
        }
        let id = self.cluster.launch(app, fresh).unwrap();
        let (app, task) = self.cluster.task(&id).unwrap();
        let url = facts::url(&self.cluster, app, task);
        drop(self.places.insert(id.clone(), url));
        id
    }

    fn end(&mut self, task: &str, state: State) {
        let Some((app, ended)) = self.cluster.task(task) else { return };
        let (app, place) = (app.id.clone(), ended.place.clone());
        self.free.push(place);
        self.cluster.transition(task, state);
        self.agree(&app);
    }

    /// What Marathon wants is what is there: checks of counts are tested elsewhere.
    fn agree(&mut self, app: &str) {
        let app = self.cluster.apps.get_mut(app).unwrap();
        app.instances = app.tasks.len();
    }

    /// Whatever was begun goes on: starting tasks, deployments, lost agents, probes, killing.
    fn go_on(&mut self) {
        for id in self.cluster.task_ids(|task| task.state == State::Staging) {
            if self.chance(60) {
                self.cluster.transition(&id, State::Running);
            }
        }
        for id in self.cluster.task_ids(|task| task.state == State::Killing) {
            if self.chance(60) {
                self.end(&id, State::Killed);
            }
        }
        let unknown = |task: &integration::marathon::Task| {
            task.state == State::Running
                && task.results.iter().any(|one| one.as_ref().is_none_or(|one| !one.alive()))
        };
        for id in self.cluster.task_ids(unknown) {
            match self.random.u32(..100) {
                0..10 => self.cluster.probe(&id, None, Health::Starting),
                10..50 => self.cluster.probe(&id, None, Health::Healthy),
                50..60 => self.cluster.probe(&id, Some(0), Health::Healthy),
                _ => {}
            }
        }
        for app in self.rollouts.keys().cloned().collect::<Vec<_>>() {
            self.go_on_with(&app);
        }
        for host in self.lost.keys().cloned().collect::<Vec<_>>() {
            self.find_again(&host);
        }
        for app in self.cluster.apps.keys().cloned().collect::<Vec<_>>() {
            if self.chance(15) {
                self.cluster.apps.get_mut(&app).unwrap().overlay = Overlay::default();
            }
        }
    }

    fn go_on_with(&mut self, app: &str) {
        let Some(mut rollout) = self.rollouts.remove(app) else { return };
        if !self.cluster.apps.contains_key(app) {
            return;
        }
        let is_well = |task: &String| {
            self.cluster.task(task).is_none_or(|(_, task)| {
                facts::status(task, self.cluster.dialect) == facts::Status::Well
            })
        };
        match &rollout.fresh {
            Some(fresh) if !is_well(fresh) => {}
            Some(_) => {
                rollout.fresh = None;
                if let Some(old) = rollout.old.pop() {
                    self.kill(&old);
                }
            }
            None if rollout.missing > 0 => {
                rollout.missing -= 1;
                rollout.fresh = Some(self.launch(app));
                self.agree(app);
            }
            None => {
                for old in std::mem::take(&mut rollout.old) {
                    self.kill(&old);
                }
                return;
            }
        }
        drop(self.rollouts.insert(app.to_owned(), rollout));
    }

    fn kill(&mut self, task: &str) {
        if self.cluster.dialect.has_killing() && self.random.bool() {
            self.cluster.transition(task, State::Killing);
        } else {
            self.end(task, State::Killed);
        }
    }

    fn probe_one(&mut self) {
        let health = if self.chance(40) { Health::Sick } else { Health::Healthy };
        if let Some(id) = self.any_task(|state| *state == State::Running) {
            let check = if self.random.bool() { Some(0) } else { None };
            self.cluster.probe(&id, check, health);
        }
    }

    fn scale(&mut self) {
        let Some(app) = self.any_app() else { return };
        let wanted = if self.chance(10) { 0 } else { self.random.usize(1..6) };
        // A new version, by which no task that is there was launched.
        self.cluster.want(&app.id, wanted);
        for _ in app.tasks.len()..wanted {
            self.launch(&app.id);
        }
        self.agree(&app.id);
        for task in app.tasks.iter().skip(wanted) {
            self.kill(&task.id);
        }
    }

    fn roll_out(&mut self) {
        let Some(app) = self.any_app() else { return };
        let old = app.tasks.iter().map(|task| task.id.clone()).collect();
        let rollout = Rollout { old, missing: app.tasks.len(), fresh: None };
        let mut app = app;
        if self.cluster.dialect.has_ip_per_task() && self.chance(60) {
            self.rearrange(&mut app);
        }
        let id = app.id.clone();
        self.cluster.define(app).unwrap();
        drop(self.rollouts.insert(id, rollout));
    }

    /// Other ports, another order of them, another network; the same hosts.
    fn rearrange(&mut self, app: &mut App) {
        let public = || Port::tcp(8080).named(facts::PUBLIC);
        let admin = || Port::tcp(8081).named("admin");
        let container = || Network::Container("overlay".to_owned());
        let (network, ports) = match self.random.u32(..7) {
            0 => (Network::Host, vec![public()]),
            1 => (Network::Host, vec![public(), admin()]),
            2 => (Network::Host, vec![admin(), public()]),
            3 => (Network::Bridge, vec![admin(), public()]),
            4 => (container(), vec![public().unmapped()]),
            5 => (
                container(),
                vec![admin().unmapped(), Port { container: 9090, ..public().unmapped() }],
            ),
            _ => (container(), vec![admin(), public()]),
        };
        let hosts = facts::hosts(app).join(",");
        app.labels.clear();
        (app.network, app.ports) = (network, ports);
        if !hosts.is_empty() {
            app.labels.insert(facts::label(app), hosts);
        }
    }

    fn relabel(&mut self) {
        let Some(mut app) = self.any_app() else { return };
        if self.chance(20) {
            app.labels.clear();
        } else {
            let hosts = self.some_hosts(&app.id);
            drop(app.labels.insert(facts::label(&app), hosts));
        }
        self.cluster.define(app).unwrap();
    }

    fn lose_an_agent(&mut self) {
        let Some(task) = self.any_task(|state| *state == State::Running) else { return };
        let host = self.cluster.task(&task).unwrap().1.place.host.clone();
        if self.lost.contains_key(&host) {
            return;
        }
        let running = |task: &integration::marathon::Task| {
            task.place.host == host && task.state == State::Running
        };
        for id in self.cluster.task_ids(running) {
            self.cluster.transition(&id, State::Unreachable);
        }
        self.lost.insert(host, 0);
    }

    /// An agent is away, then given up, then back or gone.
    fn find_again(&mut self, host: &str) {
        if !self.chance(30) {
            return;
        }
        let lost = self.cluster.task_ids(|task| {
            task.place.host == host
                && matches!(task.state, State::Unreachable | State::UnreachableInactive)
        });
        let age = self.lost.remove(host).unwrap_or(0);
        match (age, self.random.u32(..3)) {
            (0, 0) => {
                for id in lost {
                    self.cluster.transition(&id, State::UnreachableInactive);
                }
                self.lost.insert(host.to_owned(), 1);
            }
            (_, 1) => {
                for id in lost {
                    let (app, task) = self.cluster.task(&id).unwrap();
                    let (app, place) = (app.id.clone(), task.place.clone());
                    self.free.push(place);
                    self.cluster.forget(&id);
                    self.agree(&app);
                }
            }
            _ => {
                for id in lost {
                    self.cluster.transition(&id, State::Running);
                }
            }
        }
    }

    fn fail_one(&mut self) {
        if let Some(id) = self.any_task(|state| *state == State::Running) {
            let state = [State::Failed, State::Killed, State::Finished][self.random.usize(..3)];
            self.end(&id, state);
        }
    }

    fn delete(&mut self) {
        let Some(app) = self.any_app() else { return };
        self.free.extend(app.tasks.iter().map(|task| task.place.clone()));
        self.cluster.delete(&app.id);
    }

    /// An app becomes unreadable for a while.
    fn spoil(&mut self) {
        let Some(app) = self.any_app() else { return };
        let garbage = [
            ("labels", json!("none")),
            ("labels", json!({"hipacheFrontend": 7})),
            ("tasks", json!({"id": 5})),
            ("portDefinitions", json!([7])),
        ];
        let (key, value) = garbage[self.random.usize(..garbage.len())].clone();
        self.cluster.apps.get_mut(&app.id).unwrap().overlay.set(key, value);
    }
}
