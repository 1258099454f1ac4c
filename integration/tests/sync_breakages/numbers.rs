//! Every known breakage and every bug of the bridge has a test with its number.

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn every_breakage_and_every_bridge_bug_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut names = Vec::new();
    for folder in ["integration/tests", "marathon-sync/src", "marathon-sync/tests"] {
        collect(&root.join(folder), &mut names);
    }
    for (kind, last) in [("breakage", 32), ("bridge_bug", 21)] {
        let found: BTreeSet<u32> = names.iter().flat_map(|name| numbers(name, kind)).collect();
        let missing: Vec<u32> = (1..=last).filter(|number| !found.contains(number)).collect();
        assert!(missing.is_empty(), "no test for {kind} {missing:?}");
        assert_eq!(found.last(), Some(&last), "{kind}");
    }
}

/// The names of the functions behind `#[test]`, below a folder.
fn collect(folder: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let tests = text.split("#[test]").skip(1);
            names.extend(
                tests.filter_map(|rest| {
                    Some(rest.split_once("fn ")?.1.split_once('(')?.0.to_owned())
                }),
            );
        }
    }
}

/// `breakage_06_08_and_28_…` is 6, 8 and 28; `breakage_16_to_18_…` is 16, 17 and 18.
fn numbers(name: &str, kind: &str) -> Vec<u32> {
    let rest = name.strip_prefix(kind).and_then(|rest| rest.strip_prefix('_'));
    let mut numbers: Vec<u32> = Vec::new();
    let mut is_range = false;
    for word in rest.unwrap_or_default().split('_') {
        match (word.parse::<u32>(), word) {
            (Ok(number), _) if is_range => {
                let first = numbers.pop().unwrap_or(number);
                numbers.extend(first..=number);
            }
            (Ok(number), _) => numbers.push(number),
            (Err(_), "and" | "to") => {}
            (Err(_), _) => break,
        }
        is_range = word == "to";
    }
    numbers
}

#[test]
fn numbers_are_read_from_names() {
    for (name, expected) in [
        ("breakage_06_08_and_28_what", &[6, 8, 28][..]),
        ("breakage_16_to_18_null", &[16, 17, 18]),
        ("breakage_07_and_8", &[7, 8]),
        ("bridge_bug_07_x", &[]),
        ("breakage_what_7", &[]),
    ] {
        assert_eq!(numbers(name, "breakage"), expected, "{name}");
    }
}
