//! What counts as an answer, and how to show one that does not. Pure but for reading a body.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use thiserror::Error;

/// Bytes of an answer that go into a message.
const SEEN: usize = 200;

/// Why the body of a 200 is not Marathon's.
#[derive(Debug, Error)]
pub enum NotAnswer {
    /// Marathon up to 0.8.2 does that when it cannot reach its leader.
    #[error("answered 200 with an empty body; is there a leader?")]
    Empty,
    /// HTML, text, another kind of JSON, or JSON that breaks off.
    #[error("answered 200 but not with a JSON object ({source}): {seen}")]
    NotJson {
        /// The beginning of the body.
        seen: String,
        /// Where reading ended.
        source: serde_json::Error,
    },
}

/// Whether `body` is one JSON object from beginning to end.
///
/// The content type does not help: it is `application/json; qs=2` in some versions, and what stands
/// before Marathon writes what it likes. Reading it all costs a pass over the bytes, and is how a body
/// that was cut off becomes the business of the next endpoint.
pub(super) fn check_object(body: &[u8]) -> Result<(), NotAnswer> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(NotAnswer::Empty);
    }
    serde_json::from_slice::<Object>(body)
        .map(|Object| ())
        .map_err(|source| NotAnswer::NotJson { seen: seen(body), source })
}

/// A JSON object, thrown away while it is read.
struct Object;

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for Object {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self)
    }
}

/// The beginning of `body` in one printable line.
pub(super) fn seen(body: &[u8]) -> String {
    let start = body.get(..SEEN).unwrap_or(body);
    let text = String::from_utf8_lossy(start);
    let mut line = String::with_capacity(SEEN);
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        for letter in word.chars() {
            // Also the marks that turn the direction of writing: what is logged is read by people.
            let is_shown = !letter.is_control()
                && !matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            line.push(if is_shown { letter } else { '\u{fffd}' });
        }
    }
    if line.is_empty() {
        return "(nothing)".to_owned();
    }
    if body.len() > SEEN {
        line.push('…');
    }
    line
}

/// The first bytes of a body, at least `limit` if there are as many, at most one read more.
pub(super) async fn read_up_to(
    response: &mut reqwest::Response,
    limit: usize,
) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() < limit {
        let Some(chunk) = response.chunk().await? else {
            break;
        };
        body.extend_from_slice(&chunk);
    }
    body.truncate(limit);
    Ok(body)
}

/// `error` with all its causes in one line.
pub(super) struct Chain<'a>(pub(super) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some libraries repeat the text of the cause in their own.
            if !last.ends_with(&text) {
                f.write_str(": ")?;
                f.write_str(&text)?;
            }
            last = text;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_whole_json_object_is_an_answer() {
        for (body, is_object) in [
            (r#"{"apps":[]}"#, true),
            (" {} \r\n", true),
            (r#"{"message":"no"}"#, true),
            (r#"{"apps":[{"id":"/a"}"#, false),
            (r#"{"apps":[]} trailing"#, false),
            ("[]", false),
            ("null", false),
            ("\"pong\"", false),
            ("<html><body>Moved</body></html>", false),
            ("", false),
            ("\r\n", false),
        ] {
            assert_eq!(check_object(body.as_bytes()).is_ok(), is_object, "{body:?}");
        }
        let error = check_object(b"<html>\n<b>\x1b[31mno").unwrap_err().to_string();
        assert!(error.ends_with(": <html> <b>\u{fffd}[31mno"), "{error}");
        assert!(check_object(b"").unwrap_err().to_string().contains("empty body"));
    }

    #[test]
    fn deeply_nested_json_does_not_overflow_the_stack() {
        let body = format!("{{\"a\":{}", "[".repeat(1 << 20));
        assert!(check_object(body.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn what_was_seen_is_one_short_line(body: Vec<u8>) {
            let line = seen(&body);
            prop_assert!(!line.contains(char::is_control) && line.chars().count() <= SEEN + 1);
        }
    }
}
