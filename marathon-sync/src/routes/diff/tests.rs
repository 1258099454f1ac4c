use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use shared::store::KeyProblem;

use super::super::backend::Backend;
use super::super::change::{Action, Change, backends};
use super::super::owned::Owned;
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
        owned: BTreeMap::new(),
        lists: [("bad".to_owned(), Err(problem.clone()))].into(),
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
    (owned, lists).prop_map(|(owned, lists)| Snapshot { owned, lists })
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let backends = || proptest::collection::vec("[a-f]".prop_map(|letter| row(&letter)), 0..5);
    let wanted = (backends(), backends(), any::<bool>()).prop_map(|(up, unsure, keeps_others)| {
        Wanted { identifier: "new".to_owned(), up, unsure, keeps_others, ..Wanted::default() }
    });
    proptest::collection::btree_map("[k-p]", wanted, 0..4)
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
