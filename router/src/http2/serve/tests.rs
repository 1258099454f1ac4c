//! A client of HTTP/2 at the other end of a pipe, driven by `h2` frame by frame, and an application that speaks
//! HTTP/1.1.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::{EdgeLimits, MAX_HEADS, serve};
use crate::clients::Clients;
use crate::clock::Clock;
use crate::connection::{Connection, Connections, Load};
use crate::http1::body::{Decoder, Output};
use crate::http1::framing::of_request;
use crate::http1::head::{HeadLimits, RequestHead};
use crate::http2::{ClientStream, EdgeError, Opened, websocket};

mod bounds;
mod limits;
mod tunnels;

const LIMITS: EdgeLimits =
    EdgeLimits { max_head: 1024 * 1024, max_headers: 10, max_requests: None };
const SHORT: Duration = Duration::from_millis(50);

/// The state of a connection that was just accepted.
fn state() -> Arc<Connection> {
    let limits = crate::limits::tests::unlimited();
    let address: std::net::SocketAddr = "127.0.0.1:1".parse().unwrap();
    let ticket = Arc::new(Clients::default()).admit(address.ip(), true, &limits).unwrap();
    let (clock, load) = (Arc::new(Clock::new()), Arc::new(Load::default()));
    Connection::new(address, clock, load, &limits, ticket)
}

/// A connection whose requests are answered by `answer`.
struct Edge {
    client: SendRequest<Bytes>,
    state: Arc<Connection>,
    connections: Arc<Connections>,
}

async fn connect<F>(answer: impl Fn(Opened, Arc<Connection>) -> F + Send + 'static) -> Edge
where
    F: Future<Output = ()> + Send + 'static,
{
    connect_with(LIMITS, answer).await
}

async fn connect_with<F>(
    limits: EdgeLimits,
    answer: impl Fn(Opened, Arc<Connection>) -> F + Send + 'static,
) -> Edge
where
    F: Future<Output = ()> + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (state, connections) = (state(), Arc::new(Connections::default()));
    let serving = (Arc::clone(&state), Arc::clone(&connections));
    drop(tokio::spawn(async move {
        let (state, connections) = serving;
        let _ended = serve(TokioIo::new(ours), &state, connections, limits, answer).await;
    }));
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(65_535);
    let (client, connection) = builder.handshake(theirs).await.unwrap();
    drop(tokio::spawn(async move {
        let _ended = connection.await;
    }));
    Edge { client, state, connections }
}

fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

/// What came of a response: its head and content, and its trailers.
type Received = (Response<()>, String, Option<HeaderMap>);

impl Edge {
    /// Sends a request in pieces, with trailers if there are any.
    async fn send(
        &self,
        request: Request<()>,
        pieces: &[&'static str],
        trailers: Option<HeaderMap>,
    ) -> Result<Received, h2::Error> {
        let is_over = pieces.is_empty() && trailers.is_none();
        let mut client = self.client.clone().ready().await?;
        let (response, mut send) = client.send_request(request, is_over)?;
        for (index, piece) in pieces.iter().enumerate() {
            let is_last = index + 1 == pieces.len() && trailers.is_none();
            send.send_data(Bytes::from_static(piece.as_bytes()), is_last)?;
        }
        if let Some(trailers) = trailers {
            send.send_trailers(trailers)?;
        }
        receive(response).await
    }
}

async fn receive(response: h2::client::ResponseFuture) -> Result<Received, h2::Error> {
    let (parts, mut body) = response.await?.into_parts();
    let content = read_all(&mut body).await?;
    let trailers = body.trailers().await?;
    Ok((Response::from_parts(parts, ()), String::from_utf8(content).unwrap(), trailers))
}

async fn read_all(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        content.extend_from_slice(&data);
    }
    Ok(content)
}

/// Reads one request, as the message layer finds its end.
async fn read_request(stream: &mut ClientStream) -> io::Result<String> {
    const LIMITS: HeadLimits =
        HeadLimits { max_bytes: 1 << 20, max_fields: 100, max_target: 1 << 20 };
    let (mut bytes, mut head) = (Vec::new(), RequestHead::default());
    let mut at = loop {
        if let Some(length) = head.parse(&bytes, &LIMITS).unwrap() {
            break length;
        }
        assert!(stream.read_buf(&mut bytes).await? > 0, "no end");
    };
    let mut decoder = Decoder::new(of_request(&head, &bytes).unwrap().body);
    while !decoder.is_done() {
        if at == bytes.len() {
            assert!(stream.read_buf(&mut bytes).await? > 0, "no end");
        }
        at += decoder.decode(&bytes[at..], Output::Content).unwrap().consumed();
    }
    assert_eq!(at, bytes.len());
    Ok(String::from_utf8(bytes).unwrap())
}

/// Answers with the request, in pieces of a size that the target names.
async fn echo(mut opened: Opened, state: Arc<Connection>) {
    // Or it would count as given up.
    state.begin_streaming(None);
    state.note_answered();
    let stream = &mut opened.stream;
    let request = read_request(stream).await.unwrap();
    let size = request.split_once("?").unwrap().1.split_once(' ').unwrap().0.parse().unwrap();
    let response = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nX-A: 1\r\n\r\n\
         {:x}\r\n{request}\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n",
        request.len()
    );
    for piece in response.as_bytes().chunks(size) {
        stream.write_all(piece).await.unwrap();
    }
    stream.flush().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it is delivered");
}

#[tokio::test]
async fn requests_and_responses_are_the_same_in_any_pieces() {
    let edge = connect(echo).await;
    for size in 1..200 {
        let uri = format!("http://a.test/?{size}");
        let line = |method: &str| format!("{method} /?{size} HTTP/1.1\r\nhost: a.test\r\n");
        let (response, content, trailers) = edge.send(get(&uri), &[], None).await.unwrap();
        assert_eq!(response.headers()["x-a"], "1");
        assert!(!response.headers().contains_key("connection"));
        assert_eq!(content, line("GET") + "\r\n");
        let sum = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-sum"),
            HeaderValue::from_static("1"),
        )]);
        assert_eq!(trailers.as_ref(), Some(&sum));
        let post = || Request::post(&uri);
        let request = post().header("content-length", "5").body(()).unwrap();
        let (_, content, _) = edge.send(request, &["ab", "cde"], None).await.unwrap();
        assert_eq!(content, line("POST") + "content-length: 5\r\n\r\nabcde");
        let request = post().header("te", "trailers").body(()).unwrap();
        let (_, content, _) = edge.send(request, &["abc"], Some(sum)).await.unwrap();
        let expected = "te: trailers\r\ntransfer-encoding: chunked\r\n\r\n\
                        3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n";
        assert_eq!(content, line("POST") + expected);
        let (_, content, _) = edge.send(post().body(()).unwrap(), &[], None).await.unwrap();
        assert_eq!(content, line("POST") + "content-length: 0\r\n\r\n");
    }
}

/// An application that reads the head of a request and says what it is told to.
async fn say(mut opened: Opened, response: &'static str) {
    let _request = read_request(&mut opened.stream).await;
    let _written = opened.stream.write_all(response.as_bytes()).await;
    let _flushed = opened.stream.flush().await;
}

#[tokio::test]
async fn responses_without_content_end_with_their_head() {
    for (method, response, status, length) in [
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        ("GET", "HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", 304, Some("5")),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, Some("5")),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, None),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, Some("0")),
        (
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nLink: x\r\n\r\nHTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n",
            404,
            Some("0"),
        ),
    ] {
        let edge = connect(move |opened, _state| say(opened, response)).await;
        let request = Request::builder().method(method).uri("http://a.test/").body(()).unwrap();
        let mut client = edge.client.ready().await.unwrap();
        let (future, _) = client.send_request(request, true).unwrap();
        let answer = future.await.unwrap();
        assert!(answer.body().is_end_stream(), "{response}");
        assert_eq!(answer.status(), status);
        let seen = answer.headers().get("content-length").map(|value| value.to_str().unwrap());
        assert_eq!(seen, length, "{response}");
    }
}

#[tokio::test]
async fn a_response_that_is_cut_resets_its_stream() {
    for (response, content) in [
        ("", None),
        ("HTTP/1.1 200", None),
        ("no HTTP", None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", Some("abc")),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Some("abc")),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx", None),
    ] {
        for shuts_down in [false, true] {
            let edge = connect(move |mut opened: Opened, _state| async move {
                let _written = opened.stream.write_all(response.as_bytes()).await;
                let _flushed = opened.stream.flush().await;
                tokio::time::sleep(SHORT).await;
                if shuts_down {
                    let _ended = opened.stream.shutdown().await;
                }
            })
            .await;
            let mut client = edge.client.ready().await.unwrap();
            let (future, _) = client.send_request(get("http://a.test/"), true).unwrap();
            match (future.await, content) {
                (Ok(response), Some(content)) => {
                    let mut body = response.into_body();
                    assert_eq!(body.data().await.unwrap().unwrap(), content);
                    assert!(body.data().await.unwrap().is_err(), "{content} has an end");
                }
                (Err(error), None) => assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR)),
                (seen, _) => panic!("{response:?}: {seen:?}"),
            }
        }
    }
}

/// Sends on a drop, and whether it had an end.
struct Dropped(mpsc::Sender<&'static str>, &'static str);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _receiver = self.0.try_send(self.1);
    }
}

#[tokio::test]
async fn a_request_that_is_reset_has_no_end_and_its_answer_goes() {
    for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR] {
        let (sender, mut dropped) = mpsc::channel(1);
        let edge = connect(move |mut opened: Opened, _state| {
            let dropped = Dropped(sender.clone(), "gone");
            async move {
                let mut dropped = dropped;
                dropped.1 = match read_request(&mut opened.stream).await {
                    Ok(_) => "complete",
                    Err(_) => "error",
                };
            }
        })
        .await;
        let mut client = edge.client.ready().await.unwrap();
        let request = Request::post("http://a.test/").body(()).unwrap();
        let (_response, mut send) = client.send_request(request, false).unwrap();
        send.send_data(Bytes::from_static(b"abc"), false).unwrap();
        tokio::time::sleep(SHORT).await;
        send.send_reset(reason);
        assert_eq!(dropped.recv().await, Some("gone"), "{reason:?}");
    }
}

#[tokio::test]
async fn refused_requests_say_why_and_can_be_answered() {
    let edge = connect(|mut opened: Opened, _state| async move {
        let refusal = opened.refusal;
        let request = read_request(&mut opened.stream).await.unwrap();
        let text = format!("{refusal:?} {}", request.lines().next().unwrap());
        let response = format!("HTTP/1.1 400 x\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        opened.stream.write_all(response.as_bytes()).await.unwrap();
        opened.stream.flush().await.unwrap();
    })
    .await;
    let mut many = Request::get("http://a.test/x");
    for number in 0..10 {
        many = many.header(format!("x-{number}"), "1");
    }
    let many = many.body(()).unwrap();
    let differ = Request::post("http://a.test/x").header("host", "b.test").body(()).unwrap();
    for (request, expected) in [
        (many, format!("Some({:?}) GET /x HTTP/1.1", EdgeError::TooManyHeaders)),
        (
            differ,
            format!(
                "Some({:?}) POST /x HTTP/1.1",
                EdgeError::BadRequest(":authority and host differ")
            ),
        ),
        (get("http://a.test/x"), "None GET /x HTTP/1.1".to_owned()),
    ] {
        let (_, content, _) = edge.send(request, &[], None).await.unwrap();
        assert_eq!(content, expected);
    }
}
