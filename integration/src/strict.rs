//! RFC 9112 read to the letter: where requests begin and end in a stream of bytes. The measure for what
//! a proxy forwards, written apart from the router's own parser.

/// How much of what RFC 9112 leaves to a recipient is allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rules {
    /// What a sender may send: nothing that anybody could read differently.
    Sender,
    /// What a recipient may accept as long as it passes it on cleaned: empty lines before a request
    /// (2.2), `Transfer-Encoding` that overrides a length (6.3), equal lengths (6.3) and blanks behind a
    /// chunk size.
    Recipient,
}

/// A request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// As it stands in the request line.
    pub target: String,
    /// The content.
    pub body: Vec<u8>,
    /// What follows on the connection is no request.
    pub is_last: bool,
}

/// What stands at the beginning of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reading {
    /// A whole request of so many bytes.
    Complete(Message, usize),
    /// Perhaps the beginning of one.
    Incomplete,
    /// No request, for this reason.
    Invalid(&'static str),
}

/// Reads the request that `bytes` begin with.
pub fn read(bytes: &[u8], rules: Rules) -> Reading {
    match read_message(bytes, rules) {
        Ok((message, length)) => Reading::Complete(message, length),
        Err(Incomplete) => Reading::Incomplete,
        Err(Invalid(reason)) => Reading::Invalid(reason),
    }
}

/// Reads every request up to the first that is none or not complete.
pub fn read_all(mut bytes: &[u8], rules: Rules) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Reading::Complete(message, length) = read(bytes, rules) {
        bytes = &bytes[length..];
        messages.push(message);
        if messages.last().is_some_and(|message| message.is_last) {
            break;
        }
    }
    messages
}

enum Problem {
    Incomplete,
    Invalid(&'static str),
}

use Problem::{Incomplete, Invalid};

struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line without its CRLF.
    fn next(&mut self) -> Result<&'a [u8], Problem> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or(Incomplete)?;
        let line = rest[..end].strip_suffix(b"\r").ok_or(Invalid("bare line feed"))?;
        if line.contains(&b'\r') {
            return Err(Invalid("bare carriage return"));
        }
        self.at += end + 1;
        Ok(line)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Problem> {
        let count = usize::try_from(count).map_err(|_beyond_memory| Incomplete)?;
        let end = self.at.checked_add(count).ok_or(Incomplete)?;
        let taken = self.bytes.get(self.at..end).ok_or(Incomplete)?;
        self.at = end;
        Ok(taken)
    }
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn is_digits(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
}

fn field(line: &[u8]) -> Result<(String, &[u8]), Problem> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Invalid("line without colon"))?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if !is_token(name) {
        return Err(Invalid("field name"));
    }
    if value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
        return Err(Invalid("control character in a value"));
    }
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value))
}

fn read_message(bytes: &[u8], rules: Rules) -> Result<(Message, usize), Problem> {
    let mut lines = Lines { bytes, at: 0 };
    let mut line = lines.next()?;
    while line.is_empty() && rules == Rules::Recipient {
        line = lines.next()?;
    }
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { return Err(Invalid("request line")) };
    let is_visible = |byte: &u8| (b'!'..=b'~').contains(byte);
    if !is_token(method) || target.is_empty() || !target.iter().all(is_visible) {
        return Err(Invalid("request line"));
    }
    let is_new = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err(Invalid("version")),
    };
    let (mut hosts, mut lengths, mut codings) = (0, Vec::new(), Vec::new());
    let mut closes = !is_new;
    loop {
        let line = lines.next()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = field(line)?;
        match name.as_str() {
            "host" => hosts += 1,
            "content-length" => lengths.push(value),
            "transfer-encoding" => codings.push(value),
            "connection" => {
                let value = value.to_ascii_lowercase();
                let has = |word: &[u8]| value.split(|b| *b == b',').any(|t| t.trim_ascii() == word);
                closes = has(b"close") || (closes && !has(b"keep-alive"));
            }
            _ => {}
        }
    }
    if hosts != 1 {
        return Err(Invalid("not one host"));
    }
    if rules == Rules::Recipient {
        lengths.dedup();
    }
    let is_chunked = match codings[..] {
        [] => false,
        [coding] if is_new && coding.eq_ignore_ascii_case(b"chunked") => true,
        _ => return Err(Invalid("transfer coding")),
    };
    let (body, overridden) = match (is_chunked, &lengths[..]) {
        (false, []) => (Vec::new(), false),
        (false, [length]) if is_digits(length) => {
            let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
            let length = length.ok_or(Invalid("length beyond 64 bits"))?;
            (lines.take(length)?.to_vec(), false)
        }
        (true, []) => (read_chunks(&mut lines, rules)?, false),
        (true, _) if rules == Rules::Recipient => (read_chunks(&mut lines, rules)?, true),
        _ => return Err(Invalid("lengths")),
    };
    let target = String::from_utf8_lossy(target).into_owned();
    Ok((Message { target, body, is_last: overridden || closes }, lines.at))
}

fn read_chunks(lines: &mut Lines<'_>, rules: Rules) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::new();
    loop {
        let line = lines.next()?;
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let digits = match rules {
            Rules::Sender => digits,
            Rules::Recipient => digits.trim_ascii_end(),
        };
        if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(Invalid("chunk size"));
        }
        let size = std::str::from_utf8(digits).ok().and_then(|t| u64::from_str_radix(t, 16).ok());
        let size = size.ok_or(Invalid("chunk size"))?;
        if size == 0 {
            break;
        }
        body.extend_from_slice(lines.take(size)?);
        match lines.take(2) {
            Ok(b"\r\n") => {}
            Ok(_) => return Err(Invalid("chunk end")),
            Err(problem) => return Err(problem),
        }
    }
    loop {
        let line = lines.next()?;
        if line.is_empty() {
            return Ok(body);
        }
        field(line)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(bytes: &str, rules: Rules) -> Vec<String> {
        read_all(bytes.as_bytes(), rules).into_iter().map(|message| message.target).collect()
    }

    #[test]
    fn requests_are_told_apart() {
        let bytes = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
            POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: 1\r\n\r\n\
            GET /3 HTTP/1.0\r\nHost: a\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n";
        let messages = read_all(bytes.as_bytes(), Rules::Sender);
        assert_eq!(targets(bytes, Rules::Sender), ["/1", "/2", "/3"]);
        assert!(messages[..2].iter().all(|message| message.body == b"abc"));
    }

    #[test]
    fn what_is_doubtful_is_invalid_and_what_is_cut_is_not() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\n";
        for (rest, sender, recipient) in [
            ("Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", false, true),
            ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, true),
            ("Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", false, true),
            ("Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", false, false),
            ("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", false, false),
            ("Content-Length: 3, 3\r\n\r\nabc", false, false),
            ("Content-Length: +3\r\n\r\nabc", false, false),
            ("X: a\nb\r\n\r\n", false, false),
            ("X: a\r\n b\r\n\r\n", false, false),
            ("Host: a\r\n\r\n", false, false),
        ] {
            let bytes = format!("{head}{rest}");
            for (rules, is_good) in [(Rules::Sender, sender), (Rules::Recipient, recipient)] {
                let reading = read(bytes.as_bytes(), rules);
                assert_eq!(matches!(reading, Reading::Complete(..)), is_good, "{rest:?} {rules:?}");
                assert_eq!(matches!(reading, Reading::Invalid(_)), !is_good, "{rest:?} {rules:?}");
            }
        }
        let cut = format!("{head}Content-Length: 4\r\n\r\nabc");
        assert_eq!(read(cut.as_bytes(), Rules::Sender), Reading::Incomplete);
    }
}
