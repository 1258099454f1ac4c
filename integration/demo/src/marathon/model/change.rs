//! What can happen to a cluster. Each change leaves the events that its dialect sends for it.

use super::super::events;
use super::app::App;
use super::task::{Health, HealthResult, Place, State, Task};
use super::{Cluster, Deployment, Stamp};

impl Cluster {
    /// Takes a definition, new or changed; tasks that are there stay as they are.
    pub fn define(&mut self, mut app: App) -> Result<(), String> {
        app.validate(self.dialect)?;
        for port in &mut app.ports {
            if port.service == 0 {
                port.service = self.service_port();
            }
        }
        let now = self.clock.stamp();
        (app.version, app.last_config_change) = (now, now);
        let old = self.apps.remove(&app.id);
        app.last_scaling = old.as_ref().map_or(now, |old| old.last_scaling);
        app.tasks = old.map(|old| old.tasks).unwrap_or_default();
        let id = app.id.clone();
        self.apps.insert(id.clone(), app);
        self.keep_version(&id);
        self.emit(|cluster, now| events::api_post(cluster, &id, now));
        Ok(())
    }

    /// Remembers the present definition of an app.
    fn keep_version(&mut self, id: &str) {
        let Some(app) = self.apps.get(id) else { return };
        let definition = App { tasks: Vec::new(), overlay: Default::default(), ..app.clone() };
        let versions = self.versions.entry(id.to_owned()).or_default();
        versions.insert(app.version, definition);
        if versions.len() > super::MAX_VERSIONS {
            versions.pop_first();
        }
    }

    /// Forgets every version of an app but the present one, as Marathon does with those beyond
    /// `--zk_max_versions`.
    pub fn forget_versions(&mut self, id: &str) {
        self.versions.remove(id);
        self.keep_version(id);
    }

    /// Changes how many instances are wanted, and nothing else; tasks stay as they are.
    pub fn want(&mut self, id: &str, instances: usize) {
        let now = self.clock.stamp();
        if let Some(app) = self.apps.get_mut(id) {
            app.instances = instances;
            (app.version, app.last_scaling) = (now, now);
            self.keep_version(id);
            self.emit(|cluster, now| events::api_post(cluster, id, now));
        }
    }

    /// Begins a deployment of an app and returns its id.
    pub fn begin(&mut self, app: &str, action: &'static str) -> String {
        let deployment = Deployment {
            id: self.uuid(),
            version: self.clock.stamp(),
            app: app.to_owned(),
            action,
        };
        let id = deployment.id.clone();
        self.deployments.push(deployment.clone());
        self.emit(|cluster, now| events::deployment(cluster, "deployment_info", &deployment, now));
        id
    }

    /// Ends a deployment well.
    pub fn finish(&mut self, deployment: &str) {
        let found = self.deployments.iter().position(|running| running.id == deployment);
        let Some(index) = found else { return };
        let ended = self.deployments.remove(index);
        for kind in ["deployment_step_success", "deployment_success"] {
            self.emit(|cluster, now| events::deployment(cluster, kind, &ended, now));
        }
    }

    /// Launches a task of the app's present version and returns its id; `None` without the app.
    pub fn launch(&mut self, app: &str, place: Place) -> Option<String> {
        let (uuid, now) = (self.uuid(), self.clock.stamp());
        let dialect = self.dialect;
        let safe = self.apps.get(app)?.safe_id();
        let (id, instance) = if dialect.has_incarnations() {
            (format!("{safe}.instance-{uuid}._app.1"), format!("{safe}.instance-{uuid}"))
        } else {
            (format!("{safe}.{uuid}"), format!("{safe}.marathon-{uuid}"))
        };
        self.launch_as(app, &id, instance, place, now);
        Some(id)
    }

    /// Launches a task that has ended again, under its id: what Marathon 1.0 to 1.4 does with resident
    /// tasks.
    pub fn launch_again(&mut self, app: &str, ended: &Task, place: Place) {
        let now = self.clock.stamp();
        self.launch_as(app, &ended.id, ended.instance.clone(), place, now);
    }

    fn launch_as(&mut self, app: &str, id: &str, instance: String, place: Place, now: Stamp) {
        let Some(app) = self.apps.get_mut(app) else { return };
        let app_id = app.id.clone();
        app.tasks.push(Task {
            id: id.to_owned(),
            instance,
            place,
            state: State::Staging,
            staged: now,
            started: None,
            version: app.version,
            results: vec![None; app.checks.len()],
            ready: false,
            overlay: super::Overlay::default(),
        });
        self.app_of.insert(id.to_owned(), app_id);
        self.tell_state(id);
    }

    /// Moves a task to another state. A terminal one is told and expunged at once, as Marathon does.
    pub fn transition(&mut self, task: &str, state: State) {
        let now = self.clock.stamp();
        let Some(found) = self.task_mut(task) else { return };
        found.state = state;
        if state == State::Running {
            found.started.get_or_insert(now);
        }
        self.tell_state(task);
        if state.is_terminal() {
            self.expunge(task, state, now);
        }
    }

    /// Moves every task of an agent to another state.
    pub fn move_agent(&mut self, host: &str, state: State) {
        for id in self.task_ids(|task| task.place.host == host) {
            self.transition(&id, state);
        }
    }

    /// Removes an unreachable task whose time is over: there is no status for that.
    pub fn forget(&mut self, task: &str) {
        let now = self.clock.stamp();
        if self.dialect.has_instances() {
            self.emit_for(task, |cluster, app, task, now| {
                events::instance_changed(cluster, app, task, State::Killed, now)
            });
        }
        self.expunge(task, State::Killed, now);
    }

    /// A probe of one check of a running task, or of all its checks.
    pub fn probe(&mut self, task: &str, check: Option<usize>, health: Health) {
        let now = self.clock.stamp();
        // Results of a task that does not run freeze.
        let Some(found) = self.task_mut(task).filter(|task| task.state == State::Running) else {
            return;
        };
        let before = found.known().map(HealthResult::alive).collect::<Vec<_>>();
        let healthy = |task: &Task| {
            task.results.iter().all(|result| result.as_ref().is_some_and(HealthResult::alive))
        };
        let was = (before.contains(&true), healthy(found));
        for (index, result) in found.results.iter_mut().enumerate() {
            if check.is_none_or(|check| check == index) {
                result.get_or_insert_default().note(health, now);
            }
        }
        let is = (found.known().any(HealthResult::alive), healthy(found));
        if health == Health::Sick {
            self.emit_for(task, |cluster, app, task, now| {
                events::failed_probe(cluster, app, task, check.unwrap_or(0), now)
            });
        }
        if was == is {
            return;
        }
        self.emit_for(task, |cluster, app, task, now| {
            events::health_changed(cluster, app, task, is.1, now)
        });
        if self.dialect.has_instances() {
            self.emit_for(task, |_, app, task, now| {
                events::instance_health_changed(app, task, Some(is.1), now)
            });
        }
    }

    /// Drops every health result, as a change of the leader does: they live in its memory only. No
    /// event tells.
    pub fn forget_health(&mut self) {
        for task in self.apps.values_mut().flat_map(|app| app.tasks.iter_mut()) {
            task.results.fill(None);
        }
    }

    /// Removes an app; its tasks are killed first.
    pub fn delete(&mut self, id: &str) {
        let Some(app) = self.apps.get(id) else { return };
        let tasks: Vec<String> = app.tasks.iter().map(|task| task.id.clone()).collect();
        if self.dialect.posts_deletions() {
            self.emit(|cluster, now| events::api_post(cluster, id, now));
        }
        let deployment = self.begin(id, "StopApplication");
        for task in tasks {
            self.transition(&task, State::Killed);
        }
        self.apps.remove(id);
        self.versions.remove(id);
        self.emit(|_, now| events::app_terminated(id, now));
        self.finish(&deployment);
    }

    /// The task of that id, to be changed without an event.
    pub fn task_mut(&mut self, id: &str) -> Option<&mut Task> {
        let app = self.apps.get_mut(self.app_of.get(id)?)?;
        app.tasks.iter_mut().find(|task| task.id == id)
    }

    fn tell_state(&mut self, task: &str) {
        self.emit_for(task, |cluster, app, task, now| {
            // That a task became inactive is Marathon's own decision: Mesos has sent no status.
            let told = task.state != State::UnreachableInactive;
            told.then(|| events::status_update(cluster, app, task, now))
        });
        if self.dialect.has_instances() {
            self.emit_for(task, |cluster, app, task, now| {
                events::instance_changed(cluster, app, task, task.state, now)
            });
        }
    }

    fn emit_for<E: Into<Option<events::Event>>>(
        &mut self,
        task: &str,
        build: impl FnOnce(&Self, &App, &Task, Stamp) -> E,
    ) {
        if !self.heard {
            return;
        }
        let now = self.clock.stamp();
        let event = self.task(task).and_then(|(app, task)| build(self, app, task, now).into());
        self.outbox.extend(event);
    }

    fn expunge(&mut self, id: &str, state: State, now: Stamp) {
        let dialect = self.dialect;
        let app = self.app_of.remove(id).and_then(|app| self.apps.get_mut(&app));
        let Some(app) = app else { return };
        let Some(index) = app.tasks.iter().position(|task| task.id == id) else { return };
        let task = app.tasks.remove(index);
        if matches!(state, State::Failed | State::Error | State::Gone | State::Dropped) {
            let name = state.name(dialect);
            app.last_failure = Some(super::super::json::last_failure(&app.id, &task, name, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::dialect::Dialect;
    use super::super::{Check, Port};
    use super::*;

    fn cluster(dialect: Dialect) -> Cluster {
        let mut cluster = Cluster::new(dialect);
        cluster.heard = true;
        let app = App {
            id: "/a/b".to_owned(),
            ports: vec![Port::default()],
            checks: vec![Check::http("/"), Check::http("/2")],
            ..App::default()
        };
        cluster.define(app).unwrap();
        cluster
    }

    fn kinds(cluster: &mut Cluster) -> Vec<String> {
        cluster.take_events().into_iter().map(|event| event.kind).collect()
    }

    #[test]
    fn the_life_of_a_task_is_told_in_the_words_of_the_dialect() {
        for (dialect, lost) in [(Dialect::V1_3, "TASK_LOST"), (Dialect::V1_9, "TASK_UNREACHABLE")] {
            let mut cluster = cluster(dialect);
            cluster.take_events();
            let task = cluster.launch("/a/b", Place::new("h", vec![1])).unwrap();
            cluster.transition(&task, State::Running);
            cluster.transition(&task, State::Unreachable);
            cluster.transition(&task, State::UnreachableInactive);
            cluster.forget(&task);
            let events = cluster.take_events();
            let told: Vec<_> = events
                .iter()
                .filter_map(|event| event.body.get("taskStatus")?.as_str().map(str::to_owned))
                .collect();
            assert_eq!(told, ["TASK_STAGING", "TASK_RUNNING", lost]);
            let conditions: Vec<_> = events
                .iter()
                .filter_map(|event| event.body.get("condition")?.as_str().map(str::to_owned))
                .collect();
            let expected: &[&str] = if dialect.has_instances() {
                &["Staging", "Running", "Unreachable", "UnreachableInactive", "Killed"]
            } else {
                &[]
            };
            assert_eq!(conditions, expected);
            assert_eq!(cluster.tasks().count(), 0);
        }
    }

    #[test]
    fn health_is_told_when_it_flips_and_not_else() {
        let mut cluster = cluster(Dialect::V1_3);
        let task = cluster.launch("/a/b", Place::new("h", vec![1])).unwrap();
        cluster.probe(&task, None, Health::Healthy);
        assert!(cluster.task(&task).unwrap().1.known().next().is_none(), "it does not run yet");
        cluster.transition(&task, State::Running);
        cluster.take_events();
        let cases = [
            (Health::Starting, vec![]),
            (Health::Healthy, vec!["health_status_changed_event"]),
            (Health::Healthy, vec![]),
            (Health::Sick, vec!["failed_health_check_event", "health_status_changed_event"]),
            (Health::Sick, vec!["failed_health_check_event"]),
        ];
        for (health, told) in cases {
            cluster.probe(&task, None, health);
            assert_eq!(kinds(&mut cluster), told, "{health:?}");
        }
        cluster.forget_health();
        assert_eq!(kinds(&mut cluster), [""; 0]);
    }

    #[test]
    fn a_deleted_app_ends_with_its_tasks() {
        let mut cluster = cluster(Dialect::V1_9);
        cluster.launch("/a/b", Place::new("h", vec![1])).unwrap();
        cluster.take_events();
        cluster.delete("/a/b");
        assert_eq!(
            kinds(&mut cluster),
            [
                "deployment_info",
                "status_update_event",
                "instance_changed_event",
                "app_terminated_event",
                "deployment_step_success",
                "deployment_success",
            ]
        );
        assert!(cluster.apps.is_empty() && cluster.deployments.is_empty());
    }

    #[test]
    fn a_new_definition_keeps_tasks_with_their_version() {
        let mut cluster = cluster(Dialect::V1_9);
        let task = cluster.launch("/a/b", Place::new("h", vec![1])).unwrap();
        let before = cluster.apps["/a/b"].clone();
        cluster.define(App { cmd: "new".to_owned(), ..before.clone() }).unwrap();
        let app = &cluster.apps["/a/b"];
        assert!(app.last_config_change > before.last_config_change);
        assert_eq!(app.ports[0].service, before.ports[0].service);
        assert_eq!((app.tasks[0].id.as_str(), app.tasks[0].version), (&*task, before.version));
    }
}
