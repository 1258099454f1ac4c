//! The answers that the router gives itself: the table of answers, error pages and `X-Debug` in
//! docs/hipache-contract.md 2.

use std::net::SocketAddr;

use integration::backend::Backend;
use integration::client::{Client, Response, debug_get, get};
use integration::eventually::{DEADLINE, eventually};
use integration::ports::Reserved;
use integration::redis::Redis;
use integration::router::Router;
use pretty_assertions::assert_eq;

/// Hosts that each get another error, with the status and the words of `x-debug-error`.
const ERRORS: [(&str, u16, &str); 5] = [
    ("unknown.test", 400, "frontend not found"),
    ("empty.test", 502, "Cannot find a valid backend"),
    ("invalid.test", 502, "backend is invalid"),
    ("refusing.test", 502, "Reached max retries limit"),
    ("silent.test", 504, "backend timed out"),
];

/// A Redis with what provokes [`ERRORS`]; the parts have to stay alive.
fn stage() -> (Redis, Reserved, Backend) {
    let (redis, refusing, silent) = (Redis::start(), Reserved::new(), Backend::hanging("silent"));
    redis.run(&["RPUSH", "frontend:empty.test", "id"]);
    redis.frontend("invalid.test", "id", &["garbage"]);
    redis.frontend("refusing.test", "id", &[&refusing.url()]);
    redis.frontend("silent.test", "id", &[&silent.url()]);
    (redis, refusing, silent)
}

fn assert_error_headers(response: &Response) {
    let kind = response.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/html"), "{response:?}");
    assert_eq!(response.head.values("cache-control"), ["no-cache"], "{response:?}");
    assert_eq!(response.head.values("pragma"), ["no-cache"], "{response:?}");
    assert_eq!(response.head.values("expires"), ["-1"], "{response:?}");
}

/// "Error answers carry `content-type: text/html`, `cache-control: no-cache`, `pragma: no-cache`,
/// `expires: -1`"; "built-in pages when `staticDir` is null".
#[test]
fn every_error_is_a_page_that_nobody_caches() {
    let (redis, _refusing, _silent) = stage();
    let router = Router::builder(&redis).set("server.tcpTimeout", 0.5).start();
    for (host, status, _) in ERRORS {
        let response = get(router.addr(), host, "/");
        assert_eq!(response.status(), status, "{host}");
        assert_error_headers(&response);
        assert!(response.text().contains("<html"), "{host}: {}", response.text());
        assert!(response.text().contains(&status.to_string()), "{host}: {}", response.text());
        assert!(!response.head.has("x-debug-error"), "{host}");
        assert!(!response.text().contains("127.0.0.1"), "a page shows what is behind the router");
    }
}

/// "With `X-Debug` also `x-debug-error` (…) and the version header."
#[test]
fn with_x_debug_an_error_says_why() {
    let (redis, _refusing, _silent) = stage();
    let router = Router::builder(&redis).set("server.tcpTimeout", 0.5).start();
    for (host, status, text) in ERRORS {
        let response = debug_get(router.addr(), host, "/");
        assert_eq!(response.status(), status, "{host}");
        assert_eq!(response.header("x-debug-error"), Some(text), "{host}");
        assert!(response.head.has("x-debug-version-hipache"), "{host}");
        assert_error_headers(&response);
    }
}

/// **Ours**: beside Hipache's words stands what happened, with the backend and the system's error, and
/// the log has it once, also for a host with one backend.
#[test]
fn ours_the_cause_of_a_502_is_named_in_the_answer_and_once_in_the_log() {
    let (redis, refusing, silent) = stage();
    let (closing, garbage) =
        (Backend::closing("closing"), Backend::answering("garbage", "SSH-2.0-x\r\n"));
    redis.frontend("closing.test", "id", &[&closing.url()]);
    redis.frontend("garbage.test", "id", &[&garbage.url()]);
    redis.frontend("nowhere.test", "id", &["http://nowhere.invalid:80"]);
    redis.frontend("dead.test", "id", &[&closing.url(), &closing.url()]);
    redis.run(&["SADD", "dead:dead.test", "0", "1"]);
    redis.run(&["SET", "frontend:string.test", "x"]);
    let router = Router::builder(&redis).set("server.tcpTimeout", 0.5).start();
    for (host, url, cause) in [
        ("empty.test", "", "the list holds no backends"),
        ("invalid.test", "", "it is neither a URL nor host:port"),
        ("refusing.test", &*refusing.url(), "os error 111"),
        ("silent.test", &*silent.url(), "did not answer in time"),
        ("closing.test", &*closing.url(), "closed the connection before its answer"),
        ("garbage.test", &*garbage.url(), "the backend's answer is not valid HTTP"),
        ("nowhere.test", "http://nowhere.invalid:80", "cannot resolve nowhere.invalid"),
        ("dead.test", "", "all 2 backends are marked dead"),
        ("string.test", "", "frontend:string.test"),
    ] {
        for _ in 0..3 {
            let response = debug_get(router.addr(), host, "/");
            let named = response.header("x-debug-error-cause").expect(host);
            assert!(named.contains(cause) && named.starts_with(url), "{host}: {named}");
            assert!(!get(router.addr(), host, "/").head.has("x-debug-error-cause"), "{host}");
        }
        let line = router.wait_for_log(&["host answered with", host, url, cause]);
        assert!(line.contains("WARN"), "{line}");
        assert_eq!(lines(&router, "host answered with", host), 1, "{host}");
    }
    let response = debug_get(router.addr(), "unknown.test", "/");
    assert!(!response.head.has("x-debug-error-cause"));
    assert_eq!(lines(&router, "host answered with", "unknown.test"), 0);
}

/// **Ours**: that a host is well again is logged once. Hosts under a wildcard, of which clients can make
/// up any number, share a line.
#[test]
fn ours_a_host_that_is_well_again_is_logged_once() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("*.w.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    backend.kill();
    for number in 0..5 {
        assert_eq!(get(router.addr(), &format!("{number}.w.test"), "/").status(), 502);
    }
    assert_eq!(lines(&router, "host answered with", "*.w.test"), 1);
    backend.revive();
    eventually(DEADLINE, "the host is well again", || {
        assert_eq!(get(router.addr(), "new.w.test", "/").text(), "b");
        lines(&router, "INFO", "is answered by its backends again") == 1
    });
    get(router.addr(), "new.w.test", "/");
    assert_eq!(lines(&router, "INFO", "is answered by its backends again"), 1);
}

/// Lines of the log with both of these.
fn lines(router: &Router, words: &str, host: &str) -> usize {
    router.log().lines().filter(|line| line.contains(words) && line.contains(host)).count()
}

/// "no Host header (HTTP/1.0): 400", `x-debug-error` `no host header`; HTTP/1.1 without one is
/// wrong anyway (RFC 9112 3.2).
#[test]
fn without_a_host_header_the_answer_is_400() {
    let redis = Redis::start();
    let router = Router::start(&redis);
    for version in ["1.0", "1.1"] {
        let mut client = Client::connect(router.addr());
        let response =
            client.send(format!("GET / HTTP/{version}\r\nX-Debug: 1\r\n\r\n")).response();
        assert_eq!(response.status(), 400, "HTTP/{version}");
        assert_eq!(response.header("x-debug-error"), Some("no host header"), "HTTP/{version}");
    }
}

/// More than one Host, or one that is no `host[:port]`: nobody may guess whose request it is.
#[test]
fn an_ambiguous_host_is_refused() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("*", "id", &[&backend.url()]);
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let refused = |lines: &str| {
        let mut client = Client::connect(router.addr());
        let response = client.send(format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n")).response();
        assert_eq!(response.status(), 400, "{lines:?}");
    };
    refused("Host: a.test\r\nHost: b.test");
    refused("Host: a.test\r\nHost: a.test");
    for host in [
        "",
        "a test",
        "a.test/x",
        "u@a.test",
        "a.test,b.test",
        "a\\b",
        "\"a.test\"",
        "a.test:x",
        "a.test:99999",
        "a.test:-1",
        "ä.test",
        "a..test",
        "*",
        "*.test",
        "a.test:80:80",
        "[::1",
        "a.test?x",
        "a.test#x",
        "a\tb",
    ] {
        refused(&format!("Host: {host}"));
    }
    refused(&format!("Host: {}.test", "a".repeat(300)));
    assert_eq!(backend.connections(), 0);
}

/// "The page is `<staticDir>/error_<code>.html`, else `error_default.html`, else plain text".
#[test]
fn the_operators_own_pages_are_used() {
    let (redis, _refusing, _silent) = stage();
    let router = Router::builder(&redis)
        .file("pages/error_400.html", "<b>own 400</b>")
        .file("pages/error_default.html", "<b>own default</b>")
        .set("server.staticDir", "pages")
        .start();
    let response = get(router.addr(), "unknown.test", "/");
    assert_eq!((response.status(), response.text().as_str()), (400, "<b>own 400</b>"));
    assert_error_headers(&response);
    let response = get(router.addr(), "empty.test", "/");
    assert_eq!((response.status(), response.text().as_str()), (502, "<b>own default</b>"));
    assert_error_headers(&response);
}

/// "… else plain text": a directory without a page still gives the right status.
#[test]
fn without_any_page_the_answer_is_plain_text() {
    let (redis, _refusing, _silent) = stage();
    let router = Router::builder(&redis)
        .file("pages/unrelated.html", "<b>unrelated</b>")
        .set("server.staticDir", "pages")
        .start();
    let response = get(router.addr(), "unknown.test", "/");
    assert_eq!(response.status(), 400);
    assert!(!response.text().contains('<'), "{}", response.text());
}

/// "An operator's own pages are re-read without a restart."
#[test]
fn a_changed_page_is_used_without_a_restart() {
    let redis = Redis::start();
    let router = Router::builder(&redis)
        .file("pages/error_400.html", "before")
        .set("server.staticDir", "pages")
        .start();
    let page = || get(router.addr(), "unknown.test", "/").text();
    assert_eq!(page(), "before");
    std::fs::write(router.path("pages/error_400.html"), "after").expect("own file");
    eventually(DEADLINE, "the new page is served", || page() == "after");
    std::fs::remove_file(router.path("pages/error_400.html")).expect("own file");
    std::fs::write(router.path("pages/error_default.html"), "default").expect("own file");
    eventually(DEADLINE, "the default page is served", || page() == "default");
}

/// An error page answers a `HEAD` without a body, and the connection goes on.
#[test]
fn an_error_page_does_not_end_the_connection() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    client.send("HEAD / HTTP/1.1\r\nHost: unknown.test\r\n\r\n");
    assert_eq!(client.response_to("HEAD").status(), 400);
    assert_eq!(client.get("unknown.test", "/").status(), 400);
    assert_eq!(client.post("unknown.test", "/", "a body").status(), 400);
    assert_eq!(client.get("a.test", "/").text(), "b");
}

fn debug(addr: SocketAddr, value: &str) -> Response {
    Client::connect(addr).get_with("a.test", "/x?y", &format!("X-Debug: {value}\r\n"))
}

/// "With a request header `X-Debug` (any value) the response gets `x-debug-version-hipache`,
/// `x-debug-backend-url` (with trailing slash), `x-debug-backend-id` (position), `x-debug-vhost`
/// (the identifier), `x-debug-frontend-key` (requested host), `x-debug-time-total`,
/// `x-debug-time-backend` (milliseconds)."
#[test]
fn x_debug_shows_the_way_of_a_request() {
    let redis = Redis::start();
    let (dead, backend) = (Reserved::new(), Backend::start("b"));
    redis.frontend("*.test", "my app", &[&dead.url(), &backend.url()]);
    redis.run(&["SADD", "dead:a.test", "0"]);
    let router = Router::start(&redis);
    for value in ["1", "0", "false", ""] {
        let response = debug(router.addr(), value);
        assert_eq!(response.text(), "b");
        let header = |name| response.header(name).unwrap_or_else(|| panic!("{name}: {response:?}"));
        assert!(!header("x-debug-version-hipache").is_empty());
        assert_eq!(header("x-debug-backend-url"), format!("{}/", backend.url()));
        assert_eq!(header("x-debug-backend-id"), "1");
        assert_eq!(header("x-debug-vhost"), "my app");
        assert_eq!(header("x-debug-frontend-key"), "a.test");
        let total: u64 = header("x-debug-time-total").parse().expect("milliseconds");
        let time: u64 = header("x-debug-time-backend").parse().expect("milliseconds");
        assert!(time <= total && total < 10_000, "{time} of {total}");
    }
    let quiet = get(router.addr(), "a.test", "/");
    assert!(!quiet.head.headers.iter().any(|(name, _)| name.to_lowercase().starts_with("x-debug")));
    assert!(backend.requests()[0].head.has("x-debug"), "the header is passed on like any other");
}

/// An identifier that is no header value (any text is allowed in Redis) does not break the answer.
#[test]
fn x_debug_survives_an_identifier_that_is_no_header_value() {
    let redis = Redis::start();
    let backend = Backend::start("b");
    redis.frontend("a.test", "two\r\nlines: x", &[&backend.url()]);
    let router = Router::start(&redis);
    let response = debug(router.addr(), "1");
    assert_eq!(response.text(), "b");
    assert!(!response.head.has("lines"), "{response:?}");
    assert_eq!(response.header("x-debug-backend-id"), Some("0"));
}
