//! An app: its definition and its tasks.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::dialect::Dialect;
use super::task::Task;
use super::time::Stamp;

/// How the tasks of an app are reached.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// At ports of the agent, which the task opens itself.
    #[default]
    Host,
    /// At ports of the agent, which lead into a bridged Docker container.
    Bridge,
    /// In a named network, with an address of the task's own.
    Container(String),
    /// With an address of its own and ports in `ipAddress.discovery`: Mesos CNI before 1.5.
    IpAddress,
}

impl Network {
    /// Whether the app runs in a Docker container with port mappings.
    pub(in crate::marathon) fn has_mappings(&self) -> bool {
        matches!(self, Self::Bridge | Self::Container(_))
    }

    /// Whether tasks have addresses of their own.
    pub(in crate::marathon) fn has_addresses(&self) -> bool {
        *self != Self::Host
    }
}

/// What an app wants as a port of the agent.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum HostPort {
    /// Any: written as 0.
    #[default]
    Any,
    /// That one.
    Fixed(u16),
    /// None: the key is absent, and so is the port in `task.ports`.
    None,
}

/// One port of an app.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Port {
    /// Port in the container, or in `discovery`; 0 is "as the host port".
    pub container: u16,
    /// Port of the agent.
    pub host: HostPort,
    /// Service port; 0 is filled in when the app is deployed.
    pub service: u16,
    /// Name, if it has one.
    pub name: Option<String>,
    /// `tcp`, `udp` or `udp,tcp`.
    pub protocol: String,
    /// Labels of the port.
    pub labels: BTreeMap<String, String>,
    /// Networks that the mapping is for.
    pub network_names: Vec<String>,
}

impl Default for Port {
    fn default() -> Self {
        Self {
            container: 8080,
            host: HostPort::Any,
            service: 0,
            name: None,
            protocol: "tcp".to_owned(),
            labels: BTreeMap::new(),
            network_names: Vec::new(),
        }
    }
}

impl Port {
    /// A TCP port, which a container has as `container`.
    pub fn tcp(container: u16) -> Self {
        Self { container, ..Self::default() }
    }

    /// Gives it a name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Takes its host port away: it is reached at the address of the container only.
    #[must_use]
    pub fn unmapped(mut self) -> Self {
        self.host = HostPort::None;
        self
    }

    /// Asks for that port of the agent.
    #[must_use]
    pub fn at(mut self, host: u16) -> Self {
        self.host = HostPort::Fixed(host);
        self
    }

    /// Makes it `udp` or `udp,tcp`.
    #[must_use]
    pub fn protocol(mut self, protocol: &str) -> Self {
        protocol.clone_into(&mut self.protocol);
        self
    }
}

/// Who probes, and how.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the names of Marathon")]
pub enum Protocol {
    Http,
    Https,
    Tcp,
    Command,
    MesosHttp,
    MesosHttps,
    MesosTcp,
}

/// A health check of an app.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    /// Who probes, and how.
    pub protocol: Protocol,
    /// Path of an HTTP check.
    pub path: String,
    /// Which port is probed; `None` leaves the key away.
    pub port_index: Option<usize>,
    /// Failed probes until the task is killed.
    pub max_consecutive_failures: u32,
}

impl Check {
    /// An HTTP check of the first port.
    pub fn http(path: &str) -> Self {
        Self {
            protocol: Protocol::Http,
            path: path.to_owned(),
            port_index: Some(0),
            max_consecutive_failures: 3,
        }
    }

    /// A check by another protocol.
    pub fn by(protocol: Protocol) -> Self {
        Self { protocol, ..Self::http("/") }
    }
}

/// Keys to be set or removed in a JSON object after it was made: for what the model does not know,
/// and for nonsense.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Overlay(BTreeMap<String, Option<Value>>);

impl Overlay {
    /// Sets a key, also to `null`.
    pub fn set(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), Some(value));
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) {
        self.0.insert(key.to_owned(), None);
    }

    pub(in crate::marathon) fn apply(&self, object: &mut Map<String, Value>) {
        for (key, value) in &self.0 {
            match value {
                Some(value) => object.insert(key.clone(), value.clone()),
                None => object.remove(key),
            };
        }
    }
}

/// An app with its tasks.
#[derive(Clone, Debug, Default)]
pub struct App {
    /// Absolute path, e.g. `/shop/web`.
    pub id: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// How many tasks are wanted.
    pub instances: usize,
    /// How its tasks are reached.
    pub network: Network,
    /// Its ports, in order.
    pub ports: Vec<Port>,
    /// Its health checks, in order.
    pub checks: Vec<Check>,
    /// Whether it has a readiness check.
    pub readiness: bool,
    /// `cmd`.
    pub cmd: String,
    /// When the definition last changed.
    pub version: Stamp,
    /// When only the number of instances last changed.
    pub last_scaling: Stamp,
    /// When anything else last changed.
    pub last_config_change: Stamp,
    /// Its tasks, in the order of launching, those of older versions included.
    pub tasks: Vec<Task>,
    /// Why a task failed last, as JSON.
    pub last_failure: Option<Value>,
    /// Changes to the JSON of the app.
    pub overlay: Overlay,
}

impl App {
    /// How many ports of an agent each task gets.
    pub(in crate::marathon) fn host_ports(&self) -> usize {
        self.ports.iter().filter(|port| port.host != HostPort::None).count()
    }

    /// The app's id as ids of tasks begin with it.
    pub(in crate::marathon) fn safe_id(&self) -> String {
        self.id.trim_start_matches('/').replace('/', "_")
    }

    /// Why no Marathon of this dialect would take the definition.
    pub(in crate::marathon) fn validate(&self, dialect: Dialect) -> Result<(), String> {
        let id = &self.id;
        let legal = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-')
        };
        let segments = id.strip_prefix('/').unwrap_or_default().split('/');
        if !segments.clone().all(|part| !part.is_empty() && part.bytes().all(legal)) {
            return Err(format!(
                "app id {id:?} is no absolute path of lower-case letters, digits, '.' and '-'"
            ));
        }
        let needs = |feature: bool, what: &str| {
            if feature { Ok(()) } else { Err(format!("{id}: Marathon {dialect} has no {what}")) }
        };
        match &self.network {
            Network::Host | Network::Bridge => {}
            Network::Container(_) => needs(dialect.has_ip_per_task(), "container networks")?,
            Network::IpAddress => {
                needs(dialect.has_ip_per_task() && !dialect.has_networks(), "ipAddress")?;
            }
        }
        if self.network == Network::Host
            && self.ports.iter().any(|port| port.host == HostPort::None)
        {
            return Err(format!("{id}: in host mode every port is a host port"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_refused_that_the_dialect_has_no_words_for() {
        let app = |id: &str, network: Network| App { id: id.to_owned(), network, ..App::default() };
        let cases = [
            (app("/a/b-c.d", Network::Host), Dialect::V0_8_1, true),
            (app("/a", Network::Bridge), Dialect::V0_8_1, true),
            (app("a", Network::Host), Dialect::V1_9, false),
            (app("/a//b", Network::Host), Dialect::V1_9, false),
            (app("/A", Network::Host), Dialect::V1_9, false),
            (app("/a", Network::Container("n".to_owned())), Dialect::V0_11, false),
            (app("/a", Network::Container("n".to_owned())), Dialect::V1_3, true),
            (app("/a", Network::IpAddress), Dialect::V1_4, true),
            (app("/a", Network::IpAddress), Dialect::V1_5, false),
        ];
        for (app, dialect, taken) in cases {
            assert_eq!(app.validate(dialect).is_ok(), taken, "{app:?} in {dialect}");
        }
    }
}
