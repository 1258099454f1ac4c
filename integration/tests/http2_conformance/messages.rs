//! RFC 9113 8: requests as HTTP means them. Sections are those of RFC 9113, which has moved some: 8.1.2 of
//! RFC 7540 is 8.2 and 8.3, 8.1.2.6 is 8.1.1, 8.2 is 8.4.

use integration::http2::{END_HEADERS, END_STREAM, block, frame, kind};

use super::codes::PROTOCOL_ERROR;
use super::{
    AUTHORITY, Case, Expected, Header, MALFORMED, METHOD, PATH, SCHEME, Step, data, get, get_block,
    headers, play, post, post_block,
};

/// A request of these headers that is malformed (RFC 9113 8.1.1).
fn malformed(name: &'static str, fields: &[Header<'_>]) -> Case {
    let fields = block(&[fields, &[MALFORMED]].concat());
    Case::resets(name, &[headers(END_HEADERS | END_STREAM, 1, &fields)], &[PROTOCOL_ERROR])
}

/// A request whose content has another length than it says.
fn miscounted(name: &'static str, content: &[Vec<u8>]) -> Case {
    let head = headers(END_HEADERS, 1, &post_block(&[(b"content-length", b"1"), MALFORMED]));
    Case::resets(name, &[&[head], content].concat(), &[PROTOCOL_ERROR])
}

/// The head of a `POST` that announces trailers.
fn announced(more: &[Header<'_>]) -> Vec<u8> {
    headers(END_HEADERS, 1, &post_block(&[&[(&b"trailer"[..], &b"x-test"[..])], more].concat()))
}

pub(crate) fn cases() -> Vec<Case> {
    let whole = [METHOD, SCHEME, PATH, AUTHORITY];
    let with = |header: Header<'static>| [&whole[..], &[header]].concat();
    let without = |name: &[u8]| whole.into_iter().filter(|h| h.0 != name).collect::<Vec<_>>();
    let mut cases = answered();
    cases.extend([
        Case::resets(
            "9113 8.1: HEADERS behind content that do not end the stream are PROTOCOL_ERROR",
            &[
                announced(&[MALFORMED]),
                data(0, 1, b"test"),
                headers(END_HEADERS, 1, &block(&[(b"x-test", b"ok")])),
            ],
            &[PROTOCOL_ERROR],
        ),
        miscounted(
            "9113 8.1.1: content of another length than content-length is PROTOCOL_ERROR",
            &[data(END_STREAM, 1, b"test")],
        ),
        miscounted(
            "9113 8.1.1: content of another length than content-length in several DATA is PROTOCOL_ERROR",
            &[data(0, 1, b"te"), data(END_STREAM, 1, b"st")],
        ),
        malformed(
            "9113 8.2.1: a field name with capital letters is PROTOCOL_ERROR",
            &with((b"X-TEST", b"ok")),
        ),
        malformed(
            "9113 8.2.2: a field of HTTP/1.1's connections is PROTOCOL_ERROR",
            &with((b"connection", b"keep-alive")),
        ),
        malformed(
            "9113 8.2.2: te other than trailers is PROTOCOL_ERROR",
            &with((b"te", b"trailers, deflate")),
        ),
        malformed(
            "9113 8.3: an unknown pseudo-header is PROTOCOL_ERROR",
            &with((b":test", b"ok")),
        ),
        malformed(
            "9113 8.3: a pseudo-header of responses is PROTOCOL_ERROR",
            &with((b":status", b"200")),
        ),
        // The library throws it away, and no hook shows it.
        Case::resets(
            "9113 8.3: a pseudo-header among trailers is PROTOCOL_ERROR",
            &[
                announced(&[]),
                data(0, 1, b"test"),
                headers(END_HEADERS | END_STREAM, 1, &block(&[METHOD, (b"x-test", b"ok")])),
            ],
            &[PROTOCOL_ERROR],
        )
        .unnoticed(&[("x-test", "ok")]),
        malformed(
            "9113 8.3: a pseudo-header behind others is PROTOCOL_ERROR",
            &[METHOD, SCHEME, PATH, (b"x-test", b"ok"), AUTHORITY],
        ),
        malformed(
            "9113 8.3.1: an empty :path is PROTOCOL_ERROR",
            &[METHOD, SCHEME, (b":path", b""), AUTHORITY],
        ),
        malformed("9113 8.3.1: no :method is PROTOCOL_ERROR", &without(b":method")),
        malformed("9113 8.3.1: no :scheme is PROTOCOL_ERROR", &without(b":scheme")),
        malformed("9113 8.3.1: no :path is PROTOCOL_ERROR", &without(b":path")),
        malformed("9113 8.3.1: two :method are PROTOCOL_ERROR", &with(METHOD)),
        malformed("9113 8.3.1: two :scheme are PROTOCOL_ERROR", &with(SCHEME)),
        malformed("9113 8.3.1: two :path are PROTOCOL_ERROR", &with(PATH)),
        Case::ends(
            "9113 8.4: PUSH_PROMISE of a client ends the connection with PROTOCOL_ERROR",
            &[
                post(1),
                frame(
                    kind::PUSH_PROMISE,
                    END_HEADERS,
                    1,
                    &[&3_u32.to_be_bytes()[..], &get_block()].concat(),
                ),
            ],
            &[PROTOCOL_ERROR],
        ),
    ]);
    cases
}

fn answered() -> Vec<Case> {
    let head = block(&[(b":method", b"HEAD"), SCHEME, PATH, AUTHORITY]);
    let trailers = headers(END_HEADERS | END_STREAM, 1, &block(&[(b"x-test", b"ok")]));
    vec![
        Case::answered("9113 8.1: GET is answered", &[get(1)], &[("host", "a.test")]),
        Case::answered(
            "9113 8.1: HEAD is answered",
            &[headers(END_HEADERS | END_STREAM, 1, &head)],
            &[("host", "a.test")],
        ),
        Case::answered(
            "9113 8.1: POST is answered",
            &[
                headers(END_HEADERS, 1, &post_block(&[(b"content-length", b"4")])),
                data(END_STREAM, 1, b"test"),
            ],
            &[("content-length", "4")],
        ),
        Case::new(
            "9113 8.1: POST with trailers is answered",
            vec![Step::Send([announced(&[]), data(0, 1, b"test"), trailers].concat())],
            Expected::Trailed(&[("x-test", "ok")]),
        ),
    ]
}

#[test]
fn messages_are_read_as_chapter_8_says() {
    play(&cases());
}
