use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use shared::store::KeyProblem;

use super::super::backend::Backend;
use super::super::change::{Action, Change, backends};
use super::super::owned::{Foreign, Owned};
use super::super::snapshot::Snapshot;
use super::{Difference, diff};
use crate::plan::{Plan, Wanted};

/// `a` stands for a URL; what is no single letter stands for itself.
fn row(word: &str) -> String {
    if word.len() == 1 { format!("http://{word}.test:1") } else { word.to_owned() }
}

fn rows(words: &str) -> Vec<String> {
    words.split_whitespace().map(row).collect()
}

/// An identifier and backends.
fn list(words: &str) -> Vec<Vec<u8>> {
    let mut list: Vec<Vec<u8>> = rows(words).into_iter().map(String::into_bytes).collect();
    if let (Some(first), Some(word)) = (list.first_mut(), words.split_whitespace().next()) {
        *first = word.as_bytes().to_vec();
    }
    list
}

fn wanted(up: &str, unsure: &str) -> Wanted {
    let (up, unsure) = (rows(up), rows(unsure));
    Wanted { identifier: "new".to_owned(), up, unsure, ..Wanted::default() }
}

fn owned(made: bool, words: &str) -> Owned {
    Owned { made, rows: rows(words).into_iter().collect(), apps: BTreeMap::new() }
}

const HOST: &str = "h.test";

fn diff_one(
    wanted: Option<Wanted>,
    owned: Option<Owned>,
    list: Vec<Vec<u8>>,
) -> (Difference, Plan, Snapshot) {
    let plan: Plan = wanted.into_iter().map(|wanted| (HOST.to_owned(), wanted)).collect();
    let mut snapshot = Snapshot::default();
    snapshot.owned.extend(owned.map(|owned| (HOST.to_owned(), owned)));
    if !list.is_empty() {
        snapshot.lists.insert(HOST.to_owned(), Ok(list));
    }
    (diff(&plan, &snapshot), plan, snapshot)
}

/// What Redis holds after the changes.
fn apply(changes: &[Change], snapshot: &Snapshot) -> Snapshot {
    let mut snapshot = snapshot.clone();
    for change in changes {
        let host = change.host.clone();
        match &change.owned {
            Some(owned) => drop(snapshot.owned.insert(host.clone(), owned.clone())),
            None => drop(snapshot.owned.remove(&host)),
        }
        let after = change.after();
        snapshot.lists.remove(&host);
        if !after.is_empty() {
            snapshot.lists.insert(host, Ok(after));
        }
    }
    snapshot
}

#[test]
fn a_claimed_list_becomes_identifier_survivors_and_new_backends() {
    // up, unsure, note, list, action, list afterwards, removed although added by hand
    type Case = (
        &'static str,
        &'static str,
        Option<(bool, &'static str)>,
        &'static str,
        Option<Action>,
        &'static str,
        &'static str,
    );
    let cases: &[Case] = &[
        // A new list.
        ("a b", "", None, "", Some(Action::Create), "new a b", ""),
        ("a b a", "c", None, "", Some(Action::Create), "new a b", ""),
        ("", "", None, "", Some(Action::Create), "new", ""),
        ("a", "", Some((false, "a b")), "", Some(Action::Create), "new a", ""),
        // Nothing to do.
        ("a b", "", Some((true, "a b")), "id a b", None, "id a b", ""),
        ("b a", "", Some((true, "a b")), "id a b", None, "id a b", ""),
        ("a", "b", Some((true, "a b")), "id a b", None, "id a b", ""),
        ("", "", Some((true, "")), "id", None, "id", ""),
        // Taken over, for example from the bridge.
        ("a b", "", None, "id a b", Some(Action::Adopt), "id a b", ""),
        ("", "", None, "id", Some(Action::Adopt), "id", ""),
        // Backends come and go, survivors stay in their order.
        ("c b d", "", Some((true, "a b c")), "id a b c", Some(Action::Update), "id b c d", ""),
        ("d", "b", Some((true, "a b c")), "id a b c", Some(Action::Update), "id b d", ""),
        ("", "", Some((true, "a b")), "id a b", Some(Action::Update), "id", ""),
        ("a", "z", Some((true, "a")), "id a", None, "id a", ""),
        // By hand: removed, and said.
        ("a", "", Some((true, "a")), "id x a y", Some(Action::Update), "id a", "x y"),
        ("a", "", Some((true, "a b")), "id x a b", Some(Action::Update), "id a", "x"),
        ("a", "", None, "id junk a", Some(Action::Update), "id a", "junk"),
        // A weight by hand stays, and goes as a whole.
        ("a b", "", Some((true, "a b")), "id a b a", None, "id a b a", ""),
        ("b", "", Some((true, "a b")), "id a b a", Some(Action::Update), "id b", ""),
        // Other spellings.
        (
            "a b",
            "",
            None,
            "id HTTP://A.test:1/ b",
            Some(Action::Adopt),
            "id HTTP://A.test:1/ b",
            "",
        ),
        (
            "c",
            "b",
            Some((true, "a b")),
            "id http://a.TEST:1/ http://b.test:1/",
            Some(Action::Update),
            "id http://b.test:1/ c",
            "",
        ),
        // No identifier: the first item is one to every reader, whatever it is.
        ("a", "", None, "http://a.test:1", Some(Action::Update), "http://a.test:1 a", ""),
        (
            "b",
            "",
            None,
            "http://a.test:1 http://a.test:1",
            Some(Action::Update),
            "http://a.test:1 b",
            "a",
        ),
    ];
    for case @ (up, unsure, note, before, action, after, by_hand) in cases {
        let note = note.map(|(made, rows)| owned(made, rows));
        let (difference, plan, snapshot) = diff_one(Some(wanted(up, unsure)), note, list(before));
        let change = difference.changes.first();
        assert_eq!(change.map(|change| change.action), *action, "{case:?}");
        let expected: Vec<Vec<u8>> = list(after);
        assert_eq!(change.map_or_else(|| list(before), Change::after), expected, "{case:?}");
        let removed: Vec<String> = change
            .iter()
            .flat_map(|change| &change.removed)
            .filter(|removed| removed.by_hand)
            .map(|removed| String::from_utf8(removed.row.clone()).unwrap())
            .collect();
        assert_eq!(removed, rows(by_hand), "{case:?}");
        let again = diff(&plan, &apply(&difference.changes, &snapshot));
        assert_eq!(again, Difference::default(), "{case:?}");
    }
}

#[test]
fn a_host_that_is_given_up_keeps_what_is_not_ours() {
    for case @ (made, ours, before, action, after) in [
        (true, "a b", "id a b", Action::Delete, ""),
        (true, "", "id", Action::Delete, ""),
        (true, "a b", "id a x b", Action::Release, "id x"),
        (true, "a", "id a x x", Action::Release, "id x x"),
        (false, "a b", "id a b", Action::Release, "id"),
        (false, "", "id x y", Action::Release, "id x y"),
        (true, "a", "id HTTP://a.test:1/ a", Action::Delete, ""),
        (true, "a", "id junk", Action::Release, "id junk"),
        (true, "a", "", Action::Forget, ""),
    ] {
        let (difference, plan, snapshot) = diff_one(None, Some(owned(made, ours)), list(before));
        let change = difference.changes.first().unwrap();
        assert_eq!((change.action, change.after()), (action, list(after)), "{case:?}");
        assert_eq!(change.owned, None);
        assert!(change.removed.iter().all(|removed| !removed.by_hand), "{case:?}");
        let after = apply(&difference.changes, &snapshot);
        assert_eq!(diff(&plan, &after), Difference::default(), "{case:?}");
    }
}

#[test]
fn a_list_that_was_taken_over_is_ours_as_long_as_it_is_claimed() {
    let (difference, _, _) = diff_one(Some(wanted("a b", "c")), None, list("id c a"));
    let note = difference.changes[0].owned.clone().unwrap();
    assert_eq!(note, owned(false, "a b c"));
    let (difference, ..) = diff_one(None, Some(note), list("id c a b x"));
    assert_eq!(difference.changes[0].after(), list("id x"));
}

#[test]
fn what_others_added_stays_unnoted_where_the_plan_says_so() {
    // up, unsure, kept others, listed again, rows of the note, list, list afterwards, note afterwards
    for case @ (up, unsure, others, again, ours, before, after, noted) in [
        ("a", "", "x", "", "a", "id a x y", "id a x", "a"),
        ("a", "", "x b", "", "a b", "id x a b", "id x a b", "a b"),
        ("b", "a", "x", "", "a", "id x", "id x b", "b"),
        ("a", "", "", "x a", "", "", "new a x", "a"),
        ("a", "", "junk", "", "", "id junk", "id junk a", "a"),
        ("a", "", "*", "", "a c", "id x a y c junk", "id x a y junk", "a"),
        ("", "a", "*", "", "a", "id x", "id x", ""),
        ("", "a", "*", "x", "", "", "new x", ""),
    ] {
        let keeps_others = others == "*";
        let others = if keeps_others { "" } else { others };
        let others = rows(others).into_iter().map(String::into_bytes).collect();
        let again = rows(again);
        let wanted = Wanted { keeps_others, others, again, ..wanted(up, unsure) };
        let note = Some(owned(true, ours));
        let (difference, plan, snapshot) = diff_one(Some(wanted), note, list(before));
        let then = apply(&difference.changes, &snapshot);
        let is = then.lists[HOST].as_ref().unwrap();
        assert_eq!((is, &then.owned[HOST]), (&list(after), &owned(true, noted)), "{case:?}");
        assert_eq!(diff(&plan, &then), Difference::default(), "{case:?}");
    }
}

#[test]
fn a_key_of_another_type_is_reported_and_harms_no_other_host() {
    let problem = KeyProblem { key: "frontend:bad".to_owned(), detail: "no list".to_owned() };
    let plan: Plan =
        ["a", "bad", "z"].map(|host| (host.to_owned(), wanted("a", ""))).into_iter().collect();
    let snapshot = Snapshot {
        lists: [("bad".to_owned(), Err(problem.clone()))].into(),
        ..Snapshot::default()
    };
    let difference = diff(&plan, &snapshot);
    let hosts: Vec<&str> = difference.changes.iter().map(|change| &*change.host).collect();
    assert_eq!((hosts, &difference.problems), (vec!["a", "z"], &vec![problem]));
    assert_eq!(
        difference.findings(),
        [
            "frontend:bad cannot be used: no list",
            "a: create, +http://a.test:1",
            "z: create, +http://a.test:1"
        ]
    );
}

#[test]
fn what_is_only_not_noted_yet_is_no_finding() {
    let (difference, ..) = diff_one(Some(wanted("a", "")), None, list("id a"));
    assert_eq!((difference.changes.len(), difference.findings()), (1, Vec::new()));
    let (difference, ..) = diff_one(Some(wanted("a", "")), None, list("id a x"));
    assert_eq!(
        difference.findings(),
        ["h.test: update, -http://x.test:1 (added by hand)".replace("http://x.test:1", &row("x"))]
    );
}

#[test]
fn the_note_says_whose_the_rows_are() {
    let claimed = |apps: &[&str], shares: &[(&str, &str)]| Wanted {
        apps: apps.iter().map(|app| (*app).to_owned()).collect(),
        shares: shares
            .iter()
            .map(|(app, words)| ((*app).to_owned(), rows(words).into_iter().collect()))
            .collect(),
        ..wanted("a b", "c")
    };
    let noted = |wanted: Wanted, before: Option<Owned>| {
        let (difference, _, snapshot) = diff_one(Some(wanted.clone()), before, list("id a"));
        let after = apply(&difference.changes, &snapshot);
        let plan = [(HOST.to_owned(), wanted)].into();
        assert_eq!(diff(&plan, &after), Difference::default());
        after.owned[HOST].apps.clone()
    };
    let alone = noted(claimed(&["/x"], &[]), None);
    assert_eq!(alone, [("/x".to_owned(), BTreeSet::new())].into());
    let shares = [("/x", "a c"), ("/y", "b")];
    let shared = noted(claimed(&["/x", "/y"], &shares), Some(owned(true, "a")));
    let expected = [("/x", "a"), ("/y", "b")];
    let expected: BTreeMap<String, BTreeSet<String>> = expected
        .into_iter()
        .map(|(app, words)| (app.to_owned(), rows(words).into_iter().collect()))
        .collect();
    assert_eq!(shared, expected, "c is not listed");
    let before = Owned { apps: expected.clone(), ..owned(true, "a") };
    assert_eq!(noted(wanted("a", ""), Some(before)), expected, "while only the guard keeps it");
}

/// What this instance changes in a list that another one, `other`, has a part in.
fn diff_shared(
    wanted: Option<Wanted>,
    ours: Option<Owned>,
    theirs: &Owned,
    list: Vec<Vec<u8>>,
) -> Vec<Change> {
    let (_, plan, mut snapshot) = diff_one(wanted, ours, list);
    let foreign = Foreign::read("other", theirs.to_json().into_bytes());
    snapshot.instances = vec!["idle".to_owned(), "other".to_owned()];
    snapshot.foreign = [(HOST.to_owned(), vec![foreign])].into();
    let changes = diff(&plan, &snapshot).changes;
    for change in &changes {
        let records =
            [("idle".to_owned(), Vec::new()), ("other".to_owned(), theirs.to_json().into_bytes())];
        assert_eq!(change.records, records, "written only while these stand");
    }
    changes
}

#[test]
fn rows_of_another_instance_are_neither_removed_nor_noted_as_ours() {
    // up, our note, their rows, list, action, list afterwards, our note afterwards
    type Case = (
        Option<&'static str>,
        Option<&'static str>,
        &'static str,
        &'static str,
        Option<Action>,
        &'static str,
        Option<&'static str>,
    );
    let cases: &[Case] = &[
        // Claimed by both: the union.
        (Some("a"), None, "b", "id b", Some(Action::Update), "id b a", Some("a")),
        (Some("a"), Some("a"), "b", "id b a", None, "id b a", Some("a")),
        (Some("a"), Some("a"), "b", "id HTTP://b.test:1/ a", None, "", Some("a")),
        (Some("c"), Some("a"), "b", "id b a", Some(Action::Update), "id b c", Some("c")),
        (Some("a"), Some("a"), "b", "id b a x", Some(Action::Update), "id b a", Some("a")),
        // The same backend.
        (Some("a"), None, "a", "id a", Some(Action::Adopt), "id a", Some("a")),
        (Some(""), Some("a"), "a b", "id a b", Some(Action::Adopt), "id a b", Some("")),
        // Given up: what the other one has stays, also a list without a backend.
        (None, Some("a"), "b", "id b a", Some(Action::Release), "id b", None),
        (None, Some("a"), "a", "id a", Some(Action::Release), "id a", None),
        (None, Some("a"), "", "id a", Some(Action::Release), "id", None),
        (None, Some("a"), "b", "", Some(Action::Forget), "", None),
    ];
    for case @ (up, ours, theirs, before, action, after, noted) in cases {
        let wanted = up.map(|up| Wanted { apps: vec!["/a".to_owned()], ..wanted(up, "") });
        let note = |words| {
            let apps = [("/a".to_owned(), BTreeSet::new())].into();
            Owned { apps, ..owned(true, words) }
        };
        let changes = diff_shared(wanted, ours.map(note), &owned(true, theirs), list(before));
        let change = changes.first();
        assert_eq!(change.map(|change| change.action), *action, "{case:?}");
        let Some(change) = change else { continue };
        assert_eq!(change.after(), list(after), "{case:?}");
        assert_eq!(change.owned, noted.map(note), "{case:?}");
    }
}

#[test]
fn whoever_stays_deletes_the_list_that_another_instance_made() {
    let plan = || Some(Wanted { apps: vec!["/a".to_owned()], ..wanted("a", "") });
    let ours = Owned { apps: [("/a".to_owned(), BTreeSet::new())].into(), ..owned(false, "a") };
    let changes = diff_shared(plan(), Some(ours), &owned(true, "b"), list("id b a"));
    let note = changes[0].owned.clone().unwrap();
    assert_eq!((changes[0].action, note.made), (Action::Adopt, true));
    let (difference, ..) = diff_one(None, Some(note), list("id a"));
    assert_eq!(difference.changes[0].action, Action::Delete);
}

/// Few rows, so that they meet; spelled in several ways, repeated, and junk.
fn any_row() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-f]".prop_map(|letter| row(&letter)),
        1 => "[a-f]".prop_map(|letter| format!("HTTP://{letter}.test:1/")),
        1 => Just("junk".to_owned()),
    ]
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let host = "[k-p]";
    let note = (any::<bool>(), proptest::collection::btree_set(any_row(), 0..4))
        .prop_map(|(made, rows)| Owned { made, rows, apps: BTreeMap::new() });
    let list = proptest::collection::vec(any_row().prop_map(String::into_bytes), 1..7).prop_map(Ok);
    let owned = proptest::collection::btree_map(host, note, 0..4);
    let lists = proptest::collection::btree_map(host, list, 0..5);
    (owned, lists).prop_map(|(owned, lists)| Snapshot { owned, lists, ..Snapshot::default() })
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let backends = || proptest::collection::vec("[a-f]".prop_map(|letter| row(&letter)), 0..5);
    let wanted = (backends(), backends(), any::<bool>()).prop_map(|(up, unsure, keeps_others)| {
        Wanted { identifier: "new".to_owned(), up, unsure, keeps_others, ..Wanted::default() }
    });
    proptest::collection::btree_map("[k-p]", wanted, 0..4)
}

/// One list that two instances write.
#[derive(Debug, Default)]
struct Shared {
    /// What each wants; `None`: it does not claim the host.
    up: [Option<Vec<String>>; 2],
    notes: [Option<Owned>; 2],
    list: Vec<Vec<u8>>,
}

impl Shared {
    /// One pass of `who`. Returns whether it had anything to change.
    fn look(&mut self, who: usize) -> bool {
        let apps = vec![format!("/{who}")];
        let plan: Plan = self.up[who]
            .iter()
            .map(|up| {
                let wanted = Wanted { up: up.clone(), apps: apps.clone(), ..wanted("", "") };
                (HOST.to_owned(), wanted)
            })
            .collect();
        let other = 1 - who;
        let foreign = self.notes[other]
            .iter()
            .map(|note| Foreign::read(&other.to_string(), note.to_json().into_bytes()));
        let mut snapshot = Snapshot { instances: vec![other.to_string()], ..Snapshot::default() };
        snapshot.foreign = [(HOST.to_owned(), foreign.collect::<Vec<_>>())].into();
        snapshot.foreign.retain(|_, foreign| !foreign.is_empty());
        snapshot.owned.extend(self.notes[who].clone().map(|note| (HOST.to_owned(), note)));
        if !self.list.is_empty() {
            snapshot.lists.insert(HOST.to_owned(), Ok(self.list.clone()));
        }
        let changes = diff(&plan, &snapshot).changes;
        let then = apply(&changes, &snapshot);
        self.notes[who] = then.owned.get(HOST).cloned();
        self.list = then.lists.get(HOST).map_or_else(Vec::new, |list| list.clone().unwrap());
        !changes.is_empty()
    }
}

fn set<T: AsRef<[u8]>>(rows: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    rows.into_iter().map(|row| format!("{:?}", Backend::of(row.as_ref()))).collect()
}

proptest! {
    #[test]
    fn after_the_changes_every_list_is_as_wanted(plan in any_plan(), before in any_snapshot()) {
        let difference = diff(&plan, &before);
        let after = apply(&difference.changes, &before);
        for (host, wanted) in &plan {
            let listed = set(after.backends(host));
            let may_stay = set(&wanted.unsure);
            let was = set(before.backends(host));
            let mut expected = set(&wanted.up);
            expected.extend(may_stay.intersection(&was).cloned());
            let noted = set(&after.owned[host].rows);
            prop_assert_eq!(&noted, &expected, "only what is wanted is noted");
            if wanted.keeps_others {
                let ours = before.owned.get(host).map(|owned| set(&owned.rows));
                expected.extend(was.difference(&ours.unwrap_or_default()).cloned());
            }
            prop_assert_eq!(listed, expected);
        }
        prop_assert_eq!(diff(&plan, &after), Difference::default());
    }

    /// Two instances with wishes that change, one after the other at one Redis.
    #[test]
    fn two_instances_of_one_host_end_at_the_union_and_rest(
        wishes in proptest::collection::vec(
            (0..2_usize, proptest::option::of(proptest::collection::btree_set("[a-d]", 0..4))),
            1..12,
        ),
    ) {
        let mut shared = Shared::default();
        for (who, up) in wishes {
            shared.up[who] = up.map(|up| up.iter().map(|word| row(word)).collect());
            shared.look(who);
        }
        shared.look(0);
        shared.look(1);
        let before = (shared.list.clone(), shared.notes.clone());
        for who in [0, 1, 0, 1] {
            prop_assert!(!shared.look(who), "{:?}", shared);
        }
        prop_assert_eq!((&shared.list, &shared.notes), (&before.0, &before.1));
        let claimed: Vec<&Vec<String>> = shared.up.iter().flatten().collect();
        let union: BTreeSet<String> = claimed.iter().copied().flatten().cloned().collect();
        prop_assert_eq!(set(backends(&shared.list)), set(&union));
        prop_assert_eq!(shared.list.is_empty(), claimed.is_empty(), "a claimed host has a list");
    }

    #[test]
    fn survivors_keep_their_order_and_spelling(plan in any_plan(), before in any_snapshot()) {
        for change in diff(&plan, &before).changes {
            prop_assert!(change.kept.is_sorted());
            if change.action == Action::Delete {
                continue;
            }
            let after = change.after();
            let survivors: Vec<_> =
                backends(&after).iter().take(change.kept.len()).collect();
            let stayed = backends(&change.seen).iter().filter(|row| survivors.contains(row));
            prop_assert_eq!(&survivors, &stayed.collect::<Vec<_>>());
            if let Some(identifier) = change.seen.first() {
                prop_assert_eq!(after.first(), Some(identifier));
            }
        }
    }

    #[test]
    fn what_is_neither_claimed_nor_owned_is_never_touched(plan in any_plan(), before in any_snapshot()) {
        for change in diff(&plan, &before).changes {
            prop_assert!(plan.contains_key(&change.host) || before.owned.contains_key(&change.host));
        }
    }

    #[test]
    fn giving_up_removes_no_row_that_is_not_ours(before in any_snapshot()) {
        let after = apply(&diff(&Plan::new(), &before).changes, &before);
        prop_assert!(after.owned.is_empty());
        for host in before.lists.keys() {
            let ours = before.owned.get(host).map(|owned| set(&owned.rows)).unwrap_or_default();
            let theirs = before.backends(host).iter().filter(|row| {
                !ours.contains(&format!("{:?}", Backend::of(row)))
            });
            prop_assert_eq!(
                after.backends(host).iter().collect::<Vec<_>>(),
                theirs.collect::<Vec<_>>()
            );
        }
    }
}
