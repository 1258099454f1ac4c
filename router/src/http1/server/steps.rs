//! What a client's connection asks of the shell that drives it.

use crate::http1::body::Output;
use crate::http1::connection::Options;
use crate::http1::encode::Announce;
use crate::http1::error::RequestError;
use crate::http1::framing::BodyKind;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Phase {
    /// It waits for the first byte of a request.
    #[default]
    Idle,
    /// A part of a head has come.
    Head,
    /// A request is being answered.
    Exchange,
    /// The response is over and the rest of the request is being thrown away, so many bytes at most.
    Draining(u64),
    /// The connection ends, but for what the client still sends: so many bytes at most.
    Lingering(u64),
    /// It carries another protocol.
    Tunnel,
    /// It has ended.
    Closed,
}

/// A request that was accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Accepted {
    /// Bytes of the buffer that are its head. The body begins behind them.
    pub consumed: usize,
    /// What follows the head.
    pub body: BodyKind,
    /// What it says about its connection.
    pub options: Options,
    /// The client waits for `100 Continue`.
    pub expects_continue: bool,
}

/// What came of reading a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeadStep {
    /// There is more to come. So many bytes are empty lines that may be thrown away; what is behind them,
    /// if anything, is to be shown again.
    Incomplete(usize),
    /// All of it is there.
    Complete(Accepted),
}

/// How a response is to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResponsePlan {
    /// What its head says about the body.
    pub announce: Announce,
    /// The body that is sent: [`BodyKind::None`] where there is none or it is not to be sent.
    pub body: BodyKind,
    /// The value of its `Connection`, if it needs one.
    pub connection: Option<&'static str>,
    /// In which form the body is to be taken from its [`Decoder`](super::Decoder).
    pub output: Output,
    /// What is taken is content that becomes chunks here ([`encode::chunk_size`](crate::http1::encode::chunk_size),
    /// and [`LAST_CHUNK`](crate::http1::encode::LAST_CHUNK) at the end).
    pub makes_chunks: bool,
}

/// What comes after a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// Another request, of which a part may be in the buffer already.
    Request,
    /// Input goes to [`Connection::discard`](super::Connection::discard).
    Discard,
    /// The connection is to be closed.
    Close,
    /// The connection is to be reset, since a plain end would look like the end of the response.
    Reset,
}

/// What the end of the client's input means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndOfInput {
    /// The connection is over, in good order.
    Close,
    /// The request is incomplete (RFC 9112 8). The client may have closed its sending side only.
    Cut(RequestError),
    /// The client waits for its response, or more likely is gone.
    Gone,
}

/// What a missed deadline means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missed {
    /// The connection may be closed without a word.
    Close,
    /// The client is to blame for this.
    Refuse(RequestError),
    /// The client has done its part; the backend has not. If the response has begun, it is to be
    /// [cut](super::Connection::cut_response).
    Backend,
    /// The client takes nothing of its response. A reset keeps the kernel from offering it for minutes.
    Reset,
}

/// Who is being waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Awaited {
    /// The backend.
    Backend,
    /// The client, to send.
    Request,
    /// The client, to take.
    Response,
}
