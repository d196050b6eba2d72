//! Payloads.

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode;
use quick_xml::Reader;
use quick_xml::events::Event;
use retrieve_gateway::memory::MemoryBudget;
use retrieve_gateway::payload::json::DEPTH_LIMIT;
use retrieve_gateway::payload::media_type::MediaType;
use retrieve_gateway::payload::multipart::Files;
use retrieve_gateway::payload::xml::{Arrays, Root, XmlLimits, XmlOptions};
use retrieve_gateway::payload::{Format, Limits, Payload, PayloadOptions, inflate};
use retrieve_gateway::signature::{SignedRequest, Verified, Verifier};
use retrieve_gateway::source;
use serde_json::Value;
use serde_json::value::RawValue;

use super::first_line;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Accepted exactly if `serde_json` accepts it and it isn't too deep, and carried byte for byte.
pub fn json(input: &[u8]) {
    let text = input.strip_prefix(BYTE_ORDER_MARK).unwrap_or(input);
    let expect = serde_json::from_slice::<&RawValue>(text)
        .ok()
        .map(RawValue::get)
        .filter(|text| depth(text) <= DEPTH_LIMIT);
    match retrieve_gateway::payload::json::validate(input) {
        Ok(json) => {
            assert_eq!(Some(json), expect, "accepted, or changed");
            assert_eq!(retrieve_gateway::payload::json::validate(json.as_bytes()).ok(), Some(json));
        }
        Err(error) => {
            assert_eq!(expect, None, "refused: {error}");
            assert!(error.to_string().len() < 200, "{error}");
        }
    }
}

/// How deep a valid text nests.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !quoted => depth -= 1,
            _ => {}
        }
    }
    deepest
}

/// A byte of options, then a document. What is accepted is well-formed to `quick-xml`, too, and comes out as JSON that
/// holds as many elements and attributes as went in.
pub fn xml(input: &[u8]) {
    let Some((bits, document)) = input.split_first() else { return };
    let options = xml_options(*bits);
    let Ok(text) = retrieve_gateway::payload::xml::decode(document, None) else { return };
    let Ok(json) = retrieve_gateway::payload::xml::convert(&text, &options, &XmlLimits::default()) else {
        return;
    };
    let value: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    assert_eq!(serde_json::to_string(&value).ok().as_ref(), Some(&json), "not compact, or a key twice");
    if options.root == Root::Keep {
        assert_eq!(value.as_object().map(serde_json::Map::len), Some(1), "one root: {json}");
    }
    let things = count_things(&text).unwrap_or_else(|error| panic!("quick-xml refuses it: {error}"));
    if options == XmlOptions::default() && !text.contains("#text") {
        // Every element and attribute is one value: a member, or an element of an array.
        assert_eq!(count_values(&value), things, "{json}");
    }
}

fn xml_options(bits: u8) -> XmlOptions {
    let is_set = |bit: u8| bits & (1 << bit) != 0;
    let mut options =
        XmlOptions { strip_prefixes: is_set(0), keep_whitespace: is_set(1), ..XmlOptions::default() };
    if is_set(2) {
        options.arrays = Arrays::Always;
    }
    if is_set(3) {
        options.root = Root::Unwrap;
    }
    if is_set(4) {
        options.force_list = vec!["a".to_owned(), "a.b".to_owned()];
    }
    if is_set(7) {
        // Names may collide; '0' in a corpus's file (0x30) sets none of these.
        options.attribute_prefix = String::new();
        options.text_key = "a".to_owned();
    }
    options
}

/// Elements and attributes.
fn count_things(text: &str) -> Result<usize, quick_xml::Error> {
    let mut reader = Reader::from_str(text);
    let mut count = 0;
    loop {
        match reader.read_event()? {
            Event::Eof => return Ok(count),
            Event::Start(tag) | Event::Empty(tag) => {
                count += 1;
                for attribute in tag.attributes() {
                    attribute?;
                    count += 1;
                }
            }
            _ => {}
        }
    }
}

/// Values of members other than the text's, those of arrays one by one.
fn count_values(value: &Value) -> usize {
    let Value::Object(members) = value else { return 0 };
    let values = members.iter().filter(|(name, _)| *name != "#text").map(|(_, value)| match value {
        Value::Array(elements) => elements.iter().map(|element| 1 + count_values(element)).sum(),
        other => 1 + count_values(other),
    });
    values.sum()
}

/// An object with as many strings as the form has pairs, each what a second way of decoding gives.
pub fn form(input: &[u8]) {
    let pairs = input.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    let pairs: Option<Vec<(String, String)>> = pairs
        .map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let mut half = || decode_half(halves.next().unwrap_or_default());
            Some((half()?, half()?))
        })
        .collect();
    let converted = retrieve_gateway::payload::form::convert(input);
    let Some(pairs) = pairs.filter(|pairs| pairs.len() <= retrieve_gateway::payload::form::PAIR_LIMIT) else {
        assert!(converted.is_err(), "accepted");
        return;
    };
    let json = converted.unwrap_or_else(|error| panic!("refused: {error}"));
    let mut expect = serde_json::Map::new();
    for (key, value) in pairs {
        match expect.get_mut(&key) {
            None => {
                expect.insert(key, Value::String(value));
            }
            Some(Value::Array(values)) => values.push(Value::String(value)),
            Some(first) => *first = Value::Array(vec![first.take(), Value::String(value)]),
        }
    }
    // As values, since a control character has more than one escape. A key twice would lose what stands at the first.
    assert_eq!(serde_json::from_slice(&json).ok(), Some(Value::Object(expect)));
}

fn decode_half(text: &[u8]) -> Option<String> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    String::from_utf8(percent_decode(&spaced).collect()).ok()
}

/// Accepted exactly if every line that isn't blank is JSON that isn't too deep, and at least one is there; their values are
/// carried byte for byte.
pub fn ndjson(input: &[u8]) {
    let text = input.strip_prefix(BYTE_ORDER_MARK).unwrap_or(input);
    let is_blank = |line: &&[u8]| line.iter().all(|byte| b" \t\r".contains(byte));
    let values: Option<Vec<&str>> = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !is_blank(line))
        .map(|line| serde_json::from_slice::<&RawValue>(line).ok().map(RawValue::get))
        .map(|value| value.filter(|value| depth(value) <= DEPTH_LIMIT))
        .collect();
    let expect = values.filter(|values| !values.is_empty()).map(|values| format!("[{}]", values.join(",")));
    let converted = retrieve_gateway::payload::ndjson::convert(input, &Limits::DEFAULT).ok();
    assert_eq!(converted.as_deref(), expect.as_deref().map(str::as_bytes));
}

/// A line with a charset (it may be empty), then a text: a JSON string, which is the text itself where that is UTF-8.
pub fn text(input: &[u8]) {
    let (label, body) = first_line(input);
    let Ok(label) = std::str::from_utf8(label) else { return };
    let label = Some(label).filter(|label| !label.is_empty());
    let Ok(json) = retrieve_gateway::payload::text::convert(body, label) else { return };
    let value: String = serde_json::from_slice(&json).expect("a JSON string");
    let is_utf8 = label.is_none_or(|label| label.eq_ignore_ascii_case("utf-8"));
    if is_utf8 && let Ok(text) = std::str::from_utf8(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body)) {
        assert_eq!(value, text);
    }
}

/// What is read of a media type reads alike once it is written by itself.
pub fn media_type(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some(media_type) = MediaType::parse(text) else { return };
    let MediaType { essence, .. } = &media_type;
    assert_eq!(*essence, essence.to_ascii_lowercase());
    assert_eq!(essence.matches('/').count(), 1, "{essence}");
    assert!(essence.bytes().all(|byte| byte.is_ascii_graphic()), "{essence}");
    assert_eq!(MediaType::parse(essence).map(|again| again.essence).as_ref(), Some(essence));
}

/// A line `<bits> <preset>`, a line of `Content-Type`, a line of `Content-Encoding` (both may be empty), then a body.
/// Whatever comes out is one JSON value.
pub fn payload(input: &[u8]) {
    let (first, rest) = first_line(input);
    let (content_type, rest) = first_line(rest);
    let (content_encoding, body) = first_line(rest);
    let (bits, preset) = (first.first().copied().unwrap_or(b'0'), first.get(2..).unwrap_or_default());
    let mut headers = HeaderMap::new();
    for (name, value) in [("content-type", content_type), ("content-encoding", content_encoding)] {
        if let (false, Ok(value)) = (value.is_empty(), value.try_into()) {
            headers.insert(name, value);
        }
    }
    let options = PayloadOptions {
        xml: xml_options(bits),
        drop_raw_xml: bits & 0x20 == 0,
        files: if bits & 1 == 0 { Files::Refuse } else { Files::Base64 { limit_bytes: 1000 } },
        source: std::str::from_utf8(preset).ok().and_then(source::preset),
        ..PayloadOptions::default()
    };
    let Some(content) = content(&headers, body) else { return };
    let verified = unsigned(&content);
    let is_xml = bits & 0x40 != 0;
    let Ok(payload) = Payload::decode(&verified, &headers, is_xml, &options) else { return };
    let value: &RawValue = serde_json::from_slice(&payload.json).expect("JSON");
    assert_eq!(value.get().len(), payload.json.len(), "white space around the value");
    let deepest = match payload.format {
        Format::Xml => XmlLimits::default().json_depth,
        Format::NdJson => DEPTH_LIMIT + 1,
        _ => DEPTH_LIMIT,
    };
    assert!(depth(value.get()) <= deepest);
    assert_eq!(payload.raw.is_some(), payload.format == Format::Xml && !options.drop_raw_xml);
    assert!(!is_xml || payload.format == Format::Xml || options.source.is_some(), "{:?}", payload.format);
}

/// The body without its content coding.
fn content(headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
    let Some(coding) = inflate::coding(headers).ok()? else { return Some(body.to_vec()) };
    let budget = MemoryBudget::new(4 << 20);
    let mut held = budget.reserve(0).ok()?;
    let bounds = inflate::Bounds::new(1 << 20, &Limits::DEFAULT);
    inflate::inflate(coding, body, bounds, &mut |bytes| budget.extend(&mut held, bytes)).ok()
}

/// A body that needs no signature.
fn unsigned(body: &[u8]) -> Verified {
    let body = Bytes::copy_from_slice(body);
    let request = SignedRequest {
        method: &Method::POST,
        uri: &Uri::from_static("/integration/demo"),
        headers: &HeaderMap::new(),
        body: &body,
        now: jiff::Timestamp::UNIX_EPOCH,
        public_url: None,
    };
    Verifier::Unsigned.verify(&request).expect("nothing to verify")
}
