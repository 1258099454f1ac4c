//! Why a request of HTTP/2 is refused before it is one of HTTP/1.1.

/// Why a request is refused at the edge. The rest of its connection is not affected.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EdgeError {
    /// What is wrong with it, in a few words that are a valid field value. Status 400.
    #[error("{0}")]
    BadRequest(&'static str),
    /// `CONNECT` for anything but a WebSocket. Status 405.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// Neither `:authority` nor `Host`. Status 400.
    #[error("no host header")]
    NoHost,
    /// The heads of all requests on the connection are too large together. Status 431.
    #[error("headers of all requests are too large")]
    TooLargeHeads,
    /// More field lines than the limit. Status 431.
    #[error("too many headers")]
    TooManyHeaders,
}

impl EdgeError {
    /// The status of the response.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest(_) | Self::NoHost => 400,
            Self::MethodNotAllowed => 405,
            Self::TooLargeHeads | Self::TooManyHeaders => 431,
        }
    }
}
