//! Every way in which a message cannot be accepted, with its name and the status that answers it.
//!
//! Where RFC 9112 leaves a choice between repairing and refusing, refusing is the choice whenever two
//! readers could come to different results (RFC 9112 11.2).

macro_rules! errors {
    (
        $(#[$doc:meta])* $name:ident {
            $($(#[$variant_doc:meta])* $variant:ident = $status:literal, $text:literal;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
        #[error("{}", self.reason())]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every variant.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The status of the answer.
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$variant => $status,)*
                }
            }

            /// What is wrong, in a few words that are a valid field value.
            pub const fn reason(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

errors! {
    /// Why a request is refused. Whatever the status, nothing more is read from the connection: where
    /// the next request would begin is not certain.
    RequestError {
        /// RFC 9112 2.2 allows a recipient to take a line feed alone for a line end; others do not.
        BareLineFeed = 400, "line end that is not CRLF";
        /// The client closed before the end of the body (RFC 9112 8).
        BodyCut = 400, "request body is cut short";
        /// The client sent nothing of the body, or too little, for too long.
        BodyTimedOut = 408, "request body timed out";
        /// Longer than the limit, by its announced length or by the bytes that came.
        BodyTooLarge = 413, "request body too large";
        /// RFC 9112 7.1: what follows the content of a chunk is CRLF.
        ChunkEnd = 400, "chunk that does not end where its size says";
        /// RFC 9112 7.1.1: malformed, or longer than the limit for all extensions of a body.
        ChunkExtension = 400, "invalid or too long chunk extension";
        /// RFC 9112 7.1: one to sixteen hexadecimal digits, at most 2^63 - 1.
        ChunkSize = 400, "invalid chunk size";
        /// RFC 9112 6.1: a message of HTTP/1.0 has no transfer coding.
        CodingInHttp10 = 400, "Transfer-Encoding in HTTP/1.0";
        /// RFC 9112 6.1: a coding other than `chunked`, under a final `chunked`.
        CodingNotImplemented = 501, "transfer coding that is not implemented";
        /// RFC 9112 6.3: the body of a request whose last coding is not `chunked` has no certain end.
        CodingUnknown = 400, "Transfer-Encoding other than chunked";
        /// RFC 9112 5.1: no colon, an empty name, a blank before the colon, or an obsolete folding (5.2).
        FieldName = 400, "invalid header name";
        /// RFC 9110 5.5: a control character.
        FieldValue = 400, "invalid header value";
        /// The client closed in the middle of the head (RFC 9112 8).
        HeadCut = 400, "request head is cut short";
        /// The head did not come in time.
        HeadTimedOut = 408, "request head timed out";
        /// More bytes than the limit for a head.
        HeadTooLarge = 431, "request head too large";
        /// RFC 9112 3.2: no `Host`. HTTP/1.0 needs one here, too: there is no other way to route it.
        HostMissing = 400, "no host header";
        /// RFC 9112 3.2: more than one `Host`, even equal ones.
        HostRepeated = 400, "more than one host header";
        /// RFC 9112 6.3: `Content-Length` that is not one decimal number up to 2^63 - 1.
        Length = 400, "invalid Content-Length";
        /// RFC 9112 6.3: several `Content-Length` that are not the same text; `3` and `003` are read as
        /// different by some.
        LengthsDiffer = 400, "Content-Length values that differ";
        /// RFC 9110 9.1: the method is no token.
        Method = 400, "invalid method";
        /// RFC 9112 3: not three words separated by single spaces.
        RequestLine = 400, "invalid request line";
        /// RFC 9112 3.2: none of the four forms, the wrong one for the method, or a character that no URI
        /// has.
        Target = 400, "invalid request target";
        /// Longer than the limit for a target.
        TargetTooLong = 414, "request target too long";
        /// More header lines than the limit.
        TooManyFields = 431, "too many headers";
        /// RFC 9112 7.1.2: a line of the trailer section is no field line.
        Trailer = 400, "invalid trailer";
        /// More bytes or lines of trailers than the limit.
        TrailersTooLarge = 431, "trailers too large";
        /// RFC 9112 2.3: a version of HTTP other than 1.0 and 1.1.
        Version = 505, "HTTP version that is not supported";
    }
}

errors! {
    /// Why a response of a backend is not passed on, or no further. The client gets this status if its
    /// response has not begun; else its connection ends so that it sees the cut.
    ResponseError {
        /// The backend closed before the end of the body (RFC 9112 8).
        BodyCut = 502, "response body is cut short";
        /// RFC 9112 7.1: what follows the content of a chunk is CRLF.
        ChunkEnd = 502, "response chunk that does not end where its size says";
        /// RFC 9112 7.1.1: malformed, or longer than the limit for all extensions of a body.
        ChunkExtension = 502, "invalid or too long response chunk extension";
        /// RFC 9112 7.1: one to sixteen hexadecimal digits, at most 2^63 - 1.
        ChunkSize = 502, "invalid response chunk size";
        /// RFC 9112 6.1: a message of HTTP/1.0 has no transfer coding.
        CodingInHttp10 = 502, "response with Transfer-Encoding in HTTP/1.0";
        /// RFC 9112 6.1: anything but one `chunked`; no other coding was asked for.
        CodingUnknown = 502, "response with an unknown transfer coding";
        /// RFC 9112 5.1: as in requests.
        FieldName = 502, "invalid response header name";
        /// RFC 9110 5.5: as in requests.
        FieldValue = 502, "invalid response header value";
        /// The backend closed in the middle of the head.
        HeadCut = 502, "response head is cut short";
        /// More bytes than the limit for a head.
        HeadTooLarge = 502, "response head too large";
        /// RFC 9112 6.3: not one decimal number.
        Length = 502, "invalid response Content-Length";
        /// RFC 9112 6.3: more than one line.
        LengthRepeated = 502, "response with more than one Content-Length";
        /// The backend closed before the first byte of a response.
        NoResponse = 502, "backend closed the connection";
        /// RFC 9112 4: the status line. Also bytes before it.
        StatusLine = 502, "invalid response status line";
        /// RFC 9110 15.2.2: `101` that was not asked for.
        SwitchNotAsked = 502, "101 that was not asked for";
        /// More header lines than the limit.
        TooManyFields = 502, "too many response headers";
        /// More informational responses than the limit for one request.
        TooManyInformational = 502, "too many informational responses";
        /// RFC 9112 7.1.2: a line of the trailer section is no field line.
        Trailer = 502, "invalid response trailer";
        /// More bytes or lines of trailers than the limit.
        TrailersTooLarge = 502, "response trailers too large";
        /// RFC 9112 9.2: it came before a byte of the request was sent.
        Unsolicited = 502, "response before the request";
        /// RFC 9112 2.3: a version of HTTP other than 1.0 and 1.1.
        Version = 502, "response of an HTTP version that is not supported";
    }
}

/// Why a body cannot be decoded, whichever side it comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyError {
    /// See [`RequestError::ChunkEnd`].
    ChunkEnd,
    /// See [`RequestError::ChunkExtension`].
    ChunkExtension,
    /// See [`RequestError::ChunkSize`].
    ChunkSize,
    /// The peer closed before the end.
    Cut,
    /// See [`RequestError::Trailer`].
    Trailer,
    /// See [`RequestError::TrailersTooLarge`].
    TrailersTooLarge,
}

impl From<BodyError> for RequestError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::ChunkEnd => Self::ChunkEnd,
            BodyError::ChunkExtension => Self::ChunkExtension,
            BodyError::ChunkSize => Self::ChunkSize,
            BodyError::Cut => Self::BodyCut,
            BodyError::Trailer => Self::Trailer,
            BodyError::TrailersTooLarge => Self::TrailersTooLarge,
        }
    }
}

impl From<BodyError> for ResponseError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::ChunkEnd => Self::ChunkEnd,
            BodyError::ChunkExtension => Self::ChunkExtension,
            BodyError::ChunkSize => Self::ChunkSize,
            BodyError::Cut => Self::BodyCut,
            BodyError::Trailer => Self::Trailer,
            BodyError::TrailersTooLarge => Self::TrailersTooLarge,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{RequestError, ResponseError};

    #[test]
    fn every_error_has_a_status_and_a_text_of_its_own() {
        let mut texts = BTreeSet::new();
        for error in RequestError::ALL {
            assert!([400, 408, 413, 414, 431, 501, 505].contains(&error.status()), "{error:?}");
            assert!(texts.insert(error.reason()), "{error:?}");
            assert_eq!(error.to_string(), error.reason());
        }
        for error in ResponseError::ALL {
            assert_eq!(error.status(), 502, "{error:?}");
            assert!(texts.insert(error.reason()), "{error:?}");
        }
        assert!(texts.iter().all(|text| text.bytes().all(|byte| (b' '..=b'~').contains(&byte))));
    }
}
