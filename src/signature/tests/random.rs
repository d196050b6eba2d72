//! Ten thousand wrong signatures for every scheme of every preset, and bytes that nobody thought of.

use proptest::prelude::*;

use super::*;
use crate::random::{Random, from_environment};
use crate::signature::mac::MacKey;
use crate::source;

/// What the random test tries in place of a signature: right in form, nearly right, and nonsense.
fn wrong(random: &mut Random, right: &str) -> String {
    let lengths = [20, 32, 48, 64, 71, 256];
    let any_length = lengths[random.index(lengths.len())];
    let prefix_end = right.find(['=', ',']).map_or(0, |index| index + 1);
    let prefix = &right[..prefix_end.min(right.len().saturating_sub(2))];
    match random.below(8) {
        0 => format!("{prefix}{}", hex::encode(random.bytes(any_length))),
        1 => format!("{prefix}{}", STANDARD.encode(random.bytes(any_length))),
        2 => hex::encode(random.bytes(any_length)),
        3 => STANDARD.encode(random.bytes(any_length)),
        4 => right[..random.index(right.len())].to_owned(),
        5 => format!("{right}{right}"),
        6 => right.chars().rev().collect(),
        _ => {
            let mut characters: Vec<char> = right.chars().collect();
            let (one, other) = (random.index(characters.len()), random.index(characters.len()));
            characters.swap(one, other);
            characters.into_iter().collect()
        }
    }
}

#[test]
fn ten_thousand_wrong_signatures_verify_nothing() {
    let seed = from_environment("SEED").unwrap_or(20_251_210);
    println!("SEED={seed}");
    let samples: Vec<Sample> = fixture().requests;
    let names: Vec<_> = source::names().enumerate().collect();
    std::thread::scope(|scope| {
        for share in names.chunks(names.len().div_ceil(4)) {
            let samples = &samples;
            scope.spawn(move || {
                for (index, name) in share {
                    let mut schemes = BTreeMap::new();
                    for sample in samples.iter().filter(|sample| sample.preset == *name) {
                        let verified = sample.signed_verifier().verify(&sample.parts().request()).unwrap();
                        schemes.entry(verified.proof().unwrap().scheme).or_insert(sample);
                    }
                    assert!(!schemes.is_empty(), "no sample of {name}");
                    for sample in schemes.values() {
                        verify_nothing(
                            sample,
                            &mut Random::new(seed.wrapping_add(u64::try_from(*index).unwrap())),
                        );
                    }
                }
            });
        }
    });
}

fn verify_nothing(sample: &Sample, random: &mut Random) {
    let verifier = sample.signed_verifier();
    let header = sample.headers.iter().find(|(_, value)| value.contains(&sample.signature));
    let mut parts = sample.parts();
    let texts = std::iter::repeat_with(|| wrong(random, &sample.signature));
    for text in texts.filter(|text| *text != sample.signature).take(10_000) {
        match header {
            Some((name, value)) => parts.set(name, value.replace(&sample.signature, &text).as_bytes()),
            None => {
                parts.body = sample.body.replace(&sample.signature, &text).into();
                let uri = sample.uri.replace(&sample.signature, &text.replace(['"', ' ', '<'], "-"));
                parts.uri = uri.parse().unwrap();
            }
        }
        assert!(parts.reason(&verifier).is_some(), "{}: {text}", sample.preset);
    }
}

proptest! {
    /// A signature over any bytes verifies them, and over none others.
    #[test]
    fn what_is_signed_verifies(body: Vec<u8>, other: Vec<u8>, key in "[ -~]{8,80}") {
        let scheme = preset("hmac").unwrap().scheme;
        let verifier = Verifier::new(&scheme, &[key.as_str().into()], &Arc::default());
        prop_assume!(key.trim().len() >= 8);
        let mut parts = fixture().requests[0].parts();
        let mac = MacKey::new(MacAlgorithm::HmacSha256, key.as_bytes()).unwrap();
        parts.set("x-signature", hex::encode(mac.tag(&[body.as_slice().into()])).as_bytes());
        parts.body = body.clone().into();
        let verifier = verifier.unwrap();
        prop_assert_eq!(parts.reason(&verifier), None);
        prop_assume!(other != body);
        parts.body = other.into();
        prop_assert!(parts.reason(&verifier).is_some());
    }

    /// Whatever a header holds, a verifier answers.
    #[test]
    fn any_header_is_answered(value in proptest::collection::vec(0x20..=0xFEu8, 0..300)) {
        let value: Vec<u8> = value.into_iter().filter(|byte| *byte != 0x7F).collect();
        for sample in fixture().requests.iter().filter(|sample| sample.keys.is_empty()) {
            let verifier = sample.signed_verifier();
            for name in sample.headers.keys().filter(|name| !name.eq_ignore_ascii_case("content-type")) {
                let mut parts = sample.parts();
                parts.set(name, &value);
                let _ = parts.reason(&verifier);
            }
        }
    }
}
