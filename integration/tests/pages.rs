//! Scripts that the pages and `compose.yaml` give to operators do what is written about them.

#![allow(clippy::unwrap_used, reason = "a test, also in its helpers")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use integration::redis::Redis;
use pretty_assertions::assert_eq;
use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// A shell in which `redis-cli` without an address, and with that of `compose.yaml`, talks to `redis`.
struct Shell {
    dir: TempDir,
    path: String,
}

impl Shell {
    fn new(redis: &Redis) -> Self {
        let path = std::env::var("PATH").unwrap();
        let program = std::env::split_paths(&path).map(|dir| dir.join("redis-cli"));
        let program = program.into_iter().find(|file| file.exists()).expect("redis-cli is there");
        let dir = tempfile::tempdir().unwrap();
        let wrapper = dir.path().join("redis-cli");
        // The socket takes precedence over -h.
        let (program, socket) = (program.display(), redis.socket());
        let text = format!("#!/bin/sh\nexec '{program}' -s '{}' \"$@\"\n", socket.display());
        std::fs::write(&wrapper, text).unwrap();
        std::fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{path}", dir.path().display());
        Self { dir, path }
    }

    fn run(&self, script: &str) -> Output {
        Command::new("sh")
            .args(["-ec", script])
            .env("PATH", &self.path)
            .env_remove("REDISCLI_AUTH")
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// `contrib/backup-routes`, in a file of that name.
    fn back_up(&self, file: &str) -> Output {
        let script = root().join("contrib/backup-routes");
        self.run(&format!("'{}' > {file}", script.display()))
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }
}

/// The command of the page that contains `words`.
fn command_with<'a>(page: &'a str, words: &str) -> &'a str {
    let blocks = page.split("```\n").skip(1).step_by(2);
    let mut lines = blocks.flat_map(str::lines).filter(|line| line.contains(words));
    lines.next().unwrap_or_else(|| panic!("{words} is in no command"))
}

#[test]
fn routes_are_restored_as_they_were_backed_up() {
    let redis = Redis::start();
    let odd = "it's \"odd\" $HOME `id` \\n\n\r\t\u{e9} 12) \"x\"";
    redis.frontend("www.example.com", "mysite", &["http://a:1", "http://b:1"]);
    redis.frontend("*.example.com", odd, &["http://c:1", "http://c:1"]);
    redis.frontend("a \"b\"\n'c'.test", "", &["http://d:1"]);
    let many: Vec<String> = (0..2000).map(|n| format!("http://10.0.0.1:{n}")).collect();
    redis.frontend("many.test", "many", &many.iter().map(String::as_str).collect::<Vec<_>>());
    redis.run(&["HSET", "options:www.example.com", "hsts", "on", "backend-ca", "-----\nab\n"]);
    redis.run(&["HSET", "tls:*.example.com", "certificate", "-----\nab\n", "key", odd]);
    redis.run(&["HSET", "marathon-sync:default:owned", "a.test", r#"{"made":true,"rows":[]}"#]);
    let shell = Shell::new(&redis);
    let output = shell.back_up("routes.redis");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let dump = || {
        let mut lines: Vec<_> = redis.dump().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = dump();

    // What is not in the file stays, what was changed is replaced.
    redis.run(&["FLUSHALL"]);
    redis.frontend("www.example.com", "other", &["http://z:1"]);
    redis.run(&["HSET", "options:www.example.com", "sticky", "on"]);
    let page = read("docs/day-two.md");
    let output = shell.run(&format!("{} || true", command_with(&page, "< routes.redis")));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing was refused");
    assert_eq!(dump(), before);

    redis.run(&["FLUSHALL"]);
    shell.run(command_with(&page, "'DEL \"frontend:www.example.com\"'"));
    let rows: Vec<String> = redis.query(&["LRANGE", "frontend:www.example.com", "0", "-1"]);
    assert_eq!(rows, ["mysite", "http://a:1", "http://b:1"]);
    assert_eq!(redis.query::<u64>(&["DBSIZE"]), 1, "the one host alone");
}

#[test]
fn incomplete_backup_of_routes_fails() {
    let redis = Redis::start();
    redis.frontend("a.test", "id", &["http://a:1"]);
    redis.run(&["SET", "frontend:wrong.test", "text"]);
    let shell = Shell::new(&redis);
    let output = shell.back_up("routes.redis");
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("\"frontend:wrong.test\": (error) WRONGTYPE"), "{errors}");
    assert!(shell.file("routes.redis").contains("RPUSH \"frontend:a.test\" \"id\""), "the others");

    let locked = Redis::with_password("pw");
    let output = Shell::new(&locked).back_up("routes.redis");
    assert!(!output.status.success(), "{output:?}");
    redis.kill();
    assert!(!shell.back_up("routes.redis").status.success());
}

/// A refused command must not look like a demo that works: `redis-cli` ends with 0 by itself.
#[test]
fn seed_of_compose_fails_when_redis_refuses() {
    let compose = read("compose.yaml");
    let service = compose.split("\n  seed:\n").nth(1).unwrap();
    let script = service.split("- |\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let script = script.replace("$$", "$");
    let redis = Redis::start();
    let shell = Shell::new(&redis);
    let output = shell.run(&script);
    assert!(output.status.success(), "{output:?}");
    let rows: Vec<String> = redis.query(&["LRANGE", "frontend:demo.localhost", "0", "-1"]);
    assert_eq!(rows, ["demo", "http://demo-one:8000", "http://demo-two:8000"]);

    let locked = Redis::with_password("pw");
    let shell = Shell::new(&locked);
    let output = shell.run(&script);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("seed: Redis refused"), "{output:?}");
    let password = shell.dir.path().join("password");
    std::fs::write(&password, "pw").unwrap();
    let secret = password.display().to_string();
    let output = shell.run(&script.replace("/run/secrets/redis_password", &secret));
    assert!(output.status.success(), "{output:?}");
}
