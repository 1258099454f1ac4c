//! What a start would stumble over on this machine, for `--dry`.

use std::path::Path;

use crate::config::{AccessLogTarget, Config};
use crate::privileges;

/// What `config` names and this machine lacks, so that a start would fail. Not errors: a file may be checked
/// for another machine, and a unit of systemd makes directories by itself.
#[must_use]
pub fn missing_here(config: &Config) -> Vec<String> {
    let mut missing = Vec::new();
    if let Err(error) = privileges::target(config.user.as_deref(), config.group.as_deref()) {
        missing.push(format!("a start would fail here: {error}"));
    }
    if let AccessLogTarget::File(path) = &config.access_log
        && config.access_log_is_explicit
        && let Some(problem) = unusable(path)
    {
        missing.push(format!("a start would fail here: server.accessLog: {problem}"));
    }
    missing
}

fn unusable(path: &Path) -> Option<String> {
    if path.is_dir() {
        return Some(format!("{} is a directory: name a file in it", path.display()));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty())?;
    // Without the right to look nothing is known.
    match directory.try_exists() {
        Ok(false) => Some(format!(
            "the directory {0} does not exist: make it (install -d {0}), unless systemd does \
             (LogsDirectory= of the unit)",
            directory.display()
        )),
        Ok(true) | Err(_) => None,
    }
}
