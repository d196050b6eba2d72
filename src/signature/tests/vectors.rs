//! Every vector verifies, and no other byte does.

use std::collections::BTreeSet;

use super::*;
use crate::signature::fetched::{SnsMessage, paypal_message};
use crate::signature::mac::MacKey;
use crate::source;

/// Flips that keep a letter a letter, a digit a digit, and neither.
const FLIPS: [u8; 3] = [0x01, 0x20, 0x06];

#[test]
fn every_vector_verifies() {
    for sample in fixture().requests {
        let verified = sample.signed_verifier().verify(&sample.parts().request());
        let verified =
            verified.unwrap_or_else(|error| panic!("{}: {error} ({})", sample.preset, sample.source));
        assert_eq!(verified.body(), &sample.body());
        assert!(verified.signed(), "{}", sample.preset);
        assert!(["vendor_docs_or_sdk", "third_party_test_suite", "self_computed"].contains(&&*sample.origin));
    }
}

#[test]
fn every_preset_has_a_vector() {
    let covered: BTreeSet<_> = fixture().requests.into_iter().map(|sample| sample.preset).collect();
    let missing: Vec<_> = source::names().filter(|name| !covered.contains(*name)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn no_changed_body_verifies() {
    for sample in fixture().requests {
        let verifier = sample.signed_verifier();
        let mut parts = sample.parts();
        let verified = verifier.verify(&parts.request()).unwrap();
        if !verified.proof().unwrap().covers_body {
            continue;
        }
        let body = sample.body();
        for index in 0..body.len() {
            for flip in FLIPS {
                let mut changed = body.to_vec();
                changed[index] ^= flip;
                parts.body = changed.into();
                // What a form's separators stand for isn't signed by Twilio, its names and values are.
                if sample.preset == "twilio" && same_form(&parts.body, &body) {
                    continue;
                }
                // What isn't on SNS's list, such as its white space or `UnsubscribeURL`, isn't signed.
                if sample.preset == "aws-sns" && same_message(&parts.body, &body) {
                    continue;
                }
                assert!(parts.reason(&verifier).is_some(), "{} byte {index} ^ {flip:#x}", sample.preset);
            }
        }
        if sample.preset == "twilio" || sample.preset == "aws-sns" {
            continue;
        }
        for changed in [
            &[&body[..], b" "].concat(),
            &[b" ", &body[..]].concat(),
            &[&body[..], &body[..], b"\0"].concat(),
        ] {
            parts.body = Bytes::copy_from_slice(changed);
            assert!(parts.reason(&verifier).is_some(), "{} with another length", sample.preset);
        }
    }
}

fn same_form(one: &[u8], other: &[u8]) -> bool {
    let set = |body| crate::signature::headers::pairs(body).collect::<BTreeSet<_>>();
    set(one) == set(other)
}

fn same_message(one: &[u8], other: &[u8]) -> bool {
    let text = |body| {
        let message: Option<SnsMessage<'_>> = serde_json::from_slice(body).ok();
        message.and_then(|message| message.canonical().ok())
    };
    text(one).is_some() && text(one) == text(other)
}

#[test]
fn no_changed_signature_verifies() {
    for sample in fixture().requests {
        // One secret alone, or the other signature of a rotation would verify.
        let verifier = sample.verifier(&sample.secrets()[..1]).unwrap();
        let signature = sample.signature.as_bytes();
        for index in 0..signature.len() {
            for flip in FLIPS {
                let mut changed = signature.to_vec();
                changed[index] ^= flip;
                // A byte that no header can hold doesn't get here.
                let Ok(changed) = String::from_utf8(changed) else { continue };
                let Some(parts) = with_signature(&sample, &changed) else { continue };
                assert!(parts.reason(&verifier).is_some(), "{} byte {index} ^ {flip:#x}", sample.preset);
            }
        }
    }
}

/// The sample with another text for its signature, wherever that stands; none if it can't stand there.
fn with_signature(sample: &Sample, signature: &str) -> Option<Parts> {
    let mut changed = sample.clone();
    let replace = |text: &mut String| *text = text.replace(&sample.signature, signature);
    changed.headers.values_mut().for_each(replace);
    if changed.headers.values().any(|value| HeaderValue::from_str(value).is_err()) {
        return None;
    }
    replace(&mut changed.uri);
    replace(&mut changed.body);
    changed.uri.parse::<Uri>().is_ok().then(|| changed.parts())
}

#[test]
fn no_changed_secret_verifies() {
    for sample in fixture().requests {
        // Its signature doesn't depend on the secret, which is the handshake's.
        if sample.preset == "ebay" {
            continue;
        }
        let (parts, secret) = (sample.parts(), &sample.secrets[0]);
        for index in 0..secret.len() {
            for flip in FLIPS {
                let mut changed = secret.clone().into_bytes();
                changed[index] ^= flip;
                let Ok(changed) = String::from_utf8(changed) else { continue };
                // A line end of PEM that became other white space means the same.
                if secret.split_ascii_whitespace().eq(changed.split_ascii_whitespace()) {
                    continue;
                }
                let Ok(verifier) = sample.verifier(&[changed.as_str().into()]) else { continue };
                assert!(parts.reason(&verifier).is_some(), "{} byte {index} ^ {flip:#x}", sample.preset);
            }
        }
    }
}

#[test]
fn each_secret_of_a_rotation_verifies_under_its_index() {
    let fixture = fixture();
    let rotated = fixture.requests.iter().filter(|sample| sample.secrets.len() > 1);
    for sample in rotated {
        let parts = sample.parts();
        for secret in sample.secrets() {
            assert_eq!(parts.reason(&sample.verifier(&[secret]).unwrap()), None);
        }
    }
    let sample = fixture.requests.iter().find(|sample| sample.preset == "shopify").unwrap();
    let secrets = ["the new secret".into(), "test_secret_key".into(), "an older one".into()];
    let verified = sample.verifier(&secrets).unwrap().verify(&sample.parts().request()).unwrap();
    let proof = Proof { scheme: "hmac-sha256", secret: 1, covers_body: true };
    assert_eq!(verified.proof(), Some(proof));
}

#[test]
fn a_line_end_more_or_less_is_named() {
    let fixture = fixture();
    let sample = fixture.requests.iter().find(|sample| sample.preset == "github").unwrap();
    let (verifier, mut parts) = (sample.signed_verifier(), sample.parts());
    for added in [&b"\n"[..], b"\r\n"] {
        parts.body = [&sample.body()[..], added].concat().into();
        assert_eq!(parts.reason(&verifier), Some(Reason::MismatchTrailingNewline));
    }
    parts.body = [&sample.body()[..], b"\n\n"].concat().into();
    assert_eq!(parts.reason(&verifier), Some(Reason::Mismatch));
    let sample = fixture.requests.iter().find(|sample| sample.body.ends_with("\n")).unwrap();
    let signed = Sample { preset: "hmac".to_owned(), secrets: vec!["a secret".to_owned()], ..sample.clone() };
    let key = MacKey::new(MacAlgorithm::HmacSha256, b"a secret").unwrap();
    let mut parts = signed.parts();
    parts.set("x-signature", hex::encode(key.tag(&[sample.body.as_bytes().into()])).as_bytes());
    parts.body = sample.body.trim_end().to_owned().into();
    assert_eq!(parts.reason(&signed.signed_verifier()), Some(Reason::MismatchTrailingNewline));
}

#[test]
fn what_handshakes_and_fetched_schemes_sign_comes_out() {
    for primitive in fixture().primitives {
        let Primitive { name, algorithm, key, secret, id, time, message, encoding, expected } = primitive;
        let form = if key == "hex" { KeyForm::Hex } else { KeyForm::Utf8 };
        let algorithm = match algorithm.as_str() {
            "paypal" => {
                assert_eq!(paypal_message(&id, &time, &secret, message.as_bytes()), expected);
                continue;
            }
            "rsa-sha256" => {
                let signature = Encoding::Base64.decode(&expected).unwrap();
                let key = PublicKey::from_pem(&secret).unwrap();
                assert!(key.verifies(PublicAlgorithm::RsaSha256, message.as_bytes(), &signature), "{name}");
                continue;
            }
            "sha256" => MacAlgorithm::Sha256AfterSecret,
            _ => MacAlgorithm::HmacSha256,
        };
        let keys = crate::signature::secret::mac_keys(&secret.as_str().into(), form, algorithm).unwrap();
        let tag = keys[0].tag(&[message.as_bytes().into()]);
        let encoding = if encoding == "hex" { Encoding::Hex } else { Encoding::Base64 };
        assert_eq!(encoding.encode(&tag), expected, "{name}");
    }
}
