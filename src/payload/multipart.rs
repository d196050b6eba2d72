//! `multipart/form-data` (RFC 7578, RFC 2046 section 5.1) becomes an object, as a form does.
//!
//! Every field is a string; a repeated name becomes an array at the place of its first appearance. A part with a file
//! name is a file: refused, or an object with its base64. The reader is strict: every line of its own ends in CRLF, a
//! line that begins with the boundary is a boundary, and there is nothing before the first or behind the last one, so
//! that no two readers can see different parts in one body.

mod part;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use self::part::{Head, read_head};
use super::form::Object;
use super::{Format, Limits, PayloadError, position_of, shown, text};

/// What becomes of a part with a file name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Files {
    /// The body is refused.
    #[default]
    Refuse,
    /// It becomes `{"filename":…,"content_type":…,"base64":…}`.
    Base64 {
        /// The largest file in bytes.
        limit_bytes: usize,
    },
}

/// One part.
#[derive(Debug)]
enum Value<'b> {
    Field(Cow<'b, str>),
    File {
        name: Cow<'b, str>,
        content_type: Option<Cow<'b, str>>,
        content: &'b [u8],
    },
    /// What a browser sends for a file field in which nothing was chosen.
    NoFile,
}

/// Converts a body to the text of a JSON object. `boundary` is the parameter of the content type, without quotes.
///
/// # Errors
/// What is wrong with the body and where, a limit that it is over, or that it holds a file that isn't taken.
pub fn convert(body: &[u8], boundary: &str, files: Files, limits: &Limits) -> Result<Vec<u8>, PayloadError> {
    let parts = split(body, boundary, limits)?;
    let charsets = Charsets::read(body, &parts);
    let mut object = Object::default();
    for part in &parts {
        object.add(part.head.name.clone(), value(body, part, files, &charsets)?);
    }
    let mut json = Vec::with_capacity(body.len());
    object.write(&mut json, write_value);
    Ok(json)
}

/// A part's head, and where in the body its content stands.
#[derive(Debug)]
struct Part<'b> {
    head: Head<'b>,
    start: usize,
    end: usize,
}

/// Whether a text can be a boundary (RFC 2046, section 5.1.1).
fn is_boundary(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    (1..=70).contains(&text.len()) && text.bytes().all(allowed) && !text.ends_with(' ')
}

fn split<'b>(body: &'b [u8], boundary: &str, limits: &Limits) -> Result<Vec<Part<'b>>, PayloadError> {
    if !is_boundary(boundary) {
        return Err(malformed(body, 0, "its content type names no boundary, or one that isn't allowed"));
    }
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    // A line end before the first boundary is allowed, and the only thing that is.
    let first = if body.starts_with(b"\r\n") { 2 } else { 0 };
    if !body[first..].starts_with(&delimiter[2..]) {
        return Err(malformed(body, first, "it doesn't begin with its boundary"));
    }
    let mut parts = Vec::new();
    let mut at = first + delimiter.len() - 2;
    loop {
        let Some(start) = after_boundary(body, at)? else { return Ok(parts) };
        if parts.len() == limits.form_fields {
            return Err(malformed(body, at, &format!("it has more than {} parts", limits.form_fields)));
        }
        let (head, content) = read_head(body, start, limits)?;
        // Where there is no content at all, the CRLF of the head's empty line may be that of the boundary.
        let Some(length) = find(&body[content - 2..], &delimiter) else {
            return Err(malformed(body, body.len(), "it ends without its closing boundary"));
        };
        let end = content - 2 + length;
        parts.push(Part { head, start: content, end: end.max(content) });
        at = end + delimiter.len();
    }
}

/// What comes behind a boundary: where the part begins, or none behind the last one.
fn after_boundary(body: &[u8], at: usize) -> Result<Option<usize>, PayloadError> {
    let rest = &body[at..];
    let is_last = rest.starts_with(b"--");
    let mut end = if is_last { 2 } else { 0 };
    // Gateways of old padded the line (RFC 2046, section 5.1.1).
    while matches!(rest.get(end), Some(b' ' | b'\t')) {
        end += 1;
    }
    match (&rest[end..], is_last) {
        ([b'\r', b'\n', ..], false) => Ok(Some(at + end + 2)),
        (b"" | b"\r\n", true) => Ok(None),
        ([b'\r', b'\n', ..], true) => {
            Err(malformed(body, at + end + 2, "it goes on behind its closing boundary"))
        }
        (b"", false) => Err(malformed(body, body.len(), "it ends without its closing boundary")),
        ([b'\n', ..], _) => Err(malformed(body, at + end, "a line doesn't end in CRLF")),
        _ => Err(malformed(body, at, "a line begins with the boundary and isn't one")),
    }
}

/// The first place of a delimiter. It begins with the only CR that can begin it, and no boundary holds one, so what was
/// compared needn't be looked at again.
fn find(text: &[u8], delimiter: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += text.get(at..)?.iter().position(|byte| *byte == b'\r')?;
        if text[at..].starts_with(delimiter) {
            return Some(at);
        }
        at += 1;
    }
}

/// What a body says of the character sets of its fields, beside the parts' own content types.
#[derive(Default)]
struct Charsets<'b> {
    /// SendGrid's Inbound Parse sends each field in the character set of the mail, and says which in a field
    /// `charsets`: `{"subject":"UTF-8","text":"iso-8859-1"}`.
    by_field: HashMap<String, String>,
    /// RFC 7578, section 4.6: the field `_charset_`.
    default: Option<&'b str>,
}

impl<'b> Charsets<'b> {
    fn read(body: &'b [u8], parts: &[Part<'b>]) -> Charsets<'b> {
        let field = |name| {
            let part = parts.iter().find(|part| part.head.name == name && part.head.file_name.is_none())?;
            str::from_utf8(&body[part.start..part.end]).ok()
        };
        let named: HashMap<String, &RawValue> =
            field("charsets").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let strings =
            named.into_iter().map(|(name, value)| Some((name, serde_json::from_str(value.get()).ok()?)));
        Charsets { by_field: strings.flatten().collect(), default: field("_charset_") }
    }

    fn of<'c>(&'c self, head: &'c Head<'_>) -> Option<&'c str> {
        let by_field = || self.by_field.get(&*head.name).map(String::as_str);
        head.charset.as_deref().or_else(by_field).or(self.default)
    }
}

fn value<'b>(
    body: &'b [u8],
    part: &Part<'b>,
    files: Files,
    charsets: &Charsets<'_>,
) -> Result<Value<'b>, PayloadError> {
    let Part { head, start, end } = part;
    let content = &body[*start..*end];
    let Some(file_name) = &head.file_name else {
        return Ok(Value::Field(field(body, *start, content, charsets.of(head))?));
    };
    match files {
        _ if file_name.is_empty() && content.is_empty() => Ok(Value::NoFile),
        Files::Refuse => Err(PayloadError::File(shown(head.name.as_bytes()))),
        Files::Base64 { limit_bytes } if content.len() > limit_bytes => {
            Err(malformed(body, *start, &format!("a file is larger than {limit_bytes} bytes")))
        }
        Files::Base64 { .. } => {
            Ok(Value::File { name: file_name.clone(), content_type: head.content_type.clone(), content })
        }
    }
}

fn field<'b>(
    body: &[u8],
    start: usize,
    content: &'b [u8],
    charset: Option<&str>,
) -> Result<Cow<'b, str>, PayloadError> {
    text::decode(content, charset).map_err(|error| match error {
        PayloadError::Malformed { message, .. } => malformed(body, start, &format!("a field: {message}")),
        other => other,
    })
}

fn write_value(json: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Field(text) => crate::job::write_string(json, text),
        Value::NoFile => json.extend_from_slice(b"null"),
        Value::File { name, content_type, content } => {
            json.extend_from_slice(b"{\"filename\":");
            crate::job::write_string(json, name);
            json.extend_from_slice(b",\"content_type\":");
            match content_type {
                Some(content_type) => crate::job::write_string(json, content_type),
                None => json.extend_from_slice(b"null"),
            }
            json.extend_from_slice(b",\"base64\":\"");
            json.extend_from_slice(STANDARD.encode(content).as_bytes());
            json.extend_from_slice(b"\"}");
        }
    }
}

fn malformed(body: &[u8], offset: usize, message: &str) -> PayloadError {
    PayloadError::Malformed {
        format: Format::Multipart,
        message: message.to_owned(),
        position: position_of(body, offset),
    }
}
