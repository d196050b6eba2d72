//! Bytes to text: which encoding a document has, and whether it keeps to it.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use crate::payload::charset::{Charset, is_utf16};
use crate::payload::xml::XmlError;
use crate::payload::xml::cursor::{Cursor, shorten};
use crate::payload::xml::prolog;

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
            if !charset.is_some_and(|charset| charset.permits(encoding)) {
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

fn find_charset(label: &str) -> Result<Charset, XmlError> {
    Charset::find(label).ok_or_else(|| {
        let name: String = label.chars().filter(char::is_ascii_graphic).collect();
        start_error(format!("the encoding `{}` is not known", shorten(&name.to_ascii_lowercase())))
    })
}

/// Returns the encoding that `text` declares, and refuses it if it is not `encoding`.
fn check_declaration<'a>(text: &'a str, encoding: &'static Encoding) -> Result<Option<&'a str>, XmlError> {
    let declared = prolog::take_declaration(&mut Cursor::new(text))?;
    if let Some(name) = declared
        && !find_charset(name)?.permits(encoding)
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
    charset.decode(bytes).map_err(|invalid| {
        let text = &invalid.before;
        XmlError::at(text, text.len(), format!("the bytes are not valid {}", charset.name()))
    })
}

#[cold]
fn lie(name: &str) -> XmlError {
    let name = shorten(name);
    start_error(format!("the document declares the encoding `{name}` but is in another one"))
}

#[cold]
fn start_error(message: impl Into<Cow<'static, str>>) -> XmlError {
    XmlError::at("", 0, message)
}
