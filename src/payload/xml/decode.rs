//! Bytes to text: which encoding a document has, and whether it keeps to it.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use crate::payload::xml::XmlError;
use crate::payload::xml::cursor::{Cursor, shorten};
use crate::payload::xml::prolog;

/// What a label names.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Charset {
    /// The first 128 characters and nothing else.
    Ascii,
    /// ISO-8859-1 as ISO defines it. The Encoding Standard, and so `encoding_rs`, takes the
    /// label for Windows-1252, which differs from 0x80 to 0x9F.
    Latin1,
    /// UTF-16 in either byte order.
    Utf16,
    Other(&'static Encoding),
}

/// Decodes a document and removes its byte order mark.
///
/// The encoding is that of the byte order mark, else of the XML declaration, else
/// `charset_of_content_type` (the value of the parameter, without quotes), else UTF-8: XML 1.0
/// section 4.3.3 and appendix F. UTF-16, ISO-8859-1, US-ASCII and every encoding of the
/// Encoding Standard except its replacement encodings are known. Valid UTF-8 is borrowed, other
/// text takes at most three times the size of `bytes`.
///
/// # Errors
///
/// The encoding is unknown, the declaration contradicts the byte order mark or the width of the
/// characters, or the bytes are not valid in the encoding. Characters are never replaced.
pub fn decode<'a>(bytes: &'a [u8], charset_of_content_type: Option<&str>) -> Result<Cow<'a, str>, XmlError> {
    if let Some((encoding, mark_bytes)) = Encoding::for_bom(bytes) {
        let content = bytes.get(mark_bytes..).unwrap_or_default();
        let text = decode_strictly(content, Charset::Other(encoding))?;
        check_declaration(&text, encoding)?;
        return Ok(text);
    }
    if let Some(encoding) = detect_utf16(bytes) {
        let text = decode_strictly(bytes, Charset::Other(encoding))?;
        if check_declaration(&text, encoding)?.is_none() {
            let charset = charset_of_content_type.map(find_charset).transpose()?;
            if !charset.is_some_and(|charset| permits(charset, encoding)) {
                return Err(start_error("UTF-16 needs a byte order mark or a declaration"));
            }
        }
        return Ok(text);
    }
    let declared = find_declared_charset(bytes)?;
    let charset = match (declared, charset_of_content_type) {
        (Some(Charset::Utf16), _) => return Err(lie("UTF-16")),
        (Some(Charset::Other(encoding)), _) if is_utf16(encoding) => {
            return Err(lie(encoding.name()));
        }
        (Some(charset), _) => charset,
        (None, Some(label)) => find_charset(label)?,
        (None, None) => Charset::Other(UTF_8),
    };
    decode_strictly(bytes, charset)
}

/// The byte order of UTF-16 without a mark, as its first character `<` shows it.
fn detect_utf16(bytes: &[u8]) -> Option<&'static Encoding> {
    match bytes {
        [b'<', 0, ..] => Some(UTF_16LE),
        [0, b'<', ..] => Some(UTF_16BE),
        _ => None,
    }
}

fn is_utf16(encoding: &'static Encoding) -> bool {
    encoding == UTF_16LE || encoding == UTF_16BE
}

fn find_charset(label: &str) -> Result<Charset, XmlError> {
    let label = label.trim_ascii().to_ascii_lowercase();
    match label.as_str() {
        "us-ascii" | "ascii" | "ansi_x3.4-1968" | "iso646-us" => Ok(Charset::Ascii),
        "iso-8859-1" | "iso8859-1" | "iso_8859-1" | "iso88591" | "latin1" | "l1" | "cp819" | "ibm819" => {
            Ok(Charset::Latin1)
        }
        "utf-16" | "utf16" | "iso-10646-ucs-2" | "ucs-2" => Ok(Charset::Utf16),
        _ => match Encoding::for_label_no_replacement(label.as_bytes()) {
            Some(encoding) => Ok(Charset::Other(encoding)),
            None => {
                let name: String = label.chars().filter(char::is_ascii_graphic).collect();
                Err(start_error(format!("the encoding `{}` is not known", shorten(&name))))
            }
        },
    }
}

/// Whether text in `encoding` may say that it is in `charset`.
fn permits(charset: Charset, encoding: &'static Encoding) -> bool {
    charset == Charset::Other(encoding) || (charset == Charset::Utf16 && is_utf16(encoding))
}

/// Returns the encoding that `text` declares, and refuses it if it is not `encoding`.
fn check_declaration<'a>(text: &'a str, encoding: &'static Encoding) -> Result<Option<&'a str>, XmlError> {
    let declared = prolog::take_declaration(&mut Cursor::new(text))?;
    if let Some(name) = declared
        && !permits(find_charset(name)?, encoding)
    {
        return Err(lie(name));
    }
    Ok(declared)
}

/// The encoding that a document in any extension of ASCII declares. Other characters in the
/// declaration are an error, so it does not matter how they are read here.
fn find_declared_charset(bytes: &[u8]) -> Result<Option<Charset>, XmlError> {
    if !bytes.starts_with(b"<?xml") {
        return Ok(None);
    }
    let end = bytes.iter().position(|&byte| byte == b'>').map_or(bytes.len(), |at| at + 1);
    let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    prolog::take_declaration(&mut Cursor::new(&head))?.map(find_charset).transpose()
}

fn decode_strictly(bytes: &[u8], charset: Charset) -> Result<Cow<'_, str>, XmlError> {
    match charset {
        Charset::Other(encoding) if encoding == UTF_8 => {
            str::from_utf8(bytes).map(Cow::Borrowed).map_err(|error| {
                let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
                invalid_after(&String::from_utf8_lossy(valid), "UTF-8")
            })
        }
        Charset::Ascii => match bytes.iter().position(|byte| !byte.is_ascii()) {
            None => Ok(String::from_utf8_lossy(bytes)),
            Some(at) => {
                let valid = bytes.get(..at).unwrap_or_default();
                Err(invalid_after(&String::from_utf8_lossy(valid), "US-ASCII"))
            }
        },
        Charset::Latin1 => Ok(encoding_rs::mem::decode_latin1(bytes)),
        // RFC 2781 section 4.3: without a mark, big-endian.
        Charset::Utf16 => decode_other(bytes, UTF_16BE).map(Cow::Owned),
        Charset::Other(encoding) => decode_other(bytes, encoding).map(Cow::Owned),
    }
}

fn decode_other(bytes: &[u8], encoding: &'static Encoding) -> Result<String, XmlError> {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let capacity = decoder.max_utf8_buffer_length_without_replacement(bytes.len());
    let mut text = String::with_capacity(capacity.unwrap_or(bytes.len()));
    let (result, _) = decoder.decode_to_string_without_replacement(bytes, &mut text, true);
    match result {
        encoding_rs::DecoderResult::InputEmpty => Ok(text),
        _ => Err(invalid_after(&text, encoding.name())),
    }
}

#[cold]
fn lie(name: &str) -> XmlError {
    let name = shorten(name);
    start_error(format!("the document declares the encoding `{name}` but is in another one"))
}

#[cold]
fn invalid_after(text: &str, encoding: &str) -> XmlError {
    XmlError::at(text, text.len(), format!("the bytes are not valid {encoding}"))
}

#[cold]
fn start_error(message: impl Into<Cow<'static, str>>) -> XmlError {
    XmlError::at("", 0, message)
}
