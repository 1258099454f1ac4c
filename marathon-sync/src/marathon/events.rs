//! Listens to Marathon's stream of events (`/v2/events`, since 0.9) and hands on hints.
//!
//! The stream may lose events, be silent although much happens, or not exist. So whatever becomes
//! strange leads to a new connection, and every new connection to a full look by the agent.

mod hint;
mod queue;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use shared::backoff::Backoff;
use shared::time_limit::timeout;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use url::Url;

pub use self::hint::{Gone, Hint, hints};
pub use self::queue::{HintSender, Hints, channel};
use super::answer::{Chain, read_up_to, seen};
use super::client::{Client, not_ok};
use super::endpoints::Endpoint;
use super::request::{Accept, AttemptError};
use super::sse::{Item, Parser};

/// How to listen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Options {
    /// Silence after which the stream counts as dead. Marathon sends a heartbeat every 10 s.
    pub silence: Duration,
    /// Bytes that one event may have.
    pub event_limit: usize,
    /// First and longest wait before the next connection.
    pub retry: (Duration, Duration),
    /// Wait before asking a Marathon again that has no events. It may be a new one by then.
    pub retry_without_events: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // Beyond two heartbeats, with some time for a pause of its garbage collector.
            silence: Duration::from_secs(25),
            // Events of a deployment have had several MB when they quoted all groups twice.
            event_limit: 32 << 20,
            // Beside a stream there is the interval: these need not be short.
            retry: (Duration::from_millis(250), Duration::from_secs(15)),
            retry_without_events: Duration::from_secs(300),
        }
    }
}

/// What has been counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Streams that delivered something.
    pub connected: AtomicU64,
    /// Events that could be read.
    pub events: AtomicU64,
    /// Events that were not JSON with an `eventType`.
    pub garbage: AtomicU64,
    /// Events over the limit.
    pub oversized: AtomicU64,
    /// Those after which we look, by their place in `hint::LOOK_AT`.
    looked: [AtomicU64; hint::LOOK_AT.len()],
}

impl Counters {
    fn count(&self, hint: &Hint) {
        let place = hint::LOOK_AT.iter().position(|kind| Some(*kind) == hint.kind());
        if let Some(count) = place.and_then(|place| self.looked.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Each kind of event after which we look, and how many of it came; also `garbage` and
    /// `oversized`.
    pub fn by_kind(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let known = hint::LOOK_AT.into_iter().zip(&self.looked);
        let others = [("garbage", &self.garbage), ("oversized", &self.oversized)];
        known.chain(others).map(|(kind, count)| (kind, count.load(Ordering::Relaxed)))
    }
}

/// Why a stream is not or no longer there.
#[derive(Debug, Error)]
enum Lost {
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    #[error("the stream broke off")]
    Broken(#[source] reqwest::Error),
    #[error("the stream was closed, by Marathon or on the way")]
    Closed,
    #[error(
        "the stream was closed before it brought anything; that is a Marathon that does not lead"
    )]
    Empty,
    #[error("it has no stream of events, as before 0.9 ({0}); changes are seen at intervals only")]
    NoEvents(StatusCode),
    #[error("answered 200 but not with a stream of events: {0}")]
    NotEvents(String),
    #[error("silent for {0:?}, in which Marathon would have sent a heartbeat")]
    Silent(Duration),
}

/// Listens for ever: ends only when it is dropped.
///
/// Takes one endpoint after the other, keeps to one whose stream worked, and waits between attempts,
/// longer with each that failed.
pub async fn listen(
    client: Client,
    options: Options,
    hints: HintSender,
    counters: Arc<Counters>,
) -> Infallible {
    let (first, last) = options.retry;
    let mut backoff = Backoff::new(first, last);
    let mut turn = 0_usize;
    let mut said: HashMap<String, String> = HashMap::new();
    let mut without_events = 0;
    loop {
        let mut listener = Listener {
            options: &options,
            hints: &hints,
            counters: &counters,
            connected: None,
            has_complained: false,
        };
        let Some((_, endpoint)) = client.requests().endpoints().order_from(turn).next() else {
            // There is at least one endpoint: `Endpoints::new`.
            sleep(last).await;
            continue;
        };
        let lost = listener.run(&client, endpoint).await;
        let lived = listener.connected.map(|since| since.elapsed());
        let reason = format!("{endpoint}: {}", Chain(&lost));
        if lived.is_some() {
            said.clear();
        }
        // Changes are news; an endpoint that says the same over and over is not.
        if said.insert(endpoint.to_string(), reason.clone()).as_ref() == Some(&reason) {
            tracing::debug!(reason, "still no events from Marathon");
        } else {
            tracing::warn!(reason, "no events from Marathon");
        }
        hints.send(Hint::Lost { reason: reason.into() });
        // What lasted for a heartbeat has worked: a stream that is closed again and again at once
        // must not be asked for again and again at once.
        if lived.is_some_and(|lived| lived >= options.silence / 2) {
            backoff.reset();
        }
        let is_kept = lived.is_some() && matches!(lost, Lost::Broken(_) | Lost::Closed);
        turn = turn.wrapping_add(usize::from(!is_kept));
        without_events = if matches!(lost, Lost::NoEvents(_)) { without_events + 1 } else { 0 };
        let wait = backoff.next_delay();
        if without_events >= client.requests().endpoints().count() {
            // All of them said so, one after the other.
            sleep(wait.max(options.retry_without_events)).await;
        } else {
            sleep(wait).await;
        }
    }
}

/// One connection.
struct Listener<'a> {
    options: &'a Options,
    hints: &'a HintSender,
    counters: &'a Counters,
    /// When the first byte came.
    connected: Option<Instant>,
    has_complained: bool,
}

impl Listener<'_> {
    async fn run(&mut self, client: &Client, endpoint: &Endpoint) -> Lost {
        match open(client, endpoint).await {
            Ok(stream) => self.read(stream, endpoint).await,
            Err(lost) => lost,
        }
    }

    async fn read(
        &mut self,
        stream: impl Stream<Item = Result<Bytes, reqwest::Error>>,
        endpoint: &Endpoint,
    ) -> Lost {
        let mut stream = std::pin::pin!(stream);
        let mut parser = Parser::new(self.options.event_limit);
        let silence = self.options.silence;
        loop {
            let bytes = match timeout(silence, stream.next()).await {
                Err(_elapsed) => return Lost::Silent(silence),
                Ok(None) if self.connected.is_none() => return Lost::Empty,
                Ok(None) => return Lost::Closed,
                Ok(Some(Err(error))) => return Lost::Broken(error.without_url()),
                Ok(Some(Ok(bytes))) => bytes,
            };
            if self.connected.is_none() && !bytes.is_empty() {
                // Only now: a standby's answer has a head too, and then ends.
                self.connected = Some(Instant::now());
                self.counters.connected.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%endpoint, "events from Marathon arrive");
                self.hints.send(Hint::Connected);
            }
            parser.push(&bytes, |item| self.take(item));
        }
    }

    fn take(&mut self, item: Item) {
        let (counter, kind) = match item {
            Item::Data(data) => match hints(&data, |hint| {
                self.counters.count(&hint);
                self.hints.send(hint);
            }) {
                Ok(()) => {
                    self.counters.events.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(error) => {
                    self.complain(&format!("{error}: {}", seen(&data)));
                    (&self.counters.garbage, "garbage")
                }
            },
            Item::TooLong => {
                self.complain(&format!("more than {} bytes", self.options.event_limit));
                (&self.counters.oversized, "oversized")
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.hints.send(Hint::Look { kind, app_id: None });
    }

    fn complain(&mut self, what: &str) {
        if !std::mem::replace(&mut self.has_complained, true) {
            tracing::warn!(
                what,
                "an event that cannot be read; more on this connection are counted"
            );
        }
    }
}

async fn open(
    client: &Client,
    endpoint: &Endpoint,
) -> Result<impl Stream<Item = Result<Bytes, reqwest::Error>> + use<>, Lost> {
    let requests = client.requests();
    let mut response = requests.get(endpoint, events_url(endpoint), Accept::Events).await?;
    let idle = requests.deadlines().idle;
    match response.status() {
        StatusCode::OK => {}
        status @ (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) => {
            return Err(Lost::NoEvents(status));
        }
        _ => return Err(not_ok(&mut response, idle).await.into()),
    }
    let kind = response.headers().get(CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes());
    let expected = b"text/event-stream";
    if !kind.get(..expected.len()).is_some_and(|start| start.eq_ignore_ascii_case(expected)) {
        let body = timeout(idle, read_up_to(&mut response, 1024)).await;
        return Err(Lost::NotEvents(seen(&body.ok().and_then(Result::ok).unwrap_or_default())));
    }
    Ok(response.bytes_stream())
}

/// `plan-format=light` leaves the groups out of deployments (from 1.6.322 on), the filter what
/// nobody here reads (from 1.3.7 on). Older versions ignore both.
fn events_url(endpoint: &Endpoint) -> Url {
    let mut url = endpoint.url("/v2/events");
    url.query_pairs_mut().append_pair("plan-format", "light").extend_pairs(
        hint::LOOK_AT.iter().chain([&hint::ATTACHED]).map(|kind| ("event_type", kind)),
    );
    url
}

#[cfg(test)]
mod tests;
