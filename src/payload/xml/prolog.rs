//! What may stand before the root element: the XML declaration and the document type.

use crate::payload::xml::XmlError;
use crate::payload::xml::chars;
use crate::payload::xml::cursor::Cursor;

/// Moves over the XML declaration (section 2.8) if the document starts with one, and returns
/// the encoding that it names.
pub fn take_declaration<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a str>, XmlError> {
    // `<?xml-stylesheet` is an ordinary processing instruction.
    let is_longer_name =
        cursor.peek("<?xml".len()).is_some_and(|byte| chars::is(byte, chars::NAME | chars::WIDE));
    if is_longer_name || !cursor.eat("<?xml") {
        return Ok(None);
    }
    let start = *cursor;
    let version = take_field(cursor, "version")?
        .ok_or_else(|| start.error("the XML declaration must start with `version`"))?;
    if !version.strip_prefix("1.").is_some_and(|minor| is_made_of(minor, u8::is_ascii_digit)) {
        return Err(start.error("the XML version must be 1.0"));
    }
    let encoding = take_field(cursor, "encoding")?;
    if encoding.is_some_and(|name| !is_encoding_name(name)) {
        return Err(start.error("the XML declaration has a malformed encoding"));
    }
    let standalone = take_field(cursor, "standalone")?;
    if standalone.is_some_and(|value| value != "yes" && value != "no") {
        return Err(start.error("`standalone` must be `yes` or `no`"));
    }
    cursor.skip_space();
    if !cursor.eat("?>") {
        return Err(cursor.error("the XML declaration is malformed"));
    }
    Ok(encoding)
}

/// Moves over white space and `name="value"`, if that comes next, and returns the value.
fn take_field<'a>(cursor: &mut Cursor<'a>, name: &str) -> Result<Option<&'a str>, XmlError> {
    let start = *cursor;
    if !cursor.skip_space() || !cursor.eat(name) {
        *cursor = start;
        return Ok(None);
    }
    let quote = cursor.take_equals_quote()?;
    match take_quoted(cursor, quote) {
        Some(value) => Ok(Some(value)),
        None => Err(start.error("a closing quote is missing")),
    }
}

fn take_quoted<'a>(cursor: &mut Cursor<'a>, quote: u8) -> Option<&'a str> {
    cursor.take_until(if quote == b'"' { "\"" } else { "'" })
}

fn is_made_of(value: &str, test: impl Fn(&u8) -> bool) -> bool {
    !value.is_empty() && value.as_bytes().iter().all(test)
}

/// `EncName` of section 4.3.3.
fn is_encoding_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && is_made_of(name, |byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

/// Moves over a document type declaration (section 2.8). An external subset is named but never
/// read, so it may stand; an internal one could declare entities and is refused.
pub fn take_doctype(cursor: &mut Cursor<'_>) -> Result<(), XmlError> {
    const MALFORMED: &str = "the document type declaration is malformed";
    cursor.advance("<!DOCTYPE".len());
    if !cursor.skip_space() || cursor.take_name().is_none() {
        return Err(cursor.error(MALFORMED));
    }
    if cursor.skip_space() {
        if cursor.eat("SYSTEM") {
            take_literal(cursor, |_| true).ok_or_else(|| cursor.error(MALFORMED))?;
        } else if cursor.eat("PUBLIC") {
            take_literal(cursor, is_public_id).ok_or_else(|| cursor.error(MALFORMED))?;
            take_literal(cursor, |_| true).ok_or_else(|| cursor.error(MALFORMED))?;
        }
        cursor.skip_space();
    }
    if cursor.peek(0) == Some(b'[') {
        return Err(cursor.error("a document type with declarations of its own is not accepted"));
    }
    if !cursor.eat(">") {
        return Err(cursor.error(MALFORMED));
    }
    Ok(())
}

/// Moves over white space and a quoted literal whose bytes all pass `test`.
fn take_literal(cursor: &mut Cursor<'_>, test: impl Fn(u8) -> bool) -> Option<()> {
    if !cursor.skip_space() {
        return None;
    }
    let quote = cursor.peek(0).filter(|byte| matches!(byte, b'"' | b'\''))?;
    cursor.advance(1);
    take_quoted(cursor, quote)?.bytes().all(test).then_some(())
}

/// `PubidChar` of section 2.3.
fn is_public_id(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" \r\n-'()+,./:=?;!*#@$_%".contains(&byte)
}
