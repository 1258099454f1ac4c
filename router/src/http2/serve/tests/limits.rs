//! Limits of a whole connection.

use super::*;

#[tokio::test]
async fn heads_of_a_connection_are_bounded_together() {
    let (sender, mut refusals) = mpsc::channel(100);
    let edge = connect(move |opened: Opened, state: Arc<Connection>| {
        let sender = sender.clone();
        async move {
            sender.send(opened.refusal).await.unwrap();
            let _held = (opened, state);
            std::future::pending::<()>().await;
        }
    })
    .await;
    let value = "x".repeat(100 * 1024);
    let mut pending = Vec::new();
    for number in 0..=MAX_HEADS / value.len() {
        let request = Request::get("http://a.test/").header("x", &value).body(()).unwrap();
        let mut client = edge.client.clone().ready().await.unwrap();
        pending.push(client.send_request(request, true).unwrap());
        let expected = (number >= MAX_HEADS / value.len()).then_some(EdgeError::TooLargeHeads);
        assert_eq!(refusals.recv().await, Some(expected), "{number}");
    }
    drop(pending);
}

#[tokio::test]
async fn a_connection_ends_after_its_last_request() {
    let limits = EdgeLimits { max_requests: Some(3), ..LIMITS };
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let edge = connect_with(limits, move |opened, _state| say(opened, response)).await;
    for _ in 0..3 {
        edge.send(get("http://a.test/"), &[], None).await.unwrap();
    }
    let ended = async { while edge.send(get("http://a.test/"), &[], None).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
}

#[tokio::test]
async fn a_draining_connection_finishes_what_runs() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let edge = connect(move |opened, _state| {
        let mut gone = gone.clone();
        async move {
            gone.wait_for(|gone| *gone).await.unwrap();
            say(opened, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    edge.connections.add(&edge.state);
    let mut client = edge.client.clone().ready().await.unwrap();
    let (future, _) = client.send_request(get("http://a.test/"), true).unwrap();
    tokio::time::sleep(SHORT).await;
    edge.connections.drain();
    tokio::time::sleep(SHORT).await;
    assert!(edge.send(get("http://a.test/"), &[], None).await.is_err(), "no new ones");
    go.send_replace(true);
    assert_eq!(receive(future).await.unwrap().1, "ok");
}
