//! Finds the line of a key in a JSON text, so that errors can name it.

use std::iter::Peekable;
use std::str::CharIndices;

/// The 1-based line on which the value at `path` begins (`["http", "bind", "0"]`; list items by
/// their number), or of its nearest parent that is there. Tolerates wrong JSON: then line 1.
pub(super) fn line_of(text: &str, path: &[&str]) -> usize {
    let mut scanner = Scanner { chars: text.char_indices().peekable(), line: 1, found: 1 };
    let _end = scanner.value(Some(path));
    scanner.found
}

struct Scanner<'a> {
    chars: Peekable<CharIndices<'a>>,
    line: usize,
    found: usize,
}

/// The text ended, or is no JSON: stop scanning.
struct Stop;

impl Scanner<'_> {
    fn next(&mut self) -> Result<char, Stop> {
        let (_, c) = self.chars.next().ok_or(Stop)?;
        if c == '\n' {
            self.line += 1;
        }
        Ok(c)
    }

    fn peek(&mut self) -> Result<char, Stop> {
        while self.chars.peek().is_some_and(|(_, c)| c.is_ascii_whitespace()) {
            self.next()?;
        }
        self.chars.peek().map(|(_, c)| *c).ok_or(Stop)
    }

    fn string(&mut self) -> Result<String, Stop> {
        if self.next()? != '"' {
            return Err(Stop);
        }
        let mut content = String::new();
        loop {
            match self.next()? {
                '"' => return Ok(content),
                '\\' => {
                    content.push('\\');
                    content.push(self.next()?);
                }
                c => content.push(c),
            }
        }
    }

    /// Reads one value. `path` is what is left of the wanted one when this value is on its way.
    fn value(&mut self, path: Option<&[&str]>) -> Result<(), Stop> {
        let first = self.peek()?;
        if path.is_some() {
            self.found = self.line;
            if path.is_some_and(<[&str]>::is_empty) {
                return Err(Stop);
            }
        }
        match first {
            '{' | '[' => self.container(path, first == '['),
            '"' => self.string().map(|_content| ()),
            _ => {
                while !matches!(self.peek()?, ',' | ']' | '}') {
                    self.next()?;
                }
                Ok(())
            }
        }
    }

    fn container(&mut self, path: Option<&[&str]>, is_list: bool) -> Result<(), Stop> {
        self.next()?;
        let mut index = 0_usize;
        loop {
            match self.peek()? {
                ']' | '}' => {
                    self.next()?;
                    return Ok(());
                }
                ',' => {
                    self.next()?;
                    continue;
                }
                _ => {}
            }
            let name = if is_list { index.to_string() } else { self.string()? };
            index += 1;
            let inner = match path.and_then(<[&str]>::split_first) {
                Some((wanted, rest)) if *wanted == name => {
                    self.found = self.line;
                    Some(rest)
                }
                _ => None,
            };
            if !is_list && self.peek()? == ':' {
                self.next()?;
            }
            self.value(inner)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::line_of;

    const TEXT: &str = r#"{
  "server": {
    "a\"}": [1, 2],
    "workers":
      10,
    "lruCache": {"size": 1,
                 "ttl": 2}
  },
  "http": {"bind": ["127.0.0.1",
     {"address": "::1"}]}
}"#;

    #[test]
    fn keys_are_found_on_their_lines() {
        for (path, line) in [
            (&[][..], 1),
            (&["server"], 2),
            (&["server", "workers"], 5),
            (&["server", "lruCache", "ttl"], 7),
            (&["http", "bind", "1"], 10),
            (&["http", "bind", "1", "address"], 10),
            // The nearest parent when the key is not there.
            (&["server", "nothing"], 2),
            (&["nothing"], 1),
        ] {
            assert_eq!(line_of(TEXT, path), line, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[{}\\[\\]\",:a\\\\ \n]{0,60}") {
            let _line = line_of(&text, &["a", "0", ""]);
        }
    }
}
