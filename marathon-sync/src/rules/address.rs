//! Where a task listens, by Marathon's own rule (`NetworkInfo.scala`): an agent's address and host
//! port wherever there is a host port, the task's own address and container port where there is
//! none. A *service port* is never an address.

use std::fmt;

use shared::backend::{BackendHost, Origin, Scheme};

use crate::document::{App, PortMapping, Task};

/// One port of an app, in the order that service ports, labels and indexes count in.
#[derive(Clone, Debug)]
pub struct AppPort<'a> {
    /// Name, when it has one.
    pub name: Option<&'a str>,
    /// Whether it speaks UDP alone.
    pub is_udp: bool,
    /// Port inside the container; 0 where there is none of its own.
    pub container_port: u16,
    /// Labels of the port itself.
    pub labels: Option<&'a std::collections::BTreeMap<String, String>>,
    place: Place,
}

/// Where to look for a port's address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// `ports[0]` of the task, at its agent. The flag: by a port mapping.
    Agent { position: usize, is_mapped: bool },
    /// The port at the task's own address. The number: of networks that may be meant.
    Own { port: u16, networks: usize },
}

/// Which port of an app is meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PortRef {
    /// By its place, from 0.
    Index(usize),
    /// By its name.
    Name(String),
    /// By its number inside the container, or the host port of a task.
    Number(u16),
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "port {index}"),
            Self::Name(name) => write!(f, "port `{name}`"),
            Self::Number(number) => write!(f, "port number {number}"),
        }
    }
}

/// The ports of an app.
#[derive(Clone, Debug)]
pub struct AppPorts<'a> {
    ports: Vec<AppPort<'a>>,
    /// Ports beyond the defined ones are looked for at the task: answers up to 0.15 and apps with
    /// `ports` alone define none.
    is_open: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Bridge,
    Container,
    Host,
}

fn mode(app: &App) -> Mode {
    let mut modes = app.networks.iter().map(|network| network.mode.as_deref());
    if !app.networks.is_empty() {
        // Marathon's own default of a network's mode is `container`.
        return modes
            .find_map(|mode| match mode {
                Some("host") => Some(Mode::Host),
                Some("container/bridge") => Some(Mode::Bridge),
                _ => None,
            })
            .unwrap_or(Mode::Container);
    }
    match app.docker_network.as_deref() {
        Some(network) if network.eq_ignore_ascii_case("BRIDGE") => Mode::Bridge,
        Some(network) if network.eq_ignore_ascii_case("HOST") => Mode::Host,
        Some(_) => Mode::Container,
        None if app.ip_address.is_some() => Mode::Container,
        None if !app.port_mappings.is_empty() => Mode::Bridge,
        None => Mode::Host,
    }
}

fn is_udp(protocol: Option<&str>) -> bool {
    protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("udp"))
}

impl<'a> AppPorts<'a> {
    /// The ports that `app` defines.
    pub fn of(app: &'a App) -> Self {
        match mode(app) {
            Mode::Host => Self::at_agent(app),
            Mode::Bridge if app.port_mappings.is_empty() => Self::at_agent(app),
            Mode::Bridge => Self::mapped(app, true),
            Mode::Container if app.port_mappings.is_empty() => Self::discovered(app),
            Mode::Container => Self::mapped(app, false),
        }
    }

    fn at_agent(app: &'a App) -> Self {
        let place = |position| Place::Agent { position, is_mapped: false };
        let defined = app.port_definitions.iter().enumerate().map(|(position, port)| AppPort {
            name: port.name.as_deref(),
            is_udp: is_udp(port.protocol.as_deref()),
            container_port: 0,
            labels: Some(&port.labels),
            place: place(position),
        });
        let counted = app.port_definitions.len()..app.service_ports.len();
        let counted = counted.map(|position| AppPort {
            name: None,
            is_udp: false,
            container_port: 0,
            labels: None,
            place: place(position),
        });
        let ports: Vec<_> = defined.chain(counted).collect();
        Self { is_open: ports.is_empty(), ports }
    }

    /// A task's `ports` hold one for each mapping that has a host port, and none for the others.
    fn mapped(app: &'a App, always_has_host_port: bool) -> Self {
        let mut position = 0;
        let ports = app.port_mappings.iter().map(|mapping| {
            // Up to 1.4 a missing host port meant "any" in bridge mode, and later versions fill it
            // in: the container's address is of no use outside the agent there.
            let place = if mapping.host_port.is_some() || always_has_host_port {
                position += 1;
                Place::Agent { position: position - 1, is_mapped: true }
            } else {
                let networks = networks(app, mapping);
                Place::Own { port: mapping.container_port, networks }
            };
            AppPort {
                name: mapping.name.as_deref(),
                is_udp: is_udp(mapping.protocol.as_deref()),
                container_port: mapping.container_port,
                labels: Some(&mapping.labels),
                place,
            }
        });
        Self { ports: ports.collect(), is_open: false }
    }

    fn discovered(app: &'a App) -> Self {
        let ports = app.ip_address.iter().flat_map(|address| &address.ports);
        let ports = ports.map(|port| AppPort {
            name: port.name.as_deref(),
            is_udp: is_udp(port.protocol.as_deref()),
            container_port: port.number,
            labels: None,
            place: Place::Own { port: port.number, networks: 1 },
        });
        Self { ports: ports.collect(), is_open: false }
    }

    /// All ports, in order.
    pub fn iter(&self) -> impl Iterator<Item = &AppPort<'a>> {
        self.ports.iter()
    }

    /// Checks that `port` can be meant seriously.
    ///
    /// # Errors
    ///
    /// Why no task of the app can have an HTTP address there.
    pub fn check(&self, port: &PortRef) -> Result<(), String> {
        match (self.find(port), port) {
            (Some(found), _) if found.is_udp => {
                Err(format!("{port} speaks UDP, which cannot be routed"))
            }
            (Some(_), _) => Ok(()),
            (None, PortRef::Index(_)) if self.is_open => Ok(()),
            // A host port is known by a task alone.
            (None, PortRef::Number(_)) => Ok(()),
            (None, _) => Err(format!("the app has no {port}; it has {}", self.describe())),
        }
    }

    /// Whether `other` has the same ports in the same order, each found in the same way.
    pub fn is_same_layout(&self, other: &AppPorts<'_>) -> bool {
        self.is_open == other.is_open
            && self.ports.len() == other.ports.len()
            && self.ports.iter().zip(&other.ports).all(|(one, another)| {
                (one.name, one.is_udp, one.container_port, one.place)
                    == (another.name, another.is_udp, another.container_port, another.place)
            })
    }

    /// Which port of these is what `port` means in `other`, if a name or a number inside the container
    /// says so without doubt. A position means something else wherever ports come, go or move.
    pub fn counterpart(&self, port: &PortRef, other: &AppPorts<'_>) -> Option<PortRef> {
        if self.is_same_layout(other) {
            return Some(port.clone());
        }
        let meant = other.find(port)?;
        let is_meant = |candidate: &&AppPort<'_>| match meant.name {
            Some(name) => candidate.name == Some(name),
            None => meant.container_port > 0 && candidate.container_port == meant.container_port,
        };
        let mut found = self.ports.iter().enumerate().filter(|(_, port)| is_meant(port));
        let (Some((index, candidate)), None) = (found.next(), found.next()) else { return None };
        (!candidate.is_udp).then_some(PortRef::Index(index))
    }

    fn find(&self, port: &PortRef) -> Option<&AppPort<'a>> {
        match port {
            PortRef::Index(index) => self.ports.get(*index),
            PortRef::Name(name) => self.ports.iter().find(|port| port.name == Some(name)),
            PortRef::Number(number) => {
                self.ports.iter().find(|port| port.container_port == *number && *number > 0)
            }
        }
    }

    fn describe(&self) -> String {
        let names: Vec<_> = self.ports.iter().filter_map(|port| port.name).collect();
        match (self.ports.len(), names.is_empty()) {
            (0, _) => "no ports".to_owned(),
            (1, true) => "1 port (index 0)".to_owned(),
            (count, true) => format!("{count} ports (indexes from 0), without names"),
            (count, false) => format!("{count}, named {}", names.join(", ")),
        }
    }

    /// Where a task listens for `port`.
    ///
    /// # Errors
    ///
    /// [`NoAddress`] says what is missing.
    pub fn address<'t>(
        &self,
        task: impl Into<Whereabouts<'t>>,
        port: &PortRef,
        scheme: Scheme,
    ) -> Result<Address, NoAddress> {
        let task = task.into();
        let place = match (self.find(port), port) {
            (Some(port), _) => port.place,
            (None, PortRef::Index(position)) if self.is_open => {
                Place::Agent { position: *position, is_mapped: false }
            }
            (None, PortRef::Number(number)) => {
                let position = task.ports.iter().position(|port| *port == Some(*number));
                Place::Agent { position: position.ok_or(NoAddress::NoSuchPort)?, is_mapped: false }
            }
            (None, _) => return Err(NoAddress::NoSuchPort),
        };
        let (host, port, how) = match place {
            Place::Agent { position, is_mapped } => {
                let host = task.host.ok_or(NoAddress::NoHost)?;
                let port = task.ports.get(position).copied().flatten().filter(|port| *port > 0);
                let port = port.ok_or(NoAddress::NoHostPort(position))?;
                (host, port, How::Agent { position, is_mapped })
            }
            Place::Own { port: 0, .. } => return Err(NoAddress::NoContainerPort),
            Place::Own { port, networks } => {
                let host = task.ip_address.ok_or(NoAddress::NoIp)?;
                (host, port, How::Own { networks })
            }
        };
        let name = name(host).ok_or_else(|| NoAddress::BadHost(host.to_owned()))?;
        // The spelling that a backend's origin has.
        let url = Origin { scheme, host: name, port }.to_string();
        Ok(Address { url, how })
    }
}

/// How many container networks the addresses of a mapping may belong to.
fn networks(app: &App, mapping: &PortMapping) -> usize {
    if mapping.network_names.is_empty() || app.networks.len() > 1 {
        app.networks.len()
    } else {
        mapping.network_names.len()
    }
}

/// What Marathon calls a host: a name or an address, without brackets.
fn name(host: &str) -> Option<BackendHost> {
    (!host.starts_with('[')).then(|| BackendHost::parse(host).ok()).flatten()
}

/// What an answer says about where a task runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whereabouts<'a> {
    /// Name or address of the agent.
    pub host: Option<&'a str>,
    /// Host ports.
    pub ports: &'a [Option<u16>],
    /// The first of the task's own addresses.
    pub ip_address: Option<&'a str>,
}

impl<'a> From<&'a Task> for Whereabouts<'a> {
    fn from(task: &'a Task) -> Self {
        Self {
            host: task.host.as_deref(),
            ports: &task.ports,
            ip_address: task.ip_addresses.first().map(String::as_str),
        }
    }
}

/// Every place where a task may listen, as `host:port`, whichever of its ports is meant: for the
/// question whose task has an address now. Without the `ports` of its own version only those at its
/// agent are known.
pub fn all<'a>(ports: Option<&AppPorts<'_>>, task: impl Into<Whereabouts<'a>>) -> Vec<String> {
    let task = task.into();
    let mut found = Vec::with_capacity(task.ports.len());
    if let Some(host) = task.host.and_then(name) {
        let agent = task.ports.iter().flatten().filter(|port| **port > 0);
        found.extend(agent.map(|port| format!("{host}:{port}")));
    }
    let own = || {
        ports.into_iter().flat_map(AppPorts::iter).filter_map(|port| match port.place {
            Place::Own { port, .. } if port > 0 => Some(port),
            _ => None,
        })
    };
    if own().next().is_some()
        && let Some(host) = task.ip_address.and_then(name)
    {
        found.extend(own().map(|port| format!("{host}:{port}")));
    }
    found
}

/// `host:port` of a URL that this module made, or of any row in its spelling.
pub fn without_scheme(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_scheme, rest)| rest)
}

/// The address of a task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Address {
    /// As it stands in a `frontend:` list.
    pub url: String,
    /// How it was found.
    pub how: How,
}

/// How an address was found; its text is for people.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    /// The agent's address.
    Agent {
        /// Which of the task's `ports`.
        position: usize,
        /// By a port mapping.
        is_mapped: bool,
    },
    /// The task's own address.
    Own {
        /// Number of networks that it may belong to.
        networks: usize,
    },
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent { position, is_mapped } => {
                write!(f, "the task's host and its ports[{position}]")?;
                if *is_mapped {
                    f.write_str(", by a port mapping with a host port")
                } else {
                    Ok(())
                }
            }
            Self::Own { networks } => {
                f.write_str(
                    "the task's first address and the port in the container, as there is no host \
                     port",
                )?;
                if *networks > 1 {
                    write!(
                        f,
                        "; the task is on {networks} networks and Marathon does not say which \
                         address belongs to which"
                    )?;
                }
                Ok(())
            }
        }
    }
}

/// Why a task has no address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoAddress {
    /// What should be a host is none.
    #[error("`{0}` is neither an address nor a host name")]
    BadHost(String),
    /// A mapping without host port and with container port 0.
    #[error("its port mapping has neither a host port nor a container port")]
    NoContainerPort,
    /// `host` is missing or empty.
    #[error("Marathon does not say on which host it runs")]
    NoHost,
    /// `ports` is shorter than the app's list.
    #[error("Marathon lists no host port for it (its ports[{0}] is missing)")]
    NoHostPort(usize),
    /// `ipAddresses` is empty.
    #[error("it has no address of its own yet")]
    NoIp,
    /// The app has no such port.
    #[error("the app has no such port")]
    NoSuchPort,
    /// The definition that the task was started from serves the host by no port that is known.
    #[error("the version that it was started from, {0}, has no port that is meant by this")]
    NotOfItsVersion(Box<str>),
    /// The definition that the task was started from is not known, and no other says where it listens.
    #[error("the definition that it was started from, version {0}, is not known")]
    UnknownVersion(Box<str>),
}
