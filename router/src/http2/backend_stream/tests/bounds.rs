//! What a slow side may hold.

use super::*;

const BIG: usize = 4 * 1024 * 1024;

#[tokio::test]
async fn a_response_is_sent_as_fast_as_it_is_read() {
    let (progress, mut sent) = tokio::sync::watch::channel(0_usize);
    let (sender, usage) = connect(move |_request, mut respond| {
        let progress = progress.clone();
        async move {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            for _ in 0..BIG / 16_384 {
                send.reserve_capacity(16_384);
                let mut left = 16_384;
                while left > 0 {
                    let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await;
                    let part = room.unwrap().unwrap().min(left);
                    send.send_data(Bytes::from(vec![b'x'; part]), false).unwrap();
                    left -= part;
                    send.reserve_capacity(left);
                    progress.send_modify(|sent| *sent += part);
                }
            }
            send.send_data(Bytes::new(), true).unwrap();
        }
    })
    .await;
    let mut stream = stream(&sender, &usage);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    stream.read_exact(&mut [0; 100]).await.unwrap();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let seen = *sent.borrow_and_update();
    assert!(seen <= 512 * 1024, "{seen} bytes for a reader that took 100");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() > BIG && rest.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn an_upload_waits_for_a_backend_that_does_not_read() {
    let (start, started) = tokio::sync::watch::channel(false);
    let (sender, usage) = connect(move |request, mut respond| {
        let mut started = started.clone();
        async move {
            let mut body = request.into_body();
            started.wait_for(|started| *started).await.unwrap();
            let (content, _) = read_body(&mut body).await.unwrap();
            let mut response = Response::new(());
            let length = HeaderValue::from(content.len());
            response.headers_mut().insert("x-length", length);
            respond.send_response(response, true).unwrap();
        }
    })
    .await;
    let stream = stream(&sender, &usage);
    let (mut read, mut write) = tokio::io::split(stream);
    let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {BIG}\r\n\r\n");
    write.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 16_384];
    let mut written = 0;
    while let Ok(count) =
        tokio::time::timeout(std::time::Duration::from_millis(100), write.write(&piece)).await
    {
        written += count.unwrap();
        assert!(written < BIG, "it takes everything");
    }
    assert!(written <= 512 * 1024, "{written} bytes for a backend that took none");
    start.send_replace(true);
    while written < BIG {
        let length = piece.len().min(BIG - written);
        written += write.write(&piece[..length]).await.unwrap();
    }
    let mut response = String::new();
    read.read_to_string(&mut response).await.unwrap();
    assert!(response.contains(&format!("x-length: {BIG}\r\n")), "{response}");
}
