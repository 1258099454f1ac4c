//! Which hosts an app claims by its labels, and which of its wishes cannot be carried out.
//!
//! Every wish ends either as a [`Claim`] or as a [`Refused`] with its reason.

mod haproxy;
mod host;
mod meant;
mod traefik;

use std::collections::{BTreeMap, HashMap};

use shared::backend::Scheme;

use super::address::{AppPorts, PortRef};
use crate::document::App;
pub use host::identifier;

/// The label of the Marathon-Hipache bridge.
pub const DEFAULT_LABEL: &str = "hipacheFrontend";

/// The label that names item 0 of the lists of an app.
pub const IDENTIFIER_LABEL: &str = "hipacheIdentifier";

/// Hosts that one app may claim: far more than anybody means, few enough that one app cannot fill
/// Redis.
pub const MAX_HOSTS: usize = 1000;

/// How labels are read.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the label that lists hosts.
    pub label: String,
    /// Apps must have one of these labels; none means all apps.
    pub include: Vec<Include>,
    /// marathon-lb's groups; its labels are read when there is one. `*` is any group, or none.
    pub groups: Vec<String>,
    /// marathon-lb's strict mode: only ports with `HAPROXY_n_ENABLED` count.
    pub strict: bool,
    /// Whether `traefik.*` is read.
    pub traefik: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            label: DEFAULT_LABEL.to_owned(),
            include: Vec::new(),
            groups: Vec::new(),
            strict: false,
            traefik: false,
        }
    }
}

/// `NAME` or `NAME=VALUE`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Include {
    /// Name of the label.
    pub name: String,
    /// The value it must have; none means any.
    pub value: Option<String>,
}

impl Include {
    /// Reads `NAME` or `NAME=VALUE`.
    pub fn parse(text: &str) -> Self {
        match text.split_once('=') {
            Some((name, value)) => Self { name: name.to_owned(), value: Some(value.to_owned()) },
            None => Self { name: text.to_owned(), value: None },
        }
    }

    fn matches(&self, app: &App) -> bool {
        let found = app.labels.get(&self.name);
        found.is_some_and(|found| self.value.as_ref().is_none_or(|value| value == found))
    }
}

/// A host that an app claims.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// Normalized host or wildcard.
    pub host: String,
    /// Item 0 of its list, if that is made anew.
    pub identifier: String,
    /// Which port of the app serves it.
    pub port: PortRef,
    /// How to speak to the backends.
    pub scheme: Scheme,
    /// The label that says so.
    pub label: String,
}

/// A wish that is not carried out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    /// The label.
    pub label: String,
    /// Why not, for people.
    pub reason: String,
}

/// What the labels of one app come to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Claims {
    /// Hosts, no host twice.
    pub hosts: Vec<Claim>,
    /// Wishes that are not carried out.
    pub refused: Vec<Refused>,
    /// Why labels that are there were not meant for us.
    pub not_meant: Option<String>,
    /// The labels are there and hold nothing but mistakes, the first of which this is.
    pub mistake: Option<String>,
}

/// Reads the labels of `app`.
pub fn claims<'a>(app: &'a App, ports: &'a AppPorts<'a>, options: &Options) -> Claims {
    let mut collector = Collector::new(app, ports);
    if !options.include.is_empty() && !options.include.iter().any(|label| label.matches(app)) {
        let names: Vec<_> = options.include.iter().map(|label| label.name.as_str()).collect();
        collector
            .skip(format!("it has none of the labels that are asked for: {}", names.join(", ")));
        return collector.claims;
    }
    if let Some(name) = app.bad_labels.iter().find(|name| is_read(name, options)) {
        collector.mistake(name, "its value is not text".to_owned());
    }
    hipache(app, ports, &options.label, &mut collector);
    if !options.groups.is_empty() {
        haproxy::read(app, options, &mut collector);
    }
    if options.traefik {
        traefik::read(app, &mut collector);
    }
    unread(app, options, &mut collector);
    collector.finish()
}

/// Names labels that may have been meant for us. Where no host is claimed, that is why.
fn unread(app: &App, options: &Options, collector: &mut Collector<'_>) {
    let mut misspelt = meant::misspelt(app, options);
    if !collector.claims.hosts.is_empty() {
        for (name, meant) in misspelt {
            collector.refuse(name, format!("is not read; did you mean `{meant}`?"));
        }
        return;
    }
    if !collector.claims.refused.is_empty() {
        return;
    }
    let hint = misspelt
        .next()
        .map(|(name, meant)| format!("its label `{name}` is not read; did you mean `{meant}`?"));
    if let Some(hint) = hint.or_else(|| meant::other_labels(app, options)) {
        collector.skip(format!("it has no label `{}` with a host; {hint}", options.label));
    }
}

fn is_read(name: &str, options: &Options) -> bool {
    selector(name, &options.label).is_some()
        || name == options.label
        || (!options.groups.is_empty() && name.starts_with("HAPROXY_"))
        || (options.traefik && name.starts_with("traefik."))
}

/// `x` of `<label>.x`.
fn selector<'a>(name: &'a str, label: &str) -> Option<&'a str> {
    name.strip_prefix(label)?.strip_prefix('.')
}

fn hipache<'a>(app: &App, ports: &AppPorts<'a>, label: &str, collector: &mut Collector<'a>) {
    // The more precise wish comes first: of two for one host, the first counts.
    for (name, value) in &app.labels {
        if let Some(selector) = selector(name, label) {
            let port = match selector.parse() {
                Ok(index) => PortRef::Index(index),
                Err(_) => PortRef::Name(selector.to_owned()),
            };
            collector.hosts(name, value, &port);
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let Some((labels, value)) = port.labels.and_then(|own| Some((own, own.get(label)?))) else {
            continue;
        };
        collector.port_labels = Some(labels);
        collector.hosts(&format!("{label} of port {index}"), value, &PortRef::Index(index));
        collector.port_labels = None;
    }
    if let Some(value) = app.labels.get(label) {
        collector.hosts(label, value, &PortRef::Index(0));
    }
}

/// Gathers claims and refusals.
struct Collector<'a> {
    app: &'a App,
    ports: &'a AppPorts<'a>,
    port_labels: Option<&'a BTreeMap<String, String>>,
    claims: Claims,
    /// Where a host is in `claims`.
    places: HashMap<String, usize>,
    first_mistake: Option<String>,
}

impl<'a> Collector<'a> {
    fn new(app: &'a App, ports: &'a AppPorts<'a>) -> Self {
        Self {
            app,
            ports,
            port_labels: None,
            claims: Claims::default(),
            places: HashMap::new(),
            first_mistake: None,
        }
    }

    /// The labels are there but meant for others.
    fn skip(&mut self, reason: String) {
        let _first = self.claims.not_meant.get_or_insert(reason);
    }

    /// A wish that is understood and cannot be carried out.
    fn refuse(&mut self, label: &str, reason: String) {
        self.claims.refused.push(Refused { label: label.to_owned(), reason });
    }

    /// A wish that nobody can mean.
    fn mistake(&mut self, label: &str, reason: String) {
        if self.first_mistake.is_none() {
            self.first_mistake = Some(format!("label `{label}`: {reason}"));
        }
        self.refuse(label, reason);
    }

    /// A comma list of hosts, on `port`, in plain HTTP.
    fn hosts(&mut self, label: &str, list: &str, port: &PortRef) {
        let mut hosts = list.split(',').map(str::trim).filter(|host| !host.is_empty()).peekable();
        if hosts.peek().is_none() {
            return;
        }
        // One complaint for the list, not one for each host.
        if let Err(reason) = self.ports.check(port) {
            self.mistake(label, reason);
            return;
        }
        for host in hosts {
            self.host(label, host, port, Scheme::Http);
        }
    }

    /// One host; `port` was checked.
    fn host(&mut self, label: &str, text: &str, port: &PortRef, scheme: Scheme) {
        let host = match host::normalize(text) {
            Ok(host) => host,
            Err(reason) => return self.mistake(label, reason),
        };
        let place = self.places.get(&host);
        if let Some(claim) = place.and_then(|place| self.claims.hosts.get(*place)) {
            if claim.port != *port || claim.scheme != scheme {
                let reason = format!(
                    "`{host}` is claimed for {port} but label `{}` has claimed it for {}",
                    claim.label, claim.port
                );
                self.refuse(label, reason);
            }
            return;
        }
        if self.claims.hosts.len() >= MAX_HOSTS {
            let reason = format!("`{host}`: an app may claim {MAX_HOSTS} hosts, and has them");
            return self.refuse(label, reason);
        }
        let identifier = self.identifier(&host);
        let _new = self.places.insert(host.clone(), self.claims.hosts.len());
        let label = label.to_owned();
        self.claims.hosts.push(Claim { host, identifier, port: port.clone(), scheme, label });
    }

    fn identifier(&mut self, host: &str) -> String {
        let wish = self.port_labels.and_then(|labels| labels.get(IDENTIFIER_LABEL));
        let Some(wish) = wish.or_else(|| self.app.labels.get(IDENTIFIER_LABEL)) else {
            return identifier(host, &self.app.id);
        };
        let wish = wish.trim();
        if wish.is_empty() || wish.len() > shared::host::MAX_LEN || wish.contains(char::is_control)
        {
            let reason = "an identifier has 1 to 255 bytes without control characters".to_owned();
            if !self.claims.refused.iter().any(|refused| refused.label == IDENTIFIER_LABEL) {
                self.refuse(IDENTIFIER_LABEL, reason);
            }
            return identifier(host, &self.app.id);
        }
        wish.to_owned()
    }

    fn finish(mut self) -> Claims {
        if self.claims.hosts.is_empty() {
            self.claims.mistake = self.first_mistake;
        }
        self.claims
    }
}
