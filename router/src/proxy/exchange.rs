//! A request on a connection to a backend, until the head of the response is there.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use super::context::RequestContext;
use super::error::ProxyError;
use super::retry::Failure;
use super::upload::Sides;
use super::watch::is_gone;
use crate::client_io::ClientIo;
use crate::http1::client::{HeadStep, Received};
use crate::http1::encode::CONTINUE;
use crate::http1::error::{RequestError, ResponseError};
use crate::http1::server::{self, Awaited};
use crate::message::response_head::write_informational;
use crate::pool::PooledConnection;

/// A backend that does not know `Expect` waits for the body without saying so. This is how long
/// the body is held back for it at most (RFC 9110 10.1.1: a client should not wait for ever either).
const EXPECT_PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of one informational response: such responses are hints.
const MAX_INFORMATIONAL_HEAD: usize = 32 * 1024;

/// How long the body is held back for a backend that may be silent for `limit`: it has to be left time
/// for its answer, or it would be blamed for our waiting.
pub(super) fn expect_patience(limit: Option<Duration>) -> Duration {
    limit.map_or(EXPECT_PATIENCE, |limit| EXPECT_PATIENCE.min(limit / 2))
}

/// What came.
#[derive(Clone, Copy, Debug)]
pub(super) enum Head {
    /// The response.
    Response(Received),
    /// `101` that was asked for, and the length of its head.
    Switch(usize),
}

/// Why no response came.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) failure: Failure,
    pub(super) error: ProxyError,
}

impl Failed {
    fn by_client(error: impl Into<ProxyError>) -> Self {
        Self { failure: Failure::Final, error: error.into() }
    }
}

/// One request on one connection.
pub(super) struct Exchange<'a, 'w> {
    pub(super) io: &'a mut ClientIo,
    pub(super) state: &'a mut server::Connection,
    pub(super) cx: &'a mut RequestContext<'w>,
    pub(super) backend: &'a mut PooledConnection,
    /// Silence that is allowed.
    pub(super) limit: Option<Duration>,
}

impl Exchange<'_, '_> {
    /// Sends the request and waits for the head of its response.
    pub(super) async fn await_head(mut self) -> Result<Head, Failed> {
        poll_fn(|task| self.poll(task)).await
    }

    fn poll(&mut self, task: &mut Context<'_>) -> Poll<Result<Head, Failed>> {
        loop {
            self.poll_to_backend(task)?;
            match self.poll_from_backend(task)? {
                Poll::Ready(HeadStep::Response(received)) => {
                    return Poll::Ready(Ok(Head::Response(received)));
                }
                Poll::Ready(HeadStep::Switch(length)) => {
                    return Poll::Ready(Ok(Head::Switch(length)));
                }
                Poll::Ready(HeadStep::Informational(length)) => {
                    self.pass_on_informational(length)?;
                    continue;
                }
                Poll::Ready(HeadStep::Incomplete) | Poll::Pending => {}
            }
            self.flush_informational(task)?;
            let (client, work) = (self.cx.client, &mut *self.cx.work);
            if work.upload.is_whole() && is_gone(task, self.io, client, &mut work.input) {
                return Poll::Ready(Err(Failed::by_client(ProxyError::ClientGone)));
            }
            if !client.connection.has_expired() {
                return Poll::Pending;
            }
            if !work.upload.is_held() {
                return Poll::Ready(Err(self.blame()));
            }
            // The backend waits for the body without saying so.
            self.let_body_go();
            client.connection.allow_for(self.limit);
        }
    }

    fn poll_to_backend(&mut self, task: &mut Context<'_>) -> Result<(), Failed> {
        let (client, work) = (self.cx.client, &mut *self.cx.work);
        if work.upload.is_over() {
            return Ok(());
        }
        let mut sides = Sides {
            client: self.io,
            state: self.state,
            connection: &client.connection,
            input: &mut work.input,
            backend: self.backend.connection(),
            buffers: &client.shared.buffers,
        };
        match work.upload.poll(task, &mut sides) {
            Poll::Ready(Err(error)) => Err(Failed::by_client(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn poll_from_backend(&mut self, task: &mut Context<'_>) -> Poll<Result<HeadStep, Failed>> {
        let (client, work) = (self.cx.client, &mut *self.cx.work);
        let had_begun = work.download.has_begun();
        let (backend, buffers) = (self.backend.connection(), &client.shared.buffers);
        let polled = work.download.poll_head(task, backend, &mut work.response, buffers);
        if !had_begun && work.download.has_begun() {
            // One deadline for all that comes before the body, which neither a head in
            // pieces nor informational responses extend.
            client.connection.allow_for(self.limit);
        }
        let broken = match polled {
            Poll::Ready(Err(broken)) => broken,
            Poll::Ready(Ok(step)) => return Poll::Ready(Ok(step)),
            Poll::Pending => return Poll::Pending,
        };
        // What came before is the client's.
        self.flush_informational(task)?;
        let is_refused =
            broken.source.as_ref().is_some_and(crate::http2::backend_stream::is_refused);
        let failure = if is_refused { Failure::Refused } else { Failure::Broken };
        let error = ProxyError::Response { error: broken.error, source: broken.source };
        Poll::Ready(Err(Failed { failure, error }))
    }

    /// Whose silence has lasted too long.
    fn blame(&mut self) -> Failed {
        let awaited = self.cx.client.connection.awaited();
        match self.state.miss_deadline(awaited) {
            server::Missed::Refuse(error) => Failed::by_client(error),
            _ if awaited == Awaited::Request => Failed::by_client(RequestError::BodyTimedOut),
            _ => Failed { failure: Failure::Final, error: ProxyError::BackendTimedOut },
        }
    }

    /// Passes `103 Early Hints` and its like on to the client, and lets the body through at
    /// `100 Continue` (RFC 9110 15.2: a proxy must forward 1xx responses).
    fn pass_on_informational(&mut self, length: usize) -> Result<(), Failed> {
        if length > MAX_INFORMATIONAL_HEAD {
            let error = ResponseError::TooManyInformational.into();
            return Err(Failed { failure: Failure::Final, error });
        }
        if self.cx.work.response.status == 100 {
            self.let_body_go();
        } else {
            let work = &mut *self.cx.work;
            if self.state.takes_informational() && work.download.takes_informational() {
                let (buf, out) = work.download.rest_and_out();
                write_informational(out, &work.response, buf);
            }
        }
        self.cx.work.download.skip_head(length);
        Ok(())
    }

    fn let_body_go(&mut self) {
        let work = &mut *self.cx.work;
        if work.upload.is_held() {
            work.upload.release();
            if self.state.take_continue() {
                work.download.out().extend_from_slice(CONTINUE);
            }
        }
    }

    fn flush_informational(&mut self, task: &mut Context<'_>) -> Result<(), Failed> {
        while !self.cx.work.download.is_flushed() {
            match self.cx.work.download.poll_write(task, self.io) {
                Poll::Ready(Ok(count)) => self.cx.bytes_sent += count as u64,
                Poll::Ready(Err(_gone)) => return Err(Failed::by_client(ProxyError::ClientGone)),
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::expect_patience;

    #[test]
    fn a_body_is_held_back_for_half_the_time_that_the_backend_has() {
        for (limit, expected) in
            [(None, 1000), (Some(30_000), 1000), (Some(2000), 1000), (Some(800), 400), (Some(0), 0)]
        {
            let seen = expect_patience(limit.map(Duration::from_millis));
            assert_eq!(seen, Duration::from_millis(expected), "{limit:?}");
        }
    }
}
