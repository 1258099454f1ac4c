//! Certificates that are believed themselves, not only what they have signed.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};

/// Believes certificates of a list, and what another verifier believes. Name and time have to be right
/// in any case, and the server has to prove that it has the key.
///
/// A certificate that signed itself says that it is an authority if `openssl req -x509` made it, and such
/// a one is not taken from a server by the rules (RFC 5280 section 4.2.1.9), although whoever has its key
/// is who is wanted.
#[derive(Debug)]
pub struct PinnedVerifier {
    pinned: Arc<[CertificateDer<'static>]>,
    signed: Arc<dyn ServerCertVerifier>,
}

impl PinnedVerifier {
    /// Believes `pinned`, and what `signed` believes.
    pub fn new(
        pinned: Arc<[CertificateDer<'static>]>,
        signed: Arc<dyn ServerCertVerifier>,
    ) -> Self {
        Self { pinned, signed }
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.pinned.contains(end_entity) {
            return self.signed.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        verify_validity(end_entity, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// That it is neither too early nor too late for a certificate.
fn verify_validity(
    certificate: &CertificateDer<'_>,
    now: UnixTime,
) -> Result<(), CertificateError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_unreadable| CertificateError::BadEncoding)?;
    let seconds = |time: x509_parser::time::ASN1Time| {
        UnixTime::since_unix_epoch(Duration::from_secs(time.timestamp().try_into().unwrap_or(0)))
    };
    let validity = parsed.validity();
    let (not_before, not_after) = (seconds(validity.not_before), seconds(validity.not_after));
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before });
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after });
    }
    Ok(())
}
