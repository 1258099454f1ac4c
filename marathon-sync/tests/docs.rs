//! The reference pages say what the program does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use marathon_sync::cli::Cli;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names that the program gives to its metrics, without what the format adds.
fn metrics() -> BTreeSet<String> {
    let source = read("marathon-sync/src/observe/metrics.rs");
    let source = source.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    let names = source.split('"').filter(|text| text.starts_with("marathon_sync_"));
    let names: BTreeSet<String> = names.map(str::to_owned).collect();
    assert!(names.len() >= 20, "{names:?}");
    names
}

#[test]
fn every_metric_is_documented() {
    let page = read("docs/metrics.md");
    for name in metrics() {
        let is_there =
            ["` |", "_total` |"].iter().any(|end| page.contains(&format!("`{name}{end}")));
        assert!(is_there, "{name} is not in docs/metrics.md");
    }
}

/// Also those of the alerts: a rule about a metric that does not exist never fires.
#[test]
fn every_metric_that_is_written_about_exists() {
    let names = metrics();
    for path in ["docs/metrics.md", "contrib/prometheus/marathon-sync.rules.yml"] {
        let text = read(path);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let words: BTreeSet<&str> =
            words.filter(|word| word.starts_with("marathon_sync_")).collect();
        assert!(!words.is_empty(), "{path}");
        for word in words {
            let name = ["_total", "_bucket", "_count", "_sum"]
                .iter()
                .fold(word, |word, end| word.strip_suffix(end).unwrap_or(word));
            assert!(names.contains(name), "{path}: there is no metric {word}");
        }
    }
}

/// The sources below a directory, without their tests.
fn sources(directory: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            let source = std::fs::read_to_string(&path).expect("a source");
            text.push_str(source.split("#[cfg(test)]").next().unwrap_or_default());
        }
    }
    text
}

/// The commands that the sources send to Redis are those that its user is allowed in
/// `redis-schema.md`.
#[test]
fn every_command_of_redis_is_documented() {
    let source = sources(&root().join("marathon-sync/src/routes"));
    let mut sent = BTreeSet::new();
    for (start, end) in [("Command::new(\"", '"'), ("redis.call('", '\''), ("redis.pcall('", '\'')]
    {
        let names = source.split(start).skip(1).filter_map(|rest| rest.split(end).next());
        sent.extend(names.map(str::to_lowercase));
    }
    assert!(sent.len() >= 12, "{sent:?}");
    // What the shared connection and its library send.
    sent.extend(["eval", "ping", "select"].map(str::to_owned));

    let schema = read("docs/redis-schema.md");
    let rule = schema.split("ACL SETUSER marathon-sync ").nth(1).unwrap();
    let words = rule.split("```").next().unwrap().split_whitespace();
    let allowed = words.filter_map(|word| word.trim_matches('\'').strip_prefix('+'));
    let allowed: BTreeSet<_> = allowed.map(str::to_owned).collect();
    assert_eq!(allowed, sent, "allowed by redis-schema.md, and sent");
}

#[test]
fn every_flag_variable_and_command_is_documented() {
    let page = read("docs/marathon-sync.md");
    let command = Cli::command();
    let mut count = 0;
    for argument in command.get_arguments() {
        let Some(flag) = argument.get_long() else { continue };
        if ["help", "version"].contains(&flag) {
            continue;
        }
        let names = argument.get_all_aliases().unwrap_or_default().into_iter();
        for name in names.chain([flag]) {
            let is_there = page.contains(&format!("`--{name}"))
                || page.contains(&format!(", `--{name} "))
                || page.contains(&format!("--{name}`"));
            assert!(is_there, "--{name} is not in marathon-sync.md");
        }
        let variable = argument.get_env().and_then(|name| name.to_str());
        let variable = variable.unwrap_or_else(|| panic!("--{flag} has no variable"));
        let expected = flag.replace('-', "_").to_uppercase();
        assert_eq!(variable, format!("MARATHON_SYNC_{expected}"));
        assert!(page.contains(&format!("`{variable}`")), "{variable} is not in marathon-sync.md");
        count += 1;
    }
    assert!(count >= 35, "{count} flags found");
    for command in command.get_subcommands() {
        let name = command.get_name();
        assert!(page.contains(&format!("`{name}")), "`{name}` is not in marathon-sync.md");
    }
}
