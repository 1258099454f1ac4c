//! The definitions that the tasks of one app were started from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use shared::backend::Scheme;

use crate::document::{App, HealthCheck, Task};
use crate::rules::address::{AppPorts, PortRef};
use crate::rules::labels::{self, Claim};
use crate::rules::memory::{KnownTask, Memory};

/// One definition of an app.
#[derive(Debug)]
pub(super) struct Definition<'a> {
    app: &'a App,
    pub(super) ports: AppPorts<'a>,
    /// What the labels of an earlier version claim; of the one shown, they are what is asked for.
    claims: Option<Vec<Claim>>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Definitions<'a> {
    shown: &'a Definition<'a>,
    /// By version that a task was started from.
    versions: BTreeMap<Arc<str>, Version<'a>>,
}

#[derive(Debug)]
enum Version<'a> {
    Earlier(Definition<'a>),
    Shown,
    Unknown,
}

impl<'a> Definition<'a> {
    /// The one that the answer shows.
    pub(super) fn shown(app: &'a App, ports: AppPorts<'a>) -> Self {
        Self { app, ports, claims: None }
    }

    fn earlier(app: &'a App, options: &labels::Options) -> Self {
        let ports = AppPorts::of(app);
        let claims = labels::claims(app, &ports, options).hosts;
        Self { app, ports, claims: Some(claims) }
    }

    /// The health checks that tasks of this version have.
    pub(super) fn health_checks(&self) -> &'a [HealthCheck] {
        &self.app.health_checks
    }
}

impl<'a> Definitions<'a> {
    /// Those that the tasks of the app need.
    pub(super) fn of(
        shown: &'a Definition<'a>,
        memory: &'a Memory,
        options: &labels::Options,
    ) -> Self {
        let app = shown.app;
        let mut versions = BTreeMap::new();
        for task in app.tasks.iter().flatten() {
            let version = match &task.version {
                Some(version) => Some(version.as_str()),
                None => memory.tasks.get(task.id.as_str()).and_then(|known| known.version()),
            };
            let Some(version) = version.filter(|version| !versions.contains_key(*version)) else {
                continue;
            };
            let found = match memory.versions.get(&app.id, version) {
                _ if app.describes(version) => Version::Shown,
                Some(earlier) => Version::Earlier(Definition::earlier(earlier, options)),
                None => Version::Unknown,
            };
            let _new = versions.insert(Arc::from(version), found);
        }
        Self { shown, versions }
    }

    /// The version of a task: as the answer says, else as it was known `before`.
    pub(super) fn version(&self, task: &Task, before: Option<&KnownTask>) -> Option<&Arc<str>> {
        let version = task.version.as_deref().or_else(|| before?.version())?;
        self.versions.get_key_value(version).map(|(version, _)| version)
    }

    /// The definition of a version; a task that tells none is read by the one shown. `None`: it is not
    /// known.
    pub(super) fn get(&self, version: Option<&Arc<str>>) -> Option<&Definition<'a>> {
        match version.and_then(|version| self.versions.get(version)) {
            Some(Version::Earlier(definition)) => Some(definition),
            Some(Version::Unknown) => None,
            Some(Version::Shown) | None => Some(self.shown),
        }
    }

    /// The port by which tasks of `definition` serve the host of `claim`, which the version shown
    /// makes: as their own version claimed it, or, if it did not, the same port under any name. `None`:
    /// they serve it by none.
    pub(super) fn port<'c>(
        &self,
        definition: &'c Definition<'a>,
        claim: &'c Claim,
    ) -> Option<(Cow<'c, PortRef>, Scheme)> {
        let Some(claims) = &definition.claims else {
            return Some((Cow::Borrowed(&claim.port), claim.scheme));
        };
        if let Some(own) = claims.iter().find(|own| own.host == claim.host) {
            return Some((Cow::Borrowed(&own.port), own.scheme));
        }
        let port = definition.ports.counterpart(&claim.port, &self.shown.ports)?;
        Some((Cow::Owned(port), claim.scheme))
    }

    /// Versions whose definitions have to be asked for.
    pub(super) fn unknown(&self) -> Vec<String> {
        let unknown = self.versions.iter().filter(|(_, found)| matches!(found, Version::Unknown));
        unknown.map(|(version, _)| version.to_string()).collect()
    }
}
