//! Looks at the bytes of request heads on their way to hyper, which takes a line feed alone for the end
//! of a line (RFC 9112 2.2 allows that). Whoever stands before or behind a proxy may not: a value
//! with such a byte in it would be one header to them and two to us. Checks, and reads nothing
//! differently: where heads begin and end is known from lines that both agree about.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// No head.
const NONE: u32 = u32::MAX;

/// Counts heads in a stream of nothing but heads, up to the first that has a bare line feed.
#[derive(Debug)]
pub(super) struct Scanner {
    /// Heads that are complete.
    heads: u32,
    /// Bytes of the line that is not complete.
    carried: usize,
    /// The last of them is a carriage return.
    ends_in_cr: bool,
    /// Nothing of the current head has come but empty lines, which may precede it.
    is_fresh: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { heads: 0, carried: 0, ends_in_cr: false, is_fresh: true }
    }
}

impl Scanner {
    /// The number of the head that `bytes` bring a bare line feed for.
    fn scan(&mut self, bytes: &[u8]) -> Option<u32> {
        let mut rest = bytes;
        while let Some(at) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(at);
            if !line.last().map_or(self.ends_in_cr, |byte| *byte == b'\r') {
                return Some(self.heads);
            }
            let is_blank = self.carried + line.len() == 1;
            if is_blank && !self.is_fresh {
                self.heads += 1;
            }
            self.is_fresh = is_blank;
            self.carried = 0;
            self.ends_in_cr = false;
            rest = after.get(1..).unwrap_or_default();
        }
        if let Some(last) = rest.last() {
            self.carried = self.carried.saturating_add(rest.len());
            self.ends_in_cr = *last == b'\r';
        }
        None
    }
}

/// What is known of the heads on a connection; written by its own task only.
#[derive(Debug)]
pub(super) struct Heads {
    /// Number of the head with a bare line feed.
    bad: AtomicU32,
    /// Heads that hyper has parsed.
    parsed: AtomicU32,
    /// A body has come: nobody but hyper knows what of the bytes is a head.
    is_lost: AtomicBool,
}

impl Default for Heads {
    fn default() -> Self {
        let (bad, parsed) = (AtomicU32::new(NONE), AtomicU32::new(0));
        Self { bad, parsed, is_lost: AtomicBool::new(false) }
    }
}

impl Heads {
    /// Whether bytes are to be looked at.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// hyper waits for a head: what comes now is one, at least up to its end.
    pub(super) fn begin(&self, scanner: &mut Scanner) {
        *scanner = Scanner::default();
        self.bad.store(NONE, Ordering::Relaxed);
        self.parsed.store(0, Ordering::Relaxed);
        self.is_lost.store(false, Ordering::Relaxed);
    }

    /// Bytes of heads came in.
    pub(super) fn received(&self, scanner: &mut Scanner, bytes: &[u8]) {
        if self.bad.load(Ordering::Relaxed) == NONE
            && let Some(number) = scanner.scan(bytes)
        {
            self.bad.store(number, Ordering::Relaxed);
        }
    }

    /// hyper has parsed a head; whether its lines end as they should. What follows a head with a
    /// body is looked at again once hyper waits for the next one.
    pub(super) fn take(&self, has_body: bool) -> bool {
        if self.is_lost() {
            return true;
        }
        let number = self.parsed.load(Ordering::Relaxed);
        self.parsed.store(number.saturating_add(1), Ordering::Relaxed);
        self.is_lost.store(has_body, Ordering::Relaxed);
        self.bad.load(Ordering::Relaxed) > number
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Heads, Scanner};

    const GOOD: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    fn verdicts(reads: &[&str], bodies: &[bool]) -> Vec<bool> {
        let (heads, mut scanner) = (Heads::default(), Scanner::default());
        heads.begin(&mut scanner);
        for read in reads {
            heads.received(&mut scanner, read.as_bytes());
        }
        bodies.iter().map(|has_body| heads.take(*has_body)).collect()
    }

    #[test]
    fn a_bare_line_feed_is_found_in_the_head_that_has_it() {
        let bad = "GET / HTTP/1.1\r\nX: a\nHost: a\r\n\r\n";
        for (reads, bodies, expected) in [
            (&[GOOD][..], &[false][..], &[true][..]),
            (&[bad], &[false], &[false]),
            (&["GET / HTTP/1.1\nHost: a\n\n"], &[false], &[false]),
            (&["GET / HTTP/1.1\r\nHost: a\r\n\n"], &[false], &[false]),
            (&["\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"], &[false], &[false]),
            (&["\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", bad], &[false; 2], &[true, false]),
            (&[GOOD, GOOD, bad, GOOD], &[false; 4], &[true, true, false, false]),
            // A body may hold anything.
            (&[GOOD, "{\n}\n"], &[true], &[true]),
        ] {
            assert_eq!(verdicts(reads, bodies), expected, "{reads:?}");
        }
    }

    #[test]
    fn heads_behind_a_body_are_looked_at_once_they_are_waited_for() {
        let (heads, mut scanner) = (Heads::default(), Scanner::default());
        heads.begin(&mut scanner);
        heads.received(&mut scanner, GOOD.as_bytes());
        assert!(heads.take(true) && heads.is_lost());
        heads.begin(&mut scanner);
        heads.received(&mut scanner, b"GET / HTTP/1.1\n\n");
        assert!(!heads.take(false));
    }

    proptest! {
        #[test]
        fn where_reads_end_makes_no_difference(
            lines in proptest::collection::vec("[a-c]{0,3}(\r\n|\r\n|\r\n|\n|\r)", 0..12),
            cuts in proptest::collection::vec(1_usize..7, 1..20),
        ) {
            let text = lines.concat();
            let mut whole = Scanner::default();
            let expected = whole.scan(text.as_bytes());
            let mut scanner = Scanner::default();
            let (mut rest, mut cuts) = (text.as_bytes(), cuts.iter().cycle());
            let mut found = None;
            while !rest.is_empty() && found.is_none() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                found = scanner.scan(now);
                rest = later;
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(expected.is_some(), text.replace("\r\n", "").contains('\n'));
        }
    }
}
