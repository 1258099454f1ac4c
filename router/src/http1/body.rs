//! Bodies on their way (RFC 9112 6 and 7): which of the bytes that were read are handed on, and where
//! the body ends.

use super::chunked::Chunked;
use super::error::BodyError;
use super::framing::BodyKind;
use super::trailers::Trailers;

/// In which form a body is handed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Output {
    /// As chunks where it came as chunks: their bytes pass unchanged, but for extensions, which concern one
    /// hop (RFC 9112 7.1.1) and are left out.
    Chunks,
    /// The content alone.
    Content,
}

/// What one call of [`Decoder::decode`] found in its input.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Decoded {
    /// Bytes at the beginning of the input that go no further.
    pub skipped: usize,
    /// Bytes behind those, to be handed on as they are.
    pub passed: usize,
    /// How many of the bytes that are handed on are content.
    pub content: usize,
    /// Whether the body is over.
    pub end: End,
}

impl Decoded {
    /// Bytes of the input that are done with.
    pub fn consumed(&self) -> usize {
        self.skipped + self.passed
    }

    /// The bytes to hand on.
    pub fn data<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        input.get(self.skipped..self.consumed()).unwrap_or_default()
    }
}

/// The end of a body.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum End {
    /// Not yet: there is more in the input, or to be read.
    #[default]
    No,
    /// The body is over. As [`Output::Chunks`] its last chunk and the empty line have been handed on.
    Complete,
    /// The body is over, but for [`Decoder::trailers`]. As [`Output::Chunks`] its last chunk has been handed
    /// on, and the caller writes the trailers and the empty line
    /// ([`encode::trailers`](super::encode::trailers)).
    Trailers,
}

/// Finds the end of a body.
#[derive(Debug, Default)]
pub enum Decoder {
    /// Chunks are expected.
    Chunked(Chunked),
    /// The body is over, or there is none.
    #[default]
    Done,
    /// So many bytes are expected.
    Length(u64),
    /// The body ends with the connection.
    UntilClose,
}

impl Decoder {
    /// For the body that a head announced.
    pub fn new(kind: BodyKind) -> Self {
        match kind {
            BodyKind::None | BodyKind::Length(0) => Self::Done,
            BodyKind::Length(length) => Self::Length(length),
            BodyKind::Chunked => Self::Chunked(Chunked::default()),
            BodyKind::UntilClose => Self::UntilClose,
        }
    }

    /// Reads a part of the body: some bytes that go no further, then some to be handed on. To be called
    /// again with the rest of the input until the body ends or the input does. The output is the same
    /// for all of a body.
    ///
    /// # Errors
    ///
    /// When the chunks are malformed. What came before is reported first, and the error for good.
    pub fn decode(&mut self, input: &[u8], output: Output) -> Result<Decoded, BodyError> {
        let decoded = match self {
            Self::Done => Decoded { end: End::Complete, ..Decoded::default() },
            Self::UntilClose => {
                Decoded { passed: input.len(), content: input.len(), ..Decoded::default() }
            }
            Self::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= length as u64;
                let end = if *left == 0 { End::Complete } else { End::No };
                Decoded { skipped: 0, passed: length, content: length, end }
            }
            Self::Chunked(chunked) => chunked.decode(input, output)?,
        };
        if decoded.end == End::Complete {
            *self = Self::Done;
        }
        Ok(decoded)
    }

    /// Notes that `count` bytes of a body of known length were handed on without being shown here.
    pub fn pass(&mut self, count: u64) {
        if let Self::Length(left) = self {
            debug_assert!(count <= *left, "bytes beyond the body");
            *left = left.saturating_sub(count);
            if *left == 0 {
                *self = Self::Done;
            }
        }
    }

    /// Whether nothing more is expected.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Chunked(chunked) => chunked.is_done(),
            Self::Done => true,
            Self::Length(_) | Self::UntilClose => false,
        }
    }

    /// Bytes that are still to come, where that is known.
    pub fn announced(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// The trailers of a body that ended with some.
    pub fn trailers(&self) -> Option<&Trailers> {
        match self {
            Self::Chunked(chunked) if chunked.is_done() => Some(chunked.trailers()),
            _ => None,
        }
    }

    /// The connection has ended.
    ///
    /// # Errors
    ///
    /// When the body is cut short by that (RFC 9112 8).
    pub fn end_of_connection(&mut self) -> Result<(), BodyError> {
        match self {
            Self::UntilClose => {
                *self = Self::Done;
                Ok(())
            }
            _ if self.is_done() => Ok(()),
            _ => Err(BodyError::Cut),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::{BodyError, BodyKind, Decoder, End, Output};

    /// What a whole body turned out to be.
    #[derive(Debug, Eq, PartialEq)]
    pub(in crate::http1) struct Outcome {
        pub(in crate::http1) data: Vec<u8>,
        pub(in crate::http1) content: usize,
        /// Bytes of the input that belong to the body.
        pub(in crate::http1) consumed: usize,
        pub(in crate::http1) end: Result<End, BodyError>,
        pub(in crate::http1) trailers: Vec<u8>,
    }

    /// Decodes `input`, which is read in pieces that end at `cuts`.
    pub(in crate::http1) fn decode(
        kind: BodyKind,
        input: &[u8],
        output: Output,
        cuts: &[usize],
    ) -> Outcome {
        let mut decoder = Decoder::new(kind);
        let mut outcome = Outcome {
            data: Vec::new(),
            content: 0,
            consumed: 0,
            end: Ok(End::No),
            trailers: Vec::new(),
        };
        for end in cuts.iter().copied().chain([input.len()]) {
            while outcome.consumed < end {
                let piece = &input[outcome.consumed..end];
                match decoder.decode(piece, output) {
                    Ok(decoded) => {
                        assert!(decoded.consumed() > 0 || decoded.end != End::No, "no progress");
                        assert!(decoded.content <= decoded.passed);
                        outcome.data.extend_from_slice(decoded.data(piece));
                        outcome.content += decoded.content;
                        outcome.consumed += decoded.consumed();
                        outcome.end = Ok(decoded.end);
                    }
                    Err(error) => {
                        assert_eq!(decoder.decode(piece, output), Err(error), "an error is final");
                        outcome.end = Err(error);
                        outcome.consumed = 0;
                    }
                }
                if outcome.end != Ok(End::No) {
                    if let Some(trailers) = decoder.trailers() {
                        trailers.write(&mut outcome.trailers);
                    }
                    assert_eq!(decoder.is_done(), outcome.end.is_ok());
                    return outcome;
                }
            }
        }
        outcome
    }

    /// RFC 9112 6.2, 6.3.
    #[test]
    fn lengths_are_counted_and_what_is_behind_is_left() {
        let seen = decode(BodyKind::Length(3), b"abcdef", Output::Content, &[]);
        assert_eq!(
            (seen.data.as_slice(), seen.consumed, seen.end),
            (&b"abc"[..], 3, Ok(End::Complete))
        );
        let mut none = Decoder::new(BodyKind::Length(0));
        assert!(none.is_done() && none.end_of_connection().is_ok());
        assert_eq!(none.decode(b"abc", Output::Content).unwrap().consumed(), 0);
        let mut cut = Decoder::new(BodyKind::Length(3));
        cut.decode(b"ab", Output::Content).unwrap();
        assert_eq!(cut.announced(), Some(1));
        assert_eq!(cut.end_of_connection(), Err(BodyError::Cut));
    }

    #[test]
    fn bytes_that_pass_unseen_are_counted() {
        let mut decoder = Decoder::new(BodyKind::Length(5));
        decoder.decode(b"ab", Output::Content).unwrap();
        decoder.pass(2);
        assert_eq!((decoder.announced(), decoder.is_done()), (Some(1), false));
        assert_eq!(decoder.end_of_connection(), Err(BodyError::Cut));
        let mut decoder = Decoder::new(BodyKind::Length(5));
        decoder.pass(5);
        assert!(decoder.is_done());
    }

    #[test]
    fn a_body_until_close_ends_with_the_connection() {
        let mut decoder = Decoder::new(BodyKind::UntilClose);
        let decoded = decoder.decode(b"abc", Output::Content).unwrap();
        assert_eq!((decoded.passed, decoded.end), (3, End::No));
        assert!(!decoder.is_done());
        assert_eq!(decoder.end_of_connection(), Ok(()));
        assert!(decoder.is_done());
    }

    #[test]
    fn chunks_that_are_cut_short_are_an_error() {
        for cut in
            ["", "3", "3\r\n", "3\r\nab", "3\r\nabc\r\n", "0\r\n", "0\r\n\r", "0\r\nT: 1\r\n"]
        {
            let mut decoder = Decoder::new(BodyKind::Chunked);
            let mut rest = cut.as_bytes();
            while !rest.is_empty() {
                let decoded = decoder.decode(rest, Output::Content).unwrap();
                rest = &rest[decoded.consumed()..];
            }
            assert_eq!(decoder.end_of_connection(), Err(BodyError::Cut), "{cut:?}");
        }
    }

    proptest! {
        #[test]
        fn a_length_has_the_same_content_wherever_reads_end(
            length in 0_u64..40,
            input in proptest::collection::vec(any::<u8>(), 0..60),
            cuts in proptest::collection::vec(0_usize..60, 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut <= input.len()).collect();
            cuts.sort_unstable();
            let whole = decode(BodyKind::Length(length), &input, Output::Chunks, &[]);
            prop_assert_eq!(&decode(BodyKind::Length(length), &input, Output::Content, &cuts), &whole);
            let length = usize::try_from(length).unwrap().min(input.len());
            prop_assert_eq!(&whole.data[..], &input[..length]);
        }
    }
}
