//! One pass and no more, for the command line.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use shared::store::Outage;
use tokio_util::sync::CancellationToken;

use super::look::{LookError, Looker};
use super::{Agent, chain, own_name, say};
use crate::document::{Answer, DocumentError, parse};
use crate::marathon::client::FetchError;
use crate::pass::{Occasion, Pass};
use crate::routes::lease::{Lease, Standing, TTL};
use crate::routes::snapshot::Snapshot;
use crate::rules::Seen;

use super::news::{self, Newsroom};
use super::versions;

/// How long Redis may take to be there.
const REDIS_PATIENCE: Duration = Duration::from_secs(5);
/// A lease that nobody renews ends within its time; one that somebody renews is somebody's.
const LEASE_PATIENCE: Duration = Duration::from_secs(15);

/// Marathon and Redis, looked at once.
#[derive(Debug)]
pub struct Looked {
    /// Marathon's answer.
    pub answer: Arc<Answer>,
    /// What follows from it.
    pub pass: Pass,
    /// What stands in Redis.
    pub snapshot: Snapshot,
}

/// Why one pass failed.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// Marathon's answer is none.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// No answer.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A signal.
    #[error("interrupted")]
    Interrupted,
    /// Redis, or a panic.
    #[error(transparent)]
    Look(#[from] LookError),
    /// Another process of the instance writes.
    #[error("{0} keeps the lists of this instance already; end it, or choose another --instance")]
    Held(String),
    /// Redis does not let us.
    #[error("Redis did not give the right to write within {LEASE_PATIENCE:?}{0}")]
    NoLease(String),
    /// Redis is away.
    #[error("{0}")]
    NoRedis(Outage),
    /// Lists that could not be written.
    #[error("{count} lists could not be written, {host} first: {problem}")]
    Write {
        /// How many.
        count: usize,
        /// The first.
        host: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Agent {
    /// Looks at both sides and writes nothing.
    ///
    /// # Errors
    ///
    /// [`OnceError`].
    pub async fn look(&self) -> Result<Looked, OnceError> {
        let fetched = self.client.fetch_apps().await?;
        if !self.redis.wait_until_up(REDIS_PATIENCE).await {
            return Err(OnceError::NoRedis(self.redis.outage()));
        }
        let answer = self.compute.run(move || parse(&fetched.body)).await;
        let answer = answer.map_err(LookError::from)??;
        let answer = Arc::new(answer);
        let mut looker = Looker::new(&self.routes, &self.config, Arc::clone(&self.compute));
        let seen = Seen::default();
        let (pass, snapshot) = looker.look(&answer, &seen, Occasion::Answer).await?;
        let wanted: Vec<_> = versions::unknown(&pass).collect();
        if wanted.is_empty() {
            return Ok(Looked { answer, pass, snapshot });
        }
        let definitions = versions::fetch(&self.client, &self.compute, wanted).await;
        looker.learn_versions(definitions.map_err(LookError::from)?.found);
        let (pass, snapshot) = looker.look(&answer, &seen, Occasion::Again).await?;
        Ok(Looked { answer, pass, snapshot })
    }

    /// `--once`: writes, or prints in a dry run. Returns whether nothing was left undone: held back
    /// by the guard, or not to be read.
    ///
    /// # Errors
    ///
    /// [`OnceError`].
    pub async fn once(&self, shutdown: &CancellationToken) -> Result<bool, OnceError> {
        if self.config.dry_run {
            let Looked { answer, pass, .. } = self.look().await?;
            say(&Newsroom::default().of_pass(&pass));
            let changes = pass.difference.changes.iter();
            print(&changes.flat_map(|change| self.routes.render(change)).collect::<Vec<_>>());
            return Ok(is_whole(&answer, &pass));
        }
        if !self.redis.wait_until_up(REDIS_PATIENCE).await {
            return Err(OnceError::NoRedis(self.redis.outage()));
        }
        let release = shutdown.child_token();
        let lease = Lease::start(&self.routes, &own_name(), TTL, &release);
        let result = shutdown.run_until_cancelled(self.once_with(&lease)).await;
        release.cancel();
        lease.ended(super::RELEASE_LIMIT).await;
        result.unwrap_or(Err(OnceError::Interrupted))
    }

    async fn once_with(&self, lease: &Lease) -> Result<bool, OnceError> {
        let token = lead(lease).await?;
        let Looked { answer, mut pass, .. } = self.look().await?;
        say(&Newsroom::default().of_pass(&pass));
        let changes = std::mem::take(&mut pass.difference.changes);
        let applied = self.routes.apply(&pass.plan, changes, &token).await;
        say(&news::of_changes(&applied.written));
        match applied.failed.iter().next() {
            None => Ok(is_whole(&answer, &pass)),
            Some((host, error)) => Err(OnceError::Write {
                count: applied.failed.len(),
                host: host.clone(),
                problem: chain(error),
            }),
        }
    }
}

/// Waits until we may write.
async fn lead(lease: &Lease) -> Result<String, OnceError> {
    let mut standing = lease.subscribe();
    let leads = |standing: &Standing| matches!(standing, Standing::Leader { .. });
    let waited = tokio::time::timeout(LEASE_PATIENCE, standing.wait_for(leads)).await;
    if matches!(waited, Ok(Ok(_)))
        && let Some(token) = lease.token()
    {
        return Ok(token);
    }
    Err(match lease.standing() {
        Standing::Standby { leader } => OnceError::Held(leader),
        Standing::Leader { .. } | Standing::Unknown => {
            let problem = lease.problem().borrow().clone();
            let because = problem.map(|problem| format!(": {problem}")).unwrap_or_default();
            OnceError::NoLease(because)
        }
    })
}

fn is_whole(answer: &Answer, pass: &Pass) -> bool {
    pass.held.is_none()
        && answer.nameless == 0
        && pass.difference.problems.is_empty()
        && pass.apps.values().all(|app| app.state.doubt().is_none())
}

/// Prints lines; returns whether somebody took them.
pub(super) fn print(lines: &[String]) -> bool {
    let mut text = lines.join("\n");
    if !lines.is_empty() {
        text.push('\n');
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_ok()
}
