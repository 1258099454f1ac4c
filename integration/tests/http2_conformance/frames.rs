//! RFC 9113 4: frames, their size, and header blocks in several of them.

use integration::http2::{END_HEADERS, END_STREAM, block, frame, kind};

use super::codes::{COMPRESSION_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR};
use super::{
    AUTHORITY, Case, Expected, MALFORMED, METHOD, PATH, SCHEME, Step, data, get, get_block,
    headers, ping, play, post, priority,
};

/// What the router takes in one frame: the least that is allowed.
const MAX_FRAME: usize = 16_384;

pub(crate) fn cases() -> Vec<Case> {
    let unfinished = || headers(END_STREAM, 1, &get_block());
    let long = [&get_block()[..], &block(&[(b"x", b"y")]).repeat(MAX_FRAME / 5)].concat();
    let mut reserved = ping(0, [1; 8]);
    reserved[5] |= 0x80;
    vec![
        Case::new(
            "9113 4.1: a frame of an unknown type is ignored",
            vec![Step::Send([frame(0x16, 0, 0, b"unknown"), get(1)].concat()), Step::Answer(1)],
            Expected::GoesOn,
        ),
        Case::new(
            "9113 4.1: undefined flags are ignored",
            vec![Step::Send(frame(kind::PING, 0x16, 0, b"flagged.")), Step::Pong(*b"flagged.")],
            Expected::GoesOn,
        ),
        Case::new(
            "9113 4.1: the reserved bit of a stream identifier is ignored",
            vec![Step::Send(reserved), Step::Pong([1; 8])],
            Expected::GoesOn,
        ),
        Case::answered(
            "9113 4.2: DATA of 2^14 bytes is accepted",
            &[post(1), data(END_STREAM, 1, &[b'x'; MAX_FRAME])],
            &[],
        ),
        Case::resets(
            "9113 4.2: DATA beyond the largest frame is FRAME_SIZE_ERROR",
            &[post(1), data(END_STREAM, 1, &[b'x'; MAX_FRAME + 1])],
            &[FRAME_SIZE_ERROR],
        ),
        Case::ends(
            "9113 4.2: HEADERS beyond the largest frame end the connection with FRAME_SIZE_ERROR",
            &[headers(END_HEADERS | END_STREAM, 1, &long)],
            &[FRAME_SIZE_ERROR],
        ),
        Case::ends(
            "9113 4.3: a header block that cannot be decoded ends the connection with COMPRESSION_ERROR",
            // A literal whose name is longer than the block.
            &[headers(
                END_HEADERS | END_STREAM,
                1,
                &[&block(&[METHOD, SCHEME, PATH, AUTHORITY, MALFORMED])[..], &[0x40, 0x1f]]
                    .concat(),
            )],
            &[COMPRESSION_ERROR],
        ).unspecific(),
        Case::ends(
            "9113 4.3: PRIORITY inside a header block ends the connection with PROTOCOL_ERROR",
            &[unfinished(), priority(1, 0, 255)],
            &[PROTOCOL_ERROR],
        ),
        Case::ends(
            "9113 4.3: HEADERS of another stream inside a header block end the connection with PROTOCOL_ERROR",
            &[unfinished(), get(3)],
            &[PROTOCOL_ERROR],
        ),
    ]
}

#[test]
fn frames_are_read_as_chapter_4_says() {
    play(&cases());
}
