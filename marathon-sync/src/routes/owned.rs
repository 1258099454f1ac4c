//! What marathon-sync notes in Redis about a list that it keeps.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The note about one host: the value of its field in `marathon-sync:<instance>:owned`, as JSON.
///
/// While an app claims a host, the whole list is the app's. So `rows` are all backends of the list
/// after the last write, also those that stood there before the first one if an app has them: when a
/// list of the old bridge is taken over and its app is deleted later, no row may stay behind, since
/// Mesos gives its port to another app. Only what no app ever wanted and merely stays for now (see
/// [`crate::plan::Wanted::keeps_others`]) is not among them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Owned {
    /// Whether the list was made by us, so that it may be deleted with its last backend.
    pub made: bool,
    /// The backends that an app wanted there, as they are spelled in the list.
    pub rows: BTreeSet<String>,
    /// The apps that claimed the host, so that after a restart one that cannot be read keeps what it
    /// had. All rows are the app's if it is alone, and its set is empty; several apps have their own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub apps: BTreeMap<String, BTreeSet<String>>,
}

/// The note of another instance about a host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Foreign {
    /// The name of that instance.
    pub instance: String,
    /// What it says.
    pub owned: Owned,
    /// How it is written.
    pub text: Vec<u8>,
}

impl Foreign {
    /// The note `text` of `instance`.
    pub fn read(instance: &str, text: Vec<u8>) -> Self {
        Self { instance: instance.to_owned(), owned: Owned::read(&text), text }
    }
}

impl Owned {
    /// Reads a note. One that cannot be read, say after an edit by hand, owns nothing: no backend is
    /// removed because of it once the host is no longer claimed.
    pub fn read(text: &[u8]) -> Self {
        serde_json::from_slice(text).unwrap_or_default()
    }

    /// The note as it is written.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("maps of texts by texts are JSON")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    use super::Owned;

    #[test]
    fn a_note_is_plain_json_and_garbage_owns_nothing() {
        let owned = Owned {
            made: true,
            rows: ["http://a:1".to_owned()].into(),
            apps: [("/a".to_owned(), BTreeSet::new())].into(),
        };
        let text = r#"{"made":true,"rows":["http://a:1"],"apps":{"/a":[]}}"#;
        assert_eq!(owned.to_json(), text);
        let without_apps = Owned::read(br#"{"made":true,"rows":["http://a:1"]}"#);
        assert_eq!(without_apps, Owned { apps: BTreeMap::new(), ..owned });
        for garbage in ["", "{", "[]", r#"{"made":1}"#, "\u{0}"] {
            assert_eq!(Owned::read(garbage.as_bytes()), Owned::default(), "{garbage:?}");
        }
    }

    proptest! {
        #[test]
        fn a_note_reads_back(
            made: bool,
            rows in btree_set(".*", 0..4),
            apps in btree_map(".*", btree_set(".*", 0..3), 0..3),
        ) {
            let owned = Owned { made, rows, apps };
            prop_assert_eq!(Owned::read(owned.to_json().as_bytes()), owned);
        }
    }
}
