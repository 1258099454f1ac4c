//! The real binary: flags, exit codes, `--dry`.

use std::process::{Command, Output};

fn router(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_router"))
        .args(args)
        .env_clear()
        .output()
        .expect("the binary was built")
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_was_perhaps_meant() {
    let output = router(&["--lisen", "127.0.0.1:80"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--listen"), "{text}");
}

#[test]
fn a_missing_configuration_file_exits_with_78_and_one_line() {
    let output = router(&["-c", "/no/such/file.json", "--dry"]);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("router: /no/such/file.json: cannot be read: "), "{text}");
}

#[test]
fn dry_prints_the_result_and_exits_with_0() {
    let output = router(&["-d", "--redis=redis://:hunter2@example:1/2#p"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("redis://:***@example:1/2#p") && !text.contains("hunter2"), "{text}");
}

#[test]
fn dry_names_what_a_start_would_stumble_over() {
    let output = router(&["--dry", "--user", "root", "--access-log", "/no/such/directory/log"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("warning: a start would fail here: server.accessLog: the directory /no/such/directory does not exist"),
        "{text}"
    );
    let output = router(&["--dry", "--user", "root", "--access-log", "none"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!text.contains("would fail"), "{text}");
}
