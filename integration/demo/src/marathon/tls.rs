//! A private certificate authority and a certificate by it for the loopback.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// What a server with TLS needs, and what its clients have to trust.
#[derive(Clone)]
pub(super) struct Tls {
    /// The authority's certificate in PEM.
    pub(super) authority: String,
    pub(super) acceptor: TlsAcceptor,
}

impl Tls {
    /// An authority of its own, with a certificate for `localhost` and 127.0.0.1.
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "fake Marathon authority");
        let key = KeyPair::generate().expect("a key for the authority");
        let authority = params.self_signed(&key).expect("the authority's certificate");
        let issuer = Issuer::new(params, key);

        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf_key = KeyPair::generate().expect("a key for the server");
        let leaf = CertificateParams::new(names)
            .and_then(|params| params.signed_by(&leaf_key, &issuer))
            .expect("the server's certificate");

        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| {
                config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key)
            })
            .expect("a key that belongs to its certificate");
        Self { authority: authority.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}
