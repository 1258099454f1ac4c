//! Definitions of apps: the old form with `ports` and `container.docker`, and the one from 1.5 on
//! with `networks`, in which nothing is `null` and little is empty.

use serde_json::{Map, Value, json};

use super::super::dialect::Dialect;
use super::super::model::{App, Check, HostPort, Network, Port, Protocol};

/// An app without anything embedded.
pub(in crate::marathon) fn definition(app: &App, dialect: Dialect) -> Value {
    let mut object = common(app, dialect);
    if dialect.has_networks() {
        extend(&mut object, new_form(app, dialect));
    } else {
        extend(&mut object, old_form(app, dialect));
    }
    app.overlay.apply(&mut object);
    Value::Object(object)
}

/// One element of `healthChecks`.
pub(in crate::marathon) fn check(check: &Check, dialect: Dialect) -> Value {
    let protocol = match check.protocol {
        Protocol::Http => "HTTP",
        Protocol::Https => "HTTPS",
        Protocol::Tcp => "TCP",
        Protocol::Command => "COMMAND",
        Protocol::MesosHttp => "MESOS_HTTP",
        Protocol::MesosHttps => "MESOS_HTTPS",
        Protocol::MesosTcp => "MESOS_TCP",
    };
    let command = check.protocol == Protocol::Command;
    let http = !command && !matches!(check.protocol, Protocol::Tcp | Protocol::MesosTcp);
    let mut object = Map::new();
    let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);
    set("protocol", protocol.into());
    set("gracePeriodSeconds", 300.into());
    set("intervalSeconds", 60.into());
    set("timeoutSeconds", 20.into());
    set("maxConsecutiveFailures", check.max_consecutive_failures.into());
    if command {
        set("command", json!({"value": "true"}));
    } else if !dialect.has_ip_per_task() {
        set("command", Value::Null);
    }
    if http {
        set("path", check.path.clone().into());
        set("ignoreHttp1xx", false.into());
    }
    if let Some(index) = check.port_index.filter(|_| !command) {
        set("portIndex", index.into());
    }
    if dialect.has_full_lists() {
        set("delaySeconds", 15.into());
        if http {
            set("ipProtocol", "IPv4".into());
        }
    }
    Value::Object(object)
}

fn extend(object: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        object.extend(more);
    }
}

/// What all versions write alike.
fn common(app: &App, dialect: Dialect) -> Map<String, Value> {
    let mut object = Map::new();
    extend(
        &mut object,
        json!({
            "id": app.id,
            "cmd": app.cmd,
            "instances": app.instances,
            "cpus": 0.1,
            "mem": 128.0,
            "disk": 0.0,
            "executor": "",
            "backoffSeconds": 1,
            "backoffFactor": 1.15,
            "maxLaunchDelaySeconds": 3600,
            "upgradeStrategy": {"minimumHealthCapacity": 1.0, "maximumOverCapacity": 1.0},
            "labels": app.labels,
            "version": app.version.to_string(),
        }),
    );
    if dialect.has_slave_id() {
        let info = json!({
            "lastScalingAt": app.last_scaling.to_string(),
            "lastConfigChangeAt": app.last_config_change.to_string(),
        });
        object.insert("versionInfo".to_owned(), info);
    }
    if dialect >= Dialect::V1_3 {
        object.insert("gpus".to_owned(), 0.into());
    }
    if dialect.has_unreachable() {
        let seconds = |inactive: u32, expunge: u32| json!({"inactiveAfterSeconds": inactive, "expungeAfterSeconds": expunge});
        let strategy = if dialect >= Dialect::V1_6 { seconds(0, 0) } else { seconds(300, 600) };
        object.insert("unreachableStrategy".to_owned(), strategy);
        object.insert("killSelection".to_owned(), "YOUNGEST_FIRST".into());
    }
    if dialect.has_role() {
        object.insert("role".to_owned(), "*".into());
    }
    object
}

fn checks(app: &App, dialect: Dialect) -> Vec<Value> {
    app.checks.iter().map(|one| check(one, dialect)).collect()
}

fn readiness_check() -> Value {
    json!({
        "name": "ready",
        "protocol": "HTTP",
        "path": "/ready",
        "portName": "http-api",
        "intervalSeconds": 30,
        "timeoutSeconds": 10,
        "httpStatusCodesForReady": [200],
        "preserveLastResponse": true,
    })
}

// === up to 1.4 ===

fn old_form(app: &App, dialect: Dialect) -> Value {
    let ports: Vec<u16> = app.ports.iter().map(|port| port.service).collect();
    let mut form = json!({
        "args": null,
        "user": null,
        "env": {},
        "constraints": [],
        "uris": [],
        "storeUrls": [],
        "ports": ports,
        "requirePorts": false,
        "container": old_container(app, dialect),
        "healthChecks": checks(app, dialect),
        "dependencies": [],
    });
    if dialect.has_slave_id() {
        form["acceptedResourceRoles"] = Value::Null;
    }
    if dialect.has_ip_per_task() {
        form["fetch"] = json!([]);
        form["residency"] = Value::Null;
        form["ipAddress"] = ip_address(app);
        form["portDefinitions"] =
            app.ports.iter().map(|port| port_definition(port, port.service)).collect();
        form["readinessChecks"] =
            if app.readiness { json!([readiness_check()]) } else { json!([]) };
    }
    if dialect >= Dialect::V1_3 {
        form["secrets"] = json!({});
        form["taskKillGracePeriodSeconds"] = Value::Null;
        if form["ipAddress"].is_object()
            && let Value::Object(form) = &mut form
        {
            for key in ["ports", "portDefinitions", "requirePorts"] {
                form.remove(key);
            }
        }
    }
    form
}

fn old_container(app: &App, dialect: Dialect) -> Value {
    if !app.network.has_mappings() {
        return Value::Null;
    }
    let network = if app.network == Network::Bridge { "BRIDGE" } else { "USER" };
    let mappings: Vec<Value> = app.ports.iter().map(|port| mapping(port, dialect)).collect();
    json!({
        "type": "DOCKER",
        "volumes": [],
        "docker": {
            "image": "example/app",
            "network": network,
            "portMappings": mappings,
            "privileged": false,
            "parameters": [],
            "forcePullImage": false,
        },
    })
}

fn ip_address(app: &App) -> Value {
    let ports: Vec<Value> = match app.network {
        Network::Host | Network::Bridge => return Value::Null,
        Network::Container(_) => Vec::new(),
        Network::IpAddress => app.ports.iter().map(discovery_port).collect(),
    };
    let name = match &app.network {
        Network::Container(name) => Value::from(name.clone()),
        Network::Host | Network::Bridge | Network::IpAddress => Value::Null,
    };
    json!({"groups": [], "labels": {}, "discovery": {"ports": ports}, "networkName": name})
}

fn discovery_port(port: &Port) -> Value {
    let name = port.name.clone().unwrap_or_default();
    json!({"number": port.container, "name": name, "protocol": port.protocol})
}

// === from 1.5 on ===

fn new_form(app: &App, dialect: Dialect) -> Value {
    let network = match &app.network {
        Network::Host | Network::IpAddress => json!({"mode": "host"}),
        Network::Bridge => json!({"mode": "container/bridge"}),
        Network::Container(name) => json!({"mode": "container", "name": name}),
    };
    let mut form = json!({"networks": [network], "requirePorts": false});
    if app.network.has_mappings() {
        let mappings: Vec<Value> = app.ports.iter().map(|port| mapping(port, dialect)).collect();
        form["container"] = json!({
            "type": "DOCKER",
            "docker": {
                "forcePullImage": false,
                "image": "example/app",
                "parameters": [],
                "privileged": false,
            },
            "volumes": [],
            "portMappings": mappings,
        });
    } else {
        form["portDefinitions"] =
            app.ports.iter().map(|port| port_definition(port, port.service)).collect();
    }
    if !app.checks.is_empty() {
        form["healthChecks"] = checks(app, dialect).into();
    }
    if app.readiness {
        form["readinessChecks"] = json!([readiness_check()]);
    }
    form
}

// === ports ===

fn port_definition(port: &Port, service: u16) -> Value {
    let mut value = json!({"port": service, "protocol": port.protocol, "labels": port.labels});
    if let Some(name) = &port.name {
        value["name"] = name.clone().into();
    }
    value
}

fn mapping(port: &Port, dialect: Dialect) -> Value {
    let mut value = json!({
        "containerPort": port.container,
        "servicePort": port.service,
        "protocol": port.protocol,
    });
    match port.host {
        HostPort::Any => value["hostPort"] = 0.into(),
        HostPort::Fixed(host) => value["hostPort"] = host.into(),
        // A host port was no choice before there were other networks.
        HostPort::None if !dialect.has_ip_per_task() => value["hostPort"] = 0.into(),
        HostPort::None => {}
    }
    if let Some(name) = &port.name {
        value["name"] = name.clone().into();
    }
    if dialect.has_ip_per_task() {
        value["labels"] = json!(port.labels);
    }
    if dialect.has_networks() && !port.network_names.is_empty() {
        value["networkNames"] = json!(port.network_names);
    }
    value
}
