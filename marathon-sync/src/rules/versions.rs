//! Definitions of earlier versions of apps. During a deployment tasks of several versions live side by
//! side, and each listens where the definition says that it was started from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::document::App;

/// Definitions by app and version: the last one shown of every routed app, those that its tasks were
/// started from, and one more, so that an answer without those tasks does not forget it at once.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    apps: HashMap<String, BTreeMap<String, Arc<App>>>,
}

impl Versions {
    /// Adds a definition that Marathon was asked for.
    pub fn learn(&mut self, definition: App) {
        let Some(version) = definition.version.clone() else { return };
        let versions = self.apps.entry(definition.id.clone()).or_default();
        let _before = versions.insert(version, Arc::new(definition));
    }

    /// Notes the definition that an answer shows of a routed app. Those that none of its tasks was
    /// started from are forgotten, but for the newest.
    pub(super) fn note(&mut self, app: &App) {
        let Some(shown) = app.version.as_deref().filter(|_| app.broken.is_none()) else { return };
        if !self.apps.contains_key(&app.id) {
            let _new = self.apps.insert(app.id.clone(), BTreeMap::new());
        }
        let Some(versions) = self.apps.get_mut(&app.id) else { return };
        if !versions.contains_key(shown) {
            let _new = versions.insert(shown.to_owned(), Arc::new(app.definition()));
        }
        // The one shown and a spare one: nothing to forget.
        if versions.len() <= 2 {
            return;
        }
        let tasks = app.tasks.iter().flatten();
        let in_use: BTreeSet<&str> = tasks.filter_map(|task| task.version.as_deref()).collect();
        let is_used = |version: &str| version == shown || in_use.contains(version);
        let spare = versions.keys().rfind(|version| !is_used(version)).cloned();
        versions.retain(|version, _| is_used(version) || spare.as_ref() == Some(version));
    }

    /// The definition of an earlier version of `app`.
    pub(super) fn get(&self, app: &str, version: &str) -> Option<&App> {
        self.apps.get(app)?.get(version).map(Arc::as_ref)
    }

    /// Forgets apps.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&str) -> bool) {
        self.apps.retain(|app, _| stays(app));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Task;

    fn app(version: &str) -> App {
        App { id: "/a".to_owned(), version: Some(version.to_owned()), ..App::default() }
    }

    #[test]
    fn versions_in_use_and_one_more_are_remembered() {
        let mut versions = Versions::default();
        let mut known = |shown: &str, in_use: &[&str]| {
            let task =
                |version: &&str| Task { version: Some((*version).to_owned()), ..Task::default() };
            let tasks = Some(in_use.iter().map(task).collect());
            versions.note(&App { tasks, ..app(shown) });
            versions.apps["/a"].keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(known("1", &["1"]), ["1"]);
        assert_eq!(known("2", &["1", "2"]), ["1", "2"]);
        assert_eq!(known("3", &["1", "3"]), ["1", "2", "3"]);
        assert_eq!(known("4", &["1"]), ["1", "3", "4"]);
        assert_eq!(known("4", &[]), ["3", "4"], "the newest of those that are not in use");
        assert_eq!(known("4", &["4"]), ["3", "4"]);
    }

    #[test]
    fn a_definition_describes_its_version_and_those_that_it_was_only_scaled_from() {
        let at = |second: u32| format!("2020-01-01T00:00:{second:02}.000Z");
        let shown = |since: Option<u32>| App { config_since: since.map(at), ..app(&at(5)) };
        for (since, version, expected) in [
            (None, at(5), true),
            (None, at(4), false),
            (Some(3), at(4), true),
            (Some(3), at(3), true),
            (Some(3), at(2), false),
            // Newer than what is shown: the answer is behind.
            (Some(3), at(6), false),
            (Some(3), "yesterday".to_owned(), false),
        ] {
            assert_eq!(shown(since).describes(&version), expected, "{since:?} {version}");
        }
        assert!(App::default().describes("1"), "an app that tells no version");
    }
}
