//! Whom we trust and who we are on TLS connections to Marathon.
//!
//! rustls with its default provider, aws-lc-rs. The system's roots count; files add to them, also certificates that
//! signed themselves.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::{ClientBuilder, Identity};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use shared::pinned::PinnedVerifier;
use thiserror::Error;

/// What can be said about TLS.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// PEM files with certificates that are believed, and what they have signed, alongside the system's.
    pub ca_files: Vec<PathBuf>,
    /// PEM files with our own certificate (and its chain) and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Believe every certificate. Whoever is on the way reads credentials and writes routes.
    pub is_insecure: bool,
}

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// No certificates in a file that should have some.
    #[error("{path}: no certificates in PEM")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong, if there is more to say.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A file that cannot be read.
    #[error("{path}: cannot be read")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Certificate and key do not make an identity.
    #[error("{certificate} and {key}: not a certificate and its private key in PEM")]
    Identity {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Tls {
    /// Reads the files. `with_system` or not, the system's roots count.
    pub(super) fn apply(
        &self,
        mut to: ClientBuilder,
        with_system: bool,
    ) -> Result<ClientBuilder, TlsError> {
        let pinned = self.certificates()?;
        if !self.is_insecure && !pinned.is_empty() {
            return Ok(to.tls_backend_preconfigured(self.pinning(pinned, with_system)?));
        }
        if let Some((certificate, key)) = &self.identity {
            let mut pem = read(certificate)?;
            pem.push(b'\n');
            pem.extend(read(key)?);
            let identity = Identity::from_pem(&pem);
            to = to.identity(identity.map_err(|error| self.wrong_identity(error.into()))?);
        }
        if self.is_insecure {
            return Ok(to.tls_danger_accept_invalid_certs(true));
        }
        Ok(if with_system { to.tls_certs_merge([]) } else { to.tls_certs_only([]) })
    }

    /// The certificates of the files.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let mut all = Vec::new();
        for path in &self.ca_files {
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
            match found {
                Ok(found) if !found.is_empty() => all.extend(found),
                other => return Err(unusable(path, other.err().map(Into::into))),
            }
        }
        Ok(all)
    }

    /// Settings by which these certificates are believed, and what they, or the system's authorities,
    /// have signed.
    fn pinning(
        &self,
        pinned: Vec<CertificateDer<'static>>,
        with_system: bool,
    ) -> Result<ClientConfig, TlsError> {
        let mut roots = RootCertStore::empty();
        if with_system {
            let system = rustls_native_certs::load_native_certs().certs;
            let (_used, _unusable) = roots.add_parsable_certificates(system);
        }
        let wrong = |error: rustls::Error| {
            let path = self.ca_files.first().cloned().unwrap_or_default();
            unusable(&path, Some(error.into()))
        };
        for certificate in &pinned {
            roots.add(certificate.clone()).map_err(wrong)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let signed =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let signed =
            signed.build().map_err(|error| wrong(rustls::Error::General(error.to_string())));
        let verifier = PinnedVerifier::new(pinned.into(), signed?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let Some((certificate, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let (chain, key) = (read(certificate)?, read(key)?);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
        let chain = chain.map_err(|error| self.wrong_identity(error.into()))?;
        let key = PrivateKeyDer::from_pem_slice(&key);
        let key = key.map_err(|error| self.wrong_identity(error.into()))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| self.wrong_identity(error.into()))
    }

    fn wrong_identity(&self, source: Box<dyn std::error::Error + Send + Sync>) -> TlsError {
        let (certificate, key) = self.identity.clone().unwrap_or_default();
        TlsError::Identity { certificate, key, source }
    }
}

fn unusable(path: &Path, source: Option<Box<dyn std::error::Error + Send + Sync>>) -> TlsError {
    TlsError::Certificates { path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
