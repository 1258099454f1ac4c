//! Watching a client that has nothing to do but wait: most of those who go away do so then.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

use super::Client;
use super::error::ProxyError;
use crate::client_io::ClientIo;

/// Whether the client is gone. What it sends meanwhile, of its body or its next request, is read as far as the
/// buffer takes it.
pub(super) fn is_gone(
    task: &mut Context<'_>,
    io: &mut ClientIo,
    client: &Client,
    input: &mut Vec<u8>,
) -> bool {
    if client.connection.take_peer_check() && io.has_closed(task) {
        return true;
    }
    while input.len() < input.capacity() && io.poll_readable(task).is_ready() {
        let room = input.capacity() - input.len();
        match io.poll_fill(task, input, room) {
            Poll::Ready(Ok(count)) if count > 0 => {}
            Poll::Ready(_) => return true,
            Poll::Pending => return false,
        }
    }
    false
}

/// Waits for `future` as long as the client does.
///
/// # Errors
///
/// [`ProxyError::ClientGone`].
pub(super) async fn while_client_waits<T>(
    io: &mut ClientIo,
    client: &Client,
    input: &mut Vec<u8>,
    future: impl Future<Output = T>,
) -> Result<T, ProxyError> {
    let mut future = pin!(future);
    poll_fn(|task| {
        if let Poll::Ready(output) = future.as_mut().poll(task) {
            return Poll::Ready(Ok(output));
        }
        match is_gone(task, io, client, input) {
            true => Poll::Ready(Err(ProxyError::ClientGone)),
            false => Poll::Pending,
        }
    })
    .await
}
