//! Definitions of earlier versions of apps, which Marathon is asked for when tasks that live were started
//! from one that this process has never been shown: after its start in the middle of a deployment.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, spawn_local};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::Running;
use super::compute::Compute;
use super::news::printable;
use crate::document::{self, App};
use crate::marathon::client::Client;
use crate::pass::Pass;

/// Definitions that are asked for at a time, one after the other. There are more only where very many
/// apps are being deployed at once; they follow.
const BATCH: usize = 32;

/// How long one batch may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Longest version that is asked for. Marathon's have 24 bytes.
const LONGEST: usize = 64;

/// An app and one of its versions.
pub(super) type AppVersion = (String, String);

/// Which definitions are to be asked for.
#[derive(Debug, Default)]
pub(super) struct VersionRequests {
    /// Those that Marathon did not give, and when it was asked.
    failed: HashMap<AppVersion, Instant>,
}

impl VersionRequests {
    /// The next batch of what `pass` lacks. What Marathon did not give is asked for again after `retry`.
    pub(super) fn next(&mut self, pass: &Pass, retry: Duration, now: Instant) -> Vec<AppVersion> {
        let failed = &mut self.failed;
        failed.retain(|_, when| now.saturating_duration_since(*when) < retry);
        unknown(pass).filter(|wanted| !failed.contains_key(wanted)).take(BATCH).collect()
    }

    /// Marathon has not given these.
    pub(super) fn failed(&mut self, versions: Vec<AppVersion>, now: Instant) {
        self.failed.extend(versions.into_iter().map(|version| (version, now)));
    }
}

/// What `pass` lacks.
pub(super) fn unknown(pass: &Pass) -> impl Iterator<Item = AppVersion> {
    pass.apps.iter().flat_map(|(app, report)| {
        let versions = report.unknown_versions.iter().filter(|version| version.len() <= LONGEST);
        versions.map(|version| (app.clone(), version.clone()))
    })
}

/// What Marathon gave.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    pub(super) found: Vec<App>,
    /// What it did not give, or not in time.
    pub(super) failed: Vec<AppVersion>,
}

/// Asks for definitions.
pub(super) async fn fetch(
    client: &Client,
    compute: &Compute,
    wanted: Vec<AppVersion>,
) -> Result<Definitions, JoinError> {
    let mut definitions = Definitions::default();
    let end = Instant::now() + LIMIT;
    for (app, version) in wanted {
        let found = match timeout_at(end, client.fetch_version(&app, &version)).await {
            Ok(Ok(body)) => {
                let (app, version) = (app.clone(), version.clone());
                let parse = move || document::parse_definition(&app, &version, &body);
                compute.run(parse).await?
            }
            Ok(Err(error)) => {
                let (app, version) = (printable(&app), printable(&version));
                debug!(%app, %version, %error, "Marathon does not give an earlier definition");
                None
            }
            Err(_late) => None,
        };
        match found {
            Some(definition) => definitions.found.push(definition),
            None => definitions.failed.push((app, version)),
        }
    }
    Ok(definitions)
}

/// Definitions on their way.
pub(super) type VersionFetch = AbortOnDropHandle<Result<Definitions, JoinError>>;

/// Waits for definitions, for ever if none are on their way.
pub(super) async fn arrival(fetch: &mut Option<VersionFetch>) -> Result<Definitions, JoinError> {
    let Some(answer) = fetch else { return pending().await };
    let definitions = answer.await??;
    *fetch = None;
    Ok(definitions)
}

impl Running {
    /// Begins to ask for the definitions that the last pass lacks.
    pub(super) fn begin_versions(&mut self) {
        let Some(last) = self.last.as_deref().filter(|_| self.version_fetch.is_none()) else {
            return;
        };
        let wanted = self.version_requests.next(last, self.agent.config.interval, Instant::now());
        if wanted.is_empty() {
            return;
        }
        let (client, compute) = (self.agent.client.clone(), Arc::clone(&self.agent.compute));
        let fetch = spawn_local(async move { fetch(&client, &compute, wanted).await });
        self.version_fetch = Some(AbortOnDropHandle::new(fetch));
    }

    /// Definitions have come: tasks that were started from them can be read.
    pub(super) fn on_definitions(&mut self, definitions: Definitions) {
        let now = Instant::now();
        self.version_requests.failed(definitions.failed, now);
        if !definitions.found.is_empty() {
            self.looker.learn_versions(definitions.found);
            self.schedule.again(now);
        }
        self.begin_versions();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::report::{AppReport, AppState};

    #[test]
    fn versions_are_requested_in_batches_and_failed_ones_after_a_pause() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut report = AppReport::of(AppState::Mapped, &["a.test"], Vec::new());
        report.unknown_versions = (0..=BATCH).map(|number| format!("{number:03}")).collect();
        report.unknown_versions.push("x".repeat(LONGEST + 1));
        let mut pass = Pass::default();
        drop(pass.apps.insert("/a".to_owned(), report.into()));
        let mut requests = VersionRequests::default();
        let first = requests.next(&pass, second * 30, start);
        assert_eq!(first.len(), BATCH);
        requests.failed(first, start);
        let rest = requests.next(&pass, second * 30, start + second);
        assert_eq!(rest, [("/a".to_owned(), format!("{BATCH:03}"))]);
        requests.failed(rest, start + second);
        assert_eq!(requests.next(&pass, second * 30, start + second * 29), []);
        assert_eq!(requests.next(&pass, second * 30, start + second * 30).len(), BATCH);
    }
}
