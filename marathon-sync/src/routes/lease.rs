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

/// Our part in the election; ends with its shutdown token.
#[derive(Debug)]
pub struct Lease {
    standing: watch::Receiver<Standing>,
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
            suspected: Arc::clone(&suspected),
            reported: None,
        };
        let task = tokio::spawn(task.run(shutdown.clone()));
        Self { standing, suspected, task }
    }

    /// Where this process stands now.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// The token to write with, while this process leads.
    pub fn token(&self) -> Option<String> {
        match &*self.standing.borrow() {
            Standing::Leader { token, .. } => Some(token.clone()),
            Standing::Standby { .. } | Standing::Unknown => None,
        }
    }

    /// Tells of changes. A new term of a leader is one: then everything is to be compared again.
    pub fn subscribe(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
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

struct Task {
    client: Client,
    instance: String,
    ttl: Duration,
    election: Election,
    standing: watch::Sender<Standing>,
    suspected: Arc<Notify>,
    /// The last error that was logged.
    reported: Option<String>,
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
            Ok(Ok(reply)) => taken(reply),
            Ok(Err(error)) => self.failed(&error),
            Err(_elapsed) => Answer::Failed,
        };
        if answer != Answer::Failed {
            self.reported = None;
        }
        self.election.answered(&token, asked, Instant::now(), answer);
        self.publish();
    }

    /// Says each trouble once. That Redis is away is said by the connection.
    fn failed(&mut self, error: &StoreError) -> Answer {
        let detail = error.detail();
        if !matches!(error, StoreError::Unavailable) && self.reported.as_ref() != Some(&detail) {
            let advice = if error.is_scripts_refused() {
                "this Redis does not allow EVAL to us, see docs/redis-schema.md"
            } else {
                "trying again"
            };
            warn!(error = detail, "cannot take the lease: {advice}");
            self.reported = Some(detail);
        }
        Answer::Failed
    }

    fn publish(&mut self) {
        let standing = self.election.standing(Instant::now());
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
fn taken(reply: Reply) -> Answer {
    let (text, was_endless) = match reply {
        Reply::List(mut holder) => (holder.pop().and_then(Reply::into_text), true),
        other => (other.into_text(), false),
    };
    let holder = match text.as_deref() {
        Some(b"renewed") if !was_endless => return Answer::Renewed,
        Some(b"taken") if !was_endless => return Answer::Taken,
        Some(holder) => String::from_utf8_lossy(holder).into_owned(),
        None => return Answer::Failed,
    };
    if was_endless {
        warn!(
            holder,
            "the lease had no end, as if set by hand; it ends now, unless its holder renews it"
        );
    }
    Answer::HeldBy(holder)
}
