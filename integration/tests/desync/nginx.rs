//! Debian's nginx as a backend, which writes down each request and its body.

use std::path::{Path, PathBuf};
use std::process::Command;

use integration::eventually::{DEADLINE, eventually};
use integration::ports::Reserved;
use integration::process::Process;
use integration::wire::Conn;
use tempfile::TempDir;

use super::{Seen, number_of};

pub(crate) struct Nginx {
    // Ends before its directory goes away.
    process: Process,
    dir: TempDir,
    port: Reserved,
}

impl Nginx {
    /// Starts it; `None` where there is none.
    pub(crate) fn start() -> Option<Self> {
        let program = program()?;
        let dir = tempfile::Builder::new().prefix("nginx").tempdir().expect("a directory");
        let port = Reserved::new();
        // nginx keeps a body in memory only for somebody: a second server, behind a socket.
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log crit;
             events {{ worker_connections 1024; }}
             http {{
                 log_format seen '$status $request_uri $request_body';
                 client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f;
                 uwsgi_temp_path u; scgi_temp_path s; access_log off;
                 keepalive_requests 1000000; client_body_buffer_size 64k; client_max_body_size 0;
                 client_body_in_single_buffer on;
                 server {{
                     listen 127.0.0.1:{};
                     access_log seen.log seen;
                     location / {{ proxy_pass http://unix:{}/inner.sock:/; }}
                 }}
                 server {{ listen unix:{}/inner.sock; location / {{ return 200 ok; }} }}
             }}",
            port.port(),
            dir.path().display(),
            dir.path().display()
        );
        std::fs::write(dir.path().join("nginx.conf"), config).expect("writes its configuration");
        let mut command = Command::new(program);
        command.arg("-p").arg(dir.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        let mut nginx =
            Self { process: Process::start(&mut command, dir.path(), "nginx"), dir, port };
        eventually(DEADLINE, "nginx answers", || {
            let end = nginx.process.exited();
            assert!(end.is_none(), "nginx ended: {}", nginx.process.stderr());
            Conn::connect(nginx.port.addr()).is_ok()
        });
        Some(nginx)
    }

    pub(crate) fn url(&self) -> String {
        self.port.url()
    }

    /// Every request that it answered, by variant.
    pub(crate) fn end(self) -> Seen {
        let mut conn = Conn::connect(self.port.addr()).expect("connects");
        conn.send(b"GET /the-end HTTP/1.0\r\n\r\n").expect("sends");
        conn.read_to_end().expect("answers");
        let path = self.dir.path().join("seen.log");
        let read =
            || String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
        eventually(DEADLINE, "nginx has written its log", || read().contains("/the-end"));
        let mut seen = Seen::new();
        for line in read().lines() {
            let mut words = line.splitn(3, ' ');
            let mut word = || words.next().unwrap_or_default();
            let (status, target, body) = (word(), word(), word());
            let body = if body == "-" { Vec::new() } else { unescape(body) };
            if status == "200"
                && let Some(number) = number_of(target)
            {
                seen.entry(number).or_default().push((target.to_owned(), body));
            }
        }
        seen
    }
}

/// The installed one, or what `test.sh` has unpacked.
fn program() -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/nginx/usr/sbin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([unpacked]);
    places.map(|place| place.join("nginx")).find(|program| program.is_file())
}

/// Reads back what nginx writes as `\x0A`.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        let (digits, after) = after.split_at_checked(2).expect("two digits");
        bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
