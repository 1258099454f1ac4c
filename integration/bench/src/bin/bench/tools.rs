//! The programs that a run needs: those that have to be installed, and the router, which is built.

use std::env;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use crate::contenders::Contender;

/// Says which Debian package is missing before anything is started.
pub(crate) fn check_tools(contenders: &[Contender], callgrind: bool) -> anyhow::Result<()> {
    let mut tools = vec![
        ("redis-server", "redis-server"),
        ("nginx", "nginx"),
        ("taskset", "util-linux"),
        ("setpriv", "util-linux"),
    ];
    if contenders.contains(&Contender::Haproxy) {
        tools.push(("haproxy", "haproxy"));
    }
    tools.push(if callgrind { ("valgrind", "valgrind") } else { ("wrk", "wrk") });

    let path = env::var_os("PATH").unwrap_or_default();
    let mut packages: Vec<&str> = tools
        .into_iter()
        .filter(|(tool, _)| !env::split_paths(&path).any(|dir| dir.join(tool).is_file()))
        .map(|(_, package)| package)
        .collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    bail!(
        "not found in PATH ({}); on Debian: apt-get install {}",
        path.to_string_lossy(),
        packages.join(" ")
    )
}

/// Builds the release router and returns the path that cargo gives for it.
pub(crate) async fn build_router() -> anyhow::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("bench: cargo build --release -p router");
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
