//! As much of DER (X.690) as a public key needs: nothing is interpreted that isn't used, and every length is exact.

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;
/// The version of a certificate, which version 1 leaves out (RFC 5280, section 4.1).
const EXPLICIT_0: u8 = 0xA0;

const RSA_ENCRYPTION: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01];
const NULL: &[u8] = &[0x05, 0x00];
const EC_PUBLIC_KEY: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
/// `prime256v1`, with tag and length.
const P256: &[u8] = &[0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
const ED25519: &[u8] = &[0x2B, 0x65, 0x70];

/// What a SubjectPublicKeyInfo holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyInfo<'d> {
    /// An `RSAPublicKey`.
    Rsa(&'d [u8]),
    /// A point of P-256, uncompressed.
    P256(&'d [u8]),
    /// The 32 bytes of an Ed25519 key.
    Ed25519(&'d [u8]),
}

/// Reads a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
pub(super) fn public_key_info(der: &[u8]) -> Option<KeyInfo<'_>> {
    let (info, b"") = element(der, SEQUENCE)? else { return None };
    let (algorithm, rest) = element(info, SEQUENCE)?;
    let (key, b"") = element(rest, BIT_STRING)? else { return None };
    let (identifier, parameters) = element(algorithm, OBJECT_IDENTIFIER)?;
    // The first byte counts the unused bits of the last one.
    let key = key.strip_prefix(&[0])?;
    match (identifier, parameters) {
        (RSA_ENCRYPTION, NULL) => Some(KeyInfo::Rsa(key)),
        (EC_PUBLIC_KEY, P256) if key.len() == 65 => Some(KeyInfo::P256(key)),
        (ED25519, b"") if key.len() == 32 => Some(KeyInfo::Ed25519(key)),
        _ => None,
    }
}

/// The SubjectPublicKeyInfo of an X.509 certificate (RFC 5280, section 4.1).
pub(super) fn certificate_key_info(der: &[u8]) -> Option<&[u8]> {
    let (certificate, b"") = element(der, SEQUENCE)? else { return None };
    let (signed, _) = element(certificate, SEQUENCE)?;
    let rest = element(signed, EXPLICIT_0).map_or(signed, |(_, rest)| rest);
    let (_serial, rest) = element(rest, INTEGER)?;
    // The signature's algorithm, the issuer, the validity and the subject.
    let rest = (0..4).try_fold(rest, |rest, _| element(rest, SEQUENCE).map(|(_, rest)| rest))?;
    let (_, after) = element(rest, SEQUENCE)?;
    rest.get(..rest.len() - after.len())
}

/// The content of an element with a tag, and what comes after it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [first, length, rest @ ..] = der else { return None };
    if *first != tag {
        return None;
    }
    let (length, rest) = match *length {
        short @ 0..=0x7F => (usize::from(short), rest),
        // The long form, in as few bytes as there can be.
        0x81 => (usize::from(*rest.first().filter(|byte| **byte > 0x7F)?), &rest[1..]),
        0x82 => {
            let (bytes, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(Some(u16::from_be_bytes(*bytes)).filter(|length| *length > 0xFF)?), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_exact_and_minimal() {
        assert_eq!(element(&[0x30, 1, 7, 8], SEQUENCE), Some((&[7][..], &[8][..])));
        for der in [&[][..], &[0x30], &[0x30, 2, 7], &[0x31, 1, 7], &[0x30, 0x81, 1, 7], &[0x30, 0x80, 0, 0]]
        {
            assert_eq!(element(der, SEQUENCE), None, "{der:?}");
        }
        assert_eq!(element(&[0x30, 0x82, 0, 0x80], SEQUENCE), None);
        assert_eq!(element(&[0x30, 0x81], SEQUENCE), None);
        assert_eq!(element(&[0x30, 0x82, 1], SEQUENCE), None);
    }

    proptest! {
        /// No bytes make the reader panic.
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = (public_key_info(&bytes), certificate_key_info(&bytes));
        }
    }
}
