//! The process: flags, configuration, logging, exit codes. No logic.
//!
//! Exit codes: 0 done, 1 could not start or run, 2 wrong usage, 78 wrong configuration.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use router::app::{self, App, Files};
use router::cli::{Cli, Command};
use router::config::{Config, ConfigError};
use router::healthcheck;
use shared::telemetry::{self, LogFormat};
use tracing::{info, warn};

/// Requests make many small allocations of the same sizes in one thread. The system's allocator
/// spent an eighth of a request's instructions on them and returned memory to the kernel that it
/// asked back at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `EX_CONFIG` of sysexits.h.
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match load(&cli) {
        Ok(config) => config,
        Err(error) => return fail(&format!("router: {error}"), EXIT_CONFIG),
    };
    match cli.command {
        Some(Command::Healthcheck) => return check_health(&config),
        Some(Command::Check) => return show(&config),
        None if cli.dry => return show(&config),
        None => {}
    }
    let default_level = if config.debug { "debug" } else { "info" };
    let level = cli.log_level.as_deref().unwrap_or(default_level);
    let level = match telemetry::init(cli.log_format.unwrap_or(LogFormat::Text), level) {
        Ok(level) => level,
        Err(error) => return fail(&format!("router: {error}"), 1),
    };
    match &config.file {
        Some(file) => info!(file = %file.display(), "configuration read"),
        None => info!("no configuration file: flags, environment and defaults count"),
    }
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let files = match Files::read(&config) {
        Ok(files) => files,
        Err(error) => return fail(&format!("router: {error:#}"), EXIT_CONFIG),
    };
    match App::bind(config, files).and_then(|app| app.run(&level, || load(&cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("router: {error:#}"), 1),
    }
}

fn load(cli: &Cli) -> Result<Config, ConfigError> {
    Config::load(cli, std::env::var("SETTINGS_FLAVOR").ok().as_deref())
}

/// `--dry`: the result, and what is to be said about it.
fn show(config: &Config) -> ExitCode {
    let source = match &config.file {
        Some(file) => format!("configuration file {}", file.display()),
        None => "no configuration file: flags, environment and defaults".to_owned(),
    };
    let _is_written = writeln!(std::io::stderr(), "router: {source}");
    for warning in config.warnings.iter().chain(&app::missing_here(config)) {
        // Nobody reads a closed standard error.
        let _is_written = writeln!(std::io::stderr(), "router: warning: {warning}");
    }
    if let Err(error) = Files::read(config) {
        return fail(&format!("router: {error:#}"), EXIT_CONFIG);
    }
    match writeln!(std::io::stdout(), "{}", config.censored()) {
        Ok(()) => ExitCode::SUCCESS,
        // `--dry | head` has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&format!("router: cannot print the configuration: {error}"), 1),
    }
}

fn check_health(config: &Config) -> ExitCode {
    let Some(listen) = config.listen.first() else {
        return fail("router: there is no address to listen on: http.bind is empty", 1);
    };
    match healthcheck::ask(*listen, config.proxy_protocol.contains(listen)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("router: {listen} is not healthy: {error}"), 1),
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    let _is_written = writeln!(std::io::stderr(), "{message}");
    ExitCode::from(code)
}
