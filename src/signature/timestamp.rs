//! Signed times: how a sender writes them, and how far from now they may be.

use std::time::Duration;

use jiff::Timestamp;

use super::reason::{Reason, Unverified};

/// The tolerance where a sender names none, both ways: Standard Webhooks, Stripe, Slack and HubSpot all use it.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Whole seconds since 1970.
    Seconds,
    /// Whole milliseconds since 1970.
    Milliseconds,
    /// RFC 3339.
    Rfc3339,
    /// Whole seconds or milliseconds since 1970, told apart by the number of digits.
    SecondsOrMilliseconds,
}

impl Unit {
    /// Milliseconds since 1970; none unless the text is exactly so written. No sign, no fraction, no exponent, no
    /// leading zero and no white space: every other spelling is somebody trying.
    pub fn parse(self, text: &str) -> Option<i64> {
        match self {
            Unit::Seconds => whole(text, 11)?.checked_mul(1000),
            Unit::Milliseconds => whole(text, 14),
            Unit::SecondsOrMilliseconds if text.len() <= 11 => Unit::Seconds.parse(text),
            Unit::SecondsOrMilliseconds => Unit::Milliseconds.parse(text),
            Unit::Rfc3339 if text.len() <= 35 && text.as_bytes().get(10) == Some(&b'T') => {
                text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
            }
            Unit::Rfc3339 => None,
        }
    }
}

fn whole(text: &str, digits: usize) -> Option<i64> {
    let is_plain = (1..=digits).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok()
}

/// A signed time: how it is written, and how far from now it may be. Without a tolerance only its form is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// How the time is written.
    pub unit: Unit,
    /// The furthest from now, both ways. None where retries carry the first attempt's time.
    pub tolerance: Option<Duration>,
}

impl Clock {
    pub(super) fn check(self, text: &str, now: Timestamp) -> Result<(), Unverified> {
        let signed = self.unit.parse(text).ok_or(Reason::MalformedTimestamp)?;
        let Some(tolerance) = self.tolerance else { return Ok(()) };
        let age = i128::from(now.as_millisecond()) - i128::from(signed);
        if age.unsigned_abs() <= tolerance.as_millis() {
            Ok(())
        } else if age > 0 {
            Err(Reason::StaleTimestamp.into())
        } else {
            Err(Reason::FutureTimestamp.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_numbers_and_times_are_read() {
        for (unit, text, expect) in [
            (Unit::Seconds, "1531420618", Some(1_531_420_618_000)),
            (Unit::Seconds, "0", Some(0)),
            (Unit::Seconds, "99999999999", Some(99_999_999_999_000)),
            (Unit::Milliseconds, "1700000000000", Some(1_700_000_000_000)),
            (Unit::SecondsOrMilliseconds, "1700000000", Some(1_700_000_000_000)),
            (Unit::SecondsOrMilliseconds, "1700000000000", Some(1_700_000_000_000)),
            (Unit::Rfc3339, "2021-03-25T05:09:27Z", Some(1_616_648_967_000)),
            (Unit::Rfc3339, "2021-03-25T06:09:27.5+01:00", Some(1_616_648_967_500)),
            (Unit::Rfc3339, "2021-03-25", None),
            (Unit::Rfc3339, "2021-03-25 05:09:27Z", None),
            (Unit::Rfc3339, "1616648967", None),
            (Unit::Rfc3339, "2021-03-25T05:09:27", None),
        ] {
            assert_eq!(unit.parse(text), expect, "{unit:?} {text:?}");
        }
        let wrong = "|1e3|1E3|-0|-1|+1|1.0|1.|.5| 1|1 |1_000|0x10|01|007|١٢٣|1\0|NaN|inf|null|true";
        let overflows = "|100000000000000|9223372036854775807|9223372036854775808|18446744073709551616";
        for unit in [Unit::Seconds, Unit::Milliseconds, Unit::SecondsOrMilliseconds, Unit::Rfc3339] {
            for text in wrong.split('|').chain(overflows.split('|')) {
                assert_eq!(unit.parse(text), None, "{unit:?} {text:?}");
            }
            assert_eq!(unit.parse(&"9".repeat(1000)), None);
        }
    }

    #[test]
    fn the_tolerance_counts_both_ways() {
        let now: Timestamp = "2023-11-14T22:13:20Z".parse().unwrap();
        let check = |tolerance, text| {
            let clock = Clock { unit: Unit::Seconds, tolerance };
            clock.check(text, now).map_err(|unverified| unverified.reason())
        };
        let five_minutes = Some(TOLERANCE);
        assert_eq!(check(five_minutes, "1700000000"), Ok(()));
        assert_eq!(check(five_minutes, "1699999700"), Ok(()));
        assert_eq!(check(five_minutes, "1699999699"), Err(Reason::StaleTimestamp));
        assert_eq!(check(five_minutes, "1700000300"), Ok(()));
        assert_eq!(check(five_minutes, "1700000301"), Err(Reason::FutureTimestamp));
        assert_eq!(check(five_minutes, "0"), Err(Reason::StaleTimestamp));
        assert_eq!(check(five_minutes, "99999999999"), Err(Reason::FutureTimestamp));
        assert_eq!(check(five_minutes, "1.7e9"), Err(Reason::MalformedTimestamp));
        assert_eq!(check(None, "0"), Ok(()));
        assert_eq!(check(None, "-0"), Err(Reason::MalformedTimestamp));
        assert_eq!(check(Some(Duration::MAX), "0"), Ok(()));
    }
}
