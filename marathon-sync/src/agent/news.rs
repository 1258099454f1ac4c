//! What of a pass is news to those who read the log: each thing is said when it begins or changes.
//! Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::pass::Pass;
use crate::routes::change::Change;
use crate::rules::report::AppState;

/// Changes of one pass that are said one by one.
const MAX_LINES: usize = 100;

/// `text` for a line of the log: apps choose their ids and labels, and may not make up lines with
/// them, or turn others around.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_harmful = |letter: char| {
        letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if is_harmful(letter) {
            escaped.extend(letter.escape_default());
        } else {
            escaped.push(letter);
        }
    }
    Cow::Owned(escaped)
}

/// A line of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// As it should be.
    Info(String),
    /// Somebody may want to act.
    Warn(String),
}

/// What was said already.
#[derive(Debug, Default)]
pub struct Newsroom {
    apps: BTreeMap<String, String>,
    shared: BTreeMap<String, Vec<String>>,
    instances: BTreeMap<String, Vec<String>>,
    problems: Vec<String>,
    is_held: bool,
}

impl Newsroom {
    /// Whether the guard holds something back.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// Hosts that other instances have a part in.
    fn of_instances(&mut self, pass: &Pass, news: &mut Vec<News>) {
        for (host, instances) in &pass.instances {
            if self.instances.get(host) != Some(instances) {
                let names = instances.join(", ");
                push(
                    news,
                    News::Info(format!(
                        "{host} is also kept by another instance of marathon-sync ({names}), whose backends stay"
                    )),
                );
            }
        }
        for host in self.instances.keys().filter(|host| !pass.instances.contains_key(*host)) {
            push(news, News::Info(format!("{host} is kept by this instance alone")));
        }
        self.instances.clone_from(&pass.instances);
    }

    /// What is new about `pass`, but for its changes.
    pub fn of_pass(&mut self, pass: &Pass) -> Vec<News> {
        let mut news = Vec::new();
        let mut apps = BTreeMap::new();
        for (id, report) in &pass.apps {
            let text = match &report.state {
                AppState::Quarantined(why) => {
                    format!("cannot be read and keeps what it has: {why}")
                }
                AppState::MappedInPart(why) => format!("can be read in part: {why}"),
                AppState::Mapped | AppState::Skipped(_) => match report.refused.first() {
                    None => continue,
                    Some(first) => format!(
                        "wishes what cannot be done: label {}: {}{}",
                        first.label,
                        first.reason,
                        match report.refused.len() {
                            1 => String::new(),
                            all => format!(" (and {} more)", all - 1),
                        }
                    ),
                },
            };
            if self.apps.get(id) != Some(&text) {
                push(&mut news, News::Warn(format!("app {id} {text}")));
            }
            let _new = apps.insert(id.clone(), text);
        }
        for id in self.apps.keys().filter(|id| !apps.contains_key(*id)) {
            push(&mut news, News::Info(format!("app {id} is all right again, or gone")));
        }
        self.apps = apps;
        for (host, apps) in &pass.shared {
            if self.shared.get(host) != Some(apps) {
                let apps = apps.join(", ");
                push(&mut news, News::Info(format!("{host} is served by several apps: {apps}")));
            }
        }
        self.shared.clone_from(&pass.shared);
        self.of_instances(pass, &mut news);
        let problems: Vec<String> =
            pass.difference.problems.iter().map(ToString::to_string).collect();
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            push(&mut news, News::Warn(problem.clone()));
        }
        self.problems = problems;
        match (&pass.held, self.is_held) {
            (Some(held), false) => {
                let count: usize = held.rows.values().map(Vec::len).sum();
                news.push(News::Warn(format!(
                    "{count} backends of {} hosts are not removed yet: {}",
                    held.rows.len(),
                    held.reason
                )));
            }
            (None, true) => news.push(News::Info("no removals are held back any more".to_owned())),
            (Some(_), true) | (None, false) => {}
        }
        self.is_held = pass.held.is_some();
        news
    }
}

/// What to say about changes that were written.
pub fn of_changes(changes: &[Change]) -> Vec<News> {
    let mut news = Vec::new();
    for change in changes {
        let line = change.to_string();
        if change.removed.iter().any(|removed| removed.by_hand) {
            push(&mut news, News::Warn(line));
        } else if change.is_visible() {
            push(&mut news, News::Info(line));
        }
    }
    news
}

fn push(news: &mut Vec<News>, line: News) {
    match news.len() {
        0..MAX_LINES => news.push(line),
        MAX_LINES => news.push(News::Info("and more, see /status".to_owned())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Held;
    use crate::rules::report::AppReport;

    fn report(state: AppState) -> AppReport {
        let (hosts, tasks, refused) = (Vec::new(), Vec::new(), Vec::new());
        AppReport {
            state,
            hosts,
            tasks,
            refused,
            problems: Vec::new(),
            taken: Vec::new(),
            unknown_versions: Vec::new(),
        }
    }

    #[test]
    fn everything_is_said_once_until_it_changes() {
        let quarantined = |why: &str| {
            let state = AppState::Quarantined(why.to_owned());
            Pass { apps: [("/a".to_owned(), report(state).into())].into(), ..Pass::default() }
        };
        let held = Held {
            rows: [("h".to_owned(), vec!["b".to_owned()])].into(),
            reason: "strange".to_owned(),
            until: std::time::Duration::ZERO,
            observations_left: 1,
        };
        let holding = Pass { held: Some(held), ..Pass::default() };
        let mut room = Newsroom::default();
        for (pass, count, word) in [
            (quarantined("x"), 1, "keeps what it has: x"),
            (quarantined("x"), 0, ""),
            (quarantined("y"), 1, "keeps what it has: y"),
            (Pass::default(), 1, "all right again"),
            (holding.clone(), 1, "1 backends of 1 hosts are not removed yet: strange"),
            (holding, 0, ""),
            (Pass::default(), 1, "no removals are held back"),
            (Pass::default(), 0, ""),
        ] {
            let news = room.of_pass(&pass);
            assert_eq!(news.len(), count, "{news:?}");
            assert!(news.iter().all(|line| format!("{line:?}").contains(word)), "{news:?}");
        }
    }

    #[test]
    fn other_instances_of_a_host_are_named_once() {
        let shared = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Pass { instances: [("a.test".to_owned(), names)].into(), ..Pass::default() }
        };
        let mut room = Newsroom::default();
        for (pass, expected) in [
            (
                shared(&["west"]),
                vec![
                    "a.test is also kept by another instance of marathon-sync (west), whose backends stay",
                ],
            ),
            (shared(&["west"]), vec![]),
            (
                shared(&["north", "west"]),
                vec![
                    "a.test is also kept by another instance of marathon-sync (north, west), whose backends stay",
                ],
            ),
            (Pass::default(), vec!["a.test is kept by this instance alone"]),
            (Pass::default(), vec![]),
        ] {
            let expected: Vec<News> =
                expected.into_iter().map(|line| News::Info(line.to_owned())).collect();
            assert_eq!(room.of_pass(&pass), expected);
        }
    }

    #[test]
    fn a_flood_is_cut_off() {
        let apps = (0..500).map(|number| {
            (format!("/{number}"), report(AppState::Quarantined("x".to_owned())).into())
        });
        let pass = Pass { apps: apps.collect(), ..Pass::default() };
        assert_eq!(Newsroom::default().of_pass(&pass).len(), MAX_LINES + 1);
    }

    #[test]
    fn nobody_makes_up_lines_of_the_log() {
        for (text, expected) in [
            ("/über/\u{5e97}", "/über/\u{5e97}"),
            ("/a\n2026 INFO ok\r", "/a\\n2026 INFO ok\\r"),
            ("\u{1b}[2J\u{9b}\0", "\\u{1b}[2J\\u{9b}\\u{0}"),
            (
                "\u{202a}\u{202e}\u{2066}\u{2069}\u{2028}",
                "\\u{202a}\\u{202e}\\u{2066}\\u{2069}\\u{2028}",
            ),
        ] {
            assert_eq!(printable(text), expected);
        }
    }
}
