//! Backends that speak TLS: verified, named, and left out when they cannot prove who they are.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};

use integration::backend::Backend;
use integration::certificates::Authority;
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::redis::Redis;
use integration::router::Router;
use integration::tls::Front;
use integration::websocket::Tunnel;
use pretty_assertions::assert_eq;

/// Says the same to everyone, and closes.
struct Answering(u16);

impl Answering {
    fn start(bytes: &'static [u8]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        // Ends with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let _read = stream.read(&mut [0; 1024]);
                let _written = stream.write_all(bytes);
            }
        });
        Self(port)
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.0)
    }
}

fn trusting(redis: &Redis, authority: &Authority) -> Router {
    Router::builder(redis).set("server.backendCa", authority.ca().display().to_string()).start()
}

#[test]
fn an_https_backend_is_verified_by_the_host_of_its_url() {
    let authority = Authority::new();
    let (redis, backend) = (Redis::start(), Backend::start("b"));
    let front = Front::start(&authority.sign(&["localhost"]), backend.port());
    redis.frontend("name.test", "id", &[&front.url("localhost")]);
    redis.frontend("address.test", "id", &[&front.url("127.0.0.1")]);
    let router = trusting(&redis, &authority);
    let mut client = Client::connect(router.addr());
    for _ in 0..3 {
        assert_eq!(client.get("name.test", "/").text(), "b");
        assert_eq!(client.get("address.test", "/").text(), "b");
    }
    // One connection to each, used again; an address is no server name.
    assert_eq!(front.server_names(), [Some("localhost".to_owned()), None]);
    assert_eq!(backend.requests()[0].head.header("host"), Some("name.test"));
}

/// Wrong name, unknown authority, no TLS at all: 502, a dead mark where there is another backend,
/// and a line in the log where there is none.
#[test]
fn a_backend_that_proves_nothing_is_left_out() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (redis, backend) = (Redis::start(), Backend::start("good"));
    let secret = Backend::start("secret");
    let wrong_name = Front::start(&authority.sign(&["other.test"]), secret.port());
    let unknown = Front::start(&other.sign(&["localhost"]), secret.port());
    let plain = Answering::start(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let router = trusting(&redis, &authority);
    for (host, url) in [
        ("wrong.test", wrong_name.url("localhost")),
        ("unknown.test", unknown.url("localhost")),
        ("plain.test", plain.url()),
    ] {
        redis.frontend(host, "id", &[&url]);
        assert_eq!(get(router.addr(), host, "/").status(), 502, "{host}");
        router.wait_for_log(&["WARN", "no TLS with the backend", &url]);
        redis.frontend(host, "id", &[&url, &backend.url()]);
        let mut client = Client::connect(router.addr());
        eventually(DEADLINE, &format!("{host}: a mark"), || {
            assert_eq!(client.get(host, "/").text(), "good", "{host}");
            redis.dead(host) == BTreeSet::from(["0".to_owned()])
        });
    }
    assert!(secret.requests().is_empty(), "nothing was sent to whom nobody knows");
}

#[test]
fn a_websocket_to_an_https_backend_is_a_tunnel() {
    let authority = Authority::new();
    let redis = Redis::start();
    let backend = Backend::with("ws", |exchange| {
        exchange.accept_upgrade()?;
        while let Ok(bytes) = exchange.conn.read_exact(4) {
            exchange.send(&bytes)?;
        }
        Ok(integration::backend::Next::Close)
    });
    let front = Front::start(&authority.sign(&["localhost"]), backend.port());
    redis.frontend("a.test", "id", &[&front.url("localhost")]);
    let router = trusting(&redis, &authority);
    let mut tunnel = Tunnel::open(router.addr(), "a.test", "/");
    tunnel.echo(b"ping");
    tunnel.echo(b"pong");
    assert_eq!(tunnel.finish(), b"");
}

/// A file without a certificate is a mistake at the start, not at the first request.
#[test]
fn a_backend_authority_that_cannot_be_read_is_named() {
    let redis = Redis::start();
    let builder = Router::builder(&redis).file("ca.pem", "garbage");
    let path = builder.path("ca.pem").display().to_string();
    let ended = builder.set("server.backendCa", path.clone()).run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("backendCa") && ended.stderr.contains(&path), "{}", ended.stderr);
}
