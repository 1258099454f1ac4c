//! A backend that reads to the letter, keeps every request and complains about every byte that is none
//! of one.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use integration::ports::Reserved;
use integration::strict::{Reading, Rules, read};
use integration::wire::Conn;

use super::{Seen, essence, number_of};

#[derive(Default)]
struct Log {
    seen: Seen,
    violations: Vec<(&'static str, String)>,
}

pub(crate) struct Recorder {
    port: Reserved,
    socket: TcpListener,
    log: Arc<Mutex<Log>>,
    is_ending: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Recorder {
    pub(crate) fn start() -> Self {
        let port = Reserved::new();
        let socket = port.listen();
        let log = Arc::<Mutex<Log>>::default();
        let is_ending = Arc::<AtomicBool>::default();
        let thread = std::thread::spawn({
            let (log, is_ending) = (Arc::clone(&log), Arc::clone(&is_ending));
            let socket = socket.try_clone().expect("a second handle");
            move || {
                while let Ok((stream, _)) = socket.accept() {
                    if is_ending.load(Ordering::Relaxed) {
                        return;
                    }
                    let log = Arc::clone(&log);
                    // An error is the end of a connection.
                    std::thread::spawn(move || drop(serve(stream, &log)));
                }
            }
        });
        Self { port, socket, log, is_ending, thread }
    }

    pub(crate) fn url(&self) -> String {
        self.port.url()
    }

    /// Everything that was seen, by variant, and everything that should not have been.
    pub(crate) fn end(self) -> (Seen, Vec<(&'static str, String)>) {
        self.is_ending.store(true, Ordering::Relaxed);
        socket2::SockRef::from(&self.socket).shutdown(Shutdown::Both).expect("shuts down");
        self.thread.join().expect("the accept loop");
        let log = std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner));
        (log.seen, log.violations)
    }
}

fn serve(stream: TcpStream, log: &Mutex<Log>) -> io::Result<()> {
    let mut conn = Conn::new(stream);
    conn.set_limit(None);
    let mut bytes = Vec::new();
    loop {
        match read(&bytes, Rules::Sender) {
            Reading::Incomplete => match conn.read_some()? {
                more if more.is_empty() => return Ok(()),
                more => bytes.extend_from_slice(&more),
            },
            Reading::Complete(message, length) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                bytes.drain(..length);
                let number = number_of(&message.target);
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                if !bytes.is_empty() {
                    log.violations.push(("bytes behind a request", text));
                    return Ok(());
                }
                match number {
                    Some(number) => log.seen.entry(number).or_default().push(essence(&message)),
                    None => log.violations.push(("a request of nobody", text)),
                }
                drop(log);
                conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            }
            Reading::Invalid(why) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                log.lock().unwrap_or_else(PoisonError::into_inner).violations.push((why, text));
                return Ok(());
            }
        }
    }
}
