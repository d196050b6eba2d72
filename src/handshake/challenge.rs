//! Challenges: what a stranger sent and wants to see again, held to closed alphabets.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::HeaderName;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::ANSWER_LIMIT_BYTES;
use crate::signature::headers;

/// A handshake that isn't answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The caller doesn't know the token that was agreed (Meta wants 403 then).
    #[error("The verify token is missing or doesn't match")]
    VerifyToken,
    /// The challenge is one that the sender never makes.
    #[error("The challenge is too long, there more than once or has characters that don't belong there")]
    Challenge,
    /// The settings lack what the answer is made of.
    #[error("This integration can't answer this handshake")]
    Settings,
}

/// Which texts are challenges.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alphabet {
    is_member: fn(u8) -> bool,
    shortest: usize,
    longest: usize,
}

/// Opaque tokens: the letters of base64, base64url, UUIDs and URNs. Nothing in it means anything to a browser.
pub(super) const TOKEN: Alphabet = Alphabet {
    is_member: |byte| byte.is_ascii_alphanumeric() || b"-._~+/=:".contains(&byte),
    shortest: 1,
    longest: ANSWER_LIMIT_BYTES,
};

/// A line of text (Microsoft Graph's tokens are sentences), without what would open markup.
pub(super) const LINE: Alphabet = Alphabet {
    is_member: |byte| (b' '..=b'~').contains(&byte) && !b"<>&\"'`".contains(&byte),
    shortest: 1,
    longest: ANSWER_LIMIT_BYTES,
};

/// Tokens that are signed with the secret. Neither a JSON body nor `v0:<time>:<body>` consists of these letters.
pub(super) const UNSIGNABLE: Alphabet = Alphabet {
    is_member: |byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte),
    shortest: 1,
    longest: 256,
};

/// Braintree's SDKs take exactly `[a-f0-9]{20,32}`; what Braintree signs is base64 of XML, which is longer.
pub(super) const BRAINTREE: Alphabet =
    Alphabet { is_member: |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'), shortest: 20, longest: 32 };

impl Alphabet {
    /// The text, if it is such a challenge.
    pub(super) fn check(self, text: &[u8]) -> Result<&str, Refused> {
        let fits = (self.shortest..=self.longest).contains(&text.len());
        if fits && text.iter().all(|byte| (self.is_member)(*byte)) {
            return std::str::from_utf8(text).map_err(|_| Refused::Challenge);
        }
        Err(Refused::Challenge)
    }
}

/// The longest query that is looked at; longer than any sender's.
const QUERY_LIMIT_BYTES: usize = 8 * 1024;

/// The decoded value of a query parameter. None if it isn't there.
///
/// # Errors
/// It is there twice: nobody can say which one the sender meant.
pub(super) fn parameter<'r>(query: &'r str, name: &str) -> Result<Option<Cow<'r, [u8]>>, Refused> {
    if query.len() > QUERY_LIMIT_BYTES {
        return Err(Refused::Challenge);
    }
    headers::parameter(query, name).map_err(|_| Refused::Challenge)
}

/// The value of a header. None if it isn't there.
///
/// # Errors
/// It is there twice, or isn't visible ASCII.
pub(super) fn header<'r>(map: &'r HeaderMap, name: &'static str) -> Result<Option<&'r [u8]>, Refused> {
    let value = headers::find(map, &HeaderName::from_static(name)).map_err(|_| Refused::Challenge)?;
    Ok(value.map(str::as_bytes))
}

/// Compares the token that was given with the agreed one, in a time that depends on the given one alone: two hashes
/// have one length.
pub(super) fn require_token(given: Option<&[u8]>, agreed: Option<&SecretString>) -> Result<(), Refused> {
    let agreed = agreed.ok_or(Refused::Settings)?.expose_secret();
    let given = given.unwrap_or_default();
    let same: bool = Sha256::digest(given).ct_eq(&Sha256::digest(agreed)).into();
    if same && !agreed.is_empty() { Ok(()) } else { Err(Refused::VerifyToken) }
}
