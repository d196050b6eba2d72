//! How signatures and keys are written as text.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, general_purpose};

/// A text form of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal in upper or lower case.
    Hex,
    /// RFC 4648, section 4, padded.
    Base64,
    /// RFC 4648, section 5, with or without padding.
    Base64Url,
}

/// With or without padding; trailing bits must still be zero, so that a value has no second spelling.
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Encoding {
    /// Reads a text; none if it isn't written exactly so.
    pub fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Encoding::Hex if has_one_case(text) => hex::decode(text).ok(),
            Encoding::Hex => None,
            Encoding::Base64 => STANDARD.decode(text).ok(),
            Encoding::Base64Url => BASE64_URL.decode(text).ok(),
        }
    }

    /// Writes bytes the way most senders do.
    pub fn encode(self, bytes: &[u8]) -> String {
        match self {
            Encoding::Hex => hex::encode(bytes),
            Encoding::Base64 => STANDARD.encode(bytes),
            Encoding::Base64Url => general_purpose::URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}

/// Senders write one case throughout (Authorize.Net upper, all others lower). Mixed case would let one signature
/// have many spellings.
fn has_one_case(text: &str) -> bool {
    !(text.bytes().any(|byte| byte.is_ascii_lowercase())
        && text.bytes().any(|byte| byte.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_exact_spelling_is_read() {
        for (encoding, text, expect) in [
            (Encoding::Hex, "0aff", Some(vec![10, 255])),
            (Encoding::Hex, "0AFF", Some(vec![10, 255])),
            (Encoding::Hex, "0aFF", None),
            (Encoding::Hex, "0af", None),
            (Encoding::Hex, "0x0a", None),
            (Encoding::Hex, " 0a", None),
            (Encoding::Base64, "+/8=", Some(vec![0xFB, 0xFF])),
            (Encoding::Base64, "+/8", None),
            (Encoding::Base64, "+/9=", None),
            (Encoding::Base64, "+/8==", None),
            (Encoding::Base64, "-_8=", None),
            (Encoding::Base64, "+/8=\n", None),
            (Encoding::Base64Url, "-_8", Some(vec![0xFB, 0xFF])),
            (Encoding::Base64Url, "-_8=", Some(vec![0xFB, 0xFF])),
            (Encoding::Base64Url, "+/8=", None),
            (Encoding::Base64Url, "-_9", None),
        ] {
            assert_eq!(encoding.decode(text), expect, "{encoding:?} {text:?}");
        }
    }

    proptest! {
        /// What is written is read as the same bytes.
        #[test]
        fn bytes_survive(bytes: Vec<u8>) {
            for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64Url] {
                prop_assert_eq!(encoding.decode(&encoding.encode(&bytes)), Some(bytes.clone()));
            }
        }

        /// No text makes a reader panic.
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64Url] {
                let _ = encoding.decode(&text);
            }
        }
    }
}
