//! The HTTP/1 message layer, RFC 9112: bytes in, bytes out.
//!
//! Pure and sans-IO: no sockets, clock, randomness or runtime. A state machine is given the bytes that
//! were read and the fact that a peer closed or a deadline passed; it says what they mean and what to
//! do next. The I/O shell owns sockets, buffers and time. `httparse` splits a head into lines;
//! everything else that RFC 9112 asks of a proxy is here, by section:
//!
//! | RFC 9112 | subject | module |
//! |---|---|---|
//! | 2.1, 2.2 | lines end in CRLF, empty lines before a request | [`head`] |
//! | 2.3 | versions | [`head`], [`error`] |
//! | 3 | request line | [`head`] |
//! | 3.2 | request target in four forms, one `Host` | [`target`], [`head`] |
//! | 4 | status line | [`head`] |
//! | 5 | field lines; no blank before the colon, no folding | [`fields`], [`known`] |
//! | 6 | which body follows a head, and how long it is | [`framing`] |
//! | 7.1 | chunked coding, extensions, trailers | [`body`], [`chunked`], [`trailers`] |
//! | 8 | incomplete messages | [`server`], [`client`] |
//! | 9.2, 9.3 | responses belong to requests in order; persistence | [`connection`], [`server`], [`client`] |
//! | 9.3.2 | pipelining | [`server`] |
//! | 9.6 | closing, also while the peer still sends | [`server`] |
//! | 9.7, RFC 9110 7.8 | upgrades | [`server`], [`client`] |
//! | 11.1, 11.2 | response splitting and request smuggling: what has two readings is an error | [`error`] |
//!
//! and of RFC 9110: 7.6.1 `Connection` and hop-by-hop fields ([`connection`]), 10.1.1 `Expect`
//! ([`server`]), 15.2 informational responses ([`server`], [`client`]).
//!
//! **The strict rule.** Whatever two readers could read differently is an error with a name and a status
//! ([`error::RequestError`], [`error::ResponseError`]): nothing of it reaches the next hop. Limits
//! ([`head::HeadLimits`], [`server::Connection::limit_body`]) are errors of the same kinds.
//!
//! **Memory.** A head is a list of ranges ([`fields::Span`]) into the buffer that it was read into; parsing
//! copies no byte and, once the list has grown to the usual number of fields, allocates nothing. The
//! ranges are valid as long as the bytes stay where they are: the shell keeps a head's buffer until the
//! exchange is over (the access log and retries read it) and reads the body behind it, or into another one.
//! A connection that waits for a request needs no head and no buffer, only its state machine.

pub mod body;
pub mod chunked;
pub mod client;
pub mod connection;
pub mod encode;
pub mod error;
pub mod fields;
pub mod framing;
pub mod head;
pub mod known;
pub mod server;
pub mod target;
pub mod trailers;
