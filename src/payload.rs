//! Payloads: a verified body becomes one JSON value. `docs/payloads.md` tells users of every format and limit.

mod charset;
pub mod form;
pub mod inflate;
pub mod json;
mod limits;
pub mod media_type;
pub mod multipart;
pub mod ndjson;
pub(crate) mod search;
#[cfg(test)]
mod tests;
pub mod text;
pub mod xml;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::payload::media_type::MediaType;
use crate::payload::multipart::Files;
use crate::signature::Verified;
use crate::source::{BodyRules, Preset};

pub use crate::payload::limits::Limits;

/// How an integration's payloads become JSON.
#[derive(Clone, Debug, Default)]
pub struct PayloadOptions {
    /// How XML elements become members.
    pub xml: xml::XmlOptions,
    /// Whether the job leaves out the original XML text (`data.raw`).
    pub drop_raw_xml: bool,
    /// What becomes of files in multipart bodies.
    pub files: Files,
    /// What the bodies are, whatever their content types say: for senders that lie, or say nothing.
    pub content_type: Option<MediaType>,
    /// The sender whose bodies these are; some say little about what they send.
    pub source: Option<&'static Preset>,
    /// The limits of every format.
    pub limits: Limits,
}

/// What a body was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Carried byte for byte.
    Json,
    /// Lines of JSON, an array by [`ndjson`].
    NdJson,
    /// Converted by [`xml`].
    Xml,
    /// `application/x-www-form-urlencoded`, converted by [`form`].
    Form,
    /// `multipart/form-data`, converted by [`multipart`].
    Multipart,
    /// Any other text, a JSON string by [`text`].
    Text,
}

impl Format {
    /// The word in the job: `data.format`.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::NdJson => "ndjson",
            Format::Xml => "xml",
            Format::Form => "form",
            Format::Multipart => "multipart",
            Format::Text => "text",
        }
    }

    /// What a content type is read as; none if it can't become JSON.
    pub fn of(media_type: &MediaType) -> Option<Format> {
        let essence = media_type.essence.as_str();
        match essence {
            "application/json" | "text/json" | "application/x-json" | "text/x-json" => Some(Format::Json),
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonl"
            | "application/jsonlines"
            | "application/x-jsonlines" => Some(Format::NdJson),
            "application/xml" | "text/xml" => Some(Format::Xml),
            "application/x-www-form-urlencoded" => Some(Format::Form),
            "multipart/form-data" => Some(Format::Multipart),
            _ if essence.ends_with("+json") => Some(Format::Json),
            _ if essence.ends_with("+xml") => Some(Format::Xml),
            _ if essence.starts_with("text/") => Some(Format::Text),
            _ => None,
        }
    }
}

/// A body as one JSON value.
#[derive(Debug)]
pub struct Payload<'a> {
    /// What it was written in.
    pub format: Format,
    /// The value's text: valid JSON without white space around it.
    pub json: Bytes,
    /// The original text of an XML body, unless the integration leaves it out.
    pub raw: Option<Cow<'a, str>>,
}

/// Where a text is malformed. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// Why a body can't become JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The body is not what its content type says, or over a limit of its format.
    #[error("The {} body is malformed: {message} at {position}", name_of(*format))]
    Malformed {
        /// What it was read as.
        format: Format,
        /// What is wrong.
        message: String,
        /// Where.
        position: Position,
    },
    /// There is nothing in the body.
    #[error("The body is empty")]
    Empty,
    /// A content type that can't be turned into JSON.
    #[error(
        "The content type {0} can't be turned into JSON; send application/json, application/xml, application/x-www-form-urlencoded, multipart/form-data or text/plain"
    )]
    ContentType(String),
    /// A multipart body with a file, where the integration takes none.
    #[error("The multipart field {0} is a file, which this integration doesn't take; send fields alone")]
    File(String),
    /// A character set that isn't read.
    #[error("The charset {0} isn't supported for this content type; send UTF-8")]
    Charset(String),
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

fn name_of(format: Format) -> &'static str {
    match format {
        Format::Json => "JSON",
        Format::NdJson => "NDJSON",
        Format::Xml => "XML",
        Format::Form => "form",
        Format::Multipart => "multipart",
        Format::Text => "text",
    }
}

impl<'a> Payload<'a> {
    /// Turns a verified body into one JSON value. What `Content-Encoding` says is undone already ([`inflate`]).
    /// `is_xml` is the path's word, which outranks the settings', the preset's and the content type's.
    ///
    /// # Errors
    /// What is wrong with the body and where, or which header names something that can't be read.
    pub fn decode(
        body: &'a Verified,
        headers: &HeaderMap,
        is_xml: bool,
        options: &PayloadOptions,
    ) -> Result<Payload<'a>, PayloadError> {
        let rules = options.source.map_or(NO_RULES, |source| source.body);
        if rules.empty && body.body().trim_ascii().is_empty() {
            return Ok(Payload { format: Format::Json, json: Bytes::from_static(b"null"), raw: None });
        }
        if let Some(Cow::Owned(json)) = options.source.map(|source| source.content(body)) {
            let json = decode_json(&json.into(), options)?;
            return Ok(Payload { format: Format::Json, json, raw: None });
        }
        let (format, media_type) = format(body.body(), headers, is_xml, rules, options)?;
        decode_as(format, media_type.as_ref(), body.body(), options)
    }
}

const NO_RULES: BodyRules = BodyRules {
    empty: false,
    any_content_type: false,
    json_in_text: false,
    plain_text: false,
    form_field: None,
};

/// What a body is read as, and by which content type.
fn format(
    body: &[u8],
    headers: &HeaderMap,
    is_xml: bool,
    rules: BodyRules,
    options: &PayloadOptions,
) -> Result<(Format, Option<MediaType>), PayloadError> {
    if let Some(media_type) = options.content_type.clone().filter(|_| !is_xml) {
        return Ok((Format::of(&media_type).unwrap_or(Format::Json), Some(media_type)));
    }
    if rules.any_content_type {
        let format = if is_xml { Format::Xml } else { format_by_its_begin(body, rules) };
        return Ok((format, None));
    }
    let media_type = media_type(headers)?;
    let format = match media_type.as_ref().map(|media_type| (media_type, Format::of(media_type))) {
        _ if is_xml => Format::Xml,
        // The contract of `POST /integration/{id}`: JSON unless the content type says otherwise.
        None => Format::Json,
        Some((media_type, Some(Format::Text)))
            if rules.json_in_text && media_type.essence == "text/plain" =>
        {
            Format::Json
        }
        // What `curl -d` calls a form. A form's own writer escapes these two.
        Some((_, Some(Format::Form))) if matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) => {
            Format::Json
        }
        Some((_, Some(format))) => format,
        Some((media_type, None)) => {
            return Err(PayloadError::ContentType(shown(media_type.essence.as_bytes())));
        }
    };
    Ok((format, media_type))
}

/// For senders whose content type says nothing.
fn format_by_its_begin(body: &[u8], rules: BodyRules) -> Format {
    let text = body.trim_ascii_start();
    match text.first() {
        Some(b'<') => Format::Xml,
        Some(b'{' | b'[' | b'"' | b'-' | b'0'..=b'9') => Format::Json,
        _ if matches!(text, b"true" | b"false" | b"null") => Format::Json,
        _ if text.contains(&b'=') && !text.contains(&b' ') => Format::Form,
        _ if rules.plain_text => Format::Text,
        _ => Format::Json,
    }
}

fn media_type(headers: &HeaderMap) -> Result<Option<MediaType>, PayloadError> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    // Two readers might choose different ones.
    if let Some(other) = values.find(|other| *other != value) {
        return Err(PayloadError::ContentType(shown(&[value.as_bytes(), b", ", other.as_bytes()].concat())));
    }
    let text = value.to_str().ok().map(str::trim).filter(|text| !text.is_empty());
    match text.map(MediaType::parse) {
        None if value.is_empty() => Ok(None),
        Some(Some(media_type)) => Ok(Some(media_type)),
        None | Some(None) => Err(PayloadError::ContentType(shown(value.as_bytes()))),
    }
}

fn decode_as<'a>(
    format: Format,
    media_type: Option<&MediaType>,
    body: &'a Bytes,
    options: &PayloadOptions,
) -> Result<Payload<'a>, PayloadError> {
    let charset = media_type.and_then(|media_type| media_type.charset.as_deref());
    let limits = &options.limits;
    if !matches!(format, Format::Xml | Format::Text) {
        require_utf8(charset)?;
    }
    let json = match format {
        Format::Json => decode_json(body, options)?,
        Format::NdJson => ndjson::convert(body, limits)?.into(),
        Format::Form => form::convert_within(body, limits.form_fields)?.into(),
        Format::Multipart => {
            let boundary = media_type.and_then(|media_type| media_type.boundary.as_deref());
            multipart::convert(body, boundary.unwrap_or_default(), options.files, limits)?.into()
        }
        Format::Text => text::convert(body, charset)?.into(),
        Format::Xml => return decode_xml(body, charset, options),
    };
    Ok(Payload { format, json, raw: None })
}

fn decode_json(body: &Bytes, options: &PayloadOptions) -> Result<Bytes, PayloadError> {
    Ok(body.slice_ref(json::validate_within(body, options.limits.depth)?.as_bytes()))
}

fn decode_xml<'a>(
    body: &'a [u8],
    charset: Option<&str>,
    options: &PayloadOptions,
) -> Result<Payload<'a>, PayloadError> {
    let malformed = |error: xml::XmlError| PayloadError::Malformed {
        format: Format::Xml,
        position: Position { line: error.line as usize, column: error.column as usize },
        message: error.message.to_string(),
    };
    if body.trim_ascii().is_empty() {
        return Err(PayloadError::Empty);
    }
    let text = xml::decode(body, charset).map_err(malformed)?;
    let json = xml::convert(&text, &options.xml, &options.limits.xml()).map_err(malformed)?;
    let raw = (!options.drop_raw_xml).then_some(text);
    Ok(Payload { format: Format::Xml, json: json.into(), raw })
}

fn require_utf8(charset: Option<&str>) -> Result<(), PayloadError> {
    match charset {
        None => Ok(()),
        Some(charset)
            if ["utf-8", "utf8", "us-ascii"].iter().any(|name| charset.eq_ignore_ascii_case(name)) =>
        {
            Ok(())
        }
        Some(charset) => Err(PayloadError::Charset(shown(charset.as_bytes()))),
    }
}

/// A header's value as an answer may repeat it: printable ASCII, and not much of it.
fn shown(value: &[u8]) -> String {
    const SHOWN_LIMIT_BYTES: usize = 80;
    let text: String =
        value.iter().take(SHOWN_LIMIT_BYTES).map(|byte| byte.escape_ascii().to_string()).collect();
    if value.len() > SHOWN_LIMIT_BYTES { text + "…" } else { text }
}

/// The position of a byte in a text whose bytes before it are UTF-8.
fn position_of(text: &[u8], offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    // A byte that continues a character doesn't start one.
    let column = before[line_start..].iter().filter(|byte| **byte & 0xC0 != 0x80).count() + 1;
    Position { line, column }
}
