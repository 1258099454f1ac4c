//! RFC 7541: header blocks in every coding there is, and those that are none. Strings in Huffman's code are those
//! of its appendix C.

use integration::http2::{END_HEADERS, END_STREAM};

use super::codes::COMPRESSION_ERROR;
use super::{Case, Expected, Step, get_block, headers, play};

/// `custom-key` and `custom-value` in Huffman's code.
const KEY: &[u8] = b"\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f";
const VALUE: &[u8] = b"\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
/// The same as they are.
const PLAIN_KEY: &[u8] = b"\x0acustom-key";
const PLAIN_VALUE: &[u8] = b"\x0ccustom-value";

/// A request with these bytes behind its own headers.
fn request(stream: u32, more: &[&[u8]]) -> Vec<u8> {
    let fields = [&get_block()[..], &more.concat()].concat();
    headers(END_HEADERS | END_STREAM, stream, &fields)
}

/// A field in some coding, which the backend gets.
fn decoded(name: &'static str, field: &[&[u8]], seen: (&'static str, &'static str)) -> Case {
    Case::answered(name, &[request(1, field)], &[seen])
}

/// The same with a field that is in the table from then on: the next request names it by its index, 62.
fn indexed(name: &'static str, field: &[&[u8]], seen: (&'static str, &'static str)) -> Case {
    let steps = vec![
        Step::Send(request(1, field)),
        Step::Answer(1),
        Step::Forwarded(seen.0, seen.1),
        Step::Send(request(3, &[&[0xbe]])),
        Step::Answer(3),
        Step::Forwarded(seen.0, seen.1),
    ];
    Case::new(name, steps, Expected::GoesOn)
}

/// A field that cannot be decoded. No request comes of it, and no later block could be read.
fn undecodable(name: &'static str, field: &[&[u8]]) -> Case {
    let marked = [&[&b"\x00\x0bx-malformed\x011"[..]], field].concat();
    Case::ends(name, &[request(1, &marked)], &[COMPRESSION_ERROR]).unspecific()
}

pub(crate) fn cases() -> Vec<Case> {
    const SEEN: (&str, &str) = ("custom-key", "custom-value");
    const AGENT: (&str, &str) = ("user-agent", "custom-value");
    // Indices of user-agent, 58, as the name of each representation.
    let (add, leave, never) = (&[0x7a][..], &[0x0f, 0x2b][..], &[0x1f, 0x2b][..]);
    vec![
        decoded(
            "7541 6.1: an indexed field is accepted",
            // accept-encoding: gzip, deflate
            &[&[0x90]],
            ("accept-encoding", "gzip, deflate"),
        ),
        indexed(
            "7541 6.2.1: a literal that is added, with an indexed name, is accepted",
            &[add, PLAIN_VALUE],
            AGENT,
        ),
        indexed(
            "7541 6.2.1: a literal that is added, with an indexed name, in Huffman's code is accepted",
            &[add, VALUE],
            AGENT,
        ),
        indexed(
            "7541 6.2.1: a literal that is added, with a new name, is accepted",
            &[&[0x40], PLAIN_KEY, PLAIN_VALUE],
            SEEN,
        ),
        indexed(
            "7541 6.2.1: a literal that is added, with a new name, in Huffman's code is accepted",
            &[&[0x40], KEY, VALUE],
            SEEN,
        ),
        decoded(
            "7541 6.2.2: a literal that is not added, with an indexed name, is accepted",
            &[leave, PLAIN_VALUE],
            AGENT,
        ),
        decoded(
            "7541 6.2.2: a literal that is not added, with an indexed name, in Huffman's code is accepted",
            &[leave, VALUE],
            AGENT,
        ),
        decoded(
            "7541 6.2.2: a literal that is not added, with a new name, is accepted",
            &[&[0], PLAIN_KEY, PLAIN_VALUE],
            SEEN,
        ),
        decoded(
            "7541 6.2.2: a literal that is not added, with a new name, in Huffman's code is accepted",
            &[&[0], KEY, VALUE],
            SEEN,
        ),
        decoded(
            "7541 6.2.3: a literal that is never added, with an indexed name, is accepted",
            &[never, PLAIN_VALUE],
            AGENT,
        ),
        decoded(
            "7541 6.2.3: a literal that is never added, with an indexed name, in Huffman's code is accepted",
            &[never, VALUE],
            AGENT,
        ),
        decoded(
            "7541 6.2.3: a literal that is never added, with a new name, is accepted",
            &[&[0x10], PLAIN_KEY, PLAIN_VALUE],
            SEEN,
        ),
        decoded(
            "7541 6.2.3: a literal that is never added, with a new name, in Huffman's code is accepted",
            &[&[0x10], KEY, VALUE],
            SEEN,
        ),
        Case::answered(
            "7541 6.3: an update of the table's size is accepted",
            &[headers(END_HEADERS | END_STREAM, 1, &[&[0x20], &get_block()[..]].concat())],
            &[],
        ),
        Case::answered(
            "7541 4.2: several updates of the table's size are accepted",
            // To nothing and back to 4096.
            &[headers(
                END_HEADERS | END_STREAM,
                1,
                &[&[0x20, 0x3f, 0xe1, 0x1f], &get_block()[..]].concat(),
            )],
            &[],
        ),
        undecodable(
            "7541 2.3.3: an index beyond the table ends the connection with COMPRESSION_ERROR",
            &[&[0xc6]],
        ),
        undecodable(
            "7541 2.3.3: the name of a literal beyond the table ends the connection with COMPRESSION_ERROR",
            &[&[0x7f, 0x07], b"\x01x"],
        ),
        undecodable(
            "7541 4.2: an update of the table's size at the end of a block ends the connection with COMPRESSION_ERROR",
            &[&[0x20]],
        ),
        // `a` is 00011, then ones up to the end of a byte.
        undecodable(
            "7541 5.2: padding of more than 7 bits ends the connection with COMPRESSION_ERROR",
            &[&[0x00], PLAIN_KEY, b"\x82\x1f\xff"],
        ),
        undecodable(
            "7541 5.2: padding of zeros ends the connection with COMPRESSION_ERROR",
            &[&[0x00], PLAIN_KEY, b"\x81\x18"],
        ),
        // Thirty ones, then `a`.
        undecodable(
            "7541 5.2: the end of a string as a symbol inside it ends the connection with COMPRESSION_ERROR",
            &[&[0x00], PLAIN_KEY, b"\x85\xff\xff\xff\xfc\x7f"],
        ),
        undecodable("7541 6.1: index 0 ends the connection with COMPRESSION_ERROR", &[&[0x80]]),
        Case::ends(
            "7541 6.3: a table larger than was allowed ends the connection with COMPRESSION_ERROR",
            // 4097.
            &[headers(
                END_HEADERS | END_STREAM,
                1,
                &[&[0x3f, 0xe2, 0x1f], &get_block()[..]].concat(),
            )],
            &[COMPRESSION_ERROR],
        )
        .unspecific(),
    ]
}

#[test]
fn blocks_are_decoded_as_rfc_7541_says() {
    play(&cases());
}
