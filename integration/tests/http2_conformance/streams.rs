//! RFC 9113 5: states of streams, their identifiers and number, errors, and what is not known yet.

use integration::http2::{END_HEADERS, END_STREAM, PRIORITY, block, frame, kind};

use super::codes::{CANCEL, PROTOCOL_ERROR, REFUSED_STREAM, STREAM_CLOSED};
use super::{
    Case, Expected, Step, continuation, data, get, get_block, headers, ping, play, post, priority,
    reset, window_update,
};

/// No window: an answer stays open, so that the client's own end is all that is closed.
const NO_WINDOW: &[(u16, u32)] = &[(4, 0)];
/// Requests at a time on one connection, as the router's settings say.
const MAX_STREAMS: usize = 100;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = states();
    cases.extend(others());
    cases
}

fn states() -> Vec<Case> {
    // The client has ended its direction, the router has not.
    let half_closed = |name, frames: &[Vec<u8>], expected| {
        let sent = [&[get(1)], frames].concat().concat();
        Case::with(name, NO_WINDOW, vec![Step::Send(sent)], expected)
    };
    // Both have ended it.
    let closed = |name, frames: Vec<u8>, expected| {
        Case::new(name, vec![Step::Send(get(1)), Step::Answer(1), Step::Send(frames)], expected)
    };
    let ended = |name, frames, codes| closed(name, frames, Expected::Ends(codes));
    let after_reset = |name, frames: Vec<u8>, codes| {
        Case::resets(name, &[post(1), reset(1, CANCEL), frames], codes)
    };
    let more = || block(&[(b"x-more", b"1")]);
    vec![
        Case::new(
            "9113 5.1: PRIORITY on an idle stream is accepted",
            vec![Step::Send(priority(1, 0, 255))],
            Expected::GoesOn,
        ),
        Case::ends(
            "9113 5.1: DATA on an idle stream ends the connection with PROTOCOL_ERROR",
            &[data(END_STREAM, 1, b"test")],
            &[PROTOCOL_ERROR],
        ),
        Case::ends(
            "9113 5.1: RST_STREAM on an idle stream ends the connection with PROTOCOL_ERROR",
            &[reset(1, CANCEL)],
            &[PROTOCOL_ERROR],
        ),
        Case::ends(
            "9113 5.1: WINDOW_UPDATE on an idle stream ends the connection with PROTOCOL_ERROR",
            &[window_update(1, 100)],
            &[PROTOCOL_ERROR],
        ),
        Case::ends(
            "9113 5.1: CONTINUATION on an idle stream ends the connection with PROTOCOL_ERROR",
            &[continuation(END_HEADERS, 1, &get_block())],
            &[PROTOCOL_ERROR],
        ),
        Case::with(
            "9113 5.1: WINDOW_UPDATE on a half-closed stream is accepted",
            NO_WINDOW,
            vec![Step::Send([get(1), window_update(1, 1)].concat()), Step::Content(1, 1)],
            Expected::GoesOn,
        ),
        Case::with(
            "9113 5.1: PRIORITY on a half-closed stream is accepted",
            NO_WINDOW,
            vec![
                Step::Send([get(1), priority(1, 0, 255), window_update(1, 1)].concat()),
                Step::Content(1, 1),
            ],
            Expected::GoesOn,
        ),
        half_closed(
            "9113 5.1: RST_STREAM on a half-closed stream is accepted",
            &[reset(1, CANCEL)],
            Expected::GoesOn,
        ),
        half_closed(
            "9113 5.1: DATA on a half-closed stream is STREAM_CLOSED",
            &[data(END_STREAM, 1, b"test")],
            Expected::Resets(1, &[STREAM_CLOSED]),
        )
        .unspecific(),
        half_closed(
            "9113 5.1: HEADERS on a half-closed stream are STREAM_CLOSED",
            &[get(1)],
            Expected::Resets(1, &[STREAM_CLOSED]),
        )
        .unspecific(),
        half_closed(
            "9113 5.1: CONTINUATION on a half-closed stream is STREAM_CLOSED or PROTOCOL_ERROR",
            &[continuation(END_HEADERS, 1, &more())],
            Expected::Resets(1, &[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        closed(
            "9113 5.1: PRIORITY on a closed stream is accepted",
            priority(1, 0, 255),
            Expected::GoesOn,
        ),
        after_reset(
            "9113 5.1: DATA behind RST_STREAM is STREAM_CLOSED",
            data(END_STREAM, 1, b"test"),
            &[STREAM_CLOSED],
        ),
        after_reset(
            "9113 5.1: HEADERS behind RST_STREAM are STREAM_CLOSED",
            get(1),
            &[STREAM_CLOSED],
        )
        .unspecific(),
        after_reset(
            "9113 5.1: CONTINUATION behind RST_STREAM is STREAM_CLOSED or PROTOCOL_ERROR",
            continuation(END_HEADERS, 1, &more()),
            &[STREAM_CLOSED, PROTOCOL_ERROR],
        ),
        // RFC 7540 wanted the end of the connection. RFC 9113 lets it be that ("MAY"); the stream alone is enough, and
        // others do not suffer.
        closed(
            "9113 5.1: DATA on a closed stream are STREAM_CLOSED",
            data(END_STREAM, 1, b"test"),
            Expected::Resets(1, &[STREAM_CLOSED]),
        ),
        ended(
            "9113 5.1: HEADERS on a closed stream end the connection with STREAM_CLOSED",
            get(1),
            &[STREAM_CLOSED],
        )
        .unspecific(),
        ended(
            "9113 5.1: CONTINUATION on a closed stream ends the connection with STREAM_CLOSED or PROTOCOL_ERROR",
            continuation(END_HEADERS, 1, &more()),
            &[STREAM_CLOSED, PROTOCOL_ERROR],
        ),
    ]
}

fn others() -> Vec<Case> {
    let on_itself = |stream: u32| [&stream.to_be_bytes()[..], &[255], &get_block()].concat();
    vec![
        Case::ends(
            "9113 5.1.1: a stream with an even identifier ends the connection with PROTOCOL_ERROR",
            &[get(2)],
            &[PROTOCOL_ERROR],
        ),
        Case::ends(
            "9113 5.1.1: a stream with a lower identifier than before ends the connection with PROTOCOL_ERROR",
            &[get(5), get(3)],
            &[PROTOCOL_ERROR],
        ),
        Case::with(
            "9113 5.1.2: a stream beyond the limit is REFUSED_STREAM or PROTOCOL_ERROR",
            NO_WINDOW,
            vec![Step::Streams(MAX_STREAMS + 1, get)],
            Expected::Resets(201, &[REFUSED_STREAM, PROTOCOL_ERROR]),
        ),
        // RFC 9113 has dropped priorities and with them the rule of RFC 7540 5.3.1 that a stream cannot depend on
        // itself. Who still keeps it breaks nothing: no client has a reason to send this.
        Case::resets(
            "9113 5.3.1: HEADERS of a stream that depends on itself are PROTOCOL_ERROR, as in RFC 7540",
            &[headers(END_HEADERS | END_STREAM | PRIORITY, 1, &on_itself(1))],
            &[PROTOCOL_ERROR],
        ),
        Case::resets(
            "9113 5.3.1: PRIORITY of a stream that depends on itself is PROTOCOL_ERROR, as in RFC 7540",
            &[priority(1, 1, 255)],
            &[PROTOCOL_ERROR],
        ),
        Case::new(
            "9113 5.4.1: a connection is closed after an error",
            vec![Step::Send(frame(kind::PING, 0, 0, b"short"))],
            Expected::Closes,
        ),
        Case::ends(
            "9113 5.4.1: GOAWAY tells of an error before the connection is closed",
            &[frame(kind::PING, 0, 0, b"short")],
            &[super::codes::FRAME_SIZE_ERROR],
        )
        .unspecific(),
        Case::new(
            "9113 5.5: a frame of an unknown type is ignored between others",
            vec![
                Step::Send(
                    [ping(0, [1; 8]), frame(0xff, 0, 0, b"extension"), ping(0, [2; 8])].concat(),
                ),
                Step::Pong([1; 8]),
                Step::Pong([2; 8]),
            ],
            Expected::GoesOn,
        ),
        Case::ends(
            "9113 5.5: a frame of an unknown type inside a header block ends the connection with PROTOCOL_ERROR",
            &[headers(END_STREAM, 1, &get_block()), frame(0xff, 0, 0, b"extension")],
            &[PROTOCOL_ERROR],
        ),
    ]
}

#[test]
fn streams_live_as_chapter_5_says() {
    play(&cases());
}
