//! The HTTP/1 message layer against a reader of RFC 9112 that shares nothing with it, on the corpus of the
//! desync tests: in memory, so that it is many variants in little time.

#[path = "../../tests/desync/corpus.rs"]
mod corpus;
#[path = "../../../fuzz/http1.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod http1;
#[path = "../../src/strict.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of the harness, without the harness")]
mod strict;

use strict::{Rules, read_all};

/// Path and query of a target, without a fragment.
fn path(target: &str) -> &str {
    let target = target.split('#').next().unwrap_or_default();
    match target.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    }
}

/// Whatever `http1` accepts, the strict reader accepts and reads the same way; and what it writes for a
/// backend is what a sender may send, and the same request.
#[test]
fn http1_accepts_only_what_the_strict_reader_accepts() {
    let mut accepted = 0;
    for seed in 0..4 {
        for variant in corpus::generate(seed, 8_000) {
            let reading = http1::read_requests(&variant.bytes, &[]);
            let meant = read_all(&variant.bytes, Rules::Recipient);
            for (index, request) in reading.requests.iter().enumerate() {
                let message = meant.get(index).unwrap_or_else(|| panic!("{index} of {variant:?}"));
                assert_eq!(request.body, message.body, "{variant:?}");
                assert!(request.is_last || !message.is_last, "{variant:?}");
                // The proxy refuses such a method, and such a host, once the message is read.
                if request.method == "CONNECT" || shared::host::normalize(&request.host).is_err() {
                    continue;
                }
                let sent = read_all(&request.forwarded, Rules::Sender);
                assert_eq!(sent.len(), 1, "{variant:?}");
                assert_eq!(sent[0].body, message.body, "{variant:?}");
                assert_eq!(sent[0].target, path(&message.target), "{variant:?}");
                accepted += 1;
            }
        }
    }
    assert!(accepted > 10_000, "{accepted}");
}
