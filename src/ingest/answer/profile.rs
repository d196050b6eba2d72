//! What an accepted webhook is answered with: what its sender needs.

use std::borrow::Cow;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http_body_util::Full;
use jiff::Timestamp;
use uuid::Uuid;

use super::Answer;
use crate::source;

const JOB_ID: HeaderName = HeaderName::from_static("x-retrieve-job-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The answer for a job that is durable.
pub(super) fn accept(answer: source::Answer, job: Uuid, now: fn() -> Timestamp) -> Answer {
    let content = answer
        .content(job, now)
        .map(|(media_type, body)| (HeaderValue::from_static(media_type), bytes_of(body)));
    // Discord wants a content type on its 204, too.
    let typed = (answer == source::Answer::Empty204).then(|| (JSON, Bytes::new()));
    let (media_type, body) = content.or(typed).unzip();
    let mut response = Response::new(Full::new(body.unwrap_or_default()));
    *response.status_mut() = answer.status();
    if let Some(media_type) = media_type {
        response.headers_mut().insert(CONTENT_TYPE, media_type);
    }
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    if let Ok(id) = HeaderValue::from_str(job.hyphenated().encode_lower(&mut id)) {
        response.headers_mut().insert(JOB_ID, id);
    }
    response
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
    fn wire(answer: source::Answer) -> String {
        let now = || "2025-12-10T14:30:00.5Z".parse().unwrap();
        let (head, body) = accept(answer, JOB.parse().unwrap(), now).into_parts();
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
        for (answer, status, media_type, body) in [
            (source::Answer::Standard, 200, "application/json", r#"{"result":true,"error":""}"#),
            (source::Answer::Empty200, 200, "", ""),
            (source::Answer::Empty204, 204, "application/json", ""),
            (source::Answer::AdobeOp, 200, "application/json", r#"{"op":"success"}"#),
            (source::Answer::SalesforceAck, 200, "text/xml; charset=utf-8", soap),
            (source::Answer::Cxml, 200, "text/xml; charset=utf-8", cxml),
        ] {
            let typed =
                if media_type.is_empty() { String::new() } else { format!("content-type: {media_type} ") };
            let expect = format!("{status} {typed}x-retrieve-job-id: {JOB} | {body}");
            assert_eq!(wire(answer), expect, "{answer:?}");
        }
    }
}
