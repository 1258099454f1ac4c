//! Where tasks listen.

use marathon_sync::document::parse;
use marathon_sync::rules::address::{AppPorts, PortRef};
use serde_json::{Value, json};
use shared::backend::Scheme;

use crate::world::{lines, look, task, with};

/// What the claimed port of the only task of `app` is, and why.
fn address(mut app: Value, task: Value, port: &PortRef) -> Result<String, String> {
    app["id"] = json!("/a");
    app["tasks"] = Value::Array(vec![task]);
    let answer = parse(json!({ "apps": [app] }).to_string().as_bytes()).expect("an answer");
    assert_eq!(answer.problems, []);
    let app = &answer.apps[0];
    let ports = AppPorts::of(app);
    ports.check(port)?;
    let task = &app.tasks.as_ref().expect("tasks")[0];
    let found = ports.address(task, port, Scheme::Http).map_err(|error| error.to_string())?;
    assert!(!found.how.to_string().is_empty());
    Ok(found.url)
}

#[test]
fn addresses_follow_marathons_own_rule() {
    let named = |name: &str| PortRef::Name(name.to_owned());
    let container = |mappings: Value| json!({ "portMappings": mappings });
    let bridge = |mappings: Value| json!({ "networks": [{ "mode": "container/bridge" }], "container": container(mappings) });
    let cni = |mappings: Value| json!({ "networks": [{ "mode": "container", "name": "dcos" }], "container": container(mappings) });
    let old_docker = |network: &str, mappings: Value| json!({ "container": { "docker": { "network": network, "portMappings": mappings } } });
    let discovery = json!({ "ipAddress": { "discovery": { "ports": [
        { "number": 80, "name": "web", "protocol": "tcp" }, { "number": 53, "name": "dns", "protocol": "udp" } ] } } });
    let at = |ports: Value, ips: Value| json!({ "id": "t", "host": "agent", "ports": ports, "ipAddresses": ips });
    let ip = || json!([{ "ipAddress": "9.0.0.2", "protocol": "IPv4" }]);
    let own = json!({ "containerPort": 80, "name": "web" });
    let mapped = json!({ "containerPort": 81, "hostPort": 0, "name": "admin" });
    let udp = json!({ "containerPort": 53, "hostPort": 0, "protocol": "udp" });
    let named_network = json!({ "containerPort": 80, "networkNames": ["b"] });
    for (what, app, task, port, expected) in [
        (
            "host mode by index",
            json!({ "portDefinitions": [{ "port": 10000 }, { "port": 10001 }] }),
            at(json!([1001, 1002]), json!([])),
            PortRef::Index(1),
            Ok("http://agent:1002"),
        ),
        (
            "host mode by name",
            json!({ "networks": [{ "mode": "host" }], "portDefinitions": [{}, { "name": "web" }] }),
            at(json!([1001, 1002]), json!([])),
            named("web"),
            Ok("http://agent:1002"),
        ),
        (
            "ports alone",
            json!({ "ports": [10000, 10001] }),
            at(json!([1001, 1002]), json!([])),
            PortRef::Index(1),
            Ok("http://agent:1002"),
        ),
        (
            "no definitions at all",
            json!({}),
            at(json!([1001]), json!([])),
            PortRef::Index(0),
            Ok("http://agent:1001"),
        ),
        (
            "a service port is no address",
            json!({ "portDefinitions": [{ "port": 10000 }] }),
            at(json!([]), ip()),
            PortRef::Index(0),
            Err("Marathon lists no host port for it (its ports[0] is missing)"),
        ),
        (
            "fewer ports than definitions",
            json!({ "portDefinitions": [{}, {}] }),
            at(json!([1001]), json!([])),
            PortRef::Index(1),
            Err("Marathon lists no host port for it (its ports[1] is missing)"),
        ),
        (
            "bridge, not the docker address",
            bridge(json!([mapped])),
            at(json!([1001]), ip()),
            PortRef::Index(0),
            Ok("http://agent:1001"),
        ),
        (
            "bridge without hostPort means any",
            bridge(json!([own])),
            at(json!([1001]), ip()),
            named("web"),
            Ok("http://agent:1001"),
        ),
        (
            "bridge up to 1.4",
            old_docker("BRIDGE", json!([mapped])),
            at(json!([1001]), ip()),
            PortRef::Index(0),
            Ok("http://agent:1001"),
        ),
        (
            "container without host port",
            cni(json!([own])),
            at(json!([]), ip()),
            PortRef::Index(0),
            Ok("http://9.0.0.2:80"),
        ),
        (
            "mappings without host port do not count",
            cni(json!([own, mapped])),
            at(json!([1001]), ip()),
            named("admin"),
            Ok("http://agent:1001"),
        ),
        (
            "udp takes a host port as well",
            cni(json!([udp, mapped])),
            at(json!([1001, 1002]), ip()),
            named("admin"),
            Ok("http://agent:1002"),
        ),
        (
            "user network up to 1.4",
            old_docker("USER", json!([own])),
            at(json!([]), ip()),
            PortRef::Index(0),
            Ok("http://9.0.0.2:80"),
        ),
        (
            "container port 0 is the host port",
            cni(json!([{ "containerPort": 0, "hostPort": 0 }])),
            at(json!([1001]), ip()),
            PortRef::Index(0),
            Ok("http://agent:1001"),
        ),
        (
            "container port 0 and no host port",
            cni(json!([{ "containerPort": 0 }])),
            at(json!([]), ip()),
            PortRef::Index(0),
            Err("its port mapping has neither a host port nor a container port"),
        ),
        (
            "no address yet",
            cni(json!([own])),
            at(json!([]), json!([])),
            PortRef::Index(0),
            Err("it has no address of its own yet"),
        ),
        (
            "empty entries before the address",
            cni(json!([own])),
            at(json!([]), json!([null, {}, { "ipAddress": "" }, { "ipAddress": "9.0.0.2" }])),
            PortRef::Index(0),
            Ok("http://9.0.0.2:80"),
        ),
        (
            "IPv6 in brackets",
            cni(json!([own])),
            at(json!([]), json!([{ "ipAddress": "FD00::2" }])),
            PortRef::Index(0),
            Ok("http://[fd00::2]:80"),
        ),
        (
            "one of two networks",
            with(
                cni(json!([named_network])),
                json!({ "networks": [
            { "mode": "container", "name": "a" }, { "mode": "container", "name": "b" }] }),
            ),
            at(json!([]), ip()),
            PortRef::Index(0),
            Ok("http://9.0.0.2:80"),
        ),
        (
            "discovery up to 1.4",
            discovery.clone(),
            at(json!([]), ip()),
            named("web"),
            Ok("http://9.0.0.2:80"),
        ),
        (
            "udp cannot be routed",
            discovery,
            at(json!([]), ip()),
            named("dns"),
            Err("port `dns` speaks UDP, which cannot be routed"),
        ),
        (
            "a port that is not there",
            bridge(json!([mapped])),
            at(json!([1001]), ip()),
            named("x"),
            Err("the app has no port `x`; it has 1, named admin"),
        ),
        (
            "a container port by number",
            cni(json!([mapped, own])),
            at(json!([1001]), ip()),
            PortRef::Number(80),
            Ok("http://9.0.0.2:80"),
        ),
        (
            "a host port by number",
            json!({}),
            at(json!([1001, 1002]), ip()),
            PortRef::Number(1002),
            Ok("http://agent:1002"),
        ),
        (
            "a host that is none",
            json!({}),
            json!({ "id": "t", "host": "a b", "ports": [1] }),
            PortRef::Index(0),
            Err("`a b` is neither an address nor a host name"),
        ),
    ] {
        let found = address(app, task, &port);
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{what}");
    }
}

#[test]
fn an_ambiguous_network_is_said() {
    let desired = look(&json!([{ "id": "/a", "labels": { "hipacheFrontend": "a.test" },
        "networks": [{ "mode": "container", "name": "x" }, { "mode": "container", "name": "y" }],
        "container": { "portMappings": [{ "containerPort": 80 }] },
        "tasks": [with(task(1), json!({ "ports": [], "ipAddresses": [{ "ipAddress": "9.0.0.1" }] }))] }]));
    assert_eq!(lines(&desired.plan), ["a.test = http://9.0.0.1:80"]);
    let found = desired.apps["/a"].tasks[0].addresses[0].found.as_ref().unwrap();
    assert!(found.how.to_string().contains("2 networks"), "{}", found.how);
}
