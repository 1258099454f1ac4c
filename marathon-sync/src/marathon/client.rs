//! Asks Marathon, one endpoint after the other until one answers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::StatusCode;
use reqwest::redirect::Policy;
use serde::Deserialize;
use shared::time_limit::timeout;
use thiserror::Error;
use tokio::time::Instant;
use url::Url;

use super::answer::{Chain, check_object, read_up_to, seen};
use super::auth::{Credentials, CredentialsError, ReadFrom, Session};
use super::endpoints::{Endpoint, Endpoints};
use super::request::{Accept, AttemptError, Requests};
use super::tls::{Tls, TlsError};

/// What is asked for, and how long and how much at most.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Marathon's label selector, as in `label=hipacheFrontend`: it then lists only such apps.
    pub label: Option<String>,
    /// Ask for the results of readiness checks too.
    pub readiness: bool,
    /// Limits of time.
    pub deadlines: Deadlines,
    /// Limit of the list of apps.
    pub body_limit: BodyLimit,
}

/// Limits of time of one request to one endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deadlines {
    /// To find the name, connect and shake hands.
    pub connect: Duration,
    /// From then to the head of the answer. The whole of a login.
    pub first_byte: Duration,
    /// Without an answer after which the next Marathon is asked, too; the first answer counts.
    pub hedge: Duration,
    /// Between two pieces of the body.
    pub idle: Duration,
    /// For all of it. The stream of events has no such limit.
    pub total: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            // A second SYN goes out after one second, a third after three.
            connect: Duration::from_secs(4),
            // Marathon itself gives up after 10 s, a standby that proxies later.
            first_byte: Duration::from_secs(30),
            hedge: Duration::from_secs(5),
            idle: Duration::from_secs(15),
            // Some 50,000 tasks at 5 Mbit/s.
            total: Duration::from_secs(120),
        }
    }
}

/// Bytes of a list of apps, unpacked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BodyLimit(pub usize);

impl Default for BodyLimit {
    fn default() -> Self {
        // 50,000 tasks make about 50 MB.
        Self(512 << 20)
    }
}

/// Milliseconds; no Marathon is waited for longer than twice this before the next is asked.
const MAX_USUAL: u64 = 10_000;

/// Bytes of anything but the list of apps.
const TEXT_LIMIT: usize = 1 << 20;

/// The side towards Marathon. Clones share connections, login and what is known of the leader.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    requests: Requests,
    options: Options,
    /// The endpoint that answered last.
    preferred: AtomicUsize,
    /// Milliseconds that the slowest answer took, at most [`MAX_USUAL`].
    usual_millis: AtomicU64,
}

/// Why there is no client.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The HTTP library refuses.
    #[error("cannot set up HTTP; with https URLs: are there CA certificates on this system?")]
    Http(#[source] reqwest::Error),
    /// A certificate, key or authority.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A list of apps.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// A JSON object.
    pub body: Bytes,
    /// Who answered.
    pub endpoint: String,
    /// How long that took, from the first endpoint that was tried.
    pub duration: Duration,
    /// What `X-Marathon-Leader` says. Absent before 0.9.
    pub leader: Option<String>,
}

/// What Marathon says about itself in `/v2/info`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct Info {
    /// As in `1.9.100`.
    pub version: Option<String>,
    /// `host:port` of the leader.
    pub leader: Option<String>,
}

/// No endpoint answered.
#[derive(Debug)]
pub struct FetchError {
    /// Every endpoint with what happened, in the order in which they were tried.
    pub attempts: Vec<(String, AttemptError)>,
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no Marathon gave an answer")?;
        for (number, (endpoint, error)) in self.attempts.iter().enumerate() {
            write!(f, "{} {endpoint}: {}", if number == 0 { ":" } else { ";" }, Chain(error))?;
        }
        Ok(())
    }
}

impl std::error::Error for FetchError {}

impl Client {
    /// Reads certificate files and sets everything up; connects to nobody.
    pub fn new(
        endpoints: Endpoints,
        credentials: Credentials,
        tls: &Tls,
        options: Options,
    ) -> Result<Self, BuildError> {
        let login_https = credentials.is_login_https();
        if login_https == Some(false) {
            tracing::warn!("the login endpoint is not https: the login can be read on the way");
        }
        if tls.is_insecure {
            tracing::warn!(
                "certificates are not verified: whoever is on the way to Marathon reads its \
                 credentials and decides on the routes"
            );
        }
        let needs_tls = login_https == Some(true) || endpoints.iter().any(Endpoint::is_https);
        let build = |with_system| {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("marathon-sync/", env!("CARGO_PKG_VERSION")))
                // Followed in `request`, by rules of our own.
                .redirect(Policy::none())
                .no_proxy()
                .connect_timeout(options.deadlines.connect)
                // A connection that is kept may be closed by the other side just as it is used
                // again, which looks like a failure. Beside a list of apps a handshake is cheap.
                .pool_max_idle_per_host(0);
            tls.apply(builder, with_system)?.build().map_err(BuildError::Http)
        };
        let http = match build(true) {
            // A system without roots must not keep those from starting who need none.
            Err(BuildError::Http(_)) if !needs_tls => build(false)?,
            other => other?,
        };
        let session = Session::new(credentials, options.deadlines.first_byte);
        let requests = Requests::new(http, endpoints, session, options.deadlines);
        Ok(Self(Arc::new(Inner {
            requests,
            options,
            preferred: AtomicUsize::new(0),
            usual_millis: AtomicU64::new(0),
        })))
    }

    /// The list of apps with their tasks, from the first endpoint that has one. Begins with the one
    /// that answered last, tries each one once; one that is silent for some seconds is not waited for
    /// alone ([`Deadlines::hedge`]).
    ///
    /// Only a 200 whose body is a JSON object is an answer.
    pub async fn fetch_apps(&self) -> Result<Fetched, FetchError> {
        let start = Instant::now();
        self.each(async |endpoint| {
            let (body, leader) = self.json(endpoint, self.apps_url(endpoint)).await?;
            let endpoint = endpoint.to_string();
            Ok(Fetched { body, endpoint, duration: start.elapsed(), leader })
        })
        .await
    }

    /// One app with its tasks, from the first endpoint that has it. Every version shows the tasks
    /// without being asked.
    pub async fn fetch_app(&self, id: &str) -> Result<Bytes, FetchError> {
        self.each(async |endpoint| {
            let url = endpoint.app_url(id).ok_or(AttemptError::NoApp)?;
            let (body, _leader) = self.json(endpoint, url).await?;
            Ok(body)
        })
        .await
    }

    /// The definition of one app as it was in `version`, from the first endpoint that has it. Marathon
    /// keeps the last 25 or 50 of each app (`--zk_max_versions`).
    pub async fn fetch_version(&self, id: &str, version: &str) -> Result<Bytes, FetchError> {
        self.each(async |endpoint| {
            let url = endpoint.version_url(id, version).ok_or(AttemptError::NoApp)?;
            let (body, _leader) = self.json(endpoint, url).await?;
            Ok(body)
        })
        .await
    }

    /// What `GET path` gives: `path` begins with a slash, is below the base path and has no query.
    /// At most 1 MiB of a 200, as it is.
    pub async fn fetch_text(&self, path: &str) -> Result<String, FetchError> {
        self.each(async |endpoint| {
            let url = endpoint.url(path);
            let (body, _leader) = self.body(endpoint, url, Accept::Any, TEXT_LIMIT).await?;
            Ok(String::from_utf8_lossy(&body).into_owned())
        })
        .await
    }

    /// What Marathon says about itself.
    pub async fn info(&self) -> Result<Info, FetchError> {
        self.each(async |endpoint| {
            let url = endpoint.url("/v2/info");
            let (body, _leader) = self.body(endpoint, url, Accept::Json, TEXT_LIMIT).await?;
            check_object(&body)?;
            // A field of another type than expected is as good as none.
            Ok(serde_json::from_slice(&body).unwrap_or(Info { version: None, leader: None }))
        })
        .await
    }

    /// Says where the credentials come from: they are read there again when Marathon refuses them.
    pub fn read_credentials_from(&self, from: ReadFrom) {
        self.requests().session().read_from(from);
    }

    /// Reads the credentials where they come from. Returns whether they have changed.
    ///
    /// # Errors
    ///
    /// When the file cannot be used. The credentials stay as they are.
    pub async fn read_credentials_again(&self) -> Result<bool, CredentialsError> {
        self.requests().session().read_again().await
    }

    /// The requests below this.
    pub(super) fn requests(&self) -> &Requests {
        &self.0.requests
    }

    async fn each<T>(
        &self,
        attempt: impl AsyncFn(&Endpoint) -> Result<T, AttemptError>,
    ) -> Result<T, FetchError> {
        let Deadlines { total, hedge, .. } = self.0.options.deadlines;
        let one = async |index: usize, endpoint: &Endpoint| {
            let late = AttemptError::TimedOut { phase: "the whole answer", after: total };
            let start = Instant::now();
            let result = timeout(total, attempt(endpoint)).await.unwrap_or(Err(late));
            (index, endpoint.to_string(), start.elapsed(), result)
        };
        // The list of a large cluster takes its time: not each of them is to be asked for twice.
        let usual = Duration::from_millis(self.0.usual_millis.load(Ordering::Relaxed));
        let hedge = hedge.max(usual.saturating_mul(2));
        let first = self.0.preferred.load(Ordering::Relaxed);
        let mut endpoints = self.requests().endpoints().order_from(first).peekable();
        let (mut open, mut attempts) = (FuturesUnordered::new(), Vec::new());
        loop {
            if let Some((index, endpoint)) = endpoints.next() {
                open.push(one(index, endpoint));
            }
            let ended = match endpoints.peek() {
                Some(_) => timeout(hedge, open.next()).await,
                None => Ok(open.next().await),
            };
            match ended {
                // The next one is asked beside those that are silent.
                Err(_silent) => {}
                Ok(None) => return Err(FetchError { attempts }),
                Ok(Some((_, endpoint, _, Err(error)))) => attempts.push((endpoint, error)),
                Ok(Some((index, _, took, Ok(answer)))) => {
                    self.0.preferred.store(index, Ordering::Relaxed);
                    let usual = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    self.0.usual_millis.fetch_max(usual.min(MAX_USUAL), Ordering::Relaxed);
                    return Ok(answer);
                }
            }
        }
    }

    fn apps_url(&self, endpoint: &Endpoint) -> Url {
        let mut url = endpoint.apps_url();
        {
            let mut query = url.query_pairs_mut();
            // First, and alone up to 0.8: that takes one `embed` only.
            query.append_pair("embed", "apps.tasks");
            if self.0.options.readiness {
                query.append_pair("embed", "apps.readiness");
            }
            if let Some(label) = &self.0.options.label {
                query.append_pair("label", label);
            }
        }
        url
    }

    async fn json(
        &self,
        endpoint: &Endpoint,
        url: Url,
    ) -> Result<(Bytes, Option<String>), AttemptError> {
        let BodyLimit(limit) = self.0.options.body_limit;
        let (body, leader) = self.body(endpoint, url, Accept::Json, limit).await?;
        check_object(&body)?;
        Ok((body, leader))
    }

    /// The body of a 200, and the leader's name.
    async fn body(
        &self,
        endpoint: &Endpoint,
        url: Url,
        accept: Accept,
        limit: usize,
    ) -> Result<(Bytes, Option<String>), AttemptError> {
        let mut response = self.requests().get(endpoint, url, accept).await?;
        let leader = response
            .headers()
            .get("x-marathon-leader")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let Deadlines { idle, .. } = self.0.options.deadlines;
        if response.status() != StatusCode::OK {
            return Err(not_ok(&mut response, idle).await);
        }
        // Grows with what comes, whatever length was announced.
        let mut body = Vec::new();
        loop {
            let chunk = timeout(idle, response.chunk())
                .await
                .map_err(|_late| AttemptError::TimedOut { phase: "more of the body", after: idle })?
                .map_err(|source| AttemptError::Body { received: body.len(), source })?;
            let Some(chunk) = chunk else {
                return Ok((body.into(), leader));
            };
            if body.len() + chunk.len() > limit {
                return Err(AttemptError::TooLong { limit });
            }
            body.extend_from_slice(&chunk);
        }
    }
}

/// The error for an answer that is not a 200, with the beginning of its body.
pub(super) async fn not_ok(response: &mut reqwest::Response, limit: Duration) -> AttemptError {
    let status = response.status();
    // A body that does not come or breaks off does not change what the status says.
    let body = timeout(limit, read_up_to(response, 1024)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    AttemptError::Status { status, seen: seen(&body) }
}

#[cfg(test)]
mod tests;
