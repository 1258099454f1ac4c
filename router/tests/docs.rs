//! The reference pages say what the program does: every flag, variable, key and metric is there.

use std::path::Path;

use clap::CommandFactory as _;
use router::cli::Cli;

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(path).expect("the page is there")
}

#[test]
fn every_flag_and_variable_is_documented() {
    let page = page("configuration.md");
    for argument in Cli::command().get_arguments() {
        let Some(flag) = argument.get_long() else { continue };
        if ["help", "version"].contains(&flag) {
            continue;
        }
        assert!(page.contains(&format!("--{flag}")), "--{flag} is not in configuration.md");
        if let Some(variable) = argument.get_env().and_then(|name| name.to_str()) {
            assert!(page.contains(variable), "{variable} is not in configuration.md");
        }
    }
}

#[test]
fn every_metric_is_documented() {
    let page = page("metrics.md");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics.rs");
    let source = std::fs::read_to_string(source).expect("the source is there");
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let names = source.split('"').filter(|text| text.starts_with("router_"));
    let mut count = 0;
    for name in names {
        assert!(page.contains(&format!("`{name}")), "{name} is not in metrics.md");
        count += 1;
    }
    assert!(count >= 9, "{count} names found");
}

/// Every row of the contract names a test that holds it, and every test named there exists.
#[test]
fn every_line_of_the_contract_has_a_test() {
    let rows = rows_with_tests("hipache-contract.md");
    assert!(rows >= 60, "{rows} rows found");
}

/// Every class of attack names a test that holds its answer, and every test named there exists.
#[test]
fn every_class_of_attack_has_a_test() {
    let rows = rows_with_tests("security.md");
    assert!(rows >= 30, "{rows} rows found");
}

/// Checks the rows of the tables of a page, and counts them.
#[track_caller]
fn rows_with_tests(name: &str) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = page(name);
    let lines: Vec<_> = page.lines().collect();
    let mut rows = 0;
    for (number, line) in lines.iter().enumerate() {
        let names: Vec<_> = line.split('`').skip(1).step_by(2).filter_map(as_test).collect();
        let is_heading = lines.get(number + 1).is_some_and(|next| next.starts_with("|---"));
        if line.starts_with("| ") && !is_heading {
            assert!(!names.is_empty(), "no test is named in: {line}");
            rows += 1;
        }
        for (file, name) in names {
            let source = std::fs::read_to_string(root.join(&file))
                .unwrap_or_else(|error| panic!("{file} of {name}: {error}"));
            assert!(source.contains(&format!("fn {name}(")), "{file} has no test {name}");
        }
    }
    rows
}

/// The file and the function of a test that is written as `routing::name` or `router::route::name`.
fn as_test(text: &str) -> Option<(String, &str)> {
    let is_path =
        text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b":_".contains(&b));
    let (module, name) = text.rsplit_once("::").filter(|_| is_path)?;
    // Addresses such as `::ffff:` are no tests, nor is what the page explains itself with.
    if module.is_empty() || name == "name" {
        return None;
    }
    let path = module.replace("::", "/");
    Some(match path.split_once('/') {
        // Groups of tests with a directory of their own.
        Some(("probes" | "desync" | "http2_conformance", _)) => {
            (format!("integration/tests/{path}.rs"), name)
        }
        Some((member, rest)) => (format!("{member}/src/{rest}.rs"), name),
        None => (format!("integration/tests/{path}.rs"), name),
    })
}
