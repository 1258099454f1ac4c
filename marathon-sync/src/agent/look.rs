//! A pass with its I/O: reads Redis between the two halves, and keeps long computations away from
//! the thread that renews the lease.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use shared::driver::Driver;
use shared::store::{Client, StoreConfig};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::compute::Compute;
use super::running_time::RunningTime;
use crate::config::Config;
use crate::document::{Answer, App};
use crate::guard::Limits;
use crate::pass::narrow::{self, Basis, Found, Shown};
use crate::pass::{Occasion, Pass, State, conclude, restore};
use crate::plan::Plan;
use crate::routes::Routes;
use crate::routes::snapshot::{RoutesError, Snapshot};
use crate::rules::desired::narrow::Narrow;
use crate::rules::{Options, Seen, desired};

/// Limit for connecting to Redis.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit for one answer of Redis, which may be that to a hundred scripts.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no pass.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// A computation panicked, which is a mistake in this program: what it knew is lost.
    #[error("a computation panicked; please report this")]
    Panicked(#[from] JoinError),
    /// Redis.
    #[error(transparent)]
    Redis(#[from] RoutesError),
}

/// Starts to connect to Redis.
pub fn connect(driver: &Driver, shutdown: &CancellationToken) -> Client {
    let config = StoreConfig {
        drivers: vec![driver.clone()],
        connect_timeout: CONNECT_TIMEOUT,
        response_timeout: RESPONSE_TIMEOUT,
    };
    Client::start(&config, shutdown)
}

/// Makes passes, one after the other.
#[derive(Debug)]
pub struct Looker {
    routes: Routes,
    options: Arc<Options>,
    compute: Arc<Compute>,
    /// What goes on from pass to pass; away while it is being computed with.
    state: Option<State>,
    is_restored: bool,
    clock: RunningTime,
}

impl Looker {
    /// Knows nothing yet; its first pass asks Redis what was there.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn new(routes: &Routes, config: &Config, compute: Arc<Compute>) -> Self {
        Self {
            routes: routes.clone(),
            options: Arc::new(config.rules.clone()),
            compute,
            state: Some(State::new(config.limits)),
            is_restored: false,
            clock: RunningTime::start(),
        }
    }

    /// One pass over `answer`. A pass that failed on Redis is to be repeated with the same
    /// `occasion`.
    ///
    /// # Errors
    ///
    /// [`LookError`].
    pub async fn look(
        &mut self,
        answer: &Arc<Answer>,
        seen: &Seen,
        occasion: Occasion,
    ) -> Result<(Pass, Snapshot), LookError> {
        if !self.is_restored {
            let snapshot = self.routes.snapshot(&Plan::new()).await?;
            if let Some(state) = &mut self.state {
                restore(state, &snapshot);
            }
            self.is_restored = true;
        }
        let (answer, options) = (Arc::clone(answer), Arc::clone(&self.options));
        let seen = seen.clone();
        let mut state = self.take();
        let wish = move || {
            let wish = desired(&answer, &mut state.memory, &options, &seen, Timestamp::now());
            (state, wish)
        };
        let (state, wish) = self.compute.run(wish).await?;
        self.state = Some(state);
        let snapshot = self.routes.snapshot(&wish.plan).await?;
        let (clock, lost) = self.clock.read();
        let mut state = self.take();
        let conclude = move || {
            let mut pass = conclude(wish, &mut state, &snapshot, occasion, clock);
            if let Some(held) = &mut pass.held {
                // Shown on the clock of everybody else.
                held.until = held.until.saturating_add(lost);
            }
            (state, pass, snapshot)
        };
        let (state, pass, snapshot) = self.compute.run(conclude).await?;
        self.state = Some(state);
        Ok((pass, snapshot))
    }

    /// Looks at single apps; see [`narrow::judge`].
    pub fn narrow(
        &mut self,
        shown: Vec<Shown>,
        answer: &mut Arc<Answer>,
        last: &Pass,
        seen: &Seen,
    ) -> Found {
        let Some(state) = &mut self.state else { return Found::default() };
        let basis = Basis { last, options: &self.options, seen, now: Timestamp::now() };
        narrow::judge(shown, answer, &mut state.memory, basis)
    }

    /// Takes in definitions of earlier versions.
    pub fn learn_versions(&mut self, definitions: Vec<App>) {
        let Some(state) = &mut self.state else { return };
        for definition in definitions {
            state.memory.learn_version(definition);
        }
    }

    /// Makes `last` show what became of single apps, and remembers it.
    pub fn absorb(&mut self, last: &mut Pass, found: Vec<Narrow>) {
        if let Some(state) = &mut self.state {
            narrow::absorb(last, &mut state.listed, found);
        }
    }

    /// Only a panic leaves nothing behind, and ends the process.
    fn take(&mut self) -> State {
        self.state.take().unwrap_or_else(|| State::new(Limits::default()))
    }
}
