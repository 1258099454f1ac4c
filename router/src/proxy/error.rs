//! What can go wrong with one request, and everything that follows from it. Decided here and nowhere else:
//! [`ProxyError::consequences`] is the table.

use std::io;

use shared::store::{KeyProblem, StoreError};

use super::tunnel::count::Refusal as TunnelRefusal;
use crate::http1::error::{RequestError, ResponseError};
use crate::pool::CheckoutError;
use crate::route::Route;
use crate::upstream::connect::ConnectError;

/// nginx's status for a client that went away before its response; it is only ever logged.
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Why a request was not answered by a backend.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The backend was silent for too long.
    #[error("the backend did not answer in time")]
    BackendTimedOut,
    /// The request breaks a rule of HTTP that is not one of its message layer.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// The `frontend:` key of the host cannot be read.
    #[error(transparent)]
    BrokenFrontend(KeyProblem),
    /// No connection to the chosen backend.
    #[error(transparent)]
    Checkout(CheckoutError),
    /// The client closed its connection before the response.
    #[error("the client went away")]
    ClientGone,
    /// The options of the host require HTTPS.
    #[error("the host is served by HTTPS only")]
    HttpsOnly {
        /// 301 or 308.
        status: u16,
        /// The same by HTTPS.
        location: Vec<u8>,
    },
    /// Not one of the backends is a usable URL.
    #[error("no backend is a usable URL")]
    InvalidBackends,
    /// The request has passed through as many routers as one may.
    #[error("the request goes round in a circle of routers")]
    Loop,
    /// The options of the host say so, with these seconds for `Retry-After`.
    #[error("the host is under maintenance")]
    Maintenance(u32),
    /// A method that is not forwarded.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// The certificate of the connection is for other hosts.
    #[error("this connection is for another host")]
    Misdirected,
    /// No backend that is not dead.
    #[error("no backend is alive")]
    NoBackend,
    /// The options of the host do not allow this client's address.
    #[error("the address of the client is not allowed")]
    NotAllowed,
    /// More requests are running than `maxRequests`.
    #[error("more requests are running than maxRequests")]
    Overloaded,
    /// Too many passwords are being checked.
    #[error("too many passwords are being checked")]
    PasswordsBusy,
    /// The request is malformed, too large or too slow.
    #[error("{0}")]
    Request(RequestError),
    /// What the backend sent is no response to this request, or it broke off.
    #[error("{error}")]
    Response {
        /// What is wrong with it.
        error: ResponseError,
        /// What the system said of the connection.
        #[source]
        source: Option<io::Error>,
    },
    /// Redis gave no answer, and the host is not in memory.
    #[error(transparent)]
    Store(StoreError),
    /// The headers of the requests on one connection of HTTP/2 are too large together.
    #[error("the headers of all requests on this connection exceed 1 MiB")]
    TooLargeHeads,
    /// More tunnels than a limit allows.
    #[error("no more tunnels: {} is reached", .0.setting())]
    TooManyTunnels(TunnelRefusal),
    /// The options of the host require a password, and this is none.
    #[error("no password, or a wrong one")]
    Unauthorized,
    /// No list for the host.
    #[error("no frontend for this host")]
    UnknownHost,
    /// The backend sent HTTP that is no response to this request.
    #[error("the backend sent a response that does not fit: {0}")]
    UnfitResponse(&'static str),
}

impl From<RequestError> for ProxyError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<ResponseError> for ProxyError {
    fn from(error: ResponseError) -> Self {
        Self::Response { error, source: None }
    }
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The backend's, or that of its entry in Redis.
    Backend,
    /// The client's.
    Client,
    /// Ours, or that of Redis.
    Router,
}

/// Whether an error marks the backend dead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// It says nothing about the backend.
    No,
    /// Only if silence after this request does (`server.deadBackendOnTimeout`, and its kind).
    IfSilenceMarks,
    /// It does.
    Yes,
}

/// Everything that follows from an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Consequences {
    /// The status that the client gets.
    pub status: u16,
    /// Whose fault it is.
    pub side: Side,
    /// Whether another backend may be tried: only if nothing of the request can have reached this one.
    pub may_try_another: bool,
    /// Whether it marks the backend dead.
    pub mark: Mark,
    /// Seconds after which another try of the client may help: `Retry-After`.
    pub retry_after: Option<u32>,
    /// The connection ends: what follows on it cannot be trusted to be a request.
    pub closes: bool,
    /// Operators have to hear of it: it is what the backends of the host, or its entry in Redis, lack.
    pub is_outage: bool,
    /// Hipache's words for it, in `x-debug-error`, and ours beyond Hipache.
    pub debug_text: &'static str,
}

impl Consequences {
    const fn of(status: u16, side: Side, debug_text: &'static str) -> Self {
        Self {
            status,
            side,
            may_try_another: false,
            mark: Mark::No,
            retry_after: None,
            closes: false,
            is_outage: matches!(side, Side::Backend),
            debug_text,
        }
    }

    const fn client(status: u16, debug_text: &'static str) -> Self {
        Self::of(status, Side::Client, debug_text)
    }

    const fn backend(status: u16, debug_text: &'static str) -> Self {
        Self::of(status, Side::Backend, debug_text)
    }

    /// Ours: later it may work.
    const fn router(debug_text: &'static str) -> Self {
        Self { retry_after: Some(1), ..Self::of(503, Side::Router, debug_text) }
    }

    const fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    const fn try_another(self) -> Self {
        Self { may_try_another: true, ..self }
    }

    const fn marking(self, mark: Mark) -> Self {
        Self { mark, ..self }
    }
}

impl ProxyError {
    /// Everything that follows. `retries` is the configured number, which Hipache's words depend on.
    pub fn consequences(&self, retries: u32) -> Consequences {
        use Consequences as C;
        match self {
            Self::BackendTimedOut => {
                C::backend(504, "backend timed out").marking(Mark::IfSilenceMarks)
            }
            Self::BadRequest(reason) => C::client(400, reason).closing(),
            Self::BrokenFrontend(_) => C::backend(502, "frontend cannot be read"),
            Self::Checkout(error) => of_checkout(error, retries),
            Self::ClientGone => C::client(CLIENT_CLOSED_REQUEST, "client is gone").closing(),
            Self::HttpsOnly { status, .. } => C::client(*status, "https only"),
            Self::InvalidBackends => C::backend(502, "backend is invalid"),
            Self::Loop => C::backend(508, "request goes round in a circle"),
            Self::Maintenance(seconds) => {
                C { retry_after: Some(*seconds), ..C::router("under maintenance") }
            }
            Self::MethodNotAllowed => C::client(405, "method not allowed").closing(),
            Self::Misdirected => C::client(421, "connection is for another host"),
            Self::NoBackend => C::backend(502, "Cannot find a valid backend"),
            Self::NotAllowed => C::client(403, "address not allowed"),
            Self::Overloaded => C::router("too many requests"),
            Self::PasswordsBusy => C::router("too many passwords to check"),
            Self::Request(error) => C::client(error.status(), error.reason()).closing(),
            Self::Response { error, .. } => C::backend(error.status(), error.reason()),
            Self::Store(_) => C::router("Redis is not available"),
            Self::TooLargeHeads => C::client(431, "headers of all requests are too large"),
            // Another backend may have fewer.
            Self::TooManyTunnels(TunnelRefusal::PerBackend) => {
                C::router("too many tunnels").try_another()
            }
            Self::TooManyTunnels(TunnelRefusal::Tunnels) => C::router("too many tunnels"),
            Self::Unauthorized => C::client(401, "password needed"),
            Self::UnfitResponse(reason) => C::backend(502, reason),
            Self::UnknownHost => C::client(400, "frontend not found"),
        }
    }

    /// What happened, with all that the system and libraries said of it (such as `os error 111`), for a
    /// request for `route`.
    pub fn cause(&self, route: &Route) -> String {
        let backends = route.frontend().map_or(&[][..], |frontend| &frontend.backends);
        match self {
            Self::NoBackend if backends.is_empty() => "the list holds no backends".to_owned(),
            Self::NoBackend => format!(
                "all {} backends are marked dead, see dead:{} in Redis",
                backends.len(),
                route.host
            ),
            Self::InvalidBackends => match backends.first() {
                Some(Err(error)) => format!("{self}: of the first, {error}"),
                Some(Ok(_)) | None => self.to_string(),
            },
            Self::Response { error, source } => of_response(*error, source.as_ref()),
            error => with_sources(error),
        }
    }
}

/// What happened to a response, in words.
fn of_response(error: ResponseError, source: Option<&io::Error>) -> String {
    let what = match error {
        ResponseError::HeadTooLarge => "the head of the backend's answer is too large".to_owned(),
        ResponseError::BodyCut | ResponseError::HeadCut | ResponseError::NoResponse => {
            "the backend closed the connection before its answer was complete".to_owned()
        }
        error => format!("the backend's answer is not valid HTTP: {error}"),
    };
    match source {
        Some(source) => format!("{what}: {}", with_sources(source)),
        None => what,
    }
}

fn of_checkout(error: &CheckoutError, retries: u32) -> Consequences {
    use Consequences as C;
    let hipaches = match retries {
        0 => "Retry on error is disabled",
        _ => "Reached max retries limit",
    };
    match error {
        CheckoutError::Connect(error) => match error {
            // What this process lacks is no failure of the backend, and another one would fail alike.
            ConnectError::Exhausted { .. } => {
                C { is_outage: true, retry_after: None, ..C::router(hipaches) }
            }
            ConnectError::Forbidden { .. }
            | ConnectError::Refused { .. }
            | ConnectError::TimedOut(_)
            | ConnectError::Tls { .. } => {
                C::backend(502, hipaches).try_another().marking(Mark::Yes)
            }
            // A resolver that is away would mark them all.
            ConnectError::Handshake(_) | ConnectError::Resolve { .. } => {
                C::backend(502, hipaches).try_another()
            }
        },
        CheckoutError::NoTunnel => {
            C::backend(502, "backend speaks HTTP/2 only, without this upgrade")
        }
        CheckoutError::QueueTimedOut(_) => {
            C { is_outage: true, ..C::router("too many connections to the backend") }
        }
        // Another backend may have no certificate to be verified.
        CheckoutError::UnreadableTrust => {
            C::backend(502, "backend-ca, backend-name or backend-verify of options cannot be read")
                .try_another()
        }
    }
}

/// An error and what led to it, each once.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        // Some errors say in their own words what their source says.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::store::{KeyProblem, StoreError};

    use super::{CheckoutError, ConnectError, Mark, ProxyError, Side, TunnelRefusal};
    use crate::http1::error::{RequestError, ResponseError};

    fn connect(error: ConnectError) -> ProxyError {
        ProxyError::Checkout(CheckoutError::Connect(error))
    }

    #[test]
    fn the_consequences_of_every_error() {
        use Mark::{IfSilenceMarks, No, Yes};
        let problem = KeyProblem { key: "frontend:a".into(), detail: "x".into() };
        let source = || std::io::Error::from_raw_os_error(24);
        let address = "127.0.0.1:1".parse().unwrap();
        let (client, backend, router) = (Side::Client, Side::Backend, Side::Router);
        for (error, status, another, mark, side, closes) in [
            (
                connect(ConnectError::Exhausted { address, source: source() }),
                503,
                false,
                No,
                router,
                false,
            ),
            (
                connect(ConnectError::Refused { address, source: source() }),
                502,
                true,
                Yes,
                backend,
                false,
            ),
            (connect(ConnectError::TimedOut(Duration::ZERO)), 502, true, Yes, backend, false),
            (
                connect(ConnectError::Tls { name: "a".into(), source: source() }),
                502,
                true,
                Yes,
                backend,
                false,
            ),
            (
                connect(ConnectError::Resolve { name: "a".into(), source: source() }),
                502,
                true,
                No,
                backend,
                false,
            ),
            (ProxyError::Checkout(CheckoutError::NoTunnel), 502, false, No, backend, false),
            (ProxyError::Checkout(CheckoutError::QueueTimedOut(1)), 503, false, No, router, false),
            (ProxyError::Checkout(CheckoutError::UnreadableTrust), 502, true, No, backend, false),
            (ProxyError::BackendTimedOut, 504, false, IfSilenceMarks, backend, false),
            (ProxyError::BadRequest("x"), 400, false, No, client, true),
            (ProxyError::BrokenFrontend(problem), 502, false, No, backend, false),
            (ProxyError::ClientGone, 499, false, No, client, true),
            (
                ProxyError::HttpsOnly { status: 308, location: Vec::new() },
                308,
                false,
                No,
                client,
                false,
            ),
            (ProxyError::InvalidBackends, 502, false, No, backend, false),
            (ProxyError::Loop, 508, false, No, backend, false),
            (ProxyError::Maintenance(60), 503, false, No, router, false),
            (ProxyError::MethodNotAllowed, 405, false, No, client, true),
            (ProxyError::Misdirected, 421, false, No, client, false),
            (ProxyError::NoBackend, 502, false, No, backend, false),
            (ProxyError::NotAllowed, 403, false, No, client, false),
            (ProxyError::Overloaded, 503, false, No, router, false),
            (ProxyError::PasswordsBusy, 503, false, No, router, false),
            (RequestError::BodyTooLarge.into(), 413, false, No, client, true),
            (RequestError::BodyTimedOut.into(), 408, false, No, client, true),
            (RequestError::HostMissing.into(), 400, false, No, client, true),
            (RequestError::TooManyFields.into(), 431, false, No, client, true),
            (ResponseError::NoResponse.into(), 502, false, No, backend, false),
            (ProxyError::Store(StoreError::Unavailable), 503, false, No, router, false),
            (ProxyError::TooLargeHeads, 431, false, No, client, false),
            (ProxyError::TooManyTunnels(TunnelRefusal::PerBackend), 503, true, No, router, false),
            (ProxyError::TooManyTunnels(TunnelRefusal::Tunnels), 503, false, No, router, false),
            (ProxyError::Unauthorized, 401, false, No, client, false),
            (ProxyError::UnfitResponse("x"), 502, false, No, backend, false),
            (ProxyError::UnknownHost, 400, false, No, client, false),
        ] {
            let follows = error.consequences(3);
            let seen = (
                follows.status,
                follows.may_try_another,
                follows.mark,
                follows.side,
                follows.closes,
            );
            assert_eq!(seen, (status, another, mark, side, closes), "{error}");
        }
    }

    /// hipache-contract 2, the values of `x-debug-error`.
    #[test]
    fn debug_texts_are_hipaches() {
        let refused = connect(ConnectError::TimedOut(Duration::ZERO));
        for (error, retries, text) in [
            (&ProxyError::UnknownHost, 3, "frontend not found"),
            (&ProxyError::NoBackend, 3, "Cannot find a valid backend"),
            (&ProxyError::InvalidBackends, 3, "backend is invalid"),
            (&RequestError::HostMissing.into(), 3, "no host header"),
            (&refused, 3, "Reached max retries limit"),
            (&refused, 0, "Retry on error is disabled"),
        ] {
            assert_eq!(error.consequences(retries).debug_text, text);
        }
    }
}
