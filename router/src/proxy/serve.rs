//! A client's connection, from request to request.
//!
//! While it is idle it owns no buffer, only its state; what a request takes is lent by the worker once the
//! client has said something.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::context::RequestContext;
use super::respond::Finished;
use super::tunnel::Tunnel;
use super::work::Work;
use super::{Client, Protocol, answer};
use crate::client_io::ClientIo;
use crate::connection::Phase;
use crate::http1::error::RequestError;
use crate::http1::head::HeadLimits;
use crate::http1::server::{self, Accepted, EndOfInput, HeadStep, Missed, Next};

/// What a client of HTTP/2 sends first; no request of HTTP/1 begins so (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long what a client still sends is thrown away after the last response.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are thrown away at a time.
const DISCARDED: usize = 8 * 1024;

/// How a connection ended as one of HTTP/1.
#[derive(Debug)]
pub enum Ended {
    /// For good.
    Closed,
    /// It has begun with the preface of HTTP/2: this is what was read.
    Http2(Vec<u8>),
    /// It goes on as a tunnel.
    Tunnel(Box<Tunnel>),
}

/// How a run of requests ended.
#[derive(Debug)]
enum Run {
    /// Nothing is there to be read: the connection is idle.
    Idle,
    /// The client says no more, or is not listened to any more.
    Closed,
    Http2(Vec<u8>),
    Tunnel(Box<Tunnel>),
}

/// Serves the requests of a connection, one after the other.
pub async fn serve(io: &mut ClientIo, client: &Client) -> Ended {
    loop {
        let work = poll_fn(|task| poll_first_bytes(task, io, client)).await;
        let Some(work) = work else { break };
        match Box::pin(run(io, client, work)).await {
            Run::Idle => {}
            Run::Closed => break,
            Run::Http2(early) => return Ended::Http2(early),
            Run::Tunnel(tunnel) => return Ended::Tunnel(tunnel),
        }
    }
    // What does not go out at once is lost, as it would be on any broken connection.
    poll_fn(|task| {
        io.say_goodbye(task);
        Poll::Ready(())
    })
    .await;
    Ended::Closed
}

/// Waits for the first bytes of a request. `None`: there will be none.
fn poll_first_bytes(
    task: &mut Context<'_>,
    io: &mut ClientIo,
    client: &Client,
) -> Poll<Option<Box<Work>>> {
    let connection = &client.connection;
    connection.register(task.waker());
    if connection.has_expired() || connection.is_closing() {
        return Poll::Ready(None);
    }
    ready!(io.poll_readable(task));
    let free = &client.shared.work;
    let mut work = free.take();
    let room = work.input.capacity();
    match io.poll_fill(task, &mut work.input, room) {
        Poll::Ready(Ok(count)) if count > 0 => Poll::Ready(Some(work)),
        ended => {
            free.give_back(work);
            ended.map(|_end| None)
        }
    }
}

/// Answers requests as long as there are any in the buffer.
async fn run(io: &mut ClientIo, client: &Client, mut work: Box<Work>) -> Run {
    let mut state = server::Connection::default();
    let ended = loop {
        if let Some(ended) = run_one(io, client, &mut state, &mut work).await {
            break ended;
        }
    };
    client.shared.work.give_back(work);
    ended
}

/// Answers one request. `None`: there may be another one in the buffer.
async fn run_one(
    io: &mut ClientIo,
    client: &Client,
    state: &mut server::Connection,
    work: &mut Work,
) -> Option<Run> {
    let head = match poll_fn(|task| poll_head(task, io, client, state, work)).await {
        HeadRead::Accepted(accepted) => Ok(accepted),
        HeadRead::Refused(error) => Err(error),
        HeadRead::Nothing => return Some(Run::Idle),
        HeadRead::Closed => return Some(Run::Closed),
        HeadRead::Http2 => return Some(Run::Http2(std::mem::take(&mut work.input))),
    };
    let waited = match head {
        Err(RequestError::HeadTimedOut) => client.connection.head_timeout(),
        _ => 0,
    };
    let mut cx = RequestContext::new(client, work, head.ok(), waited);
    let finished = answer(io, state, &mut cx, head).await;
    let consumed = cx.consumed;
    drop(cx);
    let mut next = match finished {
        Finished::Next(next) => next,
        Finished::Gone => return Some(Run::Closed),
        Finished::Tunnel(tunnel) => return Some(Run::Tunnel(tunnel)),
    };
    work.input.drain(..consumed);
    if next == Next::Discard {
        client.connection.begin_lingering(LINGER);
        next = poll_fn(|task| poll_discard(task, io, client, state, work)).await;
    }
    if next != Next::Request || client.connection.is_closing() {
        return Some(Run::Closed);
    }
    client.connection.await_next_request();
    work.input.is_empty().then_some(Run::Idle)
}

/// What came of reading a head.
enum HeadRead {
    Accepted(Accepted),
    Refused(RequestError),
    /// Nothing but empty lines.
    Nothing,
    /// The connection is over, in good order.
    Closed,
    /// It is the preface of HTTP/2.
    Http2,
}

fn poll_head(
    task: &mut Context<'_>,
    io: &mut ClientIo,
    client: &Client,
    state: &mut server::Connection,
    work: &mut Work,
) -> Poll<HeadRead> {
    let (connection, limits) = (&client.connection, &client.settings.limits);
    let limits = HeadLimits {
        max_bytes: limits.max_head,
        max_fields: limits.max_headers,
        max_target: limits.max_uri,
    };
    loop {
        let is_preface = begins_http2(client, &work.input);
        if is_preface == Some(true) {
            return Poll::Ready(HeadRead::Http2);
        }
        if is_preface == Some(false) {
            match state.read_head(&work.input, &mut work.head, &limits) {
                Ok(HeadStep::Complete(accepted)) => {
                    return Poll::Ready(HeadRead::Accepted(accepted));
                }
                Ok(HeadStep::Incomplete(empty_lines)) => {
                    work.input.drain(..empty_lines);
                }
                Err(error) => return Poll::Ready(HeadRead::Refused(error)),
            }
        }
        if work.input.is_empty() {
            return Poll::Ready(HeadRead::Nothing);
        }
        if connection.phase() == Phase::Idle {
            connection.begin_head();
        }
        if connection.has_expired() {
            if is_preface.is_none() {
                return Poll::Ready(HeadRead::Refused(RequestError::HeadTimedOut));
            }
            return Poll::Ready(match state.miss_deadline(server::Awaited::Request) {
                Missed::Refuse(error) => HeadRead::Refused(error),
                Missed::Close | Missed::Backend | Missed::Reset => HeadRead::Closed,
            });
        }
        if work.input.len() == work.input.capacity() {
            work.input.reserve(work.input.len());
        }
        let room = work.input.capacity() - work.input.len();
        match ready!(io.poll_fill(task, &mut work.input, room)) {
            Ok(count) if count > 0 => {}
            _end => {
                return Poll::Ready(match state.end_of_input() {
                    EndOfInput::Cut(error) => HeadRead::Refused(error),
                    EndOfInput::Close | EndOfInput::Gone => HeadRead::Closed,
                });
            }
        }
    }
}

/// Whether the client begins with HTTP/2. `None` as long as it may.
fn begins_http2(client: &Client, input: &[u8]) -> Option<bool> {
    let may = matches!(client.protocol, Protocol::Http1 { may_begin_http2: true });
    if !may || client.connection.requests() > 0 {
        return Some(false);
    }
    match (input.starts_with(PREFACE), PREFACE.starts_with(input)) {
        (true, _) => Some(true),
        (false, true) => None,
        (false, false) => Some(false),
    }
}

/// Throws away what the client still sends after its response, so that the kernel does not answer its
/// bytes with a reset that would destroy the response on its way (RFC 9112 9.6).
fn poll_discard(
    task: &mut Context<'_>,
    io: &mut ClientIo,
    client: &Client,
    state: &mut server::Connection,
    work: &mut Work,
) -> Poll<Next> {
    loop {
        let (consumed, next) = state.discard(&work.input);
        work.input.drain(..consumed);
        if next != Next::Discard {
            return Poll::Ready(next);
        }
        if matches!(state.phase(), server::Phase::Lingering(_)) {
            // So that the client sees the end of its response.
            let _closed = io.poll_close(task);
        }
        if client.connection.has_expired() {
            return Poll::Ready(Next::Close);
        }
        let room = DISCARDED.min(work.input.capacity());
        match ready!(io.poll_fill(task, &mut work.input, room)) {
            Ok(count) if count > 0 => {}
            _gone => return Poll::Ready(Next::Close),
        }
    }
}
