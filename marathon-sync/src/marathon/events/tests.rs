use futures_util::stream;
use tokio::task::JoinHandle;

use super::super::auth::Credentials;
use super::super::client;
use super::super::endpoints::Endpoints;
use super::super::testing::{Request, Server, Step, answer, json, redirect};
use super::super::tls::Tls;
use super::*;

/// As long as anything may take.
const DEADLINE: Duration = Duration::from_secs(10);

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream;charset=UTF-8\r\n\
                    Connection: close\r\n\r\n";
const ATTACHED: &str = "event: event_stream_attached\r\ndata: {\"remoteAddress\":\"::1\",\
                        \"eventType\":\"event_stream_attached\"}\r\n\r\n";

fn send(text: impl Into<String>) -> Step {
    Step::Send(text.into().into_bytes())
}

fn options() -> Options {
    let retry = (Duration::from_millis(1), Duration::from_millis(5));
    Options { retry, event_limit: 1000, ..Options::default() }
}

struct Listening {
    hints: Hints,
    counters: Arc<Counters>,
    task: JoinHandle<Infallible>,
}

impl Listening {
    fn to(urls: &[String], credentials: Credentials) -> Self {
        let endpoints = Endpoints::parse(urls, None).unwrap();
        let tls = Tls::default();
        let client = Client::new(endpoints, credentials, &tls, client::Options::default()).unwrap();
        let (sender, hints) = channel();
        let counters = Arc::new(Counters::default());
        let task = tokio::spawn(listen(client, options(), sender, Arc::clone(&counters)));
        Self { hints, counters, task }
    }

    async fn next(&mut self) -> Hint {
        timeout(DEADLINE, self.hints.next()).await.expect("a hint")
    }

    /// Waits for a hint and ignores others, as the agent may.
    async fn until(&mut self, is_it: impl Fn(&Hint) -> bool) -> Hint {
        loop {
            let hint = self.next().await;
            if is_it(&hint) {
                return hint;
            }
        }
    }

    async fn lost(&mut self) -> String {
        match self.until(|hint| matches!(hint, Hint::Lost { .. })).await {
            Hint::Lost { reason } => reason.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn the_stream_is_asked_for_as_jetty_wants_it_and_its_events_become_hints() {
    let steps = vec![
        send(format!("{HEAD}{ATTACHED}")),
        send("\r"),
        send("\n"),
        send("data: {\"eve"),
        send("ntType\":\"app_terminated_event\",\"appId\":\"/a\"}\r\n\r\n"),
        Step::Hang,
    ];
    let server = Server::start(move |_| steps.clone()).await;
    let mut listening = Listening::to(&[format!("{}/marathon", server.url())], Credentials::None);
    assert_eq!(listening.next().await, Hint::Connected);
    assert_eq!(listening.next().await, Hint::AppDeleted { app_id: "/a".into() });
    assert_eq!(listening.counters.events.load(Ordering::Relaxed), 2);
    let request = &server.requests()[0];
    assert_eq!(request.values("accept"), ["text/event-stream"]);
    assert_eq!(request.values("accept-encoding"), ["identity"]);
    let target = request.target();
    assert!(target.starts_with("/marathon/v2/events?plan-format=light&event_type="), "{target}");
    for kind in ["status_update_event", "event_stream_attached", "deployment_step_success"] {
        assert!(target.contains(&format!("&event_type={kind}")), "{target}");
    }
    assert!(!target.contains("deployment_info"), "{target}");
}

#[tokio::test]
async fn a_standby_that_closes_at_once_leads_to_the_next_endpoint() {
    let standby = Server::start(|_| vec![send(HEAD)]).await;
    let leader = Server::start(|_| vec![send(format!("{HEAD}{ATTACHED}")), Step::Hang]).await;
    let mut listening = Listening::to(&[standby.url(), leader.url()], Credentials::None);
    let lost = listening.lost().await;
    assert!(lost.starts_with(&standby.url()) && lost.contains("does not lead"), "{lost}");
    assert_eq!(listening.next().await, Hint::Connected);
    assert_eq!((standby.requests().len(), leader.requests().len()), (1, 1));
}

#[tokio::test]
async fn a_stream_that_ends_is_joined_again_where_it_was() {
    let other = Server::start(|_| answer("500 Oops", "", "")).await;
    let server = Server::start(|request: &Request| match request.number {
        0 => vec![send(format!("{HEAD}{ATTACHED}"))],
        _ => vec![send(format!("{HEAD}{ATTACHED}")), Step::Hang],
    })
    .await;
    let mut listening = Listening::to(&[server.url(), other.url()], Credentials::None);
    while listening.counters.connected.load(Ordering::Relaxed) < 2 {
        listening.next().await;
    }
    assert_eq!((server.requests().len(), other.requests().len()), (2, 0));
}

#[tokio::test]
async fn a_redirect_to_the_leader_takes_the_credentials_along() {
    let leader = Server::start(|_| vec![send(format!("{HEAD}{ATTACHED}")), Step::Hang]).await;
    let host = leader.host.clone();
    let standby = Server::start(move |request: &Request| match request.target() {
        "/v2/leader" => json(&format!(r#"{{"leader":"{host}"}}"#)),
        target => redirect(&format!("http://{host}{target}")),
    })
    .await;
    let credentials = Credentials::basic("joe:pw").unwrap();
    let mut listening = Listening::to(&[standby.url()], credentials);
    assert_eq!(listening.next().await, Hint::Connected);
    let request = &leader.requests()[0];
    assert_eq!(request.authorization(), Some("Basic am9lOnB3"));
    assert_eq!(request.values("accept"), ["text/event-stream"]);
    assert_eq!(request.target(), standby.requests()[0].target());
}

#[tokio::test]
async fn what_is_no_stream_is_named() {
    for (message, steps) in [
        ("no stream of events, as before 0.9 (404 Not Found)", answer("404 Not Found", "", "{}")),
        ("no stream of events, as before 0.9 (405", answer("405 Method Not Allowed", "", "")),
        ("answered 401", answer("401 Unauthorized", "", "")),
        (
            "answered 503 Service Unavailable: <html>",
            answer("503 Service Unavailable", "", "<html>"),
        ),
        ("not with a stream of events: {}", json("{}")),
        ("neither configured nor", redirect("http://127.0.0.1:1/")),
        ("before an answer", vec![]),
    ] {
        let server = Server::start(move |_| steps.clone()).await;
        let mut listening = Listening::to(&[server.url()], Credentials::None);
        let lost = listening.lost().await;
        assert!(lost.contains(message), "{message}\n{lost}");
    }
}

#[tokio::test]
async fn a_marathon_without_events_is_not_asked_again_soon_but_another_is() {
    let old = Server::start(|_| answer("404 Not Found", "", "")).await;
    let new = Server::start(|_| vec![send(format!("{HEAD}{ATTACHED}")), Step::Hang]).await;
    let mut listening = Listening::to(&[old.url(), new.url()], Credentials::None);
    listening.until(|hint| *hint == Hint::Connected).await;

    let mut alone = Listening::to(&[old.url()], Credentials::None);
    alone.lost().await;
    // Other endpoints come and go meanwhile: many rounds at the usual pace.
    let busy = Server::start(|_| vec![]).await;
    let mut other = Listening::to(&[busy.url()], Credentials::None);
    while busy.requests().len() < 20 {
        other.lost().await;
    }
    assert_eq!(old.requests().len(), 2);
}

/// What a stream of `pieces` leads to, in paused time.
async fn read(pieces: Vec<Vec<u8>>, is_closed: bool) -> (String, Vec<Hint>, Counters) {
    let (sender, mut hints) = channel();
    let counters = Counters::default();
    let options = options();
    let mut listener = Listener {
        options: &options,
        hints: &sender,
        counters: &counters,
        connected: None,
        has_complained: false,
    };
    let endpoint = Endpoint::parse("http://m").unwrap();
    let pieces = stream::iter(pieces.into_iter().map(|piece| Ok(Bytes::from(piece))));
    let lost = if is_closed {
        listener.read(pieces, &endpoint).await
    } else {
        listener.read(pieces.chain(stream::pending()), &endpoint).await
    };
    (lost.to_string(), std::iter::from_fn(|| hints.take()).collect(), counters)
}

#[tokio::test(start_paused = true)]
async fn silence_is_death_and_heartbeats_are_life() {
    let (lost, hints, _) = read(vec![], false).await;
    assert!(lost.starts_with("silent for 25s"), "{lost}");
    assert_eq!(hints, []);

    let start = Instant::now();
    let beats = stream::unfold(0, |number| async move {
        sleep(Duration::from_secs(20)).await;
        (number < 10).then(|| (Ok(Bytes::from_static(b"\r\n")), number + 1))
    });
    let (sender, mut hints) = channel();
    let (options, counters) = (options(), Counters::default());
    let mut listener = Listener {
        options: &options,
        hints: &sender,
        counters: &counters,
        connected: None,
        has_complained: false,
    };
    let lost = listener.read(beats, &Endpoint::parse("http://m").unwrap()).await;
    assert!(matches!(lost, Lost::Closed), "{lost}");
    assert_eq!(start.elapsed(), Duration::from_secs(220));
    assert_eq!(hints.take(), Some(Hint::Connected));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_counted_and_looked_after_and_the_stream_goes_on() {
    let long = format!("data: {{\"eventType\":\"x\",\"y\":\"{}\"}}\n\n", "x".repeat(2000));
    let good = "data: {\"eventType\":\"deployment_success\"}\r\n\r\n";
    let text = format!("data: <html>\n\ndata: \u{0}\n\n{long}{good}");
    let mut bytes = text.into_bytes();
    bytes.extend(b"data: {\"eventType\":\"\xff\"}\n\n");
    let (lost, hints, counters) = read(vec![bytes], true).await;
    assert!(lost.starts_with("the stream was closed"), "{lost}");
    let look = |kind| Hint::Look { kind, app_id: None };
    assert_eq!(
        hints,
        [Hint::Connected, look("garbage"), look("oversized"), look("deployment_success")]
    );
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(count(&counters.garbage), 3);
    assert_eq!((count(&counters.oversized), count(&counters.events)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_a_thousand_events_is_one_hint() {
    let event =
        "data: {\"eventType\":\"status_update_event\",\"taskStatus\":\"TASK_RUNNING\"}\r\n\r\n";
    let (_, hints, counters) = read(vec![event.repeat(1000).into_bytes()], true).await;
    assert_eq!(hints, [Hint::Connected, Hint::Look { kind: "status_update_event", app_id: None }]);
    assert_eq!(counters.events.load(Ordering::Relaxed), 1000);
    let kinds: Vec<_> = counters.by_kind().filter(|(_, count)| *count > 0).collect();
    assert_eq!(kinds, [("status_update_event", 1000)]);
}
