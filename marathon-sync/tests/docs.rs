//! The reference page says what the program does: every flag, variable and command is there.

use std::path::Path;

use clap::CommandFactory as _;
use marathon_sync::cli::Cli;

#[test]
fn every_flag_variable_and_command_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/marathon-sync.md");
    let page = std::fs::read_to_string(path).expect("the page is there");
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
