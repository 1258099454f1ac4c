//! Logins that are valid for a connection, not for a request (NTLM, Negotiate; RFC 4559 6): the connection to
//! the backend belongs to the client connection that logged in on it, and to nobody else.

use std::collections::HashMap;
use std::sync::Mutex;

use http::header::AUTHORIZATION;
use integration::backend::{Backend, Next};
use integration::client::{Client, get};
use integration::http2;
use integration::redis::Redis;
use integration::router::{Router, stage};
use pretty_assertions::assert_eq;

/// Answers 401 with this challenge until somebody logs in, and on the same connection with the user's name
/// from then on, as IIS does.
fn login_backend(name: &str, challenge: &'static str) -> Backend {
    let users: Mutex<HashMap<usize, String>> = Mutex::default();
    Backend::with(name, move |exchange| {
        exchange.read_body()?;
        let mut users = users.lock().expect("no other test panicked");
        if let Some(credentials) = exchange.head.header("authorization") {
            users.insert(exchange.connection, credentials.to_owned());
        }
        let challenges: &[_] =
            if challenge.is_empty() { &[] } else { &[("WWW-Authenticate", challenge)] };
        match users.get(&exchange.connection) {
            Some(user) => exchange.respond(200, &[], user.as_bytes())?,
            None => exchange.respond(401, challenges, b"nobody")?,
        }
        Ok(Next::KeepAlive)
    })
}

#[test]
fn login_of_one_client_answers_no_other() {
    for (challenge, credentials) in [
        ("NTLM", "NTLM TlRMTVNT"),
        ("Negotiate", "Negotiate YIIxyz"),
        ("Basic realm=\"a\", negotiate", "negotiate YIIxyz"),
        // Without a challenge: the client knows what the backend takes.
        ("", "NTLM TlRMTVNT"),
    ] {
        let backend = login_backend("b", challenge);
        let (_redis, router) = stage(&backend);
        let mut first = Client::connect(router.addr());
        first.get("a.test", "/");
        let login = format!("Authorization: {credentials}\r\n");
        assert_eq!(first.get_with("a.test", "/", &login).text(), credentials);
        for _ in 0..20 {
            assert_eq!(get(router.addr(), "a.test", "/").text(), "nobody", "{challenge}");
        }
        // The login is valid as long as the client's connection lives, and no longer.
        assert_eq!(first.get("a.test", "/").text(), credentials, "{challenge}");
        let connection = backend.requests().last().expect("requests").connection;
        let same = backend.requests().iter().filter(|r| r.connection == connection).count();
        assert!(same >= 2, "the connection was not kept for its client");
        drop(first);
        backend.wait_for_open(usize::from(challenge.is_empty()));
    }
}

/// The three messages of an NTLM handshake reach one backend, whatever its weight among others, on one
/// connection.
#[test]
fn handshake_stays_on_one_connection_of_one_backend() {
    let backends: Vec<_> = (0..4).map(|_| handshake_backend()).collect();
    let redis = Redis::start();
    let urls: Vec<_> = backends.iter().map(Backend::url).collect();
    redis.frontend("a.test", "id", &urls.iter().map(String::as_str).collect::<Vec<_>>());
    let router = Router::start(&redis);
    for _ in 0..20 {
        let mut client = Client::connect(router.addr());
        assert_eq!(client.get("a.test", "/").text(), "step 0");
        for step in 1..3 {
            let login = format!("Authorization: NTLM {step}\r\n");
            assert_eq!(client.get_with("a.test", "/", &login).text(), format!("step {step}"));
        }
        assert_eq!(client.get("a.test", "/").status(), 200);
    }
}

/// Takes message 1 on any connection and message 2 only behind message 1.
fn handshake_backend() -> Backend {
    let steps: Mutex<HashMap<usize, u32>> = Mutex::default();
    Backend::with("b", move |exchange| {
        exchange.read_body()?;
        let mut steps = steps.lock().expect("no other test panicked");
        let done = steps.entry(exchange.connection).or_insert(0);
        match exchange.head.header("authorization") {
            Some("NTLM 1") => *done = 1,
            Some("NTLM 2") if *done == 1 => *done = 2,
            Some(_) => *done = 0,
            None => {}
        }
        let (status, body) = (if *done == 2 { 200 } else { 401 }, format!("step {done}"));
        exchange.respond(status, &[("WWW-Authenticate", "NTLM")], body.as_bytes())?;
        Ok(Next::KeepAlive)
    })
}

/// Requests of HTTP/2 run beside each other, often for several users of one proxy: what one has logged in on
/// carries no second request, not even of the same connection.
#[test]
fn login_over_http2_answers_one_request() {
    let backend = login_backend("b", "NTLM");
    let redis = Redis::start();
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("http.h2c", true).start();
    let client = http2::Client::connect(router.addr());
    for _ in 0..5 {
        let request = http::Request::get("http://a.test/").header(AUTHORIZATION, "NTLM x");
        let response = client.send(request.body(()).expect("a request"), None, None);
        assert_eq!(response.expect("an answer").text(), "NTLM x");
        assert_eq!(client.get("http://a.test/").text(), "nobody");
        assert_eq!(get(router.addr(), "a.test", "/").text(), "nobody");
    }
    backend.wait_for_open(0);
}

/// A backend of HTTP/2 that logs connections in would do so for everybody who shares one.
#[test]
fn login_has_a_connection_of_its_own_at_a_backend_of_http2() {
    let backend = http2::Backend::start();
    let redis = Redis::start();
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::start(&redis);
    let mut client = Client::connect(router.addr());
    for count in 1..4 {
        client.get("a.test", "/");
        client.get_with("a.test", "/", "Authorization: Negotiate x\r\n");
        assert_eq!(backend.connections(), 1 + count);
    }
    client.get_with("a.test", "/", "Authorization: Basic eDp5\r\n");
    assert_eq!(backend.connections(), 4, "any other login is valid for its request only");
}

/// Clients that wait for their users to type a password, or were only asked to log in, keep nobody else from
/// logging in.
#[test]
fn idle_clients_keep_nobody_from_logging_in() {
    let backend = handshake_backend();
    let redis = Redis::start();
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.maxSockets", 2).start();
    let mut idle = Vec::new();
    for logs_in in [false, true] {
        for _ in 0..3 {
            let mut client = Client::connect(router.addr());
            client.get("a.test", "/");
            if logs_in {
                client.get_with("a.test", "/", "Authorization: NTLM 1\r\n");
            }
            idle.push(client);
        }
        let mut client = Client::connect(router.addr());
        client.get("a.test", "/");
        for step in 1..3 {
            let login = format!("Authorization: NTLM {step}\r\n");
            assert_eq!(client.get_with("a.test", "/", &login).text(), format!("step {step}"));
        }
        assert_eq!(client.get("a.test", "/").status(), 200, "{logs_in}");
    }
}

/// Idle connections that belong to clients are as many as `maxSockets` at most; one beyond it is closed, and
/// its client has to log in again.
#[test]
fn connections_of_clients_are_bounded() {
    let backend = login_backend("b", "NTLM");
    let redis = Redis::start();
    redis.frontend("a.test", "id", &[&backend.url()]);
    let router = Router::builder(&redis).set("server.maxSockets", 2).start();
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let mut client = Client::connect(router.addr());
            let response = client.get_with("a.test", "/", "Authorization: NTLM x\r\n");
            assert_eq!(response.text(), "NTLM x");
            client
        })
        .collect();
    backend.wait_for_open(2);
    let answers = clients.into_iter().map(|mut client| client.get("a.test", "/").text());
    assert_eq!(answers.filter(|answer| answer == "nobody").count(), 1);
}
