//! The text of `verify`. Pure.

use super::sums::Sums;
use crate::pass::Pass;

/// Lines that are written out; the rest is counted.
const LINES: usize = 1000;

/// How Redis differs from what `pass` wants, and whether it is the same. What is held back is as it
/// should be until it is confirmed.
pub fn verify(pass: &Pass) -> (String, bool) {
    let findings = pass.difference.findings();
    let sums = Sums::of(pass);
    let mut text = if findings.is_empty() {
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
    (text, findings.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{changes, pass};
    use super::verify;
    use crate::pass::Pass;

    #[test]
    fn says_what_differs_and_whether_anything_does() {
        let same = "Redis is as Marathon's live tasks want it: 3 hosts, 2 live backends\n";
        let (text, is_same) = verify(&Pass { held: None, ..pass() });
        assert_eq!((text.as_str(), is_same), (same, true));

        let mut differing = pass();
        differing.difference.changes = changes(1);
        let (text, is_same) = verify(&differing);
        assert!(!is_same);
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
