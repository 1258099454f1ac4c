//! The process: flags, settings, logging, exit codes. No logic.
//!
//! Exit codes: 0 done, 1 could not start or run, 2 wrong usage, 78 wrong settings. `--once`: 2 done
//! but for what is held back or cannot be read. `verify`: 0 the same, 1 different, 2 not known.
//! `explain`: 0 a live backend, 3 none or quarantined, 4 not routed.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use marathon_sync::app;
use marathon_sync::cli::{Cli, Command};
use marathon_sync::config::Config;
use marathon_sync::healthcheck;
use shared::telemetry::{self, LogFormat};

/// `EX_CONFIG` of sysexits.h.
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(&cli) {
        Ok(config) => config,
        Err(error) => return fail(&format!("marathon-sync: {error}"), EXIT_CONFIG),
    };
    match cli.command {
        Some(Command::Check) => {
            return match writeln!(std::io::stdout(), "{}", config.censored()) {
                Ok(()) => ExitCode::SUCCESS,
                // `check | head` has seen enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
                Err(error) => fail(&format!("marathon-sync: cannot print: {error}"), 1),
            };
        }
        Some(Command::Healthcheck) => return check_health(&config),
        Some(Command::Explain { .. } | Command::Verify) | None => {}
    }
    let level = cli.log_level.as_deref().unwrap_or("info");
    let _level = match telemetry::init(cli.log_format.unwrap_or(LogFormat::Text), level) {
        Ok(level) => level,
        Err(error) => return fail(&format!("marathon-sync: {error}"), 1),
    };
    let (result, failed) = match cli.command {
        Some(Command::Explain { app }) => (app::explain(config, &app), 1),
        Some(Command::Verify) => (app::verify(config), 2),
        Some(Command::Check | Command::Healthcheck) | None if config.once => (app::once(config), 1),
        Some(Command::Check | Command::Healthcheck) | None => (app::run(config), 1),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&format!("marathon-sync: {error:#}"), failed),
    }
}

fn check_health(config: &Config) -> ExitCode {
    let Some(admin) = config.admin else {
        return fail("marathon-sync: there is nobody to ask: set --admin", EXIT_CONFIG);
    };
    match healthcheck::ask(admin) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("marathon-sync: {admin} is not healthy: {error}"), 1),
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    // Nobody reads a closed standard error; the exit code says it as well.
    let _is_written = writeln!(std::io::stderr(), "{message}");
    ExitCode::from(code)
}
