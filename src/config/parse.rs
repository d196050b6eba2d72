//! Text of a setting into a value. Every function names what it expected.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use bytesize::ByteSize;

use crate::admission::rate::Rate;

/// What was wrong with a setting's text, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Unreadable {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Unreadable { message: message.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Unreadable> {
    text.parse().map_err(|_| {
        Unreadable::new(format!("`{text}` isn't an address with a port"))
            .hint("write 0.0.0.0:8080, 127.0.0.1:8080 or [::]:8080")
    })
}

/// A resolver's address, on the port of DNS unless another is given.
pub(super) fn resolver_address(text: &str) -> Result<SocketAddr, Unreadable> {
    const DNS_PORT: u16 = 53;
    let address = text.parse().map(|address: IpAddr| SocketAddr::new(address, DNS_PORT));
    address.or_else(|_| text.parse()).map_err(|_| {
        Unreadable::new(format!("`{text}` isn't an address"))
            .hint("write 127.0.0.1, 127.0.0.1:5353 or [::1]:53")
    })
}

/// A size in bytes: `5MiB`, `512KiB`, `1048576`.
pub(super) fn size_bytes(text: &str) -> Result<usize, Unreadable> {
    let unreadable =
        || Unreadable::new(format!("`{text}` isn't a size")).hint("write 5MiB, 512KiB or a number of bytes");
    let size: ByteSize = text.parse().map_err(|_| unreadable())?;
    match usize::try_from(size.as_u64()) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(unreadable()),
    }
}

/// A duration: `5s`, `100ms`, `1m 30s`; `0` where `zero` allows it.
/// For how long repeats are known: a second to thirty days.
pub(super) fn window(text: &str) -> Result<Duration, Unreadable> {
    const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    let parsed = humantime::parse_duration(text).ok();
    parsed
        .filter(|window| (Duration::from_secs(1)..=LONGEST).contains(window))
        .ok_or_else(|| Unreadable::new(format!("`{text}` isn't a time from 1s to 30days")).hint("write 72h"))
}

pub(super) fn duration(text: &str, zero: bool) -> Result<Duration, Unreadable> {
    let parsed = if text == "0" { Some(Duration::ZERO) } else { humantime::parse_duration(text).ok() };
    parsed
        .filter(|duration| zero || !duration.is_zero())
        .filter(|duration| *duration <= Duration::from_secs(24 * 60 * 60))
        .ok_or_else(|| {
            Unreadable::new(format!("`{text}` isn't a duration within a day")).hint("write 100ms, 5s or 2m")
        })
}

/// A count from 1 to a million.
pub(super) fn count(text: &str) -> Result<usize, Unreadable> {
    text.parse().ok().filter(|count| (1..=1_000_000).contains(count)).ok_or_else(|| {
        Unreadable::new(format!("`{text}` isn't a whole number from 1 to 1000000"))
            .hint("write a number such as 4096")
    })
}

/// A depth from 1 to 256. Deeper than that, readers of the jobs begin to fail.
pub(super) fn depth(text: &str) -> Result<usize, Unreadable> {
    text.parse().ok().filter(|depth| (1..=256).contains(depth)).ok_or_else(|| {
        Unreadable::new(format!("`{text}` isn't a whole number from 1 to 256"))
            .hint("write a number such as 64")
    })
}

/// A rate: `100/s`, `600/m`, `1000/h`.
pub(super) fn rate(text: &str) -> Result<Rate, Unreadable> {
    let unreadable =
        || Unreadable::new(format!("`{text}` isn't a rate")).hint("write 100/s, 600/m or 1000/h");
    let (number, unit) = text.split_once('/').ok_or_else(unreadable)?;
    let count: NonZeroU32 = number.trim().parse().map_err(|_| unreadable())?;
    let per = match unit.trim() {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return Err(unreadable()),
    };
    Ok(Rate { count, per })
}

/// The name of an app: it becomes part of Redis keys, between braces.
pub(super) fn app_name(text: &str) -> Result<String, Unreadable> {
    if is_identifier(text) {
        Ok(text.to_owned())
    } else {
        Err(Unreadable::new(format!("`{text}` isn't a name for an app"))
            .hint("use 1 to 64 characters of A-Z a-z 0-9 _ -"))
    }
}

/// An integration's id.
pub(super) fn integration_id(text: &str) -> Result<String, Unreadable> {
    if is_identifier(text) {
        Ok(text.to_owned())
    } else {
        Err(Unreadable::new(format!("`{text}` isn't an integration id"))
            .hint("use 1 to 64 characters of A-Z a-z 0-9 _ -"))
    }
}

fn is_identifier(text: &str) -> bool {
    crate::integration::is_id(text)
}

/// The items of a comma-separated setting, trimmed, without empty ones.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units() {
        for (input, expect) in [
            ("5MiB", Some(5 << 20)),
            ("512KiB", Some(512 << 10)),
            ("1048576", Some(1 << 20)),
            ("1kB", Some(1000)),
            ("0", None),
            ("5MX", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(size_bytes(input).ok(), expect, "{input}");
        }
    }

    #[test]
    fn a_resolver_has_an_address_and_perhaps_a_port() {
        for (input, expect) in [
            ("127.0.0.1:5353", Some("127.0.0.1:5353")),
            ("127.0.0.1", Some("127.0.0.1:53")),
            ("::1", Some("[::1]:53")),
            ("[::1]:5353", Some("[::1]:5353")),
            ("localhost:53", None),
            ("5353", None),
        ] {
            let read = resolver_address(input).ok().map(|address| address.to_string());
            assert_eq!(read.as_deref(), expect, "{input}");
        }
    }

    #[test]
    fn durations_are_bounded_and_zero_only_where_it_makes_sense() {
        for (input, zero, expect) in [
            ("100ms", false, Some(Duration::from_millis(100))),
            ("1m 30s", false, Some(Duration::from_secs(90))),
            ("0", true, Some(Duration::ZERO)),
            ("0", false, None),
            ("0s", false, None),
            ("5", false, None),
            ("25h", false, None),
            ("soon", false, None),
        ] {
            assert_eq!(duration(input, zero).ok(), expect, "{input}");
        }
    }

    #[test]
    fn rates_have_a_count_and_a_unit() {
        for (input, expect) in [
            ("100/s", Some((100, 1))),
            ("600 / m", Some((600, 60))),
            ("1000/h", Some((1000, 3600))),
            ("0/s", None),
            ("100", None),
            ("100/d", None),
        ] {
            let read = rate(input).ok().map(|rate| (rate.count.get(), rate.per.as_secs()));
            assert_eq!(read, expect, "{input}");
        }
    }
}
