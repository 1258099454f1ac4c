//! The text of `explain APP|HOST`: from labels to the rows in Redis, and what would change. Pure.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use super::status::problem;
use super::sums::{reason, state, verdict};
use super::{app_id, scheme, similar};
use crate::pass::Pass;
use crate::routes::backend::Backend;
use crate::routes::change::{Action, Change, backends};
use crate::routes::owned::Foreign;
use crate::routes::render::render;
use crate::routes::snapshot::Snapshot;
use crate::rules::memory::address;
use crate::rules::report::{AppReport, AppState, TaskReport};

/// Tasks and rows of a list that are written out; the rest is counted.
const SHOWN: usize = 1000;

/// What the explanation comes to, for the exit code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It claims a host, and has a live backend there.
    Live,
    /// It claims hosts, but none of its tasks is live, or what it wants cannot be read.
    NoLiveBackend,
    /// It is not in Marathon's answer, or claims nothing; nobody claims the host.
    NotRouted,
}

/// Explains the app `id` by a pass that nothing was written of. `prefix` is the driver's, `instance`
/// names the marathon-sync.
pub fn explain(
    id: &str,
    pass: &Pass,
    snapshot: &Snapshot,
    prefix: &str,
    instance: &str,
) -> (String, Outcome) {
    if let Some(host) = meant_host(id, pass, snapshot) {
        return explain_host(&host, pass, snapshot, prefix, instance);
    }
    let id = app_id(id);
    let mut text = String::new();
    let hosts: Vec<&str> = hosts(&id, pass, snapshot);
    let Some(app) = pass.apps.get(&id) else {
        let what = format!("{id} is not in Marathon's answer{}", similar(&id, pass));
        let hint = "(pods are not supported; a filter by label hides apps that lack it)";
        row(&mut text, "App", [what.as_str(), hint]);
        lists(&mut text, &hosts, Some(&id), pass, snapshot, (prefix, instance));
        return (text, Outcome::NotRouted);
    };
    head(&mut text, &id, app);
    tasks(&mut text, app);
    lists(&mut text, &hosts, Some(&id), pass, snapshot, (prefix, instance));
    let is_live = app.tasks.iter().any(|task| verdict(&task.verdict) == "up");
    let outcome = match (&app.state, hosts.is_empty(), is_live) {
        (AppState::Quarantined(_), ..) | (_, false, false) => Outcome::NoLiveBackend,
        (_, true, _) => Outcome::NotRouted,
        (_, false, true) => Outcome::Live,
    };
    (text, outcome)
}

/// The host that is meant by `text`, if it is no app: a name with a dot and no slash, or one that is
/// known.
fn meant_host(text: &str, pass: &Pass, snapshot: &Snapshot) -> Option<String> {
    if text.contains('/') || pass.apps.contains_key(&app_id(text)) {
        return None;
    }
    let text = text.trim();
    let (wildcard, name) = text.strip_prefix("*.").map_or(("", text), |name| ("*.", name));
    let name = shared::host::normalize(name.as_bytes()).ok()?;
    let host = format!("{wildcard}{name}");
    let is_known = pass.plan.contains_key(&host) || snapshot.owned.contains_key(&host);
    (is_known || host.contains('.')).then_some(host)
}

/// Explains a host: whose it is, and its list row by row.
fn explain_host(
    host: &str,
    pass: &Pass,
    snapshot: &Snapshot,
    prefix: &str,
    instance: &str,
) -> (String, Outcome) {
    let mut text = String::new();
    let wanted = pass.plan.get(host);
    let apps: Vec<&str> =
        wanted.into_iter().flat_map(|wanted| &wanted.apps).map(String::as_str).collect();
    let what = match apps.as_slice() {
        [] => format!("{host}  no app claims it"),
        apps => format!("{host}  claimed by {}", apps.join(", ")),
    };
    row(&mut text, "Host", [what]);
    let is_kept = wanted.is_some() || snapshot.owned.contains_key(host);
    if !is_kept {
        let mut wildcards = shared::host::lookup_names(host).skip(1);
        let found = wildcards.find(|name| pass.plan.contains_key(&**name));
        let hint = match found {
            Some(name) => {
                format!("{name} is claimed, and serves it while it has no list of its own")
            }
            None => "a list made by hand may be there: LRANGE shows it".to_owned(),
        };
        let command = format!("LRANGE {} 0 -1", shared::keys::frontend(prefix, host));
        row(&mut text, "", [hint, command]);
        return (text, Outcome::NotRouted);
    }
    for id in &apps {
        if let Some(app) = pass.apps.get(*id) {
            head(&mut text, id, app);
            tasks(&mut text, app);
        }
    }
    lists(&mut text, &[host], apps.first().copied(), pass, snapshot, (prefix, instance));
    let is_live = wanted.is_some_and(|wanted| !wanted.up.is_empty());
    let outcome = match (apps.is_empty(), is_live) {
        (true, _) => Outcome::NotRouted,
        (false, true) => Outcome::Live,
        (false, false) => Outcome::NoLiveBackend,
    };
    (text, outcome)
}

/// The lists of `hosts`, for the app `id` if there is one, and what is written to them.
fn lists(
    text: &mut String,
    hosts: &[&str],
    id: Option<&str>,
    pass: &Pass,
    snapshot: &Snapshot,
    (prefix, instance): (&str, &str),
) {
    let mut commands = Vec::new();
    for host in hosts {
        let change = pass.difference.changes.iter().find(|change| change.host == **host);
        list(text, host, change, id, pass, snapshot);
        commands.extend(change.into_iter().flat_map(|change| render(change, prefix, instance)));
    }
    if let Some(held) = &pass.held
        && hosts.iter().any(|host| held.rows.contains_key(*host))
    {
        row(text, "Held", [held.reason.as_str()]);
    }
    row(text, "Change", commands.iter().map(String::as_str));
    if commands.is_empty() && !hosts.is_empty() {
        let is_left = |host: &&str| matches!(snapshot.lists.get(*host), Some(Err(_)));
        let why = if hosts.iter().any(is_left) {
            "none: what cannot be read is left alone"
        } else {
            "none: Redis is as it should be"
        };
        row(text, "Change", [why]);
    }
}

/// Hosts that the app has a part in: also those that it only keeps, and those whose list was written for
/// it, where something of that is left.
fn hosts<'a>(id: &str, pass: &'a Pass, snapshot: &'a Snapshot) -> Vec<&'a str> {
    let claimed = pass.plan.iter().filter(|(_, wanted)| wanted.apps.iter().any(|app| app == id));
    let written = snapshot.owned.iter().filter(|(_, owned)| owned.apps.contains_key(id));
    let mut hosts: Vec<&str> = claimed.map(|(host, _)| host.as_str()).collect();
    hosts.extend(written.map(|(host, _)| host.as_str()));
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// Lines under one heading.
fn row<T: AsRef<str>>(text: &mut String, heading: &str, lines: impl IntoIterator<Item = T>) {
    for (number, line) in lines.into_iter().enumerate() {
        let heading = if number == 0 { heading } else { "" };
        // Writing to a string does not fail.
        let _is_written = writeln!(text, "{heading:<9} {}", printable(line.as_ref()));
    }
}

/// Labels and ids are anybody's text, and a terminal obeys control characters.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escape =
        |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

fn head(text: &mut String, id: &str, app: &AppReport) {
    let what = match &app.state {
        AppState::Mapped => "its live tasks are its backends".to_owned(),
        AppState::MappedInPart(_) => "its live tasks are its backends, and older ones stay".into(),
        AppState::Quarantined(_) => "quarantined, it keeps what it had".to_owned(),
        AppState::Skipped(_) => "skipped".to_owned(),
    };
    let why = state(&app.state).1.map(|why| format!(": {why}")).unwrap_or_default();
    row(text, "App", [format!("{id}  {what}{why}")]);
    row(
        text,
        "Claims",
        app.hosts.iter().map(|claim| {
            let (host, label, port) = (&claim.host, &claim.label, &claim.port);
            let scheme = scheme(claim.scheme);
            format!("{host}  {port}, {scheme}, by label `{label}`, as \"{}\"", claim.identifier)
        }),
    );
    row(
        text,
        "Refused",
        app.refused.iter().map(|refused| format!("label `{}`: {}", refused.label, refused.reason)),
    );
    row(text, "Problems", app.problems.iter().map(problem));
}

fn tasks(text: &mut String, app: &AppReport) {
    let mut lines: Vec<String> = Vec::new();
    for task in app.tasks.iter().take(SHOWN) {
        let why = reason(&task.verdict).map(|why| format!(": {why}")).unwrap_or_default();
        lines.push(format!("{}  {}{why}", task.id, verdict(&task.verdict)));
        lines.extend(task.addresses.iter().map(|address| {
            let port = &address.port;
            let known = if address.is_remembered { ", as it was told before" } else { "" };
            match &address.found {
                Ok(found) => format!("  {port}: {} ({}{known})", found.url, found.how),
                Err(why) => format!("  {port}: no address, {why}"),
            }
        }));
    }
    if app.tasks.len() > SHOWN {
        lines.push(format!("and {} more", app.tasks.len() - SHOWN));
    }
    row(text, "Tasks", lines);
}

/// One list, row by row: what stands there, whose it is and what becomes of it.
fn list(
    text: &mut String,
    host: &str,
    change: Option<&Change>,
    id: Option<&str>,
    pass: &Pass,
    snapshot: &Snapshot,
) {
    let rows = match snapshot.lists.get(host) {
        Some(Err(problem)) => return row(text, "Redis", [format!("{problem}; left alone")]),
        Some(Ok(rows)) => rows.as_slice(),
        None => &[],
    };
    let others = pass.plan.get(host).into_iter().flat_map(|wanted| &wanted.apps);
    let others = others.map(String::as_str).filter(|other| Some(*other) != id);
    let others: Vec<&str> = others.collect();
    let shared = match others.as_slice() {
        [] => String::new(),
        others => format!(", shared with {}", others.join(", ")),
    };
    let name = match rows.first() {
        Some(name) => format!("\"{}\"", name.escape_ascii()),
        None => "is not there".to_owned(),
    };
    let mut lines = vec![format!("{host}  {name}{shared}")];
    let foreign = snapshot.foreign(host);
    lines.extend(foreign.iter().map(|foreign| {
        format!("  also kept by instance {}, whose backends stay", foreign.instance)
    }));
    let owners = Owners::of(id.into_iter().chain(others), pass);
    let whose = |backend: &[u8], url: &str| match noted_by(foreign, backend) {
        Some(instance) if !owners.knows(url) => format!(", of instance {instance}"),
        Some(instance) => format!("{}, also of instance {instance}", owners.describe(url)),
        None => owners.describe(url),
    };
    let held = pass.held.as_ref().and_then(|held| held.rows.get(host));
    for (position, backend) in backends(rows).iter().enumerate() {
        let url = backend.escape_ascii().to_string();
        let is_kept = change.is_none_or(|change| change.kept.contains(&position));
        let by_hand = change.into_iter().flat_map(|change| &change.removed);
        let by_hand = by_hand.filter(|removed| removed.by_hand).any(|gone| gone.row == *backend);
        let fate = match (is_kept, by_hand) {
            (true, _) if held.is_some_and(|held| held.contains(&url)) => "stays until confirmed",
            (true, _) => "stays",
            (false, true) => "goes, put there by somebody else",
            (false, false) => "goes",
        };
        lines.push(format!("  {url}  {fate}{}", whose(backend, &url)));
    }
    let added = change.into_iter().flat_map(|change| &change.added);
    lines.extend(added.map(|url| format!("  {url}  comes{}", owners.describe(url))));
    match change.map(|change| change.action) {
        Some(Action::Create) => lines.push("  the list is made".to_owned()),
        Some(Action::Adopt) => lines.push("  only the note that it is ours is written".to_owned()),
        _ => {}
    }
    if lines.len() > SHOWN {
        let more = lines.len() - SHOWN;
        lines.truncate(SHOWN);
        lines.push(format!("  and {more} more"));
    }
    row(text, "Redis", lines);
}

/// The first other instance that notes this backend.
fn noted_by<'a>(foreign: &'a [Foreign], backend: &[u8]) -> Option<&'a str> {
    let backend = Backend::of(backend);
    let is_it = |row: &String| Backend::of(row.as_bytes()) == backend;
    let mut owners = foreign.iter().filter(|foreign| foreign.owned.rows.iter().any(is_it));
    owners.next().map(|foreign| foreign.instance.as_str())
}

/// Whose task listens where.
struct Owners<'a>(HashMap<String, (&'a str, &'a TaskReport)>);

impl<'a> Owners<'a> {
    /// The first app's tasks come first.
    fn of(apps: impl Iterator<Item = &'a str>, pass: &'a Pass) -> Self {
        let mut owners = HashMap::new();
        for id in apps {
            for task in pass.apps.get(id).into_iter().flat_map(|app| &app.tasks) {
                for found in task.addresses.iter().filter_map(|it| it.found.as_ref().ok()) {
                    let _first = owners.entry(address(&found.url)).or_insert((id, task));
                }
            }
        }
        Self(owners)
    }

    fn knows(&self, url: &str) -> bool {
        self.0.contains_key(&address(url))
    }

    fn describe(&self, url: &str) -> String {
        let Some((app, task)) = self.0.get(&address(url)) else {
            return ", no task of these apps".to_owned();
        };
        let why = reason(&task.verdict).map(|why| format!(": {why}")).unwrap_or_default();
        format!(", task {} of {app}, {}{why}", task.id, verdict(&task.verdict))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use shared::store::KeyProblem;

    use super::super::testing::pass;
    use super::{Outcome, explain};
    use crate::pass::Pass;
    use crate::routes::diff::diff;
    use crate::routes::owned::{Foreign, Owned};
    use crate::routes::snapshot::Snapshot;

    fn snapshot(lists: &[(&str, &[&str])]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (host, rows) in lists {
            let rows = rows.iter().map(|row| row.as_bytes().to_vec()).collect();
            snapshot.lists.insert((*host).to_owned(), Ok(rows));
        }
        snapshot
    }

    fn explained(id: &str, snapshot: &Snapshot) -> (String, Outcome) {
        let mut pass = pass();
        pass.difference = diff(&pass.plan, snapshot);
        explain(id, &pass, snapshot, "", "default")
    }

    #[test]
    fn the_way_from_labels_to_rows_is_told() {
        let list = ["shop", "http://10.0.0.1:80/", "http://10.0.0.2:80", "http://10.0.0.8:80"];
        let (text, outcome) = explained("a", &snapshot(&[("ab.test", &list)]));
        let expected = "\
App       /a  its live tasks are its backends
Claims    ab.test  port 0, http, by label `hipacheFrontend`, as \"id\"
Refused   label `HAPROXY_0_PATH`: `b.test/x` has a path, which cannot be routed
Tasks     a.1  up
            port 0: http://10.0.0.1:80 (the task's host and its ports[0])
          a.2  down: a health check fails
            port 0: http://10.0.0.2:80 (the task's host and its ports[0])
Redis     ab.test  \"shop\", shared with /b
            http://10.0.0.1:80/  stays, task a.1 of /a, up
            http://10.0.0.2:80  goes, put there by somebody else, task a.2 of /a, down: a health check fails
            http://10.0.0.8:80  goes, put there by somebody else, no task of these apps
            http://10.0.0.3:80  comes, task b.1 of /b, up
Change    MULTI
          RPUSH frontend:ab.test http://10.0.0.3:80
          LREM frontend:ab.test -1 http://10.0.0.2:80
          LREM frontend:ab.test -1 http://10.0.0.8:80
          DEL dead:ab.test
          HSET marathon-sync:default:owned ab.test '{\"made\":false,\"rows\":[\"http://10.0.0.1:80/\",\"http://10.0.0.3:80\"],\"apps\":{\"/a\":[\"http://10.0.0.1:80\"],\"/b\":[\"http://10.0.0.3:80\"]}}'
          EXEC
";
        assert_eq!(text, expected);
        assert_eq!(outcome, Outcome::Live);
    }

    #[test]
    fn backends_of_another_instance_are_called_its() {
        let list = ["shop", "http://10.0.0.1:80", "http://10.1.0.1:80/", "http://10.0.0.3:80"];
        let mut shared = snapshot(&[("ab.test", &list)]);
        let rows = ["http://10.0.0.1:80", "http://10.1.0.1:80"].map(str::to_owned).into();
        let note = Owned { rows, ..Owned::default() };
        let foreign = Foreign::read("west", note.to_json().into_bytes());
        shared.foreign = [("ab.test".to_owned(), vec![foreign])].into();
        let (text, _) = explained("a", &shared);
        let expected = "\
Redis     ab.test  \"shop\", shared with /b
            also kept by instance west, whose backends stay
            http://10.0.0.1:80  stays, task a.1 of /a, up, also of instance west
            http://10.1.0.1:80/  stays, of instance west
            http://10.0.0.3:80  stays, task b.1 of /b, up
";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn every_kind_of_app_has_its_words_and_its_outcome() {
        let none = Snapshot::default();
        let same = snapshot(&[("q.test", &["id", "http://10.0.0.7:80"])]);
        let cases: &[(&str, &Snapshot, &[&str], Outcome)] = &[
            (
                "/b",
                &none,
                &[
                    "and older ones stay: 1 of its tasks cannot be read\n",
                    "b.2  unsure: its health is not known yet\n",
                    "port 0: no address, Marathon does not say on which host it runs\n",
                    "b.test  is not there\n            the list is made\n",
                ],
                Outcome::Live,
            ),
            (
                "/q",
                &same,
                &[
                    "/q  quarantined, it keeps what it had: `labels` is not an object\n",
                    "Problems  `labels`: a number\n",
                    "http://10.0.0.7:80  stays, no task of these apps\n",
                    "only the note that it is ours is written\n",
                ],
                Outcome::NoLiveBackend,
            ),
            ("/s", &none, &["/s  skipped: it has no label `hipacheFrontend`"], Outcome::NotRouted),
            ("/x/s", &none, &["/x/s is not in Marathon's answer; it has /s\n"], Outcome::NotRouted),
        ];
        for (id, snapshot, parts, expected) in cases {
            let (text, outcome) = explained(id, snapshot);
            for part in *parts {
                assert!(text.contains(part), "{part}\n{text}");
            }
            assert_eq!(outcome, *expected, "{id}");
        }
    }

    #[test]
    fn a_quarantined_app_has_no_live_backend_that_is_known() {
        let mut first_seen = pass();
        Arc::make_mut(&mut first_seen.plan).remove("q.test");
        let mut running = pass();
        let tasks = running.apps["/a"].tasks.clone();
        Arc::make_mut(running.apps.get_mut("/q").expect("an app")).tasks = tasks;
        for pass in [first_seen, running] {
            let (_, outcome) = explain("/q", &pass, &Snapshot::default(), "", "default");
            assert_eq!(outcome, Outcome::NoLiveBackend);
        }
    }

    #[test]
    fn a_host_is_explained_by_all_its_apps_and_its_list() {
        let shop = snapshot(&[("ab.test", &["shop", "http://10.0.0.1:80"])]);
        let cases: &[(&str, &[&str], Outcome)] = &[
            (
                " AB.test",
                &[
                    "Host      ab.test  claimed by /a, /b\n",
                    "App       /a  its live tasks",
                    "App       /b  its live tasks",
                    "Redis     ab.test  \"shop\", shared with /b\n",
                    "http://10.0.0.1:80  stays, task a.1 of /a, up\n",
                    "http://10.0.0.3:80  comes, task b.1 of /b, up\n",
                    "RPUSH frontend:ab.test http://10.0.0.3:80\n",
                ],
                Outcome::Live,
            ),
            (
                "b.test",
                &["claimed by /b\n", "Redis     b.test  is not there"],
                Outcome::NoLiveBackend,
            ),
            (
                "nobody.test",
                &[
                    "Host      nobody.test  no app claims it\n",
                    "LRANGE frontend:nobody.test 0 -1\n",
                ],
                Outcome::NotRouted,
            ),
        ];
        for (host, parts, expected) in cases {
            let (text, outcome) = explained(host, &shop);
            for part in *parts {
                assert!(text.contains(part), "{part}\n{text}");
            }
            assert_eq!(outcome, *expected, "{host}\n{text}");
        }
        let mut wild = pass();
        let wanted = wild.plan["ab.test"].clone();
        Arc::make_mut(&mut wild.plan).insert("*.wild.test".to_owned(), wanted);
        let (text, _) = explain("x.wild.test", &wild, &shop, "", "default");
        assert!(text.contains("*.wild.test is claimed, and serves it"), "{text}");
        let (text, outcome) = explain("*.wild.test", &wild, &shop, "", "default");
        assert!(text.contains("claimed by /a, /b") && outcome == Outcome::Live, "{text}");
    }

    #[test]
    fn rows_that_are_held_are_shown_with_the_app_that_is_gone() {
        let mut snapshot = snapshot(&[("held.test", &["id", "http://10.0.0.9:80"])]);
        let owned = Owned {
            made: true,
            rows: ["http://10.0.0.9:80".to_owned()].into(),
            apps: [("/gone".to_owned(), [].into())].into(),
        };
        snapshot.owned.insert("held.test".to_owned(), owned);
        for name in ["/gone", "held.test"] {
            let (text, outcome) = explained(name, &snapshot);
            assert!(text.contains("http://10.0.0.9:80  stays until confirmed"), "{text}");
            assert!(text.contains("Held      5 of 6 backends would go"), "{text}");
            assert_eq!(outcome, Outcome::NotRouted);
        }
    }

    #[test]
    fn a_list_that_is_as_it_should_be_and_one_that_waits_are_called_so() {
        let snapshot = snapshot(&[("q.test", &["id", "http://10.0.0.7:80"])]);
        let mut waiting = pass();
        let rows = vec!["http://10.0.0.7:80".to_owned()];
        waiting.held.as_mut().expect("held").rows.insert("q.test".to_owned(), rows);
        let (text, _) = explain("/q", &waiting, &snapshot, "", "default");
        assert!(text.contains("http://10.0.0.7:80  stays until confirmed"), "{text}");
        assert!(text.ends_with("Change    none: Redis is as it should be\n"), "{text}");
        let pass = Pass { held: None, ..waiting };
        let (text, _) = explain("/q", &pass, &snapshot, "", "default");
        assert!(text.contains("http://10.0.0.7:80  stays, no task"), "{text}");
    }

    #[test]
    fn a_key_of_another_type_is_not_called_as_it_should_be() {
        let problem = KeyProblem { key: "frontend:q.test".to_owned(), detail: "no list".into() };
        let mut snapshot = Snapshot::default();
        snapshot.lists.insert("q.test".to_owned(), Err(problem));
        let (text, _) = explained("/q", &snapshot);
        assert!(text.contains("no list; left alone\n"), "{text}");
        assert!(text.ends_with("Change    none: what cannot be read is left alone\n"), "{text}");
    }

    #[test]
    fn what_apps_are_called_and_say_does_nothing_to_a_terminal() {
        let mut pass = pass();
        let app = pass.apps.get_mut("/q").expect("an app");
        Arc::make_mut(app).problems[0].reason = "\u{1b}[2J\r\n".to_owned();
        for id in ["/q", "/no\u{1b}[2J"] {
            let (text, _) = explain(id, &pass, &Snapshot::default(), "", "default");
            assert!(text.contains("\\u{1b}[2J"), "{text}");
            assert!(!text.replace('\n', "").contains(char::is_control), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_row_of_a_list_is_told_with_what_becomes_of_it(
            rows in proptest::collection::vec(
                prop_oneof![
                    "http://10\\.0\\.0\\.[0-9]:80/?".prop_map(String::into_bytes),
                    // Without spaces, which the test goes by.
                    proptest::collection::vec(0x21_u8..=0xff, 1..8),
                ],
                0..8,
            ),
        ) {
            let mut snapshot = Snapshot::default();
            if !rows.is_empty() {
                snapshot.lists.insert("ab.test".to_owned(), Ok(rows));
            }
            let (text, _) = explained("/a", &snapshot);
            let count = |word: &str| text.matches(&format!("  {word}")).count();
            let pass = pass();
            let changes = diff(&pass.plan, &snapshot).changes;
            let change = changes.iter().find(|change| change.host == "ab.test").expect("a change");
            let expected = (change.kept.len(), change.removed.len(), change.added.len());
            prop_assert_eq!((count("stays"), count("goes"), count("comes")), expected, "{}", text);
        }
    }
}
