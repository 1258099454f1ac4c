//! Whom we trust and who we are on TLS connections to Marathon.
//!
//! rustls with its default provider, aws-lc-rs. The system's roots count; files add to them.

use std::io;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, ClientBuilder, Identity};
use thiserror::Error;

/// What can be said about TLS.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// PEM files with certificate authorities, beside the system's.
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
        source: Option<reqwest::Error>,
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
        source: reqwest::Error,
    },
}

impl Tls {
    /// Reads the files. `with_system` or not, the system's roots count.
    pub(super) fn apply(
        &self,
        mut to: ClientBuilder,
        with_system: bool,
    ) -> Result<ClientBuilder, TlsError> {
        let mut authorities = Vec::new();
        for path in &self.ca_files {
            let found = Certificate::from_pem_bundle(&read(path)?);
            match found {
                Ok(found) if !found.is_empty() => authorities.extend(found),
                other => {
                    return Err(TlsError::Certificates { path: path.clone(), source: other.err() });
                }
            }
        }
        if let Some((certificate, key)) = &self.identity {
            let mut pem = read(certificate)?;
            pem.push(b'\n');
            pem.extend(read(key)?);
            let identity = Identity::from_pem(&pem).map_err(|source| TlsError::Identity {
                certificate: certificate.clone(),
                key: key.clone(),
                source,
            })?;
            to = to.identity(identity);
        }
        if self.is_insecure {
            return Ok(to.tls_danger_accept_invalid_certs(true));
        }
        Ok(if with_system {
            to.tls_certs_merge(authorities)
        } else {
            to.tls_certs_only(authorities)
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
