//! Credentials that are the same in every request: a header, Basic, Bearer, an API key, a query parameter. They prove
//! that the caller knows a secret, and nothing about the body.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use secrecy::{ExposeSecret, SecretString};

use super::SignedRequest;
use super::encoding::Encoding;
use super::headers;
use super::mac::Fingerprint;
use super::reason::{Reason, Unverified};

/// Where a credential stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// The value of a header of this name.
    Header(&'a str),
    /// A query parameter of this name.
    Query(&'a str),
    /// `Authorization: Basic`; the secret is `user:password` (RFC 7617).
    Basic,
    /// `Authorization: Bearer`; the secret is the token (RFC 6750).
    Bearer,
    /// The whole value of `Authorization`, or what follows `Bearer `.
    Authorization,
}

#[derive(Debug, Clone)]
enum OwnedPlace {
    Header(HeaderName),
    Query(Box<str>),
    Basic,
    Bearer,
    Authorization,
}

/// Places and the fingerprints of the secrets.
#[derive(Debug, Clone)]
pub(super) struct CredentialCheck {
    places: Vec<OwnedPlace>,
    secrets: Vec<Fingerprint>,
}

impl CredentialCheck {
    /// None if a header's name isn't one.
    pub(super) fn new(
        first: &Place<'_>,
        others: &[Place<'_>],
        secrets: &[SecretString],
    ) -> Option<CredentialCheck> {
        let places = std::iter::once(first).chain(others).map(OwnedPlace::new).collect::<Option<_>>()?;
        let secrets =
            secrets.iter().map(|secret| Fingerprint::of(secret.expose_secret().as_bytes())).collect();
        Some(CredentialCheck { places, secrets })
    }

    pub(super) fn carries(&self, header: &HeaderName) -> bool {
        self.places.iter().any(|place| place.header() == Some(header))
    }

    pub(super) fn carries_parameter(&self, name: &str) -> bool {
        self.places.iter().any(|place| matches!(place, OwnedPlace::Query(own) if **own == *name))
    }

    /// Checks a request; the answer is the index of the secret.
    pub(super) fn check(&self, request: &SignedRequest<'_>) -> Result<usize, Unverified> {
        let mut wrong_kind = None;
        for place in &self.places {
            match place.candidates(request) {
                Ok(candidates) if candidates.is_empty() => {}
                Ok(candidates) => return self.index_of(&candidates, place),
                Err(unverified) if unverified.reason() == Reason::WrongCredentialKind => {
                    wrong_kind = wrong_kind.or(Some(unverified));
                }
                Err(unverified) => return Err(unverified),
            }
        }
        Err(wrong_kind.unwrap_or_else(|| match self.places.first().and_then(OwnedPlace::header) {
            Some(header) => Unverified::at(Reason::MissingHeader, header),
            None => Reason::MissingHeader.into(),
        }))
    }

    fn index_of(&self, candidates: &[Vec<u8>], place: &OwnedPlace) -> Result<usize, Unverified> {
        let is_one = |secret: &Fingerprint| candidates.iter().any(|candidate| secret.is_of(candidate));
        self.secrets.iter().position(is_one).ok_or_else(|| match place.header() {
            Some(header) => Unverified::at(Reason::CredentialMismatch, header),
            None => Reason::CredentialMismatch.into(),
        })
    }
}

impl OwnedPlace {
    fn new(place: &Place<'_>) -> Option<OwnedPlace> {
        Some(match place {
            Place::Header(name) => OwnedPlace::Header(headers::name(name)?),
            Place::Query(name) => OwnedPlace::Query((*name).into()),
            Place::Basic => OwnedPlace::Basic,
            Place::Bearer => OwnedPlace::Bearer,
            Place::Authorization => OwnedPlace::Authorization,
        })
    }

    fn header(&self) -> Option<&HeaderName> {
        match self {
            OwnedPlace::Header(name) => Some(name),
            OwnedPlace::Query(_) => None,
            OwnedPlace::Basic | OwnedPlace::Bearer | OwnedPlace::Authorization => Some(&AUTHORIZATION),
        }
    }

    /// What the request has in this place, in all the spellings of a secret; nothing if it leaves the place empty.
    fn candidates(&self, request: &SignedRequest<'_>) -> Result<Vec<Vec<u8>>, Unverified> {
        match self {
            OwnedPlace::Header(name) => {
                Ok(whole(request.headers, name)?.into_iter().map(|value| value.as_bytes().to_vec()).collect())
            }
            OwnedPlace::Query(name) => {
                let value = headers::parameter(request.uri.query().unwrap_or(""), name)?;
                Ok(value.into_iter().map(std::borrow::Cow::into_owned).collect())
            }
            OwnedPlace::Basic => {
                let Some(encoded) = after_scheme(request.headers, "Basic")? else { return Ok(Vec::new()) };
                let at = |reason| Unverified::at(reason, &AUTHORIZATION);
                Ok(vec![Encoding::Base64.decode(encoded).ok_or_else(|| at(Reason::WrongEncoding))?])
            }
            OwnedPlace::Bearer => {
                let token = after_scheme(request.headers, "Bearer")?;
                Ok(token.into_iter().map(|token| token.as_bytes().to_vec()).collect())
            }
            OwnedPlace::Authorization => {
                let Some(value) = whole(request.headers, &AUTHORIZATION)? else { return Ok(Vec::new()) };
                let token = split_scheme(value, "Bearer");
                let values = std::iter::once(value).chain(token);
                Ok(values.map(|value| value.as_bytes().to_vec()).collect())
            }
        }
    }
}

fn whole<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Result<Option<&'r str>, Unverified> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    headers::require(headers, name).map(Some)
}

fn after_scheme<'r>(headers: &'r HeaderMap, scheme: &str) -> Result<Option<&'r str>, Unverified> {
    let Some(value) = whole(headers, &AUTHORIZATION)? else { return Ok(None) };
    let wrong = || Unverified::at(Reason::WrongCredentialKind, &AUTHORIZATION);
    split_scheme(value, scheme).map(Some).ok_or_else(wrong)
}

/// What follows a scheme's name, which is case-insensitive (RFC 9110, section 11.1).
fn split_scheme<'r>(value: &'r str, scheme: &str) -> Option<&'r str> {
    let (name, rest) = value.split_once(' ')?;
    name.eq_ignore_ascii_case(scheme).then(|| rest.trim_start_matches(' '))
}
