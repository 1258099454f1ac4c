//! The certificate of a host, from Redis, from files, or the default of the address.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use shared::host::lookup_names;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::files::{Files, Places};
use super::identity::{Identity, Source};
use super::policy;
use super::stored::{StoredCertificates, StoredSource};
use crate::config::TlsPolicy;

/// A certificate that ends within this time is warned about: half of the shortest time that
/// automatic renewal commonly leaves.
const EXPIRES_SOON: Duration = Duration::from_hours(14 * 24);
/// How often that is looked at. Files are read again then, too, for those who cannot be watched.
const CHECK_INTERVAL: Duration = Duration::from_hours(12);
/// Quiet time after a change of a file: certificate and key are commonly written one after the
/// other.
const SETTLE: Duration = Duration::from_millis(250);

/// All certificates.
#[derive(Debug)]
pub struct Certificates {
    base: Arc<ServerConfig>,
    places: Places,
    files: ArcSwap<Files>,
    /// Those in Redis. Before there is a store there are only files.
    stored: Option<Arc<StoredCertificates>>,
    wake: Arc<Notify>,
    failures: AtomicU64,
}

/// What there is of one source, for metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// Certificates in memory.
    pub count: u64,
    /// Those that have expired or are about to.
    pub expiring: u64,
    /// When the first expires, in Unix seconds; 0 without any.
    pub first_expiry: i64,
}

impl Certificates {
    /// Reads the files, which may need rights that are given up later. Serves no certificate of
    /// Redis before [`Certificates::with_store`].
    ///
    /// # Errors
    ///
    /// When a default certificate cannot be used. Others are reported in the log.
    pub fn read(places: Places, policy: &TlsPolicy, protocols: &[&[u8]]) -> anyhow::Result<Self> {
        let base = Arc::new(policy::base(policy, protocols)?);
        let files = places.read(&base, &Files::default());
        for bind in places.binds.iter().flatten() {
            if let Some(problem) = files.problems.get(&bind.cert) {
                anyhow::bail!("https.cert, https.key: {problem}");
            }
        }
        let certificates = Self {
            base,
            places,
            files: ArcSwap::from_pointee(Files::default()),
            stored: None,
            wake: Arc::default(),
            failures: AtomicU64::new(0),
        };
        certificates.take_over(files);
        Ok(certificates)
    }

    /// Looks into a store, too.
    #[must_use]
    pub fn with_store(mut self, source: StoredSource) -> Self {
        let stored = StoredCertificates::new(Arc::clone(&self.base), source);
        self.stored = Some(Arc::new(stored));
        self
    }

    /// The default certificate of the address at this position.
    pub fn default(&self, bind: usize) -> Option<Arc<Identity>> {
        self.files.load().binds.get(bind)?.clone()
    }

    /// Settings for a client that there is no certificate for.
    pub(super) fn nobody(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.base)
    }

    /// The certificate of `host`, which must be normalized.
    pub async fn find(&self, host: &str) -> Option<Arc<Identity>> {
        let stored = match &self.stored {
            Some(stored) => stored.find(host).await,
            None => None,
        };
        let nearer = stored.as_ref().map_or(usize::MAX, |stored| stored.rank);
        let files = self.files.load();
        if !files.hosts.is_empty() {
            let names = lookup_names(host).take(nearer);
            let found = names.filter_map(|name| files.hosts.get(&*name)).next();
            if let Some(identity) = found {
                return Some(Arc::clone(identity));
            }
        }
        Some(stored?.identity)
    }

    /// Has the files read again, soon.
    pub fn reload(&self) {
        self.wake.notify_one();
    }

    /// Follows changes of the files until the process ends.
    pub async fn follow(self: Arc<Self>) {
        let _watcher = self.places.watch(Arc::clone(&self.wake));
        loop {
            let is_due = tokio::time::timeout(CHECK_INTERVAL, self.wake.notified()).await.is_err();
            tokio::time::sleep(SETTLE).await;
            let this = Arc::clone(&self);
            let read = tokio::task::spawn_blocking(move || {
                this.places.read(&this.base, &this.files.load())
            });
            match read.await {
                Ok(files) => self.take_over(files),
                Err(error) => warn!(%error, "certificate files not read"),
            }
            if is_due {
                let now = unix_now();
                self.each(|identity| warn_of_expiry(identity, now));
            }
        }
    }

    /// Serves what was read from now on, and says what is new.
    fn take_over(&self, files: Files) {
        let old = self.files.load();
        for (path, problem) in &files.problems {
            if old.problems.get(path) != Some(problem) {
                self.failures.fetch_add(1, Ordering::Relaxed);
                warn!("certificate not used: {problem}; what was served before stays");
            }
        }
        let now = unix_now();
        let known: HashSet<_> = old.identities().map(Arc::as_ptr).collect();
        let mut count = 0;
        for identity in files.identities() {
            if !known.contains(&Arc::as_ptr(identity)) {
                count += 1;
                warn_of_expiry(identity, now);
            }
        }
        for (name, identity) in &files.hosts {
            if !known.contains(&Arc::as_ptr(identity)) {
                warn_of_name(identity, name);
            }
        }
        if count > 0 {
            info!(count, "certificates read from files");
        }
        self.files.store(Arc::new(files));
    }

    /// Every certificate in memory, once.
    fn each(&self, mut visit: impl FnMut(&Identity)) {
        let mut seen = HashSet::new();
        let files = self.files.load_full();
        let stored = self.stored.iter().flat_map(|stored| stored.identities());
        for identity in files.identities().cloned().chain(stored) {
            if seen.insert(Arc::as_ptr(&identity)) {
                visit(&identity);
            }
        }
    }

    /// What there is of each source.
    pub fn summaries(&self) -> [(Source, Summary); 3] {
        let mut summaries = Source::ALL.map(|source| (source, Summary::default()));
        let soon = unix_now().saturating_add(i64::try_from(EXPIRES_SOON.as_secs()).unwrap_or(0));
        self.each(|identity| {
            let found = summaries.iter_mut().find(|(source, _)| *source == identity.source);
            if let Some((_, summary)) = found {
                let first = summary.first_expiry;
                let is_first = summary.count == 0 || identity.not_after < first;
                summary.first_expiry = if is_first { identity.not_after } else { first };
                summary.count += 1;
                summary.expiring += u64::from(identity.not_after < soon);
            }
        });
        summaries
    }

    /// How often a certificate was not used because it is broken.
    pub fn failures(&self) -> u64 {
        let stored = self.stored.as_ref().map_or(0, |stored| stored.failures());
        self.failures.load(Ordering::Relaxed) + stored
    }
}

pub(super) fn unix_now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

/// Says when a certificate is not valid for the name that it is kept under.
pub(super) fn warn_of_name(identity: &Identity, name: &str) {
    // Any label stands for those of a wildcard; the certificate for everything else has no name.
    let host = match name.strip_prefix("*.") {
        Some(domain) => format!("any.{domain}"),
        None if name == "*" => return,
        None => name.to_owned(),
    };
    if !identity.covers(&host) {
        warn!(
            certificate = &*identity.place,
            name,
            "certificate is not valid for the name that it is kept under: clients of it refuse it; get one for this \
             name, or keep it under the name that it is for"
        );
    }
}

/// Says when a certificate has expired or is about to.
pub(super) fn warn_of_expiry(identity: &Identity, now: i64) {
    let left = identity.not_after.saturating_sub(now);
    let days = left / 86_400;
    if left <= 0 {
        warn!(
            certificate = &*identity.place,
            "certificate has expired: clients refuse it; renew it"
        );
    } else if left < i64::try_from(EXPIRES_SOON.as_secs()).unwrap_or(0) {
        warn!(certificate = &*identity.place, days, "certificate expires soon; renew it");
    }
}
