//! Replays what fuzzing has found or was given to start from, as ordinary tests.

use std::collections::BTreeSet;
use std::path::Path;

#[path = "../../../fuzz/targets.rs"]
mod targets;

#[test]
fn every_input_of_the_corpus_keeps_its_promises() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut folders = BTreeSet::new();
    for entry in std::fs::read_dir(&corpus).expect("fuzz/corpus") {
        folders.insert(entry.expect("an entry").file_name().into_string().expect("a plain name"));
    }
    let names: BTreeSet<_> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(folders, names, "each target has its corpus, and each corpus its target");
    for (name, target) in targets::TARGETS {
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpus.join(name)).expect("a corpus") {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("an input");
            let result = std::panic::catch_unwind(|| target(&bytes));
            assert!(result.is_ok(), "{} breaks {name}", path.display());
            inputs += 1;
        }
        assert!(inputs > 2, "{name} has only {inputs} inputs");
    }
}
