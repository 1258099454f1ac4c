//! Server-sent events from bytes, however they are cut up. Pure.
//!
//! An own parser and not a crate: those that were looked at keep an event of any size in memory, and
//! end for good at text that is not UTF-8. Here a line that is too long costs itself only, is
//! reported, and the stream goes on.
//!
//! Only `data` is of interest: Marathon sends neither `id` nor `retry`, names the type of an event
//! inside its JSON too, and in 0.9 and 0.10 nowhere else. LF, CR and CRLF end a line; Marathon's
//! heartbeat is a CRLF whose two bytes arrive apart.

/// What the bytes said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Item {
    /// The data of one event, lines joined with LF, in whatever encoding it came.
    Data(Vec<u8>),
    /// An event went over the limit and was thrown away.
    TooLong,
}

/// A parser with the state of one connection.
#[derive(Debug)]
pub struct Parser {
    /// Bytes that one event may have, and one line.
    limit: usize,
    /// The line under way; empty while a line that is too long goes by.
    line: Vec<u8>,
    /// The data of the event under way.
    data: Vec<u8>,
    has_data: bool,
    is_too_long: bool,
    /// The last byte was a CR: a LF that follows belongs to it.
    after_cr: bool,
    is_first_line: bool,
}

/// Buffers above this are given back after use, so that one huge event does not stay for ever.
const KEPT_CAPACITY: usize = 64 * 1024;

impl Parser {
    /// A parser for a new connection that keeps at most `limit` bytes of an event.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            is_too_long: false,
            after_cr: false,
            is_first_line: true,
        }
    }

    /// Takes the next bytes and hands every event that they complete to `each`.
    ///
    /// Linear in the number of bytes, however they are cut.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Item)) {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(at) = bytes.iter().position(|&byte| byte == b'\n' || byte == b'\r') {
            let (start, rest) = bytes.split_at(at);
            self.extend_line(start);
            self.end_line(&mut each);
            bytes = match rest {
                [b'\r', b'\n', rest @ ..] => rest,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, rest @ ..] => rest,
                [] => &[],
            };
        }
        self.extend_line(bytes);
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        if self.is_too_long {
            // One byte is kept, so that an empty line is told from one that was dropped.
            if self.line.is_empty() {
                self.line.extend(bytes.first());
            }
            return;
        }
        if self.line.len() + bytes.len() > self.limit {
            self.is_too_long = true;
            (self.line, self.data) = (vec![b':'], Vec::new());
            return;
        }
        self.line.extend_from_slice(bytes);
    }

    fn end_line(&mut self, each: &mut impl FnMut(Item)) {
        let mut line = std::mem::take(&mut self.line);
        let mut text = line.as_slice();
        if std::mem::take(&mut self.is_first_line) {
            text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        }
        if text.is_empty() {
            self.end_event(each);
        } else if let Some(value) = data_of(text) {
            self.add_data(value);
        }
        if line.capacity() <= KEPT_CAPACITY {
            line.clear();
            self.line = line;
        }
    }

    fn add_data(&mut self, value: &[u8]) {
        if self.is_too_long {
            return;
        }
        if self.data.len() + value.len() >= self.limit {
            self.is_too_long = true;
            self.data = Vec::new();
            return;
        }
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
    }

    fn end_event(&mut self, each: &mut impl FnMut(Item)) {
        let data = std::mem::take(&mut self.data);
        let has_data = std::mem::take(&mut self.has_data);
        if std::mem::take(&mut self.is_too_long) {
            each(Item::TooLong);
        } else if has_data {
            each(Item::Data(data));
        }
    }
}

/// The value of a `data` line: one space after the colon is not part of it.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"data")?;
    if rest.is_empty() {
        return Some(rest);
    }
    let value = rest.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(limit: usize, pieces: &[&[u8]]) -> Vec<Item> {
        let mut parser = Parser::new(limit);
        let mut items = Vec::new();
        for piece in pieces {
            parser.push(piece, |item| items.push(item));
        }
        items
    }

    fn data(text: &str) -> Item {
        Item::Data(text.as_bytes().to_vec())
    }

    #[test]
    fn events_are_read_whatever_ends_their_lines() {
        let table: &[(&str, &[Item])] = &[
            ("data: a\n\n", &[data("a")]),
            ("data: a\r\rdata: b\r\r", &[data("a"), data("b")]),
            ("event: x\r\ndata: a\r\n\r\n", &[data("a")]),
            ("\u{feff}data: a\n\n", &[data("a")]),
            ("data: a\n\u{feff}data: b\n\n", &[data("a")]),
            ("data: a\ndata:b\ndata:  c\n\n", &[data("a\nb\n c")]),
            ("data\n\n", &[data("")]),
            ("data:\ndata\n\n", &[data("\n")]),
            (": note\nid: 3\nretry: 1\ndatabase: x\n\n", &[]),
            ("\r\n\r\n\n\r", &[]),
            ("data: cut off\n", &[]),
        ];
        for (text, items) in table {
            assert_eq!(parse(100, &[text.as_bytes()]), *items, "{text:?}");
        }
    }

    #[test]
    fn a_heartbeat_in_two_segments_is_not_two_line_ends() {
        let pieces: [&[u8]; 6] = [b"data: a\r", b"\n\r", b"\n", b"\r", b"", b"\ndata: b\n\n"];
        assert_eq!(parse(100, &pieces), [data("a"), data("b")]);
    }

    #[test]
    fn an_event_over_the_limit_costs_itself_only() {
        let table: &[&str] = &[
            "data: 12345678901234567890\n\ndata: b\n\n",
            "event: 12345678901234567890\ndata: a\n\ndata: b\n\n",
            "data: 1234567\ndata: 1234567\ndata: 1234567\n\ndata: b\n\n",
            "data: 12345678901234567890\nevent: x\ndata: 1\n\ndata: b\n\n",
        ];
        for text in table {
            assert_eq!(parse(20, &[text.as_bytes()]), [Item::TooLong, data("b")], "{text:?}");
        }
    }

    #[test]
    fn a_line_of_megabytes_is_one_event() {
        let long = "x".repeat(3 << 20);
        let text = format!("data: {long}\r\n\r\n");
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(1000).collect();
        assert_eq!(parse(4 << 20, &pieces), [data(&long)]);
        assert_eq!(parse(2 << 20, &pieces), [Item::TooLong]);
    }

    proptest! {
        #[test]
        fn any_cut_of_the_bytes_gives_the_same_events(
            lines in prop::collection::vec(
                (prop::sample::select(vec!["", "data: a", "data", ":", "event: x", "data: long long line",
                    "data: \u{feff}", "\u{feff}data: b"]),
                 prop::sample::select(vec!["\n", "\r", "\r\n"])), 0..20),
            cuts in prop::collection::vec(1_usize..8, 1..20),
        ) {
            let text: String = lines.iter().flat_map(|(line, end)| [*line, *end]).collect();
            let mut pieces = Vec::new();
            let mut rest = text.as_bytes();
            for &cut in cuts.iter().cycle().take(text.len()) {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            for limit in [12, 1000] {
                prop_assert_eq!(parse(limit, &pieces), parse(limit, &[text.as_bytes()]));
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_keep_more_than_the_limit(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20),
        ) {
            let mut parser = Parser::new(30);
            for piece in &pieces {
                parser.push(piece, |_| {});
                prop_assert!(parser.line.len() <= 30 && parser.data.len() <= 31);
            }
        }
    }
}
