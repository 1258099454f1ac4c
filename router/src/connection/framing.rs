//! Looks at the bytes of requests on their way to hyper, which takes a line feed alone for the end of a
//! line (RFC 9112 2.2 allows that) in heads, and stops reading trailers at one. Whoever stands before
//! a proxy may see one header or one request where hyper sees two, or the other way round.
//!
//! Checks, and decides nothing: hyper says what kind of body a head has, and where the two do not
//! agree the request is refused.

/// What follows a head, as hyper reads it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyKind {
    /// Chunks.
    Chunked,
    /// So many bytes.
    Length(u64),
    /// The next head.
    None,
}

/// Bytes that may wait for hyper to say what they are; it reads no more than its buffer before it
/// does.
const MAX_PENDING: usize = 1024 * 1024;
/// Memory that is kept from one request to the next.
const KEPT: usize = 4096;

/// Where in its requests a connection is.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    at: At,
    /// What came behind a head, until it is known what that is.
    pending: Vec<u8>,
}

#[derive(Debug)]
enum At {
    /// In chunks or trailers that others could read differently.
    BadBody,
    /// In a head that others could read differently.
    BadHead,
    /// In a body of which so many bytes are still to come; they may be anything.
    Body(u64),
    Chunks(Chunk),
    Head(Head),
    /// Behind a head.
    Unknown,
}

impl Default for At {
    fn default() -> Self {
        Self::Head(Head::default())
    }
}

impl Tracker {
    /// So many of the next bytes need not be shown, if they are [`skipped`](Self::skipped).
    pub(super) fn may_skip(&self) -> u64 {
        match self.at {
            At::Body(left) => left,
            _ => 0,
        }
    }

    /// Bytes came in that were not shown, at most as many as may be skipped.
    pub(super) fn skipped(&mut self, count: u64) {
        if let At::Body(left) = &mut self.at {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.at = At::default();
            }
        }
    }

    /// Whether the body that is being received cannot be trusted.
    pub(super) fn has_bad_body(&self) -> bool {
        matches!(self.at, At::BadBody)
    }

    /// Bytes came in.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match &mut self.at {
                At::BadBody | At::BadHead => return,
                At::Body(left) => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    self.skipped(length as u64);
                    rest = rest.get(length..).unwrap_or_default();
                }
                At::Unknown if self.pending.len() + rest.len() > MAX_PENDING => {
                    self.at = At::BadHead;
                    return;
                }
                At::Unknown => {
                    self.pending.extend_from_slice(rest);
                    return;
                }
                At::Head(head) => match head.read(rest) {
                    Step::Bad => self.at = At::BadHead,
                    Step::More => return,
                    Step::End(after) => {
                        self.at = At::Unknown;
                        rest = after;
                    }
                },
                At::Chunks(chunk) => match chunk.read(rest) {
                    Step::Bad => self.at = At::BadBody,
                    Step::More => return,
                    Step::End(after) => {
                        self.at = At::default();
                        rest = after;
                    }
                },
            }
        }
    }

    /// hyper has read a head that is followed by `body`. Whether nothing of it could be read in
    /// another way, as far as it has come.
    pub(super) fn begin_body(&mut self, body: BodyKind) -> bool {
        match self.at {
            At::Unknown => {}
            // It sees the end of a head where there is none.
            At::BadBody | At::BadHead | At::Body(_) | At::Chunks(_) | At::Head(_) => return false,
        }
        let mut pending = std::mem::take(&mut self.pending);
        match body {
            BodyKind::None | BodyKind::Length(0) => self.at = At::default(),
            BodyKind::Chunked => self.at = At::Chunks(Chunk::Size(0, 0)),
            BodyKind::Length(length) => self.at = At::Body(length),
        }
        self.received(&pending);
        pending.clear();
        if self.pending.capacity() == 0 && pending.capacity() <= KEPT {
            self.pending = pending;
        }
        // A head further on is refused when it is its turn.
        !self.has_bad_body()
    }
}

/// What came of a look at some bytes.
enum Step<'a> {
    Bad,
    /// The end, and what follows it.
    End(&'a [u8]),
    More,
}

/// A head that is not complete.
#[derive(Debug, Default)]
struct Head {
    /// Bytes of the line that is not complete.
    carried: usize,
    /// The last of them is a carriage return.
    ends_in_cr: bool,
    /// There was more than the empty lines that may precede it.
    has_lines: bool,
}

impl Head {
    fn read<'a>(&mut self, bytes: &'a [u8]) -> Step<'a> {
        let mut rest = bytes;
        while let Some(at) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(at);
            rest = after.get(1..).unwrap_or_default();
            if !line.last().map_or(self.ends_in_cr, |byte| *byte == b'\r') {
                return Step::Bad;
            }
            let is_blank = self.carried + line.len() == 1;
            if is_blank && self.has_lines {
                return Step::End(rest);
            }
            *self = Self { has_lines: !is_blank, ..Self::default() };
        }
        if let Some(last) = rest.last() {
            self.carried = self.carried.saturating_add(rest.len());
            self.ends_in_cr = *last == b'\r';
        }
        Step::More
    }
}

/// A place in a chunked body (RFC 9112 7.1).
#[derive(Clone, Copy, Debug)]
enum Chunk {
    /// The size so far and its digits.
    Size(u64, u8),
    /// What follows the size on its line.
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// Whether the line is empty so far.
    Trailer(bool),
    TrailerLf(bool),
}

impl Chunk {
    fn read<'a>(&mut self, bytes: &'a [u8]) -> Step<'a> {
        let mut rest = bytes;
        loop {
            if let Self::Data(left) = self {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                rest = rest.get(length..).unwrap_or_default();
                *left -= length as u64;
                if *left > 0 {
                    return Step::More;
                }
                *self = Self::DataCr;
            }
            let Some((byte, after)) = rest.split_first() else { return Step::More };
            rest = after;
            *self = match (*self, *byte) {
                (Self::Size(size, digits), byte) => match (char::from(byte).to_digit(16), byte) {
                    (Some(digit), _) if digits < 16 => {
                        Self::Size(size << 4 | u64::from(digit), digits + 1)
                    }
                    (None, b'\r') if digits > 0 => Self::SizeLf(size),
                    (None, b' ' | b'\t' | b';') if digits > 0 => Self::Extension(size),
                    _ => return Step::Bad,
                },
                (Self::Extension(size), b'\r') => Self::SizeLf(size),
                (Self::Extension(_) | Self::Trailer(_), b'\n') => return Step::Bad,
                (Self::Extension(size), _) => Self::Extension(size),
                (Self::SizeLf(0), b'\n') => Self::Trailer(true),
                (Self::SizeLf(size), b'\n') => Self::Data(size),
                (Self::DataCr, b'\r') => Self::DataLf,
                (Self::DataLf, b'\n') => Self::Size(0, 0),
                (Self::Trailer(is_blank), b'\r') => Self::TrailerLf(is_blank),
                (Self::Trailer(_), _) => Self::Trailer(false),
                (Self::TrailerLf(true), b'\n') => return Step::End(rest),
                (Self::TrailerLf(false), b'\n') => Self::Trailer(true),
                _ => return Step::Bad,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::BodyKind::{Chunked, Length, None};
    use super::{BodyKind, Tracker};

    const GOOD: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const BAD: &str = "GET / HTTP/1.1\r\nX: a\nHost: a\r\n\r\n";

    fn verdicts(bytes: &str, bodies: &[BodyKind]) -> Vec<bool> {
        let mut tracker = Tracker::default();
        tracker.received(bytes.as_bytes());
        bodies.iter().map(|body| tracker.begin_body(*body)).collect()
    }

    #[test]
    fn a_bare_line_feed_is_found_in_the_head_that_has_it() {
        for (requests, bodies, expected) in [
            (&[GOOD][..], &[None][..], &[true][..]),
            (&[BAD], &[None], &[false]),
            (&["GET / HTTP/1.1\nHost: a\n\n"], &[None], &[false]),
            (&["GET / HTTP/1.1\r\nHost: a\r\n\n"], &[None], &[false]),
            (&["\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"], &[None], &[false]),
            (&["\r\n\r\n", GOOD, BAD], &[None; 2], &[true, false]),
            (&[GOOD, GOOD, BAD, GOOD], &[None; 4], &[true, true, false, false]),
            // A body may hold anything, and does not hide what is behind it.
            (&[GOOD, "{\n}\n"], &[Length(4)], &[true]),
            (&[GOOD, "{\n}\n", GOOD], &[Length(4), None], &[true, true]),
            (&[GOOD, "{\n}\n", BAD], &[Length(4), None], &[true, false]),
            (&[GOOD, "2\r\n\n\n\r\n0\r\n\r\n", BAD], &[Chunked, None], &[true, false]),
            // Where the two do not agree.
            (&[GOOD, "abc"], &[None, None], &[true, false]),
        ] {
            assert_eq!(verdicts(&requests.concat(), bodies), expected, "{requests:?}");
        }
    }

    #[test]
    fn chunks_are_read_as_everybody_reads_them() {
        for (chunks, is_good) in [
            ("3\r\nabc\r\n0\r\n\r\n", true),
            ("3;x=\"y\"\r\na\nc\r\n000\r\nT: 1\r\nU: 2\r\n\r\n", true),
            ("A \t;x\r\n0123456789\r\n0\r\n\r\n", true),
            ("3\r\nab", true),
            ("3\nabc\r\n0\r\n\r\n", false),
            ("3\r\nabc\n0\r\n\r\n", false),
            ("3\r\nabcd\r\n0\r\n\r\n", false),
            ("3;a\nb\r\nabc\r\n0\r\n\r\n", false),
            ("3\r\nabc\r\n0\r\n\nGET", false),
            ("3\r\nabc\r\n0\r\nT: 1\n\r\n", false),
            ("3\r\nabc\r\n0\r\nT: 1\r\n\n", false),
            ("3\r\nabc\r\n0\r\nT: 1\r\r\n", false),
            ("00000000000000003\r\nabc", false),
            ("\r\n", false),
        ] {
            assert_eq!(verdicts(&[GOOD, chunks].concat(), &[Chunked]), [is_good], "{chunks:?}");
            let mut later = Tracker::default();
            later.received(GOOD.as_bytes());
            assert!(later.begin_body(Chunked));
            later.received(chunks.as_bytes());
            assert_eq!(later.has_bad_body(), !is_good, "{chunks:?}");
        }
    }

    /// Also where it comes together with the end of the body.
    #[test]
    fn what_is_behind_a_long_body_is_looked_at() {
        for (behind, body, expected) in [
            (GOOD, None, true),
            (BAD, None, false),
            ([GOOD, "3\r\nabc\r\n0\r\nT: 1\r\n\r\n"].concat().as_str(), Chunked, true),
            ([GOOD, "3\r\nabc\r\n0\r\nT: 1\n\nGET"].concat().as_str(), Chunked, false),
        ] {
            let mut tracker = Tracker::default();
            tracker.received([GOOD, "begin"].concat().as_bytes());
            assert!(tracker.begin_body(Length(100)));
            assert_eq!(tracker.may_skip(), 95);
            tracker.skipped(90);
            tracker.received(["12345", behind].concat().as_bytes());
            assert_eq!(tracker.may_skip(), 0);
            assert_eq!(tracker.begin_body(body), expected, "{behind:?}");
        }
    }

    proptest! {
        #[test]
        fn where_reads_end_makes_no_difference(
            lines in proptest::collection::vec("[a-c]{0,3}(\r\n|\r\n|\r\n|\n|\r)|2\r\nab\r\n|0\r\n", 0..12),
            cuts in proptest::collection::vec(1_usize..7, 1..20),
            is_chunked in any::<bool>(),
        ) {
            let text = if is_chunked { [GOOD, &lines.concat()].concat() } else { lines.concat() };
            let body = if is_chunked { Chunked } else { None };
            let expected = verdicts(&text, &[body]);
            let mut tracker = Tracker::default();
            let (mut rest, mut cuts) = (text.as_bytes(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                tracker.received(now);
                rest = later;
            }
            prop_assert_eq!(vec![tracker.begin_body(body)], expected);
        }

        #[test]
        fn any_bytes_are_survived(
            reads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 0..10),
            lengths in proptest::collection::vec(0_u64..40, 0..10),
        ) {
            let mut tracker = Tracker::default();
            for (read, length) in reads.iter().zip(&lengths) {
                tracker.received(read);
                let _clear = tracker.begin_body(if length % 3 == 0 { Chunked } else { Length(*length) });
                tracker.skipped(length % 7);
            }
        }
    }
}
