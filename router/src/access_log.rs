//! The access log in Hipache's format: records, their lines, and a writer that never blocks a
//! worker.
//!
//! Each worker formats its lines into a buffer of its own; a writer thread collects the buffers
//! every [`FLUSH_INTERVAL`]. When the disk does not keep up, lines are dropped and counted, never
//! requests delayed.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::AccessLogTarget;
use crate::route::{Millis, Route};

mod refusal;

pub use refusal::Refusal;

/// How long a line may wait in a worker's buffer.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// A buffer of this size is collected at once.
const FLUSH_BYTES: usize = 256 * 1024;
/// Bytes a worker may hold back for a slow disk: about 100,000 lines.
const MAX_BUFFER: usize = 16 * 1024 * 1024;

/// One request, as its log line needs it: what the client sent is read where it is.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// `X-Real-IP` as the backend saw it: the client's address.
    pub client: &'a [u8],
    /// Of the request line; empty if none could be read.
    pub method: &'a [u8],
    /// Of the request line, as it was written.
    pub target: &'a [u8],
    /// Of the request line, such as `HTTP/1.1`.
    pub version: &'static str,
    /// Of the response.
    pub status: u16,
    /// Bytes written to the client for this request.
    pub bytes: u64,
    /// `Referer`.
    pub referer: &'a [u8],
    /// `User-Agent`.
    pub user_agent: &'a [u8],
    /// `X-Request-Id`, where requests get one: a further field at the end.
    pub request_id: Option<&'a [u8]>,
    /// Gives the identifier; none for what could not be routed.
    pub route: Option<&'a Route>,
    /// When the request head was complete.
    pub started: Millis,
    /// When a backend was first turned to.
    pub backend_started: Option<Millis>,
}

impl Line<'_> {
    /// Writes the line into the buffer of the worker's log.
    pub fn emit(&self, sink: &Sink) {
        let now = sink.clock.now();
        sink.append(|timestamp, line| self.format(timestamp, now, line));
    }

    /// Keeps the line for a request that outlives the buffer of its head: a tunnel.
    pub fn to_owned_line(&self, route: Option<Arc<Route>>) -> OwnedLine {
        OwnedLine {
            client: self.client.into(),
            method: self.method.into(),
            target: self.target.into(),
            version: self.version,
            status: self.status,
            referer: self.referer.into(),
            user_agent: self.user_agent.into(),
            request_id: self.request_id.map(Into::into),
            route,
            started: self.started,
            backend_started: self.backend_started,
        }
    }

    fn format(&self, timestamp: &str, now: Millis, line: &mut Vec<u8>) {
        client_address(self.client, line);
        line.extend_from_slice(b" - - [");
        line.extend_from_slice(timestamp.as_bytes());
        line.extend_from_slice(b"] \"");
        if self.method.is_empty() {
            // As Apache writes it, so that readers of such logs know it.
            line.push(b'-');
        } else {
            escape(self.method, line);
            line.push(b' ');
            escape(self.target, line);
            line.push(b' ');
            line.extend_from_slice(self.version.as_bytes());
        }
        line.extend_from_slice(b"\" ");
        line.extend_from_slice(itoa::Buffer::new().format(self.status).as_bytes());
        line.push(b' ');
        line.extend_from_slice(itoa::Buffer::new().format(self.bytes).as_bytes());
        for value in [self.referer, self.user_agent] {
            line.extend_from_slice(b" \"");
            escape(value, line);
            line.push(b'"');
        }
        line.extend_from_slice(b" \"");
        match self.route.and_then(Route::frontend) {
            Some(frontend) => {
                let (identifier, mark) = frontend.shown_identifier();
                escape(identifier.as_bytes(), line);
                line.extend_from_slice(mark.as_bytes());
            }
            None => line.push(b'-'),
        }
        line.extend_from_slice(b"\" ");
        seconds(now.saturating_sub(self.started), line);
        line.push(b' ');
        seconds(self.backend_started.map_or(0, |started| now.saturating_sub(started)), line);
        if let Some(id) = self.request_id {
            line.extend_from_slice(b" \"");
            escape(id, line);
            line.push(b'"');
        }
        line.push(b'\n');
    }
}

/// The line of a request that outlives the buffer of its head.
#[derive(Debug)]
pub struct OwnedLine {
    client: Box<[u8]>,
    method: Box<[u8]>,
    target: Box<[u8]>,
    version: &'static str,
    status: u16,
    referer: Box<[u8]>,
    user_agent: Box<[u8]>,
    request_id: Option<Box<[u8]>>,
    route: Option<Arc<Route>>,
    started: Millis,
    backend_started: Option<Millis>,
}

impl OwnedLine {
    /// Writes the line; `bytes` were written to the client.
    pub fn emit(&self, sink: &Sink, bytes: u64) {
        let line = Line {
            client: &self.client,
            method: &self.method,
            target: &self.target,
            version: self.version,
            status: self.status,
            bytes,
            referer: &self.referer,
            user_agent: &self.user_agent,
            request_id: self.request_id.as_deref(),
            route: self.route.as_deref(),
            started: self.started,
            backend_started: self.backend_started,
        };
        line.emit(sink);
    }
}

/// Milliseconds divided by 1000 as JavaScript prints the quotient: `0.01`, `0.123`, `2`.
fn seconds(millis: Millis, line: &mut Vec<u8>) {
    if millis == 0 {
        return line.push(b'0');
    }
    line.extend_from_slice(itoa::Buffer::new().format(millis / 1000).as_bytes());
    let rest = millis % 1000;
    if rest > 0 {
        let digits = [rest / 100, rest / 10 % 10, rest % 10];
        let count = digits.iter().rposition(|digit| *digit > 0).map_or(0, |last| last + 1);
        line.push(b'.');
        for digit in digits.iter().take(count) {
            line.push(b'0' + u8::try_from(*digit).unwrap_or(0));
        }
    }
}

/// The bytes that stand in a line as they are.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        plain[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    plain
};

fn is_plain(byte: u8) -> bool {
    PLAIN[usize::from(byte)]
}

/// Writes a value that a client chose as nginx does: quotes, backslashes and what is not
/// printable as `\xHH`, so that no value can end its field or its line.
fn escape(value: &[u8], line: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if value.iter().all(|byte| is_plain(*byte)) {
        line.extend_from_slice(value);
        return;
    }
    for byte in value {
        if is_plain(*byte) {
            line.push(*byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            line.extend_from_slice(&[b'\\', b'x', HEX[high], HEX[low]]);
        }
    }
}

/// The same for a field without quotes, which a space would end.
fn escape_word(value: &[u8], line: &mut Vec<u8>) {
    for (index, word) in value.split(|byte| *byte == b' ').enumerate() {
        if index > 0 {
            line.extend_from_slice(b"\\x20");
        }
        escape(word, line);
    }
}

/// The first field of a line. Hipache writes `::ffff:` in front of every value that does not begin
/// with `::`, also of an IPv6 address, which makes it one that log readers cannot parse
/// (`::ffff:2001:db8::5`). Here an IPv6 address stands as it is, without brackets and port.
fn client_address(value: &[u8], line: &mut Vec<u8>) {
    if let Some(address) = ipv6(value) {
        line.extend_from_slice(address);
        return;
    }
    if !value.starts_with(b"::") {
        line.extend_from_slice(b"::ffff:");
    }
    escape_word(value, line);
}

/// The IPv6 address that `value` consists of: `2001:db8::5`, `[2001:db8::5]` or `[2001:db8::5]:443`.
fn ipv6(value: &[u8]) -> Option<&[u8]> {
    // IPv4 addresses, which most clients have, are not parsed.
    if value.starts_with(b"::ffff:") || !value.contains(&b':') {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?;
    let address = match text.strip_prefix('[') {
        None => text,
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let is_port = |port: &str| port.parse::<u16>().is_ok();
            (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(address)?
        }
    };
    address.parse::<Ipv6Addr>().is_ok().then_some(address.as_bytes())
}

/// The end of the log that one worker writes to.
#[derive(Debug)]
pub struct Sink {
    buffer: Mutex<Buffer>,
    dropped: AtomicU64,
    wake: SyncSender<Order>,
    clock: Arc<Clock>,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    /// `23/Nov/2026:09:24:35 +0000`, and the Unix second that it shows.
    timestamp: String,
    second: i64,
}

impl Sink {
    fn append(&self, format: impl FnOnce(&str, &mut Vec<u8>)) {
        let mut guard = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let buffer = &mut *guard;
        if buffer.lines.len() >= MAX_BUFFER {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let now = Timestamp::now();
        if buffer.second != now.as_second() || buffer.timestamp.is_empty() {
            buffer.second = now.as_second();
            buffer.timestamp.clear();
            let _infallible =
                write!(buffer.timestamp, "{}", now.strftime("%d/%b/%Y:%H:%M:%S +0000"));
        }
        let before = buffer.lines.len();
        format(&buffer.timestamp, &mut buffer.lines);
        if before < FLUSH_BYTES && buffer.lines.len() >= FLUSH_BYTES {
            // A full channel means that the writer is awake anyway.
            let _is_awake = self.wake.try_send(Order::Flush);
        }
    }

    fn take(&self) -> Vec<u8> {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut buffer.lines)
    }
}

#[derive(Debug)]
enum Order {
    Flush,
    Reopen,
    Stop,
}

/// The log and its writer thread.
#[derive(Debug)]
pub struct AccessLog {
    orders: SyncSender<Order>,
    writer: JoinHandle<()>,
}

/// What lines are written to.
#[derive(Debug)]
enum Output {
    File(PathBuf, File),
    Stdout(io::Stdout),
}

/// Why an access log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the access log {}{}", .path.display(), hint(.source, .path, *.owner))]
pub struct OpenError {
    path: PathBuf,
    /// Who is to write it, when that is not the user of the start.
    owner: Option<(nix::unistd::Uid, nix::unistd::Gid)>,
    #[source]
    source: io::Error,
}

/// What to do about it.
fn hint(
    error: &io::Error,
    path: &Path,
    owner: Option<(nix::unistd::Uid, nix::unistd::Gid)>,
) -> String {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = directory.display();
    let otherwise = "or write it elsewhere with --access-log PATH, `stdout` or `none`";
    match error.kind() {
        io::ErrorKind::NotFound => {
            let give = owner.map(|(user, group)| format!(" -o {user} -g {group}"));
            let give = give.unwrap_or_default();
            format!("; make its directory (install -d{give} {directory}), {otherwise}")
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "; give the user of this program the right to write to {directory}, {otherwise}"
            )
        }
        io::ErrorKind::IsADirectory => "; it is a directory: name a file in it".to_owned(),
        _ => format!("; {otherwise}"),
    }
}

/// An opened target. Opened before privileges are dropped, written to afterwards.
#[derive(Debug)]
pub struct Opened(Option<Output>);

impl Opened {
    /// Opens `target` for appending. A file that did not exist is given to `owner`, so that it
    /// can be reopened after privileges were dropped.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when the file cannot be opened.
    pub fn new(
        target: &AccessLogTarget,
        owner: Option<(nix::unistd::Uid, nix::unistd::Gid)>,
    ) -> Result<Self, OpenError> {
        let output = match target {
            AccessLogTarget::None => None,
            AccessLogTarget::Stdout => Some(Output::Stdout(io::stdout())),
            AccessLogTarget::File(path) => {
                let is_new = !path.exists();
                let file =
                    open(path).map_err(|source| OpenError { path: path.clone(), owner, source })?;
                if let Some((user, group)) = owner.filter(|_| is_new)
                    && let Err(error) = nix::unistd::chown(path, Some(user), Some(group))
                {
                    warn!(path = %path.display(), %error, "cannot give the access log to the user");
                }
                Some(Output::File(path.clone(), file))
            }
        };
        Ok(Self(output))
    }
}

impl AccessLog {
    /// Starts the writer and gives one sink for each of `workers`. `None` when nothing is logged.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn start(
        opened: Opened,
        workers: usize,
        clock: &Arc<Clock>,
    ) -> io::Result<Option<(Self, Vec<Arc<Sink>>)>> {
        let Some(output) = opened.0 else {
            return Ok(None);
        };
        let (orders, received) = mpsc::sync_channel(64);
        let sinks: Vec<_> = (0..workers)
            .map(|_| {
                Arc::new(Sink {
                    buffer: Mutex::default(),
                    dropped: AtomicU64::new(0),
                    wake: orders.clone(),
                    clock: Arc::clone(clock),
                })
            })
            .collect();
        let writer = Writer { output, sinks: sinks.clone(), failing: false };
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&received))?;
        Ok(Some((Self { orders, writer }, sinks)))
    }

    /// Closes the file and opens it anew, for log rotation (SIGUSR1).
    pub fn reopen(&self) {
        if self.orders.send(Order::Reopen).is_err() {
            warn!("the access-log writer is gone");
        }
    }

    /// Writes all that is waiting and ends the writer.
    pub fn stop(self) {
        if self.orders.send(Order::Stop).is_ok() && self.writer.join().is_err() {
            warn!("the access-log writer panicked");
        }
    }
}

struct Writer {
    output: Output,
    sinks: Vec<Arc<Sink>>,
    /// The last write failed, and that was said.
    failing: bool,
}

impl Writer {
    fn run(mut self, orders: &mpsc::Receiver<Order>) {
        loop {
            let order = orders.recv_timeout(FLUSH_INTERVAL);
            self.flush();
            match order {
                Ok(Order::Reopen) => self.reopen(),
                Ok(Order::Flush) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn flush(&mut self) {
        for sink in &self.sinks {
            let lines = sink.take();
            if !lines.is_empty() {
                let result = match &mut self.output {
                    Output::File(_, file) => file.write_all(&lines),
                    Output::Stdout(stdout) => {
                        stdout.write_all(&lines).and_then(|()| stdout.flush())
                    }
                };
                match result {
                    Ok(()) if self.failing => {
                        self.failing = false;
                        info!("the access log can be written again");
                    }
                    Err(error) if !self.failing => {
                        self.failing = true;
                        warn!(%error, "cannot write the access log: lines are lost");
                    }
                    Ok(()) | Err(_) => {}
                }
            }
            let dropped = sink.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                warn!(lines = dropped, "the access log is too slow: lines were dropped");
            }
        }
    }

    fn reopen(&mut self) {
        if let Output::File(path, file) = &mut self.output {
            match open(path) {
                Ok(reopened) => {
                    *file = reopened;
                    info!(path = %path.display(), "access log reopened");
                }
                Err(error) => warn!(
                    path = %path.display(), %error,
                    "cannot reopen the access log: the old file is still written to"
                ),
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{AccessLog, Line, Opened, Sink, client_address, escape, seconds};
    use crate::clock::Clock;
    use crate::config::AccessLogTarget;

    fn sink() -> (AccessLog, Arc<Sink>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let target = AccessLogTarget::File(directory.path().join("access.log"));
        let opened = Opened::new(&target, None).unwrap();
        let (log, sinks) = AccessLog::start(opened, 1, &Arc::new(Clock::new())).unwrap().unwrap();
        (log, Arc::clone(&sinks[0]), directory)
    }

    const LINE: Line<'static> = Line {
        client: b"::ffff:127.0.0.1",
        method: b"GET",
        target: b"/x?y=1",
        version: "HTTP/1.1",
        status: 200,
        bytes: 179,
        referer: b"",
        user_agent: b"",
        request_id: None,
        route: None,
        started: 0,
        backend_started: Some(2),
    };

    fn text(line: &Line<'_>) -> String {
        let mut text = Vec::new();
        line.format("23/Nov/2026:09:24:35 +0000", 12, &mut text);
        String::from_utf8(text).unwrap()
    }

    /// hipache-contract 3, the recorded line.
    #[test]
    fn the_line_is_hipaches() {
        assert_eq!(
            text(&LINE),
            "::ffff:127.0.0.1 - - [23/Nov/2026:09:24:35 +0000] \"GET /x?y=1 HTTP/1.1\" 200 179 \
             \"\" \"\" \"-\" 0.012 0.01\n"
        );
    }

    #[test]
    fn unreadable_request_lines_are_a_dash() {
        let line = Line { method: b"", target: b"", status: 400, backend_started: None, ..LINE };
        assert_eq!(
            text(&line),
            "::ffff:127.0.0.1 - - [23/Nov/2026:09:24:35 +0000] \"-\" 400 179 \"\" \"\" \"-\" 0.012 0\n"
        );
    }

    /// hipache-contract 3, the client.
    #[test]
    fn ipv6_clients_are_written_without_a_prefix() {
        for (value, field) in [
            ("1.2.3.4", "::ffff:1.2.3.4"),
            ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
            ("::1", "::1"),
            ("::x y", "::x\\x20y"),
            ("2001:db8::5", "2001:db8::5"),
            ("[2001:db8::5]", "2001:db8::5"),
            ("[2001:db8::5]:443", "2001:db8::5"),
            ("fe80::1:2:3:4", "fe80::1:2:3:4"),
            // Not addresses: what Hipache writes, escaped.
            ("1.2.3.4:5", "::ffff:1.2.3.4:5"),
            ("[2001:db8::5", "::ffff:[2001:db8::5"),
            ("[2001:db8::5]x", "::ffff:[2001:db8::5]x"),
            ("[2001:db8::5]:99999", "::ffff:[2001:db8::5]:99999"),
            ("2001:db8::5 - - [x]", "::ffff:2001:db8::5\\x20-\\x20-\\x20[x]"),
            ("unknown", "::ffff:unknown"),
            ("", "::ffff:"),
        ] {
            let mut line = Vec::new();
            client_address(value.as_bytes(), &mut line);
            assert_eq!(String::from_utf8(line).unwrap(), field, "{value}");
        }
    }

    /// hipache-contract 3, "must not let a client forge a line".
    #[test]
    fn values_of_clients_cannot_forge_a_line() {
        let forged = Line { client: b"1.2.3.4 - - [x]", ..LINE };
        assert!(text(&forged).starts_with("::ffff:1.2.3.4\\x20-\\x20-\\x20[x] - - ["));
        let forged = Line {
            client: b"1.2.3.4",
            target: b"/x\"y",
            user_agent: b"a\" 200 0 \"\\\tx\xff",
            version: "HTTP/1.0",
            ..LINE
        };
        assert_eq!(
            text(&forged),
            "::ffff:1.2.3.4 - - [23/Nov/2026:09:24:35 +0000] \"GET /x\\x22y HTTP/1.0\" 200 179 \
             \"\" \"a\\x22 200 0 \\x22\\x5C\\x09x\\xFF\" \"-\" 0.012 0.01\n"
        );
    }

    /// hipache-contract 3, "milliseconds divided by 1000, no padding".
    #[test]
    fn seconds_are_printed_without_padding() {
        for (millis, text) in [
            (0, "0"),
            (1, "0.001"),
            (10, "0.01"),
            (100, "0.1"),
            (123, "0.123"),
            (1000, "1"),
            (61_050, "61.05"),
        ] {
            let mut line = Vec::new();
            seconds(millis, &mut line);
            assert_eq!(String::from_utf8(line).unwrap(), text);
        }
    }

    #[test]
    fn a_rotated_file_is_reopened_and_nothing_is_lost() {
        let (log, sink, directory) = sink();
        let path = directory.path().join("access.log");
        LINE.emit(&sink);
        log.reopen();
        std::fs::rename(&path, directory.path().join("old.log")).unwrap();
        log.reopen();
        LINE.emit(&sink);
        log.stop();
        let lines = |name: &str| {
            let text = std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
            text.lines().count()
        };
        assert_eq!(lines("old.log") + lines("access.log"), 2);
        assert!(path.exists());
    }

    proptest::proptest! {
        #[test]
        fn any_client_is_one_word(value in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let mut line = Vec::new();
            client_address(&value, &mut line);
            proptest::prop_assert!(line.iter().all(|b| (0x21..0x7f).contains(b) && *b != b'"'));
        }

        #[test]
        fn every_ipv6_address_is_written_as_it_came(bits: u128) {
            let text = std::net::Ipv6Addr::from(bits).to_string();
            let mut line = Vec::new();
            client_address(text.as_bytes(), &mut line);
            proptest::prop_assert_eq!(line, text.as_bytes());
        }

        #[test]
        fn an_escaped_value_is_one_printable_field(value in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let mut line = Vec::new();
            escape(&value, &mut line);
            let is_safe = line.iter().all(|b| (0x20..0x7f).contains(b) && *b != b'"');
            proptest::prop_assert!(is_safe);
        }
    }
}
