//! By the numbers of the bridge's bugs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use integration::eventually::{DEADLINE, eventually};
use integration::marathon::{Auth, Dialect, Fault, Marathon, Route};
use integration::redis::Redis;
use integration::sync::MarathonSync;

use super::{HOST, POLLING, add, is_served_by, row, rows, web};

#[test]
fn bridge_bug_01_a_dry_run_makes_no_key() {
    let (marathon, redis) = (Marathon::start(Dialect::V1_9), Redis::start());
    web(&marathon);
    let ended = MarathonSync::builder(&marathon, &redis).args(&["-d", "--once"]).run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("frontend:www.test"), "{}", ended.stdout);
    assert_eq!(redis.query::<usize>(&["DBSIZE"]), 0);
}

#[test]
fn bridge_bug_06_two_apps_of_one_host_do_not_remove_each_others_backends() {
    let (marathon, redis) = (Marathon::start(Dialect::V1_9), Redis::start());
    web(&marathon);
    let other = marathon.app("/zweb").label("hipacheFrontend", HOST);
    drop(other.running_at([("10.0.0.3", 31_000)]));
    let sync = MarathonSync::builder(&marathon, &redis).args(&POLLING).start();
    is_served_by(&redis, &[1, 2, 3]);
    let before = redis.calls("rpush");
    let asked = marathon.requests(Route::Apps);
    marathon.wait_for_requests(Route::Apps, asked + 5);
    is_served_by(&redis, &[1, 2, 3]);
    assert_eq!(redis.calls("rpush"), before, "nothing was written any more");
    sync.wait_for_log(&["www.test is served by several apps", "/web", "/zweb"]);
}

/// There a failed request for one app was taken for an app without keys.
#[test]
fn bridge_bug_09_no_app_is_asked_for_alone() {
    let (marathon, redis) = (Marathon::start(Dialect::V1_9), Redis::start());
    web(&marathon);
    marathon.fail(Route::App, Fault::page(500, "no"));
    let _sync = MarathonSync::builder(&marathon, &redis).args(&POLLING).start();
    is_served_by(&redis, &[1, 2]);
    marathon.wait_for_requests(Route::Apps, 3);
    assert_eq!(marathon.requests(Route::App), 0);
}

#[test]
fn bridge_bug_10_a_marathon_that_hangs_is_not_waited_for_for_ever() {
    let (marathon, redis) = (Marathon::start(Dialect::V1_9), Redis::start());
    web(&marathon);
    marathon.fail_times(Route::Apps, 1, Fault::HangMidBody);
    let _sync = MarathonSync::start(&marathon, &redis);
    eventually(Duration::from_secs(60), "it asked again", || rows(&redis, HOST).len() == 3);
}

#[test]
fn bridge_bug_11_connections_do_not_become_more() {
    let (marathon, redis) = (Marathon::start(Dialect::V1_9), Redis::start());
    web(&marathon);
    let sync = MarathonSync::builder(&marathon, &redis).args(&POLLING).start();
    let clients = || redis.query::<String>(&["CLIENT", "LIST"]).lines().count();
    let files = || sync.process().open_files();
    is_served_by(&redis, &[1, 2]);
    super::hears(&marathon, &sync);
    let (before, open) = (clients(), files());
    let asked = marathon.requests(Route::Apps);
    marathon.wait_for_requests(Route::Apps, asked + 30);
    // One may be open for the request that is on its way.
    eventually(DEADLINE, "as few files as before", || files() <= open + 2);
    assert!(clients() <= before, "{} connections, {before} before", clients());
}

/// Every list that a reader sees is one that was meant, as a whole.
#[test]
fn bridge_bug_14_no_reader_sees_half_of_a_list() {
    let (marathon, redis) = (Marathon::start(Dialect::V1_9), Redis::start());
    let app = marathon.app("/web").label("hipacheFrontend", HOST);
    let halves = [1..=40_u16, 41..=80_u16];
    let places = |half: usize| halves[half].clone().map(|n| (format!("10.0.0.{n}"), 31_000));
    let at = |(host, port): (String, u16)| integration::marathon::Place::new(host, vec![port]);
    let app = app.running_at(places(0).map(at));
    let _sync = MarathonSync::builder(&marathon, &redis).args(&["--guard-count", "1000"]).start();
    eventually(DEADLINE, "the list is there", || rows(&redis, HOST).len() == 41);
    marathon.wait_for_listeners(1);
    let ends = AtomicBool::new(false);
    let rounds = 10;
    let seen: BTreeSet<Vec<String>> = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let url = format!("redis://127.0.0.1:{}", redis.port());
            let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
            let mut seen = BTreeSet::new();
            while !ends.load(Ordering::SeqCst) {
                let command = ["0", "-1"].iter().fold(
                    redis::cmd("LRANGE").arg(format!("frontend:{HOST}")).clone(),
                    |mut command, arg| command.arg(arg).clone(),
                );
                seen.insert(command.query::<Vec<String>>(&mut connection).unwrap());
            }
            seen
        });
        for round in 0..rounds {
            // All tasks move at once, by one change of the model.
            let half = (round + 1) % 2;
            for (task, place) in app.tasks().iter().zip(places(half)) {
                task.change(|task| task.place = at(place.clone()));
            }
            marathon.emit("deployment_success", serde_json::json!({"id": "x"}));
            let last = row(*halves[half].end());
            eventually(DEADLINE, "it moved", || rows(&redis, HOST).last() == Some(&last));
        }
        ends.store(true, Ordering::SeqCst);
        reader.join().unwrap()
    });
    for list in &seen {
        // Tasks move one by one, so an answer may show some here and some there, but all of them.
        assert_eq!(list.first().map(String::as_str), Some("www"), "{list:?}");
        assert_eq!(list.len(), 41, "{list:?}");
    }
    assert!(seen.len() >= 2);
}

#[test]
fn bridge_bug_15_marks_of_dead_backends_move_with_them() {
    let (marathon, redis) = (Marathon::start(Dialect::V1_9), Redis::start());
    let app = web(&marathon);
    add(&marathon, 3);
    let sync = MarathonSync::start(&marathon, &redis);
    is_served_by(&redis, &[1, 2, 3]);
    super::hears(&marathon, &sync);
    redis.run(&["SADD", "dead:www.test", "0", "2"]);
    app.tasks()[0].kill();
    is_served_by(&redis, &[2, 3]);
    assert_eq!(redis.dead(HOST), ["1".to_owned()].into());
}

#[test]
fn bridge_bug_19_base_paths_redirects_and_passwords_work() {
    let auth = Auth::Basic("agent".to_owned(), "secret".to_owned());
    let marathon =
        Marathon::builder(Dialect::V1_9).base_path("/service/marathon").auth(auth).start();
    let redis = Redis::start();
    web(&marathon);
    // A balancer in front of it sends clients to the process itself.
    let front = marathon.join();
    let target = format!("{}/v2/apps?embed=apps.tasks", marathon.url());
    front.fail(Route::Apps, Fault::Redirect(target));
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "secret").unwrap();
    let file = secret.path().display().to_string();
    let args = ["--marathon-user", "agent", "--marathon-password-file", &file];
    let both = format!("{},{}", front.url(), marathon.url());
    let sync = MarathonSync::builder(&front, &redis).args(&["--marathon", &both]).args(&args);
    let _sync = sync.start();
    is_served_by(&redis, &[1, 2]);
    assert!(front.requests(Route::Apps) > 0 && marathon.requests(Route::Apps) > 0);
}
