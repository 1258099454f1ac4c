//! A certificate with its key: read from PEM, checked, ready for handshakes. No I/O, no clock.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::{Document, SecretDocument};
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ParsedCertificate, ServerConfig};
use rustls::sign::CertifiedKey;
use shared::secret::Secret;

const ENCRYPTED: (&str, &str) =
    ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "-----END ENCRYPTED PRIVATE KEY-----");

/// What a certificate takes in memory beside its chain: the parsed key and the settings around it.
const OVERHEAD: usize = 4096;

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// `https.cert` of an address.
    Bind,
    /// A file of `https.directory`.
    Directory,
    /// A `tls:` hash.
    Redis,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bind, Self::Directory, Self::Redis];

    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Directory => "directory",
            Self::Redis => "redis",
        }
    }
}

/// The content of a certificate and its key, to tell whether it has changed.
pub(super) type Fingerprint = [u8; 32];

/// A certificate that can be served.
pub struct Identity {
    /// Where it comes from.
    pub source: Source,
    /// The file or the key in Redis, for people.
    pub place: Box<str>,
    /// The end of its validity, in Unix seconds.
    pub not_after: i64,
    /// Of its content.
    pub(super) fingerprint: Fingerprint,
    /// Settings of a handshake with it.
    pub config: Arc<ServerConfig>,
    key: Arc<CertifiedKey>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate's encoding is wrong.
    #[error("its certificate cannot be read: {0}")]
    Certificate(String),
    /// The key does not belong to the certificate.
    #[error("its key belongs to another certificate")]
    KeyMismatch,
    /// The key's encoding is wrong, or of a kind that is not supported.
    #[error("its key cannot be used: {0}")]
    Key(String),
    /// The key is encrypted as OpenSSL did before PKCS #8.
    #[error(
        "its key is encrypted in OpenSSL's old way (Proc-Type: 4,ENCRYPTED); convert it with \
         `openssl pkcs8 -topk8 -v2 aes-256-cbc`"
    )]
    LegacyEncryption,
    /// There is no certificate.
    #[error("there is no `-----BEGIN CERTIFICATE-----` in it")]
    NoCertificate,
    /// There is no key.
    #[error("there is no private key in it (`-----BEGIN PRIVATE KEY-----`)")]
    NoKey,
    /// The key is encrypted, and nobody said with what.
    #[error("its key is encrypted: set https.passphrase, or store it decrypted")]
    NoPassphrase,
    /// The passphrase does not open the key.
    #[error("its key does not open with https.passphrase")]
    WrongPassphrase,
}

/// The digest of what a certificate is made from.
pub(super) fn fingerprint(chain: &[u8], key: &str) -> Fingerprint {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&(chain.len() as u64).to_be_bytes());
    context.update(chain);
    context.update(key.as_bytes());
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(context.finish().as_ref());
    fingerprint
}

impl Identity {
    /// Reads a certificate chain and its key, both PEM. `base` has the settings of every handshake.
    ///
    /// # Errors
    ///
    /// What is wrong with the certificate or the key.
    pub fn read(
        base: &ServerConfig,
        (source, place): (Source, &str),
        chain: &[u8],
        key: &str,
        passphrase: Option<&Secret>,
    ) -> Result<Self, IdentityError> {
        let fingerprint = fingerprint(chain, key);
        let mut certificates: Vec<CertificateDer<'static>> = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(chain) {
            let certificate =
                certificate.map_err(|error| IdentityError::Certificate(error.to_string()))?;
            // `ca` may repeat what stands in `cert` already.
            if !certificates.contains(&certificate) {
                certificates.push(certificate);
            }
        }
        let leaf = certificates.first().ok_or(IdentityError::NoCertificate)?;
        let not_after = match x509_parser::parse_x509_certificate(leaf) {
            Ok((_, certificate)) => certificate.validity().not_after.timestamp(),
            Err(error) => return Err(IdentityError::Certificate(error.to_string())),
        };
        let key = read_key(key, passphrase)?;
        let provider = base.crypto_provider();
        let key = CertifiedKey::from_der(certificates, key, provider).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => IdentityError::KeyMismatch,
            rustls::Error::InvalidCertificate(error) => {
                IdentityError::Certificate(format!("{error:?}"))
            }
            error => IdentityError::Key(error.to_string()),
        })?;
        let key = Arc::new(key);
        let mut config = base.clone();
        config.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(&key)));
        let config = Arc::new(config);
        Ok(Self { source, place: place.into(), not_after, fingerprint, config, key })
    }

    /// Whether a client that asks for `host` may take this certificate as proof.
    pub fn covers(&self, host: &str) -> bool {
        let name = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let (Ok(leaf), Ok(name)) = (self.key.end_entity_cert(), ServerName::try_from(name)) else {
            return false;
        };
        ParsedCertificate::try_from(leaf).is_ok_and(|leaf| verify_server_name(&leaf, &name).is_ok())
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        self.key.cert.iter().map(|certificate| certificate.len()).sum::<usize>() + OVERHEAD
    }
}

fn read_key(
    text: &str,
    passphrase: Option<&Secret>,
) -> Result<PrivateKeyDer<'static>, IdentityError> {
    if let Some(block) = encrypted_block(text) {
        let passphrase = passphrase.ok_or(IdentityError::NoPassphrase)?;
        let broken = |error: &dyn fmt::Display| IdentityError::Key(error.to_string());
        let (_, document) = Document::from_pem(block).map_err(|error| broken(&error))?;
        let info = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
            .map_err(|error| broken(&error))?;
        let opened: SecretDocument = info
            .decrypt(passphrase.expose())
            .map_err(|_wrong_or_garbled| IdentityError::WrongPassphrase)?;
        return Ok(PrivatePkcs8KeyDer::from(opened.as_bytes().to_vec()).into());
    }
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(IdentityError::LegacyEncryption);
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => IdentityError::NoKey,
        error => IdentityError::Key(error.to_string()),
    })
}

/// The PEM block of an encrypted key, if there is one.
fn encrypted_block(text: &str) -> Option<&str> {
    let start = text.find(ENCRYPTED.0)?;
    let block = text.get(start..)?;
    let end = block.find(ENCRYPTED.1)? + ENCRYPTED.1.len();
    block.get(..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::ServerConfig;
    use shared::secret::Secret;

    use super::{Identity, IdentityError, Source};
    use crate::config::TlsPolicy;
    use crate::tls::policy;

    const CERTIFICATE: &str = include_str!("../../../integration/tests/pem/default.crt");
    const ENCRYPTED: &str = include_str!("../../../integration/tests/pem/encrypted.key");
    const LEGACY: &str = include_str!("../../../integration/tests/pem/legacy.key");

    fn base() -> ServerConfig {
        policy::base(&TlsPolicy::preset("intermediate").unwrap(), &[b"http/1.1"]).unwrap()
    }

    fn read(chain: &str, key: &str, passphrase: &str) -> Result<Identity, IdentityError> {
        let passphrase = Some(Secret::new(passphrase)).filter(|_| !passphrase.is_empty());
        let place = (Source::Bind, "here");
        Identity::read(&base(), place, chain.as_bytes(), key, passphrase.as_ref())
    }

    #[test]
    fn a_certificate_covers_its_names_alone() {
        // What stands twice, as in `cert` and in `ca`, is sent once.
        let identity = read(&CERTIFICATE.repeat(2), ENCRYPTED, "opensesame").unwrap();
        assert_eq!(identity.key.cert.len(), 1);
        assert!(identity.not_after > 4_000_000_000, "{}", identity.not_after);
        for (host, is_covered) in [
            ("default.test", true),
            ("x.default.test", false),
            ("127.0.0.1", false),
            ("[::1]", false),
        ] {
            assert_eq!(identity.covers(host), is_covered, "{host}");
        }
    }

    #[test]
    fn what_cannot_be_served_says_why() {
        for (chain, key, passphrase, words) in [
            (CERTIFICATE, ENCRYPTED, "", "set https.passphrase"),
            (CERTIFICATE, ENCRYPTED, "wrong", "does not open"),
            (CERTIFICATE, LEGACY, "opensesame", "openssl pkcs8"),
            (CERTIFICATE, CERTIFICATE, "", "no private key"),
            ("", ENCRYPTED, "opensesame", "BEGIN CERTIFICATE"),
        ] {
            let error = read(chain, key, passphrase).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_is_survived(cut in 0_usize..600, garbage in "[ -~\n]{0,40}") {
            for text in [CERTIFICATE, ENCRYPTED] {
                let (head, tail) = text.split_at(cut.min(text.len()));
                let broken = format!("{head}{garbage}{tail}");
                let _read = read(&broken, ENCRYPTED, "");
                // Without a passphrase: a garbled key may ask for any amount of work to open it.
                let _read = read(CERTIFICATE, &broken, "");
            }
        }
    }
}
