//! What the benchmarks share.

#![allow(clippy::print_stderr, reason = "for command-line programs: progress goes to stderr")]

use std::env;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::process::Command;

/// Builds the release router for the benchmark `name` and returns the path that cargo gives for it.
///
/// # Errors
///
/// When cargo cannot be started, or the router not be built.
pub async fn build_router(name: &str) -> anyhow::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("{name}: cargo build --release -p router");
    let output = Command::new(cargo)
        .args(["build", "--release", "-p", "router", "--bin", "router"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .context("could not start cargo")?;
    ensure!(output.status.success(), "the router could not be built ({})", output.status);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(executable)
        .context("cargo built no executable named router")
}

/// The executable in a line of cargo's JSON messages, if the line is about the router's.
fn executable(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    if message["target"]["name"] != "router" {
        return None;
    }
    Some(message["executable"].as_str()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_routers_executable_is_taken() {
        let other =
            r#"{"reason":"compiler-artifact","target":{"name":"shared"},"executable":null}"#;
        let router =
            r#"{"reason":"compiler-artifact","target":{"name":"router"},"executable":"/t/router"}"#;
        assert_eq!(executable(other), None);
        assert_eq!(executable(router), Some("/t/router".into()));
        assert_eq!(executable("not JSON"), None);
    }
}
