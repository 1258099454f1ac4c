//! TLS in front of what speaks plain bytes: clients and backends are those of the other tests, with
//! a real TLS library between them and the router.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream as AsyncStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::certificates::Identity;
use crate::client::Client;
use crate::eventually::DEADLINE;

/// What copies bytes between both sides.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
});

/// A kind of client: whom it trusts, what it speaks. Remembers sessions.
#[derive(Clone, Debug)]
pub struct Kind {
    config: Arc<ClientConfig>,
}

/// A connection to the router, and what its handshake agreed on.
#[derive(Debug)]
pub struct Connected {
    /// Speaks over it.
    pub client: Client,
    /// The router's certificate.
    pub certificate: CertificateDer<'static>,
    /// TLS 1.2 or 1.3.
    pub version: ProtocolVersion,
    /// A session of before was gone on with.
    pub is_resumed: bool,
    /// What is spoken inside.
    pub protocol: Option<String>,
}

impl Kind {
    /// Trusts this authority and speaks TLS 1.2 and 1.3.
    pub fn trusting(ca: &Path) -> Self {
        Self::speaking(ca, &[&TLS13, &TLS12])
    }

    /// Speaks TLS 1.2 alone.
    pub fn tls_1_2(ca: &Path) -> Self {
        Self::speaking(ca, &[&TLS12])
    }

    fn speaking(ca: &Path, versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).expect("the authority's file") {
            roots.add(certificate.expect("PEM")).expect("an authority");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(32);
        Self { config: Arc::new(config) }
    }

    /// Offers these protocols (ALPN).
    #[must_use]
    pub fn offering(&self, protocols: &[&str]) -> Self {
        let mut config = (*self.config).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self { config: Arc::new(config) }
    }

    /// The same without a memory: a session that goes on shows the certificate that it began with.
    #[must_use]
    pub fn forgetful(&self) -> Self {
        let mut config = (*self.config).clone();
        config.resumption = Resumption::disabled();
        Self { config: Arc::new(config) }
    }

    /// Connects and asks for `host`; an address asks for none.
    ///
    /// # Errors
    ///
    /// What the handshake failed with.
    pub fn try_connect(&self, addr: SocketAddr, host: &str) -> std::io::Result<Connected> {
        let name = ServerName::try_from(host.to_owned()).expect("a host");
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let handshake = async move {
            let stream = AsyncStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            connector.connect(name, stream).await
        };
        let mut stream = RUNTIME.block_on(async {
            tokio::time::timeout(DEADLINE, handshake).await.expect("a handshake in time")
        })?;
        let (_, tls) = stream.get_ref();
        let certificate = tls.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.expect("a certificate").clone().into_owned();
        let version = tls.protocol_version().expect("a version");
        let is_resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
        let protocol = tls.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        let (ours, mut theirs) = pair();
        RUNTIME.spawn(async move {
            let _ended = tokio::io::copy_bidirectional(&mut theirs, &mut stream).await;
        });
        Ok(Connected { client: Client::over(ours), certificate, version, is_resumed, protocol })
    }

    /// Connects and asks for `host`; panics when there is no TLS.
    #[track_caller]
    pub fn connect(&self, addr: SocketAddr, host: &str) -> Connected {
        self.try_connect(addr, host).unwrap_or_else(|error| panic!("TLS with {host}: {error}"))
    }
}

impl Connected {
    /// Whether this is the certificate that the router served.
    pub fn was_served(&self, identity: &Identity) -> bool {
        self.is(&identity.pem().0)
    }

    /// Whether the router served this certificate, PEM.
    pub fn is(&self, certificate: &str) -> bool {
        CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM") == self.certificate
    }
}

/// Both ends of a connection without TLS.
fn pair() -> (TcpStream, AsyncStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours = TcpStream::connect(listener.local_addr().expect("an address")).expect("loopback");
    let (theirs, _) = listener.accept().expect("loopback");
    theirs.set_nonblocking(true).expect("a socket");
    theirs.set_nodelay(true).expect("a socket");
    let _runtime = RUNTIME.enter();
    (ours, AsyncStream::from_std(theirs).expect("a socket"))
}

/// TLS in front of a backend.
#[derive(Debug)]
pub struct Front {
    port: u16,
    seen: Arc<Mutex<Vec<Option<String>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Front {
    /// Serves `identity` and hands on what is inside to the backend on that port.
    pub fn start(identity: &Identity, backend: u16) -> Self {
        Self::offering(identity, backend, &[])
    }

    /// The same, choosing among these protocols (ALPN).
    pub fn offering(identity: &Identity, backend: u16, protocols: &[&str]) -> Self {
        Self::choosing(identity, protocols, move |_| backend)
    }

    /// Hands on HTTP/2 to the one backend and HTTP/1.1 to the other.
    pub fn splitting(identity: &Identity, http2: u16, http1: u16) -> Self {
        let choose = move |is_http2| if is_http2 { http2 } else { http1 };
        Self::choosing(identity, &["h2", "http/1.1"], choose)
    }

    fn choosing(
        identity: &Identity,
        protocols: &[&str],
        choose: impl Fn(bool) -> u16 + Copy + Send + Sync + 'static,
    ) -> Self {
        let chain = CertificateDer::pem_file_iter(&identity.certificate).expect("own file");
        let chain: Result<Vec<_>, _> = chain.collect();
        let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.expect("PEM"), key)
            .expect("a certificate with its key");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = RUNTIME.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::<Mutex<Vec<Option<String>>>>::default();
        let names = Arc::clone(&seen);
        let task = RUNTIME.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, names) = (acceptor.clone(), Arc::clone(&names));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let name = stream.get_ref().1.server_name().map(str::to_owned);
                    let backend = choose(stream.get_ref().1.alpn_protocol() == Some(b"h2"));
                    names.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                    let Ok(mut inner) = AsyncStream::connect(("127.0.0.1", backend)).await else {
                        return;
                    };
                    let _ended = tokio::io::copy_bidirectional(&mut stream, &mut inner).await;
                });
            }
        });
        Self { port, seen, task }
    }

    /// `https://<host>:<port>`.
    pub fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.port)
    }

    /// The server names of the handshakes so far.
    pub fn server_names(&self) -> Vec<Option<String>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}
