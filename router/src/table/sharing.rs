//! Records of wildcards, which any number of hosts have in common: kept once, as long as one of them is in memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use shared::lock::lock;

use crate::coherence::Version;
use crate::route::options::Options;
use crate::route::{Frontend, Route};

/// Records of one sort; with more, those that no host uses any more are forgotten.
const MAX_WILDCARDS: usize = 10_000;

/// Lists and settings of wildcards.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    lists: Mutex<HashMap<Box<str>, List>>,
    options: Mutex<HashMap<Box<str>, Weak<Options>>>,
}

/// A list of a wildcard.
#[derive(Debug)]
struct List {
    frontend: Weak<Frontend>,
    /// Of the list when it was asked for; `None` where changes are not announced.
    version: Option<Version>,
}

impl Sharing {
    /// The lists in memory that still have one of these versions: they are as they are in Redis.
    pub(super) fn known_lists(&self, versions: &[(Cow<'_, str>, Version)]) -> Vec<Arc<Frontend>> {
        if versions.is_empty() {
            return Vec::new();
        }
        let lists = lock(&self.lists);
        let known = |(name, version): &(Cow<'_, str>, Version)| {
            let list = lists.get(&**name).filter(|list| list.version == Some(*version))?;
            list.frontend.upgrade()
        };
        versions.iter().filter_map(known).collect()
    }

    /// Takes an equal list of a wildcard from memory. Returns whether there was one. `version` is that of before
    /// Redis was asked.
    pub(super) fn list(
        &self,
        frontend: Frontend,
        version: Option<Version>,
    ) -> (Arc<Frontend>, bool) {
        if !frontend.name.starts_with('*') {
            return (Arc::new(frontend), false);
        }
        let mut lists = lock(&self.lists);
        if let Some(known) = lists.get_mut(&frontend.name)
            && let Some(same) = known.frontend.upgrade().filter(|same| **same == frontend)
        {
            known.version = version;
            return (same, true);
        }
        if lists.len() >= MAX_WILDCARDS {
            lists.retain(|_, list| list.frontend.strong_count() > 0);
        }
        let frontend = Arc::new(frontend);
        let list = List { frontend: Arc::downgrade(&frontend), version };
        lists.insert(frontend.name.clone(), list);
        (frontend, false)
    }

    /// Gives `route` equal settings from memory, of its `previous` route or of the wildcard. Returns its settings
    /// when there were none.
    pub(super) fn options<'a>(
        &self,
        route: &'a mut Route,
        previous: Option<&Route>,
    ) -> Option<&'a Options> {
        let new = route.options.as_ref()?;
        let name = new.raw().map_or("", |raw| &raw.name);
        let mut shared = name.starts_with('*').then(|| lock(&self.options));
        let known = previous.and_then(|previous| previous.options.clone());
        let known = known.filter(|known| known == new).or_else(|| {
            let shared = shared.as_ref()?;
            shared.get(name).and_then(Weak::upgrade).filter(|known| known == new)
        });
        if let Some(known) = known {
            route.options = Some(known);
            return None;
        }
        if let Some(shared) = &mut shared {
            if shared.len() >= MAX_WILDCARDS {
                shared.retain(|_, options| options.strong_count() > 0);
            }
            shared.insert(name.into(), Arc::downgrade(new));
        }
        route.options.as_deref()
    }
}
