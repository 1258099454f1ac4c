//! What a slow or silent side may hold.

use super::*;

const BIG: usize = 4 * 1024 * 1024;

#[tokio::test]
async fn a_response_is_written_as_fast_as_the_client_takes_it() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let edge = connect(move |mut opened: Opened, _state| {
        let count = Arc::clone(&count);
        async move {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n");
            opened.stream.write_all(head.as_bytes()).await.unwrap();
            let piece = vec![b'x'; 10_000];
            let mut left = BIG;
            while left > 0 {
                let part = opened.stream.write(&piece[..left.min(piece.len())]).await.unwrap();
                count.fetch_add(part, Ordering::Relaxed);
                left -= part;
            }
            opened.stream.flush().await.unwrap();
        }
    })
    .await;
    let mut client = edge.client.ready().await.unwrap();
    let (future, _) = client.send_request(get("http://a.test/"), true).unwrap();
    let mut body = future.await.unwrap().into_body();
    tokio::time::sleep(SHORT).await;
    let seen = written.load(Ordering::Relaxed);
    assert!(seen <= 64 * 1024 * 4, "{seen} bytes for a client that takes none");
    assert_eq!(read_all(&mut body).await.unwrap().len(), BIG);
}

/// Neither direction waits for the other one: the client reads nothing before it has sent everything.
#[tokio::test]
async fn an_upload_goes_on_while_the_response_is_blocked() {
    let edge = connect(|opened: Opened, _state| async move {
        let (mut read, mut write) = tokio::io::split(opened.stream);
        let upload = async {
            let (mut bytes, mut total) = (vec![0; 10_000], 0);
            while total < BIG {
                total += read.read(&mut bytes).await.unwrap();
            }
        };
        let download = async {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n");
            write.write_all(head.as_bytes()).await.unwrap();
            write.write_all(&vec![b'x'; BIG]).await.unwrap();
            write.flush().await.unwrap();
        };
        tokio::join!(upload, download);
    })
    .await;
    let mut client = edge.client.ready().await.unwrap();
    let request = Request::post("http://a.test/").header("content-length", BIG).body(()).unwrap();
    let (future, mut send) = client.send_request(request, false).unwrap();
    let mut body = future.await.unwrap().into_body();
    let mut left = BIG;
    while left > 0 {
        send.reserve_capacity(left.min(16_384));
        let room = poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
        let part = room.min(left);
        left -= part;
        send.send_data(Bytes::from(vec![b'x'; part]), left == 0).unwrap();
    }
    assert_eq!(read_all(&mut body).await.unwrap().len(), BIG);
}

#[tokio::test]
async fn an_upload_waits_for_an_application_that_does_not_read() {
    let edge = connect(|mut opened: Opened, _state| async move {
        opened.stream.read_exact(&mut [0; 10]).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let mut client = edge.client.ready().await.unwrap();
    let request = Request::post("http://a.test/").body(()).unwrap();
    let (_response, mut send) = client.send_request(request, false).unwrap();
    let mut sent = 0;
    send.reserve_capacity(BIG);
    while let Ok(room) = tokio::time::timeout(SHORT, poll_fn(|cx| send.poll_capacity(cx))).await {
        let room = room.unwrap().unwrap();
        send.send_data(Bytes::from(vec![b'x'; room]), false).unwrap();
        sent += room;
        send.reserve_capacity(BIG - sent);
    }
    assert!(sent <= 128 * 1024, "{sent} bytes were taken");
}

/// A client that takes nothing is reset once its time is over, whether the answer waits for it or has ended.
#[tokio::test]
async fn a_client_that_takes_nothing_is_reset() {
    for length in [1000, BIG] {
        let edge = connect(move |mut opened: Opened, state: Arc<Connection>| async move {
            state.begin_streaming(Some(Duration::from_millis(1)));
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            opened.stream.write_all(head.as_bytes()).await.unwrap();
            let _written = opened.stream.write_all(&vec![b'x'; length]).await;
        })
        .await;
        // All of the connection's window goes to a stream that is not read.
        let mut client = edge.client.clone().ready().await.unwrap();
        let (waste, _) = client.send_request(get("http://a.test/"), true).unwrap();
        let _unread = waste.await.unwrap();
        let (future, _) = client.send_request(get("http://a.test/"), true).unwrap();
        let mut body = future.await.unwrap().into_body();
        tokio::time::sleep(SHORT).await;
        for _ in 0..2 {
            for connection in edge.connections.sweep(1 << 40, 0, 1) {
                connection.upgrade().unwrap().wake();
            }
        }
        tokio::time::sleep(SHORT).await;
        if length == BIG {
            let error = read_all(&mut body).await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::CANCEL));
        } else {
            // It fits the buffers, and is there whenever it is read.
            assert_eq!(read_all(&mut body).await.unwrap().len(), length);
        }
        let response = edge.send(get("http://a.test/"), &[], None);
        let _goes_on = tokio::time::timeout(SHORT, response).await;
    }
}
