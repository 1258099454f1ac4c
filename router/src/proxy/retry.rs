//! Whether a request is sent once more after an attempt on a connection has failed. Pure.
//!
//! A request may be sent a second time only if the first attempt cannot have been processed: nothing of it
//! was written, or the backend says that it has processed nothing (RFC 9113 8.7), or a kept connection ended
//! before a byte of the response and processing it twice does no harm (RFC 9112 9.3.1).

use crate::http1::client::{Attempt, Sent};

/// How often a request is sent again that a backend of HTTP/2 has refused.
const MAX_REFUSALS: u32 = 3;

/// How an attempt failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The connection ended, or what came is no response.
    Broken,
    /// The backend says that it has processed nothing of the request.
    Refused,
    /// Somebody was silent for too long, the client broke off, or it sent what is no request.
    Final,
}

/// What the request itself allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Replay {
    /// Doing it twice is the same as doing it once (RFC 9110 9.2.2).
    pub is_idempotent: bool,
    /// There is no body.
    pub is_without_body: bool,
    /// What was read of the body is still there, all of it.
    pub is_body_kept: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Again {
    /// Nothing: the failure is the answer.
    No,
    /// Send it again to the same backend, on any connection.
    OnAny,
    /// Send it again to the same backend, on a connection that was never used.
    OnNew,
}

/// Decides. `refusals`: how often this request was refused, this time included.
pub fn decide(attempt: Attempt, failure: Failure, replay: Replay, refusals: u32) -> Again {
    if attempt.has_response {
        return Again::No;
    }
    match failure {
        Failure::Final => Again::No,
        // Others who shared the connection may have made a new one by now, which does not help if it is the
        // requests that are too many.
        Failure::Refused if refusals <= MAX_REFUSALS && replay.is_body_kept => match refusals {
            0 | 1 => Again::OnAny,
            _ => Again::OnNew,
        },
        Failure::Refused => Again::No,
        // It was closed while it was idle. Other idle ones may be alive.
        Failure::Broken if attempt.is_reused && attempt.sent == Sent::Nothing => {
            if replay.is_body_kept { Again::OnAny } else { Again::No }
        }
        Failure::Broken if attempt.is_reused && replay.is_idempotent && replay.is_without_body => {
            Again::OnNew
        }
        Failure::Broken => Again::No,
    }
}

#[cfg(test)]
mod tests {
    use super::{Again, Failure, MAX_REFUSALS, Replay, decide};
    use crate::http1::client::{Attempt, Sent};

    #[test]
    fn requests_are_sent_again_only_when_they_cannot_have_been_processed_or_that_does_no_harm() {
        use Again::{No, OnAny, OnNew};
        use Failure::{Broken, Final, Refused};
        use Sent::{Nothing, Part, Whole};
        let get = Replay { is_idempotent: true, is_without_body: true, is_body_kept: true };
        let put = Replay { is_without_body: false, ..get };
        let post = Replay { is_idempotent: false, ..put };
        let upload = Replay { is_body_kept: false, ..post };
        for (failure, sent, is_reused, replay, expected) in [
            (Broken, Nothing, true, get, OnAny),
            (Broken, Nothing, true, post, OnAny),
            (Broken, Nothing, true, upload, No),
            (Broken, Nothing, false, get, No),
            (Broken, Part, true, get, OnNew),
            (Broken, Whole, true, get, OnNew),
            (Broken, Whole, true, put, No),
            (Broken, Whole, true, post, No),
            (Broken, Part, true, post, No),
            (Broken, Whole, false, get, No),
            (Refused, Whole, true, get, OnAny),
            (Refused, Whole, false, post, OnAny),
            (Refused, Part, true, upload, No),
            (Final, Nothing, true, get, No),
            (Final, Whole, true, get, No),
        ] {
            let attempt = Attempt { sent, has_response: false, is_reused };
            let seen = decide(attempt, failure, replay, 1);
            assert_eq!(seen, expected, "{failure:?} {attempt:?} {replay:?}");
            let answered = Attempt { has_response: true, ..attempt };
            assert_eq!(decide(answered, failure, replay, 1), No, "{failure:?} {replay:?}");
        }
        let whole = Attempt { sent: Whole, has_response: false, is_reused: true };
        assert_eq!(decide(whole, Refused, get, 2), OnNew);
        assert_eq!(decide(whole, Refused, get, MAX_REFUSALS), OnNew);
        assert_eq!(decide(whole, Refused, get, MAX_REFUSALS + 1), No);
    }
}
