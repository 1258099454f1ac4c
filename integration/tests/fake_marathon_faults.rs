//! The fake Marathon fails exactly as it is told to, and recovers.

use std::io::ErrorKind;
use std::time::Duration;

use integration::client::{Client, Response, get};
use integration::eventually::{DEADLINE, eventually};
use integration::marathon::{Answer, Dialect, Fault, Marathon, Route};
use pretty_assertions::assert_eq;
use serde_json::Value;

fn ask(marathon: &Marathon, target: &str) -> Response {
    get(marathon.addr(), "marathon.test", target)
}

#[test]
fn faults_that_are_answers_are_answered_and_wear_off() {
    let marathon = Marathon::start(Dialect::V1_9);
    marathon.app("/a").running(1);
    let custom = Answer::new(504, "text/plain", "late");
    let html = |response: &Response| {
        response.header("content-type").is_some_and(|kind| kind.starts_with("text/html"))
    };
    type Test<'a> = &'a dyn Fn(&Response) -> bool;
    let cases: [(Fault, u16, Test<'_>); 9] = [
        (Fault::empty(), 200, &|answer| answer.header("content-length") == Some("0")),
        (Fault::html(), 200, &html),
        (Fault::page(503, "Service Unavailable"), 503, &html),
        (Fault::message(200, "no"), 200, &|answer| answer.text() == r#"{"message":"no"}"#),
        (Fault::message(503, "no"), 503, &|answer| answer.text() == r#"{"message":"no"}"#),
        (Fault::no_apps(), 200, &|answer| answer.text() == r#"{"apps":[]}"#),
        (Fault::unauthorized(), 401, &|answer| {
            answer.header("www-authenticate") == Some(r#"Basic realm="Mesosphere""#)
        }),
        (Fault::RedirectLoop, 302, &|answer| answer.header("location") == Some("/v2/apps?a=b")),
        (Fault::Instead(custom), 504, &|answer| answer.text() == "late"),
    ];
    for (fault, status, test) in cases {
        marathon.fail_times(Route::Apps, 1, fault.clone());
        let response = ask(&marathon, "/v2/apps?a=b");
        assert_eq!(response.status(), status, "{fault:?}");
        assert!(test(&response), "{fault:?}: {response:?}");
        assert!(ask(&marathon, "/v2/apps").text().contains("/a"), "{fault:?} is over");
    }
    marathon.fail(Route::Apps, Fault::Truncated);
    let text = ask(&marathon, "/v2/apps").text();
    assert!(text.starts_with(r#"{"apps":[{"#) && serde_json::from_str::<Value>(&text).is_err());
    assert_eq!(ask(&marathon, "/ping").status(), 200, "other routes are well");
    marathon.heal(Route::Apps);
    assert!(ask(&marathon, "/v2/apps").text().contains("/a"));
}

#[test]
fn faults_of_the_connection_are_what_they_are_called() {
    let marathon = Marathon::start(Dialect::V1_9);
    marathon.app("/a").running(1);
    let request = || {
        let mut client = Client::connect(marathon.addr());
        client.send("GET /v2/apps HTTP/1.1\r\nHost: m\r\n\r\n");
        client
    };
    for (fault, reset) in [(Fault::Close, false), (Fault::Reset, true)] {
        marathon.fail(Route::Apps, fault);
        let ended = request().conn().read_head();
        let kind = ended.map(|head| assert!(head.is_none())).err().map(|error| error.kind());
        assert_eq!(kind, reset.then_some(ErrorKind::ConnectionReset));
    }
    for (fault, reset) in [(Fault::CloseMidBody, false), (Fault::ResetMidBody, true)] {
        marathon.fail(Route::Apps, fault.clone());
        let mut client = request();
        assert_eq!(client.head().unwrap().status(), 200);
        let kind = client.conn().read_to_end().map_err(|error| error.kind());
        assert_eq!(kind.as_ref().err(), reset.then_some(&ErrorKind::ConnectionReset), "{fault:?}");
        assert!(kind.is_err() || kind.is_ok_and(|bytes| !bytes.ends_with(b"0\r\n\r\n")));
    }
    marathon.fail(Route::Apps, Fault::Drip(7, Duration::from_millis(1)));
    assert!(request().response().text().contains("/a"));
    marathon.kill();
    assert!(std::net::TcpStream::connect(marathon.addr()).is_err());
    marathon.listen();
    marathon.heal_all();
    assert!(request().response().text().contains("/a"));
}

/// Whoever hangs is let go by the test, with the answer of that time or, being late, of before.
#[test]
fn requests_hang_until_they_are_let_go() {
    let marathon = Marathon::start(Dialect::V1_9);
    for (fault, there) in [(Fault::Hang, true), (Fault::Late, false)] {
        let before = marathon.requests(Route::Apps);
        marathon.fail(Route::Apps, fault);
        let mut clients: Vec<_> = (0..2).map(|_| Client::connect(marathon.addr())).collect();
        for client in &mut clients {
            client.send("GET /v2/apps HTTP/1.1\r\nHost: m\r\n\r\n");
        }
        marathon.wait_for_requests(Route::Apps, before + 2);
        assert_eq!(marathon.counters().running(Route::Apps), 2);
        // One goes away: nobody waits for it any longer.
        clients.pop();
        eventually(DEADLINE, "one left", || marathon.counters().running(Route::Apps) == 1);
        let app = marathon.app("/a").running(1);
        marathon.heal(Route::Apps);
        assert_eq!(clients[0].response().text().contains("/a"), there);
        app.delete();
    }
    assert_eq!(marathon.counters().peak(Route::Apps), 2);
}

#[test]
fn a_hang_in_the_middle_lasts_until_the_client_ends_it() {
    let marathon = Marathon::start(Dialect::V1_9);
    marathon.fail(Route::Apps, Fault::HangMidBody);
    let mut client = Client::connect(marathon.addr());
    client.send("GET /v2/apps HTTP/1.1\r\nHost: m\r\n\r\n");
    assert_eq!(client.head().unwrap().status(), 200);
    assert_eq!(marathon.counters().running(Route::Apps), 1);
    drop(client);
    eventually(DEADLINE, "it ends", || {
        let counters = marathon.counters();
        counters.running(Route::Apps) == 0 && counters.connections == 0
    });
}
