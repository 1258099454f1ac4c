//! marathon-sync end to end: the real binary between a fake Marathon and a real Redis.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use integration::eventually::{DEADLINE, eventually};
use integration::marathon::{Auth, Check, Dialect, Fault, Health, Marathon, Route, State};
use integration::redis::Redis;
use integration::sync::{Builder, MarathonSync};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::NamedTempFile;

const LEASE: &str = "marathon-sync:default:lease";

/// A failover takes a lease's time and a third.
const FAILOVER: Duration = Duration::from_secs(20);

fn list(redis: &Redis, host: &str) -> Vec<String> {
    redis.query(&["LRANGE", &format!("frontend:{host}"), "0", "-1"])
}

#[track_caller]
fn eventually_is(redis: &Redis, host: &str, expected: &[&str]) {
    let mut last = Vec::new();
    let waited = integration::eventually::wait_for(DEADLINE, || {
        last = list(redis, host);
        (last == expected).then_some(())
    });
    assert!(waited.is_some(), "{host} is {last:?}, not {expected:?}");
}

/// A Marathon with `/web` on `www.test` at two places, a Redis, and an agent that has written.
fn stage() -> (Marathon, Redis, MarathonSync) {
    let marathon = Marathon::start(Dialect::V1_9);
    let redis = Redis::start();
    web(&marathon);
    let sync = MarathonSync::start(&marathon, &redis);
    eventually_is(&redis, "www.test", &WEB);
    (marathon, redis, sync)
}

const WEB: [&str; 3] = ["www", "http://10.0.0.1:31001", "http://10.0.0.2:31002"];

fn web(marathon: &Marathon) {
    let app = marathon.app("/web").label("hipacheFrontend", "www.test").check(Check::http("/"));
    drop(app.running_at([("10.0.0.1", 31_001), ("10.0.0.2", 31_002)]));
}

/// Events come, and the first look after their start is over.
fn wait_for_stream(marathon: &Marathon, sync: &MarathonSync) {
    marathon.wait_for_listeners(1);
    sync.wait_for_log(&["events from Marathon arrive"]);
}

/// The command line of the bridge's README, against a Marathon that has no events.
#[test]
fn the_bridges_command_line_works_unchanged() {
    let marathon = Marathon::start(Dialect::V0_8_2);
    let redis = Redis::start();
    web(&marathon);
    let redis_host = format!("127.0.0.1:{}", redis.port());
    let url = format!("{}/", marathon.url());
    let args = ["-i", "1", "-m", &url, "-P", "/v2/apps", "-r", &redis_host];
    let _sync = Builder::bare().args(&args).start();
    eventually_is(&redis, "www.test", &WEB);
    // Without events, the interval finds it.
    marathon.find("/web").tasks()[0].kill();
    eventually_is(&redis, "www.test", &["www", "http://10.0.0.2:31002"]);
}

#[test]
fn what_is_deployed_arrives_by_its_events_and_goes_by_them() {
    let (marathon, redis, sync) = stage();
    wait_for_stream(&marathon, &sync);
    let app = marathon.app("/new").label("hipacheFrontend", "new.test");
    let app = app.running_at([("10.0.0.3", 31_003)]);
    eventually_is(&redis, "new.test", &["new", "http://10.0.0.3:31003"]);
    app.delete();
    eventually_is(&redis, "new.test", &[]);
    eventually_is(&redis, "www.test", &WEB);
}

#[test]
fn a_task_that_is_being_killed_goes_before_marathon_is_asked_again() {
    let (marathon, redis, sync) = stage();
    wait_for_stream(&marathon, &sync);
    marathon.fail(Route::Apps, Fault::Hang);
    marathon.find("/web").tasks()[0].killing();
    eventually_is(&redis, "www.test", &["www", "http://10.0.0.2:31002"]);
}

/// The whole list of a large cluster takes Marathon seconds.
#[test]
fn a_task_that_starts_or_fails_is_looked_after_by_asking_for_its_app_alone() {
    let (marathon, redis, sync) = stage();
    wait_for_stream(&marathon, &sync);
    marathon.fail(Route::Apps, Fault::Hang);
    let web = marathon.find("/web");
    let task = web.launch(("10.0.0.3", 31_003));
    task.to(State::Running);
    task.probe(Health::Healthy);
    eventually_is(&redis, "www.test", &[&WEB[..], &["http://10.0.0.3:31003"]].concat());
    web.tasks()[0].probe(Health::Sick);
    let rest = ["www", "http://10.0.0.2:31002", "http://10.0.0.3:31003"];
    eventually_is(&redis, "www.test", &rest);
    assert!(marathon.requests(Route::App) > 0);
}

/// A Marathon that answers about single apps slowly, or not at all, delays the list of all by little.
#[test]
fn single_apps_hold_the_list_of_all_back_for_moments_only() {
    let (marathon, redis, sync) = stage();
    wait_for_stream(&marathon, &sync);
    marathon.fail(Route::App, Fault::Hang);
    marathon.find("/web").tasks()[0].probe(Health::Sick);
    marathon.wait_for_requests(Route::App, 1);
    marathon.app("/new").label("hipacheFrontend", "new.test").running_at([("10.0.0.3", 31_003)]);
    eventually_is(&redis, "new.test", &["new", "http://10.0.0.3:31003"]);
    eventually_is(&redis, "www.test", &["www", "http://10.0.0.2:31002"]);
}

/// Jobs of others and a scaling app: their ends may not keep the agent from asking Marathon.
#[test]
fn a_flood_of_ended_tasks_holds_no_new_task_back() {
    let (marathon, redis, sync) = stage();
    let places = (0..200).map(|number| ("10.0.1.1", 20_000 + number));
    let many = marathon.app("/many").label("hipacheFrontend", "many.test").running_at(places);
    wait_for_stream(&marathon, &sync);
    let known: Vec<String> = many.tasks().iter().map(|task| task.id().to_owned()).collect();
    eventually(DEADLINE, "all are listed", || list(&redis, "many.test").len() == 201);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let known = known.iter().map(|id| ("/many", id.clone()));
            let unknown = (0..).map(|number| ("/job", format!("job.{number}")));
            let mut both = unknown.zip(known.map(Some).chain(std::iter::repeat(None)));
            while !is_over.load(Ordering::Relaxed) {
                let Some((unknown, known)) = both.next() else { break };
                for (app, task) in std::iter::once(unknown).chain(known) {
                    let status =
                        json!({"appId": app, "taskId": task, "taskStatus": "TASK_KILLING"});
                    marathon.emit("status_update_event", status);
                }
                #[allow(
                    clippy::disallowed_methods,
                    reason = "the flood's pace, no wait for a state"
                )]
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let _stop = Stop(&is_over);
        eventually(DEADLINE, "the flood has arrived", || list(&redis, "many.test").len() < 190);
        let app = marathon.app("/new").label("hipacheFrontend", "new.test");
        drop(app.running_at([("10.0.0.3", 31_003)]));
        eventually_is(&redis, "new.test", &["new", "http://10.0.0.3:31003"]);
    });
    eventually_is(&redis, "www.test", &WEB);
}

/// Ends the flood also when the test panics: the scope waits for it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_others_made_is_not_touched() {
    let marathon = Marathon::start(Dialect::V1_9);
    let redis = Redis::start();
    redis.frontend("hand.test", "hand", &["http://10.9.9.9:80"]);
    web(&marathon);
    let other = marathon.app("/worker").label("team", "x");
    drop(other.running_at([("10.0.0.9", 31_009)]));
    let sync = MarathonSync::start(&marathon, &redis);
    eventually_is(&redis, "www.test", &WEB);
    marathon.find("/web").delete();
    eventually_is(&redis, "www.test", &[]);
    assert_eq!(list(&redis, "hand.test"), ["hand", "http://10.9.9.9:80"]);
    sync.signal(Signal::SIGTERM);
    assert!(sync.wait(DEADLINE).success());
}

/// `/web` with tasks that nobody can read, and an app that is well.
fn garbage(beacon: u16) -> Fault {
    let web = json!({"id": "/web", "labels": {"hipacheFrontend": "www.test"}, "tasks": "garbage"});
    let task = json!({"id": "b.1", "host": "10.0.0.7", "ports": [beacon], "state": "TASK_RUNNING",
        "startedAt": "2020-01-01T00:00:00.000Z"});
    let labels = json!({"hipacheFrontend": "z.test"});
    let well = json!({"id": "/z", "labels": labels, "tasks": [task]});
    Fault::json(200, &json!({"apps": [web, well]}))
}

/// Marathon's answer is garbage, the tasks have died, and somebody mends the list by hand.
#[test]
fn an_emergency_fix_by_hand_stays_while_the_app_cannot_be_read() {
    let marathon = Marathon::start(Dialect::V1_9);
    let redis = Redis::start();
    web(&marathon);
    let once = || MarathonSync::builder(&marathon, &redis).args(&["--once"]).run().code;
    assert_eq!(once(), Some(0));
    let hand = "http://127.0.0.1:17103";
    for is_agent in [false, true] {
        let run = |beacon: u16| {
            marathon.fail(Route::Apps, garbage(beacon));
            if is_agent {
                // It is still there when it is started, and after what it writes next.
                let agent = MarathonSync::builder(&marathon, &redis).args(&["-i", "1"]).start();
                eventually_is(&redis, "z.test", &["z", &format!("http://10.0.0.7:{beacon}")]);
                marathon.fail(Route::Apps, garbage(beacon + 1));
                eventually_is(&redis, "z.test", &["z", &format!("http://10.0.0.7:{}", beacon + 1)]);
                agent.signal(Signal::SIGTERM);
                assert!(agent.wait(DEADLINE).success());
            } else {
                assert_eq!(once(), Some(2));
            }
        };
        run(7_000);
        assert_eq!(list(&redis, "www.test"), WEB);
        let _length: usize = redis.query(&["RPUSH", "frontend:www.test", hand]);
        run(7_002);
        assert_eq!(list(&redis, "www.test"), [WEB[0], WEB[1], WEB[2], hand]);
        for dead in &WEB[1..] {
            let _removed: usize = redis.query(&["LREM", "frontend:www.test", "0", dead]);
        }
        run(7_004);
        let ended = MarathonSync::builder(&marathon, &redis).args(&["verify"]).run();
        assert_eq!(ended.code, Some(2), "{}", ended.stdout);
        assert!(ended.stdout.contains("  /web: "), "{}", ended.stdout);
        assert_eq!(list(&redis, "www.test"), ["www", hand]);
        marathon.heal(Route::Apps);
        // One answer does not tell that nothing runs at what was added, so the guard may hold it.
        let _done = once();
        let _removed: usize = redis.query(&["LREM", "frontend:www.test", "0", hand]);
        assert_eq!(list(&redis, "www.test"), WEB);
    }
}

/// The bridge's bug 1, and the lease and notes beside it.
#[test]
fn a_dry_run_prints_what_it_would_write_and_writes_nothing() {
    let marathon = Marathon::start(Dialect::V1_9);
    let redis = Redis::start();
    web(&marathon);
    let once = ["--dry-run", "--once"];
    let ended = MarathonSync::builder(&marathon, &redis).args(&once).run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!((lines[0], lines[3], lines.len()), ("MULTI", "EXEC", 4), "{lines:?}");
    assert_eq!(lines[1], "RPUSH frontend:www.test www http://10.0.0.1:31001 http://10.0.0.2:31002");
    let sync = MarathonSync::builder(&marathon, &redis).args(&["-d"]).start();
    eventually(DEADLINE, "the same lines", || sync.stdout() == ended.stdout);
    assert_eq!(redis.query::<usize>(&["DBSIZE"]), 0);
}

#[test]
fn one_pass_says_by_its_exit_code_what_became_of_it() {
    let marathon = Marathon::start(Dialect::V1_9);
    let redis = Redis::start();
    web(&marathon);
    let run = |args: &[&str]| {
        let ended = MarathonSync::builder(&marathon, &redis).args(args).run();
        (ended.code, ended.stdout + &ended.stderr)
    };
    let (code, text) = run(&["verify"]);
    assert!(code == Some(1) && text.contains("www.test: create"), "{code:?} {text}");
    assert_eq!(redis.query::<usize>(&["DBSIZE"]), 0);
    assert_eq!(run(&["--once"]).0, Some(0));
    assert_eq!(list(&redis, "www.test"), WEB);
    assert_eq!(run(&["verify"]).0, Some(0));
    assert_eq!(redis.query::<usize>(&["EXISTS", LEASE]), 0, "the lease was given back");
    let (code, text) = run(&["explain", "/web"]);
    assert!(code == Some(0) && text.contains("www.test"), "{text}");

    marathon.fail(Route::Apps, Fault::no_apps());
    assert_eq!(run(&["--once"]).0, Some(2), "held back");
    marathon.fail(Route::Apps, Fault::message(503, "no"));
    let (code, text) = run(&["--once"]);
    assert!(code == Some(1) && text.contains("no Marathon gave an answer"), "{text}");
    assert_eq!(run(&["verify"]).0, Some(2));
    assert_eq!(list(&redis, "www.test"), WEB);
}

#[test]
fn wrong_settings_end_with_78_and_name_the_flag() {
    let ended = Builder::bare().run();
    assert_eq!(ended.code, Some(78));
    assert!(ended.stderr.starts_with("marathon-sync: --marathon: "), "{}", ended.stderr);
    let ended = Builder::bare()
        .env("MARATHON_SYNC_MARATHON", "http://u:hunter2@m")
        .env("MARATHON_SYNC_REDIS", "redis://:hunter2@r")
        .args(&["check"])
        .run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("redis://:***@r:6379/0") && !ended.stdout.contains("hunter2"));
}

#[test]
fn of_two_agents_one_writes_and_the_other_takes_over_when_it_is_killed() {
    let (marathon, redis, first) = stage();
    wait_for_stream(&marathon, &first);
    let second = MarathonSync::start(&marathon, &redis);
    second.wait_for_log(&["another process writes"]);
    marathon.wait_for_listeners(2);
    let holder: String = redis.query(&["GET", LEASE]);
    assert!(holder.contains(&first.process().pid().to_string()), "{holder}");
    first.signal(Signal::SIGKILL);
    marathon.find("/web").tasks()[0].kill();
    eventually(FAILOVER, "the other one writes", || {
        list(&redis, "www.test") == ["www", "http://10.0.0.2:31002"]
    });
    second.wait_for_log(&["this process writes"]);
    assert!(!second.log().contains("not hold the lease"), "{}", second.log());
}

/// Two clusters feed one Redis, and both have an app for the same host.
#[test]
fn two_instances_of_one_host_keep_the_union_of_their_backends() {
    let redis = Redis::start();
    let start = |name: &str, place| {
        let marathon = Marathon::start(Dialect::V1_9);
        let app = marathon.app("/web").label("hipacheFrontend", "www.test");
        drop(app.running_at([place]));
        let args = ["--instance", name, "--interval", "1"];
        let sync = MarathonSync::builder(&marathon, &redis).args(&args).start();
        (marathon, sync)
    };
    let (east, first) = start("east", ("10.0.0.1", 31_001));
    eventually_is(&redis, "www.test", &["www", "http://10.0.0.1:31001"]);
    let (west, second) = start("west", ("10.0.1.1", 31_001));
    let both = ["www", "http://10.0.0.1:31001", "http://10.0.1.1:31001"];
    eventually_is(&redis, "www.test", &both);
    first.wait_for_log(&["www.test is also kept by another instance", "(west)"]);
    second.wait_for_log(&["www.test is also kept by another instance", "(east)"]);
    // At each interval both compare the whole list again.
    let writes = redis.calls("rpush") + redis.calls("ltrim");
    for marathon in [&east, &west] {
        marathon.wait_for_requests(Route::Apps, marathon.requests(Route::Apps) + 3);
    }
    assert_eq!(list(&redis, "www.test"), both);
    assert_eq!(redis.calls("rpush") + redis.calls("ltrim"), writes, "nothing is written");
    // What one gives up the other one keeps.
    east.find("/web").tasks()[0].kill();
    eventually_is(&redis, "www.test", &["www", "http://10.0.1.1:31001"]);
    east.find("/web").launch(("10.0.0.2", 31_002)).to(State::Running);
    eventually_is(&redis, "www.test", &["www", "http://10.0.1.1:31001", "http://10.0.0.2:31002"]);
    east.find("/web").delete();
    eventually_is(&redis, "www.test", &["www", "http://10.0.1.1:31001"]);
    second.wait_for_log(&["www.test is kept by this instance alone"]);
    west.find("/web").delete();
    eventually_is(&redis, "www.test", &[]);
    for sync in [&first, &second] {
        assert!(!sync.log().contains("by hand"), "{}", sync.log());
    }
}

/// A leader that was stopped while another one led: what it knew is older than what the other wrote,
/// also when nobody leads and Marathon is away by the time it wakes.
#[test]
fn a_stopped_leader_writes_nothing_from_before_when_it_wakes() {
    let (marathon, redis, first) = stage();
    wait_for_stream(&marathon, &first);
    first.signal(Signal::SIGSTOP);
    let second = MarathonSync::start(&marathon, &redis);
    let leads = |log: &str| log.matches("this process writes").count();
    eventually(FAILOVER, "the other one leads", || leads(&second.log()) == 1);
    let app = marathon.app("/new").label("hipacheFrontend", "new.test");
    drop(app.running_at([("10.0.0.3", 31_003)]));
    let new = ["new", "http://10.0.0.3:31003"];
    eventually_is(&redis, "new.test", &new);
    marathon.kill();
    second.signal(Signal::SIGTERM);
    second.wait(DEADLINE);
    assert_eq!(leads(&first.log()), 1);
    first.signal(Signal::SIGCONT);
    eventually(DEADLINE, "it leads again", || leads(&first.log()) == 2);
    first.wait_for_log(&["WARN", "too old to contradict it"]);
    assert_eq!(list(&redis, "new.test"), new);
    assert_eq!(list(&redis, "www.test"), WEB);
}

#[test]
fn everything_is_rebuilt_after_redis_has_lost_it_even_while_marathon_is_away() {
    let (marathon, redis, sync) = stage();
    wait_for_stream(&marathon, &sync);
    marathon.kill();
    redis.run(&["FLUSHALL"]);
    eventually_is(&redis, "www.test", &WEB);
    redis.kill();
    redis.launch();
    eventually(FAILOVER, "the list is there again", || list(&redis, "www.test") == WEB);
}

#[test]
fn a_marathon_that_is_away_or_lies_takes_no_routes() {
    let marathon = Marathon::start(Dialect::V1_9);
    let redis = Redis::start();
    web(&marathon);
    let sync = MarathonSync::builder(&marathon, &redis).args(&["--interval", "0.1"]).start();
    eventually_is(&redis, "www.test", &WEB);
    for fault in [
        Fault::empty(),
        Fault::html(),
        Fault::message(200, "Futures timed out"),
        Fault::page(503, "Could not determine the current leader"),
        Fault::no_apps(),
    ] {
        marathon.fail(Route::Apps, fault);
        let before = marathon.requests(Route::Apps);
        marathon.wait_for_requests(Route::Apps, before + 3);
        assert_eq!(list(&redis, "www.test"), WEB);
    }
    sync.wait_for_log(&["nothing would be left of 2 backends"]);
    marathon.heal(Route::Apps);
    sync.wait_for_log(&["no removals are held back any more"]);
    marathon.kill();
    sync.wait_for_log(&["no answer from Marathon", "lists stay as they are"]);
    marathon.listen();
    sync.wait_for_log(&["Marathon answers again"]);
    assert_eq!(list(&redis, "www.test"), WEB);
}

/// Breakages 1 and 5: a new leader has no health results; new tasks wait for theirs.
#[test]
fn health_that_a_failover_forgets_changes_nothing() {
    let (marathon, redis, sync) = stage();
    wait_for_stream(&marathon, &sync);
    marathon.elect();
    let before = marathon.requests(Route::Apps);
    marathon.wait_for_requests(Route::Apps, before + 1);
    let new = marathon.find("/web").launch(("10.0.0.3", 31_003));
    new.to(State::Running);
    marathon.find("/web").tasks()[0].kill();
    eventually_is(&redis, "www.test", &["www", "http://10.0.0.2:31002"]);
    new.probe(Health::Healthy);
    eventually_is(&redis, "www.test", &["www", "http://10.0.0.2:31002", "http://10.0.0.3:31003"]);
}

/// Such as a key that somebody set by hand.
#[test]
fn a_lease_without_an_end_is_given_one() {
    let marathon = Marathon::start(Dialect::V1_9);
    let redis = Redis::start();
    web(&marathon);
    redis.run(&["SET", LEASE, "nobody"]);
    let sync = MarathonSync::start(&marathon, &redis);
    sync.wait_for_log(&["WARN", "had no end", "nobody"]);
    eventually(FAILOVER, "the agent writes", || list(&redis, "www.test") == WEB);
}

#[test]
fn sigterm_gives_the_lease_back_and_leaves_the_lists() {
    let (_marathon, redis, sync) = stage();
    assert_eq!(redis.query::<usize>(&["EXISTS", LEASE]), 1);
    sync.signal(Signal::SIGTERM);
    assert_eq!(sync.wait(DEADLINE).code(), Some(0));
    assert_eq!(redis.query::<usize>(&["EXISTS", LEASE]), 0);
    assert_eq!(list(&redis, "www.test"), WEB);
}

/// The address of the admin listener.
fn admin(sync: &MarathonSync) -> SocketAddr {
    let line = sync.wait_for_log(&["keeping the lists", "admin=http://"]);
    let (_, url) = line.split_once("admin=http://").expect("its address");
    let address = url.split_whitespace().next().and_then(|address| address.parse().ok());
    address.expect("an address")
}

/// A Redis without memory, from the start on: routes follow all the same, and everybody who looks is
/// told.
#[test]
fn a_full_redis_is_written_and_reported() {
    let marathon = Marathon::start(Dialect::V1_9);
    let redis = Redis::start();
    redis.frontend("www.test", "www", &["http://10.0.0.1:31001", "http://10.9.9.9:9"]);
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    web(&marathon);
    let sync = MarathonSync::builder(&marathon, &redis).args(&["--admin", "127.0.0.1:0"]).start();
    eventually_is(&redis, "www.test", &WEB);
    marathon.find("/web").tasks()[1].kill();
    eventually_is(&redis, "www.test", &WEB[..2]);
    sync.wait_for_log(&["WARN", "Redis is full", "maxmemory"]);
    let address = admin(&sync);
    let get = |path: &str| integration::client::get(address, "admin", path);
    let ready = get("/readyz");
    assert_eq!(ready.status(), 200);
    assert!(ready.text().contains("Redis is full"), "{}", ready.text());
    assert!(get("/status").text().contains("Redis is full"));
    assert!(get("/metrics").text().contains("\nmarathon_sync_redis_full 1.0\n"));
    assert_eq!(sync.log().matches("Redis is full").count(), 1, "once:\n{}", sync.log());
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    sync.wait_for_log(&["INFO", "Redis is no longer full"]);
    eventually(DEADLINE, "it is reported no longer", || !get("/readyz").text().contains("full"));
}

/// A Redis that takes no writes, as when its disk is full: the reason is shown, not only that there is no lease.
#[test]
fn a_redis_that_refuses_writes_is_quoted() {
    let marathon = Marathon::start(Dialect::V1_9);
    let redis = Redis::start();
    redis.run(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let sync = MarathonSync::builder(&marathon, &redis).args(&["--admin", "127.0.0.1:0"]).start();
    sync.wait_for_log(&["WARN", "does not give the lease", "NOREPLICAS"]);
    let address = admin(&sync);
    eventually(DEADLINE, "it is shown", || {
        let answer = integration::client::get(address, "admin", "/readyz");
        answer.status() == 503 && answer.text().contains("NOREPLICAS")
    });
    let once = MarathonSync::builder(&marathon, &redis).args(&["--once"]).run();
    assert!(once.code == Some(1) && once.stderr.contains("NOREPLICAS"), "{once:?}");
}

fn secret(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("it can be written");
    file
}

#[test]
fn sighup_reads_the_token_again_and_ends_nothing() {
    let auth = Auth::Token("new".to_owned());
    let marathon = Marathon::builder(Dialect::V1_9).auth(auth).start();
    let redis = Redis::start();
    web(&marathon);
    let token = secret("old\n");
    let path = token.path().to_str().expect("text");
    let sync = MarathonSync::builder(&marathon, &redis).args(&["--marathon-token-file", path]);
    let sync = sync.start();
    sync.wait_for_log(&["WARN", "401"]);
    std::fs::write(path, "").expect("it can be written");
    sync.signal(Signal::SIGHUP);
    sync.wait_for_log(&["WARN", "SIGHUP", "stay as they are", path]);
    std::fs::write(path, "new\n").expect("it can be written");
    sync.signal(Signal::SIGHUP);
    sync.wait_for_log(&["INFO", "SIGHUP"]);
    eventually_is(&redis, "www.test", &WEB);
    assert!(sync.is_running());
}

#[test]
fn the_password_of_redis_is_read_for_each_connection() {
    let marathon = Marathon::start(Dialect::V1_9);
    let redis = Redis::with_password("old");
    web(&marathon);
    let password = secret("old\n");
    let driver = format!("redis://127.0.0.1:{}", redis.port());
    let path = password.path().to_str().expect("text");
    let url = marathon.url();
    let args = ["--marathon", &url, "--redis", &driver, "--redis-password-file", path];
    let sync = Builder::bare().args(&args).start();
    eventually_is(&redis, "www.test", &WEB);
    wait_for_stream(&marathon, &sync);
    std::fs::write(path, "new\n").expect("it can be written");
    redis.run(&["CONFIG", "SET", "requirepass", "new"]);
    redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    marathon.find("/web").tasks()[0].kill();
    eventually_is(&redis, "www.test", &["www", "http://10.0.0.2:31002"]);
}

/// What an operator looks at: ready, the figures, and why each app is or is not routed.
#[test]
fn the_admin_listener_says_how_things_stand() {
    let marathon = Marathon::start(Dialect::V1_9);
    let redis = Redis::start();
    web(&marathon);
    marathon.app("/worker").label("hipacheFrontend", "not a host").running(1);
    let sync = MarathonSync::builder(&marathon, &redis).args(&["--admin", "127.0.0.1:0"]).start();
    let address = admin(&sync);
    let get = |path: &str| integration::client::get(address, "admin", path);
    assert_eq!(get("/livez").status(), 200);
    eventually(DEADLINE, "it is ready", || get("/readyz").status() == 200);
    let metrics = get("/metrics").text();
    assert!(metrics.contains("marathon_sync_") && metrics.ends_with("# EOF\n"), "{metrics}");
    let status: serde_json::Value = serde_json::from_str(&get("/status").text()).expect("JSON");
    assert!(status.to_string().contains("/worker"), "{status:#}");
    let app = get("/status?app=/web").text();
    assert!(app.contains("10.0.0.1"), "{app}");
    assert_eq!(get("/status?app=/nobody").status(), 404);
    assert_eq!(get("/nothing").status(), 404);
    marathon.kill();
    redis.kill();
    eventually(DEADLINE, "it is not ready", || get("/readyz").status() == 503);
}

/// Connections that ask for nothing cannot keep a monitor out, and a page of the web that leads its own name
/// here (DNS rebinding) reads nothing.
#[test]
fn the_admin_listener_is_for_monitors() {
    let marathon = Marathon::start(Dialect::V1_9);
    let redis = Redis::start();
    let args = ["--admin", "127.0.0.1:0", "--admin-hosts", "sync1.example.com"];
    let sync = MarathonSync::builder(&marathon, &redis).args(&args).start();
    let address = admin(&sync);
    let _silent: Vec<_> = (0..200).map(|_| integration::client::Client::connect(address)).collect();
    for path in ["/livez", "/metrics", "/status"] {
        let get = |host: &str| integration::client::get(address, host, path);
        assert_eq!(get("admin").status(), 200, "{path}");
        assert_eq!(get("sync1.example.com:9090").status(), 200, "{path}");
        let strange = get("evil.test");
        let expected = if path == "/livez" { 200 } else { 403 };
        assert_eq!(strange.status(), expected, "{path}");
        assert_eq!(strange.text().contains("--admin-hosts"), path != "/livez", "{path}");
    }
}
