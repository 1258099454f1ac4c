//! The only wiring: settings become an agent, signals end it.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::agent::once::Looked;
use crate::agent::{Agent, chain, own_name};
use crate::config::Config;
use crate::marathon::client::Client;
use crate::observe::explain::Outcome;
use crate::observe::verify;
use crate::observe::{self, Identity, Observed};

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
        let dry_run = config.dry_run;
        let admin = config.admin.map(observe::admin::bind).transpose()?;
        let admin_hosts = config.admin_hosts.clone();
        let stale_after = observe::stale_after(config.interval);
        let agent = Agent::new(config, &connection)?;
        let observed = Arc::new(Observed {
            identity: Identity {
                instance: instance.clone(),
                process: own_name(),
                endpoints: marathon.clone(),
                stale_after,
            },
            state: Arc::clone(agent.state()),
            redis: Some(agent.redis().clone()),
            is_ending: AtomicBool::new(false),
        });
        let admin_url = match admin {
            None => String::new(),
            Some(socket) => {
                let address = socket.local_addr().context("the admin listener has no address")?;
                let served = observe::admin::serve(socket, Arc::clone(&observed), admin_hosts);
                drop(tokio::spawn(served));
                format!(" admin=http://{address}")
            }
        };
        let marathon = marathon.join(" ");
        info!(
            version = env!("CARGO_PKG_VERSION"),
            marathon, redis, instance, interval, dry_run, "keeping the lists{admin_url}"
        );
        notify(&[
            sd_notify::NotifyState::Status(&format!("keeping the lists{admin_url}")),
            sd_notify::NotifyState::Ready,
        ]);
        let _reloader = AbortOnDropHandle::new(tokio::spawn(reload(agent.client().clone())?));
        let ending = Arc::clone(&observed);
        let shutdown_seen = shutdown.clone();
        drop(tokio::spawn(async move {
            shutdown_seen.cancelled().await;
            ending.is_ending.store(true, Ordering::Relaxed);
        }));
        let result = Box::pin(agent.run(shutdown)).await;
        notify(&[sd_notify::NotifyState::Stopping]);
        connection.cancel();
        info!("stopped");
        result?;
        Ok(0)
    })
}

/// At each SIGHUP reads the files of passwords and tokens again, until it is dropped. Hears the signal
/// from the call on.
fn reload(client: Client) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot hear SIGHUP")?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            match client.read_credentials_again().await {
                Ok(true) => info!("SIGHUP: Marathon's credentials have changed and are used now"),
                Ok(false) => info!("SIGHUP: Marathon's credentials have not changed"),
                Err(error) => {
                    let error = chain(&error);
                    warn!(error, "SIGHUP: Marathon's credentials stay as they are");
                }
            }
        }
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

/// `verify`: 0 Redis is as Marathon wants it, 1 it differs, 2 one answer does not tell.
///
/// # Errors
///
/// When Marathon or Redis failed.
pub fn verify(config: Config) -> anyhow::Result<u8> {
    let looked = look(config)?;
    let (text, outcome) = verify::verify(&looked.pass, looked.answer.nameless);
    print(&text)?;
    Ok(match outcome {
        verify::Outcome::Same => 0,
        verify::Outcome::Differs => 1,
        verify::Outcome::Unconfirmed => 2,
    })
}

/// `explain` of an app or a host: 0 it has a live backend, 3 it is claimed but has none, or the app is
/// quarantined, 4 it is not routed.
///
/// # Errors
///
/// When Marathon or Redis failed.
pub fn explain(config: Config, app: &str) -> anyhow::Result<u8> {
    let (prefix, instance) = (config.driver.prefix.clone(), config.instance.clone());
    let looked = look(config)?;
    let (text, outcome) =
        observe::explain::explain(app, &looked.pass, &looked.snapshot, &prefix, &instance);
    print(&text)?;
    Ok(match outcome {
        Outcome::Live => 0,
        Outcome::NoLiveBackend => 3,
        Outcome::NotRouted => 4,
    })
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

fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // `explain | head` has seen enough; the exit code is what it would have been.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot print"),
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    // Without a service manager there is nobody to tell.
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell the service manager");
    }
}
