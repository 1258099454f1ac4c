//! The text of `verify`. Pure.

use std::fmt::Display;

use super::explain::printable;
use super::sums::Sums;
use crate::pass::Pass;

/// Lines that are written out; the rest is counted.
const LINES: usize = 1000;

/// What the comparison comes to, for the exit code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Redis is as Marathon wants it.
    Same,
    /// It is not.
    Differs,
    /// What can be told is, but apps cannot be read, or not wholly; or backends are not in Marathon's
    /// answer any more, and one answer does not tell whether that is true.
    Unconfirmed,
}

/// How Redis differs from what `pass` wants. `nameless` apps of the answer did not even tell their id.
pub fn verify(pass: &Pass, nameless: usize) -> (String, Outcome) {
    let findings = pass.difference.findings();
    let sums = Sums::of(pass);
    let unread = unread(pass);
    let is_told = pass.held.is_none() && unread.is_empty() && nameless == 0;
    let outcome = match (findings.is_empty(), is_told) {
        (false, _) => Outcome::Differs,
        (true, false) => Outcome::Unconfirmed,
        (true, true) => Outcome::Same,
    };
    let mut text = if outcome == Outcome::Unconfirmed {
        "one answer of Marathon does not tell whether Redis is as it should be\n".to_owned()
    } else if findings.is_empty() {
        let [(_, up), _] = sums.backends;
        let hosts = sums.hosts;
        format!("Redis is as Marathon's live tasks want it: {hosts} hosts, {up} live backends\n")
    } else {
        format!("lists that differ from what Marathon's live tasks want: {}\n", findings.len())
    };
    list(&mut text, &findings);
    if !unread.is_empty() {
        text.push_str(&format!("apps that cannot be read, or not wholly: {}\n", unread.len()));
    }
    list(&mut text, &unread);
    if nameless > 0 {
        text.push_str(&format!("apps of the answer that do not even tell their id: {nameless}\n"));
    }
    if let Some(held) = &pass.held {
        text.push_str(&format!(
            "backends that are no longer wanted, but stay until that is confirmed: {} ({})\n",
            sums.held, held.reason
        ));
    }
    (text, outcome)
}

/// Writes the first of `items` out and counts the rest.
fn list(text: &mut String, items: &[impl Display]) {
    for item in items.iter().take(LINES) {
        text.push_str(&format!("  {item}\n"));
    }
    if items.len() > LINES {
        text.push_str(&format!("  and {} more\n", items.len() - LINES));
    }
}

/// Apps of which the answer does not tell what they want, and why.
fn unread(pass: &Pass) -> Vec<String> {
    let doubts = pass.apps.iter().filter_map(|(id, app)| Some((id, app.state.doubt()?)));
    doubts.map(|(id, why)| format!("{}: {}", printable(id), printable(why))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{changes, pass};
    use super::{Outcome, verify};
    use crate::pass::Pass;

    #[test]
    fn says_what_differs_and_whether_anything_does() {
        let all_read = || {
            let mut pass = pass();
            pass.apps.retain(|id, _| id == "/a" || id == "/s");
            pass
        };
        let verify = |pass: &Pass| verify(pass, 0);
        let same = "Redis is as Marathon's live tasks want it: 3 hosts, 2 live backends\n";
        let (text, outcome) = verify(&Pass { held: None, ..all_read() });
        assert_eq!((text.as_str(), outcome), (same, Outcome::Same));

        let (text, outcome) = verify(&all_read());
        assert_eq!(outcome, Outcome::Unconfirmed);
        assert!(text.starts_with("one answer of Marathon does not tell"), "{text}");
        assert!(text.contains("stay until that is confirmed: 1 (5 of 6 backends"), "{text}");

        let mut differing = all_read();
        differing.difference.changes = changes(1);
        let (text, outcome) = verify(&differing);
        assert_eq!(outcome, Outcome::Differs);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "lists that differ from what Marathon's live tasks want: 1");
        assert!(lines[1].starts_with("  h0.test: update, +http://new0.test:1 "), "{text}");
        assert!(lines[1].ends_with(" -http://old.test:1 (added by hand)"), "{text}");
        assert!(lines[2].starts_with("backends that are no longer wanted, but stay"), "{text}");
        assert_eq!(lines.len(), 3, "{text}");

        differing.difference.changes = changes(1001);
        differing.held = None;
        let (text, _) = verify(&differing);
        assert!(text.ends_with("  and 1 more\n"), "{text}");
    }

    #[test]
    fn what_cannot_be_read_cannot_be_told() {
        let mut unread = Pass { held: None, ..pass() };
        let (text, outcome) = verify(&unread, 0);
        assert_eq!(outcome, Outcome::Unconfirmed);
        let expected = "one answer of Marathon does not tell whether Redis is as it should be\n\
            apps that cannot be read, or not wholly: 2\n\
            \x20 /b: 1 of its tasks cannot be read\n\
            \x20 /q: `labels` is not an object\n";
        assert_eq!(text, expected);
        unread.difference.changes = changes(1);
        let (text, outcome) = verify(&unread, 0);
        assert_eq!(outcome, Outcome::Differs);
        assert!(text.contains("/q: `labels`"), "{text}");

        let quarantined = unread.apps["/q"].clone();
        let ids = (0..1001).map(|id| (format!("/{id}\u{1b}"), quarantined.clone()));
        let many = Pass { held: None, apps: ids.collect(), ..Pass::default() };
        let (text, _) = verify(&many, 0);
        assert!(text.contains("  /0\\u{1b}: ") && text.ends_with("  and 1 more\n"), "{text}");

        let (text, outcome) = verify(&Pass::default(), 1);
        assert_eq!(outcome, Outcome::Unconfirmed);
        assert!(text.contains("do not even tell their id: 1\n"), "{text}");
    }
}
