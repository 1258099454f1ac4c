//! marathon-sync's writes to a real Redis: whole lists only, marks that stay with their backends,
//! edits by hand in between, one writer at a time.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use integration::eventually::{DEADLINE, eventually};
use integration::redis::Redis;
use marathon_sync::plan::{Plan, Wanted};
use marathon_sync::routes::Routes;
use marathon_sync::routes::apply::{Applied, WriteError};
use marathon_sync::routes::diff::diff;
use marathon_sync::routes::lease::{Lease, Standing};
use marathon_sync::routes::render::render;
use pretty_assertions::assert_eq;
use shared::driver::Driver;
use shared::store::{Client, StoreConfig};
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "me";
/// Long beside any pause of a loaded machine, so that no lease is lost by chance.
const TTL: Duration = Duration::from_secs(3);
const LEASE: &str = "marathon-sync:blue:lease";
const OWNED: &str = "marathon-sync:blue:owned";

async fn connect(driver: &str) -> Routes {
    let config = StoreConfig {
        drivers: vec![Driver::parse(driver).expect("a driver")],
        connect_timeout: DEADLINE,
        response_timeout: DEADLINE,
    };
    let client = Client::start(&config, &CancellationToken::new());
    assert!(client.wait_until_up(DEADLINE).await);
    Routes::new(client, "blue")
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

/// "No half-written list is ever observed by a concurrent reader": it sees the lists before and
/// after each change and nothing else, and the mark is always on the same backend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_concurrent_reader_never_sees_a_half_written_list() {
    const SICK: &str = "http://sick.test:1";
    let (redis, routes) = stage().await;
    let redis = Arc::new(redis);
    redis.frontend("a.test", "id", &["http://0.test:1", SICK]);
    redis.run(&["SADD", "dead:a.test", "1"]);
    let allowed = Arc::new(Mutex::new(HashSet::from([list(&redis, "a.test")])));
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::task::spawn_blocking({
        let (redis, allowed, done) = (Arc::clone(&redis), Arc::clone(&allowed), Arc::clone(&done));
        move || {
            let look =
                "return {redis.call('LRANGE', KEYS[1], 0, -1), redis.call('SMEMBERS', KEYS[2])}";
            let mut seen = HashSet::new();
            while !done.load(Ordering::Relaxed) {
                let (list, dead): (Vec<String>, Vec<usize>) =
                    redis.query(&["EVAL", look, "2", "frontend:a.test", "dead:a.test"]);
                assert!(allowed.lock().unwrap().contains(&list), "{list:?}");
                let dead: Vec<&String> = dead.iter().map(|position| &list[position + 1]).collect();
                assert_eq!(dead, [SICK], "{list:?}");
                seen.insert(list);
            }
            seen.len()
        }
    });
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..1000 {
        let mut up: Vec<String> = (0..12)
            .filter(|_| random.bool())
            .map(|number| format!("http://{number}.test:1"))
            .collect();
        random.shuffle(&mut up);
        up.insert(random.usize(0..=up.len()), SICK.to_owned());
        let plan = Plan::from([("a.test".to_owned(), wanted(&up))]);
        let snapshot = routes.snapshot(&plan).await.unwrap();
        let changes = diff(&plan, &snapshot).changes;
        for change in &changes {
            let after = change.after().into_iter().map(|row| String::from_utf8(row).unwrap());
            allowed.lock().unwrap().insert(after.collect());
        }
        all_written(&routes.apply(&plan, changes, TOKEN).await);
        if reader.is_finished() {
            break;
        }
    }
    done.store(true, Ordering::Relaxed);
    let seen = reader.await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert!(seen > 10, "the reader saw only {seen} lists");
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_follow_their_backends_and_keep_their_expiry() {
    let (redis, routes) = stage().await;
    for case @ (before, dead, up, after, dead_after) in [
        ("a b c", "0 2", "b c d", "b c d", "1"),
        ("a b c d", "1 2", "b d e", "b d e", "0"),
        ("a b c d", "1 2 3", "b c d", "b c d", "0 1 2"),
        ("a b", "1", "a b c", "a b c", "1"),
        // Marks of positions that were not there must not fall on new backends.
        ("a b", "1 2 9", "a b c", "a b c", "1"),
        ("a b", "0", "b", "b", ""),
        ("a b", "0 1", "c", "c", ""),
        ("a b", "", "b", "b", ""),
        ("a b a", "0 2", "a c", "a a c", "0 1"),
        ("a b c", "junk -1 2", "b c", "b c", "-1 1 junk"),
        ("a b", "0 junk", "b", "b", "junk"),
    ] {
        let url = |text: &'static str| text.split_whitespace().map(row);
        redis.run(&["FLUSHALL"]);
        redis.run(&["SET", LEASE, TOKEN]);
        let rows: Vec<String> = url(before).collect();
        redis.frontend("a.test", "id", &rows.iter().map(String::as_str).collect::<Vec<_>>());
        for position in dead.split_whitespace() {
            redis.run(&["SADD", "dead:a.test", position]);
        }
        for key in ["dead:a.test", "frontend:a.test"] {
            redis.run(&["EXPIRE", key, "1000"]);
        }
        let plan = Plan::from([("a.test".to_owned(), wanted(&url(up).collect::<Vec<_>>()))]);
        all_written(&sync(&routes, &plan, TOKEN).await);
        let expected: Vec<String> = std::iter::once("id".to_owned()).chain(url(after)).collect();
        assert_eq!(list(&redis, "a.test"), expected, "{case:?}");
        let marks: Vec<String> = redis.dead("a.test").into_iter().collect();
        assert_eq!(marks.join(" "), dead_after, "{case:?}");
        for key in ["dead:a.test", "frontend:a.test"] {
            let left: i64 = redis.query(&["TTL", key]);
            let exists: bool = redis.query(&["EXISTS", key]);
            assert!(!exists || (1..=1000).contains(&left), "{key} {left} {case:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_by_hand_in_between_is_compared_again() {
    let (redis, routes) = stage().await;
    let key = "frontend:a.test";
    for (up, edit, after) in [
        ("c b", &["RPUSH", key, "http://hand:1"][..], "id b c"),
        ("a b c", &["RPUSH", key, "http://c:1"], "id a b c"),
        ("c b", &["LSET", key, "2", "http://B:1/"], "id http://B:1/ c"),
        ("c b", &["LSET", key, "0", "new"], "new b c"),
        ("c b", &["LREM", key, "0", "http://b:1"], "id c b"),
        ("c b", &["LPUSH", key, "new"], "new b c"),
        ("c b", &["DEL", key], "id c b"),
    ] {
        redis.frontend("a.test", "id", &["http://a:1", "http://b:1"]);
        let up: Vec<String> = up.split(' ').map(row).collect();
        let plan = Plan::from([("a.test".to_owned(), wanted(&up))]);
        let changes = diff(&plan, &routes.snapshot(&plan).await.unwrap()).changes;
        redis.run(edit);
        let applied = routes.apply(&plan, changes, TOKEN).await;
        all_written(&applied);
        assert_eq!(applied.written.len(), 1, "{edit:?}");
        let after: Vec<String> = after.split(' ').map(row).collect();
        assert_eq!(list(&redis, "a.test"), after, "{edit:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_by_hand_in_between_is_reported_and_harms_no_other_list() {
    let (redis, routes) = stage().await;
    let first = plan(&[("a.test", &["http://a:1", "http://b:1"])]);
    all_written(&sync(&routes, &first, TOKEN).await);
    let hosts: &[(&str, &[&str])] = &[
        ("a.test", &["http://b:1", "http://c:1"]),
        ("b.test", &["http://b:1"]),
        ("c.test", &["http://c:1"]),
    ];
    let next = plan(hosts);
    let changes = diff(&next, &routes.snapshot(&next).await.unwrap()).changes;
    assert_eq!(changes.len(), 3);
    redis.run(&["LPUSH", "frontend:a.test", "new id"]);
    redis.run(&["RPUSH", "frontend:a.test", "http://hand:1"]);
    redis.run(&["SET", "frontend:b.test", "no list"]);
    let applied = routes.apply(&next, changes, TOKEN).await;
    assert_eq!(list(&redis, "a.test"), ["new id", "http://b:1", "http://c:1"]);
    assert_eq!(list(&redis, "c.test"), ["id", "http://c:1"]);
    let change = applied.written.iter().find(|change| change.host == "a.test").unwrap();
    assert_eq!(
        change.to_string(),
        "a.test: update, +http://c:1 -id (added by hand) -http://a:1 -http://hand:1 (added by hand)"
    );
    let failed: Vec<&String> = applied.failed.keys().collect();
    assert_eq!(failed, ["b.test"], "{applied:?}");
    assert!(matches!(applied.failed["b.test"], WriteError::NoList(_)), "{applied:?}");
    let difference = diff(&next, &routes.snapshot(&next).await.unwrap());
    assert_eq!(difference.changes, []);
    assert_eq!(difference.problems[0].key, "frontend:b.test");
}

/// "No double writing": whoever has lost the lease writes nothing, whatever it believes.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_token_writes_nothing() {
    let (redis, routes) = stage().await;
    let plan: Plan = (0..300).map(|app| (format!("{app}.test"), wanted(&["http://a:1"]))).collect();
    for holder in [Some("another"), None] {
        redis.run(&["DEL", LEASE]);
        if let Some(holder) = holder {
            redis.run(&["SET", LEASE, holder]);
        }
        let before = redis.calls("eval");
        let applied = sync(&routes, &plan, TOKEN).await;
        assert!(applied.is_lease_lost() && applied.written.is_empty(), "{applied:?}");
        assert_eq!(applied.failed.len(), plan.len());
        assert!(redis.calls("eval") - before < 200, "it stops at once");
        assert_eq!(redis.query::<usize>(&["EXISTS", "frontend:0.test", OWNED]), 0);
    }
}

/// One writes without end; the lease changes hands in the middle; from then on only the other's
/// writes count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_only_the_holder_of_the_lease_writes() {
    let (redis, routes) = stage().await;
    let written = Arc::new(AtomicBool::new(false));
    let old = tokio::spawn({
        let written = Arc::clone(&written);
        async move {
            for number in 0..u64::MAX {
                let up = format!("http://old{number}:1");
                let applied = sync(&routes, &plan(&[("a.test", &[&up])]), TOKEN).await;
                if applied.is_lease_lost() {
                    return applied.written.len();
                }
                written.store(true, Ordering::Relaxed);
            }
            0
        }
    });
    eventually(DEADLINE, "the first writes", || written.load(Ordering::Relaxed));
    redis.run(&["SET", LEASE, "other"]);
    let other = connect(&redis.url()).await;
    let mine = plan(&[("a.test", &["http://new:1"])]);
    all_written(&sync(&other, &mine, "other").await);
    assert_eq!(list(&redis, "a.test"), ["id", "http://new:1"]);
    assert_eq!(old.await.unwrap(), 0);
    assert_eq!(list(&redis, "a.test"), ["id", "http://new:1"]);
}

/// "Keys of deleted apps go, hand-made keys and hand-added backends are never touched", also by a
/// process that has only just started.
#[tokio::test(flavor = "multi_thread")]
async fn ownership_survives_a_restart() {
    let (redis, routes) = stage().await;
    redis.frontend("hand.test", "hand", &["http://hand:1"]);
    redis.frontend("taken.test", "bridge", &["http://b:1"]);
    let up: &[&str] = &["http://a:1", "http://b:1"];
    let first = plan(&[
        ("made.test", up),
        ("mixed.test", up),
        ("taken.test", up),
        ("kept.test", up),
        ("zero.test", &[]),
    ]);
    all_written(&sync(&routes, &first, TOKEN).await);
    redis.run(&["RPUSH", "frontend:mixed.test", "http://hand:1"]);
    redis.run(&["SADD", "dead:made.test", "0"]);
    redis.run(&["SADD", "dead:zero.test", "0"]);
    drop(routes);

    let routes = connect(&redis.url()).await;
    let next = plan(&[("kept.test", up)]);
    all_written(&sync(&routes, &next, TOKEN).await);
    let mut keys: Vec<String> = redis.query(&["KEYS", "*"]);
    keys.sort();
    let frontends = ["hand", "kept", "mixed", "taken"].map(|name| format!("frontend:{name}.test"));
    assert_eq!(keys, [&frontends[..], &[LEASE.to_owned(), OWNED.to_owned()]].concat());
    assert_eq!(list(&redis, "hand.test"), ["hand", "http://hand:1"]);
    assert_eq!(list(&redis, "mixed.test"), ["id", "http://hand:1"]);
    assert_eq!(list(&redis, "taken.test"), ["bridge"]);
    let owned: Vec<String> = redis.query(&["HKEYS", OWNED]);
    assert_eq!(owned, ["kept.test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_rebuilt_after_redis_lost_its_data() {
    let redis = Redis::start();
    let routes = connect(&redis.url()).await;
    let shutdown = CancellationToken::new();
    let lease = Lease::start(&routes, "me", TTL, &shutdown);
    let plan = plan(&[("a.test", &["http://a:1"]), ("*.b.test", &["http://b:1"])]);
    let mut standing = lease.subscribe();
    let mut last = 0;
    for loss in ["none yet", "FLUSHALL", "restart"] {
        match loss {
            "FLUSHALL" => redis.run(&["FLUSHALL"]),
            "restart" => {
                redis.kill();
                redis.launch();
            }
            _ => {}
        }
        let leads_anew =
            |standing: &Standing| matches!(standing, Standing::Leader { term, .. } if *term > last);
        let now = tokio::time::timeout(DEADLINE, standing.wait_for(leads_anew)).await;
        let Standing::Leader { token, term } = now.expect(loss).unwrap().clone() else {
            unreachable!("waited for a leader")
        };
        last = term;
        all_written(&sync(&routes, &plan, &token).await);
        assert_eq!(list(&redis, "a.test"), ["id", "http://a:1"], "{loss}");
        assert_eq!(list(&redis, "*.b.test"), ["id", "http://b:1"], "{loss}");
        assert_eq!(redis.query::<usize>(&["HLEN", OWNED]), 2, "{loss}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_passes_on_at_shutdown_and_when_its_holder_is_gone() {
    let redis = Redis::start();
    let routes = connect(&redis.url()).await;
    let shutdown = CancellationToken::new();
    let first = Lease::start(&routes, "first", TTL, &shutdown);
    eventually(DEADLINE, "the first leads", || first.token().is_some());
    let second = Lease::start(&routes, "second", TTL, &CancellationToken::new());
    eventually(
        DEADLINE,
        "the second stands by",
        || matches!(second.standing(), Standing::Standby { leader } if leader.starts_with("first/")),
    );
    assert!(second.token().is_none());
    shutdown.cancel();
    first.ended(DEADLINE).await;
    let held: Option<String> = redis.query(&["GET", LEASE]);
    assert!(held.is_none_or(|holder| holder.starts_with("second/")), "given back");
    eventually(DEADLINE, "the second leads", || second.token().is_some());
    let lost = second.token().unwrap();

    // Somebody else holds it, without renewing it.
    redis.run(&["SET", LEASE, "gone", "PX", "300"]);
    second.suspect();
    eventually(DEADLINE, "the second has lost it", || second.token().as_ref() != Some(&lost));
    eventually(DEADLINE, "and has it again", || second.token().is_some());
    assert!(second.token() > Some(lost), "with another token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_ends_the_leadership() {
    let redis = Redis::start();
    let routes = connect(&redis.url()).await;
    let ttl = Duration::from_millis(600);
    let lease = Lease::start(&routes, "me", ttl, &CancellationToken::new());
    eventually(DEADLINE, "leads", || lease.token().is_some());
    redis.pause();
    eventually(DEADLINE, "leads no longer", || lease.standing() == Standing::Unknown);
    redis.resume();
    eventually(DEADLINE, "leads again", || lease.token().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_scripts_is_told_plainly() {
    let forbidden = Redis::start();
    forbidden.run(&["ACL", "SETUSER", "agent", "on", ">pw", "~*", "+@all", "-eval"]);
    let missing = Redis::with_arguments(&["--rename-command", "EVAL", ""]);
    for (redis, driver) in [
        (&forbidden, format!("redis://agent:pw@127.0.0.1:{}", forbidden.port())),
        (&missing, missing.url()),
    ] {
        let routes = connect(&driver).await;
        redis.run(&["SET", LEASE, TOKEN]);
        let plan = plan(&[("a.test", &["http://a:1"]), ("b.test", &["http://a:1"])]);
        let applied = sync(&routes, &plan, TOKEN).await;
        assert!(applied.written.is_empty());
        let error = applied.failed.get("a.test").unwrap();
        assert!(matches!(error, WriteError::ScriptsRefused(_)), "{error:?}");
        assert!(error.to_string().contains("EVAL"), "{error}");
        assert_eq!(redis.query::<usize>(&["EXISTS", "frontend:a.test"]), 0);
    }
}

/// What `docs/redis-schema.md` says that the user needs is enough, and one forbidden key harms no
/// other.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_permissions_are_enough() {
    let page = include_str!("../../docs/redis-schema.md");
    let command = page.split("ACL SETUSER marathon-sync ").nth(1).unwrap();
    let rules = command.split("```").next().unwrap().replace("\\\n", " ");
    let redis = Redis::start();
    let mut words = vec!["ACL", "SETUSER", "agent"];
    words.extend(rules.split_whitespace().map(|rule| match rule {
        "~frontend:*" => "~frontend:*.test",
        ">secret" => ">pw",
        other => other,
    }));
    redis.run(&words);
    let routes = connect(&format!("redis://agent:pw@127.0.0.1:{}", redis.port())).await;
    let shutdown = CancellationToken::new();
    let lease = Lease::start(&routes, "me", DEADLINE, &shutdown);
    eventually(DEADLINE, "leads", || lease.token().is_some());
    let token = lease.token().unwrap();
    redis.frontend("hand.test", "id", &["http://hand:1"]);
    for (number, up) in [&["http://a:1", "http://b:1"][..], &["http://b:1"], &[]].iter().enumerate()
    {
        let hosts: &[(&str, &[&str])] = &[("a.test", up), ("hand.test", up)];
        let plan = if up.is_empty() { Plan::new() } else { plan(hosts) };
        redis.run(&["SADD", "dead:a.test", "0", "1"]);
        let applied = sync(&routes, &plan, &token).await;
        all_written(&applied);
        assert_eq!(applied.written.len(), 2, "pass {number}");
    }
    let both = plan(&[("a.test", &["http://a:1"])]);
    let changes = diff(&both, &routes.snapshot(&both).await.unwrap()).changes;
    let mut forbidden = changes[0].clone();
    forbidden.host = "b.other".to_owned();
    let applied = routes.apply(&both, [&[forbidden], &changes[..]].concat(), &token).await;
    assert_eq!(applied.written.len(), 1, "{applied:?}");
    assert!(matches!(applied.failed["b.other"], WriteError::Refused(_)), "{applied:?}");
    shutdown.cancel();
    lease.ended(DEADLINE).await;
    assert_eq!(redis.query::<usize>(&["EXISTS", LEASE]), 0);
}

/// `--dry-run` prints lines that do what the script does; Redis reads them as `redis-cli` does.
#[tokio::test(flavor = "multi_thread")]
async fn the_rendered_lines_do_what_the_script_does() {
    let (typed, _) = stage().await;
    let (scripted, routes) = stage().await;
    for redis in [&typed, &scripted] {
        redis.frontend(
            "odd.test",
            "it's \"odd\"",
            &["it's \\ \"odd\"", "http://a:1", "\n\t", "http://z:1"],
        );
        redis.frontend("same.test", "http://z:1", &["http://z:1", "http://a:1", "http://z:1"]);
    }
    let up: &[&str] = &["http://a:1", "http://b:1"];
    for plan in [
        plan(&[("odd.test", up), ("same.test", up), ("*.wild.test", up), ("none.test", &[])]),
        plan(&[("odd.test", &["http://b:1"]), ("none.test", up)]),
        Plan::new(),
    ] {
        let changes = diff(&plan, &routes.snapshot(&plan).await.unwrap()).changes;
        let mut lines = vec!["PING".to_owned()];
        lines.extend(changes.iter().flat_map(|change| render(change, "", "blue")));
        let mut connection = TcpStream::connect(("127.0.0.1", typed.port())).unwrap();
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        lines.push("QUIT\r\n".to_owned());
        connection.write_all(lines.join("\r\n").as_bytes()).unwrap();
        let mut answers = String::new();
        connection.read_to_string(&mut answers).unwrap();
        assert!(!answers.contains("\r\n-"), "{lines:#?}\n{answers}");
        all_written(&routes.apply(&plan, changes, TOKEN).await);
        let sorted = |redis: &Redis| {
            let mut lines: Vec<String> = redis.dump().lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&typed), sorted(&scripted));
    }
}

/// "A no-change pass writes nothing", and nothing is searched for.
#[tokio::test(flavor = "multi_thread")]
async fn a_pass_without_changes_only_reads() {
    let (redis, routes) = stage().await;
    let up: Vec<String> = (0..10).map(|number| format!("http://10.0.0.{number}:31000")).collect();
    let plan: Plan = (0..1000).map(|app| (format!("app{app}.test"), wanted(&up))).collect();
    let applied = sync(&routes, &plan, TOKEN).await;
    all_written(&applied);
    assert_eq!((applied.written.len(), redis.calls("eval")), (1000, 1000));
    let again = sync(&routes, &plan, TOKEN).await;
    assert!(again.written.is_empty() && again.failed.is_empty());
    for (command, calls) in [("eval", 1000), ("keys", 0), ("scan", 0), ("lrange", 3000)] {
        assert_eq!(redis.calls(command), calls, "{command}");
    }
}
