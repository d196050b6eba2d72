//! A sample: the headers and the body that a preset's sender would send, made of what the preset knows (where it puts
//! the event, the id and its proof) around a small body of our own.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::known::{self, Known};
use crate::signature::Scheme;
use crate::signature::scheme::BodyFormat;
use crate::signature::sign;
use crate::source::{Locator, Preset};

/// What a sample should say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// What happened; the sender's commonest event unless given.
    pub event: Option<&'a str>,
    /// The delivery's id.
    pub id: &'a str,
    /// For the senders whose proof stands in the body.
    pub secret: Option<&'a SecretString>,
    /// The time of the event.
    pub now: Timestamp,
}

/// A request's headers and body, unsigned.
#[derive(Debug)]
pub(super) struct Sample {
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Whether the event has a place.
    pub places_event: bool,
    /// Whether the id has a place.
    pub places_id: bool,
}

/// The built-in sample of a preset, or of no sender in particular.
pub(super) fn sample(source: Option<&Preset>, wanted: &Wanted<'_>) -> Sample {
    let known = known::of(source);
    let event = wanted.event.unwrap_or(known.event);
    let mut headers = headers(source, &known, wanted, event);
    let body = match known.body {
        Some(template) => fill(template, wanted, event).into_bytes(),
        None => json_body(source, wanted, event).to_string().into_bytes(),
    };
    Sample::set_content_type(&mut headers, known.content_type);
    Sample { headers, body: body.into(), places_event: true, places_id: true }
}

/// The headers of a preset around a body of the user's.
pub(super) fn around(
    source: Option<&Preset>,
    wanted: &Wanted<'_>,
    body: Bytes,
    content_type: Option<&str>,
) -> Sample {
    let known = known::of(source);
    let event = wanted.event.unwrap_or(known.event);
    let mut headers = headers(source, &known, wanted, event);
    Sample::set_content_type(&mut headers, content_type.unwrap_or_else(|| media_type(&body)));
    let in_headers = |text: &str| headers.iter().any(|(_, value)| value.as_bytes() == text.as_bytes());
    Sample { places_event: in_headers(event), places_id: in_headers(wanted.id), headers, body }
}

fn media_type(body: &[u8]) -> &'static str {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'<') => "application/xml",
        Some(b'{' | b'[' | b'"') | None => "application/json",
        Some(_) => "application/x-www-form-urlencoded",
    }
}

fn headers(source: Option<&Preset>, known: &Known, wanted: &Wanted<'_>, event: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.entry(name).or_insert(value);
        }
    };
    for (name, template) in known.headers {
        add(name, &fill(template, wanted, event));
    }
    if let Some(preset) = source {
        for (locator, value) in [(&preset.event, event), (&preset.delivery_id, wanted.id)] {
            for names in header_places(locator) {
                let spelled = names.iter().find(|name| name.starts_with(known.spelling));
                if let Some(name) = spelled.or(names.first()) {
                    add(name, value);
                }
            }
        }
    }
    headers
}

fn header_places(locator: &Locator) -> Vec<&'static [&'static str]> {
    match locator {
        Locator::Header(names) => vec![names],
        Locator::FirstOf(places) => places.first().map(header_places).unwrap_or_default(),
        Locator::Joined(places) => places.iter().flat_map(header_places).collect(),
        Locator::Nowhere | Locator::Body(_) | Locator::Xml(_) | Locator::BodyHash => Vec::new(),
    }
}

fn body_places(locator: &Locator) -> Vec<&'static str> {
    match locator {
        Locator::Body(pointer) => vec![pointer],
        Locator::FirstOf(places) => places.first().map(body_places).unwrap_or_default(),
        Locator::Joined(places) => places.iter().flat_map(body_places).collect(),
        Locator::Nowhere | Locator::Header(_) | Locator::Xml(_) | Locator::BodyHash => Vec::new(),
    }
}

/// JSON with everything in it that the preset looks for.
fn json_body(source: Option<&Preset>, wanted: &Wanted<'_>, event: &str) -> Value {
    let mut body = Value::Null;
    if let Some(preset) = source {
        for pointer in body_places(&preset.event) {
            put(&mut body, pointer, event.into());
        }
        for pointer in body_places(&preset.delivery_id) {
            put(&mut body, pointer, wanted.id.into());
        }
        put_proof(&mut body, &preset.scheme, wanted);
    } else {
        put(&mut body, "/event", event.into());
    }
    let order =
        json!({"id": 1001, "total": "156.50", "currency": "EUR", "created_at": format!("{:.0}", wanted.now)});
    let place = if body.is_array() { "/*/order" } else { "/order" };
    put(&mut body, place, order);
    body
}

/// What a scheme wants to find in the body.
fn put_proof(body: &mut Value, scheme: &Scheme<'_>, wanted: &Wanted<'_>) {
    match (scheme, wanted.secret) {
        (Scheme::Signed(signed), _) => {
            if let Some(pointer) = signed.clock_in_body {
                put(body, pointer, wanted.now.as_millisecond().into());
            }
        }
        (Scheme::InBody { format: BodyFormat::Json, pointer }, Some(secret)) => {
            put(body, pointer, secret.expose_secret().into());
        }
        (Scheme::Mailgun, Some(secret)) => {
            let timestamp = wanted.now.as_second().to_string();
            // Mailgun's own tokens have 50 characters.
            let token = format!("{:0<50}", wanted.id.replace('-', ""));
            let signature = sign::mailgun(secret, &timestamp, &token);
            let members = json!({"timestamp": timestamp, "token": token, "signature": signature});
            put(body, "/event-data/id", wanted.id.into());
            remove(body, "signature");
            put(body, "/signature", members);
        }
        _ => {}
    }
}

fn remove(body: &mut Value, name: &str) {
    if let Value::Object(members) = body {
        members.remove(name);
    }
}

/// Sets a value where a pointer leads, unless there is one. `*` and numbers are the first element of an array.
fn put(body: &mut Value, pointer: &str, value: Value) {
    let mut place = body;
    for step in pointer.split('/').skip(1) {
        let is_element = step == "*" || step.bytes().all(|byte| byte.is_ascii_digit());
        if place.is_null() {
            *place = if is_element { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
        }
        place = match place {
            Value::Array(elements) if is_element => {
                if elements.is_empty() {
                    elements.push(Value::Null);
                }
                &mut elements[0]
            }
            Value::Object(members) if !is_element => members.entry(step).or_insert(Value::Null),
            _ => return,
        };
    }
    if place.is_null() {
        *place = value;
    }
}

/// Fills a template's `{event}`, `{id}`, `{now}`, `{time}` (as `now`, with milliseconds), `{secret}` and `{signature}`
/// (eBay's), escaped for XML where they could open markup.
fn fill(template: &str, wanted: &Wanted<'_>, event: &str) -> String {
    let time = format!("{:.3}", wanted.now);
    let secret = wanted.secret.map(ExposeSecret::expose_secret).unwrap_or_default();
    let signature = wanted.secret.map(|secret| sign::ebay_platform(secret, &time)).unwrap_or_default();
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let known = after.split_once('}').and_then(|(name, after)| {
            let value = match name {
                "event" => escape(event),
                "id" => escape(wanted.id),
                "now" => format!("{:.0}", wanted.now),
                "time" => time.clone(),
                "secret" => escape(secret),
                "signature" => signature.clone(),
                _ => return None,
            };
            Some((value, after))
        });
        rest = match known {
            Some((value, after)) => {
                filled.push_str(&value);
                after
            }
            None => {
                filled.push('{');
                after
            }
        };
    }
    filled + rest
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
