//! Tunnels (WebSockets and other upgrades) and the limits that they count in (docs/configuration.md, "Limits
//! of clients").

use integration::backend::Backend;
use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::http2;
use integration::redis::Redis;
use integration::router::{Builder, Router};
use integration::websocket::Tunnel;
use pretty_assertions::assert_eq;

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

/// `a.test` takes every upgrade, `b.test` answers requests.
fn stage(configure: impl FnOnce(Builder) -> Builder) -> (Redis, Router, [Backend; 3]) {
    let backends = [Backend::upgrading("a"), Backend::upgrading("a"), Backend::start("b")];
    let redis = Redis::start();
    redis.frontend("a.test", "id", &[&backends[0].url()]);
    redis.frontend("two.test", "id", &[&backends[0].url(), &backends[1].url()]);
    redis.frontend("b.test", "id", &[&backends[2].url()]);
    let router = configure(Router::builder(&redis)).start();
    (redis, router, backends)
}

/// What an upgrade for `host` is answered with, and the connection.
fn ask(router: &Router, host: &str) -> (Client, u16) {
    let mut client = Client::connect(router.addr());
    // A refused connection may be reset while it is written to.
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{HANDSHAKE}\r\n");
    drop(client.conn().send(request.as_bytes()));
    let status = client.head().map_or(0, |head| head.status());
    (client, status)
}

/// A connection that has become a tunnel is still a connection.
#[test]
fn tunnels_count_as_connections() {
    for key in ["server.maxConnections", "server.maxConnectionsPerAddress"] {
        let (_redis, router, _backends) = stage(|builder| builder.set(key, 3));
        let mut tunnels: Vec<_> =
            (0..3).map(|_| Tunnel::open(router.addr(), "a.test", "/")).collect();
        for _ in 0..3 {
            assert_eq!(ask(&router, "a.test").1, 503, "{key}");
        }
        tunnels[0].echo(b"goes on");
        drop(tunnels.pop());
        eventually(DEADLINE, "a connection is free", || ask(&router, "a.test").1 == 101);
    }
}

/// Beyond `maxTunnels` an upgrade gets 503 and may come back; requests are served as before.
#[test]
fn tunnels_are_bounded_in_all() {
    let (_redis, router, backends) = stage(|builder| {
        builder
            .set("server.maxTunnels", 2)
            .set("server.maxTunnelsPerBackend", 0)
            .set("http.h2c", true)
    });
    let mut tunnels = vec![Tunnel::open(router.addr(), "a.test", "/")];
    let client = http2::Client::connect(router.addr());
    let mut over_http2 = client.websocket("http://a.test/").expect("a tunnel");
    let mut refused = Client::connect(router.addr());
    let answer = refused.get_with("a.test", "/", HANDSHAKE);
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")));
    assert_eq!(client.websocket("http://two.test/").expect_err("refused"), 503);
    assert_eq!(refused.get("b.test", "/").text(), "b", "the connection goes on");
    over_http2.echo(b"goes on");
    assert_eq!(backends[0].request_count(), 2);
    drop(tunnels.pop());
    eventually(DEADLINE, "a tunnel is free", || ask(&router, "a.test").1 == 101);
    router.wait_for_log(&["WARN", "server.maxTunnels"]);
}

/// Beyond `maxTunnelsPerBackend` another backend of the host gets the upgrade, if there is one with fewer.
#[test]
fn tunnels_are_bounded_per_backend() {
    let (redis, router, backends) = stage(|builder| builder.set("server.maxTunnelsPerBackend", 2));
    let _tunnels: Vec<_> = (0..4).map(|_| Tunnel::open(router.addr(), "two.test", "/")).collect();
    assert_eq!([backends[0].open_connections(), backends[1].open_connections()], [2, 2]);
    assert_eq!(ask(&router, "two.test").1, 503);
    assert_eq!(ask(&router, "a.test").1, 503);
    assert!(redis.dead("two.test").is_empty(), "nobody is marked");
    assert_eq!(get(router.addr(), "b.test", "/").text(), "b");
}

/// An upgrade that the backend refuses is no tunnel.
#[test]
fn refused_upgrades_are_not_counted() {
    let (_redis, router, _backends) = stage(|builder| builder.set("server.maxTunnels", 1));
    let mut client = Client::connect(router.addr());
    for _ in 0..5 {
        assert_eq!(client.get_with("b.test", "/", HANDSHAKE).text(), "b");
    }
    let _tunnel = Tunnel::open(router.addr(), "a.test", "/");
    assert_eq!(ask(&router, "a.test").1, 503);
}
