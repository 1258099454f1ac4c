//! A response on its way from the backend to the client, while the rest of the request may still be on its way
//! to the backend. Both directions move at once, each as fast as its receiver takes it.

use std::task::{Context, Poll};
use std::time::Duration;

use tracing::debug;

use super::context::RequestContext;
use super::download::{Broken, Download};
use super::upload::Sides;
use super::watch::is_gone;
use crate::client_io::ClientIo;
use crate::http1::server::{self, Awaited, Next, ResponsePlan};
use crate::pool::PooledConnection;

/// One response under way, and what is left of its request.
pub(super) struct Flow<'a, 'w> {
    pub(super) io: &'a mut ClientIo,
    pub(super) state: &'a mut server::Connection,
    pub(super) cx: &'a mut RequestContext<'w>,
    /// Until it has sent all of its response.
    pub(super) backend: Option<PooledConnection>,
    pub(super) plan: ResponsePlan,
    /// Silence that is allowed on either side.
    pub(super) limit: Option<Duration>,
}

/// Why a response was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Interrupted {
    /// The backend broke off.
    #[error("{0}")]
    Backend(#[from] Broken),
    /// The backend was silent for too long.
    #[error("the backend stopped sending its response")]
    BackendSilent,
    /// The client closed its connection.
    #[error("the client went away")]
    ClientGone,
    /// The client took nothing for too long.
    #[error("the client stopped taking its response")]
    ClientStalled,
    /// The client's body cannot be read any further.
    #[error("the body of the request broke off")]
    Request,
}

impl Flow<'_, '_> {
    /// Decodes what came with the head; most responses are complete then.
    pub(super) fn take_what_came(&mut self) -> Result<(), Interrupted> {
        let Some(backend) = &mut self.backend else { return Ok(()) };
        self.cx
            .work
            .download
            .decode(backend.connection(), &self.plan)
            .map_err(|error| Interrupted::Backend(error.into()))?;
        self.cx.content_sent = self.cx.work.download.content();
        self.give_back();
        Ok(())
    }

    /// The backend has done its part: the next request may have its connection, while the client still takes
    /// what was read.
    fn give_back(&mut self) {
        if !self.cx.work.download.is_over() {
            return;
        }
        if let Some(backend) = self.backend.take() {
            let has_more = !self.cx.work.download.rest().is_empty();
            backend.give_back(has_more, self.cx.client.shared.clock.coarse());
            // Only now: whoever waits for the permit finds the connection.
            self.cx.client.connection.permit.release();
        }
    }

    /// Moves bytes both ways until neither can move without a wait. Ready when the client has all of it.
    pub(super) fn poll(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Interrupted>> {
        loop {
            let has_read = match self.poll_to_client(task)? {
                Poll::Ready(()) if self.cx.work.download.is_over() => return Poll::Ready(Ok(())),
                Poll::Ready(()) => self.poll_from_backend(task)?,
                Poll::Pending => Poll::Pending,
            };
            self.poll_to_backend(task)?;
            if has_read.is_pending() {
                return self.check_deadline();
            }
        }
    }

    /// Writes all that was decoded.
    fn poll_to_client(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Interrupted>> {
        let connection = &self.cx.client.connection;
        while !self.cx.work.download.is_flushed() {
            match self.cx.work.download.poll_write(task, self.io) {
                Poll::Ready(Ok(count)) => {
                    self.cx.bytes_sent += count as u64;
                    connection.allow_for(self.limit);
                }
                Poll::Ready(Err(_gone)) => return Poll::Ready(Err(Interrupted::ClientGone)),
                Poll::Pending => {
                    connection.set_awaited(Awaited::Response);
                    return Poll::Pending;
                }
            }
        }
        match Download::poll_flush(task, self.io) {
            Poll::Ready(flushed) => Poll::Ready(flushed.map_err(|_gone| Interrupted::ClientGone)),
            Poll::Pending => {
                connection.set_awaited(Awaited::Response);
                Poll::Pending
            }
        }
    }

    /// Reads and decodes some more.
    fn poll_from_backend(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Interrupted>> {
        let Some(backend) = &mut self.backend else { return Poll::Pending };
        let (connection, buffers) = (&self.cx.client.connection, &self.cx.client.shared.buffers);
        let (backend, download) = (backend.connection(), &mut self.cx.work.download);
        let spliced = match self.io.stream().plain() {
            Some(_socket) => download.poll_splice(task, backend, &self.plan, buffers),
            None => None,
        };
        let polled = match spliced {
            Some(polled) => polled,
            None => download.poll_body(task, backend, &self.plan, buffers),
        };
        match polled {
            Poll::Ready(Ok(())) => {
                connection.allow_for(self.limit);
                self.cx.content_sent = self.cx.work.download.content();
                self.give_back();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(broken)) => Poll::Ready(Err(Interrupted::Backend(broken))),
            Poll::Pending => {
                connection.set_awaited(Awaited::Backend);
                Poll::Pending
            }
        }
    }

    /// Sends the rest of the request, or watches a client that has sent all of it.
    fn poll_to_backend(&mut self, task: &mut Context<'_>) -> Result<(), Interrupted> {
        let (client, work) = (self.cx.client, &mut *self.cx.work);
        if work.upload.is_whole() && is_gone(task, self.io, client, &mut work.input) {
            return Err(Interrupted::ClientGone);
        }
        if self.cx.work.upload.is_over() || self.cx.work.download.is_over() {
            return Ok(());
        }
        let Some(backend) = &mut self.backend else { return Ok(()) };
        let (client, work) = (self.cx.client, &mut *self.cx.work);
        let mut sides = Sides {
            client: self.io,
            state: self.state,
            connection: &client.connection,
            input: &mut work.input,
            backend: backend.connection(),
            buffers: &client.shared.buffers,
        };
        match work.upload.poll(task, &mut sides) {
            Poll::Ready(Err(_error)) => Err(Interrupted::Request),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn check_deadline(&self) -> Poll<Result<(), Interrupted>> {
        let connection = &self.cx.client.connection;
        if !connection.has_expired() {
            return Poll::Pending;
        }
        Poll::Ready(Err(match connection.awaited() {
            Awaited::Response => Interrupted::ClientStalled,
            Awaited::Request => Interrupted::Request,
            Awaited::Backend => Interrupted::BackendSilent,
        }))
    }

    /// What comes after the response, or the part of it that the client got.
    pub(super) fn finish(mut self, ended: Result<(), Interrupted>) -> Option<Next> {
        drop(self.backend.take());
        let buffers = &self.cx.client.shared.buffers;
        let work = &mut *self.cx.work;
        self.cx.consumed = work.upload.finish(&mut work.input, buffers);
        work.download.finish(buffers);
        let interrupted = match ended {
            Ok(()) => {
                self.cx.client.connection.note_answered();
                return Some(self.state.end_response());
            }
            Err(interrupted) => interrupted,
        };
        debug!(client.addr = %self.cx.client.connection.peer, %interrupted, "response is cut");
        match interrupted {
            Interrupted::ClientGone => None,
            Interrupted::ClientStalled => {
                self.io.reset();
                None
            }
            Interrupted::Backend(_) | Interrupted::BackendSilent | Interrupted::Request => {
                let next = self.state.cut_response();
                if next == Next::Reset {
                    self.io.reset();
                }
                Some(next)
            }
        }
    }
}
