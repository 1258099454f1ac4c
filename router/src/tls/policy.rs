//! The settings that every handshake shares, made once for the process.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use crate::config::TlsPolicy;

/// Has no certificate for anyone: such a handshake ends with an alert.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// The cryptography of `policy`.
fn provider(policy: &TlsPolicy) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if let Some(ciphers) = &policy.ciphers {
        provider.cipher_suites.retain(|suite| match suite {
            rustls::SupportedCipherSuite::Tls12(_) => ciphers.contains(&u16::from(suite.suite())),
            rustls::SupportedCipherSuite::Tls13(_) => true,
        });
    }
    provider
}

/// Settings without a certificate. All certificates share its tickets, so that a session is resumed
/// whichever worker the client comes back to; rustls makes new keys for them every six hours and
/// takes those of the six hours before. A session is bound to its server name all the same.
///
/// # Errors
///
/// When the library cannot be set up, which is a bug or a machine without randomness.
pub(super) fn base(policy: &TlsPolicy, protocols: &[&[u8]]) -> Result<ServerConfig, rustls::Error> {
    let versions: Vec<_> = [(&TLS13, policy.tls_1_3), (&TLS12, policy.tls_1_2)]
        .into_iter()
        .filter_map(|(version, is_served)| is_served.then_some(version))
        .collect();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider(policy)))
        .with_protocol_versions(&versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Nobody));
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    // Tickets need no memory of ours.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ignore_client_order = policy.own_order;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}
