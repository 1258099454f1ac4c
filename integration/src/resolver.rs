//! Names as a test decides: a DNS server of its own, and files below `/etc` that only one router sees.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Shows a program the files of `etc` in its working directory in place of the machine's own. The mounts are in
/// a namespace of its own and end with it; `exec` keeps the process id.
const SCRIPT: &str =
    r#"for file in etc/*; do mount --bind "$file" "/$file" || exit 1; done; exec "$@""#;
/// The files that a test may replace.
const FILES: [&str; 3] = ["hosts", "nsswitch.conf", "resolv.conf"];
/// DNS over UDP without extensions has no longer messages (RFC 1035, 4.2.1).
const MAX_MESSAGE: usize = 512;
const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];

/// What a resolver says of a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// These addresses, and none of IPv6.
    Addresses(Vec<Ipv4Addr>),
    /// The name does not exist.
    NoSuchName,
    /// It has failed for now.
    ServerFailure,
    /// Nothing at all.
    Silence,
}

/// A DNS server on an address of the loopback; ends with the value. It answers as a closure says.
#[derive(Debug)]
pub struct Resolver {
    ip: IpAddr,
    socket: Arc<UdpSocket>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

type Behaviour = dyn Fn(&str) -> Answer + Send;

struct Shared {
    behaviour: Mutex<Box<Behaviour>>,
    asked: Mutex<Vec<String>>,
    has_ended: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Resolver {
    /// Starts it; the system's resolver asks port 53 only, which takes root.
    pub fn start(behaviour: impl Fn(&str) -> Answer + Send + 'static) -> Self {
        let (ip, socket) = socket();
        let socket = Arc::new(socket);
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(Box::new(behaviour)),
            asked: Mutex::default(),
            has_ended: AtomicBool::new(false),
        });
        let thread = std::thread::spawn({
            let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
            move || shared.serve(&socket)
        });
        Self { ip, socket, shared, thread: Some(thread) }
    }

    /// A `resolv.conf` that names it, asks again after 5 s and waits for 25 s, longer than any client of a test.
    pub fn conf(&self) -> String {
        format!("nameserver {}\noptions timeout:5 attempts:5\n", self.ip)
    }

    /// Changes the answers from now on.
    pub fn become_like(&self, behaviour: impl Fn(&str) -> Answer + Send + 'static) {
        *locked(&self.shared.behaviour) = Box::new(behaviour);
    }

    /// How often it was asked for the IPv4 addresses of a name.
    pub fn asked(&self, name: &str) -> usize {
        locked(&self.shared.asked).iter().filter(|asked| *asked == name).count()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        // Wakes the thread.
        let address = self.socket.local_addr().expect("own address");
        self.socket.send_to(&[], address).expect("sends to itself");
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn serve(&self, socket: &UdpSocket) {
        let mut buffer = [0; MAX_MESSAGE];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            if self.has_ended.load(Ordering::SeqCst) {
                return;
            }
            let Some(query) = Query::parse(&buffer[..length]) else { continue };
            if query.is_ipv4 {
                locked(&self.asked).push(query.name.clone());
            }
            let answer = locked(&self.behaviour)(&query.name);
            if let Some(message) = query.answer(&answer) {
                // An error means that nobody waits for it any more.
                let _sent = socket.send_to(&message, client);
            }
        }
    }
}

/// One question, as the system's resolver sends it (RFC 1035, 4.1).
struct Query<'a> {
    id: &'a [u8],
    question: &'a [u8],
    name: String,
    is_ipv4: bool,
}

impl<'a> Query<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let mut rest = message.get(HEADER..)?;
        let mut labels = Vec::new();
        loop {
            let (length, after) = rest.split_first()?;
            if *length == 0 {
                rest = after;
                break;
            }
            let (label, after) = after.split_at_checked(usize::from(*length))?;
            labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
            rest = after;
        }
        let (kind, rest) = rest.split_at_checked(2)?;
        let (_class, rest) = rest.split_at_checked(2)?;
        let question = &message[HEADER..message.len() - rest.len()];
        Some(Self { id: &message[..2], question, name: labels.join("."), is_ipv4: kind == TYPE_A })
    }

    fn answer(&self, answer: &Answer) -> Option<Vec<u8>> {
        let (code, addresses) = match answer {
            Answer::Addresses(addresses) if self.is_ipv4 => (0, addresses.as_slice()),
            Answer::Addresses(_) => (0, &[][..]),
            Answer::ServerFailure => (2, &[][..]),
            Answer::NoSuchName => (3, &[][..]),
            Answer::Silence => return None,
        };
        let count = u8::try_from(addresses.len()).expect("few addresses");
        let mut message = self.id.to_vec();
        // A response, recursion desired and available; one question, so many answers.
        message.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
        message.extend(self.question);
        for address in addresses {
            // The name of the question, type A, class IN, time to live 0, four bytes.
            message.extend([0xC0, 0x0C, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            message.extend(address.octets());
        }
        Some(message)
    }
}

/// Port 53 of an address of the loopback that nobody else has taken.
fn socket() -> (IpAddr, UdpSocket) {
    let start = std::process::id();
    for offset in 0..1000 {
        let [_, _, third, fourth] = start.wrapping_add(offset).to_be_bytes();
        let ip = Ipv4Addr::new(127, 53, third, fourth);
        match UdpSocket::bind((ip, 53)) {
            Ok(socket) => return (ip.into(), socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => panic!("cannot bind {ip}:53: {error}"),
        }
    }
    panic!("no free address for a resolver");
}

/// Whether programs can be shown other files below `/etc`: that takes root and a kernel that allows it.
pub fn can_replace_etc() -> bool {
    if FILES.iter().any(|file| !Path::new("/etc").join(file).exists()) {
        return false;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let etc = dir.path().join("etc");
    fs::create_dir(&etc).expect("makes a directory");
    fs::write(etc.join("hosts"), "").expect("writes a file");
    let mut command = wrapper();
    command.arg("true").current_dir(dir.path()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs the program that follows with the files of `etc` in its working directory.
pub(crate) fn wrapper() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]);
    command
}

fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_a_question_with_its_addresses() {
        let question = b"\x01a\x04test\0\0\x01\0\x01";
        let message = [&b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0"[..], question].concat();
        let query = Query::parse(&message).unwrap();
        assert_eq!((query.name.as_str(), query.is_ipv4), ("a.test", true));
        let answer = query.answer(&Answer::Addresses(vec![Ipv4Addr::new(127, 0, 0, 2)])).unwrap();
        let head = b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0";
        let record = b"\xC0\x0C\0\x01\0\x01\0\0\0\0\0\x04\x7F\0\0\x02";
        assert_eq!(answer, [&head[..], question, record].concat());
        assert_eq!(query.answer(&Answer::NoSuchName).unwrap()[3], 0x83);
        assert_eq!(query.answer(&Answer::Silence), None);
        assert!(Query::parse(&message[..20]).is_none());
    }
}
