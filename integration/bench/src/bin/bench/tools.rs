//! The programs that have to be installed for a run.

use std::env;

use anyhow::bail;

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
