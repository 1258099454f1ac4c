//! `X-Request-Id` and `traceparent` (W3C Trace Context): passed on from whoever is believed, else
//! made. Pure: random numbers are handed in.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::headers::{Trust, is_shadow};
use crate::fields::remove_in_order;

/// The header that names a request in every log on its way.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest id that is passed on: a few UUIDs.
const MAX_LEN: usize = 128;

/// What a request is called.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ids {
    /// `X-Request-Id`.
    pub request: HeaderValue,
    traceparent: HeaderValue,
    /// The traceparent is ours: whatever state came along belongs to another.
    is_new_trace: bool,
}

impl Ids {
    /// Those of a request with these `headers`, of which valid ones count as `trust` says. `random`
    /// gives 64 bits for each call.
    pub fn of(headers: &HeaderMap, trust: Trust, mut random: impl FnMut() -> u64) -> Self {
        let theirs = |name: HeaderName, is_valid: fn(&[u8]) -> bool| {
            let mut values = headers.get_all(name).iter();
            let value = values.next().filter(|value| is_valid(value.as_bytes()))?;
            (trust != Trust::Overwrite && values.next().is_none()).then(|| value.clone())
        };
        let traceparent = theirs(TRACEPARENT, is_traceparent);
        let trace = match traceparent.as_ref().and_then(|value| value.to_str().ok()?.get(3..35)) {
            Some(trace) => trace.to_owned(),
            // An id of zeros is none.
            None => format!("{:016x}{:016x}", random() | 1, random()),
        };
        let value = |text: &str| {
            HeaderValue::from_str(text).unwrap_or_else(|_never| HeaderValue::from_static("-"))
        };
        let is_new_trace = traceparent.is_none();
        Self {
            request: theirs(X_REQUEST_ID, is_request_id).unwrap_or_else(|| value(&trace)),
            // Not sampled: whoever begins to record decides that.
            traceparent: traceparent
                .unwrap_or_else(|| value(&format!("00-{trace}-{:016x}-00", random() | 1))),
            is_new_trace,
        }
    }

    /// Writes them into the headers of a request.
    pub fn apply(&self, headers: &mut HeaderMap) {
        let is_other_id = |name: &HeaderName| is_shadow(name, |name| *name == X_REQUEST_ID);
        remove_in_order(headers, is_other_id);
        headers.insert(X_REQUEST_ID, self.request.clone());
        headers.insert(TRACEPARENT, self.traceparent.clone());
        if self.is_new_trace {
            headers.remove(TRACESTATE);
        }
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
    use http::header::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::{Ids, Trust, is_traceparent};

    const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn applied(lines: &[(&str, &str)], trust: Trust) -> HeaderMap {
        let mut headers = map(lines);
        Ids::of(&headers, trust, || 0x1234).apply(&mut headers);
        headers
    }

    #[test]
    fn ids_are_passed_on_from_whoever_is_believed_and_made_for_all_others() {
        let lines =
            [("x-request-id", "abc-1"), ("traceparent", THEIRS), ("tracestate", "vendor=1")];
        for trust in [Trust::Append, Trust::Keep] {
            assert_eq!(applied(&lines, trust), map(&lines));
        }
        let made = applied(&lines, Trust::Overwrite);
        assert_eq!(made["x-request-id"], "00000000000012350000000000001234");
        let parent = "00-00000000000012350000000000001234-0000000000001235-00";
        assert_eq!(made["traceparent"], parent);
        assert!(!made.contains_key("tracestate"));
        let traced = applied(&lines[1..], Trust::Append);
        assert_eq!(traced["x-request-id"], "4bf92f3577b34da6a3ce929d0e0e4736", "one name for both");
    }

    #[test]
    fn names_with_underscores_do_not_shadow_the_id() {
        let lines = [("x_request_id", "a"), ("x-request_id", "b"), ("x_other", "c")];
        for trust in [Trust::Keep, Trust::Append, Trust::Overwrite] {
            let headers = applied(&lines, trust);
            let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, ["x_other", "x-request-id", "traceparent"]);
        }
    }

    #[test]
    fn what_is_no_id_is_replaced() {
        let long = "x".repeat(129);
        for id in ["", "a b", "a\"b", "a,b", &long] {
            assert_ne!(applied(&[("x-request-id", id)], Trust::Append)["x-request-id"], id);
        }
        let twice = applied(&[("x-request-id", "a"), ("x-request-id", "b")], Trust::Append);
        assert_eq!(twice.get_all("x-request-id").iter().count(), 1);
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

    proptest! {
        #[test]
        fn a_made_traceparent_is_valid(numbers in proptest::array::uniform4(any::<u64>())) {
            let mut numbers = numbers.into_iter().cycle();
            let ids = Ids::of(&HeaderMap::new(), Trust::Keep, || numbers.next().unwrap_or(0));
            prop_assert!(is_traceparent(ids.traceparent.as_bytes()));
        }
    }
}
