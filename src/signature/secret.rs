//! Secrets: how the settings write them, and what is refused at the start rather than verified with.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::encoding::Encoding;
use super::mac::{MacAlgorithm, MacKey};
use super::public_key::{PublicAlgorithm, PublicKey};

/// The shortest secret. Below it, guessing costs less than asking for it.
pub const SECRET_MIN_BYTES: usize = 8;

/// Zendesk signs test deliveries with this published secret before a webhook exists, so anybody can (Zendesk's
/// documentation, "Verifying webhook authenticity").
const PUBLISHED: &str = "dGhpc19zZWNyZXRfaXNfZm9yX3Rlc3Rpbmdfb25seQ==";

/// How a key is made of a secret's text. Texts that look alike may differ: Stripe's `whsec_…` is the key as it
/// stands, that of Standard Webhooks is base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// The text's bytes.
    Utf8,
    /// Base64.
    Base64,
    /// Hexadecimal.
    Hex,
    /// Base64 after `whsec_`, which may be missing (Standard Webhooks).
    Whsec,
    /// The text's bytes, or those after HTML's entities were decoded (WordPress).
    HtmlDecoded,
    /// Base64 after `whpk_`: an Ed25519 key (Svix).
    Whpk,
    /// PEM: a public key or a certificate.
    Pem,
}

/// Why a secret can't be used. It never holds the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretProblem {
    /// There is none, and the scheme needs one.
    Missing,
    /// Nothing or white space alone.
    Empty,
    /// Shorter than [`SECRET_MIN_BYTES`].
    Short,
    /// Not written in the form that the scheme's keys have.
    Malformed(KeyForm),
    /// Everybody knows it.
    Published,
}

impl fmt::Display for SecretProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretProblem::Missing => formatter.write_str("it needs a secret"),
            SecretProblem::Empty => formatter.write_str("the secret is empty"),
            SecretProblem::Short => write!(formatter, "the secret is shorter than {SECRET_MIN_BYTES} bytes"),
            SecretProblem::Published => formatter.write_str("the secret is a published one, for tests alone"),
            SecretProblem::Malformed(form) => write!(
                formatter,
                "the secret isn't {}",
                match form {
                    KeyForm::Utf8 | KeyForm::HtmlDecoded => "text",
                    KeyForm::Base64 => "base64",
                    KeyForm::Hex => "hexadecimal",
                    KeyForm::Whsec => "`whsec_` and base64",
                    KeyForm::Whpk => "`whpk_` and the base64 of 32 bytes",
                    KeyForm::Pem =>
                        "a public key or a certificate in PEM (RSA of at least 2048 bits, or P-256)",
                }
            ),
        }
    }
}

impl std::error::Error for SecretProblem {}

/// Refuses what no scheme may take as a secret.
pub(super) fn check(secret: &SecretString) -> Result<(), SecretProblem> {
    let text = secret.expose_secret();
    if text.trim().is_empty() {
        Err(SecretProblem::Empty)
    } else if text == PUBLISHED {
        Err(SecretProblem::Published)
    } else if text.trim().len() < SECRET_MIN_BYTES {
        Err(SecretProblem::Short)
    } else {
        Ok(())
    }
}

/// The keyed states of a secret: one, or two where the settings' text may be either of two spellings.
pub(super) fn mac_keys(
    secret: &SecretString,
    form: KeyForm,
    algorithm: MacAlgorithm,
) -> Result<Vec<MacKey>, SecretProblem> {
    let text = secret.expose_secret();
    let malformed = SecretProblem::Malformed(form);
    let keys = match form {
        KeyForm::Utf8 => vec![text.as_bytes().to_vec()],
        KeyForm::Base64 => vec![Encoding::Base64.decode(text).ok_or(malformed)?],
        KeyForm::Hex => vec![Encoding::Hex.decode(text).ok_or(malformed)?],
        KeyForm::Whsec => {
            let encoded = text.strip_prefix("whsec_").unwrap_or(text);
            vec![Encoding::Base64.decode(encoded).ok_or(malformed)?]
        }
        KeyForm::HtmlDecoded => html_forms(text),
        KeyForm::Whpk | KeyForm::Pem => return Err(malformed),
    };
    let is_decoded = matches!(form, KeyForm::Base64 | KeyForm::Hex | KeyForm::Whsec);
    if keys.iter().any(Vec::is_empty) {
        return Err(SecretProblem::Empty);
    } else if is_decoded && keys.iter().any(|key| key.len() < SECRET_MIN_BYTES) {
        return Err(SecretProblem::Short);
    }
    keys.iter().map(|key| MacKey::new(algorithm, key).ok_or(malformed)).collect()
}

/// The public key that a setting holds in a secret's place.
pub(super) fn public_key(
    secret: &SecretString,
    form: KeyForm,
    algorithm: PublicAlgorithm,
) -> Result<PublicKey, SecretProblem> {
    let text = secret.expose_secret().trim();
    let bytes = match form {
        KeyForm::Pem => return PublicKey::from_pem(text).ok_or(SecretProblem::Malformed(form)),
        KeyForm::Hex => Encoding::Hex.decode(text),
        KeyForm::Base64 => Encoding::Base64.decode(text),
        KeyForm::Whpk => text.strip_prefix("whpk_").and_then(|encoded| Encoding::Base64.decode(encoded)),
        KeyForm::Utf8 | KeyForm::Whsec | KeyForm::HtmlDecoded => None,
    };
    let bytes = bytes.ok_or(SecretProblem::Malformed(form))?;
    let raw = (algorithm == PublicAlgorithm::Ed25519).then(|| bytes.as_slice().try_into().ok()).flatten();
    raw.map(PublicKey::Ed25519).or_else(|| PublicKey::from_der(&bytes)).ok_or(SecretProblem::Malformed(form))
}

/// WooCommerce keys with `wp_specialchars_decode( $secret, ENT_QUOTES )` (`class-wc-webhook.php`). Which spelling the
/// settings have depends on where their author copied it from, so both are keys.
fn html_forms(text: &str) -> Vec<Vec<u8>> {
    let plain = text.as_bytes().to_vec();
    let decoded = html_decoded(text).into_bytes();
    if plain.len() == decoded.len() { vec![plain] } else { vec![decoded, plain] }
}

/// The entities that `wp_specialchars_decode` knows with `ENT_QUOTES`, decoded in one pass as it does.
fn html_decoded(text: &str) -> String {
    const ENTITIES: [(&str, char); 14] = [
        ("&amp;", '&'),
        ("&#038;", '&'),
        ("&#x26;", '&'),
        ("&lt;", '<'),
        ("&#060;", '<'),
        ("&#x3c;", '<'),
        ("&gt;", '>'),
        ("&#062;", '>'),
        ("&#x3e;", '>'),
        ("&quot;", '"'),
        ("&#034;", '"'),
        ("&#x22;", '"'),
        ("&#039;", '\''),
        ("&#x27;", '\''),
    ];
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        let (before, entity) = rest.split_at(start);
        decoded.push_str(before);
        // `&#39;` is what esc_attr of other plugins writes.
        let known = ENTITIES.iter().chain(&[("&#39;", '\'')]).find(|(name, _)| entity.starts_with(name));
        let (length, character) = known.map_or((1, '&'), |(name, character)| (name.len(), *character));
        decoded.push(character);
        rest = &entity[length..];
    }
    decoded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_secrets_are_refused() {
        for (secret, expect) in [
            ("", Err(SecretProblem::Empty)),
            (" ", Err(SecretProblem::Empty)),
            ("\t\n ", Err(SecretProblem::Empty)),
            ("1234567", Err(SecretProblem::Short)),
            ("1234567  ", Err(SecretProblem::Short)),
            ("12345678", Ok(())),
            (PUBLISHED, Err(SecretProblem::Published)),
        ] {
            assert_eq!(check(&secret.into()), expect, "{secret:?}");
        }
    }

    #[test]
    fn each_form_refuses_what_it_is_not() {
        let problem = |text: &str, form| mac_keys(&text.into(), form, MacAlgorithm::HmacSha256).err();
        assert_eq!(problem("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", KeyForm::Whsec), None);
        assert_eq!(problem("C2FVsBQIhrscChlQIMV+b5sSYspob7oD", KeyForm::Whsec), None);
        assert_eq!(problem("whsec_", KeyForm::Whsec), Some(SecretProblem::Empty));
        assert_eq!(problem("whsec_AAAAAAAAAA==", KeyForm::Whsec), Some(SecretProblem::Short));
        for (text, form) in [
            ("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", KeyForm::Whsec),
            ("not base64 at all", KeyForm::Base64),
            ("not hex!", KeyForm::Hex),
            ("anything", KeyForm::Pem),
        ] {
            assert_eq!(problem(text, form), Some(SecretProblem::Malformed(form)), "{text}");
        }
        let problem = |text: &str, form| public_key(&text.into(), form, PublicAlgorithm::Ed25519).err();
        assert_eq!(problem("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", KeyForm::Whpk), None);
        for (text, form) in
            [("whpk_1SiA", KeyForm::Whpk), ("00ff", KeyForm::Hex), ("-----BEGIN", KeyForm::Pem)]
        {
            assert_eq!(problem(text, form), Some(SecretProblem::Malformed(form)), "{text}");
        }
    }

    #[test]
    fn entities_are_decoded_as_wordpress_does() {
        for (text, expect) in [
            ("plain", "plain"),
            ("a&amp;b&lt;c&quot;d", "a&b<c\"d"),
            ("&amp;lt;", "&lt;"),
            ("&#039;&#39;&#x27;", "'''"),
            ("& &nbsp; &", "& &nbsp; &"),
            ("é&gt;é", "é>é"),
        ] {
            assert_eq!(html_decoded(text), expect, "{text}");
        }
        assert_eq!(html_forms("a&amp;b").len(), 2);
        assert_eq!(html_forms("a&b").len(), 1);
    }
}
