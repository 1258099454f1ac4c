//! By the numbers of the list of known breakages.

use integration::marathon::{Auth, Dialect, EventMode, Fault, Health, Marathon, Route};
use integration::redis::Redis;
use integration::sync::MarathonSync;
use nix::sys::signal::Signal;
use serde_json::json;

use super::{HOST, POLLING, add, hears, is_served_by, listening, row, rows, web};

#[test]
fn breakage_07_errors_under_load_change_nothing_and_are_got_over() {
    let (marathon, redis) = (Marathon::start(Dialect::V1_4), Redis::start());
    web(&marathon);
    let _sync = MarathonSync::builder(&marathon, &redis).args(&POLLING).start();
    is_served_by(&redis, &[1, 2]);
    for (number, fault) in [
        Fault::message(503, "Futures timed out after [10000 milliseconds]"),
        Fault::message(503, "Too many concurrent requests! Allowed: 100."),
        Fault::message(500, "could not retrieve health counts"),
        Fault::page(504, "Connection to leader timed out."),
        Fault::page(502, "Connection to leader refused."),
    ]
    .into_iter()
    .enumerate()
    {
        let before = marathon.requests(Route::Apps);
        // Events make it ask for the app alone, too.
        marathon.fail(Route::App, fault.clone());
        marathon.fail(Route::Apps, fault);
        let place = u16::try_from(number).unwrap() + 3;
        add(&marathon, place);
        marathon.wait_for_requests(Route::Apps, before + 2);
        let listed = rows(&redis, HOST);
        assert!(listed.len() == number + 3 && !listed.contains(&row(place)), "{listed:?}");
        marathon.heal(Route::App);
        marathon.heal(Route::Apps);
        is_served_by(&redis, &(1..=place).collect::<Vec<_>>());
    }
}

/// That silence itself is noticed, and followed by a new stream, is tested where time is simulated.
#[test]
fn breakage_10_a_stream_that_is_silently_dead_loses_nothing() {
    let (marathon, redis) = (Marathon::start(Dialect::V1_4), Redis::start());
    web(&marathon);
    let sync = MarathonSync::builder(&marathon, &redis).args(&["--interval", "0.5"]).start();
    hears(&marathon, &sync);
    is_served_by(&redis, &[1, 2]);
    marathon.events(EventMode::Silent);
    add(&marathon, 3);
    is_served_by(&redis, &[1, 2, 3]);
    assert_eq!(marathon.event_clients(), 1, "the connection is still there");
}

#[test]
fn breakage_11_a_stream_that_a_proxy_holds_back_loses_nothing() {
    let leader = Marathon::start(Dialect::V0_10);
    let standby = leader.join();
    let redis = Redis::start();
    web(&leader);
    let _sync = MarathonSync::builder(&standby, &redis).args(&["--interval", "0.5"]).start();
    is_served_by(&redis, &[1, 2]);
    leader.wait_for_listeners(1);
    add(&leader, 3);
    is_served_by(&redis, &[1, 2, 3]);
}

#[test]
fn breakage_12_a_redirect_of_the_stream_keeps_the_credentials() {
    let auth = Auth::Basic("agent".to_owned(), "pass:word".to_owned());
    let leader = Marathon::builder(Dialect::V1_9).auth(auth).start();
    let standby = leader.join();
    let redis = Redis::start();
    web(&leader);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "pass:word\n").unwrap();
    let file = secret.path().display().to_string();
    let sync = MarathonSync::builder(&standby, &redis)
        .args(&["--marathon-user", "agent", "--marathon-password-file", &file])
        .start();
    hears(&leader, &sync);
    is_served_by(&redis, &[1, 2]);
    assert_eq!((leader.event_clients(), standby.event_clients()), (1, 0));
    add(&leader, 3);
    is_served_by(&redis, &[1, 2, 3]);
}

#[test]
fn breakage_13_events_of_megabytes_do_not_end_the_stream() {
    let (marathon, redis, _sync) = listening(Dialect::V1_1_1);
    for bytes in [100_000, 2_000_000, 8_000_000] {
        marathon.emit_huge(bytes);
    }
    add(&marathon, 3);
    is_served_by(&redis, &[1, 2, 3]);
    assert_eq!(marathon.requests(Route::Events), 1, "one stream all the time");
}

/// Up to 1.7 Marathon drops events in silence, from 1.8 on it ends the stream.
#[test]
fn breakage_14_a_listener_that_was_too_slow_looks_again() {
    for dialect in [Dialect::V1_4, Dialect::V1_9] {
        let (marathon, redis, sync) = listening(dialect);
        sync.signal(Signal::SIGSTOP);
        // More than the buffers of both sockets and of Marathon hold.
        for _ in 0..3000 {
            marathon.emit("api_post_event", json!({"padding": "x".repeat(8000)}));
        }
        add(&marathon, 3);
        sync.signal(Signal::SIGCONT);
        is_served_by(&redis, &[1, 2, 3]);
    }
}

/// Names are for the router to resolve: the agent may see another DNS.
#[test]
fn breakage_26_hosts_that_this_machine_cannot_resolve_are_listed() {
    let (marathon, redis) = (Marathon::start(Dialect::V1_9), Redis::start());
    let app = marathon.app("/web").label("hipacheFrontend", HOST);
    drop(app.running_at([("agent7.invalid", 31_000)]));
    assert_eq!(MarathonSync::builder(&marathon, &redis).args(&["--once"]).run().code, Some(0));
    assert_eq!(rows(&redis, HOST), ["www", "http://agent7.invalid:31000"]);
}

#[test]
fn breakage_27_what_happened_while_nobody_looked_is_made_up_for() {
    let (marathon, redis) = (Marathon::start(Dialect::V1_9), Redis::start());
    let app = web(&marathon);
    let other = marathon.app("/other").label("hipacheFrontend", "other.test");
    let other = other.running_at([("10.0.0.9", 31_000)]);
    let once = MarathonSync::builder(&marathon, &redis).args(&["--once"]).run();
    assert_eq!(once.code, Some(0), "{}", once.stderr);
    assert_eq!(rows(&redis, "other.test").len(), 2);
    // At the start.
    other.delete();
    app.tasks()[0].kill();
    let sync = MarathonSync::start(&marathon, &redis);
    is_served_by(&redis, &[2]);
    assert_eq!(redis.query::<usize>(&["EXISTS", "frontend:other.test"]), 0);
    // And after each new connection.
    hears(&marathon, &sync);
    marathon.events(EventMode::Silent);
    add(&marathon, 3);
    let before = marathon.requests(Route::Events);
    marathon.close_events();
    marathon.events(EventMode::Normal);
    marathon.wait_for_requests(Route::Events, before + 1);
    is_served_by(&redis, &[2, 3]);
}

#[test]
fn breakage_29_nothing_is_asked_for_that_could_be_answered_as_text() {
    let (marathon, redis) = (Marathon::start(Dialect::V0_8_2), Redis::start());
    web(&marathon);
    let _sync = MarathonSync::builder(&marathon, &redis).args(&POLLING).start();
    is_served_by(&redis, &[1, 2]);
    marathon.wait_for_requests(Route::Apps, 3);
    for route in [Route::Tasks, Route::AppTasks] {
        assert_eq!(marathon.requests(route), 0, "{route:?}");
    }
}

#[test]
fn breakage_31_a_flood_of_events_makes_few_requests() {
    let (marathon, redis, _sync) = listening(Dialect::V1_9);
    let before = marathon.requests(Route::Apps);
    let first = marathon.find("/web").tasks().remove(0);
    for _ in 0..1000 {
        // What a reconciliation repeats.
        first.run();
    }
    add(&marathon, 3);
    is_served_by(&redis, &[1, 2, 3]);
    let made = marathon.requests(Route::Apps) - before;
    assert!(made <= 20, "{made} requests for 1000 events");
}

/// By its events alone.
#[test]
fn breakage_32_a_task_that_fails_a_probe_goes_and_comes_back() {
    let (marathon, redis, _sync) = listening(Dialect::V1_9);
    let first = marathon.find("/web").tasks().remove(0);
    first.probe(Health::Sick);
    is_served_by(&redis, &[2]);
    first.probe(Health::Healthy);
    is_served_by(&redis, &[2, 1]);
}
