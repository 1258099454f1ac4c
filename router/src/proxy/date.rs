//! The value of `Date` (RFC 9110 6.6.1), made once a second.

use std::sync::Mutex;

use jiff::Timestamp;
use shared::lock::lock;

/// Bytes of `Tue, 15 Nov 1994 08:12:31 GMT`.
const LENGTH: usize = 29;

/// The text and the Unix second that it shows.
#[derive(Debug, Default)]
pub struct Dates(Mutex<(i64, [u8; LENGTH])>);

impl Dates {
    /// The text for now.
    pub fn now(&self) -> [u8; LENGTH] {
        self.at(Timestamp::now())
    }

    fn at(&self, now: Timestamp) -> [u8; LENGTH] {
        let (second, text) = &mut *lock(&self.0);
        if *second != now.as_second() {
            *second = now.as_second();
            let made = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            if let Ok(made) = made.as_bytes().try_into() {
                *text = made;
            }
        }
        *text
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::Dates;

    /// RFC 9110 5.6.7, its example.
    #[test]
    fn the_date_is_an_imf_fixdate_of_the_current_second() {
        let dates = Dates::default();
        let at = |second| {
            String::from_utf8(dates.at(Timestamp::from_second(second).unwrap()).to_vec()).unwrap()
        };
        assert_eq!(at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(784_111_778), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
