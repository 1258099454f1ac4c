//! As much of HTTP as asking the router takes: one `GET` after the other on one connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than the router waits for anything, Redis included.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What the router answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Number of the backend that answered, when one did.
    pub(crate) backend: Option<u8>,
    /// The router ends the connection after this answer.
    pub(crate) closes: bool,
}

pub(crate) fn request(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// A connection to the router that is made again whenever it was ended.
#[derive(Debug)]
pub(crate) struct Conn {
    addr: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Conn {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self { addr, stream: None, buffer: Vec::with_capacity(4096) }
    }

    /// Connects if need be, so that it is not part of the time that an answer takes.
    pub(crate) fn prepare(&mut self) -> io::Result<&mut TcpStream> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.addr)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            self.stream = Some(stream);
        }
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    pub(crate) fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        let answer = self.try_ask(request);
        if answer.as_ref().map_or(true, |answer| answer.closes) {
            self.stream = None;
        }
        answer
    }

    fn try_ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.prepare()?.write_all(request)?;
        self.buffer.clear();
        loop {
            let mut chunk = [0; 4096];
            let length = self.prepare()?.read(&mut chunk)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&chunk[..length]);
            if let Some((answer, length)) = parse(&self.buffer)? {
                if length != self.buffer.len() {
                    return Err(io::Error::other("more than one answer"));
                }
                return Ok(answer);
            }
        }
    }
}

/// The answer at the start of `bytes` and its length, once it is there as a whole.
pub(crate) fn parse(bytes: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(io::Error::other)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status: u16 = status.ok_or_else(|| io::Error::other("no status"))?;
    let mut length = None;
    let mut closes = false;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            closes = value.trim().eq_ignore_ascii_case("close");
        }
    }
    let length = length.ok_or_else(|| io::Error::other("no Content-Length"))?;
    let Some(body) = bytes.get(end + 4..end + 4 + length) else {
        return Ok(None);
    };
    let backend = std::str::from_utf8(body).ok().and_then(|body| body.parse().ok());
    Ok(Some((
        Answer { status, backend: backend.filter(|_| status == 200), closes },
        end + 4 + length,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_parsed_once_it_is_whole() {
        let raw = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n07";
        for end in 0..raw.len() {
            assert_eq!(parse(&raw[..end]).unwrap(), None);
        }
        let answer = Answer { status: 200, backend: Some(7), closes: false };
        assert_eq!(parse(raw).unwrap(), Some((answer, raw.len())));
        let raw = b"HTTP/1.1 400 Bad\r\nConnection: close\r\nContent-Length: 1\r\n\r\n7";
        let answer = Answer { status: 400, backend: None, closes: true };
        assert_eq!(parse(raw).unwrap(), Some((answer, raw.len())));
        parse(b"HTTP/1.1 200 OK\r\n\r\n").unwrap_err();
    }
}
