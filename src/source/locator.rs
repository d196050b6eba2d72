//! Where a fact stands in a request.

use std::borrow::Cow;

use http::HeaderMap;
use percent_encoding::percent_decode;
use sha2::{Digest, Sha256};

use crate::signature::{in_body, pointer};

/// The longest value that is taken; a longer one names nothing.
const VALUE_LIMIT_BYTES: usize = 1024;

/// Where a fact stands in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locator {
    /// The sender doesn't say.
    Nowhere,
    /// In the first of these headers that is there.
    Header(&'static [&'static str]),
    /// In the body: a JSON pointer to a string or a number.
    Body(&'static str),
    /// In a body of XML: a pointer into the JSON that [`crate::payload::xml`] makes of it without prefixes.
    Xml(&'static str),
    /// The SHA-256 of the body: for senders that repeat a body byte for byte and never send equal ones.
    BodyHash,
    /// In the first of these places that has it.
    FirstOf(&'static [Locator]),
    /// In all of these places, joined by `|`.
    Joined(&'static [Locator]),
}

impl Locator {
    /// The fact, if the request has it.
    pub(super) fn locate(&self, headers: &HeaderMap, content: &[u8]) -> Option<String> {
        let found = match self {
            Locator::Nowhere => None,
            Locator::Header(names) => {
                let value = names.iter().find_map(|name| headers.get(*name))?;
                value.to_str().ok().map(str::to_owned)
            }
            Locator::Body(path) => pointer::find(content, path),
            Locator::Xml(path) => pointer::find(&in_body::json_of_xml(content).ok()?, path),
            Locator::BodyHash => Some(format!("sha256:{}", hex::encode(Sha256::digest(content)))),
            Locator::FirstOf(places) => places.iter().find_map(|place| place.locate(headers, content)),
            Locator::Joined(places) => {
                let facts: Option<Vec<_>> =
                    places.iter().map(|place| place.locate(headers, content)).collect();
                facts.map(|facts| facts.join("|"))
            }
        };
        found.filter(|fact| !fact.is_empty() && fact.len() <= VALUE_LIMIT_BYTES)
    }
}

/// The value of a form's field, if the body is a form that begins with it, as GitHub's and Slack's do.
pub(super) fn form_field(body: &[u8], field: &str) -> Option<Vec<u8>> {
    let rest = body.strip_prefix(field.as_bytes())?.strip_prefix(b"=")?;
    let value = rest.split(|byte| *byte == b'&').next().unwrap_or(rest);
    let spaced: Cow<'_, [u8]> = if value.contains(&b'+') {
        value.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect()
    } else {
        value.into()
    };
    Some(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-id", "1".parse().unwrap());
        headers.insert("x-empty", "".parse().unwrap());
        headers
    }

    #[test]
    fn a_fact_is_found_where_the_table_says() {
        let body = br#"{"event":"paid","data":{"id":7},"long":"LONG"}"#;
        let body = String::from_utf8_lossy(body).replace("LONG", &"x".repeat(1025));
        for (locator, expect) in [
            (Locator::Nowhere, None),
            (Locator::Header(&["x-none", "x-id"]), Some("1")),
            (Locator::Header(&["x-empty"]), None),
            (Locator::Body("/event"), Some("paid")),
            (Locator::Body("/data/id"), Some("7")),
            (Locator::Body("/long"), None),
            (Locator::Xml("/event"), None),
            (Locator::Joined(&[Locator::Body("/event"), Locator::Header(&["x-id"])]), Some("paid|1")),
            (Locator::Joined(&[Locator::Body("/event"), Locator::Header(&["x-none"])]), None),
            (Locator::FirstOf(&[Locator::Header(&["x-none"]), Locator::Body("/event")]), Some("paid")),
        ] {
            assert_eq!(locator.locate(&headers(), body.as_bytes()).as_deref(), expect, "{locator:?}");
        }
        let hash = Locator::BodyHash.locate(&headers(), b"").unwrap();
        assert_eq!(hash, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn a_forms_field_is_unwrapped() {
        let unwrapped = form_field(b"payload=%7B%22a%22%3A+1%7D&x=2", "payload");
        assert_eq!(unwrapped.as_deref(), Some(&br#"{"a": 1}"#[..]));
        assert_eq!(form_field(br#"{"payload":1}"#, "payload"), None);
        assert_eq!(form_field(b"payloads=1", "payload"), None);
    }
}
