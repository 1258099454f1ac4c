//! Tunnels (RFC 8441).

use super::*;

fn chat() -> Request<()> {
    let mut request = Request::connect("http://a.test/chat").body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    request
}

/// The `Sec-WebSocket-Key` of a request.
fn key(request: &str) -> String {
    let line = request.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
    line.unwrap().to_owned()
}

async fn switch(mut opened: Opened, accept: Option<&'static str>) {
    let stream = &mut opened.stream;
    let request = read_request(stream).await.unwrap();
    assert!(request.starts_with("GET /chat HTTP/1.1\r\nhost: a.test\r\n"), "{request}");
    let right = websocket::accept_for(key(&request).as_bytes());
    let accept = accept.unwrap_or(&right);
    assert_eq!(stream.accepts_websocket(Some(accept.as_bytes())), accept == right);
    assert!(!stream.accepts_websocket(None));
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\nfirst "
    );
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    stream.flush().await.unwrap();
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await.unwrap() > 0 {
        stream.write_all(&bytes).await.unwrap();
        bytes.clear();
    }
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_websocket_is_a_tunnel_both_ways() {
    let edge = connect(|opened, _state| switch(opened, None)).await;
    // So that the settings of the other side have come.
    while !edge.client.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    let mut client = edge.client.ready().await.unwrap();
    let (future, mut send) = client.send_request(chat(), false).unwrap();
    let response = future.await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let mut body = response.into_body();
    send.send_data(Bytes::from_static(b"hello "), false).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"hello ") {
        seen.extend_from_slice(&body.data().await.unwrap().unwrap());
    }
    send.send_data(Bytes::from_static(b"end"), true).unwrap();
    seen.extend(read_all(&mut body).await.unwrap());
    assert_eq!(String::from_utf8(seen).unwrap(), "first hello end");
}

#[tokio::test]
async fn only_the_right_answer_begins_a_websocket() {
    async fn status(edge: &Edge) -> Result<u16, Option<Reason>> {
        while !edge.client.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let mut client = edge.client.clone().ready().await.unwrap();
        let (future, _send) = client.send_request(chat(), false).unwrap();
        let response = future.await.map_err(|error| error.reason())?;
        Ok(response.status().as_u16())
    }
    let wrong = connect(|opened, _state| switch(opened, Some("wrong"))).await;
    assert_eq!(status(&wrong).await, Err(Some(Reason::INTERNAL_ERROR)));
    for (response, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Err(Some(Reason::INTERNAL_ERROR))),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", Ok(403)),
    ] {
        let edge = connect(move |opened, _state| say(opened, response)).await;
        assert_eq!(status(&edge).await, expected);
    }
}
