//! Making a connection to a backend: its name resolved, every address tried, all within one time limit.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use rustls::pki_types::ServerName;
use shared::backend::{BackendHost, Origin, Scheme};
use shared::time_limit;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tracing::warn;

use super::guard::{Forbidden, Guard};
use super::names::{Lookup, Names};
use super::trust::Trusts;
use crate::clock::Clock;
use crate::descriptors::Descriptors;
use crate::route::trust::{Authorities, Id, Signers, Trust};
use crate::seldom::Seldom;
use crate::stream::Stream;

/// Backends remembered whose TLS was complained about.
const MAX_REPORTED: usize = 10_000;
/// A look-up takes this part of the time to connect at most.
const LOOKUP_SHARE: u32 = 2;

/// Why a backend could not be connected to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// This process or machine has no socket left for it, which says nothing about the backend.
    #[error("no socket left for a connection to {address}")]
    Exhausted {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The backend has an address that none may have.
    #[error("{address} is not connected to: {reason}")]
    Forbidden {
        /// The address.
        address: SocketAddr,
        /// Why.
        reason: Forbidden,
    },
    /// The first exchange of the protocol failed.
    #[error("cannot start HTTP on the connection")]
    Handshake(#[source] hyper::Error),
    /// Every address refused, or could not be reached.
    #[error("cannot connect to {address}")]
    Refused {
        /// The address tried last.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The name of the backend does not resolve.
    #[error("cannot resolve {name}")]
    Resolve {
        /// The name.
        name: Box<str>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No address answered within the limit.
    #[error("no connection within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// There is no TLS with the backend, or its certificate is not to be trusted.
    #[error("no TLS with {name}")]
    Tls {
        /// The host of its URL.
        name: Box<str>,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

/// Where a connection leads to.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The backend.
    pub origin: &'a Origin,
    /// By what its certificate is verified, where it is not by what the configuration says.
    pub trust: Option<&'a Trust>,
    /// Time for connecting, TLS included, where it is not `server.connectTimeout`.
    pub connect_timeout: Option<Duration>,
}

/// Makes connections. Shared by all workers, and so are the names it has resolved.
#[derive(Debug)]
pub struct Connector {
    timeout: Duration,
    guard: Guard,
    clock: Arc<Clock>,
    refusals: Seldom,
    descriptors: Descriptors,
    exhaustions: Seldom,
    names: Names,
    trusts: Trusts,
    /// Backends whose TLS was complained about, and by whose rule.
    reported: Mutex<HashSet<(Origin, Option<Id>)>>,
}

impl Connector {
    /// Gives up a connection after `timeout`, and makes none that `guard` forbids. `authorities` are
    /// those that `https://` backends are verified by; without any it is those of the system. `lookup`
    /// resolves names.
    pub fn new(
        timeout: Duration,
        guard: Guard,
        clock: Arc<Clock>,
        authorities: Option<Authorities>,
        lookup: Arc<Lookup>,
        descriptors: Descriptors,
    ) -> Self {
        let (reported, refusals) = (Mutex::default(), Seldom::default());
        let exhaustions = Seldom::default();
        let names = Names::new(Arc::clone(&clock), lookup);
        let trusts = Trusts::new(authorities);
        Self { timeout, guard, clock, refusals, descriptors, exhaustions, names, trusts, reported }
    }

    /// The names of backends.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Time for connecting to a backend.
    pub fn limit(&self, to: Destination<'_>) -> Duration {
        to.connect_timeout.unwrap_or(self.timeout)
    }

    /// Connects to a backend. Over TLS HTTP/1.1 is offered, and HTTP/2 if `offers_http2`.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] once every address failed or the time is over.
    pub async fn connect(
        &self,
        to: Destination<'_>,
        offers_http2: bool,
    ) -> Result<Stream, ConnectError> {
        let origin = to.origin;
        let limit = self.limit(to);
        let connected = async {
            let stream = self.connect_any(origin, limit).await?;
            match origin.scheme {
                Scheme::H2c | Scheme::Http => Ok(Stream::Plain(stream)),
                Scheme::Https => Box::pin(self.encrypt(stream, to, offers_http2)).await,
            }
        };
        match time_limit::timeout(limit, connected).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ConnectError::TimedOut(limit)),
        }
    }

    async fn encrypt(
        &self,
        stream: TcpStream,
        to: Destination<'_>,
        offers_http2: bool,
    ) -> Result<Stream, ConnectError> {
        let origin = to.origin;
        let name = origin.host.to_string();
        let failed = |source| ConnectError::Tls { name: name.as_str().into(), source };
        let signers = to.trust.map_or(&Signers::Configured, |trust| &trust.signers);
        let configs = self.trusts.config(signers).await.map_err(failed)?;
        let config = if offers_http2 { configs.any } else { configs.http1 };
        let own = to.trust.and_then(|trust| trust.name.clone());
        let server = match (own, &origin.host) {
            (Some(name), _) => Ok(name),
            (None, BackendHost::Ip(address)) => Ok(ServerName::from(*address)),
            (None, BackendHost::Name(name)) => ServerName::try_from(name.to_string()),
        };
        let server = server.map_err(|error| failed(io::Error::other(error)))?;
        let result = TlsConnector::from(config).connect(server, stream).await;
        // One that does not want HTTP/1.1 may well be fine.
        if offers_http2 {
            self.report(to, result.as_ref().err());
        }
        Ok(Stream::Tls(Box::new(result.map_err(failed)?.into())))
    }

    /// Says once that there is no TLS with a backend: where it is the only one of its frontend, it
    /// is never marked dead, and nothing else would say so.
    fn report(&self, to: Destination<'_>, error: Option<&io::Error>) {
        let key = (to.origin.clone(), to.trust.map(|trust| *trust.id()));
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            None => {
                reported.remove(&key);
            }
            Some(error) => {
                if reported.len() < MAX_REPORTED && reported.insert(key) {
                    warn!(
                        backend = %to.origin, %error,
                        "no TLS with the backend; its certificate has to be valid for the host of its \
                         URL (or backend-name of the options), and signed by an authority of the \
                         system or of server.backendCa (or backend-ca), or be listed there itself"
                    );
                }
            }
        }
    }

    async fn connect_any(
        &self,
        origin: &Origin,
        limit: Duration,
    ) -> Result<TcpStream, ConnectError> {
        let name = match &origin.host {
            BackendHost::Ip(address) => {
                return self.dial(origin, SocketAddr::new(*address, origin.port)).await;
            }
            BackendHost::Name(name) => name,
        };
        let name = self.names.entry(name);
        let found = self.names.addresses(&name, limit / LOOKUP_SHARE).await;
        let addresses =
            found.map_err(|source| ConnectError::Resolve { name: name.text().into(), source })?;
        name.take_turn();
        let mut last = ConnectError::TimedOut(limit);
        for (index, address) in addresses.iter().enumerate() {
            let address = SocketAddr::new(*address, origin.port);
            // A silent address must leave time for the others.
            let share = limit / u32::try_from(addresses.len() - index).unwrap_or(1);
            last = match time_limit::timeout(share, self.dial(origin, address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                // That we have no socket says nothing about the address.
                Ok(Err(error @ ConnectError::Exhausted { .. })) => return Err(error),
                Ok(Err(error)) => error,
                Err(_elapsed) => ConnectError::TimedOut(share),
            };
            self.names.failed(&name, address.ip());
        }
        // Perhaps the backend has moved.
        name.suspect();
        Err(last)
    }

    /// Connects to one address, which is known only now: a name in Redis can lead anywhere.
    async fn dial(&self, origin: &Origin, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        if let Err(reason) = self.guard.check(address, is_local) {
            if let Some(suppressed) = self.refusals.is_due(self.clock.now()) {
                warn!(
                    backend = %origin, %address, suppressed,
                    "backend counts as failed and is not connected to: {reason}"
                );
            }
            return Err(ConnectError::Forbidden { address, reason });
        }
        dial(address, self.descriptors).await.inspect_err(|error| {
            if let ConnectError::Exhausted { source, .. } = error
                && let Some(suppressed) = self.exhaustions.is_due(self.clock.now())
            {
                warn!(
                    backend = %origin, error = %source, suppressed,
                    "requests get 503: there are no file descriptors or ports left for connections to \
                     backends; raise the limit of open files (`ulimit -n`, LimitNOFILE)"
                );
            }
        })
    }
}

async fn dial(address: SocketAddr, descriptors: Descriptors) -> Result<TcpStream, ConnectError> {
    let connect = async {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if !descriptors.allows_backend(socket.as_raw_fd()) {
            return Err(Errno::EMFILE.into());
        }
        socket.connect(address).await
    };
    let stream = connect.await.map_err(|source: io::Error| {
        if is_exhaustion(&source) {
            ConnectError::Exhausted { address, source }
        } else {
            ConnectError::Refused { address, source }
        }
    })?;
    // Without it small writes could wait for the acknowledgement of the one before; when it
    // cannot be set the connection works all the same.
    let _is_set = stream.set_nodelay(true);
    Ok(stream)
}

/// Whether an address is one of this machine's: those have themselves as the way back. Nothing is
/// sent for it. Where there is no socket left to ask with, there is none to connect with either.
fn is_local(address: IpAddr) -> bool {
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    socket.is_ok_and(|local| local.ip() == address)
}

/// Whether a backend refused TLS because none of the protocols offered is one of its own.
pub fn refuses_protocols(error: &ConnectError) -> bool {
    let ConnectError::Tls { source, .. } = error else { return false };
    let error = source.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    let alert = rustls::AlertDescription::NoApplicationProtocol;
    matches!(error, Some(rustls::Error::AlertReceived(received)) if *received == alert)
}

/// Errors that come from our own side: too many open files, no memory, no local port.
fn is_exhaustion(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(
        number,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EADDRNOTAVAIL)
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use shared::backend::BackendUrl;

    use super::{Clock, ConnectError, Connector, Destination, Guard};
    use crate::descriptors::Descriptors;

    fn to(origin: &shared::backend::Origin) -> Destination<'_> {
        Destination { origin, trust: None, connect_timeout: None }
    }

    fn connector() -> Connector {
        let clock = Arc::new(Clock::new());
        let lookup = Arc::new(crate::upstream::names::system);
        let descriptors = Descriptors::of_process();
        Connector::new(Duration::from_secs(5), Guard::default(), clock, None, lookup, descriptors)
    }

    #[tokio::test]
    async fn every_address_of_a_name_is_tried() {
        // `localhost` commonly has two addresses, of which only one listens here.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connector = connector();
        let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let origin = BackendUrl::parse(url.as_bytes()).unwrap().origin;
        for _ in 0..2 {
            let stream = connector.connect(to(&origin), true).await.unwrap();
            assert_eq!(
                stream.socket().unwrap().peer_addr().unwrap(),
                listener.local_addr().unwrap()
            );
        }
    }

    #[tokio::test]
    async fn a_refused_connection_and_an_unknown_name_are_told_apart() {
        let connector = connector();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let origin = BackendUrl::parse(url.as_bytes()).unwrap().origin;
        let error = connector.connect(to(&origin), true).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
        let origin = BackendUrl::parse(b"http://no-such-host.invalid").unwrap().origin;
        let error = connector.connect(to(&origin), true).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::Resolve { .. } | ConnectError::TimedOut(_)),
            "{error:?}"
        );
    }
}
