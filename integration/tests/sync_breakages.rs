//! What broke other agents between Marathon and a load balancer, and the bugs of the
//! Marathon-Hipache bridge, as far as sockets, processes and Redis take part; each by its number. The
//! others are in `marathon-sync/tests/rules`.

#![allow(clippy::unwrap_used, reason = "a test, also in its helpers")]

use integration::eventually::{DEADLINE, wait_for};
use integration::marathon::{AppRef, Check, Dialect, Marathon};
use integration::redis::Redis;
use integration::sync::MarathonSync;

mod breakages;
mod bridge_bugs;
mod numbers;

const HOST: &str = "www.test";

fn rows(redis: &Redis, host: &str) -> Vec<String> {
    redis.query(&["LRANGE", &format!("frontend:{host}"), "0", "-1"])
}

/// The row of the task that [`web`] has at this place.
fn row(place: u16) -> String {
    format!("http://10.0.0.{place}:31000")
}

/// Waits until [`HOST`] is served by the tasks at these places.
#[track_caller]
fn is_served_by(redis: &Redis, places: &[u16]) {
    let wanted: Vec<String> =
        std::iter::once("www".to_owned()).chain(places.iter().map(|place| row(*place))).collect();
    let mut last = Vec::new();
    let found = wait_for(DEADLINE, || {
        last = rows(redis, HOST);
        (last == wanted).then_some(())
    });
    assert!(found.is_some(), "{last:?}, not {wanted:?}");
}

/// `/web` at two places.
fn web(marathon: &Marathon) -> AppRef {
    let app = marathon.app("/web").label("hipacheFrontend", HOST).check(Check::http("/"));
    app.running_at([("10.0.0.1", 31_000), ("10.0.0.2", 31_000)])
}

/// Looks often, whatever events say.
const POLLING: [&str; 2] = ["--interval", "0.1"];

/// An agent that has written and hears events; it looks again in an hour.
fn listening(dialect: Dialect) -> (Marathon, Redis, MarathonSync) {
    let (marathon, redis) = (Marathon::start(dialect), Redis::start());
    web(&marathon);
    let sync = MarathonSync::start(&marathon, &redis);
    hears(&marathon, &sync);
    is_served_by(&redis, &[1, 2]);
    (marathon, redis, sync)
}

fn hears(marathon: &Marathon, sync: &MarathonSync) {
    marathon.wait_for_listeners(1);
    sync.wait_for_log(&["events from Marathon arrive"]);
}

/// Another task, which serves at once.
fn add(marathon: &Marathon, place: u16) {
    let task = marathon.find("/web").launch((format!("10.0.0.{place}").as_str(), 31_000));
    task.run().probe(integration::marathon::Health::Healthy);
}
