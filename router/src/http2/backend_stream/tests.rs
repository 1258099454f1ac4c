//! A backend of HTTP/2 at the other end of a pipe, driven by `h2` frame by frame.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use shared::backend::Scheme;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{BackendStream, is_refused};
use crate::http2::sharing::{Shared, StreamSlot, StreamUsage};
use crate::http2::{Sender, handshake, handshake_for_websocket};
use crate::stream::Stream;
use crate::upstream::names::Reached;

mod bounds;
mod tunnels;

type Respond = SendResponse<Bytes>;

/// Answers every request by `answer`, each in a task of its own.
async fn serve<F>(
    io: tokio::io::DuplexStream,
    answer: impl Fn(Request<h2::RecvStream>, Respond) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    let mut connection = builder.handshake(io).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        drop(tokio::spawn(answer(request, respond)));
    }
}

/// A connection to a backend that answers by `answer`.
async fn connect<F>(
    answer: impl Fn(Request<h2::RecvStream>, Respond) -> F + Send + 'static,
) -> (Sender, Arc<StreamUsage>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    drop(tokio::spawn(serve(theirs, answer)));
    let usage = StreamUsage::new();
    let sender = handshake(Stream::Virtual(Box::new(ours)), Arc::clone(&usage)).await.unwrap();
    (sender, usage)
}

fn stream(sender: &Sender, usage: &Arc<StreamUsage>) -> BackendStream {
    BackendStream::new(sender.clone(), Scheme::H2c, Some(StreamSlot::new(usage)), false)
}

async fn read_body(body: &mut h2::RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len()).unwrap();
        content.extend_from_slice(&data);
    }
    Ok((content, body.trailers().await?))
}

/// Says what it got: the request line, the fields, the content and the trailers.
async fn report(request: Request<h2::RecvStream>, mut respond: Respond) {
    let (parts, mut body) = request.into_parts();
    let mut text = format!("{} {}\n", parts.method, parts.uri);
    for (name, value) in &parts.headers {
        text += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    let Ok((content, trailers)) = read_body(&mut body).await else { return };
    text += &format!("{} {trailers:?}", String::from_utf8(content).unwrap());
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    send.send_data(Bytes::from(text), false).unwrap();
    let sum = HeaderValue::from_static("1");
    send.send_trailers(HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), sum)]))
        .unwrap();
}

/// Writes a request in pieces of `size` and reads the response to its end.
async fn exchange(stream: &mut BackendStream, request: &str, size: usize) -> io::Result<String> {
    for piece in request.as_bytes().chunks(size) {
        stream.write_all(piece).await?;
    }
    stream.flush().await?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await?;
    Ok(String::from_utf8(response).unwrap())
}

/// The content of a chunked response and its trailers, without the head.
fn content(response: &str) -> String {
    let (head, mut rest) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let mut content = String::new();
    loop {
        let (size, behind) = rest.split_once("\r\n").unwrap();
        match usize::from_str_radix(size, 16).unwrap() {
            0 => return content + "|" + behind,
            size => {
                let (chunk, behind) = behind.split_at(size);
                content += chunk;
                rest = behind.strip_prefix("\r\n").unwrap();
            }
        }
    }
}

#[tokio::test]
async fn requests_written_in_any_pieces_are_the_same() {
    let (sender, usage) = connect(report).await;
    for (request, expected) in [
        (
            "GET /x?y HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\nConnection: close\r\n\r\n",
            "GET http://a.test/x?y\nx-a: 1\n None",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nabcde",
            "POST http://a.test/\ncontent-length: 5\nabcde None",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n",
            "POST http://a.test/\ncontent-length: 0\n None",
        ),
        (
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nHost: a.test\r\n\r\n\
             3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 2\r\nHost: evil\r\n\r\n",
            "PUT http://a.test/\nte: trailers\nabcde Some({\"x-sum\": \"2\"})",
        ),
    ] {
        for size in 1..=request.len() {
            let mut stream = stream(&sender, &usage);
            let response = exchange(&mut stream, request, size).await.unwrap();
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
            let expected = format!("{expected}|x-sum: 1\r\n\r\n");
            assert_eq!(content(&response), expected, "by {size}");
        }
    }
}

/// Reads a response byte by byte to its end.
async fn read_slowly(stream: &mut BackendStream) -> String {
    let mut response = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).await.unwrap() > 0 {
        response.extend(byte);
    }
    String::from_utf8(response).unwrap()
}

#[tokio::test]
async fn responses_without_content_have_none() {
    let (sender, usage) = connect(|request, mut respond| async move {
        let status = match request.uri().path() {
            "/204" => 204,
            "/304" => 304,
            _ => 200,
        };
        let mut response = Response::builder().status(status);
        if status != 204 && request.uri().path() != "/empty" {
            response = response.header("content-length", "5");
        }
        respond.send_response(response.body(()).unwrap(), true).unwrap();
    })
    .await;
    for (line, expected) in [
        ("HEAD /", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
        ("HEAD /empty", "HTTP/1.1 200 OK\r\n\r\n"),
        ("GET /empty", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ("GET /204", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET /304", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
    ] {
        let mut stream = stream(&sender, &usage);
        let request = format!("{line} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read_slowly(&mut stream).await, expected);
    }
}

/// Whether the connection takes no more requests.
fn is_spent(sender: &Sender, usage: &Arc<StreamUsage>) -> bool {
    let mut shared = Shared::default();
    shared.add(sender, usage, Reached::default());
    match shared.take(None) {
        Some((_, mut slot, _)) => slot.finish(),
        None => return true,
    }
    false
}

#[tokio::test]
async fn only_responses_that_were_read_are_finished() {
    let (sender, usage) = connect(|_request, mut respond| async move {
        let mut response = Response::new(());
        response.headers_mut().insert("content-length", HeaderValue::from_static("3"));
        let mut send = respond.send_response(response, false).unwrap();
        send.send_data(Bytes::from_static(b"abc"), false).unwrap();
        // The end comes late.
        tokio::task::yield_now().await;
        let _gone = send.send_data(Bytes::new(), true);
    })
    .await;
    let get = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for _ in 0..50 {
        let mut stream = stream(&sender, &usage);
        stream.write_all(get).await.unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\nabc") {
            stream.read_buf(&mut response).await.unwrap();
        }
    }
    assert!(!is_spent(&sender, &usage));
    for _ in 0..16 {
        assert!(!is_spent(&sender, &usage));
        let mut stream = stream(&sender, &usage);
        stream.write_all(get).await.unwrap();
        stream.read_exact(&mut [0; 9]).await.unwrap();
    }
    assert!(is_spent(&sender, &usage), "16 were given up");
}

/// Resets the stream behind a part of the response, with and without a length.
#[tokio::test]
async fn a_response_that_breaks_off_is_an_error() {
    let (sender, usage) = connect(|request, mut respond| async move {
        let mut response = Response::new(());
        if request.uri().path() == "/length" {
            response.headers_mut().insert("content-length", HeaderValue::from_static("9"));
        }
        let reason: u32 = request.uri().query().unwrap().parse().unwrap();
        let mut send = respond.send_response(response, false).unwrap();
        send.send_data(Bytes::from_static(b"abc"), false).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        send.send_reset(Reason::from(reason));
    })
    .await;
    for path in ["/length", "/chunked"] {
        // NO_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL
        for reason in [0, 2, 7, 8] {
            let mut stream = stream(&sender, &usage);
            let request = format!("GET {path}?{reason} HTTP/1.1\r\nHost: a.test\r\n\r\n");
            let error = exchange(&mut stream, &request, 100).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{path} {reason}");
            assert!(!is_refused(&error), "a part of the response has come");
            assert!(stream.read_u8().await.is_err(), "for good");
        }
    }
}

#[tokio::test]
async fn what_the_backend_refuses_may_be_sent_again() {
    let (sender, usage) = connect(|request, mut respond| async move {
        let mut body = request.into_body();
        let _some = body.data().await;
        respond.send_reset(Reason::REFUSED_STREAM);
    })
    .await;
    let mut stream = stream(&sender, &usage);
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nabc";
    stream.write_all(head.as_bytes()).await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    assert!(is_refused(&error), "{error:?}");
    let mut result = Ok(());
    for _ in 0..100 {
        result = stream.write_all(b"x").await;
        if result.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn what_a_goaway_or_a_closed_connection_leaves_out_may_be_sent_again() {
    // No backend of h2: it must say by hand that it got none of the streams.
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let usage = StreamUsage::new();
    let sender = handshake(Stream::Virtual(Box::new(ours)), Arc::clone(&usage)).await.unwrap();
    theirs.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut refused = stream(&sender, &usage);
    refused.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    // Until the request is there: the preface, SETTINGS, WINDOW_UPDATE and HEADERS.
    let mut seen = Vec::new();
    while !seen.windows(4).any(|bytes| bytes[0] == 1 && bytes[2..] == [0, 0]) {
        theirs.read_buf(&mut seen).await.unwrap();
    }
    let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    theirs.write_all(&goaway).await.unwrap();
    let error = refused.read_u8().await.unwrap_err();
    assert!(is_refused(&error), "{error:?}");
    drop(theirs);
    while !sender.is_closed() {
        tokio::task::yield_now().await;
    }
    let mut late = stream(&sender, &usage);
    late.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    assert!(is_refused(&late.read_u8().await.unwrap_err()));
}

#[tokio::test]
async fn a_connection_that_ends_under_a_request_is_no_refusal() {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let usage = StreamUsage::new();
    let sender = handshake(Stream::Virtual(Box::new(ours)), Arc::clone(&usage)).await.unwrap();
    theirs.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut stream = stream(&sender, &usage);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(4).any(|bytes| bytes[0] == 1 && bytes[2..] == [0, 0]) {
        theirs.read_buf(&mut seen).await.unwrap();
    }
    drop(theirs);
    let error = stream.read_u8().await.unwrap_err();
    assert!(!is_refused(&error), "{error:?}");
}

#[tokio::test]
async fn dropping_a_stream_resets_it() {
    let (report, mut reports) = tokio::sync::mpsc::channel(9);
    let (sender, usage) = connect(move |request, mut respond| {
        let report = report.clone();
        async move {
            let mut body = request.into_body();
            let result = read_body(&mut body).await;
            let _gone = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            report.send(result.map(|_| ()).map_err(|error| error.reason())).await.unwrap();
        }
    })
    .await;
    for body in ["", "abc"] {
        let mut stream = stream(&sender, &usage);
        let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\n{body}");
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        drop(stream);
        assert_eq!(reports.recv().await, Some(Err(Some(Reason::CANCEL))));
    }
}
