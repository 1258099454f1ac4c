//! The reference pages say what the program does: every flag, variable, key, default, command of
//! Redis and metric is there, examples are valid, and links lead somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::CommandFactory as _;
use router::cli::Cli;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn page(name: &str) -> String {
    read(&format!("docs/{name}"))
}

/// `router --dry` with a file of that text, and without the settings of the shell around it.
fn dry(config: &str) -> Output {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let file = directory.path().join("config.json");
    std::fs::write(&file, config).expect("the file can be written");
    Command::new(env!("CARGO_BIN_EXE_router"))
        .arg("--dry")
        .arg("--config")
        .arg(file)
        .env_clear()
        .output()
        .expect("the router runs")
}

/// The text between the fences of that language.
fn fenced<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).filter_map(|text| text.split("```").next()).collect()
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

/// Also those of `compose.yaml` and of the units: a variable that does not exist changes nothing.
#[test]
fn every_variable_that_is_written_about_exists() {
    let command = Cli::command();
    let variables = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
    let mut variables: BTreeSet<_> = variables.collect();
    // Of compose.yaml itself: where the router is published.
    variables.extend(["ROUTER_ADDRESS", "ROUTER_PORT"]);
    let files = ["README.md", "compose.yaml", "docs/configuration.md", "docs/day-two.md"];
    for file in files.into_iter().chain(["docs/operations.md", "contrib/systemd/router.service"]) {
        let text = read(file);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("ROUTER_") && *word != "ROUTER_") {
            assert!(variables.contains(word), "{file}: there is no variable {word}");
        }
    }
}

/// Docker's rules come before those of a host firewall, so only what somebody asks for is published.
#[test]
fn compose_publishes_on_loopback_by_default() {
    let compose = read("compose.yaml");
    let published: Vec<_> = compose.lines().filter(|line| line.contains("ports: [")).collect();
    assert_eq!(published.len(), 2, "{published:?}");
    for line in published {
        let address = line.split('"').nth(1).unwrap_or_default();
        let is_loopback = ["127.0.0.1:", "${ROUTER_ADDRESS:-127.0.0.1}:"];
        assert!(is_loopback.iter().any(|start| address.starts_with(start)), "{line}");
    }
}

/// What the settings are without any file, as the table of `configuration.md` says.
#[test]
fn every_setting_and_its_default_are_documented() {
    let defaults = dry("{}");
    let defaults: serde_json::Value = serde_json::from_slice(&defaults.stdout).expect("JSON");
    let page = page("configuration.md");
    let rows: BTreeMap<&str, &str> = page
        .lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.split(" | ").collect();
            Some((*cells.first()?, *cells.get(3)?))
        })
        .collect();
    let mut compared = 0;
    for (section, settings) in defaults.as_object().expect("an object") {
        let Some(settings) = settings.as_object() else { continue };
        for (name, default) in settings {
            let key = format!("`{section}.{name}`");
            let row = rows.iter().find(|(keys, _)| keys.contains(&key));
            let (_, documented) = row.unwrap_or_else(|| panic!("{key} is not in configuration.md"));
            let Some(number) = default.as_f64() else { continue };
            let documented = documented.trim_matches('`');
            // Others depend on the machine or on another setting, in words.
            if let Ok(documented) = documented.parse::<f64>() {
                assert!((documented - number).abs() < 1e-9, "{key}: {documented}, not {number}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 15, "{compared} defaults compared");
}

/// Files that people copy are files that the router takes, without a warning.
#[test]
fn example_configurations_are_valid() {
    let page = page("configuration.md");
    let mut examples = fenced(&page, "json");
    assert!(!examples.is_empty());
    let installed = read("contrib/systemd/config.json");
    examples.push(&installed);
    for example in examples {
        let output = dry(example);
        let errors = String::from_utf8_lossy(&output.stderr);
        // What this machine lacks is no fault of the file.
        let is_fine = |line: &str| {
            line.contains("configuration file") || line.contains("a start would fail here")
        };
        let has_warnings = errors.lines().any(|line| !is_fine(line));
        assert!(output.status.success() && !has_warnings, "{example}{errors}");
    }
}

/// The commands that the sources send to Redis are those that its user is allowed in
/// `redis-schema.md`, and the ones that SECURITY.md names.
#[test]
fn every_command_of_redis_is_documented() {
    let mut sent = BTreeSet::new();
    let directory = root().join("shared/src/store");
    let entries = std::fs::read_dir(directory).expect("the module is there");
    let files = entries.map(|entry| entry.expect("readable").path());
    for file in files.chain([root().join("shared/src/store.rs")]) {
        let source = std::fs::read_to_string(&file).expect("the source is there");
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        let starts =
            [(".cmd(\"", '"'), ("::cmd(\"", '"'), ("redis.call('", '\''), ("redis.pcall('", '\'')];
        for (start, end) in starts {
            let names = source.split(start).skip(1).filter_map(|rest| rest.split(end).next());
            sent.extend(names.map(str::to_lowercase));
        }
    }
    assert!(sent.len() >= 15, "{sent:?}");
    // Of a user of the Sentinels, who is named apart.
    sent.remove("sentinel");
    // What the library sends: at the connect, and around a transaction.
    sent.extend(["hello", "select", "multi", "exec"].map(str::to_owned));

    let schema = page("redis-schema.md");
    let rule = schema.split("ACL SETUSER router ").nth(1).expect("the rule is there");
    let rule = rule.split("```").next().unwrap_or_default();
    let words = rule.split_whitespace().map(|word| word.trim_matches('\''));
    let allowed: BTreeSet<_> = words.filter_map(|word| word.strip_prefix('+')).collect();
    let commands = allowed.iter().map(|word| word.split('|').next().unwrap_or_default());
    let commands: BTreeSet<_> = commands.map(str::to_owned).collect();
    assert_eq!(commands, sent, "allowed by redis-schema.md, and sent");

    let policy = read("SECURITY.md");
    let list = policy.split("only these commands").nth(1).expect("SECURITY.md has the list");
    let list = list.split('.').next().unwrap_or_default();
    let named = list.split('`').skip(1).step_by(2);
    let named: BTreeSet<_> = named.map(|name| name.to_lowercase().replace(' ', "|")).collect();
    let allowed: BTreeSet<_> = allowed.into_iter().map(str::to_owned).collect();
    assert_eq!(named, allowed, "named by SECURITY.md, and allowed by redis-schema.md");
}

/// Links between the pages lead to files and headings that exist.
#[test]
fn links_lead_somewhere() {
    let mut pages: Vec<String> =
        ["README.md", "SECURITY.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md"]
            .map(str::to_owned)
            .into();
    let entries = std::fs::read_dir(root().join("docs")).expect("the directory is there");
    pages.extend(
        entries.map(|entry| {
            format!("docs/{}", entry.expect("readable").file_name().to_string_lossy())
        }),
    );
    let mut count = 0;
    for page in pages {
        let text = read(&page);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => root().join(&page),
                file => root().join(&page).with_file_name("").join(file),
            };
            assert!(file.exists(), "{page}: {target}");
            if !heading.is_empty() {
                let text = std::fs::read_to_string(&file).expect("a page");
                assert!(anchors(&text).contains(heading), "{page}: {target}");
            }
            count += 1;
        }
    }
    assert!(count >= 40, "{count} links found");
}

/// The anchors of the headings of a page, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// What `try.sh` shows can be copied into a shell: it reads the arguments that were run.
#[test]
fn commands_that_are_shown_can_be_copied() {
    let script = read("try.sh");
    let function = script.split("\nquoted() {").nth(1).expect("the function is there");
    let function = function.split("\n}\n").next().unwrap_or_default();
    let words = [
        "curl",
        "Host: a.test",
        "it's",
        "",
        r#"{"id": "/shop"}"#,
        "frontend:*.test",
        "$HOME",
        "`id`",
        r"back\slash",
        "two\nlines",
        "~",
        "#",
        "a;b",
        "http://127.0.0.1:8080/",
    ];
    let program = format!(
        "quoted() {{{function}\n}}\nshown=$(quoted \"$@\")\neval \"set -- $shown\"\nprintf '%s\\0' \"$@\""
    );
    let output = Command::new("sh").args(["-euc", &program, "sh"]).args(words).output();
    let output = output.expect("sh runs");
    let read = String::from_utf8(output.stdout).expect("text");
    assert_eq!(read.split_terminator('\0').collect::<Vec<_>>(), words, "{program}");
}

#[test]
fn every_metric_is_documented() {
    let page = page("metrics.md");
    let source = read("router/src/metrics.rs");
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
    let root = root();
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
