//! Field lines (RFC 9112 5) as ranges of the buffer that they were read into.

use super::known::{FieldSet, KnownField};

/// A part of a buffer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// From `start` up to `end`. Buffers are far below 4 GiB; what is not is no part of them.
    pub(super) fn new(start: usize, end: usize) -> Self {
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { start: narrow(start), end: narrow(end) }
    }

    /// Where `part` is in `buf`, which it was taken from. What is no part of it is located nowhere in it.
    pub fn locate(buf: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(buf.as_ptr().addr());
        Self::new(start, start.saturating_add(part.len()))
    }

    /// These bytes of `buf`.
    pub fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start()..self.end()).unwrap_or_default()
    }

    /// Where it begins.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Behind its last byte.
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// Bytes.
    pub fn len(self) -> usize {
        self.end().saturating_sub(self.start())
    }

    /// Whether there is no byte.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A field line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field {
    name_start: u32,
    value_start: u32,
    value_end: u32,
    name_len: u16,
    /// What the name means.
    pub known: KnownField,
    /// The line is exactly `name: value` and CRLF, so that it may be copied as it is.
    is_plain: bool,
}

impl Field {
    /// The name, as it was written.
    pub fn name(self) -> Span {
        Span { start: self.name_start, end: self.name_start + u32::from(self.name_len) }
    }

    /// The value, without the blanks around it.
    pub fn value(self) -> Span {
        Span { start: self.value_start, end: self.value_end }
    }

    /// The whole line with its end, if it is in the form that the router writes itself.
    pub(super) fn plain_line(self) -> Option<Span> {
        let end = self.value_end + 2;
        self.is_plain.then_some(Span { start: self.name_start, end })
    }
}

/// The fields of a head, in the order they came in.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    list: Vec<Field>,
    present: FieldSet,
}

impl Fields {
    /// Every field.
    pub fn iter(&self) -> impl Iterator<Item = Field> {
        self.list.iter().copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Which known fields there are.
    pub fn present(&self) -> FieldSet {
        self.present
    }

    /// The values of every line of this field.
    pub fn values<'a>(
        &self,
        known: KnownField,
        buf: &'a [u8],
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let list = if self.present.contains(known) { &self.list[..] } else { &[] };
        list.iter().filter(move |field| field.known == known).map(|field| field.value().of(buf))
    }

    /// The value of the first line of this field.
    pub fn value<'a>(&self, known: KnownField, buf: &'a [u8]) -> Option<&'a [u8]> {
        self.values(known, buf).next()
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.present = FieldSet::EMPTY;
    }

    /// Takes over what `httparse` has found in `buf`. The flag says whether every line behind the start
    /// line, and that line itself, ended in CRLF.
    pub(super) fn fill(
        &mut self,
        buf: &[u8],
        parsed: &[httparse::Header<'_>],
    ) -> Result<bool, NameTooLong> {
        self.list.reserve(parsed.len());
        let mut ends_in_crlf = true;
        for header in parsed {
            let name = Span::locate(buf, header.name.as_bytes());
            let value = Span::locate(buf, header.value);
            let name_len = u16::try_from(name.len()).map_err(|_beyond| NameTooLong)?;
            // The byte before a name is the line feed of the line above.
            ends_in_crlf &= buf.get(name.start().wrapping_sub(2)) == Some(&b'\r');
            let between = buf.get(name.end()..value.start());
            let behind = buf.get(value.end()..value.end() + 2);
            let known = KnownField::of(header.name.as_bytes());
            self.present.insert(known);
            self.list.push(Field {
                name_start: name.start,
                value_start: value.start,
                value_end: value.end,
                name_len,
                known,
                is_plain: matches!(between, Some([b':', b' ']))
                    && matches!(behind, Some([b'\r', b'\n'])),
            });
        }
        Ok(ends_in_crlf)
    }
}

/// A name beyond 64 KiB.
pub(super) struct NameTooLong;
