//! TLS for the bench itself: the certificate that every proxy serves, and clients that take any.
//!
//! The client's own work is kept small, so that the proxy and not the load generator is the limit:
//! it verifies nothing, and it offers the one key exchange that all three proxies have.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::contenders::HOST;

/// Servers whose sessions a client remembers, eight of each.
const SESSIONS: usize = 8;

/// The certificate of the proxies: self-signed, ECDSA over P-256.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub(crate) both: PathBuf,
}

impl Files {
    pub(crate) fn create(dir: &Path) -> anyhow::Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("no key")?;
        let certificate = CertificateParams::new(vec![HOST.to_owned()])
            .and_then(|params| params.self_signed(&key))
            .context("no certificate")?;
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        let write = |name: &str, text: String| -> anyhow::Result<PathBuf> {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            Ok(path)
        };
        Ok(Self {
            both: write("both.pem", format!("{certificate}{key}"))?,
            certificate: write("certificate.pem", certificate)?,
            key: write("key.pem", key)?,
        })
    }
}

/// Makes TLS 1.3 connections to a proxy.
pub(crate) struct Client {
    connector: TlsConnector,
    name: ServerName<'static>,
    /// What it offers by ALPN.
    protocol: Option<&'static [u8]>,
}

impl Client {
    /// One that resumes sessions, or one that makes a full handshake each time.
    pub(crate) fn new(resumes: bool) -> anyhow::Result<Self> {
        Self::build(resumes, None)
    }

    /// One that speaks HTTP/2 and nothing else (ALPN `h2`).
    pub(crate) fn http2() -> anyhow::Result<Self> {
        Self::build(false, Some(b"h2"))
    }

    fn build(resumes: bool, protocol: Option<&'static [u8]>) -> anyhow::Result<Self> {
        let mut provider = default_provider();
        provider.kx_groups = vec![kx_group::X25519];
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        let mut config = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::new(provider))
            .with_protocol_versions(&[&TLS13])
            .context("TLS 1.3")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(schemes)))
            .with_no_client_auth();
        config.resumption = match resumes {
            true => Resumption::in_memory_sessions(SESSIONS),
            false => Resumption::disabled(),
        };
        config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
        let name = ServerName::try_from(HOST).context("a host name")?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name, protocol })
    }

    /// A connection, and whether its handshake resumed an earlier session.
    pub(crate) async fn connect(&self, port: u16) -> anyhow::Result<(TlsStream<TcpStream>, bool)> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        let session = stream.get_ref().1;
        ensure!(
            self.protocol.is_none() || session.alpn_protocol() == self.protocol,
            "the proxy did not choose the protocol that was offered"
        );
        let kind = session.handshake_kind();
        ensure!(
            kind != Some(rustls::HandshakeKind::FullWithHelloRetryRequest),
            "the proxy asked for another key exchange"
        );
        Ok((stream, kind == Some(rustls::HandshakeKind::Resumed)))
    }
}

/// Accepts every certificate: verifying one would add to the client's cost, not the proxy's.
#[derive(Debug)]
struct AnyCertificate(Vec<SignatureScheme>);

impl ServerCertVerifier for AnyCertificate {
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
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
