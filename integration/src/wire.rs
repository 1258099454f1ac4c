//! HTTP/1 as bytes on a socket, read by a reader of our own: strict, so that it notices what a
//! lenient library would forgive the router, and raw, so that tests can compare bytes.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;
use tokio::time::Instant;

pub use demo::head::{Framing, Head};
use demo::head::{header_line, invalid};

use crate::eventually::DEADLINE;

const READ_SIZE: usize = 64 * 1024;

/// A body as it came.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Body {
    /// The bytes on the wire, chunk headers and trailers included.
    pub raw: Vec<u8>,
    /// The content.
    pub data: Vec<u8>,
    /// Trailers of a chunked body.
    pub trailers: Vec<(String, String)>,
    /// Whether its end was seen; a connection that ended before leaves this false.
    pub complete: bool,
}

/// A connection with its unread bytes and a limit on every wait.
#[derive(Debug)]
pub struct Conn {
    stream: TcpStream,
    unread: Vec<u8>,
    limit: Option<Duration>,
}

impl Conn {
    /// Connects to `addr`.
    pub fn connect(addr: SocketAddr) -> io::Result<Self> {
        TcpStream::connect_timeout(&addr, DEADLINE).map(Self::new)
    }

    /// Takes over a connected socket.
    pub fn new(stream: TcpStream) -> Self {
        // Small writes are meant to arrive as they were made.
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self { stream, unread: Vec::new(), limit: Some(DEADLINE) }
    }

    /// Changes how long one wait may take; `None` waits for ever.
    pub fn set_limit(&mut self, limit: Option<Duration>) {
        self.limit = limit;
    }

    /// The socket, for what has no method here.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Our own end's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("a connected socket has an address")
    }

    /// Writes every byte.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(self.limit)?;
        self.stream.write_all(bytes)
    }

    /// Ends our direction (FIN); reading goes on.
    pub fn finish(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    /// Reads a header section; `None` when the peer closed before its first byte.
    pub fn read_head(&mut self) -> io::Result<Option<Head>> {
        let end = self.end();
        loop {
            if let Some(length) = find(&self.unread, b"\r\n\r\n") {
                let raw: Vec<u8> = self.unread.drain(..length + 4).collect();
                return Head::parse(&raw).map(Some);
            }
            if self.fill(end)? == 0 {
                return if self.unread.is_empty() {
                    Ok(None)
                } else {
                    Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("cut head: {:?}", String::from_utf8_lossy(&self.unread)),
                    ))
                };
            }
        }
    }

    /// Reads a whole body. A connection that ends too early is no error: the body says that it is
    /// not complete.
    pub fn read_body(&mut self, framing: Framing) -> io::Result<Body> {
        let mut body = Body::default();
        match self.read_body_into(framing, &mut body) {
            Ok(()) => body.complete = true,
            Err(error) if is_cut(&error) => {
                // What came before the cut still counts as seen.
                let mut rest = std::mem::take(&mut self.unread);
                if framing != Framing::Chunked {
                    body.data.append(&mut rest);
                    body.raw.clone_from(&body.data);
                }
                body.complete =
                    framing == Framing::UntilClose && error.kind() == io::ErrorKind::UnexpectedEof;
            }
            Err(error) => return Err(error),
        }
        Ok(body)
    }

    fn read_body_into(&mut self, framing: Framing, body: &mut Body) -> io::Result<()> {
        match framing {
            Framing::Chunked => self.read_chunks(body),
            Framing::Length(length) => {
                let length = usize::try_from(length).map_err(io::Error::other)?;
                body.data = self.read_exact(length)?;
                body.raw.clone_from(&body.data);
                Ok(())
            }
            Framing::UntilClose => {
                let end = self.end();
                while self.fill(end)? > 0 {}
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        }
    }

    fn read_chunks(&mut self, body: &mut Body) -> io::Result<()> {
        while let Some(data) = self.read_chunk(&mut body.raw)? {
            body.data.extend_from_slice(&data);
        }
        loop {
            let line = self.read_line()?;
            body.raw.extend_from_slice(line.as_bytes());
            body.raw.extend_from_slice(b"\r\n");
            if line.is_empty() {
                return Ok(());
            }
            body.trailers.push(header_line(&line)?);
        }
    }

    /// Reads the next chunk and notes its bytes in `raw`; `None` for the last one, after which
    /// trailers follow.
    pub fn read_chunk(&mut self, raw: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        let line = self.read_line()?;
        raw.extend_from_slice(line.as_bytes());
        raw.extend_from_slice(b"\r\n");
        let digits = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16)
            .map_err(|error| invalid(&format!("{line}: {error}")))?;
        if size == 0 {
            return Ok(None);
        }
        let data = self.read_exact(size)?;
        raw.extend_from_slice(&data);
        if self.read_exact(2)? != b"\r\n" {
            return Err(invalid("chunk without its line end"));
        }
        raw.extend_from_slice(b"\r\n");
        Ok(Some(data))
    }

    /// Reads one line and takes its line end off.
    pub fn read_line(&mut self) -> io::Result<String> {
        let end = self.end();
        loop {
            if let Some(length) = find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..length + 2).take(length).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.fill(end)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads that many bytes.
    pub fn read_exact(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let end = self.end();
        while self.unread.len() < count {
            if self.fill(end)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.unread.drain(..count).collect())
    }

    /// Returns what is there, waiting for at least one byte; empty at the end.
    pub fn read_some(&mut self) -> io::Result<Vec<u8>> {
        if self.unread.is_empty() {
            let end = self.end();
            self.fill(end)?;
        }
        Ok(std::mem::take(&mut self.unread))
    }

    /// Reads until the peer ends its direction.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let end = self.end();
        while self.fill(end)? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }

    /// Reads `count` bytes and keeps none of them: for bodies larger than memory.
    pub fn skip(&mut self, count: u64) -> io::Result<()> {
        self.stream.set_read_timeout(self.limit)?;
        let have = self.unread.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        self.unread.drain(..have);
        let mut left = count - have as u64;
        let mut buffer = vec![0; 4 * READ_SIZE];
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = self.stream.read(&mut buffer[..want])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= read as u64;
        }
        Ok(())
    }

    /// Writes `count` bytes of filling: for bodies larger than memory.
    pub fn send_filling(&mut self, count: u64) -> io::Result<()> {
        self.stream.set_write_timeout(self.limit)?;
        let buffer = vec![b'x'; 4 * READ_SIZE];
        let mut left = count;
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let written = self.stream.write(&buffer[..want])?;
            left -= written as u64;
        }
        Ok(())
    }

    fn end(&self) -> Option<Instant> {
        self.limit.map(|limit| Instant::now() + limit)
    }

    fn fill(&mut self, end: Option<Instant>) -> io::Result<usize> {
        let left = match end {
            None => None,
            Some(end) => {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(self.late());
                }
                Some(left)
            }
        };
        self.stream.set_read_timeout(left)?;
        let start = self.unread.len();
        self.unread.resize(start + READ_SIZE, 0);
        let result = self.stream.read(&mut self.unread[start..]);
        self.unread.truncate(start + result.as_ref().copied().unwrap_or(0));
        match result {
            Err(error) if is_late(&error) => Err(self.late()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.fill(end),
            other => other,
        }
    }

    fn late(&self) -> io::Error {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "nothing more within {:?}; unread so far: {:?}",
                self.limit,
                String::from_utf8_lossy(&self.unread)
            ),
        )
    }
}

/// Whether a wait ended because nothing came.
pub fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// Whether the peer ended the connection, gently or not.
pub fn is_cut(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn parses_a_head() {
        let raw = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie:  b=2 \r\nX: \r\n\r\n";
        let head = Head::parse(raw).unwrap();
        assert_eq!(head.status(), 200);
        assert_eq!(head.values("Set-Cookie"), ["a=1", "b=2"]);
        assert_eq!(head.header("x"), Some(""));
        assert!(!head.has("y"));
    }

    #[test]
    fn refuses_a_head_that_is_not_http() {
        for raw in ["GET / HTTP/1.1\r\nno colon\r\n\r\n", "GET / HTTP/1.1\r\na : b\r\n\r\n"] {
            assert_eq!(Head::parse(raw.as_bytes()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn framing_of_responses() {
        let framing = |headers: &str, method| {
            Head::parse(format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes())
                .unwrap()
                .response_framing(method)
                .map_err(|error| error.kind())
        };
        assert_eq!(framing("content-length: 5\r\n", "GET"), Ok(Framing::Length(5)));
        assert_eq!(framing("content-length: 5\r\n", "HEAD"), Ok(Framing::Length(0)));
        assert_eq!(framing("transfer-encoding: chunked\r\n", "GET"), Ok(Framing::Chunked));
        assert_eq!(framing("", "GET"), Ok(Framing::UntilClose));
        assert_eq!(
            framing("content-length: 5\r\ntransfer-encoding: chunked\r\n", "GET"),
            Err(io::ErrorKind::InvalidData)
        );
    }

    #[test]
    fn reads_chunks_split_at_every_byte() {
        let (mut near, mut far) = pair();
        let sent = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n";
        let writer = std::thread::spawn(move || {
            for byte in sent {
                far.send(&[*byte]).unwrap();
            }
        });
        let body = near.read_body(Framing::Chunked).unwrap();
        writer.join().unwrap();
        assert_eq!(body.data, b"abcde");
        assert_eq!(body.raw, sent);
        assert_eq!(body.trailers, [("T".to_owned(), "v".to_owned())]);
        assert!(body.complete);
    }

    #[test]
    fn a_cut_body_is_not_complete() {
        for (framing, sent) in [(Framing::Length(10), "abc"), (Framing::Chunked, "5\r\nabc")] {
            let (mut near, mut far) = pair();
            far.send(sent.as_bytes()).unwrap();
            drop(far);
            assert!(!near.read_body(framing).unwrap().complete);
        }
    }

    #[test]
    fn a_wait_ends_at_its_limit() {
        let (mut near, _far) = pair();
        near.set_limit(Some(Duration::from_millis(20)));
        assert!(is_late(&near.read_head().unwrap_err()));
    }

    fn pair() -> (Conn, Conn) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = Conn::connect(listener.local_addr().unwrap()).unwrap();
        let far = Conn::new(listener.accept().unwrap().0);
        (near, far)
    }
}
