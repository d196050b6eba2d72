//! The job: the versioned JSON document that a worker reads (version 1). Its bytes are pinned by a snapshot.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::admission::allowlist::Rule;
use crate::payload::Payload;
use crate::payload::search::json_stop;
use crate::rfc3339::rfc3339;
use crate::signature::Verifier;

/// The version of the document; a change of meaning raises it.
pub const VERSION: u32 = 1;

/// A job that is ready for the queue.
#[derive(Clone, Debug)]
pub struct Job {
    /// A UUIDv7, fixed before the first attempt to queue the job.
    pub id: Uuid,
    /// The JSON document.
    pub document: Bytes,
    /// How repeats of it are known, where they are dropped.
    pub dedupe: Option<Dedupe>,
}

/// How repeats of a job are known: the queue appends one job for each key within that time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedupe {
    /// What all repeats have in common, within one app.
    pub key: String,
    /// From the first one on.
    pub within: Duration,
}

impl Dedupe {
    /// The key of something that a sender wrote, of any length and content.
    pub fn new(integration: &str, of: &[u8], within: Duration) -> Dedupe {
        const HASH_BYTES: usize = 16;
        let hash = Sha256::digest(of);
        Dedupe { key: format!("{integration}:{}", hex::encode(&hash[..HASH_BYTES])), within }
    }
}

/// What a job is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The job's id.
    pub id: Uuid,
    /// The app's name.
    pub app: &'a str,
    /// The integration's id.
    pub integration: &'a str,
    /// When the request's head had been read.
    pub received_at: Timestamp,
    /// The client's address.
    pub client: IpAddr,
    /// The rule that admitted it.
    pub rule: &'a Rule,
    /// The integration's source preset.
    pub preset: Option<&'a str>,
    /// What happened, in the sender's own word.
    pub event: Option<&'a str>,
    /// The sender's number of the delivery, the same in every repeat.
    pub delivery_id: Option<&'a str>,
    /// What checked the signature, and knows which headers and parameters carry it.
    pub verifier: &'a Verifier,
    /// Whether a signature was checked.
    pub verified: bool,
    /// The request's head.
    pub request: &'a http::request::Parts,
    /// The payload as JSON.
    pub payload: &'a Payload<'a>,
}

impl Job {
    /// Writes the document. Optional members that have no value are null.
    pub fn encode(parts: &Parts<'_>) -> Job {
        let raw_length = parts.payload.raw.as_ref().map_or(0, |raw| raw.len());
        let mut out = Vec::with_capacity(1024 + parts.payload.json.len() + raw_length + raw_length / 8);
        push_display(&mut out, format_args!("{{\"v\":{VERSION},\"id\":\""));
        push(&mut out, parts.id.hyphenated().encode_lower(&mut [0; Hyphenated::LENGTH]));
        push(&mut out, "\",\"app\":");
        write_string(&mut out, parts.app);
        push(&mut out, ",\"integration\":");
        write_string(&mut out, parts.integration);
        push(&mut out, ",\"received_at\":\"");
        out.extend_from_slice(&rfc3339(parts.received_at));
        push(&mut out, "\",\"source\":");
        write_source(&mut out, parts);
        push(&mut out, ",\"event\":");
        write_optional(&mut out, parts.event);
        push(&mut out, ",\"delivery_id\":");
        write_optional(&mut out, parts.delivery_id);
        push(&mut out, ",\"request\":");
        write_request(&mut out, parts.request, parts.verifier);
        push(&mut out, ",\"data\":");
        write_data(&mut out, parts.payload);
        out.push(b'}');
        Job { id: parts.id, document: out.into(), dedupe: None }
    }
}

fn write_source(out: &mut Vec<u8>, parts: &Parts<'_>) {
    push(out, "{\"preset\":");
    write_optional(out, parts.preset);
    push_display(out, format_args!(",\"ip\":\"{}\",\"admitted_by\":", parts.client));
    write_string(out, parts.rule.proof.as_str());
    push(out, ",\"rule\":");
    write_string(out, &parts.rule.entry);
    push(out, if parts.verified { ",\"verified\":true}" } else { ",\"verified\":false}" });
}

fn write_optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => write_string(out, text),
        None => push(out, "null"),
    }
}

/// The query without the values that carry a credential.
fn shown_query(query: &str, verifier: &Verifier) -> String {
    let shown = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if verifier.carries_parameter(name) => format!("{name}=(left out)"),
        _ => pair.to_owned(),
    });
    shown.collect::<Vec<_>>().join("&")
}

fn write_request(out: &mut Vec<u8>, request: &http::request::Parts, verifier: &Verifier) {
    push(out, "{\"method\":");
    write_string(out, request.method.as_str());
    push(out, ",\"path\":");
    write_string(out, request.uri.path());
    push(out, ",\"query\":");
    match request.uri.query() {
        Some(query) => write_string(out, &shown_query(query, verifier)),
        None => push(out, "\"\""),
    }
    push(out, ",\"content_type\":");
    write_optional(out, request.headers.get(http::header::CONTENT_TYPE).map(text_of).as_deref());
    push(out, ",\"headers\":");
    write_headers(out, &request.headers, verifier);
    out.push(b'}');
}

/// Several lines of one header are joined as RFC 9110 (section 5.3) joins them.
fn write_headers(out: &mut Vec<u8>, headers: &HeaderMap, verifier: &Verifier) {
    out.push(b'{');
    let mut first = true;
    for name in headers.keys().filter(|name| !is_secret(name) && !verifier.carries(name)) {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write_string(out, name.as_str());
        out.push(b':');
        let mut values = headers.get_all(name).iter();
        let mut joined = values.next().map(text_of).unwrap_or_default();
        for value in values {
            joined.to_mut().push_str(", ");
            joined.to_mut().push_str(&text_of(value));
        }
        write_string(out, &joined);
    }
    out.push(b'}');
}

fn write_data(out: &mut Vec<u8>, payload: &Payload<'_>) {
    push(out, "{\"format\":\"");
    push(out, payload.format.as_str());
    push(out, "\",\"data\":");
    out.extend_from_slice(&payload.json);
    push(out, ",\"raw\":");
    match &payload.raw {
        Some(raw) => write_string(out, raw),
        None => push(out, "null"),
    }
    out.push(b'}');
}

/// Headers that carry a credential or a signature stay out of the job: whoever reads the stream could use them.
fn is_secret(name: &HeaderName) -> bool {
    const NAMES: [&str; 4] = ["cookie", "token", "x-auth", "x-key"];
    const ENDS: [&str; 3] = ["-token", "-sig", "-cookie"];
    let name = name.as_str();
    let is_secret = NAMES.contains(&name)
        || (0..name.len()).any(|at| begins_with_secret(&name.as_bytes()[at..]))
        || ENDS.iter().any(|end| name.ends_with(end));
    is_secret && !name.contains("idempotency")
}

/// The words of credentials by their first letter: each letter of each header's name is looked at.
fn begins_with_secret(rest: &[u8]) -> bool {
    let words: &[&str] = match rest.first() {
        Some(b'a') => &["authorization", "api-key", "apikey", "auth-key", "auth-token", "access-key"],
        Some(b'c') => &["credential"],
        Some(b'h') => &["hmac"],
        Some(b'p') => &["password"],
        Some(b's') => &["signature", "secret"],
        _ => return false,
    };
    words.iter().any(|word| rest.starts_with(word.as_bytes()))
}

/// Bytes beyond ASCII are read as ISO-8859-1, which no byte is outside of.
fn text_of(value: &HeaderValue) -> Cow<'_, str> {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => value.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
    }
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn push_display(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    // Writing to memory doesn't fail.
    let _ = out.write_fmt(text);
}

/// Appends a JSON string (RFC 8259, section 7).
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let index = json_stop(rest, 0);
        out.extend_from_slice(&rest[..index]);
        let Some(stop) = rest.get(index) else { break };
        match *stop {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xF)]]);
            }
        }
        rest = &rest[index + 1..];
    }
    out.push(b'"');
}

/// A document on one line. A line end inside valid JSON is white space between tokens (a string can't hold one
/// unescaped), so a space in its place changes no value.
pub fn one_line(document: &[u8]) -> Vec<u8> {
    document.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admission::allowlist::Proof;
    use crate::payload::Format;

    fn document(payload: &Payload<'_>) -> String {
        let request = http::Request::post("/integration/demo?shop=a%20b")
            .header("Content-Type", "application/json")
            .header("X-Shopify-Topic", "orders/create")
            .header("X-Shopify-Hmac-Sha256", "c2VjcmV0")
            .header("Authorization", "Basic c2VjcmV0")
            .header("Cookie", "session=secret")
            .header("X-Gitlab-Token", "secret")
            .header("X-Api-Key", "secret")
            .header("I-Twilio-Idempotency-Token", "kept")
            .header("Accept", "a")
            .header("Accept", "b")
            .header("X-Latin", HeaderValue::from_bytes(b"caf\xE9").unwrap())
            .body(())
            .unwrap();
        let job = Job::encode(&Parts {
            id: Uuid::parse_str("0199c2de-7a63-7cc1-b0f6-2f4a7d3a9e10").unwrap(),
            app: "yourapp",
            integration: "demo",
            received_at: "2025-12-10T14:30:00.123456789Z".parse().unwrap(),
            client: "203.0.113.5".parse().unwrap(),
            rule: &Rule { proof: Proof::Network, entry: "203.0.113.0/24".to_owned() },
            preset: None,
            event: None,
            delivery_id: None,
            verifier: &Verifier::Unsigned,
            verified: false,
            request: &request.into_parts().0,
            payload,
        });
        String::from_utf8(job.document.to_vec()).unwrap()
    }

    #[test]
    fn the_bytes_of_version_1() {
        let json = Bytes::from_static(b"{ \"id\": 12345678901234567890,\n \"id\": 1.50 }");
        insta::assert_snapshot!(document(&Payload { format: Format::Json, json, raw: None }));
        let json = Bytes::from_static(b"{\"a\":null}");
        let raw = Some("<?xml version=\"1.0\"?>\n<a\t/>".into());
        let xml = document(&Payload { format: Format::Xml, json, raw });
        insta::assert_snapshot!(&xml[xml.find("\"data\":").unwrap()..]);
    }

    #[test]
    fn no_secret_reaches_the_job() {
        let document = document(&Payload { format: Format::Json, json: Bytes::from_static(b"1"), raw: None });
        assert!(!document.contains("secret") && !document.contains("c2Vjcm"), "{document}");
        assert!(document.contains("\"i-twilio-idempotency-token\":\"kept\""));
    }

    #[test]
    fn headers_that_carry_a_credential_or_a_signature_are_known() {
        for (name, expect) in [
            ("authorization", true),
            ("proxy-authorization", true),
            ("x-authorization", true),
            ("cookie", true),
            ("x-shopify-hmac-sha256", true),
            ("x-wc-webhook-signature", true),
            ("x-hub-signature-256", true),
            ("paypal-transmission-sig", true),
            ("x-gitlab-token", true),
            ("token", true),
            ("x-api-key", true),
            ("x-auth-key", true),
            ("x-access-key", true),
            ("x-shopify-topic", false),
            ("x-wc-webhook-delivery-id", false),
            ("i-twilio-idempotency-token", false),
            ("idempotency-key", false),
            ("user-agent", false),
            ("content-type", false),
        ] {
            assert_eq!(is_secret(&HeaderName::from_static(name)), expect, "{name}");
        }
    }

    proptest! {
        /// A written string is read as the same string.
        #[test]
        fn strings_survive(text: String) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        /// A document on one line has the same value.
        #[test]
        fn one_line_keeps_the_value(text: String) {
            let value = serde_json::json!({"a": [text, {"b": 1}]});
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            let line = one_line(&pretty);
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&line).unwrap(), value);
        }
    }
}
