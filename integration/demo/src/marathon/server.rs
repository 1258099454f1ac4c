//! Connections: requests in, answers or faults out.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use super::api::{self, View};
use super::control;
use super::faults::{Fault, Route};
use super::http::{Answer, Request};
use super::node::Node;
use super::shared::State;
use super::stream;
use crate::head::Head;

/// Longest header section.
const LONGEST_HEAD: usize = 64 * 1024;

/// Longest request body.
const LONGEST_BODY: usize = 16 * 1024 * 1024;

/// How long a connection may wait for more of its next request, as Marathon's web server has it.
const IDLE: Duration = Duration::from_secs(30);

pub(super) type Socket = Either<TcpStream, TlsStream<TcpStream>>;

/// The TCP connection below.
pub(super) fn tcp(socket: &Socket) -> &TcpStream {
    match socket {
        Either::Left(tcp) => tcp,
        Either::Right(tls) => tls.get_ref().0,
    }
}

/// A listening process; ends with the value, connections included.
#[derive(Debug)]
pub(super) struct Serving {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Serves on a thread with a runtime of its own, so that it neither needs the runtime of a test
    /// nor obeys its clock.
    pub(super) fn start(listener: StdListener, node: Arc<Node>) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, node) => {}
                    () = stopped.cancelled() => {}
                }
            });
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("the fake Marathon does not panic");
            }
        }
    }
}

async fn accept(listener: StdListener, node: Arc<Node>) {
    listener.set_nonblocking(true).expect("a listener that does not block");
    let listener = TcpListener::from_std(listener).expect("a listener of the runtime");
    loop {
        // An error is the peer's: it went away before it was accepted.
        if let Ok((tcp, _)) = listener.accept().await {
            let node = Arc::clone(&node);
            tokio::spawn(async move {
                let _counted = node.connected();
                // An error ends the connection: the peer went away, which it knows best.
                drop(connection(tcp, &node).await);
            });
        }
    }
}

async fn connection(tcp: TcpStream, node: &Arc<Node>) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = match &node.tls {
        None => Either::Left(tcp),
        Some(tls) => Either::Right(timeout(IDLE, tls.acceptor.accept(tcp)).await??),
    };
    let mut connection = Connection { socket, unread: Vec::new() };
    while let Some(head) = connection.head().await? {
        let body = connection.body(&head).await?;
        if exchange(&mut connection, node, head, body).await? == Next::Close {
            break;
        }
    }
    connection.socket.shutdown().await
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Close,
    KeepAlive,
}

/// What a process does with a request by its role.
enum Role {
    /// Answers.
    Answers,
    /// Answers from the leader that it forwards to.
    Forwards,
    /// Answers this.
    Says(Answer),
}

async fn exchange(
    connection: &mut Connection,
    node: &Arc<Node>,
    head: Head,
    body: Vec<u8>,
) -> io::Result<Next> {
    let Some(request) = Request::new(head.clone(), body, &node.base) else {
        let outside = Request::new(head, Vec::new(), "").ok_or(io::ErrorKind::InvalidData)?;
        return connection.respond(&outside, &Answer::html(404, "Not Found")).await;
    };
    if node.controlled && request.path.starts_with(control::PREFIX) {
        return connection.respond(&request, &control::answer(node, &request)).await;
    }
    let route = Route::of(&request.path);
    let _counted = node.enter(route, request.clone());

    let mut fault = None;
    node.settings.send_if_modified(|settings| {
        fault = settings.faults.take(route);
        false
    });
    match &fault {
        Some(Fault::Close) => return Ok(Next::Close),
        Some(Fault::Reset) => return connection.reset(),
        Some(Fault::Hang) if !connection.held(node, route).await => return Ok(Next::Close),
        Some(Fault::Instead(answer)) => return connection.respond(&request, answer).await,
        Some(Fault::RedirectLoop) => {
            let same = Answer::new(302, "", "").with("Location", request.head.target());
            return connection.respond(&request, &same).await;
        }
        Some(Fault::Redirect(url)) => {
            let other = Answer::new(302, "", "").with("Location", url);
            return connection.respond(&request, &other).await;
        }
        _ => {}
    }

    let elsewhere = node.settings.borrow().events_elsewhere.clone();
    if let Some(url) = elsewhere.filter(|_| route == Route::Events) {
        return connection.respond(&request, &redirect(&url, &request)).await;
    }
    let (answer, streams) = answer(&mut node.shared.state(), node, &request);
    if let Some(proxied) = streams {
        let Connection { socket, .. } = connection;
        stream::serve(socket, node, &request, &answer, proxied).await?;
        return Ok(Next::Close);
    }
    match fault {
        Some(Fault::Late) if !connection.held(node, route).await => Ok(Next::Close),
        Some(fault) => connection.respond_badly(&request, answer, &fault).await,
        None => connection.respond(&request, &answer).await,
    }
}

/// The answer, or the head of a stream and whether that comes through a standby.
fn answer(state: &mut State, node: &Node, request: &Request) -> (Answer, Option<bool>) {
    if let Some(answer) = state.auth.login(request) {
        return (answer, None);
    }
    if let Some(refusal) = state.auth.refuse(request) {
        return (refusal, None);
    }
    let role = role(state, node, request);
    let own = state.processes.get(node.number).map(|own| own.authority.as_str());
    let view = View {
        leader: state.leader_authority(),
        via: own.filter(|_| matches!(role, Role::Forwards)),
        elected: state.leader == Some(node.number),
        scheme: if node.tls.is_some() { "https" } else { "http" },
    };
    let cluster = &state.cluster;
    if let Role::Says(answer) = role {
        return (answer, None);
    }
    let abdicates = request.head.method() == "DELETE" && request.path == "/v2/leader";
    if abdicates && state.leader.is_some() {
        let done =
            Answer::new(200, cluster.dialect.json_type(), r#"{"message":"Leadership abdicated"}"#);
        let done = api::common_headers(done, cluster, view);
        state.elect(None);
        return (done, None);
    }
    if Route::of(&request.path) == Route::Events && cluster.dialect.has_events() {
        if !stream::is_asked_for(request) {
            return (api::common_headers(stream::not_asked_for(), cluster, view), None);
        }
        let head = Answer::new(200, cluster.dialect.events_type(), "").with("Connection", "close");
        let proxied = matches!(role, Role::Forwards);
        return (api::common_headers(head, cluster, view), Some(proxied));
    }
    (api::answer(cluster, request, view), None)
}

fn role(state: &State, node: &Node, request: &Request) -> Role {
    let dialect = state.cluster.dialect;
    let Some(leader) = state.leader else {
        return match dialect.status_without_leader() {
            None => Role::Answers,
            Some(status) => {
                Role::Says(Answer::html(status, "Could not determine the current leader"))
            }
        };
    };
    if leader == node.number {
        let loading = state.loading && dialect.names_leader();
        return match loading {
            true => Role::Says(Answer::html(503, "Service Unavailable")),
            false => Role::Answers,
        };
    }
    match state.processes.get(leader) {
        Some(leader) if leader.listens => {
            if Route::of(&request.path) == Route::Events && dialect.redirects_events() {
                return Role::Says(redirect(&format!("{}{}", leader.url, node.base), request));
            }
            Role::Forwards
        }
        _ if dialect.swallows_proxy_errors() => Role::Says(Answer::new(200, "", "")),
        _ => Role::Says(Answer::html(502, "Connection to leader refused.")),
    }
}

/// To the same path and query at another process.
fn redirect(url: &str, request: &Request) -> Answer {
    let query = request.head.target().split_once('?').map(|(_, query)| format!("?{query}"));
    let target = format!("{url}{}{}", request.path, query.unwrap_or_default());
    Answer::new(302, "", "").with("Location", &target)
}

struct Connection {
    socket: Socket,
    unread: Vec<u8>,
}

impl Connection {
    /// The next request's head; `None` at the end of the connection.
    async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let rest = self.unread.split_off(end + 4);
                let raw = std::mem::replace(&mut self.unread, rest);
                return Head::parse(&raw).map(Some);
            }
            if self.unread.len() > LONGEST_HEAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
            match timeout(IDLE, self.socket.read_buf(&mut self.unread)).await {
                Ok(Ok(0)) | Err(_) => return Ok(None),
                Ok(read) => read?,
            };
        }
    }

    /// Its body, which has a length or is none.
    async fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        let length = head.header("content-length").unwrap_or("0");
        let length: usize = length.parse().map_err(io::Error::other)?;
        if length > LONGEST_BODY || head.has("transfer-encoding") {
            return Err(io::ErrorKind::InvalidData.into());
        }
        while self.unread.len() < length {
            if timeout(IDLE, self.socket.read_buf(&mut self.unread)).await?? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.unread.split_off(length);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    /// Waits until requests of the route are let go; false when the client went away before.
    async fn held(&mut self, node: &Node, route: Route) -> bool {
        let mut settings = node.settings.subscribe();
        while settings.borrow_and_update().faults.holds(route) {
            tokio::select! {
                changed = settings.changed() => if changed.is_err() {
                    return false;
                },
                read = self.socket.read_buf(&mut self.unread) => if matches!(read, Ok(0) | Err(_)) {
                    return false;
                },
            }
        }
        true
    }

    async fn respond(&mut self, request: &Request, answer: &Answer) -> io::Result<Next> {
        let (mut wire, body) = answer.encode(request);
        wire.extend_from_slice(&body);
        self.socket.write_all(&wire).await?;
        self.socket.flush().await?;
        Ok(if request.is_last() { Next::Close } else { Next::KeepAlive })
    }

    /// Sends an answer with a fault that lies in the way it is sent.
    async fn respond_badly(
        &mut self,
        request: &Request,
        mut answer: Answer,
        fault: &Fault,
    ) -> io::Result<Next> {
        let half = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
        if let Fault::Truncated = fault {
            half(&mut answer.body);
        }
        let (mut wire, mut body) = answer.encode(request);
        match fault {
            Fault::HangMidBody | Fault::ResetMidBody | Fault::CloseMidBody => {
                half(&mut body);
                wire.append(&mut body);
                self.socket.write_all(&wire).await?;
                self.socket.flush().await?;
                match fault {
                    Fault::HangMidBody => {
                        while self.socket.read_buf(&mut self.unread).await? > 0 {}
                    }
                    Fault::ResetMidBody => return self.reset(),
                    _ => {}
                }
                Ok(Next::Close)
            }
            Fault::Drip(size, pause) => {
                self.socket.write_all(&wire).await?;
                for piece in body.chunks((*size).max(1)) {
                    self.socket.write_all(piece).await?;
                    self.socket.flush().await?;
                    tokio::time::sleep(*pause).await;
                }
                Ok(if request.is_last() { Next::Close } else { Next::KeepAlive })
            }
            _ => self.respond(request, &answer).await,
        }
    }

    /// Ends the connection with a reset.
    fn reset(&self) -> io::Result<Next> {
        SockRef::from(tcp(&self.socket)).set_linger(Some(Duration::ZERO))?;
        Err(io::ErrorKind::ConnectionReset.into())
    }
}
