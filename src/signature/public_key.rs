//! Public keys and the signatures that they verify.

use std::fmt;

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use sha1::{Digest, Sha1};

use super::der::{KeyInfo, certificate_key_info, public_key_info};
use super::encoding::Encoding;

/// How a public key's owner signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicAlgorithm {
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ECDSA on P-256 over SHA-256, in DER.
    EcdsaP256Sha256,
    /// ECDSA on P-256 over SHA-1, in DER (eBay).
    EcdsaP256Sha1,
    /// RSASSA-PKCS1-v1_5 over SHA-256.
    RsaSha256,
    /// RSASSA-PKCS1-v1_5 over SHA-1 (Amazon SNS, signature version 1).
    RsaSha1,
}

impl PublicAlgorithm {
    /// Whether a signature can have this length. ECDSA's varies with its two numbers, RSA's with its key.
    pub(super) fn takes_length(self, length: usize) -> bool {
        match self {
            PublicAlgorithm::Ed25519 => length == 64,
            PublicAlgorithm::EcdsaP256Sha256 | PublicAlgorithm::EcdsaP256Sha1 => (8..=72).contains(&length),
            PublicAlgorithm::RsaSha256 | PublicAlgorithm::RsaSha1 => (256..=1024).contains(&length),
        }
    }
}

/// A public key of one of the three kinds that senders use.
#[derive(Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// An `RSAPublicKey` of at least 2048 bits.
    Rsa(Box<[u8]>),
    /// A point of P-256, uncompressed.
    P256(Box<[u8]>),
    /// The key's 32 bytes.
    Ed25519([u8; 32]),
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo.
    pub fn from_der(der: &[u8]) -> Option<PublicKey> {
        match public_key_info(der)? {
            KeyInfo::Rsa(key) => Some(PublicKey::Rsa(key.into())),
            KeyInfo::P256(point) => Some(PublicKey::P256(point.into())),
            KeyInfo::Ed25519(key) => key.try_into().ok().map(PublicKey::Ed25519),
        }
    }

    /// Reads `-----BEGIN PUBLIC KEY-----`, or the key of the first `-----BEGIN CERTIFICATE-----`. A certificate's
    /// chain isn't followed: what makes it trustworthy is where it came from.
    pub fn from_pem(text: &str) -> Option<PublicKey> {
        if let Some(der) = pem_section(text, "PUBLIC KEY") {
            return PublicKey::from_der(&der);
        }
        PublicKey::from_der(certificate_key_info(&pem_section(text, "CERTIFICATE")?)?)
    }

    /// Whether a signature is the message's. False too for a key of another kind than the algorithm's.
    pub fn verifies(&self, algorithm: PublicAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        let verified = match (self, algorithm) {
            (PublicKey::Rsa(key), PublicAlgorithm::RsaSha256) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(message, signature)
            }
            (PublicKey::Rsa(key), PublicAlgorithm::RsaSha1) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, key)
                    .verify(message, signature)
            }
            (PublicKey::P256(point), PublicAlgorithm::EcdsaP256Sha256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature)
            }
            (PublicKey::P256(point), PublicAlgorithm::EcdsaP256Sha1) => {
                return verifies_p256_sha1(point, message, signature).is_some();
            }
            (PublicKey::Ed25519(key), PublicAlgorithm::Ed25519) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature)
            }
            _ => return false,
        };
        verified.is_ok()
    }
}

/// ring has no ECDSA over SHA-1. Forging a signature needs a second preimage of the body, which SHA-1 still resists.
fn verifies_p256_sha1(point: &[u8], message: &[u8], signature: &[u8]) -> Option<()> {
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()?;
    let signature = p256::ecdsa::Signature::from_der(signature).ok()?;
    key.verify_prehash(&Sha1::digest(message), &signature).ok()
}

/// The bytes between two lines of PEM (RFC 7468).
pub(super) fn pem_section(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (section, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let lines: String = section.split_ascii_whitespace().collect();
    Encoding::Base64.decode(&lines)
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            PublicKey::Rsa(_) => "Rsa(…)",
            PublicKey::P256(_) => "P256(…)",
            PublicKey::Ed25519(_) => "Ed25519(…)",
        })
    }
}
