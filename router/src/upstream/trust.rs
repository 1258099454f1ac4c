//! TLS towards backends: by what their certificates are verified.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    WantsVerifier,
};
use shared::lock::lock;
use shared::pinned::PinnedVerifier;
use tokio::sync::OnceCell;
use tracing::warn;

use crate::route::trust::{Authorities, Id, Signers};

/// Authorities of single hosts whose settings are kept ready.
const MAX_SPECIAL: usize = 1000;

/// Settings of handshakes with backends, made when they are first needed.
#[derive(Debug)]
pub(super) struct Trusts {
    /// The authorities of `server.backendCa`.
    authorities: Option<Authorities>,
    provider: Arc<CryptoProvider>,
    configured: OnceCell<Configs>,
    anyone: OnceCell<Configs>,
    /// By the digest of the PEM.
    special: Mutex<HashMap<Id, Configs>>,
}

/// Settings by what is offered to the backend.
#[derive(Clone, Debug)]
pub(super) struct Configs {
    /// HTTP/2 and HTTP/1.1, as the backend likes.
    pub(super) any: Arc<ClientConfig>,
    /// HTTP/1.1 alone, for protocols that it can be upgraded to.
    pub(super) http1: Arc<ClientConfig>,
}

/// Reads the authorities of `server.backendCa`.
///
/// # Errors
///
/// When the file cannot be read or holds no certificate.
pub fn read_authorities(path: &Path) -> anyhow::Result<Authorities> {
    let pem = std::fs::read(path).map_err(|error| {
        anyhow::anyhow!("server.backendCa: {} cannot be read: {error}", path.display())
    })?;
    Authorities::parse(&pem)
        .map_err(|error| anyhow::anyhow!("server.backendCa: {}: {error}", path.display()))
}

impl Trusts {
    pub(super) fn new(authorities: Option<Authorities>) -> Self {
        Self {
            authorities,
            provider: Arc::new(aws_lc_rs::default_provider()),
            configured: OnceCell::new(),
            anyone: OnceCell::new(),
            special: Mutex::default(),
        }
    }

    /// The settings for certificates that these have signed.
    pub(super) async fn config(&self, signers: &Signers) -> io::Result<Configs> {
        match signers {
            Signers::Anyone => {
                self.anyone.get_or_try_init(|| async { self.unverified() }).await.cloned()
            }
            Signers::Authorities(authorities) => self.special(authorities),
            Signers::Configured => {
                let config = self.configured.get_or_try_init(|| async {
                    if let Some(authorities) = &self.authorities {
                        return self.known_to(authorities);
                    }
                    // Files of the system are read, some hundred of them.
                    let roots = tokio::task::spawn_blocking(system_authorities)
                        .await
                        .map_err(io::Error::other)?;
                    let config = self.builder()?.with_root_certificates(roots);
                    Ok(finish(config.with_no_client_auth()))
                });
                config.await.cloned()
            }
            Signers::Nobody => {
                Err(io::Error::other("backend-… of the host's options is unreadable"))
            }
        }
    }

    /// The settings of a host's own authorities: made once, for all hosts that name the same ones.
    fn special(&self, authorities: &Authorities) -> io::Result<Configs> {
        let mut special = lock(&self.special);
        if let Some(config) = special.get(authorities.id()) {
            return Ok(config.clone());
        }
        if special.len() >= MAX_SPECIAL {
            special.clear();
        }
        let config = self.known_to(authorities)?;
        special.insert(*authorities.id(), config.clone());
        Ok(config)
    }

    fn known_to(&self, authorities: &Authorities) -> io::Result<Configs> {
        let (roots, provider) = (Arc::clone(&authorities.roots), Arc::clone(&self.provider));
        let signed = WebPkiServerVerifier::builder_with_provider(roots, provider);
        let signed = signed.build().map_err(io::Error::other)?;
        let pinned = Arc::clone(&authorities.certificates);
        self.verified_by(Rule::Known(PinnedVerifier::new(pinned, signed)))
    }

    fn unverified(&self) -> io::Result<Configs> {
        self.verified_by(Rule::Anyone)
    }

    fn verified_by(&self, rule: Rule) -> io::Result<Configs> {
        let verifier = Arc::new(Verifier { rule, provider: Arc::clone(&self.provider) });
        let config = self.builder()?.dangerous().with_custom_certificate_verifier(verifier);
        Ok(finish(config.with_no_client_auth()))
    }

    fn builder(&self) -> io::Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
        ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)
    }
}

fn finish(mut config: ClientConfig) -> Configs {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let http1 = Arc::new(config.clone());
    config.alpn_protocols.insert(0, b"h2".to_vec());
    // Its own memory of sessions: one that was agreed on for the one is no good for the other.
    config.resumption = Resumption::default();
    Configs { any: Arc::new(config), http1 }
}

fn system_authorities() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_used, _unusable) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        warn!(
            "this system has no certificate authorities: https:// backends cannot be verified; \
             install ca-certificates or set server.backendCa"
        );
    }
    Arc::new(roots)
}

/// Asks every peer to prove that it has the key of its certificate, and of the certificate what the rule
/// says.
#[derive(Debug)]
struct Verifier {
    rule: Rule,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Rule {
    /// Any certificate.
    Anyone,
    /// What known authorities have signed, and their certificates themselves.
    Known(PinnedVerifier),
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.rule {
            Rule::Anyone => Ok(ServerCertVerified::assertion()),
            Rule::Known(known) => {
                known.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{MAX_SPECIAL, Trusts};
    use crate::route::trust::{Authorities, Signers};

    const CA: &str = include_str!("../../../integration/tests/pem/ca.crt");

    fn authorities(pem: &str) -> Signers {
        Signers::Authorities(Authorities::parse(pem.as_bytes()).unwrap())
    }

    #[tokio::test]
    async fn each_rule_has_settings_of_its_own_and_mistakes_have_none() {
        let trusts = Trusts::new(None);
        let mut seen = Vec::new();
        for signers in [Signers::Anyone, authorities(CA), Signers::Configured] {
            let configs = trusts.config(&signers).await.unwrap();
            assert_eq!(configs.any.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
            assert_eq!(configs.http1.alpn_protocols, [b"http/1.1"]);
            let again = trusts.config(&signers).await.unwrap();
            assert!(Arc::ptr_eq(&configs.any, &again.any), "{signers:?} are made once");
            assert!(!seen.iter().any(|other| Arc::ptr_eq(other, &configs.any)));
            seen.push(configs.any);
        }
        assert!(trusts.config(&Signers::Nobody).await.is_err());
    }

    #[tokio::test]
    async fn what_is_kept_ready_is_bounded() {
        let trusts = Trusts::new(None);
        for number in 0..=MAX_SPECIAL {
            let _config = trusts.config(&authorities(&format!("{CA}# {number}"))).await.unwrap();
        }
        assert!(trusts.special.lock().unwrap().len() <= MAX_SPECIAL);
    }
}
