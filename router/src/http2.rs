//! HTTP/2 (RFC 9113) at the two edges of the router. hyper speaks it; the rest of the router speaks
//! HTTP/1.1 only.
//!
//! A stream of HTTP/2 is presented as a connection that carries one message each way in HTTP/1.1:
//! bytes in, bytes out, with back-pressure, and an error where the stream is reset.
//!
//! | edge | connection | one stream |
//! |---|---|---|
//! | backends | [`handshake`](mod@handshake), shared by [`sharing`] | |

pub mod frames;
pub mod handshake;
mod settings;
pub mod sharing;

pub use frames::{BodyCut, FrameBody};
pub use handshake::{Sender, handshake, handshake_for_websocket, is_large};
