//! The program that goes on: events, answers and Redis lead to passes, the one who leads writes.
//!
//! One task takes one thing at a time; a fetch is a task of its own. While a pass is made, hints wait
//! in their bounded queue, where equal ones are one. `schedule` (pure) says when to ask Marathon,
//! `seen` (pure) remembers what events said for sure, `heard` (pure) says what a hint leads to, and
//! `matters` (pure) which certainty is worth a pass. `look` makes passes, `write` carries them out,
//! `stale` (pure) says what an old answer may do, `narrow` looks at single apps, `compute` has the
//! thread for what takes long, `news` (pure) says what is worth a line in the log. `terms` (pure)
//! keeps plans of a lost term from being written. `state` is what others may look at, `once` is for
//! passes on the command line.

pub mod compute;
pub mod errors;
mod expected;
pub mod heard;
pub mod look;
pub mod matters;
pub mod narrow;
pub mod news;
pub mod once;
pub mod running_time;
pub mod schedule;
pub mod seen;
pub mod stale;
pub mod state;
pub mod terms;
mod versions;
mod write;

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use shared::backoff::Backoff;
use shared::store;
use tokio::sync::watch;
use tokio::task::{JoinError, LocalSet, spawn_local};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::document::{Answer, parse_and_tell};
use crate::marathon::client::{Client, FetchError, Fetched};
use crate::marathon::events::{self, Hint, Hints};
use crate::pass::{Occasion, Pass};
use crate::routes::Routes;
use crate::routes::lease::{self, Lease, Problem, Standing};

use compute::Compute;
use expected::Expected;
use heard::{Knows, heard};
use look::{LookError, Looker};
use news::{News, Newsroom, printable};
use schedule::{Schedule, Scope};
use seen::SeenLog;
use state::{AnswerSeen, Failure, State, Stream};
use terms::Terms;
use versions::{VersionFetch, VersionRequests};

/// First and longest wait before Marathon is asked again after a failure.
const FETCH_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// The same for Redis. It is near and asked little.
const REDIS_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long a pass waits for a connection that is just being made.
const REDIS_PATIENCE: Duration = Duration::from_secs(1);
/// How long giving the lease back may take at the end.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// The agent, set up.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    client: Client,
    redis: store::Client,
    routes: Routes,
    state: Arc<State>,
    compute: Arc<Compute>,
}

/// The last answer.
#[derive(Debug)]
struct Known {
    answer: Arc<Answer>,
    /// When it was asked for.
    asked: Instant,
    /// No pass has taken it in yet.
    is_new: bool,
    /// The first event that made us ask.
    event: Option<Instant>,
}

impl Agent {
    /// Reads certificates, and starts to connect to Redis; `shutdown` ends that connection, after
    /// the end of [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// When files or settings for Marathon cannot be used, or there is no thread to be had.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn new(config: Config, shutdown: &CancellationToken) -> anyhow::Result<Self> {
        let client = Client::new(
            config.endpoints.clone(),
            config.credentials.clone(),
            &config.tls,
            config.client_options(),
        )?;
        client.read_credentials_from(config.credentials_from.clone());
        let redis = look::connect(&config.driver, shutdown);
        let routes = Routes::new(redis.clone(), &config.instance);
        let state = Arc::new(State::new(Timestamp::now()));
        let compute = Arc::new(Compute::start().context("cannot start a thread")?);
        Ok(Self { config, client, redis, routes, state, compute })
    }

    /// What it shows of itself.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The client of Marathon, whose credentials may be read again.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The connection to Redis, to see whether it is up.
    pub fn redis(&self) -> &store::Client {
        &self.redis
    }

    /// Keeps the lists until `shutdown`, then gives the lease back.
    ///
    /// # Errors
    ///
    /// [`LookError::Panicked`]: what was known is lost, and a new process is the way on.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), LookError> {
        let (sender, hints) = events::channel();
        let counters = Arc::clone(&self.state.counters.stream);
        let listening =
            events::listen(self.client.clone(), events::Options::default(), sender, counters);
        let _listener = AbortOnDropHandle::new(tokio::spawn(listening));
        // Cancelled at every orderly end, not by a signal alone.
        let release = shutdown.child_token();
        let lease = (!self.config.dry_run)
            .then(|| Lease::start(&self.routes, &own_name(), lease::TTL, &release));
        let looker = Looker::new(&self.routes, &self.config, Arc::clone(&self.compute));
        let (first, last) = FETCH_RETRY;
        let mut running = Running {
            schedule: Schedule::new(Instant::now(), self.config.interval, self.config.debounce),
            standing: lease.as_ref().map(Lease::subscribe),
            problem: lease.as_ref().map(Lease::problem),
            lease,
            looker,
            hints,
            seen: SeenLog::default(),
            expected: Expected::default(),
            newsroom: Newsroom::default(),
            known: None,
            last: None,
            fetch: None,
            version_requests: VersionRequests::default(),
            version_fetch: None,
            event: None,
            certain: None,
            fetch_retry: Backoff::new(first, last.min(self.config.interval.max(first))),
            redis_retry: Backoff::new(REDIS_RETRY.0, REDIS_RETRY.1),
            terms: Terms::default(),
            is_rebuilding: false,
            printed: Vec::new(),
            agent: self,
        };
        // For the fetch, which is a task of this thread.
        let local = LocalSet::new();
        let result = local.run_until(shutdown.run_until_cancelled(running.turns())).await;
        release.cancel();
        if let Some(lease) = running.lease.take() {
            lease.ended(RELEASE_LIMIT).await;
        }
        result.unwrap_or(Ok(()))
    }
}

/// Host and process, for people.
pub fn own_name() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{}/{}", host.as_deref().unwrap_or("?"), std::process::id())
}

/// What a fetch brings.
enum Brought {
    Apps(narrow::Answers),
    Everything(Result<Fetched, FetchError>),
}

/// A fetch on its way: a task of its own, so that it goes on while a pass is made.
struct Fetch {
    answer: AbortOnDropHandle<Result<Brought, JoinError>>,
    asked: Instant,
    event: Option<Instant>,
}

/// The agent while it runs.
struct Running {
    agent: Agent,
    schedule: Schedule,
    lease: Option<Lease>,
    standing: Option<watch::Receiver<Standing>>,
    problem: Option<watch::Receiver<Option<Problem>>>,
    looker: Looker,
    hints: Hints,
    seen: SeenLog,
    expected: Expected,
    newsroom: Newsroom,
    known: Option<Known>,
    /// What the last pass came to.
    last: Option<Arc<Pass>>,
    fetch: Option<Fetch>,
    version_requests: VersionRequests,
    version_fetch: Option<VersionFetch>,
    /// The first event since the last fetch began.
    event: Option<Instant>,
    /// The first event that said something for sure which no pass has taken in yet.
    certain: Option<Instant>,
    fetch_retry: Backoff,
    redis_retry: Backoff,
    /// Our terms as the leader.
    terms: Terms,
    /// Redis had lost all, and what an old answer has is not wholly written yet.
    is_rebuilding: bool,
    /// What a dry run printed last.
    printed: Vec<String>,
}

impl Running {
    async fn turns(&mut self) -> Result<(), LookError> {
        loop {
            self.turn().await?;
        }
    }

    async fn turn(&mut self) -> Result<(), LookError> {
        tokio::select! {
            biased;
            // First, because it says whether anything may be written.
            () = changed(&mut self.standing) => self.on_standing(),
            () = changed(&mut self.problem) => self.on_problem(),
            // Hints come last: however many there are, an answer is taken in and a fetch begins.
            fetched = arrival(&mut self.fetch) => return self.on_fetched(fetched?).await,
            found = versions::arrival(&mut self.version_fetch) => self.on_definitions(found?),
            () = sleep_until(self.schedule.wake()) => {}
            hint = self.hints.next() => self.on_hints(hint),
        }
        let now = Instant::now();
        let due = self.schedule.due(now);
        self.begin(due.fetch, now);
        let is_done = match due.again {
            Scope::Nothing => true,
            Scope::Apps(apps) => self.narrow_again(apps).await,
            Scope::All => false,
        };
        if !is_done {
            self.pass().await?;
            self.schedule.looked_again(Instant::now());
        }
        Ok(())
    }

    /// Begins to ask Marathon.
    fn begin(&mut self, scope: Scope, now: Instant) {
        let client = self.agent.client.clone();
        let answer = match scope {
            Scope::Nothing => return,
            Scope::Apps(apps) => {
                let compute = Arc::clone(&self.agent.compute);
                spawn_local(async move {
                    let apps: Vec<_> = apps.into_iter().collect();
                    narrow::fetch(&client, &compute, &apps).await.map(Brought::Apps)
                })
            }
            Scope::All => {
                spawn_local(async move { Ok(Brought::Everything(client.fetch_apps().await)) })
            }
        };
        let answer = AbortOnDropHandle::new(answer);
        self.fetch = Some(Fetch { answer, asked: now, event: self.event.take() });
    }

    fn on_standing(&mut self) {
        let Some(standing) = &mut self.standing else { return };
        let standing = standing.borrow_and_update().clone();
        let now = Instant::now();
        self.terms.enter(&standing, now);
        match &standing {
            Standing::Leader { .. } => {
                self.agent.state.counters.terms.fetch_add(1, Ordering::Relaxed);
                // Redis may have lost everything, or somebody else has written.
                self.schedule.again(now);
                self.schedule.full(now);
            }
            Standing::Standby { .. } => self.is_rebuilding = false,
            Standing::Unknown => {}
        }
        self.agent.state.update(|view| view.standing = standing);
    }

    /// Shows what is wrong with Redis, or that nothing is.
    fn on_problem(&mut self) {
        let Some(problem) = &mut self.problem else { return };
        let problem = problem.borrow_and_update().clone();
        self.agent.state.update(|view| {
            view.lease_problem = problem.map(|problem| (Timestamp::now(), problem));
        });
    }

    /// Takes in all hints that wait.
    fn on_hints(&mut self, first: Hint) {
        let now = Instant::now();
        let mut next = Some(first);
        while let Some(hint) = next {
            self.on_hint(&hint, now);
            next = self.hints.take();
        }
    }

    fn on_hint(&mut self, hint: &Hint, now: Instant) {
        let kind = match hint {
            Hint::Connected => {
                let since = Timestamp::now();
                self.agent.state.update(|view| view.stream = Stream::Connected { since });
                "connected"
            }
            Hint::Lost { reason } => {
                let lost = Stream::Lost { since: Timestamp::now(), reason: Arc::clone(reason) };
                self.agent.state.update(|view| match &mut view.stream {
                    Stream::Lost { reason: old, .. } => old.clone_from(reason),
                    Stream::Connecting | Stream::Connected { .. } => view.stream = lost,
                });
                "lost"
            }
            Hint::Look { kind, .. } => *kind,
            Hint::AppDeleted { .. } => "app_terminated_event",
            Hint::TaskGone { .. } => "task_gone",
            Hint::TaskStarted { .. } => "task_started",
        };
        self.agent.state.counters.hints.get_or_create(&[("kind", kind)]).inc();
        let pass = self.last.clone();
        let knows = Knows { pass: pass.as_deref(), is_settled: self.is_settled() };
        let heard = heard(hint, knows, &mut self.seen, &mut self.schedule, now);
        match hint {
            Hint::TaskStarted { task_id, app_id, is_running: true } if heard.is_asked => {
                self.expected.started(task_id, app_id, now);
            }
            Hint::TaskGone { task_id, .. } => self.expected.ended(task_id),
            _ => {}
        }
        if heard.is_asked {
            self.event.get_or_insert(now);
        }
        if heard.is_certain {
            self.certain.get_or_insert(now);
        }
    }

    async fn on_fetched(&mut self, fetched: Arrival) -> Result<(), LookError> {
        let Arrival { brought, asked, event } = fetched;
        let result = match brought {
            Brought::Apps(told) => return self.on_told(told, asked, event).await,
            Brought::Everything(result) => result,
        };
        let counters = &self.agent.state.counters;
        let (body, mut seen) = match result {
            Ok(Fetched { body, endpoint, duration, leader }) => {
                counters.fetch_seconds.observe(duration.as_secs_f64());
                let bytes = body.len();
                let at = Timestamp::now();
                (body, AnswerSeen { at, endpoint, leader, duration, bytes, apps: 0 })
            }
            Err(error) => {
                counters.fetch_failed(&error);
                self.fetch_failed("failed", &error.to_string());
                return Ok(());
            }
        };
        let mut before = self.known.take();
        let read = move || {
            let answer = parse_and_tell(&body, || before = None);
            (answer, before)
        };
        let answer = match self.agent.compute.run(read).await? {
            (Ok(answer), _) => answer,
            (Err(error), before) => {
                self.known = before;
                let text = format!("{}: {}", seen.endpoint, chain(&error));
                self.fetch_failed("unusable", &text);
                return Ok(());
            }
        };
        counters.fetches.get_or_create(&[("result", "ok")]).inc();
        self.fetch_retry.reset();
        self.schedule.fetched(Instant::now(), None);
        seen.apps = answer.apps.len();
        self.seen.listed(answer.apps.iter().map(|app| app.id.as_str()), asked);
        let missing = self.expected.shown(answer.apps.iter(), true, asked);
        self.ask_for_missing(missing);
        self.agent.state.update(|view| {
            if let Some(failure) = view.answer_failed.take() {
                info!(failures = failure.times, "Marathon answers again");
            }
            view.answer = Some(seen);
        });
        self.known = Some(Known { answer: Arc::new(answer), asked, is_new: true, event });
        self.pass().await
    }

    /// Plans to ask again for apps that do not show a task yet which an event has named.
    fn ask_for_missing(&mut self, missing: Option<(Duration, BTreeSet<Arc<str>>)>) {
        let Some((wait, apps)) = missing else { return };
        let when = Instant::now() + wait;
        for app in &apps {
            let is_alone = |pass: &Arc<Pass>| crate::pass::narrow::is_alone(pass, app);
            let alone = self.is_settled() && self.last.as_ref().is_some_and(is_alone);
            self.schedule.ask_at(when, alone.then_some(app));
        }
    }

    fn fetch_failed(&mut self, result: &'static str, message: &str) {
        self.agent.state.counters.fetches.get_or_create(&[("result", result)]).inc();
        let message = printable(message).into_owned();
        let retry = self.fetch_retry.next_delay();
        self.schedule.fetched(Instant::now(), Some(retry));
        self.agent.state.update(|view| {
            let before = view.answer_failed.as_ref();
            if before.is_some_and(|before| before.message == message) {
                debug!(message, "still no answer from Marathon");
            } else {
                warn!("no answer from Marathon, the lists stay as they are: {message}");
            }
            view.answer_failed = Some(Failure::after(before, Timestamp::now(), message));
        });
    }

    /// A pass over the last answer.
    async fn pass(&mut self) -> Result<(), LookError> {
        self.schedule.looked();
        let Some(known) = &self.known else { return Ok(()) };
        // Asked before the long computation, which would be in vain.
        if !self.agent.redis.wait_until_up(REDIS_PATIENCE).await {
            self.redis_failed("read_failed", self.agent.redis.outage().to_string());
            return Ok(());
        }
        let occasion = if known.is_new { Occasion::Answer } else { Occasion::Again };
        let event = self.certain.or(known.event);
        let seen = self.seen.at(Instant::now());
        let (mut pass, snapshot) = match self.looker.look(&known.answer, seen, occasion).await {
            Ok(looked) => looked,
            Err(LookError::Redis(error)) => {
                self.agent.state.counters.read_failed(&error);
                self.redis_failed("read_failed", chain(&error));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let Some(known) = &mut self.known {
            (known.is_new, known.event) = (false, None);
        }
        self.certain = None;
        let was_held = self.newsroom.is_held();
        say(&self.newsroom.of_pass(&pass));
        if pass.held.is_some() && !was_held {
            self.agent.state.counters.guard_trips.inc();
        }
        self.carry_out(&mut pass, &snapshot, event).await;
        let pass = Arc::new(pass);
        self.last = Some(Arc::clone(&pass));
        self.agent.state.update(|view| {
            view.passed = Some((Timestamp::now(), occasion));
            view.pass = Some(pass);
        });
        self.begin_versions();
        Ok(())
    }
}

/// What came of a fetch.
struct Arrival {
    brought: Brought,
    asked: Instant,
    event: Option<Instant>,
}

/// Waits for the fetch on its way, for ever if there is none.
async fn arrival(fetch: &mut Option<Fetch>) -> Result<Arrival, JoinError> {
    let Some(Fetch { answer, asked, event }) = fetch else { return pending().await };
    let arrival = Arrival { brought: answer.await??, asked: *asked, event: *event };
    *fetch = None;
    Ok(arrival)
}

/// Waits for another value, for ever without a lease.
async fn changed<T>(value: &mut Option<watch::Receiver<T>>) {
    let Some(value) = value else { return pending().await };
    if value.changed().await.is_err() {
        // The lease ends with the agent only.
        pending::<()>().await;
    }
}

fn say(news: &[News]) {
    for line in news {
        match line {
            News::Info(text) => info!("{}", printable(text)),
            News::Warn(text) => warn!("{}", printable(text)),
        }
    }
}

/// `error` with all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
