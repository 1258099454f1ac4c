//! RFC 9113 6: each type of frame.

use integration::http2::{
    ACK, END_HEADERS, END_STREAM, PADDED, PRIORITY, block, frame, kind, settings_frame,
};

use super::codes::{CANCEL, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, STREAM_CLOSED};
use super::{
    ANSWER, Case, Expected, Step, continuation, data, get, get_block, goaway, headers, ping, play,
    post, priority, reset, window_update,
};

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
const WINDOW: u16 = 4;
/// The bit of a dependency that makes it exclusive.
const EXCLUSIVE: u32 = 1 << 31;
/// The largest window there is (RFC 9113 6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;

pub(crate) fn cases() -> Vec<Case> {
    [data_and_headers(), priorities_and_resets(), settings(), pings(), windows(), continuations()]
        .into_iter()
        .flatten()
        .collect()
}

fn data_and_headers() -> Vec<Case> {
    let whole = END_HEADERS | END_STREAM;
    let padded = |length: u8, content: &[u8], padding: usize| {
        [&[length], content, &vec![0; padding][..]].concat()
    };
    vec![
        Case::answered("9113 6.1: DATA is accepted", &[post(1), data(END_STREAM, 1, b"test")], &[]),
        Case::answered(
            "9113 6.1: several DATA are accepted",
            &[post(1), data(0, 1, b"test"), data(END_STREAM, 1, b"test")],
            &[],
        ),
        Case::answered(
            "9113 6.1: padded DATA are accepted",
            &[post(1), data(END_STREAM | PADDED, 1, &padded(6, b"test", 6))],
            &[],
        ),
        Case::ends(
            "9113 6.1: DATA on stream 0 end the connection with PROTOCOL_ERROR",
            &[data(END_STREAM, 0, b"test")],
            &[PROTOCOL_ERROR],
        ),
        Case::with(
            "9113 6.1: DATA on a stream that takes none are STREAM_CLOSED",
            &[(WINDOW, 0)],
            vec![Step::Send(get(1)), Step::Head(1), Step::Send(data(END_STREAM, 1, b"test"))],
            Expected::Resets(1, &[STREAM_CLOSED]),
        )
        .unspecific(),
        Case::ends(
            "9113 6.1: DATA with more padding than content end the connection with PROTOCOL_ERROR",
            &[post(1), data(END_STREAM | PADDED, 1, &padded(6, b"test", 1))],
            &[PROTOCOL_ERROR],
        ),
        Case::answered("9113 6.2: HEADERS are accepted", &[get(1)], &[]),
        Case::answered(
            "9113 6.2: padded HEADERS are accepted",
            &[headers(whole | PADDED, 1, &padded(8, &get_block(), 8))],
            &[],
        ),
        Case::answered(
            "9113 6.2: HEADERS with a priority are accepted",
            &[headers(whole | PRIORITY, 1, &[&[0, 0, 0, 0, 255][..], &get_block()].concat())],
            &[],
        ),
        Case::ends(
            "9113 6.2: HEADERS without an end and PRIORITY behind them end the connection with PROTOCOL_ERROR",
            &[headers(0, 1, &get_block()), priority(3, 0, 255)],
            &[PROTOCOL_ERROR],
        ),
        Case::ends(
            "9113 6.2: HEADERS without an end and HEADERS of another stream behind them end the connection with PROTOCOL_ERROR",
            &[headers(0, 1, &get_block()), headers(whole, 3, &get_block())],
            &[PROTOCOL_ERROR],
        ),
        Case::ends(
            "9113 6.2: HEADERS on stream 0 end the connection with PROTOCOL_ERROR",
            &[headers(whole, 0, &get_block())],
            &[PROTOCOL_ERROR],
        ),
        Case::ends(
            "9113 6.2: HEADERS with more padding than content end the connection with PROTOCOL_ERROR",
            &[headers(whole | PADDED, 1, &padded(255, &get_block(), 1))],
            &[PROTOCOL_ERROR],
        ),
    ]
}

fn priorities_and_resets() -> Vec<Case> {
    let before = |name, priority| Case::answered(name, &[priority, get(1)], &[]);
    let before_post = |frames: &[Vec<u8>]| [&[post(1)], frames].concat();
    vec![
        // RFC 9113 5.3 has deprecated priorities: they are read and change nothing.
        before("9113 6.3: PRIORITY with the least weight is accepted", priority(1, 0, 0)),
        before("9113 6.3: PRIORITY with the greatest weight is accepted", priority(1, 0, 255)),
        before("9113 6.3: PRIORITY with a dependency is accepted", priority(3, 1, 0)),
        before("9113 6.3: exclusive PRIORITY is accepted", priority(1, EXCLUSIVE, 0)),
        before(
            "9113 6.3: PRIORITY of a later stream does not use up earlier ones",
            priority(3, 0, 255),
        ),
        Case::ends(
            "9113 6.3: PRIORITY on stream 0 ends the connection with PROTOCOL_ERROR",
            &[priority(0, 1, 255)],
            &[PROTOCOL_ERROR],
        ),
        Case::resets(
            "9113 6.3: PRIORITY of another length than 5 is FRAME_SIZE_ERROR",
            &before_post(&[frame(kind::PRIORITY, 0, 1, &[0x80, 0, 0, 1])]),
            &[FRAME_SIZE_ERROR],
        ).unspecific(),
        Case::new(
            "9113 6.4: RST_STREAM is accepted",
            vec![Step::Send([post(1), reset(1, CANCEL), get(3)].concat()), Step::Answer(3)],
            Expected::GoesOn,
        ),
        Case::ends(
            "9113 6.4: RST_STREAM on stream 0 ends the connection with PROTOCOL_ERROR",
            &[reset(0, CANCEL)],
            &[PROTOCOL_ERROR],
        ),
        Case::ends(
            "9113 6.4: RST_STREAM on a stream that never was ends the connection with PROTOCOL_ERROR",
            &[get(1), reset(3, CANCEL)],
            &[PROTOCOL_ERROR],
        ),
        Case::ends(
            "9113 6.4: RST_STREAM of another length than 4 ends the connection with FRAME_SIZE_ERROR",
            &before_post(&[frame(kind::RST_STREAM, 0, 1, &[0, 0, 0])]),
            &[FRAME_SIZE_ERROR],
        ).unspecific(),
    ]
}

fn settings() -> Vec<Case> {
    let ends = |name, setting, codes| Case::ends(name, &[settings_frame(&[setting])], codes);
    vec![
        Case::new(
            "9113 6.5: SETTINGS are accepted",
            vec![Step::Send(settings_frame(&[(3, 100)])), Step::Acknowledged(2)],
            Expected::GoesOn,
        ),
        Case::ends(
            "9113 6.5: SETTINGS that acknowledge and have content end the connection with FRAME_SIZE_ERROR",
            &[frame(kind::SETTINGS, ACK, 0, &[0])],
            &[FRAME_SIZE_ERROR],
        ).unspecific(),
        Case::ends(
            "9113 6.5: SETTINGS on a stream end the connection with PROTOCOL_ERROR",
            &[frame(kind::SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100])],
            &[PROTOCOL_ERROR],
        ),
        Case::ends(
            "9113 6.5: SETTINGS of a length that is no multiple of 6 end the connection with FRAME_SIZE_ERROR",
            &[frame(kind::SETTINGS, 0, 0, &[0, 3, 0])],
            &[FRAME_SIZE_ERROR],
        ).unspecific(),
        ends(
            "9113 6.5.2: ENABLE_PUSH other than 0 and 1 ends the connection with PROTOCOL_ERROR",
            (2, 2),
            &[PROTOCOL_ERROR],
        ),
        ends(
            "9113 6.5.2: INITIAL_WINDOW_SIZE beyond 2^31-1 ends the connection with FLOW_CONTROL_ERROR",
            (WINDOW, MAX_WINDOW + 1),
            &[FLOW_CONTROL_ERROR],
        ).unspecific(),
        ends(
            "9113 6.5.2: MAX_FRAME_SIZE below 2^14 ends the connection with PROTOCOL_ERROR",
            (5, (1 << 14) - 1),
            &[PROTOCOL_ERROR],
        ),
        ends(
            "9113 6.5.2: MAX_FRAME_SIZE beyond 2^24-1 ends the connection with PROTOCOL_ERROR",
            (5, 1 << 24),
            &[PROTOCOL_ERROR],
        ),
        Case::new(
            "9113 6.5.2: an unknown setting is ignored",
            vec![Step::Send([settings_frame(&[(0xff, 1)]), get(1)].concat()), Step::Answer(1)],
            Expected::GoesOn,
        ),
        Case::new(
            "9113 6.5.3: of one setting sent twice the last counts",
            vec![
                Step::Send([settings_frame(&[(WINDOW, 100), (WINDOW, 1)]), get(1)].concat()),
                Step::Content(1, 1),
            ],
            Expected::GoesOn,
        ),
        Case::new(
            "9113 6.5.3: SETTINGS are acknowledged at once",
            vec![Step::Acknowledged(1), Step::Send(settings_frame(&[])), Step::Acknowledged(1)],
            Expected::GoesOn,
        ),
    ]
}

fn pings() -> Vec<Case> {
    vec![
        Case::new(
            "9113 6.7: PING is accepted",
            vec![Step::Send([ping(0, [0; 8]), get(1)].concat()), Step::Answer(1)],
            Expected::GoesOn,
        ),
        Case::new(
            "9113 6.7: PING is answered with its own content",
            vec![Step::Send(ping(0, *b"question")), Step::Pong(*b"question")],
            Expected::GoesOn,
        ),
        Case::new(
            "9113 6.7: PING that is an answer is not answered",
            vec![
                Step::Send([ping(ACK, *b"unwanted"), ping(0, *b"question")].concat()),
                Step::Pong(*b"question"),
            ],
            Expected::GoesOn,
        ),
        Case::ends(
            "9113 6.7: PING on a stream ends the connection with PROTOCOL_ERROR",
            &[frame(kind::PING, 0, 1, &[0; 8])],
            &[PROTOCOL_ERROR],
        ),
        Case::ends(
            "9113 6.7: PING of another length than 8 ends the connection with FRAME_SIZE_ERROR",
            &[frame(kind::PING, 0, 0, &[0; 6])],
            &[FRAME_SIZE_ERROR],
        )
        .unspecific(),
        // What was begun before it is still answered.
        Case::new(
            "9113 6.8: GOAWAY is accepted",
            vec![
                Step::Send([post(1), goaway(0), data(END_STREAM, 1, b"test")].concat()),
                Step::Answer(1),
            ],
            Expected::Closes,
        ),
        Case::ends(
            "9113 6.8: GOAWAY on a stream ends the connection with PROTOCOL_ERROR",
            &[frame(kind::GOAWAY, 0, 1, &[0; 8])],
            &[PROTOCOL_ERROR],
        ),
    ]
}

fn windows() -> Vec<Case> {
    let window = |size| settings_frame(&[(WINDOW, size)]);
    let rest = u32::try_from(ANSWER.len()).expect("short") - 3;
    vec![
        Case::answered(
            "9113 6.9: WINDOW_UPDATE of the connection is accepted",
            &[window_update(0, 1), get(1)],
            &[],
        ),
        Case::answered(
            "9113 6.9: WINDOW_UPDATE of a stream is accepted",
            &[post(1), window_update(1, 1), data(END_STREAM, 1, b"test")],
            &[],
        ),
        Case::ends(
            "9113 6.9: WINDOW_UPDATE of the connection by 0 ends it with PROTOCOL_ERROR",
            &[window_update(0, 0)],
            &[PROTOCOL_ERROR],
        ),
        Case::resets(
            "9113 6.9: WINDOW_UPDATE of a stream by 0 is PROTOCOL_ERROR",
            &[post(1), window_update(1, 0)],
            &[PROTOCOL_ERROR],
        ),
        Case::ends(
            "9113 6.9: WINDOW_UPDATE of another length than 4 ends the connection with FRAME_SIZE_ERROR",
            &[frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 1])],
            &[FRAME_SIZE_ERROR],
        ).unspecific(),
        Case::with(
            "9113 6.9.1: no more content is sent than the window allows",
            &[(WINDOW, 1)],
            vec![Step::Send(get(1)), Step::Content(1, 1)],
            Expected::GoesOn,
        ),
        Case::ends(
            "9113 6.9.1: a window of the connection beyond 2^31-1 ends it with FLOW_CONTROL_ERROR",
            &[window_update(0, MAX_WINDOW), window_update(0, MAX_WINDOW)],
            &[FLOW_CONTROL_ERROR],
        ),
        Case::resets(
            "9113 6.9.1: a window of a stream beyond 2^31-1 is FLOW_CONTROL_ERROR",
            &[post(1), window_update(1, MAX_WINDOW), window_update(1, MAX_WINDOW)],
            &[FLOW_CONTROL_ERROR],
        ),
        Case::with(
            "9113 6.9.2: a changed INITIAL_WINDOW_SIZE changes the windows of all streams",
            &[(WINDOW, 0)],
            vec![Step::Send(get(1)), Step::Head(1), Step::Send(window(1)), Step::Content(1, 1)],
            Expected::GoesOn,
        ),
        Case::with(
            "9113 6.9.2: a window that became negative is kept account of",
            &[(WINDOW, 3)],
            vec![
                Step::Send(get(1)),
                Step::Content(1, 3),
                Step::Send(window(2)),
                Step::Acknowledged(1),
                Step::Send(window_update(1, 2)),
                Step::Content(1, 1),
                Step::Send(window_update(1, rest)),
                Step::Content(1, ANSWER.len() - 4),
            ],
            Expected::GoesOn,
        ),
        Case::ends(
            "9113 6.9.2: INITIAL_WINDOW_SIZE that makes a window exceed 2^31-1 ends the connection with FLOW_CONTROL_ERROR",
            &[post(1), window_update(1, 1), window(MAX_WINDOW)],
            &[FLOW_CONTROL_ERROR],
        ),
    ]
}

fn continuations() -> Vec<Case> {
    let fields = get_block();
    let (first, rest) = fields.split_at(10);
    let (second, third) = rest.split_at(10);
    let begun = || headers(END_STREAM, 1, &get_block());
    let more = block(&[(b"x-more", b"1")]);
    let last = || continuation(END_HEADERS, 1, &more);
    let ends = |name, frames: &[Vec<u8>]| Case::ends(name, frames, &[PROTOCOL_ERROR]);
    vec![
        Case::answered(
            "9113 6.10: CONTINUATION is accepted",
            &[begun(), last()],
            &[("x-more", "1")],
        ),
        Case::answered(
            "9113 6.10: several CONTINUATION are accepted",
            &[begun(), continuation(0, 1, &block(&[(b"x-first", b"1")])), last()],
            &[("x-first", "1"), ("x-more", "1")],
        ),
        Case::answered(
            "9113 6.10: several CONTINUATION that cut fields in the middle are accepted",
            &[
                headers(END_STREAM, 1, first),
                continuation(0, 1, second),
                continuation(END_HEADERS, 1, third),
            ],
            &[],
        ),
        ends(
            "9113 6.10: another frame behind CONTINUATION without an end ends the connection with PROTOCOL_ERROR",
            &[headers(0, 1, &get_block()), continuation(0, 1, &more), data(END_STREAM, 1, b"test")],
        ),
        ends(
            "9113 6.10: CONTINUATION on stream 0 ends the connection with PROTOCOL_ERROR",
            &[begun(), continuation(END_HEADERS, 0, &more)],
        ),
        ends(
            "9113 6.10: CONTINUATION behind HEADERS that had an end ends the connection with PROTOCOL_ERROR",
            &[post(1), last()],
        ),
        ends(
            "9113 6.10: CONTINUATION behind CONTINUATION that had an end ends the connection with PROTOCOL_ERROR",
            &[headers(0, 1, &get_block()), last(), last()],
        ),
        ends(
            "9113 6.10: CONTINUATION behind DATA ends the connection with PROTOCOL_ERROR",
            &[post(1), data(0, 1, b"test"), last()],
        ),
    ]
}

#[test]
fn frames_do_what_chapter_6_says() {
    play(&cases());
}
