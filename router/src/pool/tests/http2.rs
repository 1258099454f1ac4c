//! Backends of HTTP/2: requests share a connection.

use std::sync::atomic::AtomicUsize;

use super::*;

/// Counts connections and answers every request by 204.
async fn serve(listener: TcpListener, connections: Arc<AtomicUsize>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        connections.fetch_add(1, Ordering::Relaxed);
        drop(tokio::spawn(async move {
            let mut builder = h2::server::Builder::new();
            builder.enable_connect_protocol();
            let mut connection = builder.handshake::<_, bytes::Bytes>(socket).await.unwrap();
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                let response = http::Response::builder().status(204).body(()).unwrap();
                let _sent = respond.send_response(response, true);
            }
        }));
    }
}

async fn request(worker: &Worker, mut connection: PooledConnection) {
    let stream = &mut connection.connection().stream;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut response = [0; 12];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut response)).await.unwrap().unwrap();
    assert_eq!(&response, b"HTTP/1.1 204");
    worker.exchange(connection, KEPT);
}

#[tokio::test]
async fn requests_share_a_connection_unless_they_need_their_own() {
    let worker = Worker::new(10, LIMIT);
    let (listener, origin) = backend("h2c").await;
    let connections = Arc::new(AtomicUsize::new(0));
    let server = tokio::spawn(serve(listener, Arc::clone(&connections)));
    let count = || connections.load(Ordering::Relaxed);
    let peer = peer(&origin);

    // Both at once wait for one connection.
    let (first, second) = tokio::join!(worker.checkout(peer), worker.checkout(peer));
    assert!(first.is_http2() && second.is_http2());
    assert!(!first.attempt().is_reused && second.attempt().is_reused);
    request(&worker, first).await;
    request(&worker, second).await;
    // Refusals make it safe to share for all methods.
    let once = Peer { is_safe: false, keep_alive: KeepAlive::Safe, ..peer };
    request(&worker, worker.idle(once).unwrap()).await;
    assert_eq!(count(), 1);

    for own in [
        Peer { purpose: Purpose::Dedicated, ..peer },
        Peer { purpose: Purpose::Login, ..peer },
        Peer { keep_alive: KeepAlive::Off, ..peer },
    ] {
        let before = count();
        assert!(worker.idle(own).is_none(), "{own:?}");
        request(&worker, worker.new_one(own).await.unwrap()).await;
        assert_eq!(count(), before + 1, "{own:?}");
    }
    let websocket = Peer { purpose: Purpose::WebSocket, ..peer };
    let tunnel = worker.new_one(websocket).await.unwrap();
    assert!(tunnel.is_http2() && matches!(tunnel.into_stream(), Stream::Virtual(_)));
    let upgrade = Peer { purpose: Purpose::Upgrade, ..peer };
    let error = worker.new_one(upgrade).await.unwrap_err();
    assert!(matches!(error, CheckoutError::NoTunnel), "{error}");
    server.abort();
}

#[test]
fn large_heads_go_alone_where_others_would_suffer() {
    for (url, head, expected) in [
        ("http://a.test", 100_000, Purpose::Exchange),
        ("https://a.test", 1_000, Purpose::Exchange),
        ("https://a.test", 100_000, Purpose::Dedicated),
        ("h2c://a.test", 100_000, Purpose::Dedicated),
    ] {
        let origin = BackendUrl::parse(url.as_bytes()).unwrap().origin;
        assert_eq!(Purpose::of(&origin, head, 10), expected, "{url} {head}");
    }
}
