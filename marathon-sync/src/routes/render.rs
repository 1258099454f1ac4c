//! A change as the `redis-cli` lines that it stands for. Pure.
//!
//! The lines of one change are a transaction: piped into `redis-cli`, no reader sees half of it.
//! They differ from what the script does in one point: nobody knows the dead positions beforehand, so
//! marks that would mean other backends afterwards are deleted, not moved.

use std::collections::BTreeMap;

use shared::keys;

use super::change::{Action, Change};

/// The lines, without line ends. `prefix` is the driver's, `instance` names the marathon-sync.
pub fn render(change: &Change, prefix: &str, instance: &str) -> Vec<String> {
    let list = keys::frontend(prefix, &change.host);
    let mut lines = Vec::new();
    if change.action == Action::Delete {
        lines.push(line(&["DEL"], [&list]));
    } else {
        let identifier = change.seen.is_empty().then_some(change.identifier.as_slice());
        let rows: Vec<&[u8]> =
            identifier.into_iter().chain(change.added.iter().map(String::as_bytes)).collect();
        if !rows.is_empty() && change.owned.is_some() {
            lines.push(line(&["RPUSH", &list], rows));
        }
        // Counted from the end: the identifier may read like a backend, and must stay.
        let mut counts: BTreeMap<&[u8], i64> = BTreeMap::new();
        for removed in &change.removed {
            *counts.entry(&removed.row).or_default() -= 1;
        }
        for (row, count) in counts {
            lines.push(line(&["LREM", &list, &count.to_string()], [row]));
        }
    }
    if !change.removed.is_empty() || change.action == Action::Delete {
        lines.push(line(&["DEL"], [keys::dead(prefix, &change.host)]));
    }
    let notes = keys::agent_owned(prefix, instance);
    lines.push(match &change.owned {
        Some(owned) => line(&["HSET", &notes, &change.host], [owned.to_json()]),
        None => line(&["HDEL", &notes], [&change.host]),
    });
    if lines.len() > 1 {
        lines.insert(0, "MULTI".to_owned());
        lines.push("EXEC".to_owned());
    }
    lines
}

fn line<T: AsRef<[u8]>>(words: &[&str], more: impl IntoIterator<Item = T>) -> String {
    let mut text: Vec<String> = words.iter().map(|word| quote(word.as_bytes())).collect();
    text.extend(more.into_iter().map(|word| quote(word.as_ref())));
    text.join(" ")
}

/// One argument as `redis-cli` reads it, and a shell as well where that is possible.
fn quote(word: &[u8]) -> String {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/,@%+=".contains(b);
    let is_literal = |b: &u8| matches!(b, b' '..=b'~') && !matches!(b, b'\'' | b'\\');
    if !word.is_empty() && word.iter().all(is_plain) {
        return String::from_utf8_lossy(word).into_owned();
    }
    if word.iter().all(is_literal) {
        return format!("'{}'", String::from_utf8_lossy(word));
    }
    let mut text = String::from("\"");
    for byte in word {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::{quote, render};
    use crate::routes::change::{Action, Change, Removed};
    use crate::routes::owned::Owned;

    fn change(action: Action) -> Change {
        Change {
            host: "a.test".to_owned(),
            action,
            seen: Vec::new(),
            identifier: b"a".to_vec(),
            kept: Vec::new(),
            added: Vec::new(),
            removed: Vec::new(),
            owned: None,
            records: Vec::new(),
        }
    }

    fn removed(row: &str) -> Removed {
        Removed { row: row.as_bytes().to_vec(), by_hand: false }
    }

    #[test]
    fn a_change_is_the_lines_that_it_stands_for() {
        let list = |rows: &[&str]| rows.iter().map(|row| row.as_bytes().to_vec()).collect();
        let rows = ["http://b:1".to_owned()].into();
        let owned = Some(Owned { made: true, rows, ..Owned::default() });
        let note =
            r#"HSET x:marathon-sync:blue:owned a.test '{"made":true,"rows":["http://b:1"]}'"#;
        let forget = "HDEL x:marathon-sync:blue:owned a.test";
        for (change, lines) in [
            (
                Change {
                    added: vec!["http://b:1".to_owned()],
                    owned: owned.clone(),
                    ..change(Action::Create)
                },
                vec!["MULTI", "RPUSH x:frontend:a.test a http://b:1", note, "EXEC"],
            ),
            (
                Change {
                    seen: list(&["my site", "my site", "http://c:1", "my site"]),
                    added: vec!["http://b:1".to_owned()],
                    removed: vec![removed("my site"), removed("http://c:1"), removed("my site")],
                    owned: owned.clone(),
                    ..change(Action::Update)
                },
                vec![
                    "MULTI",
                    "RPUSH x:frontend:a.test http://b:1",
                    "LREM x:frontend:a.test -1 http://c:1",
                    "LREM x:frontend:a.test -2 'my site'",
                    "DEL x:dead:a.test",
                    note,
                    "EXEC",
                ],
            ),
            (
                Change { seen: list(&["a", "http://b:1"]), owned, ..change(Action::Adopt) },
                vec![note],
            ),
            (
                Change {
                    seen: list(&["a", "http://b:1"]),
                    removed: vec![removed("http://b:1")],
                    ..change(Action::Delete)
                },
                vec!["MULTI", "DEL x:frontend:a.test", "DEL x:dead:a.test", forget, "EXEC"],
            ),
            (change(Action::Forget), vec![forget]),
        ] {
            assert_eq!(render(&change, "x:", "blue"), lines, "{change:?}");
        }
    }

    #[test]
    fn every_byte_survives_quoting() {
        for (word, quoted) in [
            (&b"frontend:a.test"[..], "frontend:a.test"),
            (b"", "''"),
            (b"frontend:*.test", "'frontend:*.test'"),
            (b"it's", "\"it's\""),
            (b"a\"b", "'a\"b'"),
            (b"a\\b'\"\n\xff", "\"a\\\\b'\\\"\\x0a\\xff\""),
        ] {
            assert_eq!(quote(word), quoted);
        }
    }
}
