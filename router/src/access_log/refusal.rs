//! The line of a connection that was refused before there was a request that could be read.

use std::io::Write as _;
use std::net::IpAddr;

use http::StatusCode;

use super::{Sink, seconds};
use crate::route::Millis;

/// What was refused without a request line. Its line has all fields of Hipache's, with `-` in the place of
/// the request line, as Apache writes it, so that readers of such logs know it.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// The address of the client.
    pub client: IpAddr,
    /// Of the answer, or of the reason where there was no answer.
    pub status: StatusCode,
    /// Bytes of the answer that were written; 0 where the connection was closed without one.
    pub bytes: u64,
    /// Time that the client had for its request.
    pub waited: Millis,
    /// Lines end with the id of a request, and this one has none.
    pub has_id_field: bool,
}

impl Refusal {
    /// Writes the line, or counts it as dropped like any other when the log is full.
    pub fn emit(&self, sink: &Sink) {
        sink.append(|timestamp, line| self.format(timestamp, line));
    }

    fn format(&self, timestamp: &str, line: &mut Vec<u8>) {
        // Writing into memory does not fail.
        let _infallible = match self.client.to_canonical() {
            IpAddr::V4(address) => write!(line, "::ffff:{address}"),
            IpAddr::V6(address) => write!(line, "{address}"),
        };
        let (status, bytes) = (self.status.as_str(), self.bytes);
        let _infallible =
            write!(line, " - - [{timestamp}] \"-\" {status} {bytes} \"\" \"\" \"-\" ");
        seconds(self.waited, line);
        line.extend_from_slice(b" 0");
        if self.has_id_field {
            line.extend_from_slice(b" \"-\"");
        }
        line.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::Refusal;

    #[test]
    fn refusal_has_every_field_and_no_request_line() {
        let mut refusal = Refusal {
            client: "192.0.2.7".parse().unwrap(),
            status: StatusCode::REQUEST_TIMEOUT,
            bytes: 73,
            waited: 10_050,
            has_id_field: false,
        };
        let line = |refusal: &Refusal| {
            let mut line = Vec::new();
            refusal.format("23/Nov/2026:09:24:35 +0000", &mut line);
            String::from_utf8(line).unwrap()
        };
        let rest = "- - [23/Nov/2026:09:24:35 +0000] \"-\" 408 73 \"\" \"\" \"-\" 10.05 0";
        assert_eq!(line(&refusal), format!("::ffff:192.0.2.7 {rest}\n"));
        for (client, field) in [
            ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
            ("2001:db8::5", "2001:db8::5"),
            ("::1", "::1"),
        ] {
            refusal.client = client.parse().unwrap();
            assert_eq!(line(&refusal), format!("{field} {rest}\n"));
        }
        refusal.has_id_field = true;
        assert_eq!(line(&refusal), format!("::1 {rest} \"-\"\n"));
    }
}
