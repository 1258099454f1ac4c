//! The program's own log on standard error: text for people, JSON for machines.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// How log lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// One readable line an event, coloured on a terminal.
    Text,
    /// One JSON object an event.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("the log format must be `text` or `json`, not `{other}`")),
        }
    }
}

/// The running log: changes its level, and writes what is left when it is dropped.
#[derive(Debug)]
pub struct LevelHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    _writer: WorkerGuard,
}

impl LevelHandle {
    /// Sets the level: `error`, `warn`, `info`, `debug`, `trace` or a filter directive.
    ///
    /// # Errors
    ///
    /// When `level` is no such directive; the old one stays.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let filter = parse_level(level)?;
        self.filter.reload(filter).map_err(|error| error.to_string())
    }
}

/// Checks a level without using it.
///
/// # Errors
///
/// What was expected instead.
pub fn parse_level(level: &str) -> Result<EnvFilter, String> {
    let expected =
        || format!("the log level must be error, warn, info, debug or trace, not `{level}`");
    // A word that is no level is a directive, too: it names a module, and everything else is silent.
    // So does an empty one, which is `error` to the library: a variable that was left empty.
    let is_module = |directive: &str| {
        let word = directive.trim();
        !word.contains(['=', '[']) && (word.is_empty() || word.parse::<LevelFilter>().is_err())
    };
    if level.split(',').any(is_module) {
        return Err(expected());
    }
    EnvFilter::builder().parse(level).map_err(|error| format!("{} ({error})", expected()))
}

/// Starts logging to standard error. Call once, first thing in `main`.
///
/// # Errors
///
/// When `level` is not one, or logging was already started.
pub fn init(format: LogFormat, level: &str) -> Result<LevelHandle, String> {
    let (filter, handle) = reload::Layer::new(parse_level(level)?);
    // Whoever reads the log must not be able to stop the program by not reading: lines wait in a
    // bounded queue, and are dropped when it is full.
    let (stderr, guard) = tracing_appender::non_blocking(std::io::stderr());
    let layer = match format {
        LogFormat::Text => fmt::layer()
            .with_writer(stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_writer(stderr).with_target(false).boxed()
        }
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()
        .map_err(|error| error.to_string())?;
    Ok(LevelHandle { filter: handle, _writer: guard })
}

#[cfg(test)]
mod tests {
    use super::parse_level;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for level in ["error", "WARN", "info", "debug", "trace", "off", "info,router=debug"] {
            assert!(parse_level(level).is_ok(), "{level}");
        }
        for level in ["warning", "verbose", "INFORMATION", "", "info,verbose", "router=loud", "4x"]
        {
            let error = parse_level(level).unwrap_err();
            assert!(error.contains(&format!("or trace, not `{level}`")), "{error}");
        }
    }
}
