//! The stream of events of the fake Marathon, byte by byte.

use std::time::Duration;

use integration::client::{Client, get};
use integration::eventually::{DEADLINE, eventually};
use integration::marathon::{Check, Dialect, EventMode, Fault, Health, Marathon, Route, Step};
use integration::wire::{Framing, Head};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

const REQUEST: &str = " HTTP/1.1\r\nHost: m\r\nAccept: text/event-stream\r\n\r\n";

/// A client of the stream that has read the head.
struct Events {
    client: Client,
    head: Head,
    unread: Vec<u8>,
}

impl Events {
    fn connect(marathon: &Marathon, query: &str) -> Self {
        let before = marathon.listeners();
        let mut client = Client::connect(marathon.addr());
        client.send(format!("GET /v2/events{query}{REQUEST}"));
        marathon.wait_for_listeners(before + 1);
        let head = client.head().expect("a head");
        Self { client, head, unread: Vec::new() }
    }

    /// The next `count` bytes.
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            let more = self.client.conn().read_some().expect("bytes of the stream");
            assert!(!more.is_empty(), "the stream ends after {:?}", self.unread);
            self.unread.extend(more);
        }
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    /// The next event with its line end, whole.
    fn raw(&mut self) -> String {
        let mut raw = Vec::new();
        while !raw.ends_with(b"\r\n\r\n") {
            raw.append(&mut self.bytes(1));
        }
        String::from_utf8(raw).expect("UTF-8")
    }

    fn next(&mut self) -> Value {
        let raw = self.raw();
        let data = raw.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
        serde_json::from_str(data).expect("JSON")
    }

    fn kind(&mut self) -> String {
        self.next()["eventType"].as_str().expect("eventType").to_owned()
    }

    /// Reads to the end and says how many bytes came.
    fn rest(&mut self) -> Vec<u8> {
        let body = self.client.conn().read_body(Framing::UntilClose).expect("the rest");
        let mut rest = std::mem::take(&mut self.unread);
        rest.extend(body.data);
        rest
    }
}

#[test]
fn a_stream_begins_with_its_own_attachment() {
    for dialect in Dialect::ALL.into_iter().filter(|dialect| dialect.has_events()) {
        let marathon = Marathon::start(dialect);
        marathon.change(|cluster| cluster.clock.set(1_487_445_120_102));
        let mut events = Events::connect(&marathon, "");
        let kind = events.head.header("content-type").expect("a type").to_ascii_lowercase();
        assert_eq!(kind, "text/event-stream;charset=utf-8");
        assert_eq!(events.head.header("connection"), Some("close"));
        assert_eq!(events.head.response_framing("GET").expect("framing"), Framing::UntilClose);
        let line = if dialect >= Dialect::V0_11 { "event: event_stream_attached\r\n" } else { "" };
        let raw = events.raw();
        let data = raw.strip_prefix(line).and_then(|rest| rest.strip_prefix("data: "));
        let data = data.and_then(|rest| rest.strip_suffix("\r\n\r\n")).unwrap_or_default();
        let attached = json!({
            "remoteAddress": "127.0.0.1",
            "eventType": "event_stream_attached",
            "timestamp": "2017-02-18T19:12:00.102Z",
        });
        assert_eq!(serde_json::from_str::<Value>(data).ok(), Some(attached), "{dialect}: {raw:?}");

        let mut second = Events::connect(&marathon, "");
        assert_eq!(second.kind(), "event_stream_attached");
        assert_eq!(events.kind(), "event_stream_attached", "that of the second client");
        drop(second);
        assert_eq!(events.kind(), "event_stream_detached");
        assert_eq!(marathon.listeners(), 1);
    }
}

#[test]
fn only_the_exact_accept_header_gets_a_stream() {
    let marathon = Marathon::start(Dialect::V1_5);
    for accept in ["", "Accept: */*\r\n", "Accept: text/event-stream, */*\r\n"] {
        let mut client = Client::connect(marathon.addr());
        let response = client.get_with("m", "/v2/events", accept);
        assert_eq!(response.status(), 405, "{accept:?}");
        assert!(response.text().contains("HTTP method GET is not supported by this URL"));
    }
    let old = Marathon::start(Dialect::V0_8_2);
    let mut client = Client::connect(old.addr());
    client.send(format!("GET /v2/events{REQUEST}"));
    assert_eq!(client.response().status(), 404, "0.8 has no stream");
}

#[test]
fn heartbeats_are_blank_lines() {
    let marathon = Marathon::start(Dialect::V1_9);
    let mut events = Events::connect(&marathon, "");
    events.raw();
    marathon.beat();
    assert_eq!(events.bytes(2), b"\r\n");
    // The two bytes come one by one: the second waits for the gap, which outlasts the test.
    marathon.heartbeat(Duration::from_millis(1), Duration::from_secs(600));
    assert_eq!(events.bytes(1), b"\r");
    assert!(events.unread.is_empty());
}

#[test]
fn events_are_filtered_where_filters_exist() {
    for (dialect, filters) in [(Dialect::V1_3, false), (Dialect::V1_4, true)] {
        let marathon = Marathon::start(dialect);
        let query = "?event_type=app_terminated_event&event_type=other";
        let mut events = Events::connect(&marathon, query);
        marathon.app("/a").running(1).delete();
        let first = events.kind();
        let expected = if filters { "app_terminated_event" } else { "event_stream_attached" };
        assert_eq!(first, expected, "{dialect}");
    }
}

#[test]
fn plans_are_light_when_asked_for_or_always() {
    for (dialect, query, heavy) in [
        (Dialect::V1_5, "?plan-format=light", true),
        (Dialect::V1_6, "", true),
        (Dialect::V1_6, "?plan-format=light", false),
        (Dialect::V1_9, "", false),
    ] {
        let marathon = Marathon::start(dialect);
        let mut events = Events::connect(&marathon, query);
        marathon.find("/a").begin("ScaleApplication");
        events.next();
        let event = events.next();
        assert_eq!(event["eventType"], "deployment_info");
        assert_eq!(event["plan"].get("original").is_some(), heavy, "{dialect}{query}");
        let key = if dialect >= Dialect::V1_4 { "action" } else { "type" };
        assert_eq!(event["currentStep"]["actions"][0][key], "ScaleApplication");
    }
}

/// What a rolling deployment of one task tells, step by step.
#[test]
fn a_rolling_deployment_goes_on_step_by_step() {
    for dialect in [Dialect::V1_1_1, Dialect::V1_3, Dialect::V1_9] {
        let marathon = Marathon::start(dialect);
        let app = marathon.app("/a").check(Check::http("/")).running_at([("h", 1)]);
        let mut events = Events::connect(&marathon, "");
        events.raw();
        let mut rolling = app.roll_out([("h", 2)], |app| app.cmd = "new".to_owned());
        let mut steps = Vec::new();
        while let Some(step) = rolling.step() {
            steps.push(match step {
                Step::Staged(new) => format!("staged {}", new.len()),
                Step::Running(_) => "running".to_owned(),
                Step::InGrace(_) => "in grace".to_owned(),
                Step::Healthy(_) => "healthy".to_owned(),
                Step::Killing(old) => format!("killing {}", old.len()),
                Step::Gone(_) => "gone".to_owned(),
                Step::Finished => "finished".to_owned(),
            });
        }
        let killing = dialect.has_killing().then_some("killing 1");
        let expected = ["staged 1", "running", "in grace", "healthy"].into_iter().chain(killing);
        assert_eq!(steps, expected.chain(["gone", "finished"]).collect::<Vec<_>>(), "{dialect}");
        let places: Vec<_> =
            app.tasks().iter().map(|task| task.look().expect("there").place.ports[0]).collect();
        assert_eq!(places, [2]);

        let mut told = Vec::new();
        while told.last().is_none_or(|kind| kind != "deployment_success") {
            let event = events.next();
            let kind = event["eventType"].as_str().expect("eventType").to_owned();
            told.push(match kind.as_str() {
                "status_update_event" => event["taskStatus"].as_str().expect("status").to_owned(),
                "instance_changed_event" | "instance_health_changed_event" => continue,
                _ => kind,
            });
        }
        let killing = dialect.has_killing().then_some("TASK_KILLING");
        let before = ["api_post_event", "deployment_info", "TASK_STAGING", "TASK_RUNNING"];
        let expected = before.into_iter().chain(["health_status_changed_event"]).chain(killing);
        let after = ["TASK_KILLED", "deployment_step_success", "deployment_success"];
        assert_eq!(told, expected.chain(after).collect::<Vec<_>>(), "{dialect}");
    }
}

#[test]
fn health_events_name_the_task_or_the_instance() {
    for dialect in [Dialect::V1_3, Dialect::V1_4] {
        let marathon = Marathon::start(dialect);
        let app = marathon.app("/a").check(Check::http("/")).running(1);
        let mut events = Events::connect(&marathon, "");
        events.raw();
        app.tasks()[0].probe(Health::Sick);
        assert_eq!(events.kind(), "failed_health_check_event");
        let event = events.next();
        assert_eq!(event["alive"], false);
        let instances = dialect >= Dialect::V1_4;
        let named = (event.get("taskId").is_some(), event.get("instanceId").is_some());
        assert_eq!(named, (!instances, instances), "{dialect}");
        if instances {
            assert_eq!(events.next()["healthy"], false);
        }
    }
}

#[test]
fn streams_can_come_byte_by_byte_or_huge() {
    let marathon = Marathon::start(Dialect::V1_9);
    marathon.events(EventMode::ByteByByte);
    let mut events = Events::connect(&marathon, "");
    assert_eq!(events.kind(), "event_stream_attached");
    marathon.events(EventMode::Normal);
    marathon.emit_huge(2 << 20);
    let mut length = 0;
    while length < 2 << 20 {
        length += events.bytes(64 * 1024).len();
    }
}

/// Nothing comes, and nothing ends: only silence tells.
#[test]
fn a_silent_stream_stays_open() {
    let marathon = Marathon::start(Dialect::V1_9);
    let mut events = Events::connect(&marathon, "");
    events.raw();
    marathon.events(EventMode::Silent);
    marathon.app("/a").running(1);
    marathon.beat();
    assert_eq!(marathon.listeners(), 1);
    marathon.events(EventMode::Normal);
    marathon.emit("after", Value::Null);
    assert_eq!(events.kind(), "after", "the rest is never told");
}

#[test]
fn streams_end_with_the_leadership_and_at_once_where_there_is_none() {
    let marathon = Marathon::start(Dialect::V1_9);
    let standby = marathon.join();
    let mut events = Events::connect(&marathon, "");
    events.raw();
    standby.elect();
    assert_eq!(events.rest(), b"");
    eventually(DEADLINE, "nobody is connected", || marathon.event_clients() == 0);
    standby.events(EventMode::EndAtOnce);
    let mut client = Client::connect(standby.addr());
    client.send(format!("GET /v2/events{REQUEST}"));
    let response = client.response_or_cut("GET");
    assert_eq!((response.status(), response.text().as_str()), (200, ""));
}

#[test]
fn a_killed_process_takes_its_streams_along() {
    let marathon = Marathon::start(Dialect::V1_9);
    let mut events = Events::connect(&marathon, "");
    events.raw();
    marathon.kill();
    assert!(events.client.is_closed());
    assert_eq!(marathon.listeners(), 0);
}

#[test]
fn a_standby_redirects_proxies_or_buffers() {
    for dialect in [Dialect::V0_9, Dialect::V0_10, Dialect::V1_6, Dialect::V1_9] {
        let leader = Marathon::start(dialect);
        let standby = leader.join();
        if dialect >= Dialect::V1_9 {
            let mut client = Client::connect(standby.addr());
            client.send(format!("GET /v2/events?event_type=a{REQUEST}"));
            let response = client.response();
            let there = format!("{}/v2/events?event_type=a", leader.url());
            assert_eq!((response.status(), response.header("location")), (302, Some(&*there)));
            continue;
        }
        let mut client = Client::connect(standby.addr());
        client.send(format!("GET /v2/events{REQUEST}"));
        leader.wait_for_listeners(1);
        leader.emit("hint", Value::Null);
        if dialect == Dialect::V0_10 {
            leader.close_events();
        } else {
            let head = client.head().expect("a head");
            assert!(head.has("x-marathon-via"));
        }
        let mut events = Events { client, head: Head::default(), unread: Vec::new() };
        if dialect == Dialect::V0_10 {
            assert!(String::from_utf8_lossy(&events.rest()).contains("hint"));
        } else {
            assert_eq!(
                (events.kind(), events.kind()),
                ("event_stream_attached".into(), "hint".into())
            );
        }
    }
}

#[test]
fn streams_can_be_sent_elsewhere_and_refused() {
    let marathon = Marathon::start(Dialect::V1_5);
    marathon.redirect_events(Some("http://127.0.0.1:1"));
    let response = get(marathon.addr(), "m", "/v2/events");
    assert_eq!(response.header("location"), Some("http://127.0.0.1:1/v2/events"));
    marathon.redirect_events(None);
    marathon.fail(Route::Events, Fault::page(503, "Service Unavailable"));
    assert_eq!(get(marathon.addr(), "m", "/v2/events").status(), 503);
}

/// Old versions drop what a slow reader has no room for, newer ones the reader.
#[test]
fn slow_readers_lose_events_or_the_connection() {
    for dialect in [Dialect::V1_4, Dialect::V1_9] {
        let marathon = Marathon::start(dialect);
        let mut events = Events::connect(&marathon, "");
        // More than what sockets and the queue hold together.
        for _ in 0..3000 {
            marathon.emit("filler", json!({"x": "y".repeat(20_000)}));
        }
        let stays = dialect < Dialect::V1_9;
        assert_eq!(marathon.listeners(), usize::from(stays), "{dialect}");
        if !stays {
            assert!(events.rest().len() < 3000 * 20_000);
        }
    }
}
