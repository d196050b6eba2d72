//! Character sets: which one a label names, and bytes to text without ever replacing a character.

use std::borrow::Cow;

use encoding_rs::{DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// A character set by its label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Charset {
    /// The first 128 characters and nothing else.
    Ascii,
    /// ISO-8859-1 as ISO defines it. The Encoding Standard, and so `encoding_rs`, takes the
    /// label for Windows-1252, which differs from 0x80 to 0x9F.
    Latin1,
    /// UTF-16 in either byte order.
    Utf16,
    /// Any other of the Encoding Standard.
    Other(&'static Encoding),
}

/// Bytes that aren't valid in their character set.
#[derive(Debug)]
pub(super) struct Invalid {
    /// The text before them.
    pub before: String,
}

impl Charset {
    /// UTF-8.
    pub const UTF8: Charset = Charset::Other(UTF_8);

    /// The character set of a label, in any case. The Encoding Standard's replacement encodings aren't known.
    pub fn find(label: &str) -> Option<Charset> {
        let label = label.trim_ascii();
        if label.eq_ignore_ascii_case("utf-8") {
            return Some(Charset::UTF8);
        }
        let label = label.to_ascii_lowercase();
        match label.as_str() {
            "us-ascii" | "ascii" | "ansi_x3.4-1968" | "iso646-us" => Some(Charset::Ascii),
            "iso-8859-1" | "iso8859-1" | "iso_8859-1" | "iso88591" | "latin1" | "l1" | "cp819" | "ibm819" => {
                Some(Charset::Latin1)
            }
            "utf-16" | "utf16" | "iso-10646-ucs-2" | "ucs-2" => Some(Charset::Utf16),
            _ => Encoding::for_label_no_replacement(label.as_bytes()).map(Charset::Other),
        }
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Charset::Ascii => "US-ASCII",
            Charset::Latin1 => "ISO-8859-1",
            // RFC 2781, section 4.3: without a mark, big-endian.
            Charset::Utf16 => UTF_16BE.name(),
            Charset::Other(encoding) => encoding.name(),
        }
    }

    /// Whether text in `encoding` may say that it is in this one.
    pub fn permits(self, encoding: &'static Encoding) -> bool {
        self == Charset::Other(encoding) || (self == Charset::Utf16 && is_utf16(encoding))
    }

    /// Bytes without a byte order mark to text. Valid UTF-8 is borrowed, other text takes at most three times the
    /// size of `bytes`.
    pub fn decode(self, bytes: &[u8]) -> Result<Cow<'_, str>, Invalid> {
        let invalid_from = |at: usize| {
            let valid = bytes.get(..at).unwrap_or_default();
            Invalid { before: String::from_utf8_lossy(valid).into_owned() }
        };
        match self {
            Charset::Other(encoding) if encoding == UTF_8 => {
                str::from_utf8(bytes).map(Cow::Borrowed).map_err(|error| invalid_from(error.valid_up_to()))
            }
            Charset::Ascii => match bytes.iter().position(|byte| !byte.is_ascii()) {
                None => Ok(String::from_utf8_lossy(bytes)),
                Some(at) => Err(invalid_from(at)),
            },
            Charset::Latin1 => Ok(encoding_rs::mem::decode_latin1(bytes)),
            Charset::Utf16 => decode_other(bytes, UTF_16BE).map(Cow::Owned),
            Charset::Other(encoding) => decode_other(bytes, encoding).map(Cow::Owned),
        }
    }
}

pub(super) fn is_utf16(encoding: &'static Encoding) -> bool {
    encoding == UTF_16LE || encoding == UTF_16BE
}

fn decode_other(bytes: &[u8], encoding: &'static Encoding) -> Result<String, Invalid> {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let capacity = decoder.max_utf8_buffer_length_without_replacement(bytes.len());
    let mut text = String::with_capacity(capacity.unwrap_or(bytes.len()));
    let (result, _) = decoder.decode_to_string_without_replacement(bytes, &mut text, true);
    match result {
        DecoderResult::InputEmpty => Ok(text),
        _ => Err(Invalid { before: text }),
    }
}
