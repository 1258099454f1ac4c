//! The last known routes on disk (`server.snapshot`): a start without Redis serves what was known,
//! and nothing of it counts once Redis answers.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use integration::backend::Backend;
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::ports::Reserved;
use integration::redis::Redis;
use integration::router::{Builder, Router};
use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;
use tempfile::TempDir;

/// A place that outlives the routers.
struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("snapshot")
    }

    fn inode(&self) -> u64 {
        self.path().metadata().expect("there is a snapshot").ino()
    }
}

fn builder(redis: &Redis, snapshot: &Path) -> Builder {
    Router::builder(redis)
        .unset("server.cache")
        .set("server.admin", "127.0.0.1:0")
        .arg("--snapshot")
        .arg(snapshot.to_str().expect("a path of text"))
}

fn admin(router: &Router) -> SocketAddr {
    let url = router.admin().expect("an admin listener");
    url.trim_start_matches("http://").parse().expect("an address")
}

fn answer(router: &Router, host: &str) -> String {
    let response = get(router.addr(), host, "/");
    match response.status() {
        200 => response.text(),
        status => status.to_string(),
    }
}

fn shows(router: &Router, line: &str) -> bool {
    get(admin(router), "admin", "/metrics").text().lines().any(|shown| shown == line)
}

#[track_caller]
fn stop(router: &Router) {
    router.signal(Signal::SIGTERM);
    assert_eq!(router.wait(DEADLINE).code(), Some(0));
}

/// A router that has asked for `hosts` and ended in an orderly way.
#[track_caller]
fn learn(redis: &Redis, disk: &Disk, hosts: &[&str]) {
    let router = builder(redis, &disk.path()).start();
    for host in hosts {
        get(router.addr(), host, "/");
    }
    stop(&router);
}

#[test]
fn known_hosts_are_served_though_redis_is_down_at_the_start() {
    let (redis, disk) = (Redis::start(), Disk::new());
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    redis.frontend("a.test", "id", &[&one.url()]);
    redis.frontend("gone.test", "id", &[&one.url()]);
    redis.frontend("*.w.test", "id", &[&one.url()]);
    learn(&redis, &disk, &["a.test", "gone.test", "x.w.test", "unknown.test"]);
    redis.kill();

    let router = builder(&redis, &disk.path()).start();
    for host in ["a.test", "gone.test", "x.w.test"] {
        assert_eq!(answer(&router, host), "one", "{host}");
    }
    for host in ["y.w.test", "unknown.test"] {
        assert_eq!(answer(&router, host), "503", "{host}");
    }
    router.wait_for_log(&["WARN", "3 hosts are served from the snapshot", "s old"]);
    let ready = get(admin(&router), "admin", "/readyz");
    assert_eq!(ready.status(), 200);
    assert!(ready.text().contains("3 hosts are served from a snapshot"), "{}", ready.text());
    assert!(shows(&router, "router_snapshot_hosts 3"));

    redis.launch();
    redis.frontend("a.test", "id", &[&two.url()]);
    eventually(DEADLINE, "the list of now counts", || answer(&router, "a.test") == "two");
    for host in ["gone.test", "x.w.test"] {
        assert_eq!(answer(&router, host), "400", "{host}");
    }
    router.wait_for_log(&["INFO", "the snapshot counts no more"]);
    assert!(shows(&router, "router_snapshot_hosts 0"));
    assert_eq!(get(admin(&router), "admin", "/readyz").text(), "ok\n");
    redis.kill();
    eventually(DEADLINE, "not ready without Redis", || {
        get(admin(&router), "admin", "/readyz").status() == 503
    });
}

/// Not even for a request that comes while the router is about to connect: it waits for that.
#[test]
fn a_snapshot_never_answers_for_a_redis_that_is_there() {
    let (redis, disk) = (Redis::start(), Disk::new());
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    redis.frontend("a.test", "id", &[&one.url()]);
    learn(&redis, &disk, &["a.test"]);
    redis.frontend("a.test", "id", &[&two.url()]);
    let port = Reserved::new();
    let router = builder(&redis, &disk.path()).set("http.port", port.port());
    redis.pause();
    std::thread::scope(|scope| {
        let router = scope.spawn(|| router.start());
        eventually(DEADLINE, "the port is open", || TcpStream::connect(port.addr()).is_ok());
        let mut client = Client::connect(port.addr());
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        redis.resume();
        assert_eq!(client.response().text(), "two");
        // The router ends with this value, not before the answer.
        drop(router.join());
    });
}

#[test]
fn a_redis_that_is_there_is_believed_from_the_first_request_on() {
    let (redis, disk) = (Redis::start(), Disk::new());
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    redis.frontend("a.test", "id", &[&one.url()]);
    redis.frontend("gone.test", "id", &[&one.url()]);
    learn(&redis, &disk, &["a.test", "gone.test"]);
    redis.frontend("a.test", "id", &[&two.url()]);
    redis.run(&["DEL", "frontend:gone.test"]);
    for mode in ["tracking", "ttl", "off"] {
        let router = builder(&redis, &disk.path()).set("server.cache", mode).start();
        assert_eq!(answer(&router, "a.test"), "two", "{mode}");
        assert_eq!(answer(&router, "gone.test"), "400", "{mode}");
        router.process().kill();
    }
}

/// Hosts that nobody asks for are read anew, too: one that is gone is not served by the next start.
#[test]
fn what_is_gone_from_redis_is_forgotten_on_disk() {
    let (redis, disk) = (Redis::start(), Disk::new());
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    redis.frontend("gone.test", "id", &[&backend.url()]);
    learn(&redis, &disk, &["a.test", "gone.test"]);
    redis.run(&["DEL", "frontend:gone.test"]);
    let router = builder(&redis, &disk.path()).start();
    router.wait_for_log(&["the hosts of the snapshot were read anew", "hosts=2"]);
    stop(&router);
    redis.kill();
    let router = builder(&redis, &disk.path()).start();
    assert_eq!(
        (answer(&router, "a.test"), answer(&router, "gone.test")),
        ("b".into(), "503".into())
    );
}

#[test]
fn a_file_that_is_wrong_is_refused_and_harms_nothing() {
    let (redis, disk) = (Redis::start(), Disk::new());
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    learn(&redis, &disk, &["a.test"]);
    let good = std::fs::read(disk.path()).expect("a snapshot");
    redis.kill();
    let cut = good[..good.len() - 1].to_vec();
    let other = builder(&redis, &disk.path()).arg("--redis=redis://127.0.0.1:1/7");
    for (content, builder, words) in [
        (cut, builder(&redis, &disk.path()), "damaged or cut off"),
        (b"{}".to_vec(), builder(&redis, &disk.path()), "not a snapshot"),
        (good, other, "taken of another Redis"),
    ] {
        std::fs::write(disk.path(), content).expect("writes the file");
        let router = builder.start();
        router.wait_for_log(&["WARN", "snapshot not used", words]);
        assert_eq!(answer(&router, "a.test"), "503", "{words}");
        assert_eq!(get(admin(&router), "admin", "/readyz").status(), 503, "{words}");
    }
    redis.launch();
    redis.frontend("a.test", "id", &[&backend.url()]);
    learn(&redis, &disk, &["a.test"]);
    redis.kill();
    assert_eq!(answer(&builder(&redis, &disk.path()).start(), "a.test"), "b");
}

#[test]
fn a_path_that_can_neither_be_read_nor_written_is_not_said_to_be_replaced() {
    let redis = Redis::start();
    let builder = Router::builder(&redis).file("taken", "a file, no directory");
    let path = builder.path("taken").join("snapshot");
    let router = builder.set("server.snapshot", path.display().to_string()).start();
    router.wait_for_log(&["WARN", "snapshot cannot be written"]);
    router.wait_for_log(&["WARN", "it stays as it is until it can be written"]);
    assert!(!router.log().contains("it is replaced"), "{}", router.log());
}

#[test]
fn a_path_that_cannot_be_written_is_a_warning() {
    let (redis, disk) = (Redis::start(), Disk::new());
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = builder(&redis, &disk.path().join("missing/snapshot")).start();
    router.wait_for_log(&["WARN", "snapshot cannot be written", "writable"]);
    assert!(shows(&router, "router_snapshot_write_failures_total 1"));
    assert_eq!(answer(&router, "a.test"), "b");
    stop(&router);
    assert_eq!(router.log().matches("snapshot cannot be written").count(), 1);
}

/// So that a crash costs no more than the last seconds.
#[test]
fn the_snapshot_is_written_while_the_router_runs() {
    let (redis, disk) = (Redis::start(), Disk::new());
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = builder(&redis, &disk.path()).start();
    assert_eq!(answer(&router, "a.test"), "b");
    eventually(DEADLINE, "there is a snapshot", || disk.path().exists());
    router.process().kill();
    redis.kill();
    assert_eq!(answer(&builder(&redis, &disk.path()).start(), "a.test"), "b");
}

#[test]
fn the_file_stays_as_it_is_while_nothing_changes() {
    let (redis, disk) = (Redis::start(), Disk::new());
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    learn(&redis, &disk, &["a.test"]);
    let inode = disk.inode();
    // Also where each request asks Redis anew, and for hosts that have no list.
    let router = builder(&redis, &disk.path()).set("server.cache", "off").start();
    for _ in 0..5 {
        assert_eq!(answer(&router, "a.test"), "b");
        assert_eq!(answer(&router, "unknown.test"), "400");
    }
    stop(&router);
    assert_eq!(disk.inode(), inode, "with Redis");
    redis.kill();
    let router = builder(&redis, &disk.path()).start();
    assert_eq!(answer(&router, "a.test"), "b");
    stop(&router);
    assert_eq!(disk.inode(), inode, "without Redis");
    redis.launch();
    redis.frontend("a.test", "id", &[&backend.url(), &backend.url()]);
    learn(&redis, &disk, &["a.test"]);
    assert!(disk.inode() != inode, "after a change");
}

#[test]
fn dead_marks_of_the_snapshot_end_when_redis_would_have_ended_them() {
    let (redis, disk) = (Redis::start(), Disk::new());
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    for host in ["a.test", "b.test"] {
        redis.frontend(host, "id", &[&one.url(), &two.url()]);
        redis.run(&["SADD", &format!("dead:{host}"), "0"]);
    }
    redis.run(&["EXPIRE", "dead:a.test", "3600"]);
    redis.run(&["EXPIRE", "dead:b.test", "4"]);
    learn(&redis, &disk, &["a.test", "b.test"]);
    redis.kill();
    let router = builder(&redis, &disk.path()).start();
    eventually(DEADLINE, "the short mark ends", || answer(&router, "b.test") == "one");
    let mut client = Client::connect(router.addr());
    for _ in 0..20 {
        assert_eq!(client.get("a.test", "/").text(), "two");
    }
}

/// A path given by mistake, such as that of the configuration, costs nobody a file.
#[test]
fn a_file_that_is_no_snapshot_is_never_replaced() {
    let (redis, disk) = (Redis::start(), Disk::new());
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    std::fs::write(disk.path(), "precious").expect("writes the file");
    let router = builder(&redis, &disk.path()).start();
    assert_eq!(answer(&router, "a.test"), "b");
    router.wait_for_log(&["WARN", "snapshot cannot be written", "choose another path"]);
    // The last snapshot would be written at the end.
    router.signal(Signal::SIGTERM);
    router.wait(DEADLINE);
    assert_eq!(std::fs::read(disk.path()).expect("the file"), b"precious");
}

/// What is not a regular file is neither read nor replaced; of a link, the target is meant.
#[test]
fn only_regular_files_are_replaced() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let disk = Disk::new();
    nix::unistd::mkfifo(&disk.path(), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let router = builder(&redis, &disk.path()).start();
    assert_eq!(answer(&router, "a.test"), "b");
    router.wait_for_log(&["WARN", "snapshot cannot be written", "not a regular file"]);
    router.signal(Signal::SIGTERM);
    router.wait(DEADLINE);
    assert!(!disk.path().metadata().expect("the pipe").is_file());

    let link = disk.0.path().join("link");
    std::fs::write(disk.0.path().join("linkAbCdEf.tmp"), "").expect("a file");
    let target = disk.0.path().join("target");
    std::fs::write(&target, "").expect("a file");
    std::os::unix::fs::symlink(&target, &link).expect("a link");
    std::fs::write(disk.0.path().join("targetAbCdEf.tmp"), "left over").expect("a file");
    let router = builder(&redis, &link).start();
    assert!(!disk.0.path().join("targetAbCdEf.tmp").exists(), "what a crash left is removed");
    assert!(disk.0.path().join("linkAbCdEf.tmp").exists(), "the files of others stay");
    assert_eq!(answer(&router, "a.test"), "b");
    router.signal(Signal::SIGTERM);
    router.wait(DEADLINE);
    assert!(link.symlink_metadata().expect("the link").is_symlink());
    assert!(target.metadata().expect("the target").len() > 0);
}
