//! Payloads: a verified body becomes one JSON value.

pub mod form;
pub mod json;
pub mod media_type;
pub mod xml;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::payload::media_type::MediaType;
use crate::signature::Verified;
use crate::source::{BodyRules, Preset};

/// How an integration's payloads become JSON.
#[derive(Clone, Debug, Default)]
pub struct PayloadOptions {
    /// How XML elements become members.
    pub xml: xml::XmlOptions,
    /// Whether the job leaves out the original XML text (`data.raw`).
    pub drop_raw_xml: bool,
    /// The sender whose bodies these are; some say little about what they send.
    pub source: Option<&'static Preset>,
}

/// What a body was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Carried byte for byte.
    Json,
    /// Converted by [`xml`].
    Xml,
    /// `application/x-www-form-urlencoded`, converted by [`form`].
    Form,
    /// Neither; a JSON string. Only where the sender's preset says that it sends such.
    Text,
}

impl Format {
    /// The word in the job: `data.format`.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Xml => "xml",
            Format::Form => "form",
            Format::Text => "text",
        }
    }
}

/// A body as one JSON value.
#[derive(Debug)]
pub struct Payload {
    /// What it was written in.
    pub format: Format,
    /// The value's text: valid JSON without white space around it.
    pub json: Bytes,
    /// The original text of an XML body, unless the integration leaves it out.
    pub raw: Option<String>,
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
        "The content type {0} can't be turned into JSON; send application/json, application/xml or application/x-www-form-urlencoded"
    )]
    ContentType(String),
    /// A character set that isn't read.
    #[error("The charset {0} isn't supported for this content type; send UTF-8")]
    Charset(String),
    /// A compressed body.
    #[error("The content encoding {0} isn't supported; send the body uncompressed")]
    ContentEncoding(String),
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

fn name_of(format: Format) -> &'static str {
    match format {
        Format::Json => "JSON",
        Format::Xml => "XML",
        Format::Form => "form",
        Format::Text => "text",
    }
}

impl Payload {
    /// Turns a verified body into one JSON value. `is_xml` is the path's word, which outranks the content type's.
    ///
    /// # Errors
    /// What is wrong with the body and where, or which header names something that can't be read.
    pub fn decode(
        body: &Verified,
        headers: &HeaderMap,
        is_xml: bool,
        options: &PayloadOptions,
    ) -> Result<Payload, PayloadError> {
        refuse_content_encoding(headers)?;
        let rules = options.source.map_or(NO_RULES, |source| source.body);
        if rules.empty && body.body().trim_ascii().is_empty() {
            return Ok(Payload { format: Format::Json, json: Bytes::from_static(b"null"), raw: None });
        }
        if let Some(Cow::Owned(json)) = options.source.map(|source| source.content(body)) {
            return decode_json(&json.into(), None);
        }
        let media_type = if rules.any_content_type { None } else { media_type(headers)? };
        let format = match format_of(media_type.as_ref()) {
            _ if is_xml => Format::Xml,
            _ if rules.any_content_type => format_by_its_begin(body.body(), rules),
            Err(PayloadError::ContentType(name)) if rules.json_in_text && name == "text/plain" => {
                Format::Json
            }
            Err(PayloadError::ContentType(name)) if rules.plain_text && name.starts_with("text/") => {
                Format::Text
            }
            format => format?,
        };
        let charset = media_type.and_then(|media_type| media_type.charset);
        match format {
            Format::Json => decode_json(body.body(), charset.as_deref()),
            Format::Form => decode_form(body.body(), charset.as_deref()),
            Format::Xml => decode_xml(body.body(), charset.as_deref(), options),
            Format::Text => decode_text(body.body(), charset.as_deref()),
        }
    }
}

const NO_RULES: BodyRules = BodyRules {
    empty: false,
    any_content_type: false,
    json_in_text: false,
    plain_text: false,
    form_field: None,
};

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

fn decode_text(body: &[u8], charset: Option<&str>) -> Result<Payload, PayloadError> {
    require_utf8(charset)?;
    let text = std::str::from_utf8(body).map_err(|error| PayloadError::Malformed {
        format: Format::Text,
        message: "it isn't UTF-8".to_owned(),
        position: position_of(body, error.valid_up_to()),
    })?;
    let mut json = Vec::with_capacity(text.len() + 2);
    crate::job::write_string(&mut json, text);
    Ok(Payload { format: Format::Text, json: json.into(), raw: None })
}

fn refuse_content_encoding(headers: &HeaderMap) -> Result<(), PayloadError> {
    for value in headers.get_all(CONTENT_ENCODING) {
        if !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity") {
            return Err(PayloadError::ContentEncoding(shown(value.as_bytes())));
        }
    }
    Ok(())
}

fn media_type(headers: &HeaderMap) -> Result<Option<MediaType>, PayloadError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    let text = value.to_str().ok().map(str::trim).filter(|text| !text.is_empty());
    match text.map(MediaType::parse) {
        None if value.is_empty() => Ok(None),
        Some(Some(media_type)) => Ok(Some(media_type)),
        None | Some(None) => Err(PayloadError::ContentType(shown(value.as_bytes()))),
    }
}

/// A body without a content type is JSON.
fn format_of(media_type: Option<&MediaType>) -> Result<Format, PayloadError> {
    let Some(media_type) = media_type else { return Ok(Format::Json) };
    let essence = media_type.essence.as_str();
    match essence {
        "application/json" | "text/json" | "application/x-json" => Ok(Format::Json),
        "application/xml" | "text/xml" => Ok(Format::Xml),
        "application/x-www-form-urlencoded" => Ok(Format::Form),
        _ if essence.ends_with("+json") => Ok(Format::Json),
        _ if essence.ends_with("+xml") => Ok(Format::Xml),
        _ => Err(PayloadError::ContentType(shown(essence.as_bytes()))),
    }
}

fn decode_json(body: &Bytes, charset: Option<&str>) -> Result<Payload, PayloadError> {
    require_utf8(charset)?;
    let json = json::validate(body)?;
    Ok(Payload { format: Format::Json, json: body.slice_ref(json.as_bytes()), raw: None })
}

fn decode_form(body: &Bytes, charset: Option<&str>) -> Result<Payload, PayloadError> {
    require_utf8(charset)?;
    Ok(Payload { format: Format::Form, json: form::convert(body)?.into(), raw: None })
}

fn decode_xml(body: &[u8], charset: Option<&str>, options: &PayloadOptions) -> Result<Payload, PayloadError> {
    let malformed = |error: xml::XmlError| PayloadError::Malformed {
        format: Format::Xml,
        position: Position { line: error.line as usize, column: error.column as usize },
        message: error.message.to_string(),
    };
    if body.trim_ascii().is_empty() {
        return Err(PayloadError::Empty);
    }
    let text = xml::decode(body, charset).map_err(malformed)?;
    let json = xml::convert(&text, &options.xml, &xml::XmlLimits::default()).map_err(malformed)?;
    let raw = (!options.drop_raw_xml).then(|| text.into_owned());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(headers: &[(&'static str, &'static str)], body: &[u8], is_xml: bool) -> Result<String, String> {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Payload::decode(&Verified::for_test(body), &headers, is_xml, &PayloadOptions::default())
            .map(|payload| {
                format!("{} {}", payload.format.as_str(), std::str::from_utf8(&payload.json).unwrap())
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_content_type_decides_unless_the_path_says_xml() {
        const CONTENT: &str = "content-type";
        let unsupported = |name: &str| {
            let text = "can't be turned into JSON; send application/json, application/xml or application/x-www-form-urlencoded";
            Err(format!("The content type {name} {text}"))
        };
        for (content_type, body, expect) in [
            ("application/json", "{}", Ok("json {}".to_owned())),
            ("application/vnd.api+json; charset=utf-8", "[1]", Ok("json [1]".to_owned())),
            ("application/xml", "<a/>", Ok("xml {\"a\":null}".to_owned())),
            ("text/xml", "<a/>", Ok("xml {\"a\":null}".to_owned())),
            ("application/soap+xml", "<a/>", Ok("xml {\"a\":null}".to_owned())),
            ("application/x-www-form-urlencoded", "a=1", Ok("form {\"a\":\"1\"}".to_owned())),
            ("text/plain", "{}", unsupported("text/plain")),
            ("multipart/form-data; boundary=x", "{}", unsupported("multipart/form-data")),
            ("nonsense", "{}", unsupported("nonsense")),
            (
                "application/json; charset=utf-16",
                "{}",
                Err("The charset utf-16 isn't supported for this content type; send UTF-8".to_owned()),
            ),
        ] {
            assert_eq!(decode(&[(CONTENT, content_type)], body.as_bytes(), false), expect, "{content_type}");
        }
        assert_eq!(decode(&[], b"{}", false), Ok("json {}".to_owned()));
        assert_eq!(decode(&[(CONTENT, "")], b"{}", false), Ok("json {}".to_owned()));
        for content_type in ["application/json", "text/plain", "application/x-www-form-urlencoded"] {
            assert_eq!(decode(&[(CONTENT, content_type)], b"<a/>", true), Ok("xml {\"a\":null}".to_owned()));
        }
    }

    #[test]
    fn compressed_bodies_are_named_and_refused() {
        assert_eq!(decode(&[("content-encoding", "identity")], b"1", false), Ok("json 1".to_owned()));
        assert_eq!(
            decode(&[("content-encoding", "gzip")], b"1", false),
            Err("The content encoding gzip isn't supported; send the body uncompressed".to_owned())
        );
    }

    #[test]
    fn a_malformed_xml_body_is_refused_with_line_and_column() {
        let error = decode(&[], b"<a>\n  <b></a>", true).unwrap_err();
        assert!(
            error.starts_with("The XML body is malformed: ") && error.contains("line 2, column"),
            "{error}"
        );
        assert_eq!(decode(&[], b" \n", true), Err("The body is empty".to_owned()));
        let error = decode(&[], b"<a>\xFF</a>", true).unwrap_err();
        assert!(
            error.starts_with("The XML body is malformed: ") && error.contains("line 1, column 4"),
            "{error}"
        );
    }

    #[test]
    fn the_original_xml_is_kept_unless_switched_off() {
        let body = Verified::for_test(b"<a>1</a>");
        let mut options = PayloadOptions::default();
        let raw =
            |options: &PayloadOptions| Payload::decode(&body, &HeaderMap::new(), true, options).unwrap().raw;
        assert_eq!(raw(&options).as_deref(), Some("<a>1</a>"));
        options.drop_raw_xml = true;
        assert_eq!(raw(&options), None);
    }
}
