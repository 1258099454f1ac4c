//! The HTTP/1 message layer as a whole: bytes that are cut anywhere, and hyper as a second reader. Whatever
//! `http1` accepts, hyper accepts and reads the same way.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use router::http1::client::{NoReuse, Reuse};
use router::http1::error::RequestError;
use router::http1::head::{Method, Version};
use router::http1::server::Next;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[path = "../../integration/tests/desync/corpus.rs"]
mod corpus;
#[path = "../../fuzz/http1.rs"]
mod reader;

use reader::{Lines, Reading, read_requests, read_response, relay_response};

/// Every place, one at a time, and all of them.
fn cuts(length: usize) -> impl Iterator<Item = Vec<usize>> {
    let step = (length / 40).max(1);
    (0..length).step_by(step).map(|cut| vec![cut]).chain([(0..length).collect()])
}

/// Requests are the same wherever reads end, and so is what is wrong with the next one. A head that trickles
/// in may be parsed only when it is complete.
fn check_cuts(bytes: &[u8], whole: &Reading) {
    for cuts in cuts(bytes.len()) {
        let cut = read_requests(bytes, &cuts);
        let text = bytes.escape_ascii();
        assert_eq!(cut.requests, whole.requests, "{text} {cuts:?}");
        if cut.refused != whole.refused {
            let rest = bytes[bytes.len() - cut.rest..].trim_ascii_start();
            let has_end = rest.windows(2).any(|end| end == b"\n\n")
                || rest.windows(3).any(|end| end == b"\n\r\n");
            assert!(cut.refused.is_none() && !has_end, "{text} {cuts:?}: {cut:?} {whole:?}");
        }
    }
}

#[test]
fn requests_of_the_corpus_are_the_same_wherever_reads_end() {
    let mut requests = 0;
    for variant in corpus::generate(9112, 3_000) {
        let whole = read_requests(&variant.bytes, &[]);
        requests += whole.requests.len();
        check_cuts(&variant.bytes, &whole);
    }
    assert!(requests > 1_000, "{requests}");
}

/// A request as hyper has read it.
#[derive(Debug)]
struct Seen {
    method: String,
    target: String,
    version: Version,
    fields: Lines,
    body: Option<Vec<u8>>,
}

fn lines(headers: &http::HeaderMap) -> Lines {
    let fields = headers.iter();
    fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}

async fn see(seen: Arc<Mutex<Vec<Seen>>>, request: http::Request<Incoming>) {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str).to_owned();
    let is_new = parts.version == http::Version::HTTP_11;
    let request = Seen {
        method: parts.method.to_string(),
        target,
        version: if is_new { Version::Http11 } else { Version::Http10 },
        fields: lines(&parts.headers),
        body: None,
    };
    let index = {
        let mut seen = seen.lock().expect("no panic");
        seen.push(request);
        seen.len() - 1
    };
    if let Ok(body) = body.collect().await {
        seen.lock().expect("no panic")[index].body = Some(body.to_bytes().to_vec());
    }
}

/// Every request that hyper reads.
async fn read_by_hyper(bytes: &[u8]) -> Vec<Seen> {
    let seen = Arc::<Mutex<Vec<Seen>>>::default();
    let (mut client, server) = tokio::io::duplex(1024 * 1024);
    client.write_all(bytes).await.expect("fits");
    client.shutdown().await.expect("in memory");
    let service = service_fn({
        let seen = Arc::clone(&seen);
        move |request| {
            let seen = Arc::clone(&seen);
            async move {
                see(seen, request).await;
                Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
            }
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.half_close(true).max_buf_size(80 * 1024);
    let _ended = builder.serve_connection(TokioIo::new(server), service).await;
    std::mem::take(&mut *seen.lock().expect("no panic"))
}

/// Names in lower case and ordered, without the lines that hyper removes: a length with a transfer coding,
/// and repeated lengths.
fn comparable(fields: &Lines) -> Lines {
    let is = |line: &(String, Vec<u8>), name: &str| line.0.eq_ignore_ascii_case(name);
    let is_chunked = fields.iter().any(|line| is(line, "transfer-encoding"));
    let mut has_length = is_chunked;
    let mut lines: Lines = fields
        .iter()
        .filter(|line| !is(line, "content-length") || !std::mem::replace(&mut has_length, true))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect();
    // The values of one name keep their order.
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    lines
}

/// What `http::Uri` refuses, and applications take.
fn has_odd_target(target: &str) -> bool {
    target.bytes().any(|byte| b"\"<>[\\]^`{|}".contains(&byte))
}

fn compare(bytes: &[u8], reading: &Reading, seen: &[Seen]) {
    let text = bytes.escape_ascii();
    for (index, request) in reading.requests.iter().enumerate() {
        // The proxy refuses such a host, and such a method, once the message is read.
        let is_refused =
            shared::host::normalize(&request.host).is_err() || request.method == "CONNECT";
        if is_refused || has_odd_target(&request.target) {
            return;
        }
        let seen =
            seen.get(index).unwrap_or_else(|| panic!("hyper stops before {request:?}: {text}"));
        // A URL alone; see the list of hyper's faults in the tests of the target.
        if request.target != "*" {
            assert_eq!(seen.target, request.target, "{text}");
        }
        assert_eq!(seen.method, request.method, "{text}");
        assert_eq!(seen.version, request.version, "{text}");
        assert_eq!(comparable(&seen.fields), comparable(&request.fields), "{text}");
        assert_eq!(seen.body.as_ref(), Some(&request.body), "{text}");
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

#[test]
fn requests_of_the_corpus_are_accepted_and_read_alike_by_hyper() {
    let (mut accepted, mut refused) = (0, 0);
    run(async {
        for variant in corpus::generate(2112, 8_000) {
            let reading = read_requests(&variant.bytes, &[]);
            accepted += reading.requests.len();
            refused += usize::from(reading.refused.is_some());
            compare(&variant.bytes, &reading, &read_by_hyper(&variant.bytes).await);
        }
    });
    assert!(accepted > 3_000 && refused > 2_000, "{accepted} {refused}");
}

/// The faults of hyper that cannot be mended from outside: what is different here on purpose.
#[test]
fn faults_of_hyper_are_not_shared() {
    let one = |text: &str| {
        let mut reading = read_requests(text.as_bytes(), &[]);
        assert_eq!((reading.requests.len(), reading.refused), (1, None), "{text:?}");
        reading.requests.remove(0)
    };
    assert_eq!(one("OPTIONS http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n").target, "*");
    let odd = "/?filter={\"a\":1}";
    let request =
        one(&format!("GET {odd} HTTP/1.1\r\nHost: a.test\r\nX-B: 1\r\nx-a: 2\r\nX-b: 3\r\n\r\n"));
    assert_eq!(request.target, odd);
    let expected =
        format!("GET {odd} HTTP/1.1\r\nHost: a.test\r\nX-B: 1\r\nx-a: 2\r\nX-b: 3\r\n\r\n");
    assert_eq!(String::from_utf8(request.forwarded).unwrap(), expected);
    let lengths =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 003\r\n\r\nabc";
    let refused = read_requests(lengths.as_bytes(), &[]).refused;
    assert_eq!(refused, Some(RequestError::LengthsDiffer));
    let closing = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n";
    assert!(one(closing).is_last);
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(100_000));
    assert_eq!(read_requests(long.as_bytes(), &[]).refused, Some(RequestError::TargetTooLong));
}

/// The response of a backend as hyper reads it.
async fn response_by_hyper(
    method: Method,
    bytes: &[u8],
) -> Result<(u16, Lines, Vec<u8>), hyper::Error> {
    let (client, mut server) = tokio::io::duplex(1024 * 1024);
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(80 * 1024);
    let (mut sender, driver) = builder.handshake(TokioIo::new(client)).await?;
    let method = if method == Method::Head { http::Method::HEAD } else { http::Method::GET };
    let mut request = http::Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes().to_vec();
        Ok((parts.status.as_u16(), lines(&parts.headers), body))
    };
    let backend = async {
        let mut request = [0; 1024];
        let _some = server.read(&mut request).await;
        let _written = server.write_all(bytes).await;
        drop(server);
    };
    let (result, _driven, ()) = tokio::join!(exchange, driver, backend);
    result
}

/// Heads of responses, good and bad, and bodies that fit them or do not.
fn responses() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => Just("HTTP/1.1 200 OK\r\n".to_owned()),
        1 => Just("HTTP/1.0 200 OK\r\n".to_owned()),
        1 => Just("HTTP/1.1 304 Not Modified\r\n".to_owned()),
        1 => Just("HTTP/1.1 204\r\n".to_owned()),
        1 => Just("HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Not Found\r\n".to_owned()),
        1 => "(\r\n)?HTTP/1.[0-2] [0-9]{2,4}( [ -~]{0,5})?\r?\n",
    ];
    let field = prop_oneof![
        3 => Just("Content-Length: 5\r\n".to_owned()),
        1 => "Content-Length: [+0-9, ]{0,4}\r\n",
        3 => Just("Transfer-Encoding: chunked\r\n".to_owned()),
        1 => "Transfer-Encoding: (gzip|identity|,|)(, ?)?(chunked)?\r\n",
        1 => "Connection: (close|keep-alive|x)\r\n",
        3 => "[a-zA-Z-]{1,8}: ?[ -~\t]{0,8}\r\n",
        1 => "[a-z :]{0,4}:?[ -~]{0,4}\r?\n",
    ];
    let body = prop_oneof![
        Just("hello".to_owned()),
        Just("5\r\nhello\r\n0\r\n\r\n".to_owned()),
        Just("5;x\r\nhello\r\n0\r\nT: 1\r\n\r\n".to_owned()),
        "[0-5]{0,2};?\r?\n[a-z]{0,5}\r\n(0\r\n\r\n)?",
    ];
    (line, proptest::collection::vec(field, 0..4), body).prop_map(|(line, fields, body)| {
        format!("{line}{}\r\n{body}", fields.concat()).into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn responses_are_accepted_and_read_alike_by_hyper(bytes in responses(), is_head in any::<bool>()) {
        let method = if is_head { Method::Head } else { Method::Get };
        let read = read_response(method, &bytes, &[]);
        for cuts in cuts(bytes.len()) {
            let cut = read_response(method, &bytes, &cuts);
            // A head that trickles in and never ends is cut short, whatever else is wrong with it.
            prop_assert!(cut == read || (cut.is_err() && read.is_err()), "{cut:?} {read:?}");
        }
        if let Ok(Some(read)) = read {
            let seen = run(response_by_hyper(method, &bytes));
            let (status, fields, body) = seen.map_err(|error| {
                TestCaseError::fail(format!("hyper refuses {read:?}: {error}"))
            })?;
            prop_assert_eq!(status, read.status);
            prop_assert_eq!(body, read.body);
            prop_assert_eq!(comparable(&fields), comparable(&read.fields));
        }
    }

    /// A client of either version reads the same response, or sees that it is cut; and it never takes a
    /// response for complete that the backend has not completed.
    #[test]
    fn relayed_responses_have_the_same_content_and_are_cut_where_the_backend_cuts(
        bytes in responses(),
        is_head in any::<bool>(),
        version in "1\\.[01]",
        connection in prop_oneof![Just(""), Just("Connection: keep-alive\r\n")],
    ) {
        let (name, method) = if is_head { ("HEAD", Method::Head) } else { ("GET", Method::Get) };
        let request = format!("{name} / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
        let Ok((relayed, next)) = relay_response(&request, &bytes) else { return Ok(()) };
        let text = relayed.escape_ascii();
        let seen = read_response(method, &relayed, &[]);
        match read_response(method, &bytes, &[]) {
            Ok(Some(source)) => {
                let seen = seen.ok().flatten().ok_or_else(|| TestCaseError::fail(text.to_string()))?;
                prop_assert_eq!((seen.status, &seen.body), (source.status, &source.body));
                let is_alive = !matches!(seen.reuse, Reuse::No(NoReuse::BackendCloses | NoReuse::UntilClose));
                prop_assert_eq!(is_alive, next == Next::Request, "{}", text);
            }
            Ok(None) => prop_assert!(false, "no 1xx is relayed here"),
            Err(error) => prop_assert!(next == Next::Reset || seen.is_err(), "{}: {}", error, text),
        }
    }

    #[test]
    fn connections_of_any_bytes_are_survived(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just(b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec()),
                Just(b"\r\n".to_vec()),
                Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
                Just(b"Content-Length: 3\r\n".to_vec()),
                Just(b"3\r\nabc\r\n0\r\n\r\n".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..8),
            ],
            0..12,
        ),
    ) {
        let bytes = pieces.concat();
        check_cuts(&bytes, &read_requests(&bytes, &[]));
        let _response = read_response(Method::Get, &bytes, &[]);
    }
}

/// Bytes beyond a response keep its connection out of the pool.
#[test]
fn what_is_behind_a_response_is_never_the_next_one() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for first in
        ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]
    {
        let bytes = format!("{first}{poison}");
        for cuts in cuts(bytes.len()) {
            let read = read_response(Method::Get, bytes.as_bytes(), &cuts).unwrap().unwrap();
            assert!(matches!(read.reuse, Reuse::No(_)), "{read:?}");
            assert!(!read.body.ends_with(b"poison"));
        }
    }
}
