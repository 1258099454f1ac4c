//! A client that sends exactly the bytes it is given and reads exactly one complete message at a
//! time.

use std::net::SocketAddr;
use std::time::Duration;

use crate::wire::{Body, Conn, Framing, Head};

/// One connection to the router. Every method panics with what came so far when the answer does not
/// come in time.
#[derive(Debug)]
pub struct Client {
    conn: Conn,
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status line and headers.
    pub head: Head,
    /// The body, which may have been cut: see [`Body::complete`].
    pub body: Body,
    /// How the body's end was known.
    pub framing: Framing,
    /// Informational responses that came before, 100 included.
    pub informational: Vec<Head>,
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.data).into_owned()
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// How many bytes the message took on the wire, without the informational ones.
    pub fn wire_size(&self) -> usize {
        self.head.raw.len() + self.body.raw.len()
    }
}

impl Client {
    /// Connects.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        let conn = Conn::connect(addr).unwrap_or_else(|error| panic!("connect to {addr}: {error}"));
        Self { conn }
    }

    /// Takes over a connection that is there.
    pub fn over(stream: std::net::TcpStream) -> Self {
        Self { conn: Conn::new(stream) }
    }

    /// The connection, for bytes that no method covers.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Waits longer, or shorter, than ten seconds for each answer.
    #[must_use]
    pub fn patient_for(mut self, limit: Duration) -> Self {
        self.conn.set_limit(Some(limit));
        self
    }

    /// Our end's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.conn.local_addr()
    }

    /// Sends these bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.conn.send(bytes.as_ref()).unwrap_or_else(|error| panic!("send: {error}"));
        self
    }

    /// Sends a `GET` and reads its answer.
    #[track_caller]
    pub fn get(&mut self, host: &str, target: &str) -> Response {
        self.get_with(host, target, "")
    }

    /// Sends a `GET` with more header lines, each ended by CRLF, and reads its answer.
    #[track_caller]
    pub fn get_with(&mut self, host: &str, target: &str, headers: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")).response()
    }

    /// Sends a `POST` with a `Content-Length` and reads its answer.
    #[track_caller]
    pub fn post(&mut self, host: &str, target: &str, body: &str) -> Response {
        let length = body.len();
        self.send(format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .response()
    }

    /// Reads the next head, whatever its status; `None` when the connection ended instead.
    #[track_caller]
    pub fn head(&mut self) -> Option<Head> {
        match self.conn.read_head() {
            Ok(head) => head,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no response head: {error}"),
        }
    }

    /// Reads a whole response to a request that was no `HEAD`; panics when its body is cut.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// Reads a whole response to `method`; panics when its body is cut.
    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Response {
        let response = self.response_or_cut(method);
        assert!(response.body.complete, "the body was cut: {response:?}");
        response
    }

    /// Reads a response whose body may be cut.
    #[track_caller]
    pub fn response_or_cut(&mut self, method: &str) -> Response {
        let mut informational = Vec::new();
        let head = loop {
            let head = self.head().expect("a response, not the end of the connection");
            match head.status() {
                100 | 102..=199 => informational.push(head),
                _ => break head,
            }
        };
        let framing =
            head.response_framing(method).unwrap_or_else(|error| panic!("{error}: {head:?}"));
        let body = self.conn.read_body(framing).unwrap_or_else(|error| panic!("{error}: {head:?}"));
        Response { head, body, framing, informational }
    }

    /// Whether the other side ends the connection, within the limit, without sending anything more.
    #[track_caller]
    pub fn is_closed(&mut self) -> bool {
        match self.conn.read_some() {
            Ok(bytes) => bytes.is_empty(),
            Err(error) => !crate::wire::is_late(&error),
        }
    }
}

/// A `GET` on a connection of its own.
#[track_caller]
pub fn get(addr: SocketAddr, host: &str, target: &str) -> Response {
    Client::connect(addr).get_with(host, target, "Connection: close\r\n")
}

/// A `GET` with `X-Debug` on a connection of its own.
#[track_caller]
pub fn debug_get(addr: SocketAddr, host: &str, target: &str) -> Response {
    Client::connect(addr).get_with(host, target, "X-Debug: 1\r\nConnection: close\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;

    #[test]
    fn reads_pipelined_responses_one_by_one() {
        let backend = Backend::start("b");
        let mut client = Client::connect(([127, 0, 0, 1], backend.port()).into());
        let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        client.send(request.repeat(3));
        for _ in 0..3 {
            assert_eq!(client.response().text(), "b");
        }
    }

    #[test]
    fn keeps_informational_responses_apart() {
        let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let backend = Backend::answering(
            "b",
            format!(
                "{early}HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: 1\r\n\r\n"
            ),
        );
        let response = get(([127, 0, 0, 1], backend.port()).into(), "a", "/");
        assert_eq!(response.informational[0].header("link"), Some("</a>"));
        assert_eq!((response.status(), response.framing), (200, Framing::Chunked));
        assert_eq!(response.body.trailers, [("T".to_owned(), "1".to_owned())]);
    }

    #[test]
    #[should_panic(expected = "the body was cut")]
    fn notices_a_cut_body() {
        let backend =
            Backend::answering_once("b", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
        get(([127, 0, 0, 1], backend.port()).into(), "a", "/");
    }
}
