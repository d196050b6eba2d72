//! What the fuzz targets check: one function for each parser that strangers, or an operator's files, can reach. A check
//! panics if the parser does, or if what it says can't be right. Wherever there is another judge it is asked: `serde_json`
//! for JSON, `quick-xml` for XML, a second and simpler way of doing the same for the rest.
//!
//! Inputs are written so that a corpus can be read and made by hand: lines first, then a body.

mod inflate;
mod multipart;
mod network;
mod payload;
mod settings;
mod signature;

/// Panics if what a parser makes of an input can't be right.
pub type Check = fn(&[u8]);

/// Every target by its name: that of its file in `targets/` and of its folder in `corpus/`.
pub const TARGETS: [(&str, Check); 19] = [
    ("json", payload::json),
    ("xml", payload::xml),
    ("form", payload::form),
    ("media_type", payload::media_type),
    ("ndjson", payload::ndjson),
    ("multipart", multipart::multipart),
    ("text", payload::text),
    ("inflate", inflate::inflate),
    ("payload", payload::payload),
    ("client_address", network::client_address),
    ("proxy_header", network::proxy_header),
    ("route", network::route),
    ("signature", signature::signature),
    ("handshake", signature::handshake),
    ("key_document", signature::key_document),
    ("key_url", signature::key_url),
    ("allowlist_entry", settings::allowlist_entry),
    ("integrations", settings::integrations),
    ("environment", settings::environment),
];

/// Runs the check of that name.
pub fn check(target: &str, input: &[u8]) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target of that name");
    check(input);
}

/// The first line, without its end, and what follows.
fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, b""),
    }
}

/// Headers, one `name: value` a line, up to an empty line; then the body. What is no header is passed over.
fn headers_and_body(input: &[u8]) -> (http::HeaderMap, &[u8]) {
    let mut headers = http::HeaderMap::new();
    let mut rest = input;
    while !rest.is_empty() {
        let (line, behind) = first_line(rest);
        rest = behind;
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = http::HeaderName::from_bytes(&line[..colon]);
        let value = http::HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, rest)
}
