//! Tables of what isn't a signature, a time, a credential or a secret, with the reason that the log gives.

use std::fmt::Write;

use super::*;
use crate::signature::scheme::{Algorithm, Form, Signed};
use crate::source;

fn sample(preset: &str) -> Sample {
    let found = fixture().requests.into_iter().find(|sample| sample.preset == preset);
    found.unwrap_or_else(|| panic!("no sample of {preset}"))
}

/// The samples whose signature stands in a header, with the scheme and the header's name and value.
fn in_headers() -> impl Iterator<Item = (Sample, Signed<'static>, String, String)> {
    fixture().requests.into_iter().filter_map(|sample| {
        let scheme = match sample.preset().scheme {
            Scheme::Signed(signed) => signed,
            Scheme::AnyOf([Scheme::Signed(signed), ..]) if sample.secrets[0].starts_with("whsec_") => *signed,
            _ => return None,
        };
        let found = sample.headers.iter().find(|(_, value)| value.contains(&sample.signature));
        let (name, value) = found.map(|(name, value)| (name.clone(), value.clone()))?;
        Some((sample, scheme, name, value))
    })
}

#[test]
fn a_malformed_signature_is_refused_with_its_reason() {
    for (sample, scheme, name, value) in in_headers() {
        let verifier = sample.verifier(&sample.secrets()[..1]).unwrap();
        let reason = |value: &str| {
            let mut parts = sample.parts();
            parts.set(&name, value.as_bytes());
            parts.reason(&verifier)
        };
        let mut missing = sample.parts();
        missing.headers.remove(name.as_str());
        assert_eq!(missing.reason(&verifier), Some(Reason::MissingHeader), "{}", sample.preset);
        let mut doubled = sample.parts();
        doubled.headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        assert_eq!(doubled.reason(&verifier), Some(Reason::DuplicateHeader), "{}", sample.preset);
        assert_eq!(reason(""), Some(Reason::EmptySignature), "{}", sample.preset);
        assert_eq!(reason("é"), Some(Reason::NotText), "{}", sample.preset);

        let one = first_signature(&scheme, &sample.signature);
        let swap = |other: &str| reason(&value.replace(&one, other));
        assert_eq!(swap("!!!!"), Some(Reason::WrongEncoding), "{}", sample.preset);
        assert_eq!(swap(&format!("{one}!")), Some(Reason::WrongEncoding), "{}", sample.preset);
        let longer = scheme.encoding.encode(&[7; 2000]);
        for wrong in [scheme.encoding.encode(&[7; 3]), longer] {
            assert_eq!(swap(&wrong), Some(Reason::WrongLength), "{}", sample.preset);
        }
        if let Algorithm::Mac(algorithm) = scheme.algorithm {
            for length in [algorithm.length() - 1, algorithm.length() + 1] {
                assert_eq!(swap(&scheme.encoding.encode(&vec![7; length])), Some(Reason::WrongLength));
            }
            let right = scheme.encoding.encode(&vec![7; algorithm.length()]);
            assert_eq!(swap(&right), Some(Reason::Mismatch), "{}", sample.preset);
        }
        assert_eq!(swap(""), Some(Reason::EmptySignature), "{}", sample.preset);
    }
}

/// The signature alone, without what stands before it.
fn first_signature(scheme: &Signed<'_>, text: &str) -> String {
    let prefix = match scheme.form {
        Form::Whole { prefix } | Form::List { prefix, .. } => prefix,
        Form::Fields { .. } => "",
    };
    // `v1a,` of another version of the same scheme.
    let text = text.strip_prefix(prefix).unwrap_or(text);
    text.rsplit(',').next().unwrap_or(text).split(' ').next().unwrap_or(text).to_owned()
}

#[test]
fn prefixes_lists_and_fields_are_read_strictly() {
    let right = "0".repeat(64);
    let (w, n, m, t, f) = (
        Some(Reason::WrongPrefix),
        Some(Reason::NoKnownVersion),
        Some(Reason::Mismatch),
        Some(Reason::TooManySignatures),
        Some(Reason::MissingField),
    );
    let b64 = STANDARD.encode([0; 32]);
    let many = |count: usize, item: &str, separator: &str| vec![item; count].join(separator);
    for (preset, header, value, expect) in [
        ("github", "x-hub-signature-256", right.clone(), w),
        ("github", "x-hub-signature-256", format!("sha1={right}"), w),
        ("github", "x-hub-signature-256", format!("SHA256={right}"), w),
        ("github", "x-hub-signature-256", "sha256=".to_owned(), Some(Reason::EmptySignature)),
        ("github", "x-hub-signature-256", format!("sha256={right}{right}"), Some(Reason::WrongLength)),
        ("github", "x-hub-signature-256", format!("sha256={right}"), m),
        ("standard-webhooks", "webhook-signature", "v1,".to_owned(), Some(Reason::EmptySignature)),
        ("standard-webhooks", "webhook-signature", b64.clone(), n),
        ("standard-webhooks", "webhook-signature", format!("v2,{b64}"), n),
        ("standard-webhooks", "webhook-signature", format!("v1,{b64}"), m),
        ("standard-webhooks", "webhook-signature", many(16, &format!("v1,{b64}"), " "), m),
        ("standard-webhooks", "webhook-signature", many(17, &format!("v1,{b64}"), " "), t),
        ("stripe", "stripe-signature", format!("v1={right}"), f),
        ("stripe", "stripe-signature", "t=1533204620".to_owned(), n),
        ("stripe", "stripe-signature", format!("t=1533204620,v0={right}"), n),
        (
            "stripe",
            "stripe-signature",
            format!("t=1533204620,t=1533204620,v1={right}"),
            Some(Reason::DuplicateField),
        ),
        ("stripe", "stripe-signature", format!("t=1533204620;v1={right}"), n),
        ("stripe", "stripe-signature", format!("t=1533204620,{}", many(16, &format!("v1={right}"), ",")), m),
        ("stripe", "stripe-signature", format!("t=1533204620,{}", many(17, &format!("v1={right}"), ",")), t),
        ("stripe", "stripe-signature", format!("t=1533204620,v1={right},{}", many(99, "v0=x", ",")), t),
        ("stripe", "stripe-signature", format!("t=,v1={right}"), Some(Reason::MalformedTimestamp)),
    ] {
        let sample = sample(preset);
        let mut parts = sample.parts();
        parts.set(header, value.as_bytes());
        assert_eq!(parts.reason(&sample.signed_verifier()), expect, "{preset} {value}");
    }
}

#[test]
fn a_signed_time_is_plain_and_near() {
    for (preset, header, template) in [
        ("slack", "x-slack-request-timestamp", "TIME"),
        ("zoom", "x-zm-request-timestamp", "TIME"),
        ("discord", "x-signature-timestamp", "TIME"),
        ("standard-webhooks", "webhook-timestamp", "TIME"),
        ("bigcommerce", "webhook-timestamp", "TIME"),
        ("hubspot", "x-hubspot-request-timestamp", "TIME"),
        ("stripe", "stripe-signature", "t=TIME,v1=SIGNATURE"),
        ("paddle", "paddle-signature", "ts=TIME;h1=SIGNATURE"),
    ] {
        let sample = sample(preset);
        let (verifier, now) = (sample.signed_verifier(), sample.now().as_second());
        let (unit, scale) = if preset == "hubspot" { ("000", 1) } else { ("", 1) };
        let reason = |time: &str| {
            let mut parts = sample.parts();
            let value = template.replace("TIME", time).replace("SIGNATURE", &sample.signature);
            parts.set(header, value.as_bytes());
            parts.reason(&verifier)
        };
        let at = |offset: i64| format!("{}{unit}", now + offset * scale);
        assert_eq!(reason(&at(0)), None, "{preset}");
        assert_eq!(reason(&at(-300)), Some(Reason::Mismatch), "{preset}");
        assert_eq!(reason(&at(300)), Some(Reason::Mismatch), "{preset}");
        assert_eq!(reason(&at(-301)), Some(Reason::StaleTimestamp), "{preset}");
        assert_eq!(reason(&at(301)), Some(Reason::FutureTimestamp), "{preset}");
        assert_eq!(reason("0"), Some(Reason::StaleTimestamp), "{preset}");
        for time in
            ["1e3", "-0", "+1", "1.0", "01", "0x1", "9223372036854775808", "99999999999999999999", "now"]
        {
            assert_eq!(reason(time), Some(Reason::MalformedTimestamp), "{preset} {time}");
        }
    }
}

#[test]
fn the_time_of_a_body_counts_only_once_the_body_is_verified() {
    let sample = sample("linear");
    let (verifier, mut parts) = (sample.signed_verifier(), sample.parts());
    parts.now = sample.now() + Duration::from_secs(61);
    assert_eq!(parts.reason(&verifier), Some(Reason::StaleTimestamp));
    parts.body = Bytes::from_static(b"{}");
    assert_eq!(parts.reason(&verifier), Some(Reason::Mismatch));
}

#[test]
fn the_sender_signs_the_query_that_it_sends() {
    let mut parts = sample("twilio").parts();
    let verifier = sample("twilio").signed_verifier();
    parts.public_url = Some("https://mycompany.com/myapp.php?another=1#x".to_owned());
    assert_eq!(parts.reason(&verifier), None);
    parts.uri = "/myapp.php?foo=1&bar=3".parse().unwrap();
    assert_eq!(parts.reason(&verifier), Some(Reason::Mismatch));
    parts.public_url = None;
    assert_eq!(parts.reason(&verifier), Some(Reason::PublicUrlUnknown));
    let mut parts = sample("twilio").parts();
    parts.set("content-type", b"application/json");
    assert_eq!(parts.reason(&verifier), Some(Reason::BodyNotCovered));
    parts.uri = format!("/myapp.php?bodySHA256={}", "0".repeat(64)).parse().unwrap();
    assert_eq!(parts.reason(&verifier), Some(Reason::BodyHashMismatch));
}

#[test]
fn an_id_cannot_move_the_borders_of_what_is_signed() {
    let sample = sample("standard-webhooks");
    let (verifier, mut parts) = (sample.signed_verifier(), sample.parts());
    parts.set("webhook-id", b"msg.1649367553");
    assert_eq!(parts.reason(&verifier), Some(Reason::MalformedId));
    parts.headers.remove("webhook-id");
    assert_eq!(parts.reason(&verifier), Some(Reason::MissingHeader));
    // The other spelling's headers don't complete this one's.
    parts.set("svix-id", b"msg_27UH4WbU6Z5A5EzD8u03UvzRbpk");
    assert_eq!(parts.reason(&verifier), Some(Reason::MissingHeader));
}

#[test]
fn a_credential_stands_in_its_place_once() {
    let reason = |preset: &str, headers: &[(&str, &str)], query: &str| {
        let sample = sample(preset);
        let mut parts = sample.parts();
        parts.headers.clear();
        for (name, value) in headers {
            parts.headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        parts.uri = format!("/integration/demo{query}").parse().unwrap();
        parts.reason(&sample.signed_verifier())
    };
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let (none, wrong) = (Some(Reason::MissingHeader), Some(Reason::CredentialMismatch));
    let kind = Some(Reason::WrongCredentialKind);
    const AUTH: &str = "authorization";
    for (preset, header, value, query, expect) in [
        ("basic", "x-other", "x", "", none),
        ("basic", AUTH, basic("shop:correct horse").as_str(), "", None),
        ("basic", AUTH, &basic("shop:correct horse").replace("Basic", "bAsIc "), "", None),
        ("basic", AUTH, &basic("shop:correct horse "), "", wrong),
        ("basic", AUTH, &basic("shop:"), "", wrong),
        ("basic", AUTH, "Basic !", "", Some(Reason::WrongEncoding)),
        ("basic", AUTH, "Bearer x", "", kind),
        ("basic", AUTH, "Basic", "", kind),
        ("bearer", AUTH, "Bearer token-0123456789", "", None),
        ("bearer", AUTH, "Bearer token-012345678", "", wrong),
        ("bearer", AUTH, "token-0123456789", "", kind),
        ("bearer", AUTH, "", "", Some(Reason::EmptySignature)),
        ("api-key", "x-api-key", "key-0123456789", "?api_key=wrong", None),
        ("api-key", "x-api-key", "wrong", "?api_key=key-0123456789", wrong),
        ("api-key", "x-other", "x", "?token=key-0123456789", None),
        ("api-key", "x-other", "x", "?api_key=key-0123456789&api_key=x", Some(Reason::DuplicateParameter)),
        ("webrun", AUTH, "your-secret-token", "", wrong),
        ("gitlab", "x-gitlab-token", "wrong", "", wrong),
    ] {
        assert_eq!(reason(preset, &[(header, value)], query), expect, "{preset} {header}: {value} {query}");
    }
    let twice = [(AUTH, "Bearer token-0123456789"), (AUTH, "Bearer token-0123456789")];
    assert_eq!(reason("bearer", &twice, ""), Some(Reason::DuplicateHeader));
}

#[test]
fn a_proof_in_the_body_stands_in_every_part_of_it() {
    let state = |state: &str| format!(r#"{{"clientState":"{state}"}}"#);
    let ours = state("client-state-0123");
    for (body, expect) in [
        (format!(r#"{{"value":[{ours},{ours}]}}"#), None),
        (format!(r#"{{"value":[{ours},{}]}}"#, state("x")), Some(Reason::CredentialMismatch)),
        (format!(r#"{{"value":[{ours},{{}}]}}"#), Some(Reason::MissingMember)),
        (r#"{"value":[]}"#.to_owned(), Some(Reason::MissingMember)),
        (format!(r#"{{"value":[],"value":[{ours}]}}"#), Some(Reason::MissingMember)),
        (format!(r#"{{"value":[{ours}]"#), Some(Reason::MissingMember)),
        (String::new(), Some(Reason::MissingMember)),
    ] {
        let mut parts = sample("microsoft-graph").parts();
        parts.body = body.clone().into();
        assert_eq!(parts.reason(&sample("microsoft-graph").signed_verifier()), expect, "{body}");
    }
    for (preset, body, expect) in [
        ("cxml", "<cXML/>", Reason::MissingMember),
        ("cxml", "<cXML>", Reason::UnreadableBody),
        ("cxml", "<!DOCTYPE c [<!ENTITY a \"b\">]><cXML/>", Reason::UnreadableBody),
        ("mailgun", "{}", Reason::UnreadableBody),
        ("mailgun", "timestamp=1", Reason::MissingMember),
        ("mailgun", r#"{"signature":{"timestamp":"1","token":"2","signature":"3"}}"#, Reason::MalformedId),
        ("mailgun", r#"{"signature":{},"signature":{}}"#, Reason::UnreadableBody),
        ("ebay-platform", "<a/>", Reason::MissingMember),
    ] {
        let mut parts = sample(preset).parts();
        parts.body = body.into();
        assert_eq!(parts.reason(&sample(preset).signed_verifier()), Some(expect), "{preset} {body}");
    }
}

#[test]
fn a_fetched_key_is_the_senders_and_the_webhook_ours() {
    for (preset, header, value, expect) in [
        ("paypal", "paypal-cert-url", "https://evil.example/v1/notifications/certs/x", Reason::KeyUrlRefused),
        (
            "paypal",
            "paypal-cert-url",
            "https://api.paypal.com/v1/notifications/certs/x",
            Reason::KeyUnavailable,
        ),
        ("paypal", "paypal-auth-algo", "SHA1withRSA", Reason::UnknownAlgorithm),
        ("paypal", "paypal-transmission-id", "a|b", Reason::MalformedId),
        ("adobe-io-events", "x-adobe-public-key2-path", "/prod/keys/new.pem", Reason::KeyUnavailable),
        ("adobe-io-events", "x-adobe-public-key1-path", "//evil.example/x.pem", Reason::KeyUrlRefused),
        ("aws-sns", "x-amz-sns-rawdelivery", "true", Reason::UnsignedDelivery),
        ("ebay", "x-ebay-signature", "e30=", Reason::WrongEncoding),
    ] {
        let mut parts = sample(preset).parts();
        parts.set(header, value.as_bytes());
        assert_eq!(parts.reason(&sample(preset).signed_verifier()), Some(expect), "{preset} {value}");
    }
    for (preset, other) in
        [("adobe-io-events", "another-client-id"), ("aws-sns", "arn:aws:sns:us-west-2:999999999999:MyTopic")]
    {
        let verifier = sample(preset).verifier(&[other.into()]).unwrap();
        assert_eq!(sample(preset).parts().reason(&verifier), Some(Reason::WrongRecipient), "{preset}");
    }
    let verifier =
        Verifier::new(&preset("aws-sns").unwrap().scheme, &sample("aws-sns").secrets(), &Arc::default());
    let unverified = verifier.unwrap().verify(&sample("aws-sns").parts().request()).unwrap_err();
    assert!(unverified.is_temporary(), "{unverified}");
}

/// A digit that moves from the token to the time leaves the signed bytes as they were.
#[test]
fn mailguns_time_has_a_fixed_length() {
    let key = mac::MacKey::new(MacAlgorithm::HmacSha256, b"mailgun-signing-key").unwrap();
    let token = "8".repeat(50);
    let code = hex::encode(key.tag(&[b"1529006854".into(), token.as_bytes().into()]));
    let mut sample = sample("mailgun");
    sample.secrets = vec!["mailgun-signing-key".to_owned()];
    let verifier = sample.signed_verifier();
    for (timestamp, token, expect) in [
        ("1529006854", token.as_str(), None),
        ("15290068548", &token[1..], Some(Reason::MalformedId)),
        ("152900685", &format!("4{token}"), Some(Reason::MalformedId)),
    ] {
        let mut parts = sample.parts();
        parts.body = format!("timestamp={timestamp}&token={token}&signature={code}").into();
        assert_eq!(parts.reason(&verifier), expect, "{timestamp}");
    }
}

#[test]
fn a_header_with_a_secret_is_known_whatever_its_name() {
    let carries = |preset: &str, header: &'static str| {
        sample(preset).signed_verifier().carries(&HeaderName::from_static(header))
    };
    assert!(carries("paypal", "paypal-transmission-sig") && carries("shopify", "shopify-hmac-sha256"));
    assert!(carries("magento-mageplaza", "x-webhook-secret") && carries("basic", "authorization"));
    assert!(!carries("shopify", "x-shopify-topic") && !carries("slack", "x-slack-request-timestamp"));
    let maxun = sample("maxun").signed_verifier();
    assert!(maxun.carries_parameter("token") && !maxun.carries_parameter("id"));
    assert!(!Verifier::Unsigned.carries_parameter("token"));
}

#[test]
fn no_preset_works_without_a_good_secret() {
    for preset in source::presets() {
        let problems = |secrets: &[SecretString]| {
            Verifier::new(&preset.scheme, secrets, &Arc::default()).err().map(|problems| problems[0].1)
        };
        assert_eq!(problems(&[]), Some(SecretProblem::Missing), "{}", preset.name);
        assert_eq!(problems(&["".into()]), Some(SecretProblem::Empty), "{}", preset.name);
        assert_eq!(problems(&[" \n".into()]), Some(SecretProblem::Empty), "{}", preset.name);
        assert_eq!(problems(&["short".into()]), Some(SecretProblem::Short), "{}", preset.name);
        let right = fixture().requests.into_iter().find(|sample| sample.preset == preset.name).unwrap();
        // One bad secret beside a good one is still a problem, and it is named.
        let both: Vec<SecretString> = vec![right.secrets[0].as_str().into(), "".into()];
        let named = Verifier::new(&preset.scheme, &both, &Arc::default()).unwrap_err();
        assert!(named.contains(&(Some(1), SecretProblem::Empty)), "{} {named:?}", preset.name);
    }
    for (preset, secret, form) in [
        ("svix", "neither of the two", KeyForm::Whpk),
        ("adobe-commerce", "not a public key", KeyForm::Pem),
        ("discord", "not hexadecimal", KeyForm::Hex),
        ("authorize-net", "not hexadecimal", KeyForm::Hex),
        ("sendgrid", "not a key of theirs", KeyForm::Base64),
    ] {
        let scheme = source::preset(preset).unwrap().scheme;
        let problems = Verifier::new(&scheme, &[secret.into()], &Arc::default()).unwrap_err();
        assert_eq!(problems, [(Some(0), SecretProblem::Malformed(form))], "{preset}");
    }
}

#[test]
fn no_secret_is_printed() {
    for sample in fixture().requests {
        let mut printed = String::new();
        let verifier = sample.signed_verifier();
        write!(printed, "{verifier:?}").unwrap();
        let verified = verifier.verify(&sample.parts().request()).unwrap();
        write!(printed, "{verified:?}").unwrap();
        if let Verifier::Signed(checks) = &verifier {
            for check in checks.0.iter() {
                match &check.kind {
                    Kind::Signed(check) => write!(printed, "{check:?}"),
                    Kind::Credential(check) => write!(printed, "{check:?}"),
                    Kind::InBody(check) => write!(printed, "{check:?}"),
                    Kind::Mailgun(check) => write!(printed, "{check:?}"),
                    Kind::EbayPlatform(check) => write!(printed, "{check:?}"),
                    Kind::Fetched(check) => write!(printed, "{check:?}"),
                }
                .unwrap();
            }
        }
        let wrong = Sample { secrets: vec!["x".repeat(40)], ..sample.clone() };
        if let Ok(verifier) = wrong.verifier(&wrong.secrets()) {
            match verifier.verify(&sample.parts().request()) {
                Ok(verified) => write!(printed, "{verified:?}"),
                Err(unverified) => write!(printed, "{unverified:?} {unverified}"),
            }
            .unwrap();
        } else {
            write!(printed, "{:?}", wrong.verifier(&wrong.secrets()).unwrap_err()).unwrap();
        }
        for secret in sample.secrets.iter().chain(&wrong.secrets) {
            let bytes = format!("{:?}", secret.as_bytes());
            for form in [secret.clone(), STANDARD.encode(secret), hex::encode(secret), bytes] {
                assert!(form.len() < 4 || !printed.contains(&form), "{}: {printed}", sample.preset);
            }
        }
    }
}
