//! Tunnels (RFC 8441).

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

async fn websocket(status: u16) -> BackendStream {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    drop(tokio::spawn(serve(theirs, move |request, mut respond| async move {
        assert_eq!(request.method(), http::Method::CONNECT);
        assert_eq!(request.headers().get("sec-websocket-key"), None);
        let response = Response::builder().status(status).body(()).unwrap();
        let mut send = respond.send_response(response, false).unwrap();
        let mut body = request.into_body();
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).unwrap();
            send.send_data(data, false).unwrap();
        }
        let _gone = send.send_data(Bytes::new(), true);
    })));
    let (sender, allows) = handshake_for_websocket(Stream::Virtual(Box::new(ours))).await.unwrap();
    assert_eq!(allows.await, Ok(true));
    BackendStream::new(sender, Scheme::Https, None, true)
}

#[tokio::test]
async fn a_websocket_is_a_tunnel_both_ways() {
    let mut stream = websocket(200).await;
    let request = format!(
        "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    for text in ["hello", "tunnel"] {
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut echoed = vec![0; text.len()];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(echoed, text.as_bytes());
    }
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_refused_websocket_is_passed_on() {
    let mut stream = websocket(403).await;
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nSec-WebSocket-Key: {KEY}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 24];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 403 Forbidden\r\n");
}
