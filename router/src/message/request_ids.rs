//! `X-Request-Id` and `traceparent` (W3C Trace Context): passed on from those that are believed, else
//! made. Random numbers are arguments.

use super::client_info::Trust;
use crate::http1::fields::Span;
use crate::http1::head::RequestHead;
use crate::http1::known::{FieldSet, KnownField};

/// Longest id that is passed on: a few UUIDs.
const MAX_LEN: usize = 128;

/// A `traceparent` of version 00 (W3C Trace Context 3.2.2).
const EMPTY: [u8; 55] = *b"00-00000000000000000000000000000000-0000000000000000-00";
/// Where the trace stands in it.
const TRACE: std::ops::Range<usize> = 3..35;
/// Where the parent stands in it.
const PARENT: std::ops::Range<usize> = 36..52;

/// What a request is called.
#[derive(Clone, Copy, Debug)]
pub struct RequestIds {
    /// A `traceparent` of ours, or of the trace that was passed on.
    made: [u8; EMPTY.len()],
    /// The client's `X-Request-Id`, if it is passed on.
    request: Option<Span>,
    /// The client's `traceparent`, if it is passed on. Without one, whatever state came along belongs to
    /// another trace.
    traceparent: Option<Span>,
}

impl RequestIds {
    /// Those of a request with this `head`, in which valid ones are believed as `trust` says. `random`
    /// gives 64 bits for each call.
    pub fn of(
        head: &RequestHead,
        buf: &[u8],
        trust: Trust,
        mut random: impl FnMut() -> u64,
    ) -> Self {
        let theirs = |known: KnownField, is_valid: fn(&[u8]) -> bool| {
            let mut values = head.fields.values(known, buf);
            let value = values.next().filter(|value| is_valid(value))?;
            let is_believed = trust != Trust::Overwrite && values.next().is_none();
            is_believed.then(|| Span::locate(buf, value))
        };
        let traceparent = theirs(KnownField::Traceparent, is_traceparent);
        let mut made = EMPTY;
        match traceparent.and_then(|value| value.of(buf).get(TRACE)) {
            Some(trace) => {
                if let Some(part) = made.get_mut(TRACE) {
                    part.copy_from_slice(trace);
                }
            }
            None => {
                // An id of zeros is none.
                write_hex(&mut made, TRACE.start, random() | 1);
                write_hex(&mut made, TRACE.start + 16, random());
                // Not sampled: whoever begins to record decides that.
                write_hex(&mut made, PARENT.start, random() | 1);
            }
        }
        Self { made, request: theirs(KnownField::XRequestId, is_request_id), traceparent }
    }

    /// `X-Request-Id`: of our own making it is the trace, so that there is one name for both. `buf` holds
    /// the request's head.
    pub fn request_id<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        match self.request {
            Some(theirs) => theirs.of(buf),
            None => self.made.get(TRACE).unwrap_or_default(),
        }
    }

    /// `traceparent`.
    pub fn traceparent<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        match self.traceparent {
            Some(theirs) => theirs.of(buf),
            None => &self.made,
        }
    }

    /// The fields that are one line with what is said here.
    pub(super) const SET: FieldSet =
        FieldSet::of(&[KnownField::XRequestId, KnownField::Traceparent]);

    /// The fields that are left out. Of names that programs cannot tell from `X-Request-Id` there is none.
    pub(super) fn dropped(&self) -> FieldSet {
        const LOOKALIKE: FieldSet = FieldSet::of(&[KnownField::RequestIdLookalike]);
        const STATE: FieldSet = FieldSet::of(&[KnownField::Tracestate]);
        match self.traceparent {
            Some(_) => LOOKALIKE,
            None => LOOKALIKE.union(STATE),
        }
    }

    /// The value of a field that is [set](Self::SET).
    pub(super) fn value<'a>(&'a self, known: KnownField, buf: &'a [u8]) -> &'a [u8] {
        match known {
            KnownField::Traceparent => self.traceparent(buf),
            _ => self.request_id(buf),
        }
    }

    /// Whether the client's line of a field that is [set](Self::SET) is passed on.
    pub(super) fn keeps(&self, known: KnownField) -> bool {
        match known {
            KnownField::Traceparent => self.traceparent.is_some(),
            _ => self.request.is_some(),
        }
    }
}

/// Writes sixteen lower-case hexadecimal digits.
fn write_hex(text: &mut [u8], start: usize, mut number: u64) {
    let digits = text.get_mut(start..start + 16).unwrap_or_default();
    for digit in digits.iter_mut().rev() {
        let value = u8::try_from(number & 15).unwrap_or_default();
        *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
        number >>= 4;
    }
}

fn is_request_id(value: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-./:=@_~".contains(byte);
    (1..=MAX_LEN).contains(&value.len()) && value.iter().all(is_plain)
}

/// Version, trace, parent and flags in lower-case hexadecimal digits; later versions may say more.
fn is_traceparent(value: &[u8]) -> bool {
    let mut parts = value.splitn(5, |byte| *byte == b'-');
    let mut has = |length: usize| {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let part = parts.next().unwrap_or_default();
        (part.len() == length && part.iter().all(is_digit)).then_some(part)
    };
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    let (Some(version), Some(trace), Some(parent), Some(_flags)) =
        (has(2), has(32), has(16), has(2))
    else {
        return false;
    };
    let has_more = parts.next().is_some();
    version != b"ff" && !is_zero(trace) && !is_zero(parent) && (version != b"00" || !has_more)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::client_info::{ClientInfo, Style, Trust};
    use super::super::request_head::{Outgoing, write_request};
    use super::super::testing::{Request, lines};
    use super::{RequestIds, is_traceparent};

    const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const MADE_ID: &str = "00000000000012350000000000001234";
    const MADE: &str = "00-00000000000012350000000000001234-0000000000001235-00";

    /// The fields of a request that was sent with these, but for `Host` and forwarded ones.
    fn sent(fields: &[(&str, &str)], trust: Trust) -> Vec<(String, String)> {
        let request = Request::with(fields);
        let (peer, local) = ("1.2.3.4:5".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
        let info = ClientInfo::new(peer, local, false, Style::default(), Trust::Keep);
        let forwarding = info.resolve(&request.head, &request.buf, b"a", |_| false);
        let ids = RequestIds::of(&request.head, &request.buf, trust, || 0x1234);
        let mut out = Vec::new();
        write_request(
            &mut out,
            &Outgoing {
                head: &request.head,
                buf: &request.buf,
                options: request.accepted.options,
                body: request.accepted.body,
                host: None,
                forwarding: &forwarding,
                ids: Some(&ids),
                hops: None,
                upgrade: None,
                close: false,
            },
        );
        let is_other =
            |name: &str| name == "Host" || name.starts_with("X-Forwarded") || name == "X-Real-IP";
        lines(&out).into_iter().filter(|(name, _)| !is_other(name)).collect()
    }

    #[track_caller]
    fn assert_sent(fields: &[(&str, &str)], trust: Trust, expected: &[(&str, &str)]) {
        let sent = sent(fields, trust);
        let sent: Vec<_> = sent.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(sent, expected, "{fields:?} {trust:?}");
    }

    #[test]
    fn ids_are_passed_on_from_those_who_are_believed_and_made_for_all_others() {
        let fields =
            [("x-request-ID", "abc-1"), ("Traceparent", THEIRS), ("tracestate", "vendor=1")];
        for trust in [Trust::Append, Trust::Keep] {
            assert_sent(&fields, trust, &fields);
        }
        let made = [("x-request-ID", MADE_ID), ("Traceparent", MADE)];
        assert_sent(&fields, Trust::Overwrite, &made);
        let request = ("X-Request-Id", "4bf92f3577b34da6a3ce929d0e0e4736");
        let traced = [fields[1], fields[2], request];
        assert_sent(&fields[1..], Trust::Append, &traced);
        assert_sent(&[], Trust::Keep, &[("X-Request-Id", MADE_ID), ("traceparent", MADE)]);
        // A trace of nobody has no state.
        assert_sent(&[fields[0], fields[2]], Trust::Keep, &[fields[0], ("traceparent", MADE)]);
    }

    #[test]
    fn names_with_underscores_do_not_shadow_the_id() {
        let fields = [("x_request_id", "a"), ("x-request_id", "b"), ("x_other", "c")];
        for trust in [Trust::Keep, Trust::Append, Trust::Overwrite] {
            let sent = sent(&fields, trust);
            let names: Vec<_> = sent.iter().map(|(name, _)| &**name).collect();
            assert_eq!(names, ["x_other", "X-Request-Id", "traceparent"]);
        }
    }

    #[test]
    fn what_is_no_id_is_replaced() {
        let long = "x".repeat(129);
        let made = [("x-request-id", MADE_ID), ("traceparent", MADE)];
        for id in ["", "a b", "a\"b", "a,b", &long] {
            assert_sent(&[("x-request-id", id)], Trust::Append, &made);
        }
        assert_sent(&[("x-request-id", "a"), ("x-request-id", "b")], Trust::Append, &made);
        let twice = [("traceparent", THEIRS), ("x", "y"), ("traceparent", THEIRS)];
        let made = [("traceparent", MADE), ("x", "y"), ("X-Request-Id", MADE_ID)];
        assert_sent(&twice, Trust::Append, &made);
        let upper = THEIRS.to_uppercase();
        for (value, is_good) in [
            (THEIRS, true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", false),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01later", false),
            (&upper, false),
            ("", false),
        ] {
            assert_eq!(is_traceparent(value.as_bytes()), is_good, "{value}");
        }
    }

    /// `Connection` cannot take away what names the request.
    #[test]
    fn ids_are_sent_also_when_connection_names_them() {
        let named = ("Connection", "x-request-id, traceparent");
        let ids = [("x-request-id", "abc"), ("traceparent", THEIRS)];
        assert_sent(&[named, ids[0], ids[1]], Trust::Keep, &ids);
    }

    proptest! {
        #[test]
        fn made_traceparent_is_valid(numbers in proptest::array::uniform4(any::<u64>())) {
            let mut numbers = numbers.into_iter().cycle();
            let request = Request::get("");
            let ids = RequestIds::of(&request.head, &request.buf, Trust::Keep, || numbers.next().unwrap_or(0));
            prop_assert!(is_traceparent(ids.traceparent(&request.buf)));
            let trace = &ids.traceparent(&request.buf)[3..35];
            prop_assert_eq!(ids.request_id(&request.buf), trace);
        }
    }
}
