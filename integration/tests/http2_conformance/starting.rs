//! RFC 9113 3: how a connection begins.

use integration::http2::{PREFACE, settings_frame};

use super::{Case, Expected, Step, play};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "9113 3.4: a connection preface is accepted and its settings are acknowledged",
            vec![Step::Acknowledged(1)],
            Expected::GoesOn,
        ),
        Case::bare(
            "9113 3.4: the first frame of the server is SETTINGS",
            vec![Step::Send([PREFACE, &settings_frame(&[])].concat()), Step::SettingsFirst],
            Expected::GoesOn,
        ),
        // Without TLS these are bytes of HTTP/1, and answered as such; 3.4 lets GOAWAY be left out.
        Case::bare(
            "9113 3.4: a connection with an invalid preface is closed",
            vec![Step::Send(b"INVALID CONNECTION PREFACE\r\n\r\n".to_vec())],
            Expected::Closes,
        ),
    ]
}

#[test]
fn connections_begin_as_chapter_3_says() {
    play(&cases());
}
