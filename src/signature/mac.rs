//! Message authentication codes, keyed once and copied for each request.

use std::borrow::Cow;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::{Choice, ConstantTimeEq};

/// A message in the pieces that it is signed in, so that the body is never copied.
pub(super) type Pieces<'r> = Vec<Cow<'r, [u8]>>;

/// A hash function under a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacAlgorithm {
    /// HMAC-SHA-1, 20 bytes. As a MAC it isn't broken, only old.
    HmacSha1,
    /// HMAC-SHA-256, 32 bytes.
    HmacSha256,
    /// HMAC-SHA-384, 48 bytes.
    HmacSha384,
    /// HMAC-SHA-512, 64 bytes.
    HmacSha512,
    /// SHA-256 of the secret followed by the message, 32 bytes (HubSpot v1 and v2).
    Sha256AfterSecret,
}

impl MacAlgorithm {
    /// The length of a code in bytes.
    pub fn length(self) -> usize {
        match self {
            MacAlgorithm::HmacSha1 => 20,
            MacAlgorithm::HmacSha256 | MacAlgorithm::Sha256AfterSecret => 32,
            MacAlgorithm::HmacSha384 => 48,
            MacAlgorithm::HmacSha512 => 64,
        }
    }
}

/// A keyed state. It is as good as the secret, so `Debug` shows the algorithm alone.
#[derive(Clone)]
pub(super) enum MacKey {
    HmacSha1(Hmac<Sha1>),
    HmacSha256(Hmac<Sha256>),
    HmacSha384(Hmac<Sha384>),
    HmacSha512(Hmac<Sha512>),
    Sha256AfterSecret(Sha256),
}

impl MacKey {
    /// None never happens: HMAC takes keys of any length.
    pub(super) fn new(algorithm: MacAlgorithm, key: &[u8]) -> Option<MacKey> {
        Some(match algorithm {
            MacAlgorithm::HmacSha1 => MacKey::HmacSha1(Hmac::new_from_slice(key).ok()?),
            MacAlgorithm::HmacSha256 => MacKey::HmacSha256(Hmac::new_from_slice(key).ok()?),
            MacAlgorithm::HmacSha384 => MacKey::HmacSha384(Hmac::new_from_slice(key).ok()?),
            MacAlgorithm::HmacSha512 => MacKey::HmacSha512(Hmac::new_from_slice(key).ok()?),
            MacAlgorithm::Sha256AfterSecret => MacKey::Sha256AfterSecret(Sha256::new_with_prefix(key)),
        })
    }

    /// The code of a message.
    pub(super) fn tag(&self, message: &[Cow<'_, [u8]>]) -> Vec<u8> {
        match self {
            MacKey::HmacSha1(state) => hmac_tag(state.clone(), message),
            MacKey::HmacSha256(state) => hmac_tag(state.clone(), message),
            MacKey::HmacSha384(state) => hmac_tag(state.clone(), message),
            MacKey::HmacSha512(state) => hmac_tag(state.clone(), message),
            MacKey::Sha256AfterSecret(state) => {
                let mut state = state.clone();
                message.iter().for_each(|piece| Digest::update(&mut state, piece));
                state.finalize().to_vec()
            }
        }
    }

    /// Whether one of some codes is the message's. Every one is compared, in a time that depends on nothing but
    /// their number.
    pub(super) fn verifies(&self, message: &[Cow<'_, [u8]>], codes: &[Vec<u8>]) -> bool {
        let tag = self.tag(message);
        let verified = codes.iter().fold(Choice::from(0), |found, code| found | tag.ct_eq(code));
        verified.into()
    }
}

fn hmac_tag<M: Mac>(mut state: M, message: &[Cow<'_, [u8]>]) -> Vec<u8> {
    message.iter().for_each(|piece| state.update(piece));
    state.finalize().into_bytes().to_vec()
}

impl fmt::Debug for MacKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            MacKey::HmacSha1(_) => "HmacSha1(…)",
            MacKey::HmacSha256(_) => "HmacSha256(…)",
            MacKey::HmacSha384(_) => "HmacSha384(…)",
            MacKey::HmacSha512(_) => "HmacSha512(…)",
            MacKey::Sha256AfterSecret(_) => "Sha256AfterSecret(…)",
        })
    }
}

/// A secret that is only ever compared. Its hash is kept instead of itself: two hashes have one length, so a
/// comparison tells nothing of the secret's.
#[derive(Clone)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(secret: &[u8]) -> Fingerprint {
        Fingerprint(Sha256::digest(secret).into())
    }

    /// Compares in a time that depends on the given text alone.
    pub(super) fn is_of(&self, given: &[u8]) -> bool {
        self.0.ct_eq(&Fingerprint::of(given).0).into()
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Fingerprint(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2 (SHA-2), and RFC 2202, test case 2 (SHA-1): key "Jefe".
    #[test]
    fn the_published_codes_come_out() {
        let message = [Cow::Borrowed(&b"what do ya "[..]), Cow::Borrowed(&b"want for nothing?"[..])];
        for (algorithm, expect) in [
            (MacAlgorithm::HmacSha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (MacAlgorithm::HmacSha256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (
                MacAlgorithm::HmacSha384,
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                MacAlgorithm::HmacSha512,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ] {
            let key = MacKey::new(algorithm, b"Jefe").unwrap();
            let tag = key.tag(&message);
            assert_eq!((hex::encode(&tag).as_str(), tag.len()), (expect, algorithm.length()));
            let wrong = vec![0; tag.len()];
            assert!(key.verifies(&message, &[wrong.clone(), tag.clone()]));
            assert!(!key.verifies(&message, &[wrong, tag[1..].to_vec(), Vec::new()]));
            assert!(!key.verifies(&message, &[]));
        }
    }

    #[test]
    fn a_fingerprint_fits_its_secret_alone() {
        let fingerprint = Fingerprint::of(b"canary");
        assert!(fingerprint.is_of(b"canary"));
        for other in ["", "canar", "canary ", "Canary", "canary\0"] {
            assert!(!fingerprint.is_of(other.as_bytes()), "{other:?}");
        }
        assert_eq!(format!("{fingerprint:?}"), "Fingerprint(…)");
    }
}
