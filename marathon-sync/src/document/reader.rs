//! Reads single fields, and keeps the problems that it meets.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{MAX_PROBLEMS, Problem};

/// A field as it stands in the document; `None` when it is missing or `null`.
pub(super) type Raw<'a> = Option<&'a RawValue>;

/// Complaints hold at most this many characters of what Marathon sent.
const MAX_REASON: usize = 200;

/// Where we are in the document, and what was wrong so far.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
    pub(super) left_out: usize,
    pub(super) app: String,
    pub(super) task: Option<String>,
    /// First vital field of the current app or task that could not be read.
    pub(super) broken: Option<String>,
}

impl Reader {
    /// Notes that `field` of the current app or task could not be read.
    pub(super) fn complain(&mut self, field: &'static str, reason: &str) {
        if self.problems.len() >= MAX_PROBLEMS {
            self.left_out += 1;
            return;
        }
        self.problems.push(Problem {
            app: self.app.clone(),
            task: self.task.clone(),
            field,
            reason: shorten(reason),
        });
    }

    /// The same for a field without which the app or task cannot be routed.
    pub(super) fn complain_vital(&mut self, field: &'static str, reason: &str) {
        self.complain(field, reason);
        if self.broken.is_none() {
            self.broken = Some(format!("`{field}`: {}", shorten(reason)));
        }
    }

    /// A field without which nothing goes wrong.
    pub(super) fn minor<'a, T: Deserialize<'a>>(
        &mut self,
        field: &'static str,
        raw: Raw<'a>,
    ) -> Option<T> {
        value(raw).unwrap_or_else(|reason| {
            self.complain(field, &reason);
            None
        })
    }

    /// A field without which the app or task cannot be routed.
    pub(super) fn vital<'a, T: Deserialize<'a>>(
        &mut self,
        field: &'static str,
        raw: Raw<'a>,
    ) -> Option<T> {
        value(raw).unwrap_or_else(|reason| {
            self.complain_vital(field, &reason);
            None
        })
    }

    /// A vital object, read by `T`'s named fields only.
    pub(super) fn object<'a, T: Deserialize<'a>>(
        &mut self,
        field: &'static str,
        raw: Raw<'a>,
    ) -> Option<T> {
        let raw = raw.filter(|raw| !is_empty(raw))?;
        object(raw).map_err(|reason| self.complain_vital(field, &reason)).ok()
    }

    /// The entries of a vital list.
    pub(super) fn list<'a>(&mut self, field: &'static str, raw: Raw<'a>) -> Vec<&'a RawValue> {
        self.vital(field, raw).unwrap_or_default()
    }

    /// A list of texts; entries that are none are left out.
    pub(super) fn texts(&mut self, field: &'static str, raw: Raw<'_>) -> Vec<String> {
        let entries = self.list(field, raw);
        entries.into_iter().filter_map(|entry| self.vital(field, Some(entry))).collect()
    }

    /// A list of ports whose positions matter.
    pub(super) fn ports(&mut self, field: &'static str, raw: Raw<'_>) -> Vec<Option<u16>> {
        let entries = self.list(field, raw);
        // Not collected: that would keep the room of the entries, and there is a list for each task.
        let mut ports = Vec::with_capacity(entries.len());
        ports.extend(entries.into_iter().map(|entry| self.vital(field, Some(entry))));
        ports
    }
}

/// Reads an object. A derived struct would take an array as well, by position.
pub(super) fn object<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, String> {
    if !raw.get().starts_with('{') {
        return Err("not an object".to_owned());
    }
    serde_json::from_str(raw.get()).map_err(|error| error.to_string())
}

fn value<'a, T: Deserialize<'a>>(raw: Raw<'a>) -> Result<Option<T>, String> {
    match raw {
        Some(raw) if !is_empty(raw) => {
            serde_json::from_str(raw.get()).map(Some).map_err(|error| error.to_string())
        }
        _ => Ok(None),
    }
}

/// `null`, `[]` and `{}`, which say as little as a missing key.
pub(super) fn is_empty(raw: &RawValue) -> bool {
    let text = raw.get();
    let inside = |open, close| text.strip_prefix(open)?.strip_suffix(close);
    text == "null"
        || inside('[', ']').or_else(|| inside('{', '}')).is_some_and(|rest| rest.trim().is_empty())
}

/// At most [`MAX_REASON`] characters, without control characters: the text goes into logs.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String =
        text.chars().take(MAX_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX_REASON).is_some() {
        short.push('…');
    }
    short
}
