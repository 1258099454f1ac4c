//! marathon-sync's writes to a real Redis: whole lists only, marks that stay with their backends,
//! edits by hand in between, one writer at a time.

use std::time::Duration;

use integration::eventually::DEADLINE;
use integration::redis::Redis;
use marathon_sync::plan::{Plan, Wanted};
use marathon_sync::routes::Routes;
use marathon_sync::routes::apply::Applied;
use marathon_sync::routes::diff::diff;
use shared::driver::Driver;
use shared::store::{Client, StoreConfig};
use tokio_util::sync::CancellationToken;

mod full;
mod instances;
mod lease;
mod lists;
mod server;

const TOKEN: &str = "me";
/// Long beside any pause of a loaded machine, so that no lease is lost by chance.
const TTL: Duration = Duration::from_secs(3);
const LEASE: &str = "marathon-sync:blue:lease";
const OWNED: &str = "marathon-sync:blue:owned";

async fn connect(driver: &str) -> Routes {
    connect_as(driver, "blue").await
}

async fn connect_as(driver: &str, instance: &str) -> Routes {
    let config = StoreConfig {
        drivers: vec![Driver::parse(driver).expect("a driver")],
        connect_timeout: DEADLINE,
        response_timeout: DEADLINE,
    };
    let client = Client::start(&config, &CancellationToken::new());
    assert!(client.wait_until_up(DEADLINE).await);
    Routes::new(client, instance)
}

/// A Redis whose lease is held by [`TOKEN`].
async fn stage() -> (Redis, Routes) {
    let redis = Redis::start();
    redis.run(&["SET", LEASE, TOKEN]);
    let routes = connect(&redis.url()).await;
    (redis, routes)
}

fn wanted<T: AsRef<str>>(up: &[T]) -> Wanted {
    let up = up.iter().map(|row| row.as_ref().to_owned()).collect();
    Wanted { identifier: "id".to_owned(), up, ..Wanted::default() }
}

/// `a` stands for a URL; what is no single letter stands for itself.
fn row(word: &str) -> String {
    if word.len() == 1 { format!("http://{word}:1") } else { word.to_owned() }
}

fn plan(hosts: &[(&str, &[&str])]) -> Plan {
    hosts.iter().map(|(host, up)| ((*host).to_owned(), wanted(up))).collect()
}

async fn sync(routes: &Routes, plan: &Plan, token: &str) -> Applied {
    let snapshot = routes.snapshot(plan).await.expect("Redis can be read");
    routes.apply(plan, diff(plan, &snapshot).changes, token).await
}

#[track_caller]
fn all_written(applied: &Applied) {
    assert!(applied.failed.is_empty(), "{applied:?}");
}

fn list(redis: &Redis, host: &str) -> Vec<String> {
    redis.query(&["LRANGE", &format!("frontend:{host}"), "0", "-1"])
}
