//! Mistakes in keys that would be silent for ever: a key that is nearly the one of a requested host.
//!
//! Nobody scans Redis for them. When a host that has no list of its own is first asked for, the likely
//! misspellings of its key are looked up, in the background; one that exists is named in the log once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use shared::lock::lock;
use tracing::{debug, warn};

use super::Table;
use crate::route::{Millis, Route};

/// Hosts that are looked at in a second, at most: anyone can ask for any number of names.
const PER_SECOND: u32 = 20;
/// Hosts that were looked at, and keys that were named: forgotten all together when there are more.
const MAX_REMEMBERED: usize = 4096;

/// What was looked at already.
#[derive(Debug, Default)]
pub(super) struct Misspelt(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    hosts: HashSet<Box<str>>,
    reported: HashSet<Box<str>>,
    second: Millis,
    count: u32,
}

/// A key that may have been written by mistake.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Candidate {
    /// Without the prefix of the driver.
    key: String,
    /// What is wrong with it.
    mistake: &'static str,
}

impl Misspelt {
    /// Whether `host` is to be looked at now.
    fn admit(&self, host: &str, now: Millis) -> bool {
        let mut state = lock(&self.0);
        if state.hosts.contains(host) {
            return false;
        }
        if state.second != now / 1000 {
            (state.second, state.count) = (now / 1000, 0);
        }
        if state.count >= PER_SECOND {
            return false;
        }
        state.count += 1;
        if state.hosts.len() >= MAX_REMEMBERED {
            state.hosts.clear();
        }
        state.hosts.insert(host.into())
    }

    /// Whether `key` was not named yet.
    fn report(&self, key: &str) -> bool {
        let mut state = lock(&self.0);
        if state.reported.len() >= MAX_REMEMBERED {
            state.reported.clear();
        }
        state.reported.insert(key.into())
    }
}

impl Table {
    /// Looks for misspelt keys of a host that was read for the first time, in the background.
    pub(super) fn look_for_misspelt(self: &Arc<Self>, route: &Route) {
        let has_list = route.frontend().is_some_and(|frontend| *frontend.name == *route.host);
        let has_options = route.options.is_some();
        if has_list && has_options || !self.misspelt.admit(&route.host, self.clock.coarse()) {
            return;
        }
        let mut candidates = Vec::new();
        if !has_list {
            candidates.extend(lists(&route.host));
        }
        // Settings of a host without a list mean nothing anyway.
        if has_list && !has_options {
            candidates.extend(settings(&route.host));
        }
        let (table, host) = (Arc::clone(self), route.host.clone());
        drop(self.control.spawn(async move {
            let keys: Vec<_> = candidates.iter().map(|candidate| candidate.key.as_str()).collect();
            let found = match table.store.existing(&keys).await {
                Ok(found) => found,
                Err(error) => return debug!(%host, %error, "misspelt keys not looked for"),
            };
            for (at, is_list) in found {
                let Some(Candidate { key, mistake }) = candidates.get(at) else { continue };
                // What others keep in the same Redis is theirs, unless it looks much like a list of ours.
                let is_foreign = **key == *host && !is_list;
                if !is_foreign && table.misspelt.report(key) {
                    warn!(%host, key, "key means nothing to the requests for this host: {mistake}");
                }
            }
        }));
    }
}

const CASE: &str = "hosts are in lower case in keys; RENAME it";
const PORT: &str = "keys have no port; RENAME it";
const DOT: &str = "keys have no dot at the end; RENAME it";

/// Spellings of a host that people write and that no request is looked up under.
fn spellings(host: &str) -> Vec<(String, &'static str)> {
    let capital = |label: &str| {
        let mut chars = label.chars();
        chars.next().map_or_else(String::new, |first| {
            format!("{}{}", first.to_ascii_uppercase(), chars.as_str())
        })
    };
    let labels: Vec<_> = host.split('.').collect();
    let domain = labels.len().saturating_sub(2);
    let capitals = |is_capital: &dyn Fn(usize) -> bool| {
        let label = |(index, label): (usize, &&str)| match is_capital(index) {
            true => capital(label),
            false => (*label).to_owned(),
        };
        labels.iter().enumerate().map(label).collect::<Vec<_>>().join(".")
    };
    let mut all = vec![
        (host.to_ascii_uppercase(), CASE),
        (capitals(&|_| true), CASE),
        (capitals(&|index| index == 0), CASE),
        (capitals(&|index| index == domain), CASE),
        (capitals(&|index| index + 1 < labels.len()), CASE),
        (format!("{host}."), DOT),
    ];
    for port in [80, 443, 8080, 8443] {
        all.push((format!("{host}:{port}"), PORT));
    }
    let mut seen = HashSet::new();
    all.retain(|(name, _)| name != host && seen.insert(name.clone()));
    all
}

/// Keys that may have been meant as the list of `host`.
fn lists(host: &str) -> Vec<Candidate> {
    let candidate = |key: String, mistake| Candidate { key, mistake };
    let spelt = spellings(host).into_iter();
    let mut all: Vec<_> =
        spelt.map(|(name, mistake)| candidate(format!("frontend:{name}"), mistake)).collect();
    for kind in [
        "frontends:",
        "Frontend:",
        "FRONTEND:",
        "frontend: ",
        "frontend:http://",
        "frontend:https://",
    ] {
        let mistake = "the key of a list is frontend:<host>; RENAME it";
        all.push(candidate(format!("{kind}{host}"), mistake));
    }
    // Clients choose the host: a word alone is the name of anything.
    if host.contains('.') {
        let mistake = "if it is the list of this host, RENAME it to frontend:<host>";
        all.push(candidate(host.to_owned(), mistake));
    }
    all.push(candidate(
        format!("frontend:*.{host}"),
        "a wildcard does not stand for its domain itself; write a list for that, too",
    ));
    for (at, _) in host.match_indices('.').take(3) {
        let parent = host.get(at + 1..).unwrap_or_default();
        if parent.contains('.') {
            let mistake = "a wildcard is written *.<domain>; RENAME it";
            all.push(candidate(format!("frontend:*{parent}"), mistake));
            all.push(candidate(format!("frontend:.{parent}"), mistake));
        }
    }
    all
}

/// Keys that may have been meant as the settings of `host`.
fn settings(host: &str) -> Vec<Candidate> {
    let spelt = spellings(host).into_iter();
    let mut all: Vec<_> = spelt
        .map(|(name, mistake)| Candidate { key: format!("options:{name}"), mistake })
        .collect();
    let mistake = "the key of settings is options:<host>; RENAME it";
    all.push(Candidate { key: format!("option:{host}"), mistake });
    all
}

#[cfg(test)]
mod tests {
    use super::{MAX_REMEMBERED, Misspelt, PER_SECOND, lists, settings};

    #[test]
    fn likely_misspellings_of_a_key_are_known() {
        let keys: Vec<_> = lists("www.example.com").into_iter().map(|found| found.key).collect();
        for key in [
            "frontend:WWW.EXAMPLE.COM",
            "frontend:Www.Example.Com",
            "frontend:Www.example.com",
            "frontend:www.Example.com",
            "frontend:Www.Example.com",
            "frontend:www.example.com.",
            "frontend:www.example.com:80",
            "frontends:www.example.com",
            "frontend:http://www.example.com",
            "www.example.com",
            "frontend:*example.com",
            "frontend:.example.com",
            "frontend:*.www.example.com",
        ] {
            assert!(keys.iter().any(|other| other == key), "{key} is not in {keys:?}");
        }
        assert!(!keys.contains(&"frontend:www.example.com".to_owned()));
        assert!(!keys.contains(&"frontend:*.example.com".to_owned()));
        assert!(!keys.iter().any(|key| key == "frontend:*com"), "{keys:?}");
        assert!(keys.len() <= 32, "{}", keys.len());
        let keys: Vec<_> = settings("a.test").into_iter().map(|found| found.key).collect();
        assert!(keys.contains(&"options:A.test".to_owned()));
        assert!(!lists("sessions").iter().any(|found| found.key == "sessions"), "anybody's key");
        for odd in ["localhost", "[::1]", "a", "1.2.3.4"] {
            assert!(!lists(odd).is_empty());
        }
    }

    #[test]
    fn clients_that_make_up_names_cause_a_bounded_number_of_questions() {
        let misspelt = Misspelt::default();
        let admitted = |from: u64, now| {
            (from..from + 1000).filter(|n| misspelt.admit(&n.to_string(), now)).count()
        };
        assert_eq!(admitted(0, 1000), PER_SECOND as usize);
        assert_eq!(admitted(2000, 1999), 0);
        assert_eq!(admitted(4000, 2000), PER_SECOND as usize);
        assert!(!misspelt.admit("4000", 3000), "each host once");
        for second in 0..1000 {
            admitted(10_000 * second, 1_000_000 + second * 1000);
        }
        assert!(misspelt.0.lock().unwrap().hosts.len() <= MAX_REMEMBERED);
        assert!(misspelt.report("a") && !misspelt.report("a"));
    }
}
