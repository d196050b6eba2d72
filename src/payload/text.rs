//! Text (`text/plain`, `text/csv` and other `text/…`) becomes a JSON string.

use std::borrow::Cow;

use encoding_rs::Encoding;

use super::charset::Charset;
use super::{Format, PayloadError, position_of, shown};

/// Decodes a text and removes its byte order mark. The character set is that of the mark, else `label`'s (the
/// `charset` of the content type), else UTF-8. Valid UTF-8 is borrowed, other text takes at most three times the size
/// of `body`.
///
/// # Errors
/// The label isn't known or contradicts the mark, or the bytes aren't valid: nothing is ever replaced.
pub fn decode<'b>(body: &'b [u8], label: Option<&str>) -> Result<Cow<'b, str>, PayloadError> {
    let unknown = |label: &str| PayloadError::Charset(shown(label.as_bytes()));
    let labelled = label.map(|label| Charset::find(label).ok_or_else(|| unknown(label))).transpose()?;
    let (charset, content) = match (Encoding::for_bom(body), labelled) {
        (Some((encoding, _)), Some(charset)) if !charset.permits(encoding) => {
            let message =
                format!("its byte order mark is that of {}, not of {}", encoding.name(), charset.name());
            return Err(malformed(message, b""));
        }
        (Some((encoding, mark_bytes)), _) => (Charset::Other(encoding), &body[mark_bytes..]),
        (None, charset) => (charset.unwrap_or(Charset::UTF8), body),
    };
    charset
        .decode(content)
        .map_err(|invalid| malformed(format!("it isn't {}", charset.name()), invalid.before.as_bytes()))
}

/// Converts a text to the text of a JSON string.
///
/// # Errors
/// Those of [`decode`].
pub fn convert(body: &[u8], label: Option<&str>) -> Result<Vec<u8>, PayloadError> {
    let text = decode(body, label)?;
    let mut json = Vec::with_capacity(text.len() + text.len() / 16 + 2);
    crate::job::write_string(&mut json, &text);
    Ok(json)
}

fn malformed(message: String, before: &[u8]) -> PayloadError {
    PayloadError::Malformed { format: Format::Text, message, position: position_of(before, before.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_decoded_by_its_mark_its_label_or_as_utf8() {
        for (body, label, expect) in [
            (&b"a,b\r\n1,\"x\"\r\n"[..], None, "a,b\r\n1,\"x\"\r\n"),
            ("é".as_bytes(), None, "é"),
            ("é".as_bytes(), Some("UTF-8"), "é"),
            ("\u{feff}é".as_bytes(), Some("utf8"), "é"),
            (b"\xE9\x80", Some("iso-8859-1"), "é\u{80}"),
            (b"\xE9\x80", Some("windows-1252"), "é€"),
            (b"\x83\x65", Some("Shift_JIS"), "テ"),
            (b"\xFF\xFEa\0", None, "a"),
            (b"\xFE\xFF\0a", Some("utf-16"), "a"),
            (b"\0a", Some("utf-16"), "a"),
            (b"a\0", Some("utf-16le"), "a"),
            (b"\0", None, "\0"),
            (b"", None, ""),
        ] {
            assert_eq!(decode(body, label).as_deref(), Ok(expect), "{body:?} {label:?}");
        }
    }

    #[test]
    fn lies_and_unknown_labels_are_refused() {
        for (body, label, expect) in [
            (&b"ab\n\xE9"[..], None, "The text body is malformed: it isn't UTF-8 at line 2, column 1"),
            (b"\xE9", Some("utf-8"), "The text body is malformed: it isn't UTF-8 at line 1, column 1"),
            (
                "é".as_bytes(),
                Some("us-ascii"),
                "The text body is malformed: it isn't US-ASCII at line 1, column 1",
            ),
            (b"\0a\0", Some("utf-16"), "The text body is malformed: it isn't UTF-16BE at line 1, column 2"),
            (
                b"\xFF\xFEa\0",
                Some("iso-8859-1"),
                "The text body is malformed: its byte order mark is that of UTF-16LE, not of ISO-8859-1 at line 1, column 1",
            ),
            (b"a", Some("utf-7"), "The charset utf-7 isn't supported for this content type; send UTF-8"),
            (
                b"a",
                Some("iso-2022-kr"),
                "The charset iso-2022-kr isn't supported for this content type; send UTF-8",
            ),
        ] {
            assert_eq!(decode(body, label).unwrap_err().to_string(), expect);
        }
    }

    #[test]
    fn a_text_becomes_a_json_string() {
        assert_eq!(convert(b"a\r\n\"b\"\x01", None).unwrap(), br#""a\r\n\"b\"\u0001""#);
        assert_eq!(convert(b"", None).unwrap(), br#""""#);
    }
}
