//! What is signed: a text with placeholders, or one of two shapes that no text describes.
//!
//! | placeholder | stands for |
//! |---|---|
//! | `{body}` | the body as it was received |
//! | `{base64_body}` | its base64, which Adobe Commerce signs |
//! | `{timestamp}` | the signed time as it was received |
//! | `{id}` | the signed id as it was received |
//! | `{url}` | the integration's public URL with the received query |
//! | `{decoded_url}` | the same with the escapes decoded that HubSpot decodes |
//! | `{method}` | the request's method |

use std::borrow::Cow;

use super::SignedRequest;
use super::encoding::Encoding;
use super::mac::Pieces;
use super::reason::{Reason, Unverified};
use super::scheme::Message;
use super::{mercado_pago, twilio};

/// What a request gives to be signed with it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Given<'r> {
    pub timestamp: Option<&'r str>,
    pub id: Option<&'r str>,
}

/// A message's description, read once.
#[derive(Debug, Clone)]
pub(super) enum Builder {
    Template(Vec<Part>),
    Twilio,
    MercadoPago,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Literal(Box<[u8]>),
    Body,
    Base64Body,
    Timestamp,
    Id,
    Url,
    DecodedUrl,
    Method,
}

/// Every placeholder.
pub const PLACEHOLDERS: [&str; 7] =
    ["{body}", "{base64_body}", "{timestamp}", "{id}", "{url}", "{decoded_url}", "{method}"];

impl Builder {
    /// # Errors
    /// The placeholder that isn't known.
    pub(super) fn new(message: &Message<'_>) -> Result<Builder, String> {
        match message {
            Message::Template(template) => parse(template).map(Builder::Template),
            Message::Twilio => Ok(Builder::Twilio),
            Message::MercadoPago => Ok(Builder::MercadoPago),
        }
    }

    pub(super) fn has(&self, part: &Part) -> bool {
        matches!(self, Builder::Template(parts) if parts.contains(part))
    }

    /// The messages that the sender may have signed; nearly always one. `body` is the request's, in pieces.
    pub(super) fn messages<'r>(
        &self,
        request: &SignedRequest<'r>,
        given: Given<'r>,
        body: &[&'r [u8]],
    ) -> Result<Vec<Pieces<'r>>, Unverified> {
        match self {
            Builder::Template(parts) => Ok(vec![fill(parts, request, given, body)?]),
            Builder::Twilio => twilio::messages(request),
            Builder::MercadoPago => Ok(vec![mercado_pago::message(request, given)?]),
        }
    }
}

fn fill<'r>(
    parts: &[Part],
    request: &SignedRequest<'r>,
    given: Given<'r>,
    body: &[&'r [u8]],
) -> Result<Pieces<'r>, Unverified> {
    let mut pieces = Pieces::with_capacity(parts.len() + body.len());
    for part in parts {
        match part {
            Part::Literal(literal) => pieces.push(Cow::Owned(literal.to_vec())),
            Part::Body => pieces.extend(body.iter().copied().map(Cow::Borrowed)),
            Part::Base64Body => {
                pieces.push(Cow::Owned(Encoding::Base64.encode(&body.concat()).into_bytes()));
            }
            Part::Timestamp => {
                pieces.push(given.timestamp.ok_or(Reason::MissingTimestamp)?.as_bytes().into());
            }
            Part::Id => pieces.push(given.id.ok_or(Reason::MissingField)?.as_bytes().into()),
            Part::Url => pieces.push(Cow::Owned(public_url(request)?.into_bytes())),
            Part::DecodedUrl => {
                pieces.push(Cow::Owned(decode_as_hubspot(&public_url(request)?).into_bytes()))
            }
            Part::Method => pieces.push(request.method.as_str().as_bytes().into()),
        }
    }
    Ok(pieces)
}

fn parse(template: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(start) = rest.find(['{', '}']) {
        let (literal, placeholder) = rest.split_at(start);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.as_bytes().into()));
        }
        let end = placeholder.find('}').map_or(placeholder.len(), |end| end + 1);
        let (placeholder, after) = placeholder.split_at(end);
        parts.push(match placeholder {
            "{body}" => Part::Body,
            "{base64_body}" => Part::Base64Body,
            "{timestamp}" => Part::Timestamp,
            "{id}" => Part::Id,
            "{url}" => Part::Url,
            "{decoded_url}" => Part::DecodedUrl,
            "{method}" => Part::Method,
            unknown => return Err(unknown.to_owned()),
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.as_bytes().into()));
    }
    Ok(parts)
}

/// The URL that the sender calls: the settings' up to its query, then the query as it was received. A query in the
/// settings would let a request with another query verify.
pub(super) fn public_url(request: &SignedRequest<'_>) -> Result<String, Unverified> {
    let url = request.public_url.ok_or(Reason::PublicUrlUnknown)?;
    let before_query = url.split(['?', '#']).next().unwrap_or(url);
    Ok(match request.uri.query() {
        Some(query) => format!("{before_query}?{query}"),
        None => before_query.to_owned(),
    })
}

/// The escapes that HubSpot decodes before it signs (its documentation of v3 signatures).
fn decode_as_hubspot(url: &str) -> String {
    const ESCAPES: [(&str, char); 12] = [
        ("%3A", ':'),
        ("%2F", '/'),
        ("%3F", '?'),
        ("%40", '@'),
        ("%21", '!'),
        ("%24", '$'),
        ("%27", '\''),
        ("%28", '('),
        ("%29", ')'),
        ("%2A", '*'),
        ("%2C", ','),
        ("%3B", ';'),
    ];
    let mut decoded = String::with_capacity(url.len());
    let mut rest = url;
    while let Some(start) = rest.find('%') {
        let (before, escape) = rest.split_at(start);
        decoded.push_str(before);
        let code = escape.get(..3).unwrap_or("%");
        match ESCAPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(code)) {
            Some((name, character)) => {
                decoded.push(*character);
                rest = &escape[name.len()..];
            }
            None => {
                decoded.push('%');
                rest = &escape[1..];
            }
        }
    }
    decoded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_literals_and_placeholders() {
        let literal = |text: &str| Part::Literal(text.as_bytes().into());
        for (template, expect) in [
            ("{body}", Ok(vec![Part::Body])),
            ("v0:{timestamp}:{body}", Ok(vec![literal("v0:"), Part::Timestamp, literal(":"), Part::Body])),
            (
                "{id}.{timestamp}.{body}",
                Ok(vec![Part::Id, literal("."), Part::Timestamp, literal("."), Part::Body]),
            ),
            ("{url}{body}!", Ok(vec![Part::Url, Part::Body, literal("!")])),
            ("", Ok(vec![])),
            ("{Body}", Err("{Body}".to_owned())),
            ("{body", Err("{body".to_owned())),
            ("body}", Err("}".to_owned())),
            ("{{body}}", Err("{{body}".to_owned())),
            ("{}", Err("{}".to_owned())),
        ] {
            assert_eq!(parse(template), expect, "{template}");
        }
        for placeholder in PLACEHOLDERS {
            assert!(parse(placeholder).is_ok(), "{placeholder}");
        }
    }

    #[test]
    fn hubspot_decodes_its_own_list_of_escapes() {
        for (url, expect) in [
            ("https://a/b?c=%3a%2F%41%20", "https://a/b?c=:/%41%20"),
            ("https://a/%", "https://a/%"),
            ("https://a/%3", "https://a/%3"),
            ("https://a/%é", "https://a/%é"),
            ("%253A", "%253A"),
        ] {
            assert_eq!(decode_as_hubspot(url), expect, "{url}");
        }
    }
}
