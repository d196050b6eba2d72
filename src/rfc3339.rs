//! Time stamps as RFC 3339 writes them, in UTC and to the microsecond: in each job, and at the begin of each log line.

use jiff::Timestamp;
use jiff::tz::Offset;

/// How long they are.
pub const LENGTH_BYTES: usize = "2026-01-02T03:04:05.678901Z".len();

/// The text of a time between the years 0 and 9999; what is finer than a microsecond is cut off.
pub fn rfc3339(time: Timestamp) -> [u8; LENGTH_BYTES] {
    let civil = Offset::UTC.to_datetime(time);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut put = |end: usize, number: i32, digits: usize| {
        let mut rest = number.unsigned_abs();
        for place in (end - digits..end).rev() {
            text[place] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    };
    put(4, civil.year().into(), 4);
    put(7, civil.month().into(), 2);
    put(10, civil.day().into(), 2);
    put(13, civil.hour().into(), 2);
    put(16, civil.minute().into(), 2);
    put(19, civil.second().into(), 2);
    put(26, civil.subsec_nanosecond() / 1000, 6);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_what_jiff_writes(second in -62_167_219_200i64..253_402_207_200, nanosecond in 0i32..1_000_000_000) {
            let time = Timestamp::new(second, nanosecond).unwrap();
            prop_assert_eq!(rfc3339(time).to_vec(), format!("{time:.6}").into_bytes());
        }
    }
}
