//! The head of a part: what the field is called, and whether it is a file.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::malformed;
use crate::payload::{Limits, PayloadError, media_type::MediaType};

/// The largest head of a part, in bytes without its names: three short lines are usual.
const HEAD_LIMIT_BYTES: usize = 4 << 10;

/// What the head of a part says.
#[derive(Debug)]
pub(super) struct Head<'b> {
    /// The field's name.
    pub name: Cow<'b, str>,
    /// The file's name, if it is a file.
    pub file_name: Option<Cow<'b, str>>,
    /// The content type as it was written.
    pub content_type: Option<Cow<'b, str>>,
    /// Its `charset`.
    pub charset: Option<String>,
}

/// Reads the head that begins at `start`, and returns it with the offset of the content. The two bytes before that are
/// the CRLF of the empty line.
pub(super) fn read_head<'b>(
    body: &'b [u8],
    start: usize,
    limits: &Limits,
) -> Result<(Head<'b>, usize), PayloadError> {
    let mut disposition = None;
    let mut content_type = None;
    let mut at = start;
    loop {
        let limit = HEAD_LIMIT_BYTES + 2 * limits.name_bytes;
        let window = &body[at..body.len().min(start + limit)];
        let Some(length) = window.iter().position(|byte| *byte == b'\n') else {
            if body.len() > start + limit {
                return Err(malformed(
                    body,
                    start,
                    &format!("the head of a part is larger than {limit} bytes"),
                ));
            }
            return Err(malformed(body, body.len(), "it ends in the head of a part"));
        };
        let Some(line) = window[..length].strip_suffix(b"\r") else {
            return Err(malformed(body, at + length, "a line doesn't end in CRLF"));
        };
        let line_start = at;
        at += length + 1;
        if line.is_empty() {
            break;
        }
        let fault = |message: &str| malformed(body, line_start, message);
        let line = std::str::from_utf8(line).map_err(|_| fault("the head of a part isn't UTF-8"))?;
        if line.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(fault("the head of a part has a control character"));
        }
        let (name, value) =
            line.split_once(':').ok_or_else(|| fault("a line of a part's head has no colon"))?;
        if !crate::payload::media_type::is_token(name) {
            return Err(fault("a line of a part's head doesn't begin with a name"));
        }
        let value = value.trim_matches([' ', '\t']);
        if name.eq_ignore_ascii_case("content-disposition") {
            if disposition.is_some() {
                return Err(fault("a part has two lines Content-Disposition"));
            }
            disposition = Some(Disposition::parse(value).map_err(fault)?);
        } else if name.eq_ignore_ascii_case("content-type") {
            if content_type.replace(value).is_some() {
                return Err(fault("a part has two lines Content-Type"));
            }
        } else if name.eq_ignore_ascii_case("content-transfer-encoding")
            && !["7bit", "8bit", "binary"].iter().any(|known| value.eq_ignore_ascii_case(known))
        {
            return Err(fault("a part has a Content-Transfer-Encoding, which RFC 7578 leaves no use for"));
        }
    }
    let fault = |message: &str| malformed(body, start, message);
    let Disposition { name, file_name } =
        disposition.ok_or_else(|| fault("a part has no Content-Disposition"))?;
    let too_long = |text: &str| text.len() > limits.name_bytes;
    if too_long(&name) || file_name.as_deref().is_some_and(too_long) {
        return Err(fault(&format!("a name is longer than {} bytes", limits.name_bytes)));
    }
    let charset = content_type.and_then(|value| MediaType::parse(value)?.charset);
    Ok((Head { name, file_name, content_type: content_type.map(Cow::Borrowed), charset }, at))
}

struct Disposition<'b> {
    name: Cow<'b, str>,
    file_name: Option<Cow<'b, str>>,
}

impl<'b> Disposition<'b> {
    /// RFC 7578, section 4.2: `form-data` with a name. Parameters that aren't known are passed over.
    fn parse(value: &'b str) -> Result<Disposition<'b>, &'static str> {
        let (kind, mut rest) = match value.find(';') {
            Some(at) => value.split_at(at),
            None => (value, ""),
        };
        if !kind.trim_end().eq_ignore_ascii_case("form-data") {
            return Err("a part's Content-Disposition isn't form-data");
        }
        let (mut name, mut file_name, mut wide_name, mut wide_file_name) = (None, None, None, None);
        while let Some(parameter) = rest.strip_prefix(';') {
            let parameter = parameter.trim_start_matches([' ', '\t']);
            if parameter.is_empty() {
                rest = parameter;
                break;
            }
            let (key, after) = parameter.split_once('=').ok_or(BAD_PARAMETER)?;
            let (text, after) = read_value(after)?;
            let mut unknown = None;
            let slot = match key.to_ascii_lowercase().as_str() {
                "name" => &mut name,
                "filename" => &mut file_name,
                // RFC 7578 forbids these, and older versions of urllib3 write them.
                "name*" => &mut wide_name,
                "filename*" => &mut wide_file_name,
                key if crate::payload::media_type::is_token(key) => &mut unknown,
                _ => return Err(BAD_PARAMETER),
            };
            if slot.replace(text).is_some() {
                return Err("a part's Content-Disposition names something twice");
            }
            rest = after.trim_start_matches([' ', '\t']);
        }
        if !rest.is_empty() {
            return Err(BAD_PARAMETER);
        }
        let name = either(name, wide_name)?.ok_or("a part has no name")?;
        Ok(Disposition { name, file_name: either(file_name, wide_file_name)? })
    }
}

const BAD_PARAMETER: &str = "a part's Content-Disposition is malformed";

/// The plain parameter or the one of RFC 8187, which tells the same of more characters.
fn either<'b>(
    plain: Option<Cow<'b, str>>,
    wide: Option<Cow<'b, str>>,
) -> Result<Option<Cow<'b, str>>, &'static str> {
    let Some(wide) = wide else { return Ok(plain) };
    let mut pieces = wide.splitn(3, '\'');
    match (pieces.next(), pieces.next(), pieces.next()) {
        (Some(charset), Some(_), Some(text)) if charset.eq_ignore_ascii_case("utf-8") => {
            let text = percent_decode_str(text).decode_utf8().map_err(|_| BAD_PARAMETER)?;
            Ok(Some(Cow::Owned(text.into_owned())))
        }
        _ => Err(BAD_PARAMETER),
    }
}

/// A token or a quoted string, and what follows it.
fn read_value(text: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ' ', '\t']).unwrap_or(text.len());
        let (token, rest) = text.split_at(end);
        let is_plain = !token.is_empty() && !token.contains(['"', '\\']);
        return if is_plain { Ok((Cow::Borrowed(token), rest)) } else { Err(BAD_PARAMETER) };
    };
    let mut is_escaped = false;
    for (at, byte) in quoted.bytes().enumerate() {
        match byte {
            b'"' if !is_escaped => return Ok((unescape(&quoted[..at]), &quoted[at + 1..])),
            b'\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    Err(BAD_PARAMETER)
}

/// Undoes both ways of writing what a quoted string can't hold: `%22`, `%0D` and `%0A` of browsers (HTML, "multipart/
/// form-data encoding algorithm"), and the backslash before a quote or a backslash of everybody else (RFC 2046).
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '\\']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['%', '\\']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = [
            ("%22", '"'),
            ("%0D", '\r'),
            ("%0A", '\n'),
            ("%0d", '\r'),
            ("%0a", '\n'),
            ("\\\"", '"'),
            ("\\\\", '\\'),
        ];
        let (length, character) = known
            .iter()
            .find(|(written, _)| rest.starts_with(written))
            .map_or((1, if rest.starts_with('%') { '%' } else { '\\' }), |(written, meant)| {
                (written.len(), *meant)
            });
        out.push(character);
        rest = &rest[length..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}
