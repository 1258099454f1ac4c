//! TLS towards backends: by what their certificates are verified.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::OnceCell;
use tracing::warn;

/// Authorities of hosts of their own that are kept ready.
const MAX_OTHERS: usize = 1000;

/// By what the certificate of an `https://` backend is verified. Connections are shared only between
/// those who agree on it.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum Trust {
    /// Not at all: encrypted, but perhaps to the wrong one.
    Anyone,
    /// By these authorities, PEM.
    Authority(Arc<str>),
    /// By `server.backendCa`, or by the authorities of the system.
    #[default]
    Configured,
}

/// Settings of handshakes with backends, made when they are first needed.
#[derive(Debug)]
pub(super) struct Trusts {
    /// The authorities of `server.backendCa`.
    authorities: Option<Arc<RootCertStore>>,
    provider: Arc<CryptoProvider>,
    configured: OnceCell<Configs>,
    others: Mutex<HashMap<Trust, Configs>>,
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
pub fn read_authorities(path: &Path) -> anyhow::Result<Arc<RootCertStore>> {
    let pem = std::fs::read(path).map_err(|error| {
        anyhow::anyhow!("server.backendCa: {} cannot be read: {error}", path.display())
    })?;
    let roots = parse_authorities(&pem)
        .map_err(|error| anyhow::anyhow!("server.backendCa: {}: {error}", path.display()))?;
    Ok(Arc::new(roots))
}

fn parse_authorities(pem: &[u8]) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    if roots.is_empty() {
        return Err(io::Error::other("there is no `-----BEGIN CERTIFICATE-----` in it"));
    }
    Ok(roots)
}

impl Trusts {
    pub(super) fn new(authorities: Option<Arc<RootCertStore>>) -> Self {
        Self {
            authorities,
            provider: Arc::new(aws_lc_rs::default_provider()),
            configured: OnceCell::new(),
            others: Mutex::default(),
        }
    }

    /// The settings of `trust`.
    pub(super) async fn config(&self, trust: &Trust) -> io::Result<Configs> {
        if *trust == Trust::Configured {
            let config = self.configured.get_or_try_init(|| async {
                let roots = match &self.authorities {
                    Some(roots) => Arc::clone(roots),
                    // Files of the system are read, some hundred of them.
                    None => tokio::task::spawn_blocking(system_authorities)
                        .await
                        .map_err(io::Error::other)?,
                };
                self.verified(roots)
            });
            return config.await.cloned();
        }
        if let Some(config) = self.others.lock().unwrap_or_else(PoisonError::into_inner).get(trust)
        {
            return Ok(config.clone());
        }
        let config = match trust {
            Trust::Authority(pem) => self.verified(Arc::new(parse_authorities(pem.as_bytes())?))?,
            Trust::Anyone | Trust::Configured => self.unverified()?,
        };
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if others.len() >= MAX_OTHERS {
            others.clear();
        }
        others.insert(trust.clone(), config.clone());
        Ok(config)
    }

    fn verified(&self, roots: Arc<RootCertStore>) -> io::Result<Configs> {
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(finish(config))
    }

    fn unverified(&self) -> io::Result<Configs> {
        let verifier = Arc::new(Unverified(Arc::clone(&self.provider)));
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(finish(config))
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

/// Takes any certificate, as long as the peer has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::{Trust, Trusts};

    #[tokio::test]
    async fn each_rule_has_settings_of_its_own_and_broken_authorities_have_none() {
        let trusts = Trusts::new(None);
        let authority = include_str!("../../../integration/tests/pem/ca.crt");
        for (trust, is_good) in [
            (Trust::Anyone, true),
            (Trust::Authority(authority.into()), true),
            (Trust::Authority("garbage".into()), false),
            (Trust::Configured, true),
        ] {
            let configs = trusts.config(&trust).await;
            assert_eq!(configs.is_ok(), is_good, "{trust:?}");
            if let Ok(configs) = configs {
                assert_eq!(configs.any.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
                assert_eq!(configs.http1.alpn_protocols, [b"http/1.1"]);
            }
        }
    }
}
