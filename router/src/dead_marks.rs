//! Dead marks on their way to Redis: queued by the workers, written by one task of the control
//! thread, so that no request ever waits for them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shared::store::{Mark, Marked, Store};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::route::{Millis, Route, millis};
use crate::table::Table;

/// Marks that may wait: each stands for one failed request.
const QUEUE: usize = 1024;
/// How often it is looked whether an external checker is at work, besides at every mark.
const CHECKER_POLL: Duration = Duration::from_secs(10);
/// While a checker is at work the same failure is announced once in this time: it acts on the
/// first announcement, and a flood of them would only slow Redis.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(1);

/// Why a backend is marked dead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reason {
    /// No connection, and what the system said.
    Connect(Box<str>),
    /// A status that says so.
    Status(u16),
    /// Silence.
    TimedOut,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(cause) => f.write_str(cause),
            Self::Status(status) => write!(f, "it answered {status}"),
            Self::TimedOut => f.write_str("it did not answer in time"),
        }
    }
}

/// One failure to be written down.
#[derive(Debug)]
struct Failure {
    route: Arc<Route>,
    position: usize,
    reason: Reason,
    ttl: Duration,
    /// Counts only if an external checker is at work (`deadBackendOn500`).
    needs_checker: bool,
}

/// The workers' end of the queue.
#[derive(Clone, Debug)]
pub struct DeadMarks {
    queue: mpsc::Sender<Failure>,
    checker_is_alive: Arc<AtomicBool>,
    clock: Arc<Clock>,
}

/// The control thread's end of the queue.
#[derive(Debug)]
pub struct Writer {
    queue: mpsc::Receiver<Failure>,
    checker_is_alive: Arc<AtomicBool>,
    clock: Arc<Clock>,
}

/// Makes the two ends.
pub fn channel(clock: &Arc<Clock>) -> (DeadMarks, Writer) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let checker_is_alive = Arc::new(AtomicBool::new(false));
    let marks = DeadMarks {
        queue: sender,
        checker_is_alive: Arc::clone(&checker_is_alive),
        clock: Arc::clone(clock),
    };
    (marks, Writer { queue: receiver, checker_is_alive, clock: Arc::clone(clock) })
}

impl DeadMarks {
    /// Marks the backend at `position` dead for `ttl`, here at once and in Redis soon. A backend
    /// that is alone is never marked (hipache-contract 1).
    pub fn mark(&self, route: &Arc<Route>, position: usize, ttl: Duration, reason: Reason) {
        if route.frontend().is_none_or(|frontend| frontend.backends.len() < 2) {
            return;
        }
        // While a checker is at work the dead set is its business alone.
        if !self.checker_is_alive.load(Ordering::Relaxed) {
            let now = self.clock.now();
            if !route.mark_dead(position, now, now.saturating_add(millis(ttl))) {
                return;
            }
        }
        self.send(Failure {
            route: Arc::clone(route),
            position,
            reason,
            ttl,
            needs_checker: false,
        });
    }

    /// Announces an answer 500, which counts only while an external checker is at work.
    pub fn announce_500(&self, route: &Arc<Route>, position: usize, ttl: Duration) {
        if route.frontend().is_some_and(|frontend| frontend.backends.len() > 1) {
            let reason = Reason::Status(500);
            let route = Arc::clone(route);
            self.send(Failure { route, position, reason, ttl, needs_checker: true });
        }
    }

    fn send(&self, failure: Failure) {
        if self.queue.try_send(failure).is_err() {
            debug!("dead mark not written: too many are waiting");
        }
    }
}

impl Writer {
    /// Writes marks until the workers are gone.
    pub async fn run(mut self, store: Store, table: Arc<Table>) {
        let mut announced: HashMap<(Box<str>, usize), Millis> = HashMap::new();
        // Whether there is a checker should be known before the first mark.
        let _is_up = store.wait_until_up(CHECKER_POLL).await;
        let mut poll = tokio::time::interval(CHECKER_POLL);
        let mut write_fails = false;
        loop {
            let failure = tokio::select! {
                failure = self.queue.recv() => failure,
                _ = poll.tick() => {
                    self.look_for_checker(&store).await;
                    continue;
                }
            };
            let Some(failure) = failure else { return };
            if !self.is_due(&failure, &mut announced) {
                continue;
            }
            if failure.needs_checker && !self.look_for_checker(&store).await {
                continue;
            }
            let Some(url) = failure.route.backend(failure.position) else {
                continue;
            };
            let (Some(frontend), Some(row)) =
                (failure.route.frontend(), failure.route.row(failure.position))
            else {
                continue;
            };
            let mark = Mark {
                frontend: frontend.name.to_string(),
                row: row.to_vec(),
                host: failure.route.host.to_string(),
                url: url.href.to_string(),
                position: failure.position,
                count: frontend.backends.len(),
                ttl: failure.ttl,
            };
            warn!(
                host = %mark.host, backend.url = %mark.url, backend.position = mark.position,
                reason = %failure.reason, "backend marked dead"
            );
            match store.mark_dead(&mark).await {
                Ok(marked) => {
                    let until = self.clock.now().saturating_add(millis(mark.ttl_in_redis()));
                    let until = matches!(marked, Marked::At(_)).then_some(until);
                    match marked {
                        Marked::At(_) => self.note_checker(false),
                        Marked::LeftToChecker => self.note_checker(true),
                        // Says nothing about a checker.
                        Marked::Gone => {}
                    }
                    for route in current_and_own(&table, &failure.route) {
                        match marked {
                            Marked::LeftToChecker => {
                                route.withdraw(&failure.route, failure.position);
                            }
                            // Elsewhere in a newer list, or gone from it: the next look-up tells.
                            Marked::At(_) | Marked::Gone => {
                                route.confirm(&failure.route, failure.position, until);
                            }
                        }
                    }
                    if write_fails {
                        info!("dead marks reach Redis again");
                    }
                    write_fails = false;
                }
                Err(error) if !write_fails => {
                    write_fails = true;
                    warn!(
                        %error,
                        "cannot write dead marks to Redis: they count in this process only"
                    );
                }
                Err(_) => {}
            }
        }
    }

    /// Whether a failure is news. Without a checker our own mark sees to that already.
    fn is_due(
        &self,
        failure: &Failure,
        announced: &mut HashMap<(Box<str>, usize), Millis>,
    ) -> bool {
        if !failure.needs_checker && !self.checker_is_alive.load(Ordering::Relaxed) {
            return true;
        }
        let now = self.clock.now();
        announced.retain(|_, until| *until > now);
        let key = (failure.route.host.clone(), failure.position);
        let until = now.saturating_add(millis(ANNOUNCE_AGAIN));
        announced.insert(key, until).is_none()
    }

    async fn look_for_checker(&self, store: &Store) -> bool {
        // While Redis is away nothing is known; the last answer stands.
        if let Ok(is_alive) = store.checker_is_alive().await {
            self.note_checker(is_alive);
        }
        self.checker_is_alive.load(Ordering::Relaxed)
    }

    fn note_checker(&self, is_alive: bool) {
        if self.checker_is_alive.swap(is_alive, Ordering::Relaxed) != is_alive {
            match is_alive {
                true => info!("an external health checker is at work: dead sets are left to it"),
                false => info!("no external health checker is at work: dead sets are written here"),
            }
        }
    }
}

/// The route that failed, and the one that has taken its place since.
fn current_and_own(table: &Table, route: &Arc<Route>) -> impl Iterator<Item = Arc<Route>> {
    let current = table.last_known(&route.host).filter(|current| !Arc::ptr_eq(current, route));
    std::iter::once(Arc::clone(route)).chain(current)
}
