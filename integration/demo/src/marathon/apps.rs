//! What a test holds of a cluster: apps and tasks by name, and a description of an app to be.

use std::sync::Arc;

use serde_json::Value;

use super::model::{App, Check, Cluster, Health, Network, Place, Port, State, Task};
use super::rollout::RollOut;
use super::shared::Shared;

/// An app that is being described. Without more words it is in host mode with one port, without
/// labels and without health checks.
#[derive(Debug)]
#[must_use = "an app is deployed by the last method of the chain"]
pub struct AppBuilder {
    shared: Arc<Shared>,
    app: App,
    ports: Option<Vec<Port>>,
}

impl AppBuilder {
    pub(super) fn new(shared: &Arc<Shared>, id: &str) -> Self {
        let app = App { id: id.to_owned(), cmd: "exec ./run".to_owned(), ..App::default() };
        Self { shared: Arc::clone(shared), app, ports: None }
    }

    /// Adds a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.app.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets how tasks are reached.
    pub fn network(mut self, network: Network) -> Self {
        self.app.network = network;
        self
    }

    /// Sets the ports, in order; none for a worker.
    pub fn ports(mut self, ports: impl IntoIterator<Item = Port>) -> Self {
        self.ports = Some(ports.into_iter().collect());
        self
    }

    /// Adds a health check.
    pub fn check(mut self, check: Check) -> Self {
        self.app.checks.push(check);
        self
    }

    /// Adds a readiness check.
    pub fn readiness(mut self) -> Self {
        self.app.readiness = true;
        self
    }

    /// Sets any key of the app's JSON, over what is there; also to nonsense.
    pub fn json(mut self, key: &str, value: Value) -> Self {
        self.app.overlay.set(key, value);
        self
    }

    /// Removes a key from the app's JSON.
    pub fn without(mut self, key: &str) -> Self {
        self.app.overlay.remove(key);
        self
    }

    /// Deploys it with tasks at these places, which run and have passed their checks.
    ///
    /// # Panics
    ///
    /// When no Marathon of this dialect would take it.
    #[track_caller]
    pub fn running_at(self, places: impl IntoIterator<Item = impl Into<Place>>) -> AppRef {
        match self.try_running_at(places) {
            Ok(app) => app,
            Err(reason) => panic!("{reason}"),
        }
    }

    /// The same with the reason why it is not taken.
    pub fn try_running_at(
        self,
        places: impl IntoIterator<Item = impl Into<Place>>,
    ) -> Result<AppRef, String> {
        let places: Vec<Place> = places.into_iter().map(Into::into).collect();
        let app = self.try_create(places.len())?;
        app.shared.change(|cluster| {
            for place in places {
                run(cluster, &app.id, place);
            }
        });
        app.finish();
        Ok(app)
    }

    /// Deploys it with so many tasks somewhere, which run and have passed their checks.
    #[track_caller]
    pub fn running(self, count: usize) -> AppRef {
        let app = self.create(count);
        app.shared.change(|cluster| {
            for _ in 0..count {
                let place = free_place(cluster, &app.id);
                run(cluster, &app.id, place);
            }
        });
        app.finish();
        app
    }

    /// Takes the definition and begins its deployment, which launches nothing by itself.
    ///
    /// # Panics
    ///
    /// When no Marathon of this dialect would take it.
    #[track_caller]
    pub fn create(self, instances: usize) -> AppRef {
        match self.try_create(instances) {
            Ok(app) => app,
            Err(reason) => panic!("{reason}"),
        }
    }

    /// The same with the reason why it is not taken.
    pub fn try_create(mut self, instances: usize) -> Result<AppRef, String> {
        self.app.ports = self.ports.unwrap_or_else(|| vec![Port::default()]);
        self.app.instances = instances;
        let id = self.app.id.clone();
        self.shared.change(|cluster| {
            cluster.define(self.app)?;
            cluster.begin(&id, "StartApplication");
            Ok::<_, String>(())
        })?;
        Ok(AppRef { shared: self.shared, id })
    }
}

/// An app of a cluster, by its id.
#[derive(Clone, Debug)]
pub struct AppRef {
    pub(super) shared: Arc<Shared>,
    pub(super) id: String,
}

impl AppRef {
    pub(super) fn new(shared: &Arc<Shared>, id: &str) -> Self {
        Self { shared: Arc::clone(shared), id: id.to_owned() }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its tasks, in the order of launching.
    pub fn tasks(&self) -> Vec<TaskRef> {
        let state = self.shared.state();
        let tasks = state.cluster.apps.get(&self.id).map(|app| app.tasks.as_slice());
        tasks.unwrap_or_default().iter().map(|task| TaskRef::new(&self.shared, &task.id)).collect()
    }

    /// Launches a task of the present version there, which is staged.
    #[track_caller]
    pub fn launch(&self, place: impl Into<Place>) -> TaskRef {
        let place = place.into();
        let id = self.shared.change(|cluster| cluster.launch(&self.id, place));
        let id = id.unwrap_or_else(|| panic!("there is no app {}", self.id));
        TaskRef::new(&self.shared, &id)
    }

    /// Launches a task that has ended again, under its id, as Marathon 1.0 to 1.4 does with resident
    /// tasks; it is staged.
    pub fn launch_again(&self, ended: &Task, place: impl Into<Place>) -> TaskRef {
        let place = place.into();
        self.shared.change(|cluster| cluster.launch_again(&self.id, ended, place));
        TaskRef::new(&self.shared, &ended.id)
    }

    /// Launches a task somewhere.
    #[track_caller]
    pub fn launch_anywhere(&self) -> TaskRef {
        let place = self.shared.change(|cluster| free_place(cluster, &self.id));
        self.launch(place)
    }

    /// Begins a deployment; the app lists it until [`finish`](Self::finish).
    pub fn begin(&self, action: &'static str) -> &Self {
        self.shared.change(|cluster| cluster.begin(&self.id, action));
        self
    }

    /// Ends every deployment of the app well.
    pub fn finish(&self) {
        self.shared.change(|cluster| {
            let running = cluster.deployments.iter().filter(|running| running.app == self.id);
            let ids: Vec<_> = running.map(|running| running.id.clone()).collect();
            for id in ids {
                cluster.finish(&id);
            }
        });
    }

    /// Scales to so many instances, in one deployment: new tasks run and have passed their checks at
    /// once, the youngest are killed.
    pub fn scale(&self, instances: usize) {
        self.shared.change(|cluster| {
            cluster.want(&self.id, instances);
            cluster.begin(&self.id, "ScaleApplication");
            let count = cluster.apps.get(&self.id).map_or(0, |app| app.tasks.len());
            for _ in count..instances {
                let place = free_place(cluster, &self.id);
                run(cluster, &self.id, place);
            }
            let app = cluster.apps.get(&self.id);
            let surplus = app.map(|app| app.tasks.iter().skip(instances));
            let surplus: Vec<_> =
                surplus.into_iter().flatten().map(|task| task.id.clone()).collect();
            for task in surplus {
                cluster.transition(&task, State::Killed);
            }
        });
        self.finish();
    }

    /// Changes the definition, which is a new version; tasks stay until they are replaced. See
    /// [`roll_out`](Self::roll_out) for all of it.
    #[track_caller]
    pub fn redefine(&self, change: impl FnOnce(&mut App)) {
        let taken = self.shared.change(|cluster| {
            let mut app =
                cluster.apps.get(&self.id).cloned().ok_or_else(|| format!("no {}", self.id))?;
            change(&mut app);
            cluster.define(app)
        });
        if let Err(reason) = taken {
            panic!("{reason}");
        }
    }

    /// Changes a label in a new version; see [`redefine`](Self::redefine).
    #[track_caller]
    pub fn relabel(&self, key: &str, value: &str) {
        self.redefine(|app| drop(app.labels.insert(key.to_owned(), value.to_owned())));
    }

    /// Replaces all tasks, after `change`, by tasks at these places; step by step.
    #[track_caller]
    pub fn roll_out(
        &self,
        places: impl IntoIterator<Item = impl Into<Place>>,
        change: impl FnOnce(&mut App),
    ) -> RollOut {
        let old = self.tasks();
        let places: Vec<Place> = places.into_iter().map(Into::into).collect();
        self.redefine(|app| {
            app.instances = places.len();
            change(app);
        });
        RollOut::new(self.clone(), old, places)
    }

    /// Kills its tasks and removes it.
    pub fn delete(&self) {
        self.shared.change(|cluster| cluster.delete(&self.id));
    }
}

/// A task of a cluster, by its id.
#[derive(Clone, Debug)]
pub struct TaskRef {
    shared: Arc<Shared>,
    id: String,
}

impl TaskRef {
    pub(super) fn new(shared: &Arc<Shared>, id: &str) -> Self {
        Self { shared: Arc::clone(shared), id: id.to_owned() }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The task as it is; `None` when it is gone.
    pub fn look(&self) -> Option<Task> {
        self.shared.state().cluster.task(&self.id).map(|(_, task)| task.clone())
    }

    /// Moves it to another state and tells; a terminal one removes it.
    pub fn to(&self, state: State) -> &Self {
        self.shared.change(|cluster| cluster.transition(&self.id, state));
        self
    }

    /// It runs.
    pub fn run(&self) -> &Self {
        self.to(State::Running)
    }

    /// It is being killed: shown as `TASK_KILLING` where that exists, else nothing happens.
    pub fn killing(&self) -> &Self {
        self.shared.change(|cluster| {
            if cluster.dialect.has_killing() {
                cluster.transition(&self.id, State::Killing);
            }
        });
        self
    }

    /// It was killed, and is gone.
    pub fn kill(&self) {
        self.to(State::Killed);
    }

    /// It is unreachable for too long and disappears, without a status.
    pub fn forget(&self) {
        self.shared.change(|cluster| cluster.forget(&self.id));
    }

    /// A probe of all its checks.
    pub fn probe(&self, health: Health) -> &Self {
        self.shared.change(|cluster| cluster.probe(&self.id, None, health));
        self
    }

    /// A probe of one of its checks, by position.
    pub fn probe_check(&self, check: usize, health: Health) -> &Self {
        self.shared.change(|cluster| cluster.probe(&self.id, Some(check), health));
        self
    }

    /// Changes it without an event; also its JSON, by [`Task::overlay`].
    pub fn change(&self, change: impl FnOnce(&mut Task)) -> &Self {
        self.shared.change(|cluster| {
            if let Some(task) = cluster.task_mut(&self.id) {
                change(task);
            }
        });
        self
    }
}

fn free_place(cluster: &mut Cluster, app: &str) -> Place {
    match cluster.apps.get(app).cloned() {
        Some(app) => cluster.free_place(&app),
        None => Place::new("", Vec::new()),
    }
}

/// Launches a task that runs and has passed its checks.
fn run(cluster: &mut Cluster, app: &str, place: Place) {
    if let Some(task) = cluster.launch(app, place) {
        cluster.transition(&task, State::Running);
        cluster.probe(&task, None, Health::Healthy);
    }
}
