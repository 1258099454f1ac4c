//! RFC 9113 7: error codes that nobody knows.

use integration::http2::END_STREAM;

use super::{Case, Expected, Step, data, get, goaway, play, post, reset};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        // Treated like any other: what was begun is answered.
        Case::new(
            "9113 7: GOAWAY with an unknown code does nothing unusual",
            vec![
                Step::Send([post(1), goaway(0xff), data(END_STREAM, 1, b"test")].concat()),
                Step::Answer(1),
            ],
            Expected::Closes,
        ),
        Case::new(
            "9113 7: RST_STREAM with an unknown code does nothing unusual",
            vec![Step::Send([post(1), reset(1, 0xff), get(3)].concat()), Step::Answer(3)],
            Expected::GoesOn,
        ),
    ]
}

#[test]
fn codes_are_read_as_chapter_7_says() {
    play(&cases());
}
