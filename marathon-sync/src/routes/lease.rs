//! The lease in Redis that elects the one process that writes.
//!
//! Each process asks every third of the lease's time; a leader that is gone is replaced within a
//! time and a third. What is decided is in `election`. The lease alone would not do, because a
//! process can be frozen between looking at it and writing; so every write carries the token, and
//! its script compares it.

use std::sync::Arc;
use std::time::Duration;

use shared::store::{Client, Reply, StoreError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Routes;
use super::election::{Answer, Election};
use super::scripts;

pub use super::election::Standing;

/// How long the lease lasts when nobody renews it: short, because nothing is written until it has
/// run out; long beside the response timeout, so that one slow answer is no loss.
pub const TTL: Duration = Duration::from_secs(10);

/// What is wrong with a Redis that answers.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    /// It has no memory left. The lease and the lists are written all the same.
    #[error("{}; routes are still written", StoreError::Full)]
    Full,
    /// It does not give the lease, for this reason.
    #[error("Redis does not give the lease: {0}")]
    Refused(String),
}

impl Problem {
    fn of(error: &StoreError) -> Self {
        if error.is_scripts_refused() {
            let advice = "EVAL is not allowed, see docs/redis-schema.md";
            return Self::Refused(format!("{advice} ({})", error.detail()));
        }
        Self::Refused(error.detail())
    }
}

/// Our part in the election; ends with its shutdown token.
#[derive(Debug)]
pub struct Lease {
    standing: watch::Receiver<Standing>,
    /// When the lease ends that the standing stands for.
    until: watch::Receiver<Option<Instant>>,
    problem: watch::Receiver<Option<Problem>>,
    suspected: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Lease {
    /// Takes part in the election among the processes of `routes`' instance. `name` is for people
    /// and must be of this process alone, such as host and process id. When `shutdown` is
    /// cancelled, the lease is given back.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn start(routes: &Routes, name: &str, ttl: Duration, shutdown: &CancellationToken) -> Self {
        let (sender, standing) = watch::channel(Standing::Unknown);
        let (until_sender, until) = watch::channel(None);
        let (problem_sender, problem) = watch::channel(None);
        let suspected = Arc::new(Notify::new());
        // Two processes of the same name, as in containers, still differ.
        let name = format!("{name}/{:016x}", fastrand::u64(..));
        let election = Election::new(name, ttl, Instant::now());
        let task = Task {
            client: routes.client.clone(),
            instance: routes.instance.clone(),
            ttl,
            election,
            standing: sender,
            until: until_sender,
            problem: problem_sender,
            suspected: Arc::clone(&suspected),
        };
        let task = tokio::spawn(task.run(shutdown.clone()));
        Self { standing, until, problem, suspected, task }
    }

    /// Where this process stands now. A lease that has run out is none, also when this is asked before
    /// the election has noticed, as right after the process was stopped for a while.
    pub fn standing(&self) -> Standing {
        now_is(self.standing.borrow().clone(), *self.until.borrow(), Instant::now())
    }

    /// The token to write with, while this process leads.
    pub fn token(&self) -> Option<String> {
        match self.standing() {
            Standing::Leader { token, .. } => Some(token),
            Standing::Standby { .. } | Standing::Unknown => None,
        }
    }

    /// Tells of changes. A new term of a leader is one: then everything is to be compared again.
    pub fn subscribe(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// What is wrong with Redis although it answers. A standby does not learn that it is full.
    pub fn problem(&self) -> watch::Receiver<Option<Problem>> {
        self.problem.clone()
    }

    /// Says that a write was refused for want of the lease: Redis is asked at once.
    pub fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// Waits until the lease has been given back after the shutdown, at most `limit`.
    pub async fn ended(self, limit: Duration) {
        if tokio::time::timeout(limit, self.task).await.is_err() {
            warn!("could not give the lease back in time; it runs out by itself");
        }
    }
}

/// What is left at `now` of a standing that was published with a lease `until` then.
fn now_is(standing: Standing, until: Option<Instant>, now: Instant) -> Standing {
    match standing {
        Standing::Leader { .. } if until.is_some_and(|until| now >= until) => Standing::Unknown,
        standing => standing,
    }
}

struct Task {
    client: Client,
    instance: String,
    ttl: Duration,
    election: Election,
    standing: watch::Sender<Standing>,
    until: watch::Sender<Option<Instant>>,
    problem: watch::Sender<Option<Problem>>,
    suspected: Arc<Notify>,
}

impl Task {
    async fn run(mut self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(self.turn()).await.is_some() {}
        // Also when we only may hold it: the answer to the last question may never have come.
        let token = self.election.token();
        self.standing.send_replace(Standing::Unknown);
        let release = scripts::release(self.client.prefix(), &self.instance, &token);
        if let Err(error) = self.client.run(&release).await {
            info!(error = error.detail(), "the lease runs out by itself");
        }
    }

    async fn turn(&mut self) {
        tokio::select! {
            () = tokio::time::sleep_until(self.election.due()) => {}
            () = self.suspected.notified() => self.election.suspect(Instant::now()),
        }
        self.publish();
        let asked = Instant::now();
        let token = self.election.token();
        let take =
            scripts::take(self.client.prefix(), &self.instance, &token, self.ttl.as_millis());
        let limit = self.election.patience(asked);
        let answer = match tokio::time::timeout(limit, self.client.run(&take)).await {
            Ok(Ok(reply)) => {
                let (answer, problem) = taken(reply);
                self.report(problem);
                answer
            }
            // The connection logs it.
            Ok(Err(StoreError::Unavailable)) => {
                self.problem.send_if_modified(|problem| problem.take().is_some());
                Answer::Failed
            }
            Ok(Err(error)) => {
                self.report(Some(Problem::of(&error)));
                Answer::Failed
            }
            Err(_elapsed) => Answer::Failed,
        };
        self.election.answered(&token, asked, Instant::now(), answer);
        self.publish();
    }

    /// Logs each problem once, and its end.
    fn report(&self, problem: Option<Problem>) {
        self.problem.send_if_modified(|current| {
            if *current == problem {
                return false;
            }
            match (&problem, &current) {
                (Some(full @ Problem::Full), _) => warn!("{full}"),
                (Some(problem), _) => warn!("{problem}; trying again"),
                (None, Some(Problem::Full)) => info!("Redis is no longer full"),
                (None, _) => info!("Redis gives the lease again"),
            }
            *current = problem;
            true
        });
    }

    fn publish(&mut self) {
        let standing = self.election.standing(Instant::now());
        // Before the standing: whoever sees a new one sees its end.
        self.until.send_replace(self.election.until());
        self.standing.send_if_modified(|current| {
            if *current == standing {
                return false;
            }
            match &standing {
                Standing::Leader { token, term } => info!(token, term, "this process writes"),
                Standing::Standby { leader } => info!(leader, "another process writes"),
                Standing::Unknown => {
                    warn!("the lease was not renewed in time, nothing is written until it is");
                }
            }
            *current = standing;
            true
        });
    }
}

/// What the script says.
fn taken(reply: Reply) -> (Answer, Option<Problem>) {
    let (text, was_endless) = match reply {
        Reply::List(mut holder) => (holder.pop().and_then(Reply::into_text), true),
        other => (other.into_text(), false),
    };
    let holder = match text.as_deref() {
        Some(b"renewed") if !was_endless => return (Answer::Renewed, None),
        Some(b"taken") if !was_endless => return (Answer::Taken, None),
        Some(b"renewed full") if !was_endless => return (Answer::Renewed, Some(Problem::Full)),
        Some(b"taken full") if !was_endless => return (Answer::Taken, Some(Problem::Full)),
        Some(holder) => String::from_utf8_lossy(holder).into_owned(),
        None => return (Answer::Failed, None),
    };
    if was_endless {
        warn!(
            holder,
            "the lease had no end, as if set by hand; it ends now, unless its holder renews it"
        );
    }
    (Answer::HeldBy(holder), None)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Standing, now_is};

    #[test]
    fn a_lease_that_has_run_out_is_none_before_the_election_notices() {
        let now = Instant::now();
        let leader = Standing::Leader { token: "me".to_owned(), term: 1 };
        let standby = Standing::Standby { leader: "other".to_owned() };
        let later = now + Duration::from_secs(1);
        assert_eq!(now_is(leader.clone(), Some(later), now), leader);
        assert_eq!(now_is(leader.clone(), Some(now), now), Standing::Unknown);
        assert_eq!(now_is(leader, Some(now), later), Standing::Unknown);
        assert_eq!(now_is(standby.clone(), None, later), standby);
    }
}
