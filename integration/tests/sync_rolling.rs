//! A rolling deployment of twenty tasks under load, through everything: fake Marathon, marathon-sync,
//! Redis, router, backends that refuse as soon as they are killed. No request may fail.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use integration::backend::Backend;
use integration::client::Client;
use integration::eventually::{DEADLINE, eventually};
use integration::marathon::{Check, Dialect, Marathon, RollOut, Step};
use integration::redis::Redis;
use integration::router::Router;
use integration::sync::MarathonSync;

const TASKS: usize = 20;
const REQUESTS: usize = 10_000;
const CLIENTS: usize = 4;
const HOST: &str = "www.test";
/// For a number of requests on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn no_request_fails_while_twenty_tasks_are_replaced_with_task_killing() {
    roll_out(true);
}

/// Nothing tells in time here that a task ends: the router's second try is what helps.
#[test]
fn no_request_fails_while_twenty_tasks_are_replaced_without_task_killing() {
    roll_out(false);
}

fn start(name: &str) -> Vec<Backend> {
    (0..TASKS).map(|number| Backend::start(&format!("{name}{number}"))).collect()
}

fn is_listed(redis: &Redis, backend: &Backend) -> bool {
    let rows: Vec<String> = redis.query(&["LRANGE", &format!("frontend:{HOST}"), "0", "-1"]);
    rows.contains(&backend.url())
}

fn roll_out(has_killing: bool) {
    let (old, new) = (start("old"), start("new"));
    let redis = Redis::start();
    let marathon = Marathon::start(Dialect::V1_9);
    let app = marathon.app("/web").label("hipacheFrontend", HOST).check(Check::http("/"));
    let app = app.running_at(&old);
    let sync = MarathonSync::start(&marathon, &redis);
    eventually(DEADLINE, "all are listed", || old.iter().all(|one| is_listed(&redis, one)));
    marathon.wait_for_listeners(1);
    sync.wait_for_log(&["events from Marathon arrive"]);
    let router = Router::tracking(&redis);
    let load = Load::default();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load.run(&router));
        }
        // Also when something below panics: the scope waits for the clients.
        let _stop = Stop(&load);
        let mut rollout = app.roll_out(&new, |_| {});
        if !has_killing {
            rollout = rollout.without_killing();
        }
        for (old, new) in old.iter().zip(&new) {
            replace(&mut rollout, &redis, (old, new), has_killing, &load);
        }
        assert!(matches!(rollout.step(), Some(Step::Finished)));
        eventually(LONG, "enough requests", || load.sent() >= REQUESTS);
    });
    let failed = load.failed.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), load.sent(), failed.first());
    assert!(load.sent() >= REQUESTS);
    let rows: Vec<String> = redis.query(&["LRANGE", &format!("frontend:{HOST}"), "1", "-1"]);
    assert_eq!(rows, new.iter().map(Backend::url).collect::<Vec<_>>());
    assert!(new.iter().all(|backend| backend.request_count() > 0));
}

/// One task starts, one ends.
fn replace(
    rollout: &mut RollOut,
    redis: &Redis,
    (old, new): (&Backend, &Backend),
    has_killing: bool,
    load: &Load,
) {
    for _ in 0..4 {
        assert!(rollout.step().is_some());
    }
    eventually(DEADLINE, "the new one is listed", || is_listed(redis, new));
    load.wait_for(REQUESTS / TASKS / 2);
    if has_killing {
        assert!(matches!(rollout.step(), Some(Step::Killing(_))));
        eventually(DEADLINE, "what is being killed is not listed", || !is_listed(redis, old));
    }
    old.kill();
    load.wait_for(REQUESTS / TASKS / 2);
    assert!(matches!(rollout.step(), Some(Step::Gone(_))));
    eventually(DEADLINE, "what is gone is not listed", || !is_listed(redis, old));
}

#[derive(Debug, Default)]
struct Load {
    ends: AtomicBool,
    sent: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Load {
    fn run(&self, router: &Router) {
        let mut client = Client::connect(router.addr());
        while !self.ends.load(Ordering::SeqCst) {
            let response = client.get(HOST, "/");
            if response.status() != 200 {
                let text = format!("{:?}", response.head);
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                client = Client::connect(router.addr());
            }
            self.sent.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    /// Until so many more requests were answered.
    fn wait_for(&self, more: usize) {
        let wanted = self.sent() + more;
        eventually(LONG, "requests are answered", || self.sent() >= wanted);
    }
}

struct Stop<'a>(&'a Load);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.ends.store(true, Ordering::SeqCst);
    }
}
