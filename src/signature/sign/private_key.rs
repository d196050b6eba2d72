//! Private keys, for trying out a sender that signs with one.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use secrecy::{ExposeSecret, SecretString};

use super::super::encoding::Encoding;
use super::super::public_key::{PublicAlgorithm, pem_section};
use super::super::secret::KeyForm;

/// A private key of one of the kinds that senders use.
pub(super) enum PrivateKey {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl PrivateKey {
    /// Reads PKCS #8 in PEM; for Ed25519 also the key's 32 bytes in hexadecimal, or `whsk_` and base64 (Svix: the key,
    /// then its public half).
    pub(super) fn read(
        secret: &SecretString,
        form: KeyForm,
        algorithm: PublicAlgorithm,
    ) -> Option<PrivateKey> {
        let text = secret.expose_secret().trim();
        let pkcs8 = pem_section(text, "PRIVATE KEY");
        match algorithm {
            PublicAlgorithm::Ed25519 => {
                let pair = match pkcs8 {
                    Some(pkcs8) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8),
                    None => Ed25519KeyPair::from_seed_unchecked(&seed(text, form)?),
                };
                pair.ok().map(PrivateKey::Ed25519)
            }
            PublicAlgorithm::EcdsaP256Sha256 => {
                let random = SystemRandom::new();
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8?, &random);
                pair.ok().map(PrivateKey::P256)
            }
            PublicAlgorithm::RsaSha256 => {
                RsaKeyPair::from_pkcs8(&pkcs8?).ok().map(|pair| PrivateKey::Rsa(Box::new(pair)))
            }
            // Only senders with keys of their own use these.
            PublicAlgorithm::EcdsaP256Sha1 | PublicAlgorithm::RsaSha1 => None,
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            PrivateKey::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
            PrivateKey::P256(pair) => pair.sign(&random, message).ok().map(|code| code.as_ref().to_vec()),
            PrivateKey::Rsa(pair) => {
                let mut code = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut code).ok()?;
                Some(code)
            }
        }
    }
}

fn seed(text: &str, form: KeyForm) -> Option<Vec<u8>> {
    let mut bytes = match form {
        KeyForm::Whpk => Encoding::Base64.decode(text.strip_prefix("whsk_")?)?,
        _ => Encoding::Hex.decode(text)?,
    };
    bytes.truncate(32);
    (bytes.len() == 32).then_some(bytes)
}
