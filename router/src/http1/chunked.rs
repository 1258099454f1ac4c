//! The chunked coding (RFC 9112 7.1), read to the letter:
//!
//! ```text
//! chunk-size [ BWS ] [ ";" extension ] CRLF  content CRLF  …  "0" … CRLF  trailers CRLF
//! ```
//!
//! A size is one to sixteen hexadecimal digits. A line ends in CRLF and nothing else does. Blanks behind
//! a size are taken, since old servers pad with them, and extensions are taken up to a limit; neither is
//! handed on, so that no reader behind us has to agree about them.

use super::body::{Decoded, End, Output};
use super::error::BodyError;
use super::framing::MAX_LENGTH;
use super::trailers::Trailers;

/// Bytes of blanks and extensions in all of a body. RFC 9112 7.1.1 asks for a limit.
const MAX_EXTENSIONS: u32 = 16 * 1024;
/// Digits of a chunk size.
const MAX_DIGITS: u8 = 16;

/// A place in a chunked body.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    /// Bytes of blanks and extensions so far.
    extensions: u32,
    trailers: Trailers,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The size so far and its digits.
    Size(u64, u8),
    /// Blanks behind the size.
    Blank(u64),
    /// Behind the semicolon.
    Extension(u64),
    SizeLf(u64),
    /// Content that is still to come.
    Data(u64),
    DataCr,
    DataLf,
    /// Behind the line of the last chunk.
    Last,
    LastLf,
    Trailers,
    Done,
    Failed(BodyError),
}

impl Default for State {
    fn default() -> Self {
        Self::Size(0, 0)
    }
}

impl Chunked {
    /// Whether the body is over.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(super) fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// See [`Decoder::decode`](super::body::Decoder::decode).
    pub(super) fn decode(&mut self, input: &[u8], output: Output) -> Result<Decoded, BodyError> {
        let mut decoded = Decoded::default();
        loop {
            let rest = input.get(decoded.consumed()..).unwrap_or_default();
            match self.state {
                State::Failed(error) if decoded.consumed() == 0 => return Err(error),
                State::Failed(_) => return Ok(decoded),
                State::Done => {
                    decoded.end =
                        if self.trailers.is_empty() { End::Complete } else { End::Trailers };
                    return Ok(decoded);
                }
                State::Data(left) if !rest.is_empty() => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    decoded.passed += length;
                    decoded.content += length;
                    self.state = match left - length as u64 {
                        0 => State::DataCr,
                        left => State::Data(left),
                    };
                    continue;
                }
                State::Trailers if decoded.passed > 0 => return Ok(decoded),
                State::Trailers => match self.trailers.read(rest) {
                    Ok((length, is_end)) => {
                        decoded.skipped += length;
                        if !is_end {
                            return Ok(decoded);
                        }
                        self.state = State::Done;
                    }
                    Err(error) => self.state = State::Failed(error),
                },
                _ => {
                    let Some(byte) = rest.first() else { return Ok(decoded) };
                    let next = self.state.step(*byte);
                    let is_extension = matches!(next, State::Blank(_) | State::Extension(_));
                    if matches!(next, State::Failed(_) | State::Trailers) {
                        // Not consumed: it is the first byte of the trailers, or of what is wrong.
                        self.state = next;
                        continue;
                    }
                    if output == Output::Chunks && !is_extension {
                        decoded.passed += 1;
                    } else if decoded.passed > 0 {
                        // It goes no further, unlike what is before it: for the next call.
                        return Ok(decoded);
                    } else if is_extension && self.extensions == MAX_EXTENSIONS {
                        self.state = State::Failed(BodyError::ChunkExtension);
                        continue;
                    } else {
                        self.extensions += u32::from(is_extension);
                        decoded.skipped += 1;
                    }
                    self.state = next;
                }
            }
        }
    }
}

impl State {
    /// Where `byte` leads, outside content and trailers.
    fn step(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Size(size, digits), byte) => match (char::from(byte).to_digit(16), byte) {
                (Some(digit), _) if digits < MAX_DIGITS && size <= MAX_LENGTH >> 4 => {
                    Self::Size(size << 4 | u64::from(digit), digits + 1)
                }
                (None, b'\r') if digits > 0 => Self::SizeLf(size),
                (None, b' ' | b'\t') if digits > 0 => Self::Blank(size),
                (None, b';') if digits > 0 => Self::Extension(size),
                _ => Self::Failed(BodyError::ChunkSize),
            },
            (Self::Blank(size) | Self::Extension(size), b'\r') => Self::SizeLf(size),
            (Self::Blank(size), b' ' | b'\t') => Self::Blank(size),
            (Self::Blank(size), b';') => Self::Extension(size),
            (Self::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => Self::Extension(size),
            (Self::Blank(_) | Self::Extension(_), _) => Self::Failed(BodyError::ChunkExtension),
            (Self::SizeLf(0), b'\n') => Self::Last,
            (Self::SizeLf(size), b'\n') => Self::Data(size),
            (Self::SizeLf(_), _) => Self::Failed(BodyError::ChunkSize),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size(0, 0),
            (Self::DataCr | Self::DataLf, _) => Self::Failed(BodyError::ChunkEnd),
            (Self::Last, b'\r') => Self::LastLf,
            (Self::Last, _) => Self::Trailers,
            (Self::LastLf, b'\n') => Self::Done,
            (Self::LastLf, _) => Self::Failed(BodyError::Trailer),
            (state @ (Self::Data(_) | Self::Trailers | Self::Done | Self::Failed(_)), _) => state,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::body::tests::{Outcome, decode};
    use super::super::body::{End, Output};
    use super::super::error::BodyError;
    use super::super::framing::BodyKind::Chunked;
    use super::MAX_EXTENSIONS;

    fn content(input: &str) -> Outcome {
        decode(Chunked, input.as_bytes(), Output::Content, &[])
    }

    fn chunks(input: &str) -> Outcome {
        decode(Chunked, input.as_bytes(), Output::Chunks, &[])
    }

    /// RFC 9112 7.1.
    #[test]
    fn chunks_pass_unchanged_but_for_extensions() {
        for (input, expected_content, expected_chunks) in [
            ("0\r\n\r\n", "", "0\r\n\r\n"),
            ("3\r\nabc\r\n0\r\n\r\n", "abc", "3\r\nabc\r\n0\r\n\r\n"),
            (
                "3\r\na\nc\r\n1\r\n\r\r\n000\r\n\r\n",
                "a\nc\r",
                "3\r\na\nc\r\n1\r\n\r\r\n000\r\n\r\n",
            ),
            ("0000000000000003\r\nabc\r\n0\r\n\r\n", "abc", "0000000000000003\r\nabc\r\n0\r\n\r\n"),
            ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789", "A\r\n0123456789\r\n0\r\n\r\n"),
            ("3;x=\"y;z\"\r\nabc\r\n0;z\r\n\r\n", "abc", "3\r\nabc\r\n0\r\n\r\n"),
            ("3 \t\r\nabc\r\n0 \t; x\r\n\r\n", "abc", "3\r\nabc\r\n0\r\n\r\n"),
        ] {
            let behind = format!("{input}GET");
            let seen = content(&behind);
            assert_eq!(String::from_utf8(seen.data).unwrap(), expected_content, "{input:?}");
            assert_eq!((seen.consumed, seen.end), (input.len(), Ok(End::Complete)), "{input:?}");
            let seen = chunks(&behind);
            assert_eq!(String::from_utf8(seen.data).unwrap(), expected_chunks, "{input:?}");
            assert_eq!((seen.consumed, seen.end), (input.len(), Ok(End::Complete)), "{input:?}");
            assert_eq!(seen.content, expected_content.len());
        }
    }

    #[test]
    fn doubtful_chunks_are_refused() {
        use BodyError::{ChunkEnd, ChunkExtension, ChunkSize, Trailer};
        for (input, expected) in [
            ("\r\n", ChunkSize),
            ("g\r\n", ChunkSize),
            ("0x3\r\nabc\r\n", ChunkSize),
            (" 3\r\nabc\r\n", ChunkSize),
            ("+3\r\nabc\r\n", ChunkSize),
            ("-3\r\nabc\r\n", ChunkSize),
            ("3_0\r\n", ChunkSize),
            (";x\r\nabc\r\n", ChunkSize),
            ("3\nabc\r\n", ChunkSize),
            ("3\r\r\nabc\r\n", ChunkSize),
            ("00000000000000003\r\nabc", ChunkSize),
            ("8000000000000000\r\n", ChunkSize),
            ("ffffffffffffffff\r\n", ChunkSize),
            ("3 x\r\nabc\r\n", ChunkExtension),
            ("3;a\nb\r\nabc\r\n", ChunkExtension),
            ("3;a\0b\r\nabc\r\n", ChunkExtension),
            ("3;a\x7f\r\nabc\r\n", ChunkExtension),
            ("3;a\rb\r\nabc\r\n", ChunkSize),
            ("3\r\nabc\n0\r\n\r\n", ChunkEnd),
            ("3\r\nabcd\r\n", ChunkEnd),
            ("3\r\nabc0\r\n\r\n", ChunkEnd),
            ("3\r\nabc\rx", ChunkEnd),
            ("3\r\nabc\r\n0\r\n\rX", Trailer),
            ("3\r\nabc\r\n0\r\n\n", Trailer),
            ("3\r\nabc\r\n0\r\nT: 1\n\r\n", Trailer),
            ("3\r\nabc\r\n0\r\nT: 1\r\n\n", Trailer),
            ("3\r\nabc\r\n0\r\nT: 1\r\r\n\r\n", Trailer),
            ("3\r\nabc\r\n0\r\nno colon\r\n\r\n", Trailer),
            ("3\r\nabc\r\n0\r\nT : 1\r\n\r\n", Trailer),
            ("3\r\nabc\r\n0\r\n folded: 1\r\n\r\n", Trailer),
            ("3\r\nabc\r\n0\r\nT: a\0b\r\n\r\n", Trailer),
        ] {
            assert_eq!(content(input).end, Err(expected), "{input:?}");
            assert_eq!(chunks(input).end, Err(expected), "{input:?}");
        }
    }

    /// RFC 9112 7.1.1: the total is bounded, also over many chunks.
    #[test]
    fn extensions_are_bounded_in_all() {
        let most = MAX_EXTENSIONS as usize - 1;
        let fits = format!("0;{}\r\n\r\n", "x".repeat(most));
        assert_eq!(content(&fits).end, Ok(End::Complete));
        let one_more = format!("0;{}\r\n\r\n", "x".repeat(most + 1));
        assert_eq!(content(&one_more).end, Err(BodyError::ChunkExtension));
        let many = "1 \r\nx\r\n".repeat(most + 2);
        assert_eq!(content(&many).end, Err(BodyError::ChunkExtension));
    }

    /// RFC 9112 7.1.2.
    #[test]
    fn trailers_are_told_from_the_content() {
        let input = "3\r\nabc\r\n0\r\nX-Sum: 42\r\nHost: evil\r\nx-b:  2 \r\n\r\n";
        for (output, data) in [(Output::Content, "abc"), (Output::Chunks, "3\r\nabc\r\n0\r\n")] {
            let seen = decode(Chunked, input.as_bytes(), output, &[]);
            assert_eq!(seen.data, data.as_bytes());
            assert_eq!((seen.consumed, seen.end), (input.len(), Ok(End::Trailers)));
            assert_eq!(seen.trailers, b"X-Sum: 42\r\nx-b: 2\r\n");
        }
    }

    proptest! {
        /// Also the errors are the same, and what is handed on before them.
        #[test]
        fn reads_may_end_anywhere(
            pieces in proptest::collection::vec(
                "[a-c]{0,3}(\r\n|\r\n|\r\n|\n|\r)|2\r\nab\r\n|3;x\r\nabc\r\n|0\r\n|1 \r\n\n\r\n|T: 1\r\n|\r\n",
                0..10,
            ),
            cuts in proptest::collection::vec(0_usize..60, 0..10),
            is_content in any::<bool>(),
        ) {
            let input = pieces.concat();
            let output = if is_content { Output::Content } else { Output::Chunks };
            let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut <= input.len()).collect();
            cuts.sort_unstable();
            let whole = decode(Chunked, input.as_bytes(), output, &[]);
            prop_assert_eq!(&decode(Chunked, input.as_bytes(), output, &cuts), &whole);
            let every: Vec<_> = (0..input.len()).collect();
            prop_assert_eq!(&decode(Chunked, input.as_bytes(), output, &every), &whole);
        }

        /// What is handed on as chunks holds the same content, read by the same rules.
        #[test]
        fn chunks_that_pass_have_the_same_content(
            contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..5),
            extension in "( |\t){0,2}(;[ -~]{0,5})?",
        ) {
            let mut input = Vec::new();
            for content in &contents {
                input.extend_from_slice(format!("{:x}{extension}\r\n", content.len()).as_bytes());
                input.extend_from_slice(content);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(format!("0{extension}\r\n\r\n").as_bytes());
            let passed = decode(Chunked, &input, Output::Chunks, &[]);
            prop_assert_eq!(passed.end, Ok(End::Complete));
            let again = decode(Chunked, &passed.data, Output::Chunks, &[]);
            prop_assert_eq!(&again.data, &passed.data, "nothing is left to remove");
            let content = decode(Chunked, &passed.data, Output::Content, &[]);
            prop_assert_eq!(content.data, contents.concat());
        }

        #[test]
        fn any_bytes_are_survived(input in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _content = decode(Chunked, &input, Output::Content, &[]);
            let _chunks = decode(Chunked, &input, Output::Chunks, &[]);
        }
    }
}
