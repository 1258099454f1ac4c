//! A large cluster.

use integration::marathon::{App, Check, Cluster, Dialect, Health, Port, State};

/// The answer of a cluster of `apps` apps with `tasks` healthy tasks each.
pub(crate) fn answer(apps: usize, tasks: usize, dialect: Dialect) -> Vec<u8> {
    let mut cluster = Cluster::new(dialect);
    fill(&mut cluster, apps, tasks);
    cluster.apps_body()
}

/// Adds `apps` apps with `tasks` healthy tasks each.
pub(crate) fn fill(cluster: &mut Cluster, apps: usize, tasks: usize) {
    for number in 0..apps {
        let app = App {
            id: format!("/group{}/app{number}", number % 100),
            labels: [("hipacheFrontend".to_owned(), format!("app{number}.example.com"))].into(),
            cmd: "exec ./run --port $PORT0".to_owned(),
            instances: tasks,
            ports: vec![Port::default()],
            checks: vec![Check::http("/health")],
            ..App::default()
        };
        if let Err(reason) = cluster.define(app.clone()) {
            panic!("{reason}");
        }
        for _ in 0..tasks {
            let place = cluster.free_place(&app);
            if let Some(task) = cluster.launch(&app.id, place) {
                cluster.transition(&task, State::Running);
                cluster.probe(&task, None, Health::Healthy);
            }
        }
    }
}
