//! Certificates in Redis: `tls:` hashes, kept in memory like routes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rustls::ServerConfig;
use shared::host::lookup_rank;
use shared::keys::Kind;
use shared::lock::lock;
use shared::store::{Store, StoreError, StoredCertificate};
use tokio::runtime::Handle;
use tracing::warn;

use super::certificates::{unix_now, warn_of_expiry, warn_of_name};
use super::identity::{self, Fingerprint, Identity, fingerprint};
use crate::clock::{Clock, Millis};
use crate::coherence::{self, Cache, CachePolicy, Cached, Effect, Limits, Reads, Source};
use crate::grace::Grace;

/// Memory for certificates of hosts that have one of their own: some 20,000 of common size. The others are names
/// of hosts, which anyone can invent; certificates of wildcards, which they share, stay as long as one of them.
const LIMITS: Limits =
    Limits { own: 128 * 1024 * 1024, others: 8 * 1024 * 1024, entry: (6 * 1024, 256) };
/// What an entry takes besides name and certificate, in bytes.
const ENTRY: usize = 200;
/// Hashes that are remembered as seen.
const MAX_KNOWN: usize = 50_000;

/// What Redis holds for a host.
#[derive(Clone, Debug)]
pub struct CachedCertificate {
    stored: Option<Stored>,
    loaded_at: Millis,
}

/// A certificate that Redis holds for a host.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Index of its name in the look-up order of the host.
    pub(super) rank: usize,
    /// The certificate.
    pub(super) identity: Arc<Identity>,
}

/// Certificates by requested host.
pub type CertificateCache = Cache<CachedCertificate>;

/// The cache of certificates, which has to exist before the store that reports changes to it.
pub fn certificate_cache(policy: CachePolicy) -> CertificateCache {
    Cache::new(policy, LIMITS)
}

impl Cached for CachedCertificate {
    fn effect(kind: Kind) -> Option<Effect> {
        match kind {
            Kind::Certificate => Some(Effect::Content),
            Kind::Dead | Kind::Frontend | Kind::Options => None,
        }
    }

    fn rank(&self, _host: &str) -> Option<usize> {
        Some(self.stored.as_ref()?.rank)
    }

    fn loaded_at(&self) -> Millis {
        self.loaded_at
    }

    fn weight(&self, host: &str) -> u64 {
        let own = self.stored.as_ref().filter(|stored| stored.rank == 0);
        (host.len() + ENTRY + own.map_or(0, |stored| stored.identity.bytes())) as u64
    }
}

/// One `tls:` hash.
#[derive(Debug, Default)]
struct Known {
    /// The last content that could be used, as long as a host is served with it.
    good: Weak<Identity>,
    /// The content that was reported as unusable last.
    broken: Option<Fingerprint>,
}

/// What certificates in Redis are read with.
#[derive(Debug)]
pub struct StoredSource {
    /// The Redis.
    pub store: Store,
    /// Where they are kept.
    pub cache: Arc<CertificateCache>,
    /// Decides on servers that come back empty.
    pub grace: Arc<Grace>,
    /// The clock of the process.
    pub clock: Arc<Clock>,
    /// Runs reads; must outlive the handshakes that wait for them.
    pub control: Handle,
}

/// All `tls:` hashes of one Redis.
#[derive(Debug)]
pub(super) struct StoredCertificates {
    base: Arc<ServerConfig>,
    source: StoredSource,
    reads: Reads<CachedCertificate>,
    /// What was seen in Redis, by name.
    known: Mutex<HashMap<Box<str>, Known>>,
    failures: AtomicU64,
}

impl Source for StoredCertificates {
    type Value = CachedCertificate;

    fn cache(&self) -> &CertificateCache {
        &self.source.cache
    }

    fn reads(&self) -> &Reads<CachedCertificate> {
        &self.reads
    }

    async fn fetch(self: &Arc<Self>, host: &str) -> Result<CachedCertificate, StoreError> {
        let hashes = self.source.store.read_certificates(host).await?;
        let usable = hashes.iter().find_map(|hash| Some((hash, self.identity(hash)?)));
        let stored = usable.map(|(hash, identity)| {
            let rank = lookup_rank(host, &hash.name).unwrap_or(0);
            Stored { rank, identity }
        });
        if let Some(since) = self.source.grace.since()
            && let Some(held) =
                self.source.cache.held(host, since, stored.as_ref().map(|stored| stored.rank))
        {
            return Ok(held);
        }
        Ok(CachedCertificate { stored, loaded_at: self.source.clock.now() })
    }
}

impl StoredCertificates {
    pub(super) fn new(base: Arc<ServerConfig>, source: StoredSource) -> Self {
        let reads = Reads::new(source.control.clone());
        Self { base, source, reads, known: Mutex::default(), failures: AtomicU64::new(0) }
    }

    /// What Redis holds for `host`, or held last while it does not answer.
    pub(super) async fn find(self: &Arc<Self>, host: &str) -> Option<Stored> {
        let now = self.source.clock.coarse();
        let known = self.source.cache.usable(host, now, || self.source.store.is_up());
        match known {
            Some(known) => known.stored,
            None => coherence::load(self, host).await.ok()?.stored,
        }
    }

    /// Every certificate in memory, those of wildcards once for each host.
    pub(super) fn identities(&self) -> impl Iterator<Item = Arc<Identity>> {
        self.source.cache.values().filter_map(|value| Some(value.stored?.identity))
    }

    /// How often a certificate was not used because it is broken.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The certificate of a hash, or the one that it held before when it is broken.
    fn identity(&self, stored: &StoredCertificate) -> Option<Arc<Identity>> {
        let digest = match &stored.pem {
            Ok((chain, key)) => fingerprint(chain, key.expose()),
            Err(problem) => fingerprint(problem.detail.as_bytes(), ""),
        };
        let (good, is_reported) = {
            let known = lock(&self.known);
            let known = known.get(&*stored.name);
            (
                known.and_then(|known| known.good.upgrade()),
                known.is_some_and(|known| known.broken == Some(digest)),
            )
        };
        if good.as_ref().is_some_and(|good| good.fingerprint == digest) || is_reported {
            return good;
        }
        let read = match &stored.pem {
            Ok((chain, key)) => {
                let place = (identity::Source::Redis, stored.key.as_str());
                Identity::read(&self.base, place, chain, key.expose(), None)
                    .map_err(|error| error.to_string())
            }
            Err(problem) => Err(problem.detail.clone()),
        };
        match read {
            Ok(identity) => {
                let identity = Arc::new(identity);
                warn_of_expiry(&identity, unix_now());
                warn_of_name(&identity, &stored.name);
                let good = Arc::downgrade(&identity);
                self.remember(&stored.name, Known { good, broken: None });
                Some(identity)
            }
            Err(problem) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let instead = if good.is_some() {
                    "the certificate that it held before is served on"
                } else {
                    "it is passed over"
                };
                warn!(key = stored.key, "certificate not used: {problem}; {instead}");
                let known = good.as_ref().map_or_else(Weak::new, Arc::downgrade);
                self.remember(&stored.name, Known { good: known, broken: Some(digest) });
                good
            }
        }
    }

    fn remember(&self, name: &str, what: Known) {
        let mut known = lock(&self.known);
        if known.len() >= MAX_KNOWN {
            known.retain(|_, known| known.good.strong_count() > 0);
            if known.len() >= MAX_KNOWN {
                // This only repeats reports.
                known.clear();
            }
        }
        known.insert(name.into(), what);
    }
}
