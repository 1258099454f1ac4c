//! The access log: docs/hipache-contract.md 3.

use std::time::SystemTime;

use integration::backend::{Backend, Next};
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::process::read_lossy;
use integration::redis::Redis;
use integration::router::{Builder, Router};
use integration::websocket::Tunnel;
use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;

/// The fields of one line; panics when it has another shape.
#[derive(Debug)]
struct Line {
    client: String,
    time: String,
    request: String,
    status: u16,
    bytes: usize,
    referer: String,
    user_agent: String,
    identifier: String,
    total: String,
    backend: String,
}

fn parse(line: &str) -> Line {
    let complain = || panic!("not an access-log line: {line:?}");
    let (head, rest) = line.split_once(" \"").unwrap_or_else(complain);
    let quoted: Vec<&str> = rest.split('"').collect();
    let [request, middle, referer, _, user_agent, _, identifier, times] = quoted[..] else {
        panic!("not an access-log line: {line:?}")
    };
    let (client, time) = head.split_once(" - - [").unwrap_or_else(complain);
    let (status, bytes) = middle.trim().split_once(' ').unwrap_or_else(complain);
    let (total, backend) =
        times.strip_prefix(' ').and_then(|times| times.split_once(' ')).unwrap_or_else(complain);
    Line {
        client: client.to_owned(),
        time: time.strip_suffix(']').unwrap_or_else(|| panic!("{line:?}")).to_owned(),
        request: request.to_owned(),
        status: status.parse().unwrap_or_else(|_| panic!("{line:?}")),
        bytes: bytes.parse().unwrap_or_else(|_| panic!("{line:?}")),
        referer: referer.to_owned(),
        user_agent: user_agent.to_owned(),
        identifier: identifier.to_owned(),
        total: total.to_owned(),
        backend: backend.to_owned(),
    }
}

fn stage() -> (Redis, Backend, Router) {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id-a.test", &[&backend.url()]);
    let router = Router::start(&redis);
    (redis, backend, router)
}

/// The whole line, field by field.
#[test]
fn a_line_has_hipaches_fields() {
    let (_redis, _backend, router) = stage();
    let response = Client::connect(router.addr()).get_with(
        "a.test",
        "/x?y=1",
        "Referer: http://r/\r\nUser-Agent: test/1.0 (x; y)\r\n",
    );
    let lines = router.access_log(1);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = parse(&lines[0]);
    assert_eq!(line.client, "::ffff:127.0.0.1");
    assert_eq!(line.request, "GET /x?y=1 HTTP/1.1");
    assert_eq!(line.status, 200);
    assert_eq!(line.bytes, response.wire_size(), "bytes written to the socket, headers included");
    assert_eq!((line.referer.as_str(), line.user_agent.as_str()), ("http://r/", "test/1.0 (x; y)"));
    assert_eq!(line.identifier, "id-a.test");
    for time in [&line.total, &line.backend] {
        let seconds: f64 = time.parse().unwrap_or_else(|_| panic!("{line:?}"));
        assert!((0.0..10.0).contains(&seconds), "{line:?}");
        let shown = format!("{}", (seconds * 1000.0).round() / 1000.0);
        assert_eq!(time, &shown, "milliseconds divided by 1000, no padding");
    }
    assert!(line.total.parse::<f64>().unwrap() >= line.backend.parse::<f64>().unwrap(), "{line:?}");
}

/// "UTC time": `23/Nov/2026:09:24:35 +0000`, now, and also in another time zone.
#[test]
fn the_time_is_utc() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).env("TZ", "Asia/Tokyo").start();
    let before = SystemTime::now();
    get(router.addr(), "a.test", "/");
    let line = parse(&router.access_log(1)[0]);
    // `date` is a second opinion on what the clock showed; one of the seconds in between is right.
    let shown = |at: SystemTime| {
        let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let date = std::process::Command::new("date")
            .args(["-u", "-d", &format!("@{seconds}"), "+%d/%b/%Y:%H:%M:%S +0000"])
            .env("LC_ALL", "C")
            .output()
            .expect("date runs");
        String::from_utf8_lossy(&date.stdout).trim().to_owned()
    };
    let spent = before.elapsed().unwrap().as_secs();
    let candidates: Vec<_> =
        (0..=spent + 1).map(|more| shown(before + std::time::Duration::from_secs(more))).collect();
    assert!(candidates.contains(&line.time), "{} is none of {candidates:?}", line.time);
}

/// "Bytes written to the client's socket (headers included)", also of a second request, a `HEAD`,
/// chunks and an error page.
#[test]
fn bytes_are_those_on_the_wire() {
    let (redis, _backend, router) = stage();
    let chunked = Backend::answering(
        "chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    redis.frontend("chunked.test", "id-chunked", &[&chunked.url()]);
    let mut client = Client::connect(router.addr());
    let mut sizes =
        vec![client.get("a.test", "/1").wire_size(), client.get("a.test", "/2").wire_size()];
    client.send("HEAD /3 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    sizes.push(client.response_to("HEAD").wire_size());
    sizes.push(client.get("chunked.test", "/4").wire_size());
    sizes.push(client.get("unknown.test", "/5").wire_size());
    sizes.push(client.post("a.test", "/6", "a body does not count").wire_size());
    let lines: Vec<_> = router.access_log(6).iter().map(|line| parse(line)).collect();
    assert_eq!(lines.iter().map(|line| line.bytes).collect::<Vec<_>>(), sizes);
    assert_eq!(lines[2].request, "HEAD /3 HTTP/1.1");
    assert_eq!(lines[5].request, "POST /6 HTTP/1.1");
}

/// "One line a request that reached a backend choice (**Ours**: unroutable ones too, with
/// identifier `-`)".
#[test]
fn ours_what_could_not_be_routed_is_logged_too() {
    let redis = Redis::start();
    redis.run(&["RPUSH", "frontend:empty.test", "id-empty"]);
    let router = Router::start(&redis);
    get(router.addr(), "unknown.test", "/1");
    get(router.addr(), "empty.test", "/2");
    Client::connect(router.addr()).send("GET /3 HTTP/1.0\r\n\r\n").response();
    get(router.addr(), "bad host", "/4");
    let lines: Vec<_> = router.access_log(4).iter().map(|line| parse(line)).collect();
    let fields: Vec<_> = lines
        .iter()
        .map(|line| (line.request.as_str(), line.status, line.identifier.as_str()))
        .collect();
    assert_eq!(
        fields,
        [
            ("GET /1 HTTP/1.1", 400, "-"),
            ("GET /2 HTTP/1.1", 502, "id-empty"),
            ("GET /3 HTTP/1.0", 400, "-"),
            ("GET /4 HTTP/1.1", 400, "-"),
        ]
    );
    assert_eq!(lines[0].backend, "0");
}

/// "Client address (from `X-Real-IP`, `::ffff:` added when the value does not start with `::`)".
#[test]
fn the_client_address_comes_from_x_real_ip() {
    let (_redis, _backend, router) = stage();
    let mut client = Client::connect(router.addr());
    for value in ["9.8.7.6", "::ffff:1.2.3.4", "::1"] {
        client.get_with("a.test", "/", &format!("X-Real-IP: {value}\r\n"));
    }
    let clients: Vec<_> = router.access_log(3).iter().map(|line| parse(line).client).collect();
    assert_eq!(clients, ["::ffff:9.8.7.6", "::ffff:1.2.3.4", "::1"]);
}

/// **Ours**: IPv6 addresses stand as they are, so that log readers can parse them. Hipache wrote
/// `::ffff:2001:db8::5`.
#[test]
fn ours_an_ipv6_client_has_no_prefix() {
    let (_redis, _backend, router) = stage();
    let mut client = Client::connect(router.addr());
    for value in ["2001:db8::5", "[2001:db8::6]", "[2001:db8::7]:443"] {
        client.get_with("a.test", "/", &format!("X-Real-IP: {value}\r\n"));
    }
    let clients: Vec<_> = router.access_log(3).iter().map(|line| parse(line).client).collect();
    assert_eq!(clients, ["2001:db8::5", "2001:db8::6", "2001:db8::7"]);
}

/// "Quotes and control characters in a value must not let a client forge a line. **Ours**: they are
/// escaped as nginx does (`\x22`)."
#[test]
fn ours_a_client_cannot_forge_a_line() {
    let (redis, backend, router) = stage();
    redis.frontend("forged.test", "id\" 0 0\nx", &[&backend.url()]);
    let mut client = Client::connect(router.addr());
    client.get_with(
        "a.test",
        "/a\"b",
        "User-Agent: x\" \"y\\\u{e9}\t\r\nReferer: \"\r\nX-Real-IP: 1\" 2\r\n",
    );
    client.get("forged.test", "/");
    let lines = router.access_log(2);
    assert_eq!(lines.len(), 2, "{lines:?}");
    let line = parse(&lines[0]);
    assert_eq!(line.request, "GET /a\\x22b HTTP/1.1");
    assert_eq!(line.user_agent, "x\\x22 \\x22y\\x5C\\xC3\\xA9");
    assert_eq!(line.referer, "\\x22");
    assert_eq!(line.client, "::ffff:1\\x22\\x202");
    assert_eq!(parse(&lines[1]).identifier, "id\\x22 0 0\\x0Ax");
}

/// "`SIGUSR1` reopens the file": after a rotation the new file gets the lines, and none is lost.
#[test]
fn sigusr1_reopens_the_file() {
    let (_redis, _backend, router) = stage();
    let mut client = Client::connect(router.addr());
    client.get("a.test", "/before");
    router.access_log(1);
    let (current, rotated) = (router.path("access.log"), router.path("access.log.1"));
    std::fs::rename(&current, &rotated).expect("rotates");
    client.get("a.test", "/between");
    eventually(DEADLINE, "the old file is still written to", || {
        read_lossy(&rotated).contains("/between")
    });
    router.signal(Signal::SIGUSR1);
    eventually(DEADLINE, "the new file is there", || current.exists());
    client.get("a.test", "/after");
    let lines = router.access_log(1);
    assert_eq!(parse(&lines[0]).request, "GET /after HTTP/1.1");
    assert_eq!(read_lossy(&rotated).lines().count(), 2);
}

/// An existing file is appended to, not cut.
#[test]
fn an_existing_file_is_appended_to() {
    let redis = Redis::start();
    let router = Router::builder(&redis).file("access.log", "an old line\n").start();
    get(router.addr(), "unknown.test", "/new");
    let lines = router.access_log(2);
    assert_eq!(lines[0], "an old line");
    assert_eq!(parse(&lines[1]).request, "GET /new HTTP/1.1");
}

/// The log may go to standard output, or nowhere.
#[test]
fn the_log_may_go_to_standard_output_or_nowhere() {
    let redis = Redis::start();
    let quiet = |builder: Builder| builder.unset("server.accessLog");
    let router = quiet(Router::builder(&redis)).arg("--access-log=stdout").start();
    get(router.addr(), "unknown.test", "/out");
    eventually(DEADLINE, "a line on standard output", || router.stdout().ends_with('\n'));
    assert_eq!(parse(router.stdout().trim_end()).request, "GET /out HTTP/1.1");
    let router = quiet(Router::builder(&redis)).set("server.accessLog", "none").start();
    assert_eq!(get(router.addr(), "unknown.test", "/nowhere").status(), 400);
    assert!(!router.path("none").exists());
}

/// A request that its client gave up is logged as well.
#[test]
fn a_request_that_was_given_up_is_logged() {
    let redis = Redis::start();
    let backend = Backend::hanging("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    client.send("GET /given-up HTTP/1.1\r\nHost: a.test\r\n\r\n");
    backend.wait_for_requests(1);
    drop(client);
    // Its connection to the backend is given up with it.
    backend.wait_for_open(0);
    let line = parse(&router.access_log(1)[0]);
    assert_eq!((line.request.as_str(), line.bytes), ("GET /given-up HTTP/1.1", 0));
}

/// A tunnel has one line, written at its end, with the bytes that went to the client.
#[test]
fn a_tunnel_is_logged_at_its_end() {
    let redis = Redis::start();
    let backend = Backend::upgrading("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut tunnel = Tunnel::open(router.addr(), "a.test", "/tunnel");
    tunnel.echo(&[7; 5000]);
    get(router.addr(), "unknown.test", "/meanwhile");
    let lines = router.access_log(1);
    assert_eq!(lines.len(), 1, "logged before its end: {lines:?}");
    assert_eq!(tunnel.finish(), b"bye");
    let line = parse(&router.access_log(2)[1]);
    assert_eq!((line.request.as_str(), line.status), ("GET /tunnel HTTP/1.1", 101));
    assert_eq!(line.bytes, tunnel.head.raw.len() + 5000 + 3);
    assert_eq!(line.identifier, "id");
}

/// A response that the backend cut is logged with the bytes that there were.
#[test]
fn a_cut_response_is_logged() {
    let redis = Redis::start();
    let gate = integration::gate::Gate::new();
    let backend = Backend::with("b", {
        let gate = gate.clone();
        move |exchange| {
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")?;
            gate.wait()?;
            Ok(Next::Close)
        }
    });
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let head = client.head().expect("a head");
    client.conn().read_exact(5).expect("the start of the body");
    gate.open();
    assert!(client.is_closed());
    let line = parse(&router.access_log(1)[0]);
    assert_eq!((line.status, line.bytes), (200, head.raw.len() + 5));
}

/// The default path is nobody's wish: without its directory there is no log, and no line says otherwise.
#[test]
fn a_default_log_that_cannot_be_opened_is_not_announced() {
    if std::path::Path::new("/var/log/hipache").exists() {
        return;
    }
    let redis = Redis::start();
    let router = Router::builder(&redis).unset("server.accessLog").start();
    router.wait_for_log(&["WARN", "/var/log/hipache/access.log", "no access log is written"]);
    router.wait_for_log(&["serving", "access_log=none"]);
}

/// Whoever is refused before there is a request leaves a line, without a request line: over a limit of
/// connections, with a head that is never finished, and with plain HTTP where TLS is spoken.
#[test]
fn ours_refused_connections_are_logged() {
    let redis = Redis::start();
    let router = Router::builder(&redis).set("server.maxConnections", 1).start();
    // The kernel holds clients back that say nothing; this one is to be the first.
    let mut first = Client::connect(router.addr());
    first.send("GET / ");
    let mut refused = Client::connect(router.addr());
    let answer = refused.response();
    assert_eq!(answer.status(), 503);
    let line = parse(&router.access_log(1)[0]);
    assert_eq!((line.client.as_str(), line.request.as_str()), ("::ffff:127.0.0.1", "-"));
    assert_eq!((line.status, line.bytes), (503, answer.wire_size()));
    assert_eq!((line.identifier.as_str(), line.total.as_str()), ("-", "0"));

    let late = |builder: Builder| builder.set("server.headTimeout", 0.2).start();
    let router = late(Router::builder(&redis).set("http.h2c", true));
    for (start, request) in [
        ("GET / HTTP/1.1\r\nHost: a.te", "GET / HTTP/1.1"),
        ("P", "-"),
        ("PRI * HTTP/2.0\r\n", "-"),
    ] {
        let before = std::fs::read_to_string(router.path("access.log")).unwrap_or_default();
        let mut client = Client::connect(router.addr());
        let answer = client.send(start).response();
        assert_eq!(answer.status(), 408, "{start:?}");
        let lines = router.access_log(before.lines().count() + 1);
        let line = parse(lines.last().expect("a line"));
        assert_eq!((line.request.as_str(), line.status), (request, 408), "{start:?}");
        assert_eq!(line.bytes, answer.wire_size(), "{start:?}");
        assert!(line.total.starts_with("0.2"), "{start:?}: {}", line.total);
    }
    // Who says nothing at all has asked for nothing.
    let router = late(Router::builder(&redis).set("server.firstByteTimeout", 0.2));
    assert!(Client::connect(router.addr()).is_closed());
    Client::connect(router.addr()).send("GET / HTTP/1.1\r\n").response();
    assert_eq!(router.access_log(1).len(), 1);
}

/// The id's field is there where all other lines have one.
#[test]
fn ours_a_refused_connection_has_the_field_of_the_request_id() {
    let redis = Redis::start();
    let limited = Router::builder(&redis).set("server.maxConnections", 1);
    let router = limited.set("server.requestIds", true).start();
    let mut first = Client::connect(router.addr());
    first.send("GET / ");
    Client::connect(router.addr()).response();
    assert!(router.access_log(1)[0].ends_with("\"-\" 0 0 \"-\""), "{:?}", router.access_log(1));
}

/// Each with its line, whatever is wrong with it.
#[test]
fn ours_malformed_requests_are_logged() {
    let (_redis, _backend, router) = stage();
    let long = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(70_000));
    let large = "x".repeat(128 * 1024);
    let large = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {large}\r\n\r\n");
    let cases = [
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", &[400][..]),
        (&long, &[414]),
        (&large, &[431]),
        ("GET / HTTP/2.0\r\nHost: a.test\r\n\r\n", &[505]),
    ];
    for (count, (request, statuses)) in cases.into_iter().enumerate() {
        let mut client = Client::connect(router.addr());
        drop(client.conn().send(request.as_bytes()));
        drop(client.head());
        let lines = router.access_log(count + 1);
        let line = parse(lines.last().expect("a line"));
        assert!(statuses.contains(&line.status), "{line:?}");
    }
}
