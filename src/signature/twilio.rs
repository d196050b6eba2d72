//! Twilio's message: the URL, followed by a form's parameters sorted by name and value. For other bodies the URL
//! carries the body's hash (`twilio-python`, `request_validator.py`).

use std::borrow::Cow;
use std::collections::BTreeSet;

use http::header::CONTENT_TYPE;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::SignedRequest;
use super::encoding::Encoding;
use super::headers;
use super::mac::Pieces;
use super::message::public_url;
use super::reason::{Reason, Unverified};

pub(super) fn messages<'r>(request: &SignedRequest<'r>) -> Result<Vec<Pieces<'r>>, Unverified> {
    let parameters = if is_form(request)? { form(request.body) } else { uncovered_body(request)? };
    let url = public_url(request)?;
    // Twilio signs sometimes with and sometimes without the default port.
    Ok([Some(url.clone()), other_port(&url)]
        .into_iter()
        .flatten()
        .map(|url| {
            let mut message = vec![Cow::Owned(url.into_bytes())];
            message.extend(parameters.iter().cloned());
            message
        })
        .collect())
}

fn is_form(request: &SignedRequest<'_>) -> Result<bool, Unverified> {
    let content_type = headers::find(request.headers, &CONTENT_TYPE)?.unwrap_or("");
    let media_type = content_type.split(';').next().unwrap_or("").trim();
    Ok(media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded"))
}

/// Names and values, one after the other; twilio-python makes a set of the values of one name.
fn form(body: &[u8]) -> Pieces<'_> {
    let sorted: BTreeSet<_> = headers::pairs(body).collect();
    sorted.into_iter().flat_map(|(name, value)| [name, value]).collect()
}

/// A body that isn't a form is covered by its hash in the signed URL.
fn uncovered_body(request: &SignedRequest<'_>) -> Result<Pieces<'static>, Unverified> {
    let hash = headers::parameter(request.uri.query().unwrap_or(""), "bodySHA256")?;
    match hash {
        None if request.body.is_empty() => Ok(Pieces::new()),
        None => Err(Reason::BodyNotCovered.into()),
        Some(hash) => {
            let text = std::str::from_utf8(&hash).ok();
            let given = text.and_then(|text| Encoding::Hex.decode(text)).ok_or(Reason::WrongEncoding)?;
            if bool::from(Sha256::digest(request.body).as_slice().ct_eq(&given)) {
                Ok(Pieces::new())
            } else {
                Err(Reason::BodyHashMismatch.into())
            }
        }
    }
}

/// The same URL with the default port if it has none, or without it if it has it.
fn other_port(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    match authority.strip_suffix(port) {
        Some(host) => Some(format!("{scheme}://{host}{path}")),
        // What ends in a bracket is an IPv6 address without a port.
        None if !authority.contains(':') || authority.ends_with(']') => {
            Some(format!("{scheme}://{authority}{port}{path}"))
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_port_comes_and_goes() {
        for (url, expect) in [
            ("https://a.example/x?y", Some("https://a.example:443/x?y")),
            ("https://a.example:443/x", Some("https://a.example/x")),
            ("http://a.example", Some("http://a.example:80")),
            ("https://[::1]/x", Some("https://[::1]:443/x")),
            ("https://a.example:8443/x", None),
            ("ftp://a.example/x", None),
            ("a.example/x", None),
        ] {
            assert_eq!(other_port(url).as_deref(), expect, "{url}");
        }
    }

    #[test]
    fn a_form_is_sorted_and_its_repeats_dropped() {
        let pieces = form(b"To=%2B1&From=a+b&To=%2B1&To=0&=x");
        assert_eq!(pieces.concat(), b"xFroma bTo+1To0");
    }
}
