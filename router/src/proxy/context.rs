//! What is known of one request, from its head to its log line.

use std::sync::Arc;

use super::Client;
use super::error::CLIENT_CLOSED_REQUEST;
use super::work::Work;
use crate::access_log::{Line, OwnedLine};
use crate::http1::connection::Options as ConnectionOptions;
use crate::http1::framing::BodyKind;
use crate::http1::head::Version;
use crate::http1::known::KnownField;
use crate::http1::server::Accepted;
use crate::message::forwarding::Forwarding;
use crate::message::request::RequestFacts;
use crate::message::request_ids::RequestIds;
use crate::route::options::Options;
use crate::route::{Millis, Route};

/// One request. Its log line is written when it is dropped, wherever that happens.
#[derive(Debug)]
pub struct RequestContext<'w> {
    /// Whose it is.
    pub client: &'w Client,
    /// Its buffer and heads.
    pub work: &'w mut Work,
    /// What its head says of body and connection.
    pub accepted: Accepted,
    /// What else its head says.
    pub facts: RequestFacts,
    /// What the backend is told of the client, once the request is accepted.
    pub forwarding: Option<Forwarding>,
    /// `X-Request-Id` and `traceparent`, where requests get them.
    pub ids: Option<RequestIds>,
    /// Routers that the request has passed through, as the next one is told.
    pub hops: Option<u8>,
    /// What replaces `Host`: the authority of a target in absolute form.
    pub has_authority: bool,
    /// Where it goes.
    pub route: Option<Arc<Route>>,
    /// The options of its host.
    pub options: Option<Arc<Options>>,
    /// The client's connection, or that to a trusted proxy before it, is encrypted.
    pub is_https: bool,
    /// The backend that was tried last, and failed.
    pub failed_index: Option<usize>,
    /// When its head was complete.
    pub started: Millis,
    /// Something was waited for since.
    pub has_waited: bool,
    /// When a backend was first turned to.
    pub backend_started: Option<Millis>,
    /// Of the response; 0 before there is one.
    pub status: u16,
    /// Bytes written to the client.
    pub bytes_sent: u64,
    /// Bytes of content among them. On a connection of HTTP/2 nothing else can be told apart.
    pub content_sent: u64,
    /// How far `work.input` is done with.
    pub consumed: usize,
    /// Whether it gets a log line.
    pub is_logged: bool,
}

/// What stands for a head that could not be read.
const NOTHING: Accepted = Accepted {
    consumed: 0,
    body: BodyKind::None,
    options: ConnectionOptions::NONE,
    expects_continue: false,
};

impl<'w> RequestContext<'w> {
    /// Begins a request whose head is in `work`, as far as it could be read.
    ///
    /// `waited`: how long the client took for it, where that is known.
    pub fn new(
        client: &'w Client,
        work: &'w mut Work,
        accepted: Option<Accepted>,
        waited: Millis,
    ) -> Self {
        client.connection.begin_request();
        let shared = &client.shared;
        let (head, buf) = (&work.head, &work.input[..]);
        let facts = match &accepted {
            Some(accepted) => RequestFacts::of(head, buf, accepted),
            None => RequestFacts {
                wants_debug: head.fields.present().contains(KnownField::XDebug),
                ..RequestFacts::default()
            },
        };
        let ids = client
            .settings
            .request_ids
            .then(|| RequestIds::of(head, buf, client.info.trust(), || fastrand::u64(..)));
        Self {
            client,
            facts,
            forwarding: None,
            ids,
            hops: None,
            has_authority: false,
            route: None,
            options: None,
            is_https: false,
            failed_index: None,
            started: shared.clock.now().saturating_sub(waited),
            has_waited: false,
            backend_started: None,
            status: 0,
            bytes_sent: 0,
            content_sent: 0,
            consumed: if accepted.is_none() { work.input.len() } else { 0 },
            accepted: accepted.unwrap_or(NOTHING),
            is_logged: shared.sink.is_some(),
            work,
        }
    }

    /// The host that the request names: the authority of its target, else `Host`.
    pub fn host_text(&self) -> &[u8] {
        let buf = &self.work.input[..];
        match self.has_authority {
            true => self.work.head.target.authority().of(buf),
            false => self.work.head.fields.value(KnownField::Host, buf).unwrap_or_default(),
        }
    }

    /// The exchange with a backend is over without a response. What waits for the client stays.
    pub fn discard_exchange(&mut self) {
        let work = &mut *self.work;
        self.consumed = work.upload.finish(&mut work.input, &self.client.shared.buffers);
        work.download.attempt();
    }

    /// A backend is turned to.
    pub fn note_backend(&mut self) {
        if self.backend_started.is_none() {
            // To read the clock twice in a few microseconds is not worth its instructions.
            let now = if self.has_waited { self.client.shared.clock.now() } else { self.started };
            self.backend_started = Some(now);
        }
    }

    /// Takes the log line over, for a tunnel that logs its own end.
    pub fn take_line(&mut self) -> Option<Box<OwnedLine>> {
        if !std::mem::take(&mut self.is_logged) {
            return None;
        }
        Some(Box::new(self.line().to_owned_line(self.route.clone())))
    }

    fn line(&self) -> Line<'_> {
        let (head, buf) = (&self.work.head, &self.work.input[..]);
        let value = |known| head.fields.value(known, buf).unwrap_or_default();
        Line {
            client: match &self.forwarding {
                Some(forwarding) => forwarding.real_ip(buf),
                None => self.client.info.address(),
            },
            method: head.method_text.of(buf),
            target: head.target_text.of(buf),
            version: match (self.client.is_http2(), head.version) {
                (true, _) => "HTTP/2.0",
                (false, Version::Http10) => "HTTP/1.0",
                (false, Version::Http11) => "HTTP/1.1",
            },
            status: if self.status == 0 { CLIENT_CLOSED_REQUEST } else { self.status },
            bytes: if self.client.is_http2() { self.content_sent } else { self.bytes_sent },
            referer: value(KnownField::Referer),
            user_agent: value(KnownField::UserAgent),
            request_id: self.ids.as_ref().map(|ids| ids.request_id(buf)),
            route: self.route.as_deref(),
            started: self.started,
            backend_started: self.backend_started,
        }
    }
}

impl Drop for RequestContext<'_> {
    /// A request that was given up with its connection is logged, too.
    fn drop(&mut self) {
        if self.is_logged
            && let Some(sink) = &self.client.shared.sink
        {
            self.line().emit(sink);
        }
        self.client.connection.end_request();
    }
}
