//! Log lines for people, without colours: byte for byte what `tracing-subscriber` writes, which took three times as long
//! for the line that each webhook has.

use std::fmt::{self, Debug, Write};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::rfc3339::rfc3339;

/// The time, the level, the message and the fields. There are no spans.
pub struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = rfc3339(Timestamp::now());
        out.write_str(std::str::from_utf8(&now).map_err(|_| fmt::Error)?)?;
        out.write_str(level(*event.metadata().level()))?;
        let mut fields = Fields { out, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        fields.out.write_char('\n')
    }
}

/// As wide as the widest.
fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => " ERROR",
        Level::WARN => "  WARN",
        Level::INFO => "  INFO",
        Level::DEBUG => " DEBUG",
        Level::TRACE => " TRACE",
    }
}

/// Writes the message, which comes first, and each field as `name=value`.
struct Fields<'a> {
    out: Writer<'a>,
    result: fmt::Result,
}

impl Fields<'_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let write = || {
            self.out.write_char(' ')?;
            if field.name() != MESSAGE {
                self.out.write_str(field.name())?;
                self.out.write_char('=')?;
            }
            value(&mut self.out)
        };
        if self.result.is_ok() {
            self.result = write();
        }
    }
}

const MESSAGE: &str = "message";

impl Visit for Fields<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, |out| out.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            return self.record_debug(field, &format_args!("{value}"));
        }
        let needs_no_escape = |byte| is_printable(byte) && byte != b'"' && byte != b'\\';
        self.write(field, |out| {
            if !value.bytes().all(needs_no_escape) {
                return write!(out, "{value:?}");
            }
            out.write_char('"')?;
            out.write_str(value)?;
            out.write_char('"')
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, |out| match field.name() {
            MESSAGE => write!(Escaping(out), "{value:?}"),
            _ => write!(out, "{value:?}"),
        });
    }
}

fn is_printable(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte)
}

/// Escapes what a terminal may take for a command, because a message may quote what a caller sent.
struct Escaping<'a, 'b>(&'a mut Writer<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(is_printable) {
            return self.0.write_str(text);
        }
        for character in text.chars() {
            match character {
                '\x07' | '\x08' | '\x0c' | '\x1b' | '\x7f' => {
                    write!(self.0, "\\x{:02x}", u32::from(character))?
                }
                '\u{80}'..='\u{9f}' => write!(self.0, "\\u{{{:x}}}", u32::from(character))?,
                _ => self.0.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::telemetry::captured::Captured;

    /// What was written, but for the times at the begin of the lines.
    fn without_times(lines: &Captured) -> String {
        let length = crate::rfc3339::LENGTH_BYTES;
        lines.take().split_inclusive('\n').map(|line| line.get(length..).unwrap_or(line)).collect()
    }

    /// Each kind of value, and texts that need escapes.
    fn events() {
        let error = io::Error::other("a \u{1b}[31mfault\"");
        tracing::info!(id = %Ipv4Addr::LOCALHOST, integration = "shop", bytes = 2048usize, status = 200u16, "accepted");
        tracing::error!(
            text = "a \"quoted\" \\ \u{1b}[31m \u{9b}2J\n\t é",
            "a message: {}",
            "\u{1b}[31m\u{7}\u{9b}\n é"
        );
        tracing::warn!(%error, ?error, yes = true, negative = -3, ratio = 0.5, long = u128::MAX, some = Some(1));
        tracing::debug!(r#type = "raw", "bytes {:?}", b"\x1b");
        tracing::trace!(message = "given as a field \u{8}\u{c}\u{7f}", "why" = 1);
        let nothing: Option<&str> = None;
        tracing::info!(nothing, "{}", "");
    }

    #[test]
    fn the_lines_are_those_of_tracing_subscriber() {
        let lines = Captured::default();
        let writer = lines.clone();
        let subscriber = move || {
            let writer = writer.clone();
            tracing_subscriber::fmt()
                .with_max_level(Level::TRACE)
                .with_ansi(false)
                .with_target(false)
                .with_writer(move || writer.clone())
        };
        tracing::subscriber::with_default(subscriber().finish(), events);
        let expect = without_times(&lines);
        tracing::subscriber::with_default(subscriber().event_format(Plain).finish(), events);
        assert_eq!(without_times(&lines), expect);
        let first = "  INFO accepted id=127.0.0.1 integration=\"shop\" bytes=2048 status=200\n";
        assert!(
            expect.starts_with(first) && expect.contains("given as a field \\x08\\x0c\\x7f why=1"),
            "{expect}"
        );
    }
}
