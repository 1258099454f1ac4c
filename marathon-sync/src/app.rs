//! The only wiring: settings become an agent, signals end it.

use std::io::Write as _;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::agent::Agent;
use crate::agent::once::{Looked, findings};
use crate::config::Config;

/// Keeps the lists until SIGTERM or SIGINT.
///
/// # Errors
///
/// When it cannot be set up, or has panicked.
pub fn run(config: Config) -> anyhow::Result<u8> {
    block_on(async |shutdown| {
        let connection = CancellationToken::new();
        let interval = config.interval.as_secs_f64();
        let (redis, instance) = (config.driver.to_string(), config.instance.clone());
        let marathon: Vec<_> = config.endpoints.iter().map(ToString::to_string).collect();
        let (marathon, dry_run) = (marathon.join(" "), config.dry_run);
        if config.admin.is_some() {
            warn!("this version has no admin listener yet");
        }
        let agent = Agent::new(config, &connection)?;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            marathon, redis, instance, interval, dry_run, "keeping the lists"
        );
        notify(&[
            sd_notify::NotifyState::Status("keeping the lists"),
            sd_notify::NotifyState::Ready,
        ]);
        let result = agent.run(shutdown).await;
        notify(&[sd_notify::NotifyState::Stopping]);
        connection.cancel();
        info!("stopped");
        result?;
        Ok(0)
    })
}

/// `--once`: 0 all is as Marathon wants it, 2 but for what is held back or cannot be read.
///
/// # Errors
///
/// When Marathon or Redis failed, or another process writes.
pub fn once(config: Config) -> anyhow::Result<u8> {
    block_on(async |shutdown| {
        let connection = CancellationToken::new();
        let agent = Agent::new(config, &connection)?;
        // It hears the signal itself, and gives the lease back.
        let is_whole = agent.once(&shutdown).await;
        connection.cancel();
        Ok(if is_whole? { 0 } else { 2 })
    })
}

/// `verify`: 0 Redis is as Marathon wants it, 1 it differs.
///
/// # Errors
///
/// When Marathon or Redis failed.
pub fn verify(config: Config) -> anyhow::Result<u8> {
    let findings = findings(&look(config)?.pass);
    let code = u8::from(!findings.is_empty());
    print(&findings)?;
    Ok(code)
}

/// `explain`: 0 the app is there, 1 it is not.
///
/// # Errors
///
/// When Marathon or Redis failed.
pub fn explain(config: Config, app: &str) -> anyhow::Result<u8> {
    let looked = look(config)?;
    let id = if app.starts_with('/') { app.to_owned() } else { format!("/{app}") };
    let Some(report) = looked.pass.apps.get(&id) else {
        print(&[format!("{id}: Marathon does not list it")])?;
        return Ok(1);
    };
    let mut lines = vec![format!("{id}: {:?}", report.state)];
    for claim in &report.hosts {
        lines.push(format!("  {} by label {}", claim.host, claim.label));
    }
    for refused in &report.refused {
        lines.push(format!("  not done: label {}: {}", refused.label, refused.reason));
    }
    for task in &report.tasks {
        lines.push(format!("  {} is {}", task.id, task.verdict));
    }
    for change in &looked.pass.difference.changes {
        if report.hosts.iter().any(|claim| claim.host == change.host) {
            lines.push(format!("  would write {change}"));
        }
    }
    print(&lines)?;
    Ok(0)
}

fn look(config: Config) -> anyhow::Result<Looked> {
    block_on(async |shutdown| {
        let connection = CancellationToken::new();
        let agent = Agent::new(config, &connection)?;
        let looked = shutdown.run_until_cancelled(agent.look()).await;
        connection.cancel();
        Ok(looked.context("interrupted")??)
    })
}

/// Runs `work` with a token that SIGTERM and SIGINT cancel.
fn block_on<T>(
    work: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime")?;
    let result = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("cannot hear SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot hear SIGINT")?;
        let cancelled = shutdown.clone();
        let _listener = tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            cancelled.cancel();
        });
        work(shutdown).await
    });
    // A computation that still goes on is of no use to anybody.
    runtime.shutdown_background();
    result
}

fn print(lines: &[String]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(stdout, "{line}")).context("cannot print")
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    // Without a service manager there is nobody to tell.
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell the service manager");
    }
}
