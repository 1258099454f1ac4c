//! HTTP/2 from both sides: a client and a backend on a library that is not the router's way to use
//! it, and raw frames for what no library would send.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::net::{TcpListener, TcpStream as AsyncStream};

use crate::eventually::DEADLINE;
use crate::tls::RUNTIME;
use crate::wire::Conn;

/// A client on one connection.
#[derive(Debug)]
pub struct Client {
    sender: SendRequest<Bytes>,
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The content.
    pub body: Vec<u8>,
    /// Headers behind the content.
    pub trailers: Option<HeaderMap>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A tunnel inside a connection.
#[derive(Debug)]
pub struct Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
}

/// Waits for what has to come in time.
fn wait<T>(future: impl Future<Output = T>) -> T {
    RUNTIME
        .block_on(async { tokio::time::timeout(DEADLINE, future).await.expect("an end in time") })
}

async fn read(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut content = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        content.extend_from_slice(&part);
    }
    Ok((content, body.trailers().await?))
}

async fn write(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(capacity) = poll_fn(|cx| stream.poll_capacity(cx)).await else { break };
        let length = capacity?.min(bytes.len());
        stream.send_data(bytes.split_to(length), false)?;
    }
    Ok(())
}

impl Client {
    /// Begins with HTTP/2 at once, without TLS.
    pub fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).expect("a connection"))
    }

    /// Takes over a connection, such as one inside TLS.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).expect("a socket");
        let _runtime = RUNTIME.enter();
        let stream = AsyncStream::from_std(stream).expect("a socket");
        let (sender, connection) = wait(h2::client::handshake(stream)).expect("HTTP/2");
        drop(RUNTIME.spawn(async move {
            let _ended = connection.await;
        }));
        Self { sender }
    }

    /// A `GET`.
    #[track_caller]
    pub fn get(&self, url: &str) -> Response {
        let request = Request::get(url).body(()).expect("a request");
        self.send(request, None, None).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    /// Sends a request with a body and trailers, and reads its response.
    ///
    /// # Errors
    ///
    /// What ended the stream or the connection.
    pub fn send(
        &self,
        request: Request<()>,
        body: Option<&[u8]>,
        trailers: Option<HeaderMap>,
    ) -> Result<Response, h2::Error> {
        let (sender, body) = (self.sender.clone(), body.map(Bytes::copy_from_slice));
        wait(async move {
            let mut sender = sender.ready().await?;
            let has_more = body.is_some() || trailers.is_some();
            let (response, mut stream) = sender.send_request(request, !has_more)?;
            let writing = async {
                if let Some(body) = body {
                    write(&mut stream, body).await?;
                }
                match trailers {
                    Some(trailers) => stream.send_trailers(trailers)?,
                    None if has_more => stream.send_data(Bytes::new(), true)?,
                    None => {}
                }
                Ok::<_, h2::Error>(())
            };
            let reading = async {
                let (head, body) = response.await?.into_parts();
                let (body, trailers) = read(body).await?;
                let (status, headers) = (head.status.as_u16(), head.headers);
                Ok::<_, h2::Error>(Response { status, headers, body, trailers })
            };
            let (_written, response) = tokio::join!(writing, reading);
            response
        })
    }

    /// Begins a request and leaves its answer alone.
    pub fn begin(&self, url: &str) -> Pending {
        let mut sender = wait(self.sender.clone().ready()).expect("a connection");
        let request = Request::get(url).body(()).expect("a request");
        let (response, _) = sender.send_request(request, true).expect("a stream");
        Pending(response)
    }

    /// Opens a WebSocket (RFC 8441), or says with which status it was refused.
    pub fn websocket(&self, url: &str) -> Result<Tunnel, u16> {
        let mut request = Request::connect(url).body(()).expect("a request");
        request.headers_mut().insert("sec-websocket-version", http::HeaderValue::from_static("13"));
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let sender = self.sender.clone();
        wait(async move {
            let mut sender = sender.ready().await.expect("a connection");
            // The setting that allows it comes with the router's first frame.
            for _ in 0..1000 {
                if sender.is_extended_connect_protocol_enabled() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let (response, send) = sender.send_request(request, false).expect("a stream");
            let response = response.await.expect("an answer");
            match response.status().as_u16() {
                200 => Ok(Tunnel { send, receive: response.into_body() }),
                status => Err(status),
            }
        })
    }

    /// Whether the router ends the connection.
    pub fn is_closed(&self) -> bool {
        wait(async { self.sender.clone().ready().await.is_err() })
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Pending(h2::client::ResponseFuture);

impl Pending {
    /// The body of its answer.
    ///
    /// # Errors
    ///
    /// What ended the stream or the connection.
    pub fn text(self) -> Result<String, h2::Error> {
        wait(async {
            let (body, _) = read(self.0.await?.into_body()).await?;
            Ok(String::from_utf8_lossy(&body).into_owned())
        })
    }
}

impl Tunnel {
    /// Sends bytes and reads as many back, which have to be the same.
    #[track_caller]
    pub fn echo(&mut self, bytes: &[u8]) {
        let back = wait(async {
            write(&mut self.send, Bytes::copy_from_slice(bytes)).await.expect("sent");
            let mut back = Vec::new();
            while back.len() < bytes.len() {
                let part = self.receive.data().await.expect("an echo").expect("an echo");
                self.receive.flow_control().release_capacity(part.len()).expect("a window");
                back.extend_from_slice(&part);
            }
            back
        });
        assert_eq!(back, bytes);
    }

    /// Ends our direction and reads until the other side ends, too.
    ///
    /// # Errors
    ///
    /// What ended the stream instead.
    pub fn finish(mut self) -> Result<Vec<u8>, h2::Error> {
        self.send.send_data(Bytes::new(), true)?;
        wait(read(self.receive)).map(|(rest, _)| rest)
    }
}

/// What the target `/big` is answered with.
pub const BIG: usize = 1024 * 1024;

/// A backend of HTTP/2, which sends back what it gets, trailers and their announcement included, or
/// `grpc-status: 0` for none. The target `/big` gets [`BIG`] bytes.
#[derive(Debug)]
pub struct Backend {
    port: u16,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<http::request::Parts>>>,
    big_bytes: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Backend {
    /// Starts one without TLS.
    pub fn start() -> Self {
        Self::answering(usize::MAX)
    }

    /// Starts one whose connections answer that many requests each, and break at the next one.
    pub fn answering(limit: usize) -> Self {
        Self::configured(limit, h2::server::Builder::new())
    }

    /// Starts one that takes WebSockets (RFC 8441), and so many requests at a time on a connection. A
    /// tunnel sends back what it gets, and `bye` at the end. The target `/no` refuses with 403, `/204` takes
    /// it with a status that the library knows no tunnel for, `/cut` breaks off.
    pub fn with_websockets(max_streams: u32) -> Self {
        let mut builder = h2::server::Builder::new();
        builder.enable_connect_protocol().max_concurrent_streams(max_streams);
        Self::configured(usize::MAX, builder)
    }

    fn configured(limit: usize, builder: h2::server::Builder) -> Self {
        let listener = RUNTIME.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::<AtomicUsize>::default();
        let requests = Arc::<Mutex<Vec<http::request::Parts>>>::default();
        let (count, seen) = (Arc::clone(&connections), Arc::clone(&requests));
        let big_bytes = Arc::<AtomicUsize>::default();
        let sent = Arc::clone(&big_bytes);
        let task = RUNTIME.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (seen, builder) = (Arc::clone(&seen), builder.clone());
                let sent = Arc::clone(&sent);
                tokio::spawn(async move {
                    let Ok(mut connection) = builder.handshake(stream).await else { return };
                    let mut answered = 0;
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let (parts, body) = request.into_parts();
                        answered += 1;
                        if answered > limit {
                            seen.lock().unwrap_or_else(PoisonError::into_inner).push(parts);
                            return;
                        }
                        let target = parts.uri.path().to_owned();
                        let announced = parts.headers.get("trailer").cloned();
                        let is_websocket = parts.method == http::Method::CONNECT
                            && parts.extensions.get().map(h2::ext::Protocol::as_str)
                                == Some("websocket");
                        seen.lock().unwrap_or_else(PoisonError::into_inner).push(parts);
                        match target.as_str() {
                            _ if is_websocket => {
                                drop(tokio::spawn(tunnel(target, body, respond)));
                            }
                            "/big" => drop(tokio::spawn(big(Arc::clone(&sent), respond))),
                            _ => drop(tokio::spawn(answer(announced, body, respond))),
                        }
                    }
                });
            }
        });
        Self { port, connections, requests, big_bytes, task }
    }

    /// `h2c://…`.
    pub fn url(&self) -> String {
        format!("h2c://127.0.0.1:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Bytes of answers to `/big` that were taken so far.
    pub fn big_bytes(&self) -> usize {
        self.big_bytes.load(Ordering::Relaxed)
    }

    /// Heads of the requests so far: method, target, headers.
    pub fn requests(&self) -> Vec<(http::Method, http::Uri, HeaderMap)> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().map(|p| (p.method.clone(), p.uri.clone(), p.headers.clone())).collect()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn tunnel(
    target: String,
    mut body: RecvStream,
    mut respond: h2::server::SendResponse<Bytes>,
) {
    let status = match target.as_str() {
        "/no" => 403,
        "/204" => 204,
        _ => 200,
    };
    // Its own answer to a key is no answer to the client's.
    let response = http::Response::builder()
        .status(status)
        .header("sec-websocket-accept", "AAAA")
        .header("sec-websocket-protocol", "chat");
    let response = response.body(()).expect("a response");
    let Ok(mut stream) = respond.send_response(response, status == 204) else { return };
    if status == 403 {
        let _sent = write(&mut stream, Bytes::from_static(b"refused")).await;
        let _ended = stream.send_data(Bytes::new(), true);
    }
    if status != 200 {
        return;
    }
    while let Some(Ok(part)) = body.data().await {
        let _released = body.flow_control().release_capacity(part.len());
        if write(&mut stream, part).await.is_err() {
            return;
        }
        if target == "/cut" {
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
            return;
        }
    }
    let _sent = write(&mut stream, Bytes::from_static(b"bye")).await;
    let _ended = stream.send_data(Bytes::new(), true);
}

/// As much at a time as the other side takes.
async fn big(sent: Arc<AtomicUsize>, mut respond: h2::server::SendResponse<Bytes>) {
    let Ok(mut stream) = respond.send_response(http::Response::new(()), false) else { return };
    let mut left = BIG;
    stream.reserve_capacity(left);
    while left > 0 {
        let capacity = poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(capacity)) = capacity else { return };
        let part = Bytes::from(vec![b'x'; capacity.min(left)]);
        left -= part.len();
        sent.fetch_add(part.len(), Ordering::Relaxed);
        if stream.send_data(part, left == 0).is_err() {
            return;
        }
    }
}

async fn answer(
    announced: Option<http::HeaderValue>,
    mut body: RecvStream,
    mut respond: h2::server::SendResponse<Bytes>,
) {
    let mut response = http::Response::builder().header("content-type", "application/grpc");
    if let Some(announced) = announced {
        response = response.header("trailer", announced);
    }
    let Ok(mut stream) = respond.send_response(response.body(()).expect("a response"), false)
    else {
        return;
    };
    // Each part at once: a call that streams both ways waits for it.
    while let Some(Ok(part)) = body.data().await {
        let _released = body.flow_control().release_capacity(part.len());
        if write(&mut stream, part).await.is_err() {
            return;
        }
    }
    let trailers = body.trailers().await.ok().flatten().unwrap_or_else(|| {
        HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static("0"),
        )])
    });
    let _sent = stream.send_trailers(trailers);
}

/// Frames as bytes on a socket.
#[derive(Debug)]
pub struct Raw {
    conn: Conn,
}

/// A frame that came in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Its type (RFC 9113 6).
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

/// Types of frames.
pub mod kind {
    #![allow(missing_docs, reason = "they are the names of RFC 9113 6")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// The flag of DATA and HEADERS that ends a stream.
pub const END_STREAM: u8 = 1;
/// The flag of HEADERS and CONTINUATION that ends a header block.
pub const END_HEADERS: u8 = 4;
/// The flag of DATA and HEADERS that says that there is padding.
pub const PADDED: u8 = 8;
/// The flag of HEADERS that says that there is a priority.
pub const PRIORITY: u8 = 32;
/// The flag of SETTINGS and PING that makes them an answer.
pub const ACK: u8 = 1;

/// What became of one request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// The status of its response.
    pub status: Option<u16>,
    /// The content so far.
    pub body: Vec<u8>,
    /// The response was complete.
    pub is_complete: bool,
    /// The code of a `RST_STREAM`.
    pub reset: Option<u32>,
    /// The code of a `GOAWAY`.
    pub goaway: Option<u32>,
}

impl Raw {
    /// Connects, and sends the preface and these settings.
    pub fn connect(addr: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self::over(Conn::connect(addr).expect("a connection"));
        raw.send_bytes(&[PREFACE, &settings_frame(settings)].concat()).expect("sent");
        raw
    }

    /// Takes over a connection, such as one inside TLS, and sends nothing yet.
    pub fn over(conn: Conn) -> Self {
        Self { conn }
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// When the router has ended the connection.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.conn.send(&frame(kind, flags, stream, payload))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    ///
    /// When the router has ended the connection.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.conn.send(bytes)
    }

    /// The connection.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// The next frame; `None` at the end of the connection.
    pub fn frame(&mut self) -> Option<Frame> {
        self.read_frame().ok()
    }

    /// The next frame.
    ///
    /// # Errors
    ///
    /// When the connection ends, and when nothing comes in time.
    pub fn read_frame(&mut self) -> io::Result<Frame> {
        let head = self.conn.read_exact(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.conn.read_exact(length as usize)?;
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until the stream or the connection ends.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        let mut outcome = Outcome::default();
        while let Some(frame) = self.frame() {
            match frame.kind {
                kind::GOAWAY => {
                    outcome.goaway = Some(code(&frame.payload[4..]));
                    // Without an error what runs is finished first.
                    if outcome.goaway != Some(0) {
                        break;
                    }
                }
                kind::RST_STREAM if frame.stream == stream => {
                    outcome.reset = Some(code(&frame.payload));
                    break;
                }
                kind::HEADERS if frame.stream == stream => {
                    outcome.status = outcome.status.or_else(|| status(&frame.payload));
                }
                kind::DATA if frame.stream == stream => {
                    outcome.body.extend_from_slice(&frame.payload);
                }
                _ => {}
            }
            if frame.stream == stream && frame.kind < 2 && frame.flags & END_STREAM != 0 {
                outcome.is_complete = true;
                break;
            }
        }
        outcome
    }
}

impl Frame {
    /// The code of a `RST_STREAM` or a `GOAWAY`.
    pub fn code(&self) -> Option<u32> {
        match self.kind {
            kind::RST_STREAM => self.payload.get(..4).map(code),
            kind::GOAWAY => self.payload.get(4..8).map(code),
            _ => None,
        }
    }

    /// The `:status` of `HEADERS` that begin a response.
    pub fn status(&self) -> Option<u16> {
        (self.kind == kind::HEADERS).then(|| status(&self.payload)).flatten()
    }
}

/// What a connection of a client begins with (RFC 9113 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The bytes of a frame of settings.
pub fn settings_frame(settings: &[(u16, u32)]) -> Vec<u8> {
    let pair =
        |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(kind::SETTINGS, 0, 0, &settings.iter().flat_map(pair).collect::<Vec<_>>())
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literals, which may hold anything.
pub fn block(headers: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|l| *l < 127).expect("a short text"));
            block.extend_from_slice(text);
        }
    }
    block
}

fn code(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The `:status` that a header block begins with: indexed, or a literal of three digits.
fn status(block: &[u8]) -> Option<u16> {
    // Changes of the table's size may come first.
    let start = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    let indexed = [200, 204, 206, 304, 400, 404, 500];
    match block[start] {
        byte if byte & 0x80 != 0 => indexed.get(usize::from(byte & 0x7f).checked_sub(8)?).copied(),
        _ => {
            let length = block.get(start + 1)?;
            let text = block.get(start + 2..)?.get(..usize::from(length & 0x7f))?;
            if length & 0x80 == 0 {
                return std::str::from_utf8(text).ok()?.parse().ok();
            }
            // Huffman's code of digits (RFC 7541 appendix B): 0 to 2 have five bits, 3 to 9 six.
            let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |b| byte >> b & 1));
            let mut number = 0;
            for _ in 0..3 {
                let mut digit =
                    (0..5).fold(0_u16, |c, _| c << 1 | u16::from(bits.next().unwrap_or(1)));
                if digit > 2 {
                    digit = (digit << 1 | u16::from(bits.next()?)).checked_sub(0b01_1001)? + 3;
                }
                number = number * 10 + digit;
            }
            Some(number)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn statuses_are_read_in_every_coding() {
        assert_eq!(status(&[0x88]), Some(200));
        assert_eq!(status(&[0x20, 0x8c]), Some(400));
        assert_eq!(status(&[0x48, 3, b'4', b'0', b'5']), Some(405));
        // 421: 011010 00010 00001, filled up with ones.
        assert_eq!(status(&[0x48, 0x82, 0b0110_1000, 0b0100_0001]), Some(421));
    }
}
