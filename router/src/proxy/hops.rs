//! How many routers a request has passed through, so that one that goes round in a circle ends. Pure.
//!
//! Routers whose lists name each other, at whatever distance, pass a request on until one of them has no
//! descriptor left. Each that is not the first proxy of a request counts it in a header of its own. `Via`
//! (RFC 9110 7.6.3) would say the same, but it is added by every other proxy, too, and programs act on it:
//! nginx compresses nothing that was asked for through one. The first router adds `X-Forwarded-For`, as
//! ever, which is how the second one knows, so that backends of ordinary requests see nothing new.
//!
//! A client that writes the header itself gets its own request refused sooner; it cannot be counted lower,
//! for each router writes what it has read and one more. A refusal marks no backend.

use http::header::{HeaderName, HeaderValue};

/// Routers that have passed on what another proxy had passed on before.
pub const X_ROUTER_HOPS: HeaderName = HeaderName::from_static("x-router-hops");
/// The largest number in it.
pub const MAX_HOPS: u8 = 8;

/// The request has come through too many routers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Loop;

/// What a header says; that of several proxies may have become a list. Anything else is none.
pub fn read(value: &HeaderValue) -> u8 {
    let items = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    items.map(read_item).max().unwrap_or(0)
}

fn read_item(item: &[u8]) -> u8 {
    if item.is_empty() || !item.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    // Only a number that is too large is no number now.
    std::str::from_utf8(item).ok().and_then(|item| item.parse().ok()).unwrap_or(u8::MAX)
}

/// What the next one is told of a request that came with `hops`, if anything.
///
/// # Errors
///
/// When it is to go no further.
pub fn next(hops: u8, was_forwarded: bool) -> Result<Option<HeaderValue>, Loop> {
    if hops >= MAX_HOPS {
        return Err(Loop);
    }
    let is_counted = hops > 0 || was_forwarded;
    Ok(is_counted.then(|| HeaderValue::from(u16::from(hops) + 1)))
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;
    use proptest::prelude::*;

    use super::{Loop, MAX_HOPS, next, read};

    #[test]
    fn only_a_number_counts_and_the_largest_of_several() {
        for (value, expected) in [
            ("0", 0),
            ("1", 1),
            (" 7 ", 7),
            ("3, 5,1", 5),
            ("007", 7),
            ("255", 255),
            ("256", 255),
            ("99999999999999999999999", 255),
            ("", 0),
            (",", 0),
            ("-1", 0),
            ("+1", 0),
            ("1.1 proxy", 0),
            ("x, 2", 2),
        ] {
            assert_eq!(read(&HeaderValue::from_str(value).unwrap()), expected, "{value:?}");
        }
    }

    #[test]
    fn a_circle_ends_after_the_maximum() {
        let mut hops = 0;
        let mut passed = 0;
        assert_eq!(next(0, false), Ok(None), "of the first one nobody is told");
        while let Ok(Some(value)) = next(hops, true) {
            passed += 1;
            assert_eq!(read(&value), passed);
            hops = passed;
        }
        assert_eq!(passed, MAX_HOPS);
        assert_eq!(next(u8::MAX, false), Err(Loop));
    }

    proptest! {
        #[test]
        fn whatever_a_client_writes_the_count_only_grows(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let hops = read(&value);
                if let Ok(Some(value)) = next(hops, true) {
                    prop_assert_eq!(read(&value), hops + 1);
                }
            }
        }
    }
}
