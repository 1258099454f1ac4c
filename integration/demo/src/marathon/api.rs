//! The answers of the API, as functions of the model.

use serde_json::{Value, json};

use super::faults::Route;
use super::http::{Answer, Request};
use super::json::{self as shape, Embed};
use super::model::{App, Cluster, HostPort};
use super::selector;

/// What an answer depends upon beside the model.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// `host:port` of the leader.
    pub(super) leader: Option<&'a str>,
    /// `host:port` of the standby that the request came through.
    pub(super) via: Option<&'a str>,
    /// Whether the process that was asked leads.
    pub(super) elected: bool,
    /// URL scheme of the processes.
    pub(super) scheme: &'a str,
}

/// The answer to a request that no fault, no login and no role has answered before.
pub(super) fn answer(cluster: &Cluster, request: &Request, view: View<'_>) -> Answer {
    let answer = match Route::of(&request.path) {
        Route::Apps => apps(cluster, request),
        Route::App => one_app(cluster, &request.path),
        Route::AppTasks => app_tasks(cluster, &request.path),
        Route::AppVersions => app_versions(cluster, &request.path),
        Route::Tasks => tasks(cluster, request),
        Route::Deployments => json_answer(cluster, 200, &shape::deployments(cluster)),
        Route::Leader => match view.leader {
            Some(leader) => json_answer(cluster, 200, &json!({ "leader": leader })),
            None => message(cluster, 404, "There is no leader"),
        },
        Route::Info => json_answer(cluster, 200, &info(cluster, view)),
        Route::Ping => Answer::new(200, "text/plain;charset=utf-8", "pong\n"),
        Route::Pods if cluster.dialect.has_instances() => json_answer(cluster, 200, &json!([])),
        Route::Other if request.path.is_empty() || request.path == "/" => {
            Answer::new(302, "", "").with("Location", "/ui/")
        }
        // Streams are not answered here, and 0.8 has none.
        Route::Events | Route::Pods | Route::Login | Route::Other => {
            message(cluster, 404, "URI not found")
        }
    };
    common_headers(answer, cluster, view)
}

impl Cluster {
    /// The body of `GET /v2/apps?embed=apps.tasks`, without a server.
    pub fn apps_body(&self) -> Vec<u8> {
        let embed = Embed { tasks: true, deployments: true, counts: true, ..Embed::default() };
        let apps: Vec<Value> = self.apps.values().map(|app| shape::app(app, self, embed)).collect();
        json!({ "apps": apps }).to_string().into_bytes()
    }

    /// The body of `GET /v2/apps/{id}/versions/{version}`, without a server; `None` without it.
    pub fn version_body(&self, id: &str, version: &str) -> Option<Vec<u8>> {
        let found = self.versions(id).find(|(stamp, _)| stamp.to_string() == version)?;
        Some(shape::definition(found.1, self.dialect).to_string().into_bytes())
    }

    /// The body of `GET /v2/apps/{id}`, without a server; `None` without the app.
    pub fn app_body(&self, id: &str) -> Option<Vec<u8>> {
        let app = shape::app(self.apps.get(id)?, self, Embed::ONE_APP);
        Some(json!({ "app": app }).to_string().into_bytes())
    }
}

/// What a page or stream of this server carries beside its own headers.
pub(super) fn common_headers(mut answer: Answer, cluster: &Cluster, view: View<'_>) -> Answer {
    let dialect = cluster.dialect;
    let mut headers = Vec::new();
    let mut set = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
    if let Some(leader) = view.leader.filter(|_| dialect.names_leader()) {
        set("X-Marathon-Leader", &format!("{}://{leader}", view.scheme));
    }
    if let Some(via) = view.via.filter(|_| dialect.names_leader()) {
        set("X-Marathon-Via", &format!("1.1 {via}"));
    }
    if dialect.sends_browser_headers() {
        set("X-Frame-Options", "DENY");
        set("X-XSS-Protection", "1; mode=block");
    }
    set("Cache-Control", "no-cache, no-store, must-revalidate");
    set("Pragma", "no-cache");
    set("Expires", "0");
    headers.append(&mut answer.headers);
    headers.push(("Server".to_owned(), dialect.server().to_owned()));
    answer.headers = headers;
    answer
}

fn json_answer(cluster: &Cluster, status: u16, body: &Value) -> Answer {
    Answer::new(status, cluster.dialect.json_type(), body.to_string())
}

fn message(cluster: &Cluster, status: u16, text: &str) -> Answer {
    json_answer(cluster, status, &json!({ "message": text }))
}

fn apps(cluster: &Cluster, request: &Request) -> Answer {
    let embed = embed(cluster, request);
    let contains = |name: &str, value: &str| {
        request.parameter(name).next().is_none_or(|part| value.contains(part))
    };
    let mut found = Vec::new();
    for app in cluster.apps.values() {
        if !contains("id", &app.id) || !contains("cmd", &app.cmd) {
            continue;
        }
        if let Some(label) = request.parameter("label").next() {
            match selector::matches(label, &app.labels) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(reason) => return message(cluster, 400, &reason),
            }
        }
        found.push(shape::app(app, cluster, embed));
    }
    json_answer(cluster, 200, &json!({ "apps": found }))
}

/// What `embed` parameters ask for. Names that nobody knows are ignored.
fn embed(cluster: &Cluster, request: &Request) -> Embed {
    let names = request.parameter("embed");
    if !cluster.dialect.embeds_freely() {
        // Only the first one, and only in the long form.
        let mut names = names.take(1);
        return Embed {
            tasks: names.next().is_some_and(|name| matches!(name, "apps.tasks" | "apps.failures")),
            deployments: true,
            counts: true,
            ..Embed::default()
        };
    }
    let mut embed = Embed { deployments: true, counts: true, ..Embed::default() };
    for name in names {
        let plain = ["group.apps.", "apps.", "app."]
            .into_iter()
            .find_map(|prefix| name.strip_prefix(prefix))
            .unwrap_or(name);
        match plain {
            "tasks" => embed.tasks = true,
            "failures" => (embed.tasks, embed.last_failure) = (true, true),
            "lastTaskFailure" => embed.last_failure = true,
            "readiness" => embed.readiness = true,
            _ => {}
        }
    }
    embed
}

fn one_app(cluster: &Cluster, path: &str) -> Answer {
    let id = app_id(path);
    if let Some(group) = id.strip_suffix("/*") {
        let below = format!("{group}/");
        let apps = cluster.apps.values().filter(|app| app.id.starts_with(&below));
        let apps: Vec<Value> = apps.map(|app| shape::app(app, cluster, Embed::ONE_APP)).collect();
        return json_answer(cluster, 200, &json!({ "*": apps }));
    }
    match cluster.app_body(&id) {
        Some(body) => Answer::new(200, cluster.dialect.json_type(), body),
        None => no_app(cluster, &id),
    }
}

fn app_tasks(cluster: &Cluster, path: &str) -> Answer {
    let id = app_id(path.trim_end_matches('/').strip_suffix("/tasks").unwrap_or(path));
    match cluster.apps.get(&id) {
        Some(app) => {
            let tasks: Vec<Value> =
                app.tasks.iter().map(|task| shape::task(task, app, cluster, true)).collect();
            json_answer(cluster, 200, &json!({ "tasks": tasks }))
        }
        None => no_app(cluster, &id),
    }
}

/// `{"versions": […]}`, or one definition, which stands alone.
fn app_versions(cluster: &Cluster, path: &str) -> Answer {
    let path = path.trim_end_matches('/');
    let (id, version) = match path.rsplit_once("/versions/") {
        Some((id, version)) => (app_id(id), Some(version)),
        None => (app_id(path.strip_suffix("/versions").unwrap_or(path)), None),
    };
    let Some(version) = version else {
        let versions = cluster.versions(&id).map(|(stamp, _)| stamp.to_string());
        let versions: Vec<String> = versions.collect();
        return match versions.is_empty() {
            true => no_app(cluster, &id),
            false => json_answer(cluster, 200, &json!({ "versions": versions })),
        };
    };
    match cluster.version_body(&id, version) {
        Some(body) => Answer::new(200, cluster.dialect.json_type(), body),
        None => {
            let text = format!("App '{id}' does not exist in version {version}");
            message(cluster, 404, &text)
        }
    }
}

/// `/v2/apps//a/b` and `/v2/apps/a/b` mean the same.
fn app_id(path: &str) -> String {
    let id = path.strip_prefix("/v2/apps").unwrap_or(path);
    format!("/{}", id.trim_matches('/'))
}

fn no_app(cluster: &Cluster, id: &str) -> Answer {
    message(cluster, 404, &format!("App '{id}' does not exist"))
}

fn tasks(cluster: &Cluster, request: &Request) -> Answer {
    let asks_for_json = request.accepts("application/json");
    let asks_for_text = request.accepts("text/plain");
    let any = !asks_for_json && !asks_for_text;
    let text = asks_for_text && !asks_for_json || any && !cluster.dialect.prefers_json();
    if text && cluster.dialect.has_text_tasks() {
        let table: String = cluster.apps.values().map(endpoints).collect();
        return Answer::new(200, "text/plain", table);
    }
    let wanted: Vec<&str> =
        request.parameter("status").chain(request.parameter("status[]")).collect();
    let chosen = cluster.tasks().filter(|(_, task)| {
        use super::model::State::{Running, Staging};
        let status = match task.state {
            Running => "running",
            Staging => "staging",
            _ => "",
        };
        let asked = wanted.iter().any(|status| matches!(*status, "running" | "staging"));
        !asked || wanted.contains(&status)
    });
    let tasks: Vec<Value> =
        chosen.map(|(app, task)| shape::task(task, app, cluster, true)).collect();
    json_answer(cluster, 200, &json!({ "tasks": tasks }))
}

/// Lines of the plain-text table: app, service port, addresses of running tasks.
fn endpoints(app: &App) -> String {
    let running = || app.tasks.iter().filter(|task| task.state == super::model::State::Running);
    let mut lines = String::new();
    let mut line = |service: &str, hosts: Vec<String>| {
        lines.push_str(&format!("{}\t{service}\t{}\n", app.safe_id(), hosts.join("\t")));
    };
    if app.ports.is_empty() {
        line(" ", running().map(|task| task.place.host.clone()).collect());
    }
    let mapped = app.ports.iter().filter(|port| port.host != HostPort::None);
    for (index, port) in mapped.enumerate() {
        let hosts = running().filter_map(|task| {
            Some(format!("{}:{}", task.place.host, task.place.ports.get(index)?))
        });
        line(&port.service.to_string(), hosts.collect());
    }
    lines
}

fn info(cluster: &Cluster, view: View<'_>) -> Value {
    let mut info = json!({
        "name": "marathon",
        "version": cluster.dialect.version(),
        "buildref": "unknown",
        "elected": view.elected,
        "leader": view.leader,
        "frameworkId": "8fd3a1c4-1d3c-4a3e-9a53-0f1f7c1d2e5b-0000",
        "marathon_config": {
            "master": "zk://127.0.0.1:2181/mesos",
            "ha": true,
            "checkpoint": true,
            "hostname": "127.0.0.1",
            "local_port_min": 10000,
            "local_port_max": 20000,
            "features": [],
        },
        "zookeeper_config": {"zk": "zk://127.0.0.1:2181/marathon", "zk_timeout": 10000},
        "http_config": {"http_port": 8080, "https_port": 8443},
    });
    if !cluster.dialect.has_networks() {
        info["event_subscriber"] = Value::Null;
    }
    info
}
