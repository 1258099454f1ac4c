//! The program's own log on standard error: text for people, JSON for machines.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_appender::non_blocking::WorkerGuard;
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
    EnvFilter::builder().parse(level).map_err(|error| {
        format!("the log level must be error, warn, info, debug or trace, not `{level}` ({error})")
    })
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
