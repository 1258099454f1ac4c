//! What is asked of the server: permissions, scripts, few commands; and the lines of `--dry-run`.

use std::io::{Read, Write};
use std::net::TcpStream;

use integration::eventually::{DEADLINE, eventually};
use integration::redis::Redis;
use marathon_sync::plan::Plan;
use marathon_sync::routes::apply::WriteError;
use marathon_sync::routes::diff::diff;
use marathon_sync::routes::lease::{Lease, Standing};
use marathon_sync::routes::render::render;
use pretty_assertions::assert_eq;
use tokio_util::sync::CancellationToken;

use super::{LEASE, TOKEN, all_written, connect, plan, stage, sync, wanted};

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
    let page = include_str!("../../../docs/redis-schema.md");
    let command = page.split("ACL SETUSER marathon-sync ").nth(1).unwrap();
    // It stands there for a shell.
    let rules = command.split("```").next().unwrap().replace("\\\n", " ").replace('\'', "");
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
    let second = Lease::start(&routes, "second", DEADLINE, &shutdown);
    let stands_by = |standing: &Standing| matches!(standing, Standing::Standby { .. });
    eventually(DEADLINE, "the second stands by", || stands_by(&second.standing()));
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
    second.ended(DEADLINE).await;
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
