//! What can go wrong with one request, and what follows from it: which status, another try or
//! not, a dead mark or not, whose fault. Decided here and nowhere else.

use http::{HeaderValue, StatusCode};
use shared::store::{KeyProblem, StoreError};

use super::tunnel::count::Refusal as TunnelRefusal;
use crate::request_body::RequestBodyError;
use crate::route::Route;
use crate::upstream::LeaseError;
use crate::upstream::connect::ConnectError;

/// Why a request was not answered by a backend.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The request breaks a rule of HTTP.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// The body is longer than `maxBody`, or than the options of the host allow.
    #[error("the body of the request is longer than allowed")]
    BodyTooLarge,
    /// The `frontend:` key of the host cannot be read.
    #[error(transparent)]
    BrokenFrontend(KeyProblem),
    /// The client sent nothing of its body for too long.
    #[error("the client stopped sending its request")]
    ClientTimedOut,
    /// The client's request body ended early or was malformed.
    #[error("the body of the request is broken")]
    ClientBody,
    /// The options of the host want HTTPS.
    #[error("the host is served by HTTPS only")]
    HttpsOnly {
        /// 301 or 308.
        status: StatusCode,
        /// The same by HTTPS.
        location: HeaderValue,
    },
    /// Not one of the backends is a usable URL.
    #[error("no backend is a usable URL")]
    InvalidBackends,
    /// No connection to the chosen backend.
    #[error(transparent)]
    Lease(LeaseError),
    /// The request has passed through as many routers as one may.
    #[error("the request goes round in a circle of routers")]
    Loop,
    /// The options of the host say so, with these seconds for `Retry-After`.
    #[error("the host is under maintenance")]
    Maintenance(u32),
    /// A method that is not forwarded.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// The connection's certificate is for other hosts.
    #[error("this connection is for another host")]
    Misdirected,
    /// No backend that is not dead.
    #[error("no backend is alive")]
    NoBackend,
    /// The options of the host keep this client's address out.
    #[error("the address of the client is not allowed")]
    NotAllowed,
    /// No `Host` header.
    #[error("no host header")]
    NoHost,
    /// More requests are running than `maxRequests`.
    #[error("more requests are running than maxRequests")]
    Overloaded,
    /// Too many passwords are being checked.
    #[error("too many passwords are being checked")]
    PasswordsBusy,
    /// Redis gave no answer, and the host is not in memory.
    #[error(transparent)]
    Store(StoreError),
    /// The options of the host want a password, and this is none.
    #[error("no password, or a wrong one")]
    Unauthorized,
    /// More tunnels than a limit allows.
    #[error("no more tunnels: {} is reached", .0.setting())]
    TooManyTunnels(TunnelRefusal),
    /// Heads of the requests on one connection of HTTP/2 are too large together.
    #[error("the requests at a time on this connection have too large heads together")]
    TooLargeHeads,
    /// More header lines than `maxHeaders`.
    #[error("the request has more header lines than maxHeaders")]
    TooManyHeaders,
    /// No list for the host.
    #[error("no frontend for this host")]
    UnknownHost,
    /// The target is longer than `maxUri`.
    #[error("the request target is longer than maxUri")]
    UriTooLong,
    /// The backend closed the connection or sent what is not HTTP, before a response.
    #[error("the backend broke off")]
    Upstream(#[source] hyper::Error),
    /// The backend sent something that is HTTP but not an answer to this request.
    #[error("the backend sent an answer that does not fit: {0}")]
    UpstreamProtocol(&'static str),
    /// The backend was silent for too long.
    #[error("the backend did not answer in time")]
    UpstreamTimedOut,
}

impl From<RequestBodyError> for ProxyError {
    fn from(error: RequestBodyError) -> Self {
        match error {
            RequestBodyError::Broken(_) => Self::ClientBody,
            RequestBodyError::TooLarge => Self::BodyTooLarge,
        }
    }
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The backend's, or its entry in Redis.
    Backend,
    /// The client's.
    Client,
    /// Ours, or Redis'.
    Router,
}

impl ProxyError {
    /// The status that the client gets.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HttpsOnly { status, .. } => *status,
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::BadRequest(_) | Self::ClientBody | Self::NoHost | Self::UnknownHost => {
                StatusCode::BAD_REQUEST
            }
            Self::ClientTimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::TooLargeHeads | Self::TooManyHeaders => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Maintenance(_)
            | Self::Overloaded
            | Self::PasswordsBusy
            | Self::Store(_)
            | Self::TooManyTunnels(_)
            | Self::Lease(
                LeaseError::QueueTimedOut(_) | LeaseError::Connect(ConnectError::Exhausted { .. }),
            ) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::UpstreamTimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::BrokenFrontend(_)
            | Self::InvalidBackends
            | Self::Lease(
                LeaseError::Connect(_) | LeaseError::NoTunnel | LeaseError::UnreadableTrust,
            )
            | Self::NoBackend
            | Self::Upstream(_)
            | Self::UpstreamProtocol(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whether another backend may be tried: only when nothing of the request can have reached
    /// this one.
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Lease(LeaseError::Connect(error)) => {
                !matches!(error, ConnectError::Exhausted { .. })
            }
            // Another backend may have fewer.
            Self::TooManyTunnels(TunnelRefusal::PerBackend) => true,
            // Another backend may have no certificate to be verified.
            Self::Lease(LeaseError::UnreadableTrust) => true,
            _ => false,
        }
    }

    /// Whether this counts against the backend. `silence_marks`: silence after this request does.
    pub fn marks_dead(&self, silence_marks: bool) -> bool {
        match self {
            Self::Lease(LeaseError::Connect(error)) => match error {
                ConnectError::Forbidden { .. }
                | ConnectError::Refused { .. }
                | ConnectError::TimedOut(_)
                | ConnectError::Tls { .. } => true,
                // What we lack or cannot speak is no failure of the backend, and a resolver that
                // is away would mark them all.
                ConnectError::Exhausted { .. }
                | ConnectError::Handshake(_)
                | ConnectError::Resolve { .. } => false,
            },
            Self::UpstreamTimedOut => silence_marks,
            _ => false,
        }
    }

    /// Seconds after which another try may help.
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Maintenance(seconds) => Some(*seconds),
            Self::Overloaded
            | Self::PasswordsBusy
            | Self::Store(_)
            | Self::TooManyTunnels(_)
            | Self::Lease(LeaseError::QueueTimedOut(_)) => Some(1),
            _ => None,
        }
    }

    /// Whose fault it is.
    pub fn side(&self) -> Side {
        match self {
            Self::BadRequest(_)
            | Self::BodyTooLarge
            | Self::ClientBody
            | Self::ClientTimedOut
            | Self::HttpsOnly { .. }
            | Self::MethodNotAllowed
            | Self::Misdirected
            | Self::NoHost
            | Self::NotAllowed
            | Self::TooLargeHeads
            | Self::TooManyHeaders
            | Self::Unauthorized
            | Self::UnknownHost
            | Self::UriTooLong => Side::Client,
            Self::Maintenance(_)
            | Self::Overloaded
            | Self::PasswordsBusy
            | Self::Store(_)
            | Self::TooManyTunnels(_)
            | Self::Lease(
                LeaseError::QueueTimedOut(_) | LeaseError::Connect(ConnectError::Exhausted { .. }),
            ) => Side::Router,
            Self::BrokenFrontend(_)
            | Self::InvalidBackends
            | Self::Lease(
                LeaseError::Connect(_) | LeaseError::NoTunnel | LeaseError::UnreadableTrust,
            )
            | Self::Loop
            | Self::NoBackend
            | Self::Upstream(_)
            | Self::UpstreamProtocol(_)
            | Self::UpstreamTimedOut => Side::Backend,
        }
    }

    /// Whether operators have to hear of it: what the host's backends, or its entry in Redis, lack.
    pub fn is_outage(&self) -> bool {
        self.side() == Side::Backend
            || matches!(self, Self::Lease(LeaseError::QueueTimedOut(_) | LeaseError::Connect(_)))
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
            Self::Upstream(error) if error.is_parse_too_large() => {
                "the head of the backend's answer is too large".to_owned()
            }
            Self::Upstream(error) if error.is_parse() => {
                format!("the backend's answer is not valid HTTP: {}", with_sources(error))
            }
            Self::Upstream(error) if error.is_incomplete_message() => {
                "the backend closed the connection before its answer was complete".to_owned()
            }
            error => with_sources(error),
        }
    }

    /// Hipache's words for it, in `x-debug-error`. `retries` is the configured number.
    pub fn debug_text(&self, retries: u32) -> &'static str {
        match self {
            Self::NoHost => "no host header",
            Self::UnknownHost => "frontend not found",
            Self::NoBackend => "Cannot find a valid backend",
            Self::InvalidBackends => "backend is invalid",
            Self::Lease(LeaseError::Connect(_)) if retries == 0 => "Retry on error is disabled",
            Self::Lease(LeaseError::Connect(_)) => "Reached max retries limit",
            // Beyond Hipache.
            Self::BadRequest(reason) | Self::UpstreamProtocol(reason) => reason,
            Self::BodyTooLarge => "request body too large",
            Self::BrokenFrontend(_) => "frontend cannot be read",
            Self::ClientBody => "request body is broken",
            Self::ClientTimedOut => "request timed out",
            Self::HttpsOnly { .. } => "https only",
            Self::Maintenance(_) => "under maintenance",
            Self::NotAllowed => "address not allowed",
            Self::PasswordsBusy => "too many passwords to check",
            Self::Unauthorized => "password needed",
            Self::Lease(LeaseError::NoTunnel) => "backend speaks HTTP/2 only, without this upgrade",
            Self::Lease(LeaseError::QueueTimedOut(_)) => "too many connections to the backend",
            Self::Lease(LeaseError::UnreadableTrust) => {
                "backend-ca, backend-name or backend-verify of options cannot be read"
            }
            Self::Loop => "request goes round in a circle",
            Self::MethodNotAllowed => "method not allowed",
            Self::Misdirected => "connection is for another host",
            Self::Overloaded => "too many requests",
            Self::Store(_) => "Redis is not available",
            Self::Upstream(error) if error.is_parse() => "backend sent no valid HTTP",
            Self::Upstream(_) => "backend closed the connection",
            Self::TooLargeHeads => "heads of the requests at a time too large",
            Self::TooManyHeaders => "too many headers",
            Self::TooManyTunnels(_) => "too many tunnels",
            Self::UpstreamTimedOut => "backend timed out",
            Self::UriTooLong => "request target too long",
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

    use super::{ConnectError, LeaseError, ProxyError, Side, TunnelRefusal};

    #[test]
    fn the_consequences_of_every_error() {
        let problem = KeyProblem { key: "frontend:a".into(), detail: "x".into() };
        let timed_out = || ConnectError::TimedOut(Duration::from_secs(1));
        let exhausted = ConnectError::Exhausted {
            address: "127.0.0.1:1".parse().unwrap(),
            source: std::io::Error::from_raw_os_error(24),
        };
        for (error, status, retry, dead, side) in [
            (ProxyError::Lease(LeaseError::Connect(exhausted)), 503, false, false, Side::Router),
            (ProxyError::BadRequest("x"), 400, false, false, Side::Client),
            (ProxyError::NoHost, 400, false, false, Side::Client),
            (ProxyError::TooManyTunnels(TunnelRefusal::PerBackend), 503, true, false, Side::Router),
            (ProxyError::TooManyTunnels(TunnelRefusal::Tunnels), 503, false, false, Side::Router),
            (ProxyError::UnknownHost, 400, false, false, Side::Client),
            (ProxyError::ClientBody, 400, false, false, Side::Client),
            (ProxyError::Unauthorized, 401, false, false, Side::Client),
            (ProxyError::NotAllowed, 403, false, false, Side::Client),
            (ProxyError::BodyTooLarge, 413, false, false, Side::Client),
            (ProxyError::Maintenance(60), 503, false, false, Side::Router),
            (ProxyError::PasswordsBusy, 503, false, false, Side::Router),
            (ProxyError::MethodNotAllowed, 405, false, false, Side::Client),
            (ProxyError::Misdirected, 421, false, false, Side::Client),
            (ProxyError::UriTooLong, 414, false, false, Side::Client),
            (ProxyError::TooLargeHeads, 431, false, false, Side::Client),
            (ProxyError::TooManyHeaders, 431, false, false, Side::Client),
            (ProxyError::Overloaded, 503, false, false, Side::Router),
            (ProxyError::ClientTimedOut, 408, false, false, Side::Client),
            (ProxyError::BrokenFrontend(problem), 502, false, false, Side::Backend),
            (ProxyError::InvalidBackends, 502, false, false, Side::Backend),
            (ProxyError::Loop, 508, false, false, Side::Backend),
            (ProxyError::NoBackend, 502, false, false, Side::Backend),
            (ProxyError::UpstreamProtocol("x"), 502, false, false, Side::Backend),
            (ProxyError::Lease(LeaseError::Connect(timed_out())), 502, true, true, Side::Backend),
            (
                ProxyError::Lease(LeaseError::Connect(ConnectError::Tls {
                    name: "a".into(),
                    source: std::io::ErrorKind::InvalidData.into(),
                })),
                502,
                true,
                true,
                Side::Backend,
            ),
            (ProxyError::Lease(LeaseError::NoTunnel), 502, false, false, Side::Backend),
            (ProxyError::Lease(LeaseError::UnreadableTrust), 502, true, false, Side::Backend),
            (ProxyError::Lease(LeaseError::QueueTimedOut(1)), 503, false, false, Side::Router),
            (ProxyError::Store(StoreError::Unavailable), 503, false, false, Side::Router),
            (ProxyError::UpstreamTimedOut, 504, false, true, Side::Backend),
        ] {
            assert_eq!(error.status().as_u16(), status, "{error}");
            assert_eq!(error.may_retry(), retry, "{error}");
            assert_eq!(error.marks_dead(true), dead, "{error}");
            let is_silence = matches!(error, ProxyError::UpstreamTimedOut);
            assert_eq!(error.marks_dead(false), dead && !is_silence, "{error}");
            assert_eq!(error.side(), side, "{error}");
        }
    }

    /// hipache-contract 2, the values of `x-debug-error`.
    #[test]
    fn debug_texts_are_hipaches() {
        let refused =
            ProxyError::Lease(LeaseError::Connect(ConnectError::TimedOut(Duration::ZERO)));
        for (error, retries, text) in [
            (&ProxyError::UnknownHost, 3, "frontend not found"),
            (&ProxyError::NoBackend, 3, "Cannot find a valid backend"),
            (&ProxyError::InvalidBackends, 3, "backend is invalid"),
            (&ProxyError::NoHost, 3, "no host header"),
            (&refused, 3, "Reached max retries limit"),
            (&refused, 0, "Retry on error is disabled"),
        ] {
            assert_eq!(error.debug_text(retries), text);
        }
    }
}
