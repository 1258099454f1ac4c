//! HTTP/2 (RFC 9113) at the two edges of the router. hyper speaks it; the rest of the router speaks
//! HTTP/1.1 only.
//!
//! A stream of HTTP/2 is presented as a connection that carries one message each way in HTTP/1.1:
//! bytes in, bytes out, with back-pressure, and an error where the stream is reset.
//!
//! | edge | connection | one stream |
//! |---|---|---|
//! | clients | [`serve`](mod@serve), on a [`Rewound`] stream | [`client_stream`] |
//! | backends | [`handshake`](mod@handshake), shared by [`sharing`] | [`backend_stream`] |

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

pub mod backend_stream;
mod body_writer;
pub mod client_stream;
mod error;
mod fields;
mod frames;
mod from_backend;
mod from_client;
pub mod handshake;
mod message_reader;
mod rewound;
pub mod serve;
mod settings;
pub mod sharing;
mod to_backend;
mod to_client;
mod tunnel;
pub mod websocket;

pub use backend_stream::BackendStream;
pub use client_stream::{ClientStream, Opened};
pub use error::EdgeError;
pub use frames::{BodyCut, FrameBody};
pub use handshake::{Sender, handshake, handshake_for_websocket, is_large};
pub use rewound::Rewound;
pub use serve::{EdgeLimits, serve};

/// Writes one buffer after the other, until one is not taken as a whole.
fn write_each(
    mut stream: Pin<&mut impl AsyncWrite>,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let mut written = 0;
    for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
        match stream.as_mut().poll_write(cx, buf) {
            Poll::Ready(Ok(count)) => {
                written += count;
                if count < buf.len() {
                    break;
                }
            }
            // The next call says it again.
            _ if written > 0 => break,
            polled => return polled,
        }
    }
    Poll::Ready(Ok(written))
}
