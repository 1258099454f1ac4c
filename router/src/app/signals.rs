//! Signals, and what they change while the router runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use shared::driver::Driver;
use shared::telemetry::LevelHandle;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::settings;
use crate::access_log::AccessLog;
use crate::config::{Config, ConfigError};
use crate::proxy::Settings;
use crate::proxy::pages::Pages;
use crate::tls::Certificates;

/// What SIGHUP and SIGUSR1 work on.
pub(super) struct Reloadable<'a> {
    pub(super) settings: &'a ArcSwap<Settings>,
    pub(super) pages: &'a Pages,
    pub(super) access_log: Option<&'a AccessLog>,
    pub(super) certificates: Option<&'a Certificates>,
}

pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    user1: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for SIGTERM or SIGINT.
    pub(super) async fn terminate(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Obeys SIGHUP and SIGUSR1 until SIGTERM or SIGINT.
    pub(super) async fn serve(
        &mut self,
        config: &Config,
        level: &LevelHandle,
        reload: &impl Fn() -> Result<Config, ConfigError>,
        targets: &Reloadable<'_>,
    ) {
        let mut current = config.clone();
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.user1.recv() => reopen(targets),
                _ = self.hangup.recv() => {
                    reopen(targets);
                    targets.pages.reload();
                    if let Some(certificates) = targets.certificates {
                        certificates.reload();
                    }
                    match reload() {
                        Ok(new) => {
                            apply(config, &new, targets);
                            if current.debug != new.debug {
                                set_level(level, new.debug);
                            }
                            current = new;
                        }
                        Err(error) => warn!(%error, "configuration not reloaded, the old one stays"),
                    }
                }
            }
        }
    }
}

fn reopen(targets: &Reloadable<'_>) {
    if let Some(log) = targets.access_log {
        log.reopen();
    }
}

fn set_level(level: &LevelHandle, is_debug: bool) {
    if let Err(error) = level.set(if is_debug { "debug" } else { "info" }) {
        warn!(error, "log level not changed");
    }
}

/// Whether connections go where they went.
fn are_same(old: &[Driver], new: &[Driver]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old.is_same_as(new))
}

/// Takes over what can change without a restart, and names what cannot.
fn apply(old: &Config, new: &Config, targets: &Reloadable<'_>) {
    for warning in &new.warnings {
        warn!("{warning}");
    }
    targets.settings.store(Arc::new(settings(new)));
    let needs_restart: Vec<_> = [
        ("http.bind, http.port", old.listen != new.listen),
        ("http.proxyProtocol", old.proxy_protocol != new.proxy_protocol),
        ("server.admin", old.admin != new.admin),
        ("server.adminHosts", old.admin_hosts != new.admin_hosts),
        ("https.bind, https.port", old.https != new.https),
        ("https.directory", old.certificates != new.certificates),
        ("https.preset and other settings of TLS", old.tls != new.tls),
        ("https.http2", old.http2 != new.http2),
        ("http.h2c", old.h2c != new.h2c),
        ("server.backendCa", old.backend_ca != new.backend_ca),
        ("driver", !are_same(&old.drivers, &new.drivers)),
        ("server.workers", old.workers != new.workers),
        ("server.maxSockets", old.max_sockets != new.max_sockets),
        ("server.connectTimeout", old.connect_timeout != new.connect_timeout),
        ("server.allowedBackends", old.allowed_backends != new.allowed_backends),
        ("server.cookieKey", old.cookie_key != new.cookie_key),
        ("server.accessLog", old.access_log != new.access_log),
        ("server.staticDir", old.static_dir != new.static_dir),
        ("server.lruCache", old.cache != new.cache),
        ("server.snapshot", old.snapshot != new.snapshot),
        ("server.emptyRedisGrace", old.empty_redis_grace != new.empty_redis_grace),
        ("server.drainTimeout", old.drain_timeout != new.drain_timeout),
        ("user, group", (&old.user, &old.group) != (&new.user, &new.group)),
    ]
    .into_iter()
    .filter_map(|(key, has_changed)| has_changed.then_some(key))
    .collect();
    if needs_restart.is_empty() {
        info!("configuration reloaded; new connections use it");
    } else {
        warn!(
            keys = needs_restart.join(", "),
            "configuration reloaded, but these keys need a restart"
        );
    }
}
