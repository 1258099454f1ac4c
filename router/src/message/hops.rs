//! How many routers a request has passed through, so that one that goes round in a circle ends.
//!
//! Routers whose lists name each other, at whatever distance, pass a request on until one of them has no
//! descriptor left. Each that is not the first proxy of a request counts it in a field of its own. `Via`
//! (RFC 9110 7.6.3) would say the same, but every other proxy adds it, too, and programs act on it:
//! nginx compresses nothing that was asked for through one. The first router adds `X-Forwarded-For`, which
//! is how the second one knows, so that backends of ordinary requests see nothing new.
//!
//! A client that writes the field itself gets its own request refused sooner; it cannot lower the count,
//! for each router writes what it has read and one more. A refusal marks no backend.

/// The largest number in `X-Router-Hops`.
pub const MAX_HOPS: u8 = 8;

/// The request has come through too many routers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Loop;

/// The number in a value of `X-Router-Hops`; that of several proxies may have become a list, of which the
/// largest is valid. Anything else is none.
pub fn read(value: &[u8]) -> u8 {
    let items = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    items.map(read_item).max().unwrap_or(0)
}

fn read_item(item: &[u8]) -> u8 {
    if item.is_empty() || !item.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    // All that is left to be wrong with it is its size.
    std::str::from_utf8(item).ok().and_then(|item| item.parse().ok()).unwrap_or(u8::MAX)
}

/// The number that a request with `hops` takes to the next hop, if any.
///
/// # Errors
///
/// When it is to go no further.
pub fn next(hops: u8, was_forwarded: bool) -> Result<Option<u8>, Loop> {
    if hops >= MAX_HOPS {
        return Err(Loop);
    }
    let is_counted = hops > 0 || was_forwarded;
    Ok(is_counted.then_some(hops + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Loop, MAX_HOPS, next, read};

    #[test]
    fn largest_number_of_a_list_is_read() {
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
            assert_eq!(read(value.as_bytes()), expected, "{value:?}");
        }
    }

    #[test]
    fn circle_ends_after_the_maximum() {
        let mut hops = 0;
        assert_eq!(next(0, false), Ok(None), "the first router adds no number");
        while let Ok(Some(value)) = next(hops, true) {
            assert_eq!(value, hops + 1);
            hops = value;
        }
        assert_eq!(hops, MAX_HOPS);
        assert_eq!(next(u8::MAX, false), Err(Loop));
    }

    proptest! {
        #[test]
        fn count_only_grows_whatever_a_client_writes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let hops = read(&bytes);
            if let Ok(Some(value)) = next(hops, true) {
                prop_assert_eq!(read(value.to_string().as_bytes()), hops + 1);
            }
        }
    }
}
