//! Short texts without an allocation.

use std::fmt;

/// A text of at most `N` bytes, which is below 256.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) struct InlineText<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> InlineText<N> {
    /// What `value` is written as. What is beyond `N` bytes is cut off.
    pub(super) fn of(value: impl fmt::Display) -> Self {
        let mut text = Self::default();
        let written = fmt::Write::write_fmt(&mut text, format_args!("{value}"));
        debug_assert!(written.is_ok(), "{value} is longer than {N} bytes");
        text
    }

    /// The number in decimal digits, as [`of`](Self::of) in fewer instructions.
    pub(super) fn of_number(number: u16) -> Self {
        let mut text = Self::default();
        let written = fmt::Write::write_str(&mut text, itoa::Buffer::new().format(number));
        debug_assert!(written.is_ok(), "{number} is longer than {N} bytes");
        text
    }

    /// Its bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl<const N: usize> Default for InlineText<N> {
    fn default() -> Self {
        const { assert!(N < 256) };
        Self { len: 0, bytes: [0; N] }
    }
}

impl<const N: usize> fmt::Write for InlineText<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let start = usize::from(self.len);
        let room = self.bytes.get_mut(start..start + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = u8::try_from(start + text.len()).map_err(|_beyond| fmt::Error)?;
        Ok(())
    }
}

impl<const N: usize> fmt::Debug for InlineText<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::InlineText;

    #[test]
    fn text_that_does_not_fit_is_an_error() {
        let text = InlineText::<5>::of_number(65_535);
        assert_eq!(text.as_bytes(), b"65535");
        let mut text = InlineText::<5>::of(655);
        assert!(text.write_str("350").is_err());
        assert_eq!(text.as_bytes(), b"655");
        assert!(text.write_str("35").is_ok());
        assert_eq!(format!("{text:?}"), "\"65535\"");
    }
}
