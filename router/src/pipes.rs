//! Pipes of the kernel, through which large bodies go from one socket to another without being copied into
//! this process and out again (`splice(2)`).
//!
//! A pipe costs two descriptors, so a worker has a bounded number of them; a body that gets none is copied
//! through a buffer.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::unistd::pipe2;
use shared::lock::lock;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::descriptors::Descriptors;

/// The rest of a body has to be this many bytes long to be spliced: below it, two more system calls cost more
/// than the copies that they save.
const MIN_SPLICED: u64 = 64 * 1024;
/// Pipes that bodies may have at a time, in each worker.
const MAX_PIPES: usize = 256;
/// Pipes that are kept open while no body needs them.
const MAX_IDLE: usize = 8;
/// Bytes that one call asks for. What a pipe takes is bounded by its 16 slots, each for one piece of the
/// socket's memory (up to 32 KiB).
const MAX_CALL: usize = 512 * 1024;

/// The pipes of one worker.
#[derive(Debug)]
pub struct Pipes {
    descriptors: Descriptors,
    idle: Mutex<Vec<Pipe>>,
    /// Pipes that are open, the idle ones included. Written by the worker's own thread only.
    open: Arc<AtomicUsize>,
    /// The system refuses pipes or splices. Set once, by the worker's own thread.
    is_refused: AtomicBool,
}

impl Pipes {
    /// None are open yet. They take no descriptor that connections to backends may not have, either.
    pub fn new(descriptors: Descriptors) -> Self {
        Self {
            descriptors,
            idle: Mutex::default(),
            open: Arc::default(),
            is_refused: AtomicBool::default(),
        }
    }

    /// An empty pipe. None when too many are in use, or the system refuses.
    fn take(&self) -> Option<Pipe> {
        if self.is_refused.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(pipe) = lock(&self.idle).pop() {
            return Some(pipe);
        }
        if self.open.load(Ordering::Relaxed) >= MAX_PIPES {
            return None;
        }
        // Without a free descriptor the body is copied; the next one may have better luck.
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
        let last = reader.as_raw_fd().max(writer.as_raw_fd());
        if !self.descriptors.allows_backend(last) {
            return None;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Pipe { reader, writer, held: 0, open: Arc::clone(&self.open) })
    }

    /// Takes a pipe back. One that still holds bytes is closed: they must not reach another body.
    pub fn give_back(&self, pipe: Pipe) {
        let mut idle = lock(&self.idle);
        if pipe.held == 0 && idle.len() < MAX_IDLE {
            idle.push(pipe);
        }
    }

    /// Moves some of a body, of which `left` bytes are still to come, from a socket into `pipe`: an empty one, or
    /// none yet. 0 is the end of what the peer sends. `None`: nothing was moved, and the body is to be copied,
    /// because too little is left of it, there is no pipe for it, or the system refuses.
    ///
    /// # Errors
    ///
    /// Of the socket.
    pub fn poll_fill(
        &self,
        pipe: &mut Option<Pipe>,
        task: &mut Context<'_>,
        socket: &TcpStream,
        left: u64,
    ) -> Option<Poll<io::Result<usize>>> {
        if left == 0 || (left < MIN_SPLICED && pipe.is_none()) {
            return None;
        }
        let mut taken = pipe.take().or_else(|| self.take())?;
        let polled = taken.poll_fill(task, socket, left);
        match &polled {
            Poll::Ready(Ok(_)) => *pipe = Some(taken),
            // A sandbox may forbid it: all bodies are copied from now on.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Unsupported => {
                self.is_refused.store(true, Ordering::Relaxed);
                return None;
            }
            Poll::Ready(Err(_)) => {}
            // A peer that takes its time costs no pipe.
            Poll::Pending => self.give_back(taken),
        }
        Some(polled)
    }
}

/// A pipe, and how many bytes are in it.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held: usize,
    open: Arc<AtomicUsize>,
}

impl Pipe {
    /// Bytes in the pipe.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves at most `most` bytes from a socket into the empty pipe; 0 is the end of what the peer sends. The
    /// error is that of the socket, or `Unsupported` when the system refuses to splice, and nothing was moved.
    fn poll_fill(
        &mut self,
        task: &mut Context<'_>,
        socket: &TcpStream,
        most: u64,
    ) -> Poll<io::Result<usize>> {
        // A full pipe and a socket without data give the same error: only an empty pipe tells them apart.
        debug_assert_eq!(self.held, 0, "bytes of the last fill are still to be drained");
        let most = usize::try_from(most).unwrap_or(MAX_CALL).min(MAX_CALL);
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        loop {
            ready!(socket.poll_read_ready(task))?;
            let moved = socket.try_io(Interest::READABLE, || {
                splice(socket, None, &self.writer, None, most, flags).map_err(to_error)
            });
            if let Some(result) = settled(moved) {
                self.held = *result.as_ref().unwrap_or(&0);
                return Poll::Ready(result);
            }
        }
    }

    /// Moves what is in the pipe to a socket, and returns how many bytes.
    ///
    /// # Errors
    ///
    /// Of the socket.
    pub fn poll_drain(
        &mut self,
        task: &mut Context<'_>,
        socket: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.held > 0, "nothing to drain");
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        loop {
            ready!(socket.poll_write_ready(task))?;
            let moved = socket.try_io(Interest::WRITABLE, || {
                splice(&self.reader, None, socket, None, self.held, flags).map_err(to_error)
            });
            if let Some(result) = settled(moved) {
                self.held -= *result.as_ref().unwrap_or(&0);
                return Poll::Ready(result);
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The result of a call, unless it is to be made again: interrupted, or the socket was not ready after all.
fn settled(result: io::Result<usize>) -> Option<io::Result<usize>> {
    match &result {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
        {
            None
        }
        _ => Some(result),
    }
}

fn to_error(errno: Errno) -> io::Error {
    match errno {
        Errno::EINVAL | Errno::ENOSYS | Errno::EPERM => io::ErrorKind::Unsupported.into(),
        errno => errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::{MAX_IDLE, MAX_PIPES, Pipes};
    use crate::descriptors::Descriptors;

    fn pipes() -> Pipes {
        Pipes::new(Descriptors::new(u64::MAX))
    }

    #[test]
    fn pipes_leave_the_reserve_of_descriptors_alone() {
        assert!(Pipes::new(Descriptors::new(3)).take().is_none());
    }

    /// Two ends of a connection.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    #[tokio::test]
    async fn pipe_moves_bytes_between_sockets_until_the_end() {
        let (mut backend, from) = connected().await;
        let (to, mut client) = connected().await;
        let body: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let sent = body.clone();
        let send = tokio::spawn(async move { backend.write_all(&sent).await.unwrap() });
        let receive = tokio::spawn(async move {
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.unwrap();
            received
        });
        let pipes = pipes();
        let mut pipe = pipes.take().unwrap();
        let mut moved = 0;
        while moved < 250_000 {
            moved +=
                poll_fn(|task| pipe.poll_fill(task, &from, 250_000 - moved)).await.unwrap() as u64;
            while pipe.held() > 0 {
                poll_fn(|task| pipe.poll_drain(task, &to)).await.unwrap();
            }
        }
        assert_eq!(moved, 250_000, "no byte beyond what was asked for");
        let mut rest = Vec::new();
        let mut from = from;
        from.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, body[250_000..]);
        send.await.unwrap();
        drop(to);
        assert_eq!(receive.await.unwrap(), body[..250_000]);
        assert_eq!(poll_fn(|task| pipe.poll_fill(task, &from, 1)).await.unwrap(), 0, "the end");
    }

    #[tokio::test]
    async fn pipe_with_bytes_is_not_reused() {
        let (mut backend, from) = connected().await;
        backend.write_all(b"secret").await.unwrap();
        let pipes = pipes();
        let mut pipe = pipes.take().unwrap();
        poll_fn(|task| pipe.poll_fill(task, &from, 6)).await.unwrap();
        pipes.give_back(pipe);
        assert!(pipes.idle.lock().unwrap().is_empty());
        assert_eq!(pipes.take().unwrap().held(), 0);
    }

    #[tokio::test]
    async fn pipes_are_bounded_and_counted() {
        let pipes = pipes();
        let taken: Vec<_> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!(taken.len(), MAX_PIPES);
        taken.into_iter().for_each(|pipe| pipes.give_back(pipe));
        assert_eq!(pipes.idle.lock().unwrap().len(), MAX_IDLE);
        let taken: Vec<_> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!(taken.len(), MAX_PIPES, "those that were closed are not counted");
        drop(taken);
        pipes.is_refused.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(pipes.take().is_none());
    }

    #[tokio::test]
    async fn reset_socket_is_an_error() {
        let (backend, from) = connected().await;
        socket2::SockRef::from(&backend).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(backend);
        let mut pipe = pipes().take().unwrap();
        let error = poll_fn(|task| pipe.poll_fill(task, &from, 6)).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}
