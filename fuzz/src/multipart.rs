//! Multipart bodies.

use retrieve_gateway::payload::Limits;
use retrieve_gateway::payload::multipart::{Files, convert};
use serde_json::Value;

use super::first_line;

/// The boundary, then a body. What comes out is an object of as many fields as there are boundaries but the last, and it is
/// the same whether files are taken or not, unless there is one.
pub fn multipart(input: &[u8]) {
    let (boundary, body) = first_line(input);
    let Ok(boundary) = std::str::from_utf8(boundary) else { return };
    let limits = Limits::DEFAULT;
    let taken = convert(body, boundary, Files::Base64 { limit_bytes: 1 << 16 }, &limits);
    let refused = convert(body, boundary, Files::Refuse, &limits);
    let Ok(json) = taken else {
        assert!(refused.is_err(), "a body with files refused is no better than one with files taken");
        return;
    };
    if let Ok(without) = refused {
        assert_eq!(without, json);
    }
    let value: Value = serde_json::from_slice(&json).expect("JSON");
    let members = value.as_object().expect("an object");
    let fields: usize = members.values().map(|value| value.as_array().map_or(1, Vec::len)).sum();
    let delimiter = format!("--{boundary}");
    let boundaries = body.windows(delimiter.len()).filter(|window| *window == delimiter.as_bytes()).count();
    assert!(fields < boundaries, "{fields} fields between {boundaries} boundaries");
}
