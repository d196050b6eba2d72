//! Held to the published signatures, and to the verifiers.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

use super::super::keys::KeyCache;
use super::super::tests::{Sample, fixture};
use super::super::{Reason, Verifier};
use super::*;
use crate::source::{preset, presets};

/// The time and the id that a sample was signed with.
fn time_and_id(sample: &Sample, signed: &Signed<'_>, names: &Headers<'_>) -> (Timestamp, String) {
    let parts = sample.parts();
    let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap());
    let field = match signed.form {
        Form::Fields { separator, timestamp: Some(timestamp), .. } => {
            header(names.signature).and_then(|value| {
                value.split(separator).find_map(|field| field.strip_prefix(&format!("{timestamp}=")))
            })
        }
        _ => None,
    };
    let text = names.timestamp.and_then(header).or(field);
    let unit = signed.clock.map_or(Unit::Seconds, |clock| clock.unit);
    let millis = text.and_then(|text| unit.parse(text));
    let now = millis.map_or(sample.now(), |millis| Timestamp::from_millisecond(millis).unwrap());
    (now, names.id.and_then(header).unwrap_or_default().to_owned())
}

/// Every scheme of a preset that is described by a signature in a header.
fn described(scheme: &Scheme<'static>) -> Vec<Signed<'static>> {
    match scheme {
        Scheme::Signed(signed) => vec![*signed],
        Scheme::AnyOf(schemes) => schemes.iter().flat_map(described).collect(),
        _ => Vec::new(),
    }
}

/// Whatever a sender, its SDK or a third party computed comes out here to the byte. A value that lists several
/// signatures contains ours.
#[test]
fn the_published_signatures_come_out() {
    let mut checked = 0;
    for sample in fixture().requests {
        for signed in described(&sample.preset().scheme) {
            if !matches!(signed.algorithm, Algorithm::Mac(_)) {
                continue;
            }
            for names in std::iter::once(&signed.headers).chain(signed.others) {
                let parts = sample.parts();
                let Some(published) = parts.headers.get(names.signature) else { continue };
                let (now, id) = time_and_id(&sample, &signed, names);
                let request = SignedRequest { now, ..parts.request() };
                let secret = SecretString::from(sample.secrets[0].as_str());
                let Ok(proof) = sign_with(&signed, names, &secret, &request, &id) else { continue };
                let ours = proof.headers[0].1.to_str().unwrap().to_owned();
                let published = published.to_str().unwrap();
                let (ours, published) = match signed.form {
                    // Milliseconds are written as seconds here.
                    Form::Fields { signature, separator, .. } => (
                        ours.rsplit(separator).next().unwrap().to_owned(),
                        published.split(separator).filter(|field| field.starts_with(signature)).collect(),
                    ),
                    Form::List { separator, .. } => (ours, published.split(separator).collect()),
                    Form::Whole { .. } => (ours, vec![published]),
                };
                if sample.preset == "mercado-pago"
                    || sample.public_url.as_deref().is_some_and(|url| url.contains(":443"))
                {
                    continue;
                }
                // Authorize.Net writes upper case.
                let found = published.iter().any(|published| published.eq_ignore_ascii_case(&ours));
                assert!(found, "{} ({}): {ours} is none of {published:?}", sample.preset, sample.source);
                checked += 1;
            }
        }
    }
    assert!(checked >= 30, "{checked}");
}

const DELIVERY: Delivery<'_> = Delivery { id: "msg_1", spelling: "" };

/// Made for this test: ring reads RSA keys and makes none.
const RSA_PRIVATE: &str = include_str!("../../../tests/it/fixtures/signatures/rsa_private.pem");
const RSA_PUBLIC: &str = include_str!("../../../tests/it/fixtures/signatures/rsa_public.pem");

/// RFC 8032, section 7.1, test 1.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

/// A secret for signing and the one for verifying, of a form that this preset takes.
fn secrets(name: &str) -> (String, String) {
    let same = |text: &str| (text.to_owned(), text.to_owned());
    let pair = |public: &str, private: String| (private, public.to_owned());
    match name {
        "authorize-net" => same(&"0123456789ABCDEF".repeat(8)),
        "standard-webhooks" | "svix" => same("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
        "basic" => same("user:a long password"),
        "discord" => {
            pair("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", SEED.to_owned())
        }
        "sendgrid" => {
            use rcgen::PublicKeyData;
            let key = rcgen::KeyPair::generate().unwrap();
            let public = Encoding::Base64.encode(&key.subject_public_key_info());
            pair(&public, key.serialize_pem())
        }
        "adobe-commerce" => pair(RSA_PUBLIC, RSA_PRIVATE.to_owned()),
        _ => same("a shared secret & more"),
    }
}

/// Every preset that can be signed for verifies what is signed for it, and nothing else.
#[test]
fn what_is_signed_for_a_preset_verifies() {
    let mut signed = Vec::new();
    for preset in presets() {
        let (private, public) = secrets(preset.name);
        let Ok(verifier) = Verifier::new(&preset.scheme, &[public.into()], &Arc::<KeyCache>::default())
        else {
            continue;
        };
        let now = Timestamp::now();
        let body = Bytes::from(format!(r#"{{"webhookTimestamp":{}}}"#, now.as_millisecond()));
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", "an-id".parse().unwrap());
        let hash = Encoding::Hex.encode(&<sha2::Sha256 as sha2::Digest>::digest(&body));
        let uri: Uri = format!("/integration/demo?bodySHA256={hash}").parse().unwrap();
        let public_url = Some("https://hooks.example/integration/demo");
        let unsigned = SignedRequest {
            method: &Method::POST,
            uri: &uri,
            headers: &headers,
            body: &body,
            now,
            public_url,
        };
        let proof = match sign(&preset.scheme, &private.into(), &unsigned, DELIVERY) {
            Ok(proof) if !proof.headers.is_empty() => proof,
            Ok(_) | Err(SignError::SendersKey | SignError::PrivateKey) => continue,
            Err(error) => panic!("{}: {error}", preset.name),
        };
        let mut headers = headers.clone();
        headers.extend(proof.headers.into_iter().map(|(name, value)| (Some(name), value)));
        let request = SignedRequest { headers: &headers, ..unsigned };
        assert!(verifier.verify(&request).is_ok_and(|verified| verified.signed()), "{}", preset.name);
        let other = Bytes::from_static(br#"{"webhookTimestamp":1}"#);
        let changed = verifier.verify(&SignedRequest { body: &other, ..request });
        assert!(changed.is_err() || !preset.scheme.covers_body(), "{}", preset.name);
        signed.push(preset.name);
    }
    for name in [
        "shopify",
        "woocommerce",
        "stripe",
        "discord",
        "sendgrid",
        "twilio",
        "hubspot",
        "mercado-pago",
        "basic",
    ] {
        assert!(signed.contains(&name), "{name} is none of {signed:?}");
    }
    assert!(signed.len() >= 35, "{}", signed.len());
}

#[test]
fn a_secret_that_does_not_fit_is_named() {
    let request = SignedRequest {
        method: &Method::POST,
        uri: &Uri::from_static("/integration/demo"),
        headers: &HeaderMap::new(),
        body: &Bytes::from_static(b"{}"),
        now: Timestamp::now(),
        public_url: None,
    };
    let error = |name: &str, secret: &str| {
        sign(&preset(name).unwrap().scheme, &secret.into(), &request, DELIVERY).unwrap_err()
    };
    assert_eq!(error("aws-sns", "arn:aws:sns:x"), SignError::SendersKey);
    assert_eq!(error("adobe-commerce", "no key"), SignError::PrivateKey);
    assert_eq!(error("discord", "00ff"), SignError::PrivateKey);
    assert_eq!(
        error("authorize-net", "not hex"),
        SignError::Secret(SecretProblem::Malformed(super::super::KeyForm::Hex))
    );
    assert_eq!(error("square", "a signature key"), SignError::Request(Reason::PublicUrlUnknown.into()));
    assert_eq!(error("bearer", "a\nb"), SignError::Header);
}

#[test]
fn the_wanted_spelling_is_taken() {
    let request = SignedRequest {
        method: &Method::POST,
        uri: &Uri::from_static("/"),
        headers: &HeaderMap::new(),
        body: &Bytes::new(),
        now: Timestamp::now(),
        public_url: None,
    };
    for (name, spelling, expect) in [
        ("shopify", "x-shopify-", "x-shopify-hmac-sha256"),
        ("shopify", "", "shopify-hmac-sha256"),
        ("svix", "svix-", "svix-signature"),
        ("standard-webhooks", "", "webhook-signature"),
        ("stripe", "x-", "stripe-signature"),
    ] {
        let secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".into();
        let delivery = Delivery { id: "msg_1", spelling };
        let proof = sign(&preset(name).unwrap().scheme, &secret, &request, delivery).unwrap();
        assert_eq!(proof.headers[0].0, expect);
    }
}

#[test]
fn a_proof_shows_no_secret() {
    let request = SignedRequest {
        method: &Method::POST,
        uri: &Uri::from_static("/"),
        headers: &HeaderMap::new(),
        body: &Bytes::new(),
        now: Timestamp::now(),
        public_url: None,
    };
    let proof = sign(&preset("bearer").unwrap().scheme, &"canary-token".into(), &request, DELIVERY).unwrap();
    assert_eq!(proof.headers[0].1, "Bearer canary-token");
    assert!(!format!("{proof:?}").contains("canary"));
}
