//! TLS towards clients: which certificate a host is served with, and handshakes.
//!
//! A certificate is chosen between the client's first message, which names the host, and the answer
//! to it: asking Redis is part of the handshake and blocks nobody else. The nearest name of the
//! look-up order wins; at the same name a `tls:` hash of Redis counts before a file of
//! `https.directory`. Where none is found, the default of the address is served.

use std::io;
use std::sync::Arc;

use rustls::ProtocolVersion;
use shared::host;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

mod certificates;
mod files;
mod identity;
mod policy;
mod stored;

pub use certificates::{Certificates, Summary};
pub use files::{FileError, Places};
pub use identity::{Identity, IdentityError, Source};
pub use stored::{CachedCertificate, CertificateCache, StoredSource, certificate_cache};

use crate::stream::Stream;

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client went away.
    #[error("the client went away during the TLS handshake")]
    Closed(#[source] io::Error),
    /// There is no certificate to serve.
    #[error("there is no certificate for {0}, and https.bind has no default one")]
    NoCertificate(Box<str>),
    /// The client sent a request without TLS. It was answered.
    #[error("the client sent plain HTTP to an HTTPS port")]
    PlainHttp,
    /// The client sent what is not TLS, or speaks no version or cipher that we do.
    #[error("TLS handshake failed: {0}")]
    Protocol(#[source] io::Error),
}

/// The TLS side of one listening address.
#[derive(Clone, Debug)]
pub struct Terminator {
    certificates: Arc<Certificates>,
    /// Which of `https.bind` it is.
    bind: usize,
}

/// What was agreed on in a handshake.
#[derive(Debug)]
pub struct Session {
    /// The host that the client named, normalized.
    pub server_name: Option<Box<str>>,
    /// What it was served.
    pub identity: Arc<Identity>,
    /// There was no certificate for that host.
    pub is_default: bool,
    /// TLS 1.3, not 1.2.
    pub is_1_3: bool,
    /// The client came back with a ticket.
    pub is_resumed: bool,
}

impl Session {
    /// Whether a request for `host` may come over this connection; else it gets 421, so that the
    /// client makes a connection that proves that host (RFC 9110 15.5.20).
    ///
    /// Clients of HTTP/2 use one connection for every host that its certificate covers. Those of
    /// HTTP/1.1 do not; balancers among them often name no host, or one of their own, and get the
    /// default certificate.
    pub fn serves(&self, host: &str, is_http2: bool) -> bool {
        self.server_name.as_deref() == Some(host)
            || (!is_http2 && (self.is_default || self.server_name.is_none()))
            || self.identity.covers(host)
    }
}

impl Terminator {
    /// The one of the address at this position of `https.bind`.
    pub fn new(certificates: Arc<Certificates>, bind: usize) -> Self {
        Self { certificates, bind }
    }

    /// Makes a connection an encrypted one. Has no limit in time: whoever calls it sets one.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]; the client has been sent an alert where that was possible.
    pub async fn accept(&self, stream: TcpStream) -> Result<(Stream, Session), HandshakeError> {
        let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let start = acceptor.await.map_err(failure)?;
        let name = start.client_hello().server_name().and_then(|name| {
            // What is no host has no certificate either.
            host::normalize(name.as_bytes()).ok().map(Box::<str>::from)
        });
        let found = match &name {
            Some(name) => Box::pin(self.certificates.find(name)).await,
            None => None,
        };
        let is_default = found.is_none();
        let Some(identity) = found.or_else(|| self.certificates.default(self.bind)) else {
            // This sends the alert.
            let refused = start.into_stream(self.certificates.nobody()).await;
            drop(refused);
            return Err(HandshakeError::NoCertificate(name.unwrap_or_else(|| "nobody".into())));
        };
        let stream = start.into_stream(Arc::clone(&identity.config)).await.map_err(failure)?;
        let (_, tls) = stream.get_ref();
        let session = Session {
            server_name: name,
            identity,
            is_default,
            is_1_3: tls.protocol_version() == Some(ProtocolVersion::TLSv1_3),
            is_resumed: tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        };
        Ok((Stream::Tls(Box::new(stream.into())), session))
    }
}

fn failure(error: io::Error) -> HandshakeError {
    match error.kind() {
        // How the library hands on what it found wrong itself.
        io::ErrorKind::InvalidData => HandshakeError::Protocol(error),
        _ => HandshakeError::Closed(error),
    }
}
