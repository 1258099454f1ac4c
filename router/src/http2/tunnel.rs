//! A stream that has become a tunnel (RFC 8441): the bytes of another protocol, both ways.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

/// The bytes of a tunnel.
#[derive(Debug)]
pub(super) enum Tunnel {
    /// The library has not sent the head of the response yet.
    Opening(OnUpgrade),
    /// It is open.
    Open(TokioIo<Upgraded>),
    /// The stream ended before.
    Failed,
}

impl Tunnel {
    /// Waits until bytes can be moved.
    ///
    /// # Errors
    ///
    /// The stream ended before it was a tunnel.
    pub(super) fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Pin<&mut TokioIo<Upgraded>>>> {
        if let Self::Opening(upgrade) = self {
            match ready!(Pin::new(upgrade).poll(cx)) {
                Ok(upgraded) => *self = Self::Open(TokioIo::new(upgraded)),
                Err(error) => {
                    *self = Self::Failed;
                    let error = io::Error::new(io::ErrorKind::ConnectionReset, error);
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(match self {
            Self::Open(stream) => Ok(Pin::new(stream)),
            Self::Opening(_) | Self::Failed => Err(io::ErrorKind::ConnectionReset.into()),
        })
    }
}
