//! Signatures: raw bytes in, proof out. Nothing of a body is parsed before it has been through here.
//!
//! No sender's scheme is built yet, so the only verifier is the one of an integration that asks for no signature.
//! The order of the path and the types already stand: [`crate::payload::Payload::decode`] takes a [`Verified`].

use bytes::Bytes;
use http::HeaderMap;

/// How the webhooks of an integration prove where they come from.
#[derive(Clone, Debug, Default)]
pub enum Verifier {
    /// The allowlist decides alone.
    #[default]
    Unsigned,
}

/// A body that has passed its integration's verifier; only [`Verifier::verify`] makes one.
#[derive(Clone, Debug)]
pub struct Verified {
    body: Bytes,
    signed: bool,
}

impl Verified {
    /// The body as it was received.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Whether a signature was checked (`source.verified` of the job).
    pub fn signed(&self) -> bool {
        self.signed
    }

    /// A verified body for the tests of the stages behind this one.
    #[cfg(test)]
    pub(crate) fn for_test(body: &[u8]) -> Verified {
        Verified { body: Bytes::copy_from_slice(body), signed: false }
    }
}

/// A required signature or credential is missing or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unverified;

impl Verifier {
    /// Checks the raw bytes of a body.
    ///
    /// # Errors
    /// [`Unverified`] if the integration requires a proof that the request doesn't carry.
    pub fn verify(&self, _headers: &HeaderMap, body: Bytes) -> Result<Verified, Unverified> {
        match self {
            Verifier::Unsigned => Ok(Verified { body, signed: false }),
        }
    }
}
