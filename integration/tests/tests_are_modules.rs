//! With `autotests = false` a file that no program names would never be compiled, let alone run.

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn every_file_of_tests_is_a_module_of_one_program() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let programs = ["router", "sync"];
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(&tests).expect("the folder of this file") {
        let path = entry.expect("an entry").path();
        let stem =
            path.file_stem().and_then(|stem| stem.to_str()).expect("a plain name").to_owned();
        if path.extension().is_some_and(|extension| extension == "rs")
            && !programs.contains(&stem.as_str())
        {
            files.insert(stem);
        }
    }
    let mut modules = Vec::new();
    for program in programs {
        let source = std::fs::read_to_string(tests.join(format!("{program}.rs")));
        let source = source.expect("the program's file");
        let names = source.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        modules.extend(names.map(str::to_owned));
    }
    modules.sort();
    assert_eq!(modules, files.into_iter().collect::<Vec<_>>());
}
