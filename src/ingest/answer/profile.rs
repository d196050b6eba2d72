//! What an accepted webhook is answered with: what its sender needs, or what the settings say.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http_body_util::Full;
use jiff::Timestamp;
use uuid::Uuid;

use super::Answer;
use crate::source;

/// The longest text of an integration's own.
pub const TEXT_LIMIT_BYTES: usize = 1024;

const JOB_ID: HeaderName = HeaderName::from_static("x-retrieve-job-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");

/// The answer to an accepted webhook. Refusals are the same for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerProfile {
    /// What a sender needs.
    Sender(source::Answer),
    /// 200 with a text: FoxyCart wants `foxy`, others `OK`.
    Text(Bytes),
}

impl Default for AnswerProfile {
    fn default() -> Self {
        AnswerProfile::Sender(source::Answer::Standard)
    }
}

/// A text that names no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownAnswer;

impl fmt::Display for UnknownAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("write ")?;
        for (name, _) in NAMES {
            write!(formatter, "`{name}`, ")?;
        }
        write!(formatter, "or `text:` and up to {TEXT_LIMIT_BYTES} bytes of text")
    }
}

impl std::error::Error for UnknownAnswer {}

/// The names of the answers in `integrations.toml`.
pub const NAMES: [(&str, source::Answer); 6] = [
    ("standard", source::Answer::Standard),
    ("empty-200", source::Answer::Empty200),
    ("empty-204", source::Answer::Empty204),
    ("adobe-op", source::Answer::AdobeOp),
    ("salesforce-ack", source::Answer::SalesforceAck),
    ("cxml", source::Answer::Cxml),
];

impl AnswerProfile {
    /// Reads a setting: one of [`NAMES`], or `text:` and the text.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<AnswerProfile, UnknownAnswer> {
        if let Some(text) = text.strip_prefix("text:") {
            let fits = text.len() <= TEXT_LIMIT_BYTES;
            return fits.then(|| AnswerProfile::Text(text.to_owned().into())).ok_or(UnknownAnswer);
        }
        let named = NAMES.iter().find(|(name, _)| *name == text);
        named.map(|(_, answer)| AnswerProfile::Sender(*answer)).ok_or(UnknownAnswer)
    }

    /// The status of the answer.
    pub fn status(&self) -> http::StatusCode {
        match self {
            AnswerProfile::Text(_) => http::StatusCode::OK,
            AnswerProfile::Sender(answer) => answer.status(),
        }
    }

    /// The answer for a job that is durable.
    pub fn answer(&self, job: Uuid, now: Timestamp) -> Answer {
        let (status, content) = match self {
            AnswerProfile::Text(text) => (http::StatusCode::OK, Some((TEXT, text.clone()))),
            AnswerProfile::Sender(answer) => {
                let content = answer
                    .content(job, now)
                    .map(|(media_type, body)| (HeaderValue::from_static(media_type), bytes_of(body)));
                // Discord wants a content type on its 204, too.
                let typed = (*answer == source::Answer::Empty204).then(|| (JSON, Bytes::new()));
                (answer.status(), content.or(typed))
            }
        };
        let (media_type, body) = content.unzip();
        let mut response = Response::new(Full::new(body.unwrap_or_default()));
        *response.status_mut() = status;
        if let Some(media_type) = media_type {
            response.headers_mut().insert(CONTENT_TYPE, media_type);
        }
        let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
        if let Ok(id) = HeaderValue::from_str(job.hyphenated().encode_lower(&mut id)) {
            response.headers_mut().insert(JOB_ID, id);
        }
        response
    }
}

fn bytes_of(text: Cow<'static, str>) -> Bytes {
    match text {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    const JOB: &str = "0199c2de-7a63-7cc1-b0f6-2f4a7d3a9e10";

    /// Status, headers in order of name, body.
    fn wire(profile: &AnswerProfile) -> String {
        let now = "2025-12-10T14:30:00.5Z".parse().unwrap();
        let (head, body) = profile.answer(JOB.parse().unwrap(), now).into_parts();
        let mut headers: Vec<String> =
            head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        headers.sort();
        let body = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        format!("{} {} | {}", head.status.as_u16(), headers.join(" "), std::str::from_utf8(&body).unwrap())
    }

    #[test]
    fn every_answer_byte_for_byte() {
        let soap = concat!(
            r#"<?xml version="1.0" encoding="UTF-8"?>"#,
            r#"<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>"#,
            r#"<notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>true</Ack>"#,
            r#"</notificationsResponse></soapenv:Body></soapenv:Envelope>"#
        );
        let cxml = concat!(
            r#"<?xml version="1.0" encoding="UTF-8"?>"#,
            r#"<!DOCTYPE cXML SYSTEM "http://xml.cxml.org/schemas/cXML/1.2.014/cXML.dtd">"#,
            r#"<cXML payloadID="0199c2de-7a63-7cc1-b0f6-2f4a7d3a9e10@retrieve-gateway" timestamp="2025-12-10T14:30:00Z">"#,
            r#"<Response><Status code="200" text="OK"/></Response></cXML>"#
        );
        for (name, status, media_type, body) in [
            ("standard", 200, "application/json", r#"{"result":true,"error":""}"#),
            ("empty-200", 200, "", ""),
            ("empty-204", 204, "application/json", ""),
            ("adobe-op", 200, "application/json", r#"{"op":"success"}"#),
            ("salesforce-ack", 200, "text/xml; charset=utf-8", soap),
            ("cxml", 200, "text/xml; charset=utf-8", cxml),
            ("text:foxy", 200, "text/plain", "foxy"),
            ("text:", 200, "text/plain", ""),
        ] {
            let typed =
                if media_type.is_empty() { String::new() } else { format!("content-type: {media_type} ") };
            let expect = format!("{status} {typed}x-retrieve-job-id: {JOB} | {body}");
            assert_eq!(wire(&AnswerProfile::parse(name).unwrap()), expect, "{name}");
        }
        assert_eq!(wire(&AnswerProfile::default()), wire(&AnswerProfile::parse("standard").unwrap()));
    }

    #[test]
    fn an_answer_is_named_exactly() {
        for text in ["", "Standard", "empty", "text", &format!("text:{}", "a".repeat(1025))] {
            assert_eq!(AnswerProfile::parse(text), Err(UnknownAnswer), "{text}");
        }
        assert_eq!(
            UnknownAnswer.to_string(),
            "write `standard`, `empty-200`, `empty-204`, `adobe-op`, `salesforce-ack`, `cxml`, or `text:` and up to 1024 bytes of text"
        );
    }
}
