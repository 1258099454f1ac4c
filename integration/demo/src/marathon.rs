//! A fake Marathon: the API, the events and the moods of the versions from 0.8 to 1.9, over one
//! model of a cluster that a test changes step by step.
//!
//! ```no_run
//! use integration::marathon::{Check, Dialect, Fault, Health, Marathon, Route};
//!
//! let marathon = Marathon::start(Dialect::V1_9);
//! let web = marathon
//!     .app("/shop/web")
//!     .label("hipacheFrontend", "www.test")
//!     .check(Check::http("/health"))
//!     .running_at([("10.0.0.1", 31_000), ("10.0.0.2", 31_000)]);
//! let first = web.tasks().remove(0);
//! first.probe(Health::Sick);
//! marathon.fail(Route::Apps, Fault::page(503, "Service Unavailable"));
//! ```
//!
//! Nothing happens by itself: no task starts, no probe is made, no deployment goes on unless a
//! method says so. Only heartbeats of the event stream keep time. The server runs on a thread of its
//! own, so tests with a runtime, with a paused one, and without can use it alike.
//!
//! What lives where: `model` is the cluster, and `json` and `events` are how a `dialect` shows it;
//! `api` answers from it; `server` and `stream` bring answers and events to sockets, `faults` and
//! `auth` keep them from it. `apps` and `rollout` are what tests hold; `control` is the same for
//! programs that have only HTTP.

mod api;
mod apps;
mod auth;
mod builder;
mod control;
mod dialect;
mod events;
mod faults;
mod http;
mod json;
mod model;
mod node;
mod rollout;
mod selector;
mod server;
mod shared;
mod stream;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::eventually::{DEADLINE, eventually};
use crate::ports::Reserved;

use node::{Node, Settings};
use server::Serving;
use shared::{Process, Shared};
use tls::Tls;

pub use apps::{AppBuilder, AppRef, TaskRef};
pub use auth::{Auth, Dcos, LOGIN_PATH, ServiceAccount};
pub use builder::Builder;
pub use dialect::Dialect;
pub use events::Event;
pub use faults::{Fault, Route};
pub use http::{Answer, Request};
pub use model::{
    App, Check, Clock, Cluster, Deployment, Health, HealthResult, HostPort, Network, Overlay,
    Place, Port, Protocol, Stamp, State, Task,
};
pub use node::Counters;
pub use rollout::{RollOut, Step};
pub use stream::EventMode;

/// A Marathon process, which listens until the value is dropped. All processes of a cluster change
/// the same apps.
pub struct Marathon {
    node: Arc<Node>,
    port: Reserved,
    serving: Mutex<Option<Serving>>,
}

impl Marathon {
    /// A cluster of one process that speaks this dialect.
    pub fn start(dialect: Dialect) -> Self {
        Self::builder(dialect).start()
    }

    /// The same with more to say about it.
    pub fn builder(dialect: Dialect) -> Builder {
        Builder::new(dialect)
    }

    /// Starts another process of the same cluster: a standby, until it is [elected](Self::elect).
    pub fn join(&self) -> Self {
        let shared = Arc::clone(&self.node.shared);
        let tls = self.node.tls.clone();
        Self::launch(shared, Reserved::new(), &self.node.base, tls, self.node.controlled)
    }

    fn launch(
        shared: Arc<Shared>,
        port: Reserved,
        base: &str,
        tls: Option<Tls>,
        controlled: bool,
    ) -> Self {
        let authority = port.addr().to_string();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{authority}");
        let number = shared.join(Process { authority, url, listens: false, muted: false });
        let node = Arc::new(Node::new(shared, number, base.to_owned(), tls, controlled));
        let marathon = Self { node, port, serving: Mutex::default() };
        marathon.listen();
        marathon
    }

    // --- where it is ---

    /// Its URL with the base path, without `/` at the end.
    pub fn url(&self) -> String {
        format!("{}{}", self.origin(), self.node.base)
    }

    /// Its URL without a path.
    pub fn origin(&self) -> String {
        let scheme = if self.node.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.addr())
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// The certificate, in PEM, that its clients have to trust; `None` without TLS.
    pub fn authority(&self) -> Option<&str> {
        self.node.tls.as_ref().map(|tls| tls.authority.as_str())
    }

    // --- the process ---

    /// Refuses connections from now on and ends those that are open, as a process that is gone.
    pub fn kill(&self) {
        self.mark_listening(false);
        drop(self.serving.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Listens again at the same address.
    pub fn listen(&self) {
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if serving.is_none() {
            *serving = Some(Serving::start(self.port.listen(), Arc::clone(&self.node)));
            self.mark_listening(true);
        }
    }

    fn mark_listening(&self, listens: bool) {
        if let Some(own) = self.node.shared.state().processes.get_mut(self.node.number) {
            own.listens = listens;
        }
    }

    /// Makes this process the leader: streams end, and health results are lost.
    pub fn elect(&self) {
        self.node.shared.state().elect(Some(self.node.number));
    }

    /// Leaves the cluster without a leader: streams end, and health results are lost.
    pub fn abdicate(&self) {
        self.node.shared.state().elect(None);
    }

    /// Whether the leader still loads its state, and so answers 503 from 0.9 on.
    pub fn loading(&self, loading: bool) {
        self.node.shared.state().loading = loading;
    }

    // --- the cluster ---

    /// Describes an app, which is deployed by the last method of the chain.
    pub fn app(&self, id: &str) -> AppBuilder {
        AppBuilder::new(&self.node.shared, id)
    }

    /// The app of that id, whether it is there or not.
    pub fn find(&self, id: &str) -> AppRef {
        AppRef::new(&self.node.shared, id)
    }

    /// The task of that id, whether it is there or not.
    pub fn task(&self, id: &str) -> TaskRef {
        TaskRef::new(&self.node.shared, id)
    }

    /// Every task, in the order of apps and of launching.
    pub fn tasks(&self) -> Vec<TaskRef> {
        let ids = self.look(|cluster| cluster.task_ids(|_| true));
        ids.iter().map(|id| self.task(id)).collect()
    }

    /// Looks at the model.
    pub fn look<T>(&self, look: impl FnOnce(&Cluster) -> T) -> T {
        look(&self.node.shared.state().cluster)
    }

    /// Changes the model; what it has events for is sent.
    pub fn change<T>(&self, change: impl FnOnce(&mut Cluster) -> T) -> T {
        self.node.shared.change(change)
    }

    /// Runs another version from now on: what is shown changes, ids of tasks stay.
    pub fn upgrade(&self, dialect: Dialect) {
        self.change(|cluster| cluster.dialect = dialect);
    }

    /// One round of probes of every running task, all of them successful: what a new leader does in
    /// its first minute.
    pub fn probe_all(&self) {
        for task in self.tasks() {
            task.probe(Health::Healthy);
        }
    }

    /// The agent is lost: all its tasks become unreachable.
    pub fn lose_agent(&self, host: &str) {
        self.move_agent(host, State::Unreachable);
    }

    /// The agent has been lost for `inactiveAfterSeconds`: its tasks have no ports any more.
    pub fn give_agent_up(&self, host: &str) {
        self.move_agent(host, State::UnreachableInactive);
    }

    /// The agent is back: its tasks run as before, under the same ids.
    pub fn return_agent(&self, host: &str) {
        self.move_agent(host, State::Running);
    }

    fn move_agent(&self, host: &str, state: State) {
        self.change(|cluster| cluster.move_agent(host, state));
    }

    // --- faults ---

    /// Answers requests of this route so, until [`heal`](Self::heal).
    pub fn fail(&self, route: Route, fault: Fault) {
        self.settings(|settings| settings.faults.set(route, fault, None));
    }

    /// Answers the next requests of this route so.
    pub fn fail_times(&self, route: Route, times: usize, fault: Fault) {
        self.settings(|settings| settings.faults.set(route, fault, Some(times)));
    }

    /// Answers every request so.
    pub fn fail_all(&self, fault: &Fault) {
        for route in Route::ALL {
            self.fail(route, fault.clone());
        }
    }

    /// Takes the fault of a route back; whoever waits is answered.
    pub fn heal(&self, route: Route) {
        self.settings(|settings| settings.faults.clear(route));
    }

    /// Takes every fault back.
    pub fn heal_all(&self) {
        for route in Route::ALL {
            self.heal(route);
        }
    }

    /// Makes every token that the login gave worthless.
    pub fn revoke_tokens(&self) {
        if let Auth::Dcos(dcos) = &mut self.node.shared.state().auth {
            dcos.revoke();
        }
    }

    // --- events ---

    /// Sends an event that no change stands for, with any fields.
    pub fn emit(&self, kind: &str, fields: Value) {
        self.change(|cluster| cluster.emit(|_, now| Event::new(kind, fields, now)));
    }

    /// Sends a `deployment_info` of at least so many bytes.
    pub fn emit_huge(&self, bytes: usize) {
        let plan = serde_json::json!({"id": "huge", "padding": "x".repeat(bytes)});
        self.emit("deployment_info", serde_json::json!({"plan": plan, "currentStep": null}));
    }

    /// How events are sent from now on.
    pub fn events(&self, mode: EventMode) {
        if let Some(own) = self.node.shared.state().processes.get_mut(self.node.number) {
            own.muted = mode == EventMode::Silent;
        }
        self.settings(|settings| settings.events = mode);
    }

    /// Sends clients of events to another URL, whatever the role; `None` ends that.
    pub fn redirect_events(&self, url: Option<&str>) {
        self.settings(|settings| settings.events_elsewhere = url.map(str::to_owned));
    }

    /// Ends all streams of events, as a leader does that is one no longer.
    pub fn close_events(&self) {
        self.node.shared.state().close_streams();
    }

    /// Sends heartbeats so often instead of every 10 s, with a pause between their two bytes.
    pub fn heartbeat(&self, period: Duration, gap: Duration) {
        self.settings(|settings| {
            (settings.heartbeat, settings.heartbeat_gap) = (period, gap);
        });
    }

    /// Sends one heartbeat now.
    pub fn beat(&self) {
        self.settings(|settings| settings.beats += 1);
    }

    // --- what it was asked ---

    /// What it was asked up to now.
    pub fn counters(&self) -> Counters {
        self.node.counters().clone()
    }

    /// How many requests of a route came so far.
    pub fn requests(&self, route: Route) -> usize {
        self.node.counters().requests(route)
    }

    /// Clients of events that are connected to this process.
    pub fn event_clients(&self) -> usize {
        self.node.counters().running(Route::Events)
    }

    /// Streams of events in the cluster that will get the next event.
    pub fn listeners(&self) -> usize {
        self.node.shared.state().listeners()
    }

    /// Blocks until that many requests of a route came.
    #[track_caller]
    pub fn wait_for_requests(&self, route: Route, count: usize) {
        eventually(DEADLINE, &format!("{count} requests of {route:?}"), || {
            self.requests(route) >= count
        });
    }

    /// Blocks until exactly that many streams get the next event.
    #[track_caller]
    pub fn wait_for_listeners(&self, count: usize) {
        eventually(DEADLINE, &format!("{count} streams of events"), || self.listeners() == count);
    }

    fn settings(&self, change: impl FnOnce(&mut Settings)) {
        self.node.settings.send_modify(change);
    }
}

impl fmt::Debug for Marathon {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Marathon").field("url", &self.url()).finish_non_exhaustive()
    }
}
