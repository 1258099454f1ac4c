//! The fake Marathon keeps to what is known of the real one: routes, headers, shapes and roles.

use std::collections::BTreeSet;

use flate2::read::GzDecoder;
use integration::client::{Client, Response, get};
use integration::marathon::{
    Check, Dialect, Health, Marathon, Network, Overlay, Place, Port, State,
};
use integration::wire::Framing;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

fn ask(marathon: &Marathon, target: &str) -> Response {
    get(marathon.addr(), "marathon.test", target)
}

fn read(marathon: &Marathon, target: &str) -> Value {
    let response = ask(marathon, target);
    assert_eq!(response.status(), 200, "{target}: {}", response.text());
    serde_json::from_str(&response.text()).expect("JSON")
}

fn first_app(marathon: &Marathon) -> Value {
    read(marathon, "/v2/apps?embed=apps.tasks")["apps"][0].clone()
}

fn first_task(marathon: &Marathon) -> Value {
    first_app(marathon)["tasks"][0].clone()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn answers_carry_the_headers_of_their_version() {
    for (dialect, kind, leader, frame) in [
        (Dialect::V0_8_2, "application/json", false, false),
        (Dialect::V0_9, "application/json", true, false),
        (Dialect::V0_11, "application/json; qs=2", true, false),
        (Dialect::V1_6, "application/json; qs=2", true, false),
        (Dialect::V1_9, "application/json", true, true),
    ] {
        let marathon = Marathon::start(dialect);
        let response = ask(&marathon, "/v2/apps");
        assert_eq!(response.text(), r#"{"apps":[]}"#);
        assert_eq!(response.framing, Framing::Chunked);
        assert_eq!(response.header("content-type"), Some(kind), "{dialect}");
        assert_eq!(response.header("cache-control"), Some("no-cache, no-store, must-revalidate"));
        let own = marathon.origin();
        assert_eq!(response.header("x-marathon-leader"), leader.then_some(&*own), "{dialect}");
        assert_eq!(response.head.has("x-frame-options"), frame, "{dialect}");
    }
}

#[test]
fn answers_are_compressed_for_those_who_ask() {
    let marathon = Marathon::start(Dialect::V1_9);
    marathon.app("/a").running(3);
    let mut client = Client::connect(marathon.addr());
    let response = client.get_with("m", "/v2/apps", "Accept-Encoding: br, gzip\r\n");
    assert_eq!(response.header("content-encoding"), Some("gzip"));
    let apps: Value = serde_json::from_reader(GzDecoder::new(&*response.body.data)).unwrap();
    assert_eq!(apps["apps"][0]["id"], "/a");
    assert!(!client.get("m", "/v2/apps").head.has("content-encoding"));
}

/// Only what was asked for is embedded, and 0.8 understands one word only.
#[test]
fn tasks_are_there_when_they_are_asked_for() {
    for dialect in Dialect::ALL {
        let marathon = Marathon::start(dialect);
        marathon.app("/a/b").running(1);
        let has_tasks = |query: &str| {
            let apps = read(&marathon, &format!("/v2/apps{query}"));
            keys(&apps["apps"][0]).contains("tasks")
        };
        assert!(!has_tasks(""), "{dialect}");
        assert!(has_tasks("?embed=apps.tasks"), "{dialect}");
        let modern = dialect >= Dialect::V0_9;
        assert_eq!(has_tasks("?embed=tasks"), modern, "{dialect}");
        assert_eq!(has_tasks("?embed=apps.deployments&embed=apps.tasks"), modern, "{dialect}");
        for path in ["/v2/apps//a/b", "/v2/apps/a/b"] {
            assert_eq!(read(&marathon, path)["app"]["tasks"].as_array().unwrap().len(), 1);
        }
        assert_eq!(read(&marathon, "/v2/apps/a/b/tasks")["tasks"][0]["appId"], "/a/b");
        assert_eq!(read(&marathon, "/v2/apps/a/*")["*"][0]["id"], "/a/b");
    }
}

#[test]
fn lists_are_filtered_by_id_command_and_label() {
    let marathon = Marathon::start(Dialect::V1_5);
    marathon.app("/shop/web").label("hipacheFrontend", "a.test").running(1);
    marathon.app("/shop/db").running(1);
    for (query, ids) in [
        ("", vec!["/shop/db", "/shop/web"]),
        ("?id=web", vec!["/shop/web"]),
        ("?cmd=nothing", vec![]),
        ("?label=hipacheFrontend", vec!["/shop/web"]),
        ("?label=hipacheFrontend%3D%3Da.test", vec!["/shop/web"]),
        ("?label=hipacheFrontend!%3Da.test", vec![]),
    ] {
        let apps = read(&marathon, &format!("/v2/apps{query}"));
        let found: Vec<_> = apps["apps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|app| app["id"].as_str().unwrap())
            .collect();
        assert_eq!(found, ids, "{query}");
    }
    assert_eq!(ask(&marathon, "/v2/apps?label=a+b").status(), 400);
}

/// Keys of a running task with one check that has been probed, beside those that all have.
#[test]
fn tasks_have_the_keys_of_their_version() {
    let always = ["id", "appId", "host", "ports", "stagedAt", "startedAt", "version"];
    let old: &[&str] = &["healthCheckResults"];
    let lists = ["ipAddresses", "servicePorts", "healthCheckResults", "localVolumes"];
    let v1_6 = [&["slaveId", "state", "region", "zone"][..], &lists].concat();
    let v1_9 = [&v1_6[..], &["role"]].concat();
    for (dialect, more) in [
        (Dialect::V0_8_1, old),
        (Dialect::V0_8_2, old),
        (Dialect::V0_10, old),
        (Dialect::V0_11, &["slaveId", "healthCheckResults"]),
        (Dialect::V1_1_1, &["slaveId", "healthCheckResults"]),
        (Dialect::V1_3, &["slaveId", "healthCheckResults", "state"]),
        (Dialect::V1_5, &["slaveId", "healthCheckResults", "state"]),
        (Dialect::V1_6, &v1_6),
        (Dialect::V1_9, &v1_9),
    ] {
        let marathon = Marathon::start(dialect);
        marathon.app("/a").check(Check::http("/")).running(1);
        let expected: BTreeSet<_> = always.iter().chain(more).copied().collect();
        assert_eq!(keys(&first_task(&marathon)), expected, "{dialect}");
        let alone = read(&marathon, "/v2/apps/a/tasks")["tasks"][0].clone();
        assert_eq!(alone["servicePorts"], json!([10_000]), "{dialect}");
    }
}

/// What is missing, `null` or empty before the first probe.
#[test]
fn a_task_without_results_says_so_in_the_way_of_its_version() {
    for (dialect, results) in [
        (Dialect::V0_8_1, Some(json!([null]))),
        (Dialect::V0_8_2, None),
        (Dialect::V1_5, None),
        (Dialect::V1_6, Some(json!([]))),
        (Dialect::V1_9, Some(json!([]))),
    ] {
        let marathon = Marathon::start(dialect);
        let app = marathon.app("/a").check(Check::http("/")).create(1);
        let task = app.launch(("h", 1));
        let started = first_task(&marathon).get("startedAt").cloned();
        assert_eq!(started, (dialect < Dialect::V1_6).then_some(Value::Null), "{dialect}");
        task.run();
        let shown = first_task(&marathon);
        assert_eq!(shown.get("healthCheckResults"), results.as_ref(), "{dialect}");
        assert!(shown["startedAt"].is_string());

        task.probe(Health::Starting);
        let grace = first_task(&marathon)["healthCheckResults"][0].clone();
        assert_eq!((&grace["alive"], &grace["consecutiveFailures"]), (&json!(false), &json!(0)));
        assert!(grace["lastFailure"].is_null());
        assert_eq!(grace.get("lastFailure").is_some(), dialect < Dialect::V1_6, "{dialect}");
        assert_eq!(grace.get("instanceId").is_some(), dialect >= Dialect::V1_4, "{dialect}");
    }
}

#[test]
fn an_agent_is_lost_and_comes_back() {
    for (dialect, lost, inactive) in [
        (Dialect::V1_3, "TASK_LOST", Some(json!([7]))),
        (Dialect::V1_5, "TASK_UNREACHABLE", None),
        (Dialect::V1_9, "TASK_UNREACHABLE", Some(json!([]))),
    ] {
        let marathon = Marathon::start(dialect);
        let app = marathon.app("/a").running_at([("agent", 7)]);
        let id = first_task(&marathon)["id"].clone();
        marathon.lose_agent("agent");
        let task = first_task(&marathon);
        assert_eq!((&task["state"], &task["ports"]), (&json!(lost), &json!([7])), "{dialect}");
        marathon.give_agent_up("agent");
        let task = first_task(&marathon);
        assert_eq!((&task["state"], task.get("ports")), (&json!(lost), inactive.as_ref()));
        marathon.return_agent("agent");
        let task = first_task(&marathon);
        assert_eq!((&task["id"], &task["state"]), (&id, &json!("TASK_RUNNING")));
        marathon.lose_agent("agent");
        app.tasks()[0].forget();
        assert_eq!(first_app(&marathon)["tasks"], json!([]));
    }
}

#[test]
fn ports_are_where_the_version_writes_them() {
    let mappings = |dialect, network: Network| {
        let marathon = Marathon::start(dialect);
        marathon
            .app("/a")
            .network(network)
            .ports([Port::tcp(80).named("web"), Port::tcp(81).unmapped()])
            .running_at([Place::new("h", vec![31_001]).with_address("172.17.0.2")]);
        first_app(&marathon)
    };
    let app = mappings(Dialect::V1_3, Network::Container("net".to_owned()));
    assert_eq!(app["container"]["docker"]["network"], "USER");
    assert_eq!(app["ipAddress"]["networkName"], "net");
    let ports = &app["container"]["docker"]["portMappings"];
    assert_eq!((&ports[0]["hostPort"], ports[1].get("hostPort")), (&json!(0), None));
    assert!(!keys(&app).contains("ports") && !keys(&app).contains("portDefinitions"));
    assert_eq!(app["tasks"][0]["ipAddresses"][0]["protocol"], "IPv4");

    let app = mappings(Dialect::V1_9, Network::Container("net".to_owned()));
    assert_eq!(app["networks"], json!([{"mode": "container", "name": "net"}]));
    assert_eq!(app["container"]["portMappings"][0]["name"], "web");
    assert_eq!(app["container"]["docker"].get("portMappings"), None);

    let app = mappings(Dialect::V0_8_2, Network::Bridge);
    assert_eq!(app["container"]["docker"]["portMappings"][1]["hostPort"], 0);
    assert_eq!(app["ports"], json!([10_000, 10_001]));

    let app = mappings(Dialect::V1_4, Network::IpAddress);
    assert_eq!(app["ipAddress"]["discovery"]["ports"][1]["number"], 81);

    let host = |dialect| {
        let marathon = Marathon::start(dialect);
        marathon.app("/a").ports([Port::default()]).running(1);
        first_app(&marathon)
    };
    assert_eq!(host(Dialect::V0_11).get("portDefinitions"), None);
    assert_eq!(host(Dialect::V1_4)["portDefinitions"][0]["port"], 10_000);
    let app = host(Dialect::V1_5);
    assert_eq!((app.get("ports"), &app["portDefinitions"][0]["port"]), (None, &json!(10_000)));
    assert_eq!((app.get("healthChecks"), &app["labels"]), (None, &json!({})));
}

/// Anything can be made of an app or a task.
#[test]
fn nonsense_is_said_when_it_is_wanted() {
    let marathon = Marathon::start(Dialect::V1_5);
    let app = marathon
        .app("/a")
        .json("container", Value::Null)
        .json("labels", json!(["no", "object"]))
        .without("versionInfo")
        .running(1);
    let mut overlay = Overlay::default();
    overlay.set("host", json!(""));
    overlay.remove("ports");
    app.tasks()[0].change(|task| task.overlay = overlay);
    let app = first_app(&marathon);
    assert_eq!((&app["container"], &app["labels"]), (&Value::Null, &json!(["no", "object"])));
    assert_eq!(app.get("versionInfo"), None);
    assert_eq!((&app["tasks"][0]["host"], app["tasks"][0].get("ports")), (&json!(""), None));
}

#[test]
fn the_table_of_tasks_is_what_old_versions_prefer() {
    let tasks = |dialect, accept: &str| {
        let marathon = Marathon::start(dialect);
        marathon.app("/shop/web").running_at([("h", 31_001), ("i", 31_002)]);
        Client::connect(marathon.addr()).get_with("m", "/v2/tasks", accept).text()
    };
    let table = "shop_web\t10000\th:31001\ti:31002\n";
    assert_eq!(tasks(Dialect::V0_10, ""), table);
    assert_eq!(tasks(Dialect::V0_10, "Accept: */*\r\n"), table);
    assert_eq!(tasks(Dialect::V1_5, "Accept: text/plain\r\n"), table);
    for (dialect, accept) in [
        (Dialect::V0_10, "Accept: application/json\r\n"),
        (Dialect::V0_11, ""),
        (Dialect::V1_9, "Accept: text/plain\r\n"),
    ] {
        let json: Value = serde_json::from_str(&tasks(dialect, accept)).unwrap();
        assert_eq!(json["tasks"][1]["servicePorts"], json!([10_000]), "{dialect}");
    }
}

#[test]
fn the_smaller_routes_answer() {
    let marathon = Marathon::start(Dialect::V1_9);
    let app = marathon.app("/a").create(1);
    let here = marathon.addr().to_string();
    assert_eq!(read(&marathon, "/v2/leader"), json!({ "leader": here }));
    assert_eq!(read(&marathon, "/v2/info")["elected"], true);
    assert_eq!(ask(&marathon, "/ping").text(), "pong\n");
    assert_eq!(ask(&marathon, "/").header("location"), Some("/ui/"));
    assert_eq!(read(&marathon, "/v2/pods/::status"), json!([]));
    assert_eq!(read(&marathon, "/v2/deployments")[0]["affectedApps"], json!(["/a"]));
    assert_eq!(read(&marathon, "/v2/apps/a")["app"]["deployments"].as_array().unwrap().len(), 1);
    app.finish();
    assert_eq!(read(&marathon, "/v2/deployments"), json!([]));
    for (path, message) in
        [("/v2/apps//b", "App '/b' does not exist"), ("/v2/nothing", "URI not found")]
    {
        let response = ask(&marathon, path);
        let body: Value = serde_json::from_str(&response.text()).unwrap();
        assert_eq!((response.status(), &body["message"]), (404, &json!(message)));
    }
}

#[test]
fn a_standby_forwards_and_says_so_when_it_cannot() {
    for (dialect, leaderless, refused) in [
        (Dialect::V0_8_2, 200, 200),
        (Dialect::V0_9, 503, 502),
        (Dialect::V1_6, 503, 502),
        (Dialect::V1_9, 502, 502),
    ] {
        let leader = Marathon::start(dialect);
        let standby = leader.join();
        leader.app("/a").check(Check::http("/")).running(1);
        let response = ask(&standby, "/v2/apps");
        assert!(response.text().contains("/a"));
        assert_eq!(response.head.has("x-marathon-via"), dialect >= Dialect::V0_9, "{dialect}");

        leader.kill();
        let response = ask(&standby, "/v2/apps");
        assert_eq!(response.status(), refused, "{dialect}");
        assert_eq!(response.text().is_empty(), dialect <= Dialect::V0_8_2, "{dialect}");

        leader.abdicate();
        assert_eq!(ask(&standby, "/v2/apps").status(), leaderless, "{dialect}");

        standby.elect();
        let results = |marathon| first_task(marathon)["healthCheckResults"].clone();
        assert_eq!(results(&standby)[0]["alive"], Value::Null, "results are lost");
        standby.probe_all();
        assert_eq!(results(&standby)[0]["alive"], true);

        leader.listen();
        assert!(ask(&leader, "/v2/apps").text().contains("/a"));
        standby.loading(true);
        let status = if dialect <= Dialect::V0_8_2 { 200 } else { 503 };
        assert_eq!(ask(&standby, "/ping").status(), status, "{dialect}");
    }
}

#[test]
fn leadership_can_be_given_up_by_request() {
    let marathon = Marathon::start(Dialect::V1_9);
    let mut client = Client::connect(marathon.addr());
    client.send("DELETE /v2/leader HTTP/1.1\r\nHost: m\r\n\r\n");
    assert_eq!(client.response().text(), r#"{"message":"Leadership abdicated"}"#);
    assert_eq!(client.get("m", "/v2/apps").status(), 502);
}

#[test]
fn task_ids_are_of_their_version_and_survive_an_upgrade() {
    for (dialect, form) in [(Dialect::V1_6, "a_b."), (Dialect::V1_9, "a_b.instance-")] {
        let marathon = Marathon::start(dialect);
        marathon.app("/a/b").running(1);
        let id = first_task(&marathon)["id"].as_str().unwrap().to_owned();
        assert!(id.starts_with(form), "{id}");
        assert_eq!(id.ends_with("._app.1"), dialect >= Dialect::V1_9, "{id}");
        marathon.upgrade(Dialect::V1_9);
        assert_eq!(first_task(&marathon)["id"], json!(id));
    }
}

#[test]
fn another_app_gets_the_port_of_a_lost_task() {
    let marathon = Marathon::start(Dialect::V1_9);
    let one = marathon.app("/one").running_at([("h", 31_001)]);
    let two = marathon.app("/two").create(1);
    one.tasks()[0].to(State::Failed);
    two.launch(("h", 31_001)).run();
    let tasks = read(&marathon, "/v2/tasks");
    assert_eq!(tasks["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(tasks["tasks"][0]["appId"], "/two");
    assert_eq!(read(&marathon, "/v2/apps/one")["app"]["lastTaskFailure"]["state"], "TASK_FAILED");
}

/// A demonstration has only HTTP.
#[test]
fn the_control_api_changes_what_is_shown() {
    let marathon = Marathon::builder(Dialect::V1_9).controlled().start();
    let mut client = Client::connect(marathon.addr());
    let mut post = |target: &str, body: Value| {
        let response = client.post("m", target, &body.to_string());
        let text = response.text();
        (response.status(), serde_json::from_str::<Value>(&text).unwrap())
    };
    let spec = json!({
        "id": "/web",
        "labels": {"hipacheFrontend": "www.test"},
        "checks": ["HTTP"],
        "network": "bridge",
        "ports": [{"container": 80, "name": "http"}],
        "tasks": ["127.0.0.1:9001", "127.0.0.1:9002"],
    });
    let (status, shown) = post("/_fake/apps", spec);
    assert_eq!((status, &shown["tasks"][1]["ports"]), (200, &json!([9002])));
    let first = shown["tasks"][0]["id"].clone();
    let (_, shown) = post("/_fake/task", json!({"id": first, "state": "killing"}));
    assert_eq!(shown["tasks"][0]["state"], "TASK_KILLING");
    let (_, shown) = post("/_fake/rollout", json!({"id": "/web", "tasks": ["127.0.0.1:9003"]}));
    assert_eq!(shown["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(shown["tasks"][0]["ports"], json!([9003]));
    let (_, shown) = post("/_fake/agent", json!({"host": "127.0.0.1", "state": "unreachable"}));
    assert_eq!(shown["tasks"][0]["state"], "TASK_UNREACHABLE");
    let (_, shown) = post("/_fake/scale", json!({"id": "/web", "instances": 3}));
    assert_eq!(shown["tasks"].as_array().unwrap().len(), 3);

    post("/_fake/fault", json!({"route": "/v2/apps", "status": 503}));
    assert_eq!(ask(&marathon, "/v2/apps").status(), 503);
    post("/_fake/fault", json!({"route": "/v2/apps"}));
    assert_eq!(first_app(&marathon)["labels"]["hipacheFrontend"], "www.test");
    post("/_fake/failover", json!(null));
    assert_eq!(first_task(&marathon)["healthCheckResults"], json!([]));
    post("/_fake/delete", json!({"id": "/web"}));
    assert_eq!(read(&marathon, "/v2/apps"), json!({"apps": []}));

    for (target, body) in [
        ("/_fake/apps", json!({"id": "no path"})),
        ("/_fake/apps", json!({"id": "/a", "tasks": ["no port"]})),
        ("/_fake/scale", json!({"id": "/unknown", "instances": 1})),
        ("/_fake/task", json!({"id": "unknown"})),
        ("/_fake/nothing", json!({})),
    ] {
        assert_eq!(post(target, body.clone()).0, 422, "{target} {body}");
    }
    let closed = Marathon::start(Dialect::V1_9);
    assert_eq!(ask(&closed, "/_fake/tasks").status(), 404, "tests have methods");
}

/// As large as the largest installations; what grows with the square would be seen here.
#[test]
fn large_clusters_are_shown_whole() {
    let marathon = Marathon::start(Dialect::V1_9);
    for app in 0..300 {
        marathon.app(&format!("/app-{app}")).check(Check::http("/")).running(10);
    }
    assert_eq!(read(&marathon, "/v2/tasks")["tasks"].as_array().unwrap().len(), 3000);
}
