//! One GET to one endpoint: with credentials, one redirect at most, one new login at most.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, LOCATION};
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use shared::time_limit::timeout;
use thiserror::Error;
use url::Url;

use super::answer::{NotAnswer, read_up_to, seen};
use super::auth::{LoginError, Pass, Session};
use super::client::Deadlines;
use super::endpoints::{Authority, Endpoint, Endpoints, Refused};

/// What kind of answer is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Accept {
    Any,
    /// Exactly one header with exactly this value, or Marathon answers 405. Never packed, because
    /// what packs it keeps it back.
    Events,
    /// Without it, Marathon up to 0.10 may answer with text.
    Json,
}

/// Why one endpoint gave no answer. The source of an error is part of its message.
#[derive(Debug, Error)]
pub enum AttemptError {
    /// Asked for something that is no app.
    #[error("this is no path of an app")]
    NoApp,
    /// Status 200, but not Marathon's kind of body.
    #[error(transparent)]
    Answer(#[from] NotAnswer),
    /// The body broke off.
    #[error("the answer broke off after {received} bytes")]
    Body {
        /// How much had come, unpacked.
        received: usize,
        /// Why.
        source: reqwest::Error,
    },
    /// No connection.
    #[error("cannot connect")]
    Connect(#[source] reqwest::Error),
    /// No answer over a connection.
    #[error("the connection ended before an answer")]
    Exchange(#[source] reqwest::Error),
    /// No login, so nothing was asked.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// A redirect that is not followed.
    #[error(transparent)]
    Redirect(#[from] Refused),
    /// A redirect of a redirect.
    #[error("redirects twice, at last to {to}; name the Marathons themselves")]
    RedirectedTwice {
        /// The second `Location`.
        to: String,
    },
    /// Another status than 200.
    #[error("answered {status}: {seen}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The beginning of the body.
        seen: String,
    },
    /// A limit of time is over.
    #[error("waited {after:?} for {phase}")]
    TimedOut {
        /// What was waited for.
        phase: &'static str,
        /// How long.
        after: Duration,
    },
    /// The body goes over its limit.
    #[error("the answer has more than {limit} bytes, unpacked")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
}

/// Everything that a request needs.
#[derive(Debug)]
pub(super) struct Requests {
    http: reqwest::Client,
    endpoints: Endpoints,
    session: Session,
    deadlines: Deadlines,
    /// The leader that a configured Marathon named last.
    leader: Mutex<Option<Authority>>,
}

impl Requests {
    pub(super) fn new(
        http: reqwest::Client,
        endpoints: Endpoints,
        session: Session,
        deadlines: Deadlines,
    ) -> Self {
        Self { http, endpoints, session, deadlines, leader: Mutex::new(None) }
    }

    pub(super) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    /// The head of the answer of `endpoint` to `GET url`, whatever its status is but a redirect.
    pub(super) async fn get(
        &self,
        endpoint: &Endpoint,
        url: Url,
        accept: Accept,
    ) -> Result<reqwest::Response, AttemptError> {
        let (mut url, mut endpoint) = (url, endpoint);
        let (mut has_followed, mut has_logged_in_again) = (false, false);
        loop {
            let pass = self.pass(endpoint).await?;
            let response = self.send(&url, accept, &pass).await?;
            if !has_followed {
                self.note_leader(&response);
            }
            if response.status() == StatusCode::UNAUTHORIZED
                && !std::mem::replace(&mut has_logged_in_again, true)
                && self.session.refused(&pass).await
            {
                continue;
            }
            let Some(location) = redirect(&response) else {
                return Ok(response);
            };
            if std::mem::replace(&mut has_followed, true) {
                return Err(AttemptError::RedirectedTwice { to: seen(location.as_bytes()) });
            }
            (url, endpoint) = self.follow(endpoint, &url, &location).await?;
        }
    }

    async fn pass(&self, endpoint: &Endpoint) -> Result<Pass, LoginError> {
        match endpoint.login() {
            Some(basic) => Ok(Pass::Basic(basic.clone())),
            None => self.session.pass(&self.http).await,
        }
    }

    async fn send(
        &self,
        url: &Url,
        accept: Accept,
        pass: &Pass,
    ) -> Result<reqwest::Response, AttemptError> {
        let request = self.http.get(url.clone());
        let request = match accept {
            Accept::Any => request,
            Accept::Events => {
                request.header(ACCEPT, "text/event-stream").header(ACCEPT_ENCODING, "identity")
            }
            Accept::Json => request.header(ACCEPT, "application/json"),
        };
        let limit = self.deadlines.connect.saturating_add(self.deadlines.first_byte);
        match timeout(limit, pass.apply(request).send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(AttemptError::Connect(error.without_url())),
            Ok(Err(error)) => Err(AttemptError::Exchange(error.without_url())),
            Err(_late) => {
                Err(AttemptError::TimedOut { phase: "the head of an answer", after: limit })
            }
        }
    }

    /// Where a redirect of `endpoint` leads, if we may go there. Asks who leads when the target is
    /// not known.
    async fn follow<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        url: &Url,
        location: &str,
    ) -> Result<(Url, &'a Endpoint), AttemptError> {
        let known = self.leader();
        match self.endpoints.follow(endpoint, url, location, known.as_ref()) {
            Err(Refused::Stranger(_)) => {}
            other => return Ok(other?),
        }
        // What keeps it from naming one is of less interest than the redirect.
        let leader = self.ask_leader(endpoint).await.ok().flatten();
        Ok(self.endpoints.follow(endpoint, url, location, leader.as_ref())?)
    }

    async fn ask_leader(&self, endpoint: &Endpoint) -> Result<Option<Authority>, AttemptError> {
        #[derive(Deserialize)]
        struct Leader {
            leader: String,
        }
        let pass = self.pass(endpoint).await?;
        let mut response = self.send(&endpoint.url("/v2/leader"), Accept::Json, &pass).await?;
        let idle = self.deadlines.idle;
        let body = timeout(idle, read_up_to(&mut response, 4096))
            .await
            .map_err(|_late| AttemptError::TimedOut { phase: "the leader's name", after: idle })?
            .map_err(|source| AttemptError::Body { received: 0, source })?;
        // Whatever else it answers, it names no leader.
        let named = serde_json::from_slice(&body).ok().filter(|_| response.status().is_success());
        let leader = named.and_then(|named: Leader| Authority::parse(&named.leader));
        if leader.is_some() {
            self.set_leader(leader.clone());
        }
        Ok(leader)
    }

    /// Takes the leader's name from an answer of a configured Marathon.
    fn note_leader(&self, response: &reqwest::Response) {
        let named = response.headers().get("x-marathon-leader");
        if let Some(leader) = named.and_then(|value| Authority::parse(value.to_str().ok()?)) {
            self.set_leader(Some(leader));
        }
    }

    fn leader(&self) -> Option<Authority> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_leader(&self, leader: Option<Authority>) {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader;
    }
}

/// Where `response` redirects to.
fn redirect(response: &reqwest::Response) -> Option<String> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location: &HeaderValue = response.headers().get(LOCATION).filter(|_| is_redirect)?;
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}
