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
