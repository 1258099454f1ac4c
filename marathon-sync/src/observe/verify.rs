//! The text of `verify`. Pure.

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
    /// It is but for backends that Marathon's answer does not show any more: one answer does not tell
    /// whether that is true.
    Unconfirmed,
}

/// How Redis differs from what `pass` wants.
pub fn verify(pass: &Pass) -> (String, Outcome) {
    let findings = pass.difference.findings();
    let sums = Sums::of(pass);
    let outcome = match (findings.is_empty(), &pass.held) {
        (false, _) => Outcome::Differs,
        (true, Some(_)) => Outcome::Unconfirmed,
        (true, None) => Outcome::Same,
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
    for finding in findings.iter().take(LINES) {
        text.push_str(&format!("  {finding}\n"));
    }
    if findings.len() > LINES {
        text.push_str(&format!("  and {} more\n", findings.len() - LINES));
    }
    if let Some(held) = &pass.held {
        text.push_str(&format!(
            "backends that are no longer wanted, but stay until that is confirmed: {} ({})\n",
            sums.held, held.reason
        ));
    }
    (text, outcome)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{changes, pass};
    use super::{Outcome, verify};
    use crate::pass::Pass;

    #[test]
    fn says_what_differs_and_whether_anything_does() {
        let same = "Redis is as Marathon's live tasks want it: 3 hosts, 2 live backends\n";
        let (text, outcome) = verify(&Pass { held: None, ..pass() });
        assert_eq!((text.as_str(), outcome), (same, Outcome::Same));

        let (text, outcome) = verify(&pass());
        assert_eq!(outcome, Outcome::Unconfirmed);
        assert!(text.starts_with("one answer of Marathon does not tell"), "{text}");
        assert!(text.contains("stay until that is confirmed: 1 (5 of 6 backends"), "{text}");

        let mut differing = pass();
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
}
