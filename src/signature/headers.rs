//! Headers and query parameters of which there must be exactly one.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::HeaderName;
use percent_encoding::percent_decode;

use super::reason::{Reason, Unverified};

/// The value of a header that is there once, or none. Twice is refused: the sender's library and ours might choose
/// different ones.
pub(crate) fn find<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Result<Option<&'r str>, Unverified> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Unverified::at(Reason::DuplicateHeader, name));
    }
    let text = value.to_str().map_err(|_| Unverified::at(Reason::NotText, name))?;
    Ok(Some(text))
}

/// The value of a header that must be there once and not be empty.
pub(super) fn require<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Result<&'r str, Unverified> {
    match find(headers, name)? {
        None => Err(Unverified::at(Reason::MissingHeader, name)),
        Some("") => Err(Unverified::at(Reason::EmptySignature, name)),
        Some(value) => Ok(value),
    }
}

/// A header name of the preset tables, which a test reads one by one.
pub(super) fn name(text: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(text.as_bytes()).ok()
}

/// One decoded pair of a query or a form.
pub(super) type Pair<'t> = (Cow<'t, [u8]>, Cow<'t, [u8]>);

/// The pairs of a query or a form, decoded to bytes.
pub(super) fn pairs(text: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=');
        let (key, value) = equals.map_or((pair, &b""[..]), |equals| (&pair[..equals], &pair[equals + 1..]));
        (decode(key), decode(value))
    })
}

fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if text.contains(&b'+') {
        let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        return Cow::Owned(percent_decode(&spaced).collect());
    }
    percent_decode(text).into()
}

/// The value of a parameter that is there once, or none.
pub(crate) fn parameter<'t>(query: &'t str, name: &str) -> Result<Option<Cow<'t, [u8]>>, Unverified> {
    let mut values = pairs(query.as_bytes()).filter(|(key, _)| key.as_ref() == name.as_bytes());
    let first = values.next();
    if values.next().is_some() {
        return Err(Reason::DuplicateParameter.into());
    }
    Ok(first.map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_there_exactly_once() {
        let name = HeaderName::from_static("x-signature");
        let reason = |headers: &HeaderMap| {
            require(headers, &name).map(str::to_owned).map_err(|unverified| unverified.reason())
        };
        let mut headers = HeaderMap::new();
        assert_eq!(reason(&headers), Err(Reason::MissingHeader));
        headers.insert(&name, "".parse().unwrap());
        assert_eq!(reason(&headers), Err(Reason::EmptySignature));
        headers.insert(&name, "é".parse().unwrap());
        assert_eq!(reason(&headers), Err(Reason::NotText));
        headers.insert(&name, "a".parse().unwrap());
        assert_eq!(reason(&headers), Ok("a".to_owned()));
        headers.append(&name, "a".parse().unwrap());
        assert_eq!(reason(&headers), Err(Reason::DuplicateHeader));
    }

    #[test]
    fn a_parameter_is_decoded_and_there_at_most_once() {
        let find = |query| parameter(query, "data.id").map(|value| value.map(Cow::into_owned));
        assert_eq!(find("a=1&data.id=A%20b+c&"), Ok(Some(b"A b c".to_vec())));
        assert_eq!(find("data%2Eid"), Ok(Some(Vec::new())));
        assert_eq!(find("DATA.ID=1"), Ok(None));
        assert_eq!(find("data.id=1&data.id=1").unwrap_err().reason(), Reason::DuplicateParameter);
    }
}
