//! What all processes of one cluster share: the model, who leads, who listens to events.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::auth::Auth;
use super::dialect::Dialect;
use super::events::{self, Event};
use super::model::Cluster;

/// A Marathon process as the others see it.
#[derive(Clone, Debug)]
pub(super) struct Process {
    /// `host:port`.
    pub(super) authority: String,
    /// URL without a path at its end.
    pub(super) url: String,
    /// Whether it listens.
    pub(super) listens: bool,
    /// Whether its streams are silent: their clients miss what happens.
    pub(super) muted: bool,
}

/// A client of `/v2/events`.
#[derive(Debug)]
struct Subscriber {
    number: usize,
    /// The process that it is connected to.
    process: usize,
    sender: mpsc::Sender<Arc<Event>>,
    /// Types that it wants; none means all.
    filter: Vec<String>,
    closed: CancellationToken,
}

/// A subscription as its stream holds it.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) number: usize,
    pub(super) events: mpsc::Receiver<Arc<Event>>,
    /// Cancelled when the leader closes the stream.
    pub(super) closed: CancellationToken,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) cluster: Cluster,
    pub(super) auth: Auth,
    pub(super) processes: Vec<Process>,
    /// Which process leads.
    pub(super) leader: Option<usize>,
    /// Whether the leader still loads its state and answers nothing.
    pub(super) loading: bool,
    subscribers: Vec<Subscriber>,
    subscriptions: usize,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn new(dialect: Dialect, auth: Auth) -> Self {
        let state = State {
            cluster: Cluster::new(dialect),
            auth,
            processes: Vec::new(),
            leader: None,
            loading: false,
            subscribers: Vec::new(),
            subscriptions: 0,
        };
        Self { state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the model and sends the events of it.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Cluster) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state.cluster);
        state.deliver();
        result
    }

    /// Adds a process and returns its number; the first one leads.
    pub(super) fn join(&self, process: Process) -> usize {
        let mut state = self.state();
        state.processes.push(process);
        let number = state.processes.len() - 1;
        if number == 0 {
            state.leader = Some(0);
        }
        number
    }
}

impl State {
    /// Makes another process the leader, or none. Streams end, and what the old leader knew of
    /// health is lost.
    pub(super) fn elect(&mut self, leader: Option<usize>) {
        self.leader = leader;
        self.cluster.forget_health();
        self.close_streams();
    }

    /// The leader's `host:port`.
    pub(super) fn leader_authority(&self) -> Option<&str> {
        Some(&self.processes.get(self.leader?)?.authority)
    }

    /// Opens a stream and tells everybody, it included.
    pub(super) fn subscribe(
        &mut self,
        process: usize,
        filter: Vec<String>,
        remote: &str,
    ) -> Subscription {
        let (sender, events) = mpsc::channel(self.cluster.dialect.event_buffer());
        let closed = CancellationToken::new();
        self.subscriptions += 1;
        let number = self.subscriptions;
        self.subscribers.push(Subscriber {
            number,
            process,
            sender,
            filter,
            closed: closed.clone(),
        });
        self.cluster.heard = true;
        self.cluster.emit(|_, now| events::stream("event_stream_attached", remote, now));
        self.deliver();
        Subscription { number, events, closed }
    }

    /// Ends a stream and tells the others.
    pub(super) fn unsubscribe(&mut self, number: usize, remote: &str) {
        self.subscribers.retain(|one| one.number != number);
        self.cluster.emit(|_, now| events::stream("event_stream_detached", remote, now));
        self.deliver();
    }

    /// Streams that get the next event.
    pub(super) fn listeners(&self) -> usize {
        self.subscribers.len()
    }

    /// Ends every stream.
    pub(super) fn close_streams(&mut self) {
        for subscriber in self.subscribers.drain(..) {
            subscriber.closed.cancel();
        }
        self.deliver();
    }

    /// Sends what is in the outbox. Whoever reads too slowly loses events or the connection, as the
    /// dialect has it.
    pub(super) fn deliver(&mut self) {
        let closes_slow_readers = self.cluster.dialect.closes_slow_readers();
        for event in self.cluster.take_events().into_iter().map(Arc::new) {
            self.subscribers.retain(|one| {
                let muted = self.processes.get(one.process).is_some_and(|process| process.muted);
                if muted || !one.filter.is_empty() && !one.filter.contains(&event.kind) {
                    return true;
                }
                match one.sender.try_send(Arc::clone(&event)) {
                    Ok(()) => true,
                    Err(mpsc::error::TrySendError::Full(_)) if !closes_slow_readers => true,
                    Err(_) => {
                        one.closed.cancel();
                        false
                    }
                }
            });
        }
        self.cluster.heard = !self.subscribers.is_empty();
    }
}
