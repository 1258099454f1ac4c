//! `fake-marathon`, the program that demonstrations run.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use integration::client::{Client, get};
use integration::eventually::{DEADLINE, wait_for};
use integration::process::Process;
use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;

fn start(dir: &Path, args: &[&str]) -> (Process, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fake-marathon"));
    let process = Process::start(command.args(args), dir, "fake-marathon");
    let line = wait_for(DEADLINE, || process.stdout().lines().next()?.parse().ok());
    let address = line.unwrap_or_else(|| panic!("no address: {}", process.stderr()));
    (process, address)
}

#[test]
fn shows_what_it_is_told_to_and_ends_on_sigterm() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut process, address) = start(dir.path(), &["--dialect", "1.5", "--base-path", "/m"]);
    let app = r#"{"id": "/web", "tasks": ["127.0.0.1:9000"]}"#;
    let told = Client::connect(address).post("m", "/m/_fake/apps", app);
    assert_eq!(told.status(), 200, "{}", told.text());
    let apps = get(address, "m", "/m/v2/apps?embed=apps.tasks").text();
    assert!(apps.contains(r#""ports":[9000]"#), "{apps}");
    assert!(get(address, "m", "/m/v2/info").text().contains("1.5.0"));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait(DEADLINE).and_then(|status| status.code()), Some(0));
}

#[test]
fn mistakes_in_its_arguments_are_said() {
    let dir = tempfile::tempdir().expect("a directory");
    for (args, said) in [
        (["--dialect", "2.0"], "there are 0.8.1, "),
        (["--listen", "nowhere"], "no address with a port"),
        (["--credentials", "nocolon"], "USER:PASSWORD"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fake-marathon"));
        let mut process = Process::start(command.args(args), dir.path(), "fake-marathon");
        let status = process.wait(DEADLINE).expect("it ends");
        assert!(!status.success());
        assert!(process.stderr().contains(said), "{}", process.stderr());
    }
}
